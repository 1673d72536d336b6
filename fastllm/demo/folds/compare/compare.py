"""The lanes over several articles: the table of `python -m fastllm eval`, growing as one watches.

Each article is a piece of work of its own, so that between two of them the device goes to whoever
waits for it. What a piece measures becomes an `Evaluation`, and all estimates and intervals are
those of `fastllm.evaluation.report`.

The rows, one JSON object per line, only ever appended to:

    {"row": "start", "run", "articles": [title, ...], "lanes": [{"key", "title"}, ...],
     "greedy", "rule", "lossy", "settings", "fewest", "few"}
    {"row": "begun", "article"}
    {"row": "article", "article", "cut", "left", "lanes": [NUMBERS, ...], "table": TABLE}
    {"row": "left_out", "article"}
    {"row": "end", "ended", "articles", "same": [state, sentence], "said": [sentence, ...],
     "notices"}

"begun" says that an article, counted from 0, has the device; "left" is about how many seconds are
to come. An article is "left_out" of all numbers where time was up before every lane had come to its
end; the notices of the last row name those. NUMBERS are the counts of one lane on one article:
{"key", "calls", "tokens", "drafted", "accepted", "seconds", "same_text", "alpha"}. A TABLE has
{"articles", "hardware", "target", "lanes": [...], "pairs": [...]}, its estimates {"value", "low",
"high"} over the articles so far. No row holds a word of an article.
"""

import json
import math
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import gradio as gr

from fastllm import metrics
from fastllm.decoding.race import Race, hardware, versions
from fastllm.demo import articles, rows
from fastllm.demo.articles import Checked
from fastllm.demo.context import PageContext, announce
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.compare import words
from fastllm.demo.jobs import Models, warmed_up
from fastllm.demo.parts import HIDDEN, heading, literal, opener, paragraph, scripted, view
from fastllm.demo.words import ALONE, STOP, family_of, title_of
from fastllm.demo.worker import Lines
from fastllm.drafters import Drafter
from fastllm.errors import DataError
from fastllm.evaluation import report
from fastllm.evaluation.measure import (
    Agreement,
    ArticleNumbers,
    Evaluation,
    LaneNumbers,
    TextNumbers,
    agreement,
    distributions_along,
    lane_numbers,
)
from fastllm.trace import DecodingConfig, Trace

FEWEST = 5
"""Below so many articles no interval is shown: resamples of so few say next to nothing. Below
`report.FEW` it is shown with a warning."""

BREATH_SECONDS = 0.05
"""Between two articles, so that who waits for the device gets it: a lock goes to whoever is first
to ask."""

