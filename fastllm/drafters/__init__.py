"""Drafters: the cheap models that propose tokens. One file a family.

A drafter prepares for an article once (`begin`) and is then asked each round for a draft. It never
changes the text, only how fast the text comes: `fastllm.decoding.sampling.verify` sees to
that, provided that a draft's q is exactly the distribution its tokens were drawn from.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import torch

from fastllm.decoding.sampling import Draft
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig


class DrafterSession(Protocol):
    """A drafter at work on one article."""

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes up to `k` tokens.

        Args:
            prefix: the start token and everything written so far.
            k: the most tokens to propose, at least 1. Fewer, or none, is allowed.
            config: temperature and filters, to be applied to q as the target applies them to p.
            uniforms: k float64 numbers in [0, 1), on the CPU, for the drafter's draws.
        """

    def accept(self, tokens: Sequence[int]) -> None:
        """Told after each round which tokens were added to the text."""


class Drafter(Protocol):
    """A drafter before it has seen an article.

    Attributes:
        name: unique and human-readable.
        vocabulary: the fingerprint of the vocabulary it was made for; empty if any will do.
    """

    name: str
    vocabulary: str

    def begin(self, encoding: Encoding) -> DrafterSession:
        """Prepares for an article (its `source_ids`, and what else the target offers)."""


DRAFTERS = {
    "lookup": "fastllm.drafters.lookup:ArticleLookup",
    "ngram": "fastllm.drafters.ngram:NgramDrafter",
    "lstm": "fastllm.drafters.lstm:LstmDrafter",
    "cnn": "fastllm.drafters.cnn:CnnDrafter",
    "t5": "fastllm.drafters.t5:T5Drafter",
    "shared": "fastllm.drafters.shared:SharedDrafter",
}
"""The families by name: where each class lives. Imported when asked for."""

NEURAL = ("lstm", "cnn", "t5")
"""The families that are trained by gradient; their classes have `fresh`."""

BOUND = ("shared",)
"""Likewise, and made from parts of one target: their `fresh` takes it as `target=`."""


def drafter_class(family: str) -> Any:
    """The class of a family; all but "lookup" have `load(folder, device=...)` and `save`."""
    module, name = DRAFTERS[family].split(":")
    return getattr(import_module(module), name)
