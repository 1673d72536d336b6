"""What opens on demand: inside a word, the replay, what one takes home, the plots, the cards."""

import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from conftest import Visit, ended
from playwright.sync_api import Browser, Locator, Page, expect

from fastllm.demo import words as page_words
from fastllm.demo.folds.race.race import TYPICAL
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


def word(page: Page, key: str, mark: str) -> Locator:
    """The first word under which a lane's strip has a mark."""
    keys = [each.get_attribute("data-key") for each in page.locator(".fl-lane").all()]
    return page.locator(f'.fl-word:has([data-lane="{keys.index(key)}"].{mark})').first


def test_inside_a_word_and_its_call(visit: Opener, story_address: str) -> None:
    page = ended(visit, story_address).page
    detail = page.locator(".fl-detail")
    chosen = word(page, "lstm-after", "fl-accepted")
    chosen.locator(".fl-letters").click()
    expect(detail).to_be_focused()
    expect(chosen).to_have_attribute("aria-selected", "true")
    expect(page.locator(".fl-round-box")).to_be_hidden()  # the dock holds one thing
    detail.get_by_role("button", name="LSTM after distillation").click()
    this = detail.locator(".fl-odds .fl-this")
    expect(this).to_contain_text("90 %")
    expect(this).to_contain_text("70 %")
    expect(detail).to_contain_text("No number is drawn")
    assert "below" not in detail.inner_text(), "greedy has no dice"
    widths = this.locator(".fl-bar").evaluate_all(
        "(bars) => Object.fromEntries(bars.map((bar) => [bar.className, bar.style.width]))"
    )
    assert widths["fl-bar fl-bar-p"] == "90%"
    assert widths["fl-bar fl-bar-both"] == widths["fl-bar fl-bar-q"] == "70%"
    assert float(widths["fl-bar fl-bar-more"].rstrip("%")) == pytest.approx(20)
    expect(detail.locator(".fl-odds .fl-rest")).to_be_visible()
    calls = page.locator('.fl-lane[data-key="lstm-after"] .fl-block').count()
    expect(detail).to_contain_text(f"Its call, 1 of {calls}")
    expect(detail).to_contain_text("reads all 5 in one call")
    expect(detail).to_contain_text("10.0 ms together")
    # The keyboard goes in and comes back, and walks on from word to word.
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    expect(page.locator(".fl-text")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".fl-chosen")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(detail).to_be_focused()
    detail.get_by_role("button", name="Close").click()
    expect(detail).to_be_hidden()
    expect(page.locator(".fl-text")).to_be_focused()


def test_a_fix_shows_the_guess_that_it_replaces(visit: Opener, story_address: str) -> None:
    page = ended(visit, story_address).page
    word(page, "lstm-before", "fl-struck").locator(".fl-letters").click()
    detail = page.locator(".fl-detail")
    detail.get_by_role("button", name="LSTM before distillation").click()
    expect(detail.locator(".fl-judgement")).to_have_count(2)
    expect(detail.locator(".fl-judgement").first).to_contain_text("nobody guessed, refused")
    expect(detail.locator(".fl-judgement").first.locator(".fl-this")).to_contain_text("70 %")
    expect(detail.locator(".fl-judgement").last).to_contain_text("the target's fix")
    expect(detail.locator(".fl-chip.fl-refused")).to_have_count(1)


def test_a_race_that_is_drawn_has_a_text_for_each_lane_and_the_rule_with_its_numbers(
    visit: Opener, story_address: str
) -> None:
    seen = visit(story_address, reduced_motion="reduce").open(
        "?lanes=alone,lstm-after&temperature=1&verification=token&sample=Autumn+storm"
    )
    page = seen.page
    page.wait_for_function("document.querySelectorAll('#fl-lanes input:checked').length === 2")
    page.click("#fl-go")
    page.wait_for_selector(".fl-race[data-ran]")
    expect(page.locator(".fl-text")).to_have_count(2)
    expect(page.locator(".fl-text-of").last).to_have_text("LSTM after distillation")
    page.locator(".fl-text").last.locator(".fl-word").first.click()
    expect(page.locator(".fl-rule")).to_contain_text("min(1, p/q)")
    expect(page.locator(".fl-rule")).to_contain_text("Drawn: 0.50, which is below")
    expect(page.locator(".fl-sum")).to_contain_text("max(p − q, 0)")
    seen.require_clean()


