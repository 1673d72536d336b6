import bz2
import gzip
import json
import lzma
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fastllm.data.articles import read_articles, read_split, read_text, split_sentences
from fastllm.errors import DataError

ROWS = [
    {"id": "one", "article": "Ein Fluß.", "highlights": "Water.", "source": "test"},
    {"article": "No id, no summary."},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS) + "\n"


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.xz"])
def test_reads_plain_and_compressed_lines(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"news.{ending}"
    packed = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.xz": lzma.compress}[ending]
    path.write_bytes(packed(LINES.encode()))
    first, second = read_articles(path)
    assert (first.id, first.text, first.summary) == ("one", "Ein Fluß.", "Water.")
    assert (second.id, second.summary) == ("2", "")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{not json", "not JSON"),
        ('["a list"]', 'text field "article"'),
        ('{"text": "other field"}', 'text field "article"'),
        ('{"article": 7}', 'text field "article"'),
        ('{"article": "a", "highlights": ["b"]}', '"highlights" must be text'),
    ],
)
def test_a_bad_line_is_refused_with_file_and_number(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "news.jsonl"
    path.write_text(LINES.rstrip("\n") + "\n" + line + "\n")
    with pytest.raises(DataError, match="line 3") as caught:
        list(read_articles(path))
    assert why in str(caught.value)
    assert "news.jsonl" in str(caught.value)


def test_missing_and_truncated_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_articles(tmp_path / "none.jsonl"))
    path = tmp_path / "cut.jsonl.xz"
    path.write_bytes(lzma.compress(LINES.encode() * 50)[:-20])
    with pytest.raises(DataError, match="not readable"):
        list(read_articles(path))
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"article": "Fluß"}'.encode("latin-1"))
    with pytest.raises(DataError, match="not readable"):
        list(read_articles(path))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('Mr. Lee met Sen. Ann B. Cole. "Good." She left.', 4),
        ("It cost $1.50 in the U.S. last year. Nobody paid.", 2),
        ("First line\nSecond line", ["First line", "Second line"]),
        (
            "On the last Sept. 5 he won. ASept. 5 won.",
            ["On the last Sept. 5 he won.", "ASept.", "5 won."],
        ),
        ("", []),
    ],
)
def test_split_sentences(text: str, sentences: list[str] | int) -> None:
    found = split_sentences(text)
    if isinstance(sentences, list):
        assert found == sentences
    else:
        assert " ".join(found) == text
        assert len(found) == sentences if sentences == 2 else len(found) >= 3


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.xz"])
def test_a_file_that_was_cut_off_is_refused_behind_its_last_whole_line(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"cut.{ending}"
    noise = [f"{number * 7919 % 104729:x}" for number in range(4000)]
    lines = "".join(json.dumps({"article": word}) + "\n" for word in noise)
    packed = gzip.compress(lines.encode()) if "gz" in ending else lzma.compress(lines.encode())
    path.write_bytes(packed[: len(packed) * 3 // 4])
    read: list[str] = []
    with pytest.raises(DataError, match=rf"cut.{ending}, after line \d+: not readable") as error:
        read.extend(article.text for article in read_articles(path))
    assert 100 < len(read) < 4000
    assert read == noise[: len(read)]
    assert f"after line {len(read)}:" in str(error.value)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(LINES.encode() * 50))
    packed[30:60] = b"\xff" * 30
    (tmp_path / "bad.jsonl.gz").write_bytes(packed)
    with pytest.raises(DataError, match="its compression is damaged"):
        list(read_articles(tmp_path / "bad.jsonl.gz"))


def test_half_a_character_is_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"article": "whole"}\n{"article": "half \\ud83d"}\n')
    articles = read_articles(path)
    assert next(articles).text == "whole"
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: half of a surrogate pair"):
        next(articles)


def test_a_split_is_found_or_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(LINES)
    assert [article.id for article in read_split(tmp_path, "train")] == ["one", "2"]
    with pytest.raises(DataError, match=r"no validation\.jsonl\.xz.*cnn_dailymail"):
        read_split(tmp_path, "validation")
    for odd in ("", "/x", "../train", "a b"):
        with pytest.raises(DataError, match="give its name, such as train"):
            read_split(tmp_path, odd)


def test_without_the_library_the_data_set_by_name_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        next(read_split("cnn_dailymail", "train"))


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The library, if it is there, without the network."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return pytest.importorskip("datasets")


FIELDS = {"article": ["One.", "Two."], "highlights": ["1", "2"], "id": ["a", "b"]}


@pytest.mark.filterwarnings("ignore")  # what the library does is its own affair
def test_a_folder_of_parquet_files_is_read(datasets: Any, tmp_path: Path) -> None:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    folder = tmp_path / "3.0.0"
    folder.mkdir()
    for number in range(2):
        rows = {name: [values[number]] for name, values in FIELDS.items()}
        parquet.write_table(arrow.table(rows), folder / f"train-0000{number}-of-00002.parquet")
    found = list(read_split(tmp_path, "train"))
    assert [(one.id, one.text, one.summary) for one in found] == [
        ("a", "One.", "1"), ("b", "Two.", "2"),
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_what_save_to_disk_wrote_is_read(datasets: Any, tmp_path: Path) -> None:
    arrow = import_module("pyarrow")
    table = arrow.table({**FIELDS, "article": ["One.", None]})
    (tmp_path / "test").mkdir()
    with arrow.OSFile(str(tmp_path / "test" / "data-00000-of-00001.arrow"), "wb") as file:
        with arrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    articles = read_split(tmp_path, "test")
    assert next(articles).text == "One."
    with pytest.raises(DataError, match="test split, row 2"):
        next(articles)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "data.arrow").write_bytes(b"no arrow")
    with pytest.raises(DataError, match="train split cannot be read"):
        next(read_split(tmp_path, "train"))


@pytest.mark.parametrize("name", ["cnn_dailymail", "abisee/cnn_dailymail"])
def test_the_data_set_by_name_is_streamed_in_its_version(
    name: str, datasets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def load(*names: str, **settings: object) -> list[dict[str, str]]:
        asked.update(settings, names=names)
        return [{"article": "One.", "highlights": "1", "id": "a"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert [article.id for article in read_split(name, "validation")] == ["a"]
    assert asked == {
        "names": ("abisee/cnn_dailymail", "3.0.0"), "split": "validation", "streaming": True,
    }  # fmt: skip


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress, bytes])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_first_bytes_say_what_a_file_is_and_not_its_name(
    tmp_path: Path, pack: Any, encoding: str
) -> None:
    path = tmp_path / "news [2024] *.jsonl"
    path.write_bytes(pack(LINES.encode(encoding)))
    assert [article.text for article in read_articles(path)] == [row["article"] for row in ROWS]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x28\xb5\x2f\xfd\x24\x05", "compressed by zstd, and JSON lines are needed"),
        (b"PAR1\x15\x04\x15", "a Parquet file"),
        (b"PK\x03\x04\x14\x00", "a zip archive"),
        (gzip.compress(b"PAR1\x15\x04\x15", mtime=0), "a Parquet file"),
        (LINES.encode("utf-16-le"), "is UTF-16 without its mark"),
        (b'{"article": "a\x00b"}', "line 1: binary data"),
        (b"\xff\xfe\x00", "not readable as UTF-8 text"),
        (b'{"article": ' + b"[" * 100_000, "line 1: its lists or objects are nested too deeply"),
        (b'{"id": ' + b"9" * 10_000 + b"}", "line 1: not JSON"),
        (b'{"article": "\xe9t\xe9"}', "not readable as UTF-8 text"),
        (b"BZh9" + b"\xff" * 40, "after line 0"),
        (b"\x1f\x8b" + b"\xff" * 40, "after line 0"),
    ],
)
def test_what_is_no_json_lines_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "news.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=why) as caught:
        list(read_articles(path))
    assert "news.jsonl" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.filterwarnings("ignore")
def test_a_folder_with_brackets_in_its_name_is_no_pattern(datasets: Any, tmp_path: Path) -> None:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    folder = tmp_path / "news [a-z] *"
    folder.mkdir()
    parquet.write_table(arrow.table(FIELDS), folder / "train-00000.parquet")
    assert [article.id for article in read_split(folder, "train")] == ["a", "b"]


def test_characters_that_old_programs_wrote_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\x93Rain\x94 \x96 it\x92s late\x85 \uf0b7 sun\uf0a7 \x81", encoding="utf-8")
    assert read_text(path) == "“Rain” – it’s late… • sun• \x81"
    lines = tmp_path / "a.jsonl"
    lines.write_text(json.dumps({"article": path.read_text(encoding="utf-8")}), encoding="utf-8")
    assert [article.text for article in read_articles(lines)] == [read_text(path)]
    kept = "می\u200cخواهم क्\u200dष \u2060 \ue000"
    path.write_text(kept, encoding="utf-16")
    assert read_text(path) == kept
