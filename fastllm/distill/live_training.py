"""Distillation in seconds: on a few articles, in memory, ended by a count or by the clock.

The same signal as in `fastllm.distill.train`: some updates on the target's own texts, the others on
the drafter's. With so few articles it is soon known by heart, so what it learned is measured on
articles it does not learn from as well, all along.
"""

import copy
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from fastllm.data.tokens import IGNORED, padded, prefixes
from fastllm.decoding import autoregress
from fastllm.distill.loop import optimizer_of
from fastllm.distill.losses import forward_kl, masked_mean
from fastllm.distill.teacher import Teacher
from fastllm.distill.train import Method
from fastllm.distill.validation import Validation
from fastllm.drafters.neural import NeuralDrafter, roll_out
from fastllm.errors import SettingsError, TrainingError
from fastllm.targets import resolve
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

WRITING = 1 / 3
"""The share of the time after which the target begins no further text."""

Drafter = TypeVar("Drafter", bound=NeuralDrafter[Any])


WARMUP, COOLDOWN = 10, 0.4
"""Updates of rising rate, and the share of the training, at its end, in which the rate falls."""

TEMPERATURE, REUSE = 0.6, 6
"""At which the drafter writes texts, and how often a batch of them is learned from, on average.

Writing one takes as long as several updates.
"""

MEASURE_EVERY = 1.0
"""Seconds between two measurements."""


@dataclass(frozen=True)
class ShortRecipe:
    """How a drafter is trained for some seconds.

    The numbers, and those above, were found on two CPU cores with the LSTM that ships undistilled:
    so trained, alpha comes close to 1 on the articles it learns from within half a minute, and
    alpha on others rises and stays. At three times the rate, or on own texts drawn at temperature
    1, the latter falls.

    Attributes:
        seconds: from the beginning, writing and measuring included; then it ends.
        updates: after so many it ends too, so that all fast machines learn the same.
        learning_rate: AdamW's.
        own_texts: the share of updates on the drafter's own texts.
        length: the most tokens of a text.
    """

    seconds: float = 30.0
    updates: int | None = None
    learning_rate: float = 3e-4
    own_texts: float = 0.5
    length: int = 72

    def __post_init__(self) -> None:
        if not self.seconds > 0 or (self.updates is not None and self.updates < 1):
            raise SettingsError(
                f"seconds={self.seconds}, updates={self.updates}: give seconds above 0, and at "
                "least 1 update, or none."
            )

    def passed(self, updates: int, seconds: float) -> float:
        """The share of the training that is over: by updates or by the clock, whichever is more."""
        return max(updates / (self.updates or math.inf), seconds / self.seconds)

    def rate(self, step: int, passed: float) -> float:
        """The learning rate of update `step`, when the share `passed` of the training is over."""
        rising = min(1.0, (step + 1) / WARMUP)
        return self.learning_rate * rising * max(0.05, min(1.0, (1 - passed) / COOLDOWN))


class Texts:
    """Articles and what the target wrote greedily of them, in memory, as token ids.

    `length` is the most tokens that it was to write.
    """

    def __init__(
        self,
        target: HubTarget,
        sources: Sequence[list[int]],
        written: Sequence[list[int]],
        length: int,
    ) -> None:
        self.meta = {"vocabulary": target.vocabulary.fingerprint, "length": length}
        self._sources, self._written = sources, written

    def __len__(self) -> int:
        return len(self._written)

    def source(self, index: int) -> list[int]:
        """The ids of an article."""
        return self._sources[index]

    def target(self, index: int) -> list[int]:
        """The ids of what the target wrote about it, the end token included where it came."""
        return self._written[index]


class _Batch(NamedTuple):
    """Texts to learn from: ids (B, S), (B, T), which places are real, the target's logits."""

    source: torch.Tensor
    prefix: torch.Tensor
    real: torch.Tensor
    p_logits: torch.Tensor


