"""A race in a thread of its own, its lines collected for the browser.

The thread fills a queue; the generator empties it about 20 times a second. When the generator is
closed (Stop, a closed tab, a reload) the thread is told to stop, and ends at the next round.
"""

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator

PAUSE_SECONDS = 0.05
"""Between two looks into the queue."""

HEARTBEAT_SECONDS = 0.25
"""With nothing new the same text is given again after this time: only a generator that comes back
can be closed."""

Lines = Callable[[threading.Event], Iterable[str]]


def stream(lines: Lines, *, pause: float = PAUSE_SECONDS) -> Iterator[str]:
    """Runs `lines(stop)` in a thread; yields all text so far, again and again.

    The first text is empty, and nothing runs before the second is asked for: a visitor who leaves
    while Gradio waits for the first text leaves a generator behind that nobody closes. `pause` is
    seconds between two texts.

    Raises:
        Exception: whatever `lines` raised, after the text that came before it.
    """
    yield ""
    stop = threading.Event()
    arrived: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            for entry in lines(stop):
                arrived.put(entry)
                if stop.is_set():
                    break
        except BaseException as error:  # handed over to the thread that can report it
            arrived.put(error)
        finally:
            arrived.put(None)

    # A copy of the context: on a hosted GPU the queue finds the visitor in it.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="race", daemon=True).start()
    text = ""
    try:
        while True:
            entries, finished = _collect(arrived)
            for entry in entries:
                if isinstance(entry, BaseException):
                    if text:
                        yield text
                    raise entry
                text += entry
            yield text
            if finished:
                return
            time.sleep(pause)
    finally:
        stop.set()


def news(texts: Iterable[str]) -> Iterator[str]:
    """Of texts that only grow: what is new in each of them, and at last the whole.

    A program is sent each value whole: of the texts themselves that would be megabytes a second.
    """
    before = ""
    for text in texts:
        yield text[len(before) :]
        before = text
    yield before


def _collect(
    arrived: "queue.SimpleQueue[str | BaseException | None]",
) -> tuple[list[str | BaseException], bool]:
    """Everything that has arrived; waits a little for the first entry."""
    entries: list[str | BaseException] = []
    try:
        entry = arrived.get(timeout=HEARTBEAT_SECONDS)
        while entry is not None:
            entries.append(entry)
            entry = arrived.get_nowait()
    except queue.Empty:
        return entries, False
    return entries, True
