"""What several parts of the page say: lanes, their sizes, articles, and the page's own words."""

from collections.abc import Mapping, Sequence
from itertools import cycle

from fastllm.checkpoints import read_card
from fastllm.drafters import families, untrained
from fastllm.drafters.combined import JOINT
from fastllm.drafters.union import SIGN
from fastllm.words import echoed

TITLE = "FastLLM"
CLAIM = "A small model guesses, a large one checks. Same words, fewer calls."
ROLES = (
    "The large model is the target: it alone decides every word. The small one is a drafter: it "
    "guesses the next few words, and one call of the target checks them all. Distillation trains "
    "the drafter to guess what the target writes."
)
TABS = {
    "race": "Race",
    "inside": "Inside",
    "play": "Play",
    "compare": "Compare",
    "train": "Train",
    "about": "About",
}
"""Key -> label of a tab, in their order."""
THUMBNAIL = (
    "Four lanes have written the same summary; the one that guesses best needed the fewest calls."
)
ALONE = "alone"
"""The key of the lane without a drafter."""


CUT = {
    "pruned": "pruned target (no training)",
    "pruned-after": "pruned target after distillation",
}
"""Key -> title of the drafters that were cut out of the target."""


def lanes() -> dict[str, str]:
    """Key -> title of a lane, in the order of the page: pairs side by side.

    Checkpoints that ship under other names follow.
    """
    found = {ALONE: "target alone"}
    for name, spec in families().items():
        if spec.training == "none":
            found[name] = f"{spec.title} (no training)"
            continue
        for end in ("before", "after"):
            found[f"{name}-{end}"] = f"{spec.title} {end} distillation"
    return found | CUT


HUES = 8
"""So many colours tell lanes apart: --fl-c0 to --fl-c7 of the style sheet."""

_USUAL_HUES = {ALONE: 0, "lookup": 3, "lstm-before": 1, "lstm-after": 2, "lstm-yours": 4}


def hues_of(keys: Sequence[str]) -> list[int]:
    """The number of each lane's colour: its usual one, or one that no other lane of these has.

    Of more lanes than colours some share one.
    """
    usual = [_USUAL_HUES.get(key) for key in keys]
    spare = cycle([hue for hue in range(HUES) if hue not in usual] or range(HUES))
    return [next(spare) if hue is None else hue for hue in usual]


EXPECTED = ("lstm-before", "lstm-after")
"""Lanes whose absence the page explains."""

COMPOSED = ("lookup+shared-after+lookup", "lstm-after|lookup")
"""Lanes of several drafters that ship: the fastest that holds a network, and a tree."""

STOP = "■ Stop"
PRIVACY = (
    "Nothing you paste is stored: it is kept in memory while a race runs, or its plots are drawn, "
    "and then forgotten. Your browser keeps your races in this tab until you close it. "
    "No cookies of ours, no analytics, no request to anyone else."
)


NO_MEMORY = (
    "The memory of this machine was not enough for that. Try a shorter article, fewer lanes or a "
    "shorter summary."
)
BROKE_OFF = "That ended before it was done, for a reason that only the operator's log tells."


def runs_on(about: Mapping[str, str]) -> str:
    """The line at the foot of the page, of versions by name, and the "hardware"."""
    names = {"fastllm": "FastLLM", "python": "Python", "torch": "PyTorch", "gradio": "Gradio"}
    parts = [f"{names.get(name, name)} {value}" for name, value in about.items() if name in names]
    return " · ".join([*parts, about["hardware"]])


def title_of(key: str) -> str:
    """What the page calls a lane."""
    if len(parts_of(key)) > 1:
        sign, between = (SIGN, " | ") if SIGN in key else (JOINT, " + ")
        return between.join(
            "lookup" if part == "lookup" else title_of(part) for part in key.split(sign)
        )
    if key.endswith(YOURS) and key not in lanes():
        copied = key.removesuffix(YOURS)  # what ships goes by its family, else by its title
        shipped = f"{copied}-before"
        return f"your freshly trained {family_of(shipped) if shipped in lanes() else copied}"
    return lanes().get(key, key)


def parts_of(key: str) -> list[str]:
    """The drafters that a lane is made of: itself, or those of a composition.

    The title of somebody's own drafter may hold a sign and is none.
    """
    parts = key.replace(SIGN, JOINT).split(JOINT)
    return parts if lanes().keys() >= {*parts} else [key]


def choice_of(key: str) -> str:
    """A lane's title in the list of lanes, where there is little room."""
    return title_of(key).replace(" distillation", "").removesuffix(" (no training)")


def family_of(key: str) -> str:
    """What the page calls a pair: "lstm-after" -> "LSTM"."""
    return choice_of(key).removesuffix(" before").removesuffix(" after")


def not_offered(key: str, reason: str) -> str:
    """Why a lane cannot be chosen."""
    return f"Not offered: {title_of(key)} ({reason})."


def because(reason: str) -> str:
    """Why the lanes before it cannot be chosen."""
    return f"Not offered: {reason}."


NO_CHECKPOINT = "its checkpoint is not in assets/checkpoints"
OTHER_TARGET = "it was distilled for the shipped target, and this page runs another"


def unknown_lane(key: str, offered: Sequence[str]) -> str:
    """A lane that this page does not have."""
    return f"There is no lane {echoed(key, QUOTED)} here. Choose from {', '.join(offered)}."


def no_list(name: str, value: object, known: Sequence[str] = ()) -> str:
    """Something that is no list."""
    of = f" of {', '.join(known)}" if known else " of texts"
    return f"{name}={echoed(value, QUOTED)}: give a list{of}."


QUOTED = 63
"""Characters of what was sent that a message repeats, the dots behind them included."""

UPLOAD_BROWSER = {
    "unreadable": "This file cannot be read as text. Save it as UTF-8, or paste the words.",
    "large": "The file is larger than {} bytes, the most that this page takes. Shorten it.",
}
"""What `static/upload.js` says."""


YOURS = "-yours"
"""Ends the key of a lane that was trained in view."""


def size_of(key: str, target: str) -> str:
    """The size of a lane's model, from its card: "9.4 M"; empty where no card says it.

    `target` is what the engine calls its target: the shipped one, a folder, or a model of the Hub.
    """
    parts = parts_of(key)
    if len(parts) > 1:
        return " + ".join(size_of(part, target) for part in parts if part not in untrained())
    if key in untrained():
        return "no weights"
    card = read_card(target if key == ALONE else key)
    entries = sum(card.get("entries") or [])
    count = entries or card.get("parameters") or 0
    size = f"{count / 1e6:.1f} M" if count < 1e9 else f"{count / 1e9:.1f} billion"
    return f"{size} entries" if entries else size if count else ""
