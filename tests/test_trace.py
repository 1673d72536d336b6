import contextlib
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeTarget, RuleDrafter, random_rule

from fastllm import paths
from fastllm.decoding.race import Race
from fastllm.errors import DataError, SettingsError
from fastllm.trace import DecodingConfig, Judged, Round, Trace, config_defaults


def recorded(**settings: float) -> list[Trace]:
    target = FakeTarget(random_rule(9, seed=1))
    drafter = RuleDrafter(random_rule(9, seed=2))
    race = Race(target, [None, drafter], "an article", DecodingConfig(**settings))
    list(race)
    return race.traces()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0, "top_p": 0.8, "seed": 3},
        {"temperature": 1.0, "verification": "token"},
        {"temperature": 1.0, "verification": "lenient", "lenience": 0.4, "lenience_form": "square"},
        {"draft_length": "adaptive", "draft_cost": 0.2, "call_cost": 0.01},
    ],
)
def test_a_trace_survives_json(settings: dict[str, float]) -> None:
    for trace in recorded(max_new_tokens=12, **settings):
        again = Trace.from_json(json.loads(trace.dumps()))
        assert again == Trace.loads(trace.dumps()) == trace
        assert again.tokens == trace.tokens
        assert isinstance(again.rounds[0].judged, tuple)
        assert all(isinstance(token, int) for token in again.names)


def test_the_recorded_race_is_readable() -> None:
    path = paths.RECORDED / "race.json"
    for tree in json.loads(path.read_text(encoding="utf-8"))["traces"]:
        trace = Trace.from_json(tree)
        assert trace.rounds
        assert not trace.config.lossy


def test_a_trace_of_before_the_rules_is_readable() -> None:
    tree = json.loads(recorded(max_new_tokens=4)[1].dumps())
    for name in ("lenience", "lenience_form", "draft_length", "draft_cost", "call_cost"):
        del tree["config"][name]
    config = Trace.from_json(tree).config
    assert (config.verification, config.draft_length) == ("token", "fixed")


@pytest.mark.parametrize(
    ("settings", "ran"),
    [
        ({}, "token"),
        ({"verification": "block"}, "token"),
        ({"temperature": 0.7}, "block"),
        ({"temperature": 0.7, "verification": "token"}, "token"),
        ({"temperature": 0.7, "verification": "block"}, "block"),
        ({"temperature": 0.7, "verification": "lenient", "lenience": 0.5}, "lenient"),
    ],
)
def test_a_trace_names_the_rule_that_ran(settings: dict[str, float], ran: str) -> None:
    assert DecodingConfig(**settings).verified_by == ran
    for trace in recorded(max_new_tokens=4, **settings):
        assert trace.config.verification == trace.config.verified_by == ran


def test_the_rule_is_settled_by_the_temperature_of_the_run() -> None:
    assert replace(DecodingConfig(), temperature=1.0).verified_by == "block"


def test_the_greedy_settings_of_any() -> None:
    lenient = DecodingConfig(temperature=1.0, verification="lenient", lenience=0.4, gamma=3)
    assert lenient.greedy() == DecodingConfig(gamma=3)
    assert lenient.rule_label == "lossy: lenient, linear, eps 0.4"
    assert replace(lenient, lenience=1.0).rule_label == "lenient verification"
    assert lenient.greedy().rule_label == "token verification"


def test_drafts_are_as_warm_as_the_settings_or_the_drafter_say() -> None:
    warm = DecodingConfig(temperature=0.8, verification="lenient", lenience=0.5)
    assert warm.drafting() is warm
    assert warm.drafting(0.3) == replace(warm, temperature=0.3)
    assert warm.drafting(0.9) is warm, "a drafter's own is never above the target's"
    assert replace(warm, draft_temperature=1.5).drafting(0.3).temperature == 1.5
    assert replace(warm, draft_temperature=0.0).drafting(0.3).temperature == 0
    greedy = DecodingConfig(draft_temperature=0.7)
    assert greedy.drafting(0.3) is greedy, "a greedy text has greedy drafts"


def test_lossy_is_lenient_and_less_than_1_or_rollback_and_more_than_0() -> None:
    assert not DecodingConfig(verification="rollback").lossy
    loose = DecodingConfig(verification="rollback", rollback_threshold=2.0)
    assert loose.lossy
    assert (loose.verified_by, loose.rule_label) == ("rollback", "lossy: rollback, threshold 2")
    assert loose.greedy() == DecodingConfig()
    warm = {"temperature": 1.0}
    assert not DecodingConfig().lossy
    assert not DecodingConfig(**warm).lossy
    assert not DecodingConfig(**warm, verification="lenient").lossy
    assert DecodingConfig(**warm, verification="lenient", lenience=0.99).lossy


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lenience": 0.5}, "lenience=0.5 .* verification='auto'"),
        ({"rollback_threshold": 2.0}, "rollback_threshold=2.0 with verification='auto'"),
        ({"verification": "rollback", "temperature": 1.0}, "rollback' with temperature=1.0"),
        ({"temperature": 1.0, "draft_temperature": 1e-9}, "draft_temperature=1e-09 is out of"),
        ({"lenience_form": "square"}, "lenience_form='square' with verification='auto'"),
        ({"temperature": 1.0, "verification": "block", "lenience": 0.5}, "verification='block'"),
        ({"verification": "lenient", "lenience": 0.5}, "lenient' with temperature=0"),
        ({"temperature": 1.0, "verification": "lenient", "lenience": 0.0}, "lenience=0.0 .*0.01"),
        ({"temperature": 1.0, "verification": "lenient", "lenience": 1.5}, "lenience=1.5 .*1.0"),
        ({"temperature": 1.0, "verification": "lenient", "lenience": "1"}, "lenience='1'"),
        ({"lenience_form": "cubic"}, "lenience_form='cubic'.*linear, square, exponent"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        DecodingConfig(**settings)


def test_a_test_passes_below_its_threshold() -> None:
    assert Judged(4, 0.1, 0.2, uniform=0.49, threshold=0.5).passed
    assert not Judged(4, 0.1, 0.2, uniform=0.5, threshold=0.5).passed


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema_version": 1}'])
def test_what_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="record it again"):
        Trace.loads(text)


