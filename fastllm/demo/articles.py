"""The sample articles, and the check of what visitors paste or open from a file."""

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from fastllm import paths
from fastllm.data.articles import repaired
from fastllm.demo import words
from fastllm.errors import DataError

SAMPLES = paths.ARTICLES

FEWEST_WORDS = 30

FILE_TYPES = (".txt", ".md")
"""Files that may be opened as an article: plain text alone. Nothing is ever unpacked."""

LIST_TYPES = (*FILE_TYPES, ".jsonl")
"""Files that may be opened as one article or several."""

NOT_ENGLISH = (
    "This does not look like English. The models have read English news only, so expect nonsense."
)

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
        words.sample_title(path.stem): path.read_text(encoding="utf-8").strip()
        for path in sorted(folder.glob("*.txt"))
    }


def check(text: str, most_characters: int) -> Checked:
    """Cleans an article, or refuses it.

    Raises:
        DataError: it is empty, too short, too long, or no text at all.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataError("There is no article. Pick a sample, or paste one.")
    if len(text) > most_characters:
        raise DataError(
            f"The article has {len(text):,} characters; this page takes {most_characters:,}. "
            "Shorten it."
        )
    text = repaired(text)
    strange = sum(map(_is_strange, text))
    if "\0" in text or strange > max(3, len(text) // 100):
        raise DataError(
            "This does not look like text: it holds characters that no article has. Paste the "
            "words themselves, not a file."
        )
    notices = []
    if strange:
        text = "".join(letter for letter in text if not _is_strange(letter))
        were = "s were" if strange > 1 else " was"
        notices.append(f"{strange} invisible control character{were} left out.")
    text = text.replace("\r\n", "\n").strip()
    split = text.split()
    if not _looks_english(text, split):
        notices.append(NOT_ENGLISH)
        if len(split) < FEWEST_WORDS <= len(text) // 4 and not text.isascii():
            return Checked(text, tuple(notices))  # a script without spaces between words
    if len(split) < FEWEST_WORDS:
        counted = "1 word" if len(split) == 1 else f"{len(split)} words"
        raise DataError(
            f"The article has {counted}. Paste at least {FEWEST_WORDS}: there is nothing to "
            "shorten."
        )
    return Checked(text, tuple(notices))


def read_file(sent: str, types: tuple[str, ...], most_bytes: int) -> tuple[str, str]:
    """The type and the text of a file that was opened in the browser, not yet checked.

    The browser reads and decodes the file, so that it never lies on a disk here. Its name stays
    with the visitor.

    Args:
        sent: by `static/upload.js`: a JSON object with the file's "type", such as ".txt", and its
            "text".
        types: those that are taken.
        most_bytes: of the text in UTF-8; larger files are refused.

    Raises:
        DataError: there is no file, or it has another type or is too large.
    """
    if not sent:
        raise DataError("There is no file yet. Open one, or take the samples.")
    try:
        file = json.loads(sent)
        kind, text = file["type"], file["text"]
        size = len(text.encode("utf-8"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError("The file did not arrive. Try again, or paste the words.") from error
    if kind not in types:
        raise DataError(
            f"This page reads plain text files ({', '.join(types)}). Paste the words instead."
        )
    if size > most_bytes:
        raise DataError(words.UPLOAD_BROWSER["large"].format(f"{most_bytes:,}"))
    return kind, text


def read_articles(
    sent: str, most_bytes: int, most_articles: int, most_characters: int
) -> list[Checked]:
    """The articles of a file that was opened in the browser, each checked.

    Args:
        sent: as for `read_file`; also of the type ".jsonl", a JSON object per line with the article
            under "article", as `fastllm.data.articles` reads it.
        most_bytes: larger files are refused.
        most_articles: more articles are refused.
        most_characters: longer articles are refused.

    Raises:
        DataError: the file is refused, or a line of it, which is named by its number.
    """
    kind, text = read_file(sent, LIST_TYPES, most_bytes)
    if kind != ".jsonl":
        return [check(text, most_characters)]
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    _require_count(len(lines), most_articles)
    found = []
    for number, line in lines:
        try:
            found.append(check(_article(line), most_characters))
        except DataError as error:
            raise DataError(f"Line {number} of the file: {error}") from error
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
        raise DataError(words.no_list("articles", given))
    _require_count(len(given), most_articles)
    found = []
    for number, text in enumerate(given, 1):
        try:
            found.append(check(text, most_characters))
        except DataError as error:
            raise DataError(f"Article {number}: {error}") from error
    size = sum(len(article.text.encode("utf-8")) for article in found)
    if size > most_bytes:
        raise DataError(
            f"The articles have {size:,} bytes together; this page takes {most_bytes:,}. Shorten "
            "them."
        )
    return found


def _require_count(count: int, most: int) -> None:
    if not count:
        raise DataError("There is no article to compare on. Give at least one.")
    if count > most:
        raise DataError(
            f"There are {count:,} articles; this page compares on up to {most}. Leave some out."
        )


def _article(line: str) -> str:
    """The text of an article on a line of JSON."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(
            "this is not a JSON object. Each line needs one, such as "
            '{"article": "The council voted ..."}.'
        )
    if not isinstance(row.get("article"), str):
        raise DataError('there is no text under "article".')
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
