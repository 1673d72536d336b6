from pathlib import Path

import numpy as np
import pytest

from fastllm.data.articles import Article, split_sentences
from fastllm.data.tokens import IGNORED, TokenPairs, batch_indices, padded, write_pairs
from fastllm.errors import DataError, SettingsError
from fastllm.pretrain.headline_style import QUOTES, brief
from fastllm.pretrain.pairs import central_sentences, supported_summary
from fastllm.pretrain.prepare import copied_pairs, prepare_pairs
from fastllm.vocabulary import Vocabulary


def test_central_sentences_share_most_words_with_the_rest(story: str) -> None:
    assert central_sentences(story, count=1) == (
        "The mill had stood empty for eleven years, but the town wanted to turn it into a museum."
    )


def test_a_sentence_that_the_cut_left_unfinished_is_never_chosen(story: str) -> None:
    cut = story[: story.index("into a museum")]
    assert "turn it" not in central_sentences(cut)
    assert central_sentences("Too short. So is this.") == ""


def test_the_lead_comes_first_and_quotations_can_be_refused(story: str) -> None:
    first = split_sentences(story)[0]
    assert central_sentences(story, count=1) != first
    assert central_sentences(story, count=1, lead=True) == first
    ending = " The empty mill will be a museum of the town after all."
    assert central_sentences(story + ending, lead=True) == first + ending
    quoted = story.replace("The mill had", '"The mill had').replace("a museum.", 'a museum".')
    assert "museum" in central_sentences(quoted)
    assert "museum" not in central_sentences(quoted, refused=QUOTES)


def test_only_supported_sentences_of_a_summary_are_kept(story: str) -> None:
    summary = "Old mill on the river burned on Friday\nMayor resigns over scandal in parliament"
    assert supported_summary(summary, story) == "Old mill on the river burned on Friday."
    assert supported_summary("Mayor resigns over scandal", story) == ""


def test_copied_pairs() -> None:
    assert copied_pairs([5, 6, 7, 8], [5, 6, 7, 1]) == 1.0
    assert copied_pairs([5, 6, 7, 8], [6, 5, 7, 8, 1]) == pytest.approx(1 / 3)


def test_prepared_pairs_fit_and_can_be_read_back(
    story: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    articles = [
        Article("a", story, story[: story.index(" The mill had")]),
        Article("short", "Too short to summarise.", "Short."),
        Article("b", story + " " + story, story[: story.index(" A spokeswoman")]),
    ]
    settings = {"kind": "extractive", "source_length": 120, "text_length": 60}
    assert prepare_pairs(articles, vocabulary, tmp_path, **settings) == 2
    pairs = TokenPairs(tmp_path)
    assert pairs.ids == ["a", "b"]
    for index in range(2):
        assert len(pairs.source(index)) <= 120
        assert pairs.source(index)[-1] == pairs.target(index)[-1] == 1
    assert vocabulary.decode(pairs.target(0)) == articles[0].summary
    assert pairs.meta["vocabulary"] == vocabulary.fingerprint
    with pytest.raises(SettingsError, match="kind='poem'"):
        prepare_pairs(articles, vocabulary, tmp_path, **{**settings, "kind": "poem"})
    with pytest.raises(DataError, match="no article gave"):
        prepare_pairs(articles[1:2], vocabulary, tmp_path / "none", **settings)


def test_ticker_pairs_are_shorter_than_the_sentences_they_come_from(
    story: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    lengths = {"source_length": 200, "text_length": 90}
    article = Article("a", story + " The empty mill will be a museum of the town on Monday.")
    assert prepare_pairs([article], vocabulary, tmp_path, kind="brief-lead", **lengths) == 1
    text = vocabulary.decode(TokenPairs(tmp_path).target(0))
    whole = central_sentences(article.text, lead=True, refused=QUOTES)
    assert len(text) < len(whole)
    assert text[:16] == whole[:16]
    assert text == " ".join(map(brief, split_sentences(whole)))


def test_batches_visit_every_pair_once_an_epoch(tmp_path: Path) -> None:
    rows = [(str(i), [9] * 3, [5] * (1 + i % 7)) for i in range(100)]
    write_pairs(tmp_path, rows, {})
    pairs = TokenPairs(tmp_path)
    epoch = [batch_indices(pairs, 10, step, seed=4) for step in range(10)]
    assert sorted(index for batch in epoch for index in batch) == list(range(100))
    assert batch_indices(pairs, 10, 3, seed=4) == epoch[3]
    assert batch_indices(pairs, 10, 13, seed=4) != epoch[3]
    assert batch_indices(pairs, 10, 3, seed=5) != epoch[3]
    spread = [np.ptp([len(pairs.target(index)) for index in batch]) for batch in epoch]
    assert max(spread) <= 2  # like lengths together


@pytest.mark.parametrize(("largest", "bytes_each"), [(65_535, 2), (65_536, 4), (250_111, 4)])
def test_ids_of_any_vocabulary_come_back(largest: int, bytes_each: int, tmp_path: Path) -> None:
    write_pairs(tmp_path, [("a", [3, 4], [5]), ("b", [largest, 0], [largest, 1])], {})
    pairs = TokenPairs(tmp_path)
    assert [pairs.source(0), pairs.target(0)] == [[3, 4], [5]]
    assert [pairs.source(1), pairs.target(1)] == [[largest, 0], [largest, 1]]
    assert np.load(tmp_path / "source.npy").itemsize == bytes_each


def test_padding() -> None:
    assert padded([[5, 6], [7]], 0).tolist() == [[5, 6], [7, 0]]
    assert padded([[]], IGNORED).tolist() == [[IGNORED]]


def test_a_folder_that_is_no_set_of_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder of token pairs"):
        TokenPairs(tmp_path)
