import json
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastllm.data.tokens import TokenPairs, write_pairs
from fastllm.distill.loop import Schedule, _interrupts, fit
from fastllm.distill.pseudo import write_pseudo
from fastllm.distill.train import DrafterRecipe, train_drafter
from fastllm.drafters.lstm import LstmModel, LstmSettings
from fastllm.errors import (
    CheckpointError,
    DataError,
    SettingsError,
    TrainingError,
    VocabularyError,
)
from fastllm.pretrain.curriculum import CurriculumStage
from fastllm.targets.hub import HubTarget

SIZES = LstmSettings(vocabulary_size=300, width=48, hidden=32, mixing=32, places=32)


def _quiet(line: str) -> None:
    pass


def _log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]


def _network(copying: bool = True, sizes: LstmSettings = SIZES) -> LstmModel:
    torch.manual_seed(0)
    model = LstmModel(sizes)
    if copying:
        model.start_copying(torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def dataset(tmp_path: Path) -> TokenPairs:
    """Articles of random ids; the text is what stands at a fixed place in the article."""
    generator = torch.Generator().manual_seed(5)
    rows = []
    for index in range(64):
        source = torch.randint(100, 300, (30,), generator=generator).tolist()
        rows.append((f"a{index}", [*source, 1], [*source[4:14], 1]))
    write_pairs(tmp_path / "data", rows, {})
    return TokenPairs(tmp_path / "data")


def test_training_learns(dataset: TokenPairs, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = DrafterRecipe(updates=120, batch=16, learning_rate=3e-3, warmup=10, cooldown=40)
    last = train_drafter(_network(), recipe, tmp_path / "run", dataset=dataset, say=lines.append)
    log = _log(tmp_path / "run")
    assert [row["step"] for row in log] == [20, 40, 60, 80, 100, 120]
    assert last["loss"] < 0.5 * log[0]["loss"]
    assert lines[-1].startswith("120/120")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"]["learning_rate"] == 3e-3


def test_the_copying_start_copies_before_any_training(dataset: TokenPairs) -> None:
    source = torch.tensor([dataset.source(0)])
    text = torch.tensor([dataset.target(0)])
    losses = {}
    for copying in (False, True):
        with torch.no_grad():
            logits = _network(copying)(source, text[:, :-2])
        losses[copying] = torch.nn.functional.cross_entropy(logits[0], text[0, 1:-1]).item()
    assert losses[True] < 0.6 * losses[False]


def test_resumed_run_equals_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    def run(folder: Path, break_at: int | None) -> torch.nn.Module:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))

        def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
            if step == break_at:
                raise KeyboardInterrupt
            batch = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            return {"loss": (network(batch) - batch.sum(1, keepdim=True)).square().mean()}

        schedule = Schedule(updates=30, learning_rate=1e-2, warmup=3, cooldown=10)
        fit(model, loss_of, schedule, folder, save_every=5, log_every=5, say=_quiet)
        return model

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 17)
    resumed = run(tmp_path / "broken", None)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [row["step"] for row in _log(tmp_path / "broken")] == [5, 10, 15, 20, 25, 30]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_no_number_stops_training_and_leaves_the_last_save_whole(
    where: str, tmp_path: Path
) -> None:
    model = torch.nn.Linear(2, 1)

    def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
        out = network(torch.ones(1, 2)).sum()
        if step < 5:
            return {"loss": out}
        # The root of 0 is 0, and its slope infinite: times 0 that is no number.
        return {"loss": out * float("nan") if where == "loss" else (out * 0).abs().sqrt()}

    with pytest.raises(TrainingError, match=f"{where}.* of update 6 .*last of update 4, is whole"):
        fit(model, loss_of, Schedule(9, 1e-3), tmp_path, save_every=2, say=_quiet)
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert torch.load(tmp_path / "last" / "optimizer.pt", weights_only=True)["step"] == 4
    saved = load_file(tmp_path / "last" / "model.safetensors")
    assert all(weight.isfinite().all() for weight in saved.values())
    with pytest.raises(CheckpointError, match="another model"):
        fit(torch.nn.Linear(3, 1), loss_of, Schedule(9, 1e-3), tmp_path, say=_quiet)


