"""The command line: `python -m fastllm COMMAND`; without arguments it lists the commands.

A command is a function that takes its parsed arguments; what it needs is imported when it is
called, so that `--help` answers at once. Errors raised on purpose, and files that cannot be read or
written, end it with a message on stderr and the exit code 2; an error that nobody foresaw ends it
with its traceback and the code 70, since 1 means that texts differ.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from fastllm.cli import bench, evaluate, run
from fastllm.cli.output import degrade_text, require_writable_report
from fastllm.errors import FastLLMError

_ELSEWHERE = {
    "fastllm.cli.training": ("train", "pseudo", "study"),
    "fastllm.cli.prune": ("prune",),
    "fastllm.hub.deploy": ("deploy",),
    "fastllm.hub.push": ("push",),
}
"""Modules that add commands of their own, loaded only where one of these may be asked for."""

_RESUMED = (*_ELSEWHERE["fastllm.cli.training"], *_ELSEWHERE["fastllm.cli.prune"])
"""Commands that go on where they were interrupted."""

_REPORTING = ("eval", "bench")
"""Commands that measure for long and then write `--out` or `--json`."""


UNFORESEEN = 70
"""The exit code of an error that is a fault of ours; EX_SOFTWARE of sysexits.h."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        build_parser().print_help(sys.stderr)
        return 2
    command = given[0]
    degrade_text()
    try:
        options, unknown = build_parser(given).parse_known_args(given)
        if unknown:  # told by the command's own parser, whose usage names what there is
            options.usage(f"unrecognized arguments: {' '.join(unknown)}")
        if command in _REPORTING:
            require_writable_report(options.out, options.json if command == "eval" else None)
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
    except UnicodeError as error:  # a name of a file that the system cannot write, for one
        print(f"fastllm {command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        place = "a file, or standard output," if error.filename is None else error.filename
        reason = error.strerror or error
        print(f"fastllm {command}: {place} cannot be read or written ({reason})", file=sys.stderr)
        try:
            _flush()
        except OSError:
            _drop_output()
        return 2
    except Exception:
        traceback.print_exc()
        return UNFORESEEN
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
    evaluate.add_arguments(commands)
    bench.add_arguments(commands)
    run.add_arguments(commands)
    for command in commands.choices.values():
        command.set_defaults(usage=command.error)
    return parser
