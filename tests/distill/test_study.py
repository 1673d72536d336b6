"""The study of methods and losses: its grid, its arithmetic, its files, and one that is real."""

import argparse
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from fastllm.checkpoints import load_drafter, load_target
from fastllm.cli.main import build_parser, main
from fastllm.data.tokens import TokenPairs
from fastllm.distill.options import settle
from fastllm.distill.study import GRID, StudyArm, chart, grid, markdown, summarise
from fastllm.distill.validation import Validation
from fastllm.drafters import trainable
from fastllm.errors import SettingsError


def _options(**given: str) -> argparse.Namespace:
    return argparse.Namespace(**{"grid": None, **given})


def test_the_grid_has_the_baseline_first_and_nothing_twice() -> None:
    usual = [str(arm) for arm in grid(_options())]
    assert usual[:3] == ["supervised ce", "seq_kd ce", "supervised_kd fkl"]
    assert len(grid(_options())) == len(GRID)
    given = grid(_options(grid="mixed-gkd:TVD++ mixed_gkd:tvdpp f_distill"))
    assert [str(arm) for arm in given] == ["supervised ce", "mixed_gkd tvdpp", "f_distill tvd"]
    assert StudyArm.of("mixed_gkd:fkl=1,tvd=0.5").folder(2) == "mixed_gkd-fkl=1+tvd=0.5-2"
    for wrong, why in (("guess", "method 'guess'"), ("imit_kd:ce", "teaches nothing")):
        with pytest.raises(SettingsError, match=why):
            StudyArm.of(wrong)


def _run(calls: list[int], seconds: float = 1.0) -> dict[str, object]:
    counts = [{"tokens": 12, "overlap": 6.0, "agreed": 9, "calls": number} for number in calls]
    return {
        "counts": counts, "seconds": seconds, "teacher_tokens": {"written": 0, "scored": 5},
        "updates": 7,
    }  # fmt: skip


def _summary() -> dict[str, object]:
    arms = [StudyArm.of(name) for name in ("supervised", "seq_kd", "mixed_gkd:tvd")]
    found = {
        (arms[0], 0): _run([6, 6]), (arms[0], 1): _run([4, 4]),
        (arms[1], 0): _run([4, 6], 3.0),
        (arms[2], 0): _run([2, 4]), (arms[2], 1): _run([4, 2]),
    }  # fmt: skip
    return summarise(arms, [0, 1], found, arms[2]) | {
        "settings": {"drafter": "lstm"}, "articles": 2, "gamma": 5, "target": "<t>",
    }  # fmt: skip


def test_the_table_holds_what_was_counted() -> None:
    rows = {row["method"]: row for row in _summary()["rows"]}
    assert list(rows) == ["mixed_gkd", "supervised", "seq_kd"], "the most tau first"
    # Two seeds: 24 tokens in 12 and in 8 calls, so 24 in 10.
    assert rows["supervised"]["tau"]["value"] == pytest.approx(2.4)
    assert rows["supervised"]["seeds"] == {"0": 2.0, "1": 3.0}
    assert rows["mixed_gkd"]["tau"]["value"] == pytest.approx(4.0)
    assert rows["mixed_gkd"]["calls_ratio"]["value"] == pytest.approx(0.6)
    # One seed is compared with the same seed of the baseline: 10 calls to 12.
    assert rows["seq_kd"]["calls_ratio"]["value"] == pytest.approx(10 / 12)
    assert rows["seq_kd"]["alpha"]["value"] == pytest.approx(0.5)
    assert rows["seq_kd"]["alpha_greedy"]["value"] == pytest.approx(0.75)
    assert rows["seq_kd"]["seconds"] == 3.0
    assert [row["best"] for row in rows.values()] == [True, False, False]


def test_the_files_are_well_formed_and_fetch_nothing() -> None:
    summary = _summary()
    picture = ElementTree.fromstring(chart(summary))
    texts = ["".join(node.itertext()) for node in picture.iter() if node.tag.endswith("text")]
    assert "mixed_gkd tvd" in texts
    assert "4.00" in texts
    width = float(picture.attrib["viewBox"].split()[2])
    circles = [node for node in picture.iter() if node.tag.endswith("circle")]
    assert len(circles) == 3 + 4, "a dot a row, a ring a seed where there are several"
    assert all(0 < float(node.attrib["cx"]) < width for node in circles)
    middles = {float(node.attrib["cy"]) for node in circles if node.attrib["r"] == "5"}
    rings = {float(node.attrib["cy"]) for node in circles if node.attrib["r"] != "5"}
    assert len(rings) == 2, "beside the dots, so that no dot hides them"
    assert not rings & middles
    at = {row["method"]: row["tau"]["value"] for row in summary["rows"]}
    dots = [float(node.attrib["cx"]) for node in circles if node.attrib.get("r") == "5"]
    assert sorted(dots, reverse=True) == dots
    assert len(at) == len(dots)
    table = markdown(summary).split("\n\n")[-1].splitlines()
    assert len(table) == 2 + 3
    assert len({line.count("|") for line in table}) == 1
    assert not {"src=", "href=", "<script", "@import"} & set(chart(summary).split())


