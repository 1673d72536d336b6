"""Texts written by the target: what seq_kd, f_distill and the "after" drafters learn from.

Written in shards, each saved whole or not at all; a run that was interrupted goes on behind its
last shard. When all are there they are joined into token pairs.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from fastllm.data.tokens import TokenPairs, write_pairs
from fastllm.distill.teacher import write_texts
from fastllm.errors import DataError
from fastllm.targets.hub import HubTarget

SHARD_SIZE = 256
"""Articles a shard."""


def write_pseudo(
    target: HubTarget,
    pairs: TokenPairs,
    folder: str | Path,
    *,
    length: int = 96,
    temperature: float = 0.0,
    batch: int = 64,
    say: Callable[[str], None] = print,
) -> TokenPairs:
    """Lets the target summarise every article of `pairs`.

    Args:
        target: the target.
        pairs: the articles; their own summaries are not read.
        folder: where shards and the joined pairs are written.
        length: the most tokens of a text.
        temperature: 0 is greedy.
        batch: articles at once.
        say: receives progress lines.

    Returns:
        The same articles, in the same order, with the target's texts.

    Raises:
        DataError: the folder holds texts of another target or with other settings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    meta: dict[str, object] = {
        "kind": "pseudo",
        "target": target.name,
        "vocabulary": target.vocabulary.fingerprint,
        "length": length,
        "temperature": temperature,
        "articles": len(pairs),
    }
    settings = folder / "settings.json"
    if settings.exists() and json.loads(settings.read_text()) != meta:
        raise DataError(
            f"{folder} holds texts written with other settings ({settings.read_text()}): "
            "give another folder, or remove it."
        )
    settings.write_text(json.dumps(meta))
    started, fresh = time.perf_counter(), 0
    shards = []
    for first in range(0, len(pairs), SHARD_SIZE):
        shard = folder / f"shard-{first // SHARD_SIZE:05d}.json"
        shards.append(shard)
        if shard.exists():
            continue
        members = range(first, min(first + SHARD_SIZE, len(pairs)))
        # Articles of like length together: less padding, and the order does not matter here.
        order = sorted(members, key=lambda index: len(pairs.source(index)))
        texts: dict[int, list[int]] = {}
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            sources = [pairs.source(index) for index in chosen]
            written = write_texts(target, sources, length=length, temperature=temperature)
            texts.update(zip(chosen, written, strict=True))
        partial = shard.with_suffix(".new")
        partial.write_text(json.dumps([texts[index] for index in members]))
        os.replace(partial, shard)
        fresh += len(members)
        rate = fresh / (time.perf_counter() - started)
        left = (len(pairs) - members[-1] - 1) / rate / 60
        say(f"{members[-1] + 1}/{len(pairs)}  {rate:.1f} articles/s  ({left:.1f} min left)")
    written_texts = [text for shard in shards for text in json.loads(shard.read_text())]
    write_pairs(
        folder,
        (
            (pairs.ids[index], pairs.source(index), text)
            for index, text in enumerate(written_texts)
        ),
        meta,
    )
    return TokenPairs(folder)
