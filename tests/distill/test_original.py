"""The original's commands, word for word, on small models: they run, and say what differs."""

import json
import shutil
from pathlib import Path

import pytest

from fastllm.checkpoints import load_drafter
from fastllm.cli.main import main
from fastllm.drafters.ngram import NgramDrafter


def _json(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text())
    return found


@pytest.fixture
def common(target: Path, data: Path) -> list[str]:
    return ["--target", str(target), "--data", str(data), "--device", "cpu"]


def test_numbers_are_weights_and_run_at_the_end_says_nothing(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "weights"
    brief = ["--updates", "2", "--batch_size", "4", "--gen_length", "12", "--validation", "none"]
    asked = ["--loss", "0.25", "--kd_loss", "0.75", "--kd_temp", "2"]
    words = ["train", *common, "--drafter", "lstm", "--exp_name", "weights", "--run", str(run)]
    assert main([*words, *brief, *asked, "--distil_method", "supervised_kd", "run"]) == 0
    assert "weights of cross-entropy" in capsys.readouterr().out
    card = _json(run / "checkpoint" / "card.json")
    assert card["method"]["loss"] == "ce=0.25,fkl=0.75"  # type: ignore[index]
    assert card["method"]["name"] == "supervised_kd"  # type: ignore[index]


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        (["--loss", "0", "--kd_loss", "0"], "not both 0"),
        (["--loss", "ce", "--kd_loss", "0.5"], "a weight and --loss ce a name"),
    ],
)
def test_weights_that_say_nothing_are_refused(
    losses: list[str], why: str, common: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *common, "--drafter", "lstm", "--exp_name", "x", *losses]) == 2
    assert why in capsys.readouterr().err


def test_t5small_is_the_family_t5(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "t5"
    brief = ["--updates", "2", "--batch", "2", "--length", "12", "--validation", "none"]
    assert main(["train", *common, "--drafter", "t5small", "--run", str(run), *brief]) == 0
    assert "--start google-t5/t5-small" in capsys.readouterr().out
    assert _json(run / "checkpoint" / "card.json")["family"] == "t5"


def test_a_shared_drafter_may_have_several_layers(common: list[str], tmp_path: Path) -> None:
    run = tmp_path / "shared"
    brief = ["--updates", "2", "--batch", "2", "--length", "12", "--validation", "none"]
    words = ["train", *common, "--drafter", "shared", "--layers", "2", "--run", str(run)]
    assert main([*words, *brief]) == 0
    assert load_drafter(run / "checkpoint", device="cpu").settings.layers == 2  # type: ignore[attr-defined]


def _counts(drafter: object) -> list[list[list[int]]]:
    assert isinstance(drafter, NgramDrafter)
    return [drafter.counts.rows(n).tolist() for n in range(1, drafter.counts.order + 1)]


def test_the_text_file_of_an_ngram_is_written_read_and_resumed(
    common: list[str], tmp_path: Path
) -> None:
    text, first, second = tmp_path / "counts.txt", tmp_path / "first", tmp_path / "second"
    words = ["train", *common, "--drafter", "ngram", "--ngram_n", "2"]
    assert main([*words, "--run", str(first), "--save_text", str(text), "run"]) == 0
    once = _counts(load_drafter(text))
    assert once == _counts(load_drafter(first / "checkpoint"))
    assert main([*words, "--run", str(second), "--resume", str(text)]) == 0
    twice = _counts(load_drafter(second / "checkpoint"))
    assert twice == [[[*row[:-1], 2 * row[-1]] for row in rows] for rows in once]


def test_a_text_file_is_a_pseudo_data_set_of_an_ngram(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, run = tmp_path / "lines.txt", tmp_path / "run"
    lines.write_text("The mill burned.\n\nThe mill was saved.\n")
    words = ["train", *common, "--drafter", "ngram", "--run", str(run)]
    assert main([*words, "--pseudo_dataset_path", str(lines)]) == 0
    assert "2 texts, one a line" in capsys.readouterr().out
    assert _json(run / "checkpoint" / "card.json")["articles"] == 2
    lines.write_text("\n")
    assert main([*words, "--pseudo_dataset_path", str(lines)]) == 2


def test_eval_reads_a_data_set_by_its_test_split(
    common: list[str],
    target: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, folder = tmp_path / "ngram", tmp_path / "data"
    assert main(["train", *common, "--drafter", "ngram", "--run", str(run)]) == 0
    folder.mkdir()
    shutil.copy(data / "validation.jsonl", folder / "test.jsonl")
    code = main(
        [
            *("eval", "--target", str(target), "--data", str(folder), "--use_ngram_drafter"),
            *("--ckpt_path", str(run / "checkpoint"), "--gen_length", "8", "--batch_size", "4"),
            *("--limit", "2", "--drafters", "none", "--device", "cpu", "run"),
        ]
    )
    shown = capsys.readouterr()
    assert code == 0
    assert "one at a time" in shown.out + shown.err
    assert "ngram" in shown.out
