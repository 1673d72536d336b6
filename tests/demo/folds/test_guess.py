"""The fold of the guessing game: what its event does with what a browser sends."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from fastllm import paths
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.game import words as game_words
from fastllm.demo.limits import read_limits
from fastllm.demo.page import build


@pytest.fixture(scope="module")
def ask(tiny_target: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """Asks the page for a turn as its button would; gives all texts that came."""
    path = tmp_path_factory.mktemp("guessing")
    tiny_target.model.save_pretrained(path)
    tiny_target.vocabulary.tokenizer.save_pretrained(path)
    engine = LocalEngine(str(path))
    engine.start()
    limits = replace(read_limits(environment={}), runs_per_minute=1, turns_per_minute=3)
    page = build(engine, limits, Path("nothing recorded"))
    (function,) = [f.fn for f in page.fns.values() if f.name == "turn"]
    buttons = {b.value: b for b in page.blocks.values() if isinstance(b, gr.Button)}

    def ask(words: Any, before: Any, article: str, *, who: str = "v", **more: Any) -> list[str]:
        settings = {"gamma": 5, "temperature": 0.0, "top_p": 1.0, "seed": 0, "length": 16}
        button = buttons[more.pop("button", game_words.CHECK)]
        client = SimpleNamespace(host=f"9.9.9.{ord(who)}")  # a visitor is an address
        request = SimpleNamespace(client=client, headers={}, session_hash=who)
        event = SimpleNamespace(target=button)
        values = (settings | more).values()
        told: Iterator[str] = function(request, event, words, before, article, *values)
        return list(told)

    return ask


def said(row: dict[str, Any]) -> str:
    return "".join(piece for piece, _ in row["text"])


def test_the_game_stays_in_view_until_its_next_row(ask: Callable[..., Any], story: str) -> None:
    first = ask("The mill", "", story, who="a")
    assert json.loads(first[-1])["game"]["calls"] >= 1
    second = ask("", first[-1], story, who="a", button=game_words.SKIP)
    assert second[0] == first[-1]
    text = said(json.loads(second[-1]))
    assert text.startswith(said(json.loads(first[-1])))
    assert len(text) > len(said(json.loads(first[-1])))


def test_other_settings_are_another_game(ask: Callable[..., Any], story: str) -> None:
    before = ask("The mill", "", story, who="b")[-1]
    with pytest.raises(gr.Error, match="settings were changed"):
        ask("on", before, story, who="b", temperature=1.0)
    with pytest.raises(gr.Error, match="were changed"):
        ask("on", before, story.replace("mill", "barn"), who="b")


def test_turns_are_counted_apart_from_races(ask: Callable[..., Any], story: str) -> None:
    for _ in range(3):
        ask("The mill", "", story, who="c")
    with pytest.raises(gr.Error, match="3 turns of this game within a minute"):
        ask("The mill", "", story, who="c")
    assert ask("The mill", "", story, who="d")


def test_errors_name_what_was_typed_as_text(ask: Callable[..., Any], story: str) -> None:
    for words, before, article in (
        ("", "", story),
        ("on", "<b>", story),
        ("on", "", "too short"),
        ("on", 5, "<script>"),
    ):
        with pytest.raises(gr.Error) as told:
            ask(words, before, article, who="e")
        assert "<" not in told.value.message


def test_every_word_of_the_script_is_there_and_used() -> None:
    source = (paths.PAGE / "folds/game/guess.js").read_text(encoding="utf-8")
    looked_up = {"accepted", "refused", "begun", "dropped"}
    assert set(re.findall(r"\bwords\.(\w+)", source)) | looked_up == set(game_words.BROWSER)
    assert "innerHTML" not in source
