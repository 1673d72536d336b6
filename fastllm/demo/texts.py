"""Every sentence of the interface, so that the page speaks with one voice.

What depends on numbers is a function; what the browser says is in `BROWSER`, which is handed to
`assets/lanes.js` as a constant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

TITLE = "FastLLM"
CLAIM = "A small model guesses, a large one checks. Same words, fewer calls."

ALONE = "alone"
"""The key of the lane without a drafter."""

LANES = {
    ALONE: "target alone",
    "lstm-before": "LSTM before distillation",
    "lstm-after": "LSTM after distillation",
    "t5-before": "T5 (tiny) before distillation",
    "t5-after": "T5 (tiny) after distillation",
    "cnn-before": "CNN before distillation",
    "cnn-after": "CNN after distillation",
    "lookup": "article lookup (no training)",
    "ngram-before": "n-gram before distillation",
    "ngram-after": "n-gram after distillation",
}
"""Key -> title, in the order of the page. Checkpoints that ship under other names follow."""

EXPECTED = ("lstm-before", "lstm-after")
"""Lanes whose absence the page explains."""

ARTICLE = "Article"
OWN_ARTICLE = "Paste your own"
ARTICLE_FOLD = "Read or change the article"
ARTICLE_PLACEHOLDER = "Paste an English news article of 30 words or more."
LANES_LABEL = "Lanes of the race"
GO = "▶ Race it live"
STOP = "■ Stop"
SETTINGS = "Settings"
PRIVACY = (
    "Nothing you paste is stored: it is kept in memory while the race runs and then forgotten. "
    "No cookies of ours, no analytics, no request to anyone else."
)

GAMMA = ("Draft length (gamma)", "The most word pieces that are guessed before each check.")
TEMPERATURE = ("Temperature", "0 always takes the likeliest word: all lanes then write one text.")
TOP_P = ("Top-p", "Keep only the likeliest words that together have this probability.")
SEED = ("Seed", "The same seed draws the same numbers again.")
LENGTH = ("Longest summary (tokens)", "The text also ends where the target ends it.")

BROWSER = {
    "recorded": "RECORDED",
    "live": "LIVE",
    "on": "on",
    "waiting": "WAITING",
    "waiting_for": "Waiting for the device. The first race may take a moment longer.",
    "slowed": "slowed {}×",
    "sped": "sped up {}×",
    "real": "real speed",
    "writing": "as it happens",
    "stopped": "Stopped. What was written stays, and can be replayed.",
    "failed": "The race did not start: see the message.",
    "headline": "Target calls",
    "headline_note": "fewer is better",
    "calls": "{} target calls",
    "seconds": "{} s",
    "speed_up": "{}× as fast",
    "slower": "{}× the time",
    "per_call": "{} tokens a call",
    "lanes": "Lanes",
    "summary_of": "Summary written by {}",
    "wrong": "Written by a model, in a news ticker's style: it may be wrong about the article.",
    "legend": "How to read the words",
    "accepted": "guessed, accepted",
    "refused": "guessed, refused",
    "correction": "the target's fix",
    "bonus": "extra word from the target",
    "plain": "written by the target",
    "dropped": "guessed behind a refused word, never judged",
    "end": "end of the text",
    "play": "Play",
    "pause": "Pause",
    "replay": "Replay",
    "position": "Position in the race",
    "position_value": "{} of {} seconds",
    "speed": "Speed",
    "nothing": "No race was recorded yet. Press the button to see one live.",
    "first": "fewest calls",
    "alone_calls": "one call a token",
    "acceptance": "{} of {} guesses accepted",
    "same": "same",
    "expand": "show or hide the refused word",
    "keys": "Space plays, arrows step call by call, Home and End jump.",
    "cut": "Long article: the target reads the first {} %, up to here:",
    "target_says": "target",
    "drafter_says": "drafter",
    "instead": "the target's first choices",
    "guesses": "the drafter's first choices",
    "nothing_kept": "No probabilities were kept for this word.",
}


@dataclass(frozen=True)
class Result:
    """What the verdict needs to know of a lane."""

    key: str
    title: str
    calls: int
    tokens: int
    drafted: int
    accepted: int
    seconds: float


def title_of(key: str) -> str:
    """What the page calls a lane."""
    return LANES.get(key, key)


def sample_title(name: str) -> str:
    """A sample's file name as a title: "council-footbridge" -> "Council footbridge"."""
    return name.replace("-", " ").capitalize()


