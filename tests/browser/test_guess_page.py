"""You be the drafter, played in a real browser with the models that ship."""

from collections.abc import Callable
from typing import Any

import asking
import pytest
from conftest import Visit
from playwright.sync_api import Page, expect

from fastllm.demo import articles, rows
from fastllm.demo.folds.game import words as game_words
from fastllm.demo.folds.race.race import TYPICAL

GUESSING = "#fl-game"


TITLES = list(articles.samples())
FIRST = articles.samples()[TITLES[(TITLES.index(TYPICAL) + 1) % len(TITLES)]]
"""The article that the game begins with: the one after that which the page opens with."""


@pytest.fixture(scope="module")
def summary(app_address: str) -> str:
    """What the target writes of the article that the game begins with."""
    raced = asking.Page(app_address).race(article=FIRST, lanes=["alone", "lookup"])
    return rows.traces_of(raced.text or "")[1][0].text


def opened(seen: Visit, query: str = "") -> Page:
    seen.open(query)
    seen.tab("Play")
    seen.page.wait_for_selector(".fl-game-caret")
    seen.page.wait_for_selector("#fl-game-words :is(input, textarea)")
    return seen.page


def field(page: Page) -> Any:
    return page.get_by_label(game_words.FIELD)


def text_of(page: Page) -> str:
    parts = page.locator(".fl-game-summary .fl-token").all_text_contents()
    return "".join(parts).strip()


def test_a_whole_game(visit: Callable[..., Visit], app_address: str, summary: str) -> None:
    seen = visit(app_address)
    page = opened(seen)
    shown = page.get_by_label(game_words.TEXT).input_value()
    assert shown == FIRST
    assert summary not in page.locator("body").inner_text(), "nothing gives it away"

    # The keyboard alone: words that the target would write, then one that it would not.
    words = summary.split()
    field(page).focus()
    page.keyboard.type(" ".join(words[:3]))
    page.keyboard.press("Enter")
    expect(page.locator(".fl-is-accepted")).to_have_count(3)
    expect(page.locator(".fl-is-refused")).to_have_count(0)
    expect(field(page)).to_have_value("")
    expect(field(page)).to_be_focused()
    assert summary.startswith(text_of(page))
    assert len(text_of(page).split()) >= 4  # a word more, from the same call
    expect(page.locator(".fl-game-player")).to_have_count(3)
    expect(page.locator(".fl-game-player").first).to_contain_text("100 %")

    page.keyboard.type("<u>zoo</u> ${x}")
    page.keyboard.press("Enter")
    expect(page.locator(".fl-is-refused")).to_contain_text("<u>zoo</u>")
    expect(page.locator(".fl-is-refused .fl-correction")).not_to_be_empty()
    expect(page.locator(".fl-is-dropped")).to_have_count(1)
    expect(page.locator(".fl-game-status")).to_contain_text("falls")
    expect(page.locator(".fl-game-choices li")).to_have_count(5)
    expect(page.locator(".fl-game-choices .fl-this")).to_have_count(1)
    expect(page.locator(GUESSING).locator("u")).to_have_count(0)

    written = text_of(page)
    page.locator(GUESSING).get_by_role("button", name="LSTM after distillation").click()
    expect(page.locator(".fl-game-judged h3")).to_contain_text("LSTM after distillation")
    assert text_of(page).startswith(written)
    page.locator(GUESSING).get_by_role("button", name=game_words.REST).click()
    expect(page.locator(".fl-game-verdict")).not_to_be_empty()
    assert text_of(page) == summary
    expect(field(page)).to_be_hidden()

    page.keyboard.press("Enter")  # where the focus is: start over
    expect(page.locator(".fl-game-caret")).to_have_text(game_words.BROWSER["nothing"])
    expect(field(page)).to_be_focused()
    assert text_of(page) == ""
    expect(page.locator(".fl-game-player")).to_have_count(0)
    seen.require_clean()


@pytest.mark.slow  # one more live game with the models that ship
def test_what_is_refused_stays_to_be_mended(visit: Callable[..., Visit], app_address: str) -> None:
    page = opened(visit(app_address))
    page.locator(GUESSING).get_by_role("button", name=game_words.SKIP).click()
    expect(page.locator(".fl-game-summary .fl-token")).to_have_count(1)
    written = text_of(page)
    much = "a b c d e f g h i j k l m n o p q r s t"
    field(page).fill(much)
    field(page).press("Enter")
    expect(page.get_by_text("tokens; one call checks")).to_be_visible()
    expect(field(page)).to_have_value(much)
    expect(page.locator(".fl-game-status")).to_contain_text("Your words are still there")
    assert text_of(page) == written


@pytest.mark.slow  # one more live game with the models that ship
def test_another_article_is_another_game(visit: Callable[..., Visit], app_address: str) -> None:
    seen = visit(app_address)
    page = opened(seen)
    text, tokens = page.get_by_label(game_words.TEXT), page.locator(".fl-game-summary .fl-token")
    page.locator(GUESSING).get_by_role("button", name=game_words.SKIP).click()
    expect(tokens).to_have_count(1)
    seen.tab("Race")
    page.locator("#fl-sample select").select_option("Cup final keeper")
    seen.tab("Play")
    expect(tokens).to_have_count(1)  # the race is about another article than the game
    page.locator("#fl-game-sample select").select_option(game_words.RACED)
    expect(tokens).to_have_count(0)
    expect(text).to_have_value(page.evaluate("window.fastllmSamples['Cup final keeper']"))
    page.locator("#fl-game-sample select").select_option("Seagrass meadow")
    expect(text).to_have_value(page.evaluate("window.fastllmSamples['Seagrass meadow']"))


@pytest.mark.slow  # one more live game with the models that ship
def test_on_a_telephone_and_on_a_stage(visit: Callable[..., Visit], app_address: str) -> None:
    page = opened(visit(app_address, width=390, height=844))
    field(page).fill("incomprehensibilities, notwithstanding")
    page.get_by_role("button", name=game_words.CHECK, exact=True).click()
    expect(page.locator(".fl-is-refused")).to_have_count(1)
    expect(field(page)).to_be_focused()  # the keyboard of the screen stays open
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context = visit(app_address).page
    context.goto(app_address + "?present=1")
    context.wait_for_selector(".fl-legend")
    expect(context.locator(GUESSING)).to_be_hidden()
