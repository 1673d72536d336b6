"""Files that are there whole or not at all."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from fastllm.files import write_json, write_whole


def test_folders_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "er" / "a.txt"
    write_whole(place, "Fluß")
    write_whole(place, b"again")
    assert place.read_bytes() == b"again"
    assert list(place.parent.iterdir()) == [place]
    write_json(place, {"a": [1]})
    assert json.loads(place.read_text()) == {"a": [1]}


def test_json_holds_no_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    def refused(word: str) -> None:
        raise AssertionError(word)

    place = tmp_path / "a.json"
    write_json(place, {"a": [float("nan"), 1.5, (float("-inf"), 2)], "b": {"c": float("inf")}})
    found = json.loads(place.read_text(), parse_constant=refused)
    assert found == {"a": [None, 1.5, [None, 2]], "b": {"c": None}}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    place = tmp_path / "a.txt"
    place.write_text("before")

    def full(_: int) -> Any:
        raise error

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(type(error)) as caught:
        write_whole(place, "after")
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(place)
    assert place.read_text() == "before"
    assert list(tmp_path.iterdir()) == [place]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "real" / "a.txt")
    write_whole(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "text"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, "text")
    reader.join(10)
    assert read == [b"text"]
    assert pipe.is_fifo()
