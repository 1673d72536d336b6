"""Assembles the page: components, events and how it is launched. No models, no sentences."""

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from fastllm import paths
from fastllm.demo import answers, articles, head, loading, rows, texts, upload
from fastllm.demo.engine import Engine
from fastllm.demo.folds.compare import compare
from fastllm.demo.folds.game import guess
from fastllm.demo.folds.learn import learn
from fastllm.demo.folds.plots import race_stats
from fastllm.demo.folds.trained import trained
from fastllm.demo.guard import Guard
from fastllm.demo.limits import Limits, read_limits
from fastllm.demo.stage import (
    DEVICE_QUEUE,
    FEWEST_LANES,
    SETTINGS,
    SHARED,
    Stage,
    announce,
    literal,
    scripted,
)
from fastllm.demo.worker import news
from fastllm.errors import DataError
from fastllm.evaluation import charts
from fastllm.trace import DecodingConfig, Trace, config_defaults

RECORDED = paths.RECORDED / "race.json"

SCRIPTS = (
    SHARED,
    "folds/race/lanes.js",
    "folds/race/replay.js",
    "folds/race/inspect.js",
    "folds/keep/keep.js",
    "folds/race/rows.js",
)
"""The parts of the live view, in their order."""

STYLE = paths.PAGE / "static" / "style.css"

FIRST_PLOTS = 2
"""How many plots are in view before "more"."""

DEFAULT_LANES = (texts.ALONE, "lstm-before", "lstm-after")

PARTS: tuple[Callable[[Stage], None], ...] = (guess.add, learn.add, compare.add, answers.add)
"""The folds below the race, in their order: each adds its components and events."""


