"""The plots of the race in the live view, drawn when their tab is opened."""

import json
from typing import Any

import gradio as gr

from fastllm.demo import rows
from fastllm.demo.context import PageContext
from fastllm.demo.folds.plots import race_stats, words
from fastllm.demo.folds.plots.costs import as_row, costs
from fastllm.demo.folds.race import words as race_words
from fastllm.demo.parts import HIDDEN, heading, markup, scripted, view
from fastllm.demo.words import hues_of
from fastllm.errors import DataError
from fastllm.evaluation import charts


def add(context: PageContext, tab: gr.Tab) -> None:
    """Adds the plots to their tab, and the note that says so where no race has ended."""
    heading(words.TITLE)
    known = view(
        "fl-explain",
        scripted("folds/plots/explain.js", words.BROWSER, most=context.limits.gamma),
        elem_id="fl-explain",
    )
    note = gr.HTML(visible=False, elem_classes="fl-plots-note", apply_default_css=False)
    figures = []
    with gr.Column(elem_id="fl-plots"):
        for start in range(0, len(words.READINGS), 2):
            with gr.Row():
                figures += [_plot(name) for name in list(words.READINGS)[start : start + 2]]
    tab.select(explained, context.view, known, queue=False, **HIDDEN)  # soon: before any plot
    tab.select(
        draw, context.view, [note, *figures], show_progress="minimal", api_visibility="private"
    )


def explained(lines: str) -> str:
    """The costs of the lanes of a race, as JSON of its rows; of none where it has not ended."""
    try:
        keys, traces = rows.traces_of(lines or "")
        hues = dict(zip(keys, hues_of(keys), strict=True))
        return json.dumps([as_row(lane, hues[lane.key]) for lane in costs(keys, traces)])
    except (DataError, ArithmeticError):  # rounds may be said to take no time, or less
        return "[]"


def draw(lines: str) -> list[Any]:
    """The plots of a race, of its rows: updates of the note and of each plot.

    The note says so where the race has not ended.
    """
    try:
        keys, traces = rows.traces_of(lines or "")
        drawn = charts.race_figures(race_stats.summarise(keys, traces))
    except (DataError, ArithmeticError):  # as above
        note = gr.HTML(race_words.NO_RACE, visible=True)
        return [note, *(gr.Plot(value=None, visible=False) for _ in words.READINGS)]
    plots = [gr.Plot(value=drawn[name], visible=True) for name in words.READINGS]
    return [gr.HTML(visible=False), *plots]


def _plot(name: str) -> gr.Plot:
    title, reading = words.READINGS[name]
    with gr.Column(min_width=320):
        markup(f'<h3 class="fl-plot-title">{title}</h3><p class="fl-soft">{reading}</p>')
        return gr.Plot(show_label=False, label=title, elem_id=f"fl-plot-{name}")
