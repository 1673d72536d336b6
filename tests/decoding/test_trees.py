"""Trees of candidates: exact by full enumeration, greedy texts, rules along paths, records."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from fakes import END, START, FakeSession, FakeTarget, random_rule, text_rule
from test_verification import Table, error, random_table

from fastllm.decoding import autoregress, speculate, trees
from fastllm.decoding.distributions import distribution
from fastllm.decoding.proposals import DenseProposal, Draft, OneHotProposal
from fastllm.decoding.race import Race
from fastllm.decoding.rules import Rules
from fastllm.decoding.trees import TEXT, Walk, judge_tree, verify_tree
from fastllm.decoding.verification import LenientRule, TokenRule, judge
from fastllm.demo.rows import recorded_lines, traces_of
from fastllm.drafters import Drafter
from fastllm.errors import FastLLMWarning
from fastllm.targets import Encoding
from fastllm.targets.hub import HubTarget
from fastllm.trace import Branch, DecodingConfig, Trace

SIZE, DEPTH = 3, 3
IDS = {"start_id": START, "end_id": END}

Shape = list[tuple[str, "Shape"]]
"""The children of a node: the kind of each, and its own children."""

CHAIN: Shape = [("draw", [("draw", [("draw", [])])])]
SHAPES: dict[str, Shape] = {
    "empty": [],
    "chain": CHAIN,
    "one-hot chain": [("hot", [("hot", [("hot", [])])])],
    "two draws": [("draw", [("draw", []), ("other", [])]), ("other", [("draw", [])])],
    "draws and one-hots": [
        ("draw", [("hot", [("draw", []), ("hot", [])]), ("draw", [])]),
        ("hot", [("draw", [("hot", [])])]),
        ("other", []),
    ],
    "without replacement": [
        ("draw", [("draw", []), ("without", []), ("without", [])]),
        ("without", [("hot", [("draw", [])])]),
        ("without", []),
    ],
    "led by its siblings": [
        ("hot", [("other", []), ("led", []), ("hot", [])]),
        ("led", [("draw", [("led", [])])]),
        ("led hot", [("hot", [])]),
    ],
}


def drawn_from(
    kind: str, seed: int, zeros: float, written: tuple[int, ...], elders: tuple[int, ...]
) -> torch.Tensor:
    """What a child is drawn from; all zeros where there can be none."""
    one, other = random_table(SIZE, seed, zeros), random_table(SIZE, seed + 1, zeros)
    if kind == "draw":
        return one(written)
    if kind == "other":
        return other(written)
    if kind == "led":
        return one((*written, 9, *elders))
    if kind == "without":
        row = one(written).clone()
        row[list(elders)] = 0
        return row / row.sum() if row.sum() > 0 else row
    best = other((*written, 9, *elders) if kind == "led hot" else written).argmax()
    return torch.zeros(SIZE, dtype=torch.float64).index_fill_(0, best, 1.0)


def drafts(shape: Shape, seed: int, zeros: float) -> Iterator[tuple[float, Draft]]:
    """Every tree of a shape, with its chance."""

    def grow(pending: list[Any], nodes: list[Any], chance: float) -> Iterator[tuple[float, Draft]]:
        if not pending:
            rows = [row for _, _, row in nodes] or [torch.zeros(SIZE, dtype=torch.float64)]
            yield (
                chance,
                Draft(
                    [token for _, token, _ in nodes],
                    DenseProposal(torch.stack(rows)),
                    parents=tuple(parent for parent, _, _ in nodes),
                ),
            )
            return
        (parent, written, kinds, elders), *rest = pending
        if not kinds:
            yield from grow(rest, nodes, chance)
            return
        (kind, below), *others = kinds
        row = drawn_from(kind, seed, zeros, written, elders)
        if not row.sum() > 0:
            yield from grow(rest, nodes, chance)
        for token, share in enumerate(row.tolist()):
            if share > 0:
                ahead = [
                    (parent, written, others, (*elders, token)),
                    (len(nodes), (*written, token), below, ()),
                ]
                yield from grow(ahead + rest, [*nodes, (parent, token, row)], chance * share)

    return grow([(TEXT, (), shape, ())], [], 1.0)


def written_by(draft: Draft, node: int) -> tuple[int, ...]:
    found: tuple[int, ...] = ()
    while node != TEXT:
        assert draft.parents is not None
        found = (draft.tokens[node], *found)
        node = draft.parents[node]
    return found


def rows_of(target: Table, draft: Draft) -> np.ndarray:
    return np.stack(
        [target(written_by(draft, node)).numpy() for node in range(-1, len(draft.tokens))]
    )


def walks(p: np.ndarray, draft: Draft) -> Iterator[tuple[float, Walk]]:
    """Every outcome of the tests on a tree, with its chance."""
    pending = [([(0.0, 1.0)] * (DEPTH + 1), 0)]
    while pending:
        bounds, decided = pending.pop()
        walk = verify_tree(p, draft, [(low + high) / 2 for low, high in bounds])
        if len(walk.tests) == decided:
            yield math.prod(high - low for low, high in bounds), walk
            continue
        node, (uniform, threshold) = list(walk.tests.items())[decided]
        assert uniform == pytest.approx(0.5, abs=1e-6), "what is left of a uniform is uniform"
        place = len(written_by(draft, node)) - 1
        low, high = bounds[place]
        cut = low + (high - low) * threshold
        for part in ((low, cut), (cut, high)):
            if part[1] > part[0]:
                pending.append(([*bounds[:place], part, *bounds[place + 1 :]], decided + 1))


def distribution_of(
    target: Table, candidates: Iterator[tuple[float, Draft]], length: int = DEPTH + 1
) -> dict[tuple[int, ...], float]:
    """The joint distribution of the next tokens; what a round leaves, the target writes alone."""
    found = dict.fromkeys(product(range(SIZE), repeat=length), 0.0)
    for chance, draft in candidates:
        for share, walk in walks(rows_of(target, draft), draft):
            before = tuple(draft.tokens[node] for node in walk.path)
            for token, left in enumerate(walk.residual / walk.residual.sum()):
                head = (*before, token)
                for rest in product(range(SIZE), repeat=length - len(head)):
                    text, following = (*head, *rest), 1.0
                    for place in range(len(head), length):
                        following *= float(target(text[:place])[text[place]])
                    found[text] += chance * share * float(left) * following
    return found


@pytest.mark.parametrize("zeros", [0.0, 0.4])
@pytest.mark.parametrize("name", SHAPES)
def test_the_text_is_the_targets_whatever_is_drafted(name: str, zeros: float) -> None:
    target = random_table(SIZE, 7, zeros)
    found = distribution_of(target, drafts(SHAPES[name], 3, zeros))
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert error(found, target) < 1e-12


def test_the_enumeration_sees_a_wrong_q() -> None:
    """A second child that was drawn with its elder left out, and says that it was not."""
    target = random_table(SIZE, 7)

    def lying() -> Iterator[tuple[float, Draft]]:
        for chance, draft in drafts([("draw", []), ("without", [])], 3, 0.0):
            row = random_table(SIZE, 3)(())
            yield (
                chance,
                Draft(draft.tokens, DenseProposal(torch.stack([row, row])), None, (-1, -1)),
            )

    assert error(distribution_of(target, lying()), target) > 1e-3


@pytest.mark.parametrize("seed", range(40))
def test_a_chain_is_judged_by_the_token_rule(seed: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    logits, drafted = torch.randn(4, 9, generator=numbers), torch.randn(3, 9, generator=numbers)
    uniforms = torch.rand(4, generator=numbers, dtype=torch.float64).tolist()
    config = DecodingConfig(temperature=0.8, verification="token", top_k=7)
    rows = distribution(drafted, config)
    draft = Draft(rows.multinomial(1, generator=numbers)[:, 0].tolist(), DenseProposal(rows))
    line, verdict, _, branches = judge_tree(logits, draft, uniforms, config)
    expected = judge(logits, draft, uniforms, config)
    assert (line, branches) == ([0, 1, 2], ())
    assert verdict[:2] == expected[:2]
    assert verdict.extra_p == expected.extra_p
    assert verdict.p == expected.p
    decided = verdict.accepted + 1
    assert verdict.thresholds[:decided] == pytest.approx(expected.thresholds[:decided], abs=1e-6)


def test_lenience_reaches_trees() -> None:
    rule = LenientRule(0.5)
    p = np.array([[0.2, 0.8], [0.5, 0.5]])
    draft = Draft([0], OneHotProposal([0]), parents=(TEXT,))
    assert verify_tree(p, draft, [0.3, 0.0], rule.relaxed).path == [0]
    assert verify_tree(p, draft, [0.3, 0.0], TokenRule().relaxed).path == []


def test_what_was_drawn_from_nan_is_as_if_it_were_not_drafted() -> None:
    rows = torch.tensor([[math.nan] * 3, [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    draft = Draft([2, 1, 0], DenseProposal(rows), parents=(TEXT, TEXT, 0))
    logits = torch.tensor([[0.0, 9.0, 0.0]] * 4)
    config = DecodingConfig(temperature=1.0)
    line, verdict, _, branches = judge_tree(logits, draft, [0.5, 0.5, 0.5], config)
    assert (line, verdict.accepted, verdict.q) == ([1], 1, [1.0])
    assert branches == (Branch(0, (2, 0)),)
    line, verdict, _, _ = judge_tree(logits.roll(1, 1) * 5, draft, [0.99, 0.5, 0.5], config)
    assert (line, verdict.accepted) == ([], 0)


class TreeDrafter(Drafter):
    """Drafts two or three branches a round, some right, some wrong, some shared in part.

    Args:
        text: what the target will write when greedy.
    """

    name, vocabulary = "tree", ""

    def __init__(self, text: Sequence[int]) -> None:
        self.text = text

    def begin(self, encoding: Encoding) -> "TreeDrafter":
        return self

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        at = len(prefix) - 1
        due = [*self.text[at : at + k], *[END] * k][:k]
        wrong = [2 if token != 2 else 3 for token in due]
        turn = at % 4
        tokens, parents = list(wrong), list(range(-1, k - 1))
        if turn == 0:  # wrong, then right from the start
            tokens, parents = wrong + due, [*parents, -1, *range(k, 2 * k - 1)]
        elif turn == 1 and k > 1:  # right, with wrong siblings on the way
            tokens, parents = [*due, wrong[0], wrong[1]], [*parents, -1, 0]
        elif turn == 2 and k > 1:  # a wrong sibling before the right one, inside the path
            tokens = [due[0], wrong[1], *due[1:]]
            parents = [-1, 0, 0, *range(2, k)]
        return Draft(tokens, OneHotProposal(tokens), parents=tuple(parents))

    def accept(self, tokens: Sequence[int]) -> None:
        pass


TEXT_OF = [4, 7, 4, 9, 3, 5, 7, 4, 9, 8, 10, 11, 5, END]


@pytest.mark.parametrize("gamma", range(1, 7))
@pytest.mark.parametrize("settings", [{}, {"no_repeat_ngram": 2}, {"max_new_tokens": 6}])
def test_greedy_texts_are_those_of_plain_decoding(gamma: int, settings: dict[str, int]) -> None:
    config = DecodingConfig(gamma=gamma, **settings)
    alone = [
        token
        for entry in autoregress(FakeSession(text_rule(TEXT_OF, 12)), config, **IDS)
        for token in entry.tokens
    ]
    session = FakeSession(text_rule(TEXT_OF, 12))
    rounds = list(speculate(session, TreeDrafter(alone), config, **IDS))
    assert [token for entry in rounds for token in entry.tokens] == alone
    assert len(rounds) < len(alone) or gamma == 1
    for entry in rounds:
        for place, branch in product(range(len(entry.branches)), entry.branches):
            assert branch.at <= len(entry.drafted), place
            assert branch.tokens != entry.drafted[branch.at :][: len(branch.tokens)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_trees_decode_on_the_static_engine_and_on_one_path_through_transformers(
    temperature: float, tiny_target: HubTarget, story: str
) -> None:
    config = DecodingConfig(gamma=4, max_new_tokens=40, no_repeat_ngram=3, temperature=temperature)
    ends: Any = {"start_id": tiny_target.start_id, "end_id": tiny_target.end_ids}
    encoding = tiny_target.encode(tiny_target.vocabulary.encode(story, 96).ids)
    plain = autoregress(tiny_target.begin(encoding), config, **ends)
    alone = [token for entry in plain for token in entry.tokens]
    session = tiny_target.begin(encoding)
    rounds = list(speculate(session, TreeDrafter(alone), config, **ends))
    found = [token for entry in rounds for token in entry.tokens]
    assert any(entry.branches for entry in rounds)
    if temperature == 0:
        assert found == alone
    through = HubTarget(
        tiny_target.model, tiny_target.vocabulary, name="tiny", engine="transformers"
    )
    session = through.begin(through.encode(encoding.source_ids))
    with pytest.warns(FastLLMWarning, match="the first path alone is judged"):
        rounds = list(speculate(session, TreeDrafter(alone), config, **ends))
    assert not any(entry.branches for entry in rounds)
    if temperature == 0:
        assert [token for entry in rounds for token in entry.tokens] == alone


def test_rules_bar_what_they_bar_along_each_path() -> None:
    config = DecodingConfig(no_repeat_ngram=2, min_new_tokens=5)
    text = [START, 4, 5, 4]
    draft = Draft([5, 4, 7, 4, 5], OneHotProposal([5, 4, 7, 4, 5]), parents=(-1, 0, -1, 2, 3))
    found = trees.banned_along(Rules(END), text, draft, config)
    for path in ([0, 1], [2, 3, 4]):
        expected = Rules(END).along(text, [draft.tokens[node] for node in path], config)
        for node, barred in zip([TEXT, *path], expected, strict=True):
            assert sorted(found[node + 1]) == sorted(barred)
    assert trees.banned_along(Rules(END), text, draft, DecodingConfig()) == []


def test_what_stands_behind_an_end_is_dropped() -> None:
    draft = Draft([4, END, 5, 6, END], OneHotProposal([4, END, 5, 6, END]), None, (-1, 0, 1, 0, 3))
    kept = trees.up_to_ends(draft, frozenset({END}))
    assert (kept.tokens, kept.parents) == ([4, END, 6, END], (-1, 0, 0, 2))
    assert trees.up_to_ends(kept, frozenset({END})) is kept
    assert trees.first_path(draft).tokens == [4, END, 5]
    assert (trees.depth(draft), trees.paths(kept)) == (3, [[0, 1], [0, 2, 3]])


def test_branches_survive_a_trace_and_reach_the_page() -> None:
    target = FakeTarget(random_rule(9, seed=1))
    for temperature in (0.0, 1.0):
        config = DecodingConfig(max_new_tokens=12, temperature=temperature, gamma=3)
        race = Race(target, [None, TreeDrafter([4, 5, 6, 7])], "an article", config)
        list(race)
        traces = race.traces()
        plain, tree = (json.loads(trace.dumps()) for trace in traces)
        assert not any("branches" in entry for entry in plain["rounds"])
        assert any("branches" in entry for entry in tree["rounds"])
        assert [Trace.loads(trace.dumps()) for trace in traces] == traces
        refused = [branch for entry in traces[1].rounds for branch in entry.branches]
        assert {token for branch in refused for token in branch.tokens} <= set(traces[1].names)
        lines = list(recorded_lines("run", ["alone", "tree"], traces))
        assert traces_of("".join(lines))[1] == traces
        rows = [row for row in map(json.loads, lines) if row["row"] == "round"]
        shown = [branch for row in rows for branch in row.get("branches", ())]
        assert len(shown) == len(refused)
        assert {row["lane"] for row in rows if "branches" in row} == {1}
        tested = [branch for branch in shown if "test" in branch["tokens"][0]]
        assert all(branch["tokens"][0]["s"] == "refused" for branch in tested)
        assert any(tested)
