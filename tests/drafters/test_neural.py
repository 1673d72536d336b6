"""What every neural family promises, held for each."""

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
from fastllm.decoding.rules import Rules
from fastllm.distill.pseudo import write_pseudo
from fastllm.distill.train import DrafterRecipe, train_drafter
from fastllm.drafters import drafter_class
from fastllm.drafters.neural import (
    ArticleText,
    NeuralDrafter,
    NeuralSession,
    _drawn_there,
    roll_out,
)
from fastllm.errors import CheckpointError, NotFiniteError, SettingsError
from fastllm.targets import Encoding
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

SIZES: dict[str, dict[str, Any]] = {
    "lstm": {"width": 24, "hidden": 16, "mixing": 16, "places": 8},
    "cnn": {"width": 24, "channels": 16, "mixing": 16, "places": 8},
    "t5": {"width": 32, "heads": 4, "layers": 2, "feed_forward": 32},
}
SOURCE = [7, 8, 9, 10, 11, 12, 7, 13, 14, 15, 1]
GREEDY = DecodingConfig(gamma=4)
SAMPLING = DecodingConfig(gamma=4, temperature=0.8, top_p=0.9)
RULES = DecodingConfig(gamma=4, no_repeat_ngram=2, min_new_tokens=30)
READERS = ("lstm", "cnn")
NEURAL = tuple(SIZES)
"""The families that have a network of their own for one text."""


def _fresh(family: str, size: int = 50, **more: Any) -> NeuralDrafter[Any]:
    made = drafter_class(family).fresh(size, seed=2, vocabulary="0123", **{**SIZES[family], **more})
    assert isinstance(made, NeuralDrafter)
    return made


