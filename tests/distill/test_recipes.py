"""The recipes that ship, and `make checkpoints`, which runs them all."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_windows import write_tiny_windows

from fastllm.checkpoints import load_drafter, load_target
from fastllm.cli.main import build_parser
from fastllm.distill.options import read_yaml, settle
from fastllm.pretrain.curriculum import TargetRecipe
from fastllm.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
BEFORE = [path for path in RECIPES if path.stem.endswith("-before")]


def _make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-o", ".venv/.fastllm-demo", f"RUN={sys.executable}", "checkpoints", *arguments],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_holds_options_that_there_are(path: Path) -> None:
    tree = read_yaml(path)
    if "stages" in tree:
        assert TargetRecipe.from_tree(tree).name
        return
    commands = ("train", "pseudo") if "pseudo" in tree else ("train",)
    for command in commands:
        options = build_parser().parse_args([command, "--recipe", str(path)])
        settle(options)
        assert command == "pseudo" or options.exp_name


@pytest.mark.parametrize("path", BEFORE, ids=lambda path: path.stem)
def test_before_and_after_differ_in_the_training_signal_alone(path: Path) -> None:
    before = yaml.safe_load(path.read_text())
    after = yaml.safe_load(path.with_name(path.name.replace("-before", "-after")).read_text())
    differing = {name for name in before | after if before.get(name) != after.get(name)}
    assert {"exp_name", "distill_method"} <= differing
    assert differing <= {"exp_name", "distill_method", "loss", "lambda1", "lambda2"}


def test_make_checkpoints_runs_every_recipe_with_options_that_there_are() -> None:
    shown = _make("-n", "DATA=news", "SCALE=0.5")
    assert shown.returncode == 0, shown.stderr
    text = shown.stdout.replace("\\\n", " ")
    for path in RECIPES:
        # FLAN's is for a GPU; a cascade, a smaller target and what goes on from a drafter that is
        # there are no part of it.
        others = ("flan-", "cascade-", "target-", "lstm-tvdpp", "pruned-")
        assert (f"recipes/{path.name}" in text) != path.stem.startswith(others)
    commands = [
        line.split("-m fastllm ")[1] for line in text.replace(";", "\n").splitlines()
        if "-m fastllm " in line
    ]  # fmt: skip
    assert len(commands) == 3
    for command in commands:
        options = build_parser().parse_args(shlex.split(command))
        assert options.scale == 0.5


def _tiny_target(folder: Path, story: str, vocabulary: Vocabulary) -> tuple[Path, Path]:
    """A recipe of a target, and windows for it."""
    stage = {"name": "one", "source_length": 96, "mixture": {"start": 1}, "updates": 9, "batch": 4}
    tree = {"name": "mini", "vocabulary_size": 600, "width": 48, "encoder_layers": 1,
            "decoder_layers": 1, "feed_forward": 32, "stages": [stage]}  # fmt: skip
    recipe = folder / "mini.yaml"
    recipe.write_text(yaml.safe_dump(tree))
    return recipe, write_tiny_windows(folder / "windows", story, vocabulary)


@pytest.mark.slow
def test_make_gpu_tries_everything_on_a_cpu(
    data: Path, story: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    recipe, windows = _tiny_target(tmp_path, story, vocabulary)
    out = tmp_path / "out"
    environment = {
        **os.environ, "RECIPE": str(recipe), "ARTICLES_DATA": str(data), "ARTICLES": "12",
        "STEPS": "rates train label drafters", "BATCHES": "4", "DRAFTERS": "lstm cnn",
    }  # fmt: skip
    command = ["make", "-o", ".venv/.fastllm-test", f"RUN={sys.executable}", "gpu"]
    command += [f"DATA={windows}", f"OUT={out}", "SCALE=0.001"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert load_target(out / "target" / "checkpoint", device="cpu").name == "mini"
    for name in ("lstm-before", "lstm-after", "cnn-before", "cnn-after"):
        assert load_drafter(out / "made" / name, device="cpu").name
    assert len((out / "summary.txt").read_text().splitlines()) == 4
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0
    assert "windows_per_second" in done.stdout
    assert "windows_per_second" not in again.stdout, "what is done is passed over"


@pytest.mark.slow
def test_make_checkpoints_trains_everything_and_goes_on(
    data: Path, story: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    recipe, windows = _tiny_target(tmp_path, story, vocabulary)
    news = tmp_path / "news"
    news.mkdir()
    for path in data.iterdir():  # a first sentence long enough to be a summary
        longer = path.read_text().replace("Friday night,", "Friday night after a long dry summer,")
        (news / path.name).write_text(longer)
    shutil.copytree(windows, news, dirs_exist_ok=True, ignore=lambda *_: ["validation"])
    asked = [f"DATA={news}", f"RUNS={tmp_path}", "SCALE=0.001", f"TARGET={recipe}"]
    first = _make(*asked)
    assert first.returncode == 0, first.stdout + first.stderr
    target = load_target(tmp_path / "target" / "checkpoint", device="cpu")
    drafters = sorted(path for path in (tmp_path / "made").iterdir())
    assert [path.name for path in drafters] == sorted(
        path.stem for path in RECIPES if path.stem.endswith(("-before", "-after"))
    )
    weights = {}
    for folder in drafters:
        assert load_drafter(folder, device="cpu").vocabulary == target.vocabulary.fingerprint
        if (folder / "model.safetensors").exists():
            weights[folder] = (folder / "model.safetensors").read_bytes()
    again = _make(*asked)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2/2" in first.stdout
    assert "2/2" not in again.stdout
    assert all((at / "model.safetensors").read_bytes() == before for at, before in weights.items())
