"""Serves the page with an engine made of stories: no model, and as slow as the tests want it.

    python tests/browser/serve.py PORT [PAUSE] [RECORDED]

Every lane writes the first words of the article, a round each PAUSE seconds. Of an article that
begins with "Endless" it writes four rounds a second, for longer than any test waits; on one that
begins with "Endless lessons" a drafter learns for as long.
"""

import dataclasses
import json
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "demo")]

import stories  # noqa: E402  (found on the path that is set above)

# noqa of these too: the package is found on that path, since this file is run as a program.
from fastllm.demo import rows, words  # noqa: E402
from fastllm.demo.folds.learn import words as learn_words  # noqa: E402
from fastllm.demo.folds.learn.learn import LiveTrainingJob  # noqa: E402
from fastllm.demo.jobs import RaceJob  # noqa: E402
from fastllm.demo.limits import read_limits  # noqa: E402
from fastllm.demo.page import build, launch_options  # noqa: E402
from fastllm.words import capital  # noqa: E402


class StoryEngine:
    """Plays what `stories` wrote."""

    keys = (
        "alone", "lookup", "lstm-before", "lstm-after", "cnn-before", "cnn-after",
    )  # fmt: skip
    # Nobody changes these two: they may be the class's own.
    missing = {"ngram-after": words.NO_CHECKPOINT}  # noqa: RUF012
    failure = ""
    loading = ""
    about = {  # noqa: RUF012
        "fastllm": "0", "hardware": "2 storytellers", "target": "target", "held": "fp32",
    }  # fmt: skip

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def lines(self, work: RaceJob | LiveTrainingJob, stop: threading.Event) -> Iterator[str]:
        if isinstance(work, LiveTrainingJob):
            yield from lesson(work, stop)
            if stop.is_set():
                return
            lanes = ("alone", "lstm-before", "lstm-yours", "lstm-after")
            title = capital(words.title_of("lstm-yours"))
            notices = (learn_words.PRACTISED.format(title), *work.notices)
            work = RaceJob(work.article, lanes, work.config, notices, work.title)
        yield from self.race(work, stop)

    def race(self, job: RaceJob, stop: threading.Event) -> Iterator[str]:
        words = job.article.split()
        pieces = [*(f" {word}" for word in words[:40]), ""]
        pause = self.pause
        if words[0] == "Endless":
            pieces, pause = pieces[:-1] * 50 + pieces[-1:], 0.25
        patterns = {"lstm-before": (0, 1, 2, 0), "lstm-after": (5, 2, 3, 4, 1), "lookup": (0, 5)}
        patterns |= {"lstm-yours": (5,)}
        cut_at = len(job.article) // 2 if len(words) > 100 else None
        traces = [
            dataclasses.replace(
                stories.trace(
                    "" if key == "alone" else key,
                    patterns.get(key, (1, 0, 2)),
                    pieces,
                    source=job.article,
                ),
                cut_at=cut_at,
                config=job.config,
            )
            for key in job.lanes
        ]
        lines = rows.recorded_lines(uuid.uuid4().hex, job.lanes, traces, article=job.title)
        for line in lines:
            row = json.loads(line)
            if row["row"] == "start":
                line = rows.line(row | {"mode": "live", "notices": list(job.notices)})
            if stop.is_set():
                return
            yield line
            if row["row"] == "round":
                time.sleep(pause)


def lesson(work: LiveTrainingJob, stop: threading.Event) -> Iterator[str]:
    """Seven texts, then moments of half a second each, at one of which alpha is flat."""
    held_out = list(work.held_out)
    row = {"row": "lesson", "run": uuid.uuid4().hex, "title": words.title_of("lstm-yours")}
    yield rows.line(row | {"article": work.title, "held_out": held_out, "texts": 7, "updates": 60})
    for done in range(7):
        yield rows.line({"row": "writing", "done": done + 1})
    yield rows.line({"row": "written", "others": 3})
    shipped = words.title_of("lstm-after")
    yield rows.line({"row": "shipped", "title": shipped, "own": [0.7, 4], "held_out": [0.75, 5]})
    for step in count() if work.article.startswith("Endless lessons") else range(7):
        numbers = {"seconds": step / 2, "updates": 10 * step, "tokens": 1000 * step}
        known = {"own": [round(0.5 + min(step, 6) * 0.07, 2), 4.0], "held_out": [0.55, 3.0]}
        loss = None if step == 0 else 1.5 / step
        yield rows.line({"row": "moment", **numbers, "loss": loss, **known})
        if stop.wait(0.05):
            return
    said = [
        learn_words.learned_own(0.5, 0.92, shipped, 0.7),
        learn_words.learned_held_out((0.55, 3.0), (0.55, 3.0), shipped, (0.75, 5.0)),
    ]
    yield rows.line({"row": "taught", "updates": 60, "said": said, "race": True})


def main() -> None:
    port, *more = sys.argv[1:]
    pause = float(more[0]) if more else 0.01
    recorded = Path(more[1]) if len(more) > 1 else ROOT / "no" / "such"
    limits = dataclasses.replace(read_limits(), runs_per_minute=10_000)
    page = build(cast(Any, StoryEngine(pause)), limits, recorded)
    page.launch(server_port=int(port), prevent_thread_lock=True, **launch_options())
    print("serving", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
