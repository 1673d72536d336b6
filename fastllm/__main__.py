"""The command line: `python -m fastllm train | pseudo | eval | run`.

A command is a function that takes its parsed arguments; what it needs is imported when it is
called, so that `--help` answers at once. Errors raised on purpose end it with a message on stderr
and the exit code 2.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fastllm.errors import FastLLMError, SettingsError
from fastllm.trace import DecodingConfig, config_defaults

SAMPLES = Path(__file__).resolve().parent.parent / "assets" / "articles"
"""The sample articles that the story gate reads."""

_HELP = {
    "gamma": "draft length: the most tokens the drafter proposes a round",
    "temperature": "0 is greedy",
    "top_k": "keep the k most likely tokens; 0 keeps all",
    "top_p": "keep the most likely tokens of this mass; 1 keeps all",
    "max_new_tokens": "the most tokens to write, the end token included",
    "seed": "of every random decision",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser(given).parse_args(given)
    try:
        code: int | None = options.handle(options)
    except FastLLMError as error:
        print(f"fastllm {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code or 0


def build_parser(given: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser; the training commands are loaded only where `given` may ask for them."""
    parser = argparse.ArgumentParser(
        prog="fastllm", description="Speculative decoding of summaries, and drafters for it."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if not given or given[0] not in ("run", "eval"):
        import_module("fastllm.distill.commands").add_arguments(commands)
    _add_eval(commands)
    _add_run(commands)
    return parser


def add_decoding_arguments(parser: argparse.ArgumentParser, *, without: Sequence[str] = ()) -> None:
    """One flag for each setting of DecodingConfig, with its default and range."""
    group = parser.add_argument_group("decoding")
    defaults = config_defaults()
    for name, (low, high) in DecodingConfig.RANGES.items():
        if name not in without:
            group.add_argument(
                "--" + name.replace("_", "-"),
                *(["--" + name] if "_" in name else []),
                type=type(defaults[name]),
                default=defaults[name],
                metavar="N",
                help=f"{_HELP[name]}; {low} to {high} (default: {defaults[name]})",
            )


def decoding_config(options: argparse.Namespace) -> DecodingConfig:
    """The settings that the flags of `add_decoding_arguments` gave.

    Raises:
        SettingsError: a value out of range.
    """
    names = [name for name in DecodingConfig.RANGES if hasattr(options, name)]
    return DecodingConfig(**{name: getattr(options, name) for name in names})


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """The flag `--device`."""
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1, mps, or the number of a GPU (default: the best there is)",
    )


def device_name(device: str | None) -> str | None:
    """What torch calls a device: a bare number means a GPU.

    Raises:
        SettingsError: there is no such device.
    """
    if device is None:
        return None
    torch = import_module("torch")
    name = f"cuda:{device}" if device.isdigit() else device
    try:
        kind = torch.device(name)
        known = kind.type == "cpu" or (kind.type == "mps" and torch.backends.mps.is_available())
        if kind.type == "cuda":
            known = (kind.index or 0) < torch.cuda.device_count()
    except RuntimeError:
        known = False
    if not known:
        raise SettingsError(
            f"--device {device}: there is no such device here ({torch.cuda.device_count()} CUDA "
            "GPUs). Give cpu, or leave it out to take the best there is."
        )
    return name


# run


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="summarise an article, and show what the drafter did",
        description="Summarises an article and shows each token's origin, or prints the Trace.",
    )
    parser.add_argument("article", metavar="ARTICLE", help="a text file; - reads standard input")
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    parser.add_argument(
        "--drafter", help="a shipped drafter, a folder, lookup, or none (default: lstm-after)"
    )
    parser.add_argument("--prefix", help='before the article, such as "summarize: "')
    parser.add_argument("--json", action="store_true", help="print the Trace as JSON instead")
    add_device_argument(parser)
    add_decoding_arguments(parser)
    parser.set_defaults(handle=run)


def run(options: argparse.Namespace) -> None:
    """Summarises one article."""
    config = decoding_config(options)
    articles = import_module("fastllm.data.articles")
    text = articles.read_text(options.article)
    _quiet()
    checkpoints = import_module("fastllm.checkpoints")
    device = device_name(options.device)
    target = checkpoints.load_target(options.target, device=device, prefix=options.prefix)
    name = options.drafter or _default_drafter(checkpoints.shipped_drafters(), options.target)
    drafter = None if name == "none" else checkpoints.load_drafter(name, device=device)
    race = import_module("fastllm.race").Race(target, [drafter], text, config)
    if options.json:
        for _ in race:
            pass
        print(race.traces()[0].dumps())
        return
    _show(race)


def _show(race: Any) -> None:
    """Prints the rounds of a race of one lane as they come, then what they mean."""
    terminal = import_module("fastllm.terminal")
    vocabulary = race.target.vocabulary
    detokenizer = import_module("fastllm.vocabulary").Detokenizer(vocabulary)
    colour = terminal.wants_colour(sys.stdout)
    for step in race:
        refused = [] if step.round.refused is None else [step.round.refused]
        names = vocabulary.names(refused)
        print(
            terminal.render_round(step.round, detokenizer.push, names, colour=colour),
            end="",
            flush=True,
        )
    trace = race.traces()[0]
    print("\n")
    if trace.drafter:
        print(terminal.legend(colour=colour) + "\n")
        print("Text: " + terminal.printable(trace.text) + "\n")
    if trace.cut_at is not None:
        print(
            f"The article was cut: the target read its first {trace.cut_at} of "
            f"{len(trace.source)} characters."
        )
    print(terminal.counts(trace))


