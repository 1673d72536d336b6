"""The guessing game: whatever is guessed the text is the target's own, and the counts are right."""

import json
import pickle
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import END, FakeTarget, always, never, random_rule, text_rule

from fastllm.decoding import autoregress
from fastllm.demo.folds.game import words as game_words
from fastllm.demo.folds.game.game import (
    MOST_SENT_BACK,
    YOU,
    Game,
    Score,
    Turn,
    Writer,
    rivals_of,
    tokens_of,
    words_of,
)
from fastllm.demo.folds.race import words as race_words
from fastllm.drafters.lookup import ArticleLookup
from fastllm.errors import DataError, NotFiniteError
from fastllm.targets import resolve
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Encoded, Vocabulary

PIECES = tuple("<s>|</s>| The| old| mill|er| on|-| the| river|side| burned|,| near|.".split("|"))
"""Ids are places. The words of one piece are whole; the others go on with the word before."""

ID = {piece: token for token, piece in enumerate(PIECES)}
TEXT = " The| old| mill|er| on| the| river|side|,| near| the| mill|.".split("|")
"""What the target of most tests writes: The old miller on the riverside, near the mill."""

GREEDY = DecodingConfig(max_new_tokens=24)


class Tokenizer:
    """Of whole words and a few endings; every other word is the piece "-"."""

    def __len__(self) -> int:
        return len(PIECES)

    def __call__(self, text: str, **options: bool) -> dict[str, list[int]]:
        assert options == {"add_special_tokens": False, "split_special_tokens": True}
        found = []
        for word in text.split():
            stem = next((p for p in (" mill", " river") if f" {word}".startswith(p)), "")
            end = f" {word}".removeprefix(stem)
            if f" {word}" in ID:
                found.append(ID[f" {word}"])
            else:
                found += [ID[stem], ID[end]] if stem and end in ID else [ID["-"]]
        return {"input_ids": found}


class Table:
    """A vocabulary that is `PIECES`."""

    fingerprint = "pieces"
    tokenizer = Tokenizer()

    def encode(self, text: str, limit: int, prefix: str = "") -> Encoded:
        return Encoded([ID["-"]] * len(text.split()) + [END], None)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        found = [PIECES[token] if token > END else "" for token in ids]
        return [found[0].removeprefix(" "), *found[1:]] if found else []

    def names(self, ids: Sequence[int]) -> dict[int, str]:
        return {token: PIECES[token] for token in ids}


class Served:
    """Models as a page has them."""

    def __init__(self, target: Any, drafters: Mapping[str, Any]) -> None:
        self.target = target
        self.drafters = drafters

    def drafter(self, key: str) -> Any:
        return self.drafters[key]


def ids_of(pieces: Sequence[str]) -> list[int]:
    return [ID[piece] for piece in pieces]


def table(text: Sequence[str] = TEXT, **drafters: Any) -> Served:
    target = FakeTarget(text_rule(ids_of(text), len(PIECES)))
    target.vocabulary = Table()  # type: ignore[assignment]  # as much of one as is asked for
    return Served(target, drafters)


def turn(models: Served, game: Game | None, kind: str, typed: str = "", **more: Any) -> Turn:
    game = game or Game.fresh("key", list(models.drafters))
    words = words_of(typed) if kind == "words" else ()
    config = more.pop("config", GREEDY)
    return Turn("the mill near the river", config, game, kind, words, **more)


def rows_of(models: Any, asked: Turn, stop: threading.Event | None = None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in asked.lines(models, stop or threading.Event())]


def play(models: Served, game: Game | None, kind: str, typed: str = "", **more: Any) -> Any:
    """The last row of a turn, and the game behind it as the browser sends it back."""
    asked = turn(models, game, kind, typed, **more)
    row = rows_of(models, asked)[-1]
    read = Game.read(json.dumps(row) + "\n", list(models.drafters))
    assert read is not None
    return row, read


def said(row: dict[str, Any]) -> str:
    return "".join(piece for piece, _ in row["text"])


def states(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(word["t"], word["s"]) for word in row["judged"]]


