"""Asks a page as a stranger would: plain HTTP, and no library that would mend what is sent."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastllm.demo.engine import LocalEngine
from fastllm.demo.guard import Guard
from fastllm.demo.limits import Limits, read_limits
from fastllm.demo.page import build, launch_options

LIMITS = replace(
    read_limits(environment={}),
    lanes=4,
    gamma=6,
    seconds_per_run=600,
    queue_size=300,
    runs_per_minute=10_000,
    turns_per_minute=10_000,
    compare_seconds=600,
    training_seconds=3,
    waiting=10,
)
"""Bounds that a test meets only where it means to."""

WAIT = 60.0
"""Seconds after which a page that says nothing is taken to hang."""


@dataclass(frozen=True)
class Answer:
    """How a run ended: its last text, or what it was refused with."""

    text: str | None
    error: str | None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the text."""
        return [json.loads(line) for line in (self.text or "").split("\n")[:-1]]


@contextmanager
def serving(engine: LocalEngine, limits: Limits) -> Iterator[str]:
    """The address of a page without a recorded race, served meanwhile."""
    page = build(engine, limits, Path("nothing recorded"))
    _, address, _ = page.launch(prevent_thread_lock=True, **launch_options(Guard(limits)))
    try:
        yield address
    finally:
        page.close(verbose=False)


class Page:
    """A page at an address.

    Args:
        address: of the page, as `launch` gives it.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        with urllib.request.urlopen(f"{self._address}/gradio_api/info", timeout=WAIT) as answer:
            told = json.load(answer)["named_endpoints"]["/race"]["parameters"]
        self.defaults = {entry["parameter_name"]: entry.get("parameter_default") for entry in told}
        with urllib.request.urlopen(f"{self._address}/config", timeout=WAIT) as answer:
            functions = json.load(answer)["dependencies"]
        (self.function,) = [entry["id"] for entry in functions if entry["api_name"] == "race"]

    def data(self, **values: Any) -> list[Any]:
        """The inputs of a race, in order; what is not given has the page's default."""
        assert set(values) <= set(self.defaults)
        return list((self.defaults | values).values())

    def race(self, **values: Any) -> Answer:
        """Runs a race to its end."""
        event = self.post("call/race", {"data": self.data(**values)})["event_id"]
        last = ""
        for name, told in self._events(f"call/race/{event}"):
            if name == "error":
                message = told.get("error") if isinstance(told, dict) else told
                return Answer(None, message)
            if name in ("generating", "complete") and told:
                last = told[0] if isinstance(told[0], str) else last
            if name == "complete":
                return Answer(last, None)
        raise AssertionError("the stream ended without an end")

    def post(self, path: str, tree: dict[str, Any]) -> Any:
        """Posts JSON, everything beyond ASCII escaped: so half a character can be sent too."""
        request = urllib.request.Request(
            f"{self._address}/gradio_api/{path}",
            json.dumps(tree).encode("ascii"),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return json.load(answer)

    def visit(self, session: str, **values: Any) -> HTTPConnection:
        """Asks for a race as the page's own script does; the connection is the open tab."""
        tab = HTTPConnection(urlsplit(self._address).netloc, timeout=WAIT)
        self.post(
            "queue/join",
            {
                "data": self.data(**values),
                "fn_index": self.function,
                "session_hash": session,
                "trigger_id": None,
            },
        )
        tab.request("GET", f"/gradio_api/queue/data?session_hash={session}")
        return tab

    def _events(self, path: str) -> Iterator[tuple[str, Any]]:
        with closing(
            urllib.request.urlopen(f"{self._address}/gradio_api/{path}", timeout=WAIT)
        ) as stream:
            name = ""
            for raw in stream:
                line = raw.decode("utf-8").rstrip("\n")
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    yield name, json.loads(line[6:])
