"""Checkpoints as folders: what ships, and how it is loaded and saved.

A target's folder is what `save_pretrained` writes, with a "fastllm" section in `config.json`
(name, prefix, source length). A drafter's folder holds `config.json` (family, name, vocabulary
fingerprint, sizes; a T5's is that of transformers, with a "fastllm" section), the weights or the
table, `card.json` (recipe, data, numbers) and `training.jsonl` (curves). No file of a shipped
checkpoint is larger than 10 MB.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from fastllm.drafters import DRAFTERS, Drafter, drafter_class
from fastllm.errors import CheckpointError
from fastllm.targets.hub import HubTarget

SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "checkpoints"
"""Where the checkpoints lie that come with the repository."""

TARGET = "target"
"""The name of the shipped target."""

SHARD = "9MB"
"""The largest file of shipped weights: a Space refuses plain pushes of files over 10 MB."""


def load_target(
    name_or_folder: str | Path = TARGET,
    *,
    device: str | torch.device | None = None,
    prefix: str | None = None,
    engine: str = "auto",
) -> HubTarget:
    """Loads the shipped target, a folder, or a model of the Hub.

    Raises:
        CheckpointError: there is no usable encoder-decoder.
        SettingsError: `engine` is none of `fastllm.targets.hub.ENGINES`, or does not fit.
    """
    folder = SHIPPED / TARGET if str(name_or_folder) == TARGET else name_or_folder
    return HubTarget.load(folder, device=device, prefix=prefix, engine=engine)


def load_drafter(
    name_or_folder: str | Path, *, device: str | torch.device | None = None
) -> Drafter:
    """Loads a drafter: "lookup", the name of a shipped one ("lstm-after"), or a folder.

    A T5 of transformers is a drafter, too: its folder, or OWNER/NAME on the Hub.

    Raises:
        CheckpointError: there is no such drafter, or its folder is incomplete.
    """
    name = str(name_or_folder)
    if name == "lookup":
        lookup: Drafter = drafter_class("lookup")()  # the one family with nothing to load
        return lookup
    shipped = SHIPPED / name
    folder = shipped if (shipped / "config.json").is_file() else Path(name_or_folder)
    if not folder.exists() and name.count("/") == 1:  # OWNER/NAME: the Hub's, or an error
        hub: Drafter = drafter_class("t5").load(name, device=device)
        return hub
    config = read_config(folder)
    family = family_of(config) or ("t5" if config.get("model_type") == "t5" else None)
    if family not in DRAFTERS:
        raise CheckpointError(
            f"{folder} says it is of the family {family!r}; FastLLM has {', '.join(DRAFTERS)}. "
            f"Shipped drafters: {', '.join(shipped_drafters()) or 'none'}."
        )
    drafter: Drafter = drafter_class(family).load(folder, device=device)
    return drafter


def shipped_drafters() -> list[str]:
    """The names of the drafters that ship, in alphabetical order."""
    return sorted(
        path.parent.name
        for path in SHIPPED.glob("*/config.json")
        if family_of(json.loads(path.read_text(encoding="utf-8")))
    )


def family_of(config: dict[str, Any]) -> str | None:
    """The family that a drafter's `config.json` names; None where it is no drafter's."""
    own = config.get("fastllm")
    family: str | None = config.get("family") or (own or {}).get("family")
    return family


def read_config(folder: str | Path) -> dict[str, Any]:
    """The `config.json` of a drafter's folder.

    Raises:
        CheckpointError: the folder has none, or it is not JSON.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: no readable config.json ({error}). Give a drafter's folder, or one of "
            f"{', '.join(['lookup', *shipped_drafters()])}."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: needs a JSON object, found {type(config).__name__}.")
    return config


def read_card(name_or_folder: str | Path) -> dict[str, Any]:
    """What `card.json` says of a checkpoint; empty where it has none."""
    shipped = SHIPPED / str(name_or_folder) / "card.json"
    path = shipped if shipped.is_file() else Path(name_or_folder) / "card.json"
    if not path.is_file():
        return {}
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return card


def replace_folder(fresh: Path, folder: Path) -> None:
    """Puts a freshly written folder in the place of an old one; one of the two is always whole."""
    for path in fresh.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    old = folder.with_name(folder.name + ".previous")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
