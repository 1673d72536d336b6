"""Trains a drafter: on the data set alone (before), or aligned with a target (after).

Where the sequences come from and what is minimised make the method (DistillSpec,
arXiv:2310.08461): each update draws whether its texts are the data set's (with probability
`lambda1`), else the drafter's own (with `lambda2`), else the target's.

Several processes share each batch. What they train equals what one would, where the texts are
given; a drafter's own texts are drawn in each process with random numbers of its own.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from fastllm.data.tokens import IGNORED, TokenPairs, batch_indices, padded
from fastllm.distill.loop import Losses, Schedule, fit, processes
from fastllm.distill.losses import DIVERGENCES, cross_entropy, masked_mean, tempered
from fastllm.distill.teacher import Teacher
from fastllm.drafters.neural import roll_out
from fastllm.errors import SettingsError, VocabularyError
from fastllm.targets.hub import HubTarget


@dataclass(frozen=True)
class Method:
    """A corner of DistillSpec's table: where texts come from, and the loss on them."""

    lambda1: float
    lambda2: float
    loss: str


_WATCHED = 4
"""Texts of a batch from which the logged alpha is computed."""

METHODS = {
    "supervised": Method(1.0, 0.0, "ce"),
    "seq_kd": Method(0.0, 0.0, "ce"),
    "supervised_kd": Method(1.0, 0.0, "fkl"),
    "on_policy_gkd": Method(0.0, 1.0, "fkl"),
    "mixed_gkd": Method(0.0, 0.2, "fkl"),
}
"""Methods by name; `lambda1`, `lambda2` and the loss can be overridden one by one."""


