"""What the choice of article and lanes says."""

ARTICLE = "Article"
ARTICLE_FOLD = "Read or change the article"
ARTICLE_PLACEHOLDER = "Paste English news, 30 words or more."
LANES_LABEL = "Lanes"
LANES_BUTTON = "Lanes …"
GO = "▶ Race it live"
UPLOAD = "or open a text file"
LOOKUP = (
    "Article lookup copies what followed the same words in the article. Nothing was trained for "
    "it; it wins where the summary quotes the article, and saves nothing elsewhere. “A + B”: B "
    "goes on where A stops. “A | B”: both guesses are branches of one tree, checked in one call."
)
PRUNED = "The pruned target is a small part cut out of it: untrained, and distilled (“after”)."


def how_many_lanes(most: int) -> str:
    """Why a race cannot begin with so few or so many lanes."""
    return f"A race takes 2 to {most} lanes: change the choice of lanes, then race."
