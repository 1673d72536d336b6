"""What a command may do to a folder: write in it, take its place, or go on with what it holds.

All of it is asked before the work begins: hours later there is more to lose.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from fastllm.checkpoints import replace_folder
from fastllm.errors import CheckpointError, DataError, SettingsError, TrainingError
from fastllm.files import json_in


def require_writable(folder: str | Path) -> None:
    """Refuses a folder that cannot be written to, or not be made; it need not exist.

    A file is made and removed, in the folder or in the nearest one above it that is there: what the
    file system says of rights is no proof.

    Raises:
        SettingsError: it cannot be written to, or a file stands in the way.
    """
    try:
        with tempfile.TemporaryFile(dir=nearest(Path(folder))):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _unwritable(folder: str | Path, error: OSError) -> SettingsError:
    why = error.strerror or error
    return SettingsError(f"{folder} cannot be written to ({why}): give another folder.")


@contextmanager
def writing(path: Path, kept: str) -> Iterator[None]:
    """Makes a full disk and its like a TrainingError; `kept` says in a sentence what is left."""
    try:
        yield
    # safetensors and torch.save have errors of their own for what is an OSError elsewhere.
    except (OSError, SafetensorError, RuntimeError) as error:
        gone = ("No such file", "os error 2)", "does not exist")
        remedy = "Make room on the disk"
        if isinstance(error, FileNotFoundError) or any(sign in str(error) for sign in gone):
            remedy = "Its folder is gone: see that nothing else works in it or removes it,"
        elif isinstance(error, PermissionError):
            remedy = "See to its rights"
        raise TrainingError(
            f"{path} could not be written ({error}). {kept} {remedy} and give the same command "
            "again: it goes on from there."
        ) from error


LOCK = ".lock"
"""In a folder where a command is at work. The system unlocks it where the process is killed."""


@contextmanager
def locked(folder: Path, *, passing: bool = False) -> Iterator[None]:
    """Keeps other processes out of a folder; it is made if missing.

    Args:
        folder: of the work.
        passing: remove the folder at the end, if it is empty; without it, if it was made here.

    Raises:
        CheckpointError: another process is at work there.
        SettingsError: it cannot be written to.
    """
    made = not folder.exists()
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise CheckpointError(
            f"another process is at work in {folder}: two would destroy each other's files. Wait "
            "until it ends, or give another folder."
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        _remove_and_release(lock)
        if made or passing:  # and nothing was written
            with suppress(OSError):
                folder.rmdir()


def _remove_and_release(lock: FileLock) -> None:
    with suppress(OSError):  # Windows: there the release removes it
        Path(lock.lock_file).unlink()  # before the release: after it, it may be another's
    lock.release()


def checkpoint_folder(out: str | Path, run: Path, target: str) -> Path:
    """The folder that a checkpoint may take the place of: `out`, or where it leads.

    Args:
        out: where the checkpoint is to go.
        run: the run's folder.
        target: the folder of the target that the work is for, or its name on the Hub.

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


@contextmanager
def in_place_of(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, which takes its place at the end: see `replace_folder`.

    Of several processes one writes at a time; whoever is last stays.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.with_name(f".{out.name}.lock"))
    lock.acquire()
    try:
        fresh = out.with_name(f".{out.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        yield fresh
        replace_folder(fresh, out)
    finally:
        _remove_and_release(lock)


def _is_checkpoint(folder: Path) -> bool:
    """Whether `train` wrote this folder: nothing in it is lost that it could not write again."""
    config = json_object(folder / "config.json")
    card = (folder / "card.json").is_file() or (folder / "training.jsonl").is_file()
    folders = any(path.is_dir() for path in folder.iterdir())
    return ("family" in config or "fastllm" in config) and card and not folders


def json_object(path: Path) -> dict[str, Any]:
    """The names and values of a JSON file; none where it has none, or cannot be read."""
    try:
        found = json_in(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def require_run(run: Path) -> None:
    """Refuses a folder in which a run would overwrite what no run has written; it need not exist.

    Raises:
        CheckpointError: a `config.json`, `last` or `best` of something else.
    """
    strange = []
    for name, own in _OF_A_RUN.items():
        place = run / name
        found = [path.name for path in place.iterdir()] if place.is_dir() else [name]
        if place.exists() and found and not set(found) & set(own):
            strange.append(name)
    path = run / "config.json"
    if path.exists() and "schedule" not in json_object(path) and not has_save(run):
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


def has_save(run: Path) -> bool:
    """Whether there is something in a run's folder to go on from, whole or damaged."""
    return any((run / name / "optimizer.pt").exists() for name in ("last", "last.previous"))


def differences_from(path: Path, now: Mapping[str, Any]) -> str:
    """What differs from the settings in a JSON file; empty where there is no such file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return ""
    try:
        found = json_in(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): remove its folder.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no settings: give another folder.")
    return differences(found, now)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two sets of names and values, which may be such sets themselves.

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
