"""How far a target in lower precision follows itself in float32, greedy.

Speculation is exact in any precision: the text is that of the target as it is held. This asks the
other question, how much the target itself changes when its weights are rounded: for each article,
where the two texts part, and how close the decision was there. After that place they are two
different texts, and nothing of them is compared.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from fastllm.checkpoints import load_target
from fastllm.cli.options import add_decoding_arguments, add_device_argument, decoding_config
from fastllm.cli.output import quiet, require_writable_report, say
from fastllm.data.articles import Article, read_articles, sample_articles
from fastllm.decoding import autoregress
from fastllm.decoding.distributions import forbid
from fastllm.decoding.race import hardware, versions
from fastllm.decoding.rules import Rules
from fastllm.errors import DataError, FastLLMError, SettingsError, VocabularyError
from fastllm.files import write_json
from fastllm.targets import Target, TargetSession, resolve
from fastllm.targets.hub import PRECISIONS
from fastllm.trace import DecodingConfig

REFERENCE = "fp32"
"""What the others are compared with."""

SETTINGS = ("max_new_tokens", "no_repeat_ngram", "min_new_tokens")
"""The settings of DecodingConfig that matter to the target alone, greedy."""

LOWER = tuple(name for name in PRECISIONS if name != REFERENCE)


@dataclass(frozen=True)
class Divergence:
    """Where two texts of one article part.

    Attributes:
        position: how many tokens they share.
        reference_token: what float32 writes there.
        token: what the lower precision writes.
        reference_margin: the best logit minus the second best, in float32.
        margin: the same difference in the lower precision.
        rank: of `token` among the logits of float32; 2 is the second best.
    """

    position: int
    reference_token: int
    token: int
    reference_margin: float
    margin: float
    rank: int


@dataclass(frozen=True)
class ArticleComparison:
    """One article in two precisions.

    Attributes:
        id: of the article.
        tokens: how many float32 writes, the end token included.
        largest_difference: between two logits of the same token after the same text, over all
            places up to the one where the texts part.
        smallest_margin: the least margin of float32 over the same places: how close it came to
            another text.
        divergence: where they part; None where they are the same.
    """

    id: str
    tokens: int
    largest_difference: float
    smallest_margin: float
    divergence: Divergence | None


@dataclass(frozen=True)
class PrecisionReport:
    """A target in float32 beside itself in other precisions.

    Attributes:
        target: its name.
        config: the settings, greedy.
        hardware: what it ran on.
        versions: of Python and the libraries.
        engines: precision -> what ran the decoder, the reference included.
        rows: precision -> one entry an article, the same articles in the same order.
    """

    target: str
    config: DecodingConfig
    hardware: str
    versions: dict[str, str]
    engines: dict[str, str]
    rows: dict[str, tuple[ArticleComparison, ...]]

    def same_share(self, precision: str) -> float:
        """The share of articles whose text is that of float32, token for token."""
        rows = self.rows[precision]
        return sum(row.divergence is None for row in rows) / len(rows)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "same_share": {name: self.same_share(name) for name in self.rows}}


def compare(
    reference: Target,
    others: Mapping[str, Target],
    articles: Sequence[Article],
    config: DecodingConfig,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> PrecisionReport:
    """Decodes every article greedily in each precision, by the same loop as everywhere.

    Args:
        reference: the target in float32.
        others: the same target in lower precision, by name.
        articles: what to summarise; at least one.
        config: length and rules; temperature is taken as 0.
        say: receives a progress line now and then.

    Raises:
        DataError: there are no articles.
        SettingsError: there is nothing to compare with.
        VocabularyError: one of the others is another model.
    """
    if not articles:
        raise DataError("no articles to compare on: give at least one.")
    if not others:
        raise SettingsError(f"no precision to compare: give some of {', '.join(LOWER)}.")
    for name, other in others.items():
        if other.vocabulary.fingerprint != reference.vocabulary.fingerprint:
            raise VocabularyError(
                f"{name} has vocabulary {other.vocabulary.fingerprint}, the target in {REFERENCE} "
                f"{reference.vocabulary.fingerprint}: give one model in several precisions."
            )
    greedy = replace(resolve(config, reference), temperature=0.0)
    rows: dict[str, list[ArticleComparison]] = {name: [] for name in others}
    for index, article in enumerate(articles):
        encoded = reference.vocabulary.encode(
            article.text, reference.source_length, reference.prefix
        )
        tokens, logits = _write(reference, encoded.ids, greedy)
        for name, other in others.items():
            found, lower = _write(other, encoded.ids, greedy)
            rows[name].append(
                _compared(article.id, reference, greedy, (tokens, logits), (found, lower))
            )
        if (index + 1) % 5 == 0 or index + 1 == len(articles):
            say(f"{index + 1}/{len(articles)} articles")
    return PrecisionReport(
        target=reference.name,
        config=greedy,
        hardware=hardware(reference.device),
        versions=dict(versions()),
        engines={name: target.engine for name, target in {REFERENCE: reference, **others}.items()},
        rows={name: tuple(entries) for name, entries in rows.items()},
    )


class _Recorder:
    """A session that keeps the logits after every token of chains, float32 on the CPU."""

    trees = False

    def __init__(self, session: TargetSession) -> None:
        self._session = session
        self.logits: list[torch.Tensor] = []

    @property
    def length(self) -> int:
        return self._session.length

    def forward(self, ids: list[int], parents: Sequence[int] | None = None) -> torch.Tensor:
        logits = self._session.forward(ids, parents)
        self.logits.extend(logits.float().cpu())
        return logits

    def keep(self, length: int, path: Sequence[int] = ()) -> None:
        self._session.keep(length, path)
        del self.logits[length:]


def _write(
    target: Target, source_ids: list[int], config: DecodingConfig
) -> tuple[list[int], list[torch.Tensor]]:
    """A text, without the start token, and the logits that each of its tokens was chosen by."""
    session = _Recorder(target.begin(target.encode(source_ids)))
    rounds = autoregress(
        session, config, start_id=target.start_id, end_id=target.end_ids, statistics=False
    )
    tokens = [token for entry in rounds for token in entry.tokens]
    return tokens, session.logits


def _compared(
    article: str,
    reference: Target,
    config: DecodingConfig,
    exact: tuple[list[int], list[torch.Tensor]],
    rounded: tuple[list[int], list[torch.Tensor]],
) -> ArticleComparison:
    tokens, found = exact[0], rounded[0]
    # Neither text is a proper beginning of the other: where one ends, the other has another token.
    places = min(len(tokens), len(found))
    parted = next((i for i in range(places) if tokens[i] != found[i]), None)
    shared = places if parted is None else parted + 1
    difference = max(
        float((one - other).abs().max())
        for one, other in zip(exact[1][:shared], rounded[1][:shared], strict=True)
    )
    banned = Rules(reference.end_ids).along([reference.start_id], tokens[: shared - 1], config)
    ruled = [forbid(torch.stack(logits[:shared]), banned) for logits in (exact[1], rounded[1])]
    margins = [_margins(logits) for logits in ruled]
    divergence = None
    if parted is not None:
        row = ruled[0][parted]
        divergence = Divergence(
            position=parted,
            reference_token=tokens[parted],
            token=found[parted],
            reference_margin=float(margins[0][parted]),
            margin=float(margins[1][parted]),
            rank=1 + int((row > row[found[parted]]).sum()),
        )
    return ArticleComparison(article, len(tokens), difference, float(margins[0].min()), divergence)


def _margins(logits: torch.Tensor) -> torch.Tensor:
    """The best minus the second best of each row (T, V), shape (T,)."""
    best = logits.topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]


def table(report: PrecisionReport) -> str:
    """The report in Markdown: a line for each precision, then each place where texts part."""
    lines = [
        f"## {report.target}: other precisions beside {REFERENCE}, greedy",
        "",
        f"{len(next(iter(report.rows.values())))} articles, {report.hardware}. A margin is the "
        "best logit minus the second best, at the first place where the texts differ.",
        "",
        "| precision | engine | same text | first difference after token | margin in fp32 | "
        "margin in it | largest logit difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in report.rows.items():
        apart = [row.divergence for row in rows if row.divergence is not None]
        largest = max(row.largest_difference for row in rows)
        lines.append(
            f"| {name} | {report.engines[name]} | {len(rows) - len(apart)} of {len(rows)} "
            f"| {_spread([entry.position for entry in apart], '.0f')} "
            f"| {_spread([entry.reference_margin for entry in apart], '.3g')} "
            f"| {_spread([entry.margin for entry in apart], '.3g')} | {largest:.3g} |"
        )
    lines += ["", "Median [least, most] over the articles whose texts differ."]
    each = [
        f"| {row.id} | {name} | {row.divergence.position} of {row.tokens} "
        f"| {row.divergence.reference_margin:.3g} | {row.divergence.margin:.3g} "
        f"| {row.divergence.rank} |"
        for name, rows in report.rows.items()
        for row in rows
        if row.divergence is not None
    ]
    if each:
        lines += [
            "",
            "| article | precision | differs after token | margin in fp32 | margin in it | "
            "its token's rank in fp32 |",
            "|---|---|---|---|---|---|",
            *each,
        ]
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} [{least:{form}}, {most:{form}}]"


# The command.


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares what the arguments name; 2 where one is wrong, or a file cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except FastLLMError as error:
        print(f"precision: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.precision",
        description="Decodes articles greedily with the target in float32 and in lower precision, "
        "and prints where the texts part and how close the two best logits were there.",
    )
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    parser.add_argument(
        "--in",
        dest="precisions",
        nargs="+",
        choices=LOWER,
        default=["bf16"],
        metavar="P",
        help=f"of {', '.join(LOWER)} (default: bf16); 8bit is LLM.int8, 4bit is NF4: both need "
        "bitsandbytes",
    )
    parser.add_argument(
        "--data", metavar="FILE", help="articles as JSON lines (default: the samples)"
    )
    parser.add_argument("--limit", type=int, default=100, help="articles (default: 100)")
    parser.add_argument("--prefix", help='before each article, such as "summarize: "')
    parser.add_argument("--json", metavar="FILE", help="write all numbers there too")
    add_device_argument(parser)
    others = {field.name for field in fields(DecodingConfig)} - set(SETTINGS)
    add_decoding_arguments(parser, without=tuple(others))
    return parser


def _run(options: argparse.Namespace) -> None:
    config = decoding_config(options)
    if options.limit < 1:
        raise SettingsError(f"--limit {options.limit}: give at least 1 article.")
    require_writable_report(None, options.json)
    chosen = sample_articles() if options.data is None else read_articles(options.data)
    chosen = list(islice(chosen, options.limit))
    if not chosen:
        raise DataError(f"{options.data} holds no articles: give a file of some with --data.")
    quiet()
    targets = {
        name: load_target(
            options.target, device=options.device, load_in=name, prefix=options.prefix
        )
        for name in (REFERENCE, *dict.fromkeys(options.precisions))
    }
    reference = targets.pop(REFERENCE)
    report = compare(reference, targets, chosen, config, say=say)
    print(table(report))
    if options.json:
        write_json(Path(options.json), report.to_json())


if __name__ == "__main__":
    sys.exit(main())
