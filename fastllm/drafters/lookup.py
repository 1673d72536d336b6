"""Article lookup: copies what followed the last words the last time they stood somewhere.

Summaries copy. The longest end of the text so far that also stands in the article (or earlier in
the text itself) is looked up, and what follows it there is drafted. Nothing is trained, any
vocabulary will do, and where nothing matches nothing is drafted.

Example: the article reads "the old mill burned down on Friday" and the text so far is "Yesterday
the old": the two words "the old" match, and the draft is "mill burned down on Friday".

Source: Saxena 2023, "Prompt lookup decoding" (there the prompt of a decoder-only model; the
article of an encoder-decoder is not in its prompt); Yang et al. 2023, arXiv:2304.04487.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from fastllm.decoding.proposals import Draft, OneHotProposal
from fastllm.decoding.rules import Rules, agreeing
from fastllm.drafters import Drafter, FamilySpec
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig

LEAD_MATCH = 2
"""Tokens that must match where another drafter is asked elsewhere (`draft_length="lead"`): the
lookup drafts less often with more, and a looked-up draft is all but free."""

_BORDER = -1
"""Stands between article and text; no token is equal to it, so no match or draft crosses it."""


class ArticleLookup(Drafter):
    """The drafter that needs no training.

    Args:
        min_match: the fewest tokens that must match before anything is drafted.
        end_id: the token that ends an article, where its encoding does not say so; it is never
            drafted from there.

    Raises:
        SettingsError: `min_match` is below 1.
    """

    name = "article lookup"
    vocabulary = ""

    def __init__(self, min_match: int = 1, end_id: int = 1) -> None:
        if isinstance(min_match, bool) or not isinstance(min_match, int) or min_match < 1:
            raise SettingsError(
                f"min_match={min_match!r} is out of range: give a whole number of at least 1."
            )
        self.min_match = min_match
        self.end_id = end_id

    def begin(self, encoding: Encoding) -> "LookupSession":
        """Indexes the article: one dictionary entry per token."""
        end_id = self.end_id if encoding.end_id is None else encoding.end_id
        return LookupSession(encoding.source_ids, self.min_match, end_id)


class _State(NamedTuple):
    """What is known after a token of the text.

    How many tokens match that end at each place, and where two or more were last copied.
    """

    matches: dict[int, int]
    copied_at: int


class LookupSession:
    """An article being looked up. The prefix given to `draft` is all it goes by.

    How many tokens match at each place is kept up to date token by token: the match that ends at
    place j has one token more than the one that ended at j - 1, if the new token stands at j. So a
    new token costs as many steps as it has occurrences, whatever the length of the match. What was
    known after each token is kept, so that tokens of a refused draft are taken back.
    """

    def __init__(self, source_ids: Sequence[int], min_match: int, end_id: int) -> None:
        article = list(source_ids)
        while article and article[-1] == end_id:
            article.pop()
        self._article = article
        self._article_places: dict[int, list[int]] = {}
        for place, token in enumerate(article):
            self._article_places.setdefault(token, []).append(place)
        self._min_match = min_match
        self._rules = Rules(end_id)
        self._text: list[int] = []
        self._all = [*self._article, _BORDER]
        self._text_places: dict[int, list[int]] = {}
        self._states: list[_State] = [_State({}, 0)]

    def draft(
        self, prefix: Sequence[int], k: int, config: DecodingConfig, uniforms: torch.Tensor
    ) -> Draft:
        """Proposes up to `k` tokens that followed the longest match; none where nothing matches.

        Of matches equally long the one with more tokens to give (up to `k`) is taken; of those the
        one nearest to where the text last copied two tokens or more; of those the first. What the
        rules bar is not drafted: a match that would begin with it is passed over, and a draft ends
        before it. Drafts of adaptive length are as long as others: how much matched says nothing of
        how sure the next token is.
        """
        text = list(prefix[1:])
        same = agreeing(self._text, text)
        while len(self._text) > same:  # these were drafted, and refused
            self._all.pop()
            self._text_places[self._text.pop()].pop()
            self._states.pop()
        for token in text[same:]:
            self._read(token)
        leads = config.draft_length == "lead"
        fewest = max(self._min_match, LEAD_MATCH) if leads else self._min_match
        tokens = self._continuation(k, fewest, self._rules.banned(prefix, config))
        bans = self._rules.along(prefix, tokens, config)
        for place, (token, banned) in enumerate(zip(tokens, bans, strict=False)):
            if token in banned:
                tokens = tokens[:place]
                break
        return Draft(tokens, OneHotProposal(tokens))

    def accept(self, tokens: Sequence[int]) -> None:
        """Nothing to do: the next prefix holds these tokens."""

    def _read(self, token: int) -> None:
        before, copied_at = self._states[-1]
        places = self._article_places.get(token, []) + self._text_places.get(token, [])
        matches = {place: before.get(place - 1, 0) + 1 for place in places}
        self._text_places.setdefault(token, []).append(len(self._all))
        self._text.append(token)
        self._all.append(token)
        longest = max(matches, key=matches.__getitem__, default=-1)
        if 0 <= longest < len(self._article) and matches[longest] >= 2:
            copied_at = longest
        self._states.append(_State(matches, copied_at))

    def _continuation(self, k: int, fewest: int, banned: Sequence[int]) -> list[int]:
        matches, copied_at = self._states[-1]
        border, end = len(self._article), len(self._all)
        best, best_rank = 0, (fewest, 0, 0, 0)
        for place, length in matches.items():
            available = min(k, (border if place < border else end) - place - 1)
            rank = (length, available, -abs(place - copied_at), -place)
            if available > 0 and rank > best_rank and self._all[place + 1] not in banned:
                best, best_rank = place, rank
        return self._all[best + 1 : best + 1 + best_rank[1]]


SPEC = FamilySpec(
    "lookup",
    "article lookup",
    "a lookup in the article",
    ArticleLookup,
    training="none",
    required_keys=(),
    weights=(),
)
