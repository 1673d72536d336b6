"""How the drafters on the page were trained: their cards and curves, ready to be drawn."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastllm import checkpoints
from fastllm.demo import texts
from fastllm.drafters.cost import bytes_in

CURVES = {"tau": "validation_tau", "alpha": "validation_alpha"}
"""Name of a curve -> its entry in training.jsonl."""


def summarise(lanes: Sequence[str]) -> dict[str, Any]:
    """Families with a card, in the order of the page: pairs together.

    Args:
        lanes: the keys on offer.

    Returns:
        {"target": facts, "families": [{"title", "facts": [[label, value of each], ...], "lanes":
        [title, ...], "curves": {name: [[[update, value], ...] of each]}}]}. Every value is text.
    """
    families: dict[str, list[str]] = {}
    for key in lanes:
        if checkpoints.read_card(key) and key != texts.ALONE:
            families.setdefault(key.removesuffix("-before").removesuffix("-after"), []).append(key)
    return {
        "target": _target(checkpoints.read_card(checkpoints.TARGET)),
        "families": [_family(keys) for keys in families.values()],
    }


def dumps(lanes: Sequence[str]) -> str:
    """`summarise` as JSON."""
    return json.dumps(summarise(lanes), ensure_ascii=False)


def _family(keys: Sequence[str]) -> dict[str, Any]:
    cards = [checkpoints.read_card(key) for key in keys]
    columns = [_facts(key, card) for key, card in zip(keys, cards, strict=True)]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    curves = [_curves(key) for key in keys]
    return {
        "title": texts.family_of(keys[0]),
        "lanes": [texts.title_of(key) for key in keys],
        "keys": list(keys),
        "facts": [[label, *(column.get(label, "") for column in columns)] for label in labels],
        "curves": {
            name: [curve[name] for curve in curves]
            for name in CURVES
            if any(curve[name] for curve in curves)
        },
    }


def _facts(key: str, card: Mapping[str, Any]) -> dict[str, str]:
    """What a card says, and what its folder weighs, label -> text; the unknown is left out."""
    recipe, method = card.get("recipe") or {}, card.get("method") or {}
    validation, teacher = card.get("validation") or {}, card.get("teacher_tokens") or {}
    words = texts.TRAINED_FACTS
    found = {
        words["method"]: method.get("name"),
        words["loss"]: method.get("loss"),
        words["texts"]: card.get("texts"),
        words["articles"]: card.get("articles"),
        words["updates"]: recipe.get("updates"),
        words["batch"]: recipe.get("batch"),
        words["rate"]: recipe.get("learning_rate"),
        words["start"]: card.get("start"),
        words["seed"]: recipe.get("seed"),
        words["order"]: method.get("order"),
        words["smoothing"]: method.get("smoothing"),
        words["parameters"]: card.get("parameters"),
        words["entries"]: sum(card.get("entries") or []) or None,
        words["bytes"]: bytes_in(checkpoints.SHIPPED / key) or None,
        words["seconds"]: card.get("seconds"),
        words["written"]: teacher.get("written"),
        words["scored"]: teacher.get("scored"),
        words["alpha"]: validation.get("alpha"),
        words["tau"]: validation.get("tau"),
    }
    return {label: _text(value) for label, value in found.items() if value not in (None, "")}


def _target(card: Mapping[str, Any]) -> list[list[str]]:
    """Label and text of each fact of the shipped target."""
    words = texts.TRAINED_FACTS
    found = {
        words["name"]: card.get("name"),
        words["architecture"]: card.get("architecture"),
        words["parameters"]: card.get("parameters"),
        words["bytes"]: bytes_in(checkpoints.SHIPPED / checkpoints.TARGET) or None,
        words["data"]: card.get("data"),
        words["status"]: card.get("status"),
        words["limits"]: "; ".join(card.get("limits") or []),
    }
    return [[label, _text(value)] for label, value in found.items() if value not in (None, "")]


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
