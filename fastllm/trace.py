"""The record of a decoding: its settings, its rounds, its text. Standard library only.

Everything that shows, judges, times or exports a decoding reads a `Trace`; nothing else is passed
around. Rates (tokens per call, acceptance, speed-up) are computed from the rounds by
`fastllm.metrics` when asked for and never stored.
"""

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache, lru_cache
from types import UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from fastllm.errors import DataError, SettingsError
from fastllm.words import echoed, first_line, shortened

SCHEMA_VERSION = 1

Probability = float
Alternative = tuple[int, Probability]
"""A token id and its probability."""

RoundKind = Literal["plain", "speculative"]
Ending = Literal["end_of_text", "length", "stopped", "deadline"]
Verification = Literal["token", "block", "lenient", "rollback"]
"""The rules that accept or refuse drafted tokens (`fastllm.decoding.verification`)."""
LenienceForm = Literal["linear", "square", "exponent"]
"""What lenient verification puts in the place of p: p / eps, p / eps^2, p^eps."""
DraftLength = Literal["fixed", "adaptive", "confidence", "lead"]
"""How long a draft is: gamma tokens; until the next would not pay, or the drafter is not sure
(`drafters.length`); or what it begins with where another goes on (`drafters.combined`)."""


@dataclass(frozen=True)
class DecodingConfig:
    """How to decode. Holds the one default of each setting, and its range.

    Attributes:
        gamma: draft length, the most tokens the drafter proposes a round.
        draft_length: "fixed" drafts gamma tokens; "adaptive" stops where the next token is not
            worth the two costs below (`fastllm.drafters.length`); "confidence" where the drafter's
            best probability falls below `fallback_threshold`; "lead" drafts what one call of a
            network gives, and looks up only where two tokens match (`fastllm.drafters.combined`).
        draft_cost: of one drafted token, in one-token calls of the target; the c of the papers.
        call_cost: what a drafted token adds to the target's call, in one-token calls: of a call
            that takes v as long for gamma + 1 tokens as for one, (v - 1) / gamma. Both costs were
            measured before (`python -m fastllm bench` prints them), so that a run can be repeated;
            by default those of the shipped LSTM on two CPU cores.
        temperature: 0 is greedy: the distribution becomes one-hot on the most likely token. Above 0
            it is at least `COLDEST`.
        draft_temperature: the drafter's, where the text is sampled: q is known whatever its
            temperature, so that the text stays exact, and a cooler q often overlaps more with p. 0
            drafts the likeliest tokens; None leaves it to the drafter (`drafting`).
        top_k: keep only the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of most likely tokens whose mass reaches top_p; 1 keeps all.
        max_new_tokens: the most tokens to write, the end token included.
        seed: of the uniforms that every random decision is made with.
        verification: the rule that accepts or refuses drafted tokens; "auto" is "block" when
            sampling and "token" when greedy, where the two decide alike. "lenient", for sampling
            alone, and "rollback", for greedy texts alone, are lossy.
        rollback_threshold: of "rollback", in nats: a drafted token stays where its -log p, at
            temperature 1, is at most this; 0 is exact.
        fallback_threshold: of `draft_length="confidence"`, a probability at temperature 1.
        lenience: the eps of lenient verification, above 0; 1 is exact, less accepts more.
        lenience_form: what eps does to the target's probability of a draft.
        no_repeat_ngram: no sequence of so many tokens comes twice, the start token counted; 0: off.
        min_new_tokens: the end token does not come before so many others; 0 is off.
        forced_first: the token that every text begins with, behind the start token, whatever the
            logits (mBART and NLLB: the language); -1 is off.
        forced_last: the token at place `max_new_tokens`, likewise.

    The last four are rules of the target's text (`fastllm.decoding.rules`); for None,
    `fastllm.targets.resolve` puts in what the target's own generation configuration says.

    Raises:
        SettingsError: names the field, the value and the range; or names two settings that do not
            go together.
    """

    gamma: int = 5
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 96
    seed: int = 0
    verification: Literal["auto"] | Verification = "auto"
    lenience: float = 1.0
    lenience_form: LenienceForm = "linear"
    rollback_threshold: float = 0.0
    draft_length: DraftLength = "fixed"
    draft_cost: float = 0.15
    call_cost: float = 0.09
    fallback_threshold: float = 0.5
    draft_temperature: float | None = None
    no_repeat_ngram: int | None = None
    min_new_tokens: int | None = None
    forced_first: int | None = None
    forced_last: int | None = None

    RANGES: ClassVar[dict[str, tuple[float, float]]] = {
        "gamma": (1, 16),
        "temperature": (0.0, 2.0),
        "top_k": (0, 1_000_000),
        "top_p": (0.01, 1.0),
        "max_new_tokens": (1, 1024),
        "seed": (0, 2**31 - 1),
        "lenience": (0.01, 1.0),
        "rollback_threshold": (0.0, 100.0),
        "fallback_threshold": (0.0, 1.0),
        "draft_temperature": (0.0, 2.0),
        "draft_cost": (0.0, 10.0),
        "call_cost": (0.0, 10.0),
        "no_repeat_ngram": (0, 64),
        "min_new_tokens": (0, 1024),
    }
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        "verification": ("auto", *get_args(Verification)),
        "lenience_form": get_args(LenienceForm),
        "draft_length": get_args(DraftLength),
    }
    """The settings that are words, and the words."""
    LEFT_TO_TARGET: ClassVar[dict[str, int]] = {
        "no_repeat_ngram": 0,
        "min_new_tokens": 0,
        "forced_first": -1,
        "forced_last": -1,
    }
    """The settings that None leaves to the target, and what turns each off."""
    LEFT_TO_DRAFTER: ClassVar[tuple[str, ...]] = ("draft_temperature",)
    """The settings that None leaves to the drafter."""
    COLDEST: ClassVar[float] = 1e-3
    """The lowest temperature above 0: with less, logits divided by it overflow."""

    def __post_init__(self) -> None:
        for name, (low, high) in self.RANGES.items():
            value = getattr(self, name)
            if value is None and (name in self.LEFT_TO_TARGET or name in self.LEFT_TO_DRAFTER):
                continue
            whole = isinstance(low, int)
            good_type = isinstance(value, int if whole else (int, float))
            if not good_type or isinstance(value, bool) or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                raise SettingsError(
                    f"{name}={echoed(value)} is out of range: give {kind} between {low} and {high}."
                )
        for name in ("forced_first", "forced_last"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < -1):
                raise SettingsError(
                    f"{name}={value!r} is out of range: give a token id, or -1 for none."
                )
        for name in ("temperature", "draft_temperature"):
            value = getattr(self, name)
            if value is not None and 0 < value < self.COLDEST:
                raise SettingsError(
                    f"{name}={value!r} is out of range: give 0, which is greedy, or at least "
                    f"{self.COLDEST}."
                )
        for name, words in self.CHOICES.items():
            value = getattr(self, name)
            if value not in words:
                raise SettingsError(
                    f"{name}={echoed(value)} is not known: give {', '.join(words)}."
                )
        rule, default = f"verification={self.verification!r}", type(self)
        for wrong, message in (
            (
                self.verification == "lenient" and self.temperature == 0,
                f"{rule} with temperature=0: a greedy target has one token at each place, so that "
                "lenience has nothing to act on. Give a temperature above 0, or another "
                "verification.",
            ),
            (
                self.verification == "rollback" and self.temperature > 0,
                f"{rule} with temperature={self.temperature!r}: it asks how far a token is from "
                "the target's best, which a sampled text is not made of. Give temperature=0, or "
                "verification='lenient'.",
            ),
            (
                self.verification != "rollback" and self.rollback_threshold,
                f"rollback_threshold={self.rollback_threshold!r} with {rule}: it is a setting of "
                "'rollback' alone. Give verification='rollback', or leave it out.",
            ),
            (
                self.verification != "lenient"
                and (self.lenience, self.lenience_form)
                != (default.lenience, default.lenience_form),
                f"lenience={self.lenience!r} and lenience_form={self.lenience_form!r} with {rule}: "
                "they are settings of 'lenient' alone. Give verification='lenient', or leave them "
                "out.",
            ),
        ):
            if wrong:
                raise SettingsError(message)

    @property
    def verified_by(self) -> Verification:
        """The rule that runs: "auto" settled, and "token" when greedy, where "block" equals it."""
        if self.temperature == 0:
            return "rollback" if self.verification == "rollback" else "token"
        return "block" if self.verification == "auto" else self.verification

    @property
    def lossy(self) -> bool:
        """Whether the text may differ in distribution from the target's own."""
        if self.verified_by == "rollback":
            return self.rollback_threshold > 0
        return self.verified_by == "lenient" and self.lenience < 1

    @property
    def rule_label(self) -> str:
        """The rule that runs in words: "block verification", "lossy: lenient, linear, eps 0.5"."""
        if self.lossy and self.verified_by == "rollback":
            return f"lossy: rollback, threshold {self.rollback_threshold:g}"
        if self.lossy:
            return f"lossy: lenient, {self.lenience_form}, eps {self.lenience:g}"
        return f"{self.verified_by} verification"

    @property
    def length_label(self) -> str:
        """How long drafts are, in words; empty where all have gamma tokens."""
        if self.draft_length == "fixed":
            return ""
        if self.draft_length == "lead":
            return "one call of the drafter"
        if self.draft_length == "confidence":
            return f"confidence (at least {self.fallback_threshold:g})"
        return f"adaptive (c {self.draft_cost:g}, call cost {self.call_cost:g})"

    def drafting(self, own: float | None = None) -> "DecodingConfig":
        """The settings that a drafter draws by: these at the temperature of drafts.

        `own` is the drafter's own `draft_temperature`: it holds where the settings name none, and
        never above the target's temperature.
        """
        return _drafting(self, own)

    def of_length(self, length: DraftLength) -> "DecodingConfig":
        """The same with drafts of another length."""
        return _of_length(self, length)

    def greedy(self) -> "DecodingConfig":
        """The same at temperature 0, where every rule of verification comes to the same."""
        default = type(self)
        return replace(
            self,
            temperature=0.0,
            verification=default.verification,
            rollback_threshold=default.rollback_threshold,
            lenience=default.lenience,
            lenience_form=default.lenience_form,
        )


