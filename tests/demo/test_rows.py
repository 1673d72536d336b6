import dataclasses
import json
from typing import Any

import pytest
import stories

from fastllm.decoding.race import Race
from fastllm.demo import rows, words
from fastllm.demo.folds.race import words as race_words
from fastllm.errors import DataError
from fastllm.trace import DecodingConfig, Judged, Round
from fastllm.vocabulary import Detokenizer

HOSTILE = (" <script>alert(1)</script>", " ${7*6}", " {{x}}", " <img src=x onerror=alert(1)>", "")


def parsed_rows(*more: Any, **settings: Any) -> list[dict[str, Any]]:
    keys, traces = stories.race(*more, **settings)
    return [json.loads(line) for line in rows.recorded_lines("r", keys, traces)]


def test_a_race_is_a_start_its_rounds_and_an_end() -> None:
    start, *rounds, end = parsed_rows()
    assert (start["row"], start["mode"]) == ("start", "recorded")
    assert [lane["title"] for lane in start["lanes"]] == [
        words.title_of(key) for key in ("alone", "lstm-before", "lstm-after")
    ]
    assert {row["row"] for row in rounds} == {"round"}
    assert [row["to"] for row in rounds] == sorted(row["to"] for row in rounds)
    assert end["row"] == "end"
    for lane, result in enumerate(end["lanes"]):
        assert result["calls"] == sum(row["lane"] == lane for row in rounds)


def test_each_lane_spells_its_text() -> None:
    _, *rounds, end = parsed_rows()
    for lane, result in enumerate(end["lanes"]):
        tokens = [token for row in rounds if row["lane"] == lane for token in row["tokens"]]
        assert "".join(t["t"] for t in tokens if t["s"] != "refused").strip() == result["text"]
        assert tokens[-1].get("end") or tokens[-2].get("end")


def test_all_four_states_and_the_plain_one_occur() -> None:
    _, *rounds, _ = parsed_rows()
    states = {token["s"] for row in rounds for token in row["tokens"]}
    assert states == {"accepted", "refused", "correction", "bonus", "plain"}


def test_a_round_carries_what_hovering_shows() -> None:
    _, *rounds, _ = parsed_rows()
    refused = next(t for row in rounds for t in row["tokens"] if t["s"] == "refused")
    test = refused["test"]
    assert test["raw"] == [0.02, 0.7]
    assert test["best"] == [[" nobody", 0.02], [" nobody", 0.05]]
    assert (test["p"], test["q"], test["u"], test["h"], test["o"]) == (0, 1, 0.5, 0, 0.5)
    assert test["ok"] is False
    dropped = [row["dropped"] for row in rounds if row["dropped"]]
    assert dropped
    assert {(token["s"], token["t"]) for token in dropped[0]} == {("dropped", " nobody")}
    correction = next(t for row in rounds for t in row["tokens"] if t["s"] == "correction")
    assert correction["p"] == 1
    assert correction["best"][0] == [correction["t"], 0.8]
    assert all(len(row["ms"]) == 3 for row in rounds)


def test_under_the_block_rule_every_guess_has_its_test() -> None:
    """A failed test before a passing one does not end the block, and its word stands."""

    def judged(token: int, uniform: float) -> Judged:
        return Judged(token, 0.4, 0.8, uniform, 0.5, 0.6, 0.4, 0.8)

    first = stories.FIRST
    names = {first + place: f" w{place}" for place in range(5)}
    entry = Round(
        kind="speculative",
        drafted=tuple(range(first, first + 4)),
        judged=tuple(judged(first + i, u) for i, u in enumerate((0.9, 0.1, 0.7, 0.7))),
        accepted=2,
        extra=first + 4,
        extra_p=0.3,
    )
    writer = rows.RoundWriter(1, names.__getitem__, lambda ids: {i: names[i] for i in ids}, [1])
    row = writer.row(entry, 1.0)
    states = [token["s"] for token in row["tokens"]]
    assert states == ["accepted", "accepted", "refused", "correction"]
    assert [token["test"]["ok"] for token in row["tokens"][:3]] == [False, True, False]
    assert [token["t"] for token in row["dropped"]] == [" w3"]
    assert row["dropped"][0]["test"]["u"] == 0.7
    assert "best" not in row["dropped"][0]["test"]


