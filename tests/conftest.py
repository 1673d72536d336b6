"""Fixtures: a tiny vocabulary and a tiny random T5, made anew for each run of the tests."""

import copy
import os
import signal
import threading
from importlib.util import find_spec

import pytest
import torch
from transformers import GenerationConfig, T5ForConditionalGeneration
from transformers.utils import logging

from fastllm.pretrain.copying_start import t5_config
from fastllm.pretrain.vocabulary_training import train_tokenizer
from fastllm.targets.hub import HubTarget
from fastllm.vocabulary import Vocabulary

logging.disable_progress_bar()

# A shell that starts the tests in the background has them ignore Ctrl-C, and so what they start.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, each with a core
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

NEEDED = {
    "gradio": ("demo", "browser", "tools"),
    "playwright": ("browser",),
    "plotly": ("bench/test_bench.py", "evaluation/test_charts.py"),
}
"""Libraries, and the tests that cannot even be collected without them. A machine that is there for
its GPU alone has none: the tests marked `gpu` need none of them."""

_MISSING = [name for name in NEEDED if find_spec(name) is None]

collect_ignore = sorted({path for name in _MISSING for path in NEEDED[name]})


def pytest_report_header() -> list[str]:
    return [f"left out, without {name}: {', '.join(NEEDED[name])}" for name in _MISSING]


STORY = (
    "The old mill on the river burned down on Friday night, and nobody was hurt. Fire crews from "
    "four villages fought the flames until morning. The mill had stood empty for eleven years, but "
    "the town wanted to turn it into a museum. A spokeswoman for the town said the plans would go "
    "on: the walls are stone, and stone does not burn. Neighbours brought tea and bread to the "
    "crews. Police are looking for two cyclists who were seen near the mill at ten o'clock."
)


@pytest.fixture(autouse=True)
def _same_randomness() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def story() -> str:
    """A news story of six sentences, written for these tests."""
    return STORY


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small vocabulary, bytes included, learned from the story."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([STORY] * 3, folder, size=600)
    return str(folder)


@pytest.fixture(scope="session")
def vocabulary(tokenizer_folder: str) -> Vocabulary:
    """The vocabulary in `tokenizer_folder`."""
    return Vocabulary.load(tokenizer_folder)


@pytest.fixture(scope="session")
def tiny_target(vocabulary: Vocabulary) -> HubTarget:
    """A random T5 of two layers, its weights loud enough that its greedy texts vary."""
    torch.manual_seed(0)
    config = t5_config(len(vocabulary.tokenizer), 64, 4, 2, 2, 64)
    config.tie_word_embeddings = False  # tied, a random T5 repeats what it has just read
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "relative" in name:
                weights.mul_(5)
            elif "Attention" in name:
                weights.mul_(2)
        model.lm_head.weight.normal_()
        model.lm_head.weight[0] = 0  # padding is never the best
    model.generation_config = GenerationConfig(
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0
    )
    return HubTarget(model.eval(), vocabulary, name="tiny", source_length=96)


@pytest.fixture(scope="session")
def tiny_folder(tiny_target: HubTarget, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny target as a folder that a page can be told of: its name and source length in it."""
    folder = tmp_path_factory.mktemp("tiny")
    model = copy.deepcopy(tiny_target.model)
    model.config.fastllm = {"name": "tiny", "source_length": 96}
    model.save_pretrained(folder)
    tiny_target.vocabulary.tokenizer.save_pretrained(folder)
    return str(folder)
