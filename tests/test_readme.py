"""What README and docs/ tell people to type, open and believe: it exists, it works, it is so."""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import app
from fastllm import paths
from fastllm.checkpoints import read_card
from fastllm.cli.main import build_parser
from tools import repository_map

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
README = TEXTS["README.md"]
RESULTS = TEXTS["docs/results.md"]
GPU = TEXTS["docs/gpu.md"]

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


VARIABLES = {"$name": "lstm", "$R": "recipes/flan-t5-xl-t5-small.yaml"}
"""Of the shell, in commands that are shown, with one of their values."""


def code_of(text: str) -> list[str]:
    """Every piece of code: the blocks, and what stands between backquotes."""
    text = repository_map.BLOCK.sub("", text)  # which quotes the files' own first lines
    prose = BLOCK.sub("", text)
    inline = [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose)]
    return [block for _, block in BLOCK.findall(text)] + inline


def command_lines(text: str) -> list[list[str]]:
    """Every shell command in words: continued lines joined, comments and variables' names gone."""
    found = []
    for code in code_of(text):
        for line in code.replace("\\\n", " ").splitlines():
            if "python" in line or re.match(r"(make|fastllm|train|pseudo|eval|bench) ", line):
                for name, value in VARIABLES.items():
                    line = line.replace(name, value)
                try:
                    found.append(shlex.split(line, comments=True))
                except ValueError:
                    continue  # a line of prose or of Python, with one quotation mark
    return [words for words in found if words]


COMMANDS = [(page, words) for page, text in TEXTS.items() for words in command_lines(text)]


def _after(words: list[str], *before: str) -> list[str] | None:
    """What follows `before` in a command; None where it is another command."""
    for at in range(len(words) - len(before) + 1):
        if tuple(words[at : at + len(before)]) == before:
            return words[at + len(before) :]
    return None


NAMES = ("train", "pseudo", "eval", "study", "bench", "run", "deploy", "push")


def _ours(words: list[str]) -> list[str] | None:
    """The arguments of `fastllm`, from a whole command or from one quoted by its name alone."""
    if words[0] in NAMES and any(word.startswith("--") for word in words):
        return words
    if words[0] == "fastllm" and len(words) > 1:
        return words[1:]
    return _after(words, "-m", "fastllm") or None


FASTLLM = [(page, ours) for page, words in COMMANDS if (ours := _ours(words))]
APP = [(page, rest) for page, words in COMMANDS if (rest := _after(words, "app.py"))]
TOOLS = sorted({word for _, words in COMMANDS for word in words if word.startswith("tools.")})
MAKE = [(page, words[1:]) for page, words in COMMANDS if words[0] == "make" and len(words) > 1]
SNIPPETS = [
    (page, block) for page, text in TEXTS.items() for kind, block in BLOCK.findall(text)
    if kind == "python"
]  # fmt: skip
LINKS = sorted(
    {
        (page, target)
        for page, text in TEXTS.items()
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    }
)


def _shown(part: str | list[str]) -> str:
    return part if isinstance(part, str) else " ".join(part)[:60]


def test_the_documents_show_what_they_should() -> None:
    """A pattern that finds nothing would pass every test below."""
    assert {words[0] for _, words in FASTLLM} >= set(NAMES)
    assert {target for _, rest in MAKE for target in rest[:1]} >= {"demo", "test", "checkpoints"}
    flags = {word for _, words in FASTLLM for word in words if word.startswith("--")}
    assert {"--pseudo_dataset_path", "--drafter-shape", "--distill_method"} <= flags
    assert APP
    assert TOOLS
    assert len(SNIPPETS) >= 4


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize(("page", "words"), FASTLLM, ids=_shown)
def test_a_command_is_one_that_the_parser_takes(page: str, words: list[str]) -> None:
    _, unknown = build_parser(words).parse_known_args(words)
    assert not unknown, f"{page}: {' '.join(words)}"


