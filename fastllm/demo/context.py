"""What the parts of the page share: the models, the bounds, and what the visitor has chosen."""

import html
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr
import torch

from fastllm.demo import articles, words
from fastllm.demo.articles import Checked
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.settings import words as settings_words
from fastllm.demo.jobs import RaceJob, Work
from fastllm.demo.limits import Limits, Visits, visitor_of
from fastllm.demo.parts import HIDDEN
from fastllm.demo.worker import Lines, stream
from fastllm.errors import DataError, FastLLMError, SettingsError
from fastllm.trace import DecodingConfig
from fastllm.words import echoed

DEVICE_QUEUE = "device"
"""The queue of all work on the device: one event at a time, whichever part of the page sent it."""

FEWEST_LANES = 2
"""A race needs two lanes."""


@dataclass
class PageContext:
    """What every part of the page needs: what is given, and the components that parts add."""

    engine: LocalEngine
    limits: Limits
    samples: Mapping[str, str]  # the sample articles by title
    sample: gr.HTML = field(init=False)  # the choice of the article
    article: gr.Textbox = field(init=False)  # holds it, in the fold after it
    article_fold: gr.Accordion = field(init=False)
    lanes: gr.CheckboxGroup = field(init=False)
    go: gr.Button = field(init=False)
    halt: gr.Button = field(init=False)
    settings: list[Any] = field(init=False)  # one of each of `rows.SETTINGS`, in that order
    view: gr.HTML = field(init=False)  # its value is the rows of a race

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

    def config(self, *settings: Any) -> DecodingConfig:
        """The values of `settings`, checked.

        Raises:
            SettingsError: a value has the wrong type or is out of range.
        """
        gamma, temperature, top_p, seed, length, rule, lenience = settings
        numbers = {"gamma": gamma, "temperature": temperature, "top_p": top_p, "seed": seed}
        for name, value in {**numbers, "length": length, "lenience": lenience}.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise SettingsError(f"{name}={echoed(value, words.QUOTED)}: give a number.")
        if not isinstance(rule, str):
            known = ", ".join(settings_words.RULES)
            raise SettingsError(f"rule={echoed(rule, words.QUOTED)}: give one of {known}.")
        for name, value, most in (
            ("gamma", gamma, self.limits.gamma),
            ("max_new_tokens", length, self.limits.max_new_tokens),
        ):
            if value > most:
                raise SettingsError(
                    f"{name}={echoed(value, words.QUOTED)} is out of range: this page takes up to "
                    f"{most}."
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
        """A race that a visitor or a program asked for, with the values of `settings`.

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
        """Runs the job that `work` makes; yields its rows so far, again and again.

        A refused job is not counted in `visits`, by default those of the races.

        Raises:
            gr.Error: what was wrong, in words for the visitor.
        """
        return self.follow(request, lambda: partial(self.engine.lines, work()), visits)

    def follow(
        self, request: gr.Request, begin: Callable[[], Lines], visits: Visits | None = None
    ) -> Iterator[str]:
        """Like `perform`, for jobs that need the device more than once: `begin` gives the lines."""
        with self.said():
            lines = begin()
            visitor = visitor_of(request.client.host if request.client else None)
            (self.visits if visits is None else visits).begin(visitor)
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

        The scripts hear `fastllm-NAMEgo`, `fastllm-NAMEfailed` and `fastllm-NAMEstop`, where `name`
        is such as "compare-", and empty for the race. Jobs of one `queue` run one after the other.
        Without an `api_name` among the further options the event is no endpoint.

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


def announce(what: str) -> str:
    """JavaScript that tells the scripts of the page what happened, and passes the inputs on."""
    return f"(...values) => {{ window.dispatchEvent(new Event('fastllm-{what}')); return values; }}"


def _whole(value: float) -> Any:
    """A slider's 5.0 as 5; anything else goes on to be refused by name."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
