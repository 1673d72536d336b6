"""What a visitor takes home beside the record itself: the code that runs the same race again."""

from collections.abc import Sequence

from fastllm import checkpoints
from fastllm.demo.words import YOURS, title_of
from fastllm.trace import Trace, config_defaults

ARTICLE = "{article}"
"""Stands in the code where the browser puts the article, quoted: it has it already."""


def code(lanes: Sequence[str], traces: Sequence[Trace]) -> str:
    """A program that writes the same summaries; empty where there are none.

    A lane whose drafter was trained in view is left out: the drafter is gone.
    """
    if not traces:
        return ""
    first = traces[0]
    defaults = config_defaults()
    given = {name: getattr(first.config, name) for name in defaults}
    for name in first.config.LEFT_TO_TARGET:  # the target knows its own numbers
        del given[name]
    if first.config.temperature == 0:  # "auto" comes to the same rule
        del given["verification"]
    settings = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
    if not checkpoints.ships(first.target):
        settings.insert(0, f"target={first.target!r}")
    drafters = ", ".join(
        repr(key) if trace.drafter else "None"
        for key, trace in zip(lanes, traces, strict=True)
        if not key.endswith(YOURS)
    )
    gone = [title_of(key) for key in lanes if key.endswith(YOURS)]
    note = "".join(f"# Left out: {title}. Its weights were not kept.\n" for title in gone)
    call = ", ".join(["article", "drafter=drafter", *settings])
    return f"""import fastllm  # installed by "pip install ." in a clone of the repository

article = {ARTICLE}

{note}for drafter in ({drafters},):  # None is the target alone
    trace = fastllm.generate({call})
    print(drafter, len(trace.rounds), "target calls:", trace.text)
"""
