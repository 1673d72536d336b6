"""A decoding as coloured text: what was drafted and stands, was refused, was put right, came free.

Colour and shape say the same thing, so that neither is needed: with colour, accepted tokens are
underlined, refused ones struck through, corrections bold, each in a colour of its own; without,
each state has a mark.
"""

import os
import unicodedata
from collections.abc import Callable, Mapping
from typing import Literal, TextIO

from fastllm import metrics
from fastllm.trace import Round, Trace
from fastllm.words import capital

State = Literal["plain", "accepted", "refused", "correction", "bonus"]

_STYLES: dict[State, tuple[str, str, str, str]] = {
    "accepted": ("\x1b[4;34m", "_", "_", "drafted and accepted"),
    "refused": ("\x1b[9;31m", "[x", "]", "drafted and refused"),
    "correction": ("\x1b[1;38;5;208m", "[!", "]", "the target's correction"),
    "bonus": ("\x1b[32m", "[+", "]", "the target's extra token"),
}
"""Of each state but the plain one: colour, mark before, mark behind, meaning."""

_RESET = "\x1b[0m"


def wants_colour(stream: TextIO | None) -> bool:
    """Whether a stream, None if it is closed, is a terminal that may be coloured.

    Source: https://no-color.org.
    """
    if stream is None or not stream.isatty():
        return False
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, state: State, *, colour: bool) -> str:
    """One token in the form of its state; blanks at its edges stay outside the form.

    Example:
        >>> styled(" rain", "accepted", colour=False)
        ' _rain_'
    """
    text = printable(text)
    inner = text.strip(" ")
    if not inner or state == "plain":
        return text
    start = text.index(inner)
    before, after = text[:start], text[start + len(inner) :]
    mark = "!" if state == "correction" else ""
    style, opened, closed, _ = _STYLES[state]
    if colour:
        return f"{before}{style}{mark}{inner}{_RESET}{after}"
    return f"{before}{opened}{inner}{closed}{after}"


def printable(text: str) -> str:
    """Text without control characters: a model's output must not steer the terminal."""
    return "".join(
        " " if letter in "\n\t\r" else "\N{MIDDLE DOT}" if _controls(letter) else letter
        for letter in text
    )


def render_round(
    entry: Round, piece: Callable[[int], str], names: Mapping[int, str], *, colour: bool
) -> str:
    """The tokens of a round, each in the form of its state.

    `piece` gives the text that a token adds; it is called once for each token of the text, in
    order. `names` have a readable form of the refused token, which is no part of the text.
    """
    stands = "".join(piece(token) for token in entry.drafted[: entry.accepted])
    shown = [styled(stands, "accepted", colour=colour)]
    if entry.refused is not None:
        name = names.get(entry.refused, str(entry.refused))
        shown.append(styled(name, "refused", colour=colour))
    if entry.extra is not None and entry.extra_kind is not None:
        shown.append(styled(piece(entry.extra), entry.extra_kind, colour=colour))
    return "".join(shown)


def legend(*, colour: bool) -> str:
    """What the forms mean, on one line."""
    return "   ".join(styled(look[-1], state, colour=colour) for state, look in _STYLES.items())


def counts(trace: Trace) -> str:
    """The numbers of a run, in a sentence or two."""
    tokens, calls = metrics.token_count(trace), metrics.target_calls(trace)
    seconds = metrics.seconds_with_encoding(trace)
    work = f"{_number(tokens, 'token')} in {_number(calls, 'target call')}"
    if not trace.drafter:
        return f"{work}, without a drafter; {seconds:.2f} s."
    drafted = metrics.drafted(trace)
    length = trace.config.length_label
    return (
        f"{work} with {trace.drafter} ({metrics.tau(trace):.2f} tokens per call); the target alone "
        f"needs {tokens}. {metrics.accepted(trace)} of {_number(drafted, 'drafted token')} "
        f"accepted; {seconds:.2f} s. {capital(trace.config.rule_label)}."
        + (f" Draft length: {length}." if length else "")
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _controls(letter: str) -> bool:
    return letter in _STEERING or unicodedata.category(letter) in {"Cc", "Cs"}


_STEERING = frozenset(
    map(
        chr,
        [*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xFFF9, 0xFFFC)]
        + [*range(0xE0000, 0xE0080)],
    )
)
"""Format characters that turn the direction of what follows, or hide it. Others stay: joiners,
which words of Persian and Indic scripts need, and signs that are written, as before numbers."""
