"""Trains a drafter: on the data set alone (before), or aligned with a target (after).

Where the sequences come from and what is minimised make the method (DistillSpec,
arXiv:2310.08461): each update draws whether its texts are the data set's (with probability
`lambda1`), else the drafter's own (with `lambda2`), else the target's.

Several processes share each batch. What they train equals what one would, where the texts are
given; a drafter's own texts are drawn in each process with random numbers of its own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from fastllm.data.tokens import IGNORED, TokenPairs, batch_indices, padded, prefixes
from fastllm.distill.cache import TeacherCache
from fastllm.distill.loop import Losses, Schedule, fit, processes
from fastllm.distill.losses import (
    DIVERGENCES,
    SAMPLED,
    Divergence,
    cross_entropy,
    draw_tokens,
    jensen_shannon,
    loss_weights,
    masked_mean,
    reverse_kl,
    sampled_total_variation,
    tempered,
)
from fastllm.distill.replay import replays
from fastllm.distill.teacher import Teacher
from fastllm.drafters.neural import roll_out
from fastllm.errors import SettingsError, VocabularyError
from fastllm.targets.hub import HubTarget


@dataclass(frozen=True)
class Method:
    """A corner of DistillSpec's table: where texts come from, and the loss on them.

    With `replays`, drafts that the target's texts refuse count too (see `fastllm.distill.replay`).
    """

    lambda1: float
    lambda2: float
    loss: str
    replays: bool = False

    def written_down(self) -> dict[str, Any]:
        """What `config.json` and the card say; `replays` only where there are some."""
        found = asdict(self)
        if not self.replays:
            del found["replays"]
        return found

    @property
    def weights(self) -> dict[str, float]:
        """The losses that are summed, with their weights."""
        return loss_weights(self.loss)

    @property
    def scored(self) -> bool:
        """Whether the target has to score the texts."""
        return self.replays or any(name != "ce" for name in self.weights)

    @property
    def own_texts(self) -> float:
        """The share of updates on the drafter's own texts."""
        return (1 - self.lambda1) * self.lambda2

    @property
    def written_texts(self) -> bool:
        """Whether there are updates on texts that the target wrote."""
        return self.lambda1 < 1 and self.lambda2 < 1

    def origin(self, seed: int, step: int) -> str:
        """Whose texts update `step` is made of: "dataset", "own" or "written"."""
        draws = np.random.default_rng([seed, 1, step]).random(2)
        if draws[0] < self.lambda1:
            return "dataset"
        return "own" if draws[1] < self.lambda2 else "written"


_WATCHED = 4
"""Texts of a batch from which the logged alpha is computed."""

METHODS = {
    "supervised": Method(1.0, 0.0, "ce"),
    "seq_kd": Method(0.0, 0.0, "ce"),
    "supervised_kd": Method(1.0, 0.0, "fkl"),
    "imit_kd": Method(0.5, 1.0, "fkl"),
    "f_distill": Method(0.0, 0.5, "tvd"),
    "on_policy_gkd": Method(0.0, 1.0, "fkl"),
    "mixed_gkd": Method(0.0, 0.2, "fkl"),
    "opd": Method(0.0, 0.0, "fkl", replays=True),
}
"""Methods by name; `lambda1`, `lambda2` and the loss can be overridden one by one."""


