"""The programs of examples/ run, and say what they should."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_listed_and_tested() -> None:
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("*.py"):
        assert f"({path.name})" in listed
        assert f'"{path.stem}"' in Path(__file__).read_text(encoding="utf-8")


@pytest.mark.slow  # a process of its own
def test_a_race() -> None:
    last = run("race_in_ten_lines").splitlines()[-3:]
    calls = [int(line[14:].split()[0]) for line in last]
    texts = {line.split(" calls ")[1] for line in last}
    assert len(texts) == 1
    assert calls[0] > 2 * max(calls[1:])


@pytest.mark.slow  # a process of its own
def test_a_custom_drafter() -> None:
    alone, helped = (
        int(word)
        for word in run("custom_drafter").splitlines()[-1].replace(",", "").split()
        if word.isdigit()
    )
    assert helped < alone


@pytest.mark.slow  # a process of its own
def test_distilling_for_flan_shows_what_it_takes(
    tiny_folder: str, story: str, tmp_path: Path
) -> None:
    summary = story[: story.index(" Fire crews")] + " " + story.split(". ")[2] + "."
    row = json.dumps({"id": "s", "article": story, "highlights": summary})
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(f"{row}\n" * 8)
    told = run(
        "distil_flan_t5", "--dry-run", "--target", tiny_folder, "--student", tiny_folder,
        "--data", str(tmp_path), "--device", "cpu", "--load_in", "fp32",
        "--source_length", "80", "--length", "12",
        "--pseudo_dataset_path", str(tmp_path / "pseudo"), "--run", str(tmp_path / "run"),
    )  # fmt: skip
    assert "hours on 8 GPUs" in told
    assert not (tmp_path / "pseudo").exists()
