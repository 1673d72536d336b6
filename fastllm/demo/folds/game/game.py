"""A guessing game: a visitor guesses the next words of the summary, and the target checks them.

At each place the target has a token of its own: the likeliest when greedy, else the one that the
place's random number picks from its distribution. A guess stands where it is that token; the first
that is not is replaced by it. So whatever is guessed, the text is the one that the target alone
writes with these settings and this seed (`fastllm.decoding.autoregress`). For a guesser that names
one token and no odds this is speculative decoding: a guess x stands with probability p(x), and in
the place of a refused one comes a draw from what is left of p. Source: Leviathan et al. 2023,
arXiv:2211.17192, with a one-hot q.

A call may end inside a word, where nobody could go on typing. The target then finishes its word, up
to the next piece that begins with a blank. That next piece was looked at, and not shown; since it
comes from its own place's number it is the same when the place is asked again, and looking changes
no probability.

The drafters of the page are asked for as many tokens at every place where the visitor guesses, and
judged by the same tokens. When sampling they too name what they find likeliest.

Nothing is kept between two turns: the browser holds the game, and sends it with each.
"""

import hashlib
import json
import math
import threading
import time
import unicodedata
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from typing import Any, NamedTuple

import torch

from fastllm.data.articles import repaired
from fastllm.decoding.distributions import distribution, draw, forbid, require_finite
from fastllm.decoding.rounds import uniforms
from fastllm.decoding.rules import Rules
from fastllm.demo import rows
from fastllm.demo.folds.game import words
from fastllm.demo.folds.race import words as race_words
from fastllm.demo.jobs import Models
from fastllm.demo.words import ALONE, title_of
from fastllm.drafters import Drafter
from fastllm.errors import DataError
from fastllm.targets import Encoding, Target, resolve
from fastllm.trace import DecodingConfig, Round
from fastllm.vocabulary import Vocabulary

YOU = "you"
"""The key of the visitor among the guessers."""

RIVALS = ("lstm-after", "lstm-before")
"""The drafters that are asked too, where the page has one of them; else the first two it has."""

MOST_TYPED = 200
"""Characters of one guess."""

MOST_TOKENS = int(DecodingConfig.RANGES["gamma"][1])
"""Tokens of one guess: the longest draft that any drafter may propose."""

MOST_SENT_BACK = 1_000_000
"""Characters of a game, as the browser sends it: more than the longest summary comes to."""

MARKS = {"a": "accepted", "c": "correction", "b": "bonus", "p": "plain"}
"""A letter for how a token came into the text."""

_MARK_OF = {state: letter for letter, state in MARKS.items()}

_WINDOW = 8
"""Tokens that are decoded before one whose blank is looked for."""

_SHOWN_EVERY = 0.2
"""Seconds between two rows while the target writes the rest."""


@dataclass(frozen=True)
class Score:
    """A guesser's score, in tokens, at the places where the visitor guessed."""

    calls: int = 0  # how many drafts were checked
    drafted: int = 0  # the tokens in them; what came after an end token does not count
    accepted: int = 0  # how many of these stood
    tokens: int = 0  # what the calls gave, the target's own token of each included

    def after(self, entry: Round) -> "Score":
        """The score with one more call."""
        return Score(
            self.calls + 1,
            self.drafted + len(entry.drafted),
            self.accepted + entry.accepted,
            self.tokens + len(entry.tokens),
        )