@lru_cache(maxsize=64)
def _drafting(config: DecodingConfig, own: float | None) -> DecodingConfig:
    """`DecodingConfig.drafting`; drafters ask in every round."""
    wanted = config.draft_temperature
    if wanted is None:
        wanted = config.temperature if own is None else min(own, config.temperature)
    if config.temperature == 0 or wanted == config.temperature:
        return config
    return config.greedy() if wanted == 0 else replace(config, temperature=wanted)


@lru_cache(maxsize=64)
def _of_length(config: DecodingConfig, length: DraftLength) -> DecodingConfig:
    """`DecodingConfig.of_length`; drafters ask in every round."""
    return replace(config, draft_length=length)


@dataclass(frozen=True)
class Judged:
    """One drafted token that was tested.

    What stands is the matter of the rule (`DecodingConfig.verified_by`): under the token rule and
    the lenient one all drafts before the first test that fails, under the block rule all up to the
    last test that passes.

    Attributes:
        p: the target's probability of it, after rules, temperature and filters.
        q: the drafter's, likewise; the draft was drawn from exactly this.
        uniform: the number in [0, 1) that it was tested with.
        threshold: the test passes where uniform < threshold: min(1, p/q) under the token rule,
            min(1, f(p)/q) under the lenient one, h of Sun et al. 2024 under the block rule.
        overlap: sum over the vocabulary of min(p, q), the chance that a draft from q is accepted.
        p_unwarped, q_unwarped: the probabilities at temperature 1, without rules and filters.
        target_best, drafter_best: the most likely tokens at temperature 1, best first.

    The last five are statistics for display: None or empty when not collected.
    """

    token: int
    p: Probability
    q: Probability
    uniform: float
    threshold: Probability
    overlap: float | None = None
    p_unwarped: Probability | None = None
    q_unwarped: Probability | None = None
    target_best: tuple[Alternative, ...] = ()
    drafter_best: tuple[Alternative, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether its own test passed; under the block rule a draft may stand without."""
        return self.uniform < self.threshold


@dataclass(frozen=True)
class Branch:
    """A drafted continuation beside `Round.drafted`; none of its tokens stands.

    Attributes:
        at: behind how many tokens of `Round.drafted` it parts from them.
        tokens: its drafted ids. Branches that begin alike each hold what they share.
        test: of its first token; None where the draft was settled before that.
    """

    at: int
    tokens: tuple[int, ...]
    test: Judged | None = None


@dataclass(frozen=True)
class Round:
    """One call of the target and what came of it.

    Attributes:
        kind: plain where nothing was drafted.
        drafted: the drafted ids. What came behind a drafted end token is not in here. Of a tree the
            path that stands, and behind it the first child that was refused, with its first line.
        judged: one entry for each draft that was tested: under the block rule all, else those that
            were accepted and the first refused one.
        accepted: how many drafts were accepted: they stand, none behind them does.
        extra: the token the target itself added: the plain token, the correction of a refused
            draft, or the bonus after a fully accepted one; None after an accepted end token.
        extra_p: the target's probability of `extra`, after rules, temperature and filters; for a
            correction too this is p, not the residual it was drawn from.
        extra_best: the target's most likely tokens at that place, at temperature 1.
        start: seconds on the lane's own clock at which the round began.
        draft_seconds: spent in the drafter.
        verify_seconds: spent in the target's call and in the verdict.
        total_seconds: the whole round, bookkeeping included, statistics excluded.
        branches: what else a tree held; left out of the JSON where there is nothing.
    """

    kind: RoundKind
    drafted: tuple[int, ...] = ()
    judged: tuple[Judged, ...] = ()
    accepted: int = 0
    extra: int | None = None
    extra_p: Probability | None = None
    extra_best: tuple[Alternative, ...] = ()
    start: float = 0.0
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0
    total_seconds: float = 0.0
    branches: tuple[Branch, ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids this round added to the text."""
        return self.drafted[: self.accepted] + (() if self.extra is None else (self.extra,))

    @property
    def extra_kind(self) -> Literal["plain", "correction", "bonus"] | None:
        """What `extra` is."""
        if self.extra is None:
            return None
        if self.kind == "plain":
            return "plain"
        return "correction" if self.accepted < len(self.drafted) else "bonus"

    @property
    def refused(self) -> int | None:
        """The first draft that does not stand; none behind it does either."""
        return self.drafted[self.accepted] if self.accepted < len(self.drafted) else None


@dataclass(frozen=True)
class Trace:
    """A whole decoding.

    Attributes:
        source: the article as given.
        prefix: what was put before it for the target ("summarize: " or nothing).
        cut_at: the character of `source` at which it was cut to fit; None if it was not.
        config: the settings, None resolved to the target's own numbers, and `verification` the
            rule that ran.
        drafter: its name; empty for the target alone.
        vocabulary: the fingerprint of the vocabulary that the ids belong to.
        versions: of Python and the libraries, and the engine that ran the target's decoder.
        target_encode_seconds, drafter_encode_seconds: what each took to prepare for the article.
        rounds: the calls of the target, in order.
        pieces: the text that each token of the summary added, joined equal to `text`.
        names: a readable form of every token id mentioned in the rounds.
    """

    source: str
    config: DecodingConfig
    target: str
    drafter: str
    vocabulary: str
    prefix: str = ""
    cut_at: int | None = None
    hardware: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    target_encode_seconds: float = 0.0
    drafter_encode_seconds: float = 0.0
    rounds: tuple[Round, ...] = ()
    ended: Ending = "end_of_text"
    text: str = ""
    pieces: tuple[str, ...] = ()
    names: dict[int, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids of the text, the end token included."""
        return tuple(token for entry in self.rounds for token in entry.tokens)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives an equal Trace back."""
        tree = asdict(self)
        for entry in tree["rounds"]:
            if not entry["branches"]:  # as traces were before there were any
                del entry["branches"]
        return tree

    def dumps(self) -> str:
        """The Trace as JSON text."""
        return json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False)

    @classmethod
    def loads(cls, text: str) -> "Trace":
        """Rebuilds a Trace from `dumps`, or from what `fastllm run --json` prints.

        Raises:
            DataError: it is no JSON, or as for `from_json`.
        """
        try:
            tree = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"not a trace ({first_line(error)}): record it again.") from error
        return cls.from_json(tree)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Trace":
        """Rebuilds a Trace from `to_json` (or from its JSON text, parsed).

        Raises:
            DataError: another schema version; or a field that is missing, unknown, or holds what
                it cannot.
        """
        if not isinstance(tree, dict):
            raise DataError("not a trace, but other JSON: record it again.")
        if tree.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"a trace of schema version {echoed(tree.get('schema_version'))}; this FastLLM "
                f"reads version {SCHEMA_VERSION}: record it again."
            )
        try:
            found: Trace = _read(cls, tree, "")
        except _Damage as error:
            raise DataError(f"not a whole trace ({error}): record it again.") from error
        return found


