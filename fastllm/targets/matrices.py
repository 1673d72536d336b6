"""Matrices of a T5 made ready for a few rows: the way that reads the fewest bytes.

At batch 1 a token reads every weight once, so the bytes of the weights decide: `Halved` is taken
wherever it changes nothing, then `Packed`. docs/engine.md has the milliseconds of each.
"""

import warnings
from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch.nn import functional

TOLERATED = 2.0**-25
"""How far a weight may be from its nearest float16: half the smallest step of that type, which
numbers below 6e-8 are rounded by. Every bfloat16 number of ordinary size is exact."""

_TWICE = 1 << 24
"""A matrix of more numbers is packed in one layout alone: a second one would cost much memory."""


class Matrix(Protocol):
    """A matrix (out, in) with the norm before it, if any; `bytes` of weights are read a row."""

    bytes: int

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        """Rows (T, in), normalised first if there is a norm, to (T, out)."""

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        """Adds the product with rows (T, in) to `flow` (T, out)."""


def matrix(
    weights: list[torch.Tensor],
    norm: torch.Tensor | None = None,
    scale: float = 1.0,
    *,
    epsilon: float = 0.0,
) -> Matrix:
    """The matrix in the quickest form that gives what it gives in its own type.

    Args:
        weights: stacked to one matrix (out, in).
        norm: the weights (in,) of the RMSNorm before it; none where None.
        scale: multiplies what comes from the norm.
        epsilon: of the norm.
    """
    whole = weights[0] if len(weights) == 1 else torch.cat(weights)
    if not whole.numel():
        return Nothing(len(whole))
    kind: type[Dense] | type[Halved] | type[Packed] = Dense
    if whole.device.type == "cpu" and whole.dtype == torch.float32:
        kind = Halved if can_halve() and halves(whole) else Packed if can_pack() else Dense
    return kind(whole, norm, scale, epsilon=epsilon)


def halves(weight: torch.Tensor) -> bool:
    """Whether float16 holds a matrix, each number within TOLERATED."""
    return bool((weight - weight.half()).abs().max() <= TOLERATED)


def can_halve() -> bool:
    """Whether torch has FBGEMM's matrices in float16 here: not on ARM, and not without AVX2.

    Later versions of torch may drop them, as a warning of theirs says; `Packed` then serves.
    """
    return "fbgemm" in torch.backends.quantized.supported_engines and all(
        hasattr(torch, name)
        for name in ("fbgemm_pack_gemm_matrix_fp16", "fbgemm_linear_fp16_weight_fp32_activation")
    )


def can_pack() -> bool:
    """Whether this build of torch has oneDNN's packed matrices."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return bool(torch.backends.mkldnn.enabled) and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )


class Nothing:
    """A matrix (outputs, 0), of a part of which a pruned decoder keeps nothing."""

    bytes = 0

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        """Zeros (T, out)."""
        return flow.new_zeros(len(flow), self._outputs)

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        """Adds nothing."""


class Dense:
    """The plain way, for CUDA and for half precision; its arguments are those of `matrix`."""

    def __init__(
        self,
        weight: torch.Tensor,
        norm: torch.Tensor | None = None,
        scale: float = 1.0,
        *,
        epsilon: float = 0.0,
    ) -> None:
        self._weight, self._across = weight, weight.t()
        self.bytes = weight.numel() * weight.element_size()
        self._norm, self._wide_norm = norm, None if norm is None else norm.float()
        self._scale, self._epsilon = scale, epsilon

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        if self._norm is not None:
            norm = self._norm if flow.dtype == self._norm.dtype else self._wide_norm
            flow = functional.rms_norm(flow, (flow.shape[-1],), norm, self._epsilon)
            flow = flow.to(self._norm.dtype)
            if self._scale != 1.0:
                flow = flow * self._scale
        return functional.linear(flow, self._weight)

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        """See `Matrix`."""
        if flow.dtype == rows.dtype == self._weight.dtype:
            flow.addmm_(rows, self._across)
        else:  # float16: `wo` and what it is added to are float32, the rest is not
            flow.add_(functional.linear(rows.to(self._weight.dtype), self._weight))


class _Normed(ABC):
    """A matrix in float32 on a CPU, with a norm in less time than `functional.rms_norm` takes.

    x / sqrt(mean(x^2) + e) = sqrt(d) x / hypot(|x|, sqrt(d e)): three quick operations.
    """

    bytes: int

    def __init__(
        self,
        weight: torch.Tensor,
        norm: torch.Tensor | None = None,
        scale: float = 1.0,
        *,
        epsilon: float,
    ) -> None:
        self._norm: torch.Tensor | None = None
        if norm is not None:
            self._norm = norm * (scale * len(norm) ** 0.5)
            self._floor = torch.tensor((len(norm) * epsilon) ** 0.5)
        self._lay_out(weight)

    @abstractmethod
    def _lay_out(self, weight: torch.Tensor) -> None:
        """Makes the matrix (out, in) ready."""

    @abstractmethod
    def _times(self, rows: torch.Tensor) -> torch.Tensor:
        """The product with rows (T, in)."""

    def _level(self, flow: torch.Tensor) -> torch.Tensor:
        """Rows over their length; what the norm multiplies with is left out."""
        length = torch.linalg.vector_norm(flow, dim=-1, keepdim=True)
        return flow / torch.hypot(length, self._floor)

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        """See `Matrix`."""
        flow.add_(self._times(rows))


class Halved(_Normed):
    """The weights in float16: half the bytes, the same numbers.

    Products and sums are float32. The norm's weights stay outside, since a matrix that holds them
    is not exact in float16.
    """

    def _lay_out(self, weight: torch.Tensor) -> None:
        self.bytes = 2 * weight.numel()
        with warnings.catch_warnings():  # that later versions of torch will drop it: see can_halve
            warnings.simplefilter("ignore", UserWarning)
            self._weight = torch.fbgemm_pack_gemm_matrix_fp16(weight.contiguous())
            self._times(weight.new_zeros(1, weight.shape[1]))

    def _times(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.fbgemm_linear_fp16_weight_fp32_activation(rows, self._weight, None)

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        if self._norm is not None:
            flow = self._level(flow).mul_(self._norm)
        return self._times(flow)


class Packed(_Normed):
    """The norm's weights folded in, the matrix laid out anew.

    For several rows oneDNN reads a matrix in blocks, in half the time that `linear` takes; for a
    single row the transposed matrix is faster still, if it is wide. So matrices that are not huge
    are kept both ways.
    """

    def _lay_out(self, weight: torch.Tensor) -> None:
        outputs, inputs = weight.shape
        self.bytes = 4 * weight.numel()
        if self._norm is not None:
            weight = weight * self._norm
        self._blocks = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 8)
        self._across: torch.Tensor | None = None
        if outputs <= inputs and self._norm is None:
            self._across = weight.t()  # the model's own memory
        elif weight.numel() <= _TWICE:
            self._across = weight.t().contiguous()

    def _times(self, rows: torch.Tensor) -> torch.Tensor:
        if len(rows) == 1 and self._across is not None:
            return torch.mm(rows, self._across)
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._blocks, None, "none", [], ""
        )
        return product

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        return self._times(flow if self._norm is None else self._level(flow))

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        """See `Matrix`."""
        if len(rows) == 1 and self._across is not None:
            flow.addmm_(rows, self._across)
        else:
            super().add(flow, rows)
