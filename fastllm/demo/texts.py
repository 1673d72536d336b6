"""Every sentence of the interface, so that the page speaks with one voice.

What depends on numbers is a function; what the browser says is in `BROWSER`, which is handed to
the scripts as a constant.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fastllm.decoding import verification
from fastllm.drafters import families

TITLE = "FastLLM"
CLAIM = "A small model guesses, a large one checks. Same words, fewer calls."
ROLES = (
    "The large one is the target, the small one a drafter. Distillation trains the drafter to "
    "guess what the target writes."
)
THUMBNAIL = "Three lanes have written the same summary, with fewer and fewer calls of the target."

ALONE = "alone"
"""The key of the lane without a drafter."""


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
    return found


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
    **{name: rule.label for name, rule in verification.RULES.items()},
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
        "chance; a measured bar above it means that hits came in runs, below it "
        "that they were spread out.",
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
    "entries": "entries of its table",
    "bytes": "bytes on disk",
    "seconds": "seconds of training",
    "written": "tokens the target wrote for it",
    "scored": "tokens the target scored for it",
    "alpha": "alpha on held-out articles (temperature 1)",
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
    "alpha": "Alpha at temperature 1, the chance that a guess is accepted, on the same articles",
    "updates": "updates",
    "recipe": "Recipe and numbers",
    "target": "The target that all of them guess for",
}
"""What `folds/trained/trained.js` says."""

BROWSER = {
    "recorded": "RECORDED",
    "live": "LIVE",
    "on": "on",
    "waiting": "WAITING",
    "waiting_for": "Waiting for the device. The first race may take a moment longer.",
    "place": "Waiting for the device: number {} in the queue.",
    "slowed": "slowed {}×",
    "sped": "sped up {}×",
    "real": "real speed",
    "writing": "as it happens",
    "stopping": "Stopping …",
    "stopped": "Stopped. What was written stays, and can be replayed.",
    "failed": "The race did not start: see the message.",
    "refused_start": "The race did not start. {}",
    "headline": "Target calls",
    "headline_note": "fewer is better",
    "headline_rate": "Tokens a target call",
    "headline_rate_note": "more is better; drawn texts differ in length, so calls do not compare",
    "seconds": "{} s",
    "speed_up": "{}× as fast",
    "slower": "{}× the time",
    "level": "as fast as alone",
    "per_token": "per token",
    "reading": "reading the article …",
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
    "dropped": "guessed behind a refused word, dropped with it",
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
    "cut": "The target reads the first {} % of this article, up to here:",
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
    drafting: float
    """Seconds of these that its drafter took, the reading of the article included."""

    @property
    def per_call(self) -> Fraction:
        """Tokens a call of the target."""
        return Fraction(self.tokens, max(1, self.calls))

    @property
    def pace(self) -> float:
        """Seconds a token."""
        return self.seconds / max(1, self.tokens)

    @property
    def share(self) -> float:
        """Of the guesses, accepted."""
        return self.accepted / max(1, self.drafted)


def title_of(key: str) -> str:
    """What the page calls a lane."""
    if key.startswith(LOOKUP_FIRST):
        return f"lookup + {title_of(key.removeprefix(LOOKUP_FIRST))}"
    if key.endswith(YOURS) and key not in lanes():
        return f"your freshly trained {_copied(key.removesuffix(YOURS))}"
    return lanes().get(key, key)


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
    """Who won and why, in a sentence or two.

    The most tokens a target call win: where all wrote the same text, that is the fewest calls.
    """
    alone = next((entry for entry in results if entry.key == ALONE), None)
    drafting = [entry for entry in results if entry.key != ALONE]
    if not drafting:
        return "Nobody guessed: the target wrote every word itself, one call for each."
    as_long = len({entry.tokens for entry in results}) == 1
    most = max(entry.per_call for entry in drafting)
    if alone and most <= alone.per_call:
        if as_long:
            return f"No drafter saved a call this time: the target alone needed {alone.calls}."
        return "No drafter saved a call this time: each got one token a call, as without one."
    best = [entry for entry in drafting if entry.per_call == most]
    others = [entry for entry in drafting if entry not in best]
    names = " and ".join(_capital(entry.title) for entry in best)
    if as_long:
        said = f"{names} won: {best[0].calls} target calls"
        said += f" instead of {alone.calls}" if alone else ""
    else:
        said = f"{names} won: {float(most):.1f} tokens a target call"
        said += " instead of 1" if alone else ""
    if len(best) > 1:
        said += f", a tie, with {' and '.join(_share(entry) for entry in best)} of guesses accepted"
    else:
        said += f", because {_share(best[0])} of its guesses were accepted"
        if any(entry.share > best[0].share for entry in others):
            said += " and it made more of them"
    also = ", ".join(f"{entry.title}: {_share(entry)}" for entry in others)
    return said + (f" ({also})." if also else ".") + _in_seconds(results, best)


def _in_seconds(results: Sequence[Result], best: Sequence[Result]) -> str:
    """What the clock says, where it names another winner; seconds a token, as texts may differ."""
    fastest, winner = (min(some, key=lambda entry: entry.pace) for some in (results, best))
    if fastest in best:
        return ""
    behind = winner.pace - fastest.pace
    if behind < LEVEL * winner.pace:
        return f" In seconds {fastest.title} was level with the winner."
    guessing = winner.drafting / winner.tokens - fastest.drafting / fastest.tokens
    if 2 * guessing >= behind:  # most of the difference
        return f" In seconds {fastest.title} was first here: guessing takes time as well."
    return (
        f" In seconds {fastest.title} was first this time, though not by guessing faster: the "
        "seconds of one race vary. Run it again."
    )


LEVEL = 0.1
"""Two lanes whose seconds differ by a smaller share are level: one lane's own seconds differ by as
much from race to race."""


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




def still_loading(what: str) -> str:
    """The models are not there yet."""
    return f"Not ready yet: {what}. A race that is begun now waits for it."


def no_race(reason: str) -> str:
    """The models could not be loaded."""
    return f"No race can be run live: {reason} The recorded one can be replayed."


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
    counted = "1 word" if words == 1 else f"{words} words"
    return f"The article has {counted}. Paste at least {needed}: there is nothing to shorten."


def too_long(characters: int, limit: int) -> str:
    """An article of too many characters."""
    return f"The article has {characters:,} characters; this page takes {limit:,}. Shorten it."


def cleaned(count: int) -> str:
    """Control characters were taken out."""
    return f"{count} invisible control character{'s were' if count > 1 else ' was'} left out."


def too_many_lanes(limit: int) -> str:
    """More lanes than the page races."""
    return f"Choose at most {limit} lanes."


def how_many_lanes(limit: int) -> str:
    """Why the race would be refused, told while lanes are chosen."""
    return f"A race takes 2 to {limit} lanes."


def unknown_lane(key: str, offered: Sequence[str]) -> str:
    """A lane that this page does not have."""
    return f"There is no lane {key!r} here. Choose from {', '.join(offered)}."


# What a program sends in the wrong form.


def no_number(name: str, value: object) -> str:
    """A setting that is no number."""
    return f"{name}={quoted(value)}: give a number."


def no_word(name: str, value: object, known: Iterable[str]) -> str:
    """A setting that is none of its words."""
    return f"{name}={quoted(value)}: give one of {', '.join(known)}."


def no_list(name: str, value: object, known: Sequence[str] = ()) -> str:
    """Something that is no list."""
    of = f" of {', '.join(known)}" if known else " of texts"
    return f"{name}={quoted(value)}: give a list{of}."


def quoted(value: object) -> str:
    """What was sent, as a program would write it; no more of it than fits a message."""
    text = repr(value)
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}..."


QUOTED = 60
"""Characters of what was sent that a message repeats."""

# Files, which are read in the browser and sent as they are.

UPLOAD = "or open a text file"
UPLOAD_SEVERAL = "Open a file: .jsonl or .txt"
NO_FILE = "There is no file yet. Open one, or take the samples."
BROKEN_FILE = "The file did not arrive. Try again, or paste the words."
NOT_UTF8 = "The file is not UTF-8 text. Save it as UTF-8, or paste the words."
UPLOAD_BROWSER = {"unreadable": "This file cannot be read. Try again, or paste the words."}
"""What `static/upload.js` says."""


def wrong_type(types: Sequence[str]) -> str:
    """A file of a type that is not read."""
    return f"This page reads plain text files ({', '.join(types)}). Paste the words instead."


def large_file(most: int) -> str:
    """A file of too many bytes."""
    return f"The file is larger than {most:,} bytes, the most that this page takes. Shorten it."


def bad_line(number: int, reason: str) -> str:
    """A line of a .jsonl file that is not taken."""
    return f"Line {number} of the file: {reason}"


NOT_JSON = (
    'this is not a JSON object. Each line needs one, such as {"article": "The council voted ..."}.'
)
NO_ARTICLE = 'there is no text under "article".'
NO_ARTICLES = "There is no article to compare on. Give at least one."


def bad_article(number: int, reason: str) -> str:
    """One of several articles that is not taken."""
    return f"Article {number}: {reason}"


def too_many_articles(found: int, limit: int) -> str:
    """More articles than are compared on."""
    return f"There are {found:,} articles; this page compares on up to {limit}. Leave some out."


def too_much_text(found: int, limit: int) -> str:
    """Articles that are too long together."""
    return f"The articles have {found:,} bytes together; this page takes {limit:,}. Shorten them."


# The comparison.

COMPARE = "Compare on more articles"
COMPARE_INTRO = (
    "One race is one article. Here the lanes and settings chosen above run over several articles, "
    "and a table grows with each. At the end it says what distillation saved each drafter, and how "
    "sure that is. The target alone always runs too: the others are measured against it."
)
COMPARE_ON = "Articles"
COMPARE_FILE = "a file of mine"
COMPARE_GO = "▶ Compare"
NO_DRAFTER = "Choose at least one lane with a drafter: there is nothing to compare otherwise."


def article_number(number: int) -> str:
    """What an article without a title is called."""
    return f"article {number}"


def sample_count(count: int) -> str:
    """The samples as a choice."""
    return f"the {count} samples"


def read_articles(count: int, words: int) -> str:
    """What a file was found to hold."""
    return f"{count} article{'s' if count != 1 else ''}, {words:,} words. Press the button."


def file_rule(articles: int, kilobytes: int) -> str:
    """What a file may hold."""
    return (
        'A .txt is one article. A .jsonl has a JSON object a line, its text under "article": up to '
        f"{articles} articles, {kilobytes:,} KB. It is kept in memory only, and then forgotten."
    )


def compared_early(seconds: int, done: int, asked: int) -> str:
    """A comparison that met its deadline."""
    if not done:
        return (
            f"Ended at a limit of this page, {seconds} seconds, before the first article was "
            "complete. Choose fewer lanes or a shorter summary."
        )
    return f"Ended at a limit of this page, {seconds} seconds: {done} of {asked} articles."


def left_out(seconds: int, titles: Sequence[str]) -> str:
    """Articles of a comparison that were cut, and are in none of its numbers.

    Args:
        seconds: after which each was cut.
        titles: of the articles.
    """
    was = "It was" if len(titles) == 1 else "Each was"
    after = f"{seconds} second{'s' if seconds != 1 else ''}"
    return (
        f"Left out of all numbers: {', '.join(titles)}. {was} cut after {after}, before every lane "
        "had come to its end."
    )


NONE_COMPARED = "No article was complete. Choose fewer lanes or a shorter summary."


def compared_texts(
    greedy: bool, lossy: bool, articles: int, differing: Mapping[str, int]
) -> tuple[str, str]:
    """What was found when the lanes' tokens were compared on every article.

    Args:
        greedy: temperature 0.
        lossy: guesses were let through that the target would have refused.
        articles: how many.
        differing: title of a lane -> on how many it wrote another text than the target alone.

    Returns:
        A state, as of `same_text`, and a sentence.
    """
    if lossy or not greedy:
        return same_text(greedy, True, None, lossy=lossy)
    if differing:
        found = ", ".join(f"{title} on {count}" for title, count in differing.items())
        return "differ", (
            f"Of {articles} texts a lane, some are not the target's own: {found}. When greedy they "
            "should be: two words were equally likely up to rounding, or this is a fault."
        )
    on = "the article" if articles == 1 else f"all {articles} articles"
    return "same", f"Same text in all lanes on {on} (checked)."


def distilled(family: str, ratio: float, sure: int, fewer: int, articles: int) -> str:
    """By how much a pair's target calls changed.

    Args:
        family: of the pair.
        ratio: target calls a token, after over before.
        sure: -1 where the whole interval lies below 1, 1 where above, 0 where it holds 1 or there
            is none.
        fewer: on how many articles there were fewer calls.
        articles: of how many.
    """
    change = 100 * (ratio - 1)
    direction = "fewer" if change < 0 else "more"
    on = f"It needed fewer on {fewer} of {articles} article{'s' if articles != 1 else ''}."
    if round(abs(change)) == 0:
        return f"{family}: as many target calls after distillation as before. {on}"
    said = f"{family}: {abs(change):.0f} % {direction} target calls after distillation. {on}"
    return said if sure else f"{said} That can be chance: more articles would tell."


COMPARE_BROWSER = {
    "before": (
        "Nothing has run yet. The samples take about as long as a few races, one after the other."
    ),
    "waiting": "Waiting for the device. Others race between two articles.",
    "running": "Article {} of {}: {}",
    "left": "about {} s left",
    "done": "Done: {} of {} articles on {}.",
    "stopping": "Stopping …",
    "stopped": "Stopped. {} of {} articles are complete; the table is about these.",
    "failed": "The comparison did not start: see the message.",
    "progress": "Articles done",
    "title": "Lanes, over {} articles",
    "title_one": "Lanes, on one article",
    "lane": "lane",
    "calls": "target calls",
    "tau": "tokens a call",
    "accepted": "guesses accepted",
    "alpha": "alpha",
    "seconds": "seconds",
    "speed_up": "speed-up",
    "times": "{}×",
    "lanes_note": (
        "Means over the articles. Tokens a call is tau. Alpha is the chance that a guess is "
        "accepted, asked at every place of the target's own text, with the settings of the page. "
        "Seconds count the encoding; the speed-up is against the target alone, in this run."
    ),
    "intervals_note": "In brackets: 95 % bootstrap intervals over the articles.",
    "pairs": "After distillation against before, on the same articles",
    "family": "drafter",
    "ratio": "target calls, ratio",
    "tau_change": "tokens a call, change",
    "accepted_change": "guesses accepted, change",
    "alpha_change": "alpha, change",
    "seconds_ratio": "seconds, ratio",
    "fewer": "fewer calls on",
    "fewer_of": "{} of {}",
    "pairs_note": "Paired by article. A ratio below 1 and a change above 0 are gains.",
    "no_pairs": "Choose both halves of a pair, before and after, to see what distillation changed.",
    "points": "{} points",
    "too_few": "An interval needs at least {} articles.",
    "few": (
        "Fewer than {} articles: the intervals are too narrow to be believed. Open a file of more."
    ),
    "each": "Target calls, article by article",
    "article": "article",
    "cut": "the target read only its beginning",
    "save_csv": "Each article as CSV",
    "save_json": "All numbers as JSON",
    "save_note": "Made in this browser. Numbers and titles only: no text of an article.",
    "lossy": "LOSSY",
}
"""What `folds/compare/compare.js` says."""


# You be the drafter.

GUESS = "You be the drafter"
GUESS_YOU = "You"
GUESS_ARTICLE = "The article"
GUESS_FIELD = "Type the next words"
GUESS_PLACEHOLDER = "one word or several, then Enter"
GUESS_CHECK = "Check"
GUESS_SKIP = "Skip: the target writes a word"
GUESS_REST = "Give up: it writes the rest"
GUESS_AGAIN = "Start over"
GUESS_TURNS = "turns of this game"
GUESS_END = "∎ (the end)"
"""The end token among a drafter's guesses."""