def _default_drafter(shipped: Sequence[str], target: str) -> str:
    return "lstm-after" if target == "target" and "lstm-after" in shipped else "lookup"


# eval


def _add_eval(commands: Any) -> None:
    parser = commands.add_parser(
        "eval",
        help="measure drafters on a test set",
        description="Races every article of a file and prints a Markdown table with intervals.",
    )
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    parser.add_argument(
        "--drafters",
        "--drafter",
        "--ckpt_path",
        "--ckpt-path",
        metavar="A,B",
        help="shipped drafters or folders (default: all shipped, and lookup)",
    )
    parser.add_argument("--data", metavar="FILE", help="articles, .jsonl, .jsonl.gz or .jsonl.xz")
    parser.add_argument("--limit", type=int, default=100, help="articles (default: 100)")
    parser.add_argument("--prefix", help='before each article, such as "summarize: "')
    parser.add_argument("--json", metavar="FILE", help="write every number to this file too")
    parser.add_argument(
        "--check-generate",
        action="store_true",
        help="compare greedy texts with transformers' generate, token for token, instead",
    )
    parser.add_argument(
        "--gammas",
        type=_whole_numbers,
        metavar="N,N",
        help="draft lengths (default: --gamma; with --check-generate 1,2,3,4,5,6,7,8)",
    )
    parser.add_argument(
        "--gate",
        action="store_true",
        help="report the story gate on the sample articles alone, without --data",
    )
    parser.add_argument(
        "--pair",
        default="lstm",
        metavar="X",
        help="the story gate compares X-before with X-after (default: lstm)",
    )
    add_device_argument(parser)
    add_decoding_arguments(parser)
    parser.set_defaults(handle=evaluate)


def evaluate(options: argparse.Namespace) -> int:
    """Measures drafters; 1 where greedy texts differ from the target's own."""
    config = decoding_config(options)
    if options.limit < 1:
        raise SettingsError(f"--limit {options.limit}: give at least 1 article.")
    if options.data is None and (options.check_generate or not options.gate):
        raise SettingsError("--data is missing: give a file of articles, or --gate alone.")
    evaluation = import_module("fastllm.evaluate")
    chosen = (
        [] if options.data is None else evaluation.choose_articles(options.data, options.limit)
    )
    target, drafters = _load(options)
    report: dict[str, Any] = {}
    sound = True
    if options.check_generate:
        gammas = options.gammas or list(range(1, 9))
        check = evaluation.check_generate(target, drafters, chosen, config, gammas, say=_say)
        print(evaluation.generate_table(check))
        report["generate"] = check.to_json()
        sound = check.passed
    elif chosen:
        report["evaluations"] = []
        for gamma in options.gammas or [config.gamma]:
            setting = DecodingConfig(**{**vars(config), "gamma": gamma})
            result = evaluation.evaluate(target, drafters, chosen, setting, say=_say)
            print(evaluation.table(result) + "\n")
            report["evaluations"].append(result.to_json())
            sound &= config.temperature > 0 or result.same_text
    if not options.check_generate:
        gate = _story_gate(evaluation, target, drafters, config, options.pair)
        report["story_gate"] = None if gate is None else gate.to_json()
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if sound else 1


def _load(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    _quiet()
    checkpoints = import_module("fastllm.checkpoints")
    device = device_name(options.device)
    target = checkpoints.load_target(options.target, device=device, prefix=options.prefix)
    if options.drafters is not None:
        names = [name.strip() for name in options.drafters.split(",") if name.strip()]
    elif options.target == "target":
        names = ["lookup", *checkpoints.shipped_drafters()]
    else:
        names = ["lookup"]  # the shipped drafters know the shipped target's vocabulary alone
    # Folders go by their last part, unless two of them share it (runs/a/checkpoint).
    short = [Path(name).name for name in names]
    drafters = {
        last if short.count(last) == 1 else name: checkpoints.load_drafter(name, device=device)
        for name, last in zip(names, short, strict=True)
    }
    return target, drafters


def _story_gate(
    evaluation: Any, target: Any, drafters: dict[str, Any], config: DecodingConfig, pair: str
) -> Any:
    before, after = f"{pair}-before", f"{pair}-after"
    missing = [name for name in (before, after) if name not in drafters]
    if missing:
        print(f"## Story gate: not measured, for want of {' and '.join(missing)}")
        return None
    articles = import_module("fastllm.data.articles")
    samples = [
        articles.Article(id=path.stem, text=articles.read_text(path))
        for path in sorted(SAMPLES.glob("*.txt"))
    ]
    gate = evaluation.story_gate(target, drafters, before, after, samples, config)
    print(evaluation.gate_table(gate))
    return gate


def _whole_numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _quiet() -> None:
    """Keeps the progress bars of transformers out of the output."""
    import_module("transformers.utils.logging").disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
