"""Distributions and draws."""

import pytest
import torch

from fastllm.decoding.distributions import distribution, draw, drawn
from fastllm.decoding.proposals import DenseProposal, OneHotProposal
from fastllm.trace import DecodingConfig

LAST = 1 - 2**-53
"""The largest float64 below 1."""


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.5, 0.999, LAST])
@pytest.mark.parametrize(
    "weights",
    [
        [0.0, 1.0, 0.0],
        [0.0, 0.0, 2.0, 3.0, 0.0, 0.0],
        [1e-30, 0.0, 1e-30],
        [0.0, 0.1, 0.0, 0.2, 0.0],
        [0.0] * 50 + [1 / 3] * 3 + [0.0] * 50,
    ],
)
def test_a_token_of_weight_0_is_never_drawn(weights: list[float], uniform: float) -> None:
    for dtype in (torch.float32, torch.float64):
        row = torch.tensor(weights, dtype=dtype)
        assert row[draw(row, torch.tensor(uniform, dtype=torch.float64))] > 0


def test_a_draw_inverts_the_cumulative_sum() -> None:
    row = torch.tensor([1.0, 0.0, 2.0, 1.0])
    drawn = [int(draw(row, uniform)) for uniform in (0.0, 0.2499, 0.25, 0.7499, 0.75, LAST)]
    assert drawn == [0, 0, 2, 2, 3, 3]


def test_draws_from_a_large_vocabulary_follow_it() -> None:
    row = torch.rand(32_128, generator=torch.Generator().manual_seed(1))
    row[::3] = 0
    for uniform in torch.linspace(0, 1 - 1e-9, 101, dtype=torch.float64):
        token = int(draw(row, uniform))
        assert row[token] > 0
        share = float(row[:token].double().sum() / row.double().sum())
        assert share == pytest.approx(float(uniform), abs=1e-4)


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_draw_on_the_host_is_the_same(size: int) -> None:
    row = torch.rand(size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    row[: size // 3] = 0
    whole = row.cumsum(0)
    for uniform in torch.linspace(0, LAST, 301, dtype=torch.float64).tolist():
        assert drawn(row, uniform) == int((whole <= uniform * whole[-1]).sum())
        assert drawn(row, uniform) == int(draw(row, uniform))


LOGITS = torch.tensor([0.5, 0.1, 0.3, 0.1]).log()


def test_temperature_1_is_the_softmax() -> None:
    torch.testing.assert_close(
        distribution(LOGITS, DecodingConfig(temperature=1.0)), torch.tensor([0.5, 0.1, 0.3, 0.1])
    )


def test_temperature_sharpens_and_flattens() -> None:
    squared = torch.tensor([0.25, 0.01, 0.09, 0.01]) / 0.36
    torch.testing.assert_close(distribution(LOGITS, DecodingConfig(temperature=0.5)), squared)
    flat = distribution(LOGITS, DecodingConfig(temperature=2.0))
    assert 0.1 < float(flat[1])
    assert float(flat[0]) < 0.5


def test_temperature_0_is_one_hot_and_the_limit() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, -1.0, 4.0]])
    greedy = distribution(logits, DecodingConfig(top_k=2, top_p=0.5))
    assert greedy.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    near = distribution(logits, DecodingConfig(temperature=0.01))
    torch.testing.assert_close(near, greedy)


def test_temperature_0_with_a_tie_chooses_one_token() -> None:
    assert distribution(torch.tensor([2.0, 2.0, 1.0]), DecodingConfig()).sum() == 1


def test_top_k_by_hand() -> None:
    kept = distribution(LOGITS, DecodingConfig(temperature=1.0, top_k=2))
    torch.testing.assert_close(kept, torch.tensor([0.625, 0.0, 0.375, 0.0]))
    all_of_them = distribution(LOGITS, DecodingConfig(temperature=1.0, top_k=99))
    torch.testing.assert_close(all_of_them, torch.tensor([0.5, 0.1, 0.3, 0.1]))


def test_top_p_by_hand() -> None:
    def kept(top_p: float) -> list[float]:
        row = distribution(LOGITS, DecodingConfig(temperature=1.0, top_p=top_p))
        return [round(value, 4) for value in row.tolist()]

    assert kept(0.01) == [1.0, 0.0, 0.0, 0.0]
    assert kept(0.49) == [1.0, 0.0, 0.0, 0.0]
    assert kept(0.6) == [0.625, 0.0, 0.375, 0.0]
    # Mass .8 is not .85 yet: one of the two equal tokens is needed, and the first is taken.
    assert kept(0.85) == [0.5556, 0.1111, 0.3333, 0.0]
    assert kept(1.0) == [0.5, 0.1, 0.3, 0.1]


def test_top_k_is_applied_before_top_p() -> None:
    # Of 5:3 (top_k 2), the first has .625 of the mass: enough for top_p .6.
    both = distribution(LOGITS, DecodingConfig(temperature=1.0, top_k=2, top_p=0.6))
    assert both.tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_distributions_are_float32_and_sum_to_1(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 4, 1000).to(dtype)
    for config in (
        DecodingConfig(),
        DecodingConfig(temperature=0.7, top_k=50, top_p=0.9),
        DecodingConfig(temperature=2.0),
    ):
        rows = distribution(logits, config)
        assert rows.dtype == torch.float32
        assert rows.shape == (3, 4, 1000)
        torch.testing.assert_close(rows.sum(-1), torch.ones(3, 4))


def test_forms_of_a_proposal_agree() -> None:
    certain = OneHotProposal([1, 3])
    full = DenseProposal(torch.eye(4)[[1, 3]])
    assert certain.chances([1, 3]) == full.chances([1, 3]) == [1.0, 1.0]
    p = torch.tensor([0.5, 0.2, 0.2, 0.1]).numpy()
    for position in range(2):
        torch.testing.assert_close(certain.row(position, 4), full.row(position, 4))
        for scale in (1.0, 0.5):
            one, other = (form.residual(position, p, scale) for form in (certain, full))
            assert one == pytest.approx(other)
            mass = certain.residual_mass(position, p, scale)
            assert mass == pytest.approx(full.residual_mass(position, p, scale))
