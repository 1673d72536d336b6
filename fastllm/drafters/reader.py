"""How the small drafters see the article: keys and values computed once, two attention heads.

The LSTM and the CNN differ in how they sum up what was written. What they do with it is the same,
and is here: they ask the article what stood behind the words just written, and a small layer turns
the answer and the summary into a guess.

A text that leaves words of the article out is copied with gaps. So every word of the article has a
gate, learned from the word alone: how far it passes for the word behind it.

Half of the attention starts as an induction head (as in `fastllm.pretrain.copying_start`): its keys
hold the two tokens before each place, its query the last two tokens written, and what it finds is
written straight to the output. So such a drafter can copy before it has learned anything; the rest
is training, and everything remains free to move.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fastllm.drafters.neural import ArticleText
from fastllm.drafters.stepwise import StepwiseText
from fastllm.errors import SettingsError
from fastllm.targets.encodings import real_places
from fastllm.targets.matrices import matrix


@dataclass(frozen=True)
class ReaderSettings:
    """The sizes that these drafters share.

    Attributes:
        vocabulary_size: V, how many ids the target knows.
        width: d, of embeddings and features; divisible by 6.
        mixing: of the layer between attention and output.
        places: source positions with an embedding of their own; later ones share the last.
    """

    vocabulary_size: int
    width: int = 144
    mixing: int = 256
    places: int = 256

    def __post_init__(self) -> None:
        if self.width % 6 or min(astuple(self)) < 1:
            raise SettingsError(
                f"{self}: every size must be above 0, and the width divisible by 6."
            )


class ReaderMemory(NamedTuple):
    """The article.

    Keys and values of its places (B, 2, S, width / 2), which of them are no padding (B, 1, S), its
    mean embedding (B, width).
    """

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    mean: torch.Tensor


_PLACE = 24
"""Width of the embedding of a source position."""

_CLOSED = -3.0
"""The gates of the words at first: nearly closed."""


class ArticleReader(nn.Module, ABC):
    """The part of a drafter's network that looks things up in the article.

    A subclass adds `begin`, `step` and `forward`: see `fastllm.drafters.neural.NeuralModel`. Its
    summary of what was written has the width `hidden`.
    """

    def __init__(self, settings: Any, hidden: int) -> None:
        super().__init__()
        self.settings = settings
        width: int = settings.width
        self.embedding = nn.Embedding(settings.vocabulary_size, width)
        self.place = nn.Embedding(settings.places, _PLACE)
        self.skip = nn.Linear(width, 1)
        nn.init.zeros_(self.skip.weight)
        nn.init.constant_(self.skip.bias, _CLOSED)
        self.key = nn.Linear(4 * width + _PLACE, width)
        self.value = nn.Linear(4 * width + _PLACE, width)
        self.query = nn.Linear(2 * width + hidden, width)
        self.mix = nn.Linear(2 * width + hidden, settings.mixing)
        self.out = nn.Linear(settings.mixing, width)
        self.copied = nn.Linear(width // 2, width, bias=False)
        self.norm = nn.RMSNorm(width, eps=1e-6)

    @torch.no_grad()
    def start_copying(
        self, generator: torch.Generator, start_id: int = 0, full_stop: int = 0
    ) -> None:
        """Lays an induction head of random maps down in the first attention head.

        A summary begins like a sentence, so the start token begins like `full_stop`.
        """
        width = self.settings.width
        half, part = width // 2, width // 6
        last = orthonormal(half - part, width, generator)
        earlier = orthonormal(part, width, generator)
        found = orthonormal(half, width, generator)
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

    def remember(self, source: torch.Tensor) -> ReaderMemory:
        """Reads articles (B, S), padded with 0."""
        real = real_places(source)
        # Padding is as nothing: a batch sees of an article what is seen of it alone.
        embedded = self.embedding(source) * real[..., None]
        one = functional.pad(embedded, (0, 0, 1, 0))[:, :-1]
        two = functional.pad(embedded, (0, 0, 2, 0))[:, :-2]
        behind = functional.pad(embedded, (0, 0, 0, 1))[:, 1:]
        index = torch.arange(source.shape[1], device=source.device)
        place = self.place(index.clamp(max=self.settings.places - 1)).expand(len(source), -1, -1)
        keys = self.key(torch.cat([embedded, one, two, behind, place], -1))
        shown = torch.lerp(embedded, behind, self.skip(embedded).sigmoid())
        values = self.value(torch.cat([shown, one, two, behind, place], -1))
        mean = embedded.sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return ReaderMemory(_heads(keys), _heads(values), real[:, None], mean)

    def frozen(self) -> ArticleText | None:
        """The network for one text, with the weights as they are.

        In float32 on a CPU or wherever on CUDA; None elsewhere.
        """
        if self.embedding.weight.device.type == "cuda":
            return StepwiseText(self)
        if any(w.device.type != "cpu" or w.dtype != torch.float32 for w in self.parameters()):
            return None
        return self._frozen()

    def _frozen(self) -> ArticleText | None:
        return None

    @abstractmethod
    def step(self, memory: ReaderMemory, state: Any, ids: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Reads one token of each text."""

    def read(
        self, memory: ReaderMemory, state: Any, ids: torch.Tensor
    ) -> tuple[torch.Tensor, list[Any]]:
        """Reads T tokens of each text, ids (B, T), one after the other."""
        features, states = [], [state]
        for column in ids.unbind(1):
            row, state = self.step(memory, state, column)
            features.append(row)
            states.append(state)
        return torch.stack(features, 1), states[1:]

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Features (..., width) to logits (..., V), through the embedding."""
        scaled = features * self.settings.width**-0.5
        return functional.linear(scaled, self.embedding.weight)

    def look_up(
        self,
        memory: ReaderMemory,
        embedded: torch.Tensor,
        before: torch.Tensor,
        hidden: torch.Tensor,
    ) -> torch.Tensor:
        """Asks the article and mixes, as `Question` has it; (B, d) as (B, T, d), to features."""
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


Row = np.ndarray
"""A vector, float32."""


class FrozenMemory(NamedTuple):
    """The article, for one text: keys and values (2, S, width / 2), its mean embedding (width,)."""

    keys: np.ndarray
    values: np.ndarray
    mean: Row


class Question(NamedTuple):
    """What the article is asked behind a token, once somebody wants to know the logits there.

    `embedded` is the token, (width,), `before` the one before it, or zeros, `hidden` the summary of
    what was written.
    """

    memory: FrozenMemory
    embedded: Row
    before: Row
    hidden: Row


class FrozenReader(ArticleText):
    """An `ArticleReader` for one text on a CPU: the same arithmetic, over weights laid out for it.

    With rows of a few hundred numbers, calling an operation costs more than its arithmetic: several
    microseconds in torch, less than one in numpy. So all is numpy but the output matrix, which is
    most of the weights, and which torch reads with all its threads. Features are a question: the
    article is asked only where logits are wanted, not behind tokens that are merely caught up with.

    A subclass adds `begin` and `step`.
    """

    def __init__(self, model: ArticleReader) -> None:
        self._model = model
        self._half = model.settings.width // 2
        self._table = model.embedding.weight.detach().numpy()
        self._query = Affine(model.query.weight, model.query.bias)
        self._mix = Affine(model.mix.weight, model.mix.bias)
        both = torch.cat([model.out.weight, model.copied.weight], 1)
        self._out = Affine(both, model.out.bias)
        self._floor = float(model.norm.eps or 0.0)
        # What the norm and `logits` multiply with.
        self._scale: Row = (model.norm.weight * model.settings.width**-0.5).detach().numpy()
        self._output = matrix([model.embedding.weight.detach()])

    def remember(self, source_ids: Sequence[int]) -> FrozenMemory:
        """Reads an article without padding."""
        with torch.no_grad():
            keys, values, _, mean = self._model.remember(torch.tensor([source_ids]))
        return FrozenMemory(*(part[0].numpy() for part in (keys, values, mean)))

    @abstractmethod
    def step(self, memory: FrozenMemory, state: Any, token: int) -> tuple[Question, Any]:
        """Reads one token."""

    def read(
        self, memory: FrozenMemory, state: Any, tokens: Sequence[int]
    ) -> tuple[list[Question], list[Any]]:
        """Reads tokens one after the other."""
        questions, states = [], []
        for token in tokens:
            question, state = self.step(memory, state, token)
            questions.append(question)
            states.append(state)
        return questions, states

    def logits(self, features: Question) -> torch.Tensor:
        """Asks the article and mixes; logits (V,)."""
        memory, embedded, before, hidden = features
        query = self._query(embedded, before, hidden).reshape(2, self._half, 1)
        scores = np.matmul(memory.keys, query)[:, :, 0]
        scores -= np.maximum.reduce(scores, 1, keepdims=True)
        weights = np.exp(scores, out=scores)
        weights /= np.add.reduce(weights, 1, keepdims=True)
        found = np.matmul(weights[:, None], memory.values).ravel()
        mixed = self._mix(hidden, found, embedded)
        row = self._out(np.maximum(mixed, 0, out=mixed), found[: self._half])
        row = level(row, self._floor) * self._scale
        return self._output(torch.from_numpy(row)[None])[0]


class Affine:
    """An affine map of rows by a weight (out, in) and a bias (out,), laid out for one at a time."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self._across: np.ndarray = weight.detach().t().contiguous().numpy()
        self._bias: Row = bias.detach().clone().numpy()

    def __call__(self, *parts: Row) -> Row:
        """Maps the parts, one behind the other, to a new row."""
        row = np.concatenate(parts) if len(parts) > 1 else parts[0]
        product: Row = row @ self._across
        product += self._bias
        return product


def level(row: Row, floor: float) -> Row:
    """RMSNorm without its weights."""
    return row * np.float32((float(row @ row) / len(row) + floor) ** -0.5)


def orthonormal(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """`rows` random orthonormal vectors of `columns` numbers, as initial weights of lookups."""
    square = torch.randn(columns, columns, generator=generator)
    whole: torch.Tensor = torch.linalg.qr(square).Q
    return whole[:rows].contiguous()


def _heads(rows: torch.Tensor) -> torch.Tensor:
    """(B, T, width) to (B, 2, T, width / 2)."""
    return rows.view(*rows.shape[:-1], 2, rows.shape[-1] // 2).transpose(1, 2)
