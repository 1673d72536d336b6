"""The hosted Space: its description, its front matter, what it installs, what it weighs."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from fastllm.checkpoints import SHIPPED
from fastllm.demo.limits import Models, read_models
from fastllm.trace import DecodingConfig

ROOT = Path(__file__).resolve().parent.parent

CARD = {
    "title",
    "emoji",
    "colorFrom",
    "colorTo",
    "sdk",
    "sdk_version",
    "python_version",
    "app_file",
    "short_description",
    "suggested_hardware",
    "license",
    "pinned",
    "models",
    "datasets",
    "tags",
}
"""The keys that Hugging Face reads from a README, as far as we use them."""

LIMITS = {
    "article_characters",
    "max_new_tokens",
    "lanes",
    "gamma",
    "seconds_per_run",
    "queue_size",
    "runs_per_minute",
    "turns_per_minute",
    "upload_bytes",
    "compare_articles",
    "compare_seconds",
    "training_seconds",
    "waiting",
    "body_bytes",
}
"""The names by which the page reads the limits."""

COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture(scope="module")
def space() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "Spacefile").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """The name and version of each line of constraints.txt."""
    pairs = [line.split("==") for line in lines_of("constraints.txt")]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt holds exact versions only"
    return {canonicalize_name(name): version for name, version in pairs}


def lines_of(file: str) -> list[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-r"))]


def test_front_matter_equals_spacefile(space: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    assert found, "README.md begins with front matter between two lines of ---"
    card = {key: value for key, value in space.items() if key in CARD}
    assert yaml.safe_load(found[1]) == card


def test_spacefile_has_every_key_and_no_other(space: dict[str, Any]) -> None:
    assert set(space) == CARD | {"variables", "limits", "network", "serve", "zero_gpu"}


def test_spacefile_values_are_what_hugging_face_takes(space: dict[str, Any]) -> None:
    assert space["sdk"] == "gradio"
    assert {space["colorFrom"], space["colorTo"]} <= COLOURS
    assert 0 < len(space["short_description"]) <= 60
    assert isinstance(space["pinned"], bool)
    for key in ("models", "datasets", "tags"):
        assert all(isinstance(entry, str) for entry in space[key])
    for key in ("sdk_version", "python_version", "emoji", "title", "suggested_hardware"):
        assert isinstance(space[key], str), f"{key} must be text: quote it"


def test_variables_are_text(space: dict[str, Any]) -> None:
    for name, value in space["variables"].items():
        assert re.fullmatch("[A-Z][A-Z0-9_]*", name)
        assert isinstance(value, str), f"{name} must be text: quote it"


def test_limits_are_known_and_within_the_settings(space: dict[str, Any]) -> None:
    limits = space["limits"]
    assert set(limits) == LIMITS
    assert all(type(value) is int and value > 0 for value in limits.values())
    DecodingConfig(gamma=limits["gamma"], max_new_tokens=limits["max_new_tokens"])
    assert DecodingConfig().gamma <= limits["gamma"]
    assert DecodingConfig().max_new_tokens <= limits["max_new_tokens"]


def test_zero_gpu_is_within_what_we_support(space: dict[str, Any]) -> None:
    """A Space there gets its own Python and torch; the rest of the requirements stays."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(space["zero_gpu"]) == {"python_version", "torch"}
    assert space["zero_gpu"]["python_version"] in SpecifierSet(project["requires-python"])
    (ours,) = [Requirement(line) for line in lines_of("requirements.txt") if line[:5] == "torch"]
    theirs = SpecifierSet(space["zero_gpu"]["torch"])
    known = [f"2.{minor}.{patch}" for minor in range(30) for patch in range(3)]
    accepted = [version for version in known if version in theirs]
    assert accepted
    assert all(version in ours.specifier for version in accepted)


def test_the_models_of_the_page_ship(space: dict[str, Any]) -> None:
    """What nobody has to download: the Space starts without the Hub."""
    models = read_models(ROOT / "Spacefile", {})
    assert models == Models()
    assert (SHIPPED / models.target / "config.json").is_file()


def test_app_file_exists(space: dict[str, Any]) -> None:
    assert (ROOT / space["app_file"]).is_file()


def test_space_runs_the_tested_gradio_on_a_supported_python(
    space: dict[str, Any], pins: dict[str, str]
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert space["sdk_version"] == pins["gradio"]
    assert space["python_version"] in SpecifierSet(project["requires-python"])


@pytest.mark.parametrize("file", ["requirements.txt", "tests/requirements.txt"])
def test_every_requirement_is_pinned_within_its_range(file: str, pins: dict[str, str]) -> None:
    for line in lines_of(file):
        wanted = Requirement(line)
        pin = pins.get(canonicalize_name(wanted.name))
        assert pin, f"{wanted.name} of {file} is not in constraints.txt"
        assert pin in wanted.specifier, f"{wanted.name}=={pin} is outside {wanted.specifier}"


def test_pins_are_public_versions(pins: dict[str, str]) -> None:
    """A local version ("2.13.0+cpu") exists only where one build of it does."""
    assert not [name for name, version in pins.items() if "+" in version]


def test_no_file_is_too_large_for_a_plain_push() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    files = [ROOT / name for name in listed.split("\0") if name]
    assert files
    large = [file.name for file in files if file.is_file() and file.stat().st_size >= 10_000_000]
    assert not large
