"""A file that a visitor opens: its bytes come as a value of the page, and never lie on a disk here.

Gradio's own upload would write it to one, and would have to take larger files from anybody.
"""

import html

import gradio as gr

from fastllm.demo import texts
from fastllm.demo.stage import scripted


def opener(label: str, types: tuple[str, ...], most_bytes: int, elem_id: str) -> gr.HTML:
    """A button that opens a file; its value is what `articles.read_file` takes.

    Its event `upload` comes when a file was read.

    Args:
        label: on the button.
        types: the endings that are taken, such as ".txt".
        most_bytes: no more than one byte beyond is sent.
        elem_id: in the page.
    """
    return gr.HTML(
        "",
        html_template=f'<label class="fl-upload"><input type="file" accept="{",".join(types)}">'
        f"<span>{html.escape(label)}</span></label>"
        '<span class="fl-upload-told" role="status"></span>',
        js_on_load=scripted("static/upload.js", texts.UPLOAD_BROWSER, most=most_bytes),
        apply_default_css=False,
        elem_id=elem_id,
    )
