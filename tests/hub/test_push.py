"""`fastllm push` against a Hub on this machine: model cards, and what arrives."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_hub
import pytest
import yaml
from fake_hub import FakeHub

from fastllm.checkpoints import SHIPPED, shipped_drafters
from fastllm.errors import CheckpointError, HubError, SettingsError
from fastllm.hub import push, upload

# The Hub's client sends files in a way that its own library for HTTP is about to give up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = f"{fake_hub.OWNER}/lstm"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    with fake_hub.running() as hub:
        yield hub


CARD = {
    "name": "lstm-mine",
    "family": "lstm",
    "target": "google/flan-t5-small",
    "method": {"name": "seq_kd", "lambda1": 0.0},
    "recipe": {"updates": 1200, "batch": 16},
    "parameters": 1914209,
    "texts": "target-written",
    "articles": 5214,
    "seconds": 655.1,
    "device": "cpu",
    "validation": {"articles": 54, "gamma": 5, "alpha": 0.73123, "alpha_greedy": 0.9, "tau": 4.6},
}


@pytest.fixture
def drafter(tmp_path: Path) -> Path:
    folder = tmp_path / "drafter"
    (folder / ".cache").mkdir(parents=True)
    (folder / ".cache" / "x").write_text("no")
    (folder / "config.json").write_text(json.dumps({"family": "lstm", "name": "lstm-mine"}))
    (folder / "card.json").write_text(json.dumps(CARD))
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    return folder


def head(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_says_what_the_checkpoint_says(drafter: Path) -> None:
    made = push.package(str(drafter), NAME)
    assert head(made.card) == {
        "license": "apache-2.0",
        "language": "en",
        "library_name": "fastllm",
        "pipeline_tag": "summarization",
        "tags": [
            "fastllm",
            "speculative-decoding",
            "summarization",
            "knowledge-distillation",
            "drafter",
            "lstm",
        ],
        "base_model": "google/flan-t5-small",
    }
    for words in (
        "# lstm-mine",
        "an LSTM",
        "`seq_kd`, sequence-level distillation",
        "- updates: 1,200 of 16 articles each",
        "- articles: 5,214",
        "- parameters: 1,914,209",
        "54 articles held out from training, draft length 5",
        "| tokens per call of the target | 4.600 |",
        "## Limits",
        f'load_drafter(snapshot_download("{NAME}"))',
    ):
        assert words in made.card
    assert "training.jsonl" not in made.card  # it has none


def test_a_drafter_that_reads_its_target_is_described_as_one() -> None:
    card = push.package("shared-after", NAME).card
    assert "over the encoder output of its target that guesses" in card
    assert "It fits this very target and no others." in card
    assert (
        "It fits targets with the same vocabulary and no others."
        in push.package("lstm-after", NAME).card
    )


def test_hidden_files_stay_at_home(drafter: Path) -> None:
    files = push.package(str(drafter), NAME).files
    assert set(files) == {"README.md", "card.json", "config.json", "model.safetensors"}


@pytest.mark.parametrize("name", ["target", *shipped_drafters()])
def test_all_that_ships_is_hub_ready(name: str) -> None:
    made = push.package(name, NAME, base_model="mill/target")
    values = head(made.card)
    assert values["base_model"] == "mill/target"
    known = name == "target" or json.loads((SHIPPED / name / "config.json").read_text()).get(
        "model_type"
    )
    assert values["library_name"] == ("transformers" if known else "fastllm")
    for title in ("## How it was made", "## Limits", "## How to load it"):
        assert title in made.card
    assert ("from_pretrained" in made.card) == bool(known)
    assert set(made.files) == {
        "README.md", *(path.name for path in (SHIPPED / name).iterdir())
    }  # fmt: skip


def test_a_checkpoint_without_a_card_still_has_one(drafter: Path) -> None:
    (drafter / "card.json").unlink()
    made = push.package(str(drafter), NAME)
    assert "# lstm-mine" in made.card
    assert "How it was made" not in made.card
    assert "base_model" not in head(made.card)


def test_what_arrives_is_the_package_byte_for_byte(hub: FakeHub, drafter: Path) -> None:
    made = push.package(str(drafter), NAME)
    assert push.push(made, private=True, endpoint=hub.endpoint) == f"{hub.endpoint}/{NAME}"
    model = hub.repositories["model", NAME]
    files = dict(model.files)
    del files[upload.KEPT]
    assert files == {path: upload.content_of(entry) for path, entry in made.files.items()}
    assert (model.private, len(model.commits)) == (True, 1)


def test_a_large_file_that_is_not_taken(
    hub: FakeHub, drafter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = hub.answer
    monkeypatch.setattr(
        hub,
        "answer",
        lambda method, *rest: (
            (403, {"error": "storage is full"}) if method == "PUT" else answer(method, *rest)
        ),
    )
    with pytest.raises(HubError, match=r"sending the files of mill/lstm: .* 403"):
        push.push(push.package(str(drafter), NAME), endpoint=hub.endpoint)
    assert not hub.repositories["model", NAME].commits


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    push.add_arguments(parser.add_subparsers())
    return parser.parse_args(["push", *arguments])


def test_a_dry_run_shows_card_and_files_and_sends_nothing(
    hub: FakeHub,
    drafter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    folder = tmp_path / "out"
    options = parsed(str(drafter), "--repo", NAME, "--dry-run", "--to", str(folder))
    options.handle(options)
    shown = capsys.readouterr().out
    assert (folder / "README.md").read_text() in shown
    assert "      10,240  model.safetensors" in shown
    assert "nothing was sent" in shown
    assert not hub.requests


def test_the_command_pushes(
    hub: FakeHub,
    drafter: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    options = parsed(str(drafter), "--repo", NAME, "--license", "mit")
    options.handle(options)
    assert f"the model is at {hub.endpoint}/{NAME}" in capsys.readouterr().out
    assert b"license: mit" in hub.repositories["model", NAME].files["README.md"]


def test_names_that_are_none(drafter: Path) -> None:
    with pytest.raises(SettingsError, match="OWNER/NAME"):
        push.package(str(drafter), "lstm")
    with pytest.raises(SettingsError, match="OWNER/NAME"):
        push.package(str(drafter), NAME, base_model="target")


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_folder_that_is_no_checkpoint(drafter: Path, text: str) -> None:
    (drafter / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        push.package(str(drafter), NAME)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        push.package(str(drafter.parent), NAME)
