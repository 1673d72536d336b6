"""Articles and their summaries, read from JSON lines with the field names of `cnn_dailymail`.

A line is an object with `id`, `article` and, where there is one, `highlights` (the summary).
`.jsonl`, `.jsonl.gz` and `.jsonl.xz` are read as streams: a file never has to fit in memory.
"""

import gzip
import json
import lzma
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastllm.errors import DataError


@dataclass(frozen=True)
class Article:
    """One news article; `summary` is empty where the source has none."""

    id: str
    text: str
    summary: str = ""
    source: str = ""


def read_articles(path: str | Path) -> Iterator[Article]:
    """Yields the articles of a JSON-lines file, in order.

    Args:
        path: a `.jsonl`, `.jsonl.gz` or `.jsonl.xz` file.

    Raises:
        DataError: the file is missing, or a line is not an article; names file and line number.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a .jsonl, .jsonl.gz or .jsonl.xz of articles.")
    with _open_text(path) as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parse(line, path, number)
        except (UnicodeDecodeError, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: not readable as compressed UTF-8 text ({error}).") from error


def read_text(path: str | Path) -> str:
    """The article in a plain text file; "-" reads standard input.

    Raises:
        DataError: the file is missing, empty or not UTF-8 text.
    """
    try:
        read = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
        text = read.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Give a text file.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}). Save the article as UTF-8.") from error
    if "\0" in text:
        raise DataError(f"{path}: binary data. Give the article as plain text.")
    if not text.strip():
        raise DataError(f"{path}: empty. Give a file with an article in it.")
    return text.strip()


def split_sentences(text: str) -> list[str]:
    """Splits English news text at sentence ends, leaving abbreviations such as "Mr." whole.

    Example:
        >>> split_sentences("Mr. Lee won. He smiled. The end.")
        ['Mr. Lee won.', 'He smiled.', 'The end.']
    """
    sentences: list[str] = []
    for line in text.splitlines():
        start = 0
        for match in _SENTENCE_END.finditer(line):
            if _ABBREVIATION.search(line[start : match.end(1)]):
                continue
            sentences.append(line[start : match.end(1)].strip())
            start = match.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]


_SENTENCE_END = re.compile(r"""([.!?]['"”’)]*)\s+(?=['"“‘(]*[A-Z0-9])""")
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Gov|Sen|Rep|Gen|Col|Lt|Sgt|Capt|Rev|Jr|Sr|vs|No|Inc|Corp|Co|Ltd"
    r"|Jan|Feb|Aug|Sept|Oct|Nov|Dec|[A-Z])\.$"
)


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _parse(line: str, path: Path, number: int) -> Article:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not JSON ({error}).") from error
    if not isinstance(row, dict) or not isinstance(row.get("article"), str):
        raise DataError(
            f'{path}, line {number}: needs an object with a text field "article" '
            '(and "highlights", "id" where known).'
        )
    summary = row.get("highlights") or ""
    if not isinstance(summary, str):
        raise DataError(f'{path}, line {number}: "highlights" must be text.')
    return Article(
        id=str(row.get("id", number)),
        text=row["article"],
        summary=summary,
        source=str(row.get("source", "")),
    )
