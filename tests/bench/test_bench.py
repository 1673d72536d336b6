"""The benchmark on a tiny target: what it counts, predicts, compares and writes."""

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plotly.offline import get_plotlyjs

from fastllm.bench import measure as measuring
from fastllm.bench import peer, report, simulate
from fastllm.bench.measure import ArticleRuns, Bench, Lane, Run, measure
from fastllm.cli.main import main
from fastllm.drafters.cost import Cost, CostMeter
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.t5 import T5Drafter
from fastllm.errors import DataError, SettingsError
from fastllm.evaluation import charts
from fastllm.evaluation.measure import ALONE
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary

PLAIN, GENERATE = Lane(ALONE, None), Lane("generate", None)
SHORT = DecodingConfig(max_new_tokens=12, min_new_tokens=6, no_repeat_ngram=3)


@pytest.fixture(scope="module")
def assistant(vocabulary: Vocabulary) -> T5Drafter:
    return T5Drafter.fresh(
        len(vocabulary.tokenizer), vocabulary=vocabulary.fingerprint, width=32, feed_forward=32
    )


@pytest.fixture(scope="module")
def sources(tiny_target: HubTarget, story: str) -> list[tuple[str, list[int]]]:
    encode = tiny_target.vocabulary.encode
    return [(str(at), encode(story[at:], tiny_target.source_length).ids) for at in (0, 60)]


@pytest.fixture(scope="module")
def done(
    tiny_target: HubTarget, assistant: T5Drafter, sources: list[tuple[str, list[int]]]
) -> Bench:
    """A run with every kind of lane."""
    torch.manual_seed(0)
    return measure(
        tiny_target,
        {"lookup": ArticleLookup(), "t5-after": assistant},
        sources,
        SHORT,
        gammas=(3, 2),
        temperatures=(0, 1),
        baselines=measuring.BASELINES,
        assistant=assistant.model.network,
    )


@pytest.fixture(scope="module")
def summary(done: Bench) -> dict[str, Any]:
    return report.summarise(done, assistant="t5-after", peak_process_bytes=5 << 20)


def test_every_lane_ran_on_every_article_and_its_numbers_fit_together(done: Bench) -> None:
    assert not done.errors
    assert list(done.rows) == [0.0, 1.0]
    drafting = ["assisted", "prompt-lookup", "lookup", "t5-after"]
    assert set(done.lanes) == {PLAIN, GENERATE} | {Lane(n, g) for n in drafting for g in (2, 3)}
    for rows in done.rows.values():
        assert [row.id for row in rows] == ["0", "60"]
        for row in rows:
            assert list(row.runs) == list(done.lanes)
            assert set(row.alphas) == {"lookup", "t5-after"}
            for lane, run in row.runs.items():
                check(lane, run)


def check(lane: Lane, run: Run) -> None:
    assert 6 < run.tokens <= 12
    assert run.decode_seconds > 0
    assert run.encode_seconds > 0
    if lane in (PLAIN, GENERATE):
        assert run.calls == run.tokens
    elif lane.name not in measuring.BASELINES:
        # a call adds what was accepted and one token more, except behind an accepted end token
        assert run.calls + run.accepted - run.tokens in (0, 1)
        assert run.accepted <= run.judged <= run.drafted <= run.calls * (lane.gamma or 0)
    if lane.name not in measuring.BASELINES:
        assert len(run.target_calls) == run.calls
        assert sum(seconds for _, seconds in run.target_calls) == run.target_seconds
        assert run.target_seconds + run.drafter_seconds < run.decode_seconds


def test_greedy_texts_are_those_of_transformers(done: Bench) -> None:
    assert done.exact
    for row in done.rows[0.0]:
        assert row.differing == {}
        assert len({run.fingerprint for run in row.runs.values()}) == 1


