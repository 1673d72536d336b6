"""A run of the benchmark as numbers, JSON and Markdown tables.

Every number is the median over articles, with the quartiles beside it; ratios are taken article by
article. `fastllm.evaluation.charts` draws the same numbers.

The prediction. Where a call of the target that reads n tokens takes s(n), a drafted token costs
c = (drafter's seconds a drafted token) / s(1), and a round of a lane that drafts k tokens takes
k c + v of what a plain token takes, v being the mean over the lane's rounds of s(n) / s(1). So

    predicted speed-up of decoding = tau / (k c + v)

with tau and k measured article by article, c and s measured over all articles of the run (medians).
With encoding, for an article of N tokens, E seconds of encoding by the target and D by the drafter:

    predicted = (E + N s(1)) / (E + D + N s(1) (k c + v) / tau).

Source: Leviathan et al. 2023, theorem 3.8, arXiv:2211.17192, where v is 1.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from fastllm import metrics
from fastllm.bench import baselines, peer
from fastllm.bench.baselines import ASSISTED, GENERATE
from fastllm.bench.measure import OTHERS, PEERS, ArticleRuns, Bench, Lane, Run
from fastllm.evaluation import tables
from fastllm.evaluation.measure import ALONE
from fastllm.evaluation.report import (
    lane_label,
    ordered,
    rows_json,
    rule_sentences,
    rules,
    setting_label,
    shared_settings,
    shared_words,
)
from fastllm.evaluation.tables import Columns, Section, Table
from fastllm.words import capital

Spread = dict[str, float]
"""median, low and high: the median over articles, and its quartiles."""

SIMULATED = "simulated acceptance"

_shown = partial(tables.bracketed, middle="median")

_PLAIN = Lane(ALONE, None)

_KINDS = {"decoding": False, "with_encoding": True}
"""The two speeds of a lane, and whether they count the encoding."""


def spread(values: Iterable[float | None]) -> Spread | None:
    """The median and the quartiles; None where there is no value.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        {'median': 2.0, 'low': 1.5, 'high': 2.5}
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, median, high = (float(value) for value in np.quantile(known, (0.25, 0.5, 0.75)))
    return {"median": median, "low": low, "high": high}


def label(name: str) -> str:
    """A lane's name for people."""
    return (baselines.LABELS | peer.LABELS).get(name) or lane_label(name)


# Numbers.


def summarise(
    bench: Bench,
    *,
    assistant: str | None = None,
    roofline: Mapping[str, float] | None = None,
    peak_process_bytes: int | None = None,
    drafter_dtype: str = "float32",
) -> dict[str, Any]:
    """The numbers of tables and charts as plain JSON values.

    - `assistant`: the drafter whose weights transformers' assisted generation had.
    - `roofline`: from `fastllm.bench.simulate.roofline`; None where it was not measured.
    - `peak_process_bytes`: the most memory that the process had.
    - `drafter_dtype`: of the drafters' weights.
    """
    count = min(len(rows) for rows in bench.rows.values())
    names = ordered(list(dict.fromkeys(lane.name for lane in bench.lanes)))
    lanes = sorted(bench.lanes, key=lambda lane: (names.index(lane.name), lane.gamma or 0))
    source = [row.source_tokens for row in next(iter(bench.rows.values()))]
    return {
        "target": bench.target,
        "engine": bench.engine,
        "dtype": bench.dtype,
        "drafter_dtype": drafter_dtype,
        "hardware": bench.hardware,
        "versions": bench.versions,
        "config": shared_settings(bench.config),
        "articles": count,
        "asked": bench.asked,
        "source_tokens": spread(source),
        "gammas": list(bench.gammas),
        "assistant": assistant,
        "acceptance": "measured" if bench.alpha is None else SIMULATED,
        "simulated_alpha": bench.alpha,
        "peak_process_bytes": peak_process_bytes,
        "roofline": None if roofline is None else dict(roofline),
        "drafters": _drafters(bench),
        "settings": [_setting(bench, temperature, lanes, roofline) for temperature in bench.rows],
    }


