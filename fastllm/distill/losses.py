"""How far a drafter is from its target, per position, in nats.

Each function takes logits of shape (B, T, V) and returns (B, T). Which positions count, and how
they are averaged, is the caller's (`masked_mean`).

All of them are exact sums over the vocabulary but one: TVD++ is a policy gradient on sampled
tokens, so it also takes the samples, and its value says nothing, only its gradient does.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from fastllm.errors import SettingsError

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(target logits p, drafter logits q), each (B, T, V), to (B, T)."""


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log q(label), for logits (B, T, V) and labels (B, T); 0 where a label is negative."""
    return functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")


def forward_kl(p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
    """KL(p || q) = sum p (log p - log q). Source: Hinton et al. 2015, arXiv:1503.02531."""
    # One fused pass: over a vocabulary these sums are bound by memory, not by arithmetic.
    p, q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    return functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def reverse_kl(p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
    """KL(q || p) = sum q (log q - log p). Source: Gu et al. 2023, arXiv:2306.08543."""
    return forward_kl(q_logits, p_logits)


def jensen_shannon(
    p_logits: torch.Tensor, q_logits: torch.Tensor, beta: float = 0.5
) -> torch.Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q.

    Tends to 0 at beta 0 and 1; divided by beta (by 1 - beta) it tends to forward (reverse) KL.
    Source: Agarwal et al. 2023, arXiv:2306.13649.

    Raises:
        SettingsError: beta not strictly between 0 and 1.
    """
    if not 0 < beta < 1:
        raise SettingsError(f"beta={beta}: give a number between 0 and 1, both excluded.")
    log_p, log_q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    # Where both are 0 to the last digit so is their share, whatever the logarithm is taken for.
    log_m = (beta * p + (1 - beta) * q).clamp(min=torch.finfo(p.dtype).tiny).log()
    return beta * (p * (log_p - log_m)).sum(-1) + (1 - beta) * (q * (log_q - log_m)).sum(-1)


def total_variation(p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
    """0.5 sum |p - q| = 1 - sum min(p, q): the chance that a draft is refused."""
    return 0.5 * (p_logits.softmax(-1) - q_logits.softmax(-1)).abs().sum(-1)


def sampled_total_variation(
    p_logits: torch.Tensor,
    q_logits: torch.Tensor,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    *,
    mean: float | None = None,
    deviation: float | None = None,
) -> torch.Tensor:
    """TVD++: -A log q(x) for tokens x ~ q, A = (r - mu) / sigma, r = 1 where p(x) > q(x), else 0.

    A surrogate: its gradient in q is the policy gradient, its value says nothing. With mu = 0 and
    sigma = 1 the expectation of that gradient over x is the gradient of `total_variation`; any mu
    leaves the expectation as it is and takes variance out.

    Args:
        p_logits: of the target, (B, T, V).
        q_logits: of the drafter, (B, T, V).
        tokens: x, (B, T), each drawn from the drafter's distribution at its place (`draw_tokens`).
        mask: the places that count, (B, T), boolean: mu and sigma are taken over them.
        mean: mu, where it is not to be the batch's.
        deviation: sigma, likewise.

    Source: Goel et al. 2024, arXiv:2403.00858, which draws whole texts; here the prefixes may be
    anybody's, and the token at each place is the drafter's.
    """
    at = tokens[..., None]
    log_q = q_logits.log_softmax(-1).gather(-1, at)[..., 0]
    with torch.no_grad():
        log_p = p_logits.log_softmax(-1).gather(-1, at)[..., 0]
        rewards = (log_p > log_q).to(log_q.dtype)
        count = mask.sum().clamp(min=1)
        mu = (rewards * mask).sum() / count if mean is None else mean
        if deviation is None:  # where all are rewarded alike every advantage is 0, not 0 / 0
            sigma = ((rewards - mu).square() * mask).sum().div(count).sqrt().clamp(min=1e-6)
            advantages = (rewards - mu) / sigma
        else:
            advantages = (rewards - mu) / deviation
    return -advantages * log_q


@torch.no_grad()
def draw_tokens(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """A token of each place of logits (B, T, V): the cumulative sum inverted at uniforms (B, T)."""
    cumulative = logits.float().softmax(-1).cumsum(-1)
    reached = uniforms.to(cumulative)[..., None] * cumulative[..., -1:]
    tokens = torch.searchsorted(cumulative, reached, right=True)[..., 0]
    return tokens.clamp(max=logits.shape[-1] - 1)


def negative_log_acceptance(p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
    """-log alpha, alpha = sum min(p, q): the likelihood that a draft is accepted.

    Its gradient is that of total variation divided by alpha, so it does not fade where the two
    hardly overlap. Source: LK losses, arXiv:2602.23881.
    """
    p, q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    return -torch.minimum(p, q).logsumexp(-1)


def hybrid_acceptance(
    p_logits: torch.Tensor,
    q_logits: torch.Tensor,
    decay: float = 3.0,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """w FKL + (1 - w) TVD with w = exp(-decay alpha): KL while the two are far apart, then TVD.

    `weight` is w, (B, T), where it is not to be found from alpha; no gradient passes through it.
    Source: LK losses, arXiv:2602.23881.
    """
    variation = total_variation(p_logits, q_logits)
    if weight is None:
        weight = (-decay * (1 - variation.detach())).exp()
    return weight * forward_kl(p_logits, q_logits) + (1 - weight) * variation


DIVERGENCES: dict[str, Divergence] = {
    "fkl": forward_kl,
    "rkl": reverse_kl,
    "jsd": jensen_shannon,
    "tvd": total_variation,
    "lk_nla": negative_log_acceptance,
    "lk_hybrid": hybrid_acceptance,
}
"""The divergences by the names that recipes and the command line use."""

SAMPLED = "tvdpp"
"""The name of TVD++, which takes samples beside the logits."""

LOSSES = ("ce", *DIVERGENCES, SAMPLED)
"""Everything that can be minimised."""

_SPELLINGS = {"tvd++": SAMPLED, "kl": "fkl", "cross_entropy": "ce"}


def loss_weights(text: str) -> dict[str, float]:
    """What a loss is made of: "fkl" is one, "fkl=1,tvd=0.5" a weighted sum; in any case.

    Raises:
        SettingsError: a name that there is not, or a weight that is not above 0.

    Example:
        >>> loss_weights("fkl=1,tvd++=0.5")
        {'fkl': 1.0, 'tvdpp': 0.5}
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        name = name.strip().lower().replace("-", "_")
        name = _SPELLINGS.get(name, name)
        if name not in LOSSES:
            raise SettingsError(f"loss={text!r}: give one of {', '.join(LOSSES)}.")
        try:
            weight = float(number) if number else 1.0
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf or name in weights:
            raise SettingsError(
                f"loss={text!r}: a weighted sum names each loss once, with a weight above 0, such "
                "as fkl=1,tvd=0.5."
            )
        weights[name] = weight
    return weights


def tempered(divergence: Divergence, temperature: float) -> Divergence:
    """`divergence` with both logits divided by a temperature, times its square (Hinton)."""
    if temperature == 1:
        return divergence
    return lambda p, q: temperature**2 * divergence(p / temperature, q / temperature)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of `values` (B, T) where `mask` (B, T) is true."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
