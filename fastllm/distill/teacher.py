"""The target as a teacher: its logits for given texts, and texts of its own.

Reading the article costs a small target more than scoring the text, and training comes back to the
same articles every epoch. So the encoder's output is kept, rounded to bfloat16: always rounded, so
that the first use of an article and the later ones train on the same numbers.
"""

from collections.abc import Sequence

import torch
from transformers.modeling_outputs import BaseModelOutput

from fastllm.data.tokens import TokenPairs, padded
from fastllm.targets.hub import HubTarget


class Teacher:
    """A target that scores batches of texts.

    Args:
        target: the target.
        pairs: the articles that texts will be about, by index.
        keep: how many articles' encodings are kept in memory at most.
    """

    def __init__(self, target: HubTarget, pairs: TokenPairs, keep: int = 12_000) -> None:
        self.target = target
        self._pairs = pairs
        self._keep = keep
        self._encodings: dict[int, torch.Tensor] = {}

    @torch.no_grad()
    def logits(self, indices: Sequence[int], prefix: torch.Tensor) -> torch.Tensor:
        """The target's logits (B, T, V) behind every token of `prefix` (B, T).

        Args:
            indices: which articles the texts are about.
            prefix: the texts, each beginning with the start id, padded behind.
        """
        states = [self._encoding(index) for index in self._encode_missing(indices)]
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

    def _encoding(self, index: int) -> torch.Tensor:
        return self._encodings[index]

    def _encode_missing(self, indices: Sequence[int]) -> Sequence[int]:
        missing = [index for index in dict.fromkeys(indices) if index not in self._encodings]
        if len(self._encodings) + len(missing) > self._keep:
            self._encodings.clear()
            missing = list(dict.fromkeys(indices))
        if missing:
            source = padded([self._pairs.source(index) for index in missing], 0)
            source = source.to(self.target.device)
            states = self.target.model.get_encoder()(
                input_ids=source, attention_mask=(source != 0).long()
            ).last_hidden_state
            for row, index in enumerate(missing):
                length = int((source[row] != 0).sum())
                self._encodings[index] = states[row, :length].to(torch.bfloat16)
        return indices


@torch.no_grad()
def write_texts(
    target: HubTarget,
    sources: Sequence[Sequence[int]],
    *,
    length: int,
    temperature: float = 0.0,
) -> list[list[int]]:
    """Lets the target summarise a batch of articles.

    Args:
        target: the target.
        sources: token ids of the articles, end token included.
        length: the most tokens to write.
        temperature: 0 is greedy.

    Returns:
        The ids written for each article, the end token included where it came.
    """
    source = padded(sources, 0).to(target.device)
    options = {"temperature": temperature, "top_k": 0} if temperature else {}
    rows = target.model.generate(
        input_ids=source,
        attention_mask=(source != 0).long(),
        do_sample=temperature > 0,
        max_new_tokens=length,
        **options,
    )[:, 1:].tolist()
    return [_until_end(row, target.end_id) for row in rows]


def _until_end(row: list[int], end_id: int) -> list[int]:
    return row[: row.index(end_id) + 1] if end_id in row else row
