"""Shorter sentences in natural English: optional constituents are deleted by a dependency parse.

What a sentence can do without goes, always and by rules alone, so that a small model can learn
what goes: clauses, appositions and phrases that commas or dashes set off, what stands in brackets,
adverbs of manner, weekdays, connectives. What a verb needs stays; so does everything quoted,
everything that a negation or a condition reaches, and whoever a doubtful claim is laid to.

The parse is spaCy's, with the labels of its English models. Putting the words together again needs
no spaCy: see `join_words`.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import yaml

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

EN = SimpleNamespace(
    **{
        name: frozenset(words if isinstance(words, list) else words.split())
        for name, words in yaml.safe_load(
            Path(__file__).with_name("english.yaml").read_text(encoding="utf-8")
        ).items()
    }
)
"""Words by the name of their list."""

_SUBJECTS = frozenset(("nsubj", "nsubjpass", "csubj", "csubjpass", "expl"))
_COMPLEMENTS = frozenset("dobj ccomp xcomp acomp attr agent prep oprd dative".split())

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


class Deletion(NamedTuple):
    """Tokens that go, by a rule: from `start` up to, and without, `end`.

    Commas and dashes around the constituent are not counted.
    """

    rule: str
    start: int
    end: int


class Compressed(NamedTuple):
    """A sentence after its deletions, which are in its order.

    `statement` says whether it is one: a subject and its verb, and not two in a row.
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
    chosen.sort(key=lambda deletion: deletion[1:])
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
    text = "".join(words[index] for index in kept[:1])
    for before, index in pairwise(kept):
        apart = any(blanks[before:index]) and not (index - before > 1 and _leans(words[index]))
        text += " " * apart + words[index]
    text = text.strip()
    return text[:1].upper() + text[1:]


def _leans(word: str) -> bool:
    """Whether a token stands against the word before it: a closing mark or a clitic."""
    return word in {",", ".", ";", ":", "!", "?", ")", "]", "%", "n't"} or word[:1] in "'’"


# What the rules ask of a parse.


def _is_statement(sentence: "Doc") -> bool:
    roots = [token for token in sentence if token.dep_ == "ROOT"]
    return len(roots) == 1 and _is_verb(roots[0]) and _has_subject(roots[0])


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
        inside ^= mark
    return found


def _is_word(token: "Token") -> bool:
    return any(map(str.isalnum, token.text))


def _is_verb(token: "Token") -> bool:
    return token.pos_ in ("VERB", "AUX")


def _has_subject(verb: "Token") -> bool:
    return any(child.dep_ in _SUBJECTS for child in verb.children)


def _word(doc: "Doc", place: int) -> str:
    """The token at a place in lower case; empty outside the sentence."""
    return str(doc[place].lower_) if 0 <= place < len(doc) else ""


def _words(doc: "Doc", start: int, end: int) -> list[str]:
    return [token.lower_ for token in doc[start:end]]


def _constituents(doc: "Doc", *labels: str) -> Iterator[tuple["Token", int, int]]:
    """The constituents with one of these labels: the head, the start, the end.

    The marks at the edges are no part of them. What has gaps or a protected word is passed over.
    """
    for token in doc:
        if token.dep_ not in labels:
            continue
        indices = [part.i for part in token.subtree]
        start, end = indices[0], indices[-1] + 1
        if end - start != len(indices):
            continue
        while start < end and doc[start].text in _OPENING:
            start += 1
        while start < end and doc[end - 1].text in _CLOSING:
            end -= 1
        if start < end and EN.protected.isdisjoint(_words(doc, start, end)):
            yield token, start, end


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


def _negated(verb: "Token") -> bool:
    """Whether a negation reaches this verb, from itself or from a verb above it."""
    return any(
        child.dep_ == "neg"
        or child.lower_ in EN.negations
        or (
            child.dep_ in ("nsubj", "nsubjpass", "dobj", "attr", "expl")
            and any(part.lower_ in EN.negations for part in child.children)
        )
        for token in (verb, *verb.ancestors)
        if _is_verb(token)
        for child in token.children
    )


