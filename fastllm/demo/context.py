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
from fastllm.demo import articles, rows, words
from fastllm.demo.articles import Checked
from fastllm.demo.engine import Engine
from fastllm.demo.folds.settings import words as settings_words
from fastllm.demo.jobs import RaceJob, Work
from fastllm.demo.limits import Limits, Visits, visitor_of
from fastllm.demo.worker import Lines, stream
from fastllm.errors import DataError, FastLLMError, SettingsError
from fastllm.trace import DecodingConfig

SHARED = "static/shared.js"
"""The script that stands before each of the others."""

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Options of an event that shows no progress and is no endpoint for programs."""

DEVICE_QUEUE = "device"
"""The queue of all work on the device: one event at a time, whichever part of the page sent it."""

SETTINGS = rows.SETTINGS
"""The fields of DecodingConfig that have a place in the fold, in its order."""

FEWEST_LANES = 2
"""A race needs two lanes."""


@dataclass
class PageContext:
    """What every part of the page needs.

    Attributes:
        engine: the models.
        limits: what a visitor may ask for.
        samples: the sample articles by title.
        sample: the choice of the article.
        article: the box that holds it, in the fold `article_fold`.
        lanes: the chosen lanes.
        go: starts a race.
        halt: stops it.
        settings: the components of `SETTINGS`, in that order.
        view: the live view; its value is the rows of a race.
        visits: counts the jobs that each visitor starts.
    """

    engine: Engine
    limits: Limits
    samples: Mapping[str, str]
    sample: gr.Dropdown = field(init=False)
    article: gr.Textbox = field(init=False)
    article_fold: gr.Accordion = field(init=False)
    lanes: gr.CheckboxGroup = field(init=False)
    go: gr.Button = field(init=False)
    halt: gr.Button = field(init=False)
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
        """The title of the sample with this text; empty if there is none."""
        return next((title for title, known in self.samples.items() if known == text), "")

    def chosen(self, lanes: Sequence[str], fewest: int = FEWEST_LANES) -> tuple[str, ...]:
        """The chosen lanes in the order of the page.

        Raises:
            DataError: one is not offered, or there are too few or too many.
        """
        offered = self.engine.keys
        if not isinstance(lanes, (list, tuple)):  # a program may send anything
            raise DataError(words.no_list("lanes", lanes, offered))
        for key in lanes:
            if key not in offered:
                raise DataError(words.unknown_lane(key, offered))
        found = tuple(key for key in offered if key in lanes)
        if len(found) < fewest:
            raise DataError("Choose at least two lanes: a race needs somebody to race against.")
        if len(found) > self.limits.lanes:
            raise DataError(f"Choose at most {self.limits.lanes} lanes.")
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
            SettingsError: a value has the wrong type or is out of range.
        """
        numbers = {"gamma": gamma, "temperature": temperature, "top_p": top_p, "seed": seed}
        for name, value in {**numbers, "length": length, "lenience": lenience}.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise SettingsError(f"{name}={words.quoted(value)}: give a number.")
        if not isinstance(rule, str):
            known = ", ".join(settings_words.RULES)
            raise SettingsError(f"rule={words.quoted(rule)}: give one of {known}.")
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

    def race_job(self, article: str, lanes: Sequence[str], *settings: Any) -> RaceJob:
        """A race that a visitor or a program asked for.

        Args:
            article: the text.
            lanes: the chosen lanes.
            settings: the values of `settings`.

        Raises:
            DataError: the article or the lanes cannot be raced.
            SettingsError: a setting has the wrong type or is out of range.
        """
        checked = self.checked(article)
        return RaceJob(
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
        """Runs one job when its turn comes; yields its rows so far, again and again.

        Args:
            request: of the visitor.
            work: makes the job from what the visitor asked for. A refused job is not counted.
            visits: counts the job; the counter of the races by default.

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
        """Like `perform`, for jobs that need the device more than once: `begin` gives the lines."""
        with self.said():
            lines = begin()
            (self.visits if visits is None else visits).begin(_visitor(request))
            yield from stream(lines)

    def bind(
        self,
        triggers: Sequence[Any],
        halt: gr.Button,
        run: Callable[..., Iterator[Any]],
        inputs: Sequence[Any],
        outputs: Any,
        *,
        name: str,
        queue: str = DEVICE_QUEUE,
        **more: Any,
    ) -> Any:
        """Binds a job to its buttons, and tells the scripts of the page what happens to it.

        The scripts hear `fastllm-NAMEgo`, `fastllm-NAMEfailed` and `fastllm-NAMEstop`.

        Args:
            triggers: events that start the job.
            halt: the button that stops it.
            run: yields the rows so far.
            inputs: the components that `run` reads.
            outputs: the components that it fills.
            name: the prefix of the job's browser events, such as "compare-"; empty for the race.
            queue: jobs of one queue run one after the other.
            more: further options of the event. Without an `api_name` it is no endpoint.

        Returns:
            The event, for a `.success` to be bound to.
        """
        options = HIDDEN | ({"api_visibility": "public"} if "api_name" in more else {}) | more
        running = gr.on(
            triggers,
            run,
            inputs,
            outputs,
            js=announce(f"{name}go"),
            concurrency_id=queue,
            concurrency_limit=1,
            trigger_mode="once",
            **options,
        )
        running.failure(None, js=announce(f"{name}failed"), api_visibility="private")
        halt.click(None, cancels=[running], js=announce(f"{name}stop"), api_visibility="private")
        return running

    @contextmanager
    def said(self) -> Iterator[None]:
        """Turns errors into words that Gradio shows.

        It shows them as markup, and they may name what a visitor typed.
        """
        try:
            yield
        except FastLLMError as error:
            told = html.escape(str(error), quote=False)
            raise gr.Error(told, duration=15, print_exception=False) from error
        except (MemoryError, torch.OutOfMemoryError) as error:
            traceback.print_exc()
            raise gr.Error(words.NO_MEMORY, duration=15, print_exception=False) from error
        except SystemExit as error:  # Gradio's server would end with it
            traceback.print_exc()
            raise gr.Error(words.BROKE_OFF, duration=15, print_exception=False) from error


def literal(value: Any) -> str:
    """A value as JavaScript; no text in it can end the script that it stands in."""
    return rows.line(value).strip()


def scripted(name: str, words: Mapping[str, str], **constants: Any) -> str:
    """A script of the page as a component's `js_on_load`, after its constants and `SHARED`.

    Args:
        name: of its file, below `fastllm/demo`.
        words: every sentence that the script says; its constant `words`.
        constants: more constants, by name.
    """
    given = {"words": words, **constants}
    lines = "".join(f"const {each} = {literal(value)};\n" for each, value in given.items())
    files = (paths.PAGE / file for file in (SHARED, name))
    return lines + "".join(file.read_text(encoding="utf-8") for file in files)


def markup(template: str, **options: Any) -> gr.HTML:
    """Adds fixed HTML to the page. Text of others must never be in it: it is a template."""
    return gr.HTML(html_template=template, js_on_load=None, apply_default_css=False, **options)


def view(kind: str, script: str, value: str = "", **options: Any) -> gr.HTML:
    """Adds an element that a script fills from the component's value.

    Args:
        kind: the class of the element. The template is fixed: no value meets it.
        script: the `js_on_load`.
        value: at first.
        options: of the component.
    """
    template = f'<div class="{kind}"></div>'
    return gr.HTML(
        value, html_template=template, js_on_load=script, apply_default_css=False, **options
    )


def paragraph(text: str, kind: str, **options: Any) -> gr.HTML:
    """Adds a paragraph to the page.

    Args:
        text: shown as it is: a title in it may be an operator's own, and is no markup.
        kind: the class that the style sheet knows it by.
        options: of the component.
    """
    shown = f'<p class="{kind}">{html.escape(text)}</p>'
    return gr.HTML(shown, js_on_load=None, apply_default_css=False, **options)


def announce(what: str) -> str:
    """JavaScript that tells the scripts of the page what happened, and passes the inputs on."""
    return f"(...values) => {{ window.dispatchEvent(new Event('fastllm-{what}')); return values; }}"


def _whole(value: float) -> Any:
    """A slider's 5.0 as 5; anything else goes on to be refused by name."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _visitor(request: gr.Request) -> str:
    """Who asks, for the bound on what is begun within a minute."""
    return visitor_of(request.client.host if request.client else None)
