"""The commands `train`, `pseudo`, `study`: from options to recipes, from these to checkpoints."""

import argparse
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from fastllm.checkpoints import load_drafter
from fastllm.data.tokens import TokenPairs, write_pairs
from fastllm.decoding.race import versions
from fastllm.distill import study as methods
from fastllm.distill.cache import TeacherCache, write_cache
from fastllm.distill.estimate import Size, Work, describe
from fastllm.distill.folders import (
    checkpoint_folder,
    differences,
    in_place_of,
    require_writable,
    writing,
)
from fastllm.distill.material import (
    TEXT_LENGTH,
    RunContext,
    TrainingData,
    article_count,
    choose_pairs,
    gather,
    has_split,
    held_out_count,
    held_out_texts,
    load_teacher,
    target_place,
)
from fastllm.distill.options import needed, pseudo_flags, settle, study_flags, train_flags
from fastllm.distill.pseudo import write_pseudo
from fastllm.distill.select import choose, confidences
from fastllm.distill.train import METHODS, DrafterRecipe, train_drafter
from fastllm.distill.validation import GAMMA, Validation
from fastllm.drafters import drafter_class, spec_of
from fastllm.drafters.neural import STARTS, NeuralDrafter
from fastllm.drafters.ngram import NgramDrafter
from fastllm.drafters.t5 import T5Drafter
from fastllm.errors import CheckpointError, DataError, SettingsError, VocabularyError
from fastllm.files import write_json
from fastllm.pretrain.curriculum import TargetRecipe, read_target_recipe, train_target
from fastllm.targets.hub import HubTarget
from fastllm.words import duration


def add_arguments(commands: Any) -> None:
    """Adds `train`, `pseudo` and `study` to the sub-commands of a parser."""
    for name, flags, handle, said, more in (
        (
            "train",
            train_flags,
            train,
            "train a target from nothing, or a drafter before or after distillation",
            "Trains a target (--target RECIPE.yaml, without --drafter) or a drafter. Interrupted "
            "runs go on where they stopped. Options may be written with dashes or underscores; "
            "`accelerate launch -m fastllm train` uses several GPUs.",
        ),
        (
            "pseudo",
            pseudo_flags,
            pseudo,
            "let the target write summaries to train on",
            "Lets the target summarise articles of a data set. The folder then holds the articles "
            "with the data set's summaries (articles/) and with the target's, and some of the "
            "validation split (validation/). Interrupted work goes on where it stopped; "
            "`accelerate launch -m fastllm pseudo` uses several GPUs.",
        ),
        (
            "study",
            study_flags,
            study,
            "compare methods and losses for one family",
            "Trains a drafter with each method and loss, measures all on held-out texts of the "
            "target, and writes a table and a chart (study.md, .svg, .json). Interrupted "
            "studies go on where they stopped.",
        ),
    ):
        parser = commands.add_parser(name, help=said, description=more)
        flags(parser)
        parser.set_defaults(handle=handle)


def train(options: argparse.Namespace) -> None:
    """Trains what the options ask for."""
    given = vars(options).items()
    # by identity: 0 is an answer, though it equals False
    typed = {name for name, value in given if value is not None and value is not False}
    notes = settle(options)
    if options.drafter is None:
        _train_target(options, typed)
        return
    counts = spec_of(options.drafter).training == "counting"
    if counts:
        _refuse_neural_options(options)
    _refuse_options_of_others(options)
    folder = Path(options.run or f"runs/{needed(options, 'exp_name')}")
    with RunContext.of(options, folder) as context:
        for note in notes:
            context.say(note)
        out_folder(options, context)  # refused now, not once everything is trained
        if options.teacher_cache:
            require_writable(options.teacher_cache)
        if counts:
            _train_ngram(options, context)
        else:
            _train_neural(options, context)


