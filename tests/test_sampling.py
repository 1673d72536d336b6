"""Distributions, draws, and the proof by enumeration that verification is exact.

`block_distribution` runs a rule of verification on every possible draft and every outcome of every
uniform number. A rule's outcome is constant between a few breakpoints of each uniform, so
evaluating it once in each cell and weighting with the cell's size gives exact probabilities: no
sampling, no noise. That a cell holds one outcome is checked at its edges.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise, product

import pytest
import torch

from fastllm.rules import Rules
from fastllm.sampling import (
    DenseProposal,
    Draft,
    OneHotProposal,
    Proposal,
    SparseProposal,
    SparseRow,
    Verdict,
    distribution,
    draw,
    forbid,
    verify,
)
from fastllm.trace import DecodingConfig

Table = Callable[[tuple[int, ...]], torch.Tensor]
"""What was written -> a distribution, shape (V,), float64."""

Verify = Callable[[torch.Tensor, Draft, torch.Tensor], Verdict]

EDGE = 1e-9


def random_table(size: int, seed: int, zeros: float = 0.0) -> Table:
    """A random distribution behind every prefix; a share of its entries is exactly 0."""
    known: dict[tuple[int, ...], torch.Tensor] = {}
    generator = torch.Generator().manual_seed(seed)

    def row(written: tuple[int, ...]) -> torch.Tensor:
        if written not in known:
            weights = torch.rand(size, generator=generator, dtype=torch.float64) ** 2
            weights[torch.rand(size, generator=generator) < zeros] = 0
            if weights.sum() == 0:
                weights[0] = 1
            known[written] = weights / weights.sum()
        return known[written]

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


def sparse(rows: torch.Tensor, tokens: Sequence[int]) -> Proposal:
    """Names the drafted token and one other; the tests that use it have V = 3: one is left."""
    return SparseProposal(
        [
            SparseRow([token, (token + 1) % 3], row[[token, (token + 1) % 3]].tolist(), float(left))
            for token, row in zip(tokens, rows, strict=True)
            for left in [row[(token + 2) % 3]]
        ]
    )


def block_distribution(
    rule: Verify,
    target: Table,
    drafter: Table,
    gamma: int,
    size: int,
    form: Callable[[torch.Tensor, Sequence[int]], Proposal] = dense,
) -> dict[tuple[int, ...], float]:
    """The exact joint distribution of the next gamma + 1 tokens if `rule` verifies.

    What a round leaves unwritten of them is written by the target alone.
    """
    found = dict.fromkeys(product(range(size), repeat=gamma + 1), 0.0)
    for tokens in product(range(size), repeat=gamma):
        prefixes = [tokens[:place] for place in range(gamma + 1)]
        p = torch.stack([target(prefix) for prefix in prefixes])
        q = torch.stack([drafter(prefix) for prefix in prefixes[:gamma]])
        chance = 1.0
        for place, token in enumerate(tokens):
            chance *= float(q[place, token])
        if chance == 0:
            continue  # the drafter never says this
        draft = Draft(list(tokens), form(q, tokens))
        for cell, inside, corners in cells(p, q, tokens):
            verdict = rule(p, draft, inside)
            for corner in corners:
                assert rule(p, draft, corner)[:2] == verdict[:2], "a cell holds one outcome"
            written = (*tokens[: verdict.accepted], verdict.extra)
            for rest in product(range(size), repeat=gamma + 1 - len(written)):
                following = 1.0
                for place in range(len(written), gamma + 1):
                    text = written + rest
                    following *= float(target(text[:place])[text[place]])
                found[written + rest] += chance * cell * following
    return found


def cells(
    p: torch.Tensor, q: torch.Tensor, tokens: Sequence[int]
) -> list[tuple[float, torch.Tensor, list[torch.Tensor]]]:
    """The cells of the cube of uniforms: size, a point inside, points beside two corners.

    The tests break at p/q. The extra token breaks where the cumulative sum of any distribution it
    may be drawn from, right or wrong, has a step: each row of p, and what p has over q.
    """
    breaks = []
    for place, token in enumerate(tokens):
        breaks.append([0.0, min(1.0, float(p[place, token] / q[place, token])), 1.0])
    steps = {0.0, 1.0}
    for place in range(len(p)):
        steps.update(p[place].cumsum(0).tolist())
        if place < len(q):
            left = (p[place] - q[place]).clamp(min=0)
            if left.sum() > 0:
                steps.update((left.cumsum(0) / left.sum()).tolist())
    breaks.append(sorted(steps))
    sides = [
        [(low, high) for low, high in pairwise(points) if high - low > 4 * EDGE]
        for points in breaks
    ]
    found = []
    for sides_of_cell in product(*sides):
        bounds = torch.tensor(sides_of_cell, dtype=torch.float64)
        corners = [bounds[:, 0] + EDGE, bounds[:, 1] - EDGE]
        found.append((float((bounds[:, 1] - bounds[:, 0]).prod()), bounds.mean(1), corners))
    return found


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
def test_verification_leaves_the_target_distribution(case: str, gamma: int) -> None:
    target, drafter = CASES[case]
    found = block_distribution(verify, target, drafter, gamma, 3)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert error(found, target) < 1e-12


@pytest.mark.parametrize("gamma", [1, 2, 3])
def test_verification_of_deterministic_drafts_is_exact(gamma: int) -> None:
    target, drafter = random_table(3, 20), one_hot_table(3, 21)
    found = block_distribution(verify, target, drafter, gamma, 3, one_hot)
    assert error(found, target) < 1e-12


@pytest.mark.parametrize("gamma", [1, 2])
def test_verification_of_sparse_drafts_is_exact(gamma: int) -> None:
    # Probabilities that float32 holds exactly: sparse rows become float32 when they are compared.
    target = random_table(3, 22)
    rows = [[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.0625, 0.4375, 0.5], [0.25, 0.75, 0.0]]

    def drafter(written: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(rows[sum(written) % 4], dtype=torch.float64)

    found = block_distribution(verify, target, drafter, gamma, 3, sparse)
    assert error(found, target) < 1e-12


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
def test_verification_is_exact_under_rules(rules: dict[str, float], obeys: bool) -> None:
    config = DecodingConfig(**{"temperature": 1.0, **rules})
    free = DecodingConfig(temperature=1.0)
    target, drafter = ruled_table(3, 30, config), ruled_table(3, 31, config if obeys else free)
    found = block_distribution(verify, target, drafter, 3, 3)
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


@pytest.mark.parametrize("rule", [accepts_where_p_is_larger, skips_refused])
def test_the_enumeration_catches_other_wrong_rules(rule: Verify) -> None:
    target, drafter = CASES["ordinary"]
    try:
        found = block_distribution(rule, target, drafter, 2, 3)
    except AssertionError:  # it breaks where the right rule does not
        return
    assert error(found, target) > 0.01


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
    assert verify(p, nothing, torch.tensor([0.2])) == Verdict(0, 0, [], [], 0.25)
    assert verify(p, nothing, torch.tensor([0.3])).extra == 1


def test_equal_distributions_are_always_accepted() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        p = torch.rand(4, 5, generator=generator).softmax(-1)
        tokens = torch.randint(5, (3,), generator=generator).tolist()
        uniforms = torch.tensor([1 - 2**-53] * 4, dtype=torch.float64)
        assert verify(p, Draft(tokens, DenseProposal(p[:3])), uniforms).accepted == 3


LAST = 1 - 2**-53
"""The largest float64 below 1."""


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.5, 0.999, LAST])
@pytest.mark.parametrize(
    "weights",
    [
        [0.0, 1.0, 0.0],
        [0.0, 0.0, 2.0, 3.0, 0.0, 0.0],
        [1e-30, 0.0, 1e-30],
        [0.0, 0.1, 0.0, 0.2, 0.0],
        [0.0] * 50 + [1 / 3] * 3 + [0.0] * 50,
    ],
)
def test_a_token_of_weight_0_is_never_drawn(weights: list[float], uniform: float) -> None:
    for dtype in (torch.float32, torch.float64):
        row = torch.tensor(weights, dtype=dtype)
        assert row[draw(row, torch.tensor(uniform, dtype=torch.float64))] > 0


def test_a_draw_inverts_the_cumulative_sum() -> None:
    row = torch.tensor([1.0, 0.0, 2.0, 1.0])
    drawn = [int(draw(row, uniform)) for uniform in (0.0, 0.2499, 0.25, 0.7499, 0.75, LAST)]
    assert drawn == [0, 0, 2, 2, 3, 3]


def test_draws_from_a_large_vocabulary_follow_it() -> None:
    row = torch.rand(32_128, generator=torch.Generator().manual_seed(1))
    row[::3] = 0
    for uniform in torch.linspace(0, 1 - 1e-9, 101, dtype=torch.float64):
        token = int(draw(row, uniform))
        assert row[token] > 0
        share = float(row[:token].double().sum() / row.double().sum())
        assert share == pytest.approx(float(uniform), abs=1e-4)


LOGITS = torch.tensor([0.5, 0.1, 0.3, 0.1]).log()


def test_temperature_1_is_the_softmax() -> None:
    torch.testing.assert_close(
        distribution(LOGITS, DecodingConfig(temperature=1.0)), torch.tensor([0.5, 0.1, 0.3, 0.1])
    )


def test_temperature_sharpens_and_flattens() -> None:
    squared = torch.tensor([0.25, 0.01, 0.09, 0.01]) / 0.36
    torch.testing.assert_close(distribution(LOGITS, DecodingConfig(temperature=0.5)), squared)
    flat = distribution(LOGITS, DecodingConfig(temperature=2.0))
    assert 0.1 < float(flat[1])
    assert float(flat[0]) < 0.5


def test_temperature_0_is_one_hot_and_the_limit() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, -1.0, 4.0]])
    greedy = distribution(logits, DecodingConfig(top_k=2, top_p=0.5))
    assert greedy.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    near = distribution(logits, DecodingConfig(temperature=0.01))
    torch.testing.assert_close(near, greedy)


def test_temperature_0_with_a_tie_chooses_one_token() -> None:
    assert distribution(torch.tensor([2.0, 2.0, 1.0]), DecodingConfig()).sum() == 1


def test_top_k_by_hand() -> None:
    kept = distribution(LOGITS, DecodingConfig(temperature=1.0, top_k=2))
    torch.testing.assert_close(kept, torch.tensor([0.625, 0.0, 0.375, 0.0]))
    all_of_them = distribution(LOGITS, DecodingConfig(temperature=1.0, top_k=99))
    torch.testing.assert_close(all_of_them, torch.tensor([0.5, 0.1, 0.3, 0.1]))


def test_top_p_by_hand() -> None:
    def kept(top_p: float) -> list[float]:
        row = distribution(LOGITS, DecodingConfig(temperature=1.0, top_p=top_p))
        return [round(value, 4) for value in row.tolist()]

    assert kept(0.01) == [1.0, 0.0, 0.0, 0.0]
    assert kept(0.49) == [1.0, 0.0, 0.0, 0.0]
    assert kept(0.6) == [0.625, 0.0, 0.375, 0.0]
    # Mass .8 is not .85 yet: one of the two equal tokens is needed, and the first is taken.
    assert kept(0.85) == [0.5556, 0.1111, 0.3333, 0.0]
    assert kept(1.0) == [0.5, 0.1, 0.3, 0.1]


def test_top_k_is_applied_before_top_p() -> None:
    # Of 5:3 (top_k 2), the first has .625 of the mass: enough for top_p .6.
    both = distribution(LOGITS, DecodingConfig(temperature=1.0, top_k=2, top_p=0.6))
    assert both.tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_distributions_are_float32_and_sum_to_1(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 4, 1000).to(dtype)
    for config in (
        DecodingConfig(),
        DecodingConfig(temperature=0.7, top_k=50, top_p=0.9),
        DecodingConfig(temperature=2.0),
    ):
        rows = distribution(logits, config)
        assert rows.dtype == torch.float32
        assert rows.shape == (3, 4, 1000)
        torch.testing.assert_close(rows.sum(-1), torch.ones(3, 4))


def test_forms_of_a_proposal_agree() -> None:
    rows = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.05, 0.05, 0.6, 0.3]])
    tokens = torch.tensor([1, 3])
    full = DenseProposal(rows)
    few = SparseProposal([SparseRow([0, 3], [0.5, 0.1], 0.2), SparseRow([2, 3], [0.6, 0.3], 0.05)])
    torch.testing.assert_close(few.of(tokens), full.of(tokens))
    for position in range(2):
        torch.testing.assert_close(few.row(position, 4), full.row(position, 4))
    certain = OneHotProposal(tokens)
    assert certain.of(tokens).tolist() == [1.0, 1.0]
    assert certain.row(1, 4).tolist() == [0.0, 0.0, 0.0, 1.0]


def test_a_shortened_draft_needs_only_its_own_rows() -> None:
    rows = torch.tensor([[0.5, 0.5], [0.1, 0.9], [0.7, 0.3]])
    assert DenseProposal(rows).of(torch.tensor([1])).tolist() == [0.5]
    few = SparseProposal([SparseRow([0], [0.5], 0.5), SparseRow([0], [0.1], 0.9)])
    assert few.of(torch.tensor([1])).tolist() == [0.5]
