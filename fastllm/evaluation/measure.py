"""A test set to numbers: target calls, alpha, seconds, for each drafter, draft length, temperature.

Every article is encoded once; the target writes its text once a temperature, each drafter is asked
at every place of that text once (alpha does not depend on the draft length), and then decodes once
a draft length. Nothing here keeps an article or a summary: numbers alone. `report` makes
tables of them.
"""

import hashlib
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from fastllm import metrics
from fastllm.data.articles import ON_THE_HUB, Article, read_articles, read_split, split_sentences
from fastllm.decoding.distributions import distribution, forbid
from fastllm.decoding.race import Race, hardware, versions
from fastllm.decoding.rules import Rules
from fastllm.drafters import Drafter
from fastllm.errors import DataError, SettingsError
from fastllm.targets import Encoding, Target, resolve
from fastllm.targets.hub import ONE_TEXT, HubTarget, notice
from fastllm.trace import DecodingConfig, Trace
from fastllm.words import duration

ALONE = "alone"
"""The name of the lane without a drafter."""

ROUGE = ("rouge1", "rouge2", "rougeL")

Say = Callable[[str], None]

Asked = TypeVar("Asked")
"""What is measured: an article, or an encoded one."""

Row = TypeVar("Row")
"""What is measured of it at one temperature."""

MOST_BITS = 20.0
"""What a token costs at most: a drafter that leaves words out gives some none of its mass."""

QUIET_SECONDS = 5.0
"""Progress is told no more often than this."""


@dataclass(frozen=True)
class Agreement:
    """A drafter asked at every place of the target's own text.

    Attributes:
        alpha: mean over the places of sum_x min(p(x), q(x)): the chance that one drafted token is
            accepted. A place where nothing is drafted counts as 0.
        drafted_share: the share of places where something was drafted.
        agrees: at each place, whether the drafter's token was the target's.
        bits: mean over the places of -log2 q(token), q at temperature 1 without filters, at most
            MOST_BITS at a place; None where the drafter has no such q.
    """

    alpha: float
    drafted_share: float
    agrees: tuple[bool, ...]
    bits: float | None = None


@dataclass(frozen=True)
class LaneNumbers:
    """One lane on one article. `positions` holds (judged, accepted) of draft positions 1, 2, ..."""

    calls: int
    tokens: int
    drafted: int
    accepted: int
    positions: tuple[tuple[int, int], ...]
    decode_seconds: float
    seconds: float
    draft_seconds: float
    verify_seconds: float
    same_text: bool


@dataclass(frozen=True)
class TextNumbers:
    """What the target wrote alone.

    Attributes:
        tokens: how many, the end token included.
        fingerprint: of the token ids; equal where two runs wrote the same.
        loops: whether a 4-gram of words stands in it twice.
        repeated_share: of its 4-grams, those that stood in it before.
        copied_share: of its 4-grams, those that stand in the article.
        rouge: F1 of it and of trivial summaries; empty where the data set has no summary.
        bits: mean over its tokens of -log2 p(token), p at temperature 1 without filters.
    """

    tokens: int
    fingerprint: str
    ended: str
    loops: bool
    repeated_share: float
    copied_share: float
    rouge: dict[str, dict[str, float]]
    bits: float | None = None


