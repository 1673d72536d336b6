"""Span corruption, and detection of replaced tokens, as a curriculum asks for them."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_windows import write_tiny_windows
from transformers import T5ForConditionalGeneration

from fastllm.data.tokens import IGNORED
from fastllm.errors import DataError, SettingsError
from fastllm.pretrain import spans
from fastllm.pretrain.copying_start import t5_config
from fastllm.pretrain.curriculum import CurriculumStage, TargetRecipe, train_target
from fastllm.pretrain.spans import Detector, SpanBatches, corrupt, sentinels
from fastllm.pretrain.windows import Window, Windows, write_windows
from fastllm.vocabulary import Vocabulary

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, story: str, vocabulary: Vocabulary) -> Path:
    folder = write_tiny_windows(tmp_path_factory.mktemp("windows"), story, vocabulary)
    shutil.rmtree(folder / "validation")
    return folder


def restored(source: list[int], text: list[int], marks: list[int]) -> list[int]:
    """What was corrupted: each mark of `source` replaced by its span of `text`."""
    at = [place for place, token in enumerate(text) if token in marks]
    own = {text[i]: text[i + 1 : j] for i, j in zip(at, at[1:], strict=False)}
    return [token for mark in source for token in own.get(mark, [mark])]


@pytest.mark.parametrize("length", [2, 8, 9, 60, 250, 511])
@pytest.mark.parametrize("count", [2, 44])
def test_source_and_spans_give_the_article_back(length: int, count: int) -> None:
    marks = list(range(1000, 1000 + count))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ids = rng.integers(1000, size=length).tolist()
        source, text = corrupt(ids, marks, rng)
        assert restored(source, text, marks) == ids
        found = [token for token in source if token in marks]
        assert found == marks[: len(found)], "marks stand in their order"
        assert [token for token in text if token in marks] == marks[: len(found) + 1]
        assert text[-1] == marks[len(found)]
        hidden = len(text) - len(found) - 1
        assert hidden == max(1, round(0.15 * length))
        assert len(found) == min(max(1, round(hidden / 3)), count - 1)


def test_spans_fall_everywhere_and_have_many_lengths() -> None:
    marks, lengths, hidden = list(range(1000, 1040)), set(), np.zeros(60)
    for seed in range(200):
        source, text = corrupt(list(range(60)), marks, np.random.default_rng(seed))
        left_out = np.setdiff1d(np.arange(60), source)
        hidden[left_out] += 1
        lengths |= {
            len(run) for run in np.split(left_out, np.flatnonzero(np.diff(left_out) > 1) + 1)
        }
    assert lengths >= {1, 2, 3, 4, 5}
    assert (hidden[1:] > 0).all()


def test_sentinels_are_pieces_that_no_text_has(vocabulary: Vocabulary, story: str) -> None:
    marks = sentinels(vocabulary)
    assert len(set(marks)) == len(marks) >= 44
    strange = story + " \t\r\n\u2029 Ünïcödé £ 漢字 \U0001f600 \u200b ÿ"
    assert not set(marks) & set(vocabulary.encode(strange, 10_000).ids)


def test_a_vocabulary_without_bytes_is_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path)
    tokenizer = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(tokenizer.replace("<0xF5>", "<no>"))
    with pytest.raises(SettingsError, match="0xF5"):
        sentinels(Vocabulary.load(tmp_path))


def test_batches_are_parts_of_articles_by_seed_and_step(
    folder: Path, vocabulary: Vocabulary
) -> None:
    windows, marks = Windows(folder), sentinels(vocabulary)
    articles = [windows.articles[i].tolist() for i in range(len(windows.articles))]

    def batches(seed: int = 0, length: int = 64) -> SpanBatches:
        return SpanBatches(windows, source_length=length, batch=4, seed=seed, device=CPU)

    begun = set()
    for step in range(8):
        source, text, masked = batches()(step)
        assert not masked
        assert len(source) == len(text) == 4
        assert source.shape[1] <= 64
        for own, wanted in zip(source.tolist(), text.tolist(), strict=True):
            wanted = [token for token in wanted if token != IGNORED]
            before = windows.meta["prefix_ids"]
            assert own[: len(before)] == before
            assert own[-1] == wanted[-1] == windows.meta["end_id"]
            ids = restored(own[len(before) : -1], wanted[:-1], marks)
            assert len(ids) == 64 - len(before) - 1
            places = [
                (number, at)
                for number, article in enumerate(articles)
                for at in range(len(article))
                if article[at : at + len(ids)] == ids
            ]
            assert places, "a part of an article"
            begun.update(places)
        for same, again in zip((source, text), batches()(step)[:2], strict=True):
            assert torch.equal(same, again)
        assert not torch.equal(source, batches(seed=1)(step)[0])
    assert len({number for number, _ in begun}) > 4
    assert len({at for _, at in begun}) > 4
    # Articles shorter than the window are read whole; those of next to nothing not at all.
    source, _, _ = batches(length=1000)(0)
    assert source.shape[1] <= max(map(len, articles)) + len(windows.meta["prefix_ids"]) + 1


def test_short_articles_pad_a_batch_and_shorter_ones_are_refused(
    story: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    def written(name: str, *articles: str) -> SpanBatches:
        rows = [(text, [Window("start", 0, len(text), "Rain.")]) for text in articles]
        write_windows(tmp_path / name, rows, vocabulary)
        windows = Windows(tmp_path / name)
        return SpanBatches(windows, source_length=64, batch=8, seed=0, device=CPU)

    source, text, masked = written("two", story, story[:60])(0)
    assert masked
    assert (source == 0).any()
    assert text.shape[1] % 16 == 0
    with pytest.raises(DataError, match="no article has 8 tokens"):
        written("none", "A")


def _toy(vocabulary: Vocabulary) -> tuple[T5ForConditionalGeneration, Detector]:
    torch.manual_seed(0)
    target = T5ForConditionalGeneration(t5_config(len(vocabulary.tokenizer), 32, 4, 2, 2, 32))
    return target, Detector(target, vocabulary)


def test_detection_is_learnt_by_the_encoder(folder: Path, vocabulary: Vocabulary) -> None:
    windows = Windows(folder)
    batches = SpanBatches(windows, source_length=40, batch=8, seed=0, device=CPU)
    target, detector = _toy(vocabulary)
    weights = torch.nn.ModuleList([target, detector]).parameters()
    optimizer = torch.optim.AdamW(weights, lr=3e-3)
    found = []
    for step in range(80):
        source, text, masked = batches(step)
        losses = detector.losses(target, source, text, masked=masked, seed=step)
        expected = losses["text"] + losses["generator"] + 10 * losses["detection"]
        assert torch.equal(losses["loss"], expected)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        found.append([losses[name].item() for name in ("detection", "generator", "text")])
    first, last = np.mean(found[:8], axis=0), np.mean(found[-8:], axis=0)
    assert (last < [0.6, 0.8, 0.8] * first).all(), (first, last)


def test_only_tokens_of_the_article_are_replaced_and_all_are_judged(
    story: str, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, detector = _toy(vocabulary)
    marks = sentinels(vocabulary)
    ids = vocabulary.encode(story, 40).ids[:-1]
    long, text = corrupt(ids, marks, np.random.default_rng(0))
    short = [*long[:3], marks[0], 1]  # three tokens that can be replaced
    source = torch.zeros(2, len(long) + 1, dtype=torch.long)
    source[0, : len(long) + 1] = torch.tensor([*long, 1])
    source[1, : len(short)] = torch.tensor(short)
    read = []

    def spying(model: object, ids: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        read.append(ids)
        return encode(model, ids, seen)

    encode = spans.encode
    monkeypatch.setattr(spans, "encode", spying)
    own = torch.tensor([text, text])
    losses = detector.losses(target, source, own, masked=True, seed=3)
    asked, replaced = read
    fixed = torch.isin(source, torch.tensor([*marks, 0, 1]))
    assert torch.equal(asked[fixed], source[fixed])
    assert torch.equal(replaced[fixed], source[fixed])
    asked_for = (asked != source).sum(1)
    assert asked_for.tolist() == [round(0.15 * source.shape[1]), 3]
    assert (asked[asked != source] == marks[-1]).all()
    assert ((replaced != source) <= (asked != source)).all()
    assert (replaced != source).any()
    # The loss by hand: of the places that are not fixed, each as much.
    states = encode(target, replaced, source != 0)
    said = torch.sigmoid(detector.head(states).squeeze(-1))
    right = torch.where(replaced != source, said, 1 - said)
    torch.testing.assert_close(losses["detection"], -right[~fixed].log().mean())
    same = detector.losses(target, source, own, masked=True, seed=3)
    assert torch.equal(same["loss"], losses["loss"])
    assert not torch.equal(
        detector.losses(target, source, own, masked=True, seed=4)["loss"], losses["loss"]
    )


# In a curriculum.

RECIPE = TargetRecipe(
    name="small",
    stages=(
        CurriculumStage(
            "spans", 60, {"spans+detection": 2, "start": 1}, 6, warmup=1, batch=2, detection=4
        ),
        CurriculumStage("sentences", 60, {"start": 1}, 2, warmup=1, batch=2),
    ),
    vocabulary_size=600,
    width=32,
    heads=4,
    encoder_layers=2,
    decoder_layers=2,
    feed_forward=32,
)


def train(folder: Path, run: Path, recipe: TargetRecipe = RECIPE) -> Path:
    return train_target(recipe, folder, run, device=CPU, say=lambda line: None)


@pytest.fixture(scope="module")
def unbroken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("unbroken")
    train(folder, run)
    return run


def test_head_and_generator_are_dropped_when_saved(folder: Path, unbroken: Path) -> None:
    kept = load_file(unbroken / "checkpoint" / "model.safetensors")
    plain = T5ForConditionalGeneration(t5_config(600, 32, 4, 2, 2, 32))
    assert {name: value.shape for name, value in kept.items()} == {
        name: value.shape
        for name, value in plain.state_dict().items()
        if name
        not in ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    }
    stage = load_file(unbroken / "spans" / "last" / "model.safetensors")
    assert any(name.startswith("detector.head") for name in stage), "a run could not go on"
    later = load_file(unbroken / "sentences" / "last" / "model.safetensors")
    assert not any(name.startswith("detector") for name in later)


def test_detection_changes_the_first_updates_alone(
    folder: Path, unbroken: Path, tmp_path: Path
) -> None:
    first = RECIPE.stages[0]
    plain = replace(first, mixture={"spans": 2, "start": 1}, detection=0)
    train(folder, tmp_path / "plain", replace(RECIPE, stages=(plain,)))
    settings = json.loads((tmp_path / "plain" / "spans" / "config.json").read_text())
    assert "detection" not in settings, "runs of earlier versions could not go on"
    weights = [
        load_file(run / "spans" / "last" / "model.safetensors")
        for run in (tmp_path / "plain", unbroken)
    ]
    assert not torch.equal(weights[0]["shared.weight"], weights[1]["shared.weight"])
    states = torch.load(unbroken / "spans" / "last" / "optimizer.pt", weights_only=True)
    counts = {int(state["step"]) for state in states["optimizer"]["state"].values()}
    # Updates 0, 1 and 3 detect; of the six, the generator and the head learn in these alone.
    assert counts == {3, 6}


@pytest.mark.parametrize("step", [1, 4])
def test_a_broken_run_ends_with_the_same_bits(
    folder: Path, unbroken: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = SpanBatches.__call__

    def breaking(self: SpanBatches, at: int) -> tuple[torch.Tensor, torch.Tensor, bool]:
        if at == step - step // 3:  # batches of spans are two of three
            signal.raise_signal(signal.SIGINT)
        return called(self, at)

    with monkeypatch.context() as patched:
        patched.setattr(SpanBatches, "__call__", breaking)
        with pytest.raises(KeyboardInterrupt):
            train(folder, tmp_path)
    saved = torch.load(tmp_path / "spans" / "last" / "optimizer.pt", weights_only=True)
    assert saved["step"] == step + 1
    train(folder, tmp_path)
    for name in ("spans/last", "checkpoint"):
        found = (tmp_path / name / "model.safetensors").read_bytes()
        assert found == (unbroken / name / "model.safetensors").read_bytes(), name


@pytest.mark.parametrize(
    ("mixture", "detection"), [({"spans+detection": 1}, 0), ({"spans": 1}, 5), ({"start": 1}, -1)]
)
def test_for_how_many_updates_is_said_where_there_is_detection(
    mixture: dict[str, int], detection: int
) -> None:
    with pytest.raises(SettingsError, match="detection"):
        CurriculumStage("spans", 60, mixture, 10, detection=detection)
