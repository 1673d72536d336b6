"""Drafts written on the device: each token is chosen there, and the host waits once for all.

A drafter's step ends by choosing a token, and the next step begins with it. Where the choice is
made on the device as well, gamma steps are launched one behind the other, and the host waits only
for the ids of the whole draft. The choice is that of the host (`fastllm.decoding.rules` and
`fastllm.decoding.distributions`): the same rules, the same distribution, the same uniform numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from fastllm.decoding.distributions import distribution, draw
from fastllm.trace import DecodingConfig

MOST = 16
"""The longest draft."""


@dataclass(frozen=True)
class Choice:
    """How a token is chosen, as `DecodingConfig` has it; one choice has graphs of its own.

    `end_id` ends a text; None where it is not known, and never barred. `sure`: the drafter's
    probability of each token is wanted.
    """

    temperature: float
    top_k: int
    top_p: float
    no_repeat_ngram: int
    min_new_tokens: int
    end_id: int | None
    sure: bool

    @classmethod
    def of(cls, config: DecodingConfig, end_id: int | None) -> "Choice":
        """What settings ask for; for a drafter of which only `end_id` is known to end a text."""
        early = 0 if end_id is None else config.min_new_tokens or 0
        return cls(
            float(config.temperature),
            config.top_k,
            float(config.top_p),
            config.no_repeat_ngram or 0,
            early,
            end_id if early else None,
            config.draft_length == "adaptive",
        )

    @property
    def config(self) -> DecodingConfig:
        """What `distribution` goes by."""
        return DecodingConfig(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


class Written(NamedTuple):
    """A draft: its ids, on the host.

    Attributes:
        sure: the drafter's probability of each, at temperature 1 without filters; empty where
            that was not wanted.
        q: the distributions they were drawn from, (k, V); None where greedy.
        logits: those behind which each token stands, (k, V).
    """

    tokens: list[int]
    sure: list[float]
    q: torch.Tensor | None
    logits: torch.Tensor


class Slate:
    """What the steps of a draft read and write beside their model's own buffers.

    Of logits (V,) in a type; with room for so many tokens of a text. `at` is how many tokens were
    drafted so far, (1,).
    """

    def __init__(self, size: int, dtype: torch.dtype, room: int, device: torch.device) -> None:
        self._device = device
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self._text = torch.zeros(room, dtype=torch.long, device=device)
        self._places = torch.arange(room, device=device)
        self._tokens = torch.zeros(MOST, dtype=torch.long, device=device)
        self._uniforms = torch.zeros(MOST, dtype=torch.float64, device=device)
        self._sure = torch.zeros(MOST, dtype=torch.float64, device=device)
        self._logits = torch.zeros(MOST, size, dtype=dtype, device=device)
        self._q = torch.zeros(MOST, size, device=device)

    def fits(self, choice: Choice, total: int) -> bool:
        """Whether a choice can be made here: not where a rule might bar every token there is.

        The text has `total` tokens with the draft.
        """
        few = not choice.no_repeat_ngram or total + 1 < self._logits.shape[1]
        return few and choice.no_repeat_ngram <= len(self._text)

    def begin(self, choice: Choice, text: Sequence[int], uniforms: torch.Tensor) -> None:
        """A draft begins behind a text, the start token included; `uniforms` of its draws."""
        self.at.zero_()
        if choice.no_repeat_ngram:
            self._text[: len(text)].copy_(torch.tensor(text), non_blocking=True)
        if choice.temperature > 0:
            self._uniforms[: len(uniforms)].copy_(uniforms, non_blocking=True)

    def choose(self, logits: torch.Tensor, length: torch.Tensor, choice: Choice) -> torch.Tensor:
        """Chooses by logits (V,) the token (1,) behind `length` (1,) others; writes it down."""
        row = self._ruled(logits, length, choice)[None]
        if choice.temperature == 0:
            token = row.argmax(-1)
        else:
            q = distribution(row, choice.config)
            token = draw(q[0], self._uniforms.index_select(0, self.at))
            self._q.index_copy_(0, self.at, q)
        self._logits.index_copy_(0, self.at, logits[None])
        self._tokens.index_copy_(0, self.at, token)
        if choice.no_repeat_ngram:
            self._text.index_copy_(0, length, token)
        if choice.sure:
            sure = logits.float().softmax(-1).index_select(0, token)
            self._sure.index_copy_(0, self.at, sure.double())
        self.at.add_(1)
        return token

    def go_on(self, entry: torch.Tensor, count: int, logits: torch.Tensor, choice: Choice) -> None:
        """Chooses the token behind a step, and puts it where the next step reads it.

        The entry is how many tokens of the text were read before the step, and the `count` that it
        read; the logits (V,) stand behind the last.
        """
        places = entry[:1] + count
        token = self.choose(logits, places, choice)
        entry[:1].copy_(places)
        entry[1:2].copy_(token)

    def take(self, count: int, choice: Choice) -> Written:
        """The draft, of `count` tokens; the host waits here."""
        q = self._q[:count].clone() if choice.temperature > 0 else None
        logits = self._logits[:count].clone()
        if not choice.sure:
            return Written(self._tokens[:count].tolist(), [], q, logits)
        # Ids stay exact: float64 holds 2^53.
        found = torch.cat([self._tokens[:count].double(), self._sure[:count]]).tolist()
        return Written([int(token) for token in found[:count]], found[count:], q, logits)

    def _ruled(self, logits: torch.Tensor, length: torch.Tensor, choice: Choice) -> torch.Tensor:
        """The logits, minus infinity where `fastllm.decoding.rules` bars a token."""
        order, size = choice.no_repeat_ngram, len(logits)
        if order:
            # A token is barred where the last tokens stood before it already: the comparison of
            # every place's n - 1 tokens with the last n - 1, all at once.
            last = self._places[: len(self._text) - order + 1]
            same = last + order <= length
            for place in range(order - 1):
                back = (length - (order - 1) + place).clamp(min=0)
                wanted = self._text.index_select(0, back)
                same = same & (self._text[place : place + len(last)] == wanted)
            followers = self._text[order - 1 :]
            # Those that are not barred go to a place behind the vocabulary.
            barred = torch.where(same & (followers < size), followers, size)
            wide = torch.cat([logits, logits.new_zeros(1)])
            logits = wide.index_fill(0, barred, float("-inf"))[:size]
        if choice.min_new_tokens and choice.end_id is not None:
            early = length - 1 < choice.min_new_tokens
            end = logits[choice.end_id : choice.end_id + 1]
            ruled = torch.where(early, float("-inf"), end)
            logits = torch.cat([logits[: choice.end_id], ruled, logits[choice.end_id + 1 :]])
        return logits
