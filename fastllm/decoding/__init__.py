"""Decoding: the loops, races of several, what a target never writes, and the verdict on a draft.

What is named here is imported when it is first used: the contracts of targets and drafters, which
the loops rest on, themselves need modules of this room.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastllm.decoding.race import Race
    from fastllm.decoding.rounds import autoregress, speculate

__all__ = ["Race", "autoregress", "speculate"]

_PLACES = {
    "Race": "fastllm.decoding.race",
    "autoregress": "fastllm.decoding.rounds",
    "speculate": "fastllm.decoding.rounds",
}
"""Where each name lives."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'fastllm.decoding' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
