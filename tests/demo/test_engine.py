"""The whole way from a checkpoint folder to the page's API, on a tiny random target."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asking
import gradio as gr
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from fastllm.checkpoints import shipped_drafters
from fastllm.demo import articles, loading, words
from fastllm.demo.engine import LENT, OTHER_VOCABULARY, LocalEngine
from fastllm.demo.folds.race import words as race_words
from fastllm.demo.jobs import RaceJob
from fastllm.demo.page import build
from fastllm.drafters import drafter_class, untrained
from fastllm.errors import CheckpointError, FastLLMError, SettingsError
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig, Trace
from tools import record

LIMITS = replace(
    asking.LIMITS,
    article_characters=3000,
    max_new_tokens=24,
    lanes=2,
    queue_size=4,
)
GO = threading.Event()
"""Is never set."""

SETTINGS = (5, 0.0, 1.0, 0, 16)


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


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_another_target_is_raced_alone_and_with_lookup(engine: LocalEngine) -> None:
    assert engine.keys == ["alone", *untrained()]
    assert engine.missing == dict.fromkeys(shipped_drafters(), words.OTHER_TARGET)


def test_the_shipped_target_is_raced_with_all_that_ships() -> None:
    engine = LocalEngine()
    assert set(engine.keys) == {"alone", "lookup", *shipped_drafters(), *words.COMPOSED}
    assert not engine.missing


@pytest.fixture
def drafters(tiny_target: HubTarget, tmp_path: Path) -> dict[str, str]:
    """Folders by title: one that fits, one of another vocabulary, one damaged, one that is none."""
    made: dict[str, str] = {}
    for title, vocabulary in (("fits", tiny_target.vocabulary.fingerprint), ("other", "f00d")):
        drafter = drafter_class("lstm").fresh(
            len(tiny_target.vocabulary.tokenizer),
            start_id=tiny_target.start_id,
            vocabulary=vocabulary,
            width=18,
            hidden=18,
            mixing=18,
        )
        made[title] = str(tmp_path / title)
        drafter.save(made[title])
    made["damaged"] = shutil.copytree(made["fits"], tmp_path / "damaged").as_posix()
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"no weights")
    return made | {"gone": str(tmp_path / "gone")}


def test_drafters_of_ones_own(tiny_folder: str, drafters: dict[str, str], story: str) -> None:
    said: list[str] = []
    engine = LocalEngine(tiny_folder, drafters=drafters, say=said.append)
    assert set(engine.keys) == {"alone", "lookup", "fits", "damaged"}
    assert engine.missing["other"] == OTHER_VOCABULARY
    assert drafters["gone"] in engine.missing["gone"]
    engine.start()
    order = RaceJob(story, ("alone", "fits"), DecodingConfig(max_new_tokens=8))
    *_, end = parsed("".join(engine.lines(order, threading.Event())))
    assert end["same"][0] == "same"
    assert "damaged" in engine.missing
    with pytest.raises(CheckpointError, match="Not offered: damaged"):
        RaceJob(story, ("alone", "damaged"), DecodingConfig()).check(engine)
    assert said[0] == f"loading {tiny_folder} ..."
    assert any("tiny is on" in line for line in said)
    assert sum("Not offered" in line for line in said) == len(engine.missing)


def test_a_drafter_in_the_place_of_a_shipped_one(
    tiny_folder: str, drafters: dict[str, str]
) -> None:
    engine = LocalEngine(tiny_folder, drafters={"lstm-after": drafters["fits"]})
    assert set(engine.keys) == {"alone", "lookup", "lstm-after"}


def test_no_drafter_can_be_called_like_the_lane_without_one(tiny_folder: str) -> None:
    with pytest.raises(SettingsError, match="alone"):
        LocalEngine(tiny_folder, drafters={"alone": tiny_folder})


def test_the_target_reads_as_much_as_it_is_told(tiny_folder: str, story: str) -> None:
    engine = LocalEngine(tiny_folder, source_length=20, prefix="say: ", device="cpu")
    engine.start()
    race = RaceJob(story, ("alone",), DecodingConfig()).race(engine)
    assert (len(race.source_ids), race.target.prefix) == (20, "say: ")


def test_what_the_footer_says(engine: LocalEngine, story: str) -> None:
    list(engine.lines(RaceJob(story, ("alone",), DecodingConfig(max_new_tokens=8)), GO))
    versions = {"fastllm", "python", "torch", "transformers", "gradio"}
    assert set(engine.about) == versions | {"hardware", "target", "held"}
    assert "CPU" in engine.about["hardware"]
    assert engine.failure == ""


def test_rows_of_a_race(engine: LocalEngine, story: str) -> None:
    order = RaceJob(
        story, ("alone", "lookup"), DecodingConfig(max_new_tokens=16), ("mind",), "Mill"
    )
    start, *rounds, end = parsed("".join(engine.lines(order, threading.Event())))
    assert (start["mode"], start["target"], start["article"]) == ("live", "tiny", "Mill")
    assert start["notices"] == ["mind"]
    assert start["cut"]["percent"] < 100
    assert len(rounds) == sum(lane["calls"] for lane in end["lanes"])
    assert end["same"] == ["same", "Same text in all lanes (checked)."]


def test_stop_ends_a_race_behind_its_round(engine: LocalEngine, story: str) -> None:
    stop = threading.Event()
    order = RaceJob(story, ("alone", "lookup"), DecodingConfig(max_new_tokens=24))
    lines = engine.lines(order, stop)
    text = next(lines) + next(lines)
    stop.set()
    *_, end = parsed(text + "".join(lines))
    assert sum(lane["calls"] for lane in end["lanes"]) == 1
    assert "cut off" in end["verdict"]


def test_stop_is_heard_while_the_article_is_encoded(engine: LocalEngine, story: str) -> None:
    stop = threading.Event()
    assert isinstance(engine.target, HubTarget)
    first, second = engine.target.model.get_encoder().block
    reached: list[str] = []
    hooks = [
        first.register_forward_pre_hook(lambda *_: stop.set()),
        second.register_forward_pre_hook(lambda *_: reached.append("second layer")),
    ]
    order = RaceJob(story, ("alone", "lookup"), DecodingConfig(max_new_tokens=24))
    (start,) = parsed("".join(engine.lines(order, stop)))
    assert start["row"] == "start"
    assert not reached
    for hook in hooks:
        hook.remove()
    *_, end = parsed("".join(engine.lines(order, threading.Event())))  # the device is free
    assert end["row"] == "end"


def test_a_race_meets_its_deadline(engine: LocalEngine, story: str) -> None:
    order = RaceJob(story, ("alone", "lookup"), DecodingConfig(max_new_tokens=24), seconds=0)
    *_, end = parsed("".join(engine.lines(order, threading.Event())))
    assert end["notices"] == [race_words.ENDED_EARLY.format(0)]


def test_a_missing_target_is_reported_by_every_race(tmp_path: Path, story: str) -> None:
    engine = LocalEngine(str(tmp_path / "none"))
    engine.start()
    with pytest.raises(CheckpointError, match="none"):
        list(engine.lines(RaceJob(story, ("alone",), DecodingConfig()), threading.Event()))
    assert "none" in engine.failure
    assert engine.failure in loading.said(engine)
    assert engine.about["hardware"]


def test_what_a_console_cannot_write_does_not_hold_the_page_up(tmp_path: Path) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            line.encode("cp1252")

    engine = LocalEngine(str(tmp_path / "zażółć"), say=say)
    engine.start()
    assert engine._loaded.wait(asking.WAIT)
    assert "UnicodeEncodeError" in engine.failure
    assert not engine.loading


def test_the_page_says_what_is_loaded_until_it_is_there(
    tiny_folder: str, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine(tiny_folder)
    assert engine.loading.startswith(f"loading {tiny_folder}")
    said = []
    load = HubTarget.load

    def look(*given: Any, **more: Any) -> HubTarget:
        said.append(loading.said(engine))
        return load(*given, **more)

    monkeypatch.setattr(HubTarget, "load", look)
    engine.start()
    list(engine.lines(RaceJob(story, ("alone",), DecodingConfig(max_new_tokens=8)), GO))
    assert "Not ready yet: loading" in said[0]
    assert loading.said(engine) == ""


def test_a_device_that_is_not_there_is_refused(tiny_folder: str) -> None:
    with pytest.raises(FastLLMError, match="nonsense"):
        LocalEngine(tiny_folder, device="nonsense")


def test_who_leaves_before_their_turn_gets_nothing_and_holds_nothing(
    tiny_folder: str, story: str
) -> None:
    left = threading.Event()
    left.set()
    order = RaceJob(story, ("alone",), DecodingConfig(max_new_tokens=8))
    engine = LocalEngine(tiny_folder)
    assert list(engine.lines(order, left)) == []  # nothing is loaded yet
    engine.start()
    first = engine.lines(order, threading.Event())
    next(first)  # has the device
    assert list(engine.lines(order, left)) == []
    first.close()
    assert list(engine.lines(order, threading.Event()))


def test_a_race_past_its_deadline_shows_what_it_has(
    engine: LocalEngine, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = RaceJob(story, ("alone", "lookup"), DecodingConfig(max_new_tokens=24), seconds=30)
    lines = engine.lines(order, GO)
    rows = parsed("".join(next(lines) for _ in range(4)))
    assert [row["row"] for row in rows] == ["start", "round", "round", "round"]
    ticking = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: ticking() + 60)
    *_, end = parsed("".join(lines))
    assert end["notices"] == [race_words.ENDED_EARLY.format(30)]
    assert sum(lane["calls"] for lane in end["lanes"]) == 3
    assert {lane["ended"] for lane in end["lanes"]} == {"deadline"}


def test_api_streams_rows(client: Client, story: str) -> None:
    job = client.submit(story, ["lookup", "alone"], *SETTINGS, api_name="/race")
    start, *_, end = parsed(job.result(timeout=600))
    assert [lane["key"] for lane in start["lanes"]] == ["alone", "lookup"]
    assert end["same"][0] == "same"
    seen = [text for text in job.outputs() if text]
    assert all(later.startswith(earlier) for earlier, later in zip(seen, seen[1:], strict=False))


def test_api_offers_what_is_meant_for_programs_and_nothing_else(client: Client) -> None:
    offered = client.view_api(return_format="dict")["named_endpoints"]
    assert set(offered) == {"/race", "/result", "/compare"}


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
    tiny_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "deep"
    title = list(articles.samples())[1]
    options = ["--target", tiny_folder, "--runs", "1", "--to", str(folder), "--article", title]
    assert record.main(options) == 0
    assert "target alone" in capsys.readouterr().out
    (path,) = folder.iterdir()
    tree = json.loads(path.read_text("utf-8"))
    assert tree["lanes"] == ["alone", "lookup"]
    assert [Trace.from_json(entry).target for entry in tree["traces"]] == ["tiny", "tiny"]
    page = build(LocalEngine(tiny_folder), LIMITS, folder)
    values = [block.value for block in page.blocks.values() if isinstance(block, gr.HTML)]
    (opening,) = [value for value in values if value and '{"row":"start"' in value]
    assert parsed(opening)[0]["article"] == title


LENDER = """
import itertools, multiprocessing, os, pickle, sys

