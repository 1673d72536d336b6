"""The drafter over the target's own encoder output."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastllm.checkpoints import load_drafter
from fastllm.data.tokens import TokenPairs, write_pairs
from fastllm.decoding.distributions import distribution
from fastllm.decoding.race import Race
from fastllm.distill.pseudo import write_pseudo
from fastllm.distill.train import DrafterRecipe, train_drafter
from fastllm.drafters.neural import NeuralSession, roll_out
from fastllm.drafters.shared import SharedDrafter, SharedSettings, TargetEncoder, fingerprint
from fastllm.errors import CheckpointError, SettingsError
from fastllm.targets import Encoding
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

GREEDY = DecodingConfig(gamma=4)
SAMPLING = DecodingConfig(gamma=4, temperature=0.8, top_p=0.9)
KINDS = [
    pytest.param({"layers": 1}, id="one layer"),
    pytest.param({"layers": 2}, id="two layers"),
]


def _fresh(target: HubTarget, **settings: Any) -> SharedDrafter:
    drafter = SharedDrafter.fresh(
        int(target.model.config.vocab_size),
        target=target,
        seed=3,
        start_id=target.start_id,
        vocabulary=target.vocabulary.fingerprint,
        **settings,
    )
    with torch.no_grad():  # away from the target, or nothing could go wrong
        for weight in drafter.model.own_weights().values():
            weight.mul_(1 + 0.1 * torch.randn_like(weight))
    return drafter


@pytest.fixture(params=KINDS)
def drafter(request: pytest.FixtureRequest, tiny_target: HubTarget) -> SharedDrafter:
    return _fresh(tiny_target, **request.param)


@pytest.fixture(scope="module")
def source_ids(tiny_target: HubTarget, story: str) -> list[int]:
    return tiny_target.vocabulary.encode(story, 60).ids


@pytest.fixture
def encoding(tiny_target: HubTarget, source_ids: list[int]) -> Encoding:
    return _offering(tiny_target, source_ids)


def _offering(target: HubTarget, source_ids: list[int]) -> Encoding:
    """An encoding that offers what the target's words are."""
    model = target.model
    offered = {
        "embedding": model.get_input_embeddings().weight,
        "output": model.get_output_embeddings().weight,
    }
    return replace(target.encode(source_ids), features=offered)


