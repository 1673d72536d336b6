"""The proof by enumeration that verification is exact.

`block_distribution` runs a rule of verification on every possible draft and every outcome of every
uniform number. A rule's outcome is constant between a few breakpoints of each uniform, so
evaluating it once in each cell and weighting with the cell's size gives exact probabilities: no
sampling, no noise. That a cell holds one outcome is checked at its edges.
"""

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise, product

import pytest
import torch

from fastllm.decoding.distributions import distribution, draw, forbid
from fastllm.decoding.proposals import (
    DenseProposal,
    Draft,
    JoinedProposal,
    OneHotProposal,
    Proposal,
)
from fastllm.decoding.rules import Rules
from fastllm.decoding.verification import (
    BlockRule,
    DrawingRule,
    LenientRule,
    RollbackRule,
    TokenRule,
    Verdict,
    judge,
    rule_of,
)
from fastllm.drafters.length import LengthRule
from fastllm.errors import VocabularyError
from fastllm.trace import DecodingConfig

Table = Callable[[tuple[int, ...]], torch.Tensor]
"""What was written -> a distribution, shape (V,), float64."""

Verify = Callable[[torch.Tensor, Draft, torch.Tensor], Verdict]

Stops = Callable[[tuple[int, ...]], bool]
"""What was drafted so far -> whether the draft ends there."""

verify: Verify = TokenRule().verify
by_block: Verify = BlockRule().verify
EXACT = {"token": verify, "block": by_block}
RULES: dict[str, DrawingRule] = {"token": TokenRule(), "block": BlockRule()}
LAST = 1 - 2**-53
"""The largest float64 below 1."""

EDGE = 1e-9


def random_table(size: int, seed: int, zeros: float = 0.0) -> Table:
    """A random distribution behind every prefix; a share of its entries is exactly 0.

    Each depends on its prefix alone, and not on what was asked for before it.
    """

    @cache
    def row(written: tuple[int, ...]) -> torch.Tensor:
        numbers = random.Random(f"{seed} {written}")
        plain = [numbers.random() ** 2 for _ in range(size)]
        kept = [0.0 if numbers.random() < zeros else weight for weight in plain]
        weights = torch.tensor(kept if any(kept) else [1.0] + kept[1:], dtype=torch.float64)
        return weights / weights.sum()

    return row


def one_hot_table(size: int, seed: int) -> Table:
    inner = random_table(size, seed)

    def row(written: tuple[int, ...]) -> torch.Tensor:
        best = inner(written).argmax()
        return torch.zeros(size, dtype=torch.float64).index_fill_(0, best, 1.0)

    return row


def dense(rows: torch.Tensor, tokens: Sequence[int]) -> Proposal:
    return DenseProposal(rows)


def one_hot(rows: torch.Tensor, tokens: Sequence[int]) -> Proposal:
    return OneHotProposal(torch.tensor(tokens, dtype=torch.long))


def block_distribution(
    rule: Verify,
    target: Table,
    drafter: Table,
    gamma: int,
    size: int,
    form: Callable[[torch.Tensor, Sequence[int]], Proposal] = dense,
    stops: Stops = lambda drafted: False,
) -> dict[tuple[int, ...], float]:
    """The exact joint distribution of the next gamma + 1 tokens if `rule` verifies.

    What a round leaves unwritten of them is written by the target alone.
    """
    found = dict.fromkeys(product(range(size), repeat=gamma + 1), 0.0)
    for chance, tokens, verdict in outcomes(rule, target, drafter, gamma, size, form, stops):
        written = (*tokens[: verdict.accepted], verdict.extra)
        for rest in product(range(size), repeat=gamma + 1 - len(written)):
            following = 1.0
            for place in range(len(written), gamma + 1):
                text = written + rest
                following *= float(target(text[:place])[text[place]])
            found[written + rest] += chance * following
    return found


def drafts(gamma: int, size: int, stops: Stops) -> Iterator[tuple[int, ...]]:
    """Every draft of a drafter that ends at gamma tokens, or where `stops` says so."""
    unfinished: list[tuple[int, ...]] = [()]
    while unfinished:
        drafted = unfinished.pop()
        if len(drafted) == gamma or stops(drafted):
            yield drafted
        else:
            unfinished += [(*drafted, token) for token in range(size)]


