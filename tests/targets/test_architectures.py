"""Other families than T5, saved to a folder and loaded: limits, prefixes, forced tokens.

Each is compared with `generate` of transformers.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    ByT5Tokenizer,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    FSMTConfig,
    FSMTForConditionalGeneration,
    GenerationConfig,
    GPT2Config,
    LEDConfig,
    LEDForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    ProphetNetConfig,
    ProphetNetForConditionalGeneration,
    T5ForConditionalGeneration,
)

from fastllm.checkpoints import load_target
from fastllm.decoding.race import Race
from fastllm.drafters.lookup import ArticleLookup
from fastllm.errors import CheckpointError, FastLLMWarning, NotFiniteError, SettingsError
from fastllm.evaluation import measure
from fastllm.pretrain.copying_start import t5_config
from fastllm.targets.hub import HubTarget, unsupported
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary

POSITIONS = 40

SIZES = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "dropout": 0.0,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 0,
    "forced_eos_token_id": None, "init_std": 1.0,
}  # fmt: skip

FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bart": (BartConfig, BartForConditionalGeneration, {}),
    "pegasus": (PegasusConfig, PegasusForConditionalGeneration, {}),
    "mbart": (MBartConfig, MBartForConditionalGeneration, {}),
    "blenderbot": (
        BlenderbotConfig,
        BlenderbotForConditionalGeneration,
        {"encoder_no_repeat_ngram_size": 0},
    ),
    "led": (
        LEDConfig,
        LEDForConditionalGeneration,
        {
            "max_encoder_position_embeddings": POSITIONS,
            "max_decoder_position_embeddings": POSITIONS, "attention_window": 8,
        },
    ),
    "m2m100": (M2M100Config, M2M100ForConditionalGeneration, {"decoder_start_token_id": 2}),
}  # fmt: skip


def saved(family: str, vocabulary: Vocabulary, folder: Path, **settings: Any) -> Path:
    """A random model of a family beside the tests' own tokenizer."""
    config, model, more = FAMILIES[family]
    torch.manual_seed(3)
    sizes = {
        **SIZES, "vocab_size": len(vocabulary.tokenizer), "max_position_embeddings": POSITIONS,
        **more, **settings,
    }  # fmt: skip
    made = model(config(**sizes))
    made.save_pretrained(folder)
    vocabulary.tokenizer.save_pretrained(folder)
    return folder


def written(target: HubTarget, text: str, **settings: Any) -> list[tuple[int, ...]]:
    """Alone, and with the lookup."""
    race = Race(target, [None, ArticleLookup()], text, DecodingConfig(**settings))
    for _ in race:
        pass
    return [trace.tokens for trace in race.traces()]


def by_transformers(target: HubTarget, ids: list[int], **settings: Any) -> tuple[int, ...]:
    with torch.inference_mode():
        out = target.model.generate(
            input_ids=torch.tensor([ids]), do_sample=False, num_beams=1, **settings
        )
    return tuple(out[0, 1:].tolist())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_positions_of_an_architecture_are_its_limits(
    family: str, vocabulary: Vocabulary, story: str, tmp_path: Path
) -> None:
    target = load_target(saved(family, vocabulary, tmp_path), device="cpu")
    limited = family != "m2m100"  # which computes as many as it needs
    assert target.longest_text == (POSITIONS if limited else None)
    assert target.source_length == (POSITIONS if limited else 512)
    encoded = vocabulary.encode(story, target.source_length)
    assert (encoded.cut_at is not None) == limited
    alone, with_lookup = written(target, story, max_new_tokens=POSITIONS)
    wanted = by_transformers(target, encoded.ids, max_new_tokens=POSITIONS)
    assert alone == with_lookup == wanted
    assert len(alone) == POSITIONS, "this text is to use the last position"
    if limited:
        with pytest.raises(SettingsError, match=f"positions for {POSITIONS} tokens: give at most"):
            Race(target, [None], story, DecodingConfig(max_new_tokens=POSITIONS + 1))


def test_a_race_says_where_an_article_was_cut(
    vocabulary: Vocabulary, story: str, tmp_path: Path
) -> None:
    target = load_target(saved("bart", vocabulary, tmp_path), device="cpu")
    race = Race(target, [None], story, DecodingConfig(max_new_tokens=4))
    assert len(race.source_ids) == POSITIONS
    assert race.cut_at is not None
    assert story.startswith(vocabulary.decode(race.source_ids)[: race.cut_at])


@pytest.mark.parametrize("family", ["mbart", "m2m100", "bart"])
@pytest.mark.parametrize("longest", [1, 2, 12])
def test_forced_tokens_are_those_of_generate(
    family: str, longest: int, vocabulary: Vocabulary, story: str, tmp_path: Path
) -> None:
    folder = saved(family, vocabulary, tmp_path)
    path = folder / "generation_config.json"
    own = json.loads(path.read_text()) | {"forced_bos_token_id": 9, "forced_eos_token_id": 1}
    path.write_text(json.dumps(own))
    target = load_target(folder, device="cpu")
    assert target.unsupported == ()
    ids = vocabulary.encode(story, target.source_length).ids
    wanted = by_transformers(target, ids, max_new_tokens=longest)
    assert wanted[0] == (9 if longest > 1 else 1)
    assert wanted[-1] == 1
    for gamma in (1, 5):
        found = written(target, story, max_new_tokens=longest, gamma=gamma)
        assert found == [wanted, wanted]


