"""A folder for the Hub, and the one commit that makes a repository equal to it.

A folder is written down before anything is sent: path in the repository -> a file, or content. So
it can be shown, written to a disk and tested without a network.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from fastllm.errors import CheckpointError, HubError, SettingsError
from fastllm.files import write_whole

Files = Mapping[str, Path | bytes]
"""Path in the repository -> the file whose content goes there, or the content."""

KEPT = ".gitattributes"
"""The Hub's own file, which says what is stored as a large file."""


def require_repository(name: str) -> str:
    """The name, if it is one.

    Raises:
        SettingsError: it is not OWNER/NAME.
    """
    if not re.fullmatch(r"[\w.-]{1,48}/[\w.-]{1,48}", name) or ".." in name or "--" in name:
        raise SettingsError(
            f"{name!r} is no repository of the Hub: give OWNER/NAME, of letters, digits, '-', '_' "
            "and '.'."
        )
    return name


def size_of(entry: Path | bytes) -> int:
    """In bytes."""
    return len(entry) if isinstance(entry, bytes) else entry.stat().st_size


def content_of(entry: Path | bytes) -> bytes:
    """All of it."""
    return entry if isinstance(entry, bytes) else entry.read_bytes()


def listing(files: Files) -> str:
    """The files, their sizes in bytes and the sum, one a line."""
    lines = [f"{size_of(entry):>12,}  {path}" for path, entry in sorted(files.items())]
    total = sum(map(size_of, files.values()))
    return "\n".join([*lines, f"{total:>12,}  bytes in {len(files)} files"])


def write(files: Files, folder: str | Path) -> None:
    """Writes the folder to a disk, as it would be on the Hub.

    Raises:
        SettingsError: there is something already, or it cannot be written.
    """
    folder = Path(folder)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise SettingsError(f"{folder} is not empty: name a new folder.")
        for path, entry in files.items():
            write_whole(folder / path, content_of(entry))
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written ({error}). Name another.") from error


def add_sending_arguments(parser: argparse.ArgumentParser) -> None:
    """What the commands that send a folder to the Hub have in common."""
    parser.add_argument("--private", action="store_true", help="nobody else sees a new repository")
    parser.add_argument("--to", metavar="FOLDER", help="write the repository's folder there too")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, and stop")


def carry_out(
    options: argparse.Namespace, what: str, files: Files, send: Callable[[], str]
) -> None:
    """Writes the folder where that is asked for, then sends it unless this is a dry run."""
    if options.to:
        write(files, options.to)
        print(f"the folder is in {options.to}")
    print("nothing was sent (--dry-run)" if options.dry_run else f"{what} is at {send()}")


def client(endpoint: str | None = None, token: str | None = None) -> Any:
    """The Hub's client, with a token.

    Args:
        endpoint: the Hub's address; HF_ENDPOINT, or the public one, by default.
        token: HF_TOKEN, or that of `hf auth login`, by default.

    Raises:
        HubError: there is no token.
    """
    hub = import_module("huggingface_hub")
    token = token or hub.get_token()
    if not token:
        raise HubError(
            "there is no token for the Hub. Make one with write access in the Hub's settings, then "
            "run `hf auth login`, or set HF_TOKEN."
        )
    return hub.HfApi(endpoint=endpoint, token=token, library_name="fastllm")


def commit(api: Any, repository: str, kind: str, files: Files, message: str) -> None:
    """Makes a repository equal to a folder, in one commit; what else is there is deleted.

    - `api`: from `client`.
    - `repository`: OWNER/NAME; it has to exist.
    - `kind`: "space" or "model".
    """
    hub = import_module("huggingface_hub")
    with explained(f"sending the files of {repository}"):
        found = set(api.list_repo_files(repository, repo_type=kind))
        operations = [
            hub.CommitOperationAdd(path, str(entry) if isinstance(entry, Path) else entry)
            for path, entry in sorted(files.items())
        ]
        operations += map(hub.CommitOperationDelete, sorted(found - set(files) - {KEPT}))
        api.create_commit(repository, operations=operations, commit_message=message, repo_type=kind)


@contextmanager
def explained(doing: str, on_payment: str = "") -> Iterator[None]:
    """Turns the errors of the Hub's client into ours.

    Args:
        doing: what is tried, as in "creating the Space OWNER/NAME".
        on_payment: what to do where the Hub wants to be paid.

    Raises:
        HubError: the Hub refused, or could not be reached.
    """
    errors = import_module("huggingface_hub.errors")
    try:
        yield
    except (errors.HTTPError, ConnectionError, RuntimeError, ValueError) as error:
        # A large file that could not be sent is reported around what was wrong; a README whose
        # front matter is not taken, as a ValueError.
        found = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(found, errors.HfHubHTTPError):
            said = (found.server_message or str(found)).strip()
            status = found.response.status_code
            advice = _ADVICE.get(status, "Run the command again later.")
            if status == 402 and on_payment:
                advice = on_payment
            reason = f"the Hub answered {status} ({said}). {advice}"
        elif isinstance(found, (errors.HTTPError, ConnectionError)):
            reason = f"the Hub cannot be reached ({found}). Look at the network and at HF_ENDPOINT."
        else:
            reason = str(found)
        raise HubError(f"{doing}: {reason}") from error


_ADVICE = {
    400: "Change what it names.",
    401: "The token is not valid: run `hf auth login`, or set HF_TOKEN.",
    402: "Pay for it in the Hub's settings, or do without.",
    403: "The token may not do this: make one with write access to that owner.",
    404: "There is no such repository, or the token may not see it.",
    429: "Wait a little, then run the command again.",
}
"""What to do about an answer of the Hub."""


def checkpoint_files(folder: Path) -> dict[str, Path | bytes]:
    """The files of a checkpoint's folder.

    Raises:
        CheckpointError: it is no checkpoint.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no config.json: give a checkpoint's folder, or the name of a shipped "
            "one."
        )
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.parts[len(folder.parts) :])
    }


def front_matter(values: Mapping[str, Any], body: str) -> bytes:
    """A README: values in YAML between two lines of ---, then the body."""
    yaml = import_module("yaml")
    head = yaml.safe_dump(dict(values), allow_unicode=True, sort_keys=False)
    return f"---\n{head}---\n\n{body.strip()}\n".encode()
