"""The sample articles, and the check of what visitors paste or open from a file."""

import base64
import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from fastllm import paths
from fastllm.data.articles import repaired, text_encoding
from fastllm.demo import texts
from fastllm.errors import DataError

SAMPLES = paths.ARTICLES

FEWEST_WORDS = 30

FILE_TYPES = (".txt", ".md")
"""What may be opened as an article: plain text alone. Nothing is ever unpacked."""

LIST_TYPES = (*FILE_TYPES, ".jsonl")
"""What may be opened as one article or several."""

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
    text = repaired(text)
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


def read_file(sent: str, most_bytes: int) -> str:
    """The text of a file that was opened in the browser, not yet checked.

    The browser reads the file and sends its bytes, so that it never lies on a disk here. Its name
    stays with the visitor.

    Args:
        sent: by `static/upload.js`: a JSON object with the file's "type", such as ".txt", and its
            "data" in base64.
        most_bytes: larger files are refused.

    Raises:
        DataError: it is of another type, too large, or neither UTF-8 nor UTF-16 with a mark.
    """
    return _decoded(sent, FILE_TYPES, most_bytes)[1]


def read_articles(
    sent: str, most_bytes: int, most_articles: int, most_characters: int
) -> list[Checked]:
    """The articles of a file that was opened in the browser, each checked.

    Args:
        sent: as for `read_file`; also of the type ".jsonl", a JSON object a line with the article
            under "article", as `fastllm.data.articles` reads it.
        most_bytes: larger files are refused.
        most_articles: more articles are refused.
        most_characters: longer articles are refused.

    Raises:
        DataError: the file is refused, or a line of it, which is named by its number.
    """
    kind, text = _decoded(sent, LIST_TYPES, most_bytes)
    if kind != ".jsonl":
        return [check(text, most_characters)]
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) > most_articles:
        raise DataError(texts.too_many_articles(len(lines), most_articles))
    found = []
    for number, line in lines:
        try:
            found.append(check(_article(line), most_characters))
        except DataError as error:
            raise DataError(texts.bad_line(number, str(error))) from error
    if not found:
        raise DataError(texts.NO_ARTICLES)
    return found


def check_all(
    given: list[str], most_bytes: int, most_articles: int, most_characters: int
) -> list[Checked]:
    """Several articles that a program sent, each checked.

    Args:
        given: the texts.
        most_bytes: of all of them together.
        most_articles: more are refused.
        most_characters: of each.

    Raises:
        DataError: they are refused, or one of them, which is named by its place, counted from 1.
    """
    if not isinstance(given, list):
        raise DataError(texts.no_list("articles", given))
    if not given:
        raise DataError(texts.NO_ARTICLES)
    if len(given) > most_articles:
        raise DataError(texts.too_many_articles(len(given), most_articles))
    found = []
    for number, text in enumerate(given, 1):
        try:
            found.append(check(text, most_characters))
        except DataError as error:
            raise DataError(texts.bad_article(number, str(error))) from error
    size = sum(len(article.text.encode("utf-8")) for article in found)
    if size > most_bytes:
        raise DataError(texts.too_much_text(size, most_bytes))
    return found


def _decoded(sent: str, types: tuple[str, ...], most_bytes: int) -> tuple[str, str]:
    """Type and text of a file."""
    if not sent:
        raise DataError(texts.NO_FILE)
    try:
        file = json.loads(sent)
        kind, data = str(file["type"]), str(file["data"])
        raw = base64.b64decode(data[: 4 * (most_bytes // 3 + 1)], validate=True)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(texts.BROKEN_FILE) from error
    if kind not in types:
        raise DataError(texts.wrong_type(types))
    if len(raw) > most_bytes:
        raise DataError(texts.large_file(most_bytes))
    try:
        return kind, raw.decode(text_encoding(raw))
    except UnicodeError as error:
        raise DataError(texts.NOT_UTF8) from error


def _article(line: str) -> str:
    """The text of an article on a line of JSON."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(texts.NOT_JSON) from error
    if not isinstance(row, dict):
        raise DataError(texts.NOT_JSON)
    if not isinstance(row.get("article"), str):
        raise DataError(texts.NO_ARTICLE)
    return str(row["article"])


def _is_strange(letter: str) -> bool:
    """Control characters, halves of surrogate pairs, private and undecodable ones."""
    if letter in "\n\r\t\f\v":
        return False
    return letter == "\ufffd" or unicodedata.category(letter) in {"Cc", "Cs", "Co", "Cn"}


def _looks_english(text: str, words: list[str]) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    plain = sum(letter.isascii() for letter in letters)
    bare = [word.strip(".,;:!?\"'()[]").lower() for word in words]
    common = sum(word in _COMMON for word in bare)
    return bool(letters) and plain >= 0.9 * len(letters) and common >= 0.1 * len(bare)
