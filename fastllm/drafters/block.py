"""The block drafter: a whole draft in one call, where others take a call for each token.

It is a shared-encoder drafter (see `fastllm.drafters.shared`) that reads the text so far and then
as many masks as there are tokens left to draft. The row of the last written token gives the first
drafted token as ever; the row of each mask gives one that stands further on. A row does not see
which tokens were drafted before its own, so a low-rank Markov head adds what the token just before
it says of a token: logits + W1[token before] W2. That makes q exact by the chain, at the price of a
small product a token, and the layers are run once a draft.

In training each text is cut into blocks, the first cut at a place that differs from batch to batch.
Every place is predicted once, from what stands before its block and from the masks up to it, with
the Markov head reading the token that is really there.

Source: the block as one call, Chen et al. 2026, "DFlash", arXiv:2602.06036 (there conditioned on
hidden states of a decoder-only target); the Markov head, "DSpark", arXiv:2607.05147. Neither is of
an encoder-decoder, where the encoder's output stands for the hidden states.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from fastllm.decoding.proposals import DenseProposal, Draft, OneHotProposal
from fastllm.decoding.rules import agreeing
from fastllm.devices import aligned
from fastllm.drafters import DrafterSession, FamilySpec
from fastllm.drafters.length import falls_back
from fastllm.drafters.neural import NeuralSession
from fastllm.drafters.shared import SharedDrafter, SharedModel, SharedSettings
from fastllm.drafters.width import fitted
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig

MASK = 0
"""The token that stands for one to be drafted: the padding id of every T5, which no text holds
after its start."""


@dataclass(frozen=True)
class BlockSettings(SharedSettings):
    """The sizes of a block drafter; all but the last two and `layers` are its target's.

    Attributes:
        block: the most tokens of a draft.
        rank: of the Markov head.
    """

    block: int = 8
    rank: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.block, self.rank) < 1:
            raise SettingsError(f"{self}: every size must be above 0.")


class MarkovHead(nn.Module):
    """What the token before says of a token, in low rank: W1[token] W2, zero at first."""

    def __init__(self, size: int, rank: int) -> None:
        super().__init__()
        self.before = nn.Embedding(size, rank)
        self.after = nn.Linear(rank, size, bias=False)
        nn.init.zeros_(self.after.weight)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (...) to what is added to the logits of the next, (..., V)."""
        found: torch.Tensor = self.after(self.before(ids))
        return found


class BlockModel(SharedModel):
    """The network: see `NeuralModel` for the contract of its methods.

    Read token by token (`step`, `read`) it is the shared-encoder drafter that its layers make.
    """

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__(settings)
        self.block = settings.block
        self.markov = MarkovHead(settings.vocabulary_size, settings.rank)

    def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) after every token of `prefix`, drafted in blocks.

        Where the first block ends is read off the batch: other batches have other blocks, and a
        resumed run the same ones.
        """
        return self.in_blocks(source, prefix, prefix.sum() % self.block)

    def in_blocks(
        self, source: torch.Tensor, prefix: torch.Tensor, cut: int | torch.Tensor
    ) -> torch.Tensor:
        """The logits (B, T, V) after every token of texts (B, T) that are drafted block by block.

        The first block has `cut` tokens, less than `block`; 0: a whole one.
        """
        memory = self.remember(source)
        count = prefix.shape[1]
        place = torch.arange(count, device=prefix.device)
        # The last written token before each place's block, and how far from it the place is.
        anchor = (place - (place - cut) % self.block).clamp(min=0)
        slot = place - anchor
        back = (place[:, None] - place).repeat(2, 2)
        before = place <= anchor[:, None]
        together = (anchor[:, None] == anchor) & (slot > 0) & (place <= place[:, None])
        seen = torch.cat(
            [
                torch.cat([place <= place[:, None], torch.zeros_like(before)], 1),
                torch.cat([before, together], 1),
            ]
        )
        farthest = memory.biases.shape[1] - 1
        bias = memory.biases[:, back.clamp(0, farthest)].masked_fill(~seen, float("-inf"))
        ids = torch.cat([prefix, torch.full_like(prefix, MASK)], 1)
        features = self.decoder.run(memory, ids, aligned(bias[None]))
        first = (slot == 0)[:, None]
        features = torch.where(first, features[:, :count], features[:, count:])
        logits: torch.Tensor = self.markov(prefix).masked_fill(first, 0.0)
        return logits + self.logits(features)


class BlockSession(NeuralSession):
    """A block drafter at work on one article, with the head of its network; see `NeuralSession`."""

    def __init__(
        self,
        model: Any,
        memory: Any,
        end_id: int | None,
        markov: MarkovHead,
        block: int,
        *,
        draft_temperature: float | None = None,
    ) -> None:
        super().__init__(model, memory, end_id, draft_temperature=draft_temperature)
        self._markov, self._block = markov, block

    @torch.inference_mode()
    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes up to `k` tokens, no more than a block; with adaptive length maybe fewer."""
        config = config.drafting(self._temperature)
        self._length.begin(config)
        k = min(k, self._block)
        read = len(prefix)
        same = min(agreeing(prefix, self._read), read - 1)
        self._go_back(same)
        self._feed([*prefix[same:], *[MASK] * (k - 1)])
        features = self._features[read - 1 :]
        self._go_back(read)  # the masks are no part of the text

        text, numbers = list(prefix), uniforms.tolist()
        kept: list[torch.Tensor] = []
        rows: list[torch.Tensor] = []
        for place, row in enumerate(features):
            logits = self._model.logits(row).float()
            if place:
                before = torch.tensor(text[-1], device=logits.device)
                logits = logits + self._markov(before).float()
            if falls_back(logits, config):
                break
            kept.append(logits)
            text.append(self._choose(logits, text, config, numbers[place], rows))
            if self._stops(text[-1], logits, config):
                break
        tokens = text[read:]
        q = DenseProposal(torch.stack(rows)) if rows else OneHotProposal(tokens)
        return Draft(tokens, q, lambda position: kept[position].softmax(-1))


class BlockDrafter(SharedDrafter):
    """A decoder layer or two over the target's encoder output that draft whole blocks."""

    FAMILY: ClassVar[str] = "block"
    SETTINGS: ClassVar[Any] = BlockSettings
    MODEL: ClassVar[Any] = BlockModel
    CHOSEN: ClassVar[Mapping[str, int]] = {"layers": 2, "block": 8, "rank": 32}

    def _session(self, model: Any, memory: Any, encoding: Encoding) -> DrafterSession:
        head, block = self.model.markov, self.model.block
        session = BlockSession(
            model, memory, encoding.end_id, head, block, draft_temperature=self.draft_temperature
        )
        return fitted(session, self.settings.vocabulary_size, encoding)


SPEC = FamilySpec(
    "block",
    "block",
    "a decoder layer or two over the encoder output of its target, a whole draft in one call",
    BlockDrafter,
    bound_to_target=True,
)
