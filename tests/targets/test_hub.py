"""Targets of transformers: what they ask for in vain, several devices, precisions."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GenerationConfig,
    T5ForConditionalGeneration,
)

from fastllm.checkpoints import load_target
from fastllm.decoding.race import Race
from fastllm.drafters.lookup import ArticleLookup
from fastllm.errors import CheckpointError, FastLLMWarning, SettingsError
from fastllm.pretrain.copying_start import t5_config
from fastllm.targets.hub import LOAD_IN, PRECISIONS, HubTarget, entry_device, notice
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def folder(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied T5 of two layers, so that there is something to spread."""
    path = tmp_path_factory.mktemp("spread")
    torch.manual_seed(1)
    model = T5ForConditionalGeneration(t5_config(len(vocabulary.tokenizer), 32, 4, 2, 2, 32))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.mul_(3 if "Attention" in name else 1)
    model.save_pretrained(path)
    vocabulary.tokenizer.save_pretrained(path)
    return path


def tokens(target: HubTarget, story: str, drafter: Any = None) -> tuple[int, ...]:
    race = Race(target, [drafter], story, DecodingConfig(max_new_tokens=16))
    for _ in race:
        pass
    return race.traces()[0].tokens


def with_generation(target: HubTarget, **settings: Any) -> HubTarget:
    model = copy.deepcopy(target.model)
    model.generation_config = GenerationConfig(
        **{"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0} | settings
    )
    return HubTarget(model, target.vocabulary, name="asking", source_length=96)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, ()),
        # What changes nothing, what DecodingConfig says itself, and what is applied.
        (
            {
                "repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0, "num_beams": 1,
                "suppress_tokens": [], "do_sample": True, "temperature": 0.3, "top_k": 7,
                "no_repeat_ngram_size": 3, "min_length": 5, "eos_token_id": [1],
            },
            (),
        ),
        ({"repetition_penalty": 1.3}, ("repetition_penalty=1.3",)),
        ({"encoder_repetition_penalty": 2.0}, ("encoder_repetition_penalty=2.0",)),
        ({"encoder_no_repeat_ngram_size": 4}, ("encoder_no_repeat_ngram_size=4",)),
        ({"forced_bos_token_id": 0, "forced_eos_token_id": 1}, ()),
        ({"bad_words_ids": [[5], [6, 7]]}, ("bad_words_ids=[[5], [6, 7]]",)),
        ({"suppress_tokens": list(range(9))}, ("suppress_tokens=[0, 1, 2, ... 9 in all]",)),
        ({"begin_suppress_tokens": [4]}, ("begin_suppress_tokens=[4]",)),
        (
            {"exponential_decay_length_penalty": (5, 1.2)},
            ("exponential_decay_length_penalty=(5, 1.2)",),
        ),
        ({"sequence_bias": [[[5], -2.0]]}, ("sequence_bias=[[[5], -2.0]]",)),
        ({"num_beams": 4}, ("num_beams=4",)),
        ({"eos_token_id": [7, 1]}, ()),
        (
            {"num_beams": 4, "repetition_penalty": 0.9},
            ("repetition_penalty=0.9", "num_beams=4"),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_applied_is_named(
    settings: dict[str, Any], found: tuple[str, ...], tiny_target: HubTarget
) -> None:
    assert with_generation(tiny_target, **settings).unsupported == found


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 3.0},
        {"suppress_tokens": list(range(2, 250))},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_is_named_does_change_what_generate_writes(
    settings: dict[str, Any], tiny_target: HubTarget, story: str
) -> None:
    """And leaves our lanes in agreement."""
    target = with_generation(tiny_target, **settings)
    ids = target.vocabulary.encode(story, 96).ids
    with torch.inference_mode():
        theirs = target.model.generate(
            input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=16
        )[0, 1:]
    ours = tokens(target, story)
    assert tuple(theirs.tolist()) != ours == tokens(target, story, ArticleLookup())
    assert len(target.unsupported) == 1


