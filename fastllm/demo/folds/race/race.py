"""The race: the article, the lanes, the buttons, and the live view that its rows are drawn in.

`controls`, `article` and `live_view` add the components, from top to bottom; `connect` adds the
events, once the components of the other parts are there.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from fastllm import paths
from fastllm.demo import articles, rows
from fastllm.demo.context import (
    FEWEST_LANES,
    HIDDEN,
    SETTINGS,
    SHARED,
    PageContext,
    literal,
    markup,
    view,
)
from fastllm.demo.folds.keep import words as keep_words
from fastllm.demo.folds.race import words
from fastllm.demo.folds.settings.settings import bounds
from fastllm.demo.folds.settings.words import RULES
from fastllm.demo.upload import opener
from fastllm.demo.words import ALONE, STOP, because, choice_of
from fastllm.demo.worker import news
from fastllm.trace import Trace

SCRIPTS = (
    SHARED,
    "folds/race/frame.js",
    "folds/race/texts.js",
    "folds/race/replay.js",
    "folds/race/round.js",
    "folds/race/inspect.js",
    "folds/race/state.js",
    "folds/keep/keep.js",
    "folds/race/race.js",
)
"""The parts of the live view, in their order."""

BROWSER = words.BROWSER | keep_words.BROWSER
"""What they say."""

STYLES = tuple(paths.PAGE / "static" / name for name in ("style.css", "race.css"))
"""What the page looks like: all of it, and the live view."""

DEFAULT_LANES = (ALONE, "lookup", "lstm-before", "lstm-after")


def controls(context: PageContext, first: str) -> None:
    """Adds the choice of the article and the lanes, and the buttons.

    Args:
        context: of the page; gets the components.
        first: the sample that is chosen at first.
    """
    offered, missing = context.engine.keys, context.engine.missing
    with gr.Column(elem_id="fl-controls"):
        with gr.Column(elem_id="fl-sample"):
            titles = [*context.samples, words.OWN_ARTICLE]
            context.sample = gr.Radio(titles, value=first, label=words.ARTICLE, container=False)
        with gr.Row(elem_id="fl-start"):
            with gr.Column(scale=6, min_width=320, elem_id="fl-lanes"):
                context.lanes = gr.CheckboxGroup(
                    [(choice_of(key), key) for key in offered],
                    value=default_lanes(offered),
                    label=words.LANES_LABEL,
                    container=False,
                )
                note = markup(
                    f'<p role="status">{words.HOW_MANY_LANES.format(context.limits.lanes)}</p>',
                    visible=False,
                    elem_id="fl-lanes-note",
                )
            context.go = gr.Button(
                words.GO, variant="primary", elem_id="fl-go", scale=2, min_width=150
            )
            context.halt = gr.Button(STOP, elem_id="fl-stop", scale=1, min_width=90)
    if missing:
        with gr.Column(elem_id="fl-missing"):
            for reason in dict.fromkeys(missing.values()):
                keys = [(choice_of(key), key) for key in missing if missing[key] == reason]
                gr.CheckboxGroup(keys, label=because(reason), interactive=False)
    context.lanes.input(
        None,
        context.lanes,
        note,
        js="(lanes) => ({ __type__: 'update', visible: "
        f"lanes.length < {FEWEST_LANES} || lanes.length > {context.limits.lanes} }})",
        **HIDDEN,
    )


def article(context: PageContext, first: str) -> None:
    """Adds the box of the article, and what changes its text: the samples, and a file.

    In the browser: an answer of the server may come after a click on Go, which would race the
    article before it, or after a paste, which it would undo.
    """
    with gr.Accordion(words.ARTICLE_FOLD, open=False, elem_id="fl-article-fold") as fold:
        context.article = box = gr.Textbox(
            context.samples.get(first, ""),
            label=words.ARTICLE,
            show_label=False,
            placeholder=words.ARTICLE_PLACEHOLDER,
            lines=8,
            max_lines=16,
            elem_id="fl-article",
        )
        opened = opener(
            words.UPLOAD, articles.FILE_TYPES, context.limits.upload_bytes, "fl-article-file"
        )
    context.article_fold = fold

    def read_file(sent: str) -> tuple[str, str]:
        """The file as the article."""
        with context.said():
            text = articles.read_file(sent, articles.FILE_TYPES, context.limits.upload_bytes)[1]
        return text.strip(), words.OWN_ARTICLE

    sample = context.sample
    opened.upload(read_file, opened, [box, sample], **HIDDEN)
    sample.input(None, sample, [box, fold], js=_CHOOSE, **HIDDEN)
    box.change(None, box, sample, js=_TITLE.format(own=literal(words.OWN_ARTICLE)), **HIDDEN)


def live_view(context: PageContext, opening: str) -> None:
    """Adds the live view, which plays `opening`, the rows of a race, when the page opens."""
    context.view = view("fl-race", script(context.samples), opening, elem_id="fl-view")


def connect(context: PageContext, page: gr.Blocks, recorded: Mapping[str, str]) -> None:
    """Binds the race to its buttons, and the address of the page to what it asks for.

    Args:
        context: of the page.
        page: all of it.
        recorded: the rows of the recorded races by the title of their sample.
    """

    def race(
        article: str,
        lanes: list[str],
        gamma: float,
        temperature: float,
        top_p: float,
        seed: float,
        length: float,
        rule: str,
        lenience: float,
        request: gr.Request,
    ) -> Iterator[str]:
        """Races an article; yields the rows so far as lines of JSON, again and again.

        To a program at `call/race` it yields only the new rows each time, and all of them at last.
        """
        values = (gamma, temperature, top_p, seed, length, rule, lenience)
        so_far = context.perform(request, lambda: context.race_job(article, lanes, *values))
        yield from news(so_far) if "/call/" in request.url.path else so_far

    inputs = [context.article, context.lanes, *context.settings]
    context.bind(
        [context.go.click],
        context.halt,
        race,
        inputs,
        context.view,
        name="",
        preprocess=False,  # what a program sends in a wrong form is refused in our own words
        api_name="race",
    )

    def show_recorded(title: Any) -> Any:
        """The recorded race of a sample; what is shown stays where there is none."""
        return recorded.get(title, gr.skip()) if isinstance(title, str) else gr.skip()

    options = {"queue": False, "preprocess": False} | HIDDEN
    context.sample.input(
        show_recorded, context.sample, context.view, trigger_mode="always_last", **options
    )
    page.load(show_recorded, context.sample, context.view, js=_ASKED_SAMPLE, **options)
    restored = [context.sample, context.article, context.article_fold, *inputs[1:]]
    page.load(None, None, restored, js=_restore(context), **HIDDEN)


def script(samples: Mapping[str, str]) -> str:
    """The live view as one function, and its call; the sample articles for the other events.

    The function holds all it needs, its style included: it is written into the replay that a
    visitor takes home.
    """
    parts = "\n".join((paths.PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = styles()
    style = re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)).strip()
    return (
        f"window.fastllmSamples = {literal(samples)};\n"
        "const view = function (element, props, watch) {\n"
        f"const words = {literal(BROWSER)};\nconst sheet = {literal(style)};\n"
        f"{parts}\n}};\n"
        "view(element, props, watch);\n"
    )


def styles() -> str:
    """The style sheet of the page."""
    return "".join(path.read_text(encoding="utf-8") for path in STYLES)


def recorded_races(folder: Path) -> dict[str, str]:
    """The rows of the recorded races by the title of their article, in alphabetical order.

    Args:
        folder: holds a file for each, as `tools.record` writes them. Without one there are none.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        tree = json.loads(path.read_text(encoding="utf-8"))
        traces = [Trace.from_json(entry) for entry in tree["traces"]]
        lines = rows.recorded_lines(path.stem, tree["lanes"], traces, article=tree["article"])
        found[tree["article"]] = "".join(lines)
    return found


