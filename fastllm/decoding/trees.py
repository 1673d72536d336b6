"""Trees of candidates: a draft whose tokens have parents, judged along one path of it.

A draft is a tree where several tokens may follow one: `Draft.parents` says which token each
continues. The target reads all of them in one call, each behind its own ancestors alone, and the
verdict walks from the text outwards. At a node stand r_1 = p, the target's distribution there, and
children x_1 ... x_k, each drawn from a q_i of any kind that may depend on the siblings refused
before it. Child i is accepted with chance min(1, r_i(x_i) / q_i(x_i)); if it is refused,
r_{i+1} = norm(max(r_i - q_i, 0)). Where all are refused the target's own token is drawn from the
last r. So each place of the text is distributed as p whatever was drafted: a refused child with the
draw from norm(max(r - q, 0)) behind it makes up exactly r. A child that is settled beforehand has
the one-hot q. With one child a node this is the token rule, and at temperature 0 a walk by the most
likely token. Source: Miao et al. 2023, "SpecInfer", arXiv:2305.09781, Algorithm 2; Chen et al.
2024, "Sequoia", arXiv:2402.12374.

Example: p = (.5, .3, .2), a network drew token 0 from (.8, .2, 0), the lookup says token 2. Token 0
stands with chance .5 / .8. Otherwise r_2 = norm(0, .1, .2), and token 2 stands with chance 2/3.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from fastllm.decoding.distributions import (
    best_tokens,
    cumulative_sum,
    drawn_from,
    require_finite,
    ruled_distribution,
)
from fastllm.decoding.proposals import Draft
from fastllm.decoding.rules import Rules, agreeing
from fastllm.decoding.verification import TokenRule, Verdict, rule_of
from fastllm.trace import Branch, DecodingConfig, Judged

TEXT = -1
"""The parent of tokens that continue the text itself."""

_LAST = 1 - 2**-53
"""The largest number below 1."""


Tests = dict[int, tuple[float, float]]
"""Of each token that was tested its uniform and its threshold, in order."""


class Walk(NamedTuple):
    """The way of a verdict through a tree.

    Attributes:
        path: the accepted tokens, by their places in the draft.
        residual: what the target's own token behind them is drawn from, (V,), float64.
        tests: on the way.
    """

    path: list[int]
    residual: np.ndarray
    tests: Tests


class TreeVerdict(NamedTuple):
    """The outcome of `judge_tree`.

    Attributes:
        line: the tokens of `Round.drafted`, by their places in the draft: the accepted path, then
            the first child that was refused behind it, if any, and the first child of each.
        verdict: on these as on a chain.
        uniforms: of its tests.
        branches: what else was drafted.
    """

    line: list[int]
    verdict: Verdict
    uniforms: list[float]
    branches: tuple[Branch, ...]


def verify_tree(
    p: np.ndarray,
    draft: Draft,
    uniforms: Sequence[float],
    relaxed: Callable[[float], float] = float,
) -> Walk:
    """Walks from the text outwards, to the first node whose children are all refused.

    Args:
        p: the target's distributions, shape (1 + n, V): behind the text, and behind each token.
        draft: n tokens with parents; of a q that is NaN nothing is tested.
        uniforms: numbers in [0, 1), one for each depth and one more, which the caller draws the
            target's own token with. Siblings share one: what a refusal leaves of it is uniform.
        relaxed: stands in the place of r in the tests, as `TokenRule.relaxed`; the identity is
            exact.
    """
    below, chances = children(draft), draft.chances
    path: list[int] = []
    tests: Tests = {}
    node = TEXT
    while True:
        residual = p[node + 1].astype(np.float64)
        node, uniform = TEXT, uniforms[len(path)]
        for child in below[path[-1] if path else TEXT]:
            chance = chances[child]
            if not chance >= 0:  # drawn from NaN: as if it had not been drafted
                continue
            here = relaxed(float(residual[draft.tokens[child]]))
            threshold = here / chance if here < chance else float(here > 0)
            tests[child] = uniform, threshold
            if uniform < threshold:
                node = child
                break
            uniform = min((uniform - threshold) / (1 - threshold), _LAST)
            left = draft.q.residual(child, residual)
            mass = left.sum()
            if mass > 0:  # r = q up to rounding leaves nothing over: then r itself is right
                residual = left / mass
        if node == TEXT:
            return Walk(path, residual, tests)
        path.append(node)


def judge_tree(
    logits: torch.Tensor,
    draft: Draft,
    uniforms: Sequence[float],
    config: DecodingConfig,
    banned: Sequence[Sequence[int]] = (),
) -> TreeVerdict:
    """Decides on a tree by the target's logits, with the filters of the settings.

    The block rule is one of chains: trees are judged by the token rule, or the lenient one. Rows
    of logits (1 + n, V), behind the text and behind each of n drafted tokens, are worked on in the
    host's memory; the barred ids are those of `banned_along`, the uniforms of `verify_tree`.

    Raises:
        NotFiniteError: the target's logits are NaN or infinite.
        VocabularyError: the drafter's distributions are over another number of tokens.
    """
    places = list(zip(_parents(draft), draft.tokens, strict=True))
    if config.temperature > 0:
        draft.q.require(logits.shape[-1])
        rows = ruled_distribution(logits, banned, config).cpu().numpy()
        rule = rule_of(config)
        relaxed = rule.relaxed if isinstance(rule, TokenRule) else float
        path, residual, tests = verify_tree(rows, draft, uniforms, relaxed)
        row = rows[path[-1] + 1 if path else 0]
        require_finite([float(row.sum())], logits.dtype)
        extra = drawn_from(cumulative_sum(torch.from_numpy(residual)), uniforms[depth(draft)])
        of_p = [float(rows[parent + 1, token]) for parent, token in places]
        extra_p = float(row[extra])
    else:
        best, largest = best_tokens(logits, banned)
        of_p = [float(best[parent + 1] == token) for parent, token in places]
        path, tests = _greedy_walk(draft, of_p, uniforms)
        end = path[-1] + 1 if path else 0
        require_finite([largest[0], *(largest[node + 1] for node in path)], logits.dtype)
        extra, extra_p = best[end], 1.0
    line = _onward(draft, path)
    known = next((at for at, node in enumerate(line) if math.isnan(draft.chances[node])), len(line))
    line = line[:known]
    verdict = Verdict(
        len(path),
        extra,
        [of_p[node] for node in line],
        [draft.chances[node] for node in line],
        [tests[node][1] if node in tests else 0.0 for node in line],
        extra_p,
    )
    judged = {
        node: Judged(draft.tokens[node], of_p[node], draft.chances[node], *test)
        for node, test in tests.items()
    }
    numbers = [tests[node][0] for node in line if node in tests]
    return TreeVerdict(line, verdict, numbers, _beside(draft, line, judged))


def _greedy_walk(
    draft: Draft, of_p: Sequence[float], uniforms: Sequence[float]
) -> tuple[list[int], Tests]:
    """The walk by the most likely tokens: of each token `of_p` is 1 where it is that, else 0."""
    below = children(draft)
    path: list[int] = []
    tests: Tests = {}
    while True:
        for child in below[path[-1] if path else TEXT]:
            tests[child] = uniforms[len(path)], of_p[child]
            if of_p[child]:
                path.append(child)
                break
        else:
            return path, tests


def banned_along(
    rules: Rules, text: Sequence[int], draft: Draft, config: DecodingConfig
) -> list[Sequence[int]]:
    """`Rules.along` of a text and of each token of a tree on it: 1 + n lists, or no rule, none."""
    found: list[Sequence[int]] = [()] * (1 + len(draft.tokens))
    for path in paths(draft):
        along = rules.along(text, [draft.tokens[node] for node in path], config)
        if not along:
            return []
        for node, barred in zip((TEXT, *path), along, strict=True):
            found[node + 1] = barred
    return found


def parents_of_call(unread: int, draft: Draft) -> list[int] | None:
    """The parents of a call that reads `unread` tokens of a text, then a draft; None of a chain."""
    if draft.parents is None:
        return None
    return [*range(-1, unread - 1), *(parent + unread for parent in draft.parents)]


def children(draft: Draft) -> dict[int, list[int]]:
    """The children of each node, in their order; those of the text at `TEXT`."""
    found: dict[int, list[int]] = {node: [] for node in range(TEXT, len(draft.tokens))}
    for node, parent in enumerate(_parents(draft)):
        found[parent].append(node)
    return found


def paths(draft: Draft) -> list[list[int]]:
    """The way from the text to each leaf, the first leaf first."""
    below = children(draft)
    found: list[list[int]] = []
    ways = [[node] for node in reversed(below[TEXT])]
    while ways:
        way = ways.pop()
        if not below[way[-1]]:
            found.append(way)
        ways += [[*way, node] for node in reversed(below[way[-1]])]
    return found


def depth(draft: Draft) -> int:
    """The tokens of the longest path."""
    return max(map(len, paths(draft)), default=0)


def first_path(draft: Draft) -> Draft:
    """The chain of the first child of each node: what is left where trees cannot be read.

    As exact: later siblings count as not drafted.
    """
    return draft.select(_onward(draft, []))


def up_to_ends(draft: Draft, ends: frozenset[int]) -> Draft:
    """Drops what was drafted behind an end token: it could never be used."""
    kept: dict[int, int] = {TEXT: TEXT}
    for node, parent in enumerate(_parents(draft)):
        if parent in kept and (parent == TEXT or draft.tokens[parent] not in ends):
            kept[node] = len(kept) - 1
    if len(kept) > len(draft.tokens):
        return draft
    nodes = [node for node in kept if node != TEXT]
    parents = _parents(draft)
    return replace(draft.select(nodes), parents=tuple(kept[parents[node]] for node in nodes))


def _parents(draft: Draft) -> Sequence[int]:
    return range(-1, len(draft.tokens) - 1) if draft.parents is None else draft.parents


def _onward(draft: Draft, path: Sequence[int]) -> list[int]:
    """A path, and behind it the first child of each node."""
    below, line = children(draft), list(path)
    while after := below[line[-1] if line else TEXT]:
        line.append(after[0])
    return line


def _beside(draft: Draft, line: Sequence[int], judged: dict[int, Judged]) -> tuple[Branch, ...]:
    """What is not on a line of a tree."""
    found = []
    for path in paths(draft):
        at = agreeing(path, line)
        if at < len(path):
            tokens = tuple(draft.tokens[node] for node in path[at:])
            found.append(Branch(at, tokens, judged.get(path[at])))
    return tuple(found)
