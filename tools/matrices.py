"""What the matrices of one token cost in each form: the table in `docs/engine.md`.

    python -m tools.matrices [THREADS]

Random weights in the shapes of the shipped target's decoder, which is 25 matrices a token.
"""

import sys
import time
import warnings

import torch

from fastllm.targets.matrices import Dense, Halved, Packed

LAYER = ((768, 256), (256, 256), (256, 256), (256, 256), (1024, 256), (256, 1024))
SHAPES = (*LAYER * 4, (8192, 256))
ROWS = (1, 3, 6, 9, 16, 64, 256)
REPEATS = 60


class Rounded:
    """Weights and rows in int8; what a row gives never depends on the rows beside it.

    Each row is divided by its largest number, so one scale serves all; weights have 7 bits, since
    the sums of AVX2 overflow above. Beside the product that is three operations more.
    """

    def __init__(self, weight: torch.Tensor, *, epsilon: float) -> None:
        with warnings.catch_warnings():  # that later versions of torch will drop it
            warnings.simplefilter("ignore", UserWarning)
            steps = (weight.abs().amax(1) / 64).double()
            zero = torch.zeros(len(weight), dtype=torch.long)
            rounded = torch.quantize_per_channel(weight, steps, zero, 0, torch.qint8)
            self._weight = torch.ops.quantized.linear_prepack(rounded, None)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (T, in), finite and none of them zero, to (T, out)."""
        largest = torch.linalg.vector_norm(rows, ord=float("inf"), dim=-1, keepdim=True)
        product: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / largest, 1 / 127, 128, self._weight
        )
        return product.mul_(largest)


@torch.inference_mode()
def main() -> None:
    """Prints the least milliseconds of REPEATS for each form and number of rows."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    weights = [(torch.randn(shape) * 0.05).bfloat16().float() for shape in SHAPES]
    print("rows".ljust(8), *(f"{rows:6d}" for rows in ROWS))
    for form in (Halved, Packed, Dense, Rounded):
        made = [form(weight, epsilon=0.0) for weight in weights]
        least = []
        for rows in ROWS:
            flows = [torch.randn(rows, weight.shape[1]) for weight in weights]
            seconds = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                for one, flow in zip(made, flows, strict=True):
                    one(flow)
                seconds.append(time.perf_counter() - started)
            least.append(min(seconds))
        print(form.__name__.ljust(8), *(f"{1000 * found:6.1f}" for found in least))


if __name__ == "__main__":
    main()
