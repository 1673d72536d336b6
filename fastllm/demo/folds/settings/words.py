"""What the settings say."""

from fastllm.decoding import verification

FOLD = "Settings"
GAMMA = ("Draft length (gamma)", "The most tokens that are guessed before each check.")
TEMPERATURE = ("Temperature", "0 always takes the likeliest word: all lanes then write one text.")
TOP_P = ("Top-p", "Keep only the likeliest words that together have this probability.")
SEED = ("Seed", "The same seed draws the same numbers again.")
LENGTH = ("Longest summary (tokens)", "The text also ends where the target ends it.")
RULE = (
    "How guesses are checked",
    "All but the last keep the target's own probabilities. When greedy they come to the same.",
)
RULES: dict[str, str] = {
    "auto": "automatic: block when sampling",
    # Rollback has a threshold, for which this page has no setting.
    **{name: rule.label for name, rule in verification.RULES.items() if name != "rollback"},
}
LENIENCE = (
    "Lenience (LOSSY)",
    "1 is exact; less accepts more guesses that the target would refuse. Needs a temperature "
    "above 0.",
)
