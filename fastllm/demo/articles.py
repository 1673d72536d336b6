"""The sample articles, and the check of what visitors paste."""

import codecs
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from fastllm.demo import texts
from fastllm.errors import DataError

SAMPLES = Path(__file__).resolve().parents[2] / "assets" / "articles"

FEWEST_WORDS = 30

FILE_TYPES = (".txt", ".md")
"""What may be uploaded: plain text alone. Nothing is ever unpacked."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The first bytes of a file -> its encoding."""

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


def read_file(path: str | Path, most_bytes: int) -> str:
    """The text of an uploaded file, not yet checked.

    Its name is not in any message: it is the visitor's, and may be anything.

    Raises:
        DataError: it is of another type, too large, or neither UTF-8 nor UTF-16 with a mark.
    """
    path = Path(path)
    if path.suffix.lower() not in FILE_TYPES:
        raise DataError(
            f"This page reads plain text files ({', '.join(FILE_TYPES)}). Paste the words instead."
        )
    try:
        with path.open("rb") as file:
            raw = file.read(most_bytes + 1)
    except OSError as error:
        raise DataError("The file did not arrive. Try again, or paste the words.") from error
    if len(raw) > most_bytes:
        raise DataError(
            f"The file is larger than {most_bytes:,} bytes, the most that this page takes. "
            "Shorten it."
        )
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            "The file is not UTF-8 text. Save it as UTF-8, or paste the words."
        ) from error


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
