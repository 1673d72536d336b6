"""The commands, run in this process on a tiny target in a folder."""

import io
import json
from pathlib import Path

import pytest
from fakes import FakeTarget, always, text_rule

from fastllm import terminal
from fastllm.__main__ import device_name, main
from fastllm.errors import SettingsError
from fastllm.race import Race
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig, Judged, Round, Trace

SHORT = ["--max-new-tokens", "12"]


@pytest.fixture(scope="module")
def folder(tiny_target: HubTarget, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny target as a checkpoint."""
    place = tmp_path_factory.mktemp("target")
    tiny_target.model.save_pretrained(place)
    tiny_target.vocabulary.tokenizer.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def article(tmp_path_factory: pytest.TempPathFactory, story: str) -> str:
    path = tmp_path_factory.mktemp("article") / "mill.txt"
    path.write_text(story, encoding="utf-8")
    return str(path)


def test_run_prints_the_summary_and_the_counts(
    folder: str, article: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", article, "--target", folder, "--drafter", "lookup", *SHORT]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown, "not a terminal: no colours"
    assert "target calls with article lookup" in shown
    assert "the target alone needs 12" in shown
    assert "[xdrafted and refused]" in shown


def test_run_prints_a_trace(folder: str, article: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["run", article, "--target", folder, "--drafter", "none", "--json", *SHORT])
    assert code == 0
    trace = Trace.from_json(json.loads(capsys.readouterr().out))
    assert len(trace.tokens) == 12
    assert trace.drafter == ""
    assert trace.config.max_new_tokens == 12


def test_run_reads_standard_input(
    folder: str,
    story: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(story.encode())))
    assert main(["run", "-", "--target", folder, "--drafter", "none", "--json", *SHORT]) == 0
    assert Trace.from_json(json.loads(capsys.readouterr().out)).source == story


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"  \n", "empty"), (b"\xff\xfe\x00", "UTF-8"), (b"a\x00b", "binary")],
)
def test_run_refuses_what_is_no_article(
    tmp_path: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert main(["run", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_errors_are_a_message_and_the_code_2(
    article: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in [
        (["run", str(tmp_path / "missing.txt")], "cannot be read"),
        (["run", article, "--gamma", "99"], "gamma=99"),
        (["run", article, "--target", str(tmp_path)], "cannot be loaded"),
        (["eval"], "--data is missing"),
        (["eval", "--data", str(tmp_path / "missing.jsonl")], "no such file"),
        (["eval", "--data", "x", "--limit", "0"], "--limit 0"),
    ]:
        assert main(arguments) == 2
        caught = capsys.readouterr()
        assert caught.err.startswith(f"fastllm {arguments[0]}: ")
        assert message in caught.err
        assert "Traceback" not in caught.err


def test_a_wrong_flag_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "a.txt", "--gamma", "many"])
    assert "usage: fastllm run" in capsys.readouterr().err


def test_eval_prints_tables_and_writes_numbers(
    folder: str, story: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "set.jsonl"
    rows = [{"article": story[start:], "highlights": "A mill burned."} for start in (0, 50)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["eval", "--target", folder, "--data", str(data), "--device", "cpu", *SHORT]
    report = tmp_path / "report.json"
    assert main([*common, "--gammas", "2,4", "--json", str(report)]) == 0
    shown = capsys.readouterr().out
    assert "2 articles, gamma 2, greedy" in shown
    assert "| lookup |" in shown
    assert "not measured" in shown
    assert story[50:80] not in shown
    tree = json.loads(report.read_text())
    assert [entry["config"]["gamma"] for entry in tree["evaluations"]] == [2, 4]
    assert tree["story_gate"] is None
    assert main([*common, "--ckpt_path", "lookup", "--check-generate", "--gammas", "3"]) == 0
    assert "PASS" in capsys.readouterr().out


def test_a_number_names_a_gpu_and_a_missing_one_is_refused() -> None:
    assert device_name(None) is None
    assert device_name("cpu") == "cpu"
    for name in ("99", "cuda:99", "abacus"):
        with pytest.raises(SettingsError, match=f"--device {name}"):
            device_name(name)


# Tokens in a terminal.

NAMES = {5: " tea"}
PIECES = {3: " the", 4: " mill", 6: " stood", 7: "."}
ROUND = Round(
    "speculative", (3, 4, 5), tuple(Judged(t, 0.5, 0.5, 0.1, 1.0) for t in (3, 4, 5)), 2, 6
)


def test_states_have_marks_without_colour() -> None:
    shown = terminal.render_round(ROUND, PIECES.__getitem__, NAMES, colour=False)
    assert shown == " _the mill_ [xtea] [!stood]"
    bonus = Round("speculative", (3,), (ROUND.judged[0],), 1, 7)
    assert terminal.render_round(bonus, PIECES.__getitem__, {}, colour=False) == " _the_[+.]"


def test_states_have_a_form_and_a_colour_each() -> None:
    shown = terminal.render_round(ROUND, PIECES.__getitem__, NAMES, colour=True)
    assert "\x1b[4;34mthe mill\x1b[0m" in shown
    assert "\x1b[9;31mtea\x1b[0m" in shown
    assert "\x1b[1;38;5;208m!stood\x1b[0m" in shown
    assert terminal.legend(colour=True).count("\x1b[0m") == 4


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.wants_colour(Terminal())
    assert not terminal.wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.wants_colour(Terminal())


def test_a_text_cannot_steer_the_terminal() -> None:
    shown = terminal.styled("a\x1b[2Jb\x07\nc\u202e", "bonus", colour=False)
    assert shown == "[+a·[2Jb· c·]"


def test_counts_of_a_run() -> None:
    text = [4, 5, 6, 7, 1]
    race = Race(FakeTarget(text_rule(text, 9)), [None, always(text)], "words", DecodingConfig())
    list(race)
    alone, drafted = map(terminal.counts, race.traces())
    assert alone.startswith("5 tokens in 5 target calls, without a drafter")
    assert drafted.startswith("5 tokens in 1 target calls with always (5.00 tokens a call)")
    assert "the target alone needs 5. 5 of 5 drafted tokens accepted" in drafted
