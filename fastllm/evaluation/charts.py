"""An evaluation as one HTML file with charts; nothing in it is fetched from anywhere.

The charts are drawn from the aggregates of `report`, so they can show no number that its
tables do not. plotly.js is part of the file (about 5 MB); a content security policy forbids the
page to reach for anything else.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from fastllm.drafters import untrained
from fastllm.evaluation import report
from fastllm.evaluation.measure import ALONE
from fastllm.evaluation.tables import Section, Table
from fastllm.words import capital

# Hues of Okabe and Ito, moved until they stand 3:1 against a white and a dark ground alike.
BEFORE, AFTER, UNTRAINED, OTHER, NEUTRAL = "#c47f00", "#2f87c9", "#1a9a78", "#a96fc4", "#7b8794"

HUES = (NEUTRAL, BEFORE, AFTER, UNTRAINED, OTHER, "#d5601f", "#6d8fd6", "#8f8a1c")
"""Of the lanes of one race, by the number of each, as the style sheet of the page has them."""

INK = "var(--ink)"
"""The colour of text; the page puts in what reads well on its ground."""

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "x")

Legend = tuple[tuple[str, str], ...]
"""Colours, and what they mean."""


class Panel(NamedTuple):
    """One figure of a chart."""

    caption: str
    figure: go.Figure


class Chart(NamedTuple):
    """What one question looks like.

    Attributes:
        key: unique in the page.
        title: the question.
        reading: how to read it, in a sentence.
        panels: figures, side by side where there is room.
        legend: of all panels.
        wide: whether a figure takes the whole width.
    """

    key: str
    title: str
    reading: str
    panels: tuple[Panel, ...]
    legend: Legend = ()
    wide: bool = False


def charts(summary: dict[str, Any]) -> list[Chart]:
    """Every chart of the report (`report.summarise`) that has anything to show."""
    headline, longest = summary["headline_gamma"], summary["gammas"][-1]
    settings = summary["settings"]
    found = [
        Chart(
            "calls",
            "How often is the target called?",
            f"Shorter is better: a bar is the mean number of target calls per article (gamma "
            f"{headline}; where texts are sampled, for as many tokens as the target alone wrote), "
            "the thin line on it the 95 % interval over articles.",
            _panels(settings, lambda setting: _calls_figure(setting, headline)),
        ),
        Chart(
            "pairs",
            "Does distillation save calls?",
            "A point is the target calls after distillation over those before, on the same "
            "articles: left of the dotted line it saves calls, and the difference is more than "
            "chance where the whole thin line (95 %) lies on one side.",
            _panels([setting for setting in settings if setting["pairs"]], _pairs_figure),
        ),
        Chart(
            "depth",
            "How deep into a draft does acceptance reach?",
            f"Solid: the measured chance that a draft (gamma {longest}) stands up to each "
            "position; dashed: alpha to the power of the position, as if every token had the same "
            "chance. Above the dashed line, hits come in runs.",
            tuple(
                Panel(
                    f"{_place(label, setting)}: alpha "
                    + " \N{RIGHTWARDS ARROW} ".join(
                        f"{setting['drafters'][name]['alpha']['value']:.2f}" for name in names
                    ),
                    _depth_figure(setting, names, longest),
                )
                for setting in settings
                for label, names in _groups(setting)
            ),
            _legend(summary),
        ),
        Chart(
            "tau",
            "Do longer drafts pay in tokens?",
            "Higher is better: tau is the tokens a call of the target, its own token counted, with "
            "95 % intervals; the dotted line, gamma + 1, is the most there can be. Where a line is "
            "flat, longer drafts only cost time.",
            tuple(
                Panel(_place(label, setting), _tau_figure(setting, names))
                for setting in settings
                for label, names in _groups(setting)
            ),
            _legend(summary),
        ),
        Chart(
            "speed",
            "Is the measured speed-up the predicted one?",
            "A filled point is one drafter at one gamma: across, the speed-up of decoding that its "
            "tau and the cost of a round predict, up, what the clock said; it should lie on the "
            "dotted diagonal, and saves time only above 1. Hollow: predicted from alpha alone.",
            _panels(settings, _speed_figure),
            wide=True,
        ),
    ]
    return [chart for chart in found if chart.panels and summary["drafters"]]


def page(summary: dict[str, Any]) -> str:
    """The whole report (`report.summarise`) as one HTML document."""
    return document(
        report.heading(summary), report.preamble(summary), charts(summary), report.sections(summary)
    )


def document(
    title: str, preamble: Sequence[str], shown: Sequence[Chart], sections: Sequence[Section]
) -> str:
    """A report as one HTML document: its title, then sentences, charts and tables."""
    title = html.escape(title)
    parts = [f"<h1>{title}</h1>", *(f"<p>{html.escape(line)}</p>" for line in preamble)]
    for chart in shown:
        parts += [
            f'<section id="{chart.key}"><h2>{html.escape(chart.title)}</h2>',
            f"<p>{html.escape(chart.reading)}</p>",
            *(
                f'<span class="key"><i style="background:{colour}"></i>'
                f"{html.escape(meaning)}</span>"
                for colour, meaning in chart.legend
            ),
            f'<div class="panels{" wide" if chart.wide else ""}">',
            *(_figure(chart, panel) for panel in chart.panels),
            "</div></section>",
        ]
    for section in sections:
        parts += [
            f"<section><h2>Numbers, {html.escape(section.title.lower())}</h2>",
            *(f"<p>{html.escape(sentence)}</p>" for sentence in section.sentences),
            *map(_table, section.tables),
            "</section>",
        ]
    body = "\n".join(parts)
    return _PAGE.format(title=title, body=body, plotly=get_plotlyjs(), style=_STYLE, script=_SCRIPT)


def bench_charts(summary: Mapping[str, Any]) -> list[Chart]:
    """Every chart of a benchmark (`fastllm.bench.report.summarise`) that has anything to show."""
    note = " Acceptance is simulated." if summary["acceptance"] != "measured" else ""
    settings = summary["settings"]
    drafted = [setting for setting in settings if _by_drafter(setting)]
    found = [
        Chart(
            "pace",
            "How fast does each lane write?",
            "Longer is better: a bar is the median of tokens a second, decoding alone, at the "
            "lane's fastest draft length, the thin line on it the middle half of the articles."
            + note,
            _panels(settings, _pace_figure),
        ),
        Chart(
            "gamma",
            "Which draft length pays?",
            "Up is better: the median speed-up of decoding over plain decoding, with the middle "
            "half of the articles; below the line at 1 a drafter costs more than it saves." + note,
            _panels(drafted, _gamma_figure),
            wide=True,
        ),
        Chart(
            "prediction",
            "Is the measured speed-up the predicted one?",
            "A point is one drafter at one gamma: across, what its tau, c and v predict, up, what "
            "the clock said. On the dotted diagonal they agree." + note,
            _panels(drafted, _prediction_figure),
            wide=True,
        ),
    ]
    return [chart for chart in found if chart.panels]


def _panels(
    settings: Sequence[dict[str, Any]], figure: Callable[[dict[str, Any]], go.Figure]
) -> tuple[Panel, ...]:
    """A figure for each setting, which its caption names."""
    return tuple(Panel(capital(report.setting_label(one)), figure(one)) for one in settings)


# Figures.


def _calls_figure(setting: dict[str, Any], gamma: int) -> go.Figure:
    rows = {ALONE: setting["alone"]["target_calls"]} | {
        name: drafter["gammas"][str(gamma)]["target_calls"]
        for name, drafter in setting["drafters"].items()
    }
    labels, colours = map(report.lane_label, rows), map(_colour, rows)
    return _bar_figure(
        list(labels), list(rows.values()), list(colours), "target calls per article", digits=1
    )


def _pace_figure(setting: Mapping[str, Any]) -> go.Figure:
    best = setting["best_gamma"]
    lanes = [
        lane
        for lane in setting["lanes"]
        if lane["error"] is None and best.get(lane["name"], "") == lane["gamma"]
    ]
    gammas = ["" if lane["gamma"] is None else f", gamma {lane['gamma']}" for lane in lanes]
    return _bar_figure(
        [lane["label"] + gamma for lane, gamma in zip(lanes, gammas, strict=True)],
        _estimates([lane["tokens_per_second"]["decoding"] for lane in lanes]),
        [_colour(lane["name"]) for lane in lanes],
        "tokens per second",
        digits=0,
    )


def _bar_figure(
    labels: Sequence[str],
    found: Sequence[Mapping[str, float]],
    colours: Sequence[str],
    title: str,
    digits: int,
) -> go.Figure:
    """A horizontal bar for each lane, with its range and its number at the end of it."""
    figure = go.Figure()
    figure.add_bar(
        y=labels,
        x=[entry["value"] for entry in found],
        orientation="h",
        marker={"color": colours},
        error_x=_bars(found),
        hovertemplate=f"%{{y}}: %{{x:.{digits}f}} {title}<extra></extra>",
    )
    figure.add_scatter(
        y=labels,
        x=[entry["high"] for entry in found],
        text=[f" {entry['value']:.{digits}f}" for entry in found],
        mode="text",
        textposition="middle right",
        hoverinfo="skip",
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title=title, range=[0, 1.2 * max(entry["high"] for entry in found)])
    return _finished(figure, 80 + 30 * len(found))


def _pairs_figure(setting: dict[str, Any]) -> go.Figure:
    rows = [
        (f"{report.family_label(family)}, gamma {gamma}", entry["target_calls_ratio"])
        for family, pair in setting["pairs"].items()
        for gamma, entry in pair["gammas"].items()
    ]
    figure = go.Figure()
    figure.add_scatter(
        y=[label for label, _ in rows],
        x=[estimate["value"] for _, estimate in rows],
        mode="markers",
        marker={"color": AFTER, "size": 9},
        error_x=_bars([estimate for _, estimate in rows]),
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    figure.add_vline(x=1, line={"dash": "dot", "color": NEUTRAL})
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="target calls, after / before")
    return _finished(figure, 80 + 30 * len(rows))


def _depth_figure(setting: dict[str, Any], names: Sequence[str], gamma: int) -> go.Figure:
    figure = go.Figure()
    for name in names:
        drafter = setting["drafters"][name]
        reached = [p["reached"] for p in drafter["gammas"][str(gamma)]["acceptance_by_position"]]
        style = {"color": _colour(name)}
        _add_reached(
            figure, report.lane_label(name), reached, drafter["alpha"]["value"], gamma, style
        )
    figure.update_xaxes(title="draft position", dtick=1, range=[0.8, gamma + 0.2])
    figure.update_yaxes(title="accepted up to here", range=[0, 1.03])
    return _finished(figure, 270)


def _add_reached(
    figure: go.Figure,
    label: str,
    reached: Sequence[float],
    alpha: float,
    gamma: int,
    style: Mapping[str, str],
    dash: str = "dash",
) -> None:
    """How far drafts stand, measured, and beside it, dashed, what alpha alone would say."""
    hover = f"{label}, position %{{x}}: %{{y:.2f}}"
    _add_points(figure, label, range(1, len(reached) + 1), reached, style, hover)
    places = list(range(1, gamma + 1))
    figure.add_scatter(
        x=places,
        y=[alpha**place for place in places],
        name=f"alpha {alpha:.2f} ^ position",
        mode="lines",
        line={"color": style["color"], "dash": dash, "width": 1.5},
        hovertemplate="alpha^%{x}: %{y:.2f}<extra></extra>",
    )


def _tau_figure(setting: dict[str, Any], names: Sequence[str]) -> go.Figure:
    figure = go.Figure()
    gammas = [int(gamma) for gamma in setting["drafters"][names[0]]["gammas"]]
    for name in names:
        found = [lane["tau"] for lane in setting["drafters"][name]["gammas"].values()]
        _add_over_gamma(figure, report.lane_label(name), gammas, found, {"color": _colour(name)})
    _add_dotted(figure, "gamma + 1", gammas, [gamma + 1 for gamma in gammas])
    figure.update_xaxes(title="gamma, the draft length", tickvals=gammas)
    figure.update_yaxes(title="tau", rangemode="tozero")
    return _finished(figure, 270)


def _gamma_figure(setting: Mapping[str, Any]) -> go.Figure:
    figure = go.Figure()
    gammas: list[int] = []
    for place, (name, lanes) in enumerate(_by_drafter(setting).items()):
        gammas = [lane["gamma"] for lane in lanes]
        ratios = _estimates([lane["over"]["alone"]["decoding"] for lane in lanes])
        _add_over_gamma(figure, lanes[0]["label"], gammas, ratios, _style(name, place))
    figure.add_hline(y=1, line={"color": NEUTRAL, "dash": "dot"})
    figure.update_xaxes(title="gamma, the draft length", tickvals=gammas)
    figure.update_yaxes(title="speed-up over plain", rangemode="tozero")
    return _with_legend(_finished(figure, 460))


def _add_over_gamma(
    figure: go.Figure,
    label: str,
    gammas: Sequence[int],
    found: Sequence[Mapping[str, float]],
    style: Mapping[str, str],
) -> None:
    values = [entry["value"] for entry in found]
    hover = f"{label}, gamma %{{x}}: %{{y:.2f}}"
    _add_points(figure, label, gammas, values, style, hover, error_y=_bars(found))


def _speed_figure(setting: dict[str, Any]) -> go.Figure:
    figure = go.Figure()
    most = 1.0
    for place, (_, names) in enumerate(_groups(setting)):
        for name in names:
            lanes = setting["drafters"][name]["gammas"]
            measured = [lane["speed_up_decoding"]["value"] for lane in lanes.values()]
            for source in ("tau", "alpha"):
                predicted = [lane["expected"][f"speed_up_from_{source}"] for lane in lanes.values()]
                most = max(most, *predicted, *measured)
                _add_predicted(
                    figure,
                    report.lane_label(name),
                    predicted,
                    measured,
                    list(lanes),
                    _style(name, place, hollow=source == "alpha"),
                    legendgroup=name,
                )
    figure.add_hline(y=1, line={"color": NEUTRAL, "width": 1})
    return _with_diagonal(figure, 1.05 * most)


def _prediction_figure(setting: Mapping[str, Any]) -> go.Figure:
    figure = go.Figure()
    most = 1.0
    for place, (name, lanes) in enumerate(_by_drafter(setting).items()):
        predicted = [lane["predicted"]["decoding"]["median"] for lane in lanes]
        measured = [lane["over"]["alone"]["decoding"]["median"] for lane in lanes]
        most = max(most, *predicted, *measured)
        gammas = [lane["gamma"] for lane in lanes]
        style = _style(name, place)
        _add_predicted(figure, lanes[0]["label"], predicted, measured, gammas, style)
    return _with_diagonal(figure, 1.05 * most)


def _add_predicted(
    figure: go.Figure,
    label: str,
    predicted: Sequence[float],
    measured: Sequence[float],
    gammas: Sequence[Any],
    style: Mapping[str, str],
    **more: Any,
) -> None:
    """A point for each gamma; a hollow one is predicted from alpha, and not in the legend."""
    hollow = style["symbol"].endswith("-open")
    hover = f"{label}, gamma %{{customdata}}: predicted %{{x:.2f}}"
    hover += f"{' from alpha' if hollow else ''}, measured %{{y:.2f}}"
    more |= {"customdata": gammas, "mode": "markers", "showlegend": not hollow}
    _add_points(figure, label, predicted, measured, style, hover, **more)


def _add_points(
    figure: go.Figure,
    label: str,
    x: Sequence[float],
    y: Sequence[float],
    style: Mapping[str, str],
    hover: str,
    **more: Any,
) -> None:
    """Points and, unless `mode` says otherwise, a line through them."""
    colour = style["color"]
    figure.add_scatter(
        x=list(x),
        y=list(y),
        name=label,
        line={"color": colour},
        marker={
            "color": colour,
            "symbol": style.get("symbol", "circle"),
            "size": 9,
            "line": {"width": 1.5, "color": colour},
        },
        hovertemplate=hover + "<extra></extra>",
        **{"mode": "lines+markers", **more},
    )


def _with_diagonal(figure: go.Figure, most: float) -> go.Figure:
    """Measured against predicted speed-ups, with the line on which they agree."""
    _add_dotted(figure, "as predicted", [0, most], [0, most])
    figure.update_xaxes(title="predicted speed-up", range=[0, most])
    figure.update_yaxes(title="measured speed-up", range=[0, most])
    return _with_legend(_finished(figure, 520))


def _add_dotted(figure: go.Figure, name: str, x: Sequence[float], y: Sequence[float]) -> None:
    """A line that others are compared with; of one point a dash."""
    figure.add_scatter(
        x=x,
        y=y,
        name=name,
        mode="lines" if len(x) > 1 else "markers",
        line={"color": NEUTRAL, "dash": "dot"},
        marker={"color": NEUTRAL, "symbol": "line-ew-open"},
        hoverinfo="skip",
    )


def _by_drafter(setting: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Of a benchmark: the name of each drafter -> its lanes by draft length."""
    found: dict[str, list[dict[str, Any]]] = {}
    for lane in setting["lanes"]:
        if lane.get("predicted"):
            found.setdefault(lane["name"], []).append(lane)
    return found


