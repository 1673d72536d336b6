"""The one training loop: target and drafters alike.

A run is a folder: `config.json` (what was asked), `training.jsonl` (a line each few updates) and
`last/` (weights, optimizer, step). Batches and every random draw are functions of (seed, step), so
a resumed run needs only `last/` and continues bit for bit on one device. A save is written beside
the old one and put in its place by a rename: at any moment one of the two is whole.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from fastllm.checkpoints import replace_folder
from fastllm.errors import CheckpointError, FastLLMError, SettingsError

Losses = dict[str, torch.Tensor]
"""Named scalar losses; the one called "loss" is what is minimised."""


@dataclass(frozen=True)
class Schedule:
    """How many updates, and the learning rate at each: warm-up, constant, linear cool-down.

    Attributes:
        updates: optimizer updates in all.
        learning_rate: the constant rate.
        warmup: updates over which the rate rises linearly from 0.
        cooldown: updates at the end over which it falls linearly to a twentieth.
    """

    updates: int
    learning_rate: float
    warmup: int = 50
    cooldown: int = 0

    def __post_init__(self) -> None:
        if self.updates < 1 or self.learning_rate <= 0:
            raise SettingsError(
                f"updates={self.updates}, learning_rate={self.learning_rate}: both must be above 0."
            )
        if not (0 <= self.warmup and 0 <= self.cooldown <= self.updates):
            raise SettingsError(
                f"warmup={self.warmup}, cooldown={self.cooldown}: neither may be negative, "
                f"and the cool-down must fit into the {self.updates} updates."
            )

    def rate(self, step: int) -> float:
        """The learning rate of update `step`, counted from 0."""
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        left = (self.updates - step) / max(1, self.cooldown)
        return self.learning_rate * rising * max(0.05, min(1.0, left))


def fit(
    model: torch.nn.Module,
    loss_of: Callable[[torch.nn.Module, int], Losses],
    schedule: Schedule,
    run: str | Path,
    *,
    config: dict[str, Any] | None = None,
    weight_decay: float = 0.01,
    clip: float = 1.0,
    save_every: int = 200,
    log_every: int = 20,
    validate: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    validate_every: int = 0,
    resume: bool = True,
    accelerator: Accelerator | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains `model` in place and returns a summary of the run.

    Args:
        model: any module; it is moved to the accelerator's device.
        loss_of: (model, step) -> named losses of the batch of that update; must depend on nothing
            else that changes, or a resumed run differs from an unbroken one.
        schedule: the number of updates and the rate of each.
        run: the run's folder; a run found there is continued if `resume`.
        config: what to write to `config.json`.
        weight_decay: AdamW's, on matrices only.
        clip: the largest gradient norm.
        save_every: updates between two saves.
        log_every: updates between two lines of `training.jsonl`.
        validate: measured every `validate_every` updates and at the end, written to the log.
        validate_every: 0 validates at the end alone.
        resume: continue a run found in the folder; else start anew.
        accelerator: device and processes; one of our own by default.
        say: receives a progress line at each log.

    Raises:
        CheckpointError: the folder's weights do not fit the model.
        FastLLMError: a loss that is not a number; the last save stays whole.
    """
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    accelerator = accelerator or Accelerator(cpu=not torch.cuda.is_available())
    device = accelerator.device
    model.to(device)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=schedule.learning_rate,
        betas=(0.9, 0.98),
    )
    step = _load_last(run, model, optimizer, device) if resume else 0
    (run / "config.json").write_text(
        json.dumps({**(config or {}), "schedule": asdict(schedule)}, indent=1, default=str)
    )
    trained, optimizer = accelerator.prepare(model, optimizer)
    model.train()
    seconds_before = _seconds_so_far(run, step)
    started = time.perf_counter()
    first = step
    sums: dict[str, float] = {}
    last_line: dict[str, Any] = {"step": step}
    with (run / "training.jsonl").open("a") as log:
        while step < schedule.updates:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            losses = loss_of(trained, step)
            loss = losses["loss"]
            if not math.isfinite(loss.item()):
                raise FastLLMError(
                    f"the loss of update {step} is {loss.item()}; the last save in {run} is whole. "
                    "Resume with a smaller learning rate."
                )
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(trained.parameters(), clip)
            optimizer.step()
            step += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            done = step == schedule.updates
            if step % log_every == 0 or done:
                elapsed = time.perf_counter() - started
                count = (step - 1) % log_every + 1
                last_line = {
                    "step": step,
                    "seconds": round(seconds_before + elapsed, 1),
                    **{name: round(total / count, 5) for name, total in sums.items()},
                    "learning_rate": schedule.rate(step - 1),
                    "gradient_norm": round(float(norm), 4),
                }
                left = elapsed / (step - first) * (schedule.updates - step)
                sums = {}
                if validate and (done or (validate_every and step % validate_every == 0)):
                    model.eval()
                    last_line |= validate(model)
                    model.train()
                if accelerator.is_main_process:
                    log.write(json.dumps(last_line) + "\n")
                    log.flush()
                    say(_progress(last_line, schedule.updates, left))
            if (step % save_every == 0 or done) and accelerator.is_main_process:
                _save_last(run, model, optimizer, step)
    model.eval()
    return last_line


def _progress(line: dict[str, Any], updates: int, left: float) -> str:
    shown = ", ".join(
        f"{name} {value:.4g}"
        for name, value in line.items()
        if name not in ("step", "seconds", "learning_rate")
    )
    return f"{line['step']}/{updates}  {shown}  ({left / 60:.1f} min left)"


def _seconds_so_far(run: Path, step: int) -> float:
    """Training seconds already spent, read from the log up to `step`; drops later lines."""
    path = run / "training.jsonl"
    if not path.exists():
        return 0.0
    lines = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the line that a kill cut in two
            continue
        if row["step"] <= step:
            lines.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return float(lines[-1]["seconds"]) if lines else 0.0


def _save_last(
    run: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    fresh, last = run / "last.new", run / "last"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    state = {name: tensor.contiguous() for name, tensor in _own_tensors(model).items()}
    save_file(state, fresh / "model.safetensors")
    torch.save({"step": step, "optimizer": optimizer.state_dict()}, fresh / "optimizer.pt")
    replace_folder(fresh, last)


def _load_last(
    run: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> int:
    """Restores the newest whole save into model and optimizer; returns its step, 0 if none."""
    for folder in (run / "last", run / "last.previous"):
        if not (folder / "optimizer.pt").exists():
            continue
        try:
            model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
            state = torch.load(folder / "optimizer.pt", map_location=device, weights_only=True)
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{folder} holds a run of another model ({error}). "
                "Give another run folder, or start anew without resuming."
            ) from error
        return int(state["step"])
    return 0


def _own_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of a module with tied tensors named once (safetensors refuses shared memory)."""
    seen: dict[int, str] = {}
    own = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen[tensor.data_ptr()] = name
            own[name] = tensor.detach()
    return own
