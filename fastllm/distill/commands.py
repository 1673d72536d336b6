"""The commands `train` and `pseudo`: flags to recipes, recipes to runs."""

import argparse
import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import yaml

from fastllm.checkpoints import load_target, replace_folder
from fastllm.data.articles import read_articles
from fastllm.data.prepare import prepare_pairs
from fastllm.data.tokens import TokenPairs
from fastllm.distill.losses import DIVERGENCES
from fastllm.distill.pseudo import write_pseudo
from fastllm.distill.target import TargetRecipe, find_split, train_target
from fastllm.distill.train import METHODS, DrafterRecipe, train_drafter
from fastllm.drafters.lstm import LstmDrafter, LstmModel, LstmSettings
from fastllm.drafters.ngram import NgramDrafter
from fastllm.errors import DataError, SettingsError
from fastllm.race import versions
from fastllm.targets.hub import HubTarget
from fastllm.vocabulary import Vocabulary

NEURAL = {"lstm": (LstmDrafter, LstmModel, LstmSettings)}
"""The families that `train` trains by gradient."""


def add_arguments(commands: Any) -> None:
    """Adds `train` and `pseudo` to the sub-commands of a parser."""
    _add_train(commands)
    _add_pseudo(commands)


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a target from nothing, or a drafter before or after distillation",
        description="Trains a target (--target RECIPE.yaml, without --drafter) or a drafter. "
        "Interrupted runs go on where they stopped. Options may be written with dashes or "
        "underscores.",
    )
    parser.add_argument(
        "--target",
        default="target",
        help="with --drafter: shipped target, folder or Hub model; else a recipe to train a "
        "target by, such as recipes/target.yaml",
    )
    parser.add_argument("--drafter", choices=[*NEURAL, "ngram"], help="family to train")
    parser.add_argument("--recipe", metavar="FILE", help="YAML with any of the options below")
    _flag(parser, "--exp_name", help="name of the run and of the checkpoint")
    _flag(parser, "--data", help="folder with train.jsonl.xz (or .jsonl, .jsonl.gz)")
    _flag(parser, "--pseudo_dataset_path", help="what `pseudo` wrote; without it: the data set")
    _flag(parser, "--limit", type=int, default=8000, help="articles (default: 8000)")
    _flag(parser, "--out", help="where the checkpoint goes (default: RUN/checkpoint)")
    _flag(parser, "--run", help="the run's folder (default: runs/EXP_NAME)")
    _flag(parser, "--distill_method", "--method", choices=list(METHODS), help="neural families")
    _flag(parser, "--loss", choices=["ce", *DIVERGENCES], help="the method's by default")
    _flag(parser, "--kd_loss", choices=list(DIVERGENCES), help="the same, for divergences")
    _flag(parser, "--kd_temp", type=float, help="divides both logits in a divergence")
    for name in ("updates", "batch", "warmup", "cooldown", "seed", "length"):
        _flag(parser, f"--{name}", type=int, help="see DrafterRecipe")
    for name in ("learning_rate", "lambda1", "lambda2"):
        _flag(parser, f"--{name}", type=float, help="see DrafterRecipe")
    _flag(parser, "--ngram_n", type=int, default=3, help="order of the n-gram (default: 3)")
    _flag(parser, "--smoothing", default="interpolated", help="interpolated or laplace")
    _flag(parser, "--device", help="cpu, cuda, mps (default: the best there is)")
    parser.set_defaults(handle=train)