def test_pieces_of_words_on_demand(visit: Opener, story_address: str) -> None:
    page = ended(visit, story_address).page
    expect(page.locator(".fl-piece")).to_have_count(0)
    page.get_by_label("show tokens").check()
    assert page.locator(".fl-word:has-text('railway') .fl-piece").count() == 6  # two in each lane
    page.get_by_label("show tokens").uncheck()
    expect(page.locator(".fl-piece")).to_have_count(0)


def test_one_call_is_played_before_the_race_and_still_without_motion(
    visit: Opener, story_address: str
) -> None:
    seen = visit(story_address)
    page = seen.page
    page.add_init_script(
        """window.steps = [];
        new MutationObserver(() => {
            const step = document.querySelector(".fl-round-box .fl-scene")?.dataset.step;
            const race = document.querySelector(".fl-moving") ? "race" : null;
            const fresh = [step, race].filter((now) => now && !window.steps.includes(now));
            window.steps.push(...fresh);
        }).observe(document, { subtree: true, childList: true, attributes: true });"""
    )
    seen.open()
    seen.ended()
    steps = page.evaluate("window.steps")
    assert steps[-1] == "race"
    assert {"1", "2", "3", "4", "5"} <= set(steps)
    still = ended(visit, story_address).page
    expect(still.locator(".fl-round-box .fl-captions li")).to_have_count(4)
    assert still.locator(".fl-scene").get_attribute("data-step") == "5"


def test_on_a_phone_a_tap_opens_a_sheet_that_leaves_the_word_in_view(
    visit: Opener, story_address: str
) -> None:
    page = ended(visit, story_address, width=390, height=844, has_touch=True).page
    chosen = word(page, "lstm-after", "fl-bonus")
    chosen.tap()
    detail = page.locator(".fl-detail")
    expect(detail.locator(".fl-scene")).to_be_attached()
    sheet, place = detail.bounding_box(), chosen.bounding_box()
    assert sheet
    assert place
    assert sheet["x"] == 0
    assert sheet["y"] + sheet["height"] <= 845
    assert place["y"] + place["height"] <= sheet["y"] + 1, "the word is not covered"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    detail.get_by_role("button", name="Close").tap()
    expect(detail).to_be_hidden()


def test_a_sample_shows_its_own_recorded_race_and_back_brings_the_one_before(
    visit: Opener, app_address: str
) -> None:
    seen = visit(app_address, reduced_motion="reduce").open()
    page = seen.page
    seen.ended()
    page.locator("#fl-sample select").select_option("Factory closure")
    expect(page.locator(".fl-about")).to_contain_text("Factory closure")
    page.wait_for_url("**sample=Factory+closure**")
    page.reload()
    expect(page.locator(".fl-about")).to_contain_text("Factory closure")
    expect(page.locator("#fl-sample select")).to_have_value("Factory closure")
    page.go_back()
    expect(page.locator(".fl-about")).to_contain_text(TYPICAL)
    seen.require_clean()


def test_a_live_race_on_ones_own_text_outlives_a_reload(visit: Opener, story_address: str) -> None:
    seen = ended(visit, story_address)
    page = seen.page
    text = (
        "Own words. " + "The council said on Monday that trees will be planted by the river. " * 4
    )
    page.get_by_text("Read or change the article").click()
    page.locator("#fl-article textarea").fill(text)
    page.click("#fl-go")
    page.wait_for_selector(".fl-race[data-ran]")
    page.wait_for_url("**#text=*")
    assert "Own" not in page.url
    written = seen.words("alone")
    page.reload()
    seen.ended()
    expect(page.locator(".fl-badge")).to_have_text("LIVE")
    assert seen.words("alone") == written
    # Elsewhere the link brings the article; the race is run anew.
    there = visit(story_address).open(page.url.removeprefix(story_address))
    there.page.get_by_text("Read or change the article").click()
    expect(there.page.locator("#fl-article textarea")).to_have_value(text.strip())
    there.require_clean()
    seen.require_clean()