def test_a_row_is_small() -> None:
    """What hovering needs, rounded: a kilobyte or two a call of the target."""
    keys, traces = stories.race()
    alternatives = tuple((token, 1 / 7) for token in range(stories.FIRST, stories.FIRST + 5))
    full = [
        dataclasses.replace(
            trace,
            rounds=tuple(
                dataclasses.replace(
                    entry,
                    extra_best=alternatives,
                    judged=tuple(
                        dataclasses.replace(
                            test, p=1 / 3, q=1 / 7, uniform=1 / 9, overlap=2 / 3, p_unwarped=1 / 6,
                            q_unwarped=1 / 11, target_best=alternatives, drafter_best=alternatives,
                        )
                        for test in entry.judged
                    ),
                )
                for entry in trace.rounds
            ),
        )
        for trace in traces
    ]  # fmt: skip
    lines = list(rows.recorded_lines("r", keys, full))[1:-1]
    assert max(map(len, lines)) < 2500


def test_the_traces_come_whole_with_the_end() -> None:
    keys, traces = stories.race()
    lines = "".join(rows.recorded_lines("r", keys, traces))
    assert rows.traces_of(lines) == (keys, traces)
    deep = '{"row":"end","lanes":' + "[" * 100_000 + "\n"
    odd = lines.replace('"lanes":[', '"lanes":[7,', 1)
    for broken in (
        "", "nonsense", lines[: len(lines) // 2], '{"row":"end"}\n', '{"row":"a\n', deep, odd
    ):  # fmt: skip
        with pytest.raises(DataError, match="no whole race"):
            rows.traces_of(broken)


def test_what_was_set_stands_in_the_start() -> None:
    start = parsed_rows(config=DecodingConfig(temperature=0.7, seed=3))[0]
    assert (start["rule"], start["lossy"], start["greedy"]) == ("block", False, False)
    assert start["settings"]["temperature"] == 0.7
    assert list(start["settings"]) == list(rows.SETTINGS)
    lossy = DecodingConfig(temperature=1.0, verification="lenient", lenience=0.5)
    start, *_, end = parsed_rows(config=lossy)
    assert start["lossy"]
    assert end["same"][0] == "lossy"
    assert "LOSSY" in end["same"][1]


def test_clocks_include_encoding() -> None:
    _, *rounds, end = parsed_rows()
    assert min(row["from"] for row in rounds) == pytest.approx(0.02)
    for lane, result in enumerate(end["lanes"]):
        last = max(row["to"] for row in rounds if row["lane"] == lane)
        assert last == pytest.approx(result["seconds"], abs=1e-5)


def test_no_line_holds_markup() -> None:
    keys, traces = stories.race(HOSTILE, source=" ".join(HOSTILE) * 9, cut_at=100)
    text = "".join(rows.recorded_lines("r", keys, traces, article="<b>"))
    assert not set("<>&") & set(text)
    _, *rounds, end = (json.loads(line) for line in text.splitlines())
    assert end["lanes"][0]["text"] == "".join(HOSTILE).strip()
    assert rounds[0]["tokens"][0]["t"] in HOSTILE


def test_a_line_is_json_whatever_the_numbers_are() -> None:
    assert json.loads(rows.line({"a": float("nan"), "b": [float("inf"), 1.5]})) == {
        "a": None, "b": [None, 1.5],
    }  # fmt: skip


def test_line_separators_of_javascript_do_not_break_a_line() -> None:
    line = rows.line({"t": "a\u2028b\u2029c\nd"})
    assert line.splitlines() == [line.rstrip("\n")]
    assert json.loads(line) == {"t": "a\u2028b\u2029c\nd"}


def test_the_cut_is_shown_with_the_words_around_it() -> None:
    source = " ".join(str(number) for number in range(100))
    at = source.index("40")
    assert rows.cut(source, None) is None
    assert rows.cut(source, at) == {
        "percent": round(100 * at / len(source)),
        "before": "32 33 34 35 36 37 38 39",
        "after": "40 41 42 43 44 45 46 47",
    }


def test_texts_are_compared_token_by_token() -> None:
    _, (alone, before, after) = stories.race()
    assert rows.differ_at([alone, before, after]) is None
    shorter = stories.trace("x", (2,), stories.SUMMARY[:5])
    assert rows.differ_at([alone, shorter]) == 5  # its end token is not the fifth of the others
    halted = dataclasses.replace(before, rounds=before.rounds[:4], ended="stopped")
    assert rows.differ_at([alone, halted]) is None


def test_end_row_says_whether_the_texts_agree() -> None:
    keys, traces = stories.race()
    assert rows.end_row(keys, traces)["same"][0] == "same"
    other = dataclasses.replace(traces[1], config=DecodingConfig(temperature=1.0))
    assert rows.end_row(keys, [traces[0], other, traces[2]])["same"][0] == "sampled"
    short = stories.trace("x", (2,), stories.SUMMARY[:5])
    assert rows.end_row(keys, [traces[0], short, traces[2]])["same"][0] == "differ"
    halted = dataclasses.replace(traces[1], rounds=traces[1].rounds[:4], ended="deadline")
    row = rows.end_row(keys, [traces[0], halted, traces[2]])
    assert row["same"][0] == "unfinished"
    assert row["verdict"].startswith("The race was cut off, so nobody won.")
    assert "led up to there" in row["verdict"]
    assert row["lanes"][2]["speed_up"] is None


def test_the_verdict_names_winner_and_reason() -> None:
    keys, traces = stories.race()
    said = rows.end_row(keys, traces)["verdict"]
    calls = len(traces[2].rounds)
    assert said.startswith(f"LSTM after distillation won: {calls} target calls instead of 43")
    assert "(LSTM before: " in said


def test_what_is_neither_0_nor_1_does_not_become_one_of_them() -> None:
    given = [0.0, 1.0, 3.4e-7, 0.99999, 0.12341]
    assert [rows._short(value) for value in given] == [0, 1, 3.4e-7, 0.9999, 0.1234]


def test_the_verdict_is_honest() -> None:
    def result(
        key: str,
        calls: int,
        seconds: float,
        accepted: int = 5,
        *,
        tokens: int = 40,
        drafted: int = 10,
        drafting: float = 0.0,
    ) -> race_words.Result:
        title = words.title_of(key)
        return race_words.Result(key, title, calls, tokens, drafted, accepted, seconds, drafting)

    alone = result("alone", 40, 1.0)
    assert "No drafter saved a call" in race_words.verdict([alone, result("lookup", 40, 1.1, 0)])
    assert "tie" in race_words.verdict(
        [alone, result("lookup", 30, 0.5), result("lstm-after", 30, 0.5)]
    )
    assert "Nobody guessed" in race_words.verdict([alone])

    dear = result("lstm-after", 20, 1.5, drafting=0.6)
    assert race_words.verdict([alone, dear]).endswith("guessing takes time as well.")
    slow = race_words.verdict([alone, result("lstm-after", 20, 1.5, drafting=0.1)])
    assert "In seconds target alone was first this time, though not by guessing faster" in slow
    near = race_words.verdict([alone, result("lstm-after", 20, 1.05, drafting=0.6)])
    assert near.endswith("In seconds target alone was level with the winner.")
    assert "In seconds" not in race_words.verdict([alone, result("lstm-after", 20, 0.9)])

    few = result("lookup", 30, 0.5, 9)
    more = result("lstm-after", 20, 0.4, 25, drafted=40)
    assert "62 % of its guesses were accepted and it made more" in race_words.verdict(
        [alone, few, more]
    )


def test_texts_of_different_length_are_compared_a_token() -> None:
    alone = race_words.Result("alone", "alone", 50, 50, 0, 0, 1.0, 0.0)
    before = race_words.Result("lstm-before", "before", 18, 43, 80, 25, 0.4, 0.1)
    after = race_words.Result("lstm-after", "after", 21, 59, 97, 38, 0.5, 0.1)
    said = race_words.verdict([alone, before, after])
    assert said == (
        "After won: 2.8 tokens per target call instead of 1, because 39 % of its guesses were "
        "accepted (LSTM before: 31 %)."
    )
    nothing = race_words.Result("lstm-after", "after", 59, 59, 97, 0, 0.5, 0.1)
    assert "each got one token per call" in race_words.verdict([alone, nothing])


def test_a_live_race_writes_the_same_rows(tiny_target: Any, story: str) -> None:
    race = Race(tiny_target, [None], story, DecodingConfig(max_new_tokens=12))
    vocabulary = tiny_target.vocabulary
    ends = [tiny_target.end_id]
    writer = rows.RoundWriter(0, Detokenizer(vocabulary).push, vocabulary.names, ends)
    live = [writer.row(step.round, step.clock) for step in race]
    (trace,) = race.traces()
    stored = [json.loads(line) for line in rows.recorded_lines("r", ["alone"], [trace])][1:-1]
    # A random model writes broken characters, which a piece shows otherwise than a live view.
    tokens = [[t | {"t": ""} for row in rows for t in row["tokens"]] for rows in (stored, live)]
    assert json.loads(json.dumps(tokens[1])) == tokens[0]
    assert [row["to"] for row in stored] == pytest.approx([row["to"] for row in live], abs=1e-5)
