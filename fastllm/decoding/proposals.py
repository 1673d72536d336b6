"""What a drafter proposes: tokens, and the distributions that they were drawn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from fastllm.decoding.distributions import on_cuda
from fastllm.errors import VocabularyError


@dataclass(frozen=True)
class DenseProposal:
    """The distributions of a draft as full rows: `rows` of shape (k, V)."""

    rows: torch.Tensor

    def require(self, size: int) -> None:
        """Refuses a target with another number of logits, V, than the drafter has.

        Raises:
            VocabularyError: names both numbers.
        """
        if self.rows.shape[-1] != size:
            raise VocabularyError(
                f"the drafter has {self.rows.shape[-1]} logits, the target {size}: it was made for "
                "another vocabulary size. Train it with as many tokens as the target has logits."
            )

    @cached_property
    def _host(self) -> np.ndarray:
        """The rows on the host."""
        found: np.ndarray = self.rows.cpu().numpy()
        return found

    def chances(self, tokens: Sequence[int]) -> list[float]:
        """The probability of each drafted token, on the host."""
        return [float(self._host[place, token]) for place, token in enumerate(tokens)]

    def residual(self, position: int, row: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """max(scale p - q, 0) at one position, p being `row`, and the scale at most 1: all (V,)."""
        scaled = row if scale == 1 else row * scale
        left: np.ndarray = scaled - self._host[position]
        np.maximum(left, 0.0, out=left)
        return left

    def residual_mass(self, position: int, row: np.ndarray, scale: float = 1.0) -> float:
        """The sum of `residual`, of the same arguments."""
        return float(self.residual(position, row, scale).sum())

    def row(self, position: int, size: int) -> torch.Tensor:
        """The distribution at one position, shape (V,)."""
        return self.rows[position]

    def dense(self, count: int, size: int) -> torch.Tensor:
        """The distributions at the first positions, shape (count, V)."""
        return self.rows[:count]

    def select(self, positions: Sequence[int]) -> "DenseProposal":
        """The distributions at these positions alone."""
        if list(positions) == list(range(len(positions))):  # a copy would be for nothing
            return DenseProposal(self.rows[: len(positions)])
        return DenseProposal(self.rows[list(positions)])


@dataclass(frozen=True)
class OneHotProposal:
    """A deterministic draft: each token had probability 1, whatever the drafter's confidence.

    `tokens` are ids, a list or shape (k,).
    """

    tokens: torch.Tensor | Sequence[int]

    @cached_property
    def _ids(self) -> Sequence[int]:
        """The tokens on the host."""
        return self.tokens.tolist() if isinstance(self.tokens, torch.Tensor) else self.tokens

    def require(self, size: int) -> None:
        """Fits any number of logits."""

    def chances(self, tokens: Sequence[int]) -> list[float]:
        """Ones, one for each drafted token."""
        return [1.0] * len(tokens)

    def residual(self, position: int, row: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """max(scale p - q, 0) at one position, shape (V,), as `DenseProposal.residual`."""
        left = row.copy() if scale == 1 else row * scale
        left[self._ids[position]] = 0.0
        return left

    def residual_mass(self, position: int, row: np.ndarray, scale: float = 1.0) -> float:
        """The sum of `residual`, p summing to 1."""
        return scale * (1.0 - float(row[self._ids[position]]))

    def row(self, position: int, size: int) -> torch.Tensor:
        """The one-hot distribution at one position, shape (V,)."""
        row = torch.zeros(size)
        row[self._ids[position]] = 1.0
        return row

    def dense(self, count: int, size: int) -> torch.Tensor:
        """The one-hot distributions at the first positions, shape (count, V)."""
        tokens = torch.as_tensor(self.tokens, dtype=torch.long)
        rows = torch.zeros(count, size, device=tokens.device)
        return rows.scatter_(1, tokens[:count, None], 1.0)

    def select(self, positions: Sequence[int]) -> "OneHotProposal":
        """The distributions at these positions alone."""
        return OneHotProposal([self._ids[position] for position in positions])


@dataclass(frozen=True)
class JoinedProposal:
    """The distributions of a draft of two drafters: first `count` rows, then the second's."""

    first: "Proposal"
    second: "Proposal"
    count: int

    def _at(self, position: int) -> tuple["Proposal", int]:
        """Whose row is at a position, and where in its own draft."""
        own = position - self.count
        return (self.first, position) if own < 0 else (self.second, own)

    def require(self, size: int) -> None:
        """Refuses a target with another number of logits, as `DenseProposal.require`."""
        self.first.require(size)
        self.second.require(size)

    def chances(self, tokens: Sequence[int]) -> list[float]:
        """The probability of each drafted token, on the host."""
        head = self.first.chances(tokens[: self.count])
        return head + self.second.chances(tokens[self.count :])

    def residual(self, position: int, row: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """max(scale p - q, 0) at one position, shape (V,), as `DenseProposal.residual`."""
        part, own = self._at(position)
        return part.residual(own, row, scale)

    def residual_mass(self, position: int, row: np.ndarray, scale: float = 1.0) -> float:
        """The sum of `residual`, of the same arguments."""
        part, own = self._at(position)
        return part.residual_mass(own, row, scale)

    def row(self, position: int, size: int) -> torch.Tensor:
        """The distribution at one position, shape (V,)."""
        part, own = self._at(position)
        return part.row(own, size)

    def dense(self, count: int, size: int) -> torch.Tensor:
        """The distributions at the first positions, shape (count, V), where the first part is."""
        head = self.first.dense(min(count, self.count), size)
        tail = self.second.dense(max(0, count - self.count), size)
        return torch.cat([head, tail.to(head.device)])

    def select(self, positions: Sequence[int]) -> "JoinedProposal":
        """The distributions at these positions alone, which ascend."""
        head = [position for position in positions if position < self.count]
        tail = [position - self.count for position in positions[len(head) :]]
        return JoinedProposal(self.first.select(head), self.second.select(tail), len(head))


Proposal = DenseProposal | OneHotProposal | JoinedProposal
"""The distributions of a draft: full rows, one-hot ones, or those of two drafters."""


@dataclass(frozen=True)
class Draft:
    """What a drafter proposes: a chain of tokens, or a tree of them.

    Attributes:
        tokens: the drafted ids, at most gamma of a chain, possibly none.
        q: exactly the distributions the tokens were drawn from. The first row belongs to the first
            token, each later one to the position after the drafted tokens before it. In a tree the
            row of a token is what it was drawn from given its elder siblings.
        unwarped: position -> the drafter's distribution there at temperature 1 without filters,
            shape (V,), or None where there is none. For display alone, and called off the clock.
        parents: of each token the place of the one that it continues, which stands before it; -1
            for the text itself. Siblings are judged in their order. None: a chain. See
            `fastllm.decoding.trees`.
    """

    tokens: list[int]
    q: Proposal
    unwarped: Callable[[int], torch.Tensor | None] | None = None
    parents: tuple[int, ...] | None = None

    @cached_property
    def chances(self) -> list[float]:
        """The drafter's probability of each drafted token, on the host."""
        return self.q.chances(self.tokens)

    def up_to(self, count: int) -> "Draft":
        """The first `count` tokens of it."""
        return self if count >= len(self.tokens) else replace(self, tokens=self.tokens[:count])

    def select(self, nodes: Sequence[int]) -> "Draft":
        """The chain of the tokens at these places, each of which continues the one before it."""
        unwarped = self.unwarped
        return Draft(
            [self.tokens[node] for node in nodes],
            self.q.select(nodes),
            None if unwarped is None else lambda place: unwarped(nodes[place]),
        )

    def prepare(self) -> None:
        """Finds `chances` before they are asked for, unless this means to wait for a device."""
        if not _waits(self.q):
            _ = self.chances


def _waits(q: Proposal) -> bool:
    """Whether reading a number of q waits for a device."""
    if isinstance(q, JoinedProposal):
        return _waits(q.first) or _waits(q.second)
    return isinstance(q, DenseProposal) and on_cuda(q.rows.device)


def joined(first: Draft, second: Draft) -> Draft:
    """A draft and what another drafter drafted after it, as one; a tree takes nothing after it."""
    if not (first.tokens and second.tokens) or first.parents is not None:
        return first if first.tokens else second
    tokens, count = first.tokens + second.tokens, len(first.tokens)
    if isinstance(first.q, OneHotProposal) and isinstance(second.q, OneHotProposal):
        q: Proposal = OneHotProposal(tokens)
    else:
        q = JoinedProposal(first.q, second.q, count)

    def unwarped(position: int) -> torch.Tensor | None:
        part, own = (first, position) if position < count else (second, position - count)
        return None if part.unwarped is None else part.unwarped(own)

    parents = second.parents
    if parents is not None:
        parents = (*range(-1, count - 1), *(parent + count for parent in parents))
    return Draft(tokens, q, unwarped, parents)