def _estimates(spreads: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Medians and quartiles in the form of estimates and their ranges."""
    return [{**spread, "value": spread["median"]} for spread in spreads]


def _with_legend(figure: go.Figure) -> go.Figure:
    """A legend in a row below the figure, for which a margin is left."""
    row = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}
    return figure.update_layout(
        showlegend=True, legend={**row, "traceorder": "normal"}, margin_b=130
    )


def _finished(figure: go.Figure, height: int) -> go.Figure:
    """What all figures share; ink and grid come from the page, which knows light from dark."""
    return figure.update_layout(
        template=go.layout.Template(),
        height=height,
        margin={"l": 55, "r": 20, "t": 10, "b": 45},
        showlegend=False,
    )


def _bars(estimates: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [entry["high"] - entry["value"] for entry in estimates],
        "arrayminus": [entry["value"] - entry["low"] for entry in estimates],
        "color": INK,
        "thickness": 1.2,
        "width": 4,
    }


def _groups(setting: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """(label, lanes) of what belongs into one panel: a pair, or a lane that has no partner."""
    pairs: list[tuple[str, tuple[str, ...]]] = [
        (report.family_label(family), (pair["before"], pair["after"]))
        for family, pair in setting["pairs"].items()
    ]
    paired = {name for _, names in pairs for name in names}
    single = [name for name in setting["drafters"] if name not in paired]
    return [(report.lane_label(name), (name,)) for name in single] + pairs


def _colour(name: str) -> str:
    if name.endswith("-before"):
        return BEFORE
    if name.endswith("-after"):
        return AFTER
    if name in untrained():
        return UNTRAINED
    return NEUTRAL if name == ALONE else OTHER


def _style(name: str, place: int, *, hollow: bool = False) -> dict[str, str]:
    """A colour by what the lane is, a symbol by its place among the lanes."""
    symbol = _SYMBOLS[place % len(_SYMBOLS)]
    return {"color": _colour(name), "symbol": symbol + "-open" * hollow}


def _legend(summary: dict[str, Any]) -> Legend:
    """What the colours of the lanes that are there mean."""
    meanings = {
        BEFORE: "before distillation",
        AFTER: "after distillation",
        UNTRAINED: "no training",
        OTHER: "other",
    }
    used = {_colour(name) for name in summary["drafters"]}
    return tuple((colour, meaning) for colour, meaning in meanings.items() if colour in used)


def _place(label: str, setting: dict[str, Any]) -> str:
    """Whose panel it is, in few words."""
    temperature = setting["temperature"]
    lossy = ", lossy" if setting["lossy"] else ""
    return f"{label.split(',')[0]}, {f'T = {temperature:g}' if temperature else 'greedy'}{lossy}"


# The page.


def _figure(chart: Chart, panel: Panel) -> str:
    """A panel; nothing in its script element can end it."""
    named = html.escape(f"{chart.title} {panel.caption}")
    drawn = str(panel.figure.to_json()).replace("<", "\\u003c")
    return (
        f"<figure><figcaption>{html.escape(panel.caption)}</figcaption>"
        f'<div class="chart" style="height:{int(panel.figure.layout.height)}px" role="img" '
        f'aria-label="{named}"><script type="application/json">{drawn}</script></div></figure>'
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    return (
        f"<h3>{html.escape(table.title)}</h3><p>{html.escape(table.note)}</p>"
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #16202c; --soft: #526070; --ground: #ffffff;
  --card: #f6f8fa; --line: #d3dae3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e9eef4; --soft: #a7b3c1; --ground: #10161e; --card: #18202b; --line: #354152; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 1.2rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 0.6rem; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 0.2rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 0; }
p { margin: 0.3rem 0; color: var(--soft); max-width: 75ch; }
.panels { display: grid; gap: 0.8rem; margin-top: 0.7rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 370px), 1fr)); }
.panels:not(:has(figure:nth-child(3))), .wide {
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 540px), 1fr)); }
figure { margin: 0; padding: 0.7rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; min-width: 0; }
.key { display: inline-flex; align-items: center; gap: 0.4rem; margin-right: 1.2rem; }
.key i { width: 1.4rem; height: 0.3rem; border-radius: 2px; }
figcaption { font-weight: 600; }
.scroll { overflow-x: auto; margin-top: 0.5rem; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem 0.25rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { white-space: normal; vertical-align: bottom; color: var(--soft); }
"""

_SCRIPT = """
const dark = matchMedia('(prefers-color-scheme: dark)');
const charts = [...document.querySelectorAll('.chart')].map(place => {
  const json = place.querySelector('script').textContent;
  place.replaceChildren();
  return {place, json};
});
function draw() {
  const style = getComputedStyle(document.documentElement);
  const [ink, line, card] = ['ink', 'line', 'card'].map(
    name => style.getPropertyValue('--' + name).trim());
  const axis = {gridcolor: line, linecolor: line, zerolinecolor: line, title: {font: {size: 13}}};
  const template = {layout: {
    font: {color: ink, family: 'system-ui, sans-serif', size: 13}, xaxis: axis, yaxis: axis,
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    hoverlabel: {bgcolor: card, bordercolor: line, font: {color: ink}},
  }};
  for (const {place, json} of charts) {
    const {data, layout} = JSON.parse(json.replaceAll('"var(--ink)"', JSON.stringify(ink)));
    Plotly.react(place, data, {...layout, template}, {displayModeBar: false, responsive: true});
  }
}
draw();
dark.addEventListener('change', draw);
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script id="plotly">{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


# A single race, for the page that shows it. Plain numbers come in, one mapping a lane.


_Styled = Sequence[tuple[Mapping[str, Any], dict[str, str]]]
"""Lanes, and how they are drawn."""

_DASHES = {"solid": "", "dash": "/", "dot": ".", "dashdot": "x"}
"""Of lines that share a colour, and the pattern of bars that goes with each."""

_PARTS = {"encoding": "", "draft": "/", "verify": ".", "rest": "x"}
"""A lane's time by what it went into, and the pattern of each: its colour is the lane's."""

_TO_ONE = {"range": [0, 1.03]}
_FROM_ZERO = {"rangemode": "tozero"}


def race_figures(lanes: Sequence[Mapping[str, Any]]) -> dict[str, go.Figure]:
    """The figures of one race, by name; those that need a lane that was not raced say so.

    Args:
        lanes: of each lane `key`, `title` and `hue`, the number of its colour; `clock` and
            `written`, seconds and tokens behind each call, from the encoding on; `reached`, the
            chance that a draft stands up to each position, `alpha` and `gamma`; `gains`, the
            share of calls that gave 1, 2, ... tokens;
            `places` and `overlap`, along the text; `parts`, milliseconds by name; `speed_up`,
            ratios by name. Empty where a lane has nothing to show.
    """
    styled = list(zip(lanes, _styles(lanes), strict=True))
    drafting = [(lane, style) for lane, style in styled if lane["reached"]]
    reached = go.Figure()
    for lane, style in drafting:
        depth = lane["reached"]
        _add_reached(reached, lane["title"], depth, lane["alpha"], len(depth), style, "dot")
    return {
        "clock": _of_a_race(
            _lines(styled, "clock", "written", ": %{y} tokens at %{x:.3f} s", "hv"),
            {"title": "seconds on the lane's own clock", **_FROM_ZERO},
            {"title": "tokens written", **_FROM_ZERO},
        ),
        "reached": _of_a_race(
            reached,
            {"title": "draft position", "dtick": 1},
            {"title": "accepted up to here", **_TO_ONE},
        ),
        "gains": _of_a_race(
            _gains(styled),
            {"title": "tokens a call", "dtick": 1},
            {"title": "share of the calls", "tickformat": ".0%", **_FROM_ZERO},
        ),
        "overlap": _of_a_race(
            _lines(drafting, "places", "overlap", ", token %{x}: %{y:.2f}"),
            {"title": "token of the text", **_FROM_ZERO},
            {"title": "overlap, mean over five", **_TO_ONE},
        ),
        "parts": _of_a_race(
            _parts(styled),
            {"title": "milliseconds"},
            {"autorange": "reversed", "automargin": True},
        ),
        "speed_up": _speed_up([(lane, style) for lane, style in styled if lane["speed_up"]]),
    }


def _styles(lanes: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each lane's own colour; lanes of one colour differ in dash and symbol."""
    seen: dict[str, int] = {}
    styles = []
    for lane in lanes:
        colour = HUES[lane["hue"]]
        place = seen[colour] = seen.get(colour, -1) + 1
        dash = list(_DASHES)[place % len(_DASHES)]
        styles.append({"color": colour, "symbol": _SYMBOLS[place % len(_SYMBOLS)], "dash": dash})
    return styles


def _lines(lanes: _Styled, x: str, y: str, hover: str, shape: str = "linear") -> go.Figure:
    figure = go.Figure()
    for lane, style in lanes:
        figure.add_scatter(
            x=lane[x],
            y=lane[y],
            name=lane["title"],
            mode="lines",
            line={"color": style["color"], "dash": style["dash"], "shape": shape},
            hovertemplate=f"{lane['title']}{hover}<extra></extra>",
        )
    return figure


def _gains(lanes: _Styled) -> go.Figure:
    figure = go.Figure()
    for lane, style in lanes:
        title, pattern = lane["title"], {"shape": _DASHES[style["dash"]]}
        places = list(range(1, len(lane["gains"]) + 1))
        hover = f"{title}: %{{y:.0%}} of calls gave %{{x}}"
        _add_bars(figure, title, places, lane["gains"], style["color"], pattern, hover)
    return figure


def _parts(lanes: _Styled) -> go.Figure:
    figure = go.Figure(layout={"barmode": "stack"})
    titles, colours = [lane["title"] for lane, _ in lanes], [style["color"] for _, style in lanes]
    for name, shape in _PARTS.items():
        took = [lane["parts"].get(name, 0.0) for lane, _ in lanes]
        pattern, hover = {"shape": shape, "fillmode": "overlay"}, f"%{{y}}, {name}: %{{x:.1f}} ms"
        _add_bars(figure, name, took, titles, colours, pattern, hover, orientation="h")
    return figure.update_traces(marker_line={"width": 1, "color": NEUTRAL})


def _speed_up(lanes: _Styled) -> go.Figure:
    figure = go.Figure()
    if not lanes:
        middle = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
        figure.add_annotation(text="Race a drafter to its end.", **middle)
        return _of_a_race(figure, {"visible": False}, {"visible": False})
    titles, colours = [lane["title"] for lane, _ in lanes], [style["color"] for _, style in lanes]
    for name, shape in (("predicted", "/"), ("measured", "")):
        ratios = [lane["speed_up"][name] for lane, _ in lanes]
        pattern, hover = {"shape": shape, "fillmode": "replace"}, f"%{{x}}, {name}: %{{y:.2f}}"
        _add_bars(figure, name, titles, ratios, colours, pattern, hover)
    figure.add_hline(y=1, line={"dash": "dot", "color": NEUTRAL})
    return _of_a_race(figure, {}, {"title": "speed-up, reading counted in", **_FROM_ZERO})


def _add_bars(
    figure: go.Figure,
    name: str,
    x: Sequence[Any],
    y: Sequence[Any],
    colour: str | Sequence[str],
    pattern: Mapping[str, str],
    hover: str,
    **more: Any,
) -> None:
    marker = {"color": colour, "pattern": pattern}
    figure.add_bar(
        x=x, y=y, name=name, marker=marker, hovertemplate=hover + "<extra></extra>", **more
    )


def _of_a_race(figure: go.Figure, x: dict[str, Any], y: dict[str, Any]) -> go.Figure:
    """Axes, and a legend above them: below it would cover their titles on a phone."""
    figure.update_xaxes(title_standoff=8, automargin=True, **x)
    figure.update_yaxes(**y)
    return _finished(figure, 360).update_layout(
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        template=None,  # the page's own, light or dark
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