def opening(recorded: Mapping[str, str], samples: Mapping[str, str]) -> tuple[str, str]:
    """The sample that is chosen at first, and the rows of the recorded race of it.

    Args:
        recorded: rows by title, of `recorded_races`.
        samples: the sample articles by title.
    """
    first = next(iter(samples), words.OWN_ARTICLE)
    if first in recorded or not recorded:
        return first, recorded.get(first, "")
    title = next(iter(recorded))
    return (title if title in samples else first), recorded[title]


def recorded_name(title: str) -> str:
    """The file of a sample's recorded race: "Autumn storm" -> "autumn-storm.json"."""
    return f"{title.lower().replace(' ', '-')}.json"


def default_lanes(offered: Sequence[str]) -> list[str]:
    """The lanes that are chosen at first.

    Args:
        offered: by the engine.
    """
    lanes = [key for key in DEFAULT_LANES if key in offered]
    return lanes if len(lanes) > 1 else list(offered[:2])


_ASKED_SAMPLE = (
    "() => [history.state?.fastllm && sessionStorage.getItem(history.state.fastllm) ? '' : "
    "new URLSearchParams(location.search).get('sample') ?? '']"
)
"""The sample that the address asks for; none where a race is kept that was run live."""

_CHOOSE = (
    "(title) => { const samples = window.fastllmSamples; "
    "const known = Object.hasOwn(samples, title); "
    "return [known ? samples[title] : '', { __type__: 'update', open: !known }]; }"
)
"""Puts a sample into the box, or opens the box for an article of one's own."""

_TITLE = (
    "(text) => (Object.entries(window.fastllmSamples).find(([, known]) => known === text) "
    "?? [{own}])[0]"
)
"""Has the dropdown say whose article is in the box: of a sample, or one of one's own."""


def _restore(context: PageContext) -> str:
    """`restore.js` as a function."""
    known = {
        "bounds": bounds(context.limits),
        "settings": SETTINGS,
        "rules": list(RULES),
        "lanes": list(context.engine.keys),
        "most": context.limits.lanes,
        "characters": context.limits.article_characters,
        "own": words.OWN_ARTICLE,
    }
    body = (paths.PAGE / "folds" / "race" / "restore.js").read_text(encoding="utf-8")
    return f"(...values) => {{ const known = {literal(known)};\n{body} }}"
