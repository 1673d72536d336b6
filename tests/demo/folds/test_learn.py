"""A drafter that learns in view: what is learned from, what is shown, and that nothing is kept."""

import gc
import json
import pickle
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import stories
import torch

from fastllm.demo import rows, words
from fastllm.demo.articles import samples
from fastllm.demo.context import PageContext
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.keep import rerun_code
from fastllm.demo.folds.learn import learn
from fastllm.demo.folds.learn import words as learn_words
from fastllm.demo.folds.learn.learn import LiveTrainingJob, students
from fastllm.demo.folds.plots import race_stats
from fastllm.demo.limits import Limits, read_limits
from fastllm.demo.page import build
from fastllm.distill import live_training
from fastllm.drafters.lstm import LstmDrafter
from fastllm.errors import DataError, SettingsError
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

LIMITS: Limits = read_limits(environment={})
CONFIG = DecodingConfig(max_new_tokens=12)
GO = threading.Event()
"""Is never set."""


@pytest.fixture(scope="module")
def engine(
    tiny_target: HubTarget, tiny_folder: str, tmp_path_factory: pytest.TempPathFactory
) -> LocalEngine:
    """A tiny target, an LSTM before and one after distillation."""
    folder = tmp_path_factory.mktemp("models")
    drafters = {}
    for seed, title in enumerate(("lstm-before", "lstm-after")):
        drafter = LstmDrafter.fresh(
            len(tiny_target.vocabulary.tokenizer),
            seed=seed,
            start_id=tiny_target.start_id,
            vocabulary=tiny_target.vocabulary.fingerprint,
            width=18,
            hidden=18,
            mixing=18,
        )
        drafters[title] = str(folder / title)
        drafter.save(folder / title)
    engine = LocalEngine(tiny_folder, drafters=drafters)
    engine.start()
    return engine


class Clock:
    """Goes on by a tenth of a second each time that it is looked at."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


@pytest.fixture(autouse=True)
def _short_and_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training is as long on a slow machine as on a fast one, and about short texts."""
    made = live_training.ShortTraining
    monkeypatch.setattr(live_training, "ShortTraining", lambda *given: made(*given, Clock()))
    monkeypatch.setattr(live_training, "ShortRecipe", partial(live_training.ShortRecipe, length=12))


@pytest.fixture
def lesson(engine: LocalEngine, story: str) -> LiveTrainingJob:
    context = PageContext(engine, LIMITS, samples())
    return learn.plan(context, story, CONFIG)


def parsed(lines: Iterator[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for text in lines for line in text.splitlines()]


def test_the_undistilled_lstm_is_copied_first() -> None:
    offered = [
        "alone",
        "lookup",
        "lookup+lstm-after",
        "lstm-after+lookup",
        "mine",
        "lstm-after",
        "cnn-before",
    ]
    offered += ["lstm-before", "ngram-before", "shared-before"]
    assert students(offered) == ("lstm-before", "cnn-before", "mine", "lstm-after")
    assert students(["alone", "lookup", "ngram-after"]) == ()


def test_what_is_learned_from_and_what_is_held_out(engine: LocalEngine, story: str) -> None:
    known = samples()
    context = PageContext(engine, LIMITS, known)
    title, text = list(known.items())[-1]
    for article, own in ((text, title), (story, "")):
        lesson = learn.plan(context, article, CONFIG)
        assert lesson.title == own
        assert len(lesson.held_out) == learn.HELD_OUT
        assert len(lesson.learns) == len(known) - learn.HELD_OUT - (1 if own else 0)
        seen = {lesson.article, *lesson.learns.values()}
        assert not seen & set(lesson.held_out.values())
        assert lesson.seconds == LIMITS.training_seconds + LIMITS.seconds_per_run


@pytest.mark.parametrize("article", ["", " ", "two words", "word " * 9000, "\0" * 400, None, 3])
def test_an_article_that_cannot_be_raced_is_refused(engine: LocalEngine, article: Any) -> None:
    with pytest.raises(DataError):
        learn.plan(PageContext(engine, LIMITS, samples()), article, CONFIG)


def test_it_learns_in_view_and_then_races(engine: LocalEngine, lesson: LiveTrainingJob) -> None:
    lesson = pickle.loads(pickle.dumps(lesson))  # as it reaches a process that borrowed a GPU
    before = {
        key: {name: weights.clone() for name, weights in drafter.model.state_dict().items()}
        for key in ("lstm-before", "lstm-after")
        if isinstance(drafter := engine.drafter(key), LstmDrafter)
    }
    lines = "".join(engine.lines(lesson, GO))
    at = lines.index(learn.RACE_STARTS)
    first, *others = parsed(iter([lines[:at]]))
    assert (first["row"], first["title"]) == ("lesson", "your freshly trained LSTM")
    assert first["held_out"] == list(lesson.held_out)
    kinds = [row["row"] for row in others]
    assert kinds[: first["texts"]] == ["writing"] * first["texts"]
    assert kinds[first["texts"] : first["texts"] + 3] == ["written", "shipped", "moment"]
    assert kinds[-2:] == ["moment", "taught"]
    moments = [row for row in others if row["row"] == "moment"]
    assert moments[0]["updates"] == 0
    assert len(moments) > 5
    assert others[-1]["updates"] == moments[-1]["updates"] > 10
    assert f"{moments[0]['own'][0]:.2f} to {moments[-1]['own'][0]:.2f}" in others[-1]["said"][0]

    keys, traces = rows.traces_of(lines[at:])
    assert keys == ["alone", "lstm-before", "lstm-yours", "lstm-after"]
    assert len({trace.text for trace in traces}) == 1
    start, *_, end = parsed(iter([lines[at:]]))
    assert start["notices"][0] == learn_words.PRACTISED.format("Your freshly trained LSTM")
    assert end["same"][0] == "same"
    assert "Left out: your freshly trained LSTM" in end["code"]
    assert [entry["title"] for entry in race_stats.summarise(keys, traces)][2] == first["title"]

    for key, weights in before.items():
        drafter = engine.drafter(key)
        assert isinstance(drafter, LstmDrafter)
        now = drafter.model.state_dict()
        assert all(torch.equal(now[name], tensor) for name, tensor in weights.items())


def test_nothing_of_it_is_kept(
    engine: LocalEngine, lesson: LiveTrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Any]] = []

    def watched(*given: Any) -> Any:
        student = learn_student_of(*given)
        made.append(weakref.ref(student.model))
        return student

    learn_student_of = live_training.student_of
    monkeypatch.setattr(live_training, "student_of", watched)
    for _ in engine.lines(replace(lesson, training_seconds=12), GO):
        assert made[0]() is not None
    gc.collect()
    assert made[0]() is None