@dataclass(frozen=True)
class ArticleNumbers:
    """One article at one temperature.

    Attributes:
        cut: whether the target read only the beginning of it.
        text: what the target wrote alone, in the lane `alone`.
        agreements: each drafter asked along that text.
        lanes: draft length -> drafter -> its lane.
    """

    id: str
    cut: bool
    text: TextNumbers
    alone: LaneNumbers
    agreements: dict[str, Agreement]
    lanes: dict[int, dict[str, LaneNumbers]]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        tree = asdict(self)
        for name, entry in self.agreements.items():
            tree["agreements"][name]["agrees"] = "".join("01"[right] for right in entry.agrees)
        tree["lanes"] = [{"gamma": gamma, **lanes} for gamma, lanes in tree["lanes"].items()]
        return tree


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one target, its drafters and one set of articles.

    Attributes:
        config: the settings; its gamma and temperature stand for nothing.
        temperatures: those that were measured, ascending.
        gammas: the draft lengths that were measured, ascending.
        drafters: the names of the lanes with a drafter.
        asked: how many articles were to be measured; fewer are there if it was interrupted.
        rows: temperature -> one entry an article, the same articles in the same order.
        notice: what of the target's own generation configuration is not applied, in a sentence.
    """

    target: str
    config: DecodingConfig
    temperatures: tuple[float, ...]
    gammas: tuple[int, ...]
    drafters: tuple[str, ...]
    hardware: str
    versions: dict[str, str]
    asked: int
    rows: dict[float, tuple[ArticleNumbers, ...]]
    notice: str = ""

    @property
    def articles(self) -> int:
        """How many articles were measured, at every temperature."""
        return len(self.rows[self.temperatures[0]])

    @property
    def interrupted(self) -> bool:
        """Whether some articles were left out."""
        return self.articles < self.asked

    @property
    def headline_gamma(self) -> int:
        """The draft length for tables with room for one: the default, or else the middle one."""
        default = self.config.gamma
        return default if default in self.gammas else self.gammas[len(self.gammas) // 2]

    def lanes(self, temperature: float, gamma: int, name: str) -> list[LaneNumbers]:
        """One lane, article by article; the target alone is the same at every gamma."""
        return [
            row.alone if name == ALONE else row.lanes[gamma][name] for row in self.rows[temperature]
        ]

    def differing(self, temperature: float) -> dict[str, int]:
        """Drafter -> in how many runs it wrote another text than the target alone."""
        counts = {
            name: sum(
                not lane.same_text
                for gamma in self.gammas
                for lane in self.lanes(temperature, gamma, name)
            )
            for name in self.drafters
        }
        return {name: count for name, count in counts.items() if count}

    @property
    def same_text(self) -> bool:
        """Every greedy lane wrote the target's own text, token for token, or the rule is lossy."""
        return 0.0 not in self.temperatures or self.config.lossy or not self.differing(0.0)


def choose_articles(path: str | Path, limit: int, seed: int = 0) -> list[Article]:
    """The first `limit` articles after a shuffle with `seed`: the same at every run.

    - `path`: a file of articles; or a folder or a name that `read_split` takes: its test split.

    Raises:
        DataError: the data cannot be used, or hold no article with text.
    """
    whole = Path(path).is_dir() or str(path) in ON_THE_HUB
    found = read_split(path, "test") if whole else read_articles(path)
    articles = [article for article in found if article.text.strip()]
    if not articles:
        raise DataError(f"{path}: no article with text in it; one JSON object a line is needed.")
    random.Random(seed).shuffle(articles)
    return articles[:limit]


def evaluate(
    target: Target,
    drafters: Mapping[str, Drafter],
    articles: Sequence[Article],
    config: DecodingConfig,
    *,
    gammas: Sequence[int] = (),
    temperatures: Sequence[float] = (),
    say: Say = lambda line: None,
) -> Evaluation:
    """Decodes every article with the target alone and with each drafter.

    One lane runs after the other, as it would in use, and every article begins with another lane.
    Interrupted (Ctrl-C), it gives what it has: the articles that are complete.

    - `drafters`: one lane each, by name.
    - `config`: the settings. When sampling, article i is run with the seed `config.seed` + i.
    - `gammas`: draft lengths; that of `config` by default, as with `temperatures`.
    - `say`: receives a progress line now and then.

    Raises:
        DataError: there are no articles.
        KeyboardInterrupt: interrupted before the first article was complete.
        SettingsError: a draft length or a temperature out of range.
        VocabularyError: a drafter was made for another vocabulary.
    """
    if not articles:
        raise DataError("no articles to evaluate on: give at least one.")
    config = resolve(config, target)
    every_gamma, settings = settings_of(config, gammas, temperatures)
    scorer = rouge_scorer()
    # The warm-up is on nobody's clock.
    raced(target, {ALONE: None, **drafters}, articles[0].text, settings[-1])

    def measured(index: int, article: Article) -> list[ArticleNumbers]:
        ids = target.vocabulary.encode(article.text, target.source_length, target.prefix).ids
        encoding = target.encode(ids)
        return [
            _measure(target, drafters, article, encoding, setting, every_gamma, index, scorer)
            for setting in seeded(settings, index)
        ]

    return Evaluation(
        target=target.name,
        config=config,
        temperatures=tuple(setting.temperature for setting in settings),
        gammas=every_gamma,
        drafters=tuple(drafters),
        hardware=hardware(target.device),
        versions=dict(versions()),
        asked=len(articles),
        rows=measured_rows(articles, settings, measured, say),
        notice=notice(target) if target.unsupported else "",
    )


def settings_of(
    config: DecodingConfig, gammas: Sequence[int], temperatures: Sequence[float]
) -> tuple[tuple[int, ...], list[DecodingConfig]]:
    """The draft lengths, and the settings at each temperature; both ascend, without repeats.

    Raises:
        SettingsError: a draft length or a temperature out of range: now, not after an hour.
    """
    lengths = tuple(sorted(set(gammas or [config.gamma])))
    for gamma in lengths:
        replace(config, gamma=gamma)
    warmths = sorted({float(value) for value in temperatures or [config.temperature]})
    return lengths, [replace(config, temperature=value) for value in warmths]