def test_loading_tells_of_what_is_not_applied(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    asked = json.loads((folder / "generation_config.json").read_text())
    asked |= {"repetition_penalty": 1.3, "eos_token_id": [1, 5, 1]}
    (tmp_path / "generation_config.json").write_text(json.dumps(asked))
    with pytest.warns(FastLLMWarning, match=r"asks for repetition_penalty=1.3, which"):
        target = load_target(tmp_path, device="cpu")
    assert (target.end_id, target.end_ids) == (1, (1, 5))
    assert "not the one that `generate` of transformers writes" in notice(target)


def test_the_generation_configuration_goes_before_the_models(
    tiny_target: HubTarget, vocabulary: Vocabulary
) -> None:
    target = with_generation(tiny_target, decoder_start_token_id=4, eos_token_id=3)
    assert (target.start_id, target.end_id) == (4, 3)
    assert (target.model.config.decoder_start_token_id, target.model.config.eos_token_id) == (0, 1)
    silent = with_generation(tiny_target, decoder_start_token_id=None, eos_token_id=None)
    assert (silent.start_id, silent.end_id) == (0, 1)
    silent.model.config.eos_token_id = None
    with pytest.raises(CheckpointError, match="names its eos_token_id"):
        HubTarget(silent.model, vocabulary, name="endless")


BLOCKS = {
    "shared": "cpu", "encoder": "cpu", "decoder.embed_tokens": "cpu", "decoder.block.0": "cpu",
    "decoder.block.1": "disk", "decoder.final_layer_norm": "cpu", "decoder.dropout": "cpu",
    "lm_head": "cpu",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*meta device:UserWarning")
@pytest.mark.parametrize(
    ("device_map", "engine"),
    [("auto", "static"), ({"": "cpu"}, "static"), (BLOCKS, "transformers")],
    ids=["auto", "one", "partly on disk"],
)
def test_accelerate_may_place_the_model(
    device_map: Any, engine: str, folder: Path, story: str
) -> None:
    pytest.importorskip("accelerate")
    if device_map == "auto" and torch.cuda.is_available():
        engine = "static"
    target = HubTarget.load(folder, device_map=device_map, source_length=96)
    assert target.engine == engine
    assert target.device == entry_device(target.model)
    assert target.device.type != "meta"
    here = HubTarget.load(folder, device=target.device, source_length=96)
    alone = tokens(here, story)
    assert tokens(target, story) == alone
    assert tokens(target, story, ArticleLookup()) == alone


def test_device_maps_that_cannot_be_are_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="device='cpu' and device_map='auto' exclude"):
        HubTarget.load(folder, device="cpu", device_map="auto")
    with pytest.raises(SettingsError, match="leaves weights of .* nowhere: name devices"):
        HubTarget.load(folder, device_map={"": "meta"})
    with pytest.raises(CheckpointError, match="cannot be loaded as an encoder-decoder"):
        HubTarget.load(folder, device_map={"": "abacus"})


@pytest.mark.filterwarnings("ignore:.*meta device:UserWarning")
def test_the_static_engine_wants_one_device(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"does not fit this model: it is spread over several"):
        HubTarget.load(folder, device_map=BLOCKS, engine="static")


def test_precisions_have_names(folder: Path) -> None:
    assert set(LOAD_IN) < set(PRECISIONS)
    for name, dtype in {"bf16": torch.bfloat16, "fp16": torch.float16}.items():
        model = HubTarget.load(folder, device="cpu", load_in=name).model
        assert model.shared.weight.dtype == dtype
    with pytest.raises(SettingsError, match="load_in='int3': give one of fp32, bf16, fp16"):
        load_target(folder, device="cpu", load_in="int3")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("other", ["cpu", 1], ids=["cpu", "second GPU"])
def test_a_model_spread_over_devices_writes_the_same(other: Any, folder: Path, story: str) -> None:
    if other == 1 and torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    device_map = {name: 0 if place == "cpu" else other for name, place in BLOCKS.items()}
    target = HubTarget.load(folder, device_map=device_map, source_length=96)
    assert (target.engine, target.device) == ("transformers", torch.device("cuda", 0))
    alone = tokens(HubTarget.load(folder, device="cuda:0", source_length=96), story)
    assert tokens(target, story) == alone
    assert tokens(target, story, ArticleLookup()) == alone


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("load_in", PRECISIONS)
def test_every_precision_writes_on_cuda(load_in: str, folder: Path, story: str) -> None:
    if load_in in ("8bit", "4bit"):
        pytest.importorskip("bitsandbytes")
    target = HubTarget.load(folder, device="cuda", load_in=load_in, source_length=96)
    alone = tokens(target, story)
    assert 1 <= len(alone) <= 16
