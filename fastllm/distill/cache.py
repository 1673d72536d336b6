"""What the target thinks of given texts, computed once and kept on disk.

Of every place of every text: the ids and log-probabilities of the k likeliest tokens, and the
log-mass of all the others together, the *rest*. So a place costs 4 k + 4 bytes instead of 4 V, and
training need not hold or run the target for texts that are given (its own or the data set's; what
the drafter writes while it learns cannot be known beforehand).

A divergence is then taken over k + 1 outcomes: the k tokens, and "any other". The drafter's chance
of the last is exact, because all its logits are there. What this does, for the k likeliest tokens
of p, with P and Q the chances of the rest:

- k = V: nothing is left over, and every loss is what it is without a cache.
- FKL, RKL, JSD and TVD never grow by putting outcomes together (the data-processing inequality), so
  each is a lower bound that rises with k. For TVD it misses at most min(P, Q).
- the overlap sum min(p, q) is an upper bound, and over by at most min(P, Q) too.

A folder holds `meta.json` (what the numbers depend on), and in `shard-*.npy` a record a place,
memory-mapped. A shard is written whole or not at all; interrupted work goes on with what is
missing.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from fastllm.data.tokens import TokenPairs, prefixes, save_array
from fastllm.distill.folders import differences_from, nearest, writing
from fastllm.distill.loop import processes
from fastllm.distill.pseudo import held_in, weights_fingerprint
from fastllm.distill.teacher import Teacher
from fastllm.errors import DataError, SettingsError, TrainingError
from fastllm.files import object_in, write_json
from fastllm.targets.hub import HubTarget
from fastllm.words import duration

TEXTS_A_SHARD = 256

_BATCH = 16
"""Texts that the target scores at once: fixed, so that a shard written again is the same."""

_FLOOR = -80.0
"""Least log-mass of a rest: below it nothing is seen in a loss, and minus infinity would be NaN."""


def bucketed(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The logits (B, T, V) of some tokens (B, T, k), and behind them one for all the others.

    The softmax of the result is the softmax of `logits` with the other tokens' chances added up. It
    is (B, T, k + 1), or (B, T, V) where k = V leaves no others.
    """
    named = logits.gather(-1, ids)
    if ids.shape[-1] == logits.shape[-1]:
        return named
    rest = logits.scatter(-1, ids, float("-inf")).logsumexp(-1, keepdim=True)
    return torch.cat([named, rest], -1)


class TeacherCache:
    """The target's judgement of given texts, read as it is needed from where `write_cache` put it.

    Raises:
        DataError: it is missing or incomplete.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        try:
            self.meta = object_in(folder / "meta.json")
            paths = [folder / name for name in self.meta["shards"]]
            self._shards = [np.load(path, mmap_mode="r") for path in paths]
            self._lengths = np.array(self.meta["lengths"], dtype=np.int64)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder}: not a whole teacher cache ({error}).") from error

    @property
    def places(self) -> int:
        """How many tokens were judged."""
        return int(self._lengths.sum())

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(int(shard.nbytes) for shard in self._shards)

    def pair(
        self, indices: Sequence[int], logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The target and a drafter over the outcomes that are kept, for the texts `indices`.

        Args:
            indices: which texts.
            logits: the drafter's, (B, T, V), T the longest of the texts.

        Returns:
            The target's logits (B, T, k + 1), the drafter's, and the target's likeliest token
            (B, T). Where a text has ended the target is made uniform: mask these places.

        Raises:
            SettingsError: the drafter has another number of logits than the target.
        """
        size, k = self.meta["vocabulary_size"], self.meta["top_k"]
        if logits.shape[-1] != size:
            raise SettingsError(
                f"the drafter has {logits.shape[-1]} logits, and the teacher cache is of a target "
                f"with {size}: train without --teacher_cache."
            )
        shape = (*logits.shape[:2], k)
        ids = np.broadcast_to(np.arange(k, dtype=np.int64), shape).copy()
        log_p = np.zeros((*shape[:2], k + (k < size)), np.float32)
        for row, index in enumerate(indices):
            found = self._rows(index)
            ids[row, : len(found)] = found["ids"]
            log_p[row, : len(found), :k] = found["log_p"]
            if k < size:
                log_p[row, : len(found), k] = found["log_rest"]
        where = torch.from_numpy(ids).to(logits.device)
        # Logits, as they are rounded: whoever takes their softmax makes them sum to 1 again.
        return torch.from_numpy(log_p).to(logits), bucketed(logits, where), where[..., 0]

    def _rows(self, index: int) -> np.ndarray:
        shard, place = divmod(index, TEXTS_A_SHARD)
        ends = self._lengths[shard * TEXTS_A_SHARD :][: place + 1].cumsum()
        return np.array(self._shards[shard][int(ends[-1] - self._lengths[index]) : int(ends[-1])])


