"""Logits to distributions, draws, and the verdict on a draft. Pure tensor functions.

Every random decision takes its uniform number as an argument: the same numbers give the same
decisions, and tests can enumerate all outcomes. Temperature 0 makes distributions one-hot, so
`verify` holds for greedy decoding too; `judge` then compares the most likely tokens alone, which
comes to the same.

A verdict is reached where the distributions are. On CUDA it is a series of tensor operations and
one synchronisation. On a CPU each of these would cost more than its arithmetic, a few rows of a
vocabulary: there rows are numpy's, and single numbers are Python's. Apple's GPU knows no float64:
its rows come to the host.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from fastllm.errors import VocabularyError
from fastllm.trace import DecodingConfig, LenienceForm, Verification

Chance = TypeVar("Chance", float, torch.Tensor)

Uniforms = Sequence[float] | torch.Tensor
"""Numbers in [0, 1): floats, or float64 of shape (n,)."""


def distribution(logits: torch.Tensor, config: DecodingConfig) -> torch.Tensor:
    """Turns logits into the distribution that tokens are drawn from.

    Args:
        logits: shape (..., V), any float type.
        config: temperature, top_k and top_p, applied in this order.

    Returns:
        Probabilities, shape (..., V), float32, each row summing to 1.
    """
    if logits.dtype != torch.float32:
        logits = logits.float()
    if config.temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    if config.temperature != 1:  # a division by 1 is a pass over all of them for nothing
        logits = logits / config.temperature
    if 0 < config.top_k < logits.shape[-1]:
        least = logits.topk(config.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if config.top_p < 1:
        ordered, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        # A token stays if the mass before it has not yet reached top_p: the best one always does.
        drop = ordered.cumsum(-1) - ordered >= config.top_p
        logits = logits.masked_fill(drop.scatter(-1, order, drop), float("-inf"))
    return logits.softmax(-1)


def forbid(logits: torch.Tensor, banned: Sequence[Sequence[int]]) -> torch.Tensor:
    """Bars tokens from rows of logits, before temperature and filters.

    Where every token is banned, token 0 stays, which is what `generate` of transformers writes
    there when greedy: no row is left without a distribution.

    Args:
        logits: shape (T, V), any float type; not changed.
        banned: the ids barred in each of the first rows (see `rules`); ids from V on are
            passed over.

    Returns:
        The same logits, minus infinity where barred; `logits` itself where nothing is.
    """
    places = _barred_places(banned, logits.shape[-1])
    if not places:
        return logits
    where = torch.tensor(places).to(logits.device, non_blocking=True)
    return logits.reshape(-1).index_fill(0, where, float("-inf")).view_as(logits)


def _barred_places(banned: Sequence[Sequence[int]], size: int) -> list[int]:
    """Where the barred ids are in the rows (T, V) laid end to end."""
    places: list[int] = []
    for row, tokens in enumerate(banned):
        if not tokens:
            continue
        known = {token for token in tokens if token < size}
        if len(known) == size:
            known.remove(0)
        places += [row * size + token for token in known]
    return places


def ruled_distribution(
    logits: torch.Tensor, banned: Sequence[Sequence[int]], config: DecodingConfig
) -> torch.Tensor:
    """`distribution` of `forbid`, of the same arguments; quicker where numpy can work on the rows.

    Args:
        logits: shape (T, V), any float type. The same afterwards; on a CPU they are changed for a
            moment, so that nobody else may read them meanwhile.
        banned: the ids barred in each of the first rows.
        config: temperature, top_k and top_p.

    Returns:
        Probabilities, shape (T, V), float32.
    """
    places = _barred_places(banned, logits.shape[-1])
    if not places or not _is_numpys(logits):
        return distribution(forbid(logits, banned), config)
    # A copy of all rows costs more than their softmax: so they are barred where they are, and put
    # back as they were.
    flat = logits.numpy().reshape(-1)
    kept = [flat[place] for place in places]
    for place in places:
        flat[place] = -np.inf
    try:
        return distribution(logits, config)
    finally:
        for place, value in zip(places, kept, strict=True):
            flat[place] = value


def draw(weights: torch.Tensor, uniform: torch.Tensor | float) -> torch.Tensor:
    """Draws a token from unnormalised weights by inverting their cumulative sum.

    Args:
        weights: shape (V,), not negative, not all 0.
        uniform: a number in [0, 1).

    Returns:
        A token id, shape (), int64. A token of weight 0 is never drawn.
    """
    if not _computes_doubles(weights.device):
        return torch.tensor(drawn(weights, float(uniform)), device=weights.device)
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    whole = cumulative[-1]
    share = torch.as_tensor(uniform, dtype=torch.float64)
    reached = share.to(weights.device, non_blocking=True) * whole
    # A product rounded up to the whole sum stays on the last token that added to it.
    last = torch.searchsorted(cumulative, whole)
    return torch.searchsorted(cumulative, reached, right=True).minimum(last)


def drawn(weights: torch.Tensor, uniform: float) -> int:
    """The token that `draw` finds, of the same arguments, on the host."""
    if _computes_doubles(weights.device):
        return int(draw(weights, uniform))
    return _drawn(_cumulative(weights.cpu()), uniform)


def _computes_doubles(device: torch.device) -> bool:
    """Whether a device is one apart from the host, and has float64: Apple's has none."""
    return device.type == "cuda"


