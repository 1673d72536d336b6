"""The comparison over several articles, on a tiny random target with two tiny random drafters."""

import itertools
import json
import pickle
import threading
from dataclasses import replace
from typing import Any

import pytest

from fastllm.data.articles import Article
from fastllm.demo.articles import Checked
from fastllm.demo.context import PageContext
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.compare import compare
from fastllm.demo.folds.compare import words as compare_words
from fastllm.demo.folds.compare.compare import Comparison, Measure
from fastllm.demo.jobs import RaceJob
from fastllm.demo.limits import read_limits
from fastllm.drafters import drafter_class
from fastllm.errors import CheckpointError, DataError
from fastllm.evaluation import report
from fastllm.evaluation.measure import evaluate
from fastllm.trace import DecodingConfig

NEVER = threading.Event()
LANES = ("alone", "lookup", "tiny-before", "tiny-after")
GREEDY = DecodingConfig(max_new_tokens=16, gamma=4)


@pytest.fixture(scope="module")
def engine(
    tiny_target: Any, tiny_folder: str, tmp_path_factory: pytest.TempPathFactory
) -> LocalEngine:
    drafters = {}
    for title in LANES[2:]:
        drafter = drafter_class("lstm").fresh(
            len(tiny_target.vocabulary.tokenizer),
            start_id=tiny_target.start_id,
            vocabulary=tiny_target.vocabulary.fingerprint,
            width=18,
            hidden=18,
            mixing=18,
        )
        drafters[title] = str(tmp_path_factory.mktemp(title))
        drafter.save(drafters[title])
    engine = LocalEngine(tiny_folder, drafters=drafters)
    engine.start()
    return engine


@pytest.fixture
def stories(story: str) -> list[str]:
    words = story.split()
    return [" ".join(words[start:]) for start in range(0, 12, 2)]


def asked(articles: list[str], config: DecodingConfig = GREEDY, **more: Any) -> Comparison:
    titles = tuple(compare.numbered(articles))
    values: dict[str, Any] = {"lanes": LANES, "seconds": 600, "seconds_each": 600}
    return Comparison(titles, tuple(articles), config=config, **(values | more))


def rows(comparison: Comparison, engine: LocalEngine) -> list[dict[str, Any]]:
    text = "".join(comparison.lines(engine, NEVER))
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_measures_what_the_evaluation_measures(
    engine: LocalEngine, stories: list[str], temperature: float
) -> None:
    """All but seconds: counts of every article and lane, and every estimate with its interval."""
    stories = stories[::2]
    config = DecodingConfig(max_new_tokens=16, gamma=4, temperature=temperature, seed=3)
    found = rows(asked(stories, config), engine)
    drafters: dict[str, Any] = {key: engine.drafter(key) for key in LANES[1:]}
    articles = [Article(str(index), text) for index, text in enumerate(stories)]
    expected = evaluate(engine.target, drafters, articles, config)
    measured = [row for row in found if row["row"] == "article"]
    assert [row["article"] for row in measured] == list(range(len(stories)))
    for row, entry in zip(measured, expected.rows[temperature], strict=True):
        lanes = {"alone": entry.alone, **entry.lanes[4]}
        assert [lane["key"] for lane in row["lanes"]] == list(LANES)
        for lane in row["lanes"]:
            for name in ("calls", "tokens", "drafted", "accepted", "same_text"):
                assert lane[name] == getattr(lanes[lane["key"]], name)
            if lane["key"] != "alone":
                assert lane["alpha"] == pytest.approx(entry.agreements[lane["key"]].alpha)
        assert row["cut"] == entry.cut
    (setting,) = report.summarise(expected)["settings"]
    table = measured[-1]["table"]
    for lane in table["lanes"][1:]:
        drafter = setting["drafters"][lane["key"]]
        assert lane["calls"] == drafter["gammas"]["4"]["target_calls"]
        assert lane["tau"] == drafter["gammas"]["4"]["tau"]
        assert lane["accepted"] == drafter["gammas"]["4"]["accepted_of_drafted"]
        assert lane["alpha"] == pytest.approx(drafter["alpha"])
    (pair,) = table["pairs"]
    assert (pair["before"], pair["after"]) == LANES[2:]
    assert pair["calls_ratio"] == setting["pairs"]["tiny"]["gammas"]["4"]["target_calls_ratio"]
    assert pair["tau"] == setting["pairs"]["tiny"]["gammas"]["4"]["tau_difference"]
    assert pair["alpha"] == pytest.approx(setting["pairs"]["tiny"]["alpha_difference"])


