import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from fastllm import paths
from fastllm.demo.limits import (
    Limits,
    Models,
    Network,
    Visits,
    read_limits,
    read_models,
    read_network,
    titled_drafters,
    visitor_of,
)
from fastllm.errors import SettingsError

GOOD = {
    "article_characters": 1,
    "max_new_tokens": 2,
    "lanes": 3,
    "gamma": 4,
    "seconds_per_run": 5,
    "queue_size": 6,
    "runs_per_minute": 7,
    "turns_per_minute": 8,
    "upload_bytes": 9,
    "compare_articles": 10,
    "compare_seconds": 11,
    "training_seconds": 12,
    "waiting": 13,
    "body_bytes": 14,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "Spacefile"


def test_limits_are_those_of_the_spacefile() -> None:
    told = yaml.safe_load(paths.SPACEFILE.read_text("utf-8"))
    assert asdict(read_limits(environment={})) == told["limits"]


def test_reads_a_file(path: Path) -> None:
    path.write_text(yaml.safe_dump({"limits": GOOD}))
    assert read_limits(path, {}) == Limits(*range(1, 15))


@pytest.mark.parametrize(
    "limits",
    [None, [], {}, {"lanes": 3}, *(GOOD | {"lanes": value} for value in (0, "3", True, 2.0))],
)
def test_refuses_what_is_no_section_of_limits(path: Path, limits: object) -> None:
    path.write_text(yaml.safe_dump({"limits": limits}))
    with pytest.raises(SettingsError, match=r"limits"):
        read_limits(path, {})


def test_names_a_missing_file(path: Path) -> None:
    with pytest.raises(SettingsError, match="Spacefile"):
        read_limits(path)


@pytest.mark.parametrize("content", [b"limits: \xff", b"limits: " + b"[" * 5000])
def test_names_an_unreadable_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="no readable section"):
        read_limits(path, {})


def test_the_environment_goes_before_the_file(path: Path) -> None:
    path.write_text(yaml.safe_dump({"limits": GOOD}))
    environment = {"FASTLLM_SECONDS_PER_RUN": "10", "FASTLLM_ELSE": "x"}
    assert read_limits(path, environment) == Limits(1, 2, 3, 4, 10, *range(6, 15))


@pytest.mark.parametrize("value", ["", "0", "-1", "ten", "1.5", "²", "9" * 5000])
def test_names_the_variable_that_is_no_number(path: Path, value: str) -> None:
    path.write_text(yaml.safe_dump({"limits": GOOD}))
    with pytest.raises(SettingsError, match="FASTLLM_LANES"):
        read_limits(path, {"FASTLLM_LANES": value})


def test_models_left_out_are_the_shipped_ones(path: Path) -> None:
    path.write_text(yaml.safe_dump({"serve": {"load_in": None, "drafters": []}}))
    assert read_models(path, {}) == Models()


def test_models_of_file_and_environment(path: Path) -> None:
    told = {"target": "a/b", "source_length": 512, "drafters": ["runs/x/checkpoint", "y=Mine"]}
    path.write_text(yaml.safe_dump({"serve": told}))
    found = read_models(path, {"FASTLLM_LOAD_IN": "4bit", "FASTLLM_PREFIX": "summarize: "})
    assert found == Models(
        "a/b", "4bit", "summarize: ", 512, None, {"x": "runs/x/checkpoint", "Mine": "y"}
    )
    found = read_models(path, {"FASTLLM_DRAFTERS": "p=P, q", "FASTLLM_SOURCE_LENGTH": "64"})
    assert (found.drafters, found.source_length) == ({"P": "p", "q": "q"}, 64)


@pytest.mark.parametrize(
    "serve",
    [None, [], {"model": "x"}, {"target": 3}, {"drafters": "x", "source_length": "long"}]
    + [{"drafters": value} for value in ({}, {"a": "b"}, [1], [""], ["=x"], ["a=T", "b=T"])],
)
def test_refuses_what_is_no_section_of_models(path: Path, serve: object) -> None:
    path.write_text(yaml.safe_dump({"serve": serve}))
    with pytest.raises(SettingsError, match=r"serve|drafter"):
        read_models(path, {})