def build(engine: Engine, limits: Limits, recorded: Path = RECORDED) -> gr.Blocks:
    """The page, ready to be launched with `launch_options`.

    Args:
        engine: the models.
        limits: what a visitor may ask for.
        recorded: the race that plays when the page opens.
    """
    samples = articles.samples()
    first, opening = _opening(recorded, samples)
    defaults = config_defaults()
    stage = Stage(engine, limits, samples)

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
        so_far = stage.perform(request, lambda: stage.order(article, lanes, *values))
        yield from news(so_far) if "/call/" in request.url.path else so_far

    def read_file(sent: str) -> tuple[str, str]:
        """A file as the article."""
        with stage.said():
            return articles.read_file(sent, limits.upload_bytes).strip(), texts.OWN_ARTICLE

    page = gr.Blocks(
        title=f"{texts.TITLE}: {texts.CLAIM}",
        analytics_enabled=False,
        delete_cache=(3600, 3600),
    )
    with page:
        gr.HTML(
            html_template=f'<div class="fl-head"><h1>{texts.TITLE}</h1><p>{texts.CLAIM}</p>'
            f'<p class="fl-roles">{texts.ROLES}</p></div>',
            js_on_load=None,
            apply_default_css=False,
        )
        loading.add(stage)
        with gr.Row(elem_id="fl-controls", equal_height=True):
            with gr.Column(scale=4, min_width=220, elem_id="fl-sample"):
                sample = gr.Dropdown(
                    [*samples, texts.OWN_ARTICLE],
                    value=first,
                    label=texts.ARTICLE,
                    container=False,
                )
            go = gr.Button(texts.GO, variant="primary", elem_id="fl-go", scale=2, min_width=150)
            halt = gr.Button(texts.STOP, elem_id="fl-stop", scale=1, min_width=90)
        with gr.Column(elem_id="fl-lanes"):
            stage.lanes = lanes = gr.CheckboxGroup(
                [(texts.choice_of(key), key) for key in engine.keys],
                value=_default_lanes(engine.keys),
                label=texts.LANES_LABEL,
                container=False,
            )
            lanes_note = gr.HTML(
                html_template=f'<p role="status">{texts.how_many_lanes(limits.lanes)}</p>',
                js_on_load=None,
                apply_default_css=False,
                visible=False,
                elem_id="fl-lanes-note",
            )
        if engine.missing:
            gr.HTML(
                html_template=_greyed_out(engine.missing),
                js_on_load=None,
                apply_default_css=False,
                elem_id="fl-missing",
            )
        with gr.Accordion(texts.ARTICLE_FOLD, open=False, elem_id="fl-article-fold") as fold:
            stage.article = article = gr.Textbox(
                samples.get(first, ""),
                label=texts.ARTICLE,
                show_label=False,
                placeholder=texts.ARTICLE_PLACEHOLDER,
                lines=8,
                max_lines=16,
                elem_id="fl-article",
            )
            opened = upload.opener(
                texts.UPLOAD, articles.FILE_TYPES, limits.upload_bytes, "fl-article-file"
            )
        stage.view = view = gr.HTML(
            opening,
            html_template='<div class="fl-race"></div>',  # static: no value meets a template
            js_on_load=script(samples),
            apply_default_css=False,
            elem_id="fl-view",
        )
        folds = gr.Column(elem_id="fl-parts")  # filled below, when all that they read is there
        with gr.Accordion(texts.SETTINGS, open=False, elem_id="fl-settings"):
            stage.settings = settings = _settings(limits, defaults)
        with gr.Accordion(texts.PLOTS, open=False, elem_id="fl-plots") as plots_fold:
            plots_note, figures = _plots()
        with gr.Accordion(texts.TRAINED, open=False, elem_id="fl-trained") as trained_fold:
            cards = gr.HTML(
                "",
                html_template='<div class="fl-cards"></div>',
                js_on_load=scripted("folds/trained/trained.js", texts.TRAINED_BROWSER),
                apply_default_css=False,
            )
        gr.HTML(
            html_template=f'<p class="fl-privacy">{texts.PRIVACY}</p>'
            f'<p class="fl-privacy">{html.escape(texts.runs_on(engine.about))}</p>',
            js_on_load=None,
            apply_default_css=False,
            elem_id="fl-privacy",
        )

        with folds:
            for add in PARTS:
                add(stage)

        sample.input(
            None,
            sample,
            [article, fold],
            js=_CHOOSE,
            show_progress="hidden",
            api_visibility="private",
        )
        article.change(
            None,
            article,
            sample,
            js=_named(texts.OWN_ARTICLE),
            show_progress="hidden",
            api_visibility="private",
        )
        lanes.input(
            None,
            lanes,
            lanes_note,
            js="(lanes) => ({ __type__: 'update', visible: "
            f"lanes.length < {FEWEST_LANES} || lanes.length > {limits.lanes} }})",
            show_progress="hidden",
            api_visibility="private",
        )
        opened.upload(
            read_file,
            opened,
            [article, sample],
            show_progress="hidden",
            api_visibility="private",
        )
        settings[RULE].input(
            None,
            settings[RULE],
            settings[LENIENCE],
            js="(rule) => ({ __type__: 'update', visible: rule === 'lenient' })",
            show_progress="hidden",
            api_visibility="private",
        )
        page.load(
            None,
            None,
            [sample, article, fold, lanes, *settings],
            js=_restore(limits, engine.keys),
            show_progress="hidden",
            api_visibility="private",
        )
        # What a fold holds is made when it is opened; a new race closes the plots of the old one.
        plots_fold.expand(
            _draw, view, [plots_note, *figures], show_progress="minimal", api_visibility="private"
        )
        go.click(
            None,
            None,
            plots_fold,
            js="() => ({ __type__: 'update', open: false })",
            show_progress="hidden",
            api_visibility="private",
        )
        trained_fold.expand(
            lambda: trained.dumps(engine.keys), None, cards, api_visibility="private"
        )
        running = go.click(
            race,
            [article, lanes, *settings],
            view,
            js=announce("go"),
            show_progress="hidden",
            concurrency_id=DEVICE_QUEUE,
            concurrency_limit=1,
            trigger_mode="once",
            preprocess=False,  # what a program sends in a wrong form is refused in our own words
            api_name="race",
        )
        running.failure(None, js=announce("failed"), api_visibility="private")
        halt.click(None, cancels=[running], js=announce("stop"), api_visibility="private")
    page.queue(max_size=limits.queue_size, default_concurrency_limit=4, api_open=False)
    return page


def _greyed_out(missing: Mapping[str, str]) -> str:
    """The lanes that cannot be chosen, as markup: boxes that take no click, and why, once a reason.

    Titles and reasons may be an operator's words, and this is a template: nothing of them may be
    markup, or begin an expression.
    """
    groups: dict[str, list[str]] = {}
    for key, reason in missing.items():
        groups.setdefault(reason, []).append(key)
    parts = []
    for reason, keys in groups.items():
        parts += [
            f'<label aria-disabled="true"><input type="checkbox" disabled>'
            f"{_inert(texts.choice_of(key))}</label>"
            for key in keys
        ]
        parts.append(f"<p>{_inert(texts.because(reason))}</p>")
    return f"<div>{''.join(parts)}</div>"