def written_alone(target: Any, config: DecodingConfig, article: str) -> list[int]:
    encoded = target.vocabulary.encode(article, target.source_length, target.prefix)
    rounds = autoregress(
        target.begin(target.encode(encoded.ids)),
        resolve(config, target),
        start_id=target.start_id,
        end_id=target.end_id,
    )
    return [token for entry in rounds for token in entry.tokens]


def test_the_counts_of_three_turns_by_hand() -> None:
    ids = [*ids_of(TEXT), END]
    models = table(good=always(ids), bad=never(ids))

    row, game = play(models, None, "words", "the old mill near")
    # " The old mill" stands, " near" falls, the target goes on with its word: "miller".
    assert said(row) == "The old miller"
    assert states(row) == [
        ("The", "accepted"), ("old", "accepted"), ("mill", "begun"), ("near", "refused"),
    ]  # fmt: skip
    assert row["own"] == "miller"
    assert [state for _, state in row["text"]] == ["accepted"] * 3 + ["correction"]
    counts = {name: tuple(vars(score).values()) for name, score in game.scores.items()}
    # Calls, drafted, accepted, tokens: four were drafted each, and a call adds one of its own.
    assert counts == {YOU: (1, 4, 3, 4), "good": (1, 4, 4, 5), "bad": (1, 4, 0, 1)}
    assert (game.calls, game.typed, game.stood) == (1, 4, 2)

    row, game = play(models, game, "words", "on the")
    # Both stand, " river" is the bonus, and in two calls more the target ends its word: "side,".
    assert said(row) == "The old miller on the riverside,"
    assert row["own"] == "riverside,"
    assert [state for _, state in row["text"]][4:] == [
        "accepted", "accepted", "bonus", "plain", "plain",
    ]  # fmt: skip
    counts = {name: tuple(vars(score).values()) for name, score in game.scores.items()}
    assert counts == {YOU: (2, 6, 5, 7), "good": (2, 6, 6, 8), "bad": (2, 6, 0, 2)}
    assert (game.calls, game.typed, game.stood) == (4, 6, 4)

    row, game = play(models, game, "words", "the")
    assert states(row) == [("the", "refused")]
    assert row["own"] == "near"
    assert game.scores[YOU] == Score(3, 7, 5, 8)
    assert not row["over"]

    row, game = play(models, game, "words", "the mill")
    # The end is the target's to write: behind the full stop it ends the text.
    assert said(row) == "The old miller on the riverside, near the mill."
    assert row["over"]
    assert list(game.ids) == ids
    assert row["closing"][0] == "You know the news; the drafter knows this target."
    assert "You 78 %, good 100 %, bad 0 %" in row["closing"][1]
    assert "14 tokens in 7 calls of the target, instead of 14." in row["closing"][2]


def test_what_others_write_counts_for_nobody() -> None:
    models = table(good=always([*ids_of(TEXT), END]))
    row, game = play(models, None, "skip")
    assert (said(row), row["sentence"]) == ("The", "The target wrote “The”.")
    row, game = play(models, game, "skip")
    row, game = play(models, game, "skip")
    assert said(row) == "The old miller"
    row, game = play(models, game, "drafter", config=replace(GREEDY, gamma=3))
    assert said(row) == "The old miller on the riverside,"
    assert (row["by"], row["sentence"][:6]) == ("good", "Good: ")
    assert states(row) == [("on", "accepted"), ("the", "accepted"), ("river", "begun")]
    row, game = play(models, game, "rest")
    assert said(row) == "The old miller on the riverside, near the mill."
    assert row["over"]
    assert set(game.scores.values()) == {Score()}
    assert row["closing"][0] == "This time you let the others write."


def test_a_drafter_may_end_the_text() -> None:
    ids = [*ids_of(TEXT[:3]), END]
    models = table(TEXT[:3], good=always(ids))
    row, game = play(models, None, "drafter")
    assert row["over"]
    assert list(game.ids) == ids
    assert row["judged"][-1]["t"] == game_words.END
    assert game.calls == 1


