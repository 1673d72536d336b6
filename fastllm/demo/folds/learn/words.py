"""What the training in view says."""

from fastllm.demo.words import YOURS, family_of, title_of

TITLE = "Train one yourself, then race again"
GO = "▶ Train {} updates, then race"
NO_STUDENT = "this page has no drafter that can be trained here: an LSTM, a CNN or a T5"
PRACTISED = (
    "{} has practised on this very article. What it is worth on others is what the held-out alpha "
    "of its training says."
)
"""What is unequal in the race."""

NO_TIME = (
    "The target took all of the {} seconds to write the texts to learn from: on this machine it is "
    "too large for a short lesson. There is no race, for nothing was learned."
)


def yours_of(key: str) -> str:
    """The key of the copy of a drafter that was trained in view."""
    return key.removesuffix("-before").removesuffix("-after") + YOURS


def intro(key: str, updates: int, seconds: int, held_out: int) -> str:
    """What one will see, before it begins: a copy of the drafter `key` learns."""
    copied = f"the undistilled {family_of(key)}" if key.endswith("-before") else title_of(key)
    return (
        f"A copy of {copied} learns from the target for {updates} updates, {seconds} seconds at "
        "most, while you watch: half "
        "from texts that the target writes, half from its own, which the target corrects. They are "
        f"about your article and some of the samples; {held_out} other samples are held out, to "
        "show what it learned beyond those. Then it races on your article, in the tab Race. It is "
        "not kept."
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
    greedy = f"Greedy, that is {before[1]:.1f} tokens per call before and {after[1]:.1f} now"
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


BROWSER = {
    "before": "Nothing has been trained yet.",
    "waiting": "Waiting for the device: one piece of work has it at a time.",
    "writing": "First the target writes about each article: {} of {}.",
    "learning": "Learning. Alpha is the chance that a guess is accepted, here at temperature 1.",
    "raced": "Trained. The race is in the tab Race.",
    "taught": "The training is over.",
    "stopping": "Stopping …",
    "stopped": "Stopped: no race. The copy is gone, its curves stay.",
    "stopped_race": "Stopped during the race. The copy is gone, its curves stay.",
    "failed": "It did not come to its end: see the message.",
    "progress": "Updates done",
    "clock": "{} s",
    "counts": "{} updates · {} tokens learned from",
    "loss": "forward KL {} nats per token",
    "own": "This article",
    "own_note": "It learns from this one, and will race on it.",
    "own_other": "It learns from this one and {} others, and will race on it.",
    "held_out": "Held out: {} articles",
    "held_out_note": "It never learns from these: {}.",
    "from": "from {}",
    "curve": "{}: alpha {} at first, {} after {} updates",
    "curve_shipped": "; {} has {}",
    "axis": "{} updates",
    "yours": "yours",
}
"""What `folds/learn/learn.js` says."""
