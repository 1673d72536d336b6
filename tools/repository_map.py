"""The map of the package in docs/architecture.md, from each file's own first line.

    python -m tools.repository_map     # writes it anew

A test compares the two, so the map can neither omit a file nor name one that is gone.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from fastllm import paths

DOCUMENT = paths.ROOT / "docs" / "architecture.md"

WIDTH = 100
"""The most characters of a line; longer sentences end in an ellipsis."""

SUFFIXES = (".py", ".js", ".css")

BLOCK = re.compile(r"(<!-- the map -->\n```\n).*?(```\n)", re.DOTALL)
"""The map in its document; the middle is replaced."""


def main() -> None:
    """Writes the map into the document."""
    DOCUMENT.write_text(with_map(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


def with_map(document: str) -> str:
    """The document with the map as it should be."""
    body = "\n".join(lines(paths.PACKAGE)) + "\n"
    return BLOCK.sub(lambda found: found[1] + body + found[2], document)


def lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """A line for the folder, then for its files, then for its folders."""
    indent = "  " * depth
    contract = folder / "__init__.py"
    yield _line(f"{indent}{folder.name}/", summary(contract) if contract.is_file() else "")
    entries = sorted(folder.iterdir())
    for path in entries:
        if path.suffix in SUFFIXES and path != contract:
            yield _line(f"{indent}  {path.name}", summary(path))
    for path in entries:
        if any(inside.suffix in SUFFIXES for inside in path.rglob("*")):
            yield from lines(path, depth + 1)


def summary(path: Path) -> str:
    """What a file says of itself in its first sentence."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        said = ast.get_docstring(ast.parse(text)) or ""
    else:
        said = text.removeprefix("/*").split("*/")[0]
    return re.split(r"(?<=\.)\s", " ".join(said.split()))[0].rstrip(".")


def _line(name: str, said: str) -> str:
    room = WIDTH - 27
    if len(said) > room:
        said = said[: room - 3].rsplit(" ", 1)[0] + " ..."
    return f"{name:<26} {said}".rstrip()


if __name__ == "__main__":
    main()
