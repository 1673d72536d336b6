"""What the lossy rules buy, and what they cost: `python -m tools.lossy_frontier --data FILE`.

A row for each setting: calls of the target, how many texts are not the exact ones any more, and
ROUGE against the summaries of the data set. Rollback (Kim et al. 2023) is greedy, and its texts are
compared with the target's own greedy ones. Lenient verification (Zhou et al. 2024) samples at
temperature 1: there a text changes with every accepted token that would have been refused, so that
a comparison of texts says nothing, and ROUGE alone is given.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import NamedTuple

from fastllm.checkpoints import load_drafter, load_target
from fastllm.cli.options import add_device_argument
from fastllm.cli.output import quiet
from fastllm.data.articles import Article
from fastllm.drafters import Drafter
from fastllm.errors import DataError
from fastllm.evaluation.measure import ROUGE, choose_articles, raced, rouge_scorer
from fastllm.evaluation.tables import grid
from fastllm.metrics import target_calls
from fastllm.targets import Target
from fastllm.trace import DecodingConfig
from tools.common import tool

ROLLBACKS = (1.0, 2.0, 3.0, 5.0)
"""Thresholds, in nats."""

LENIENCES = (0.7, 0.5, 0.3, 0.1)
"""Values of eps."""


class Row(NamedTuple):
    """One setting, in words, over all articles.

    Attributes:
        calls: of the target, a text.
        tau: tokens a call.
        changed: the share of texts that are not those of the exact setting; None when sampled.
        rouge: F1 against the summaries, by name, in percent.
    """

    setting: str
    calls: float
    tau: float
    changed: float | None
    rouge: dict[str, float]


def settings(gamma: int) -> list[DecodingConfig]:
    """What is measured: exact and lossy, greedy and at temperature 1."""
    greedy, warm = DecodingConfig(gamma=gamma), DecodingConfig(gamma=gamma, temperature=1.0)
    rollback = replace(greedy, verification="rollback")
    lenient = replace(warm, verification="lenient")
    return [
        greedy,
        *(replace(rollback, rollback_threshold=threshold) for threshold in ROLLBACKS),
        warm,
        *(replace(lenient, lenience=eps) for eps in LENIENCES),
    ]


def frontier(
    target: Target, drafter: Drafter, articles: Sequence[Article], asked: Sequence[DecodingConfig]
) -> list[Row]:
    """Measures settings, an exact greedy one before the lossy ones, on articles with a summary.

    Raises:
        DataError: no article has a summary.
    """
    chosen = [article for article in articles if article.summary]
    if not chosen:
        raise DataError("no article has a summary to compare with: give a file with highlights.")
    scorer = rouge_scorer()
    rows: list[Row] = []
    exact: list[tuple[int, ...]] = []
    for config in asked:
        traces = [
            raced(target, {"": drafter}, article.text, replace(config, seed=config.seed + number))[
                ""
            ]
            for number, article in enumerate(chosen)
        ]
        texts = [trace.tokens for trace in traces]
        greedy = config.temperature == 0
        if greedy and not config.lossy:
            exact = texts
        scores = [
            scorer.score(article.summary, trace.text)
            for article, trace in zip(chosen, traces, strict=True)
        ]
        calls = [target_calls(trace) for trace in traces]
        label = "greedy" if greedy else f"temperature {config.temperature:g}"
        rows.append(
            Row(
                f"{label}, {config.rule_label}",
                mean(calls),
                sum(map(len, texts)) / sum(calls),
                mean(a != b for a, b in zip(texts, exact, strict=True)) if greedy else None,
                {name: 100 * mean(score[name].fmeasure for score in scores) for name in ROUGE},
            )
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """The report in Markdown."""
    return grid(
        ["setting", "target calls", "tau", "texts changed", "ROUGE-1", "ROUGE-2", "ROUGE-L"],
        [
            [
                row.setting,
                f"{row.calls:.1f}",
                f"{row.tau:.2f}",
                "-" if row.changed is None else f"{100 * row.changed:.0f} %",
                *(f"{row.rouge[name]:.1f}" for name in ROUGE),
            ]
            for row in rows
        ],
    )


@tool("lossy_frontier")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lossy_frontier", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--data", required=True, metavar="FILE", help="articles with summaries")
    parser.add_argument("--limit", type=int, default=50, help="articles (default: 50)")
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    parser.add_argument("--drafter", default="lstm-after", help="(default: lstm-after)")
    parser.add_argument("--gamma", type=int, default=8, help="draft length (default: 8)")
    add_device_argument(parser)
    options = parser.parse_args(arguments)
    quiet()
    asked = settings(options.gamma)
    target = load_target(options.target, device=options.device)
    drafter = load_drafter(options.drafter, device=options.device)
    articles = choose_articles(options.data, options.limit)  # those of `eval`
    print(table(frontier(target, drafter, articles, asked)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
