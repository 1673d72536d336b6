"""Who may import whom: read from the source, so that a rule holds for lines no test runs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastllm"

# What each room may import of fastllm; "targets." means the modules inside, "targets" the contract.
BASE = {"errors", "trace", "devices", "files", "words"}
LOOPS = BASE | {"decoding", "decoding.", "targets", "drafters"}
READERS = LOOPS | {"metrics", "vocabulary", "checkpoints", "data."}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "paths": set(),
    "words": set(),
    "files": set(),
    "devices": {"errors"},
    "trace": {"errors", "words"},
    "metrics": BASE,
    "vocabulary": BASE,
    "terminal": BASE | {"metrics"},
    "targets": BASE | {"decoding.", "vocabulary", "targets", "targets."},
    "drafters": LOOPS | {"drafters.", "targets.", "vocabulary", "pretrain."},
    "decoding": LOOPS | {"metrics"},
    "checkpoints": BASE | {"paths", "vocabulary", "targets", "targets.", "drafters", "drafters."},
    "pretrained": {"checkpoints", "drafters", "hub.", "targets."},
    "data": BASE | {"paths", "vocabulary", "data."},
    "evaluation": READERS | {"targets.", "evaluation."},
    "api": READERS | {"targets."},
    "hub": {"errors", "files", "paths", "drafters", "hub."},
    "bench": READERS | {"targets.", "drafters.", "evaluation.", "bench."},
    "distill": READERS | {"targets.", "drafters.", "evaluation.", "distill.", "pretrain."},
    "pretrain": READERS | {"targets.", "drafters.", "distill.", "pretrain."},
}

ONLY_WHERE = {
    "gradio": ("app.py", "fastllm/demo/", "tools/"),
    "spaces": ("app.py", "fastllm/demo/", "tools/"),
    "bitsandbytes": ("fastllm/targets/",),
    "rouge_score": ("fastllm/evaluation/measure.py", "fastllm/distill/"),
    "accelerate": ("fastllm/distill/", "fastllm/pretrain/"),
}
"""A library and the only places that may import it."""

SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tools").glob("*.py"), ROOT / "app.py"])


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, at the top or inside a function, by its full name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            module = node.module or ""
            for alias in node.names:
                inside = f"{module}.{alias.name}"
                ours = module.startswith("fastllm") and is_module(inside)
                found.append(inside if ours else module)
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.append(str(node.args[0].value))
    return tuple(found)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def own_imports(path: Path) -> Iterator[str]:
    """Of fastllm: "trace", "targets" for a room's contract, "targets." for a module inside."""
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "fastllm" and len(parts) > 1:
            yield parts[1] + ("." if len(parts) > 2 else "")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_who_imports_whom(path: Path) -> None:
    name = room(path) if PACKAGE in path.parents else "app"
    if name in ("app", "cli", "demo", "__main__", "__init__"):
        return  # the top: everything may be imported there
    assert name in ALLOWED, f"a new room: say in ALLOWED what {name} may import"
    surplus = set(own_imports(path)) - ALLOWED[name]
    assert not surplus, f"{path.relative_to(ROOT)} may not import {sorted(surplus)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_stay_where_they_belong(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    for name in imported(path):
        library = name.split(".")[0]
        if library in ONLY_WHERE:
            assert place.startswith(ONLY_WHERE[library]), f"{place} may not import {library}"
        if library == "plotly":
            assert path.stem == "charts", f"{place} may not import plotly: only charts does"


def test_the_record_needs_the_standard_library_alone() -> None:
    for name, more in {"trace": set(), "errors": set(), "metrics": {"numpy"}}.items():
        libraries = {module.split(".")[0] for module in imported(PACKAGE / f"{name}.py")}
        assert libraries <= set(sys.stdlib_module_names) | {"fastllm"} | more


def test_the_loops_know_no_text_and_no_model_library() -> None:
    for name in ("distributions", "proposals", "verification", "rounds"):
        path = PACKAGE / f"decoding/{name}.py"
        libraries = {module.split(".")[0] for module in imported(path)}
        assert libraries <= set(sys.stdlib_module_names) | {"fastllm", "numpy", "torch"}


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, fastllm; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"torch", "transformers", "gradio", "numpy", "plotly", "bitsandbytes", "accelerate"}
    assert not heavy & set(done.stdout.split())