@dataclass(frozen=True)
class Game:
    """All that is known between two turns."""

    key: str  # tells articles and settings apart (`key_of`)
    ids: tuple[int, ...] = ()  # the text so far, an end token included
    marks: str = ""  # how each of `ids` came into the text, a letter of `MARKS` each
    calls: int = 0  # of the target, for this text; looks at a next piece do not count
    typed: int = 0  # how many words the visitor has guessed
    stood: int = 0  # how many of them stood whole
    scores: Mapping[str, Score] = field(default_factory=dict)  # by guesser; the visitor is `YOU`

    @classmethod
    def fresh(cls, key: str, rivals: Sequence[str]) -> "Game":
        """A game that has not begun."""
        return cls(key, scores={name: Score() for name in (YOU, *rivals)})

    @classmethod
    def read(cls, lines: str, rivals: Sequence[str]) -> "Game | None":
        """The game in the last row that a browser sent back; None if there is no row.

        `lines` may be whatever a stranger has sent; `rivals` are the drafters whose scores it must
        hold, and no others.

        Raises:
            DataError: it is no game that this page has given out.
        """
        if lines in (None, ""):
            return None
        try:
            if len(lines) > MOST_SENT_BACK:
                raise ValueError("too long")
            tree = json.loads(lines.rstrip("\n").rsplit("\n", 1)[-1])["game"]
            counts = {name: _count(tree[name]) for name in ("calls", "typed", "stood")}
            game = cls(
                str(tree["key"]),
                tuple(_count(token) for token in tree["ids"]),
                str(tree["marks"]),
                **counts,
                scores={
                    name: Score(*(_count(tree["scores"][name][e.name]) for e in fields(Score)))
                    for name in (YOU, *rivals)
                },
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(words.NO_GAME) from error
        if len(game.ids) != len(game.marks) or set(game.marks) - set(MARKS):
            raise DataError(words.NO_GAME)
        return game

    def grown(self, tokens: Sequence[int], state: str, calls: int = 0) -> "Game":
        """The game with tokens added that came into the text in one way."""
        return replace(
            self,
            ids=(*self.ids, *tokens),
            marks=self.marks + _MARK_OF[state] * len(tokens),
            calls=self.calls + calls,
        )

    def after(self, entry: Round) -> "Game":
        """The game with the tokens of a round added; no score changes."""
        game = self.grown(entry.drafted[: entry.accepted], "accepted", calls=1)
        if entry.extra is None or entry.extra_kind is None:
            return game
        return game.grown([entry.extra], entry.extra_kind)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"{value!r} is no count")
    return value


def key_of(article: str, config: DecodingConfig) -> str:
    """Tells articles and settings apart: another key is another text, and so another game."""
    return hashlib.sha256(f"{config}\n{article}".encode()).hexdigest()[:16]


def rivals_of(offered: Sequence[str]) -> tuple[str, ...]:
    """The drafters that are asked beside the visitor, of the lanes of the page."""
    found = [key for key in RIVALS if key in offered]
    return tuple(found or [key for key in offered if key != ALONE][:2])


def words_of(typed: str) -> tuple[str, ...]:
    """What a visitor typed as words.

    Raises:
        DataError: there are none, or more than one would type, or something that is no text.
    """
    if not isinstance(typed, str) or not typed.strip():
        raise DataError(words.NO_GUESS)
    if len(typed) > MOST_TYPED:
        raise DataError(words.TOO_LONG.format(len(typed), MOST_TYPED))
    guess = tuple(repaired(typed).split())
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Co", "Cn") for sign in "".join(guess)):
        raise DataError(words.BINARY)
    return guess


class Word(NamedTuple):
    """A guessed word: how it reads, and its tokens."""

    text: str
    tokens: tuple[int, ...]


def tokens_of(vocabulary: Vocabulary, words: Sequence[str], written: Sequence[int]) -> list[Word]:
    """Words, without blanks, as the target would write them after a text that ends with one.

    A word at the beginning of a sentence gets its capital. What looks like a special token is
    taken for the letters it is made of.
    """
    text = vocabulary.decode(written)
    if words and (not text or text.endswith((".", "!", "?"))):
        words = [words[0][:1].upper() + words[0][1:], *words[1:]]

    def ids(part: str) -> list[int]:
        encoded = vocabulary.tokenizer(part, add_special_tokens=False, split_special_tokens=True)
        return list(encoded["input_ids"])

    # A tokenizer may write a word differently at the very beginning of a text.
    before = ids("end")
    found = [
        Word(word, tuple(ids(f"end {word}")[len(before) :] if text or place else ids(word)))
        for place, word in enumerate(words)
    ]
    return [word for word in found if word.tokens]


