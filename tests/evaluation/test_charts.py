import html
import json
import re
from functools import cache
from typing import Any

import pytest
from evaluations import hand_made
from plotly.offline import get_plotlyjs

from fastllm.evaluation import charts, report

SUMMARY = report.summarise(hand_made())


@cache
def page() -> str:
    """The page without the library of charts, which is somebody else's text."""
    whole = charts.page(SUMMARY)
    library = get_plotlyjs()
    assert whole.count(library) == 1
    return whole.replace(library, "")


def figures(key: str) -> list[dict[str, Any]]:
    """What the page draws under a heading."""
    section = page().split(f'<section id="{key}">')[1].split("</section>")[0]
    return [
        json.loads(text)
        for text in re.findall(r'<script type="application/json">(.*?)</script>', section)
    ]


def test_every_chart_is_there_with_a_sentence_on_how_to_read_it() -> None:
    assert {chart.key: len(chart.panels) for chart in charts.charts(SUMMARY)} == {
        "calls": 2,
        "pairs": 2,
        "depth": 4,
        "tau": 4,
        "speed": 2,
    }
    for chart in charts.charts(SUMMARY):
        assert len(figures(chart.key)) == len(chart.panels)
        assert html.escape(chart.title) in page()
        assert f"<p>{html.escape(chart.reading)}</p>" in page()


def test_the_page_reaches_for_nothing() -> None:
    assert not re.findall(r"https?:|//\w+\.|\bsrc=|\bhref=|@import|url\(", page())
    assert "default-src 'none'" in page()


def test_calls_are_drawn_with_their_intervals() -> None:
    bars = figures("calls")[0]["data"][0]
    assert bars["y"] == ["target alone", "article lookup, no training", "x before", "x after"]
    assert bars["x"] == [15, 4, 6, 3]
    assert bars["error_x"]["arrayminus"] == [3, 0, 0, 0]
    assert bars["error_x"]["array"] == [3, 0, 0, 0]
    assert bars["marker"]["color"][2:] == [charts.BEFORE, charts.AFTER]


def test_pairs_are_drawn_a_gamma_each() -> None:
    points = figures("pairs")[1]["data"][0]
    assert points["y"] == ["x, gamma 3", "x, gamma 5"]
    assert points["x"] == pytest.approx([0.8, 0.8])


def test_depth_stands_beside_the_geometric_curve_of_alpha() -> None:
    lookup, pair = figures("depth")[:2]
    assert [line["name"] for line in lookup["data"]][0] == "article lookup, no training"
    _, _, measured, model = pair["data"]
    assert measured["y"] == pytest.approx([0.75, 0.25, 0])
    assert model["y"] == pytest.approx([0.75**place for place in range(1, 6)])
    assert model["line"]["dash"] == "dash"


def test_tau_is_drawn_against_gamma() -> None:
    before, after, most = figures("tau")[1]["data"]
    assert before["x"] == after["x"] == [3, 5]
    assert before["y"] == pytest.approx([2.5, 2.5])
    assert after["y"] == pytest.approx([5, 5])
    assert most["y"] == [4, 6]


def test_speed_is_drawn_against_both_predictions() -> None:
    drawn = figures("speed")[0]["data"]
    tau, alpha = [entry for entry in drawn if entry.get("legendgroup") == "x-after"]
    assert tau["x"] == tau["y"] == alpha["y"] == pytest.approx([4, 4])
    lane = SUMMARY["settings"][0]["drafters"]["x-after"]["gammas"]
    assert alpha["x"] == [lane[gamma]["expected"]["speed_up_from_alpha"] for gamma in ("3", "5")]
    assert alpha["marker"]["symbol"].endswith("-open")


def test_the_numbers_of_the_tables_are_in_the_page() -> None:
    for section in report.sections(SUMMARY):
        for table in section.tables:
            for cell in (*table.header, *(cell for row in table.rows for cell in row)):
                assert f">{html.escape(cell)}<" in page()


def test_a_name_cannot_become_markup() -> None:
    made = hand_made()
    name = "</script><b>x"
    rows = {
        temperature: tuple(
            type(row)(
                **{
                    **vars(row),
                    "agreements": {name: row.agreements["lookup"]},
                    "lanes": {gamma: {name: lanes["lookup"]} for gamma, lanes in row.lanes.items()},
                }
            )
            for row in entries
        )
        for temperature, entries in made.rows.items()
    }
    hostile = type(made)(**{**vars(made), "target": name, "drafters": (name,), "rows": rows})
    whole = charts.page(report.summarise(hostile))
    assert "<b>x" not in whole.replace(get_plotlyjs(), "")


def test_without_a_drafter_there_are_tables_and_no_charts() -> None:
    made = hand_made()
    alone = report.summarise(type(made)(**{**vars(made), "drafters": ()}))
    assert charts.charts(alone) == []
    assert "target alone" in charts.page(alone)
