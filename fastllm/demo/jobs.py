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
    """The models of a page, loaded."""

    @property
    def target(self) -> Target:
        """The target.

        Raises:
            CheckpointError: it could not be loaded.
        """

    def drafter(self, key: str) -> Drafter | None:
        """The drafter of a lane; None of the target alone.

        Raises:
            CheckpointError: it could not be loaded.
        """


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
        """Does it; gives rows as lines, the first of which differs from that of any other work.

        Args:
            models: the models, nobody else using them.
            stop: when set, it is to end as soon as it can.
        """


@dataclass(frozen=True)
class RaceJob:
    """A race that was checked.

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

    def check(self, models: Models) -> None:
        """Refuses lanes whose drafter could not be loaded."""
        self.race(models)

    def race(self, models: Models, stop: threading.Event | None = None) -> Race:
        """A race that has not begun."""
        drafters = [models.drafter(key) for key in self.lanes]
        return Race(
            models.target,
            drafters,
            self.article,
            self.config,
            stop=stop,
            deadline_seconds=self.seconds,
        )

    def lines(self, models: Models, stop: threading.Event) -> Iterator[str]:
        """The rows of the race."""
        race = self.race(models, stop)
        return race_lines(race, self.lanes, self.seconds, notices=self.notices, title=self.title)


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
    process that has just borrowed a GPU.

    Args:
        target: the model whose text all lanes write.
        drafters: one per lane; None is the target alone.
        article: the text.
        config: the settings of the race.
        seconds: after these the race ends where it is, the few tokens before it included.
        stop: when set, either ends with the round in progress.
        statistics: collect what is only shown.

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


def race_lines(
    race: Race,
    lanes: tuple[str, ...],
    seconds: int,
    *,
    notices: tuple[str, ...] = (),
    title: str = "",
) -> Iterator[str]:
    """Runs a race; gives its rows as lines.

    Args:
        race: not yet begun.
        lanes: the keys of its lanes.
        seconds: its deadline, to be named if it is met.
        notices: what the visitor should know about the article.
        title: of the article, where it is a sample.
    """
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
    yield rows.line(
        rows.start_row(uuid.uuid4().hex, "live", lanes, settings, article=title, notices=notices)
    )
    vocabulary = target.vocabulary
    writers = [
        rows.RoundWriter(lane, Detokenizer(vocabulary).push, vocabulary.names, target.end_ids)
        for lane in range(len(lanes))
    ]
    for step in race:
        yield rows.line(writers[step.lane].row(step.round, step.clock))
    traces = race.traces()
    met = any(trace.ended == "deadline" for trace in traces)
    end_notices = [race_words.ENDED_EARLY.format(seconds)] if met else []
    yield rows.line(rows.end_row(lanes, traces, end_notices))