class Writer:
    """The target at work on a text that was begun, with resolved settings."""

    def __init__(
        self, target: Target, encoding: Encoding, written: Sequence[int], config: DecodingConfig
    ) -> None:
        self.text = [target.start_id, *written]
        self._ends = target.end_ids
        self._vocabulary = target.vocabulary
        self._config = config
        self._session = target.begin(encoding)
        self._rules = Rules(self._ends)
        # A number in [0, 1) for each place of the text: those that `autoregress` draws by.
        drawn = islice(uniforms(config), config.max_new_tokens)
        self._uniforms = [float(tests[0]) for _, tests in drawn]

    @property
    def ended(self) -> bool:
        """Whether the text has come to its end."""
        return self.text[-1] in self._ends or self.room < 0

    @property
    def room(self) -> int:
        """The most tokens that can be drafted: the target adds one of its own."""
        return self._config.max_new_tokens - len(self.text)

    def check(self, drafted: Sequence[int]) -> tuple[Round, torch.Tensor]:
        """One call of the target: what of a draft stands, and its own token after that.

        A draft has at most `room` tokens, possibly none. The text stays as it is.

        Returns:
            The round, without what is measured; and the target's probabilities at each drafted
            place and after them, at temperature 1 and without filters, shape (k + 1, V).
        """
        known = min(self._session.length, len(self.text) - 1)
        self._session.keep(known)
        unread = self.text[known:]
        logits = self._session.forward([*unread, *drafted])[len(unread) - 1 :]
        allowed = forbid(logits, self._rules.along(self.text, drafted, self._config))
        numbers = self._uniforms[len(self.text) - 1 :]
        require_finite(allowed.amax(-1).tolist(), allowed.dtype)
        rows = distribution(allowed, self._config)
        own = [int(draw(row, number)) for row, number in zip(rows, numbers, strict=False)]
        pairs = zip(drafted, own, strict=False)
        accepted = next((at for at, (x, y) in enumerate(pairs) if x != y), len(drafted))
        ends = [at for at, token in enumerate(drafted[:accepted], 1) if token in self._ends]
        if ends:
            accepted = ends[0]
            drafted = drafted[:accepted]
        entry = Round(
            kind="speculative" if drafted else "plain",
            drafted=tuple(drafted),
            accepted=accepted,
            extra=None if ends else own[accepted],
        )
        return entry, allowed.float().softmax(-1)

    def alone(self, *, words: int | None) -> Iterator[int]:
        """Lets the target write, a token per call; yields tokens that were added to the text.

        `words` is how many words it is to begin; 0 finishes the one it is in, if it is in one; None
        is for all that there are.
        """
        while not self.ended:
            (token,) = self.check([])[0].tokens
            if token not in self._ends and words is not None and self._begins_word(token):
                if words == 0:
                    return
                words -= 1
            self.text.append(token)
            yield token

    def _begins_word(self, token: int) -> bool:
        """Whether a token begins a word after the text, and does not go on with the last one."""
        if len(self.text) == 1:
            return True
        tail = self.text[1:][-_WINDOW:]
        before = self._vocabulary.decode(tail)
        return self._vocabulary.decode([*tail, token])[len(before) :].startswith(" ")


def draft_of(
    drafter: Drafter, encoding: Encoding, text: Sequence[int], k: int, config: DecodingConfig
) -> list[int]:
    """At most k >= 1 tokens: what a drafter finds likeliest after a text and its start token."""
    session = drafter.begin(encoding)
    if len(text) > 1:
        session.accept(text[1:])
    greedy = replace(config.greedy(), gamma=k)
    numbers = torch.zeros(k, dtype=torch.float64)  # when greedy nothing is drawn
    tokens = session.draft(text, k, greedy, numbers).tokens
    end = encoding.end_id
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


