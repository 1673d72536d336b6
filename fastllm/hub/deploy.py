"""`fastllm deploy`: carries out the Spacefile. The Space gets what the page needs and nothing else.

The repository's README.md becomes the Space's card, its front matter written anew from the
Spacefile; tests, recipes and training curves stay behind.
"""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from fastllm import paths
from fastllm.errors import SettingsError
from fastllm.hub import upload

SETTINGS = ("variables", "limits", "network", "serve", "zero_gpu")
"""The sections of the Spacefile that are no front matter."""

SINGLE = ("app.py", "requirements.txt", "Spacefile", "LICENSE")

PAGE_SUFFIXES = frozenset(
    (".css", ".html", ".ico", ".js", ".json", ".npz", ".safetensors", ".svg", ".txt", ".webp")
)
"""What the page reads of assets/. Other images are taken where the README shows them."""

THUMBNAIL = "assets/thumbnail.png"
"""What is shown where a link to the Space is shared. The card wants its whole address, which hangs
on the Space's name: so it stands neither in the Spacefile nor in README.md, and is added here."""

ZERO_GPU = "zero-a10g"


@dataclass(frozen=True)
class Plan:
    """What a deployment does: `hardware` by the Hub's name of it, and the files of the Space."""

    space: str
    sdk: str
    hardware: str
    variables: dict[str, str]
    files: dict[str, Path | bytes] = field(repr=False)

    def __str__(self) -> str:
        head = f"Space      {self.space}\nSDK        {self.sdk}\nhardware   {self.hardware}"
        variables = [f"  {name}={value}" for name, value in self.variables.items()]
        return "\n".join([head, "variables", *variables, "files", upload.listing(self.files)])


def plan(
    space: str,
    *,
    hardware: str | None = None,
    variables: Mapping[str, str] | None = None,
    root: Path = paths.ROOT,
) -> Plan:
    """Reads the Spacefile and lists what goes to the Hub; nothing is sent.

    Args:
        space: OWNER/NAME.
        hardware: instead of the Spacefile's `suggested_hardware`.
        variables: beside the Spacefile's, or instead of them.
        root: a clone of this repository.

    Raises:
        SettingsError: `space` is no such name, the Hub has no such hardware, the Spacefile cannot
            be used, or a file is missing.
    """
    upload.require_repository(space)
    told = _read(root / "Spacefile")
    hardware = told["suggested_hardware"] if hardware is None else hardware
    _require_hardware(hardware)
    card = {key: value for key, value in told.items() if key not in SETTINGS}
    card["suggested_hardware"] = hardware
    files: dict[str, Path | bytes] = {name: root / name for name in SINGLE}
    files |= _tree(root, "fastllm", lambda path: path.suffix in (".py", ".js", ".css", ".yaml"))
    readme = _text(root / "README.md")
    body = re.sub(r"\A---\n.*?\n---\n", "", readme, flags=re.DOTALL)
    shown = [THUMBNAIL, *re.findall(r"assets/[\w./-]+", body)]
    assets = _tree(root, "assets", lambda path: path.name != "training.jsonl")
    files |= {
        name: path
        for name, path in assets.items()
        if Path(name).suffix in PAGE_SUFFIXES or name in shown
    }
    if THUMBNAIL in files:
        card["thumbnail"] = f"https://huggingface.co/spaces/{space}/resolve/main/{THUMBNAIL}"
    if hardware == ZERO_GPU:
        card["python_version"] = told["zero_gpu"]["python_version"]
        files["requirements.txt"] = _with_torch(
            _text(root / "requirements.txt"), told["zero_gpu"]["torch"]
        )
    files["README.md"] = upload.front_matter(card, body)
    missing = [
        name for name, entry in files.items() if isinstance(entry, Path) and not entry.is_file()
    ]
    if missing:
        raise SettingsError(
            f"{root}: {', '.join(missing)} is missing: run this from a clone of the repository."
        )
    every = {**told["variables"], **(variables or {})}
    return Plan(space, told["sdk"], hardware, every, dict(sorted(files.items())))


