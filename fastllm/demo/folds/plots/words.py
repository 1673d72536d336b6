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
        "chance; a measured bar above it means that hits came in runs, below it "
        "that they were spread out.",
    ),
}
"""Name of a plot -> its title, and how to read it."""
