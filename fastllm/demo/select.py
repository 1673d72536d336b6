"""A native select as a component of the page.

`gr.Dropdown` keeps its list open over what is below when it is left by Tab.
"""

import html
from collections.abc import Sequence
from typing import Any

import gradio as gr

from fastllm.demo.context import scripted


def select(
    label: str, choices: Sequence[tuple[str, str]], value: str, *, info: str = "", **options: Any
) -> gr.HTML:
    """Adds the select; its value is the one chosen, its event `input`.

    Args:
        label: above it.
        choices: pairs of text and value.
        value: at first.
        info: what more there is to say, below the label.
        options: of the component.
    """
    more = f'<span class="fl-soft">{html.escape(info)}</span>' if info else ""
    return gr.HTML(
        value,
        html_template=f'<label class="fl-select"><span>{html.escape(label)}</span>{more}'
        "<select></select></label>",
        js_on_load=scripted("static/select.js", {}, choices=[[key, text] for text, key in choices]),
        apply_default_css=False,
        **options,
    )
