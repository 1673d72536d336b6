"""Visitors at once on a local page, and attacks on it: `python -m tools.load_test`.

Serves the page in a process of its own, has visitors ask for everything at once, and tells what
they got: whether a text of one reached another, what was refused and in which words, the memory of
the server before and after, and how long the first race afterwards took. Exit code 1 where texts
were mixed, a refusal had no words, a race of somebody else was refused, the first race afterwards
took too long, or the memory has grown too much.
"""

import argparse
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastllm import paths

WAIT = 300.0
"""Seconds after which an answer is taken never to come."""

SETTLED_SECONDS = 75.0
"""After these the page has forgotten whatever nobody read."""

MOST_GROWN = 30.0
"""MiB that the server may have more at the end than before the visitors."""

MOST_SECONDS = 5.0
"""The longest that the first race afterwards may take."""

SESSIONS = 60
"""So many come first: Gradio keeps the parts of the page once for each of the last 50 sessions."""

MARKER = re.compile(r"Marker\d{3}x")

TEXT = (
    "{marker} council met on Monday and agreed to plant trees along the river, said {marker}. Work "
    "will begin in spring, and the trees of {marker} were given by a nursery in the next town."
)


@dataclass
class Seen:
    """What happened to the visitors.

    Attributes:
        done: how many runs came to an end, by kind.
        refused: how many were refused, by words.
        mixed: markers of others in what a visitor was sent.
        wordless: kinds of requests that were refused without a word.
    """

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    mixed: list[str] = field(default_factory=list)
    wordless: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Visitor:
    """One of many, each with an address and a marker word of its own.

    Args:
        address: of the page.
        number: of the visitor.
        seen: shared by all.
    """

    def __init__(self, address: str, number: int, seen: Seen) -> None:
        self._address = address
        self._number = number
        self._seen = seen
        self.marker = f"Marker{number:03d}x"

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        """Posts a body, as the proxy of this visitor would pass it on."""
        headers = {
            "Content-Type": "application/json",
            "X-Forwarded-For": f"9.9.{self._number // 250}.{self._number % 250 + 1}",
        }
        request = urllib.request.Request(f"{self._address}/gradio_api/{path}", body, headers)
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            told: dict[str, Any] = json.load(answer)
            return told

    def ask(self, name: str, values: Sequence[Any], *, read: bool = True) -> str | None:
        """Calls an endpoint; the whole stream of its answer, or None where it was refused."""
        try:
            told = self.post(f"call/{name}", json.dumps({"data": list(values)}).encode())
            if not read:
                return ""
            url = f"{self._address}/gradio_api/call/{name}/{told['event_id']}"
            with urllib.request.urlopen(url, timeout=WAIT) as stream:
                text: str = stream.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                self.refused(name, error.read().decode())
            return None
        if "event: error" in text:
            self.refused(name, text.rpartition("data: ")[2])
            return None
        with self._seen.lock:
            self._seen.done[name] += 1
        return text

    def refused(self, name: str, body: str) -> None:
        """Notes a refusal, and whether it has words."""
        try:
            tree = json.loads(body)
        except ValueError:
            tree = None
        words = (tree.get("detail") or tree.get("error")) if isinstance(tree, dict) else tree
        with self._seen.lock:
            if isinstance(words, str) and words:
                self._seen.refused[words[:90]] += 1
            else:
                self._seen.wordless.append(f"{name}: {body[:90]}")

    def stay(self, until: float) -> None:
        """Asks for one thing after another until the time has come."""
        draw = random.Random(self._number)
        article = TEXT.format(marker=self.marker)
        while time.monotonic() < until:
            kind = draw.choice(("race", "result", "compare", "odd", "large"))
            text: str | None = None
            if kind in ("race", "result"):
                text = self.ask(kind, race_values(article, draw.randrange(1000)))
            elif kind == "compare":
                text = self.ask(kind, race_values([article] * 2, 0))
            elif kind == "odd":
                text = self.ask("race", race_values(draw.choice((None, 7, [], "short")), 0))
            else:
                text = self.ask("race", race_values("x" * 3_000_000, 0))
            # A text in pieces shows no marker whole; `/result` gives each lane's text in one.
            if text is not None and set(MARKER.findall(text)) - {self.marker}:
                with self._seen.lock:
                    self._seen.mixed.append(self.marker)
            time.sleep(draw.random())


def race_values(article: Any, seed: int) -> list[Any]:
    """The values of `/race`, `/result` and `/compare`."""
    return [article, ["alone", "lookup"], 4, 0.0, 1.0, seed, 24, "auto", 0.5]


