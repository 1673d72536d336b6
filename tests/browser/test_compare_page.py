"""The comparison over several articles, and files that are opened, in a real browser.

The page is `app.py` with a tiny random target and two tiny random drafters.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Visit
from playwright.sync_api import FilePayload, Locator, Page, expect

from fastllm.drafters import drafter_class

Opener = Callable[..., Visit]


@pytest.fixture(scope="module")
def address(
    serve: Callable[[Sequence[str]], str],
    tiny_target: Any,
    tiny_folder: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    folder = tmp_path_factory.mktemp("drafters")
    drafter = drafter_class("lstm").fresh(
        len(tiny_target.vocabulary.tokenizer),
        start_id=tiny_target.start_id,
        vocabulary=tiny_target.vocabulary.fingerprint,
        width=18,
        hidden=18,
        mixing=18,
    )
    drafters = []
    for name in ("tiny-before", "tiny-after"):
        drafter.save(folder / name)
        drafters += ["--drafter", str(folder / name)]
    return serve(["app.py", "--port", "PORT", "--target", tiny_folder, *drafters])


def fold(visit: Opener, address: str, **more: Any) -> Visit:
    """A page whose fold is open, all four lanes chosen."""
    seen = visit(address, **more).open()
    if more.get("width") == 390:
        seen.page.click("#fl-lanes-button")
    for name in ("lookup", "tiny-before", "tiny-after"):
        seen.page.locator(f'#fl-lanes input[name="{name}"]').check()
    seen.tab("Compare")
    expect(status(seen.page)).to_contain_text("Nothing has run yet")
    return seen


def status(page: Page) -> Locator:
    return page.locator(".fl-compare-status")


def opened(page: Page, box: str, name: str, content: str | bytes) -> None:
    raw = content.encode() if isinstance(content, str) else content
    file = FilePayload(name=name, mimeType="text/plain", buffer=raw)
    page.locator(f"{box} input[type=file]").set_input_files(file)


def downloaded(page: Page, button: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path()).read_text("utf-8")


def test_a_comparison_on_the_samples(visit: Opener, address: str) -> None:
    seen = fold(visit, address)
    page = seen.page
    seen.remember("one", "document.querySelector('.fl-compare-title')?.textContent.includes('one')")
    page.click("#fl-compare-go")
    expect(status(page)).to_contain_text("Done: 6 of 6 articles on")
    seen.remembered("one")  # the table has grown
    expect(page.locator(".fl-compare .fl-same")).to_contain_text("all 6 articles (checked)")
    expect(page.locator(".fl-said .fl-verdict")).to_contain_text("tiny: ")
    lanes, pairs, each = page.locator(".fl-estimates").all()
    expect(lanes.locator("tbody tr")).to_have_count(4)
    expect(lanes.locator("tbody th").nth(2)).to_have_text("tiny-before")
    assert re.search(r"\[\d+\.\d, \d+\.\d\]", lanes.inner_text())
    expect(pairs.locator("tbody tr")).to_have_count(1)
    expect(page.locator(".fl-compare .fl-notice")).to_contain_text("Fewer than 20 articles")
    page.get_by_text("Target calls, article by article").click()
    expect(each.locator("tbody tr")).to_have_count(6)
    rows = list(csv.DictReader(io.StringIO(downloaded(page, "Each article as CSV"))))
    assert len(rows) == 24
    assert {row["lane"] for row in rows} == {"alone", "lookup", "tiny-before", "tiny-after"}
    tree = json.loads(downloaded(page, "All numbers as JSON"))
    assert (tree["ended"], tree["asked"], len(tree["articles"])) == ("done", 6, 6)
    numbers = [lane for row in tree["articles"] for lane in row["lanes"]]
    assert [int(row["calls"]) for row in rows] == [lane["calls"] for lane in numbers]
    seen.require_clean()


def test_a_file_of_articles_and_stop(visit: Opener, address: str, story: str) -> None:
    seen = fold(visit, address, width=390, height=844, color_scheme="dark")
    page = seen.page
    many = "".join(json.dumps({"article": f"Number {n}. {story}"}) + "\n" for n in range(50))
    opened(page, "#fl-compare-file", "=<b>x</b>.JSONL", many)
    expect(page.locator("#fl-compare")).to_contain_text("50 articles, ")
    expect(page.get_by_label("a file of mine")).to_be_checked()
    page.click("#fl-compare-go")
    expect(page.locator(".fl-compare")).to_contain_text("An interval needs at least 5 articles")
    page.click("#fl-compare-stop")
    expect(status(page)).to_have_text(re.compile(r"Stopped\. \d+ of 50 articles are complete"))
    assert len(json.loads(downloaded(page, "All numbers as JSON"))["articles"]) < 50
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # A bad line is named, and the page goes on.
    opened(page, "#fl-compare-file", "x.jsonl", '{"article": 7}\n')
    toast = page.locator(".toast-body")
    expect(toast.first).to_contain_text("Line 1 of the file")
    expect(page.locator(".fl-estimates")).to_have_count(0)  # of the file before it nothing stays
    expect(status(page)).to_contain_text("Nothing has run yet")
    page.click("#fl-compare-go")
    expect(status(page)).to_have_text("The comparison did not start: see the message.")
    page.get_by_label("the 6 samples").check()
    page.click("#fl-compare-go")
    expect(status(page)).to_contain_text("Done: 6 of 6")
    assert not [url for url in seen.requested if "/upload" in url]


def test_a_file_becomes_the_article(visit: Opener, address: str, story: str) -> None:
    seen = visit(address).open()
    page = seen.page
    page.get_by_text("Read or change the article").click()
    text = f"<img src=x onerror=alert(1)> {story}"
    opened(page, "#fl-article-file", "<img src=x>.txt", text)
    expect(page.locator("#fl-article textarea")).to_have_value(text)
    expect(page.locator("#fl-sample select")).to_have_value("Your article")
    opened(page, "#fl-article-file", "page.html", story)
    expect(page.locator(".toast-body")).to_contain_text("plain text files (.txt, .md)")
    for name, content, reason in (
        ("large.txt", b"x" * 200_001, "larger than 200,000 bytes"),
        ("latin.txt", "caf\u00e9".encode("latin-1"), "cannot be read as text"),
        ("story.txt", b"PK\x03\x04\xff\xfe", "cannot be read as text"),
    ):
        opened(page, "#fl-article-file", name, content)
        expect(page.locator("#fl-article-file .fl-upload-told")).to_contain_text(reason)
    expect(page.locator("#fl-article textarea")).to_have_value(text)
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le")):
        marked = f"{encoding} {text}"
        opened(page, "#fl-article-file", "marked.txt", mark + marked.encode(encoding))
        expect(page.locator("#fl-article textarea")).to_have_value(marked)
    seen.require_clean()


def test_in_front_of_an_audience_there_is_no_fold(visit: Opener, address: str) -> None:
    page = visit(address).page
    page.goto(address + "?present=1")
    page.wait_for_selector(".fl-legend")
    expect(page.get_by_role("tab", name="Compare")).to_be_hidden()
    expect(page.locator("#fl-compare")).to_be_hidden()
