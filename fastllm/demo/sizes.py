"""How large the models of the lanes are, in words, from their cards: no weights are read."""

from fastllm import checkpoints
from fastllm.demo.words import ALONE

NO_WEIGHTS = "no weights"


def size_of(key: str, target: str) -> str:
    """The size of a lane's model: "9.4 M"; empty where no card says it.

    Args:
        key: of the lane.
        target: what the engine calls its target: the shipped one, a folder, or a model of the Hub.
    """
    if key == "lookup":
        return NO_WEIGHTS
    card = checkpoints.read_card(target if key == ALONE else key)
    if card.get("entries"):
        return f"{millions(sum(card['entries']))} entries"
    return millions(card["parameters"]) if card.get("parameters") else ""


def millions(count: int) -> str:
    """A count of weights, short.

    Example:
        >>> millions(9_443_072)
        '9.4 M'
    """
    return f"{count / 1e6:.1f} M" if count < 1e9 else f"{count / 1e9:.1f} billion"