def outcomes(
    rule: Verify,
    target: Table,
    drafter: Table,
    gamma: int,
    size: int,
    form: Callable[[torch.Tensor, Sequence[int]], Proposal] = dense,
    stops: Stops = lambda drafted: False,
) -> Iterator[tuple[float, tuple[int, ...], Verdict]]:
    """Every draft and every verdict on it, with their chance."""
    for tokens in drafts(gamma, size, stops):
        prefixes = [tokens[:place] for place in range(len(tokens) + 1)]
        p = torch.stack([target(prefix) for prefix in prefixes])
        q = torch.stack([drafter(prefix) for prefix in prefixes])[: len(tokens)]
        chance = 1.0
        for place, token in enumerate(tokens):
            chance *= float(q[place, token])
        if chance == 0:
            continue  # the drafter never says this
        draft = Draft(list(tokens), form(q, tokens))
        for cell, inside, corners in cells(rule, p, q, draft):
            verdict = rule(p, draft, inside)
            for corner in corners:
                assert rule(p, draft, corner)[:2] == verdict[:2], "a cell holds one outcome"
            yield chance * cell, tokens, verdict


def cells(
    rule: Verify, p: torch.Tensor, q: torch.Tensor, draft: Draft
) -> Iterator[tuple[float, torch.Tensor, list[torch.Tensor]]]:
    """The cells of the cube of uniforms: size, a point inside, points beside two corners.

    The tests break at p/q and at h. The extra token breaks where the cumulative sum of any
    distribution it may be drawn from, right or wrong, has a step: the row of p, what p has over q,
    and what p_i p has over q. An outcome that breaks elsewhere fails at a corner.
    """
    running, thresholds = block_by_hand(p, q, draft.tokens)
    sides = []
    for place, token in enumerate(draft.tokens):
        ratio = min(1.0, float(p[place, token] / q[place, token]))
        sides.append(intervals([0.0, ratio, thresholds[place], 1.0]))
    for tests in product(*sides):
        middle = torch.tensor([(low + high) / 2 for low, high in tests] + [0.5]).double()
        place = rule(p, draft, middle).accepted
        steps = [0.0, 1.0, *p[place].cumsum(0).tolist()]
        if place < len(q):
            for share in (1.0, running[place]):
                left = (share * p[place] - q[place]).clamp(min=0)
                if left.sum() > 0:
                    steps += (left.cumsum(0) / left.sum()).tolist()
        for side in intervals(steps):
            bounds = torch.tensor([*tests, side], dtype=torch.float64)
            corners = [bounds[:, 0] + EDGE, bounds[:, 1] - EDGE]
            yield float((bounds[:, 1] - bounds[:, 0]).prod()), bounds.mean(1), corners


def intervals(points: Sequence[float]) -> list[tuple[float, float]]:
    return [(low, high) for low, high in pairwise(sorted(points)) if high - low > 4 * EDGE]


def block_by_hand(
    p: torch.Tensor, q: torch.Tensor, tokens: Sequence[int]
) -> tuple[list[float], list[float]]:
    """p_0 to p_k and h_1 to h_k of Sun et al. 2024, number by number as the paper states them."""
    running, thresholds = [1.0], []
    for place, token in enumerate(tokens):
        running.append(min(running[-1] * float(p[place, token]) / float(q[place, token]), 1.0))
        if place + 1 == len(tokens):
            thresholds.append(running[-1])
            continue
        surplus = sum(
            max(running[-1] * float(a) - float(b), 0.0)
            for a, b in zip(p[place + 1], q[place + 1], strict=True)
        )
        whole = surplus + 1 - running[-1]
        thresholds.append(surplus / whole if whole > 0 else 0.0)
    return running, thresholds


def error(found: dict[tuple[int, ...], float], target: Table) -> float:
    """The largest difference between a joint distribution and the target's own."""
    worst = 0.0
    for text, chance in found.items():
        wanted = 1.0
        for place, token in enumerate(text):
            wanted *= float(target(text[:place])[token])
        worst = max(worst, abs(chance - wanted))
    return worst


CASES = {
    "ordinary": (random_table(3, 1), random_table(3, 2)),
    "zeros in p": (random_table(3, 3, zeros=0.4), random_table(3, 4)),
    "zeros in q": (random_table(3, 5), random_table(3, 6, zeros=0.4)),
    "zeros in both": (random_table(3, 7, zeros=0.4), random_table(3, 8, zeros=0.4)),
    "equal": (random_table(3, 9), random_table(3, 9)),
    "greedy target": (one_hot_table(3, 10), random_table(3, 11)),
    "both greedy": (one_hot_table(3, 12), one_hot_table(3, 13)),
}


