"""Draft-OPD: what a target refuses of drafts is drafted again, and learned from.

A small drafter cannot write whole texts to learn from: what it writes is not what the target would
have written. So the target helps. Its own text is what greedy speculative decoding writes,
whoever drafts, so the texts of `pseudo` serve as they are; the drafter drafts along them, in drafts
that begin where decoding would begin them. Where its first choice is not the target's word, the
draft is replayed: the refused token, and what the drafter would have put after it up to the end of
the draft. These prefixes are the drafter's own errors. There the reverse KL divergence counts, each
token less than the one before it.

Source: Lei et al. 2026, arXiv:2605.29343, and its code. There a drafter writes a draft in one call
and all refusals are replayed; here it goes token by token, and one refusal of each text is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fastllm.distill.validation import GAMMA, greedy_drafts
from fastllm.drafters.neural import roll_out

DECAY = 0.8
"""The weight of a replayed token, as a share of the one before it: as in its authors' script."""


@dataclass(frozen=True)
class Replays:
    """Texts that end with a refused draft.

    `rows` says of which text of the batch each is, `weights` (len(rows), longest) what its places
    count: 1 at the refused token, 0 before it.
    """

    rows: list[int]
    texts: list[list[int]]
    weights: torch.Tensor


def refusals(choices: Sequence[int], text: Sequence[int], gamma: int = GAMMA) -> list[range]:
    """Of each draft that is not accepted whole: its places from the refused token on, in the text.

    `choices` are the drafter's first choices after the true words before each place of `text`.

    Example:
        >>> refusals([7, 8, 0, 6, 0], text=[7, 8, 9, 6, 1], gamma=3)
        [range(2, 3), range(4, 5)]
    """
    agrees = [choice == token for choice, token in zip(choices, text, strict=True)]
    return [
        range(start + kept, min(start + gamma, len(text)))
        for start, kept in greedy_drafts(agrees, gamma)
        if kept < min(gamma, len(text) - start)
    ]


def replays(
    model: Any,
    source: torch.Tensor,
    texts: Sequence[Sequence[int]],
    choices: torch.Tensor,
    *,
    start_id: int,
    end_id: int | Sequence[int],
    generator: torch.Generator,
) -> Replays:
    """One refusal of each text, drawn at random and drafted greedily to the end of its draft.

    Texts without a refusal are left out. Where none has one, the first text stands there with
    weights of 0: several processes have to call their networks equally often.

    Args:
        model: the drafter's network.
        source: the articles (B, S), padded with 0.
        texts: what the target wrote about them, not empty.
        choices: the drafter's first choices at each place, (B, T), T at least the longest text.
        start_id: the token before a text.
        end_id: the token that ends one, or several of which any does.
        generator: draws which refusal; on the CPU.
    """
    draws = torch.rand(len(texts), generator=generator).tolist()
    chosen: dict[int, range] = {}
    for row, (text, first) in enumerate(zip(texts, choices.tolist(), strict=True)):
        if found := refusals(first[: len(text)], text):
            chosen[row] = found[int(draws[row] * len(found))]
    if not chosen:
        return Replays([0], [list(texts[0])], torch.zeros(1, len(texts[0])))
    rows = list(chosen)
    written = roll_out(
        model,
        source[rows],
        start_id=start_id,
        end_id=end_id,
        length=max(draft.stop for draft in chosen.values()),
        temperature=0.0,
        generator=generator,
        opening=[
            [*texts[row][: at.start], int(choices[row, at.start])] for row, at in chosen.items()
        ],
    )
    drafted = [text[: at.stop] for text, at in zip(written, chosen.values(), strict=True)]
    weights = torch.zeros(len(rows), max(map(len, drafted)))
    for row, (text, at) in enumerate(zip(drafted, chosen.values(), strict=True)):
        count = len(text) - at.start
        weights[row, at.start : len(text)] = DECAY ** torch.arange(count)
    return Replays(rows, drafted, weights)