def test_the_rows_of_a_comparison(engine: LocalEngine, stories: list[str]) -> None:
    start, *middle, end = rows(asked(stories[:3], notices=("mind",)), engine)
    assert start["articles"] == ["article 1", "article 2", "article 3"]
    assert [lane["key"] for lane in start["lanes"]] == list(LANES)
    assert [row["row"] for row in middle] == ["begun", "article"] * 3
    assert [row["table"]["articles"] for row in middle[1::2]] == [1, 2, 3]
    assert middle[-1]["left"] == 0
    assert all(lane["seconds"] > 0 for lane in middle[-1]["lanes"])
    assert (end["ended"], end["articles"], end["notices"]) == ("done", 3, ["mind"])
    assert end["same"] == ["same", "Same text in all lanes on all 3 articles (checked)."]
    (said,) = end["said"]
    assert said.startswith("tiny: ")
    assert "more articles would tell" in said or "as many target calls" in said


def test_no_row_holds_a_word_of_an_article(engine: LocalEngine, stories: list[str]) -> None:
    text = "".join(asked(stories[:2]).lines(engine, NEVER)).lower()
    assert "mill" not in text
    assert "museum" not in text


def test_sampling_and_leniency_are_named(engine: LocalEngine, stories: list[str]) -> None:
    sampled = DecodingConfig(max_new_tokens=8, temperature=1.0)
    assert rows(asked(stories[:1], sampled), engine)[-1]["same"][0] == "sampled"
    lenient = DecodingConfig(
        max_new_tokens=8, temperature=1.0, verification="lenient", lenience=0.5
    )
    start, *_, end = rows(asked(stories[:1], lenient), engine)
    assert start["lossy"]
    assert end["same"][0] == "lossy"


def test_texts_that_differ_are_said_to() -> None:
    state, said = compare_words.compared_texts(True, False, 6, {"LSTM after distillation": 2})
    assert state == "differ"
    assert "LSTM after distillation on 2" in said


@pytest.mark.parametrize(
    ("ratio", "sure", "said"),
    [
        (0.7, -1, "30 % fewer target calls after distillation. It needed fewer on 5 of 6 article"),
        (0.9, 0, "fewer on 5 of 6 articles. That can be chance: more articles would tell."),
        (1.25, 1, "25 % more target calls"),
        (1.0, 0, "as many target calls after distillation as before"),
    ],
)  # fmt: skip
def test_what_distillation_changed(ratio: float, sure: int, said: str) -> None:
    assert said in compare_words.distilled("LSTM", ratio, sure, 5, 6)


def test_between_two_articles_the_device_is_anyones(
    engine: LocalEngine, stories: list[str]
) -> None:
    lines = asked(stories[:2]).lines(engine, NEVER)
    first = list(itertools.takewhile(lambda line: '"row":"article"' not in line, lines))
    assert len(first) == 2
    race = RaceJob(stories[0], ("alone", "lookup"), DecodingConfig(max_new_tokens=8))
    assert '"row":"end"' in "".join(engine.lines(race, threading.Event()))
    assert '"ended":"done"' in "".join(lines)


def test_a_comparison_that_is_stopped_keeps_what_it_has(
    engine: LocalEngine, stories: list[str]
) -> None:
    stop = threading.Event()
    found = []
    for line in asked(stories[:4]).lines(engine, stop):
        found.append(json.loads(line))
        if found[-1]["row"] == "article" and found[-1]["article"] == 1:
            stop.set()
    assert (found[-1]["ended"], found[-1]["articles"]) == ("stopped", 2)


def test_stop_is_heard_inside_an_article(engine: LocalEngine, stories: list[str]) -> None:
    stop = threading.Event()
    lines = Measure(stories[0], LANES, GREEDY, 600).lines(engine, stop)
    assert json.loads(next(lines))["row"] == "begun"
    stop.set()
    assert list(lines) == []


