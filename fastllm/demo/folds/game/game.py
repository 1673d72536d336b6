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

KINDS = ("words", "drafter", "skip", "rest")
"""Who goes on: the visitor, the first rival, the target for one word, the target to the end."""

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
    """A guesser's score, in tokens, at the places where the visitor guessed.

    Attributes:
        calls: how many drafts were checked.
        drafted: the tokens in them; what came after an end token does not count.
        accepted: how many of these stood.
        tokens: what the calls gave, the target's own token of each included.
    """

    calls: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0

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
    """All that is known between two turns.

    Attributes:
        key: tells articles and settings apart (`key_of`).
        ids: the text so far, an end token included.
        marks: how each of `ids` came into the text, a letter of `MARKS` each.
        calls: of the target, for this text; looks at a next piece do not count.
        typed: how many words the visitor has guessed.
        stood: how many of them stood whole.
        scores: guesser -> its score; the visitor is `YOU`.
    """

    key: str
    ids: tuple[int, ...] = ()
    marks: str = ""
    calls: int = 0
    typed: int = 0
    stood: int = 0
    scores: Mapping[str, Score] = field(default_factory=dict)

    @classmethod
    def fresh(cls, key: str, rivals: Sequence[str]) -> "Game":
        """A game that has not begun."""
        return cls(key, scores={name: Score() for name in (YOU, *rivals)})

    @classmethod
    def read(cls, lines: str, rivals: Sequence[str]) -> "Game | None":
        """The game in the last row that a browser sent back; None if there is no row.

        Args:
            lines: the rows of a turn, or whatever else a stranger may have sent.
            rivals: the drafters whose scores it must hold, and no others.

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
    """The drafters that are asked beside the visitor.

    Args:
        offered: the lanes of the page.
    """
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
    guess = tuple(typed.split())
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Co", "Cn") for sign in "".join(guess)):
        raise DataError(words.BINARY)
    return guess


class Word(NamedTuple):
    """A guessed word: how it reads, and its tokens."""

    text: str
    tokens: tuple[int, ...]


def tokens_of(vocabulary: Vocabulary, words: Sequence[str], written: Sequence[int]) -> list[Word]:
    """Words as the target would write them after a text.

    A word at the beginning of a sentence gets its capital. What looks like a special token is
    taken for the letters it is made of.

    Args:
        vocabulary: the target's.
        words: without blanks.
        written: the ids of the text so far, which ends with a whole word.
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
    """The target at work on a text that was begun.

    Args:
        target: the target.
        encoding: the article.
        written: the ids of the text so far.
        config: the settings, resolved (`fastllm.targets.resolve`).
    """

    def __init__(
        self, target: Target, encoding: Encoding, written: Sequence[int], config: DecodingConfig
    ) -> None:
        self._text = [target.start_id, *written]
        self._ends = target.end_ids
        self._vocabulary = target.vocabulary
        self._config = config
        self._session = target.begin(encoding)
        self._rules = Rules(self._ends)
        self._uniforms = _uniforms(config)

    @property
    def ended(self) -> bool:
        """Whether the text has come to its end."""
        return self._text[-1] in self._ends or self.room < 0

    @property
    def room(self) -> int:
        """The most tokens that can be drafted: the target adds one of its own."""
        return self._config.max_new_tokens - len(self._text)

    @property
    def text(self) -> Sequence[int]:
        """The start token and everything after it."""
        return self._text

    def check(self, drafted: Sequence[int]) -> tuple[Round, torch.Tensor]:
        """One call of the target: what of a draft stands, and its own token after that.

        Args:
            drafted: at most `room` tokens, possibly none. The text stays as it is: see `add`.

        Returns:
            The round, without what is measured; and the target's probabilities at each drafted
            place and after them, at temperature 1 and without filters, shape (k + 1, V).
        """
        known = min(self._session.length, len(self._text) - 1)
        self._session.keep(known)
        unread = self._text[known:]
        logits = self._session.forward([*unread, *drafted])[len(unread) - 1 :]
        allowed = forbid(logits, self._rules.along(self._text, drafted, self._config))
        numbers = self._uniforms[len(self._text) - 1 :]
        require_finite(allowed.amax(-1).tolist(), allowed.dtype)
        rows = distribution(allowed, self._config)
        own = [int(draw(row, number)) for row, number in zip(rows, numbers, strict=False)]
        pairs = zip(drafted, own, strict=False)
        accepted = next((at for at, (x, y) in enumerate(pairs) if x != y), len(drafted))
        ends = [at for at, token in enumerate(drafted[:accepted], 1) if token in self._ends]
        ended = bool(ends)
        if ended:
            accepted = ends[0]
            drafted = drafted[:accepted]
        entry = Round(
            kind="speculative" if drafted else "plain",
            drafted=tuple(drafted),
            accepted=accepted,
            extra=None if ended else own[accepted],
        )
        return entry, allowed.float().softmax(-1)

    def add(self, tokens: Sequence[int]) -> None:
        """Adds what a round gave."""
        self._text.extend(tokens)

    def alone(self, *, words: int | None) -> Iterator[int]:
        """Lets the target write, a token per call.

        Args:
            words: how many words it is to begin; 0 finishes the one it is in, if it is in one. None
                for all that there are.

        Yields:
            The tokens, which are added to the text.
        """
        while not self.ended:
            (token,) = self.check([])[0].tokens
            if token not in self._ends and words is not None and self._begins_word(token):
                if words == 0:
                    return
                words -= 1
            self.add([token])
            yield token

    def _begins_word(self, token: int) -> bool:
        """Whether a token begins a word after the text, and does not go on with the last one."""
        if len(self._text) == 1:
            return True
        tail = self._text[1:][-_WINDOW:]
        before = self._vocabulary.decode(tail)
        return self._vocabulary.decode([*tail, token])[len(before) :].startswith(" ")


