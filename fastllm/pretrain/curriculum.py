"""Trains a small target from nothing: vocabulary, copying start, curriculum, checkpoint.

Each step leaves its result in the run's folder and is passed over when found there, so that an
interrupted run goes on where it stopped.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, T5ForConditionalGeneration

from fastllm.checkpoints import SHARD, replace_folder
from fastllm.data.articles import Article, find_split, read_articles, read_split
from fastllm.data.tokens import IGNORED, TokenPairs, batch_indices, padded
from fastllm.distill.folders import new_folder
from fastllm.distill.loop import Losses, Schedule, fit
from fastllm.errors import DataError, SettingsError
from fastllm.pretrain.copying_start import begin_like, start_copying, start_skipping, t5_config
from fastllm.pretrain.prepare import KINDS, UNSUPERVISED, prepare_pairs
from fastllm.pretrain.vocabulary_training import train_tokenizer
from fastllm.vocabulary import Vocabulary


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum.

    Attributes:
        name: of its folder.
        source_length: the most source tokens.
        mixture: kind of text -> how many of every few updates are of that kind.
        updates: optimizer updates.
        learning_rate: the constant rate.
        warmup: updates of rising rate.
        cooldown: updates of falling rate at the end.
        batch: pairs an update.
        skipped: words that the model is to start leaving out with this stage.
    """

    name: str
    source_length: int
    mixture: dict[str, int]
    updates: int
    learning_rate: float = 1e-3
    warmup: int = 50
    cooldown: int = 0
    batch: int = 16
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.mixture or any(
            kind not in KINDS or share < 1 for kind, share in self.mixture.items()
        ):
            raise SettingsError(
                f"mixture={self.mixture}: give whole numbers above 0 for {', '.join(KINDS)}."
            )
        _ = self.schedule  # refused now, not hours later

    @property
    def schedule(self) -> Schedule:
        """Its updates, and the rate of each."""
        return Schedule(self.updates, self.learning_rate, self.warmup, self.cooldown)


@dataclass(frozen=True)
class TargetRecipe:
    """What a target is made of.

    Attributes:
        name: of the checkpoint.
        vocabulary_size: ids, bytes and special tokens included.
        width: d_model.
        heads: attention heads.
        encoder_layers: layers of the encoder.
        decoder_layers: the same number: `generate` of transformers needs it.
        feed_forward: width of the feed-forward layers.
        text_length: the most tokens of a summary.
        prefix: put before every article; the decoder starts with its first token.
        articles: articles without summary to use for central sentences, at most.
        seed: of everything.
        no_repeat_ngram: runs of so many tokens that its texts never repeat; 0 allows repeats.
        min_new_tokens: the fewest tokens of a text.
        stages: the curriculum.
    """

    name: str
    stages: tuple[Stage, ...]
    vocabulary_size: int = 8192
    width: int = 256
    heads: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 4
    feed_forward: int = 1024
    text_length: int = 96
    prefix: str = ". "
    articles: int = 50_000
    seed: int = 0
    no_repeat_ngram: int = 0
    min_new_tokens: int = 0

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "TargetRecipe":
        """Reads a recipe from parsed YAML.

        Raises:
            SettingsError: a key that a recipe does not have, or one missing.
        """
        try:
            stages = tuple(
                Stage(**{**stage, "skipped": tuple(stage.get("skipped", ()))})
                for stage in tree["stages"]
            )
            return cls(**{**tree, "stages": stages})
        except (KeyError, TypeError) as error:
            raise SettingsError(f"not a target recipe: {error}.") from error


