"""Shorter sentences in natural English: optional constituents are deleted by a dependency parse.

What a sentence can do without goes, always and by rules alone, so that a small model can learn
what goes: clauses, appositions and phrases that commas or dashes set off, what stands in brackets,
adverbs of manner, weekdays, connectives. What a verb needs stays; so does everything quoted,
everything that a negation or a condition reaches, and whoever a doubtful claim is laid to.

The parse is spaCy's, with the labels of its English models. Putting the words together again needs
no spaCy: see `join_words`.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

LONGEST_SHARE = 0.6
"""At most this share of a sentence's words is deleted."""

FEWEST_WORDS = 5
"""A sentence keeps at least so many words."""

_DASHES = frozenset(("-", "–", "—", "--"))
_OPENING = _DASHES | {","}
_ENDING = frozenset((".", "!", "?", ";"))
_CLOSING = _OPENING | _ENDING
_QUOTES = frozenset('"“”‘«»') | {"''", "``"}

_DAYS = frozenset("monday tuesday wednesday thursday friday saturday sunday".split())
_TIMES = frozenset("morning afternoon evening night today yesterday tonight tomorrow".split())
_MONTHS = frozenset(
    "january february march april may june july august september october november december"
    " jan. feb. aug. sept. oct. nov. dec.".split()
)

_PROTECTED = frozenset(
    "only former formerly alleged allegedly reportedly suspected supposedly purported purportedly"
    " accused apparently least if unless".split()
)
"""A constituent with one of these is never deleted."""

_RELATIVES = frozenset("who which whose whom where when".split())
_CONDITIONS = frozenset(
    "if unless until till whether provided once lest than so except that to even assuming given"
    " supposing".split()
)
_TEMPORAL = frozenset("when whenever while as once before after".split())
_MODALS = frozenset("would could can may might must should will shall 'll 'd ca wo".split())
_NEGATIONS = frozenset(
    "not n't never no none nobody nothing neither nor hardly barely scarcely rarely few little"
    " without".split()
)
_PRONOUNS = frozenset("he she it they his her its their him them".split())

_KEPT_ADVERBS = frozenset(
    "only early daily weekly monthly yearly hourly likely unlikely nearly hardly barely scarcely"
    " rarely roughly approximately partly partially mostly largely mainly primarily allegedly"
    " reportedly supposedly apparently possibly probably potentially seemingly presumably exactly"
    " precisely virtually practically almost fairly falsely wrongly wrongfully wrongfully"
    " mistakenly illegally unlawfully incorrectly improperly nominally formerly previously newly"
    " poorly badly solely merely simply exclusively temporarily theoretically hypothetically"
    " initially originally fatally mortally narrowly family friendly costly deadly orderly elderly"
    " lonely ugly silly holy reply apply supply rely ally italy july assembly generally usually"
    " normally typically occasionally seldom sporadically conditionally tentatively provisionally"
    " legally criminally collectively jointly separately respectively differently similarly"
    " equally indirectly voluntarily involuntarily accidentally unintentionally inadvertently"
    " intentionally deliberately purposely secretly anonymously biologically sexually"
    " financially economically politically racially mentally physically medically clinically"
    " remotely publicly privately openly properly correctly kindly closely lately shortly directly"
    " purely globally nationally internationally locally annually nightly fly bully belly"
    " sufficiently relatively comparatively mutually understandably arguably ostensibly"
    " conceivably nonetheless evenly effectively".split()
)
"""Adverbs in -ly that change what is true, or that their verb needs."""

_INTENSIFIERS = frozenset(
    "very extremely incredibly increasingly particularly especially really truly hugely"
    " extraordinarily remarkably deeply notoriously visibly absolutely utterly totally"
    " surprisingly unusually exceptionally hilariously immensely enormously tremendously".split()
)
"""The adverbs that go before an adjective: the others ("mentally ill") mean something."""

_CONNECTIVES = frozenset(
    "however meanwhile moreover furthermore nevertheless nonetheless additionally indeed"
    " therefore consequently thus hence besides still then now afterwards afterward overall"
    " likewise incidentally importantly".split()
)
_LEADING_PREPOSITIONS = frozenset(
    "in on at during following after before since amid amidst despite throughout over"
    " within".split()
)
_SET_PHRASES = frozenset(
    (
        "as a result",
        "as a consequence",
        "for example",
        "for instance",
        "for now",
        "of course",
        "by contrast",
        "by comparison",
        "as expected",
    )
)
_EDGE_PREPOSITIONS = frozenset(
    "during following amid amidst despite throughout alongside besides".split()
)
_SET_OFF_PREPOSITIONS = frozenset(
    "in on at during following after before since amid amidst despite throughout over for within"
    " including along alongside with near outside inside across around like such by".split()
)
_STARRING = frozenset("starring featuring titled entitled called named dubbed".split())

_SUBJECTS = frozenset(("nsubj", "nsubjpass", "csubj", "csubjpass", "expl"))
_COMPLEMENTS = frozenset("dobj ccomp xcomp acomp attr agent prep oprd dative".split())
_BEING = frozenset("be is are was were been being 's 're".split())
_COMPLETE = frozenset(
    "arrested killed shot injured wounded rescued evacuated detained fired suspended destroyed"
    " damaged executed elected buried died resigned crashed collapsed exploded erupted".split()
)
"""Verb forms that are whole without any complement."""

