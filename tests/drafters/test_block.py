"""The drafter that writes a whole draft in one call."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fastllm.checkpoints import load_drafter
from fastllm.data.tokens import TokenPairs, write_pairs
from fastllm.decoding.distributions import distribution
from fastllm.decoding.race import Race
from fastllm.distill.train import DrafterRecipe, train_drafter
from fastllm.drafters.block import MASK, BlockDrafter
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

BLOCK = 4


def fresh(target: HubTarget, **settings: Any) -> BlockDrafter:
    drafter = BlockDrafter.fresh(
        int(target.model.config.vocab_size),
        target=target,
        start_id=target.start_id,
        vocabulary=target.vocabulary.fingerprint,
        **{"block": BLOCK, "rank": 3, **settings},
    )
    with torch.no_grad():  # away from the target, and with a Markov head that says something
        for weight in drafter.model.own_weights().values():
            weight.mul_(1 + 0.1 * torch.randn_like(weight))
        drafter.model.markov.after.weight.normal_(0, 2)
    return drafter


@pytest.fixture(scope="module")
def drafter(tiny_target: HubTarget) -> BlockDrafter:
    torch.manual_seed(5)
    return fresh(tiny_target)


@pytest.fixture(scope="module")
def encoding(tiny_target: HubTarget, story: str) -> Encoding:
    return tiny_target.encode(tiny_target.vocabulary.encode(story, 60).ids)


def uniforms(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("read", [1, 2, 5, 9])
def test_a_draft_is_what_training_predicts_of_a_block(
    drafter: BlockDrafter, encoding: Encoding, read: int, static: bool, temperature: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not static:
        monkeypatch.setattr("fastllm.drafters.shared.unfit", lambda model: "a reason")
    monkeypatch.setattr("fastllm.drafters.shared.FREQUENT", 10_000)  # all words
    config = DecodingConfig(gamma=BLOCK, temperature=temperature)
    text = [0, *range(20, 19 + read)]
    session = drafter.begin(encoding)
    session.draft(text[:1], BLOCK, config, uniforms(BLOCK, 7))  # which is then gone back on
    draft = session.draft(text, BLOCK, config, uniforms(BLOCK))
    anew = drafter.begin(encoding).draft(text, BLOCK, config, uniforms(BLOCK))
    assert draft.tokens == anew.tokens
    assert len(draft.tokens) == BLOCK
    prefix = torch.tensor([[*text, *draft.tokens[:-1]]])
    model = drafter.model
    with torch.no_grad():
        # As in decoding: states that were not rounded on their way.
        model.t5.encoder.hold(encoding.source_ids, encoding.states[0])
        cut = (len(text) - 1) % BLOCK  # so that a block begins with the last token of the text
        logits = model.in_blocks(torch.tensor([encoding.source_ids]), prefix, cut)[0, -BLOCK:]
        model.t5.encoder._held = None
    if temperature == 0:
        assert draft.tokens == logits.argmax(-1).tolist()
    for place, wanted in enumerate(distribution(logits, config)):
        found = draft.q.row(place, len(wanted))
        assert (found - wanted).abs().max() < 1e-4
    assert draft.unwarped is not None
    raw = torch.stack([draft.unwarped(place) for place in range(BLOCK)])
    assert (raw - logits.softmax(-1)).abs().max() < 1e-4


def test_each_place_sees_its_block_and_no_more(
    tiny_target: HubTarget, drafter: BlockDrafter, encoding: Encoding
) -> None:
    drafter.bind(tiny_target)
    source = torch.tensor([encoding.source_ids])
    prefix = torch.arange(20, 31)[None]
    with torch.no_grad():
        whole = drafter.model.in_blocks(source, prefix, 2)
        for changed in range(11):
            other = prefix.clone()
            other[0, changed] = 300
            differs = (drafter.model.in_blocks(source, other, 2) - whole).abs().amax(-1)[0] > 1e-6
            # Blocks begin at the places 0, 2, 6 and 10; the Markov head reads the place itself.
            after = next((at for at in (0, 2, 6, 10) if at >= changed), 11)
            wanted = [at >= after or at == changed for at in range(11)]
            assert differs.tolist() == wanted
        step = drafter.model.remember(source), drafter.model.begin(drafter.model.remember(source))
        features, _ = drafter.model.read(step[0], step[1], prefix)
        plain = drafter.model.logits(features)
    for first in (0, 2, 6, 10):  # the first of a block is drafted as ever
        assert (plain[0, first] - whole[0, first]).abs().max() < 1e-4


def test_the_cuts_differ_from_batch_to_batch(
    tiny_target: HubTarget, drafter: BlockDrafter, encoding: Encoding
) -> None:
    drafter.bind(tiny_target)
    source = torch.tensor([encoding.source_ids])
    with torch.no_grad():
        for more in range(BLOCK):
            prefix = torch.tensor([[0, 20, 24, 28 + more]])
            wanted = drafter.model.in_blocks(source, prefix, (72 + more) % BLOCK)
            assert torch.equal(drafter.model(source, prefix), wanted)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_races(
    tiny_target: HubTarget, drafter: BlockDrafter, story: str, temperature: float, tmp_path: Path
) -> None:
    drafter.save(tmp_path)
    loaded = load_drafter(tmp_path)
    assert isinstance(loaded, BlockDrafter)
    assert loaded.settings == drafter.settings
    config = DecodingConfig(max_new_tokens=24, gamma=6, temperature=temperature)
    race = Race(tiny_target, [None, loaded], story, config)
    list(race)
    alone, helped = race.traces()
    assert max(len(entry.drafted) for entry in helped.rounds) == BLOCK, "no more than a block"
    if temperature == 0:
        assert alone.tokens == helped.tokens


def test_drafts_may_be_of_adaptive_length(drafter: BlockDrafter, encoding: Encoding) -> None:
    config = DecodingConfig(gamma=BLOCK, draft_length="adaptive", draft_cost=0.9, call_cost=0.9)
    draft = drafter.begin(encoding).draft([0, 20], BLOCK, config, uniforms(BLOCK))
    assert len(draft.tokens) == 1


def test_training_teaches_it_blocks(
    tiny_target: HubTarget, drafter: BlockDrafter, story: str, tmp_path: Path
) -> None:
    source = tiny_target.vocabulary.encode(story, 30).ids
    text = [*range(40, 52), 1]
    write_pairs(tmp_path / "pairs", [(str(at), source, text) for at in range(4)], {})
    pairs = TokenPairs(tmp_path / "pairs")
    size = int(tiny_target.model.config.vocab_size)
    learner = BlockDrafter.fresh(
        size, target=tiny_target, start_id=tiny_target.start_id, block=BLOCK
    )
    embedding = tiny_target.model.shared.weight.clone()
    recipe = DrafterRecipe(updates=120, batch=4, learning_rate=0.01, warmup=5, cooldown=40)
    last = train_drafter(learner.model, recipe, tmp_path / "run", dataset=pairs, say=lambda _: None)
    assert last["loss"] < 1
    assert torch.equal(tiny_target.model.shared.weight, embedding), "the target stays what it is"
    config = DecodingConfig(gamma=BLOCK, no_repeat_ngram=0, min_new_tokens=0)
    written = learner.begin(tiny_target.encode(source))
    # Four times the same text: its blocks begin at every fourth place.
    draft = written.draft([0, *text[:4]], BLOCK, config, uniforms(BLOCK))
    assert draft.tokens == text[4:8], "a block at once, from a text without it"


def test_sizes_that_are_none_are_refused(tiny_target: HubTarget) -> None:
    with pytest.raises(SettingsError, match="every size must be above 0"):
        fresh(tiny_target, rank=0)
    with pytest.raises(SettingsError, match="give `layers`, `block`, `rank` alone"):
        fresh(tiny_target, width=3)
    assert MASK == tiny_target.pad_id
