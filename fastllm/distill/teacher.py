"""The target as a teacher: its logits for given texts, and texts of its own.

Reading the article costs a small target more than scoring the text, and training comes back to the
same articles every epoch. So the encoder's output is kept, rounded to bfloat16: always rounded, so
that the first use of an article and the later ones train on the same numbers. On a CPU each article
is encoded by itself: the numbers then do not depend on which others were missing, which is what
lets a resumed run continue bit for bit.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from fastllm.data.tokens import padded
from fastllm.targets.hub import HubTarget


class Articles(Protocol):
    """Articles by index, on disk or in memory."""

    def source(self, index: int) -> list[int]:
        """The ids of an article, end token included."""


class Teacher:
    """A target that scores batches of texts.

    Args:
        target: the target.
        pairs: the articles that texts will be about, by index.
        keep: how many bytes of encodings are kept in memory at most.
    """

    def __init__(self, target: HubTarget, pairs: Articles, keep: int = 2 << 30) -> None:
        self.target = target
        self._pairs = pairs
        self._keep = keep
        self._kept = 0
        self._encodings: dict[int, torch.Tensor] = {}

    @torch.no_grad()
    def logits(self, indices: Sequence[int], prefix: torch.Tensor) -> torch.Tensor:
        """The target's logits (B, T, V) behind every token of `prefix` (B, T).

        Args:
            indices: which articles the texts are about.
            prefix: the texts, each beginning with the start id, padded behind.
        """
        states = self._encode(indices)
        longest = max(len(rows) for rows in states)
        block = torch.zeros(len(states), longest, states[0].shape[-1], device=prefix.device)
        mask = torch.zeros(len(states), longest, dtype=torch.long, device=prefix.device)
        for row, rows in enumerate(states):
            block[row, : len(rows)] = rows
            mask[row, : len(rows)] = 1
        logits: torch.Tensor = self.target.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=block.to(self.target.model.dtype)),
            attention_mask=mask,
            decoder_input_ids=prefix,
            use_cache=False,
        ).logits
        return logits.float()

    def _encode(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """The encoder's output for each article, (length, d)."""
        missing = [index for index in dict.fromkeys(indices) if index not in self._encodings]
        fresh: dict[int, torch.Tensor] = {}
        group = 1 if self.target.device.type == "cpu" else max(1, len(missing))
        for at in range(0, len(missing), group):
            chosen = missing[at : at + group]
            source = padded([self._pairs.source(index) for index in chosen], 0)
            source = source.to(self.target.device)
            states = self.target.model.get_encoder()(
                input_ids=source, attention_mask=(source != 0).long()
            ).last_hidden_state
            for row, index in enumerate(chosen):
                length = int((source[row] != 0).sum())
                # A copy of its own: a part of `states` would keep the whole of it in memory.
                fresh[index] = states[row, :length].to(torch.bfloat16, copy=True)
        found = [fresh[index] if index in fresh else self._encodings[index] for index in indices]
        size = sum(rows.nbytes for rows in fresh.values())
        if self._kept + size > self._keep:
            self._encodings.clear()
            self._kept = 0
        if size <= self._keep:
            self._encodings.update(fresh)
            self._kept += size
        return found


@torch.no_grad()
def write_texts(
    target: HubTarget,
    sources: Sequence[Sequence[int]],
    *,
    length: int,
    temperature: float = 0.0,
) -> list[list[int]]:
    """Lets the target summarise a batch of articles.

    The target's own generation configuration holds, so these texts obey the rules that it decodes
    with (`fastllm.decoding.rules`).

    Args:
        target: the target.
        sources: token ids of the articles, end token included.
        length: the most tokens to write.
        temperature: 0 is greedy.

    Returns:
        The ids written for each article, the end token included where it came.
    """
    source = padded(sources, 0).to(target.device)
    options: dict[str, Any] = {"temperature": temperature, "top_k": 0} if temperature else {}
    size = target.model.generation_config.no_repeat_ngram_size or 0
    if size:
        options["logits_processor"] = LogitsProcessorList([NoRepeatedNgrams(size)])
    rows = target.model.generate(
        input_ids=source,
        attention_mask=(source != 0).long(),
        do_sample=temperature > 0,
        max_new_tokens=length,
        no_repeat_ngram_size=0,  # said above, for all texts at once
        **options,
    )[:, 1:].tolist()
    return [_until_end(row, target.end_ids) for row in rows]


class NoRepeatedNgrams(LogitsProcessor):  # type: ignore[misc] # transformers has no types
    """The rule `no_repeat_ngram_size` of transformers for a batch of texts at once.

    The library's own goes through the texts one by one in Python at every step, which caps the
    texts a second whatever the batch. The scores are the same.

    Args:
        size: no run of so many tokens comes twice.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores (B, V) with those tokens at -inf that would repeat a run of `input_ids`."""
        size = self._size
        if input_ids.shape[1] < size:
            return scores
        runs = input_ids.unfold(1, size, 1)
        last = input_ids[:, input_ids.shape[1] - size + 1 :]
        again = (runs[..., :-1] == last[:, None]).all(-1)
        banned = torch.zeros(scores.shape, dtype=torch.uint8, device=scores.device)
        banned.scatter_reduce_(1, runs[..., -1], again.to(torch.uint8), "amax")
        return scores.masked_fill(banned.bool(), float("-inf"))


def _until_end(row: list[int], ends: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(row, 1) if token in ends), len(row))
    return row[:end]
