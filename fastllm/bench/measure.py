"""One run of all lanes: articles, lanes and draft lengths interleaved, each on its own clock.

Every article is encoded by our target once (the median of three), and by each lane of transformers
itself. What belongs to the encoding, the article's keys and values for the decoder included, is
kept apart from decoding in every lane alike. Nothing here keeps a text: numbers alone.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import torch

from fastllm.bench.baselines import ASSISTED, GENERATE, LOOKUP, generate
from fastllm.bench.peer import FP32, INT8, Peer
from fastllm.decoding import autoregress, speculate
from fastllm.decoding.proposals import Draft
from fastllm.decoding.race import hardware, require_same_vocabulary, versions
from fastllm.drafters import Drafter, DrafterSession
from fastllm.drafters.cost import Cost, CostMeter
from fastllm.errors import DataError
from fastllm.evaluation.measure import (
    ALONE,
    Say,
    agreement,
    distributions_along,
    fingerprint,
    first_difference,
    measured_rows,
    seeded,
    settings_of,
)
from fastllm.targets import Encoding, TargetSession, resolve
from fastllm.targets.hub import HubTarget
from fastllm.targets.t5_decoder import bucket
from fastllm.trace import DecodingConfig
from fastllm.words import first_line

BASELINES = (GENERATE, ASSISTED, LOOKUP)
"""The lanes of transformers."""

PEERS = (FP32, INT8)
"""The lanes of CTranslate2."""

OTHERS = (*BASELINES, *PEERS)
"""The lanes that are not ours."""


class Lane(NamedTuple):
    """Who writes, and with what draft length; None where nothing is drafted."""

    name: str
    gamma: int | None


@dataclass(frozen=True)
class Run:
    """One lane on one article. Seconds are those of its own clock.

    Attributes:
        calls: of the target's decoder.
        tokens: of the text, the end token included.
        fingerprint: of the token ids; equal where two runs wrote the same.
        decode_seconds: of the rounds.
        encode_seconds: of both encoders, the article's keys and values included.
        drafted: tokens; what was drafted behind an end token does not count.
        judged: drafted tokens that the target came to judge.
        accepted: drafted tokens that stand.
        drafter_seconds, target_seconds: inside the calls of each.
        target_calls: (tokens in it, seconds) of each call of the target.
        peak_bytes: the most device memory that was in use; None on a CPU.

    Of the lanes of OTHERS nothing is known from `drafted` to `target_calls`.
    """

    calls: int
    tokens: int
    fingerprint: str
    decode_seconds: float
    encode_seconds: float
    drafted: int = 0
    judged: int = 0
    accepted: int = 0
    drafter_seconds: float = 0.0
    target_seconds: float = 0.0
    target_calls: tuple[tuple[int, float], ...] = ()
    peak_bytes: int | None = None


@dataclass
class ArticleRuns:
    """All lanes on one article at one temperature.

    Attributes:
        source_tokens: how many the encoder read.
        runs: lane -> its run; a lane that failed is missing.
        alphas: drafter -> the chance that a drafted token is accepted, on the target's own text.
        differing: lane -> the first token at which a greedy text is not that of transformers'
            `generate` (of plain decoding, where there is no such lane).
    """

    id: str
    source_tokens: int
    runs: dict[Lane, Run] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)
    differing: dict[Lane, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "id": self.id,
            "source_tokens": self.source_tokens,
            "alphas": self.alphas,
            "runs": [
                {
                    "lane": lane.name,
                    "gamma": lane.gamma,
                    "differs_at": self.differing.get(lane),
                    **{key: value for key, value in vars(run).items() if key != "target_calls"},
                }
                for lane, run in self.runs.items()
            ],
        }


@dataclass(frozen=True)
class Bench:
    """Everything that one run measured.

    Attributes:
        engine: what ran the target's decoder.
        config: the settings, resolved; its gamma and temperature stand for nothing.
        gammas: ascending.
        lanes: all that were asked for, in the order of tables.
        errors: lane of OTHERS -> why there are no numbers of it.
        asked: how many articles were to be measured.
        alpha: the chance with which drafts were accepted at random; None where they were judged.
        rows: temperature -> one entry an article.
        costs: drafter -> what it costs by itself, with the longest of the drafts.
    """

    target: str
    engine: str
    dtype: str
    config: DecodingConfig
    gammas: tuple[int, ...]
    lanes: tuple[Lane, ...]
    errors: dict[Lane, str]
    hardware: str
    versions: dict[str, str]
    asked: int
    alpha: float | None
    rows: dict[float, tuple[ArticleRuns, ...]]
    costs: dict[str, Cost] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Every greedy text of ours was the one it had to be."""
        return not any(
            lane.name not in OTHERS for row in self.rows.get(0.0, ()) for lane in row.differing
        )


