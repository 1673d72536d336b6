"""What a family of drafters says of itself is all that the rest needs: a new one proves it."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from fastllm.checkpoints import load_drafter, load_target
from fastllm.cli.lanes import lane_names
from fastllm.cli.main import main
from fastllm.decoding.proposals import Draft, OneHotProposal
from fastllm.decoding.race import Race
from fastllm.demo import words
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.learn.learn import students
from fastllm.demo.jobs import RaceJob
from fastllm.drafters import Drafter, FamilySpec, families, register, spec_of, trainable, untrained
from fastllm.drafters.lstm import LstmModel, LstmSettings
from fastllm.drafters.neural import NeuralDrafter
from fastllm.errors import CheckpointError, SettingsError
from fastllm.evaluation import report
from fastllm.hub import push
from fastllm.pretrained import from_pretrained
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig


class ToyDrafter(NeuralDrafter[LstmSettings]):
    """A family that only this file knows."""

    FAMILY: ClassVar[str] = "toy"
    SETTINGS: ClassVar[type] = LstmSettings
    MODEL: ClassVar[Any] = LstmModel


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> FamilySpec:
    monkeypatch.setattr("fastllm.drafters._families", {})
    spec = FamilySpec("toy", "Toy", "a toy network", ToyDrafter)
    register(spec)
    return spec


def test_a_new_family_is_trained_raced_and_shown(
    toy: FamilySpec, tiny_folder: str, story: str, tmp_path: Path
) -> None:
    nouns = ("mill", "library", "bridge", "museum", "harbour", "station", "theatre", "market")
    articles = [story.replace("mill", noun) for noun in nouns]
    rows = [{"id": n, "article": a, "highlights": a[:90]} for n, a in enumerate(articles)]
    data, folder = tmp_path / "data", tmp_path / "toy-after"
    data.mkdir()
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = main(
        ["train", "--drafter", "toy", "--exp_name", "toy-after", "--distill_method", "supervised"]
        + ["--target", tiny_folder, "--data", str(data), "--validation", "none", "--updates", "2"]
        + ["--batch", "4", "--length", "16", "--device", "cpu"]
        + ["--run", str(tmp_path / "run"), "--out", str(folder)]
    )
    assert code == 0
    drafter = load_drafter(folder, device="cpu")
    assert isinstance(drafter, ToyDrafter)
    config = DecodingConfig(max_new_tokens=12)
    race = Race(load_target(tiny_folder, device="cpu"), [None, drafter], story, config)
    list(race)
    alone, helped = race.traces()
    assert alone.tokens == helped.tokens
    assert sum(len(entry.drafted) for entry in helped.rounds) > 0

    engine = LocalEngine(tiny_folder, drafters={"toy-after": str(folder)})
    engine.start()
    assert engine.keys == ["alone", *untrained(), "toy-after"]
    lines = engine.lines(RaceJob(story, ("alone", "toy-after"), config), threading.Event())
    start = json.loads("".join(lines).splitlines()[0])
    lane = start["lanes"][1]
    assert (lane["key"], lane["title"]) == ("toy-after", "Toy after distillation")
    assert students(engine.keys) == ("toy-after",)
    assert report.lane_label("toy-after") == "Toy after"
    assert "a toy network" in push.package(str(folder), "somebody/toy").card


class ParrotDrafter(Drafter):
    """Repeats what followed the last word where it stood before in the text; nothing is trained."""

    name = "parrot"
    vocabulary = ""

    def begin(self, encoding: Encoding) -> "ParrotDrafter":
        return self

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        places = [at for at, token in enumerate(prefix[:-1]) if token == prefix[-1]]
        tokens = list(prefix[places[-1] + 1 :][:k]) if places else []
        return Draft(tokens, OneHotProposal(tokens))

    def accept(self, tokens: Sequence[int]) -> None:
        pass


def test_a_new_family_without_weights_goes_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: str, story: str
) -> None:
    monkeypatch.setattr("fastllm.drafters._families", {})
    shipped = untrained()
    register(
        FamilySpec(
            "parrot", "parrot", "what came before", ParrotDrafter, training="none", weights=()
        )
    )
    assert isinstance(load_drafter("parrot"), ParrotDrafter)
    assert load_drafter("parrot+lookup").name == "parrot+lookup"
    assert lane_names(None, [], "elsewhere", []) == [*shipped, "parrot"]
    config = DecodingConfig(max_new_tokens=24)
    race = Race(
        load_target(tiny_folder, device="cpu"), [None, load_drafter("parrot")], story, config
    )
    list(race)
    alone, helped = race.traces()
    assert alone.tokens == helped.tokens
    engine = LocalEngine(tiny_folder)
    assert engine.keys == ["alone", *shipped, "parrot"]
    assert words.size_of("parrot", "target") == "no weights"
    assert students(engine.keys) == ()
    assert report.lane_label("parrot") == "parrot, no training"
    assert from_pretrained("parrot").name == "parrot"


def test_the_families_describe_themselves() -> None:
    found = families()
    assert {"lookup", "lstm", "t5", "cnn", "shared", "block", "ngram"} <= set(found)
    for name, spec in found.items():
        assert spec.name == name
        assert spec.title
        assert spec.description.split()[0] in ("a", "an")
    assert trainable() == ["lstm", "t5", "cnn", "shared", "block"]
    assert [name for name, spec in found.items() if spec.bound_to_target] == ["shared", "block"]
    assert words.title_of("shared-after") == "shared encoder after distillation"
    assert words.title_of("lookup") == "article lookup (no training)"
    with pytest.raises(SettingsError, match="drafter 'magic': no such family"):
        spec_of("magic")
    with pytest.raises(SettingsError, match="there is a family 'lstm' already"):
        register(FamilySpec("lstm", "LSTM", "an LSTM", ToyDrafter))
    with pytest.raises(CheckpointError, match="saves nothing"):
        found["lookup"].drafter.load("somewhere")