@pytest.mark.slow  # trains from end to end
def test_a_study_trains_measures_and_goes_on_where_it_stopped(
    data: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pseudo, out = tmp_path / "pseudo", tmp_path / "study"
    common = ["--target", str(target), "--device", "cpu", "--length", "12"]
    assert main(["pseudo", "--data", str(data), "--out", str(pseudo), *common]) == 0
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "drafter: lstm\nexp_name: x\nbatch: 4\nseed: 9\ndistill_method: seq_kd\nupdates: 600\n"
        "warmup: 50\ncooldown: 250\n"
    )
    study = [
        *("study", "--recipe", str(recipe), "--pseudo_dataset_path", str(pseudo), "--out"),
        *(str(out), "--grid", "mixed_gkd:tvd++", "--updates", "2", "--seeds", "3", *common),
    ]  # fmt: skip
    assert main(study) == 0, capsys.readouterr().err
    summary = json.loads((out / "study.json").read_text())
    rows = {row["method"]: row for row in summary["rows"]}
    assert list(rows["mixed_gkd"]["seeds"]) == ["3"]
    assert rows["supervised"]["scored"] == 0
    assert rows["mixed_gkd"]["scored"] > 0
    assert summary["articles"] == 6
    for name in ("supervised-ce-3", "mixed_gkd-tvdpp-3"):
        card = json.loads((out / "runs" / name / "checkpoint" / "card.json").read_text())
        asked = {name: card["recipe"][name] for name in ("batch", "updates", "cooldown", "warmup")}
        assert asked == {"batch": 4, "updates": 2, "cooldown": 0, "warmup": 0}
        assert card["recipe"]["seed"] == 3
        assert card["recipe"]["keep"] == "last"
        counts = json.loads((out / "runs" / name / "held-out.json").read_text())
        tau = sum(row["tokens"] for row in counts) / sum(row["calls"] for row in counts)
        assert rows[name.split("-")[0]]["seeds"]["3"] == pytest.approx(tau)
    assert (out / "study.svg").read_text().startswith("<svg")
    assert "mixed_gkd | tvdpp" in (out / "study.md").read_text()
    capsys.readouterr()
    assert main(study) == 0
    assert "begins" not in capsys.readouterr().out, "everything is there already"
    assert main([*study, "--updates", "3"]) == 2
    assert "updates: 2, now 3" in capsys.readouterr().err
    recipe.write_text(recipe.read_text() + "lambda1: 0.5\n")
    assert main(study) == 2
    assert "sets lambda1" in capsys.readouterr().err


@pytest.mark.slow  # trains from end to end
@pytest.mark.parametrize("family", trainable())
def test_a_study_takes_every_family_that_is_trained_by_gradient(
    family: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"drafter: {family}\nbatch: 4\n")
    for command in ("study", "train"):
        options = build_parser().parse_args([command, "--recipe", str(recipe)])
        settle(options)
        assert (options.drafter, options.batch) == (family, 4)
    recipe.write_text("drafter: ngram\n")
    with pytest.raises(SettingsError, match="ngram"):
        settle(build_parser().parse_args(["study", "--recipe", str(recipe)]))


@pytest.mark.slow  # trains from end to end
def test_a_study_of_the_family_that_is_made_from_its_target(
    data: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pseudo, out = tmp_path / "pseudo", tmp_path / "study"
    common = ["--target", str(target), "--device", "cpu", "--length", "12"]
    assert main(["pseudo", "--data", str(data), "--out", str(pseudo), *common]) == 0
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("drafter: shared\nexp_name: x\nbatch: 4\nkeep: last\n")
    study = [
        *("study", "--recipe", str(recipe), "--pseudo_dataset_path", str(pseudo), "--out"),
        *(str(out), "--grid", "supervised", "--updates", "2", "--seeds", "0", *common),
    ]  # fmt: skip
    assert main(study) == 0, capsys.readouterr().err
    (row,) = json.loads((out / "study.json").read_text())["rows"]
    card = json.loads((out / "runs" / "supervised-ce-0" / "checkpoint" / "card.json").read_text())
    assert card["family"] == "shared"
    # Measured by the study, and anew by hand: the same checkpoint says the same of the same texts.
    drafter = load_drafter(out / "runs" / "supervised-ce-0" / "checkpoint", device="cpu")
    teacher = load_target(target, device="cpu")
    drafter.bind(teacher)
    held_out = TokenPairs(pseudo / "validation")
    found = Validation(teacher, held_out)(drafter.model)
    assert row["tau"]["value"] == pytest.approx(found["validation_tau"])
    assert row["alpha"]["value"] == pytest.approx(found["validation_alpha"])
    assert (out / "study.md").read_text().startswith("shared, 2 updates a run")


@pytest.mark.slow
def test_a_run_that_fails_is_told_with_the_reason(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = [
        *("study", "--pseudo_dataset_path", str(tmp_path), "--out", str(tmp_path / "out")),
        *("--grid", "supervised", "--target", str(target), "--updates", "2"),
    ]  # fmt: skip
    assert main(study) == 2
    shown = capsys.readouterr().err
    assert "supervised-ce-0 failed" in shown
    assert "holds no texts" in shown
    assert main([*study, "--seeds", "one"]) == 2
    assert "give numbers" in capsys.readouterr().err
