"""Articles and their summaries, from JSON lines or from `cnn_dailymail` by name.

A line is an object with `id`, `article` and, where there is one, `highlights` (the summary): the
field names of `cnn_dailymail`. Files are read as streams, and never have to fit in memory: plain or
compressed by gzip, xz or bzip2, which the first bytes tell and not the name. The data set itself is
read through the library `datasets`, which is asked for only then: by its name on the Hub, or from a
folder of Parquet files or of what `save_to_disk` wrote.
"""

import bz2
import codecs
import glob
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from fastllm import paths
from fastllm.errors import DataError
from fastllm.words import first_line


@dataclass(frozen=True)
class Article:
    """One news article; `summary` is empty where the source has none."""

    id: str
    text: str
    summary: str = ""
    source: str = ""


ON_THE_HUB = dict.fromkeys(
    ("cnn_dailymail", "abisee/cnn_dailymail"), ("abisee/cnn_dailymail", "3.0.0")
)
"""Data sets that are known by name: the repository on the Hub, and which version of it."""

_ENDINGS = (".jsonl.xz", ".jsonl.gz", ".jsonl")


def read_articles(path: str | Path) -> Iterator[Article]:
    """Yields the articles of a file of JSON lines: UTF-8, or UTF-16 with its mark.

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
    except UnicodeError as error:
        why = f"not readable as UTF-8 text ({first_line(error)}). Save it as UTF-8"
        raise DataError(f"{path}, after line {number}: {why}.") from error
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        why = f"not readable, its compression is damaged ({error}). Is the file whole?"
        raise DataError(f"{path}, after line {number}: {why}") from error
    except OSError as error:
        raise DataError(f"{path}, after line {number}: {error.strerror or error}.") from error


def read_split(data: str | Path, split: str) -> Iterator[Article]:
    """Yields the articles of a split ("train", "validation" or "test") of a data set.

    Args:
        data: a folder with `SPLIT.jsonl.xz` (or `.jsonl.gz`, `.jsonl`); a folder of Parquet files
            whose names begin with the split, or of what `save_to_disk` wrote; or a name of
            ON_THE_HUB, which is streamed.
        split: which.

    Raises:
        DataError: there is no such data, a row of it is not an article, or `datasets` is missing.
    """
    if not re.fullmatch(r"\w[\w.-]*", split):
        raise DataError(f"split {split!r}: give its name, such as train, validation or test.")
    if str(data) in ON_THE_HUB:
        return _from_datasets(str(data), split)
    folder = Path(data)
    if not any((folder / f"{split}{ending}").is_file() for ending in _ENDINGS):
        for kind, pattern in (("parquet", f"{split}*.parquet"), ("arrow", f"{split}/*.arrow")):
            if files := sorted(map(str, folder.rglob(pattern))):
                return _from_datasets(folder, split, kind, files)
    return read_articles(find_split(data, split))


def find_split(data: str | Path, split: str) -> Path:
    """The JSON-lines file of a split in a data folder; DataError where there is none."""
    for ending in _ENDINGS:
        if (path := Path(data) / f"{split}{ending}").is_file():
            return path
    raise DataError(
        f"{data} has no {split}.jsonl.xz, .jsonl.gz or .jsonl, and no Parquet files of that split. "
        f"Give such a folder, or a name: {', '.join(ON_THE_HUB)}."
    )


def read_text(path: str | Path) -> str:
    """The article in a plain text file; "-" reads standard input.

    Raises:
        DataError: the file is missing, empty or not UTF-8 text (or UTF-16 with its mark).
    """
    try:
        read = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
        text = repaired(read.decode(text_encoding(read)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Give a text file.") from error
    except UnicodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text ({first_line(error)}). Save the article as UTF-8."
        ) from error
    if "\0" in text:
        raise DataError(f"{path}: binary data. Give the article as plain text.")
    if not text.strip():
        raise DataError(f"{path}: empty. Give a file with an article in it.")
    return text.strip()


def repaired(text: str) -> str:
    r"""A text with the characters that programs of old wrote in their own way.

    Windows-1252 that was read as Latin-1 has quotes and dashes among the control characters of C1;
    lists that were copied from a PDF or from Word have bullets in the private use area, where the
    fonts Symbol and Wingdings lie. All else stays as it is, joiners inside words too.

    Example:
        >>> repaired("\x93Rain\x94 \uf0b7 sun")
        '“Rain” • sun'
    """
    return text.translate(_REPAIRS)


def sample_articles() -> list[Article]:
    """The articles that come with a clone, in the order of their files' names."""
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
            # Only the last letters are looked at: the whole sentence each time is quadratic.
            end = match.end(1)
            if _ABBREVIATION.search(line, max(start, end - _ABBREVIATION_LETTERS), end):
                continue
            sentences.append(line[start : match.end(1)].strip())
            start = match.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]


