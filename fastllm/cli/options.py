"""Flags that several commands share, and what they mean."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from fastllm.errors import SettingsError
from fastllm.trace import DecodingConfig, config_defaults

Number = TypeVar("Number", int, float)

_HELP = {
    "gamma": "draft length: the most tokens the drafter proposes per round",
    "temperature": "0 is greedy",
    "draft_temperature": "of drafts where texts are sampled; exact at any; 0 drafts the likeliest",
    "top_k": "keep the k most likely tokens; 0 keeps all",
    "top_p": "keep the most likely tokens of this mass; 1 keeps all",
    "max_new_tokens": "the most tokens to write, the end token included",
    "seed": "of every random decision",
    "no_repeat_ngram": "no sequence of so many tokens comes twice; 0 is off",
    "min_new_tokens": "no end before so many tokens; 0 is off",
    "verification": "the rule that accepts drafted tokens; auto is block when sampling",
    "lenience": "eps of --verification lenient: 1 is exact, less accepts more and is lossy",
    "rollback_threshold": "of --verification rollback, in nats: 0 is exact, more is lossy",
    "lenience_form": "what eps does to the target's probability",
    "draft_length": "adaptive ends a draft where the next token would not pay, confidence where "
    "the drafter is not sure, lead after one call of the drafter; gamma is the most",
    "fallback_threshold": "of --draft-length confidence: the drafter's probability of its best",
    "draft_cost": "of a drafted token, in one-token calls of the target; bench prints it",
    "call_cost": "what a drafted token adds to the target's call, in one-token calls",
}


def add_decoding_arguments(parser: argparse.ArgumentParser, *, without: Sequence[str] = ()) -> None:
    """One flag for each setting of DecodingConfig, with its default and range or its words."""
    group = parser.add_argument_group("decoding")
    config = DecodingConfig
    for name, default in config_defaults().items():
        if name in without or name not in _HELP:
            continue
        whose = "the drafter's own" if name in config.LEFT_TO_DRAFTER else "the target's own"
        shown = whose if default is None else default
        if name in config.RANGES:
            low, high = config.RANGES[name]
            kind: dict[str, Any] = {"type": type(low), "metavar": "N"}
            said = f"{_HELP[name]}; {low} to {high} (default: {shown})"
        else:
            kind = {"choices": config.CHOICES[name]}
            said = f"{_HELP[name]} (default: {shown})"
        group.add_argument(
            "--" + name.replace("_", "-"),
            *(["--" + name] if "_" in name else []),
            *(["--gen_length", "--gen-length"] if name == "max_new_tokens" else []),
            default=default,
            help=said,
            **kind,
        )


def decoding_config(options: argparse.Namespace, **more: Any) -> DecodingConfig:
    """The settings that the flags of `add_decoding_arguments` gave, and `more`.

    Raises:
        SettingsError: a value out of range, or two that do not go together.
    """
    names = [*DecodingConfig.RANGES, *DecodingConfig.CHOICES]
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return DecodingConfig(**{**given, **more})


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """The flag `--device`."""
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1, mps, or the number of a GPU (default: the best there is)",
    )


def add_measuring_arguments(
    parser: argparse.ArgumentParser,
    *,
    limit: str,
    gammas: Sequence[int] | None,
    gamma_help: str,
    temperatures: Sequence[float],
) -> None:
    """What the commands that measure a target and drafters on a file of articles have in common.

    `limit` and `gamma_help` are defaults in words; `gammas` None leaves them to the command.
    """
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    parser.add_argument(
        "--drafters",
        "--drafter",
        "--lanes",
        action="append",
        metavar="A,B",
        help="families (lstm: before and after), single drafters (lstm-after), lookup, folders, "
        "two as FIRST+SECOND, or none (default: all that ship, and lookup); may repeat",
    )
    parser.add_argument(
        "--ckpt_path",
        "--ckpt-path",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a drafter's folder; may repeat; alone, it is measured beside lookup",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="articles, .jsonl, .jsonl.gz or .jsonl.xz; a folder or cnn_dailymail: its test split",
    )
    parser.add_argument("--limit", type=int, help=f"articles (default: {limit})")
    parser.add_argument("--prefix", help='before each article, such as "summarize: "')
    add_device_argument(parser)
    parser.add_argument(
        "--gamma",
        "--gammas",
        dest="gammas",
        nargs="+",
        type=partial(_listed, kind=int, what="a whole number"),
        default=[list(gammas or ())],
        metavar="N",
        help=f"draft lengths (default: {gamma_help})",
    )
    parser.add_argument(
        "--temperature",
        dest="temperatures",
        nargs="+",
        type=partial(_listed, kind=float, what="a number"),
        default=[list(temperatures)],
        metavar="N",
        help="0 is greedy; several are measured in the same run (default: "
        f"{' '.join(f'{temperature:g}' for temperature in temperatures)})",
    )
    add_decoding_arguments(parser, without=("gamma", "temperature"))


def measured_settings(
    options: argparse.Namespace,
) -> tuple[DecodingConfig, list[int], list[float]]:
    """What the flags of `add_measuring_arguments` ask for.

    Returns:
        The settings, at the last of the temperatures; the draft lengths, possibly none; the
        temperatures, at least one. Both ascend.

    Raises:
        SettingsError: a value out of range, or two that do not go together at some temperature.
    """
    gammas = sorted({gamma for group in options.gammas for gamma in group})
    temperatures = sorted({value for group in options.temperatures for value in group})
    if options.limit is not None and options.limit < 1:
        raise SettingsError(f"--limit {options.limit}: give at least 1 article.")
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
    return configs[-1], gammas, temperatures


def _listed(text: str, kind: Callable[[str], Number], what: str) -> list[Number]:
    """The numbers of an argument, between commas."""
    try:
        numbers = [kind(number) for number in text.split(",") if number]
    except ValueError:
        numbers = []
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}, nor several between commas")
    return numbers
