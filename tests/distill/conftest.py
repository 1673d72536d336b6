"""A data folder of made-up stories, and the tiny target as a checkpoint."""

import json
from pathlib import Path

import pytest

from fastllm.targets.hub import HubTarget

NOUNS = ("mill", "library", "bridge", "museum", "harbour", "station", "theatre", "market")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, story: str) -> Path:
    """Sixteen stories to train on and six to validate, each with a summary that it supports."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for index in range(22):
        article = story.replace("mill", NOUNS[index % 8]).replace("eleven", f"{index + 12}")
        summary = article[: article.index(" Fire crews")] + " " + article.split(". ")[2] + "."
        rows.append({"id": f"s{index}", "article": article, "highlights": summary})
    for name, part in (("train", rows[:16]), ("validation", rows[16:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory, tiny_target: HubTarget) -> Path:
    """The tiny target as a checkpoint folder."""
    folder = tmp_path_factory.mktemp("target")
    tiny_target.model.config.fastllm = {"name": "tiny", "prefix": "", "source_length": 96}
    tiny_target.model.save_pretrained(folder)
    tiny_target.vocabulary.tokenizer.save_pretrained(folder)
    return folder
