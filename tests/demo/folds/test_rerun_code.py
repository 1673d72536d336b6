"""The code that a visitor takes home runs, and runs what was raced."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import stories

from fastllm.demo.folds.keep import rerun_code
from fastllm.trace import DecodingConfig


def run(code: str, article: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Runs the code as the browser completes it; the arguments of its calls."""
    calls: list[dict[str, Any]] = []

    def generate(article: str, **settings: Any) -> Any:
        calls.append({"article": article, **settings})
        return SimpleNamespace(rounds=[], text="")

    monkeypatch.setattr("fastllm.generate", generate)
    exec(code.replace(rerun_code.ARTICLE, json.dumps(article, ensure_ascii=False)), {})
    return calls


def test_the_code_names_lanes_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    article = 'He said: "A \\n is no line",\n{article} \u2028 \U0001f600.'
    config = DecodingConfig(gamma=7, temperature=0.5, seed=4, verification="block")
    keys, traces = stories.race(config=config, target="google/flan-t5-base")
    calls = run(rerun_code.code(keys, traces), article, monkeypatch)
    assert [call.pop("drafter") for call in calls] == [None, "lstm-before", "lstm-after"]
    assert {call.pop("article") for call in calls} == {article}
    for call in calls:
        assert call == {
            "target": "google/flan-t5-base",
            "gamma": 7,
            "temperature": 0.5,
            "seed": 4,
            "verification": "block",
        }
        DecodingConfig(**{name: value for name, value in call.items() if name != "target"})


def test_what_is_usual_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DecodingConfig(verification="token", no_repeat_ngram=4, min_new_tokens=20)
    monkeypatch.setattr(rerun_code.checkpoints, "read_card", lambda _: {"name": "shipped"})
    trace = stories.trace("lookup", (1,), config=config, target="shipped")
    calls = run(rerun_code.code(["lookup"], [trace]), "An article.", monkeypatch)
    assert calls == [{"article": "An article.", "drafter": "lookup"}]
    assert rerun_code.code([], []) == ""
