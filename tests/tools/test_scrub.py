"""How long a frame took, out of Chromium's own trace of it."""

import json
from typing import Any

import pytest

from fastllm.trace import Trace
from tools.measure import FRAME, RECORDED, frames_of, longer


def event(name: str, ts: float, dur: float = 0, tid: int = 1) -> dict[str, Any]:
    """In milliseconds, which a trace counts a thousandth of."""
    return {"name": name, "ts": 1000 * ts, "dur": 1000 * dur, "pid": 1, "tid": tid}


MARKS = [event(FRAME, ts) for ts in (11, 31, 51)]


def test_work_is_of_the_frame_that_its_end_is_in() -> None:
    work = [
        event("FireAnimationFrame", 10, 4),  # begins the first frame: its mark stands in it
        event("UpdateLayoutTree", 15, 2),
        event("FireAnimationFrame", 30, 3),
        event("Layout", 51.5, 9),  # behind the last mark
        event("Layout", 2, 8),  # before the first
    ]
    assert frames_of([*reversed(work), *MARKS]) == [6, 3]


def test_what_is_nested_counts_once() -> None:
    work = [
        event("FireAnimationFrame", 12, 6),
        event("FunctionCall", 12, 5),
        event("EventDispatch", 13, 1),
        event("Layout", 18, 1),
    ]
    assert frames_of([*work, *MARKS]) == [7, 0]


def test_painting_and_other_threads_are_left_out() -> None:
    work = [event("Paint", 12, 6), event("Layout", 13, 2, tid=2), event("Layout", 40, 1)]
    assert frames_of([*work, *MARKS]) == [0, 1]
    assert frames_of([]) == []


@pytest.mark.parametrize("tokens", [100, 2000])
def test_a_longer_race_is_one_that_the_page_takes(tokens: int) -> None:
    tree = json.loads(json.dumps(longer(RECORDED, tokens)))
    traces = [Trace.from_json(entry) for entry in tree["traces"]]
    assert sum(len(trace.pieces) for trace in traces) >= tokens
    assert len(traces) == len(tree["lanes"])
