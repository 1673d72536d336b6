"""The page under attack: what is let through, what is held, what is forgotten, what is said."""

import asyncio
import io
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import asking
import gradio as gr
import pytest
from asking import WAIT, Page
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

import app
from fastllm.demo import guard as guards
from fastllm.demo.engine import LocalEngine
from fastllm.demo.guard import NO_WORDS, Guard, _worded, answers_to
from fastllm.demo.jobs import RaceJob, Work
from fastllm.demo.limits import Network
from fastllm.demo.page import build, launch_options
from fastllm.demo.worker import news
from fastllm.errors import CheckpointError
from fastllm.trace import DecodingConfig

# A port that is found taken.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*no_silent_downcasting",
    "ignore:The copy keyword is deprecated",
    "ignore:unclosed <socket.socket .*family=2:ResourceWarning",
)

LIMITS = replace(asking.LIMITS, queue_size=20, waiting=2, body_bytes=100_000)

MARKER = "Zanzibarquux"
STORY = (
    f"{MARKER} lamps went out on Sunday and two boats had to wait for the morning. The keeper said "
    "that salt had eaten the wire, and that a new one would be laid before winter, or in spring."
)


class Odd(LocalEngine):
    """Does what articles tell it: writes for ever, or fails as a machine can fail."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)

    def lines(self, work: Work, stop: threading.Event) -> Iterator[str]:
        article = str(vars(work).get("article", ""))
        if "Exits" in article:
            raise SystemExit(3)
        if "Memory" in article:
            raise MemoryError
        if "Breaks" in article:
            raise RuntimeError("/secret/path")
        try:
            for line in super().lines(work, stop):
                yield line
                self.begun.release()
                while "Endless" in article and not stop.is_set():
                    time.sleep(0.01)
        finally:
            self.ended.release()


class Place:
    """A page, its guard and its app."""

    def __init__(self, engine: LocalEngine) -> None:
        self.guard = Guard(LIMITS)
        self.blocks = build(engine, LIMITS, Path("nothing recorded"))
        app, self.address, _ = self.blocks.launch(
            prevent_thread_lock=True, **launch_options(self.guard)
        )
        self.app = app
        self.queue = self.blocks._queue
        self.page = Page(self.address)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """The status, the headers and the body of an answer."""
        with closing(HTTPConnection(urlsplit(self.address).netloc, timeout=WAIT)) as connection:
            told = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Content-Type": "application/json"} | told)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def call(self, name: str = "race", visitor: str = "", **values: Any) -> tuple[int, Any]:
        """Asks for a run, as a program does; it is not listened to."""
        headers = {"X_Forwarded_For": visitor} if visitor else {}
        body = json.dumps({"data": self.page.data(**values)}).encode()
        status, _, told = self.ask("POST", f"/gradio_api/call/{name}", body, **headers)
        return status, json.loads(told)

    def values(self) -> str:
        """Everything that Gradio keeps of sessions, queues and streams."""
        sessions = self.app.state_holder.session_data.values()
        kept = [list(session.components) for session in sessions]
        unread = [vars(each)["_queue"] for each in self._unread().values()]
        return repr((kept, unread, dict(self.blocks.pending_diff_streams)))

    def _unread(self) -> dict[str, Any]:
        return dict(self.queue.pending_messages_per_session)


@pytest.fixture(scope="module")
def engine(tiny_folder: str) -> Odd:
    engine = Odd(tiny_folder)
    engine.start()
    return engine


@pytest.fixture(scope="module")
def place(engine: Odd) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guards, "ABANDONED_SECONDS", 2.0)
        patch.setattr(guards, "UNREAD_SECONDS", 3.0)
        place = Place(engine)
        yield place
        place.blocks.close(verbose=False)


def until(true: Callable[[], bool]) -> None:
    """Waits for a state."""
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def clear(engine: Odd) -> None:
    for counter in (engine.begun, engine.ended):
        while counter.acquire(blocking=False):
            pass


CLOSED = [
    ("POST", "/gradio_api/upload"),
    ("GET", "/gradio_api/upload_progress?upload_id=x"),
    ("GET", "/gradio_api/deep_link?session_hash=x"),
    ("GET", "/gradio_api/proxy=https://x.hf.space/"),
    ("GET", "/gradio_api/file=/etc/passwd"),
    ("GET", "/gradio_api/file/etc/passwd"),
    ("GET", "/monitoring"),
    ("GET", "/gradio_api/monitoring/x"),
    ("POST", "/gradio_api/process_recording"),
    ("GET", "/gradio_api/custom_component/1/client/component/index.js"),
    ("GET", "/custom_component/1/client/component/index.js"),
    ("POST", "/gradio_api/component_server"),
    ("POST", "/gradio_api/stream/x"),
    ("POST", "/gradio_api/api/race"),
    ("POST", "/login"),
    ("GET", "/gradio_api/dev/reload"),
    ("GET", "/gradio_api/runs"),
    ("GET", "/gradio_api/token"),
    ("GET", "/docs"),
    ("PUT", "/"),
    ("DELETE", "/config"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_what_the_page_does_not_need_is_closed(place: Place, method: str, path: str) -> None:
    status, headers, body = place.ask(method, path, b"{}" if method == "POST" else None)
    assert (status, headers["x-content-type-options"]) == (404, "nosniff")
    assert "nothing at this address" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    "path", ["/", "/config", "/gradio_api/info", "/theme.css", "/robots.txt", "/thumbnail.png"]
)
def test_what_the_page_needs_is_open(place: Place, path: str) -> None:
    status, headers, _ = place.ask("GET", path)
    assert (status, headers["x-content-type-options"]) == (200, "nosniff")


def test_the_page_is_sent_packed(place: Place) -> None:
    _, headers, whole = place.ask("GET", "/", Accept_Encoding="identity")
    assert "content-encoding" not in headers
    _, headers, packed = place.ask("GET", "/", Accept_Encoding="gzip, br")
    assert headers["content-encoding"] == "gzip"
    assert len(packed) < len(whole) / 3


@pytest.mark.parametrize(
    ("host", "names", "fine"),
    [
        ("localhost:7860", (), True),
        ("127.0.0.1:7860", (), True),
        ("[::1]:7860", (), True),
        ("192.168.1.7", (), True),
        ("evil.example:7860", (), False),
        ("localhost.evil.example", (), False),
        ("127.0.0.1.evil.example", (), False),
        ("evil.example@127.0.0.1", (), True),  # a number, whoever stands before it
        ("[", (), False),
        ("", (), False),
        ("My.Example.", ("my.example",), True),
        ("evil.example", ("my.example",), False),
        ("evil.example", ("*",), True),
    ],
)
def test_which_names_the_page_goes_by(host: str, names: tuple[str, ...], fine: bool) -> None:
    assert answers_to(host, names) is fine


def test_a_name_that_is_not_the_pages_is_refused_in_words(place: Place) -> None:
    for path in ("/", "/config", "/gradio_api/queue/data?session_hash=x"):
        status, _, body = place.ask("GET", path, Host="evil.example")
        assert status == 421
        assert "FASTLLM_HOSTS" in json.loads(body)["detail"]


def test_without_a_socket(engine: Odd) -> None:
    """The whole app as a caller of ASGI sees it, its names given."""
    blocks = build(engine, LIMITS, Path("nothing recorded"))
    options = launch_options(Guard(LIMITS, Network(hosts=("my.example",))))
    app = gr.routes.App.create_app(blocks, app_kwargs=options["app_kwargs"])
    with TestClient(app, base_url="http://my.example") as client:
        assert client.post("/gradio_api/upload").status_code == 404
        assert client.get("/", headers={"host": "other.example"}).status_code == 421
        large = client.post("/gradio_api/call/race", content=b"x" * 100_001)
        assert large.status_code == 413
        assert "100,000 bytes" in large.json()["detail"]


def test_large_bodies_are_refused_in_words_and_not_kept(place: Place) -> None:
    body = json.dumps({"data": [MARKER + "x" * 5_000_000]}).encode()
    for path in ("call/race", "queue/join", "run/predict", "cancel", "call/v2/race"):
        status, _, told = place.ask("POST", f"/gradio_api/{path}", body)
        assert status == 413, path
        assert "100,000 bytes" in json.loads(told)["detail"]

    def parts() -> Iterator[bytes]:
        yield from (body[start : start + 65_536] for start in range(0, len(body), 65_536))

    request = urllib.request.Request(f"{place.address}gradio_api/call/race", parts())
    with pytest.raises(urllib.error.HTTPError) as refused:  # its length is not told beforehand
        urllib.request.urlopen(request, timeout=WAIT)
    with refused.value as answer:
        assert answer.code == 413
    assert MARKER not in place.values()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"no JSON", 400, "no JSON"),
        (b"[]", 400, "no JSON"),
        (b"[" * 90_000, 400, "no JSON"),
        (b'{"data": ' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400, "no JSON"),
        (b'{"data": []}', 400, "takes 9 values, and 0 were sent"),
        (b'{"data": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}', 400, "takes 9 values, and 10 were sent"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(
    place: Place, body: bytes, status: int, words: str
) -> None:
    found, _, told = place.ask("POST", "/gradio_api/call/race", body)
    assert (found, words in json.loads(told)["detail"]) == (status, True)


FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("value", [FILE, [FILE], {"a": [[FILE]]}])
def test_files_are_refused_in_words(place: Place, value: Any) -> None:
    status, told = place.call(article=value)
    assert (status, "no files" in told["detail"]) == (400, True)
    status, told = place.call(lanes=value)
    assert (status, "no files" in told["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "tree"),
    [
        ("call/race", {"data": "B" * 50_000}),
        ("call/race", {"data": [0] * 9, "session_hash": ["B" * 50_000]}),
        ("run/predict", {"data": "B" * 50_000}),
        ("cancel", {"session_hash": ["B" * 50_000]}),
    ],
)
def test_what_has_the_wrong_type_is_not_repeated(
    place: Place, path: str, tree: dict[str, Any]
) -> None:
    status, headers, told = place.ask("POST", f"/gradio_api/{path}", json.dumps(tree).encode())
    assert (status, headers["x-content-type-options"]) == (422, "nosniff")
    assert "wrong type" in json.loads(told)["detail"]
    assert len(told) < 300


@pytest.mark.parametrize(
    ("visitors", "kept", "other"), [(1, LIMITS.waiting, 200), (60, LIMITS.queue_size, 429)]
)
def test_of_bodies_on_their_way_only_some_are_kept(visitors: int, kept: int, other: int) -> None:
    guard = Guard(LIMITS)
    blocks = SimpleNamespace(_queue=None)
    page = SimpleNamespace(get_blocks=lambda: blocks)
    full = json.dumps({"a": "x" * (LIMITS.body_bytes - 9)}).encode()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send_all() -> None:
        door = guard.before(answer)
        end = asyncio.Event()

        async def post(host: str, body: bytes, goes_on: bool) -> tuple[int, bytes]:
            parts = iter([{"type": "http.request", "body": body, "more_body": goes_on}])
            told: list[Message] = []

            async def receive() -> Message:
                if (part := next(parts, None)) is not None:
                    return part
                await end.wait()
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Message) -> None:
                told.append(message)

            scope: Scope = {
                "type": "http",
                "method": "POST",
                "path": "/gradio_api/run/predict",
                "headers": [],
                "client": (host, 1),
                "app": page,
            }
            await door(scope, receive, send)
            return told[0]["status"], told[1]["body"]

        hosts = [f"9.9.9.{number % visitors}" for number in range(60)]
        posts = [asyncio.create_task(post(host, full, True)) for host in hosts]
        await asyncio.sleep(0.1)
        assert sum(guard._held.values()) == kept * LIMITS.body_bytes
        assert (await post("8.8.8.8", b"{}", False))[0] == other
        end.set()
        found = await asyncio.wait_for(asyncio.gather(*posts), WAIT)
        assert sorted(status for status, _ in found) == [200] * kept + [429] * (60 - kept)
        assert all(b"in a moment" in words for status, words in found if status == 429)

    asyncio.run(send_all())
    assert not guard._held


def test_functions_that_are_none_are_refused_in_words(place: Place) -> None:
    for path, tree in (
        ("call/nothing", {"data": []}),
        ("call/rows", {"data": []}),  # the page's own, for no program
        ("queue/join", {"data": [], "fn_index": 9999, "session_hash": "x"}),
        ("queue/join", {"data": [], "fn_index": "race", "session_hash": "x"}),
    ):
        status, _, told = place.ask("POST", f"/gradio_api/{path}", json.dumps(tree).encode())
        assert status == 404, path
        assert "has no function" in json.loads(told)["detail"]


def test_nothing_goes_past_the_queue(place: Place) -> None:
    body = json.dumps({"data": place.page.data(article=STORY)}).encode()
    assert place.ask("POST", "/gradio_api/run/race", body)[0] == 404


def test_a_third_request_of_a_visitor_is_refused_and_others_are_served(
    engine: Odd, place: Place
) -> None:
    clear(engine)
    tab = place.page.visit(uuid.uuid4().hex, article=f"Endless {STORY}", lanes=["alone", "lookup"])
    assert engine.begun.acquire(timeout=WAIT)
    told = [place.call(visitor="5.5.5.5", article=STORY) for _ in range(12)]
    assert [status for status, _ in told] == [200] * 2 + [429] * 10
    assert "2 of your requests are waiting" in told[-1][1]["detail"]
    one, other = "2606:4700:1:2::1", "2606:4700:1:2:9::9"  # of one network
    told = [place.call(visitor=visitor, article=STORY) for visitor in (one, other, one)]
    assert [status for status, _ in told] == [200, 200, 429]
    assert place.call(visitor="2606:4700:1:3::1", article=STORY)[0] == 200
    tab.close()
    answer = place.page.race(article=STORY, lanes=["alone", "lookup"], length=8)
    assert answer.rows[-1]["row"] == "end"


def test_all_at_once_are_counted_too(engine: Odd, place: Place) -> None:
    clear(engine)
    tab = place.page.visit(uuid.uuid4().hex, article=f"Endless {STORY}", lanes=["alone", "lookup"])
    assert engine.begun.acquire(timeout=WAIT)
    found: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(place.call(visitor="6.6.6.6", article=STORY)[0])
        )
        for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert sorted(found) == [200] * 2 + [429] * 28
    tab.close()
    assert engine.ended.acquire(timeout=WAIT)


def test_a_run_that_nobody_listens_to_ends(engine: Odd, place: Place) -> None:
    clear(engine)
    status, told = place.call(visitor="7.7.7.7", article=f"Endless {STORY}")
    assert status == 200
    assert engine.begun.acquire(timeout=WAIT)
    assert engine.ended.acquire(timeout=WAIT)
    until(lambda: not place.queue.event_ids_to_events)
    assert told["event_id"] not in place.queue.pending_messages_per_session
    status, _, body = place.ask("GET", f"/gradio_api/call/race/{told['event_id']}")
    assert (status, "no such run" in json.loads(body)["detail"]) == (404, True)


def test_a_run_whose_listener_leaves_ends(engine: Odd, place: Place) -> None:
    clear(engine)
    _, told = place.call(visitor="7.7.7.8", article=f"Endless {STORY}")
    with urllib.request.urlopen(
        f"{place.address}gradio_api/call/race/{told['event_id']}", timeout=WAIT
    ):
        assert engine.begun.acquire(timeout=WAIT)
        time.sleep(3.0)  # longer than one that nobody listens to may run
        assert told["event_id"] in place.queue.event_ids_to_events
    assert engine.ended.acquire(timeout=WAIT)


def test_what_nobody_reads_is_forgotten(engine: Odd, place: Place) -> None:
    clear(engine)
    _, told = place.call(visitor="7.7.7.9", article=STORY, lanes=["alone", "lookup"], length=8)
    assert engine.ended.acquire(timeout=WAIT)
    session = told["event_id"]
    assert session in place.queue.pending_messages_per_session
    until(lambda: session not in place.queue.pending_messages_per_session)
    assert session not in place.queue.pending_event_ids_session


def test_a_listener_that_takes_nothing_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "UNREAD_SECONDS", 0.05)
    guard = Guard(LIMITS)
    told: list[str] = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"more", "more_body": True})
        finally:
            told.append("ended")

    async def full(message: Message) -> None:
        told.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()  # as a server does whose buffer is full

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def listen() -> None:
        blocks = SimpleNamespace(_queue=None)
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/gradio_api/queue/data",
            "query_string": b"session_hash=x",
            "headers": [],
            "app": SimpleNamespace(get_blocks=lambda: blocks),
        }
        door = guard.before(endless)
        await asyncio.wait_for(door(scope, never, full), WAIT)

    asyncio.run(listen())
    assert told == ["http.response.start", "http.response.body", "ended"]
    assert "x" not in guard._listeners
    assert "x" in guard._left


def test_an_article_is_forgotten_after_its_run(engine: Odd, place: Place) -> None:
    for article in (STORY, f"Breaks {STORY}", f"{MARKER} too short"):
        place.page.race(article=article, lanes=["alone", "lookup"], length=8)
    until(lambda: MARKER not in place.values())


def test_programs_are_sent_rows_and_the_text_once_more_at_last(place: Place) -> None:
    lanes = ["alone", "lookup"]
    _, told = place.call(visitor="8.8.8.8", article=STORY, lanes=lanes, length=64)
    sent = [
        parts[0]
        for name, parts in place.page._events(f"call/race/{told['event_id']}")
        if name in ("generating", "complete") and parts
    ]
    whole = sent[-1]
    assert len("".join(sent)) <= 3 * len(whole)
    assert "".join(sent[:-2]) == whole
    assert whole.endswith("\n")
    assert list(news(["", "a\n", "a\n", "a\nb\n"])) == ["", "a\n", "", "b\n", "a\nb\n"]


@pytest.mark.parametrize(
    ("article", "words"),
    [
        ("Exits", "before it was done"),
        ("Memory", "memory of this machine"),
        ("Breaks", "could not do that"),
    ],
)
def test_a_failure_has_words_and_the_next_race_is_a_race(
    place: Place, article: str, words: str
) -> None:
    answer = place.page.race(article=f"{article} {STORY}", lanes=["alone", "lookup"], length=8)
    assert answer.error is not None
    assert words in answer.error
    assert "secret" not in answer.error
    answer = place.page.race(article=STORY, lanes=["alone", "lookup"], length=8)
    assert answer.rows[-1]["row"] == "end"


def test_only_what_says_nothing_is_given_words() -> None:
    page = b'data: {"msg":"process_completed","output":{"error":null},"success":false}\n\n'
    assert json.loads(_worded(page)[6:])["output"]["error"] == NO_WORDS
    call = b'event: error\ndata: {"error": null}\n\n'
    assert json.loads(_worded(call).split(b"data: ")[1])["error"] == NO_WORDS
    fine = b'data: {"msg":"process_completed","output":{"data":["{\\"error\\":null}"]}}\n\n'
    assert _worded(fine) == fine


def test_wrong_types_in_the_game_are_refused_in_words(place: Place) -> None:
    (number,) = [
        number for number, fn in place.blocks.fns.items() if fn.fn and fn.fn.__name__ == "turn"
    ]
    right = ["the mill", "", STORY, 5, 0.0, 1.0, 0, 16]
    odd: list[tuple[int, Any]] = [
        *((0, value) for value in (7, None, ["x"], {"a": 1}, True)),
        *((2, value) for value in (7, None, ["x"], {"a": 1})),
        *((each, value) for each in range(3, 8) for value in ("x", None, [], {}, True)),
    ]
    for place_of, wrong in odd:
        data = [*right[:place_of], wrong, *right[place_of + 1 :]]
        session = uuid.uuid4().hex
        joined = {"data": data, "fn_index": number, "session_hash": session, "trigger_id": None}
        place.page.post("queue/join", joined)
        url = f"{place.address}gradio_api/queue/data?session_hash={session}"
        with urllib.request.urlopen(url, timeout=WAIT) as stream:
            told = [json.loads(line[6:]) for line in stream if line.startswith(b"data: ")]
        (end,) = [message for message in told if message["msg"] == "process_completed"]
        assert not end["success"]
        assert end["output"]["error"], (place_of, wrong)
        assert end["output"]["error"] != NO_WORDS, (place_of, wrong)


def test_a_page_that_closes_says_so_to_every_listener(engine: Odd) -> None:
    clear(engine)
    place = Place(engine)
    article = f"Endless {STORY}"
    session = uuid.uuid4().hex
    tab = place.page.visit(session, article=article, lanes=["alone", "lookup"])
    assert engine.begun.acquire(timeout=WAIT)
    _, told = place.call(article=STORY)
    url = f"{place.address}gradio_api/call/race/{told['event_id']}"
    with urllib.request.urlopen(url, timeout=WAIT) as waiting, tab.getresponse() as running:
        first = running.readline()
        assert first.startswith(b"data: ")
        until(lambda: len(place.guard._listeners) == 2)
        began = time.monotonic()
        place.guard.dismiss()
        last = [line for line in running if line.startswith(b"data: ")][-1]
        assert "started anew" in json.loads(last[6:])["message"]
        name, words = waiting.read().decode().strip().splitlines()[-2:]
        assert (name, "started anew" in json.loads(words[6:])) == ("event: error", True)
        assert time.monotonic() - began < 5
    tab.close()
    assert engine.ended.acquire(timeout=WAIT)
    place.blocks.close(verbose=False)


def test_rounds_end_with_the_app(place: Place) -> None:
    async def life() -> None:
        guard = Guard(LIMITS)
        async with guard._on_duty(place.app):
            assert len(asyncio.all_tasks()) == 2
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(life())


def test_a_console_that_lacks_letters_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    assert app.main(["--host", "no such host", "--port", "7860"]) == 2
    app._say("zażółć")


def test_a_port_in_use_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert app.main(["--port", str(taken.getsockname()[1])]) == 2
    assert "Give another --port" in capsys.readouterr().err
    assert app.main(["--host", "no such host"]) == 2
    assert "nothing can listen on no such host" in capsys.readouterr().err
    assert app.main(["--source-length", "-3"]) == 2
    assert "--source-length -3: give at least 1" in capsys.readouterr().err
    for host, port in (
        ("127.0.0.1", "0"),
        ("127.0.0.1", "70000"),
        ("192.0.2.1", "7860"),
        ("no such host", "7860"),
    ):
        assert app.main(["--host", host, "--port", port]) == 2
        assert "nothing can listen" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_page_waits_until_it_is_told_to_end(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(number, lambda *_: None)  # until the page has its own
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(0.05):
            os.kill(os.getpid(), number)

    telling = threading.Thread(target=tell)
    telling.start()
    try:
        app._wait()
    finally:
        ended.set()
        telling.join(WAIT)
        for each, handler in before.items():
            signal.signal(each, handler)


class Broken(LocalEngine):
    """Its models load, and some of them cannot write."""

    def __init__(self, folder: str, broken: str) -> None:
        self.said: list[str] = []
        super().__init__(folder, say=self.said.append)
        self._broken = broken

    def _write_a_few(self, keys: Sequence[str]) -> None:
        if self._broken in keys:
            raise RuntimeError("no kernel image")
        super()._write_a_few(keys)


def warmed(engine: Broken) -> Broken:
    engine.start()
    until(lambda: not engine.loading)
    return engine


def test_a_target_that_cannot_write_is_not_served(tiny_folder: str) -> None:
    engine = warmed(Broken(tiny_folder, "alone"))
    assert "could not write (RuntimeError: no kernel image)" in engine.failure
    assert "ready" not in engine.said
    order = RaceJob(STORY, ("alone", "lookup"), DecodingConfig(max_new_tokens=8))
    with pytest.raises(CheckpointError, match="could not write"):
        list(engine.lines(order, threading.Event()))


def test_a_drafter_that_cannot_write_is_refused_and_the_others_race(tiny_folder: str) -> None:
    engine = warmed(Broken(tiny_folder, "lookup"))
    assert (engine.failure, engine.said[-1]) == ("", "ready")
    assert "no kernel image" in engine.missing["lookup"]
    order = RaceJob(STORY, ("alone", "lookup"), DecodingConfig(max_new_tokens=8))
    with pytest.raises(CheckpointError, match="no kernel image"):
        list(engine.lines(order, threading.Event()))
    order = RaceJob(STORY, ("alone",), DecodingConfig(max_new_tokens=8))
    assert list(engine.lines(order, threading.Event()))
