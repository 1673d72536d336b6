"""How the drafters on the page were trained: their cards and curves, ready to be drawn."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from fastllm import checkpoints
from fastllm.demo.context import PageContext
from fastllm.demo.folds.trained import words
from fastllm.demo.parts import heading, scripted, view
from fastllm.demo.words import ALONE, family_of, title_of
from fastllm.drafters.cost import bytes_in

CURVES = {"tau": "validation_tau", "alpha": "validation_alpha"}
"""Name of a curve -> its entry in training.jsonl."""


def add(context: PageContext, tab: gr.Tab) -> None:
    """Adds the cards, which are filled when their tab is opened."""
    heading(words.TITLE)
    cards = view("fl-cards", scripted("folds/trained/trained.js", words.BROWSER))
    tab.select(
        lambda: json.dumps(summarise(context.engine.keys), ensure_ascii=False),
        None,
        cards,
        api_visibility="private",
    )


def summarise(lanes: Sequence[str]) -> dict[str, Any]:
    """Families with a card, in the order of the lanes on offer: pairs together.

    Returns:
        {"target": facts, "families": [{"title", "facts": [[label, value of each], ...], "lanes":
        [title, ...], "curves": {name: [[[update, value], ...] of each]}}]}. Every value is text.
    """
    families: dict[str, list[str]] = {}
    for key in lanes:
        if checkpoints.read_card(key) and key != ALONE:
            families.setdefault(key.removesuffix("-before").removesuffix("-after"), []).append(key)
    return {
        "target": list(map(list, _facts(checkpoints.TARGET, words.TARGET_FACTS).items())),
        "families": [_family(keys) for keys in families.values()],
    }


def _family(keys: Sequence[str]) -> dict[str, Any]:
    columns = [_facts(key, words.FACTS) for key in keys]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    curves = [_curves(key) for key in keys]
    return {
        "title": family_of(keys[0]),
        "lanes": [title_of(key) for key in keys],
        "keys": list(keys),
        "facts": [[label, *(column.get(label, "") for column in columns)] for label in labels],
        "curves": {
            name: [curve[name] for curve in curves]
            for name in CURVES
            if any(curve[name] for curve in curves)
        },
    }


def _facts(key: str, labels: Mapping[str, str]) -> dict[str, str]:
    """What a card says, and what its folder weighs, label -> text; the unknown is left out."""
    card = checkpoints.read_card(key)
    card |= {
        "entries": sum(card.get("entries") or []) or None,
        "bytes": bytes_in(checkpoints.SHIPPED / key) or None,
        "limits": "; ".join(card.get("limits") or []),
    }
    found = {}
    for path, label in labels.items():
        value: Any = card
        for part in path.split("."):
            value = (value or {}).get(part)
        if value not in (None, ""):
            named = path in ("method.name", "method.loss")
            found[label] = words.VALUES.get(value, str(value)) if named else _text(value)
    return found


def _curves(key: str) -> dict[str, list[list[float]]]:
    curves: dict[str, list[list[float]]] = {name: [] for name in CURVES}
    path = checkpoints.SHIPPED / key / "training.jsonl"
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            for name, column in CURVES.items():
                if column in entry:
                    curves[name].append([entry["step"], round(entry[column], 4)])
    return curves


def _text(value: Any) -> str:
    """A number as people write it: 1,914,209 or 0.731."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
