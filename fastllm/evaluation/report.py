"""An evaluation as aggregates, JSON and Markdown tables; the README's numbers come from here.

Every rate is over all articles together, with a 95 % bootstrap interval over articles, and before
against after is paired by article. `fastllm.evaluation.charts` draws the same aggregates.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import Any

from fastllm import metrics
from fastllm.drafters import families, untrained
from fastllm.evaluation import tables
from fastllm.evaluation.measure import (
    ALONE,
    ROUGE,
    Evaluation,
    GenerateCheck,
    LaneNumbers,
    TextNumbers,
)
from fastllm.evaluation.tables import Section, Table, bracketed
from fastllm.trace import DecodingConfig
from fastllm.words import capital

FEW = 20
"""Below so many articles a bootstrap interval is too narrow to be believed."""

Estimated = dict[str, float]
"""value, low, high."""


# Names.


def pairs(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """(family, before, after) of the lanes that differ in distillation alone."""
    names = list(names)
    found = []
    for name in names:
        family = name.removesuffix("-before")
        if family != name and f"{family}-after" in names:
            found.append((family, name, f"{family}-after"))
    return found


def ordered(names: Sequence[str]) -> list[str]:
    """Lanes in the order of tables: those without a pair first, then before and after together."""
    found = pairs(names)
    paired = [name for _, before, after in found for name in (before, after)]
    return [name for name in names if name not in paired] + paired


def family_label(family: str) -> str:
    """A family's name for people.

    Example:
        >>> family_label("lstm")
        'LSTM'
    """
    known = families()
    return known[family].title if family in known else family


def lane_label(name: str) -> str:
    """A lane's name for people.

    Example:
        >>> lane_label("lstm-before")
        'LSTM before'
    """
    known = {ALONE: "target alone"}
    known |= {family: f"{family_label(family)}, no training" for family in untrained()}
    for end in ("before", "after"):
        family = name.removesuffix(f"-{end}")
        if family != name:
            return f"{family_label(family)} {end}"
    return known.get(name, name)


def setting_label(setting: Mapping[str, Any]) -> str:
    """A measured temperature in words; never without the mark of a lossy rule."""
    temperature = setting["temperature"]
    label = "greedy" if temperature == 0 else f"temperature {temperature:g}"
    return f"{label}, {setting['rule']}" if setting["lossy"] else label


def rules(config: DecodingConfig, temperature: float) -> dict[str, Any]:
    """What a setting says of verification and of the length of drafts, for `setting_label`."""
    here = replace(config, temperature=temperature)
    return {"rule": here.rule_label, "lossy": here.lossy, "draft_length": here.length_label}


def rule_sentences(setting: Mapping[str, Any]) -> list[str]:
    """Which rule accepted drafts, and how long they were."""
    lines = [f"{capital(setting['rule'])}."]
    if setting["lossy"]:
        lines = [
            f"LOSSY ({setting['rule'].partition(': ')[2]}): lanes with a drafter write texts that "
            "are not distributed as the target's own."
        ]
    if setting["draft_length"]:
        lines.append(f"Draft length: {setting['draft_length']}; gamma is the most.")
    return lines


def shared_settings(config: DecodingConfig) -> dict[str, Any]:
    """The settings that all lanes and temperatures of a report have in common, by name."""
    return {
        key: value for key, value in asdict(config).items() if key not in ("gamma", "temperature")
    }


def shared_words(config: Mapping[str, Any]) -> str:
    """What of `shared_settings` changes the text, to stand behind its length.

    Example:
        >>> shared_words({"no_repeat_ngram": 3, "min_new_tokens": 0, "top_k": 0, "top_p": 0.9})
        ', no_repeat_ngram 3, top_p 0.9'
    """
    names = [name for name in ("no_repeat_ngram", "min_new_tokens", "top_k") if config.get(name)]
    if config["top_p"] < 1:
        names.append("top_p")
    return "".join(f", {name} {config[name]:g}" for name in names)


# Aggregates.


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of tables and charts as plain JSON values; estimates are {value, low, high}."""
    return {
        "target": evaluation.target,
        "notice": evaluation.notice,
        "hardware": evaluation.hardware,
        "versions": evaluation.versions,
        "config": shared_settings(evaluation.config),
        "articles": evaluation.articles,
        "asked": evaluation.asked,
        "interrupted": evaluation.interrupted,
        "gammas": list(evaluation.gammas),
        "headline_gamma": evaluation.headline_gamma,
        "drafters": ordered(evaluation.drafters),
        "settings": [_setting(evaluation, t) for t in evaluation.temperatures],
    }


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The summary, and every article's numbers behind it; no text of any article or summary."""
    return summarise(evaluation) | rows_json(evaluation.rows)