@pytest.mark.parametrize("gamma", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", EXACT)
def test_verification_leaves_the_target_distribution(rule: str, case: str, gamma: int) -> None:
    target, drafter = CASES[case]
    found = block_distribution(EXACT[rule], target, drafter, gamma, 3)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert error(found, target) < 1e-12


def on_device(rule: str) -> Verify:
    """What runs where the distributions are on a device: the same operations, on any."""
    return RULES[rule].verify_on_device


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", EXACT)
def test_verification_on_a_device_leaves_the_target_distribution(rule: str, case: str) -> None:
    target, drafter = CASES[case]
    found = block_distribution(on_device(rule), target, drafter, 2, 3)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert error(found, target) < 1e-12


def two_drafters(rows: torch.Tensor, tokens: Sequence[int]) -> Proposal:
    """The first token drawn, what follows copied."""
    if len(tokens) < 2:
        return dense(rows, tokens)
    return JoinedProposal(dense(rows[:1], tokens[:1]), one_hot(rows[1:], tokens[1:]), 1)


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("rule", EXACT)
def test_a_draft_of_two_drafters_leaves_the_target_distribution(rule: str, where: str) -> None:
    drawn, copied = random_table(3, 2), one_hot_table(3, 13)
    decide = EXACT[rule] if where == "host" else on_device(rule)
    for case in ("ordinary", "zeros in p"):
        target = CASES[case][0]
        found = block_distribution(
            decide, target, lambda text: (copied if text else drawn)(text), 3, 3, two_drafters
        )
        assert sum(found.values()) == pytest.approx(1, abs=1e-12)
        assert error(found, target) < 1e-6, "one-hot rows are float32"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", EXACT)
def test_host_and_device_reach_the_same_verdict(rule: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    seen = set()
    for trial in range(120):
        count, size = trial % 7, 40
        p = (torch.randn(count + 1, size, generator=generator) * 2).to(dtype).softmax(-1)
        q = (torch.randn(count, size, generator=generator) * 2).to(dtype).softmax(-1)
        q = 0.7 * p[:count] + 0.3 * q
        tokens = [int(draw(row, torch.rand((), generator=generator))) for row in q]
        forms: list[Proposal] = [DenseProposal(q)]
        if trial % 2:
            forms = [OneHotProposal(tokens), OneHotProposal(torch.tensor(tokens))]
        uniforms = torch.rand(count + 1, generator=generator, dtype=torch.float64)
        for form in forms:
            drafted = Draft(tokens, form)
            here = EXACT[rule](p, drafted, uniforms)
            there = on_device(rule)(p, drafted, uniforms)
            assert here[:2] == there[:2]
            assert here.p == there.p
            assert here.q == pytest.approx(there.q, rel=1e-6)
            assert list(here.thresholds) == pytest.approx(list(there.thresholds), abs=1e-5)
            assert here.extra_p == there.extra_p
            seen.add(here.accepted)
    assert seen == set(range(7))


STOPS: dict[str, Stops] = {
    "behind a drafted end": lambda drafted: drafted[-1:] == (1,),
    "by the first token": lambda drafted: len(drafted) == 1 + sum(drafted[:1]) % 3,
    "before it began, or not at all": lambda drafted: drafted[:1] == (2,) or sum(drafted) > 2,
}


@pytest.mark.parametrize("stops", STOPS)
@pytest.mark.parametrize("rule", EXACT)
def test_verification_is_exact_where_drafts_differ_in_length(rule: str, stops: str) -> None:
    for case in ("ordinary", "zeros in both"):
        target, drafter = CASES[case]
        lengths = {len(drafted) for drafted in drafts(3, 3, STOPS[stops])}
        assert len(lengths) > 1
        found = block_distribution(EXACT[rule], target, drafter, 3, 3, stops=STOPS[stops])
        assert sum(found.values()) == pytest.approx(1, abs=1e-12)
        assert error(found, target) < 1e-12


@pytest.mark.parametrize("cost", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("rule", EXACT)
def test_verification_is_exact_under_the_adaptive_length(rule: str, cost: float) -> None:
    """With the stops of `fastllm.drafters.length`, by the drafter's own probabilities."""
    config = DecodingConfig(draft_length="adaptive", draft_cost=cost, call_cost=0.0)
    seen: set[int] = set()
    for case in ("ordinary", "zeros in p", "zeros in both"):
        target, drafter = CASES[case]

        def stops(drafted: tuple[int, ...], drafter: Table = drafter) -> bool:
            length = LengthRule()
            length.begin(config)
            chances = (float(drafter(drafted[:i])[token]) for i, token in enumerate(drafted))
            return not all(length.goes_on(*pair) for pair in zip(drafted, chances, strict=True))

        seen |= {len(drafted) for drafted in drafts(3, 3, stops)}
        found = block_distribution(EXACT[rule], target, drafter, 3, 3, stops=stops)
        assert sum(found.values()) == pytest.approx(1, abs=1e-12)
        assert error(found, target) < 1e-12
    assert len(seen) > 1


@pytest.mark.parametrize("rule", EXACT)
def test_a_drafter_that_drops_what_it_has_drawn_is_caught(rule: str) -> None:
    """Why a drafter must keep a token that it drew: a length that depends on it biases the text."""
    target, drafter = CASES["ordinary"]
    verifies = EXACT[rule]

    def drops(p: torch.Tensor, draft: Draft, uniforms: torch.Tensor) -> Verdict:
        kept = draft.tokens[:-1] if draft.tokens[-1:] == [2] else draft.tokens
        return verifies(p, Draft(kept, draft.q), uniforms[[*range(len(kept)), -1]])

    found = block_distribution(drops, target, drafter, 2, 3)
    assert sum(found.values()) == pytest.approx(1)
    assert error(found, target) > 0.01


@pytest.mark.parametrize("gamma", [1, 2, 3])
@pytest.mark.parametrize("rule", EXACT)
def test_verification_of_deterministic_drafts_is_exact(rule: str, gamma: int) -> None:
    target, drafter = random_table(3, 20), one_hot_table(3, 21)
    found = block_distribution(EXACT[rule], target, drafter, gamma, 3, one_hot)
    assert error(found, target) < 1e-12


def expected_accepted(p: Sequence[float], q: Sequence[float], rule: str) -> float:
    """The sum over i of the chance that i or more stand: Sun et al. 2024, arXiv:2403.10444."""
    chance, total = 1.0, 0.0
    for of_p, of_q in zip(p, q, strict=True):
        if rule == "block":
            chance = min(1.0, chance * of_p / of_q)
        else:
            chance *= min(1.0, of_p / of_q)
        total += chance
    return total


@pytest.mark.parametrize("case", CASES)
def test_the_expected_number_accepted_is_that_of_all_outcomes(case: str) -> None:
    target, drafter = CASES[case]
    means = {}
    for name, rule in EXACT.items():
        stops = STOPS["by the first token"]
        found = outcomes(rule, target, drafter, 3, 3, stops=stops)
        stood = list(found)
        assert sum(chance for chance, _, _ in stood) == pytest.approx(1)
        means[name] = sum(chance * verdict.accepted for chance, _, verdict in stood)
        wanted = sum(
            chance * expected_accepted(verdict.p, verdict.q, name) for chance, _, verdict in stood
        )
        assert means[name] == pytest.approx(wanted, abs=1e-12)
    assert means["block"] >= means["token"] - 1e-12
    if case == "ordinary":
        assert means["block"] > means["token"] + 0.005


def test_block_thresholds_are_those_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    later = 0
    for trial in range(60):
        count, size = 1 + trial % 8, 50
        p, q = (
            (torch.randn(count + 1, size, generator=generator) * 2).softmax(-1) for _ in range(2)
        )
        q = (0.7 * p + 0.3 * q)[:count]
        tokens = [int(draw(row, torch.rand((), generator=generator))) for row in q]
        if trial % 5 == 0:
            p[count // 2, tokens[count // 2]] = 0  # nothing behind it can stand
        uniforms = torch.rand(count + 1, generator=generator, dtype=torch.float64)
        verdict = by_block(p, Draft(tokens, DenseProposal(q)), uniforms)
        running, thresholds = block_by_hand(p, q, tokens)
        assert verdict.thresholds == pytest.approx(thresholds, abs=1e-5)
        tests = zip(uniforms.tolist(), verdict.thresholds, strict=False)
        passed = [u < h for u, h in tests]
        longest = max((i + 1 for i, good in enumerate(passed) if good), default=0)
        assert verdict.accepted == longest
        later += not all(passed[:longest])
        weights = p[longest]
        if longest < count:
            weights = (running[longest] * p[longest] - q[longest]).clamp(min=0)
        assert weights[verdict.extra] > 0
        assert verdict.extra_p == pytest.approx(float(p[longest, verdict.extra]))
    assert later, "a failed test before a passing one does not end the block"


def test_a_probability_that_rounds_to_0_ends_no_block() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([[0.0, 1.0]])
    draft = Draft([0], DenseProposal(q))  # drawn from 1e-60, which float32 does not hold
    for rule in EXACT.values():
        assert rule(p, draft, torch.tensor([LAST, 0.0], dtype=torch.float64)).accepted == 1


# Lenient verification.


@pytest.mark.parametrize("on_a_device", [False, True])
def test_a_drafter_all_but_equal_to_its_target_ends_no_text(on_a_device: bool) -> None:
    """What p has more than q, 1e-30, is lost in a sum with 1: h was 0 / 0."""
    p = torch.tensor([[1.0, 0.0], [1.0, 1e-30], [1.0, 0.0]])
    draft = Draft([0, 0], DenseProposal(torch.tensor([[1.0, 0.0], [1.0, 0.0]])))
    rule = BlockRule()
    verify = rule.verify_on_device if on_a_device else rule.verify
    verdict = verify(p, draft, [0.5, 0.5, 0.5])
    assert (verdict.accepted, verdict.extra) == (2, 0)
    assert list(verdict.thresholds) == [1.0, 1.0]


@pytest.mark.parametrize("form", ["linear", "square", "exponent"])
def test_lenience_1_is_the_token_rule(form: str) -> None:
    target, drafter = CASES["zeros in p"]
    rule = LenientRule(1.0, form).verify
    assert error(block_distribution(rule, target, drafter, 2, 3), target) < 1e-12


@pytest.mark.parametrize("case", ["ordinary", "zeros in p", "zeros in q"])
@pytest.mark.parametrize(
    ("form", "raised"),
    [
        ("linear", lambda p: p / 0.6),
        ("square", lambda p: p / 0.36),
        ("exponent", lambda p: p**0.6),
    ],
)
def test_lenience_is_as_far_from_the_target_as_it_must_be(
    form: str, raised: Callable[[float], float], case: str
) -> None:
    """What one token's test lets through is lost; the correction adds no error of its own."""
    target, drafter = CASES[case]
    p, q = target(()), drafter(())
    found = torch.zeros(3, dtype=torch.float64)
    accepted = 0.0
    for token in range(3):
        if q[token] == 0:
            continue
        passes = min(1.0, raised(float(p[token])) / float(q[token]))
        accepted += float(q[token]) * passes
        draft = Draft([token], DenseProposal(q[None]))
        rows = torch.stack([p, target((token,))])
        for edge, stands in ((passes - EDGE, 1), (passes + EDGE, 0)):
            if 0 <= edge < 1:
                uniforms = torch.tensor([edge, 0.5], dtype=torch.float64)
                verdict = LenientRule(0.6, form).verify(rows, draft, uniforms)
                assert verdict.accepted == stands
                assert verdict.thresholds == pytest.approx([passes])
        found[token] += q[token] * passes
        grid = (torch.arange(500).double() + 0.5) / 500
        if passes < 1:
            for uniform in grid:
                uniforms = torch.stack([torch.tensor(LAST, dtype=torch.float64), uniform])
                verdict = LenientRule(0.6, form).verify(rows, draft, uniforms)
                found[verdict.extra] += q[token] * (1 - passes) / 500
    most = torch.tensor([raised(float(x)) for x in p]).double()
    forced = (torch.minimum(q, most) - p).clamp(min=0).sum()
    assert float(found.sum()) == pytest.approx(1)
    assert accepted >= float(torch.minimum(p, q).sum()) - 1e-12
    assert 0.5 * float((found - p).abs().sum()) == pytest.approx(float(forced), abs=5e-3)
    assert bool((found <= most + 5e-3).all()), "no token is likelier than f(p)"
    if case == "ordinary":
        assert float(forced) > 0.01


# Greedy.


@pytest.mark.parametrize("rule", EXACT)
def test_a_greedy_verdict_is_that_of_the_distributions(rule: str) -> None:
    config = DecodingConfig(verification=rule)
    generator = torch.Generator().manual_seed(1)
    seen = set()
    for trial in range(80):
        count = trial % 5
        logits = torch.randn(count + 1, 4, generator=generator)
        best = logits.argmax(-1).tolist()
        tokens = [
            token if torch.rand((), generator=generator) < 0.7 else int(trial % 4)
            for token in best[:count]
        ]
        q = one_hot(logits, tokens)
        if trial % 3 == 0 and count:  # a drafter may draw where the target does not
            rows = torch.rand(count, 4, generator=generator) + 0.1
            q = DenseProposal(rows / rows.sum(-1, keepdim=True))
        uniforms = torch.rand(count + 1, generator=generator, dtype=torch.float64)
        quick = judge(logits, Draft(tokens, q), uniforms, config)
        full = EXACT[rule](distribution(logits, config), Draft(tokens, q), uniforms)
        assert quick[:4] == full[:4]
        assert quick.extra_p == full.extra_p == 1.0
        if rule == "token":
            assert quick == full
        seen.add((quick.accepted, count))
    assert len(seen) > 8


def test_judging_is_verifying_what_the_logits_say() -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    q = torch.randn(3, 6, generator=torch.Generator().manual_seed(3)).softmax(-1)
    draft = Draft([2, 0, 5], DenseProposal(q))
    uniforms = torch.tensor([0.3, 0.6, 0.2, 0.7], dtype=torch.float64)
    for settings, rule in (
        ({"temperature": 0.8, "top_k": 4}, BlockRule()),
        ({"temperature": 1.0, "verification": "token"}, TokenRule()),
        ({"temperature": 1.0, "verification": "lenient", "lenience": 0.3}, LenientRule(0.3)),
    ):
        config = DecodingConfig(**settings)
        wanted = rule.verify(distribution(logits, config), draft, uniforms)
        found = judge(logits, draft, uniforms, config)
        assert found._replace(thresholds=[]) == wanted._replace(thresholds=[])
        assert list(found.thresholds) == list(wanted.thresholds)


def test_the_rules_say_what_they_are() -> None:
    lenient = {"temperature": 1.0, "verification": "lenient"}
    for settings, name, lossy, shown in (
        ({"temperature": 1.0}, "block", False, 4),
        ({"temperature": 1.0, "verification": "token"}, "token", False, 2),
        ({}, "token", False, 2),
        ({**lenient, "lenience": 0.5}, "lenient", True, 2),
        (lenient, "lenient", False, 2),
        ({"verification": "rollback"}, "rollback", False, 2),
        ({"verification": "rollback", "rollback_threshold": 1.5}, "rollback", True, 2),
    ):
        config = DecodingConfig(**settings)
        rule = rule_of(config)
        assert (rule.name, rule.lossy) == (name, lossy) == (config.verified_by, config.lossy)
        assert rule.label
        assert rule.tested(4, 1) == shown
        assert rule.tested(4, 4) == 4


def test_a_drafter_with_another_number_of_logits_is_refused() -> None:
    draft = Draft([2], DenseProposal(torch.full((1, 5), 0.2)))
    with pytest.raises(VocabularyError, match="5 logits, the target 6"):
        judge(torch.zeros(2, 6), draft, [0.5, 0.5], DecodingConfig(temperature=1.0))


@pytest.mark.gpu
def test_a_verdict_costs_one_synchronisation() -> None:
    logits = torch.randn(6, 1000, device="cuda")
    q = torch.randn(5, 1000).softmax(-1)
    uniforms = torch.rand(6, dtype=torch.float64)
    draft = Draft([5, 4, 3, 2, 1], DenseProposal(q.cuda()))
    certain = Draft(draft.tokens, OneHotProposal(torch.tensor(draft.tokens)))
    cases = [
        (draft, DecodingConfig(temperature=1.0)),
        (draft, DecodingConfig(temperature=1.0, verification="token")),
        (draft, DecodingConfig(temperature=1.0, verification="lenient", lenience=0.5)),
        (certain, DecodingConfig(temperature=1.0)),
        (certain, DecodingConfig()),
    ]
    for drafted, config in cases:
        judge(forbid(logits, [[1]]), drafted, uniforms, config)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                judge(forbid(logits, [[1]]), drafted, uniforms, config)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        stops = [str(one.message) for one in caught if "synchroniz" in str(one.message)]
        assert len(stops) == 1, (config, stops)


def ruled_table(size: int, seed: int, config: DecodingConfig) -> Table:
    """Random logits with the rules of `config` applied, as distributions in double precision."""
    known: dict[tuple[int, ...], torch.Tensor] = {}
    generator = torch.Generator().manual_seed(seed)

    def row(written: tuple[int, ...]) -> torch.Tensor:
        if written not in known:
            logits = torch.randn(1, size, generator=generator) * 1.5
            banned = Rules(1).banned([9, *written], config)
            weights = distribution(forbid(logits, [banned]), config)[0].double()
            known[written] = weights / weights.sum()
        return known[written]

    return row


@pytest.mark.parametrize("rule", EXACT)
@pytest.mark.parametrize("obeys", [True, False], ids=["drafter obeys", "drafter does not"])
@pytest.mark.parametrize(
    "rules",
    [
        {"no_repeat_ngram": 1},  # of three letters none is left for the fourth place
        {"no_repeat_ngram": 2, "min_new_tokens": 2},
        {"no_repeat_ngram": 2, "top_k": 2, "temperature": 0.7},
    ],
    ids=str,
)
def test_verification_is_exact_under_rules(rules: dict[str, float], obeys: bool, rule: str) -> None:
    config = DecodingConfig(**{"temperature": 1.0, **rules})
    free = DecodingConfig(temperature=1.0)
    target, drafter = ruled_table(3, 30, config), ruled_table(3, 31, config if obeys else free)
    found = block_distribution(EXACT[rule], target, drafter, 3, 3)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert error(found, target) < 1e-12
    written = [text for text, chance in found.items() if chance > 0]
    assert 0 < len(written) < 3**4
    order = config.no_repeat_ngram or 0
    for text in written:
        grams = [text[at : at + order] for at in range(4 - order + 1)]
        assert len(set(grams)) >= min(len(grams), 3)
        assert 1 not in text[: config.min_new_tokens or 0]


def correction_from_p(p: torch.Tensor, draft: Draft, uniforms: torch.Tensor) -> Verdict:
    """Wrong: a refused draft is replaced by a draw from p, not from what p has over q."""
    right = verify(p, draft, uniforms)
    extra = int(draw(p[right.accepted], uniforms[len(draft.tokens)]))
    return right._replace(extra=extra)


def accepts_where_p_is_larger(p: torch.Tensor, draft: Draft, uniforms: torch.Tensor) -> Verdict:
    """Wrong: the uniform is not asked."""
    halves = uniforms.clone()
    halves[:-1] = 0.5
    return verify(p, draft, halves)


def skips_refused(p: torch.Tensor, draft: Draft, uniforms: torch.Tensor) -> Verdict:
    """Wrong: one test for all drafts."""
    same = uniforms.clone()
    same[: len(draft.tokens)] = uniforms[0]
    return verify(p, draft, same)


@pytest.mark.parametrize("gamma", [1, 2, 3])
def test_the_enumeration_catches_a_correction_drawn_from_p(gamma: int) -> None:
    target, drafter = CASES["ordinary"]
    found = block_distribution(correction_from_p, target, drafter, gamma, 3)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert error(found, target) > 0.01


def block_ends_at_a_failure(p: torch.Tensor, draft: Draft, uniforms: torch.Tensor) -> Verdict:
    """Wrong: the thresholds of the block rule, read as the token rule reads its own."""
    count = len(draft.tokens)
    tests = by_block(p, draft, uniforms).thresholds
    passed = [u < h for u, h in zip(uniforms.tolist(), tests, strict=False)]
    accepted = [*passed, False].index(False)
    lower = uniforms.clone()
    lower[accepted:count] = 1.0
    return by_block(p, draft, lower)


def block_correction_of_the_token_rule(
    p: torch.Tensor, draft: Draft, uniforms: torch.Tensor
) -> Verdict:
    """Wrong: the correction is drawn from what p has over q, p_i left out."""
    right = by_block(p, draft, uniforms)
    place, count = right.accepted, len(draft.tokens)
    if place == count:
        return right
    left = (p[place] - draft.q.row(place, 3)).clamp(min=0)
    weights = left if left.sum() > 0 else p[place]
    return right._replace(extra=int(draw(weights, uniforms[count])))


@pytest.mark.parametrize(
    "rule",
    [
        accepts_where_p_is_larger,
        skips_refused,
        block_ends_at_a_failure,
        block_correction_of_the_token_rule,
    ],
)
def test_the_enumeration_catches_other_wrong_rules(rule: Verify) -> None:
    target, drafter = CASES["ordinary"]
    try:
        found = block_distribution(rule, target, drafter, 2, 3)
    except AssertionError:  # it breaks where the right rule does not
        return
    assert error(found, target) > 1e-3


def test_a_fully_accepted_draft_earns_a_bonus() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.1, 0.9]])
    verdict = verify(p, Draft([0], DenseProposal(p[:1])), torch.tensor([0.99, 0.05]))
    assert (verdict.accepted, verdict.extra) == (1, 1)
    assert verdict.p == [0.5]
    assert verdict.q == [0.5]
    assert verdict.extra_p == pytest.approx(0.1)


def test_a_refused_draft_is_replaced_from_the_residual() -> None:
    p = torch.tensor([[0.2, 0.2, 0.6], [1.0, 0.0, 0.0]])
    q = torch.tensor([[0.8, 0.2, 0.0]])
    verdict = verify(p, Draft([0], DenseProposal(q)), torch.tensor([0.26, 0.0]))
    # p - q is above 0 at token 2 alone; its extra_p is p, not the residual's 1.
    assert (verdict.accepted, verdict.extra) == (0, 2)
    assert verdict.extra_p == pytest.approx(0.6)
    assert verify(p, Draft([0], DenseProposal(q)), torch.tensor([0.24, 0.0])).accepted == 1


def test_a_token_the_target_never_writes_is_refused_even_by_a_uniform_of_0() -> None:
    p = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    draft = Draft([0], OneHotProposal(torch.tensor([0])))
    assert verify(p, draft, torch.tensor([0.0, 0.0]))[:2] == (0, 1)


def test_an_empty_draft_is_a_plain_step() -> None:
    p = torch.tensor([[0.25, 0.75]])
    nothing = Draft([], OneHotProposal(torch.zeros(0, dtype=torch.long)))
    assert verify(p, nothing, torch.tensor([0.2])) == Verdict(0, 0, [], [], [], 0.25)
    assert verify(p, nothing, torch.tensor([0.3])).extra == 1


def test_equal_distributions_are_always_accepted() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        p = torch.rand(4, 5, generator=generator).softmax(-1)
        tokens = torch.randint(5, (3,), generator=generator).tolist()
        uniforms = torch.tensor([1 - 2**-53] * 4, dtype=torch.float64)
        assert verify(p, Draft(tokens, DenseProposal(p[:3])), uniforms).accepted == 3


def test_rollback_keeps_what_is_likely_or_the_targets_own() -> None:
    """p of the drafted tokens by hand: 0.6 (the best), 0.3, 0.1, against -log p <= 1.3."""
    p = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    for tokens, accepted, extra in (
        ([0, 1, 0], 2, 1),  # -log 0.2 is 1.6
        ([0, 1, 1], 3, 2),
        ([2, 1, 1], 0, 0),
        ([], 0, 0),
    ):
        draft = Draft(tokens, OneHotProposal(tokens))
        verdict = RollbackRule(1.3).verify(p[: len(tokens) + 1], draft, [0.0] * 4)
        assert (verdict.accepted, verdict.extra) == (accepted, extra)
        assert verdict.p == pytest.approx([float(p[i, x]) for i, x in enumerate(tokens)])
        assert list(verdict.thresholds)[: accepted + 1] == [1.0] * accepted + [0.0] * (
            accepted < len(tokens)
        )
        assert verdict.extra_p == pytest.approx(float(p[accepted, extra]))


def test_rollback_without_a_threshold_is_greedy() -> None:
    generator = torch.Generator().manual_seed(3)
    greedy = DecodingConfig()
    strict = DecodingConfig(verification="rollback")
    loose = DecodingConfig(verification="rollback", rollback_threshold=1.6)
    assert (strict.lossy, rule_of(strict).lossy) == (False, False)
    assert (loose.lossy, rule_of(loose).lossy) == (True, True)
    longer = 0
    for _ in range(60):
        logits = torch.randn(5, 7, generator=generator)
        tokens = [
            int(row.topk(2).indices[1 - keep])
            for keep, row in zip((1, 1, 0, 1), logits, strict=False)
        ]
        draft = Draft(tokens, OneHotProposal(tokens))
        banned = [[], [], [tokens[2]], [], []]
        verdict = judge(logits, draft, [0.5] * 5, greedy, banned)
        assert judge(logits, draft, [0.5] * 5, strict, banned)[:2] == verdict[:2]
        found = judge(logits, draft, [0.5] * 5, loose, banned)
        assert found.accepted <= 2, "what the rules bar never stands"
        found = judge(logits, draft, [0.5] * 5, loose)
        assert found.accepted >= verdict.accepted
        assert found.extra == int(logits[found.accepted].argmax())
        longer += found.accepted > 2
    assert 0 < longer < 60
