"""The flags of `train`, `pseudo` and `study`, and YAML recipes that stand for them."""

import argparse
import math
from collections.abc import Callable, Sequence
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

DEFAULTS: dict[str, Any] = {
    "target": "target",
    "limit": 8000,
    "validation_articles": 64,
    "scale": 1.0,
    "load_in": "fp32",
    "ngram_n": 3,
    "smoothing": "interpolated",
    "save_every": 200,
    "log_every": 20,
    "teacher_top_k": 64,
    "seeds": "0 1 2",
    "jobs": 1,
    "temperature": 0.0,
    "shard_size": 256,
    "search": "regression",
    "units": "heads",
    "groups": 8,
    "masks": 64,
    "rounds": 4,
    "split": "validation",
    "random": 0.5,
}
"""What an option is where neither the command line nor a recipe gives it."""

_PRUNED_ARTICLES = 24
"""Articles that `prune` takes where nothing is said: every one is read at every forward pass."""


def train_flags(parser: argparse.ArgumentParser) -> None:
    """Every option of `train`."""
    _common_flags(parser)
    learning = [name for name, spec in families().items() if spec.training != "none"]
    parser.add_argument("--drafter", choices=[*learning, T5_SMALL], help="family to train")
    add_trailing_run(parser)
    _flag(parser, "--exp_name", help="name of the run and of the checkpoint")
    _flag(
        parser,
        "--pseudo_dataset_path",
        help="what `pseudo` wrote; of an n-gram also a text file, a text a line; without it: the "
        "data set",
    )
    _flag(parser, "--out", help="where the checkpoint goes (default: RUN/checkpoint)")
    _flag(parser, "--run", help="the run's folder (default: runs/EXP_NAME)")
    _flag(
        parser,
        "--distill_method",
        "--distil_method",
        "--method",
        type=_name,
        choices=list(METHODS),
        help="how a drafter is trained; ngram: supervised counts the data set's own summaries, "
        "seq_kd what the target wrote",
    )
    _flag(
        parser,
        "--loss",
        type=_name,
        help=f"{', '.join(LOSSES)}, or a weighted sum such as fkl=1,tvd=0.5; the method's by "
        "default. A number is the weight of cross-entropy",
    )
    _flag(
        parser,
        "--kd_loss",
        type=_name,
        help="a divergence, likewise. A number is the weight of the KL divergence from the target",
    )
    _flag(parser, "--jsd_beta", type=float, help="the target's share in jsd (default: 0.5)")
    _flag(parser, "--kd_temp", type=float, help="divides both logits in a divergence")
    _flag(
        parser,
        "--teacher_cache",
        metavar="FOLDER",
        help="look up there what the target thinks of given texts; written first, once, for every "
        "run that names it (without it: computed at each update)",
    )
    _flag(
        parser,
        "--teacher_top_k",
        type=int,
        help="logits kept of each place in the cache, the rest as one sum (default: 64)",
    )
    for name in ("updates", "warmup", "cooldown"):
        _flag(
            parser,
            f"--{name}",
            type=int,
            help="see DrafterRecipe"
            + ("; a recipe's warm-up and cool-down are shortened to fit" * (name == "updates")),
        )
    for name in ("learning_rate", "lambda1", "lambda2"):
        _flag(parser, f"--{name}", type=float, help="see DrafterRecipe")
    _flag(
        parser,
        "--start",
        "--student",
        "--resume",
        metavar="START",
        help="a neural drafter's initial weights: copying (default), ordinary, or those of another "
        "drafter of its family: a folder, or for t5 a T5 of the Hub such as google-t5/t5-small, or "
        "target, the target's own. Of an n-gram: a folder or a text file whose counts are added to",
    )
    _flag(
        parser,
        "--layers",
        type=int,
        help="of a t5's encoder and of its decoder, or of a shared's decoder (default: 1); of "
        "those it starts with, the first, the last and evenly spaced ones between stay (default: "
        "all)",
    )
    _flag(
        parser,
        "--as_target",
        action="store_true",
        help="write a t5 as a target: a smaller one, to be used with --target",
    )
    _flag(parser, "--ngram_n", type=int, help="order of the n-gram (default: 3)")
    _flag(parser, "--smoothing", help="interpolated or laplace")
    _flag(
        parser,
        "--save_text",
        metavar="FILE",
        help="write an n-gram as a text file too; --resume and `load_drafter` read it",
    )
    _flag(
        parser,
        "--validation",
        metavar="DATA",
        help="held-out articles: data with a validation split, a JSON-lines file, what `pseudo` "
        "wrote, or none (default: what lies in the pseudo data, else --data's validation split)",
    )
    _flag(
        parser,
        "--keep",
        choices=["best", "last"],
        help="which weights: those with the most tau in the validation (default), or the last",
    )
    _flag(parser, "--validate_every", type=int, help="updates (default: a twentieth of all)")
    _flag(parser, "--save_every", type=int, help="updates between two saves (default: 200)")
    _flag(parser, "--log_every", type=int, help="updates between two log lines (default: 20)")


