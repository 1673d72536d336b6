"""Every sentence of the interface, so that the page speaks with one voice.

What depends on numbers is a function; what the browser says is in `BROWSER`, which is handed to
the scripts in `assets` as a constant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TITLE = "FastLLM"
CLAIM = "A small model guesses, a large one checks. Same words, fewer calls."

ALONE = "alone"
"""The key of the lane without a drafter."""

LANES = {
    ALONE: "target alone",
    "lookup": "article lookup (no training)",
    "lstm-before": "LSTM before distillation",
    "lstm-after": "LSTM after distillation",
    "t5-before": "T5 (tiny) before distillation",
    "t5-after": "T5 (tiny) after distillation",
    "cnn-before": "CNN before distillation",
    "cnn-after": "CNN after distillation",
    "shared-before": "shared encoder before distillation",
    "shared-after": "shared encoder after distillation",
    "ngram-before": "n-gram before distillation",
    "ngram-after": "n-gram after distillation",
}
"""Key -> title, in the order of the page: pairs side by side. Checkpoints that ship under other
names follow."""

LOOKUP_FIRST = "lookup+"
"""Before a drafter's key: the article lookup is asked first."""

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
PLOTS = "Plots"
TRAINED = "How these were trained"
PRIVACY = (
    "Nothing you paste is stored: it is kept in memory while a race runs, or its plots are drawn, "
    "and then forgotten. "
    "No cookies of ours, no analytics, no request to anyone else."
)



def runs_on(about: Mapping[str, str]) -> str:
    """The line at the foot of the page.

    Args:
        about: versions by name, and the "hardware".
    """
    names = {"fastllm": "FastLLM", "python": "Python", "torch": "PyTorch", "gradio": "Gradio"}
    parts = [f"{names.get(name, name)} {value}" for name, value in about.items() if name in names]
    return " · ".join([*parts, about["hardware"]])


GAMMA = ("Draft length (gamma)", "The most word pieces that are guessed before each check.")
TEMPERATURE = ("Temperature", "0 always takes the likeliest word: all lanes then write one text.")
TOP_P = ("Top-p", "Keep only the likeliest words that together have this probability.")
SEED = ("Seed", "The same seed draws the same numbers again.")
LENGTH = ("Longest summary (tokens)", "The text also ends where the target ends it.")
RULE = (
    "How guesses are checked",
    "All but the last keep the target's own probabilities. When greedy they come to the same.",
)
RULES = {
    "auto": "automatic: block when sampling",
    "token": "token by token",
    "block": "block: the longest stretch that passes",
    "lenient": "lenient: LOSSY, not the target's own text any more",
}
LENIENCE = (
    "Lenience (LOSSY)",
    "1 is exact; less accepts more guesses that the target would refuse. Needs a temperature "
    "above 0.",
)

MORE_PLOTS = "More plots"
PLOT_TEXTS = {
    "clock": (
        "Tokens against seconds",
        "Left and steep is better: each step is a call of the target, as high as the tokens that "
        "it gave.",
    ),
    "reached": (
        "How deep into a draft acceptance reaches",
        "The line is the chance that a draft stands up to each position; the dotted one is alpha "
        "to the power of the position, as if every guess had the same chance: above it, hits come "
        "in runs.",
    ),
    "gains": (
        "Tokens a call",
        "How often a call of the target gave one token, two, and so on: the further right, the "
        "fewer calls.",
    ),
    "overlap": (
        "Overlap along the text",
        "1 where drafter and target agree, 0 where they do not: dips are the places where guesses "
        "fall.",
    ),
    "parts": (
        "Where the time goes",
        "A bar is a lane's whole clock: a drafter pays where what it saves of verifying is more "
        "than what its drafting costs.",
    ),
    "speed_up": (
        "Predicted against measured",
        "Predicted from alpha, gamma and the costs of this run, as if every guess had the same "
        "chance; a measured bar above it means that hits came in runs.",
    ),
}
"""Name of a plot -> its title, and how to read it."""

TRAINED_FACTS = {
    "method": "method",
    "loss": "loss",
    "texts": "texts it learned from",
    "articles": "articles",
    "updates": "updates",
    "batch": "articles an update",
    "rate": "learning rate",
    "start": "first weights",
    "seed": "seed",
    "order": "order",
    "smoothing": "smoothing",
    "parameters": "parameters",
    "seconds": "seconds of training",
    "written": "tokens the target wrote for it",
    "scored": "tokens the target scored for it",
    "alpha": "alpha on held-out articles",
    "tau": "tokens a call on held-out articles (greedy)",
    "name": "name",
    "architecture": "architecture",
    "data": "data",
    "status": "status",
    "limits": "limits",
}
"""What a card says -> how the page calls it."""

