"""N-grams: what followed these last words in the texts that were counted.

Counts lie in sorted arrays and a query is a few binary searches. It sees nothing of the article.

A text is counted with the start token, repeated, before its first token: the start is a context
like any other. The end token is a token like any other.

Smoothing, with c the count of a token behind a context, C the sum of these, T how many different
tokens there are, V the vocabulary's size:

- "laplace": (c + add) / (C + add V), behind the longest context that was seen. Source: the
  original FastLLM, with add = 1.
- "interpolated": max(c - discount, 0) / C + discount T / C times the distribution behind the
  context without its oldest token, and so on down to no context at all and below it 1 / V.
  A context that was not seen passes everything on. Source: Ney, Essen and Kneser 1994, "On
  structuring probabilistic dependences in stochastic language modelling". On news summaries the
  lower orders of Kneser and Ney, which count contexts instead of tokens, have the better
  perplexity and give the right token less (0.19 against 0.20, N = 4): so plain counts.

The lowest order tells only the most frequent tokens apart; all others have the same probability.

Text format, UTF-8: a line of JSON ("format", "version" and the settings), then for each order n
from 1 to N a line `[n] L` and L lines of n token ids and a count, sorted. Binary format: a folder
with `config.json` and `counts.npz` (no pickle), where contexts are stored as the differences of
successive ones.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from fastllm.decoding.distributions import distribution, drawn
from fastllm.decoding.proposals import DenseProposal, Draft, OneHotProposal
from fastllm.decoding.rules import Rules
from fastllm.drafters import Drafter, DrafterSession, FamilySpec
from fastllm.drafters.length import LengthRule
from fastllm.drafters.width import fitted
from fastllm.errors import CheckpointError, DataError, SettingsError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig

FORMAT = "fastllm n-gram counts"
VERSION = 1
MAX_ORDER = 4
MAX_VOCABULARY = 1 << 21
"""Three tokens of context fit in 64 bits."""

SMOOTHINGS = ("interpolated", "laplace")
COUNTS_FILE = "counts.npz"

Entries = tuple[np.ndarray, np.ndarray, int]
"""Tokens seen behind a context (ascending), their counts, and the sum of these."""


@dataclass(frozen=True, eq=False)
class Level:
    """The counts of one order n, in the order of context, then token.

    Attributes:
        contexts: each context once, its n - 1 tokens packed into one number, ascending, uint64.
        starts: where each context's tokens begin, and the end of the last; int64.
        tokens: the tokens seen, int32.
        counts: how often, int32.
        totals: the sum of the counts of each context, int64.
    """

    contexts: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray
    counts: np.ndarray
    totals: np.ndarray

    @classmethod
    def of(cls, contexts: np.ndarray, tokens: np.ndarray, counts: np.ndarray) -> "Level":
        """Sorts and adds up: one entry for each pair of context and token."""
        order = np.lexsort((tokens, contexts))
        contexts, tokens, counts = contexts[order], tokens[order], counts[order]
        another = np.ones(len(contexts), dtype=bool)
        another[1:] = contexts[1:] != contexts[:-1]
        fresh = another.copy()
        fresh[1:] |= tokens[1:] != tokens[:-1]
        at = np.flatnonzero(fresh)
        if len(at):
            counts = np.add.reduceat(counts.astype(np.int64), at)
        starts = np.flatnonzero(another[at])
        return cls._whole(contexts[at][starts], starts, tokens[at], counts)

    @classmethod
    def _whole(
        cls, contexts: np.ndarray, starts: np.ndarray, tokens: np.ndarray, counts: np.ndarray
    ) -> "Level":
        totals = np.add.reduceat(counts.astype(np.int64), starts) if len(starts) else counts
        return cls(
            contexts.astype(np.uint64),
            np.append(starts, len(tokens)).astype(np.int64),
            tokens.astype(np.int32),
            counts.astype(np.int32),
            totals.astype(np.int64),
        )

    def repeated_contexts(self) -> np.ndarray:
        """The context of each entry, shape (entries,)."""
        return self.contexts.repeat(np.diff(self.starts))

    def behind(self, context: int) -> Entries | None:
        """What was seen behind a context; None if it was not seen."""
        place = int(self.contexts.searchsorted(np.uint64(context)))
        if place == len(self.contexts) or self.contexts[place] != context:
            return None
        span = slice(self.starts[place], self.starts[place + 1])
        return self.tokens[span], self.counts[span], int(self.totals[place])


@dataclass(frozen=True, eq=False)
class Counts:
    """How often each n-gram was seen, for every n from 1 to `order`.

    Attributes:
        order: N.
        vocabulary_size: V.
        start_id: the token that stands before a text.
        levels: one for each order, the first for order 1.
    """

    order: int
    vocabulary_size: int
    start_id: int
    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        _require("order", self.order, 1, MAX_ORDER)
        _require("vocabulary_size", self.vocabulary_size, 1, MAX_VOCABULARY)
        _require("start_id", self.start_id, 0, self.vocabulary_size - 1)

    @classmethod
    def none(cls, order: int, vocabulary_size: int, start_id: int = 0) -> "Counts":
        """Nothing counted yet."""
        nothing = np.zeros(0, np.int64)
        level = Level.of(nothing.astype(np.uint64), nothing, nothing)
        return cls(order, vocabulary_size, start_id, (level,) * order)

    def added(self, sequences: Iterable[Sequence[int]]) -> "Counts":
        """With further texts counted.

        Args:
            sequences: token ids, the end token included where a text ended, no start token.

        Raises:
            DataError: an id is outside the vocabulary.
        """
        start = np.full(self.order - 1, self.start_id, dtype=np.int64)
        parts: list[np.ndarray] = []
        ends: list[np.ndarray] = []
        length = 0
        for sequence in sequences:
            ids = np.asarray(sequence, dtype=np.int64)
            parts += [start, ids]
            ends.append(np.arange(length + len(start), length + len(start) + len(ids)))
            length += len(start) + len(ids)
        if not parts:
            return self
        flat, places = np.concatenate(parts), np.concatenate(ends)
        if flat.min() < 0 or flat.max() >= self.vocabulary_size:
            raise DataError(
                f"token ids from {flat.min()} to {flat.max()} do not fit a vocabulary of "
                f"{self.vocabulary_size}: count texts of this vocabulary."
            )
        tokens = flat[places]
        counts = np.ones(len(tokens), dtype=np.int64)
        packed = np.zeros(len(tokens), dtype=np.uint64)
        levels = []
        for n, level in enumerate(self.levels):
            if n:  # one token of context more, older than the others
                shift = np.uint64(self.bits * (n - 1))
                packed = packed | (flat[places - n].astype(np.uint64) << shift)
            levels.append(
                Level.of(
                    np.concatenate([level.repeated_contexts(), packed]),
                    np.concatenate([level.tokens, tokens]),
                    np.concatenate([level.counts, counts]),
                )
            )
        return Counts(self.order, self.vocabulary_size, self.start_id, tuple(levels))

    @property
    def bits(self) -> int:
        """How many bits a token takes in a packed context."""
        return max(1, (self.vocabulary_size - 1).bit_length())

    @property
    def entries(self) -> list[int]:
        """How many different n-grams there are of each order."""
        return [len(level.tokens) for level in self.levels]

    def packed(self, context: Sequence[int]) -> list[int]:
        """The contexts of each order that end like `context`, as packed numbers.

        Example: with 4 bits a token and order 3, behind (7, 2) they are 0, 2 and 7 * 16 + 2.
        """
        bits = self.bits
        keys = [0]
        for n in range(1, self.order):
            keys.append(keys[-1] | context[-n] << bits * (n - 1))
        return keys

    def rows(self, n: int) -> np.ndarray:
        """The n-grams of order n and their counts, shape (entries, n + 1), int64, sorted."""
        level = self.levels[n - 1]
        contexts = level.repeated_contexts()
        mask = np.uint64((1 << self.bits) - 1)
        columns = [
            (contexts >> np.uint64(self.bits * shift)) & mask for shift in range(n - 2, -1, -1)
        ]
        return np.stack([*columns, level.tokens, level.counts], 1).astype(np.int64)

    @classmethod
    def from_rows(
        cls, order: int, vocabulary_size: int, start_id: int, tables: Sequence[np.ndarray]
    ) -> "Counts":
        """The inverse of `rows`, for all orders."""
        counts = cls.none(order, vocabulary_size, start_id)
        levels = []
        for n, table in enumerate(tables, 1):
            packed = np.zeros(len(table), dtype=np.uint64)
            for column in range(n - 1):
                packed = (packed << np.uint64(counts.bits)) | table[:, column].astype(np.uint64)
            levels.append(Level.of(packed, table[:, -2], table[:, -1]))
        return cls(order, vocabulary_size, start_id, tuple(levels))


class NgramDrafter(Drafter):
    """A table of n-grams as a drafter.

    Args:
        counts: what was seen.
        name: what to call it.
        vocabulary: the fingerprint of the vocabulary of the counted ids.
        smoothing: "interpolated" or "laplace", see the module.
        add: what Laplace smoothing adds to every count, above 0.
        discount: what interpolation takes from every count, above 0, at most 1. With 0.5 the right
            token of a news summary has the highest probability; perplexity is best at 0.75.
        named: how many of the most frequent tokens the lowest order tells apart.
        end_id: the token that ends a text: nothing is drafted behind it.
        draft_temperature: see `fastllm.drafters.Drafter`.

    Raises:
        SettingsError: a setting is out of range.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        name: str = "n-gram",
        vocabulary: str = "",
        smoothing: str = "interpolated",
        add: float = 1.0,
        discount: float = 0.5,
        named: int = 64,
        end_id: int = 1,
        draft_temperature: float | None = None,
    ) -> None:
        if smoothing not in SMOOTHINGS:
            raise SettingsError(
                f"smoothing={smoothing!r} is not one we have: give {' or '.join(SMOOTHINGS)}."
            )
        if isinstance(add, bool) or not isinstance(add, int | float) or not 0 < add <= 1e6:
            raise SettingsError(f"add={add!r} is out of range: give a number above 0, at most 1e6.")
        if (
            isinstance(discount, bool)
            or not isinstance(discount, int | float)
            or (not 0 < discount <= 1)
        ):
            raise SettingsError(
                f"discount={discount!r} is out of range: give a number above 0, at most 1."
            )
        _require("named", named, 0, MAX_VOCABULARY)
        _require("end_id", end_id, 0, counts.vocabulary_size - 1)
        self.counts = counts
        self.name = name
        self.vocabulary = vocabulary
        self.smoothing = smoothing
        self.add = add
        self.discount = discount
        self.named = named
        self.end_id = end_id
        self.draft_temperature = draft_temperature
        self._lowest = self._lowest_order(counts.levels[0].behind(0))

    @classmethod
    def fit(
        cls,
        sequences: Iterable[Sequence[int]],
        *,
        order: int,
        vocabulary_size: int,
        start_id: int = 0,
        **settings: Any,
    ) -> "NgramDrafter":
        """Counts texts.

        Args:
            sequences: token ids, the end token included where a text ended, no start token.
            order: N, 1 to 4.
            vocabulary_size: V, how many logits the target has.
            start_id: the token that decoders of the target begin with.
            settings: of the drafter.

        Raises:
            DataError: an id is outside the vocabulary.
            SettingsError: a setting is out of range.
        """
        return cls(Counts.none(order, vocabulary_size, start_id).added(sequences), **settings)

    def resume(self, sequences: Iterable[Sequence[int]]) -> "NgramDrafter":
        """The drafter with further texts counted: the same as one fit over all of them."""
        return NgramDrafter(self.counts.added(sequences), **self.settings())

    @property
    def parameters(self) -> int:
        """How many n-grams its table holds."""
        return sum(self.counts.entries)

    def settings(self) -> dict[str, Any]:
        """The settings as `__init__` takes them."""
        return {
            "name": self.name,
            "vocabulary": self.vocabulary,
            "smoothing": self.smoothing,
            "add": self.add,
            "discount": self.discount,
            "named": self.named,
            "end_id": self.end_id,
            "draft_temperature": self.draft_temperature,
        }

    def row(self, context: Sequence[int]) -> np.ndarray:
        """The distribution after a context, at temperature 1 without filters, (V,), float64.

        Args:
            context: at least the last N - 1 tokens, the start token where the text is shorter.
        """
        keys = self.counts.packed(context)
        if self.smoothing == "laplace":
            return self._laplace(keys)
        row = self._lowest
        for level, key in zip(self.counts.levels[1:], keys[1:], strict=True):
            seen = level.behind(key)
            if seen is not None:
                row = self._interpolated(row, seen)
        return row

    def _laplace(self, keys: list[int]) -> np.ndarray:
        size = self.counts.vocabulary_size
        for level, key in zip(reversed(self.counts.levels), reversed(keys), strict=True):
            seen = level.behind(key)
            if seen is not None:
                tokens, counts, total = seen
                whole = total + self.add * size
                row = np.full(size, self.add / whole)
                row[tokens] = (counts + self.add) / whole
                return row
        return np.full(size, 1 / size)

    def _interpolated(self, lower: np.ndarray, seen: Entries) -> np.ndarray:
        tokens, counts, total = seen
        row: np.ndarray = lower * (self.discount * len(tokens) / total)
        row[tokens] += (counts - self.discount) / total
        return row

    def _lowest_order(self, seen: Entries | None) -> np.ndarray:
        """Order 1 with the most frequent tokens told apart, the rest of the mass spread evenly."""
        size = self.counts.vocabulary_size
        if seen is None:
            return np.full(size, 1 / size)
        tokens, counts, total = seen
        kept = np.sort(np.argsort(-counts, kind="stable")[: self.named])
        passed_on = self.discount * len(tokens) / total
        chances = (counts[kept] - self.discount) / total + passed_on / size
        row = np.full(size, float(1 - chances.sum()) / max(1, size - len(kept)))
        row[tokens[kept]] = chances
        return row

    def begin(self, encoding: Encoding) -> DrafterSession:
        """A session; the article is not read."""
        return fitted(NgramSession(self), self.counts.vocabulary_size, encoding)

    def config(self) -> dict[str, Any]:
        """What `config.json` says."""
        return {
            "family": "ngram",
            **self.settings(),
            "order": self.counts.order,
            "vocabulary_size": self.counts.vocabulary_size,
            "start_id": self.counts.start_id,
        }

    def save(self, folder: str | Path) -> None:
        """Writes `config.json` and `counts.npz`; what else lies in the folder stays."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {}
        ids = np.uint16 if self.counts.vocabulary_size <= 1 << 16 else np.uint32
        for n, level in enumerate(self.counts.levels, 1):
            arrays[f"contexts_{n}"] = np.diff(level.contexts, prepend=np.uint64(0))
            arrays[f"sizes_{n}"] = np.diff(level.starts).astype(np.uint32)
            arrays[f"tokens_{n}"] = level.tokens.astype(ids)
            arrays[f"counts_{n}"] = level.counts.astype(np.uint32)

        def write_counts(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)

        _write_whole(folder / COUNTS_FILE, write_counts)
        text = json.dumps(self.config(), indent=1) + "\n"
        _write_whole(folder / "config.json", lambda path: path.write_text(text, encoding="utf-8"))

    @classmethod
    def load(
        cls, folder: str | Path, *, device: str | torch.device | None = None
    ) -> "NgramDrafter":
        """Loads a folder that `save` wrote.

        Args:
            folder: with `config.json` and `counts.npz`.
            device: of no meaning here: tables are read on the CPU.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the other.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            # numpy leaves a damaged file open if it opened it itself.
            with (folder / COUNTS_FILE).open("rb") as file, np.load(file) as table:
                arrays = dict(table)
            levels = [
                _level_from(arrays, n, config["vocabulary_size"])
                for n in range(1, config["order"] + 1)
            ]
            return cls._from_config(config, levels)
        except _DAMAGED as error:
            raise CheckpointError(
                f"{folder} is not a whole n-gram drafter ({type(error).__name__}: {error}). It "
                "needs config.json and counts.npz as `fastllm train` writes them."
            ) from error

    def save_text(self, path: str | Path) -> None:
        """Writes settings and counts as one text file: token ids and counts, no words."""

        def write(fresh: Path) -> None:
            with fresh.open("w", encoding="utf-8", newline="\n") as file:
                header = {"format": FORMAT, "version": VERSION, **self.config()}
                file.write(json.dumps(header) + "\n")
                for n in range(1, self.counts.order + 1):
                    rows = self.counts.rows(n).tolist()
                    file.write(f"[{n}] {len(rows)}\n")
                    file.writelines(" ".join(map(str, row)) + "\n" for row in rows)

        _write_whole(Path(path), write)

    @classmethod
    def load_text(cls, path: str | Path) -> "NgramDrafter":
        """Loads a file that `save_text` wrote.

        Raises:
            CheckpointError: another format, cut off, or with ids outside the vocabulary.
        """
        try:
            with Path(path).open(encoding="utf-8") as file:
                config = json.loads(file.readline())
                found = (config.pop("format", None), config.pop("version", None))
                if found != (FORMAT, VERSION):
                    raise CheckpointError(f"it says {found}, not {(FORMAT, VERSION)}")
                size = config["vocabulary_size"]
                tables = [_table_from(file, n, size) for n in range(1, config["order"] + 1)]
                if file.readline():
                    raise CheckpointError("it goes on after the last order")
            counts = Counts.from_rows(config["order"], size, config["start_id"], tables)
            return cls._from_config(config, counts.levels)
        except (*_DAMAGED, CheckpointError) as error:
            raise CheckpointError(
                f"{path} is not a whole n-gram text file ({error}). Write it again with "
                "`save_text`."
            ) from error

    @classmethod
    def _from_config(cls, config: dict[str, Any], levels: Sequence[Level]) -> "NgramDrafter":
        settings = dict(config)
        if settings.pop("family") != "ngram":
            raise CheckpointError(f"its family is {config['family']!r}, not 'ngram'")
        counts = Counts(
            settings.pop("order"),
            settings.pop("vocabulary_size"),
            settings.pop("start_id"),
            tuple(levels),
        )
        for name in ("online", "article"):  # of earlier versions, which could count these as well
            if settings.pop(name, 0):
                raise CheckpointError(f"it counts with {name!r}, which is not supported any more")
        return cls(counts, **settings)