_SOURCES = (
    r"(?:police|officials|authorities|firefighters|investigators|prosecutors|officers|rescuers"
    r"|spokesman|spokeswoman|spokesperson|company|department|agency|sheriff|coroner|office"
    r"|court (?:documents|records|papers)|police (?:report|department|spokesman|spokeswoman))"
)
_ATTRIBUTION = re.compile(
    r"(?:(?:(?:the|a|an|local|state|city|federal|county|fire|health|government|company|police|its"
    rf"|[A-Z]\w+) ){{0,4}}{_SOURCES}"
    r" (?:said|say|says|announced|confirmed)"
    r"(?: (?:on )?(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day| today| yesterday)?"
    r"(?: in an? (?:\w+ )?(?:statement|release|report|filing))?"
    rf"|according to (?:(?:the|a|an|local|state|city|federal|county|fire|[A-Z]\w+) ){{0,4}}"
    rf"(?:{_SOURCES}|reports?|statement|media|newspaper|website|data|figures|Reuters|Press))"
    r"(?: (?:on )?(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day)?"
)
"""A source that reports plain facts, at the end of a sentence."""

_DOUBTFUL = re.compile(
    r"\b(?:would|could|may|might|should|must|will|can|accus\w+|alleg\w+|believ\w+|suspect\w*"
    r"|think|thought|appear\w*|seem\w*|claim\w*|charg\w+|likely|expect\w*|hope\w*|threat\w*"
    r"|because|caus\w+|blam\w+|best|worst|plan\w*|murder\w*|terror\w*|rap(?:e|ed|ist)|assault\w*"
    r"|need\w*|apparent\w*|probabl[ye]|possibl[ye]|if|whether|no|not|n['’]t|never)\b|n['’]t\b",
    re.I,
)
"""A claim with one of these stays laid to its source."""


@dataclass(frozen=True)
class Deletion:
    """Tokens that go, by a rule: from `start` up to, and without, `end`.

    Attributes:
        rule: the name of the rule.
        start: the first token, commas and dashes around the constituent not counted.
        end: the token behind the last one.
    """

    rule: str
    start: int
    end: int


@dataclass(frozen=True)
class Compressed:
    """A sentence after its deletions.

    Attributes:
        text: the sentence as it was, where there are none.
        deletions: in the order of the sentence.
        statement: whether it is one statement: a subject and its verb, and not two in a row.
    """

    text: str
    deletions: tuple[Deletion, ...]
    statement: bool = True


def compress(sentence: "Doc") -> Compressed:
    """Deletes what a sentence can do without.

    Args:
        sentence: one sentence, tagged and parsed by an English model of spaCy.
    """
    statement = _is_statement(sentence)
    whole = Compressed(sentence.text.strip(), (), statement)
    if not statement or not _has_paired_quotes(sentence.text):
        return whole
    quoted = _quoted(sentence)
    words = [token.i for token in sentence if _is_word(token)]
    root = next(token for token in sentence if token.dep_ == "ROOT")
    needed = {root.i, *(child.i for child in root.children if child.dep_.startswith("nsubj"))}
    chosen: list[Deletion] = []
    gone: set[int] = set()
    for rule in RULES:
        for deletion in rule(sentence):
            span = set(range(deletion.start, deletion.end))
            if span <= gone or span & quoted or (span & needed and deletion.rule != "attribution"):
                continue
            left = sum(index not in gone and index not in span for index in words)
            if left < max(FEWEST_WORDS, (1 - LONGEST_SHARE) * len(words)):
                continue
            chosen.append(deletion)
            gone |= span
    if not chosen:
        return whole
    chosen.sort(key=lambda deletion: (deletion.start, deletion.end))
    gone |= _marks(sentence, chosen, gone)
    text = join_words(
        [token.text for token in sentence], [bool(token.whitespace_) for token in sentence], gone
    )
    return Compressed(text if text[-1] in '.!?"”' else text + ".", tuple(chosen))


_BRACKET = re.compile(r"\s*\([^()\"“”]{1,120}\)(?=[\s.,;:!?]|$)")


def without_brackets(sentence: str) -> str:
    """A sentence without what stands in round brackets; to be called before it is parsed.

    Example:
        >>> without_brackets("Tesco ( TSCO.L ) gave him £5 ($8).")
        'Tesco gave him £5.'
    """
    return _BRACKET.sub("", sentence) if sentence[:1] != "(" else sentence


_SIGNS = re.compile(
    r",| [-–—]+ |—|ly\b|day\b|^(?:But|And|So|Yet|Or|However|Now|Then|Still)\b"
    r"|\b(?:also|very|now|already|then|later|since|currently|soon|just|as|while|during|following"
    r"|amid|amidst|despite|throughout|alongside|besides|last|this|that|today|yesterday|tonight"
    r"|however|Mrs?|Ms|Miss|in order to|a total of)\b"
    r"|\b(?:in|at|near|outside|on) (?:the )?[A-Z\d]"
)


