"""How many windows a second a device trains on, by batch and source length.

    python -m tools.training_rates --data WINDOWS [--batches 128 256 512] [--steps 30] [--compile]

Prints a row a setting: windows a second, milliseconds an update, the highest memory, and the share
of the card's dense bfloat16 rate if that is given in TFLOP/s by --peak. Used by recipes/gpu.sh.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from fastllm.distill.loop import optimizer_of
from fastllm.pretrain.curriculum import TargetRecipe, new_target
from fastllm.pretrain.t5_loss import t5_loss
from fastllm.pretrain.windows import Batches, Windows


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="what write_windows made")
    parser.add_argument("--recipe", default="recipes/target.yaml")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--compile", action="store_true", help="with torch.compile, too")
    parser.add_argument("--peak", type=float, default=0.0, help="TFLOP/s of the card in bfloat16")
    parser.add_argument("--out", help="a JSON file")
    options = parser.parse_args()
    import yaml  # noqa: PLC0415 only the command reads recipes

    recipe = TargetRecipe.from_tree(yaml.safe_load(Path(options.recipe).read_text()))
    windows = Windows(options.data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    rows = []
    for compiled in (False, True) if options.compile else (False,):
        for kind, length in (("start", 256), ("whole", 512)):
            for size in options.batches:
                row = _rate(recipe, windows, device, kind, length, size, options.steps, compiled)
                row["share_of_peak"] = (
                    round(row["tflops"] / options.peak, 3) if options.peak else None
                )
                rows.append(row)
                print(json.dumps(row), flush=True)
    if options.out:
        Path(options.out).write_text(json.dumps(rows, indent=1))


def _rate(
    recipe: TargetRecipe,
    windows: Windows,
    device: torch.device,
    kind: str,
    length: int,
    size: int,
    steps: int,
    compiled: bool,
) -> dict[str, object]:
    model = new_target(recipe, windows.vocabulary).to(device)
    optimizer = optimizer_of(model, 1e-4)
    batches = Batches(windows, kind, source_length=length, batch=size, seed=0, device=device)
    loss_of = torch.compile(t5_loss) if compiled else t5_loss
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def update(step: int) -> torch.Tensor:
        source, text, _ = batches(0)  # always the same: full windows, one shape
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = loss_of(model, source, text, masked=False)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward([loss])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    since = time.perf_counter()
    for step in range(3):
        first = update(step)
    float(first)
    warm = time.perf_counter() - since
    since = time.perf_counter()
    for step in range(steps):
        last = update(step)
    final = float(last)
    seconds = (time.perf_counter() - since) / steps
    text_length = batches(0)[1].shape[1]
    d, ff = recipe.width, recipe.feed_forward
    encoder = recipe.encoder_layers * (4 * d * d + 2 * d * ff + 2 * length * d)
    decoder = recipe.decoder_layers * (6 * d * d + 2 * d * ff) + recipe.vocabulary_size * d
    cross = recipe.decoder_layers * 2 * d * d  # keys and values of the article
    flops = 6 * size * (length * (encoder + cross) + text_length * decoder)
    return {
        "kind": kind,
        "source": length,
        "batch": size,
        "compiled": compiled,
        "windows_per_second": round(size / seconds, 1),
        "milliseconds": round(1000 * seconds, 2),
        "warm_up_seconds": round(warm, 1),
        "tflops": round(flops / seconds / 1e12, 1),
        "gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if device.type == "cuda" else 0,
        "loss": round(final, 3),
    }


if __name__ == "__main__":
    main()