def _uniforms(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def test_step_and_read_equal_forward(drafter: SharedDrafter, source_ids: list[int]) -> None:
    model = drafter.model
    short = source_ids[:17]
    source = torch.tensor([source_ids, short + [0] * (len(source_ids) - len(short))])
    prefix = torch.randint(2, 50, (2, 12))
    with torch.no_grad():
        whole = model(source, prefix)
        alone = model(torch.tensor([short]), prefix[1:])
        assert (whole[1:] - alone).abs().max() < 1e-4, "a batch equals its texts alone"
        memory = model.remember(source)
        states = [model.begin(memory)]
        for place in range(12):
            features, state = model.step(memory, states[-1], prefix[:, place])
            states.append(state)
            assert (model.logits(features) - whole[:, place]).abs().max() < 1e-4
        for begin, end in ((0, 12), (4, 9), (9, 11), (4, 5)):
            features, after = model.read(memory, states[begin], prefix[:, begin:end])
            assert (model.logits(features) - whole[:, begin:end]).abs().max() < 1e-4
            assert len(after) == end - begin


@pytest.mark.parametrize("config", [GREEDY, SAMPLING], ids=["greedy", "sampling"])
@pytest.mark.parametrize("fits", [True, False], ids=["static", "general"])
def test_a_session_drafts_what_the_network_says(
    drafter: SharedDrafter,
    encoding: Encoding,
    fits: bool,
    config: DecodingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastllm.drafters.shared.FREQUENT", 30)
    # In training the encoder's output is rounded: here it is, too.
    encoding = replace(encoding, states=encoding.states.to(torch.bfloat16).float())
    if not fits:
        monkeypatch.setattr("fastllm.drafters.shared.unfit", lambda model: "a reason")
    used, text = drafter.begin(encoding), [0]
    for added in ([7, 8], [20], [9, 10, 11, 30], [12]):
        used.draft(text, 4, config, _uniforms(4))
        text += added
        used.accept(added)
    draft = used.draft(text, 4, config, _uniforms(4, 1))
    sure = drafter.begin(encoding)
    assert isinstance(sure, NeuralSession)
    plain = NeuralSession(sure._model, sure._memory, encoding.end_id)
    step_by_step = plain.draft(text, 4, config, _uniforms(4, 1))
    assert draft.tokens == step_by_step.tokens, "guessing ahead changes nothing"
    assert draft.tokens == used.draft(text, 4, config, _uniforms(4, 1)).tokens
    assert draft.tokens == drafter.begin(encoding).draft(text, 4, config, _uniforms(4, 1)).tokens
    with torch.no_grad():
        logits = drafter.model(
            torch.tensor([encoding.source_ids]), torch.tensor([[*text, *draft.tokens[:-1]]])
        )[0, -4:]
    if fits:  # words that are neither frequent nor the article's have no chance
        others = set(range(30, logits.shape[-1])) - set(encoding.source_ids)
        logits[:, sorted(others)] = float("-inf")
    for place, wanted in enumerate(distribution(logits, config)):
        found = draft.q.row(place, len(wanted))
        assert (found - wanted).abs().max() < 1e-3
        assert abs(float(found.sum()) - 1) < 1e-5


@pytest.mark.parametrize("fits", [True, False], ids=["static", "general"])
def test_an_article_may_hold_the_padding_id(
    drafter: SharedDrafter,
    tiny_target: HubTarget,
    fits: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not fits:
        monkeypatch.setattr("fastllm.drafters.shared.unfit", lambda model: "a reason")
    monkeypatch.setattr("fastllm.drafters.shared.FREQUENT", 600)  # all words
    source = [50, 60, 0, 70, 0, 80, 1]
    encoding = _offering(tiny_target, source)
    draft = drafter.begin(encoding).draft([0, 7], 3, GREEDY, _uniforms(3))
    assert draft.unwarped is not None
    text = torch.tensor([[0, 7, *draft.tokens[:-1]]])
    with torch.no_grad():
        trained = drafter.model(torch.tensor([[*source, 0, 0]]), text)[0, -3:].softmax(-1)
    for place, row in enumerate(trained):  # whose encoding is rounded
        assert (draft.unwarped(place) - row).abs().sum() / 2 < 0.01


def test_it_begins_as_the_target_itself(tiny_target: HubTarget, source_ids: list[int]) -> None:
    drafter = SharedDrafter.fresh(600, target=tiny_target, layers=2)
    source, prefix = torch.tensor([source_ids]), torch.randint(2, 50, (1, 9))
    with torch.no_grad():
        q = drafter.model(source, prefix)
        p = tiny_target.model(input_ids=source, decoder_input_ids=prefix).logits
    # The encoder's output is rounded to bfloat16 in training.
    assert (q.softmax(-1) - p.softmax(-1)).abs().max() < 0.05
    one = SharedDrafter.fresh(600, target=tiny_target, layers=1)
    assert one.parameters < drafter.parameters
    other = SharedDrafter.fresh(600, target=tiny_target, layers=1, start="ordinary")
    assert not torch.equal(
        one.model.t5.decoder.block[0].layer[0].SelfAttention.q.weight,
        other.model.t5.decoder.block[0].layer[0].SelfAttention.q.weight,
    )


def test_it_may_have_more_layers_than_its_target(
    tiny_target: HubTarget, source_ids: list[int]
) -> None:
    """Then some are taken twice, the first one too, whose biases are every layer's."""
    drafter = SharedDrafter.fresh(600, target=tiny_target, layers=5)
    own, theirs = drafter.model.t5.decoder.block, tiny_target.model.decoder.block
    weights = [block.layer[2].DenseReluDense.wi.weight for block in own]
    assert torch.equal(weights[1], theirs[0].layer[2].DenseReluDense.wi.weight)
    assert torch.equal(weights[4], theirs[1].layer[2].DenseReluDense.wi.weight)


@pytest.mark.parametrize("wrong", [{"distance": 0}, {"distance": 16}, {"buckets": 1}])
def test_positions_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="fewer than 2 distance"):
        SharedSettings(600, **wrong)


def test_a_checkpoint_holds_none_of_the_targets_weights(
    drafter: SharedDrafter, encoding: Encoding, tmp_path: Path
) -> None:
    drafter.save(tmp_path, dtype=torch.float32)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert 4 * drafter.parameters < size < 4 * drafter.parameters + 10_000
    loaded = load_drafter(tmp_path, device="cpu")
    assert isinstance(loaded, SharedDrafter)
    assert loaded.parameters == drafter.parameters
    assert loaded.settings == drafter.settings
    drafts = [
        some.begin(encoding).draft([0, 7, 8], 4, SAMPLING, _uniforms(4)).tokens
        for some in (drafter, loaded)
    ]
    assert drafts[0] == drafts[1]


def test_what_it_refuses(
    tiny_target: HubTarget, encoding: Encoding, source_ids: list[int], tmp_path: Path
) -> None:
    drafter = _fresh(tiny_target)
    drafter.save(tmp_path)
    unbound = load_drafter(tmp_path, device="cpu")
    with pytest.raises(CheckpointError, match="encoder states"):
        unbound.begin(Encoding(source_ids, torch.zeros(1, len(source_ids), 4), 0.0))
    with pytest.raises(CheckpointError, match="does not offer"):
        unbound.begin(replace(encoding, features={}))
    with pytest.raises(SettingsError, match="no encoder of its own"):
        unbound.model(torch.tensor([source_ids]), torch.tensor([[0]]))

    model = copy.deepcopy(tiny_target.model)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.5)
    other = HubTarget(model, tiny_target.vocabulary, name="other", source_length=96)
    assert fingerprint(model.shared.weight) != unbound.settings.target
    for attempt in (
        lambda: unbound.begin(_offering(other, source_ids)),
        lambda: unbound.bind(other),
        lambda: _fresh(tiny_target).begin(_offering(other, source_ids)),
    ):
        with pytest.raises(CheckpointError, match="was trained for the target"):
            attempt()
    assert unbound.begin(encoding).draft([0], 2, SAMPLING, _uniforms(2)).tokens

    with pytest.raises(SettingsError, match="layers of its target"):
        SharedDrafter.fresh(600)
    with pytest.raises(SettingsError, match="width"):
        SharedDrafter.fresh(600, target=tiny_target, width=32)
    with pytest.raises(SettingsError, match="give one of"):
        SharedDrafter.fresh(600, target=tiny_target, start="odd")
    (tmp_path / "config.json").write_text(json.dumps({"family": "shared", "settings": {}}))
    with pytest.raises(CheckpointError):
        SharedDrafter.load(tmp_path)


def test_every_lane_writes_what_the_target_writes(
    drafter: SharedDrafter, tiny_target: HubTarget, story: str
) -> None:
    race = Race(tiny_target, [None, drafter], story, DecodingConfig(gamma=3, max_new_tokens=30))
    list(race)
    alone, drafted = race.traces()
    assert drafted.tokens == alone.tokens


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("static", [True, False])
def test_it_takes_the_type_of_its_target(
    name: str,
    static: bool,
    tiny_target: HubTarget,
    source_ids: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_target.model.save_pretrained(tmp_path / "target")
    tiny_target.vocabulary.tokenizer.save_pretrained(tmp_path / "target")
    rounded = HubTarget.load(tmp_path / "target", device="cpu", load_in=name, source_length=96)
    _fresh(tiny_target).save(tmp_path / "drafter")
    drafter = load_drafter(tmp_path / "drafter", device="cpu")
    assert isinstance(drafter, SharedDrafter)
    if not static:
        monkeypatch.setattr(drafter, "_layers", lambda: None)
    session = drafter.begin(_offering(rounded, source_ids))
    draft = session.draft([0, 7], 3, SAMPLING, _uniforms(3))
    assert (draft.q.row(2, 600).sum() - 1).abs() < 1e-5
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[name]
    assert drafter.model.t5.shared.weight.dtype == dtype
    assert (drafter._layers() is not None) == static


def test_articles_are_encoded_once_and_kept_within_bounds() -> None:
    class Encoder(torch.nn.Module):
        seen = 0

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            Encoder.seen += len(input_ids)
            states = input_ids[..., None].float().expand(-1, -1, 4)
            return type("Output", (), {"last_hidden_state": states})

    source = torch.tensor([[5, 6, 7], [8, 9, 0]])
    for keep, encoded in ((1 << 20, 2), (0, 4)):
        Encoder.seen = 0
        encoder = TargetEncoder(Encoder(), keep)
        for _ in range(2):
            states = encoder(source, (source != 0).long()).last_hidden_state
            assert states[..., 0].tolist() == [[5, 6, 7], [8, 9, 0]]
        assert Encoder.seen == encoded


@pytest.mark.parametrize("method", ["supervised", "mixed_gkd"])
def test_training_moves_its_own_weights_alone(
    tiny_target: HubTarget, story: str, tmp_path: Path, method: str
) -> None:
    vocabulary = tiny_target.vocabulary
    rows = [
        (str(at), vocabulary.encode(story[at:], 40).ids, vocabulary.encode(story[at + 9 :], 12).ids)
        for at in range(0, 80, 10)
    ]
    meta = {"vocabulary": vocabulary.fingerprint, "source_length": 40}
    write_pairs(tmp_path / "pairs", rows, meta)
    dataset = TokenPairs(tmp_path / "pairs")
    written = write_pseudo(
        tiny_target, dataset, tmp_path / "written", length=12, say=lambda line: None
    )
    drafter = _fresh(tiny_target)
    before = {name: weight.clone() for name, weight in drafter.model.state_dict().items()}
    whole = [weight.clone() for weight in tiny_target.model.parameters()]
    share = {"lambda2": 0.5} if method == "mixed_gkd" else {}  # of its own texts
    first = train_drafter(
        drafter.model,
        DrafterRecipe(method=method, updates=3, batch=4, warmup=0, cooldown=0, length=12, **share),
        tmp_path / "run",
        dataset=dataset,
        written=written,
        target=tiny_target,
        log_every=1,
        say=lambda line: None,
    )
    assert first["loss"] > 0
    own = drafter.model.own_weights()
    moved = {name for name, weight in own.items() if not torch.equal(weight, before[name])}
    assert len(moved) > len(own) / 2
    assert all(
        torch.equal(weight, before[name])
        for name, weight in drafter.model.state_dict().items()
        if name not in own
    )
    assert all(map(torch.equal, whole, tiny_target.model.parameters()))


def test_its_own_texts_are_written_in_batches(
    drafter: SharedDrafter, source_ids: list[int]
) -> None:
    texts = roll_out(
        drafter.model,
        torch.tensor([source_ids, source_ids]),
        start_id=0,
        end_id=1,
        length=7,
        temperature=0.0,
        generator=torch.Generator(),
    )
    assert texts[0] == texts[1]
    text = [0, *texts[0]]
    with torch.no_grad():
        logits = drafter.model(torch.tensor([source_ids]), torch.tensor([text[:-1]]))[0]
    assert logits.argmax(-1).tolist() == texts[0]
