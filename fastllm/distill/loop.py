"""The one training loop: target and drafters alike.

A run is a folder: `config.json` (what was asked), `training.jsonl` (a line each few updates),
`last/` (weights, optimizer, step) and, where there is a validation, `best/` (the weights that did
best in it). Batches and every random draw are functions of (seed, step), so a resumed run needs
only these folders and continues bit for bit on one device. A save is written beside the old one
and put in its place by a rename: at any moment one of the two is whole. Ctrl-C and SIGTERM
end a run after the update at hand, and save it.

Several processes (`accelerate launch`) share each batch: every one has the loss of its part, scaled
so that the mean over the processes is the loss of the whole batch.
"""

import errno
import json
import math
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fastllm.checkpoints import replace_folder
from fastllm.devices import prepare
from fastllm.distill.folders import differences, has_save, json_object, require_run, writing
from fastllm.errors import CheckpointError, SettingsError, TrainingError
from fastllm.files import object_in, write_whole
from fastllm.words import duration, first_line

Losses = dict[str, torch.Tensor]
"""Named scalars of a batch; the one called "loss" is what is minimised."""

PATIENCE = timedelta(hours=12)
"""How long processes wait for one another: one of them may let a large target write for hours."""


def processes(device: str | None = None) -> Accelerator:
    """The device, and the processes that `accelerate launch` started, if it did.

    Args:
        device: "cpu", "mps" or "cuda:1"; CUDA by default where there is one, else the CPU. Several
            processes share out the GPUs themselves.
    """
    if device and device.startswith("cuda:"):
        torch.cuda.set_device(device)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32: weights and sums stay fp32
    return Accelerator(
        cpu=device == "cpu" or not (torch.cuda.is_available() or device == "mps"),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )


@dataclass(frozen=True)
class Schedule:
    """How many updates, and the learning rate at each: warm-up, constant, linear cool-down.

    Attributes:
        updates: optimizer updates in all; the most there can be where `seconds` are given.
        learning_rate: the constant rate.
        warmup: updates over which the rate rises linearly from 0.
        cooldown: updates (seconds, where those are given) at the end, in which the rate falls
            linearly to a twentieth.
        seconds: train for so long, on a machine that is there for a while. 0 goes by updates
            alone.
    """

    updates: int
    learning_rate: float
    warmup: int = 50
    cooldown: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        # One comparison that a number which is none fails, too.
        if self.updates < 1 or not 0 < self.learning_rate < math.inf:
            raise SettingsError(
                f"updates={self.updates}, learning_rate={self.learning_rate}: give numbers above 0."
            )
        if not (0 <= self.warmup and 0 <= self.cooldown <= self.updates):
            raise SettingsError(
                f"warmup={self.warmup}, cooldown={self.cooldown}: neither may be negative, "
                f"and the cool-down must fit into the {self.updates} updates."
            )
        if not 0 <= self.seconds < math.inf or (self.seconds and self.cooldown > self.seconds):
            raise SettingsError(
                f"seconds={self.seconds}, cooldown={self.cooldown}: give seconds of at least 0, "
                "and a cool-down that fits into them."
            )

    def rate(self, step: int, elapsed: float = 0.0) -> float:
        """The learning rate of update `step`, counted from 0, `elapsed` seconds after the start."""
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        left = (self.updates - step) / max(1, self.cooldown)
        if self.seconds:
            left = (self.seconds - elapsed) / max(1, self.cooldown)
        return self.learning_rate * rising * max(0.05, min(1.0, left))

    def done(self, step: int, elapsed: float = 0.0) -> bool:
        """Whether `step` updates in `elapsed` seconds are all."""
        return step >= self.updates or bool(self.seconds and elapsed >= self.seconds)


def optimizer_of(
    model: torch.nn.Module, learning_rate: float, weight_decay: float = 0.01
) -> torch.optim.Optimizer:
    """AdamW as everything here is trained with: only matrices decay."""
    weights = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=learning_rate,
        betas=(0.9, 0.98),
        fused=True if all(p.is_cuda for p in weights) else None,  # one launch instead of dozens
    )