def pseudo(options: argparse.Namespace) -> None:
    """Writes the target's summaries of a data set's articles."""
    settle(options)
    batch, data = options.batch or 64, needed(options, "data")
    with RunContext.of(options, Path(needed(options, "out"))) as context:
        if options.dry_run:
            context.say(_estimate(options, None))
        # What is learned from these texts is what the target decodes: no TF32 in their arithmetic.
        torch.set_float32_matmul_precision("highest")
        target = load_teacher(options, context)
        for split, out, count, temperature in (
            ("validation", context.folder / "validation", held_out_count(options, context), 0.0),
            (
                "train",
                context.folder,
                article_count(options, context, 2 * batch),
                options.temperature,
            ),
        ):
            if split == "validation" and not (count and has_split(data, split)):
                continue
            if split == "train" and options.select:
                pairs = _selected(options, context, target, count)
            else:
                pairs = choose_pairs(data, split, out / "articles", target, options, context, count)
            started = time.perf_counter()
            written = write_pseudo(
                target,
                pairs,
                out,
                length=options.length or TEXT_LENGTH,
                temperature=temperature,
                batch=batch,
                shard_size=options.shard_size,
                accelerator=context.accelerator,
                say=context.say,
            )
        seconds = (time.perf_counter() - started) / len(written)
        if options.dry_run:
            context.say(f"two batches were written here, {seconds:.2f} s an article")
        else:
            context.say(f"{len(written)} texts in {out}")


def _selected(
    options: argparse.Namespace, context: RunContext, target: HubTarget, count: int
) -> TokenPairs:
    """The articles of a pool that a drafter is unsure of, and random ones; chosen once."""
    name, folder = needed(options, "ckpt_path"), context.folder / "articles"
    size = 2 * count if context.dry else needed(options, "pool")
    asked = {
        "select": options.select,
        "by": str(name),
        "pool": size,
        "random": options.random,
        "articles": count,
        "seed": options.seed or 0,
    }
    if (folder / "meta.json").exists():
        if changed := differences(TokenPairs(folder).meta.get("selection", {}), asked):
            raise DataError(
                f"{folder} holds articles that were chosen otherwise ({changed}): give another "
                f"folder than {folder.parent}, or remove it."
            )
        return TokenPairs(folder)
    drafter = load_drafter(name, device=context.accelerator.device)
    if not isinstance(drafter, NeuralDrafter):
        raise SettingsError(f"--ckpt_path {name}: only a neural drafter says how sure it is.")
    if drafter.vocabulary != target.vocabulary.fingerprint:
        raise VocabularyError(f"{name} was made for another vocabulary than {target.name}'s.")
    drafter.bind(target)
    pool = choose_pairs(
        options.data, "train", context.folder / "pool", target, options, context, size
    )

    def make() -> None:
        sure = confidences(
            drafter.model,
            pool,
            start_id=target.start_id,
            end_id=target.end_ids,
            length=options.length or TEXT_LENGTH,
            say=context.say,
        )
        arms = choose(sure, min(count, len(pool)), options.random, options.seed or 0)
        chosen = [{"id": pool.ids[at], "arm": arms[at], "confidence": sure[at]} for at in arms]
        rows = ((pool.ids[at], pool.source(at), pool.target(at)) for at in arms)
        with writing(folder, "The pool is whole."):
            write_json(context.folder / "selection.json", chosen)
            write_pairs(folder, rows, {**pool.meta, "selection": asked})
        uncertain, random = (list(arms.values()).count(arm) for arm in ("uncertain", "random"))
        context.say(
            f"of {len(pool)} articles {uncertain} were chosen because {name} is unsure, "
            f"and {random} at random: selection.json names them"
        )

    context.first(make)
    return TokenPairs(folder)


def study(options: argparse.Namespace) -> None:
    """Compares methods and losses."""
    for note in settle(options):
        print(note, flush=True)
    methods.study(options)


# What is trained.


_OF_TARGETS = frozenset(
    "command handle usage target data run out scale device dry_run start trailing_run".split()
)
"""What is heeded where a target is trained."""