@contextmanager
def _no_file_above(size: int) -> Iterator[None]:
    """The system refuses to write files beyond a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [30_000, 60_000], ids=["weights", "optimizer"])
def test_a_full_disk_leaves_the_last_save_whole_and_says_so(size: int, tmp_path: Path) -> None:
    """The weights are 40 kB, the optimizer's state 80 kB: one of the two does not fit."""

    def run(folder: Path, full_at: int) -> torch.nn.Module:
        torch.manual_seed(0)
        model = torch.nn.Linear(100, 100)

        def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
            if step == full_at:
                limit.__enter__()
            batch = torch.randn(4, 100, generator=torch.Generator().manual_seed(step))
            return {"loss": (network(batch) - batch).square().mean()}

        schedule = Schedule(12, 1e-2, warmup=0)
        fit(model, loss_of, schedule, folder, save_every=4, log_every=1, say=_quiet)
        return model

    whole = run(tmp_path / "whole", -1)
    limit, broken = _no_file_above(size), tmp_path / "broken"
    try:
        with pytest.raises(TrainingError, match=r"at update 8 .*last of update 4, is whole.*room"):
            run(broken, 6)
    finally:
        limit.__exit__(None, None, None)
    assert not (broken / "last.new").exists(), "what was half written takes no room"
    assert [row["step"] for row in _log(broken)] == list(range(1, 9))
    resumed = run(broken, -1)
    assert torch.equal(resumed.weight, whole.weight)
    assert [row["step"] for row in _log(broken)] == list(range(1, 13))


def test_a_disk_too_full_for_a_line_of_the_log_is_no_less_told(tmp_path: Path) -> None:
    def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
        return {"loss": network(torch.ones(1, 2)).square().sum()}

    schedule = Schedule(40, 1e-3)
    with (
        _no_file_above(1500),
        pytest.raises(TrainingError, match=r"training.jsonl .*Nothing had been saved"),
    ):
        fit(torch.nn.Linear(2, 1), loss_of, schedule, tmp_path, log_every=1, say=_quiet)
    fit(torch.nn.Linear(2, 1), loss_of, schedule, tmp_path, log_every=1, say=_quiet)
    assert [row["step"] for row in _log(tmp_path)] == list(range(1, 41))


def test_a_half_written_save_is_passed_over(tmp_path: Path) -> None:
    def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
        return {"loss": network(torch.ones(1, 2)).square().sum()}

    model = torch.nn.Linear(2, 1)
    fit(model, loss_of, Schedule(4, 1e-3), tmp_path, save_every=2, say=_quiet)
    # A kill between the two renames of a save leaves this behind.
    (tmp_path / "last").rename(tmp_path / "last.previous")
    (tmp_path / "last.new").mkdir()
    again = torch.nn.Linear(2, 1)
    last = fit(again, loss_of, Schedule(4, 1e-3), tmp_path, say=_quiet)
    assert last["step"] == 4
    assert torch.equal(again.weight, model.weight)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", "cut"),
        ("optimizer.pt", "cut"),
        ("optimizer.pt", b"nothing of the kind"),
        ("optimizer.pt", b""),
        ("optimizer.pt", None),
        ("model.safetensors", None),
    ],
)
def test_a_damaged_save_is_named(name: str, content: bytes | str | None, tmp_path: Path) -> None:
    def run(updates: int) -> torch.nn.Module:
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)

        def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
            if step == updates:
                raise KeyboardInterrupt
            batch = torch.randn(4, 2, generator=torch.Generator().manual_seed(step))
            return {"loss": network(batch).square().sum()}

        with pytest.raises(KeyboardInterrupt) if updates < 6 else nullcontext():
            fit(model, loss_of, Schedule(6, 1e-3), tmp_path, save_every=2, say=_quiet)
        return model

    run(4)
    earlier = tmp_path / "earlier"
    shutil.copytree(tmp_path / "last", earlier)
    whole = run(6)
    damaged = tmp_path / "last" / name
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-40] if content == "cut" else content)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=rf"last is damaged \({name}.*Remove that folder"):
        run(6)
    shutil.rmtree(tmp_path / "last")
    assert torch.equal(run(6).weight, whole.weight), "removed, as it was told: it begins anew"

    # A kill at the end of a save leaves the one before it.
    damaged.unlink()
    earlier.rename(tmp_path / "last.previous")
    with pytest.raises(CheckpointError, match=r"go on from .*last\.previous"):
        run(6)
    shutil.rmtree(tmp_path / "last")
    assert torch.equal(run(6).weight, whole.weight), "removed, as it was told: it goes on"


