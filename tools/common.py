"""What several tools share: how they end where something is refused."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from fastllm.errors import FastLLMError

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