_WINDOWS_1252 = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}
"""C1 control characters -> what stands at their place in Windows-1252, where anything does."""

_REPAIRS = {
    **{code: letter for code, letter in _WINDOWS_1252.items() if letter},
    **dict.fromkeys(range(0xF020, 0xF100), "\N{BULLET}"),
    0xF020: " ",
}

_SENTENCE_END = re.compile(r"""([.!?]['"”’)]*)\s+(?=['"“‘(]*[A-Z0-9])""")
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Gov|Sen|Rep|Gen|Col|Lt|Sgt|Capt|Rev|Jr|Sr|vs|No|Inc|Corp|Co|Ltd"
    r"|Jan|Feb|Aug|Sept|Oct|Nov|Dec|[A-Z])\.$"
)
_ABBREVIATION_LETTERS = 6
"""More than the longest abbreviation, with its point, has."""


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
            named = {split: [glob.escape(file) for file in files]}  # no patterns
            rows = datasets.load_dataset(kind, data_files=named, split=split, streaming=True)
        else:
            repository, version = ON_THE_HUB[str(data)]
            rows = datasets.load_dataset(repository, version, split=split, streaming=True)
        for number, row in enumerate(rows, start=1):
            yield _article(row, f"{data}, {split} split, row {number}", number)
    except DataError:
        raise
    except Exception as error:  # datasets, pyarrow and the network raise dozens of kinds
        raise DataError(
            f"{data}: its {split} split cannot be read ({type(error).__name__}: "
            f"{first_line(error)})."
        ) from error


def text_encoding(head: bytes) -> str:
    """The encoding of a text: what its mark says (two bytes or three), else UTF-8."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\0": lzma.open,
    b"BZh": bz2.open,
}
"""The first bytes of a compressed file -> what opens it."""

_OTHER = {
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "Decompress it: zstd -d FILE."),
    b"PK\x03\x04": ("a zip archive", "Unpack it."),
    b"PAR1": ("a Parquet file", "Give the folder it lies in, named after its split, as --data."),
    b"ARROW1": ("an Arrow file", "Give the folder that save_to_disk wrote as --data."),
    b"\x89HDF": ("an HDF5 file", "Write its articles as JSON lines."),
    b"{\0": ("UTF-16 without its mark", "Save it as UTF-8."),
    b"\0{": ("UTF-16 without its mark", "Save it as UTF-8."),
    b"%PDF": ("a PDF", "Save its text as a line of JSON."),
}
"""The first bytes of what holds no lines of JSON -> what it is, and what to do."""


def _open_text(path: Path) -> IO[str]:
    """Opens JSON lines by what the first bytes say."""
    with path.open("rb") as file:
        head = file.read(8)
    unpack = next((opener for mark, opener in _COMPRESSED.items() if head.startswith(mark)), open)
    if unpack is not open:
        with unpack(path, "rb") as file:
            head = file.read(8)
    for mark, (what, advice) in _OTHER.items():
        if head.startswith(mark):
            raise DataError(f"{path} is {what}, and JSON lines are needed. {advice}")
    return io.TextIOWrapper(unpack(path, "rb"), encoding=text_encoding(head))


def _parse(line: str, path: Path, number: int) -> Article:
    where = f"{path}, line {number}"
    if "\0" in line:
        raise DataError(f"{where}: binary data. Give JSON lines in UTF-8.")
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise DataError(f"{where}: its lists or objects are nested too deeply.") from error
    except ValueError as error:  # a number of thousands of digits too
        raise DataError(f"{where}: not JSON ({first_line(error)}).") from error
    return _article(row, where, number)


def _article(row: Any, where: str, number: int) -> Article:
    if not isinstance(row, dict) or not isinstance(row.get("article"), str):
        raise DataError(
            f'{where}: needs an object with a text field "article" '
            '(and "highlights", "id" where known).'
        )
    text, summary = repaired(row["article"]), row.get("highlights") or ""
    if not isinstance(summary, str):
        raise DataError(f'{where}: "highlights" must be text.')
    if _HALF_CHARACTER.search(text + summary):
        raise DataError(f"{where}: half of a surrogate pair (\\ud800 to \\udfff) is no character.")
    return Article(str(row.get("id", number)), text, summary, str(row.get("source", "")))


_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
