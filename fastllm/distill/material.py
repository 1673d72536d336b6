"""What a training works on: processes and their device, the target, articles and its texts."""

import argparse
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from accelerate import Accelerator
from transformers.utils import logging

from fastllm.checkpoints import SHIPPED, TARGET
from fastllm.data.articles import read_articles, read_split
from fastllm.data.pairs import prepare_pairs
from fastllm.data.tokens import TokenPairs
from fastllm.devices import usable_device
from fastllm.distill.folders import (
    LOCK,
    differences_from,
    locked,
    require_writable,
    writing,
)
from fastllm.distill.loop import processes
from fastllm.distill.options import needed
from fastllm.distill.pseudo import weights_fingerprint, write_pseudo
from fastllm.errors import DataError
from fastllm.files import write_json
from fastllm.targets.hub import HubTarget

TEXT_LENGTH = 96
"""The most tokens of a text, where nothing else is said."""


@dataclass
class RunContext:
    """Where a command runs: processes, device, folder. Nobody else works in the folder meanwhile.

    Used as a context: SIGTERM then ends the work as Ctrl-C does, and what a dry run made is removed
    at the end.

    Attributes:
        accelerator: the processes and their devices.
        folder: of the run; a dry run has one of its own, which it removes.
        dry: whether this is a dry run.
    """

    accelerator: Accelerator
    folder: Path
    dry: bool

    @classmethod
    @contextmanager
    def of(cls, options: argparse.Namespace, folder: Path) -> Iterator["RunContext"]:
        """The context that options ask for, with `folder` as its place.

        Raises:
            CheckpointError: another process is at work in the folder.
            SettingsError: the folder cannot be written to, or there is no such device.
        """
        logging.disable_progress_bar()
        require_writable(folder)
        dry = bool(options.dry_run)
        place = folder.with_name(folder.name + ".dry-run") if dry else folder
        device = None if options.device is None else str(usable_device(options.device))
        context = cls(processes(device), place, dry)
        main = context.accelerator.is_main_process
        lock = locked(place, passing=dry) if main else nullcontext()
        with lock, _terminable(context.accelerator):
            if dry:
                context.first(context._remove)
            try:
                yield context
            finally:
                if dry and main:
                    context._remove()

    def say(self, line: str) -> None:
        """Prints, once for all processes."""
        if self.accelerator.is_main_process:
            print(line, flush=True)

    def first(self, act: Callable[[], object]) -> None:
        """Lets the first process act while the others wait."""
        if self.accelerator.is_main_process:
            act()
        self.accelerator.wait_for_everyone()

    def _remove(self) -> None:
        """Removes what a dry run made, but for its lock."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink(missing_ok=True)


@contextmanager
def _terminable(accelerator: Accelerator) -> Iterator[None]:
    """Makes SIGTERM a KeyboardInterrupt, so that what was done is saved.

    Not of several processes, where their launcher is to end them all at once.
    """
    if accelerator.num_processes > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# The target, and articles for it.


def target_place(options: argparse.Namespace) -> str:
    """Folder or name of the target."""
    return str(SHIPPED / TARGET) if options.target == TARGET else str(options.target)


def load_teacher(options: argparse.Namespace, context: RunContext) -> HubTarget:
    """The target, on this process's device."""
    return HubTarget.load(
        target_place(options),
        device=context.accelerator.device,
        load_in=options.load_in,
        prefix=options.prefix,
        source_length=options.source_length,
    )


def article_count(options: argparse.Namespace, context: RunContext, dry: int) -> int:
    """How many articles to take; 0 is all."""
    if context.dry:
        return dry
    limit, scale = int(options.limit), float(options.scale)
    return min(limit, max(16, round(limit * scale)))


def held_out_count(options: argparse.Namespace, context: RunContext) -> int:
    """How many articles to hold out; 0 is none."""
    asked, scale = int(options.validation_articles), float(options.scale)
    return min(asked, 8 if context.dry else max(8, round(asked * scale)))


def has_split(data: str, split: str) -> bool:
    """Whether a data set has a split, as far as can be told without the network."""
    try:
        read_split(data, split)
    except DataError:
        return False
    return True