def measure(
    target: HubTarget,
    drafters: Mapping[str, Drafter],
    sources: Sequence[tuple[str, list[int]]],
    config: DecodingConfig,
    *,
    gammas: Sequence[int],
    temperatures: Sequence[float],
    baselines: Sequence[str] = (),
    assistant: Any = None,
    alpha: float | None = None,
    say: Say = lambda line: None,
) -> Bench:
    """Runs every lane on every article, at every draft length and temperature.

    The order of the lanes is shuffled for each article, with a fixed seed. Each lane runs once off
    the clock before. Behind the lanes of an article, on none of their clocks, it is measured what
    each drafter costs by itself. Interrupted (Ctrl-C), it gives the articles that are complete.

    - `drafters`: one lane each, by name.
    - `sources`: (name, encoded article); at least one.
    - `config`: the settings. When sampling, article i is run with the seed `config.seed` + i.
    - `baselines`: names of OTHERS to run as well. One that fails is reported, the rest goes on.
    - `assistant`: the model of transformers that drafts in the lane ASSISTED.
    - `alpha`: instead of judging drafts, accept each with this chance, up to the first that is
      refused; all texts then have `max_new_tokens` tokens. What is drafted and scored is
      drafted and scored all the same.
    - `say`: receives a progress line now and then.

    Raises:
        DataError: there are no articles.
        KeyboardInterrupt: interrupted before the first article was complete.
        SettingsError: a draft length or a temperature out of range.
        VocabularyError: a drafter was made for another vocabulary.
    """
    if not sources:
        raise DataError("no articles to measure on: give at least one.")
    config = resolve(config, target)
    for drafter in drafters.values():
        require_same_vocabulary(target, drafter)
    every_gamma, settings = settings_of(config, gammas, temperatures)
    if not gammas:
        every_gamma = ()
    track = _Track(target, drafters, assistant, alpha)
    if every_gamma:
        track.meter(config, every_gamma[-1])
    lanes = tuple(
        Lane(name, gamma)
        for name in (*baselines, ALONE, *drafters)
        for gamma in ((None,) if name in (GENERATE, ALONE, *PEERS) else every_gamma)
    )
    say(f"warm-up: {len(lanes)} lanes, off the clock")
    track.warm_up(lanes, sources, settings)
    gc.collect()
    gc.freeze()  # what is there stays: the collector need not look through it while clocks run
    try:
        rows = measured_rows(
            sources,
            settings,
            lambda index, source: track.article(lanes, source, seeded(settings, index), index),
            say,
        )
    finally:
        gc.unfreeze()
    return Bench(
        target=target.name,
        engine=target.engine,
        dtype=str(target.model.dtype).removeprefix("torch."),
        config=config,
        gammas=every_gamma,
        lanes=lanes,
        errors=track.errors,
        hardware=hardware(target.device),
        versions=dict(versions()),
        asked=len(sources),
        alpha=alpha,
        rows=rows,
        costs={name: meter.cost() for name, meter in track.meters.items()},
    )