@dataclass(frozen=True)
class DrafterRecipe:
    """How a neural drafter is trained. Two recipes that differ in `method` alone make a pair.

    Attributes:
        method: a name of METHODS.
        updates: optimizer updates.
        batch: texts an update.
        learning_rate: AdamW's.
        warmup: updates of rising rate.
        cooldown: updates of falling rate at the end.
        seed: of the initial weights, the order of the articles and every draw.
        loss: "ce" or a name of DIVERGENCES; the method's by default.
        kd_temperature: divides both logits in a divergence.
        lambda1: overrides the method's share of data-set texts.
        lambda2: overrides the share of the drafter's own texts among the others.
        length: the most tokens of a text.
        keep: "best", the weights with the most tau in the validation, or "last". The validation
            reads texts of the target: a baseline that is to know the data set alone keeps its last.
    """

    method: str = "supervised"
    updates: int = 1000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 50
    cooldown: int = 300
    seed: int = 0
    loss: str = ""
    kd_temperature: float = 1.0
    lambda1: float | None = None
    lambda2: float | None = None
    length: int = 96
    keep: str = "best"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"method={self.method!r}: give one of {', '.join(METHODS)}.")
        if self.loss not in ("", "ce", *DIVERGENCES):
            raise SettingsError(f"loss={self.loss!r}: give one of ce, {', '.join(DIVERGENCES)}.")
        if self.keep not in ("best", "last"):
            raise SettingsError(f"keep={self.keep!r}: give best or last.")
        for name in ("lambda1", "lambda2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SettingsError(f"{name}={value}: give a number between 0 and 1.")
        if self.batch < 1 or self.length < 2:
            raise SettingsError(
                f"batch={self.batch}, length={self.length}: give at least 1 text an update, and at "
                "least 2 tokens a text."
            )
        if not self.kd_temperature > 0:
            raise SettingsError(f"kd_temperature={self.kd_temperature}: give a number above 0.")
        if self.kd_temperature != 1 and self.resolved.loss == "ce":
            raise SettingsError(
                f"kd_temperature={self.kd_temperature} belongs to a divergence, and method "
                f"{self.method!r} trains with cross-entropy: give a loss of "
                f"{', '.join(DIVERGENCES)}."
            )

    @property
    def resolved(self) -> Method:
        """The method with this recipe's overrides."""
        base = METHODS[self.method]
        return Method(
            base.lambda1 if self.lambda1 is None else self.lambda1,
            base.lambda2 if self.lambda2 is None else self.lambda2,
            self.loss or base.loss,
        )


def train_drafter(
    model: Any,
    recipe: DrafterRecipe,
    run: str | Path,
    *,
    dataset: TokenPairs,
    written: TokenPairs | None = None,
    target: HubTarget | None = None,
    start_id: int = 0,
    end_id: int = 1,
    about: dict[str, Any] | None = None,
    resume: bool = True,
    validate: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    validate_every: int = 0,
    save_every: int = 200,
    log_every: int = 20,
    accelerator: Accelerator | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains a drafter's network in place.

    Args:
        model: the network, with its initial weights.
        recipe: method and budget.
        run: the run's folder.
        dataset: articles and the data set's summaries.
        written: the same articles, in the same order, with what the target wrote.
        target: the teacher; needed unless the loss is cross-entropy on given texts.
        start_id: the token before a text.
        end_id: the token that ends one.
        about: what else to write to `config.json`; a run is not continued under another.
        resume: continue a run found in the folder.
        validate: a `fastllm.distill.validation.Validation`: measured every `validate_every` updates
            and at the end, and written to the log. The network ends with the weights that had the
            highest tau; without it, with the last ones.
        validate_every: 0 validates at the end alone.
        save_every: updates between two saves.
        log_every: updates between two lines of the log.
        accelerator: device and processes; one of our own by default.
        say: receives progress lines.

    Returns:
        What `fit` returns: the last line of the log, and "best".

    Raises:
        SettingsError: the method needs a target, or its texts, and they are missing; or there are
            more processes than texts in a batch.
        VocabularyError: the texts belong to other articles than the data set's.
    """
    method = recipe.resolved
    if method.loss != "ce" and target is None:
        raise SettingsError(f"loss {method.loss!r} compares with a target: give one.")
    if method.loss == "ce" and method.lambda1 < 1 and method.lambda2 > 0:
        raise SettingsError("cross-entropy on the drafter's own texts teaches it nothing: use fkl.")
    if method.lambda1 < 1 and method.lambda2 < 1:
        if written is None:
            raise SettingsError(
                f"method {recipe.method!r} trains on texts that the target wrote: make them with "
                "`python -m fastllm pseudo` and give their folder."
            )
        if written.ids != dataset.ids:
            raise VocabularyError("the target's texts are not about the data set's articles.")
    accelerator = accelerator or processes(None if torch.cuda.is_available() else "cpu")
    rank, count = accelerator.process_index, accelerator.num_processes
    if recipe.batch < count:
        raise SettingsError(f"batch={recipe.batch} has no text for each of {count} processes.")
    teacher, divergence = None, None
    if method.loss != "ce":
        assert target is not None
        teacher = Teacher(target, dataset)
        divergence = tempered(DIVERGENCES[method.loss], recipe.kd_temperature)

    def texts_of(network: torch.nn.Module, indices: list[int], step: int) -> list[list[int]]:
        draws = np.random.default_rng([recipe.seed, 1, step]).random(2)
        if draws[0] < method.lambda1:
            return [dataset.target(index) for index in indices]
        if draws[1] < method.lambda2:
            source = padded([dataset.source(index) for index in indices], 0)
            return roll_out(
                network,
                source.to(next(network.parameters()).device),
                start_id=start_id,
                end_id=end_id,
                length=recipe.length,
                temperature=1.0,
                generator=torch.Generator().manual_seed(
                    recipe.seed * 1_000_003 + step + rank * 2**40
                ),
            )
        assert written is not None
        return [written.target(index) for index in indices]

    def mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`masked_mean` over the whole batch, once it is averaged over the processes."""
        if count == 1:
            return masked_mean(values, mask)
        everywhere: torch.Tensor = accelerator.reduce(mask.sum().float(), "sum")
        share: torch.Tensor = (values * mask).sum() * count / everywhere.clamp(min=1)
        return share

    def loss_of(network: torch.nn.Module, step: int) -> Losses:
        device = next(network.parameters()).device
        indices = batch_indices(dataset, recipe.batch, step, recipe.seed)[rank::count]
        texts = [text[: recipe.length] for text in texts_of(model, indices, step)]
        labels = padded(texts, IGNORED).to(device)
        prefix = padded([[start_id, *text[:-1]] for text in texts], 0).to(device)
        source = padded([dataset.source(index) for index in indices], 0).to(device)
        logits = network(source, prefix)
        real = labels != IGNORED
        tokens = real.sum() * count
        if divergence is None:
            return {"loss": mean(cross_entropy(logits, labels), real), "tokens": tokens}
        assert teacher is not None
        goal = teacher.logits(indices, prefix)
        width = min(goal.shape[-1], logits.shape[-1])  # the two may be padded differently
        goal, logits = goal[..., :width], logits[..., :width]
        with torch.no_grad():  # a few texts suffice to watch, and cost next to nothing
            p, q, some = goal[:_WATCHED], logits[:_WATCHED], real[:_WATCHED]
            overlap = torch.minimum(p.softmax(-1), q.softmax(-1)).sum(-1)
            agree = (p.argmax(-1) == q.argmax(-1)).float()
        return {
            "loss": mean(divergence(goal, logits), real),
            "alpha": mean(overlap, some),
            "alpha_greedy": mean(agree, some),
            "tokens": tokens,
        }

    schedule = Schedule(recipe.updates, recipe.learning_rate, recipe.warmup, recipe.cooldown)
    return fit(
        model,
        loss_of,
        schedule,
        run,
        config={"recipe": asdict(recipe), "method": asdict(method), **(about or {})},
        save_every=save_every,
        log_every=log_every,
        validate=validate,
        validate_every=validate_every,
        best_by="validation_tau" if validate and recipe.keep == "best" else "",
        resume=resume,
        accelerator=accelerator,
        say=say,
    )
