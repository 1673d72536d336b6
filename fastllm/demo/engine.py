"""The models of the page, loaded once, and a race as lines of text.

Loading and warming up happen in the background while the page is already served; a race that comes
too early waits. One race at a time has the device.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from fastllm import checkpoints
from fastllm.demo import texts, wire
from fastllm.drafters import Drafter
from fastllm.errors import CheckpointError, FastLLMError
from fastllm.race import Race, hardware
from fastllm.targets import Target
from fastllm.trace import DecodingConfig, Trace
from fastllm.vocabulary import Detokenizer

SLICE_SECONDS = 0.05
"""Lines are collected this long before they leave a borrowed GPU."""

WARM_UP = (
    "The council met on Monday and agreed to plant trees along the river. Work will begin in "
    "spring, and the trees were given by a nursery in the next town."
)


@dataclass(frozen=True)
class Order:
    """What a visitor asked for, checked.

    Attributes:
        article: the text.
        lanes: the keys of the lanes.
        config: the settings.
        notices: what the visitor should know about the article.
        title: of a sample; empty otherwise.
        seconds: after these the race ends where it is.
    """

    article: str
    lanes: tuple[str, ...]
    config: DecodingConfig
    notices: tuple[str, ...] = ()
    title: str = ""
    seconds: int = 30


class Engine(Protocol):
    """What the page asks of its models."""

    @property
    def keys(self) -> Sequence[str]:
        """The lanes on offer, in the order of the page."""

    @property
    def missing(self) -> Mapping[str, str]:
        """Lanes that one might look for, and why they are not there."""

    def lines(self, order: Order, stop: threading.Event) -> Iterable[str]:
        """The rows of a race, as lines."""


class LocalEngine:
    """Models on this machine.

    Args:
        target: the shipped target, a folder, or a model of the Hub.
        most_seconds: the longest race, for which a GPU is borrowed where GPUs are lent.
    """

    def __init__(self, target: str = checkpoints.TARGET, *, most_seconds: int = 30) -> None:
        self._name = target
        shipped = checkpoints.shipped_drafters() if target == checkpoints.TARGET else []
        known = [key for key in texts.LANES if key in (texts.ALONE, "lookup", *shipped)]
        self.keys: list[str] = known + [key for key in shipped if key not in texts.LANES]
        self.missing = {
            key: texts.NO_CHECKPOINT if target == checkpoints.TARGET else texts.OTHER_TARGET
            for key in texts.EXPECTED
            if key not in self.keys
        }
        self._target: Target | None = None
        self._drafters: dict[str, Drafter | None] = {}
        self._refused: dict[str, str] = {}
        self._failure: FastLLMError | None = None
        self._loaded = threading.Event()
        self._device = threading.Lock()
        self._borrowed = _borrow_gpu(self._in_slices, most_seconds)

    def start(self) -> None:
        """Loads and warms up: in the background, or at once where the GPU is a borrowed one."""
        if self._borrowed is not None:
            self._load()
        else:
            threading.Thread(target=self._prepare, name="loading", daemon=True).start()

    def race(self, order: Order, stop: threading.Event | None = None) -> Race:
        """A race that has not begun.

        Raises:
            CheckpointError: the target, or the drafter of a lane, could not be loaded.
        """
        target = self._ready()
        for key in order.lanes:
            if key in self._refused:
                raise CheckpointError(texts.not_offered(key, self._refused[key]))
        return Race(
            target,
            [self._drafters[key] for key in order.lanes],
            order.article,
            order.config,
            stop=stop,
            deadline_seconds=order.seconds,
        )

    def lines(self, order: Order, stop: threading.Event) -> Iterator[str]:
        """The rows of a race, as lines.

        Raises:
            FastLLMError: the models could not be loaded.
        """
        if self._borrowed is None:
            self._ready()
            with self._device:
                yield from self._lines(order, stop)
            return
        for lines in self._borrowed(order):
            yield lines
            if stop.is_set():
                return

    def _lines(self, order: Order, stop: threading.Event) -> Iterator[str]:
        race = self.race(order, stop)
        target = race.target
        settings = Trace(
            source=order.article,
            config=race.config,
            target=target.name,
            drafter="",
            vocabulary="",
            cut_at=race.cut_at,
            hardware=hardware(target.device),
        )
        yield wire.line(
            wire.start_row(
                uuid.uuid4().hex,
                "live",
                order.lanes,
                settings,
                article=order.title,
                notices=order.notices,
            )
        )
        vocabulary = target.vocabulary
        writers = [
            wire.RoundWriter(lane, Detokenizer(vocabulary).push, vocabulary.names, target.end_id)
            for lane in range(len(order.lanes))
        ]
        for step in race:
            yield wire.line(writers[step.lane].row(step.round, step.clock))
        traces = race.traces()
        met = any(trace.ended == "deadline" for trace in traces)
        notices = [texts.ended_early(order.seconds)] if met else []
        yield wire.line(wire.end_row(order.lanes, traces, notices))

    def _in_slices(self, order: Order) -> Iterator[str]:
        """Runs where the GPU is: what it is given and what it yields can be pickled."""
        stop = threading.Event()
        try:
            text, since = "", time.monotonic()
            for entry in self._lines(order, stop):
                text += entry
                if time.monotonic() - since >= SLICE_SECONDS:
                    yield text
                    text, since = "", time.monotonic()
            yield text
        finally:
            stop.set()

    def _ready(self) -> Target:
        self._loaded.wait()
        if self._failure is not None or self._target is None:
            raise self._failure or CheckpointError("the target was not loaded: start the engine.")
        return self._target

    def _prepare(self) -> None:
        with self._device:
            self._load()
            if self._failure is None:
                lanes = tuple(key for key in self.keys if key not in self._refused)
                order = Order(WARM_UP, lanes, DecodingConfig(max_new_tokens=8))
                for _ in self.race(order):
                    pass

    def _load(self) -> None:
        import_module("transformers.utils.logging").disable_progress_bar()
        try:
            self._target = checkpoints.load_target(self._name)
            for key in self.keys:
                try:
                    self._drafters[key] = self._load_drafter(key)
                except (FastLLMError, ImportError) as error:  # said when it is raced
                    self._refused[key] = str(error)
        except FastLLMError as error:
            self._failure = error
        finally:
            self._loaded.set()

    def _load_drafter(self, key: str) -> Drafter | None:
        if key == texts.ALONE or self._target is None:
            return None
        return checkpoints.load_drafter(key, device=self._target.device)


def _borrow_gpu(work: Callable[[Order], Iterator[str]], seconds: int) -> Callable[..., Any] | None:
    """`work` on a GPU lent for a while (Hugging Face ZeroGPU); None where none are lent."""
    if not os.environ.get("SPACES_ZERO_GPU"):
        return None
    borrowed: Callable[..., Any] = import_module("spaces").GPU(duration=seconds + 10)(work)
    return borrowed
