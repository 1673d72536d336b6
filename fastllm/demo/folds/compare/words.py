"""What the comparison says."""

from collections.abc import Mapping, Sequence

from fastllm.demo.folds.race.words import same_text

UPLOAD = "Open a file: .jsonl or .txt"
TITLE = "Compare on more articles"
INTRO = (
    "One race is one article. Here the lanes and settings chosen above run over several articles, "
    "and a table grows with each. At the end it says what distillation saved each drafter, and how "
    "sure that is. The target alone always runs too: the others are measured against it."
)
ARTICLES = "Articles"
SAMPLES = "the {} samples"
FROM_FILE = "a file of mine"
GO = "▶ Compare"
NO_DRAFTER = "Choose at least one lane with a drafter: there is nothing to compare otherwise."


def file_rule(articles: int, kilobytes: int) -> str:
    """What a file may hold."""
    return (
        'A .txt is one article. A .jsonl has a JSON object per line, its text under "article": up '
        f"to {articles} articles, {kilobytes:,} KB. It is kept in memory only, and then forgotten."
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
    """Articles that were cut after so many seconds each, and are in none of the numbers."""
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
    """What was found when the lanes' tokens were compared on every article, as of `same_text`.

    `differing` says of the title of a lane on how many it wrote another text than the target alone.
    """
    if lossy or not greedy:
        return same_text(greedy, True, None, lossy=lossy)
    if differing:
        found = ", ".join(f"{title} on {count}" for title, count in differing.items())
        return "differ", (
            f"Of {articles} texts per lane, some are not the target's own: {found}. When greedy "
            "they should be: two words were equally likely up to rounding, or this is a fault."
        )
    on = "the article" if articles == 1 else f"all {articles} articles"
    return "same", f"Same text in all lanes on {on} (checked)."


def distilled(family: str, ratio: float, sure: int, fewer: int, articles: int) -> str:
    """By how much a pair's target calls changed: fewer there were on `fewer` of the articles.

    `ratio` is target calls per token, after over before. `sure` is -1 where its whole interval lies
    below 1, 1 where above, 0 where it holds 1 or there is none.
    """
    change = 100 * (ratio - 1)
    direction = "fewer" if change < 0 else "more"
    on = f"It needed fewer on {fewer} of {articles} article{'s' if articles != 1 else ''}."
    if round(abs(change)) == 0:
        return f"{family}: as many target calls after distillation as before. {on}"
    said = f"{family}: {abs(change):.0f} % {direction} target calls after distillation. {on}"
    return said if sure else f"{said} That can be chance: more articles would tell."


BROWSER = {
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
    "tau": "tokens per call",
    "accepted": "guesses accepted",
    "alpha": "alpha",
    "seconds": "seconds",
    "speed_up": "speed-up",
    "times": "{}×",
    "lanes_note": (
        "Means over the articles. Tokens per call is tau. Alpha is the chance that a guess is "
        "accepted, asked at every place of the target's own text, with the settings of the page. "
        "Seconds count the encoding; the speed-up is against the target alone, in this run."
    ),
    "intervals_note": "In brackets: 95 % bootstrap intervals over the articles.",
    "pairs": "After distillation against before, on the same articles",
    "family": "drafter",
    "ratio": "target calls, ratio",
    "tau_change": "tokens per call, change",
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