def test_the_first_choices_are_those_where_the_target_wrote_its_own() -> None:
    row, _ = play(table(), None, "words", "the old river")
    piece, p, written = row["best"][0]
    assert (piece, written) == (" mill", True)
    assert p > 0.99
    refused = row["judged"][-1]
    assert (refused["s"], refused["t"]) == ("refused", "river")
    assert 0 < refused["p"] < 0.01
    assert "less than 1 %" in row["sentence"]
    assert row["from"] == 0


def test_a_target_that_computes_no_numbers_is_an_error() -> None:
    models = table()
    models.target = FakeTarget(lambda written: [float("nan")] * len(PIECES))
    models.target.vocabulary = Table()
    with pytest.raises(NotFiniteError, match="NaN or infinite"):
        rows_of(models, turn(models, None, "words", "the old"))


def test_a_guess_fills_no_more_than_there_is_room() -> None:
    config = replace(GREEDY, max_new_tokens=3)
    models = table(good=always(ids_of(TEXT)))
    row, game = play(models, None, "words", "the old mill on", config=config)
    assert states(row)[2:] == [("mill", "dropped"), ("on", "dropped")]
    assert row["over"]
    assert len(game.ids) == 3
    assert game.scores[YOU].drafted == game.scores["good"].drafted == 2


def whole_game(models: Served, config: DecodingConfig, article: str, seed: int) -> Game:
    """Plays at random to the end; guesses right words and wrong ones."""
    chance = torch.Generator().manual_seed(seed)

    def pick(things: Sequence[str]) -> str:
        return things[int(torch.randint(len(things), (1,), generator=chance))]

    vocabulary = models.target.vocabulary
    right = vocabulary.decode(written_alone(models.target, config, article)).split()
    game: Game | None = Game.fresh("key", list(models.drafters))
    while game is not None:
        kind = pick(("words", "words", "drafter", "skip"))
        at = len(vocabulary.decode(game.ids).split())
        words = [word for word in right[at : at + 2] if word.isprintable() and len(word) < 9]
        asked = Turn(article, config, game, kind, (*words, pick(("mill", "and", "it's"))))
        row = rows_of(models, asked)[-1]
        game = Game.read(json.dumps(row), list(models.drafters))
        if row["over"]:
            break
    assert game is not None
    return game


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_turns_end_in_the_text_of_the_target_alone(
    vocabulary: Vocabulary, story: str, temperature: float, seed: int
) -> None:
    """With rules of the target's own, and with looks at a next piece that is not shown."""
    size = len(vocabulary.tokenizer)
    other, due = random_rule(size, seed, 1.5), vocabulary.encode(story, 40).ids

    def leans(written: tuple[int, ...]) -> Sequence[float]:
        row = list(other(written))
        row[due[len(written)] if len(written) < len(due) else END] += 7.0
        return row

    target = FakeTarget(leans, defaults={"no_repeat_ngram": 2, "min_new_tokens": 10})
    target.vocabulary = vocabulary  # type: ignore[assignment]  # the fake has one of its own
    models = Served(target, {"lookup": ArticleLookup()})
    config = DecodingConfig(max_new_tokens=48, temperature=temperature, top_p=0.9, seed=seed)
    game = whole_game(models, config, story, seed)
    assert list(game.ids) == written_alone(target, config, story)
    assert 0 < game.scores[YOU].accepted < game.scores[YOU].drafted


def test_with_a_real_model_too(tiny_target: Any, story: str) -> None:
    models = Served(tiny_target, {"lookup": ArticleLookup()})
    config = DecodingConfig(max_new_tokens=20)
    game = whole_game(models, config, story, 0)
    assert list(game.ids) == written_alone(tiny_target, config, story)


def test_when_sampling_a_guess_stands_with_the_probability_of_its_token() -> None:
    """Over all numbers that could be drawn: the word written follows p, whatever is guessed."""
    p = [0.0, 0.1, 0.2, 0.4, 0.3]
    target = FakeTarget(lambda written: torch.tensor(p).log().tolist())
    config = DecodingConfig(temperature=1.0, max_new_tokens=2)
    steps = 1000
    for guessed in (2, 3):
        writer = Writer(target, target.encode([END]), [], config)
        found: list[int] = []
        stood = 0
        for step in range(steps):
            writer._uniforms = [(step + 0.5) / steps] * 2
            entry, chances = writer.check([guessed])
            found.append(entry.tokens[0])
            stood += entry.accepted
        assert stood / steps == pytest.approx(p[guessed], abs=2 / steps)
        share = [found.count(token) / steps for token in range(5)]
        assert share == pytest.approx(p, abs=2 / steps)
        assert chances[0].tolist() == pytest.approx(p)


