"""Shortens sentences the way a news ticker does: the same facts, in fewer words.

A headline's grammar (Dorr, Zajic and Schwartz 2003, "Hedge Trimmer") by rules over words, without
a parser: articles go, weekdays lose their "on", "will" becomes "to", numbers become digits,
connectives at the beginning go, relative clauses lose "who was". A sentence with a quotation stays
word for word, and no rule changes who did what, or who said so.

A target trained on such texts cannot write them by copying: it must know, at every few words, what
the style leaves out. That is what a drafter can learn from it and from nobody else.
"""

import re

QUOTES = re.compile(r"[\"“”‘]|(?<!\w)'|''")
"""Marks that open or close a quotation; an apostrophe inside a word is none."""

_DAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_PRONOUN = (
    "I|you|he|she|it|we|they|who|which|that|there|this|these|those|what|and|but|or|as|his|her|its"
    "|their|my|your|our|free|good|own|a|the|if|when|where|while|because|so|than|not"
)
_KEPT = (  # behind an article: rates ("a mile"), and what means something else without it
    "few|lot|little|while|hour|day|week|month|year|mile|minute|second|night|time|head|share|barrel"
    "|tonne|ton|gallon|litre|pound|piece|quarter|third|half|couple|handful|bit|result|way|rest|same"
    "|other|others|latter|former|most|more"
)
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        "two three four five six seven eight nine ten eleven twelve".split(), start=2
    )
}
_CONNECTIVES = (
    "However|Meanwhile|But|And|So|Yet|Moreover|Furthermore|In addition|As a result|Still|Instead"
)
_OPENERS = (
    "the|a|an|he|she|it|they|we|his|her|its|their|there|this|these|in|at|on|for|more|some|many"
)

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\b([Ss]aid|[Ss]ays|added|announced|reported) that (?=\w)", r"\1 "),
        (rf"\bon ({_DAY})\b", r"\1"),
        (r"\b(?:Mr|Mrs|Ms|Miss|Dr)\.? (?=[A-Z])", ""),
        (r" (?:who|which) (?:is|are|was|were) (?=[a-z]+(?:ed|ing|en|wn)\b)", " "),
        (r"\b[Uu]nited States\b", "US"),
        (r"\b[Uu]nited Kingdom\b", "UK"),
        (r"\b[Uu]nited Nations\b", "UN"),
        (r"\b[Ee]uropean Union\b", "EU"),
        (r"(?<=\d) (?:per cent|percent)\b", "%"),
        (r"\bmore than (?=[\d£$€])", "over "),
        (r"\bin order to\b", "to"),
        (r"\bas well as\b", "and"),
        (r"\bsuch as\b", "like"),
        (r"\ba number of\b", "several"),
        (r"(?<=\w) (?:also|very|really|actually|currently|simply|quite|indeed) (?=\w)", " "),
        (rf"(?<=[a-z] )(?<!\w-)({'|'.join(_NUMBERS)}) (?=[a-z])", r"#\1 "),
        (rf"\b(?!(?i:{_PRONOUN})\b)([\w'’%-]+) will (?!not |of |to )(?=[a-z])", r"\1 to "),
        (rf"(?<=[\w,;:%] )(?<!such )(?<!what )(?<!many )(?:the|an?) (?!(?:{_KEPT})\b)(?=\w)", ""),
    )
)
_OPENING = re.compile(rf"^(?:{_CONNECTIVES}),? (?=[A-Z]|(?:{_OPENERS})\b)")
_DIGITS = re.compile(r"#([a-z]+)")


def brief(sentence: str) -> str:
    """A sentence in the style of a news ticker.

    Args:
        sentence: one English sentence.

    Example:
        >>> brief("The storm will reach the west coast on Thursday, they said.")
        'The storm to reach west coast Thursday, they said.'
    """
    if QUOTES.search(sentence):
        return sentence
    sentence = _OPENING.sub("", sentence)
    sentence = sentence[:1].upper() + sentence[1:]
    for pattern, replacement in _RULES:
        sentence = pattern.sub(replacement, sentence)
    return _DIGITS.sub(lambda match: _NUMBERS.get(match[1], match[0]), sentence)
