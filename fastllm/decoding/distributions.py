"""Logits to distributions, and draws from them. Pure tensor functions.

Every draw takes its uniform number as an argument: the same numbers give the same tokens, and tests
can enumerate all outcomes. Temperature 0 makes distributions one-hot.

On a CPU a tensor operation costs more than its arithmetic on a few rows of a vocabulary: there rows
are numpy's, and single numbers are Python's. On CUDA a synchronisation costs more: there everything
stays tensors. Apple's GPU knows no float64: its rows come to the host.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from fastllm.decoding.rules import AllBut
from fastllm.errors import NotFiniteError
from fastllm.trace import DecodingConfig


def distribution(logits: torch.Tensor, config: DecodingConfig) -> torch.Tensor:
    """Logits (..., V) to the probabilities (..., V), float32, that tokens are drawn from.

    Temperature, top_k and top_p of the settings are applied in this order.
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
            passed over. Where nothing is barred, `logits` itself comes back.
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
        barred = tokens.within(size) if isinstance(tokens, AllBut) else tokens
        known = {token for token in barred if token < size}
        if len(known) == size:
            known.remove(0)
        places += [row * size + token for token in known]
    return places


def ruled_distribution(
    logits: torch.Tensor, banned: Sequence[Sequence[int]], config: DecodingConfig
) -> torch.Tensor:
    """`distribution` of `forbid`, of the same arguments; quicker where numpy can work on the rows.

    On a CPU the logits are changed for a moment, so that nobody else may read them meanwhile.
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
    """Draws a token from unnormalised weights (V,), not all 0, by inverting their cumulative sum.

    The uniform number is in [0, 1), the id of shape (), int64; no weight 0 is ever drawn.
    """
    if not on_cuda(weights.device):
        return torch.tensor(drawn(weights, float(uniform)), device=weights.device)
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    whole = cumulative[-1]
    share = torch.as_tensor(uniform, dtype=torch.float64)
    reached = share.to(weights.device, non_blocking=True) * whole
    # A product rounded up to the whole sum stays on the last token that added to it. Nothing is
    # found for NaN: an id from V on would end the process.
    last = torch.searchsorted(cumulative, whole).clamp_(max=len(weights) - 1)
    return torch.searchsorted(cumulative, reached, right=True).minimum(last)


def drawn(weights: torch.Tensor, uniform: float) -> int:
    """The token that `draw` finds, of the same arguments, on the host."""
    if on_cuda(weights.device):
        return int(draw(weights, uniform))
    return drawn_from(cumulative_sum(weights.cpu()), uniform)


def on_cuda(device: torch.device) -> bool:
    """Whether tensors are worked on where they lie: Apple's GPU has no float64."""
    return device.type == "cuda"


def cumulative_sum(weights: torch.Tensor) -> np.ndarray:
    """The cumulative sum of weights (V,) on a CPU, float64."""
    # torch adds quicker than numpy where it matters: behind a call of the target, whose weights
    # have filled the caches.
    sums: np.ndarray = weights.cumsum(-1, dtype=torch.float64).numpy()
    return sums


def drawn_from(cumulative: np.ndarray, uniform: float) -> int:
    """The same as `draw`, on a CPU, from the cumulative sum of the weights (V,), float64."""
    whole = cumulative[-1]
    place = int(cumulative.searchsorted(uniform * whole, side="right"))
    # A product rounded up to the whole sum stays on the last token that added to it.
    return place if place < len(cumulative) else int(cumulative.searchsorted(whole))


def _is_numpys(rows: torch.Tensor) -> bool:
    """Whether numpy can work on a tensor where it lies: on a CPU, whole, in a type of its own."""
    kinds = (torch.float32, torch.float64)
    return rows.device.type == "cpu" and rows.dtype in kinds and rows.is_contiguous()


def most_likely(logits: torch.Tensor, banned: Sequence[Sequence[int]]) -> list[int]:
    """The most likely token of each row that is not banned there: the arguments of `forbid`."""
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


def best_tokens(
    logits: torch.Tensor, banned: Sequence[Sequence[int]]
) -> tuple[list[int], list[float]]:
    """What `most_likely` finds, and its logits: NaN or infinite where something of a row is."""
    if _is_numpys(logits):
        best = most_likely(logits, banned)
        rows = logits.numpy()
        return best, [float(rows[place, token]) for place, token in enumerate(best)]
    ruled = forbid(logits, banned)
    tokens = ruled.argmax(-1, keepdim=True)
    # Fetched at once: float32 holds all ids (of up to 16 million pieces), and Apple has no float64.
    found = torch.cat([tokens.float(), ruled.gather(-1, tokens).float()]).tolist()
    numbers = [row[0] for row in found]
    return [int(token) for token in numbers[: len(logits)]], numbers[len(logits) :]


def require_finite(numbers: Sequence[float], dtype: torch.dtype) -> None:
    """Refuses a target's numbers that no token can be chosen by.

    Of each row one that is NaN or infinite where something of the row is: the largest logit, or any
    probability.

    Raises:
        NotFiniteError: one is not finite.
    """
    if all(map(math.isfinite, numbers)):
        return
    kind = str(dtype).removeprefix("torch.")
    remedy = (
        "float16 overflows in many T5s: load the target in bf16 or fp32 (`--load-in bf16`, "
        'load_in="bf16").'
        if dtype == torch.float16
        else "Load it in fp32; if that does not help, its weights are damaged: copy or download "
        "them again."
    )
    raise NotFiniteError(f"the target's logits ({kind}) are NaN or infinite. {remedy}")