def _train_target(options: argparse.Namespace, typed: set[str]) -> None:
    path = Path(options.target)
    if path.suffix not in (".yaml", ".yml"):
        raise SettingsError(
            "give --drafter to train a drafter, or --target recipes/target.yaml to train a target."
        )
    if strange := sorted(typed - _OF_TARGETS):
        raise SettingsError(
            f"--{', --'.join(strange)}: a target is trained as {path} says, stage by stage. Change "
            "a copy of it, or shrink everything with --scale."
        )
    recipe = _scaled_target(read_target_recipe(path), options)
    data = needed(options, "data")
    with RunContext.of(options, Path(options.run or f"runs/{recipe.name}")) as context:
        if context.accelerator.num_processes > 1:
            raise SettingsError(
                "a target is trained in one process: leave `accelerate launch` out."
            )
        folder = train_target(
            recipe,
            data,
            context.folder,
            out=out_folder(options, context),
            start=options.start or "",
            device=context.accelerator.device,
            say=context.say,
        )
        context.say("two updates a stage ran" if context.dry else f"checkpoint in {folder}")


def _scaled_target(recipe: TargetRecipe, options: argparse.Namespace) -> TargetRecipe:
    stages = []
    for stage in recipe.stages:
        updates, warmup, cooldown = _shrunk(stage.updates, stage.warmup, stage.cooldown, options)
        stages.append(
            replace(
                stage,
                warmup=warmup,
                cooldown=cooldown,
                detection=math.ceil(stage.detection * options.scale),
                seconds=0.0 if options.dry_run else stage.seconds * options.scale,
                updates=stage.updates if stage.seconds and not options.dry_run else updates,
            )
        )
    scale = min(options.scale, 1e-3) if options.dry_run else options.scale
    articles = max(64, round(recipe.articles * scale))
    return replace(recipe, stages=tuple(stages), articles=min(articles, recipe.articles))


def _shrunk(
    updates: int, warmup: int, cooldown: int, options: argparse.Namespace
) -> tuple[int, int, int]:
    if options.dry_run:
        return 2, 0, 0
    if options.scale == 1:
        return updates, warmup, cooldown
    fewer = max(2, round(updates * options.scale))
    return fewer, round(warmup * options.scale), min(fewer, round(cooldown * options.scale))


def _train_neural(options: argparse.Namespace, context: RunContext) -> None:
    recipe = _drafter_recipe(options)
    if context.dry:
        context.say(_estimate(options, recipe))
    asked = recipe.updates
    updates, warmup, cooldown = _shrunk(recipe.updates, recipe.warmup, recipe.cooldown, options)
    recipe = replace(recipe, updates=updates, warmup=warmup, cooldown=cooldown)
    data = gather(options, context, recipe.resolved.written_texts)
    target = data.target
    if recipe.resolved.lambda1:
        _refuse_without_summaries(data, recipe.method)
    held_out = held_out_texts(options, context, target)
    log_every = 1 if context.dry else options.log_every
    # A twentieth of all updates, and where there is a line in the log anyway.
    every = options.validate_every or log_every * max(1, round(recipe.updates / 20 / log_every))
    drafter = _untrained(options, recipe.seed, options.exp_name or context.folder.name, target)
    caches = _teacher_caches(options, context, recipe, data)
    last = train_drafter(
        drafter.model,
        recipe,
        context.folder,
        dataset=data.dataset,
        written=data.written,
        target=target,
        start_id=target.start_id,
        end_id=target.end_ids,
        caches=caches,
        about={
            "target": target.name,
            "drafter": options.drafter,
            **_start_of(options),
            "articles": len(data.dataset),
            "validate_every": every if held_out is not None else 0,
            **({"teacher_top_k": options.teacher_top_k} if caches else {}),
        },
        validate=None if held_out is None else Validation(target, held_out),
        validate_every=every,
        save_every=options.save_every,
        log_every=log_every,
        accelerator=context.accelerator,
        say=context.say,
    )
    best = last.get("best", last)
    card: dict[str, Any] = {
        "method": {"name": recipe.method, **recipe.resolved.written_down()},
        "recipe": recipe.written_down(),
        **_start_of(options),
        "parameters": drafter.parameters,
        "seconds": last["seconds"],
        "teacher_tokens": _teacher_tokens(recipe, data.written, context.folder),
        "last_losses": {key: last[key] for key in ("loss", "alpha", "alpha_greedy") if key in last},
        "processes": context.accelerator.num_processes,
    }
    if caches:
        card["teacher_cache"] = {
            "top_k": next(iter(caches.values())).meta["top_k"],
            "places": sum(cache.places for cache in caches.values()),
            "bytes": sum(cache.nbytes for cache in caches.values()),
        }
    if held_out is not None:
        card["validation"] = {
            "articles": len(held_out),
            "every": every,
            "gamma": GAMMA,
            "step": best["step"],
            **{
                name.removeprefix("validation_"): value
                for name, value in best.items()
                if name.startswith("validation_")
            },
        }
    count, texts = len(data.dataset), _texts_of(recipe)
    save_checkpoint(drafter, options, context, card, target, count, texts, options.drafter)
    if context.dry:
        seconds = _log_lines(context.folder)[-1]["seconds"] / recipe.updates
        context.say(
            f"two updates ran here, {seconds:.2f} s each: {asked} would take "
            f"{duration(seconds * asked)}"
        )