@dataclass(frozen=True)
class Turn:
    """One turn of the game. The rule of verification has no part in it."""

    article: str
    config: DecodingConfig
    game: Game  # what came of the turns before
    kind: str  # who goes on: the visitor ("words"), the first rival ("drafter"), or the target
    # for one word ("skip") or to the end ("rest")
    words: tuple[str, ...] = ()  # what the visitor guesses; empty where somebody else goes on
    notices: tuple[str, ...] = ()  # what the visitor should know about the article
    seconds: int = 30  # after these the turn ends with what it has

    @property
    def rivals(self) -> list[str]:
        """The drafters that are asked too."""
        return [key for key in self.game.scores if key != YOU]

    def check(self, models: Models) -> None:
        """Refuses a game with tokens that the target does not have, and guesses of too many.

        Raises:
            DataError: says which.
            CheckpointError: the target, or a drafter that is asked, could not be loaded.
        """
        for key in self.rivals:
            models.drafter(key)
        target = models.target
        most, ids = resolve(self.config, target).max_new_tokens, self.game.ids
        if any(token >= len(target.vocabulary.tokenizer) for token in ids) or len(ids) > most:
            raise DataError(words.NO_GAME)
        if set(target.end_ids) & set(ids) or len(ids) == most:
            raise DataError(words.IS_OVER)
        if self.kind == "drafter" and not self.rivals:
            raise DataError(words.NO_DRAFTER)
        if self.kind == "words":
            self._guess(target)

    def lines(self, models: Models, stop: threading.Event) -> Iterator[str]:
        """The rows of the turn; each is all that there is to show, and takes the place of the last.

        {"row": "guess", "run", "kind", "guess", "by", "from", "text": [[piece, state], ...],
        "judged": [{"t", "s", "p"}, ...], "own", "best": [[piece, p, written], ...], "sentence",
        "players": [{"key", "title", "calls", "drafted", "accepted", "tokens"}, ...], "over",
        "goes_on", "closing", "notices", "game": GAME}. `from` is the first token of this turn;
        `judged` are the guessed words; `own` is the word that the target wrote or finished, and
        `best` are its first choices there; where it `goes_on` more rows follow; GAME is what
        `Game.read` takes.
        """
        self.check(models)
        deadline = time.monotonic() + self.seconds
        target = models.target
        config = resolve(self.config, target)
        encoded = target.vocabulary.encode(self.article, target.source_length, target.prefix)
        encoding = target.encode(encoded.ids)
        writer = Writer(target, encoding, self.game.ids, config)
        game, told = self.game, Told()
        if not game.ids:
            told.notices += self.notices
            if encoded.cut_at is not None:
                percent = round(100 * encoded.cut_at / len(self.article))
                told.notices.append(words.CUT.format(percent))
        if self.kind in ("words", "drafter"):
            game = self._guessed(models, writer, encoding, config, told)
        shown = time.monotonic()
        for token in writer.alone(words={"skip": 1, "rest": None}.get(self.kind, 0)):
            game = game.grown([token], "plain", calls=1)
            now = time.monotonic()
            if now > deadline:
                told.notices.append(race_words.ENDED_EARLY.format(self.seconds))
            if now > deadline or stop.is_set():
                break
            if now - shown > _SHOWN_EVERY:
                yield self._line(target.vocabulary, game, told, goes_on=True)
                shown = now
        yield self._line(target.vocabulary, game, told, over=writer.ended)

    def _guess(self, target: Target) -> list[Word]:
        """The visitor's words with their tokens."""
        found = tokens_of(target.vocabulary, self.words, self.game.ids)
        count = sum(len(word.tokens) for word in found)
        if not count:
            raise DataError(words.NO_GUESS)
        if count > MOST_TOKENS:
            raise DataError(words.TOO_MANY.format(count, MOST_TOKENS))
        return found

    def _guessed(
        self,
        models: Models,
        writer: Writer,
        encoding: Encoding,
        config: DecodingConfig,
        told: "Told",
    ) -> Game:
        """Checks a draft, and where it is the visitor's asks the drafters too."""
        target = models.target
        drafters = {key: models.drafter(key) for key in self.rivals}
        if self.kind == "words":
            words = self._guess(target)
        else:
            first = next(drafter for drafter in drafters.values() if drafter is not None)
            k = min(config.gamma, max(1, writer.room))
            draft = draft_of(first, encoding, writer.text, k, config)
            words = _as_words(target, self.game.ids, draft)
        draft = [token for word in words for token in word.tokens][: max(0, writer.room)]
        entry, chances = writer.check(draft)
        game = self.game.after(entry)
        piece = target.vocabulary.pieces(game.ids)[-1] if entry.extra is not None else ""
        told.judged, told.begins = _judged(words, entry, chances, goes_on=piece[:1].isalnum())
        if self.kind == "words" and draft:
            scores = {YOU: game.scores[YOU].after(entry)}
            for key, drafter in drafters.items():
                if drafter is not None:
                    guess = draft_of(drafter, encoding, writer.text, len(draft), config)
                    scores[key] = game.scores[key].after(writer.check(guess)[0])
            game = replace(
                game,
                scores=scores,
                typed=game.typed + sum(word["s"] != "dropped" for word in told.judged),
                stood=game.stood + sum(word["s"] == "accepted" for word in told.judged),
            )
        writer.text.extend(entry.tokens)
        if entry.extra is not None:
            told.best = _choices(target.vocabulary, chances[entry.accepted], entry.extra)
        return game

    def _line(
        self,
        vocabulary: Vocabulary,
        game: Game,
        told: "Told",
        *,
        over: bool = False,
        goes_on: bool = False,
    ) -> str:
        """A row as a line."""
        pieces = vocabulary.pieces(game.ids)
        begun = len(self.game.ids)
        added = "".join(pieces[begun + told.begins :]).strip()
        title = title_of(self.rivals[0]) if self.rivals else ""
        marks = zip(pieces, game.marks, strict=True)
        rates = {key: (score.accepted, score.drafted) for key, score in game.scores.items()}
        you = rates.pop(YOU)
        closing = words.closing(len(game.ids), game.calls, you, rates) if over else []
        return rows.line(
            {
                "row": "guess",
                "run": uuid.uuid4().hex,
                "kind": self.kind,
                "guess": " ".join(self.words),
                "by": title if self.kind == "drafter" else "",
                "from": begun,
                "text": [[piece, MARKS[mark]] for piece, mark in marks],
                "judged": told.judged,
                "own": added,
                "best": told.best,
                "sentence": words.sentence(self.kind, title, told.judged, added),
                "players": [
                    {"key": key, "title": words.YOU if key == YOU else title_of(key)}
                    | asdict(score)
                    for key, score in game.scores.items()
                ],
                "over": over,
                "goes_on": goes_on,
                "closing": closing,
                "notices": told.notices,
                "game": asdict(game),
            }
        )