def _cumulative(weights: torch.Tensor) -> np.ndarray:
    """The cumulative sum of weights (V,) on a CPU, float64."""
    # torch adds quicker than numpy where it matters: behind a call of the target, whose weights
    # have filled the caches.
    sums: np.ndarray = weights.cumsum(-1, dtype=torch.float64).numpy()
    return sums


def _drawn(cumulative: np.ndarray, uniform: float) -> int:
    """The same as `draw`, on a CPU, from the cumulative sum of the weights (V,), float64."""
    whole = cumulative[-1]
    place = int(cumulative.searchsorted(uniform * whole, side="right"))
    # A product rounded up to the whole sum stays on the last token that added to it.
    return place if place < len(cumulative) else int(cumulative.searchsorted(whole))


def _is_numpys(rows: torch.Tensor) -> bool:
    """Whether numpy can work on a tensor where it lies: on a CPU, whole, in a type of its own."""
    kinds = (torch.float32, torch.float64)
    return rows.device.type == "cpu" and rows.dtype in kinds and rows.is_contiguous()


@dataclass(frozen=True)
class DenseProposal:
    """The distributions of a draft as full rows: `rows` of shape (k, V)."""

    rows: torch.Tensor

    @cached_property
    def _host(self) -> np.ndarray:
        """The rows on the host."""
        found: np.ndarray = self.rows.cpu().numpy()
        return found

    def chances(self, tokens: Sequence[int]) -> list[float]:
        """The probability of each drafted token, on the host."""
        return [float(self._host[place, token]) for place, token in enumerate(tokens)]

    def missing(self, position: int, row: np.ndarray, share: float = 1.0) -> np.ndarray:
        """max(share p - q, 0) at one position, shape (V,).

        Args:
            position: of q.
            row: p, shape (V,).
            share: at most 1.
        """
        scaled = row if share == 1 else row * share
        left: np.ndarray = scaled - self._host[position]
        np.maximum(left, 0.0, out=left)
        return left

    def surplus(self, position: int, row: np.ndarray, share: float = 1.0) -> float:
        """The sum of `missing`, of the same arguments."""
        return float(self.missing(position, row, share).sum())

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """The probability of each drafted token, shape (k,)."""
        return self.rows[: len(tokens)].gather(1, tokens[:, None])[:, 0]

    def row(self, position: int, size: int) -> torch.Tensor:
        """The distribution at one position, shape (V,)."""
        return self.rows[position]

    def dense(self, count: int, size: int) -> torch.Tensor:
        """The distributions at the first positions, shape (count, V)."""
        return self.rows[:count]


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

    def chances(self, tokens: Sequence[int]) -> list[float]:
        """Ones, one for each drafted token."""
        return [1.0] * len(tokens)

    def missing(self, position: int, row: np.ndarray, share: float = 1.0) -> np.ndarray:
        """max(share p - q, 0) at one position, shape (V,), as `DenseProposal.missing`."""
        left = row.copy() if share == 1 else row * share
        left[self._ids[position]] = 0.0
        return left

    def surplus(self, position: int, row: np.ndarray, share: float = 1.0) -> float:
        """The sum of `missing`, p summing to 1."""
        return share * (1.0 - float(row[self._ids[position]]))

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ones, shape (k,)."""
        return torch.ones(len(tokens), device=tokens.device)

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


@dataclass(frozen=True, eq=False)
class SparseRow:
    """A distribution that names some tokens and spreads the rest evenly over all others.

    Attributes:
        ids: the named tokens, int64, ascending. A list in any order will do: it is put in order.
        probabilities: theirs, in the same order, float64.
        other: the probability of *each* token that is not named.

    Example: over 5 tokens, `SparseRow([1, 3], [0.5, 0.2], 0.1)` is [0.1, 0.5, 0.1, 0.2, 0.1].
    """

    ids: np.ndarray
    probabilities: np.ndarray
    other: float

    def __post_init__(self) -> None:
        if not isinstance(self.ids, np.ndarray):
            ids = np.asarray(self.ids, dtype=np.int64)
            order = ids.argsort()
            object.__setattr__(self, "ids", ids[order])
            chances = np.asarray(self.probabilities, dtype=np.float64)
            object.__setattr__(self, "probabilities", chances[order])

    def of(self, token: int) -> float:
        """The probability of one token."""
        place = self.ids.searchsorted(token)
        named = place < len(self.ids) and self.ids.item(place) == token
        return float(self.probabilities.item(place)) if named else self.other

    def dense(self, size: int) -> torch.Tensor:
        """The full row, shape (V,), float32.

        Args:
            size: V.

        Raises:
            VocabularyError: over so many tokens the row does not sum to 1.
        """
        self.require(size)
        row = np.full(size, self.other, dtype=np.float32)
        row[self.ids] = self.probabilities
        return torch.from_numpy(row)

    def require(self, size: int) -> None:
        """Refuses a vocabulary that the row was not made for.

        Args:
            size: V.

        Raises:
            VocabularyError: over so many tokens the row does not sum to 1.
        """
        total = float(self.probabilities.sum()) + (size - len(self.ids)) * self.other
        if abs(total - 1) > 1e-6 or (len(self.ids) and self.ids[-1] >= size):
            raise VocabularyError(
                f"a sparse row sums to {total:.6f} over {size} tokens, not to 1: the drafter was "
                "made for another vocabulary size. Fit it with as many tokens as the target has "
                "logits."
            )

    def missing(self, row: np.ndarray, share: float) -> np.ndarray:
        """max(share p - q, 0), shape (V,), with p a full row (V,)."""
        self.require(len(row))
        left = row * share
        named = left[self.ids] - self.probabilities
        if self.other:
            left -= self.other
            np.maximum(left, 0.0, out=left)
        left[self.ids] = np.maximum(named, 0.0)
        return left

    def without(self, banned: Sequence[int], size: int) -> "SparseRow | None":
        """The row with some tokens barred, and what is left scaled to sum to 1.

        Args:
            banned: token ids; those from V on are passed over.
            size: V.

        Returns:
            The new row; None where all that this one would say is barred.
        """
        barred = np.unique(np.array([token for token in banned if token < size], dtype=np.int64))
        if not len(barred):
            return self
        ids = np.union1d(self.ids, barred)
        chances = np.full(len(ids), self.other)
        chances[ids.searchsorted(self.ids)] = self.probabilities
        chances[ids.searchsorted(barred)] = 0.0
        total = float(chances.sum()) + (size - len(ids)) * self.other
        return SparseRow(ids, chances / total, self.other / total) if total > 0 else None

    def warped(self, size: int, config: DecodingConfig) -> "SparseRow":
        """The row under temperature, top_k and top_p.

        The same as `distribution` of the logarithm of the dense row, without building it; only a
        top_p whose limit falls among the tokens that are not named lists those that stay.

        Args:
            size: V.
            config: temperature, top_k and top_p, applied in this order.
        """
        if config.temperature == 0:
            return SparseRow(np.array([self.best(size)]), np.ones(1), 0.0)
        if config.temperature == 1 and config.top_k == 0 and config.top_p == 1:
            return self
        ids, chances, other = self.ids, self.probabilities, self.other
        unnamed = size - len(ids)
        if 0 < config.top_k < size:
            least = _kth_largest(chances, other, unnamed, config.top_k)
            stays = chances >= least
            if other >= least:
                # A named token left out would come back as one of the others: it stays, with 0.
                chances = np.where(stays, chances, 0.0)
            else:
                ids, chances, other, unnamed = ids[stays], chances[stays], 0.0, 0
        largest = max(float(chances.max(initial=0.0)), other if unnamed else 0.0)
        weights = (chances / largest) ** (1 / config.temperature)
        rest = (other / largest) ** (1 / config.temperature) if unnamed else 0.0
        total = float(weights.sum()) + unnamed * rest
        weights, rest = weights / total, rest / total
        if config.top_p < 1:
            ids, weights, rest = _nucleus(ids, weights, rest, unnamed, config.top_p)
        return SparseRow(ids, weights, rest)

    def best(self, size: int) -> int:
        """The most likely token; of several the one with the smallest id."""
        named = len(self.ids)
        place = int(self.probabilities.argmax()) if named else 0
        if named and (named == size or self.probabilities[place] > self.other):
            return int(self.ids[place])
        first = _unnamed(self.ids, 1)
        if named and self.probabilities[place] == self.other:
            return min(int(self.ids[place]), int(first[0]))
        return int(first[0])

    def draw(self, size: int, uniform: float) -> int:
        """Draws a token by inverting the cumulative sum: the token `draw` finds in the dense row.

        Args:
            size: V.
            uniform: a number in [0, 1).
        """
        ids, named = self.ids, len(self.ids)
        # The cumulative sum at each named token, the gaps before it included.
        cumulative = self.probabilities.cumsum() + self.other * (ids - np.arange(named))
        whole = float(cumulative[-1]) + self.other * (size - 1 - int(ids[-1])) if named else 1.0
        reached = uniform * whole
        place = int(cumulative.searchsorted(reached, side="right"))
        first = int(ids[place - 1]) + 1 if place else 0
        behind = int(ids[place]) if place < named else size
        before = float(cumulative[place - 1]) if place else 0.0
        if self.other > 0 and behind > first:
            token = first + max(0, int((reached - before) / self.other))
            if token < behind or place == named or self.probabilities[place] == 0:
                return min(token, behind - 1)
        if place == named:  # a product rounded up to the whole sum
            place = int(self.probabilities.nonzero()[0][-1])
        return int(ids[place])


def _kth_largest(chances: np.ndarray, other: float, unnamed: int, k: int) -> float:
    """The k-th largest of `chances` and `unnamed` times `other`."""
    above = int((chances > other).sum())
    if above < k <= above + unnamed:
        return other
    rank = k if k <= above else k - unnamed
    return float(np.partition(chances, len(chances) - rank)[len(chances) - rank])


def _nucleus(
    ids: np.ndarray, weights: np.ndarray, rest: float, unnamed: int, top_p: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Keeps the most likely tokens until their mass reaches top_p; ties in order of ids."""
    order = np.argsort(-weights, kind="stable")
    ids, weights = ids[order], weights[order]
    above = int((weights > rest).sum()) if unnamed else len(ids)
    sums = weights[:above].cumsum()
    kept = int((sums - weights[:above] < top_p).sum())
    mass = float(sums[-1]) if above else 0.0
    if kept < above or mass >= top_p or not unnamed:
        ids, weights, rest = ids[:kept], weights[:kept], 0.0
    else:
        equal = int((weights == rest).sum())
        wanted = int(np.ceil((top_p - mass) / rest)) if rest > 0 else 0
        if wanted < unnamed + equal:
            # The limit lies among equals: those of the smallest ids stay, and get named.
            level = _unnamed(np.sort(np.delete(ids, slice(above, above + equal))), wanted)
            ids = np.concatenate([ids[:above], level])
            weights = np.concatenate([weights[:above], np.full(len(level), rest)])
            rest = 0.0
        else:
            mass += (unnamed + equal) * rest
            below = weights[above + equal :]
            kept = above + equal + int((mass + below.cumsum() - below < top_p).sum())
            weights = np.where(np.arange(len(ids)) < kept, weights, 0.0)
            total = float(weights.sum()) + unnamed * rest
            order = ids.argsort()
            return ids[order], weights[order] / total, rest / total
    order = ids.argsort()
    return ids[order], weights[order] / weights.sum(), rest


