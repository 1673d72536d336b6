"""Drafters cut out of the target: the parts, the search, and the command from end to end."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

from fastllm.checkpoints import load_drafter
from fastllm.cli.main import main
from fastllm.cli.prune import _clock
from fastllm.decoding.race import Race
from fastllm.distill.prune import (
    Budget,
    ByteCost,
    MaskedTarget,
    Score,
    Scores,
    Search,
    StepCost,
    Unit,
    kept_of,
    ridge,
    units_of,
)
from fastllm.distill.teacher import Teacher
from fastllm.drafters.kept import KeptLayer
from fastllm.drafters.neural import NeuralSession
from fastllm.drafters.shared import SharedDrafter
from fastllm.errors import DataError, SettingsError
from fastllm.pretrain.copying_start import t5_config
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary

EVERYTHING = tuple(KeptLayer(layer, *2 * (tuple(range(4)),), tuple(range(64))) for layer in (0, 1))
SETS = {
    "everything": EVERYTHING,
    "some of each": (
        KeptLayer(0, (1, 3), (0, 1, 2), tuple(range(0, 64, 3))),
        KeptLayer(1, (0,), (3,), (5, 9)),
    ),
    "no attention to the text": (KeptLayer(0, (), (0, 1), ()), KeptLayer(1, (), (2,), (1, 2, 3))),
    "the second layer alone": (KeptLayer(1, (0, 2, 3), (), tuple(range(10))),),
}


def _loud(model: T5ForConditionalGeneration) -> None:
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "Attention" in name:
                weights.mul_(3)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0
    )


@pytest.fixture(scope="module")
def plain(vocabulary: Vocabulary) -> HubTarget:
    """A random T5 of the shape of the first ones: ReLU, and one matrix for words in and out."""
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(t5_config(len(vocabulary.tokenizer), 64, 4, 2, 2, 64))
    _loud(model)
    return HubTarget(model.eval(), vocabulary, name="plain", source_length=96)


@pytest.fixture(scope="module")
def flan(vocabulary: Vocabulary) -> HubTarget:
    """A random T5 of FLAN's shape: gated, with an output of its own."""
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=len(vocabulary.tokenizer) + 28, d_model=64, d_kv=16, d_ff=64, num_heads=4,
        num_layers=2, feed_forward_proj="gated-gelu", decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    _loud(model)
    model.lm_head = nn.Linear(64, config.vocab_size, bias=False)
    nn.init.normal_(model.lm_head.weight)
    model.config.tie_word_embeddings = False
    model.config.scale_decoder_outputs = False
    return HubTarget(model.eval(), vocabulary, name="flan", source_length=96)


@pytest.fixture(params=["t5", "flan"])
def whole(request: pytest.FixtureRequest, plain: HubTarget, flan: HubTarget) -> HubTarget:
    return plain if request.param == "t5" else flan


@pytest.fixture(params=list(SETS))
def kept(request: pytest.FixtureRequest) -> tuple[KeptLayer, ...]:
    return SETS[request.param]


def _batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(2, 50, (2, 20), generator=generator)
    source[1, 13:] = 0
    return source, torch.randint(2, 50, (2, 11), generator=generator)


def test_cut_matrices_equal_masked_ones(whole: HubTarget, kept: tuple[KeptLayer, ...]) -> None:
    network = MaskedTarget(whole)
    network.kept = kept
    drafter = SharedDrafter.pruned(whole, kept)
    source, prefix = _batch()
    with torch.no_grad():
        masked, cut = network(source, prefix), drafter.model(source, prefix)
        assert (masked - cut).abs().max() < 1e-5 * max(1.0, float(masked.abs().max()))
        memory = drafter.model.remember(source)
        state = drafter.model.begin(memory)
        for place in range(prefix.shape[1]):
            features, state = drafter.model.step(memory, state, prefix[:, place])
            assert (drafter.model.logits(features) - cut[:, place]).abs().max() < 1e-4