def test_the_device_is_had_for_so_many_seconds(
    engine: LocalEngine, stories: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows(asked(stories, seconds=0), engine)[-1] == {
        "row": "end",
        "ended": "deadline",
        "articles": 0,
        "same": ["", ""],
        "said": [],
        "notices": [compare_words.compared_early(0, 0, 6)],
    }
    # An article is said to take 40 seconds of the device, however quick this machine is.
    whole = Measure.lines
    given = []

    def slow(self: Measure, *rest: Any) -> Any:
        given.append(self.seconds)
        for line in whole(self, *rest):
            row = json.loads(line)
            yield json.dumps(row | {"seconds": 40.0}) + "\n"

    monkeypatch.setattr(Measure, "lines", slow)
    *_, end = rows(asked(stories, seconds=100, seconds_each=60), engine)
    assert given == [60, 60, 20]
    assert (end["ended"], end["articles"]) == ("deadline", 3)
    assert end["notices"] == [compare_words.compared_early(100, 3, 6)]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Articles that are really cut, as one is that takes longer than it may."""
    too_long: set[str] = set()
    whole = Measure.lines

    def lines(self: Measure, *rest: Any) -> Any:
        return whole(replace(self, seconds=0) if self.article in too_long else self, *rest)

    monkeypatch.setattr(Measure, "lines", lines)
    return too_long


def test_an_article_that_is_cut_is_left_out_and_named(
    engine: LocalEngine, stories: list[str], slow: set[str]
) -> None:
    """All else is as if it had not been given."""
    slow.update(stories[1:3])
    found = rows(asked(stories[:4], seconds_each=30), engine)
    kinds = [(row["row"], row.get("article")) for row in found[1:-1]]
    assert kinds == [
        ("begun", 0), ("article", 0), ("begun", 1), ("left_out", 1),
        ("begun", 2), ("left_out", 2), ("begun", 3), ("article", 3),
    ]  # fmt: skip
    end = found[-1]
    assert (end["ended"], end["articles"]) == ("done", 2)
    assert end["notices"] == [compare_words.left_out(30, ["article 2", "article 3"])]
    assert "article 2, article 3. Each was cut after 30 seconds" in end["notices"][0]
    others = rows(asked([stories[0], stories[3]]), engine)
    assert calls(found[-2]) == calls(others[-2])
    assert end["same"] == others[-1]["same"]
    result = compare.result_of(found)
    assert (result["asked"], result["table"]["articles"]) == (4, 2)
    assert [entry["title"] for entry in result["articles"]] == ["article 1", "article 4"]
    assert result["notices"] == end["notices"]


def calls(row: dict[str, Any]) -> list[Any]:
    return [lane["calls"] for lane in row["table"]["lanes"]]


@pytest.mark.parametrize("first", [0, 1])
def test_the_article_in_which_time_is_up_is_named(
    engine: LocalEngine, stories: list[str], slow: set[str], monkeypatch: Any, first: int
) -> None:
    """What was known before stays; the last article of all is no exception."""
    slow.add(stories[2])
    whole = Measure.lines

    def counted(self: Measure, *rest: Any) -> Any:
        """The cut article took all the time that it had."""
        for line in whole(self, *rest):
            row = json.loads(line)
            more = {"seconds": float(self.seconds)} if row["row"] == "cut" else {}
            yield json.dumps(row | more) + "\n"

    monkeypatch.setattr(Measure, "lines", counted)
    found = rows(asked(stories[first : 3 if first else 6], seconds=20, seconds_each=30), engine)
    *_, table, begun, left_out, end = found
    assert (begun["row"], left_out["row"]) == ("begun", "left_out")
    assert table["table"]["articles"] == end["articles"] == 2 - first
    assert end["ended"] == "deadline"
    early, named = end["notices"]
    assert early == compare_words.compared_early(20, 2 - first, len(found[0]["articles"]))
    assert f"article {3 - first}. It was cut after" in named
    assert end["said"]


def test_where_every_article_is_cut_it_says_what_to_do(
    engine: LocalEngine, stories: list[str], slow: set[str]
) -> None:
    slow.update(stories)
    found = rows(asked(stories[:2], seconds_each=30), engine)
    assert [row["row"] for row in found[1:-1]] == ["begun", "left_out"] * 2
    assert found[-1]["notices"] == [
        compare_words.left_out(30, ["article 1", "article 2"]), compare_words.NONE_COMPARED,
    ]  # fmt: skip
    assert compare.result_of(found)["table"] is None


def test_a_piece_can_be_sent_to_another_process(engine: LocalEngine, stories: list[str]) -> None:
    """As to the forked worker of a borrowed GPU."""
    first, second = asked(stories[:2]).pieces()
    copy = pickle.loads(pickle.dumps(first))
    assert copy == first
    assert (first.config.seed, second.config.seed) == (0, 1)
    _, measured = copy.lines(engine, NEVER)
    assert json.loads(measured)["numbers"]["alone"]["tokens"] > 0


def test_a_lane_that_could_not_be_loaded_is_refused_before_the_device_is_asked_for(
    tiny_target: Any, story: str
) -> None:
    class Unloaded:
        target = tiny_target

        def drafter(self, key: str) -> None:
            raise CheckpointError(f"{key} is damaged")

    with pytest.raises(CheckpointError, match="damaged"):
        Measure(story, ("alone", "lookup"), GREEDY, 9).check(Unloaded())


def test_what_is_compared(engine: LocalEngine, story: str) -> None:
    context = PageContext(engine, read_limits(environment={}), {})
    given = {"a": Checked(story, ("mind",)), "b": Checked(story, ("mind",))}
    found = compare.plan(context, given, ["tiny-after", "tiny-before"], GREEDY)
    assert found.lanes == ("alone", "tiny-before", "tiny-after")
    assert (found.titles, found.notices) == (("a", "b"), ("mind",))
    assert (found.seconds, found.seconds_each) == (120, 30)
    for lanes, reason in (
        (["alone"], "at least one lane with a drafter"),
        ([], "at least one lane with a drafter"),
        (["none such"], "none such"),
        ("tiny-after", "give a list"),
    ):
        with pytest.raises(DataError, match=reason):
            compare.plan(context, given, lanes, GREEDY)
