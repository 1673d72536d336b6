"""`fastllm deploy` against a Hub on this machine, and the page from the folder that it sends."""

import argparse
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_hub
import pytest
import yaml
from fake_hub import FakeHub

from fastllm import paths
from fastllm.errors import FastLLMError, HubError, SettingsError
from fastllm.hub import deploy, upload

# The Hub's client sends files in a way that its own library for HTTP is about to give up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

SPACE = f"{fake_hub.OWNER}/race"
WAIT = 300.0
"""Seconds after which a page that says nothing is taken to have failed."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    with fake_hub.running() as hub:
        yield hub


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small repository with something that must not go to a Space in every corner."""
    files = {
        "app.py": "print('page')\n",
        "requirements.txt": "# ranges\ngradio>=6\ntorch>=2.8,<3\ntransformers>=5\n",
        "LICENSE": "Apache\n",
        "README.md": "---\ntitle: old\n---\n\n# Mill\n\n![race](assets/screenshot.png)\n",
        "Spacefile": yaml.safe_dump(
            {
                "title": "Mill",
                "emoji": "🏁",
                "sdk": "gradio",
                "python_version": "3.12",
                "suggested_hardware": "cpu-basic",
                "variables": {"OMP_NUM_THREADS": "2"},
                "limits": {"lanes": 4},
                "serve": {},
                "zero_gpu": {"python_version": "3.12.12", "torch": ">=2.8,<2.12"},
            },
            allow_unicode=True,
        ),
        "fastllm/__init__.py": "",
        "fastllm/demo/page.py": "# page\n",
        "fastllm/demo/static/style.css": "p {}\n",
        "fastllm/__pycache__/x.pyc": "no",
        "tests/test_x.py": "no",
        "recipes/x.yaml": "no",
        "assets/screenshot.png": "shown",
        "assets/thumbnail.png": "shared",
        "assets/other.png": "no",
        "assets/.DS_Store": "no",
        "assets/checkpoints/a/model.safetensors": "weights" * 500,
        "assets/checkpoints/a/training.jsonl": "no",
    }
    for name, text in files.items():
        path = tmp_path / "clone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "clone"


def contents(plan: deploy.Plan) -> dict[str, bytes]:
    return {path: upload.content_of(entry) for path, entry in plan.files.items()}


def sent(hub: FakeHub) -> dict[str, bytes]:
    files = dict(hub.repositories["space", SPACE].files)
    del files[upload.KEPT]
    return files


def card_of(readme: bytes) -> tuple[dict[str, Any], str]:
    _, head, body = readme.decode().split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_plan_holds_what_the_page_needs_and_nothing_else(clone: Path) -> None:
    assert set(deploy.plan(SPACE, root=clone).files) == {
        "LICENSE",
        "README.md",
        "Spacefile",
        "app.py",
        "assets/checkpoints/a/model.safetensors",
        "assets/screenshot.png",
        "assets/thumbnail.png",
        "fastllm/__init__.py",
        "fastllm/demo/page.py",
        "fastllm/demo/static/style.css",
        "requirements.txt",
    }


def test_the_card_is_the_spacefile(clone: Path) -> None:
    card, body = card_of(contents(deploy.plan(SPACE, root=clone))["README.md"])
    assert card.pop("thumbnail").endswith(f"{SPACE}/resolve/main/assets/thumbnail.png")
    told = yaml.safe_load((clone / "Spacefile").read_text("utf-8"))
    assert card == {key: value for key, value in told.items() if key not in deploy.SETTINGS}
    assert body.strip() == "# Mill\n\n![race](assets/screenshot.png)"


def test_zero_gpu_gets_the_versions_it_has(clone: Path) -> None:
    plan = deploy.plan(SPACE, hardware="zero-a10g", root=clone)
    card, _ = card_of(contents(plan)["README.md"])
    assert (card["python_version"], card["suggested_hardware"]) == ("3.12.12", "zero-a10g")
    assert b"\ntorch>=2.8,<2.12\n" in contents(plan)["requirements.txt"]
    assert b"torch>=2.8,<3" not in contents(plan)["requirements.txt"]


def test_the_shipped_space_is_complete_and_no_file_is_too_large() -> None:
    plan = deploy.plan(SPACE)
    page = {f"fastllm/demo/{name}.py" for name in ("page", "engine", "limits", "rows")}
    assert page | {"app.py", "assets/checkpoints/target/tokenizer.json"} <= set(plan.files)
    demo = paths.ROOT / "fastllm" / "demo"
    scripts = {path for ending in ("js", "css") for path in demo.rglob(f"*.{ending}")}
    assert {path.relative_to(paths.ROOT).as_posix() for path in scripts} <= set(plan.files)
    assert not [path for path in plan.files if path.startswith(("tests", "recipes", "runs"))]
    assert max(map(upload.size_of, plan.files.values())) < 10_000_000


