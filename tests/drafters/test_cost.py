"""What a drafter says it costs."""

import time
from pathlib import Path

import pytest
import torch

from fastllm.drafters.combined import CombinedDrafter
from fastllm.drafters.cost import bytes_of, cost_of, weights_in
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.lstm import LstmDrafter
from fastllm.drafters.ngram import NgramDrafter
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from tests.fakes import RuleDrafter, random_rule

ARTICLE = Encoding([5, 6, 7, 8, 9, 10, 11, 1], torch.zeros(1, 8, 1), 0.0, end_id=1)


def test_weights_and_bytes(tmp_path: Path) -> None:
    network = LstmDrafter.fresh(50, width=24, hidden=16, mixing=16, places=8)
    network.save(tmp_path)
    stored = (tmp_path / "model.safetensors").stat().st_size
    assert weights_in(network) == sum(weight.numel() for weight in network.model.parameters())
    assert bytes_of(network) == stored > 2 * weights_in(network)
    assert weights_in(CombinedDrafter(network)) == weights_in(network)
    assert bytes_of(CombinedDrafter(network)) == stored
    counted = NgramDrafter.fit([[5, 6, 7, 1]], order=2, vocabulary_size=50)
    assert weights_in(counted) == sum(counted.counts.entries) > 0
    assert bytes_of(counted) > 0
    assert (weights_in(ArticleLookup()), bytes_of(ArticleLookup())) == (0, 0)


def test_the_seconds_are_those_of_the_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each look at the clock moves it on by 3 microseconds; so does nothing else.
    now = iter(range(0, 10**9, 3000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now) / 1e9)
    found = cost_of(RuleDrafter(random_rule(12)), [ARTICLE], gamma=3, length=10)
    assert found.begin_microseconds == pytest.approx(3)
    assert found.step_microseconds == pytest.approx(1), "three tokens a draft"
    silent = cost_of(ArticleLookup(min_match=99), [ARTICLE], gamma=3, length=10)
    assert silent.step_microseconds == pytest.approx(3), "a draft of nothing costs what it costs"
    assert silent.parameters == silent.bytes == 0
    with pytest.raises(SettingsError, match="0 articles"):
        cost_of(ArticleLookup(), [])
