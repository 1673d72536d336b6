"""The target and the drafters that a command names, loaded."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from fastllm.cli.output import quiet


def load_lanes(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The target that the options name, and the drafters by the names of their lanes."""
    quiet()
    checkpoints = import_module("fastllm.checkpoints")
    device = options.device
    dtype = getattr(options, "dtype", None)
    target = checkpoints.load_target(
        options.target, device=device, load_in=dtype, prefix=options.prefix
    )
    shipped = checkpoints.shipped_drafters()
    names = lane_names(options.drafters, options.ckpt_path, options.target, shipped)
    loaded = [checkpoints.load_drafter(name, device=device) for name in names]
    # A folder goes by the name that its drafter was trained under (runs/x/checkpoint says little),
    # unless two lanes would then share it.
    known = {*import_module("fastllm.drafters").untrained(), *shipped}
    own = [
        name if name in known else drafter.name for name, drafter in zip(names, loaded, strict=True)
    ]
    return target, {
        short if own.count(short) == 1 else name: drafter
        for short, name, drafter in zip(own, names, loaded, strict=True)
    }


def lane_names(
    asked: Sequence[str] | None, folders: Sequence[str], target: str, shipped: Sequence[str]
) -> list[str]:
    """The drafters to load, each once, in the order they were named.

    Args:
        asked: what `--drafters` was given, each a list with commas; None if it was not given.
        folders: what `--ckpt_path` was given.
        target: the shipped drafters know the vocabulary of "target" alone.
        shipped: the drafters that ship. The family of some, "lstm", means all of that family.
    """
    if asked is None:
        untrained = import_module("fastllm.drafters").untrained()
        names = [*untrained, *(shipped if target == "target" and not folders else ())]
    else:
        wanted = [name.strip() for text in asked for name in text.split(",")]
        names = []
        for name in wanted:
            family = [f"{name}-{end}" for end in ("before", "after")]
            members = [member for member in family if member in shipped]
            names += members if members and name not in shipped else [name]
    return list(dict.fromkeys(name for name in [*names, *folders] if name not in ("", "none")))
