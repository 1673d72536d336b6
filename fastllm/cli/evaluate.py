"""`fastllm eval`: drafters on a test set."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from fastllm import paths
from fastllm.cli.lanes import load_lanes
from fastllm.cli.options import (
    add_decoding_arguments,
    add_device_argument,
    decoding_configs,
    number_list,
    whole_number_list,
)
from fastllm.cli.output import charts, put, say
from fastllm.errors import SettingsError
from fastllm.trace import DecodingConfig, config_defaults

SAMPLES = paths.ARTICLES
"""The sample articles that the story gate reads."""


def add_arguments(commands: Any) -> None:
    """Adds the command `eval`."""
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
        type=whole_number_list,
        metavar="N",
        help=f"draft lengths (default: {defaults['gamma']}; with --check-generate 1 to 8)",
    )
    parser.add_argument(
        "--temperature",
        dest="temperatures",
        nargs="+",
        type=number_list,
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
    evaluation, report = (
        import_module(f"fastllm.evaluation.{name}") for name in ("measure", "report")
    )
    chosen = [] if options.data is None else evaluation.choose_articles(options.data, options.limit)
    target, drafters = load_lanes(options)
    pair = [f"{options.pair}-{end}" for end in ("before", "after")]
    if options.gate and not set(pair) <= set(drafters):
        raise SettingsError(
            f"--gate compares {' with '.join(pair)}: the drafters are "
            f"{', '.join(drafters) or 'none'}. Name a pair among them with --pair, or load one "
            "with --drafters or --ckpt_path."
        )
    if options.check_generate:
        check = evaluation.check_generate(
            target, drafters, chosen, config, gammas or list(range(1, 9)), say=say
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
            target, drafters, chosen, config, gammas=gammas, temperatures=temperatures, say=say
        )
        tree = {"data": Path(options.data).name, **report.to_json(result)}
        shown.append(report.markdown(tree))
        plots = charts() if options.out else None
        page = "" if plots is None else plots.page(tree)
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


def _report(
    options: argparse.Namespace, tree: dict[str, Any], markdown: str, page: str = ""
) -> None:
    print(markdown)
    _write(options, tree, markdown, page)
    if options.out:
        say(f"the report is in {options.out}")


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
        put(path, text)


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
