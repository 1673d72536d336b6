"""The plots of the race in the live view, drawn when their fold is opened."""

from typing import Any

import gradio as gr

from fastllm.demo import rows
from fastllm.demo.context import HIDDEN, PageContext, markup
from fastllm.demo.folds.plots import race_stats, words
from fastllm.errors import DataError
from fastllm.evaluation import charts

FIRST = 2
"""How many plots are in view before "more"."""


def add(context: PageContext) -> None:
    """Adds the fold: the first plots in view, the rest under "more", and a note above."""
    names = list(words.READINGS)
    with gr.Accordion(words.FOLD, open=False, elem_id="fl-plots") as fold:
        note = gr.HTML(visible=False, elem_classes="fl-plots-note", apply_default_css=False)
        with gr.Row():
            figures = [_plot(name) for name in names[:FIRST]]
        with gr.Accordion(words.MORE, open=False):
            for start in range(FIRST, len(names), 2):
                with gr.Row():
                    figures += [_plot(name) for name in names[start : start + 2]]
    fold.expand(
        draw, context.view, [note, *figures], show_progress="minimal", api_visibility="private"
    )
    # A new race closes the plots of the old one.
    close = "() => ({ __type__: 'update', open: false })"
    context.go.click(None, None, fold, js=close, **HIDDEN)


def draw(lines: str) -> list[Any]:
    """The plots of a race.

    Args:
        lines: its rows.

    Returns:
        Updates of the note and of each plot: the note says so where the race has not ended.
    """
    try:
        keys, traces = rows.traces_of(lines or "")
    except DataError as error:
        note = gr.HTML(str(error), visible=True)
        return [note, *(gr.Plot(value=None, visible=False) for _ in words.READINGS)]
    drawn = charts.race_figures(race_stats.summarise(keys, traces))
    plots = [gr.Plot(value=drawn[name], visible=True) for name in words.READINGS]
    return [gr.HTML(visible=False), *plots]


def _plot(name: str) -> gr.Plot:
    title, reading = words.READINGS[name]
    with gr.Column(min_width=320):
        markup(f'<h3 class="fl-plot-title">{title}</h3><p class="fl-soft">{reading}</p>')
        return gr.Plot(show_label=False, label=title, elem_id=f"fl-plot-{name}")