def test_a_race_says_when_it_is_no_longer_what_is_chosen(visit: Opener, app_address: str) -> None:
    page = ended(visit, app_address).page
    page.locator("#fl-lanes input").nth(1).uncheck()
    expect(page.locator(".fl-is-stale")).to_contain_text("still the race before")
    page.locator("#fl-lanes input").nth(1).check()
    expect(page.locator(".fl-is-stale")).to_have_count(0)  # the lanes of the race below
    page.locator("#fl-lanes input").nth(1).uncheck()
    expect(page.locator(".fl-is-stale")).to_contain_text("still the race before")
    page.click("#fl-go")
    page.wait_for_selector(".fl-race[data-ran]")
    expect(page.locator(".fl-is-stale")).to_have_count(0)
    page.focus("#fl-sample select")
    page.keyboard.press("End")  # an article of one's own
    expect(page.locator(".fl-is-stale")).to_contain_text("still the race before")


def test_what_is_chosen_and_not_raced_yet_outlives_a_reload(
    visit: Opener, story_address: str
) -> None:
    seen = ended(visit, story_address)
    page = seen.page
    page.locator("#fl-lanes input").nth(1).uncheck()
    page.locator("#fl-lanes input").nth(4).check()
    chosen = page.locator("#fl-lanes input").evaluate_all("all => all.map((box) => box.checked)")
    page.locator("#fl-settings").get_by_role("button").click()
    page.locator("#fl-settings input[type=number]").first.fill("3")
    page.locator("#fl-settings input[type=number]").first.press("Enter")
    text = "Nobody has raced these words about the harbour yet. " * 6
    page.get_by_text("Read or change the article").click()
    page.locator("#fl-article textarea").fill(text)
    page.wait_for_url("**gamma=3**#text=*")
    seen.tab("Play")
    page.wait_for_url("**tab=play**#text=*")
    page.reload()
    expect(page.get_by_role("tab", name="Play", exact=True)).to_have_attribute(
        "aria-selected", "true"
    )
    seen.tab("Race")
    page.wait_for_url(lambda url: "tab=" not in url)
    boxes = page.locator("#fl-lanes input")
    assert boxes.evaluate_all("all => all.map((box) => box.checked)") == chosen
    page.get_by_text("Read or change the article").click()
    expect(page.locator("#fl-article textarea")).to_have_value(text)
    expect(page.locator(".fl-notices")).to_contain_text("Press the button to race it")
    page.click("#fl-go")
    page.wait_for_selector(".fl-race[data-ran]")
    page.wait_for_url("**gamma=3**#text=*")
    expect(page.locator(".fl-is-stale")).to_have_count(0)
    seen.require_clean()


def test_a_link_may_name_the_sample_alone(visit: Opener, story_address: str) -> None:
    seen = visit(story_address, reduced_motion="reduce").open("?sample=Factory+closure")
    page = seen.page
    expect(page.locator("#fl-sample select")).to_have_value("Factory closure")
    page.get_by_text("Read or change the article").click()
    expect(page.locator("#fl-article textarea")).to_have_value(re.compile("Darrowell"))
    seen.require_clean()


def test_by_call_and_a_link_to_the_moment(visit: Opener, story_address: str) -> None:
    seen = ended(visit, story_address)
    page = seen.page
    calls = seen.calls()
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
    expect(there.page.locator(".fl-play")).to_have_text("▶ Play")  # a moment stands still
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

    lines = take("Traces as JSON lines").read_text(encoding="utf-8").splitlines()
    traces = [Trace.loads(line) for line in lines]
    assert [trace.drafter for trace in traces] == ["", "before", "after"]
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
    replay.page.keyboard.press("End")
    assert replay.words("alone") == seen.words("alone")
    assert replay.calls() == seen.calls()
    assert replay.page.evaluate("window.harmed") is None
    expect(replay.page.locator(".fl-keep")).to_be_hidden()
    assert replay.page.locator(".fl-source p").text_content() == traces[0].source
    again = replay.page.get_by_role("link", name="Race it again").get_attribute("href")
    assert again.startswith(f"{story_address}?")
    assert date.today().strftime("%Y-") in replay.page.locator("body").inner_text()
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
    expect(page.locator(".fl-play")).to_have_text("❚❚ Pause")
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
    word(page, "lstm-before", "fl-struck").click()
    page.wait_for_selector(".fl-judgement")
    assert not complaints(page, runOnly=["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"])
    page.evaluate(DARKEN)
    assert not complaints(page, runOnly=["color-contrast"])
    # Curves have a name that says how they end, where cards ship.
    for curve in page.locator(".fl-curve").all():
        assert re.search(r"\d", curve.get_attribute("aria-label") or "")