@pytest.mark.parametrize(("page", "words"), APP, ids=_shown)
def test_the_page_takes_the_flags_shown(page: str, words: list[str]) -> None:
    assert app._parser().parse_args(words), page


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_exists(name: str) -> None:
    assert (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.parametrize(("page", "words"), MAKE, ids=_shown)
def test_make_has_the_target_and_the_variables(page: str, words: list[str]) -> None:
    for word in words:
        name, given, _ = word.partition("=")
        pattern = rf"^{name} \?=|\$\({name}\)" if given else rf"^{name}:"
        assert re.search(pattern, MAKEFILE, re.MULTILINE), f"{page}: make {word}"


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_link_leads_to_a_file(page: str, target: str) -> None:
    assert (ROOT / page).parent.joinpath(target).exists()


def test_files_in_code_exist() -> None:
    pattern = r"(?<![\w/.-])(?:recipes|fastllm|tests|tools|assets|docs|examples)/[\w./-]*\w"
    named = {
        (page, name)
        for page, text in TEXTS.items()
        for code in code_of(text)
        for name in re.findall(rf"{pattern}|[\w/]*requirements\.txt|constraints\.txt|app\.py", code)
    }
    assert len(named) > 10
    missing = [f"{page}: {name}" for page, name in sorted(named) if not _there(name)]
    assert not missing


def _there(name: str) -> bool:
    return (ROOT / name).exists() or bool(re.search(r"NAME|YOUR", name))


def test_the_map_of_the_package_omits_no_file() -> None:
    document = TEXTS["docs/architecture.md"]
    assert repository_map.with_map(document) == document, "run python -m tools.repository_map"
    for path in paths.PACKAGE.rglob("*"):
        if path.suffix in repository_map.SUFFIXES and path.name != "__init__.py":
            assert f" {path.name} " in document


def test_the_map_of_the_repository_names_what_is_there() -> None:
    section = TEXTS["docs/architecture.md"].split("## The repository")[1].split("```")[1]
    for line in section.strip().splitlines():
        assert (ROOT / line.split()[0]).exists(), line


@pytest.mark.parametrize("page", sorted({page for page, _ in SNIPPETS}))
def test_python_snippets_run_one_after_the_other(
    page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    known: dict[str, Any] = {"__name__": "snippet"}
    for where, snippet in SNIPPETS:
        if where == page and "gradio_client" not in snippet:
            exec(compile(snippet, page, "exec"), known)
            assert capsys.readouterr().out


@pytest.mark.slow  # boots the page, races and compares on it
def test_the_snippet_that_asks_the_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (snippet,) = (snippet for _, snippet in SNIPPETS if "gradio_client" in snippet)
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
            exec(compile(snippet.replace("http://127.0.0.1:7860", address), "<page>", "exec"), {})
        finally:
            server.terminate()
    said = capsys.readouterr().out
    assert "LSTM after distillation" in said
    assert "'low'" in said


# The numbers.


def cells(text: str, first: str) -> list[str]:
    """The first row of a table that begins with `first`."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize(
    "lane",
    [
        "target alone",
        "article lookup, no training",
        "LSTM before",
        "LSTM after",
        "shared encoder after",
    ],
)
def test_the_readme_and_the_results_say_the_same(lane: str) -> None:
    calls, tau, alpha, decoding, encoded = cells(README, lane)[1:]
    whole = cells(RESULTS, lane)
    assert [calls, tau, alpha, decoding, encoded] == [whole[i] for i in (1, 3, 5, 7, 8)]


def test_the_ratio_that_the_readme_names_is_that_of_the_results() -> None:
    (said,) = re.findall(r"takes (\S+ \[.*?\]) times the calls", README)
    assert said == cells(RESULTS, "LSTM")[1]


def test_calls_and_tau_fit_together() -> None:
    """tau is tokens over calls: every row of one target writes the same number of tokens."""
    tokens = float(cells(RESULTS, "target alone")[1].split()[0])
    for lane in ("LSTM before", "LSTM after", "CNN after", "T5 after", "shared encoder after"):
        calls, _, tau = (float(cell.split()[0]) for cell in cells(RESULTS, lane)[1:4])
        assert tokens / calls == pytest.approx(tau, rel=0.03), lane


def test_the_sizes_are_those_of_the_cards() -> None:
    target = read_card("target")["parameters"]
    for text in (README, RESULTS):
        assert f"{target / 1e6:.1f} million parameters" in " ".join(text.split())
    sizes = [read_card(f"{name}-after")["parameters"] for name in ("cnn", "lstm", "shared", "t5")]
    assert f"{min(sizes) / 1e6:.1f} to {max(sizes) / 1e6:.1f} million" in RESULTS


@cache
def measured(name: str) -> Any:
    return json.loads((ROOT / "docs" / "measured" / f"h200-{name}.json").read_text("utf-8"))


def test_the_numbers_of_the_gpu_are_those_of_the_run() -> None:
    run = measured("bench")
    (greedy,) = run["settings"]
    lanes = {(lane["name"], lane["gamma"]): lane for lane in greedy["lanes"]}
    alone, generate = lanes["alone", None], lanes["generate", None]
    rate = alone["tokens_per_second"]
    over = alone["over"]["generate"]
    calls = {entry["tokens"]: entry["v"] for entry in greedy["call_costs"]}
    floor = run["roofline"]
    expected = [
        f"| {1e3 / generate['tokens_per_second']['decoding']['median']:.1f} ms a token",
        f"| {1e3 / rate['decoding']['median']:.2f} ms a token, {rate['decoding']['median']:.0f} "
        f"tokens/s: {over['decoding']['median']:.1f} times",
        f"{rate['with_encoding']['median']:.0f} tokens/s: {over['with_encoding']['median']:.1f} ",
        f"| {1e3 * greedy['encode_seconds']['median']:.0f} ms |",
        f"| {1e3 * greedy['one_token_call_seconds']:.2f} ms |",
        f"| {calls[9]:.2f} times that |",
        f"| {run['drafters'][0]['c']:.2f} calls of the target |",
        *(
            f"gamma {gamma} | "
            f"{lanes['flan-t5-small', gamma]['over']['alone']['decoding']['median']:.2f} times"
            for gamma in (3, 5, 8)
        ),
        f"| {1e3 * floor['seconds_per_token']:.3f} ms a token: {floor['weight_bytes'] / 1e9:.2f} "
        f"GB of decoder weights at {floor['bandwidth'] / 1e9:,.0f} GB/s |",
        f"| {100 * floor['seconds_per_token'] * rate['decoding']['median']:.0f} % |",
    ]
    assert not [part for part in expected if part not in GPU]


def test_the_rates_of_training_are_those_of_the_run() -> None:
    for row in measured("rates"):
        assert (
            f"| {row['source']} | {row['batch']} | {row['windows_per_second']:,.0f} "
            f"| {row['gib']:.1f} GiB | {100 * row['share_of_peak']:.0f} % |"
        ) in GPU
