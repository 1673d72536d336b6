"""The commands `train` and `pseudo`, end to end on a tiny model and a handful of stories."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from tiny_windows import write_tiny_windows

from fastllm.checkpoints import load_drafter, load_target
from fastllm.cli.main import build_parser, main
from fastllm.data.tokens import TokenPairs
from fastllm.decoding.race import Race
from fastllm.distill.options import settle
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary


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
    held_out = TokenPairs(pseudo / "validation")
    assert set(held_out.ids) == {f"s{index}" for index in range(16, 22)}


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
    assert card["validation"]["articles"] == 6
    assert card["validation"]["tau"] >= 1
    assert (card["teacher_tokens"]["scored"] > 0) == (method == "mixed_gkd")
    assert ("own (20%)" in card["texts"]) == (method == "mixed_gkd")
    drafter = load_drafter(out)
    race = Race(load_target(target, device="cpu"), [None, drafter], story,
                DecodingConfig(max_new_tokens=12))  # fmt: skip
    for _ in race:
        pass
    alone, with_drafter = race.traces()
    assert with_drafter.tokens == alone.tokens


@pytest.mark.slow  # trains from end to end
def test_a_cascade_distils_a_smaller_target_and_then_its_drafter(
    pseudo: Path, target: Path, data: Path, tmp_path: Path, story: str
) -> None:
    brief = ["--updates", "2", "--batch", "4", "--length", "16", "--device", "cpu"]
    small = tmp_path / "small" / "checkpoint"
    code = main(
        ["train", "--drafter", "t5", "--start", "target", "--layers", "1", "--as_target", *brief]
        + ["--exp_name", "small", "--distill_method", "mixed_gkd", "--learning_rate", "1e-9"]
        + ["--target", str(target), "--pseudo_dataset_path", str(pseudo)]
        + ["--run", str(tmp_path / "small")]
    )
    assert code == 0
    card = json.loads((small / "card.json").read_text())
    assert (card["start"], card["layers"], card["target"]) == ("target", 1, "tiny")
    first, whole = load_target(small, device="cpu"), load_target(target, device="cpu")
    assert (first.name, first.source_length) == ("small", 96)
    assert first.model.config.num_layers == first.model.config.num_decoder_layers == 1
    own, copied = (  # rounded to bfloat16, and at that learning rate nothing else
        model.decoder.block[0].layer[-1].DenseReluDense.wo.weight
        for model in (whole.model, first.model)
    )
    assert torch.equal(own.bfloat16().float(), copied)

    texts = tmp_path / "pseudo"
    common = ["--target", str(small), *brief[2:]]
    assert main(["pseudo", *common, "--data", str(data), "--out", str(texts), "--limit", "8"]) == 0
    assert TokenPairs(texts).meta["target"] == "small"
    code = main(
        ["train", "--drafter", "lstm", "--exp_name", "lstm-x", "--run", str(tmp_path / "lstm")]
        + ["--distill_method", "mixed_gkd", "--pseudo_dataset_path", str(texts), *brief, *common]
    )
    assert code == 0
    drafter = load_drafter(tmp_path / "lstm" / "checkpoint", device="cpu")
    race = Race(first, [None, drafter], story, DecodingConfig(max_new_tokens=12))
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
        assert load_drafter(tmp_path / name / "checkpoint").name == f"ngram-{name}"


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory, story: str, vocabulary: Vocabulary) -> Path:
    return write_tiny_windows(tmp_path_factory.mktemp("windows"), story, vocabulary)


@pytest.mark.slow  # trains from end to end
def test_train_makes_a_target_from_nothing_and_goes_on_where_it_stopped(
    windows: Path, tmp_path: Path, story: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "name": "mini", "vocabulary_size": 600, "width": 48, "heads": 4, "encoder_layers": 1,
        "decoder_layers": 1, "feed_forward": 32,
        "stages": [
            {"name": "one", "source_length": 120, "mixture": {"start": 2, "short": 1},
             "updates": 3, "batch": 4},
        ],
    }  # fmt: skip
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump(recipe))
    command = ["train", "--target", str(path), "--data", str(windows), "--device", "cpu"]
    start = ["--start", str(tmp_path / "run" / "checkpoint"), "--run", str(tmp_path / "second")]
    command += ["--run", str(tmp_path / "run")]
    assert main([*command, "--updates", "3", "--seed", "0"]) == 2
    assert "--seed, --updates: a target is trained as" in capsys.readouterr().err
    assert main(command) == 0
    target = load_target(tmp_path / "run" / "checkpoint", device="cpu")
    assert (target.name, target.prefix, target.source_length) == ("mini", ". ", 120)
    source = target.vocabulary.encode(story, 120, target.prefix).ids
    assert source[0] == target.start_id
    capsys.readouterr()
    assert main(command) == 0  # everything is there already
    assert "stage" not in capsys.readouterr().out
    log = (tmp_path / "run" / "checkpoint" / "training.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == 3
    assert "validation_loss" in json.loads(log[-1])

    # --start: from another's weights, rounded to bfloat16; at that rate nothing else happens.
    recipe["stages"][0]["learning_rate"] = 1e-9
    path.write_text(yaml.safe_dump(recipe))
    assert main([*command[:-2], *start]) == 0
    second = load_target(tmp_path / "second" / "checkpoint", device="cpu")
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    both = [model.model.state_dict()[name] for model in (target, second)]
    assert torch.equal(*both)
    path.write_text(yaml.safe_dump({**recipe, "width": 96}))
    assert main([*command[:-2], *start[:-1], str(tmp_path / "third")]) == 2
    assert "other sizes than the recipe" in capsys.readouterr().err
    recipe["stages"][0]["mixture"] = {"central": 1}
    path.write_text(yaml.safe_dump(recipe))
    assert main([*command[:-2], "--run", str(tmp_path / "fourth")]) == 2
    assert "no windows of kind 'central'" in capsys.readouterr().err


def test_names_of_the_original_and_a_recipe_mean_the_same(
    pseudo: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "both.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "drafter": "lstm", "exp_name": "from-recipe", "length": 16, "updates": 9,
                "train": {"batch": 4, "kd_temp": 2.0, "limit": 8000},
                "pseudo": {"batch": 64, "shard_size": 8},
            }
        )
    )  # fmt: skip
    common = ["--target", str(target), "--pseudo_dataset_path", str(pseudo), "--device", "cpu"]
    asked = {
        "original": ["--drafter", "lstm", "--exp_name", "x", "--kd_loss", "RKL", "--kd-temp", "2",
                     "--distill_method", "supervised-kd", "--updates", "2", "--batch", "4",
                     "--length", "16"],
        "recipe": ["--recipe", str(recipe), "--loss", "rkl", "--updates", "2"],
    }  # fmt: skip
    cards = {}
    for name, arguments in asked.items():
        run = ["--run", str(tmp_path / name), "--validation", "none"]
        assert main(["train", *arguments, *run, *common]) == 0
        cards[name] = json.loads((tmp_path / name / "checkpoint" / "card.json").read_text())
    assert cards["original"]["recipe"] == cards["recipe"]["recipe"]
    assert cards["original"]["recipe"]["kd_temperature"] == 2
    assert cards["recipe"]["name"] == "from-recipe"
    assert "validation" not in cards["recipe"]
    card = cards["recipe"]
    assert card["method"] == {
        "name": "supervised_kd", "lambda1": 1.0, "lambda2": 0.0, "loss": "rkl",
    }  # fmt: skip
    assert (card["prefix"], card["source_length"]) == ("", 96)
    again = ["train", *asked["recipe"], "--run", str(tmp_path / "recipe"), *common]
    assert main([*again, "--validation", "none"]) == 0, "a finished run says so and stays"
    capsys.readouterr()
    assert main([*again, "--seed", "1"]) == 2, "another run may not take its place"
    shown = capsys.readouterr().err
    assert "other settings (recipe.seed: 0, now 1; validate_every: 0, now 20)" in shown


def test_a_dry_run_estimates_builds_and_leaves_nothing(
    data: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    common = ["--target", str(target), "--data", str(data), "--length", "16", "--batch", "4"]
    train = ["train", "--drafter", "t5", "--exp_name", "x", "--method", "mixed_gkd"]
    assert main([*train, *common, "--run", str(run), "--updates", "700", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "memory a GPU" in out
    assert "hours on 8 GPUs" in out
    assert "2/2" in out
    assert "700 would take" in out
    assert main(["pseudo", *common, "--out", str(run), "--dry-run"]) == 0
    assert "two batches" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_articles_already_chosen_are_not_taken_for_others(
    data: Path, target: Path, pseudo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["pseudo", "--target", str(target), "--data", str(data), "--out", str(pseudo)]
    capsys.readouterr()
    assert main([*common, "--length", "16", "--limit", "11"]) == 2
    assert "other articles than those asked for (articles: 12, now 11):" in capsys.readouterr().err
    assert main([*common, "--length", "17", "--limit", "12"]) == 2
    assert "length: 16, now 17" in capsys.readouterr().err


def _ngram(target: Path, pseudo: Path, run: Path, out: Path) -> list[str]:
    return [
        "train", "--drafter", "ngram", "--exp_name", "counted", "--target", str(target),
        "--pseudo_dataset_path", str(pseudo), "--run", str(run), "--out", str(out),
    ]  # fmt: skip


def test_a_checkpoint_does_not_delete_what_it_did_not_write(
    pseudo: Path, target: Path, windows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    recipe = tmp_path / "mini.yaml"
    stage = {"name": "one", "source_length": 120, "mixture": {"start": 1}, "updates": 1}
    recipe.write_text(
        yaml.safe_dump(
            {"name": "mini", "vocabulary_size": 600, "width": 48, "heads": 4, "encoder_layers": 1,
             "decoder_layers": 1, "feed_forward": 32, "stages": [{**stage, "batch": 2}]}
        )
    )  # fmt: skip
    ngram = _ngram(target, pseudo, run, out)
    common = [*ngram[3:], "--updates", "2", "--batch", "4", "--length", "16"]
    smaller = ["train", "--drafter", "t5", "--start", "target", "--layers", "1", "--as_target"]
    commands = [
        ngram,
        ["train", "--drafter", "lstm", *common],
        [*smaller, *common],
        ["train", "--target", str(recipe), "--data", str(windows), *ngram[-4:]],
    ]
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for command in commands:
        assert main(command) == 2
        assert "holds thesis.txt: that is no checkpoint" in capsys.readouterr().err
        assert (out / "thesis.txt").read_text() == "mine"
        assert not run.exists(), "refused before anything was done"
    (out / "thesis.txt").unlink()
    beside = tmp_path / "out.previous"
    beside.mkdir()
    (beside / "backup.txt").write_text("mine")
    for command in (ngram, commands[3]):
        for _ in range(2):  # an earlier checkpoint is replaced, whatever it was
            assert main(command) == 0, capsys.readouterr().err
            assert (out / "config.json").is_file()
    assert load_target(out, device="cpu").name == "mini"
    assert not (run / "checkpoint").exists(), "a target goes where it was sent, too"
    assert (beside / "backup.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out", "out.previous", "mini.yaml"}


@pytest.mark.parametrize("what", ["pseudo", "run", "out", "ngram", "cache", "target", "study"])
def test_what_cannot_be_written_is_said_before_the_work(
    what: str, target: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    place, fine = str(tmp_path / "file" / "x"), str(tmp_path / "run")
    common = ["--target", str(target), "--data", str(data)]
    train = ["train", *common, "--exp_name", "x"]
    commands = {
        "pseudo": ["pseudo", *common, "--out", place],
        "run": [*train, "--drafter", "lstm", "--run", place],
        "out": [*train, "--drafter", "lstm", "--run", fine, "--out", place],
        "ngram": [*train, "--drafter", "ngram", "--run", place],
        "cache": [*train, "--drafter", "lstm", "--run", fine, "--teacher_cache", place],
        "target": ["train", "--target", "recipes/target.yaml", *common[2:], "--run", place],
        "study": ["study", *common, "--pseudo_dataset_path", fine, "--out", place],
    }
    assert main(commands[what]) == 2
    assert "cannot be written to" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_few_updates_shorten_the_schedule_of_a_recipe_and_say_so(
    pseudo: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("drafter: lstm\nupdates: 600\nwarmup: 50\ncooldown: 250\nbatch: 2\n")
    common = ["train", "--recipe", str(recipe), "--target", str(target), "--validation", "none"]
    common += ["--pseudo_dataset_path", str(pseudo), "--exp_name", "x", "--length", "8"]

    def schedule(*more: str) -> tuple[int, int]:
        run = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        assert main([*common, "--run", str(run), *more]) == 0
        found = json.loads((run / "config.json").read_text())["schedule"]
        return found["warmup"], found["cooldown"]

    assert schedule("--updates", "12") == (1, 4)
    shown = capsys.readouterr().out
    assert "--updates 12: warmup 1 instead of 50, cooldown 4 instead of 250" in shown
    assert schedule("--updates", "12", "--cooldown", "7") == (1, 7)
    assert "cooldown" not in capsys.readouterr().out.splitlines()[0].split("(")[0]
    assert main([*common, "--updates", "12", "--cooldown", "13"]) == 2, "what was asked is not"
    capsys.readouterr()
    study = build_parser().parse_args(["study", "--recipe", str(recipe), "--updates", "12"])
    (note,) = settle(study)
    assert note in shown, "the same rule, in the same words"
    assert (study.warmup, study.cooldown) == (1, 4)

    recipe.write_text("drafter: lstm\nupdates: 600\nwarmup: 3\ncooldown: 5\nbatch: 2\n")
    assert schedule("--updates", "8") == (3, 5), "what fits stays"
    assert "instead" not in capsys.readouterr().out


def test_articles_without_a_usable_summary_are_counted_and_none_need_have_one(
    data: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    common = ["--target", str(target), "--length", "8", "--device", "cpu"]

    def pseudo(name: str, rows: list[dict[str, str]]) -> TokenPairs:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        out = ["--out", str(folder / "out")]
        assert main(["pseudo", *common, "--data", str(folder), *out]) == 0
        return TokenPairs(folder / "out" / "articles")

    some = [{**row, "highlights": "No."} if index < 3 else row for index, row in enumerate(rows)]
    assert len(pseudo("some", some)) == 13
    assert "train: 13 of 16 articles have a usable summary" in capsys.readouterr().out
    bare = [{"id": row["id"], "article": row["article"]} for row in rows]
    own = pseudo("bare", [*bare, {"id": "short", "article": "Too short."}])
    assert sorted(own.ids) == sorted(row["id"] for row in rows)
    assert not own.lengths().any()
    assert "16 of 17 articles are long enough, and none has a summary" in capsys.readouterr().out
    written = str(tmp_path / "bare" / "out")
    train = ["train", *common, "--pseudo_dataset_path", written, "--exp_name", "x", "--updates"]
    train += ["2", "--batch", "4", "--validation", "none", "--drafter"]
    for number, (drafter, method, code) in enumerate(
        [("lstm", "mixed_gkd", 0), ("lstm", "supervised", 2), ("ngram", "supervised", 2)]
    ):
        run = ["--run", str(tmp_path / f"run{number}")]
        assert main([*train, drafter, "--method", method, *run]) == code, (drafter, method)
        shown = capsys.readouterr().err
        assert ("the articles have no summaries" in shown) == (code == 2)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["train"], "give --drafter"),
        (["train", "--drafter", "lstm", "--data", "x"], "--exp_name is missing"),
        (["train", "--target", "none.yaml", "--data", "x"], "none.yaml does not exist"),
        (["train", "--recipe", "none.yaml"], "none.yaml does not exist"),
        (["train", "--drafter", "lstm", "--loss", "ce", "--kd_loss", "fkl"], "two names"),
        (["train", "--drafter", "lstm", "--kd_temp", "8"], "belongs to a divergence"),
        (["train", "--drafter", "lstm", "--kd_loss", "fkl", "--kd_temp", "0"], "above 0"),
        (["train", "--drafter", "lstm", "--batch", "0"], "at least 1"),
        (["train", "--drafter", "lstm", "--limit", "0", "--scale", "0.01"], "--limit 0 takes all"),
        (["pseudo", "--limit", "0", "--scale", "0.01"], "--limit 0 takes all"),
        (["train", "--drafter", "lstm", "--learning_rate", "nan"], "learning_rate=nan"),
        (["train", "--drafter", "lstm", "--seed", "-1"], "--seed -1: give 0 or more"),
        (["train", "--drafter", "lstm", "--seed", f"{10**20}"], "0 or more, and less than 2,147,"),
        (["train", "--drafter", "lstm", "--validate_every", "-1"], "--validate_every -1: give 0"),
        (["pseudo", "--temperature", "nan"], "--temperature nan: give 0 or more"),
        (["pseudo", "--temperature", "1e-40"], "--temperature 1e-40: give 0, which is greedy"),
        (["train", "--drafter", "lstm", "--method", "seq_kd"], "fastllm pseudo"),
        (["train", "--drafter", "lstm", "--pseudo_dataset_path", "none"], "holds no texts"),
        (["train", "--drafter", "lstm", "--device", "cuda:77"], "no such device"),
        (["train", "--drafter", "lstm", "--start", "none"], "not a whole lstm"),
        (["train", "--drafter", "lstm", "--start", "target"], "--start target belongs to"),
        (["train", "--drafter", "cnn", "--layers", "2"], "--layers belongs to --drafter t5"),
        (["train", "--drafter", "ngram", "--as_target"], "--as_target belongs to --drafter t5"),
        (["train", "--drafter", "t5", "--start", "target", "--layers", "3"], "give 1 to 2"),
        (["train", "--drafter", "t5", "--layers", "0"], "at least 1"),
        (["train", "--drafter", "ngram", "--kd_loss", "fkl"], "does not belong to an n-gram"),
        (["train", "--drafter", "ngram", "--method", "mixed_gkd"], "counts texts"),
        (["train", "--drafter", "ngram", "--ngram_n", "9"], "between 1 and 4"),
        (["pseudo", "--out", "x"], "--data is missing"),
        (["pseudo", "--data", "none", "--out", "none/x"], "none has no train.jsonl"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str],
    why: str,
    target: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--drafter" in arguments or "pseudo" in arguments:
        arguments = [*arguments, "--target", str(target)]
    if "--drafter" in arguments and "--data" not in arguments:
        arguments = [*arguments, "--data", str(data), "--exp_name", "x"]
    assert main(arguments) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"updats": 3}, "no option 'updats' of train"),
        ({"updates": "many"}, "invalid int value"),
        ({"drafter": "guess"}, "invalid choice"),
        ({"updates": [1, 2]}, "needs one value"),
        ({"train": {"shard_size": 3}}, "no option 'shard_size' of train"),
        ({"train": 3}, "needs names and values"),
    ],
)
def test_a_wrong_recipe_is_refused(
    tree: dict[str, object], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert main(["train", "--recipe", str(path)]) == 2
    shown = capsys.readouterr().err
    assert why in shown
    assert "wrong.yaml" in shown