SERIOUS = ("serious", "critical")
SLOW = pytest.mark.slow

FADED_IN = (
    "!document.querySelector('.pending') && "
    "document.getAnimations().every((each) => !(each instanceof CSSTransition))"
)
"""Gradio fades in what has been loaded: before, its contrast is not what it will be."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, *(pytest.param(w, marks=SLOW) for w in (820, 390))])
def test_no_tab_has_a_serious_fault(
    visit: Opener, story_address: str, scheme: str, width: int
) -> None:
    """All of the page, with what is Gradio's own."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    seen = ended(visit, story_address, color_scheme=scheme, width=width)
    for name in page_words.TABS.values():
        page = seen.tab(name)
        expect(page.locator("h2:visible").first).to_be_attached()
        if name == page_words.TABS["inside"]:  # an empty plot of Gradio's has a fault of its own
            expect(page.locator("#fl-plots .empty")).to_have_count(0)
        page.wait_for_function(FADED_IN)
        found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
        faults = [
            f"{name}: {entry['id']}: {node['html'][:150]} {node['failureSummary'][:200]}"
            for entry in found
            if entry["impact"] in SERIOUS
            for node in entry["nodes"]
        ]
        assert not faults


def test_a_race_by_the_keyboard_alone(visit: Opener, story_address: str) -> None:
    seen = ended(visit, story_address)
    page = seen.page

    def go_to(selector: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("(what) => document.activeElement.matches(what)", selector):
                return
        raise AssertionError(f"Tab does not come to {selector}")

    go_to("#fl-go")
    page.keyboard.press("Enter")
    page.wait_for_selector(".fl-race[data-ran]")
    go_to(".fl-play")
    page.keyboard.press("Home")
    assert set(seen.calls()) == {0}
    page.keyboard.press("End")
    go_to(".fl-text")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".fl-detail")).to_be_visible()
    assert page.evaluate("document.activeElement.closest('.fl-detail') !== null")
    page.keyboard.press("Escape")
    expect(page.locator(".fl-detail")).to_be_hidden()
    assert page.evaluate("document.activeElement.matches('.fl-text')")
    seen.require_clean()


def test_the_calculator_starts_at_the_race_and_follows_its_sliders(
    visit: Opener, story_address: str
) -> None:
    seen = ended(visit, story_address)
    page = seen.tab("Inside")
    said = page.locator(".fl-explain .fl-verdict")
    expect(said).to_contain_text("LSTM after distillation: ")
    expect(said).to_contain_text("times fewer calls")
    result = page.locator(".fl-explain-result")
    expect(result).to_contain_text("Predicted at gamma 5")
    before = result.inner_text()
    chance = page.get_by_label("alpha: the chance")
    chance.focus()
    page.keyboard.press("Home")  # no guess is ever accepted
    expect(result).not_to_have_text(before)
    page.get_by_role("button", name="Back to this race").click()
    expect(result).to_have_text(before)
    page.locator(".fl-calculator select").select_option("lstm-before")
    expect(said).to_contain_text("LSTM before distillation: ")
    key = page.locator(".fl-explain .fl-key")
    expect(key).not_to_contain_text("measured below")
    page.evaluate(
        """() => {
            const tables = document.createElement("div");
            tables.dataset.key = "lstm-before";
            tables.dataset.measured = "[[0, 1, 1.2], [0, 3, 2.1], [1, 1, 9]]";
            document.querySelector("#fl-sweep").append(tables);
            window.dispatchEvent(new Event("fastllm-swept"));
        }"""
    )
    expect(key).to_contain_text("measured below, medians: 1: 1.2, 3: 2.1")  # greedy, as the race
    page.locator(".fl-calculator select").select_option("lstm-after")
    expect(key).not_to_contain_text("measured below")
    seen.require_clean()
