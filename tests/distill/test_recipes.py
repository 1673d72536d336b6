"""The recipes that ship, and `make checkpoints`, which runs them all."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fastllm.checkpoints import load_drafter, load_target
from fastllm.cli.main import build_parser
from fastllm.distill.options import read_yaml, settle
from fastllm.pretrain.curriculum import TargetRecipe

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
        # FLAN's is for a GPU; neither it nor a cascade is part of what ships.
        assert (f"recipes/{path.name}" in text) != path.stem.startswith(("flan-", "cascade-"))
    commands = [
        line.split("-m fastllm ")[1] for line in text.replace(";", "\n").splitlines()
        if "-m fastllm " in line
    ]  # fmt: skip
    assert len(commands) == 3
    for command in commands:
        options = build_parser().parse_args(shlex.split(command))
        assert options.scale == 0.5


@pytest.mark.slow
def test_make_checkpoints_trains_everything_and_goes_on(data: Path, tmp_path: Path) -> None:
    news = tmp_path / "news"
    news.mkdir()
    for path in data.iterdir():  # a first sentence long enough to be a summary
        longer = path.read_text().replace("Friday night,", "Friday night after a long dry summer,")
        (news / path.name).write_text(longer)
    asked = [f"DATA={news}", f"RUNS={tmp_path}", "SCALE=0.001"]
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
