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
from dataclasses import fields
from itertools import islice
from typing import NamedTuple

import torch

from fastllm.checkpoints import load_target
from fastllm.cli.options import add_decoding_arguments, add_device_argument, decoding_config
from fastllm.cli.output import quiet, say
from fastllm.data.articles import Article, read_articles, sample_articles
from fastllm.decoding import autoregress
from fastllm.decoding.distributions import forbid
from fastllm.decoding.race import hardware
from fastllm.decoding.rules import Rules
from fastllm.errors import DataError, SettingsError, VocabularyError
from fastllm.evaluation.tables import grid
from fastllm.targets import Target, TargetSession, resolve
from fastllm.targets.hub import PRECISIONS
from fastllm.trace import DecodingConfig
from tools.common import tool

REFERENCE = "fp32"
"""What the others are compared with."""

SETTINGS = ("max_new_tokens", "no_repeat_ngram", "min_new_tokens")
"""The settings of DecodingConfig that matter to the target alone, greedy."""

LOWER = tuple(name for name in PRECISIONS if name != REFERENCE)


class Divergence(NamedTuple):
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


class ArticleComparison(NamedTuple):
    """One article in two precisions.

    Attributes:
        id: of the article.
        tokens: how many float32 writes, the end token included.
        largest_difference: between two logits of the same token after the same text, over all
            places up to the one where the texts part.
        divergence: where they part; None where they are the same.
    """

    id: str
    tokens: int
    largest_difference: float
    divergence: Divergence | None


Rows = dict[str, list[ArticleComparison]]
"""Precision -> one entry an article, the same articles in the same order."""


def compare(
    reference: Target,
    others: Mapping[str, Target],
    articles: Sequence[Article],
    config: DecodingConfig,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> Rows:
    """Decodes every article greedily in float32 and in each of `others`, by the usual loop.

    Raises:
        DataError: there are no articles.
        VocabularyError: one of the others is another model.
    """
    if not articles:
        raise DataError("no articles to compare on: give at least one.")
    for name, other in others.items():
        if other.vocabulary.fingerprint != reference.vocabulary.fingerprint:
            raise VocabularyError(
                f"{name} has vocabulary {other.vocabulary.fingerprint}, the target in {REFERENCE} "
                f"{reference.vocabulary.fingerprint}: give one model in several precisions."
            )
    greedy = resolve(config, reference).greedy()
    rows: Rows = {name: [] for name in others}
    for index, article in enumerate(articles):
        ids = reference.vocabulary.encode(
            article.text, reference.source_length, reference.prefix
        ).ids
        exact = _write(reference, ids, greedy)
        for name, other in others.items():
            rounded = _write(other, ids, greedy)
            rows[name].append(_compared(article.id, reference, greedy, exact, rounded))
        if (index + 1) % 5 == 0 or index + 1 == len(articles):
            say(f"{index + 1}/{len(articles)} articles")
    return rows


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
    divergence = None
    if parted is not None:
        banned = Rules(reference.end_ids).along([reference.start_id], tokens[:parted], config)
        ruled = [forbid(logits[parted][None], banned[-1:])[0] for logits in (exact[1], rounded[1])]
        own, its = (float(best[0] - best[1]) for best in (row.topk(2).values for row in ruled))
        rank = 1 + int((ruled[0] > ruled[0][found[parted]]).sum())
        divergence = Divergence(parted, tokens[parted], found[parted], own, its, rank)
    return ArticleComparison(article, len(tokens), difference, divergence)


def table(target: Target, others: Mapping[str, Target], rows: Rows) -> str:
    """The report in Markdown: a line for each precision, then each place where texts part."""
    whole, each = [], []
    for name, found in rows.items():
        apart = [row.divergence for row in found if row.divergence is not None]
        whole.append(
            [
                name,
                others[name].engine,
                f"{len(found) - len(apart)} of {len(found)}",
                _spread([entry.position for entry in apart], ".0f"),
                _spread([entry.reference_margin for entry in apart], ".3g"),
                _spread([entry.margin for entry in apart], ".3g"),
                f"{max(row.largest_difference for row in found):.3g}",
            ]
        )
        each += [
            [
                row.id,
                name,
                f"{row.divergence.position} of {row.tokens}",
                f"{row.divergence.reference_margin:.3g}",
                f"{row.divergence.margin:.3g}",
                str(row.divergence.rank),
            ]
            for row in found
            if row.divergence is not None
        ]
    margins = ("margin in fp32", "margin in it")
    head = ["precision", "engine", "same text", "first difference after token", *margins]
    parts = [
        f"## {target.name}: other precisions beside {REFERENCE}, greedy",
        f"{len(next(iter(rows.values())))} articles, {hardware(target.device)}. A margin is the "
        "best logit minus the second best, at the first place where the texts differ.",
        grid([*head, "largest logit difference"], whole),
        "Median [least, most] over the articles whose texts differ.",
    ]
    if each:
        head = ["article", "precision", "differs after token", *margins]
        parts.append(grid([*head, "its token's rank in fp32"], each))
    return "\n\n".join(parts)


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} [{least:{form}}, {most:{form}}]"


@tool("precision")
def main(arguments: Sequence[str] | None = None) -> int:
    """Compares what the arguments name."""
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
    add_device_argument(parser)
    others = {field.name for field in fields(DecodingConfig)} - set(SETTINGS)
    add_decoding_arguments(parser, without=tuple(others))
    options = parser.parse_args(arguments)
    config = decoding_config(options)
    if options.limit < 1:
        raise SettingsError(f"--limit {options.limit}: give at least 1 article.")
    chosen = sample_articles() if options.data is None else read_articles(options.data)
    chosen = list(islice(chosen, options.limit))
    quiet()
    reference, *lower = (
        load_target(options.target, device=options.device, load_in=name, prefix=options.prefix)
        for name in (REFERENCE, *dict.fromkeys(options.precisions))
    )
    targets = dict(zip(dict.fromkeys(options.precisions), lower, strict=True))
    print(table(reference, targets, compare(reference, targets, chosen, config, say=say)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