def rows_json(rows: Mapping[float, Iterable[Any]]) -> dict[str, Any]:
    """What each article counted, by temperature, as plain JSON values."""
    return {
        "rows": [
            {"temperature": temperature, "articles": [row.to_json() for row in articles]}
            for temperature, articles in rows.items()
        ]
    }


def _setting(evaluation: Evaluation, temperature: float) -> dict[str, Any]:
    rows = evaluation.rows[temperature]
    return {
        "temperature": temperature,
        **rules(evaluation.config, temperature),
        "text": _text([row.text for row in rows]),
        "differing": evaluation.differing(temperature),
        "alone": _lane(evaluation, temperature, evaluation.gammas[0], ALONE),
        "drafters": {
            name: _drafter(evaluation, temperature, name) for name in ordered(evaluation.drafters)
        },
        "pairs": {
            family: _pair(evaluation, temperature, before, after)
            for family, before, after in pairs(evaluation.drafters)
        },
    }


def _mean(values: Iterable[float]) -> Estimated:
    return asdict(metrics.mean([float(value) for value in values]))


def _ratio(over: Iterable[float], under: Iterable[float]) -> Estimated:
    return asdict(metrics.ratio(list(over), list(under)))


def _text(texts: Sequence[TextNumbers]) -> dict[str, Any]:
    with_summary = [text.rouge for text in texts if text.rouge]
    return {
        "tokens": _mean(text.tokens for text in texts),
        "bits": _bits([text.bits for text in texts]),
        "ended_share": statistics.fmean(text.ended == "end_of_text" for text in texts),
        "loop_rate": _mean(text.loops for text in texts),
        "repeated_4grams": _mean(text.repeated_share for text in texts),
        "copied_4grams": _mean(text.copied_share for text in texts),
        "rouge": {
            name: {kind: _mean(scores[name][kind] for scores in with_summary) for kind in ROUGE}
            for name in (with_summary[0] if with_summary else {})
        },
    }


def _drafter(evaluation: Evaluation, temperature: float, name: str) -> dict[str, Any]:
    rows = evaluation.rows[temperature]
    asked = [row.agreements[name] for row in rows]
    alpha = _mean(entry.alpha for entry in asked)
    return {
        "alpha": alpha,
        "bits": _bits([entry.bits for entry in asked], [row.text.bits for row in rows]),
        "drafted_share": statistics.fmean(entry.drafted_share for entry in asked),
        "gammas": {
            str(gamma): _lane(evaluation, temperature, gamma, name, alpha["value"])
            for gamma in evaluation.gammas
        },
    }


def _bits(bits: Sequence[float | None], own: Sequence[float | None] = ()) -> dict[str, Any] | None:
    """Bits a token over articles, and how many more than the target's own; None: not known."""
    known = [value for value in bits if value is not None]
    if len(known) < len(bits):
        return None
    found: dict[str, Any] = {"token": _mean(known)}
    others = [value for value in own if value is not None]
    if len(others) == len(known):
        found["excess"] = asdict(metrics.paired_difference(known, others))
    return found


