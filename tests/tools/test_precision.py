"""Where a text in lower precision leaves that of float32, and how close it was there."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from fakes import END, FIRST, FakeTarget, FakeVocabulary
from transformers.utils.logging import enable_progress_bar

from fastllm.data.articles import Article
from fastllm.decoding.race import Race
from fastllm.errors import DataError, VocabularyError
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig
from tools import precision
from tools.precision import LOWER, compare, table

ARTICLES = [Article(id="one", text="abc"), Article(id="two", text="cab")]
SIZE = 8
TEXT = [FIRST, FIRST + 1, FIRST + 2, FIRST + 3]


def target(shift: float = 0.0, noise: float = 0.0) -> FakeTarget:
    """Writes TEXT; its third token is best by 0.5 before its logit is moved down by `shift`."""

    def rule(written: tuple[int, ...]) -> Sequence[float]:
        row = [-9.0 + noise] + [0.0] * (SIZE - 1)
        place = len(written)
        row[TEXT[place] if place < len(TEXT) else END] = 4.0
        if place == 2:
            row[FIRST + 5] = 3.5
            row[FIRST + 4] = 1.0
            row[TEXT[2]] -= shift
        return row

    return FakeTarget(rule)


def test_the_same_text_has_no_divergence() -> None:
    rows = compare(target(), {"bf16": target(0.25, noise=0.125)}, ARTICLES, DecodingConfig())
    for row, article in zip(rows["bf16"], ARTICLES, strict=True):
        assert row == precision.ArticleComparison(article.id, len(TEXT) + 1, 0.25, None)


def test_the_first_difference_is_found_and_measured() -> None:
    others = {"near": target(0.75), "far": target(3.5), "same": target()}
    rows = compare(target(), others, ARTICLES, DecodingConfig(temperature=0.9))
    (row, _) = rows["near"]
    assert row.divergence == precision.Divergence(
        position=2,
        reference_token=TEXT[2],
        token=FIRST + 5,
        reference_margin=0.5,
        margin=0.25,
        rank=2,
    )
    assert row.largest_difference == 0.75
    assert row.tokens == len(TEXT) + 1
    far = rows["far"][0]
    assert far.divergence is not None
    assert (far.divergence.margin, far.largest_difference) == (2.5, 3.5)
    assert [row.divergence for row in rows["same"]] == [None, None]


def test_what_the_rules_bar_is_no_second_best() -> None:
    def end_is_close(best: int) -> FakeTarget:
        return FakeTarget(
            lambda written: [3.9 if i == END else 4.0 * (i == best) for i in range(SIZE)]
        )

    config = DecodingConfig(max_new_tokens=4, min_new_tokens=4)
    one, other = end_is_close(FIRST), end_is_close(FIRST + 1)
    (row,) = compare(one, {"bf16": other}, ARTICLES[:1], config)["bf16"]
    assert row.divergence is not None
    assert (row.divergence.reference_margin, row.divergence.margin) == (4.0, 4.0)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="no articles"):
        compare(target(), {"bf16": target()}, [], DecodingConfig())
    stranger = target()
    stranger.vocabulary = FakeVocabulary("runes")
    with pytest.raises(VocabularyError, match="bf16 has vocabulary runes, the target in fp32 lett"):
        compare(target(), {"bf16": stranger}, ARTICLES, DecodingConfig())


def test_the_table_says_it_in_words() -> None:
    others = {"bf16": target(0.75), "fp16": target()}
    rows = compare(target(), others, ARTICLES, DecodingConfig())
    shown = table(target(), others, rows)
    assert "| 0 of 2 | 2 [2, 2] | 0.5 [0.5, 0.5] | 0.25 [0.25, 0.25] | 0.75 |" in shown
    assert "| fp16 | rule | 2 of 2 | - | - | - | 0 |" in shown
    assert "| two | bf16 | 2 of 5 | 0.5 | 0.25 | 2 |" in shown
    assert "differs after" not in table(target(), others, {"fp16": rows["fp16"]})


@pytest.fixture(scope="module")
def folder(tiny_target: HubTarget, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target")
    tiny_target.model.save_pretrained(path)
    tiny_target.vocabulary.tokenizer.save_pretrained(path)
    return path


def check_real_precisions(folder: Path, story: str, device: str) -> None:
    """Every figure is that of the models themselves, asked once more in one call."""
    pytest.importorskip("bitsandbytes")
    load = {"device": device, "source_length": 96}
    reference = HubTarget.load(folder, **load)
    others = {name: HubTarget.load(folder, load_in=name, **load) for name in LOWER}
    articles = [
        Article(id=str(index), text=text) for index, text in enumerate(story.split(". ")[:4])
    ]
    config = DecodingConfig(max_new_tokens=24)
    found = compare(reference, others, articles, config)
    assert {name: other.engine for name, other in others.items()} == {
        "bf16": "static", "fp16": "static", "8bit": "transformers", "4bit": "transformers",
    }  # fmt: skip
    assert any(row.divergence for row in found["4bit"])
    for name, rows in found.items():
        assert 0 < max(row.largest_difference for row in rows) < 100
        for row, article in zip(rows, articles, strict=True):
            texts = []
            for each in (reference, others[name]):
                race = Race(each, [None], article.text, config)
                for _ in race:
                    pass
                texts.append(race.traces()[0].tokens)
            assert (row.divergence is None) == (texts[0] == texts[1])
            if row.divergence is None:
                continue
            place = row.divergence.position
            assert texts[0][:place] == texts[1][:place]
            assert texts[0][place] == row.divergence.reference_token
            assert texts[1][place] == row.divergence.token != row.divergence.reference_token
            ids = reference.vocabulary.encode(article.text, 96).ids
            session = reference.begin(reference.encode(ids))
            logits = session.forward([reference.start_id, *texts[0][:place]])[-1].float()
            first, second = logits.topk(2).values.tolist()
            assert row.divergence.reference_margin == pytest.approx(first - second, abs=1e-3)
            assert row.divergence.reference_margin <= 2 * row.largest_difference
    errors = {name: sum(row.largest_difference for row in rows) for name, rows in found.items()}
    assert errors["fp16"] < errors["bf16"] < errors["4bit"]
    assert errors["8bit"] < errors["4bit"]


def test_every_precision_for_real(folder: Path, story: str) -> None:
    check_real_precisions(folder, story, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_every_precision_for_real_on_cuda(folder: Path, story: str) -> None:
    check_real_precisions(folder, story, "cuda")


def test_the_command(
    folder: Path, story: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "articles.jsonl"
    lines = [{"id": name, "article": story, "highlights": ""} for name in ("a", "b", "c")]
    data.write_text("\n".join(map(json.dumps, lines)))
    enable_progress_bar()
    given = [
        "--target", str(folder), "--in", "bf16", "fp16", "--data", str(data), "--limit", "2",
        "--max-new-tokens", "6", "--device", "cpu",
    ]  # fmt: skip
    assert precision.main(given) == 0
    shown = capsys.readouterr()
    assert "| bf16 | static |" in shown.out
    assert shown.err == "2/2 articles\n", "and no bars"
    assert "2 articles, " in shown.out


def test_the_command_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, words in (
        (["--limit", "0"], "give at least 1"),
        (["--max-new-tokens", "0"], "max_new_tokens=0 is out of range"),
        (["--device", "99"], "there is no such device here"),
    ):
        assert precision.main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("precision: ")
        assert words in said
    monkeypatch.setattr("fastllm.paths.ARTICLES", Path("nowhere"))
    assert precision.main([]) == 2
    assert "nowhere holds no sample articles" in capsys.readouterr().err
    for wrong in (["--in", "fp32"], ["--top-p", "0.5"]):
        with pytest.raises(SystemExit, match="2"):
            precision.main(wrong)
