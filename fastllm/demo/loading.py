"""What keeps the page from racing: models that are still being loaded, or could not be."""

from typing import Any

import gradio as gr

from fastllm import paths
from fastllm.demo import texts
from fastllm.demo.engine import Engine
from fastllm.demo.stage import Stage

SCRIPT = paths.PAGE / "static" / "loading.js"

LOOK_SECONDS = 1.0
"""How often a page that waits for the models asks how far they are."""


def add(stage: Stage) -> None:
    """Adds the banner: empty, and nothing is asked of the server again, once the models are there.

    Args:
        stage: of the page; its engine loads while the page is already served.
    """
    banner = gr.HTML(
        "",
        html_template='<p class="fl-state" role="status" hidden></p>',
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="fl-state",
    )
    clock = gr.Timer(LOOK_SECONDS, active=False)

    def look() -> list[Any]:
        return [said(stage.engine), gr.Timer(active=bool(stage.engine.loading))]

    gr.on(None, look, None, [banner, clock], **_UNSEEN)  # whenever the page is opened
    clock.tick(look, None, [banner, clock], **_UNSEEN)


_UNSEEN: dict[str, Any] = {
    "queue": False, "show_progress": "hidden", "api_visibility": "private",
}  # fmt: skip


def said(engine: Engine) -> str:
    """What the banner says; empty where races can be run.

    Args:
        engine: the models.
    """
    if engine.failure:
        return texts.no_race(engine.failure)
    return texts.still_loading(engine.loading) if engine.loading else ""
