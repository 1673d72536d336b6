import json
import lzma
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes import END, FakeTarget, RuleDrafter, ScriptedDrafter, random_rule, text_rule

from fastllm.data.articles import Article
from fastllm.decoding.distributions import distribution
from fastllm.drafters import drafter_class
from fastllm.errors import DataError, SettingsError
from fastllm.evaluation import measure, report
from fastllm.targets import Encoding
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

SIZE = 10
TARGET = random_rule(SIZE, seed=1, end_bias=-1.0)


def near(weight: float, seed: int) -> RuleDrafter:
    """A drafter that knows the target more or less."""
    other = random_rule(SIZE, seed=seed)

    def rule(written: tuple[int, ...]) -> list[float]:
        return [
            weight * a + (1 - weight) * b
            for a, b in zip(TARGET(written), other(written), strict=True)
        ]

    return RuleDrafter(rule)


DRAFTERS = {"x-before": near(0.3, 8), "x-after": near(0.9, 8), "same": near(1.0, 8)}
ARTICLES = [
    Article(
        str(number),
        f"Some words come first. Then {number} others follow here. The end.",
        "Some words come first.",
    )
    for number in range(4)
]


class CountingTarget(FakeTarget):
    """Counts how often it reads an article."""

    encoded = 0

    def encode(self, source_ids: list[int]) -> Encoding:
        self.encoded += 1
        return super().encode(source_ids)


SETTINGS = {"gammas": [5, 3], "temperatures": [1.0, 0.0]}


@pytest.fixture(scope="module")
def target() -> CountingTarget:
    return CountingTarget(TARGET)


@pytest.fixture(scope="module")
def result(target: CountingTarget) -> measure.Evaluation:
    config = DecodingConfig(max_new_tokens=15)
    return measure.evaluate(target, DRAFTERS, ARTICLES, config, **SETTINGS)


def test_every_setting_is_measured_on_the_same_articles(result: measure.Evaluation) -> None:
    assert (result.temperatures, result.gammas) == ((0.0, 1.0), (3, 5))
    for rows in result.rows.values():
        assert [row.id for row in rows] == ["0", "1", "2", "3"]
        for row in rows:
            assert list(row.lanes) == [3, 5]
            assert all(list(lanes) == list(DRAFTERS) for lanes in row.lanes.values())
    assert result.articles == 4
    assert not result.interrupted


def test_every_greedy_lane_writes_the_targets_text(result: measure.Evaluation) -> None:
    assert result.same_text
    assert result.differing(0.0) == {}
    assert result.differing(1.0), "sampled texts differ: the uniforms go other ways"


def test_an_article_is_encoded_once(target: CountingTarget, result: measure.Evaluation) -> None:
    assert target.encoded == len(ARTICLES) + 1, "once each, and once to warm up"


def test_the_target_writes_once_a_temperature_and_reads_its_text_once() -> None:
    target = CountingTarget(TARGET)
    config = DecodingConfig(max_new_tokens=15)
    measure.evaluate(target, DRAFTERS, ARTICLES[:1], config, **SETTINGS)
    lanes = 1 + len(DRAFTERS)
    settings = 2 * (1 + 2 * len(DRAFTERS) + 1)  # alone, each drafter at each gamma, one pass for p
    assert len(target.sessions) == lanes + settings


def test_the_summary_knows_who_is_better(result: measure.Evaluation) -> None:
    for setting in report.summarise(result)["settings"]:
        lanes = setting["drafters"]
        calls = {name: lane["gammas"]["5"]["tau"]["value"] for name, lane in lanes.items()}
        assert 1 < calls["x-before"] < calls["x-after"] < calls["same"]
        assert lanes["same"]["alpha"]["value"] == pytest.approx(1)
        assert lanes["same"]["gammas"]["3"]["accepted_of_drafted"]["value"] == pytest.approx(1)
        assert 0 < lanes["x-before"]["alpha"]["value"] < lanes["x-after"]["alpha"]["value"] < 1


def greedy_calls(agrees: Sequence[bool], gamma: int, longest: int) -> int:
    """Target calls of greedy speculation over a text, by where the drafter agrees with it."""
    calls = written = 0
    while written < len(agrees):
        room = min(gamma, len(agrees) - written, longest - written - 1)
        stood = [*agrees[written : written + room], False].index(False)
        calls += 1
        # All that was left stood, the end token last: the target has nothing to add.
        written += stood if written + stood == len(agrees) else stood + 1
    return calls


def test_agreement_predicts_the_calls_of_every_gamma(result: measure.Evaluation) -> None:
    for row in result.rows[0.0]:
        for gamma, lanes in row.lanes.items():
            for name, lane in lanes.items():
                agrees = row.agreements[name].agrees
                assert greedy_calls(agrees, gamma, 15) == lane.calls


