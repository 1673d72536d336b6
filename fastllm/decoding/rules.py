"""Which tokens may not come next: no repeated n-grams, and no end before a least length.

The rules are part of what the target writes: its logits are barred (`forbid` of
`fastllm.decoding.distributions`) before temperature and filters, at every position of a draft as in
plain decoding, so speculation stays exact. Drafters bar the same tokens, since the target would
refuse them all.
"""

from collections.abc import Sequence

from fastllm.trace import DecodingConfig


def end_set(end_id: int | Sequence[int]) -> frozenset[int]:
    """The tokens that end a text, of one or several."""
    return frozenset((end_id,) if isinstance(end_id, int) else end_id)


class Rules:
    """The rules at work on one text, which may grow and go back.

    An index of the n-grams follows the text: a token added or taken back costs one dictionary
    entry, whatever the length of the text and the size of the vocabulary.

    The start token counts as part of the text for n-grams, and not for the length. The same as
    NoRepeatNGramLogitsProcessor and MinNewTokensLengthLogitsProcessor of transformers 5.23 on an
    encoder-decoder.

    Args:
        end_id: the token that ends a text, or several of which any does; None where it is not
            known, and never barred.

    Example: with no_repeat_ngram=2 and the text 0 5 6 7 5, the token 6 is barred: 5 6 was there.
    """

    def __init__(self, end_id: int | Sequence[int] | None) -> None:
        self._ends = () if end_id is None else end_set(end_id)
        self._order = 0
        self._text: list[int] = []
        self._followers: dict[tuple[int, ...], list[int]] = {}

    def banned(self, text: Sequence[int], config: DecodingConfig) -> list[int]:
        """The tokens that may not come behind a text.

        Args:
            text: the start token and everything behind it.
            config: no_repeat_ngram and min_new_tokens; None, where nobody resolved it, is 0.

        Returns:
            Token ids in no order, possibly more than once.
        """
        return next(iter(self.along(text, (), config)), [])

    def along(
        self, text: Sequence[int], drafted: Sequence[int], config: DecodingConfig
    ) -> list[list[int]]:
        """The tokens that may not come behind a text, and behind each drafted token.

        Args:
            text: the start token and everything behind it.
            drafted: the tokens that might come next.
            config: as for `banned`.

        Returns:
            len(drafted) + 1 lists; the last is for the place behind the whole draft. An empty list
            if no rule is set.
        """
        if not config.no_repeat_ngram and not config.min_new_tokens:
            return []
        order = config.no_repeat_ngram or 0
        if order:
            self._follow(text, order)
        early = (config.min_new_tokens or 0) - (len(text) - 1)  # places where no end may stand
        whole = [*text, *drafted]
        # The draft is not written into the index: what would repeat a part of it is kept here.
        own: dict[tuple[int, ...], list[int]] = {}
        found = []
        for place, end in enumerate(range(len(text), len(whole) + 1)):
            barred = [*self._ends] if place < early else []
            if order:
                context = tuple(whole[max(0, end - order + 1) : end])
                barred += self._followers.get(context, ())
                barred += own.get(context, ())
                if end < len(whole):
                    own.setdefault(context, []).append(whole[end])
            found.append(barred)
        return found

    def _follow(self, text: Sequence[int], order: int) -> None:
        """Brings the index to another text: what differs is taken back, what is new is added."""
        if order != self._order:
            self._order, self._text, self._followers = order, [], {}
        known = len(self._text)
        if list(text[:known]) != self._text:
            known = next(
                (
                    place
                    for place, (old, new) in enumerate(zip(self._text, text, strict=False))
                    if old != new
                ),
                min(known, len(text)),
            )
            while len(self._text) > known:
                self._take_back()
        for token in text[known:]:
            self._add(token)

    def _add(self, token: int) -> None:
        if len(self._text) >= self._order - 1:
            self._followers.setdefault(self._context(), []).append(token)
        self._text.append(token)

    def _take_back(self) -> None:
        self._text.pop()
        if len(self._text) >= self._order - 1:
            self._followers[self._context()].pop()

    def _context(self) -> tuple[int, ...]:
        """The last tokens, one fewer than an n-gram has."""
        return tuple(self._text[len(self._text) - self._order + 1 :])
