"""`python app.py` as it ships, with the checkpoints that ship."""

import time
from collections.abc import Callable, Sequence

import pytest
from conftest import Visit
from playwright.sync_api import expect

from fastllm.checkpoints import SHIPPED, TARGET


@pytest.fixture(scope="module")
def address(serve: Callable[[Sequence[str]], str]) -> str:
    if not (SHIPPED / TARGET / "config.json").is_file():
        pytest.skip("no target ships yet")
    return serve(["app.py", "--port", "PORT"])


def test_a_live_race_on_a_sample(visit: Callable[..., Visit], address: str) -> None:
    seen = visit(address).open()
    page = seen.page
    page.get_by_label("article lookup (no training)").check()
    page.click("#fl-go")
    page.wait_for_selector(".fl-badge.fl-live >> text=LIVE", timeout=120_000)
    page.wait_for_selector(".fl-race[data-ran]", timeout=120_000)
    expect(page.locator(".fl-about")).not_to_be_empty()
    expect(page.locator(".fl-same")).to_contain_text("Same text in all lanes", timeout=120_000)
    keys = [lane.get_attribute("data-key") for lane in page.locator(".fl-lane").all()]
    assert keys[0] == "alone"
    assert "lookup" in keys
    assert len({seen.words(key) for key in keys if key}) == 1
    assert min(seen.calls()) > 0
    seen.require_clean()


def test_a_sample_can_be_read_before_it_is_raced(
    visit: Callable[..., Visit], address: str
) -> None:
    page = visit(address).open().page
    page.get_by_text("Read or change the article").click()
    before = page.locator("#fl-article textarea").input_value()
    page.locator("#fl-sample input").click()
    page.get_by_role("option").nth(2).click()
    deadline = time.monotonic() + 30
    while page.locator("#fl-article textarea").input_value() == before:
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
