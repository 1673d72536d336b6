"""Two drafters as one: who drafts what, the text that stays, and reading ahead."""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch

from fastllm.decoding import autoregress, speculate
from fastllm.decoding.distributions import distribution
from fastllm.decoding.proposals import DenseProposal, Draft, JoinedProposal, OneHotProposal
from fastllm.drafters import Drafter, DrafterSession
from fastllm.drafters.combined import CombinedDrafter
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.lstm import LstmDrafter
from fastllm.drafters.neural import NeuralSession
from fastllm.drafters.t5 import T5Drafter
from fastllm.errors import VocabularyError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig
from tests.fakes import END, START, FakeTarget, Rule, RuleDrafter, RuleSession, random_rule

SIZE = 12
ARTICLE = [5, 6, 7, 8, 9, 10, 11, END]
SAMPLING = DecodingConfig(gamma=3, temperature=1.0)
UNIFORMS = torch.tensor([0.2, 0.7, 0.4], dtype=torch.float64)
ENDS: Any = {"start_id": START, "end_id": END}


class LeadingSession(RuleSession):
    """Drafts from a rule, a token where it leads; its prefix may hold another's drafted tokens."""

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        self.told = list(prefix[1:])
        count = 1 if config.draft_length == "lead" else k
        return super().draft(prefix, count, config, uniforms)


class LeadingDrafter(RuleDrafter):
    def begin(self, encoding: Encoding) -> RuleSession:
        return LeadingSession(self.rule)


def other(seed: int = 4) -> RuleDrafter:
    return LeadingDrafter(random_rule(SIZE, seed=seed))


def encoding() -> Encoding:
    return Encoding(list(ARTICLE), torch.zeros(1, len(ARTICLE), 1), 0.0, end_id=END)


def test_a_long_match_is_looked_up_and_the_rest_is_the_others() -> None:
    session = CombinedDrafter(ArticleLookup(), other()).begin(encoding())
    alone = other().begin(encoding())
    text: list[int] = []
    looked_up = 0
    # Two words of the article; one of them; its end, where nothing follows.
    for added in ([3, 5, 6], [7, 2], [6], [10, 11]):
        text += added
        session.accept(added)
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


def test_each_row_of_q_is_of_whoever_drafted_the_token() -> None:
    """The network says one token, wherever the article has it the lookup copies on from there."""
    session = CombinedDrafter(other(), ArticleLookup()).begin(encoding())
    seen = set()
    for last, uniform in product(range(2, SIZE), (0.1, 0.5, 0.9)):
        uniforms = torch.tensor([uniform, 0.0, 0.0], dtype=torch.float64)
        found = session.draft([START, last], 3, SAMPLING, uniforms)
        row = distribution(torch.tensor(other().rule((last,))), SAMPLING)
        torch.testing.assert_close(found.q.row(0, SIZE), row)
        first, copied = found.tokens[0], found.tokens[1:]
        place = ARTICLE.index(first) + 1 if first in ARTICLE[:-1] else len(ARTICLE) - 1
        if first != END and first != last:
            assert copied == ARTICLE[place:-1][:2]
        seen.add(len(copied))
        assert found.chances == pytest.approx([float(row[first]), *[1.0] * len(copied)])
        for at, token in enumerate(copied, 1):
            assert found.q.row(at, SIZE)[token] == 1
        assert found.unwarped is not None
        assert found.unwarped(0) is not None
        if copied:
            assert isinstance(found.q, JoinedProposal)
            assert found.unwarped(1) is None, "the lookup has no probabilities to show"
    assert seen == {0, 1, 2}


PARTS: dict[str, Any] = {
    "lookup+rule": lambda: CombinedDrafter(ArticleLookup(), other()),
    "rule+lookup": lambda: CombinedDrafter(other(), ArticleLookup()),
    "rule+rule": lambda: CombinedDrafter(other(4), other(7)),
    "lookup+rule+lookup": lambda: CombinedDrafter(
        ArticleLookup(), CombinedDrafter(other(), ArticleLookup())
    ),
    "lstm+lookup": lambda: CombinedDrafter(
        LstmDrafter.fresh(SIZE, start="ordinary", width=12, hidden=8, mixing=8), ArticleLookup()
    ),
    "lookup+t5+lookup": lambda: CombinedDrafter(
        ArticleLookup(),
        CombinedDrafter(
            T5Drafter.fresh(SIZE, start="ordinary", width=12, heads=2, feed_forward=8),
            ArticleLookup(),
        ),
    ),
}


@pytest.mark.parametrize("length", ["fixed", "adaptive"])
@pytest.mark.parametrize("parts", PARTS)
def test_it_writes_what_the_target_writes(parts: str, length: Any) -> None:
    config = DecodingConfig(gamma=4, max_new_tokens=30, draft_length=length)
    drafter = PARTS[parts]()
    for seed in range(4):
        target = FakeTarget(random_rule(SIZE, seed=seed, end_bias=-2.0))
        plain = autoregress(target.begin(encoding()), config, **ENDS)
        alone = [token for entry in plain for token in entry.tokens]
        rounds = list(
            speculate(target.begin(encoding()), drafter.begin(encoding()), config, **ENDS)
        )
        assert [token for entry in rounds for token in entry.tokens] == alone