def _uniforms(config: DecodingConfig) -> list[float]:
    """A number in [0, 1) for each place of the text: those that `autoregress` draws by."""
    return [float(tests[0]) for _, tests in islice(uniforms(config), config.max_new_tokens)]


def draft_of(
    drafter: Drafter, encoding: Encoding, text: Sequence[int], k: int, config: DecodingConfig
) -> list[int]:
    """What a drafter finds likeliest after a text.

    Args:
        drafter: which.
        encoding: the article.
        text: the start token and everything after it.
        k: the most tokens, at least 1.
        config: the settings, resolved.
    """
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
    """One turn of the game.

    Attributes:
        article: the text.
        config: the settings; the rule of verification has no part in it.
        game: what came of the turns before.
        kind: of `KINDS`.
        words: what the visitor guesses; empty where somebody else goes on.
        notices: what the visitor should know about the article.
        seconds: after these the turn ends with what it has.
    """

    article: str
    config: DecodingConfig
    game: Game
    kind: str
    words: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    seconds: int = 30

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
        notices = list(self.notices) if not self.game.ids else []
        if encoded.cut_at is not None and not self.game.ids:
            notices.append(words.CUT.format(round(100 * encoded.cut_at / len(self.article))))
        game, result = self.game, TurnResult(notices)
        if self.kind in ("words", "drafter"):
            drafters = [(key, models.drafter(key)) for key in self.rivals]
            game, result = self._guessed(target, writer, encoding, config, drafters, result)
        count = {"skip": 1, "rest": None}.get(self.kind, 0)
        shown = time.monotonic()
        for token in writer.alone(words=count):
            game = game.grown([token], "plain", calls=1)
            now = time.monotonic()
            if now > deadline:
                result.notices.append(race_words.ENDED_EARLY.format(self.seconds))
            if now > deadline or stop.is_set():
                break
            if now - shown > _SHOWN_EVERY:
                yield self._line(target.vocabulary, game, result, goes_on=True)
                shown = now
        yield self._line(target.vocabulary, game, result, over=writer.ended)

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
        target: Target,
        writer: Writer,
        encoding: Encoding,
        config: DecodingConfig,
        drafters: Sequence[tuple[str, Drafter | None]],
        result: "TurnResult",
    ) -> tuple[Game, "TurnResult"]:
        """Checks a draft, and where it is the visitor's asks the drafters too."""
        if self.kind == "words":
            words = self._guess(target)
        else:
            first = next(drafter for _, drafter in drafters if drafter is not None)
            k = min(config.gamma, max(1, writer.room))
            words = _as_words(
                target, self.game.ids, draft_of(first, encoding, writer.text, k, config)
            )
        draft = [token for word in words for token in word.tokens][: max(0, writer.room)]
        entry, chances = writer.check(draft)
        game = self.game.after(entry)
        piece = target.vocabulary.pieces(game.ids)[-1] if entry.extra is not None else ""
        judged, begins = _judged(words, entry, chances, goes_on=piece[:1].isalnum())
        if self.kind == "words" and draft:
            scores = {YOU: game.scores[YOU].after(entry)}
            for key, drafter in drafters:
                if drafter is not None:
                    guess = draft_of(drafter, encoding, writer.text, len(draft), config)
                    scores[key] = game.scores[key].after(writer.check(guess)[0])
            game = replace(
                game,
                scores=scores,
                typed=game.typed + sum(word["s"] != "dropped" for word in judged),
                stood=game.stood + sum(word["s"] == "accepted" for word in judged),
            )
        writer.add(entry.tokens)
        best = chances[entry.accepted] if entry.extra is not None else None
        return game, replace(result, judged=judged, begins=begins, best=best, own=entry.extra)

    def _line(
        self,
        vocabulary: Vocabulary,
        game: Game,
        result: "TurnResult",
        *,
        over: bool = False,
        goes_on: bool = False,
    ) -> str:
        """A row as a line."""
        pieces = vocabulary.pieces(game.ids)
        begun = len(self.game.ids)
        added = "".join(pieces[begun + result.begins :]).strip()
        title = title_of(self.rivals[0]) if self.rivals else ""
        return rows.line(
            {
                "row": "guess",
                "run": uuid.uuid4().hex,
                "kind": self.kind,
                "guess": " ".join(self.words),
                "by": title if self.kind == "drafter" else "",
                "from": begun,
                "text": [
                    [piece, MARKS[mark]] for piece, mark in zip(pieces, game.marks, strict=True)
                ],
                "judged": result.judged,
                "own": added,
                "best": result.choices(vocabulary),
                "sentence": words.sentence(self.kind, title, result.judged, added),
                "players": players(game),
                "over": over,
                "goes_on": goes_on,
                "closing": _closing(game) if over else [],
                "notices": result.notices,
                "game": asdict(game),
            }
        )


