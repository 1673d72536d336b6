import threading
import time
from collections.abc import Iterator

import pytest

from fastllm.demo.worker import stream
from fastllm.errors import DataError

WAIT = 60.0
"""Seconds after which a thread that says nothing is taken to have failed."""


def test_text_only_ever_grows() -> None:
    taken = threading.Semaphore()

    def lines(stop: threading.Event) -> Iterator[str]:
        for number in range(5):
            assert taken.acquire(timeout=WAIT)
            yield f"{number}\n"

    seen = []
    for text in stream(lines):
        if text not in ["", *seen]:
            seen.append(text)
            taken.release()
    assert seen == ["0\n", "0\n1\n", "0\n1\n2\n", "0\n1\n2\n3\n", "0\n1\n2\n3\n4\n"]


def test_closing_stops_the_work() -> None:
    ended = threading.Event()

    def lines(stop: threading.Event) -> Iterator[str]:
        try:
            while not stop.is_set():
                yield "round\n"
                time.sleep(0.005)
        finally:
            ended.set()

    running = stream(lines)
    assert [next(running), next(running)][0] == ""
    running.close()
    assert ended.wait(WAIT)


def test_what_goes_wrong_arrives_behind_what_came_before() -> None:
    def lines(stop: threading.Event) -> Iterator[str]:
        yield "one\n"
        raise DataError("enough")

    running = stream(lines)
    assert next(filter(None, running)) == "one\n"  # a thread may be late: before that comes ""
    with pytest.raises(DataError, match="enough"):
        list(running)


def test_comes_back_while_nothing_arrives() -> None:
    go = threading.Event()

    def lines(stop: threading.Event) -> Iterator[str]:
        go.wait(WAIT)
        yield "late\n"

    running = stream(lines)
    assert next(running) == ""
    go.set()
    assert list(running)[-1] == "late\n"


def test_nothing_runs_for_a_visitor_who_leaves_at_the_first_text() -> None:
    """Gradio leaves a generator behind, unclosed, whose first text it did not wait for."""
    began = threading.Event()

    def lines(stop: threading.Event) -> Iterator[str]:
        began.set()
        yield "one\n"

    running = stream(lines)
    assert next(running) == ""
    assert not began.is_set()
    assert list(running)[-1] == "one\n"
    assert began.is_set()
