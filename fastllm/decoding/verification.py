"""The verdict on a draft: the rules of verification, each one an object.

A rule never changes the distribution of the text unless it says that it is `lossy`. Every random
decision takes its uniform number as an argument, so tests can enumerate all outcomes. Temperature 0
makes distributions one-hot, so every rule holds for greedy decoding too; `judge` then compares the
most likely tokens alone, which comes to the same.

A verdict is reached where the distributions are. On CUDA it is a series of tensor operations and
one synchronisation. On a CPU each of these would cost more than its arithmetic, a few rows of a
vocabulary: there rows are numpy's, and single numbers are Python's.

To add a rule: subclass `Rule`, or `DrawingRule` where the target's token is drawn, list it in
`RULES`, and name it in `fastllm.trace.Verification`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fastllm.decoding.distributions import (
    best_tokens,
    cumulative_sum,
    draw,
    drawn_from,
    on_cuda,
    require_finite,
    ruled_distribution,
)
from fastllm.decoding.proposals import Draft, OneHotProposal, Proposal
from fastllm.trace import DecodingConfig, LenienceForm, Verification

Chance = TypeVar("Chance", float, Tensor)

Numbers = Sequence[float]

Uniforms = Sequence[float] | Tensor
"""Numbers in [0, 1): floats, or float64 of shape (n,)."""


class Verdict(NamedTuple):
    """The outcome of `judge` or `Rule.verify`, plain Python values.

    Attributes:
        accepted: how many drafts stand.
        extra: the target's own token after them; `extra_p` is its probability.
        p: the target's probability of each drafted token; fewer than were drafted where a q is NaN:
            that token and those after it count as not drafted.
        q: the drafter's probability of each.
        thresholds: what the uniform of each drafted token is compared with; the test passes below.
    """

    accepted: int
    extra: int
    p: list[float]
    q: list[float]
    thresholds: Sequence[float]
    extra_p: float


def judge(
    logits: Tensor,
    draft: Draft,
    uniforms: Uniforms,
    config: DecodingConfig,
    banned: Sequence[Sequence[int]] = (),
) -> Verdict:
    """Decides on a draft by the target's logits, with the filters and the rule of the settings.

    The same as `Rule.verify` on the distributions of logits (k + 1, V), without the ids that are
    barred in each row; when greedy it reads the most likely tokens alone.

    Raises:
        NotFiniteError: the target's logits are NaN or infinite.
        VocabularyError: the drafter's distributions are over another number of tokens.
    """
    rule = rule_of(config)
    if rule.reads_probabilities(config):
        draft.q.require(logits.shape[-1])
        p = ruled_distribution(logits, banned, config if config.temperature > 0 else _WARM)
        verdict = rule.verify(p, draft, uniforms)
        # What stands after the accepted tokens has no part in the text.
        require_finite([*verdict.p[: verdict.accepted + 1], verdict.extra_p], logits.dtype)
        return verdict
    best, largest = best_tokens(logits, banned)
    p_drafted = [float(token == wanted) for token, wanted in zip(draft.tokens, best, strict=False)]
    accepted = [*p_drafted, 0.0].index(0.0)
    require_finite(largest[: accepted + 1], logits.dtype)
    return Verdict(accepted, best[accepted], p_drafted, draft.chances, p_drafted, 1.0)


_WARM = DecodingConfig(temperature=1.0)
"""What p is taken with where a rule reads probabilities of a greedy target."""


class Rule(ABC):
    """A rule of verification: how much of a draft stands, and which token follows.

    It is `lossy` where the text may differ in distribution from the target's own.
    """

    name: ClassVar[Verification]
    label: ClassVar[str]
    lossy: bool = False

    @abstractmethod
    def verify(self, p: Tensor, draft: Draft, uniforms: Uniforms) -> Verdict:
        """Decides how much of a draft of k tokens stands, and adds one token.

        Args:
            p: the target's distributions, shape (k + 1, V), at each drafted position and after.
            draft: the tokens and the distributions they were drawn from.
            uniforms: k + 1 numbers in [0, 1): one test each, and the last for the extra token.
        """

    def reads_probabilities(self, config: DecodingConfig) -> bool:
        """Whether it needs p: a greedy verdict needs the target's best tokens alone."""
        return config.temperature > 0

    def tested(self, drafted: int, accepted: int) -> int:
        """How many tests decided: all up to the first refusal."""
        return min(drafted, accepted + 1)


