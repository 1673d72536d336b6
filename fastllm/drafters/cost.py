"""What a drafter costs: weights, bytes, and microseconds a drafted token."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from fastllm.drafters import Drafter
from fastllm.drafters.combined import CombinedDrafter
from fastllm.drafters.ngram import NgramDrafter
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig


@dataclass(frozen=True)
class Cost:
    """The cost of a drafter, measured where it is asked for.

    Attributes:
        parameters: weights of its own; of an n-gram the entries of its table.
        bytes: what its weights or its table take on disk.
        begin_microseconds: to prepare for an article; the median.
        step_microseconds: of a draft, divided by its tokens; the median. What it reads to catch up
            with the text is counted in.
    """

    parameters: int
    bytes: int
    begin_microseconds: float
    step_microseconds: float


def cost_of(
    drafter: Drafter,
    encodings: Sequence[Encoding],
    *,
    start_id: int = 0,
    gamma: int = DecodingConfig.gamma,
    length: int = 40,
    repeats: int = 3,
) -> Cost:
    """Measures a drafter on articles, greedily, its own drafts being taken for the text.

    Where it drafts nothing, the article's next word is written instead.

    Args:
        drafter: any.
        encodings: articles, as its target has encoded them.
        start_id: the token before every text.
        gamma: tokens a draft.
        length: of each text.
        repeats: how often each article is measured, after once to warm up.

    Raises:
        SettingsError: there is no article, or a number is below 1.
    """
    if not encodings or min(gamma, length, repeats) < 1:
        raise SettingsError(
            f"{len(encodings)} articles, gamma={gamma}, length={length}, repeats={repeats}: all "
            "must be at least 1."
        )
    begins: list[float] = []
    steps: list[float] = []
    for round_ in range(repeats + 1):
        for encoding in encodings:
            begin, own = _one(drafter, encoding, start_id, gamma, length)
            if round_:
                begins.append(begin)
                steps += own
    return Cost(weights_in(drafter), bytes_of(drafter), median(begins) * 1e6, median(steps) * 1e6)


def weights_in(drafter: Drafter) -> int:
    """How many weights a drafter has of its own; of an n-gram, the entries of its table."""
    if isinstance(drafter, CombinedDrafter):
        return weights_in(drafter.other)
    if isinstance(drafter, NgramDrafter):
        return sum(drafter.counts.entries)
    return int(getattr(drafter, "parameters", 0))


def bytes_of(drafter: Drafter) -> int:
    """What a drafter's weights, or its table, take on disk; 0 where there is nothing to save."""
    if isinstance(drafter, CombinedDrafter):
        return bytes_of(drafter.other)
    whole: Any = drafter
    if not hasattr(whole, "save"):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        whole.save(folder)
        return sum(path.stat().st_size for path in Path(folder).iterdir() if path.suffix != ".json")


def _one(
    drafter: Drafter, encoding: Encoding, start_id: int, gamma: int, length: int
) -> tuple[float, list[float]]:
    """Seconds to begin, and seconds a token of each draft."""
    config = DecodingConfig(gamma=gamma)
    uniforms = torch.zeros(gamma, dtype=torch.float64)
    started = time.perf_counter()
    session = drafter.begin(encoding)
    begin = time.perf_counter() - started
    text, steps = [start_id], []
    while len(text) <= length:
        started = time.perf_counter()
        draft = session.draft(text, gamma, config, uniforms)
        seconds = time.perf_counter() - started
        steps.append(seconds / max(1, len(draft.tokens)))
        place = len(text) % len(encoding.source_ids)
        added = draft.tokens or [encoding.source_ids[place]]
        text += added
        session.accept(added)
    return begin, steps