def test_a_damaged_best_is_named(tmp_path: Path) -> None:
    def run() -> None:
        fit(
            torch.nn.Linear(2, 1),
            lambda network, step: {"loss": network(torch.ones(1, 2)).square().sum()},
            Schedule(2, 1e-3), tmp_path, validate=lambda network: {"tau": 1.0}, best_by="tau",
            say=_quiet,
        )  # fmt: skip

    run()
    for name in ("model.safetensors", "line.json"):
        path = tmp_path / "best" / name
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(CheckpointError, match="best is damaged"):
            run()
    for text in ("[]", "{}", "null"):
        path.write_text(text)
        with pytest.raises(CheckpointError, match="best is damaged"):
            run()
    path.unlink()
    log = tmp_path / "training.jsonl"
    for text in ("[]", "{}", "null", "7"):
        log.write_text(f"{text}\n")
        with pytest.raises(CheckpointError, match=r"training\.jsonl is damaged: remove it"):
            run()
    log.unlink()
    run()


def _interrupted(
    folder: Path,
    presses: int = 0,
    lines: list[str] | None = None,
    by: signal.Signals = signal.SIGINT,
) -> torch.nn.Module:
    """Thirty updates, in the eighteenth of which Ctrl-C is pressed, or SIGTERM comes."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))

    def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
        if step == 17:
            for _ in range(presses):
                signal.raise_signal(by)
        batch = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return {"loss": (network(batch) - batch.sum(1, keepdim=True)).square().mean()}

    schedule = Schedule(updates=30, learning_rate=1e-2, warmup=3, cooldown=10)
    say = _quiet if lines is None else lines.append
    fit(model, loss_of, schedule, folder, save_every=5, log_every=5, say=say)
    return model


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_update_saves_it_and_resumes_bit_for_bit(
    by: signal.Signals, tmp_path: Path
) -> None:
    before = signal.getsignal(by)
    whole = _interrupted(tmp_path / "whole")
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path / "broken", 1, lines, by)
    assert signal.getsignal(by) is before
    assert lines[-1].startswith("interrupted at update 18 of 30")
    assert "the same command goes on" in lines[-1]
    saved = torch.load(tmp_path / "broken" / "last" / "optimizer.pt", weights_only=True)
    assert saved["step"] == 18
    resumed = _interrupted(tmp_path / "broken")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    logs = [_log(tmp_path / name) for name in ("whole", "broken")]
    for row in [*logs[0], *logs[1]]:
        del row["seconds"]
    assert logs[0] == logs[1]


def test_a_schedule_by_the_clock_cools_down_at_its_end_and_stops(tmp_path: Path) -> None:
    schedule = Schedule(1000, 1e-2, warmup=10, cooldown=4, seconds=20)
    assert schedule.rate(0, 0.0) == pytest.approx(1e-3)
    assert schedule.rate(50, 16.0) == schedule.rate(999, 10.0) == 1e-2, "updates do not count"
    assert schedule.rate(50, 18.0) == pytest.approx(5e-3)
    assert schedule.rate(50, 20.0) == pytest.approx(5e-4)
    assert not schedule.done(999, 19.9)
    assert schedule.done(3, 20.0)
    assert schedule.done(1000, 0.0)
    with pytest.raises(SettingsError, match="a cool-down that fits"):
        Schedule(1000, 1e-2, cooldown=21, seconds=20)

    def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
        time.sleep(0.01)
        return {"loss": network(torch.ones(1, 2)).square().sum()}

    brief = Schedule(100_000, 1e-3, seconds=0.3)
    last = fit(torch.nn.Linear(2, 1), loss_of, brief, tmp_path, say=_quiet)
    assert 0.3 <= last["seconds"] < 3
    assert 1 <= last["step"] < 40
    again = fit(torch.nn.Linear(2, 1), loss_of, brief, tmp_path, say=_quiet)
    assert again["step"] == last["step"], "its time is over"


def test_a_second_ctrl_c_ends_at_once_and_says_what_is_saved(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path, 2, lines)
    assert signal.getsignal(signal.SIGINT) is before
    assert "last of update 15, is whole" in lines[-1]
    assert torch.load(tmp_path / "last" / "optimizer.pt", weights_only=True)["step"] == 15


def test_ctrl_c_is_left_alone_in_other_threads_among_processes_and_where_it_is_ignored(
    tmp_path: Path,
) -> None:
    def handler_in_fit(folder: Path) -> object:
        seen = []

        def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
            seen.append(signal.getsignal(signal.SIGINT))
            return {"loss": network(torch.ones(1, 2)).square().sum()}

        fit(torch.nn.Linear(2, 1), loss_of, Schedule(1, 1e-3), folder, say=_quiet)
        return seen[0]

    before = signal.getsignal(signal.SIGINT)
    assert handler_in_fit(tmp_path / "main") is not before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(handler_in_fit, tmp_path / "thread").result() is before
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup` and a shell's & start a process
    try:
        assert handler_in_fit(tmp_path / "ignored") is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    several: Any = SimpleNamespace(num_processes=2, is_main_process=True)
    lines: list[str] = []

    def among_several() -> None:
        with _interrupts(tmp_path / "main", several, lines.append):
            assert signal.getsignal(signal.SIGINT) is before
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        among_several()
    assert "last of update 1, is whole" in lines[0]


def test_the_best_weights_by_validation_are_kept_and_a_resumed_run_finds_the_same(
    tmp_path: Path,
) -> None:
    """A weight that falls from 3 by a fixed step an update; the validation likes it best at 2."""

    def run(folder: Path, break_at: int | None) -> tuple[torch.nn.Module, dict[str, float]]:
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(model.weight, 3.0)

        def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
            if step == break_at:
                raise KeyboardInterrupt
            return {"loss": network(torch.ones(1, 1)).sum()}

        def validate(network: torch.nn.Module) -> dict[str, float]:
            return {"validation_tau": -abs(float(network.weight.detach()) - 2.0)}

        last = fit(
            model, loss_of, Schedule(20, 0.1, warmup=0), folder, weight_decay=0.0, save_every=8,
            log_every=5, validate=validate, validate_every=2, best_by="validation_tau", say=_quiet,
        )  # fmt: skip
        return model, last

    model, last = run(tmp_path / "whole", None)
    assert last["best"]["step"] == 10
    assert last["step"] == 20
    assert float(model.weight.detach()) == pytest.approx(2.0, abs=0.01)
    kept = load_file(tmp_path / "whole" / "last" / "model.safetensors")["weight"]
    assert float(kept) == pytest.approx(1.0, abs=0.02)
    steps = [row["step"] for row in _log(tmp_path / "whole")]
    assert steps == sorted({*range(2, 21, 2), *range(5, 21, 5)})
    for break_at in (13, 9):  # behind the best, saved before it; and before it
        folder = tmp_path / f"broken{break_at}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, break_at)
        resumed, again = run(folder, None)
        assert torch.equal(resumed.weight, model.weight)
        assert again["best"] == last["best"] | {"seconds": again["best"]["seconds"]}


def test_a_run_is_not_continued_with_other_settings(tmp_path: Path) -> None:
    def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
        return {"loss": network(torch.ones(1, 2)).square().sum()}

    fit(torch.nn.Linear(2, 1), loss_of, Schedule(2, 1e-3), tmp_path, config={"a": 1}, say=_quiet)
    changed = r"settings \(a: 1, now 2; schedule.updates: 2, now 3\)"
    with pytest.raises(CheckpointError, match=changed):
        fit(torch.nn.Linear(2, 1), loss_of, Schedule(3, 1e-3), tmp_path, config={"a": 2})


@pytest.mark.parametrize("name", ["config.json", "last/notes.txt", "best/notes.txt"])
def test_a_run_does_not_overwrite_what_no_run_has_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")

    def loss_of(network: torch.nn.Module, step: int) -> dict[str, torch.Tensor]:
        return {"loss": network(torch.ones(1, 2)).square().sum()}

    with pytest.raises(CheckpointError, match=f"{name.split('/')[0]} of something else"):
        fit(torch.nn.Linear(2, 1), loss_of, Schedule(2, 1e-3), tmp_path, say=_quiet)
    assert path.read_text() == "{}"
    assert list(tmp_path.rglob("*")) in ([path], [path.parent, path])


def test_distillation_aligns_with_the_target(
    tiny_target: HubTarget, dataset: TokenPairs, tmp_path: Path
) -> None:
    written = write_pseudo(tiny_target, dataset, tmp_path / "pseudo", length=12, say=_quiet)
    assert written.ids == dataset.ids
    recipe = DrafterRecipe(
        method="mixed_gkd", updates=60, batch=8, learning_rate=3e-3, warmup=5, cooldown=10,
        length=12,
    )  # fmt: skip
    model = _network(sizes=replace(SIZES, vocabulary_size=tiny_target.model.config.vocab_size))
    train_drafter(
        model,
        recipe,
        tmp_path / "run",
        dataset=dataset,
        written=written,
        target=tiny_target,
        say=_quiet,
    )
    log = _log(tmp_path / "run")
    assert log[-1]["alpha"] > log[0]["alpha"]
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]


@pytest.mark.parametrize("loss", ["tvdpp", "lk_nla", "lk_hybrid", "jsd", "fkl=1,tvd=0.5,ce=0.1"])
def test_every_loss_trains(
    loss: str, tiny_target: HubTarget, dataset: TokenPairs, tmp_path: Path
) -> None:
    """On one batch again and again, so that progress is no luck; TVD++ has its draws."""
    given = {"jsd_beta": 0.1} if loss == "jsd" else {}
    recipe = DrafterRecipe(
        method="supervised_kd", loss=loss, updates=40, batch=64, learning_rate=3e-3, warmup=5,
        cooldown=10, length=12, **given,
    )  # fmt: skip
    model = _network(sizes=replace(SIZES, vocabulary_size=tiny_target.model.config.vocab_size))
    train_drafter(
        model, recipe, tmp_path, dataset=dataset, target=tiny_target, log_every=1, say=_quiet
    )
    log = _log(tmp_path)
    assert log[-1]["alpha"] > log[0]["alpha"]
    assert ("jsd_beta" in json.loads((tmp_path / "config.json").read_text())["recipe"]) == (
        loss == "jsd"
    )
    if "," in loss:
        for line in log:
            parts = line["fkl"] + 0.5 * line["tvd"] + 0.1 * line["ce"]
            assert line["loss"] == pytest.approx(parts, abs=1e-4)


def test_methods_take_their_texts_where_distillspec_says(
    tiny_target: HubTarget, dataset: TokenPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of one token tell where they come from: 11 the data set, 12 the drafter, 13 it."""
    size = int(tiny_target.model.config.vocab_size)
    articles = [(name, dataset.source(place), [11, 1]) for place, name in enumerate(dataset.ids)]
    write_pairs(tmp_path / "own", articles, {})
    write_pairs(tmp_path / "written", [(name, ids, [13, 1]) for name, ids, _ in articles], {})
    own, written = TokenPairs(tmp_path / "own"), TokenPairs(tmp_path / "written")
    monkeypatch.setattr(
        "fastllm.distill.train.roll_out", lambda model, source, **_: [[12, 1]] * len(source)
    )
    seen: list[int] = []

    class Watched(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(size))

        def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
            seen.append(int(prefix[0, 1]))
            return self.bias.expand(*prefix.shape, size)

    wanted = {
        "supervised": (1, 0, 0), "seq_kd": (0, 0, 1), "supervised_kd": (1, 0, 0),
        "imit_kd": (0.5, 0.5, 0), "f_distill": (0, 0.5, 0.5), "on_policy_gkd": (0, 1, 0),
        "mixed_gkd": (0, 0.2, 0.8), "free": (0.25, 0.45, 0.3),
    }  # fmt: skip
    updates = 120
    for method, shares in wanted.items():
        seen.clear()
        free = {"lambda1": 0.25, "lambda2": 0.6} if method == "free" else {}
        recipe = DrafterRecipe(
            "mixed_gkd" if free else method, updates=updates, batch=2, cooldown=0, **free
        )
        train_drafter(
            Watched(), recipe, tmp_path / method, dataset=own, written=written, target=tiny_target,
            say=_quiet,
        )  # fmt: skip
        for token, share in zip((11, 12, 13), shares, strict=True):
            # Three standard deviations of a share of 120 draws, and nothing where it is 0 or 1.
            slack = 3 * (share * (1 - share) / updates) ** 0.5
            assert seen.count(token) / updates == pytest.approx(share, abs=slack + 1e-9), method


