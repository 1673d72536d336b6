"""Tables as Markdown, and how a number stands with its range."""

from fastllm.evaluation.tables import Section, Table, bracketed, markdown

WHOLE = Table("Numbers", "Of a kind.", ("name", "n"), (("a|b", "1"),))


def test_a_report_stands_in_order_and_leaves_out_what_is_empty() -> None:
    empty = Table("Nothing", "", ("name",), ())
    section = Section.of("Part", ["One.", "Two."], empty, WHOLE)
    assert section == Section("Part", ("One.", "Two."), (WHOLE,))
    assert markdown("All", ["First."], [section, Section.of("Bare", [])]).split("\n") == [
        *("# All", "", "First.", "", "## Part", "", "One.", "", "Two.", ""),
        *("### Numbers", "", "Of a kind.", "", "| name | n |", "|---|---|", "| a\\|b | 1 |", ""),
        "## Bare",
    ]
    assert empty.markdown() == "### Nothing\n\n| name |\n|---|"


def test_a_number_stands_with_its_range() -> None:
    assert bracketed({"value": 0.5, "low": 0.25, "high": 1}) == "0.50 [0.25, 1.00]"
    assert bracketed({"median": 3, "low": 2, "high": 4}, 0, middle="median") == "3 [2, 4]"
    share = {"value": 0.125, "low": 0.1, "high": 0.2}
    assert bracketed(share, 1, scale=100, unit=" %") == "12.5 [10.0, 20.0] %"
    assert bracketed(None) == "-"