def train_target(
    recipe: TargetRecipe,
    data: str | Path,
    run: str | Path,
    *,
    out: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Trains a target and writes its checkpoint.

    Args:
        recipe: sizes and curriculum.
        data: a folder with `train.jsonl.xz` (or .jsonl, .jsonl.gz), and, for central sentences,
            `articles.jsonl.xz`.
        run: the run's folder.
        out: where the checkpoint goes, in the place of what is there; `run/checkpoint` by default.
        say: receives progress lines.

    Returns:
        The folder of the checkpoint.

    Raises:
        DataError: the data is missing.
    """
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    train = list(read_split(data, "train"))
    extra = _extra_articles(data, recipe)
    if not (run / "tokenizer" / "tokenizer.json").exists():
        say("learning the vocabulary")
        fresh = run / "tokenizer.new"
        train_tokenizer(_texts(train, extra), fresh, recipe.vocabulary_size)
        replace_folder(fresh, run / "tokenizer")
    vocabulary = Vocabulary.load(run / "tokenizer")
    model = new_target(recipe, vocabulary)
    for stage in recipe.stages:
        if (run / stage.name / "done").exists():
            model.load_state_dict(
                load_file(run / stage.name / "last" / "model.safetensors"), strict=False
            )
            continue
        if stage.skipped:
            start_skipping(model, vocabulary.words(stage.skipped))
        sets = []
        for kind, share in stage.mixture.items():
            folder = run / "pairs" / f"{kind}-{stage.source_length}"
            if not (folder / "meta.json").exists():
                say(f"preparing {folder.name}")
                prepare_pairs(
                    [*train, *extra] if kind in UNSUPERVISED else train,
                    vocabulary,
                    folder,
                    kind=kind,
                    source_length=stage.source_length,
                    text_length=recipe.text_length,
                    prefix=recipe.prefix,
                )
            sets.append((TokenPairs(folder), share))
        say(f"stage {stage.name}")
        fit(
            model,
            _loss_of(sets, stage.batch, recipe.seed),
            stage.schedule,
            run / stage.name,
            config=asdict(stage),
            say=say,
        )
        (run / stage.name / "done").touch()
    return save_target(
        model,
        vocabulary,
        run,
        Path(out or run / "checkpoint"),
        name=recipe.name,
        source_length=recipe.stages[-1].source_length,
        prefix=recipe.prefix,
        no_repeat_ngram=recipe.no_repeat_ngram,
        min_new_tokens=recipe.min_new_tokens,
    )


def new_target(recipe: TargetRecipe, vocabulary: Vocabulary) -> T5ForConditionalGeneration:
    """A small T5 with initial weights that copy, and that start like a full stop."""
    torch.manual_seed(recipe.seed)
    model = T5ForConditionalGeneration(
        t5_config(
            recipe.vocabulary_size,
            recipe.width,
            recipe.heads,
            recipe.encoder_layers,
            recipe.decoder_layers,
            recipe.feed_forward,
            start_id=vocabulary.encode(recipe.prefix, 2).ids[0] if recipe.prefix.strip() else 0,
        )
    )
    start_copying(model, torch.Generator().manual_seed(recipe.seed))
    begin_like(model, vocabulary.full_stop)
    return model


def save_target(
    model: T5ForConditionalGeneration,
    vocabulary: Vocabulary,
    run: Path,
    out: Path,
    *,
    name: str,
    source_length: int,
    prefix: str = "",
    no_repeat_ngram: int = 0,
    min_new_tokens: int = 0,
) -> Path:
    """Writes the checkpoint `out`: weights in bfloat16 shards, vocabulary, configuration."""
    fresh = new_folder(out)
    shutil.rmtree(fresh, ignore_errors=True)
    model.config.fastllm = {"name": name, "prefix": prefix, "source_length": source_length}
    model.generation_config = GenerationConfig(
        decoder_start_token_id=model.config.decoder_start_token_id,
        eos_token_id=1,
        pad_token_id=0,
        no_repeat_ngram_size=no_repeat_ngram,
        min_new_tokens=min_new_tokens or None,
    )
    model.to(torch.bfloat16).save_pretrained(fresh, max_shard_size=SHARD)
    model.float()
    vocabulary.tokenizer.save_pretrained(fresh)
    logs = sorted(run.glob("*/training.jsonl"), key=lambda path: path.stat().st_mtime)
    lines = [
        {"stage": log.parent.name, **json.loads(line)}
        for log in logs
        for line in log.read_text().splitlines()
    ]
    (fresh / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    replace_folder(fresh, out)
    return out


def _extra_articles(data: str | Path, recipe: TargetRecipe) -> list[Article]:
    try:
        path = find_split(data, "articles")
    except DataError:  # a data set without them is fine: central sentences then come from train
        return []
    extra = list(read_articles(path))
    random.Random(recipe.seed).shuffle(extra)
    return extra[: recipe.articles]


def _texts(train: list[Article], extra: list[Article]) -> Iterator[str]:
    for index, article in enumerate(train):
        yield article.summary
        if index % 2 == 0:
            yield article.text
    for article in extra[::3]:
        yield article.text


def _loss_of(
    sets: list[tuple[TokenPairs, int]], batch: int, seed: int
) -> Callable[[torch.nn.Module, int], Losses]:
    slots = [(pairs, share, place) for pairs, share in sets for place in range(share)]
    period = len(slots)

    def loss_of(model: torch.nn.Module, step: int) -> Losses:
        turn, place = divmod(step, period)
        pairs, share, place = slots[place]
        indices = batch_indices(pairs, batch, turn * share + place, seed)
        device = next(model.parameters()).device
        source = padded([pairs.source(index) for index in indices], 0).to(device)
        labels = padded([pairs.target(index) for index in indices], IGNORED).to(device)
        out = model(input_ids=source, attention_mask=(source != 0).long(), labels=labels)
        return {"loss": out.loss}

    return loss_of