@dataclass(frozen=True)
class DrafterRecipe:
    """How a neural drafter is trained. Two recipes that differ in `method` alone make a pair.

    Attributes:
        method: a name of METHODS.
        updates: optimizer updates.
        batch: texts an update.
        learning_rate: AdamW's; see `Schedule` for warm-up and cool-down.
        seed: of the initial weights, the order of the articles and every draw.
        loss: a name of LOSSES or a weighted sum of them; the method's by default.
        kd_temperature: divides both logits in a divergence.
        lambda1: overrides the method's share of data-set texts.
        lambda2: overrides the share of the drafter's own texts among the others.
        length: the most tokens of a text.
        keep: "best", the weights with the most tau in the validation, or "last". The validation
            reads texts of the target: a baseline that is to know the data set alone keeps its last.
        jsd_beta: the target's share in the mixture of "jsd".
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
    jsd_beta: float = 0.5

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"method={self.method!r}: give one of {', '.join(METHODS)}.")
        method = self.resolved
        weights = method.weights
        _ = self.schedule  # refused now, not once the articles are there
        if self.keep not in ("best", "last"):
            raise SettingsError(f"keep={self.keep!r}: give best or last.")
        if not (0 <= method.lambda1 <= 1 and 0 <= method.lambda2 <= 1):
            raise SettingsError(
                f"lambda1={self.lambda1}, lambda2={self.lambda2}: give numbers between 0 and 1."
            )
        if self.batch < 1 or self.length < 2:
            raise SettingsError(
                f"batch={self.batch}, length={self.length}: give at least 1 text an update, and at "
                "least 2 tokens a text."
            )
        if not 0 < self.kd_temperature < math.inf:
            raise SettingsError(f"kd_temperature={self.kd_temperature}: give a number above 0.")
        if self.kd_temperature != 1 and not method.scored:
            raise SettingsError(
                f"kd_temperature={self.kd_temperature} belongs to a divergence, and method "
                f"{self.method!r} trains with cross-entropy: give a loss of "
                f"{', '.join(DIVERGENCES)}."
            )
        if self.jsd_beta != 0.5 and "jsd" not in weights:
            raise SettingsError(
                f"jsd_beta={self.jsd_beta} belongs to jsd, and the loss is {method.loss!r}."
            )
        if not 0 < self.jsd_beta < 1:
            raise SettingsError(
                f"jsd_beta={self.jsd_beta}: give a number between 0 and 1, both excluded; fkl and "
                "rkl are its limits."
            )

    @property
    def schedule(self) -> Schedule:
        """Its updates, and the rate of each."""
        return Schedule(self.updates, self.learning_rate, self.warmup, self.cooldown)

    @property
    def resolved(self) -> Method:
        """The method with this recipe's overrides."""
        own = {"lambda1": self.lambda1, "lambda2": self.lambda2, "loss": self.loss or None}
        given: dict[str, Any] = {k: value for k, value in own.items() if value is not None}
        return replace(METHODS[self.method], **given)

    def written_down(self) -> dict[str, Any]:
        """What `config.json` and the card say: settings that came later, only where they are used.

        A run that was begun before there was such a setting can then be continued.
        """
        found = asdict(self)
        if self.jsd_beta == DrafterRecipe.jsd_beta:
            del found["jsd_beta"]
        return found


