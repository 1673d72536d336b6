import json
import lzma
from pathlib import Path

import pytest
from fakes import END, FakeTarget, RuleDrafter, ScriptedDrafter, always, random_rule, text_rule

from fastllm import evaluate, metrics
from fastllm.data.articles import Article
from fastllm.drafters import drafter_class
from fastllm.errors import DataError
from fastllm.race import Race
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


@pytest.fixture(scope="module")
def greedy() -> evaluate.Evaluation:
    config = DecodingConfig(gamma=3, max_new_tokens=15)
    return evaluate.evaluate(FakeTarget(TARGET), DRAFTERS, ARTICLES, config)


def test_every_greedy_lane_writes_the_targets_text(greedy: evaluate.Evaluation) -> None:
    assert greedy.lanes == ["alone", "x-before", "x-after", "same"]
    assert greedy.same_text
    summary = evaluate.summarise(greedy)
    assert [lane["same_text"] for lane in summary["lanes"].values()] == [4] * 4


def test_the_summary_knows_who_is_better(greedy: evaluate.Evaluation) -> None:
    lanes = evaluate.summarise(greedy)["lanes"]
    calls = [lanes[name]["target_calls"]["value"] for name in greedy.lanes]
    assert calls == sorted(calls, reverse=True)
    assert lanes["alone"]["tau"]["value"] == 1
    assert lanes["same"]["alpha"]["value"] == 1
    assert lanes["same"]["accepted_of_drafted"]["value"] == 1
    assert lanes["x-before"]["alpha"]["value"] < lanes["x-after"]["alpha"]["value"] < 1
    pair = evaluate.summarise(greedy)["pairs"]["x-before -> x-after"]
    assert pair["target_calls_ratio"]["value"] < 1
    assert pair["alpha_difference"]["value"] > 0


def test_agreement_predicts_the_calls_of_the_race(greedy: evaluate.Evaluation) -> None:
    for row in greedy.articles:
        for name, lane in row.lanes.items():
            if name != "alone":
                assert metrics.greedy_calls(lane.agreement.agrees, 3, 15) == lane.calls


def test_the_report_is_json_and_holds_no_text(greedy: evaluate.Evaluation) -> None:
    report = json.dumps(greedy.to_json())
    assert "words" not in report
    shown = evaluate.table(greedy)
    assert "words come" not in shown
    assert "| x-before -> x-after |" in shown
    assert "4/4" in shown
    for line in shown.splitlines():  # every table is whole
        if line.startswith("|---"):
            width = line.count("|")
        elif line.startswith("| ") and not line.startswith(("| lane", "| pair", "| text")):
            assert line.count("|") == width


def test_sampling_is_evaluated_too() -> None:
    config = DecodingConfig(temperature=1.0, max_new_tokens=12)
    result = evaluate.evaluate(FakeTarget(TARGET), DRAFTERS, ARTICLES, config)
    lanes = evaluate.summarise(result)["lanes"]
    assert 0 < lanes["x-before"]["alpha"]["value"] < lanes["x-after"]["alpha"]["value"] < 1
    assert lanes["same"]["alpha"]["value"] == pytest.approx(1)
    assert len({row.ids for row in result.articles}) > 1, "each article has a seed of its own"
    assert "temperature 1" in evaluate.table(result)


def test_alpha_by_hand() -> None:
    text = [4, 5, 6, END]
    target = FakeTarget(text_rule(text, SIZE))
    race = Race(target, [None], "words", DecodingConfig())
    list(race)
    known = {(): [4], (4,): [9], (4, 5): [], (4, 5, 6): [END]}
    drafter = ScriptedDrafter(lambda written, k: known[written])
    found = evaluate.agreement(target, drafter, race.traces()[0], race.source_ids)
    assert found == evaluate.Agreement(0.5, 0.75, (True, False, False, True))


def test_a_drafter_that_never_drafts_can_be_evaluated() -> None:
    silent = {"silent": ScriptedDrafter(lambda written, k: [])}
    result = evaluate.evaluate(FakeTarget(TARGET), silent, ARTICLES[:1], DecodingConfig())
    lane = evaluate.summarise(result)["lanes"]["silent"]
    assert lane["alpha"]["value"] == lane["accepted_of_drafted"]["value"] == 0
    assert lane["acceptance_by_position"] == []
    evaluate.table(result)


