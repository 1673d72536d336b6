"""What a command may do to a folder: write in it, take its place, or go on with what it holds.

All of it is asked before the work begins: hours later there is more to lose.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from safetensors import SafetensorError

from fastllm.errors import CheckpointError, DataError, SettingsError, TrainingError


def require_writable(folder: str | Path) -> None:
    """Refuses a folder that cannot be written to, or not be made.

    A file is made and removed, in the folder or in the nearest one above it that is there: what the
    file system says of rights is no proof.

    Args:
        folder: need not exist; nothing of it stays.

    Raises:
        SettingsError: it cannot be written to, or a file stands in the way.
    """
    folder = Path(folder)
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise SettingsError(
            f"{folder} cannot be written to ({error.strerror or error}): give another folder."
        ) from error


@contextmanager
def writing(path: Path, kept: str) -> Iterator[None]:
    """Turns what a full disk and its like raise into a TrainingError.

    Args:
        path: what is written.
        kept: what is left of the work, in a sentence.
    """
    try:
        yield
    # safetensors and torch.save have errors of their own for what is an OSError elsewhere.
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TrainingError(
            f"{path} could not be written ({error}). {kept} {_remedy(error)} and give the same "
            "command again: it goes on from there."
        ) from error


def _remedy(error: Exception) -> str:
    """What to do about a file that could not be written."""
    gone = ("No such file", "os error 2)", "does not exist")
    if isinstance(error, FileNotFoundError) or any(sign in str(error) for sign in gone):
        return "Its folder is not there any more: see that nothing else works in it or removes it,"
    if isinstance(error, PermissionError):
        return "See to its rights"
    return "Make room on the disk"


LOCK = "lock.json"
"""In a folder where a command is at work: the process, and when that was started."""


@contextmanager
def locked(folder: Path, *, passing: bool = False) -> Iterator[None]:
    """Keeps other processes out of a folder; it is made if missing.

    What a process left that was killed is recognised, and does not lock: neither does a later
    process by the same number.

    Args:
        folder: of the work.
        passing: remove the folder at the end, if it is empty; without it, if it was made here.

    Raises:
        CheckpointError: another process is at work there.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    while True:
        try:
            with path.open("x", encoding="utf-8") as file:
                own = {"process": os.getpid(), "started": psutil.Process().create_time()}
                json.dump(own, file)
            break
        except FileExistsError:
            process = _at_work(path)
            if process:
                raise CheckpointError(
                    f"process {process} is at work in {folder}: two would destroy each other's "
                    "files. Wait until it ends, or give another folder."
                ) from None
            path.unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(
                f"{folder} cannot be written to ({error.strerror or error}): give another folder."
            ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if made or passing:  # and nothing was written
            with suppress(OSError):
                folder.rmdir()


def _at_work(path: Path) -> int:
    """The process that holds a lock; 0 where it has ended."""
    for wait in (0.2, 0.0):  # it may be writing its number at this moment
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            process = psutil.Process(int(entry["process"]))
            alive = process.status() != psutil.STATUS_ZOMBIE
            same = abs(process.create_time() - float(entry["started"])) < 1
            return int(process.pid) if alive and same else 0
        except psutil.Error:
            return 0
        except (OSError, ValueError, TypeError, KeyError):
            time.sleep(wait)
    return 0


def checkpoint_folder(out: str | Path, run: Path, target: str) -> Path:
    """The folder that a checkpoint may take the place of.

    Args:
        out: where the checkpoint is to go.
        run: the run's folder.
        target: the folder of the target that the work is for, or its name on the Hub.

    Returns:
        `out`, with a name of its own where it was a link or a dot.

    Raises:
        CheckpointError: there is something else than an earlier checkpoint that `train` wrote, and
            it would be lost.
        SettingsError: the run or the target would be lost, or it cannot be written.
    """
    out = Path(out)
    if out.is_symlink() or out.name in ("", ".."):
        out = out.resolve()
    if out.resolve() in (run.resolve(), *run.resolve().parents):
        raise SettingsError(
            f"{out}: a checkpoint takes the place of the whole folder, and the run in "
            f"{run} would be lost with it. Give another folder, such as {run / 'checkpoint'}."
        )
    if out.resolve() == Path(target).resolve():
        raise SettingsError(
            f"{out} is the target itself, and would be lost: give another folder to write to."
        )
    if out.is_dir():
        found = sorted(path.name for path in out.iterdir())
        if found and not _is_checkpoint(out):
            names = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            raise CheckpointError(
                f"{out} holds {names}: that is no checkpoint that `train` wrote, and a "
                "checkpoint takes the place of the whole folder. Give an --out that is new or "
                f"empty, such as {out / 'checkpoint'}, or put away what is in it."
            )
    elif out.exists():
        raise CheckpointError(f"{out} is a file: give a folder that is new or empty.")
    require_writable(out.parent)
    return out


def new_folder(out: Path) -> Path:
    """Beside `out`: where it is written before it takes its place, by a name that no one else has.

    `replace_folder` calls what was there before likewise, for a moment, and removes it.
    """
    return out.with_name(f".{out.name}.new")


def _is_checkpoint(folder: Path) -> bool:
    """Whether `train` wrote this folder: nothing in it is lost that it could not write again."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    ours = isinstance(config, dict) and ("family" in config or "fastllm" in config)
    card = (folder / "card.json").is_file() or (folder / "training.jsonl").is_file()
    return ours and card and not any(path.is_dir() for path in folder.iterdir())


def require_run(run: Path) -> None:
    """Refuses a folder in which a run would overwrite what no run has written.

    Args:
        run: the folder of the run; need not exist.

    Raises:
        CheckpointError: a `config.json`, `last` or `best` of something else.
    """
    strange = [name for name, own in _OF_A_RUN.items() if _filled(run / name, own)]
    path = run / "config.json"
    if path.exists():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            config = None
        if not (isinstance(config, dict) and "schedule" in config) and not has_save(run):
            strange.append(path.name)
    if strange:
        raise CheckpointError(
            f"{run} holds {', '.join(strange)} of something else than a run, which would be "
            "overwritten: give another run folder."
        )


_OF_A_RUN = {
    "last": ("optimizer.pt", "model.safetensors"),
    "best": ("line.json", "model.safetensors"),
}
"""The folders that a run replaces, and what it writes into them."""


def _filled(folder: Path, own: tuple[str, ...]) -> bool:
    """Whether there is something, and not a folder with one of the files `own`."""
    if not folder.is_dir():
        return folder.exists()
    return any(folder.iterdir()) and not any((folder / name).exists() for name in own)


def has_save(run: Path) -> bool:
    """Whether there is something in a run's folder to go on from, whole or damaged."""
    return any((run / name / "optimizer.pt").exists() for name in ("last", "last.previous"))


def read_settings(path: Path) -> dict[str, Any]:
    """What a file says of the settings that its folder was made with.

    Raises:
        DataError: it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): remove its folder.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no settings: give another folder.")
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two sets of settings, name by name; empty where nothing does.

    Args:
        before: names and values, which may be such sets themselves.
        now: likewise.

    Example:
        >>> differences({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 4}})
        'b.d: 3, now 4'
    """
    return "; ".join(_changed(before, now))


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for name in {**before, **now}:
        # What is not there is None: settings that came later are left out where they are not used.
        had, has = before.get(name), now.get(name)
        if isinstance(had, Mapping) and isinstance(has, Mapping):
            yield from _changed(had, has, f"{within}{name}.")
        elif had != has:
            yield f"{within}{name}: {had!r}, now {has!r}"