def _teacher_caches(
    options: argparse.Namespace, context: RunContext, recipe: DrafterRecipe, data: TrainingData
) -> dict[str, TeacherCache]:
    """What the target thinks of the texts that the recipe reads, where a cache was asked for."""
    if not options.teacher_cache:
        return {}
    method = recipe.resolved
    texts = {
        "dataset": data.dataset if method.lambda1 > 0 else None,
        "written": data.written if method.written_texts else None,
    }
    if not method.scored or not any(texts.values()):
        raise SettingsError(
            f"--teacher_cache keeps what the target thinks of given texts, and {recipe.method} "
            f"({method.loss}) asks it about none: leave it out."
        )
    place = context.folder / "teacher" if context.dry else Path(options.teacher_cache)
    return {
        name: write_cache(
            data.target,
            pairs,
            place / name,
            length=recipe.length,
            top_k=options.teacher_top_k,
            accelerator=context.accelerator,
            say=context.say,
        )
        for name, pairs in texts.items()
        if pairs is not None
    }


def _untrained(
    options: argparse.Namespace, seed: int, name: str, target: HubTarget
) -> NeuralDrafter[Any]:
    """The drafter that a training starts from."""
    family, start = drafter_class(options.drafter), options.start or STARTS[0]
    fingerprint = target.vocabulary.fingerprint
    width = target.logit_count
    if start in STARTS:
        own = {"target": target} if spec_of(options.drafter).bound_to_target else {}
        fresh: NeuralDrafter[Any] = family.fresh(
            width,
            seed=seed,
            start_id=target.start_id,
            full_stop=target.vocabulary.full_stop,
            start=start,
            name=name,
            vocabulary=fingerprint,
            **own,
            **_layers(options),
        )
        return fresh
    # the target in memory may be quantised, and its weights are to stay as they are
    place = target_place(options) if start == _OF_TARGET else start
    loaded: NeuralDrafter[Any] = family.load(place)
    if isinstance(loaded, T5Drafter) and options.layers:
        loaded = loaded.shrunk(options.layers)
    if loaded.vocabulary != fingerprint:
        raise VocabularyError(
            f"{start} has the vocabulary {loaded.vocabulary}, the target {target.name} has "
            f"{fingerprint}: start from a drafter for this target, or with --start copying."
        )
    loaded.bind(target)
    if loaded.settings.vocabulary_size != width:
        _pad_vocabulary(loaded, width)
    if options.drafter == "t5":
        loaded.model.network.config.decoder_start_token_id = target.start_id
        loaded.settings = replace(loaded.settings, start_id=target.start_id)
    return replace(loaded, name=name)