class Alignment(NamedTuple):
    """How well a drafter knows a target's own texts, as `Validation` measures it.

    Alpha, at temperature 1, counts whole distributions, and rises already where a drafter becomes
    as sure as the target is; tau, greedy, counts first choices alone. The two need not rise
    together.
    """

    alpha: float
    tau: float


class Moment(NamedTuple):
    """Where a training stands: seconds since it began, updates, and tokens learned from so far.

    `loss` is forward KL in nats a token, the mean since the last moment, None before any update;
    `own` is measured on the first article, `held_out` on those that are held out.
    """

    seconds: float
    updates: int
    tokens: int
    loss: float | None
    own: Alignment
    held_out: Alignment


@dataclass
class ShortTraining:
    """Trains the network of `student` in place for some seconds. Iterate `write`, then `learn`.

    It learns from the articles `sources` (token ids) and is watched on the first of them and on
    those of `held_out`. When `stop` is set it ends as soon as it can; `clock` is in seconds, and
    never set back.
    """

    student: NeuralDrafter[Any]
    target: HubTarget
    sources: Sequence[list[int]]
    held_out: Sequence[list[int]]
    recipe: ShortRecipe = field(default_factory=ShortRecipe)
    stop: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not self.sources or not self.held_out:
            raise SettingsError(
                f"{len(self.sources)} articles to learn from and {len(self.held_out)} held out: "
                "give at least one of each."
            )
        self._began = self.clock()
        self._written: dict[int, list[int]] = {}

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return self.clock() - self._began

    @property
    def learned(self) -> list[int]:
        """The articles that it learns from, by their place in `sources`; empty before `write`.

        The first, and of the others as many as the target had time to write about.
        """
        count = len(self.sources)
        if not {0, *range(count, count + len(self.held_out))} <= self._written.keys():
            return []
        return [place for place in range(count) if place in self._written]

    @property
    def over(self) -> bool:
        """Whether it was stopped, or its time has passed."""
        return self.stop.is_set() or self.seconds >= self.recipe.seconds

    def write(self) -> Iterator[int]:
        """Lets the target write about the articles; yields how many texts are there.

        First those it cannot do without: of the first article, and of those held out. The others
        follow as long as the share WRITING of the time has not passed.
        """
        count, target = len(self.sources), self.target
        articles = [*self.sources, *self.held_out]
        config = resolve(DecodingConfig(max_new_tokens=self.recipe.length), target)
        for place in (0, *range(count, len(articles)), *range(1, count)):
            if 0 < place < count and self.seconds > WRITING * self.recipe.seconds:
                return
            tokens: list[int] = []
            session = target.begin(target.encode(articles[place]))
            for entry in autoregress(
                session, config, start_id=target.start_id, end_id=target.end_ids, statistics=False
            ):
                tokens += entry.tokens
                if self.over:
                    return
            self._written[place] = tokens
            yield len(self._written)

    def learn(self) -> Iterator[Moment]:
        """Trains; yields a moment before the first update, about once a second, and at the end.

        Raises:
            TrainingError: a loss that is no number.
        """
        if not self.learned:
            return
        sources = [self.sources[place] for place in self.learned]
        lesson = self._texts(sources, self.learned)
        teacher = Teacher(self.target, lesson)
        given = self._batch(teacher, sources, [lesson.target(i) for i in range(len(lesson))])
        method = Method(0.0, self.recipe.own_texts, "fkl")
        draws = np.random.default_rng(0)
        generator = torch.Generator().manual_seed(0)
        optimizer = optimizer_of(self.student.model, self.recipe.learning_rate)
        pool: list[_Batch] = []
        updates = tokens = 0
        losses: list[float] = []

        def moment() -> Moment:
            mean = float(np.mean(losses)) if losses else None
            losses.clear()
            return Moment(self.seconds, updates, tokens, mean, *self.measure(self.student))

        yield moment()
        measured = self.seconds
        while not self.over and self.recipe.passed(updates, 0.0) < 1:
            batch = given
            if method.origin(0, updates) == "own":
                # Each batch stays in the pool until REUSE later ones have come.
                if len(pool) < REUSE or draws.random() < 1 / REUSE:
                    texts = self._own_texts(sources, generator)
                    pool.append(self._batch(teacher, sources, texts))
                    del pool[:-REUSE]
                batch = pool[int(draws.integers(len(pool)))]
            rate = self.recipe.rate(updates, self.recipe.passed(updates, self.seconds))
            losses.append(self._update(optimizer, batch, rate))
            updates += 1
            tokens += int(batch.real.sum())
            if self.seconds - measured >= MEASURE_EVERY and not self.over:
                yield moment()
                measured = self.seconds
        if updates:
            yield moment()

    def measure(self, drafter: NeuralDrafter[Any]) -> tuple[Alignment, Alignment]:
        """How well a drafter knows the target's texts: of the first article, and of those held out.

        To be asked where something is `learned`.
        """
        own, held_out = (judge(drafter.model) for judge in self._judges)
        return _alignment(own), _alignment(held_out)

    @cached_property
    def _judges(self) -> tuple[Validation, Validation]:
        count = len(self.sources)
        own = self._texts(self.sources[:1], [0])
        held_out = self._texts(self.held_out, range(count, count + len(self.held_out)))
        return (
            Validation(self.target, own, keep_logits=True),
            Validation(self.target, held_out, keep_logits=True),
        )

    def _texts(self, sources: Sequence[list[int]], places: Iterable[int]) -> Texts:
        """Articles, and what the target wrote about those at `places`."""
        written = [self._written[place] for place in places]
        return Texts(self.target, sources, written, self.recipe.length)

    def _own_texts(
        self, sources: Sequence[list[int]], generator: torch.Generator
    ) -> list[list[int]]:
        """What the student writes about articles."""
        self.student.model.eval()
        return roll_out(
            self.student.model,
            padded(sources, 0).to(self.target.device),
            start_id=self.target.start_id,
            end_id=self.target.end_ids,
            length=self.recipe.length,
            temperature=TEMPERATURE,
            generator=generator,
        )

    def _batch(
        self, teacher: Teacher, sources: Sequence[list[int]], texts: Sequence[list[int]]
    ) -> _Batch:
        """A text about each article, and what the target thinks of it."""
        device = self.target.device
        # Whoever decodes in this thread may have switched gradients off for all that is made here.
        with torch.inference_mode(False):
            prefix = prefixes(texts, self.target.start_id).to(device)
            return _Batch(
                padded(sources, 0).to(device),
                prefix,
                padded(texts, IGNORED).to(device) != IGNORED,
                teacher.logits(range(len(texts)), prefix),
            )

    def _update(self, optimizer: torch.optim.Optimizer, batch: _Batch, rate: float) -> float:
        """One step of the weights; returns its loss."""
        model = self.student.model
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.inference_mode(False), torch.enable_grad():
            q_logits = model(batch.source, batch.prefix)
            width = min(batch.p_logits.shape[-1], q_logits.shape[-1])  # may be padded differently
            distance = forward_kl(batch.p_logits[..., :width], q_logits[..., :width])
            loss = masked_mean(distance, batch.real)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            found = float(loss.detach())
            if not np.isfinite(found):
                raise TrainingError(
                    f"the loss is {found}: these weights cannot be trained at this rate "
                    f"({rate:.0e}). Take another drafter."
                )
            optimizer.step()
        model.eval()
        return found


def _alignment(numbers: dict[str, float]) -> Alignment:
    return Alignment(numbers["validation_alpha"], numbers["validation_tau"])


def student_of(drafter: Drafter, name: str) -> Drafter:
    """A copy of a drafter to be trained, under another name: the drafter stays as it is."""
    with torch.inference_mode(False):
        model = copy.deepcopy(drafter.model)
        model.requires_grad_(True)
    # Made anew, not copied: a drafter keeps its weights a second time, laid out for decoding.
    return type(drafter)(model, drafter.settings, name, drafter.vocabulary)
