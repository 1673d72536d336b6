"""Traces written by hand: one text, with as many guesses accepted as one likes."""

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

from fastllm.trace import DecodingConfig, Ending, Judged, Round, Trace

END = 1
FIRST = 100
"""The id of a text's first piece; ids count up from here."""

WRONG = 7
"""The id of every refused guess."""

SUMMARY = tuple(
    " The| town| council| voted| on| Tuesday| to| reopen| the| old| rail|way| bridge| to| walk|ers"
    "| and| cyclists|.| Repairs| will| begin| in| March| and| are| expected| to| take| about| a"
    "| year|.| The| work| will| cost| 2|.4| million| pounds|.|".split("|")
)
"""The pieces of a summary; the last is the end token's."""


def trace(
    drafter: str,
    accepted: Iterable[int] = (),
    pieces: Sequence[str] = SUMMARY,
    *,
    seconds: float = 0.01,
    ended: Ending = "end_of_text",
    source: str = "The town council of Eastmere voted on Tuesday.",
    **more: Any,
) -> Trace:
    """A trace that writes `pieces`, its rounds accepting `accepted` guesses, over and over.

    Five tokens are guessed a round; without a drafter none are.
    """
    ids = [*range(FIRST, FIRST + len(pieces) - 1), END]
    names = {token: piece for token, piece in zip(ids, pieces, strict=True)}
    names |= {WRONG: " nobody", END: "</s>"}
    rounds: list[Round] = []
    written = 0
    pattern = cycle(accepted) if drafter else cycle([0])
    while written < len(ids):
        room = min(5, len(ids) - written - 1) if drafter else 0
        stood = min(next(pattern), room)
        right = ids[written : written + stood]
        drafted = [*right, *[WRONG] * (room - stood)]
        extra = ids[written + stood]
        rounds.append(
            Round(
                kind="speculative" if drafted else "plain",
                drafted=tuple(drafted),
                judged=tuple(_judged(token, token in right) for token in drafted[: stood + 1]),
                accepted=stood,
                extra=extra,
                extra_p=1.0,
                extra_best=((extra, 0.8), (WRONG, 0.1)),
                start=len(rounds) * seconds,
                total_seconds=seconds,
            )
        )
        written += stood + 1
    values: dict[str, Any] = {
        "source": source,
        "config": DecodingConfig(),
        "target": "tiny",
        "drafter": drafter,
        "vocabulary": "words",
        "hardware": "2 CPU cores",
        "target_encode_seconds": 0.02,
        "rounds": tuple(rounds),
        "ended": ended,
        "text": "".join(pieces).strip(),
        "pieces": tuple(pieces),
        "names": names,
    }
    return Trace(**(values | more))


def race(pieces: Sequence[str] = SUMMARY, **more: Any) -> tuple[list[str], list[Trace]]:
    """Keys and traces of a race of three lanes."""
    return ["alone", "lstm-before", "lstm-after"], [
        trace("", pieces=pieces, **more),
        trace("before", (0, 1, 2, 0), pieces, **more),
        trace("after", (5, 2, 3, 4, 1), pieces, **more),
    ]


def _judged(token: int, right: bool) -> Judged:
    p = 0.9 if right else 0.02
    return Judged(
        token, float(right), 1.0, 0.5, float(right), 0.5, p, 0.7,
        ((token, p), (WRONG, 0.05)), ((token, 0.7), (FIRST, 0.1)),
    )  # fmt: skip
