"""What whoever shows a link to the page reads of it: the tags in the HTML that the server gives."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html.parser import HTMLParser

import gradio as gr
import httpx
import pytest

from fastllm.demo import head, words
from fastllm.demo.page import launch_options


class Tags(HTMLParser):
    """The tags of a shared link: name -> all contents, in their order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("property") or given.get("name")
        if tag == "meta" and name:
            self.found.setdefault(name, []).append(given["content"] or "")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., httpx.Client]]:
    """Launches a page that knows its host, or none; gives what asks it."""
    with gr.Blocks(title="<T>", analytics_enabled=False) as page:
        gr.HTML("æ")

    with ExitStack() as opened:

        def serve(host: str = "") -> httpx.Client:
            monkeypatch.setenv(head.HOST, host)
            _, address, _ = page.launch(prevent_thread_lock=True, **launch_options())
            return opened.enter_context(httpx.Client(base_url=address, timeout=600))

        yield serve
    page.close(verbose=False)


def test_title_and_description_are_ours_and_stand_once(served: Callable[..., httpx.Client]) -> None:
    answer = served().get("/")
    tags = Tags(answer.text).found
    assert all(len(contents) == 1 for contents in tags.values()), "no doubles"
    assert tags["og:title"] == [words.TITLE]
    assert tags["og:description"] == tags["description"] == [words.CLAIM]
    assert tags["twitter:card"] == ["summary"]
    assert "viewport" in tags, "what is no such tag stays"
    assert "og:image" not in tags, "an image takes an address, and none is known"
    assert "gradio_config" in answer.text
    assert "æ" in answer.text
    assert "githubusercontent" not in answer.text, "Gradio's own image"
    assert answer.text.index("og:title") < 2000, "behind that not everybody reads"


def test_on_a_space_the_image_has_an_address(served: Callable[..., httpx.Client]) -> None:
    client = served("own.example, owner-space.hf.space")
    tags = Tags(client.get("/").text).found
    assert tags["twitter:card"] == ["summary_large_image"]
    (address,) = tags["og:image"]
    assert tags["og:url"] == ["https://own.example/"]
    assert address.startswith(tags["og:url"][0])
    image = client.get(address.removeprefix("https://own.example"))
    assert image.headers["content-type"] == "image/png"
    assert image.content == head.IMAGE.read_bytes()


def test_values_are_escaped() -> None:
    host = '"><script>x</script>'
    made = head.tags(host)
    assert "<script>" not in made
    assert Tags(made).found["og:url"] == [f"https://{host}/"]


def test_what_is_no_page_is_left_alone(served: Callable[..., httpx.Client]) -> None:
    client = served()
    assert client.get("/config").json()["title"] == "<T>"
    assert client.get("/gradio_api/nothing").status_code == 404
    assert client.head("/").status_code == 200
