"""`python app.py` as it ships, with the checkpoints that ship."""

from collections.abc import Callable

import pytest
from conftest import Visit
from playwright.sync_api import expect

from fastllm.demo.folds.race import words as race_words


def test_a_live_race_on_a_sample(visit: Callable[..., Visit], app_address: str) -> None:
    seen = visit(app_address).open()
    page = seen.page
    page.get_by_text("Settings", exact=True).first.click()
    page.get_by_label("number input for Longest summary").fill("24")  # the page ends long races
    page.click("#fl-go")
    page.wait_for_selector(".fl-badge.fl-live >> text=LIVE")
    page.wait_for_selector(".fl-race[data-ran]")
    expect(page.locator(".fl-about")).not_to_be_empty()
    expect(page.locator(".fl-same")).to_contain_text("Same text in all lanes")
    keys = [lane.get_attribute("data-key") for lane in page.locator(".fl-lane").all()]
    assert keys[0] == "alone"
    assert "lookup" in keys
    expect(page.locator('.fl-lane[data-key="alone"] .fl-size')).to_have_text("9.4 M")
    expect(page.locator(".fl-why-speed")).to_contain_text("times fewer calls")
    lanes = sorted((seen.words(key) for key in keys if key), key=len)
    if page.get_by_text("Ended after").count():  # so slow a machine that even this race was long
        assert all(lanes[-1].startswith(text) for text in lanes)
    else:
        assert lanes[0] == lanes[-1]
        calls = [lane.locator(".fl-block").count() for lane in page.locator(".fl-lane").all()]
        assert 0 < min(calls) <= max(calls) <= 24
    seen.require_clean()


@pytest.mark.slow  # one more live race with the models that ship
def test_drawn_texts_are_compared_a_call(visit: Callable[..., Visit], app_address: str) -> None:
    lanes = "lanes=alone,lookup,lstm-after&temperature=1&max_new_tokens=24"
    seen = visit(app_address, reduced_motion="reduce").open(f"?{lanes}&sample=Autumn+storm")
    page = seen.page
    page.click("#fl-go")
    page.wait_for_selector(".fl-badge.fl-live >> text=LIVE")
    page.wait_for_selector(".fl-race[data-ran]")
    expect(page.locator(".fl-story")).to_have_text(race_words.BROWSER["story_drawn"])
    expect(page.locator(".fl-text")).to_have_count(3)
    expect(page.locator(".fl-same")).to_contain_text("Sampling")
    seen.require_clean()


@pytest.mark.slow  # one more live race with the models that ship
def test_a_tree_shows_its_branches(visit: Callable[..., Visit], app_address: str) -> None:
    lanes = "lanes=alone,lstm-after%7Clookup&sample=Cup+final+keeper"
    page = visit(app_address, reduced_motion="reduce").open(f"?{lanes}").page
    page.click("#fl-go")
    page.wait_for_selector(".fl-race[data-ran]")
    expect(page.locator(".fl-name").nth(1)).to_contain_text("LSTM after distillation | lookup")
    branches = page.locator(".fl-detail .fl-branch")
    for word in page.locator(".fl-word").all():
        word.click()
        page.locator(".fl-which button").nth(1).click()
        if branches.count():
            break
    expect(branches.first).to_contain_text("or, after")
    assert branches.first.locator(".fl-chip").count() > 0


@pytest.mark.slow  # one more live race with the models that ship
def test_a_sample_can_be_read_before_it_is_raced(
    visit: Callable[..., Visit], app_address: str
) -> None:
    page = visit(app_address).open().page
    page.get_by_text("Read or change the article").click()
    box = page.locator("#fl-article textarea")
    before = box.input_value()
    page.locator("#fl-sample select").select_option("Cup final keeper")
    expect(box).not_to_have_value(before)
    expect(box).not_to_have_value("")
