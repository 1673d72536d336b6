from pathlib import Path

import numpy as np
import pytest

from fastllm.data.articles import Article
from fastllm.data.pairs import prepare_pairs, supported_summary
from fastllm.data.tokens import IGNORED, TokenPairs, batch_indices, padded, write_pairs
from fastllm.errors import DataError
from fastllm.vocabulary import Vocabulary


def test_only_supported_sentences_of_a_summary_are_kept(story: str) -> None:
    summary = "Old mill on the river burned on Friday\nMayor resigns over scandal in parliament"
    assert supported_summary(summary, story) == "Old mill on the river burned on Friday."
    assert supported_summary("Mayor resigns over scandal", story) == ""


def test_prepared_pairs_fit_and_can_be_read_back(
    story: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    articles = [
        Article("a", story, story[: story.index(" The mill had")]),
        Article("short", "Too short to summarise.", "Short."),
        Article("b", story + " " + story, story[: story.index(" A spokeswoman")]),
    ]
    settings = {"source_length": 120, "text_length": 60}
    assert prepare_pairs(articles, vocabulary, tmp_path, **settings) == 2
    pairs = TokenPairs(tmp_path)
    assert pairs.ids == ["a", "b"]
    for index in range(2):
        assert len(pairs.source(index)) <= 120
        assert pairs.source(index)[-1] == pairs.target(index)[-1] == 1
    assert vocabulary.decode(pairs.target(0)) == articles[0].summary
    assert pairs.meta["vocabulary"] == vocabulary.fingerprint
    bare = tmp_path / "bare"
    assert prepare_pairs(articles, vocabulary, bare, **settings, summaries=False) == 2
    assert TokenPairs(bare).target(0) == []
    with pytest.raises(DataError, match="no article gave"):
        prepare_pairs(articles[1:2], vocabulary, tmp_path / "none", **settings)


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
    write_pairs(tmp_path / "damaged", [("1", [5, 1], [1])], {})
    for text in ("[]", "null", '"a"'):
        (tmp_path / "damaged" / "meta.json").write_text(text)
        with pytest.raises(DataError, match="not a folder of token pairs"):
            TokenPairs(tmp_path / "damaged")
    (tmp_path / "meta.json").write_text("{}")
    (tmp_path / "ids.json").write_text("[]")
    for name in ("source", "source_ends", "target", "target_ends"):
        (tmp_path / f"{name}.npy").touch()
    with pytest.raises(DataError, match="an array is empty or cut short"):
        TokenPairs(tmp_path)


def test_a_set_without_pairs_counts_as_unfinished(vocabulary: Vocabulary, tmp_path: Path) -> None:
    """The same command once more, with better articles, makes it: it used to divide by 0."""
    for _ in range(2):
        with pytest.raises(DataError, match="no article gave a pair"):
            prepare_pairs(
                [Article("1", "Short.")], vocabulary, tmp_path, source_length=96, text_length=40
            )
        assert not (tmp_path / "meta.json").exists()
