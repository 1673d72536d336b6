"""Tables for people: cells of text with a title and a note, and reports made of them, as Markdown.

`report` and `fastllm.bench.report` fill them; `charts` writes them as HTML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table for people: cells are text; the first column names the row."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Title, note and table."""
        lines = [f"### {self.title}", ""]
        if self.note:
            lines += [self.note, ""]
        lines += [_line(self.header), "|---" * len(self.header) + "|"]
        return "\n".join([*lines, *map(_line, self.rows)])


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
    """A report as Markdown.

    Args:
        title: of the report.
        preamble: sentences before the sections.
        sections: sentences and tables.
    """
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
    """A number with its range in brackets; a dash where there is none.

    Args:
        found: the number under the name `middle`, its range under "low" and "high".
        digits: behind the point.
        middle: the number's name: "value", or "median".
        scale: multiplies all three.
        unit: stands behind the brackets.

    Example:
        >>> bracketed({"value": 0.5, "low": 0.25, "high": 1}, 0, scale=100, unit=" %")
        '50 [25, 100] %'
    """
    if found is None:
        return "-"
    number, low, high = (f"{scale * found[key]:.{digits}f}" for key in (middle, "low", "high"))
    return f"{number} [{low}, {high}]{unit}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
