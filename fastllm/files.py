"""Files that are there whole or not at all.

A file is written beside its place, put on the disk, and then takes its place in one step. A process
that is killed, or a disk that is full, leaves what was there before.
"""

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def json_in(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def object_in(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON as for `json_in`, or another value.
    """
    found = json_in(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    return found


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Writes text as UTF-8, or bytes; folders that are missing are made.

    What is no regular file (a named pipe, a device) is written to directly: it cannot be replaced.
    A link stays, and the file that it leads to is replaced.

    Raises:
        OSError: with the file's name, which the system leaves out where a disk is full.
    """
    place = Path(path)
    raw = content.encode("utf-8") if isinstance(content, str) else content
    try:
        place = place.resolve()
        if place.exists() and not place.is_file():
            place.write_bytes(raw)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        # The process id: two processes that write the same file do not write into one another.
        fresh = place.with_name(f".{place.name}.{os.getpid()}.new")
        try:
            with fresh.open("wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(place)
        except BaseException:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: str | Path, tree: Any, *, indent: int | None = 1) -> None:
    """Writes JSON values (`strict`) as `write_whole` does; on one line where `indent` is None."""
    write_whole(path, json.dumps(strict(tree), indent=indent, allow_nan=False) + "\n")


def strict(tree: Any) -> Any:
    """The same values, with None for each number that is NaN or infinite: JSON has none of them.

    A mean of nothing is NaN, and a file with the word `NaN` in it is refused by most readers.
    """
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else None
    if isinstance(tree, dict):
        return {key: strict(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [strict(value) for value in tree]
    return tree
