"""`fastllm run`: a summary of an article, and what the drafter did."""

import argparse
import sys
from importlib import import_module
from typing import Any

from fastllm.cli.options import add_decoding_arguments, add_device_argument, decoding_config
from fastllm.cli.output import put_json, quiet


def add_arguments(commands: Any) -> None:
    """Adds the command `run`."""
    parser = commands.add_parser(
        "run",
        help="summarise an article, and show what the drafter did",
        description="Summarises an article and shows each token's origin, or prints the Trace.",
    )
    parser.add_argument("article", metavar="ARTICLE", help="a text file; - reads standard input")
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    parser.add_argument(
        "--drafter",
        help="a shipped drafter, a folder, lookup, two as FIRST+SECOND, or none (default: "
        "shared-after; with "
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
    quiet()
    checkpoints = import_module("fastllm.checkpoints")
    target = checkpoints.load_target(options.target, device=options.device, prefix=options.prefix)
    name = options.drafter
    if name is None:
        name = checkpoints.default_drafter(options.target)
    drafter = None if name == "none" else checkpoints.load_drafter(name, device=options.device)
    race = import_module("fastllm.decoding.race").Race(target, [drafter], text, config)
    if options.json:
        for _ in race:
            pass
        put_json(race.traces()[0].dumps())
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
