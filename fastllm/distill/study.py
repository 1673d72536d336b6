"""Which method, with which loss? One family is trained with each and compared on held-out texts.

All runs share initial weights, articles, their order and the number of updates; only the method and
the loss differ. Each is a process of its own in a folder of its own, trained without looking at the
held-out texts, and then measured on them: greedily (where tau is exact, see
`fastllm.distill.validation`) and by the overlap at temperature 1. What is finished is not done
again, so a study that was interrupted goes on, and a grid can grow.

Equal updates are not equal work: the table has the seconds and the target's tokens of each. The
best is chosen by the first seed; its other seeds had no part in the choice.
"""

import argparse
import html
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastllm import metrics
from fastllm.checkpoints import load_drafter, read_card
from fastllm.decoding.race import versions
from fastllm.distill.folders import differences_from
from fastllm.distill.losses import loss_weights
from fastllm.distill.material import RunContext, held_out_texts, load_teacher
from fastllm.distill.options import needed, read_yaml
from fastllm.distill.train import METHODS
from fastllm.distill.validation import Validation
from fastllm.errors import CheckpointError, DataError, SettingsError, TrainingError
from fastllm.files import json_in, write_json, write_whole
from fastllm.targets.hub import HubTarget
from fastllm.words import duration

BASELINE = "supervised"

GRID = (
    *(BASELINE, "seq_kd", "supervised_kd", "imit_kd", "f_distill"),
    *(f"on_policy_gkd:{loss}" for loss in ("fkl", "rkl", "jsd", "tvd", "tvdpp")),
    *(f"mixed_gkd:{loss}" for loss in ("fkl", "tvd", "lk_hybrid")),
    *(f"opd:{loss}" for loss in ("ce", "fkl")),
)
"""What is compared where nothing else is said."""

_SECONDS_TO_SAVE = 20.0
"""What a run is given for it when a study is interrupted."""

_SHARED = (
    *("target", "data", "pseudo_dataset_path", "limit", "prefix", "source_length", "load_in"),
    *("length", "batch", "updates", "warmup", "cooldown", "learning_rate", "scale"),
)
"""Options that every run is given."""


@dataclass(frozen=True)
class StudyArm:
    """A method with a loss: a row of the table."""

    method: str
    loss: str

    @classmethod
    def of(cls, text: str) -> "StudyArm":
        """From METHOD or METHOD:LOSS.

        Raises:
            SettingsError: there is no such method or loss, or they do not go together.
        """
        method, _, loss = text.partition(":")
        method = method.lower().replace("-", "_")
        if method not in METHODS:
            raise SettingsError(f"method {method!r}: give one of {', '.join(METHODS)}.")
        weights = loss_weights(loss or METHODS[method].loss)
        if METHODS[method].own_texts and "ce" in weights:
            raise SettingsError(f"{text}: cross-entropy on a drafter's own texts teaches nothing.")
        named = ",".join(
            name if weight == 1 and len(weights) == 1 else f"{name}={weight:g}"
            for name, weight in weights.items()
        )
        return cls(method, named)

    def __str__(self) -> str:
        return f"{self.method} {self.loss}"

    def folder(self, seed: int) -> str:
        """The name of its run with a seed."""
        return f"{self.method}-{self.loss.replace(',', '+')}-{seed}"


def grid(options: argparse.Namespace) -> list[StudyArm]:
    """The arms to compare, the baseline first.

    Raises:
        SettingsError: a name that there is not.
    """
    names: Sequence[str] = options.grid.split() if options.grid else GRID
    return list(dict.fromkeys([StudyArm.of(BASELINE), *map(StudyArm.of, names)]))


def study(options: argparse.Namespace) -> None:
    """Trains and measures what is missing in the folder, and writes the report.

    Raises:
        SettingsError: an option out of range, or a folder that holds another study.
        TrainingError: a run ended badly; its log says why.
    """
    arms, seeds = grid(options), _seeds(options)
    needed(options, "pseudo_dataset_path")
    with RunContext.of(options, Path(needed(options, "out"))) as context:
        try:
            _study(options, arms, seeds, context)
        except KeyboardInterrupt:
            context.say(
                f"interrupted. What {context.folder} holds is kept; the same command goes on from "
                "there"
            )
            raise


