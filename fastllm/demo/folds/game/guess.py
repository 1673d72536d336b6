"""You be the drafter: the fold in which a visitor plays `fastllm.demo.folds.game.game`.

Its view holds the rows of the last turn, and with them the game: the browser keeps it, and sends it
with the next.
"""

from collections.abc import Iterator

import gradio as gr

from fastllm.demo import texts
from fastllm.demo.folds.game.game import MOST_TYPED, Game, Turn, key_of, rivals_of, words_of
from fastllm.demo.limits import Visits
from fastllm.demo.stage import DEVICE_QUEUE, SETTINGS, Stage, announce, paragraph, scripted
from fastllm.errors import DataError


def add(stage: Stage) -> None:
    """The fold, its components and events."""
    rivals = rivals_of(stage.engine.keys)
    turns = Visits(stage.limits.turns_per_minute, texts.GUESS_TURNS)
    with gr.Accordion(texts.GUESS, open=False, elem_id="fl-game") as fold:
        paragraph(texts.guess_intro(rivals), "fl-game-intro")
        with gr.Row(elem_id="fl-game-board"):
            with gr.Column(scale=5, min_width=300):
                read = gr.Textbox(
                    label=texts.GUESS_ARTICLE,
                    interactive=False,
                    lines=6,
                    max_lines=22,
                    elem_id="fl-game-article",
                )
            with gr.Column(scale=6, min_width=300):
                view = gr.HTML(
                    "",
                    html_template='<div class="fl-game"></div>',
                    js_on_load=scripted("folds/game/guess.js", texts.GUESS_BROWSER),
                    apply_default_css=False,
                    elem_id="fl-game-view",
                )
                with gr.Row(elem_id="fl-game-asked"):
                    typed = gr.Textbox(
                        label=texts.GUESS_FIELD,
                        placeholder=texts.GUESS_PLACEHOLDER,
                        lines=1,
                        max_lines=1,
                        max_length=MOST_TYPED,
                        interactive=True,
                        scale=5,
                        min_width=180,
                        elem_id="fl-game-words",
                    )
                    check = gr.Button(
                        texts.GUESS_CHECK, variant="primary", scale=1, min_width=90,
                        elem_id="fl-game-check",
                    )  # fmt: skip
                with gr.Row(elem_id="fl-game-helpers"):
                    skip = gr.Button(texts.GUESS_SKIP, size="sm", min_width=110)
                    drafter = gr.Button(
                        texts.guess_drafter(rivals), size="sm", min_width=110, visible=bool(rivals)
                    )
                    rest = gr.Button(texts.GUESS_REST, size="sm", min_width=110)
                    halt = gr.Button(
                        texts.STOP, size="sm", min_width=70, elem_id="fl-game-stop"
                    )
                    again = gr.Button(
                        texts.GUESS_AGAIN, size="sm", min_width=90, elem_id="fl-game-again"
                    )
                gr.HTML(
                    html_template='<div class="fl-game-place"></div>',
                    js_on_load=None,
                    apply_default_css=False,
                )
    kinds = {skip._id: "skip", drafter._id: "drafter", rest._id: "rest"}

    def turn(
        words: str,
        sent_back: str,
        article: str,
        gamma: float,
        temperature: float,
        top_p: float,
        seed: float,
        length: float,
        request: gr.Request,
        event: gr.EventData,
    ) -> Iterator[str]:
        kind = kinds.get(getattr(event.target, "_id", -1), "words")
        before = sent_back if isinstance(sent_back, str) else ""

        def work() -> Turn:
            if not isinstance(words, str):  # a program may send anything
                raise DataError(texts.GUESS_NO_WORDS)
            checked = stage.checked(article)
            config = stage.config(gamma, temperature, top_p, seed, length, "auto", 1.0)
            key = key_of(checked.text, config)
            game = Game.read(before, rivals) or Game.fresh(key, rivals)
            if game.key != key:
                raise DataError(texts.GUESS_CHANGED)
            return Turn(
                checked.text,
                config,
                game,
                kind,
                words_of(words) if kind == "words" else (),
                checked.notices,
                stage.limits.seconds_per_run,
            )

        for text in stage.perform(request, work, turns):
            yield text or before  # until the first row is there the game stays in view

    # The rule of verification has no part in the game: whatever is guessed, the text is the same.
    rules = ("verification", "lenience")
    settings = [
        part for name, part in zip(SETTINGS, stage.settings, strict=True) if name not in rules
    ]
    running = gr.on(
        [check.click, typed.submit, skip.click, drafter.click, rest.click],
        turn,
        [typed, view, stage.article, *settings],
        view,
        js=announce("guess"),
        show_progress="hidden",
        concurrency_id=DEVICE_QUEUE,
        concurrency_limit=1,
        trigger_mode="once",
        preprocess=False,
        api_visibility="private",
    )
    running.failure(None, js=announce("guess-failed"), api_visibility="private")
    halt.click(None, cancels=[running], js=announce("guess-stop"), api_visibility="private")
    again.click(
        None,
        None,
        view,
        js=_AGAIN,
        cancels=[running],
        show_progress="hidden",
        api_visibility="private",
    )
    fold.expand(
        None,
        stage.article,
        read,
        js="(article) => article",
        show_progress="hidden",
        api_visibility="private",
    )
    stage.article.change(
        None,
        [stage.article, read, view],
        [read, view],
        js=_ANOTHER,
        show_progress="hidden",
        api_visibility="private",
    )


_AGAIN = "() => { window.dispatchEvent(new Event('fastllm-guess-again')); return ''; }"
"""Empties the game."""

_ANOTHER = "(article, shown, game) => [article, article === shown ? game : '']"
"""Shows another article, of which nothing has been written yet."""
