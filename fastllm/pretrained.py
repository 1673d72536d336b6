"""Checkpoints by the names that the ecosystem knows: `from_pretrained` and `push_to_hub`."""

from importlib import import_module
from pathlib import Path
from typing import Any

from fastllm.checkpoints import family_of, load_drafter, load_target, place_of, read_config
from fastllm.drafters import Drafter, untrained
from fastllm.hub import push, upload
from fastllm.targets.hub import HubTarget

FILES = ("*.json", "*.safetensors", "*.npz")
"""What a drafter's folder holds; other files of its repository are not downloaded."""


def from_pretrained(
    name_or_folder: str | Path, *, revision: str | None = None, **settings: Any
) -> HubTarget | Drafter:
    """Loads a target or a drafter; its `config.json` says which of the two it is.

    Args:
        name_or_folder: the name of what ships, "lookup", a folder, or OWNER/NAME on the Hub.
        revision: of a drafter on the Hub: a branch, a tag or a commit; "main" by default.
        settings: as for `load_target` or `load_drafter`, such as `device`.

    Raises:
        CheckpointError: there is no such checkpoint, or it is incomplete.
        HubError: the Hub refused, or could not be reached.
        SettingsError: a setting is out of range.
    """
    name = str(name_or_folder)
    if name.split("+")[0] in untrained():
        return load_drafter(name, **settings)
    folder = place_of(name) or Path(name_or_folder)
    if not folder.exists() and name.count("/") == 1:
        hub = import_module("huggingface_hub")
        with upload.explained(f"loading {name}"):
            config = hub.hf_hub_download(name, "config.json", revision=revision)
            if not family_of(read_config(Path(config).parent)):
                return load_target(name, **settings)
            folder = Path(
                hub.snapshot_download(name, revision=revision, allow_patterns=list(FILES))
            )
    if family_of(read_config(folder)):
        return load_drafter(folder, **settings)
    return load_target(folder, **settings)


def push_to_hub(checkpoint: str | Path, repository: str, *, private: bool = False) -> str:
    """Puts a checkpoint on the Hub with a model card, as `fastllm push` does; returns its address.

    Args:
        checkpoint: the name of a shipped one, or a folder, such as `train` or `save` wrote.
        repository: OWNER/NAME; it is created where it does not exist.
        private: if it is created, nobody else sees it.

    Raises:
        CheckpointError: there is no such checkpoint.
        HubError: there is no token, the Hub refused, or could not be reached.
        SettingsError: `repository` is not OWNER/NAME.
    """
    return push.push(push.package(str(checkpoint), repository), private=private)
