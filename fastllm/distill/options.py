"""The options of `train`, `pseudo`, `study` and `prune`, and YAML recipes that stand for them.

Each command has a class; each field of it is an option: its name, its type, what it is where
neither the command line nor a recipe gives it, and the least that it may be.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fastllm.distill.losses import LOSSES
from fastllm.distill.prune import SEARCHES, UNITS
from fastllm.distill.select import SELECTIONS
from fastllm.distill.train import METHODS, DrafterRecipe
from fastllm.drafters import families, trainable
from fastllm.errors import SettingsError
from fastllm.targets.hub import LOAD_IN
from fastllm.trace import DecodingConfig

T5_SMALL = "t5small"
"""What the original called its T5 drafter."""


def _name(text: str) -> str:
    """A name of ours, however it was spelt: seq-kd is seq_kd, FKL is fkl."""
    return text.replace("-", "_").lower()


def _option(
    help: str, *others: str, default: Any = None, least: int | None = None, **argument: Any
) -> Any:
    """A field that is an option, with other spellings of it, and what argparse is to know."""
    return field(
        default=default,
        metadata={"others": others, "least": least, "argument": {"help": help, **argument}},
    )


def _learning_families() -> list[str]:
    return [*(name for name, spec in families().items() if spec.training != "none"), T5_SMALL]


@dataclass
class _Common:
    """What all of the commands take."""

    recipe: str = _option("YAML with any of the other options")
    target: str = _option("the shipped one, a folder or a Hub model", default="target")
    data: str = _option(
        "folder with train.jsonl.xz (or .jsonl, .jsonl.gz, Parquet), or cnn_dailymail"
    )
    prefix: str = _option('before every article, such as "summarize: "')
    source_length: int = _option("the most tokens read of an article", least=1)
    load_in: str = _option(
        "the target's weights: fp32, bf16, or by bitsandbytes 8bit, 4bit (NF4)",
        choices=LOAD_IN,
        default="fp32",
    )
    limit: int = _option(
        "articles; 0 takes all. Those without a summary that what is read of them "
        "supports are left out",
        default=8000,
        least=0,
    )
    seed: int = _option("which articles, and of every draw (default: 0)", least=0)
    length: int = _option("the most tokens of a text (default: 96)", "gen_length", least=1)
    batch: int = _option(
        "articles at once (default: train 32, pseudo 64, prune 16)", "batch_size", least=1
    )
    validation_articles: int = _option("held-out articles; 0 does without", default=64, least=0)
    scale: float = _option("shrinks articles and updates", default=1.0)
    device: str = _option("cpu, cuda, mps, or a GPU's number (default: the best there is)")
    dry_run: bool = _option(
        "estimate memory, disk and hours, build everything, do two steps, leave nothing"
    )


@dataclass
class _Run:
    """Where a command that trains or prunes puts what it makes."""

    exp_name: str = _option("name of the run and of the checkpoint (prune: pruned, by default)")
    out: str = _option("where the checkpoint goes (default: RUN/checkpoint)")
    run: str = _option("the run's folder (default: runs/EXP_NAME)")


@dataclass
class _Train(_Run, _Common):
    """What `train` takes."""

    drafter: str = _option("family to train", choices=_learning_families)
    pseudo_dataset_path: str = _option(
        "what `pseudo` wrote; of an n-gram also a text file, a text a line; without it: the data "
        "set"
    )
    distill_method: str = _option(
        "how a drafter is trained; ngram: supervised counts the data set's own summaries, seq_kd "
        "what the target wrote",
        *("distil_method", "method"),
        type=_name,
        choices=list(METHODS),
    )
    loss: str = _option(
        f"{', '.join(LOSSES)}, or a weighted sum such as fkl=1,tvd=0.5; the method's by default. A "
        "number is the weight of cross-entropy",
        type=_name,
    )
    kd_loss: str = _option(
        "a divergence, likewise. A number is the weight of the KL divergence from the target",
        type=_name,
    )
    jsd_beta: float = _option("the target's share in jsd (default: 0.5)")
    kd_temp: float = _option("divides both logits in a divergence")
    teacher_cache: str = _option(
        "look up there what the target thinks of given texts; written first, once, for every run "
        "that names it (without it: computed at each update)"
    )
    teacher_top_k: int = _option(
        "logits kept of each place in the cache, the rest as one sum", default=64, least=1
    )
    updates: int = _option(
        "see DrafterRecipe; a recipe's warm-up and cool-down are shortened to fit"
    )
    warmup: int = _option("see DrafterRecipe")
    cooldown: int = _option("see DrafterRecipe")
    learning_rate: float = _option("see DrafterRecipe")
    lambda1: float = _option("see DrafterRecipe")
    lambda2: float = _option("see DrafterRecipe")
    start: str = _option(
        "a neural drafter's initial weights: copying (default), ordinary, or those of another "
        "drafter of its family: a folder, or for t5 a T5 of the Hub such as google-t5/t5-small, or "
        "target, the target's own. Of an n-gram: a folder or a text file whose counts are added to",
        *("student", "resume"),
    )
    layers: int = _option(
        "of a t5's encoder and of its decoder, or of a shared's decoder (default: 1); of those it "
        "starts with, the first, the last and evenly spaced ones between stay (default: all)",
        least=1,
    )
    as_target: bool = _option("write a t5 as a target: a smaller one, to be used with --target")
    ngram_n: int = _option("order of the n-gram", default=3)
    smoothing: str = _option("interpolated or laplace", default="interpolated")
    save_text: str = _option(
        "write an n-gram as a text file too; --resume and `load_drafter` read it"
    )
    validation: str = _option(
        "held-out articles: data with a validation split, a JSON-lines file, what `pseudo` wrote, "
        "or none (default: what lies in the pseudo data, else --data's validation split)"
    )
    keep: str = _option(
        "which weights: those with the most tau in the validation (default), or the last",
        choices=["best", "last"],
    )
    validate_every: int = _option("updates (default: a twentieth of all)", least=0)
    save_every: int = _option("updates between two saves", default=200, least=1)
    log_every: int = _option("updates between two log lines", default=20, least=1)


@dataclass
class _Pseudo(_Common):
    """What `pseudo` takes."""

    out: str = _option("folder to write to", "pseudo_dataset_path")
    temperature: float = _option("0 is greedy", default=0.0, least=0)
    shard_size: int = _option("articles a file", default=256, least=1)
    select: str = _option(
        "label --limit articles of a --pool: those that the drafter --ckpt_path is unsure of",
        choices=SELECTIONS,
    )
    pool: int = _option("articles that --select chooses from", least=1)
    random: float = _option(
        "of the articles chosen, drawn at random beside; 1 is the control", default=0.5
    )
    ckpt_path: str = _option(
        "a neural drafter that is asked how sure it is: a folder, or one that ships"
    )


@dataclass
class _Study(_Common):
    """What `study` takes."""

    drafter: str = _option("family to train (default: lstm)", choices=trainable)
    pseudo_dataset_path: str = _option("what `pseudo` wrote")
    out: str = _option("folder of the study; what is finished in it is not done again")
    grid: str = _option(
        "METHOD or METHOD:LOSS, with blanks between (default: every method, some with several "
        "losses); the baseline, supervised, is always among them"
    )
    seeds: str = _option(
        "with blanks between: all runs with the first, the baseline and the best "
        "with the others too",
        default="0 1 2",
    )
    updates: int = _option("of each run")
    warmup: int = _option("of each run (default: a twelfth of --updates)")
    cooldown: int = _option("of each run (default: a third of --updates)")
    learning_rate: float = _option("of each run")
    validation: str = _option("held-out articles, as for train")


@dataclass
class _Prune(_Run, _Common):
    """What `prune` takes."""

    limit: int = _option(
        "articles, each of which is read at every forward pass", default=24, least=0
    )
    budget: str = _option(
        "the most that the drafter may cost: bytes (500kB, 2MB), a share of the decoder's bytes "
        "(20%%), or microseconds a drafted token (300us)"
    )
    search: str = _option(
        "regression on random masks, greedy elimination, or random, the control",
        choices=SEARCHES,
        default="regression",
    )
    units: str = _option(
        "what goes as one: heads and groups of feed-forward columns, or sublayers",
        choices=UNITS,
        default="heads",
    )
    groups: int = _option("of the columns of a layer", default=8)
    masks: int = _option("of a round of the regression", default=64, least=1)
    rounds: int = _option("of the regression", default=4, least=1)
    split: str = _option("of the data set, whose articles are taken", default="validation")


_COMMANDS: dict[str, type[_Common]] = {
    "train": _Train,
    "pseudo": _Pseudo,
    "study": _Study,
    "prune": _Prune,
}


def _spellings(entry: "Field[Any]") -> list[str]:
    """The names of an option, with underscores and with dashes; the first names its value."""
    names = (entry.name, *entry.metadata["others"])
    return list(dict.fromkeys(text for name in names for text in (name, name.replace("_", "-"))))


def _add_flags(command: str, parser: argparse.ArgumentParser) -> None:
    """Every option of a command; none of them has a value before `settle`."""
    for entry in fields(_COMMANDS[command]):
        argument = dict(entry.metadata["argument"])
        if entry.default is not None:
            argument["help"] += f" (default: {entry.default})"
        if callable(argument.get("choices")):  # families may be registered until now
            argument["choices"] = argument["choices"]()
        kind: dict[str, Any] = (
            {"action": "store_true"} if entry.type is bool else {"type": entry.type}
        )
        parser.add_argument(*(f"--{name}" for name in _spellings(entry)), **{**kind, **argument})
    if command in ("train", "pseudo"):
        add_trailing_run(parser)


train_flags = partial(_add_flags, "train")
pseudo_flags = partial(_add_flags, "pseudo")
study_flags = partial(_add_flags, "study")
prune_flags = partial(_add_flags, "prune")


def add_trailing_run(parser: argparse.ArgumentParser) -> None:
    """The word `run` at the end of a command, as the original had it; it says nothing."""
    parser.add_argument("trailing_run", nargs="?", choices=["run"], help=argparse.SUPPRESS)


_MOST = 2**31
"""Seeds and counts are below this."""


def settle(options: argparse.Namespace) -> list[str]:
    """Fills in what the command line left out: from the recipe, then what is usual.

    Returns:
        What is to be said of it: a schedule of the recipe that was shortened.

    Raises:
        SettingsError: the recipe has an option that there is not, or a value out of range.
    """
    typed = {name for name, value in vars(options).items() if value is not None}
    for name, value in _from_recipe(options).items():
        given = getattr(options, name)
        if given is None or given is False:  # 0 is an answer, though it equals False
            setattr(options, name, value)
    notes = _as_in_the_original(options)
    for entry in fields(_COMMANDS[options.command]):
        value, least = getattr(options, entry.name), entry.metadata["least"]
        if value is None:
            setattr(options, entry.name, entry.default)
        elif least is not None and not least <= value < _MOST:
            needs = "at least 1" if least else "0 or more"
            needs += "" if not value >= _MOST else f", and less than {_MOST:,}"
            raise SettingsError(f"--{entry.name} {value}: give {needs}.")
    if 0 < getattr(options, "temperature", 0) < DecodingConfig.COLDEST:
        raise SettingsError(
            f"--temperature {options.temperature}: give 0, which is greedy, or at least "
            f"{DecodingConfig.COLDEST}."
        )
    if not 0 < options.scale <= 1:
        raise SettingsError(f"--scale {options.scale}: give a number above 0, at most 1.")
    if options.limit == 0 and options.scale != 1:
        raise SettingsError(
            f"--limit 0 takes all articles, and --scale {options.scale:g} a share of --limit: give "
            "as --limit the number of articles to shrink, or leave --scale out."
        )
    return [*notes, *_shorten(options, typed)]


def _as_in_the_original(options: argparse.Namespace) -> list[str]:
    """Gives the original's way of saying things its meaning here.

    Returns:
        What is to be said of it, where the meaning differs.

    Raises:
        SettingsError: weights of losses that are below 0, or both 0.
    """
    if options.command != "train":
        return []
    notes = []
    if options.drafter == T5_SMALL:
        options.drafter = "t5"
        notes.append(
            "--drafter t5small is the family t5: a small T5 of the target's own vocabulary. Of a "
            "target with T5's vocabulary Google's is distilled with --start google-t5/t5-small."
        )
    loss, kd_loss = _weight(options.loss), _weight(options.kd_loss)
    if loss is None and kd_loss is None:
        return notes
    if loss is None and options.loss:
        raise SettingsError(
            f"--kd_loss {options.kd_loss} is a weight and --loss {options.loss} a name: give two "
            "weights, or one sum such as --loss ce=0.5,fkl=0.5."
        )
    parts = {"ce": loss or 0.0, "fkl": kd_loss or 0.0}
    if kd_loss is None and options.kd_loss:
        parts = {"ce": parts["ce"], options.kd_loss: 1.0}
    if min(parts.values()) < 0 or not any(parts.values()):
        raise SettingsError(
            f"--loss {options.loss} --kd_loss {options.kd_loss}: weights of cross-entropy and of "
            "the divergence are 0 or more, and not both 0."
        )
    options.loss = ",".join(f"{name}={value:g}" for name, value in parts.items() if value)
    options.kd_loss = None
    notes.append(
        f"--loss {options.loss}: numbers are weights of cross-entropy (--loss) and of the KL "
        "divergence from the target (--kd_loss), each a mean over the tokens of the texts."
    )
    return notes


def _weight(text: str | None) -> float | None:
    """A loss that was given as a number; None where it is a name, or was not given."""
    try:
        value = float(text or "-")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _shorten(options: argparse.Namespace, typed: set[str]) -> list[str]:
    """Makes a recipe's warm-up and cool-down fit into the updates that were asked for instead.

    A twelfth of them and a third: in a study always, so that its runs are alike; in a training
    where the two together would not fit. What the command line says of them stays.
    """
    trains = options.command == "train" and options.drafter in trainable()
    if "updates" not in typed or not (trains or options.command == "study"):
        return []
    updates = options.updates
    had = {
        "warmup": DrafterRecipe.warmup if options.warmup is None else options.warmup,
        "cooldown": updates // 3 if options.cooldown is None else options.cooldown,
    }
    if trains and sum(had.values()) <= updates:
        return []
    told = []
    for name, share in (("warmup", updates // 12), ("cooldown", updates // 3)):
        if name in typed:
            continue
        if had[name] != share and (trains or getattr(options, name) is not None):
            told.append(f"{name} {share} instead of {had[name]}")
        setattr(options, name, share)
    if not told:
        return []
    return [
        f"--updates {updates}: {', '.join(told)} (a twelfth and a third of the updates; --warmup "
        "and --cooldown set them otherwise)"
    ]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of names and values.

    Raises:
        SettingsError: it is not one.
    """
    if not path.is_file():
        raise SettingsError(f"{path} does not exist: give a recipe, such as those in recipes/.")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} is not a readable YAML file: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path} is nested too deeply for a recipe.") from error
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: needs names and values.")
    return tree