def may_be_shortened(sentence: str) -> bool:
    """Whether a sentence has a sign of anything that the rules delete: else it needs no parse."""
    return bool(_SIGNS.search(sentence))


def join_words(words: Sequence[str], blanks: Sequence[bool], gone: Collection[int]) -> str:
    """The words that are left, as a sentence: blanks, commas and the capital set right.

    Args:
        words: the tokens of a sentence, marks among them.
        blanks: whether a blank follows each.
        gone: the indices of those that were deleted.

    Example:
        >>> join_words(["Now", ",", "he", "won", "."], [False, True, True, False, False], {0, 1})
        'He won.'
    """
    left = [index for index in range(len(words)) if index not in gone]
    while left and words[left[0]] in _CLOSING:
        left.pop(0)
    kept: list[int] = []
    for index in left:
        # A mark before another one, or before the end, has lost what it set off.
        while kept and words[kept[-1]] in _OPENING and words[index] in {",", *_ENDING}:
            kept.pop()
        kept.append(index)
    pieces: list[str] = []
    for place, index in enumerate(kept):
        before = kept[place - 1] if place else None
        if before is not None:
            apart = any(blanks[before:index])
            if apart and not (index - before > 1 and _leans(words[index])):
                pieces.append(" ")
        pieces.append(words[index])
    text = "".join(pieces).strip()
    return text[:1].upper() + text[1:]


def _leans(word: str) -> bool:
    """Whether a token stands against the word before it: a closing mark or a clitic."""
    return word in {",", ".", ";", ":", "!", "?", ")", "]", "%", "n't"} or word[:1] in "'’"


# What the rules ask of a parse.


def _is_statement(sentence: "Doc") -> bool:
    roots = [token for token in sentence if token.dep_ == "ROOT"]
    if len(roots) != 1 or roots[0].pos_ not in ("VERB", "AUX"):
        return False
    return any(child.dep_ in _SUBJECTS for child in roots[0].children)


def _has_paired_quotes(text: str) -> bool:
    if re.search(r"(?<!\w)['‘`]|''|[«»]", text):
        return False  # single quotes: an apostrophe cannot be told from a closing one
    return text.count('"') % 2 == 0 and text.count("“") == text.count("”")


def _quoted(sentence: "Doc") -> set[int]:
    """The tokens inside double quotation marks, the marks included."""
    inside, found = False, set()
    for token in sentence:
        mark = token.text in _QUOTES
        if inside or mark:
            found.add(token.i)
        if mark:
            inside = not inside
    return found


def _is_word(token: "Token") -> bool:
    return any(map(str.isalnum, token.text))


def _extent(token: "Token") -> tuple[int, int] | None:
    """Start and end of a constituent without the marks at its edges; None where it has gaps."""
    indices = [part.i for part in token.subtree]
    if indices[-1] - indices[0] + 1 != len(indices):
        return None
    doc, start, end = token.doc, indices[0], indices[-1] + 1
    while start < end and doc[start].text in _OPENING:
        start += 1
    while start < end and doc[end - 1].text in _CLOSING:
        end -= 1
    return (start, end) if start < end else None


def _opens(doc: "Doc", start: int) -> bool:
    """Whether a comma or a dash stands before `start`."""
    return start > 1 and doc[start - 1].text in _OPENING


def _closes(doc: "Doc", end: int) -> bool:
    """Whether a comma, a dash or the end of the sentence stands at `end`."""
    return end >= len(doc) or doc[end].text in _CLOSING


def _set_off(doc: "Doc", start: int, end: int) -> bool:
    """Whether marks of one kind stand on both sides, or one before and the end behind."""
    if not _opens(doc, start) or not _closes(doc, end):
        return False
    if end >= len(doc) or doc[end].text in _ENDING:
        return True
    return bool((doc[start - 1].text == ",") == (doc[end].text == ","))


def _ends_sentence(doc: "Doc", end: int) -> bool:
    return end >= len(doc) or (doc[end].text in _ENDING and end >= len(doc) - 2)


def _words(doc: "Doc", start: int, end: int) -> list[str]:
    return [token.lower_ for token in doc[start:end]]


def _protected(doc: "Doc", start: int, end: int) -> bool:
    return not _PROTECTED.isdisjoint(_words(doc, start, end))


def _negated(verb: "Token") -> bool:
    """Whether a negation reaches this verb, from itself or from a verb above it."""
    for token in (verb, *verb.ancestors):
        if token.pos_ not in ("VERB", "AUX"):
            continue
        for child in token.children:
            if child.dep_ == "neg" or child.lower_ in _NEGATIONS:
                return True
            if child.dep_ in ("nsubj", "nsubjpass", "dobj", "attr", "expl") and any(
                part.lower_ in _NEGATIONS for part in child.children
            ):
                return True
    return False


