"""One drafter on one article, over draft lengths, temperatures, seeds and rules.

Each run is a piece of work of its own, like an article of the comparison, so that between two of
them the device goes to whoever waits for it. A run measures the target alone and the drafter with
one seed.
"""

import html
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import median
from typing import Any, Literal

import gradio as gr

from fastllm import metrics
from fastllm.decoding.verification import RULES, DrawingRule, rule_of
from fastllm.demo import rows
from fastllm.demo.context import PageContext, announce
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.compare.compare import COMPARE_QUEUE, Measure, measured
from fastllm.demo.folds.sweep import words
from fastllm.demo.parts import HIDDEN, heading, paragraph, select, shown, table
from fastllm.demo.words import ALONE, STOP, because, choice_of, title_of
from fastllm.demo.worker import Lines
from fastllm.errors import DataError
from fastllm.trace import DecodingConfig, Verification
from fastllm.words import echoed

GAMMAS = (1, 2, 3, 5, 7, 10)
TEMPERATURES = (0.0, 0.5, 1.0)
SEEDS = 5
"""An interval of fewer says next to nothing."""

LENIENCE = 0.5
"""Of the lenient rule, beside the others."""

FIRST = "lstm-after"
"""The drafter that is measured at first, where there is one."""


@dataclass(frozen=True)
class Cell:
    """One setting that is measured with several seeds."""

    temperature: float
    gamma: int
    rule: Literal["auto"] | Verification

    def config(self, base: DecodingConfig, seed: int) -> DecodingConfig:
        """The settings of a run: those of the page, but for what is swept."""
        return replace(
            base,
            temperature=self.temperature,
            gamma=self.gamma,
            verification=self.rule,
            lenience=LENIENCE if self.rule == "lenient" else DecodingConfig.lenience,
            seed=(base.seed + seed) % 2**31,
        )


@dataclass(frozen=True)
class Sweep:
    """All runs of one drafter on one article."""

    article: str
    title: str  # of a sample; empty otherwise
    lane: str  # the key of the drafter
    config: DecodingConfig  # the settings of the page
    most: int  # the longest draft
    seconds: int  # of the device; after these it ends with what it has
    seconds_each: int  # the most for one run

    @property
    def cells(self) -> list[Cell]:
        """Every setting once: lengths by temperature, then the rules."""
        gammas = [gamma for gamma in GAMMAS if gamma <= self.most]
        lengths = [Cell(t, gamma, "auto") for t in TEMPERATURES for gamma in gammas]
        return lengths + self.rules

    @property
    def rules(self) -> list[Cell]:
        """The rules for drawn texts side by side."""
        gamma = min(self.most, DecodingConfig.gamma)
        drawing = [name for name, rule in RULES.items() if issubclass(rule, DrawingRule)]
        return [Cell(1.0, gamma, name) for name in drawing]

    def lines(self, engine: LocalEngine, stop: threading.Event) -> Iterator[str]:
        """Asks for the device once per run; gives a row for each, and one at the end.

        {"row": "run", "cell", "calls", "tokens", "speed_up"}, then {"row": "end", "ended"}. Each
        seed goes through all settings before the next, so that what ends early has all of them.
        When `stop` is set it ends with what it has.

        Raises:
            FastLLMError: the work was refused.
        """
        used = 0.0
        for seed, (index, cell) in product(range(SEEDS), enumerate(self.cells)):
            config = cell.config(self.config, seed)
            piece = Measure(self.article, (ALONE, self.lane), config, self.seconds_each)
            found = list(measured(engine, piece, stop)) if used < self.seconds else []
            if stop.is_set():
                return
            if not found or found[-1]["row"] != "measured":  # too long: so would be the others
                yield rows.line({"row": "end", "ended": "deadline"})
                return
            used += found[-1]["seconds"]
            numbers = found[-1]["numbers"]
            yield rows.line({"row": "run", "cell": index, **_run(numbers, self.lane)})
        yield rows.line({"row": "end", "ended": "done"})


def _run(numbers: dict[str, Any], key: str) -> dict[str, Any]:
    """Counts of a run, and how many times as fast it was for as many tokens."""
    alone = numbers["alone"]
    lane = next(iter(numbers["lanes"].values()))[key]
    reading = lane["seconds"] - lane["decode_seconds"]
    own = reading + lane["decode_seconds"] * alone["tokens"] / lane["tokens"]
    return {
        "calls": lane["calls"],
        "tokens": lane["tokens"],
        "speed_up": alone["seconds"] / own if own else 0.0,
    }


def add(context: PageContext) -> None:
    """Adds the choice of the drafter, the buttons, and the place of the tables."""
    heading(words.TITLE)
    drafters = [key for key in context.engine.keys if key != ALONE]
    if not drafters:
        paragraph(because(words.NO_DRAFTER), "fl-soft")
        return
    paragraph(words.INTRO.format(SEEDS), "fl-soft")
    with gr.Row(elem_id="fl-sweep-controls"):
        lane = select(
            words.LANE,
            [(choice_of(key), key) for key in drafters],
            FIRST if FIRST in drafters else drafters[0],
            elem_id="fl-sweep-lane",
        )
        go = gr.Button(words.GO, elem_id="fl-sweep-go", scale=0, min_width=150)
        halt = gr.Button(STOP, elem_id="fl-sweep-stop", scale=0, min_width=100)
    tables_view = shown("", elem_id="fl-sweep")

    def measure(request: gr.Request, key: str, article: str, *settings: Any) -> Iterator[str]:
        """Measures; yields the tables so far, again and again."""
        made: list[Sweep] = []

        def begin() -> Lines:
            ready = plan(context, key, article, context.config(*settings))
            made.append(ready)
            return lambda stop: ready.lines(context.engine, stop)

        for text in context.follow(request, begin):
            yield tables(made[0], [json.loads(line) for line in text.splitlines()])

    inputs = [lane, context.article, *context.settings]
    running = go.click(
        measure, inputs, tables_view, concurrency_id=COMPARE_QUEUE, concurrency_limit=1,
        trigger_mode="once", preprocess=False, **HIDDEN,
    )  # fmt: skip
    halt.click(None, cancels=[running], api_visibility="private")
    # The calculator above draws what was measured beside what it predicts.
    running.success(None, js=announce("swept"), api_visibility="private")


