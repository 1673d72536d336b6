"""Which tokens may not come next: no repeated n-grams, no end too early, a forced first and last.

The rules are part of what the target writes: its logits are barred (`forbid` of
`fastllm.decoding.distributions`) before temperature and filters, at every position of a draft as in
plain decoding, so speculation stays exact. Drafters bar the same tokens, since the target would
refuse them all.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from fastllm.trace import DecodingConfig


def end_set(end_id: int | Sequence[int]) -> frozenset[int]:
    """The tokens that end a text, of one or several."""
    return frozenset((end_id,) if isinstance(end_id, int) else end_id)


def agreeing(one: Sequence[int], other: Sequence[int]) -> int:
    """With how many equal tokens two texts begin."""
    same = 0
    for x, y in zip(one, other, strict=False):
        if x != y:
            break
        same += 1
    return same


_LARGEST = 1 << 20
"""More tokens than any vocabulary has."""


class AllBut(Sequence[int]):
    """All tokens but the one that is kept: barred where that one is forced."""

    def __init__(self, kept: int) -> None:
        self.kept = kept

    def __contains__(self, token: object) -> bool:
        return token != self.kept

    def __len__(self) -> int:
        return _LARGEST - 1

    def __getitem__(self, index: Any) -> Any:
        return self.within(_LARGEST)[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self.within(_LARGEST))

    def within(self, size: int) -> list[int]:
        """Those of a vocabulary of `size` tokens."""
        return [*range(min(self.kept, size)), *range(self.kept + 1, size)]


def _is_on(token: int | None) -> bool:
    return token is not None and token >= 0


class Rules:
    """The rules at work on one text, which may grow and go back.

    An index of the n-grams follows the text: a token added or taken back costs one dictionary
    entry. The start token counts as part of the text for n-grams, and not for the length, as in the
    logits processors of transformers 5.23 on an encoder-decoder (NoRepeatNGram, MinNewTokensLength,
    ForcedBOSToken, ForcedEOSToken). What is forced comes whatever the other rules say, and the last
    token before the first. Where no token is known to end a text (None), none is barred as such.

    Example: with no_repeat_ngram=2 and the text 0 5 6 7 5, the token 6 is barred: 5 6 was there.
    """

    def __init__(self, end_id: int | Sequence[int] | None) -> None:
        self._ends = () if end_id is None else end_set(end_id)
        self._order = 0
        self._text: list[int] = []
        self._followers: dict[tuple[int, ...], list[int]] = {}

    @staticmethod
    def forced(length: int, config: DecodingConfig) -> int | None:
        """The token that has to come behind a text of `length` tokens, the start token counted.

        None where any may.
        """
        if length == config.max_new_tokens and _is_on(config.forced_last):
            return config.forced_last
        return config.forced_first if length == 1 and _is_on(config.forced_first) else None

    def banned(self, text: Sequence[int], config: DecodingConfig) -> Sequence[int]:
        """The ids, in no order, that may not come behind a text; as `along`."""
        return next(iter(self.along(text, (), config)), [])

    def along(
        self, text: Sequence[int], drafted: Sequence[int], config: DecodingConfig
    ) -> list[Sequence[int]]:
        """The tokens that may not come behind a text, and behind each drafted token.

        Args:
            text: the start token and everything behind it.
            drafted: the tokens that might come next.
            config: the settings in `DecodingConfig.LEFT_TO_TARGET`; None, where nobody resolved it,
                is off.

        Returns:
            len(drafted) + 1 lists; the last is for the place behind the whole draft. An empty list
            if no rule is set.
        """
        forces = _is_on(config.forced_first) or _is_on(config.forced_last)
        if not (config.no_repeat_ngram or config.min_new_tokens or forces):
            return []
        order = config.no_repeat_ngram or 0
        if order:
            self._follow(text, order)
        early = (config.min_new_tokens or 0) - (len(text) - 1)  # places where no end may stand
        whole = [*text, *drafted]
        # The draft is not written into the index: what would repeat a part of it is kept here.
        own: dict[tuple[int, ...], list[int]] = {}
        found: list[Sequence[int]] = []
        for place, end in enumerate(range(len(text), len(whole) + 1)):
            barred = [*self._ends] if place < early else []
            if order:
                context = tuple(whole[max(0, end - order + 1) : end])
                barred += self._followers.get(context, ())
                barred += own.get(context, ())
                if end < len(whole):
                    own.setdefault(context, []).append(whole[end])
            forced = self.forced(end, config)
            found.append(barred if forced is None else AllBut(forced))
        return found

    def _follow(self, text: Sequence[int], order: int) -> None:
        """Brings the index to another text: what differs is taken back, what is new is added."""
        if order != self._order:
            self._order, self._text, self._followers = order, [], {}
        known = len(self._text)
        if list(text[:known]) != self._text:
            known = agreeing(self._text, text)
            while len(self._text) > known:
                self._text.pop()
                if len(self._text) >= order - 1:
                    self._followers[self._context()].pop()
        for token in text[known:]:
            if len(self._text) >= order - 1:
                self._followers.setdefault(self._context(), []).append(token)
            self._text.append(token)

    def _context(self) -> tuple[int, ...]:
        """The last tokens, one fewer than an n-gram has."""
        return tuple(self._text[len(self._text) - self._order + 1 :])
