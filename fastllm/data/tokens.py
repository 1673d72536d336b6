"""Token arrays on disk: pairs of sequences as uint16 (uint32 where an id needs it), memory-mapped.

A folder holds `source.npy` and `target.npy` (all ids in one row), `source_ends.npy` and
`target_ends.npy` (where each sequence ends), `ids.json` and `meta.json` (vocabulary fingerprint,
lengths). Padding is added when a batch is made, never stored.
"""

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from fastllm.errors import DataError
from fastllm.files import json_in, object_in, write_json, write_whole

IGNORED = -100
"""The label of a padded position, as PyTorch's cross-entropy understands it."""


class Sequences:
    """Sequences of ids in one row, NAME.npy, memory-mapped; NAME_ends.npy is where each ends."""

    def __init__(self, folder: Path, name: str) -> None:
        try:
            self._row = np.load(folder / f"{name}.npy", mmap_mode="r")
            self._ends = np.load(folder / f"{name}_ends.npy")
        except EOFError as error:
            raise ValueError(f"{name}: an array is empty or cut short") from error

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> np.ndarray:
        start = int(self._ends[index - 1]) if index else 0
        return np.asarray(self._row[start : int(self._ends[index])])

    def lengths(self) -> np.ndarray:
        """The number of ids of each, shape (len(self),)."""
        return np.diff(self._ends, prepend=0)


class TokenPairs:
    """Source and target token sequences of a data set, as `write_pairs` writes them.

    Raises:
        DataError: the folder is missing or incomplete.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        try:
            self.meta = object_in(folder / "meta.json")
            self.ids = json_in(folder / "ids.json")
            self._source, self._target = Sequences(folder, "source"), Sequences(folder, "target")
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: not a folder of token pairs ({error}).") from error

    def __len__(self) -> int:
        return len(self._source)

    def source(self, index: int) -> list[int]:
        """The source ids of pair `index`."""
        return [int(token) for token in self._source[index]]

    def target(self, index: int) -> list[int]:
        """The target ids of pair `index`, with the end token where the text ended."""
        return [int(token) for token in self._target[index]]

    def lengths(self) -> np.ndarray:
        """The number of target ids of each pair, shape (len(self),)."""
        return self._target.lengths()


def write_pairs(
    folder: str | Path,
    pairs: Iterable[tuple[str, Sequence[int], Sequence[int]]],
    meta: dict[str, object],
) -> int:
    """Writes (id, source ids, target ids) triples as token arrays, in the place of an earlier set.

    An id takes two bytes, or four where one is 65,536 or more. `meta` is what to remember about the
    set (vocabulary, lengths, origin).

    Returns:
        How many pairs were written.

    Raises:
        OSError: the disk is full, or the like. The folder then counts as unfinished.
    """
    rows = [(name, _narrow(source), _narrow(target)) for name, source, target in pairs]
    ids = [name for name, _, _ in rows]
    start_set(folder)
    save_sequences(folder, "source", [source for _, source, _ in rows])
    save_sequences(folder, "target", [target for _, _, target in rows])
    write_json(Path(folder) / "ids.json", ids, indent=None)
    write_json(Path(folder) / "meta.json", meta)
    return len(ids)


def start_set(folder: str | Path) -> None:
    """Makes a folder for token arrays; a set that is there counts as unfinished from now on.

    `meta.json` makes a set whole, and is written last.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "meta.json").unlink(missing_ok=True)


def save_sequences(folder: str | Path, name: str, sequences: Sequence[np.ndarray]) -> None:
    """Writes sequences in one row as NAME.npy, and where each ends as NAME_ends.npy."""
    flat = np.concatenate(sequences) if sequences else np.zeros(0, np.uint16)
    save_array(folder, name, flat)
    lengths = [len(sequence) for sequence in sequences]
    save_array(folder, f"{name}_ends", np.cumsum(lengths, dtype=np.int64))


def save_array(folder: str | Path, name: str, array: np.ndarray) -> None:
    """Writes NAME.npy, whole or not at all."""
    file = BytesIO()
    np.save(file, array)
    write_whole(Path(folder) / f"{name}.npy", file.getvalue())


def batch_indices(pairs: TokenPairs, size: int, step: int, seed: int) -> list[int]:
    """Which pairs make up the batch of update `step`: a pure function, so a resume needs no state.

    Every epoch is a fresh shuffle. Inside a window of 32 batches, pairs of like target length are
    put together, so that little of a batch is padding.
    """
    per_epoch = max(1, len(pairs) // size)
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(len(pairs))
    window, place = divmod(position, 32)
    chosen = order[window * 32 * size : (window + 1) * 32 * size]
    chosen = chosen[np.argsort(pairs.lengths()[chosen], kind="stable")]
    batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    batches = [batch for batch in batches if len(batch) == size] or batches
    shuffled = np.random.default_rng([seed, epoch, window]).permutation(len(batches))
    return [int(index) for index in batches[shuffled[place % len(batches)]]]


def padded(sequences: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """Stacks sequences of ids, shape (len(sequences), longest), int64, filled up with `fill`."""
    width = max(1, max(len(sequence) for sequence in sequences))
    block = torch.full((len(sequences), width), fill, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        block[row, : len(sequence)] = torch.as_tensor(sequence, dtype=torch.long)
    return block


def prefixes(texts: Sequence[Sequence[int]], start_id: int) -> torch.Tensor:
    """What a decoder reads to write texts, (B, longest): each after the start token, moved by one.

    Shorter texts are filled up with the start token: a decoder does not look ahead, and what it
    says there is masked.
    """
    return padded([[start_id, *text[:-1]] for text in texts], start_id)


def _narrow(ids: Sequence[int]) -> np.ndarray:
    """The ids in as few bytes as hold the largest; concatenated arrays take the widest."""
    wide = np.asarray(ids, dtype=np.uint32)
    return wide.astype(np.uint16) if wide.max(initial=0) < 1 << 16 else wide