def seeded(settings: Sequence[DecodingConfig], index: int) -> list[DecodingConfig]:
    """The settings with the seeds of article number `index`."""
    return [replace(setting, seed=(setting.seed + index) % 2**31) for setting in settings]


def measured_rows(
    articles: Sequence[Asked],
    settings: Sequence[DecodingConfig],
    measured: Callable[[int, Asked], list[Row]],
    say: Say,
) -> dict[float, tuple[Row, ...]]:
    """Temperature -> what was measured of each article; interrupted, of those that are complete.

    Says now and then how many articles are done, and how long the others will take.

    Args:
        articles: at least one.
        settings: one for each temperature.
        measured: index and article -> a result for each of `settings`.
        say: receives a line.

    Raises:
        KeyboardInterrupt: before the first article was complete.
    """
    rows: list[list[Row]] = []
    total = len(articles)
    began = told = time.monotonic()
    try:
        for index, article in enumerate(articles):
            rows.append(measured(index, article))
            now, done = time.monotonic(), len(rows)
            if now - told > QUIET_SECONDS or done == total:
                told = now
                left = duration((now - began) / done * (total - done))
                say(f"{done}/{total} articles, {left} left")
    except KeyboardInterrupt:
        if not rows:
            raise
        say(f"interrupted: {len(rows)} of {total} articles are complete")
    by_setting = zip(settings, zip(*rows, strict=True), strict=True)
    return {setting.temperature: found for setting, found in by_setting}


