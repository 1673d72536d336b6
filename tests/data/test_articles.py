import gzip
import json
import lzma
from pathlib import Path

import pytest

from fastllm.data.articles import read_articles, split_sentences
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
