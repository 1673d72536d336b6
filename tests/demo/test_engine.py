"""The whole way from a checkpoint folder to the page's API, on a tiny random target."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from fastllm.demo import articles, record, texts
from fastllm.demo.build import build, launch_options
from fastllm.demo.engine import LocalEngine, Order
from fastllm.demo.limits import Limits
from fastllm.errors import CheckpointError
from fastllm.trace import DecodingConfig, Trace

LIMITS = Limits(
    article_characters=3000, max_new_tokens=24, lanes=2, gamma=6, seconds_per_run=600, queue_size=4
)
SETTINGS = (5, 0.0, 1.0, 0, 16)


@pytest.fixture(scope="module")
def folder(tiny_target: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("target")
    tiny_target.model.config.fastllm = {"name": "tiny", "source_length": 96}
    tiny_target.model.save_pretrained(path)
    tiny_target.vocabulary.tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def engine(folder: str) -> LocalEngine:
    engine = LocalEngine(folder)
    engine.start()
    return engine


@pytest.fixture(scope="module")
def client(engine: LocalEngine) -> Iterator[Client]:
    page = build(engine, LIMITS, Path("nothing recorded"))
    _, address, _ = page.launch(prevent_thread_lock=True, **launch_options())
    client = Client(address, verbose=False, download_files=False, httpx_kwargs={"timeout": 600})
    yield client
    client.close()
    page.close(verbose=False)


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_another_target_is_raced_alone_and_with_lookup(engine: LocalEngine) -> None:
    assert engine.keys == ["alone", "lookup"]
    assert engine.missing == dict.fromkeys(texts.EXPECTED, texts.OTHER_TARGET)


def test_rows_of_a_race(engine: LocalEngine, story: str) -> None:
    order = Order(story, ("alone", "lookup"), DecodingConfig(max_new_tokens=16), ("mind",), "Mill")
    start, *rounds, end = parsed("".join(engine.lines(order, threading.Event())))
    assert (start["mode"], start["target"], start["article"]) == ("live", "tiny", "Mill")
    assert start["notices"] == ["mind"]
    assert start["cut"]["percent"] < 100
    assert len(rounds) == sum(lane["calls"] for lane in end["lanes"])
    assert end["same"] == ["same", "Same text in all lanes (checked)."]


def test_stop_ends_a_race_behind_its_round(engine: LocalEngine, story: str) -> None:
    stop = threading.Event()
    order = Order(story, ("alone", "lookup"), DecodingConfig(max_new_tokens=24))
    lines = engine.lines(order, stop)
    text = next(lines) + next(lines)
    stop.set()
    *_, end = parsed(text + "".join(lines))
    assert sum(lane["calls"] for lane in end["lanes"]) == 1
    assert end["verdict"] == ""


def test_a_race_meets_its_deadline(engine: LocalEngine, story: str) -> None:
    order = Order(story, ("alone", "lookup"), DecodingConfig(max_new_tokens=24), seconds=0)
    *_, end = parsed("".join(engine.lines(order, threading.Event())))
    assert end["notices"] == [texts.ended_early(0)]


def test_a_missing_target_is_reported_by_every_race(tmp_path: Path, story: str) -> None:
    engine = LocalEngine(str(tmp_path / "none"))
    engine.start()
    with pytest.raises(CheckpointError, match="none"):
        list(engine.lines(Order(story, ("alone",), DecodingConfig()), threading.Event()))


def test_api_streams_rows(client: Client, story: str) -> None:
    job = client.submit(story, ["lookup", "alone"], *SETTINGS, api_name="/race")
    start, *_, end = parsed(job.result(timeout=600))
    assert [lane["key"] for lane in start["lanes"]] == ["alone", "lookup"]
    assert end["same"][0] == "same"
    seen = [text for text in job.outputs() if text]
    assert all(later.startswith(earlier) for earlier, later in zip(seen, seen[1:], strict=False))


def test_api_offers_the_race_and_nothing_else(client: Client) -> None:
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/race"}


def test_sampling_says_that_texts_differ_by_their_draws(client: Client, story: str) -> None:
    text = client.predict(story, ["alone", "lookup"], 5, 1.0, 0.9, 3, 16, api_name="/race")
    assert parsed(text)[-1]["same"][0] == "sampled"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("", ["alone", "lookup"], *SETTINGS), "no article"),
        (("too short", ["alone", "lookup"], *SETTINGS), "2 words"),
        (("word " * 900, ["alone", "lookup"], *SETTINGS), "3,000"),
        ((None, ["alone"], *SETTINGS), "at least two lanes"),
        ((None, ["alone", "lookup"], 7, 0.0, 1.0, 0, 16), "gamma|Value 7"),
        ((None, ["alone", "lookup"], 5, 9.0, 1.0, 0, 16), "temperature|Value 9"),
        ((None, ["alone", "lookup"], 5, 0.0, 1.0, 0, 999), "max_new_tokens|Value 999"),
        ((None, ["alone", "lookup"], 5, 0.0, 1.0, -1, 16), "seed|Value -1"),
        ((None, ["alone", "none such"], *SETTINGS), "none such"),
    ],
)
def test_api_refuses_with_a_reason(
    client: Client, story: str, values: tuple[Any, ...], message: str
) -> None:
    article, *rest = values
    with pytest.raises((AppError, ValueError), match=message):
        client.predict(story if article is None else article, *rest, api_name="/race")


def test_records_a_race_that_the_page_can_open(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "race.json"
    title = list(articles.samples())[1]
    options = ["--target", folder, "--runs", "1", "--to", str(path), "--article", title]
    assert record.main(options) == 0
    assert "target alone" in capsys.readouterr().out
    tree = json.loads(path.read_text("utf-8"))
    assert tree["lanes"] == ["alone", "lookup"]
    assert [Trace.from_json(entry).target for entry in tree["traces"]] == ["tiny", "tiny"]
    page = build(LocalEngine(folder), LIMITS, path)
    values = [block.value for block in page.blocks.values() if isinstance(block, gr.HTML)]
    (opening,) = [value for value in values if value]
    assert parsed(opening)[0]["article"] == title


def test_record_names_a_lane_it_does_not_have(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.main(["--target", folder, "--lanes", "alone", "lstm-none"]) == 2
    assert "lstm-none" in capsys.readouterr().err