def _unnamed(ids: np.ndarray, count: int) -> np.ndarray:
    """The `count` smallest ids that are not among `ids` (ascending)."""
    candidates = np.arange(count + len(ids))
    return np.setdiff1d(candidates, ids, assume_unique=True)[:count]


@dataclass(frozen=True)
class SparseProposal:
    """The distributions of a draft as sparse rows, one for each position."""

    rows: list[SparseRow]

    def chances(self, tokens: Sequence[int]) -> list[float]:
        """The probability of each drafted token."""
        return [row.of(token) for row, token in zip(self.rows, tokens, strict=False)]

    def missing(self, position: int, row: np.ndarray, share: float = 1.0) -> np.ndarray:
        """max(share p - q, 0) at one position, shape (V,), as `DenseProposal.missing`.

        Raises:
            VocabularyError: q was made for another vocabulary size.
        """
        return self.rows[position].missing(row, share)

    def surplus(self, position: int, row: np.ndarray, share: float = 1.0) -> float:
        """The sum of `missing`, of the same arguments."""
        return float(self.missing(position, row, share).sum())

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """The probability of each drafted token, shape (k,)."""
        return torch.tensor(self.chances(tokens.tolist()), device=tokens.device)

    def row(self, position: int, size: int) -> torch.Tensor:
        """The distribution at one position, shape (V,)."""
        return self.rows[position].dense(size)

    def dense(self, count: int, size: int) -> torch.Tensor:
        """The distributions at the first positions, shape (count, V)."""
        return torch.stack([row.dense(size) for row in self.rows[:count]])


