import json
import lzma
from types import SimpleNamespace

import pytest

from fastllm.data.articles import Article
from fastllm.errors import SettingsError
from fastllm.pretrain import summaries, windows
from fastllm.pretrain.house_style import in_house_style
from fastllm.pretrain.summaries import (
    Sentence,
    Window,
    central_order,
    choose_by_reference,
    choose_central,
    extract,
    is_lead,
    is_usable,
    n_grams,
    overlap,
    sentences_of,
    stands,
    summarise,
    windows_of,
    write_lines,
    write_summaries,
)
from fastllm.pretrain.windows import Windows


class Words:
    """A vocabulary of one token a word, with one more for the end."""

    def tokenizer(self, text, return_offsets_mapping=False, verbose=True):
        spans, place = [], 0
        for word in text.split():
            place = text.index(word, place)
            spans.append((place, place + len(word)))
            place += len(word)
        return {"input_ids": [0] * (len(spans) + 1), "offset_mapping": [*spans, (0, 0)]}

    def encode(self, text, limit):
        return SimpleNamespace(ids=[0] * min(limit, len(text.split()) + 1))


def plain(*texts):
    place, found = 0, []
    for text in texts:
        found.append(Sentence(text, place, place + len(text)))
        place += len(text) + 1
    return found


STORY = [
    "The harbour of Old Bay will get a new bridge for ships and trains next spring.",
    "The bridge will carry trains and cars over the harbour for two hours a day.",
    "Anna Berg leads the team that builds the bridge, and has two hundred people.",
    "She has worked for the team since she left the school of Old Bay.",
    "Many birds nest near the lake that lies north of the small village.",
    "The trains to Old Bay need two hours more without the bridge over the harbour.",
]


@pytest.mark.parametrize(
    "dateline",
    ["ROME (Reuters) - ", "(CNN) ", "NEW YORK, March 3 (Reuters) - ", "WASHINGTON — ", "(CNN)"],
)
def test_a_dateline_is_no_part_of_a_sentence(dateline):
    text = dateline + "Rain fell all day. Nobody went out."
    first, second = sentences_of(text)
    assert first.text == "Rain fell all day."
    assert text[first.start : first.end] == first.text
    assert text[second.start : second.end] == "Nobody went out."


@pytest.mark.parametrize(
    "name", ["NASA chief Ann Lee won.", "The BBC won.", "FBI Director Lee won."]
)
def test_a_name_in_capitals_is_no_dateline(name):
    assert sentences_of(name)[0].text == name


@pytest.mark.parametrize(
    "sentence",
    [
        "Rain fell.",
        "Why did so many people walk home in the rain today?",
        "We walked home in the rain because the buses were full.",
        "Click here for more of the news about the rain in Rome.",
        "Wet feet: A man walks through the rain in the old town.",
        '"The rain will go on for many days," said the man from Rome.',
        'The man from Rome said "the rain will go on for many days" there.',
        "the rain fell on the roofs of the old town all day.",
        "The rain fell on the roofs of the old town all day",
        "The old man of the sea After a long night the rain fell at last.",
        "Pictured above, the rain falls on the roofs of the old town.",
        "The rain fell all day on the roofs of the old town of Mr.",
    ],
)
def test_what_cannot_stand_in_a_summary(sentence):
    assert not is_usable(sentence)


def test_plain_news_can_stand_in_a_summary_and_open_it():
    assert all(map(is_usable, STORY))
    assert is_lead(STORY[0])


@pytest.mark.parametrize(
    "sentence",
    [
        "It was a cold and rainy night in the old town of Rome that day.",
        "When Anna Berg came to Rome, the rain had not stopped for many days.",
        "He came to Rome by train, and the rain had not stopped for many days.",
        "the men and women of the town came to see the rain and the storm.",
    ],
)
def test_a_scene_opens_no_summary(sentence):
    assert not is_lead(sentence)


def test_she_needs_a_name_before_her_and_it_needs_its_own_sentence_before_it():
    story = plain(*STORY, "It was built long ago.")
    assert not stands(3, [], story)
    assert not stands(3, [4], story)
    assert stands(3, [2], story)
    assert stands(6, [5], story)
    assert not stands(6, [2], story)


def test_the_lead_comes_first_and_what_nobody_else_speaks_of_does_not_come():
    order = central_order(plain(*STORY), range(6))
    assert order[0] == 0
    assert len(order) == 3
    assert 4 not in order


def test_overlap_counts_words_and_pairs_as_often_as_both_have_them():
    reference = n_grams("the cat saw the dog")
    assert overlap("the cat saw the dog", reference) == pytest.approx(2.0)
    assert overlap("The cat saw the dog.", reference) == pytest.approx(2.0)
    assert overlap("a bird", reference) == 0
    # "the" twice of 3 and 5 words; no pair of 2 and 4.
    assert overlap("the the the", reference) == pytest.approx(2 * 2 / 8)
    assert overlap("", n_grams("")) == 0