def _study(
    options: argparse.Namespace, arms: list[StudyArm], seeds: list[int], context: RunContext
) -> None:
    folder = context.folder
    settings = _settings(options)
    if changed := differences_from(folder / "settings.json", settings):
        raise SettingsError(
            f"{folder} holds a study with other settings ({changed}): give another --out, or "
            "remove it."
        )
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    write_json(folder / "settings.json", settings)
    runs = [(arm, seeds[0]) for arm in arms]
    # A dry run trains nothing, it only shows that every run can be built.
    _train(options, folder, runs, context)
    if context.dry:
        return
    target = load_teacher(options, context)
    held_out = held_out_texts(options, context, target)
    if held_out is None:
        raise DataError("a study compares on held-out texts: give --validation.")
    validation = Validation(target, held_out)
    found = _measured(folder, runs, validation, target)
    best = max(arms[1:], key=lambda arm: _tau(found[arm, seeds[0]]), default=None)
    more = [(arm, seed) for arm in (arms[0], best) if arm for seed in seeds[1:]]
    _train(options, folder, more, context)
    found |= _measured(folder, more, validation, target)
    summary = summarise(arms, seeds, found, best)
    summary |= {
        "settings": settings,
        "articles": validation.articles,
        "gamma": validation.gamma,
        "target": target.name,
        "versions": versions(),
    }
    write_json(folder / "study.json", summary)
    write_whole(folder / "study.md", markdown(summary))
    write_whole(folder / "study.svg", chart(summary))
    context.say(f"\n{markdown(summary)}\nstudy.json, study.md, study.svg in {folder}")


