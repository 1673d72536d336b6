"""The command `prune`: a drafter cut out of its target's decoder, by forward passes alone."""

import argparse
import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastllm.cli.training import out_folder, save_checkpoint
from fastllm.data.tokens import TokenPairs
from fastllm.decoding.race import hardware
from fastllm.distill.material import (
    TEXT_LENGTH,
    RunContext,
    article_count,
    choose_pairs,
    has_split,
    load_teacher,
)
from fastllm.distill.options import needed, prune_flags, settle
from fastllm.distill.prune import (
    Budget,
    ByteCost,
    Clock,
    MaskedTarget,
    Score,
    Scores,
    Search,
    StepCost,
    Unit,
    kept_of,
    loudness,
    measure_clock,
    require_t5,
    step_microseconds,
    units_of,
)
from fastllm.distill.pseudo import weights_fingerprint, write_pseudo
from fastllm.distill.validation import Validation
from fastllm.drafters.kept import KeptLayer
from fastllm.drafters.shared import SharedDrafter
from fastllm.errors import DataError, SettingsError
from fastllm.evaluation.tables import grid
from fastllm.files import object_in, write_json
from fastllm.targets.hub import HubTarget
from fastllm.words import duration, first_line

TIMED = 4
"""Articles on which drafters and calls of the target are timed."""

DRAWS = 3
"""Random sets of the same budget that stand beside the one that was found."""

_DRY_ARTICLES = 8


def add_arguments(commands: Any) -> None:
    """Adds the command `prune`."""
    parser = commands.add_parser(
        "prune",
        help="cut a drafter out of the target, without training",
        description="Searches the heads and feed-forward columns of the target's decoder that are "
        "enough to guess its words, by forward passes alone, and writes them as a drafter. "
        "Interrupted searches go on where they stopped.",
    )
    prune_flags(parser)
    parser.set_defaults(handle=prune)


def prune(options: argparse.Namespace) -> None:
    """Cuts a drafter out of the target."""
    settle(options)
    budget = Budget.parse(needed(options, "budget"))
    name = options.exp_name or "pruned"
    with RunContext.of(options, Path(options.run or f"runs/{name}")) as context:
        if context.accelerator.num_processes > 1:
            raise SettingsError("a target is pruned in one process: leave `accelerate launch` out.")
        out_folder(options, context)  # refused now, not once everything is found
        target = load_teacher(options, context)
        require_t5(target)
        written = _texts(options, context, target)
        work = _Work(options, context, target, written, budget)
        if context.dry:
            work.tell_cost()
            return
        on = work.search.run(options.search)
        kept = kept_of(work.units, on)
        rows = [
            work.row(options.search, on),
            *(work.row(f"random {seed}", work.random(seed)) for seed in range(DRAWS)),
        ]
        context.say(_table(rows))
        step = step_microseconds(target, kept, *work.timed())
        context.say(f"measured: {step:.0f} microseconds a drafted token")
        asked = ["search", "units", "groups", "budget"]
        if options.search == "regression":
            asked += ["masks", "rounds"]
        card = {
            "method": {"name": "pruning", **{key: getattr(options, key) for key in asked}},
            "sets": rows,
            "step_microseconds": step,
            "call_microseconds": work.clock.call,
        }
        drafter = SharedDrafter.pruned(target, kept, name=name)
        card["parameters"] = drafter.parameters
        count = len(written)
        save_checkpoint(
            drafter, options, context, card, target, count, "none: it was not trained", "shared"
        )


def _texts(options: argparse.Namespace, context: RunContext, target: HubTarget) -> TokenPairs:
    """Articles, and what the target writes of them."""
    data, split = needed(options, "data"), options.split
    if not Path(data).is_file() and not has_split(data, split):
        raise SettingsError(f"{data} has no split {split!r}: give --split train or another.")
    count = article_count(options, context, _DRY_ARTICLES)
    dataset = choose_pairs(
        data, split, context.folder / "articles", target, options, context, count
    )
    return write_pseudo(
        target,
        dataset,
        context.folder / "texts",
        length=options.length or TEXT_LENGTH,
        batch=options.batch or 16,
        accelerator=context.accelerator,
        say=context.say,
    )


