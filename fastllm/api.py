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
from pathlib import Path
from typing import Any, Literal, Protocol

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
    truncate: bool = True,
    device: str | torch.device | None = None,
    drafter_device: str | torch.device | None = None,
    **settings: Any,
) -> Trace:
    """Summarises an article by speculative decoding.

    Args:
        article: the text.
        target: whose text it is: "target" (the shipped one), a folder, OWNER/NAME on the Hub, or
            what `load_target` gave.
        drafter: what makes it faster: AUTO, the name of a shipped drafter, "lookup", a folder,
            OWNER/NAME on the Hub, two of these with a + between them, or what `load_drafter` gave;
            None is the target alone.
        config: the settings; the defaults of `DecodingConfig` by default.
        statistics: collect what is only shown, off the clock.
        streamer: a TextStreamer of transformers, or anything with its `put` and `end`; `end` is
            called whatever happens, so that nobody waits for a text that will not come.
        truncate: an article longer than the target reads is cut, and `cut_at` of the Trace says
            where; False refuses it.
        device: where models that are named are put; the best there is by default.
        drafter_device: where a drafter that is named is put; `device` by default.
        settings: fields of DecodingConfig, instead of `config` or beside it: `gamma=7`.

    Returns:
        The record of the decoding; `text` is the summary.

    Raises:
        CheckpointError: a name stands for nothing that can be loaded.
        DataError: the article is no text, empty, or too long and not to be cut.
        SettingsError: a setting is out of range or unknown, or a device is given for a model that
            is loaded already.
        VocabularyError: the drafter was made for another vocabulary.

    Example:
        trace = fastllm.generate(article, gamma=5)
        print(trace.text)
    """
    steps = stream(
        article,
        target,
        drafter,
        config,
        statistics=statistics,
        streamer=streamer,
        truncate=truncate,
        device=device,
        drafter_device=drafter_device,
        **settings,
    )
    trace = None
    for step in steps:
        trace = step.trace
    assert trace is not None, "the last step holds the trace"
    return trace


def stream(
    article: str,
    target: str | Path | Target = TARGET,
    drafter: str | Path | Drafter | None = AUTO,
    config: DecodingConfig | None = None,
    *,
    statistics: bool = True,
    streamer: Streamer | None = None,
    truncate: bool = True,
    device: str | torch.device | None = None,
    drafter_device: str | torch.device | None = None,
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
    try:
        race = _race(
            article, target, drafter, _config(config, settings), statistics, truncate, device,
            drafter_device,
        )  # fmt: skip
    except BaseException:
        if streamer is not None:
            streamer.end()
        raise
    return _steps(race, streamer)


def forget() -> None:
    """Lets go of all models that were loaded by name."""
    for kept in (_targets, _drafters):
        kept.clear()


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


def _race(
    article: str,
    target: str | Path | Target,
    drafter: str | Path | Drafter | None,
    config: DecodingConfig,
    statistics: bool,
    truncate: bool,
    device: str | torch.device | None,
    drafter_device: str | torch.device | None,
) -> Race:
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
    if drafter == AUTO:
        drafter = default_drafter(target)
    if not isinstance(target, str | Path) and device is not None:
        _refuse_device("device", device, "target")
    if drafter_device is not None and not isinstance(drafter, str | Path):
        _refuse_device("drafter_device", drafter_device, "drafter")
    loaded = _targets.find(target, device) if isinstance(target, str | Path) else target
    helper: Drafter | None
    if isinstance(drafter, str | Path):
        # Where nothing else is said, models are together.
        helper = _drafters.find(drafter, drafter_device or device or loaded.device)
    else:
        helper = drafter
    race = Race(loaded, [helper], article, config, statistics=statistics)
    if race.cut_at is not None and not truncate:
        whole = loaded.vocabulary.encode(article, _ENDLESS, loaded.prefix)
        raise DataError(
            f"the article has {len(whole.ids)} tokens, {loaded.name} reads {loaded.source_length} "
            "(prefix and end token included): shorten it, or give truncate=True, which cuts it "
            f"behind character {race.cut_at} of {len(article)}."
        )
    return race


_ENDLESS = 2**31 - 1
"""More tokens than any article has."""


def _refuse_device(name: str, device: Any, what: str) -> None:
    raise SettingsError(
        f"{name}={str(device)!r}: the {what} is loaded already, or there is none. Load it where it "
        f"is to be, with load_{what}(..., device=...)."
    )


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


class _Kept:
    """Models that were loaded by name, the last few of them.

    Args:
        load: loads one: `load(name, device=...)`.
        most: how many are kept; the one not asked for the longest goes first.
    """

    def __init__(self, load: Callable[..., Any], most: int) -> None:
        self._load = load
        self._most = most
        self._models: dict[tuple[str, str, int], Any] = {}
        self._lock = threading.Lock()

    def find(self, name: str | Path, device: str | torch.device | None) -> Any:
        """The model of that name on that device."""
        key = (str(name), str(device), _written_at(name))
        with self._lock:  # two threads that name the same model load it once
            model = self._models.pop(key, None)
            if model is None:
                model = self._load(name, device=device)
            self._models[key] = model  # now the last
            while len(self._models) > self._most:
                del self._models[next(iter(self._models))]
        return model

    def clear(self) -> None:
        """Keeps none."""
        with self._lock:
            self._models.clear()


def _written_at(name: str | Path) -> int:
    """When the configuration of a folder was written, in nanoseconds; 0 for one on the Hub."""
    for folder in (SHIPPED / str(name), Path(name)):
        try:
            return (folder / "config.json").stat().st_mtime_ns
        except OSError:  # not there: the next place, or loading will say what is wrong
            continue
    return 0


_targets = _Kept(load_target, most=2)
_drafters = _Kept(load_drafter, most=8)
