"""Targets: the large models whose text speculative decoding reproduces.

A target encodes an article once; any number of sessions then decode from that encoding, each with
a cache of its own. `fastllm.decoding` knows only the contracts in this file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from fastllm.errors import SettingsError
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary


@dataclass(frozen=True)
class Encoding:
    """An article as the target has encoded it, shared by all lanes.

    Attributes:
        source_ids: what the encoder read.
        states: the encoder's output, shape (1, len(source_ids), d).
        seconds: what encoding took; every lane's clock is charged for it.
        features: what drafters may ask for by name.
        end_id: the token that ends the target's texts; None where nobody said.
        memory: what the target's own sessions share of the article, computed once; None where they
            go by the states.
        size: how many logits the target's rows have; None where nobody said.
    """

    source_ids: list[int]
    states: torch.Tensor
    seconds: float
    features: dict[str, Any] = field(default_factory=dict)
    end_id: int | None = None
    memory: Any = None
    size: int | None = None


class TargetSession(Protocol):
    """One decoding in progress: a cache over the decoder's tokens."""

    @property
    def trees(self) -> bool:
        """Whether `forward` takes parents."""

    @property
    def length(self) -> int:
        """How many decoder tokens the cache holds."""

    def forward(self, ids: list[int], parents: Sequence[int] | None = None) -> torch.Tensor:
        """Appends `ids` to the cache; returns the logits behind each, shape (len(ids), V).

        Args:
            ids: a chain, or with `parents` a tree.
            parents: of each id the place in `ids` of the one that it continues, which stands before
                it; -1 for what the cache held before. Each id is read as if nothing but the cache
                and its own ancestors stood before it. After a call that branched comes `keep`.

        Raises:
            SettingsError: parents for a session without `trees`.
        """

    def keep(self, length: int, path: Sequence[int] = ()) -> None:
        """Forgets all but the first `length` tokens, and those at `path`, which move together.

        The path is places behind the first, counted from `length` and ascending.
        """


class Target(Protocol):
    """A model that can score several new tokens in one call.

    Attributes:
        name: what to call it.
        vocabulary: its tokenizer.
        device: where it is.
        start_id: the token that its decoder begins with.
        end_id: the token that ends its texts; where there are several, the first of them.
        end_ids: every token that ends its texts, `end_id` the first.
        pad_id: the token that fills shorter texts of a batch up.
        prefix: put before every article.
        source_length: the most source tokens it reads, the end token included.
        longest_text: the most tokens of a text, the end token included; None for no limit.
        unsupported: what its own generation configuration asks for and FastLLM does not do, each
            as "name=value"; empty for most.
    """

    name: str
    vocabulary: Vocabulary
    device: torch.device
    start_id: int
    end_id: int
    end_ids: tuple[int, ...]
    pad_id: int
    prefix: str
    source_length: int
    longest_text: int | None
    unsupported: tuple[str, ...]

    @property
    def engine(self) -> str:
        """What runs its decoder, in a word or a few; traces name it."""

    @property
    def defaults(self) -> Mapping[str, int]:
        """What its own generation configuration says of `DecodingConfig.LEFT_TO_TARGET`, by name.

        A setting that is not in it is off.
        """

    def encode(self, source_ids: list[int]) -> Encoding:
        """Runs the encoder once."""

    def begin(self, encoding: Encoding) -> TargetSession:
        """A fresh session over an encoded article."""


def resolve(config: DecodingConfig, target: Target) -> DecodingConfig:
    """The settings with the target's own numbers where they are left to it.

    Everything that decodes does this once, so that all lanes obey the same rules.

    Raises:
        SettingsError: the target's generation configuration asks for more than we take, or a text
            may get longer than the target can write.
    """
    own: dict[str, Any] = {
        name: target.defaults.get(name, off)
        for name, off in DecodingConfig.LEFT_TO_TARGET.items()
        if getattr(config, name) is None
    }
    require_positions(target, config.max_new_tokens)
    return replace(config, **own)


def require_positions(target: Target, length: int, name: str = "max_new_tokens") -> None:
    """Refuses a `length` of texts, a setting called `name`, that the target cannot write.

    Raises:
        SettingsError: its decoder has fewer positions.
    """
    longest = target.longest_text
    if longest is not None and length > longest:
        raise SettingsError(
            f"{name}={length}, but the decoder of {target.name} has positions for {longest} "
            f"tokens: give at most {name}={longest}."
        )
