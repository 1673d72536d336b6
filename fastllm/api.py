"""The two calls that most people need: `generate`, and `stream` while the text grows.

Both write one text with one drafter, or with the target alone. Several at once, each on its own
clock, is what `fastllm.decoding.race` is for.

What is named is loaded once: the two targets and eight drafters named last are kept, and a folder
whose `config.json` was written anew is read anew. `forget` lets go of all of them.
"""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch

from fastllm.checkpoints import SHIPPED, TARGET, default_drafter, load_drafter, load_target
from fastllm.decoding.race import Race
from fastllm.drafters import Drafter
from fastllm.errors import DataError, SettingsError
from fastllm.targets import Target
from fastllm.trace import DecodingConfig, Round, Trace
from fastllm.vocabulary import Detokenizer

AUTO = "auto"
"""The drafter that fits (`fastllm.checkpoints.default_drafter`)."""

Origin = Literal["accepted", "correction", "bonus", "plain"]
Model = TypeVar("Model")


class Streamer(Protocol):
    """What `generate` of transformers tells, too: its TextStreamer and TextIteratorStreamer fit."""

    def put(self, value: torch.Tensor) -> None:
        """Told the ids of each round, int64 on the CPU; first, shape (1, 1), the start token."""

    def end(self) -> None:
        """Told once that no more come."""


@dataclass(frozen=True)
class Written:
    """A token of the text.

    Attributes:
        text: what it adds to the text; empty for the end token, and while a character is spelled.
        origin: a drafted token that was accepted, or the target's own: the correction of a refused
            one, the bonus behind a whole accepted draft, or plain where nothing was drafted.
    """

    id: int
    text: str
    origin: Origin


@dataclass(frozen=True)
class Step:
    """One call of the target, as `stream` gives it; and a last step without one.

    Attributes:
        text: what was added to the text. Those of all steps joined are `trace.text`.
        tokens: likewise, token by token; none in the last step.
        round: all that is known of the call; None in the last step.
        seconds: on the lane's own clock, encoding included, behind this call.
        trace: the whole record; None before the last step.
    """

    text: str
    tokens: tuple[Written, ...]
    round: Round | None
    seconds: float
    trace: Trace | None = None


