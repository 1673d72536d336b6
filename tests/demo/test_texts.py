"""The browser says nothing that is not in `texts`, and `texts` holds nothing that nobody says."""

import re

import pytest

from fastllm import paths
from fastllm.demo import page, texts

STATES = {"accepted", "refused", "correction", "bonus", "plain"}
"""Looked up by the state of a token."""


@pytest.mark.parametrize(
    ("names", "words", "looked_up"),
    [
        (page.SCRIPTS, texts.BROWSER, STATES),
        (("folds/trained/trained.js",), texts.TRAINED_BROWSER, {"tau", "alpha"}),
        (("folds/learn/learn.js",), texts.LEARN_BROWSER, {"own", "held_out"}),
    ],
)
def test_every_word_is_there_and_used(
    names: tuple[str, ...], words: dict[str, str], looked_up: set[str]
) -> None:
    scripts = "".join((paths.PAGE / name).read_text(encoding="utf-8") for name in names)
    assert set(re.findall(r"\bwords\.(\w+)", scripts)) | looked_up == set(words)


def test_a_script_can_be_written_into_a_page() -> None:
    """The replay that one takes home holds the function in a script element."""
    script = page.script({})
    assert "</script" not in script
    assert "<!--" not in script