def fingerprint(ids: Sequence[int]) -> str:
    """Of token ids: equal where two texts are."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:12]


def first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts share at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def agreement(
    drafter: Drafter,
    encoding: Encoding,
    text: Sequence[int],
    p: torch.Tensor,
    config: DecodingConfig,
) -> Agreement:
    """Asks a drafter for one token at every place of a text that the target wrote.

    Independent of gamma; at temperature 0 it settles the calls of the target for every gamma.
    Source: Leviathan et al. 2023, definition 3.1 and corollary 3.6, arXiv:2211.17192.

    - `text`: the start token, then what the target wrote.
    - `p`: the target's distributions of `text[1:]`, shape (len(text) - 1, V)
      (`distributions_along`).
    - `config`: the settings that p was taken with; q is taken with them too.
    """
    session = drafter.begin(encoding)
    uniforms = torch.rand(
        len(text), generator=torch.Generator().manual_seed(config.seed), dtype=torch.float64
    )
    overlaps, agrees, bits = [], [], []
    for place, token in enumerate(text[1:], 1):
        draft = session.draft(text[:place], 1, config, uniforms[place : place + 1])
        if draft.tokens:
            row = draft.q.row(0, p.shape[-1]).to(p.device)
            overlaps.append(float(torch.minimum(p[place - 1], row).sum()))
            raw = None if draft.unwarped is None else draft.unwarped(0)
            if raw is not None:
                bits.append(_bits(raw[token]))
        agrees.append(draft.tokens[:1] == [token])
        session.accept([token])
    places = len(agrees)
    mean_bits = sum(bits) / places if len(bits) == places else None
    return Agreement(sum(overlaps) / places, len(overlaps) / places, tuple(agrees), mean_bits)


def _bits(chance: torch.Tensor) -> float:
    """-log2 of a probability, at most MOST_BITS."""
    return -math.log2(max(float(chance), 2**-MOST_BITS))


def distributions_along(
    target: Target, encoding: Encoding, written: Sequence[int], config: DecodingConfig
) -> tuple[list[int], torch.Tensor]:
    """What the target drew from at each place of a text that it wrote: one call reads it all.

    The same tokens are barred at a place as while it was written (`fastllm.decoding.rules`).

    - `written`: the n tokens of the text, at least 1, with the end token if it has one.
    - `config`: the settings, resolved (`fastllm.targets.resolve`).

    Returns:
        The start token and then `written`, n + 1 ids; and p, the distributions of `written`, shape
        (n, V), float32, on the target's device.
    """
    text, logits = _logits_along(target, encoding, written, config)
    return text, distribution(logits, config)


def _logits_along(
    target: Target, encoding: Encoding, written: Sequence[int], config: DecodingConfig
) -> tuple[list[int], torch.Tensor]:
    """The same before temperature and filters: what is barred has minus infinity."""
    text = [target.start_id, *written]
    logits = target.begin(encoding).forward(text[:-1])
    banned = Rules(target.end_ids).along(text[:1], text[1:-1], config)
    return text, forbid(logits, banned)


class _Encoded:
    """A target that has read its article, so that no lane has to encode it again.

    The seconds of that one encoding are charged to every lane.
    """

    def __init__(self, target: Target, encoding: Encoding) -> None:
        self._target = target
        self.encode = lambda source_ids: encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def _measure(
    target: Target,
    drafters: Mapping[str, Drafter],
    article: Article,
    encoding: Encoding,
    config: DecodingConfig,
    gammas: Sequence[int],
    turn: int,
    scorer: Any,
) -> ArticleNumbers:
    reader = cast(Target, _Encoded(target, encoding))
    alone = raced(reader, {ALONE: None}, article.text, config)[ALONE]
    order = [(gamma, name) for gamma in gammas for name in drafters]
    first = turn % max(1, len(order))
    measured = {
        (gamma, name): lane_numbers(
            raced(reader, {name: drafters[name]}, article.text, replace(config, gamma=gamma))[name],
            alone,
        )
        for gamma, name in order[first:] + order[:first]
    }
    text, logits = _logits_along(target, encoding, alone.tokens, config)
    p = distribution(logits, config)
    own = logits.float().softmax(-1)
    bits = [_bits(row[token]) for row, token in zip(own, alone.tokens, strict=True)]
    words = metrics.words(alone.text)
    return ArticleNumbers(
        id=article.id,
        cut=alone.cut_at is not None,
        text=TextNumbers(
            tokens=len(alone.tokens),
            fingerprint=fingerprint(alone.tokens),
            ended=alone.ended,
            loops=metrics.loops(words),
            repeated_share=metrics.repeated_share(words),
            copied_share=metrics.copied_share(words, metrics.words(article.text)),
            rouge=_rouge(scorer, article, alone.text, config.seed),
            bits=sum(bits) / len(bits),
        ),
        alone=lane_numbers(alone, alone),
        agreements={
            name: agreement(drafter, encoding, text, p, config)
            for name, drafter in drafters.items()
        },
        lanes={gamma: {name: measured[gamma, name] for name in drafters} for gamma in gammas},
    )


def raced(
    target: Target, lanes: Mapping[str, Drafter | None], text: str, config: DecodingConfig
) -> dict[str, Trace]:
    """The traces of a race over one article, by lane, without statistics."""
    race = Race(target, list(lanes.values()), text, config, statistics=False)
    for _ in race:
        pass
    return dict(zip(lanes, race.traces(), strict=True))


def lane_numbers(trace: Trace, alone: Trace) -> LaneNumbers:
    """A lane in numbers, its text compared with that of the target alone."""
    return LaneNumbers(
        calls=metrics.target_calls(trace),
        tokens=metrics.token_count(trace),
        drafted=metrics.drafted(trace),
        accepted=metrics.accepted(trace),
        positions=tuple(metrics.judged_by_position(trace.rounds)),
        decode_seconds=metrics.decode_seconds(trace),
        seconds=metrics.seconds_with_encoding(trace),
        draft_seconds=sum(entry.draft_seconds for entry in trace.rounds),
        verify_seconds=sum(entry.verify_seconds for entry in trace.rounds),
        same_text=trace.tokens == alone.tokens,
    )


def rouge_scorer() -> Any:
    """What computes ROUGE; imported when texts are scored, since other measurements do not."""
    try:
        scorers = import_module("rouge_score.rouge_scorer")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"texts are compared by ROUGE, and {error.name} is not installed: "
            "`pip install rouge-score`."
        ) from error
    return scorers.RougeScorer(list(ROUGE), use_stemmer=True)


def _rouge(scorer: Any, article: Article, text: str, seed: int) -> dict[str, dict[str, float]]:
    """F1 of the target's text, of the first two sentences, and of two random ones."""
    if not article.summary:
        return {}
    sentences = split_sentences(article.text)
    picked = sorted(random.Random(seed).sample(range(len(sentences)), min(2, len(sentences))))
    candidates = {
        "target": text,
        "first two sentences": " ".join(sentences[:2]),
        "two random sentences": " ".join(sentences[index] for index in picked),
    }
    return {
        name: {
            kind: float(score.fmeasure)
            for kind, score in scorer.score(article.summary, candidate).items()
        }
        for name, candidate in candidates.items()
    }


# The comparison with transformers.