assert "torch" not in sys.modules, "spaces has to be imported before torch"
fork = multiprocessing.get_context("fork")

def GPU(duration):
    def decorate(task):
        assert __import__("inspect").isgeneratorfunction(task)

        def handler(*args):
            # As the real one: arguments and what is yielded are pickled, the work is in a forked
            # process, and of an error only gradio's own comes back with its words.
            print("borrowed for", duration(*args), flush=True)
            mine, other = fork.Pipe()
            stop = fork.Event()
            worker = fork.Process(target=work, args=(task, pickle.dumps(args), other, stop))
            worker.start()
            other.close()
            try:
                while True:
                    kind, value = pickle.loads(mine.recv_bytes())
                    if kind == "end":
                        return
                    if kind == "error":
                        raise value
                    yield value
            except GeneratorExit:
                stop.set()
                raise
            finally:
                worker.join()
                print("worker", worker.exitcode, flush=True)

        return handler
    return decorate

def work(task, args, pipe, stop):
    import gradio as gr
    running = task(*pickle.loads(args))
    try:
        for count, value in enumerate(running):
            if stop.is_set():
                running.close()
                print("stopped after", count, flush=True)
                break
            pipe.send_bytes(pickle.dumps(("value", value)))
    except gr.Error as error:
        pipe.send_bytes(pickle.dumps(("error", gr.Error(error.message))))
    except Exception as error:
        pipe.send_bytes(pickle.dumps(("error", gr.Error(type(error).__name__))))
    else:
        pipe.send_bytes(pickle.dumps(("end", None)))