def pseudo_flags(parser: argparse.ArgumentParser) -> None:
    """Every option of `pseudo`."""
    _common_flags(parser)
    add_trailing_run(parser)
    _flag(parser, "--out", "--pseudo_dataset_path", dest="out", help="folder to write to")
    _flag(parser, "--temperature", type=float, help="0 is greedy (default)")
    _flag(parser, "--shard_size", type=int, help="articles a file (default: 256)")
    _flag(
        parser,
        "--select",
        choices=SELECTIONS,
        help="label --limit articles of a --pool: those that the drafter --ckpt_path is unsure of",
    )
    _flag(parser, "--pool", type=int, metavar="N", help="articles that --select chooses from")
    _flag(
        parser,
        "--random",
        type=float,
        metavar="SHARE",
        help="of the articles chosen, drawn at random beside (default: 0.5); 1 is the control",
    )
    _flag(
        parser,
        "--ckpt_path",
        metavar="DRAFTER",
        help="a neural drafter that is asked how sure it is: a folder, or one that ships",
    )


def prune_flags(parser: argparse.ArgumentParser) -> None:
    """Every option of `prune`."""
    _common_flags(parser)
    _flag(
        parser,
        "--budget",
        metavar="COST",
        help="the most that the drafter may cost: bytes (500kB, 2MB), a share of the decoder's "
        "bytes (20%%), or microseconds a drafted token (300us)",
    )
    _flag(parser, "--exp_name", help="name of the run and of the checkpoint (default: pruned)")
    _flag(parser, "--out", help="where the checkpoint goes (default: RUN/checkpoint)")
    _flag(parser, "--run", help="the run's folder (default: runs/EXP_NAME)")
    _flag(
        parser,
        "--search",
        choices=SEARCHES,
        help="regression on random masks (default), greedy elimination, or random, the control",
    )
    _flag(
        parser,
        "--units",
        choices=UNITS,
        help="what goes as one: heads and groups of feed-forward columns (default), or sublayers",
    )
    _flag(parser, "--groups", type=int, help="of the columns of a layer (default: 8)")
    _flag(parser, "--masks", type=int, help="of a round of the regression (default: 64)")
    _flag(parser, "--rounds", type=int, help="of the regression (default: 4)")
    _flag(parser, "--split", help="of the data set, whose articles are taken (default: validation)")


