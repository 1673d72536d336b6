"""What the README tells people to type, open and import exists and works."""

import contextlib
import io
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from fastllm.cli.main import build_parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
CODE = [text for _, text in BLOCKS] + re.findall(r"`([^`\n]+)`", README)
"""Every piece of code in the README, block or inline."""

TARGETS = sorted({name for text in CODE for name in re.findall(r"^make (\w+)", text, re.MULTILINE)})
COMMANDS = sorted(
    {
        (name, rest.split("#")[0].strip())
        for text in CODE
        for name, rest in re.findall(r"python3? -m fastllm (\w+)(.*)", text)
    }
)
SNIPPETS = [text for language, text in BLOCKS if language == "python"]
LINKS = sorted(set(re.findall(r"\]\((?!https?:|#)([^)#]+)", README)))


@cache
def usage(command: str) -> str:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as left:
        build_parser([command]).parse_args([command, "--help"])
    assert left.value.code == 0
    return shown.getvalue()


def test_the_readme_names_commands() -> None:
    assert {"demo", "test"} <= set(TARGETS)
    assert {"train", "pseudo", "eval", "run"} <= {name for name, _ in COMMANDS}
    assert SNIPPETS


@pytest.mark.parametrize("target", TARGETS)
def test_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize(("command", "rest"), COMMANDS)
def test_command_and_its_options_exist(command: str, rest: str) -> None:
    known = set(re.findall(r"--[a-z][a-z-]*", usage(command)))
    assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= known


@pytest.mark.parametrize("path", LINKS)
def test_link_leads_to_a_file(path: str) -> None:
    assert (ROOT / path).exists()


def test_files_in_commands_exist() -> None:
    named = {name for text in CODE for name in re.findall(r"[\w/]*requirements\.txt", text)}
    named |= {name for text in CODE for name in re.findall(r"constraints\.txt|app\.py", text)}
    assert not [name for name in sorted(named) if not (ROOT / name).is_file()]


def test_repository_map_is_true() -> None:
    section = README.split("## Repository map")[1].split("```")[1]
    folders = [""]
    for line in section.strip("\n").splitlines():
        indent = len(line) - len(line.lstrip(" "))
        name = line.split()[0]
        path = folders[0] + name if indent == 0 else folders[-1] + name
        assert (ROOT / path).exists(), f"{path} is in the map only"
        if indent == 0 and name.endswith("/"):
            folders = ["", name]


def test_python_snippets_run_one_behind_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    known = {"__name__": "readme"}
    for snippet in SNIPPETS:
        if "gradio_client" not in snippet:
            exec(compile(snippet, "<README snippet>", "exec"), known)
            assert capsys.readouterr().out


def test_the_snippet_that_asks_the_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (snippet,) = (snippet for snippet in SNIPPETS if "gradio_client" in snippet)
    monkeypatch.chdir(ROOT)
    limits = {"FASTLLM_SECONDS_PER_RUN": "600", "FASTLLM_COMPARE_SECONDS": "600"}
    server = subprocess.Popen(
        [sys.executable, "-u", "app.py", "--device", "cpu"],
        env=os.environ | limits,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            assert server.stdout is not None
            found = (re.search(r"http://\S+", line) for line in server.stdout)
            address = next(match[0] for match in found if match)
            exec(compile(snippet.replace("http://127.0.0.1:7860", address), "<README>", "exec"), {})
        finally:
            server.terminate()
    said = capsys.readouterr().out
    assert "LSTM after distillation" in said
    assert "'low'" in said
