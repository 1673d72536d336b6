"""Rounds as NDJSON rows: all that the browser gets to know of a race.

The rows of a race, one JSON object a line, only ever appended to:

    {"row": "start", "run", "mode": "live" | "recorded", "article", "hardware", "target",
     "lanes": [{"key", "title"}], "greedy", "gamma", "cut", "notices"}
    {"row": "round", "lane", "from", "to", "kind", "tokens": [TOKEN, ...], "dropped": [text, ...]}
    {"row": "end", "lanes": [RESULT, ...], "same": [state, sentence], "verdict", "notices"}

`from` and `to` are seconds on the lane's own clock. A TOKEN is {"s": state, "t": text} with what
is known of it: "p" and "q" (target's and drafter's probability at temperature 1), "best" and
"guess" (the first choices of target and drafter, [text, probability]), "end" for the end token.
A RESULT is {"calls", "tokens", "seconds", "drafted", "accepted", "speed_up", "ended", "text"}.

Texts are data: the browser sets them with textContent. No row holds "<", not even in its JSON.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastllm import metrics
from fastllm.demo import texts
from fastllm.trace import Alternative, Judged, Round, Trace

CHOICES = 3
"""How many first choices a token carries."""

CUT_WORDS = 8
"""How many words are shown on each side of a cut."""

Row = dict[str, Any]


def line(row: Row) -> str:
    """A row as a line. "<" and its kin are escaped, so no text can be taken for markup."""
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
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
    """The first row. `trace` gives the settings; its rounds do not matter."""
    return {
        "row": "start",
        "run": run,
        "mode": mode,
        "article": article,
        "hardware": trace.hardware,
        "target": trace.target,
        "lanes": [{"key": key, "title": texts.title_of(key)} for key in lanes],
        "greedy": trace.config.temperature == 0,
        "gamma": trace.config.gamma,
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
    """Turns the rounds of one lane into rows, in order.

    Attributes:
        lane: its index.
        piece: token id -> the text it adds; called once for each token of the text, in order.
        name: token ids -> a readable form of each, for words that did not make it into the text.
        end_id: the token that ends the text.
    """

    lane: int
    piece: Callable[[int], str]
    name: Callable[[Iterable[int]], dict[int, str]]
    end_id: int

    def row(self, entry: Round, clock: float) -> Row:
        """The row of a round that ended at `clock`, in seconds of the lane."""
        mentioned = {token for token, _ in entry.extra_best} | set(entry.drafted)
        for test in entry.judged:
            mentioned.update(token for token, _ in test.target_best + test.drafter_best)
        names = self.name(mentioned)
        tokens = []
        for place, token in enumerate(entry.drafted[: entry.accepted]):
            judged = entry.judged[place] if place < len(entry.judged) else None
            tokens.append(self._token("accepted", token, self.piece(token), judged, names))
        if entry.refused is not None:
            judged = entry.judged[entry.accepted] if len(entry.judged) > entry.accepted else None
            named = names.get(entry.refused, "")
            tokens.append(self._token("refused", entry.refused, named, judged, names))
        if entry.extra is not None and entry.extra_kind is not None:
            extra = self._token(entry.extra_kind, entry.extra, self.piece(entry.extra), None, names)
            if entry.extra_best:
                extra["best"] = _choices(entry.extra_best, names)
                extra["p"] = next(
                    (round(p, 4) for token, p in entry.extra_best if token == entry.extra), None
                )
            tokens.append(extra)
        return {
            "row": "round",
            "lane": self.lane,
            "from": round(clock - entry.total_seconds, 6),
            "to": round(clock, 6),
            "kind": entry.kind,
            "tokens": tokens,
            "dropped": [names.get(token, "") for token in entry.drafted[entry.accepted + 1 :]],
        }

    def _token(
        self, state: str, token: int, text: str, judged: Judged | None, names: dict[int, str]
    ) -> Row:
        row: Row = {"s": state, "t": "" if token == self.end_id else text}
        if token == self.end_id:
            row["end"] = True
        if judged is not None and judged.p_unwarped is not None:
            row["p"] = round(judged.p_unwarped, 4)
            if judged.q_unwarped is not None:
                row["q"] = round(judged.q_unwarped, 4)
            row["best"] = _choices(judged.target_best, names)
            row["guess"] = _choices(judged.drafter_best, names)
        return row


def end_row(lanes: Sequence[str], traces: Sequence[Trace], notices: Sequence[str] = ()) -> Row:
    """The last row: the numbers of each lane, the comparison of their texts, the verdict."""
    plain = next((trace for trace in traces if not trace.drafter), None)
    results = [
        texts.Result(
            key,
            texts.title_of(key),
            metrics.target_calls(trace),
            metrics.token_count(trace),
            metrics.drafted(trace),
            metrics.accepted(trace),
            metrics.seconds_with_encoding(trace),
        )
        for key, trace in zip(lanes, traces, strict=True)
    ]
    finished = all(trace.ended in ("end_of_text", "length") for trace in traces)
    greedy = all(trace.config.temperature == 0 for trace in traces)
    return {
        "row": "end",
        "lanes": [
            {
                "calls": result.calls,
                "tokens": result.tokens,
                "seconds": result.seconds,
                "drafted": result.drafted,
                "accepted": result.accepted,
                "speed_up": (
                    metrics.speed_up(trace, plain).with_encoding
                    if finished and plain is not None and trace is not plain
                    else None
                ),
                "ended": trace.ended,
                "text": trace.text,
            }
            for result, trace in zip(results, traces, strict=True)
        ],
        "same": list(texts.same_text(greedy, finished, differ_at(traces))),
        "verdict": texts.verdict(results) if finished else "",
        "notices": list(notices),
    }


def differ_at(traces: Sequence[Trace]) -> int | None:
    """The first token, counted from 1, at which two lanes differ; None if none do.

    Lanes that were ended early are compared as far as they came.
    """
    whole = [trace.ended in ("end_of_text", "length") for trace in traces]
    written = [trace.tokens for trace in traces]
    longest = max(map(len, written), default=0)
    for place in range(longest):
        found = {
            tokens[place] if place < len(tokens) else None
            for tokens, done in zip(written, whole, strict=True)
            if done or place < len(tokens)
        }
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
        pieces = iter(trace.pieces)
        ended = trace.tokens[-1] if trace.rounds and trace.ended == "end_of_text" else -1
        names = trace.names
        writer = RoundWriter(
            index,
            lambda _, pieces=pieces: next(pieces, ""),  # type: ignore[misc]
            lambda ids, names=names: {i: names.get(i, "") for i in ids},  # type: ignore[misc]
            ended,
        )
        clock = trace.target_encode_seconds + trace.drafter_encode_seconds
        for entry in trace.rounds:
            clock += entry.total_seconds
            rows.append(writer.row(entry, clock))
    rows.sort(key=lambda row: row["to"])
    yield from map(line, rows)
    yield line(end_row(lanes, traces))


def _choices(best: Sequence[Alternative], names: dict[int, str]) -> list[list[Any]]:
    return [[names.get(token, ""), round(p, 4)] for token, p in best[:CHOICES]]
