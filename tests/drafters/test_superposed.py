"""Several paths from one row of a drafter: which they are, and that the text stays the target's."""

import copy
import math
from collections.abc import Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import END, START
from test_trees import SIZE as FEW
from test_trees import distribution_of
from test_verification import error, random_table
from torch import nn

from fastllm.checkpoints import load_drafter
from fastllm.decoding import autoregress, speculate
from fastllm.decoding.proposals import Draft, OneHotProposal, joined
from fastllm.drafters.combined import CombinedDrafter
from fastllm.drafters.lstm import LstmDrafter
from fastllm.drafters.ngram import MAX_ORDER, NgramDrafter
from fastllm.drafters.shared import SharedDrafter
from fastllm.drafters.superposed import SuperposedDrafter, SuperposedSession, tree_of
from fastllm.drafters.t5 import T5Drafter, T5Model, T5Settings
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

GREEDY = DecodingConfig()
UNUSED = torch.zeros(8, dtype=torch.float64)
FOLLOWERS = {
    START: {2: 0.6, 3: 0.4},
    2: {4: 0.9, 5: 0.1},
    3: {4: 0.1, 5: 0.9},
    4: {END: 0.8, 6: 0.2},
    5: {6: 0.7, 2: 0.3},
    6: {2: 1.0},
}
"""A drafter by hand: what follows which token."""


class Lines:
    """A state that tells the texts of a batch apart; all that was written in each."""

    def __init__(self, rows: list[list[torch.Tensor]]) -> None:
        self.rows = rows

    def of(self, texts: Sequence[int]) -> "Lines":
        return Lines([list(self.rows[text]) for text in texts])


class ByHand(nn.Module):
    """A network that goes by the last token, embedded one-hot: a mixture reads as its weights."""

    def __init__(self, followers: dict[int, dict[int, float]], size: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.eye(size), requires_grad=False)
        self.table = torch.zeros(size, size)
        for token, row in followers.items():
            for after, chance in row.items():
                self.table[token, after] = chance
        self.mixtures: list[torch.Tensor] = []

    def begin(self, memory: Any) -> Lines:
        return Lines([[]])

    def step(self, memory: Any, state: Lines, ids: torch.Tensor) -> tuple[torch.Tensor, Lines]:
        features, states = self.read(memory, state, ids[:, None])
        return features[:, 0], states[0]

    def read(
        self, memory: Any, state: Lines, ids: torch.Tensor
    ) -> tuple[torch.Tensor, list[Lines]]:
        if ids.is_floating_point():
            self.mixtures.append(ids[0, 0])
        rows = ids if ids.is_floating_point() else self.embedding[ids]
        assert len(rows) == len(state.rows)
        states = []
        for place in range(rows.shape[1]):
            pairs = zip(state.rows, rows[:, place], strict=True)
            state = Lines([[*before, row] for before, row in pairs])
            states.append(state)
        return rows, states

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return (features @ self.table).log()


def by_hand(
    network: ByHand,
    article: list[int],
    *,
    weight: float,
    paths: int = 2,
    beams: bool = False,
    end_id: int | None = END,
) -> SuperposedSession:
    settings: Any = SimpleNamespace(paths=paths, weight=weight, beams=beams)
    table = NgramDrafter.fit([article], order=MAX_ORDER, vocabulary_size=len(network.table))
    memory: Any = None  # a network by hand remembers nothing of the article
    return SuperposedSession(settings, network, memory, table, end_id)


def shape(draft: Draft) -> tuple[list[int], tuple[int, ...] | None]:
    assert isinstance(draft.q, OneHotProposal)
    assert draft.chances == [1.0] * len(draft.tokens)
    return draft.tokens, draft.parents


def test_paths_by_hand() -> None:
    network = ByHand(FOLLOWERS, 8)
    # 2 4 .54, 3 5 .36, 2 5 .06, 3 4 .04
    beam = by_hand(network, [7], weight=0.0, beams=True)
    assert shape(beam.draft([START], 2, GREEDY, UNUSED)) == ([2, 4, 3, 5], (-1, 0, -1, 2))
    assert beam.passes == 2
    # The mixture says 4 with .6 * .9 + .4 * .1 = .58 and 5 with .42, behind 2 as behind 3.
    alone = by_hand(network, [7], weight=0.0)
    assert shape(alone.draft([START], 2, GREEDY, UNUSED)) == ([2, 4, 5], (-1, 0, 0))
    assert alone.passes == 2
    assert torch.allclose(network.mixtures.pop()[2:4], torch.tensor([0.6, 0.4]))
    # What stands in the article tells them apart.
    helped = by_hand(network, [7, 2, 4, 7, 3, 5], weight=0.5)
    assert shape(helped.draft([START], 2, GREEDY, UNUSED)) == ([2, 4, 3, 5], (-1, 0, -1, 2))


