"""What a drafter costs: weights, bytes, and microseconds a drafted token."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import median

import torch

from fastllm.decoding.rules import agreeing
from fastllm.drafters import Drafter
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.targets.hub import synchronize
from fastllm.trace import DecodingConfig

STORED = (".safetensors", ".npz")
"""How the files end that hold weights or a table."""

GREEDY = DecodingConfig()
"""Greedy, with drafts of the usual length."""


@dataclass(frozen=True)
class Cost:
    """The cost of a drafter, measured where it is asked for.

    Attributes:
        parameters: see `Drafter.parameters`.
        bytes: what its weights or its table take on disk.
        begin_microseconds: to prepare for an article; the median.
        step_microseconds: of a text's drafts, divided by their tokens (by 1 where there is none);
            the median over texts. What it reads to catch up with the text is counted in.
    """

    parameters: int
    bytes: int
    begin_microseconds: float
    step_microseconds: float


class CostMeter:
    """Measures a drafter article by article, so that other work can lie between.

    It drafts along a text, as in greedy speculation: what agrees with the text stands, and the
    text's next token behind it. Where there is no text, its drafts are taken for one; and where it
    drafts nothing then, or an end token, the article's next word.

    The settings give the draft length, and the rules that drafts keep to; a text is followed up to
    `length`.

    Raises:
        SettingsError: the length is below 1.
    """

    def __init__(
        self,
        drafter: Drafter,
        config: DecodingConfig = GREEDY,
        *,
        start_id: int = 0,
        length: int = 40,
    ) -> None:
        if length < 1:
            raise SettingsError(f"length={length}: give at least 1.")
        self._drafter, self._config = drafter, config
        self._start_id, self._length = start_id, length
        self._begins: list[float] = []
        self._steps: list[float] = []
        # Before anything is measured: to count bytes it makes a copy of the weights for a moment.
        self._parameters, self._bytes = drafter.parameters, bytes_of(drafter)

    def warm_up(self, encoding: Encoding) -> None:
        """Measures on an article, and forgets it."""
        self._one(encoding, None)

    def measure(self, encoding: Encoding, text: Sequence[int] | None = None) -> None:
        """Measures on an article, along what the target wrote of it."""
        begin, step = self._one(encoding, text)
        self._begins.append(begin)
        self._steps.append(step)

    def cost(self) -> Cost:
        """The medians so far.

        Raises:
            SettingsError: nothing was measured yet.
        """
        if not self._begins:
            raise SettingsError("no article was measured yet: measure one first.")
        begin, step = median(self._begins) * 1e6, median(self._steps) * 1e6
        return Cost(self._parameters, self._bytes, begin, step)

    def _one(self, encoding: Encoding, text: Sequence[int] | None) -> tuple[float, float]:
        """Seconds to begin, and the mean of the seconds a drafted token."""
        gamma, device = self._config.gamma, encoding.states.device
        uniforms = torch.zeros(gamma, dtype=torch.float64)
        synchronize(device)
        started = time.perf_counter()
        session = self._drafter.begin(encoding)
        synchronize(device)
        begin = time.perf_counter() - started
        written, seconds, drafted = [self._start_id], 0.0, 0
        until = self._length if text is None else min(self._length, len(text))
        while len(written) <= until:
            started = time.perf_counter()
            draft = session.draft(written, gamma, self._config, uniforms)
            seconds += time.perf_counter() - started  # a draft ends when its tokens are read
            drafted += max(1, len(draft.tokens))
            if text is None:  # the text is its own, and does not end
                added = list(takewhile(lambda token: token != encoding.end_id, draft.tokens))
                added = added or [encoding.source_ids[len(written) % len(encoding.source_ids)]]
            else:
                rest = text[len(written) - 1 :]
                added = list(rest[: agreeing(draft.tokens, rest) + 1])
            written += added
            session.accept(added)
        return begin, seconds / max(1, drafted)


def bytes_of(drafter: Drafter) -> int:
    """What a drafter's weights, or its table, take on disk; 0 where there is nothing to save."""
    with tempfile.TemporaryDirectory() as folder:
        drafter.save(folder)
        return bytes_in(folder)


def bytes_in(folder: str | Path) -> int:
    """What the weights, or the table, in a checkpoint's folder take; 0 where there are none."""
    files = (path for kind in STORED for path in Path(folder).rglob(f"*{kind}"))
    return sum(path.stat().st_size for path in files)
