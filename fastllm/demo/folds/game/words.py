"""What the guessing game says."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastllm.demo.words import title_of
from fastllm.words import capital

TITLE = "You be the drafter"
YOU = "You"
ARTICLE = "Article"
RACED = "The article of the tab Race"
TEXT = "The article’s text"
FIELD = "Type the next words"
PLACEHOLDER = "one word or several, then Enter"
CHECK = "Check"
SKIP = "Skip: the target writes a word"
REST = "Give up: it writes the rest"
AGAIN = "Start over"
TURNS = "turns of this game"
END = "∎ (the end)"
"""The end token among a drafter's guesses."""

NO_GUESS = "Type a word first, or skip: then the target writes one."
BINARY = "Your guess holds characters that no text has. Type the words themselves."
NO_GAME = "This game cannot be continued. Press “Start over”."
IS_OVER = "This summary is complete. Press “Start over” for a new one."
CHANGED = (
    "The settings were changed, and with them the target would write another text. Press “Start "
    "over”, or set them back."
)
NO_WORDS = "The words of a guess have to be text."
NO_DRAFTER = "There is no drafter on this page that could guess for you."
LET_GUESS = "Let {} guess"
TOO_LONG = "A guess of {:,} characters; this page takes {}. Type fewer words."
TOO_MANY = "A guess of {} tokens; one call checks up to {} here. Type fewer words."
CUT = "The target reads the first {} % of this article, and sums up those."


def intro(rivals: Sequence[str]) -> str:
    """What the game is, before it begins."""
    named = " and ".join(title_of(key) for key in rivals)
    asked = "is" if len(rivals) == 1 else "are"
    beaten = "it" if len(rivals) == 1 else "them"
    against = f" {named} {asked} asked at the same places: can you beat {beaten}?" if rivals else ""
    return (
        "The target sums up this article; you guess its next words. It checks all that you typed "
        "in one call: what it would have written too stands, the first word that it would not "
        f"falls, and it writes its own there. Its style is part of what you guess.{against}"
    )


def sentence(kind: str, drafter: str, judged: Sequence[Mapping[str, Any]], written: str) -> str:
    """What came of a turn, in which a drafter may have guessed for the visitor.

    `judged` are the guessed words: "t" the word, "s" its state, "p" the target's probability.
    `written` are the words that the target wrote itself.
    """
    if kind == "skip":
        return f"The target wrote “{written}”." if written else "The target ended the text."
    if kind == "rest":
        return "The target wrote the rest alone."
    states = [word["s"] for word in judged]
    who = f"{capital(drafter)}: " if kind == "drafter" else ""
    stood = states.count("accepted") + states.count("begun")
    wrote = f"wrote “{written}”" if written else "ended the text"
    if "refused" in states and "begun" not in states:
        refused = judged[states.index("refused")]
        stands = f"{stood} of {len(judged)} words stand{'s' if stood == 1 else ''}. "
        falls = f"“{refused['t']}” falls: the target gave it {_percent(refused['p'])} and {wrote}."
        return f"{who}{stands if stood else ''}{falls}"
    if "begun" in states:
        begun = judged[states.index("begun")]
        return f"{who}“{begun['t']}” stands, but the target goes on: it {wrote}."
    if stood < len(judged) or not judged:
        return f"{who}there was room for no more; the target {wrote}."
    stands = "the guess stands" if stood == 1 else f"all {stood} words stand"
    more = f", and in the same call the target {wrote}" if written else ""
    return f"{who}{stands}{more}." if who else f"{capital(stands)}{more}."


def closing(
    tokens: int, calls: int, you: tuple[int, int], rivals: Mapping[str, tuple[int, int]]
) -> list[str]:
    """The sentences at the end of a game; the first says who knew the target better.

    `you` and each of `rivals` are how many guesses stood, and how many there were, in tokens.
    """
    saved = f"The summary is complete: {tokens} tokens in {calls} calls of the target"
    saved += f", instead of {tokens}." if calls < tokens else "."
    if not you[1]:
        return ["This time you let the others write.", saved]
    rates = {key: accepted / drafted for key, (accepted, drafted) in rivals.items() if drafted}
    mine = you[0] / you[1]
    said = f"You {100 * mine:.0f} %"
    said += "".join(f", {title_of(key)} {100 * rate:.0f} %" for key, rate in rates.items())
    said += " of guesses accepted."
    if not rates:
        return [said, saved]
    best = max(rates, key=rates.__getitem__)
    if mine > rates[best]:
        verdict = f"You are better aligned with this target than {title_of(best)}."
    elif mine == rates[best]:
        verdict = f"A tie: you and {title_of(best)} know this target equally well."
    else:
        verdict = "You know the news; the drafter knows this target."
    return [verdict, said, saved]


BROWSER = {
    "so_far": "The summary so far",
    "nothing": "Nothing yet. How would a news agency begin?",
    "next": "your turn",
    "checking": "The target is reading …",
    "failed": "That did not go: see the message. Your words are still there.",
    "stopping": "Stopping …",
    "stopped": "Stopped.",
    "yours": "Your guess, word by word",
    "theirs": "The guess of {}, word by word",
    "accepted": "stands",
    "refused": "falls",
    "begun": "stands, as the beginning of a longer word",
    "dropped": "not judged: a word before it fell",
    "instead": "the target's own word",
    "bonus": "a word more, from the same call",
    "best": "The target's first choices at that place",
    "pieces": "Tokens, as it writes them; ▸ is the one that it wrote.",
    "score": "Guesses accepted",
    "share": "{} of {} tokens",
    "per_call": "{} tokens per call",
    "none": "not asked yet",
    "words": "Whole words: {} of {} stood.",
    "note": (
        "Guesses are counted in tokens (pieces of words), as everywhere on this page, and only at "
        "the places where you guessed: there the drafters are asked for as many tokens."
    ),
    "over": "The end",
}
"""What `folds/game/guess.js` says."""


def _percent(p: float) -> str:
    """A probability in words."""
    if 0 < p < 0.01:
        return "less than 1 %"
    return "more than 99 %" if 0.995 < p < 1 else f"{100 * p:.0f} %"
