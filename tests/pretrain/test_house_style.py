import pytest

from fastllm.pretrain.house_style import in_house_style


@pytest.mark.parametrize(
    ("article", "printed"),
    [
        ("The town voted on Tuesday to reopen it.", "The town voted to reopen it."),
        ("On Friday, rain fell in Rome.", "Rain fell in Rome."),
        ("Rain fell on Monday and Tuesday in Rome.", "Rain fell on Monday and Tuesday in Rome."),
        ("Two men were hurt, police said.", "Two men were hurt."),
        ("Rain fell, according to the town council.", "Rain fell."),
        ("Anna Berg, 34, works there.", "Anna Berg works there."),
        ("An 18-year-old man met a 19-year-old actor.", "A man met an actor."),
        ("The 26-year-old took to the sea.", "The 26-year-old took to the sea."),
        ("However, Mr Berg did not leave.", "Berg didn't leave."),
        ("It cost more than $3 million.", "It cost over $3m."),
        ("They saved three of four boats.", "They saved 3 of 4 boats."),
        ("The firm has opened a shop.", "The firm opened a shop."),
        ("She has red hair.", "She has red hair."),
        ("He allegedly stole it.", "He allegedly stole it."),
        ("It is more than a game.", "It is more than a game."),
        ("Janet met 3 of them on October 5.", "Janet met 3 of them on Oct 5."),
        ("It has opened each day since May.", "It has opened each day since May."),
        ("They would have opened it.", "They would have opened it."),
        ("The former mayor said that it rained.", "The ex-mayor said it rained."),
        ("He wore a ' red hat ' at sea.", "He wore a red hat at sea."),
        ("The team's plans don't change.", "The team's plans don't change."),
    ],
)
def test_a_sentence_as_it_is_printed(article: str, printed: str) -> None:
    assert in_house_style(article) == printed
    assert in_house_style(printed) == printed, "printed once more it is the same"