def write_cache(
    target: HubTarget,
    pairs: TokenPairs,
    folder: str | Path,
    *,
    length: int,
    top_k: int = 64,
    precise: bool = False,
    accelerator: Accelerator | None = None,
    say: Callable[[str], None] = print,
) -> TeacherCache:
    """Lets the target judge every text of `pairs`, where the folder does not hold that already.

    Of each text up to `length` tokens are judged, and of each place the `top_k` likeliest kept, or
    all where there are not so many. Log-probabilities are float16, which is within 0.05 % of them,
    unless `precise`. The size is said before anything is written.

    Raises:
        DataError: the folder holds a cache of another target, of other texts or settings.
        SettingsError: top_k below 1.
        TrainingError: the disk has no room for it.
    """
    folder = Path(folder)
    size = target.logit_count
    if top_k < 1:
        raise SettingsError(f"teacher_top_k={top_k}: give at least 1.")
    k = min(top_k, size)
    record = np.dtype(
        [
            ("ids", np.uint16 if size <= 1 << 16 else np.uint32, (k,)),
            ("log_p", np.float32 if precise else np.float16, (k,)),
            ("log_rest", np.float32),
        ]
    )
    texts = [pairs.target(index)[:length] for index in range(len(pairs))]
    asked = {
        "target": target.name,
        "weights": weights_fingerprint(target),
        "load_in": held_in(target),
        "vocabulary": target.vocabulary.fingerprint,
        "vocabulary_size": size,
        "prefix": target.prefix,
        "source_length": target.source_length,
        "length": length,
        "top_k": k,
        "log_p": record["log_p"].base.name,
        "texts": _fingerprint(pairs, texts),
    }
    if changed := differences_from(folder / "settings.json", asked):
        raise DataError(
            f"{folder} is a teacher cache of something else ({changed}). Give another "
            "--teacher_cache, or remove it."
        )
    shards = {
        f"shard-{number:05}.npy": range(len(pairs))[at : at + TEXTS_A_SHARD]
        for number, at in enumerate(range(0, len(pairs), TEXTS_A_SHARD))
    }
    if (folder / "meta.json").exists():
        return TeacherCache(folder)
    accelerator = accelerator or processes(target.device.type)
    places = sum(len(text) for text in texts)
    needed, free = places * record.itemsize, shutil.disk_usage(nearest(folder)).free
    if accelerator.is_main_process:
        say(
            f"teacher cache: {places:,} places of {record.itemsize} bytes, {needed / 1e6:,.1f} MB "
            f"in {folder} ({free / 1e9:,.1f} GB free)"
        )
    there = [members for name, members in shards.items() if (folder / name).exists()]
    missing = needed - record.itemsize * sum(len(texts[i]) for members in there for i in members)
    if missing > free:
        raise TrainingError(
            f"the teacher cache in {folder} needs {missing / 1e6:,.0f} MB more and the disk has "
            f"{free / 1e6:,.0f} MB: make room, or give a smaller --teacher_top_k than {k}."
        )
    accelerator.wait_for_everyone()  # all have looked; now the first may write
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "settings.json", asked, indent=None)
    accelerator.wait_for_everyone()
    teacher = Teacher(target, pairs, keep=0)
    mine = list(shards.items())[accelerator.process_index :: accelerator.num_processes]
    todo = [(name, members) for name, members in mine if not (folder / name).exists()]
    started = time.perf_counter()
    try:
        for number, (name, members) in enumerate(todo, 1):
            rows = _judge(teacher, texts, members, target.start_id, record)
            with writing(folder / name, "What was written before is whole."):
                save_array(folder, Path(name).stem, rows)
            if accelerator.is_main_process:
                left = (time.perf_counter() - started) / number * (len(todo) - number)
                say(f"teacher cache: {number}/{len(todo)} shards  ({duration(left)} left)")
    except KeyboardInterrupt:
        if accelerator.is_main_process:
            kept = sum((folder / name).exists() for name in shards)
            say(
                f"interrupted. {kept} of {len(shards)} shards of the teacher cache are kept in "
                f"{folder}; the same command goes on from there"
            )
        raise
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        whole = {**asked, "shards": list(shards), "lengths": list(map(len, texts))}
        write_json(folder / "meta.json", whole, indent=None)
    accelerator.wait_for_everyone()
    return TeacherCache(folder)


def _judge(
    teacher: Teacher, texts: list[list[int]], members: range, start_id: int, record: np.dtype[Any]
) -> np.ndarray:
    """The records of the texts `members`, one text behind the other."""
    k = record["ids"].shape[0]
    found: dict[int, np.ndarray] = {}
    # Texts of like length together: less padding, and the order does not matter here.
    order = sorted(members, key=lambda index: len(texts[index]))
    for at in range(0, len(order), _BATCH):
        chosen = order[at : at + _BATCH]
        prefix = prefixes([texts[index] for index in chosen], start_id)
        log_p = teacher.logits(chosen, prefix.to(teacher.target.device)).log_softmax(-1)
        best = log_p.topk(k, -1)
        rest = log_p.scatter(-1, best.indices, float("-inf")).logsumexp(-1).clamp(min=_FLOOR)
        for row, index in enumerate(chosen):
            rows = np.zeros(len(texts[index]), record)
            rows["ids"] = best.indices[row, : len(rows)].cpu().numpy()
            rows["log_p"] = best.values[row, : len(rows)].cpu().numpy()
            rows["log_rest"] = rest[row, : len(rows)].cpu().numpy()
            found[index] = rows
    return np.concatenate([found[index] for index in members])


def _fingerprint(pairs: TokenPairs, texts: list[list[int]]) -> str:
    """Of articles and texts, in their order."""
    digest = hashlib.sha256()
    for index, text in enumerate(texts):
        for ids in (pairs.source(index), text):
            digest.update(np.array([len(ids), *ids], np.uint32).tobytes())
    return digest.hexdigest()[:16]
