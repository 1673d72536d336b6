"""The target as a teacher: which settings its texts obey, padding, and numbers that are none."""

import copy
from typing import Any

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig
from transformers.generation import NoRepeatNGramLogitsProcessor

from fastllm.decoding.race import Race
from fastllm.distill.teacher import NoRepeatedNgrams, Teacher, write_texts
from fastllm.errors import CheckpointError, SettingsError
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary


class _Articles:
    def __init__(self, sources: list[list[int]]) -> None:
        self._sources = sources

    def source(self, index: int) -> list[int]:
        return self._sources[index]


def _copied(target: HubTarget, **settings: Any) -> HubTarget:
    """The target with other settings of generation."""
    model = copy.copy(target.model)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, **settings
    )
    return HubTarget(model, target.vocabulary, name="other", source_length=96)


@pytest.fixture
def bart(vocabulary: Vocabulary) -> HubTarget:
    """A random BART: its padding is 1, and every article begins with 0."""
    torch.manual_seed(3)
    config = BartConfig(
        vocab_size=len(vocabulary.tokenizer), d_model=32, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_position_embeddings=128, dropout=0.0, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, init_std=0.3,
    )  # fmt: skip
    model = BartForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        decoder_start_token_id=2, eos_token_id=2, pad_token_id=1
    )
    return HubTarget(model, vocabulary, name="bart", source_length=96)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_no_run_is_repeated_just_as_in_transformers(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    for length in range(1, 14):
        ids = torch.randint(0, 3, (6, length), generator=generator)
        scores = torch.randn(6, 5, generator=generator)
        wanted = NoRepeatNGramLogitsProcessor(size)(ids, scores.clone())
        assert torch.equal(NoRepeatedNgrams(size)(ids, scores), wanted)


def test_labels_are_what_is_decoded_whatever_the_checkpoint_asks_for_beside(
    tiny_target: HubTarget, story: str
) -> None:
    target = _copied(
        tiny_target, num_beams=4, repetition_penalty=1.7, suppress_tokens=[300, 301, 302],
        begin_suppress_tokens=[303], no_repeat_ngram_size=2, min_length=6,
        length_penalty=2.0, forced_eos_token_id=1,
    )  # fmt: skip
    own = target.model.generation_config
    assert len(target.unsupported) >= 4
    sources = [target.vocabulary.encode(story[at:], 60).ids for at in (0, 40, 90)]
    texts = write_texts(target, sources, length=16)
    assert target.model.generation_config is own
    for at, text in zip((0, 40, 90), texts, strict=True):
        config = DecodingConfig(max_new_tokens=16)
        race = Race(HubTarget(target.model, target.vocabulary, name="x", source_length=60), [None],
                    story[at:], config)  # fmt: skip
        for _ in race:
            pass
        assert list(race.traces()[0].tokens) == text


def test_logits_of_a_model_with_another_padding_are_its_own_by_hand(bart: HubTarget) -> None:
    sources = [[0, 40, 50, 60, 0, 70, 2], [0, 44, 2], [0, 1, 45, 46, 1, 2]]
    prefix = torch.tensor([[2, 9, 8], [2, 7, 7], [2, 0, 1]])
    found = Teacher(bart, _Articles(sources)).logits([0, 1, 2], prefix)
    for row, source in enumerate(sources):
        with torch.no_grad():  # alone, so that nothing is filled up
            wanted = bart.model(
                input_ids=torch.tensor([source]), attention_mask=torch.ones(1, len(source)),
                decoder_input_ids=prefix[row : row + 1],
            ).logits[0]  # fmt: skip
        # The encoding was rounded to bfloat16.
        torch.testing.assert_close(found[row], wanted, rtol=0.02, atol=0.02)


def test_texts_of_a_model_with_another_padding_do_not_depend_on_the_others_in_the_batch(
    bart: HubTarget,
) -> None:
    sources = [[0, 40, 50, 60, 0, 70, 2], [0, 44, 2], [0, 1, 45, 46, 1, 2]]
    together = write_texts(bart, sources, length=8)
    assert together == [write_texts(bart, [source], length=8)[0] for source in sources]


def test_texts_are_as_long_as_the_decoder_has_positions_for(tiny_target: HubTarget) -> None:
    target = copy.copy(tiny_target)
    target.longest_text = 8  # less than where no length is given
    for temperature in (0.0, 1.0):
        (text,) = write_texts(target, [[50, 60, 1]], length=8, temperature=temperature)
        assert len(text) <= 8
        with pytest.raises(SettingsError, match=r"length=9, .* give at most length=8"):
            write_texts(target, [[50, 60, 1]], length=9, temperature=temperature)


def test_a_temperature_that_nothing_can_be_divided_by_is_refused(tiny_target: HubTarget) -> None:
    with pytest.raises(SettingsError, match="temperature=1e-40 is out of range"):
        write_texts(tiny_target, [[50, 60, 1]], length=4, temperature=1e-40)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_target_that_computes_no_numbers_is_refused(tiny_target: HubTarget, bad: float) -> None:
    model = copy.deepcopy(tiny_target.model)
    with torch.no_grad():
        model.decoder.final_layer_norm.weight[3] = bad
    target = HubTarget(model, tiny_target.vocabulary, name="broken", source_length=96)
    for temperature in (0.0, 1.0):
        with pytest.raises(CheckpointError, match=r"not finite.*bf16"):
            write_texts(target, [[50, 60, 1]], length=4, temperature=temperature)
    teacher = Teacher(target, _Articles([[50, 60, 1]]))
    with pytest.raises(CheckpointError, match="the output of the target"):
        teacher.logits([0], torch.tensor([[0, 5]]))
    with torch.no_grad():
        model.encoder.final_layer_norm.weight[3] = bad
    with pytest.raises(CheckpointError, match="the encoder's output of the target"):
        Teacher(target, _Articles([[50, 60, 1]])).logits([0], torch.tensor([[0, 5]]))
