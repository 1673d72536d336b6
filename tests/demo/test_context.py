"""What the parts of the page share, and what work on the device shares."""

import json
import re
import threading
from typing import Any

import gradio as gr
import pytest
from fakes import FakeTarget, always, text_rule

from fastllm.demo.context import PageContext
from fastllm.demo.engine import LocalEngine
from fastllm.demo.jobs import WARM_UP_TOKENS, warmed_up
from fastllm.demo.limits import read_limits
from fastllm.demo.parts import literal, paragraph, scripted
from fastllm.errors import DataError, SettingsError
from fastllm.trace import DecodingConfig

TEXT = [4, 7, 4, 9, 3, 5, 7, 4, 9, 8, 3, 1]
SETTINGS = (5.0, 0.0, 1.0, 7, 12, "auto", 1.0)


def test_a_race_is_checked_where_it_is_asked_for(story: str) -> None:
    limits = read_limits(environment={})
    context = PageContext(LocalEngine(), limits, {"The mill": story})
    job = context.race_job(story, ["lookup", "alone"], *SETTINGS)
    assert (job.article, job.title, job.lanes) == (story, "The mill", ("alone", "lookup"))
    assert job.config == DecodingConfig(seed=7, max_new_tokens=12)
    assert job.seconds == limits.seconds_per_run
    assert context.race_job(f"{story} More.", ["lookup", "alone"], *SETTINGS).title == ""
    with pytest.raises(DataError, match="at least two lanes"):
        context.race_job(story, ["alone"], *SETTINGS)
    with pytest.raises(DataError, match="no article"):
        context.race_job("", ["lookup", "alone"], *SETTINGS)
    with pytest.raises(SettingsError, match="gamma"):
        context.race_job(story, ["lookup", "alone"], 0, *SETTINGS[1:])


def test_a_refusal_repeats_little_of_what_was_sent() -> None:
    context = PageContext(LocalEngine(), read_limits(environment={}), {})
    with pytest.raises(SettingsError, match="gamma=1000") as large:
        context.config(10**4000, *SETTINGS[1:])
    with pytest.raises(DataError, match="no lane 'BBB") as long:
        context.chosen(["alone", "B" * 100_000])
    assert max(len(str(each.value)) for each in (large, long)) < 1000


def test_what_a_script_is_given_cannot_end_it() -> None:
    words = {"end": '</script><b> "\u2028 ${x} `y`', "other": "ö"}
    given, most, *_ = scripted("static/upload.js", words, most=5).split("\n")
    assert most == "const most = 5;"
    assert not set("<>\u2028") & set(given)
    found = re.fullmatch("const words = (.*);", given)
    assert found is not None
    assert json.loads(found[1]) == words
    assert literal([1, "a"]) == '[1,"a"]'


def test_a_paragraph_shows_its_text_as_it_is() -> None:
    """As a value: a template would read something into braces."""
    with gr.Blocks() as page:
        paragraph("<b>mine</b> {{y}} & ${z}", "fl-soft")
    (shown,) = [block for block in page.blocks.values() if isinstance(block, gr.HTML)]
    assert shown.value == '<p class="fl-soft">&lt;b&gt;mine&lt;/b&gt; {{y}} &amp; ${z}</p>'
    assert "mine" not in str(shown.html_template)


def test_lanes_that_were_warmed_up_have_not_begun() -> None:
    def race(**more: Any) -> Any:
        target = FakeTarget(text_rule(TEXT, 12))
        given: dict[str, Any] = {"seconds": 600, "stop": threading.Event()} | more
        config = DecodingConfig(max_new_tokens=20)
        return target, warmed_up(target, [None, always(TEXT)], "words", config, **given)

    target, warm = race()
    calls = [session.calls for session in target.sessions]
    assert calls[0] == WARM_UP_TOKENS
    assert 0 < calls[1] < WARM_UP_TOKENS
    assert warm.traces() == []
    list(warm)
    assert [trace.tokens for trace in warm.traces()] == [tuple(TEXT)] * 2
    assert len(warm.traces()[0].rounds) == len(TEXT)

    # There is one deadline for both, and one Stop.
    target, warm = race(seconds=0)
    list(warm)
    assert {trace.ended for trace in warm.traces()} == {"deadline"}
    stopped = threading.Event()
    stopped.set()
    target, warm = race(stop=stopped)
    list(warm)
    assert sum(session.calls for session in target.sessions) == 0
    assert {trace.ended for trace in warm.traces()} == {"stopped"}
