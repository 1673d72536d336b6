"""Trains a small target from nothing: vocabulary, texts to write, copying start, curriculum.

Each step leaves its result in the run's folder and is passed over when found there, so that an
interrupted run goes on where it stopped.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, T5ForConditionalGeneration

from fastllm.checkpoints import SHARD, replace_folder
from fastllm.distill.folders import in_place_of, writing
from fastllm.distill.loop import Losses, Schedule, fit
from fastllm.distill.options import read_yaml
from fastllm.errors import SettingsError, VocabularyError
from fastllm.pretrain.copying_start import begin_like, start_copying, t5_config
from fastllm.pretrain.spans import DETECTION, SPANS, Detector, SpanBatches, sentinels
from fastllm.pretrain.t5_loss import t5_loss
from fastllm.pretrain.vocabulary_training import train_tokenizer
from fastllm.pretrain.windows import Batches, Windows
from fastllm.vocabulary import Vocabulary


@dataclass(frozen=True)
class CurriculumStage:
    """A part of the curriculum; updates, rates and seconds are those of `Schedule`.

    Attributes:
        name: of its folder.
        source_length: the most source tokens.
        mixture: kind of window -> how many of every few updates are of that kind. Kinds are those
            of the windows on disk, and those of `fastllm.pretrain.spans`.
        batch: windows an update.
        detection: of the first how many updates those of kind `spans+detection` detect; afterwards
            they are `spans`.
    """

    name: str
    source_length: int
    mixture: dict[str, int]
    updates: int
    learning_rate: float = 1e-3
    warmup: int = 50
    cooldown: int = 0
    batch: int = 16
    seconds: float = 0.0
    detection: int = 0

    def __post_init__(self) -> None:
        if self.detection < 0 or (DETECTION in self.mixture) != bool(self.detection):
            raise SettingsError(
                f"mixture={self.mixture}, detection={self.detection}: a stage with {DETECTION} "
                "says for how many updates, and no other does."
            )
        if not self.mixture or any(share < 1 for share in self.mixture.values()):
            raise SettingsError(f"mixture={self.mixture}: give whole numbers above 0 for kinds.")
        _ = self.schedule  # refused now, not hours later

    @property
    def schedule(self) -> Schedule:
        """Its updates, and the rate of each."""
        return Schedule(self.updates, self.learning_rate, self.warmup, self.cooldown, self.seconds)


@dataclass(frozen=True)
class TargetRecipe:
    """What a target is made of, in the words of a T5's configuration.

    Attributes:
        name: of the checkpoint.
        stages: the curriculum.
        vocabulary_size: ids, bytes and special tokens included.
        text_length: the most tokens of a summary.
        source_length: the most source tokens that it reads; the last stage's by default.
        prefix: put before every article; the decoder starts with its first token.
        articles: articles of each split to write texts about, at most.
        shorten: whether the sentences of the texts lose what they can do without (needs spaCy), or
            else are put in house style.
        precision: "fp32", or "bf16" for products in bfloat16 on a GPU (weights and sums stay fp32).
        no_repeat_ngram: runs of so many tokens that its texts never repeat; 0 allows repeats.
        min_new_tokens: the fewest tokens of a text.
    """

    name: str
    stages: tuple[CurriculumStage, ...]
    vocabulary_size: int = 8192
    width: int = 256
    heads: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 4
    feed_forward: int = 1024
    text_length: int = 96
    source_length: int = 0
    prefix: str = ". "
    articles: int = 50_000
    shorten: bool = True
    seed: int = 0
    precision: str = "fp32"
    no_repeat_ngram: int = 0
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise SettingsError(f"precision={self.precision!r}: give fp32 or bf16.")
        if not self.stages:
            raise SettingsError("a target recipe needs at least one stage.")

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "TargetRecipe":
        """Reads a recipe from parsed YAML; SettingsError names a key too many, or one missing."""
        try:
            stages = tuple(CurriculumStage(**stage) for stage in tree["stages"])
            return cls(**{**tree, "stages": stages})
        except (KeyError, TypeError) as error:
            raise SettingsError(f"not a target recipe: {error}.") from error


def read_target_recipe(path: str | Path) -> TargetRecipe:
    """Reads a YAML file; SettingsError where it is missing, or no recipe of a target."""
    return TargetRecipe.from_tree(read_yaml(Path(path)))


def train_target(
    recipe: TargetRecipe,
    data: str | Path,
    run: str | Path,
    *,
    out: str | Path | None = None,
    start: str | Path = "",
    device: torch.device | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Trains a target and writes its checkpoint.

    Args:
        recipe: sizes and curriculum.
        data: a folder with `train.jsonl.xz` (or .jsonl, .jsonl.gz) and, where there are some,
            `articles.jsonl.xz` and `validation.jsonl.xz`; or one that `write_windows` made.
        run: the run's folder.
        out: where the checkpoint goes, in the place of what is there; `run/checkpoint` by default.
        start: the folder of a target of the same sizes and vocabulary to go on from; without it
            the weights are fresh, and copy.
        device: CUDA where there is one, else the CPU.
        say: receives progress lines.

    Returns:
        The folder of the checkpoint.

    Raises:
        DataError: the data is missing.
        SettingsError: data, start and recipe do not go together, or what writes texts is missing.
        VocabularyError: `start` has another vocabulary than the windows.
        TrainingError: see `fit`; or the checkpoint cannot be written.
    """
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    windows = prepare_windows(recipe, Path(data), run / "windows", say, start)
    held_out = windows.folder / "validation"
    validate = None
    if (held_out / "meta.json").exists():
        validate = _validation(Windows(held_out), recipe, device)
    if len(windows.vocabulary.tokenizer) > recipe.vocabulary_size:
        raise SettingsError(
            f"{windows.folder} has a vocabulary of {len(windows.vocabulary.tokenizer)} pieces, and "
            f"the recipe's is {recipe.vocabulary_size}: give a recipe with as many."
        )
    model = new_target(recipe, windows.vocabulary)
    if start:
        _go_on_from(model, Path(start), windows.vocabulary)
    for stage in recipe.stages:
        if (run / stage.name / "done").exists():
            model.load_state_dict(
                load_file(run / stage.name / "last" / "model.safetensors"), strict=False
            )
            continue
        say(f"stage {stage.name}")
        config = asdict(stage)
        if stage.detection:
            torch.manual_seed(recipe.seed)
            model.detector = Detector(model, windows.vocabulary)
        else:
            del config["detection"]  # as a run of an earlier version wrote it, which then goes on
        fit(
            model,
            _loss_of(windows, stage, recipe, device),
            stage.schedule,
            run / stage.name,
            config=config,
            save_seconds=60.0,
            validate=validate,
            validate_every=max(1, min(_VALIDATE_EVERY, stage.updates // 20)),
            say=say,
        )
        (run / stage.name / "done").touch()
        if stage.detection:
            del model.detector
    place = Path(out or run / "checkpoint")
    with writing(place, f"What was learned is in {run}."):
        with in_place_of(place) as fresh:
            _save_target(model, windows.vocabulary, recipe, run, fresh)
    return place


def _go_on_from(model: T5ForConditionalGeneration, folder: Path, vocabulary: Vocabulary) -> None:
    if Vocabulary.load(folder).fingerprint != vocabulary.fingerprint:
        raise VocabularyError(f"{folder} has another vocabulary than the texts to learn from.")
    weights = T5ForConditionalGeneration.from_pretrained(folder).state_dict()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise SettingsError(f"{folder} has other sizes than the recipe: {error}") from error


def prepare_windows(
    recipe: TargetRecipe,
    data: Path,
    folder: Path,
    say: Callable[[str], None],
    start: str | Path = "",
) -> Windows:
    """The texts to learn from: those that `data` holds, or written now into `folder`, once.

    They have the vocabulary of the target `start`, or one that is learnt from them.

    Raises:
        DataError: there is no train split, or nothing can be written about it.
        SettingsError: what writes texts is not installed, or a kind that the recipe reads is
            missing.
    """
    if (data / "windows.npy").is_file():
        windows = Windows(data)
    elif (folder / "meta.json").exists():
        windows = Windows(folder)
    else:
        windows = _written_windows(recipe, data, folder, say, start)
    for kind in {kind for stage in recipe.stages for kind in stage.mixture}:
        if kind in (SPANS, DETECTION):
            sentinels(windows.vocabulary)
        else:
            windows.of_kind(kind)  # refused now, not in the last stage
    return windows


def _written_windows(
    recipe: TargetRecipe,
    data: Path,
    folder: Path,
    say: Callable[[str], None],
    start: str | Path,
) -> Windows:
    from fastllm.pretrain.summaries import Job, require_parser, write_summaries  # noqa: PLC0415

    if recipe.shorten:
        require_parser()
    place = Path(start or folder / "vocabulary")
    if not start and not (place / "tokenizer.json").exists():
        say("learning the vocabulary")
        articles = Job(str(data), ("train", "articles"), "", recipe.articles, seed=recipe.seed)
        texts = [
            text
            for index, article in enumerate(articles.chosen())
            for text in (article.summary, article.text if index % 3 == 0 else "")
            if text
        ]
        train_tokenizer(texts, folder / "vocabulary.new", recipe.vocabulary_size)
        replace_folder(folder / "vocabulary.new", place)
    say("writing the texts to learn from")
    return write_summaries(
        data,
        folder,
        place,
        articles=recipe.articles,
        prefix=recipe.prefix,
        text_length=recipe.text_length,
        seed=recipe.seed,
        shorten=recipe.shorten,
        say=say,
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


def _save_target(
    model: T5ForConditionalGeneration,
    vocabulary: Vocabulary,
    recipe: TargetRecipe,
    run: Path,
    fresh: Path,
) -> None:
    """Writes a checkpoint: weights in bfloat16 shards, vocabulary, configuration."""
    length = recipe.source_length or recipe.stages[-1].source_length
    model.config.fastllm = {"name": recipe.name, "prefix": recipe.prefix, "source_length": length}
    model.generation_config = GenerationConfig(
        decoder_start_token_id=model.config.decoder_start_token_id,
        eos_token_id=1,
        pad_token_id=0,
        no_repeat_ngram_size=recipe.no_repeat_ngram,
        min_new_tokens=recipe.min_new_tokens or None,
    )
    model.to(torch.bfloat16).save_pretrained(fresh, max_shard_size=SHARD)
    vocabulary.save(fresh)
    logs = sorted(run.glob("*/training.jsonl"), key=lambda path: path.stat().st_mtime)
    lines = [
        {"stage": log.parent.name, **json.loads(line)}
        for log in logs
        for line in log.read_text().splitlines()
    ]
    (fresh / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _batches(
    windows: Windows,
    kinds: Iterable[str],
    stage: CurriculumStage,
    device: torch.device,
    batch: int,
    seed: int,
) -> dict[str, Batches | SpanBatches]:
    length = stage.source_length
    return {
        kind: SpanBatches(windows, source_length=length, batch=batch, seed=seed, device=device)
        if kind in (SPANS, DETECTION)
        else Batches(windows, kind, source_length=length, batch=batch, seed=seed, device=device)
        for kind in kinds
    }


def _loss_of(
    windows: Windows, stage: CurriculumStage, recipe: TargetRecipe, device: torch.device
) -> Callable[[torch.nn.Module, int], Losses]:
    batches = _batches(windows, stage.mixture, stage, device, stage.batch, recipe.seed)
    slots = [(kind, place) for kind, share in stage.mixture.items() for place in range(share)]

    def loss_of(model: torch.nn.Module, step: int) -> Losses:
        turn, slot = divmod(step, len(slots))
        kind, place = slots[slot]
        source, text, masked = batches[kind](turn * stage.mixture[kind] + place)
        detect = kind == DETECTION and step < stage.detection
        seed = (recipe.seed << 32) + step if detect else None
        return {"loss": _loss(model, source, text, masked, recipe, seed)}

    return loss_of


def _loss(
    model: Any,
    source: torch.Tensor,
    text: torch.Tensor,
    masked: bool,
    recipe: TargetRecipe,
    detection_seed: int | None = None,
) -> torch.Tensor:
    half = recipe.precision == "bf16" and source.is_cuda
    with torch.autocast(source.device.type, torch.bfloat16, enabled=half):
        if detection_seed is not None:
            detector: Detector = model.detector
            return detector.losses(model, source, text, masked=masked, seed=detection_seed)["loss"]
        return t5_loss(model, source, text, masked=masked)


def _validation(
    windows: Windows, recipe: TargetRecipe, device: torch.device
) -> Callable[[torch.nn.Module], dict[str, float]] | None:
    """The loss on some windows of each kind that the last stage reads, as far as there are any."""
    stage = recipe.stages[-1]
    kinds = [kind for kind in stage.mixture if windows.counts().get(kind)]
    held_out = _batches(windows, kinds, stage, device, _VALIDATED, 0).values()
    batches = [batch(0) for batch in held_out]
    if not batches:
        return None

    @torch.no_grad()
    def validate(model: torch.nn.Module) -> dict[str, float]:
        losses = [_loss(model, *batch, recipe) for batch in batches]
        return {"validation_loss": float(torch.stack(losses).mean())}

    return validate


_VALIDATE_EVERY = 250
"""Updates between two validations, at most."""

_VALIDATED = 64
"""Windows of each kind in the validation loss."""
