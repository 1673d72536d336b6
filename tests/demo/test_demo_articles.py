import pytest

from fastllm.demo import articles, texts
from fastllm.errors import DataError

LIMIT = 20_000


def test_six_samples_of_a_fitting_length() -> None:
    samples = articles.samples()
    assert len(samples) == 6
    for title, text in samples.items():
        assert title[0].isupper()
        assert 150 <= len(text.split()) <= 500
        assert text.isascii()
        assert articles.check(text, LIMIT) == articles.Checked(text)


@pytest.mark.parametrize("text", ["", " \n\t ", "\u2003"])
def test_empty(text: str) -> None:
    with pytest.raises(DataError, match="no article"):
        articles.check(text, LIMIT)


def test_too_short() -> None:
    with pytest.raises(DataError, match="29 words"):
        articles.check("word " * 29, LIMIT)


def test_too_long(story: str) -> None:
    with pytest.raises(DataError, match="takes 100"):
        articles.check(story, 100)


@pytest.mark.parametrize(
    "strange", ["\0", "\x01\x02\x7f" * 9, "\ufffd" * 30, "\ue000" * 30]
)
def test_binary(story: str, strange: str) -> None:
    with pytest.raises(DataError, match="does not look like text"):
        articles.check(story + strange, LIMIT)


def test_a_few_control_characters_are_left_out_with_a_notice(story: str) -> None:
    checked = articles.check(story.replace(" ", " \x07", 2), LIMIT)
    assert checked.text == story
    assert checked.notices == (texts.cleaned(2),)


@pytest.mark.parametrize(
    "text",
    [
        "Der Stadtrat hat am Dienstag beschlossen, die alte Bruecke wieder zu oeffnen. " * 4,
        "Совет города проголосовал во вторник за открытие старого моста. " * 4,
        "市議会は火曜日、古い鉄道橋を歩行者と自転車のために再開することを決めた。" * 5,
        "lorem ipsum dolor sit amet consectetur adipiscing elit sed do " * 4,
        "1 2 3 4 5 6 7 8 9 10 " * 4,
    ],
)
def test_other_languages_are_raced_with_a_notice(text: str) -> None:
    assert texts.NOT_ENGLISH in articles.check(text, LIMIT).notices


def test_line_ends_become_those_of_the_samples(story: str) -> None:
    text = story.replace(". ", ".\r\n")
    assert articles.check(text, LIMIT).text == text.replace("\r\n", "\n")


def test_markup_is_text_like_any_other(story: str) -> None:
    text = "<script>alert(1)</script> ${7*6} {{x}} <img src=x onerror=alert(1)> " + story
    assert articles.check(text, LIMIT) == articles.Checked(text)
