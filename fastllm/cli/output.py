"""What a command prints and writes."""

import io
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from fastllm.errors import SettingsError
from fastllm.files import write_json, write_whole


def require_writable_report(out: str | None, file: str | None) -> None:
    """Refuses a folder or a file where a report cannot be written: before the work, not after it.

    Raises:
        SettingsError: names the place.
    """
    folders = [Path(out)] if out else []
    if file and Path(file).is_dir():
        raise SettingsError(f"--json {file}: this is a folder. Name a file in it.")
    if file and (not Path(file).exists() or Path(file).is_file()):
        folders.append(Path(file).resolve().parent)
    if file and Path(file).exists() and not os.access(file, os.W_OK):
        # not opened to find out: that is an event at a named pipe
        raise SettingsError(f"--json {file}: it cannot be written. Name a file of your own.")
    for folder in folders:
        import_module("fastllm.distill.folders").require_writable(folder)


def write_report(
    out: str | None, name: str, tree: Any, markdown: str, page: str = "", file: str | None = None
) -> None:
    """Writes NAME.json, NAME.md and, where there is a page, NAME.html into the folder `out`.

    The numbers go to `file` too, where one is given.
    """
    if file:
        write_json(file, tree)
    if out:
        write_json(Path(out) / f"{name}.json", tree)
        write_whole(Path(out) / f"{name}.md", markdown + "\n")
        if page:
            write_whole(Path(out) / f"{name}.html", page)
        say(f"the report is in {out}")


def charts() -> Any:
    """What draws the charts; None, and a word of it, where plotly is not installed."""
    try:
        return import_module("fastllm.evaluation.charts")
    except ModuleNotFoundError as error:
        if error.name != "plotly":
            raise
        say("plotly is not installed: the charts and the HTML page are left out")
        return None


def degrade_text() -> None:
    """Lets standard output write what its encoding lacks as question marks.

    A console of Windows, or a program in the C locale, knows few characters: a summary is readable
    without the others, and an error would look like a text that differs.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def put_json(text: str) -> None:
    """Writes JSON to standard output, in UTF-8 whatever the console's encoding is."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8") + b"\n")
    else:
        print(text)


def say(line: str) -> None:
    """Says something on stderr: stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def quiet() -> None:
    """Keeps the progress bars of transformers out of the output."""
    import_module("transformers.utils.logging").disable_progress_bar()