Proposal = DenseProposal | OneHotProposal | SparseProposal


@dataclass(frozen=True)
class Draft:
    """What a drafter proposes.

    Attributes:
        tokens: the drafted ids, at most gamma, possibly none.
        q: exactly the distributions the tokens were drawn from. The first row belongs to the first
            token, each later one to the position behind the drafted tokens before it.
        unwarped: position -> the drafter's distribution there at temperature 1 without filters,
            shape (V,). For display alone and called off the clock; None where there is none.
    """

    tokens: list[int]
    q: Proposal
    unwarped: Callable[[int], torch.Tensor] | None = None

    @cached_property
    def chances(self) -> list[float]:
        """The drafter's probability of each drafted token, on the host."""
        return self.q.chances(self.tokens)

    def prepare(self) -> None:
        """Finds `chances` before they are asked for, unless this means to wait for a device."""
        if not (isinstance(self.q, DenseProposal) and _computes_doubles(self.q.rows.device)):
            _ = self.chances


class Verdict(NamedTuple):
    """The outcome of `judge` or `verify`, plain Python values.

    Attributes:
        accepted: how many drafts stand.
        extra: the target's own token behind them.
        p: the target's probability of each drafted token.
        q: the drafter's, likewise.
        thresholds: what the uniform of each drafted token is compared with; the test passes below.
            Under the block rule on a CPU, those that decide nothing are computed when asked for.
        extra_p: the target's probability of `extra`.
    """

    accepted: int
    extra: int
    p: list[float]
    q: list[float]
    thresholds: Sequence[float]
    extra_p: float


