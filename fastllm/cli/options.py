"""Flags that several commands share, and what they mean."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, TypeVar

from fastllm.errors import SettingsError
from fastllm.trace import DecodingConfig, config_defaults

Number = TypeVar("Number", int, float)

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


def whole_number_list(text: str) -> list[int]:
    """Whole numbers between commas, as the type of an argument."""
    return _listed(text, int, "a whole number")


def number_list(text: str) -> list[float]:
    """Numbers between commas, as the type of an argument."""
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
