"""Traces to numbers: calls, acceptance, speed-up, loops, and how sure one can be of them.

Every rate the project shows is defined here, and computed from the rounds when asked for. Standard
library and numpy only.
"""

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fastllm.errors import SettingsError
from fastllm.trace import Round, Trace

RESAMPLES = 2000
"""How many bootstrap samples an interval is read from."""


# One trace.


def target_calls(trace: Trace) -> int:
    """How often the target was called: the headline. Repeatable when greedy, on any machine."""
    return len(trace.rounds)


def token_count(trace: Trace) -> int:
    """The tokens of the text, the end token included."""
    return sum(len(entry.tokens) for entry in trace.rounds)


def tau(trace: Trace) -> float:
    """Tokens a call of the target, its own extra token counted; 0 where nothing was written.

    Also called block efficiency. Source: Leviathan et al. 2023, arXiv:2211.17192.
    """
    return token_count(trace) / target_calls(trace) if trace.rounds else 0.0


def drafted(trace: Trace) -> int:
    """Drafted tokens; what was drafted behind an end token does not count."""
    return sum(len(entry.drafted) for entry in trace.rounds)


def accepted(trace: Trace) -> int:
    """Drafted tokens that stand; an accepted end token is one of them."""
    return sum(entry.accepted for entry in trace.rounds)


def judged_by_position(rounds: Sequence[Round]) -> list[tuple[int, int]]:
    """(judged, accepted) of the draft positions 1, 2, ..., as far as any was judged.

    A position is judged where all before it stand: else it continues a token that the text never
    had. The block rule tests such positions too, but their outcome is settled.
    """
    counts: list[tuple[int, int]] = []
    for entry in rounds:
        for position in range(min(entry.accepted + 1, len(entry.drafted))):
            if position == len(counts):
                counts.append((0, 0))
            judged, stood = counts[position]
            counts[position] = (judged + 1, stood + (position < entry.accepted))
    return counts


def reached(counts: Sequence[tuple[int, int]]) -> list[float]:
    """The chance that a draft stands up to each position, from `judged_by_position`.

    The product of the shares accepted so far, in which a shorter draft says nothing of positions it
    does not have (Kaplan and Meier 1958). With i.i.d. acceptance it is alpha^i at position i.

    Example:
        >>> reached([(4, 2), (2, 1)])
        [0.5, 0.25]
    """
    chances: list[float] = []
    for judged, stood in counts:
        chances.append((chances[-1] if chances else 1.0) * _ratio(stood, judged))
    return chances


def decode_seconds(trace: Trace) -> float:
    """Seconds of all rounds: drafting, the target's calls, the verdicts, the bookkeeping."""
    return sum(entry.total_seconds for entry in trace.rounds)


def seconds_with_encoding(trace: Trace) -> float:
    """Seconds on the lane's clock: both encodings of the article, and decoding."""
    return trace.target_encode_seconds + trace.drafter_encode_seconds + decode_seconds(trace)


def speed_up(trace: Trace, plain: Trace) -> float:
    """How many times as fast as a plain trace of the same article, encoding counted in.

    Where the texts differ in length, as when sampling, both count for as many tokens.

    Raises:
        SettingsError: the two are not of the same article, target and hardware.
    """
    for name in ("source", "target", "hardware"):
        if getattr(trace, name) != getattr(plain, name):
            raise SettingsError(
                f"the two traces differ in their {name}: a speed-up compares two runs of one "
                "article on one target and one device."
            )
    decoding = decode_seconds(trace) * _ratio(token_count(plain), token_count(trace))
    encoding = trace.target_encode_seconds + trace.drafter_encode_seconds
    return _ratio(seconds_with_encoding(plain), encoding + decoding)


# Predictions.


def expected_tau(alpha: float, gamma: int) -> float:
    """Tokens a call if every draft were accepted with chance `alpha`, independently.

    (1 - alpha^(gamma+1)) / (1 - alpha). A model: a mixture of easy and hard places biases it.
    Source: Leviathan et al. 2023, equation 1, arXiv:2211.17192.

    Example:
        >>> expected_tau(0.5, 2)
        1.75
    """
    return float(sum(alpha**power for power in range(gamma + 1)))


def expected_speed_up(tokens_a_call: float, drafted_a_call: float, c: float, v: float) -> float:
    """Speed-up of decoding that the parts of a round predict: tau / (k c + v).

    Tau tokens and k drafted ones a call; c and v, seconds of a drafter's step and of a call that
    verifies, over those of a one-token call of the target.
    """
    return _ratio(tokens_a_call, drafted_a_call * c + v)