def fit(
    model: torch.nn.Module,
    loss_of: Callable[[torch.nn.Module, int], Losses],
    schedule: Schedule,
    run: str | Path,
    *,
    config: dict[str, Any] | None = None,
    weight_decay: float = 0.01,
    save_every: int = 200,
    save_seconds: float = math.inf,
    log_every: int = 20,
    validate: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    validate_every: int = 0,
    best_by: str = "",
    accelerator: Accelerator | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains `model` in place and returns a summary of the run.

    Args:
        model: any module; it is moved to the accelerator's device.
        loss_of: (model, step) -> named losses of the batch of that update; must depend on nothing
            else that changes, or a resumed run differs from an unbroken one.
        schedule: the number of updates and the rate of each.
        run: the run's folder; a run found there is continued.
        config: what to write to `config.json`.
        weight_decay: AdamW's, on matrices only.
        save_every: updates between two saves.
        save_seconds: the longest time between two saves; so that little is lost on a machine that
            does thousands of updates a minute, or is taken away.
        log_every: updates between two lines of `training.jsonl`. On a GPU the losses are also
            looked at only then, and at a save: nothing waits for the device at every update.
        validate: measured every `validate_every` updates and at the end, written to the log. Must
            draw nothing at random. Its seconds do not count as training.
        validate_every: 0 validates at the end alone.
        best_by: a number of `validate`, the larger the better: the weights that had most of it are
            kept in `best/`, and the model ends with them. Empty: it ends with the last weights.
        accelerator: device and processes; one of our own by default.
        say: receives a progress line at each log, and one where a run is interrupted.

    Returns:
        The last line of the log; with `best_by` also "best": the line of the best validation.

    Raises:
        CheckpointError: the folder holds a run of another model, with other settings or without a
            whole save, or something else that would be overwritten.
        TrainingError: a loss or a gradient that is not a number, or a disk that is full; the last
            save stays whole.
        KeyboardInterrupt: Ctrl-C or SIGTERM; in one process's main thread the update at hand was
            finished and saved, unless there were two of them.
    """
    run = Path(run)
    require_run(run)
    run.mkdir(parents=True, exist_ok=True)
    accelerator = accelerator or processes(None if torch.cuda.is_available() else "cpu")
    main, device = accelerator.is_main_process, accelerator.device
    prepare(device)
    model.to(device)
    optimizer = optimizer_of(model, schedule.learning_rate, weight_decay)
    if schedule.seconds and accelerator.num_processes > 1:
        raise SettingsError("seconds are kept by one process alone: give updates instead.")
    planned = asdict(schedule)
    if not schedule.seconds:  # as a run of an earlier version wrote it, which then goes on
        del planned["seconds"]
    settings = json.dumps({**(config or {}), "schedule": planned}, indent=1, default=str)
    before = json_object(run / "config.json") if has_save(run) else {}
    if before and (changed := differences(before, json.loads(settings))):
        raise CheckpointError(
            f"{run} holds a run with other settings ({changed}). Give another run folder, or "
            "remove this one."
        )
    state = _load_last(run, model, optimizer)
    first = step = int(state.get("step", 0))
    accelerator.wait_for_everyone()  # all have read; now the first may write
    if main:
        with _writing(run / "config.json", step):
            write_whole(run / "config.json", settings)
    with _writing(run / "training.jsonl", step):
        lines = _log_so_far(run, step, cut=main)
    best = _best_so_far(run, step) if main else {}
    if main and not best:
        shutil.rmtree(run / "best", ignore_errors=True)
    last_line: dict[str, Any] = lines[-1] if lines else {"step": step, "seconds": 0.0}
    seconds_before = float(state.get("seconds", last_line["seconds"]))
    sums, summed = dict(state.get("sums", {})), int(state.get("summed", 0))
    trained, optimizer = accelerator.prepare(model, optimizer)
    model.train()
    started = saved = time.perf_counter()
    validating = 0.0
    stopping = False
    waiting = _Waiting(run, accelerator, limit=log_every if device.type == "cuda" else 1)

    def trained_for() -> float:
        return seconds_before + time.perf_counter() - started - validating

    # Without a buffer: what a full disk refuses is not tried again when the file is closed.
    with (
        _interrupts(run, accelerator, say) as interrupted,
        (run / "training.jsonl").open("ab", buffering=0) as log,
    ):
        while not schedule.done(step, trained_for()) and not stopping:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step, trained_for())
            losses = loss_of(trained, step)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(losses["loss"])
            norm = accelerator.clip_grad_norm_(trained.parameters(), 1.0)
            waiting.add(losses, norm, step)
            if waiting.full:
                waiting.look(sums)
            optimizer.step()
            step += 1
            summed += 1
            done = schedule.done(step, trained_for())
            saving = step % save_every == 0 or time.perf_counter() - saved > save_seconds
            judged = validate and (done or (validate_every and step % validate_every == 0))
            logging = step % log_every == 0 or done or judged
            stopping = interrupted()
            if logging or saving or stopping:
                waiting.look(sums)
            if logging:
                elapsed = trained_for()
                last_line = {
                    "step": step,
                    "seconds": round(elapsed, 2),
                    **{name: round(total / summed, 5) for name, total in sums.items()},
                    "learning_rate": schedule.rate(step - 1, elapsed),
                    "gradient_norm": round(waiting.norm, 4),
                }
                sums, summed = {}, 0
                if judged and main:
                    assert validate is not None
                    model.eval()
                    since = time.perf_counter()
                    last_line |= {name: round(n, 5) for name, n in validate(model).items()}
                    validating += time.perf_counter() - since
                    model.train()
                    if best_by and (not best or last_line[best_by] > best[best_by]):
                        best = last_line
                        with _replacing(run / "best", step) as fresh:
                            _write_weights(fresh, model)
                            (fresh / "line.json").write_text(json.dumps(best))
                if main:
                    with _writing(run / "training.jsonl", step):
                        line = (json.dumps(last_line) + "\n").encode()
                        if log.write(line) < len(line):
                            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    left = (time.perf_counter() - started) / (step - first)
                    left *= schedule.updates - step
                    if schedule.seconds:
                        left = min(left, schedule.seconds - elapsed)
                    say(_progress(last_line, schedule.updates, max(0.0, left)))
            stopping = stopping or interrupted()
            if (saving or done or stopping) and main:
                saved = time.perf_counter()
                state = {"step": step, "seconds": trained_for(), "sums": sums, "summed": summed}
                state["optimizer"] = optimizer.state_dict()
                with _replacing(run / "last", step) as fresh:
                    _write_weights(fresh, model)
                    torch.save(state, fresh / "optimizer.pt")
    if stopping:
        say(
            f"interrupted at update {step} of {schedule.updates}, which is saved; the same command "
            "goes on from there"
        )
        raise KeyboardInterrupt
    accelerator.wait_for_everyone()
    if best_by and (best := _best_so_far(run, step)):
        with _reading_best(run):
            weights = load_file(run / "best" / "model.safetensors")
        model.load_state_dict(weights, strict=False)
        last_line = {**last_line, "best": best}
    model.eval()
    return last_line


class _Waiting:
    """Losses and gradient norms that have been computed, and that nobody has looked at yet.

    To look at a number on a GPU is to wait for it, so `limit` updates are looked at together. On a
    CPU the limit is 1, and what is not a number is refused before it spoils the weights: a finite
    loss can have a gradient that is not finite.
    """

    def __init__(self, run: Path, accelerator: Accelerator, limit: int) -> None:
        self._run, self._accelerator, self._limit = run, accelerator, limit
        self._rows: list[tuple[int, list[str], torch.Tensor]] = []
        self.norm = math.nan
        """Of the last gradient that was looked at."""

    @property
    def full(self) -> bool:
        """Whether it is time to look."""
        return len(self._rows) >= self._limit

    def add(self, losses: Losses, norm: torch.Tensor, step: int) -> None:
        """Keeps the losses and the gradient norm of an update."""
        values = [*losses.values(), torch.as_tensor(norm)]
        device = losses["loss"].device
        row = torch.stack([value.detach().float().to(device) for value in values])
        self._rows.append((step, list(losses), row))

    def look(self, sums: dict[str, float]) -> None:
        """Adds the losses since the last look, averaged over the processes, to their sums.

        Raises:
            TrainingError: one of them, or a norm, is not a number.
        """
        for step, names, row in self._rows:
            if self._accelerator.num_processes > 1:
                row = self._accelerator.reduce(row, "mean")
            *values, self.norm = row.tolist()
            numbers = dict(zip(names, values, strict=True))
            for name, value in (("loss", numbers["loss"]), ("gradient norm", self.norm)):
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the {name} of update {step + 1} is {value}, so training stopped before "
                        f"it could spoil the weights. {_whole(self._run)} Train anew with a "
                        "smaller learning rate (or another loss) in another run folder."
                    )
            for name, value in numbers.items():
                sums[name] = sums.get(name, 0.0) + value
        self._rows.clear()


def _progress(line: dict[str, Any], updates: int, left: float) -> str:
    shown = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in line.items()
        if name not in ("step", "seconds", "learning_rate", "tokens")
    )
    return f"{line['step']}/{updates}  {shown}  ({duration(left)} left)"


def _log_so_far(run: Path, step: int, *, cut: bool) -> list[dict[str, Any]]:
    """The log's lines up to `step`; with `cut` the later ones are taken out of the file."""
    path = run / "training.jsonl"
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):  # the line that a kill cut in two
            lines.append(json.loads(line))
    if any(not isinstance(line, dict) or "step" not in line for line in lines):
        raise CheckpointError(f"{path} is damaged: remove it, and the curve begins anew.")
    lines = [line for line in lines if line["step"] <= step]
    if cut:
        write_whole(path, "".join(json.dumps(row) + "\n" for row in lines))
    return lines


