"""Articles chosen for labelling: by the drafter's own confidence, with a random arm."""

import json
from pathlib import Path

import pytest
import torch

from fastllm.cli.main import main
from fastllm.data.tokens import TokenPairs, write_pairs
from fastllm.distill.select import choose, confidences
from fastllm.drafters.lstm import LstmDrafter
from fastllm.drafters.neural import roll_out
from fastllm.errors import NotFiniteError, SettingsError
from fastllm.targets.hub import HubTarget

SURE = [-0.1, -3.0, -0.2, -2.0, -0.3, -1.0, -0.4, -0.5]


def test_the_least_sure_are_chosen_and_the_random_arm_does_not_look() -> None:
    assert choose(SURE, 3, 0.0, 0) == {1: "uncertain", 3: "uncertain", 5: "uncertain"}
    for seed in range(5):
        mixed = choose(SURE, 4, 0.5, seed)
        control = [index for index, arm in mixed.items() if arm == "random"]
        others = [index for index in range(8) if index not in control]
        unsure = sorted(others, key=lambda index: SURE[index])[:2]
        assert sorted(unsure) == [index for index, arm in mixed.items() if arm == "uncertain"]
        turned = choose([-value for value in SURE], 4, 0.5, seed)
        assert control == [index for index, arm in turned.items() if arm == "random"]
    assert set(choose(SURE, 5, 1.0, 0).values()) == {"random"}


def test_what_a_pool_cannot_give_is_refused() -> None:
    with pytest.raises(SettingsError, match="larger --pool"):
        choose(SURE, 9, 0.5, 0)
    with pytest.raises(SettingsError, match="0 to 1"):
        choose(SURE, 2, 1.5, 0)


def test_a_drafter_that_computes_no_numbers_chooses_nothing() -> None:
    for bad in (float("nan"), float("-inf")):
        with pytest.raises(NotFiniteError, match="weights are damaged"):
            choose([*SURE, bad], 3, 0.0, 0)


@pytest.fixture
def drafter(tiny_target: HubTarget) -> LstmDrafter:
    return LstmDrafter.fresh(
        int(tiny_target.model.config.vocab_size),
        seed=1,
        vocabulary=tiny_target.vocabulary.fingerprint,
        width=12,
    )


def test_confidence_is_the_mean_log_probability_of_its_own_text(
    drafter: LstmDrafter, tmp_path: Path
) -> None:
    articles = [[5, 6, 7, 8, 9, 1], [11, 12, 1], [20, 21, 22, 23, 1]]
    rows = ((str(index), ids, []) for index, ids in enumerate(articles))
    write_pairs(tmp_path, rows, {})
    found = confidences(
        drafter.model, TokenPairs(tmp_path), start_id=0, end_id=1, length=6, batch=2
    )
    for ids, sure in zip(articles, found, strict=True):
        source = torch.tensor([ids])
        with torch.no_grad():
            (text,) = roll_out(
                drafter.model, source, start_id=0, end_id=1, length=6, temperature=0.0,
                generator=torch.Generator(),
            )  # fmt: skip
            chances = drafter.model(source, torch.tensor([[0, *text[:-1]]])).log_softmax(-1)[0]
        own = [float(chances[place, token]) for place, token in enumerate(text)]
        assert sure == pytest.approx(sum(own) / len(own), abs=1e-4)


def test_the_command_records_both_arms(
    drafter: LstmDrafter,
    target: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drafter.save(tmp_path / "lstm")
    out = tmp_path / "pseudo"
    asked = [
        *("pseudo", "--target", str(target), "--data", str(data), "--out", str(out)),
        *("--limit", "6", "--select", "uncertain", "--length", "12", "--device", "cpu"),
        *("--ckpt_path", str(tmp_path / "lstm"), "--validation_articles", "0"),
    ]
    assert main(asked) == 2
    assert "--pool is missing" in capsys.readouterr().err
    asked += ["--pool", "12", "--random", "0.5", "--scale", "1"]
    assert main(asked) == 0
    chosen = json.loads((out / "selection.json").read_text())
    arms = [row["arm"] for row in chosen]
    written = TokenPairs(out)
    assert arms.count("random") == len(arms) // 2
    assert [row["id"] for row in chosen] == written.ids == TokenPairs(out / "articles").ids
    assert main(asked) == 0, "the same command finds everything done"
    assert main([*asked, "--random", "1"]) == 2
    assert "chosen otherwise" in capsys.readouterr().err
