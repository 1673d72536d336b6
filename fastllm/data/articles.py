"""Articles and their summaries, from JSON lines or from `cnn_dailymail` by name.

A line is an object with `id`, `article` and, where there is one, `highlights` (the summary): the
field names of `cnn_dailymail`. `.jsonl`, `.jsonl.gz` and `.jsonl.xz` are read as streams: a file
never has to fit in memory. The data set itself is read through the library `datasets`, which is
asked for only then: by its name on the Hub, or from a folder of Parquet files or of what
`save_to_disk` wrote.
"""

import gzip
import json
import lzma
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from fastllm import paths
from fastllm.errors import DataError


@dataclass(frozen=True)
class Article:
    """One news article; `summary` is empty where the source has none."""

    id: str
    text: str
    summary: str = ""
    source: str = ""


ON_THE_HUB = {
    "cnn_dailymail": ("abisee/cnn_dailymail", "3.0.0"),
    "abisee/cnn_dailymail": ("abisee/cnn_dailymail", "3.0.0"),
}
"""Data sets that are known by name: the repository on the Hub, and which version of it."""

_ENDINGS = (".jsonl.xz", ".jsonl.gz", ".jsonl")


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
    number = 0
    try:
        with _open_text(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parse(line, path, number)
    except (UnicodeDecodeError, EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}, behind line {number}: not readable as compressed UTF-8 text ({error}). Is "
            "the file whole?"
        ) from error
    except OSError as error:
        raise DataError(f"{path}, behind line {number}: {error.strerror or error}.") from error


def read_split(data: str | Path, split: str) -> Iterator[Article]:
    """Yields the articles of a split of a data set.

    Args:
        data: a folder with `SPLIT.jsonl.xz` (or `.jsonl.gz`, `.jsonl`); a folder of Parquet files
            whose names begin with the split, or of what `save_to_disk` wrote; or a name of
            ON_THE_HUB, which is streamed.
        split: "train", "validation" or "test".

    Raises:
        DataError: there is no such data, a row of it is not an article, or `datasets` is missing.
    """
    if str(data) in ON_THE_HUB:
        return _from_datasets(str(data), split)
    folder = Path(data)
    if not any((folder / f"{split}{ending}").is_file() for ending in _ENDINGS):
        for kind, pattern in (("parquet", f"{split}*.parquet"), ("arrow", f"{split}/*.arrow")):
            if files := sorted(map(str, folder.rglob(pattern))):
                return _from_datasets(folder, split, kind, files)
    return read_articles(find_split(data, split))


def find_split(data: str | Path, split: str) -> Path:
    """The JSON-lines file of a split in a data folder.

    Raises:
        DataError: there is none.
    """
    for ending in _ENDINGS:
        path = Path(data) / f"{split}{ending}"
        if path.is_file():
            return path
    raise DataError(
        f"{data} has no {split}.jsonl.xz, .jsonl.gz or .jsonl, and no Parquet files of that split. "
        f"Give such a folder, or a name: {', '.join(ON_THE_HUB)}."
    )


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


def sample_articles() -> list[Article]:
    """The articles that come with a clone, in the order of their files' names.

    Raises:
        DataError: there are none.
    """
    found = [Article(path.stem, read_text(path)) for path in sorted(paths.ARTICLES.glob("*.txt"))]
    if not found:
        raise DataError(
            f"{paths.ARTICLES} holds no sample articles: they come with the repository, not with "
            "the package. Run this from a clone."
        )
    return found


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


def _from_datasets(
    data: str | Path, split: str, kind: str = "", files: Sequence[str] = ()
) -> Iterator[Article]:
    """Streams a data set of ON_THE_HUB, or files of a kind that `datasets` reads."""
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"{data} is read through the library datasets, which is not installed: "
            "python -m pip install datasets"
        ) from error
    try:
        if files:
            rows = datasets.load_dataset(
                kind, data_files={split: list(files)}, split=split, streaming=True
            )
        else:
            repository, version = ON_THE_HUB[str(data)]
            rows = datasets.load_dataset(repository, version, split=split, streaming=True)
        for number, row in enumerate(rows, start=1):
            yield _article(row, f"{data}, {split} split, row {number}", number)
    except DataError:
        raise
    except Exception as error:  # datasets, pyarrow and the network raise dozens of kinds
        raise DataError(
            f"{data}: its {split} split cannot be read ({type(error).__name__}: {error})."
        ) from error


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8-sig")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _parse(line: str, path: Path, number: int) -> Article:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error}).") from error
    return _article(row, where, number)


def _article(row: Any, where: str, number: int) -> Article:
    if not isinstance(row, dict) or not isinstance(row.get("article"), str):
        raise DataError(
            f'{where}: needs an object with a text field "article" '
            '(and "highlights", "id" where known).'
        )
    summary = row.get("highlights") or ""
    if not isinstance(summary, str):
        raise DataError(f'{where}: "highlights" must be text.')
    if _HALF_CHARACTER.search(row["article"] + summary):
        raise DataError(f"{where}: half of a surrogate pair (\\ud800 to \\udfff) is no character.")
    return Article(
        id=str(row.get("id", number)),
        text=row["article"],
        summary=summary,
        source=str(row.get("source", "")),
    )


_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
