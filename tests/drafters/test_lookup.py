import random

import pytest
import torch

from fastllm.decoding import autoregress, speculate
from fastllm.decoding.proposals import OneHotProposal
from fastllm.drafters.lookup import ArticleLookup, LookupSession
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig
from tests.fakes import END, START, FakeTarget, random_rule, text_rule

CONFIG = DecodingConfig()
UNIFORMS = torch.full((16,), 0.5, dtype=torch.float64)


def encoding(source):
    return Encoding(list(source), torch.zeros(1, len(source), 1), 0.0)


def drafted(source, text, k=4, **settings):
    session = ArticleLookup(**settings).begin(encoding(source))
    return session.draft([START, *text], k, CONFIG, UNIFORMS).tokens


@pytest.mark.parametrize(
    ("source", "text", "tokens"),
    [
        pytest.param([5, 6, 7, 8, 9, END], [], [], id="no text yet"),
        pytest.param([5, 6, 7, 8, 9, END], [4], [], id="nothing matches"),
        pytest.param([], [4, 5], [], id="no article"),
        pytest.param([END], [4], [], id="an article of nothing but its end"),
        pytest.param([5, 6, 7, 8, 9, 10, END], [5], [6, 7, 8, 9], id="one token, k at most"),
        pytest.param([5, 6, 7, END], [5], [6, 7], id="the article's end token is not drafted"),
        pytest.param([5, 6, 7, END], [7], [], id="nothing follows the last word"),
        pytest.param([5, 6, 7, 5, 8, END], [9, 5, 6], [7, 5, 8], id="the unknown is left out"),
        pytest.param(
            [5, 6, 2, 2, 2, 4, 5, 6, 3, 3, END], [4, 5, 6], [3, 3], id="longest match first"
        ),
        pytest.param(
            [5, 6, 2, 2, 2, 2, 7, 5, 6, END], [7, 5, 6], [2, 2, 2, 2], id="... if anything follows"
        ),
        pytest.param(
            [2, 5, 6, END], [5, 7, 8, 9, 3, 5], [7, 8, 9, 3], id="the longer continuation"
        ),
        pytest.param([5, 2, 2, 2, 2, 5, 3, 3, 3, 3], [5], [2, 2, 2, 2], id="else the first"),
        pytest.param(
            [5, 2, 2, 2, 2, 8, 9, 5, 3, 3, 3, 3], [8, 9, 4, 5], [3, 3, 3, 3], id="else the nearest"
        ),
        pytest.param([9, 9, END], [5, 6, 7, 4, 5], [6, 7, 4, 5], id="the text itself"),
        pytest.param([9, 9, 5], [6, 2, 2, 5], [], id="no draft across the border"),
        pytest.param([9, 5], [6, 7, 5, 6], [7, 5, 6], id="no match across the border"),
    ],
)
def test_what_is_looked_up(source, text, tokens):
    assert drafted(source, text) == tokens


def test_fewer_matching_tokens_than_asked_for_draft_nothing():
    source = [5, 6, 7, 8, END]
    assert drafted(source, [9, 6], min_match=2) == []
    assert drafted(source, [5, 6], min_match=2) == [7, 8]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_a_useless_length_is_refused(value):
    with pytest.raises(SettingsError, match="min_match="):
        ArticleLookup(min_match=value)


def test_the_draft_is_deterministic_and_says_so():
    session = ArticleLookup().begin(encoding([5, 6, 7, END]))
    for temperature in (0.0, 1.0):
        draft = session.draft([START, 5], 3, DecodingConfig(temperature=temperature), UNIFORMS)
        assert isinstance(draft.q, OneHotProposal)
        assert draft.chances == [1.0, 1.0]


def test_a_session_that_went_back_drafts_like_a_fresh_one():
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(2, 7, (60,), generator=generator).tolist()
    text = torch.randint(2, 7, (40,), generator=generator).tolist()
    session = ArticleLookup().begin(encoding(source))
    lengths = [*range(40), *range(39, 0, -3), 12, 40]
    for length in lengths:
        kept = session.draft([START, *text[:length]], 5, CONFIG, UNIFORMS).tokens
        assert kept == drafted(source, text[:length], k=5)


def slow_longest_match(source, text):
    """How many of the last tokens stand somewhere before, with something behind them."""
    for length in range(len(text), 0, -1):
        end = text[-length:]
        for place in (source, text):
            starts = range(len(place) - length)
            if any(place[start : start + length] == end for start in starts):
                return length
    return 0


def test_the_draft_continues_a_longest_match():
    generator = torch.Generator().manual_seed(5)
    for _ in range(200):
        source = torch.randint(2, 5, (15,), generator=generator).tolist()
        text = torch.randint(2, 5, (8,), generator=generator).tolist()
        tokens = drafted(source, text)
        length = slow_longest_match(source, text)
        assert bool(tokens) == (length > 0)
        copied = text[-length:] + tokens
        assert any(
            place[start : start + len(copied)] == copied
            for place in (source, text)
            for start in range(len(place))
        )


@pytest.mark.parametrize("gamma", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_greedy_text_stays_the_same(gamma, seed):
    target = FakeTarget(random_rule(6, seed, end_bias=-1.0))
    source = torch.randint(2, 6, (40,), generator=torch.Generator().manual_seed(seed)).tolist()
    article = target.encode([*source, END])
    config = DecodingConfig(gamma=gamma, max_new_tokens=30)
    ends = {"start_id": START, "end_id": END}
    alone = list(autoregress(target.begin(article), config, **ends))
    lookup = ArticleLookup().begin(article)
    helped = list(speculate(target.begin(article), lookup, config, **ends))
    assert [t for r in helped for t in r.tokens] == [t for r in alone for t in r.tokens]
    assert all(r.kind == ("speculative" if r.drafted else "plain") for r in helped)


def test_a_copied_summary_takes_few_calls():
    source = list(range(10, 40))
    target = FakeTarget(text_rule(source[5:25], 64))
    article = target.encode([*source, END])
    config = DecodingConfig(gamma=5)
    lookup = ArticleLookup().begin(article)
    rounds = list(speculate(target.begin(article), lookup, config, start_id=START, end_id=END))
    assert [t for r in rounds for t in r.tokens] == [*source[5:25], END]
    assert rounds[0].kind == "plain"
    assert len(rounds) == 5  # 1, then 6, 6, 6 and the last word with the end token


def test_tokens_that_were_refused_leave_no_trace() -> None:
    """A session that was asked about drafts, too, says what a fresh one says of the text."""
    numbers = random.Random(4)
    article = [numbers.randrange(2, 8) for _ in range(40)]
    used = LookupSession(article, 1, END)
    text = [START]
    unused = torch.zeros(4, dtype=torch.float64)
    for _ in range(60):
        text.append(numbers.randrange(2, 8))
        guess = [numbers.randrange(2, 8) for _ in range(numbers.randrange(4))]
        used.draft([*text, *guess], 4, DecodingConfig(), unused)
        wanted = LookupSession(article, 1, END).draft(text, 4, DecodingConfig(), unused)
        assert used.draft(text, 4, DecodingConfig(), unused).tokens == wanted.tokens
