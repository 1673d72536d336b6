"""What the Spacefile says of the page: a visitor's bounds, the network, and the models it runs.

Each value can be overridden by an environment variable, such as FASTLLM_SECONDS_PER_RUN=10.
"""

import ipaddress
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from fastllm import paths
from fastllm.errors import SettingsError

SPACEFILE = paths.SPACEFILE

WINDOW_SECONDS = 60.0
"""The minute of `runs_per_minute`."""


PRIVATE_NETWORKS = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""Where the proxies of a Space are."""

VISITOR_PREFIX = 64
"""Bits of an IPv6 address that make a visitor: one household, or one machine, has all the rest."""


@dataclass(frozen=True)
class Limits:
    """The bounds of one run, and of one visitor.

    Attributes:
        article_characters: longer articles are refused.
        max_new_tokens: the longest summary.
        lanes: the most lanes of a race.
        gamma: the longest draft.
        seconds_per_run: after these a race ends where it is.
        queue_size: how many may wait; who comes after them is told to come back.
        runs_per_minute: how many races one visitor may begin within a minute.
        turns_per_minute: likewise, turns of the guessing game.
        upload_bytes: larger files are refused, and more text in one request of a program.
        compare_articles: the most articles of a comparison.
        compare_seconds: of the device; after these a comparison ends with what it has.
        training_seconds: of the drafter that learns in view; then it races.
        waiting: how many requests of one visitor may wait at a time.
        body_bytes: of one request; larger ones are refused and not kept.
    """

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
    """Where the page is served.

    Attributes:
        trusted_proxies: addresses and networks whose X-Forwarded-For is believed.
        hosts: names that the page answers to, beside localhost and any numeric address, in small
            letters; "*" stands for any name.
    """

    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Models:
    """The models of a page.

    Attributes:
        target: the shipped target, a folder, or a model of the Hub.
        load_in: how its weights are held: fp32, bf16, 8bit or 4bit; None: fp32.
        prefix: put before every article; None: the target's own.
        source_length: the most source tokens; None: the target's own.
        device: where to; None: the best there is.
        drafters: more lanes than ship: title -> folder, or a T5 of the Hub.
    """

    target: str = "target"
    load_in: str | None = None
    prefix: str | None = None
    source_length: int | None = None
    device: str | None = None
    drafters: Mapping[str, str] = field(default_factory=dict)


def read_limits(path: Path = SPACEFILE, environment: Mapping[str, str] = os.environ) -> Limits:
    """Reads the section `limits`.

    Args:
        path: the Spacefile.
        environment: where FASTLLM_<NAME> goes before what the file says.

    Raises:
        SettingsError: there is no such file, or a limit is missing, unknown or no whole number.
    """
    names = [entry.name for entry in fields(Limits)]
    found = _section(path, "limits", names)
    if sorted(found) != sorted(names):
        raise SettingsError(f"{path}: `limits` holds {found!r}; it needs {', '.join(names)}.")
    return Limits(
        **{
            name: _number(*_override(environment, name, f"{path}: limits.{name}", value))
            for name, value in found.items()
        }
    )


def read_network(path: Path = SPACEFILE, environment: Mapping[str, str] = os.environ) -> Network:
    """Reads the section `network`.

    On a Space, which nobody can reach but through the proxies of Hugging Face, these are believed
    and any name is answered to.

    Args:
        path: the Spacefile.
        environment: where FASTLLM_TRUSTED_PROXIES and FASTLLM_HOSTS go before what the file says;
            commas separate their entries.

    Raises:
        SettingsError: there is no such section, or a value is of the wrong kind.
    """
    names = [entry.name for entry in fields(Network)]
    found = _section(path, "network", names)
    if sorted(found) != sorted(names):
        raise SettingsError(f"{path}: `network` holds {found!r}; it needs {', '.join(names)}.")
    proxies, hosts = (
        _entries(*_override(environment, name, f"{path}: network.{name}", found[name]))
        for name in names
    )
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


def _entries(where: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [entry.strip() for entry in value.split(",") if entry.strip()]
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise SettingsError(f"{where}={value!r}: give a list of text: quote its entries.")
    return tuple(value)


def read_models(path: Path = SPACEFILE, environment: Mapping[str, str] = os.environ) -> Models:
    """Reads the section `serve`; what it does not name has its default.

    Args:
        path: the Spacefile.
        environment: where FASTLLM_<NAME> goes before what the file says. FASTLLM_DRAFTERS separates
            its entries by commas.

    Raises:
        SettingsError: there is no such section, or a value is of the wrong kind.
    """
    names = [entry.name for entry in fields(Models)]
    found = _section(path, "serve", names)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise SettingsError(f"{path}: `serve` knows no {', '.join(unknown)}: {', '.join(names)}.")
    values: dict[str, Any] = {}
    for name in names:
        where, value = _override(environment, name, f"{path}: serve.{name}", found.get(name))
        if value in (None, ""):
            continue
        if name == "source_length":
            value = _number(where, value)
        elif name == "drafters":
            entries = value.split(",") if isinstance(value, str) else value
            if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
                raise SettingsError(f"{where}={value!r}: give a list of FOLDER or FOLDER=TITLE.")
            value = titled_drafters(entries)
        elif not isinstance(value, str):
            raise SettingsError(f"{where}={value!r}: give text: quote it.")
        values[name] = value
    return Models(**values)


def titled_drafters(entries: list[str]) -> dict[str, str]:
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
        self._begun: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def begin(self, visitor: str) -> None:
        """Counts one more.

        Args:
            visitor: whom `visitor_of` found.

        Raises:
            SettingsError: the visitor has begun enough; says how long to wait. Not counted.
        """
        now = self._clock()
        with self._lock:
            for name in list(self._begun):  # nobody is remembered for longer than the minute
                times = self._begun[name]
                while times and now - times[0] >= WINDOW_SECONDS:
                    times.popleft()
                if not times:
                    del self._begun[name]
            times = self._begun.setdefault(visitor, deque())
            if len(times) >= self._most:
                wait = int(WINDOW_SECONDS - (now - times[0])) + 1
                raise SettingsError(
                    f"That was {self._most} {self._what} within a minute, as many as this page "
                    f"runs for one visitor. Wait {wait} second{'s' if wait > 1 else ''}."
                )
            times.append(now)

    def __len__(self) -> int:
        """How many visitors are remembered."""
        return len(self._begun)


def visitor_of(host: str | None) -> str:
    """Who asks, as far as can be told: an address, or the network of an IPv6 address.

    A session is no visitor: everybody can call theirs what they like.

    Args:
        host: the address that the request comes from. The server has already put in its place what
            a trusted proxy says of whom it heard from (`Network.trusted_proxies`).
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


def _section(path: Path, section: str, names: list[str]) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))[section]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path}: no readable section `{section}` ({error}). It knows {', '.join(names)}."
        ) from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path}: `{section}` holds {found!r}; it needs {', '.join(names)}.")
    return found


def _override(environment: Mapping[str, str], name: str, where: str, value: Any) -> tuple[str, Any]:
    """Where a value stands, and the value."""
    variable = f"FASTLLM_{name.upper()}"
    return (variable, environment[variable]) if variable in environment else (where, value)


def _number(where: str, value: Any) -> int:
    if where.startswith("FASTLLM_") and isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if type(value) is not int or value < 1:
        raise SettingsError(f"{where}={value!r}: give a whole number above 0.")
    return value
