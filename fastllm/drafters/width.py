"""A drafter with another number of logits than its target, over the same pieces.

Embeddings are padded to round sizes: google-t5/t5-small has 32,128 rows for 32,100 pieces, others
of the family were cut to 32,100. A trained model never writes the ids after the pieces, but a
drafter may say them, and its q has as many entries as it has rows.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from fastllm.decoding.proposals import DenseProposal, Draft, OneHotProposal, Proposal
from fastllm.drafters import DrafterSession
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig


def fitted(session: DrafterSession, size: int, encoding: Encoding) -> DrafterSession:
    """A session of a drafter of `size` logits, whose drafts have as many as the target."""
    if encoding.size is None or encoding.size == size:
        return session
    return FittedSession(session, size, encoding.size)


class FittedSession:
    """Cuts the drafts of another session to the target's logits, or pads them.

    A draft ends before a token that the target does not have. With q the drafter's distribution
    without these tokens, scaled to sum to 1, the text stays the target's own: a token is drawn from
    q, or, by a chance that the tokens before it decide, none is.
    """

    def __init__(self, session: DrafterSession, own: int, size: int) -> None:
        self._session, self._own, self._size = session, own, size

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes up to `k` tokens that the target has."""
        found = self._session.draft(self._known(prefix), k, config, uniforms)
        tokens = found.tokens
        count = next((at for at, token in enumerate(tokens) if token >= self._size), len(tokens))
        q: Proposal = OneHotProposal(tokens[:count])
        if isinstance(found.q, DenseProposal):
            rows = self._fit(found.q.rows[:count])
            q = DenseProposal(rows / rows.sum(-1, keepdim=True))
        raw, parents = found.unwarped, found.parents

        def unwarped(at: int) -> torch.Tensor | None:
            row = None if raw is None else raw(at)
            return None if row is None else self._fit(row)

        return Draft(tokens[:count], q, unwarped, None if parents is None else parents[:count])

    def accept(self, tokens: Sequence[int]) -> None:
        """Passes on what was added to the text."""
        self._session.accept(self._known(tokens))

    def _known(self, tokens: Sequence[int]) -> list[int]:
        """The tokens as the drafter reads them: 0 for what it does not have."""
        return [token if token < self._own else 0 for token in tokens]

    def _fit(self, rows: torch.Tensor) -> torch.Tensor:
        """Probabilities (..., own) to (..., size)."""
        return functional.pad(rows, (0, self._size - self._own))
