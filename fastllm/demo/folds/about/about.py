"""What the words mean, what runs here, how to use it elsewhere, and where it comes from."""

import html
import os
from collections.abc import Sequence

from fastllm import checkpoints
from fastllm.demo.context import PageContext
from fastllm.demo.folds.about import words
from fastllm.demo.head import host
from fastllm.demo.parts import heading, shown, table
from fastllm.demo.words import ALONE, choice_of, family_of, parts_of, runs_on, size_of
from fastllm.drafters import families
from fastllm.drafters.cost import bytes_in

LOCAL = "http://127.0.0.1:7860"
"""Where the page is by default, for the code that asks it."""


def add(context: PageContext) -> None:
    """Adds the tab's parts, from top to bottom."""
    heading(words.GLOSSARY_TITLE)
    entries = "".join(f"<dt>{name}</dt><dd>{what}</dd>" for name, what in words.GLOSSARY)
    shown(f'<dl class="fl-glossary">{entries}</dl>')
    heading(words.MODELS_TITLE)
    about = context.engine.about
    rows = [list(map(html.escape, row)) for row in models(context.engine.keys, about["target"])]
    shown(table(words.MODELS_HEADER, rows, words.MODELS_TITLE, "fl-facts"))
    told = words.RUNS.format(about["held"], runs_on(about))
    shown(f'<p class="fl-soft">{html.escape(told)}</p>')
    heading(words.TAKE_TITLE)
    where = host()
    address = f"https://{where}" if where else LOCAL
    for title, code in (
        (words.INSTALL, words.INSTALL_CODE),
        (words.API, words.API_CODE.format(address=address)),
        (words.DEPLOY, words.DEPLOY_CODE.format(address=address)),
    ):
        shown(
            f'<h3 class="fl-plot-title">{title}</h3><pre class="fl-code" tabindex="0" '
            f'aria-label="{title}">{html.escape(code)}</pre>'
        )
    shown(f'<p class="fl-soft">{html.escape(words.API_NOTE)}</p>{_links()}')
    heading(words.REFERENCES_TITLE)
    links = "".join(
        f'<li><a href="{link}" target="_blank" rel="noopener">{who}</a>: {what}</li>'
        for who, link, what in words.REFERENCES
    )
    shown(f'<ul class="fl-references">{links}</ul>')


def models(keys: Sequence[str], target: str) -> list[tuple[str, ...]]:
    """A row of text for the target, then one for each family, in the order of the page."""
    card = checkpoints.read_card(target)
    name = f"{words.TARGET}: {card.get('name', target)}"
    architecture = str(card.get("architecture", ""))
    rows: list[tuple[str, ...]] = [(name, architecture, size_of(ALONE, target), _bytes(target))]
    specs = families()
    seen = set()
    for key in keys:
        family = key.removesuffix("-before").removesuffix("-after")
        if key == ALONE or family in seen or len(parts_of(key)) > 1:
            continue
        seen.add(family)
        paired = {f"{family}-before", f"{family}-after"} <= set(keys)
        title = words.PAIR.format(family_of(key)) if paired else choice_of(key)
        what = specs[family].description if family in specs else ""
        rows.append((title, what, size_of(key, target), _bytes(key)))
    return rows


def _bytes(name: str) -> str:
    folder = checkpoints.SHIPPED / name
    weight = bytes_in(folder) if folder.is_dir() else 0
    return words.MEGABYTES.format(weight / 1e6) if weight else ""


def _links() -> str:
    """Links to the code, the cards and a copy of the Space that this page is; empty elsewhere."""
    space = os.environ.get("SPACE_ID", "")
    if not space:
        return ""
    links = (
        f'<a href="{html.escape(f"https://huggingface.co/spaces/{space}{path}")}" '
        f'target="_blank" rel="noopener">{title}</a>'
        for title, path in words.LINKS
    )
    return f"<p>{' · '.join(links)}</p>"