@pytest.mark.parametrize(
    ("parts", "rule"),
    [("rule+lookup", "token"), ("lookup+rule+lookup", "block"), ("rule+rule", "block")],
)
def test_sampled_texts_follow_the_target(parts: str, rule: Any) -> None:
    """600 seeds against exact chances, with q of both kinds in one draft."""
    size, length, runs = 5, 3, 600
    article = Encoding([3, 4, 2, END], torch.zeros(1, 4, 1), 0.0, end_id=END)

    def drafter() -> Drafter:
        one, two = (LeadingDrafter(random_rule(size, seed=seed)) for seed in (9, 5))
        if parts == "rule+rule":
            return CombinedDrafter(one, two)
        tail = CombinedDrafter(one, ArticleLookup())
        return tail if parts == "rule+lookup" else CombinedDrafter(ArticleLookup(), tail)

    target, made = random_rule(size, seed=2), drafter()
    counts: Counter[tuple[int, ...]] = Counter()
    joint = 0
    for seed in range(runs):
        config = DecodingConfig(
            gamma=3, temperature=1.0, max_new_tokens=length, seed=seed, verification=rule
        )
        session: DrafterSession = made.begin(article)
        rounds = speculate(
            FakeTarget(target).begin(article), session, config, statistics=False, **ENDS
        )
        done = list(rounds)
        joint += any(len(entry.drafted) > 1 for entry in done)
        counts[tuple(token for entry in done for token in entry.tokens)] += 1
    assert joint > runs / 4
    expected = {text: runs * chance for text, chance in texts(target, (), length)}
    assert set(counts) <= set(expected)
    common = {text: count for text, count in expected.items() if count >= 5}
    rest = sum(count for text, count in counts.items() if text not in common)
    observed = [*(counts[text] for text in common), rest]
    wanted = [*common.values(), runs - sum(common.values())]
    pairs = [(o, e) for o, e in zip(observed, wanted, strict=True) if e > 0.5]
    chi_square = sum((o - e) ** 2 / e for o, e in pairs)
    freedom = len(pairs) - 1
    # Wilson and Hilferty: a normal deviate of 3.1 is one in a thousand.
    spread = 2 / (9 * freedom)
    assert ((chi_square / freedom) ** (1 / 3) - 1 + spread) / spread**0.5 < 3.1


def texts(
    rule: Rule, written: tuple[int, ...], length: int, chance: float = 1.0
) -> list[tuple[tuple[int, ...], float]]:
    """Every text of at most `length` tokens, with the target's chance of it."""
    if len(written) == length or written[-1:] == (END,):
        return [(written, chance)]
    row = torch.tensor(rule(written), dtype=torch.float64).softmax(-1).tolist()
    return [
        found
        for token, share in enumerate(row)
        for found in texts(rule, (*written, token), length, chance * share)
    ]


def test_a_network_leads_with_what_one_call_gives() -> None:
    """One token of the LSTM; of a T5 that reads ahead, what was guessed right and one more."""
    config = DecodingConfig(gamma=8, draft_length="lead")
    uniforms = torch.zeros(8, dtype=torch.float64)
    lstm = LstmDrafter.fresh(SIZE, start="ordinary", width=12, hidden=8, mixing=8)
    assert len(lstm.begin(encoding()).draft([START, 5, 6], 8, config, uniforms).tokens) == 1
    t5 = T5Drafter.fresh(SIZE, seed=3, width=48, heads=4, layers=1, feed_forward=32)
    session = t5.begin(encoding())
    whole = t5.begin(encoding()).draft([START, 5], 8, DecodingConfig(gamma=8), uniforms).tokens
    led = session.draft([START, 5], 8, config, uniforms).tokens
    guess = ArticleLookup().begin(encoding()).draft([START, 5], 7, config, uniforms)
    assert 1 <= len(led) <= 8
    assert led == whole[: len(led)]
    guessed = (
        ArticleLookup().begin(encoding()).draft([START, 5], 7, DecodingConfig(gamma=8), uniforms)
    )
    right = 0
    while right < len(guessed.tokens) and guessed.tokens[right] == whole[right]:
        right += 1
    assert len(led) == min(8, right + 1) > 1
    assert not guess.tokens, "one word is not enough for a lookup that leads"


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


def test_its_name_and_vocabulary_are_those_of_its_parts() -> None:
    drafter, lookup = other(), ArticleLookup()
    assert CombinedDrafter(lookup, drafter).name == f"{lookup.name}+{drafter.name}"
    assert CombinedDrafter(drafter, lookup, name="both").name == "both"
    assert CombinedDrafter(lookup, drafter).vocabulary == drafter.vocabulary
    stranger = RuleDrafter(random_rule(SIZE, seed=4), vocabulary="runes")
    with pytest.raises(VocabularyError, match="rule was made for vocabulary letters, rule for run"):
        CombinedDrafter(drafter, stranger)