def test_the_reference_chooses_greedily_and_in_the_order_of_the_article():
    story = plain(*STORY)
    reference = "Trains to Old Bay need two hours more. Old Bay will get a new bridge next spring."
    chosen = choose_by_reference(dict(enumerate(STORY)), story, reference)
    assert chosen == (0, 5)


def test_a_second_sentence_is_taken_even_where_the_reference_gains_nothing():
    story = plain(STORY[0], STORY[4])
    chosen = choose_by_reference({0: STORY[0], 1: STORY[4]}, story, STORY[0])
    assert chosen == (0, 1)


def test_a_third_sentence_is_taken_only_while_the_summary_is_short():
    story = plain(*STORY)
    whole = dict(enumerate(STORY))
    short = {0: "Old Bay gets a bridge.", 2: "Anna Berg leads the team.", 5: "Trains need it."}
    assert choose_central([0, 2, 5], short, story) == (0, 2, 5)
    long = {index: text + " And so on" * 4 for index, text in whole.items()}
    assert choose_central([0, 2, 5], long, story) == (0, 2)


def test_no_statement_gets_into_a_summary():
    story = plain(*STORY)
    shortened = {0: STORY[0], 1: "", 5: STORY[5]}
    assert choose_central([0, 1, 5], shortened, story) == (0, 5)


def test_a_window_with_one_sentence_has_no_summary_unless_it_is_short():
    story = plain(*STORY)
    shortened = {0: STORY[0]}
    assert summarise(Window("start", 0, 99, (0,)), story, shortened, Words()) is None
    made = summarise(Window("short", 0, 99, (0,)), story, shortened, Words())
    assert made == (STORY[0], 1.0)


def test_a_summary_of_too_many_tokens_is_none():
    class Long(Words):
        def encode(self, text, limit):
            return SimpleNamespace(ids=[0] * limit)

    story = plain(*STORY)
    shortened = dict(enumerate(STORY))
    window = Window("whole", 0, 999, (0, 1, 5))
    assert summarise(window, story, shortened, Words()) is not None
    assert summarise(window, story, {i: 5 * t for i, t in shortened.items()}, Long()) is None


def long_article(name="a"):
    return Article(name, " ".join(STORY * 12))


def test_every_chosen_sentence_lies_inside_its_window():
    article = long_article()
    sentences = sentences_of(article.text)
    windows = windows_of(article, sentences, Words())
    assert {window.kind for window in windows} >= {"whole", "start", "later"}
    for window in windows:
        for index in window.candidates:
            assert window.start <= sentences[index].start
            assert sentences[index].end <= window.end
        tokens = len(article.text[window.start : window.end].split())
        assert tokens <= {"whole": 512, "start": 256, "later": 256, "short": 110}[window.kind]


def test_a_later_window_begins_with_a_sentence():
    article = long_article()
    sentences = sentences_of(article.text)
    (later,) = [w for w in windows_of(article, sentences, Words()) if w.kind == "later"]
    assert later.start in {sentence.start for sentence in sentences}
    assert later.start >= len(article.text) // 2


def test_one_article_in_eight_has_a_short_window():
    kinds = []
    for number in range(160):
        article = long_article(f"story-{number}")
        windows = windows_of(article, sentences_of(article.text), Words())
        kinds += [window for window in windows if window.kind == "short"]
    assert 8 <= len(kinds) <= 40
    assert all(60 <= len(long_article().text[: w.end].split()) <= 110 for w in kinds)