def test_drafters_are_judged_by_the_words_that_judge_the_visitor() -> None:
    """When sampling too: one that names them all has them all accepted."""
    config = DecodingConfig(temperature=1.0, seed=5, max_new_tokens=24)
    models = table()
    models.target.rule = random_rule(len(PIECES), 3, 2.0, end_bias=-30.0)
    ids = written_alone(models.target, config, "the mill")
    models.drafters = {"knows": always(ids)}
    _, game = play(models, None, "words", "old near river the", config=config)
    assert game.scores["knows"] == Score(1, 4, 4, 5)
    assert game.scores[YOU].drafted == 4


@pytest.mark.parametrize("kind", ["words", "rest"])
def test_a_turn_can_be_sent_to_a_borrowed_gpu(kind: str) -> None:
    models = table(good=always(ids_of(TEXT)))
    asked = turn(models, None, kind, "the old")
    sent = pickle.loads(pickle.dumps(asked))
    assert sent == asked
    assert said(rows_of(models, sent)[-1]) == said(rows_of(models, asked)[-1])


def test_the_rest_can_be_stopped_and_gone_on_with() -> None:
    models = table()
    stop = threading.Event()
    stop.set()
    row = rows_of(models, turn(models, None, "rest"), stop)[-1]
    assert (said(row), row["over"]) == ("The", False)
    game = Game.read(json.dumps(row), [])
    row, _ = play(models, game, "rest", seconds=0)
    assert said(row) == "The old"
    assert row["notices"] == [race_words.ENDED_EARLY.format(0)]
    row, _ = play(models, Game.read(json.dumps(row), []), "rest")
    assert row["over"]


