"""Drafts that end where the next token would not pay: the arithmetic, and sessions that obey."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import END, START, FakeSession, FakeTarget, Rule, random_rule

from fastllm.decoding import speculate
from fastllm.decoding.race import Race
from fastllm.drafters import Drafter, families, untrained
from fastllm.drafters.combined import CombinedDrafter
from fastllm.drafters.length import BELIEF, WEIGHT, LengthRule, confidence
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.neural import NeuralSession, OneText
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig, Round, Trace

SIZE = 12
IDS = {"start_id": START, "end_id": END}
ADAPTIVE = DecodingConfig(
    gamma=8, draft_length="adaptive", draft_cost=0.1, call_cost=0.1, max_new_tokens=20
)
FREE = replace(ADAPTIVE, draft_cost=0.0, call_cost=0.0)


# The arithmetic.


def test_a_draft_goes_on_while_the_gain_is_worth_the_cost() -> None:
    rule = LengthRule()
    rule.begin(ADAPTIVE)
    # After one sure token: 1 * (10 * 0.8 + 1) / 11, against 1 * 0.2.
    assert rule.goes_on(5, 1.0)
    assert rule.goes_on(5, 0.25)  # 0.5 * 9.5 / 12 is 0.40
    assert not rule.goes_on(5, 0.25)  # 0.25 * 10 / 13 is 0.19


def test_the_limit_rises_with_the_pace() -> None:
    rule = LengthRule()
    assert rule.pace == 1
    for _ in range(200):
        rule.begin(ADAPTIVE)
        for _ in range(4):
            assert rule.goes_on(5, 0.95)
        rule.accept(6)
    # 5 drafted tokens cost as much as one plain one: 6 tokens in the time of 2.
    assert rule.pace == pytest.approx((WEIGHT + 200 * 6) / (WEIGHT + 200 * 2))
    rule.begin(ADAPTIVE)
    assert not rule.goes_on(5, 0.36), "0.6 * 0.97 is less than 2.95 * 0.2"
    assert rule.goes_on(5, 1.0) is False, "what stopped once does not begin again"


def test_the_pace_is_never_below_that_of_plain_decoding() -> None:
    rule = LengthRule()
    for _ in range(50):
        rule.begin(ADAPTIVE)
        rule.accept(1)
    assert rule.pace == 1


def test_rounds_that_another_drafted_do_not_count() -> None:
    rule = LengthRule()
    rule.accept(9)
    assert rule.pace == 1
    rule.begin(ADAPTIVE)
    rule.accept(9)
    assert rule.pace == pytest.approx((WEIGHT + 9) / (WEIGHT + 1.2))


def test_nothing_is_drafted_behind_the_end() -> None:
    rule = LengthRule(END)
    rule.begin(FREE)
    assert rule.goes_on(5, 0.0)
    assert not rule.goes_on(END, 1.0)


def test_confidence_is_the_unwarped_probability() -> None:
    logits = 5 * torch.randn(300)
    for kind in (torch.float32, torch.bfloat16):
        row = logits.to(kind)
        for token in (0, int(row.argmax()), 299):
            assert confidence(row, token) == pytest.approx(float(row.float().softmax(-1)[token]))
    assert confidence(torch.tensor([0.0, float("-inf")]), 0) == 1


def test_what_is_believed_at_the_start_is_a_probability() -> None:
    assert 0 < BELIEF < 1


# Every family.


@pytest.fixture(scope="module")
def drafters(tiny_target: HubTarget, story: str) -> dict[str, Drafter]:
    """Untrained ones of every family that knows how sure it is, made surer than they are."""
    vocabulary, size = tiny_target.vocabulary, len(tiny_target.vocabulary.tokenizer)
    found: dict[str, Drafter] = {}
    for family, spec in families().items():
        kind: Any = spec.drafter
        if spec.training == "none":
            continue
        if family == "ngram":
            texts = [vocabulary.encode(story[at:], 60).ids for at in (0, 100, 200)]
            found[family] = kind.fit(texts, order=3, vocabulary_size=size, end_id=END)
            continue
        bound = {"target": tiny_target} if spec.bound_to_target else {}
        found[family] = kind.fresh(
            size, start_id=START, vocabulary=vocabulary.fingerprint, seed=2, **bound
        )
    found["combined"] = CombinedDrafter(ArticleLookup(), found["lstm"])
    return found


FAMILIES = [*(family for family in families() if family not in untrained()), "combined"]


def raced(target: HubTarget, drafter: Drafter | None, story: str, config: DecodingConfig) -> Trace:
    race = Race(target, [drafter], story, config, statistics=False)
    list(race)
    return race.traces()[0]


def decisions(trace: Trace) -> list[tuple[object, ...]]:
    return [(r.drafted, r.accepted, r.extra) for r in trace.rounds]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_greedy_text_stays_and_free_tokens_are_all_drafted(
    tiny_target: HubTarget, story: str, drafters: dict[str, Drafter], family: str
) -> None:
    alone = raced(tiny_target, None, story, ADAPTIVE)
    drafter = drafters[family]
    lengths: set[int] = set()
    for cost in (0.02, 0.1):
        config = replace(ADAPTIVE, draft_cost=cost, call_cost=0.0)
        trace = raced(tiny_target, drafter, story, config)
        assert trace.tokens == alone.tokens
        lengths |= {len(entry.drafted) for entry in trace.rounds[:-1]}
    assert max(lengths) <= ADAPTIVE.gamma
    assert len(lengths) > 1
    fixed = replace(FREE, draft_length="fixed")
    for temperature in (0.0, 1.0):
        free, whole = (
            raced(tiny_target, drafter, story, replace(config, temperature=temperature))
            for config in (FREE, fixed)
        )
        assert decisions(free) == decisions(whole)


# Exactness with the real rule.


class Table(OneText):
    """A network that is a table; its states are what it has read."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def begin(self, memory: Any) -> tuple[int, ...]:
        return ()

    def read(
        self, memory: Any, state: tuple[int, ...], tokens: Sequence[int]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        states = [(*state, *tokens[: count + 1]) for count in range(len(tokens))]
        return states, states

    def logits(self, features: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(self._rule(features[1:]))


def session(rule: Rule, ahead: bool = False) -> NeuralSession:
    if ahead:
        encoding = FakeTarget(rule).encode([4, 5, 6, 4, 7, END])
        return NeuralSession(Table(rule), None, END, ArticleLookup().begin(encoding))
    return NeuralSession(Table(rule), None, END)


def run(rule: Rule, drafting: NeuralSession, config: DecodingConfig) -> list[Round]:
    return list(speculate(FakeSession(rule), drafting, config, statistics=False, **IDS))


def test_a_sure_drafter_drafts_more() -> None:
    rule = random_rule(SIZE, seed=1, end_bias=-20.0)
    drafted = []
    for scale in (0.5, 3.0, 12.0):
        sure = random_rule(SIZE, seed=1, scale=scale, end_bias=-20.0)
        rounds = run(rule, session(sure), replace(ADAPTIVE, max_new_tokens=40))
        lengths = [len(entry.drafted) for entry in rounds]
        assert max(lengths) <= ADAPTIVE.gamma
        drafted.append(sum(lengths) / len(rounds))
    assert drafted[0] < drafted[1] < drafted[2]
    assert drafted[0] < 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_guess_read_ahead_changes_no_draft(temperature: float) -> None:
    config = replace(ADAPTIVE, temperature=temperature, seed=3)
    for seed in range(8):
        rule, other = random_rule(SIZE, seed=seed), random_rule(SIZE, seed=seed, scale=4.0)
        one, ahead = (run(rule, session(other, kind), config) for kind in (False, True))
        assert [(r.drafted, r.accepted, r.extra) for r in one] == [
            (r.drafted, r.accepted, r.extra) for r in ahead
        ]


@pytest.mark.parametrize("rule", ["token", "block"])
def test_sampled_texts_follow_the_target(rule: str) -> None:
    """Of 600 seeds, against the target's exact chances of the first three tokens."""
    size, runs = 5, 600
    target, drafter = random_rule(size, seed=2), random_rule(size, seed=9)
    config = DecodingConfig(
        gamma=3,
        temperature=1.0,
        max_new_tokens=3,
        verification=rule,
        draft_length="adaptive",
        draft_cost=0.1,
        call_cost=0.1,
    )
    counts: Counter[tuple[int, ...]] = Counter()
    lengths: set[int] = set()
    for seed in range(runs):
        rounds = run(target, session(drafter), replace(config, seed=seed))
        lengths |= {len(entry.drafted) for entry in rounds}
        counts[tuple(token for entry in rounds for token in entry.tokens)] += 1
    assert len(lengths) > 1
    for text, count in counts.items():
        chance = 1.0
        for place, token in enumerate(text):
            chance *= float(torch.tensor(target(text[:place])).softmax(-1)[token])
        spread = (runs * chance * (1 - chance)) ** 0.5
        assert abs(count - runs * chance) < 4.5 * spread + 1, text


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_ends_before_the_drafter_is_unsure(temperature: float) -> None:
    rule = random_rule(SIZE, seed=1, end_bias=-20.0)
    config = DecodingConfig(
        gamma=8, temperature=temperature, draft_length="confidence", fallback_threshold=0.45
    )
    uniforms = torch.rand(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lengths = set()
    for first in range(2, SIZE):
        text = [START, first]
        found = session(rule).draft(text, 8, config, uniforms)
        whole = session(rule).draft(text, 8, replace(config, draft_length="fixed"), uniforms)
        assert found.tokens == whole.tokens[: len(found.tokens)]
        assert whole.unwarped is not None
        sure = [float(whole.unwarped(place).max()) >= 0.45 for place in range(8)]
        assert len(found.tokens) == [*sure, False].index(False)
        lengths.add(len(found.tokens))
    assert 0 in lengths
    assert max(lengths) > 1
