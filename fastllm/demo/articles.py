"""The sample articles, and the check of what visitors paste."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from fastllm.demo import texts
from fastllm.errors import DataError

SAMPLES = Path(__file__).resolve().parents[2] / "assets" / "articles"

FEWEST_WORDS = 30

_COMMON = frozenset(
    "the of and to in a is that for it was on with as by at from be are this have not his her "
    "they he she said has had were which an or its will but who their been would".split()
)
"""Words that make up a third of English prose, and next to nothing of other languages."""


@dataclass(frozen=True)
class Checked:
    """An article fit to race: its text, and what the visitor should know about it."""

    text: str
    notices: tuple[str, ...] = ()


def samples(folder: Path = SAMPLES) -> dict[str, str]:
    """The sample articles by title, in alphabetical order."""
    return {
        texts.sample_title(path.stem): path.read_text(encoding="utf-8").strip()
        for path in sorted(folder.glob("*.txt"))
    }


def check(text: str, most_characters: int) -> Checked:
    """Cleans an article, or refuses it.

    Raises:
        DataError: it is empty, too short, too long, or no text at all.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataError(texts.EMPTY)
    if len(text) > most_characters:
        raise DataError(texts.too_long(len(text), most_characters))
    strange = sum(map(_is_strange, text))
    if "\0" in text or strange > max(3, len(text) // 100):
        raise DataError(texts.BINARY)
    notices = []
    if strange:
        text = "".join(letter for letter in text if not _is_strange(letter))
        notices.append(texts.cleaned(strange))
    text = text.replace("\r\n", "\n").strip()
    words = text.split()
    if not _looks_english(text, words):
        notices.append(texts.NOT_ENGLISH)
        if len(words) < FEWEST_WORDS <= len(text) // 4 and not text.isascii():
            return Checked(text, tuple(notices))  # a script that puts no blanks between words
    if len(words) < FEWEST_WORDS:
        raise DataError(texts.too_short(len(words), FEWEST_WORDS))
    return Checked(text, tuple(notices))


def _is_strange(letter: str) -> bool:
    """Control characters, halves of surrogate pairs, private and undecodable ones."""
    if letter in "\n\r\t\f\v\u200d":
        return False
    return letter == "\ufffd" or unicodedata.category(letter) in {"Cc", "Cs", "Co", "Cn"}


def _looks_english(text: str, words: list[str]) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    plain = sum(letter.isascii() for letter in letters)
    bare = [word.strip(".,;:!?\"'()[]").lower() for word in words]
    common = sum(word in _COMMON for word in bare)
    return bool(letters) and plain >= 0.9 * len(letters) and common >= 0.1 * len(bare)
