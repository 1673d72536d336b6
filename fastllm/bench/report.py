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
from fastllm.evaluation.tables import Section, Table
from fastllm.words import capital

Spread = dict[str, float]
"""median, low and high: the median over articles, and its quartiles."""

SIMULATED = "simulated acceptance"


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

    Args:
        bench: the run.
        assistant: the drafter whose weights transformers' assisted generation had.
        roofline: from `fastllm.bench.simulate.roofline`; None where it was not measured.
        peak_process_bytes: the most memory that the process had.
        drafter_dtype: of the drafters' weights.
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
    quickest = _quickest(rows, ASSISTED, lanes)
    entries = [_lane(bench, rows, lane, costs, quickest) for lane in lanes]
    best = {}
    for name in dict.fromkeys(entry["name"] for entry in entries):
        measured = [e for e in entries if e["name"] == name and e["error"] is None]
        if measured:
            winner = max(measured, key=lambda e: e["tokens_per_second"]["decoding"]["median"])
            best[name] = winner["gamma"]
    plain = [row.runs[Lane(ALONE, None)] for row in rows]
    encoding = spread([run.encode_seconds for run in plain])
    setting = {
        "temperature": temperature,
        **rules(bench.config, temperature),
        "one_token_call_seconds": costs.get(1),
        "call_costs": [
            {"tokens": size, "seconds": seconds, "v": seconds / costs[1]}
            for size, seconds in costs.items()
        ],
        "call_cost": metrics.call_cost(costs) if len(costs) > 1 else None,
        "encode_seconds": encoding,
        "lanes": entries,
        "best_gamma": best,
    }
    if roofline is not None:
        token = spread([run.decode_seconds / run.tokens for run in plain])
        assert token is not None, "plain decoding was measured"
        setting["roofline_share"] = {
            "decoding": roofline["seconds_per_token"] / token["median"],
            "call": roofline["seconds_per_token"] / costs[1],
        }
    return setting


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

    Args:
        run: gives tau, k and the sizes of the calls.
        c: seconds of the drafter a drafted token, over those of a one-token call.
        costs: from `call_costs`.
        encode_seconds: of plain decoding on the same article, to count the encoding of both lanes;
            None for decoding alone.
    """
    v = statistics.fmean(costs.get(size, costs[1]) for size, _ in run.target_calls) / costs[1]
    decoding = metrics.expected_speed_up(run.tokens / run.calls, run.drafted / run.calls, c, v)
    if encode_seconds is None or not decoding:
        return decoding
    plain = run.tokens * costs[1]
    return (encode_seconds + plain) / (run.encode_seconds + plain / decoding)


def over(run: Run, other: Run, *, encoding: bool = False) -> float:
    """How many times faster than another lane on the same article, for as many tokens.

    Args:
        run: the lane.
        other: the lane it is compared with. Where it sampled a text of another length, it is taken
            as writing each token at the pace of its own text.
        encoding: count the encoding of both.
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
    ours = lane.name not in OTHERS
    entry: dict[str, Any] = {
        "name": lane.name,
        "label": label(lane.name),
        "gamma": lane.gamma,
        "error": bench.errors.get(lane),
    }
    if entry["error"] is not None:
        return entry
    runs = [row.runs[lane] for row in rows]
    drafts = ours and lane.name != ALONE
    others = {"generate": Lane(GENERATE, None), "assisted": assisted, "alone": Lane(ALONE, None)}
    others |= {name: Lane(name, None) for name in PEERS}
    entry |= {
        "target_calls": spread([run.calls for run in runs]),
        "tokens": spread([run.tokens for run in runs]),
        "tokens_per_second": {
            "decoding": spread([run.tokens / run.decode_seconds for run in runs]),
            "with_encoding": spread(
                [run.tokens / (run.decode_seconds + run.encode_seconds) for run in runs]
            ),
        },
        "over": {
            name: None
            if other is None or any(other not in row.runs for row in rows)
            else {
                "decoding": spread([over(row.runs[lane], row.runs[other]) for row in rows]),
                "with_encoding": spread(
                    [over(row.runs[lane], row.runs[other], encoding=True) for row in rows]
                ),
            }
            for name, other in others.items()
        },
        "tau": spread([run.tokens / run.calls for run in runs]),
        "differing": sum(lane in row.differing for row in rows),
        "peak_bytes": max((run.peak_bytes or 0 for run in runs), default=0) or None,
        "outside_share": spread(
            [1 - (run.target_seconds + run.drafter_seconds) / run.decode_seconds for run in runs]
        )
        if ours
        else None,
        "alpha": None,
        "accepted_of_drafted": None,
        "accepted_of_judged": None,
        "c": None,
        "v": None,
        "predicted": None,
    }
    if not drafts:
        return entry
    step = spread([run.drafter_seconds / run.drafted for run in runs if run.drafted])
    c = step["median"] / costs[1] if step else 0.0
    whole = costs.get((lane.gamma or 0) + 1)
    drafted, judged = sum(run.drafted for run in runs), sum(run.judged for run in runs)
    accepted = sum(run.accepted for run in runs)
    return entry | {
        "alpha": spread([row.alphas.get(lane.name) for row in rows])
        if bench.alpha is None
        else spread([run.accepted / run.judged if run.judged else None for run in runs]),
        "accepted_of_drafted": accepted / drafted if drafted else None,
        "accepted_of_judged": accepted / judged if judged else None,
        "c": c,
        "v": whole / costs[1] if whole else None,
        "predicted": {
            "decoding": spread([predicted(run, c, costs) for run in runs]),
            "with_encoding": spread(
                [
                    predicted(
                        row.runs[lane],
                        c,
                        costs,
                        encode_seconds=row.runs[Lane(ALONE, None)].encode_seconds,
                    )
                    for row in rows
                ]
            ),
        },
    }


