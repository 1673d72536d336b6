"""`from_pretrained` and `push_to_hub`: targets and drafters, from here and from a Hub."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_hub
import pytest
from fake_hub import FakeHub

import fastllm
from fastllm import paths
from fastllm.errors import CheckpointError, SettingsError
from fastllm.targets.hub import HubTarget

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.mark.parametrize("name", ["lookup", "lstm-after", paths.CHECKPOINTS / "lstm-after"])
def test_a_drafter_from_here(name: str | Path) -> None:
    settings: dict[str, Any] = {} if name == "lookup" else {"device": "cpu"}
    assert not isinstance(fastllm.from_pretrained(name, **settings), HubTarget)


def test_a_target_from_here(tiny_folder: str) -> None:
    loaded = fastllm.from_pretrained(tiny_folder, device="cpu")
    assert isinstance(loaded, HubTarget)
    assert loaded.name == "tiny"


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        fastllm.from_pretrained(tmp_path / "none")


def test_a_drafter_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download itself is the Hub's client's; asked for is what a drafter's folder holds."""
    cached = tmp_path / "cached"
    shutil.copytree(paths.CHECKPOINTS / "lstm-after", cached)
    asked: list[dict[str, Any]] = []

    def snapshot(name: str, **more: Any) -> str:
        asked.append({"name": name, **more})
        return str(cached)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda name, file, **_: str(cached / file)
    )
    loaded = fastllm.from_pretrained("someone/lstm", revision="v1", device="cpu")
    assert loaded.name == "lstm-after"
    assert asked[0]["name"] == "someone/lstm"
    assert asked[0]["revision"] == "v1"
    assert "*.safetensors" in asked[0]["allow_patterns"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    with fake_hub.running() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        yield hub


def test_a_checkpoint_is_pushed_with_its_card(hub: FakeHub) -> None:
    name = f"{fake_hub.OWNER}/lstm"
    assert name in fastllm.push_to_hub("lstm-after", name)
    assert {"README.md", "config.json", "model.safetensors"} <= set(
        hub.repositories["model", name].files
    )
    with pytest.raises(SettingsError):
        fastllm.push_to_hub("lstm-after", "no name")