# Reading JSON. The types of the fields say what may stand there.


class _Damage(Exception):
    """What is wrong with a value, and where it stands."""


_MOST_WHOLE, _MOST = 2**31, 1e9
"""Whole numbers lie in [0, 2^31): ids, counts, places. Other numbers are at most 1e9 in size."""


def _read(kind: Any, value: Any, place: str) -> Any:
    """A value of the type of a field, from its JSON form, or as `asdict` leaves it.

    Raises:
        _Damage: it is of another type or out of range; `place` says where it stands.
    """
    origin, inside = get_origin(kind), get_args(kind)
    if origin is UnionType:  # X | None
        return None if value is None else _read(inside[0], value, place)
    if kind is DecodingConfig:
        try:
            return DecodingConfig(**_typed(dict, value, place))
        except (SettingsError, TypeError) as error:
            raise _Damage(f"{place}: {first_line(error)}") from error
    if is_dataclass(kind):
        return _read_fields(kind, _typed(dict, value, place), place)
    if origin is tuple:
        items = _typed((list, tuple), value, place)
        kinds = [inside[0]] * len(items) if inside[-1] is ... else inside
        if len(kinds) != len(items):
            raise _Damage(f"{place}: {len(kinds)} values are needed, found {len(items)}")
        return tuple(
            _read(one, item, f"{place}[{at}]")
            for at, (one, item) in enumerate(zip(kinds, items, strict=True))
        )
    if origin is dict:
        return {
            _read_key(inside[0], key, place): _read(inside[1], item, place)
            for key, item in _typed(dict, value, place).items()
        }
    if origin is Literal:
        if _typed(str, value, place) not in inside:
            raise _Damage(f"{place}: {echoed(value)} is none of {', '.join(inside)}")
        return value
    if kind is str:
        try:
            _typed(str, value, place).encode()
        except UnicodeEncodeError as error:
            raise _Damage(f"{place}: half of a surrogate pair is no character") from error
        return value
    number = _typed(int if kind is int else (int, float), value, place)
    low, high = (0, _MOST_WHOLE - 1) if kind is int else (-_MOST, _MOST)
    if isinstance(number, bool) or not low <= number <= high:
        raise _Damage(f"{place}: {echoed(value)} is no number between {low:g} and {high:g}")
    return kind(number)


