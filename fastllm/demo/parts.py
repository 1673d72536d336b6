"""Components that the page is made of: fixed HTML, views that a script fills, inputs of its own."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from fastllm import paths
from fastllm.demo import rows, words

SHARED = "static/shared.js"
"""The script that stands before each of the others."""

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Options of an event that shows no progress and is no endpoint for programs."""


def literal(value: Any) -> str:
    """A value as JavaScript; no text in it can end the script that it stands in."""
    return rows.line(value).strip()


def scripted(name: str, words: Mapping[str, str], **constants: Any) -> str:
    """A script of the page, by its file below `fastllm/demo`, as a component's `js_on_load`.

    Before it stand `SHARED`, the constants, and `words`: every sentence that the script says.
    """
    given = {"words": words, **constants}
    lines = "".join(f"const {each} = {literal(value)};\n" for each, value in given.items())
    files = (paths.PAGE / file for file in (SHARED, name))
    return lines + "".join(file.read_text(encoding="utf-8") for file in files)


def markup(template: str, **options: Any) -> gr.HTML:
    """Adds fixed HTML to the page. Text of others must never be in it: it is a template."""
    return gr.HTML(html_template=template, js_on_load=None, apply_default_css=False, **options)


def shown(value: str, **options: Any) -> gr.HTML:
    """Adds HTML as a value, which is no template: text of others may be in it, escaped."""
    return gr.HTML(value, js_on_load=None, apply_default_css=False, **options)


def heading(text: str) -> gr.HTML:
    """Adds a heading of the second level, a constant of the page."""
    return markup(f'<h2 class="fl-heading">{html.escape(text)}</h2>')


def paragraph(text: str, kind: str, **options: Any) -> gr.HTML:
    """Adds a paragraph that shows its text as it is, with a class of the style sheet."""
    return shown(f'<p class="{kind}">{html.escape(text)}</p>', **options)


def view(kind: str, script: str, value: str = "", **options: Any) -> gr.HTML:
    """Adds an element with a class, which a script fills from the component's value."""
    return _filled(f'<div class="{kind}"></div>', script, value, **options)


def select(
    label: str, choices: Sequence[tuple[str, str]], value: str, *, info: str = "", **options: Any
) -> gr.HTML:
    """Adds a native select; its value is the one chosen, its event `input`.

    `gr.Dropdown` keeps its list open over what is below when it is left by Tab.

    `choices` are pairs of text and value; `info` is what more there is to say, below the label.
    """
    more = f'<span class="fl-soft">{html.escape(info)}</span>' if info else ""
    template = (
        f'<label class="fl-select"><span>{html.escape(label)}</span>{more}<select></select></label>'
    )
    script = scripted("static/select.js", {}, choices=[[key, text] for text, key in choices])
    return _filled(template, script, value, **options)


def opener(label: str, types: tuple[str, ...], most_bytes: int, elem_id: str) -> gr.HTML:
    """Adds a button that opens a file, of one of these endings, no larger than so many bytes.

    Its value is what `articles.read_file` takes, its event `upload`. `gr.UploadButton` would write
    the file to a disk here, and would take larger ones from anybody.
    """
    template = (
        f'<label class="fl-upload"><input type="file" accept="{",".join(types)}">'
        f'<span>{html.escape(label)}</span></label><span class="fl-upload-told" role="status">'
        "</span>"
    )
    script = scripted("static/upload.js", words.UPLOAD_BROWSER, most=most_bytes)
    return _filled(template, script, "", elem_id=elem_id)


def table(header: Sequence[str], body: Sequence[Sequence[str]], label: str, kind: str) -> str:
    """A table of HTML cells, the first of each row its title; `label` is text, `kind` its class."""
    head = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in header)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in body
    )
    return (
        f'<div class="fl-scroll" tabindex="0" role="group" aria-label="{html.escape(label)}">'
        f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _filled(template: str, script: str, value: str, **options: Any) -> gr.HTML:
    return gr.HTML(
        value, html_template=template, js_on_load=script, apply_default_css=False, **options
    )