def not_offered(key: str, reason: str) -> str:
    """Why a lane cannot be chosen."""
    return f"Not offered: {title_of(key)} ({reason})."


def verdict(results: Sequence[Result]) -> str:
    """Who won and why, in a sentence or two. The fewest target calls win."""
    alone = next((entry for entry in results if entry.key == ALONE), None)
    drafting = [entry for entry in results if entry.key != ALONE]
    if not drafting:
        return "Nobody guessed: the target wrote every word itself, one call for each."
    fewest = min(entry.calls for entry in drafting)
    if alone and fewest >= alone.calls:
        return f"No drafter saved a call this time: the target alone needed {alone.calls}."
    best = [entry for entry in drafting if entry.calls == fewest]
    names = " and ".join(_capital(entry.title) for entry in best)
    said = f"{names} won: {fewest} target calls"
    if alone:
        said += f" instead of {alone.calls}"
    why = f"because {_share(best[0])} of its guesses were accepted"
    if len(best) > 1:
        why = f"a tie, with {' and '.join(_share(entry) for entry in best)} of guesses accepted"
    others = [f"{entry.title}: {_share(entry)}" for entry in drafting if entry not in best]
    said += f", {why}" + (f" ({', '.join(others)})." if others else ".")
    fastest = min(results, key=lambda entry: entry.seconds)
    if fastest not in best:
        said += (
            f" In seconds {fastest.title} was first on this machine: guessing takes time as well."
        )
    return said


def same_text(greedy: bool, finished: bool, differ_at: int | None) -> tuple[str, str]:
    """What was found when the lanes' tokens were compared: a state, and a sentence.

    Args:
        greedy: temperature 0.
        finished: every lane came to its end.
        differ_at: the first token, counted from 1, at which two lanes differ; None if none do.
    """
    if not greedy:
        return "sampled", (
            "Sampling: each lane draws its own words, so the texts differ, but every lane follows "
            "the target's own probabilities."
        )
    if differ_at is not None:
        return "differ", (
            f"The texts differ from token {differ_at} on. When greedy they should not: two words "
            "were equally likely up to rounding, or this is a fault."
        )
    if not finished:
        return "unfinished", "Same text in all lanes as far as they came (checked)."
    return "same", "Same text in all lanes (checked)."


def ended_early(seconds: int) -> str:
    """A race that met its deadline."""
    return f"Ended after {seconds} seconds, the limit of this page."


NO_CHECKPOINT = "its checkpoint is not in assets/checkpoints"
OTHER_TARGET = "it was distilled for the shipped target, and this page runs another"

# Articles that are refused, or raced with a warning.

EMPTY = "There is no article. Pick a sample, or paste one."
BINARY = (
    "This does not look like text: it holds characters that no article has. Paste the words "
    "themselves, not a file."
)
NOT_ENGLISH = (
    "This does not look like English. The models have read English news only, so expect nonsense."
)
NO_LANES = "Choose at least two lanes: a race needs somebody to race against."
BUSY = "Too many races are waiting. Try again in a minute."


def too_short(words: int, needed: int) -> str:
    """An article of too few words."""
    return f"The article has {words} words. Paste at least {needed}: there is nothing to shorten."


def too_long(characters: int, limit: int) -> str:
    """An article of too many characters."""
    return f"The article has {characters:,} characters; this page takes {limit:,}. Shorten it."


def cleaned(count: int) -> str:
    """Control characters were taken out."""
    return f"{count} invisible control character{'s were' if count > 1 else ' was'} left out."


def too_many_lanes(limit: int) -> str:
    """More lanes than the page races."""
    return f"Choose at most {limit} lanes."


def unknown_lane(key: str, offered: Sequence[str]) -> str:
    """A lane that this page does not have."""
    return f"There is no lane {key!r} here. Choose from {', '.join(offered)}."


def _share(entry: Result) -> str:
    return f"{100 * entry.accepted / entry.drafted:.0f} %" if entry.drafted else "none"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