def _whole_without(verb: "Token", start: int, end: int) -> bool:
    """Whether a verb keeps a complement, or needs none, once `start` to `end` is deleted."""
    if not _is_verb(verb):
        return verb.pos_ in ("NOUN", "PROPN")
    if verb.lower_ in EN.complete:
        return True
    complements = _COMPLEMENTS - {"prep"} if verb.lower_ in EN.being else _COMPLEMENTS
    return any(
        child.dep_ in complements
        and not start <= child.i < end
        and (child.i > verb.i or child.dep_ == "ccomp")
        and child.lower_ not in {"on", "during", "after", "before", *EN.edge_prepositions}
        for child in verb.children
    )


def _loses_its_name(doc: "Doc", start: int, end: int) -> bool:
    """Whether a pronoun behind a leading phrase may stand for somebody named in the phrase."""
    named = any(
        token.pos_ in ("PROPN", "NOUN") and token.lower_ not in EN.days | EN.months | EN.times
        for token in doc[start:end]
    )
    return named and not EN.pronouns.isdisjoint(_words(doc, end, end + 5))


def _in_a_list(noun: "Token") -> bool:
    """Whether a noun is one of several that stand beside one another."""
    return noun.dep_ == "conj" or any(child.dep_ in ("conj", "cc") for child in noun.children)


def _fronted(noun: "Token") -> bool:
    """Whether a noun belongs to a phrase that stands before the verb it goes with."""
    for token in (noun, *noun.ancestors):
        if token.dep_ in ("prep", "advcl", "npadvmod") and token.head.i > token.i:
            return _is_verb(token.head)
    return False


def _leads(doc: "Doc", start: int) -> bool:
    """Whether a sentence begins at `start`, maybe behind a "But"."""
    if doc[0].dep_ == "cc" and len(doc) > 2:
        return start == (2 if doc[1].text == "," else 1)
    return start == 0


# The rules. Each proposes deletions; `compress` takes those that leave a sentence.


def _dashes(doc: "Doc") -> Iterator[Deletion]:
    places = [
        token.i
        for token in doc
        if token.text in _DASHES
        and (token.text != "-" or (token.i and doc[token.i - 1].whitespace_ and token.whitespace_))
    ]
    if len(places) != 2 or places[1] - places[0] < 3 or places[0] < 2:
        return
    start, end = places[0] + 1, places[1]
    crossing = any(
        not start <= token.head.i < end
        for token in doc[start:end]
        if token.dep_.startswith("nsubj")
    ) or any(start <= token.head.i < end for token in (*doc[: start - 1], *doc[end + 1 :]))
    protected = not EN.protected.isdisjoint(_words(doc, start, end))
    if not crossing and not protected and doc[start].dep_ != "conj":
        if doc[start].lower_ not in ("and", "or", "but", "not"):
            yield Deletion("dashes", start, end)


def _relative_clauses(doc: "Doc") -> Iterator[Deletion]:
    for token, start, end in _constituents(doc, "relcl", "advcl"):
        opening = _words(doc, start, start + 4)
        relative = opening[0] in EN.relatives or (
            doc[start].pos_ in ("ADP", "DET", "PRON", "NUM", "ADJ", "NOUN")
            and any(word in ("which", "whom", "whose") for word in opening[1:])
        )
        if token.dep_ == "advcl" and opening[0] not in ("which", "who", "where", "whose"):
            continue
        if token.head.pos_ == "PRON" or _word(doc, end + 1) in ("but", "so", "or"):
            continue
        if relative and _set_off(doc, start, end):
            yield Deletion("relative clause", start, end)


def _participles_of_nouns(doc: "Doc") -> Iterator[Deletion]:
    for token, start, end in _constituents(doc, "acl"):
        if token.tag_ not in ("VBG", "VBN") or token.lower_ in EN.starring:
            continue
        if _set_off(doc, start, end) and not _in_a_list(token.head) and not _fronted(token.head):
            yield Deletion("participle", start, end)


