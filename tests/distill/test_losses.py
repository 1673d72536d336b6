import math

import pytest
import torch

from fastllm.distill.losses import (
    DIVERGENCES,
    cross_entropy,
    forward_kl,
    jensen_shannon,
    masked_mean,
    reverse_kl,
    tempered,
    total_variation,
)
from fastllm.errors import SettingsError

P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)


def _logits(row: torch.Tensor) -> torch.Tensor:
    # A constant added to logits must change nothing.
    return row.log()[None, None] + 3.0


def _kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_divergences_equal_hand_calculation() -> None:
    p, q = P.tolist(), Q.tolist()
    m = [0.3 * a + 0.7 * b for a, b in zip(p, q, strict=True)]
    expected = {
        forward_kl: _kl(p, q),
        reverse_kl: _kl(q, p),
        total_variation: 0.4,
    }
    for divergence, value in expected.items():
        assert divergence(_logits(P), _logits(Q)).item() == pytest.approx(value, abs=1e-12)
    jsd = jensen_shannon(_logits(P), _logits(Q), 0.3).item()
    assert jsd == pytest.approx(0.3 * _kl(p, m) + 0.7 * _kl(q, m), abs=1e-12)


def test_total_variation_is_the_chance_of_refusal() -> None:
    refused = 1 - torch.minimum(P, Q).sum()
    assert total_variation(_logits(P), _logits(Q)).item() == pytest.approx(refused.item())


def test_jensen_shannon_tends_to_the_two_kl() -> None:
    beta = 1e-6
    p, q = _logits(P), _logits(Q)
    assert (jensen_shannon(p, q, beta) / beta).item() == pytest.approx(
        forward_kl(p, q).item(), rel=1e-4
    )
    assert (jensen_shannon(p, q, 1 - beta) / beta).item() == pytest.approx(
        reverse_kl(p, q).item(), rel=1e-4
    )
    with pytest.raises(SettingsError, match="beta=0"):
        jensen_shannon(p, q, 0)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_vanish_at_equality_and_have_true_gradients(name: str) -> None:
    divergence = DIVERGENCES[name]
    generator = torch.Generator().manual_seed(1)
    p = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    q = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    assert divergence(p, p).abs().max() < 1e-12
    assert divergence(p, q).shape == (2, 3)
    assert (divergence(p, q) > 0).all()
    assert torch.autograd.gradcheck(lambda x: divergence(p, x), q)


def test_temperature_divides_logits_and_scales_by_its_square() -> None:
    p, q = _logits(P), _logits(Q)
    assert tempered(forward_kl, 2.0)(p, q).item() == pytest.approx(
        4 * forward_kl(p / 2, q / 2).item()
    )


def test_cross_entropy_and_mask() -> None:
    logits = torch.log(torch.stack([P, Q]))[None]
    values = cross_entropy(logits, torch.tensor([[0, -100]]))
    assert values.tolist() == [[pytest.approx(-math.log(0.5)), 0.0]]
    mask = torch.tensor([[True, False]])
    assert masked_mean(values, mask).item() == pytest.approx(-math.log(0.5))
    assert masked_mean(values, torch.zeros(1, 2, dtype=torch.bool)).item() == 0
