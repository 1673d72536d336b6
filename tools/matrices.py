"""What the matrices of one token cost in each form: the table in `docs/engine.md`.

    python -m tools.matrices [THREADS]

Random weights in the shapes of the shipped target's decoder, which is 25 matrices a token.
"""

import sys
import time

import torch

from fastllm.targets.matrices import Dense, Halved, Packed

LAYER = ((768, 256), (256, 256), (256, 256), (256, 256), (1024, 256), (256, 1024))
SHAPES = (*LAYER * 4, (8192, 256))
ROWS = (1, 3, 6, 9, 16, 64, 256)
REPEATS = 60


@torch.inference_mode()
def main() -> None:
    """Prints the least milliseconds of REPEATS for each form and number of rows."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    weights = [(torch.randn(shape) * 0.05).bfloat16().float() for shape in SHAPES]
    print("rows".ljust(8), *(f"{rows:6d}" for rows in ROWS))
    for form in (Halved, Packed, Dense):
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