def _best_so_far(run: Path, step: int) -> dict[str, Any]:
    """The line of the best validation up to `step`; empty where there is none.

    A kill may leave a best that is younger than the last save: the resumed run comes to it again.
    """
    path = run / "best" / "line.json"
    if not path.exists():
        return {}
    with _reading_best(run):
        line = object_in(path)
        return line if line["step"] <= step else {}


@contextmanager
def _reading_best(run: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{run / 'best'} is damaged ({first_line(error)}). Give another run folder to train "
            "anew, or remove that one: then the weights are the best of what is yet to come, or "
            "the last."
        ) from error


def _whole(run: Path) -> str:
    """What there is to go on from, in a sentence."""
    if folder := _last(run):
        with suppress(CheckpointError):
            return f"The last save, {folder} of update {_read_save(folder)[1]['step']}, is whole."
    return "Nothing had been saved yet."


def _last(run: Path) -> Path | None:
    """The newest save; a kill may come while it takes the place of the one before."""
    folders = (run / "last", run / "last.previous")
    return next((path for path in folders if path.is_dir() and any(path.iterdir())), None)


@contextmanager
def _interrupts(
    run: Path, accelerator: Accelerator, say: Callable[[str], None]
) -> Iterator[Callable[[], bool]]:
    """Makes the first Ctrl-C, or SIGTERM, a wish that can be asked for; the second ends at once.

    Of several processes each gets the Ctrl-C of the terminal, and another from the launcher, which
    kills what is still alive half a minute later: no time to agree on the update to stop at. So
    they end where they are, none waits for another, and the last save stays.
    """
    # Another thread may not set handlers, and a process that ignores Ctrl-C is to go on doing so.
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN)
        and accelerator.num_processes == 1
        and threading.current_thread() is threading.main_thread()
    }
    asked = False

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        restore()
        with suppress(OSError):  # not through sys.stderr, which may be in the middle of a line
            os.write(2, b"\nfinishing this update, to save it; Ctrl-C once more ends at once\n")

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: asked
    except KeyboardInterrupt:
        if accelerator.is_main_process:
            say(f"interrupted. {_whole(run)} Give the same command to go on.")
        raise
    finally:
        restore()


