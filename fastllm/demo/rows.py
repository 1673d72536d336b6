"""Rounds as NDJSON rows: all that the browser gets to know of a race.

The rows of a race, one JSON object per line, only ever appended to:

    {"row": "start", "run", "mode": "live" | "recorded", "article", "hardware", "target",
     "lanes": [{"key", "title", "size", "hue"}], "greedy", "gamma", "rule", "lossy", "settings",
     "cut", "notices"}
    {"row": "round", "lane", "from", "to", "kind", "ms": [draft, verify, whole],
     "tokens": [TOKEN, ...], "dropped": [TOKEN, ...]}, with "branches": [{"at", "tokens"}] where
     the draft was a tree: each parts behind so many guesses, and none of its tokens stands
    {"row": "end", "lanes": [RESULT, ...], "same": [state, sentence], "verdict", "why", "notices",
     "code", "source", "traces": [...]}

`from` and `to` are seconds on the lane's own clock. `tokens` are those of the text and the refused
one; `dropped` are the guesses after that. A TOKEN is {"s": state, "t": text} with "end" for the
end token and what is known of it: "test" for a guess that was tested; "p" (the target's
probability, as it drew) and "best" for the target's own. A TEST is {"p", "q", "u", "h",
"ok", "o", "raw", "best", "guess"}: both probabilities, the number that judged it and the threshold
that this had to stay below, whether it did, the overlap, both probabilities at temperature 1, and
the first choices of target and drafter there, [text, probability] each. A RESULT is {"calls",
"tokens", "seconds", "drafted", "accepted", "speed_up", "ended", "text"}. The traces are
`Trace.to_json` without the source, which they share.

Texts are data: the browser sets them with textContent. No row holds "<", not even in its JSON.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from fastllm import checkpoints, metrics
from fastllm.demo import words
from fastllm.demo.folds.keep import rerun_code
from fastllm.demo.folds.plots import costs
from fastllm.demo.folds.race import words as race_words
from fastllm.errors import DataError
from fastllm.files import strict
from fastllm.trace import Alternative, Branch, DecodingConfig, Judged, Round, Trace

CHOICES = 5
"""How many first choices a token carries."""

DIGITS = 4
"""After the point of a probability: what hovering shows is rounded further."""

ALMOST = 1 - 10**-DIGITS
"""What rounds to 1 and is less."""

SETTINGS = (
    "gamma", "temperature", "top_p", "seed", "max_new_tokens", "verification", "lenience",
)  # fmt: skip
"""What a visitor sets, in the order of the page; a link brings it back."""

MOST_LANES = 32
"""The most lanes of a race that is drawn: the browser sends it back, and could send any number."""

MOST_ROUNDS = int(DecodingConfig.RANGES["max_new_tokens"][1])
"""The most rounds of a lane, likewise: each gives a token at least."""

CUT_WORDS = 8
"""How many words are shown on each side of a cut."""

Row = dict[str, Any]


def line(row: Row) -> str:
    """A row as a line. "<" and its kin are escaped, so no text can be taken for markup."""
    text = json.dumps(strict(row), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text + "\n"


def start_row(
    run: str,
    mode: str,
    lanes: Sequence[str],
    trace: Trace,
    *,
    article: str = "",
    notices: Sequence[str] = (),
) -> Row:
    """The first row; of `trace` it takes the settings, not the rounds."""
    target = checkpoints.TARGET if checkpoints.ships(trace.target) else trace.target
    return {
        "row": "start",
        "run": run,
        "mode": mode,
        "article": article,
        "hardware": trace.hardware,
        "target": trace.target,
        "lanes": [
            {
                "key": key,
                "title": words.title_of(key),
                "size": words.size_of(key, target),
                "hue": hue,
            }
            for key, hue in zip(lanes, words.hues_of(lanes), strict=True)
        ],
        "greedy": trace.config.temperature == 0,
        "gamma": trace.config.gamma,
        "rule": trace.config.verified_by,
        "lossy": trace.config.lossy,
        "settings": {name: getattr(trace.config, name) for name in SETTINGS},
        "cut": cut(trace.source, trace.cut_at),
        "notices": list(notices),
    }


def cut(source: str, at: int | None) -> Row | None:
    """The words on both sides of the place where the article was cut."""
    if at is None:
        return None
    return {
        "percent": round(100 * at / max(1, len(source))),
        "before": " ".join(source[:at].split()[-CUT_WORDS:]),
        "after": " ".join(source[at:].split()[:CUT_WORDS]),
    }


@dataclass(frozen=True)
class RoundWriter:
    """Turns the rounds of one lane into rows, in order."""

    lane: int
    piece: Callable[[int], str]  # the text that a token adds; called for each, in order
    names: Callable[[Iterable[int]], Mapping[int, str]]  # of tokens that are not in the text
    end_ids: Sequence[int]

    def row(self, entry: Round, clock: float) -> Row:
        """The row of a round that ended at `clock`, in seconds of the lane."""
        names = self.names(_mentioned(entry))
        guesses = []
        for place, token in enumerate(entry.drafted):
            stands = place < entry.accepted
            guess = self._token(
                "accepted" if stands else "refused" if place == entry.accepted else "dropped",
                token,
                self.piece(token) if stands else names.get(token, ""),
            )
            if place < len(entry.judged):
                guess["test"] = _test(entry.judged[place], names)
            guesses.append(guess)
        tokens = guesses[: entry.accepted + 1]
        if entry.extra is not None and entry.extra_kind is not None:
            extra = self._token(entry.extra_kind, entry.extra, self.piece(entry.extra))
            if entry.extra_p is not None:
                extra["p"] = _short(entry.extra_p)
            if entry.extra_best:
                extra["best"] = _choices(entry.extra_best, names)
            tokens.append(extra)
        row: Row = {
            "row": "round",
            "lane": self.lane,
            "from": round(clock - entry.total_seconds, 6),
            "to": round(clock, 6),
            "kind": entry.kind,
            "ms": [
                round(1000 * seconds, 3)
                for seconds in (entry.draft_seconds, entry.verify_seconds, entry.total_seconds)
            ],
            "tokens": tokens,
            "dropped": guesses[entry.accepted + 1 :],
        }
        if entry.branches:
            row["branches"] = [self._branch(branch, names) for branch in entry.branches]
        return row

    def _branch(self, branch: Branch, names: Mapping[int, str]) -> Row:
        tokens = [self._token("dropped", token, names.get(token, "")) for token in branch.tokens]
        if branch.test is not None:
            tokens[0] |= {"s": "refused", "test": _test(branch.test, names)}
        return {"at": branch.at, "tokens": tokens}

    def _token(self, state: str, token: int, text: str) -> Row:
        if token in self.end_ids:
            return {"s": state, "t": "", "end": True}
        return {"s": state, "t": text}


def _mentioned(entry: Round) -> set[int]:
    """The tokens of a round that may be shown though they are not in the text."""
    best = [entry.extra_best, *(t.target_best + t.drafter_best for t in entry.judged)]
    branches = [branch.tokens for branch in entry.branches]
    return {token for choices in best for token, _ in choices} | set(entry.drafted).union(*branches)


def end_row(lanes: Sequence[str], traces: Sequence[Trace], notices: Sequence[str] = ()) -> Row:
    """The last row: the numbers of each lane, the comparison of their texts, the verdict."""
    plain = next((trace for trace in traces if not trace.drafter), None)
    finished = all(_finished(trace) for trace in traces)
    results = []
    told = []
    for key, trace in zip(lanes, traces, strict=True):
        numbers = {
            "calls": metrics.target_calls(trace),
            "tokens": metrics.token_count(trace),
            "drafted": metrics.drafted(trace),
            "accepted": metrics.accepted(trace),
        }
        seconds = metrics.seconds_with_encoding(trace)
        drafting = trace.drafter_encode_seconds + sum(each.draft_seconds for each in trace.rounds)
        results.append(
            race_words.Result(
                key, words.title_of(key), **numbers, seconds=seconds, drafting=drafting
            )
        )
        told.append(
            {
                **numbers,
                "seconds": seconds,
                "speed_up": (
                    metrics.speed_up(trace, plain)
                    if finished and plain is not None and trace is not plain
                    else None
                ),
                "ended": trace.ended,
                "text": trace.text,
            }
        )
    same = race_words.same_text(
        all(trace.config.temperature == 0 for trace in traces),
        finished,
        differ_at(traces),
        lossy=any(trace.config.lossy for trace in traces),
    )
    return {
        "row": "end",
        "lanes": told,
        "same": list(same),
        "verdict": race_words.verdict(results) if finished else race_words.so_far(results),
        "why": _why(lanes, traces),
        "notices": list(notices),
        "code": rerun_code.code(lanes, traces),
        "source": traces[0].source if traces else "",
        "traces": [
            {name: value for name, value in trace.to_json().items() if name != "source"}
            for trace in traces
        ],
    }


def _why(lanes: Sequence[str], traces: Sequence[Trace]) -> str:
    """Why so many times fewer calls are so many times faster, of the lane that saved the most."""
    found = costs.costs(lanes, traces)
    best = max(found, key=lambda lane: lane.fewer, default=None)
    if best is None or not best.alone:
        return ""
    row = costs.as_row(best)
    return f"{row['title']}: {row['said']}"


def _finished(trace: Trace) -> bool:
    return trace.ended in ("end_of_text", "length")


def differ_at(traces: Sequence[Trace]) -> int | None:
    """The first token, counted from 1, at which two lanes differ; None if none do.

    Lanes that were ended early are compared as far as they came.
    """
    written = [(tuple(trace.tokens), _finished(trace)) for trace in traces]
    for place in range(max((len(tokens) for tokens, _ in written), default=0)):
        found = {tokens[place : place + 1] for tokens, done in written if done or tokens[place:]}
        if len(found) > 1:
            return place + 1
    return None


def recorded_lines(
    run: str, lanes: Sequence[str], traces: Sequence[Trace], *, article: str = ""
) -> Iterator[str]:
    """The rows of a stored race, its rounds in the order of the clocks."""
    yield line(start_row(run, "recorded", lanes, traces[0], article=article))
    rows = []
    for index, trace in enumerate(traces):
        pieces, names = chain(trace.pieces, repeat("")), trace.names
        ends = trace.tokens[-1:] if trace.rounds and trace.ended == "end_of_text" else ()
        writer = RoundWriter(
            index,
            lambda _, pieces=pieces: next(pieces),  # type: ignore[misc]
            lambda _, names=names: names,  # type: ignore[misc]
            ends,
        )
        clock = trace.target_encode_seconds + trace.drafter_encode_seconds
        for entry in trace.rounds:
            clock += entry.total_seconds
            rows.append(writer.row(entry, clock))
    rows.sort(key=lambda row: row["to"])
    yield from map(line, rows)
    yield line(end_row(lanes, traces))


def traces_of(lines: str) -> tuple[list[str], list[Trace]]:
    """The keys of the lanes and their traces, out of the rows of a race that has ended.

    Raises:
        DataError: there is no whole race in `lines`.
    """
    try:
        rows = [json.loads(entry) for entry in lines.splitlines() if entry.startswith('{"row":"')]
        end = next(row for row in rows if row["row"] == "end")
        keys = [str(lane["key"]) for lane in rows[0]["lanes"]]
        # Counted before they are read, which takes long where there are thousands.
        if not 0 < len(end["traces"]) == len(keys) <= MOST_LANES:
            raise ValueError("as many traces as lanes are needed")
        if any(len(tree["rounds"]) > MOST_ROUNDS for tree in end["traces"]):
            raise ValueError("more rounds than a race has")
        traces = [Trace.from_json({**tree, "source": end["source"]}) for tree in end["traces"]]
    except (
        StopIteration, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError
    ) as error:  # fmt: skip
        raise DataError(race_words.NO_RACE) from error
    if not all(entry.tokens for trace in traces for entry in trace.rounds):
        raise DataError(race_words.NO_RACE)
    return keys, traces


def result_of(lines: str) -> Row:
    """A race that has ended, for a program: typed, and without the details of each word.

    Returns:
        {"article", "target", "hardware", "settings", "lossy", "lanes": [{"key", "title", "text",
        "ended", "calls", "seconds", "speed_up", "drafted", "accepted", "tokens": [{"t", "s"}],
        "refused": [{"t", "at"}]}], "same", "same_text", "verdict", "notices"}. `s` is "plain",
        "accepted", "correction" or "bonus"; a refused guess stood before the token `at`, counted
        from 0. `same` is None where the texts were not to be the same: when sampling.

    Raises:
        DataError: there is no whole race in `lines`.
    """
    rows = [json.loads(entry) for entry in lines.splitlines()]
    if not rows or rows[-1]["row"] != "end":
        raise DataError(race_words.NO_RACE)
    start, *rounds, end = rows
    lanes = []
    for index, (lane, told) in enumerate(zip(start["lanes"], end["lanes"], strict=True)):
        tokens: list[Row] = []
        refused: list[Row] = []
        for token in (t for row in rounds if row["lane"] == index for t in row["tokens"]):
            if token["s"] == "refused":
                refused.append({"t": token["t"], "at": len(tokens)})
            else:
                tokens.append({"t": token["t"], "s": token["s"]})
        numbers = {
            name: told[name]
            for name in ("text", "ended", "calls", "seconds", "speed_up", "drafted", "accepted")
        }
        lanes.append({**lane, **numbers, "tokens": tokens, "refused": refused})
    state, sentence = end["same"]
    return {
        **{name: start[name] for name in ("article", "target", "hardware", "settings", "lossy")},
        "lanes": lanes,
        "same": {"same": True, "unfinished": True, "differ": False}.get(state),
        "same_text": sentence,
        "verdict": end["verdict"],
        "notices": [*start["notices"], *end["notices"]],
    }


def _test(judged: Judged, names: Mapping[int, str]) -> Row:
    numbers = {"p": judged.p, "q": judged.q, "u": judged.uniform, "h": judged.threshold}
    row: Row = {name: _short(value) for name, value in numbers.items()} | {"ok": judged.passed}
    if judged.overlap is not None:
        row["o"] = _short(judged.overlap)
    if judged.p_unwarped is not None:
        row["raw"] = [
            _short(judged.p_unwarped),
            None if judged.q_unwarped is None else _short(judged.q_unwarped),
        ]
    if judged.target_best:
        row["best"] = _choices(judged.target_best, names)
    if judged.drafter_best:
        row["guess"] = _choices(judged.drafter_best, names)
    return row


def _short(value: float) -> float:
    """Rounded, and 0 or 1 in one character; what is neither does not become one of them."""
    short = round(value, DIGITS)
    if short in (0, 1):
        return int(value) if value in (0, 1) else float(f"{value:.2g}") if short == 0 else ALMOST
    return short


def _choices(best: Sequence[Alternative], names: Mapping[int, str]) -> list[list[Any]]:
    return [[names.get(token, ""), _short(p)] for token, p in best[:CHOICES]]
