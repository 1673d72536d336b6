"""Two drafters as branches of one tree: the same text, from the target's own distribution."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from fakes import END, FIRST, START, FakeTarget, RuleDrafter, ScriptedDrafter, random_rule
from transformers import T5Config, T5ForConditionalGeneration

from fastllm.checkpoints import load_drafter
from fastllm.decoding import autoregress, speculate
from fastllm.decoding.distributions import distribution
from fastllm.decoding.proposals import DenseProposal, Draft, OneHotProposal, joined
from fastllm.decoding.trees import parents_of_call, paths, verify_tree
from fastllm.drafters import DrafterSession
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.lstm import LstmDrafter
from fastllm.drafters.union import UnionDrafter, united
from fastllm.errors import CheckpointError, SettingsError
from fastllm.targets import Encoding
from fastllm.targets.hub import HubTarget
from fastllm.targets.t5_decoder import StaticDecoder
from fastllm.trace import DecodingConfig

SIZE = 12
BRANCH = [4, FIRST]
ARTICLE = [5, 6, 7, 8, 9, 10, 11, END]
WARM = DecodingConfig(gamma=2, temperature=1.0)
IDS = {"start_id": START, "end_id": END}


def encoding() -> Encoding:
    return Encoding(list(ARTICLE), torch.zeros(1, len(ARTICLE), 1), 0.0, end_id=END)


def drafted(first: list[int], second: list[int]) -> Draft:
    one, other = (
        ScriptedDrafter(lambda _, k, tokens=tokens: tokens[:k]) for tokens in (first, second)
    )
    session = UnionDrafter(one, other).begin(encoding())
    return session.draft([START], 4, DecodingConfig(), torch.zeros(4, dtype=torch.float64))


def test_two_chains_share_what_they_begin_with() -> None:
    draft = drafted([5, 6, 7], [5, 6, 9, 8])
    assert (draft.tokens, draft.parents) == ([5, 6, 7, 9, 8], (-1, 0, 1, 1, 3))
    draft = drafted([5, 6], [7])
    assert (draft.tokens, draft.parents) == ([5, 6, 7], (-1, 0, -1))
    assert drafted([5, 6], [5, 6, 7]).parents == (-1, 0, 1)
    for first, second in (([5, 6], [5]), ([5], []), ([], [5]), ([], [])):
        draft = drafted(first, second)
        assert (draft.tokens, draft.parents) == (max(first, second, key=len), None)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_each_token_keeps_the_distribution_that_it_was_drawn_from(temperature: float) -> None:
    config = DecodingConfig(gamma=3, temperature=temperature)
    network = RuleDrafter(random_rule(SIZE, seed=4))
    uniforms = torch.tensor([0.2, 0.7, 0.4], dtype=torch.float64)
    union = UnionDrafter(network, ArticleLookup()).begin(encoding())
    alone = network.begin(encoding())
    for session in (union, alone):
        session.accept([5, 6])
    draft = union.draft([START, 5, 6], 3, config, uniforms)
    chain = alone.draft([START, 5, 6], 3, config, uniforms)
    assert draft.tokens == [*chain.tokens, 7, 8, 9]
    assert draft.parents == (-1, 0, 1, -1, 3, 4)
    for place in range(3):
        assert torch.equal(draft.q.row(place, SIZE), chain.q.row(place, SIZE))
        assert draft.q.row(3 + place, SIZE).nonzero().tolist() == [[7 + place]]
    assert draft.unwarped is not None
    assert chain.unwarped is not None
    assert torch.equal(torch.as_tensor(draft.unwarped(1)), torch.as_tensor(chain.unwarped(1)))
    assert draft.unwarped(4) is None


def test_a_second_drafter_that_draws_is_refused() -> None:
    network = RuleDrafter(random_rule(SIZE, seed=4))
    session = UnionDrafter(network, network).begin(encoding())
    with pytest.raises(SettingsError, match="settled without a draw"):
        session.draft([START], 2, WARM, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settings", [{}, {"no_repeat_ngram": 2}, {"draft_length": "adaptive"}])
def test_it_writes_what_the_target_writes(seed: int, settings: dict[str, Any]) -> None:
    target = FakeTarget(random_rule(SIZE, seed=seed, end_bias=-2.0))
    config = DecodingConfig(gamma=3, max_new_tokens=30, **settings)
    plain = autoregress(target.begin(encoding()), config, **IDS)
    session = UnionDrafter(RuleDrafter(random_rule(SIZE, seed=4)), ArticleLookup())
    rounds = list(speculate(target.begin(encoding()), session.begin(encoding()), config, **IDS))
    assert any(entry.branches for entry in rounds)
    assert [token for entry in rounds for token in entry.tokens] == [
        token for entry in plain for token in entry.tokens
    ]


def test_it_writes_the_text_of_a_real_target(tiny_target: HubTarget, story: str) -> None:
    size = len(tiny_target.vocabulary.tokenizer)
    article = tiny_target.encode(tiny_target.vocabulary.encode(story, 96).ids)
    ends: Any = {"start_id": tiny_target.start_id, "end_id": tiny_target.end_ids}
    config = DecodingConfig(gamma=4, max_new_tokens=30)
    plain = autoregress(tiny_target.begin(article), config, **ends)
    union = UnionDrafter(LstmDrafter.fresh(size, seed=2), ArticleLookup())
    rounds = list(speculate(tiny_target.begin(article), union.begin(article), config, **ends))
    assert any(entry.branches for entry in rounds)
    assert [token for entry in rounds for token in entry.tokens] == [
        token for entry in plain for token in entry.tokens
    ]


def chains(session: DrafterSession, length: int, size: int) -> Iterator[tuple[float, Draft]]:
    """Every chain that a drafter may draw, with its chance."""
    rows = {
        drawn: session.draft([START, *drawn], 1, WARM, torch.zeros(1).double()).q.row(0, size)
        for place in range(length)
        for drawn in product(range(size), repeat=place)
    }
    for tokens in product(range(size), repeat=length):
        q = torch.stack([rows[tokens[:place]] for place in range(length)])
        chance = float(q.double().gather(1, torch.tensor(tokens)[:, None]).prod())
        yield chance, Draft(list(tokens), DenseProposal(q))


def test_with_small_real_models_the_text_is_distributed_as_the_targets() -> None:
    """Every draft of an LSTM and every verdict on it, a fixed branch beside it, in a T5's call."""
    size, length = 5, 2
    torch.manual_seed(5)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=size,
            d_model=16,
            d_kv=4,
            d_ff=16,
            num_heads=2,
            num_layers=1,
            decoder_start_token_id=START,
        )  # fmt: skip
    ).eval()
    with torch.no_grad():
        model.shared.weight.mul_(0.5)
        states = model.get_encoder()(input_ids=torch.tensor([[FIRST, 3, 4, FIRST, END]]))
    article = Encoding([FIRST, 3, 4, FIRST, END], states.last_hidden_state, 0.0, end_id=END)
    decoder = StaticDecoder(model)
    session = decoder.begin(decoder.remember(article.states))

    def p_of(ids: list[int], parents: list[int] | None) -> torch.Tensor:
        session.keep(0)
        return distribution(session.forward(ids, parents), WARM).double()

    own = {
        text: p_of([START, *text], None)[-1]
        for place in range(length + 1)
        for text in product(range(size), repeat=place)
    }
    network = LstmDrafter.fresh(size, seed=1, start="ordinary", width=12, hidden=8).begin(article)
    found = torch.zeros([size] * (length + 1), dtype=torch.float64)
    branched = 0
    for chance, chain in chains(network, length, size):
        draft = united(chain, Draft(BRANCH, OneHotProposal(BRANCH)))
        branched += draft.parents is not None
        rows = p_of([START, *draft.tokens], parents_of_call(1, draft)).numpy()
        pending = [([(0.0, 1.0)] * (length + 1), 0)]
        while pending:
            bounds, decided = pending.pop()
            walk = verify_tree(rows, draft, [sum(side) / 2 for side in bounds])
            if len(walk.tests) > decided:
                node, (_, threshold) = list(walk.tests.items())[decided]
                place = next(path.index(node) for path in paths(draft) if node in path)
                low, high = bounds[place]
                cut = low + (high - low) * threshold
                for part in ((low, cut), (cut, high)):
                    if part[1] > part[0]:
                        pending.append(([*bounds[:place], part, *bounds[place + 1 :]], decided + 1))
                continue
            share = chance
            for low, high in bounds:
                share *= high - low
            head = tuple(draft.tokens[node] for node in walk.path)
            following = torch.from_numpy(walk.residual / walk.residual.sum()) * share
            if len(head) == length:
                found[head] += following
            for token in range(size if len(head) < length else 0):
                text = (*head, token)
                rest = (
                    own[text]
                    if len(text) == length
                    else own[text][:, None]
                    * torch.stack([own[(*text, last)] for last in range(size)])
                )
                found[text] += following[token] * rest
    assert branched > size
    for text in product(range(size), repeat=length + 1):
        wanted = own[()][text[0]] * own[text[:1]][text[1]] * own[text[:2]][text[2]]
        assert float(found[text]) == pytest.approx(float(wanted), abs=2e-6)