def _add_pseudo(commands: Any) -> None:
    parser = commands.add_parser(
        "pseudo",
        help="let the target write summaries to train on",
        description="Lets the target summarise articles of a data set. The folder then holds the "
        "articles with the data set's summaries (articles/) and with the target's.",
    )
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    _flag(parser, "--data", required=True, help="folder with train.jsonl.xz (or .jsonl)")
    _flag(parser, "--out", required=True, help="folder to write to")
    _flag(parser, "--limit", type=int, default=8000, help="articles (default: 8000)")
    _flag(parser, "--seed", type=int, default=0, help="which articles (default: 0)")
    _flag(parser, "--length", type=int, default=96, help="the most tokens (default: 96)")
    _flag(parser, "--temperature", type=float, default=0.0, help="0 is greedy (default)")
    _flag(parser, "--batch", type=int, default=64, help="articles at once (default: 64)")
    _flag(parser, "--device", help="cpu, cuda, mps (default: the best there is)")
    parser.set_defaults(handle=pseudo)


def train(options: argparse.Namespace) -> None:
    """Trains what the flags ask for."""
    if options.recipe:
        _apply_recipe(options)
    if options.drafter is None:
        _train_target(options)
    elif options.drafter == "ngram":
        _train_ngram(options)
    else:
        _train_neural(options)


def pseudo(options: argparse.Namespace) -> None:
    """Writes the target's summaries of a data set's articles."""
    target = load_target(options.target, device=options.device)
    out = Path(options.out)
    pairs = choose_pairs(
        options.data, target.vocabulary, out / "articles", target, options.limit, options.seed
    )
    written = write_pseudo(
        target,
        pairs,
        out,
        length=options.length,
        temperature=options.temperature,
        batch=options.batch,
    )
    print(f"{len(written)} texts in {out}")


def choose_pairs(
    data: str | Path,
    vocabulary: Vocabulary,
    folder: Path,
    target: HubTarget,
    limit: int,
    seed: int,
) -> TokenPairs:
    """The data set's summaries of `limit` random articles as token pairs, made once."""
    if not (folder / "meta.json").exists():
        articles = list(read_articles(find_split(data, "train")))
        random.Random(seed).shuffle(articles)
        prepare_pairs(
            articles[:limit],
            vocabulary,
            folder,
            kind="summary",
            source_length=target.source_length,
            text_length=96,
            prefix=target.prefix,
        )
    return TokenPairs(folder)


def _train_target(options: argparse.Namespace) -> None:
    path = Path(options.target)
    if path.suffix not in (".yaml", ".yml"):
        raise SettingsError(
            "give --drafter to train a drafter, or --target recipes/target.yaml to train a target."
        )
    recipe = TargetRecipe.from_tree(_yaml(path))
    run = Path(options.run or f"runs/{recipe.name}")
    print(f"checkpoint in {train_target(recipe, _needed(options, 'data'), run)}")


def _train_neural(options: argparse.Namespace) -> None:
    drafter_class, model_class, settings_class = NEURAL[options.drafter]
    recipe = _drafter_recipe(options)
    run, target, dataset, written = _prepare(options)
    settings = settings_class(vocabulary_size=int(target.model.config.vocab_size))
    torch.manual_seed(recipe.seed)
    model = model_class(settings)
    model.start_copying(
        torch.Generator().manual_seed(recipe.seed), target.start_id, target.vocabulary.full_stop
    )
    last = train_drafter(
        model,
        recipe,
        run,
        dataset=dataset,
        written=written,
        target=target,
        start_id=target.start_id,
        end_id=target.end_id,
    )
    drafter = drafter_class(model, settings, run.name, target.vocabulary.fingerprint)
    card = {
        "method": {"name": recipe.method, **asdict(recipe.resolved)},
        "recipe": asdict(recipe),
        "parameters": drafter.parameters,
        "seconds": last["seconds"],
        "last_losses": {key: last[key] for key in ("loss", "alpha", "alpha_greedy") if key in last},
    }
    _save(drafter, options, run, card, dataset, _texts_of(recipe), target)


