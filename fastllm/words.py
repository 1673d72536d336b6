"""Words for people: durations, capitals, the first line of an error, texts cut short."""

from collections.abc import Sequence

MOST_ECHOED = 300
"""A message repeats no more characters than this of what somebody sent."""


def duration(seconds: float) -> str:
    """How long something takes, for people.

    Example:
        >>> duration(48), duration(720), duration(11100)
        ('48 s', '12 min', '3 h 05 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def capital(text: str) -> str:
    """A text with a capital at its beginning; the rest stays as it is.

    Example:
        >>> capital("greedy, T5")
        'Greedy, T5'
    """
    return text[:1].upper() + text[1:]


def shortened(text: str, most: int = MOST_ECHOED) -> str:
    """At most so many characters of a text, the last three of them dots where some are left out."""
    return text if len(text) <= most else text[: most - 3] + "..."


def first_line(error: BaseException, most: int = MOST_ECHOED) -> str:
    """The first line of what an error says, cut short; the error's kind where it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shortened(lines[0], most)


def echoed(value: object, most: int = 80) -> str:
    """What was sent, as a message may repeat it: its `repr`, cut short."""
    try:
        return shortened(repr(value), most)
    except (ValueError, RecursionError):  # an integer of thousands of digits; lists in lists
        return f"{type(value).__name__} too large to show"


def together(parts: Sequence[str]) -> str:
    """Some parts as one phrase.

    Example:
        >>> together(["a"]), together(["a", "b"]), together(["a", "b", "c"])
        ('a', 'a and b', 'a, b and c')
    """
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
