"""The frontier of the lossy rules, on tables."""

import pytest
from fakes import FakeTarget, RuleDrafter, random_rule

from fastllm.data.articles import Article
from fastllm.errors import DataError
from fastllm.trace import DecodingConfig
from tools import lossy_frontier


def test_a_lossier_rule_needs_fewer_calls_and_changes_more_texts() -> None:
    pytest.importorskip("rouge_score")
    rule = random_rule(8, seed=3, end_bias=-3.0)
    near = random_rule(8, seed=4, end_bias=-3.0)
    drafter = RuleDrafter(lambda text: [a + b for a, b in zip(rule(text), near(text), strict=True)])
    articles = [Article(str(at), "abc" * (at + 1), "abc cab") for at in range(8)]
    articles.append(Article("none", "abc"))
    greedy = DecodingConfig(gamma=4, max_new_tokens=20)
    rollback = [
        DecodingConfig(
            gamma=4, max_new_tokens=20, verification="rollback", rollback_threshold=threshold
        )
        for threshold in (0.0, 0.5, 100.0)
    ]
    warm = DecodingConfig(gamma=4, max_new_tokens=20, temperature=1.0)
    rows = lossy_frontier.frontier(FakeTarget(rule), drafter, articles, [greedy, *rollback, warm])
    exact, strict, loose, loosest, sampled = rows
    assert strict.changed == exact.changed == 0
    assert strict.calls == exact.calls
    assert exact.calls >= loose.calls > loosest.calls
    assert loosest.changed == 1
    assert sampled.changed is None
    report = lossy_frontier.table(rows).splitlines()
    assert len(report) == 2 + len(rows)
    assert "lossy: rollback, threshold 100" in report[5]
    assert "| - |" in report[-1]
    with pytest.raises(DataError, match="no article has a summary"):
        lossy_frontier.frontier(FakeTarget(rule), drafter, articles[-1:], [greedy])


def test_the_settings_are_marked_where_they_are_lossy() -> None:
    asked = lossy_frontier.settings(8)
    assert [config.lossy for config in asked] == [False, *[True] * 4, False, *[True] * 4]
