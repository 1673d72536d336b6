"""What a tree buys, on scripted drafters: calls and rows by hand."""

from typing import Any

import pytest
from fakes import END, FIRST, FakeTarget, ScriptedDrafter, always, text_rule

from fastllm.data.articles import Article
from fastllm.drafters.t5 import T5Drafter
from fastllm.drafters.union import UnionDrafter
from fastllm.errors import DataError
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig
from tools import trees


def test_calls_and_rows_are_counted() -> None:
    text = [4, 5, 6, 7, 8, 9, 4, 6, END]
    wrong = ScriptedDrafter(lambda written, k: [FIRST] * k)
    drafters = {
        "wrong": wrong,
        "right": always(text),
        "wrong|right": UnionDrafter(wrong, always(text)),
    }
    articles = [Article("one", "abc"), Article("two", "cab"), Article("three", "bca")]
    target = FakeTarget(text_rule(text, 10))
    wrong_row, right, both = trees.measure(target, drafters, articles, DecodingConfig(gamma=2))
    assert (wrong_row.tau.value, right.tau.value, both.tau.value) == (1.0, 3.0, 3.0)
    assert (wrong_row.rows.value, right.rows.value, both.rows.value) == (3.0, 3.0, 5.0)
    assert {row.same for row in (wrong_row, right, both)} == {2}
    report = trees.table([both], 2)
    assert "| wrong\\|right | 3.00 [3.00, 3.00] | 5.00 [5.00, 5.00] | - | " in report
    with pytest.raises(DataError, match="no articles"):
        trees.measure(target, drafters, [], DecodingConfig())


def test_superposed_drafts_and_beams_beside_the_chain(tiny_target: HubTarget, story: str) -> None:
    size = int(tiny_target.model.config.vocab_size)
    sizes: Any = {"width": 12, "heads": 2, "feed_forward": 12}
    drafters = trees.beside({"t5": T5Drafter.fresh(size, start="ordinary", **sizes)}, 3)
    config = DecodingConfig(gamma=4, max_new_tokens=20)
    rows = trees.measure(tiny_target, drafters, [Article("one", story)], config)
    assert [row.same for row in rows] == [1] * 5
    chain, control, *others, beams = rows
    assert others[1].name == "superposed:t5, n-gram 0.1"
    assert control.tau.value == chain.tau.value
    for row in (control, *others, beams):
        assert row.passes is not None
        assert chain.passes is not None
        assert row.passes.value >= chain.passes.value, "only the chain reads ahead"
    assert beams.rows.value > chain.rows.value


def test_a_drafter_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert trees.main(["nope", "--data", "nowhere.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("trees: ")
