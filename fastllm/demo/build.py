"""Assembles the page: components, events and how it is launched. No models, no sentences."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from fastllm.demo import articles, texts, wire
from fastllm.demo.engine import Engine, Order
from fastllm.demo.limits import Limits
from fastllm.demo.worker import stream
from fastllm.errors import DataError, FastLLMError, SettingsError
from fastllm.trace import DecodingConfig, Trace, config_defaults

ASSETS = Path(__file__).resolve().parents[2] / "assets"
RECORDED = ASSETS / "recorded" / "race.json"

DEFAULT_LANES = (texts.ALONE, "lstm-before", "lstm-after")


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
    titles = {text: title for title, text in samples.items()}

    def race(
        article: str,
        lanes: list[str],
        gamma: float,
        temperature: float,
        top_p: float,
        seed: float,
        length: float,
    ) -> Iterator[str]:
        """Races an article; yields the rows so far as lines of JSON, again and again."""
        try:
            checked = articles.check(article, limits.article_characters)
            order = Order(
                article=checked.text,
                lanes=_lanes(lanes, engine.keys, limits.lanes),
                config=_config(limits, gamma, temperature, top_p, seed, length),
                notices=checked.notices,
                title=titles.get(checked.text, ""),
                seconds=limits.seconds_per_run,
            )
            yield from stream(lambda stop: engine.lines(order, stop))
        except FastLLMError as error:
            raise gr.Error(str(error), duration=15, print_exception=False) from error

    page = gr.Blocks(
        title=f"{texts.TITLE}: {texts.CLAIM}",
        analytics_enabled=False,
        delete_cache=(3600, 3600),
    )
    with page:
        gr.HTML(
            html_template=f'<div class="fl-head"><h1>{texts.TITLE}</h1><p>{texts.CLAIM}</p></div>',
            js_on_load=None,
            apply_default_css=False,
        )
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
        missing = " ".join(texts.not_offered(*entry) for entry in engine.missing.items())
        with gr.Column(elem_id="fl-lanes"):
            lanes = gr.CheckboxGroup(
                [(texts.title_of(key), key) for key in engine.keys],
                value=_default_lanes(engine.keys),
                label=texts.LANES_LABEL,
                info=missing or None,
                container=False,
            )
        with gr.Accordion(texts.ARTICLE_FOLD, open=False, elem_id="fl-article-fold") as fold:
            article = gr.Textbox(
                samples.get(first, ""),
                label=texts.ARTICLE,
                show_label=False,
                placeholder=texts.ARTICLE_PLACEHOLDER,
                lines=8,
                max_lines=16,
                elem_id="fl-article",
            )
        view = gr.HTML(
            opening,
            html_template='<div class="fl-race"></div>',  # static: no value meets a template
            js_on_load=script(),
            apply_default_css=False,
            elem_id="fl-view",
        )
        with gr.Accordion(texts.SETTINGS, open=False, elem_id="fl-settings"), gr.Row():
            settings = _settings(limits, defaults)
        gr.HTML(
            html_template=f'<p class="fl-privacy">{texts.PRIVACY}</p>',
            js_on_load=None,
            apply_default_css=False,
            elem_id="fl-privacy",
        )

        sample.input(
            None,
            sample,
            [article, fold],
            js=_choose(samples),
            show_progress="hidden",
            api_visibility="private",
        )
        running = go.click(
            race,
            [article, lanes, *settings],
            view,
            js=_announce("go"),
            show_progress="hidden",
            concurrency_id="device",
            concurrency_limit=1,
            trigger_mode="once",
            api_name="race",
        )
        running.failure(None, js=_announce("failed"), api_visibility="private")
        halt.click(None, cancels=[running], js=_announce("stop"), api_visibility="private")
    page.queue(max_size=limits.queue_size, default_concurrency_limit=4)
    return page


def launch_options() -> dict[str, Any]:
    """What `launch` needs for this page: its style, the system's fonts, nothing from outside."""
    fonts = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Arial", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")]
    return {
        "theme": gr.themes.Default(
            primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=mono
        ),
        "css": (ASSETS / "style.css").read_text(encoding="utf-8"),
        "footer_links": ["api"],
        "run_history": False,
        "ssr_mode": False,
        "state_session_capacity": 100,
        "max_file_size": "1kb",
        "share": False,
        "quiet": True,
    }