GUESS_EMPTY = "Type a word first, or skip: then the target writes one."
GUESS_BINARY = "Your guess holds characters that no text has. Type the words themselves."
GUESS_NO_GAME = "This game cannot be gone on with. Press “Start over”."
GUESS_IS_OVER = "This summary is complete. Press “Start over” for a new one."
GUESS_CHANGED = (
    "The settings were changed, and with them the target would write another text. Press “Start "
    "over”, or set them back."
)
GUESS_NO_DRAFTER = "There is no drafter on this page that could guess for you."


def guess_intro(rivals: Sequence[str]) -> str:
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


def guess_drafter(rivals: Sequence[str]) -> str:
    """The button that lets a drafter guess."""
    return f"Let {title_of(rivals[0])} guess" if rivals else ""


def guess_too_long(characters: int, most: int) -> str:
    """A guess of too many characters."""
    return f"A guess of {characters:,} characters; this page takes {most}. Type fewer words."


def guess_too_many(tokens: int, most: int) -> str:
    """A guess of too many tokens."""
    return (
        f"Your guess comes to {tokens} word pieces; one call checks up to {most} here. Type fewer "
        "words."
    )


def guess_cut(percent: int) -> str:
    """The target does not read the whole article."""
    return f"The target reads the first {percent} % of this article, and sums up those."


