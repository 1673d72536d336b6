"""The sample articles, and the check of what visitors paste or open from a file."""

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from fastllm import paths
from fastllm.data.articles import repaired
from fastllm.demo import words
from fastllm.demo.limits import Limits
from fastllm.errors import DataError

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


def samples() -> dict[str, str]:
    """The sample articles by title, in alphabetical order: "Autumn storm" is autumn-storm.txt."""
    return {
        path.stem.replace("-", " ").capitalize(): path.read_text(encoding="utf-8").strip()
        for path in sorted(paths.ARTICLES.glob("*.txt"))
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


def read_file(sent: str, types: tuple[str, ...], limits: Limits) -> tuple[str, str]:
    """The type and the text of a file that was opened in the browser, not yet checked.

    The browser reads and decodes the file, so that it never lies on a disk here. Its name stays
    with the visitor. `sent`, by `static/upload.js`, is a JSON object with the file's "type", such
    as ".txt", and its "text".

    Raises:
        DataError: there is no file, it has none of the types, or it is too large.
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
    if size > limits.upload_bytes:
        raise DataError(words.UPLOAD_BROWSER["large"].format(f"{limits.upload_bytes:,}"))
    return kind, text


def read_articles(sent: str, limits: Limits) -> list[Checked]:
    """The articles of a file that was opened in the browser, each checked.

    As for `read_file`; a .jsonl holds a JSON object per line with the article under "article".

    Raises:
        DataError: the file is refused, or a line of it, which is named by its number.
    """
    kind, text = read_file(sent, LIST_TYPES, limits)
    if kind != ".jsonl":
        return [check(text, limits.article_characters)]
    lines = enumerate(text.split("\n"), 1)
    named = {f"Line {number} of the file": line for number, line in lines if line.strip()}
    return _each(named, limits, _article)


def check_all(given: list[str], limits: Limits) -> list[Checked]:
    """Several articles that a program sent, each checked.

    Raises:
        DataError: they are refused, or one of them, which is named by its place, counted from 1.
    """
    if not isinstance(given, list):
        raise DataError(words.no_list("articles", given))
    found = _each({f"Article {number}": text for number, text in enumerate(given, 1)}, limits)
    size = sum(len(article.text.encode("utf-8")) for article in found)
    if size > limits.upload_bytes:
        raise DataError(
            f"The articles have {size:,} bytes together; this page takes {limits.upload_bytes:,}. "
            "Shorten them."
        )
    return found


def _each(
    named: dict[str, str], limits: Limits, read: Callable[[str], str] = lambda text: text
) -> list[Checked]:
    """Reads and checks every article, at least one; what is refused is named."""
    if not named:
        raise DataError("There is no article to compare on. Give at least one.")
    if len(named) > limits.compare_articles:
        raise DataError(
            f"There are {len(named):,} articles; this page compares on up to "
            f"{limits.compare_articles}. Leave some out."
        )
    found = []
    for name, entry in named.items():
        try:
            found.append(check(read(entry), limits.article_characters))
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    return found


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