def choose_pairs(
    data: str,
    split: str,
    folder: Path,
    target: HubTarget,
    options: argparse.Namespace,
    context: RunContext,
    count: int,
) -> TokenPairs:
    """The data set's summaries of `count` random articles as token pairs, made once.

    Articles without a usable summary are left out, so that methods that read summaries and methods
    that do not can be compared on the same articles. Of a data set that has no summaries at all,
    every article is taken, with an empty text.
    """
    length = max(TEXT_LENGTH, options.length or 0)
    asked = {
        "data": str(data),
        "split": split,
        "articles": count,
        "seed": options.seed or 0,
        "vocabulary": target.vocabulary.fingerprint,
        "source_length": target.source_length,
        "text_length": length,
        "prefix": target.prefix,
    }
    note = folder / "asked.json"
    if (folder / "meta.json").exists() and note.exists():
        if changed := differences_from(note, asked):
            raise DataError(
                f"{folder} holds other articles than those asked for ({changed}): give another "
                f"folder than {folder.parent}, or remove it."
            )
        return TokenPairs(folder)

    def make() -> None:
        stream = read_articles(data) if Path(data).is_file() else read_split(data, split)
        articles = list(islice(stream, count if context.dry else None))
        if not context.dry:
            random.Random(options.seed or 0).shuffle(articles)
            articles = articles[: count or None]
        summaries = any(article.summary for article in articles)
        with writing(folder, "Nothing was written about these articles before."):
            write_json(note, asked, indent=None)
            taken = prepare_pairs(
                articles,
                target.vocabulary,
                folder,
                source_length=target.source_length,
                text_length=length,
                prefix=target.prefix,
                summaries=summaries,
            )
        what, left = "have a usable summary", "the others are left out"
        if not summaries:
            what, left = "are long enough", "and none has a summary"
        if not summaries or taken < len(articles):
            context.say(f"{split}: {taken} of {len(articles)} articles {what}, {left}")

    context.accelerator.wait_for_everyone()  # all have looked; now the first may write
    context.first(make)
    return TokenPairs(folder)


@dataclass(frozen=True)
class TrainingData:
    """What a drafter is trained on."""

    target: HubTarget
    dataset: TokenPairs
    written: TokenPairs | None


def gather(options: argparse.Namespace, context: RunContext, needs_texts: bool) -> TrainingData:
    """Loads the target, the articles and what the target wrote of them.

    A dry run before `pseudo` lets the target write a few texts by itself, if the method
    needs them.

    Raises:
        DataError: there are no articles or texts, or they belong to another target.
    """
    folder = Path(options.pseudo_dataset_path) if options.pseudo_dataset_path else None
    target = load_teacher(options, context)
    few = 2 * (options.batch or 32)
    if folder is not None and (folder / "meta.json").exists():
        written, dataset = TokenPairs(folder), TokenPairs(folder / "articles")
        _check_texts(options, folder, written, dataset, target)
        return TrainingData(target, dataset, written)
    if folder is not None and not context.dry:
        raise DataError(
            f"{folder} holds no texts, or not yet all: let the target write them with "
            "`python -m fastllm pseudo`, or run that again to let it finish."
        )
    dataset = choose_pairs(
        needed(options, "data"),
        "train",
        context.folder / "articles",
        target,
        options,
        context,
        article_count(options, context, few),
    )
    texts = None
    if context.dry and needs_texts:
        texts = write_pseudo(
            target,
            dataset,
            context.folder / "pseudo",
            length=options.length or TEXT_LENGTH,
            batch=options.batch or 32,
            accelerator=context.accelerator,
            say=lambda line: None,
        )
    return TrainingData(target, dataset, texts)


def _check_texts(
    options: argparse.Namespace,
    folder: Path,
    written: TokenPairs,
    dataset: TokenPairs,
    target: HubTarget,
) -> None:
    meta, whole = written.meta, ("fp32", "bf16")
    strange = ""
    if meta.get("vocabulary") != target.vocabulary.fingerprint:
        strange = f"another vocabulary than {target.name}'s"
    elif options.load_in in whole and meta.get("load_in") in whole:
        weights = weights_fingerprint(target)
        if meta["weights"] != weights:
            strange = f"other weights ({meta['weights']}) than {options.target}'s ({weights})"
    if strange:
        raise DataError(
            f"{folder} was written by a {meta.get('target')} with {strange}: write it anew with "
            "`python -m fastllm pseudo`."
        )
    if "source_length" not in dataset.meta:
        raise DataError(f"{folder / 'articles'}: meta.json names no source_length: it is damaged.")
    own = {"prefix": dataset.meta.get("prefix", ""), "source_length": dataset.meta["source_length"]}
    for name, value in own.items():
        asked = getattr(options, name)
        if asked is not None and asked != value:
            raise DataError(
                f"{folder} was written with {name}={value!r}, not {asked!r}: leave --{name} out, "
                "or write it anew with `python -m fastllm pseudo`."
            )
        setattr(target, name, value)


def held_out_texts(
    options: argparse.Namespace, context: RunContext, target: HubTarget
) -> TokenPairs | None:
    """What the target wrote of articles that no drafter trains on."""
    where, count = options.validation, held_out_count(options, context)
    if where == "none" or not count:
        return None
    if where is None:
        beside = Path(options.pseudo_dataset_path or "-") / "validation"
        if (beside / "meta.json").exists():
            return TokenPairs(beside)
        if not options.data or not has_split(options.data, "validation"):
            context.say(
                "no validation: there is no validation split (--validation names other articles)"
            )
            return None
        where = options.data
    elif (Path(where) / "settings.json").exists():
        return TokenPairs(where)
    folder = context.folder / "validation"
    pairs = choose_pairs(where, "validation", folder / "articles", target, options, context, count)
    return write_pseudo(
        target,
        pairs,
        folder,
        length=max(TEXT_LENGTH, options.length or 0),
        accelerator=context.accelerator,
        say=context.say,
    )
