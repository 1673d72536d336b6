"""What the load test ends with, without a page."""

from types import SimpleNamespace

import pytest

from tools import load_test


@pytest.mark.parametrize(
    ("grown", "most_seconds", "code", "words"),
    [
        (30, 5.0, 0, ""),
        (31, 5.0, 1, "missed: the memory has grown by 31 MiB, and 30 are allowed"),
        (0, -1.0, 1, "missed: the first race afterwards took 0.0 s, and -1 are allowed"),
    ],
)
def test_the_exit_code_tells_of_memory_and_seconds(
    grown: int,
    most_seconds: float,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = SimpleNamespace(pid=1, terminate=lambda: None, wait=lambda _: 0)
    sizes = iter([100.0, 100.0, 100.0, 100.0 + grown])
    monkeypatch.setattr(load_test, "serve", lambda *_: page)
    monkeypatch.setattr(load_test, "race_when_up", lambda *_: 0.0)
    monkeypatch.setattr(load_test, "attack", lambda *_: None)
    monkeypatch.setattr(load_test, "resident", lambda _: next(sizes))
    monkeypatch.setattr(load_test.Visitor, "ask", lambda *_, **__: "a race")
    monkeypatch.setattr(load_test, "SETTLED_SECONDS", 0.0)
    monkeypatch.setattr(load_test, "MOST_SECONDS", most_seconds)
    assert load_test.main(["--visitors", "0", "--seconds", "0"]) == code
    told = capsys.readouterr().out
    assert words in told
    assert ("missed" in told) == bool(code)