def _appositions(doc: "Doc") -> Iterator[Deletion]:
    for token, start, end in _constituents(doc, "appos"):
        noun, inner = token.head, doc[start:end]
        if noun.pos_ not in ("NOUN", "PROPN") or start <= noun.i or not _set_off(doc, start, end):
            continue
        if _in_a_list(noun) or noun.dep_ == "appos" or _fronted(noun):
            continue
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
        if _word(doc, end) == "," and _word(doc, end + 1) in ("and", "or"):
            continue
        # Both names, or neither: "Paris, Texas" goes, "red, a colour" goes, "Smith, Jones" stays.
        named = token.pos_ == "PROPN" and noun.pos_ == "PROPN"
        place = noun.dep_ == "pobj" and noun.head.lower_ in EN.placed_by
        if named and not place and not any(p.lower_ in ("of", "the", "for") for p in inner):
            continue
        if not any(part.dep_.startswith("nsubj") and part.head == token for part in inner):
            yield Deletion("apposition", start, end)


def _adverbial_clauses(doc: "Doc") -> Iterator[Deletion]:
    for token, start, end in _constituents(doc, "advcl"):
        first = doc[start].lower_
        if first in EN.conditions or token.tag_ == "VB" or token.lower_ in EN.starring:
            continue
        if first in EN.temporal and any(child.lower_ in EN.modals for child in token.head.children):
            continue
        negated = _negated(token.head)
        if _leads(doc, start) and _word(doc, end) == ",":
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
    return bool(
        start >= 8
        and main.dep_ == "ROOT"
        and _ends_sentence(doc, end)
        and _has_subject(verb)
        and EN.comparing.isdisjoint(_words(doc, main.i, start))
        and doc[start - 1].text not in _OPENING
        and _whole_without(main, start, end)
    )


def _adverbs(doc: "Doc") -> Iterator[Deletion]:
    for token in doc:
        if token.dep_ != "advmod" or next(token.children, None) is not None:
            continue
        head, word, before = token.head, token.lower_, _word(doc, token.i - 1)
        if before in {*EN.negations, "so", "too", "as", "how", "but"}:
            continue
        beside_and = any(
            0 <= beside < len(doc) and doc[beside].dep_ in ("cc", "conj")
            for beside in (token.i - 1, token.i + 1)
            if head.pos_ == "ADJ" or beside > token.i
        )
        if beside_and or _negated(head if _is_verb(head) else token):
            continue
        if head.pos_ == "ADJ" and word in EN.intensifiers and token.i + 1 == head.i:
            # "an extremely big" would need another article.
            goes = before not in ("a", "an") or (head.lower_[0] in "aeiou") == (before == "an")
        else:
            done = head.pos_ == "VERB" and head.dep_ not in ("amod", "acl")  # not "lightly armed"
            manner = word.endswith("ly") and word not in EN.kept_adverbs and done
            goes = (word == "also" and _is_verb(head)) or (manner and 0 < token.i < head.i)
        if goes:
            yield Deletion("adverb", token.i, token.i + 1)


def _days(doc: "Doc") -> Iterator[Deletion]:
    """Weekdays and the like: "on Monday", "last week", "on March 10"."""
    for token, start, end in _constituents(doc, "prep", "npadvmod", "advmod"):
        words = _words(doc, start, end)
        preposition = words.pop(0) if token.dep_ == "prep" else ""
        if not words or not _is_date(words, preposition):
            continue
        if preposition == "in" and token.head.pos_ != "VERB":
            continue
        if token.dep_ != "prep" and not _is_verb(token.head):
            continue
        before, behind = _word(doc, start - 1), _word(doc, end)
        if token.head.lower_ in EN.days | EN.months or before in EN.before_a_day:
            continue
        if before in EN.beside_a_span or behind in EN.beside_a_span or _negated(token.head):
            continue
        leading = _leads(doc, start) and behind == ","
        if leading and _counts(doc, end):
            continue
        if leading or _whole_without(token.head, start, end):
            yield Deletion("day", start, end)