def test_a_trace_of_another_schema_is_refused() -> None:
    tree = recorded(max_new_tokens=2)[0].to_json()
    with pytest.raises(DataError, match="schema version 99"):
        Trace.from_json({**tree, "schema_version": 99})


STRANGE = [
    None, True, -1, 7, 2**31, 10**400, 1e308, float("nan"), float("inf"), "", "x" * 10_000,
    "\ud800", "\0", [], [[]], [1, 2, 3], {}, {"a": 1}, {"-1": "a"}, {"1" * 5_000: "a"},
]  # fmt: skip


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container in a tree with each of its keys."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    found = [(tree, key) for key in keys]
    for key in keys:
        if isinstance(tree[key], (dict, list)):
            found += places(tree[key])
    return found


def test_no_damage_raises_anything_else() -> None:
    """Every value of a small trace is taken out and replaced; then text is cut and flipped."""
    whole = recorded(max_new_tokens=2)[1].dumps()
    refused = []
    for index in range(len(places(json.loads(whole)))):
        for strange in [..., *STRANGE]:
            tree = json.loads(whole)
            holder, key = places(tree)[index]
            if strange is ...:
                del holder[key]
            else:
                holder[key] = strange
            try:
                Trace.loads(json.dumps(tree)).dumps().encode()
            except DataError as error:
                refused.append(len(str(error)))
    assert len(refused) > 1000
    assert max(refused) < 500
    draws = random.Random(0)
    for _ in range(500):
        at = draws.randrange(len(whole))
        letter = chr(draws.randrange(999))
        put = draws.choice(["", '"', "9" * 5_000, "[" * 20_000, "e999", "-", letter])
        with contextlib.suppress(DataError):
            Trace.loads(whole[:at] + put + whole[at + draws.randrange(3) :]).dumps()
    for text in ("[" * 100_000, '{"schema_version": ' + "9" * 10_000 + "}", "null", "1e999", "\0"):
        with pytest.raises(DataError, match="record it again"):
            Trace.loads(text)


def test_what_is_refused_is_named_by_its_place() -> None:
    tree = json.loads(recorded(max_new_tokens=2)[1].dumps())
    tree["rounds"][0]["judged"][0]["uniform"] = "half" * 1000
    where = r"rounds\[0\]\.judged\[0\]\.uniform: 'half.*\.\.\."
    with pytest.raises(DataError, match=where) as caught:
        Trace.from_json(tree)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("damage", ["missing", "unknown", "inside"])
def test_a_damaged_trace_is_refused(damage: str) -> None:
    tree = json.loads(recorded(max_new_tokens=2)[1].dumps())
    if damage == "missing":
        del tree["rounds"]
    elif damage == "unknown":
        tree["surprise"] = 1
    else:
        del tree["rounds"][0]["extra_best"]
    with pytest.raises(DataError, match="not a whole trace"):
        Trace.from_json(tree)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", 0),
        ("gamma", 17),
        ("gamma", 2.5),
        ("gamma", True),
        ("gamma", "5"),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("max_new_tokens", 0),
        ("max_new_tokens", 1025),
        ("seed", -1),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        DecodingConfig(**{name: value})
    message = str(caught.value)
    low, high = DecodingConfig.RANGES[name]
    assert name in message
    assert repr(value) in message
    assert str(low) in message
    assert str(high) in message
    assert isinstance(caught.value, ValueError)


def test_an_unknown_rule_of_verification_is_refused() -> None:
    with pytest.raises(SettingsError, match="verification='hope'"):
        DecodingConfig(verification="hope")


def test_the_defaults_are_those_of_the_config() -> None:
    assert DecodingConfig() == DecodingConfig(**config_defaults())
    assert set(DecodingConfig.RANGES) < set(config_defaults())


def test_what_a_round_adds() -> None:
    plain = Round("plain", extra=7)
    assert (plain.tokens, plain.extra_kind, plain.refused) == ((7,), "plain", None)
    corrected = Round("speculative", drafted=(4, 5, 6), accepted=1, extra=9)
    assert corrected.tokens == (4, 9)
    assert (corrected.extra_kind, corrected.refused) == ("correction", 5)
    bonus = replace(corrected, accepted=3)
    assert (bonus.tokens, bonus.extra_kind, bonus.refused) == ((4, 5, 6, 9), "bonus", None)
    ended = replace(bonus, extra=None)
    assert (ended.tokens, ended.extra_kind) == ((4, 5, 6), None)
