"""The two ways to write a text: `autoregress` alone, or `speculate` with a drafter.

Both are iterators of `Round`, one call of the target each, and know nothing about text: purely
token ids. The caller may stop at any round. Nothing is in flight on the device at a `yield`, and
what is measured ends before it.

A run draws its uniform numbers from a generator of its own, as many a round whatever comes of it
(`uniforms`).
"""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from fastllm.decoding import trees
from fastllm.decoding.distributions import distribution, forbid
from fastllm.decoding.proposals import Draft, OneHotProposal
from fastllm.decoding.rules import Rules, end_set
from fastllm.decoding.verification import Verdict, judge, rule_of
from fastllm.drafters import DrafterSession
from fastllm.errors import FastLLMWarning
from fastllm.targets import TargetSession
from fastllm.trace import Alternative, Branch, DecodingConfig, Judged, Round

BEST = 5
"""How many alternatives are kept for display."""


def autoregress(
    session: TargetSession,
    config: DecodingConfig,
    *,
    start_id: int,
    end_id: int | Sequence[int],
    statistics: bool = True,
) -> Iterator[Round]:
    """Writes with the target alone: one token a call.

    Args:
        session: a fresh session of the target.
        config: the settings, resolved (`fastllm.targets.resolve`); `gamma` has no meaning here.
        start_id: the token that decoders of the target begin with.
        end_id: the token that ends a text, or several of which any does.
        statistics: collect what is only shown (off the clock).

    Yields:
        A plain Round a token; the last holds the end token, or reaches `max_new_tokens`.
    """
    return speculate(session, None, config, start_id=start_id, end_id=end_id, statistics=statistics)


def speculate(
    session: TargetSession,
    drafter: DrafterSession | None,
    config: DecodingConfig,
    *,
    start_id: int,
    end_id: int | Sequence[int],
    statistics: bool = True,
) -> Iterator[Round]:
    """Writes with a drafter proposing up to `gamma` tokens a call of the target.

    The text is distributed as the target's own, and when greedy it is the same text; unless the
    settings are `lossy`. Source: Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023,
    arXiv:2302.01318; of block verification Sun et al. 2024, arXiv:2403.10444.

    The arguments are those of `autoregress`, and a fresh session of the drafter for the same
    article; None: nothing is drafted.

    Yields:
        A Round for each call of the target; a plain one where nothing was drafted.
    """
    rules, ends = Rules(end_id), end_set(end_id)
    text = [start_id]
    clock = 0.0
    for for_draft, for_tests in uniforms(config):
        started = time.perf_counter()
        draft = _NOTHING
        # The target adds a token of its own, so a draft of what is left minus one fills the text.
        room = min(config.gamma, config.max_new_tokens - len(text))
        if drafter is not None and room > 0:
            draft = _until_end(drafter.draft(text, room, config, for_draft), ends)
            if draft.parents is not None and not session.trees:
                warnings.warn(_CHAINS_ALONE, FastLLMWarning, stacklevel=1)  # so it is said once
                draft = trees.first_path(draft)
        tree = draft if draft.parents is not None else None
        drafted_at = time.perf_counter()

        # What needs no logits is done before the call: behind it a CPU's caches are full of
        # weights, and each step costs several times as much.
        if tree is None:
            banned = rules.along(text, draft.tokens, config)
        else:
            banned = trees.banned_along(rules, text, tree, config)
        draft.prepare()
        unread = text[session.length :]
        logits = session.forward(unread + draft.tokens, trees.parents_of_call(len(unread), draft))
        if len(unread) > 1:
            logits = logits[len(unread) - 1 :]
        line: Sequence[int] = ()
        branches: tuple[Branch, ...] = ()
        if tree is None:
            verdict = judge(logits, draft, for_tests, config, banned)
            draft = draft.up_to(len(verdict.q))  # the rest of it was drawn from NaN
            session.keep(len(text) + verdict.accepted)
        else:
            line, verdict, for_tests, branches = trees.judge_tree(
                logits, tree, for_tests, config, banned
            )
            draft = tree.select(line)  # from here on it is a chain
            session.keep(len(text), line[: verdict.accepted])
        ended = not ends.isdisjoint(draft.tokens[: verdict.accepted])
        added = draft.tokens[: verdict.accepted] + ([] if ended else [verdict.extra])
        verified_at = time.perf_counter()

        text.extend(added)
        if drafter is not None:
            drafter.accept(added)
        finished = time.perf_counter()
        entry = Round(
            kind="speculative" if draft.tokens else "plain",
            drafted=tuple(draft.tokens),
            judged=_judged(verdict, draft, for_tests, config),
            accepted=verdict.accepted,
            extra=None if ended else verdict.extra,
            extra_p=None if ended else verdict.extra_p,
            start=clock,
            draft_seconds=drafted_at - started,
            verify_seconds=verified_at - drafted_at,
            total_seconds=finished - started,
            branches=branches,
        )
        clock += entry.total_seconds
        if statistics:
            if tree is not None:
                rows = [0, *(node + 1 for node in line)]
                logits, banned = logits[rows], [banned[row] for row in rows if banned]
            p = distribution(forbid(logits, banned), config)
            entry = _with_statistics(entry, logits, p, draft)
        yield entry
        if text[-1] in ends or len(text) > config.max_new_tokens:
            return


