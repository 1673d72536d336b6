"""The two loops: greedy texts, ends, lengths, caches, seeds; against transformers and by count."""

import copy
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from fakes import (
    END,
    START,
    FakeSession,
    FakeTarget,
    HesitantSession,
    Rule,
    RuleSession,
    ScriptedDrafter,
    ScriptedSession,
    always,
    never,
    random_rule,
    sometimes,
    text_rule,
)

from fastllm.decoding import autoregress, speculate
from fastllm.decoding.distributions import distribution, forbid
from fastllm.decoding.race import Race
from fastllm.decoding.rounds import BEST
from fastllm.decoding.rules import Rules
from fastllm.drafters import DrafterSession
from fastllm.drafters.lookup import ArticleLookup
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig, Round

SIZE = 12
TEXT = [4, 7, 4, 9, 3, 5, 7, 4, 9, 8, 10, 11, 5, END]
IDS = {"start_id": START, "end_id": END}


def plain(session: FakeSession, config: DecodingConfig) -> list[Round]:
    return list(autoregress(session, config, **IDS))


def written(rounds: Sequence[Round]) -> list[int]:
    return [token for entry in rounds for token in entry.tokens]


def begin(drafter: ScriptedDrafter) -> DrafterSession:
    return ScriptedSession(drafter.script)


def test_plain_decoding_writes_a_token_a_call() -> None:
    session = FakeSession(text_rule(TEXT, SIZE))
    rounds = plain(session, DecodingConfig())
    assert written(rounds) == TEXT
    assert session.calls == len(rounds) == len(TEXT)
    assert {entry.kind for entry in rounds} == {"plain"}
    assert all(entry.extra_p == 1.0 for entry in rounds)


@pytest.mark.parametrize("gamma", range(1, 9))
@pytest.mark.parametrize("make", [always, never, sometimes])
def test_greedy_speculation_writes_the_same_text(make: type, gamma: int) -> None:
    session = FakeSession(text_rule(TEXT, SIZE))
    rounds = list(speculate(session, begin(make(TEXT)), DecodingConfig(gamma=gamma), **IDS))
    assert written(rounds) == TEXT
    assert session.calls == len(rounds)


