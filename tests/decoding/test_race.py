import threading
from dataclasses import replace

import pytest
from fakes import FakeTarget, RuleDrafter, always, random_rule, text_rule

from fastllm.decoding.race import Race
from fastllm.errors import DataError, SettingsError, VocabularyError
from fastllm.targets import resolve
from fastllm.trace import DecodingConfig, Trace

TEXT = [4, 7, 4, 9, 3, 5, 7, 4, 9, 8, 1]
SIZE = 12


def raced(drafters: list, config: DecodingConfig, seconds: float = 0.0) -> list[Trace]:
    race = Race(FakeTarget(random_rule(SIZE, seed=3), seconds=seconds), drafters, "words", config)
    list(race)
    return race.traces()


def choices(trace: Trace) -> list[tuple[object, ...]]:
    return [(entry.drafted, entry.accepted, entry.extra, entry.judged) for entry in trace.rounds]


def test_greedy_lanes_write_the_same_text() -> None:
    drafters = [RuleDrafter(random_rule(SIZE, seed=seed)) for seed in (3, 4)]
    traces = raced([None, *drafters], DecodingConfig(max_new_tokens=20))
    assert len({trace.tokens for trace in traces}) == 1
    assert len({trace.text for trace in traces}) == 1
    assert [trace.drafter for trace in traces] == ["", "rule", "rule"]
    assert len(traces[1].rounds) < len(traces[0].rounds)


def test_the_lane_furthest_behind_moves_next() -> None:
    target = FakeTarget(text_rule(TEXT, SIZE), seconds=0.002)
    slow = RuleDrafter(random_rule(SIZE, seed=1), seconds=0.005)
    race = Race(target, [None, slow, always(TEXT)], "words", DecodingConfig())
    order = [step.lane for step in race]
    traces = race.traces()
    clocks = [trace.target_encode_seconds + trace.drafter_encode_seconds for trace in traces]
    left = [len(trace.rounds) for trace in traces]
    moved = [0, 0, 0]
    for lane in order:
        running = [other for other in range(3) if left[other] > 0]
        assert clocks[lane] == min(clocks[other] for other in running)
        clocks[lane] += traces[lane].rounds[moved[lane]].total_seconds
        moved[lane] += 1
        left[lane] -= 1
    assert left == [0, 0, 0]
    assert order.index(2, order.index(2) + 1) < len(order) - 1


def test_a_step_carries_the_clock_of_its_lane() -> None:
    race = Race(FakeTarget(text_rule(TEXT, SIZE)), [None, always(TEXT)], "words", DecodingConfig())
    steps = list(race)
    for lane, trace in enumerate(race.traces()):
        clock = trace.target_encode_seconds + trace.drafter_encode_seconds
        for step in (step for step in steps if step.lane == lane):
            clock += step.round.total_seconds
            assert step.clock == pytest.approx(clock)


def test_lanes_do_not_disturb_each_other() -> None:
    config = DecodingConfig(temperature=1.0, max_new_tokens=20, seed=5)

    def drafter() -> RuleDrafter:
        return RuleDrafter(random_rule(SIZE, seed=4))

    together = raced([None, drafter(), drafter()], config)
    assert choices(together[0]) == choices(raced([None], config)[0])
    assert choices(together[1]) == choices(raced([drafter()], config)[0])
    assert choices(together[1]) == choices(together[2])
    other = raced([None, drafter()], replace(config, seed=6))
    assert choices(other[1]) != choices(together[1])


def test_a_trace_says_what_it_is_of() -> None:
    config = DecodingConfig(max_new_tokens=30)
    article = "a" * 100
    target = FakeTarget(text_rule(TEXT, SIZE), source_length=10)
    race = Race(target, [None, always(TEXT)], article, config)
    list(race)
    alone, drafted = race.traces()
    assert alone.source == drafted.source == article
    assert alone.cut_at == 9
    assert alone.config == replace(resolve(config, target), verification="token")
    assert (alone.target, alone.drafter, drafted.drafter) == ("fake", "", "always")
    assert alone.vocabulary == "letters"
    assert alone.hardware
    assert {"python", "torch", "transformers"} <= set(alone.versions)
    assert "".join(alone.pieces) == alone.text
    assert len(alone.pieces) == len(alone.tokens)
    assert alone.ended == drafted.ended == "end_of_text"
    assert set(alone.tokens) <= set(alone.names)
    best = [token for entry in alone.rounds for token, _ in entry.extra_best]
    assert set(best) <= set(alone.names)


def test_a_trace_says_what_of_the_target_is_not_applied() -> None:
    target = FakeTarget(text_rule(TEXT, SIZE))
    assert "settings not applied" not in traced(target).versions
    target.unsupported = ("num_beams=4", "length_penalty=2.0")
    assert traced(target).versions["settings not applied"] == "num_beams=4, length_penalty=2.0"


def traced(target: FakeTarget) -> Trace:
    race = Race(target, [None], "words", DecodingConfig(max_new_tokens=2))
    list(race)
    return race.traces()[0]


def test_a_text_cut_at_its_length_says_so() -> None:
    traces = raced([None, always(TEXT)], DecodingConfig(max_new_tokens=3))
    assert [trace.ended for trace in traces] == ["length", "length"]


def test_stop_ends_the_race_behind_the_round_in_progress() -> None:
    stop = threading.Event()
    race = Race(
        FakeTarget(text_rule(TEXT, SIZE)), [None, None], "words", DecodingConfig(), stop=stop
    )
    steps = []
    for step in race:
        steps.append(step)
        if len(steps) == 3:
            stop.set()
    assert len(steps) == 3
    assert [trace.ended for trace in race.traces()] == ["stopped", "stopped"]
    assert sum(len(trace.rounds) for trace in race.traces()) == 3
    for trace in race.traces():
        assert list(trace.tokens) == TEXT[: len(trace.tokens)]


def test_the_deadline_ends_the_race() -> None:
    target = FakeTarget(text_rule(TEXT, SIZE), seconds=0.02)
    race = Race(target, [None], "words", DecodingConfig(), deadline_seconds=0.03)
    assert 1 <= len(list(race)) < len(TEXT)
    assert race.traces()[0].ended == "deadline"


def test_an_unfinished_race_has_traces_too() -> None:
    race = Race(FakeTarget(text_rule(TEXT, SIZE)), [None], "words", DecodingConfig())
    steps = iter(race)
    next(steps)
    trace = race.traces()[0]
    assert (len(trace.rounds), trace.ended) == (1, "stopped")


def test_a_race_needs_lanes_and_an_article() -> None:
    target = FakeTarget(text_rule(TEXT, SIZE))
    with pytest.raises(SettingsError, match="at least one lane"):
        Race(target, [], "words", DecodingConfig())
    with pytest.raises(DataError, match="empty"):
        Race(target, [None], " \n\t ", DecodingConfig())


def test_a_drafter_of_another_vocabulary_is_refused() -> None:
    target = FakeTarget(text_rule(TEXT, SIZE))
    foreign = RuleDrafter(random_rule(SIZE), name="foreign", vocabulary="runes")
    with pytest.raises(VocabularyError, match="foreign was made for vocabulary runes.*letters"):
        Race(target, [None, foreign], "words", DecodingConfig())
