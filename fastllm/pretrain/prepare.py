"""Articles to token pairs: what each stage of the training reads and is to write."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from fastllm.data.articles import Article, split_sentences
from fastllm.data.tokens import write_pairs
from fastllm.errors import DataError, SettingsError
from fastllm.pretrain.headline_style import QUOTES, brief
from fastllm.pretrain.pairs import central_sentences, supported_summary
from fastllm.vocabulary import Vocabulary

KINDS = ("central", "summary", "extractive", "brief-lead", "brief-extractive")
"""Central sentences; the supported part of the reference summary; the latter where it copies.

In the style of a news ticker, from sentences that quote nobody: the first sentence and the most
central of the others; and the extractive summary.
"""

BARE = "article"
"""No text at all: articles for another to write about."""

UNSUPERVISED = ("central", "brief-lead")
"""The kinds that need no reference summary."""

COPIED = 0.82
"""An "extractive" summary takes at least this share of its token pairs from the article."""

_SHORTEST_SOURCE, _SHORTEST_TEXT = 64, 20


def prepare_pairs(
    articles: Iterable[Article],
    vocabulary: Vocabulary,
    folder: str | Path,
    *,
    kind: str,
    source_length: int,
    text_length: int,
    prefix: str = "",
) -> int:
    """Tokenizes articles and their texts of a kind, and writes them as token pairs.

    Articles too short to summarise, and those for which the kind finds no text of at most
    `text_length` tokens, are left out.

    Args:
        articles: read once, in order.
        vocabulary: the target's.
        folder: where the pairs are written.
        kind: one of KINDS, or BARE.
        source_length: the most source tokens, the end token included.
        text_length: the most tokens of a text, likewise.
        prefix: put before every article.

    Returns:
        How many pairs were written.

    Raises:
        SettingsError: there is no such kind.
        DataError: no article gave a pair.
    """
    if kind not in (*KINDS, BARE):
        raise SettingsError(f"kind={kind!r}: give one of {', '.join(KINDS)}.")

    shorten = kind.startswith("brief-")

    def pairs() -> Iterator[tuple[str, Sequence[int], Sequence[int]]]:
        stream = iter(articles)
        while block := list(islice(stream, 500)):
            for article in block:
                encoded = vocabulary.encode(article.text, source_length, prefix)
                if len(encoded.ids) < _SHORTEST_SOURCE:
                    continue
                if kind == BARE:
                    yield article.id, encoded.ids, ()
                    continue
                visible = article.text[: encoded.cut_at]
                if kind == "central":
                    text = central_sentences(visible)
                elif kind == "brief-lead":
                    text = central_sentences(visible, lead=True, refused=QUOTES)
                else:
                    text = supported_summary(article.summary, visible)
                target = vocabulary.encode(text, text_length + 1).ids
                if not _SHORTEST_TEXT <= len(target) <= text_length:
                    continue
                if kind.endswith("extractive") and copied_pairs(encoded.ids, target) < COPIED:
                    continue
                if shorten:
                    if QUOTES.search(text):
                        continue
                    text = " ".join(map(brief, split_sentences(text)))
                    target = vocabulary.encode(text, text_length + 1).ids
                yield article.id, encoded.ids, target

    meta: dict[str, object] = {
        "kind": kind,
        "source_length": source_length,
        "text_length": text_length,
        "prefix": prefix,
        "vocabulary": vocabulary.fingerprint,
    }
    count = write_pairs(folder, pairs(), meta)
    if not count:
        raise DataError(
            f"no article gave a {kind} pair: articles need a few sentences"
            + ("." if kind in (*UNSUPERVISED, BARE) else ' and "highlights" that they support.')
        )
    return count


def copied_pairs(source: Sequence[int], text: Sequence[int]) -> float:
    """The share of neighbouring tokens of `text`, its end token aside, that stand in `source`."""
    seen = set(zip(source, source[1:], strict=False))
    own = list(zip(text[:-1], text[1:-1], strict=False))
    return sum(pair in seen for pair in own) / max(1, len(own))
