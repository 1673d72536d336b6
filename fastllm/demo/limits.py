"""What the Spacefile says of the page: a visitor's bounds, the network, and the models it runs.

Each value can be overridden by an environment variable, such as FASTLLM_SECONDS_PER_RUN=10.
"""

import ipaddress
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from fastllm import paths
from fastllm.errors import SettingsError
from fastllm.words import echoed

WINDOW_SECONDS = 60.0
"""The minute of `runs_per_minute`."""

PRIVATE_NETWORKS = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""Where the proxies of a Space are."""

VISITOR_PREFIX = 64
"""Bits of an IPv6 address that make a visitor: one household, or one machine, has all the rest."""


@dataclass(frozen=True)
class Limits:
    """The bounds of one run, and of one visitor. What each means stands in the Spacefile."""

    article_characters: int
    max_new_tokens: int
    lanes: int
    gamma: int
    seconds_per_run: int
    queue_size: int
    runs_per_minute: int
    turns_per_minute: int
    upload_bytes: int
    compare_articles: int
    compare_seconds: int
    training_seconds: int
    waiting: int
    body_bytes: int


@dataclass(frozen=True)
class Network:
    """Where the page is served; as the Spacefile says it, host names in small letters."""

    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Models:
    """The models of a page: the arguments of `LocalEngine`, which says what each means."""

    target: str = "target"
    load_in: str | None = None
    prefix: str | None = None
    source_length: int | None = None
    device: str | None = None
    drafters: Mapping[str, str] = field(default_factory=dict)


def read_limits(
    path: Path = paths.SPACEFILE, environment: Mapping[str, str] = os.environ
) -> Limits:
    """Reads the section `limits`; FASTLLM_<NAME> in `environment` goes before what the file says.

    Raises:
        SettingsError: there is no such file, or a limit is missing, unknown or no whole number.
    """
    found = _section(Limits, "limits", path, environment)
    return Limits(**{name: _number(*told) for name, told in found.items()})


def read_network(
    path: Path = paths.SPACEFILE, environment: Mapping[str, str] = os.environ
) -> Network:
    """Reads the section `network`, likewise; in the environment commas separate the entries.

    On a Space, which nobody can reach but through the proxies of Hugging Face, these are believed
    and any name is answered to.

    Raises:
        SettingsError: there is no such section, or a value is of the wrong kind.
    """
    found = _section(Network, "network", path, environment)
    proxies, hosts = (_entries(*found[name]) for name in ("trusted_proxies", "hosts"))
    for entry in proxies:
        try:
            ipaddress.ip_network(entry)
        except ValueError as error:
            raise SettingsError(
                f"trusted_proxies: {entry!r} is no address and no network ({error}). Give such as "
                "10.0.0.7 or 10.0.0.0/8."
            ) from error
    if environment.get("SPACE_ID"):
        return Network((*proxies, *PRIVATE_NETWORKS), ("*",))
    return Network(proxies, tuple(host.lower() for host in hosts))


def read_models(
    path: Path = paths.SPACEFILE, environment: Mapping[str, str] = os.environ
) -> Models:
    """Reads the section `serve`, likewise; what it does not name has its default.

    Raises:
        SettingsError: there is no such section, or a value is of the wrong kind.
    """
    values: dict[str, Any] = {}
    for name, (where, value) in _section(Models, "serve", path, environment, part=True).items():
        if value in (None, ""):
            continue
        if name == "source_length":
            value = _number(where, value)
        elif name == "drafters":
            value = titled_drafters(_entries(where, value))
        elif not isinstance(value, str):
            raise SettingsError(f"{where}={value!r}: give text: quote it.")
        values[name] = value
    return Models(**values)


def titled_drafters(entries: Sequence[str]) -> dict[str, str]:
    """Title -> folder, of entries FOLDER or FOLDER=TITLE.

    Without a title the folder's name is taken; of `runs/NAME/checkpoint` that is NAME.

    Raises:
        SettingsError: an entry is empty, or two have one title.
    """
    found: dict[str, str] = {}
    for entry in entries:
        folder, _, title = (part.strip() for part in entry.partition("="))
        parts = [part for part in folder.split("/") if part not in ("", ".")]
        if not parts:
            raise SettingsError(f"drafter {entry!r}: give FOLDER, or FOLDER=TITLE.")
        if parts[-1] == "checkpoint" and len(parts) > 1:
            parts.pop()
        title = title or parts[-1]
        if title in found:
            raise SettingsError(
                f"two drafters are called {title!r}: give one of them as FOLDER=TITLE."
            )
        found[title] = folder
    return found


class Visits:
    """Counts what each visitor has begun within the last minute.

    Args:
        most: how many one visitor may begin.
        what: they are called.
        clock: seconds, never set back.
    """

    def __init__(
        self, most: int, what: str = "races", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._what = what
        self._clock = clock
        self._begun: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def begin(self, visitor: str) -> None:
        """Counts one more of a visitor, whom `visitor_of` found.

        Raises:
            SettingsError: the visitor has begun enough; says how long to wait. Not counted.
        """
        now = self._clock()
        with self._lock:
            # Nobody is remembered for longer than the minute.
            for name, times in list(self._begun.items()):
                self._begun[name] = [begun for begun in times if now - begun < WINDOW_SECONDS]
                if not self._begun[name]:
                    del self._begun[name]
            times = self._begun.setdefault(visitor, [])
            if len(times) >= self._most:
                wait = int(WINDOW_SECONDS - (now - times[0])) + 1
                raise SettingsError(
                    f"That was {self._most} {self._what} within a minute, as many as this page "
                    f"runs for one visitor. Wait {wait} second{'s' if wait > 1 else ''}."
                )
            times.append(now)


def visitor_of(host: str | None) -> str:
    """Who asks, as far as can be told: an address, or the network of an IPv6 address.

    A session is no visitor: everybody can call theirs what they like. In the place of a trusted
    proxy's address the server has already put that of whom the proxy heard from.
    """
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), VISITOR_PREFIX), strict=False))


def _section(
    kind: type, section: str, path: Path, environment: Mapping[str, str], *, part: bool = False
) -> dict[str, tuple[str, Any]]:
    """Name -> where the value stands, and the value, of each field of `kind`.

    A section may name a `part` of the fields, or has to name them all.
    """
    names = [entry.name for entry in fields(kind)]
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))[section]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path}: no readable section `{section}` ({error}). It knows {', '.join(names)}."
        ) from error
    needs = "knows" if part else "needs"
    if (
        not isinstance(found, dict)
        or set(found) - set(names)
        or (not part and len(found) < len(names))
    ):
        raise SettingsError(f"{path}: `{section}` holds {found!r}; it {needs} {', '.join(names)}.")
    told = {name: (f"{path}: {section}.{name}", found.get(name)) for name in names}
    for name in names:
        variable = f"FASTLLM_{name.upper()}"
        if variable in environment:
            told[name] = variable, environment[variable]
    return told


def _entries(where: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [entry.strip() for entry in value.split(",") if entry.strip()]
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise SettingsError(f"{where}={value!r}: give a list of text: quote its entries.")
    return tuple(value)


_DIGITS = 19
"""A bound has fewer."""


def _number(where: str, value: Any) -> int:
    if where.startswith("FASTLLM_") and value.strip().isdecimal() and len(value) < _DIGITS:
        value = int(value)
    if type(value) is not int or value < 1:
        raise SettingsError(f"{where}={echoed(value)}: give a whole number above 0.")
    return value
