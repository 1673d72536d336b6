"""`superposed:NAME`: several drafts from one pass over a mixture of their last tokens, as a tree.

A beam of k paths takes k rows of the drafter a position. Here there is one: the network reads, in
the place of the last tokens of the k paths, the mean of their embeddings, each weighted by the
probability of its path. What it answers is one distribution for all paths. What tells them apart is
an n-gram table, asked for each path: a token behind a path scores

    (1 - weight) log p(token | mixture) + weight log n-gram(token | path),

among the likeliest tokens of the mixture, and the k best longer paths stay. In the end they are the
branches of one tree. No token is drawn: each is one-hot at any temperature, which keeps the text
exact (`fastllm.decoding.trees`). With `beams` it is a plain beam instead: a row for each path.

The table is the article's own, counted when its session begins, so that none need be at hand: a
summary goes on as its article does. Where the article never went on from a path's last tokens, the
table tells no token from another but by how frequent it is, and the mixture alone decides: then the
paths differ only in what was likely where they parted.

It runs outside the static engine, which reads ids alone, and can read nothing ahead, since each
mixture hangs on the answer before it: a draft of n tokens takes n passes.

Example: k = 2, behind "the old" stand "mill" (.6) and "house" (.4). The network reads
.6 E[mill] + .4 E[house] and says "burned" (.5) or "was" (.4); the article has "mill burned" and
"house was", and so "the old mill burned" and "the old house was" stay.

Source: Shen et al. 2024, "Superposed Decoding", arXiv:2405.18400 (there the table is of a corpus,
and a token that it never saw is left out; here the table is smoothed).
"""

import heapq
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from fastllm.decoding.proposals import Draft, OneHotProposal
from fastllm.decoding.rules import agreeing
from fastllm.decoding.trees import TEXT
from fastllm.drafters import Drafter, DrafterSession
from fastllm.drafters.length import falls_back
from fastllm.drafters.neural import NeuralSession
from fastllm.drafters.ngram import MAX_ORDER, NgramDrafter
from fastllm.drafters.shared import SharedDrafter
from fastllm.drafters.t5 import T5Drafter, T5Memory, T5Model, T5State
from fastllm.drafters.width import fitted
from fastllm.errors import SettingsError
from fastllm.targets import Encoding, Target
from fastllm.trace import DecodingConfig

MARK = "superposed:"
"""What stands before the name of a drafter whose drafts are to be superposed."""

WEIGHT = 0.1
"""Of the n-gram table. Of 0, .1, .2, .3 and .5 the best for the shared encoder, on ten validation
articles and within their noise; the source has .54, with a table that is not smoothed."""

_LIKELIEST = 3
"""So many of the network's likeliest tokens for each path are looked at, as in the source."""


class _Path(NamedTuple):
    """A draft so far.

    Attributes:
        score: the sum of its tokens' scores.
        elder: the place, among the paths that were read last, of the one that it goes on from.
        sure: the network's probability of its last token.
    """

    tokens: tuple[int, ...] = ()
    score: float = 0.0
    elder: int = 0
    sure: float = 1.0


class SuperposedDrafter(Drafter):
    """A T5-shaped drafter whose drafts are several paths, all read in one row.

    Args:
        drafter: a T5 or a shared-encoder drafter.
        paths: how many stay after each position, k.
        weight: of the n-gram table, from 0 (none is asked) up to, but not at, 1.
        beams: read each path in a row of its own, as a beam does.

    Raises:
        SettingsError: `drafter` is of another family, or a number is out of range.
    """

    def __init__(
        self, drafter: Drafter, paths: int = 3, weight: float = WEIGHT, *, beams: bool = False
    ) -> None:
        if not isinstance(drafter, T5Drafter | SharedDrafter):
            raise SettingsError(
                f"{drafter.name} reads no embeddings: give a T5 or a shared-encoder drafter, as in "
                f"{MARK}shared-after."
            )
        if paths < 1 or not 0 <= weight < 1:
            raise SettingsError(
                f"paths={paths}, weight={weight}: give at least one path, and a weight of at least "
                "0 and less than 1."
            )
        self.drafter, self.paths, self.weight, self.beams = drafter, paths, weight, beams
        self.name = ("beams:" if beams else MARK) + drafter.name
        self.vocabulary = drafter.vocabulary

    @property
    def parameters(self) -> int:
        """Of its network."""
        return self.drafter.parameters

    def bind(self, target: Target) -> None:
        """Binds its network."""
        self.drafter.bind(target)

    def save(self, folder: str | Path) -> None:
        """Writes its network: "superposed:" before the folder's name loads it again."""
        self.drafter.save(folder)

    def begin(self, encoding: Encoding) -> DrafterSession:
        """Reads the article, and counts its n-grams."""
        settings = self.drafter.settings
        size = settings.vocabulary_size
        known = [token for token in encoding.source_ids if token < size]
        sizes = {"vocabulary_size": size, "start_id": settings.start_id}
        table = NgramDrafter.fit([known], order=MAX_ORDER, **sizes)
        session = SuperposedSession(self, *self.drafter.network(encoding), table, encoding.end_id)
        return fitted(session, size, encoding)


