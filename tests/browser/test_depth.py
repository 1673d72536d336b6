"""What opens on demand: inside a word, the replay, what one takes home, the plots, the cards."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Visit, ended
from playwright.sync_api import Browser, Locator, Page, expect

from fastllm.trace import Trace

Opener = Callable[..., Visit]

DARKEN = """async () => {
    document.body.classList.add("dark");
    const fading = document.getAnimations().filter((entry) => entry instanceof CSSTransition);
    await Promise.all(fading.map((entry) => entry.finished.catch(() => {})));
}"""
"""Gradio's boxes fade from one theme to the other: half-way through, nothing has contrast."""

LINK = re.compile(r"at=lstm-after%3A2\b")


def lane(page: Page, key: str) -> Locator:
    return page.locator(f'.fl-lane[data-key="{key}"]')


def test_inside_a_word_and_its_call(visit: Opener, story_address: str) -> None:
    page = ended(visit, story_address).page
    detail = page.locator(".fl-detail")
    word = lane(page, "lstm-after").locator(".fl-accepted").first
    word.hover()
    expect(detail).to_have_role("tooltip")
    for known in ("target, p90 % (1 when greedy)", "drafter, q70 %", "overlap of both50 %"):
        expect(detail).to_contain_text(known)
    expect(detail).to_contain_text("passed: 0.50 is below 1")
    expect(detail.locator(".fl-choices")).to_have_count(2)
    expect(detail.locator(".fl-call")).to_have_count(0)
    assert word.get_attribute("aria-describedby") == "fl-detail"
    word.focus()
    page.keyboard.press("Enter")
    call = detail.locator(".fl-call")
    expect(detail).to_have_role("dialog")
    calls = lane(page, "lstm-after").locator(".fl-round").count()
    expect(call).to_contain_text(f"Call 1 of {calls}: LSTM after distillation")
    expect(call).to_contain_text("5 guessed, 5 accepted")
    expect(call).to_contain_text("The target added")
    expect(call).to_contain_text("10.0 ms together")
    page.keyboard.press("ArrowRight")  # the next word, pinned too
    expect(detail).to_have_role("dialog")
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    # A call that refused a guess: what was behind it was not tested.
    lane(page, "lstm-before").locator(".fl-refused").first.click()
    expect(call.locator("li.fl-refused")).to_contain_text("0.50 ≥ 0")
    expect(call.locator("li.fl-dropped").first).to_contain_text("not tested")
    detail.get_by_role("button", name="Close").click()
    expect(detail).to_be_hidden()


def test_on_a_phone_pairs_stand_side_by_side_and_a_tap_opens_a_sheet(
    visit: Opener, story_address: str
) -> None:
    page = ended(visit, story_address, width=390, height=844, has_touch=True).page
    boxes = {
        key: page.locator(f'#fl-lanes label:has(input[name="{key}"])').bounding_box() or {}
        for key in ("alone", "lookup", "lstm-before", "lstm-after", "cnn-before", "cnn-after")
    }
    for left, right in (
        ("alone", "lookup"), ("lstm-before", "lstm-after"), ("cnn-before", "cnn-after"),
    ):  # fmt: skip
        assert boxes[left]["y"] == boxes[right]["y"]
        assert boxes[left]["x"] < boxes[right]["x"]
    assert boxes["alone"]["y"] < boxes["lstm-before"]["y"] < boxes["cnn-before"]["y"]
    word = lane(page, "lstm-after").locator(".fl-bonus").first
    word.tap()
    detail = page.locator(".fl-detail")
    expect(detail.locator(".fl-call")).to_be_visible()
    sheet, place = detail.bounding_box(), word.bounding_box()
    assert sheet
    assert place
    assert sheet["x"] == 0
    assert sheet["y"] + sheet["height"] <= 844
    assert place["y"] + place["height"] <= sheet["y"], "the word is not covered"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".fl-headline").tap()
    expect(detail).to_be_hidden()


def test_by_call_and_a_link_to_the_moment(visit: Opener, story_address: str) -> None:
    seen = ended(visit, story_address)
    page = seen.page
    calls = seen.calls()
    page.locator(".fl-axis").select_option("call")
    assert seen.calls() == calls, "the end is the end on both axes"
    page.focus(".fl-position")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert seen.calls() == [2, 2, 2]
    expect(page.locator(".fl-clock")).to_have_text(f"call 2 of {calls[0]}")
    page.locator(".fl-axis").select_option("time")
    page.focus(".fl-position")
    page.keyboard.press("Home")
    while seen.calls()[2] < 2:
        page.keyboard.press("ArrowRight")
    moment = seen.calls()
    page.locator(".fl-keep summary").click()
    link = page.locator(".fl-link")
    expect(link).to_have_value(LINK)
    # The story's title is markup, and is not taken for any.
    there = visit(story_address).open(link.input_value().removeprefix(story_address))
    expect(there.page.locator(".fl-clock")).to_have_text(page.locator(".fl-clock").inner_text())
    assert there.calls() == moment
    assert there.page.get_attribute(".fl-play", "aria-label") == "Play", "a moment stands still"
    there.require_clean()
    seen.require_clean()


