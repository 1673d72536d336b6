"""What the tab About links to, and the sizes that it tells."""

import re

import pytest

from fastllm.demo.folds.about import about


def test_a_space_links_to_its_code_its_cards_and_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "somebody/fast&llm")
    links = re.findall(r'href="([^"]+)"', about._links())
    base = "https://huggingface.co/spaces/somebody/fast&amp;llm"
    assert links == [
        f"{base}/tree/main",
        f"{base}/tree/main/assets/checkpoints",
        f"{base}?duplicate=true",
    ]
    monkeypatch.delenv("SPACE_ID")
    assert about._links() == ""


def test_the_models_have_their_sizes_and_a_pair_is_one_row() -> None:
    rows = about.models(["alone", "lookup", "lstm-before", "lstm-after"], "target")
    assert [row[2] for row in rows] == ["9.4 M", "no weights", "1.9 M"]
    assert all(row[3].endswith("MB") for row in (rows[0], rows[2]))
