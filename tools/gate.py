"""Whether distillation shows on the sample articles, greedy: `python -m tools.gate [FAMILY]`.

The drafter after distillation must need at most 0.75 times the target calls of the one before it,
and be faster than the target alone, encoding counted, on all articles but one. The exit code is 1
where it is not. That every text was read, and is fluent and true to its article, is for people to
say.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import NamedTuple

from fastllm.checkpoints import load_drafter, load_target
from fastllm.cli.options import add_device_argument
from fastllm.data.articles import Article, sample_articles
from fastllm.drafters import Drafter
from fastllm.evaluation.measure import ALONE, raced
from fastllm.metrics import seconds_with_encoding, target_calls
from fastllm.targets import Target
from fastllm.trace import DecodingConfig, Trace
from tools.common import tool

MOST_CALLS = 0.75
"""Target calls after distillation over those before, all articles together."""


class Row(NamedTuple):
    """One article: target calls and seconds of the target alone, before and after distillation."""

    article: str
    calls: tuple[int, ...]
    seconds: tuple[float, ...]


def measure(
    target: Target,
    before: Drafter,
    after: Drafter,
    articles: Sequence[Article],
    *,
    repeats: int = 3,
) -> list[Row]:
    """Races the articles greedily; seconds are the median of some races, after one to warm up."""

    def race(text: str) -> list[Trace]:
        lanes = {ALONE: None, "before": before, "after": after}
        return list(raced(target, lanes, text, DecodingConfig()).values())

    race(articles[0].text)
    rows = []
    for article in articles:
        runs = [race(article.text) for _ in range(repeats)]
        by_lane = zip(*([*map(seconds_with_encoding, run)] for run in runs), strict=True)
        seconds = tuple(map(statistics.median, by_lane))
        rows.append(Row(article.id, tuple(map(target_calls, runs[0])), seconds))
    return rows


def judged(rows: Sequence[Row]) -> tuple[bool, str]:
    """Whether the gate is passed, and the report in Markdown."""
    ratio = sum(row.calls[2] for row in rows) / sum(row.calls[1] for row in rows)
    faster = sum(row.seconds[2] < row.seconds[0] for row in rows)
    needed = max(1, len(rows) - 1)
    passed = ratio <= MOST_CALLS and faster >= needed
    lines = [
        "| article | calls alone | before | after | seconds alone | before | after |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row.article} | {' | '.join(map(str, row.calls))} | "
            f"{' | '.join(f'{seconds:.3f}' for seconds in row.seconds)} |"
            for row in rows
        ),
        "",
        f"{'PASS' if passed else 'FAIL'}: target calls after / before {ratio:.2f} (at most "
        f"{MOST_CALLS} is needed); faster than alone on {faster} of {len(rows)} articles (at least "
        f"{needed} are needed).",
    ]
    return passed, "\n".join(lines)


@tool("gate")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 where the gate is not passed, 2 where something cannot be loaded."""
    parser = argparse.ArgumentParser(prog="python -m tools.gate", description=__doc__)
    parser.add_argument("family", nargs="?", default="lstm", help="default: lstm")
    add_device_argument(parser)
    options = parser.parse_args(arguments)
    target = load_target(device=options.device)
    before, after = (
        load_drafter(f"{options.family}-{end}", device=options.device)
        for end in ("before", "after")
    )
    passed, report = judged(measure(target, before, after, sample_articles()))
    print(report)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
