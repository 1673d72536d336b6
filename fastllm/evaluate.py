"""A test set to a table: target calls, alpha, seconds, before against after, with intervals.

Every article is raced once: the target alone, and each drafter. Alpha is measured on the text that
the target wrote alone. Nothing here prints or stores an article or a summary: numbers and token
ids only.
"""

import math
import platform
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rouge_score.rouge_scorer import RougeScorer

from fastllm import metrics
from fastllm.data.articles import Article, read_articles, split_sentences
from fastllm.drafters import Drafter
from fastllm.errors import DataError
from fastllm.race import Race, versions
from fastllm.sampling import distribution
from fastllm.targets import Target
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig, Trace

ALONE = "alone"
"""The name of the lane without a drafter."""

ROUGE = ("rouge1", "rouge2", "rougeL")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Agreement:
    """A drafter asked at every place of the target's own text.

    Attributes:
        alpha: mean over the places of sum_x min(p(x), q(x)): the chance that one drafted token is
            accepted. A place where nothing is drafted counts as 0.
        drafted_share: the share of places where something was drafted.
        agrees: at each place, whether the drafter's token was the target's.
    """

    alpha: float
    drafted_share: float
    agrees: tuple[bool, ...]


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
    agreement: Agreement | None = None


@dataclass(frozen=True)
class ArticleNumbers:
    """One article: what the target wrote, and every lane."""

    id: str
    ids: tuple[int, ...]
    ended: str
    cut: bool
    loops: bool
    repeated_share: float
    copied_share: float
    rouge: dict[str, dict[str, float]]
    lanes: dict[str, LaneNumbers]


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one target, its drafters, one setting and one set of articles."""

    target: str
    config: DecodingConfig
    hardware: str
    versions: dict[str, str]
    articles: tuple[ArticleNumbers, ...]

    @property
    def lanes(self) -> list[str]:
        """The names of the lanes, the target alone first."""
        return list(self.articles[0].lanes)

    @property
    def same_text(self) -> bool:
        """Every lane wrote the target's own text, token for token; to be expected if greedy."""
        return all(lane.same_text for row in self.articles for lane in row.lanes.values())

    def column(self, lane: str, number: Callable[[LaneNumbers], float]) -> list[float]:
        """One number of a lane, article by article."""
        return [number(article.lanes[lane]) for article in self.articles]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: every article's numbers, and the summary that the table shows."""
        return {
            "target": self.target,
            "config": asdict(self.config),
            "hardware": self.hardware,
            "versions": self.versions,
            "summary": summarise(self),
            "articles": [asdict(article) for article in self.articles],
        }


def choose_articles(path: str | Path, limit: int, seed: int = 0) -> list[Article]:
    """The first `limit` articles of a file after a shuffle with `seed`: the same at every run.

    Raises:
        DataError: the file cannot be used, or holds no article with text.
    """
    articles = [article for article in read_articles(path) if article.text.strip()]
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
    say: Say = lambda line: None,
) -> Evaluation:
    """Races every article with the target alone and each drafter.

    Args:
        target: writes the texts.
        drafters: one lane each, by name.
        articles: what to summarise; at least one.
        config: the settings. When sampling, article i is run with the seed `config.seed` + i.
        say: receives a progress line now and then.

    Raises:
        DataError: there are no articles.
        VocabularyError: a drafter was made for another vocabulary.
    """
    if not articles:
        raise DataError("no articles to evaluate on: give at least one.")
    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    lanes = {ALONE: None, **drafters}
    _race(target, lanes, articles[0].text, config)  # the warm-up is on nobody's clock
    rows: list[ArticleNumbers] = []
    hardware = ""
    for index, article in enumerate(articles):
        own = replace(config, seed=(config.seed + index) % 2**31)
        traces = _race(target, lanes, article.text, own)
        hardware = traces[ALONE].hardware
        rows.append(_article_numbers(target, drafters, article, traces, own, scorer))
        if (index + 1) % 10 == 0 or index + 1 == len(articles):
            say(f"{index + 1}/{len(articles)} articles")
    return Evaluation(target.name, config, hardware, dict(versions()), tuple(rows))


