"""Drafters with more or fewer logits than their target, over the same pieces."""

import copy
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from fakes import END, START, FakeTarget, RuleDrafter, random_rule

from fastllm.decoding import speculate
from fastllm.decoding.race import Race
from fastllm.drafters import Drafter, drafter_class
from fastllm.drafters.combined import CombinedDrafter
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.ngram import NgramDrafter
from fastllm.drafters.width import FittedSession, fitted
from fastllm.targets import Encoding
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

FAMILIES = ("lstm", "cnn", "t5", "ngram", "lookup+lstm", "t5+lookup")


def drafter_of(family: str, size: int, vocabulary: str, texts: Sequence[Sequence[int]]) -> Drafter:
    """A drafter of `size` logits that says every id it knows now and then."""
    if family == "ngram":
        return NgramDrafter.fit(texts, order=2, vocabulary_size=size, vocabulary=vocabulary)
    if family == "lookup":
        return ArticleLookup()
    if "+" in family:
        parts = [drafter_of(part, size, vocabulary, texts) for part in family.split("+")]
        return CombinedDrafter(*parts)
    settings: dict[str, Any] = {"lstm": {"width": 12, "hidden": 16}, "cnn": {"width": 12}, "t5": {}}
    drafter: Any = drafter_class(family).fresh(
        size, vocabulary=vocabulary, start="ordinary", **settings[family]
    )
    return drafter


@pytest.fixture(scope="module")
def wide_target(tiny_target: HubTarget, story: str) -> HubTarget:
    """The tiny target with 20 rows behind its pieces, one of which it writes all the time."""
    model = copy.deepcopy(tiny_target.model)
    pieces = len(tiny_target.vocabulary.tokenizer)
    model.resize_token_embeddings(pieces + 20, mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight[pieces:] = 0
    before = HubTarget(model, tiny_target.vocabulary, name="before", source_length=96)
    race = Race(before, [None], story, DecodingConfig(max_new_tokens=4))
    list(race)
    with torch.no_grad():
        model.lm_head.weight[pieces + 7] = 1.1 * model.lm_head.weight[race.traces()[0].tokens[3]]
    return HubTarget(model, tiny_target.vocabulary, name="wide", source_length=96)


@pytest.mark.parametrize("engine", ["static", "transformers"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("surplus", [-20, 13])
def test_every_family_drafts_for_another_width(
    surplus: int, family: str, temperature: float, engine: str, wide_target: HubTarget, story: str
) -> None:
    target = HubTarget(
        wide_target.model, wide_target.vocabulary, name="wide", source_length=96, engine=engine
    )
    pieces = len(target.vocabulary.tokenizer)
    size = pieces + 20
    texts = [[5, 6, size + surplus - 1, 7, END]] * 3
    drafter = drafter_of(family, size + surplus, target.vocabulary.fingerprint, texts)
    for draft_length in ("fixed", "adaptive"):
        config = DecodingConfig(
            temperature=temperature, max_new_tokens=24, draft_length=draft_length
        )
        race = Race(target, [None, drafter], story, config)
        list(race)
        alone, helped = race.traces()
        assert helped.to_json()
        assert max(helped.tokens) < size
        if temperature == 0:
            assert helped.tokens == alone.tokens
            assert pieces + 7 in alone.tokens, "an id that a narrower drafter does not know"


class Given:
    """A drafter of single tokens, drawn from one row."""

    def __init__(self, row: Sequence[float]) -> None:
        self.row = row

    def begin(self, encoding: Encoding) -> Any:
        session = RuleDrafter(lambda written: self.row).begin(encoding)
        return fitted(session, len(self.row), encoding)


@pytest.mark.parametrize("rule", ["token", "block"])
@pytest.mark.parametrize("size", [3, 5, 8])
def test_the_text_stays_the_targets(rule: Any, size: int) -> None:
    """Two tokens, drawn by many seeds: counted against what the target alone is expected to say."""
    rule_of_target = random_rule(5, seed=2)
    given = Given([-30.0, -30.0, *[0.3 * at for at in range(size - 2)]])
    encoding = Encoding([2, 3], torch.zeros(1, 2, 1), 0.0, end_id=END, size=5)
    assert isinstance(given.begin(encoding), FittedSession) == (size != 5)
    count = 1500
    seen = dict.fromkeys(product(range(5), repeat=2), 0)
    for seed in range(count):
        config = DecodingConfig(
            gamma=2, temperature=1.0, max_new_tokens=2, seed=seed, verification=rule
        )
        rounds = speculate(
            FakeTarget(rule_of_target).begin(encoding), given.begin(encoding), config,
            start_id=START, end_id=(), statistics=False,
        )  # fmt: skip
        first, second = [token for entry in rounds for token in entry.tokens]
        seen[first, second] += 1
    p = torch.tensor(rule_of_target(())).softmax(-1)
    distance = 0.0
    for first, second in seen:
        after = torch.tensor(rule_of_target((first,))).softmax(-1)
        distance += abs(seen[first, second] / count - float(p[first] * after[second]))
    assert distance / 2 < 0.06


@pytest.mark.parametrize("family", ["lstm", "t5"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_drafter_of_nan_drafts_nothing(
    family: str, temperature: float, tiny_target: HubTarget, story: str
) -> None:
    """The text is the target's own; at temperature 0 its drafts are refused."""
    size = len(tiny_target.vocabulary.tokenizer)
    drafter: Any = drafter_of(family, size, tiny_target.vocabulary.fingerprint, [])
    with torch.no_grad():
        for weight in drafter.model.parameters():
            weight.fill_(float("nan"))
    for verification in ("auto", "token") if temperature else ("auto",):
        config = DecodingConfig(
            temperature=temperature, max_new_tokens=16, verification=verification
        )
        race = Race(tiny_target, [None, drafter], story, config)
        list(race)
        alone, helped = race.traces()
        assert "NaN" not in helped.dumps()
        if temperature == 0:
            assert helped.tokens == alone.tokens
        else:
            assert not any(entry.drafted for entry in helped.rounds)
            assert any(token != 0 for token in helped.tokens)
