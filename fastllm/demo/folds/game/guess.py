"""You be the drafter: the fold in which a visitor plays `fastllm.demo.folds.game.game`.

Its view holds the rows of the last turn, and with them the game: the browser keeps it, and sends it
with the next.
"""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from fastllm.demo.context import PageContext
from fastllm.demo.folds.game import words
from fastllm.demo.folds.game.game import MOST_TYPED, Game, Turn, key_of, rivals_of, words_of
from fastllm.demo.limits import Visits
from fastllm.demo.parts import HIDDEN, heading, markup, paragraph, scripted, select, view
from fastllm.demo.words import STOP, title_of
from fastllm.errors import DataError


def add(context: PageContext, tab: gr.Tab) -> None:
    """The game, its components and events, in its tab."""
    rivals = rivals_of(context.engine.keys)
    turns = Visits(context.limits.turns_per_minute, words.TURNS)
    heading(words.TITLE)
    with gr.Column(elem_id="fl-game"):
        paragraph(words.intro(rivals), "fl-game-intro")
        # Not the sample whose summary the race shows; nor later on, see `_OPEN`.
        first = next((t for t in context.samples if t != context.sample.value), words.RACED)
        titles = [*context.samples, words.RACED]
        chosen = select(
            words.ARTICLE, [(title, title) for title in titles], first, elem_id="fl-game-sample"
        )
        with gr.Row(elem_id="fl-game-board"):
            with gr.Column(scale=5, min_width=300):
                read = gr.Textbox(
                    context.samples.get(first, ""),
                    label=words.TEXT,
                    interactive=False,
                    lines=6,
                    max_lines=22,
                    elem_id="fl-game-article",
                )
            with gr.Column(scale=6, min_width=300):
                board = view(
                    "fl-game",
                    scripted("folds/game/guess.js", words.BROWSER),
                    elem_id="fl-game-view",
                )
                with gr.Row(elem_id="fl-game-asked"):
                    typed = gr.Textbox(
                        label=words.FIELD,
                        placeholder=words.PLACEHOLDER,
                        lines=1,
                        max_lines=1,
                        max_length=MOST_TYPED,
                        interactive=True,
                        scale=5,
                        min_width=180,
                        elem_id="fl-game-words",
                    )
                    check = gr.Button(
                        words.CHECK, variant="primary", scale=1, min_width=90,
                        elem_id="fl-game-check",
                    )  # fmt: skip
                with gr.Row(elem_id="fl-game-helpers"):
                    skip = gr.Button(words.SKIP, size="sm", min_width=110)
                    drafter = gr.Button(
                        words.LET_GUESS.format(title_of(rivals[0]) if rivals else ""),
                        size="sm",
                        min_width=110,
                        visible=bool(rivals),
                    )
                    rest = gr.Button(words.REST, size="sm", min_width=110)
                    halt = gr.Button(STOP, size="sm", min_width=70, elem_id="fl-game-stop")
                    again = gr.Button(words.AGAIN, size="sm", min_width=90, elem_id="fl-game-again")
                markup('<div class="fl-game-place"></div>')
    kinds = {skip._id: "skip", drafter._id: "drafter", rest._id: "rest"}

    def turn(
        request: gr.Request,
        event: gr.EventData,
        guess: str,
        sent_back: str,
        article: str,
        *settings: Any,
    ) -> Iterator[str]:
        """Plays a turn; yields its rows so far, again and again."""
        kind = kinds.get(event.target._id, "words") if event.target else "words"
        before = sent_back if isinstance(sent_back, str) else ""

        def work() -> Turn:
            if not isinstance(guess, str):  # a program may send anything
                raise DataError(words.NO_WORDS)
            checked = context.checked(article)
            config = context.config(*settings, *_RULE)
            key = key_of(checked.text, config)
            game = Game.read(before, rivals) or Game.fresh(key, rivals)
            if game.key != key:
                raise DataError(words.CHANGED)
            return Turn(
                checked.text,
                config,
                game,
                kind,
                words_of(guess) if kind == "words" else (),
                checked.notices,
                context.limits.seconds_per_run,
            )

        for text in context.perform(request, work, turns):
            yield text or before  # until the first row is there the game stays in view

    running = context.bind(
        [check.click, typed.submit, skip.click, drafter.click, rest.click],
        halt,
        turn,
        [typed, board, read, *context.settings[: -len(_RULE)]],
        board,
        name="guess-",
        preprocess=False,
    )
    again.click(None, None, board, js=_AGAIN, cancels=[running], **HIDDEN)
    shown = [read, board]
    for happens in (chosen.input, context.article.change):
        happens(None, [chosen, context.article, *shown], shown, js=_SHOW, **HIDDEN)
    tab.select(
        None,
        [chosen, context.sample, context.article, *shown],
        [chosen, *shown],
        js=_OPEN,
        **HIDDEN,
    )


_RULE: tuple[Any, ...] = ("auto", 1.0)
"""The last two settings, verification and lenience. They have no part in the game: whatever is
guessed, the text is the same."""

_AGAIN = "() => { window.dispatchEvent(new Event('fastllm-guess-again')); return ''; }"
"""Empties the game."""

_SHOW = (
    "(title, raced, shown, game) => { const text = window.fastllmSamples[title] ?? raced; "
    "return [text, text === shown ? game : '']; }"
)
"""Shows the chosen article; of another one nothing has been written yet."""

_OPEN = (
    "(title, racing, raced, shown, game) => { const titles = Object.keys(window.fastllmSamples); "
    "if (!game && title === racing && titles.length > 1) "
    "title = titles[(titles.indexOf(title) + 1) % titles.length]; "
    "const text = window.fastllmSamples[title] ?? raced; "
    "return [title, text, text === shown ? game : '']; }"
)
"""As `_SHOW`, but a game begins with another sample than the race shows: its summary is read."""
