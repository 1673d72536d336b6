"""Article lookup first, another drafter elsewhere.

Where the last words stand in the article, word for word and several of them, what follows there is
drafted: that costs microseconds, not a network's steps. Everywhere else the other drafter is asked.
One draft is one drafter's, so q is exactly what its tokens were drawn from: one-hot where the
article was looked up, the network's distribution elsewhere.

Example: with `min_match` 2, the article "the old mill burned down on Friday" and the text "the old
mill", the draft is "burned down on Friday"; after "Yesterday the" the network drafts.

Source: Chen et al. 2023, "Cascade Speculative Drafting", arXiv:2312.11462.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from fastllm.decoding.proposals import Draft
from fastllm.drafters import Drafter, DrafterSession
from fastllm.drafters.lookup import ArticleLookup
from fastllm.targets import Encoding, Target
from fastllm.trace import DecodingConfig

PREFIX = "lookup+"
"""What the name of a combined drafter begins with, before the name of the other one."""

MIN_MATCH = 2
"""Tokens that must match before the article is asked instead of the network. Measured with a
distilled LSTM on held-out articles, greedy, gamma 5: 470 calls of the target with any number from 2
to 4, 465 with 5, 462 with the network alone; with 2 the lookup writes 292 of the 470 drafts, with 5
only 247, and a looked-up draft is all but free."""


class CombinedDrafter(Drafter):
    """Article lookup where its match is long, another drafter elsewhere.

    Args:
        other: the drafter for all other places.
        min_match: the fewest tokens that must match in the article, or earlier in the text.

    Raises:
        SettingsError: `min_match` is below 1.
    """

    def __init__(self, other: Drafter, min_match: int = MIN_MATCH) -> None:
        ArticleLookup(min_match)  # refuses what is out of range, now and not at the first article
        self.other = other
        self.min_match = min_match
        self.name = PREFIX + other.name
        self.vocabulary = other.vocabulary

    @property
    def parameters(self) -> int:
        """The other drafter's: the lookup has none."""
        return self.other.parameters

    def bind(self, target: Target) -> None:
        """Binds the other drafter."""
        self.other.bind(target)

    def save(self, folder: str | Path) -> None:
        """Writes the other drafter: "lookup+" before the folder's name loads both."""
        self.other.save(folder)

    def begin(self, encoding: Encoding) -> "CombinedSession":
        """Indexes the article, and lets the other drafter prepare."""
        lookup = ArticleLookup(self.min_match).begin(encoding)
        return CombinedSession(lookup, self.other.begin(encoding))


class CombinedSession:
    """Two sessions on one article.

    Args:
        lookup: asked first.
        other: asked where the first has nothing to say.
    """

    def __init__(self, lookup: DrafterSession, other: DrafterSession) -> None:
        self._lookup = lookup
        self._other = other

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes up to `k` tokens, all of them from one of the two."""
        found = self._lookup.draft(prefix, k, config, uniforms)
        return found if found.tokens else self._other.draft(prefix, k, config, uniforms)

    def accept(self, tokens: Sequence[int]) -> None:
        """Passes on what was added to the text."""
        self._lookup.accept(tokens)
        self._other.accept(tokens)
