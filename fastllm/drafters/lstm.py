"""The LSTM drafter: one recurrent layer that looks things up in the article.

The article is read once into keys and values, one for each of its tokens. A step costs the same
whatever has been written: the LSTM takes the token, two attention heads ask the article what stood
behind the words just written, and a small layer turns both into a guess.

Half of the attention starts as an induction head (as in `fastllm.distill.copying_start`): its keys
hold the two tokens before each place, its query the last two tokens written, and what it finds is
written straight to the output. So the drafter can copy before it has learned anything; the rest is
training, and everything remains free to move.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from fastllm.drafters.neural import NeuralDrafter, orthonormal
from fastllm.errors import SettingsError


@dataclass(frozen=True)
class LstmSettings:
    """The sizes of an LSTM drafter.

    Attributes:
        vocabulary_size: V, how many ids the target knows.
        width: d, of embeddings and features; divisible by 6.
        hidden: of the LSTM.
        mixing: of the layer between attention and output.
        places: source positions with an embedding of their own; later ones share the last.
    """

    vocabulary_size: int
    width: int = 144
    hidden: int = 192
    mixing: int = 256
    places: int = 256

    def __post_init__(self) -> None:
        if self.width % 6 or min(self.vocabulary_size, self.width, self.hidden, self.mixing) < 1:
            raise SettingsError(
                f"{self}: every size must be above 0, and the width divisible by 6."
            )


class LstmMemory(NamedTuple):
    """The article: keys and values (B, 2, S, width / 2), mask (B, 1, S), and the first state."""

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    first: torch.Tensor


class LstmState(NamedTuple):
    """Hidden and cell (B, hidden), and the embedding of the token before (B, width)."""

    hidden: torch.Tensor
    cell: torch.Tensor
    before: torch.Tensor


_PLACE = 24
"""Width of the embedding of a source position."""


class LstmModel(nn.Module):
    """The network; see `NeuralModel` for the contract of its methods."""

    def __init__(self, settings: LstmSettings) -> None:
        super().__init__()
        self.settings = settings
        width, hidden = settings.width, settings.hidden
        self.embedding = nn.Embedding(settings.vocabulary_size, width)
        self.place = nn.Embedding(settings.places, _PLACE)
        self.key = nn.Linear(4 * width + _PLACE, width)
        self.value = nn.Linear(4 * width + _PLACE, width)
        self.first = nn.Linear(width, 2 * hidden)
        self.recurrent = nn.LSTM(width, hidden, batch_first=True)
        self.query = nn.Linear(2 * width + hidden, width)
        self.mix = nn.Linear(2 * width + hidden, settings.mixing)
        self.out = nn.Linear(settings.mixing, width)
        self.copied = nn.Linear(width // 2, width, bias=False)
        self.norm = nn.RMSNorm(width, eps=1e-6)

    @torch.no_grad()
    def start_copying(
        self, generator: torch.Generator, start_id: int = 0, full_stop: int = 0
    ) -> None:
        """Lays an induction head down in the first attention head.

        Args:
            generator: the source of the random maps.
            start_id: the token before every text.
            full_stop: a summary begins like a sentence, so the start token begins like this one.
        """
        width = self.settings.width
        half, part = width // 2, width // 6
        last = orthonormal(half - part, width, generator)
        earlier = orthonormal(part, width, generator)
        found = orthonormal(half, width, generator)
        nn.init.normal_(self.embedding.weight)
        self.embedding.weight[start_id] = self.embedding.weight[full_stop]
        for layer in (self.key, self.value, self.query):
            layer.weight[:half] = 0.0
            layer.bias[:half] = 0.0
        # A place holds its own token, the one before it, the one before that, the one behind it.
        self.key.weight[: half - part, width : 2 * width] = last
        self.key.weight[half - part : half, 2 * width : 3 * width] = earlier
        self.value.weight[:half, :width] = found
        self.query.weight[: half - part, :width] = 2.5 * last
        self.query.weight[half - part : half, width : 2 * width] = 2.5 * earlier
        self.copied.weight[:] = 3.0 * found.T
        self.out.weight.mul_(0.1)

    def remember(self, source: torch.Tensor) -> LstmMemory:
        """Reads articles (B, S)."""
        embedded = self.embedding(source)
        one = functional.pad(embedded, (0, 0, 1, 0))[:, :-1]
        two = functional.pad(embedded, (0, 0, 2, 0))[:, :-2]
        behind = functional.pad(embedded, (0, 0, 0, 1))[:, 1:]
        index = torch.arange(source.shape[1], device=source.device)
        place = self.place(index.clamp(max=self.settings.places - 1)).expand(len(source), -1, -1)
        seen = torch.cat([embedded, one, two, behind, place], -1)
        real = source != 0
        mean = (embedded * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return LstmMemory(
            _heads(self.key(seen)),
            _heads(self.value(seen)),
            real[:, None],
            self.first(mean).tanh(),
        )

    def begin(self, memory: LstmMemory) -> LstmState:
        """The state before the first token."""
        hidden, cell = memory.first.chunk(2, -1)
        return LstmState(hidden, cell, memory.first.new_zeros(len(hidden), self.settings.width))

    def step(
        self, memory: LstmMemory, state: LstmState, ids: torch.Tensor
    ) -> tuple[torch.Tensor, LstmState]:
        """Reads one token of each text."""
        embedded = self.embedding(ids)
        from_token, from_hidden, token_bias, hidden_bias = self.recurrent.all_weights[0]
        gates = functional.linear(embedded, from_token, token_bias)
        gates = gates + functional.linear(state.hidden, from_hidden, hidden_bias)
        enter, forget, fresh, leave = gates.chunk(4, -1)
        cell = forget.sigmoid() * state.cell + enter.sigmoid() * fresh.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        features = self._look_up(memory, embedded, state.before, hidden)
        return features, LstmState(hidden, cell, embedded)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Features to logits over the vocabulary, through the embedding."""
        scaled = features * self.settings.width**-0.5
        return functional.linear(scaled, self.embedding.weight)

    def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) behind every token of `prefix`."""
        memory = self.remember(source)
        state = self.begin(memory)
        embedded = self.embedding(prefix)
        before = functional.pad(embedded, (0, 0, 1, 0))[:, :-1]
        hidden, _ = self.recurrent(embedded, (state.hidden[None], state.cell[None]))
        return self.logits(self._look_up(memory, embedded, before, hidden))

    def _look_up(
        self,
        memory: LstmMemory,
        embedded: torch.Tensor,
        before: torch.Tensor,
        hidden: torch.Tensor,
    ) -> torch.Tensor:
        """Asks the article and mixes; works on (B, d) as on (B, T, d)."""
        shape = embedded.shape
        rows = (shape[0], -1, shape[-1])
        query = _heads(self.query(torch.cat([embedded, before, hidden], -1)).view(rows))
        scores = (query @ memory.keys.transpose(-1, -2)).masked_fill(
            ~memory.mask[:, None], float("-inf")
        )
        found = (scores.softmax(-1) @ memory.values).transpose(1, 2).reshape(shape)
        mixed = self.out(self.mix(torch.cat([hidden, found, embedded], -1)).relu())
        copied = self.copied(found[..., : self.settings.width // 2])
        features: torch.Tensor = self.norm(mixed + copied)
        return features


class LstmDrafter(NeuralDrafter[LstmSettings]):
    """An LSTM as a drafter."""

    FAMILY: ClassVar[str] = "lstm"
    SETTINGS: ClassVar[type] = LstmSettings
    MODEL: ClassVar[Any] = LstmModel


def _heads(rows: torch.Tensor) -> torch.Tensor:
    """(B, T, width) to (B, 2, T, width / 2)."""
    return rows.view(*rows.shape[:-1], 2, rows.shape[-1] // 2).transpose(1, 2)