def test_the_static_engine_drafts_the_same(
    whole: HubTarget, kept: tuple[KeptLayer, ...], story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = whole.encode(whole.vocabulary.encode(story, 60).ids)
    encoding = replace(encoding, states=encoding.states.to(torch.bfloat16).float())
    drafter = SharedDrafter.pruned(whole, kept)
    session = drafter.begin(encoding)
    network = drafter.model
    with torch.no_grad():
        words = torch.tensor([encoding.source_ids]), torch.tensor([[0, 7, 8, 20, 9]])
        network.t5.encoder.hold(encoding.source_ids, encoding.states[0])
        logits = network(*words)[0, -1]
    chosen = set(range(min(512, len(logits)))) | set(encoding.source_ids)
    draft = session.draft(
        [0, 7, 8, 20, 9], 1, DecodingConfig(temperature=1.0), torch.zeros(1, dtype=torch.float64)
    )
    left_out = sorted(set(range(len(logits))) - chosen)
    logits[left_out] = float("-inf")
    found = draft.q.row(0, len(logits))
    assert (found - logits.softmax(-1)).abs().max() < 1e-4
    assert isinstance(session, NeuralSession)


def test_an_empty_prune_is_the_target_itself(whole: HubTarget, story: str) -> None:
    drafter = SharedDrafter.pruned(whole, EVERYTHING)
    source, prefix = _batch(1)
    with torch.no_grad():
        network = MaskedTarget(whole)
        network.kept = EVERYTHING
        logits = drafter.model(source, prefix)
        states = network._encode(source, (source != 0).long())
        own = whole.model(
            encoder_outputs=states, attention_mask=(source != 0).long(), decoder_input_ids=prefix
        ).logits
        assert (logits - own).abs().max() < 1e-5 * float(own.abs().max())
    race = Race(whole, [None, drafter], story, DecodingConfig(gamma=4, max_new_tokens=24))
    for _ in race:
        pass
    alone, drafted = race.traces()
    assert drafted.tokens == alone.tokens
    assert len(drafted.rounds) < len(alone.rounds)


def test_an_article_may_hold_the_padding_id(plain: HubTarget) -> None:
    class Articles:
        def source(self, index: int) -> list[int]:
            return [50, 60, 0, 70, 0, 80, 1]

    network, prefix = MaskedTarget(plain), torch.tensor([[0, 7, 8, 9]])
    network.kept = EVERYTHING
    with torch.no_grad():
        found = network(torch.tensor([[*Articles().source(0), 0, 0]]), prefix)
    wanted = Teacher(plain, Articles()).logits([0], prefix)
    assert (found.softmax(-1) - wanted.softmax(-1)).abs().max() < 1e-5


def test_a_target_in_bfloat16_gives_a_drafter_in_bfloat16(plain: HubTarget, story: str) -> None:
    model = copy.deepcopy(plain.model).to(torch.bfloat16)
    half = HubTarget(model, plain.vocabulary, name="half", source_length=96)
    drafter = SharedDrafter.pruned(half, SETS["some of each"])
    encoding = half.encode(half.vocabulary.encode(story, 60).ids)
    uniforms = torch.zeros(3, dtype=torch.float64)
    draft = drafter.begin(encoding).draft([0], 3, DecodingConfig(), uniforms)
    assert len(draft.tokens) == 3
    assert drafter.model.t5.decoder.block[0].layer[0].SelfAttention.q.weight.dtype == model.dtype


def test_gradients_reach_every_matrix_and_nothing_of_the_target(flan: HubTarget) -> None:
    drafter = SharedDrafter.pruned(flan, SETS["some of each"])
    drafter.model.train()
    drafter.model(*_batch()).logsumexp(-1).sum().backward()
    for name, weight in drafter.model.named_parameters():
        if name in drafter.model.own_weights():
            assert weight.grad is not None, name
            assert weight.grad.abs().max() > 0, name
    assert flan.model.get_input_embeddings().weight.grad is None


def test_it_is_saved_and_loaded_like_any_other(
    whole: HubTarget, kept: tuple[KeptLayer, ...], tmp_path: Path
) -> None:
    drafter = SharedDrafter.pruned(whole, kept, name="cut")
    drafter.save(tmp_path, dtype=torch.float32)
    loaded = load_drafter(tmp_path, device="cpu")
    assert isinstance(loaded, SharedDrafter)
    assert loaded.settings.kept == kept
    assert loaded.name == "cut"
    loaded.bind(whole)
    source, prefix = _batch(2)
    with torch.no_grad():
        assert torch.equal(loaded.model(source, prefix), drafter.model(source, prefix))
    config = whole.model.config
    weights = sum(tensor.numel() for tensor in drafter._own_weights().values())
    assert ByteCost(config)(kept) == 2 * weights == 2 * drafter.parameters


@pytest.mark.parametrize(
    "kept",
    [
        (),
        (KeptLayer(0, (), (), ()),),
        (KeptLayer(0, (4,), (), ()),),
        (KeptLayer(0, (1, 0), (), ()),),
        (KeptLayer(0, (), (), (64,)),),
    ],
)
def test_parts_that_the_target_has_not_are_refused(
    plain: HubTarget, kept: tuple[KeptLayer, ...]
) -> None:
    with pytest.raises(SettingsError):
        SharedDrafter.pruned(plain, kept)


def test_units_are_every_part_once(plain: HubTarget) -> None:
    loud = [torch.arange(64.0), torch.arange(64.0).flip(0)]
    for kind, count in (("heads", 2 * (4 + 4 + 8)), ("sublayers", 6)):
        units = units_of(plain, kind, 8, loud)
        assert len(units) == count
        assert kept_of(units, frozenset(range(count))) == EVERYTHING
    heads = units_of(plain, "heads", 8, loud)
    groups = [unit.channels for unit in heads if unit.part == "columns" and unit.layer == 0]
    assert groups[0] == tuple(range(56, 64)), "the loudest columns stand together"


UNITS = [Unit(layer, part, (0,)) for layer in range(4) for part in ("own", "cross", "columns")]
WORTH = [0.2, 0.3, 0.001, 0.002, 0.1, 0.003, 0.15, 0.004, 0.0, 0.09, 0.005, 0.02]


def _score(on: frozenset[int]) -> Score:
    alpha = sum(WORTH[index] for index in on)
    return Score(alpha, alpha)


def _cost(kept: tuple[KeptLayer, ...]) -> float:
    return float(sum(len(row.own) + len(row.cross) + len(row.columns) for row in kept))


@pytest.mark.parametrize("how", ["regression", "greedy"])
def test_the_search_finds_what_is_worth_most(how: str) -> None:
    on = Search(UNITS, _score, _cost, 5.0, rounds=3, masks=40).run(how)
    assert on == {0, 1, 4, 6, 9}
    control = Search(UNITS, _score, _cost, 5.0, seed=1).run("random")
    assert len(control) == 5
    assert _score(control).alpha < _score(on).alpha


def test_a_budget_that_holds_all_keeps_all_and_one_that_holds_nothing_is_refused() -> None:
    assert Search(UNITS, _score, _cost, 12.0).run("regression") == frozenset(range(12))
    with pytest.raises(SettingsError, match="give more"):
        Search(UNITS, _score, _cost, 0.5).run("greedy")


def test_ridge_regression_tells_the_worth_of_each_part() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 2, (400, 6), generator=generator).double()
    truth = torch.tensor([0.5, -0.2, 0.0, 0.1, 0.9, 0.3], dtype=torch.float64)
    found = torch.tensor(ridge(masks.tolist(), (3 + masks @ truth).tolist()))
    assert (found - truth).abs().max() < 0.02


