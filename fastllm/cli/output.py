"""What a command prints and writes."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from fastllm.errors import SettingsError


def put(path: Path, text: str) -> None:
    """Writes a file of a report.

    Raises:
        OSError: with the file's name, which the system leaves out where a disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def require_writable_report(out: str | None, file: str | None) -> None:
    """Refuses places for a report where nothing can be written, before the work and not behind it.

    Args:
        out: a folder, which need not exist.
        file: likewise, a file.

    Raises:
        SettingsError: names the place.
    """
    folders = [Path(out)] if out else []
    if file and Path(file).is_dir():
        raise SettingsError(f"--json {file}: this is a folder. Name a file in it.")
    if file and not Path(file).exists():
        folders.append(Path(file).parent)
    elif file and not os.access(file, os.W_OK):  # not opened: that is an event at a named pipe
        raise SettingsError(f"--json {file}: it cannot be written. Name a file of your own.")
    for folder in folders:
        import_module("fastllm.distill.folders").require_writable(folder)


def charts() -> Any:
    """What draws the charts; None, and a word of it, where plotly is not installed."""
    try:
        return import_module("fastllm.evaluation.charts")
    except ModuleNotFoundError as error:
        if error.name != "plotly":
            raise
        say("plotly is not installed: the charts and the HTML page are left out")
        return None


def say(line: str) -> None:
    """Says something on stderr: stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def quiet() -> None:
    """Keeps the progress bars of transformers out of the output."""
    import_module("transformers.utils.logging").disable_progress_bar()