def test_without_a_decoder_start_a_text_begins_as_with_generate(
    vocabulary: Vocabulary, story: str, tmp_path: Path
) -> None:
    folder = saved("bart", vocabulary, tmp_path, bos_token_id=7)
    for name in ("config.json", "generation_config.json"):
        own = json.loads((folder / name).read_text())
        own.pop("decoder_start_token_id", None)
        if name == "config.json":
            own["decoder_start_token_id"] = None
        (folder / name).write_text(json.dumps(own))
    target = load_target(folder, device="cpu")
    assert target.start_id == 7
    ids = vocabulary.encode(story, target.source_length).ids
    wanted = by_transformers(target, ids, max_new_tokens=12)
    assert written(target, story, max_new_tokens=12) == [wanted, wanted]


def t5_folder(folder: Path, rows: int, **settings: Any) -> Path:
    torch.manual_seed(5)
    config = t5_config(rows, 32, 2, 1, 1, 32)
    for name, value in settings.items():
        setattr(config, name, value)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_the_prefix_that_a_configuration_names_is_used(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    tasks = {
        "summarization": {"prefix": "summarize: ", "num_beams": 4},
        "translation_en_to_de": {"prefix": "translate: "},
    }
    t5_folder(tmp_path, len(vocabulary.tokenizer), task_specific_params=tasks)
    vocabulary.tokenizer.save_pretrained(tmp_path)
    with pytest.warns(FastLLMWarning, match="names the prefix 'summarize: ' for summarization"):
        assert load_target(tmp_path, device="cpu").prefix == "summarize: "
    for given in ("", "tl;dr: "):
        assert load_target(tmp_path, device="cpu", prefix=given).prefix == given
    own = json.loads((tmp_path / "config.json").read_text())
    for fastllm, wanted in (({"prefix": ""}, ""), ({"prefix": "ours: "}, "ours: ")):
        (tmp_path / "config.json").write_text(json.dumps(own | {"fastllm": fastllm}))
        assert load_target(tmp_path, device="cpu").prefix == wanted


@pytest.mark.parametrize("tasks", [{}, {"summarization": {}}, {"summarization": {"prefix": ""}}])
def test_without_a_named_prefix_there_is_none(
    tasks: dict[str, Any], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    t5_folder(tmp_path, len(vocabulary.tokenizer), task_specific_params=tasks)
    vocabulary.tokenizer.save_pretrained(tmp_path)
    assert load_target(tmp_path, device="cpu").prefix == ""


def test_a_vocabulary_of_bytes_has_no_offsets(story: str, tmp_path: Path) -> None:
    tokenizer = ByT5Tokenizer()
    t5_folder(tmp_path, len(tokenizer))
    tokenizer.save_pretrained(tmp_path)
    target = HubTarget.load(tmp_path, device="cpu", source_length=50)
    text = "Ü" + story
    race = Race(target, [None, ArticleLookup()], text, DecodingConfig(max_new_tokens=12))
    list(race)
    alone, with_lookup = race.traces()
    assert alone.tokens == with_lookup.tokens
    assert alone.cut_at == 48  # of 50 bytes one is the end, and the first letter has two
    assert "".join(alone.pieces) == alone.text
    assert alone.tokens == by_transformers(target, race.source_ids, max_new_tokens=12)
    assert Race(target, [None], "Short.", DecodingConfig()).cut_at is None


def test_a_model_that_needs_more_than_ids_is_refused_at_load(
    vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved("bart", vocabulary, tmp_path)

    def wanting(self: Any, *args: Any, **given: Any) -> Any:
        raise TypeError("forward() missing 1 required argument: 'langs'")

    monkeypatch.setattr(BartForConditionalGeneration, "forward", wanting)
    with pytest.raises(CheckpointError, match=r"text of three tokens fails \(forward\(\) missing"):
        load_target(folder, device="cpu")


@pytest.mark.parametrize("family", ["fsmt", "prophetnet"])
def test_a_decoder_that_cannot_judge_a_draft_in_one_call_is_refused_at_load(
    family: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    """FSMT masks nothing where it has a cache: its texts were others with a drafter than alone."""
    size = len(vocabulary.tokenizer)
    ends = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 0}
    torch.manual_seed(1)
    if family == "fsmt":
        own = {name: value for name, value in SIZES.items() if name not in ends}
        sizes = {"src_vocab_size": size, "tgt_vocab_size": size}
        config = FSMTConfig(langs=["a", "b"], **sizes, **own, **ends)
        made, why = FSMTForConditionalGeneration(config), "get other logits than one by one"
    else:
        config = ProphetNetConfig(
            vocab_size=size, hidden_size=16, encoder_ffn_dim=16, num_encoder_layers=1,
            num_encoder_attention_heads=2, decoder_ffn_dim=16, num_decoder_layers=1,
            num_decoder_attention_heads=2, max_position_embeddings=POSITIONS, **ends,
        )  # fmt: skip
        made, why = ProphetNetForConditionalGeneration(config), "only supported for"
    made.save_pretrained(tmp_path)
    vocabulary.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"cannot be decoded here.*{why}"):
        load_target(tmp_path, device="cpu")


def test_the_positions_of_a_gpt2_are_the_limit_of_a_text(
    vocabulary: Vocabulary, story: str, tmp_path: Path
) -> None:
    size = len(vocabulary.tokenizer)
    reads = BertConfig(
        vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    writes = GPT2Config(
        vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=POSITIONS,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    config = EncoderDecoderConfig.from_encoder_decoder_configs(reads, writes)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 0, 0, 1
    EncoderDecoderModel(config).eval().save_pretrained(tmp_path)
    vocabulary.tokenizer.save_pretrained(tmp_path)
    target = load_target(tmp_path, device="cpu")
    assert (target.source_length, target.longest_text) == (64, POSITIONS)
    with pytest.raises(SettingsError, match=f"positions for {POSITIONS} tokens"):
        Race(target, [None], story, DecodingConfig(max_new_tokens=POSITIONS + 1))


@pytest.mark.parametrize("engine", ["static", "transformers"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("drafter", [None, ArticleLookup()])
def test_a_target_that_overflows_is_an_error(
    engine: str, temperature: float, number: float, drafter: Any, vocabulary: Vocabulary,
    story: str, tmp_path: Path,
) -> None:  # fmt: skip
    t5_folder(tmp_path, len(vocabulary.tokenizer))
    vocabulary.tokenizer.save_pretrained(tmp_path)
    target = HubTarget.load(tmp_path, device="cpu", load_in="fp16", engine=engine)
    with torch.no_grad():
        target.model.decoder.final_layer_norm.weight.fill_(number)
    race = Race(target, [drafter], story, DecodingConfig(temperature=temperature))
    with pytest.raises(NotFiniteError, match=r"\(float16\) are NaN or infinite.*bf16"):
        list(race)


def test_a_model_of_sentencepiece_alone_is_read(tmp_path: Path, story: str) -> None:
    text = tmp_path / "text"
    text.write_text(story)
    SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "spiece"), vocab_size=64,
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "spiece.model")).vocab_size()
    t5_folder(tmp_path, pieces + 100)
    target = HubTarget.load(tmp_path)
    found = target.vocabulary.encode(story, 400)
    assert target.vocabulary.decode(found.ids) == " ".join(story.split())


def test_what_reads_a_model_of_sentencepiece_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(name: str) -> Vocabulary:
        raise ValueError("Converting from SentencePiece and Tiktoken failed, tiktoken is missing")

    t5_folder(tmp_path, 64)
    monkeypatch.setattr(Vocabulary, "load", failing)
    with pytest.raises(CheckpointError, match="pip install protobuf sentencepiece"):
        HubTarget.load(tmp_path)


def test_positions_that_lie_deeper_are_limits_too(
    vocabulary: Vocabulary, story: str, tmp_path: Path
) -> None:
    """An encoder and a decoder made of BERTs."""
    size = len(vocabulary.tokenizer)
    own = BertConfig(
        vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=POSITIONS,
    )  # fmt: skip
    config = EncoderDecoderConfig.from_encoder_decoder_configs(own, own)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 0, 0, 1
    torch.manual_seed(1)
    EncoderDecoderModel(config).eval().save_pretrained(tmp_path)
    vocabulary.tokenizer.save_pretrained(tmp_path)
    target = load_target(tmp_path, device="cpu")
    assert (target.source_length, target.longest_text) == (POSITIONS, POSITIONS)
    assert target.logit_count == size
    alone, with_lookup = written(target, story * 3, max_new_tokens=POSITIONS)
    assert alone == with_lookup


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 4, "num_return_sequences": 4},
        {"return_dict_in_generate": True},
        {"penalty_alpha": 0.6, "top_k": 4},
    ],
    ids=["sequences", "dict", "contrastive"],
)
def test_generate_writes_one_text_whatever_its_configuration_says(
    settings: dict[str, Any], tiny_target: HubTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tiny_target.model.generation_config
    changed = GenerationConfig(**{**own.to_diff_dict(), **settings})
    monkeypatch.setattr(tiny_target.model, "generation_config", changed)
    ids = [7, 8, 9, 1]
    config = DecodingConfig(max_new_tokens=6)
    found = measure.generate(tiny_target, ids, config)
    monkeypatch.setattr(tiny_target.model, "generation_config", own)
    assert found == measure.generate(tiny_target, ids, config)


def test_settings_of_sampling_that_are_not_applied_are_named() -> None:
    model = SimpleNamespace(generation_config=GenerationConfig(min_p=0.1, typical_p=0.9))
    assert unsupported(model) == ("min_p=0.1", "typical_p=0.9")
    assert unsupported(SimpleNamespace(generation_config=GenerationConfig())) == ()
