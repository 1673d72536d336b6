from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from fastllm.demo.limits import SPACEFILE, Limits, read_limits
from fastllm.errors import SettingsError


def test_limits_are_those_of_the_spacefile() -> None:
    assert asdict(read_limits()) == yaml.safe_load(SPACEFILE.read_text("utf-8"))["limits"]


GOOD = {
    "article_characters": 1,
    "max_new_tokens": 2,
    "lanes": 3,
    "gamma": 4,
    "seconds_per_run": 5,
    "queue_size": 6,
}


def test_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "Spacefile"
    path.write_text(yaml.safe_dump({"limits": GOOD}))
    assert read_limits(path) == Limits(1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    "limits",
    [None, [], {}, {"lanes": 3}, *(GOOD | {"lanes": value} for value in (0, "3", True, 2.0))],
)
def test_refuses_what_is_no_section_of_limits(tmp_path: Path, limits: object) -> None:
    path = tmp_path / "Spacefile"
    path.write_text(yaml.safe_dump({"limits": limits}))
    with pytest.raises(SettingsError, match=r"limits"):
        read_limits(path)


def test_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Spacefile"):
        read_limits(tmp_path / "Spacefile")
