"""The page, from top to bottom, and how it is launched. No models, no sentences."""

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from fastllm import paths
from fastllm.demo import answers, articles, loading, words
from fastllm.demo.context import PageContext
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.about import about
from fastllm.demo.folds.choose import choose
from fastllm.demo.folds.compare import compare
from fastllm.demo.folds.game import guess
from fastllm.demo.folds.learn import learn
from fastllm.demo.folds.plots import plots
from fastllm.demo.folds.race import race
from fastllm.demo.folds.settings import settings
from fastllm.demo.folds.sweep import sweep
from fastllm.demo.folds.trained import trained
from fastllm.demo.guard import Guard
from fastllm.demo.head import Head
from fastllm.demo.limits import Limits, read_limits
from fastllm.demo.parts import markup, paragraph


def build(engine: LocalEngine, limits: Limits, recorded: Path = paths.RECORDED) -> gr.Blocks:
    """The page, ready to be launched with `launch_options`; `recorded` is a folder of races."""
    context = PageContext(engine, limits, articles.samples())
    races = race.recorded_races(recorded)
    first, opening = race.opening(races, context.samples)
    page = gr.Blocks(
        title=f"{words.TITLE}: {words.CLAIM}", analytics_enabled=False, delete_cache=(3600, 3600)
    )
    with page:
        markup(
            f'<div class="fl-head"><h1>{words.TITLE}</h1><p>{words.CLAIM}</p>'
            f'<p class="fl-roles">{words.ROLES}</p></div>'
        )
        loading.add(context)
        with gr.Tabs(elem_id="fl-parts", overflow_behavior="wrap"):
            with _tab("race"):
                choose.controls(context, first)
                with gr.Row(elem_id="fl-folds"):
                    choose.article(context, first)
                    settings.add(context)
                race.live_view(context, opening)
            with _tab("inside") as inside:
                plots.add(context, inside)
                sweep.add(context)
            with _tab("play") as play:
                guess.add(context, play)
            with _tab("compare"):
                compare.add(context)
            with _tab("train") as train:
                learn.add(context)
                trained.add(context, train)
            with _tab("about"):
                about.add(context)
        paragraph(words.PRIVACY, "fl-privacy", elem_id="fl-privacy")
        race.connect(context, page, races)
        answers.add(context)
    page.queue(max_size=limits.queue_size, default_concurrency_limit=4, api_open=False)
    return page


def _tab(key: str) -> gr.Tab:
    return gr.Tab(words.TABS[key], id=key, elem_id=f"fl-tab-{key}")


def launch_options(guard: Guard | None = None) -> dict[str, Any]:
    """What `launch` needs for this page: its style, the system's fonts, nothing from outside.

    A guard is of one page alone; by default it has the limits of the Spacefile.
    """
    guard = guard or Guard(read_limits())
    fonts = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Arial", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")]
    return {
        # A darker blue than the theme's own, so that white stands 4.5:1 on it and more.
        "theme": gr.themes.Default(
            primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=mono
        ).set(
            button_primary_background_fill="*primary_700",
            button_primary_background_fill_hover="*primary_800",
            button_primary_background_fill_dark="*primary_700",
            button_primary_background_fill_hover_dark="*primary_600",
            button_primary_text_color="white",
        ),
        "css": race.styles(),
        "app_kwargs": {"middleware": [Middleware(guard.before), Middleware(Head)]},
        "footer_links": ["api"],
        "run_history": False,
        "ssr_mode": False,
        "state_session_capacity": 50,
        "max_file_size": "1kb",
        "share": False,
        "quiet": True,
    }
