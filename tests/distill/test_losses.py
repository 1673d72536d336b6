import math

import pytest
import torch

from fastllm.distill.losses import (
    DIVERGENCES,
    cross_entropy,
    draw_tokens,
    forward_kl,
    hybrid_acceptance,
    jensen_shannon,
    loss_weights,
    masked_mean,
    negative_log_acceptance,
    reverse_kl,
    sampled_total_variation,
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
        negative_log_acceptance: -math.log(0.6),
        hybrid_acceptance: math.exp(-1.8) * _kl(p, q) + (1 - math.exp(-1.8)) * 0.4,
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


def _random_logits(seed: int, size: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, size, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_vanish_at_equality_and_have_true_gradients(name: str) -> None:
    divergence = DIVERGENCES[name]
    p, q = _random_logits(1), _random_logits(2).requires_grad_()
    assert divergence(p, p).abs().max() < 1e-12
    assert divergence(p, q).shape == (2, 3)
    assert (divergence(p, q) > 0).all()
    if name == "lk_hybrid":  # as written, no gradient passes through the weight
        weight = (-3 * (1 - total_variation(p, q.detach()))).exp()
        assert torch.equal(divergence(p, q), hybrid_acceptance(p, q, weight=weight))
        assert torch.autograd.gradcheck(lambda x: hybrid_acceptance(p, x, weight=weight), q)
        loss, held = divergence(p, q).sum(), hybrid_acceptance(p, q, weight=weight).sum()
        assert torch.equal(*(torch.autograd.grad(value, q)[0] for value in (loss, held)))
        return
    assert torch.autograd.gradcheck(lambda x: divergence(p, x), q)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_are_numbers_where_the_two_share_nothing(name: str) -> None:
    p, q = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)
    p[..., 0], q[..., 1] = 300.0, 300.0  # exp underflows: the others are 0 to the last digit
    q.requires_grad_()
    value = DIVERGENCES[name](p, q).sum()
    value.backward()
    assert value.isfinite()
    assert q.grad is not None
    assert q.grad.isfinite().all()


def test_acceptance_losses_are_what_total_variation_makes_of_them() -> None:
    """nla = -log(1 - TVD), so its gradient is TVD's over alpha; hybrid is FKL where alpha is 0."""
    p, q = _random_logits(3), _random_logits(4).requires_grad_()
    alpha = 1 - total_variation(p, q)
    assert torch.allclose(negative_log_acceptance(p, q), -alpha.log())
    (of_nla,) = torch.autograd.grad(negative_log_acceptance(p, q).sum(), q)
    (of_tvd,) = torch.autograd.grad(total_variation(p, q).sum(), q)
    assert torch.allclose(of_nla, of_tvd / alpha.detach()[..., None])
    apart = torch.tensor([[[60.0, 0.0]]]), torch.tensor([[[0.0, 60.0]]])
    assert torch.allclose(hybrid_acceptance(*apart), forward_kl(*apart))


def test_the_expected_gradient_of_tvd_plus_plus_is_that_of_tvd() -> None:
    """By enumeration: every token of the vocabulary, weighted with its chance under q."""
    p, q = _random_logits(5), _random_logits(6).requires_grad_()
    mask = torch.ones(2, 3, dtype=torch.bool)
    (wanted,) = torch.autograd.grad(total_variation(p, q).sum(), q)
    for mean in (0.0, 0.7):  # whatever mu is: it takes variance out, and nothing else
        expected = torch.zeros_like(wanted)
        for token in range(5):
            tokens = torch.full((2, 3), token)
            values = sampled_total_variation(p, q, tokens, mask, mean=mean, deviation=1.0)
            chances = q.detach().softmax(-1)[..., token]
            expected += torch.autograd.grad((chances * values).sum(), q)[0]
        assert torch.allclose(expected, wanted, atol=1e-12)


def test_tvd_plus_plus_on_a_batch_equals_hand_calculation() -> None:
    """Rewards 1, 0, 0 where the mask is: mu = 1/3, sigma = sqrt(2)/3; a padded place has no say."""
    p = torch.stack([P, P, P, P]).log()[None]
    q = torch.stack([Q, Q, Q, Q]).log()[None].requires_grad_()
    tokens, mask = torch.tensor([[0, 2, 2, 0]]), torch.tensor([[True, True, True, False]])
    values = sampled_total_variation(p, q, tokens, mask)
    mu, sigma = 1 / 3, math.sqrt(2) / 3
    wanted = [-(1 - mu) / sigma * math.log(0.2), mu / sigma * math.log(0.6)]
    assert values[0, :2].tolist() == pytest.approx(wanted)
    assert torch.autograd.gradcheck(
        lambda x: sampled_total_variation(p, x, tokens, mask, mean=mu, deviation=sigma), q
    )
    alike = sampled_total_variation(p, q, torch.full_like(tokens, 2), mask)
    assert alike.tolist() == [[0.0] * 4], "where all are rewarded alike there is nothing to learn"


def test_tokens_are_drawn_by_their_chances() -> None:
    rows = Q.float().log().expand(1, 6, 3)
    uniforms = torch.tensor([[0.0, 0.19, 0.21, 0.39, 0.41, 0.9999999]])
    assert draw_tokens(rows, uniforms).tolist() == [[0, 0, 1, 1, 2, 2]]


def test_a_loss_may_be_a_weighted_sum() -> None:
    assert loss_weights("FKL") == {"fkl": 1.0}
    assert loss_weights("fkl=1,tvd++=0.5, lk-nla=2") == {"fkl": 1.0, "tvdpp": 0.5, "lk_nla": 2.0}
    for wrong, why in (
        ("guess", "loss='guess'"), ("fkl=0", "above 0"), ("fkl=a", "above 0"),
        ("fkl,fkl=2", "each loss once"), ("fkl=inf", "above 0"), ("", "loss=''"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=why):
            loss_weights(wrong)


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
