"""Lookup and a network together, in two ways.

`CombinedDrafter`: what was written in the article for long stretches, and a network elsewhere.

Where the last words stand in the article, word for word and several of them, what follows there is
drafted: that costs microseconds, not a network's steps. Everywhere else the other drafter is asked.
One draft is one drafter's, so q is exactly what its tokens were drawn from: one-hot where the
article was looked up, the network's distribution elsewhere.

Example: with `min_match` 3, the article "the old mill burned down on Friday" and the text "the old
mill", the draft is "burned down on Friday"; after "Yesterday the old" the network drafts.

`AheadSession`: the network drafts, and the lookup guesses what it will say. A network that reads
several tokens in one call reads the whole guess at once, and goes on step by step only from where
it would have said something else. The draft is the network's own, to the last token and number.

Source: Chen et al. 2023, "Cascade Speculative Drafting", arXiv:2312.11462; Spector and Re 2023,
"Staged Speculative Decoding", arXiv:2308.04623 (there each stage is judged by sampling; with the
network's own uniforms at hand, drawing again and comparing is enough, and changes nothing).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastllm.decoding.distributions import drawn, most_likely, ruled_distribution
from fastllm.decoding.proposals import DenseProposal, Draft, OneHotProposal
from fastllm.drafters import Drafter, DrafterSession
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.neural import NeuralSession
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
        return CombinedSession(_lookup(encoding, self.min_match), self.other.begin(encoding))


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


class AheadSession(NeuralSession):
    """A neural drafter at work, a lookup in the article guessing what it will say.

    Args:
        model: the network: a `OneText`, or a `NeuralModel`.
        memory: what it keeps of the article.
        encoding: the article.
    """

    def __init__(self, model: Any, memory: Any, encoding: Encoding) -> None:
        super().__init__(model, memory, encoding.end_id)
        self._lookup = _lookup(encoding, 1)

    @torch.inference_mode()
    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes the tokens that `NeuralSession` would."""
        self._length.begin(config)
        if self._model.drafts:
            found = self._written(prefix, k, config, uniforms)
            if found is not None:
                return found
        text = list(prefix)
        tokens: list[int] = []
        kept: list[torch.Tensor] = []
        rows: list[torch.Tensor] = []
        numbers = uniforms.tolist()
        for position in range(k):
            if self._read[: len(text)] != text:
                left = k - 1 - position
                guess = self._lookup.draft(text, left, config, uniforms).tokens if left else []
                self._catch_up([*text, *guess])
            logits = self._model.logits(self._features[len(text) - 1])
            kept.append(logits)
            banned = self._rules.banned(text, config)
            if config.temperature == 0:
                token = most_likely(logits[None], [banned])[0]
            else:
                rows.append(ruled_distribution(logits[None], [banned], config)[0])
                token = drawn(rows[-1], numbers[position])
            tokens.append(token)
            if position == k - 1 or self._stops(token, kept[-1], config):
                break
            text.append(token)
        q = DenseProposal(torch.stack(rows)) if rows else OneHotProposal(tokens)
        return Draft(tokens, q, lambda position: kept[position].float().softmax(-1))


def _lookup(encoding: Encoding, min_match: int) -> DrafterSession:
    ends = {} if encoding.end_id is None else {"end_id": encoding.end_id}
    return ArticleLookup(min_match, **ends).begin(encoding)