def _moved(drafter: NeuralDrafter[Any]) -> NeuralDrafter[Any]:
    """With weights that all matter: no norm is 1, no bias is 0."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for weight in drafter.model.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return drafter


@pytest.fixture(params=NEURAL)
def drafter(request: pytest.FixtureRequest) -> NeuralDrafter[Any]:
    return _fresh(request.param)


def _encoding() -> Encoding:
    return Encoding(SOURCE, torch.zeros(1, len(SOURCE), 4), 0.0)


def _uniforms(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def test_step_and_read_equal_forward(drafter: NeuralDrafter[Any]) -> None:
    model = drafter.model
    # The second article is padded, and the first longer than there are places.
    source = torch.tensor([SOURCE, [*SOURCE[:6], 1, 0, 0, 0, 0]])
    prefix = torch.randint(2, 50, (2, 12))
    with torch.no_grad():
        whole = model(source, prefix)
        memory = model.remember(source)
        state = model.begin(memory)
        states = [state]
        for place in range(12):
            features, state = model.step(memory, state, prefix[:, place])
            states.append(state)
            assert (model.logits(features) - whole[:, place]).abs().max() < 1e-5
        # Several at once, and again from states that were read from before.
        for begin, end in ((0, 12), (4, 9), (9, 11), (4, 5)):
            features, after = model.read(memory, states[begin], prefix[:, begin:end])
            assert (model.logits(features) - whole[:, begin:end]).abs().max() < 1e-5
            assert len(after) == end - begin
        features, _ = model.step(memory, after[-1], prefix[:, 5])
        assert (model.logits(features) - whole[:, 5]).abs().max() < 1e-5


def test_a_batch_equals_its_texts_alone(drafter: NeuralDrafter[Any]) -> None:
    prefix = torch.randint(2, 50, (2, 5))
    short = SOURCE[:6]
    with torch.no_grad():
        both = drafter.model(torch.tensor([SOURCE, [*short, 0, 0, 0, 0, 0]]), prefix)
        alone = torch.cat(
            [drafter.model(torch.tensor([ids]), prefix[row : row + 1])
             for row, ids in enumerate((SOURCE, short))]
        )  # fmt: skip
    assert (both - alone).abs().max() < 1e-5


@pytest.mark.parametrize("config", [GREEDY, SAMPLING], ids=["greedy", "sampling"])
def test_rolled_back_session_equals_a_fresh_one(
    drafter: NeuralDrafter[Any], config: DecodingConfig
) -> None:
    used = drafter.begin(_encoding())
    text = [0]
    for added in ([7, 8], [20], [9, 10, 11, 30], [12]):
        used.draft(text, 4, config, _uniforms(4))
        text += added
        used.accept(added)
    fresh = drafter.begin(_encoding())
    one = used.draft(text, 4, config, _uniforms(4, 1))
    other = fresh.draft(text, 4, config, _uniforms(4, 1))
    assert one.tokens == other.tokens
    for place in range(4):
        assert (one.q.row(place, 50) - other.q.row(place, 50)).abs().max() < 1e-5
    assert used.draft(text, 4, config, _uniforms(4, 1)).tokens == other.tokens


@pytest.mark.parametrize(("asked", "own"), [(None, None), (0.6, 0.4), (None, 0.6)])
def test_q_is_the_distribution_that_tokens_come_from(
    drafter: NeuralDrafter[Any], asked: float | None, own: float | None
) -> None:
    session = replace(drafter, draft_temperature=own).begin(_encoding())
    config = DecodingConfig(gamma=1, temperature=1.0, top_k=8, draft_temperature=asked)
    counts = torch.zeros(50)
    draws = 2000
    for uniform in _uniforms(draws, 3):
        draft = session.draft([0, 7], 1, config, uniform[None])
        counts[draft.tokens[0]] += 1
    q = draft.q.row(0, 50)
    with torch.no_grad():
        logits = drafter.model(torch.tensor([SOURCE]), torch.tensor([[0, 7]]))[0, -1]
    drawn_at = replace(config, temperature=asked or own or 1.0, draft_temperature=None)
    assert (q - distribution(logits, drawn_at)).abs().max() < 1e-5
    # A sum of many tiny chances is chi-square only where enough draws are expected.
    often = q * draws >= 5
    assert (q > 0).sum() == 8
    assert counts[q == 0].sum() == 0
    expected = torch.cat([q[often], q[~often].sum()[None]]) * draws
    found = torch.cat([counts[often], counts[~often].sum()[None]])
    chi_square = ((found - expected) ** 2 / expected.clamp(min=1e-9)).sum()
    assert often.sum() >= 2
    assert chi_square < 24.3  # at most 7 degrees of freedom, p = 0.001


def test_greedy_drafts_are_one_hot_and_show_their_confidence(drafter: NeuralDrafter[Any]) -> None:
    draft = drafter.begin(_encoding()).draft([0, 7], 3, GREEDY, _uniforms(3))
    assert draft.chances == [1, 1, 1]
    assert draft.unwarped is not None
    rows = [draft.unwarped(place) for place in range(3)]
    assert [int(row.argmax()) for row in rows] == draft.tokens
    assert all(row.sum() == pytest.approx(1) for row in rows)


def test_rollout_is_what_a_session_would_write(drafter: NeuralDrafter[Any]) -> None:
    source = torch.tensor([SOURCE, SOURCE])
    texts = roll_out(
        drafter.model,
        source,
        start_id=0,
        end_id=1,
        length=9,
        temperature=0,
        generator=torch.Generator(),
    )
    session = drafter.begin(_encoding())
    written = [0]
    while len(written) < 10 and written[-1] != 1:
        written += session.draft(written, 1, GREEDY, _uniforms(1)).tokens
    assert texts == [written[1:], written[1:]]
    begun = roll_out(
        drafter.model, source, start_id=0, end_id=1, length=9, temperature=0,
        generator=torch.Generator(), opening=[written[1:4], [9, 1]],
    )  # fmt: skip
    assert begun == [written[1:], [9, 1]], "what is given is read, and may end a text"


def test_any_of_several_end_tokens_ends_a_rollout(drafter: NeuralDrafter[Any]) -> None:
    def texts(end_id: int | tuple[int, ...]) -> list[list[int]]:
        return roll_out(
            drafter.model, torch.tensor([SOURCE, SOURCE[::-1]]), start_id=0, end_id=end_id,
            length=9, temperature=1.0, generator=torch.Generator().manual_seed(1),
        )  # fmt: skip

    whole = texts(99)  # which never comes
    ends = whole[0][3], whole[1][5]
    for text, longer in zip(texts(ends), whole, strict=True):
        end = next((at for at, token in enumerate(longer, 1) if token in ends), len(longer))
        assert text == longer[:end]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_is_written_by_weights_that_are_no_numbers(
    temperature: float, drafter: NeuralDrafter[Any]
) -> None:
    with torch.no_grad():
        for weight in drafter.model.parameters():
            weight.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="the drafter's logits are NaN or infinite"):
        roll_out(
            drafter.model, torch.tensor([SOURCE]), start_id=0, end_id=1, length=3,
            temperature=temperature, generator=torch.Generator(),
        )  # fmt: skip
    # On CUDA it is asked at the end, and until then the id has to be one.
    chances = torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.1, 0.2, float("nan"), 0.3]])
    for uniform, token in ((0.0, 0), (0.4, 0), (0.6, 2), (1.0, 2)):
        first, second = _drawn_there(chances, torch.full((2, 1), uniform, dtype=torch.float64))
        assert first == token
        assert 0 <= second < 4


@pytest.mark.parametrize("end", [1, 0], ids=["ends with 1", "ends with 0, as Marian's"])
def test_an_article_may_hold_the_padding_id(end: int, drafter: NeuralDrafter[Any]) -> None:
    _moved(drafter)
    source = [7, 0, 8, 9, 0, 10, end]
    padded = torch.tensor([[*source, 0, 0, 0, 0], SOURCE])
    session = drafter.begin(Encoding(source, torch.zeros(1, len(source), 4), 0.0))
    assert isinstance(session._model, ArticleText) == (drafter.FAMILY in READERS)
    draft = session.draft([0, 7], 3, GREEDY, _uniforms(3))
    assert draft.unwarped is not None
    prefix = torch.tensor([[0, 7, *draft.tokens[:-1]]] * 2)
    with torch.no_grad():
        trained = drafter.model(padded, prefix)[0, -3:].softmax(-1)
        masked = drafter.model(torch.tensor([[token for token in source if token]]), prefix[:1])
    for place, row in enumerate(trained):
        assert (draft.unwarped(place) - row).abs().max() < 1e-5
    assert (masked[0, -3:].softmax(-1) - trained).abs().max() > 1e-4, "it is read"


def test_an_article_of_nothing_but_0_is_drafted_for(drafter: NeuralDrafter[Any]) -> None:
    draft = drafter.begin(Encoding([0, 0], torch.zeros(1, 2, 4), 0.0)).draft(
        [0], 3, SAMPLING, _uniforms(3)
    )
    assert len(draft.tokens) == 3


def test_save_and_load(drafter: NeuralDrafter[Any], tmp_path: Path) -> None:
    drafter.save(tmp_path / "one")
    loaded = load_drafter(tmp_path / "one")
    assert type(loaded) is type(drafter)
    assert (loaded.name, loaded.vocabulary) == (drafter.FAMILY, "0123")
    assert loaded.settings == drafter.settings
    names = dict(drafter.model.named_parameters())
    for name, weights in loaded.model.named_parameters():
        assert torch.equal(weights, names[name].to(torch.bfloat16).float())
    weights = tmp_path / "one" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=f"not a whole {drafter.FAMILY} drafter"):
        type(drafter).load(tmp_path / "one")


@pytest.mark.parametrize("family", READERS)
def test_for_one_text_the_logits_are_those_of_the_network(family: str) -> None:
    drafter = _moved(_fresh(family))
    model, fast = drafter.model, drafter._one_text()
    assert fast is not None
    prefix = torch.randint(2, 50, (1, 12), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        whole = model(torch.tensor([SOURCE]), prefix)[0]
    spread = float(whole.max() - whole.min())
    memory = fast.remember(SOURCE)
    states = [fast.begin(memory)]
    for place, token in enumerate(prefix[0].tolist()):
        (features,), (state,) = fast.read(memory, states[-1], [token])
        assert (fast.logits(features) - whole[place]).abs().max() < 1e-5 * spread
        states.append(state)
    # Several at once, from states that were read from before.
    for begin, end in ((0, 12), (4, 9), (9, 10)):
        rows, after = fast.read(memory, states[begin], prefix[0, begin:end].tolist())
        assert len(rows) == len(after) == end - begin
        for place, features in enumerate(rows, begin):
            assert (fast.logits(features) - whole[place]).abs().max() < 1e-5 * spread


@pytest.mark.parametrize("config", [GREEDY, SAMPLING, RULES], ids=["greedy", "sampling", "rules"])
@pytest.mark.parametrize("family", READERS)
def test_for_one_text_the_drafts_are_those_of_the_network(
    family: str, config: DecodingConfig
) -> None:
    drafter = _moved(_fresh(family))
    fast = drafter.begin(_encoding())
    assert isinstance(fast._model, ArticleText)
    plain = NeuralSession(drafter.model, drafter.model.remember(torch.tensor([SOURCE])), 1)
    assert not isinstance(plain._model, ArticleText)
    fast._rules, plain._rules = Rules(1), Rules(1)
    text = [0]
    for turn in range(12):
        uniforms = _uniforms(4, turn)
        one = fast.draft(text, 4, config, uniforms)
        other = plain.draft(text, 4, config, uniforms)
        assert one.tokens == other.tokens
        assert one.unwarped is not None
        assert other.unwarped is not None
        for place in range(4):
            assert (one.q.row(place, 50) - other.q.row(place, 50)).abs().max() < 1e-5
            assert (one.unwarped(place) - other.unwarped(place)).abs().max() < 1e-5
        text += [*one.tokens[: turn % 5], 2 + 3 * turn]


@pytest.mark.parametrize("family", READERS)
def test_changed_weights_are_never_drafted_from_as_they_were(family: str) -> None:
    drafter = _fresh(family)
    optimizer = torch.optim.AdamW(drafter.model.parameters(), lr=0.05)

    def update() -> None:
        model = drafter.model
        loss = model(torch.tensor([SOURCE]), torch.tensor([[0, 20, 30]]))[0, :, 33].logsumexp(-1)
        (-loss).backward()
        optimizer.step()
        optimizer.zero_grad()

    def load() -> None:
        drafter.model.load_state_dict(_fresh(family, start="ordinary").model.state_dict())

    def replace() -> None:
        drafter.model.out.weight = torch.nn.Parameter(drafter.model.out.weight.detach() * -1)

    def logits() -> torch.Tensor:
        session = drafter.begin(_encoding())
        assert isinstance(session._model, ArticleText)
        draft = session.draft([0, 7, 8], 1, GREEDY, _uniforms(1))
        assert draft.unwarped is not None
        return draft.unwarped(0)

    seen = [logits()]
    made = drafter._one_text()
    assert drafter._one_text() is made  # as long as nothing changes
    for change in (update, load, replace):
        change()
        with torch.no_grad():
            expected = drafter.model(torch.tensor([SOURCE]), torch.tensor([[0, 7, 8]]))[0, -1]
        seen.append(logits())
        assert (seen[-1] - expected.softmax(-1)).abs().max() < 1e-5
        assert (seen[-1] - seen[-2]).abs().max() > 1e-4  # it did change


@pytest.mark.parametrize("family", READERS)
def test_what_the_fast_way_cannot_read_goes_the_plain_way(family: str) -> None:
    drafter = _fresh(family)
    drafter.model.double()
    assert drafter._one_text() is None
    assert len(drafter.begin(_encoding()).draft([0, 7], 3, GREEDY, _uniforms(3)).tokens) == 3
    with torch.inference_mode():  # nobody counts how often such weights change
        assert _fresh(family)._one_text() is None


@pytest.mark.parametrize("family", NEURAL)
def test_the_same_seed_gives_the_same_weights_and_disturbs_nobody(family: str) -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    one, other = _fresh(family), _fresh(family)
    assert torch.equal(torch.rand(1), expected)
    for mine, its in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, its)
    ordinary = _fresh(family, start="ordinary")
    assert any(
        not torch.equal(mine, its)
        for mine, its in zip(one.model.parameters(), ordinary.model.parameters(), strict=True)
    )


@pytest.mark.parametrize("family", NEURAL)
def test_what_cannot_be_made_is_refused(family: str) -> None:
    with pytest.raises(SettingsError, match="start='warm': give one of copying, ordinary"):
        _fresh(family, start="warm")
    with pytest.raises(SettingsError, match="has the sizes vocabulary_size, width"):
        _fresh(family, depth=3)
    with pytest.raises(SettingsError, match="width divisible by"):
        _fresh(family, width=25)


@pytest.mark.parametrize("family", NEURAL)
def test_ships_in_less_than_four_megabytes(family: str, tmp_path: Path) -> None:
    drafter_class(family).fresh(8192).save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4_000_000


@pytest.mark.parametrize("family", NEURAL)
def test_the_copying_start_copies_before_any_training(family: str) -> None:
    source = torch.randint(100, 300, (4, 40))
    text = source[:, 10:24]
    losses = {}
    for start in ("ordinary", "copying"):
        sizes = {"width": 96} if family == "t5" else {"width": 48}
        model = _fresh(family, 300, start=start, **sizes).model
        with torch.no_grad():
            logits = model(source, text[:, :-1])[:, 2:]
        losses[start] = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), text[:, 3:].flatten()
        ).item()
    assert losses["copying"] < 0.6 * losses["ordinary"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TokenPairs:
    """Articles of random ids; the text is what stands at a fixed place in the article."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(5)
    rows = []
    for index in range(64):
        source = torch.randint(100, 300, (30,), generator=generator).tolist()
        rows.append((f"a{index}", [*source, 1], [*source[4:14], 1]))
    write_pairs(folder, rows, {})
    return TokenPairs(folder)


