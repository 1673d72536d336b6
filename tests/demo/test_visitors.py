"""Several visitors at once: each gets exactly their own race, and who leaves frees the device."""

import json
import threading
import time
import urllib.error
import uuid
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import LIMITS, WAIT, Page, serving

from fastllm.demo.engine import LocalEngine
from fastllm.demo.jobs import Models, RaceJob
from fastllm.trace import DecodingConfig

# Gradio's own statistics, drawn up after every twenty runs; and a port that it finds taken.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*no_silent_downcasting",
    "ignore:The copy keyword is deprecated",
    "ignore:unclosed <socket.socket .*family=2:ResourceWarning",
)


STORIES = [
    "A lamp on the pier at Norrvik went out on Sunday and two boats had to wait for the morning. "
    "The keeper said that salt had eaten the wire, and that a new one would be laid before winter.",
    "Bakers in Oldham sold four thousand rolls in one hour on Monday after the school asked them "
    "for help. The ovens ran all night, and the children ate at long tables in the market hall.",
    "A dog that was lost in the hills in June walked into a police station on Thursday. Its owner "
    "had put up notices in nine villages and did not believe the call until she heard it bark.",
    "The river path through the old town stays closed until May because the wall beside it is "
    "loose. Walkers are asked to take the upper road, which is longer but has the better view.",
]


class Watched(LocalEngine):
    """Knows how many races have the device, and says when one has let it go."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.running = 0
        self.most = 0
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.left: list[bool] = []

    def lines(self, work: Any, stop: threading.Event) -> Iterator[str]:
        return super().lines(Counted(work, self), stop)


@dataclass
class Counted:
    """Work that its engine counts while it has the device."""

    work: RaceJob
    engine: Watched

    @property
    def seconds(self) -> int:
        return self.work.seconds

    def check(self, models: Models) -> None:
        self.work.check(models)

    def lines(self, models: Models, stop: threading.Event) -> Iterator[str]:
        engine = self.engine
        engine.running += 1
        engine.most = max(engine.most, engine.running)
        try:
            if self.work.article.startswith("Silent"):
                engine.begun.release()
                engine.left.append(stop.wait(WAIT))  # says nothing, as in a long article's encoding
            for line in self.work.lines(models, stop):
                yield line
                engine.begun.release()
                while self.work.article.startswith("Endless") and not stop.is_set():
                    time.sleep(0.01)  # a model that takes its time over the first word
        finally:
            engine.running -= 1
            engine.ended.release()


@pytest.fixture(scope="module")
def engine(tiny_folder: str) -> Watched:
    engine = Watched(tiny_folder)
    engine.start()
    return engine


@pytest.fixture(scope="module")
def page(engine: Watched) -> Iterator[Page]:
    with serving(engine, LIMITS) as address:
        yield Page(address)


def written(rows: list[dict[str, Any]]) -> list[Any]:
    """What a race wrote, without its clocks: rounds of lanes may come in another order."""
    rounds: dict[int, list[Any]] = {}
    for row in rows:
        if row["row"] == "round":
            tokens = [(token["s"], token["t"]) for token in row["tokens"]]
            rounds.setdefault(row["lane"], []).append(tokens)
    return [rounds[lane] for lane in sorted(rounds)]


def alone(engine: LocalEngine, article: str, seed: int, length: int) -> list[Any]:
    """What a race writes when nobody else is there."""
    config = DecodingConfig(temperature=1.0, top_p=1.0, gamma=4, seed=seed, max_new_tokens=length)
    lines = engine.lines(RaceJob(article, ("alone", "lookup"), config), threading.Event())
    return written([json.loads(line) for line in lines])


def test_four_at_once_each_get_their_own(engine: Watched, page: Page) -> None:
    orders = [(story, seed) for seed in range(3) for story in STORIES]
    expected = [alone(engine, story, seed, 24) for story, seed in orders]
    assert len({json.dumps(texts) for texts in expected}) == len(orders)

    def race(order: tuple[str, int]) -> list[dict[str, Any]]:
        return page.race(
            article=order[0],
            seed=order[1],
            temperature=1.0,
            top_p=1.0,
            gamma=4,
            length=24,
            lanes=["alone", "lookup"],
        ).rows

    engine.most = 0
    with ThreadPoolExecutor(4) as visitors:
        found = list(visitors.map(race, orders))
    assert [written(rows) for rows in found] == expected
    assert len({rows[0]["run"] for rows in found}) == len(orders)
    assert engine.most == 1  # one race at a time has the device


def messages(tab: HTTPConnection) -> Generator[dict[str, Any]]:
    """What the page's own script is told, as it comes."""
    with closing(tab.getresponse()) as answer:
        for raw in answer:
            if raw.startswith(b"data: "):
                yield json.loads(raw[6:])


ENDLESS = f"Endless. {STORIES[0]}"


def clear(engine: Watched) -> None:
    for counter in (engine.begun, engine.ended):
        while counter.acquire(blocking=False):
            pass


def test_a_closed_tab_frees_the_device(engine: Watched, page: Page) -> None:
    clear(engine)
    tab = page.visit(uuid.uuid4().hex, article=ENDLESS, lanes=["alone", "lookup"])
    assert engine.begun.acquire(timeout=WAIT)
    tab.close()
    assert engine.ended.acquire(timeout=WAIT)
    assert page.race(article=STORIES[1], lanes=["alone", "lookup"], length=8).rows