def _read_fields(kind: Any, tree: dict[str, Any], place: str) -> Any:
    hints = _hints(kind)
    inside = f"{place}." if place else ""
    if kind is Round:
        tree = {"branches": (), **tree}
    for name in {**hints, **tree}:
        if name not in tree or name not in hints:
            what = "missing" if name in hints else "unknown"
            raise _Damage(f"{inside}{shortened(str(name), 80)} is {what}")
    values = {name: _read(hint, tree[name], inside + name) for name, hint in hints.items()}
    made = kind(**values)
    if isinstance(made, Round) and any(one.at > len(made.drafted) for one in made.branches):
        raise _Damage(f"{inside}branches: one parts behind the {len(made.drafted)} drafted tokens")
    if isinstance(made, Round) and made.accepted > len(made.drafted):
        raise _Damage(
            f"{inside}accepted: {made.accepted} of {len(made.drafted)} drafted tokens cannot be"
        )
    return made


def _read_key(kind: type, key: Any, place: str) -> Any:
    """A key of a JSON object; those of `names` are numbers, which JSON writes as text."""
    if kind is int and isinstance(key, str) and key.isdecimal() and len(key) <= 10:
        key = int(key)
    return _read(kind, key, place)


def _typed(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, kind):
        raise _Damage(f"{place}: {echoed(value)} is of the wrong type")
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The fields of a dataclass and their types."""
    found = get_type_hints(kind)
    return {entry.name: found[entry.name] for entry in fields(kind)}


def config_defaults() -> dict[str, Any]:
    """The default of each setting, by name."""
    return {entry.name: entry.default for entry in fields(DecodingConfig)}
