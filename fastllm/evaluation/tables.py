"""Tables for people: cells of text with a title and a note, and reports made of them, as Markdown.

`report` and `fastllm.bench.report` fill them; `charts` writes them as HTML.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Columns = Mapping[str, Callable[[Mapping[str, Any]], str]]
"""The head of each column, and its cell of an entry."""


@dataclass(frozen=True)
class Table:
    """A table for people: cells are text; the first column names the row."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(
        cls,
        title: str,
        note: str,
        columns: Columns,
        entries: Iterable[Mapping[str, Any]],
    ) -> "Table":
        """A row for each entry."""
        rows = tuple(tuple(cell(entry) for cell in columns.values()) for entry in entries)
        return cls(title, note, tuple(columns), rows)

    def markdown(self) -> str:
        """Title, note and table."""
        note = [self.note, ""] if self.note else []
        return "\n".join([f"### {self.title}", "", *note, grid(self.header, self.rows)])


@dataclass(frozen=True)
class Section:
    """A part of a report, such as one temperature: what was measured there, in words and tables."""

    title: str
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]

    @classmethod
    def of(cls, title: str, sentences: Sequence[str], *tables: Table) -> "Section":
        """A section without the tables that have no rows."""
        return cls(title, tuple(sentences), tuple(table for table in tables if table.rows))


def markdown(title: str, preamble: Sequence[str], sections: Sequence[Section]) -> str:
    """A report as Markdown: its title, then sentences, then sections."""
    parts = [f"# {title}", *preamble]
    for section in sections:
        parts += [f"## {section.title}", *section.sentences]
        parts += [table.markdown() for table in section.tables]
    return "\n\n".join(parts)


def bracketed(
    found: Mapping[str, float] | None,
    digits: int = 2,
    *,
    middle: str = "value",
    scale: float = 1,
    unit: str = "",
) -> str:
    """A number, under the name `middle`, with its range in brackets; a dash where there is none.

    Example:
        >>> bracketed({"value": 0.5, "low": 0.25, "high": 1}, 0, scale=100, unit=" %")
        '50 [25, 100] %'
    """
    if found is None:
        return "-"
    number, low, high = (f"{scale * found[key]:.{digits}f}" for key in (middle, "low", "high"))
    return f"{number} [{low}, {high}]{unit}"


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in (header, *rows)]
    head, *body = (f"| {line} |" for line in lines)
    return "\n".join([head, "|---" * len(header) + "|", *body])
