"""Each form of a matrix gives the same rows, and the quickest exact one is taken."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastllm.targets.matrices import (
    Dense,
    Halved,
    Packed,
    can_halve,
    can_pack,
    halves,
    matrix,
)

FORMS: dict[type[Any], Callable[[], bool]] = {
    Dense: lambda: True,
    Packed: can_pack,
    Halved: can_halve,
}


def drawn(*shape: int) -> torch.Tensor:
    """Numbers as bfloat16 has them."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(7)).bfloat16().float()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("outputs", "inputs"), [(70, 48), (16, 80), (1, 8), (513, 33)])
def test_a_form_gives_the_product(form: Any, outputs: int, inputs: int) -> None:
    if not FORMS[form]():
        pytest.skip(f"this torch has no {form.__name__} matrices")
    weight, norm = drawn(outputs, inputs), drawn(inputs)
    bare = form(weight, epsilon=0.0)
    normed = form(weight, norm, 0.25, epsilon=1e-2)
    for rows in (1, 2, 7, 40):
        flow = torch.randn(rows, inputs) * 0.3
        exact = flow.double() @ weight.double().t()
        bound = 1e-5 * float(exact.abs().max())
        assert (bare(flow) - exact).abs().max() < bound
        total = torch.ones(rows, outputs)
        bare.add(total, flow)
        assert (total - exact - 1).abs().max() < 2 * bound
        wide = flow.double()
        level = wide * (wide.square().mean(-1, keepdim=True) + 1e-2).rsqrt() * norm * 0.25
        exact = level @ weight.double().t()
        assert (normed(flow) - exact).abs().max() < 1e-5 * float(exact.abs().max())


def test_float16_must_hold_every_weight() -> None:
    weight = drawn(20, 30)
    assert halves(weight)
    assert halves(weight * 2.0**-13)
    assert halves(torch.full((2, 2), 2.0**-26))  # rounded to 0, by less than is tolerated
    assert not halves(torch.randn(20, 30))
    weight[3, 4] = 70000.0  # above what float16 has
    assert not halves(weight)


def test_the_quickest_exact_form_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, inexact = drawn(8, 8), torch.randn(8, 8)
    expected: Any = Halved if can_halve() else Packed if can_pack() else Dense
    assert type(matrix([exact[:4], exact[4:]])) is expected
    assert type(matrix([inexact])) is (Packed if can_pack() else Dense)
    assert type(matrix([exact.bfloat16()])) is Dense
    monkeypatch.setattr("fastllm.targets.matrices.can_halve", lambda: False)
    assert type(matrix([exact])) is (Packed if can_pack() else Dense)
    monkeypatch.setattr("fastllm.targets.matrices.can_pack", lambda: False)
    assert type(matrix([exact])) is Dense