def test_a_drafter_goes_by_its_folder() -> None:
    assert titled_drafters(["./a/b/", "c/checkpoint", "checkpoint", "o/n = My T5"]) == {
        "b": "./a/b/",
        "c": "c/checkpoint",
        "checkpoint": "checkpoint",
        "My T5": "o/n",
    }


def test_a_visitor_who_has_begun_enough_is_told_how_long_to_wait() -> None:
    now = 100.0
    visits = Visits(2, clock=lambda: now)
    visits.begin("a")
    now = 130.0
    visits.begin("a")
    now = 150.5
    with pytest.raises(SettingsError, match=r"2 races within a minute.* Wait 10 seconds"):
        visits.begin("a")
    visits.begin("b")
    now = 160.0  # the first has slid out of the window; what was refused was not counted
    visits.begin("a")
    with pytest.raises(SettingsError, match=r"Wait 31 seconds"):
        visits.begin("a")


def test_visits_are_forgotten_after_their_minute() -> None:
    now = 0.0
    visits = Visits(2, clock=lambda: now)
    for number in range(1000):
        visits.begin(str(number))
        now += 1.0
    assert len(visits._begun) <= 60


@pytest.mark.parametrize(
    ("host", "visitor"),
    [
        ("9.9.9.9", "9.9.9.9"),
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:9.9.9.9", "9.9.9.9"),
        ("2606:4700:1:2:3:4:5:6", "2606:4700:1:2::/64"),
        ("2606:4700:1:2:ffff::1", "2606:4700:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("<script>", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_who_a_visitor_is(host: str | None, visitor: str) -> None:
    assert visitor_of(host) == visitor


@pytest.mark.parametrize(
    ("peer", "forwarded", "visitor"),
    [
        ("9.9.9.9", "1.1.1.1", "9.9.9.9"),  # nobody in between: the header is the visitor's own
        ("192.168.0.9", "1.1.1.1", "192.168.0.9"),  # private, and no proxy of ours
        ("10.0.0.3", "1.1.1.1", "1.1.1.1"),
        ("10.0.0.3", "8.8.8.8, 1.1.1.1, 10.1.2.3", "1.1.1.1"),  # the first may be made up
        ("10.0.0.3", "2606:4700::1111", "2606:4700::/64"),
        ("10.0.0.3", "<script>, ,\0", "unknown"),
        ("10.0.0.3", None, "10.0.0.3"),
    ],
)
def test_only_a_trusted_proxy_is_believed(peer: str, forwarded: str | None, visitor: str) -> None:
    """As the server of the page does it, told by app.py whom to believe."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(visitor_of(scope["client"][0]))

    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    scope = {"type": "http", "client": (peer, 1), "headers": headers}
    believing = ProxyHeadersMiddleware(app, "127.0.0.1,10.0.0.0/8")
    asyncio.run(believing(scope, None, None))  # type: ignore[arg-type]  # neither is used
    assert seen == [visitor]


def test_the_network_of_the_spacefile_is_the_default() -> None:
    assert read_network(environment={}) == Network()


def test_network_of_file_and_environment(path: Path) -> None:
    given = {"trusted_proxies": ["10.0.0.0/8"], "hosts": ["My.example"]}
    path.write_text(yaml.safe_dump({"network": given}))
    assert read_network(path, {}) == Network(("10.0.0.0/8",), ("my.example",))
    told = {"FASTLLM_TRUSTED_PROXIES": "", "FASTLLM_HOSTS": "a.example, b.example"}
    assert read_network(path, told) == Network((), ("a.example", "b.example"))
    on_a_space = read_network(path, {"SPACE_ID": "a/b"})
    assert on_a_space.hosts == ("*",)
    assert {"10.0.0.0/8", "172.16.0.0/12"} <= set(on_a_space.trusted_proxies)


@pytest.mark.parametrize(
    "network",
    [None, [], {"hosts": []}]
    + [{"hosts": [], "trusted_proxies": value} for value in (7, {}, [7], ["*"], ["10.0.0.1/8"])],
)
def test_refuses_what_is_no_network(path: Path, network: object) -> None:
    path.write_text(yaml.safe_dump({"network": network}))
    with pytest.raises(SettingsError, match=r"network|trusted_proxies"):
        read_network(path, {})
