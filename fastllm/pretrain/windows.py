"""Windows of articles with the texts to write about them, as token arrays that feed a device.

An article is stored once. A window is a part of it: which article, from which token on, and how
many. So several texts about the same article cost no more than their own tokens. A folder holds
`source.npy` and `source_ends.npy` (all articles, in one row), `windows.npy` (article, first token,
tokens, kind), `text.npy` and `text_ends.npy` (the texts, end token included), the vocabulary in
`tokenizer/`, and `meta.json`, which is written last.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastllm.data.tokens import IGNORED, Sequences, save_array, save_sequences, start_set
from fastllm.errors import DataError, SettingsError
from fastllm.files import object_in, write_json
from fastllm.vocabulary import Vocabulary

_SORTED = 32
"""Batches among which texts of like length are put together, so that little is padding."""

_MOST_PIECES = 1 << 15
"""What a signed number of two bytes can tell apart."""

TEXT_STEP = 16
"""Texts are padded to a multiple of so many tokens: few shapes, which a GPU likes."""


@dataclass(frozen=True)
class Window:
    """A part of an article, characters from `start` up to `end`, and the text to write about it.

    A curriculum asks for windows by their kind, a word such as "whole".
    """

    kind: str
    start: int
    end: int
    text: str


def write_windows(
    folder: str | Path,
    articles: Iterable[tuple[str, Sequence[Window]]],
    vocabulary: Vocabulary,
    *,
    prefix: str = "",
    text_length: int = 112,
) -> int:
    """Writes windows of articles in the place of an earlier set; returns how many there are.

    A vocabulary may have 32,768 pieces. Every window is to begin with `prefix`; those with a text
    longer than `text_length`, end token included, are left out.

    Raises:
        DataError: there was none.
        SettingsError: the vocabulary is too large.
    """
    if len(vocabulary.tokenizer) > _MOST_PIECES:
        raise SettingsError(
            f"a vocabulary of {len(vocabulary.tokenizer)} pieces: windows hold two bytes a token, "
            f"for at most {_MOST_PIECES}."
        )
    folder = Path(folder)
    kinds: dict[str, int] = {}
    sources: list[np.ndarray] = []
    texts: list[np.ndarray] = []
    rows: list[tuple[int, int, int, int]] = []
    for article, windows in articles:
        encoded = vocabulary.tokenizer(
            article, add_special_tokens=False, return_offsets_mapping=True
        )
        starts, ends = np.array(encoded["offset_mapping"] or [(0, 0)]).T
        found = []
        for window in windows:
            text = vocabulary.encode(window.text, text_length + 1).ids
            first = int(np.searchsorted(ends, window.start, side="right"))
            count = int(np.searchsorted(starts, window.end)) - first
            if len(text) <= text_length and count > 0:
                kind = kinds.setdefault(window.kind, len(kinds))
                found.append((len(sources), first, count, kind))
                texts.append(np.asarray(text, dtype=np.uint16))
        if found:
            rows += found
            reach = max(first + count for _, first, count, _ in found)
            sources.append(np.asarray(encoded["input_ids"][:reach], dtype=np.uint16))
    if not rows:
        raise DataError("there is no article with a text to write about it.")
    start_set(folder)
    save_sequences(folder, "source", sources)
    save_sequences(folder, "text", texts)
    save_array(folder, "windows", np.asarray(rows, dtype=np.int32))
    vocabulary.save(folder / "tokenizer")
    meta = {
        "kinds": list(kinds),
        "prefix": prefix,
        "prefix_ids": vocabulary.encode(prefix, 64).ids[:-1] if prefix else [],
        "end_id": int(vocabulary.tokenizer.eos_token_id),
        "vocabulary": vocabulary.fingerprint,
        "windows": len(rows),
        "articles": len(sources),
    }
    write_json(folder / "meta.json", meta)
    return len(rows)


class Windows:
    """Windows on disk, as `write_windows` writes them.

    Raises:
        DataError: the folder is missing or incomplete.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.meta: dict[str, Any] = object_in(self.folder / "meta.json")
            if not isinstance(self.meta.get("kinds"), list):
                raise ValueError("meta.json names no kinds of windows")
            self.articles = Sequences(self.folder, "source")
            self._text = Sequences(self.folder, "text")
            self._rows = np.load(self.folder / "windows.npy")
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{folder}: not a folder of windows ({error}).") from error

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that they are written in."""
        return Vocabulary.load(self.folder / "tokenizer")

    def of_kind(self, kind: str) -> np.ndarray:
        """The indices (n,) of the windows of a kind; SettingsError where there is no such kind."""
        if kind not in self.meta["kinds"]:
            raise SettingsError(f"{self.folder} has no windows of kind {kind!r}: {self.counts()}.")
        return np.flatnonzero(self._rows[:, 3] == self.meta["kinds"].index(kind))

    def counts(self) -> Mapping[str, int]:
        """How many windows there are of each kind."""
        found = np.bincount(self._rows[:, 3], minlength=len(self.meta["kinds"]))
        return dict(zip(self.meta["kinds"], map(int, found), strict=True))

    def source(self, index: int, length: int) -> np.ndarray:
        """What is read of window `index`: prefix, at most so many tokens, end token."""
        article, first, count, _ = map(int, self._rows[index])
        before = self.meta["prefix_ids"]
        room = min(count, length - len(before) - 1)
        own = self.articles[article][first : first + room]
        return np.concatenate([before, own, [self.meta["end_id"]]]).astype(np.uint16)

    def text(self, index: int) -> np.ndarray:
        """What is to be written about window `index`, end token included."""
        return self._text[index]


class Batches:
    """Batches of one kind of window, gathered on the device by index.

    Which windows make up the batch of a step is a function of (seed, step), so a resumed run needs
    no state. Nothing here waits for the device. `source_length` counts prefix and end token.
    """

    def __init__(
        self,
        windows: Windows,
        kind: str,
        *,
        source_length: int,
        batch: int,
        seed: int,
        device: torch.device,
    ) -> None:
        chosen = windows.of_kind(kind)
        sources = [windows.source(index, source_length) for index in chosen]
        texts = [windows.text(index) for index in chosen]
        self._lengths = np.array([len(text) for text in texts])
        self._source_lengths = np.array([len(source) for source in sources])
        self._source = matrix(sources, 0, multiple=8).to(device)
        self._text = matrix(texts, IGNORED, multiple=TEXT_STEP).to(device)
        self._full = self._source_lengths == self._source.shape[1]
        self._batch, self._seed = batch, seed
        self._epoch, self._order, self._on_device = -1, np.zeros((0, 0), int), self._text

    def __len__(self) -> int:
        return len(self._lengths)

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, bool]:
        """The batch of a step.

        Returns:
            Sources (B, S), texts (B, T) filled up with IGNORED, and whether a source is padded.
        """
        full = int(self._full.sum())
        sizes = (full, len(self._full) - full)
        epoch, place = divmod(step, sum(max(1, n // self._batch) for n in sizes if n))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
            self._on_device = torch.from_numpy(self._order).to(self._source.device)
        members, indices = self._order[place], self._on_device[place]
        masked = not self._full[members].all()
        width = self._source.shape[1]
        if masked:
            width = min(_rounded(self._source_lengths[members].max(), TEXT_STEP), width)
        longest = min(_rounded(self._lengths[members].max(), TEXT_STEP), self._text.shape[1])
        source = self._source[:, :width].index_select(0, indices).long()
        return source, self._text[:, :longest].index_select(0, indices).long(), bool(masked)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """The batches of an epoch, (batches, B): full sources and padded ones never mix."""
        rng = np.random.default_rng([self._seed, epoch])
        batches = []
        for group in (np.flatnonzero(self._full), np.flatnonzero(~self._full)):
            if not len(group):
                continue
            order = rng.permutation(group)
            short = -len(order) % self._batch if len(order) < self._batch else 0
            order = np.concatenate([order, np.resize(order, short)])
            for at in range(0, len(order), _SORTED * self._batch):
                some = order[at : at + _SORTED * self._batch]
                some = some[np.argsort(self._lengths[some], kind="stable")]
                whole = len(some) // self._batch
                batches += list(some[: whole * self._batch].reshape(whole, self._batch))
        return np.stack([batches[place] for place in rng.permutation(len(batches))])


def _rounded(number: int, multiple: int) -> int:
    return -(-int(number) // multiple) * multiple


def matrix(sequences: Sequence[np.ndarray], fill: int, multiple: int) -> torch.Tensor:
    """Sequences as rows, (n, longest rounded up to a multiple), int16, filled up."""
    longest = _rounded(max(map(len, sequences)), multiple)
    block = np.full((len(sequences), longest), fill, dtype=np.int16)
    for row, sequence in enumerate(sequences):
        block[row, : len(sequence)] = sequence
    return torch.from_numpy(block)
