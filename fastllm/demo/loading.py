"""What keeps the page from racing: models that are still being loaded, or could not be."""

import html
from typing import Any

import gradio as gr

from fastllm.demo.context import PageContext
from fastllm.demo.engine import LocalEngine
from fastllm.demo.parts import HIDDEN, paragraph

LOOK_SECONDS = 1.0
"""How often a page that waits for the models asks how far they are."""


def add(context: PageContext) -> None:
    """Adds the banner: hidden, and the server is not asked again, once the models are there."""
    banner = paragraph("", "fl-state", visible=False, elem_id="fl-state")
    clock = gr.Timer(LOOK_SECONDS, active=False)

    def look() -> list[Any]:
        text = said(context.engine)
        shown = f'<p class="fl-state" role="status">{html.escape(text)}</p>'
        return [
            gr.HTML(shown, visible=bool(text)),
            gr.Timer(active=bool(context.engine.loading)),
        ]

    gr.on(None, look, None, [banner, clock], queue=False, **HIDDEN)  # whenever the page is opened
    clock.tick(look, None, [banner, clock], queue=False, **HIDDEN)


def said(engine: LocalEngine) -> str:
    """What the banner says of the models; empty if races can be run."""
    if engine.failure:
        return f"No race can be run live: {engine.failure} The recorded one can be replayed."
    if engine.loading:
        return f"Not ready yet: {engine.loading}. A race that is started now waits for it."
    return ""
