"""The page whose models could not be loaded: it is there, says so, and says why."""

import json
from collections.abc import Callable, Sequence

import pytest
from conftest import Visit
from playwright.sync_api import expect

from fastllm.checkpoints import SHIPPED, TARGET


@pytest.fixture(scope="module")
def broken(serve: Callable[[Sequence[str]], str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A target whose weights are none; its name is one that markup would make use of."""
    folder = tmp_path_factory.mktemp("models") / "<b>${1+1}"
    folder.mkdir()
    ships = list((SHIPPED / TARGET).glob("*.json"))
    assert ships, "no target ships"
    for file in ships:
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.safetensors").write_bytes(json.dumps({}).encode())
    return serve(["app.py", "--port", "PORT", "--target", folder.as_posix()])


def test_it_says_why_and_so_does_a_race(visit: Callable[..., Visit], broken: str) -> None:
    seen = visit(broken).open()
    page = seen.page
    state = page.locator(".fl-state")
    expect(state).to_contain_text("No race can be run live")
    expect(state).to_contain_text("<b>${1+1}")
    assert state.locator("*").count() == 0
    seen.remember(
        "told",
        "[...document.querySelectorAll('.toast-body')].some(e => e.innerText.includes('${1+1}'))",
    )
    page.click("#fl-go")
    seen.remembered("told")
    expect(page.locator(".fl-notice").last).to_contain_text("did not start")
    expect(page.locator(".fl-badge")).to_have_text("RECORDED")
    seen.require_clean()


def test_a_page_that_can_race_says_nothing(visit: Callable[..., Visit], story_address: str) -> None:
    seen = visit(story_address).open()
    expect(seen.page.locator("#fl-state")).to_be_hidden()
    seen.require_clean()