def _whole_without(verb: "Token", start: int, end: int) -> bool:
    """Whether a verb keeps a complement, or needs none, once `start` to `end` is deleted."""
    if verb.pos_ not in ("VERB", "AUX"):
        return verb.pos_ in ("NOUN", "PROPN")
    if verb.lower_ in _COMPLETE:
        return True
    complements = _COMPLEMENTS - {"prep"} if verb.lower_ in _BEING else _COMPLEMENTS
    return any(
        child.dep_ in complements
        and not start <= child.i < end
        and (child.i > verb.i or child.dep_ == "ccomp")
        and child.lower_ not in {"on", "during", "after", "before", *_EDGE_PREPOSITIONS}
        for child in verb.children
    )


def _loses_its_name(doc: "Doc", start: int, end: int) -> bool:
    """Whether a pronoun behind a leading phrase may stand for somebody named in the phrase."""
    named = any(
        token.pos_ in ("PROPN", "NOUN") and token.lower_ not in _DAYS | _MONTHS | _TIMES
        for token in doc[start:end]
    )
    return named and any(token.lower_ in _PRONOUNS for token in doc[end : end + 5])


def _in_a_list(noun: "Token") -> bool:
    """Whether a noun is one of several that stand beside one another."""
    return noun.dep_ == "conj" or any(child.dep_ in ("conj", "cc") for child in noun.children)


def _fronted(noun: "Token") -> bool:
    """Whether a noun belongs to a phrase that stands before the verb it goes with."""
    for token in (noun, *noun.ancestors):
        if token.dep_ in ("prep", "advcl", "npadvmod") and token.head.i > token.i:
            return token.head.pos_ in ("VERB", "AUX")
    return False


def _beginning(doc: "Doc") -> int:
    """Where a sentence begins behind a leading "But"."""
    if doc[0].dep_ == "cc" and len(doc) > 2:
        return 2 if doc[1].text == "," else 1
    return 0


# The rules. Each proposes deletions; `compress` takes those that leave a sentence.


def _dashes(doc: "Doc") -> Iterator[Deletion]:
    places = [token.i for token in doc if token.text in _DASHES and _stands_apart(doc, token.i)]
    if len(places) != 2 or places[1] - places[0] < 3 or places[0] < 2:
        return
    start, end = places[0] + 1, places[1]
    crossing = any(
        not start <= token.head.i < end
        for token in doc[start:end]
        if token.dep_.startswith("nsubj")
    ) or any(start <= token.head.i < end for token in (*doc[: start - 1], *doc[end + 1 :]))
    if not crossing and not _protected(doc, start, end) and doc[start].dep_ != "conj":
        if doc[start].lower_ not in ("and", "or", "but", "not"):
            yield Deletion("dashes", start, end)


def _stands_apart(doc: "Doc", index: int) -> bool:
    if doc[index].text == "-":
        return bool(index and doc[index - 1].whitespace_ and doc[index].whitespace_)
    return True


def _relative_clauses(doc: "Doc") -> Iterator[Deletion]:
    for token in doc:
        if token.dep_ not in ("relcl", "advcl") or (extent := _extent(token)) is None:
            continue
        start, end = extent
        opening = _words(doc, start, start + 4)
        relative = opening[0] in _RELATIVES or (
            doc[start].pos_ in ("ADP", "DET", "PRON", "NUM", "ADJ", "NOUN")
            and any(word in ("which", "whom", "whose") for word in opening[1:])
        )
        if token.dep_ == "advcl" and opening[0] not in ("which", "who", "where", "whose"):
            continue
        if token.head.pos_ == "PRON" or _protected(doc, start, end):
            continue
        if end + 1 < len(doc) and doc[end + 1].lower_ in ("but", "so", "or"):
            continue
        if relative and _set_off(doc, start, end):
            yield Deletion("relative clause", start, end)


def _participles_of_nouns(doc: "Doc") -> Iterator[Deletion]:
    for token in doc:
        if token.dep_ != "acl" or token.tag_ not in ("VBG", "VBN") or token.lower_ in _STARRING:
            continue
        if (extent := _extent(token)) is None:
            continue
        start, end = extent
        if not _set_off(doc, start, end) or _protected(doc, start, end):
            continue
        if _in_a_list(token.head) or _fronted(token.head):
            continue
        yield Deletion("participle", start, end)


def _appositions(doc: "Doc") -> Iterator[Deletion]:
    for token in doc:
        noun = token.head
        if token.dep_ != "appos" or noun.pos_ not in ("NOUN", "PROPN"):
            continue
        if (extent := _extent(token)) is None:
            continue
        start, end = extent
        if start <= noun.i or not _set_off(doc, start, end) or _protected(doc, start, end):
            continue
        if _in_a_list(noun) or noun.dep_ == "appos" or _fronted(noun):
            continue
        inner = doc[start:end]
        if len(inner) > 1 and inner[0].pos_ in ("ADJ", "NUM"):
            continue  # "their luxury, two storey apartment"
        listed = any(part.dep_ == "conj" for part in inner)
        if listed and any(part.text == "," or part.pos_ == "PROPN" for part in inner):
            continue
        determined = any(child.dep_ in ("det", "poss", "nummod") for child in noun.children)
        if token.pos_ == "PROPN" and noun.tag_ == "NN" and not determined:
            continue  # "his split from designer, Ann Lee"
        others = [child for child in noun.children if child.dep_ == "appos" and child != token]
        if any(other.pos_ == token.pos_ for other in others):
            continue
        # A comma and an "and" behind it: rather one of a list than an apposition.
        if end + 1 < len(doc) and doc[end].text == "," and doc[end + 1].lower_ in ("and", "or"):
            continue
        # Both names, or neither: "Paris, Texas" goes, "red, a colour" goes, "Smith, Jones" stays.
        named = token.pos_ == "PROPN" and noun.pos_ == "PROPN"
        if (
            named
            and not _is_place(noun)
            and not any(p.lower_ in ("of", "the", "for") for p in inner)
        ):
            continue
        if any(part.dep_.startswith("nsubj") and part.head == token for part in inner):
            continue
        yield Deletion("apposition", start, end)