def test_the_report_is_json_and_holds_no_text(result: measure.Evaluation) -> None:
    tree = json.dumps(report.to_json(result))
    shown = report.markdown(report.summarise(result))
    for text in (tree, shown):
        assert "words" not in text
        assert "others follow" not in text
    assert '"ids"' not in tree, "token ids are the text in other letters"


def test_sampling_gives_each_article_a_seed(result: measure.Evaluation) -> None:
    assert len({row.text.fingerprint for row in result.rows[0.0]}) == 1, "greedy, the rule decides"
    assert len({row.text.fingerprint for row in result.rows[1.0]}) > 1


def test_what_is_measured_does_not_depend_on_what_else_is() -> None:
    config = DecodingConfig(max_new_tokens=15)
    one = measure.evaluate(
        FakeTarget(TARGET), {"x-after": DRAFTERS["x-after"]}, ARTICLES, config, gammas=[3]
    )
    many = measure.evaluate(FakeTarget(TARGET), DRAFTERS, ARTICLES, config, gammas=[3, 5, 7])
    for row, other in zip(one.rows[0.0], many.rows[0.0], strict=True):
        assert row.text == other.text
        assert row.agreements["x-after"] == other.agreements["x-after"]
        assert row.lanes[3]["x-after"].calls == other.lanes[3]["x-after"].calls


class Impatience:
    """A drafter that is interrupted at the n-th article."""

    name = "impatience"
    vocabulary = ""

    def __init__(self, inner: RuleDrafter, begins: int) -> None:
        self.inner = inner
        self.begins = begins

    def begin(self, encoding: Encoding) -> object:
        self.begins -= 1
        if self.begins < 0:
            raise KeyboardInterrupt
        return self.inner.begin(encoding)


def test_an_interrupted_run_keeps_the_whole_articles() -> None:
    # An article takes 6 beginnings: 2 draft lengths and alpha, at 2 temperatures; 1 warms up.
    drafters = {"x": Impatience(DRAFTERS["x-after"], 1 + 6 + 6 + 4)}
    heard: list[str] = []
    config = DecodingConfig(max_new_tokens=15)
    found = measure.evaluate(
        FakeTarget(TARGET), drafters, ARTICLES, config, **SETTINGS, say=heard.append
    )
    assert found.interrupted
    assert (found.articles, found.asked) == (2, 4)
    assert {t: len(rows) for t, rows in found.rows.items()} == {0.0: 2, 1.0: 2}
    assert heard[-1] == "interrupted: 2 of 4 articles are complete"
    report.markdown(report.summarise(found))


def test_an_interruption_before_the_first_article_is_one() -> None:
    drafters = {"x": Impatience(DRAFTERS["x-after"], 2)}
    with pytest.raises(KeyboardInterrupt):
        measure.evaluate(FakeTarget(TARGET), drafters, ARTICLES, DecodingConfig(max_new_tokens=9))


def test_progress_tells_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "QUIET_SECONDS", 0.0)
    heard: list[str] = []
    config = DecodingConfig(max_new_tokens=5)
    measure.evaluate(FakeTarget(TARGET), {}, ARTICLES, config, say=heard.append)
    assert [line.split(",")[0] for line in heard] == [f"{n}/4 articles" for n in (1, 2, 3, 4)]
    assert heard[-1].endswith(" 0 s left")


def test_settings_out_of_range_are_refused_before_anything_runs() -> None:
    target = CountingTarget(TARGET)
    for settings in ({"gammas": [3, 99]}, {"temperatures": [0.0, 9.0]}):
        with pytest.raises(SettingsError, match="out of range"):
            measure.evaluate(target, DRAFTERS, ARTICLES, DecodingConfig(), **settings)
    assert target.encoded == 0


def test_alpha_by_hand() -> None:
    text = [4, 5, 6, END]
    target = FakeTarget(text_rule(text, SIZE))
    known = {(): [4], (4,): [9], (4, 5): [], (4, 5, 6): [END]}
    drafter = ScriptedDrafter(lambda written, k: known[written])
    encoding = target.encode([4, END])
    p = distribution(target.begin(encoding).forward([0, 4, 5, 6]), DecodingConfig())
    found = measure.agreement(drafter, encoding, [0, *text], p, DecodingConfig())
    assert found == measure.Agreement(0.5, 0.75, (True, False, False, True))


def test_bits_are_those_of_the_text_under_each_model() -> None:
    target = FakeTarget(TARGET)
    drafters = {
        "same": RuleDrafter(TARGET),
        "even": RuleDrafter(lambda written: [0.0] * SIZE),
        "sure": RuleDrafter(lambda written: [1000.0] + [0.0] * (SIZE - 1)),
        "mute": ScriptedDrafter(lambda written, k: []),
    }
    found = measure.evaluate(target, drafters, ARTICLES[:1], DecodingConfig(max_new_tokens=9))
    row = found.rows[0.0][0]
    bits = {name: entry.bits for name, entry in row.agreements.items()}
    assert bits["same"] == pytest.approx(row.text.bits, abs=1e-4)
    assert bits["even"] == pytest.approx(math.log2(SIZE), abs=1e-4)
    assert bits["sure"] == pytest.approx(measure.MOST_BITS), "it gives the text's words no mass"
    assert bits["mute"] is None


