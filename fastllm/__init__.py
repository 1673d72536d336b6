"""FastLLM: speculative decoding you can watch, and the distillation that makes it pay.

    import fastllm

    trace = fastllm.generate(article)             # the record of a decoding; trace.text
    for step in fastllm.stream(article, gamma=7): # the same while the text grows
        print(step.text, end="")

Importing this package is cheap: no weights, no network, no torch. What is named here is imported
when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastllm.api import Step, generate, stream
    from fastllm.checkpoints import load_drafter, load_target
    from fastllm.errors import FastLLMError, FastLLMWarning
    from fastllm.pretrained import from_pretrained, push_to_hub
    from fastllm.trace import DecodingConfig, Trace

__version__ = "0.1.0"

__all__ = [
    "DecodingConfig",
    "FastLLMError",
    "FastLLMWarning",
    "Step",
    "Trace",
    "__version__",
    "from_pretrained",
    "generate",
    "load_drafter",
    "load_target",
    "push_to_hub",
    "stream",
]

_PLACES = {
    "DecodingConfig": "fastllm.trace",
    "FastLLMError": "fastllm.errors",
    "FastLLMWarning": "fastllm.errors",
    "Step": "fastllm.api",
    "Trace": "fastllm.trace",
    "from_pretrained": "fastllm.pretrained",
    "generate": "fastllm.api",
    "load_drafter": "fastllm.checkpoints",
    "load_target": "fastllm.checkpoints",
    "push_to_hub": "fastllm.pretrained",
    "stream": "fastllm.api",
}
"""Where each public name lives."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'fastllm' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