def guess_sentence(
    kind: str, drafter: str, judged: Sequence[Mapping[str, Any]], written: str
) -> str:
    """What came of a turn.

    Args:
        kind: of the turn.
        drafter: the title of the drafter that guesses for the visitor.
        judged: the guessed words: "t" the word, "s" its state, "p" the target's probability.
        written: the words that the target wrote itself.
    """
    if kind == "skip":
        return f"The target wrote “{written}”." if written else "The target ended the text."
    if kind == "rest":
        return "The target wrote the rest alone."
    states = [word["s"] for word in judged]
    who = f"{_capital(drafter)}: " if kind == "drafter" else ""
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
    return f"{who}{stands}{more}." if who else f"{_capital(stands)}{more}."


def guess_closing(
    tokens: int, calls: int, you: tuple[int, int], rivals: Mapping[str, tuple[int, int]]
) -> list[str]:
    """The sentences at the end of a game; the first says who knew the target better.

    Args:
        tokens: of the text.
        calls: of the target, for this text.
        you: how many guesses of the visitor stood, and how many there were, in tokens.
        rivals: likewise, drafter -> counts.
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


GUESS_BROWSER = {
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
    "dropped": "not judged, being behind a word that fell",
    "instead": "the target's own word",
    "bonus": "a word more, from the same call",
    "best": "The target's first choices at that place",
    "pieces": "Pieces of words, as it writes them; ▸ is the one that it wrote.",
    "score": "Guesses accepted",
    "share": "{} of {} pieces",
    "per_call": "{} tokens a call",
    "none": "not asked yet",
    "words": "Whole words: {} of {} stood.",
    "note": (
        "Guesses are counted in tokens (pieces of words), as everywhere on this page, and only at "
        "the places where you guessed: there the drafters are asked for as many tokens."
    ),
    "over": "The end",
}
"""What `folds/game/guess.js` says."""


# Train 30 s, race again.

YOURS = "-yours"
"""Ends the key of a lane that was trained in view."""

LEARN_NOBODY = "this page has no drafter that can be trained here: an LSTM, a CNN or a T5"


def yours_of(key: str) -> str:
    """The key of the copy of a drafter that was trained in view."""
    return key.removesuffix("-before").removesuffix("-after") + YOURS


def _copied(family: str) -> str:
    """What the copy of a drafter is called: of what ships by its family, else by its title."""
    return family_of(f"{family}-before") if f"{family}-before" in lanes() else family


def learn_fold(seconds: int) -> str:
    """The title of the fold."""
    return f"Train one yourself: {seconds} s, then race again"


def learn_go(seconds: int) -> str:
    """The button."""
    return f"▶ Train {seconds} s, then race"


def learn_intro(key: str, seconds: int, held_out: int) -> str:
    """What one will see, before it begins.

    Args:
        key: of the drafter that is copied.
        seconds: of the training.
        held_out: how many samples are held out.
    """
    copied = f"the undistilled {family_of(key)}" if key.endswith("-before") else title_of(key)
    return (
        f"A copy of {copied} learns from the target for {seconds} seconds, while you watch: half "
        "from texts that the target writes, half from its own, which the target corrects. They are "
        f"about your article and some of the samples; {held_out} other samples are held out, to "
        "show what it learned beyond those. Then it races on your article, above. Nothing of it is "
        "kept."
    )


def practised(title: str) -> str:
    """What is unequal in the race."""
    return (
        f"{_capital(title)} has practised on this very article. What it is worth on others is what "
        "the held-out alpha of its training says."
    )


def learned_own(before: float, after: float, shipped: str, theirs: float | None) -> str:
    """What came of it on the visitor's article: alpha before and after, and the shipped one's."""
    said = f"On this article alpha (at temperature 1) went from {before:.2f} to {after:.2f}"
    if theirs is not None:
        said += f"; {shipped} has {theirs:.2f}"
    if after - before < FLAT:
        return f"{said}. That was too little time to learn even this article."
    return f"{said}. It has practised on this very text: this is memory more than skill."


def learned_held_out(
    before: tuple[float, float],
    after: tuple[float, float],
    shipped: str,
    theirs: tuple[float, float] | None,
) -> str:
    """What came of it on articles it never saw: alpha and greedy tau, before and after."""
    there = f"; {shipped} has {theirs[0]:.2f} there" if theirs else ""
    greedy = f"Greedy, that is {before[1]:.1f} tokens a call before and {after[1]:.1f} now"
    greedy += f", against {theirs[1]:.1f}." if theirs else "."
    change = after[0] - before[0]
    if change >= FLAT:
        return (
            f"On the articles held out it went from {before[0]:.2f} to {after[0]:.2f}{there}: a "
            f"few articles teach it how sure this target tends to be. {greedy}"
        )
    if change <= -FLAT:
        return (
            f"On the articles held out it fell from {before[0]:.2f} to {after[0]:.2f}{there}: "
            f"it learned these articles at the cost of others. {greedy}"
        )
    return (
        f"On the articles held out it stayed flat, {before[0]:.2f} then and {after[0]:.2f} now"
        f"{there}: so short a training teaches it these articles, not news. {greedy}"
    )


FLAT = 0.02
"""A smaller change of alpha is called none."""


def no_time_to_learn(seconds: int) -> str:
    """The target took all the time."""
    return (
        f"The target took all of the {seconds} seconds to write the texts to learn from: on this "
        "machine it is too large for a short lesson. There is no race, for nothing was learned."
    )


LEARN_BROWSER = {
    "before": "Nothing has been trained yet.",
    "waiting": "Waiting for the device: one piece of work has it at a time.",
    "writing": "First the target writes about each article: {} of {}.",
    "learning": "Learning. Alpha is the chance that a guess is accepted, here at temperature 1.",
    "raced": "Trained. The race is above.",
    "taught": "The training is over.",
    "stopping": "Stopping …",
    "stopped": "Stopped: no race. The copy is gone, its curves stay.",
    "stopped_race": "Stopped during the race. The copy is gone, its curves stay.",
    "failed": "It did not come to its end: see the message.",
    "progress": "Seconds of the training",
    "clock": "{} s",
    "counts": "{} updates · {} tokens learned from",
    "loss": "forward KL {} nats a token",
    "own": "This article",
    "own_note": "It learns from this one, and will race on it.",
    "own_other": "It learns from this one and {} others, and will race on it.",
    "held_out": "Held out: {} articles",
    "held_out_note": "It never learns from these: {}.",
    "from": "from {}",
    "curve": "{}: alpha {} at first, {} after {} seconds",
    "curve_shipped": "; {} has {}",
    "axis": "{} s",
    "yours": "yours",
}
"""What `folds/learn/learn.js` says."""


def _percent(p: float) -> str:
    """A probability in words."""
    if 0 < p < 0.01:
        return "less than 1 %"
    return "more than 99 %" if 0.995 < p < 1 else f"{100 * p:.0f} %"


def _share(entry: Result) -> str:
    return f"{100 * entry.accepted / entry.drafted:.0f} %" if entry.drafted else "none"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
