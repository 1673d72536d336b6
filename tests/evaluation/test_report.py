import dataclasses
import json

import pytest
from evaluations import hand_made

from fastllm.evaluation import report
from fastllm.trace import DecodingConfig

SUMMARY = report.summarise(hand_made())
GREEDY, SAMPLED = SUMMARY["settings"]


def value(estimate: dict[str, float]) -> float:
    assert estimate["low"] <= estimate["value"] <= estimate["high"]
    return estimate["value"]


def parse(markdown: str) -> list[list[list[str]]]:
    """Every table of a Markdown text as rows of cells, the header first."""
    tables: list[list[list[str]]] = []
    last = ""
    for line in markdown.splitlines():
        if line.startswith("|"):
            if not last.startswith("|"):
                tables.append([])
            if not line.startswith("|--"):
                tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
            else:
                assert line.strip("|").split("|") == ["---"] * len(tables[-1][0])
        last = line
    return tables


def test_a_lane_by_hand() -> None:
    after = GREEDY["drafters"]["x-after"]
    assert value(after["alpha"]) == 0.75
    assert after["drafted_share"] == 1
    lane = after["gammas"]["5"]
    assert value(lane["target_calls"]) == 3
    assert value(lane["tau"]) == pytest.approx(30 / 6)
    assert value(lane["accepted_of_drafted"]) == pytest.approx(2 / 3)
    assert value(lane["speed_up_decoding"]) == pytest.approx(4)
    assert value(lane["speed_up_with_encoding"]) == pytest.approx(2.5)
    assert value(GREEDY["alone"]["tau"]) == 1


def test_acceptance_by_position_by_hand() -> None:
    rows = GREEDY["drafters"]["x-after"]["gammas"]["5"]["acceptance_by_position"]
    assert [(row["judged"], row["accepted"]) for row in rows] == [(8, 6), (6, 2), (2, 0)]
    assert [row["share"] for row in rows] == pytest.approx([3 / 4, 1 / 3, 0])
    assert [row["reached"] for row in rows] == pytest.approx([3 / 4, 1 / 4, 0])


def test_predictions_by_hand() -> None:
    expected = GREEDY["drafters"]["x-after"]["gammas"]["5"]["expected"]
    step = 4 / 30  # seconds of a one-token call: 2 + 2 seconds for 12 + 18 tokens
    assert expected["c"] == pytest.approx(0.1 / 12 / step)
    assert expected["v"] == pytest.approx(0.9 / 6 / step)
    # Nothing but drafting and verifying takes time here, so the prediction is what was measured.
    assert expected["speed_up_from_tau"] == pytest.approx(4)
    assert expected["speed_up_from_tau_with_encoding"] == pytest.approx(2.5)
    c, v, tau = expected["c"], expected["v"], (1 - 0.75**6) / 0.25
    assert expected["speed_up_from_alpha"] == pytest.approx(tau / (5 * c + v))


def test_a_greedy_pair_by_hand() -> None:
    pair = GREEDY["pairs"]["x"]
    assert (pair["before"], pair["after"]) == ("x-before", "x-after")
    assert value(pair["alpha_difference"]) == 0.5
    entry = pair["gammas"]["3"]
    assert value(entry["target_calls_ratio"]) == 0.5
    assert value(entry["target_calls_difference"]) == -3
    assert value(entry["tau_difference"]) == pytest.approx(30 / 6 - 30 / 12)
    assert value(entry["accepted_of_drafted_difference"]) == pytest.approx(8 / 12 - 4 / 20)
    assert value(entry["seconds_ratio"]) == pytest.approx(2 / 3)


def test_a_sampled_pair_is_compared_a_token() -> None:
    entry = SAMPLED["pairs"]["x"]["gammas"]["3"]
    # before: 12 calls for 18 + 30 tokens; after: 6 for 12 + 18.
    assert value(entry["target_calls_ratio"]) == pytest.approx((6 / 30) / (12 / 48))
    assert entry["target_calls_difference"] is None
    lane = SAMPLED["drafters"]["x-before"]["gammas"]["3"]
    # 12 calls for 48 tokens are 3.75 for the 15 that the target alone writes.
    assert value(lane["target_calls"]) == pytest.approx(3.75)
    assert value(lane["seconds"]) == pytest.approx(0.5 + 30 / 48)
    # Plain decoding takes 2 s for 12 and for 18 tokens, so 3 s and 10/3 s for 18 and 30.
    assert value(lane["speed_up_decoding"]) == pytest.approx((3 + 10 / 3) / 2)


