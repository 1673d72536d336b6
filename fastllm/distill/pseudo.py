"""Texts written by the target: what seq_kd, f_distill and the "after" drafters learn from.

Written in shards, each saved whole or not at all; a run that was interrupted goes on with the
shards that are missing. Of several processes (`accelerate launch`) each writes every n-th shard, so
that none needs to know what the others do. When all are there they are joined into token pairs.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator

from fastllm.data.tokens import TokenPairs, write_pairs
from fastllm.decoding.rounds import speculate
from fastllm.distill.folders import differences_from, writing
from fastllm.distill.loop import processes
from fastllm.distill.teacher import write_texts
from fastllm.drafters.lookup import ArticleLookup
from fastllm.errors import DataError
from fastllm.files import json_in, write_json
from fastllm.targets import resolve
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig
from fastllm.words import duration

SHARD_SIZE = 256
"""Articles a shard, where nothing else is said."""

_KEPT = "What was written before is whole."

_SECONDS_A_LINE = 5.0
"""Between two progress lines, at least."""


def write_pseudo(
    target: HubTarget,
    pairs: TokenPairs,
    folder: str | Path,
    *,
    length: int = 96,
    temperature: float = 0.0,
    batch: int = 64,
    shard_size: int | None = None,
    accelerator: Accelerator | None = None,
    say: Callable[[str], None] = print,
) -> TokenPairs:
    """Lets the target summarise every article of `pairs`, whose own summaries are not read.

    What a shard holds depends on nothing but the target, its articles and the settings: not on the
    number of processes, nor on how often the work was interrupted.

    Args:
        target: the target.
        pairs: the articles.
        folder: where shards and the joined pairs are written.
        length: the most tokens of a text.
        temperature: 0 is greedy.
        batch: articles at once; on a CPU greedy texts are written one by one, by speculation.
        shard_size: articles a shard; SHARD_SIZE by default.
        accelerator: the processes that share the work; one of our own by default.
        say: receives progress lines, one every few seconds, and one where it is interrupted.

    Returns:
        The same articles, in the same order, with the target's texts.

    Raises:
        CheckpointError: the target computes NaN or infinite numbers.
        DataError: the folder holds texts of another target or with other settings.
        TrainingError: a file cannot be written; the shards before are whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = accelerator or processes(target.device.type)
    rank, count = accelerator.process_index, accelerator.num_processes
    size = shard_size or SHARD_SIZE
    meta: dict[str, object] = {
        "kind": "pseudo",
        "target": target.name,
        "weights": weights_fingerprint(target),
        "load_in": held_in(target),
        "vocabulary": target.vocabulary.fingerprint,
        # Below 0 is off; left out, so that what was begun before there was such a rule goes on.
        "rules": {name: value for name, value in target.defaults.items() if value >= 0},
        "prefix": pairs.meta.get("prefix", ""),
        "source_length": pairs.meta.get("source_length"),
        "length": length,
        "temperature": temperature,
        "articles": len(pairs),
        "shard_size": size,
    }
    if target.unsupported:  # what its generation configuration asks for beside, and is not applied
        meta["not_applied"] = list(target.unsupported)
    settings = folder / "settings.json"
    if changed := differences_from(settings, meta):
        raise DataError(
            f"{folder} holds texts written with other settings ({changed}): give another folder, "
            "or remove it."
        )
    accelerator.wait_for_everyone()  # all have looked; now the first may write
    if accelerator.is_main_process:
        with writing(settings, _KEPT):
            write_json(settings, meta, indent=None)
    shards = [
        (folder / f"shard-{number:05d}.json", range(first, min(first + size, len(pairs))))
        for number, first in enumerate(range(0, len(pairs), size))
    ]
    mine = [entry for entry in shards[rank::count] if not entry[0].exists()]
    asked, before = sum(len(members) for _, members in mine), 0
    started = told = time.perf_counter()

    def kept() -> int:
        return sum(len(members) for shard, members in shards if shard.exists())

    def tell(written: int, *, saved: bool = False) -> None:
        """Says how far it is, `written` being of the shard at hand."""
        nonlocal told
        now, fresh = time.perf_counter(), before + written
        last = saved and fresh == asked
        if accelerator.is_main_process and (last or now - told >= _SECONDS_A_LINE):
            told = now
            rate = fresh / (now - started)
            done = kept() + (0 if saved else written)
            left = duration((asked - fresh) / rate)
            say(f"{done}/{len(pairs)}  {rate * count:.1f} articles/s  ({left} left)")

    try:
        for shard, members in mine:
            texts = _write_shard(target, pairs, members, length, temperature, batch, tell)
            with writing(shard, _KEPT):
                write_json(shard, [texts[index] for index in members], indent=None)
            tell(len(members), saved=True)
            before += len(members)
    except KeyboardInterrupt:
        if accelerator.is_main_process:
            say(
                f"interrupted. {kept()} of {len(pairs)} texts are kept in {folder}; the same "
                "command goes on from there"
            )
        raise
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and not (folder / "meta.json").exists():
        written = [text for shard, _ in shards for text in _texts_in(shard)]
        rows = ((pairs.ids[index], pairs.source(index), text) for index, text in enumerate(written))
        with writing(folder, _KEPT):
            write_pairs(folder, rows, meta)
    accelerator.wait_for_everyone()
    return TokenPairs(folder)