def test_a_link_sets_what_it_may_and_a_lossy_race_says_so(
    visit: Opener, story_address: str
) -> None:
    query = (
        "?sample=Autumn+storm&lanes=alone,cnn-after,nonsense&gamma=99&temperature=1&top_p=0.9"
        "&seed=7&max_new_tokens=24&verification=lenient&lenience=0.5&at=cnn-after:2"
    )
    seen = visit(story_address, reduced_motion="reduce").open(query)
    page = seen.page
    expect(page.locator("#fl-sample select")).to_have_value("Autumn storm")
    expect(page.locator(".fl-notice")).to_contain_text("another race")
    page.wait_for_function(
        "[...document.querySelectorAll('#fl-lanes input:checked')].map(e => e.name).join() === "
        "'alone,cnn-after'"
    )
    page.get_by_text("Settings", exact=True).click()
    for label, value in (
        ("Draft length (gamma)", "5"),  # 99 is more than the page takes
        ("Temperature", "1"), ("Top-p", "0.9"), ("Lenience (LOSSY)", "0.5"),
    ):  # fmt: skip
        expect(page.get_by_label(f"number input for {label}")).to_have_value(value)
    page.click("#fl-go")
    page.wait_for_selector(".fl-race[data-ran]")
    expect(page.locator(".fl-same")).to_have_attribute("data-state", "lossy")
    expect(lane(page, "cnn-after").locator(".fl-lossy")).to_have_text("LOSSY")
    expect(lane(page, "alone").locator(".fl-lossy")).to_have_count(0)
    seen.require_clean()


def test_what_one_takes_home(
    visit: Opener, browser: Browser, story_address: str, hostile: Sequence[str], tmp_path: Path
) -> None:
    seen = ended(visit, story_address)
    page = seen.page
    page.locator(".fl-keep summary").click()
    page.context.set_offline(True)

    def take(name: str) -> Path:
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    tree = json.loads(take("Trace as JSON").read_text(encoding="utf-8"))
    traces = [Trace.from_json(entry) for entry in tree["traces"]]
    assert tree["lanes"] == ["alone", "lstm-before", "lstm-after"]
    assert all(trace.source and trace.text == traces[0].text for trace in traces)
    code = page.locator(".fl-code").inner_text()
    compile(code, "code", "exec")
    assert "import fastllm" in code
    assert hostile[0].strip() in code

    path = take("Replay as one HTML file")
    assert path.stat().st_size < 300_000
    context = browser.new_context(offline=True)
    replay = Visit(context.new_page(), path.as_uri())
    replay.page.goto(path.as_uri() + "?present=1")
    replay.page.wait_for_selector(".fl-lane")
    expect(replay.page.locator(".fl-badge")).to_have_text("RECORDED")
    assert replay.words("alone") == seen.words("alone")
    replay.page.keyboard.press("End")
    assert replay.calls() == seen.calls()
    assert replay.page.evaluate("window.harmed") is None
    expect(replay.page.locator(".fl-keep")).to_be_hidden()
    assert replay.requested == [path.as_uri() + "?present=1"]
    replay.require_clean()
    context.close()
    seen.require_clean()


def test_on_a_stage_r_plays_again_without_a_network(visit: Opener, story_address: str) -> None:
    seen = visit(story_address, reduced_motion="reduce")
    page = seen.page
    page.goto(story_address + "?present=1")
    seen.ended()
    for part in ("#fl-controls", "#fl-lanes", "#fl-settings", ".fl-keep", "[role=tab] >> nth=0"):
        expect(page.locator(part)).to_be_hidden()
    assert page.evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)") > 18
    page.context.set_offline(True)
    page.evaluate("() => { requestAnimationFrame = () => 0; }")  # the replay stands where it begins
    page.keyboard.press("r")
    assert seen.calls() == [0, 0, 0]
    assert page.get_attribute(".fl-play", "aria-label") == "Pause"
    page.keyboard.press("End")
    assert min(seen.calls()) > 0


def test_plots_are_drawn_of_the_race_in_view(visit: Opener, story_address: str) -> None:
    seen = ended(visit, story_address)
    page = seen.page
    seen.tab("Inside")
    for name, title in (
        ("clock", "seconds on the lane's own clock"), ("reached", "draft position"),
    ):  # fmt: skip
        expect(page.locator(f"#fl-plot-{name} .xtitle")).to_have_text(title)
    expect(page.locator("#fl-plots")).to_contain_text("Left and steep is better")
    expect(page.locator("#fl-plot-clock .legendtext")).to_have_count(3)
    for name in ("gains", "overlap", "parts"):
        expect(page.locator(f"#fl-plot-{name} .xtitle")).not_to_be_empty()
    expect(page.locator("#fl-plot-speed_up .legendtext")).to_have_count(2)
    seen.require_clean()


OURS = {"include": [[".fl-race"], [".fl-cards"], [".fl-head"], ["#fl-lanes"]]}


def complaints(page: Page, **options: Any) -> list[str]:
    """What axe finds wrong in what is ours."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page, context=OURS, options=options).response["violations"]
    return [
        f"{entry['id']}: {node['html'][:150]} {node['failureSummary'][:300]}"
        for entry in found
        for node in entry["nodes"]
    ]


def test_axe_finds_nothing_in_what_is_ours(visit: Opener, story_address: str) -> None:
    page = ended(visit, story_address).page
    page.locator(".fl-keep summary").click()
    lane(page, "lstm-before").locator(".fl-refused").first.click()
    page.wait_for_selector(".fl-call")
    assert not complaints(page, runOnly=["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"])
    page.evaluate(DARKEN)
    assert not complaints(page, runOnly=["color-contrast"])
    # Curves have a name that says how they end, where cards ship.
    for curve in page.locator(".fl-curve").all():
        assert re.search(r"\d", curve.get_attribute("aria-label") or "")
