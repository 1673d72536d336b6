"""What is raced: the choice of the article and of the lanes, the buttons, and the article's box."""

import gradio as gr

from fastllm.demo import articles
from fastllm.demo.context import FEWEST_LANES, PageContext
from fastllm.demo.folds.choose import words
from fastllm.demo.folds.race.race import default_lanes
from fastllm.demo.folds.race.words import OWN_ARTICLE
from fastllm.demo.parts import HIDDEN, literal, markup, opener, paragraph, select
from fastllm.demo.words import STOP, because, choice_of, size_of


def controls(context: PageContext, first: str) -> None:
    """Adds the choice of the article, at first a sample, and of the lanes, and the buttons."""
    offered, missing = context.engine.keys, context.engine.missing
    with gr.Row(elem_id="fl-controls"):
        titles = [*context.samples, OWN_ARTICLE]
        context.sample = select(
            words.ARTICLE, [(title, title) for title in titles], first, elem_id="fl-sample"
        )
        context.go = gr.Button(words.GO, variant="primary", elem_id="fl-go", min_width=150)
        context.halt = gr.Button(STOP, elem_id="fl-stop", min_width=80)
        more = gr.Button(words.LANES_BUTTON, elem_id="fl-lanes-button", min_width=80)
    with gr.Column(elem_id="fl-lanes"):
        context.lanes = gr.CheckboxGroup(
            [(_labelled(context, key), key) for key in offered],
            value=default_lanes(offered),
            label=words.LANES_LABEL,
            container=False,
        )
        if "lookup" in offered:
            told = [words.LOOKUP, *([words.PRUNED] if "pruned" in offered else [])]
            paragraph(" ".join(told), "fl-lanes-lookup")
        for reason in dict.fromkeys(missing.values()):
            keys = [(choice_of(key), key) for key in missing if missing[key] == reason]
            gr.CheckboxGroup(
                keys, label=because(reason), interactive=False, elem_classes="fl-missing"
            )
    note = markup(
        f'<p role="alert">{words.how_many_lanes(context.limits.lanes)}</p>',
        visible=False,
        elem_id="fl-lanes-note",
    )
    # On a phone the list of lanes takes the screen: there it is folded in behind its button.
    more.click(None, None, js=_FOLD_LANES, **HIDDEN)
    context.lanes.change(
        None,
        context.lanes,
        [note, context.go],
        js=f"(lanes) => {{ const fit = lanes.length >= {FEWEST_LANES}"
        f" && lanes.length <= {context.limits.lanes};"
        " return [{ __type__: 'update', visible: !fit },"
        " { __type__: 'update', interactive: fit }]; }",
        **HIDDEN,
    )


def article(context: PageContext, first: str) -> None:
    """Adds the box of the article, and what changes its text: the samples, and a file.

    In the browser: an answer of the server may come after a click on Go, which would race the
    article before it, or after a paste, which it would undo.
    """
    with gr.Accordion(words.ARTICLE_FOLD, open=False, elem_id="fl-article-fold") as fold:
        context.article = box = gr.Textbox(
            context.samples.get(first, ""),
            label=words.ARTICLE,
            show_label=False,
            placeholder=words.ARTICLE_PLACEHOLDER,
            lines=8,
            max_lines=16,
            elem_id="fl-article",
        )
        opened = opener(
            words.UPLOAD, articles.FILE_TYPES, context.limits.upload_bytes, "fl-article-file"
        )
    context.article_fold = fold

    def read_file(sent: str) -> tuple[str, str]:
        """The file as the article."""
        with context.said():
            text = articles.read_file(sent, articles.FILE_TYPES, context.limits)[1]
        return text.strip(), OWN_ARTICLE

    sample = context.sample
    opened.upload(read_file, opened, [box, sample], **HIDDEN)
    sample.input(None, sample, [box, fold], js=_CHOOSE, **HIDDEN)
    box.change(None, box, sample, js=_TITLE.format(own=literal(OWN_ARTICLE)), **HIDDEN)


def _labelled(context: PageContext, key: str) -> str:
    """A lane and its size: nobody is to take nine million weights for a large model."""
    size = size_of(key, context.engine.about["target"])
    return f"{choice_of(key)} · {size}" if size else choice_of(key)


_CHOOSE = (
    "(title) => { const samples = window.fastllmSamples; "
    "const known = Object.hasOwn(samples, title); "
    "return [known ? samples[title] : '', { __type__: 'update', open: !known }]; }"
)
"""Puts a sample into the box, or opens the box for an article of one's own."""

_TITLE = (
    "(text) => (Object.entries(window.fastllmSamples).find(([, known]) => known === text) "
    "?? [{own}])[0]"
)
"""Has the select say whose article is in the box: of a sample, or one of one's own."""

_FOLD_LANES = "() => { document.getElementById('fl-lanes').classList.toggle('fl-open'); }"
