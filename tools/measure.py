"""Measures what the page promises, in a real browser: `python -m tools.measure`.

What is promised, each a median of several visits, beside its bound:

- delay: a live race of four lanes of 150 tokens, from the moment the first round left the models
  to the moment the last one stood in the browser, against the time until the models were done;
- scrub: scripting, style and layout of one frame, as Chromium traces them, while the position is
  drawn through a race of 2,000 tokens;
- first paint, and the moment at which the recorded race moves, or the call that is played slowly
  before it, after the address was entered with nothing in the cache;
- layout shift of a live race from the click on, and of the page as it opens, on a desktop and on a
  phone; and whether the verdict stands in view when the race is over;
- bytes that came over the wire until then and in the seconds after, before a plot is opened.

The models, the server and the browser share this machine, as they do for whoever tries it at home.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from fastllm import paths
from fastllm.demo.engine import LocalEngine
from fastllm.demo.jobs import RaceJob, Work
from fastllm.demo.limits import read_limits
from fastllm.demo.page import build, launch_options
from fastllm.devices import leave_a_core
from fastllm.errors import SettingsError
from fastllm.trace import Trace
from tools.common import tool

RECORDED = paths.RECORDED / "autumn-storm.json"
"""The recorded race that is made longer."""

RACE_TOKENS = 150
"""Of each lane of the live race."""

SCRUB_TOKENS = 2000
"""Of all lanes of the race that is scrubbed through."""

SCRUB_FRAMES = 120
"""In how many frames the position goes from one end to the other: two seconds of them."""

FRAME = "fastllm-frame"

WORK = frozenset(
    (
        "EvaluateScript", "EventDispatch", "FireAnimationFrame", "FunctionCall", "HitTest",
        "IntersectionObserverController::computeIntersections", "Layout", "MajorGC", "MinorGC",
        "PrePaint", "RunMicrotasks", "TimerFire", "UpdateLayoutTree",
    )
)  # fmt: skip
"""What a trace calls scripting, style and layout; painting is not among them."""

TRACED_CATEGORIES = ["devtools.timeline", "blink.user_timing", "v8", "disabled-by-default-v8.gc"]

AFTER_SECONDS = 2.0
"""What still comes over the wire this long after the recorded race moves is counted too."""

PATIENCE_SECONDS = 300.0

Size = tuple[int, int]
DESKTOP: Size = (1440, 900)
PHONE: Size = (390, 844)
"""Width and height of a window, in pixels."""

Event = dict[str, Any]
"""Of a trace, in Chromium's form: a name, beginning and duration in microseconds, a thread."""

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Promise:
    """One line of the table: a name, what was measured a visit, its unit and its bound."""

    name: str
    measured: Sequence[float]
    unit: str
    bound: float

    def __str__(self) -> str:
        median = statistics.median(self.measured)
        low, high = min(self.measured), max(self.measured)
        kept = "kept" if median <= self.bound else "MISSED"
        return (
            f"{self.name:34}{median:9.2f} {self.unit:3}{low:9.2f} to {high:.2f}".ljust(68)
            + f"at most {self.bound:g}".ljust(16)
            + kept
        )


class ClockedEngine(LocalEngine):
    """Writes down when the first round and the last row of a race left the models, since 1970."""

    first = last = 0.0

    def lines(self, work: Work, stop: threading.Event) -> Iterator[str]:
        """The rows of a race whose lanes are as long as the measurement wants them."""
        if isinstance(work, RaceJob):
            config = replace(work.config, min_new_tokens=RACE_TOKENS, max_new_tokens=RACE_TOKENS)
            work = replace(work, config=config, seconds=600)
        first = 0.0
        for line in super().lines(work, stop):
            if not first and line.startswith('{"row":"round"'):
                first = time.time()
            yield line
        self.first, self.last = first, time.time()


