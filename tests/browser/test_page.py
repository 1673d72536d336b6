"""The page in a real browser, with an engine made of stories: no model is needed."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import Visit, ended
from playwright.sync_api import Route, expect

from fastllm.demo.folds.race import words as race_words

Opener = Callable[..., Visit]

FOLD = "Read or change the article"

ARTICLE = (
    "The council said on Monday that it will plant two thousand trees along the river before the "
    "end of the year. The trees were given by a nursery in the next town, and school classes are "
    "to look after them. It is the third such project in the county since the floods."
)


def test_recorded_race_plays_without_a_click(visit: Opener, story_address: str) -> None:
    """Its result is in view from the first moment: who won, why, and that the text is the same."""
    seen = visit(story_address).open()
    page = seen.page
    expect(page.locator(".fl-badge")).to_have_text("RECORDED")
    expect(page.locator(".fl-about")).to_contain_text("2 CPU cores")
    expect(page.locator(".fl-verdict")).to_contain_text("LSTM after distillation won")
    expect(page.locator(".fl-same")).to_have_text("✓ Same text in all lanes (checked).")
    seen.ended()
    assert seen.calls()[0] > seen.calls()[1] > seen.calls()[2]
    assert page.locator(".fl-place").all_inner_texts() == ["3rd", "2nd", "1st"]
    seen.require_clean()


def test_a_track_is_full_of_blocks_as_wide_as_what_a_call_brought(
    visit: Opener, story_address: str
) -> None:
    page = ended(visit, story_address).page
    widths = page.evaluate(
        """() => [...document.querySelectorAll(".fl-lane")].map((lane) => {
            const road = lane.querySelector(".fl-road").getBoundingClientRect();
            const blocks = [...lane.querySelectorAll(".fl-block")];
            return blocks.map((block) => block.getBoundingClientRect().width / road.width);
        })"""
    )
    for lane in widths:
        assert sum(lane) == pytest.approx(1, abs=0.01)  # all reach the one finish line
    assert max(widths[0]) < 1.5 * min(widths[0])  # one token a call
    assert max(widths[2]) > 4 * max(widths[0])


def test_every_state_has_a_shape_of_its_own(visit: Opener, story_address: str) -> None:
    page = ended(visit, story_address).page
    for state in ("accepted", "struck", "correction", "bonus", "plain"):
        assert page.locator(f".fl-lanes .fl-{state}").count() > 0
    shapes = page.locator(".fl-legend .fl-cell").evaluate_all(
        """(cells) => cells.map((cell) => {
            const style = getComputedStyle(cell);
            const marks = ["::before", "::after"].map((at) => getComputedStyle(cell, at).content);
            const full = style.backgroundColor !== "rgba(0, 0, 0, 0)";
            return [full, style.borderTopStyle, style.borderTopWidth, ...marks].join();
        })"""
    )
    assert len(set(shapes)) == 5  # told apart without any colour


def test_the_text_copies_as_plain_text(visit: Opener, story_address: str) -> None:
    seen = ended(visit, story_address)
    page = seen.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the text").click()
    expect(page.locator(".fl-texts-head [role=status]")).to_have_text("Copied.")
    text = page.evaluate("navigator.clipboard.readText()")
    assert text == " ".join(seen.words("alone").split())
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.fl-text'))")
    page.keyboard.press("Control+c")
    page.wait_for_function(
        "(text) => navigator.clipboard.readText().then((found) => found === text)", arg=text
    )


def test_a_live_race_moves_nothing_about_it_and_keeps_its_verdict(
    visit: Opener, story_address: str
) -> None:
    seen = ended(visit, story_address)
    page = seen.page
    page.evaluate(
        """() => {
            window.shift = 0;
            new PerformanceObserver((list) => {
                const unasked = list.getEntries().filter((each) => !each.hadRecentInput);
                for (const each of unasked) window.shift += each.value;
            }).observe({ type: "layout-shift" });
        }"""
    )
    seen.remember("hidden", "document.querySelector('.fl-race[data-ran] .fl-future')")
    page.click("#fl-go")
    page.wait_for_selector(".fl-race[data-ran]")
    page.wait_for_timeout(2500)  # a replay by itself would have begun
    assert page.evaluate("window.shift") <= 0.05
    assert not page.evaluate("window.remembered?.hidden")
    expect(page.locator(".fl-verdict")).to_contain_text("won")
    expect(page.locator(".fl-verdict")).to_be_in_viewport()
    expect(page.locator(".fl-play")).to_have_text(f"▶ {race_words.BROWSER['replay_slowly']}")
    seen.require_clean()


def test_what_a_model_wrote_is_never_markup(
    visit: Opener, story_address: str, hostile: Sequence[str]
) -> None:
    seen = ended(visit, story_address)
    for lane in ("alone", "lstm-before", "lstm-after"):
        assert seen.words(lane).startswith("".join(hostile).strip())
    assert seen.page.locator(".fl-race :is(script, img), .fl-letters *, .fl-about *").count() == 0
    expect(seen.page.locator(".fl-cut")).to_contain_text("onerror")
    expect(seen.page.locator(".fl-about")).to_contain_text("<i>x</i>")
    assert seen.page.evaluate("window.harmed") is None
    seen.require_clean()


def test_what_a_visitor_pastes_is_never_markup_and_turns_no_direction(
    visit: Opener, story_address: str, hostile: Sequence[str]
) -> None:
    """Neither in the lanes nor in the code, where it would read as other code than it is."""
    seen = ended(visit, story_address)
    paste(seen, f"Turned \u202earound\u2066 and back.{''.join(hostile)} {ARTICLE}")
    go(seen)
    assert seen.words("alone").startswith(f"Turned around and back.{''.join(hostile)}")
    assert seen.page.evaluate("window.harmed") is None
    seen.page.locator(".fl-keep summary").click()
    expect(seen.page.locator(".fl-code")).to_contain_text('"Turned \\u202earound\\u2066 and back.')
    code = seen.page.locator(".fl-code").inner_text()
    assert not set(code) & set("\u202e\u2066")
    seen.require_clean()


def test_live_race_replaces_the_recorded_one(visit: Opener, story_address: str) -> None:
    seen = visit(story_address).open()
    paste(seen, ARTICLE)
    go(seen)
    expect(seen.page.locator(".fl-badge")).to_have_text("LIVE")
    assert len({seen.words(lane) for lane in ("alone", "lstm-before", "lstm-after")}) == 1
    lanes = seen.page.locator(".fl-lane").all()
    assert seen.calls() == [lane.locator(".fl-block").count() for lane in lanes]
    seen.require_clean()


def test_a_lane_that_cannot_be_chosen_is_greyed_out_with_the_reason(
    visit: Opener, story_address: str
) -> None:
    seen = visit(story_address).open()
    grey = seen.page.locator(".fl-missing input[type=checkbox]")
    expect(grey).to_have_count(1)
    expect(grey).to_be_disabled()
    expect(seen.page.locator(".fl-missing")).to_contain_text("n-gram after")
    expect(seen.page.locator(".fl-missing")).to_contain_text("Not offered: its checkpoint")
    seen.require_clean()


def test_lookup_races_by_default_and_every_lane_has_its_size(
    visit: Opener, story_address: str
) -> None:
    seen = visit(story_address, reduced_motion="reduce").open()
    boxes = seen.page.locator("#fl-lanes input[type=checkbox]:not(:disabled)")
    expect(boxes).to_have_count(6)
    checked = {box.get_attribute("name") for box in boxes.all() if box.is_checked()}
    assert checked == {"alone", "lookup", "lstm-before", "lstm-after"}
    labels = seen.page.locator("#fl-lanes label:has(input:not(:disabled))").all_inner_texts()
    assert all(re.search(r" · ([\d.]+ M|no weights)", label) for label in labels), labels
    expect(seen.page.locator(".fl-lanes-lookup")).to_contain_text("Nothing was trained")


def test_stop_ends_a_race_and_frees_the_device(visit: Opener, story_address: str) -> None:
    seen = visit(story_address).open()
    paste(seen, f"Endless news. {ARTICLE}")
    seen.page.click("#fl-go")
    seen.page.wait_for_selector(".fl-badge.fl-live >> text=LIVE")
    seen.page.wait_for_function(
        "[...document.querySelectorAll('.fl-count')].some(e => Number(e.textContent) > 2)"
    )
    seen.page.click("#fl-stop")
    expect(seen.page.locator(".fl-notice")).to_contain_text("Stopped")
    assert 0 < sum(seen.calls())
    # One race at a time: the next can only run because this one has left the device.
    fill(seen, ARTICLE)
    go(seen)
    seen.require_clean()


def test_stop_before_the_server_has_answered_is_not_lost(visit: Opener, story_address: str) -> None:
    seen = visit(story_address).open()
    page = seen.page
    paste(seen, f"Endless news. {ARTICLE}")
    held: list[Route] = []
    # A lambda: Playwright counts the parameters of what it calls, and a built-in does not tell.
    page.route("**/queue/join*", lambda route: held.append(route))
    with page.expect_request("**/queue/join*"):
        page.click("#fl-go")
    page.click("#fl-stop")
    expect(page.locator(".fl-about")).to_contain_text(race_words.BROWSER["stopping"])
    for route in held:  # other parts of the page may have asked as well
        route.continue_()
    page.unroute("**/queue/join*")
    expect(page.locator(".fl-notice")).to_contain_text(race_words.BROWSER["stopped"])
    expect(page.locator(".fl-badge")).to_have_text("RECORDED")
    expect(page.locator(".fl-about")).not_to_contain_text(race_words.BROWSER["stopping"])
    fill(seen, ARTICLE)
    go(seen)  # the device is free
    seen.require_clean()


def test_who_waits_sees_their_place_and_gets_their_turn(visit: Opener, story_address: str) -> None:
    first, second, third = (visit(story_address).open() for _ in range(3))
    for seen in (first, second, third):
        paste(seen, f"Endless news. {ARTICLE}")
    first.page.click("#fl-go")
    first.page.wait_for_selector(".fl-badge.fl-live >> text=LIVE")
    about = ".fl-about"
    second.page.click("#fl-go")
    expect(second.page.locator(about)).to_contain_text("number 1 in the queue")
    third.page.click("#fl-go")
    expect(third.page.locator(about)).to_contain_text("number 2 in the queue")
    second.page.click("#fl-stop")  # leaves the queue
    expect(second.page.locator(".fl-notice")).to_contain_text("Stopped")
    expect(second.page.locator(".fl-badge")).to_have_text("RECORDED")
    first.page.context.close()  # a closed tab
    third.page.wait_for_selector(".fl-badge.fl-live >> text=LIVE")
    third.page.click("#fl-stop")
    expect(third.page.locator(".fl-notice")).to_contain_text("Stopped")
    third.require_clean()


def test_a_sample_takes_effect_without_the_server(visit: Opener, story_address: str) -> None:
    """A click on Go right after the choice must not race the article before it."""
    seen = visit(story_address).open()
    page = seen.page
    box = page.locator("#fl-article textarea")

    def choose(index: int) -> None:
        titles = page.locator("#fl-sample option").all_text_contents()
        page.locator("#fl-sample select").select_option(titles[index])

    choose(-1)  # "Your article" opens the box
    expect(box).to_be_visible()
    expect(box).to_have_value("")
    page.route("**/gradio_api/**", lambda route: None)  # no answer ever comes
    choose(1)
    expect(box).not_to_have_value("")
    first = box.input_value()
    choose(2)
    expect(box).not_to_have_value(first)
    choose(-1)
    expect(box).to_have_value("")
    expect(box).to_be_visible()


def test_what_is_typed_at_the_first_moment_is_kept(visit: Opener, story_address: str) -> None:
    """Gradio fills a field when its fold is first opened, and once more a frame later."""
    seen = visit(story_address).open()
    seen.page.get_by_text(FOLD).evaluate(
        """async (label, text) => {
            // A message is faster than a frame; now and then a timer lets frames have their turn.
            const { port1, port2 } = new MessageChannel();
            const turn = (number) => new Promise((then) => {
                port1.onmessage = then;
                if (number % 10) port2.postMessage(0);
                else setTimeout(then, 20);
            });
            label.closest('button').click();
            for (let number = 1; number < 10_000; number += 1) {
                const box = document.querySelector('#fl-article textarea');
                box?.focus();
                if (box && document.activeElement === box) break;
                await turn(number);
            }
            document.execCommand('selectAll');
            document.execCommand('insertText', false, text);
            const frame = () => new Promise((then) => requestAnimationFrame(then));
            for (let number = 0; number < 10; number += 1) await frame();
        }""",
        ARTICLE,
    )
    expect(seen.page.locator("#fl-article textarea")).to_have_value(ARTICLE)
    go(seen)
    assert seen.words("alone").startswith("The council said on Monday")


def test_the_page_says_whose_article_it_is_and_how_many_lanes_race(
    visit: Opener, story_address: str
) -> None:
    seen = visit(story_address).open()
    page = seen.page
    chosen = page.locator("#fl-sample select")
    sample = chosen.input_value()
    page.get_by_text(FOLD).click()
    article = page.locator("#fl-article textarea").input_value()
    fill(seen, ARTICLE)
    expect(chosen).to_have_value(race_words.OWN_ARTICLE)
    fill(seen, article)
    expect(chosen).to_have_value(sample)
    go, note = page.locator("#fl-go"), page.locator("#fl-lanes-note")
    while page.locator("#fl-lanes input:checked").count() > 1:
        page.locator("#fl-lanes input:checked").last.uncheck()
    expect(note).to_contain_text("A race takes 2 to")
    expect(go).to_be_disabled()
    page.locator("#fl-lanes input:not(:checked)").first.check()
    expect(note).to_have_count(0)
    expect(go).to_be_enabled()
    left = page.locator("#fl-lanes input:not(:checked):not(:disabled)")
    while left.count():
        left.first.check()
    expect(note).to_have_count(1)
    expect(go).to_be_disabled()
    seen.require_clean()


def test_unfit_articles_get_a_message(visit: Opener, story_address: str) -> None:
    seen = visit(story_address).open()
    seen.page.get_by_text(FOLD).click()
    toasts = "[...document.querySelectorAll('.toast-body')]"
    for text, message in (
        ("", "no article"),
        ("Too short.", "2 words"),
        ("word " * 9000, "takes 20,000"),
        ("\x01\x02\x03\x04\x05\x06 " * 40, "does not look like text"),
    ):
        fill(seen, text)
        seen.remember(
            message,
            f"{toasts}.some(e => e.checkVisibility() && e.innerText.includes({message!r}))",
        )
        seen.page.click("#fl-go")
        seen.remembered(message)  # it fades after a while
        expect(seen.page.locator(".fl-notice")).to_contain_text(message)
        expect(seen.page.locator(".fl-badge")).to_have_text("RECORDED")


def test_other_languages_get_a_notice_here_and_at_home(
    visit: Opener, story_address: str, tmp_path: Path
) -> None:
    seen = ended(visit, story_address)
    paste(seen, "Der Rat der Stadt hat am Montag beschlossen, am Fluss Baeume zu pflanzen. " * 9)
    go(seen)
    for page in (seen.page, seen.taken_home(tmp_path)):
        expect(page.locator(".fl-notice")).to_contain_text("does not look like English")
        expect(page.locator(".fl-cut")).to_contain_text("The target reads the first")


def test_keyboard_and_scrubbing(visit: Opener, story_address: str) -> None:
    seen = ended(visit, story_address)
    calls = seen.calls()
    page = seen.page
    page.focus(".fl-position")
    page.keyboard.press("Home")
    assert seen.calls() == [0, 0, 0]
    page.keyboard.press("ArrowRight")
    assert seen.calls() == [1, 1, 1]
    page.keyboard.press("ArrowLeft")
    assert seen.calls() == [0, 0, 0]
    # Without a frame the replay, which is short, stands still: only the key can pause it.
    page.evaluate("() => { nextFrame = requestAnimationFrame; requestAnimationFrame = () => 0; }")
    page.keyboard.press("Space")
    expect(page.locator(".fl-play")).to_have_text("❚❚ Pause")
    page.keyboard.press("Space")
    expect(page.locator(".fl-play")).to_have_text("▶ Play")
    page.evaluate("() => { requestAnimationFrame = nextFrame; }")
    page.keyboard.press("End")
    assert seen.calls() == calls
    page.select_option(".fl-axis", "time")
    page.select_option(".fl-speed", "real")
    expect(page.locator(".fl-about")).to_contain_text("real speed")
    page.click(".fl-play")
    seen.ended()
    assert seen.calls() == calls


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_every_screen(visit: Opener, story_address: str, scheme: str) -> None:
    seen = ended(visit, story_address, color_scheme=scheme)
    page = seen.page
    for width in (1440, 820, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for part in (".fl-lane", ".fl-text", ".fl-round-box"):
            for box in page.locator(part).all():
                # A strip goes on below the space behind its word, at the end of a line as well.
                assert box.evaluate("e => e.scrollWidth <= e.clientWidth + 8"), part
    dark = page.evaluate("document.body.classList.contains('dark')")
    assert dark == (scheme == "dark")


def test_reduced_motion_shows_the_end_at_once(visit: Opener, story_address: str) -> None:
    seen = visit(story_address, reduced_motion="reduce").open()
    page = seen.page
    page.wait_for_selector(".fl-count")
    assert seen.calls()[0] == page.locator('.fl-lane[data-key="alone"] .fl-block').count()
    assert page.locator(".fl-scene").get_attribute("data-step") == "5"


def paste(seen: Visit, text: str) -> None:
    """Opens the box and puts an article into it."""
    seen.page.get_by_text(FOLD).click()
    fill(seen, text)


def fill(seen: Visit, text: str) -> None:
    box = seen.page.locator("#fl-article textarea")
    box.fill(text)
    expect(box).to_have_value(text)


def go(seen: Visit) -> None:
    """Races live, and waits for the end."""
    seen.page.click("#fl-go")
    seen.page.wait_for_selector(".fl-race[data-ran]")
