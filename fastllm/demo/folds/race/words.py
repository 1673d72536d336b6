"""What the race says."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from fastllm.demo.words import ALONE, CLAIM, TITLE, capital

ARTICLE = "Article"
OWN_ARTICLE = "Your article"
ARTICLE_FOLD = "Read or change the article"
ARTICLE_PLACEHOLDER = "Paste an English news article of 30 words or more."
LANES_LABEL = "Lanes of the race"
HOW_MANY_LANES = "A race takes 2 to {} lanes."
GO = "▶ Race it live"
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
    "headline_rate": "Tokens per target call",
    "headline_rate_note": "more is better; drawn texts differ in length, so calls do not compare",
    "seconds": "{} s",
    "speed_up": "{}× as fast",
    "slower": "{}× the time",
    "level": "as fast as alone",
    "per_token": "per token",
    "reading": "reading the article …",
    "per_call": "{} tokens per call",
    "lanes": "Lanes",
    "summary_of": "Summary written by {}",
    "wrong": "Written by a model, in a news ticker's style: it may be wrong about the article.",
    "legend": "How to read the words",
    "accepted": "guessed, accepted",
    "refused": "guessed, refused",
    "correction": "the target's fix",
    "bonus": "extra word from the target",
    "plain": "written by the target",
    "dropped": "guessed after a refused word, dropped with it",
    "end": "end of the text",
    "play": "Play",
    "pause": "Pause",
    "replay": "Replay",
    "position": "Position in the race",
    "position_value": "{} of {} seconds",
    "speed": "Speed",
    "nothing": "No race was recorded yet. Press the button to see one live.",
    "alone_calls": "one call per token",
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
    "why_not_block": "Block rule: neither its own test passed nor any after it.",
    # Inside a call.
    "call_of": "Call {} of {}: {}",
    "call_guesses": "{} guessed, {} accepted:",
    "call_plain": "Nothing was guessed.",
    "call_extra": "The target added",
    "call_ms": "Guessing {} ms, checking {} ms, the rest {} ms: {} ms together.",
}


@dataclass(frozen=True)
class Result:
    """The numbers of a lane that the verdict needs."""

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
        """Tokens per call of the target."""
        return Fraction(self.tokens, max(1, self.calls))

    @property
    def pace(self) -> float:
        """Seconds per token."""
        return self.seconds / max(1, self.tokens)

    @property
    def share(self) -> float:
        """Of the guesses, accepted."""
        return self.accepted / max(1, self.drafted)


def verdict(results: Sequence[Result]) -> str:
    """Who won and why, in a sentence or two.

    The lane with the most tokens per target call wins: for one same text, that is the fewest calls.
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
        return "No drafter saved a call this time: each got one token per call, as without one."
    best = [entry for entry in drafting if entry.per_call == most]
    others = [entry for entry in drafting if entry not in best]
    names = " and ".join(capital(entry.title) for entry in best)
    if as_long:
        said = f"{names} won: {best[0].calls} target calls"
        said += f" instead of {alone.calls}" if alone else ""
    else:
        said = f"{names} won: {float(most):.1f} tokens per target call"
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
    """The winner in seconds per token, if it is another one; texts may differ in length."""
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
    """The result of comparing the tokens of all lanes: a state, and a sentence.

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


ENDED_EARLY = "Ended after {} seconds, the limit of this page."
NO_RACE = "There is no whole race to draw yet. Run one to its end, then open this again."


UPLOAD = "or open a text file"


def _share(entry: Result) -> str:
    return f"{100 * entry.accepted / entry.drafted:.0f} %" if entry.drafted else "none"