@pytest.mark.parametrize("gamma", range(1, 9))
def test_a_drafter_that_is_always_right_needs_the_fewest_calls(gamma: int) -> None:
    session = FakeSession(text_rule(TEXT, SIZE))
    rounds = list(speculate(session, begin(always(TEXT)), DecodingConfig(gamma=gamma), **IDS))
    assert len(rounds) == -(-len(TEXT) // (gamma + 1))
    assert all(entry.accepted == len(entry.drafted) for entry in rounds)


def test_a_drafter_that_is_never_right_costs_a_call_a_token() -> None:
    session = FakeSession(text_rule(TEXT, SIZE))
    rounds = list(speculate(session, begin(never(TEXT)), DecodingConfig(gamma=3), **IDS))
    assert len(rounds) == len(TEXT)
    for entry in rounds:
        assert entry.accepted == 0
        assert entry.extra_kind == "correction"
        assert len(entry.judged) == 1, "what stands behind a refusal is not judged"


def test_a_silent_drafter_leaves_plain_rounds() -> None:
    silent = ScriptedDrafter(lambda text, k: [])
    session = FakeSession(text_rule(TEXT, SIZE))
    rounds = list(speculate(session, begin(silent), DecodingConfig(), **IDS))
    assert written(rounds) == TEXT
    assert {(entry.kind, entry.extra_kind) for entry in rounds} == {("plain", "plain")}


@pytest.mark.parametrize("length", range(1, 8))
@pytest.mark.parametrize("gamma", range(1, 9))
@pytest.mark.parametrize("make", [always, never, sometimes])
def test_the_length_is_exact(make: type, gamma: int, length: int) -> None:
    config = DecodingConfig(gamma=gamma, max_new_tokens=length)
    assert written(plain(FakeSession(text_rule(TEXT, SIZE)), config)) == TEXT[:length]
    session = FakeSession(text_rule(TEXT, SIZE))
    rounds = list(speculate(session, begin(make(TEXT)), config, **IDS))
    assert written(rounds) == TEXT[:length]


@pytest.mark.parametrize("gamma", range(1, 9))
def test_the_text_stops_at_an_end_inside_an_accepted_draft(gamma: int) -> None:
    for length in range(1, 8):
        text = [*TEXT[: length - 1], END]
        session = FakeSession(text_rule(text, SIZE))
        drafting = begin(always(text))  # it goes on behind the end
        rounds = list(speculate(session, drafting, DecodingConfig(gamma=gamma), **IDS))
        assert written(rounds) == text
        last = rounds[-1]
        assert last.drafted.count(END) <= 1, "what came behind the end is not recorded"
        if END in last.drafted:
            assert last.drafted[-1] == END
            assert last.accepted == len(last.drafted)
            assert (last.extra, last.extra_p, last.extra_best, last.extra_kind) == (
                (None, None, (), None)
            )


@pytest.mark.parametrize("gamma", [1, 3, 8])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_any_of_several_ends_ends_the_text(temperature: float, gamma: int) -> None:
    ends = {"start_id": START, "end_id": (END, 8, 3)}
    config = DecodingConfig(gamma=gamma, temperature=temperature)
    for end in (END, 8, 3):
        text = [4, 7, 4, 9, end]
        session = FakeSession(text_rule([*text, 5, 6], SIZE))
        alone = list(autoregress(session, config, **ends))
        session = FakeSession(text_rule([*text, 5, 6], SIZE))
        drafting = begin(always([*text, 5, 6]))  # it goes on behind the end
        rounds = list(speculate(session, drafting, config, **ends))
        assert written(rounds) == written(alone) == text
        assert not {5, 6} & {token for entry in rounds for token in entry.drafted}
    config = replace(config, min_new_tokens=7, no_repeat_ngram=0)
    rounds = list(autoregress(FakeSession(text_rule([3] * 20, SIZE)), config, **ends))
    assert not {END, 8, 3} & set(written(rounds)[:7]), "the least length bars them all"
    assert written(rounds)[7:] == [3]


def test_a_refused_end_does_not_end_the_text() -> None:
    hasty = ScriptedDrafter(lambda text, k: [END])
    session = FakeSession(text_rule(TEXT, SIZE))
    rounds = list(speculate(session, begin(hasty), DecodingConfig(), **IDS))
    assert written(rounds) == TEXT
    assert rounds[-1].drafted == (END,)
    assert rounds[-1].accepted == 1


def test_drafter_and_target_are_told_the_whole_text() -> None:
    # RuleSession checks at every draft that it was told each token, FakeSession that it is asked
    # something at every call; what a rule answers depends on the whole prefix.
    rule = random_rule(SIZE, seed=5)
    for temperature in (0.0, 1.0):
        config = DecodingConfig(gamma=4, temperature=temperature, max_new_tokens=30, seed=4)
        session, drafting = FakeSession(rule), RuleSession(random_rule(SIZE, seed=5, scale=1.0))
        rounds = list(speculate(session, drafting, config, **IDS))
        assert drafting.told == written(rounds)
        # The last token was never read: nothing had to be said behind it.
        assert session.ids == [START, *written(rounds)][: len(session.ids)]


def test_greedy_speculation_follows_a_target_that_looks_at_everything() -> None:
    for seed in range(10):
        rule = random_rule(SIZE, seed=seed)
        alone = written(plain(FakeSession(rule), DecodingConfig(max_new_tokens=25)))
        for gamma, other in product((1, 3, 8), (seed, seed + 1)):
            drafting = RuleSession(random_rule(SIZE, seed=other))
            config = DecodingConfig(gamma=gamma, max_new_tokens=25)
            rounds = list(speculate(FakeSession(rule), drafting, config, **IDS))
            assert written(rounds) == alone
            if other == seed:
                assert all(entry.accepted == len(entry.drafted) for entry in rounds)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hesitant": True},
        {"hesitant": True, "verification": "token", "no_repeat_ngram": 2},
        {"top_k": 3},
        {"top_p": 0.7},
        {"draft_temperature": 0.4},
        {"draft_temperature": 0.4, "verification": "token", "hesitant": True},
        {"draft_temperature": 0.0},
        {"draft_temperature": 1.7, "top_p": 0.8},
        {"no_repeat_ngram": 1, "min_new_tokens": 3},
        {"no_repeat_ngram": 2, "min_new_tokens": 2, "top_p": 0.9},
    ],
)
def test_sampled_texts_follow_the_target(settings: dict[str, Any]) -> None:
    """1,200 seeds against exact chances: the loop hands each decision a uniform of its own."""
    size, length, runs = 5, 3, 1200
    settings = dict(settings)
    drafts = HesitantSession if settings.pop("hesitant", False) else RuleSession
    rule, drafter = random_rule(size, seed=2), random_rule(size, seed=9)
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(runs):
        config = DecodingConfig(
            gamma=2, temperature=1.0, max_new_tokens=length, seed=seed, **settings
        )
        rounds = speculate(FakeSession(rule), drafts(drafter), config, statistics=False, **IDS)
        counts[tuple(written(list(rounds)))] += 1
    expected = {text: runs * chance for text, chance in texts(rule, config, (), length)}
    assert set(counts) <= set(expected)
    # Rare texts are put together, so that chi-square holds.
    common = {text: count for text, count in expected.items() if count >= 5}
    observed = [counts[text] for text in common] + [
        sum(count for text, count in counts.items() if text not in common)
    ]
    wanted = [*common.values(), runs - sum(common.values())]
    pairs = [(o, e) for o, e in zip(observed, wanted, strict=True) if e > 0.5]
    chi_square = sum((o - e) ** 2 / e for o, e in pairs)
    freedom = len(pairs) - 1
    # Wilson and Hilferty: a normal deviate of 3.1 is one in a thousand.
    spread = 2 / (9 * freedom)
    deviate = ((chi_square / freedom) ** (1 / 3) - 1 + spread) / spread**0.5
    assert deviate < 3.1