@tool("measure")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints the table; 1 where a promise is missed, 2 where it cannot be."""
    parser = argparse.ArgumentParser(prog="tools.measure", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="visits of each kind")
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    options = parser.parse_args(arguments)
    promises = measure(max(1, options.runs), options.target)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load}; medians of {options.runs}, lowest to highest")
    for promise in promises:
        print(promise)
    kept = all(statistics.median(each.measured) <= each.bound for each in promises)
    return 0 if kept else 1


def measure(runs: int, target: str = "target") -> list[Promise]:
    """Serves the page and visits it, so many times for each kind of promise.

    Raises:
        SettingsError: there is no playwright, or no Chromium.
        CheckpointError: the target could not be loaded.
    """
    library = playwright()
    leave_a_core()  # as the page does
    limits = replace(read_limits(), runs_per_minute=10_000)
    engine = ClockedEngine(target)
    engine.start()
    engine.target  # noqa: B018  (waits for it, or says why it is not there)
    with library.sync_playwright() as running:
        chromium = chromium_of(running)
        with tempfile.TemporaryDirectory() as folder:
            long = Path(folder) / "long.json"
            long.write_text(json.dumps(longer(RECORDED, SCRUB_TOKENS)), encoding="utf-8")
            pages = [build(engine, limits, path) for path in (paths.RECORDED, long.parent)]
            here, there = (
                page.launch(prevent_thread_lock=True, **launch_options())[1] for page in pages
            )
            opened = [_open(chromium, here) for _ in range(runs)]
            on_phone = [_open(chromium, here, PHONE) for _ in range(runs)]
            frames = [_scrub(chromium, there) for _ in range(runs)]
            races = [_race(chromium, here, engine) for _ in range(runs + 1)][1:]
            phone_races = [_race(chromium, here, engine, PHONE) for _ in range(runs)]
        for page in pages:
            page.close(verbose=False)
        chromium.close()
    return [
        Promise(f"delay of a race, 4 x {RACE_TOKENS} tokens", [each[0] for each in races], "%", 10),
        Promise("layout shift of a race", [each[1] for each in races], "", 0.05),
        Promise("layout shift of a race, phone", [each[1] for each in phone_races], "", 0.05),
        Promise("layout shift of the opening", [each[3] for each in opened], "", 0.1),
        Promise("layout shift of the opening, phone", [each[3] for each in on_phone], "", 0.1),
        Promise("verdict out of view", [each[2] for each in races], "", 0),
        Promise("verdict out of view, phone", [each[2] for each in phone_races], "", 0),
        Promise(f"a frame, scrubbing {SCRUB_TOKENS} tokens", frames, "ms", 8),
        Promise("first contentful paint", [each[0] for each in opened], "s", 1.5),
        Promise("the recorded race moves", [each[1] for each in opened], "s", 2.0),
        Promise("over the wire before plots", [each[2] for each in opened], "MB", 1.0),
    ]


def chromium_of(running: Any) -> Any:
    """The Chromium of this machine, or else that of playwright, launched."""
    return running.chromium.launch(
        executable_path=next(filter(None, map(shutil.which, CHROMIUM)), None),
        args=["--no-sandbox", "--disable-background-networking"],
    )


def longer(recorded: Path, tokens: int) -> dict[str, Any]:
    """A recorded race, its rounds repeated until its lanes together hold as many tokens."""
    tree: dict[str, Any] = json.loads(recorded.read_text(encoding="utf-8"))
    traces = [Trace.from_json(entry) for entry in tree["traces"]]
    made = []
    for trace in traces:
        rounds = trace.rounds[:-1]  # the last one ends the text
        pieces = trace.pieces[: sum(len(entry.tokens) for entry in rounds)]
        times = -(-tokens // (len(traces) * len(pieces)))
        repeated = replace(trace, rounds=rounds * times, pieces=pieces * times, ended="length")
        made.append(repeated.to_json())
    return tree | {"traces": made}


@contextmanager
def _visit(chromium: Any, size: Size = DESKTOP, **more: Any) -> Iterator[tuple[Any, Any]]:
    """A page with nothing in its cache, and its session of Chromium's protocol; closed behind."""
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, **more)
    page = context.new_page()
    yield page, context.new_cdp_session(page)
    context.close()


def _open(chromium: Any, address: str, size: Size = DESKTOP) -> tuple[float, float, float, float]:
    """Seconds to the first paint, seconds until the race moves, megabytes, layout shift."""
    sizes: list[float] = []
    with _visit(chromium, size) as (page, wire):
        wire.on("Network.loadingFinished", lambda told: sizes.append(told["encodedDataLength"]))
        wire.send("Network.enable")
        page.add_init_script(_WATCH + _SHIFT)
        page.goto(address)
        page.wait_for_function("window.moves", timeout=PATIENCE_SECONDS * 1000)
        page.wait_for_timeout(AFTER_SECONDS * 1000)
        painted, moves, shift = page.evaluate(
            "[performance.getEntriesByName('first-contentful-paint')[0].startTime, window.moves, "
            "window.shift]"
        )
    return painted / 1000, moves / 1000, sum(sizes) / 1e6, shift


