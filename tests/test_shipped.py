"""What ships: whole, of one vocabulary, and exact. The full check is `eval --check-generate`."""

import json
from pathlib import Path

import pytest
import torch

from fastllm.checkpoints import SHIPPED, load_drafter, load_target, read_card, shipped_drafters
from fastllm.race import Race
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

SAMPLES = sorted((SHIPPED.parent / "articles").glob("*.txt"))
EXPECTED = ["lstm-after", "lstm-before", "ngram-after", "ngram-before"]


@pytest.fixture(scope="module")
def target() -> HubTarget:
    """The shipped target, on the CPU, where equality is exact."""
    return load_target(device="cpu")


def test_everything_that_the_readme_names_ships(target: HubTarget) -> None:
    assert shipped_drafters() == EXPECTED
    assert target.name == "fastllm-t5-9m"
    for name in EXPECTED:
        drafter = load_drafter(name, device="cpu")
        assert drafter.vocabulary == target.vocabulary.fingerprint
        card = read_card(name)
        assert card["target"] == target.name
        assert card["articles"] > 1000


def test_before_and_after_differ_in_the_training_signal_alone() -> None:
    before, after = read_card("lstm-before"), read_card("lstm-after")
    signal = ("method",)
    assert {key: value for key, value in before["recipe"].items() if key not in signal} == {
        key: value for key, value in after["recipe"].items() if key not in signal
    }
    assert before["articles"] == after["articles"]
    assert before["parameters"] == after["parameters"]
    assert before["method"] != after["method"]


def test_curves_belong_to_the_weights() -> None:
    for name in ("lstm-before", "lstm-after"):
        lines = (SHIPPED / name / "training.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == read_card(name)["recipe"]["updates"]


@pytest.mark.parametrize("article", SAMPLES[:2], ids=lambda path: path.stem)
def test_every_lane_writes_what_generate_writes(target: HubTarget, article: Path) -> None:
    text = article.read_text()
    drafters = [None, load_drafter("lookup"), *(load_drafter(n, device="cpu") for n in EXPECTED)]
    source = target.vocabulary.encode(text, target.source_length, target.prefix).ids
    with torch.inference_mode():
        expected = target.model.generate(
            torch.tensor([source]), do_sample=False, max_new_tokens=64
        )[0, 1:].tolist()
    for gamma in (1, 5, 8):
        config = DecodingConfig(gamma=gamma, max_new_tokens=64)
        race = Race(target, drafters, text, config, statistics=False)
        for _ in race:
            pass
        for trace in race.traces():
            assert list(trace.tokens) == expected, (trace.drafter, gamma)
