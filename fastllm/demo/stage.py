"""What the parts of the page share: the models, the bounds, and what the visitor has chosen."""

import html
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import torch

from fastllm import paths
from fastllm.demo import articles, rows, texts
from fastllm.demo.articles import Checked
from fastllm.demo.engine import Engine
from fastllm.demo.jobs import Order, Work
from fastllm.demo.limits import Limits, Visits, visitor_of
from fastllm.demo.worker import Lines, stream
from fastllm.errors import DataError, FastLLMError, SettingsError
from fastllm.trace import DecodingConfig

SHARED = "static/shared.js"
"""The script that stands before each of the others."""

DEVICE_QUEUE = "device"
"""The queue of all that works on the device: one event at a time, whichever part it is of."""

SETTINGS = rows.SETTINGS
"""The fields of DecodingConfig that have a place in the fold, in its order."""

FEWEST_LANES = 2
"""A race needs somebody to race against."""


@dataclass
class Stage:
    """What a part of the page is built on.

    Attributes:
        engine: the models.
        limits: what a visitor may ask for.
        samples: the sample articles by title.
        article: the box that holds the article.
        lanes: the chosen lanes.
        settings: the components of `SETTINGS`, in that order.
        view: the live view; its value is the rows of a race.
        visits: counts what each visitor begins.
    """

    engine: Engine
    limits: Limits
    samples: Mapping[str, str]
    article: gr.Textbox = field(init=False)
    lanes: gr.CheckboxGroup = field(init=False)
    settings: list[Any] = field(init=False)
    view: gr.HTML = field(init=False)

    def __post_init__(self) -> None:
        self.visits = Visits(self.limits.runs_per_minute)

    def checked(self, article: str) -> Checked:
        """An article fit to race.

        Raises:
            DataError: it is not.
        """
        return articles.check(article, self.limits.article_characters)

    def title_of(self, text: str) -> str:
        """The title of a sample, whose text is given; empty of any other."""
        return next((title for title, known in self.samples.items() if known == text), "")

    def chosen(self, lanes: Sequence[str], fewest: int = FEWEST_LANES) -> tuple[str, ...]:
        """The chosen lanes in the order of the page.

        Raises:
            DataError: one is not offered, or there are too few or too many.
        """
        offered = self.engine.keys
        if not isinstance(lanes, (list, tuple)):  # a program may send anything
            raise DataError(texts.no_list("lanes", lanes, offered))
        for key in lanes:
            if key not in offered:
                raise DataError(texts.unknown_lane(key, offered))
        found = tuple(key for key in offered if key in lanes)
        if len(found) < fewest:
            raise DataError(texts.NO_LANES)
        if len(found) > self.limits.lanes:
            raise DataError(texts.too_many_lanes(self.limits.lanes))
        return found

    def config(
        self,
        gamma: float,
        temperature: float,
        top_p: float,
        seed: float,
        length: float,
        rule: str,
        lenience: float,
    ) -> DecodingConfig:
        """The values of `settings`, checked.

        Raises:
            SettingsError: one is no number where it has to be, or out of range.
        """
        numbers = {"gamma": gamma, "temperature": temperature, "top_p": top_p, "seed": seed}
        for name, value in {**numbers, "length": length, "lenience": lenience}.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise SettingsError(texts.no_number(name, value))
        if not isinstance(rule, str):
            raise SettingsError(texts.no_word("rule", rule, texts.RULES))
        for name, value, most in (
            ("gamma", gamma, self.limits.gamma),
            ("max_new_tokens", length, self.limits.max_new_tokens),
        ):
            if value > most:
                raise SettingsError(
                    f"{name}={value!r} is out of range: this page takes up to {most}."
                )
        return DecodingConfig(
            gamma=_whole(gamma),
            temperature=temperature,
            top_p=top_p,
            seed=_whole(seed),
            max_new_tokens=_whole(length),
            verification=rule,  # type: ignore[arg-type]  # DecodingConfig refuses what it is not
            lenience=lenience if rule == "lenient" else DecodingConfig.lenience,
        )

    def order(self, article: str, lanes: Sequence[str], *settings: Any) -> Order:
        """A race as a visitor, or a program, asked for it.

        Args:
            article: the text.
            lanes: the chosen lanes.
            settings: the values of `settings`.

        Raises:
            DataError: the article or the lanes cannot be raced.
            SettingsError: a setting is no number where it has to be, or out of range.
        """
        checked = self.checked(article)
        return Order(
            article=checked.text,
            lanes=self.chosen(lanes),
            config=self.config(*settings),
            notices=checked.notices,
            title=self.title_of(checked.text),
            seconds=self.limits.seconds_per_run,
        )

    def perform(
        self, request: gr.Request, work: Callable[[], Work], visits: Visits | None = None
    ) -> Iterator[str]:
        """Does a piece of work when its turn comes; yields its rows so far, again and again.

        Args:
            request: of the visitor.
            work: makes it out of what the visitor asked for. What it refuses is not counted.
            visits: what counts it; with the races by default.

        Raises:
            gr.Error: what was wrong, in words for the visitor.
        """

        def begin() -> Lines:
            ready = work()
            return lambda stop: self.engine.lines(ready, stop)

        return self.follow(request, begin, visits)

    def follow(
        self, request: gr.Request, begin: Callable[[], Lines], visits: Visits | None = None
    ) -> Iterator[str]:
        """Like `perform`, for what asks the engine for more than one piece of work.

        Args:
            request: of the visitor.
            begin: gives what to run. What it refuses is not counted.
            visits: what counts it; with the races by default.

        Raises:
            gr.Error: what was wrong, in words for the visitor.
        """
        with self.said():
            lines = begin()
            (self.visits if visits is None else visits).begin(_visitor(request))
            yield from stream(lines)

    @contextmanager
    def said(self) -> Iterator[None]:
        """Turns errors into words that Gradio shows.

        It shows them as markup, and they may name what a visitor typed.
        """
        try:
            yield
        except FastLLMError as error:
            words = html.escape(str(error), quote=False)
            raise gr.Error(words, duration=15, print_exception=False) from error
        except (MemoryError, torch.OutOfMemoryError) as error:
            traceback.print_exc()
            raise gr.Error(texts.NO_MEMORY, duration=15, print_exception=False) from error
        except SystemExit as error:  # Gradio's server would end with it
            traceback.print_exc()
            raise gr.Error(texts.BROKE_OFF, duration=15, print_exception=False) from error