def _is_date(words: Sequence[str], preposition: str) -> bool:
    """Whether words behind a preposition, or alone, tell a day, a month or a year."""
    if preposition not in ("", "on", "in"):
        return False
    numbers = [word for word in words if word.isdigit()]
    others = [word for word in words if not word.isdigit() and word != ","]
    if preposition == "in":
        years = all(len(number) == 4 for number in numbers)
        return years and len(words) <= 2 and all(word in EN.months for word in others)
    if all(word in EN.days | EN.times for word in words):
        return True
    if preposition == "on":
        return bool(numbers and others) and all(word in EN.months | EN.days for word in others)
    if words[0] == "earlier" and len(words) > 1:
        words = words[1:]
    span = words[-1] in ("week", "month", "year", "weekend", "night") or words[-1] in EN.days
    return len(words) == 2 and words[0] in ("last", "this") and span


def _prepositional_phrases(doc: "Doc") -> Iterator[Deletion]:
    for token, start, end in _constituents(doc, "prep"):
        word, verb = token.lower_, _is_verb(token.head)
        if start != token.i or _negated(token.head):
            continue
        if any(child.dep_ in ("conj", "cc") for child in token.children):
            continue
        if _leads(doc, start):
            if _word(doc, end) == "," and _is_leading_phrase(token, start, end):
                yield Deletion("leading phrase", start, end)
        elif _set_off(doc, start, end) and word in EN.set_off_prepositions:
            if (word == "such" and _word(doc, start + 1) != "as") or _is_enumerated(token, end):
                continue
            if verb or _ends_sentence(doc, end) or word in EN.adding:
                yield Deletion("phrase", start, end)
        elif verb and word in EN.edge_prepositions and _closes(doc, end):
            if _whole_without(token.head, start, end) and not _opens(doc, start):
                yield Deletion("phrase", start, end)


def _is_leading_phrase(token: "Token", start: int, end: int) -> bool:
    """Whether a phrase before a comma, at the beginning, can be done without."""
    doc, verb = token.doc, token.head
    phrase = " ".join(_words(doc, start, end))
    leading = token.lower_ in EN.leading_prepositions and not _counts(doc, end)
    if not (phrase in EN.set_phrases or leading) or end - start > 12:
        return False
    subjects = [child.left_edge.i for child in verb.children if child.dep_ in _SUBJECTS]
    if any(part.text == "," for part in doc[end + 1 : min(subjects, default=end)]):
        return False  # "In Rome, the capital, prices fell"
    unreal = any(child.lower_ in ("would", "could", "might") for child in verb.children)
    return not (
        unreal or phrase in ("at first", "in theory", "in part") or _loses_its_name(doc, start, end)
    )


def _places(doc: "Doc") -> Iterator[Deletion]:
    """Where something happened, at the end: "killed five people in Iowa"."""
    for token, start, end in _constituents(doc, "prep"):
        verb = token.head
        if token.lower_ not in ("in", "at", "near", "outside") or end - start >= 9:
            continue
        if verb.pos_ != "VERB" or verb.lower_ in EN.placing or _negated(verb):
            continue
        objects = [child for child in token.children if child.dep_ == "pobj"]
        if not objects or objects[0].pos_ != "PROPN" or not _ends_sentence(doc, end):
            continue
        if verb.lower_ in EN.complete or any(
            child.dep_ == "dobj" and child.pos_ in ("NOUN", "PROPN") for child in verb.children
        ):
            yield Deletion("place", start, end)


def _counts(doc: "Doc", end: int) -> bool:
    """Whether what follows a leading phrase counts something, which the phrase may limit."""
    return any(
        token.pos_ == "NUM" or token.lower_ in EN.counting | EN.protected
        for token in doc[end : end + 7]
    )