def _quickest(rows: Sequence[ArticleRuns], name: str, lanes: Sequence[Lane]) -> Lane | None:
    """The draft length at which a lane was fastest; None where it has no numbers."""
    there = [lane for lane in lanes if lane.name == name and all(lane in row.runs for row in rows)]
    return max(
        there,
        key=lambda lane: statistics.median(
            row.runs[lane].tokens / row.runs[lane].decode_seconds for row in rows
        ),
        default=None,
    )


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
            *_peer_tables(setting),
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
    ]
    lines.append(
        f"A one-token call of the target takes {1000 * setting['one_token_call_seconds']:.2f} ms, "
        f"encoding {1000 * setting['encode_seconds']['median']:.1f} ms."
    )
    lines += _costs(setting)
    if summary["roofline"] is not None:
        roof, share = summary["roofline"], setting["roofline_share"]
        lines.append(
            f"Memory roofline: {roof['weight_bytes'] / 1e9:.4f} GB of decoder weights a token at "
            f"{roof['bandwidth'] / 1e9:.0f} GB/s (measured on this device) are "
            f"{1000 * roof['seconds_per_token']:.3f} ms. Plain decoding reaches "
            f"{share['decoding']:.0%} of it, the target's call alone {share['call']:.0%}. "
            f"{_milliseconds(setting)}."
        )
    return lines


def _costs(setting: Mapping[str, Any]) -> list[str]:
    """What to give for drafts of adaptive length, as measured at the longest drafts."""
    drafted = {entry["label"]: entry["c"] for entry in setting["lanes"] if entry.get("c")}
    if setting["call_cost"] is None or not drafted:
        return []
    costs = ", ".join(f"{c:.3f} ({name})" for name, c in drafted.items())
    return [
        f"For --draft-length adaptive on this machine: --call-cost {setting['call_cost']:.3f}, and "
        f"--draft-cost {costs}."
    ]


def _milliseconds(setting: Mapping[str, Any]) -> str:
    """What a token takes in the lanes that do not draft."""
    found = [
        f"{1000 / entry['tokens_per_second']['decoding']['median']:.2f} ms {words}"
        for name, words in ((ALONE, "in plain decoding"), (GENERATE, "in transformers' generate"))
        for entry in setting["lanes"]
        if entry["name"] == name and entry["error"] is None
    ]
    return "A token takes " + ", ".join(found)


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
    return [
        entry
        for entry in setting["lanes"]
        if entry["name"] in setting["best_gamma"]
        and entry["error"] is None
        and entry["gamma"] == setting["best_gamma"][entry["name"]]
    ]


def _best_table(setting: Mapping[str, Any]) -> Table:
    def cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
        compared = entry["over"]
        return (
            entry["label"],
            _gamma(entry),
            _shown(entry["target_calls"], 0),
            _shown(entry["tokens_per_second"]["decoding"], 0),
            *(
                _shown(compared[name] and compared[name][kind])
                for kind in ("decoding", "with_encoding")
                for name in ("generate", "assisted", "alone")
            ),
        )

    return Table(
        f"Each lane at its fastest draft length, {setting_label(setting)}",
        "Which draft length is fastest was read from the same run. Times: how many times faster "
        "than transformers' generate, than its assisted generation at its own fastest draft "
        "length, and than our plain decoding, article by article.",
        (
            "lane",
            "gamma",
            "target calls",
            "tokens/s",
            "x generate",
            "x assisted",
            "x plain",
            "x generate, with encoding",
            "x assisted, with encoding",
            "x plain, with encoding",
        ),
        tuple(cells(entry) for entry in _best(setting)),
    )


def _peer_tables(setting: Mapping[str, Any]) -> list[Table]:
    """How our lanes compare with CTranslate2; nothing where it was not measured."""
    there = [e["name"] for e in setting["lanes"] if e["name"] in PEERS and e["error"] is None]
    if not there:
        return []
    kinds = {"decoding": "", "with_encoding": ", with encoding"}
    return [
        Table(
            f"Against CTranslate2, {setting_label(setting)}",
            "How many times faster, article by article. CTranslate2 decodes plainly, on the same "
            "device with as many threads.",
            ("lane", "gamma", *(f"x {label(n)}{words}" for words in kinds.values() for n in there)),
            tuple(
                (
                    entry["label"],
                    _gamma(entry),
                    *(_shown(entry["over"][name][kind]) for kind in kinds for name in there),
                )
                for entry in _best(setting)
                if entry["name"] not in OTHERS
            ),
        )
    ]


