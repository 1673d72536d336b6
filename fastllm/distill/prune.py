"""Drafters cut out of the target: which heads and feed-forward columns of its decoder are enough.

Forward passes alone decide. Parts of the decoder are switched off, and what is left is asked at
every place of texts that the target wrote: alpha. Three ways to choose:

- "regression": half of the parts that may go are switched off at random, then the other half (a
  mask and its complement), many times. Ridge regression of alpha on the masks says what each part
  is worth; the least worth per byte, or per microsecond, goes. Then again, among the parts that
  looked worth least (Dery et al. 2024, "Bonsai", arXiv:2402.05406).
- "greedy": each part in turn is tried without, and the one that is missed least goes (Zhang et al.
  2023, "Draft & Verify", arXiv:2309.08168, where layers' sublayers are the parts).
- "random": the control.

Sets are compared by the speed-up that they predict: the most over gamma of
tau(alpha, gamma) / (1 + gamma (c + s)), where c is a drafter step and s what a drafted token adds
to the target's call, both in one-token calls of the target. Nothing is trained; the search under a
budget is that of "Compressor" (2022, arXiv:2208.07120).
"""

import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from fastllm import metrics
from fastllm.drafters.cost import CostMeter
from fastllm.drafters.kept import KeptLayer, masked, matrix_of
from fastllm.drafters.shared import SharedDrafter, TargetEncoder
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.targets.encodings import real_places
from fastllm.targets.hub import HubTarget, synchronize

Part = Literal["own", "cross", "columns"]
"""A sublayer: attention to the text, attention to the article, feed-forward."""

PARTS: tuple[Part, ...] = ("own", "cross", "columns")

SEARCHES = ("regression", "greedy", "random")

UNITS = ("heads", "sublayers")
"""What is kept or dropped as one: a head or a group of feed-forward columns; or a sublayer."""

BYTES_A_WEIGHT = 2
"""As a checkpoint holds them, in bfloat16."""

LONGEST_DRAFT = 16
"""Draft lengths up to this are looked at where a speed-up is predicted."""

_RIDGE = 1.0
"""What is added to the diagonal, in masks: less than that many say little of a part."""


@dataclass(frozen=True)
class Unit:
    """What is kept or dropped as one: heads, or feed-forward columns, of a part of a layer."""

    layer: int
    part: Part
    channels: tuple[int, ...]


def require_t5(target: HubTarget) -> None:
    """Raises SettingsError where a target's decoder is of another kind."""
    if type(target.model) is not T5ForConditionalGeneration:
        raise SettingsError(
            f"{target.name} is a {type(target.model).__name__}: only the decoder of a T5 can be "
            "pruned. Take --target google/flan-t5-small or the like, or train lstm, cnn or t5."
        )