def test_the_weights_of_a_mixture_are_the_probabilities_of_the_paths() -> None:
    network, weight, article = ByHand(FOLLOWERS, 8), 0.25, [3, 7, 2, 4, 7, 3, 5]
    session = by_hand(network, article, weight=weight)
    draft = session.draft([START], 3, GREEDY, UNUSED)
    table = NgramDrafter.fit([article], order=MAX_ORDER, vocabulary_size=8)

    def score(network_says: float, before: list[int], token: int) -> float:
        seen = table.row([START] * MAX_ORDER + before)[token]
        return math.exp((1 - weight) * math.log(network_says) + weight * math.log(seen))

    first = {token: score(chance, [], token) for token, chance in FOLLOWERS[START].items()}
    mixture = {token: share / sum(first.values()) for token, share in first.items()}
    assert network.mixtures[0].tolist() == pytest.approx(
        [mixture.get(token, 0.0) for token in range(8)]
    )
    assert mixture[2] < 0.6, "the table has its say: the article begins with 3"
    second = {
        (token, after): first[token]
        * score(sum(mixture[x] * FOLLOWERS[x][after] for x in (2, 3)), [token], after)
        for token, after in product((2, 3), (4, 5))
    }
    best = sorted(second, key=second.__getitem__, reverse=True)[:2]
    total = sum(second[path] for path in best)
    wanted = [sum(second[p] / total for p in best if p[1] == token) for token in range(8)]
    assert network.mixtures[1].tolist() == pytest.approx(wanted)
    assert [draft.tokens[0], draft.tokens[1]] == list(best[0])


@pytest.mark.parametrize("beams", [False, True])
def test_a_path_that_has_ended_stays_and_is_not_gone_on_from(beams: bool) -> None:
    network = ByHand(FOLLOWERS, 8)
    draft = by_hand(network, [7], weight=0.0, beams=beams).draft([START, 2], 4, GREEDY, UNUSED)
    children: dict[int, list[int]] = {node: [] for node in range(-1, len(draft.tokens))}
    for node, parent in enumerate(draft.parents or range(-1, len(draft.tokens) - 1)):
        children[parent].append(node)
    ends = [node for node, token in enumerate(draft.tokens) if token == END]
    assert ends
    assert all(not children[node] for node in ends)


def test_draft_lengths_and_rules() -> None:
    def drafted(text: list[int], k: int = 3, **settings: Any) -> list[int]:
        session = by_hand(ByHand(FOLLOWERS, 8), [7], weight=0.0)
        return session.draft(text, k, DecodingConfig(**settings), UNUSED).tokens

    assert drafted([START], draft_length="lead") == [2, 3]
    assert drafted([START], draft_length="confidence", fallback_threshold=0.65) == []
    assert drafted([START], draft_length="confidence", fallback_threshold=0.59) == [2, 3]
    assert drafted([START], draft_length="adaptive", draft_cost=9.0) == [2, 3]
    assert drafted([START, END]) == [], "nothing is likely there"
    assert drafted([START, 6, 2, 6], k=1, no_repeat_ngram=2) == [], "6 2 was there"
    assert END not in drafted([START, 2], k=2, min_new_tokens=9)


def test_a_tree_holds_what_paths_share_once() -> None:
    draft = tree_of([(5, 6, 7), (5, 6, 8), (5,), (9, 6)])
    assert shape(draft) == ([5, 6, 7, 8, 9, 6], (-1, 0, 1, 1, -1, 4))
    assert shape(tree_of([(5, 6), (5,)])) == ([5, 6], None)
    assert shape(tree_of([()])) == ([], None)


