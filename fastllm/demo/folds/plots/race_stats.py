"""The numbers that the plots of a race are drawn from."""

from collections.abc import Sequence
from typing import Any

from fastllm import metrics
from fastllm.demo.folds.plots.costs import Costs, alpha, costs
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
    known = {lane.key: lane for lane in costs(lanes, traces)}
    return [
        {
            "key": key,
            "title": title_of(key),
            **_pace(trace),
            **_acceptance(trace),
            **_overlap(trace),
            "gains": _gains(trace),
            "parts": _parts(trace),
            "speed_up": _speed_up(known.get(key)),
        }
        for key, trace in zip(lanes, traces, strict=True)
    ]


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


def _speed_up(lane: Costs | None) -> dict[str, float]:
    """Predicted from alpha and the costs of this run, and measured; empty where nobody guessed.

    What the prediction adds is that every guess were accepted with the same chance. (From the
    measured tau it would come out as what was measured.)
    """
    if lane is None:
        return {}
    return {"predicted": lane.predicted(lane.gamma), "measured": lane.measured}