def judge(
    logits: torch.Tensor,
    draft: Draft,
    uniforms: Uniforms,
    config: DecodingConfig,
    banned: Sequence[Sequence[int]] = (),
) -> Verdict:
    """Decides on a draft by the target's logits, with the warp and the rule of the settings.

    The same as `verify` on their distributions; when greedy it reads the most likely tokens alone.

    Args:
        logits: shape (k + 1, V), at each drafted position and behind them.
        draft: k drafted tokens and the distributions they were drawn from.
        uniforms: as for `verify`; when greedy they have no part in it.
        config: temperature, top_k, top_p, verification and lenience.
        banned: the ids barred in each row, as for `forbid`.
    """
    if config.temperature > 0:
        return verify(
            ruled_distribution(logits, banned, config),
            draft,
            uniforms,
            config.verified_by,
            lenience=config.lenience,
            form=config.lenience_form,
        )
    best = most_likely(logits, banned)
    p = [float(token == wanted) for token, wanted in zip(draft.tokens, best, strict=False)]
    q = draft.chances
    accepted = [*p, 0.0].index(0.0)
    return Verdict(accepted, best[accepted], p, q, p, 1.0)


def most_likely(logits: torch.Tensor, banned: Sequence[Sequence[int]]) -> list[int]:
    """The most likely token of each row that is not banned there.

    Args:
        logits: shape (T, V), any float type.
        banned: the ids barred in each of the first rows, as for `forbid`.
    """
    if not _is_numpys(logits):
        found: list[int] = forbid(logits, banned).argmax(-1).tolist()
        return found
    # numpy finds the largest of a row in a microsecond or two, torch on a CPU in fifteen; and few
    # rows have a banned token there, so that barring them all beforehand would be for nothing.
    best: list[int] = logits.numpy().argmax(-1).tolist()
    for row, tokens in enumerate(banned):
        if best[row] in tokens:
            best[row] = int(forbid(logits[row : row + 1], [tokens]).argmax())
    return best