def literal(value: Any) -> str:
    """A value as JavaScript; no text in it can end the script that it stands in."""
    return rows.line(value).strip()


def scripted(name: str, words: Mapping[str, str], **constants: Any) -> str:
    """A script of the page, as a component's `js_on_load`, behind what it is given and `SHARED`.

    Args:
        name: of its file, below `fastllm/demo`.
        words: every sentence that it says; its constant `words`.
        constants: more of them, by name.
    """
    given = {"words": words, **constants}
    lines = "".join(f"const {each} = {literal(value)};\n" for each, value in given.items())
    files = (paths.PAGE / file for file in (SHARED, name))
    return lines + "".join(file.read_text(encoding="utf-8") for file in files)


def paragraph(text: str, kind: str) -> None:
    """Adds a paragraph to the page.

    Args:
        text: shown as it is: a title in it may be an operator's own, and is no markup.
        kind: the class that the style sheet knows it by.
    """
    gr.HTML(
        f'<p class="{kind}">{html.escape(text)}</p>', js_on_load=None, apply_default_css=False
    )


def announce(what: str) -> str:
    """JavaScript that tells the scripts of the page what happened, and passes the inputs on."""
    return (
        f"(...values) => {{ window.dispatchEvent(new Event('fastllm-{what}')); return values; }}"
    )


def _whole(value: float) -> Any:
    """A slider's 5.0 as 5; anything else goes on to be refused by name."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _visitor(request: gr.Request) -> str:
    """Who asks, for the bound on what is begun within a minute."""
    return visitor_of(request.client.host if request.client else None)
