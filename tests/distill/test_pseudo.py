"""Labels on a full disk: what is there stays, and the same command goes on."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastllm.data import tokens
from fastllm.data.tokens import TokenPairs, write_pairs
from fastllm.distill.pseudo import write_pseudo
from fastllm.errors import DataError, TrainingError
from fastllm.targets.hub import HubTarget


@pytest.fixture
def articles(tmp_path: Path) -> TokenPairs:
    rows = [(f"a{at}", [50 + at, 60, 70, 1], [1]) for at in range(4)]
    write_pairs(tmp_path / "articles", rows, {})
    return TokenPairs(tmp_path / "articles")


def label(target: HubTarget, articles: TokenPairs, folder: Path) -> TokenPairs:
    return write_pseudo(target, articles, folder, length=6, shard_size=2, say=lambda line: None)


def test_a_full_disk_leaves_a_folder_that_is_taken_up_again(
    tiny_target: HubTarget, articles: TokenPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "pseudo"
    with monkeypatch.context() as patched:
        patched.setattr(tokens, "save_sequences", full)
        with pytest.raises(TrainingError, match="could not be written"):
            label(tiny_target, articles, folder)
    assert not (folder / "meta.json").exists(), "it would count as done"
    shards = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*.json")}
    assert len(shards) == 2
    found = label(tiny_target, articles, folder)
    assert len(found) == 4
    assert all(len(found.target(at)) > 0 for at in range(4))
    assert shards == {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*.json")}
    whole = label(tiny_target, articles, tmp_path / "whole")
    assert all(np.array_equal(found.target(at), whole.target(at)) for at in range(4))


def test_a_damaged_shard_is_named(
    tiny_target: HubTarget, articles: TokenPairs, tmp_path: Path
) -> None:
    folder = tmp_path / "pseudo"
    label(tiny_target, articles, folder)
    (folder / "meta.json").unlink()
    (folder / "shard-00001.json").write_text("[[1, 2")
    with pytest.raises(DataError, match=r"shard-00001\.json is damaged .*remove it"):
        label(tiny_target, articles, folder)