def settle(options: argparse.Namespace) -> list[str]:
    """Fills in what the command line left out: from the recipe, then from DEFAULTS.

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
    own = {"limit": _PRUNED_ARTICLES} if options.command == "prune" else {}
    for name, value in (DEFAULTS | own).items():
        if getattr(options, name, ...) is None:
            setattr(options, name, value)
    for name in ("limit", "validation_articles", "seed", "temperature"):
        value = getattr(options, name, None)
        if value is not None and not 0 <= value < math.inf:
            raise SettingsError(f"--{name} {value}: give 0 or more.")
    for name in (
        *("length", "batch", "shard_size", "save_every", "log_every", "source_length"),
        *("teacher_top_k", "jobs", "threads", "layers", "masks", "rounds", "pool"),
    ):
        value = getattr(options, name, None)
        if value is not None and value < 1:
            raise SettingsError(f"--{name} {value}: give at least 1.")
    if not 0 < options.scale <= 1:
        raise SettingsError(f"--scale {options.scale}: give a number above 0, at most 1.")
    if options.limit == 0 and options.scale != 1:
        raise SettingsError(
            f"--limit 0 takes all articles, and --scale {options.scale:g} a share of --limit: give "
            "as --limit the number of articles to shrink, or leave --scale out."
        )
    return [*notes, *_shorten(options, typed)]


T5_SMALL = "t5small"
"""What the original called its T5 drafter."""


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
    parts = {
        "ce": loss if loss is not None else 0.0,
        "fkl": kd_loss if kd_loss is not None else 0.0,
    }
    if loss is None and options.loss:
        raise SettingsError(
            f"--kd_loss {options.kd_loss} is a weight and --loss {options.loss} a name: give two "
            "weights, or one sum such as --loss ce=0.5,fkl=0.5."
        )
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


def add_trailing_run(parser: argparse.ArgumentParser) -> None:
    """The word `run` at the end of a command, as the original had it; it says nothing."""
    parser.add_argument("trailing_run", nargs="?", choices=["run"], help=argparse.SUPPRESS)


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


def study_flags(parser: argparse.ArgumentParser) -> None:
    """Every option of `study`."""
    _common_flags(parser)
    parser.add_argument("--drafter", choices=trainable(), help="family to train (default: lstm)")
    _flag(parser, "--pseudo_dataset_path", help="what `pseudo` wrote")
    _flag(parser, "--out", help="folder of the study; what is finished in it is not done again")
    _flag(
        parser,
        "--grid",
        metavar="RUNS",
        help="METHOD or METHOD:LOSS, with blanks between (default: every method, the on-policy and "
        "the mixed one with several losses); the baseline, supervised, is always among them",
    )
    _flag(parser, "--methods", metavar="NAMES", help="with blanks between, instead of a grid:")
    _flag(parser, "--losses", metavar="NAMES", help="each method that is scored with each of these")
    _flag(
        parser,
        "--seeds",
        metavar="NUMBERS",
        help="with blanks between (default: 0 1 2): all runs with the first, the baseline and the "
        "best with the others too",
    )
    for name in ("updates", "warmup", "cooldown"):
        _flag(
            parser,
            f"--{name}",
            type=int,
            help="of each run (by default a twelfth of --updates warm up and a third cool down)",
        )
    _flag(parser, "--learning_rate", type=float, help="of each run")
    _flag(parser, "--validation", metavar="DATA", help="held-out articles, as for train")
    _flag(parser, "--jobs", type=int, help="runs at once (default: 1)")
    _flag(parser, "--threads", type=int, help="of each run (default: the cores, shared out)")


_FLAGS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "train": train_flags,
    "pseudo": pseudo_flags,
    "study": study_flags,
    "prune": prune_flags,
}


def _from_recipe(options: argparse.Namespace) -> dict[str, Any]:
    """The options that a recipe gives to this command.

    One file can serve all: what stands under "train", "pseudo", "study" or "prune" is for that
    command alone, and at the top each takes what it knows.
    """
    if not options.recipe:
        return {}
    path = Path(options.recipe)
    tree = read_yaml(path)
    own = tree.pop(options.command, None) or {}
    others = [name for name in _FLAGS if name != options.command]
    for name in others:
        tree.pop(name, None)
    if not isinstance(own, dict):
        raise SettingsError(f"{path}: {options.command!r} needs names and values.")
    found: dict[str, Any] = {}
    for name, value in {**tree, **own}.items():
        parsed = _parse(path, options.command, name, value)
        if parsed is not None:
            found |= parsed
        elif name in own or all(_parse(path, other, name, value) is None for other in others):
            raise SettingsError(f"{path}: there is no option {name!r} of {options.command}.")
    return found


def _parse(path: Path, command: str, name: str, value: Any) -> dict[str, Any] | None:
    """A name and a value of a recipe as the command line would take them; None: unknown."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    _FLAGS[command](parser)
    if isinstance(value, dict | list):
        raise SettingsError(f"{path}: {name!r} needs one value.")
    if value is None or value is False:
        words = []
    else:
        words = [f"--{name}"] if value is True else [f"--{name}={value}"]
    try:
        parsed, unknown = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise SettingsError(f"{path}: {error}.") from error
    if unknown or not (words or name in vars(parsed)):
        return None
    found = vars(parsed).items()
    return {key: entry for key, entry in found if entry is not None and entry is not False}


def _common_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", metavar="FILE", help="YAML with any of the other options")
    parser.add_argument("--target", help="shipped target (default), folder or Hub model")
    _flag(
        parser,
        "--data",
        help="folder with train.jsonl.xz (or .jsonl, .jsonl.gz, Parquet), or cnn_dailymail",
    )
    parser.add_argument("--prefix", help='before every article, such as "summarize: "')
    _flag(parser, "--source_length", type=int, help="the most tokens read of an article")
    _flag(
        parser,
        "--load_in",
        choices=LOAD_IN,
        help="the target's weights: fp32 (default), bf16, or by bitsandbytes 8bit, 4bit (NF4)",
    )
    _flag(
        parser,
        "--limit",
        type=int,
        help="articles; 0 takes all (default: 8000; prune 24). Those without a summary that what "
        "is read of them supports are left out",
    )
    _flag(parser, "--seed", type=int, help="which articles, and of every draw (default: 0)")
    _flag(
        parser,
        "--length",
        "--gen_length",
        dest="length",
        type=int,
        help="the most tokens of a text (default: 96)",
    )
    _flag(
        parser,
        "--batch",
        "--batch_size",
        dest="batch",
        type=int,
        help="articles at once (default: train 32, pseudo 64, prune 16)",
    )
    _flag(
        parser,
        "--validation_articles",
        type=int,
        help="held-out articles; 0 does without (default: 64)",
    )
    _flag(parser, "--scale", type=float, help="shrinks articles and updates (default: 1)")
    _flag(parser, "--device", help="cpu, cuda, mps, or a GPU's number (default: the best there is)")
    _flag(
        parser,
        "--dry_run",
        action="store_true",
        help="estimate memory, disk and hours, build everything, do two steps, leave nothing",
    )


def _name(text: str) -> str:
    """A name of ours, however it was spelt: seq-kd is seq_kd, FKL is fkl."""
    return text.replace("-", "_").lower()


def _flag(parser: argparse.ArgumentParser, *names: str, **settings: Any) -> None:
    """Adds an option under its names, with underscores and with dashes."""
    spellings: Sequence[str] = [
        spelling for name in names for spelling in (name, "--" + name[2:].replace("_", "-"))
    ]
    parser.add_argument(*dict.fromkeys(spellings), **settings)