def plan(context: PageContext, key: str, article: str, config: DecodingConfig) -> Sweep:
    """A sweep, its article and its drafter checked.

    Raises:
        DataError: the article cannot be raced, or there is no such drafter.
    """
    checked = context.checked(article)
    if not isinstance(key, str) or key == ALONE:
        raise DataError(f"drafter={echoed(key)}: choose a lane with a drafter.")
    context.chosen([key], fewest=1)
    return Sweep(
        checked.text,
        context.title_of(checked.text),
        key,
        config,
        context.limits.gamma,
        context.limits.compare_seconds,
        context.limits.seconds_per_run,
    )


def tables(asked: Sweep, found: Sequence[dict[str, Any]]) -> str:
    """What was measured so far, as HTML; no text of others is in it but titles, escaped."""
    runs = [row for row in found if row["row"] == "run"]
    cells = asked.cells
    total = SEEDS * len(cells)
    curve: list[tuple[float, int, float]] = []
    parts = [f'<p role="status" class="fl-soft">{html.escape(_status(asked, found, total))}</p>']
    if runs:
        by_cell: dict[Cell, list[dict[str, Any]]] = {}
        lengths = len(cells) - len(asked.rules)
        for row in runs:
            if row["cell"] < lengths:
                by_cell.setdefault(cells[row["cell"]], []).append(row)
        if found[-1]["row"] == "end":
            parts.append(f'<p class="fl-verdict">{html.escape(_best(by_cell))}</p>')
        curve = [(cell.temperature, cell.gamma, _median(runs)) for cell, runs in by_cell.items()]
        gammas = list(dict.fromkeys(cell.gamma for cell in cells[:lengths]))
        body = [
            [_heat(t), *(_shown(by_cell.get(Cell(t, gamma, "auto"), [])) for gamma in gammas)]
            for t in TEMPERATURES
        ]
        parts.append(_table(words.LENGTHS, ["", *map(words.GAMMA.format, gammas)], body))
        body = []
        for index, cell in enumerate(asked.rules, lengths):
            label = rule_of(cell.config(asked.config, 0)).label
            of_rule = [row for row in runs if row["cell"] == index]
            body.append([html.escape(label), _tokens(of_rule), _speed(of_rule)])
        title = words.RULES.format(asked.rules[0].gamma)
        parts.append(_table(title, [words.RULE, words.TOKENS, words.SPEED], body))
    measured = f"data-key='{html.escape(asked.lane)}' data-measured='{json.dumps(curve)}'"
    return f'<div class="fl-sweep" {measured}>{"".join(parts)}</div>'


def _status(asked: Sweep, found: Sequence[dict[str, Any]], total: int) -> str:
    runs = sum(row["row"] == "run" for row in found)
    if not found:
        return words.WAITING
    if found[-1]["row"] != "end":
        return words.RUNNING.format(runs, total)
    if found[-1]["ended"] == "deadline":
        return words.EARLY.format(asked.seconds, runs, total)
    return words.DONE.format(runs, title_of(asked.lane), asked.title or words.YOURS)


def _best(by_cell: dict[Cell, list[dict[str, Any]]]) -> str:
    greedy = {cell.gamma: _median(runs) for cell, runs in by_cell.items() if not cell.temperature}
    gamma = max(greedy, key=greedy.__getitem__)
    return words.BEST.format(gamma, greedy[gamma]) if greedy[gamma] > 1 else words.NONE_PAYS


def _heat(temperature: float) -> str:
    return words.TEMPERATURE.format(temperature) if temperature else words.GREEDY


def _shown(runs: Sequence[dict[str, Any]]) -> str:
    return f"{_tokens(runs)}<br>{_speed(runs)}" if runs else "–"


def _tokens(runs: Sequence[dict[str, Any]]) -> str:
    """Tokens per call over the runs, and an interval where they differ and are enough."""
    if not runs:
        return "–"
    calls = [row["calls"] for row in runs]
    found = metrics.ratio([row["tokens"] for row in runs], calls)
    text = f"{found.value:.1f}"
    if len(runs) >= SEEDS and f"{found.low:.1f}" != f"{found.high:.1f}":
        text += f' <span class="fl-soft">[{found.low:.1f}, {found.high:.1f}]</span>'
    return text


def _speed(runs: Sequence[dict[str, Any]]) -> str:
    return f"{_median(runs):.1f}×" if runs else "–"


def _median(runs: Sequence[dict[str, Any]]) -> float:
    return float(median(row["speed_up"] for row in runs))


def _table(title: str, header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    made = table(header, body, title, "fl-facts fl-estimates")
    return f'<h3 class="fl-plot-title">{html.escape(title)}</h3>{made}'