def test_what_arrives_is_the_plan_byte_for_byte(hub: FakeHub, clone: Path) -> None:
    plan = deploy.plan(SPACE, variables={"FASTLLM_LANES": "3"}, root=clone)
    address = deploy.deploy(plan, endpoint=hub.endpoint)
    assert address == f"{hub.endpoint}/spaces/{SPACE}"
    assert sent(hub) == contents(plan)
    space = hub.repositories["space", SPACE]
    assert (space.sdk, space.hardware, space.private) == ("gradio", "cpu-basic", False)
    assert space.variables == {"OMP_NUM_THREADS": "2", "FASTLLM_LANES": "3"}
    assert len(space.commits) == 1
    assert set(hub.large.values()) == {b"weights" * 500, b"shown", b"shared"}


def test_a_second_deployment_removes_what_is_gone(hub: FakeHub, clone: Path) -> None:
    deploy.deploy(deploy.plan(SPACE, root=clone), endpoint=hub.endpoint)
    (clone / "fastllm" / "demo" / "page.py").unlink()
    (clone / "app.py").write_text("print('new')\n")
    plan = deploy.plan(SPACE, root=clone)
    deploy.deploy(plan, endpoint=hub.endpoint)
    assert sent(hub) == contents(plan)
    assert upload.KEPT in hub.repositories["space", SPACE].files
    assert len(hub.repositories["space", SPACE].commits) == 2


def test_what_has_not_changed_is_not_sent_again(hub: FakeHub, clone: Path) -> None:
    plan = deploy.plan(SPACE, root=clone)
    deploy.deploy(plan, endpoint=hub.endpoint)
    hub.requests.clear()
    deploy.deploy(plan, endpoint=hub.endpoint)
    assert len(hub.repositories["space", SPACE].commits) == 1
    assert not [line for line in hub.requests if line.startswith("PUT") or "commit" in line]


def test_other_hardware_is_asked_for(hub: FakeHub, clone: Path) -> None:
    deploy.deploy(deploy.plan(SPACE, root=clone), endpoint=hub.endpoint)
    hub.paying = True
    deploy.deploy(deploy.plan(SPACE, hardware="t4-small", root=clone), endpoint=hub.endpoint)
    assert hub.repositories["space", SPACE].hardware == "t4-small"


def test_a_private_space(hub: FakeHub, clone: Path) -> None:
    deploy.deploy(deploy.plan(SPACE, root=clone), private=True, endpoint=hub.endpoint)
    assert hub.repositories["space", SPACE].private


def test_hardware_that_is_not_paid_for(hub: FakeHub, clone: Path) -> None:
    plan = deploy.plan(SPACE, hardware="t4-small", root=clone)
    with pytest.raises(HubError, match=r"creating .* 402 .*t4-small has to be paid for"):
        deploy.deploy(plan, endpoint=hub.endpoint)
    deploy.deploy(deploy.plan(SPACE, root=clone), endpoint=hub.endpoint)
    with pytest.raises(HubError, match=r"asking for t4-small .* 402"):
        deploy.deploy(plan, endpoint=hub.endpoint)


def test_an_owner_one_may_not_write_to(hub: FakeHub, clone: Path) -> None:
    with pytest.raises(HubError, match=r"403 .*write access"):
        deploy.deploy(deploy.plan("other/race", root=clone), endpoint=hub.endpoint)


def test_a_token_that_is_not_valid(hub: FakeHub, clone: Path) -> None:
    plan = deploy.plan(SPACE, root=clone)
    with pytest.raises(HubError, match=r"401 .*hf auth login"):
        deploy.deploy(plan, endpoint=hub.endpoint, token="hf_bad")