def _round_table(summary: Mapping[str, Any], setting: Mapping[str, Any]) -> Table:
    alpha = (
        f"alpha ({SIMULATED}): of the drafted tokens that were judged, the share accepted."
        if summary["acceptance"] == SIMULATED
        else "alpha: on the target's own text, the chance that a drafted token is accepted (by the "
        "token rule)."
    )

    def cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
        measured, expected = entry["over"]["alone"], entry["predicted"]
        both = [
            text
            for kind in ("decoding", "with_encoding")
            for text in (
                _shown(measured[kind]),
                _shown(expected[kind]),
                _number(measured[kind]["median"] / expected[kind]["median"]),
            )
        ]
        return (
            entry["label"],
            _gamma(entry),
            _shown(entry["tau"]),
            _shown(entry["alpha"]),
            _number(entry["accepted_of_drafted"], 3),
            _number(entry["c"], 3),
            _number(entry["v"]),
            *both,
            _percent(entry["outside_share"]),
        )

    return Table(
        f"What a round costs and what that predicts, {setting_label(setting)}",
        f"Speed-up over our plain decoding. {alpha} c: a drafted token, v: a call "
        "that reads gamma + 1 tokens, both in one-token calls of the target. Predicted: "
        "tau / (k c + v), k tokens drafted a round, v of the calls that the lane made. "
        "Outside: the share of a round spent neither in the target's nor in the drafter's calls.",
        (
            "lane",
            "gamma",
            "tau",
            "alpha",
            "accepted / drafted",
            "c",
            "v",
            "measured",
            "predicted",
            "measured / predicted",
            "measured, with encoding",
            "predicted, with encoding",
            "measured / predicted, with encoding",
            "outside",
        ),
        tuple(cells(entry) for entry in setting["lanes"] if entry.get("predicted")),
    )


def _speed_table(setting: Mapping[str, Any]) -> Table:
    def cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
        if entry["error"] is not None:
            return (entry["label"], _gamma(entry), "failed", *["-"] * 7)
        return (
            entry["label"],
            _gamma(entry),
            _shown(entry["target_calls"], 0),
            _shown(entry["tau"]),
            _shown(entry["tokens_per_second"]["decoding"], 0),
            _shown(entry["tokens_per_second"]["with_encoding"], 0),
            *(
                _shown(entry["over"][name] and entry["over"][name]["decoding"])
                for name in ("generate", "alone")
            ),
            _percent(entry["outside_share"]),
            "-" if entry["peak_bytes"] is None else f"{entry['peak_bytes'] / 2**20:.0f} MiB",
        )

    return Table(
        f"Every lane, every draft length, {setting_label(setting)}",
        "Peak memory: of the device, with all models loaded; on a CPU it is known of the whole "
        "process alone.",
        (
            "lane",
            "gamma",
            "target calls",
            "tau",
            "tokens/s",
            "tokens/s, with encoding",
            "x generate",
            "x plain",
            "outside",
            "peak memory",
        ),
        tuple(cells(entry) for entry in setting["lanes"]),
    )


def _call_table(setting: Mapping[str, Any]) -> Table:
    return Table(
        f"A call of the target by how many tokens it reads, {setting_label(setting)}",
        "Medians over all calls of the run; v is against one token.",
        ("tokens", "ms", "v"),
        tuple(
            (str(row["tokens"]), f"{1000 * row['seconds']:.2f}", _number(row["v"]))
            for row in setting["call_costs"]
        ),
    )


def _cost_table(summary: Mapping[str, Any]) -> Table:
    return Table(
        "What a drafter costs",
        "Parameters: weights of its own; of an n-gram the entries of its table. Bytes: of weights "
        "or table on disk. Medians over the same articles, between the lanes and on none of their "
        f"clocks: greedy drafts of {summary['gammas'][-1]} tokens along the target's text. c: a "
        "drafted token in one-token calls of the target at batch 1. In a lane it can be more: "
        "there the drafter shares the processor's caches with the target.",
        (
            "drafter",
            "parameters",
            "bytes",
            "microseconds to begin",
            "microseconds a drafted token",
            "c",
        ),
        tuple(
            (
                entry["label"],
                f"{entry['parameters']:,}",
                f"{entry['bytes']:,}",
                _number(entry["begin_microseconds"], 0),
                _number(entry["step_microseconds"], 1),
                _number(entry["c"], 3),
            )
            for entry in summary["drafters"]
        ),
    )


def _name(entry: Mapping[str, Any]) -> str:
    gamma = "" if entry["gamma"] is None else f", gamma {entry['gamma']}"
    return f"{entry['label']}{gamma}"


def _gamma(entry: Mapping[str, Any]) -> str:
    return "-" if entry["gamma"] is None else str(entry["gamma"])


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


_shown = partial(tables.bracketed, middle="median")


def _percent(found: Spread | None) -> str:
    return "-" if not found else f"{100 * found['median']:.1f} %"