def generate(
    article: str,
    target: str | Path | Target = TARGET,
    drafter: str | Path | Drafter | None = AUTO,
    config: DecodingConfig | None = None,
    *,
    statistics: bool = True,
    streamer: Streamer | None = None,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Trace:
    """Summarises an article by speculative decoding.

    Args:
        article: the text. One longer than the target reads is cut: see `cut_at` of the Trace.
        target: whose text it is: "target" (the shipped one), a folder, OWNER/NAME on the Hub, or
            what `load_target` gave.
        drafter: what makes it faster: AUTO, the name of a shipped drafter, "lookup", a folder,
            OWNER/NAME on the Hub, two of these with a + between them, or what `load_drafter` gave;
            None is the target alone.
        config: the settings; the defaults of `DecodingConfig` by default.
        statistics: collect what is only shown, off the clock.
        streamer: a TextStreamer of transformers, or anything with its `put` and `end`; `end` is
            called whatever happens, so that nobody waits for a text that will not come.
        device: where models that are named are put; the best there is by default.
        settings: fields of DecodingConfig, instead of `config` or beside it: `gamma=7`.

    Returns:
        The record of the decoding; `text` is the summary.

    Raises:
        CheckpointError: a name stands for nothing that can be loaded.
        DataError: the article is no text, or empty.
        SettingsError: a setting is out of range or unknown, or a device is given for a target that
            is loaded already.
        VocabularyError: the drafter was made for another vocabulary.

    Example:
        trace = fastllm.generate(article, gamma=5)
        print(trace.text)
    """
    given: dict[str, Any] = {"statistics": statistics, "streamer": streamer, "device": device}
    *_, last = stream(article, target, drafter, config, **given, **settings)
    assert last.trace is not None, "the last step holds the trace"
    return last.trace


def stream(
    article: str,
    target: str | Path | Target = TARGET,
    drafter: str | Path | Drafter | None = AUTO,
    config: DecodingConfig | None = None,
    *,
    statistics: bool = True,
    streamer: Streamer | None = None,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Iterator[Step]:
    """The same as `generate`, step by step while the text grows.

    Everything is checked and loaded by this call; decoding goes on only as steps are asked for, so
    a caller who stops asking leaves nothing running.

    Args: those of `generate`.

    Returns:
        An iterator (a generator: `close` ends it early). The last step holds the Trace.

    Raises: what `generate` raises.

    Example:
        for step in fastllm.stream(article):
            print(step.text, end="", flush=True)
        print(step.trace.versions)
    """
    if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
        raise SettingsError(
            f"streamer={streamer!r}: give what has `put` and `end`, as a TextStreamer."
        )
    try:
        wanted = _config(config, settings)
        models = _models(article, target, drafter, device)
        race = Race(*models, article, wanted, statistics=statistics)
    except BaseException:
        if streamer is not None:
            streamer.end()
        raise
    return _steps(race, streamer)


def forget() -> None:
    """Lets go of all models that were loaded by name."""
    with _LOADING:  # what is being loaded now goes too
        _target.cache_clear()
        _drafter.cache_clear()


def _steps(race: Race, streamer: Streamer | None) -> Iterator[Step]:
    pushed = _Settled(race.target.vocabulary).push
    shown = ""
    clock = 0.0
    try:
        if streamer is not None:
            streamer.put(torch.tensor([[race.target.start_id]]))
        for step in race:
            clock = step.clock
            tokens = tuple(
                Written(token, pushed(token), origin)
                for token, origin in zip(step.round.tokens, _origins(step.round), strict=True)
            )
            text = "".join(token.text for token in tokens)
            shown += text
            if streamer is not None:
                streamer.put(torch.tensor(step.round.tokens))
            yield Step(text, tokens, step.round, clock)
        (trace,) = race.traces()
        # A text that was cut inside a character ends in what no token has shown.
        yield Step(trace.text[len(shown) :], (), None, clock, trace)
    finally:
        if streamer is not None:
            streamer.end()


class _Settled(Detokenizer):
    """Shows nothing that a later token could change.

    Where a vocabulary spells rare characters in bytes, decoding takes all bytes in a row as one
    string, and one wrong byte spoils the whole row: it is shown when the next token is no byte.
    """

    def push(self, token: int) -> str:
        """The text that `token` adds to what was shown."""
        if _BYTE.fullmatch(self._vocabulary.names([token])[token]):
            self._ids.append(token)
            return ""
        return super().push(token)


_BYTE = re.compile("<0x[0-9A-F]{2}>")


def _origins(entry: Round) -> list[Origin]:
    origins: list[Origin] = ["accepted"] * entry.accepted
    if entry.extra_kind is not None:
        origins.append(entry.extra_kind)
    return origins


def _models(
    article: str,
    target: str | Path | Target,
    drafter: str | Path | Drafter | None,
    device: str | torch.device | None,
) -> tuple[Target, list[Drafter | None]]:
    """The target and its drafter, loaded where they are named."""
    if not isinstance(article, str):
        raise DataError(
            f"the article is of type {type(article).__name__}: give one text, of several one a "
            "call."
        )
    for name, given, needed in (("target", target, "encode"), ("drafter", drafter, "begin")):
        known = isinstance(given, str | Path) or hasattr(given, needed)
        if not known and (name, given) != ("drafter", None):
            raise SettingsError(
                f"{name}={given!r}: give a name, a folder, or what load_{name} gives"
                + (", or None for the target alone." if name == "drafter" else ".")
            )
    if not isinstance(target, str | Path) and device is not None:
        raise SettingsError(
            f"device={str(device)!r}: the target is loaded already. Load it where it is to be, "
            "with load_target(..., device=...)."
        )
    if drafter == AUTO:
        drafter = default_drafter(target)
    loaded = _kept(_target, target, device) if isinstance(target, str | Path) else target
    if isinstance(drafter, str | Path):  # models are together
        drafter = _kept(_drafter, drafter, device or loaded.device)
    return loaded, [drafter]


def _config(config: DecodingConfig | None, settings: dict[str, Any]) -> DecodingConfig:
    if config is not None and not isinstance(config, DecodingConfig):
        raise SettingsError(
            f"config is of type {type(config).__name__}: give a DecodingConfig, or its settings by "
            "name, as in gamma=3."
        )
    known = [entry.name for entry in fields(DecodingConfig)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise SettingsError(
            f"{', '.join(unknown)}: no such setting. The settings of decoding are "
            f"{', '.join(known)}."
        )
    return replace(config or DecodingConfig(), **settings)


@lru_cache(maxsize=2)
def _target(name: str, device: str | None, written: int) -> Target:
    return load_target(name, device=device)


@lru_cache(maxsize=8)
def _drafter(name: str, device: str | None, written: int) -> Drafter:
    return load_drafter(name, device=device)


_LOADING = threading.Lock()


def _kept(
    load: Callable[[str, str | None, int], Model],
    name: str | Path,
    device: str | torch.device | None,
) -> Model:
    """What was loaded; two threads that name the same model load it once."""
    with _LOADING:
        return load(str(name), None if device is None else str(device), _written_at(name))


def _written_at(name: str | Path) -> int:
    """When the configuration of a folder was written, in nanoseconds; 0 for one on the Hub."""
    for folder in (SHIPPED / str(name), Path(name)):
        try:
            return (folder / "config.json").stat().st_mtime_ns
        except (OSError, ValueError):  # not there: the next place, or loading says what is wrong
            continue
    return 0
