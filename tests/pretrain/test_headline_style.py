import pytest

from fastllm.pretrain.headline_style import brief


@pytest.mark.parametrize(
    ("sentence", "short"),
    [
        (
            "The storm will reach the west coast on Thursday.",
            "The storm to reach west coast Thursday.",
        ),
        ("However, the court said that it will wait.", "The court said it will wait."),
        ("But Mr Lee won a prize.", "Lee won prize."),
        ("Crews found three men who were buried.", "Crews found 3 men buried."),
        ("Sales rose 20 per cent in the United States.", "Sales rose 20% in US."),
        ("Jobs such as these cost more than $5m.", "Jobs like these cost over $5m."),
        ("It is also a very old town.", "It is old town."),
    ],
)
def test_a_sentence_becomes_a_line_of_a_ticker(sentence: str, short: str) -> None:
    assert brief(sentence) == short


@pytest.mark.parametrize(
    "sentence",
    [
        'She said "the dog will bite" on Monday.',
        "He wrote that ‘a few of the men’ left.",
        "Gusts of 85 miles an hour hit Port Kell.",
        "They will not sell.",
        "She took vitamin A in a few hours.",
        "The will of Ada Lee was read.",
    ],
)
def test_quotations_rates_and_pronouns_stay_as_they_are(sentence: str) -> None:
    assert brief(sentence) == sentence


def test_the_beginning_keeps_its_article_and_its_capital() -> None:
    assert brief("A man and the dog ran.").startswith("A man")
    assert brief("Meanwhile, it rained.") == "It rained."
    assert brief("") == ""