def serve(port: int, target: str | None) -> subprocess.Popen[bytes]:
    """A page on this machine, its visitors told apart by what a proxy says of them."""
    command = [sys.executable, str(paths.ROOT / "app.py"), "--port", str(port)]
    command += ["--target", target] if target else []
    settings = {
        "FASTLLM_RUNS_PER_MINUTE": "1000",
        "FASTLLM_TRUSTED_PROXIES": "127.0.0.1",
    }
    return subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.DEVNULL)


def resident(process: int) -> float:
    """Memory of a process, in MiB."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit("load_test: /proc tells no VmRSS: run this on Linux.")


def attack(address: str, seen: Seen) -> None:
    """What has taken the page down before: unread races, large bodies, a queue filled by one."""
    article = TEXT.format(marker="Attack")
    one = Visitor(address, 900, seen)
    for _ in range(12):
        one.ask("race", race_values(article, 0), read=False)
    for _ in range(25):
        one.ask("race", race_values("x" * 20_000_000, 0), read=False)
    for _ in range(200):
        one.ask("compare", race_values([article] * 8, 0), read=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Starts a page, sends the visitors, tells what came of it."""
    parser = argparse.ArgumentParser(prog="tools.load_test", description=__doc__)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they stay")
    parser.add_argument("--target", help="shipped target, folder or Hub model")
    options = parser.parse_args(arguments)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    page = serve(port, options.target)
    seen, attacked = Seen(), Seen()
    try:
        first = race_when_up(address, page)
        print(f"first race {first:.1f} s after the start")
        for number in range(SESSIONS):
            Visitor(address, 800, Seen()).ask("race", race_values("short", number))
        before = resident(page.pid)
        print(f"before: {before:.0f} MiB")
        until = time.monotonic() + options.seconds
        crowd = [
            threading.Thread(target=Visitor(address, number, seen).stay, args=(until,))
            for number in range(options.visitors)
        ]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join(WAIT)
        print(f"at the end of {options.seconds:.0f} s: {resident(page.pid):.0f} MiB")
        attack(address, attacked)
        print(f"after the attacks: {resident(page.pid):.0f} MiB")
        after = Seen()
        began = time.monotonic()
        served = Visitor(address, 950, after).ask("race", race_values(TEXT.format(marker="A"), 0))
        print(f"a race of somebody else meanwhile: {time.monotonic() - began:.1f} s")
        time.sleep(SETTLED_SECONDS)
        began = time.monotonic()
        again = Visitor(address, 951, after).ask("race", race_values(TEXT.format(marker="B"), 0))
        took = time.monotonic() - began
        print(f"first race afterwards: {took:.1f} s")
        left = resident(page.pid)
        print(f"afterwards: {left:.0f} MiB ({left - before:+.0f})")
    finally:
        page.terminate()
        page.wait(WAIT)
    print(f"done: {dict(seen.done)}")
    for words, times in (seen.refused + attacked.refused).most_common():
        print(f"refused {times} times: {words}")
    wordless = seen.wordless + attacked.wordless
    print(f"mixed: {seen.mixed or 'nothing'}; without words: {wordless or 'nothing'}")
    wrong = missed(left - before, took)
    for words in wrong:
        print(f"missed: {words}")
    return int(bool(wrong or seen.mixed or wordless or served is None or again is None))


def missed(grown: float, seconds: float) -> list[str]:
    """In words, what the page may not do and did: grow by so many MiB, take so many seconds."""
    found = []
    if grown > MOST_GROWN:
        found.append(f"the memory has grown by {grown:.0f} MiB, and {MOST_GROWN:.0f} are allowed")
    if seconds > MOST_SECONDS:
        found.append(
            f"the first race afterwards took {seconds:.1f} s, and {MOST_SECONDS:.0f} are allowed"
        )
    return found


def race_when_up(address: str, page: subprocess.Popen[bytes]) -> float:
    """Waits for the page, and for a race that it runs; seconds that this took."""
    began = time.monotonic()
    while time.monotonic() - began < WAIT:
        if page.poll() is not None:
            raise SystemExit("load_test: the page did not start; its own words are above.")
        try:
            visitor = Visitor(address, 999, Seen())
            if visitor.ask("race", race_values(TEXT.format(marker="First"), 0)):
                return time.monotonic() - began
        except urllib.error.URLError:
            time.sleep(0.5)
    raise SystemExit("load_test: the page ran no race; its own words are above.")


if __name__ == "__main__":
    sys.exit(main())
