"""Drafters that carry a state from token to token, on CUDA: their steps as graphs.

A step of an LSTM or a CNN is some forty small operations, and launching them takes many times what
they take. So a step is captured once, over buffers that a pool lends to one session at a time, and
replayed. The state behind every token of the text is kept in a table on the device: going back is
setting a length, as in the static engine of the target, whose sessions these resemble.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.utils._pytree import tree_flatten, tree_unflatten

from fastllm.drafters.neural import ArticleText
from fastllm.targets import t5_decoder
from fastllm.targets.graphs import Capturing, Graphs
from fastllm.targets.slate import Choice, Slate, Written
from fastllm.targets.t5_decoder import bucket

_ROOM = 256
"""Tokens that a text has room for at first; it doubles as needed, at the price of the graphs."""

_AT_ONCE = 2
"""A draft begins by reading the target's token, and after a draft that stood whole one more."""


class StepwiseText(ArticleText):
    """A network under the contract of `fastllm.drafters.neural.NeuralModel`, for one text on CUDA.

    The memory is a session, a state is how many tokens it has read. It serves the weights of an
    `ArticleReader` where they lie: replaced ones need another.
    """

    drafts = True

    def __init__(self, model: Any) -> None:
        self.model = model
        weight = model.embedding.weight
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype
        self.size = len(weight)
        self._capturing = Capturing(self.device) if t5_decoder.GRAPHS else None
        self._pool: dict[int, list[_Buffers]] = {}

    @torch.inference_mode()
    def remember(self, source_ids: Sequence[int]) -> "StepwiseSession":
        """Reads an article without padding."""
        memory = self.model.remember(torch.tensor([list(source_ids)], device=self.device))
        sources = bucket(len(source_ids))
        free = self._pool.setdefault(sources, [])
        buffers = free.pop() if free else _Buffers(self, memory, sources, self._capturing)
        session = StepwiseSession(self, buffers)
        weakref.finalize(session, free.append, buffers).atexit = False
        buffers.hold(memory)
        return session

    def begin(self, session: "StepwiseSession") -> int:
        """The state before the first token."""
        return 0

    def read(
        self, session: "StepwiseSession", state: int, tokens: Sequence[int]
    ) -> tuple[Sequence[torch.Tensor], Sequence[int]]:
        """Reads tokens one after the other."""
        session.rollback(state)
        rows = [session.forward(token) for token in tokens]
        return rows, range(state + 1, state + len(tokens) + 1)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Features (d,) to logits (V,)."""
        logits: torch.Tensor = self.model.logits(features)
        return logits


class StepwiseSession:
    """One text in progress, in buffers that were lent."""

    def __init__(self, text: StepwiseText, buffers: "_Buffers") -> None:
        self._text, self._buffers, self._length = text, buffers, 0

    def rollback(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        self._length = max(0, min(self._length, length))

    @torch.inference_mode()
    def forward(self, token: int) -> torch.Tensor:
        """Reads a token; features (d,)."""
        buffers = self._buffers
        buffers.make_room(self._length + 1)
        buffers.entry[:2].copy_(torch.tensor([self._length, token]), non_blocking=True)
        self._length += 1
        return buffers.graphs.replay("read", lambda: buffers.read(1), self._other_numbers)

    @torch.inference_mode()
    def draft(
        self, text: Sequence[int], count: int, choice: Choice, uniforms: torch.Tensor
    ) -> Written | None:
        """As `StaticSession.draft`; without graphs, too, the host waits but once."""
        buffers, total = self._buffers, len(text) + count - 1
        buffers.make_room(total)
        slate, graphs = buffers.slate, buffers.graphs
        if not slate.fits(choice, total):
            return None
        for token in text[self._length : -_AT_ONCE]:
            self.forward(token)
        unread = list(text[self._length :])
        entry = torch.tensor([self._length, *unread])
        buffers.entry[: len(entry)].copy_(entry, non_blocking=True)
        slate.begin(choice, text, uniforms)

        def call(tokens: int) -> tuple[Any, ...]:
            step, moved = self._step(tokens, choice), (buffers.entry, slate.at)
            return ("draft", tokens, choice), step, self._other_numbers, moved

        if choice not in buffers.choices:  # not while a clock runs, once this was warmed up
            buffers.choices.add(choice)
            for tokens in range(1, _AT_ONCE + 1):
                graphs.prepare(*call(tokens))
        for tokens in (len(unread), *[1] * (count - 1)):
            graphs.run(*call(tokens))
        self._length = total
        return slate.take(count, choice)

    def _step(self, count: int, choice: Choice) -> Callable[[], torch.Tensor]:
        """Reads `count` tokens, chooses the next, and puts it where the next step reads it."""
        buffers, logits_of, slate = self._buffers, self._text.logits, self._buffers.slate

        def step() -> torch.Tensor:
            logits = logits_of(buffers.read(count))
            slate.go_on(buffers.entry, count, logits, choice)
            return logits

        return step

    @contextmanager
    def _other_numbers(self) -> Iterator[None]:
        """Other tokens to read, from another state where there is one."""
        buffers = self._buffers
        kept = buffers.entry.clone()
        buffers.entry[1:].add_(1).remainder_(self._text.size)
        if self._length > 0:
            buffers.entry[0] -= 1
        try:
            yield
        finally:
            buffers.entry.copy_(kept)


class _Buffers:
    """An article of up to `sources` tokens, the states of a text, and the graphs over them.

    The memory is of any article, for its shapes. `entry` is how many tokens were read, and those to
    read next; `choices` are those for which drafts were captured.
    """

    def __init__(
        self, text: StepwiseText, memory: Any, sources: int, capturing: Capturing | None
    ) -> None:
        self._text = text
        self._capturing = capturing
        more = sources - memory.keys.shape[2]
        self._memory = memory._replace(
            keys=functional.pad(memory.keys, (0, 0, 0, more)),
            values=functional.pad(memory.values, (0, 0, 0, more)),
            mask=functional.pad(memory.mask, (0, more)),
            mean=memory.mean.clone(),
        )
        leaves, self._form = tree_flatten(text.model.begin(memory))
        self._widths = [leaf.numel() for leaf in leaves]
        self.entry = torch.zeros(_AT_ONCE + 1, dtype=torch.long, device=text.device)
        self._arrange(memory.keys.new_zeros(_ROOM + 1, sum(self._widths)))

    def _arrange(self, states: torch.Tensor) -> None:
        # graphs there were are bound to the old place
        self._states = states
        self.graphs = Graphs(self._capturing)
        text = self._text
        self.slate = Slate(text.size, text.dtype, len(states) - 1, text.device)
        self.choices: set[Choice] = set()

    def make_room(self, total: int) -> None:
        """Makes room for `total` tokens, and keeps the states."""
        room = len(self._states) - 1
        if total <= room:
            return
        while room < total:
            room *= 2
        missing = room + 1 - len(self._states)
        self._arrange(functional.pad(self._states, (0, 0, 0, missing)))

    def hold(self, memory: Any) -> None:
        """Takes an article over, and the state before the first token."""
        count = memory.keys.shape[2]
        for mine, given in zip(self._memory[:3], memory[:3], strict=True):
            mine.zero_()
            mine[:, :, :count] = given
        self._memory.mean.copy_(memory.mean)
        self._states[0] = _row(self._text.model.begin(memory))[0]
        self.entry.zero_()

    def read(self, count: int) -> torch.Tensor:
        """Reads the tokens of the entry, behind the state that it names; features (d,)."""
        place = self.entry[:1]
        row = self._states.index_select(0, place)
        parts = row.split(self._widths, 1)  # type: ignore[no-untyped-call]
        state = tree_unflatten(parts, self._form)
        features = row
        for token in self.entry[1 : count + 1].unbind():
            features, state = self._text.model.step(self._memory, state, token[None])
            place = place + 1
            self._states.index_copy_(0, place, _row(state))
        return features[0]


def _row(state: Any) -> torch.Tensor:
    """A state, whose tensors are (1, n), as one row."""
    return torch.cat(tree_flatten(state)[0], 1)
