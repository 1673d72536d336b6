"""Jobs on the device: a race, and whatever else a part of the page brings.

A job is plain data. It is checked where it was asked for, and runs where the models are: in this
process, or in a forked one that has borrowed a GPU, to which it is sent pickled.
"""

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fastllm.decoding.race import Race, hardware
from fastllm.demo import rows
from fastllm.demo.folds.race import words as race_words
from fastllm.drafters import Drafter
from fastllm.targets import Target
from fastllm.trace import DecodingConfig, Trace
from fastllm.vocabulary import Detokenizer

WARM_UP_TOKENS = 8
"""How many tokens each lane writes before it is timed."""


class Models(Protocol):
    """The models of a page, loaded.

    Raises:
        CheckpointError: of either, it could not be loaded.
    """

    @property
    def target(self) -> Target:
        """The target."""

    def drafter(self, key: str) -> Drafter | None:
        """The drafter of a lane; None of the target alone."""


class Work(Protocol):
    """One job: a visitor's turn on the device."""

    @property
    def seconds(self) -> int:
        """After these it ends where it is."""

    def check(self, models: Models) -> None:
        """Refuses what cannot be done with these models, before a device is asked for.

        Raises:
            FastLLMError: says what is wrong with it.
        """

    def lines(self, models: Models, stop: threading.Event) -> Iterator[str]:
        """Does it, nobody else using the models; ends as soon as it can once `stop` is set.

        Gives rows as lines, the first of which differs from that of any other work.
        """


@dataclass(frozen=True)
class RaceJob:
    """A race that was checked."""

    article: str
    lanes: tuple[str, ...]  # their keys
    config: DecodingConfig
    notices: tuple[str, ...] = ()  # what the visitor should know about the article
    title: str = ""  # of a sample; empty otherwise
    seconds: int = 30  # after these the race ends where it is

    def check(self, models: Models) -> None:
        """Refuses lanes whose drafter could not be loaded."""
        self.race(models)

    def race(self, models: Models, stop: threading.Event | None = None) -> Race:
        """A race that has not begun."""
        return Race(
            models.target,
            [models.drafter(key) for key in self.lanes],
            self.article,
            self.config,
            stop=stop,
            deadline_seconds=self.seconds,
        )

    def lines(self, models: Models, stop: threading.Event) -> Iterator[str]:
        """The rows of the race."""
        yield from self.rows(self.race(models, stop))

    def rows(self, race: Race) -> Iterator[str]:
        """Runs a race of these lanes that has not begun; gives its rows as lines."""
        target = race.target
        settings = Trace(
            source=race.article,
            config=race.config,
            target=target.name,
            drafter="",
            vocabulary="",
            cut_at=race.cut_at,
            hardware=hardware(target.device),
        )
        start = rows.start_row(
            uuid.uuid4().hex, "live", self.lanes, settings, article=self.title, notices=self.notices
        )
        yield rows.line(start)
        vocabulary = target.vocabulary
        writers = [
            rows.RoundWriter(lane, Detokenizer(vocabulary).push, vocabulary.names, target.end_ids)
            for lane in range(len(self.lanes))
        ]
        for step in race:
            yield rows.line(writers[step.lane].row(step.round, step.clock))
        traces = race.traces()
        met = any(trace.ended == "deadline" for trace in traces)
        notices = [race_words.ENDED_EARLY.format(self.seconds)] if met else []
        yield rows.line(rows.end_row(self.lanes, traces, notices))


def warmed_up(
    target: Target,
    drafters: Sequence[Drafter | None],
    article: str,
    config: DecodingConfig,
    *,
    seconds: float,
    stop: threading.Event,
    statistics: bool = True,
) -> Race:
    """A race that has not begun, of lanes that have each written a few tokens off their clocks.

    The first calls are slow: after another visitor's turn, with a drafter not used yet, and in a
    process that has just borrowed a GPU. The arguments are those of `Race`, but that these few
    tokens count into its deadline and end with the round in progress too once `stop` is set.

    Raises:
        FastLLMError: as of `Race`.
    """
    began = time.monotonic()

    def race(settings: DecodingConfig) -> Race:
        left = max(0.0, began + seconds - time.monotonic())
        return Race(
            target,
            drafters,
            article,
            settings,
            statistics=statistics,
            stop=stop,
            deadline_seconds=left,
        )

    for _ in race(replace(config, max_new_tokens=min(WARM_UP_TOKENS, config.max_new_tokens))):
        pass
    return race(config)
