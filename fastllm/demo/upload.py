"""A button that opens a file, which comes as a value of the page and never lies on a disk here.

`gr.UploadButton` would write it to one, and would take larger files from anybody.
"""

import html

import gradio as gr

from fastllm.demo import words
from fastllm.demo.context import scripted


def opener(label: str, types: tuple[str, ...], most_bytes: int, elem_id: str) -> gr.HTML:
    """Adds the button; its value is what `articles.read_file` takes, its event `upload`.

    Args:
        label: on the button.
        types: the endings that are taken, such as ".txt".
        most_bytes: larger files are not sent.
        elem_id: in the page.
    """
    return gr.HTML(
        "",
        html_template=f'<label class="fl-upload"><input type="file" accept="{",".join(types)}">'
        f"<span>{html.escape(label)}</span></label>"
        '<span class="fl-upload-told" role="status"></span>',
        js_on_load=scripted("static/upload.js", words.UPLOAD_BROWSER, most=most_bytes),
        apply_default_css=False,
        elem_id=elem_id,
    )
