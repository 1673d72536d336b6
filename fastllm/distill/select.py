"""Which articles the target writes about: those that a drafter is unsure of, and a random share.

Labels cost calls of the target, and a drafter's own text costs next to nothing. So of a pool of
articles the drafter writes about each, and those are labelled of which it says itself that it is
unsure: the mean log-probability of its own greedy text is low (uncertainty sampling, least
confidence; for sequences: arXiv:1907.00038). A random share stands beside them, so that what the
choice does can be told from what more labels do: `--random 1` is the control.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastllm.data.tokens import IGNORED, TokenPairs, padded, prefixes
from fastllm.drafters.neural import roll_out
from fastllm.errors import NotFiniteError, SettingsError

SELECTIONS = ("uncertain",)
"""How articles are chosen from a pool."""


@torch.no_grad()
def confidences(
    model: Any,
    pairs: TokenPairs,
    *,
    start_id: int,
    end_id: int | Sequence[int],
    length: int,
    batch: int = 32,
    say: Callable[[str], None] = lambda line: None,
) -> list[float]:
    """How sure a drafter's network is of its own greedy texts of at most `length` tokens.

    Returns:
        The mean log-probability of each article's, in nats a token, 0 at most.
    """
    device = next(model.parameters()).device
    found: list[float] = []
    for at in range(0, len(pairs), batch):
        indices = range(at, min(at + batch, len(pairs)))
        source = padded([pairs.source(index) for index in indices], 0).to(device)
        texts = roll_out(
            model,
            source,
            start_id=start_id,
            end_id=end_id,
            length=length,
            temperature=0.0,
            generator=torch.Generator(),
        )
        labels = padded(texts, IGNORED).to(device)
        chances = model(source, prefixes(texts, start_id).to(device)).float().log_softmax(-1)
        own = chances.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        real = labels != IGNORED
        found += ((own * real).sum(-1) / real.sum(-1)).tolist()
        if at // batch % 10 == 9:
            say(f"{len(found)} of {len(pairs)} articles of the pool were looked at")
    return found


def choose(confidence: Sequence[float], count: int, share: float, seed: int) -> dict[int, str]:
    """Which articles of a pool are labelled, and as which arm, in the order of the pool.

    The random ones, a `share` of `count`, are drawn first and from the whole pool: what the drafter
    says does not touch them.

    Raises:
        NotFiniteError: a confidence is no number.
        SettingsError: the pool is too small, or the share is none.

    Example:
        >>> choose([-0.1, -3.0, -0.2, -2.0], 2, 0.0, 0)
        {1: 'uncertain', 3: 'uncertain'}
    """
    if not 0 <= share <= 1:
        raise SettingsError(f"--random {share}: give a share from 0 to 1.")
    if count > len(confidence):
        raise SettingsError(
            f"--limit {count} of a pool of {len(confidence)} articles: give a larger --pool."
        )
    if not all(map(math.isfinite, confidence)):  # NaN would come first, as the least sure
        raise NotFiniteError(
            "the drafter's confidence is NaN or infinite: its weights are damaged. Copy or train "
            "it again, or give another --ckpt_path."
        )
    everything = range(len(confidence))
    control = set(random.Random(seed).sample(everything, round(share * count)))
    unsure = sorted(
        (index for index in everything if index not in control), key=confidence.__getitem__
    )
    arms = dict.fromkeys(control, "random") | dict.fromkeys(
        unsure[: count - len(control)], "uncertain"
    )
    return dict(sorted(arms.items()))
