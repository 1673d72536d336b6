"""What the plots of a race are drawn from, and that they are drawn."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import stories

from fastllm import metrics
from fastllm.demo import rows, words
from fastllm.demo.folds.plots import plots, race_stats
from fastllm.demo.folds.plots import words as plots_words
from fastllm.demo.folds.plots.costs import as_row, costs
from fastllm.demo.folds.race import words as race_words
from fastllm.evaluation import charts
from fastllm.trace import DecodingConfig


def test_the_numbers_of_a_race() -> None:
    keys, traces = stories.race()
    alone, before, _ = race_stats.summarise(keys, traces)
    assert [lane["key"] for lane in (alone, before)] == keys[:2]
    assert alone["clock"][:2] == pytest.approx([0.02, 0.03])
    assert alone["written"] == list(range(len(stories.SUMMARY) + 1))
    assert alone["gains"] == [1.0]
    assert alone["reached"] == []
    assert alone["speed_up"] == {}
    assert before["written"][-1] == len(stories.SUMMARY)
    assert sum(before["gains"]) == pytest.approx(1)
    assert before["reached"] == metrics.reached(metrics.judged_by_position(traces[1].rounds))
    assert before["alpha"] == pytest.approx(0.5), "the mean overlap"
    assert set(before["overlap"]) == {0.5}
    assert before["places"] == sorted(before["places"])
    assert before["places"][-1] <= len(stories.SUMMARY)
    whole = metrics.seconds_with_encoding(traces[1])
    assert sum(before["parts"].values()) == pytest.approx(1000 * whole)


def test_the_prediction_is_of_alpha_and_this_run_alone() -> None:
    """Ten milliseconds per call, none of them drafting: c is 0, v is 1."""
    keys, traces = stories.race()
    found = race_stats.summarise(keys, traces)[2]["speed_up"]
    assert found["measured"] == pytest.approx(metrics.speed_up(traces[2], traces[0]))
    # Without any reading the prediction is that of the paper.
    read = {"target_encode_seconds": 0.0, "drafter_encode_seconds": 0.0}
    bare = [dataclasses.replace(trace, **read) for trace in traces]
    found = race_stats.summarise(keys, bare)[2]["speed_up"]
    assert found["predicted"] == pytest.approx(metrics.expected_tau(0.5, 5))
    assert found["measured"] == pytest.approx(len(traces[0].rounds) / len(traces[2].rounds))
    halted = dataclasses.replace(traces[2], ended="stopped")
    assert race_stats.summarise(keys, [*traces[:2], halted])[2]["speed_up"] == {}


def test_costs_are_those_of_the_run() -> None:
    keys, traces = stories.race()
    (before, after) = costs(keys, traces)
    assert [before.key, after.key] == keys[1:]
    assert after.v == pytest.approx(1), "a call that checks takes as long as any other"
    assert after.c == pytest.approx(0)
    assert after.fewer == pytest.approx(metrics.tau(traces[2]))
    assert after.measured == pytest.approx(metrics.speed_up(traces[2], traces[0]))
    assert after.milliseconds == pytest.approx(
        1000 * (traces[2].target_encode_seconds + traces[2].drafter_encode_seconds)
    )
    # Guessing that takes half of each call is dearer, and everything else stays.
    slow = dataclasses.replace(
        traces[2],
        rounds=tuple(
            dataclasses.replace(entry, draft_seconds=entry.total_seconds / 2)
            for entry in traces[2].rounds
        ),
    )
    dear = costs(keys, [*traces[:2], slow])[1]
    assert dear.c * metrics.drafted(slow) == pytest.approx(0.5 * metrics.target_calls(slow))
    assert dear.v == pytest.approx(0.5)
    assert dear.measured == pytest.approx(after.measured)


def test_without_the_target_alone_nothing_is_empty() -> None:
    keys, traces = stories.race()
    lonely = costs(keys[1:], traces[1:])
    assert [lane.v for lane in lonely] == pytest.approx([1, 1])
    assert [lane.measured for lane in lonely] == pytest.approx(
        [lane.measured for lane in costs(keys, traces)]
    )
    assert all(as_row(lane)["unit"] for lane in lonely)
    found = race_stats.summarise(keys[1:], traces[1:])
    assert all(set(lane["speed_up"]) == {"predicted", "measured"} for lane in found)


def test_alpha_without_statistics_is_the_share_accepted() -> None:
    trace = stories.trace("x", (2,))
    rounds = []
    for entry in trace.rounds:
        judged = (dataclasses.replace(test, overlap=None) for test in entry.judged)
        rounds.append(dataclasses.replace(entry, judged=tuple(judged)))
    bare = dataclasses.replace(trace, rounds=tuple(rounds))
    counts = metrics.judged_by_position(bare.rounds)
    share = sum(stood for _, stood in counts) / sum(judged for judged, _ in counts)
    assert race_stats.alpha(bare) == pytest.approx(share)
    assert race_stats.summarise(["x"], [bare])[0]["overlap"] == []


def test_under_the_block_rule_tests_behind_the_end_do_not_count() -> None:
    trace = stories.trace("x", (1,), config=DecodingConfig(temperature=1.0))
    first = trace.rounds[0]
    tail = dataclasses.replace(first.judged[-1], overlap=0.0)
    longer = dataclasses.replace(first, judged=(*first.judged, tail, tail))
    blocked = dataclasses.replace(trace, rounds=(longer, *trace.rounds[1:]))
    assert race_stats.alpha(blocked) == race_stats.alpha(trace)


def test_every_plot_has_words_and_every_lane_a_line() -> None:
    keys, traces = stories.race()
    keys, traces = [*keys, "cnn-after"], [*traces, stories.trace("cnn", (4, 0))]
    figures = charts.race_figures(race_stats.summarise(keys, traces))
    assert list(figures) == list(plots_words.READINGS)
    titles = [words.title_of(key) for key in keys]
    assert [line.name for line in figures["clock"].data] == titles
    assert [line.name for line in figures["reached"].data][::2] == titles[1:]
    # A lane has the colour that it has on its track, and no two of these have the same.
    drawn = [charts.HUES.index(line.line.color) for line in figures["clock"].data]
    start = rows.start_row("r", "live", keys, traces[0])
    assert drawn == [lane["hue"] for lane in start["lanes"]]
    assert len(set(drawn)) == len(drawn)
    alone = charts.race_figures(race_stats.summarise(keys[:1], traces[:1]))["speed_up"]
    (note,) = alone.layout.annotations
    assert "Race a drafter" in note.text


def test_plots_that_cannot_be_drawn_give_way_to_a_sentence() -> None:
    assert plots.explained("") == "[]"
    note, *figures = plots.draw("")
    assert note.value == race_words.NO_RACE
    assert note.visible
    assert not any(figure.visible for figure in figures)
    lines = "".join(rows.recorded_lines("r", *stories.race()))
    note, *figures = plots.draw(lines)
    assert [lane["key"] for lane in json.loads(plots.explained(lines))] == [
        "lstm-before",
        "lstm-after",
    ]
    assert not note.visible
    assert all(figure.visible for figure in figures)
    assert len(figures) == len(plots_words.READINGS)


def more_lanes(start: dict[str, Any], end: dict[str, Any]) -> None:
    start["lanes"] *= 11
    end["traces"] *= 11


def more_rounds(_: dict[str, Any], end: dict[str, Any]) -> None:
    end["traces"][0]["rounds"] *= 30


def no_tokens(_: dict[str, Any], end: dict[str, Any]) -> None:
    for entry in end["traces"][1]["rounds"]:
        entry |= {"accepted": 0, "extra": None}


def no_time(_: dict[str, Any], end: dict[str, Any]) -> None:
    for entry in end["traces"][0]["rounds"]:
        entry["total_seconds"] = 0


@pytest.mark.parametrize("alter", [more_lanes, more_rounds, no_tokens, no_time])
def test_what_no_race_sends_back_is_not_drawn(
    alter: Callable[[dict[str, Any], dict[str, Any]], None],
) -> None:
    start, *_, end = map(json.loads, rows.recorded_lines("r", *stories.race()))
    alter(start, end)
    lines = rows.line(start) + rows.line(end)
    assert plots.explained(lines) == "[]"
    note, *figures = plots.draw(lines)
    assert (note.value, note.visible) == (race_words.NO_RACE, True)
    assert not any(figure.visible for figure in figures)
