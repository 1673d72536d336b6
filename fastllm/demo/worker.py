"""A race in a thread of its own, its lines collected for the browser.

The thread fills a queue; the generator empties it about 20 times a second. When the generator is
closed (Stop, a closed tab, a reload) the thread is told to stop, and ends at the next round.
"""

import contextvars
import ctypes
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

PAUSE_SECONDS = 0.05
"""Between two looks into the queue."""

HEARTBEAT_SECONDS = 0.25
"""With nothing new the same text is given again after this time: only a generator that comes back
can be closed."""

Lines = Callable[[threading.Event], Iterable[str]]


def stream(lines: Lines) -> Iterator[str]:
    """Runs `lines(stop)` in a thread; yields all text so far, again and again.

    The first text is empty, and nothing runs before the second is asked for: a visitor who leaves
    while Gradio waits for the first text leaves a generator behind that nobody closes.

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
            release_memory()

    # A copy of the context: on a hosted GPU the queue finds the visitor in it.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="race", daemon=True).start()
    text = ""
    try:
        while True:
            for entry in _collect(arrived):
                if isinstance(entry, str):
                    text += entry
                    continue
                if text or entry is None:
                    yield text
                if entry is None:
                    return
                raise entry
            yield text
            time.sleep(PAUSE_SECONDS)
    finally:
        stop.set()


def release_memory() -> None:
    """Gives memory that is free back to the system, where the C library can: glibc keeps it."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


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
) -> list[str | BaseException | None]:
    """Everything that has arrived, None at the end; waits a little for the first entry."""
    entries: list[str | BaseException | None] = []
    try:
        entries.append(arrived.get(timeout=HEARTBEAT_SECONDS))
        while entries[-1] is not None:
            entries.append(arrived.get_nowait())
    except queue.Empty:
        pass
    return entries