def test_lanes_stand_in_pairs_and_pairs_are_found_by_name() -> None:
    assert SUMMARY["drafters"] == ["lookup", "x-before", "x-after"]
    names = ["lookup", "a-after", "a-before", "b-before", "c-after"]
    assert report.pairs(names) == [("a", "a-before", "a-after")]
    assert report.ordered(names) == ["lookup", "b-before", "c-after", "a-before", "a-after"]


def test_names_for_people() -> None:
    names = ["alone", "lookup", "t5-after", "ngram-before", "runs/odd"]
    assert [report.lane_label(name) for name in names] == [
        "target alone",
        "article lookup, no training",
        "T5 after",
        "n-gram before",
        "runs/odd",
    ]


def test_markdown_tables_are_whole_and_hold_the_numbers() -> None:
    shown = report.markdown(SUMMARY)
    tables = parse(shown)
    assert all(len(row) == len(table[0]) for table in tables for row in table)
    assert len(tables) == 2 * 5
    lanes = tables[0]
    assert [row[0] for row in lanes[1:]] == [
        "target alone",
        "article lookup, no training",
        "x before",
        "x after",
    ]
    after = dict(zip(lanes[0], lanes[4], strict=True))
    assert after["target calls"] == "3.0 [3.0, 3.0]"
    assert after["tau, gamma 3"] == "5.00 [4.00, 6.00]"
    assert after["alpha"] == "0.750 [0.750, 0.750]"
    bits = [row[lanes[0].index("bits a token")] for row in lanes[1:]]
    assert bits == ["0.50", "-", "2.50 (+2.00)", "1.25 (+0.75)"]
    assert after["speed-up, decoding"] == "4.00 [4.00, 4.00]"
    pair = tables[1]
    assert [row[:2] for row in pair[1:]] == [["x", "3"], ["x", "5"]]
    assert pair[1][-1] == "fewer calls"
    assert "copied from the article 25.0 [25.0, 25.0] %" in shown
    assert "no_repeat_ngram 3" in shown
    assert "Every lane wrote the target's own text" in shown
    assert "too narrow to be believed" in shown
    assert "Interrupted" not in shown


def test_each_temperature_names_its_rule() -> None:
    assert (GREEDY["rule"], SAMPLED["rule"]) == ("token verification", "block verification")
    greedy, sampled = report.sections(SUMMARY)
    assert "Token verification." in greedy.sentences
    assert "Block verification." in sampled.sentences
    notes = [table.note for section in (greedy, sampled) for table in section.tables]
    assert sum("whose predecessors stand" in note for note in notes) == 1
    assert "ossy" not in report.markdown(SUMMARY)
    adaptive = dataclasses.replace(
        hand_made(), config=DecodingConfig(draft_length="adaptive", draft_cost=0.1)
    )
    shown = report.markdown(report.summarise(adaptive))
    assert shown.count("Draft length: adaptive (c 0.1, call cost 0.09)") == 2


def test_what_of_the_target_is_not_applied_is_said() -> None:
    noted = dataclasses.replace(hand_made(), notice="the target asks for num_beams=4.")
    assert "Note: the target asks for num_beams=4." in report.markdown(report.summarise(noted))


def test_the_report_says_what_went_wrong() -> None:
    summary = report.summarise(hand_made(asked=100, other_text=True))
    shown = report.markdown(summary)
    assert "Interrupted: 100 articles" in shown
    assert "Of 4 greedy texts a lane, these were NOT the target's own: x after 2." in shown
    assert not hand_made(other_text=True).same_text
    assert hand_made().same_text


def test_the_headline_is_the_default_gamma_or_the_middle_one() -> None:
    made = hand_made()
    assert made.headline_gamma == 5
    assert hand_made().__class__(**{**vars(made), "gammas": (2, 3, 4)}).headline_gamma == 3


def test_json_round_trips_with_every_article() -> None:
    tree = json.loads(json.dumps(report.to_json(hand_made())))
    assert [entry["temperature"] for entry in tree["rows"]] == [0, 1]
    row = tree["rows"][0]["articles"][1]
    assert row["agreements"]["x-after"]["agrees"] == "1110"
    assert [entry["gamma"] for entry in row["lanes"]] == [3, 5]
    assert row["lanes"][0]["x-before"]["calls"] == 6
    assert tree["settings"] == json.loads(json.dumps(SUMMARY["settings"]))
