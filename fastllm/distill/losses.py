"""How far a drafter is from its target, per position, in nats.

Each function takes logits of shape (B, T, V) and returns (B, T). Which positions count, and how
they are averaged, is the caller's (`masked_mean`).
"""

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
    p, q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    weights = torch.tensor([beta, 1 - beta], device=p.device, dtype=p.dtype).log()
    m = torch.logaddexp(p + weights[0], q + weights[1])
    return beta * (p.exp() * (p - m)).sum(-1) + (1 - beta) * (q.exp() * (q - m)).sum(-1)


def total_variation(p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
    """0.5 sum |p - q| = 1 - sum min(p, q): the chance that a draft is refused."""
    return 0.5 * (p_logits.softmax(-1) - q_logits.softmax(-1)).abs().sum(-1)


DIVERGENCES: dict[str, Divergence] = {
    "fkl": forward_kl,
    "rkl": reverse_kl,
    "jsd": jensen_shannon,
    "tvd": total_variation,
}
"""The divergences by the names that recipes and the command line use."""


def tempered(divergence: Divergence, temperature: float) -> Divergence:
    """`divergence` with both logits divided by a temperature, times its square (Hinton)."""
    if temperature == 1:
        return divergence
    return lambda p, q: temperature**2 * divergence(p / temperature, q / temperature)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of `values` (B, T) where `mask` (B, T) is true."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
