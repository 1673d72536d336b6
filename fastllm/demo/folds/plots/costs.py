"""What the speed of a lane is made of: what a guess, a check and reading the article cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastllm import metrics
from fastllm.demo.folds.plots import words
from fastllm.demo.words import title_of
from fastllm.trace import Trace
from fastllm.words import capital


@dataclass(frozen=True)
class Costs:
    """A lane in numbers. Its unit of time is a one-token call of the target in the same race.

    Where the target alone did not race the unit is the lane's own checking call, so that `v` is 1.
    """

    key: str  # of the lane
    alpha: float  # the chance that a guess is accepted
    gamma: int  # the most guesses per call
    c: float  # one guess
    v: float  # one call that checks guesses, everything but the guessing counted in
    reading: float  # the article, read by target and drafter
    reading_alone: float  # the article, read by the target
    tokens: int  # of the text that the target alone writes
    fewer: float  # how many times fewer calls
    measured: float  # how many times as fast, the reading counted in
    milliseconds: float  # of the reading
    temperature: float  # of the race
    alone: bool  # whether the target alone raced too

    def predicted(self, gamma: int) -> float:
        """How many times as fast at a draft length, if all guesses had the same chance.

        (a + n) / (r + n (gamma c + v) / E[tau]): n tokens, and reading takes r, or a without a
        drafter. The fraction behind n is that of Leviathan et al. 2023, arXiv:2211.17192.
        """
        tau = metrics.expected_tau(self.alpha, gamma)
        own = self.reading + self.tokens * (gamma * self.c + self.v) / tau
        return (self.reading_alone + self.tokens) / own


def costs(lanes: Sequence[str], traces: Sequence[Trace]) -> list[Costs]:
    """The costs of each lane with a drafter that came to its end and guessed."""
    plain = next((trace for trace in traces if not trace.drafter and _whole(trace)), None)
    found = []
    for key, trace in zip(lanes, traces, strict=True):
        drafted = metrics.drafted(trace)
        if not (trace.drafter and drafted and _whole(trace) and metrics.decode_seconds(trace) > 0):
            continue
        calls, tokens = metrics.target_calls(trace), metrics.token_count(trace)
        guessing = sum(entry.draft_seconds for entry in trace.rounds)
        checking = (metrics.decode_seconds(trace) - guessing) / calls
        alone_tokens = metrics.token_count(plain) if plain else tokens
        call = metrics.decode_seconds(plain) / alone_tokens if plain else checking
        reading_alone = (plain or trace).target_encode_seconds
        reading = trace.target_encode_seconds + trace.drafter_encode_seconds
        # Texts may differ in length, as when sampling: as many tokens are compared.
        decoding = metrics.decode_seconds(trace) * alone_tokens / tokens
        found.append(
            Costs(
                key=key,
                alpha=alpha(trace),
                gamma=trace.config.gamma,
                c=guessing / drafted / call,
                v=checking / call,
                reading=reading / call,
                reading_alone=reading_alone / call,
                tokens=alone_tokens,
                fewer=tokens / calls,
                measured=(reading_alone + call * alone_tokens) / (reading + decoding),
                milliseconds=1000 * reading,
                temperature=trace.config.temperature,
                alone=plain is not None,
            )
        )
    return found


def alpha(trace: Trace) -> float:
    """The mean overlap where a guess was judged; its share accepted, where none was kept.

    When greedy the two are one: the overlap is 1 where the guess is the target's choice, else 0.
    """
    judged = [test for entry in trace.rounds for test in entry.judged[: entry.accepted + 1]]
    kept = [test.overlap for test in judged if test.overlap is not None]
    if kept:
        return sum(kept) / len(kept)
    counts = metrics.judged_by_position(trace.rounds)
    total = sum(count for count, _ in counts)
    return sum(stood for _, stood in counts) / total if total else 0.0


def as_row(lane: Costs, hue: int = 0) -> dict[str, Any]:
    """A lane as the calculator wants it: its numbers, title, sentences and colour's number."""
    return {
        **asdict(lane),
        "hue": hue,
        "title": capital(title_of(lane.key)),
        "said": words.one_number(lane.fewer, lane.measured, lane.c, lane.v, lane.milliseconds),
        "unit": "" if lane.alone else words.NO_UNIT,
    }


def _whole(trace: Trace) -> bool:
    return bool(trace.rounds) and trace.ended in ("end_of_text", "length")
