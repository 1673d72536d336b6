"""The best temperature of drafts: by hand on tables, and kept where a drafter finds it again."""

from pathlib import Path

import pytest
import torch
from fakes import FakeTarget, RuleDrafter, random_rule

from fastllm.checkpoints import load_drafter
from fastllm.data.articles import Article
from fastllm.drafters import Drafter
from fastllm.drafters.lstm import LstmDrafter
from fastllm.drafters.ngram import NgramDrafter
from fastllm.drafters.t5 import T5Drafter
from fastllm.errors import DataError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig
from tools import draft_temperature


def test_a_drafter_that_is_too_warm_is_cooled_to_the_target() -> None:
    """The drafter's logits are half the target's: at temperature 0.5 its q is p itself."""
    rule = random_rule(6, seed=3)
    half = RuleDrafter(lambda written: [x / 2 for x in rule(written)])
    found = draft_temperature.alphas(
        FakeTarget(rule),
        {"half": half},
        [Article("one", "abc"), Article("two", "cab")],
        (0.0, 0.25, 0.5, 1.0),
        DecodingConfig(temperature=1.0, max_new_tokens=12),
    )
    by = found["half"]
    assert by[0.5] == pytest.approx(1, abs=1e-5)
    assert max(by[0.0], by[0.25], by[1.0]) < 0.95
    assert draft_temperature.best(by) == 0.5
    assert draft_temperature.table(found).splitlines()[-1].endswith("| 0.5 |")
    with pytest.raises(DataError, match="there is no article"):
        draft_temperature.alphas(FakeTarget(rule), {"half": half}, [])


@pytest.mark.parametrize("family", ["lstm", "t5", "ngram"])
def test_what_is_kept_is_loaded_and_saved_again(family: str, tmp_path: Path) -> None:
    drafters: dict[str, Drafter] = {
        "lstm": LstmDrafter.fresh(24, start="ordinary", width=12, hidden=8, mixing=8),
        "t5": T5Drafter.fresh(
            24, start="ordinary", width=12, heads=2, layers=1, feed_forward=8, vocabulary="x"
        ),
        "ngram": NgramDrafter.fit([[3, 4, 5]], order=2, vocabulary_size=24),
    }
    folder = tmp_path / "one"
    drafters[family].save(folder)
    assert load_drafter(folder, device="cpu").draft_temperature is None
    weights = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "config.json"}
    draft_temperature.keep(folder, 0.3)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name in weights} == weights
    kept = load_drafter(folder, device="cpu")
    assert kept.draft_temperature == 0.3
    kept.save(tmp_path / "two")
    assert load_drafter(tmp_path / "two", device="cpu").draft_temperature == 0.3


def test_a_table_draws_at_its_own_temperature() -> None:
    table = NgramDrafter.fit(
        [[3, 4], [3, 4], [3, 5]], order=2, vocabulary_size=6, draft_temperature=0.5
    )
    session = table.begin(Encoding([3, 1], torch.zeros(1, 2, 1), 0.0))
    uniforms = torch.tensor([0.5], dtype=torch.float64)
    sampled = session.draft([0, 3], 1, DecodingConfig(temperature=1.0), uniforms)
    squared = torch.from_numpy(table.row([0, 3])) ** 2
    wanted = (squared / squared.sum()).float()
    assert torch.allclose(sampled.q.row(0, 6), wanted, atol=1e-6)