def agreement(
    target: Target, drafter: Drafter, trace: Trace, source_ids: list[int]
) -> Agreement:
    """Asks a drafter for one token at every place of a text that the target wrote.

    Independent of gamma; at temperature 0 `metrics.greedy_calls` reads the calls for every gamma
    from it. Source: Leviathan et al. 2023, definition 3.1 and corollary 3.6, arXiv:2211.17192.

    Args:
        target: what wrote the text.
        drafter: who is asked.
        trace: the target's own text; its settings are those that p and q are taken with.
        source_ids: the encoded article.
    """
    config = trace.config
    text = [target.start_id, *trace.tokens]
    encoding = target.encode(source_ids)
    p = distribution(target.begin(encoding).forward(text[:-1]), config)
    session = drafter.begin(encoding)
    uniforms = torch.rand(
        len(text), generator=torch.Generator().manual_seed(config.seed), dtype=torch.float64
    )
    overlaps, agrees, asked = [], [], 0
    for place in range(1, len(text)):
        draft = session.draft(text[:place], 1, config, uniforms[place : place + 1])
        overlap = 0.0
        if draft.tokens:
            asked += 1
            row = draft.q.row(0, p.shape[-1]).to(p.device)
            overlap = float(torch.minimum(p[place - 1], row).sum())
        overlaps.append(overlap)
        agrees.append(draft.tokens[:1] == [text[place]])
        session.accept([text[place]])
    places = len(overlaps)
    return Agreement(sum(overlaps) / places, asked / places, tuple(agrees))


def _race(
    target: Target, lanes: Mapping[str, Drafter | None], text: str, config: DecodingConfig
) -> dict[str, Trace]:
    race = Race(target, list(lanes.values()), text, config, statistics=False)
    for _ in race:
        pass
    return dict(zip(lanes, race.traces(), strict=True))


def _article_numbers(
    target: Target,
    drafters: Mapping[str, Drafter],
    article: Article,
    traces: Mapping[str, Trace],
    config: DecodingConfig,
    scorer: RougeScorer,
) -> ArticleNumbers:
    alone = traces[ALONE]
    source_ids = target.vocabulary.encode(article.text, target.source_length, target.prefix).ids
    written = metrics.words(alone.text)
    return ArticleNumbers(
        id=article.id,
        ids=alone.tokens,
        ended=alone.ended,
        cut=alone.cut_at is not None,
        loops=metrics.loops(written),
        repeated_share=metrics.repeated_share(written),
        copied_share=metrics.copied_share(written, metrics.words(article.text)),
        rouge=_rouge(scorer, article, alone.text, config.seed),
        lanes={
            name: _lane_numbers(
                trace,
                alone,
                agreement(target, drafters[name], alone, source_ids) if name in drafters else None,
            )
            for name, trace in traces.items()
        },
    )


def _lane_numbers(trace: Trace, alone: Trace, agreed: Agreement | None) -> LaneNumbers:
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
        agreement=agreed,
    )


def _rouge(
    scorer: RougeScorer, article: Article, text: str, seed: int
) -> dict[str, dict[str, float]]:
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