def verify(
    p: torch.Tensor,
    draft: Draft,
    uniforms: Uniforms,
    rule: Verification = "token",
    *,
    lenience: float = 1.0,
    form: LenienceForm = "linear",
) -> Verdict:
    """Decides how much of a draft stands, and adds one token.

    Every rule tests draft x_i with a uniform u_i of its own.

    - Token: the test is u_i < p(x_i) / q(x_i). All before the first failure stand. The failed one
      is replaced by a draw from norm(max(p - q, 0)); if all stand, a bonus is drawn from p. The
      text is distributed exactly as the target's own. Source: Leviathan et al. 2023, Algorithm 1,
      arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318.
    - Block: the test is u_i < h_i (`block_thresholds`). All up to the last success stand, failures
      before it too. Behind i of them the token is drawn from norm(max(p_i p - q, 0)), behind all
      of them from p. As exact, and expected to accept at least as many. Both hold whatever decides
      how long a draft is, as long as it decides by the tokens before the place and keeps what it
      has drawn. Source: Sun et al. 2024, Algorithm 2, arXiv:2403.10444.
    - Lenient: the test is u_i < f(p(x_i)) / q(x_i) (`relaxed`), all else as under the token rule.
      Lossy. The correction stays a draw from norm(max(p - q, 0)): what passed too often cannot be
      taken back, and since this adds only where p is above q, no other correction brings the text
      closer to p in total variation; and no token becomes more likely than f(p). Source of the
      test: Zhou et al. 2024 (DistillSpec), arXiv:2310.08461.

    Args:
        p: the target's distributions, shape (k + 1, V), at each drafted position and behind them.
        draft: k drafted tokens and the distributions they were drawn from.
        uniforms: k + 1 numbers in [0, 1): one test each, and the last for the extra token.
        rule: which.
        lenience: eps of the lenient rule; 1 is the token rule.
        form: f of the lenient rule.
    """
    if _computes_doubles(p.device):
        return _verify_on_device(p, draft, uniforms, rule, lenience, form)
    return _verify_on_host(p.cpu(), draft, uniforms, rule, lenience, form)