def _inert(text: str) -> str:
    """Text that neither HTML nor the language of templates reads anything into."""
    return html.escape(text).translate({ord(sign): f"&#{ord(sign)};" for sign in "{}$`"})


def _plots() -> tuple[gr.HTML, list[gr.Plot]]:
    """The plots of a race, the first ones in view and the rest under "more"; a note above."""
    note = gr.HTML(visible=False, elem_classes="fl-plots-note", apply_default_css=False)
    names = list(texts.PLOT_TEXTS)
    with gr.Row():
        figures = [_plot(name) for name in names[:FIRST_PLOTS]]
    with gr.Accordion(texts.MORE_PLOTS, open=False):
        for start in range(FIRST_PLOTS, len(names), 2):
            with gr.Row():
                figures += [_plot(name) for name in names[start : start + 2]]
    return note, figures


def _plot(name: str) -> gr.Plot:
    title, reading = texts.PLOT_TEXTS[name]
    with gr.Column(min_width=320):
        gr.HTML(
            html_template=f'<h3 class="fl-plot-title">{title}</h3><p class="fl-soft">{reading}</p>',
            js_on_load=None,
            apply_default_css=False,
        )
        return gr.Plot(show_label=False, label=title, elem_id=f"fl-plot-{name}")


def _draw(lines: str) -> list[Any]:
    """The plots of the race in the view; a note where it has not ended."""
    try:
        keys, traces = rows.traces_of(lines or "")
    except DataError as error:
        note = gr.HTML(str(error), visible=True)
        return [note, *(gr.Plot(value=None, visible=False) for _ in texts.PLOT_TEXTS)]
    drawn = charts.race_figures(race_stats.summarise(keys, traces))
    return [
        gr.HTML(visible=False),
        *(gr.Plot(value=drawn[name], visible=True) for name in texts.PLOT_TEXTS),
    ]


def launch_options(guard: Guard | None = None) -> dict[str, Any]:
    """What `launch` needs for this page: its style, the system's fonts, nothing from outside.

    Args:
        guard: of this page alone; by default one with the limits of the Spacefile.
    """
    guard = guard or Guard(read_limits())
    fonts = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Arial", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")]
    return {
        "theme": gr.themes.Default(
            primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=mono
        ),
        "css": STYLE.read_text(encoding="utf-8"),
        "app_kwargs": {"middleware": [guard.middleware(), *head.middleware()]},
        "footer_links": ["api"],
        "run_history": False,
        "ssr_mode": False,
        "state_session_capacity": 50,
        "max_file_size": "1kb",
        "share": False,
        "quiet": True,
    }


def script(samples: Mapping[str, str]) -> str:
    """The live view as one function, and its call; the sample articles for the other events.

    The function holds all it needs, its style included: it is written into the replay that a
    visitor takes home.
    """
    parts = "\n".join((paths.PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = STYLE.read_text(encoding="utf-8")
    style = re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)).strip()
    return (
        f"window.fastllmSamples = {literal(samples)};\n"
        "const view = function (element, props, watch) {\n"
        f"const words = {literal(texts.BROWSER)};\nconst sheet = {literal(style)};\n"
        f"{parts}\n}};\n"
        "view(element, props, watch);\n"
    )


def _opening(recorded: Path, samples: dict[str, str]) -> tuple[str, str]:
    """The sample that the dropdown shows at first, and the rows of the recorded race of it."""
    first = next(iter(samples), texts.OWN_ARTICLE)
    if not recorded.is_file():
        return first, ""
    tree = json.loads(recorded.read_text(encoding="utf-8"))
    traces = [Trace.from_json(entry) for entry in tree["traces"]]
    lines = rows.recorded_lines("recorded", tree["lanes"], traces, article=tree["article"])
    return (tree["article"] if tree["article"] in samples else first), "".join(lines)


SETTING_WIDTH = 280
"""Pixels below which a setting moves to the next row: its sentence stands beside its number."""

RULE, LENIENCE = SETTINGS.index("verification"), SETTINGS.index("lenience")