def test_names_of_unions() -> None:
    union = load_drafter("lstm-before|lookup")
    assert isinstance(union, UnionDrafter)
    assert isinstance(union.second, ArticleLookup)
    assert union.parameters == union.first.parameters
    assert load_drafter("lookup+lstm-before|lookup").name.startswith("lookup+")
    for name in ("lookup|lookup", "|lookup", "lstm-before|lstm-before", "none|lookup", "lookup|"):
        with pytest.raises(CheckpointError, match=r"as in lstm-after\|lookup"):
            load_drafter(name)


def test_a_composition_may_have_a_branch() -> None:
    rows = torch.eye(SIZE)[[3, 4]]
    chain = joined(Draft([3, 4], DenseProposal(rows)), Draft([5, 6], OneHotProposal([5, 6])))
    draft = united(chain, Draft([3, 4, 7], OneHotProposal([3, 4, 7])))
    assert (draft.tokens, draft.parents) == ([3, 4, 5, 6, 7], (-1, 0, 1, 2, 1))
    for nodes in ([0, 1, 4], [0, 1, 2, 3], []):
        part = draft.select(nodes)
        assert part.tokens == [draft.tokens[node] for node in nodes]
        for place, token in enumerate(part.tokens):
            assert part.q.row(place, SIZE).nonzero().tolist() == [[token]]
        assert part.chances == [1.0] * len(nodes)
