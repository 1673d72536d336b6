"""What ships: whole, of one vocabulary, and exact. The full check is `eval --check-generate`."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from fastllm import paths
from fastllm.checkpoints import SHIPPED, load_drafter, load_target, read_card, shipped_drafters
from fastllm.decoding.race import Race
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

SAMPLES = sorted(paths.ARTICLES.glob("*.txt"))
NEURAL = ("cnn", "lstm", "shared", "t5")
UNTRAINED = "pruned"
EXPECTED = sorted(
    [
        UNTRAINED,
        "pruned-after",
        *(f"{family}-{when}" for family in (*NEURAL, "ngram") for when in ("after", "before")),
    ]
)


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
        assert (card["articles"] > 1000) is (name != UNTRAINED)


@pytest.mark.parametrize("family", NEURAL)
def test_before_and_after_differ_in_the_training_signal_alone(family: str) -> None:
    before, after = read_card(f"{family}-before"), read_card(f"{family}-after")
    signal = ("method",)
    assert {key: value for key, value in before["recipe"].items() if key not in signal} == {
        key: value for key, value in after["recipe"].items() if key not in signal
    }
    assert before["articles"] == after["articles"]
    assert before["parameters"] == after["parameters"]
    assert before["method"] != after["method"]


@pytest.mark.parametrize("family", NEURAL)
def test_curves_belong_to_the_weights(family: str) -> None:
    for name in (f"{family}-before", f"{family}-after"):
        lines = (SHIPPED / name / "training.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == read_card(name)["recipe"]["updates"]


def test_everything_committed_is_small_enough_for_a_plain_push() -> None:
    sizes = {path: path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()}
    assert max(sizes.values()) < 10_000_000
    assert sum(sizes.values()) < 80_000_000
    for family in NEURAL:
        for when in ("before", "after"):
            folder = SHIPPED / f"{family}-{when}"
            assert sum(size for path, size in sizes.items() if folder in path.parents) < 4_000_000


@pytest.mark.parametrize(
    ("article", "gammas"),
    [
        pytest.param(SAMPLES[0], (5,), id="one"),
        *(pytest.param(path, (1, 5, 8), id=path.stem, marks=pytest.mark.slow) for path in SAMPLES),
    ],
)
def test_every_lane_writes_what_generate_writes(
    target: HubTarget, article: Path, gammas: tuple[int, ...]
) -> None:
    text = article.read_text(encoding="utf-8")
    drafters = [None, load_drafter("lookup"), *(load_drafter(n, device="cpu") for n in EXPECTED)]
    source = target.vocabulary.encode(text, target.source_length, target.prefix).ids
    with torch.inference_mode():
        expected = target.model.generate(
            torch.tensor([source]), do_sample=False, max_new_tokens=64
        )[0, 1:].tolist()
    for gamma in gammas:
        config = DecodingConfig(gamma=gamma, max_new_tokens=64)
        race = Race(target, drafters, text, config, statistics=False)
        for _ in race:
            pass
        for trace in race.traces():
            assert list(trace.tokens) == expected, (trace.drafter, gamma)


SUMS = dict(
    reversed(line.split(maxsplit=1))
    for line in (SHIPPED / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
)


def test_every_file_of_weights_has_a_checksum() -> None:
    files = [*SHIPPED.glob("*/*.safetensors"), *SHIPPED.glob("*/*.npz")]
    assert files
    assert sorted(SUMS) == sorted(path.relative_to(SHIPPED).as_posix() for path in files)


@pytest.mark.parametrize("name", sorted(SUMS))
def test_the_weights_are_those_that_shipped(name: str) -> None:
    assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() == SUMS[name]