def _bounds(limits: Limits) -> dict[str, tuple[float, float]]:
    """What each setting that is a number may be on this page."""
    ranges = DecodingConfig.RANGES
    return {
        "gamma": (1, limits.gamma),
        "temperature": ranges["temperature"],
        "top_p": (0.05, 1.0),
        "seed": ranges["seed"],
        "max_new_tokens": (8, limits.max_new_tokens),
        "lenience": (0.05, 1.0),
    }


def _settings(limits: Limits, defaults: dict[str, Any]) -> list[Any]:
    """The components of `SETTINGS`, in two rows."""

    def slider(name: str, step: float, said: tuple[str, str], **more: Any) -> gr.Slider:
        low, high = _bounds(limits)[name]
        label, info = said
        return gr.Slider(
            low,
            high,
            defaults[name],
            step=step,
            label=label,
            info=info,
            min_width=SETTING_WIDTH,
            **more,
        )

    with gr.Row():
        numbers = [
            slider("gamma", 1, texts.GAMMA),
            slider("temperature", 0.1, texts.TEMPERATURE),
            slider("top_p", 0.05, texts.TOP_P),
            gr.Number(
                defaults["seed"],
                precision=0,
                minimum=0,
                label=texts.SEED[0],
                info=texts.SEED[1],
                min_width=SETTING_WIDTH,
            ),
            slider("max_new_tokens", 1, texts.LENGTH),
        ]
    with gr.Row():
        rule = gr.Dropdown(
            [(title, name) for name, title in texts.RULES.items()],
            value=defaults["verification"],
            label=texts.RULE[0],
            info=texts.RULE[1],
        )
        lenience = slider("lenience", 0.05, texts.LENIENCE, visible=False)
    return [*numbers, rule, lenience]


def _default_lanes(offered: Sequence[str]) -> list[str]:
    lanes = [key for key in DEFAULT_LANES if key in offered]
    return lanes if len(lanes) > 1 else list(offered[:2])


_CHOOSE = (
    "(title) => { const samples = window.fastllmSamples; "
    "const known = Object.hasOwn(samples, title); "
    "return [known ? samples[title] : '', { __type__: 'update', open: !known }]; }"
)
"""Puts a sample into the box, or opens the box for an article of one's own.

In the browser: an answer of the server may come after a click on Go, which would race the article
before, or after a paste, which it would undo.
"""


def _named(own: str) -> str:
    """Has the dropdown say whose article is in the box: of a sample, or one of one's own."""
    return (
        "(text) => (Object.entries(window.fastllmSamples).find(([, known]) => known === text) "
        f"?? [{literal(own)}])[0]"
    )


def _restore(limits: Limits, offered: Sequence[str]) -> str:
    """Sets what the address asks for (`linkOf` in replay.js); leaves alone what it does not.

    Values that this page does not offer are passed over. Likewise in the browser.
    """
    known = {
        "bounds": {name: list(pair) for name, pair in _bounds(limits).items()},
        "settings": SETTINGS,
        "rules": list(texts.RULES),
        "lanes": list(offered),
        "most": limits.lanes,
        "own": texts.OWN_ARTICLE,
    }
    return f"(...values) => {{ const known = {literal(known)};\n{_RESTORE} }}"


_RESTORE = """
const asked = new URLSearchParams(location.search);
const same = { __type__: "update" };
const kept = [same, same, same, same, ...known.settings.map(() => same)];
if (!asked.has("lanes")) return kept;
const whenThere = async () => {
  while (!window.fastllmSamples) await new Promise((then) => setTimeout(then, 20));
  return window.fastllmSamples;
};
const setting = (name) => {
  const text = asked.get(name);
  if (text === null) return same;
  if (name === "verification") return known.rules.includes(text) ? text : same;
  const [low, high] = known.bounds[name];
  const value = Number(text);
  if (!(text.trim() && value >= low && value <= high)) return same;
  if (name === "lenience" && asked.get("verification") === "lenient") {
    return { __type__: "update", value, visible: true };
  }
  return value;
};
const lanes = asked.get("lanes").split(",").filter((key) => known.lanes.includes(key));
return whenThere().then((samples) => {
  const title = asked.get("sample");
  const there = title !== null && Object.hasOwn(samples, title);
  const article = there
    ? [title, samples[title], same]
    : [known.own, "", { __type__: "update", open: true }];
  const chosen = lanes.length > 1 && lanes.length <= known.most ? lanes : same;
  return [...article, chosen, ...known.settings.map(setting)];
});
"""
