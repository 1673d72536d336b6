"""Kill -9 and several processes: real ones, on the tiny target."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastllm.cli.main import main
from fastllm.data.tokens import TokenPairs

ROOT = Path(__file__).resolve().parents[2]


def _environment() -> dict[str, str]:
    # As many threads as here: they decide in which order numbers are added.
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _kill_when(arguments: list[str], ready: Callable[[], bool], log: Path) -> None:
    """Starts `python -m fastllm`, and kills it at once when `ready` says so."""
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "fastllm", *arguments],
            cwd=ROOT, env=_environment(), stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 200
            while not ready():
                assert process.poll() is None, f"it ended before:\n{log.read_text()}"
                assert time.monotonic() < deadline, f"nothing to kill:\n{log.read_text()}"
                time.sleep(0.002)
        finally:
            process.kill()
            assert process.wait() in (-signal.SIGKILL, 0)


DYING = """
import importlib, os, sys
from fastllm.cli.main import main
place, name, times, by, *arguments = sys.argv[1:]
module, calls = importlib.import_module(place), []
whole = getattr(module, name)
def dying(*given, **named):
    calls.append(1)
    if len(calls) == int(times):
        os.kill(os.getpid(), int(by))
    return whole(*given, **named)
setattr(module, name, dying)
sys.exit(main(arguments))
"""
"""Kills itself when a function is called for the nth time, however busy the machine is."""


def _killed_at(function: str, times: int, by: int, arguments: list[str]) -> tuple[int, str]:
    """Runs a command of `python -m fastllm` that dies so; its return code, and what it printed."""
    place, _, name = function.rpartition(".")
    ended = subprocess.run(
        [sys.executable, "-c", DYING, place, name, str(times), str(int(by)), *arguments],
        cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return ended.returncode, ended.stdout


@pytest.fixture(scope="module")
def whole_pseudo(data: Path, target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "pseudo"
    assert main(_pseudo(data, target, out)) == 0
    return out


def _pseudo(data: Path, target: Path, out: Path) -> list[str]:
    return [
        "pseudo", "--target", str(target), "--data", str(data), "--out", str(out), "--device",
        "cpu", "--length", "24", "--shard_size", "2", "--batch", "2", "--temperature", "0.5",
    ]  # fmt: skip


def _train(target: Path, pseudo: Path, run: Path, *more: str) -> list[str]:
    return [
        "train", "--drafter", "lstm", "--exp_name", "lstm", "--target", str(target), "--run",
        str(run), "--pseudo_dataset_path", str(pseudo), "--device", "cpu", "--batch", "4",
        "--length", "8", "--save_every", "5", "--log_every", "5", "--validate_every", "5", *more,
    ]  # fmt: skip


@pytest.mark.slow  # processes of their own
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_pseudo_killed_and_resumed_has_every_article_once(
    by: int, data: Path, target: Path, whole_pseudo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pseudo"
    command = _pseudo(data, target, out)
    code, shown = _killed_at("fastllm.distill.pseudo._write_shard", 8, by, command)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.json")}
    if by == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert (code, "the same command" in shown, "Traceback" in shown) == (130, True, False)
    assert 2 <= len(before) < 8, "it was killed in the middle"
    assert not (out / "meta.json").exists()
    assert main(command) == 0
    kept = {name: (out / name).stat().st_mtime_ns for name in before}
    assert kept == before, "what was written is not written again"
    whole, resumed = TokenPairs(whole_pseudo), TokenPairs(out)
    assert sorted(resumed.ids) == sorted(f"s{index}" for index in range(16))
    assert resumed.ids == whole.ids
    texts = [[pairs.target(index) for index in range(16)] for pairs in (whole, resumed)]
    assert texts[0] == texts[1], "drawn at random, and yet the same"


@pytest.mark.slow  # processes of their own
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_train_killed_and_resumed_ends_with_the_same_bits(
    by: int, target: Path, whole_pseudo: Path, tmp_path: Path
) -> None:
    more = ["--method", "mixed_gkd", "--lambda2", "0.5", "--updates", "40"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = _train(target, whole_pseudo, broken, *more)
    code, shown = _killed_at("fastllm.distill.loop._progress", 4, by, command)
    assert _lines(broken) == 4, "it was killed in the middle"
    saved = torch.load(broken / "last" / "optimizer.pt", weights_only=True)["step"]
    if by == signal.SIGKILL:
        assert (code, saved) == (-signal.SIGKILL, 15)
    else:
        assert (code, saved) == (130, 20)
        assert "interrupted at update 20 of 40" in shown
        assert "Traceback" not in shown
    assert main(command) == 0
    assert main(_train(target, whole_pseudo, whole, *more)) == 0
    for name in ("last", "best", "checkpoint"):
        one, other = (load_file(run / name / "model.safetensors") for run in (whole, broken))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    logs = [
        [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]
        for run in (whole, broken)
    ]
    for line in [*logs[0], *logs[1]]:
        del line["seconds"]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_train_killed_ten_times_at_random_moments_ends_with_the_same_bits(
    target: Path, whole_pseudo: Path, tmp_path: Path
) -> None:
    more = ["--method", "mixed_gkd", "--lambda2", "0.5", "--updates", "1500", "--loss", "tvdpp"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = _train(target, whole_pseudo, broken, *more)
    _kill_ten_times(command, lambda: _lines(broken), tmp_path / "log")
    assert _lines(broken) < 300, "it was killed before the end"
    assert main(command) == 0
    assert main(_train(target, whole_pseudo, whole, *more)) == 0
    for name in ("last", "best", "checkpoint"):
        one, other = (load_file(run / name / "model.safetensors") for run in (whole, broken))
        assert all(torch.equal(one[key], other[key]) for key in one), name


@pytest.mark.slow
def test_pseudo_killed_ten_times_at_random_moments_has_every_article_once(
    data: Path, target: Path, tmp_path: Path
) -> None:
    many, out = tmp_path / "many", tmp_path / "pseudo"
    many.mkdir()
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    with (many / "train.jsonl").open("w") as file:
        for index in range(400):
            row = rows[index % len(rows)]
            row = {**row, "id": f"r{index}", "article": f"{row['article']} It was day {index}."}
            file.write(json.dumps(row) + "\n")
    shutil.copy(data / "validation.jsonl", many)
    _kill_ten_times(
        _pseudo(many, target, out), lambda: len(list(out.glob("shard-*.json"))), tmp_path / "log"
    )
    assert not (out / "meta.json").exists(), "it was killed before the end"
    assert main(_pseudo(many, target, out)) == 0
    assert main(_pseudo(many, target, tmp_path / "whole")) == 0
    whole, resumed = TokenPairs(tmp_path / "whole"), TokenPairs(out)
    assert sorted(resumed.ids) == sorted(f"r{index}" for index in range(400))
    assert resumed.ids == whole.ids
    for index in range(400):
        assert resumed.target(index) == whole.target(index)


def _kill_ten_times(command: list[str], progress: Callable[[], int], log: Path) -> None:
    """Kills at random moments: every third somewhere in its start, the others behind progress.

    Progress is what the last life did not have, so that ten lives do not all end where they began.
    """
    chance = random.Random(0)
    for life in range(10):
        had, started = progress(), time.monotonic()
        if life % 3 == 2:
            moment = started + chance.uniform(0, 6)
            _kill_when(command, lambda until=moment: time.monotonic() > until, log)
            continue
        waited: list[float] = []

        def ready(
            had: int = had, waited: list[float] = waited, more: float = chance.uniform(0, 0.5)
        ) -> bool:
            if not waited and progress() > had:
                waited.append(time.monotonic())
            return bool(waited) and time.monotonic() > waited[0] + more

        _kill_when(command, ready, log)


def _lines(run: Path) -> int:
    log = run / "training.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.slow  # processes of their own
def test_two_processes_do_what_one_does(
    data: Path, target: Path, whole_pseudo: Path, tmp_path: Path
) -> None:
    """`accelerate launch`, gloo: the same texts, and the same losses within a thousandth.

    The launcher's "--multi_gpu" means several processes; `--device cpu` makes gloo of it. Only the
    order of additions differs: the first gradients agree to 1e-4, and AdamW, which divides small
    gradients by small ones, drives the weights apart from there.
    """
    pseudo, run = tmp_path / "pseudo", tmp_path / "run"
    more = [
        "--method",
        "supervised_kd",
        "--updates",
        "12",
        "--validation",
        "none",
        "--log_every",
        "1",
    ]
    opd = ["--method", "opd", "--updates", "3", "--validation", "none", "--log_every", "1"]
    commands = [
        _pseudo(data, target, pseudo),
        _train(target, whole_pseudo, run, *more),
        _train(target, whole_pseudo, tmp_path / "opd", *opd),
    ]
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    launched = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
         "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
         "--num_cpu_threads_per_process", "1", "--main_process_port", "0",
         str(ROOT / "tests" / "distill" / "launched.py"), str(tmp_path / "commands.json")],
        cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stdout + launched.stderr
    whole, shared = TokenPairs(whole_pseudo), TokenPairs(pseudo)
    assert shared.ids == whole.ids
    texts = [[pairs.target(index) for index in range(16)] for pairs in (whole, shared)]
    assert texts[0] == texts[1]

    assert _lines(tmp_path / "opd") == 3, "both processes call their networks equally often"
    assert main(_train(target, whole_pseudo, tmp_path / "one", *more)) == 0
    card = json.loads((run / "checkpoint" / "card.json").read_text())
    assert card["processes"] == 2
    logs = [
        [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "one", run)
    ]
    for alone, both in zip(*logs, strict=True):
        assert both["tokens"] == alone["tokens"]
        assert both["loss"] == pytest.approx(alone["loss"], rel=1e-3)
    assert logs[0][0]["gradient_norm"] == pytest.approx(logs[1][0]["gradient_norm"], rel=1e-4)