def test_alpha_obeys_the_rules_of_the_text() -> None:
    # Without the rule the target would go on with 4 for ever; barred, it writes what is left.
    target = FakeTarget(lambda written: [0.0, 1.0, 0.0, 0.0, 20.0, 10.0, 0.0, 0.0, 0.0, 0.0])
    drafter = RuleDrafter(target.rule)
    config = DecodingConfig(max_new_tokens=6, no_repeat_ngram=2)
    found = measure.evaluate(target, {"same": drafter}, ARTICLES[:1], config)
    row = found.rows[0.0][0]
    text = list(row.agreements["same"].agrees)
    assert row.lanes[5]["same"].same_text
    assert len(text) == row.text.tokens
    # The drafter, which does not know the rule, agrees where the rule does not bite.
    assert 0 < sum(text) < len(text)


def test_a_drafter_that_never_drafts_can_be_evaluated() -> None:
    silent = {"silent": ScriptedDrafter(lambda written, k: [])}
    result = measure.evaluate(FakeTarget(TARGET), silent, ARTICLES[:1], DecodingConfig())
    setting = report.summarise(result)["settings"][0]
    lane = setting["drafters"]["silent"]
    assert lane["alpha"]["value"] == 0
    assert lane["gammas"]["5"]["accepted_of_drafted"]["value"] == 0
    assert lane["gammas"]["5"]["acceptance_by_position"] == []
    report.markdown(report.summarise(result))


def test_articles_are_chosen_by_a_seeded_shuffle(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl.xz"
    rows = [{"id": str(number), "article": f"Text {number}."} for number in range(30)]
    with lzma.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in [*rows, {"id": "x", "article": " "}])
    ten = [article.id for article in measure.choose_articles(path, 10)]
    assert ten == [article.id for article in measure.choose_articles(path, 20)][:10]
    assert ten != sorted(ten, key=int)
    assert len(measure.choose_articles(path, 99)) == 30
    path.write_bytes(lzma.compress(b'{"article": ""}\n'))
    with pytest.raises(DataError, match="no article with text"):
        measure.choose_articles(path, 1)


def test_no_articles_is_an_error() -> None:
    with pytest.raises(DataError, match="no articles"):
        measure.evaluate(FakeTarget(TARGET), {}, [], DecodingConfig())


# Against transformers.


def test_greedy_texts_equal_generate(tiny_target: HubTarget, story: str) -> None:
    drafters = {"lookup": drafter_class("lookup")()}
    config = DecodingConfig(max_new_tokens=24)
    articles = [Article("0", story), Article("1", story[200:])]
    check = measure.check_generate(tiny_target, drafters, articles, config, [1, 3, 8])
    assert check.passed, check.mismatches
    assert check.equal == {name: dict.fromkeys([1, 3, 8], 2) for name in ("alone", "lookup")}
    assert "PASS" in report.generate_table(check)


def test_an_interrupted_comparison_keeps_the_whole_articles(
    tiny_target: HubTarget, story: str
) -> None:
    class Late:
        """Interrupted at the second article, when the first draft length was compared."""

        name = "late"
        vocabulary = ""
        begins = 0

        def begin(self, encoding: Encoding) -> object:
            self.begins += 1
            if self.begins == 4:
                raise KeyboardInterrupt
            return drafter_class("lookup")().begin(encoding)

    articles = [Article(str(start), story[start:]) for start in (0, 90, 200)]
    config = DecodingConfig(max_new_tokens=8)
    heard: list[str] = []
    check = measure.check_generate(
        tiny_target, {"late": Late()}, articles, config, [1, 3], say=heard.append
    )
    assert (check.articles, check.asked, check.interrupted) == (1, 3, True)
    assert check.equal == {name: {1: 1, 3: 1} for name in ("alone", "late")}
    assert heard == ["interrupted: 1 of 3 articles are complete"]
    late = Late()
    late.begins = 3
    with pytest.raises(KeyboardInterrupt):
        measure.check_generate(tiny_target, {"late": late}, articles, config, [1])


def test_a_text_that_is_not_generates_is_reported(
    tiny_target: HubTarget, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = measure.generate

    def wrong(*arguments: object) -> tuple[int, ...]:
        text = right(*arguments)
        return (*text[:3], text[3] + 1, *text[4:])

    monkeypatch.setattr(measure, "generate", wrong)
    check = measure.check_generate(
        tiny_target, {}, [Article("7", story)], DecodingConfig(max_new_tokens=8), [2]
    )
    assert not check.passed
    miss = check.mismatches[0]
    assert (miss.article, miss.lane, miss.gamma, miss.position) == ("7", "alone", 2, 3)
    assert miss.margin >= 0
    shown = report.generate_table(check)
    assert "FAIL" in shown
    assert "part at token 3" in shown