# Runs.


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What all runs of a study share; the grid, the seeds and the machine may change."""
    tree = read_yaml(Path(options.recipe)) if options.recipe else {}
    for name in ("loss", "kd_loss", "lambda1", "lambda2", "jsd_beta"):
        if name in tree:
            raise SettingsError(
                f"{options.recipe} sets {name}, and a study is about what it does: give a recipe "
                "without it."
            )
    own = ("exp_name", "distill_method", "method", "seed", "keep")
    return {
        "recipe": {name: value for name, value in tree.items() if name not in own},
        "drafter": options.drafter or "lstm",
        **{name: value for name in _SHARED if (value := getattr(options, name)) is not None},
    }


def _seeds(options: argparse.Namespace) -> list[int]:
    try:
        seeds = list(dict.fromkeys(int(word) for word in str(options.seeds).split()))
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise SettingsError(f"--seeds {options.seeds}: give numbers, such as 0 1 2.")
    return seeds


def _command(options: argparse.Namespace, folder: Path, arm: StudyArm, seed: int) -> list[str]:
    """The `train` of one run."""
    name = arm.folder(seed)
    words = [
        *("train", "--drafter", options.drafter or "lstm", "--exp_name", name),
        *("--run", str(folder / "runs" / name), "--distill_method", arm.method),
        *("--loss", arm.loss, "--seed", str(seed), "--keep", "last", "--validation", "none"),
    ]
    for option in ("recipe", *_SHARED, "device"):
        value = getattr(options, option)
        if value is not None:
            words += [f"--{option}", str(value)]
    return [*words, "--dry_run"] if options.dry_run else words


def _train(
    options: argparse.Namespace,
    folder: Path,
    runs: Sequence[tuple[StudyArm, int]],
    context: RunContext,
) -> None:
    """Trains what is not finished, one run after the other."""
    waiting = [
        (arm, seed)
        for arm, seed in runs
        if not (folder / "runs" / arm.folder(seed) / "checkpoint" / "card.json").exists()
    ]
    failed: list[str] = []
    started = time.perf_counter()
    for done, (arm, seed) in enumerate(waiting, 1):
        name = arm.folder(seed)
        context.say(f"{name} begins")
        command = [sys.executable, "-m", "fastllm", *_command(options, folder, arm, seed)]
        with (folder / "runs" / f"{name}.log").open("wb") as log:
            run = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            if run.wait():
                failed.append(name)
        except KeyboardInterrupt:  # the terminal told the run, too: it saves its last update
            with suppress(subprocess.TimeoutExpired):
                run.wait(_SECONDS_TO_SAVE)
            raise
        finally:
            run.terminate()
            run.wait()
        left = (time.perf_counter() - started) / done * (len(waiting) - done)
        ended = "failed" if name in failed else "is finished"
        context.say(f"{name} {ended}, {done}/{len(waiting)}  ({duration(left)} left)")
    if failed:
        path = folder / "runs" / f"{failed[0]}.log"
        lines = path.read_text(errors="replace").splitlines() or ["nothing"]
        raise TrainingError(
            f"{', '.join(failed)} failed. {path} ends with: {lines[-1]!r}. The others are kept: "
            "the same command goes on with what is missing."
        )


def _measured(
    folder: Path, runs: Sequence[tuple[StudyArm, int]], validation: Validation, target: HubTarget
) -> dict[tuple[StudyArm, int], dict[str, Any]]:
    """What each run counted on the held-out texts, kept in its folder, with what it cost."""
    found = {}
    for arm, seed in runs:
        place = folder / "runs" / arm.folder(seed)
        card = read_card(place / "checkpoint")
        path = place / "held-out.json"
        counts: Any = None
        with suppress(OSError, ValueError):  # damaged: it is measured again
            counts = json_in(path)
        if not isinstance(counts, list) or len(counts) != validation.articles:
            drafter: Any = load_drafter(place / "checkpoint", device=target.device)
            drafter.bind(target)
            counts = [asdict(entry) for entry in validation.by_text(drafter.model)]
            write_json(path, counts, indent=None)
        try:
            found[arm, seed] = {
                "counts": counts,
                "seconds": card["seconds"],
                "teacher_tokens": card["teacher_tokens"],
                "updates": card["recipe"]["updates"],
            }
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{place / 'checkpoint' / 'card.json'} is damaged: remove {place}, and the same "
                "command trains it anew."
            ) from error
    return found


# What was found.


def _tau(run: dict[str, Any]) -> float:
    counts = run["counts"]
    return float(sum(row["tokens"] for row in counts) / sum(row["calls"] for row in counts))


def summarise(
    arms: Sequence[StudyArm],
    seeds: Sequence[int],
    found: dict[tuple[StudyArm, int], dict[str, Any]],
    best: StudyArm | None,
) -> dict[str, Any]:
    """The table's numbers, the row with the most tau first.

    Args:
        arms: the baseline first.
        seeds: of the runs, the first of which all have.
        found: by arm and seed: "counts" of each held-out text, "seconds", "teacher_tokens".
        best: the arm that was chosen to be trained with every seed.
    """
    rows = []
    baseline = [found[arms[0], seed] for seed in seeds if (arms[0], seed) in found]
    for arm in arms:
        runs = {seed: found[arm, seed] for seed in seeds if (arm, seed) in found}
        own = list(runs.values())
        tokens, calls = _per_text(own, "tokens"), _per_text(own, "calls")
        # Against the baseline of the same seeds, so that luck is shared as far as it can be.
        other = baseline[: len(own)]
        rows.append(
            {
                "method": arm.method,
                "loss": arm.loss,
                "baseline": arm == arms[0],
                "best": arm == best,
                "seeds": {str(seed): _tau(run) for seed, run in runs.items()},
                "tau": asdict(metrics.ratio(tokens, calls)),
                "alpha": asdict(metrics.ratio(_per_text(own, "overlap"), tokens)),
                "alpha_greedy": asdict(metrics.ratio(_per_text(own, "agreed"), tokens)),
                "calls_ratio": asdict(metrics.ratio(calls, _per_text(other, "calls"))),
                "updates": own[0]["updates"],
                "seconds": sum(run["seconds"] for run in own) / len(own),
                "written": own[0]["teacher_tokens"]["written"],
                "scored": own[0]["teacher_tokens"]["scored"],
            }
        )
    rows.sort(key=lambda row: -row["tau"]["value"])
    return {"rows": rows}


def _per_text(runs: Sequence[dict[str, Any]], name: str) -> list[float]:
    """A count of each text, averaged over the runs."""
    columns = [[row[name] for row in run["counts"]] for run in runs]
    return [sum(column) / len(runs) for column in zip(*columns, strict=True)]


_HEADER = (
    *("method", "loss", "tau", "target calls / baseline's", "alpha, T = 1", "alpha, greedy"),
    *("tau by seed", "seconds", "target tokens scored"),
)


def _sentences(summary: dict[str, Any]) -> list[str]:
    settings, rows = summary["settings"], summary["rows"]
    best = next((row for row in rows if row["best"]), None)
    found = [
        f"{settings['drafter']}, {rows[0]['updates']} updates a run, measured on "
        f"{summary['articles']} held-out articles that no run trained on, with texts of "
        f"{summary['target']}: tau greedy with drafts of {summary['gamma']}. In brackets: 95 % "
        "over articles.",
        "Seconds are wall-clock of training. The tokens that the target wrote beforehand for "
        "seq_kd, f_distill, mixed_gkd and opd come on top.",
    ]
    if best:
        found.append(
            f"The best by the first seed, {best['method']} with {best['loss']}, and the baseline "
            "were trained with every seed; a row's numbers are the mean of its seeds."
        )
    return found


def _cells(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    def shown(estimate: dict[str, float]) -> str:
        return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"

    return [
        (
            row["method"] + (" (baseline)" if row["baseline"] else ""),
            row["loss"],
            shown(row["tau"]),
            "1" if row["baseline"] else shown(row["calls_ratio"]),
            f"{row['alpha']['value']:.3f}",
            f"{row['alpha_greedy']['value']:.3f}",
            ", ".join(f"{tau:.2f}" for tau in row["seeds"].values()),
            f"{row['seconds']:.0f}",
            f"{row['scored']:,}",
        )
        for row in summary["rows"]
    ]


def markdown(summary: dict[str, Any]) -> str:
    """The study as a table."""
    lines = [_HEADER, ("---",) * len(_HEADER), *_cells(summary)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return "\n\n".join([*_sentences(summary), table]) + "\n"


_ROW, _LEFT, _WIDE = 26, 190, 760
"""Of the chart, in pixels: a row's height, the width of the names, the width of it all."""