def test_pseudo_labels_resume_without_losing_or_doubling_an_article(
    tiny_target: HubTarget, dataset: TokenPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastllm.distill.pseudo.SHARD_SIZE", 24)
    monkeypatch.setattr("fastllm.distill.pseudo._SECONDS_A_LINE", 0)
    whole = write_pseudo(tiny_target, dataset, tmp_path / "whole", length=6, say=_quiet)
    lines: list[str] = []

    def stop_at_third_shard(line: str) -> None:
        lines.append(line)
        if line.startswith("56/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pseudo(
            tiny_target, dataset, tmp_path / "broken", length=6, batch=8, say=stop_at_third_shard
        )
    counts = [line.split("/")[0] for line in lines[:-1]]
    assert counts == ["8", "16", "24", "32", "40", "48", "56"], "told within a shard, too"
    assert "interrupted. 48 of 64 texts are kept" in lines[-1]
    resumed = write_pseudo(tiny_target, dataset, tmp_path / "broken", length=6, say=_quiet)
    assert resumed.ids == whole.ids == dataset.ids
    assert [resumed.target(i) for i in range(64)] == [whole.target(i) for i in range(64)]
    with pytest.raises(DataError, match="other settings"):
        write_pseudo(tiny_target, dataset, tmp_path / "broken", length=7, say=_quiet)
    monkeypatch.setattr("fastllm.distill.pseudo._SECONDS_A_LINE", 3600)
    lines.clear()
    write_pseudo(tiny_target, dataset, tmp_path / "quiet", length=6, say=lines.append)
    assert [line.split("  ")[0] for line in lines] == ["64/64"], "quick work says one line"


def test_what_cannot_be_trained_is_refused(
    tiny_target: HubTarget, dataset: TokenPairs, tmp_path: Path
) -> None:
    for rate in (float("nan"), float("inf"), 0.0):
        with pytest.raises(SettingsError, match=f"learning_rate={rate}"):
            DrafterRecipe(learning_rate=rate)
        with pytest.raises(SettingsError, match=f"learning_rate={rate}"):
            CurriculumStage("one", 120, {"central": 1}, 3, learning_rate=rate)
    with pytest.raises(SettingsError, match="keep='first'"):
        DrafterRecipe(keep="first")
    with pytest.raises(SettingsError, match="method='guess'"):
        DrafterRecipe(method="guess")
    with pytest.raises(SettingsError, match="loss='guess'"):
        DrafterRecipe(method="mixed_gkd", loss="guess")
    with pytest.raises(SettingsError, match="jsd_beta=1"):
        DrafterRecipe(method="mixed_gkd", loss="jsd", jsd_beta=1)
    with pytest.raises(SettingsError, match="belongs to jsd"):
        DrafterRecipe(method="mixed_gkd", jsd_beta=0.1)
    with pytest.raises(SettingsError, match="own texts teaches it nothing"):
        train_drafter(
            _network(), DrafterRecipe(method="imit_kd", loss="fkl=1,ce=1"), tmp_path,
            dataset=dataset, target=tiny_target,
        )  # fmt: skip
    with pytest.raises(SettingsError, match="lambda1=2"):
        DrafterRecipe(lambda1=2)
    model = _network()
    with pytest.raises(SettingsError, match="give one"):
        train_drafter(model, DrafterRecipe(method="mixed_gkd"), tmp_path, dataset=dataset)
    with pytest.raises(SettingsError, match="fastllm pseudo"):
        train_drafter(model, DrafterRecipe(method="seq_kd"), tmp_path, dataset=dataset)
    write_pairs(tmp_path / "other", [("x", [5, 1], [6, 1])], {})
    with pytest.raises(VocabularyError, match="not about"):
        train_drafter(
            model,
            DrafterRecipe(method="seq_kd"),
            tmp_path,
            dataset=dataset,
            written=TokenPairs(tmp_path / "other"),
        )