@dataclass
class Told:
    """What the visitor is told of a turn, beside the text, as JSON values."""

    notices: list[str] = field(default_factory=list)
    judged: list[dict[str, Any]] = field(default_factory=list)  # the guessed words
    # The place, counted from the turn's first token, at which the word begins that the target wrote
    # itself, or finished; and its first choices there.
    begins: int = 0
    best: list[list[Any]] = field(default_factory=list)


def _choices(vocabulary: Vocabulary, p: torch.Tensor, own: int) -> list[list[Any]]:
    """The likeliest tokens of a row (V,), with probability, and whether the target wrote it."""
    values, tokens = p.topk(min(rows.CHOICES, len(p)))
    ids = tokens.tolist()
    names = vocabulary.names(ids)
    return [
        [names[token], _short(value), token == own]
        for token, value in zip(ids, values.tolist(), strict=True)
    ]


def _as_words(target: Target, written: Sequence[int], draft: Sequence[int]) -> list[Word]:
    """A drafter's tokens as words; the first may go on with the last word of the text."""
    pieces = target.vocabulary.pieces([*written, *draft])[len(written) :]
    found: list[Word] = []
    for token, piece in zip(draft, pieces, strict=True):
        if token in target.end_ids:
            found.append(Word(words.END, (token,)))
        elif found and not piece.startswith(" "):
            found[-1] = Word(found[-1].text + piece, (*found[-1].tokens, token))
        else:
            found.append(Word(piece.strip(), (token,)))
    return found


def _judged(
    words: Sequence[Word], entry: Round, chances: torch.Tensor, *, goes_on: bool
) -> tuple[list[dict[str, Any]], int]:
    """What became of each guessed word, and where the target's own begins.

    The probability of a word is the product of those of its tokens, each after the ones before.
    `entry` and `chances`, shape (k + 1, V), are what the target said to the guess; its own token
    `goes_on` with the word before, or begins one.

    Returns:
        {"t": text, "s": state, "p"} of each; the state is accepted, refused, dropped (after a
        refused one), or begun: accepted, and the beginning of a longer word. And the place in the
        guess at which the word begins that the target wrote or finished.
    """
    found: list[dict[str, Any]] = []
    count, begins, start = len(entry.drafted), entry.accepted, 0
    for word in words:
        end = start + len(word.tokens)
        state = "accepted" if end <= entry.accepted else "dropped"
        if start <= entry.accepted < min(end, count):
            state, begins = "refused", start
        elif end == entry.accepted and goes_on:
            state = "begun"
        row: dict[str, Any] = {"t": word.text, "s": state}
        if state != "dropped":
            tokens = enumerate(word.tokens[: count - start], start)
            row["p"] = _short(math.prod(float(chances[at, x]) for at, x in tokens))
        if state == "begun":
            begins = start
        elif state == "refused" and found and found[-1]["s"] == "begun":
            begins = start - len(words[len(found) - 1].tokens)
        found.append(row)
        start = end
    return found, begins


def _short(p: float) -> float:
    """A probability in three digits, of which none that is above 0 becomes 0."""
    return float(f"{p:.3g}")
