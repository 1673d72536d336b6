"""Matrices of a T5 made ready for a few rows: the way that reads the fewest bytes.

At batch 1 a token reads every weight once, so the bytes of the weights decide. Milliseconds for the
25 matrices of a token of the shipped target (5.8 million weights; torch 2.13, one core of an AMD
EPYC with AVX2, best of 60 runs; `python -m tools.matrices` prints them):

    rows             1     3     6     9    16    64   256
    Halved         0.8   1.5   1.8   2.6   3.4  10.7  40.4
    Packed         2.2   4.8   5.7   6.0   7.1  14.2  47.2
    Dense          3.7   7.6   7.6   7.8  10.1  16.1  50.7

So `Halved` is taken wherever it changes nothing.
"""

import warnings
from typing import Protocol

import torch
from torch.nn import functional

TOLERATED = 2.0**-25
"""How far a weight may be from its nearest float16: half the smallest step of that type, which
numbers below 6e-8 are rounded by. Every bfloat16 number of ordinary size is exact."""

_TWICE = 1 << 24
"""A matrix of more numbers is packed in one layout alone: a second one would cost much memory."""


class Matrix(Protocol):
    """A matrix (out, in) with the norm before it, if any.

    Attributes:
        bytes: of the weights that a row reads.
    """

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
    if whole.device.type == "cpu" and whole.dtype == torch.float32:
        if can_halve() and halves(whole):
            return Halved(whole, norm, scale, epsilon=epsilon)
        if can_pack():
            return Packed(whole, norm, scale, epsilon=epsilon)
    return Dense(whole, norm, scale, epsilon=epsilon)


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
    """A matrix without numbers, of a part of which a pruned decoder keeps nothing.

    Args:
        outputs: how many numbers a row of its product has.
    """

    bytes = 0

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        """Zeros (T, out)."""
        return flow.new_zeros(len(flow), self._outputs)

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        """Adds nothing."""


class Dense:
    """The plain way, for CUDA and for half precision.

    Args:
        weight: the matrix.
        norm: see `matrix`; `scale` and `epsilon` likewise.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        norm: torch.Tensor | None = None,
        scale: float = 1.0,
        *,
        epsilon: float = 0.0,
    ) -> None:
        self._weight = weight
        self.bytes = weight.numel() * weight.element_size()
        self._across = self._weight.t()
        self._norm = norm
        self._wide_norm = None if norm is None else norm.float()
        self._scale = scale
        self._epsilon = epsilon

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


class _Normed:
    """The norm before a matrix in float32 on a CPU, in less time than `functional.rms_norm` takes.

    x / sqrt(mean(x^2) + e) = sqrt(d) x / hypot(|x|, sqrt(d e)): three quick operations.
    """

    def __init__(self, norm: torch.Tensor | None, scale: float, epsilon: float) -> None:
        self._norm: torch.Tensor | None = None
        if norm is not None:
            self._norm = norm * (scale * len(norm) ** 0.5)
            self._floor = torch.tensor((len(norm) * epsilon) ** 0.5)

    def _level(self, flow: torch.Tensor) -> torch.Tensor:
        """Rows over their length; what the norm multiplies with is left out."""
        length = torch.linalg.vector_norm(flow, dim=-1, keepdim=True)
        return flow / torch.hypot(length, self._floor)


class Halved(_Normed):
    """Float32 on a CPU with the weights in float16: half the bytes, the same numbers.

    Products and sums are float32. The norm's weights stay outside, since a matrix that holds them
    is not exact in float16.

    Args: those of `Dense`.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        norm: torch.Tensor | None = None,
        scale: float = 1.0,
        *,
        epsilon: float,
    ) -> None:
        super().__init__(norm, scale, epsilon)
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

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        """See `Matrix`."""
        flow.add_(self._times(rows))


class Packed(_Normed):
    """Float32 on a CPU: the norm's weights folded in, the matrix laid out anew.

    For several rows oneDNN reads a matrix in blocks, in half the time that `linear` takes; for a
    single row the transposed matrix is faster still, if it is wide. (256 x 8192 on one core of an
    AMD EPYC: one row 1.04 ms with `linear`, 0.68 in blocks, 0.37 transposed; six rows 1.87, 0.63,
    1.38.) So matrices that are not huge are kept both ways.

    Args: those of `Dense`.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        norm: torch.Tensor | None = None,
        scale: float = 1.0,
        *,
        epsilon: float,
    ) -> None:
        super().__init__(norm, scale, epsilon)
        if self._norm is not None:
            weight = weight * self._norm
        outputs, inputs = weight.shape
        self.bytes = 4 * weight.numel()
        self._blocks = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 8)
        self._across: torch.Tensor | None = None
        if outputs <= inputs and norm is None:
            self._across = weight.t()  # the model's own memory
        elif weight.numel() <= _TWICE:
            self._across = weight.t().contiguous()

    def _times(self, rows: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._blocks, None, "none", [], ""
        )
        return product

    def __call__(self, flow: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        if self._norm is not None:
            flow = self._level(flow)
        if len(flow) == 1 and self._across is not None:
            return torch.mm(flow, self._across)
        return self._times(flow)

    def add(self, flow: torch.Tensor, rows: torch.Tensor) -> None:
        """See `Matrix`."""
        if len(flow) == 1 and self._across is not None:
            flow.addmm_(rows, self._across)
        else:
            flow.add_(self._times(rows))