def texts(
    rule: Rule, config: DecodingConfig, so_far: tuple[int, ...], length: int
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every text and its exact chance."""
    from_here = FakeSession(rule).forward([START, *so_far])[-1:]
    from_here = forbid(from_here, [Rules(END).banned([START, *so_far], config)])
    for token, chance in enumerate(distribution(from_here, config)[0].tolist()):
        if chance > 0:
            text = (*so_far, token)
            if token == END or len(text) == length:
                yield text, chance
            else:
                for longer, rest in texts(rule, config, text, length):
                    yield longer, chance * rest


def without_clocks(rounds: Sequence[Round]) -> list[tuple[object, ...]]:
    return [(r.kind, r.drafted, r.judged, r.accepted, r.extra, r.extra_p) for r in rounds]


def test_a_seed_gives_the_same_run_again_and_another_seed_another() -> None:
    def run(seed: int) -> list[tuple[object, ...]]:
        config = DecodingConfig(temperature=1.0, max_new_tokens=20, seed=seed)
        session = FakeSession(random_rule(SIZE, seed=1))
        drafting = RuleSession(random_rule(SIZE, seed=2))
        return without_clocks(list(speculate(session, drafting, config, **IDS)))

    torch.manual_seed(1)
    first = run(7)
    torch.manual_seed(2)  # nobody else's randomness comes in
    assert run(7) == first
    assert run(8) != first


@pytest.mark.parametrize("rule", ["token", "block"])
def test_statistics_are_shown_only_and_change_nothing(rule: str) -> None:
    def run(statistics: bool) -> list[Round]:
        config = DecodingConfig(
            temperature=0.8, top_p=0.9, max_new_tokens=15, seed=3, verification=rule
        )
        session = FakeSession(random_rule(SIZE, seed=1))
        drafting = RuleSession(random_rule(SIZE, seed=1, scale=1.2))
        return list(speculate(session, drafting, config, statistics=statistics, **IDS))

    shown, bare = run(True), run(False)
    assert written(shown) == written(bare)
    assert all(test.overlap is None for entry in bare for test in entry.judged)
    assert any(entry.judged for entry in shown)
    for entry in shown:
        assert bool(entry.extra_best) == (entry.extra is not None)
        for place, test in enumerate(entry.judged):
            assert 0 <= test.overlap <= 1 + 1e-6
            if rule == "token":
                assert test.threshold == pytest.approx(min(1, test.p / test.q))
                assert test.passed == (place < entry.accepted)
            assert test.token == entry.drafted[place]
            assert len(test.target_best) == len(test.drafter_best) == BEST
            chances = [chance for _, chance in test.target_best]
            assert chances == sorted(chances, reverse=True)
            assert 0 < test.p_unwarped < 1
            assert 0 < test.q_unwarped < 1


def test_a_block_round_holds_every_test() -> None:
    config = DecodingConfig(gamma=5, temperature=1.0, max_new_tokens=40)
    failed_before = False
    for seed in range(12):
        session = FakeSession(random_rule(SIZE, seed=seed))
        drafting = RuleSession(random_rule(SIZE, seed=seed, scale=1.1))
        run = speculate(session, drafting, replace(config, seed=seed), **IDS)
        for entry in run:
            assert tuple(test.token for test in entry.judged) == entry.drafted
            passed = [place for place, test in enumerate(entry.judged, 1) if test.passed]
            assert entry.accepted == max(passed, default=0), "the longest prefix that passes"
            failed_before |= len(passed) < entry.accepted
            if entry.judged:
                running = 1.0
                for test in entry.judged:
                    running = min(1.0, running * test.p / test.q)
                assert entry.judged[-1].threshold == pytest.approx(running)
    assert failed_before


def test_lenient_rounds_accept_more_and_write_another_text() -> None:
    def run(**settings: Any) -> list[Round]:
        config = DecodingConfig(temperature=1.0, max_new_tokens=100, **settings)
        session = FakeSession(random_rule(SIZE, seed=1, end_bias=-20.0))
        return list(speculate(session, RuleSession(random_rule(SIZE, seed=2)), config, **IDS))

    def share(rounds: list[Round]) -> float:
        return sum(r.accepted for r in rounds) / sum(len(r.drafted) for r in rounds)

    exact = run(verification="token")
    assert without_clocks(run(verification="lenient")) == without_clocks(exact)
    shares = [share(exact)]
    for form in ("linear", "square", "exponent"):
        lenient = run(verification="lenient", lenience=0.3, lenience_form=form)
        shares.append(share(lenient))
        for entry in lenient:
            assert len(entry.judged) == min(entry.accepted + 1, len(entry.drafted))
            for place, test in enumerate(entry.judged):
                raised = {"linear": test.p / 0.3, "square": test.p / 0.09}.get(form, test.p**0.3)
                assert test.threshold == pytest.approx(min(1, raised / test.q))
                assert test.passed == (place < entry.accepted)
    assert min(shares[1:]) > shares[0] + 0.05


def test_greedy_rounds_show_the_unwarped_probabilities() -> None:
    session = FakeSession(random_rule(SIZE, seed=1))
    drafting = RuleSession(random_rule(SIZE, seed=1, scale=1.2))
    config = DecodingConfig(max_new_tokens=10)
    tests = [t for entry in speculate(session, drafting, config, **IDS) for t in entry.judged]
    assert tests
    assert all(test.p in (0.0, 1.0) and test.q == 1.0 for test in tests)
    assert all(0 < test.p_unwarped < 1 for test in tests)


def test_clocks_add_up() -> None:
    session = FakeSession(text_rule(TEXT, SIZE), seconds=0.002)
    clock = 0.0
    for entry in speculate(session, begin(sometimes(TEXT)), DecodingConfig(gamma=2), **IDS):
        assert entry.start == pytest.approx(clock)
        assert entry.verify_seconds >= 0.002
        assert entry.draft_seconds + entry.verify_seconds <= entry.total_seconds
        clock += entry.total_seconds


def test_the_caller_may_stop_at_any_round() -> None:
    session = FakeSession(text_rule(TEXT, SIZE))
    rounds = autoregress(session, DecodingConfig(), **IDS)
    assert next(rounds).tokens == (TEXT[0],)
    rounds.close()
    assert session.calls == 1


# With a real model.


@pytest.fixture(scope="module")
def source_ids(tiny_target: HubTarget, story: str) -> list[int]:
    return tiny_target.vocabulary.encode(story, tiny_target.source_length).ids


@pytest.fixture(scope="module")
def generated(tiny_target: HubTarget, source_ids: list[int]) -> list[int]:
    """What transformers' own loop writes."""
    with torch.inference_mode():
        out = tiny_target.model.generate(
            input_ids=torch.tensor([source_ids]), do_sample=False, num_beams=1, max_new_tokens=40
        )
    return out[0, 1:].tolist()


def test_the_tiny_target_writes_something_worth_testing(generated: list[int]) -> None:
    assert len(generated) >= 20
    assert len(set(generated)) >= 8


def test_greedy_plain_decoding_equals_generate(
    tiny_target: HubTarget, source_ids: list[int], generated: list[int]
) -> None:
    session = tiny_target.begin(tiny_target.encode(source_ids))
    assert written(plain(session, DecodingConfig(max_new_tokens=40))) == generated


@pytest.mark.parametrize("gamma", range(1, 9))
@pytest.mark.parametrize("make", [always, never, sometimes])
def test_greedy_speculation_equals_generate(
    tiny_target: HubTarget, source_ids: list[int], generated: list[int], make: type, gamma: int
) -> None:
    session = tiny_target.begin(tiny_target.encode(source_ids))
    config = DecodingConfig(gamma=gamma, max_new_tokens=40)
    rounds = list(speculate(session, begin(make(generated)), config, **IDS))
    assert written(rounds) == generated


@pytest.mark.parametrize("least", [0, 12])
@pytest.mark.parametrize("engine", ["static", "transformers"])
def test_several_ends_are_those_of_generate(
    tiny_target: HubTarget, story: str, source_ids: list[int], generated: list[int],
    engine: str, least: int,
) -> None:  # fmt: skip
    """Words of the text made ends, and others for the text that comes of a least length."""
    model = copy.deepcopy(tiny_target.model)
    ends = [END, generated[15], generated[6], *range(100, 160)]
    ends = list(dict.fromkeys(ends))
    model.generation_config.eos_token_id = ends
    model.generation_config.min_new_tokens = least
    target = HubTarget(model, tiny_target.vocabulary, name="ends", source_length=96, engine=engine)
    assert (target.end_id, target.end_ids, target.unsupported) == (END, tuple(ends), ())
    with torch.inference_mode():
        wanted = model.generate(
            input_ids=torch.tensor([source_ids]), do_sample=False, num_beams=1, max_new_tokens=40
        )[0, 1:].tolist()
    assert wanted[-1] in ends[1:]
    assert least < len(wanted) < 40
    scripted = [always(generated), always(wanted), sometimes(generated), never(wanted)]
    for gamma in (1, 4, 8):
        config = DecodingConfig(gamma=gamma, max_new_tokens=40)
        race = Race(target, [None, ArticleLookup(), *scripted], story, config)
        list(race)
        for trace in race.traces():
            assert list(trace.tokens) == wanted, (trace.drafter, gamma)
            assert trace.ended == "end_of_text"


def test_a_rollback_equals_a_fresh_session(tiny_target: HubTarget, source_ids: list[int]) -> None:
    encoding = tiny_target.encode(source_ids)
    text = [0, 300, 310, 320, 330, 340, 350]
    for kept in range(len(text) + 1):
        session = tiny_target.begin(encoding)
        session.forward(text)
        session.keep(kept)
        assert session.length == kept
        fresh = tiny_target.begin(encoding)
        if kept:
            fresh.forward(text[:kept])
        again, wanted = session.forward([360, 370]), fresh.forward([360, 370])
        torch.testing.assert_close(again, wanted, rtol=1e-5, atol=1e-5)
        assert session.length == fresh.length == kept + 2


def test_reading_at_once_equals_reading_one_by_one(
    tiny_target: HubTarget, source_ids: list[int]
) -> None:
    encoding = tiny_target.encode(source_ids)
    text = [0, 300, 310, 320, 330]
    at_once = tiny_target.begin(encoding).forward(text)
    session = tiny_target.begin(encoding)
    one_by_one = torch.cat([session.forward([token]) for token in text])
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-5, atol=1e-5)


