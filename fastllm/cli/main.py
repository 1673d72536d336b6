"""The command line: `python -m fastllm COMMAND`; without arguments it lists the commands.

A command is a function that takes its parsed arguments; what it needs is imported when it is
called, so that `--help` answers at once. Errors raised on purpose, and files that cannot be read or
written, end it with a message on stderr and the exit code 2.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from fastllm.errors import FastLLMError, SettingsError
from fastllm.trace import DecodingConfig, config_defaults

Number = TypeVar("Number", int, float)

SAMPLES = Path(__file__).resolve().parent.parent / "assets" / "articles"
"""The sample articles that the story gate reads."""

_HELP = {
    "gamma": "draft length: the most tokens the drafter proposes a round",
    "temperature": "0 is greedy",
    "top_k": "keep the k most likely tokens; 0 keeps all",
    "top_p": "keep the most likely tokens of this mass; 1 keeps all",
    "max_new_tokens": "the most tokens to write, the end token included",
    "seed": "of every random decision",
    "no_repeat_ngram": "no sequence of so many tokens comes twice; 0 is off",
    "min_new_tokens": "no end before so many tokens; 0 is off",
    "verification": "the rule that accepts drafted tokens; auto is block when sampling",
    "lenience": "eps of --verification lenient: 1 is exact, less accepts more and is lossy",
    "lenience_form": "what eps does to the target's probability",
    "draft_length": "adaptive ends a draft where the next token would not pay; gamma is the most",
    "draft_cost": "of a drafted token, in one-token calls of the target; bench prints it",
    "call_cost": "what a drafted token adds to the target's call, likewise",
}


_ELSEWHERE = {
    "fastllm.distill.commands": ("train", "pseudo", "study"),
    "fastllm.precision": ("precision",),
    "fastllm.deploy": ("deploy",),
    "fastllm.push": ("push",),
}
"""Modules that add commands of their own, loaded only where one of these may be asked for."""

_RESUMED = _ELSEWHERE["fastllm.distill.commands"]
"""Commands that go on where they were interrupted."""

_REPORTING = ("eval", "bench", "precision")
"""Commands that measure for long and then write `--out` or `--json`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        build_parser().print_help(sys.stderr)
        return 2
    command = given[0]
    try:
        options, unknown = build_parser(given).parse_known_args(given)
        if unknown:  # told by the command's own parser, whose usage names what there is
            options.usage(f"unrecognized arguments: {' '.join(unknown)}")
        if command in _REPORTING:
            _require_writable(getattr(options, "out", None), getattr(options, "json", None))
        code: int | None = options.handle(options)
        _flush()
    except FastLLMError as error:
        print(f"fastllm {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        more = "; the same command goes on from what it has saved" if command in _RESUMED else ""
        print(f"fastllm {command}: interrupted{more}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        _drop_output()
        return 141
    except OSError as error:
        place = "a file, or standard output," if error.filename is None else error.filename
        reason = error.strerror or error
        print(f"fastllm {command}: {place} cannot be read or written ({reason})", file=sys.stderr)
        try:
            _flush()
        except OSError:
            _drop_output()
        return 2
    return code or 0


def _flush() -> None:
    if sys.stdout is not None:  # closed by who started us
        sys.stdout.flush()


def _drop_output() -> None:
    """Keeps what could not be written from being tried again when the interpreter ends."""
    with suppress(OSError):  # no file of the system
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser(given: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser; the training commands are loaded only where `given` may ask for them."""
    parser = argparse.ArgumentParser(
        prog="fastllm", description="Speculative decoding of summaries, and drafters for it."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = given[0] if given else ""
    known = {"run", "eval", "bench", *(name for names in _ELSEWHERE.values() for name in names)}
    for module, names in _ELSEWHERE.items():
        if asked in names or asked not in known:
            import_module(module).add_arguments(commands)
    _add_eval(commands)
    _add_bench(commands)
    _add_run(commands)
    for command in commands.choices.values():
        command.set_defaults(usage=command.error)
    return parser


def add_decoding_arguments(parser: argparse.ArgumentParser, *, without: Sequence[str] = ()) -> None:
    """One flag for each setting of DecodingConfig, with its default and range or its words."""
    group = parser.add_argument_group("decoding")
    defaults = config_defaults()
    for name, (low, high) in DecodingConfig.RANGES.items():
        if name not in without:
            default = "the target's own" if defaults[name] is None else defaults[name]
            group.add_argument(
                "--" + name.replace("_", "-"),
                *(["--" + name] if "_" in name else []),
                type=int if defaults[name] is None else type(defaults[name]),
                default=defaults[name],
                metavar="N",
                help=f"{_HELP[name]}; {low} to {high} (default: {default})",
            )
    for name, words in DecodingConfig.CHOICES.items():
        group.add_argument(
            "--" + name.replace("_", "-"),
            *(["--" + name] if "_" in name else []),
            choices=words,
            default=defaults[name],
            help=f"{_HELP[name]} (default: {defaults[name]})",
        )


def decoding_config(options: argparse.Namespace, **more: Any) -> DecodingConfig:
    """The settings that the flags of `add_decoding_arguments` gave.

    Args:
        options: what was parsed.
        more: settings that another flag gave.

    Raises:
        SettingsError: a value out of range, or two that do not go together.
    """
    names = [*DecodingConfig.RANGES, *DecodingConfig.CHOICES]
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return DecodingConfig(**{**given, **more})


def decoding_configs(
    options: argparse.Namespace, gammas: Sequence[int], temperatures: Sequence[float]
) -> DecodingConfig:
    """Likewise where several draft lengths and temperatures are measured in one run.

    Args:
        options: what was parsed.
        gammas: the draft lengths, possibly none.
        temperatures: at least one.

    Returns:
        The settings at the last of `temperatures`, which go together with the others too.

    Raises:
        SettingsError: a value out of range, or two that do not go together at some temperature.
    """
    if options.verification == "lenient" and 0.0 in temperatures:
        others = [f"{temperature:g}" for temperature in temperatures if temperature]
        raise SettingsError(
            "--verification lenient with --temperature 0: a greedy target has one token at each "
            "place, so that lenience has nothing to act on. Give --temperature "
            f"{' '.join(others) or '1'} alone, and measure 0 in another run, without "
            "--verification."
        )
    configs = [decoding_config(options, temperature=value) for value in temperatures]
    for gamma in gammas:
        replace(configs[-1], gamma=gamma)
    return configs[-1]


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
        "--drafter",
        help="a shipped drafter, a folder, lookup, or none (default: shared-after; with "
        "another target than the shipped one, lookup)",
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
    name = options.drafter
    if name is None:
        name = checkpoints.default_drafter(options.target)
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
    try:
        for step in race:
            refused = [] if step.round.refused is None else [step.round.refused]
            names = vocabulary.names(refused)
            print(
                terminal.render_round(step.round, detokenizer.push, names, colour=colour),
                end="",
                flush=True,
            )
    finally:  # what is said next, of an interruption too, begins on a line of its own
        print("\n")
    trace = race.traces()[0]
    if trace.drafter:
        print(terminal.legend(colour=colour) + "\n")
        print("Text: " + terminal.printable(trace.text) + "\n")
    if trace.cut_at is not None:
        print(
            f"The article was cut: the target read its first {trace.cut_at} of "
            f"{len(trace.source)} characters."
        )
    print(terminal.counts(trace))


# eval


def _add_eval(commands: Any) -> None:
    parser = commands.add_parser(
        "eval",
        help="measure drafters on a test set",
        description="Decodes every article of a file with the target alone and with each drafter, "
        "and prints a report in Markdown, with intervals over articles. Ctrl-C ends it early; what "
        "was measured until then is reported.",
    )
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    parser.add_argument(
        "--drafters",
        "--drafter",
        "--lanes",
        action="append",
        metavar="A,B",
        help="families (lstm: before and after), single drafters (lstm-after), lookup, or folders "
        "(default: all that ship, and lookup); may repeat",
    )
    parser.add_argument(
        "--ckpt_path",
        "--ckpt-path",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a drafter's folder; may repeat; alone, it is measured beside lookup",
    )
    parser.add_argument("--data", metavar="FILE", help="articles, .jsonl, .jsonl.gz or .jsonl.xz")
    parser.add_argument("--limit", type=int, default=100, help="articles (default: 100)")
    parser.add_argument("--prefix", help='before each article, such as "summarize: "')
    parser.add_argument(
        "--out", metavar="FOLDER", help="write report.json, report.md and report.html there too"
    )
    parser.add_argument("--json", metavar="FILE", help="write report.json under this name")
    parser.add_argument(
        "--check-generate",
        action="store_true",
        help="compare greedy texts with transformers' generate, token for token, instead",
    )
    parser.add_argument(
        "--gate",
        action="store_true",
        help="demand the story gate, greedy on the sample articles: the exit code is 1 where it "
        "fails, and a pair that is not among the drafters is refused; may stand without --data",
    )
    parser.add_argument(
        "--pair",
        default="lstm",
        metavar="X",
        help="the story gate compares X-before with X-after (default: lstm)",
    )
    add_device_argument(parser)
    defaults = config_defaults()
    parser.add_argument(
        "--gamma",
        "--gammas",
        dest="gammas",
        nargs="+",
        type=_whole_numbers,
        metavar="N",
        help=f"draft lengths (default: {defaults['gamma']}; with --check-generate 1 to 8)",
    )
    parser.add_argument(
        "--temperature",
        dest="temperatures",
        nargs="+",
        type=_numbers,
        metavar="N",
        help=f"0 is greedy; several are measured one by one (default: {defaults['temperature']:g})",
    )
    add_decoding_arguments(parser, without=("gamma", "temperature"))
    parser.set_defaults(handle=evaluate)


def evaluate(options: argparse.Namespace) -> int:
    """Measures drafters; 130 if interrupted.

    1 where greedy texts differ from the target's own, or the story gate was demanded and fails.
    """
    gammas = sorted({gamma for group in options.gammas or () for gamma in group})
    temperatures = sorted({value for group in options.temperatures or () for value in group})
    config = decoding_configs(options, gammas, temperatures or [DecodingConfig.temperature])
    if len(gammas) == 1:
        config = replace(config, gamma=gammas[0])
    _require_eval(options, gammas, temperatures)
    evaluation, report = (import_module(f"fastllm.{name}") for name in ("evaluate", "report"))
    chosen = [] if options.data is None else evaluation.choose_articles(options.data, options.limit)
    target, drafters = _load(options)
    pair = [f"{options.pair}-{end}" for end in ("before", "after")]
    if options.gate and not set(pair) <= set(drafters):
        raise SettingsError(
            f"--gate compares {' with '.join(pair)}: the drafters are "
            f"{', '.join(drafters) or 'none'}. Name a pair among them with --pair, or load one "
            "with --drafters or --ckpt_path."
        )
    if options.check_generate:
        check = evaluation.check_generate(
            target, drafters, chosen, config, gammas or list(range(1, 9)), say=_say
        )
        table = report.generate_table(check)
        if check.interrupted:
            table += f"\n\nInterrupted: {check.asked} articles were to be compared."
        _report(options, {"generate": check.to_json()}, table)
        return 130 if check.interrupted else 0 if check.passed else 1
    tree: dict[str, Any] = {}
    shown: list[str] = []
    code = 0
    if chosen:
        result = evaluation.evaluate(
            target, drafters, chosen, config, gammas=gammas, temperatures=temperatures, say=_say
        )
        tree = {"data": Path(options.data).name, **report.to_json(result)}
        shown.append(report.markdown(tree))
        page = import_module("fastllm.plots").page(tree) if options.out else ""
        _report(options, tree, shown[0], page)
        if result.interrupted:
            return 130
        code = 0 if result.same_text else 1
    samples = sorted(SAMPLES.glob("*.txt"))
    gate = None
    if not samples or not set(pair) <= set(drafters):
        want = f"{options.pair}-before and -after" if samples else "the sample articles"
        shown.append(f"## Story gate: not measured, for want of {want}")
    else:
        gate = _story_gate(evaluation, target, drafters, config, pair, samples)
        shown.append(report.gate_table(gate))
    print(("\n" if chosen else "") + shown[-1])
    tree["story_gate"] = None if gate is None else gate.to_json()
    _write(options, tree, "\n\n".join(shown))  # again, with the gate
    return 1 if options.gate and not (gate and gate.passed) else code


def _require_eval(
    options: argparse.Namespace, gammas: Sequence[int], temperatures: Sequence[float]
) -> None:
    """Refuses what would fail later, or not be heeded.

    Raises:
        SettingsError: what is missing, out of range, or excludes another option.
    """
    if options.limit < 1:
        raise SettingsError(f"--limit {options.limit}: give at least 1 article.")
    if options.data is None and (options.check_generate or not options.gate):
        raise SettingsError("--data is missing: give a file of articles, or --gate alone.")
    if options.gate and options.check_generate:
        raise SettingsError("--check-generate measures nothing else: give --gate in another run.")
    sampled = [f"{temperature:g}" for temperature in temperatures if temperature]
    greedy = "--check-generate" if options.check_generate else "--gate without --data"
    if sampled and (options.check_generate or options.data is None):
        raise SettingsError(
            f"{greedy} is greedy, so that --temperature {' '.join(sampled)} has no meaning: leave "
            "it out."
        )
    if options.data is None and len(gammas) > 1:
        raise SettingsError(
            f"--gate without --data takes one draft length, not {len(gammas)}: give one --gamma."
        )
    if options.gate and not any(SAMPLES.glob("*.txt")):
        raise SettingsError(
            f"--gate reads the sample articles, and {SAMPLES} holds none: they come with the "
            "repository, not with the package. Run this from a clone."
        )


def _require_writable(out: str | None, file: str | None) -> None:
    """Refuses places for a report where nothing can be written, before the work and not behind it.

    Args:
        out: a folder, which need not exist.
        file: likewise, a file.

    Raises:
        SettingsError: names the place.
    """
    folders = [Path(out)] if out else []
    if file and Path(file).is_dir():
        raise SettingsError(f"--json {file}: this is a folder. Name a file in it.")
    if file and not Path(file).exists():
        folders.append(Path(file).parent)
    elif file and not os.access(file, os.W_OK):  # not opened: that is an event at a named pipe
        raise SettingsError(f"--json {file}: it cannot be written. Name a file of your own.")
    for folder in folders:
        import_module("fastllm.distill.folders").require_writable(folder)


def _report(
    options: argparse.Namespace, tree: dict[str, Any], markdown: str, page: str = ""
) -> None:
    print(markdown)
    _write(options, tree, markdown, page)
    if options.out:
        _say(f"the report is in {options.out}")


def _write(
    options: argparse.Namespace, tree: dict[str, Any], markdown: str, page: str = ""
) -> None:
    numbers = json.dumps(tree, indent=1) + "\n"
    files = {Path(options.json): numbers} if options.json else {}
    if options.out:
        out = Path(options.out)
        files |= {out / "report.json": numbers, out / "report.md": markdown + "\n"}
        files |= {out / "report.html": page} if page else {}
    for path, text in files.items():
        _put(path, text)


def _put(path: Path, text: str) -> None:
    """Writes a file of a report.

    Raises:
        OSError: with the file's name, which the system leaves out where a disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _load(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    _quiet()
    checkpoints = import_module("fastllm.checkpoints")
    device = device_name(options.device)
    dtype = getattr(options, "dtype", None)
    target = checkpoints.load_target(
        options.target, device=device, load_in=dtype, prefix=options.prefix
    )
    shipped = checkpoints.shipped_drafters()
    names = lane_names(options.drafters, options.ckpt_path, options.target, shipped)
    loaded = [checkpoints.load_drafter(name, device=device) for name in names]
    # A folder goes by the name that its drafter was trained under (runs/x/checkpoint says little),
    # unless two lanes would then share it.
    known = {"lookup", *shipped}
    own = [
        name if name in known else drafter.name for name, drafter in zip(names, loaded, strict=True)
    ]
    return target, {
        short if own.count(short) == 1 else name: drafter
        for short, name, drafter in zip(own, names, loaded, strict=True)
    }


def lane_names(
    asked: Sequence[str] | None, folders: Sequence[str], target: str, shipped: Sequence[str]
) -> list[str]:
    """The drafters to load, each once, in the order they were named.

    Args:
        asked: what `--drafters` was given, each a list with commas; None if it was not given.
        folders: what `--ckpt_path` was given.
        target: the shipped drafters know the vocabulary of "target" alone.
        shipped: the drafters that ship. A name that is none of them, but the family of some, means
            all of that family.
    """
    if asked is None:
        names = ["lookup", *(shipped if target == "target" and not folders else ())]
    else:
        wanted = [name.strip() for text in asked for name in text.split(",")]
        names = []
        for name in wanted:
            family = [f"{name}-{end}" for end in ("before", "after")]
            members = [member for member in family if member in shipped]
            names += members if members and name not in shipped else [name]
    return list(dict.fromkeys(name for name in [*names, *folders] if name not in ("", "none")))


def _story_gate(
    evaluation: Any,
    target: Any,
    drafters: dict[str, Any],
    config: DecodingConfig,
    pair: Sequence[str],
    samples: Sequence[Path],
) -> Any:
    articles = import_module("fastllm.data.articles")
    read = [articles.Article(id=path.stem, text=articles.read_text(path)) for path in samples]
    return evaluation.story_gate(target, drafters, *pair, read, config)


# bench


BENCH_GAMMAS = (2, 5, 8)
"""The draft lengths of the benchmark, unless others are given: ten minutes for 50 articles."""

BENCH_ARTICLES = 50
BENCH_SOURCES = 5
"""How many articles, and how many random sources where the weights are random."""


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="time lanes side by side, those of transformers included",
        description="Times plain decoding, speculation with each drafter, and transformers' "
        "generate, assisted generation and prompt lookup, interleaved in one run, and prints "
        "medians over articles. --target-shape measures the costs of a large target on this "
        "machine with random weights; how many drafts are accepted is then simulated.",
    )
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    parser.add_argument(
        "--drafters",
        "--drafter",
        "--lanes",
        action="append",
        metavar="A,B",
        help="families (lstm: before and after), single drafters (lstm-after), lookup, folders, or "
        "none (default: all that ship, and lookup); may repeat",
    )
    parser.add_argument(
        "--ckpt_path",
        "--ckpt-path",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a drafter's folder; may repeat",
    )
    parser.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time the lanes of transformers as well (default: yes)",
    )
    parser.add_argument(
        "--assistant",
        metavar="NAME",
        help="the T5 drafter that transformers' assisted generation drafts with (default: "
        "t5-after, or else the first T5 among the drafters)",
    )
    parser.add_argument("--data", metavar="FILE", help="articles, .jsonl, .jsonl.gz or .jsonl.xz")
    parser.add_argument(
        "--limit",
        type=int,
        help=f"articles (default: {BENCH_ARTICLES}; random sources: {BENCH_SOURCES})",
    )
    parser.add_argument("--prefix", help='before each article, such as "summarize: "')
    parser.add_argument(
        "--dtype",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of the target's weights (default: fp32)",
    )
    parser.add_argument("--out", metavar="FOLDER", help="write bench.json, .md and .html there")
    shapes = parser.add_argument_group("without weights")
    shapes.add_argument(
        "--target-shape",
        metavar="SHAPE",
        help="google/flan-t5-xl or another T5, or a folder with config.json",
    )
    shapes.add_argument(
        "--random-weights", action="store_true", help="fill that shape with random numbers"
    )
    shapes.add_argument(
        "--drafter-shape",
        metavar="SHAPE",
        default="google-t5/t5-small",
        help="likewise, for the drafter (default: google-t5/t5-small)",
    )
    shapes.add_argument(
        "--alpha",
        type=float,
        metavar="N",
        help="the chance that a drafted token is accepted, 0 to 1: simulated acceptance",
    )
    shapes.add_argument(
        "--source-length", type=int, default=512, metavar="N", help="source tokens (default: 512)"
    )
    add_device_argument(parser)
    parser.add_argument(
        "--gamma",
        "--gammas",
        dest="gammas",
        nargs="+",
        type=_whole_numbers,
        default=[list(BENCH_GAMMAS)],
        metavar="N",
        help=f"draft lengths (default: {' '.join(map(str, BENCH_GAMMAS))})",
    )
    parser.add_argument(
        "--temperature",
        dest="temperatures",
        nargs="+",
        type=_numbers,
        default=[[0.0, 1.0]],
        metavar="N",
        help="0 is greedy; several are measured in the same run (default: 0 1)",
    )
    add_decoding_arguments(parser, without=("gamma", "temperature"))
    parser.set_defaults(handle=bench)


def bench(options: argparse.Namespace) -> int:
    """Times the lanes; 1 where a greedy text of ours is another than it has to be."""
    gammas = sorted({gamma for group in options.gammas for gamma in group})
    temperatures = sorted({value for group in options.temperatures for value in group})
    config = decoding_configs(options, gammas, temperatures)
    _require_bench(options)
    load = _bench_random if options.target_shape else _bench_articles
    arguments, more = load(options)
    if options.baselines and not options.target_shape:
        import_module("transformers.utils.logging").set_verbosity_error()
    measuring, report = (import_module(f"fastllm.bench.{n}") for n in ("measure", "report"))
    done = measuring.measure(
        **arguments, config=config, gammas=gammas, temperatures=temperatures, say=_say
    )
    summary = report.summarise(done, peak_process_bytes=_peak_memory(), **more)
    text = report.markdown(summary)
    print(text)
    if options.out:
        plots = import_module("fastllm.plots")
        page = plots.document(
            report.heading(summary),
            report.preamble(summary),
            plots.bench_charts(summary),
            report.sections(summary),
        )
        tree = json.dumps(report.to_json(done, summary), indent=1)
        for suffix, content in (("json", tree + "\n"), ("md", text + "\n"), ("html", page)):
            _put(Path(options.out) / f"bench.{suffix}", content)
        _say(f"the report is in {options.out}")
    if summary["articles"] < summary["asked"]:
        return 130
    return 0 if done.exact else 1


def _require_bench(options: argparse.Namespace) -> None:
    """Refuses what would fail later.

    Raises:
        SettingsError: what is missing, out of range, or excludes another option.
    """
    if options.limit is not None and options.limit < 1:
        raise SettingsError(f"--limit {options.limit}: give at least 1 article.")
    if options.target_shape is None:
        if options.random_weights or options.alpha is not None:
            raise SettingsError(
                "--random-weights and --alpha belong to --target-shape: name a shape, such as "
                "google/flan-t5-xl, or leave them out."
            )
        if options.data is None:
            raise SettingsError(
                "--data is missing: give a file of articles, or --target-shape for random ones."
            )
        return
    if not options.random_weights or options.alpha is None:
        raise SettingsError(
            "--target-shape has no weights and no articles: add --random-weights, and --alpha N, "
            "the chance that a drafted token is accepted."
        )
    if not 0 <= options.alpha <= 1:
        raise SettingsError(f"--alpha {options.alpha:g}: give a chance between 0 and 1.")
    if options.source_length < 2:
        raise SettingsError(f"--source-length {options.source_length}: give at least 2 tokens.")


def _bench_articles(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to measure on articles, for `measure`, and what to say of it, for `summarise`."""
    choose = import_module("fastllm.evaluate").choose_articles
    chosen = choose(options.data, options.limit or BENCH_ARTICLES)
    target, drafters = _load(options)
    names: list[str] = []
    assistant, model = None, None
    if options.baselines:
        measuring = import_module("fastllm.bench.measure")
        assistant, model = _assistant(options, drafters)
        names = [n for n in measuring.BASELINES if n != measuring.ASSISTED or model is not None]
    sources = [
        (
            article.id,
            target.vocabulary.encode(article.text, target.source_length, target.prefix).ids,
        )
        for article in chosen
    ]
    return {
        "target": target,
        "drafters": drafters,
        "sources": sources,
        "baselines": names,
        "assistant": model,
    }, {"assistant": assistant}


def _assistant(options: argparse.Namespace, drafters: dict[str, Any]) -> tuple[str | None, Any]:
    """The name of the drafter that assists transformers, and its model; None if there is none."""
    family = import_module("fastllm.drafters").drafter_class("t5")
    able = [name for name, drafter in drafters.items() if isinstance(drafter, family)]
    name = options.assistant or ("t5-after" if "t5-after" in able else next(iter(able), None))
    if name is None:
        return None, None
    drafter = drafters.get(name)
    if drafter is None:
        checkpoints = import_module("fastllm.checkpoints")
        drafter = checkpoints.load_drafter(name, device=device_name(options.device))
    if not isinstance(drafter, family):
        raise SettingsError(
            f"--assistant {name}: transformers needs a T5, this is a {type(drafter).__name__}. "
            "Give t5-after, or the folder of a T5."
        )
    return name, drafter.model.network


def _bench_random(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Likewise for random weights."""
    simulate, torch = import_module("fastllm.bench.simulate"), import_module("torch")
    hub = import_module("fastllm.targets.hub")
    device = torch.device(device_name(options.device) or hub.best_device())
    _say(f"random weights for {options.target_shape} on {device}")
    target = simulate.random_target(
        options.target_shape,
        device=device,
        dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype],
        source_length=options.source_length,
    )
    drafter = simulate.random_drafter(options.drafter_shape, target)
    measuring = import_module("fastllm.bench.measure")
    return {
        "target": target,
        "drafters": {drafter.name: drafter},
        "sources": simulate.random_sources(
            options.limit or BENCH_SOURCES,
            options.source_length,
            target.model.config.vocab_size,
            options.seed,
        ),
        "baselines": [measuring.GENERATE] if options.baselines else [],
        "alpha": options.alpha,
    }, {
        "roofline": simulate.roofline(target),
        "drafter_dtype": str(target.model.dtype).removeprefix("torch."),
    }


def _peak_memory() -> int | None:
    """The most bytes that this process has held; None where the system does not say."""
    try:
        resource = import_module("resource")
    except ImportError:  # Windows
        return None
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else 1024 * peak


def _whole_numbers(text: str) -> list[int]:
    return _listed(text, int, "a whole number")


def _numbers(text: str) -> list[float]:
    return _listed(text, float, "a number")


def _listed(text: str, kind: Callable[[str], Number], what: str) -> list[Number]:
    """The numbers of an argument, between commas."""
    try:
        numbers = [kind(number) for number in text.split(",") if number]
    except ValueError:
        numbers = []
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}, nor several between commas")
    return numbers


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _quiet() -> None:
    """Keeps the progress bars of transformers out of the output."""
    import_module("transformers.utils.logging").disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