def test_the_lanes_take_turns_in_another_order_each_time(
    tiny_target: HubTarget, sources: list[tuple[str, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[Lane]] = []
    article, run = measuring._Track.article, measuring._Track._run

    def note_article(self: Any, *arguments: Any) -> Any:
        orders.append([])
        return article(self, *arguments)

    def note_run(self: Any, lane: Lane, *arguments: Any) -> Any:
        orders[-1].append(lane)
        return run(self, lane, *arguments)

    monkeypatch.setattr(measuring._Track, "article", note_article)
    monkeypatch.setattr(measuring._Track, "_run", note_run)
    monkeypatch.setattr(measuring._Track, "warm_up", lambda *arguments: None)
    settings = {"gammas": (1, 2, 3, 4, 5), "temperatures": (0,)}
    for _ in range(2):
        measure(tiny_target, {"lookup": ArticleLookup()}, sources, SHORT, **settings)
    first, second, again, _ = orders
    assert sorted(map(str, first)) == sorted(map(str, second))
    assert first != second
    assert first == again, "the same at every run"


def test_a_lane_of_transformers_that_fails_is_reported_and_the_rest_goes_on(
    tiny_target: HubTarget, sources: list[tuple[str, list[int]]]
) -> None:
    broken = measure(
        tiny_target,
        {"lookup": ArticleLookup()},
        sources,
        SHORT,
        gammas=(2,),
        temperatures=(0,),
        baselines=measuring.BASELINES,
        assistant=object(),  # no model
    )
    assert set(broken.errors) == {Lane("assisted", 2)}
    made = report.summarise(broken)
    lanes = {lane["name"]: lane for lane in made["settings"][0]["lanes"]}
    assert lanes["assisted"]["error"].startswith("AttributeError")
    assert "tokens_per_second" not in lanes["assisted"]
    assert lanes["lookup"]["over"]["assisted"] is None
    assert lanes["lookup"]["over"]["generate"]["decoding"]["median"] > 0
    shown = report.markdown(made)
    assert "No numbers of transformers assisted, gamma 2: AttributeError" in shown
    assert "| transformers assisted | 2 | failed |" in shown
    assert "No numbers of transformers assisted" in page_of(made)


# By hand: a target whose calls take 10 ms and 1 ms more a token, a drafter that takes 2 ms.


def by_hand(*, differing: bool = False, tokens: int = 12) -> Bench:
    plain = Run(12, 12, "a", 0.12, 0.05, target_seconds=0.12, target_calls=((1, 0.01),) * 12)
    slow = Run(12, 12, "a", 0.36, 0.04)
    drafted = Run(
        calls=4,
        tokens=tokens,
        fingerprint="a",
        decode_seconds=0.08,
        encode_seconds=0.06,
        drafted=12,
        judged=10,
        accepted=8,
        drafter_seconds=0.024,
        target_seconds=0.052,
        target_calls=((4, 0.013),) * 4,
    )
    lane = Lane("x", 3)
    runs = {GENERATE: slow, PLAIN: plain, lane: drafted}
    row = ArticleRuns("1", 40, runs, {"x": 0.8}, {lane: 5} if differing else {})
    return Bench(
        target="t5-hand",
        engine="abacus",
        dtype="float32",
        config=SHORT,
        gammas=(3,),
        lanes=(GENERATE, PLAIN, lane),
        errors={},
        hardware="an abacus",
        versions={"python": "3", "torch": "2", "transformers": "5"},
        asked=1,
        alpha=None,
        rows={0.0: (row,)},
    )


def test_numbers_by_hand() -> None:
    setting = report.summarise(by_hand())["settings"][0]
    generate, plain, lane = setting["lanes"]
    assert setting["one_token_call_seconds"] == 0.01
    assert [row["v"] for row in setting["call_costs"]] == pytest.approx([1, 1.3])
    assert setting["call_cost"] == pytest.approx(0.1)
    assert "--call-cost 0.100, and --draft-cost 0.200 (x)." in report.markdown(
        report.summarise(by_hand())
    )
    assert lane["tau"]["median"] == 3
    assert lane["c"] == pytest.approx(0.2)
    assert lane["v"] == pytest.approx(1.3)
    assert lane["alpha"]["median"] == 0.8
    assert lane["accepted_of_drafted"] == pytest.approx(8 / 12)
    assert lane["accepted_of_judged"] == pytest.approx(8 / 10)
    # 3 tokens for 3 * 0.2 + 1.3 plain calls; the encoding is 5 ms and 6 ms of plain ones
    assert lane["predicted"]["decoding"]["median"] == pytest.approx(3 / 1.9)
    assert lane["predicted"]["with_encoding"]["median"] == pytest.approx(17 / (6 + 12 * 1.9 / 3))
    assert lane["over"]["alone"]["decoding"]["median"] == pytest.approx(1.5)
    assert lane["over"]["alone"]["with_encoding"]["median"] == pytest.approx(17 / 14)
    assert lane["over"]["generate"]["decoding"]["median"] == pytest.approx(4.5)
    assert plain["over"]["generate"]["decoding"]["median"] == pytest.approx(3)
    assert generate["over"]["generate"]["decoding"]["median"] == pytest.approx(1)
    assert lane["outside_share"]["median"] == pytest.approx(0.05)
    assert lane["tokens_per_second"]["decoding"]["median"] == pytest.approx(150)
    assert lane["tokens_per_second"]["with_encoding"]["median"] == pytest.approx(12 / 0.14)
    assert generate["outside_share"] is None


def test_texts_of_another_length_are_compared_by_the_pace_of_a_token() -> None:
    lane = report.summarise(by_hand(tokens=6))["settings"][0]["lanes"][2]
    assert lane["over"]["alone"]["decoding"]["median"] == pytest.approx(0.75)
    assert lane["over"]["alone"]["with_encoding"]["median"] == pytest.approx(0.11 / 0.14)


def test_another_greedy_text_is_said_first() -> None:
    made = by_hand(differing=True)
    assert not made.exact
    sentence = report.sections(report.summarise(made))[0].sentences[0]
    assert sentence.startswith("MISMATCH")
    assert "x, gamma 3 1" in sentence
    assert "MISMATCH" not in report.markdown(report.summarise(by_hand()))
    assert report.to_json(made, {})["rows"][0]["articles"][0]["runs"][2]["differs_at"] == 5


def test_ctranslate2_is_compared_with_and_its_rounded_weights_may_write_another_text() -> None:
    made = by_hand()
    fp32, int8 = (Lane(name, None) for name in measuring.PEERS)
    row = made.rows[0.0][0]
    row.runs |= {fp32: Run(12, 12, "a", 0.16, 0.04), int8: Run(12, 12, "b", 0.08, 0.03)}
    row.differing[int8] = 4
    made = replace(made, lanes=(GENERATE, fp32, int8, *made.lanes[1:]))
    assert made.exact
    summary = report.summarise(made)
    lane = summary["settings"][0]["lanes"][-1]
    assert lane["over"][peer.FP32]["decoding"]["median"] == pytest.approx(2)
    assert lane["over"][peer.INT8]["with_encoding"]["median"] == pytest.approx(0.11 / 0.14)
    shown = report.markdown(summary)
    assert "| x | 3 | 2.00 | 1.00 | 1.43 | 0.79 |" in re.sub(r" \[[^]]*\]", "", shown)
    assert "CTranslate2 int8 wrote another text than transformers' generate on 1 of 1" in shown
    assert "Every other lane wrote the text" in shown
    assert "MISMATCH" not in shown
    row.differing[fp32] = 2
    assert "MISMATCH" in report.markdown(report.summarise(made))


def test_ctranslate2_writes_what_transformers_writes(
    tiny_target: HubTarget, sources: list[tuple[str, list[int]]]
) -> None:
    pytest.importorskip("ctranslate2")
    made = measure(
        tiny_target,
        {},
        sources,
        SHORT,
        gammas=(),
        temperatures=(0, 1),
        baselines=(measuring.GENERATE, *measuring.PEERS),
    )
    assert made.errors == {}
    for rows in made.rows.values():
        for row in rows:
            for name in measuring.PEERS:
                run = row.runs[Lane(name, None)]
                assert 6 < run.tokens <= 12
                assert run.decode_seconds > 0
                assert run.encode_seconds >= 0
    for row in made.rows[0.0]:
        assert Lane(peer.FP32, None) not in row.differing


def test_without_ctranslate2_its_lanes_are_left_out_openly(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "installed", lambda: False)
    assert main(command) == 0
    caught = capsys.readouterr()
    assert "no lanes of CTranslate2: it is not installed" in caught.err
    assert "CTranslate2" not in caught.out


def test_what_changes_the_text_stands_behind_its_length() -> None:
    made = replace(by_hand(), config=replace(SHORT, top_k=40, top_p=0.9))
    rules = "no_repeat_ngram 3, min_new_tokens 6, top_k 40, top_p 0.9"
    assert f"at most 12 tokens written, {rules}. " in report.markdown(report.summarise(made))


def test_quartiles() -> None:
    assert report.spread([4, None, 1, 2, 3, 5]) == {"median": 3, "low": 2, "high": 4}
    assert report.spread([None]) is None


def test_each_temperature_names_its_rule(done: Bench) -> None:
    shown = report.markdown(report.summarise(done))
    assert "Token verification." in shown
    assert "Block verification." in shown
    assert "ossy" not in shown
    config = replace(done.config, temperature=1.0, verification="lenient", lenience=0.5)
    lossy = replace(done, config=config, rows={1.0: done.rows[1.0]})
    made = report.summarise(lossy)
    *sections, drafters = report.sections(made)
    titles = [table.title for section in sections for table in section.tables]
    assert titles
    assert [table.title for table in drafters.tables] == ["What a drafter costs"]
    assert all("lossy: lenient, linear, eps 0.5" in title for title in titles)
    assert "LOSSY (lenient, linear, eps 0.5)" in report.markdown(made)
    assert "Temperature 1, lossy: lenient, linear, eps 0.5" in page_of(made)


# What a drafter costs.


def test_each_drafter_is_measured_once_an_article_behind_its_lanes(
    tiny_target: HubTarget, sources: list[tuple[str, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def noting(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def note(self: Any, *arguments: Any) -> Any:
            seen.append(name)
            return real(self, *arguments)

        monkeypatch.setattr(owner, name, note)

    noting(measuring._Track, "_run")
    noting(CostMeter, "warm_up")
    noting(CostMeter, "measure")
    drafters = {"lookup": ArticleLookup(), "strict": ArticleLookup(min_match=4)}
    made = measure(tiny_target, drafters, sources, SHORT, gammas=(2, 3), temperatures=(0,))
    assert seen == ["_run"] * 3 + ["warm_up"] * 2 + (["_run"] * 5 + ["measure"] * 2) * 2
    assert list(made.costs) == ["lookup", "strict"]
    assert measure(tiny_target, {}, sources, SHORT, gammas=(2,), temperatures=(0,)).costs == {}


def test_what_a_drafter_costs_by_hand() -> None:
    made = replace(by_hand(), costs={"x": Cost(1234567, 89, 1234.5, 2000.0)})
    tree = json.loads(json.dumps(report.summarise(made)["drafters"]))
    # A one-token call takes 10 ms.
    assert tree == [
        {
            "name": "x",
            "label": "x",
            "parameters": 1234567,
            "bytes": 89,
            "begin_microseconds": 1234.5,
            "step_microseconds": 2000.0,
            "c": pytest.approx(0.2),
        }
    ]
    shown = report.markdown(report.summarise(made))
    assert "greedy drafts of 3 tokens" in shown
    assert "| x | 1,234,567 | 89 | 1234 | 2000.0 | 0.200 |" in shown
    assert "What a drafter costs" not in report.markdown(report.summarise(by_hand()))


def test_every_report_says_what_each_drafter_costs(
    summary: dict[str, Any], done: Bench, assistant: T5Drafter
) -> None:
    lookup, t5 = report.to_json(done, summary)["drafters"]
    assert (lookup["name"], lookup["parameters"], lookup["bytes"]) == ("lookup", 0, 0)
    assert (t5["name"], t5["parameters"]) == ("t5-after", assistant.parameters)
    assert t5["bytes"] > 2 * t5["parameters"]
    for entry in (lookup, t5):
        assert min(entry["begin_microseconds"], entry["step_microseconds"], entry["c"]) > 0
    shown, page = report.markdown(summary), page_of(summary)
    for text in ("What a drafter costs", "microseconds a drafted token"):
        assert text in shown
        assert f">{text}<" in page
    assert f"| T5 after | {t5['parameters']:,} | {t5['bytes']:,} |" in shown


# What is written.


def page_of(made: dict[str, Any]) -> str:
    whole = charts.document(
        report.heading(made),
        report.preamble(made),
        charts.bench_charts(made),
        report.sections(made),
    )
    return whole.replace(get_plotlyjs(), "")


def test_tables_page_and_json_say_the_same(summary: dict[str, Any], done: Bench) -> None:
    shown, page = report.markdown(summary), page_of(summary)
    for section in report.sections(summary):
        for sentence in section.sentences:
            assert sentence in shown
            assert html.escape(sentence) in page
        for table in section.tables:
            assert table.markdown() in shown
            for cell in (*table.header, *(cell for row in table.rows for cell in row)):
                assert f">{html.escape(cell)}<" in page
    tree = json.loads(json.dumps(report.to_json(done, summary)))
    assert tree["settings"] == json.loads(json.dumps(summary["settings"]))
    pace = tree["settings"][0]["lanes"][0]["tokens_per_second"]["decoding"]["median"]
    assert f"{pace:.0f} [" in shown
    first = tree["rows"][0]["articles"][0]["runs"][0]
    assert (first["lane"], first["gamma"], first["differs_at"]) == ("generate", None, None)


def test_every_column_is_there(summary: dict[str, Any]) -> None:
    headers = {
        cell
        for section in report.sections(summary)
        for table in section.tables
        for cell in table.header
    }
    assert headers >= {
        *("target calls", "tokens/s", "tokens/s, with encoding", "x generate", "x assisted"),
        *("x plain", "x plain, with encoding", "tau", "alpha", "c", "v", "measured", "predicted"),
        *("predicted, with encoding", "outside", "peak memory"),
    }
    shown = report.markdown(summary)
    assert "whole process, all lanes loaded: 5 MiB" in shown
    assert "with the weights of t5-after" in shown
    assert "imulated" not in shown


def test_charts_draw_the_numbers_of_the_tables() -> None:
    drawn = {chart.key: chart for chart in charts.bench_charts(report.summarise(by_hand()))}
    bars = drawn["pace"].panels[0].figure.data[0]
    assert list(bars.x) == pytest.approx([12 / 0.36, 100, 150])
    line = drawn["gamma"].panels[0].figure.data[0]
    assert (list(line.x), list(line.y)) == ([3], pytest.approx([1.5]))
    point = drawn["prediction"].panels[0].figure.data[0]
    assert (list(point.x), list(point.y)) == (pytest.approx([3 / 1.9]), pytest.approx([1.5]))


# Random weights.


@pytest.fixture(scope="module")
def tiny_shape(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = {
        "model_type": "t5",
        "vocab_size": 50,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 1,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }
    path = tmp_path_factory.mktemp("shape") / "config.json"
    path.write_text(json.dumps(config))
    return str(path.parent)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_simulated_acceptance_has_the_chance_that_was_asked_for(
    tiny_shape: str, alpha: float
) -> None:
    target = simulate.random_target(
        tiny_shape, device=torch.device("cpu"), dtype=torch.float32, source_length=16
    )
    drafter = simulate.random_drafter(tiny_shape, target)
    made = measure(
        target,
        {"small": drafter},
        simulate.random_sources(3, 16, 50, seed=0),
        DecodingConfig(max_new_tokens=40),
        gammas=(3,),
        temperatures=(0, 1),
        alpha=alpha,
    )
    for rows in made.rows.values():
        runs = [row.runs[Lane("small", 3)] for row in rows]
        assert all(run.tokens == 40 for row in rows for run in row.runs.values())
        judged, accepted = (sum(getattr(r, n) for r in runs) for n in ("judged", "accepted"))
        slack = 4 * math.sqrt(alpha * (1 - alpha) / judged)
        assert accepted / judged == pytest.approx(alpha, abs=slack + 1e-9)
        for run in runs:  # everything was drafted and scored all the same
            assert run.drafted == sum(size - 1 for size, _ in run.target_calls)
            assert max(size for size, _ in run.target_calls) == 4
    shown = report.markdown(report.summarise(made, roofline=simulate.roofline(target)))
    assert shown.count("imulated acceptance") >= 3
    assert "SIMULATED ACCEPTANCE" in shown
    assert "Memory roofline" in shown


def test_the_roofline_counts_what_a_token_reads(
    tiny_shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "read_bandwidth", lambda size: 1e6)
    target = simulate.random_target(
        tiny_shape, device=torch.device("cpu"), dtype=torch.bfloat16, source_length=16
    )
    found = simulate.roofline(target)
    # A layer: q, k, v, o of the text, q and o of the article, three of the feed-forward.
    layer = 6 * 32 * 32 + 3 * 32 * 64
    assert found["weight_bytes"] == 2 * (2 * layer + 50 * 32)
    assert found["seconds_per_token"] == found["weight_bytes"] / 1e6


def test_copies_have_a_bandwidth() -> None:
    assert 1e7 < simulate.copy_bandwidth(torch.device("cpu"), 1 << 20, 3) < 1e14
    assert 1e7 < simulate.read_bandwidth(1 << 20, 3) < 1e14


def test_shapes_by_name() -> None:
    xl = simulate.shape("google/flan-t5-xl")
    assert (xl.d_model, xl.num_decoder_layers, xl.num_heads, xl.d_ff) == (2048, 24, 32, 5120)
    assert xl.is_gated_act
    assert not xl.tie_word_embeddings
    small = simulate.shape("t5-small")
    assert (small.d_model, small.is_gated_act, small.tie_word_embeddings) == (512, False, True)
    assert small.to_dict() == simulate.shape("google-t5/t5-small").to_dict()


def test_a_shape_that_is_none_is_refused(tmp_path: Path, tiny_shape: str) -> None:
    with pytest.raises(SettingsError, match=r"no shape of this name.*google/flan-t5-xl"):
        simulate.shape("google/flan-t6")
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    with pytest.raises(SettingsError, match="describes a bart"):
        simulate.shape(str(tmp_path))
    target = simulate.random_target(
        tiny_shape, device=torch.device("cpu"), dtype=torch.float32, source_length=16
    )
    small = {**json.loads((Path(tiny_shape) / "config.json").read_text()), "vocab_size": 60}
    (tmp_path / "config.json").write_text(json.dumps(small))
    with pytest.raises(SettingsError, match="60 tokens, the target"):
        simulate.random_drafter(str(tmp_path), target)


def test_no_articles_is_an_error(tiny_target: HubTarget) -> None:
    with pytest.raises(DataError, match="no articles"):
        measure(tiny_target, {}, [], SHORT, gammas=(2,), temperatures=(0,))


# The command.


@pytest.fixture
def command(tiny_target: HubTarget, assistant: T5Drafter, story: str, tmp_path: Path) -> list[str]:
    """The command that times a tiny target and a tiny T5 on one article."""
    tiny_target.model.save_pretrained(tmp_path / "target")
    tiny_target.vocabulary.tokenizer.save_pretrained(tmp_path / "target")
    assistant.save(tmp_path / "small")
    data = tmp_path / "set.jsonl"
    data.write_text(json.dumps({"article": story, "highlights": "A mill burned."}) + "\n")
    return [
        *("bench", "--target", str(tmp_path / "target"), "--data", str(data)),
        *("--lanes", "lookup", "--ckpt_path", str(tmp_path / "small"), "--device", "cpu"),
        *("--gamma", "2", "--temperature", "0", "--max-new-tokens", "8"),
    ]


def test_bench_prints_tables_and_writes_three_files(
    command: list[str], story: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "report"
    assert main([*command, "--out", str(out)]) == 0
    caught = capsys.readouterr()
    assert "1/1 articles, 0 s left" in caught.err
    tree = json.loads((out / "bench.json").read_text())
    assert [lane["name"] for lane in tree["settings"][0]["lanes"]] == [
        *("generate", "assisted", "prompt-lookup"),
        *(measuring.PEERS if peer.installed() else ()),
        *("alone", "lookup", "t5"),
    ]
    assert not [lane for lane in tree["settings"][0]["lanes"] if lane["error"]]
    assert tree["assistant"] == "t5"
    assert (out / "bench.md").read_text().strip() == caught.out.strip()
    page = (out / "bench.html").read_text()
    assert '<section id="pace">' in page
    for text in (caught.out, page, (out / "bench.json").read_text()):
        assert story[50:80] not in text


def test_bench_without_the_lanes_of_transformers(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--no-baselines"]) == 0
    shown = capsys.readouterr().out
    assert "transformers assisted" not in shown
    assert "the text of plain decoding" in shown


def test_bench_of_a_shape(
    tiny_shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ["--target-shape", tiny_shape, "--random-weights", "--profile"]
    shape += ["--drafter-shape", tiny_shape, "lstm", "cnn", "shared"]
    more = ["--alpha", "0.5", "--source-length", "16", "--limit", "1", "--max-new-tokens", "8"]
    few = ["--gamma", "2", "--temperature", "0", "--device", "cpu", "--dtype", "bf16"]
    assert main(["bench", *shape, *more, *few, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "SIMULATED ACCEPTANCE" in shown
    assert "target in bfloat16" in shown
    assert "transformers generate" in shown
    tree = json.loads((tmp_path / "bench.json").read_text())
    assert tree["acceptance"] == "simulated acceptance"
    drafters = [drafter["name"] for drafter in tree["drafters"]]
    assert set(drafters) == {Path(tiny_shape).name, "lstm", "cnn", "shared"}
    assert all(drafter["c"] > 0 for drafter in tree["drafters"])
    profile = (tmp_path / "profile.txt").read_text()
    assert profile in shown
    assert profile.count("Self CPU time total") == 1 + len(drafters)
    assert "Acceptance is simulated" in (tmp_path / "bench.html").read_text()


def test_bench_refuses_what_would_fail_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ["--target-shape", "google/flan-t5-xl"]
    for arguments, message in [
        ([], "--data is missing"),
        (["--data", "x", "--limit", "0"], "--limit 0"),
        (["--data", "x", "--gamma", "99"], "gamma=99"),
        (["--data", "x", "--alpha", "0.5"], "belong to --target-shape"),
        (["--data", str(tmp_path / "x.jsonl")], "no such file"),
        (shape, "add --random-weights"),
        ([*shape, "--random-weights"], "and --alpha N"),
        ([*shape, "--random-weights", "--alpha", "7"], "--alpha 7"),
        ([*shape, "--random-weights", "--alpha", "0.5", "--source-length", "1"], "at least 2"),
    ]:
        assert main(["bench", *arguments]) == 2
        assert message in capsys.readouterr().err