def uniforms(config: DecodingConfig) -> Iterator[tuple[torch.Tensor, list[float]]]:
    """The random numbers of a run, call by call and without end.

    Args:
        config: of it, `seed` and `gamma`.

    Yields:
        Numbers in [0, 1), float64: those of the drafter's draws, shape (gamma,); and gamma + 1 of
        the tests of a draft of k tokens, with the target's own draw behind them, at k. Without a
        drafter k is 0.
    """
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        for_draft, for_tests = (
            torch.rand(count, generator=generator, dtype=torch.float64)
            for count in (config.gamma, config.gamma + 1)
        )
        yield for_draft, for_tests.tolist()


_NOTHING = Draft([], OneHotProposal([]))

_CHAINS_ALONE = (
    "the target's engine reads chains alone: of drafts with branches the first path alone is "
    "judged. The engine 'static' reads trees."
)


def _until_end(draft: Draft, ends: frozenset[int]) -> Draft:
    """Drops what was drafted behind an end token: it could never be used."""
    if draft.parents is not None:
        return trees.up_to_ends(draft, ends)
    if ends.isdisjoint(draft.tokens[:-1]):
        return draft
    count = next(place for place, token in enumerate(draft.tokens, 1) if token in ends)
    return replace(draft, tokens=draft.tokens[:count])


def _judged(
    verdict: Verdict, draft: Draft, uniforms: Sequence[float], config: DecodingConfig
) -> tuple[Judged, ...]:
    """An entry for each test that the rule says decided, up to a p that is no number."""
    tested = rule_of(config).tested(len(draft.tokens), verdict.accepted)
    tested = next((at for at, p in enumerate(verdict.p[:tested]) if not math.isfinite(p)), tested)
    columns = draft.tokens[:tested], verdict.p, verdict.q, uniforms, verdict.thresholds
    return tuple(Judged(*test) for test in zip(*columns, strict=False))


def _with_statistics(entry: Round, logits: torch.Tensor, p: torch.Tensor, draft: Draft) -> Round:
    """Adds what is only shown; runs between two rounds, on nobody's clock."""
    plain = logits[: len(entry.judged) + 1].float().softmax(-1)
    judged = []
    for i, test in enumerate(entry.judged):
        raw = None if draft.unwarped is None else draft.unwarped(i)
        if raw is not None and not raw.isfinite().all():
            raw = None
        overlap = torch.minimum(p[i], draft.q.row(i, p.shape[-1]).to(p.device)).sum()
        shown = replace(
            test,
            overlap=float(overlap),
            p_unwarped=float(plain[i, test.token]),
            q_unwarped=None if raw is None else float(raw[test.token]),
            target_best=_best(plain[i]),
            drafter_best=() if raw is None else _best(raw),
        )
        judged.append(shown)
    best = () if entry.extra is None else _best(plain[entry.accepted])
    return replace(entry, judged=tuple(judged), extra_best=best)


def _best(row: torch.Tensor) -> tuple[Alternative, ...]:
    values, tokens = row.topk(min(BEST, len(row)))
    return tuple(zip(tokens.tolist(), values.tolist(), strict=True))
