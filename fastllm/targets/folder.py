"""What must lie in a checkpoint's folder, checked before any library reads it.

The libraries that read weights and configurations say what failed inside them; people need to know
which file is missing or cut short, and what to do. Some faults they even pass over: a generation
configuration that is not JSON counts as none, and weights that are missing are made up.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fastllm.errors import CheckpointError
from fastllm.files import json_in

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
           "pytorch_model.bin.index.json")  # fmt: skip
"""Where weights of transformers are, or the list of the files that they are spread over."""

_AGAIN = "Copy or download the folder again"


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file; `what` is to be given instead, in words that end the message.

    Raises:
        CheckpointError: there is no such file, or it holds no JSON object.
    """
    try:
        found = json_in(path)
    except OSError as error:
        fault = "is a file, not a folder" if path.parent.exists() else "does not exist"
        if path.parent.is_dir():
            fault = f"has no {path.name}: it holds {_listed(path.parent)}"
        raise CheckpointError(f"{path.parent} {fault}. {what}") from error
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not JSON ({error}): cut short or damaged. {_AGAIN}."
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path}: needs a JSON object, found {type(found).__name__}. {_AGAIN}."
        )
    return found


def require_weights(folder: Path, names: tuple[str, ...] = WEIGHTS) -> None:
    """Refuses a folder whose weights are missing, incomplete, cut short or of another format.

    Of the files `names` one is enough.

    Raises:
        CheckpointError: names the file and what is wrong with it.
    """
    present = [folder / name for name in names if (folder / name).is_file()]
    if not present:
        raise CheckpointError(
            f"{folder} has no {' or '.join(names[:2])}, so no weights that can be read: it holds "
            f"{_listed(folder)}. {_AGAIN}, or save the model there in this format."
        )
    path = present[0]
    if path.name.endswith(".index.json"):
        wanted = read_json(path, "").get("weight_map")
        if not isinstance(wanted, dict) or not wanted:
            raise CheckpointError(f"{path} lists no files of weights. {_AGAIN}.")
        files = sorted({folder / str(name) for name in wanted.values()})
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise CheckpointError(
                f"{folder} lacks {len(missing)} of the {len(files)} files of weights that "
                f"{path.name} names: {', '.join(missing[:3])}. {_AGAIN}."
            )
    else:
        files = [path]
    for file in files:
        if file.suffix == ".safetensors":
            _require_safetensors(file)


def _require_safetensors(path: Path) -> None:
    try:
        with safe_open(path, framework="pt"):  # reads the header, and compares it with the length
            return
    except (OSError, SafetensorError) as error:
        with path.open("rb") as file:
            pointer = file.read(40).startswith(b"version https://git-lfs")
        if pointer:
            raise CheckpointError(
                f"{path} is a pointer of Git LFS, not the weights: run `git lfs pull`."
            ) from error
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is cut short, damaged or no safetensors file "
            f"({error}). {_AGAIN}."
        ) from error


def _listed(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (", ".join(names[:6]) or "nothing") + more
