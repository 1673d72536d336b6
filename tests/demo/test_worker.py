import threading
import time
from collections.abc import Iterator

import pytest

from fastllm.demo.worker import stream
from fastllm.errors import DataError


def test_text_only_ever_grows() -> None:
    def lines(stop: threading.Event) -> Iterator[str]:
        for number in range(20):
            yield f"{number}\n"
            time.sleep(0.005)

    seen = list(stream(lines, pause=0.01))
    assert len(seen) > 2
    assert all(later.startswith(earlier) for earlier, later in zip(seen, seen[1:], strict=False))
    assert seen[-1] == "".join(f"{number}\n" for number in range(20))


def test_closing_stops_the_work() -> None:
    ended = threading.Event()

    def lines(stop: threading.Event) -> Iterator[str]:
        try:
            while not stop.is_set():
                yield "round\n"
                time.sleep(0.005)
        finally:
            ended.set()

    running = stream(lines, pause=0.01)
    next(running)
    running.close()
    assert ended.wait(5)


def test_what_goes_wrong_arrives_behind_what_came_before() -> None:
    def lines(stop: threading.Event) -> Iterator[str]:
        yield "one\n"
        raise DataError("enough")

    running = stream(lines, pause=0.2)
    assert next(running) == "one\n"
    with pytest.raises(DataError, match="enough"):
        list(running)


def test_comes_back_while_nothing_arrives() -> None:
    go = threading.Event()

    def lines(stop: threading.Event) -> Iterator[str]:
        go.wait(10)
        yield "late\n"

    running = stream(lines, pause=0.01)
    assert next(running) == ""
    go.set()
    assert list(running)[-1] == "late\n"