def to_json(bench: Bench, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary, and every article's numbers behind it; no text of any article or summary."""
    return {**summary, **rows_json(bench.rows)}


def _drafters(bench: Bench) -> list[dict[str, Any]]:
    """What each drafter costs by itself, in the order of tables."""
    call = call_costs([row for rows in bench.rows.values() for row in rows])[1]
    return [
        {
            "name": name,
            "label": label(name),
            **asdict(bench.costs[name]),
            "c": bench.costs[name].step_microseconds / (1e6 * call),
        }
        for name in ordered(list(bench.costs))
    ]


def _setting(
    bench: Bench, temperature: float, lanes: Sequence[Lane], roofline: Mapping[str, float] | None
) -> dict[str, Any]:
    rows = bench.rows[temperature]
    costs = call_costs(rows)
    best = _best_lanes(rows, lanes)
    entries = [_lane(bench, rows, lane, costs, best.get(ASSISTED)) for lane in lanes]
    plain = [row.runs[_PLAIN] for row in rows]
    setting = {
        "temperature": temperature,
        **rules(bench.config, temperature),
        "one_token_call_seconds": costs.get(1),
        "call_costs": [
            {"tokens": size, "seconds": seconds, "v": seconds / costs[1]}
            for size, seconds in costs.items()
        ],
        "call_cost": metrics.call_cost(costs) if len(costs) > 1 else None,
        "encode_seconds": spread(run.encode_seconds for run in plain),
        "lanes": entries,
        "best_gamma": {name: lane.gamma for name, lane in best.items()},
    }
    if roofline is not None:
        token = float(np.quantile([run.decode_seconds / run.tokens for run in plain], 0.5))
        setting["roofline_share"] = {
            "decoding": roofline["seconds_per_token"] / token,
            "call": roofline["seconds_per_token"] / costs[1],
        }
    return setting


def _best_lanes(rows: Sequence[ArticleRuns], lanes: Sequence[Lane]) -> dict[str, Lane]:
    """Name -> the lane of the draft length at which it was fastest, of those that have numbers."""
    best: dict[str, tuple[float, Lane]] = {}
    for lane in lanes:
        if all(lane in row.runs for row in rows):
            runs = [row.runs[lane] for row in rows]
            pace = float(np.quantile([run.tokens / run.decode_seconds for run in runs], 0.5))
            if lane.name not in best or pace > best[lane.name][0]:
                best[lane.name] = pace, lane
    return {name: lane for name, (_, lane) in best.items()}


def call_costs(rows: Sequence[ArticleRuns]) -> dict[int, float]:
    """Tokens in a call of the target -> the median of its seconds.

    One token: of plain decoding alone. More: of all lanes that made such calls.
    """
    found: dict[int, list[float]] = {}
    for row in rows:
        for lane, run in row.runs.items():
            for size, seconds in run.target_calls:
                if size > 1 or lane.name == ALONE:
                    found.setdefault(size, []).append(seconds)
    return {size: statistics.median(found[size]) for size in sorted(found)}


def predicted(
    run: Run, c: float, costs: Mapping[int, float], *, encode_seconds: float | None = None
) -> float:
    """The speed-up over plain decoding that the parts of a lane's rounds predict.

    - `c`: seconds of the drafter a drafted token, over those of a one-token call.
    - `costs`: from `call_costs`.
    - `encode_seconds`: of plain decoding on the same article, to count the encoding of both lanes.
    """
    v = statistics.fmean(costs.get(size, costs[1]) for size, _ in run.target_calls) / costs[1]
    decoding = metrics.expected_speed_up(run.tokens / run.calls, run.drafted / run.calls, c, v)
    if encode_seconds is None or not decoding:
        return decoding
    plain = run.tokens * costs[1]
    return (encode_seconds + plain) / (run.encode_seconds + plain / decoding)


def over(run: Run, other: Run, *, encoding: bool = False) -> float:
    """How many times faster a lane is than another on the same article, for as many tokens.

    Where the other sampled a text of another length, it is taken as writing each token at the pace
    of its own text. `encoding` counts the encoding of both.
    """
    theirs = other.decode_seconds * run.tokens / other.tokens
    if not encoding:
        return theirs / run.decode_seconds
    return (other.encode_seconds + theirs) / (run.encode_seconds + run.decode_seconds)


def _lane(
    bench: Bench,
    rows: Sequence[ArticleRuns],
    lane: Lane,
    costs: Mapping[int, float],
    assisted: Lane | None,
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": lane.name,
        "label": label(lane.name),
        "gamma": lane.gamma,
        "error": bench.errors.get(lane),
    }
    if entry["error"] is not None:
        return entry
    runs = [row.runs[lane] for row in rows]
    others = {"generate": Lane(GENERATE, None), "assisted": assisted, "alone": _PLAIN}
    others |= {name: Lane(name, None) for name in PEERS}

    def compared(other: Lane | None) -> dict[str, Spread | None] | None:
        if other is None or any(other not in row.runs for row in rows):
            return None
        return {
            kind: spread(over(row.runs[lane], row.runs[other], encoding=whole) for row in rows)
            for kind, whole in _KINDS.items()
        }

    entry |= {
        "target_calls": spread(run.calls for run in runs),
        "tokens": spread(run.tokens for run in runs),
        "tokens_per_second": {
            "decoding": spread(run.tokens / run.decode_seconds for run in runs),
            "with_encoding": spread(
                run.tokens / (run.decode_seconds + run.encode_seconds) for run in runs
            ),
        },
        "over": {name: compared(other) for name, other in others.items()},
        "tau": spread(run.tokens / run.calls for run in runs),
        "differing": sum(lane in row.differing for row in rows),
        "peak_bytes": max((run.peak_bytes or 0 for run in runs), default=0) or None,
        "outside_share": None
        if lane.name in OTHERS
        else spread(
            1 - (run.target_seconds + run.drafter_seconds) / run.decode_seconds for run in runs
        ),
        **dict.fromkeys(
            ("alpha", "accepted_of_drafted", "accepted_of_judged", "c", "v", "predicted")
        ),
    }
    if lane.name in (*OTHERS, ALONE):
        return entry
    step = spread(run.drafter_seconds / run.drafted for run in runs if run.drafted)
    c = step["median"] / costs[1] if step else 0.0
    whole = costs.get((lane.gamma or 0) + 1)
    drafted, judged, accepted = (
        sum(getattr(run, name) for run in runs) for name in ("drafted", "judged", "accepted")
    )

    def expected(row: ArticleRuns, encoding: bool) -> float:
        seconds = row.runs[_PLAIN].encode_seconds if encoding else None
        return predicted(row.runs[lane], c, costs, encode_seconds=seconds)

    return entry | {
        "alpha": spread(row.alphas.get(lane.name) for row in rows)
        if bench.alpha is None
        else spread(run.accepted / run.judged if run.judged else None for run in runs),
        "accepted_of_drafted": accepted / drafted if drafted else None,
        "accepted_of_judged": accepted / judged if judged else None,
        "c": c,
        "v": whole / costs[1] if whole else None,
        "predicted": {
            kind: spread(expected(row, encoding) for row in rows)
            for kind, encoding in _KINDS.items()
        },
    }


# Words and tables.


def heading(summary: Mapping[str, Any]) -> str:
    """The title of a report."""
    suffix = f" ({SIMULATED})" if summary["acceptance"] == SIMULATED else ""
    return f"{summary['target']}: tokens a second, side by side{suffix}"


def preamble(summary: Mapping[str, Any]) -> list[str]:
    """What was measured on what, and what to beware of, in sentences."""
    config, versions = summary["config"], summary["versions"]
    count, simulated = summary["articles"], summary["acceptance"] == SIMULATED
    lines = []
    if simulated:
        lines.append(
            f"SIMULATED ACCEPTANCE: random weights; each drafted token was accepted with chance "
            f"{summary['simulated_alpha']:g}, whatever the models say. Costs are measured; tau, "
            "target calls, tokens a second and speed-ups of lanes with a drafter follow from the "
            "simulated acceptance."
        )
    lines += [
        f"{count} {'random sources' if simulated else 'article' + 's' * (count != 1)} of "
        f"{_shown(summary['source_tokens'], 0)} tokens; at most {config['max_new_tokens']} tokens "
        f"written{shared_words(config)}. {summary['hardware']}; target in {summary['dtype']} "
        f"(engine: {summary['engine']}), drafters in {summary['drafter_dtype']}; Python "
        f"{versions['python']}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}.",
        "One run; articles, lanes and draft lengths interleaved in a shuffled order, each lane "
        "warmed up off the clock. Medians over articles, in brackets the quartiles. Decoding "
        "begins when the article is encoded and its keys and values for the decoder are made, in "
        "every lane alike.",
    ]
    if summary["assistant"] is not None:
        lines.append(
            f"transformers assisted generation drafts with the weights of {summary['assistant']}, "
            "gamma tokens each time (constant schedule, no confidence threshold)."
        )
    if summary["peak_process_bytes"] is not None:
        lines.append(
            f"Peak memory of the whole process, all lanes loaded: "
            f"{summary['peak_process_bytes'] / 2**20:.0f} MiB."
        )
    if count < summary["asked"]:
        lines.append(f"Interrupted: {summary['asked']} articles were to be measured.")
    return lines


def sections(summary: Mapping[str, Any]) -> list[Section]:
    """One section a temperature, and one on the drafters by themselves."""
    found = [
        Section.of(
            capital(setting_label(setting))
            + (f", {SIMULATED}" if summary["acceptance"] == SIMULATED else ""),
            _sentences(summary, setting),
            _best_table(setting),
            _peer_table(setting),
            _round_table(summary, setting),
            _speed_table(setting),
            _call_table(setting),
        )
        for setting in summary["settings"]
    ]
    if summary["drafters"]:
        found.append(Section.of("Drafters by themselves", (), _cost_table(summary)))
    return found


def markdown(summary: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    return tables.markdown(heading(summary), preamble(summary), sections(summary))


def _sentences(summary: Mapping[str, Any], setting: Mapping[str, Any]) -> list[str]:
    lines = [
        *_agreement(summary, setting),
        *rule_sentences(setting),
        *(f"No numbers of {_name(e)}: {e['error']}" for e in setting["lanes"] if e["error"]),
        *_headline(setting),
        f"A one-token call of the target takes {1000 * setting['one_token_call_seconds']:.2f} ms, "
        f"encoding {1000 * setting['encode_seconds']['median']:.1f} ms.",
    ]
    costs = ", ".join(f"{e['c']:.3f} ({e['label']})" for e in setting["lanes"] if e.get("c"))
    if setting["call_cost"] is not None and costs:
        lines.append(
            f"For --draft-length adaptive on this machine: --call-cost {setting['call_cost']:.3f}, "
            f"and --draft-cost {costs}."
        )
    if summary["roofline"] is not None:
        roof, share = summary["roofline"], setting["roofline_share"]
        wordings = {ALONE: "in plain decoding", GENERATE: "in transformers' generate"}
        paces = {
            entry["name"]: entry["tokens_per_second"]["decoding"]["median"]
            for entry in setting["lanes"]
            if entry["error"] is None
        }
        each = ", ".join(
            f"{1000 / paces[name]:.2f} ms {words}"
            for name, words in wordings.items()
            if name in paces
        )
        lines.append(
            f"Memory roofline: {roof['weight_bytes'] / 1e9:.4f} GB of decoder weights a token at "
            f"{roof['bandwidth'] / 1e9:.0f} GB/s (measured on this device) are "
            f"{1000 * roof['seconds_per_token']:.3f} ms. Plain decoding reaches "
            f"{share['decoding']:.0%} of it, the target's call alone {share['call']:.0%}. "
            f"A token takes {each}."
        )
    return lines


def _agreement(summary: Mapping[str, Any], setting: Mapping[str, Any]) -> list[str]:
    """Whether all lanes wrote the same greedy text."""
    if setting["temperature"] > 0:
        return ["Lanes sample different texts: they are compared by the pace of a token."]
    if summary["acceptance"] == SIMULATED:
        return []
    names = {entry["name"] for entry in setting["lanes"] if entry["error"] is None}
    whose = "transformers' generate" if GENERATE in names else "plain decoding"
    differing = [e for e in setting["lanes"] if e["error"] is None and e["differing"]]
    rounded = [entry for entry in differing if entry["name"] == peer.INT8]
    lines = [
        f"{label(entry['name'])} wrote another text than {whose} on {entry['differing']} of "
        f"{summary['articles']} articles: its weights are rounded."
        for entry in rounded
    ]
    wrong = [entry for entry in differing if entry not in rounded]
    if not wrong:
        every = "Every other lane" if rounded else "Every lane"
        return [f"{every} wrote the text of {whose}, token for token, on every article.", *lines]
    found = ", ".join(f"{_name(entry)} {entry['differing']}" for entry in wrong)
    return [
        f"MISMATCH: of {summary['articles']} greedy texts a lane, these are NOT those of {whose}: "
        f"{found}.",
        *lines,
    ]


def _headline(setting: Mapping[str, Any]) -> list[str]:
    best = _best(setting)
    plain = next(entry for entry in best if entry["name"] == ALONE)
    lines = []
    if plain["over"]["generate"] is not None:
        ratio = plain["over"]["generate"]["decoding"]["median"]
        lines.append(f"Plain decoding: {ratio:.2f} times transformers' generate, decoding alone.")
    drafted = [entry for entry in best if entry["name"] not in (*OTHERS, ALONE)]
    if drafted:
        first = max(drafted, key=lambda e: e["tokens_per_second"]["decoding"]["median"])
        against = {
            "generate": "transformers' generate",
            "assisted": "its assisted generation at the best draft length",
            "alone": "plain decoding",
        }
        ratios = ", ".join(
            f"{first['over'][name]['decoding']['median']:.2f} times {words}"
            for name, words in against.items()
            if first["over"][name] is not None
        )
        lines.append(f"Fastest with a drafter: {_name(first)}: {ratios}, decoding alone.")
    return lines


def _best(setting: Mapping[str, Any]) -> list[dict[str, Any]]:
    best = setting["best_gamma"]
    measured = [entry for entry in setting["lanes"] if entry["error"] is None]
    return [entry for entry in measured if best.get(entry["name"], "") == entry["gamma"]]


def _times(names: Sequence[tuple[str, str]], kinds: Sequence[str] = ("decoding",)) -> Columns:
    """How many times faster than other lanes: a column for each kind of speed and (name, words)."""

    def cell(entry: Mapping[str, Any], name: str, kind: str) -> str:
        return _shown(entry["over"][name] and entry["over"][name][kind])

    return {
        f"x {words}{', with encoding' * _KINDS[kind]}": partial(cell, name=name, kind=kind)
        for kind in kinds
        for name, words in names
    }


_LANE: Columns = {
    "lane": lambda entry: entry["label"],
    "gamma": lambda entry: "-" if entry["gamma"] is None else str(entry["gamma"]),
}
_CALLS: Columns = {"target calls": lambda entry: _shown(entry["target_calls"], 0)}
_PACE: Columns = {"tokens/s": lambda entry: _shown(entry["tokens_per_second"]["decoding"], 0)}


def _best_table(setting: Mapping[str, Any]) -> Table:
    others = [(name, name) for name in ("generate", "assisted")] + [("alone", "plain")]
    return Table.of(
        f"Each lane at its fastest draft length, {setting_label(setting)}",
        "Which draft length is fastest was read from the same run. Times: how many times faster "
        "than transformers' generate, than its assisted generation at its own fastest draft "
        "length, and than our plain decoding, article by article.",
        {**_LANE, **_CALLS, **_PACE, **_times(others, list(_KINDS))},
        _best(setting),
    )


def _peer_table(setting: Mapping[str, Any]) -> Table:
    """How our lanes compare with CTranslate2; no rows where it was not measured."""
    there = [e["name"] for e in setting["lanes"] if e["name"] in PEERS and e["error"] is None]
    return Table.of(
        f"Against CTranslate2, {setting_label(setting)}",
        "How many times faster, article by article. CTranslate2 decodes plainly, on the same "
        "device with as many threads.",
        {**_LANE, **_times([(name, label(name)) for name in there], list(_KINDS))},
        [entry for entry in _best(setting) if there and entry["name"] not in OTHERS],
    )


def _round_table(summary: Mapping[str, Any], setting: Mapping[str, Any]) -> Table:
    alpha = (
        f"alpha ({SIMULATED}): of the drafted tokens that were judged, the share accepted."
        if summary["acceptance"] == SIMULATED
        else "alpha: on the target's own text, the chance that a drafted token is accepted (by the "
        "token rule)."
    )

    def speeds(kind: str, words: str) -> Columns:
        return {
            f"measured{words}": lambda e: _shown(e["over"]["alone"][kind]),
            f"predicted{words}": lambda e: _shown(e["predicted"][kind]),
            f"measured / predicted{words}": lambda e: _number(
                e["over"]["alone"][kind]["median"] / e["predicted"][kind]["median"]
            ),
        }

    return Table.of(
        f"What a round costs and what that predicts, {setting_label(setting)}",
        f"Speed-up over our plain decoding. {alpha} c: a drafted token, v: a call "
        "that reads gamma + 1 tokens, both in one-token calls of the target. Predicted: "
        "tau / (k c + v), k tokens drafted a round, v of the calls that the lane made. "
        "Outside: the share of a round spent neither in the target's nor in the drafter's calls.",
        {
            **_LANE,
            "tau": lambda e: _shown(e["tau"]),
            "alpha": lambda e: _shown(e["alpha"]),
            "accepted / drafted": lambda e: _number(e["accepted_of_drafted"], 3),
            "c": lambda e: _number(e["c"], 3),
            "v": lambda e: _number(e["v"]),
            **speeds("decoding", ""),
            **speeds("with_encoding", ", with encoding"),
            "outside": lambda e: _percent(e["outside_share"]),
        },
        [entry for entry in setting["lanes"] if entry.get("predicted")],
    )


def _speed_table(setting: Mapping[str, Any]) -> Table:
    columns: Columns = {
        **_CALLS,
        "tau": lambda e: _shown(e["tau"]),
        **_PACE,
        "tokens/s, with encoding": lambda e: _shown(e["tokens_per_second"]["with_encoding"], 0),
        **_times([("generate", "generate"), ("alone", "plain")]),
        "outside": lambda e: _percent(e["outside_share"]),
        "peak memory": lambda e: (
            "-" if e["peak_bytes"] is None else f"{e['peak_bytes'] / 2**20:.0f} MiB"
        ),
    }

    def cells(entry: Mapping[str, Any]) -> list[str]:
        if entry["error"] is not None:
            return ["failed", *["-"] * (len(columns) - 1)]
        return [cell(entry) for cell in columns.values()]

    return Table(
        f"Every lane, every draft length, {setting_label(setting)}",
        "Peak memory: of the device, with all models loaded; on a CPU it is known of the whole "
        "process alone.",
        (*_LANE, *columns),
        tuple(
            (*(cell(entry) for cell in _LANE.values()), *cells(entry)) for entry in setting["lanes"]
        ),
    )


def _call_table(setting: Mapping[str, Any]) -> Table:
    return Table.of(
        f"A call of the target by how many tokens it reads, {setting_label(setting)}",
        "Medians over all calls of the run; v is against one token.",
        {
            "tokens": lambda row: str(row["tokens"]),
            "ms": lambda row: f"{1000 * row['seconds']:.2f}",
            "v": lambda row: _number(row["v"]),
        },
        setting["call_costs"],
    )


def _cost_table(summary: Mapping[str, Any]) -> Table:
    return Table.of(
        "What a drafter costs",
        "Parameters: weights of its own; of an n-gram the entries of its table. Bytes: of weights "
        "or table on disk. Medians over the same articles, between the lanes and on none of their "
        f"clocks: greedy drafts of {summary['gammas'][-1]} tokens along the target's text. c: a "
        "drafted token in one-token calls of the target at batch 1. In a lane it can be more: "
        "there the drafter shares the processor's caches with the target.",
        {
            "drafter": lambda entry: entry["label"],
            "parameters": lambda entry: f"{entry['parameters']:,}",
            "bytes": lambda entry: f"{entry['bytes']:,}",
            "microseconds to begin": lambda entry: _number(entry["begin_microseconds"], 0),
            "microseconds a drafted token": lambda entry: _number(entry["step_microseconds"], 1),
            "c": lambda entry: _number(entry["c"], 3),
        },
        summary["drafters"],
    )


def _name(entry: Mapping[str, Any]) -> str:
    gamma = "" if entry["gamma"] is None else f", gamma {entry['gamma']}"
    return f"{entry['label']}{gamma}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(found: Spread | None) -> str:
    return "-" if not found else f"{100 * found['median']:.1f} %"
