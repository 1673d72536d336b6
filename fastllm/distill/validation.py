"""How good a drafter in training is: alpha and tau on held-out texts of the target.

Both are read from the target's own greedy texts, the drafter being told the true words before each
place. For a greedy decoding that is not an estimate of tau but tau itself: its text is the
target's, and a draft stands exactly as long as the drafter's first choices are the target's words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fastllm.data.tokens import IGNORED, padded, prefixes
from fastllm.decoding.distributions import forbid
from fastllm.decoding.rules import Rules
from fastllm.distill.teacher import Articles, Teacher
from fastllm.errors import DataError, VocabularyError
from fastllm.targets import resolve
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

GAMMA = 5
"""Tokens a draft when tau is measured."""


@dataclass(frozen=True)
class Counts:
    """What was counted on one text of so many tokens.

    `overlap` is the sum of sum min(p, q) at temperature 1 over its places, `agreed` how often the
    drafter's first choice is the target's word, `calls` those of the target, greedy.
    """

    tokens: int
    overlap: float
    agreed: int
    calls: int


class Written(Articles, Protocol):
    """Articles with what a target wrote of them; `TokenPairs` are some."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """With "vocabulary", a fingerprint, and "temperature" unless they are greedy."""

    def __len__(self) -> int:
        """How many there are."""

    def target(self, index: int) -> list[int]:
        """The ids of a text, with the end token where it ended."""


class Validation:
    """Measures a drafter's network with drafts of `gamma` tokens; draws nothing at random.

    `written` are held-out articles with what the target wrote greedily. With `keep_logits` what the
    target thinks of them is kept: for few texts, measured often.

    Raises:
        DataError: there is no text, or the texts were drawn at random.
        VocabularyError: the texts were written in another vocabulary.
    """

    def __init__(
        self,
        target: HubTarget,
        written: Written,
        *,
        gamma: int = GAMMA,
        batch: int = 16,
        keep_logits: bool = False,
    ) -> None:
        if not len(written) or written.meta.get("temperature"):
            raise DataError("validation needs texts that the target wrote at temperature 0.")
        if written.meta.get("vocabulary") != target.vocabulary.fingerprint:
            raise VocabularyError(
                f"the validation texts are not in {target.name}'s vocabulary: write them anew."
            )
        self.gamma = gamma
        self.articles = len(written)
        self._written = written
        self._teacher = Teacher(target, written)
        self._kept: dict[tuple[int, ...], torch.Tensor] | None = {} if keep_logits else None
        self._start = target.start_id
        most = DecodingConfig.max_new_tokens
        length = min(int(written.meta.get("length", most)), 1024)  # the most that is decoded
        self._config = resolve(DecodingConfig(max_new_tokens=length), target)
        self._rules = Rules(target.end_ids)
        # Texts of like length together: less padding.
        order = sorted(range(len(written)), key=lambda index: len(written.target(index)))
        self._batches = [order[at : at + batch] for at in range(0, len(order), batch)]

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """The numbers that go into the log, of a network (source (B, S), prefix (B, T)) -> logits.

        Returns:
            validation_alpha: mean of sum min(p, q) over all places, at temperature 1.
            validation_alpha_greedy: the share of places where the drafter's first choice is the
                target's word.
            validation_tau: tokens a call of the target, greedy, with drafts of `gamma`.
        """
        found = self.by_text(model)
        tokens = sum(counts.tokens for counts in found)
        return {
            "validation_alpha": sum(counts.overlap for counts in found) / tokens,
            "validation_alpha_greedy": sum(counts.agreed for counts in found) / tokens,
            "validation_tau": tokens / sum(counts.calls for counts in found),
        }

    @torch.no_grad()
    def by_text(self, model: torch.nn.Module) -> list[Counts]:
        """The same numbers, counted on each text; in the order in which they were written."""
        device = next(model.parameters()).device
        found: dict[int, Counts] = {}
        for indices in self._batches:
            texts = [self._written.target(index) for index in indices]
            labels = padded(texts, IGNORED).to(device)
            prefix = prefixes(texts, self._start).to(device)
            source = padded([self._written.source(index) for index in indices], 0).to(device)
            q_logits = model(source, prefix).float()
            p_logits = self._target_logits(indices, prefix)
            for row, (index, text) in enumerate(zip(indices, texts, strict=True)):
                banned = self._rules.along([self._start], text[:-1], self._config)
                p = forbid(p_logits[row, : len(text)], banned)
                q = forbid(q_logits[row, : len(text)], banned)
                width = min(p.shape[-1], q.shape[-1])
                shared = torch.minimum(p.softmax(-1)[:, :width], q.softmax(-1)[:, :width])
                agrees = (q.argmax(-1) == labels[row, : len(text)]).tolist()
                found[index] = Counts(
                    len(text), float(shared.sum()), sum(agrees), greedy_calls(agrees, self.gamma)
                )
        return [found[index] for index in range(self.articles)]

    def _target_logits(self, indices: list[int], prefix: torch.Tensor) -> torch.Tensor:
        if self._kept is None:
            return self._teacher.logits(indices, prefix)
        batch = tuple(indices)
        if batch not in self._kept:
            self._kept[batch] = self._teacher.logits(indices, prefix)
        return self._kept[batch]


def greedy_calls(agrees: Sequence[bool], gamma: int) -> int:
    """Calls of the target that greedy speculation with drafts of `gamma` needs for a text.

    `agrees` says of each place whether the drafter's first choice is the target's word.

    Example:
        >>> greedy_calls([True, True, False, True, True], gamma=2)
        2
    """
    return len(greedy_drafts(agrees, gamma))


def greedy_drafts(agrees: Sequence[bool], gamma: int) -> list[tuple[int, int]]:
    """Where each draft of that decoding begins, and how many of its tokens are kept."""
    place, found = 0, []
    while place < len(agrees):
        kept = 0
        while kept < gamma and place + kept < len(agrees) and agrees[place + kept]:
            kept += 1
        found.append((place, kept))
        place += kept + 1  # the target's own token comes on top
    return found