def _is_enumerated(token: "Token", end: int) -> bool:
    """Whether a phrase is one of several alike: "in Rome, in Paris and in Bonn"."""
    if _word(token.doc, end) == "," and _word(token.doc, end + 1) in ("and", "or"):
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
        if doc[1].lower_ not in ("do", "does", "did"):
            yield Deletion("leading word", 0, 1)
    elif doc[1].text == "," and first.dep_ in ("advmod", "cc"):
        if word in EN.connectives or (word.endswith("ly") and word not in EN.kept_adverbs):
            yield Deletion("leading word", 0, 1)


def _connectives(doc: "Doc") -> Iterator[Deletion]:
    for token in doc:
        if not token.i or token.lower_ not in EN.connectives:
            continue
        verb = token.head
        if token.lower_ == "however" and token.dep_ == "advmod" and token.i < verb.i:
            if doc[token.i - 1].dep_ in _SUBJECTS and doc[token.i + 1].text != ",":
                yield Deletion("connective", token.i, token.i + 1)
        late = any(child.dep_ in _SUBJECTS and child.i > token.i for child in verb.children)
        joins = late and verb.i > token.i  # two statements
        if _set_off(doc, token.i, token.i + 1) and not joins:
            yield Deletion("connective", token.i, token.i + 1)


def _titles(doc: "Doc") -> Iterator[Deletion]:
    for token in doc[:-1]:
        if token.text.rstrip(".") in ("Mr", "Mrs", "Ms", "Miss"):
            if doc[token.i + 1].pos_ == "PROPN" and _word(doc, token.i - 1) != "and":
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


def _ways_of_saying(doc: "Doc") -> Iterator[Deletion]:
    """What only tells where something was said, and the "that" behind "said"."""
    for token, start, end in _constituents(doc, "prep"):
        verb, words = token.head, _words(doc, start, end)
        if verb.lower_ not in EN.saying or not any(c.dep_ == "ccomp" for c in verb.children):
            continue
        if (
            token.lower_ in ("in", "at", "during")
            and token.i > verb.i
            and words[1:2] in (["a"], ["an"])
        ):
            if not _negated(verb) and not EN.statements.isdisjoint(words[2:5]):
                yield Deletion("way of saying", start, end)
    for token in doc[1:-1]:
        verb = doc[token.i - 1]
        if token.lower_ == "that" and token.dep_ == "mark" and token.head.head == verb:
            opens = doc[token.i + 1].pos_ in ("PRON", "PROPN", "DET", "NOUN")
            if opens and verb.lower_ in EN.thinking and verb.pos_ == "VERB" and not _negated(verb):
                yield Deletion("that", token.i, token.i + 1)


def _fixed_phrases(doc: "Doc") -> Iterator[Deletion]:
    for place in range(1, len(doc) - 3):
        words = tuple(_words(doc, place, place + 3))
        if words in (("in", "order", "to"), ("as", "well", ".")):
            yield Deletion("fixed phrase", place, place + 2)
        elif words == ("a", "total", "of") and doc[place + 3].pos_ == "NUM":
            yield Deletion("fixed phrase", place, place + 3)


def _time_adverbs(doc: "Doc") -> Iterator[Deletion]:
    """Adverbs of time between an auxiliary and its verb: "was later arrested"."""
    helping = ("aux", "auxpass")
    for token in doc[1:-1]:
        head, before, behind = token.head, doc[token.i - 1], doc[token.i + 1]
        if token.dep_ != "advmod" or token.lower_ not in EN.time_adverbs or head.pos_ != "VERB":
            continue
        if before.dep_ not in helping or next(token.children, None) or _negated(head):
            continue
        if head == behind or behind.dep_ in helping:
            yield Deletion("adverb", token.i, token.i + 1)


