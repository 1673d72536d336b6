"""Articles to token pairs: what a drafter reads, and a summary for it to write.

A small model learns to summarise only if what it has to write lies inside what it can see
(measured: the loss stays a whole nat higher where it does not). So of a reference summary only
those sentences are kept that the visible part of the article supports: the part that survives the
cut at `source_length` tokens.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fastllm.data.articles import Article, split_sentences
from fastllm.data.tokens import start_set, write_pairs
from fastllm.errors import DataError
from fastllm.vocabulary import Vocabulary

_WORD = re.compile(r"[^\W\d_]{3,}|\d+")
_STOP = frozenset(
    "the and for that with was were are has have had his her its their this from but not they she"
    " who which will would been said also about after when there more than into over out can could"
    " him them what one two all our you your because while where some other being before had did"
    " does just any only most such like then very".split()
)

_SHORTEST_SOURCE, _SHORTEST_TEXT = 64, 20


def prepare_pairs(
    articles: Iterable[Article],
    vocabulary: Vocabulary,
    folder: str | Path,
    *,
    source_length: int,
    text_length: int,
    prefix: str = "",
    summaries: bool = True,
) -> int:
    """Tokenizes articles and their reference summaries, and writes them as token pairs.

    Articles too short to summarise are left out. So are those whose summary, as far as the article
    supports it, has fewer than 20 or more than `text_length` tokens. Lengths count the end token.
    Without `summaries` every article is taken with an empty text, for another to write about.

    Returns:
        How many pairs were written.

    Raises:
        DataError: no article gave a pair.
    """

    def pairs() -> Iterator[tuple[str, Sequence[int], Sequence[int]]]:
        for article in articles:
            encoded = vocabulary.encode(article.text, source_length, prefix)
            if len(encoded.ids) < _SHORTEST_SOURCE:
                continue
            text: Sequence[int] = ()
            if summaries:
                kept = supported_summary(article.summary, article.text[: encoded.cut_at])
                text = vocabulary.encode(kept, text_length + 1).ids
                if not _SHORTEST_TEXT <= len(text) <= text_length:
                    continue
            yield article.id, encoded.ids, text

    meta: dict[str, object] = {
        "kind": "summary" if summaries else "article",
        "source_length": source_length,
        "text_length": text_length,
        "prefix": prefix,
        "vocabulary": vocabulary.fingerprint,
    }
    count = write_pairs(folder, pairs(), meta)
    if not count:
        start_set(folder)  # so that nobody takes the empty set for a whole one
        raise DataError(
            "no article gave a pair: articles need a few sentences"
            + (' and "highlights" that they support.' if summaries else ".")
        )
    return count


def supported_summary(summary: str, visible: str, support: float = 0.7) -> str:
    """The sentences of a reference summary that the visible part of the article supports.

    `support` is the least share of a sentence's content words that must occur in `visible`.
    """
    seen = set(content_words(visible))
    kept = []
    for sentence in split_sentences(summary.replace(" .", ".")):
        words = content_words(sentence)
        if len(words) >= 3 and sum(word in seen for word in words) >= support * len(words):
            kept.append(sentence if sentence[-1] in ".!?'\"”" else sentence + ".")
    return " ".join(kept)


def content_words(text: str) -> list[str]:
    """The words of a text that say what it is about, in lower case; numbers among them."""
    return [word for word in _WORD.findall(text.lower()) if word not in _STOP]