def _train_ngram(options: argparse.Namespace) -> None:
    run, target, dataset, written = _prepare(options)
    texts = written or dataset
    started = time.perf_counter()
    drafter = NgramDrafter.fit(
        (texts.target(index) for index in range(len(texts))),
        order=options.ngram_n,
        vocabulary_size=int(target.model.config.vocab_size),
        start_id=target.start_id,
        name=run.name,
        vocabulary=target.vocabulary.fingerprint,
        smoothing=options.smoothing,
        end_id=target.end_id,
    )
    card = {
        "method": {"name": "counting", "order": options.ngram_n, "smoothing": options.smoothing},
        "entries": drafter.counts.entries,
        "seconds": round(time.perf_counter() - started, 2),
    }
    origin = "target-written" if written else _OWN_TEXTS
    _save(drafter, options, run, card, dataset, origin, target)


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


_OWN_TEXTS = "the data set's summaries"


def _prepare(
    options: argparse.Namespace,
) -> tuple[Path, HubTarget, TokenPairs, TokenPairs | None]:
    target = load_target(options.target, device=options.device)
    run = Path(options.run or f"runs/{_needed(options, 'exp_name')}")
    if options.pseudo_dataset_path:
        folder = Path(options.pseudo_dataset_path)
        written = TokenPairs(folder)
        if written.meta.get("vocabulary") != target.vocabulary.fingerprint:
            raise DataError(
                f"{folder} was written by {written.meta.get('target')} with another vocabulary "
                f"than {target.name}'s: write it anew with `python -m fastllm pseudo`."
            )
        return run, target, TokenPairs(folder / "articles"), written
    dataset = choose_pairs(
        _needed(options, "data"),
        target.vocabulary,
        run / "articles",
        target,
        options.limit,
        options.seed or 0,
    )
    return run, target, dataset, None


def _save(
    drafter: Any,
    options: argparse.Namespace,
    run: Path,
    card: dict[str, Any],
    dataset: TokenPairs,
    texts: str,
    target: HubTarget,
) -> None:
    out = Path(options.out or run / "checkpoint")
    fresh = out.with_name(out.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    drafter.save(fresh)
    whole = {
        "name": run.name,
        "family": options.drafter,
        "target": target.name,
        **card,
        "texts": texts,
        "articles": len(dataset),
        "device": str(target.device),
        "versions": versions(),
    }
    (fresh / "card.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if (run / "training.jsonl").exists():
        shutil.copy(run / "training.jsonl", fresh / "training.jsonl")
    replace_folder(fresh, out)
    print(f"checkpoint in {out}")


def _drafter_recipe(options: argparse.Namespace) -> DrafterRecipe:
    given = {
        "method": options.distill_method,
        "loss": options.kd_loss or options.loss,
        "kd_temperature": options.kd_temp,
    }
    for entry in fields(DrafterRecipe):
        if entry.name not in given:
            given[entry.name] = getattr(options, entry.name)
    return DrafterRecipe(**{name: value for name, value in given.items() if value is not None})


def _apply_recipe(options: argparse.Namespace) -> None:
    """Fills in from a YAML file what the command line left at its default."""
    for name, value in _yaml(Path(options.recipe)).items():
        if not hasattr(options, name):
            raise SettingsError(f"{options.recipe}: there is no option {name!r}.")
        if getattr(options, name) in (None, *_DEFAULTED.get(name, ())):
            setattr(options, name, value)


_DEFAULTED: dict[str, tuple[Any, ...]] = {
    "target": ("target",),
    "limit": (8000,),
    "ngram_n": (3,),
    "smoothing": ("interpolated",),
}
"""The options with a default other than None, for `_apply_recipe`."""


def _yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} is not a readable YAML file: {error}") from error
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: needs names and values.")
    return tree


def _needed(options: argparse.Namespace, name: str) -> Any:
    value = getattr(options, name)
    if value is None:
        raise SettingsError(f"--{name} is missing.")
    return value


def _flag(parser: argparse.ArgumentParser, *names: str, **settings: Any) -> None:
    """Adds an option under its names, with underscores and with dashes."""
    spellings: Sequence[str] = [
        spelling for name in names for spelling in (name, "--" + name[2:].replace("_", "-"))
    ]
    parser.add_argument(*dict.fromkeys(spellings), **settings)
