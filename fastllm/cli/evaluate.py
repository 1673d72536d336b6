"""`fastllm eval`: drafters on a test set."""

import argparse
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from fastllm.cli.lanes import load_lanes
from fastllm.cli.options import add_measuring_arguments, measured_settings
from fastllm.cli.output import charts, say, write_report
from fastllm.errors import SettingsError
from fastllm.trace import DecodingConfig

EVALUATED = 100
"""How many articles are taken by default."""


def add_arguments(commands: Any) -> None:
    """Adds the command `eval`."""
    parser = commands.add_parser(
        "eval",
        help="measure drafters on a test set",
        description="Decodes every article of a file with the target alone and with each drafter, "
        "and prints a report in Markdown, with intervals over articles. Ctrl-C ends it early; what "
        "was measured until then is reported.",
    )
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
        "--use_ngram_drafter",
        "--use-ngram-drafter",
        action="store_true",
        help="measure n-grams: those that ship, or what --ckpt_path names",
    )
    parser.add_argument(
        "--batch_size",
        "--batch-size",
        type=int,
        metavar="N",
        help="taken for the original's sake: articles are decoded one at a time",
    )
    parser.add_argument("trailing_run", nargs="?", choices=["run"], help=argparse.SUPPRESS)
    add_measuring_arguments(
        parser,
        limit=str(EVALUATED),
        gammas=None,
        gamma_help=f"{DecodingConfig.gamma}; with --check-generate 1 to 8",
        temperatures=[DecodingConfig.temperature],
    )
    parser.set_defaults(handle=evaluate)


def evaluate(options: argparse.Namespace) -> int:
    """Measures drafters; 130 if interrupted, 1 where greedy texts are not the target's own."""
    if options.batch_size not in (None, 1):
        say(
            f"--batch_size {options.batch_size}: articles are decoded one at a time, as a reader "
            "waits for one; seconds are those of one article"
        )
    if options.use_ngram_drafter and not options.ckpt_path:
        options.drafters = [*(options.drafters or []), "ngram"]
    config, gammas, temperatures = measured_settings(options)
    if len(gammas) == 1:
        config = replace(config, gamma=gammas[0])
    if options.data is None:
        raise SettingsError("--data is missing: give a file of articles.")
    sampled = [f"{temperature:g}" for temperature in temperatures if temperature]
    if sampled and options.check_generate:
        raise SettingsError(
            f"--check-generate is greedy, so that --temperature {' '.join(sampled)} has no "
            "meaning: leave it out."
        )
    measure, report = (
        import_module(f"fastllm.evaluation.{name}") for name in ("measure", "report")
    )
    chosen = measure.choose_articles(options.data, options.limit or EVALUATED)
    target, drafters = load_lanes(options)
    if options.check_generate:
        check = measure.check_generate(
            target, drafters, chosen, config, gammas or list(range(1, 9)), say=say
        )
        table = report.generate_table(check)
        print(table)
        write_report(options.out, "report", {"generate": check.to_json()}, table, file=options.json)
        return 130 if check.interrupted else 0 if check.passed else 1
    result = measure.evaluate(
        target, drafters, chosen, config, gammas=gammas, temperatures=temperatures, say=say
    )
    tree = {"data": Path(options.data).name, **report.to_json(result)}
    markdown = report.markdown(tree)
    print(markdown)
    plots = charts() if options.out else None
    page = "" if plots is None else plots.page(tree)
    write_report(options.out, "report", tree, markdown, page, options.json)
    return 130 if result.interrupted else 0 if result.same_text else 1
