"""A target trained on extracts, and one that goes on from it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from transformers import T5ForConditionalGeneration

from fastllm.errors import FastLLMError, SettingsError, TrainingError
from fastllm.pretrain.curriculum import CurriculumStage, TargetRecipe, train_target
from fastllm.vocabulary import Vocabulary

STORY = " ".join(
    [
        "The harbour of Old Bay will get a new bridge for ships and trains next spring.",
        "The bridge will carry trains and cars over the harbour for two hours a day.",
        "Anna Berg leads the team that builds the bridge and has two hundred people.",
        "The trains to Old Bay need two hours more without the bridge over the harbour.",
    ]
    * 12
)
RECIPE = TargetRecipe(
    name="small",
    stages=(CurriculumStage("sentences", 60, {"start": 1}, updates=2, batch=2, warmup=1),),
    vocabulary_size=400,
    width=32,
    heads=4,
    encoder_layers=2,
    decoder_layers=2,
    feed_forward=32,
    articles=20,
    shorten=False,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Articles long enough for a window."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = (json.dumps({"id": f"story-{i}", "article": f"{STORY} {i}."}) for i in range(8))
    (folder / "train.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def train(data: Path, run: Path, start: str | Path = "") -> Path:
    cpu = torch.device("cpu")
    return train_target(RECIPE, data, run, start=start, device=cpu, say=lambda line: None)


def test_one_target_goes_on_from_another_with_its_vocabulary(data: Path, tmp_path: Path) -> None:
    first = train(data, tmp_path / "first")
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    second = train(data, tmp_path / "second", first)
    assert Vocabulary.load(second).fingerprint == Vocabulary.load(first).fingerprint
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert not (tmp_path / "second" / "windows" / "vocabulary").exists(), "none was learnt"


def test_a_full_disk_is_told_and_the_same_command_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(T5ForConditionalGeneration, "save_pretrained", full)
        with pytest.raises(TrainingError, match="could not be written.*Make room on the disk"):
            train(data, tmp_path / "run")
    assert (train(data, tmp_path / "run") / "model.safetensors").exists()


def test_what_is_no_target_is_refused_and_left_as_it_is(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(FastLLMError, match="mine"):
        train(data, tmp_path / "run", folder)
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_target_of_other_sizes_is_refused(data: Path, tmp_path: Path, tiny_folder: str) -> None:
    with pytest.raises(SettingsError):
        train(data, tmp_path / "run", tiny_folder)
