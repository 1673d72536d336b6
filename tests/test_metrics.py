import numpy as np
import pytest

from fastllm import metrics
from fastllm.errors import SettingsError
from fastllm.trace import DecodingConfig, Judged, Round, Trace


def judged(*tokens: int) -> tuple[Judged, ...]:
    return tuple(Judged(token, 0.5, 0.5, 0.1, 1.0) for token in tokens)


# 3 + 1 + 1 + 2 tokens in 4 calls; 3 + 3 + 0 + 2 drafted; 2 + 0 + 0 + 2 accepted.
ROUNDS = (
    Round("speculative", (5, 6, 7), judged(5, 6, 7), 2, 8, total_seconds=0.2),
    Round("speculative", (5, 6, 7), judged(5), 0, 9, total_seconds=0.2),
    Round("plain", extra=4, total_seconds=0.1),
    Round("speculative", (5, 1), judged(5, 1), 2, None, total_seconds=0.2),
)


def trace(rounds: tuple[Round, ...] = ROUNDS, **values: object) -> Trace:
    basics = {"source": "s", "config": DecodingConfig(), "target": "t", "drafter": "d"}
    return Trace(**{**basics, "vocabulary": "v", "rounds": rounds, **values})


def test_the_numbers_of_a_trace_by_hand() -> None:
    run = trace(target_encode_seconds=0.25, drafter_encode_seconds=0.05)
    assert metrics.target_calls(run) == 4
    assert metrics.token_count(run) == len(run.tokens) == 7
    assert metrics.tau(run) == 7 / 4
    assert metrics.drafted(run) == 8
    assert metrics.accepted(run) == 4
    assert metrics.judged_by_position(run.rounds) == [(3, 2), (2, 2), (1, 0)]
    assert metrics.decode_seconds(run) == pytest.approx(0.7)
    assert metrics.seconds_with_encoding(run) == pytest.approx(1.0)


def test_tests_behind_the_accepted_prefix_are_no_judged_positions() -> None:
    # The block rule tests every draft: (1) all stand, (2) one does, (3) none, of three each.
    rounds = [Round("speculative", (5, 6, 7), judged(5, 6, 7), stood, 8) for stood in (3, 1, 0)]
    assert metrics.judged_by_position(rounds) == [(3, 2), (2, 1), (1, 1)]
    chances = metrics.reached(metrics.judged_by_position(rounds))
    assert chances == pytest.approx([2 / 3, 1 / 3, 1 / 3])


def test_a_trace_without_rounds_has_no_tau() -> None:
    assert metrics.tau(trace(())) == 0
    assert metrics.judged_by_position(()) == []


def test_a_speed_up_counts_the_encoding() -> None:
    plain = trace((Round("plain", extra=1, total_seconds=0.2),) * 7, target_encode_seconds=0.6)
    assert metrics.speed_up(trace(target_encode_seconds=0.3), plain) == pytest.approx(2.0)


def test_a_speed_up_is_of_as_many_tokens() -> None:
    plain = trace((Round("plain", extra=1, total_seconds=0.2),) * 14, target_encode_seconds=0.6)
    found = metrics.speed_up(trace(target_encode_seconds=0.6), plain)  # 7 tokens in 0.7 seconds
    assert found == pytest.approx(3.4 / 2.0)


@pytest.mark.parametrize("name", ["source", "target", "hardware"])
def test_a_speed_up_compares_like_with_like(name: str) -> None:
    with pytest.raises(SettingsError, match=f"differ in their {name}"):
        metrics.speed_up(trace(**{name: "another"}), trace())


def test_expected_tau() -> None:
    assert metrics.expected_tau(0, 5) == 1
    assert metrics.expected_tau(1, 5) == 6
    alpha, gamma = 0.65, 5
    assert metrics.expected_tau(alpha, gamma) == pytest.approx(
        (1 - alpha ** (gamma + 1)) / (1 - alpha)
    )


def test_expected_speed_up() -> None:
    assert metrics.expected_speed_up(3, 5, 0.1, 1.5) == pytest.approx(1.5)


def test_repeated_and_copied_4grams() -> None:
    assert metrics.words("It's 3 o'clock: RUN, run!") == ["it's", "3", "o'clock", "run", "run"]
    once = metrics.words("the mill burned down on friday")
    twice = once + once
    assert metrics.repeated_share(once) == 0
    assert not metrics.loops(once)
    assert metrics.loops(twice)
    # Nine 4-grams; three stood there before.
    assert metrics.repeated_share(twice) == pytest.approx(3 / 9)
    assert metrics.repeated_share(once[:3]) == 0
    article = metrics.words("Nobody saw how the mill burned down.")
    assert metrics.copied_share(once, article) == pytest.approx(1 / 3)
    assert metrics.copied_share(once[:3], article) == 0
    assert metrics.copied_share([1, 2, 3, 4, 5], [0, 1, 2, 3, 4]) == 0.5


