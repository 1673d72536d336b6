"""What a command may do to a folder, asked before it works."""

import errno
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from fastllm.distill.folders import (
    LOCK,
    checkpoint_folder,
    differences,
    differences_from,
    in_place_of,
    locked,
    require_run,
    require_writable,
    writing,
)
from fastllm.errors import CheckpointError, DataError, SettingsError, TrainingError


def _checkpoint(folder: Path, config: dict[str, object], *others: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in others:
        (folder / name).write_text("{}")
    return folder


def test_a_checkpoint_takes_the_place_of_nothing_but_a_checkpoint(tmp_path: Path) -> None:
    run, target = tmp_path / "run", "google-t5/t5-small"
    (tmp_path / "empty").mkdir()
    drafter = _checkpoint(tmp_path / "drafter", {"family": "lstm"}, "card.json")
    whole = _checkpoint(tmp_path / "target", {"fastllm": {"name": "x"}}, "training.jsonl")
    for out in (tmp_path / "new", tmp_path / "empty", drafter, whole):
        assert checkpoint_folder(out, run, target) == out

    (tmp_path / "link").symlink_to(drafter)
    assert checkpoint_folder(tmp_path / "link", run, target) == drafter, "links stay"
    with pytest.raises(SettingsError, match="is the target itself"):
        checkpoint_folder(whole, run, str(whole))

    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(CheckpointError, match="is a file"):
        checkpoint_folder(file, run, target)
    strange = {
        "notes": ({}, ()),
        "t5": ({"model_type": "t5"}, ("card.json",)),
        "begun": ({"family": "lstm"}, ()),
    }
    for name, (config, others) in strange.items():
        folder = _checkpoint(tmp_path / name, dict(config), *others)
        with pytest.raises(CheckpointError, match=r"holds .*config.json: .*--out that is new"):
            checkpoint_folder(folder, run, target)
    (drafter / "thesis").mkdir()
    with pytest.raises(CheckpointError, match="thesis"):
        checkpoint_folder(drafter, run, target)


def test_a_checkpoint_does_not_take_the_place_of_its_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for out in (tmp_path / "all" / "run", tmp_path / "all"):
        with pytest.raises(SettingsError, match=r"would be lost.*run/checkpoint"):
            checkpoint_folder(out, tmp_path / "all" / "run", "x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="would be lost"):
        checkpoint_folder(".", Path("run"), "x")
    assert checkpoint_folder(".", tmp_path.parent / "run", "x") == tmp_path


def test_a_folder_that_cannot_be_written_is_refused_and_nothing_is_left_in_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_writable(tmp_path / "a" / "b")
    require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for below in ("file", "file/run"):
        with pytest.raises(SettingsError, match=f"{below} cannot be written"):
            require_writable(tmp_path / below)

    def refuse(dir: Path) -> None:
        assert dir == tmp_path
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(SettingsError, match="Read-only file system.*another folder"):
        require_writable(tmp_path / "a")
    with pytest.raises(SettingsError, match="Read-only file system"):
        checkpoint_folder(tmp_path / "a", tmp_path.parent / "run", "x")


def test_a_folder_with_other_things_beside_a_run_is_fine(tmp_path: Path) -> None:
    (tmp_path / "articles").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "last").mkdir()
    require_run(tmp_path)
    require_run(tmp_path / "new")


def test_only_what_differs_is_named() -> None:
    before = {"a": 1, "b": {"c": 2, "d": None, "e": {"f": 0}}, "g": [1]}
    assert differences(before, {**before, "new": None}) == ""
    now = {"a": 1, "b": {"c": 3, "d": 0.5, "e": {"f": 1}}, "h": "x"}
    assert differences(before, now) == (
        "b.c: 2, now 3; b.d: None, now 0.5; b.e.f: 0, now 1; g: [1], now None; h: None, now 'x'"
    )


def test_settings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    assert differences_from(path, {"a": 1}) == ""
    deep = "[" * 200_000
    for text, why in (("{", "is damaged"), (deep, "is damaged"), ("[]", "holds no settings")):
        path.write_text(text)
        with pytest.raises(DataError, match=f"settings.json {why}"):
            differences_from(path, {"a": 1})
    path.write_text('{"a": 0}')
    assert differences_from(path, {"a": 1}) == "a: 0, now 1"


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with locked(folder):
        with pytest.raises(CheckpointError, match="another process is at work in"):
            with locked(folder):
                pass
        assert (folder / LOCK).exists(), "the one who was refused leaves the lock"
    assert not folder.exists(), "nothing was written"
    folder.mkdir()
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom fastllm.distill.folders import locked\n"
    )
    code += "with locked(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(600)"
    command = [sys.executable, "-c", code, str(folder)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    with pytest.raises(CheckpointError, match="another process"), locked(folder):
        pass
    other.kill()
    other.communicate()
    assert (folder / LOCK).exists(), "it had no time to tidy up"
    with locked(folder):
        pass
    assert list(folder.iterdir()) == []


def test_of_two_that_write_one_folder_each_writes_it_whole(tmp_path: Path) -> None:
    out, half = tmp_path / "out", threading.Event()

    def write(name: str) -> None:
        with in_place_of(out) as fresh:
            assert list(fresh.iterdir()) == [], "nothing of another's"
            (fresh / f"{name}.one").touch()
            if name == "first":
                half.set()
                second.start()
                second.join(0.5)  # it waits for this one, or would end within
            (fresh / f"{name}.two").touch()

    second = threading.Thread(target=write, args=["second"])
    first = threading.Thread(target=write, args=["first"])
    first.start()
    assert half.wait(60)
    first.join()
    second.join()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in out.iterdir()) == ["second.one", "second.two"]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(28, "No space left on device"), "Make room on the disk"),
        (FileNotFoundError(2, "No such file or directory"), "see that nothing else works in it"),
        (RuntimeError("Parent directory /x does not exist."), "see that nothing else works in it"),
        (PermissionError(13, "Permission denied"), "See to its rights"),
    ],
)
def test_what_cannot_be_written_is_told_with_its_own_advice(
    error: Exception, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=f"could not be written.*All is kept.*{advice}"):
        with writing(tmp_path / "x", "All is kept."):
            raise error
