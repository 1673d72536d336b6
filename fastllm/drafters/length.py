"""How long a draft is, where `draft_length` is "adaptive": until the next token would not pay.

Time is counted in one-token calls of the target. A drafted token costs c (`draft_cost`) in the
drafter and s (`call_cost`) in the target's call, so that a round with a draft of k tokens takes
1 + k (c + s). It writes 1 + a_1 + ... + a_k tokens in expectation, a_i being the chance that i
drafts or more stand. Over many rounds the pace is expected tokens over expected time, and for the
best pace R the best round has E[tokens] - R E[time] = 0 and every other one less (Dinkelbach 1967):
so a token more pays exactly where

    a_{k+1} > R (c + s),

and since a_i falls with i, the first place where it does not is the end. R is taken to be the pace
that the lane has kept so far, by these costs, and never less than 1, which plain decoding keeps.

a_{k+1} is estimated by what the drafter itself says: with x its probability of a drafted token, at
temperature 1 and without filters, the product of sqrt(x) over the tokens drafted so far, and the
mean of sqrt(x) in this lane for the one to come. The root is measured: drafters are surer of being
accepted than their probabilities say, since what they spread over several tokens the target often
does, too. Nothing is timed here: settings and seed settle every draft.

What was drawn is always drafted. Dropping a token for being unlikely would change the distribution
that drafts come from, and with it the text.

"confidence" is simpler: a draft ends before the first place where the drafter's best token has less
than `fallback_threshold`, as in Kim et al. 2023, arXiv:2302.07863. It is decided before a token is
drawn there, so that the text stays exact.

Source: of a limit on the drafter's confidence, Mamou et al. 2024, "Dynamic Speculation Lookahead",
arXiv:2405.04304; of the chance that a draft is refused as a criterion, Huang et al. 2024,
"SpecDec++", arXiv:2405.19715 (both learn or tune a threshold; here it follows from the costs).
"""

import math

import torch

from fastllm.trace import DecodingConfig

BELIEF = 0.8
"""The chance that a drafted token is accepted, before anything was drafted."""

WEIGHT = 10
"""How many tokens, and how many one-token calls, what is believed at the start counts for."""


class LengthRule:
    """Decides behind each drafted token of a lane whether to draft another.

    Behind `end_id`, where it is known, nothing is drafted.

    Example: with c = 0.1, s = 0.1 and a lane that writes 2 tokens in the time of a plain one, the
    next token must be used with a chance of more than 0.4.
    """

    def __init__(self, end_id: int | None = None) -> None:
        self._end = end_id
        self._chances = WEIGHT * BELIEF
        self._asked = self._written = self._time = float(WEIGHT)
        self._cost, self._chance, self._drafted = 0.0, 1.0, 0

    @property
    def pace(self) -> float:
        """Tokens that the lane writes in the time of a one-token call, at least 1."""
        return max(1.0, self._written / self._time)

    def begin(self, config: DecodingConfig) -> None:
        """A draft begins."""
        self._cost = config.draft_cost + config.call_cost
        self._chance = 1.0
        self._drafted = 1

    def goes_on(self, token: int, confidence: float) -> bool:
        """Whether to draft on, behind a token of this unwarped probability."""
        if token == self._end:
            return False
        chance = math.sqrt(confidence)
        self._chance *= chance
        self._chances += chance
        self._asked += 1
        gain = self._chance * self._chances / self._asked
        if gain < self.pace * self._cost:
            return False
        self._drafted += 1
        return True

    def accept(self, count: int) -> None:
        """Told after each round how many tokens the text has grown by.

        A round in which `begin` was not called is somebody else's, and does not count.
        """
        if self._drafted:
            self._written += count
            self._time += 1 + self._drafted * self._cost
            self._drafted = 0


def falls_back(logits: torch.Tensor, config: DecodingConfig) -> bool:
    """Whether a draft ends before the place of these logits (V,): the drafter is not sure."""
    if config.draft_length != "confidence":
        return False
    return float(logits.float().softmax(-1).max()) < config.fallback_threshold


def confidence(logits: torch.Tensor, token: int) -> float:
    """The probability of a token by the logits (V,) that it was drawn from, at temperature 1."""
    # the whole softmax takes less time than a logsumexp: 8 us against 17 of 8,192 on a CPU
    return float(logits.float().softmax(-1)[token])