@dataclass(frozen=True)
class TurnResult:
    """What the visitor is told of a turn, beside the text.

    Attributes:
        notices: sentences for the visitor.
        judged: the guessed words, as JSON values.
        begins: the place, counted from the turn's first token, at which the word begins that the
            target wrote itself, or finished.
        best: the target's probabilities at the place of its own token, shape (V,).
        own: that token.
    """

    notices: list[str]
    judged: list[dict[str, Any]] = field(default_factory=list)
    begins: int = 0
    best: torch.Tensor | None = None
    own: int | None = None

    def choices(self, vocabulary: Vocabulary) -> list[list[Any]]:
        """The likeliest tokens at that place, with probability, and whether it was written."""
        if self.best is None:
            return []
        values, tokens = self.best.topk(min(rows.CHOICES, len(self.best)))
        ids = tokens.tolist()
        names = vocabulary.names(ids)
        return [
            [names[token], _short(value), token == self.own]
            for token, value in zip(ids, values.tolist(), strict=True)
        ]


def players(game: Game) -> list[dict[str, Any]]:
    """The scores as JSON values, the visitor's first."""
    return [
        {"key": key, "title": words.YOU if key == YOU else title_of(key)} | asdict(score)
        for key, score in game.scores.items()
    ]


def _closing(game: Game) -> list[str]:
    rates = {key: (score.accepted, score.drafted) for key, score in game.scores.items()}
    you = rates.pop(YOU)
    return words.closing(len(game.ids), game.calls, you, rates)


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

    Args:
        words: the guess.
        entry: what the target said to it.
        chances: its probabilities at each place, shape (k + 1, V).
        goes_on: whether its own token goes on with the word before.

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
