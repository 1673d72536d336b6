"""Makes T5-small a drafter for FLAN-T5-base: the target writes texts, the drafter learns from them.

    python -m examples.distil_flan_t5 --dry-run      # memory, disk, hours; nothing is written
    python -m examples.distil_flan_t5                # an hour on a GPU; needs the Hub

Options go to both commands, in the place of what the recipe says: `--limit 5000`, `--load_in 8bit`.
The same line again goes on where it was stopped.
"""

import sys

from fastllm.cli.main import main

RECIPE = "recipes/flan-t5-base-t5-small.yaml"

# A dry run of `train` needs no texts, and shows what both commands cost.
for command in ("train",) if "--dry-run" in sys.argv else ("pseudo", "train"):
    print(f"fastllm {command} --recipe {RECIPE}", *sys.argv[1:])
    if code := main([command, "--recipe", RECIPE, *sys.argv[1:]]):
        sys.exit(code)