@pytest.mark.parametrize("family", [family for family in NEURAL if family != "lstm"])
def test_distillation_aligns_with_the_target_and_keeps_its_text(
    family: str, tiny_target: HubTarget, dataset: TokenPairs, tmp_path: Path, story: str
) -> None:  # the LSTM's likewise: tests/distill/test_train.py
    written = write_pseudo(tiny_target, dataset, tmp_path / "pseudo", length=12, say=_quiet)
    recipe = DrafterRecipe(
        method="mixed_gkd", lambda2=0.2, updates=60, batch=8, learning_rate=3e-3, warmup=5,
        cooldown=10, length=12,
    )  # fmt: skip
    drafter = _fresh(family, tiny_target.model.config.vocab_size, width=48)
    drafter.vocabulary = tiny_target.vocabulary.fingerprint
    train_drafter(
        drafter.model, recipe, tmp_path / "run", dataset=dataset, written=written,
        target=tiny_target, say=_quiet,
    )  # fmt: skip
    lines = (tmp_path / "run" / "training.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < 0.8 * losses[0]
    race = Race(tiny_target, [None, drafter], story, DecodingConfig(gamma=4, max_new_tokens=24))
    for _ in race:
        pass
    alone, with_drafter = race.traces()
    assert with_drafter.tokens == alone.tokens
    assert any(entry.drafted for entry in with_drafter.rounds)


def _quiet(line: str) -> None:
    pass