def _verify_on_device(
    p: torch.Tensor,
    draft: Draft,
    uniforms: Uniforms,
    rule: Verification,
    lenience: float,
    form: LenienceForm,
) -> Verdict:
    """`verify` where a synchronisation costs more than arithmetic."""
    count, size = len(draft.tokens), p.shape[-1]
    numbers = torch.as_tensor(uniforms, dtype=torch.float64).to(p.device, non_blocking=True)
    if count == 0:
        extra = draw(p[0], numbers[0])
        token, chance = _on_host(extra[None], p[0].gather(0, extra[None]))
        return Verdict(0, int(token), [], [], [], chance)
    tokens = torch.tensor(draft.tokens).to(p.device, non_blocking=True)[:, None]
    if isinstance(draft.q, OneHotProposal):  # made there: whole rows are not to be sent
        rows = torch.zeros(count, size, device=p.device).scatter_(1, tokens, 1.0)
    else:
        rows = draft.q.dense(count, size).to(p.device, non_blocking=True)
    chance_p, chance_q = p[:count].gather(1, tokens)[:, 0], rows.gather(1, tokens)[:, 0]
    running, thresholds = None, chance_q[:0]
    if rule == "block":
        running, thresholds = block_thresholds(p, rows, chance_p, chance_q)
        places = torch.arange(1, count + 1, device=p.device)
        accepted = ((numbers[:count] < thresholds) * places).max()
    else:
        raised = relaxed(chance_p, lenience, form) if rule == "lenient" else chance_p
        # u < p/q without the division: q is above 0 because the token was drawn from it.
        accepted = (numbers[:count] * chance_q < raised).long().cumprod(0).sum()
    # Selected on the device: an index that Python knew would cost a synchronisation.
    at = accepted[None]
    here = p.index_select(0, at)[0]
    drafted = rows.index_select(0, at.clamp(max=count - 1))[0] * (accepted < count)
    weight = here if running is None else here * running.index_select(0, at).to(p.dtype)
    residual = (weight - drafted).clamp_(min=0)
    # p = q up to rounding leaves nothing over: then p itself is the right distribution.
    extra = draw(torch.where(residual.sum() > 0, residual, here), numbers[count])[None]
    found = _on_host(at, extra, here.gather(0, extra), chance_p, chance_q, thresholds)
    (where, token, chance), found = found[:3], found[3:]
    of_p, of_q, tests = found[:count], found[count : 2 * count], found[2 * count :]
    if rule != "block":
        raised_p = [relaxed(x, lenience, form) for x in of_p] if rule == "lenient" else of_p
        pairs = zip(raised_p, of_q, strict=True)
        tests = [x / y if x < y else float(x > 0) for x, y in pairs]
    return Verdict(int(where), int(token), of_p, of_q, tests, chance)


def _verify_on_host(
    p: torch.Tensor,
    draft: Draft,
    uniforms: Uniforms,
    rule: Verification,
    lenience: float,
    form: LenienceForm,
) -> Verdict:
    """`verify` where a tensor operation costs more than its arithmetic."""
    if isinstance(uniforms, torch.Tensor):
        uniforms = uniforms.tolist()
    tokens, count, rows = draft.tokens, len(draft.tokens), p.numpy()
    of_p = [float(rows[place, token]) for place, token in enumerate(tokens)]
    of_q = draft.chances
    accepted, share = 0, 1.0
    tests: Sequence[float]
    if rule == "block":
        tests = found = _BlockTests(rows, draft.q, of_p, of_q)
        accepted = count
        while accepted and not found.passes(accepted, uniforms[accepted - 1]):
            accepted -= 1
        share = found.running[accepted]
    else:
        raised = [relaxed(x, lenience, form) for x in of_p] if rule == "lenient" else of_p
        # u < p/q without the division: q is above 0 because the token was drawn from it.
        while accepted < count and uniforms[accepted] * of_q[accepted] < raised[accepted]:
            accepted += 1
        tests = [x / y if x < y else float(x > 0) for x, y in zip(raised, of_q, strict=True)]
    here = rows[accepted]
    if accepted < count:
        cumulative = _cumulative(torch.from_numpy(draft.q.missing(accepted, here, share)))
    if accepted == count or cumulative[-1] == 0:  # p = q up to rounding leaves nothing over
        cumulative = _cumulative(p[accepted])
    extra = _drawn(cumulative, uniforms[count])
    return Verdict(accepted, extra, of_p, of_q, tests, float(here[extra]))


