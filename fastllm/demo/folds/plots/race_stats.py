"""The numbers that the plots of a race are drawn from."""

from collections.abc import Sequence
from typing import Any

from fastllm import metrics
from fastllm.demo.words import title_of
from fastllm.trace import Trace

WINDOW = 5
"""Tokens over which the overlap along the text is averaged."""


def summarise(lanes: Sequence[str], traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """One mapping per lane, as `fastllm.evaluation.charts.race_figures` wants it.

    Args:
        lanes: their keys.
        traces: one of each lane.
    """
    plain = next((trace for trace in traces if not trace.drafter), None)
    return [
        {
            "key": key,
            "title": title_of(key),
            **_pace(trace),
            **_acceptance(trace),
            **_overlap(trace),
            "gains": _gains(trace),
            "parts": _parts(trace),
            "speed_up": _speed_up(trace, plain),
        }
        for key, trace in zip(lanes, traces, strict=True)
    ]


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


def _pace(trace: Trace) -> dict[str, Any]:
    clock = [trace.target_encode_seconds + trace.drafter_encode_seconds]
    written = [0]
    for entry in trace.rounds:
        clock.append(clock[-1] + entry.total_seconds)
        written.append(written[-1] + len(entry.tokens))
    return {"clock": clock, "written": written}


def _acceptance(trace: Trace) -> dict[str, Any]:
    reached = metrics.reached(metrics.judged_by_position(trace.rounds))
    return {"reached": reached, "alpha": alpha(trace), "gamma": trace.config.gamma}


def _gains(trace: Trace) -> list[float]:
    counts = [len(entry.tokens) for entry in trace.rounds]
    return [counts.count(size) / len(counts) for size in range(1, max(counts, default=0) + 1)]


def _overlap(trace: Trace) -> dict[str, list[float]]:
    """The overlap at each token that was guessed, averaged over those before it."""
    places: list[float] = []
    found: list[float] = []
    written = 0
    for entry in trace.rounds:
        for place, test in enumerate(entry.judged[: entry.accepted + 1]):
            if test.overlap is not None:
                places.append(written + place + 1)
                found.append(test.overlap)
        written += len(entry.tokens)
    means = []
    for end in range(1, len(found) + 1):
        window = found[max(0, end - WINDOW) : end]
        means.append(sum(window) / len(window))
    return {"places": places, "overlap": means}


def _parts(trace: Trace) -> dict[str, float]:
    draft = sum(entry.draft_seconds for entry in trace.rounds)
    verify = sum(entry.verify_seconds for entry in trace.rounds)
    whole = metrics.decode_seconds(trace)
    encoding = trace.target_encode_seconds + trace.drafter_encode_seconds
    seconds = {
        "encoding": encoding, "draft": draft, "verify": verify, "rest": whole - draft - verify,
    }  # fmt: skip
    return {name: 1000 * max(0.0, value) for name, value in seconds.items()}


def _speed_up(trace: Trace, plain: Trace | None) -> dict[str, float]:
    """Predicted from alpha and measured; empty where there is nothing to compare with.

    c and v, the costs of a guess and of a call, are this run's own, so what the prediction adds is
    that every guess were accepted with the same chance. (From the measured tau it would come out
    as what was measured.)
    """
    drafted = metrics.drafted(trace)
    calls = metrics.target_calls(trace)
    whole = all(entry.ended in ("end_of_text", "length") for entry in (trace, plain or trace))
    if plain is None or not plain.rounds or not drafted or not whole:
        return {}
    # Texts may differ in length, as when sampling: seconds per token are compared.
    one = metrics.decode_seconds(plain) / metrics.token_count(plain)
    own = metrics.decode_seconds(trace) / metrics.token_count(trace)
    if not one or not own:
        return {}
    draft = sum(entry.draft_seconds for entry in trace.rounds)
    c = draft / drafted / one
    v = (metrics.decode_seconds(trace) - draft) / calls / one
    gamma = trace.config.gamma
    tau = metrics.expected_tau(alpha(trace), gamma)
    return {
        "predicted": metrics.expected_speed_up(tau, gamma, c, v),
        "measured": one / own,
    }
