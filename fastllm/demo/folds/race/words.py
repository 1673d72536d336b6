"""What the race says."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from fastllm.demo.words import ALONE, CLAIM, TITLE, choice_of
from fastllm.words import capital, together

OWN_ARTICLE = "Your article"
BROWSER = {
    "recorded": "RECORDED",
    "live": "LIVE",
    "on": "on",
    "waiting": "WAITING",
    "waiting_for": "Waiting for the device. The first race may take a moment longer.",
    "place": "Waiting for the device: number {} in the queue.",
    "expected": " About {} s.",
    "slowed": "slowed {}×",
    "sped": "sped up {}×",
    "real": "real speed",
    "writing": "as it happens",
    "stopping": "Stopping …",
    "stopped": "Stopped. What was written stays, and can be replayed.",
    "failed": "The race did not start: see the message.",
    "refused_start": "The race did not start. {}",
    "stale": "You changed the article, the lanes or a setting. This is still the race before that: "
    "press the button to run yours.",
    "nothing": "No race was recorded yet. Press the button to see one live.",
    "title": TITLE,
    "claim": CLAIM,
    # The tracks.
    "race": "Who needs the fewest calls of the large model?",
    "racing": "Each lane writes the summary. Whoever needs the fewest calls of the large model "
    "wins.",
    "unfinished": "This race did not come to its end, so nobody won.",
    "lanes": "Lanes",
    "story": "A block is one call of the large model, the target. It is as wide as the words that "
    "the call brought: fewer, wider blocks win. “× as fast” compares with the target alone.",
    "story_drawn": "A block is one call of the large model, the target, as wide as the words it "
    "brought. Drawn texts differ in length: the most tokens per call win, and speed is per token. "
    "“× as fast” compares with the target alone.",
    "places": ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th"],
    "calls": "calls",
    "seconds": "{} s",
    "speed_up": "{}× as fast",
    "slower": "{}× the time",
    "level": "as fast as alone",
    "lossy": "LOSSY",
    # The replay.
    "play": "Play",
    "pause": "Pause",
    "replay_slowly": "Replay slowly",
    "replay": "Replay",
    "position": "Position in the race",
    "position_value": "{} of {} seconds",
    "speed": "Length of the replay",
    "takes": "in {} s",
    "keys": "Space plays, arrows step call by call, Home and End jump, R plays it again.",
    "axis": "Replay by",
    "by_time": "by time",
    "by_call": "by call",
    "call_clock": "call {} of {}",
    "call_pace": "call by call",
    "position_calls": "call {} of {}",
    # The text.
    "summary": "The summary, the same in every lane",
    "summaries": "The summaries, one for each lane",
    "look_inside": "Words of the summary: arrows walk, Enter looks inside",
    "look_inside_of": "Words of {}: arrows walk, Enter looks inside",
    "copy_text": "Copy the text",
    "pieces": "show tokens",
    "legend": "How to read the strips under the words",
    "wrong": "Written by a small model: it may be wrong about the article.",
    "cut": "The target reads the first {} % of this article, up to here:",
    "accepted": "guessed, accepted",
    "refused": "guessed, refused",
    "correction": "the target's fix",
    "bonus": "extra word from the target",
    "plain": "written by the target",
    "dropped": "guessed after a refused word, dropped with it",
    "end": "end of the text",
    # One call, played slowly.
    "dock": "A closer look",
    "one_round": "One call, in slow motion",
    "no_round": "No lane of this race guesses, so each call brings one word.",
    "watch_round": "▶ Watch it again",
    "watch_call": "▶ Watch this call",
    "step_guess": "The drafter, {}, guesses {} tokens ahead: words or parts of words.",
    "branch": "or, after {} of them:",
    "step_read": "The large model reads all {} in one call.",
    "step_keep": "It keeps the {} that it would have written itself, up to the first it would not.",
    "step_all": "It would have written every one of them: all stand.",
    "step_fix": "In place of the wrong one it writes its own word: “{}”.",
    "step_extra": "The same call gives one token more: “{}”.",
    "step_no_own": "The text is as long as it may be, so it adds none.",
    "gained": "{} tokens for one call.",
    "gained_one": "{} token for one call.",
    # Inside a word.
    "inside": "Inside “{}”",
    "close": "Close",
    "pieces_of": "Tokens of the word",
    "not_written": "This lane did not come as far as this word.",
    "nothing_kept": "No probabilities were kept for this word.",
    "word": "word",
    "p_label": "target, p",
    "q_label": "drafter, q",
    "odds": "What both models gave each word here. Shaded: what they share. Hatched: what the "
    "target gives more.",
    "odds_unfiltered": "All at temperature 1 and without top-p; the test below has them as set.",
    "odds_p": "What the target gave each word here.",
    "others": "all others",
    "unknown": "–",
    "same_odds": "Chosen at the place of the refused guess: the numbers above are its own.",
    "overlap_sum": "Shared, the sum of min(p, q): {}. Left to the target, the sum of "
    "max(p − q, 0): {}.",
    "rule_token": "Stands if a drawn number is below min(1, p/q) = min(1, {} / {}) = {}.",
    "rule_other": "Stands if a drawn number is below {}.",
    "drawn_below": "Drawn: {}, which is below.",
    "drawn_above": "Drawn: {}, which is not.",
    "why_plain": "Nobody guessed here: the target wrote it.",
    "why_correction": "The target's likeliest word, in the place of the refused guess.",
    "why_correction_drawn": "Drawn from what the target gives more than the drafter, in the place "
    "of the refused guess.",
    "why_bonus": "Every guess stood, and the same call gave one word more.",
    "why_greedy": "The target's likeliest word too, so it stands. No number is drawn.",
    "why_not_greedy": "Not the target's likeliest word, so it falls. No number is drawn.",
    "why_token": "The number drawn for it is below min(1, p/q), so it stands.",
    "why_not_token": "The number drawn for it is not below min(1, p/q), so it falls.",
    "why_lenient": "Lenient: p was raised first, so this is LOSSY.",
    "why_block": "Block rule: the longest stretch whose last test passes stands.",
    "why_block_later": "Its own test failed, but a later one passed: the block rule keeps both.",
    "why_not_block": "Block rule: neither its own test passed nor any after it.",
    "call_of": "Its call, {} of {}",
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
    drafting: float  # of these seconds, its drafter's, the reading of the article included

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
    names = capital(together([entry.title for entry in best]))
    if as_long:
        said = f"{names} won: {best[0].calls} target calls"
        said += f" instead of {alone.calls}" if alone else ""
    else:
        said = f"{names} won: {float(most):.1f} tokens per target call"
        said += " instead of 1" if alone else ""
    if len(best) > 1:
        shares = together([_share(entry) for entry in best])
        said += f", a tie, with {shares} of guesses accepted"
    else:
        said += f", because {_share(best[0])} of its guesses were accepted"
        if any(entry.share > best[0].share for entry in others):
            said += " and it made more of them"
    also = ", ".join(f"{choice_of(entry.key)}: {_share(entry)}" for entry in others)
    return said + (f" ({also})." if also else ".") + _in_seconds(results, best)


def so_far(results: Sequence[Result]) -> str:
    """What can be said of a race that was cut off: nobody won, but somebody may have led."""
    said = "The race was cut off, so nobody won."
    most = max((entry.per_call for entry in results), default=Fraction(0))
    leading = [entry for entry in results if entry.per_call == most]
    if most <= 1 or len(leading) != 1:
        return said
    title = capital(leading[0].title)
    return f"{said} {title} led up to there: {float(most):.1f} tokens per target call."


def _in_seconds(results: Sequence[Result], best: Sequence[Result]) -> str:
    """The winner in seconds per token, if it is another one; texts may differ in length."""
    fastest, winner = (min(some, key=lambda entry: entry.pace) for some in (results, best))
    if fastest in best:
        return ""
    behind = winner.pace - fastest.pace
    if behind < LEVEL * winner.pace:
        return f" In seconds {choice_of(fastest.key)} was level with the winner."
    guessing = winner.drafting / winner.tokens - fastest.drafting / fastest.tokens
    if 2 * guessing >= behind:  # most of the difference
        return f" In seconds {choice_of(fastest.key)} was first here: guessing takes time as well."
    return (
        f" In seconds {choice_of(fastest.key)} was first this time, though not by guessing faster: "
        "the seconds of one race vary. Run it again."
    )


LEVEL = 0.1
"""Two lanes whose seconds differ by a smaller share are level: one lane's own seconds differ by as
much from race to race."""


def same_text(
    greedy: bool, finished: bool, differ_at: int | None, *, lossy: bool = False
) -> tuple[str, str]:
    """The result of comparing the tokens of all lanes: a state, and a sentence.

    `differ_at` is the first token, counted from 1, at which two lanes differ; None if none do.
    `lossy` says that guesses were let through that the target would have refused.
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


def _share(entry: Result) -> str:
    return f"{100 * entry.accepted / entry.drafted:.0f} %" if entry.drafted else "none"