def call_cost(seconds: Mapping[int, float]) -> float:
    """What a token more adds to a call of the target, in one-token calls: `call_cost` to give.

    The slope of the line through the one-token call that fits the others best (least squares).
    `seconds` maps tokens in a call to what it takes.

    Raises:
        SettingsError: no call of one token, or of several.

    Example:
        >>> call_cost({1: 0.010, 3: 0.012})
        0.1
    """
    if not seconds.get(1) or len(seconds) < 2:
        raise SettingsError(
            f"calls of {', '.join(map(str, sorted(seconds))) or 'no'} tokens: to tell what a token "
            "more costs, calls of one token and of several are needed."
        )
    more = [(size - 1, value / seconds[1] - 1) for size, value in seconds.items() if size > 1]
    slope = sum(x * y for x, y in more) / sum(x * x for x, _ in more)
    return round(max(0.0, slope), 4)


# Texts.


def words(text: str) -> list[str]:
    """The words of a text in lower case, for n-grams that do not depend on a vocabulary."""
    return _WORD.findall(text.lower())


_WORD = re.compile(r"\w+(?:['’]\w+)*")


def repeated_share(items: Sequence[Hashable], size: int = 4) -> float:
    """The share of a text's n-grams that stood in it before; 0 for a text without any."""
    grams = _ngrams(items, size)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def loops(items: Sequence[Hashable], size: int = 4) -> bool:
    """Whether any n-gram stands twice in a text: the mark of a target that goes in circles."""
    return repeated_share(items, size) > 0


def copied_share(items: Sequence[Hashable], article: Sequence[Hashable], size: int = 4) -> float:
    """The share of a text's n-grams that stand in the article; 0 for a text without any."""
    grams = _ngrams(items, size)
    known = set(_ngrams(article, size))
    return sum(gram in known for gram in grams) / len(grams) if grams else 0.0


def _ngrams(items: Sequence[Hashable], size: int) -> list[tuple[Hashable, ...]]:
    return [tuple(items[start : start + size]) for start in range(len(items) - size + 1)]


# Many articles. One number an article; the same numbers always give the same interval.


Fraction = tuple[Sequence[float], Sequence[float]]
"""Numerators and denominators, one of each an article."""

_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number measured on a sample of articles, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def away_from(self, level: float) -> int:
        """-1 where the whole interval lies below `level`, 1 where above, 0 where it holds it."""
        return int(self.low > level) - int(self.high < level)


def mean(values: Sequence[float]) -> Estimate:
    """The mean over articles.

    Raises:
        SettingsError: no articles.
    """
    return ratio(values, [1.0] * len(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """A ratio of sums over the same articles, such as all tokens over all calls; pairs stay pairs.

    Raises:
        SettingsError: no articles, or two sequences of different length.
    """
    return _bootstrap(_over, numerators, denominators)


def paired_difference(after: Sequence[float], before: Sequence[float]) -> Estimate:
    """The mean of after - before over the same articles.

    Raises:
        SettingsError: no articles, or two sequences of different length.
    """
    differences = [a - b for a, b in zip(after, before, strict=False)]
    return ratio(differences, [1.0] * max(len(after), len(before)))


def difference_of_ratios(after: Fraction, before: Fraction) -> Estimate:
    """The difference of two ratios of sums over the same articles: tau after - tau before.

    Raises:
        SettingsError: no articles, or sequences of different length.
    """
    return _bootstrap(lambda a, b, c, d: _over(a, b) - _over(c, d), *after, *before)


def ratio_of_ratios(after: Fraction, before: Fraction) -> Estimate:
    """One ratio of sums over another, such as calls a token after and before.

    Where both texts have as many tokens, calls a token compare as calls do.

    Raises:
        SettingsError: no articles, or sequences of different length.
    """
    return _bootstrap(lambda a, b, c, d: _over(_over(a, b), _over(c, d)), *after, *before)


def _bootstrap(statistic: Callable[..., _Numbers], *columns: Sequence[float]) -> Estimate:
    """A statistic of the columns' sums over articles, and the middle 95 % of its resamples."""
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1 or lengths[0] == 0:
        raise SettingsError(
            f"{' and '.join(map(str, lengths))} numbers: an estimate needs one of each for every "
            "article, and at least one article."
        )
    table = np.asarray(columns, float)
    sampled = statistic(*(table @ _weights(lengths[0])))
    sampled = sampled[np.isfinite(sampled)]
    found = float(statistic(*table.sum(1, keepdims=True))[0])
    value = found if math.isfinite(found) else 0.0
    if len(sampled) == 0:
        return Estimate(value, value, value)
    low, high = np.quantile(sampled, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


@lru_cache(maxsize=1)
def _weights(articles: int) -> _Numbers:
    """How often each article is drawn in each resample, shape (articles, RESAMPLES)."""
    chosen = np.random.default_rng(0).integers(articles, size=(RESAMPLES, articles))
    places = chosen + articles * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(places.ravel(), minlength=articles * RESAMPLES)
    return np.ascontiguousarray(counts.reshape(RESAMPLES, articles).T, dtype=float)


def _over(over: _Numbers, under: _Numbers) -> _Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        return over / under


def _ratio(over: float, under: float) -> float:
    return over / under if under else 0.0