def _lane(
    evaluation: Evaluation, temperature: float, gamma: int, name: str, alpha: float | None = None
) -> dict[str, Any]:
    lanes = evaluation.lanes(temperature, gamma, name)
    alone = evaluation.lanes(temperature, gamma, ALONE)
    # Sampled texts differ in length: what plain decoding takes for as many tokens. Equal if greedy.
    plain = [
        other.decode_seconds * lane.tokens / other.tokens
        for lane, other in zip(lanes, alone, strict=True)
    ]
    whole = [
        other.seconds - other.decode_seconds + share
        for other, share in zip(alone, plain, strict=True)
    ]
    as_many = sum(other.tokens for other in alone) / sum(lane.tokens for lane in lanes)
    summary: dict[str, Any] = {
        "tokens": _mean(lane.tokens for lane in lanes),
        "target_calls": _calls(lanes, alone),
        "tau": _ratio((lane.tokens for lane in lanes), (lane.calls for lane in lanes)),
        "decode_seconds": _mean(lane.decode_seconds * as_many for lane in lanes),
        "seconds": _mean(
            lane.seconds - lane.decode_seconds + lane.decode_seconds * as_many for lane in lanes
        ),
        "speed_up_decoding": _ratio(plain, (lane.decode_seconds for lane in lanes)),
        "speed_up_with_encoding": _ratio(whole, (lane.seconds for lane in lanes)),
        "same_text": sum(lane.same_text for lane in lanes),
    }
    if alpha is None:
        return summary
    return summary | {
        "accepted_of_drafted": _ratio(
            (lane.accepted for lane in lanes), (lane.drafted for lane in lanes)
        ),
        "acceptance_by_position": _by_position(lanes),
        "expected": _expected(lanes, alone, plain, alpha, gamma),
    }


def _calls(lanes: Sequence[LaneNumbers], alone: Sequence[LaneNumbers]) -> Estimated:
    """Target calls an article, for as many tokens as the target alone wrote."""
    if all(lane.tokens == other.tokens for lane, other in zip(lanes, alone, strict=True)):
        return _mean(lane.calls for lane in lanes)
    length = statistics.fmean(other.tokens for other in alone)
    return _ratio((lane.calls * length for lane in lanes), (lane.tokens for lane in lanes))


def _by_position(lanes: Sequence[LaneNumbers]) -> list[dict[str, float]]:
    """At each draft position: the share accepted of those judged, and of all drafts (`reached`)."""
    places = zip_longest(*(lane.positions for lane in lanes), fillvalue=(0, 0))
    counts = [(sum(judged), sum(stood)) for judged, stood in (zip(*p, strict=True) for p in places)]
    return [
        {"judged": judged, "accepted": stood, "share": stood / judged, "reached": chance}
        for (judged, stood), chance in zip(counts, metrics.reached(counts), strict=True)
    ]


def _expected(
    lanes: Sequence[LaneNumbers],
    alone: Sequence[LaneNumbers],
    plain: Sequence[float],
    alpha: float,
    gamma: int,
) -> dict[str, float]:
    """The parts of a round, and the speed-ups that they predict."""
    step = sum(lane.verify_seconds for lane in alone) / sum(lane.calls for lane in alone)
    calls = sum(lane.calls for lane in lanes)
    drafted = sum(lane.drafted for lane in lanes)
    c = sum(lane.draft_seconds for lane in lanes) / max(1, drafted) / step
    v = sum(lane.verify_seconds for lane in lanes) / calls / step
    tau = sum(lane.tokens for lane in lanes) / calls
    from_tau = metrics.expected_speed_up(tau, drafted / calls, c, v)
    encoding, encoding_alone = (
        sum(lane.seconds - lane.decode_seconds for lane in some) for some in (lanes, alone)
    )
    return {
        "c": c,
        "v": v,
        "speed_up_from_tau": from_tau,
        "speed_up_from_tau_with_encoding": (encoding_alone + sum(plain))
        / (encoding + sum(plain) / from_tau),
        "speed_up_from_alpha": metrics.expected_speed_up(
            metrics.expected_tau(alpha, gamma), gamma, c, v
        ),
    }


