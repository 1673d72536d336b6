"""The settings of a race: a component for each field of `rows.SETTINGS`, in its order."""

import gradio as gr

from fastllm.demo.context import PageContext
from fastllm.demo.folds.settings import words
from fastllm.demo.limits import Limits
from fastllm.demo.parts import HIDDEN, select
from fastllm.trace import DecodingConfig, config_defaults

WIDTH = 280
"""Pixels below which a setting moves to the next row: its sentence stands beside its number."""


def bounds(limits: Limits) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of each setting that is a number."""
    ranges = DecodingConfig.RANGES
    return {
        "gamma": (1, limits.gamma),
        "temperature": ranges["temperature"],
        "top_p": (0.05, 1.0),
        "seed": ranges["seed"],
        "max_new_tokens": (8, limits.max_new_tokens),
        "lenience": (0.05, 1.0),
    }


def add(context: PageContext) -> None:
    """Adds the fold; the context gets its components."""
    defaults, ranges = config_defaults(), bounds(context.limits)

    def slider(name: str, step: float, said: tuple[str, str], *, visible: bool = True) -> gr.Slider:
        low, high = ranges[name]
        label, info = said
        return gr.Slider(
            low, high, defaults[name], step=step, label=label, info=info, min_width=WIDTH,
            visible=visible,
        )  # fmt: skip

    with gr.Accordion(words.FOLD, open=False, elem_id="fl-settings"):
        with gr.Row():
            label, info = words.SEED
            numbers = [
                slider("gamma", 1, words.GAMMA),
                slider("temperature", 0.1, words.TEMPERATURE),
                slider("top_p", 0.05, words.TOP_P),
                gr.Number(
                    defaults["seed"], precision=0, minimum=0, label=label, info=info,
                    min_width=WIDTH,
                ),
                slider("max_new_tokens", 1, words.LENGTH),
            ]  # fmt: skip
        with gr.Row():
            label, info = words.RULE
            rules = [(title, name) for name, title in words.RULES.items()]
            rule = select(label, rules, defaults["verification"], info=info, elem_id="fl-rule")
            lenience = slider("lenience", 0.05, words.LENIENCE, visible=False)
    context.settings = [*numbers, rule, lenience]
    shown = "(rule) => ({ __type__: 'update', visible: rule === 'lenient' })"
    rule.input(None, rule, lenience, js=shown, **HIDDEN)