def _pad_vocabulary(drafter: NeuralDrafter[Any], width: int) -> None:
    """Gives a T5 as many logits as the target has: the same pieces, more or less padding.

    transformers takes no `assistant_model=` with another number.
    """
    if not hasattr(drafter.model, "network"):
        raise VocabularyError(
            f"{drafter.name} has {drafter.settings.vocabulary_size} logits, the target {width}."
        )
    network, had = drafter.model.network, drafter.settings.vocabulary_size
    network.resize_token_embeddings(width, mean_resizing=False)
    with torch.no_grad():  # what is new begins like what is never written
        for weight in (network.shared.weight, network.lm_head.weight):
            weight[had:] = weight[network.config.pad_token_id]
    drafter.settings = replace(drafter.settings, vocabulary_size=width)


def _train_ngram(options: argparse.Namespace, context: RunContext) -> None:
    method = options.distill_method or ("seq_kd" if options.pseudo_dataset_path else "supervised")
    lines = Path(options.pseudo_dataset_path or "-")
    if lines.is_file():
        target = load_teacher(options, context)
        texts = _lines(lines, target, max(TEXT_LENGTH, options.length or 0))
        context.say(f"{lines}: {len(texts)} texts, one a line, counted as they stand")
        _count(options, context, target, texts, f"the lines of {lines.name}")
        return
    data = gather(options, context, method == "seq_kd")
    pairs = data.written if method == "seq_kd" else data.dataset
    if pairs is None:
        raise SettingsError(
            "seq_kd counts what the target wrote: give --pseudo_dataset_path, made with "
            "`python -m fastllm pseudo`."
        )
    if method != "seq_kd":
        _refuse_without_summaries(data, method)
    counted = [pairs.target(index) for index in range(len(pairs))]
    _count(options, context, data.target, counted, _ORIGIN[method])


def _lines(file: Path, target: HubTarget, length: int) -> list[list[int]]:
    """The texts of a file, one a line, as token ids."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"{file} is no text file in UTF-8 ({error}): save it as one.") from error
    texts = [target.vocabulary.encode(line, length).ids for line in lines if line.strip()]
    if not texts:
        raise DataError(f"{file} holds no text: give a file with a text on each line.")
    return texts


def _count(
    options: argparse.Namespace,
    context: RunContext,
    target: HubTarget,
    texts: Sequence[Sequence[int]],
    origin: str,
) -> None:
    """Counts texts, behind those of --resume, and saves the table."""
    started = time.perf_counter()
    fingerprint, name = target.vocabulary.fingerprint, options.exp_name or context.folder.name
    if options.start:
        loaded = load_drafter(options.start, device="cpu")
        if not isinstance(loaded, NgramDrafter) or loaded.vocabulary != fingerprint:
            raise VocabularyError(
                f"{options.start} is no n-gram of the vocabulary of {target.name}: resume from the "
                "folder or the text file of one that is."
            )
        drafter = loaded.resume(texts)
        drafter.name = name
    else:
        drafter = NgramDrafter.fit(
            texts,
            order=options.ngram_n,
            vocabulary_size=target.logit_count,
            start_id=target.start_id,
            name=name,
            vocabulary=fingerprint,
            smoothing=options.smoothing,
            end_id=target.end_id,
        )
    method = {
        "name": "counting",
        "order": drafter.counts.order,
        "smoothing": drafter.smoothing,
        **({"resumed": str(options.start)} if options.start else {}),
    }
    seconds = round(time.perf_counter() - started, 2)
    card = {"method": method, "entries": drafter.counts.entries, "seconds": seconds}
    save_checkpoint(drafter, options, context, card, target, len(texts), origin, "ngram")
    if context.dry:
        context.say(f"counted {len(texts)} texts")
    elif options.save_text:
        place = Path(options.save_text)
        with writing(place, f"The checkpoint is in {out_folder(options, context)}."):
            drafter.save_text(place)
        context.say(f"text file in {place}")


def _refuse_neural_options(options: argparse.Namespace) -> None:
    for name in (
        *("loss", "kd_loss", "kd_temp", "jsd_beta", "learning_rate", "lambda1", "lambda2"),
        *("keep", "teacher_cache"),
    ):
        if getattr(options, name) is not None:
            raise SettingsError(
                f"--{name} does not belong to an n-gram: it counts, and that is all."
            )
    if options.distill_method not in (None, *_ORIGIN):
        raise SettingsError(
            f"--distill_method {options.distill_method}: an n-gram counts texts that are given; "
            f"give one of {', '.join(_ORIGIN)}."
        )


_OF_TARGET = "target"
"""The start of a T5 with the target's own weights."""