def test_texts_are_written_as_lines_with_their_places(tmp_path):
    article = long_article()
    path = tmp_path / "part-0.jsonl"
    written = write_lines([article], Words(), list, path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == sum(written.values()) == len({row["window"] for row in rows})
    for row in rows:
        assert set(row) == {"id", "window", "start", "end", "text", "kept"}
        visible = article.text[row["start"] : row["end"]]
        assert all(sentence in visible for sentence in row["text"].split(". ")[:1])
        assert row["kept"] == 1.0


def start_window(article, sentences):
    return next(w for w in windows_of(article, sentences, Words()) if w.kind == "start")


LEAD = "The council of Ostby voted on Monday to close its only swimming pool in 2 years."
NEW = "Repairs of the roof would have cost 3 million crowns."


def extracted(*sentences):
    article = Article("story", " ".join([*sentences, long_article().text]))
    found = sentences_of(article.text)
    return extract(found, start_window(article, found))


def test_an_extract_is_the_first_sentence_and_the_next_one_in_house_style():
    lead = LEAD.replace("2 years", "two years")
    assert extracted(lead, NEW) == f"{in_house_style(LEAD)} {NEW}"


@pytest.mark.parametrize(
    "passed_over",
    [
        "The council of Ostby closed the pool on Monday.",
        "Its mayor, “a swimmer all my life”, had asked for another year.",
        "What comes next for all of the swimmers of the town?",
        f"Repairs of the roof {'and of the walls ' * 8}would have cost 3 million crowns.",
    ],
    ids=["repeats", "quotes", "asks", "long"],
)
def test_a_sentence_that_cannot_follow_the_lead_is_passed_over(passed_over):
    assert extracted(LEAD, passed_over, NEW) == f"{in_house_style(LEAD)} {NEW}"


def test_where_nothing_new_follows_soon_the_lead_stands_alone():
    assert extracted(LEAD, *["Ostby will close the pool in 2 years."] * 3, NEW) == in_house_style(
        LEAD
    )


@pytest.mark.parametrize(
    "first", ["She has worked here for ten years and likes the people.", "Photo by A. Berg."]
)
def test_an_article_whose_first_sentence_cannot_open_a_summary_has_no_extract(first):
    assert extracted(first) == ""


def test_extracts_need_no_parser(monkeypatch, tokenizer_folder, tmp_path):
    monkeypatch.setattr(summaries.importlib.util, "find_spec", lambda name: None)
    write_split(tmp_path, "train", [("story", long_article().text)])
    settings = {"articles": 5, "shorten": False, "say": lambda line: None}
    found = write_summaries(tmp_path, tmp_path / "out", tokenizer_folder, **settings)
    assert len(found) > 0
    with pytest.raises(SettingsError, match="spacy"):
        write_summaries(
            tmp_path, tmp_path / "other", tokenizer_folder, **{**settings, "shorten": True}
        )


def test_full_windows_are_exactly_as_long_as_asked(vocabulary, tmp_path):
    article = long_article()
    path = tmp_path / "part-0.jsonl"
    write_lines([article], vocabulary, list, path)
    wanted = {"whole": 512, "start": 256, "later": 256}
    kinds = set()
    for window in windows_of(article, sentences_of(article.text), vocabulary):
        if window.kind in wanted:
            kinds.add(window.kind)
            inside = summaries.Text(window.kind, window.start, window.end, "Rain.")
            folder = tmp_path / window.kind
            windows.write_windows(folder, [(article.text, [inside])], vocabulary, prefix=". ")
            length = len(Windows(folder).source(0, 600))
            assert length == wanted[window.kind] or window.end == len(article.text)
    assert kinds == set(wanted)


@pytest.fixture
def unparsed(monkeypatch):
    """Sentences stay as they are, so that no parser is needed."""
    monkeypatch.setattr(summaries, "require_parser", lambda: None)
    monkeypatch.setattr(summaries, "shortener", lambda: list)


def write_split(folder, split, rows):
    with lzma.open(folder / f"{split}.jsonl.xz", "wt") as file:
        for name, article in rows:
            file.write(json.dumps({"id": name, "article": article}) + "\n")


def test_texts_of_all_splits_are_written_and_joined_and_a_second_run_goes_on(
    unparsed, tokenizer_folder, vocabulary, tmp_path
):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for split, count in (("train", 6), ("articles", 4), ("validation", 3)):
        write_split(data, split, [(f"{split}-{i}", long_article().text) for i in range(count)])
    texts = out / "texts"
    texts.mkdir(parents=True)
    cut_off = {"id": "train-0", "window": "start", "start": 0, "end": 300, "text": "Rain. Sun."}
    (texts / "part-0.jsonl").write_text(json.dumps(cut_off) + '\n{"id": "train-1", "te')
    said = []
    settings = {"articles": 5, "prefix": ". ", "say": said.append}
    found = write_summaries(data, out, tokenizer_folder, **settings)
    rows = [json.loads(line) for line in (texts / "part-0.jsonl").read_text().splitlines()
            if line.endswith("}")]  # fmt: skip
    names = {row["id"] for row in rows}
    assert sum(row["id"] == "train-0" for row in rows) == 1, "written before, not again"
    assert len(names & {f"train-{i}" for i in range(6)}) >= 5
    assert {name for name in names if name.startswith("articles")} == {
        f"articles-{i}" for i in range(4)
    }
    assert found.meta["articles"] == 9, "five of train, four articles"
    assert Windows(out / "validation").meta["articles"] == 3
    assert found.vocabulary.fingerprint == vocabulary.fingerprint
    lines = len(said)
    again = write_summaries(data, out, tokenizer_folder, **settings)
    assert (len(said), len(again)) == (lines, len(found)), "everything is there"
    (out / "meta.json").unlink()
    with pytest.raises(SettingsError, match="another target"):
        write_summaries(data, out, tokenizer_folder, **{**settings, "prefix": "summarize: "})


def test_without_spacy_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(summaries.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"spacy and en_core.*fastllm\[texts\]"):
        summaries.require_parser()