def _pair(evaluation: Evaluation, temperature: float, before: str, after: str) -> dict[str, Any]:
    rows = evaluation.rows[temperature]
    alphas = [[row.agreements[name].alpha for row in rows] for name in (after, before)]
    return {
        "before": before,
        "after": after,
        "alpha_difference": asdict(metrics.paired_difference(*alphas)),
        "gammas": {
            str(gamma): _pair_at(
                evaluation.lanes(temperature, gamma, after),
                evaluation.lanes(temperature, gamma, before),
            )
            for gamma in evaluation.gammas
        },
    }


def _pair_at(after: Sequence[LaneNumbers], before: Sequence[LaneNumbers]) -> dict[str, Any]:
    """After against before at one draft length.

    Calls and seconds are compared a token: the same as a text where both wrote the same, and fair
    where they sampled texts of different length.
    """
    each = {
        name: [[float(vars(lane)[name]) for lane in lanes] for lanes in (after, before)]
        for name in ("calls", "tokens", "accepted", "drafted", "seconds")
    }

    def both(over: str, under: str) -> list[metrics.Fraction]:
        return list(zip(each[over], each[under], strict=True))

    difference = metrics.paired_difference(*each["calls"])
    same = each["tokens"][0] == each["tokens"][1]
    return {
        "target_calls_ratio": asdict(metrics.ratio_of_ratios(*both("calls", "tokens"))),
        "target_calls_difference": asdict(difference) if same else None,
        "tau_difference": asdict(metrics.difference_of_ratios(*both("tokens", "calls"))),
        "accepted_of_drafted_difference": asdict(
            metrics.difference_of_ratios(*both("accepted", "drafted"))
        ),
        "seconds_ratio": asdict(metrics.ratio_of_ratios(*both("seconds", "tokens"))),
    }


# Tables.


def heading(summary: dict[str, Any]) -> str:
    """The title of a report."""
    return f"{summary['target']}: what each drafter saves"


def preamble(summary: dict[str, Any]) -> list[str]:
    """What was measured on what, and what to beware of, in sentences."""
    config, count = summary["config"], summary["articles"]
    lines = [
        f"{count} article{'s' if count > 1 else ''}; at most {config['max_new_tokens']} tokens"
        f"{shared_words(config)}. {summary['hardware']}; Python "
        f"{summary['versions']['python']}, torch {summary['versions']['torch']}. In brackets: "
        "95 % bootstrap intervals over articles."
    ]
    if summary["notice"]:
        lines.append(f"Note: {summary['notice']}")
    if summary["interrupted"]:
        lines.append(f"Interrupted: {summary['asked']} articles were to be measured.")
    if count < FEW:
        lines.append(f"Fewer than {FEW} articles: the intervals are too narrow to be believed.")
    return lines


def sections(summary: dict[str, Any]) -> list[Section]:
    """One section a temperature."""
    return [
        Section.of(
            capital(setting_label(setting)),
            _sentences(summary, setting),
            _lane_table(summary, setting),
            _pair_table(setting),
            _position_table(summary, setting),
            _cost_table(setting),
            _rouge_table(setting),
        )
        for setting in summary["settings"]
    ]


def markdown(summary: dict[str, Any]) -> str:
    """The report as Markdown."""
    return tables.markdown(heading(summary), preamble(summary), sections(summary))


