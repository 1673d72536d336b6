"""The copy mixture: a learned gate between a network's distribution and the article's own words.

A pointer attends to the places of the article by the words before them, and says how likely it is
that the word of each place comes next; a gate says how far to believe it:

    q(x) = (1 - g) softmax(logits)(x) + g sum over places i of a_i [word_i = x]

Both parts sum to 1, so q does, and log q can stand wherever logits do: in losses, under a
temperature, in a draw. What is drawn from q is judged with q, which keeps speculation exact.

Source: See et al. 2017, "Get To The Point", arXiv:1704.04368; Gu et al. 2016, "CopyNet",
arXiv:1603.06393.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from fastllm.drafters.neural import OneText
from fastllm.drafters.reader import orthonormal

CONTEXT = 3
"""Words that the pointer goes by."""

_SHARE = 21
"""Width of the pointer for each of them."""

_SHUT = -2.0
"""The gate at first: nearly shut, since the network copies as well."""


class CopyMemory(NamedTuple):
    """The article as the pointer sees it.

    Attributes:
        source: its words, ids (B, S).
        keys: of its places, (B, S, width).
        mask: 0 where a word stands and -inf where padding does, (B, 1, S).
    """

    source: torch.Tensor
    keys: torch.Tensor
    mask: torch.Tensor


class CopyMixture(nn.Module):
    """Pointer and gate.

    It starts as an induction head: keys hold the words before each place, queries the last words
    written, through the same random maps, so that it points at once to where they stood.

    Args:
        width: d, of embeddings and of the encoder's output.
        generator: the source of the random maps.
    """

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        share = min(_SHARE, width // CONTEXT)
        self.query = nn.Linear(CONTEXT * width, CONTEXT * share)
        self.key = nn.Linear(CONTEXT * width, CONTEXT * share)
        self.place = nn.Linear(width, CONTEXT * share, bias=False)
        self.gate = nn.Linear(CONTEXT * share + 1, 1)
        with torch.no_grad():
            for layer in (self.query, self.key, self.place, self.gate):
                for weight in layer.parameters():
                    weight.zero_()
            maps = torch.split(orthonormal(CONTEXT * share, width, generator), share)
            for back, part in enumerate(maps):
                rows = slice(back * share, (back + 1) * share)
                columns = slice(back * width, (back + 1) * width)
                # Embeddings of a T5 have a variance near 1: the last word alone decides by e^12.
                self.query.weight[rows, columns] = part * 12 / share / (1 + back)
                self.key.weight[rows, columns] = part
            self.gate.bias.fill_(_SHUT)

    def remember(
        self, source: torch.Tensor, embedded: torch.Tensor, states: torch.Tensor
    ) -> CopyMemory:
        """Reads articles.

        Args:
            source: ids (B, S), padded with 0.
            embedded: their embeddings (B, S, d).
            states: the target's encoder output (B, S, d).
        """
        real = source != 0
        embedded = embedded * real[..., None]
        before = [
            functional.pad(embedded, (0, 0, back, 0))[:, : source.shape[1]]
            for back in range(1, CONTEXT + 1)
        ]
        keys = self.key(torch.cat(before, -1)) + self.place(states)
        mask = torch.zeros(real.shape, dtype=keys.dtype, device=keys.device)
        return CopyMemory(source, keys, mask.masked_fill(~real, float("-inf"))[:, None])

    def forward(
        self, memory: CopyMemory, recent: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """Log q (B, T, V).

        Args:
            memory: the articles.
            recent: embeddings of the last words before each place, the last one first,
                (B, T, CONTEXT * d).
            logits: of the network, (B, T, V).
        """
        query = self.query(recent)
        attention = (query @ memory.keys.transpose(1, 2) + memory.mask).softmax(-1)
        surest = attention.amax(-1, keepdim=True)
        gate = self.gate(torch.cat([query, surest], -1)).sigmoid()
        mixed = (1 - gate) * logits.softmax(-1)
        places = memory.source[:, None].expand(attention.shape)
        q: torch.Tensor = mixed.scatter_add(-1, places, gate * attention)
        return q.clamp(min=_LEAST).log()


_LEAST = 1e-30
"""What a probability of 0 is taken for: its logarithm must be a number."""


def windows(before: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
    """Each place's last words side by side, its own first, (B, T, CONTEXT * d).

    Args:
        before: embeddings of the CONTEXT - 1 words before the first place, the latest last.
        embedded: embeddings of the words of the places, (B, T, d).
    """
    count = embedded.shape[1]
    whole = torch.cat([before, embedded], 1)
    ends = range(CONTEXT - 1, -1, -1)
    return torch.cat([whole[:, end : end + count] for end in ends], -1)


class Mixing:
    """A network with the copy mixture behind it, under the contract of `NeuralModel`.

    The memory is a pair, (the network's, the mixture's). A state is a pair, too: (the network's,
    embeddings of the last words). Features are log q.

    Args:
        network: what the mixture stands behind.
        mixture: pointer and gate.
        embedding: a row for each token, (V, d).
    """

    def __init__(self, network: Any, mixture: CopyMixture, embedding: torch.Tensor) -> None:
        self._network = network
        self._mixture = mixture
        self._embedding = embedding

    def begin(self, memory: tuple[Any, CopyMemory]) -> tuple[Any, torch.Tensor]:
        """The state before the first token: nothing stands there."""
        shape = (len(memory[1].source), CONTEXT - 1, self._embedding.shape[1])
        return self._network.begin(memory[0]), self._embedding.new_zeros(shape)

    def step(
        self, memory: tuple[Any, CopyMemory], state: tuple[Any, torch.Tensor], ids: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Any, torch.Tensor]]:
        """Reads one token of each text."""
        features, after = self._network.step(memory[0], state[0], ids)
        embedded = functional.embedding(ids, self._embedding)[:, None]
        log_q = self._mix(memory[1], state[1], embedded, features[:, None])
        return log_q[:, 0], (after, torch.cat([state[1][:, 1:], embedded], 1))

    def read(
        self, memory: tuple[Any, CopyMemory], state: tuple[Any, torch.Tensor], ids: torch.Tensor
    ) -> tuple[torch.Tensor, list[tuple[Any, torch.Tensor]]]:
        """Reads T tokens of each text, ids (B, T), in one call."""
        features, states = self._network.read(memory[0], state[0], ids)
        embedded = functional.embedding(ids, self._embedding)
        whole = torch.cat([state[1], embedded], 1)
        pairs = [
            (after, whole[:, place + 1 : place + CONTEXT]) for place, after in enumerate(states)
        ]
        return self._mix(memory[1], state[1], embedded, features), pairs

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """What was computed already."""
        return features

    def _mix(
        self,
        copy: CopyMemory,
        before: torch.Tensor,
        embedded: torch.Tensor,
        features: torch.Tensor,
    ) -> torch.Tensor:
        logits = self._network.logits(features)
        mixed: torch.Tensor = self._mixture(copy, windows(before, embedded), logits)
        return mixed


class MixingText(OneText):
    """The same for one text: what `OneText` asks for, over another one.

    The memory and the states are the network's, the latter with the ids of the last words. Features
    are the network's, with the embeddings of those words: log q is computed where it is asked for.

    Args:
        network: what the mixture stands behind.
        mixture: pointer and gate.
        embedding: a row for each token, (V, d).
        copy: the article.
    """

    def __init__(
        self, network: OneText, mixture: CopyMixture, embedding: torch.Tensor, copy: CopyMemory
    ) -> None:
        self.device = network.device
        self._network = network
        self._mixture = mixture
        self._embedding = embedding
        self._copy = copy

    def begin(self, memory: Any) -> tuple[Any, torch.Tensor]:
        """The state before the first token: nothing stands there."""
        nothing = self._embedding.new_zeros(CONTEXT - 1, self._embedding.shape[1])
        return self._network.begin(memory), nothing

    def read(
        self, memory: Any, state: tuple[Any, torch.Tensor], tokens: Sequence[int]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """Reads tokens, at least one."""
        features, states = self._network.read(memory, state[0], tokens)
        ids = torch.tensor(tokens, device=self.device)
        whole = torch.cat([state[1], functional.embedding(ids, self._embedding)])
        ends = range(CONTEXT, CONTEXT + len(tokens))
        last = [whole[end - CONTEXT : end] for end in ends]
        return (
            list(zip(features, last, strict=True)),
            [(after, rows[1:]) for after, rows in zip(states, last, strict=True)],
        )

    def logits(self, features: tuple[Any, torch.Tensor]) -> torch.Tensor:
        """Log q (V,)."""
        logits = self._network.logits(features[0])
        recent = features[1].flip(0).reshape(1, 1, -1)
        log_q: torch.Tensor = self._mixture(self._copy, recent, logits[None, None])
        return log_q[0, 0]
