"""Models that are tables: a target and drafters whose every distribution a test can name.

A rule maps what was written so far (without the start token) to logits or to probabilities, so
a test states a whole model as a small function. Letters are tokens: 0 starts (and pads), 1 ends,
2 is "a", 3 is "b" and so on.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch

from fastllm.decoding.distributions import distribution, draw
from fastllm.decoding.proposals import DenseProposal, Draft, OneHotProposal
from fastllm.drafters import Drafter
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Encoded

START, END, FIRST = 0, 1, 2

Rule = Callable[[tuple[int, ...]], Sequence[float]]
"""What was written so far -> logits, one for each id."""


def random_rule(size: int, seed: int = 0, scale: float = 1.5, end_bias: float = 0.0) -> Rule:
    """Logits that depend on the whole prefix, the same at every run."""

    @cache
    def logits(written: tuple[int, ...]) -> Sequence[float]:
        mixed = seed
        for token in written:
            mixed = (mixed * 1_000_003 + token + 17) % (2**31 - 1)
        row = torch.randn(size, generator=torch.Generator().manual_seed(mixed)) * scale
        row[START] = -30.0  # nobody writes the start token
        row[END] += end_bias
        return row.tolist()

    return logits


def text_rule(text: Sequence[int], size: int) -> Rule:
    """Writes `text`, whatever was written before, then ends."""

    def logits(written: tuple[int, ...]) -> Sequence[float]:
        row = [0.0] * size
        row[text[len(written)] if len(written) < len(text) else END] = 20.0
        return row

    return logits


class FakeVocabulary:
    """Letters as tokens."""

    def __init__(self, fingerprint: str = "letters") -> None:
        self.fingerprint = fingerprint
        self.passed_over: frozenset[int] = frozenset()

    def encode(self, text: str, limit: int, prefix: str = "") -> Encoded:
        letters = prefix + text
        ids = [FIRST + (ord(letter) - ord("a")) % 26 for letter in letters[: limit - 1]]
        cut = len(letters) > limit - 1
        return Encoded([*ids, END], limit - 1 - len(prefix) if cut else None)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ord("a") + token - FIRST) for token in ids if token >= FIRST)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.decode([token]) for token in ids]

    def names(self, ids: Sequence[int]) -> dict[int, str]:
        return {token: self.decode([token]) or f"<{token}>" for token in set(ids)}


class FakeTarget:
    """A target whose logits are a rule."""

    def __init__(
        self,
        rule: Rule,
        *,
        name: str = "fake",
        seconds: float = 0.0,
        source_length: int = 64,
        defaults: Mapping[str, int] | None = None,
    ) -> None:
        self.rule = rule
        self.name = name
        self.vocabulary = FakeVocabulary()
        self.device = torch.device("cpu")
        self.engine = "rule"
        self.start_id, self.end_id, self.pad_id = START, END, START
        self.end_ids: tuple[int, ...] = (END,)
        self.unsupported: tuple[str, ...] = ()
        self.prefix = ""
        self.source_length = source_length
        self.seconds = seconds
        self.longest_text: int | None = None
        self.defaults = defaults or {}
        self.sessions: list[FakeSession] = []

    def encode(self, source_ids: list[int]) -> Encoding:
        states = torch.zeros(1, len(source_ids), 1)
        return Encoding(source_ids, states, 0.001, end_id=self.end_id)

    def begin(self, encoding: Encoding) -> "FakeSession":
        self.sessions.append(FakeSession(self.rule, self.seconds))
        return self.sessions[-1]


class FakeSession:
    """A cache of ids, each behind ancestors of its own; counts its calls."""

    trees = True

    def __init__(self, rule: Rule, seconds: float = 0.0) -> None:
        self.rule = rule
        self.seconds = seconds
        self.ways: list[tuple[int, ...]] = []
        self.calls = 0

    @property
    def length(self) -> int:
        return len(self.ways)

    @property
    def ids(self) -> list[int]:
        return [way[-1] for way in self.ways]

    def forward(self, ids: list[int], parents: Sequence[int] | None = None) -> torch.Tensor:
        assert ids, "a call of the target must have something to read"
        self.calls += 1
        if self.seconds:  # sleep(0) would give the processor away
            time.sleep(self.seconds)
        length, rows = self.length, []
        for place, token in enumerate(ids):
            parent = place - 1 if parents is None else parents[place]
            assert -1 <= parent < place
            before = length + parent if parent >= 0 else length - 1
            self.ways.append((*(self.ways[before] if before >= 0 else ()), token))
            rows.append(self.rule(self.ways[-1][1:]))
        return torch.tensor(rows)

    def keep(self, length: int, path: Sequence[int] = ()) -> None:
        assert length <= len(self.ways), "what is kept was there"
        self.ways = self.ways[:length] + [self.ways[length + place] for place in path]
        assert self.ways == [self.ways[-1][:at] for at in range(1, len(self.ways) + 1)], "one text"


class RuleDrafter(Drafter):
    """A drafter that draws from a rule, its q dense and honest."""

    def __init__(
        self, rule: Rule, *, name: str = "rule", vocabulary: str = "letters", seconds: float = 0.0
    ) -> None:
        self.rule = rule
        self.name = name
        self.vocabulary = vocabulary
        self.seconds = seconds
        self.sessions: list[RuleSession] = []

    def begin(self, encoding: Encoding) -> "RuleSession":
        self.sessions.append(RuleSession(self.rule, self.seconds))
        return self.sessions[-1]


class RuleSession:
    """Drafts from a rule; remembers what it was told was accepted."""

    def __init__(self, rule: Rule, seconds: float = 0.0) -> None:
        self.rule = rule
        self.seconds = seconds
        self.told: list[int] = []

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        assert list(prefix[1:]) == self.told, "the drafter was not told the whole text"
        assert len(uniforms) >= k >= 1
        if self.seconds:  # sleep(0) would give the processor away
            time.sleep(self.seconds)
        written = list(prefix[1:])
        rows, raw = [], []
        for position in range(k):
            logits = torch.tensor(self.rule(tuple(written)))
            raw.append(logits.softmax(-1))
            rows.append(distribution(logits, config.drafting()))
            written.append(int(draw(rows[-1], uniforms[position])))
        return Draft(written[len(prefix) - 1 :], DenseProposal(torch.stack(rows)), raw.__getitem__)

    def accept(self, tokens: Sequence[int]) -> None:
        self.told.extend(tokens)


class HesitantSession(RuleSession):
    """Draws from a rule and decides behind each token whether to go on: drafts of any length."""

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        if sum(prefix) % 4 == 3:
            return Draft([], OneHotProposal(torch.zeros(0, dtype=torch.long)))
        whole = super().draft(prefix, k, config, uniforms)
        ends = (place for place, token in enumerate(whole.tokens, 1) if (token + place) % 2)
        count = next(ends, k)
        return replace(whole, tokens=whole.tokens[:count])


class ScriptedDrafter(Drafter):
    """A deterministic drafter: a script says what it proposes.

    Args:
        script: (written so far, k) -> at most k ids, possibly none.
    """

    def __init__(
        self,
        script: Callable[[tuple[int, ...], int], Sequence[int]],
        *,
        name: str = "scripted",
        vocabulary: str = "",
    ) -> None:
        self.script = script
        self.name = name
        self.vocabulary = vocabulary

    def begin(self, encoding: Encoding) -> "ScriptedSession":
        return ScriptedSession(self.script)


class ScriptedSession:
    """Drafts what the script says, one-hot."""

    def __init__(self, script: Callable[[tuple[int, ...], int], Sequence[int]]) -> None:
        self.script = script

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        tokens = list(self.script(tuple(prefix[1:]), k))
        assert len(tokens) <= k
        return Draft(tokens, OneHotProposal(torch.tensor(tokens, dtype=torch.long)))

    def accept(self, tokens: Sequence[int]) -> None:
        pass


def always(text: Sequence[int]) -> ScriptedDrafter:
    """Proposes what the target will write, and nonsense behind its end."""
    return ScriptedDrafter(
        lambda written, k: [*text[len(written) : len(written) + k], *[FIRST] * k][:k], name="always"
    )


def never(text: Sequence[int]) -> ScriptedDrafter:
    """Proposes at every place another token than the target's."""

    def script(written: tuple[int, ...], k: int) -> Sequence[int]:
        due = [*text[len(written) : len(written) + k], *[END] * k][:k]
        return [FIRST if token != FIRST else FIRST + 1 for token in due]

    return ScriptedDrafter(script, name="never")


def sometimes(text: Sequence[int], every: int = 3) -> ScriptedDrafter:
    """Wrong at each `every`-th place of the text, silent at some, right elsewhere."""

    def script(written: tuple[int, ...], k: int) -> Sequence[int]:
        if len(written) % 5 == 4:
            return []
        due = [*text[len(written) : len(written) + k], *[FIRST] * k][:k]
        return [
            (FIRST if token != FIRST else FIRST + 1)
            if (len(written) + place) % every == every - 1
            else token
            for place, token in enumerate(due)
        ]

    return ScriptedDrafter(script, name="sometimes")
