"""What one visitor may ask of the page: the `limits` section of the Spacefile."""

from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from fastllm.errors import SettingsError

SPACEFILE = Path(__file__).resolve().parents[2] / "Spacefile"


@dataclass(frozen=True)
class Limits:
    """The bounds of one run.

    Attributes:
        article_characters: longer articles are refused.
        max_new_tokens: the longest summary.
        lanes: the most lanes of a race.
        gamma: the longest draft.
        seconds_per_run: after these a race ends where it is.
        queue_size: how many may wait; who comes after them is told to come back.
    """

    article_characters: int
    max_new_tokens: int
    lanes: int
    gamma: int
    seconds_per_run: int
    queue_size: int


def read_limits(path: Path = SPACEFILE) -> Limits:
    """Reads the limits.

    Raises:
        SettingsError: there is no such file, or a limit is missing, unknown or no whole number.
    """
    names = [entry.name for entry in fields(Limits)]
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["limits"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path}: no readable section `limits` ({error}). It needs {', '.join(names)}."
        ) from error
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        raise SettingsError(f"{path}: `limits` holds {found!r}; it needs {', '.join(names)}.")
    for name, value in found.items():
        if type(value) is not int or value < 1:
            raise SettingsError(f"{path}: limits.{name}={value!r}: give a whole number above 0.")
    return Limits(**found)