def test_intervals_repeat_and_hold_the_value() -> None:
    values = list(np.random.default_rng(0).normal(3, 1, 50))
    first, again = metrics.mean(values), metrics.mean(values)
    assert first == again
    assert first.value == pytest.approx(np.mean(values))
    assert first.low < first.value < first.high
    assert metrics.mean([2.0] * 10) == metrics.Estimate(2.0, 2.0, 2.0)


def test_a_95_percent_interval_covers_about_95_percent() -> None:
    random = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        estimate = metrics.mean(random.normal(1, 1, 40).tolist())
        covered += estimate.low <= 1 <= estimate.high
    assert 180 <= covered <= 198


def test_a_ratio_is_of_sums_and_keeps_pairs_together() -> None:
    assert metrics.ratio([1, 3], [2, 2]).value == 1.0
    under = np.random.default_rng(1).uniform(1, 100, 30)
    exact = metrics.ratio((2 * under).tolist(), under.tolist())
    assert (exact.value, exact.low, exact.high) == pytest.approx((2, 2, 2))
    assert metrics.ratio([0, 0], [0, 0]) == metrics.Estimate(0, 0, 0)


def test_paired_comparisons_are_tighter_than_unpaired_ones() -> None:
    random = np.random.default_rng(2)
    before = random.uniform(10, 100, 60)
    after = before - 5 + random.normal(0, 1, 60)
    difference = metrics.paired_difference(after.tolist(), before.tolist())
    assert difference.low < -5 + 0.5
    assert difference.high < -4
    assert difference.high - difference.low < 1
    share = metrics.ratio(after.tolist(), before.tolist())
    assert share.value == pytest.approx(after.sum() / before.sum())
    assert share.low < share.value < share.high < 1


def test_estimates_need_numbers() -> None:
    with pytest.raises(SettingsError, match="at least one article"):
        metrics.mean([])
    with pytest.raises(SettingsError, match="2 and 1 numbers"):
        metrics.ratio([1, 2], [1])
    with pytest.raises(SettingsError, match="1 and 2 numbers"):
        metrics.paired_difference([1, 2], [1])


def test_reached_is_the_product_of_the_shares_and_alpha_to_the_power_where_independent() -> None:
    assert metrics.reached([(4, 2), (2, 1)]) == [0.5, 0.25]
    assert metrics.reached([]) == []
    # Half of the drafts are one token long: they say nothing of the second position.
    assert metrics.reached([(10, 8), (4, 3)]) == pytest.approx([0.8, 0.6])
    random = np.random.default_rng(3)
    rounds = []
    for _ in range(4000):
        stood = int(np.argmin([*(random.random(5) < 0.7), False]))
        rounds.append(Round("speculative", (5,) * 5, judged(*(5,) * min(stood + 1, 5)), stood, 6))
    chances = metrics.reached(metrics.judged_by_position(rounds))
    assert chances == pytest.approx([0.7**place for place in range(1, 6)], abs=0.03)


def test_ratios_are_compared_by_their_sums_in_pairs() -> None:
    after, before = ([3.0, 5.0], [12.0, 20.0]), ([6.0, 10.0], [12.0, 20.0])
    share = metrics.ratio_of_ratios(after, before)
    assert (share.value, share.low, share.high) == pytest.approx((0.5, 0.5, 0.5))
    difference = metrics.difference_of_ratios(after, before)
    assert difference.value == pytest.approx(8 / 32 - 16 / 32)
    longer = ([6.0, 10.0], [24.0, 40.0])
    assert metrics.ratio_of_ratios(longer, before).value == pytest.approx(0.5)
    assert metrics.ratio_of_ratios(([0.0], [0.0]), ([0.0], [0.0])) == metrics.Estimate(0, 0, 0)
    with pytest.raises(SettingsError, match="2 and 2 and 1 and 2 numbers"):
        metrics.difference_of_ratios(after, ([1.0], [1.0, 2.0]))


def test_an_interval_lies_on_one_side_or_holds_the_level() -> None:
    sides = [metrics.Estimate(2, low, high).away_from(1) for low, high in ((2, 3), (0, 3), (0, 1))]
    assert sides == [1, 0, 0]
    assert metrics.Estimate(0.5, 0.4, 0.9).away_from(1) == -1


# Costs.


def test_the_cost_of_a_token_more_is_the_slope_through_one_token() -> None:
    assert metrics.call_cost({1: 0.01, 4: 0.013}) == pytest.approx(0.1)
    assert metrics.call_cost({1: 0.01, 2: 0.012, 3: 0.012}) == pytest.approx((0.2 + 2 * 0.2) / 5)
    assert metrics.call_cost({1: 0.01, 4: 0.009}) == 0, "noise is no discount"
    for few in ({}, {1: 0.01}, {2: 0.01, 3: 0.01}):
        with pytest.raises(SettingsError, match="calls of one token and of several"):
            metrics.call_cost(few)
