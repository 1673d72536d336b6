"""The CNN drafter: causal convolutions over the last words that look things up in the article.

Three gated convolutions of two taps each, one, two and four tokens apart, see the last eight
tokens (WaveNet's dilation, van den Oord et al. 2016, arXiv:1609.03499; gated linear units for
language, Dauphin et al. 2017, arXiv:1612.08083). Decoding keeps for each layer a ring of its last
inputs, so a step costs the same whatever has been written. Then the article is asked (see
`fastllm.drafters.reader`).
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
    level,
)
from fastllm.errors import SettingsError


@dataclass(frozen=True)
class CnnSettings(ReaderSettings):
    """The sizes of a CNN drafter: those of `ReaderSettings`, and two of the convolutions.

    Attributes:
        channels: of each.
        layers: how many; layer i looks back 2^i tokens, so n layers see the last 2^n.
    """

    channels: int = 160
    layers: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.layers <= 6:
            raise SettingsError(f"{self}: the layers must be from 1 to 6.")
        super().__post_init__()

    @property
    def dilations(self) -> tuple[int, ...]:
        """How many tokens back the second tap of each layer is."""
        return tuple(2**layer for layer in range(self.layers))


class CnnState(NamedTuple):
    """What is carried from token to token; a step shares what it does not change.

    The embedding of the last token (B, width); what the article adds to every token (B, channels);
    for each layer its last inputs, oldest first, each (B, channels). Of one text rows.
    """

    before: Any
    topic: Any
    rings: tuple[tuple[Any, ...], ...]


class CnnModel(ArticleReader):
    """The network; see `NeuralModel` for the contract of its methods."""

    def __init__(self, settings: CnnSettings) -> None:
        super().__init__(settings, settings.channels)
        self.topic = nn.Linear(settings.width, settings.channels)
        self.enter = nn.Linear(settings.width, settings.channels, bias=False)
        self.layers = nn.ModuleList(
            nn.Linear(2 * settings.channels, 2 * settings.channels) for _ in settings.dilations
        )
        self.level = nn.RMSNorm(settings.channels, eps=1e-6)

    def begin(self, memory: ReaderMemory) -> CnnState:
        """The state before the first token: nothing stands there."""
        topic = self.topic(memory.mean)
        nothing = torch.zeros_like(topic)
        rings = tuple((nothing,) * dilation for dilation in self.settings.dilations)
        return CnnState(torch.zeros_like(memory.mean), topic, rings)

    def step(
        self, memory: ReaderMemory, state: CnnState, ids: torch.Tensor
    ) -> tuple[torch.Tensor, CnnState]:
        """Reads one token of each text."""
        embedded = self.embedding(ids)
        flow = self.enter(embedded) + state.topic
        rings = []
        for layer, ring in zip(self.layers, state.rings, strict=True):
            rings.append((*ring[1:], flow))
            flow = flow + functional.glu(layer(torch.cat([ring[0], flow], -1)))
        features = self.look_up(memory, embedded, state.before, self.level(flow))
        return features, CnnState(embedded, state.topic, tuple(rings))

    def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) behind every token of `prefix`."""
        memory = self.remember(source)
        embedded = self.embedding(prefix)
        before = functional.pad(embedded, (0, 0, 1, 0))[:, :-1]
        flow = self.enter(embedded) + self.topic(memory.mean)[:, None]
        length = prefix.shape[1]
        for layer, dilation in zip(self.layers, self.settings.dilations, strict=True):
            past = functional.pad(flow, (0, 0, dilation, 0))[:, :length]
            flow = flow + functional.glu(layer(torch.cat([past, flow], -1)))
        return self.logits(self.look_up(memory, embedded, before, self.level(flow)))

    def _frozen(self) -> "FrozenCnn":
        return FrozenCnn(self)


class FrozenCnn(FrozenReader):
    """The network for one text on a CPU."""

    def __init__(self, model: CnnModel) -> None:
        super().__init__(model)
        self._topic = Affine(model.topic.weight, model.topic.bias)
        self._enter = np.ascontiguousarray(model.enter.weight.detach().t().numpy())
        self._channels = model.settings.channels
        self._dilations = model.settings.dilations
        # The gates of the linear units are halved: sigmoid(x) = (1 + tanh(x / 2)) / 2.
        scale = torch.ones(2 * self._channels)
        scale[self._channels :] = 0.5
        layers: list[Any] = list(model.layers)
        self._layers = [
            Affine(layer.weight * scale[:, None], layer.bias * scale) for layer in layers
        ]
        self._level = model.level.weight.detach().clone().numpy()
        self._level_floor = float(model.level.eps or 0.0)

    def begin(self, memory: FrozenMemory) -> CnnState:
        """The state before the first token: nothing stands there."""
        topic = self._topic(memory.mean)
        nothing = np.zeros_like(topic)
        rings = tuple((nothing,) * dilation for dilation in self._dilations)
        return CnnState(np.zeros_like(memory.mean), topic, rings)

    def step(self, memory: FrozenMemory, state: CnnState, token: int) -> tuple[Question, CnnState]:
        """Reads one token."""
        embedded = self._table[token]
        flow = embedded @ self._enter + state.topic
        rings = []
        for layer, ring in zip(self._layers, state.rings, strict=True):
            rings.append((*ring[1:], flow))
            both = layer(ring[0], flow)
            gate = np.tanh(both[self._channels :])
            flow = flow + both[: self._channels] * (0.5 * gate + 0.5)
        hidden = level(flow, self._level_floor) * self._level
        question = Question(memory, embedded, state.before, hidden)
        return question, CnnState(embedded, state.topic, tuple(rings))


class CnnDrafter(NeuralDrafter[CnnSettings]):
    """A causal CNN as a drafter."""

    FAMILY: ClassVar[str] = "cnn"
    SETTINGS: ClassVar[type] = CnnSettings
    MODEL: ClassVar[Any] = CnnModel


SPEC = FamilySpec("cnn", "CNN", "a convolutional network", CnnDrafter)
