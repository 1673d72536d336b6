"""The race: the live view that its rows are drawn in, and the events that start it.

`live_view` adds the component; `connect` adds the events, once the components of the other parts
are there.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from fastllm import paths
from fastllm.demo import rows
from fastllm.demo.context import PageContext
from fastllm.demo.folds.keep import words as keep_words
from fastllm.demo.folds.race import words
from fastllm.demo.folds.settings.settings import bounds
from fastllm.demo.folds.settings.words import RULES
from fastllm.demo.parts import HIDDEN, SHARED, literal, view
from fastllm.demo.words import ALONE
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

TYPICAL = "Village painting"
"""The sample that opens the page: distillation gains on it about what it gains on all together."""


def live_view(context: PageContext, opening: str) -> None:
    """Adds the live view, which plays `opening`, the rows of a race, when the page opens."""
    context.view = view("fl-race", script(context.samples), opening, elem_id="fl-view")


def connect(context: PageContext, page: gr.Blocks, recorded: Mapping[str, str]) -> None:
    """Binds the race to its buttons, and the address of the page to what it asks for.

    `recorded` are the rows of the recorded races by the title of their sample.
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
    for field in inputs:
        told = field.input if isinstance(field, gr.HTML) else field.change
        told(None, inputs, None, js=_TELL, **HIDDEN)
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

    The folder holds a file for each, as `tools.record` writes them. Without one there are none.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        tree = json.loads(path.read_text(encoding="utf-8"))
        traces = [Trace.from_json(entry) for entry in tree["traces"]]
        lines = rows.recorded_lines(path.stem, tree["lanes"], traces, article=tree["article"])
        found[tree["article"]] = "".join(lines)
    return found


def opening(recorded: Mapping[str, str], samples: Mapping[str, str]) -> tuple[str, str]:
    """The sample that is chosen at first, and the rows of the recorded race of it."""
    first = TYPICAL if TYPICAL in samples else next(iter(samples), words.OWN_ARTICLE)
    if first in recorded or not recorded:
        return first, recorded.get(first, "")
    title = next(iter(recorded))
    return (title if title in samples else first), recorded[title]


def recorded_name(title: str) -> str:
    """The file of a sample's recorded race: "Autumn storm" -> "autumn-storm.json"."""
    return f"{title.lower().replace(' ', '-')}.json"


def default_lanes(offered: Sequence[str]) -> list[str]:
    """The lanes that are chosen at first, of those that the engine offers."""
    lanes = [key for key in DEFAULT_LANES if key in offered]
    return lanes if len(lanes) > 1 else list(offered[:2])


_ASKED_SAMPLE = (
    "() => [history.state?.fastllm && sessionStorage.getItem(history.state.fastllm) ? '' : "
    "new URLSearchParams(location.search).get('sample') ?? '']"
)
"""The sample that the address asks for; none where a race is kept that was run live."""


_TELL = "(...detail) => { dispatchEvent(new CustomEvent('fastllm-chosen', { detail })); }"
"""Tells the live view what is chosen: article, lanes and settings."""


def _restore(context: PageContext) -> str:
    """`restore.js` as a function."""
    known = {
        "bounds": bounds(context.limits),
        "settings": rows.SETTINGS,
        "rules": list(RULES),
        "lanes": list(context.engine.keys),
        "most": context.limits.lanes,
        "characters": context.limits.article_characters,
        "own": words.OWN_ARTICLE,
    }
    body = (paths.PAGE / "folds" / "race" / "restore.js").read_text(encoding="utf-8")
    return f"(...values) => {{ const known = {literal(known)};\n{body} }}"
