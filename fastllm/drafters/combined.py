"""Two drafters as one: the first begins a draft, the second goes on where the first stops.

Any two compose, by the name `FIRST+SECOND` or by `CombinedDrafter`, and what is composed composes
again. Every token is drawn by one of the two from its own distribution, given the text and the
tokens before it: row i of q is that of whoever drafted token i, and the text stays exact.

The first one is asked to lead (`draft_length="lead"`): the article lookup then begins only where at
least two words match, and drafts as far as it can, so that `lookup+NAME` asks NAME where the
article does not help; a network drafts only what one call of it gives, so that in `NAME+lookup` the
network says where the text goes, and the lookup copies on from there at no cost.

Example: the article is "the old mill burned down on Friday". `lookup+lstm-after` drafts "burned
down on Friday" after "the old mill", and the LSTM's tokens after "Yesterday the".
`lstm-after+lookup` drafts there one token of the LSTM, say "mill", and then "burned down on
Friday".

Source: Chen et al. 2023, "Cascade Speculative Drafting", arXiv:2312.11462 (there networks of
falling size, the smallest of them statistical, draft later and later positions).
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from fastllm.decoding.proposals import Draft, joined
from fastllm.drafters import Drafter, DrafterSession
from fastllm.errors import VocabularyError
from fastllm.targets import Encoding, Target
from fastllm.trace import DecodingConfig

JOINT = "+"
"""Stands between the names of two drafters."""


class PairDrafter(Drafter):
    """Two drafters on one article.

    Raises:
        VocabularyError: the two were made for different vocabularies.
    """

    def __init__(self, first: Drafter, second: Drafter, name: str) -> None:
        known = [part.vocabulary for part in (first, second) if part.vocabulary]
        if len(set(known)) > 1:
            raise VocabularyError(
                f"{first.name} was made for vocabulary {known[0]}, {second.name} for {known[1]}: "
                "two drafters that compose need the same. Give two of one target."
            )
        self.first, self.second, self.name = first, second, name
        self.vocabulary = known[0] if known else ""

    @property
    def parameters(self) -> int:
        """Of both."""
        return self.first.parameters + self.second.parameters

    def bind(self, target: Target) -> None:
        """Binds both."""
        self.first.bind(target)
        self.second.bind(target)


class PairSession:
    """The sessions of two drafters."""

    def __init__(self, first: DrafterSession, second: DrafterSession) -> None:
        self._first, self._second = first, second

    def accept(self, tokens: Sequence[int]) -> None:
        """Passes on what was added to the text."""
        self._first.accept(tokens)
        self._second.accept(tokens)


class CombinedDrafter(PairDrafter):
    """Two drafters as one.

    Args:
        first: begins every draft, as far as it goes.
        second: goes on where the first one stops, or drafts all where that says nothing.
        name: what to call it; by default the two names, joined.
    """

    def __init__(self, first: Drafter, second: Drafter, *, name: str = "") -> None:
        super().__init__(first, second, name or f"{first.name}{JOINT}{second.name}")

    def save(self, folder: str | Path) -> None:
        """Writes the one that has something to write; both in `first` and `second` if both have."""
        both = bool(self.first.parameters and self.second.parameters)
        self.first.save(Path(folder) / "first" if both else folder)
        self.second.save(Path(folder) / "second" if both else folder)

    def begin(self, encoding: Encoding) -> "CombinedSession":
        """Lets both prepare."""
        first, second = self.first.begin(encoding), self.second.begin(encoding)
        return CombinedSession(first, second, encoding.end_id)


class CombinedSession(PairSession):
    """Two sessions, the first of which begins; `end_id` ends a text."""

    def __init__(self, first: DrafterSession, second: DrafterSession, end_id: int | None) -> None:
        super().__init__(first, second)
        self._end = end_id

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes up to `k` tokens; each of the two draws with uniforms of its own."""
        head = self._first.draft(prefix, k, config.of_length("lead"), uniforms)
        count = len(head.tokens)
        if count == k or (count and head.tokens[-1] == self._end):
            return head
        text = [*prefix, *head.tokens]
        return joined(head, self._second.draft(text, k - count, config, uniforms[count:]))
