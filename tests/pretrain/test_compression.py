import pytest

from fastllm.pretrain.compression import (
    RULES,
    compress,
    join_words,
    may_be_shortened,
    without_brackets,
)


def split(text):
    """Words and blanks of a text whose tokens stand apart by "|" (no blank) or a blank."""
    words, blanks = [], []
    for group in text.split(" "):
        parts = group.split("|")
        words += parts
        blanks += [False] * (len(parts) - 1) + [True]
    return words, blanks


@pytest.mark.parametrize(
    ("text", "gone", "expected"),
    [
        ("But rain fell|.", {0}, "Rain fell."),
        ("On Friday|, rain fell|.", {0, 1, 2}, "Rain fell."),
        ("On Friday|, rain fell|.", {0, 1}, "Rain fell."),  # a comma that lost its phrase
        ("Ann|, a nurse|, sang|.", {1, 2, 3, 4}, "Ann sang."),
        ("They met Ann|, a nurse|.", {3, 4, 5}, "They met Ann."),
        ("They met Ann|, a nurse|.", {4, 5}, "They met Ann."),
        ("Rain fell|, wind rose|, snow came|.", {3, 4}, "Rain fell, snow came."),
        ("Ann|'s big dog ran|.", {2}, "Ann's dog ran."),
        ("It rose 5 very|% today|.", {3}, "It rose 5% today."),
        ("Ann - a nurse - sang|.", {1, 2, 3, 4}, "Ann sang."),
        ("Ann sang - loudly|.", {3}, "Ann sang."),
        ("Rain fell|.", set(), "Rain fell."),
    ],
)
def test_what_is_left_is_a_sentence_again(text, gone, expected):
    assert join_words(*split(text), gone) == expected


def test_nothing_is_left_of_nothing():
    assert join_words(["Rain", "."], [False, False], {0, 1}) == ""


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The firm ( ABC.L ) rose.", "The firm rose."),
        ("Ann Lee (left) and Bo Day (right) sang.", "Ann Lee and Bo Day sang."),
        ("It cost £5 (about $8).", "It cost £5."),
        ('He called it (as "one" of many) a start.', 'He called it (as "one" of many) a start.'),
        ("(All of it) went.", "(All of it) went."),
        ("274637(CODES) came.", "274637 came."),
        ("f(x)y stays.", "f(x)y stays."),
    ],
)
def test_brackets_go_before_the_parse(sentence, expected):
    assert without_brackets(sentence) == expected


def test_a_sentence_without_any_sign_needs_no_parse():
    assert not may_be_shortened("Five cats sleep under a tree.")
    assert may_be_shortened("Five cats, all black, sleep.")
    assert may_be_shortened("But five cats sleep.")
    assert may_be_shortened("Five cats slept on Monday.")


def parsed(text):
    """A document from lines of word, part of speech, tag, head (a place) and label."""
    spacy = pytest.importorskip("spacy")
    tokens = pytest.importorskip("spacy.tokens")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    words = [row[0] for row in rows]
    spaces = [following not in {",", ".", "'s"} for following in [*words[1:], "."]]
    return tokens.Doc(
        spacy.blank("en").vocab,
        words=words,
        spaces=spaces,
        pos=[row[1] for row in rows],
        tags=[row[2] for row in rows],
        heads=[int(row[3]) for row in rows],
        deps=[row[4] for row in rows],
    )


MAYOR = """
The       DET   DT  1  det
mayor     NOUN  NN  {verb} nsubj
,         PUNCT ,   1  punct
who       PRON  WP  4  nsubj
lives     VERB  VBZ 1  relcl
in        ADP   IN  4  prep
Bonn      PROPN NNP 5  pobj
,         PUNCT ,   1  punct
"""

OPENED = (
    MAYOR.format(verb=8)
    + """
opened    VERB  VBD 8  ROOT
a         DET   DT  11 det
new       ADJ   JJ  11 amod
bridge    NOUN  NN  8  dobj
on        ADP   IN  8  prep
Monday    PROPN NNP 12 pobj
.         PUNCT .   8  punct
"""
)

DENIED = (
    MAYOR.format(verb=10)
    + """
did       AUX   VBD 10 aux
not       PART  RB  10 neg
open      VERB  VB  10 ROOT
a         DET   DT  12 det
bridge    NOUN  NN  10 dobj
on        ADP   IN  10 prep
Monday    PROPN NNP 13 pobj
.         PUNCT .   10 punct
"""
)


def rules_of(compressed):
    return [deletion.rule for deletion in compressed.deletions]


def test_a_relative_clause_goes_with_both_its_commas_and_a_weekday_with_its_on():
    short = compress(parsed(OPENED))
    assert short.text == "The mayor opened a new bridge."
    assert rules_of(short) == ["relative clause", "day"]


def test_nothing_goes_that_a_negation_reaches():
    short = compress(parsed(DENIED))
    assert short.text == "The mayor did not open a bridge on Monday."
    assert rules_of(short) == ["relative clause"]


