"""Lookup where its match is long, another drafter elsewhere."""

import pytest
import torch

from fastllm.decoding import autoregress, speculate
from fastllm.decoding.proposals import DenseProposal, OneHotProposal
from fastllm.drafters.combined import PREFIX, CombinedDrafter
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.neural import NeuralSession
from fastllm.drafters.t5 import T5Drafter
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig
from tests.fakes import END, START, FakeTarget, RuleDrafter, random_rule

SIZE = 12
ARTICLE = [5, 6, 7, 8, 9, 10, 11, END]
SAMPLING = DecodingConfig(gamma=3, temperature=1.0)
UNIFORMS = torch.tensor([0.2, 0.7, 0.4], dtype=torch.float64)


def other() -> RuleDrafter:
    return RuleDrafter(random_rule(SIZE, seed=4))


def encoding() -> Encoding:
    return Encoding(list(ARTICLE), torch.zeros(1, len(ARTICLE), 1), 0.0, end_id=END)


def test_a_long_match_is_looked_up_and_the_rest_is_the_others() -> None:
    session = CombinedDrafter(other(), min_match=2).begin(encoding())
    alone = other().begin(encoding())
    text: list[int] = []
    looked_up = 0
    # Two words of the article; one of them; its end, where nothing follows.
    for added in ([3, 5, 6], [7, 2], [6], [10, 11]):
        text += added
        session.accept(added)
        alone.accept(added)
        drafted = session.draft([START, *text], 3, SAMPLING, UNIFORMS)
        wanted = alone.draft([START, *text], 3, SAMPLING, UNIFORMS)
        if isinstance(drafted.q, OneHotProposal):
            looked_up += 1
            assert text[-2:] == [5, 6]
            assert drafted.tokens == [7, 8, 9]
        else:
            assert drafted.tokens == wanted.tokens
            assert isinstance(drafted.q, DenseProposal)
            assert torch.equal(drafted.q.rows, wanted.q.rows)
    assert looked_up == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("min_match", [1, 2])
def test_it_writes_what_the_target_writes(seed: int, min_match: int) -> None:
    target = FakeTarget(random_rule(SIZE, seed=seed, end_bias=-2.0))
    config = DecodingConfig(gamma=3, max_new_tokens=30)
    ends = {"start_id": START, "end_id": END}
    alone = [
        token
        for entry in autoregress(target.begin(encoding()), config, **ends)
        for token in entry.tokens
    ]
    session = CombinedDrafter(other(), min_match).begin(encoding())
    rounds = list(speculate(target.begin(encoding()), session, config, **ends))
    assert [token for entry in rounds for token in entry.tokens] == alone


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("start", ["copying", "ordinary"])
def test_guessing_ahead_drafts_the_same_in_fewer_calls(
    temperature: float, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafter = T5Drafter.fresh(
        SIZE, seed=3, start=start, width=48, heads=4, layers=1, feed_forward=32
    )
    config = DecodingConfig(gamma=3, temperature=temperature, no_repeat_ngram=2)
    calls: list[int] = []
    feed = NeuralSession._feed

    def counted(session: NeuralSession, tokens: list[int]) -> None:
        calls[-1] += 1
        feed(session, tokens)

    monkeypatch.setattr(NeuralSession, "_feed", counted)
    drafts = []
    for ahead in (False, True):
        calls.append(0)
        source = torch.tensor([ARTICLE])
        memory = drafter.model.remember(source)
        session = (
            NeuralSession(drafter.model, memory, END, ArticleLookup().begin(encoding()))
            if ahead
            else NeuralSession(drafter.model, memory, END)
        )
        text = [START, 5]
        drafts.append([])
        for added in ([6], [7, 8], [4, 9], [10], [3, 3, 5]):
            text += added
            found = session.draft(text, 3, config, UNIFORMS)
            rows = [found.q.row(place, SIZE) for place in range(3)]
            drafts[-1].append((found.tokens, torch.stack(rows)))
    for (tokens, rows), (same, alike) in zip(*drafts, strict=True):
        assert tokens == same
        assert (rows - alike).abs().max() < 1e-5
    if start == "copying" and temperature == 0:
        assert calls[1] <= calls[0] / 1.5
    else:
        assert calls[1] <= calls[0]


def test_its_name_and_vocabulary_are_the_others() -> None:
    drafter = other()
    combined = CombinedDrafter(drafter)
    assert combined.name == PREFIX + drafter.name
    assert combined.vocabulary == drafter.vocabulary
    with pytest.raises(SettingsError, match="min_match=0"):
        CombinedDrafter(drafter, min_match=0)
