"""What a program gets from the page's endpoints, and how it is told what was wrong."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import asking
import gradio as gr
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from fastllm.demo import rows
from fastllm.demo.context import PageContext
from fastllm.demo.engine import LocalEngine
from fastllm.demo.folds.race import words as race_words
from fastllm.errors import DataError

# Gradio's own statistics, drawn up after every twenty runs.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*no_silent_downcasting", "ignore:The copy keyword is deprecated"
)

LIMITS = replace(
    asking.LIMITS,
    article_characters=3000,
    max_new_tokens=24,
    lanes=2,
    upload_bytes=2000,
    compare_articles=3,
)

SHORT = {"lanes": ["alone", "lookup"], "length": 12}


@pytest.fixture(scope="module")
def engine(tiny_folder: str) -> LocalEngine:
    engine = LocalEngine(tiny_folder)
    engine.start()
    return engine


@pytest.fixture(scope="module")
def client(engine: LocalEngine) -> Iterator[Client]:
    with asking.serving(engine, LIMITS) as address:
        client = Client(address, verbose=False, download_files=False, httpx_kwargs={"timeout": 600})
        yield client
        client.close()


def test_a_race_token_by_token(client: Client, story: str) -> None:
    found = client.predict(article=story, **SHORT, api_name="/result")
    text = client.predict(article=story, **SHORT, api_name="/race")
    _, *rounds, end = (json.loads(line) for line in text.splitlines())
    assert (found["target"], found["same"], found["same_text"]) == ("tiny", True, end["same"][1])
    assert [lane["key"] for lane in found["lanes"]] == ["alone", "lookup"]
    assert found["settings"]["max_new_tokens"] == 12
    for index, (lane, told) in enumerate(zip(found["lanes"], end["lanes"], strict=True)):
        states = [token["s"] for token in lane["tokens"]]
        assert len(states) == told["tokens"]
        assert states.count("accepted") == lane["accepted"] == told["accepted"]
        assert (lane["calls"], lane["text"]) == (told["calls"], told["text"])
        shown = [token for row in rounds if row["lane"] == index for token in row["tokens"]]
        assert lane["tokens"] == [
            {"t": token["t"], "s": token["s"]} for token in shown if token["s"] != "refused"
        ]
    alone, lookup = found["lanes"]
    assert {token["s"] for token in alone["tokens"]} == {"plain"}
    assert alone["refused"] == []
    # Behind each refused guess stands what the target put in its place.
    assert lookup["refused"]
    for guess in lookup["refused"]:
        assert lookup["tokens"][guess["at"]]["s"] == "correction"


def test_what_is_left_out_is_as_on_the_page(client: Client, story: str) -> None:
    parameters = {
        name: {
            entry["parameter_name"]: entry.get("parameter_default")
            for entry in client.view_api(return_format="dict")["named_endpoints"][name][
                "parameters"
            ]
        }
        for name in ("/race", "/result", "/compare")
    }
    for name in ("/result", "/compare"):
        for setting in ("gamma", "temperature", "top_p", "seed", "length", "rule", "lenience"):
            if setting == "length":  # of the model's own; the page of this test takes no more
                continue
            assert parameters[name][setting] == parameters["/race"][setting]
    found = client.predict(article=story, length=8, api_name="/result")
    assert [lane["key"] for lane in found["lanes"]] == parameters["/race"]["lanes"]


def test_a_sampled_race_has_no_same_text(client: Client, story: str) -> None:
    found = client.predict(article=story, **SHORT, temperature=1.0, api_name="/result")
    assert found["same"] is None


def test_a_comparison(client: Client, story: str) -> None:
    job = client.submit(articles=[story, f"Again. {story}"], **SHORT, api_name="/compare")
    found = job.result(timeout=600)
    assert (found["asked"], found["ended"], found["same"]) == (2, "done", True)
    assert [entry["title"] for entry in found["articles"]] == ["article 1", "article 2"]
    assert [lane["key"] for lane in found["lanes"]] == ["alone", "lookup"]
    assert found["table"]["articles"] == 2
    calls = [entry["lanes"][1]["calls"] for entry in found["articles"]]
    assert found["table"]["lanes"][1]["calls"]["value"] == sum(calls) / 2
    *waiting, last = job.outputs()
    assert set(waiting) == {None}  # so that a program that leaves is noticed
    assert last == found


GOOD: dict[str, Any] = {
    "lanes": ["lookup", "alone"], "gamma": 5, "temperature": 0.0, "top_p": 1.0, "seed": 0,
}  # fmt: skip
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"gamma": "x"}, "gamma='x': give a number"),
    ({"gamma": "5"}, "gamma='5': give a number"),
    ({"gamma": True}, "gamma=True: give a number"),
    ({"gamma": 2.5}, "gamma=2.5 is out of range: give a whole number"),
    ({"gamma": 7}, "gamma=7 is out of range: this page takes up to 6"),
    ({"gamma": 0}, "gamma=0 is out of range"),
    ({"gamma": None}, "gamma=None: give a number"),
    ({"temperature": None}, "temperature=None: give a number"),
    ({"temperature": [1]}, r"temperature=\[1\]: give a number"),
    ({"temperature": 9}, "temperature=9 is out of range"),
    ({"top_p": {}}, r"top_p=\{\}: give a number"),
    ({"top_p": 0}, "top_p=0 is out of range"),
    ({"seed": 1.5}, "seed=1.5 is out of range: give a whole number"),
    ({"seed": -1}, "seed=-1 is out of range"),
    ({"length": "long"}, "length='long': give a number"),
    ({"length": 999}, "max_new_tokens=999 is out of range: this page takes up to 24"),
    ({"rule": 3}, "rule=3: give one of auto, token, block, lenient"),
    ({"rule": "best"}, "verification='best' is not known"),
    ({"rule": None}, "rule=None: give one of"),
    ({"lenience": "<b>x</b>"}, "lenience='&lt;b&gt;x&lt;/b&gt;': give a number"),
    ({"lanes": "lookup"}, "lanes='lookup': give a list of alone, lookup"),
    ({"lanes": {"lookup": 1}}, "lanes=.*: give a list"),
    ({"lanes": ["lookup", 3]}, "no lane 3 here"),
    ({"lanes": ["lookup", ["alone"]]}, r"no lane \['alone'\] here"),
    ({"seed": "y" * 500}, f"seed='{'y' * 59}...: give a number"),
]


@pytest.fixture(scope="module")
def context(engine: LocalEngine) -> PageContext:
    """What the endpoints check with."""
    return PageContext(engine, LIMITS, {})


@pytest.mark.parametrize(("values", "reason"), WRONG)
def test_a_setting_of_a_wrong_form_is_named(
    context: PageContext, values: dict[str, Any], reason: str
) -> None:
    lanes, *settings = ({**GOOD, "length": 8, "rule": "auto", "lenience": 1.0} | values).values()

    def checked() -> None:
        with context.said():
            context.config(*settings)
            context.chosen(lanes)

    with pytest.raises(gr.Error, match=reason):
        checked()


@pytest.mark.parametrize("endpoint", ["/race", "/result", "/compare"])
def test_every_endpoint_says_what_it_found_and_what_it_needed(
    client: Client, story: str, endpoint: str
) -> None:
    name, article = ("articles", [story]) if endpoint == "/compare" else ("article", story)
    for values, reason in [
        *(WRONG[number] for number in (0, 7, 11, -5, -3)),
        ({name: None}, "no article|articles=None"),
        ({name: 7}, "no article|articles=7"),
    ]:
        with pytest.raises(AppError, match=reason):
            client.predict(**({name: article} | GOOD | values), length=8, api_name=endpoint)


def test_the_bounds_of_a_comparison(client: Client, story: str) -> None:
    for articles, reason in (
        ([], "no article to compare"),
        ([story] * 4, "4 articles; this page compares on up to 3"),
        ([story, "Too short."], "Article 2: .*2 words"),
        ([story, story * 9], "Article 2: .* this page takes 3,000"),
        ([story * 5, story * 5], "bytes together; this page takes 2,000"),
    ):
        with pytest.raises(AppError, match=reason):
            client.predict(articles=articles, **SHORT, api_name="/compare")
    with pytest.raises(AppError, match="at least one lane with a drafter"):
        client.predict(articles=[story], lanes=["alone"], length=8, api_name="/compare")


def test_half_a_race_is_no_result() -> None:
    lines = [rows.line({"row": "start"}), rows.line({"row": "round"})]
    for count in range(3):
        with pytest.raises(DataError, match=race_words.NO_RACE[:20]):
            rows.result_of("".join(lines[:count]))