def train_drafter(
    model: Any,
    recipe: DrafterRecipe,
    run: str | Path,
    *,
    dataset: TokenPairs,
    written: TokenPairs | None = None,
    target: HubTarget | None = None,
    start_id: int = 0,
    end_id: int | Sequence[int] = 1,
    caches: Mapping[str, TeacherCache] | None = None,
    about: dict[str, Any] | None = None,
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
        end_id: the token that ends one, or several of which any does.
        caches: what the target thinks of the texts of "dataset" and of "written", where that is not
            to be computed at each update; the drafter's own texts are scored as they are written.
        about: what else to write to `config.json`; a run is not continued under another.
        validate: a `fastllm.distill.validation.Validation`; the network ends with the weights that
            had the highest tau in it, and without it with the last ones.
        validate_every: see `fit`.
        save_every: see `fit`.
        log_every: see `fit`.
        accelerator: see `fit`.
        say: see `fit`.

    Returns:
        What `fit` returns: the last line of the log, and "best".

    Raises:
        SettingsError: the method needs a target, or its texts, and they are missing; or there are
            more processes than texts in a batch; or a temperature with a cache.
        VocabularyError: the texts belong to other articles than the data set's.
    """
    method = recipe.resolved
    weights = method.weights
    if method.scored and target is None:
        raise SettingsError(f"loss {method.loss!r} compares with a target: give one.")
    if "ce" in weights and method.own_texts:
        raise SettingsError("cross-entropy on the drafter's own texts teaches it nothing: use fkl.")
    if method.written_texts:
        if written is None:
            raise SettingsError(
                f"method {recipe.method!r} trains on texts that the target wrote: make them with "
                "`python -m fastllm pseudo` and give their folder."
            )
        if written.ids != dataset.ids:
            raise VocabularyError("the target's texts are not about the data set's articles.")
    accelerator = accelerator or processes(None if torch.cuda.is_available() else "cpu")
    rank, count = accelerator.process_index, accelerator.num_processes
    temperature = recipe.kd_temperature
    if recipe.batch < count:
        raise SettingsError(f"batch={recipe.batch} has no text for each of {count} processes.")
    if caches and temperature != 1:
        raise SettingsError(
            f"kd_temperature={temperature} needs every logit of the target, and a teacher cache "
            "keeps the sum of most: train without --teacher_cache, or at temperature 1."
        )
    teacher = Teacher(target, dataset) if target is not None and method.scored else None

    def texts_of(origin: str, indices: list[int], step: int) -> list[list[int]]:
        if origin == "own":
            source = padded([dataset.source(index) for index in indices], 0)
            return roll_out(
                model,
                source.to(next(model.parameters()).device),
                start_id=start_id,
                end_id=end_id,
                length=recipe.length,
                temperature=1.0,
                generator=generator(step),
            )
        pairs = dataset if origin == "dataset" else written
        assert pairs is not None
        return [pairs.target(index) for index in indices]

    def generator(step: int) -> torch.Generator:
        return torch.Generator().manual_seed(recipe.seed * 1_000_003 + step + rank * 2**40)

    def divergence(name: str, step: int, real: torch.Tensor) -> Divergence:
        """A loss by name as a function of logits, with this recipe's settings."""
        if name == "jsd":
            return lambda p, q: jensen_shannon(p, q, recipe.jsd_beta)
        if name != SAMPLED:
            return DIVERGENCES[name]
        # Numbers of their own, so that an update's text and its samples are independent.
        uniforms = torch.rand(real.shape, generator=generator(step + 2**39)).to(real.device)
        return lambda p, q: sampled_total_variation(p, q, draw_tokens(q, uniforms), real)

    def mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`masked_mean` over the whole batch, once it is averaged over the processes."""
        if count == 1:
            return masked_mean(values, mask)
        everywhere: torch.Tensor = accelerator.reduce(mask.sum().float(), "sum")
        share: torch.Tensor = (values * mask).sum() * count / everywhere.clamp(min=1)
        return share

    def beside_teacher(
        indices: list[int], prefix: torch.Tensor, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert teacher is not None
        p_logits = teacher.logits(indices, prefix)
        width = min(p_logits.shape[-1], logits.shape[-1])  # may be padded differently
        return p_logits[..., :width], logits[..., :width]

    def replayed(
        network: torch.nn.Module,
        step: int,
        indices: list[int],
        source: torch.Tensor,
        texts: list[list[int]],
        choices: torch.Tensor,
    ) -> tuple[torch.Tensor, int]:
        """The loss on refused drafts, and how many tokens the target scored for it."""
        again = replays(
            model,
            source,
            texts,
            choices,
            start_id=start_id,
            end_id=end_id,
            generator=generator(step),
        )
        prefix = prefixes(again.texts, start_id).to(source.device)
        logits = network(source[again.rows], prefix)
        p, q = beside_teacher([indices[row] for row in again.rows], prefix, logits)
        loss = mean(tempered(reverse_kl, temperature)(p, q), again.weights.to(source.device))
        return loss, sum(map(len, again.texts))

    def loss_of(network: torch.nn.Module, step: int) -> Losses:
        device = next(network.parameters()).device
        indices = batch_indices(dataset, recipe.batch, step, recipe.seed)[rank::count]
        come_from = method.origin(recipe.seed, step)
        texts = [text[: recipe.length] for text in texts_of(come_from, indices, step)]
        labels = padded(texts, IGNORED).to(device)
        prefix = prefixes(texts, start_id).to(device)
        source = padded([dataset.source(index) for index in indices], 0).to(device)
        logits = network(source, prefix)
        real = labels != IGNORED
        tokens = real.sum() * count
        if teacher is None:
            return {"loss": mean(cross_entropy(logits, labels), real), "tokens": tokens}
        if caches and come_from in caches:
            p_logits, q_logits, likeliest = caches[come_from].pair(indices, logits)
        else:
            p_logits, q_logits = beside_teacher(indices, prefix, logits)
            likeliest = p_logits[:_WATCHED].argmax(-1)
        parts = {
            name: mean(
                cross_entropy(logits, labels)
                if name == "ce"
                else tempered(divergence(name, step, real), temperature)(p_logits, q_logits),
                real,
            )
            for name in weights
        }
        total = torch.stack([weight * parts[name] for name, weight in weights.items()]).sum()
        if method.replays and come_from == "written":
            choices = logits.detach().argmax(-1)
            parts["replay"], more = replayed(network, step, indices, source, texts, choices)
            total, tokens = total + parts["replay"], tokens + more * count
        with torch.no_grad():  # a few texts suffice to watch, and cost next to nothing
            p, q, some = p_logits[:_WATCHED], q_logits[:_WATCHED], real[:_WATCHED]
            overlap = torch.minimum(p.softmax(-1), q.softmax(-1)).sum(-1)
            agree = (likeliest[:_WATCHED] == logits[:_WATCHED].argmax(-1)).float()
        return {
            "loss": total,
            **(parts if len(parts) > 1 else {}),
            "alpha": mean(overlap, some),
            "alpha_greedy": mean(agree, some),
            "tokens": tokens,
        }

    return fit(
        model,
        loss_of,
        recipe.schedule,
        run,
        config={"recipe": recipe.written_down(), "method": method.written_down(), **(about or {})},
        save_every=save_every,
        log_every=log_every,
        validate=validate,
        validate_every=validate_every,
        best_by="validation_tau" if validate and recipe.keep == "best" else "",
        accelerator=accelerator,
        say=say,
    )