class SuperposedSession(NeuralSession):
    """A superposed drafter at work on one article."""

    def __init__(
        self,
        drafter: SuperposedDrafter,
        network: T5Model,
        memory: T5Memory,
        table: NgramDrafter,
        end_id: int | None,
    ) -> None:
        super().__init__(network, memory, end_id)
        self._drafter, self._network, self._table = drafter, network, table

    @torch.inference_mode()
    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes paths of up to `k` tokens as a tree.

        All end where the draft length says so of the best of them.
        """
        self._length.begin(config)
        same = min(agreeing(prefix, self._read), len(prefix) - 1)
        self._go_back(same)
        self._feed(list(prefix[same:]))
        state: T5State = self._states[-1]
        logits = self._network.logits(self._features[-1])
        paths = alive = [_Path()]
        for place in range(k):
            if falls_back(logits[0], config):
                break
            longer = self._longer(alive, logits, prefix, config)
            if not longer:
                break
            ended = [path for path in paths if path not in alive]
            paths = heapq.nlargest(self._drafter.paths, ended + longer, key=lambda path: path.score)
            alive = [path for path in paths if path.tokens[-1] != self._end]
            if place == k - 1 or not alive or config.draft_length == "lead":
                break
            best = paths[0]
            if config.draft_length == "adaptive":
                if not self._length.goes_on(best.tokens[-1], best.sure):
                    break
            logits, state = self._step(alive, state)
        return tree_of([path.tokens for path in paths])

    def _longer(
        self,
        paths: Sequence[_Path],
        logits: torch.Tensor,
        prefix: Sequence[int],
        config: DecodingConfig,
    ) -> list[_Path]:
        """Every path with each likely token behind it; logits (1, V) of all, or (paths, V)."""
        weight, several = self._drafter.weight, len(logits) > 1
        count = min(_LIKELIEST * self._drafter.paths, logits.shape[-1])
        likeliest = logits.float().log_softmax(-1).topk(count)
        columns = likeliest.indices.tolist(), likeliest.values.tolist()
        found = []
        for at, path in enumerate(paths):
            text = [*prefix, *path.tokens]
            banned = self._rules.banned(text, config)
            if weight:
                start = [self._table.counts.start_id] * MAX_ORDER
                seen = self._table.row(start + text[1:])
            for token, chance in zip(*(column[at * several] for column in columns), strict=True):
                if chance > -math.inf and token not in banned:  # of NaN nothing is drafted
                    score = path.score + (1 - weight) * chance
                    if weight:
                        score += weight * math.log(seen[token])
                    found.append(_Path((*path.tokens, token), score, at, math.exp(chance)))
        return found

    def _step(self, paths: Sequence[_Path], state: T5State) -> tuple[torch.Tensor, T5State]:
        """Reads the last tokens of paths: a row for each, or one for all; logits (rows, V)."""
        self.passes += 1
        embedding = self._network.embedding
        ids = torch.tensor([path.tokens[-1:] for path in paths], device=embedding.device)
        if self._drafter.beams:
            state = state.of([path.elder for path in paths])
        else:
            scores = torch.tensor([path.score for path in paths], device=embedding.device)
            ids = (scores.softmax(0).to(embedding.dtype) @ embedding[ids[:, 0]])[None, None]
        features, states = self._network.read(self._memory, state, ids)
        return self._network.logits(features[:, 0]), states[0]


def tree_of(paths: Sequence[tuple[int, ...]]) -> Draft:
    """Settled paths as one draft, in which they share what they begin with; the best one first."""
    places: dict[tuple[int, ...], int] = {(): TEXT}
    parents: list[int] = []
    for path in paths:
        for end in range(1, len(path) + 1):
            if path[:end] not in places:
                parents.append(places[path[: end - 1]])
                places[path[:end]] = len(parents) - 1
    tokens = [way[-1] for way in places if way]
    chain = parents == list(range(-1, len(tokens) - 1))
    return Draft(tokens, OneHotProposal(tokens), parents=None if chain else tuple(parents))
