"""What a target's encoder said of articles, kept for a training that comes back to them.

Reading an article costs a small target more than scoring a text about it. So the encoder's output
is kept, rounded to bfloat16: always rounded, so that the first use of an article and the later ones
train on the same numbers. On a CPU each article is encoded by itself: the numbers then do not
depend on which others were missing, which is what lets a resumed run continue bit for bit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastllm.errors import CheckpointError


class EncodingCache:
    """The encoder of a model of transformers that remembers, up to `keep` bytes.

    Articles that are encoded together are filled up with `pad_id`.
    """

    def __init__(self, encoder: Any, *, pad_id: int = 0, keep: int = 2 << 30) -> None:
        self._encoder, self._pad_id = encoder, pad_id
        self._keep, self._kept = keep, 0
        self._states: dict[bytes, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(
        self, articles: Sequence[Sequence[int]], device: torch.device
    ) -> list[torch.Tensor]:
        """The encoder's output for each article, (length, d), in bfloat16; all of them are read.

        Raises:
            CheckpointError: the output holds NaN or infinite numbers.
        """
        keys = [np.asarray(ids, dtype=np.uint32).tobytes() for ids in articles]
        missing = {
            key: ids for key, ids in zip(keys, articles, strict=True) if key not in self._states
        }
        fresh: dict[bytes, torch.Tensor] = {}
        group = 1 if device.type == "cpu" else max(1, len(missing))
        todo = list(missing.items())
        for at in range(0, len(todo), group):
            chosen = todo[at : at + group]
            source, mask = stacked([ids for _, ids in chosen], self._pad_id, device)
            states = self._encoder(input_ids=source, attention_mask=mask).last_hidden_state
            for row, (key, ids) in enumerate(chosen):
                # A copy of its own: a part of `states` would keep the whole of it in memory.
                fresh[key] = states[row, : len(ids)].to(torch.bfloat16, copy=True)
            require_finite(states, "the encoder's output")
        found = [fresh[key] if key in fresh else self._states[key] for key in keys]
        size = sum(rows.nbytes for rows in fresh.values())
        if self._kept + size > self._keep:
            self._states.clear()
            self._kept = 0
        if size <= self._keep:
            self._states.update(fresh)
            self._kept += size
        return found


def stacked(
    articles: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Articles as a block of ids (B, S), filled up with `pad_id`, and its mask (B, S): 1 is real.

    The mask goes by the lengths: an article may hold the padding id itself.
    """
    width = max(1, max(map(len, articles)))
    ids = torch.full((len(articles), width), pad_id, dtype=torch.long)
    mask = torch.zeros(len(articles), width, dtype=torch.long)
    for row, article in enumerate(articles):
        ids[row, : len(article)] = torch.as_tensor(article, dtype=torch.long)
        mask[row, : len(article)] = 1
    return ids.to(device), mask.to(device)


def real_places(source: torch.Tensor) -> torch.Tensor:
    """Which places of articles (B, S), filled up with 0 at the end, are real: bool (B, S).

    An article may hold the id 0 inside: all up to its last other id, its end token, is real.
    """
    return (source != 0).flip(1).cumsum(1).flip(1) > 0


def without_padding(article: Sequence[int]) -> list[int]:
    """The ids of one article that `real_places` finds real, and one at least.

    An end token 0 (Marian's) is not among them.
    """
    real = len(article)
    while real > 1 and article[real - 1] == 0:
        real -= 1
    return list(article[:real])


def require_finite(numbers: torch.Tensor, what: str) -> None:
    """Refuses what a model computed where it overflowed, or where its weights are damaged.

    Raises:
        CheckpointError: NaN or infinite numbers are among what it computed, in words `what`.
    """
    if not bool(numbers.sum(dtype=torch.float32).isfinite()):  # one pass, without a copy
        raise CheckpointError(
            f"{what} of the target holds numbers that are not finite (NaN or infinite): its "
            "weights are damaged, or they overflow in half precision (fp16). Load it with "
            "--load_in bf16 or fp32, or take a whole copy of the checkpoint."
        )
