import pytest

from fastllm.pretrain.house_style import in_house_style


@pytest.mark.parametrize(
    ("article", "printed"),
    [
        ("The town voted on Tuesday to reopen it.", "The town voted Tuesday to reopen it."),
        ("A former guard had received five keys.", "An ex-guard got 5 keys."),
        ("They saved three of four boats.", "They saved 3 of 4 boats."),
        ("However, Mr Berg did not leave.", "Berg didn't leave."),
        ("It cost more than $3 million.", "It cost over $3m."),
        ("It is more than a week old.", "It's over a week old."),
        ("The firm has opened a shop.", "The firm opened a shop."),
        ("It has been forced to close.", "It had to close."),
        ("The firm has taken a shop.", "The firm took a shop."),
        ("They would have opened or taken it.", "They would have opened or taken it."),
        ("They may have taken it.", "They may have taken it."),
        ("She has red hair.", "She has red hair."),
        ("He allegedly stole it.", "He allegedly stole it."),
        ("Janet met 3 of them on October 5.", "Janet met 3 of them on Oct 5."),
        ("The former mayor said that it rained.", "The ex-mayor said it rained."),
        ("He wore a 'red hat' at sea.", "He wore a 'red hat' at sea."),
        ("The team's plans don't change.", "The team's plans don't change."),
        ("It rained, and they are set to leave.", "It rained and they'll leave."),
        ("The U.S. team organized it.", "The US team organised it."),
        ("Only the size is the prize.", "Only the size is the prize."),
        ("The house which he built – all of it.", "The house that he built, all of it."),
        ("The house in which he lives.", "The house where he lives."),
    ],
)
def test_a_sentence_as_it_is_printed(article: str, printed: str) -> None:
    assert in_house_style(article) == printed
    assert in_house_style(printed) == printed, "printed once more it is the same"