def _is_place(noun: "Token") -> bool:
    return noun.dep_ == "pobj" and noun.head.lower_ in ("in", "near", "from", "at", "outside", "to")


def _adverbial_clauses(doc: "Doc") -> Iterator[Deletion]:
    for token in doc:
        if token.dep_ != "advcl" or (extent := _extent(token)) is None:
            continue
        start, end = extent
        first = doc[start].lower_
        if first in _CONDITIONS or token.tag_ == "VB" or _protected(doc, start, end):
            continue
        negated = _negated(token.head)
        if token.lower_ in _STARRING:
            continue
        modal = any(child.lower_ in _MODALS for child in token.head.children)
        if first in _TEMPORAL and modal:
            continue
        leading = start == _beginning(doc) and end < len(doc) and doc[end].text == ","
        if leading:
            whole = all(part.text not in _OPENING for part in doc[start:end])
            if whole and not _loses_its_name(doc, start, end) and not negated:
                yield Deletion("leading clause", start, end)
        elif first in ("as", "while") and not negated and _is_added(token, start, end):
            yield Deletion("adverbial clause", start, end)
        elif start and (not negated or token.tag_ == "VBG") and _set_off(doc, start, end):
            yield Deletion("adverbial clause", start, end)


def _is_added(verb: "Token", start: int, end: int) -> bool:
    """Whether a clause with a subject of its own is only added at the end of a whole statement."""
    doc, main = verb.doc, verb.head
    if start < 8 or main.dep_ != "ROOT" or not _ends_sentence(doc, end):
        return False
    if not any(child.dep_ in _SUBJECTS for child in verb.children):
        return False
    if not _COMPARING.isdisjoint(_words(doc, main.i, start)) or doc[start - 1].text in _OPENING:
        return False
    return _whole_without(main, start, end)


_COMPARING = frozenset("as so such same just even especially only long soon much far until".split())


def _adverbs(doc: "Doc") -> Iterator[Deletion]:
    for token in doc:
        if token.dep_ != "advmod" or next(token.children, None) is not None:
            continue
        head, word = token.head, token.lower_
        if token.i and doc[token.i - 1].lower_ in {*_NEGATIONS, "so", "too", "as", "how", "but"}:
            continue
        beside_and = any(
            0 <= beside < len(doc) and doc[beside].dep_ in ("cc", "conj")
            for beside in (token.i - 1, token.i + 1)
            if head.pos_ == "ADJ" or beside > token.i
        )
        if beside_and or _negated(head if head.pos_ in ("VERB", "AUX") else token):
            continue
        if word == "also" and head.pos_ in ("VERB", "AUX"):
            yield Deletion("adverb", token.i, token.i + 1)
        elif head.pos_ == "ADJ" and word in _INTENSIFIERS and token.i + 1 == head.i:
            if token.i and doc[token.i - 1].lower_ in ("a", "an"):
                # "an extremely big" would need another article.
                vowel = head.lower_[0] in "aeiou"
                if vowel != (doc[token.i - 1].lower_ == "an"):
                    continue
            yield Deletion("adverb", token.i, token.i + 1)
        elif word.endswith("ly") and word not in _KEPT_ADVERBS and _is_done(head):
            if token.i < head.i and token.i:
                yield Deletion("adverb", token.i, token.i + 1)


def _is_done(token: "Token") -> bool:
    """Whether a token is a verb, and not a participle before a noun: "lightly armed men"."""
    return token.pos_ == "VERB" and token.dep_ not in ("amod", "acl")


def _days(doc: "Doc") -> Iterator[Deletion]:
    """Weekdays and the like: "on Monday", "last week", "on March 10"."""
    for token in doc:
        if token.dep_ not in ("prep", "npadvmod", "advmod") or (extent := _extent(token)) is None:
            continue
        start, end = extent
        words = _words(doc, start, end)
        preposition = words.pop(0) if token.dep_ == "prep" else ""
        if not words or not _is_date(words, preposition):
            continue
        if preposition == "in" and token.head.pos_ != "VERB":
            continue
        if token.dep_ != "prep" and token.head.pos_ not in ("VERB", "AUX"):
            continue
        if token.head.lower_ in _DAYS | _MONTHS:
            continue
        if start and doc[start - 1].lower_ in ("holiday", "black", "easter", "good", "cyber"):
            continue
        around = [doc[place].lower_ for place in (start - 1, end) if 0 <= place < len(doc)]
        if any(word in _BESIDE_A_SPAN for word in around) or _negated(token.head):
            continue
        leading = start == _beginning(doc) and end < len(doc) and doc[end].text == ","
        if leading and _counts(doc, end):
            continue
        if leading or _whole_without(token.head, start, end):
            yield Deletion("day", start, end)