class _Track:
    """Where lanes run: the models, and what went wrong so far."""

    def __init__(
        self,
        target: HubTarget,
        drafters: Mapping[str, Drafter],
        assistant: Any,
        alpha: float | None,
    ) -> None:
        self._target, self._drafters = target, drafters
        self._assistant, self._alpha = assistant, alpha
        self.errors: dict[Lane, str] = {}
        self.meters: dict[str, CostMeter] = {}
        self._peers: dict[str, Peer] = {}

    def meter(self, config: DecodingConfig, gamma: int) -> None:
        """Asks for the cost of each drafter by itself: greedy, under the rules of `config`."""
        rules = DecodingConfig(
            gamma=gamma,
            no_repeat_ngram=config.no_repeat_ngram,
            min_new_tokens=config.min_new_tokens,
        )
        self.meters = {
            name: CostMeter(drafter, rules, start_id=self._target.start_id)
            for name, drafter in self._drafters.items()
        }

    def warm_up(
        self,
        lanes: Sequence[Lane],
        sources: Sequence[tuple[str, list[int]]],
        settings: Sequence[DecodingConfig],
    ) -> None:
        """Runs each lane once a temperature, on a CPU with the longest drafts only.

        On CUDA with all drafts, on one article for each of the sizes that graphs are captured for:
        what is done for the first time costs many times what it costs later.
        """
        longest = max((lane.gamma or 0 for lane in lanes), default=0)
        chosen = [sources[0][1]]
        if self._target.device.type == "cuda":
            chosen = list({bucket(len(ids)): ids for _, ids in sources}.values())
        else:
            lanes = [lane for lane in lanes if lane.gamma in (None, longest)]
        for ids in chosen:
            encoding = self._encode(ids)
            for setting in settings:
                for lane in lanes:
                    self._run(lane, ids, encoding, setting)
            for meter in self.meters.values():
                meter.warm_up(encoding)

    def article(
        self,
        lanes: Sequence[Lane],
        source: tuple[str, list[int]],
        settings: Sequence[DecodingConfig],
        turn: int,
    ) -> list[ArticleRuns]:
        """Runs every lane and every drafter on one article; one entry for each of `settings`."""
        name, ids = source
        encoding = self._encode(ids)
        found: list[ArticleRuns] = []
        written: list[tuple[int, ...]] = []
        for place, setting in enumerate(settings):
            order = list(lanes)
            random.Random(turn * len(settings) + place).shuffle(order)
            done = {lane: self._run(lane, ids, encoding, setting) for lane in order}
            ended = {lane: run for lane in lanes if (run := done[lane]) is not None}
            texts = {lane: text for lane, (_, text) in ended.items()}
            entry = ArticleRuns(name, len(ids), {lane: run for lane, (run, _) in ended.items()})
            if self._alpha is None:
                self._compare(entry, texts, encoding, setting)
            found.append(entry)
            written.append(texts[Lane(ALONE, None)])
        meters = list(self.meters.values())
        random.Random(turn).shuffle(meters)
        for meter in meters:
            meter.measure(encoding, written[0])
        return found

    def _encode(self, ids: list[int]) -> Encoding:
        encodings = [self._target.encode(ids) for _ in range(3)]
        seconds = statistics.median(encoding.seconds for encoding in encodings)
        return replace(encodings[-1], seconds=seconds)

    def _run(
        self, lane: Lane, ids: list[int], encoding: Encoding, setting: DecodingConfig
    ) -> tuple[Run, tuple[int, ...]] | None:
        """A run and its text; None where a lane of OTHERS fails, now or before."""
        if lane in self.errors:
            return None
        if lane.gamma is not None:
            setting = replace(setting, gamma=lane.gamma)
        device = self._target.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        if lane.name in OTHERS:
            try:
                run, text = self._other(lane, ids, setting)
            except Exception as error:  # of any kind: it is not our code, and other lanes go on
                self.errors[lane] = f"{type(error).__name__}: {first_line(error)}"
                return None
        else:
            run, text = self._ours(lane, encoding, setting)
        if device.type == "cuda":
            run = replace(run, peak_bytes=torch.cuda.max_memory_allocated(device))
        return run, text

    def _other(
        self, lane: Lane, ids: list[int], setting: DecodingConfig
    ) -> tuple[Run, tuple[int, ...]]:
        fixed = self._alpha is not None
        if lane.name in PEERS:
            if lane.name not in self._peers:
                self._peers[lane.name] = Peer(self._target, lane.name)
            done = self._peers[lane.name].write(ids, setting, fixed_length=fixed)
        else:
            helper = self._assistant if lane.name == ASSISTED else None
            done = generate(self._target, ids, setting, lane.name, helper, fixed_length=fixed)
        run = Run(
            calls=done.calls,
            tokens=len(done.tokens),
            fingerprint=fingerprint(done.tokens),
            decode_seconds=done.seconds - done.encoding_seconds,
            encode_seconds=done.encoding_seconds,
        )
        return run, done.tokens

    def _ours(
        self, lane: Lane, encoding: Encoding, setting: DecodingConfig
    ) -> tuple[Run, tuple[int, ...]]:
        target = self._target
        started = time.perf_counter()
        watched = _WatchedTarget(target.begin(encoding), target.device)
        session: TargetSession = watched
        if self._alpha is not None:
            session = _Simulated(watched, self._alpha, setting.seed, target.device)
        # A simulated text never ends: no token does it.
        ends = target.end_ids if self._alpha is None else ()
        more: Any = {"start_id": target.start_id, "end_id": ends, "statistics": False}
        drafting = None
        if lane.name == ALONE:
            rounds = autoregress(session, setting, **more)
        else:
            drafting = _WatchedDrafter(self._drafters[lane.name].begin(encoding))
            rounds = speculate(session, drafting, setting, **more)
        prepared = time.perf_counter() - started
        done = list(rounds)
        calls = watched.calls()
        text = tuple(token for entry in done for token in entry.tokens)
        run = Run(
            calls=len(done),
            tokens=len(text),
            fingerprint=fingerprint(text),
            decode_seconds=sum(entry.total_seconds for entry in done),
            encode_seconds=encoding.seconds + prepared,
            drafted=sum(len(entry.drafted) for entry in done),
            judged=sum(min(len(entry.drafted), entry.accepted + 1) for entry in done),
            accepted=sum(entry.accepted for entry in done),
            drafter_seconds=0.0 if drafting is None else drafting.seconds,
            target_seconds=sum(seconds for _, seconds in calls),
            target_calls=tuple(calls),
        )
        return run, text

    def _compare(
        self,
        entry: ArticleRuns,
        texts: Mapping[Lane, tuple[int, ...]],
        encoding: Encoding,
        setting: DecodingConfig,
    ) -> None:
        """What is computed from the texts, on nobody's clock."""
        alone = texts[Lane(ALONE, None)]
        if setting.temperature == 0:
            wanted = texts.get(Lane(GENERATE, None), alone)
            entry.differing = {
                lane: first_difference(text, wanted)
                for lane, text in texts.items()
                if text != wanted
            }
        text, p = distributions_along(self._target, encoding, alone, setting)
        entry.alphas = {
            name: agreement(drafter, encoding, text, p, setting).alpha
            for name, drafter in self._drafters.items()
        }


