"""The story gate: its arithmetic by hand, and a race of scripted drafters."""

import pytest
from fakes import END, FakeTarget, ScriptedDrafter, always, text_rule

from fastllm.data.articles import Article
from tools import gate


def row(before: int, after: int, *, faster: bool = True) -> gate.Row:
    return gate.Row("a", (60, before, after), (2.0, 1.5, 1.0 if faster else 3.0))


def test_a_quarter_fewer_calls_and_faster_on_all_but_one() -> None:
    assert gate.judged([*[row(40, 30)] * 5, row(40, 30, faster=False)])[0]
    passed, report = gate.judged([row(40, 31)] * 6)
    assert not passed
    assert "FAIL: target calls after / before 0.78" in report
    assert not gate.judged([*[row(40, 30)] * 4, *[row(40, 30, faster=False)] * 2])[0]


def test_calls_are_counted() -> None:
    text = [4, 5, 6, 7, 8, 9, 4, 6, 8, END]
    before, after = ScriptedDrafter(lambda written, k: []), always(text)
    articles = [Article("one", "abc"), Article("two", "cab")]
    rows = gate.measure(FakeTarget(text_rule(text, 10)), before, after, articles, repeats=1)
    assert [found.calls for found in rows] == [(10, 10, 2)] * 2
    assert "| two | 10 | 10 | 2 |" in gate.judged(rows)[1]


def test_a_family_that_does_not_ship_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gate.main(["--device", "cpu", "nope"]) == 2
    assert capsys.readouterr().err.startswith("gate: ")