_WATCH = """
const look = () => {
  const counts = [...document.querySelectorAll(".fl-count")];
  const playing = document.querySelector(".fl-scene[data-step='1']");
  const raced = counts.some((count) => Number(count.textContent) > 0);
  if (playing || raced) window.moves = performance.now();
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""


def _scrub(chromium: Any, address: str) -> float:
    """The median frame in milliseconds."""
    events: list[Event] = []
    over: list[Event] = []
    categories = {"includedCategories": TRACED_CATEGORIES, "recordMode": "recordUntilFull"}
    with _visit(chromium, reduced_motion="reduce") as (page, wire):
        page.goto(address)
        page.wait_for_selector(".fl-lane .fl-block", timeout=PATIENCE_SECONDS * 1000)
        wire.on("Tracing.dataCollected", lambda told: events.extend(told["value"]))
        # A lambda: Playwright sets an attribute of what it calls.
        wire.on("Tracing.tracingComplete", lambda told: over.append(told))
        wire.send("Tracing.start", {"traceConfig": categories, "transferMode": "ReportEvents"})
        page.evaluate(_SCRUB, [SCRUB_FRAMES, FRAME])
        wire.send("Tracing.end")
        while not over:
            page.wait_for_timeout(50)
    return statistics.median(frames_of(events))


_SCRUB = """async ([steps, mark]) => {
  const bar = document.querySelector(".fl-position");
  const frame = () => new Promise((then) => requestAnimationFrame(then));
  for (let step = 0; step <= steps; step += 1) {
    await frame();
    performance.mark(mark);
    bar.value = String((1000 * step) / steps);
    bar.dispatchEvent(new Event("input", { bubbles: true }));
  }
  await frame();
  performance.mark(mark);
}"""


def frames_of(events: Sequence[Event]) -> list[float]:
    """How long each frame ran scripts and laid out, in milliseconds; what is nested counts once.

    Marks called `FRAME` stand at the beginning of each frame, the last behind the last one; work
    that ends behind a mark is of the frame that it begins.
    """
    marks = sorted((event for event in events if event["name"] == FRAME), key=_began)
    threads = {(mark["pid"], mark["tid"]) for mark in marks}
    work = [
        event
        for event in events
        if event["name"] in WORK and event.get("dur") and (event["pid"], event["tid"]) in threads
    ]
    took = [0.0] * max(0, len(marks) - 1)
    behind = float("-inf")
    for event in sorted(work, key=_began):
        end = event["ts"] + event["dur"]
        if end <= behind:
            continue  # within one that has been counted
        frame = bisect_left(marks, end, key=_began) - 1
        if 0 <= frame < len(took):
            took[frame] += (end - max(event["ts"], behind)) / 1000
        behind = end
    return took


def _began(event: Event) -> float:
    """Microseconds on the clock of the trace."""
    return float(event["ts"])


def _race(
    chromium: Any, address: str, engine: ClockedEngine, size: Size = DESKTOP
) -> tuple[float, float, float]:
    """A race's lateness, layout shift, and whether its verdict is out of view at the end: 0 or 1.

    Late is by how many percent the browser was later than the models.
    """
    with _visit(chromium, size) as (page, _):
        page.goto(address)
        page.wait_for_selector(".fl-lane .fl-block", timeout=PATIENCE_SECONDS * 1000)
        page.evaluate(f"() => {{ {_SHOWN} {_SHIFT} }}")
        page.click("#fl-go")
        page.wait_for_function("window.shown", timeout=PATIENCE_SECONDS * 1000)
        page.wait_for_timeout(AFTER_SECONDS * 1000)
        shown, shift = page.evaluate("[window.shown, window.shift]")
        box = page.locator(".fl-verdict").bounding_box()
    late = 100 * ((shown / 1000 - engine.first) / (engine.last - engine.first) - 1)
    seen = box is not None and 0 <= box["y"] and box["y"] + box["height"] <= size[1]
    return late, shift, float(not seen)


_SHIFT = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: "layout-shift" });
"""

_SHOWN = """
new MutationObserver(() => {
  requestAnimationFrame(() => {
    window.shown ??= performance.timeOrigin + performance.now();
  });
}).observe(document.querySelector(".fl-race"), { attributes: true, attributeFilter: ["data-ran"] });
"""


def playwright() -> Any:
    """The library that drives the browser.

    Raises:
        SettingsError: it is not there.
    """
    try:
        return import_module("playwright.sync_api")
    except ImportError as error:
        raise SettingsError(
            "a browser is needed, and there is no playwright to drive one: pip install playwright, "
            "and have Chromium installed (or: playwright install chromium)."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