def test_the_rest_is_shown_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastllm.demo.folds.game.game._SHOWN_EVERY", -1.0)
    models = table()
    rows = rows_of(models, turn(models, None, "rest"))
    assert [len(row["text"]) for row in rows] == [*range(1, 15), 14]
    assert [row["goes_on"] for row in rows] == [True] * 14 + [False]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "Type a word"),
        (" \t\n ", "Type a word"),
        (None, "Type a word"),
        (7, "Type a word"),
        ("word " * 2000, "10,000 characters"),
        ("a\0b", "no text has"),
        ("half \ud800 a sign", "no text has"),
        ("\x1b[31mred", "no text has"),
        ("\ufffe", "no text has"),
    ],
)
def test_what_is_no_guess_is_refused(typed: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        words_of(typed)


def test_quotes_that_old_programs_wrote_are_read() -> None:
    assert words_of("\x93Rain\x94 fell") == ("“Rain”", "fell")


def test_markup_is_a_wrong_guess_and_nothing_else() -> None:
    models = table()
    (line,) = turn(models, None, "words", "<b>The</b> ${x} {{y}} </s>").lines(
        models, threading.Event()
    )
    assert "<" not in line
    row = json.loads(line)
    assert states(row)[0] == ("<b>The</b>", "refused")
    assert row["guess"] == "<b>The</b> ${x} {{y}} </s>"


def test_what_looks_like_a_special_token_is_letters(vocabulary: Vocabulary) -> None:
    special = set(vocabulary.tokenizer.all_special_ids)
    for word in tokens_of(vocabulary, ["</s>", "<pad>", "mill"], []):
        assert word.tokens
        assert not special & set(word.tokens)


def test_words_are_tokens_as_they_stand_in_the_text(vocabulary: Vocabulary, story: str) -> None:
    """A text in two parts comes to the tokens of the whole."""
    sentence = story.split(".")[0]
    whole = list(vocabulary.tokenizer(sentence, add_special_tokens=False)["input_ids"])
    words = sentence.split()
    for count in (1, 4):
        first = tokens_of(vocabulary, words[:count], [])
        written = [token for word in first for token in word.tokens]
        then = tokens_of(vocabulary, words[count:], written)
        assert [*written, *(token for word in then for token in word.tokens)] == whole
        assert vocabulary.decode([*written, *then[0].tokens]).split() == words[: count + 1]


def test_a_sentence_begins_with_a_capital(vocabulary: Vocabulary) -> None:
    (begins,) = tokens_of(vocabulary, ["fire"], [])
    assert begins.text == "Fire"
    written = vocabulary.encode("Nobody was hurt.", 64).ids[:-1]
    assert tokens_of(vocabulary, ["fire"], written)[0].text == "Fire"
    assert tokens_of(vocabulary, ["fire"], written[:-1])[0].text == "fire"


def test_too_many_pieces_for_one_call_are_refused() -> None:
    models = table()
    with pytest.raises(DataError, match=r"17 tokens.* up to 16"):
        rows_of(models, turn(models, None, "words", "on " * 17))
    assert rows_of(models, turn(models, None, "words", "on " * 16))


def sent(**changes: Any) -> str:
    game: dict[str, Any] = {
        "key": "key", "ids": [2, 3], "marks": "ac", "calls": 1, "typed": 1, "stood": 1,
        "scores": {YOU: dict.fromkeys(("calls", "drafted", "accepted", "tokens"), 1)},
    }  # fmt: skip
    return json.dumps({"row": "guess", "game": {**game, **changes}}) + "\n"


def test_a_game_comes_back_as_it_was_sent() -> None:
    assert Game.read("", []) is None
    assert Game.read(sent(), []) == Game("key", (2, 3), "ac", 1, 1, 1, {YOU: Score(1, 1, 1, 1)})


@pytest.mark.parametrize(
    "lines",
    [
        "nonsense",
        "[]\n",
        '{"row":"guess"}\n',
        '{"game": null}\n',
        "[" * 100_000,
        "1" * 5000,
        " " * (MOST_SENT_BACK + 1),
        sent(ids=[2]),
        sent(ids=[2, -1]),
        sent(ids=[2, 2.0]),
        sent(ids=[2, True]),
        sent(ids=[2, 10**30]),
        sent(ids="23"),
        sent(marks="a<"),
        sent(calls="1"),
        sent(scores={}),
        sent(scores={YOU: {"calls": 1}}),
        {"game": {}},
        ["x"],
        5,
    ],
)
def test_what_is_no_game_is_refused(lines: Any) -> None:
    with pytest.raises(DataError, match="cannot be continued"):
        Game.read(lines, [])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([2, len(PIECES)], "cannot be continued"),
        ([2] * 25, "cannot be continued"),
        ([2, END], "is complete"),
        ([2] * 24, "is complete"),
    ],
)
def test_tokens_that_the_target_does_not_have_are_refused(ids: list[int], message: str) -> None:
    models = table()
    game = Game("key", tuple(ids), "p" * len(ids), scores={YOU: Score()})
    for kind in ("words", "skip", "rest"):
        with pytest.raises(DataError, match=message):
            rows_of(models, turn(models, game, kind, "on"))


def test_a_page_without_drafters_has_the_game_still() -> None:
    assert rivals_of(["alone"]) == ()
    assert rivals_of(["alone", "lookup", "mine", "other"]) == ("lookup", "mine")
    offered = ["alone", "lookup", "lstm-before", "lstm-after"]
    assert rivals_of(offered) == ("lstm-after", "lstm-before")
    models = table()
    with pytest.raises(DataError, match="no drafter"):
        rows_of(models, turn(models, None, "drafter"))
    row, _ = play(models, None, "words", "the old")
    assert [player["key"] for player in row["players"]] == [YOU]


def test_who_aligned_better_is_said_at_the_end() -> None:
    rivals = {"lstm-after": (3, 4), "lstm-before": (2, 4)}
    assert "drafter knows" in game_words.closing(9, 9, (2, 4), rivals)[0]
    assert "A tie" in game_words.closing(9, 9, (3, 4), rivals)[0]
    better = game_words.closing(9, 8, (4, 4), rivals)
    assert better[0] == "You are better aligned with this target than LSTM after distillation."
    assert game_words.closing(9, 8, (4, 4), {})[0].startswith("You 100 %")