COMPARE_QUEUE = "compare"
"""The queue of comparisons. Not that of the device: a race would wait for all the articles."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """One article, measured in every lane."""

    article: str
    lanes: tuple[str, ...]  # their keys; the target alone is the first
    config: DecodingConfig
    seconds: int  # after these it is cut, and has no number

    def check(self, models: Models) -> None:
        """Refuses lanes whose drafter could not be loaded."""
        Race(models.target, self._drafters(models), self.article, self.config)

    def lines(self, models: Models, stop: threading.Event) -> Iterator[str]:
        """A row when it has the device, and one with what was measured, or that it was cut.

        Where it was stopped the second is not there.
        """
        yield rows.line({"row": "begun", "run": uuid.uuid4().hex})
        began = time.monotonic()
        race = warmed_up(
            models.target,
            self._drafters(models),
            self.article,
            self.config,
            seconds=self.seconds,
            stop=stop,
            statistics=False,
        )
        for _ in race:
            pass
        traces = dict(zip(self.lanes, race.traces(), strict=True))
        endings = {trace.ended for trace in traces.values()}
        if "stopped" in endings:
            return
        row: Row = {"row": "cut"}
        if "deadline" not in endings:
            row = {
                "row": "measured",
                "numbers": asdict(_numbers(models, race, traces)),
                "config": asdict(race.config),
                "target": race.target.name,
                "hardware": hardware(race.target.device),
            }
        yield rows.line(row | {"seconds": time.monotonic() - began})

    def _drafters(self, models: Models) -> list[Drafter | None]:
        return [models.drafter(key) for key in self.lanes]


def measured(engine: LocalEngine, piece: Measure, stop: threading.Event) -> Iterator[Row]:
    """The rows of a piece of work; after it others may have the device."""
    for text in engine.lines(piece, stop):  # of a borrowed GPU lines come several at a time
        yield from map(json.loads, text.splitlines())
    stop.wait(BREATH_SECONDS)


@dataclass(frozen=True)
class Comparison:
    """Several articles, one after the other."""

    titles: tuple[str, ...]
    articles: tuple[str, ...]
    lanes: tuple[str, ...]  # their keys; the target alone is the first
    config: DecodingConfig  # when sampling, article i is run with the seed `config.seed` + i
    seconds: int  # of the device; after these it ends with what it has
    seconds_each: int  # the most for one article; one that takes longer is left out
    notices: tuple[str, ...] = ()  # what the visitor should know about the articles

    def pieces(self) -> Iterator[Measure]:
        """The work on each article, as if it had all the time there is for one."""
        for index, article in enumerate(self.articles):
            config = replace(self.config, seed=(self.config.seed + index) % 2**31)
            yield Measure(article, self.lanes, config, self.seconds_each)

    def lines(self, engine: LocalEngine, stop: threading.Event) -> Iterator[str]:
        """Asks for the device once per article; gives rows as lines.

        When `stop` is set, or time is up, it ends with what it has.

        Raises:
            FastLLMError: the work was refused.
        """
        yield rows.line(self._start())
        found: list[ArticleNumbers] = []
        left_out: dict[int, list[str]] = {}  # after so many seconds -> titles
        evaluation: Evaluation | None = None
        table: Row = {"pairs": []}
        began, used, ended = time.monotonic(), 0.0, "done"
        for index, piece in enumerate(self.pieces()):
            if used >= self.seconds:
                ended = "deadline"
                break
            given = math.ceil(min(self.seconds_each, self.seconds - used))
            row: Row = {}
            for row in measured(engine, replace(piece, seconds=given), stop):
                if row["row"] == "begun":
                    yield rows.line({"row": "begun", "article": index})
            if row.get("row") not in ("cut", "measured"):
                ended = "stopped"
                break
            used += row["seconds"]
            if row["row"] == "measured":
                found.append(_article_numbers(row["numbers"]))
                evaluation = self._evaluation(row, found)
                table = _table(evaluation)
                passed = index + 1
                left = (time.monotonic() - began) / passed * (len(self.articles) - passed)
                yield rows.line(
                    {
                        "row": "article",
                        "article": index,
                        "cut": found[-1].cut,
                        "left": round(left, 1),
                        "lanes": _lanes(found[-1]),
                        "table": table,
                    }
                )
                continue
            left_out.setdefault(given, []).append(self.titles[index])
            yield rows.line({"row": "left_out", "article": index})
            if used >= self.seconds:  # though it was the last
                ended = "deadline"
                break
        yield rows.line(self._end(ended, evaluation, table["pairs"], left_out))

    def _start(self) -> Row:
        return {
            "row": "start",
            "run": uuid.uuid4().hex,
            "articles": list(self.titles),
            "lanes": [{"key": key, "title": title_of(key)} for key in self.lanes],
            "greedy": self.config.temperature == 0,
            "rule": self.config.verified_by,
            "lossy": self.config.lossy,
            "settings": {name: getattr(self.config, name) for name in rows.SETTINGS},
            "fewest": FEWEST,
            "few": report.FEW,
        }

    def _evaluation(self, row: Row, found: Sequence[ArticleNumbers]) -> Evaluation:
        """All that was measured; what is the same of every article, as its last row says it."""
        config = DecodingConfig(**row["config"])
        return Evaluation(
            target=row["target"],
            config=config,
            temperatures=(config.temperature,),
            gammas=(config.gamma,),
            drafters=self.lanes[1:],
            hardware=row["hardware"],
            versions=dict(versions()),
            asked=len(self.articles),
            rows={config.temperature: tuple(found)},
        )

    def _end(
        self,
        ended: str,
        evaluation: Evaluation | None,
        pairs: Sequence[Row],
        left_out: Mapping[int, Sequence[str]],
    ) -> Row:
        """The last row: "done" where every article had its turn; else "stopped" or "deadline"."""
        done, same = 0, ("", "")
        if evaluation:
            done = evaluation.articles
            differing = evaluation.differing(evaluation.temperatures[0])
            named = {title_of(key): count for key, count in differing.items()}
            greedy = self.config.temperature == 0
            same = words.compared_texts(greedy, self.config.lossy, done, named)
        notices = list(self.notices)
        if ended == "deadline":
            notices.append(words.compared_early(self.seconds, done, len(self.articles)))
        notices += [words.left_out(*each) for each in left_out.items()]
        if ended == "done" and not done:
            notices.append(words.NONE_COMPARED)
        return {
            "row": "end",
            "ended": ended,
            "articles": done,
            "same": list(same),
            "said": [_distilled(pair, done) for pair in pairs],
            "notices": notices,
        }


def add(context: PageContext) -> None:
    """The fold: which articles, the buttons, and the view that the rows are drawn in."""
    limits = context.limits
    samples, file = "samples", "file"
    heading(words.TITLE)
    with gr.Column(elem_id="fl-compare"):
        paragraph(words.INTRO, "fl-soft")
        with gr.Row(elem_id="fl-compare-controls", equal_height=True):
            which = gr.Radio(
                [(words.SAMPLES.format(len(context.samples)), samples), (words.FROM_FILE, file)],
                value=samples,
                label=words.ARTICLES,
                container=False,
                elem_id="fl-compare-which",
            )
            opened = opener(
                words.UPLOAD, articles.LIST_TYPES, limits.upload_bytes, "fl-compare-file"
            )
            go = gr.Button(words.GO, elem_id="fl-compare-go", scale=0, min_width=180)
            halt = gr.Button(STOP, elem_id="fl-compare-stop", scale=0, min_width=120)
        rule = words.file_rule(limits.compare_articles, limits.upload_bytes // 1000)
        told = paragraph(rule, "fl-soft", elem_classes="fl-soft")
        rows_view = view("fl-compare", scripted("folds/compare/compare.js", words.BROWSER))

    def from_file(sent: str) -> dict[str, Checked]:
        return numbered(articles.read_articles(sent, limits))

    def look(sent: str) -> tuple[str, str]:
        """What a file holds, as soon as it is opened."""
        with context.said():
            found = from_file(sent)
        count = sum(len(article.text.split()) for article in found.values())
        articles = f"{len(found)} article{'s' if len(found) != 1 else ''}"
        return file, f"{articles}, {count:,} words. Press the button."

    def rows(
        request: gr.Request, source: str, sent: str, lanes: list[str], *settings: Any
    ) -> Iterator[str]:
        """Compares; yields the rows so far as lines of JSON, again and again."""

        def begin() -> Lines:
            if source == file:
                given = from_file(sent)
            else:
                given = {title: context.checked(text) for title, text in context.samples.items()}
            ready = plan(context, given, lanes, context.config(*settings))
            return partial(ready.lines, context.engine)

        yield from context.follow(request, begin)

    # What stands there is about other articles: it goes, whether the file can be read or not.
    shown = f'<p class="fl-soft">{rule}</p>'
    empty = f"() => ['', {literal(shown)}]"
    cleared = f"() => {{ {_CLEARED} return ({empty})(); }}"
    read = opened.upload(look, opened, [which, told], js=announce("compare-cleared"), **HIDDEN)
    read.failure(None, None, [opened, told], js=empty, **HIDDEN)
    opened.clear(None, None, [opened, told], js=cleared, **HIDDEN)
    context.bind(
        [go.click],
        halt,
        rows,
        [which, opened, context.lanes, *context.settings],
        rows_view,
        name="compare-",
        queue=COMPARE_QUEUE,
        preprocess=False,
    )


_CLEARED = "window.dispatchEvent(new Event('fastllm-compare-cleared'));"


def numbered(articles: Sequence[Checked]) -> dict[str, Checked]:
    """Articles without titles, by their numbers."""
    return {f"article {number}": each for number, each in enumerate(articles, 1)}


def plan(
    context: PageContext,
    given: Mapping[str, Checked],
    lanes: Sequence[str],
    config: DecodingConfig,
) -> Comparison:
    """A comparison of articles by title, its lanes checked.

    The target alone is measured whether it is among the chosen lanes or not.

    Raises:
        DataError: a lane is not offered, too many are chosen, or none has a drafter.
    """
    chosen = tuple(key for key in context.chosen(lanes, fewest=0) if key != ALONE)
    if not chosen:
        raise DataError(words.NO_DRAFTER)
    notices = dict.fromkeys(notice for article in given.values() for notice in article.notices)
    return Comparison(
        titles=tuple(given),
        articles=tuple(article.text for article in given.values()),
        lanes=(ALONE, *chosen),
        config=config,
        seconds=context.limits.compare_seconds,
        seconds_each=context.limits.seconds_per_run,
        notices=tuple(notices),
    )


def result_of(rows: Sequence[Row]) -> Row:
    """A comparison that has ended, as a program wants it, of its rows.

    Returns:
        {"settings", "rule", "lossy", "lanes": [{"key", "title"}], "asked", "ended", "same",
        "same_text", "said", "notices", "table": TABLE, "articles": [{"title", "cut", "lanes":
        [NUMBERS]}]}; the table is None where no article came to its end.
    """
    start, end = rows[0], rows[-1]
    done = [row for row in rows if row["row"] == "article"]
    state, sentence = end["same"]
    return {
        **{name: start[name] for name in ("settings", "rule", "lossy", "lanes")},
        "asked": len(start["articles"]),
        "ended": end["ended"],
        "same": {"same": True, "differ": False}.get(state),
        "same_text": sentence,
        "said": end["said"],
        "notices": end["notices"],
        "table": done[-1]["table"] if done else None,
        "articles": [
            {
                "title": start["articles"][row["article"]],
                "cut": row["cut"],
                "lanes": row["lanes"],
            }
            for row in done
        ],
    }


def _numbers(models: Models, race: Race, traces: Mapping[str, Trace]) -> ArticleNumbers:
    """What the evaluation measures of an article, of lanes that raced; no summary is known."""
    target, config, alone = race.target, race.config, traces[ALONE]
    encoding = target.encode(race.source_ids)
    text, p = distributions_along(target, encoding, alone.tokens, config)
    words = metrics.words(alone.text)
    agreements = {}
    for key in traces:
        if (drafter := models.drafter(key)) is not None:
            found = agreement(drafter, encoding, text, p, config)
            agreements[key] = replace(found, agrees=())
    return ArticleNumbers(
        id="",
        cut=alone.cut_at is not None,
        text=TextNumbers(
            tokens=len(alone.tokens),
            fingerprint="",
            ended=alone.ended,
            loops=metrics.loops(words),
            repeated_share=metrics.repeated_share(words),
            copied_share=metrics.copied_share(words, metrics.words(race.article)),
            rouge={},
        ),
        alone=lane_numbers(alone, alone),
        agreements=agreements,
        lanes={config.gamma: {key: lane_numbers(traces[key], alone) for key in agreements}},
    )


def _article_numbers(tree: Row) -> ArticleNumbers:
    """What `asdict` and JSON made of the numbers of an article, as those."""
    ((gamma, lanes),) = tree["lanes"].items()
    return ArticleNumbers(
        id=tree["id"],
        cut=tree["cut"],
        text=TextNumbers(**tree["text"]),
        alone=LaneNumbers(**tree["alone"]),
        agreements={key: Agreement(**entry) for key, entry in tree["agreements"].items()},
        lanes={int(gamma): {key: LaneNumbers(**lane) for key, lane in lanes.items()}},
    )


def _lanes(numbers: ArticleNumbers) -> list[Row]:
    """The counts of each lane on an article."""
    ((_, lanes),) = numbers.lanes.items()
    agreements = numbers.agreements
    return [
        {
            "key": key,
            "calls": lane.calls,
            "tokens": lane.tokens,
            "drafted": lane.drafted,
            "accepted": lane.accepted,
            "seconds": round(lane.seconds, 6),
            "same_text": lane.same_text,
            "alpha": agreements[key].alpha if key in agreements else None,
        }
        for key, lane in {ALONE: numbers.alone, **lanes}.items()
    ]


def _distilled(pair: Row, done: int) -> str:
    """What distillation changed for a pair, in a sentence about `done` articles."""
    ratio = pair["calls_ratio"]
    sure = metrics.Estimate(**ratio).away_from(1) if done >= FEWEST else 0
    return words.distilled(pair["title"], ratio["value"], sure, pair["fewer"], done)


def _table(evaluation: Evaluation) -> Row:
    """What of the report is shown: plain JSON values, a row per lane and a row per pair."""
    summary = report.summarise(evaluation)
    (setting,) = summary["settings"]
    gamma = str(summary["headline_gamma"])

    def shown(key: str, lane: Row, alpha: Row | None = None) -> Row:
        return {
            "key": key,
            "calls": lane["target_calls"],
            "tau": lane["tau"],
            "accepted": lane.get("accepted_of_drafted"),
            "alpha": alpha,
            "seconds": lane["seconds"],
            "speed_up": lane["speed_up_with_encoding"] if alpha else None,
        }

    drafters = setting["drafters"]
    return {
        "articles": summary["articles"],
        "hardware": summary["hardware"],
        "target": summary["target"],
        "lanes": [
            shown(ALONE, setting["alone"]),
            *(
                shown(key, drafters[key]["gammas"][gamma], drafters[key]["alpha"])
                for key in evaluation.drafters
            ),
        ],
        "pairs": [
            {
                "title": family_of(pair["after"]).removesuffix("-after"),
                "before": pair["before"],
                "after": pair["after"],
                "calls_ratio": pair["gammas"][gamma]["target_calls_ratio"],
                "tau": pair["gammas"][gamma]["tau_difference"],
                "accepted": pair["gammas"][gamma]["accepted_of_drafted_difference"],
                "alpha": pair["alpha_difference"],
                "seconds_ratio": pair["gammas"][gamma]["seconds_ratio"],
                "fewer": _fewer(evaluation, pair["before"], pair["after"]),
            }
            for pair in setting["pairs"].values()
        ],
    }


def _fewer(evaluation: Evaluation, before: str, after: str) -> int:
    """On how many articles `after` needed fewer target calls per token."""
    (temperature,), (gamma,) = evaluation.temperatures, evaluation.gammas
    return sum(
        second.calls * first.tokens < first.calls * second.tokens
        for first, second in zip(
            evaluation.lanes(temperature, gamma, before),
            evaluation.lanes(temperature, gamma, after),
            strict=True,
        )
    )