def needed(options: argparse.Namespace, name: str) -> Any:
    """The value of an option that there is no default for.

    Raises:
        SettingsError: it was not given.
    """
    value = getattr(options, name)
    if value is None:
        raise SettingsError(f"--{name} is missing.")
    return value


def _from_recipe(options: argparse.Namespace) -> dict[str, Any]:
    """The options that a recipe gives to this command.

    One file can serve all: what stands under "train", "pseudo", "study" or "prune" is for that
    command alone, and at the top each takes what it knows.
    """
    if not options.recipe:
        return {}
    path, command = Path(options.recipe), options.command
    tree = read_yaml(path)
    known = {
        name: {text for entry in fields(kind) for text in _spellings(entry)}
        for name, kind in _COMMANDS.items()
    }
    own = {name: tree.pop(name, None) or {} for name in _COMMANDS}[command]
    if not isinstance(own, dict):
        raise SettingsError(f"{path}: {command!r} needs names and values.")
    words: list[str] = []
    for name, value in {**tree, **own}.items():
        if isinstance(value, dict | list):
            raise SettingsError(f"{path}: {name!r} needs one value.")
        if name not in (known[command] if name in own else set().union(*known.values())):
            raise SettingsError(f"{path}: there is no option {name!r} of {command}.")
        if name in known[command] and value is not None and value is not False:
            words.append(f"--{name}" if value is True else f"--{name}={value}")
    return _parsed(path, command, words)


def _parsed(path: Path, command: str, words: Sequence[str]) -> dict[str, Any]:
    """What the words of a recipe mean on the command line."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    _add_flags(command, parser)
    try:
        found = vars(parser.parse_args(words))
    except argparse.ArgumentError as error:
        raise SettingsError(f"{path}: {error}.") from error
    return {k: value for k, value in found.items() if value is not None and value is not False}