def deploy(
    plan: Plan, *, private: bool = False, endpoint: str | None = None, token: str | None = None
) -> str:
    """Creates or updates the Space; returns its address.

    Variables come first and the files in one commit, so that the Space is built once.

    - `private`: if the Space is created, nobody else sees it.
    - `endpoint`, `token`: as for `upload.client`.

    Raises:
        HubError: the Hub refused, or could not be reached.
    """
    api = upload.client(endpoint, token)
    space = plan.space
    pay = (
        f"Hardware {plan.hardware} has to be paid for, or wants a subscription of the owner: see "
        "the Hub's billing settings, or name another --hardware."
    )
    with upload.explained(f"creating the Space {space}", pay):
        address = api.create_repo(
            space,
            repo_type="space",
            space_sdk=plan.sdk,
            space_hardware=plan.hardware,
            private=private or None,
            exist_ok=True,
        )
    with upload.explained(f"setting the variables of {space}"):
        for name, value in plan.variables.items():
            api.add_space_variable(space, name, value)
    upload.commit(api, space, "space", plan.files, "Deploy FastLLM")
    with upload.explained(f"asking for {plan.hardware} for {space}", pay):
        runtime = api.get_space_runtime(space)
        if plan.hardware not in (runtime.requested_hardware, runtime.hardware):
            api.request_space_hardware(space, plan.hardware)
    return str(address)


def add_arguments(commands: Any) -> None:
    """Adds the command `deploy`."""
    parser = commands.add_parser(
        "deploy",
        help="put the page on Hugging Face Spaces",
        description="Carries out the Spacefile: creates or updates a Space, with the files that "
        "the page needs, its variables and its hardware.",
    )
    parser.add_argument("--space", required=True, metavar="OWNER/NAME")
    parser.add_argument(
        "--hardware",
        help=f"such as cpu-basic, {ZERO_GPU} or t4-small (default: the Spacefile's)",
    )
    parser.add_argument(
        "--variable",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the Space's environment, such as FASTLLM_TARGET=google/flan-t5-xl; may repeat",
    )
    upload.add_sending_arguments(parser)
    parser.set_defaults(handle=run)


def run(options: argparse.Namespace) -> None:
    """Deploys, or shows what would be deployed."""
    planned = plan(
        options.space, hardware=options.hardware, variables=variables_of(options.variable)
    )
    print(planned)
    upload.carry_out(
        options, "the Space", planned.files, lambda: deploy(planned, private=options.private)
    )


def variables_of(entries: list[str]) -> dict[str, str]:
    """NAME=VALUE entries as a dictionary.

    Raises:
        SettingsError: an entry is nothing of the kind.
    """
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not re.fullmatch("[A-Z][A-Z0-9_]*", name):
            raise SettingsError(f"--variable {entry!r}: give NAME=VALUE, the name in capitals.")
        found[name] = value
    return found


def _require_hardware(name: str) -> None:
    hub = import_module("huggingface_hub")
    known = dict.fromkeys([*(entry.value for entry in hub.SpaceHardware), ZERO_GPU])
    if name not in known:
        raise SettingsError(
            f"hardware {name!r}: huggingface_hub {hub.__version__} knows {', '.join(known)}. Give "
            "one of these, or a newer huggingface_hub if the Hub has this one too."
        )


def _read(path: Path) -> dict[str, Any]:
    yaml = import_module("yaml")
    try:
        told = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no YAML ({error}).") from error
    needed = ("sdk", "suggested_hardware", "variables", "zero_gpu")
    lacking = [key for key in needed if not isinstance(told, dict) or key not in told]
    if lacking:
        raise SettingsError(f"{path} says nothing of {', '.join(lacking)}.")
    return dict(told)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}): run this from a clone of the repository."
        ) from error


def _tree(root: Path, folder: str, wanted: Any) -> dict[str, Path | bytes]:
    return {
        path.relative_to(root).as_posix(): path
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and not path.name.startswith(".") and wanted(path)
    }


def _with_torch(requirements: str, versions: str) -> bytes:
    """The requirements with another range of torch."""
    changed, count = re.subn(r"(?m)^torch\b.*$", f"torch{versions}", requirements)
    if count != 1:
        raise SettingsError(f"requirements.txt names torch on {count} lines: it needs one.")
    return changed.encode()
