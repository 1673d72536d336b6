import dataclasses
import json
from typing import Any

import pytest
import stories

from fastllm.demo import texts, wire
from fastllm.race import Race
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Detokenizer

HOSTILE = (" <script>alert(1)</script>", " ${7*6}", " {{x}}", " <img src=x onerror=alert(1)>", "")


def rows(*more: Any, **settings: Any) -> list[dict[str, Any]]:
    keys, traces = stories.race(*more, **settings)
    return [json.loads(line) for line in wire.recorded_lines("r", keys, traces)]


def test_a_race_is_a_start_its_rounds_and_an_end() -> None:
    start, *rounds, end = rows()
    assert (start["row"], start["mode"]) == ("start", "recorded")
    assert [lane["title"] for lane in start["lanes"]] == [
        texts.title_of(key) for key in ("alone", "lstm-before", "lstm-after")
    ]
    assert {row["row"] for row in rounds} == {"round"}
    assert [row["to"] for row in rounds] == sorted(row["to"] for row in rounds)
    assert end["row"] == "end"
    for lane, result in enumerate(end["lanes"]):
        assert result["calls"] == sum(row["lane"] == lane for row in rounds)


def test_each_lane_spells_its_text() -> None:
    _, *rounds, end = rows()
    for lane, result in enumerate(end["lanes"]):
        tokens = [token for row in rounds if row["lane"] == lane for token in row["tokens"]]
        assert "".join(t["t"] for t in tokens if t["s"] != "refused").strip() == result["text"]
        assert tokens[-1].get("end") or tokens[-2].get("end")


def test_all_four_states_and_the_plain_one_occur() -> None:
    _, *rounds, _ = rows()
    states = {token["s"] for row in rounds for token in row["tokens"]}
    assert states == {"accepted", "refused", "correction", "bonus", "plain"}


def test_a_round_carries_what_hovering_shows() -> None:
    _, *rounds, _ = rows()
    refused = next(t for row in rounds for t in row["tokens"] if t["s"] == "refused")
    assert (refused["p"], refused["q"]) == (0.02, 0.7)
    assert refused["best"][0][1] == 0.02
    dropped = [row["dropped"] for row in rounds if row["dropped"]]
    assert dropped
    assert set(dropped[0]) == {" nobody"}


def test_clocks_include_encoding() -> None:
    _, *rounds, end = rows()
    assert min(row["from"] for row in rounds) == pytest.approx(0.02)
    for lane, result in enumerate(end["lanes"]):
        last = max(row["to"] for row in rounds if row["lane"] == lane)
        assert last == pytest.approx(result["seconds"], abs=1e-5)


def test_no_line_holds_markup() -> None:
    keys, traces = stories.race(HOSTILE, source=" ".join(HOSTILE) * 9, cut_at=100)
    text = "".join(wire.recorded_lines("r", keys, traces, article="<b>"))
    assert not set("<>&") & set(text)
    _, *rounds, end = (json.loads(line) for line in text.splitlines())
    assert end["lanes"][0]["text"] == "".join(HOSTILE).strip()
    assert rounds[0]["tokens"][0]["t"] in HOSTILE


def test_line_separators_of_javascript_do_not_break_a_line() -> None:
    line = wire.line({"t": "a\u2028b\u2029c\nd"})
    assert line.splitlines() == [line.rstrip("\n")]
    assert json.loads(line) == {"t": "a\u2028b\u2029c\nd"}


def test_the_cut_is_shown_with_the_words_around_it() -> None:
    source = " ".join(str(number) for number in range(100))
    at = source.index("40")
    assert wire.cut(source, None) is None
    assert wire.cut(source, at) == {
        "percent": round(100 * at / len(source)),
        "before": "32 33 34 35 36 37 38 39",
        "after": "40 41 42 43 44 45 46 47",
    }


def test_texts_are_compared_token_by_token() -> None:
    _, (alone, before, after) = stories.race()
    assert wire.differ_at([alone, before, after]) is None
    shorter = stories.trace("x", (2,), stories.SUMMARY[:5])
    assert wire.differ_at([alone, shorter]) == 5  # its end token is not the fifth of the others
    halted = dataclasses.replace(before, rounds=before.rounds[:4], ended="stopped")
    assert wire.differ_at([alone, halted]) is None


def test_end_row_says_whether_the_texts_agree() -> None:
    keys, traces = stories.race()
    assert wire.end_row(keys, traces)["same"][0] == "same"
    other = dataclasses.replace(traces[1], config=DecodingConfig(temperature=1.0))
    assert wire.end_row(keys, [traces[0], other, traces[2]])["same"][0] == "sampled"
    short = stories.trace("x", (2,), stories.SUMMARY[:5])
    assert wire.end_row(keys, [traces[0], short, traces[2]])["same"][0] == "differ"
    halted = dataclasses.replace(traces[1], rounds=traces[1].rounds[:4], ended="deadline")
    row = wire.end_row(keys, [traces[0], halted, traces[2]])
    assert row["same"][0] == "unfinished"
    assert row["verdict"] == ""
    assert row["lanes"][2]["speed_up"] is None


def test_the_verdict_names_winner_and_reason() -> None:
    keys, traces = stories.race()
    said = wire.end_row(keys, traces)["verdict"]
    calls = len(traces[2].rounds)
    assert said.startswith(f"LSTM after distillation won: {calls} target calls instead of 43")
    assert "LSTM before distillation: " in said


def test_the_verdict_is_honest() -> None:
    def result(key: str, calls: int, seconds: float, accepted: int = 5) -> texts.Result:
        return texts.Result(key, texts.title_of(key), calls, 40, 10, accepted, seconds)

    alone = result("alone", 40, 1.0)
    assert "No drafter saved a call" in texts.verdict([alone, result("lookup", 40, 1.1, 0)])
    assert "In seconds target alone was first" in texts.verdict([alone, result("lookup", 30, 1.2)])
    assert "tie" in texts.verdict([alone, result("lookup", 30, 0.5), result("lstm-after", 30, 0.5)])
    assert "Nobody guessed" in texts.verdict([alone])


def test_a_live_race_writes_the_same_rows(tiny_target: Any, story: str) -> None:
    race = Race(tiny_target, [None], story, DecodingConfig(max_new_tokens=12))
    vocabulary = tiny_target.vocabulary
    writer = wire.RoundWriter(0, Detokenizer(vocabulary).push, vocabulary.names, tiny_target.end_id)
    live = [writer.row(step.round, step.clock) for step in race]
    (trace,) = race.traces()
    stored = [json.loads(line) for line in wire.recorded_lines("r", ["alone"], [trace])][1:-1]
    # A random model writes broken characters, which a piece shows otherwise than a live view.
    tokens = [[t | {"t": ""} for row in rows for t in row["tokens"]] for rows in (stored, live)]
    assert json.loads(json.dumps(tokens[1])) == tokens[0]
    assert [row["to"] for row in stored] == pytest.approx([row["to"] for row in live], abs=1e-5)