def _layers(options: argparse.Namespace) -> dict[str, int]:
    return {"layers": options.layers} if options.layers else {}


def _start_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the initial weights are, for the card."""
    return {"start": options.start or STARTS[0], **_layers(options)}


def _refuse_options_of_others(options: argparse.Namespace) -> None:
    """Refuses what other families alone understand."""
    fresh = options.start in (None, *STARTS)
    given = {
        "start target": (options.start == _OF_TARGET, ("t5",)),
        # of a shared drafter that is loaded, every layer is its own
        "layers": (options.layers is not None, ("t5", "shared") if fresh else ("t5",)),
        "as_target": (options.as_target, ("t5",)),
        "save_text": (options.save_text is not None, ("ngram",)),
    }
    for name, (asked, families) in given.items():
        if asked and options.drafter not in families:
            raise SettingsError(
                f"--{name} belongs to --drafter {' and '.join(families)} alone: leave it out for "
                f"{options.drafter}."
            )


def _drafter_recipe(options: argparse.Namespace) -> DrafterRecipe:
    if options.loss and options.kd_loss and options.loss != options.kd_loss:
        raise SettingsError(
            f"--loss {options.loss} and --kd_loss {options.kd_loss} are two names of one setting: "
            "give one of them."
        )
    method = options.distill_method
    if method is None and (options.kd_loss or options.loss not in (None, "ce")):
        method = "supervised_kd"  # a divergence without a method: on the data set's texts
    given = {
        "method": method,
        "loss": options.kd_loss or options.loss,
        "kd_temperature": options.kd_temp,
    }
    others = [entry.name for entry in fields(DrafterRecipe) if entry.name not in given]
    given |= {name: getattr(options, name) for name in others}
    recipe = {name: value for name, value in given.items() if value is not None}
    if "updates" in recipe and "cooldown" not in recipe:  # the usual share, where updates are few
        recipe["cooldown"] = min(DrafterRecipe.cooldown, recipe["updates"] // 3)
    return DrafterRecipe(**recipe)


_OWN_TEXTS = "the data set's summaries"
_ORIGIN = {"supervised": _OWN_TEXTS, "seq_kd": "target-written"}
"""What an n-gram counts, by method."""


def _texts_of(recipe: DrafterRecipe) -> str:
    """Where a recipe's texts come from, in words for the card."""
    method = recipe.resolved
    others = 1 - method.lambda1
    shares = {
        _OWN_TEXTS: method.lambda1,
        "the drafter's own": others * method.lambda2,
        "target-written": others * (1 - method.lambda2),
    }
    return ", ".join(f"{name} ({share:.0%})" for name, share in shares.items() if share)


def _teacher_tokens(recipe: DrafterRecipe, written: TokenPairs | None, run: Path) -> dict[str, int]:
    """Tokens that the target wrote, and tokens that it scored (a cache may have spared it some)."""
    method, scored = recipe.resolved, 0.0
    if method.scored:
        lines = [{"step": 0}, *_log_lines(run)]
        scored = sum(b["tokens"] * (b["step"] - a["step"]) for a, b in pairwise(lines))
    read = written if method.written_texts else None
    return {
        "written": 0 if read is None else int(read.lengths().sum()),
        "scored": round(scored),
    }