def test_articles_are_chosen_by_a_seeded_shuffle(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl.xz"
    rows = [{"id": str(number), "article": f"Text {number}."} for number in range(30)]
    with lzma.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in [*rows, {"id": "x", "article": " "}])
    ten = [article.id for article in evaluate.choose_articles(path, 10)]
    assert ten == [article.id for article in evaluate.choose_articles(path, 20)][:10]
    assert ten != sorted(ten, key=int)
    assert len(evaluate.choose_articles(path, 99)) == 30
    path.write_bytes(lzma.compress(b'{"article": ""}\n'))
    with pytest.raises(DataError, match="no article with text"):
        evaluate.choose_articles(path, 1)


def test_no_articles_is_an_error() -> None:
    with pytest.raises(DataError, match="no articles"):
        evaluate.evaluate(FakeTarget(TARGET), {}, [], DecodingConfig())


def test_pairs_are_found_by_name() -> None:
    names = ["lookup", "a-after", "a-before", "b-before", "c-after"]
    assert evaluate.pairs(names) == [("a-before", "a-after")]


# Against transformers.


def test_greedy_texts_equal_generate(tiny_target: HubTarget, story: str) -> None:
    drafters = {"lookup": drafter_class("lookup")()}
    config = DecodingConfig(max_new_tokens=24)
    articles = [Article("0", story), Article("1", story[200:])]
    check = evaluate.check_generate(tiny_target, drafters, articles, config, [1, 3, 8])
    assert check.passed, check.mismatches
    assert check.equal == {name: dict.fromkeys([1, 3, 8], 2) for name in ("alone", "lookup")}
    assert "PASS" in evaluate.generate_table(check)


def test_a_text_that_is_not_generates_is_reported(
    tiny_target: HubTarget, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = evaluate.generate

    def wrong(*arguments: object) -> tuple[int, ...]:
        text = right(*arguments)
        return (*text[:3], text[3] + 1, *text[4:])

    monkeypatch.setattr(evaluate, "generate", wrong)
    check = evaluate.check_generate(
        tiny_target, {}, [Article("7", story)], DecodingConfig(max_new_tokens=8), [2]
    )
    assert not check.passed
    miss = check.mismatches[0]
    assert (miss.article, miss.lane, miss.gamma, miss.position) == ("7", "alone", 2, 3)
    assert miss.margin >= 0
    shown = evaluate.generate_table(check)
    assert "FAIL" in shown
    assert "part at token 3" in shown


# The story gate.


def gate(calls: list[tuple[int, int]], seconds: list[tuple[float, float]]) -> evaluate.StoryGate:
    return evaluate.StoryGate(
        "x-before",
        "x-after",
        tuple(
            {
                "id": "a",
                "calls": {"alone": 60, "x-before": before, "x-after": after},
                "seconds": {"alone": alone, "x-before": 1.0, "x-after": lane},
            }
            for (before, after), (alone, lane) in zip(calls, seconds, strict=True)
        ),
    )


def test_the_gate_asks_for_a_quarter_fewer_calls_and_five_of_six() -> None:
    fast, slow = (2.0, 1.0), (1.0, 2.0)
    assert gate([(40, 30)] * 6, [fast] * 5 + [slow]).passed
    assert not gate([(40, 31)] * 6, [fast] * 6).passed
    assert not gate([(40, 30)] * 6, [fast] * 4 + [slow] * 2).passed
    assert "FAIL" in evaluate.gate_table(gate([(40, 31)] * 6, [fast] * 6))


def test_the_gate_is_measured() -> None:
    text = [4, 5, 6, 7, 8, 9, 4, 6, 8, END]
    target = FakeTarget(text_rule(text, SIZE), seconds=0.003)
    drafters = {"x-before": ScriptedDrafter(lambda written, k: []), "x-after": always(text)}
    found = evaluate.story_gate(
        target, drafters, "x-before", "x-after", ARTICLES[:2], DecodingConfig(), repeats=1
    )
    assert found.passed
    assert found.calls_ratio == pytest.approx(0.2)
    assert "PASS" in evaluate.gate_table(found)
    with pytest.raises(DataError, match="sample articles"):
        evaluate.story_gate(target, drafters, "x-before", "x-after", [], DecodingConfig())
