"""A drafter that learns in view: its curves, the race behind it, and the ways to stop."""

from collections.abc import Callable
from pathlib import Path

from conftest import Visit
from playwright.sync_api import Page, Route, expect

from fastllm.demo import words
from fastllm.demo.folds.choose import words as choose_words
from fastllm.demo.folds.learn import words as learn_words
from fastllm.demo.folds.race import words as race_words
from fastllm.words import capital

ARTICLE = "The council voted to plant trees along the river, and the mayor said it was time. " * 3
SLOW_RACE = "Endless rain fell on the village for the third day, and the river is rising. " * 4
SLOW_LESSON = "Endless lessons were given in the old school hall, and nobody asked for them. " * 4


def opened(seen: Visit, article: str = "") -> Page:
    page = seen.open().page
    if article:
        page.get_by_text(choose_words.ARTICLE_FOLD).click()
        fill(page, article)
    seen.tab("Train")
    page.wait_for_selector("#fl-learn-go")
    return page


def fill(page: Page, article: str) -> None:
    box = page.locator("#fl-article textarea")
    box.fill(article)
    expect(box).to_have_value(article)


def status(page: Page, sentence: str) -> None:
    expect(page.locator(".fl-learn-status")).to_have_text(sentence)


def test_it_learns_in_view_and_then_races(
    visit: Callable[..., Visit], story_address: str, tmp_path: Path
) -> None:
    seen = visit(story_address, reduced_motion="reduce")
    page = opened(seen, ARTICLE)
    status(page, learn_words.BROWSER["before"])
    page.click("#fl-learn-go")
    expect(page.locator(".fl-learn-said p")).to_have_count(2)
    status(page, learn_words.BROWSER["raced"])
    own, held_out = page.locator(".fl-learn-figure").all()
    expect(own.locator("svg.fl-curve")).to_have_attribute(
        "aria-label",
        "This article: alpha 0.50 at first, 0.92 after 60 updates; "
        "LSTM after distillation has 0.70",
    )
    expect(own).to_contain_text("3 others")
    expect(held_out).to_contain_text("Held out: 3 articles")
    # What is flat is drawn flat, over the whole of alpha: all points are at one height.
    path = held_out.locator("path.fl-learn-yours").first.get_attribute("d") or ""
    heights = {point.split(" ")[1] for point in path.replace("M", "L").split("L")[1:]}
    assert len(heights) == 1
    expect(page.locator(".fl-learn-said")).to_contain_text("stayed flat")
    expect(page.locator(".fl-learn-numbers")).to_contain_text("60 updates · 6,000 tokens")

    seen.ended()
    keys = [lane.get_attribute("data-key") for lane in page.locator(".fl-lane").all()]
    assert keys == ["alone", "lstm-before", "lstm-yours", "lstm-after"]
    expect(page.locator(".fl-verdict")).to_contain_text("Your freshly trained LSTM won")
    practised = learn_words.PRACTISED.format(capital(words.title_of("lstm-yours")))
    expect(page.locator(".fl-notice")).to_have_text(practised)
    home = seen.taken_home(tmp_path)
    expect(home.locator(".fl-notice")).to_have_text(practised)
    home.close()
    page.wait_for_function("() => !document.body.className.match(/fl-(learning|running)/)")
    seen.tab("Inside")  # drawn from the rows of the race alone
    page.wait_for_selector("#fl-plot-clock .main-svg")
    seen.require_clean()


def test_stopped_while_it_learns_there_is_no_race(
    visit: Callable[..., Visit], story_address: str
) -> None:
    seen = visit(story_address, reduced_motion="reduce")
    page = opened(seen, SLOW_LESSON)
    before = page.locator(".fl-badge").inner_text()
    page.click("#fl-learn-go")
    page.wait_for_selector(".fl-learn-figure")
    page.click("#fl-learn-stop")
    status(page, learn_words.BROWSER["stopped"])
    expect(page.locator(".fl-learn-figure")).to_have_count(2)
    assert page.locator(".fl-badge").inner_text() == before
    seen.tab("Race")
    fill(page, ARTICLE)
    page.click("#fl-go")  # the device is free
    page.wait_for_selector(".fl-race[data-ran]")
    seen.ended()
    assert page.locator(".fl-lane").count() == 4
    status(page, learn_words.BROWSER["stopped"])
    seen.require_clean()


def test_stopped_before_the_server_has_answered_it_does_not_learn(
    visit: Callable[..., Visit], story_address: str
) -> None:
    seen = visit(story_address, reduced_motion="reduce")
    page = opened(seen, SLOW_LESSON)
    held: list[Route] = []
    # A lambda: Playwright counts the parameters of what it calls, and a built-in does not tell.
    page.route("**/queue/join*", lambda route: held.append(route))
    with page.expect_request("**/queue/join*"):
        page.click("#fl-learn-go")
    page.click("#fl-learn-stop")
    status(page, learn_words.BROWSER["stopping"])
    for route in held:
        route.continue_()
    page.unroute("**/queue/join*")
    status(page, learn_words.BROWSER["stopped"])
    seen.tab("Race")
    fill(page, ARTICLE)
    seen.tab("Train")
    page.click("#fl-learn-go")  # the device is free, and the new lesson is not stopped
    status(page, learn_words.BROWSER["raced"])
    seen.require_clean()


def test_either_stop_ends_the_race(visit: Callable[..., Visit], story_address: str) -> None:
    seen = visit(story_address, reduced_motion="reduce")
    page = opened(seen, SLOW_RACE)
    for tab, button in (("Race", "#fl-stop"), ("Train", "#fl-learn-stop")):
        seen.tab("Train")
        page.click("#fl-learn-go")
        page.wait_for_selector(
            ".fl-learning.fl-running .fl-race:not(.fl-waiting) [data-key='lstm-yours'] .fl-block"
        )
        expect(page.get_by_role("tab", selected=True)).to_have_text("Race")  # it is to be seen
        seen.tab(tab)
        page.click(button)
        status(page, learn_words.BROWSER["stopped_race"])
        expect(page.locator(".fl-notices")).to_contain_text(race_words.BROWSER["stopped"])
        page.wait_for_function("() => !document.body.className.match(/fl-(learning|running)/)")
    seen.tab("Race")
    fill(page, ARTICLE)
    seen.tab("Train")
    page.click("#fl-learn-go")
    status(page, learn_words.BROWSER["raced"])
    seen.ended()
    seen.require_clean()


def test_what_is_refused_is_said(visit: Callable[..., Visit], story_address: str) -> None:
    page = opened(visit(story_address), "Too short.")
    page.click("#fl-learn-go")
    expect(page.get_by_text("The article has 2 words")).to_be_visible()
    status(page, learn_words.BROWSER["failed"])


def test_it_fits_a_phone_and_leaves_the_stage(
    visit: Callable[..., Visit], story_address: str
) -> None:
    page = opened(visit(story_address, width=390, height=844), ARTICLE)
    page.click("#fl-learn-go")
    expect(page.locator(".fl-learn-said p")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto(f"{story_address}?present=1")
    page.wait_for_selector(".fl-legend")
    expect(page.locator("#fl-learn")).to_be_hidden()