"""
"""A stand-in for the library of ZeroGPU."""

BORROWER = """
import os, sys, threading
import app  # imports spaces, then all the rest
import gradio as gr
from fastllm.demo import engine as engines
from fastllm.demo.engine import LocalEngine
from fastllm.demo.jobs import RaceJob
from fastllm.errors import DataError, FastLLMError
from fastllm.trace import DecodingConfig

engine = LocalEngine(sys.argv[1])
engine.start()
print("engine", engine.target.engine)
print("about", engine.about["hardware"])
order = RaceJob(sys.argv[2], ("alone", "lookup"), DecodingConfig(max_new_tokens=12))
print("PARENT", os.getpid(), flush=True)
for text in engine.lines(order, threading.Event()):
    print(text, end="", flush=True)
stop = threading.Event()
engines.SLICE_SECONDS = 0
for _ in engine.lines(order, stop):
    stop.set()
order = RaceJob(" ", ("alone",), DecodingConfig())
try:
    list(engine.lines(order, threading.Event()))
except FastLLMError as error:
    print("refused", error, flush=True)

class Broken(RaceJob):
    def lines(self, models, stop):
        raise DataError("what was wrong")

try:
    list(engine.lines(Broken("a b", ("alone",), DecodingConfig()), threading.Event()))
except gr.Error as error:
    print("told", error.message, flush=True)
"""


@pytest.mark.slow
def test_a_race_on_a_borrowed_gpu(tiny_folder: str, story: str, tmp_path: Path) -> None:
    """In a process of its own: the lender has to be imported before torch."""
    (tmp_path / "spaces.py").write_text(LENDER)
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "SPACES_ZERO_GPU": "true",
        "OMP_NUM_THREADS": "1",  # a forked process cannot use the threads of its parent
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}",
    }
    done = subprocess.run(
        [sys.executable, "-c", BORROWER, tiny_folder, story],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [rows[0]["row"], rows[-1]["row"]] == ["start", "end"]
    assert rows[-1]["same"][0] == "same"
    assert f"about {LENT}" in lines
    assert "engine transformers" in lines  # and so without CUDA graphs
    # Three races: one to its end, one stopped, one broken. The fourth was refused before a GPU was
    # asked for.
    assert lines.count("borrowed for 40") == 3
    assert lines.count("worker 0") == 3
    assert any(line.startswith("stopped after") for line in lines)
    assert any(line.startswith("refused the article is empty") for line in lines)
    assert "told what was wrong" in lines