def test_scores_are_computed_once_and_kept(tmp_path: Path) -> None:
    asked = []

    def measure(kept: tuple[KeptLayer, ...]) -> Score:
        asked.append(kept)
        return Score(0.5, 0.25 * len(kept))

    file = tmp_path / "scores.jsonl"
    first = Scores(measure, UNITS, file)
    assert first(frozenset([0, 4])) == first(frozenset([4, 0])) == Score(0.5, 0.5)
    file.write_text(file.read_text() + '{"on": "3", "al')  # killed as it wrote
    again = Scores(measure, UNITS, file)
    assert again(frozenset([0, 4])) == Score(0.5, 0.5)
    assert len(asked) == 1
    file.write_text('[]\nnull\n7\n{}\n{"on": 3}\n')
    assert Scores(measure, UNITS, file)(frozenset([0, 4])) == Score(0.5, 0.5)
    assert len(asked) == 2, "what is damaged is measured again"


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"call": 1, "token": 2, "step": 3}'])
def test_a_damaged_clock_is_named(text: str, tmp_path: Path) -> None:
    place = tmp_path / "clock.json"
    place.write_text(text)
    with pytest.raises(DataError, match=r"clock\.json is damaged .*: remove it, and the same comm"):
        _clock(place)


def test_the_cost_of_a_step_is_told_from_measured_ones() -> None:
    truth = StepCost(
        50.0,
        {"own": 20.0, "cross": 15.0, "columns": 0.0},
        {"own": 3.0, "cross": 2.0, "columns": 0.1},
    )
    generator = torch.Generator().manual_seed(0)
    sets = []
    for _ in range(20):
        on = torch.rand(len(SETS) * 8, generator=generator) < 0.4
        many = [
            Unit(layer, part, (channel,))
            for layer in range(2)
            for part in ("own", "cross", "columns")
            for channel in range(4)
        ]
        sets.append(kept_of(many, frozenset(i for i in range(24) if on[i]) or frozenset([0])))
    found = StepCost.fit(sets, [truth(kept) for kept in sets])
    for kept in (*sets, EVERYTHING):
        assert abs(found(kept) - truth(kept)) < 0.05 * truth(kept)


