"""Records the races that the page shows of its samples: `python -m tools.record`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fastllm import paths
from fastllm.demo import articles, words
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.race.race import default_lanes, recorded_name
from fastllm.demo.jobs import RaceJob
from fastllm.files import write_whole
from fastllm.metrics import target_calls
from fastllm.trace import DecodingConfig, Trace
from tools.common import tool


@tool("record")
def main(arguments: Sequence[str] | None = None) -> int:
    """Races each sample several times and stores the run of median duration."""
    samples = articles.samples()
    parser = argparse.ArgumentParser(prog="tools.record", description=__doc__)
    parser.add_argument(
        "--article", choices=list(samples), nargs="+", default=list(samples), help="default: all"
    )
    parser.add_argument("--target", default="target", help="a folder; the shipped one by default")
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    parser.add_argument("--to", type=Path, default=paths.RECORDED, metavar="FOLDER")
    options = parser.parse_args(arguments)
    engine = LocalEngine(options.target)
    lanes = default_lanes(engine.keys)
    engine.start()
    options.to.mkdir(parents=True, exist_ok=True)
    for title in options.article:
        job = RaceJob(samples[title], tuple(lanes), DecodingConfig(), seconds=600)
        runs = sorted((run(engine, job) for _ in range(options.runs)), key=duration)
        traces = runs[len(runs) // 2]
        tree = {
            "article": title,
            "lanes": list(lanes),
            "traces": [trace.to_json() for trace in traces],
        }
        text = json.dumps(tree, ensure_ascii=False, separators=(",", ":")) + "\n"
        write_whole(options.to / recorded_name(title), text)
        print(f"{title}: {traces[0].text}")
        for key, trace in zip(lanes, traces, strict=True):
            print(f"    {words.title_of(key)}: {target_calls(trace)} target calls")
    return 0


def run(engine: LocalEngine, job: RaceJob) -> list[Trace]:
    """One race."""
    race = job.race(engine)
    for _ in race:
        pass
    return race.traces()


def duration(traces: Sequence[Trace]) -> float:
    """Seconds of all lanes together."""
    return sum(entry.total_seconds for trace in traces for entry in trace.rounds)


if __name__ == "__main__":
    sys.exit(main())
