"""`generate` and `stream`: the text of the Trace, token by token, whoever is told."""

import copy
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeTarget, ScriptedDrafter, sometimes, text_rule
from transformers import TextIteratorStreamer, TextStreamer

import fastllm
from fastllm import api
from fastllm.drafters.lookup import ArticleLookup
from fastllm.drafters.lstm import LstmDrafter
from fastllm.errors import CheckpointError, DataError, SettingsError, VocabularyError
from fastllm.metrics import target_calls
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

ROOT = Path(__file__).resolve().parent.parent
TEXT = (5, 6, 7, 8, 9, 10, 11, 4, 3, 2, 6)


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    yield
    api.forget()


@pytest.fixture(scope="module")
def folder(tiny_target: HubTarget, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target that `save_pretrained` wrote."""
    path = tmp_path_factory.mktemp("target")
    tiny_target.model.save_pretrained(path)
    tiny_target.vocabulary.tokenizer.save_pretrained(path)
    return path


class Listener:
    """Remembers what a streamer is told."""

    def __init__(self) -> None:
        self.told: list[torch.Tensor] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        assert not self.ended
        self.told.append(value)

    def end(self) -> None:
        self.ended += 1


def written() -> tuple[FakeTarget, ScriptedDrafter]:
    return FakeTarget(text_rule(TEXT, 30)), sometimes(TEXT)


def test_the_trace_is_that_of_the_target_and_the_drafter(
    tiny_target: HubTarget, story: str
) -> None:
    alone = fastllm.generate(story, tiny_target, None, max_new_tokens=20)
    trace = fastllm.generate(story, tiny_target, ArticleLookup(), max_new_tokens=20, gamma=3)
    assert (alone.drafter, trace.drafter) == ("", "article lookup")
    assert trace.tokens == alone.tokens
    assert trace.text == alone.text
    assert trace.config == replace(alone.config, gamma=3)
    assert any(entry.kind == "speculative" for entry in trace.rounds)
    assert not any(test.target_best for entry in alone.rounds for test in entry.judged)
    plain = fastllm.generate(story, tiny_target, None, statistics=False, max_new_tokens=2)
    assert [entry.extra_best for entry in plain.rounds] == [(), ()]


def test_settings_go_over_a_config(tiny_target: HubTarget, story: str) -> None:
    base = DecodingConfig(temperature=0.7, max_new_tokens=3, seed=4)
    trace = fastllm.generate(story, tiny_target, None, base, seed=5)
    assert (trace.config.temperature, trace.config.max_new_tokens, trace.config.seed) == (0.7, 3, 5)
    with pytest.raises(SettingsError, match="gama, top: no such setting.*gamma, temperature"):
        fastllm.generate(story, tiny_target, None, gama=3, top=1)
    with pytest.raises(SettingsError, match="gamma=99 is out of range"):
        fastllm.generate(story, tiny_target, None, gamma=99)


def test_each_token_says_where_it_came_from() -> None:
    target, drafter = written()
    steps = list(fastllm.stream("abc", target, drafter, gamma=4))
    *calls, last = steps
    assert last.trace is not None
    assert last.round is None
    assert last.tokens == ()
    assert all(step.trace is None for step in calls)
    assert [step.round for step in calls] == list(last.trace.rounds)
    for step in calls:
        assert step.round is not None
        origins = [token.origin for token in step.tokens]
        assert [token.id for token in step.tokens] == list(step.round.tokens)
        assert origins[: step.round.accepted] == ["accepted"] * step.round.accepted
        assert origins[step.round.accepted :] == [
            kind for kind in [step.round.extra_kind] if kind is not None
        ]
    assert {token.origin for step in calls for token in step.tokens} >= {
        "accepted", "correction", "plain",
    }  # fmt: skip
    assert [step.seconds for step in calls] == sorted(step.seconds for step in calls)
    assert calls[-1].tokens[-1].text == ""  # the end token


@pytest.mark.parametrize("most", [1, 7, 8, 9, 10, 11, 12, 30])
def test_the_pieces_are_the_text(most: int, tiny_target: HubTarget, story: str) -> None:
    """Random texts of a byte vocabulary break off inside characters; the last step makes up."""
    for seed in range(6):
        steps = list(
            fastllm.stream(
                story, tiny_target, "lookup", temperature=2.0, seed=seed, max_new_tokens=most
            )
        )
        trace = steps[-1].trace
        assert trace is not None
        assert "".join(step.text for step in steps) == trace.text
        for step in steps[:-1]:
            assert "".join(token.text for token in step.tokens) == step.text


def test_a_text_that_ends_inside_a_character_is_completed(
    tiny_target: HubTarget, vocabulary: Any
) -> None:
    ids = vocabulary.tokenizer("snow ☃", add_special_tokens=False)["input_ids"]
    assert "\N{REPLACEMENT CHARACTER}" in vocabulary.decode(ids[:-1])  # bytes of one character
    target = FakeTarget(text_rule(ids, len(vocabulary.tokenizer)))
    target.vocabulary = vocabulary
    whole = list(fastllm.stream("abc", target, None))
    assert "".join(step.text for step in whole) == "snow ☃"
    cut = list(fastllm.stream("abc", target, None, max_new_tokens=len(ids) - 1))
    assert cut[-1].trace is not None
    assert cut[-1].text  # what no token had shown
    assert "".join(step.text for step in cut) == cut[-1].trace.text


def test_streamers_are_told_what_generate_tells_them() -> None:
    target, drafter = written()
    listener = Listener()
    trace = fastllm.generate("abc", target, drafter, streamer=listener)
    assert listener.ended == 1
    first, *rest = listener.told
    assert first.tolist() == [[target.start_id]]
    assert all(value.dtype == torch.long and value.device.type == "cpu" for value in rest)
    assert [tuple(value.tolist()) for value in rest] == [entry.tokens for entry in trace.rounds]


def test_the_text_streamer_of_transformers_prints_the_text(
    tiny_target: HubTarget, story: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tiny_target.vocabulary.tokenizer
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    trace = fastllm.generate(story, tiny_target, "lookup", max_new_tokens=24, streamer=streamer)
    assert capsys.readouterr().out == trace.text + "\n"


def test_the_iterator_streamer_of_transformers_gives_the_text(
    tiny_target: HubTarget, story: str
) -> None:
    tokenizer = tiny_target.vocabulary.tokenizer
    streamer = TextIteratorStreamer(
        tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60
    )
    traces: list[fastllm.Trace] = []

    def work() -> None:
        traces.append(
            fastllm.generate(story, tiny_target, "lookup", max_new_tokens=24, streamer=streamer)
        )

    thread = threading.Thread(target=work)
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == traces[0].text


def test_who_stops_early_leaves_nothing_running() -> None:
    target, drafter = written()
    before = threading.active_count()
    listener = Listener()
    steps = fastllm.stream("abc", target, drafter, streamer=listener)
    next(steps)
    calls = target.sessions[0].calls
    assert calls == 1
    assert threading.active_count() == before
    steps.close()  # type: ignore[attr-defined]
    assert listener.ended == 1
    assert target.sessions[0].calls == calls
    assert list(steps) == []


def test_a_streamer_hears_of_the_end_even_where_nothing_is_written() -> None:
    target, _ = written()
    listener = Listener()
    with pytest.raises(DataError, match="article is empty"):
        fastllm.generate("  ", target, None, streamer=listener)
    assert listener.ended == 1

    class Broken:
        name, vocabulary = "broken", ""

        def begin(self, encoding: Any) -> Any:
            raise RuntimeError("out of memory")

    listener = Listener()
    with pytest.raises(RuntimeError, match="out of memory"):
        fastllm.generate("abc", target, Broken(), streamer=listener)
    assert listener.ended == 1


def test_an_article_too_long_is_cut() -> None:
    target, drafter = written()
    article = "abcdefghij" * 9  # one token a letter; the target reads 64, the end token included
    assert fastllm.generate(article, target, drafter).cut_at == 63
    assert fastllm.generate(article[:63], target, drafter).cut_at is None
    for wrong in (None, [article], b"abc"):
        with pytest.raises(DataError, match="give one text"):
            fastllm.generate(wrong, target, drafter)  # type: ignore[arg-type]


def test_models_are_loaded_once_by_name(folder: Path, story: str) -> None:
    def run() -> Any:
        trace = fastllm.generate(story, folder, device="cpu", max_new_tokens=3)
        assert trace.drafter == "article lookup"  # what fits any target
        return api._kept(api._target, folder, "cpu")

    first = run()
    assert run() is first
    (folder / "config.json").write_text((folder / "config.json").read_text())
    written_anew = run()
    assert written_anew is not first
    api.forget()
    assert run() is not written_anew


def test_the_shipped_pair_is_the_default() -> None:
    article = sorted((ROOT / "assets" / "articles").glob("*.txt"))[0].read_text(encoding="utf-8")
    trace = fastllm.generate(article, device="cpu", max_new_tokens=24)
    assert trace.drafter == "shared-after"
    alone = fastllm.generate(article, drafter=None, device="cpu", max_new_tokens=24)
    assert trace.text == alone.text
    assert target_calls(trace) < target_calls(alone)


def test_what_does_not_fit_is_refused(folder: Path, story: str, tiny_target: HubTarget) -> None:
    with pytest.raises(VocabularyError, match="Distil a drafter for this target"):
        fastllm.generate(story, folder, "lstm-after", device="cpu")
    with pytest.raises(CheckpointError, match="lstm-after holds a drafter .family lstm., not a"):
        fastllm.generate(story, "lstm-after")
    with pytest.raises(CheckpointError, match="nowhere does not exist. Give a drafter's folder"):
        fastllm.generate(story, tiny_target, folder / "nowhere")
    with pytest.raises(SettingsError, match="load_target"):
        fastllm.generate(story, tiny_target, "lookup", device="cpu")
    with pytest.raises(DataError, match="character 4 of the article is half of a surrogate pair"):
        fastllm.generate("Rain\ud800 fell.", tiny_target, None)
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(CheckpointError, match="names no checkpoint"):
            fastllm.generate(story, tiny_target, name)
        with pytest.raises(CheckpointError, match="names no checkpoint"):
            fastllm.generate(story, name, None)
    with pytest.raises(SettingsError, match="streamer=3: give what has `put` and `end`"):
        fastllm.generate(story, tiny_target, None, streamer=3)  # type: ignore[arg-type]
    for setting in ("forced_first", "forced_last"):
        with pytest.raises(
            SettingsError, match=f"{setting}=100000: the target has the tokens 0 to"
        ):
            fastllm.generate(story, tiny_target, None, **{setting: 100_000})
    prefixed = copy.copy(tiny_target)
    prefixed.prefix = "a\udc80: "
    with pytest.raises(DataError, match="a character of the prefix is half of a surrogate pair"):
        fastllm.generate(story, prefixed, None)
    with pytest.raises(SettingsError, match="config is of type dict: give a DecodingConfig"):
        fastllm.generate(story, tiny_target, None, config={"gamma": 3})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="target=None: give a name, a folder, or what load_t"):
        fastllm.generate(story, None, None)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="drafter=True: .* or None for the target alone"):
        fastllm.generate(story, tiny_target, True)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="'gpu' is no name of a device"):
        fastllm.generate(story, folder, device="gpu")
    with pytest.raises(SettingsError, match="device='cuda:99': there is no such device here"):
        fastllm.generate(story, folder, device="cuda:99")


def test_a_callers_autocast_changes_nothing(tiny_target: HubTarget, story: str) -> None:
    drafter = LstmDrafter.fresh(tiny_target.logit_count, width=24, mixing=16, places=16)
    for lane in (None, drafter):
        settings: Any = {"max_new_tokens": 12, "temperature": 1.0}
        plain = fastllm.generate(story, tiny_target, lane, **settings)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            steps = fastllm.stream(story, tiny_target, lane, **settings)
            first = next(steps)
            assert torch.is_autocast_enabled("cpu"), "the caller's own work goes on as it did"
            *_, last = steps
        assert first.round is not None
        assert last.trace is not None
        assert last.trace.tokens == plain.tokens


def test_what_a_target_asks_for_in_vain_stands_in_the_trace(
    tiny_target: HubTarget, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_target, "unsupported", ("repetition_penalty=1.3",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = fastllm.generate(story, tiny_target, None, max_new_tokens=2)
    assert trace.versions["settings not applied"] == "repetition_penalty=1.3"
    assert fastllm.Trace.from_json(trace.to_json()) == trace


def test_public_names_come_when_they_are_asked_for() -> None:
    for name in fastllm.__all__:
        assert getattr(fastllm, name) is not None
    assert set(fastllm.__all__) <= set(dir(fastllm))
    with pytest.raises(AttributeError, match="no attribute 'genrate'"):
        fastllm.genrate  # noqa: B018
    code = (
        "import sys, fastllm; fastllm.Trace, fastllm.DecodingConfig, fastllm.FastLLMError, "
        "dir(fastllm); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("places", [("cuda", "cpu"), ("cpu", "cuda"), ("cuda:0", "cuda:1")])
def test_target_and_drafter_may_be_on_different_devices(
    places: tuple[str, str], temperature: float, story: str
) -> None:
    if "cuda:1" in places and torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    for drafter in ("lstm-after", "t5-after", "ngram-after", "lookup"):
        trace = fastllm.generate(
            story,
            drafter=fastllm.load_drafter(drafter, device=places[1]),
            device=places[0],
            temperature=temperature,
            max_new_tokens=24,
        )
        assert any(entry.kind == "speculative" for entry in trace.rounds)
