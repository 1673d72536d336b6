import pytest

from fastllm.pretrain.house_style import in_house_style


@pytest.mark.parametrize(
    ("article", "printed"),
    [
        ("The town voted on Tuesday to reopen it.", "The town voted Tuesday to reopen it."),
        ("They saved three of four boats.", "They saved 3 of 4 boats."),
        ("Three-quarters of the two-year-old boats.", "Three-quarters of the 2-year-old boats."),
        ("Two of them left.", "Two of them left."),
        ("However, Mr Berg did not leave.", "Berg did not leave."),
        ("It cost more than 3 euros.", "It cost over 3 euros."),
        ("The firm has opened a shop.", "The firm opened a shop."),
        ("The firm has been given a shop.", "The firm was given a shop."),
        ("The firm has taken a shop.", "The firm took a shop."),
        ("It has been forced to close.", "It had to close."),
        ("They would have opened or taken it.", "They would have opened or taken it."),
        ("They may have taken it.", "They may have taken it."),
        ("She has red hair.", "She has red hair."),
        ("He allegedly stole it.", "He allegedly stole it."),
        ("Janet met 3 of them on October 5.", "Janet met 3 of them on Oct 5."),
        ("The mayor revealed that it rained.", "The mayor said it rained."),
        ("The mayor said that rain fell.", "The mayor said rain fell."),
        ("The team's plans don't change.", "The team's plans don't change."),
        ("It rained, and they are set to leave.", "It rained and they will leave."),
        ("The house which he built.", "The house that he built."),
        ("The house in which he lives.", "The house where he lives."),
        ("A man who was driving fell.", "A man driving fell."),
    ],
)
def test_a_sentence_as_it_is_printed(article: str, printed: str) -> None:
    assert in_house_style(article) == printed
    assert in_house_style(printed) == printed, "printed once more it is the same"