# Aggregates.


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """The lanes that differ in distillation alone: X-before with X-after."""
    names = list(names)
    return [
        (name, name.removesuffix("-before") + "-after")
        for name in names
        if name.endswith("-before") and name.removesuffix("-before") + "-after" in names
    ]


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of the table, as plain values: each a number or {value, low, high}."""
    return {
        "articles": len(evaluation.articles),
        "text": _summarise_text(evaluation),
        "lanes": {name: _summarise_lane(evaluation, name) for name in evaluation.lanes},
        "pairs": {
            f"{before} -> {after}": _summarise_pair(evaluation, before, after)
            for before, after in pairs(evaluation.lanes)
        },
    }


def _summarise_text(evaluation: Evaluation) -> dict[str, Any]:
    rows = evaluation.articles
    with_summary = [row.rouge for row in rows if row.rouge]
    return {
        "tokens": asdict(metrics.mean([len(row.ids) for row in rows])),
        "ended_share": statistics.fmean(row.ended == "end_of_text" for row in rows),
        "loop_rate": asdict(metrics.mean([float(row.loops) for row in rows])),
        "repeated_4grams": asdict(metrics.mean([row.repeated_share for row in rows])),
        "copied_4grams": asdict(metrics.mean([row.copied_share for row in rows])),
        "rouge": {
            name: {
                kind: asdict(metrics.mean([scores[name][kind] for scores in with_summary]))
                for kind in ROUGE
            }
            for name in (with_summary[0] if with_summary else {})
        },
    }


def _summarise_lane(evaluation: Evaluation, name: str) -> dict[str, Any]:
    lanes = [row.lanes[name] for row in evaluation.articles]
    alone = [row.lanes[ALONE] for row in evaluation.articles]
    # Sampled texts differ in length: what plain decoding takes for as many tokens. Equal if greedy.
    plain = [
        other.decode_seconds * lane.tokens / other.tokens
        for lane, other in zip(lanes, alone, strict=True)
    ]
    both = list(zip(alone, plain, strict=True))
    summary: dict[str, Any] = {
        "target_calls": asdict(metrics.mean([lane.calls for lane in lanes])),
        "tau": asdict(
            metrics.ratio([lane.tokens for lane in lanes], [lane.calls for lane in lanes])
        ),
        "decode_seconds": asdict(metrics.mean([lane.decode_seconds for lane in lanes])),
        "seconds": asdict(metrics.mean([lane.seconds for lane in lanes])),
        "speed_up_decoding": asdict(
            metrics.ratio(plain, [lane.decode_seconds for lane in lanes])
        ),
        "speed_up_with_encoding": asdict(
            metrics.ratio(
                [other.seconds - other.decode_seconds + share for other, share in both],
                [lane.seconds for lane in lanes],
            )
        ),
        "same_text": sum(lane.same_text for lane in lanes),
    }
    if name == ALONE:
        return summary
    agreements = [lane.agreement for lane in lanes if lane.agreement]
    alpha = metrics.mean([entry.alpha for entry in agreements])
    return summary | {
        "alpha": asdict(alpha),
        "drafted_share": statistics.fmean(entry.drafted_share for entry in agreements),
        "accepted_of_drafted": asdict(
            metrics.ratio([lane.accepted for lane in lanes], [lane.drafted for lane in lanes])
        ),
        "acceptance_by_position": _by_position(lanes),
        "expected": _expected(lanes, alone, alpha.value, evaluation.config.gamma),
    }


def _by_position(lanes: Sequence[LaneNumbers]) -> list[dict[str, float]]:
    deepest = max((len(lane.positions) for lane in lanes), default=0)
    rows = []
    for place in range(deepest):
        counts = [lane.positions[place] for lane in lanes if place < len(lane.positions)]
        judged, stood = sum(count[0] for count in counts), sum(count[1] for count in counts)
        rows.append({"judged": judged, "accepted": stood, "share": stood / judged})
    return rows


def _expected(
    lanes: Sequence[LaneNumbers], alone: Sequence[LaneNumbers], alpha: float, gamma: int
) -> dict[str, float]:
    """The parts of a round, and the decoding speed-ups that they predict."""
    step = sum(lane.verify_seconds for lane in alone) / sum(lane.calls for lane in alone)
    calls = sum(lane.calls for lane in lanes)
    drafted = sum(lane.drafted for lane in lanes)
    c = sum(lane.draft_seconds for lane in lanes) / max(1, drafted) / step
    v = sum(lane.verify_seconds for lane in lanes) / calls / step
    measured_tau = sum(lane.tokens for lane in lanes) / calls
    iid_tau = metrics.expected_tau(alpha, gamma)
    return {
        "c": c,
        "v": v,
        "speed_up_from_tau": metrics.expected_speed_up(measured_tau, drafted / calls, c, v),
        "tau_from_alpha": iid_tau,
        "speed_up_from_alpha": metrics.expected_speed_up(iid_tau, gamma, c, v),
    }


def _summarise_pair(evaluation: Evaluation, before: str, after: str) -> dict[str, Any]:
    def both(number: Callable[[LaneNumbers], float]) -> tuple[list[float], list[float]]:
        return evaluation.column(after, number), evaluation.column(before, number)

    def alpha(lane: LaneNumbers) -> float:
        return lane.agreement.alpha if lane.agreement else math.nan

    return {
        "target_calls_ratio": asdict(metrics.paired_ratio(*both(lambda lane: lane.calls))),
        "target_calls_difference": asdict(
            metrics.paired_difference(*both(lambda lane: lane.calls))
        ),
        "tau_difference": asdict(
            metrics.paired_difference(*both(lambda lane: lane.tokens / lane.calls))
        ),
        "alpha_difference": asdict(metrics.paired_difference(*both(alpha))),
        "decode_seconds_ratio": asdict(
            metrics.paired_ratio(*both(lambda lane: lane.decode_seconds))
        ),
        "seconds_ratio": asdict(metrics.paired_ratio(*both(lambda lane: lane.seconds))),
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
    """How many greedy texts equal those of transformers, token for token."""

    gammas: tuple[int, ...]
    articles: int
    equal: dict[str, dict[int, int]] = field(default_factory=dict)
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Every text of every lane and gamma was equal."""
        return not self.mismatches

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "passed": self.passed}


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

    Args:
        target: a model of transformers.
        drafters: by name; the target alone is always compared too.
        articles: what to summarise.
        config: the settings; temperature is taken as 0, gamma from `gammas`.
        gammas: draft lengths.
        say: receives a progress line now and then.
    """
    check = GenerateCheck(tuple(gammas), len(articles))
    greedy = replace(config, temperature=0.0)
    for index, article in enumerate(articles):
        ids = target.vocabulary.encode(article.text, target.source_length, target.prefix).ids
        wanted = generate(target, ids, greedy.max_new_tokens)
        alone = _race(target, {ALONE: None}, article.text, greedy)  # it knows no gamma
        for gamma in gammas:
            traces = {}
            if drafters:
                traces = _race(target, drafters, article.text, replace(greedy, gamma=gamma))
            for name, trace in (alone | traces).items():
                counts = check.equal.setdefault(name, dict.fromkeys(gammas, 0))
                if trace.tokens == wanted:
                    counts[gamma] += 1
                else:
                    check.mismatches.append(
                        _mismatch(target, ids, article.id, name, gamma, wanted, trace.tokens)
                    )
        if (index + 1) % 5 == 0 or index + 1 == len(articles):
            say(f"compared with generate: {index + 1}/{len(articles)} articles")
    return check


@torch.inference_mode()
def generate(target: HubTarget, source_ids: list[int], max_new_tokens: int) -> tuple[int, ...]:
    """The greedy text of transformers' own loop, without the start token."""
    out = target.model.generate(
        input_ids=torch.tensor([source_ids], device=target.device),
        attention_mask=torch.ones(1, len(source_ids), dtype=torch.long, device=target.device),
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
    )
    return tuple(int(token) for token in out[0, 1:])


