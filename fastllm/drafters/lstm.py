"""The LSTM drafter: one recurrent layer that looks things up in the article.

A step costs the same whatever has been written: the LSTM takes the token, then the article is asked
(see `fastllm.drafters.reader`).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fastllm.drafters import FamilySpec
from fastllm.drafters.neural import NeuralDrafter
from fastllm.drafters.reader import (
    Affine,
    ArticleReader,
    FrozenMemory,
    FrozenReader,
    Question,
    ReaderMemory,
    ReaderSettings,
)


@dataclass(frozen=True)
class LstmSettings(ReaderSettings):
    """The sizes of an LSTM drafter: those of `ReaderSettings`, and the LSTM's."""

    hidden: int = 192


class LstmState(NamedTuple):
    """Hidden and cell (B, hidden), and the embedding of the token before (B, width); or rows."""

    hidden: Any
    cell: Any
    before: Any


class LstmModel(ArticleReader):
    """The network; see `NeuralModel` for the contract of its methods."""

    def __init__(self, settings: LstmSettings) -> None:
        super().__init__(settings, settings.hidden)
        self.first = nn.Linear(settings.width, 2 * settings.hidden)
        self.recurrent = nn.LSTM(settings.width, settings.hidden, batch_first=True)

    def begin(self, memory: ReaderMemory) -> LstmState:
        """The state before the first token."""
        hidden, cell = self.first(memory.mean).tanh().chunk(2, -1)
        return LstmState(hidden, cell, torch.zeros_like(memory.mean))

    def step(
        self, memory: ReaderMemory, state: LstmState, ids: torch.Tensor
    ) -> tuple[torch.Tensor, LstmState]:
        """Reads one token of each text."""
        embedded = self.embedding(ids)
        from_token, from_hidden, token_bias, hidden_bias = self.recurrent.all_weights[0]
        gates = functional.linear(embedded, from_token, token_bias)
        gates = gates + functional.linear(state.hidden, from_hidden, hidden_bias)
        enter, forget, fresh, leave = gates.chunk(4, -1)
        cell = forget.sigmoid() * state.cell + enter.sigmoid() * fresh.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        features = self.look_up(memory, embedded, state.before, hidden)
        return features, LstmState(hidden, cell, embedded)

    def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) behind every token of `prefix`."""
        memory = self.remember(source)
        state = self.begin(memory)
        embedded = self.embedding(prefix)
        before = functional.pad(embedded, (0, 0, 1, 0))[:, :-1]
        begun = (state.hidden[None].contiguous(), state.cell[None].contiguous())  # cuDNN's wish
        hidden, _ = self.recurrent(embedded, begun)
        return self.logits(self.look_up(memory, embedded, before, hidden))

    def _frozen(self) -> "FrozenLstm":
        return FrozenLstm(self)


class FrozenLstm(FrozenReader):
    """The network for one text on a CPU."""

    def __init__(self, model: LstmModel) -> None:
        super().__init__(model)
        self._first = Affine(model.first.weight, model.first.bias)
        self._hidden = model.settings.hidden
        from_token, from_hidden, token_bias, hidden_bias = model.recurrent.all_weights[0]
        # One tanh serves all gates: sigmoid(x) = (1 + tanh(x / 2)) / 2.
        scale = torch.full((4, self._hidden, 1), 0.5)
        scale[2] = 1.0
        scale = scale.view(-1, 1)
        weight = torch.cat([from_token, from_hidden], 1) * scale
        self._gates = Affine(weight, (token_bias + hidden_bias) * scale[:, 0])

    def begin(self, memory: FrozenMemory) -> LstmState:
        """The state before the first token."""
        first = np.tanh(self._first(memory.mean))
        return LstmState(first[: self._hidden], first[self._hidden :], np.zeros_like(memory.mean))

    def step(
        self, memory: FrozenMemory, state: LstmState, token: int
    ) -> tuple[Question, LstmState]:
        """Reads one token."""
        embedded = self._table[token]
        gates = self._gates(embedded, state.hidden)
        enter, forget, fresh, leave = np.tanh(gates, out=gates).reshape(4, -1)
        cell = 0.5 * ((forget + 1) * state.cell + (enter + 1) * fresh)
        hidden = (0.5 * leave + 0.5) * np.tanh(cell)
        question = Question(memory, embedded, state.before, hidden)
        return question, LstmState(hidden, cell, embedded)


class LstmDrafter(NeuralDrafter[LstmSettings]):
    """An LSTM as a drafter."""

    FAMILY: ClassVar[str] = "lstm"
    SETTINGS: ClassVar[type] = LstmSettings
    MODEL: ClassVar[Any] = LstmModel


SPEC = FamilySpec("lstm", "LSTM", "an LSTM", LstmDrafter)