def chart(summary: dict[str, Any]) -> str:
    """The study as an SVG: tau of each row with its interval, and a small ring for each seed.

    It has a ground of its own: where a page shows it as a picture, only the browser's scheme can be
    asked for, and the page's own may be another.
    """
    rows = summary["rows"]
    values = [row["tau"][end] for row in rows for end in ("low", "high")]
    values += [tau for row in rows for tau in row["seeds"].values()]
    margin = 0.05 * (max(values) - min(values)) or 0.1
    low: float = min(values) - margin
    high: float = max(values) + margin
    bottom = 34 + _ROW * len(rows)

    def across(tau: float) -> float:
        return _LEFT + round((tau - low) / (high - low) * (_WIDE - _LEFT - 70), 1)

    step = next((s for s in (0.05, 0.1, 0.2, 0.5, 1, 2) if (high - low) / s <= 8), 5)
    title = html.escape(f"tau by method and loss, {summary['settings']['drafter']}", quote=True)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {bottom + 48}" role="img" '
        f'aria-label="{title}" font-family="system-ui, sans-serif" font-size="13">',
        "<style>.b{fill:#fff}text{fill:#16202c}.g{stroke:#d3dae3}.q{fill:#526070}"
        "@media(prefers-color-scheme:dark){.b{fill:#16202c}text{fill:#e9eef4}.g{stroke:#354152}"
        ".q{fill:#a7b3c1}}</style>",
        '<rect class="b" width="100%" height="100%" rx="8"/>',
        f'<text x="{_LEFT}" y="19" class="q">{title}: tokens a call of the target</text>',
    ]
    for tick in range(int(low // step) + 1, int(high // step) + 1):
        x, y = across(tick * step), bottom + 17
        parts += [
            f'<line class="g" x1="{x}" x2="{x}" y1="26" y2="{bottom}"/>',
            f'<text class="q" x="{x}" y="{y}" text-anchor="middle">{tick * step:g}</text>',
        ]
    for place, row in enumerate(rows):
        y, tau = 34 + _ROW * place + _ROW // 2, row["tau"]
        left, middle, right = (across(tau[end]) for end in ("low", "value", "high"))
        colour = "#c47f00" if row["baseline"] else "#2f87c9"
        name = html.escape(f"{row['method']} {row['loss']}")
        # Below the line: the dot of their mean would hide them.
        seeds = row["seeds"].values() if len(row["seeds"]) > 1 else ()
        ring = f'cy="{y + 9}" r="2.5" fill="none" stroke="{colour}"'
        parts += [
            f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{name}</text>',
            f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="{colour}" '
            'stroke-width="2"/>',
            *(f'<circle cx="{across(seed)}" {ring}/>' for seed in seeds),
            f'<circle cx="{middle}" cy="{y}" r="5" fill="{colour}"/>',
            f'<text x="{right + 8}" y="{y + 4}">{tau["value"]:.2f}</text>',
        ]
    parts.append(
        f'<text class="q" x="{_LEFT}" y="{bottom + 36}">line: 95 % over articles; rings: single '
        "seeds; amber: the baseline</text></svg>"
    )
    return "\n".join(parts) + "\n"