class _Work:
    """A search made ready: parts, scores, costs."""

    def __init__(
        self,
        options: argparse.Namespace,
        context: RunContext,
        target: HubTarget,
        written: TokenPairs,
        budget: Budget,
    ) -> None:
        self._options, self._context = options, context
        self._target, self._written = target, written
        self._validate = Validation(target, written, batch=options.batch or 16, keep_logits=True)
        self._network = MaskedTarget(target)
        heads, columns = (
            tuple(range(size)) for size in (target.model.config.num_heads, target.model.config.d_ff)
        )
        self._network.kept = tuple(
            KeptLayer(layer, heads, heads, columns)
            for layer in range(len(target.model.decoder.block))
        )
        loud = loudness(target, lambda: self._validate(self._network))
        self.units = units_of(target, options.units, options.groups, loud)
        digest = _digest(target, self.units)
        self._scores = Scores(self._measure, self.units, context.folder / f"scores-{digest}.jsonl")
        self._bytes = ByteCost(target.model.config)
        place = context.folder / f"clock-{_digest(target, self.units, target.device)}.json"
        self.clock = _clock(place) if place.exists() else self._timed_clock(place)
        self._whole = self._bytes(kept_of(self.units, frozenset(range(len(self.units)))))
        amount = budget.amount * (self._whole if budget.unit == "share" else 1)
        self.search = Search(
            self.units,
            self._scores,
            self.clock.step if budget.unit == "microseconds" else self._bytes,
            amount,
            options.rounds,
            options.masks,
            options.seed or 0,
            self._tell,
        )

    def row(self, name: str, on: frozenset[int]) -> dict[str, Any]:
        """What is known of a set of parts, for the table and the card."""
        kept, score = kept_of(self.units, on), self._scores(on)
        speed_up, gamma = self.clock.speed_up(score.alpha_greedy, kept)
        return {
            "name": name,
            "units": len(on),
            "bytes": round(self._bytes(kept)),
            "share": self._bytes(kept) / self._whole,
            "alpha": score.alpha,
            "alpha_greedy": score.alpha_greedy,
            "predicted_microseconds": self.clock.step(kept),
            "gamma": gamma,
            "predicted_speed_up": speed_up,
        }

    def random(self, seed: int) -> frozenset[int]:
        """A random set within the same budget."""
        search = self.search
        return Search(self.units, self._scores, search.cost, search.budget, seed=seed).run("random")

    def timed(self) -> tuple[list[Any], list[list[int]]]:
        """Articles to time drafters on, encoded, and the texts about them."""
        chosen = range(min(TIMED, len(self._written)))
        encodings = [self._target.encode(self._written.source(index)) for index in chosen]
        return encodings, [self._written.target(index) for index in chosen]

    def tell_cost(self) -> None:
        """Says what the search would take, from two forward passes."""
        options, started = self._options, time.perf_counter()
        for seed in range(2):
            self._measure(kept_of(self.units, self.random(seed)))
        seconds = (time.perf_counter() - started) / 2
        articles = max(16, round(options.limit * options.scale))
        passes = self.search.passes(options.search) + DRAWS + 1
        whole = seconds * passes * articles / len(self._written)
        logits = 4e-9 * articles * TEXT_LENGTH * self._target.logit_count
        self._context.say(
            f"{len(self.units)} parts, at most {passes} forward passes over {articles} articles; "
            f"two over {len(self._written)} took {seconds:.2f} s each: {duration(whole)}. Memory "
            f"is that of inference, and at most {logits:.1f} GB for the target's logits."
        )

    def _measure(self, kept: tuple[KeptLayer, ...]) -> Score:
        self._network.kept = kept
        found = self._validate(self._network)
        return Score(found["validation_alpha"], found["validation_alpha_greedy"])

    def _tell(self, on: frozenset[int]) -> None:
        row = self.row("", on)
        self._context.say(
            f"{row['units']} of {len(self.units)} parts, {row['share']:.0%} of the bytes: greedy "
            f"alpha {row['alpha_greedy']:.3f}, at temperature 1 {row['alpha']:.3f}, predicted "
            f"{row['predicted_speed_up']:.2f} times as fast"
        )

    def _timed_clock(self, place: Path) -> Clock:
        seed = self._options.seed or 0
        clock = measure_clock(self._target, self.units, *self.timed(), seed=seed)
        write_json(place, asdict(clock))
        return clock


def _clock(place: Path) -> Clock:
    try:
        tree = object_in(place)
        return Clock(tree["call"], tree["token"], StepCost(**tree["step"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place} is damaged ({first_line(error)}): remove it, and the same command measures "
            "anew."
        ) from error


def _digest(target: HubTarget, units: list[Unit], device: Any = None) -> str:
    """Tells apart what was measured of other weights or parts, or on another device."""
    parts = [weights_fingerprint(target), repr(units), "" if device is None else hardware(device)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _table(rows: list[dict[str, Any]]) -> str:
    return grid(
        "parts|bytes|share|greedy alpha|alpha, T = 1|us a token|gamma|speed-up".split("|"),
        [
            [
                f"{row['name']} ({row['units']})",
                f"{row['bytes']:,}",
                f"{row['share']:.0%}",
                f"{row['alpha_greedy']:.3f}",
                f"{row['alpha']:.3f}",
                f"{row['predicted_microseconds']:.0f}",
                f"{row['gamma']}",
                f"{row['predicted_speed_up']:.2f}",
            ]
            for row in rows
        ],
    )
