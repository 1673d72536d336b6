"""The models of the page, loaded once, and the one device that all work takes turns on.

Loading and warming up happen in the background while the page is already served. Requests block
until loading finishes. One job at a time has the device.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import gradio as gr
import torch

import fastllm
from fastllm import checkpoints
from fastllm.decoding.race import hardware, require_same_vocabulary, versions
from fastllm.demo import words
from fastllm.demo.jobs import WARM_UP_TOKENS, RaceJob, Work
from fastllm.devices import usable_device
from fastllm.drafters import Drafter, untrained
from fastllm.errors import CheckpointError, FastLLMError, SettingsError
from fastllm.targets import Target
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary

TURN_SECONDS = 0.1
"""Between two looks whether a visitor who waits for the device has left."""

LENT = "a GPU lent for each race (ZeroGPU)"

OTHER_VOCABULARY = "it was distilled for a target with another vocabulary"

SLICE_SECONDS = 0.05
"""Lines are collected this long before they leave a borrowed GPU."""

SPARE_SECONDS = 10
"""A GPU is borrowed for so much longer than the work on it may take."""

WARM_UP = (
    "The council met on Monday and agreed to plant trees along the river. Work will begin in "
    "spring, and the trees were given by a nursery in the next town."
)


class LocalEngine:
    """Models on this machine.

    What does not fit the target is known before anything is loaded, from the vocabularies alone, so
    that the page can say so when it is built.

    Args:
        target: the shipped target, a folder, or a model of the Hub.
        load_in: how its weights are held: fp32 (the default), bf16, 8bit or 4bit.
        prefix: put before every article; the target's own by default.
        source_length: the most source tokens; the target's own by default.
        device: where to; the best there is by default.
        drafters: more lanes than ship: title -> folder, or a T5 of the Hub. One with the title of a
            shipped drafter takes its place.
        say: told in a line what is being loaded, and what went wrong.

    Raises:
        SettingsError: a drafter has the title of the lane without one, or there is no such device.
    """

    def __init__(
        self,
        target: str = checkpoints.TARGET,
        *,
        load_in: str | None = None,
        prefix: str | None = None,
        source_length: int | None = None,
        device: str | None = None,
        drafters: Mapping[str, str] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._name = target
        self._options: dict[str, Any] = {
            "load_in": load_in,
            "prefix": prefix,
            "source_length": source_length,
            # A device that is not there is refused now, not while models load.
            "device": None if device is None else str(usable_device(device)),
        }
        self._say = say or (lambda _: None)
        shipped = checkpoints.shipped_drafters()
        self._sources = {key: key for key in (*untrained(), *shipped)} | dict(drafters or {})
        if words.ALONE in self._sources:
            raise SettingsError(f"a drafter cannot be called {words.ALONE!r}: give FOLDER=TITLE.")
        self._missing = self._misfits()
        if target == checkpoints.TARGET:
            self._missing |= {
                key: words.NO_CHECKPOINT for key in words.EXPECTED if key not in shipped
            }
        shipped_as = {key for key, source in self._sources.items() if key == source}
        whole = shipped_as - self._missing.keys()
        self._sources |= {key: key for key in words.COMPOSED if whole >= {*words.parts_of(key)}}
        known = [key for key in words.lanes() if key in (words.ALONE, *self._sources)]
        known += [key for key in self._sources if key not in known]
        # The lanes on offer, in the order of the page.
        self.keys: list[str] = [key for key in known if key not in self._missing]
        self._target: Target | None = None
        self._drafters: dict[str, Drafter | None] = {}
        self._refused: dict[str, str] = {}
        self._failure: CheckpointError | None = None
        self._doing = f"loading {target}"
        self._since = time.monotonic()
        self._loaded = threading.Event()
        self._device = threading.Lock()
        self._borrowed = _borrow_gpu(self._in_slices)

    @property
    def missing(self) -> Mapping[str, str]:
        """Lanes that one might look for, and why they are not there."""
        return self._missing | self._refused

    @property
    def failure(self) -> str:
        """Why nothing can be run; empty where all is well, or not known yet."""
        return "" if self._failure is None else str(self._failure)

    @property
    def loading(self) -> str:
        """What a race would wait for before its turn; empty where nothing, or where it failed."""
        return self._doing and f"{self._doing} ({time.monotonic() - self._since:.0f} s)"

    @property
    def about(self) -> dict[str, str]:
        """What the page says of itself: versions by name, the hardware, the target."""
        lent = self._borrowed is not None
        device = self._options["device"]
        if self._target is not None:
            device = self._target.device
        elif self._failure is not None or lent:
            device = "cpu"
        return {
            "fastllm": fastllm.__version__,
            **versions(),
            "gradio": gr.__version__,
            "hardware": LENT if lent else hardware(usable_device(device)),
            "target": self._name,
            "held": self._options["load_in"] or "fp32",
        }

    def start(self) -> None:
        """Loads and warms up: in the background, or at once where the GPU is a borrowed one."""
        self._since = time.monotonic()
        if self._borrowed is not None:
            self._load()
            self._doing = ""
        else:
            threading.Thread(target=self._prepare, name="loading", daemon=True).start()

    @property
    def target(self) -> Target:
        """The target; waits until it is loaded.

        Raises:
            CheckpointError: it could not be loaded.
        """
        self._loaded.wait()
        if self._failure is not None or self._target is None:
            raise self._failure or CheckpointError("the target was not loaded: start the engine.")
        return self._target

    def drafter(self, key: str) -> Drafter | None:
        """The drafter of a lane, loaded; None of the target alone.

        Raises:
            CheckpointError: it, or the target, could not be loaded.
        """
        if self.target and key in self._refused:
            raise CheckpointError(words.not_offered(key, self._refused[key]))
        return self._drafters[key]

    def lines(self, work: Work, stop: threading.Event) -> Iterator[str]:
        """The rows of a piece of work, as lines; none where it was stopped before its turn came.

        Raises:
            FastLLMError: the models could not be loaded.
        """
        while not self._loaded.wait(TURN_SECONDS):
            if stop.is_set():
                return
        if self._borrowed is None:
            while not self._device.acquire(timeout=TURN_SECONDS):
                if stop.is_set():
                    return
            try:
                with _between_layers(self._target, stop):
                    yield from work.lines(self, stop)
            except _Stopped:
                pass
            finally:
                self._device.release()
            return
        work.check(self)  # what is wrong with it is found before a GPU is asked for
        borrowed = self._borrowed(work)
        try:
            for lines in borrowed:
                yield lines
                if stop.is_set():
                    return
        finally:
            borrowed.close()

    def _in_slices(self, work: Work) -> Iterator[str]:
        """Runs where the GPU is: what it is given and what it yields can be pickled."""
        stop = threading.Event()
        try:
            text, since = "", time.monotonic()
            for entry in work.lines(self, stop):
                text += entry
                if time.monotonic() - since >= SLICE_SECONDS:
                    yield text
                    text, since = "", time.monotonic()
            yield text
        except FastLLMError as error:  # of other errors the lender keeps the words to itself
            raise gr.Error(str(error), duration=15, print_exception=False) from error
        finally:
            stop.set()

    def _prepare(self) -> None:
        with self._device:
            self._load()
            if self._failure is None:
                self._doing = "warming up"
                self._warm_up()
        self._doing = ""

    def _warm_up(self) -> None:
        """Has every lane write a few tokens. What cannot is refused: the target, or a lane."""
        for key in self.keys:  # the target alone is the first
            try:
                if key not in self._refused:
                    self._write_a_few([key])
            except Exception as error:  # of whatever kind
                reason = f"it was loaded, but could not write ({type(error).__name__}: {error})"
                if key == words.ALONE:
                    self._fail(
                        f"{self._name}: {reason}. Hold it in another type, or name another device "
                        "or target."
                    )
                    return
                self._refused[key] = reason
                self._say(words.not_offered(key, reason))
        self._say("ready")

    def _write_a_few(self, keys: Sequence[str]) -> None:
        job = RaceJob(WARM_UP, tuple(keys), DecodingConfig(max_new_tokens=WARM_UP_TOKENS))
        for _ in job.race(self):
            pass

    def _load(self) -> None:
        if self._name == checkpoints.TARGET:  # small enough to be there before a bar is read
            import_module("transformers.utils.logging").disable_progress_bar()
        held = f" in {self._options['load_in']}" if self._options["load_in"] else ""
        self._doing = f"loading {self._name}{held}"
        began = time.monotonic()
        try:
            self._say(f"{self._doing} ...")  # may fail: a console that lacks a letter of the name
            # CUDA graphs stay off where the GPU is a borrowed one: they are bound to a process that
            # may be gone after the race.
            engine = "auto" if self._borrowed is None else "transformers"
            target = HubTarget.load(self._folder, engine=engine, **self._options)
            took = time.monotonic() - began
            self._say(f"{target.name} is on {target.device} ({took:.0f} s)")
            for key in self.keys:
                self._doing = f"loading {words.title_of(key)}"
                try:
                    self._drafters[key] = self._load_drafter(key, target)
                except (FastLLMError, ImportError) as error:  # the other lanes are raced
                    self._refused[key] = str(error)
            for key, reason in self.missing.items():
                self._say(words.not_offered(key, reason))
            self._target = target
        except FastLLMError as error:
            self._fail(str(error))
        except Exception as error:  # no memory, no such device: raised as a dozen unrelated kinds
            self._fail(
                f"{self._name} could not be loaded ({type(error).__name__}: {error}). Take a "
                "smaller target, hold it in 4bit, or name another device."
            )
        finally:
            self._loaded.set()

    def _fail(self, reason: str) -> None:
        self._failure = CheckpointError(reason)
        self._doing = ""
        self._say(f"no race can be run: {reason}")

    def _load_drafter(self, key: str, target: Target) -> Drafter | None:
        if key == words.ALONE:
            return None
        drafter = checkpoints.load_drafter(self._sources[key], device=target.device)
        require_same_vocabulary(target, drafter)
        return drafter

    @property
    def _folder(self) -> str | Path:
        return checkpoints.SHIPPED / self._name if self._name == checkpoints.TARGET else self._name

    def _misfits(self) -> dict[str, str]:
        """The drafters that cannot be raced, and why; no weights are read.

        Where the target has no readable vocabulary nothing is known: loading it will say so.
        """
        try:
            wanted = Vocabulary.load(self._folder).fingerprint
        except CheckpointError:
            return {}
        found = {}
        for key, source in self._sources.items():
            if source in untrained() or (not Path(source).exists() and source.count("/") == 1):
                continue  # fits any, or is the Hub's and is checked when it is loaded
            ships = source in checkpoints.shipped_drafters()
            try:
                config = checkpoints.read_config(checkpoints.SHIPPED / source if ships else source)
            except CheckpointError as error:
                found[key] = str(error)
                continue
            own = config.get("vocabulary") or (config.get("fastllm") or {}).get("vocabulary")
            if own not in (None, wanted):
                found[key] = words.OTHER_TARGET if ships else OTHER_VOCABULARY
        return found


class _Stopped(Exception):
    """Work was stopped where it does not look at `stop` itself."""


@contextmanager
def _between_layers(target: Target | None, stop: threading.Event) -> Iterator[None]:
    """Has the target look at `stop` before each layer of its encoder.

    Elsewhere work looks at it between two calls; but before the first words there is one call that
    takes seconds, where a large target reads a long article on a processor.

    Raises:
        _Stopped: out of the encoder.
    """

    def look(*_: Any) -> None:
        if stop.is_set():
            raise _Stopped

    encoder = target.model.get_encoder() if isinstance(target, HubTarget) else torch.nn.Module()
    stacks = [part for part in encoder.children() if isinstance(part, torch.nn.ModuleList)]
    hooks = [layer.register_forward_pre_hook(look) for layers in stacks for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _borrow_gpu(do: Callable[[Work], Iterator[str]]) -> Callable[..., Any] | None:
    """`do` on a GPU lent for as long as the work may take (Hugging Face ZeroGPU); None elsewhere.

    It runs in a forked worker, which is given the work and gives back text, both pickled.
    """
    if not os.environ.get("SPACES_ZERO_GPU"):
        return None
    gpu = import_module("spaces").GPU
    borrowed: Callable[..., Any] = gpu(duration=lambda work: work.seconds + SPARE_SECONDS)(do)
    return borrowed
