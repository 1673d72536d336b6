"""Endpoints with typed answers for programs: a race, and a comparison.

The page itself reads growing text (the endpoint `/race`). Here the last value of an endpoint is a
JSON object; until then it gives None, again and again, so that a program that leaves is noticed.
"""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import api

from fastllm.demo import rows
from fastllm.demo.articles import check_all
from fastllm.demo.context import DEVICE_QUEUE, PageContext
from fastllm.demo.folds.compare import compare
from fastllm.demo.worker import Lines
from fastllm.trace import DecodingConfig

DEFAULTS = DecodingConfig()


def add(context: PageContext) -> None:
    """The endpoints `/result` and `/compare`; nothing that is seen.

    Both take the settings of the page by the names of its endpoint `/race`; what is left out has
    the page's default, and `lanes` those that the page has chosen at first.
    """
    usual: list[str] = list(context.lanes.value or [])

    def result(
        request: gr.Request,
        article: str,
        lanes: list[str] | None = None,
        gamma: float = DEFAULTS.gamma,
        temperature: float = DEFAULTS.temperature,
        top_p: float = DEFAULTS.top_p,
        seed: float = DEFAULTS.seed,
        length: float = DEFAULTS.max_new_tokens,
        rule: str = DEFAULTS.verification,
        lenience: float = DEFAULTS.lenience,
    ) -> Iterator[dict[str, Any] | None]:
        """Races an article: every lane's text, token by token, and what each token was."""
        values = (gamma, temperature, top_p, seed, length, rule, lenience)
        chosen = usual if lanes is None else lanes
        text = ""
        for so_far in context.perform(request, lambda: context.race_job(article, chosen, *values)):
            text = so_far
            yield None
        with context.said():
            yield rows.result_of(text)

    def comparison(
        request: gr.Request,
        articles: list[str],
        lanes: list[str] | None = None,
        gamma: float = DEFAULTS.gamma,
        temperature: float = DEFAULTS.temperature,
        top_p: float = DEFAULTS.top_p,
        seed: float = DEFAULTS.seed,
        length: float = DEFAULTS.max_new_tokens,
        rule: str = DEFAULTS.verification,
        lenience: float = DEFAULTS.lenience,
    ) -> Iterator[dict[str, Any] | None]:
        """Compares the lanes over several articles: counts, estimates and 95 % intervals."""

        def begin() -> Lines:
            found = compare.numbered(check_all(articles, context.limits))
            config = context.config(gamma, temperature, top_p, seed, length, rule, lenience)
            ready = compare.plan(context, found, usual if lanes is None else lanes, config)
            return partial(ready.lines, context.engine)

        text = ""
        for so_far in context.follow(request, begin):
            text = so_far
            yield None
        yield compare.result_of([json.loads(line) for line in text.splitlines()])

    api(result, api_name="result", concurrency_id=DEVICE_QUEUE, concurrency_limit=1)
    api(comparison, api_name="compare", concurrency_id=compare.COMPARE_QUEUE, concurrency_limit=1)
