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

from fastllm import paths
from fastllm.devices import usable_device
from fastllm.drafters import Drafter, FamilySpec, drafter_class, families, untrained
from fastllm.drafters.combined import JOINT, CombinedDrafter
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.superposed import MARK, SuperposedDrafter
from fastllm.drafters.union import SIGN, UnionDrafter
from fastllm.errors import CheckpointError, SettingsError
from fastllm.targets.folder import read_json, require_weights
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig
from fastllm.words import echoed

SHIPPED = paths.CHECKPOINTS
"""Where the checkpoints lie that come with the repository."""

TARGET = "target"
"""The name of the shipped target."""

SHARD = "9MB"
"""The largest file of shipped weights: a Space refuses plain pushes of files over 10 MB."""


def load_target(
    name_or_folder: str | Path = TARGET,
    *,
    device: str | torch.device | None = None,
    load_in: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    prefix: str | None = None,
    engine: str = "auto",
) -> HubTarget:
    """Loads the shipped target, a folder, or a model of the Hub.

    Args:
        name_or_folder: "target" is the shipped one.
        device: where to; the best there is by default.
        load_in: a name of `fastllm.targets.hub.PRECISIONS`; float32 by default.
        device_map: instead of `device`: how accelerate spreads it over several.
        prefix: put before every article; the checkpoint's own setting by default.
        engine: a name of `fastllm.targets.hub.ENGINES`.

    Raises:
        CheckpointError: there is no usable encoder-decoder, or what ships is not here.
        SettingsError: `load_in` or `engine` is none that we have, the engine does not fit, or both
            `device` and `device_map` are given.
    """
    folder: str | Path = place_of(name_or_folder) or name_or_folder  # a drafter's is refused there
    shipped = SHIPPED / TARGET
    if str(folder) == TARGET and not Path(TARGET).exists():
        raise CheckpointError(
            f"{shipped} is missing: the shipped checkpoints come with the repository, not with the "
            "package. Run this from a clone, or give a target's folder or OWNER/NAME on the Hub."
        )
    return HubTarget.load(
        folder, device=device, load_in=load_in, device_map=device_map, prefix=prefix, engine=engine
    )


def load_drafter(
    name_or_folder: str | Path, *, device: str | torch.device | None = None
) -> Drafter:
    """Loads a drafter: "lookup", the name of a shipped one ("lstm-after"), or a folder.

    Two of these with a + between them are one drafter (`CombinedDrafter`), as are more of them:
    "lookup+shared-after+lookup"; "|lookup" after a name drafts a tree of both (`UnionDrafter`), as
    "superposed:" before the name of a T5 or a shared-encoder drafter does (`SuperposedDrafter`). A
    T5 of transformers is a drafter, too: its folder, or OWNER/NAME on the Hub. So is the text file
    of an n-gram. `device` is the best there is by default; it need not be the target's.

    Raises:
        CheckpointError: there is no such drafter, or its folder is incomplete.
        SettingsError: there is no such device, or the drafter cannot be superposed.
    """
    name = str(name_or_folder)
    shipped = place_of(name)
    if not name:
        raise CheckpointError(
            f"the drafter's name is empty: give {', '.join([*untrained(), *shipped_drafters()])}, "
            "or a drafter's folder."
        )
    if name in untrained():  # a family with nothing to load
        found: Drafter = drafter_class(name)()
        return found
    if name.startswith(MARK) and not Path(name).exists():
        return SuperposedDrafter(load_drafter(name.removeprefix(MARK), device=device))
    if SIGN in name and not Path(name).exists():
        first, _, second = name.rpartition(SIGN)
        if second != "lookup" or first in ("", "none", "lookup"):
            raise CheckpointError(
                f"{name}: beside {SIGN} stand a drafter and the lookup, whose continuations become "
                f"branches of one draft, as in lstm-after{SIGN}lookup."
            )
        return UnionDrafter(load_drafter(first, device=device), ArticleLookup())
    if JOINT in name and not Path(name).exists():
        first, _, second = name.partition(JOINT)
        if {first, second} & {"", "none"} or second.partition(JOINT)[0] == first:
            raise CheckpointError(
                f"{name}: {JOINT} stands between two different drafters, the second of which goes "
                "on where the first stops, as in lookup+lstm-after or shared-after+lookup. One "
                "drafter alone is given by its own name."
            )
        parts = [load_drafter(part, device=device) for part in (first, second)]
        named = [
            asked if asked in untrained() else part.name
            for asked, part in zip((first, second), parts, strict=True)
        ]
        return CombinedDrafter(*parts, name=JOINT.join(named))
    device = usable_device(device)
    folder = shipped or Path(name_or_folder)
    on_hub = name.count("/") == 1 and name[0] not in "./~"
    if on_hub and not folder.exists():  # OWNER/NAME: the Hub's, or an error
        hub: Drafter = drafter_class("t5").load(name, device=device)
        return hub
    if folder.is_file():  # the one family that has a text format
        try:
            table: Drafter = drafter_class("ngram").load_text(folder)
        except CheckpointError as error:
            raise CheckpointError(
                f"{folder} is a file, not a folder. Give a drafter's folder, or an n-gram's text "
                f"file, which this is not: {error}"
            ) from error
        return table
    config = read_config(folder)
    spec = _spec_of(folder, config)
    missing = [key for key in spec.required_keys if key not in config]
    if missing:
        raise CheckpointError(
            f"{folder}/config.json lacks {', '.join(missing)}: it was written by another "
            f"version, or changed. Train the {spec.name} drafter again with `fastllm train`."
        )
    if spec.weights:
        require_weights(Path(folder), spec.weights)
    own = config.get("fastllm") or config
    _require_header(folder, own)
    drafter: Drafter = spec.drafter.load(folder, device=device)
    return drafter


