"""What the plots say."""

TITLE = "Inside the race"
READINGS = {
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
        "Tokens per call",
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
        "chance. A measured bar above it means that hits came in runs, below it that they were "
        "spread out.",
    ),
}
"""Name of a plot -> its title, and how to read it."""


def one_number(fewer: float, faster: float, c: float, v: float, milliseconds: float) -> str:
    """Why so many times fewer calls are so many times faster, in the terms of `costs.Costs`."""
    speed = f"{faster:.1f} times faster" if faster >= 1 else f"{faster:.2f} times as fast"
    return (
        f"{fewer:.1f} times fewer calls, {speed}: a guess costs {c:.2f} of a call, a call that "
        f"checks guesses {v:.2f}, and reading the article takes {milliseconds:.0f} ms, which no "
        "guess can save."
    )


NO_UNIT = (
    "The target alone did not race: one of its calls is taken to cost as much as one that checks "
    "guesses."
)
BROWSER = {
    "number": "One number, explained",
    "none": "No drafter has come to its end yet. Run a race, then open this again.",
    "lane": "Lane",
    "alpha": "alpha: the chance that a guess is accepted",
    "gamma": "gamma: guesses per call",
    "cost": "c: the cost of a guess, in calls",
    "formula": "Decoding: E[τ] / (γ c + v), with E[τ] = (1 − α^(γ+1)) / (1 − α) tokens per call.",
    "predicted": "Predicted at gamma {}: {} times as fast. ",
    "best": "Best: gamma {}, {} times as fast.",
    "never": "No draft length pays at these costs: the target alone is faster.",
    "reset": "Back to this race",
    "curve": "Predicted speed-up over gamma: {}. This race measured {} at gamma {}",
    "axis": "gamma, guesses per call",
    "times": "{}×",
    "key_predicted": "predicted, reading counted in",
    "key_measured": "measured below, medians: {}",
    "key_race": "this race, measured: {}×",
    "alone_line": "target alone",
}
"""What `explain.js` says."""
