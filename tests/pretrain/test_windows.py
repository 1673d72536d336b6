import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_windows import write_tiny_windows

from fastllm.data.tokens import IGNORED
from fastllm.errors import DataError, SettingsError
from fastllm.pretrain.windows import Batches, Window, Windows, write_windows
from fastllm.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, story: str, vocabulary: Vocabulary) -> Path:
    return write_tiny_windows(tmp_path_factory.mktemp("windows"), story, vocabulary)


def _batches(folder: Path, kind: str = "whole", length: int = 120, seed: int = 0) -> Batches:
    return Batches(
        Windows(folder), kind, source_length=length, batch=4, seed=seed, device=torch.device("cpu")
    )


def test_windows_come_back_as_they_were_written(
    story: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    second = story.index("Fire crews")
    kept = Window("start", second, second + 60, "Crews came.")
    windows = [Window("whole", 0, len(story), "A mill burned."), kept]
    long = Window("whole", 0, len(story), story)  # its text is too long
    count = write_windows(
        tmp_path, [(story, windows), (story, [long]), (story, [kept])], vocabulary,
        prefix=". ", text_length=40,
    )  # fmt: skip
    found = Windows(tmp_path)
    assert count == len(found) == 3
    assert found.meta["articles"] == 2, "an article without a window is not stored"
    assert found.counts() == {"whole": 1, "start": 2}
    assert found.of_kind("start").tolist() == [1, 2]
    # What is read is what the target's own encoding of the article is.
    assert found.source(0, 500).tolist() == vocabulary.encode(story, 500, ". ").ids
    assert found.source(0, 50).tolist() == vocabulary.encode(story, 50, ". ").ids
    for index in (1, 2):
        assert vocabulary.decode(found.source(index, 500)).startswith(". Fire crews from four")
        assert found.text(index).tolist() == vocabulary.encode("Crews came.", 40).ids
    assert found.vocabulary.fingerprint == vocabulary.fingerprint


def test_what_is_no_whole_folder_of_windows_is_refused(
    folder: Path, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="not a folder of windows"):
        Windows(tmp_path)
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    for text in ("[]", "{}", "null"):
        (damaged / "meta.json").write_text(text)
        with pytest.raises(DataError, match="not a folder of windows"):
            Windows(damaged)
    with pytest.raises(DataError, match="no article with a text"):
        write_windows(tmp_path, [("Rain.", [])], vocabulary)
    with pytest.raises(SettingsError, match="no windows of kind 'poem'"):
        Windows(folder).of_kind("poem")


def test_full_and_padded_sources_never_mix(folder: Path) -> None:
    batches = _batches(folder, "start", length=64)
    assert len(batches) == 12
    lengths = [len(Windows(folder).source(int(i), 64)) for i in Windows(folder).of_kind("start")]
    for step in range(6):
        source, text, masked = batches(step)
        assert source.shape[0] == text.shape[0] == 4
        assert masked == bool((source == 0).any())
        assert text.shape[1] % 16 == 0 or text.shape[1] == batches._text.shape[1]
    assert max(lengths) <= 64


def test_a_kind_with_full_and_padded_windows_gives_both_apart(
    story: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    rows = []
    for index in range(12):
        end = len(story) if index % 2 else 150
        rows.append((story, [Window("start", 0, end, "A mill burned.")]))
    write_windows(tmp_path, rows, vocabulary, prefix=". ")
    batches = _batches(tmp_path, "start", length=64)
    seen = [batches(step) for step in range(2)]
    assert sorted(masked for _, _, masked in seen) == [False, True]
    for source, _, masked in seen:
        padding = (source == 0).sum(1)
        assert bool((padding > 0).all()) == masked or not masked
        assert masked or source.shape == (4, 64)


def test_a_batch_is_a_function_of_seed_and_step(folder: Path) -> None:
    one, other = _batches(folder), _batches(folder)
    for step in (7, 0, 3):  # in any order, as after a resume
        for left, right in zip(one(step), other(step), strict=True):
            assert left is right or torch.equal(torch.as_tensor(left), torch.as_tensor(right))
    epochs = [[one(step)[0] for step in range(at, at + 3)] for at in (0, 3)]
    sorted_rows = [sorted(map(tuple, torch.cat(epoch).tolist()), key=str) for epoch in epochs]
    assert sorted_rows[0] == sorted_rows[1], "every epoch has every window once"
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    assert not torch.equal(one(0)[0], _batches(folder, seed=1)(0)[0])


def test_texts_are_filled_up_with_what_no_loss_counts(folder: Path) -> None:
    windows = Windows(folder)
    texts = {tuple(windows.text(int(index)).tolist()) for index in windows.of_kind("whole")}
    _, block, _ = _batches(folder)(0)
    for row in block.numpy():
        assert tuple(row[row != IGNORED].tolist()) in texts
    assert np.all(block.numpy()[:, -1] == IGNORED)
