import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fastllm.errors import CheckpointError
from fastllm.targets.hub import HubTarget
from fastllm.vocabulary import Detokenizer, Vocabulary

TEXTS = [
    "The old mill burned down on Friday night.",
    "The mill 🔥 burned",
    "🔥🔥🔥 three fires, four: 🔥🔥🔥🔥🔥",
    "the mill 👩‍👩‍👧‍👦🇪🇺👍🏽 and on",
    "Zürich, naïve, Łódź, 東京, القاهرة",
    "tea\u200band bread",
    '12,345.67 % of \'em -- "yes"',
    "a",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text(vocabulary: Vocabulary, text: str) -> None:
    ids = vocabulary.encode(text, 500).ids
    pieces = vocabulary.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == vocabulary.decode(ids)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_decodes_to_itself(vocabulary: Vocabulary, text: str) -> None:
    assert vocabulary.decode(vocabulary.encode(text, 500).ids) == text


def test_a_character_of_several_bytes_belongs_to_the_last(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("mill 🔥", 500).ids
    detokenizer = Detokenizer(vocabulary)
    pieces = [detokenizer.push(token) for token in ids]
    fire = next(place for place, piece in enumerate(pieces) if "🔥" in piece)
    assert pieces[fire - 3 : fire] == ["", "", ""]


@pytest.mark.parametrize("count", range(1, 12))
def test_pieces_of_a_text_cut_inside_a_character_join_too(
    vocabulary: Vocabulary, count: int
) -> None:
    ids = vocabulary.encode("the mill 🔥🔥 end", 500).ids[:count]
    assert "".join(vocabulary.pieces(ids)) == vocabulary.decode(ids)


def test_pieces_are_those_of_the_incremental_detokenizer(
    vocabulary: Vocabulary, story: str
) -> None:
    ids = vocabulary.encode(story, 500).ids
    detokenizer = Detokenizer(vocabulary)
    assert vocabulary.pieces(ids) == [detokenizer.push(token) for token in ids]


def test_what_is_saved_does_not_depend_on_what_was_encoded(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    for limit in (5, 7):
        vocabulary.encode("The old mill burned down on Friday night.", limit)
        vocabulary.save(tmp_path / str(limit))
    assert json.loads((tmp_path / "5" / "tokenizer.json").read_text())["truncation"] is None
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        for folder in ("5", "7")
    )
    assert one == other


def test_a_vocabulary_that_cannot_be_written_is_told_like_any_file(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(OSError, match="os error"):
        vocabulary.save(tmp_path)


def test_a_short_article_is_not_cut(vocabulary: Vocabulary, story: str) -> None:
    encoded = vocabulary.encode(story, 500)
    assert encoded.cut_at is None
    assert encoded.ids[-1] == 1
    length = len(encoded.ids)
    assert vocabulary.encode(story, length) == encoded
    assert vocabulary.encode(story + "\n ", length).cut_at is None


@pytest.mark.parametrize("prefix", ["", "summarize: "])
def test_a_long_article_is_cut_where_it_says(
    vocabulary: Vocabulary, story: str, prefix: str
) -> None:
    for limit in (12, 20, 40):
        encoded = vocabulary.encode(story, limit, prefix)
        assert len(encoded.ids) == limit
        assert encoded.ids[-1] == 1, "the end token is inside the limit"
        assert encoded.cut_at is not None
        assert vocabulary.decode(encoded.ids) == prefix + story[: encoded.cut_at]


def test_names_show_where_a_word_begins(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("The mill", 10).ids
    names = vocabulary.names(ids)
    assert "".join(names[token] for token in ids[:-1]) == " The mill"


def test_a_fingerprint_is_of_the_pieces(vocabulary: Vocabulary, tokenizer_folder: str) -> None:
    assert Vocabulary.load(tokenizer_folder).fingerprint == vocabulary.fingerprint
    assert len(vocabulary.fingerprint) == 16
    other = Vocabulary.load(tokenizer_folder)
    other.tokenizer.add_tokens(["surprise"])
    assert other.fingerprint != vocabulary.fingerprint


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer in"):
        Vocabulary.load(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HubTarget.load(tmp_path)


def test_a_tokenizer_that_was_saved_cutting_at_the_left_cuts_at_the_right(
    tokenizer_folder: str, vocabulary: Vocabulary
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, truncation_side="left")
    text = " ".join(["the old mill burned"] * 20)
    found = Vocabulary(tokenizer).encode(text, 12, "summarize: ")
    assert found == vocabulary.encode(text, 12, "summarize: ")
    assert found.cut_at is not None
    assert vocabulary.decode(found.ids[:-1]).startswith("summarize: the")


def test_blanks_that_were_shown_are_not_tidied_up_later() -> None:
    words = ["[UNK]", "he", "did", "##n", "'", "t", "say", ","]
    pieces = models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]")
    rust = Tokenizer(pieces)
    rust.decoder = decoders.WordPiece()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=rust, unk_token="[UNK]", clean_up_tokenization_spaces=True
    )
    vocabulary, ids = Vocabulary(fast), [1, 2, 3, 4, 5, 6, 7]
    detokenizer = Detokenizer(vocabulary)
    assert "".join(map(detokenizer.push, ids)) == vocabulary.decode(ids) == "he didn ' t say ,"


def test_a_run_of_special_tokens_leaves_the_blank_behind_it() -> None:
    """A T5 that was never tuned writes its sentinels in a row; they fill the context otherwise."""
    rust = Tokenizer(models.Unigram([("</s>", 0.0), ("\u2581red", -1.0), ("\u2581sky", -1.0)], 0))
    rust.decoder = decoders.Metaspace()
    made = PreTrainedTokenizerFast(tokenizer_object=rust, eos_token="</s>")
    vocabulary = Vocabulary(made)
    ids = [1, *[0] * 12, 2]
    assert vocabulary.pieces(ids) == ["red", *[""] * 12, " sky"]
    pushed = Detokenizer(vocabulary).push
    assert [pushed(token) for token in ids] == vocabulary.pieces(ids)


def test_names_of_a_vocabulary_of_bytes_are_readable() -> None:
    """BART's: a blank is written as a letter of its own, and every byte as another one."""
    pieces = ["</s>", "\u0120caf\u00c3\u00a9", "\u00c3"]
    rust = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, []))
    rust.decoder = decoders.ByteLevel()
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=rust, eos_token="</s>"))
    assert vocabulary.names([0, 1, 2]) == {0: "</s>", 1: " caf\u00e9", 2: "\u00c3"}
