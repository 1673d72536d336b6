"""What several tools share: how they end where something is refused, and a race."""

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

from fastllm.decoding.race import Race
from fastllm.drafters import Drafter
from fastllm.errors import FastLLMError
from fastllm.targets import Target
from fastllm.trace import DecodingConfig, Trace

Given = ParamSpec("Given")


def tool(name: str) -> Callable[[Callable[Given, int]], Callable[Given, int]]:
    """Ends a tool with its message and the exit code 2 where something is refused."""

    def decorate(main: Callable[Given, int]) -> Callable[Given, int]:
        @wraps(main)
        def guarded(*arguments: Given.args, **more: Given.kwargs) -> int:
            try:
                return main(*arguments, **more)
            except FastLLMError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 2

        return guarded

    return decorate


def raced(
    target: Target, drafters: Sequence[Drafter | None], text: str, config: DecodingConfig
) -> list[Trace]:
    """The traces of a race over one article, without statistics."""
    race = Race(target, drafters, text, config, statistics=False)
    for _ in race:
        pass
    return race.traces()
