"""Cards and curves, as the page shows them."""

import json
from pathlib import Path

import pytest

from fastllm import checkpoints
from fastllm.demo import words
from fastllm.demo.folds.trained import trained
from fastllm.demo.folds.trained import words as trained_words
from fastllm.distill.losses import LOSSES
from fastllm.distill.train import METHODS


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, method, tau in (("lstm-before", "supervised", 3.9), ("lstm-after", "mixed_gkd", 4.6)):
        folder = tmp_path / name
        folder.mkdir()
        card = {
            "name": name,
            "method": {"name": method, "lambda1": 0.0},
            "recipe": {"updates": 600, "learning_rate": 0.001, "loss": ""},
            "parameters": 1914209,
            "validation": {"tau": tau, "alpha": 0.73123},
        }
        (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
        (folder / "model.safetensors").write_bytes(bytes(3_830_210))
        rows = [{"step": 20, "loss": 2.0}, {"step": 40, "validation_tau": tau}]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "training.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "ngram-after").mkdir()
    card = {"method": {"order": 3}, "entries": [7222, 104674]}
    (tmp_path / "ngram-after" / "card.json").write_text(json.dumps(card), encoding="utf-8")
    (tmp_path / "ngram-after" / "counts.npz").write_bytes(bytes(1234))
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path)
    return tmp_path


def test_a_pair_stands_together(shipped: Path) -> None:
    keys = ["alone", "lookup", "lstm-before", "ngram-after", "lstm-after"]
    tree = trained.summarise(keys)
    lstm, ngram = tree["families"]
    assert lstm["title"] == "LSTM"
    assert lstm["lanes"] == [words.title_of("lstm-before"), words.title_of("lstm-after")]
    assert lstm["curves"] == {"tau": [[[40, 3.9]], [[40, 4.6]]]}
    facts = {label: values for label, *values in lstm["facts"]}
    assert facts["method"] == [trained_words.VALUES[name] for name in ("supervised", "mixed_gkd")]
    assert facts["parameters"] == ["1,914,209"] * 2
    assert facts["bytes on disk"] == ["3,830,210"] * 2
    assert facts["learning rate"] == ["0.001"] * 2
    assert facts["alpha on held-out articles (temperature 1)"] == ["0.7312"] * 2
    assert "loss" not in facts
    assert ngram["facts"] == [
        ["order", "3"], ["entries of its table", "111,896"], ["bytes on disk", "1,234"],
    ]  # fmt: skip
    assert ngram["curves"] == {}
    assert tree["target"] == []


def test_lanes_without_a_card_are_left_out(shipped: Path) -> None:
    assert trained.summarise(["alone", "lookup", "mine"])["families"] == []


def test_what_a_folder_does_not_hold_is_left_out(shipped: Path) -> None:
    (shipped / "lstm-before" / "model.safetensors").unlink()
    facts = trained.summarise(["lstm-before", "lstm-after"])["families"][0]["facts"]
    assert ["bytes on disk", "", "3,830,210"] in facts
    (shipped / "target").mkdir()
    (shipped / "target" / "card.json").write_text('{"parameters": 9}', encoding="utf-8")
    assert trained.summarise([])["target"] == [["parameters", "9"]]
    for part in (1, 2):
        (shipped / "target" / f"model-{part}.safetensors").write_bytes(bytes(part))
    assert trained.summarise([])["target"] == [["parameters", "9"], ["bytes on disk", "3"]]


def test_lanes_are_called_by_what_they_are() -> None:
    assert words.title_of("lookup+lstm-after") == "lookup + LSTM after distillation"
    assert words.title_of("lstm-after|lookup") == "LSTM after distillation | lookup"
    assert words.size_of("lstm-after|lookup", "target") == words.size_of("lstm-after", "target")
    assert words.title_of("mine + yours|A") == "mine + yours|A", "somebody's own title"
    assert words.choice_of("lstm-after") == "LSTM after"
    assert words.choice_of("lookup") == "article lookup"
    assert words.family_of("lstm-before") == "LSTM"
    assert words.title_of("mine") == words.choice_of("mine") == "mine"


def test_every_method_and_loss_has_a_name_for_people() -> None:
    assert {*METHODS, *LOSSES} <= set(trained_words.VALUES)
