"""Trains a drafter: on the data set alone (before), or aligned with a target (after).

Where the sequences come from and what is minimised make the method (DistillSpec,
arXiv:2310.08461): each update draws whether its texts are the data set's (with probability
`lambda1`), else the drafter's own (with `lambda2`), else the target's.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastllm.data.tokens import IGNORED, TokenPairs, batch_indices, padded
from fastllm.distill.loop import Losses, Schedule, fit
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

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"method={self.method!r}: give one of {', '.join(METHODS)}.")
        if self.loss not in ("", "ce", *DIVERGENCES):
            raise SettingsError(f"loss={self.loss!r}: give one of ce, {', '.join(DIVERGENCES)}.")
        for name in ("lambda1", "lambda2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SettingsError(f"{name}={value}: give a number between 0 and 1.")

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
    resume: bool = True,
    validate: Callable[[torch.nn.Module], dict[str, float]] | None = None,
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
        resume: continue a run found in the folder.
        validate: measured at the end and written to the log.
        say: receives progress lines.

    Returns:
        The last line of the log: losses, seconds, teacher tokens.

    Raises:
        SettingsError: the method needs a target, or its texts, and they are missing.
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
    teacher = Teacher(target, dataset) if target is not None else None
    divergence = tempered(DIVERGENCES[method.loss], recipe.kd_temperature) if (
        method.loss != "ce"
    ) else None

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
                generator=torch.Generator().manual_seed(recipe.seed * 1_000_003 + step),
            )
        assert written is not None
        return [written.target(index) for index in indices]

    def loss_of(network: torch.nn.Module, step: int) -> Losses:
        device = next(network.parameters()).device
        indices = batch_indices(dataset, recipe.batch, step, recipe.seed)
        texts = [text[: recipe.length] for text in texts_of(model, indices, step)]
        labels = padded(texts, IGNORED).to(device)
        prefix = padded([[start_id, *text[:-1]] for text in texts], 0).to(device)
        source = padded([dataset.source(index) for index in indices], 0).to(device)
        logits = network(source, prefix)
        real = labels != IGNORED
        if divergence is None:
            return {"loss": masked_mean(cross_entropy(logits, labels), real)}
        assert teacher is not None
        goal = teacher.logits(indices, prefix)[..., : logits.shape[-1]]
        with torch.no_grad():  # a few texts suffice to watch, and cost next to nothing
            p, q, some = goal[:_WATCHED], logits[:_WATCHED], real[:_WATCHED]
            overlap = torch.minimum(p.softmax(-1), q.softmax(-1)).sum(-1)
            agree = (p.argmax(-1) == q.argmax(-1)).float()
        return {
            "loss": masked_mean(divergence(goal, logits), real),
            "alpha": masked_mean(overlap, some),
            "alpha_greedy": masked_mean(agree, some),
        }

    schedule = Schedule(recipe.updates, recipe.learning_rate, recipe.warmup, recipe.cooldown)
    return fit(
        model,
        loss_of,
        schedule,
        run,
        config={"recipe": asdict(recipe), "method": asdict(method)},
        validate=validate,
        resume=resume,
        say=say,
    )
