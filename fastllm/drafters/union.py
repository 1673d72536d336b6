"""`X|Y`: two drafters' continuations as branches of one tree, judged in one call of the target.

What both propose alike is one path; where they part, the second's goes on as a branch, so that the
target's next token is missed only if both miss it. Its second drafter must settle its tokens
without a draw, as the article lookup does at any temperature: then the branch is one-hot whatever
the first has drawn, which `fastllm.decoding.trees` needs to stay exact. It costs the target more
rows a call and no further step of a network.

Example: `lstm-after|lookup`; the text is "the old", the LSTM drafts "mill burned on Friday", the
lookup "mill burned down on": the tree is "mill burned", and behind it "on Friday" or "down on".
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fastllm.decoding.proposals import Draft, OneHotProposal, joined
from fastllm.decoding.rules import agreeing
from fastllm.drafters import Drafter
from fastllm.drafters.combined import PairDrafter, PairSession
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig

SIGN = "|"
"""What stands between the names of the two in the name of their union."""


class UnionDrafter(PairDrafter):
    """Two drafters side by side.

    Args:
        first: any.
        second: one that drafts without a draw.
    """

    def __init__(self, first: Drafter, second: Drafter) -> None:
        super().__init__(first, second, first.name + SIGN + second.name)

    def save(self, folder: str | Path) -> None:
        """Writes the first drafter: "|lookup" behind the folder's name loads both."""
        self.first.save(folder)

    def begin(self, encoding: Encoding) -> "UnionSession":
        """Lets both prepare."""
        return UnionSession(self.first.begin(encoding), self.second.begin(encoding))


class UnionSession(PairSession):
    """Two sessions: the first one's chain is the first path of each tree, the other's a branch."""

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes two chains of up to `k` tokens as a tree; one where they are the same.

        Raises:
            SettingsError: the second has drawn its tokens.
        """
        first = self._first.draft(prefix, k, config, uniforms)
        return united(first, self._second.draft(prefix, k, config, uniforms))


def united(first: Draft, second: Draft) -> Draft:
    """Two chains as a tree in which they share what they begin with.

    Raises:
        SettingsError: `first` is a tree, or the q of `second` is no one-hot one.
    """
    if first.parents is not None or not isinstance(second.q, OneHotProposal):
        raise SettingsError(
            "a union takes a chain, and beside it one that was settled without a draw: give the "
            "article lookup as the second drafter, as in lstm-after|lookup."
        )
    shared, count = agreeing(first.tokens, second.tokens), len(first.tokens)
    branch = second.tokens[shared:]
    if not branch:
        return first
    if not first.tokens:
        return second
    parents = (*range(-1, count - 1), shared - 1, *range(count, count + len(branch) - 1))
    return replace(joined(first, Draft(branch, OneHotProposal(branch))), parents=parents)
