"""What a tree of candidates buys: `python -m tools.trees NAME ... --data FILE`.

Each drafter runs alone, the lookup alone, and both as branches of one tree (`NAME|lookup`), in one
race an article, so that they are interleaved. With `--paths K` each T5-shaped drafter runs alone,
superposed (`superposed:NAME`) and as a beam of K paths instead. A row for each lane: tokens a call
of the target (tau), rows that the target computed a call, passes of the drafter's network a call,
and seconds of drafting and of decoding over those of the target alone.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import NamedTuple

from fastllm.checkpoints import load_drafter, load_target
from fastllm.cli.options import add_device_argument
from fastllm.cli.output import quiet
from fastllm.data.articles import Article, read_articles
from fastllm.drafters import Drafter, DrafterSession
from fastllm.drafters.neural import NeuralSession
from fastllm.drafters.superposed import WEIGHT, SuperposedDrafter
from fastllm.errors import DataError
from fastllm.evaluation.measure import ALONE, raced
from fastllm.evaluation.tables import bracketed, grid
from fastllm.metrics import Estimate, decode_seconds, ratio, target_calls, token_count
from fastllm.targets import Encoding, Target
from fastllm.trace import DecodingConfig, Trace
from tools.common import tool


class Row(NamedTuple):
    """One lane over all articles.

    Attributes:
        tau: tokens a call of the target.
        rows: that the target computed a call.
        passes: of the drafter's network a call of the target; None where it has none that counts.
        drafting: seconds of it, over those of the target alone to decode.
        seconds: of decoding, over those of the target alone; only their ratio over articles that
            were written to the same length says much, as when greedy.
        same: how many texts are those of the target alone.
    """

    name: str
    tau: Estimate
    rows: Estimate
    passes: Estimate | None
    drafting: Estimate
    seconds: Estimate
    same: int


class Counting(Drafter):
    """Another drafter, and how often its network was called, session by session."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self.name, self.vocabulary = drafter.name, drafter.vocabulary
        self._sessions: list[DrafterSession] = []

    def begin(self, encoding: Encoding) -> DrafterSession:
        """A session of the other."""
        self._sessions.append(self._drafter.begin(encoding))
        return self._sessions[-1]

    def taken(self) -> int | None:
        """The calls in all sessions since this was last asked; None where they are not counted."""
        sessions, self._sessions = self._sessions, []
        counts = [one.passes for one in sessions if isinstance(one, NeuralSession)]
        return sum(counts) if counts else None


def judged_rows(trace: Trace) -> int:
    """The rows of all calls of the target: of the token before each draft, and of the draft."""
    return sum(
        1 + len(entry.drafted) + sum(len(branch.tokens) for branch in entry.branches)
        for entry in trace.rounds
    )


def measure(
    target: Target,
    drafters: dict[str, Drafter],
    articles: Sequence[Article],
    config: DecodingConfig,
) -> list[Row]:
    """Races the drafters over articles, the target alone beside them.

    Raises:
        DataError: there are no articles.
    """
    if not articles:
        raise DataError("there are no articles: give a file that has some.")
    lanes: list[list[Trace]] = []
    counting = {name: Counting(drafter) for name, drafter in drafters.items()}
    passes: dict[str, list[int | None]] = {name: [] for name in drafters}
    for number, article in enumerate(articles):
        traces = raced(target, {ALONE: None, **counting}, article.text, config)
        taken = {name: drafter.taken() for name, drafter in counting.items()}
        if number or len(articles) == 1:  # the first one only warms up
            lanes.append(list(traces.values()))
            for name, count in taken.items():
                passes[name].append(count)
    alone, *others = zip(*lanes, strict=True)
    plain = [decode_seconds(trace) for trace in alone]
    found = []
    for name, lane in zip(drafters, others, strict=True):
        calls = [target_calls(trace) for trace in lane]
        drafting = [sum(entry.draft_seconds for entry in trace.rounds) for trace in lane]
        seconds = [decode_seconds(trace) for trace in lane]
        counts = [count for count in passes[name] if count is not None]
        found.append(
            Row(
                name,
                ratio([token_count(trace) for trace in lane], calls),
                ratio([judged_rows(trace) for trace in lane], calls),
                ratio(counts, calls) if len(counts) == len(calls) else None,
                ratio(drafting, plain),
                ratio(seconds, plain),
                sum(a.tokens == b.tokens for a, b in zip(alone, lane, strict=True)),
            )
        )
    return found


def beside(drafters: dict[str, Drafter], paths: int) -> dict[str, Drafter]:
    """Each drafter, and superposed and beam drafters of so many paths; one path as the control.

    The control is in the same engine as these, and reads nothing ahead, as they cannot.
    """
    found: dict[str, Drafter] = {}
    for name, drafter in drafters.items():
        found[name] = drafter
        found[f"{name}, 1 path"] = SuperposedDrafter(drafter, 1, 0.0)
        for weight in (0.0, WEIGHT):
            found[f"superposed:{name}, n-gram {weight:g}"] = SuperposedDrafter(
                drafter, paths, weight
            )
        found[f"beam:{name}"] = SuperposedDrafter(drafter, paths, 0.0, beams=True)
    return found


def table(rows: Sequence[Row], articles: int) -> str:
    """The rows as a Markdown table, with 95 % intervals over articles."""
    return grid(
        [
            "lane",
            "tau",
            "rows a call",
            "passes a call",
            "drafting",
            "seconds, of plain",
            "same texts",
        ],
        [
            [
                row.name,
                *(
                    "-" if one is None else bracketed(asdict(one))
                    for one in (row.tau, row.rows, row.passes, row.drafting, row.seconds)
                ),
                f"{row.same} of {articles}",
            ]
            for row in rows
        ],
    )


@tool("trees")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 2 where something is refused."""
    parser = argparse.ArgumentParser(prog="python -m tools.trees", description=__doc__)
    parser.add_argument("names", nargs="+", help="drafters, such as lstm-after")
    parser.add_argument("--data", required=True, help="articles, as JSON lines")
    parser.add_argument("--limit", type=int, default=41, help="articles; the first warms up")
    parser.add_argument("--gamma", type=int, default=8)
    parser.add_argument("--paths", type=int, default=0, help="superposed and beams, of so many")
    parser.add_argument("--temperature", type=float, default=0.0)
    add_device_argument(parser)
    options = parser.parse_args(arguments)
    quiet()
    names = ["lookup", *(name + end for name in options.names for end in ("", "|lookup"))]
    drafters = {
        name: load_drafter(name, device=options.device)
        for name in (options.names if options.paths else names)
    }
    if options.paths:
        drafters = beside(drafters, options.paths)
    articles = list(islice(read_articles(options.data), options.limit))
    config = DecodingConfig(gamma=options.gamma, temperature=options.temperature)
    rows = measure(load_target(device=options.device), drafters, articles, config)
    print(table(rows, max(1, len(articles) - 1)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