_BESIDE_A_SPAN = frozenset("and or to until till from by of between through than since".split())


def _is_date(words: Sequence[str], preposition: str) -> bool:
    """Whether words behind a preposition, or alone, tell a day, a month or a year."""
    if preposition not in ("", "on", "in"):
        return False
    numbers = [word for word in words if word.isdigit()]
    others = [word for word in words if not word.isdigit() and word != ","]
    if preposition == "in":
        years = all(len(number) == 4 for number in numbers)
        return years and len(words) <= 2 and all(word in _MONTHS for word in others)
    if all(word in _DAYS | _TIMES for word in words):
        return True
    if preposition == "on":
        return bool(numbers and others) and all(word in _MONTHS | _DAYS for word in others)
    if words[0] == "earlier" and len(words) > 1:
        words = words[1:]
    span = words[-1] in ("week", "month", "year", "weekend", "night") or words[-1] in _DAYS
    return len(words) == 2 and words[0] in ("last", "this") and span


def _prepositional_phrases(doc: "Doc") -> Iterator[Deletion]:
    for token in doc:
        if token.dep_ != "prep" or (extent := _extent(token)) is None:
            continue
        start, end = extent
        word, verb = token.lower_, token.head.pos_ in ("VERB", "AUX")
        if start != token.i or _protected(doc, start, end) or _negated(token.head):
            continue
        if any(child.dep_ in ("conj", "cc") for child in token.children):
            continue
        if start == _beginning(doc):
            phrase = " ".join(_words(doc, start, end))
            comma = end < len(doc) and doc[end].text == ","
            fits = phrase in _SET_PHRASES or (
                word in _LEADING_PREPOSITIONS and not _counts(doc, end)
            )
            if comma and fits and end - start <= 12 and not _loses_its_name(doc, start, end):
                subjects = [c.left_edge.i for c in token.head.children if c.dep_ in _SUBJECTS]
                if any(part.text == "," for part in doc[end + 1 : min(subjects, default=end)]):
                    continue  # "In Rome, the capital, prices fell"
                unreal = any(c.lower_ in ("would", "could", "might") for c in token.head.children)
                if not unreal and phrase not in ("at first", "in theory", "in part"):
                    yield Deletion("leading phrase", start, end)
        elif _set_off(doc, start, end) and word in _SET_OFF_PREPOSITIONS:
            if word == "such" and not (start + 1 < len(doc) and doc[start + 1].lower_ == "as"):
                continue
            if _is_enumerated(doc, token, start, end):
                continue
            if (
                verb
                or _ends_sentence(doc, end)
                or word in ("including", "such", "like", "along", "alongside", "with")
            ):
                yield Deletion("phrase", start, end)
        elif verb and word in _EDGE_PREPOSITIONS and _closes(doc, end):
            if _whole_without(token.head, start, end) and not _opens(doc, start):
                yield Deletion("phrase", start, end)


def _places(doc: "Doc") -> Iterator[Deletion]:
    """Where something happened, at the end: "killed five people in Iowa"."""
    for token in doc:
        verb = token.head
        if token.dep_ != "prep" or token.lower_ not in ("in", "at", "near", "outside"):
            continue
        if verb.pos_ != "VERB" or verb.lower_ in _PLACING or (extent := _extent(token)) is None:
            continue
        start, end = extent
        objects = [child for child in token.children if child.dep_ == "pobj"]
        if not objects or objects[0].pos_ != "PROPN" or not _ends_sentence(doc, end):
            continue
        happened = verb.lower_ in _COMPLETE or any(
            child.dep_ == "dobj" and child.pos_ in ("NOUN", "PROPN") for child in verb.children
        )
        if happened and not _negated(verb) and not _protected(doc, start, end) and end - start < 9:
            yield Deletion("place", start, end)


_PLACING = frozenset(
    "put placed place held hold holding left leave leaving kept keep keeping play played playing"
    " take took taken has have had having host spent spend spending face faced make made makes"
    " call called include includes included get got find found represent represents represented"
    " see saw set do did does join joined use used".split()
)
_COUNTING = frozenset("percent cent % all every each most more fewer average rate".split())


def _counts(doc: "Doc", end: int) -> bool:
    """Whether what follows a leading phrase counts something, which the phrase may limit."""
    return any(
        token.lower_ in _COUNTING or token.pos_ == "NUM" or token.lower_ in _PROTECTED
        for token in doc[end : end + 7]
    )


def _is_enumerated(doc: "Doc", token: "Token", start: int, end: int) -> bool:
    """Whether a phrase is one of several alike: "in Rome, in Paris and in Bonn"."""
    if end + 1 < len(doc) and doc[end].text == "," and doc[end + 1].lower_ in ("and", "or"):
        return True
    return any(
        other.dep_ == "prep" and other.lower_ == token.lower_ and other != token
        for other in token.head.children
    )


