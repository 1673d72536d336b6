"""The package as pip installs it: what it asks for, what it holds, and that it works elsewhere."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import fastllm
from fastllm import paths

ROOT = Path(__file__).resolve().parent.parent
EXTRAS_OF_THE_SPACE = ("demo", "train", "quant")

OUTSIDE = """
import sys

BARRED = {"gradio", "rouge_score", "nltk", "absl", "bitsandbytes", "plotly", "spacy", "accelerate"}


class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in BARRED else self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]

import fastllm
from fastllm import paths

print(fastllm.__file__)
print(fastllm.generate(sorted(paths.ARTICLES.glob("*.txt"))[0].read_text("utf-8")).text)
"""
"""A program that has none of the libraries of the extras."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: dict[str, Any] = told["project"]
    return found


def test_core_and_extras_are_what_the_space_installs(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    ours = [*project["dependencies"], *(r for name in EXTRAS_OF_THE_SPACE for r in extras[name])]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    theirs = [line for line in lines if line and not line.startswith("#")]
    assert {str(Requirement(line)) for line in ours} == {str(Requirement(line)) for line in theirs}


def test_the_core_asks_for_nothing_that_only_the_extras_need(project: dict[str, Any]) -> None:
    core = {Requirement(line).name for line in project["dependencies"]}
    assert not core & {"gradio", "plotly", "rouge-score", "bitsandbytes", "accelerate", "spacy"}


def test_every_public_name_is_there_and_listed() -> None:
    assert set(fastllm._PLACES) == set(fastllm.__all__) - {"__version__"}
    for name in fastllm.__all__:
        assert getattr(fastllm, name)


def test_a_clone_finds_its_own_assets() -> None:
    assert paths.ROOT == ROOT
    assert ROOT / "assets" == paths.ASSETS
    for path in (paths.SPACEFILE, paths.CHECKPOINTS, paths.ARTICLES, paths.RECORDED, paths.PAGE):
        assert path.exists()


@pytest.mark.slow  # builds a wheel of 38 MB and installs it
def test_a_wheel_works_outside_a_clone(tmp_path: Path) -> None:
    def pip(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pip", *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    source = tmp_path / "source"  # a build leaves its folders where it runs
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(ROOT / name)
    offline = ("--no-deps", "--no-index", "--quiet")
    pip("wheel", str(source), "--no-build-isolation", "--wheel-dir", str(tmp_path), *offline)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as held:
        names = set(held.namelist())
    package = {path for path in paths.PACKAGE.rglob("*") if path.suffix in (".py", ".js", ".css")}
    assets = {path for folder in ("checkpoints", "articles", "recorded")
              for path in (paths.ASSETS / folder).rglob("*") if path.is_file()}  # fmt: skip
    assert {path.relative_to(ROOT).as_posix() for path in package} <= names
    assert {f"fastllm/{path.relative_to(ROOT).as_posix()}" for path in assets} <= names
    assert {"fastllm/py.typed", "fastllm/Spacefile"} <= names
    assert not {name for name in names if name.startswith(("tests/", "tools/", "assets/"))}

    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip("install", str(wheel), "--target", str(installed), *offline)
    environment = os.environ | {"PYTHONPATH": str(installed), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE], cwd=elsewhere, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    place, text = done.stdout.splitlines()
    assert Path(place).is_relative_to(installed)
    assert len(text.split()) > 10
    command = subprocess.run(
        [installed / "bin" / "fastllm", "run", "--help"], cwd=elsewhere, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert command.returncode == 0, command.stderr
    assert "--gamma" in command.stdout
