"""The sweep of one drafter over draft lengths, temperatures, seeds and rules, on a tiny target."""

import json
import threading
from statistics import median
from typing import Any

import pytest

from fastllm import metrics
from fastllm.decoding.race import Race
from fastllm.demo.context import PageContext
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.sweep import sweep, words
from fastllm.demo.limits import read_limits
from fastllm.errors import DataError
from fastllm.trace import DecodingConfig

DRAWING = ["token", "block", "lenient"]
"""The rules that are for drawn texts."""

NEVER = threading.Event()
SHORT = DecodingConfig(max_new_tokens=8)


@pytest.fixture(scope="module")
def engine(tiny_folder: str) -> LocalEngine:
    engine = LocalEngine(tiny_folder)
    engine.start()
    return engine


def asked(story: str, **more: Any) -> sweep.Sweep:
    values: dict[str, Any] = {"most": 2, "seconds": 600, "seconds_each": 600, "title": "<i>x</i>"}
    return sweep.Sweep(story, lane="lookup", config=SHORT, **(values | more))


def rows(found: sweep.Sweep, engine: LocalEngine) -> list[dict[str, Any]]:
    return [json.loads(line) for line in "".join(found.lines(engine, NEVER)).splitlines()]


def test_every_setting_is_run_with_every_seed(engine: LocalEngine, story: str) -> None:
    order = asked(story)
    cells = order.cells
    assert {(cell.temperature, cell.gamma) for cell in cells if cell.rule == "auto"} == {
        (t, gamma) for t in sweep.TEMPERATURES for gamma in (1, 2)
    }
    assert [cell.rule for cell in order.rules] == DRAWING
    *runs, end = rows(order, engine)
    assert [row["cell"] for row in runs] == [*range(len(cells))] * sweep.SEEDS
    assert end == {"row": "end", "ended": "done"}
    # A run is the race of the same settings.
    row = runs[1]
    config = cells[1].config(SHORT, 0)
    race = Race(engine.target, [None, engine.drafter("lookup")], story, config)
    for _ in race:
        pass
    trace = race.traces()[1]
    assert (row["calls"], row["tokens"]) == (
        metrics.target_calls(trace),
        metrics.token_count(trace),
    )
    shown = sweep.tables(order, [*runs, end])
    assert "<i>x</i>" not in shown, "a title is text"
    assert shown.count("<tr>") == 2 + len(sweep.TEMPERATURES) + len(DRAWING)
    assert "–" not in shown, "nothing is left empty"
    assert f"{len(runs)} runs" in shown
    # What the calculator draws: each length at each temperature, with the median of its seeds.
    assert "data-key='lookup'" in shown
    curve = json.loads(shown.split("data-measured='")[1].split("'")[0])
    first = [row["speed_up"] for row in runs if row["cell"] == 0]
    assert curve[0] == [cells[0].temperature, cells[0].gamma, median(first)]
    assert len(curve) == 2 * len(sweep.TEMPERATURES)


def test_seeds_differ_and_only_the_lenient_rule_is_lossy(story: str) -> None:
    order = asked(story)
    configs = [cell.config(SHORT, seed) for cell in order.rules for seed in range(sweep.SEEDS)]
    assert len({config.seed for config in configs}) == sweep.SEEDS
    assert {config.verification for config in configs if config.lossy} == {"lenient"}


def test_it_ends_with_what_it_has(engine: LocalEngine, story: str) -> None:
    order = asked(story, seconds=0)
    found = rows(order, engine)
    assert found == [{"row": "end", "ended": "deadline"}]
    assert words.EARLY.format(0, 0, sweep.SEEDS * len(order.cells)) in sweep.tables(order, found)
    stopped = threading.Event()
    stopped.set()
    assert not list(asked(story).lines(engine, stopped))
    assert words.WAITING in sweep.tables(order, [])


def test_what_cannot_be_measured_is_refused(engine: LocalEngine, story: str) -> None:
    context = PageContext(engine, read_limits(), {})
    assert sweep.plan(context, "lookup", story, SHORT).lane == "lookup"
    for key in ("alone", "nobody", 7):
        with pytest.raises(DataError):
            sweep.plan(context, key, story, SHORT)  # type: ignore[arg-type]  # as a program may send it
