"""The temperature that a drafter drafts best at: `python -m tools.draft_temperature NAME ...`.

The target writes texts at temperature 1, and at each of their places the drafter is asked for its
distribution q at several temperatures. The chance that a token drawn from q is accepted is
sum min(p, q); its mean over all places is alpha, and the temperature of the largest alpha is the
best. `--write` keeps it in the drafter's `config.json`, where `load_drafter` finds it. Settings are
chosen on validation articles, never on those that a table is about.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from fastllm.checkpoints import SHIPPED, load_drafter, load_target, read_config
from fastllm.cli.options import add_device_argument
from fastllm.cli.output import quiet
from fastllm.data.articles import Article, read_articles
from fastllm.decoding import autoregress
from fastllm.decoding.distributions import distribution, forbid
from fastllm.decoding.rules import Rules
from fastllm.drafters import Drafter
from fastllm.errors import DataError, SettingsError
from fastllm.evaluation.measure import distributions_along
from fastllm.evaluation.tables import grid
from fastllm.targets import Encoding, Target, resolve
from fastllm.trace import DecodingConfig
from tools.common import tool

TEMPERATURES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
"""Those that are tried."""

SAMPLING = DecodingConfig(temperature=1.0)
"""How the texts are written."""


def alphas(
    target: Target,
    drafters: Mapping[str, Drafter],
    articles: Sequence[Article],
    temperatures: Sequence[float] = TEMPERATURES,
    config: DecodingConfig = SAMPLING,
) -> dict[str, dict[float, float]]:
    """Of each drafter the mean of sum min(p, q) over all places, by the temperature of drafts.

    Text number i is written with the seed `config.seed` + i.

    Raises:
        DataError: there is no article.
        SettingsError: a drafter has no probabilities, as the lookup.
    """
    if not articles:
        raise DataError("there is no article: give a file that holds some.")
    sums = {name: dict.fromkeys(temperatures, 0.0) for name in drafters}
    places = 0
    for number, article in enumerate(articles):
        own = resolve(replace(config, seed=config.seed + number), target)
        ids = target.vocabulary.encode(article.text, target.source_length, target.prefix).ids
        encoding = target.encode(ids)
        rounds = autoregress(
            target.begin(encoding),
            own,
            start_id=target.start_id,
            end_id=target.end_ids,
            statistics=False,
        )
        written = [token for entry in rounds for token in entry.tokens]
        text, p = distributions_along(target, encoding, written, own)
        places += len(written)
        banned = Rules(target.end_ids).along(text[:1], text[1:-1], own)
        for name, drafter in drafters.items():
            logits = forbid(rows_along(drafter, encoding, text).log(), banned)
            for temperature in temperatures:
                q = distribution(logits, own.drafting(temperature))
                sums[name][temperature] += float(torch.minimum(p, q).sum())
    return {
        name: {temperature: value / places for temperature, value in by.items()}
        for name, by in sums.items()
    }


def rows_along(drafter: Drafter, encoding: Encoding, text: Sequence[int]) -> torch.Tensor:
    """The drafter's distributions of `text[1:]` at temperature 1, shape (len(text) - 1, V).

    Raises:
        SettingsError: it has none.
    """
    session, unused = drafter.begin(encoding), torch.zeros(1, dtype=torch.float64)
    rows = []
    for place in range(1, len(text)):
        draft = session.draft(text[:place], 1, DecodingConfig(), unused)
        row = None if draft.unwarped is None else draft.unwarped(0)
        if row is None:
            raise SettingsError(
                f"{drafter.name} has no probabilities, so that no temperature changes its drafts: "
                "leave it out."
            )
        rows.append(row)
        session.accept([text[place]])
    return torch.stack(rows)


def best(by_temperature: Mapping[float, float]) -> float:
    """The temperature of the largest alpha; of equals the one nearest to 1, which filters least."""
    return max(by_temperature, key=lambda temperature: (by_temperature[temperature], temperature))


def keep(folder: Path, temperature: float) -> None:
    """Writes the temperature into a drafter's `config.json`, where the drafter's own section is.

    Raises:
        CheckpointError: there is no such folder, or it has no configuration.
    """
    config = read_config(folder)
    path = folder / "config.json"
    own = config.get("fastllm", config)  # a T5's is that of transformers, with a section of ours
    own["draft_temperature"] = temperature
    indent = 2 if own is not config else 1
    path.write_text(json.dumps(config, indent=indent) + "\n", encoding="utf-8")


def table(found: Mapping[str, Mapping[float, float]]) -> str:
    """The report in Markdown."""
    temperatures = next(iter(found.values()))
    return grid(
        ["drafter", *(f"{temperature:g}" for temperature in temperatures), "best"],
        [
            [name, *(f"{value:.3f}" for value in by.values()), f"{best(by):g}"]
            for name, by in found.items()
        ],
    )


@tool("draft_temperature")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.draft_temperature", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("drafters", nargs="+", metavar="NAME", help="shipped drafters, or folders")
    parser.add_argument("--data", required=True, metavar="FILE", help="validation articles")
    parser.add_argument("--limit", type=int, default=50, help="articles (default: 50)")
    parser.add_argument("--target", default="target", help="shipped target, folder or Hub model")
    parser.add_argument("--write", action="store_true", help="keep the best in config.json")
    add_device_argument(parser)
    options = parser.parse_args(arguments)
    quiet()
    target = load_target(options.target, device=options.device)
    drafters = {name: load_drafter(name, device=options.device) for name in options.drafters}
    articles = list(islice(read_articles(options.data), options.limit))
    found = alphas(target, drafters, articles)
    print(table(found))
    if options.write:
        for name, by in found.items():
            shipped = SHIPPED / name
            keep(shipped if shipped.is_dir() else Path(name), best(by))
    return 0


if __name__ == "__main__":
    sys.exit(main())