def _writing(path: Path, step: int) -> AbstractContextManager[None]:
    """Says of a full disk at which update it was, and what is left."""
    return writing(path, f"This was at update {step} of the run. {_whole(path.parent)}")


@contextmanager
def _replacing(folder: Path, step: int) -> Iterator[Path]:
    """A new folder to write into; it takes the place of the old one only when it is whole."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with _writing(folder, step):
            fresh.mkdir()
            yield fresh
            replace_folder(fresh, folder)
    except TrainingError:
        shutil.rmtree(fresh, ignore_errors=True)  # half a save is of no use, and the disk is full
        raise


def _write_weights(folder: Path, model: torch.nn.Module) -> None:
    """Writes the state of a module, tied tensors once: safetensors refuses shared memory."""
    own: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        own.setdefault(tensor.data_ptr(), (name, tensor.detach().contiguous()))
    save_file(dict(own.values()), folder / "model.safetensors")


def _read_save(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and the state that a save holds.

    Raises:
        CheckpointError: one of them is missing, or was cut or overwritten.
    """
    path = folder / "model.safetensors"
    try:
        weights = load_file(path)
        path = folder / "optimizer.pt"
        # The optimizer moves it to where the weights are.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _ = state["step"], state["optimizer"]
    # All that the readers say of files which are no longer what was written.
    except (
        *(OSError, EOFError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError),
        *(AttributeError, pickle.UnpicklingError),
    ) as error:
        raise CheckpointError(
            f"the save in {folder} is damaged ({path.name}: {first_line(error)}). "
            + _instead_of(folder)
        ) from error
    return weights, state


def _instead_of(folder: Path) -> str:
    """What to do about a damaged save: a kill may have left the one before beside it."""
    before = folder.with_name("last.previous")
    if folder != before and before.is_dir():
        return (
            f"Remove that folder to go on from {before}, the save before it, with the same command."
        )
    return (
        "Remove that folder to train anew with the same command, or put a whole copy in its place."
    )


def _load_last(
    run: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restores the newest save into model and optimizer; returns its state, {} if none."""
    folder = _last(run)
    if folder is None:
        return {}
    weights, state = _read_save(folder)
    try:
        model.load_state_dict(weights, strict=False)
        optimizer.load_state_dict(state.pop("optimizer"))
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder} holds a run of another model ({error}). Give another run folder, or remove "
            f"{run} to train anew in it."
        ) from error
    return state