def test_stop_ends_the_training_without_a_race(
    engine: LocalEngine, lesson: LiveTrainingJob
) -> None:
    stop = threading.Event()
    lines = engine.lines(lesson, stop)
    rows = []
    for text in lines:
        rows += parsed(iter([text]))
        if sum(row["row"] == "moment" for row in rows) == 2:
            stop.set()
    assert rows[-1]["row"] == "moment"
    assert not any(row["row"] in ("taught", "start") for row in rows)
    assert parsed(engine.lines(replace(lesson, training_seconds=1), GO))  # the device is free


def test_a_target_that_takes_all_the_time_is_said(
    engine: LocalEngine, lesson: LiveTrainingJob
) -> None:
    *_, row = parsed(engine.lines(replace(lesson, training_seconds=1), GO))
    assert row == {
        "row": "taught", "updates": 0, "race": False, "said": [learn_words.NO_TIME.format(1)],
    }  # fmt: skip


def test_the_lanes_are_no_more_than_the_page_races(
    engine: LocalEngine, lesson: LiveTrainingJob
) -> None:
    for most, keys in (
        (2, ["lstm-before", "lstm-yours"]),
        (3, ["alone", "lstm-before", "lstm-yours"]),
    ):
        small = replace(lesson, lanes=most, training_seconds=12)
        start = next(row for row in parsed(engine.lines(small, GO)) if row["row"] == "start")
        assert [lane["key"] for lane in start["lanes"]] == keys


def test_without_a_drafter_to_train_it_is_refused(
    engine: LocalEngine, lesson: LiveTrainingJob
) -> None:
    with pytest.raises(SettingsError, match="no drafter that can be trained"):
        replace(lesson, candidates=("lookup",)).check(engine)
    lesson.check(engine)


def test_the_fold_says_why_there_is_nothing_to_train(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown() -> tuple[str, set[str]]:
        page = build(engine, LIMITS, Path("nothing recorded"))
        blocks = page.blocks.values()
        values = [str(block.value) for block in blocks if isinstance(block, gr.HTML)]
        buttons = {block.elem_id for block in blocks if isinstance(block, gr.Button)}
        return " ".join(values), {name for name in buttons if name}

    assert "fl-learn-go" in shown()[1]
    monkeypatch.setattr(engine, "keys", ["alone", "lookup"])
    said, buttons = shown()
    assert words.because(learn_words.NO_STUDENT) in said
    assert "fl-learn-go" not in buttons


@pytest.mark.parametrize(
    ("before", "now", "word"), [(0.5, 0.6, "how sure"), (0.5, 0.51, "flat"), (0.5, 0.4, "fell")]
)
def test_what_is_flat_is_called_flat(before: float, now: float, word: str) -> None:
    said = learn_words.learned_held_out(
        (before, 3.0), (now, 4.0), "LSTM after distillation", (0.7, 5.0)
    )
    assert "3.0 tokens per call before and 4.0 now, against 5.0." in said
    assert word in said
    assert "LSTM after distillation has 0.70" in said
    assert "has" not in learn_words.learned_own(before, now, "", None).split(".")[0]


def test_what_lanes_are_called() -> None:
    assert learn_words.yours_of("lstm-before") == learn_words.yours_of("lstm-after") == "lstm-yours"
    assert words.title_of("lstm-yours") == "your freshly trained LSTM"
    assert words.title_of("t5-yours") == "your freshly trained T5"
    assert words.title_of(learn_words.yours_of("Mine")) == "your freshly trained Mine"


def test_the_code_to_take_home_leaves_out_what_is_gone() -> None:
    traces = [stories.trace(name, (1,)) for name in ("", "before", "yours")]
    code = rerun_code.code(["alone", "lstm-before", "lstm-yours"], traces)
    assert "'lstm-before'" in code
    assert "'lstm-yours'" not in code
    assert "# Left out: your freshly trained LSTM." in code
    compile(code.replace(rerun_code.ARTICLE, "''"), "code", "exec")