def place_of(name: str | Path) -> Path | None:
    """The folder of a shipped checkpoint; None where none is called so.

    Raises:
        CheckpointError: no file of this system can have such a name.
    """
    folder = SHIPPED / str(name)
    try:
        if "\0" in str(name):  # which `is_file` takes for one that is not there
            raise ValueError("a NUL is in it")
        return folder if (folder / "config.json").is_file() else None
    except (OSError, ValueError) as error:  # thousands of letters, for one
        raise CheckpointError(f"{echoed(str(name))} names no checkpoint ({error}).") from error


def _require_header(folder: Path, own: dict[str, Any]) -> None:
    """Refuses what a `config.json` says of a drafter of any family where it is of a wrong kind.

    Raises:
        CheckpointError: names the entry.
    """
    warmth = own.get("draft_temperature")
    wrong = [name for name in ("name", "vocabulary") if not isinstance(own.get(name, ""), str)]
    try:
        DecodingConfig(draft_temperature=warmth)
    except SettingsError:
        wrong.append("draft_temperature")
    if wrong:
        raise CheckpointError(
            f"{folder}/config.json: {wrong[0]} is {echoed(own[wrong[0]])}: "
            f"{'a temperature from 0 to 2' if wrong[0] == 'draft_temperature' else 'text'} is "
            "needed. It was changed or damaged: copy the folder again."
        )


def _spec_of(folder: Path, config: dict[str, Any]) -> FamilySpec:
    """The family of the drafter in a folder, by its `config.json`.

    Raises:
        CheckpointError: it is of no family.
    """
    named, kind = family_of(config), config.get("model_type")
    for spec in families().values():
        if spec.name == named or (not named and kind and spec.model_type == kind):
            return spec
    what = f"a {kind} of transformers" if kind and not named else f"of the family {named!r}"
    raise CheckpointError(
        f"{folder} says it is {what}; FastLLM has the families {', '.join(families())}. "
        f"Shipped drafters: {', '.join(shipped_drafters()) or 'none'}."
    )


def default_drafter(target: Any) -> str:
    """Where none is named: for the shipped target one that saves most calls; else the lookup."""
    named = isinstance(target, str | Path) and str(target) == TARGET
    return "shared-after" if named and "shared-after" in shipped_drafters() else "lookup"


def shipped_drafters() -> list[str]:
    """The names of the drafters that ship, in alphabetical order."""
    return sorted(
        path.parent.name
        for path in SHIPPED.glob("*/config.json")
        if family_of(json.loads(path.read_text(encoding="utf-8")))
    )


def family_of(config: dict[str, Any]) -> str | None:
    """The family that a drafter's `config.json` names; None where it is no drafter's."""
    family: str | None = config.get("family") or (config.get("fastllm") or {}).get("family")
    return family


def read_config(folder: str | Path) -> dict[str, Any]:
    """The `config.json` of a drafter's folder.

    Raises:
        CheckpointError: there is no such folder, it has none, or that is no JSON object, or its
            "fastllm" is none.
    """
    found = read_json(
        Path(folder) / "config.json",
        f"Give a drafter's folder, or one of {', '.join([*untrained(), *shipped_drafters()])}.",
    )
    if not isinstance(found.get("fastllm") or {}, dict):
        raise CheckpointError(
            f'{folder}/config.json: "fastllm" needs an object, found {echoed(found["fastllm"])}. '
            "Copy the folder again."
        )
    return found


def read_card(name_or_folder: str | Path) -> dict[str, Any]:
    """What `card.json` says of a checkpoint; empty where it has none.

    Raises:
        CheckpointError: it is no JSON object.
    """
    shipped = SHIPPED / str(name_or_folder) / "card.json"
    path = shipped if shipped.is_file() else Path(name_or_folder) / "card.json"
    if not path.is_file():
        return {}
    return read_json(path, "")


def ships(target: str) -> bool:
    """Whether a target of this name, as traces have it, is the one that ships."""
    return target == read_card(TARGET).get("name")


def replace_folder(fresh: Path, folder: Path) -> None:
    """Puts a freshly written folder, NAME.new, in the place of an old one; one is always whole.

    The old one is lost: whoever calls this knows what it is. For a moment it is called as `fresh`
    is, with ".previous" for ".new".
    """
    for path in fresh.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    old = fresh.with_suffix(".previous")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
