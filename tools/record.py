"""Records the race that the first screen shows: `python -m tools.record`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fastllm.demo import articles, words
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.race.race import DEFAULT_LANES
from fastllm.demo.jobs import RaceJob
from fastllm.demo.page import RECORDED
from fastllm.errors import FastLLMError
from fastllm.files import write_whole
from fastllm.metrics import target_calls
from fastllm.trace import DecodingConfig, Trace


def main(arguments: Sequence[str] | None = None) -> int:
    """Races a sample several times and stores the run of median duration."""
    samples = articles.samples()
    parser = argparse.ArgumentParser(prog="tools.record", description=__doc__)
    parser.add_argument("--article", choices=list(samples), default=next(iter(samples)))
    parser.add_argument("--lanes", nargs="+", help="default: what the page races by default")
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    parser.add_argument("--to", type=Path, default=RECORDED, metavar="FILE")
    options = parser.parse_args(arguments)
    engine = LocalEngine(options.target)
    offered = [key for key in DEFAULT_LANES if key in engine.keys]
    lanes = options.lanes or (offered if len(offered) > 1 else [words.ALONE, "lookup"])
    unknown = [key for key in lanes if key not in engine.keys]
    if unknown:
        print(f"record: {words.unknown_lane(unknown[0], engine.keys)}", file=sys.stderr)
        return 2
    engine.start()
    job = RaceJob(samples[options.article], tuple(lanes), DecodingConfig(), seconds=600)
    try:
        runs = sorted((run(engine, job) for _ in range(options.runs)), key=duration)
    except FastLLMError as error:
        print(f"record: {error}", file=sys.stderr)
        return 2
    traces = runs[len(runs) // 2]
    tree = {
        "article": options.article,
        "lanes": lanes,
        "traces": [trace.to_json() for trace in traces],
    }
    write_whole(options.to, json.dumps(tree, ensure_ascii=False) + "\n")
    for key, trace in zip(lanes, traces, strict=True):
        print(f"{words.title_of(key)}: {target_calls(trace)} target calls. {trace.text}")
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