def test_budgets_are_bytes_shares_or_microseconds() -> None:
    assert Budget.parse("500kB") == Budget(500e3, "bytes")
    assert Budget.parse("20%") == Budget(0.2, "share")
    assert Budget.parse(".3 ms") == Budget(300.0, "microseconds")
    for wrong in ("", "20", "200%", "0kB", "many"):
        with pytest.raises(SettingsError, match="--budget"):
            Budget.parse(wrong)


def test_the_command_prunes_resumes_and_trains(
    target: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "cut"
    asked = [
        *("prune", "--target", str(target), "--data", str(data), "--budget", "40%"),
        *("--run", str(run), "--masks", "8", "--rounds", "2", "--groups", "2", "--device", "cpu"),
        *("--length", "12"),
    ]
    assert main([*asked, "--dry-run"]) == 0
    assert "forward passes" in capsys.readouterr().out
    assert not run.exists(), "a dry run leaves nothing"
    assert main(asked) == 0
    table = capsys.readouterr().out
    for word in ("regression", "random 2", "speed-up"):
        assert word in table
    card = json.loads((run / "checkpoint" / "card.json").read_text())
    assert card["sets"][0]["share"] <= 0.4
    assert card["family"] == "shared"
    lines = next(run.glob("scores-*.jsonl")).read_text()
    before = (run / "checkpoint" / "config.json").read_text()
    assert main(asked) == 0
    assert next(run.glob("scores-*.jsonl")).read_text() == lines, "nothing is scored twice"
    assert (run / "checkpoint" / "config.json").read_text() == before
    texts, trained = tmp_path / "pseudo", tmp_path / "trained"
    common = ["--target", str(target), "--data", str(data), "--device", "cpu", "--length", "12"]
    assert main(["pseudo", *common, "--out", str(texts), "--limit", "16"]) == 0
    assert (
        main(
            [
                *("train", *common, "--drafter", "shared", "--start", str(run / "checkpoint")),
                *("--pseudo_dataset_path", str(texts), "--distill_method", "seq_kd"),
                *("--run", str(trained), "--updates", "2", "--batch", "4"),
            ]
        )
        == 0
    )
    drafter = load_drafter(trained / "checkpoint", device="cpu")
    assert isinstance(drafter, SharedDrafter)
    assert drafter.settings.kept == load_drafter(run / "checkpoint", device="cpu").settings.kept
    code = main(
        [
            *("eval", "--target", str(target), "--data", str(data / "validation.jsonl")),
            *("--ckpt_path", str(run / "checkpoint"), "--drafters", "none", "--device", "cpu"),
            *("--limit", "2", "--max_new_tokens", "12"),
        ]
    )
    assert code == 0, "the pruned drafter writes the target's own text"
