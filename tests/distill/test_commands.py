"""The commands `train` and `pseudo`, end to end on a tiny model and a handful of stories."""

import json
from pathlib import Path

import pytest
import yaml

from fastllm.__main__ import main
from fastllm.checkpoints import load_drafter, load_target
from fastllm.data.tokens import TokenPairs
from fastllm.race import Race
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

NOUNS = ("mill", "library", "bridge", "museum", "harbour", "station", "theatre", "market")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, story: str) -> Path:
    """A data folder of eight stories, each with a summary that its article supports."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for index in range(16):
        article = story.replace("mill", NOUNS[index % 8])
        summary = article[: article.index(" Fire crews")] + " " + article.split(". ")[2] + "."
        rows.append({"id": f"s{index}", "article": article, "highlights": summary})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, tiny_target: HubTarget) -> Path:
    """The tiny target as a checkpoint folder."""
    folder = tmp_path_factory.mktemp("target")
    tiny_target.model.config.fastllm = {"name": "tiny", "prefix": "", "source_length": 96}
    tiny_target.model.save_pretrained(folder)
    tiny_target.vocabulary.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pseudo(tmp_path_factory: pytest.TempPathFactory, data: Path, target: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pseudo"
    code = main(
        ["pseudo", "--target", str(target), "--data", str(data), "--out", str(out)]
        + ["--limit", "12", "--length", "16", "--device", "cpu"]
    )
    assert code == 0
    return out


def test_pseudo_keeps_the_data_set_beside_the_targets_texts(pseudo: Path) -> None:
    written, own = TokenPairs(pseudo), TokenPairs(pseudo / "articles")
    assert written.ids == own.ids
    assert len(set(written.ids)) == 12
    assert all(len(written.target(index)) <= 16 for index in range(12))


@pytest.mark.parametrize("method", ["supervised", "mixed_gkd"])
def test_train_writes_a_drafter_that_races(
    method: str, pseudo: Path, target: Path, tmp_path: Path, story: str
) -> None:
    out = tmp_path / "lstm-x"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"drafter": "lstm", "updates": 2, "cooldown": 1, "batch": 4}))
    code = main(
        ["train", "--recipe", str(recipe), "--distill-method", method, "--exp_name", "lstm-x"]
        + ["--target", str(target), "--pseudo_dataset_path", str(pseudo)]
        + ["--run", str(tmp_path / "run"), "--out", str(out), "--device", "cpu"]
    )
    assert code == 0
    card = json.loads((out / "card.json").read_text())
    assert card["method"]["name"] == method
    assert card["recipe"]["updates"] == 2
    assert card["articles"] == 12
    assert ("own (20%)" in card["texts"]) == (method == "mixed_gkd")
    drafter = load_drafter(out)
    race = Race(load_target(target, device="cpu"), [None, drafter], story,
                DecodingConfig(max_new_tokens=12))  # fmt: skip
    for _ in race:
        pass
    alone, with_drafter = race.traces()
    assert with_drafter.tokens == alone.tokens


def test_train_counts_n_grams_before_and_after(
    data: Path, pseudo: Path, target: Path, tmp_path: Path
) -> None:
    for name, extra in (
        ("before", ["--data", str(data), "--limit", "12"]),
        ("after", ["--pseudo_dataset_path", str(pseudo)]),
    ):
        code = main(
            ["train", "--drafter", "ngram", "--exp_name", f"ngram-{name}", "--ngram_n", "2"]
            + ["--target", str(target), "--run", str(tmp_path / name), *extra]
        )
        assert code == 0
        card = json.loads((tmp_path / name / "checkpoint" / "card.json").read_text())
        origin = {"before": "the data set's summaries", "after": "target-written"}
        assert card["texts"] == origin[name]
        assert load_drafter(tmp_path / name / "checkpoint").name == name


def test_train_makes_a_target_from_nothing_and_goes_on_where_it_stopped(
    data: Path, tmp_path: Path, story: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "name": "mini", "vocabulary_size": 500, "width": 48, "heads": 4, "encoder_layers": 1,
        "decoder_layers": 1, "feed_forward": 32,
        "stages": [
            {"name": "one", "source_length": 120, "mixture": {"central": 2, "extractive": 1},
             "updates": 3, "batch": 4},
        ],
    }  # fmt: skip
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump(recipe))
    command = ["train", "--target", str(path), "--data", str(data), "--run", str(tmp_path / "run")]
    assert main(command) == 0
    target = load_target(tmp_path / "run" / "checkpoint", device="cpu")
    assert (target.name, target.prefix, target.source_length) == ("mini", ". ", 120)
    source = target.vocabulary.encode(story, 120, target.prefix).ids
    assert source[0] == target.start_id
    capsys.readouterr()
    assert main(command) == 0  # everything is there already
    assert "stage" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["train"], "give --drafter"),
        (["train", "--drafter", "lstm", "--data", "x"], "--exp_name is missing"),
        (["train", "--target", "none.yaml", "--data", "x"], "not a readable YAML"),
        (["train", "--recipe", "none.yaml"], "not a readable YAML"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], why: str, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--drafter" in arguments:
        arguments = [*arguments, "--target", str(target)]
    assert main(arguments) == 2
    assert why in capsys.readouterr().err