def test_stop_frees_the_device(engine: Watched, page: Page) -> None:
    clear(engine)
    session = uuid.uuid4().hex
    tab = page.visit(session, article=ENDLESS, lanes=["alone", "lookup"])
    assert engine.begun.acquire(timeout=WAIT)
    feed = messages(tab)
    event = next(told["event_id"] for told in feed if told["msg"] == "process_generating")
    page.post("cancel", {"session_hash": session, "fn_index": page.function, "event_id": event})
    assert next(told for told in feed if told["msg"] == "process_completed")
    feed.close()  # as the page's script does when a race is over
    tab.close()
    assert engine.ended.acquire(timeout=WAIT)


SILENT = f"Silent. {STORIES[0]}"


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("sure", [False, True])
def test_who_leaves_before_the_first_words_frees_the_device(
    engine: Watched, page: Page, sure: bool, closed: bool
) -> None:
    """By Stop or by closing the tab: as soon as the page hears of it, or once it runs."""
    clear(engine)
    engine.left.clear()
    session = uuid.uuid4().hex
    tab = page.visit(session, article=SILENT, lanes=["alone", "lookup"])
    feed = messages(tab)
    event = next(told["event_id"] for told in feed if told["msg"] == "process_starts")
    if sure:
        assert engine.begun.acquire(timeout=WAIT)
    if not closed:
        page.post("cancel", {"session_hash": session, "fn_index": page.function, "event_id": event})
        assert next(told for told in feed if told["msg"] == "process_completed")
    feed.close()
    tab.close()
    # Whoever comes next gets the device, and nobody has waited for the silent one to give up.
    assert page.race(article=STORIES[1], lanes=["alone", "lookup"], length=8).rows
    assert engine.running == 0
    assert all(engine.left)


def test_who_waits_is_told_their_place(engine: Watched, page: Page) -> None:
    clear(engine)
    first = page.visit(uuid.uuid4().hex, article=ENDLESS, lanes=["alone", "lookup"])
    assert engine.begun.acquire(timeout=WAIT)
    tabs = [
        page.visit(uuid.uuid4().hex, article=story, lanes=["alone", "lookup"], length=8)
        for story in STORIES[:3]
    ]
    told = [messages(tab) for tab in tabs]
    places = [next(m["rank"] for m in feed if m["msg"] == "estimation") for feed in told]
    assert places == [0, 1, 2]
    first.close()
    for feed in told:  # and their turn comes
        assert next(m for m in feed if m["msg"] == "process_completed")["success"]
        feed.close()
    for tab in tabs:
        tab.close()


@pytest.mark.slow  # boots a page of its own
def test_more_than_may_wait_are_told_so(engine: Watched) -> None:
    """A page of its own, with room for one."""
    clear(engine)
    small = replace(LIMITS, queue_size=1)
    with serving(engine, small) as address:
        page = Page(address)
        first = page.visit(uuid.uuid4().hex, article=ENDLESS, lanes=["alone", "lookup"])
        assert engine.begun.acquire(timeout=WAIT)
        waiting = page.visit(uuid.uuid4().hex, article=STORIES[0], lanes=["alone", "lookup"])
        with pytest.raises(urllib.error.HTTPError) as refused:
            page.visit(uuid.uuid4().hex, article=STORIES[1], lanes=["alone", "lookup"])
        with refused.value as answer:
            assert answer.code == 503
            assert "queue is full" in answer.read().decode().lower()
        for tab in (first, waiting):
            tab.close()
        assert engine.ended.acquire(timeout=WAIT)


@pytest.mark.slow  # boots a page of its own
def test_too_many_races_within_a_minute_are_told_to_wait(engine: Watched) -> None:
    """A page of its own, where a visitor has one race a minute; a refused one does not count."""
    clear(engine)
    small = replace(LIMITS, runs_per_minute=1)
    with serving(engine, small) as address:
        page = Page(address)
        session = uuid.uuid4().hex
        for article, fine in ((" ", False), (STORIES[0], True), (STORIES[1], False)):
            tab = page.visit(session, article=article, lanes=["alone", "lookup"], length=8)
            feed = messages(tab)
            end = next(told for told in feed if told["msg"] == "process_completed")
            assert end["success"] is fine
            feed.close()
            tab.close()
        assert "1 races within a minute" in end["output"]["error"]


def resident() -> int:
    """Memory of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc")
def test_memory_is_flat_over_many_runs(page: Page) -> None:
    """Its slope, in bytes a run, over 200 runs; printed with -s.

    Each run is a visitor of its own. Gradio keeps a copy of the page's parts for each of the last
    `state_session_capacity` (50): those come first, and are not counted.
    """
    taken = []
    for run in range(320):
        page.race(article=STORIES[run % 4], lanes=["alone", "lookup"], length=24, seed=run)
        taken.append(resident())
    late = np.asarray(taken[120:], dtype=float)
    slope = float(np.polyfit(np.arange(len(late)), late, 1)[0])
    print(f"\n{len(late)} runs: {slope / 1024:+.1f} KiB a run, {late[-1] / 2**20:.0f} MiB at last")
    assert slope < 64 * 1024