@pytest.mark.parametrize("beams", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_sampled_texts_are_distributed_as_the_targets(seed: int, beams: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    table = torch.rand(FEW, FEW, generator=generator).tolist()
    network = ByHand({token: dict(enumerate(row)) for token, row in enumerate(table)}, FEW)
    session = by_hand(network, [2, 0, 1, 2], weight=0.3, paths=3, beams=beams, end_id=None)
    draft = session.draft([START], 3, DecodingConfig(temperature=1.0), UNUSED)
    assert draft.parents is not None
    target = random_table(FEW, seed)
    assert error(distribution_of(target, iter([(1.0, draft)])), target) < 1e-12


@pytest.fixture(scope="module", params=["t5", "shared"])
def drafter(request: pytest.FixtureRequest, tiny_target: HubTarget) -> T5Drafter | SharedDrafter:
    """Both made of the target's decoder, and not the same as it."""
    torch.manual_seed(3)
    size = int(tiny_target.model.config.vocab_size)
    made: T5Drafter | SharedDrafter
    if request.param == "shared":
        made = SharedDrafter.fresh(size, target=tiny_target, layers=2)
    else:
        network, sizes = copy.deepcopy(tiny_target.model), T5Settings(size, 64, 4, 2, 64)
        made = T5Drafter(T5Model(network), sizes, "t5", "")
    with torch.no_grad():
        for name, weights in made.model.named_parameters():
            if "decoder.block" in name:
                weights.mul_(1 + 0.03 * torch.randn_like(weights))
    return made


@pytest.fixture(scope="module")
def encoding(tiny_target: HubTarget, story: str) -> Encoding:
    return tiny_target.encode(tiny_target.vocabulary.encode(story, 60).ids)


@pytest.mark.parametrize("beams", [False, True])
def test_one_path_is_the_networks_own_chain(
    drafter: T5Drafter | SharedDrafter,
    encoding: Encoding,
    beams: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastllm.drafters.shared.FREQUENT", 10_000)  # all words
    one = SuperposedDrafter(drafter, paths=1, weight=0.0, beams=beams).begin(encoding)
    plain = drafter.begin(encoding)
    for text in ([0], [0, 20, 31], [0, 20, 31, 33, 40], [0, 20, 7]):  # forth, and back
        chain = plain.draft(text, 5, GREEDY, UNUSED)
        assert shape(one.draft(text, 5, GREEDY, UNUSED)) == (chain.tokens, None)


def test_beams_are_those_of_whole_sequences(
    drafter: T5Drafter | SharedDrafter, encoding: Encoding
) -> None:
    session = SuperposedDrafter(drafter, weight=0.0, beams=True).begin(encoding)
    session.draft([0, 20], 2, GREEDY, UNUSED)  # which is then gone back on
    prefix, count, length = [0, 25, 20], 3, 4
    model, memory = drafter.network(encoding)
    paths: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    with torch.inference_mode():
        for _ in range(length):
            longer = []
            for score, path in paths:
                if path and path[-1] == END:
                    longer.append((score, path))
                    continue
                features = model.whole(memory, torch.tensor([[*prefix, *path]]))[:, -1]
                row = model.logits(features)[0].log_softmax(-1).tolist()
                longer += [(score + chance, (*path, token)) for token, chance in enumerate(row)]
            paths = sorted(longer, reverse=True)[:count]
    draft = session.draft(prefix, length, GREEDY, UNUSED)
    assert shape(draft) == shape(tree_of([path for _, path in paths]))
    assert draft.parents is not None


@pytest.mark.parametrize("beams", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"no_repeat_ngram": 2},
        {"draft_length": "adaptive", "draft_cost": 0.2},
        {"draft_length": "confidence", "fallback_threshold": 0.02},
        {"temperature": 1.0},
    ],
)
def test_it_writes_what_the_target_writes(
    tiny_target: HubTarget,
    drafter: T5Drafter | SharedDrafter,
    encoding: Encoding,
    settings: dict[str, Any],
    beams: bool,
) -> None:
    ends: Any = {"start_id": tiny_target.start_id, "end_id": tiny_target.end_ids}
    config = DecodingConfig(gamma=4, max_new_tokens=30, **settings)
    session = SuperposedDrafter(drafter, beams=beams).begin(encoding)
    rounds = list(speculate(tiny_target.begin(encoding), session, config, **ends))
    assert any(entry.branches for entry in rounds)
    # the tiny target's decoder has an embedding of its own, which no shared drafter knows
    assert any(entry.accepted for entry in rounds) or isinstance(drafter, SharedDrafter)
    if config.temperature == 0:
        plain = autoregress(tiny_target.begin(encoding), config, **ends)
        assert [token for entry in rounds for token in entry.tokens] == [
            token for entry in plain for token in entry.tokens
        ]


@pytest.mark.parametrize("article", [[END], []])
def test_an_article_without_words_leaves_the_mixture_alone(article: list[int]) -> None:
    draft = by_hand(ByHand(FOLLOWERS, 8), article, weight=0.3).draft([START], 2, GREEDY, UNUSED)
    assert shape(draft) == ([2, 4, 5], (-1, 0, 0))


def test_names() -> None:
    found = load_drafter("superposed:shared-after")
    assert isinstance(found, SuperposedDrafter)
    assert (found.name, found.parameters) == (
        "superposed:shared-after",
        load_drafter("shared-after").parameters,
    )
    both = load_drafter("lookup+superposed:t5-after")
    assert isinstance(both, CombinedDrafter)
    assert isinstance(both.second, SuperposedDrafter)
    for name in ("superposed:lookup", "superposed:lstm-before", "superposed:shared-after+lookup"):
        with pytest.raises(SettingsError, match="give a T5 or a shared-encoder drafter"):
            load_drafter(name)


@pytest.mark.parametrize(("paths", "weight"), [(0, 0.1), (3, 1.0), (3, -0.1)])
def test_numbers_out_of_range(paths: int, weight: float) -> None:
    with pytest.raises(SettingsError, match="at least one path"):
        SuperposedDrafter(T5Drafter.fresh(20, width=12), paths, weight)
    with pytest.raises(SettingsError, match="reads no embeddings"):
        SuperposedDrafter(LstmDrafter.fresh(20))


def test_a_tree_may_go_on_from_a_chain() -> None:
    draft = joined(Draft([8, 9], OneHotProposal([8, 9])), tree_of([(5, 6), (7,)]))
    assert shape(draft) == ([8, 9, 5, 6, 7], (-1, 0, 1, 2, 1))
    assert joined(tree_of([(5,), (7,)]), Draft([8], OneHotProposal([8]))).tokens == [5, 7]
