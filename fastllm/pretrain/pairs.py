"""Makes training pairs: what an encoder-decoder reads, and what it is to write.

A small model learns to summarise only if what it has to write lies inside what it can see
(measured: the loss stays a whole nat higher where it does not). So both kinds of target text are
chosen from, or checked against, the visible part of the article: the part that survives the cut at
`source_length` tokens.
"""

import math
import re
from collections import Counter

from fastllm.data.articles import split_sentences

_WORD = re.compile(r"[^\W\d_]{3,}|\d+")
_STOP = frozenset(
    "the and for that with was were are has have had his her its their this from but not they she"
    " who which will would been said also about after when there more than into over out can could"
    " him them what one two all our you your because while where some other being before had did"
    " does just any only most such like then very".split()
)


def central_sentences(
    visible: str,
    count: int = 2,
    longest: int = 40,
    *,
    lead: bool = False,
    refused: re.Pattern[str] | None = None,
) -> str:
    """The `count` sentences of `visible` that share most words with the rest, in their own order.

    The idea is PEGASUS's gap sentences (Zhang et al. 2020, arXiv:1912.08777) without the masking:
    the model may copy them, and must choose. A last sentence that the cut left unfinished is never
    chosen.

    Args:
        visible: the part of the article that the model sees.
        count: how many sentences to choose at most.
        longest: sentences of more words are passed over; so are those of fewer than 8.
        lead: the first that qualifies is chosen in any case: news says first what matters most.
        refused: sentences in which this is found are passed over.

    Returns:
        The chosen sentences joined by a blank; empty where none qualifies.
    """
    sentences = split_sentences(visible)
    if sentences and not re.search(r"""[.!?]['"”’)]*$""", sentences[-1]):
        sentences.pop()
    words = [content_words(sentence) for sentence in sentences]
    counts = Counter(word for chosen in words for word in set(chosen))
    candidates = [
        index
        for index, sentence in enumerate(sentences)
        if 8 <= len(sentence.split()) <= longest
        and words[index]
        and not (refused and refused.search(sentence))
    ]
    chosen = candidates[:1] if lead else []
    candidates = candidates[len(chosen) :]
    covered: set[str] = {word for index in chosen for word in words[index]}
    while candidates and len(chosen) < count:
        gains = {
            index: sum(counts[word] - 1 for word in set(words[index]) - covered)
            / math.sqrt(len(words[index]))
            for index in candidates
        }
        best = max(candidates, key=gains.__getitem__)
        if chosen and gains[best] < 1.0:
            break
        candidates.remove(best)
        chosen.append(best)
        covered |= set(words[best])
    return " ".join(sentences[index] for index in sorted(chosen))


def supported_summary(summary: str, visible: str, support: float = 0.7) -> str:
    """The sentences of a reference summary that the visible part of the article supports.

    Args:
        summary: the reference summary, sentences on lines or after one another.
        visible: the part of the article that the model sees.
        support: the least share of a sentence's content words that must occur in `visible`.

    Returns:
        The supported sentences joined by a blank; empty where none is.
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
