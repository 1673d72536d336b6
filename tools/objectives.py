"""What a small target had better learn before it learns to write: central sentences, or spans.

    python -m tools.objectives --data DATA --run runs/objectives [--updates 300] [--seed 0]

Trains targets of two and two layers and width 128, with the shipped vocabulary, that read 128
tokens: first on an objective, from the copying start, then on extracts in house style, the same for
all. Prints a row each: the loss on held-out extracts, and ROUGE of 50 greedy texts about validation
articles against their extracts. After equal updates come equal seconds: as many updates as fit into
the processor time that central sentences took. The control learns extracts alone.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean

import torch
from transformers import T5ForConditionalGeneration

from fastllm.data.articles import read_split
from fastllm.data.tokens import IGNORED
from fastllm.evaluation.measure import ROUGE, rouge_scorer
from fastllm.paths import CHECKPOINTS
from fastllm.pretrain.compression import without_brackets
from fastllm.pretrain.curriculum import CurriculumStage, TargetRecipe, train_target
from fastllm.pretrain.spans import DETECTION, SPANS
from fastllm.pretrain.summaries import (
    Window,
    central_order,
    extract,
    sentences_of,
    summarise,
    within,
)
from fastllm.pretrain.t5_loss import t5_loss
from fastllm.pretrain.windows import Window as Text
from fastllm.pretrain.windows import Windows, matrix, write_windows
from fastllm.vocabulary import Vocabulary
from tools.common import tool

SOURCE_LENGTH, BATCH, PREFIX = 128, 8, ". "
CENTRAL, EXTRACT = "central", "extract"
STAGE = CurriculumStage("extracts", SOURCE_LENGTH, {EXTRACT: 1}, updates=1, batch=BATCH)


@tool("objectives")
def main() -> int:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder of articles")
    parser.add_argument("--run", type=Path, required=True, help="goes on with what is there")
    parser.add_argument("--articles", type=int, default=4000)
    parser.add_argument("--updates", type=int, default=300, help="of each stage")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    vocabulary = Vocabulary.load(CHECKPOINTS / "target")
    windows, held_out = options.run / "windows", options.run / "held-out"
    for folder, split, most in (
        (windows, "train", options.articles),
        (held_out, "validation", 300),
    ):
        if not (folder / "meta.json").exists():
            texts = _texts(options.data, split, most, vocabulary)
            write_windows(folder, texts, vocabulary, prefix=PREFIX)
        print(f"{split}: {Windows(folder).counts()}", flush=True)
    rows: dict[str, dict[str, float]] = {}
    for kind in ("", CENTRAL, SPANS, DETECTION):
        rows[kind] = _arm(kind, options.updates, windows, held_out, options)
    for kind in (SPANS, DETECTION):
        share = rows[CENTRAL]["seconds"] / rows[kind]["seconds"]
        _arm(kind, round(options.updates * share), windows, held_out, options)
    return 0


def _texts(
    data: str, split: str, most: int, vocabulary: Vocabulary
) -> Iterator[tuple[str, list[Text]]]:
    """Articles with the central sentences of their beginning and middle, and an extract."""
    for article in islice(read_split(data, split), most):
        sentences = sentences_of(article.text)
        bare = {place: without_brackets(one.text) for place, one in enumerate(sentences)}
        middle = len(article.text) // 2
        found = []
        for start in {0, next((one.start for one in sentences if one.start > middle), 0)}:
            own = article.text[start:]
            cut = vocabulary.encode(own, SOURCE_LENGTH, PREFIX).cut_at
            end = start + (len(own) if cut is None else cut)
            order = central_order(sentences, within(sentences, start, end))
            window = Window(CENTRAL, start, end, order)
            if central := summarise(window, sentences, bare, vocabulary):
                found.append(Text(CENTRAL, start, end, central[0]))
            if not start and within(sentences, 0, end) and (text := extract(sentences, window)):
                found.append(Text(EXTRACT, start, end, text))
        yield article.text, found


def _arm(
    kind: str, updates: int, windows: Path, held_out: Path, options: argparse.Namespace
) -> dict[str, float]:
    """Trains and measures one arm; "seconds" are the processor's, of the first stage."""
    run = options.run / f"{kind or 'extracts'}-{updates}-seed{options.seed}"
    if (run / "row.json").exists():
        row: dict[str, float] = json.loads((run / "row.json").read_text())
    else:
        last = replace(STAGE, updates=options.updates, cooldown=options.updates // 2)
        first = replace(
            STAGE,
            name="objective",
            mixture={kind: 1},
            updates=updates,
            cooldown=updates // 4,
            detection=updates // 4 if kind == DETECTION else 0,
        )
        recipe = TargetRecipe(
            name=run.name,
            stages=(first, last) if kind else (last,),
            width=128,
            encoder_layers=2,
            decoder_layers=2,
            feed_forward=256,
            prefix=PREFIX,
            seed=options.seed,
        )
        clock: dict[str, float] = {}

        def say(line: str) -> None:
            clock.setdefault(line, time.process_time())

        train_target(recipe, windows, run, device=torch.device("cpu"), say=say)
        spent = clock["stage extracts"] - clock["stage objective"] if kind else 0.0
        row = {"updates": updates if kind else 0, "seconds": spent}
        row |= _measured(run / "checkpoint", Windows(held_out))
        (run / "row.json").write_text(json.dumps(row))
    shown = (f"{name} {number:.4g}" for name, number in row.items())
    print(f"{kind or 'extracts alone'}: {', '.join(shown)}", flush=True)
    return row


@torch.no_grad()
def _measured(checkpoint: Path, windows: Windows) -> dict[str, float]:
    model = T5ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    chosen = windows.of_kind(EXTRACT)
    sources = matrix([windows.source(i, SOURCE_LENGTH) for i in chosen], 0, multiple=1).long()
    texts = matrix([windows.text(i) for i in chosen], IGNORED, multiple=1).long()
    parts = zip(torch.split(sources, 50), torch.split(texts, 50), strict=True)
    losses = [(float(t5_loss(model, *part)), int((part[1] >= 0).sum())) for part in parts]
    first, scorer, scores = sources[:50], rouge_scorer(), []
    written = model.generate(
        first,
        attention_mask=(first != 0).long(),
        max_new_tokens=texts.shape[1],
        do_sample=False,
        no_repeat_ngram_size=8,  # as the shipped target writes
    )
    for own, index in zip(written, chosen, strict=False):
        wanted = windows.vocabulary.decode(windows.text(index).tolist())
        scores.append(scorer.score(wanted, windows.vocabulary.decode(own[1:].tolist())))
    rouge = {name: 100 * fmean(one[name].fmeasure for one in scores) for name in ROUGE}
    tokens = sum(count for _, count in losses)
    return {"loss": sum(loss * count for loss, count in losses) / tokens, **rouge}


if __name__ == "__main__":
    raise SystemExit(main())
