"""A script says nothing that is not in the words of its fold, and no word is there for nobody."""

import re
import subprocess
import sys

import pytest

from fastllm import paths
from fastllm.demo import words
from fastllm.demo.folds.compare import words as compare_words
from fastllm.demo.folds.game import words as game_words
from fastllm.demo.folds.learn import words as learn_words
from fastllm.demo.folds.plots import words as plots_words
from fastllm.demo.folds.race import race
from fastllm.demo.folds.trained import words as trained_words

STATES = {"accepted", "refused", "correction", "bonus", "plain"}
"""Looked up by the state of a token."""

GUESSES = {"accepted", "refused", "begun", "dropped"}
"""Looked up by the state of a guessed word."""


@pytest.mark.parametrize(
    ("names", "said", "looked_up"),
    [
        (race.SCRIPTS, race.BROWSER, STATES),
        (("folds/trained/trained.js",), trained_words.BROWSER, {"tau", "alpha"}),
        (("folds/learn/learn.js",), learn_words.BROWSER, {"own", "held_out"}),
        (("folds/compare/compare.js",), compare_words.BROWSER, set()),
        (("folds/game/guess.js",), game_words.BROWSER, GUESSES),
        (("folds/plots/explain.js",), plots_words.BROWSER, set()),
        (("static/upload.js",), words.UPLOAD_BROWSER, set()),
    ],
)
def test_every_word_is_there_and_used(
    names: tuple[str, ...], said: dict[str, str], looked_up: set[str]
) -> None:
    scripts = "".join((paths.PAGE / name).read_text(encoding="utf-8") for name in names)
    assert set(re.findall(r"\bwords\.(\w+)", scripts)) | looked_up == set(said)


def test_a_script_can_be_written_into_a_page() -> None:
    """The replay that one takes home holds the function in a script element."""
    script = race.script({})
    assert "</script" not in script
    assert "<!--" not in script


@pytest.mark.slow  # a process of its own
def test_the_page_starts_without_the_libraries_of_evaluation_and_training() -> None:
    """Not accelerate either, but for transformers, which takes it wherever it is installed."""
    code = "import sys, app; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True
    )
    found = set(done.stdout.split())
    assert "fastllm.demo.page" in found
    assert not found & {"rouge_score", "nltk", "absl"}
    assert not [name for name in found if name.startswith("fastllm.distill")]


def test_sizes_are_those_of_the_cards() -> None:
    found = {key: words.size_of(key, "target") for key in ("alone", "lookup", "lstm-after")}
    assert found["lookup"] == "no weights"
    assert re.fullmatch(r"\d+\.\d M", found["alone"])
    assert re.fullmatch(r"\d+\.\d M", found["lstm-after"])
    assert words.size_of("ngram-after", "target").endswith(" M entries")
    assert words.size_of("alone", "google/flan-t5-xl") == "", "no card says it"
    assert words.size_of("somebody's own", "target") == ""