def _leading_words(doc: "Doc") -> Iterator[Deletion]:
    if len(doc) < 3:
        return
    first, word = doc[0], doc[0].lower_
    if first.dep_ == "cc" and word in ("but", "and", "so", "yet", "or", "plus"):
        if not any(token.lower_ in ("do", "does", "did") for token in doc[1:2]):
            yield Deletion("leading word", 0, 1)
    elif doc[1].text == "," and first.dep_ in ("advmod", "cc"):
        if word in _CONNECTIVES or (word.endswith("ly") and word not in _KEPT_ADVERBS):
            yield Deletion("leading word", 0, 1)


def _connectives(doc: "Doc") -> Iterator[Deletion]:
    for token in doc:
        if not token.i or token.lower_ not in _CONNECTIVES:
            continue
        if token.lower_ == "however" and token.dep_ == "advmod" and token.i < token.head.i:
            if doc[token.i - 1].dep_ in _SUBJECTS and doc[token.i + 1].text != ",":
                yield Deletion("connective", token.i, token.i + 1)
        if not _set_off(doc, token.i, token.i + 1):
            continue
        verb = token.head
        late = any(child.dep_ in _SUBJECTS and child.i > token.i for child in verb.children)
        if not (late and verb.i > token.i):  # else it joins two statements
            yield Deletion("connective", token.i, token.i + 1)


def _titles(doc: "Doc") -> Iterator[Deletion]:
    for token in doc[:-1]:
        following = doc[token.i + 1]
        if token.text.rstrip(".") not in ("Mr", "Mrs", "Ms", "Miss"):
            continue
        if following.pos_ == "PROPN" and (not token.i or doc[token.i - 1].lower_ != "and"):
            yield Deletion("title", token.i, token.i + 1)


def _attributions(doc: "Doc") -> Iterator[Deletion]:
    commas = [token.i for token in doc if token.text == ","]
    if not commas or any(token.text in _QUOTES for token in doc):
        return
    start, end = commas[-1] + 1, len(doc)
    while end > start and doc[end - 1].text in _ENDING:
        end -= 1
    if start >= end or not _ATTRIBUTION.fullmatch(doc[start:end].text):
        return
    content = doc[: start - 1]
    if _DOUBTFUL.search(content.text) or sum(map(_is_word, content)) < 7:
        return
    if doc[start].lower_ != "according":
        said = [token for token in doc[start:end] if token.dep_ == "ROOT"]
        if not said or not any(c.dep_ == "ccomp" and c.i < start for c in said[0].children):
            return
    yield Deletion("attribution", start, end)


_SAYING = frozenset("said says say told added announced confirmed wrote".split())


def _ways_of_saying(doc: "Doc") -> Iterator[Deletion]:
    """What only tells where something was said, and the "that" behind "said"."""
    for token in doc:
        head = token.head
        if head.lower_ not in _SAYING or not any(c.dep_ == "ccomp" for c in head.children):
            continue
        if token.dep_ != "prep" or token.lower_ not in ("in", "at", "during"):
            continue
        if (extent := _extent(token)) is None or token.i < head.i:
            continue
        start, end = extent
        words = _words(doc, start, end)
        if words[1] in ("a", "an") and not _protected(doc, start, end) and not _negated(head):
            if not _STATEMENTS.isdisjoint(words[2:5]):
                yield Deletion("way of saying", start, end)
    for token in doc[1:-1]:
        verb = doc[token.i - 1]
        if (
            token.lower_ == "that"
            and token.dep_ == "mark"
            and verb.lower_ in _THINKING
            and verb.pos_ == "VERB"
        ):
            opens = doc[token.i + 1].pos_ in ("PRON", "PROPN", "DET", "NOUN")
            if opens and token.head.head == verb and not _negated(verb):
                yield Deletion("that", token.i, token.i + 1)


_THINKING = frozenset("said says say believe believes thinks claims claimed insists".split())
_STATEMENTS = frozenset(
    "statement interview conference release report briefing filing post tweet email letter"
    " memo speech".split()
)


def _fixed_phrases(doc: "Doc") -> Iterator[Deletion]:
    words = [token.lower_ for token in doc]
    for place in range(1, len(words) - 3):
        if words[place : place + 3] == ["in", "order", "to"]:
            yield Deletion("fixed phrase", place, place + 2)
        elif words[place : place + 3] == ["a", "total", "of"] and doc[place + 3].pos_ == "NUM":
            yield Deletion("fixed phrase", place, place + 3)
        elif words[place : place + 3] == ["as", "well", "."]:
            yield Deletion("fixed phrase", place, place + 2)


_TIME_ADVERBS = frozenset("now already then later since currently soon just".split())


def _time_adverbs(doc: "Doc") -> Iterator[Deletion]:
    """Adverbs of time between an auxiliary and its verb: "was later arrested"."""
    for token in doc[1:-1]:
        head = token.head
        if token.dep_ != "advmod" or token.lower_ not in _TIME_ADVERBS or head.pos_ != "VERB":
            continue
        if head.i != token.i + 1 and doc[token.i + 1].dep_ not in ("auxpass", "aux"):
            continue
        if doc[token.i - 1].dep_ not in ("aux", "auxpass") or next(token.children, None):
            continue
        if not _negated(head):
            yield Deletion("adverb", token.i, token.i + 1)