def test_sessions_of_one_encoding_do_not_disturb_each_other(
    tiny_target: HubTarget, source_ids: list[int]
) -> None:
    encoding = tiny_target.encode(source_ids)
    first, second = tiny_target.begin(encoding), tiny_target.begin(encoding)
    first.forward([0, 300])
    second.forward([0, 400, 410, 420])
    lone = tiny_target.begin(encoding)
    lone.forward([0, 300])
    torch.testing.assert_close(first.forward([310]), lone.forward([310]), rtol=1e-5, atol=1e-5)


def test_a_p_that_is_no_number_behind_a_refused_guess_is_not_told() -> None:
    """Under the block rule all of a draft is tested, also what stands behind its end."""

    def rule(written: tuple[int, ...]) -> Sequence[float]:
        if 7 in written:
            return [math.nan] * SIZE
        return [-50.0 if token == 7 else 0.0 for token in range(SIZE)]

    drafter = ScriptedDrafter(lambda written, k: [7] * k)
    config = DecodingConfig(temperature=1.0, verification="block", gamma=3, max_new_tokens=4)
    target = FakeTarget(rule)
    encoding = target.encode([2, 3])
    rounds = list(
        speculate(target.begin(encoding), drafter.begin(encoding), config, **IDS, statistics=False)
    )
    guessed = [entry for entry in rounds if entry.drafted]
    assert guessed
    for entry in guessed:
        assert entry.accepted == 0
        assert entry.judged
        assert all(math.isfinite(test.p) for test in entry.judged)
