"""A real Chromium, and servers that it visits.

No test may fail because a machine is slow: they wait for states that stay, or have the page
remember those that pass, and give up only after minutes. To try that, `FASTLLM_TEST_SLOW=8` makes
every page run eight times slower than the machine can (Chromium throttles its own thread):

    FASTLLM_TEST_SLOW=8 python -m pytest tests/browser

How long they wait before they give up is `FASTLLM_TEST_WAIT`, in seconds: five minutes, so that a
busy machine fails nothing. Where a test does fail, `FASTLLM_TEST_WAIT=30` has it fail soon.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fastllm.checkpoints import SHIPPED, TARGET

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "demo"))

import stories  # noqa: E402  (found on the path that is set above)

PATIENCE = 600.0
"""Seconds for a server to come up, on a machine that has other things to do."""

WAIT = float(os.environ.get("FASTLLM_TEST_WAIT", "300"))
"""Seconds for a page to come to a state: one that has not by then is taken never to do so."""

SLOW = float(os.environ.get("FASTLLM_TEST_SLOW", "1"))
"""How many times slower than the machine a page is to run."""

expect.set_options(timeout=WAIT * 1000)

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the browser's tests, and has them run last.

    Playwright keeps an event loop of this thread running until the session ends, and where one
    runs, `asyncio.run` refuses: what other tests need.
    """
    here = Path(__file__).parent
    items.sort(key=lambda item: here in item.path.parents)  # stable: the rest keeps its order
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on this system: install one to run the browser tests")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=found, args=list(QUIET), timeout=PATIENCE * 1000
        )
        yield chromium
        chromium.close()


class Visit:
    """A page under watch: what it requested, and what went wrong in it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.requested: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._listen)

    def open(self, query: str = "") -> "Visit":
        """Goes to the page, and waits until all of it is there."""
        self.page.goto(self.address + query)
        for part in ("#fl-sample select", "#fl-go", "#fl-stop", "#fl-article-fold", ".fl-legend"):
            self.page.wait_for_selector(part)
        return self

    def tab(self, name: str) -> Page:
        """Opens a part of the page."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        return self.page

    def remember(self, name: str, condition: str) -> None:
        """From now on the page notes when it meets a condition, be it for ever so short a time.

        Args:
            name: what `remembered` asks for.
            condition: a JavaScript expression; looked at whenever the page has changed.
        """
        self.page.evaluate(
            f"""name => {{
                const met = (window.remembered ??= {{}});
                new MutationObserver(() => {{ if ({condition}) met[name] = true; }}).observe(
                    document.body,
                    {{ subtree: true, childList: true, characterData: true, attributes: true }},
                );
            }}""",
            name,
        )

    def remembered(self, name: str) -> None:
        """Waits until the page has met a condition, or learns that it already has."""
        self.page.wait_for_function("name => window.remembered?.[name]", arg=name)

    def ended(self) -> None:
        """Waits until the race on the screen has come to its end."""
        self.page.wait_for_selector(
            ".fl-race:not(.fl-moving):has(.fl-same:not(:empty)) .fl-lane.fl-done"
        )

    def words(self, lane: str) -> str:
        """The words that have a strip of this lane under them."""
        script = """key => {
            const keys = [...document.querySelectorAll(".fl-lane")].map(lane => lane.dataset.key);
            const cells = document.querySelectorAll(
                `.fl-word:not(.fl-end) .fl-cell[data-lane="${keys.indexOf(key)}"]:not(.fl-future)`
            );
            const word = cell => cell.closest(".fl-word").querySelector(".fl-letters").textContent;
            return [...cells].map(word).join(" ");
        }"""
        return str(self.page.evaluate(script, lane))

    def calls(self) -> list[int]:
        return [int(text) for text in self.page.locator(".fl-count").all_inner_texts()]

    def taken_home(self, folder: Path) -> Page:
        """The replay that a visitor takes home, opened; the fold of it is still closed."""
        self.page.locator(".fl-keep summary").click()
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Replay as one HTML file").click()
        download.value.save_as(folder / "replay.html")
        home = self.page.context.new_page()
        home.goto((folder / "replay.html").as_uri())
        home.wait_for_selector(".fl-lane")
        return home

    def require_clean(self) -> None:
        """Nothing went wrong, and nothing was asked of anyone else."""
        outside = [url for url in self.requested if not url.startswith((self.address, "data:"))]
        assert not outside
        assert not self.errors

    def _listen(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens a fresh, unshared page of an address."""
    contexts = []

    def open_page(address: str, *, width: int = 1440, height: int = 900, **more: Any) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, **more)
        context.set_default_timeout(WAIT * 1000)
        contexts.append(context)
        page = context.new_page()
        if SLOW > 1:
            session = context.new_cdp_session(page)
            session.send("Emulation.setCPUThrottlingRate", {"rate": SLOW})
        return Visit(page, address)

    yield open_page
    for context in contexts:
        context.close()


def ended(visit: Callable[..., Visit], address: str, query: str = "", **more: Any) -> Visit:
    """A page without motion: its recorded race stands at its end at once."""
    seen = visit(address, reduced_motion="reduce", **more).open(query)
    seen.ended()
    return seen


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Sequence[str]], str]]:
    """Starts a server and gives its address; "PORT" among the arguments is replaced."""
    servers: list[subprocess.Popen[bytes]] = []

    def start(arguments: Sequence[str]) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, *(str(port) if a == "PORT" else a for a in arguments)]
        server = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"}
        )
        servers.append(server)
        address = f"http://127.0.0.1:{port}/"
        deadline = time.monotonic() + PATIENCE
        while True:
            assert server.poll() is None, f"{command} ended with {server.returncode}"
            assert time.monotonic() < deadline, f"{command} does not answer"
            try:
                with urllib.request.urlopen(address, timeout=PATIENCE):
                    return address
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)

    yield start
    for server in servers:
        server.terminate()
        server.wait(PATIENCE)


HOSTILE = (
    " <script>window.harmed=1</script>",
    " ${window.harmed=2}",
    " {{x}}",
    " <img src=x onerror=window.harmed=3>",
    " ${7*6}",
    " &lt;b&gt;",
)


@pytest.fixture(scope="session")
def hostile() -> Sequence[str]:
    """Words that would do harm wherever text is taken for markup or for a template."""
    return HOSTILE


@pytest.fixture(scope="session")
def story_address(
    serve: Callable[[Sequence[str]], str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The page with an engine of stories; its recorded race is hostile."""
    pieces = [*HOSTILE, *stories.SUMMARY]
    keys, traces = stories.race(pieces, source=" ".join(HOSTILE) * 5, cut_at=60)
    path = tmp_path_factory.mktemp("recorded") / "story.json"
    tree = {"article": "<i>x</i>", "lanes": keys, "traces": [t.to_json() for t in traces]}
    path.write_text(json.dumps(tree), encoding="utf-8")
    return serve(["tests/browser/serve.py", "PORT", "0.005", str(path.parent)])


@pytest.fixture(scope="session")
def app_address(serve: Callable[[Sequence[str]], str]) -> str:
    """`python app.py` as it ships, with the checkpoints that ship."""
    assert (SHIPPED / TARGET / "config.json").is_file(), "no target ships"
    return serve(["app.py", "--port", "PORT"])