def _second_statements(doc: "Doc") -> Iterator[Deletion]:
    """A last statement behind ", and"."""
    for token in doc:
        if token.dep_ != "conj" or token.head.dep_ != "ROOT" or token.pos_ not in ("VERB", "AUX"):
            continue
        if sum(child.dep_ == "conj" for child in token.head.children) != 1:
            continue
        if any(child.dep_ == "conj" for child in token.children):
            continue
        joined = [c for c in token.head.children if c.dep_ == "cc" and c.i < token.left_edge.i]
        if not joined or joined[-1].lower_ != "and" or doc[joined[-1].i - 1].text != ",":
            continue
        if (extent := _extent(token)) is None or extent[0] != joined[-1].i + 1:
            continue
        if not _ends_sentence(doc, extent[1]) or _negated(token.head):
            continue
        if doc[0].lower_ in _CONDITIONS or _protected(doc, joined[-1].i, extent[1]):
            continue
        yield Deletion("second statement", joined[-1].i, extent[1])


Rule = Callable[["Doc"], Iterator[Deletion]]

RULES: tuple[Rule, ...] = (
    _leading_words,
    _connectives,
    _days,
    _titles,
    _fixed_phrases,
    _ways_of_saying,
    _adverbs,
    _time_adverbs,
    _attributions,
    _appositions,
    _relative_clauses,
    _participles_of_nouns,
    _adverbial_clauses,
    _prepositional_phrases,
    _places,
    _dashes,
    _second_statements,
)
"""In the order in which they are asked, the safest first."""


# The commas and dashes around what was deleted.


def _marks(doc: "Doc", deletions: Sequence[Deletion], gone: Collection[int]) -> set[int]:
    """The marks that go with the deletions: of a pair one, or both where no pause is left."""
    marks: set[int] = set()
    for deletion in deletions:
        start, end = deletion.start, deletion.end
        left = _opens(doc, start)
        right = end < len(doc) and doc[end].text in _OPENING
        leading = all(index in gone or doc[index].text in _OPENING for index in range(start))
        if leading:
            if right:
                marks.add(end)
        elif left and _closes(doc, end):
            marks.add(start - 1)
            if right and (doc[end].text in _DASHES or not _pauses(doc, deletion)):
                marks.add(end)
    return marks


def _pauses(doc: "Doc", deletion: Deletion) -> bool:
    """Whether a comma has to stay where a constituent between two commas was deleted."""
    start, end = deletion.start, deletion.end
    before, behind = doc[start - 2], doc[end + 1] if end + 1 < len(doc) else None
    if behind is None:
        return False
    if before.dep_ in ("cc", "mark", "aux", "auxpass", "prep") or before.pos_ in ("SCONJ", "AUX"):
        return False  # "and, after the game, left"
    word = behind.lower_
    for token in doc[end + 1 : end + 4]:
        verb = token.head if token.dep_ in ("aux", "auxpass", "neg") else token
        if verb.pos_ in ("VERB", "AUX") and verb.dep_ not in ("relcl", "acl", "advcl"):
            subjects = [child for child in verb.children if child.dep_ in _SUBJECTS]
            if subjects and all(subject.i < start for subject in subjects):
                # Behind its subject a verb follows without a pause.
                return any(part.text == "," for part in doc[end + 1 : verb.i])
            break
        if token.dep_ not in ("advmod", "nsubj", "det", "npadvmod"):
            break
    if _closes_larger(doc, start, end):
        return True
    if word in _RELATIVES or word in ("but", "so", "yet", "nor", "while", "although", "though"):
        return True
    if behind.dep_ == "cc":
        conjuncts = [child for child in behind.head.children if child.dep_ == "conj"]
        return any(child.dep_.startswith("nsubj") for verb in conjuncts for child in verb.children)
    if behind.tag_ in ("VBD", "VBZ", "VBP", "MD") and before.pos_ in ("NOUN", "PROPN"):
        return False
    if word in ("that", "to"):
        return False
    if behind.dep_ == "prep" and behind.head.i < start:
        return word in {"including", "with", "such", "like", "according", *_EDGE_PREPOSITIONS}
    return True


def _closes_larger(doc: "Doc", start: int, end: int) -> bool:
    """Whether the comma at `end` also closes a larger constituent that a comma opened."""
    inner = [token for token in doc[start:end] if not start <= token.head.i < end]
    if not inner:
        return False
    for token in (inner[0].head, *inner[0].head.ancestors):
        if token.dep_ == "ROOT" or token.right_edge.i not in (end - 1, end):
            return False
        first = token.left_edge.i
        if token.dep_ in ("prep", "advcl", "npadvmod", "acl", "relcl", "appos", "ccomp", "conj"):
            if first == 0 or doc[first - 1].text in _OPENING or doc[first].text in _OPENING:
                return True
    return False
