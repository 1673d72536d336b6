"""What is the T5's alone; what it shares is in test_neural.py."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from fastllm.checkpoints import load_drafter, load_target, shipped_drafters
from fastllm.decoding.race import Race
from fastllm.drafters.t5 import T5Drafter, T5Model, T5Settings
from fastllm.errors import CheckpointError, SettingsError
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig


def _gated(layers: int = 2) -> T5ForConditionalGeneration:
    """As T5 v1.1 and FLAN-T5 are: gated, not scaled at the end, heads of a width of their own."""
    config = T5Config(
        vocab_size=60, d_model=24, d_kv=10, d_ff=16, num_layers=layers, num_heads=3,
        feed_forward_proj="gated-gelu", relative_attention_max_distance=20,
        decoder_start_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    assert not config.scale_decoder_outputs
    network = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if "relative" in name or "layer_norm" in name:
                weights.normal_()
    return network


def test_a_gated_t5_steps_as_it_does_in_transformers() -> None:
    model = T5Model(_gated()).eval()
    source = torch.randint(2, 60, (2, 15))
    source[1, 9:] = 0
    prefix = torch.randint(2, 60, (2, 130))  # beyond the cache's first room, and the last bucket
    with torch.no_grad():
        whole = model(source, prefix)
        memory = model.remember(source)
        state = model.begin(memory)
        for place in range(90):
            features, state = model.step(memory, state, prefix[:, place])
            assert (model.logits(features) - whole[:, place]).abs().max() < 1e-4
        features, states = model.read(memory, state, prefix[:, 90:129])
        assert (model.logits(features) - whole[:, 90:129]).abs().max() < 1e-4
        features, _ = model.step(memory, states[-1], prefix[:, 129])
        assert (model.logits(features) - whole[:, 129]).abs().max() < 1e-4


def test_a_state_stays_what_it_was() -> None:
    model = T5Drafter.fresh(60, width=32, feed_forward=16).model
    with torch.no_grad():
        memory = model.remember(torch.randint(2, 60, (1, 9)))
        _, first = model.step(memory, model.begin(memory), torch.tensor([3]))
        _, one = model.step(memory, first, torch.tensor([4]))
        expected, _ = model.step(memory, one, torch.tensor([5]))
        _, other = model.step(memory, first, torch.tensor([40]))  # a branch
        model.step(memory, other, torch.tensor([41]))
        assert torch.equal(model.step(memory, one, torch.tensor([5]))[0], expected)
        assert one.cache is first.cache  # what goes on is not copied
        assert other.cache is not first.cache


def test_it_assists_in_transformers(tiny_target: HubTarget, tmp_path: Path, story: str) -> None:
    drafter = T5Drafter.fresh(
        tiny_target.model.config.vocab_size, start_id=tiny_target.start_id, width=32,
        feed_forward=16, name="assistant", vocabulary=tiny_target.vocabulary.fingerprint,
    )  # fmt: skip
    drafter.save(tmp_path)
    assistant = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert assistant.config.fastllm["name"] == "assistant"
    source = torch.tensor([tiny_target.vocabulary.encode(story, 96).ids])
    options = {"do_sample": False, "max_new_tokens": 16}
    alone = tiny_target.model.generate(source, **options)
    assisted = tiny_target.model.generate(source, assistant_model=assistant, **options)
    assert torch.equal(alone, assisted)


def test_any_t5_with_the_targets_vocabulary_drafts(
    tiny_target: HubTarget, tmp_path: Path, story: str
) -> None:
    folder = tmp_path / "other-t5"
    model = deepcopy(tiny_target.model)
    vars(model.config).pop("fastllm", None)  # as other T5s are
    model.save_pretrained(folder)
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_drafter(folder)
    tiny_target.vocabulary.tokenizer.save_pretrained(folder)
    smaller = deepcopy(model)
    smaller.resize_token_embeddings(100)
    smaller.save_pretrained(tmp_path / "smaller")
    tiny_target.vocabulary.tokenizer.save_pretrained(tmp_path / "smaller")
    with pytest.raises(CheckpointError, match="pieces, its embedding 100 rows"):
        load_drafter(tmp_path / "smaller")
    drafter = load_drafter(folder)
    assert isinstance(drafter, T5Drafter)
    assert drafter.name == "other-t5"
    assert drafter.vocabulary == tiny_target.vocabulary.fingerprint
    assert "target" not in shipped_drafters()  # a T5 that ships is no drafter for that
    race = Race(tiny_target, [None, drafter], story, DecodingConfig(gamma=5, max_new_tokens=24))
    for _ in race:
        pass
    alone, drafted = race.traces()
    assert drafted.tokens == alone.tokens
    assert all(entry.accepted == len(entry.drafted) for entry in drafted.rounds)  # it is the target


def test_a_gated_t5_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    network = _gated()
    settings = T5Settings(60, 24, 3, 2, 16, head_width=10)
    T5Drafter(T5Model(network), settings, "gated", "0123").save(tmp_path, dtype=torch.float32)
    loaded = T5Drafter.load(tmp_path)
    assert loaded.settings == settings
    source, prefix = torch.randint(2, 60, (1, 9)), torch.randint(2, 60, (1, 9))
    with torch.no_grad():
        assert torch.equal(loaded.model(source, prefix), T5Model(network).eval()(source, prefix))


def test_layers_that_write_nothing_can_be_left_out() -> None:
    network = _gated(layers=4)
    network.lm_head.weight = nn.Parameter(torch.randn(60, 24))  # not tied, as FLAN's
    with torch.no_grad():
        for block in (network.encoder.block[1], network.decoder.block[1]):
            for name, weights in block.named_parameters():
                if name.endswith((".o.weight", ".wo.weight")):
                    weights.zero_()
    whole = T5Drafter(T5Model(network).eval(), T5Settings(60, 24, 3, 4, 16), "whole", "0123")
    source, prefix = torch.randint(2, 60, (2, 9)), torch.randint(2, 60, (2, 7))
    with torch.no_grad():
        expected = whole.model(source, prefix)
        fewer = whole.shrunk(3)  # the first, the third, the fourth
        assert torch.allclose(fewer.model(source, prefix), expected, atol=1e-5)
        assert not torch.allclose(whole.shrunk(2).model(source, prefix), expected, atol=1e-2)
        fewer.model.network.decoder.block[0].layer[-1].DenseReluDense.wo.weight.zero_()
        assert torch.equal(whole.model(source, prefix), expected), "its weights are its own"
    written = whole.shrunk(3).model.network.generate(source, max_new_tokens=6, do_sample=False)
    assert written.tolist() == network.generate(source, max_new_tokens=6, do_sample=False).tolist()
    assert fewer.settings == T5Settings(60, 24, 3, 3, 16)
    assert whole.shrunk(1).model.network.config.num_decoder_layers == 1
    with pytest.raises(SettingsError, match="give 1 to 4"):
        whole.shrunk(5)


def test_a_t5_stands_in_for_the_target_that_it_learned_from(
    tiny_target: HubTarget, tmp_path: Path, story: str
) -> None:
    settings = GenerationConfig(
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, no_repeat_ngram_size=3
    )
    model = deepcopy(tiny_target.model)
    model.generation_config = settings
    teacher = HubTarget(
        model, tiny_target.vocabulary, name="teacher", prefix="news: ", source_length=40
    )
    teacher.vocabulary.encode(story, 40)
    T5Drafter.fresh(
        model.config.vocab_size, start_id=teacher.start_id, width=32, feed_forward=16,
        name="small", vocabulary=teacher.vocabulary.fingerprint,
    ).save_as_target(tmp_path / "here", teacher)  # fmt: skip
    tokenizer = json.loads((tmp_path / "here" / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None, "what was encoded last is no setting"
    small = load_target(tmp_path / "here", device="cpu")
    assert (small.name, small.prefix, small.source_length) == ("small", "news: ", 40)
    assert small.defaults == teacher.defaults
    assert small.defaults["no_repeat_ngram"] == 3
    assert small.vocabulary.fingerprint == teacher.vocabulary.fingerprint
    drafter = load_drafter(tmp_path / "here", device="cpu")  # for the teacher, too
    lanes = Race(small, [None, drafter], story, DecodingConfig(gamma=3, max_new_tokens=12))
    for _ in lanes:
        pass
    alone, drafted = lanes.traces()
    assert drafted.tokens == alone.tokens
    assert all(entry.accepted == len(entry.drafted) for entry in drafted.rounds)  # it is itself


def test_what_is_no_t5_is_refused(tmp_path: Path) -> None:
    config = BartConfig(
        vocab_size=60, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(tmp_path / "bart")
    with pytest.raises(CheckpointError, match="not a whole t5 drafter"):
        T5Drafter.load(tmp_path / "bart")
    with pytest.raises(CheckpointError, match="not a whole t5 drafter"):
        T5Drafter.load(tmp_path / "nothing")
    with pytest.raises(SettingsError, match="divisible by the heads"):
        T5Settings(vocabulary_size=50, width=30)
