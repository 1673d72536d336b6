"""Distillation in seconds: it learns its articles, ends in time, and leaves the rest alone."""

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from fastllm.distill.live_training import WRITING, Moment, ShortRecipe, ShortTraining, student_of
from fastllm.distill.teacher import write_texts
from fastllm.distill.validation import GAMMA
from fastllm.drafters.lstm import LstmDrafter
from fastllm.errors import SettingsError, TrainingError
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

RECIPE = ShortRecipe(seconds=10, learning_rate=3e-3, length=12)


class Clock:
    """Goes on by 0.04 seconds each time that it is looked at."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.04
        return self.now


@pytest.fixture
def drafter(tiny_target: HubTarget) -> LstmDrafter:
    return LstmDrafter.fresh(
        tiny_target.model.config.vocab_size,
        width=48, hidden=32, mixing=32, vocabulary=tiny_target.vocabulary.fingerprint,
    )  # fmt: skip


@pytest.fixture
def training(
    tiny_target: HubTarget, story: str, drafter: LstmDrafter
) -> Callable[..., ShortTraining]:
    sentences = story.split(". ")
    ids = [tiny_target.vocabulary.encode(sentence, 96).ids for sentence in sentences]

    def make(recipe: ShortRecipe = RECIPE, **more: Any) -> ShortTraining:
        student = student_of(drafter, "student")
        more = {"clock": Clock()} | more
        return ShortTraining(student, tiny_target, ids[:3], ids[3:5], recipe, **more)

    return make


def finished(training: ShortTraining) -> list[Moment]:
    assert list(training.write()) == [1, 2, 3, 4, 5]
    return list(training.learn())


def test_it_learns_its_article_and_says_so(training: Callable[..., ShortTraining]) -> None:
    first, *between, last = finished(training())
    assert (first.updates, first.tokens, first.loss) == (0, 0, None)
    assert last.own.alpha > first.own.alpha + 0.1
    assert last.loss is not None
    assert 3 < len(between) < 10  # about one a second, of ten
    for before, after in zip([first, *between], [*between, last], strict=True):
        assert before.seconds < after.seconds
        assert before.updates < after.updates
        assert before.tokens < after.tokens
        assert 0 < after.held_out.alpha < 1
        assert 1 <= after.held_out.tau <= GAMMA + 1


def test_it_ends_after_so_many_updates_however_fast_the_machine(
    training: Callable[..., ShortTraining],
) -> None:
    clock = Clock()
    moments = finished(training(replace(RECIPE, updates=7), clock=clock))
    assert (moments[0].updates, moments[-1].updates) == (0, 7)
    recipe = ShortRecipe(seconds=10, updates=20)
    assert [recipe.passed(5, 1.0), recipe.passed(5, 9.0)] == [0.25, 0.9]


@pytest.mark.parametrize("own_texts", [0.0, 1.0])
def test_whose_texts_it_learns_from(
    training: Callable[..., ShortTraining], own_texts: float
) -> None:
    recipe = ShortRecipe(seconds=10, learning_rate=3e-3, length=12, own_texts=own_texts)
    first, *_, last = finished(training(recipe))
    assert last.own.alpha > first.own.alpha


def test_what_it_was_copied_from_stays_as_it_was(
    training: Callable[..., ShortTraining], drafter: LstmDrafter
) -> None:
    before = {name: weights.clone() for name, weights in drafter.model.state_dict().items()}
    lesson = training()
    finished(lesson)
    after = drafter.model.state_dict()
    assert all(torch.equal(after[name], weights) for name, weights in before.items())
    assert (lesson.student.name, lesson.student.vocabulary) == ("student", drafter.vocabulary)
    learned = lesson.student.model.state_dict()
    assert any(not torch.equal(learned[name], weights) for name, weights in before.items())


def test_decoding_goes_by_the_weights_as_they_are(
    training: Callable[..., ShortTraining], tiny_target: HubTarget
) -> None:
    """One text is drafted with weights laid out anew, which have to follow the training."""
    lesson = training(ShortRecipe(seconds=10, learning_rate=3e-3, length=12))
    list(lesson.write())
    source = list(lesson.sources[0])
    encoding = tiny_target.encode(source)
    uniforms = torch.zeros(1, dtype=torch.float64)
    config = DecodingConfig(gamma=1)
    for _ in lesson.learn():
        draft = lesson.student.begin(encoding).draft([0], 1, config, uniforms)
        with torch.no_grad():
            logits = lesson.student.model(torch.tensor([source]), torch.tensor([[0]]))[0, 0]
        assert torch.allclose(draft.unwarped(0), logits.softmax(-1), atol=1e-5)


def test_it_can_be_trained_where_somebody_decodes(training: Callable[..., ShortTraining]) -> None:
    with torch.inference_mode():
        moments = finished(training(ShortRecipe(seconds=10, learning_rate=3e-3, length=12)))
    assert moments[-1].own.alpha > moments[0].own.alpha


def test_every_end_token_of_the_target_ends_a_text(
    training: Callable[..., ShortTraining], tiny_target: HubTarget
) -> None:
    def own_texts() -> list[list[int]]:
        return lesson._own_texts(lesson.sources, torch.Generator().manual_seed(0))

    lesson = training()
    sources = list(lesson.sources)
    whole, drafted = write_texts(tiny_target, sources, length=12), own_texts()
    ends = 1, whole[0][4], drafted[0][4]
    model = copy.copy(tiny_target.model)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=0, eos_token_id=list(ends), pad_token_id=0
    )
    lesson.target = HubTarget(model, tiny_target.vocabulary, name="ends", source_length=96)
    list(lesson.write())
    found = [lesson._written[place] for place in range(len(sources))]
    assert found == write_texts(lesson.target, sources, length=12)
    assert len(found[0]) <= 5
    for text, longer in zip(own_texts(), drafted, strict=True):
        end = next((at for at, token in enumerate(longer, 1) if token in ends), len(longer))
        assert text == longer[:end]


def test_texts_may_be_as_long_as_the_target_can_write(
    training: Callable[..., ShortTraining], tiny_target: HubTarget
) -> None:
    lesson = training()
    lesson.target = copy.copy(tiny_target)
    lesson.target.longest_text = 12  # less than where no length is given
    list(lesson.write())
    own, held_out = lesson.measure(lesson.student)
    assert min(own.tau, held_out.tau) >= 1


def test_stop_ends_the_writing(training: Callable[..., ShortTraining]) -> None:
    stop = threading.Event()
    lesson = training(stop=stop)
    writing = lesson.write()
    next(writing)
    stop.set()
    assert list(writing) == []
    assert lesson.learned == []
    assert list(lesson.learn()) == []


def test_stop_ends_the_learning_with_a_last_moment(
    training: Callable[..., ShortTraining],
) -> None:
    stop = threading.Event()
    lesson = training(stop=stop)
    list(lesson.write())
    moments = lesson.learn()
    before = [next(moments), next(moments)]
    stop.set()
    assert [moment.updates for moment in moments] == [before[-1].updates]


def test_a_slow_target_writes_what_it_has_to(training: Callable[..., ShortTraining]) -> None:
    clock = Clock()
    lesson = training(clock=clock)
    for done in lesson.write():
        if done == 3:  # of the first article, and of those held out
            clock.now = RECIPE.seconds * WRITING + 1
    assert lesson.learned == [0]
    moments = list(lesson.learn())
    assert moments[-1].own.alpha > moments[0].own.alpha


def test_a_target_that_takes_all_the_time(training: Callable[..., ShortTraining]) -> None:
    clock = Clock()
    lesson = training(clock=clock)
    writing = lesson.write()
    next(writing)
    clock.now = RECIPE.seconds
    assert list(writing) == []
    assert list(lesson.learn()) == []


def test_the_rate_rises_stays_and_falls() -> None:
    recipe = ShortRecipe(learning_rate=1.0)
    rates = [recipe.rate(step, step / 100) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert set(rates[10:60]) == {1.0}
    assert rates[80] == pytest.approx(0.5)
    assert min(rates[60:]) == pytest.approx(0.05)


def test_a_loss_that_is_no_number_ends_it(training: Callable[..., ShortTraining]) -> None:
    lesson = training()
    list(lesson.write())
    moments = lesson.learn()
    next(moments)
    with torch.no_grad():
        lesson.student.model.embedding.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="nan"):
        next(moments)


@pytest.mark.parametrize("values", [{"seconds": 0}, {"seconds": float("nan")}, {"updates": 0}])
def test_a_recipe_out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(values))):
        ShortRecipe(**values)


def test_something_has_to_be_learned_and_something_held_out(
    tiny_target: HubTarget, drafter: LstmDrafter
) -> None:
    for sources, held_out in (([], [[5, 1]]), ([[5, 1]], [])):
        with pytest.raises(SettingsError, match="at least one of each"):
            ShortTraining(drafter, tiny_target, sources, held_out)
