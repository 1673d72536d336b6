"""Serves the page with an engine made of stories: no model, and as slow as the tests want it.

    python tests/browser/serve.py PORT [PAUSE] [RECORDED.json]

Every lane writes the first words of the article, a round each PAUSE seconds. Of an article that
begins with "Endless" it writes four rounds a second, for longer than any test waits.
"""

import dataclasses
import json
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "demo")]

import stories  # noqa: E402

from fastllm.demo import texts, wire  # noqa: E402
from fastllm.demo.build import build, launch_options  # noqa: E402
from fastllm.demo.limits import read_limits  # noqa: E402
from fastllm.demo.work import Order  # noqa: E402


class StoryEngine:
    """Plays what `stories` wrote."""

    keys = (
        "alone", "lookup", "lstm-before", "lstm-after", "cnn-before", "cnn-after",
    )  # fmt: skip
    missing = {"ngram-after": texts.NO_CHECKPOINT}  # noqa: RUF012
    failure = ""
    about = {"fastllm": "0", "hardware": "2 storytellers"}  # noqa: RUF012

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def lines(self, order: Order, stop: threading.Event) -> Iterator[str]:
        words = order.article.split()
        pieces = [*(f" {word}" for word in words[:40]), ""]
        pause = self.pause
        if words[0] == "Endless":
            pieces, pause = pieces[:-1] * 50 + pieces[-1:], 0.25
        patterns = {"lstm-before": (0, 1, 2, 0), "lstm-after": (5, 2, 3, 4, 1), "lookup": (0, 5)}
        cut_at = len(order.article) // 2 if len(words) > 100 else None
        traces = [
            dataclasses.replace(
                stories.trace(
                    "" if key == "alone" else key,
                    patterns.get(key, (1, 0, 2)),
                    pieces,
                    source=order.article,
                ),
                cut_at=cut_at,
                config=order.config,
            )
            for key in order.lanes
        ]
        lines = wire.recorded_lines(uuid.uuid4().hex, order.lanes, traces, article=order.title)
        for line in lines:
            row = json.loads(line)
            if row["row"] == "start":
                line = wire.line(row | {"mode": "live", "notices": list(order.notices)})
            if stop.is_set():
                return
            yield line
            if row["row"] == "round":
                time.sleep(pause)


def main() -> None:
    port, *more = sys.argv[1:]
    pause = float(more[0]) if more else 0.01
    recorded = Path(more[1]) if len(more) > 1 else ROOT / "no" / "such.json"
    page = build(StoryEngine(pause), read_limits(), recorded)
    page.launch(server_port=int(port), prevent_thread_lock=True, **launch_options())
    print("serving", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