def _sentences(summary: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    text = setting["text"]
    lines = [
        f"The target's text: {bracketed(text['tokens'], 1)} tokens; {text['ended_share']:.0%} end "
        f"by themselves; with a repeated 4-gram {_percent(text['loop_rate'])}; 4-grams repeated "
        f"{_percent(text['repeated_4grams'])}, copied from the article "
        f"{_percent(text['copied_4grams'])}.",
        *rule_sentences(setting),
    ]
    if setting["temperature"] > 0:
        same = "" if setting["lossy"] else " of the same distribution"
        lines.append(
            f"Lanes sample different texts{same}: calls and seconds are given for as many tokens "
            "as the target alone wrote."
        )
    elif setting["differing"]:
        runs = summary["articles"] * len(summary["gammas"])
        wrong = ", ".join(
            f"{lane_label(name)} {count}" for name, count in setting["differing"].items()
        )
        lines.append(f"Of {runs} greedy texts a lane, these were NOT the target's own: {wrong}.")
    elif summary["drafters"]:
        lines.append(
            "Every lane wrote the target's own text, token for token, on every article and at "
            "every gamma."
        )
    return lines


def _lane_table(summary: dict[str, Any], setting: dict[str, Any]) -> Table:
    gamma, alone, lengths = str(summary["headline_gamma"]), setting["alone"], summary["gammas"]
    rows = [
        (
            lane_label(ALONE),
            bracketed(alone["target_calls"], 1),
            *["1.00"] * len(lengths),
            *("-", "-"),
            _bits_label(setting["text"]["bits"]),
            f"{alone['seconds']['value']:.3f}",
            *("1.00", "1.00"),
        )
    ]
    for name, drafter in setting["drafters"].items():
        lane = drafter["gammas"][gamma]
        rows.append(
            (
                lane_label(name),
                bracketed(lane["target_calls"], 1),
                *(bracketed(entry["tau"]) for entry in drafter["gammas"].values()),
                bracketed(drafter["alpha"], 3),
                f"{lane['accepted_of_drafted']['value']:.3f}",
                _bits_label(drafter["bits"]),
                f"{lane['seconds']['value']:.3f}",
                bracketed(lane["speed_up_decoding"]),
                bracketed(lane["speed_up_with_encoding"]),
            )
        )
    taus = (f"tau, gamma {length}" for length in lengths)
    tail = ("accepted / drafted", "bits a token", "seconds", *_SPEED_UPS)
    return Table(
        f"Lanes, {setting_label(setting)}",
        f"Where no other is named: gamma {gamma}. tau: tokens a call of the target. alpha: on the "
        "target's own text, the chance that a drafted token is accepted (by the token rule), "
        "whatever gamma. Bits: a token of the target's text, told by the lane's model at "
        "temperature 1 (at most 20 at a place), and how many more than by the target's own: the "
        "forward KL, where the target's text is sampled. Seconds "
        "an article count the encoding. Speed-up: against the target alone in this run.",
        ("lane", "target calls", *taus, "alpha", *tail),
        tuple(rows),
    )


_SPEED_UPS = ("speed-up, decoding", "speed-up, with encoding")


def _bits_label(bits: Mapping[str, Any] | None) -> str:
    if bits is None:
        return "-"
    more = f" ({bits['excess']['value']:+.2f})" if "excess" in bits else ""
    return f"{bits['token']['value']:.2f}{more}"


def _pair_table(setting: dict[str, Any]) -> Table:
    told = {-1: "fewer calls", 0: "not told apart", 1: "more calls"}
    return Table.of(
        f"After distillation against before, {setting_label(setting)}",
        "Paired by article. A ratio below 1 is a gain; the last column says whether the whole "
        "interval of the ratio of calls lies on one side of 1.",
        {
            "family": lambda row: family_label(row["family"]),
            "gamma": lambda row: row["gamma"],
            "target calls, ratio": lambda row: bracketed(row["target_calls_ratio"]),
            "target calls, difference": lambda row: bracketed(row["target_calls_difference"], 1),
            "tau, difference": lambda row: bracketed(row["tau_difference"]),
            "alpha, difference": lambda row: bracketed(row["alpha_difference"], 3),
            "accepted / drafted, difference": lambda row: bracketed(
                row["accepted_of_drafted_difference"], 3
            ),
            "seconds, ratio": lambda row: bracketed(row["seconds_ratio"]),
            "after has": lambda row: told[
                metrics.Estimate(**row["target_calls_ratio"]).away_from(1)
            ],
        },
        [
            {**pair, **entry, "family": family, "gamma": gamma}
            for family, pair in setting["pairs"].items()
            for gamma, entry in pair["gammas"].items()
        ],
    )


def _position_table(summary: dict[str, Any], setting: dict[str, Any]) -> Table:
    gamma = str(summary["gammas"][-1])
    found = {
        name: drafter["gammas"][gamma]["acceptance_by_position"]
        for name, drafter in setting["drafters"].items()
    }
    deepest = max(map(len, found.values()), default=0)
    rows = []
    for name, positions in found.items():
        shares = [f"{entry['share']:.2f}" for entry in positions]
        shares += ["-"] * (deepest - len(shares))
        share = setting["drafters"][name]["drafted_share"]
        rows.append((lane_label(name), *shares, f"{share:.0%}"))
    judged = (
        "Of the drafts whose predecessors stand: the block rule tests all of them, and all before "
        "the last that passes stand."
        if setting["rule"].startswith("block")
        else "Of the drafts that were judged there: what follows a refusal is not judged."
    )
    return Table(
        f"Acceptance at each draft position, gamma {gamma}, {setting_label(setting)}",
        f"{judged} Last: at how many places of the target's text the drafter has something to say.",
        ("lane", *(str(place + 1) for place in range(deepest)), "drafts at"),
        tuple(rows),
    )


def _cost_table(setting: dict[str, Any]) -> Table:
    return Table.of(
        f"What a round costs and what that predicts, {setting_label(setting)}",
        "c: a drafted token, and v: a call that verifies, both in one-token calls of the target. "
        "tau / (k c + v), with k the tokens drafted a call, must agree with what was measured; "
        "with the tau of i.i.d. alpha it is a model.",
        {
            "lane": lambda lane: lane_label(lane["name"]),
            "gamma": lambda lane: lane["gamma"],
            "c": lambda lane: f"{lane['c']:.3f}",
            "v": lambda lane: f"{lane['v']:.2f}",
            "speed-up, decoding": lambda lane: bracketed(lane["speed_up_decoding"]),
            "from tau, c, v": lambda lane: f"{lane['speed_up_from_tau']:.2f}",
            "from alpha": lambda lane: f"{lane['speed_up_from_alpha']:.2f}",
            "with encoding": lambda lane: bracketed(lane["speed_up_with_encoding"]),
            "from tau, c, v, encoding": lambda lane: (
                f"{lane['speed_up_from_tau_with_encoding']:.2f}"
            ),
        },
        [
            {**lane, **lane["expected"], "name": name, "gamma": gamma}
            for name, drafter in setting["drafters"].items()
            for gamma, lane in drafter["gammas"].items()
        ],
    )


def _rouge_table(setting: dict[str, Any]) -> Table:
    return Table(
        f"ROUGE against the data set's summaries, {setting_label(setting)}",
        "Of the target's text, which no drafter changes, beside two summaries that anyone can "
        "write.",
        ("text", "ROUGE-1", "ROUGE-2", "ROUGE-L"),
        tuple(
            (name, *(_percent(scores[kind], sign="") for kind in ROUGE))
            for name, scores in setting["text"]["rouge"].items()
        ),
    )


def generate_table(check: GenerateCheck) -> str:
    """The comparison with transformers as Markdown."""
    rows = [
        (name, *(str(counts[gamma]) for gamma in check.gammas))
        for name, counts in check.equal.items()
    ]
    lines = [
        "## Greedy texts equal to transformers' generate(do_sample=False), of "
        f"{check.articles} articles: {'PASS' if check.passed else 'FAIL'}",
        "",
        tables.grid(["lane", *(f"gamma {gamma}" for gamma in check.gammas)], rows),
    ]
    for miss in check.mismatches[:20]:
        lines.append(
            f"\nArticle {miss.article}, {miss.lane}, gamma {miss.gamma}: they part at token "
            f"{miss.position}, where the target's two best logits differ by {miss.margin:.2e}."
        )
    if check.interrupted:
        lines.append(f"\nInterrupted: {check.asked} articles were to be compared.")
    return "\n".join(lines)


def _percent(estimate: Estimated, sign: str = " %") -> str:
    return bracketed(estimate, 1, scale=100, unit=sign)