def held_in(target: HubTarget) -> str:
    """How the weights are held: "bf16", "8bit" and so on."""
    for bits in ("8bit", "4bit"):
        if getattr(target.model, f"is_loaded_in_{bits}", False):
            return bits
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(target.model.dtype, "other")


def weights_fingerprint(target: HubTarget) -> str:
    """Tells weights apart, at the price of reading a little of each tensor."""
    digest = hashlib.sha256()
    for name, weight in sorted(target.model.named_parameters()):
        digest.update(name.encode())
        # Rounded, so that the same checkpoint is the same in fp32 and in bf16.
        some = weight.detach().flatten()[:256].to("cpu", torch.bfloat16).float()
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()[:16]


def _write_shard(
    target: HubTarget,
    pairs: TokenPairs,
    members: range,
    length: int,
    temperature: float,
    batch: int,
    tell: Callable[[int], None],
) -> dict[int, list[int]]:
    """The target's texts for the articles `members`, by index; `tell` hears how many there are."""
    if temperature == 0 and target.device.type == "cpu":
        speculated: dict[int, list[int]] = {}
        for index in members:
            speculated[index] = _speculated(target, pairs.source(index), length)
            if len(speculated) % batch == 0 and len(speculated) < len(members):
                tell(len(speculated))
        return speculated
    # Articles of like length together: less padding, and the order does not matter here.
    order = sorted(members, key=lambda index: len(pairs.source(index)))
    texts: dict[int, list[int]] = {}
    devices = [target.device] if target.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(members.start)  # a shard written again is the same
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            sources = [pairs.source(index) for index in chosen]
            written = write_texts(target, sources, length=length, temperature=temperature)
            texts.update(zip(chosen, written, strict=True))
            if len(texts) < len(order):  # of a whole shard is told when it is saved
                tell(len(texts))
    return texts


@torch.inference_mode()
def _speculated(target: HubTarget, source: list[int], length: int) -> list[int]:
    """The target's greedy text, its drafts copied from the article: on a CPU faster than a batch.

    Raises:
        CheckpointError: the target computes NaN or infinite numbers.
    """
    encoding = target.encode(source)
    rounds = speculate(
        target.begin(encoding),
        ArticleLookup(end_id=target.end_ids[0]).begin(encoding),
        resolve(DecodingConfig(gamma=6, max_new_tokens=length), target),
        start_id=target.start_id,
        end_id=target.end_ids,
        statistics=False,
    )
    return [token for entry in rounds for token in entry.tokens]


def _texts_in(shard: Path) -> list[list[int]]:
    try:
        found: list[list[int]] = json_in(shard)
    except ValueError as error:
        raise DataError(
            f"{shard} is damaged ({error}): remove it, and the same command writes it anew."
        ) from error
    return found