TRAINED_BROWSER = {
    "intro": (
        "The two of a pair have the same form, first weights, articles and number of updates. What "
        "differs is what they learn from: the data set's own summaries (before), or the target's "
        "texts and probabilities (after)."
    ),
    "tau": "Tokens a call of the target, on held-out articles while it learned",
    "alpha": "Alpha, the chance that a guess is accepted, on the same articles",
    "updates": "updates",
    "recipe": "Recipe and numbers",
    "target": "The target that all of them guess for",
}
"""What `assets/trained.js` says."""

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
    "alone_calls": "one call a token",
    "acceptance": "{} of {} guesses accepted",
    "expand": "show or hide the refused word",
    "keys": "Space plays, arrows step call by call, Home and End jump, R plays it again.",
    "cut": "Long article: the target reads the first {} %, up to here:",
    "instead": "The target's first choices",
    "guesses": "The drafter's first choices",
    "nothing_kept": "No probabilities were kept for this word.",
    "hint": "Point at a word, or tap it, to look inside.",
    "axis": "Replay by",
    "by_time": "by time",
    "by_call": "by call",
    "call_clock": "call {} of {}",
    "call_pace": "call by call",
    "position_calls": "call {} of {}",
    "lossy": "LOSSY",
    "title": TITLE,
    "claim": CLAIM,
    # Inside a word.
    "inside": "Inside {}",
    "more": "From call {}. Click or press Enter for all of it.",
    "close": "Close",
    "p_label": "target, p",
    "q_label": "drafter, q",
    "when_greedy": "{} when greedy",
    "as_set": "{} as set",
    "overlap": "overlap of both",
    "test_label": "its test",
    "test_passed": "passed: {} is below {}",
    "test_failed": "failed: {} is not below {}",
    "untested": "not tested",
    "why_plain": "Nobody guessed here: the target wrote it.",
    "why_correction": "The target's own word in the place of the refused guess.",
    "why_bonus": "Every guess stood, and the same call gave one word more.",
    "why_greedy": "The target's likeliest word too, so it stands.",
    "why_not_greedy": "Not the target's likeliest word, so it falls.",
    "why_token": "The number drawn for it is below min(1, p/q), so it stands.",
    "why_not_token": "The number drawn for it is not below min(1, p/q), so it falls.",
    "why_lenient": "Lenient: p was raised first, so this is LOSSY.",
    "why_block": "Block rule: the longest stretch whose last test passes stands.",
    "why_block_later": "Its own test failed, but a later one passed: the block rule keeps both.",
    "why_not_block": "Block rule: neither its own test passed nor any behind it.",
    # Inside a call.
    "call_of": "Call {} of {}: {}",
    "call_guesses": "{} guessed, {} accepted:",
    "call_plain": "Nothing was guessed.",
    "call_extra": "The target added",
    "call_ms": "Guessing {} ms, checking {} ms, the rest {} ms: {} ms together.",
    # Take home.
    "keep": "Take home",
    "take_replay": "Replay as one HTML file",
    "take_trace": "Trace as JSON",
    "take_note": "Made in this browser; nothing is sent. The file plays without a network.",
    "link": "Link to this moment",
    "copy_link": "Copy link to this moment",
    "copy_code": "Copy",
    "code": "The code that runs this again",
    "copied": "Copied.",
    "copy_by_hand": "Selected: press Ctrl+C or Cmd+C.",
    "link_own": "The article is your own and is not in the link.",
    "link_waiting": "This link shows another race than the one below. Press the button to run it.",
    "link_without": (
        "This link was made for an article that is not in it. Paste it, then press the button."
    ),
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
    if key.startswith(LOOKUP_FIRST):
        return f"lookup + {title_of(key.removeprefix(LOOKUP_FIRST))}"
    return LANES.get(key, key)


def choice_of(key: str) -> str:
    """A lane's title in the list of lanes, where there is little room."""
    return title_of(key).removesuffix(" distillation").removesuffix(" (no training)")


def family_of(key: str) -> str:
    """What the page calls a pair: "lstm-after" -> "LSTM"."""
    return choice_of(key).removesuffix(" before").removesuffix(" after")


def sample_title(name: str) -> str:
    """A sample's file name as a title: "council-footbridge" -> "Council footbridge"."""
    return name.replace("-", " ").capitalize()


def not_offered(key: str, reason: str) -> str:
    """Why a lane cannot be chosen."""
    return f"Not offered: {title_of(key)} ({reason})."


def because(reason: str) -> str:
    """Why the lanes before it cannot be chosen."""
    return f"Not offered: {reason}."


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


def same_text(
    greedy: bool, finished: bool, differ_at: int | None, *, lossy: bool = False
) -> tuple[str, str]:
    """What was found when the lanes' tokens were compared: a state, and a sentence.

    Args:
        greedy: temperature 0.
        finished: every lane came to its end.
        differ_at: the first token, counted from 1, at which two lanes differ; None if none do.
        lossy: guesses were let through that the target would have refused.
    """
    if lossy:
        return "lossy", (
            "LOSSY: lenient checking lets guesses through that the target would refuse. These are "
            "no longer the target's own texts, except where it wrote alone."
        )
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
NO_RACE = "There is no whole race to draw yet. Run one to its end, then open this again."
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