class NgramSession:
    """An n-gram drafter at work on one text. The prefix given to `draft` is all it goes by.

    Args:
        drafter: the table.
    """

    def __init__(self, drafter: NgramDrafter) -> None:
        self._drafter = drafter
        self._rules = Rules(drafter.end_id)
        self._length = LengthRule(drafter.end_id)

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes up to `k` tokens.

        Fewer where the end token comes earlier, where the rules bar all it would say, or, with
        adaptive length, where the next one would not pay.
        """
        drafter = self._drafter
        config = config.drafting(drafter.draft_temperature)
        self._length.begin(config)
        text = [drafter.counts.start_id] * (drafter.counts.order - 1) + list(prefix[1:])
        tokens: list[int] = []
        plain: list[np.ndarray] = []
        rows: list[torch.Tensor] = []
        for uniform in uniforms[:k].tolist():
            row = drafter.row(text)
            if config.draft_length == "confidence" and row.max() < config.fallback_threshold:
                break
            plain.append(row)
            banned = self._rules.banned([*prefix, *tokens], config)
            if barred := [token for token in banned if token < len(row)]:
                row = row.copy()
                row[barred] = 0.0
                if not row.any():
                    break
            if config.temperature == 0:
                token = int(row.argmax())
            else:
                rows.append(distribution(torch.from_numpy(row).log(), config))
                token = drawn(rows[-1], uniform)
            tokens.append(token)
            text.append(token)
            if token == drafter.end_id or len(tokens) == k:
                break
            if config.draft_length == "lead":
                break
            sure = float(plain[-1][token])
            if config.draft_length == "adaptive" and not self._length.goes_on(token, sure):
                break
        q = DenseProposal(torch.stack(rows)) if rows else OneHotProposal(tokens)
        return Draft(tokens, q, lambda position: torch.from_numpy(plain[position]).float())

    def accept(self, tokens: Sequence[int]) -> None:
        """Only counts: the next prefix holds these tokens."""
        self._length.accept(len(tokens))


_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged file raises: numpy, zipfile and json have no common exception."""