def test_a_verb_keeps_the_day_that_it_needs():
    doc = parsed("""
The      DET   DT  1 det
council  NOUN  NN  4 nsubj
in       ADP   IN  1 prep
Bonn     PROPN NNP 2 pobj
meets    VERB  VBZ 4 ROOT
on       ADP   IN  4 prep
Monday   PROPN NNP 5 pobj
.        PUNCT .   4 punct
""")
    assert compress(doc).text == "The council in Bonn meets on Monday."


def test_a_condition_stays():
    doc = parsed("""
If       SCONJ IN  2 mark
rain     NOUN  NN  2 nsubj
falls    VERB  VBZ 7 advcl
,        PUNCT ,   7 punct
the      DET   DT  5 det
game     NOUN  NN  7 nsubjpass
is       AUX   VBZ 7 auxpass
moved    VERB  VBN 7 ROOT
to       ADP   IN  7 prep
Bonn     PROPN NNP 8 pobj
.        PUNCT .   7 punct
""")
    assert compress(doc).deletions == ()


def test_one_comma_stays_where_another_clause_follows():
    doc = parsed("""
They     PRON  PRP 1  nsubj
praised  VERB  VBD 1  ROOT
Ann      PROPN NNP 1  dobj
,        PUNCT ,   2  punct
a        DET   DT  6  det
young    ADJ   JJ  6  amod
nurse    NOUN  NN  2  appos
,        PUNCT ,   1  punct
but      CCONJ CC  1  cc
they     PRON  PRP 10 nsubj
paid     VERB  VBD 1  conj
her      PRON  PRP 10 dative
nothing  PRON  NN  10 dobj
.        PUNCT .   1  punct
""")
    assert compress(doc).text == "They praised Ann, but they paid her nothing."


@pytest.mark.parametrize("word", ["former", "only", "alleged"])
def test_what_changes_the_truth_protects_its_constituent(word):
    doc = parsed(f"""
They     PRON  PRP 1  nsubj
praised  VERB  VBD 1  ROOT
Ann      PROPN NNP 1  dobj
,        PUNCT ,   2  punct
the      DET   DT  6  det
{word}   ADJ   JJ  6  amod
thief    NOUN  NN  2  appos
.        PUNCT .   1  punct
""")
    assert compress(doc).deletions == ()


def test_a_leading_but_a_month_and_also_go():
    doc = parsed("""
But      CCONJ CC  3 cc
she      PRON  PRP 3 nsubj
also     ADV   RB  3 advmod
won      VERB  VBD 3 ROOT
two      NUM   CD  6 nummod
big      ADJ   JJ  6 amod
prizes   NOUN  NNS 3 dobj
in       ADP   IN  3 prep
June     PROPN NNP 7 pobj
.        PUNCT .   3 punct
""")
    assert compress(doc).text == "She won two big prizes."


FALL = """
In       ADP   IN  {verb} prep
Rome     PROPN NNP 0 pobj
,        PUNCT ,   {verb} punct
{middle}
prices   NOUN  NNS {verb} nsubj
fell     VERB  VBD {verb} ROOT
at       ADP   IN  {verb} prep
last     ADJ   JJ  {at} pobj
after    ADP   IN  {verb} prep
rain     NOUN  NN  {after} pobj
.        PUNCT .   {verb} punct
"""


def test_a_leading_phrase_goes_but_not_from_before_its_apposition():
    plain = FALL.format(verb=4, at=5, after=7, middle="")
    assert compress(parsed(plain)).text == "Prices fell at last after rain."
    capital = "the DET DT 4 det\ncapital NOUN NN 1 appos\n, PUNCT , 7 punct"
    doc = parsed(FALL.format(verb=7, at=8, after=10, middle=capital))
    assert compress(doc).text == "In Rome, the capital, prices fell at last after rain."


def test_a_quotation_stays_as_it_is():
    doc = parsed("""
She      PRON  PRP 1 nsubj
said     VERB  VBD 1 ROOT
it       PRON  PRP 5 nsubj
“        PUNCT ``  5 punct
really   ADV   RB  5 advmod
hurts    VERB  VBZ 1 ccomp
us       PRON  PRP 5 dobj
”        PUNCT ''  1 punct
.        PUNCT .   1 punct
""")
    assert compress(doc).deletions == ()


def test_two_statements_in_a_row_are_none():
    doc = parsed("""
Rain     NOUN  NN  1 nsubj
fell     VERB  VBD 1 ROOT
Snow     NOUN  NN  3 nsubj
came     VERB  VBD 3 ROOT
.        PUNCT .   3 punct
""")
    short = compress(doc)
    assert not short.statement
    assert short.text == "Rain fell Snow came."


def test_at_most_three_fifths_of_a_sentence_go():
    doc = parsed("""
She      PRON  PRP 1  nsubj
won      VERB  VBD 1  ROOT
,        PUNCT ,   1  punct
beating  VERB  VBG 1  advcl
the      DET   DT  6  det
best     ADJ   JJS 6  amod
runner   NOUN  NN  3  dobj
of       ADP   IN  6  prep
the      DET   DT  9  det
town     NOUN  NN  7  pobj
.        PUNCT .   1  punct
""")
    assert compress(doc).deletions == ()


def test_every_rule_has_something_to_say_about_a_sentence_without_a_word():
    doc = parsed(". PUNCT . 0 ROOT")
    assert [list(rule(doc)) for rule in RULES] == [[]] * len(RULES)