Stamp = Any
"""A moment: seconds, or an event on a CUDA device."""


class _Passing:
    """A session of the target that passes on what it does not do itself."""

    def __init__(self, session: TargetSession) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    @property
    def trees(self) -> bool:
        return self._session.trees

    @property
    def length(self) -> int:
        return self._session.length

    def keep(self, length: int, path: Sequence[int] = ()) -> None:
        self._session.keep(length, path)


class _WatchedTarget(_Passing):
    """A session of the target whose calls are timed.

    On CUDA a call returns before the device is done, so events are put before and behind it; the
    device is idle at the first, since what was drafted had to be read.
    """

    def __init__(self, session: TargetSession, device: torch.device) -> None:
        super().__init__(session)
        self._stamp: Callable[[], Stamp] = time.perf_counter
        if device.type == "cuda":
            self._stamp = lambda: _recorded(device)
        self._calls: list[tuple[int, Stamp, Stamp]] = []

    def forward(self, ids: list[int], parents: Sequence[int] | None = None) -> torch.Tensor:
        started = self._stamp()
        logits = self._session.forward(ids, parents)
        self._calls.append((len(ids), started, self._stamp()))
        return logits

    def calls(self) -> list[tuple[int, float]]:
        """(tokens, seconds) of each call; waits until the device is done."""
        return [(count, _between(start, end)) for count, start, end in self._calls]


class _WatchedDrafter:
    """A session of a drafter whose calls are timed; they end when their tokens are read."""

    def __init__(self, session: DrafterSession) -> None:
        self._session = session
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        started = time.perf_counter()
        draft = self._session.draft(prefix, k, config, uniforms)
        self.seconds += time.perf_counter() - started
        return draft

    def accept(self, tokens: Sequence[int]) -> None:
        started = time.perf_counter()
        self._session.accept(tokens)
        self.seconds += time.perf_counter() - started


class _Simulated(_Passing):
    """A session whose logits agree with each drafted token by chance.

    The target really computes them; then one token of each row is made certain: the drafted one
    with chance `alpha`, else its neighbour. So the loop, the verdict and the cache run as ever.
    The little that this takes counts as spent outside the target's call.
    """

    trees = False  # what is a draft in a call it takes for a chain

    def __init__(
        self, session: TargetSession, alpha: float, seed: int, device: torch.device
    ) -> None:
        super().__init__(session)
        self._device = device
        self._alpha = alpha
        self._chances = random.Random(seed)

    @torch.inference_mode()
    def forward(self, ids: list[int], parents: Sequence[int] | None = None) -> torch.Tensor:
        sure = [
            token if self._chances.random() < self._alpha else token - 1 if token else 1
            for token in (*ids[1:], 0)
        ]
        chosen = torch.tensor(sure, device=self._device)[:, None]
        logits = self._session.forward(ids, parents)
        logits.scatter_(1, chosen, 1e4)
        return logits


def _recorded(device: torch.device) -> Any:
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _between(start: Stamp, end: Stamp) -> float:
    if isinstance(start, float):
        return cast(float, end) - start
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000