def script() -> str:
    """`assets/lanes.js` with its sentences before it."""
    words = wire.line(texts.BROWSER).strip()
    return f"const words = {words};\n" + (ASSETS / "lanes.js").read_text(encoding="utf-8")


def _opening(recorded: Path, samples: dict[str, str]) -> tuple[str, str]:
    """The sample that the dropdown shows at first, and the rows of the recorded race of it."""
    first = next(iter(samples), texts.OWN_ARTICLE)
    if not recorded.is_file():
        return first, ""
    tree = json.loads(recorded.read_text(encoding="utf-8"))
    traces = [Trace.from_json(entry) for entry in tree["traces"]]
    rows = wire.recorded_lines("recorded", tree["lanes"], traces, article=tree["article"])
    return (tree["article"] if tree["article"] in samples else first), "".join(rows)


def _settings(limits: Limits, defaults: dict[str, Any]) -> list[gr.components.Component]:
    return [
        gr.Slider(
            1,
            limits.gamma,
            defaults["gamma"],
            step=1,
            label=texts.GAMMA[0],
            info=texts.GAMMA[1],
        ),
        gr.Slider(
            0.0,
            DecodingConfig.RANGES["temperature"][1],
            defaults["temperature"],
            step=0.1,
            label=texts.TEMPERATURE[0],
            info=texts.TEMPERATURE[1],
        ),
        gr.Slider(
            0.05, 1.0, defaults["top_p"], step=0.05, label=texts.TOP_P[0], info=texts.TOP_P[1]
        ),
        gr.Number(
            defaults["seed"], precision=0, minimum=0, label=texts.SEED[0], info=texts.SEED[1]
        ),
        gr.Slider(
            8,
            limits.max_new_tokens,
            defaults["max_new_tokens"],
            step=1,
            label=texts.LENGTH[0],
            info=texts.LENGTH[1],
        ),
    ]


def _config(
    limits: Limits, gamma: float, temperature: float, top_p: float, seed: float, length: float
) -> DecodingConfig:
    for name, value, most in (
        ("gamma", gamma, limits.gamma),
        ("max_new_tokens", length, limits.max_new_tokens),
    ):
        if value is None or value > most:
            raise SettingsError(f"{name}={value!r} is out of range: this page takes up to {most}.")
    return DecodingConfig(
        gamma=_whole(gamma),
        temperature=temperature,
        top_p=top_p,
        seed=_whole(seed),
        max_new_tokens=_whole(length),
    )


def _whole(value: float) -> Any:
    """A slider's 5.0 as 5; anything else goes on to be refused by name."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _lanes(chosen: Sequence[str], offered: Sequence[str], most: int) -> tuple[str, ...]:
    """The chosen lanes in the order of the page."""
    for key in chosen:
        if key not in offered:
            raise DataError(texts.unknown_lane(key, offered))
    lanes = tuple(key for key in offered if key in chosen)
    if len(lanes) < 2:
        raise DataError(texts.NO_LANES)
    if len(lanes) > most:
        raise DataError(texts.too_many_lanes(most))
    return lanes


def _default_lanes(offered: Sequence[str]) -> list[str]:
    lanes = [key for key in DEFAULT_LANES if key in offered]
    return lanes if len(lanes) > 1 else list(offered[:2])


def _choose(samples: dict[str, str]) -> str:
    """Puts a sample into the box, or opens the box for an article of one's own.

    In the browser: an answer of the server may come after a click on Go, which would race the
    article before, or after a paste, which it would undo.
    """
    return (
        f"(title) => {{ const samples = {wire.line(samples).strip()}; "
        "const known = Object.hasOwn(samples, title); "
        "return [known ? samples[title] : '', { __type__: 'update', open: !known }]; }"
    )


def _announce(what: str) -> str:
    """Tells `assets/lanes.js` what happened, and passes the inputs on."""
    return (
        f"(...values) => {{ window.dispatchEvent(new Event('fastllm-{what}')); return values; }}"
    )