def _log_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]


def _refuse_without_summaries(data: TrainingData, method: str) -> None:
    if not data.dataset.lengths().any():
        raise DataError(
            f"the articles have no summaries, and {method} trains on those: give data with "
            '"highlights", or a method that trains on what the target or the drafter writes, such '
            "as seq_kd or, for a neural drafter, mixed_gkd."
        )


def out_folder(options: argparse.Namespace, context: RunContext) -> Path:
    """Where the checkpoint goes, if it may go there."""
    usual = context.folder / "checkpoint"
    out = checkpoint_folder(options.out or usual, context.folder, target_place(options))
    return usual if context.dry else out


def save_checkpoint(
    drafter: Any,
    options: argparse.Namespace,
    context: RunContext,
    card: dict[str, Any],
    target: HubTarget,
    articles: int,
    texts: str,
    family: str,
) -> None:
    """Writes the checkpoint, once for all processes."""
    out = out_folder(options, context)  # again: hours may have passed
    context.accelerator.wait_for_everyone()  # all have looked; now the first may write
    whole = {
        "name": drafter.name,
        "family": family,
        "target": target.name,
        **card,
        "texts": texts,
        "articles": articles,
        "prefix": target.prefix,
        "source_length": target.source_length,
        "device": str(target.device),
        "versions": versions(),
    }

    def write() -> None:
        with (
            writing(out, f"What was learned is in {context.folder}."),
            in_place_of(out) as fresh,
        ):
            if options.command == "train" and options.as_target:
                drafter.save_as_target(fresh, target)
            else:
                drafter.save(fresh)
            text = json.dumps(whole, indent=1) + "\n"
            (fresh / "card.json").write_text(text, encoding="utf-8")
            if (context.folder / "training.jsonl").exists():
                shutil.copy(context.folder / "training.jsonl", fresh / "training.jsonl")

    context.first(write)
    if not context.dry:
        context.say(f"checkpoint in {out}")


# Estimates.


def _estimate(options: argparse.Namespace, recipe: DrafterRecipe | None) -> str:
    """What the whole work will take, from configurations alone: no weights are loaded."""
    place = target_place(options)
    target, own = _size_of(place)
    drafter, method = Size(0, 0, 0), METHODS["supervised"]
    if recipe is not None:
        method, start = recipe.resolved, options.start or STARTS[0]
        family = drafter_class(options.drafter)
        if start in STARTS:
            fresh = family.fresh(target.vocabulary, start="ordinary", **_layers(options))
            drafter = Size.of(getattr(fresh.model, "network", fresh.model))
        elif options.drafter == "t5":
            drafter, _ = _size_of(place if start == _OF_TARGET else start, options.layers)
        else:
            drafter = Size.of(family.load(start).model)
    work = Work(
        articles=round(options.limit * options.scale) or _EVERYTHING,
        source=options.source_length or own.get("source_length", 512),
        text=options.length or TEXT_LENGTH,
        load_in=options.load_in,
        updates=0 if recipe is None else recipe.updates,
        batch=options.batch or 32,
        scored=method.scored,
        own_texts=1.0 if method.replays else method.own_texts,  # it writes along each text
    )
    return describe(target, drafter, work)


_EVERYTHING = 300_000
"""Articles that an estimate assumes where all are asked for: as many as CNN/DailyMail has."""


def _size_of(name_or_folder: str, layers: int | None = None) -> tuple[Size, dict[str, Any]]:
    """The size of a T5 that is not loaded, and the "fastllm" section of its configuration.

    `layers` are those that would be kept of it: all by default.
    """
    try:
        config = AutoConfig.from_pretrained(name_or_folder)
        if layers:
            config.num_layers = config.num_decoder_layers = layers
        with torch.device("meta"):
            model = AutoModelForSeq2SeqLM.from_config(config)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name_or_folder} is no encoder-decoder ({error}).") from error
    return Size.of(model), getattr(config, "fastllm", None) or {}