def test_no_token(hub: FakeHub, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(HubError, match="no token"):
        deploy.deploy(deploy.plan(SPACE, root=clone), endpoint=hub.endpoint)
    assert not hub.requests


def test_nobody_answers(hub: FakeHub, clone: Path) -> None:
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(HubError, match="cannot be reached"):
        deploy.deploy(deploy.plan(SPACE, root=clone), endpoint=hub.endpoint)


def test_a_card_that_the_hub_does_not_take(hub: FakeHub, clone: Path) -> None:
    plan = deploy.plan(SPACE, root=clone)
    bad = deploy.Plan(SPACE, "gradio", "cpu-basic", {}, {**plan.files, "README.md": b"# no head"})
    with pytest.raises(HubError, match="no front matter"):
        deploy.deploy(bad, endpoint=hub.endpoint)
    assert not hub.repositories["space", SPACE].commits


@pytest.mark.parametrize("name", ["race", "a/b/c", "a/b c", "../x", "a/..", "", "a/<b>"])
def test_a_name_that_is_none(name: str, clone: Path) -> None:
    with pytest.raises(SettingsError, match="OWNER/NAME"):
        deploy.plan(name, root=clone)


@pytest.mark.parametrize("name", ["nope", "", "T4-small"])
def test_hardware_that_the_hub_does_not_have(name: str, clone: Path) -> None:
    with pytest.raises(SettingsError, match=rf"hardware '{name}': .* knows cpu-basic, .*t4-small"):
        deploy.plan(SPACE, hardware=name, root=clone)


@pytest.mark.parametrize("missing", ["app.py", "LICENSE", "README.md", "Spacefile"])
def test_a_folder_that_is_no_clone(missing: str, clone: Path) -> None:
    (clone / missing).unlink()
    with pytest.raises(SettingsError, match=missing):
        deploy.plan(SPACE, root=clone)


@pytest.mark.parametrize("told", ["[", "a list", "sdk: gradio\n"])
def test_a_spacefile_that_says_too_little(told: str, clone: Path) -> None:
    (clone / "Spacefile").write_text(told)
    with pytest.raises(SettingsError, match="Spacefile"):
        deploy.plan(SPACE, root=clone)


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    deploy.add_arguments(parser.add_subparsers())
    return parser.parse_args(["deploy", *arguments])


def test_a_dry_run_shows_the_plan_and_sends_nothing(
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    folder = tmp_path / "space"
    options = parsed(
        "--space", SPACE, "--hardware", "zero-a10g", "--dry-run", "--to", str(folder),
        "--variable", "FASTLLM_TARGET=google/flan-t5-xl",
    )  # fmt: skip
    options.handle(options)
    shown = capsys.readouterr().out
    for words in (SPACE, "zero-a10g", "  FASTLLM_TARGET=google/flan-t5-xl", "nothing was sent"):
        assert words in shown
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    listed = dict(
        reversed(found) for found in re.findall(r"(?m)^ *([\d,]+)  (\S+/\S+|\S+\.\w+)$", shown)
    )
    assert files - {"LICENSE", "Spacefile"} == set(listed)
    assert all(
        int(size.replace(",", "")) == (folder / name).stat().st_size
        for name, size in listed.items()
    )
    assert not hub.requests


def test_the_command_deploys(
    hub: FakeHub,
    clone: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    monkeypatch.setattr(deploy.plan, "__kwdefaults__", deploy.plan.__kwdefaults__ | {"root": clone})
    options = parsed("--space", SPACE)
    options.handle(options)
    assert f"the Space is at {hub.endpoint}/spaces/{SPACE}" in capsys.readouterr().out
    assert sent(hub) == contents(deploy.plan(SPACE))


@pytest.mark.parametrize("entry", ["X", "x=1", "1X=2", "=3"])
def test_a_variable_that_is_none(entry: str) -> None:
    with pytest.raises(SettingsError, match="NAME=VALUE"):
        deploy.variables_of([entry])


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(FastLLMError, match="not empty"):
        upload.write({"a": b"a"}, tmp_path)


@pytest.mark.slow  # boots the page
def test_the_page_comes_up_from_exactly_the_uploaded_folder(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    upload.write(deploy.plan(SPACE).files, folder)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    page = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    guard = threading.Timer(WAIT, page.kill)
    guard.start()
    try:
        assert page.stdout is not None
        said: list[str] = []
        address = ""
        for line in page.stdout:  # ends with the page, so a crash is seen at once
            said.append(line)
            if found := re.search(r"FastLLM is at (\S+)", line):
                address = found[1]
            if address and any("ready" in line for line in said):
                break
        assert address, "".join(said)
        assert any("fastllm-t5-9m is on" in line for line in said), "".join(said)
        with urllib.request.urlopen(address, timeout=WAIT) as answer:
            assert b"FastLLM" in answer.read()
        with urllib.request.urlopen(f"{address}config", timeout=WAIT) as answer:
            config = answer.read().decode()
        assert "lstm-after" in config
        assert "/race" in config or '"race"' in config
    finally:
        guard.cancel()
        page.terminate()
        page.wait(WAIT)
        page.stdout.close()
