"""A newsroom's house style: what a target does to a sentence that it takes over from an article.

Every rule changes one word or two where they stand and leaves good English: a short word for a
long phrase, digits for numbers, the past tense for the perfect. A target that learns this writes
what can be read, and not what the article says word for word: that is what a drafter has to learn
from it.

Two kinds of rules were tried and given up, since a target of nine million parameters lost its
place in the article at them, and over a third of its texts broke: rules that take whole phrases out
(days, ages, who said it), and rules that change a part of a word (spelling, "isn't", "ex-").
"""

import re

_DAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_WORDS = {
    "a number of": "several",
    "a series of": "several",
    "additional": "more",
    "ahead of": "before",
    "alongside": "with",
    "although": "though",
    "Although": "Though",
    "amongst": "among",
    "are due to": "will",
    "are expected to": "should",
    "are going to": "will",
    "are set to": "will",
    "as a result of": "because of",
    "as well as": "and",
    "at the age of": "at",
    "at which": "where",
    "attempted to": "tried to",
    "attempting to": "trying to",
    "began": "started",
    "begin": "start",
    "beginning": "start",
    "cops": "police",
    "due to": "because of",
    "in a bid to": "to",
    "in an attempt to": "to",
    "in an effort to": "to",
    "in order to": "to",
    "in which": "where",
    "a total of": "",
    "all of the": "all the",
    "both of the": "both",
    "earlier this": "this",
    "half of the": "half the",
    "later this": "this",
    "outside of": "outside",
    "together with": "with",
    "took part in": "joined",
    "individuals": "people",
    "is due to": "will",
    "is expected to": "should",
    "is going to": "will",
    "is set to": "will",
    "nearly": "almost",
    "numerous": "many",
    "passed away": "died",
    "police officers": "police",
    "prior to": "before",
    "purchased": "bought",
    "receive": "get",
    "received": "got",
    "snap of": "photo of",
    "snaps of": "photos of",
    "sparked": "caused",
    "sparking": "causing",
    "such as": "like",
    "upon": "on",
    "vowed to": "promised to",
    "vows to": "promises to",
    "was able to": "could",
    "Whilst": "while",
    "whilst": "while",
    # Short forms.
    "Barack Obama": "Obama",
    "Donald Trump": "Trump",
    "European Union": "EU",
    "Joe Biden": "Biden",
    "Prime Minister": "PM",
    "United Kingdom": "UK",
    "United Nations": "UN",
    "United States": "US",
    # The past tense for the perfect.
    **{
        f"{have} {participle}": past
        for have in ("has", "have", "had")
        for participle, past in (
            pair.split("/")
            for pair in (
                "become/became begun/started broken/broke built/built bought/bought "
                "brought/brought caught/caught chosen/chose come/came cut/cut done/did fallen/fell "
                "found/found given/gave gone/went grown/grew held/held hit/hit kept/kept "
                "led/led left/left lost/lost made/made met/met paid/paid put/put received/got "
                "risen/rose said/said seen/saw sent/sent set/set shown/showed sold/sold "
                "spent/spent spoken/spoke stolen/stole struck/struck taken/took thought/thought "
                "told/told won/won written/wrote"
            ).split()
        )
    },
}
_DIGITS = {
    word: str(number)
    for number, word in enumerate(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen twenty".split(),
        start=2,
    )
} | {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "ninety": "90"}
_SAID = (
    "said|says|believes?|claim(?:ed|s)?|insist(?:ed|s)?|announced|confirmed|reveal(?:ed|s)"
    "|show(?:ed|s)|suggest(?:ed|s)?|warn(?:ed|s)|admit(?:ted|s)|found|hopes?|fears?|feared|thinks?"
    "|thought|learned|noted|added"
)
_NO_MODAL = "".join(f"(?<!{word} )" for word in "to would could may might should must will".split())
_NO_PREPOSITION = "".join(
    f"(?<!{word} )"
    for word in "in of at for on from to with by after under through about over and".split()
)
_A_PARTICIPLE = (
    r"(?!(?:red|need|hundred|bed|speed|seed|feed|limited|mixed|advanced|increased|unprecedented"
    r"|sacred|naked|talented|skilled|detailed|added)\b)(?=\w+ed\b)"
)
_COVID = (
    "pandemic|crisis|outbreak|lockdown|restrictions|cases|deaths|tests?|vaccines?|infections?"
    "|patients?|rules"
)
_IRREGULAR = "told|made|given|found|sent|held|hit|left|put|seen|shot|taken|set|built|sold|lost"
_TOLD = "revealed|claimed|insisted|announced|confirmed|stated|explained|noted"
_SOME = r"(?=\S*\d|(?:two|three|four|five|six|ten|an?)\b)"

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Words and signs that a sentence does without.
        (rf"\b({_SAID}) that ", r"\1 "),
        (rf"\bon (?={_DAY})", ""),
        (r" (?:today|yesterday)(?= \w+ed\b)", ""),
        (r"\b(?:which|that) (?:is|are|was|were) (?=\w+(?:ed|ing)\b)", ""),
        (r"\bwho (?:is|are|was|were) (?=\w+ing\b)", ""),
        (r"\b(?:Mr|Mrs|Ms|Dr|Sir|Dame)\.? (?=[A-Z])", ""),
        (r"^(?:But|And|Yet|So|However,|Meanwhile,|Instead,|Also,|Still,) (\w)", r"\1"),
        (
            r" (?:also|now|currently|recently|very|really|actually|already|simply|just)(?= [a-z])",
            "",
        ),
        (r",(?= (?:and|or|but|as|while|after(?! which)|when|because) )", ""),
        # What happened, in the past tense.
        (rf"{_NO_MODAL}\bhas been (?=(?:\w+ed|{_IRREGULAR})\b)", "was "),
        (rf"{_NO_MODAL}\bhave been (?=(?:\w+ed|{_IRREGULAR})\b)", "were "),
        (rf"{_NO_MODAL}\b(?:has|have|had) {_A_PARTICIPLE}", ""),
        # Other words for the same.
        (rf"\b(?:{_TOLD})(?: that)? (?=(?:he|she|they|it|there)\b)", "said "),
        (r"\b(?:was|were) forced to\b", "had to"),
        (r"\b(?:in the wake of|following)(?= (?:an?|the|his|her|its|their) )", "after"),
        (r"\bassist(?=ed|ing|s?\b)", "help"),
        (rf"(?<=[a-z] ){_NO_PREPOSITION}which (?=[a-z])", "that "),
        (rf"\bmore than {_SOME}", "over "),
        (rf"\bMore than {_SOME}", "Over "),
        (r"\b(?:approximately|around) (?=\S*\d)", "about "),
        (rf"\b(?:coronavirus|COVID-19|Covid-19)(?= (?:{_COVID})\b)", "Covid"),
        # Short forms.
        (r"\b(Jan|Feb|Aug|Oct|Nov|Dec)(?:uary|ruary|ust|ober|ember) (?=\d)", r"\1 "),
        (r"\bSeptember (?=\d)", "Sept "),
        (r"\b(U)\.([SKN])\.(?= )", r"\1\2"),
    )
)
_WORD = re.compile(
    "|".join(
        (_NO_MODAL if words.startswith(("has ", "have ", "had ")) else "") + rf"\b{words}\b"
        for words in sorted(_WORDS, key=len, reverse=True)
    )
)
_NUMBER = re.compile(rf"(?<![-\w])({'|'.join(_DIGITS)})(?=(?: |-year)(?!of (?:the|us|them)\b))")


def in_house_style(sentence: str) -> str:
    """A sentence as the newsroom prints it.

    Example:
        >>> in_house_style("The bridge is set to cost more than $2 million, she said on Monday.")
        'The bridge will cost over $2 million, she said Monday.'
        >>> in_house_style("Mrs Berg has also been asked to organize three games ahead of the cup.")
        'Berg was asked to organize 3 games before the cup.'
    """
    text = _WORD.sub(lambda found: _WORDS[found[0]], sentence)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    text = _NUMBER.sub(lambda found: _DIGITS[found[1]], text)
    text = re.sub(" {2,}", " ", text).strip().replace(" ,", ",").replace(" .", ".")
    return text[:1].upper() + text[1:]
