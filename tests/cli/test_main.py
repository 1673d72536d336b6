"""The commands, run in this process on a tiny target in a folder."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeTarget, always, text_rule

from fastllm import checkpoints, terminal
from fastllm.cli.lanes import lane_names, load_lanes
from fastllm.cli.main import build_parser, main
from fastllm.cli.options import decoding_config
from fastllm.decoding.race import Race
from fastllm.drafters import untrained
from fastllm.drafters.ngram import NgramDrafter
from fastllm.evaluation import measure
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
    assert (trace.config.no_repeat_ngram, trace.config.min_new_tokens) == (0, 0)


@pytest.mark.parametrize("command", [["run", "a.txt"], ["eval"]])
def test_the_rules_are_the_targets_own_unless_given(command: list[str]) -> None:
    def config(*flags: str) -> DecodingConfig:
        given = [*command, *flags]
        return decoding_config(build_parser(given).parse_args(given))

    assert config() == DecodingConfig()
    for flags in (("--no_repeat_ngram", "3"), ("--no-repeat-ngram", "3")):
        assert config(*flags, "--min-new-tokens", "0", "--min_new_tokens", "7") == DecodingConfig(
            no_repeat_ngram=3, min_new_tokens=7
        )


@pytest.mark.parametrize("command", [["run", "a.txt"], ["eval"], ["bench"]])
def test_every_setting_has_a_flag(command: list[str]) -> None:
    wanted = {
        "verification": "lenient",
        "lenience": 0.4,
        "lenience_form": "square",
        "draft_length": "adaptive",
        "draft_cost": 0.3,
        "call_cost": 0.2,
    }
    for dash in ("-", "_"):
        flags = [
            word
            for name, value in wanted.items()
            for word in ("--" + name.replace("_", dash), str(value))
        ]
        options = build_parser(command).parse_args([*command, *flags])
        assert decoding_config(options, temperature=1.0) == DecodingConfig(
            temperature=1.0, **wanted
        )
    with pytest.raises(SystemExit, match="2"):
        build_parser(command).parse_args([*command, "--verification", "hope"])


def test_lenience_is_for_sampling_alone(capsys: pytest.CaptureFixture[str]) -> None:
    lenient = ["--verification", "lenient", "--lenience", "0.5"]
    assert main(["run", "a.txt", *lenient]) == 2
    assert "temperature above 0" in capsys.readouterr().err
    for command in ("eval", "bench"):
        assert main([command, "--data", "x", *lenient, "--temperature", "0", "0.7"]) == 2
        assert "Give --temperature 0.7 alone" in capsys.readouterr().err
    assert main(["bench", "--data", "x", *lenient]) == 2
    assert "Give --temperature 1 alone" in capsys.readouterr().err
    assert main(["eval", "--data", "x", "--lenience", "0.5"]) == 2
    assert "settings of 'lenient' alone" in capsys.readouterr().err


def test_run_names_the_rule(folder: str, article: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["run", article, "--target", folder, "--drafter", "lookup", *SHORT]
    assert main(common) == 0
    assert "Token verification." in capsys.readouterr().out
    assert main([*common, "--temperature", "1"]) == 0
    assert "Block verification." in capsys.readouterr().out
    lenient = ["--verification", "lenient", "--lenience", "0.5"]
    assert main([*common, "--temperature", "1", *lenient]) == 0
    assert "Lossy: lenient, linear, eps 0.5." in capsys.readouterr().out


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


@pytest.mark.parametrize("command", ["run", "eval", "bench", "train", "study"])
def test_an_unknown_flag_shows_the_usage_of_its_command(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [command, "a.txt"] if command == "run" else [command]
    with pytest.raises(SystemExit, match="2"):
        main([*given, "--no-such-flag"])
    said = capsys.readouterr().err
    assert f"usage: fastllm {command} " in said
    assert "unrecognized arguments: --no-such-flag" in said


def test_a_wrong_flag_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "a.txt", "--gamma", "many"])
    assert "usage: fastllm run" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["x", "3,x", "", ","])
def test_a_wrong_list_of_numbers_is_told_in_words(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, what in (("--gamma", "a whole number"), ("--temperature", "a number")):
        with pytest.raises(SystemExit, match="2"):
            main(["eval", flag, text])
        said = capsys.readouterr().err
        assert f"{text!r} is not {what}, nor several between commas" in said


def test_without_arguments_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    for command in ("run", "eval", "bench", "train", "deploy", "push"):
        assert re.search(rf"(?m)^    {command}\b", shown.err)
    assert not shown.out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "the drafter's name is empty: give lookup"),
        ("lookup+lookup", "stands between two different drafters"),
        ("lookup+none", "stands between two different drafters"),
        ("lookup+", "stands between two different drafters"),
    ],
)
def test_a_drafter_that_is_none(
    name: str, words: str, folder: str, article: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", article, "--target", folder, "--drafter", name, *SHORT]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "eval", "bench", "train", "pseudo", "study"])
def test_an_interruption_is_told(
    command: str,
    article: str,
    evaluation: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "load_target", interrupted)
    given = {"run": ["run", article], "eval": evaluation, "bench": ["bench", *evaluation[1:]]}
    more = ""
    if command not in given:
        monkeypatch.setattr(f"fastllm.cli.training.{command}", interrupted)
        more = "; the same command goes on from what it has saved"
    assert main(given.get(command, [command])) == 130
    assert capsys.readouterr().err == f"fastllm {command}: interrupted{more}\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252", "utf-8"])
def test_a_console_of_few_characters(
    encoding: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("市議会 voted. " * 9 + "😀 Fluß", encoding="utf-8")
    monkeypatch.setattr(terminal, "legend", lambda **_: "legend of 市 and \udc80")
    run = ["run", str(path), "--target", folder, "--drafter", "lookup", "--device", "cpu", *SHORT]

    def printed(*more: str) -> bytes:
        written = io.BytesIO()
        console = io.TextIOWrapper(written, encoding=encoding, errors="strict")
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", console)
            assert main([*run, *more]) == 0
        console.flush()
        return written.getvalue()

    assert b"12 tokens in" in printed()
    assert b"legend of " in printed()
    assert Trace.loads(printed("--json").decode("utf-8")).source.endswith("😀 Fluß")


def test_an_error_that_nobody_foresaw_is_not_the_code_of_texts_that_differ(
    article: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "load_target", lambda *_, **__: 1 / 0)
    assert main(["run", article]) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
def test_what_cannot_be_written_is_one_line(
    folder: str,
    article: str,
    evaluation: list[str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main([*evaluation, "--drafters", "none", "--limit", "1", "--json", str(FULL)]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said == f"fastllm eval: {FULL} cannot be read or written (No space left on device)"
    run = ["run", article, "--target", folder, "--drafter", "none", "--device", "cpu", *SHORT]
    for more in ([], ["--json"]):
        with FULL.open("w") as full, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", full)
            assert main([*run, *more]) == 2
        assert capfd.readouterr().err == (
            "fastllm run: a file, or standard output, cannot be read or written "
            "(No space left on device)\n"
        )


@pytest.mark.parametrize("command", ["eval", "bench"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "new" / "place"
    monkeypatch.setattr(checkpoints, "load_target", lambda *_, **__: pytest.fail("work"))

    def read_only(**_: Any) -> Any:  # root may write everywhere but on such a file system
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryFile", read_only)
        assert main([command, "--out", str(place)]) == 2
    said = capsys.readouterr().err
    assert "cannot be written to (Read-only file system)" in said
    if command != "bench":
        assert main([command, "--json", str(tmp_path)]) == 2
        assert f"--json {tmp_path}: this is a folder" in capsys.readouterr().err
    assert main([command, "--out", str(place), "--limit", "0"]) == 2
    assert "--limit 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "what is refused leaves nothing behind"


@pytest.fixture
def evaluation(folder: str, story: str, tmp_path: Path) -> list[str]:
    """The command that measures lookup on three short articles."""
    data = tmp_path / "set.jsonl"
    rows = [{"article": story[start:], "highlights": "A mill burned."} for start in (0, 50, 90)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["eval", "--target", folder, "--data", str(data), "--device", "cpu", *SHORT]


def test_eval_prints_tables_and_writes_a_report(
    evaluation: list[str], story: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "report"
    numbers = tmp_path / "numbers.json"
    settings = ["--gamma", "2", "4,3", "--temperature", "0", "1"]
    assert main([*evaluation, *settings, "--out", str(out), "--json", str(numbers)]) == 0
    caught = capsys.readouterr()
    assert "3/3 articles, 0 s left" in caught.err
    assert "| article lookup, no training |" in caught.out
    tree = json.loads((out / "report.json").read_text())
    assert tree["gammas"] == [2, 3, 4]
    assert [setting["temperature"] for setting in tree["settings"]] == [0, 1]
    assert tree["data"] == "set.jsonl"
    assert numbers.read_text() == (out / "report.json").read_text()
    assert (out / "report.md").read_text().strip() == caught.out.strip()
    page = (out / "report.html").read_text()
    assert '<section id="depth">' in page
    for text in (caught.out, page, numbers.read_text()):
        assert story[50:80] not in text
        assert "A mill burned" not in text


def test_eval_compares_with_generate(
    evaluation: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--ckpt_path", "lookup", "--check-generate", "--gammas", "3", "--limit", "1"]
    assert main([*evaluation, *more, "--out", str(tmp_path / "out")]) == 0
    assert "PASS" in capsys.readouterr().out
    tree = json.loads((tmp_path / "out" / "report.json").read_text())
    assert tree["generate"]["equal"]["lookup"] == {"3": 1}
    assert not (tmp_path / "out" / "report.html").exists()


def test_an_interrupted_comparison_tells_what_it_has(
    evaluation: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, begun = measure.generate, []

    def impatient(*arguments: Any) -> Any:
        begun.append(1)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(measure, "generate", impatient)
    more = ["--drafters", "none", "--check-generate", "--gamma", "2", "--out", str(tmp_path)]
    assert main([*evaluation, *more]) == 130
    caught = capsys.readouterr()
    assert "interrupted: 2 of 3 articles are complete" in caught.err
    assert "of 2 articles: PASS" in caught.out
    assert "Interrupted: 3 articles were to be compared." in caught.out
    tree = json.loads((tmp_path / "report.json").read_text())["generate"]
    assert (tree["articles"], tree["asked"], tree["interrupted"]) == (2, 3, True)


def test_the_comparison_with_generate_is_greedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--check-generate", "--data", "x", "--temperature", "0.7"]) == 2
    assert "--check-generate is greedy, so that --temperature 0.7" in capsys.readouterr().err


def test_a_lossy_rule_is_named_everywhere(
    evaluation: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lenient = ["--verification", "lenient", "--lenience", "0.5", "--temperature", "1"]
    assert main([*evaluation, *lenient, "--limit", "1", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    tables = [line for line in shown.splitlines() if line.startswith("### ")]
    assert len(tables) >= 4
    assert all("lossy: lenient, linear, eps 0.5" in title for title in tables)
    assert "LOSSY (lenient, linear, eps 0.5): lanes with a drafter" in shown
    page = (tmp_path / "report.html").read_text()
    assert "Temperature 1, lossy: lenient, linear, eps 0.5" in page
    assert "T = 1, lossy" in page


def test_an_interrupted_eval_writes_what_it_has(
    evaluation: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured, turns = measure._measure, []

    def impatient(*arguments: Any) -> Any:
        turns.append(1)
        if len(turns) == 3:
            raise KeyboardInterrupt  # what Ctrl-C raises, wherever it falls
        return measured(*arguments)

    monkeypatch.setattr(measure, "_measure", impatient)
    assert main([*evaluation, "--out", str(tmp_path)]) == 130
    caught = capsys.readouterr()
    assert "interrupted: 2 of 3 articles are complete" in caught.err
    assert "Interrupted: 3 articles were to be measured." in caught.out
    tree = json.loads((tmp_path / "report.json").read_text())
    assert (tree["articles"], tree["asked"]) == (2, 3)
    assert (tmp_path / "report.md").read_text().strip() == caught.out.strip()
    assert (tmp_path / "report.html").exists()


def test_eval_refuses_what_would_fail_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for arguments, message in [
        (["--gamma", "3", "99"], "gamma=99"),
        (["--temperature", "0", "7"], "temperature=7"),
        (["--out", str(file / "out")], "cannot be written to"),
    ]:
        assert main(["eval", "--data", str(file), *arguments]) == 2
        assert message in capsys.readouterr().err


def test_lanes_are_families_single_drafters_or_folders() -> None:
    shipped = ["cnn-after", "cnn-before", "odd", "solo-after"]

    def names(*asked: str, folders: Sequence[str] = (), target: str = "target") -> list[str]:
        return lane_names(asked or None, folders, target, shipped)

    assert names() == [*untrained(), *shipped]
    assert names(target="google/flan-t5-small") == untrained()
    assert names(folders=["runs/a", "runs/b"]) == ["lookup", "runs/a", "runs/b"]
    assert names("cnn") == ["cnn-before", "cnn-after"]
    assert names("cnn,lookup", "cnn-after") == ["cnn-before", "cnn-after", "lookup"]
    assert names("solo", "odd", folders=["runs/a"]) == ["solo-after", "odd", "runs/a"]
    assert names("runs/cnn") == ["runs/cnn"]
    assert names("none") == []


def test_a_folder_goes_by_the_name_of_its_drafter(tmp_path: Path, folder: str) -> None:
    for place, name in (("a", "mine-before"), ("b", "mine-after"), ("c", "mine-after")):
        drafter = NgramDrafter.fit([[5, 6, 7, 1]], order=2, vocabulary_size=600, name=name)
        drafter.save(tmp_path / place)
    common = ["eval", "--target", folder, "--data", "x", "--device", "cpu"]
    paths = [str(tmp_path / place) for place in "abc"]
    given = [word for path in paths[:2] for word in ("--ckpt_path", path)]
    _, drafters = load_lanes(build_parser(["eval"]).parse_args([*common, *given]))
    assert list(drafters) == ["lookup", "mine-before", "mine-after"]
    given += ["--ckpt-path", paths[2]]
    _, drafters = load_lanes(build_parser(["eval"]).parse_args([*common, *given]))
    assert list(drafters) == ["lookup", "mine-before", paths[1], paths[2]]


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
    assert not terminal.wants_colour(None), "closed by who started us"
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.wants_colour(Terminal())


def test_a_text_cannot_steer_the_terminal() -> None:
    shown = terminal.styled("a\x1b[2Jb\x07\nc\u202e", "bonus", colour=False)
    assert shown == "[+a·[2Jb· c·]"


def test_what_words_need_stays_in_a_text() -> None:
    for text in ("می\u200cخواهم", "क्\u200dष", "\u0600\u0661"):
        assert terminal.printable(text) == text
    assert terminal.printable("\u202eab\u2066\U000e0041") == "·ab··"


def test_counts_of_a_run() -> None:
    text = [4, 5, 6, 7, 1]
    race = Race(FakeTarget(text_rule(text, 9)), [None, always(text)], "words", DecodingConfig())
    list(race)
    alone, drafted = map(terminal.counts, race.traces())
    assert alone.startswith("5 tokens in 5 target calls, without a drafter")
    assert drafted.startswith("5 tokens in 1 target call with always (5.00 tokens per call)")
    assert "the target alone needs 5. 5 of 5 drafted tokens accepted" in drafted