@dataclass(frozen=True)
class Mismatch:
    """A text that is not generate's: where they part, and how close the target's two best are.

    A margin near the rounding of the number type means a tie that two orders of addition broke
    differently; a larger one means a wrong rule or cache.
    """

    article: str
    lane: str
    gamma: int
    position: int
    margin: float


@dataclass
class GenerateCheck:
    """How many greedy texts equal those of transformers, token for token.

    Attributes:
        articles: how many were compared, of those `asked`: fewer if it was interrupted.
        equal: lane -> draft length -> on how many articles the texts were equal.
        mismatches: one entry for each other text.
    """

    gammas: tuple[int, ...]
    articles: int
    asked: int
    equal: dict[str, dict[int, int]] = field(default_factory=dict)
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Every text of every lane and gamma was equal."""
        return not self.mismatches

    @property
    def interrupted(self) -> bool:
        """Whether some articles were left out."""
        return self.articles < self.asked

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "interrupted": self.interrupted, "passed": self.passed}


def check_generate(
    target: HubTarget,
    drafters: Mapping[str, Drafter],
    articles: Sequence[Article],
    config: DecodingConfig,
    gammas: Sequence[int],
    *,
    say: Say = lambda line: None,
) -> GenerateCheck:
    """Compares greedy decoding with `generate(do_sample=False)`, token for token.

    Interrupted (Ctrl-C), it gives what it has: the articles that are complete.

    - `drafters`: by name; the target alone is always compared too.
    - `config`: the settings; temperature is taken as 0, gamma from `gammas`.
    - `say`: receives a progress line now and then.

    Raises:
        KeyboardInterrupt: interrupted before the first article was complete.
    """
    equal = {name: dict.fromkeys(gammas, 0) for name in (ALONE, *drafters)}
    check = GenerateCheck(tuple(gammas), 0, len(articles), equal)
    greedy = resolve(config, target).greedy()
    try:
        for article in articles:
            same, others = _compare(target, drafters, article, greedy, gammas)
            for name, gamma in same:
                equal[name][gamma] += 1
            check.mismatches += others
            check.articles += 1
            if check.articles % 5 == 0 or not check.interrupted:
                say(f"compared with generate: {check.articles}/{check.asked} articles")
    except KeyboardInterrupt:
        if check.articles == 0:
            raise
        say(f"interrupted: {check.articles} of {check.asked} articles are complete")
    return check


def _compare(
    target: HubTarget,
    drafters: Mapping[str, Drafter],
    article: Article,
    greedy: DecodingConfig,
    gammas: Sequence[int],
) -> tuple[list[tuple[str, int]], list[Mismatch]]:
    """Which lanes, at which draft lengths, write generate's text, and how the others do not."""
    ids = target.vocabulary.encode(article.text, target.source_length, target.prefix).ids
    wanted = generate(target, ids, greedy)
    alone = raced(target, {ALONE: None}, article.text, greedy)  # it knows no gamma
    same, others = [], []
    for gamma in gammas:
        config = replace(greedy, gamma=gamma)
        traces = raced(target, drafters, article.text, config) if drafters else {}
        for name, trace in (alone | traces).items():
            if trace.tokens == wanted:
                same.append((name, gamma))
                continue
            shared = first_difference(wanted, trace.tokens)
            text = [target.start_id, *wanted[:shared]]
            logits = target.begin(target.encode(ids)).forward(text)[-1:].float()
            banned = Rules(target.end_ids).banned(text, trace.config)
            first, second = forbid(logits, [banned])[0].topk(2).values.tolist()
            others.append(Mismatch(article.id, name, gamma, shared, first - second))
    return same, others


@torch.inference_mode()
def generate(target: HubTarget, source_ids: list[int], config: DecodingConfig) -> tuple[int, ...]:
    """The greedy text of transformers' own loop, without the start token.

    Its generation configuration holds; of the rules those are passed on that are not its own.
    """
    names = {
        "no_repeat_ngram": "no_repeat_ngram_size",
        "min_new_tokens": "min_new_tokens",
        "forced_first": "forced_bos_token_id",
        "forced_last": "forced_eos_token_id",
    }
    given = resolve(config, target)
    own = target.defaults
    rules = {
        names[name]: getattr(given, name)
        for name, off in DecodingConfig.LEFT_TO_TARGET.items()
        if getattr(given, name) != own.get(name, off)
    }
    out = target.model.generate(
        input_ids=torch.tensor([source_ids], device=target.device),
        attention_mask=torch.ones(1, len(source_ids), dtype=torch.long, device=target.device),
        do_sample=False,
        max_new_tokens=config.max_new_tokens,
        **ONE_TEXT,
        **rules,
    )
    return tuple(int(token) for token in out[0, 1:])
