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
  structuring probabilistic dependences in stochastic language modelling", with plain counts in
  the lower orders, too: a draft needs the right token first, not the best perplexity.

The lowest order tells only the most frequent tokens apart; all others have the same probability.

Text format, UTF-8: a line of JSON ("format", "version" and the settings), then for each order n
from 1 to N a line `[n] L` and L lines of n token ids and a count, sorted. Binary format: a folder
with `config.json` and `counts.npz` (no pickle), where contexts are stored as the differences of
successive ones.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from io import BytesIO
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
from fastllm.files import write_json, write_whole
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig

FORMAT = {"format": "fastllm n-gram counts", "version": 1}
"""What a text file says of itself."""

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
        tokens: the tokens seen, int32; `counts`: how often, int32.
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
    """How often each n-gram was seen, for every n from 1 to `order`; a level for each.

    `start_id` is the token that stands before a text.
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
        """With further texts counted: the end token included where a text ended, no start token.

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
            known = (level.repeated_contexts(), level.tokens, level.counts)
            pairs = zip(known, (packed, tokens, counts), strict=True)
            levels.append(Level.of(*map(np.concatenate, pairs)))
        return replace(self, levels=tuple(levels))

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
        return replace(counts, levels=tuple(levels))


@dataclass(eq=False, repr=False)
class NgramDrafter(Drafter):
    """A table of n-grams as a drafter.

    Attributes:
        smoothing: "interpolated" or "laplace", see the module.
        add: what Laplace smoothing adds to every count, above 0.
        discount: what interpolation takes from every count, above 0, at most 1. With 0.5 the right
            token of a news summary has the highest probability; perplexity is best at 0.75.
        named: how many of the most frequent tokens the lowest order tells apart.
        end_id: the token that ends a text: nothing is drafted behind it.

    Raises:
        SettingsError: a setting is out of range.
    """

    counts: Counts
    name: str = "n-gram"
    vocabulary: str = ""
    smoothing: str = "interpolated"
    add: float = 1.0
    discount: float = 0.5
    named: int = 64
    end_id: int = 1
    draft_temperature: float | None = None

    def __post_init__(self) -> None:
        if self.smoothing not in SMOOTHINGS:
            raise SettingsError(
                f"smoothing={self.smoothing!r} is not one we have: give {' or '.join(SMOOTHINGS)}."
            )
        for name, most in (("add", 1e6), ("discount", 1)):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int | float):
                raise SettingsError(f"{name}={given!r}: give a number.")
            if not 0 < given <= most:
                raise SettingsError(
                    f"{name}={given!r} is out of range: give a number above 0, at most {most:g}."
                )
        _require("named", self.named, 0, MAX_VOCABULARY)
        _require("end_id", self.end_id, 0, self.counts.vocabulary_size - 1)
        self._lowest = self._lowest_order(self.counts.levels[0].behind(0))

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
        """Counts texts (`Counts.added`) for a target of V logits, N being the order, 1 to 4."""
        return cls(Counts.none(order, vocabulary_size, start_id).added(sequences), **settings)

    def resume(self, sequences: Iterable[Sequence[int]]) -> "NgramDrafter":
        """The drafter with further texts counted: the same as one fit over all of them."""
        return replace(self, counts=self.counts.added(sequences))

    @property
    def parameters(self) -> int:
        """How many n-grams its table holds."""
        return sum(self.counts.entries)

    def row(self, context: Sequence[int]) -> np.ndarray:
        """The distribution after a context, at temperature 1 without filters, (V,), float64.

        The context has at least N - 1 tokens, the start token where the text is shorter.
        """
        keys = self.counts.packed(context)
        if self.smoothing == "laplace":
            return self._laplace(keys)
        row = self._lowest
        for level, key in zip(self.counts.levels[1:], keys[1:], strict=True):
            seen = level.behind(key)
            if seen is not None:
                tokens, counts, total = seen
                row = row * (self.discount * len(tokens) / total)
                row[tokens] += (counts - self.discount) / total
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
            **{field.name: getattr(self, field.name) for field in fields(self)[1:]},
            "order": self.counts.order,
            "vocabulary_size": self.counts.vocabulary_size,
            "start_id": self.counts.start_id,
        }

    def save(self, folder: str | Path) -> None:
        """Writes `config.json` and `counts.npz`; what else lies in the folder stays."""
        arrays: dict[str, Any] = {}
        ids = np.uint16 if self.counts.vocabulary_size <= 1 << 16 else np.uint32
        for n, level in enumerate(self.counts.levels, 1):
            arrays[f"contexts_{n}"] = np.diff(level.contexts, prepend=np.uint64(0))
            arrays[f"sizes_{n}"] = np.diff(level.starts).astype(np.uint32)
            arrays[f"tokens_{n}"] = level.tokens.astype(ids)
            arrays[f"counts_{n}"] = level.counts.astype(np.uint32)
        table = BytesIO()
        np.savez_compressed(table, **arrays)
        write_whole(Path(folder) / COUNTS_FILE, table.getvalue())
        write_json(Path(folder) / "config.json", self.config())

    @classmethod
    def load(
        cls, folder: str | Path, *, device: str | torch.device | None = None
    ) -> "NgramDrafter":
        """Loads a folder that `save` wrote; tables are read on the CPU, whatever the device.

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
        except Exception as error:  # numpy, zipfile and json raise unrelated kinds
            raise CheckpointError(
                f"{folder} is not a whole n-gram drafter ({type(error).__name__}: {error}). It "
                "needs config.json and counts.npz as `fastllm train` writes them."
            ) from error

    def save_text(self, path: str | Path) -> None:
        """Writes settings and counts as one text file: token ids and counts, no words."""
        lines = [json.dumps({**FORMAT, **self.config()})]
        for n in range(1, self.counts.order + 1):
            rows = self.counts.rows(n).tolist()
            lines += [f"[{n}] {len(rows)}", *(" ".join(map(str, row)) for row in rows)]
        write_whole(path, "\n".join(lines) + "\n")

    @classmethod
    def load_text(cls, path: str | Path) -> "NgramDrafter":
        """Loads a file that `save_text` wrote.

        Raises:
            CheckpointError: another format, cut off, or with ids outside the vocabulary.
        """
        try:
            with Path(path).open(encoding="utf-8") as file:
                config = json.loads(file.readline())
                found = {key: config.pop(key, None) for key in FORMAT}
                if found != FORMAT:
                    raise CheckpointError(f"it says {found}, not {FORMAT}")
                size = config["vocabulary_size"]
                tables = [_table_from(file, n, size) for n in range(1, config["order"] + 1)]
                if file.readline():
                    raise CheckpointError("it goes on after the last order")
            counts = Counts.from_rows(config["order"], size, config["start_id"], tables)
            return cls._from_config(config, counts.levels)
        except Exception as error:  # numpy and json raise unrelated kinds
            raise CheckpointError(
                f"{path} is not a whole n-gram text file ({error}). Write it again with "
                "`save_text`."
            ) from error

    @classmethod
    def _from_config(cls, config: dict[str, Any], levels: Sequence[Level]) -> "NgramDrafter":
        settings = dict(config)
        if settings.pop("family") != "ngram":
            raise CheckpointError(f"its family is {config['family']!r}, not 'ngram'")
        names = ("order", "vocabulary_size", "start_id")
        sizes: Any = {name: settings.pop(name) for name in names}
        counts = Counts(**sizes, levels=tuple(levels))
        for name in ("online", "article"):  # of earlier versions, which could count these as well
            if settings.pop(name, 0):
                raise CheckpointError(f"it counts with {name!r}, which is not supported any more")
        return cls(counts, **settings)


class NgramSession:
    """An n-gram drafter at work on one text. The prefix given to `draft` is all it goes by."""

    def __init__(self, drafter: NgramDrafter) -> None:
        self._drafter = drafter
        self._rules = Rules(drafter.end_id)
        self._length = LengthRule(drafter.end_id)

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes up to `k` tokens, no more behind the end, or where the rules bar all of them."""
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
            if token == drafter.end_id or len(tokens) == k or config.draft_length == "lead":
                break
            sure = float(plain[-1][token])
            if config.draft_length == "adaptive" and not self._length.goes_on(token, sure):
                break
        q = DenseProposal(torch.stack(rows)) if rows else OneHotProposal(tokens)
        return Draft(tokens, q, lambda position: torch.from_numpy(plain[position]).float())

    def accept(self, tokens: Sequence[int]) -> None:
        """Only counts: the next prefix holds these tokens."""
        self._length.accept(len(tokens))


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
    heading = re.fullmatch(rf"\[{n}\] (\d+)\n", file.readline())
    count = int(heading[1]) if heading else 0
    lines = list(islice(file, count))
    if heading is None or len(lines) < count:
        raise ValueError(f"the heading or a line of order {n} is missing")
    if not count:
        return np.zeros((0, n + 1), dtype=np.int64)
    table = np.loadtxt(lines, dtype=np.int64, ndmin=2, comments=None)
    if table.shape != (count, n + 1):
        raise ValueError(f"order {n} needs {count} lines of {n + 1} numbers")
    ids = table[:, :-1]
    if ids.min() < 0 or ids.max() >= size or table[:, -1].min() < 1:
        raise ValueError(f"order {n} has ids outside the vocabulary of {size}, or counts below 1")
    return table


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
