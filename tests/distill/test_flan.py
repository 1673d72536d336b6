"""FLAN-T5 by the book, on a small random T5 of FLAN's shape: gated, with an output of its own."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

from fastllm.checkpoints import load_drafter
from fastllm.cli.main import main
from fastllm.decoding.race import Race
from fastllm.distill.estimate import BYTES, Size, Work, describe, estimate
from fastllm.pretrain.vocabulary_training import train_tokenizer
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def _save_t5(folder: Path, vocabulary: Vocabulary, logits: int, *, flan: bool) -> Path:
    """A random T5 whose vocabulary is padded to `logits`."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=logits, d_model=64, d_kv=16, d_ff=64, num_heads=4,
        num_layers=2 if flan else 1, feed_forward_proj="gated-gelu" if flan else "relu",
        decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "Attention" in name:
                weights.mul_(3)
    if flan:
        model.lm_head = nn.Linear(64, logits, bias=False)
        nn.init.normal_(model.lm_head.weight)
        model.config.tie_word_embeddings = False
        model.config.scale_decoder_outputs = False
    model.generation_config = GenerationConfig(
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0
    )
    model.save_pretrained(folder)
    vocabulary.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def flan(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    size = len(vocabulary.tokenizer)
    return _save_t5(tmp_path_factory.mktemp("flan") / "flan-t5", vocabulary, size + 28, flan=True)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    size = len(vocabulary.tokenizer)
    return _save_t5(tmp_path_factory.mktemp("student") / "t5", vocabulary, size, flan=False)


@pytest.fixture(scope="module")
def recipe(
    tmp_path_factory: pytest.TempPathFactory, flan: Path, student: Path, data: Path
) -> tuple[Path, Path]:
    """The shipped recipe with the small models in the place of the large ones."""
    runs = tmp_path_factory.mktemp("runs")
    tree = yaml.safe_load((RECIPES / "flan-t5-xl-t5-small.yaml").read_text())
    tree |= {"target": str(flan), "data": str(data), "length": 12, "source_length": 80}
    tree["pseudo_dataset_path"] = str(runs / "pseudo")
    tree["train"] |= {"student": str(student), "updates": 4, "warmup": 1, "cooldown": 1, "batch": 4}
    tree["train"] |= {"run": str(runs / "run")}
    path = runs / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path, runs


@pytest.mark.slow  # trains from end to end
def test_from_nothing_to_an_assistant_model(
    recipe: tuple[Path, Path], flan: Path, story: str, vocabulary: Vocabulary,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, runs = recipe
    cpu = ["--recipe", str(path), "--device", "cpu"]
    assert main(["train", *cpu, "--dry-run"]) == 0, "before anything is written"
    assert "hours on 8 GPUs" in capsys.readouterr().out
    assert main(["pseudo", *cpu]) == 0
    settings = json.loads((runs / "pseudo" / "settings.json").read_text())
    assert settings["prefix"] == "summarize: "
    assert settings["load_in"] == "bf16"
    assert main(["train", *cpu]) == 0
    card = json.loads((runs / "run" / "checkpoint" / "card.json").read_text())
    assert (card["prefix"], card["source_length"]) == ("summarize: ", 80)
    assert card["validation"]["articles"] == 6

    target = HubTarget.load(flan, device="cpu", prefix="summarize: ", source_length=80)
    assert not torch.equal(target.model.lm_head.weight, target.model.shared.weight)
    assistant = T5ForConditionalGeneration.from_pretrained(runs / "run" / "checkpoint")
    assert assistant.config.vocab_size == target.model.config.vocab_size
    source = torch.tensor([target.vocabulary.encode(story, 80, "summarize: ").ids])
    alone = target.model.generate(source, max_new_tokens=12, do_sample=False)
    helped = target.model.generate(
        source, max_new_tokens=12, do_sample=False, assistant_model=assistant.float()
    )
    assert alone.tolist() == helped.tolist()

    drafter = load_drafter(runs / "run" / "checkpoint", device="cpu")
    race = Race(target, [None, drafter], story, DecodingConfig(max_new_tokens=12))
    for _ in race:
        pass
    assert race.traces()[0].tokens == race.traces()[1].tokens


def test_a_student_of_another_vocabulary_is_refused(
    recipe: tuple[Path, Path], tmp_path: Path, story: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tokenizer([story[:200]] * 3, tmp_path / "words", size=400)
    other = _save_t5(tmp_path / "t5", Vocabulary.load(tmp_path / "words"), 628, flan=False)
    cpu = ["--device", "cpu", "--run", str(tmp_path / "run"), "--student", str(other)]
    assert main(["train", "--recipe", str(recipe[0]), "--dry-run", *cpu]) == 2
    assert "has the vocabulary" in capsys.readouterr().err


def test_nf4_holds_the_layers_in_four_bits(flan: Path) -> None:
    target = HubTarget.load(flan, device="cpu", load_in="4bit")
    query = target.model.encoder.block[0].layer[0].SelfAttention.q
    assert type(query).__name__ == "Linear4bit"
    assert target.encode([5, 6, 1]).states.dtype == torch.bfloat16


def _xl() -> Size:
    config = T5Config(
        vocab_size=32128, d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_heads=32,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    with torch.device("meta"):
        return Size.of(T5ForConditionalGeneration(config))


def test_the_estimate_follows_the_sizes() -> None:
    xl = _xl()
    assert xl.total == 2_783_959_040
    with torch.device("meta"):
        small = Size.of(T5ForConditionalGeneration(T5Config(num_heads=8, num_layers=6)))
    assert small.total == 60_506_624
    memory = {
        load_in: estimate(xl, small, Work(100_000, 512, 128, load_in, updates=10_000))
        for load_in in BYTES
    }
    assert memory["bf16"].pseudo_memory > 2 * xl.total
    ordered = [memory[name].train_memory for name in ("4bit", "8bit", "bf16", "fp32")]
    assert ordered == sorted(ordered)
    bf16 = memory["bf16"]
    assert bf16.pseudo_seconds[1] == pytest.approx(8 * bf16.pseudo_seconds[8])
    assert bf16.train_seconds[1] / 8 < bf16.train_seconds[8] < bf16.train_seconds[1]
    assert "2,784 M weights" in describe(xl, small, Work(100_000, 512, 128))
