"""The report of an evaluation, opened from a disk as its reader would."""

from pathlib import Path

import pytest
from evaluations import hand_made
from playwright.sync_api import Browser

from fastllm.evaluation import charts, report

DRAWN = """() => {
    const places = [...document.querySelectorAll('.chart')];
    return places.length > 0 && places.every(place => place.querySelector('.main-svg .xtitle'));
}"""

INK = "getComputedStyle(document.querySelector('.chart .xtitle')).fill"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(charts.page(report.summarise(hand_made())), encoding="utf-8")
    return path.as_uri()


def test_every_chart_is_drawn_and_nothing_is_fetched(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="light")
    context.set_default_timeout(60_000)
    page = context.new_page()
    requested: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(address)
    page.wait_for_function(DRAWN)
    assert requested == [address]
    assert not errors, "the content security policy and the library get along"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    light = page.evaluate(INK)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"light => {INK} !== light", arg=light)
    assert page.evaluate(INK) == page.evaluate("getComputedStyle(document.body).color")
    context.close()