class DrawingRule(Rule):
    """A rule that draws.

    Drafted token x_i is tested with a uniform u_i of its own. The token after the accepted ones is
    drawn from norm(max(scale p - q, 0)) where a draft was refused, and from p after a whole
    accepted draft (the bonus).
    """

    def verify(self, p: Tensor, draft: Draft, uniforms: Uniforms) -> Verdict:
        """As `Rule.verify`."""
        if on_cuda(p.device):
            return self.verify_on_device(p, draft, uniforms)
        return self._verify_on_host(p.cpu(), draft, uniforms)

    @abstractmethod
    def decide_on_host(
        self, p: np.ndarray, q: Proposal, of_p: Numbers, of_q: Numbers, uniforms: Numbers
    ) -> tuple[int, float, Numbers]:
        """Tests the k drafted tokens, of which the target's and the drafter's chances are given.

        Returns:
            How many stand; the scale of the correction, at most 1; the threshold of each token.
        """

    @abstractmethod
    def decide_on_device(
        self, p: Tensor, q: Tensor, of_p: Tensor, of_q: Tensor, uniforms: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The same with tensors, without a synchronisation: p (k + 1, V), q (k, V), others (k,).

        Returns:
            How many stand, shape (); the scales after 0 to k accepted tokens, shape (k + 1,), None
            where all are 1; the thresholds, shape (k,), empty where the host computes them.
        """

    def thresholds(self, of_p: Numbers, of_q: Numbers) -> list[float]:
        """The tests on the host, where `decide_on_device` leaves them to it."""
        return [x / y if x < y else float(x > 0) for x, y in zip(of_p, of_q, strict=True)]

    def verify_on_device(self, p: Tensor, draft: Draft, uniforms: Uniforms) -> Verdict:
        """`verify` where a synchronisation costs more than arithmetic."""
        count, size = len(draft.tokens), p.shape[-1]
        numbers = torch.as_tensor(uniforms, dtype=torch.float64).to(p.device, non_blocking=True)
        if count == 0:
            extra = draw(p[0], numbers[0])
            token, chance = _on_host(extra[None], p[0].gather(0, extra[None]))
            return Verdict(0, int(token), [], [], [], chance)
        tokens = torch.tensor(draft.tokens).to(p.device, non_blocking=True)[:, None]
        if isinstance(draft.q, OneHotProposal):  # made there: whole rows are not to be sent
            rows = torch.zeros(count, size, device=p.device).scatter_(1, tokens, 1.0)
        else:
            rows = draft.q.dense(count, size).to(p.device, non_blocking=True)
        chance_p, chance_q = p[:count].gather(1, tokens)[:, 0], rows.gather(1, tokens)[:, 0]
        if not isinstance(draft.q, OneHotProposal):
            # What was drawn from NaN never stands, and is replaced by a draw from p.
            chance_q = chance_q.nan_to_num(math.inf)
            rows = rows.nan_to_num(0.0)
        accepted, scales, thresholds = self.decide_on_device(
            p, rows, chance_p, chance_q, numbers[:count]
        )
        # Selected on the device: an index that Python knew would cost a synchronisation.
        at = accepted[None]
        here = p.index_select(0, at)[0]
        drafted = rows.index_select(0, at.clamp(max=count - 1))[0] * (accepted < count)
        weight = here if scales is None else here * scales.index_select(0, at).to(p.dtype)
        residual = (weight - drafted).clamp_(min=0)
        # p = q up to rounding leaves nothing over: then p itself is the right distribution.
        extra = draw(torch.where(residual.sum() > 0, residual, here), numbers[count])[None]
        found = _on_host(at, extra, here.gather(0, extra), chance_p, chance_q, thresholds)
        (where, token, chance), found = found[:3], found[3:]
        of_p, of_q, tests = found[:count], found[count : 2 * count], found[2 * count :]
        tests = tests or self.thresholds(of_p, of_q)
        known = of_q.index(math.inf) if math.inf in of_q else count
        return Verdict(int(where), int(token), of_p[:known], of_q[:known], tests[:known], chance)

    def _verify_on_host(self, p: Tensor, draft: Draft, uniforms: Uniforms) -> Verdict:
        """`verify` where a tensor operation costs more than its arithmetic."""
        if isinstance(uniforms, Tensor):
            uniforms = uniforms.tolist()
        if any(map(math.isnan, draft.chances)):
            draft = draft.up_to(next(at for at, x in enumerate(draft.chances) if math.isnan(x)))
            p, uniforms = p[: len(draft.tokens) + 1], [*uniforms[: len(draft.tokens)], uniforms[-1]]
        tokens, count, rows = draft.tokens, len(draft.tokens), p.numpy()
        of_p = [float(rows[place, token]) for place, token in enumerate(tokens)]
        of_q = draft.chances
        accepted, scale, tests = self.decide_on_host(rows, draft.q, of_p, of_q, uniforms)
        here = rows[accepted]
        if accepted < count:
            cumulative = cumulative_sum(torch.from_numpy(draft.q.residual(accepted, here, scale)))
        if accepted == count or cumulative[-1] == 0:  # p = q up to rounding leaves nothing over
            cumulative = cumulative_sum(p[accepted])
        extra = drawn_from(cumulative, uniforms[count])
        return Verdict(accepted, extra, of_p, of_q, tests, float(here[extra]))


class TokenRule(DrawingRule):
    """Token by token: the test is u_i < p(x_i) / q(x_i), and all before the first failure stand.

    The text is distributed exactly as the target's own. Source: Leviathan et al. 2023, Algorithm 1,
    arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318.
    """

    name: ClassVar[Verification] = "token"
    label = "token by token"

    def relaxed(self, p: Chance) -> Chance:
        """What stands in the place of p in the test: p itself."""
        return p

    def decide_on_host(
        self, p: np.ndarray, q: Proposal, of_p: Numbers, of_q: Numbers, uniforms: Numbers
    ) -> tuple[int, float, Numbers]:
        """Stops at the first failure."""
        raised = [self.relaxed(x) for x in of_p]
        accepted = 0
        # u < p/q without the division: q is above 0 because the token was drawn from it.
        while accepted < len(raised) and uniforms[accepted] * of_q[accepted] < raised[accepted]:
            accepted += 1
        return accepted, 1.0, self.thresholds(of_p, of_q)

    def decide_on_device(
        self, p: Tensor, q: Tensor, of_p: Tensor, of_q: Tensor, uniforms: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The same with tensors."""
        accepted = (uniforms * of_q < self.relaxed(of_p)).long().cumprod(0).sum()
        return accepted, None, of_q[:0]

    def thresholds(self, of_p: Numbers, of_q: Numbers) -> list[float]:
        """p(x_i) / q(x_i), at most 1."""
        return super().thresholds([self.relaxed(x) for x in of_p], of_q)


class LenientRule(TokenRule):
    """Lenient: the test is u_i < f(p(x_i)) / q(x_i), all else as under the token rule. Lossy.

    The correction stays a draw from norm(max(p - q, 0)): what passed too often cannot be taken
    back, and since this adds only where p is above q, no other correction brings the text closer to
    p in total variation; and no token becomes more likely than f(p). f is p / eps, p / eps^2 or
    p^eps. Source of the test: Zhou et al. 2024 (DistillSpec), arXiv:2310.08461.

    Args:
        lenience: eps, above 0; 1 is the token rule.
        form: f: "linear", "square" or "exponent".
    """

    name: ClassVar[Verification] = "lenient"
    label = "lenient: LOSSY, not the target's own text any more"

    def __init__(self, lenience: float = 1.0, form: LenienceForm = "linear") -> None:
        self.lossy = lenience < 1
        self._lenience, self._form = lenience, form

    def relaxed(self, p: Chance) -> Chance:
        """f(p), of a probability or of any shape of them."""
        if self._form == "exponent":
            raised: Chance = p**self._lenience
            return raised
        return p / (self._lenience if self._form == "linear" else self._lenience**2)


class BlockRule(DrawingRule):
    """Block: the test is u_i < h_i (`block_thresholds`), and all up to the last success stand.

    Failures before it stand too. After i of them the token is drawn from norm(max(p_i p - q, 0)).
    As exact as the token rule, and expected to accept at least as many. Both hold whatever decides
    how long a draft is, as long as it decides by the tokens before the place and keeps what it has
    drawn. Source: Sun et al. 2024, Algorithm 2, arXiv:2403.10444.
    """

    name: ClassVar[Verification] = "block"
    label = "block: the longest stretch that passes"

    def tested(self, drafted: int, accepted: int) -> int:
        """All of them."""
        return drafted

    def decide_on_host(
        self, p: np.ndarray, q: Proposal, of_p: Numbers, of_q: Numbers, uniforms: Numbers
    ) -> tuple[int, float, Numbers]:
        """Goes back from the last test to the first that passes."""
        tests = _BlockTests(p, q, of_p, of_q)
        accepted = len(of_p)
        while accepted and not tests.passes(accepted, uniforms[accepted - 1]):
            accepted -= 1
        return accepted, tests.running[accepted], tests

    def decide_on_device(
        self, p: Tensor, q: Tensor, of_p: Tensor, of_q: Tensor, uniforms: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The same with tensors."""
        running, thresholds = block_thresholds(p, q, of_p, of_q)
        places = torch.arange(1, len(q) + 1, device=p.device)
        accepted = ((uniforms < thresholds) * places).max()
        return accepted, running, thresholds


class RollbackRule(Rule):
    """Rollback, of greedy texts: a drafted token stays where the target finds it likely enough.

    Token x_i stands where -log p(x_i) is at most the threshold, p at temperature 1 after the rules,
    or where the target would have written it; all before the first that does not. After them comes
    the target's best token. No number is drawn. Lossy above 0. Source: Kim et al. 2023,
    "Speculative Decoding with Big Little Decoder", arXiv:2302.07863 (there the large model judges
    where the small one falls back, `draft_length="confidence"`, and a draft is given up from the
    first token past the threshold on, as here).

    Args:
        threshold: in nats, not negative; 0 is greedy decoding.
    """

    name: ClassVar[Verification] = "rollback"
    label = "rollback: LOSSY, likely guesses stay though the target has a better word"

    def __init__(self, threshold: float = 0.0) -> None:
        self.lossy = threshold > 0
        self._least = math.exp(-threshold)

    def reads_probabilities(self, config: DecodingConfig) -> bool:
        """Where it is lossy; else the best tokens settle all."""
        return self.lossy

    def verify(self, p: Tensor, draft: Draft, uniforms: Uniforms) -> Verdict:
        """As `Rule.verify`, p at temperature 1; on any device, in one wait."""
        count = len(draft.tokens)
        best = p.argmax(-1)
        drafted = torch.tensor(draft.tokens, dtype=torch.long).to(p.device, non_blocking=True)
        of_drafted = p[:count].gather(1, drafted[:, None])[:, 0]
        found = _on_host(best, p.gather(1, best[:, None])[:, 0], of_drafted)
        tokens, of_best = [int(token) for token in found[: count + 1]], found[count + 1 :]
        of_p = of_best[count + 1 :]
        stays = [
            float(x >= self._least or wanted == token)
            for x, wanted, token in zip(of_p, tokens, draft.tokens, strict=False)
        ]
        accepted = [*stays, 0.0].index(0.0)
        return Verdict(accepted, tokens[accepted], of_p, draft.chances, stays, of_best[accepted])


RULES: dict[Verification, type[Rule]] = {
    rule.name: rule for rule in (TokenRule, BlockRule, LenientRule, RollbackRule)
}
"""The rules by name, in the order of the page."""


def rule_of(config: DecodingConfig) -> Rule:
    """The rule that settings come to: see `DecodingConfig.verified_by`."""
    kind = RULES[config.verified_by]
    if kind is LenientRule:
        return LenientRule(config.lenience, config.lenience_form)
    if kind is RollbackRule:
        return RollbackRule(config.rollback_threshold)
    return kind()


class _BlockTests(Sequence[float]):
    """The same as `block_thresholds`, number by number, each h_i when it is first asked for.

    Each costs as much as a row of p has numbers, and a verdict needs few: h_i is at most p_i, and
    nothing is asked of the places before the last one that passes. `running` is p_0 to p_k.
    """

    def __init__(self, p: np.ndarray, q: Proposal, of_p: Numbers, of_q: Numbers) -> None:
        self._given = p, q, of_p, of_q
        self.running = [1.0]
        for x, y in zip(of_p, of_q, strict=True):
            reached = self.running[-1] * x
            self.running.append(reached / y if reached < y else float(reached > 0))
        self._known: list[float | None] = [None] * len(of_p)

    def passes(self, place: int, uniform: float) -> bool:
        """Whether uniform < h_i; places are counted from 1."""
        return uniform < self.running[place] and uniform < self[place - 1]

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, index: Any) -> Any:
        """h_{index + 1}; of a slice several."""
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        found = self._known[place]
        if found is None:
            found = self._known[place] = self._test(place + 1)
        return found

    def _test(self, place: int) -> float:
        p, q, of_p, of_q = self._given
        scale = self.running[place]
        if place == len(self) or scale == 0:
            return scale
        if scale == 1 and of_p[place] != of_q[place]:
            return 1.0  # s / s: where p is not q, it is above q somewhere
        mass = q.residual_mass(place, p[place], scale)
        # In this order: a mass of 1e-20 is lost in a sum with 1.
        return mass / (mass + (1 - scale)) if mass > 0 else 0.0


def block_thresholds(
    p: Tensor, q: Tensor, chance_p: Tensor, chance_q: Tensor
) -> tuple[Tensor, Tensor]:
    """The tests of block verification: p_0 to p_k, shape (k + 1,), h_1 to h_k, (k,), both float64.

    p_0 = 1 and p_i = min(p_{i-1} p(x_i) / q(x_i), 1) is the chance that i drafts or more stand,
    given the first i. The test that brings this about is u_i < h_i: with s_i the sum over x of
    max(p_i p(x) - q(x), 0), both behind i drafts, h_i = s_i / (s_i + 1 - p_i), 0 / 0 taken as 0,
    and h_k = p_k behind the whole draft. Source: Sun et al. 2024, arXiv:2403.10444. The arguments
    are those of `DrawingRule.decide_on_device`.
    """
    count = len(q)
    # p_i is the least product of the last ratios up to i, of none (1) at most: in logarithms, the
    # sum of them all less the largest sum so far. q is above 0, but might have been rounded to it.
    tiny = torch.finfo(torch.float64).tiny
    ratios = chance_p.double().log() - chance_q.double().clamp(min=tiny).log()
    sums = torch.cat([ratios.new_zeros(1), ratios.cumsum(0)])
    running = (sums - sums.cummax(0).values).exp()
    inner = running[1:count]
    # q - p_i p in one pass: what is below 0 of it is s_i.
    missing = torch.addcmul(q[1:], inner[:, None].to(p.dtype), p[1:count], value=-1)
    surplus = -missing.clamp_(max=0).sum(-1).double()
    whole = surplus + (1 - inner)
    thresholds = torch.where(whole > 0, surplus / whole, 0.0)
    return running, torch.cat([thresholds, running[count:]])


def _on_host(*parts: Tensor) -> list[float]:
    """Vectors as one list of numbers, fetched at once. Ids stay exact: float64 holds 2^53."""
    return torch.cat([part.double() for part in parts]).tolist()
