"""What a drafter says it costs."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fastllm.decoding.proposals import Draft, OneHotProposal
from fastllm.drafters import Drafter
from fastllm.drafters.combined import CombinedDrafter
from fastllm.drafters.cost import Cost, CostMeter, bytes_of
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.lstm import LstmDrafter
from fastllm.drafters.ngram import NgramDrafter
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig
from tests.fakes import RuleDrafter, random_rule

ARTICLE = Encoding([5, 6, 7, 8, 9, 10, 11, 1], torch.zeros(1, 8, 1), 0.0, end_id=1)
THREE = DecodingConfig(gamma=3)


def test_weights_and_bytes(tmp_path: Path) -> None:
    network = LstmDrafter.fresh(50, width=24, hidden=16, mixing=16, places=8)
    network.save(tmp_path)
    stored = (tmp_path / "model.safetensors").stat().st_size
    assert network.parameters == sum(weight.numel() for weight in network.model.parameters())
    assert bytes_of(network) == stored > 2 * network.parameters
    lookup = ArticleLookup()
    for both in (CombinedDrafter(lookup, network), CombinedDrafter(network, lookup)):
        assert both.parameters == network.parameters
        assert bytes_of(both) == stored
    twice = CombinedDrafter(network, network)
    assert (twice.parameters, bytes_of(twice)) == (2 * network.parameters, 2 * stored)
    counted = NgramDrafter.fit([[5, 6, 7, 1]], order=2, vocabulary_size=50)
    assert counted.parameters == sum(counted.counts.entries) > 0
    assert bytes_of(counted) > 0
    assert (ArticleLookup().parameters, bytes_of(ArticleLookup())) == (0, 0)


def cost_of(drafter: Drafter) -> Cost:
    meter = CostMeter(drafter, THREE, length=10)
    meter.measure(ARTICLE)
    return meter.cost()


def test_the_seconds_are_those_of_the_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each look at the clock moves it on by 3 microseconds; so does nothing else.
    now = iter(range(0, 10**9, 3000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now) / 1e9)
    found = cost_of(RuleDrafter(random_rule(12)))
    assert found.begin_microseconds == pytest.approx(3)
    assert found.step_microseconds == pytest.approx(1), "three tokens a draft"
    silent = cost_of(ArticleLookup(min_match=99))
    assert silent.step_microseconds == pytest.approx(3), "a draft of nothing costs what it costs"
    assert silent.parameters == silent.bytes == 0
    with pytest.raises(SettingsError, match="length=0"):
        CostMeter(ArticleLookup(), length=0)


class EndingDrafter(Drafter):
    """Drafts a word and the end of the text, then the end at once, in turns."""

    name = vocabulary = ""

    def __init__(self) -> None:
        self.added: list[list[int]] = []

    def begin(self, encoding: Encoding) -> "EndingDrafter":
        return self

    def draft(self, prefix: Sequence[int], k: int, config: Any, uniforms: torch.Tensor) -> Draft:
        tokens = [1, 9] if len(self.added) % 2 else [20, 1]
        return Draft(tokens, OneHotProposal(torch.tensor(tokens)))

    def accept(self, tokens: Sequence[int]) -> None:
        self.added.append(list(tokens))


def test_the_text_goes_on_where_a_drafter_would_end_it() -> None:
    drafter = EndingDrafter()
    meter = CostMeter(drafter, DecodingConfig(gamma=2), length=4)
    with pytest.raises(SettingsError, match="no article"):
        meter.cost()
    meter.measure(ARTICLE)
    assert drafter.added == [[20], [ARTICLE.source_ids[2]], [20], [ARTICLE.source_ids[4]]]
    assert meter.cost().step_microseconds > 0


def test_a_text_is_followed_as_greedy_speculation_does() -> None:
    drafter = EndingDrafter()  # [20, 1], then [1, 9], in turns
    text = [20, 1, 1, 9, 7, 5, 20, 1]
    meter = CostMeter(drafter, DecodingConfig(gamma=2))
    meter.measure(ARTICLE, text)
    # Both stand, and one more; then neither, three times; then both, at the end.
    assert drafter.added == [[20, 1, 1], [9], [7], [5], [20, 1]]
    assert sum(drafter.added, []) == text


def test_what_was_only_to_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock runs a thousand times slower once it is warm.
    now, pace = [0], [3_000_000]

    def clock() -> float:
        now[0] += pace[0]
        return now[0] / 1e9

    monkeypatch.setattr(time, "perf_counter", clock)
    meter = CostMeter(RuleDrafter(random_rule(12)), THREE, length=10)
    meter.warm_up(ARTICLE)
    pace[0] = 3000
    meter.measure(ARTICLE)
    assert meter.cost().begin_microseconds == pytest.approx(3)
    assert meter.cost().step_microseconds == pytest.approx(1)