class MaskedTarget(nn.Module):
    """The target, a T5, as a network (source, prefix) -> logits, with parts switched off.

    Its weights are neither copied nor changed; `kept` is what is switched on.
    """

    def __init__(self, target: HubTarget) -> None:
        super().__init__()
        self.model = target.model
        self.kept: tuple[KeptLayer, ...] = ()
        self._encode = TargetEncoder(target.model.get_encoder())

    def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) after every token of `prefix` (B, T); articles (B, S) end in zeros."""
        real = real_places(source).long()
        states = self._encode(source, real)
        states.last_hidden_state = states.last_hidden_state.to(self.model.dtype)
        with masked(self.model.decoder, self.kept, self.model.config.d_kv):
            logits: torch.Tensor = self.model(
                encoder_outputs=states,
                attention_mask=real,
                decoder_input_ids=prefix,
                use_cache=False,
            ).logits
        return logits


def units_of(target: HubTarget, kind: str, groups: int, loud: Sequence[torch.Tensor]) -> list[Unit]:
    """The parts of a T5's decoder.

    Args:
        target: whose.
        kind: a name of UNITS.
        groups: of feed-forward columns in a layer.
        loud: for each layer its `loudness`, by which columns are grouped: quiet ones together.

    Raises:
        SettingsError: there is no such kind, or more groups than columns.
    """
    config = target.model.config
    if kind not in UNITS:
        raise SettingsError(f"--units {kind}: give one of {', '.join(UNITS)}.")
    if not 1 <= groups <= config.d_ff:
        raise SettingsError(f"--groups {groups}: give 1 to {config.d_ff}, the columns of a layer.")
    found = []
    for layer in range(len(target.model.decoder.block)):
        heads = tuple(range(config.num_heads))
        for part in PARTS[:2]:
            chosen = [heads] if kind == "sublayers" else [(head,) for head in heads]
            found += [Unit(layer, part, channels) for channels in chosen]
        order = torch.argsort(loud[layer], descending=True, stable=True)
        pieces = [order] if kind == "sublayers" else torch.tensor_split(order, groups)
        found += [Unit(layer, "columns", tuple(sorted(piece.tolist()))) for piece in pieces]
    return found


@torch.no_grad()
def loudness(target: HubTarget, run: Callable[[], object]) -> list[torch.Tensor]:
    """How much each feed-forward column adds on the average while `run` reads: a (d_ff,) a layer.

    Mean absolute activation times the norm of the column that it is multiplied with: the prior of
    Bonsai, after Sun et al. 2023, "Wanda", arXiv:2306.11695.
    """
    layers = [block.layer[-1].DenseReluDense.wo for block in target.model.decoder.block]
    sums: dict[Any, torch.Tensor] = {}

    def add(linear: Any, inputs: tuple[torch.Tensor]) -> None:
        mean = inputs[0].detach().abs().float().flatten(0, -2).mean(0)
        sums[linear] = sums[linear] + mean if linear in sums else mean

    handles = [linear.register_forward_pre_hook(add) for linear in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return [(sums[layer] * matrix_of(layer).float().norm(dim=0)).cpu() for layer in layers]


def kept_of(units: Sequence[Unit], on: frozenset[int]) -> tuple[KeptLayer, ...]:
    """The layers that a set of units makes; those without any are left out."""
    chosen: dict[int, dict[str, list[int]]] = {}
    for index in sorted(on):
        unit = units[index]
        parts = chosen.setdefault(unit.layer, {part: [] for part in PARTS})
        parts[unit.part] += unit.channels
    return tuple(
        KeptLayer(layer, *(tuple(sorted(parts[part])) for part in PARTS))
        for layer, parts in sorted(chosen.items())
    )


# What a set of units costs.


Cost = Callable[[Sequence[KeptLayer]], float]
"""What a decoder of these parts costs, in bytes or in microseconds."""


class ByteCost:
    """Bytes of the weights that a checkpoint holds, of parts of a T5."""

    def __init__(self, config: Any) -> None:
        self._head = 4 * config.d_model * config.d_kv
        self._column = (3 if config.is_gated_act else 2) * config.d_model
        self._layer = 3 * config.d_model  # norms
        self._all = config.d_model + config.relative_attention_num_buckets * config.num_heads

    def __call__(self, kept: Sequence[KeptLayer]) -> float:
        """The bytes."""
        weights = self._all + sum(
            self._layer
            + (len(layer.own) + len(layer.cross)) * self._head
            + len(layer.columns) * self._column
            for layer in kept
        )
        return float(BYTES_A_WEIGHT * weights)


@dataclass(frozen=True)
class StepCost:
    """Microseconds of a drafted token, by part: of each sublayer, and of each channel in it.

    `base` is that of a step of which nothing but the output is left.
    """

    base: float
    sublayer: dict[str, float]
    channel: dict[str, float]

    def __call__(self, kept: Sequence[KeptLayer]) -> float:
        """The microseconds."""
        return self.base + sum(
            bool(channels) * self.sublayer[part] + len(channels) * self.channel[part]
            for layer in kept
            for part, channels in zip(PARTS, (layer.own, layer.cross, layer.columns), strict=True)
        )

    @classmethod
    def fit(
        cls, sets: Sequence[tuple[KeptLayer, ...]], microseconds: Sequence[float]
    ) -> "StepCost":
        """The sum that fits measured steps best; no term of it is below 0."""
        rows = torch.tensor([_features(kept) for kept in sets], dtype=torch.float64)
        seconds = torch.tensor(microseconds, dtype=torch.float64)
        on = list(range(rows.shape[1]))
        while True:  # what comes out below 0 is left out, the worst first
            scale = rows[:, on].abs().amax(0).clamp(min=1e-9)
            found = torch.linalg.lstsq(rows[:, on] / scale, seconds[:, None]).solution[:, 0] / scale
            if len(on) == 1 or float(found.min()) >= 0:
                break
            on.pop(int((found * scale).argmin()))
        values = torch.zeros(rows.shape[1], dtype=torch.float64)
        values[on] = found.clamp(min=0)
        base, *terms = values.tolist()
        sublayer: dict[str, float] = dict(zip(PARTS, terms[::2], strict=True))
        channel: dict[str, float] = dict(zip(PARTS, terms[1::2], strict=True))
        return cls(base, sublayer, channel)


def _features(kept: Sequence[KeptLayer]) -> list[float]:
    """1, then for each part in how many layers it is there, and how many channels it has."""
    found = [1.0]
    for chosen in zip(*((layer.own, layer.cross, layer.columns) for layer in kept), strict=True):
        found += [float(sum(map(bool, chosen))), float(sum(map(len, chosen)))]
    return found


@dataclass(frozen=True)
class Clock:
    """What was measured where the search ran.

    `call` is the microseconds of a one-token call of the target, `token` is s, what a token more
    adds to it, as a share.
    """

    call: float
    token: float
    step: StepCost

    def speed_up(self, alpha: float, kept: Sequence[KeptLayer]) -> tuple[float, int]:
        """The speed-up of decoding that is predicted, and the draft length with which."""
        c = self.step(kept) / self.call
        return max(
            (
                metrics.expected_speed_up(
                    metrics.expected_tau(alpha, gamma), gamma, c, 1 + gamma * self.token
                ),
                gamma,
            )
            for gamma in range(1, LONGEST_DRAFT + 1)
        )


def measure_clock(
    target: HubTarget,
    units: Sequence[Unit],
    encodings: Sequence[Encoding],
    texts: Sequence[list[int]],
    *,
    seed: int = 0,
    sets: int = 12,
) -> Clock:
    """Times calls of the target, and drafters of random parts of its decoder, one at a time.

    `texts` are what the target wrote of each article; `sets` drafters are timed.
    """
    seconds: dict[int, list[float]] = {1: [], 6: []}
    for _ in range(3):
        for encoding, text in zip(encodings, texts, strict=True):
            words = ([target.start_id, *text] * 6)[:6]
            for count, found in seconds.items():
                found.append(_call_seconds(target, encoding, words[:count]))
    calls = {count: statistics.median(found) for count, found in seconds.items()}
    draws = random.Random(seed)
    kept = []
    for number in range(sets):
        share = 0.05 + 0.45 * number / max(1, sets - 1)
        chosen = draws.sample(range(len(units)), max(1, round(share * len(units))))
        kept.append(kept_of(units, frozenset(chosen)))
    steps = [step_microseconds(target, one, encodings, texts) for one in kept]
    return Clock(calls[1] * 1e6, metrics.call_cost(calls), StepCost.fit(kept, steps))


def _call_seconds(target: HubTarget, encoding: Encoding, words: list[int]) -> float:
    session = target.begin(encoding)
    session.forward(words)  # the first call is not like the others
    synchronize(target.device)
    started = time.perf_counter()
    logits = session.forward(words)
    float(logits[-1, 0])  # waits for the device
    return time.perf_counter() - started


def step_microseconds(
    target: HubTarget,
    kept: tuple[KeptLayer, ...],
    encodings: Sequence[Encoding],
    texts: Sequence[list[int]],
) -> float:
    """Microseconds of a drafted token of a pruned drafter: the median over the articles."""
    meter = CostMeter(SharedDrafter.pruned(target, kept), start_id=target.start_id)
    meter.warm_up(encodings[0])
    for encoding, text in zip(encodings, texts, strict=True):
        meter.measure(encoding, text)
    return meter.cost().step_microseconds


# Budgets.


_BUDGET = re.compile(r"([0-9]*\.?[0-9]+)\s*(B|kB|MB|GB|%|us|ms)")

_UNITS = {
    "B": (1.0, "bytes"),
    "kB": (1e3, "bytes"),
    "MB": (1e6, "bytes"),
    "GB": (1e9, "bytes"),
    "%": (0.01, "share"),
    "us": (1.0, "microseconds"),
    "ms": (1e3, "microseconds"),
}


class Budget(NamedTuple):
    """The most that a drafter may cost: bytes, microseconds, or a share of the decoder's bytes."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Reads "500kB", "20%" or "300us".

        Raises:
            SettingsError: it is none of these.
        """
        found = _BUDGET.fullmatch(text.strip())
        factor, unit = _UNITS[found[2]] if found else (1.0, "")
        amount = float(found[1]) * factor if found else 0.0
        if amount <= 0 or (unit == "share" and amount > 1):
            raise SettingsError(
                f"--budget {text}: give bytes (500kB, 2MB), a share of the decoder's bytes (20%, "
                "at most 100%), or microseconds a drafted token (300us)."
            )
        return cls(amount, unit)


# The search.


class Score(NamedTuple):
    """How much a set of units is like the target, at the places of the target's texts.

    `alpha` is the mean of sum min(p, q) at temperature 1, `alpha_greedy` the share of places where
    its first choice is the target's word.
    """

    alpha: float
    alpha_greedy: float

    @property
    def worth(self) -> float:
        """What the search goes by: the mean of the two. The first is smooth, the second decides."""
        return (self.alpha + self.alpha_greedy) / 2


class Scores:
    """Scores sets of units, each once: what was scored is kept in a file, for a later run too.

    Args:
        measure: scores the kept layers of a set.
        units: the parts.
        file: a JSON line for each set; None keeps them in memory.
    """

    def __init__(
        self,
        measure: Callable[[tuple[KeptLayer, ...]], Score],
        units: Sequence[Unit],
        file: Path | None = None,
    ) -> None:
        self._measure, self._units, self._file = measure, units, file
        self._known: dict[str, Score] = {}
        if file is not None and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                # The process was killed as it wrote the last line, or somebody else wrote.
                with suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    self._known[row["on"]] = Score(row["alpha"], row["alpha_greedy"])

    def __call__(self, on: frozenset[int]) -> Score:
        """The score of a set of units."""
        key = f"{sum(1 << index for index in on):x}"
        if key not in self._known:
            score = self._known[key] = self._measure(kept_of(self._units, on))
            if self._file is not None:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"on": key, **score._asdict()}) + "\n")
        return self._known[key]


@dataclass(frozen=True)
class Search:
    """A search for the parts to keep.

    Attributes:
        units: the parts.
        score: of a set of them.
        cost: of the layers that they make.
        budget: in the unit of `cost`.
        rounds: of "regression": how often parts go.
        masks: of each such round.
        seed: of everything random.
        say: receives a line a round.
    """

    units: Sequence[Unit]
    score: Callable[[frozenset[int]], Score]
    cost: Cost
    budget: float
    rounds: int = 4
    masks: int = 64
    seed: int = 0
    say: Callable[[frozenset[int]], None] = lambda on: None

    def run(self, how: str) -> frozenset[int]:
        """The units that are kept, within the budget; `how` is a name of SEARCHES.

        Raises:
            SettingsError: no part at all fits the budget.
        """
        everything = frozenset(range(len(self.units)))
        least = min(self._cost(frozenset([index])) for index in everything)
        if least > self.budget:
            raise SettingsError(
                f"the budget is {self.budget:,.0f}, and a decoder with a single part costs "
                f"{least:,.0f}: give more."
            )
        if self._cost(everything) <= self.budget:
            return everything
        ways = {"regression": self._regression, "greedy": self._greedy, "random": self._random}
        return ways[how](everything)

    def passes(self, how: str) -> int:
        """How many sets are scored at most."""
        count = len(self.units)
        return {
            "regression": self.rounds * self.masks,
            "greedy": count * (count + 1) // 2,
            "random": 1,
        }[how]

    def _cost(self, on: frozenset[int]) -> float:
        return self.cost(kept_of(self.units, on))

    def _saved(self, on: frozenset[int], index: int) -> float:
        """What a unit costs in its set; of its sublayer's own cost it bears its share."""
        unit, units = self.units[index], self.units
        place = (unit.layer, unit.part)
        same = frozenset(i for i in on if (units[i].layer, units[i].part) == place)
        size = sum(len(units[i].channels) for i in same)
        return (self._cost(on) - self._cost(on - same)) * len(unit.channels) / size

    def _order(
        self, on: frozenset[int], among: Iterable[int], values: Mapping[int, float]
    ) -> list[int]:
        """Units in the order of what they are worth for what they cost, the least first."""
        return sorted(sorted(among), key=lambda index: values[index] / self._saved(on, index))

    def _random(self, on: frozenset[int]) -> frozenset[int]:
        return self._without(on, random.Random(self.seed).sample(sorted(on), len(on)), self.budget)

    def _without(self, on: frozenset[int], order: Sequence[int], goal: float) -> frozenset[int]:
        """A set without the first units of an order, as many as must go; one stays at least.

        Where dropping the next would leave too much to spare is not asked: the order decides.
        """
        for index in order:
            if self._cost(on) <= goal or len(on) == 1:
                break
            on = on - {index}
        return on

    def _regression(self, on: frozenset[int]) -> frozenset[int]:
        draws, values = random.Random(self.seed), dict.fromkeys(on, 0.0)
        whole = self._cost(on)
        for number in range(1, self.rounds + 1):
            goal = whole * (self.budget / whole) ** (number / self.rounds)
            candidates = sorted(on) if number == 1 else self._candidates(on, values, goal)
            masks, worths = [], []
            for _ in range(max(1, self.masks // 2)):
                half = frozenset(draws.sample(candidates, len(candidates) // 2))
                for off in (half, frozenset(candidates) - half):
                    left = on - off or frozenset(candidates[:1])
                    masks.append([float(index in left) for index in candidates])
                    worths.append(self.score(left).worth)
            values.update(zip(candidates, ridge(masks, worths), strict=True))
            order = self._order(on, candidates, values)
            order += self._order(on, on - set(candidates), values)
            on = self._without(on, order, goal)
            self.say(on)
        return on

    def _candidates(self, on: frozenset[int], values: dict[int, float], goal: float) -> list[int]:
        """The units that looked worth least: about twice what has to go."""
        excess = 2 * (self._cost(on) - goal)
        chosen: list[int] = []
        for index in self._order(on, on, values):
            if len(chosen) >= 4 and excess <= 0:
                break
            chosen.append(index)
            excess -= self._saved(on, index)
        return sorted(chosen)

    def _greedy(self, on: frozenset[int]) -> frozenset[int]:
        while self._cost(on) > self.budget and len(on) > 1:
            now = self.score(on).worth
            losses = {index: now - self.score(on - {index}).worth for index in sorted(on)}
            on = on - {self._order(on, on, losses)[0]}
            self.say(on)
        return on


def ridge(masks: Sequence[Sequence[float]], worths: Sequence[float]) -> list[float]:
    """What each column of the masks is worth: ridge regression with an intercept.

    Example:
        >>> [round(value, 1) for value in ridge([[1, 0], [0, 1]] * 20, [1.0, 0.0] * 20)]
        [0.5, -0.5]
    """
    rows = torch.tensor(masks, dtype=torch.float64)
    wanted = torch.tensor(worths, dtype=torch.float64)
    rows, wanted = rows - rows.mean(0), wanted - wanted.mean()
    square = rows.T @ rows + _RIDGE * torch.eye(rows.shape[1], dtype=torch.float64)
    solution: list[float] = torch.linalg.solve(square, rows.T @ wanted).tolist()
    return solution
