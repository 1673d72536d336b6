"""Several decodings of one article on one device, each on its own clock.

Lanes share a device, so they take turns; a lane's clock counts only its own encoding, drafting and
verifying. The lane whose clock is furthest behind always moves next, so that what is seen live is
the race.
"""

import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fastllm.decoding import autoregress, speculate
from fastllm.drafters import Drafter
from fastllm.errors import DataError, SettingsError, VocabularyError
from fastllm.targets import Encoding, Target, resolve
from fastllm.trace import DecodingConfig, Ending, Round, Trace


@dataclass(frozen=True)
class RaceStep:
    """A lane moved: `round` is what it did, `clock` its seconds behind that round."""

    lane: int
    round: Round
    clock: float


@dataclass
class _Lane:
    drafter: Drafter | None
    rounds: Iterator[Round]
    drafter_encode_seconds: float
    clock: float
    done: list[Round] = field(default_factory=list)
    ended: Ending | None = None


class Race:
    """Decodes one article in several lanes. Iterate it once; then read `traces()`.

    Args:
        target: the model whose text all lanes write.
        drafters: one lane each; None is the target alone.
        article: the text, cut to what the target reads.
        config: the settings, the same in all lanes; what it leaves to the target is looked up there
            (`resolve`), as is the rule of verification that it comes to.
        statistics: collect what is only shown (off the clocks).
        stop: when set, the race ends behind the round in progress.
        deadline_seconds: wall-clock seconds after which it ends likewise; None for no limit.

    Raises:
        DataError: the article is empty, or holds half of a surrogate pair.
        SettingsError: there is no lane, or the target's own rules are out of range.
        VocabularyError: a drafter was made for another vocabulary.

    Example:
        race = Race(target, [None, lookup], article, DecodingConfig())
        for step in race:
            print(step.lane, step.round.tokens)
        alone, with_lookup = race.traces()
    """

    def __init__(
        self,
        target: Target,
        drafters: Sequence[Drafter | None],
        article: str,
        config: DecodingConfig,
        *,
        statistics: bool = True,
        stop: threading.Event | None = None,
        deadline_seconds: float | None = None,
    ) -> None:
        if not drafters:
            raise SettingsError("a race needs at least one lane: give a drafter, or None.")
        if not article.strip():
            raise DataError("the article is empty: give some text to summarise.")
        for drafter in drafters:
            require_same_vocabulary(target, drafter)
        self.target = target
        self.article = article
        resolved = resolve(config, target)
        self.config = replace(resolved, verification=resolved.verified_by)
        self._drafters = list(drafters)
        self._statistics = statistics
        self._stop = stop or threading.Event()
        self._deadline = deadline_seconds
        self._lanes: list[_Lane] = []
        encoded = target.vocabulary.encode(article, target.source_length, target.prefix)
        self.source_ids = encoded.ids
        self.cut_at = encoded.cut_at
        self.encode_seconds = 0.0

    def __iter__(self) -> Iterator[RaceStep]:
        began = time.monotonic()
        if self.target.device.type == "cuda":
            self._warm_up()
        with as_loaded():
            encoding = self.target.encode(self.source_ids)
            self._require_forced(encoding.size)
            self.encode_seconds = encoding.seconds
            for drafter in self._drafters:
                rounds, prepared = self._begin(drafter, encoding, self._statistics)
                self._lanes.append(_Lane(drafter, rounds, prepared, encoding.seconds + prepared))
        while running := [lane for lane in self._lanes if lane.ended is None]:
            late = self._deadline is not None and time.monotonic() - began > self._deadline
            if late or self._stop.is_set():
                for lane in running:
                    lane.ended = "stopped" if self._stop.is_set() else "deadline"
                return
            lane = min(running, key=lambda lane: lane.clock)
            with as_loaded():
                entry = next(lane.rounds, None)
            if entry is None:
                last = lane.done[-1].tokens[-1]
                lane.ended = "end_of_text" if last in self.target.end_ids else "length"
                continue
            lane.done.append(entry)
            lane.clock += entry.total_seconds
            yield RaceStep(self._lanes.index(lane), entry, lane.clock)

    def _require_forced(self, size: int | None) -> None:
        for name in ("forced_first", "forced_last"):
            token = getattr(self.config, name)
            if size is not None and token >= size:
                raise SettingsError(
                    f"{name}={token}: the target has the tokens 0 to {size - 1}. Give one of them, "
                    "or -1 for none."
                )

    def _begin(
        self, drafter: Drafter | None, encoding: Encoding, statistics: bool
    ) -> tuple[Iterator[Round], float]:
        """The rounds of a lane, and the seconds that its drafter took to prepare."""
        session = self.target.begin(encoding)
        options: Any = {"start_id": self.target.start_id, "end_id": self.target.end_ids}
        options["statistics"] = statistics
        if drafter is None:
            return autoregress(session, self.config, **options), 0.0
        started = time.perf_counter()
        drafting = drafter.begin(encoding)
        prepared = time.perf_counter() - started
        return speculate(session, drafting, self.config, **options), prepared

    def _warm_up(self) -> None:
        """Encodes the article and makes a round in each lane, on nobody's clock.

        On CUDA whatever is done for the first time with an article of about this length costs many
        times what it costs later: kernels are loaded, calls are captured as graphs.
        """
        with as_loaded():
            encoding = self.target.encode(self.source_ids)
            for drafter in self._drafters:
                next(self._begin(drafter, encoding, False)[0])

    def traces(self) -> list[Trace]:
        """The record of each lane so far, in the order of the drafters."""
        return [self._trace(lane) for lane in self._lanes]

    def _trace(self, lane: _Lane) -> Trace:
        vocabulary, unsupported = self.target.vocabulary, self.target.unsupported
        left_out = {"settings not applied": ", ".join(unsupported)} if unsupported else {}
        ids = [token for entry in lane.done for token in entry.tokens]
        mentioned = set(ids)
        for entry in lane.done:
            mentioned.update(entry.drafted, (token for token, _ in entry.extra_best))
            for test in entry.judged:
                mentioned.update(token for token, _ in test.target_best + test.drafter_best)
            for branch in entry.branches:
                mentioned.update(branch.tokens)
        return Trace(
            source=self.article,
            prefix=self.target.prefix,
            cut_at=self.cut_at,
            config=self.config,
            target=self.target.name,
            drafter="" if lane.drafter is None else lane.drafter.name,
            vocabulary=vocabulary.fingerprint,
            hardware=hardware(self.target.device),
            versions=versions() | {"engine": self.target.engine} | left_out,
            target_encode_seconds=self.encode_seconds,
            drafter_encode_seconds=lane.drafter_encode_seconds,
            rounds=tuple(lane.done),
            ended=lane.ended or "stopped",
            text=vocabulary.decode(ids),
            pieces=tuple(vocabulary.pieces(ids)),
            names=vocabulary.names(mentioned),
        )


@contextmanager
def as_loaded() -> Iterator[None]:
    """Models compute in the type that they were loaded in, whatever a caller's autocast says.

    What was laid out for one type cannot be multiplied in another.
    """
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def require_same_vocabulary(target: Target, drafter: Drafter | None) -> None:
    """Refuses a drafter whose token ids mean other pieces than the target's.

    Raises:
        VocabularyError: names both fingerprints and the remedy.
    """
    own = "" if drafter is None else drafter.vocabulary
    if drafter is not None and own and own != target.vocabulary.fingerprint:
        raise VocabularyError(
            f"the drafter {drafter.name} was made for vocabulary {own}, the target "
            f"{target.name} has {target.vocabulary.fingerprint}. Distil a drafter for this target, "
            "or take the article lookup, which fits any."
        )


def hardware(device: torch.device) -> str:
    """What a run is measured on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU (MPS)"
    count = torch.get_num_threads()
    return f"{count} CPU core{'s' if count > 1 else ''} ({_processor()})"


@cache
def versions() -> dict[str, str]:
    """The versions that a measurement depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
    }


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine() or os.name