def _level_from(arrays: dict[str, np.ndarray], n: int, size: int) -> Level:
    """One order of `counts.npz`, checked.

    Raises:
        ValueError: the arrays do not fit each other or the vocabulary.
    """
    gaps, sizes, tokens, counts = (
        arrays[f"{name}_{n}"] for name in ("contexts", "sizes", "tokens", "counts")
    )
    contexts = gaps.astype(np.uint64).cumsum(dtype=np.uint64)
    starts = sizes.astype(np.int64).cumsum() - sizes
    if len(gaps) != len(sizes) or len(tokens) != len(counts) or sizes.sum() != len(tokens):
        raise ValueError(f"the arrays of order {n} differ in length")
    if (sizes == 0).any() or (gaps[1:] == 0).any() or (contexts[1:] < contexts[:-1]).any():
        raise ValueError(f"the contexts of order {n} are not in order")
    level = Level._whole(contexts, starts, tokens, counts)
    inside = np.ones(len(tokens), dtype=bool)
    inside[starts] = False
    falls = level.tokens[1:] <= level.tokens[:-1]
    if len(tokens) and ((falls & inside[1:]).any() or tokens.max() >= size or counts.min() < 1):
        raise ValueError(f"the tokens of order {n} are not in order or not in the vocabulary")
    return level


