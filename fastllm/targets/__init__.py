"""Targets: the large models whose text speculative decoding reproduces.

A target encodes an article once; any number of sessions then decode from that encoding, each with
a cache of its own. `fastllm.decoding` knows only the contracts in this file.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from fastllm.vocabulary import Vocabulary


@dataclass(frozen=True)
class Encoding:
    """An article as the target has encoded it, shared by all lanes.

    Attributes:
        source_ids: what the encoder read.
        states: the encoder's output, shape (1, len(source_ids), d).
        seconds: what encoding took; every lane's clock is charged for it.
        features: what drafters may ask for by name.
    """

    source_ids: list[int]
    states: torch.Tensor
    seconds: float
    features: dict[str, Any] = field(default_factory=dict)


class TargetSession(Protocol):
    """One decoding in progress: a cache over the decoder's tokens."""

    @property
    def length(self) -> int:
        """How many decoder tokens the cache holds."""

    def forward(self, ids: list[int]) -> torch.Tensor:
        """Appends `ids` to the cache; returns the logits behind each, shape (len(ids), V)."""

    def rollback(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""


class Target(Protocol):
    """A model that can score several new tokens in one call."""

    name: str
    vocabulary: Vocabulary
    device: torch.device
    start_id: int
    end_id: int
    prefix: str
    source_length: int

    def encode(self, source_ids: list[int]) -> Encoding:
        """Runs the encoder once."""

    def begin(self, encoding: Encoding) -> TargetSession:
        """A fresh session over an encoded article."""