def _second_statements(doc: "Doc") -> Iterator[Deletion]:
    """A last statement behind ", and"."""
    for token, start, end in _constituents(doc, "conj"):
        first = token.head
        if first.dep_ != "ROOT" or not _is_verb(token) or doc[0].lower_ in EN.conditions:
            continue
        if [child for child in first.children if child.dep_ == "conj"] != [token]:
            continue
        if any(child.dep_ == "conj" for child in token.children):
            continue
        joined = [c.i for c in first.children if c.dep_ == "cc" and c.i < token.left_edge.i]
        if joined[-1:] != [start - 1] or _words(doc, start - 2, start) != [",", "and"]:
            continue
        if _ends_sentence(doc, end) and not _negated(first):
            yield Deletion("second statement", start - 1, end)


RULES = (
    *(_leading_words, _connectives, _days, _titles, _fixed_phrases, _ways_of_saying, _adverbs),
    *(_time_adverbs, _attributions, _appositions, _relative_clauses, _participles_of_nouns),
    *(_adverbial_clauses, _prepositional_phrases, _places, _dashes, _second_statements),
)
"""In the order in which they are asked, the safest first."""


# The commas and dashes around what was deleted.


def _marks(doc: "Doc", deletions: Sequence[Deletion], gone: Collection[int]) -> set[int]:
    """The marks that go with the deletions: of a pair one, or both where no pause is left."""
    marks: set[int] = set()
    for _, start, end in deletions:
        right = end < len(doc) and doc[end].text in _OPENING
        if all(index in gone or doc[index].text in _OPENING for index in range(start)):
            marks |= {end} if right else set()
        elif _opens(doc, start) and _closes(doc, end):
            marks.add(start - 1)
            if right and (doc[end].text in _DASHES or not _pauses(doc, start, end)):
                marks.add(end)
    return marks


def _pauses(doc: "Doc", start: int, end: int) -> bool:
    """Whether a comma has to stay where a constituent between two commas was deleted."""
    if end + 1 >= len(doc):
        return False
    before, behind = doc[start - 2], doc[end + 1]
    if before.dep_ in ("cc", "mark", "aux", "auxpass", "prep") or before.pos_ in ("SCONJ", "AUX"):
        return False  # "and, after the game, left"
    word = behind.lower_
    for token in doc[end + 1 : end + 4]:
        verb = token.head if token.dep_ in ("aux", "auxpass", "neg") else token
        if _is_verb(verb) and verb.dep_ not in ("relcl", "acl", "advcl"):
            subjects = [child for child in verb.children if child.dep_ in _SUBJECTS]
            if subjects and all(subject.i < start for subject in subjects):
                # Behind its subject a verb follows without a pause.
                return any(part.text == "," for part in doc[end + 1 : verb.i])
            break
        if token.dep_ not in ("advmod", "nsubj", "det", "npadvmod"):
            break
    if _closes_larger(doc, start, end):
        return True
    if word in EN.relatives or word in ("but", "so", "yet", "nor", "while", "although", "though"):
        return True
    if behind.dep_ == "cc":
        conjuncts = [child for child in behind.head.children if child.dep_ == "conj"]
        return any(child.dep_.startswith("nsubj") for verb in conjuncts for child in verb.children)
    if behind.tag_ in ("VBD", "VBZ", "VBP", "MD") and before.pos_ in ("NOUN", "PROPN"):
        return False
    if word in ("that", "to"):
        return False
    if behind.dep_ == "prep" and behind.head.i < start:
        return word in {"including", "with", "such", "like", "according", *EN.edge_prepositions}
    return True


def _closes_larger(doc: "Doc", start: int, end: int) -> bool:
    """Whether the comma at `end` also closes a larger constituent that a comma opened."""
    inner = [token for token in doc[start:end] if not start <= token.head.i < end]
    for token in (inner[0].head, *inner[0].head.ancestors) if inner else ():
        if token.dep_ == "ROOT" or token.right_edge.i not in (end - 1, end):
            return False
        first = token.left_edge.i
        if token.dep_ in ("prep", "advcl", "npadvmod", "acl", "relcl", "appos", "ccomp", "conj"):
            if first == 0 or doc[first - 1].text in _OPENING or doc[first].text in _OPENING:
                return True
    return False
