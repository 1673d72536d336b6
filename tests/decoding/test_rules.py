"""The rules of generation: the same bans as transformers, on every path, and gone when set to 0."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from fakes import (
    END,
    START,
    FakeTarget,
    Rule,
    RuleDrafter,
    always,
    random_rule,
    sometimes,
    text_rule,
)
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
)

from fastllm.data.articles import Article
from fastllm.decoding.distributions import distribution, forbid, most_likely
from fastllm.decoding.proposals import OneHotProposal
from fastllm.decoding.race import Race
from fastllm.decoding.rules import Rules
from fastllm.distill.teacher import write_texts
from fastllm.drafters import Drafter, drafter_class, families, spec_of, untrained
from fastllm.drafters.ngram import NgramDrafter
from fastllm.errors import SettingsError
from fastllm.evaluation import measure
from fastllm.targets import resolve
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig, Trace

SIZE = 9
LENGTH = 20
STRICT = {"no_repeat_ngram": 2, "min_new_tokens": 5}
OFF = {"no_repeat_ngram": 0, "min_new_tokens": 0, "forced_first": -1, "forced_last": -1}


def repeated(tokens: Sequence[int], order: int) -> int:
    """How many n-grams of a text came before, the start token counted."""
    text = [START, *tokens]
    grams = [tuple(text[at : at + order]) for at in range(len(text) - order + 1)]
    return len(grams) - len(set(grams))


# What is banned.


def banned_by_transformers(text: Sequence[int], config: DecodingConfig) -> set[int]:
    ids = torch.tensor([list(text)])
    scores = torch.zeros(1, SIZE)
    if config.no_repeat_ngram:
        scores = NoRepeatNGramLogitsProcessor(config.no_repeat_ngram)(ids, scores)
    if config.min_new_tokens:
        scores = MinNewTokensLengthLogitsProcessor(1, config.min_new_tokens, END)(ids, scores)
    if config.forced_first is not None:
        scores = ForcedBOSTokenLogitsProcessor(config.forced_first)(ids, scores)
    if config.forced_last is not None:
        scores = ForcedEOSTokenLogitsProcessor(config.max_new_tokens + 1, config.forced_last)(
            ids, scores
        )
    return set(scores[0].isinf().nonzero()[:, 0].tolist())


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_the_same_tokens_are_banned_as_by_transformers(order: int) -> None:
    generator = torch.Generator().manual_seed(order)
    config = DecodingConfig(no_repeat_ngram=order, min_new_tokens=3)
    rules = Rules(END)  # one for all texts: it has to go back and to change to other texts
    found = 0
    text = [START]
    for _ in range(60):
        back, forth = torch.randint(0, 6, (2,), generator=generator).tolist()
        letters = torch.randint(0, 4, (forth + 4,), generator=generator).tolist()
        text = [*text[: max(1, len(text) - back)], *letters[:forth]]
        drafted = letters[forth:]
        wanted = [
            banned_by_transformers([*text, *drafted[:place]], config)
            for place in range(len(drafted) + 1)
        ]
        assert [set(place) for place in rules.along(text, drafted, config)] == wanted
        assert set(rules.banned(text, config)) == wanted[0]
        assert set(rules.banned([*text, *drafted], config)) == wanted[-1]
        found += sum(map(len, wanted))
    assert found > (10 if order else 0)


@pytest.mark.parametrize("longest", [1, 2, 6])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("first", "last"), [(4, None), (None, END), (4, END), (END, 3)])
def test_forced_tokens_come_whatever_else_is_barred(
    longest: int, order: int, first: int | None, last: int | None
) -> None:
    config = DecodingConfig(
        max_new_tokens=longest, no_repeat_ngram=order, min_new_tokens=3, forced_first=first,
        forced_last=last,
    )  # fmt: skip
    text, drafted = [START], [4, 4, 3, END, 5][: longest - 1]
    wanted = [banned_by_transformers([*text, *drafted[:at]], config) for at in range(longest)]
    found = Rules(END).along(text, drafted, config)
    assert [{token for token in row if token < SIZE} for row in found] == wanted
    logits = torch.randn(longest, SIZE)
    barred = forbid(logits, found)
    assert [set(row.isinf().nonzero()[:, 0].tolist()) for row in barred] == wanted
    assert most_likely(logits, found) == barred.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_drafter_keeps_to_forced_tokens(temperature: float) -> None:
    rule = random_rule(SIZE, end_bias=-9.0)
    config = DecodingConfig(
        temperature=temperature, max_new_tokens=7, forced_first=5, forced_last=END
    )
    race = Race(FakeTarget(rule), [None, RuleDrafter(rule)], "words", config)
    list(race)
    for trace in race.traces():
        assert (len(trace.tokens), trace.tokens[0], trace.tokens[-1]) == (7, 5, END)


def test_a_change_of_the_setting_is_noticed() -> None:
    rules, text = Rules(END), [START, 5, 6, 5]
    for order, wanted in ((2, [6]), (3, []), (1, [START, 5, 6, 5]), (2, [6])):
        assert rules.banned(text, DecodingConfig(no_repeat_ngram=order)) == wanted


def test_an_unknown_end_is_never_banned() -> None:
    assert Rules(None).banned([START], DecodingConfig(min_new_tokens=9)) == []
    assert Rules(END).banned([START], DecodingConfig(min_new_tokens=9)) == [END]


def test_without_rules_nothing_is_kept_and_nothing_touched() -> None:
    rules, logits = Rules(END), torch.randn(3, SIZE)
    for config in (DecodingConfig(), DecodingConfig(**OFF)):
        bans = rules.along([START, 5, 5], [5, 5], config)
        assert forbid(logits, bans) is logits


# Barring.


def test_banned_tokens_lose_everything_and_the_logits_stay() -> None:
    logits = torch.randn(3, SIZE, dtype=torch.bfloat16)
    before = logits.clone()
    barred = forbid(logits, [[2, 5, 5], [], [0, SIZE + 7]])  # ids from V on cannot be written
    assert torch.equal(logits, before)
    expected = {(0, 2), (0, 5), (2, 0)}
    assert {tuple(place) for place in barred.isinf().nonzero().tolist()} == expected
    rows = distribution(barred, DecodingConfig(temperature=1.0))
    assert all(rows[place] == 0 for place in expected)
    torch.testing.assert_close(rows.sum(-1), torch.ones(3))


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 2, "top_p": 0.5}]
)
def test_a_place_where_all_is_banned_still_has_a_distribution(settings: dict[str, Any]) -> None:
    row = distribution(
        forbid(torch.randn(1, SIZE), [list(range(SIZE))]), DecodingConfig(**settings)
    )
    # What arg-max finds among nothing but minus infinities, as in transformers.
    assert row[0].tolist() == [1.0] + [0.0] * (SIZE - 1)


# The settings.


def test_what_is_left_to_the_target_is_resolved_once() -> None:
    target = FakeTarget(random_rule(SIZE), defaults={"no_repeat_ngram": 3})
    open_config = DecodingConfig(temperature=0.5)
    assert (open_config.no_repeat_ngram, open_config.min_new_tokens) == (None, None)
    resolved = resolve(open_config, target)
    assert resolved == DecodingConfig(temperature=0.5, **{**OFF, "no_repeat_ngram": 3})
    assert resolve(resolved, FakeTarget(random_rule(SIZE), defaults=STRICT)) == resolved
    race = Race(target, [None], "words", DecodingConfig(max_new_tokens=3, min_new_tokens=1))
    list(race)
    config = race.traces()[0].config
    assert (config.no_repeat_ngram, config.min_new_tokens) == (3, 1)


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({}, (0, 0)),
        ({"no_repeat_ngram_size": 3, "min_length": 56}, (3, 55)),
        ({"min_length": 1}, (0, 0)),
        ({"min_length": 9, "min_new_tokens": 4}, (0, 4)),
        ({"min_length": 0, "no_repeat_ngram_size": 0}, (0, 0)),
    ],
)
def test_the_generation_configuration_is_read(
    tiny_target: HubTarget, own: dict[str, int], wanted: tuple[int, int]
) -> None:
    target = ruled(tiny_target, **own)
    assert (target.defaults["no_repeat_ngram"], target.defaults["min_new_tokens"]) == wanted


def test_rules_survive_json_and_old_traces_have_none() -> None:
    race = Race(FakeTarget(random_rule(SIZE)), [None], "words", DecodingConfig(max_new_tokens=2))
    list(race)
    trace = race.traces()[0]
    for config in (trace.config, DecodingConfig(), DecodingConfig(**STRICT)):
        tree = json.loads(json.dumps({**trace.to_json(), "config": vars(config)}))
        assert Trace.from_json(tree).config == config
    for name in DecodingConfig.LEFT_TO_TARGET:
        del tree["config"][name]
    assert Trace.from_json(tree).config == DecodingConfig()


@pytest.mark.parametrize("name", ["forced_first", "forced_last"])
@pytest.mark.parametrize("value", [-2, 2.0, True, "3"])
def test_a_forced_token_is_an_id(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"{name}=.* token id, or -1"):
        DecodingConfig(**{name: value})


@pytest.mark.parametrize("name", ["no_repeat_ngram", "min_new_tokens"])
@pytest.mark.parametrize("value", [-1, 5000, 2.0, True, "3"])
def test_a_rule_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"{name}="):
        DecodingConfig(**{name: value})


# Drafters do not propose what would always be refused.


def test_the_lookup_passes_over_matches_that_are_banned() -> None:
    source = [5, 6, 7, 8, 2, 2, 5, 6, 3, 4, 3, 3, END]
    encoding = FakeTarget(text_rule([], SIZE)).encode(source)
    session = drafter_class("lookup")().begin(encoding)
    uniforms = torch.zeros(4, dtype=torch.float64)

    def draft(text: list[int], order: int) -> list[int]:
        config = DecodingConfig(no_repeat_ngram=order)
        return session.draft([START, *text], 4, config, uniforms).tokens

    text = [5, 6, 7, 5, 6]  # "5 6 7" was written: 7 is banned, and the other match goes on with 3
    assert draft(text, 0) == [7, 8, 2, 2]
    assert draft(text, 3) == [3, 4, 3, 3]
    assert draft([5, 6], 2) == [7, 8, 2, 2]
    assert draft([2, 2, 7, 5, 6], 2) == [7, 8, 2], "the draft ends before a second 2 2"
    assert draft([3, 4, 5, 6, 7, 5, 6], 2) == [3], "3 4 was written"


def test_the_ngram_table_says_the_best_of_what_is_allowed() -> None:
    texts = [[5, 6, END], [5, 6, END], [5, 7, END]]
    table = NgramDrafter.fit(texts, order=2, vocabulary_size=SIZE, end_id=END)
    session = table.begin(FakeTarget(text_rule([], SIZE)).encode([4, END]))
    uniforms = torch.full((2,), 0.5, dtype=torch.float64)
    text = [START, 5, 6, 5]
    assert session.draft(text, 1, DecodingConfig(), uniforms).tokens == [6]
    config = DecodingConfig(no_repeat_ngram=2, min_new_tokens=6)
    draft = session.draft(text, 2, config, uniforms)
    assert draft.tokens[0] == 7
    assert draft.tokens[1] != END, "the fifth token of at least six"
    warm = session.draft(text, 2, DecodingConfig(**{**vars(config), "temperature": 1.0}), uniforms)
    q = warm.q.row(0, SIZE)
    assert (q[6], q.sum()) == (0, pytest.approx(1))
    assert warm.unwarped is not None
    assert warm.unwarped(0)[6] > 0, "shown is what the table says, not what it may say"
    everything = [START, *range(1, SIZE)]
    nothing = session.draft(everything, 2, DecodingConfig(no_repeat_ngram=1), uniforms)
    assert nothing.tokens == []
    assert isinstance(nothing.q, OneHotProposal)


def test_a_neural_drafter_draws_from_what_is_allowed(tiny_target: HubTarget, story: str) -> None:
    encoding = encoded(tiny_target, story)
    session = drafter_of("lstm", tiny_target, story).begin(encoding)
    generator = torch.Generator().manual_seed(0)
    text, bitten = [START], 0
    for temperature in (0.0, 1.0):
        config = DecodingConfig(
            temperature=temperature, top_k=20, no_repeat_ngram=1, min_new_tokens=99
        )
        for _ in range(4):
            uniforms = torch.rand(4, generator=generator, dtype=torch.float64)
            draft = session.draft(text, 4, config, uniforms)
            assert draft.unwarped is not None
            for place, token in enumerate(draft.tokens):
                banned = {*text, *draft.tokens[:place], END}
                q = draft.q.row(place, len(tiny_target.vocabulary.tokenizer))
                assert token not in banned
                assert q[sorted(banned)].sum() == 0
                assert q.sum() == pytest.approx(1)
                bitten += int(draft.unwarped(place).argmax()) in banned
            text = [*text, *draft.tokens]
    assert bitten


# The text that transformers writes.


def greedy_by_transformers(rule: Rule, config: DecodingConfig) -> list[int]:
    """Plain greedy decoding with the processors of transformers, one token after another."""
    text = [START]
    while len(text) <= config.max_new_tokens and (len(text) == 1 or text[-1] != END):
        logits = torch.tensor(rule(tuple(text[1:])))
        logits[list(banned_by_transformers(text, config))] = -torch.inf
        text.append(int(logits.argmax()))
    return text[1:]


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("least", [0, 3])
def test_the_loop_follows_the_processors(order: int, least: int) -> None:
    seen: set[str] = set()
    for seed in range(12):
        random = random_rule(4, seed=seed, end_bias=1.0)

        def rule(written: tuple[int, ...], random: Rule = random) -> Sequence[float]:
            row = list(random(written))
            row[START] = row[-1] + 0.3  # it writes the start token too, often
            return row

        config = DecodingConfig(
            gamma=3, max_new_tokens=9, no_repeat_ngram=order, min_new_tokens=least
        )
        wanted = greedy_by_transformers(rule, config)
        lanes = [None, RuleDrafter(rule), RuleDrafter(random)]
        race = Race(FakeTarget(rule), lanes, "words", config)
        list(race)
        assert [list(trace.tokens) for trace in race.traces()] == [wanted] * 3
        seen |= {"start"} if START in wanted else set()
        seen |= {"earliest end"} if len(wanted) == least + 1 else set()
    assert "earliest end" in seen
    assert "start" in seen or order == 1, "no token comes twice, the start token neither"


def ruled(tiny_target: HubTarget, **own: int) -> HubTarget:
    """The tiny target with rules of its own, and one word of its texts made the end."""
    model = copy.deepcopy(tiny_target.model)
    with torch.no_grad():
        model.lm_head.weight[END] = model.lm_head.weight[12] * 1.1
    model.generation_config = GenerationConfig(
        decoder_start_token_id=START, eos_token_id=END, pad_token_id=0, **own
    )
    return HubTarget(model, tiny_target.vocabulary, name="ruled", source_length=96)


def encoded(target: HubTarget, story: str) -> Any:
    return target.encode(target.vocabulary.encode(story, target.source_length).ids)


def drafter_of(family: str, target: HubTarget, story: str) -> Drafter:
    """A drafter of a family, untrained, or made from the story."""
    vocabulary, size = target.vocabulary, len(target.vocabulary.tokenizer)
    kind: Any = drafter_class(family)
    if family in untrained():
        found: Drafter = kind()
    elif family == "ngram":
        texts = [vocabulary.encode(story[at:], 60).ids for at in (0, 100, 200)]
        found = kind.fit(texts, order=3, vocabulary_size=size, end_id=END)
    else:
        bound = {"target": target} if spec_of(family).bound_to_target else {}
        found = kind.fresh(size, start_id=START, vocabulary=vocabulary.fingerprint, **bound)
    return found


@pytest.fixture(scope="module")
def drafters(tiny_target: HubTarget, story: str) -> dict[str, Drafter]:
    return {family: drafter_of(family, tiny_target, story) for family in families()}


@pytest.mark.parametrize("order", [2, 3])
def test_every_lane_writes_what_generate_writes(
    tiny_target: HubTarget, story: str, drafters: dict[str, Drafter], order: int
) -> None:
    target = ruled(tiny_target, no_repeat_ngram_size=order, min_new_tokens=5)
    free = DecodingConfig(max_new_tokens=LENGTH, **OFF)
    bitten = [0, 0]
    for start in (0, 60):
        ids = target.vocabulary.encode(story[start:], target.source_length).ids
        with torch.inference_mode():
            wanted = target.model.generate(
                input_ids=torch.tensor([ids]), do_sample=False, num_beams=1, max_new_tokens=LENGTH
            )[0, 1:].tolist()
        unruled = measure.generate(target, ids, free)
        bitten[0] += repeated(unruled, order) > 0
        bitten[1] += len(unruled) < 6
        assert repeated(wanted, order) == 0
        assert len(wanted) > 5
        scripted = [always(wanted), sometimes(wanted), always(unruled)]
        lanes = [None, *drafters.values(), *scripted]
        for gamma in (1, 2, 3, 4):
            config = DecodingConfig(gamma=gamma, max_new_tokens=LENGTH)
            race = Race(target, lanes if gamma > 1 else lanes[1:], story[start:], config)
            list(race)
            for trace in race.traces():
                assert list(trace.tokens) == wanted, (trace.drafter, gamma, start)
    assert all(bitten), "some text repeats itself, and some ends too early, where no rule is set"


def test_the_setting_goes_before_the_target_and_0_switches_off(
    tiny_target: HubTarget, story: str
) -> None:
    target = ruled(tiny_target, no_repeat_ngram_size=2, min_length=9)
    bare = ruled(tiny_target)
    article = Article("0", story[60:])
    ids = target.vocabulary.encode(article.text, target.source_length).ids
    lanes = {"lookup": drafter_class("lookup")()}
    texts = {}
    for name, rules in {"own": {}, "off": OFF, "other": {"no_repeat_ngram": 3}}.items():
        config = DecodingConfig(max_new_tokens=20, **rules)
        check = measure.check_generate(target, lanes, [article], config, [3])
        assert check.passed, check.mismatches
        texts[name] = measure.generate(target, ids, config)
    assert len(set(texts.values())) == 3
    assert texts["off"] == measure.generate(bare, ids, DecodingConfig(max_new_tokens=20))
    assert repeated(texts["own"], 2) == 0 < repeated(texts["off"], 2)
    assert len(texts["own"]) >= 9


def test_alpha_is_measured_under_the_rules() -> None:
    rule = random_rule(SIZE, seed=5)
    target = FakeTarget(rule, defaults={"no_repeat_ngram": 1, "min_new_tokens": 6})
    twin = RuleDrafter(rule)  # it knows no rules: it proposes what would come without them
    config = DecodingConfig(gamma=3, max_new_tokens=7)
    result = measure.evaluate(target, {"twin": twin}, [Article("0", "words")], config)
    assert result.same_text
    assert (result.config.no_repeat_ngram, result.config.min_new_tokens) == (1, 6)
    found = result.rows[0.0][0].agreements["twin"]
    assert 0 < found.alpha < 1
    assert found.alpha == pytest.approx(sum(found.agrees) / len(found.agrees))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_pseudo_labels_obey_the_rules(
    tiny_target: HubTarget, story: str, temperature: float
) -> None:
    sources = [tiny_target.vocabulary.encode(story[at:], 96).ids for at in (0, 60)]
    target = ruled(tiny_target, no_repeat_ngram_size=2, min_new_tokens=5)
    texts = write_texts(target, sources, length=LENGTH, temperature=temperature)
    assert all(repeated(text, 2) == 0 and len(text) > 5 for text in texts)
    free = write_texts(ruled(tiny_target), sources, length=LENGTH, temperature=temperature)
    if temperature == 0:
        assert any(repeated(text, 2) for text in free)
        config = DecodingConfig(max_new_tokens=LENGTH)
        assert texts == [list(measure.generate(target, ids, config)) for ids in sources]