class _BlockTests(Sequence[float]):
    """The same as `block_thresholds`, number by number, each h_i when it is first asked for.

    Each costs as much as a row of p has numbers, and a verdict needs few: h_i is at most p_i, and
    nothing is asked of the places before the last one that passes.

    Args:
        rows: the target's distributions, shape (k + 1, V).
        q: the drafter's.
        of_p: the target's probability of each drafted token.
        of_q: the drafter's.

    Attributes:
        running: p_0 to p_k.
    """

    def __init__(
        self, rows: np.ndarray, q: "Proposal", of_p: Sequence[float], of_q: Sequence[float]
    ) -> None:
        self._rows = rows
        self._q = q
        self._of_p = of_p
        self._of_q = of_q
        self.running = [1.0]
        for x, y in zip(of_p, of_q, strict=True):
            reached = self.running[-1] * x
            self.running.append(reached / y if reached < y else float(reached > 0))
        self._known: dict[int, float] = {}

    def passes(self, place: int, uniform: float) -> bool:
        """Whether uniform < h_i; places are counted from 1."""
        return uniform < self.running[place] and uniform < self[place - 1]

    def __len__(self) -> int:
        return len(self.running) - 1

    def __getitem__(self, index: Any) -> Any:
        """h_{index + 1}."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(1, len(self) + 1)[index]
        if place not in self._known:
            self._known[place] = self._test(place)
        return self._known[place]

    def _test(self, place: int) -> float:
        share = self.running[place]
        if place == len(self) or share == 0:
            return share
        if share == 1 and self._of_p[place] != self._of_q[place]:
            return 1.0  # s / s: where p is not q, it is above q somewhere
        surplus = self._q.surplus(place, self._rows[place], share)
        return surplus / (surplus + 1 - share) if surplus > 0 else 0.0


def block_thresholds(
    p: torch.Tensor, q: torch.Tensor, chance_p: torch.Tensor, chance_q: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tests of block verification.

    p_0 = 1 and p_i = min(p_{i-1} p(x_i) / q(x_i), 1) is the chance that i drafts or more stand,
    given the first i. The test that brings this about is u_i < h_i: with s_i the sum over x of
    max(p_i p(x) - q(x), 0), both behind i drafts, h_i = s_i / (s_i + 1 - p_i), 0 / 0 taken as 0,
    and h_k = p_k behind the whole draft. Source: Sun et al. 2024, arXiv:2403.10444.

    Args:
        p: the target's distributions, shape (k + 1, V).
        q: the drafter's, shape (k, V).
        chance_p: the target's probability of each drafted token, shape (k,).
        chance_q: the drafter's.

    Returns:
        p_0 to p_k, shape (k + 1,), and h_1 to h_k, shape (k,), both float64.
    """
    count = len(q)
    # p_i is the least product of the last ratios up to i, of none (1) at most: in logarithms, the
    # sum of them all less the largest sum so far. q is above 0, but might have been rounded to it.
    tiny = torch.finfo(torch.float64).tiny
    ratios = chance_p.double().log() - chance_q.double().clamp(min=tiny).log()
    sums = torch.cat([ratios.new_zeros(1), ratios.cumsum(0)])
    running = (sums - sums.cummax(0).values).exp()
    inner = running[1:count]
    # q - p_i p in one pass: what is below 0 of it is s_i.
    missing = torch.addcmul(q[1:], inner[:, None].to(p.dtype), p[1:count], value=-1)
    surplus = -missing.clamp_(max=0).sum(-1).double()
    whole = surplus + 1 - inner
    thresholds = torch.where(whole > 0, surplus / whole, 0.0)
    return running, torch.cat([thresholds, running[count:]])


def relaxed(p: Chance, lenience: float, form: LenienceForm) -> Chance:
    """What lenient verification puts in the place of p: p / eps, p / eps^2 or p^eps.

    Source: Zhou et al. 2024 (DistillSpec), arXiv:2310.08461.

    Args:
        p: a probability, or any shape of them.
        lenience: eps, above 0; 1 leaves p as it is.
        form: "linear", "square" or "exponent".
    """
    if form == "exponent":
        raised: Chance = p**lenience
        return raised
    return p / (lenience if form == "linear" else lenience**2)


def _on_host(*parts: torch.Tensor) -> list[float]:
    """Vectors as one list of numbers, fetched at once. Ids stay exact: float64 holds 2^53."""
    return torch.cat([part.double() for part in parts]).tolist()
