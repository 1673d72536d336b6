import json
from dataclasses import replace
from typing import Any

import pytest

from fastllm.demo import articles
from fastllm.demo.limits import Limits, read_limits
from fastllm.errors import DataError

LIMIT = 20_000


def limits(most_bytes: int, most_articles: int) -> Limits:
    return replace(
        read_limits(environment={}), upload_bytes=most_bytes, compare_articles=most_articles
    )


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


@pytest.mark.parametrize("strange", ["\0", "\x01\x02\x7f" * 9, "\ufffd" * 30, "\ue000" * 30])
def test_binary(story: str, strange: str) -> None:
    with pytest.raises(DataError, match="does not look like text"):
        articles.check(story + strange, LIMIT)


def test_pasted_quotes_bullets_and_joiners_are_text(story: str) -> None:
    pasted = story.replace(" ", " \x93", 20).replace(". ", ". \uf0b7 ") + " می\u200cخواهم क्\u200dष"
    checked = articles.check(pasted, LIMIT)
    assert checked.text == pasted.replace("\x93", "“").replace("\uf0b7", "•")
    assert checked.notices == ()


def test_a_few_control_characters_are_left_out_with_a_notice(story: str) -> None:
    checked = articles.check(story.replace(" ", " \x07", 2), LIMIT)
    assert checked.text == story
    assert checked.notices == ("2 invisible control characters were left out.",)


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
    assert articles.NOT_ENGLISH in articles.check(text, LIMIT).notices


def test_line_ends_become_those_of_the_samples(story: str) -> None:
    text = story.replace(". ", ".\r\n")
    assert articles.check(text, LIMIT).text == text.replace("\r\n", "\n")


def test_markup_is_text_like_any_other(story: str) -> None:
    text = "<script>alert(1)</script> ${7*6} {{x}} <img src=x onerror=alert(1)> " + story
    assert articles.check(text, LIMIT) == articles.Checked(text)


def jsonl(*lines: object) -> str:
    """A .jsonl file as the browser sends it; what is no text is written as JSON."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return json.dumps({"type": ".jsonl", "text": text})


def read(sent: str, most: int = 9) -> list[str]:
    return [article.text for article in articles.read_articles(sent, limits(9_000, most))]


def test_a_file_of_several_articles(story: str) -> None:
    more = {"id": "<b>", "article": f"Again. {story}", "highlights": "none"}
    assert read(jsonl({"article": story}, "", more)) == [story, f"Again. {story}"]


def test_a_text_file_is_one_article(story: str) -> None:
    assert read(json.dumps({"type": ".txt", "text": story})) == [story]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("no JSON", "not a JSON object"),
        ("[" * 5_000, "not a JSON object"),
        ([1], "not a JSON object"),
        ({}, 'no text under "article"'),
        ({"article": 7}, 'no text under "article"'),
        ({"article": " "}, "no article"),
        ({"article": "Too short."}, "2 words"),
        ({"article": "\0" * 99}, "does not look like text"),
    ],
)
def test_a_bad_line_is_named_by_its_number(story: str, line: object, reason: str) -> None:
    with pytest.raises(DataError, match=f"Line 3 of the file: .*{reason}"):
        read(jsonl({"article": story}, " ", line, {"article": story}))


def test_a_file_of_too_many_articles_too_large_or_without_any(story: str) -> None:
    with pytest.raises(DataError, match="3 articles; this page compares on up to 2"):
        read(jsonl(*[{"article": story}] * 3), most=2)
    with pytest.raises(DataError, match="larger than 9,000 bytes"):
        read(jsonl(*[{"article": story}] * 30))
    with pytest.raises(DataError, match="no article to compare"):
        read(jsonl("", " "))
    with pytest.raises(DataError, match="no file yet"):
        read("")


def test_articles_that_a_program_sends(story: str) -> None:
    def check(given: Any) -> list[articles.Checked]:
        return articles.check_all(given, limits(2_000, 9))

    assert check([story, f" {story}"]) == [articles.Checked(story)] * 2
    for given, reason in (
        (story, "articles=.The old mill .*: give a list of texts"),
        (None, "articles=None"),
        ([], "no article to compare"),
        ([story, 7], "Article 2: There is no article"),
        ([story] * 10, "10 articles"),
        ([story] * 9, "bytes together; this page takes 2,000"),
    ):
        with pytest.raises(DataError, match=reason):
            check(given)