def _table_from(file: TextIO, n: int, size: int) -> np.ndarray:
    """One order of a text file, shape (lines, n + 1).

    Raises:
        ValueError: it is cut off, or not what its heading says.
    """
    heading = file.readline().split()
    if len(heading) != 2 or heading[0] != f"[{n}]":
        raise ValueError(f"the heading of order {n} is missing")
    count = int(heading[1])
    lines = list(islice(file, count))
    if len(lines) < count:
        raise ValueError(f"order {n} has {len(lines)} of its {count} lines: it was cut off")
    if not count:
        return np.zeros((0, n + 1), dtype=np.int64)
    table = np.loadtxt(lines, dtype=np.int64, ndmin=2, comments=None)
    if table.shape != (count, n + 1):
        raise ValueError(f"order {n} needs {count} lines of {n + 1} numbers")
    ids = table[:, :-1]
    if ids.min() < 0 or ids.max() >= size or table[:, -1].min() < 1:
        raise ValueError(f"order {n} has ids outside the vocabulary of {size}, or counts below 1")
    return table


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file beside its place and moves it there: it is never there in part."""
    fresh = path.with_name(path.name + ".part")
    write(fresh)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(path)


def _require(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(
            f"{name}={value!r} is out of range: give a whole number between {low} and {high}."
        )


SPEC = FamilySpec(
    "ngram",
    "n-gram",
    "a table of n-grams",
    NgramDrafter,
    training="counting",
    required_keys=("name", "vocabulary", "order", "vocabulary_size", "start_id"),
    weights=(),
)