def _mismatch(
    target: HubTarget,
    source_ids: list[int],
    article: str,
    lane: str,
    gamma: int,
    wanted: Sequence[int],
    found: Sequence[int],
) -> Mismatch:
    shared = 0
    while shared < min(len(wanted), len(found)) and wanted[shared] == found[shared]:
        shared += 1
    session = target.begin(target.encode(source_ids))
    logits = session.forward([target.start_id, *wanted[:shared]])[-1].float()
    first, second = logits.topk(2).values.tolist()
    return Mismatch(article, lane, gamma, shared, first - second)


# The story gate.


@dataclass(frozen=True)
class StoryGate:
    """Whether a distilled drafter has a story to tell, on the sample articles, greedy.

    Passed if the distilled lane needs at least a quarter fewer target calls than its baseline, and
    beats plain decoding in seconds (encoding counted) on all articles but one. That every text was
    read, and is fluent and true to its article, is for people to say.

    Attributes:
        before: the baseline's name.
        after: the distilled drafter's name.
        articles: one row each: id, target calls alone / before / after, seconds likewise.
    """

    before: str
    after: str
    articles: tuple[dict[str, Any], ...]

    MOST_CALLS = 0.75

    @property
    def calls_ratio(self) -> float:
        """Target calls after distillation over those before, all articles together."""
        after = sum(int(row["calls"][self.after]) for row in self.articles)
        return after / sum(int(row["calls"][self.before]) for row in self.articles)

    @property
    def faster(self) -> int:
        """On how many articles the distilled lane beats plain decoding in seconds."""
        return sum(row["seconds"][self.after] < row["seconds"][ALONE] for row in self.articles)

    @property
    def needed(self) -> int:
        """On how many it has to."""
        return max(1, len(self.articles) - 1)

    @property
    def passed(self) -> bool:
        """Both measurable conditions hold."""
        return self.calls_ratio <= self.MOST_CALLS and self.faster >= self.needed

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **asdict(self),
            "calls_ratio": self.calls_ratio,
            "faster": self.faster,
            "needed": self.needed,
            "passed": self.passed,
        }


