"""The numbers that the plots of a race are drawn from."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from fastllm import metrics
from fastllm.demo.folds.plots.costs import Costs, alpha, costs
from fastllm.demo.words import hues_of, title_of
from fastllm.trace import Trace

WINDOW = 5
"""Tokens over which the overlap along the text is averaged."""


def summarise(lanes: Sequence[str], traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """One mapping per lane, as `fastllm.evaluation.charts.race_figures` wants it."""
    known = {lane.key: lane for lane in costs(lanes, traces)}
    return [
        _lane(key, trace, known.get(key)) | {"hue": hue}
        for key, trace, hue in zip(lanes, traces, hues_of(lanes), strict=True)
    ]


def _lane(key: str, trace: Trace, cost: Costs | None) -> dict[str, Any]:
    encoding = trace.target_encode_seconds + trace.drafter_encode_seconds
    counts = [len(entry.tokens) for entry in trace.rounds]
    clock = accumulate((entry.total_seconds for entry in trace.rounds), initial=encoding)
    most = max(counts, default=0)
    # What the prediction adds to the costs of this run is that every guess were accepted with the
    # same chance. (From the measured tau it would come out as what was measured.)
    speed_up = {"predicted": cost.predicted(cost.gamma), "measured": cost.measured} if cost else {}
    return {
        "key": key,
        "title": title_of(key),
        "clock": list(clock),
        "written": list(accumulate(counts, initial=0)),
        "reached": metrics.reached(metrics.judged_by_position(trace.rounds)),
        "alpha": alpha(trace),
        "gamma": trace.config.gamma,
        **_overlap(trace),
        "gains": [counts.count(size) / len(counts) for size in range(1, most + 1)],
        "parts": _parts(trace, encoding),
        "speed_up": speed_up,
    }


def _overlap(trace: Trace) -> dict[str, list[float]]:
    """The overlap at each token that was guessed, averaged over those before it."""
    places: list[float] = []
    found: list[float] = []
    written = 0
    for entry in trace.rounds:
        for place, test in enumerate(entry.judged[: entry.accepted + 1], written + 1):
            if test.overlap is not None:
                places.append(place)
                found.append(test.overlap)
        written += len(entry.tokens)
    windows = (found[max(0, end - WINDOW) : end] for end in range(1, len(found) + 1))
    return {"places": places, "overlap": [sum(window) / len(window) for window in windows]}


def _parts(trace: Trace, encoding: float) -> dict[str, float]:
    """Where the milliseconds of a lane went."""
    draft = sum(entry.draft_seconds for entry in trace.rounds)
    verify = sum(entry.verify_seconds for entry in trace.rounds)
    rest = metrics.decode_seconds(trace) - draft - verify
    seconds = {"encoding": encoding, "draft": draft, "verify": verify, "rest": rest}
    return {name: 1000 * max(0.0, value) for name, value in seconds.items()}