def story_gate(
    target: Target,
    drafters: Mapping[str, Drafter],
    before: str,
    after: str,
    articles: Sequence[Article],
    config: DecodingConfig,
    *,
    repeats: int = 3,
) -> StoryGate:
    """Races the sample articles with a pair of drafters.

    Args:
        target: writes the texts.
        drafters: by name; `before` and `after` are two of them.
        before: the baseline's name.
        after: the distilled drafter's name.
        articles: the sample articles.
        config: the settings; temperature is taken as 0.
        repeats: seconds are the median of so many runs, after one to warm up.

    Raises:
        DataError: there are no articles.
    """
    if not articles:
        raise DataError("the story gate needs sample articles: assets/articles holds none.")
    lanes = {ALONE: None, before: drafters[before], after: drafters[after]}
    greedy = replace(config, temperature=0.0)
    _race(target, lanes, articles[0].text, greedy)
    rows = []
    for article in articles:
        runs = [_race(target, lanes, article.text, greedy) for _ in range(repeats)]
        rows.append(
            {
                "id": article.id,
                "calls": {name: metrics.target_calls(runs[0][name]) for name in lanes},
                "seconds": {
                    name: statistics.median(
                        metrics.seconds_with_encoding(run[name]) for run in runs
                    )
                    for name in lanes
                },
            }
        )
    return StoryGate(before, after, tuple(rows))


# Markdown.


def table(evaluation: Evaluation) -> str:
    """The evaluation as Markdown."""
    summary = summarise(evaluation)
    config = evaluation.config
    how = "greedy" if config.temperature == 0 else f"temperature {config.temperature:g}"
    lines = [
        f"## {evaluation.target}: {summary['articles']} articles, gamma {config.gamma}, {how}",
        "",
        f"{evaluation.hardware}; Python {platform.python_version()}, "
        f"torch {evaluation.versions['torch']}. [low, high]: 95 % bootstrap over articles.",
        "",
        "| lane | target calls | tau | alpha | accepted / drafted | decode s | speed-up, decoding |"
        " speed-up, with encoding | same text |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, lane in summary["lanes"].items():
        same = f"{lane['same_text']}/{summary['articles']}" if config.temperature == 0 else "-"
        lines.append(
            f"| {name} | {_shown(lane['target_calls'], 1)} | {_shown(lane['tau'])} | "
            f"{_shown(lane.get('alpha'), 3)} | {_shown(lane.get('accepted_of_drafted'), 3)} | "
            f"{_shown(lane['decode_seconds'], 3)} | {_shown(lane['speed_up_decoding'])} | "
            f"{_shown(lane['speed_up_with_encoding'])} | {same} |"
        )
    lines += ["", *_position_table(summary), *_pair_table(summary), *_text_table(summary)]
    return "\n".join(lines)


def _position_table(summary: dict[str, Any]) -> list[str]:
    lanes = {name: lane for name, lane in summary["lanes"].items() if name != ALONE}
    if not lanes:
        return []
    deepest = max(1, *(len(lane["acceptance_by_position"]) for lane in lanes.values()))
    places = " | ".join(str(place + 1) for place in range(deepest))
    lines = [
        "Acceptance at each draft position (judged drafts only), and what a round costs: c, a "
        "drafted token, and v, a call that verifies, in one-token calls of the target.",
        "",
        f"| lane | {places} | drafts at | c | v | speed-up from tau, c, v | from alpha |",
        "|---" * (deepest + 6) + "|",
    ]
    for name, lane in lanes.items():
        shares = [f"{row['share']:.2f}" for row in lane["acceptance_by_position"]]
        shares += ["-"] * (deepest - len(shares))
        expected = lane["expected"]
        lines.append(
            f"| {name} | {' | '.join(shares)} | {lane['drafted_share']:.0%} | "
            f"{expected['c']:.3f} | {expected['v']:.2f} | {expected['speed_up_from_tau']:.2f} | "
            f"{expected['speed_up_from_alpha']:.2f} |"
        )
    return [*lines, ""]


def _pair_table(summary: dict[str, Any]) -> list[str]:
    if not summary["pairs"]:
        return []
    lines = [
        "After distillation against before, paired by article.",
        "",
        "| pair | target calls, ratio | target calls, difference | tau, difference |"
        " alpha, difference | decode s, ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name, pair in summary["pairs"].items():
        lines.append(
            f"| {name} | {_shown(pair['target_calls_ratio'])} | "
            f"{_shown(pair['target_calls_difference'], 1)} | {_shown(pair['tau_difference'])} | "
            f"{_shown(pair['alpha_difference'], 3)} | {_shown(pair['decode_seconds_ratio'])} |"
        )
    return [*lines, ""]


def _text_table(summary: dict[str, Any]) -> list[str]:
    text = summary["text"]
    lines = [
        f"The target's text: {_shown(text['tokens'], 1)} tokens; {text['ended_share']:.0%} end by "
        f"themselves; with a repeated 4-gram {_percent(text['loop_rate'])}; 4-grams repeated "
        f"{_percent(text['repeated_4grams'])}, copied from the article "
        f"{_percent(text['copied_4grams'])}.",
    ]
    if text["rouge"]:
        lines += ["", "| text | ROUGE-1 | ROUGE-2 | ROUGE-L |", "|---|---|---|---|"]
        for name, scores in text["rouge"].items():
            cells = " | ".join(_percent(scores[kind], sign="") for kind in ROUGE)
            lines.append(f"| {name} | {cells} |")
    return lines


def generate_table(check: GenerateCheck) -> str:
    """The comparison with transformers as Markdown."""
    gammas = " | ".join(f"gamma {gamma}" for gamma in check.gammas)
    lines = [
        "## Greedy texts equal to transformers' generate(do_sample=False), of "
        f"{check.articles} articles: {'PASS' if check.passed else 'FAIL'}",
        "",
        f"| lane | {gammas} |",
        "|---" * (len(check.gammas) + 1) + "|",
    ]
    for name, counts in check.equal.items():
        lines.append(
            f"| {name} | {' | '.join(str(counts[gamma]) for gamma in check.gammas)} |"
        )
    for miss in check.mismatches[:20]:
        lines.append(
            f"\nArticle {miss.article}, {miss.lane}, gamma {miss.gamma}: they part at token "
            f"{miss.position}, where the target's two best logits differ by {miss.margin:.2e}."
        )
    return "\n".join(lines)


def gate_table(gate: StoryGate) -> str:
    """The story gate as Markdown."""
    lines = [
        f"## Story gate, {gate.before} -> {gate.after}: {'PASS' if gate.passed else 'FAIL'}",
        "",
        "| sample | calls alone | before | after | seconds alone | before | after |",
        "|---|---|---|---|---|---|---|",
    ]
    order = (ALONE, gate.before, gate.after)
    for row in gate.articles:
        calls = " | ".join(str(row["calls"][name]) for name in order)
        seconds = " | ".join(f"{row['seconds'][name]:.3f}" for name in order)
        lines.append(f"| {row['id']} | {calls} | {seconds} |")
    lines += [
        "",
        f"Target calls after / before: {gate.calls_ratio:.2f} (at most {gate.MOST_CALLS:.2f} is "
        f"needed). Faster than alone, encoding counted: {gate.faster} of {len(gate.articles)} "
        f"(at least {gate.needed} needed). That every text was read, and is fluent and true to its "
        "article, is for people to say.",
    ]
    return "\n".join(lines)


def _shown(estimate: dict[str, float] | None, digits: int = 2) -> str:
    if estimate is None:
        return "-"
    value, low, high = (f"{estimate[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _percent(estimate: dict[str, float], sign: str = " %") -> str:
    value, low, high = (f"{100 * estimate[key]:.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]{sign}"
