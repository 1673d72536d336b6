"""What a distillation will take: memory, disk and hours, from sizes alone, before anything is paid.

Rough on purpose: within a factor of two on one GPU of the 80 GB class (A100). Everything follows
from four numbers of a model: R, the weights that a token of the article passes through (encoder);
W, the weights that a token of the text passes through (decoder and output); P, all of them; L, the
layers. S and T are the tokens of article and text, B the articles at once, V the vocabulary.

Hours of `pseudo`, an article:
    2 R S / F                                  reading the article
    T max(2 W / F, (W b / B + k S) / M)        a decoder step: arithmetic, or reading weights
                                               (b bytes each) and keys and values (k bytes a token)
    T l L / B                                  what transformers spends between layers (l each)
Hours of `train`, an update:
    2 (R S + W T) B / F                        the target scores (divergences alone)
    6 (r S + w T) B / F                        the drafter, forward and backward
    20 . 4 B T V / M                           the divergence: 20 passes over the logits
    o T l L'                                   its own texts, in a share o of the updates
    l (L + 3 L')                               between layers
Several GPUs divide all but the last two. Memory: weights, and for the drafter 16 bytes a weight
(fp32, gradient, two moments); activations as written in `_training_memory`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

FLOPS = 125e12
"""F: operations a second that a model reaches in bf16 (an A100 at 40 %)."""

BANDWIDTH = 1.2e12
"""M: bytes a second that are read from the GPU's memory (an A100 at 60 %)."""

LAYER_SECONDS = 0.6e-3
"""l: between two layers of transformers."""

SLOWER = {"fp32": 4.0, "bf16": 1.0, "8bit": 2.5, "4bit": 1.5}
"""How often F and l are what they are in bf16: quantised weights are unpacked at every use."""

BYTES = {"fp32": 4.0, "bf16": 2.0, "8bit": 1.0, "4bit": 0.56}
"""b: of a weight inside the layers, by how the target is loaded."""


@dataclass(frozen=True)
class Size:
    """The numbers of a model: weights, layers, heads and widths.

    `reading`, `writing`, `total` and `vocabulary` are R, W, P and V; `outside` are the weights of
    embedding and output, which no quantisation touches; `inner` is the width of all heads.
    """

    reading: int
    writing: int
    total: int
    outside: int = 0
    encoder_layers: int = 0
    decoder_layers: int = 1
    heads: int = 1
    inner: int = 0
    width: int = 0
    vocabulary: int = 0

    @classmethod
    def of(cls, model: torch.nn.Module) -> "Size":
        """Of a T5, wherever its weights are (the meta device will do); of other networks P alone.

        Quantised weights are counted by their settings, so give the model as it is built.
        """
        total = sum(weight.numel() for weight in model.parameters())
        config: Any = getattr(model, "config", None)
        if config is None or not hasattr(config, "d_kv"):
            return cls(0, total, total)
        parts: Any = model
        embedding = parts.shared.weight.numel()
        encoder, decoder = (
            sum(weight.numel() for weight in stack.parameters()) - embedding
            for stack in (parts.encoder, parts.decoder)
        )
        outside = embedding * (1 if parts.lm_head.weight is parts.shared.weight else 2)
        return cls(
            reading=encoder,
            writing=decoder + embedding,
            total=encoder + decoder + outside,
            outside=outside,
            encoder_layers=config.num_layers,
            decoder_layers=config.num_decoder_layers,
            heads=config.num_heads,
            inner=config.num_heads * config.d_kv,
            width=config.d_model,
            vocabulary=config.vocab_size,
        )


@dataclass(frozen=True)
class Work:
    """How much is asked for: articles, tokens of each (S) and of its text (T), updates.

    `pseudo_batch` articles at once while the target writes, `batch` texts an update; `scored` where
    the target scores them; `own_texts` is the share of updates on the drafter's own.
    """

    articles: int
    source: int
    text: int
    load_in: str = "bf16"
    pseudo_batch: int = 64
    updates: int = 0
    batch: int = 32
    scored: bool = True
    own_texts: float = 0.0


class Estimate(NamedTuple):
    """Bytes and seconds; those by how many GPUs share the work."""

    pseudo_memory: float
    train_memory: float
    disk: float
    pseudo_seconds: dict[int, float]
    train_seconds: dict[int, float]


def estimate(target: Size, drafter: Size, work: Work, gpus: tuple[int, ...] = (1, 8)) -> Estimate:
    """Adds up the formulas of the module."""
    batch = work.pseudo_batch
    writing = batch * (work.source + work.text) * _cached(target, work.load_in)
    writing += _scores(target, batch, work.source, work.source)
    writing += 4.0 * 4 * batch * target.vocabulary
    texts = work.articles * (2.0 * 2 * (work.source + work.text) + 7.0 * work.text)
    run = drafter.total * (2 * 12.0 + 2 * 4.0 + 2.0)  # last and best, old and new; checkpoint
    return Estimate(
        pseudo_memory=_weights(target, work.load_in) + writing,
        train_memory=_training_memory(target, drafter, work, gpus[0]),
        disk=4.0 * (target.total + drafter.total) + texts + run,
        pseudo_seconds={n: _pseudo_seconds(target, work) / n for n in gpus},
        train_seconds={n: _train_seconds(target, drafter, work, n) for n in gpus},
    )


def describe(target: Size, drafter: Size, work: Work) -> str:
    """The estimate in a few lines for a person."""
    found = estimate(target, drafter, work)
    giga = 2**30
    rows = [
        f"Estimate for GPUs of the A100 class, within a factor of two ({__name__}):",
        f"  target {target.total / 1e6:,.0f} M weights in {work.load_in}, drafter "
        f"{drafter.total / 1e6:,.1f} M; {work.articles:,} articles of {work.source} + {work.text} "
        f"tokens; {work.updates:,} updates of {work.batch}",
        f"  memory a GPU: pseudo {found.pseudo_memory / giga:.1f} GiB, "
        f"train {found.train_memory / giga:.1f} GiB",
        f"  disk: {found.disk / giga:.1f} GiB",
    ]
    for count, seconds in found.pseudo_seconds.items():
        both = seconds + found.train_seconds[count]
        rows.append(
            f"  hours on {count} GPU{'s' if count > 1 else ''}: {both / 3600:.1f} "
            f"(pseudo {seconds / 3600:.1f}, train {found.train_seconds[count] / 3600:.1f})"
        )
    return "\n".join(rows)


def _weights(size: Size, load_in: str) -> float:
    outside = BYTES[load_in] if load_in in ("fp32", "bf16") else BYTES["bf16"]
    return size.outside * outside + (size.total - size.outside) * BYTES[load_in]


def _cached(size: Size, load_in: str) -> float:
    """k: bytes of keys and values that a decoder keeps a token."""
    return 2 * size.decoder_layers * size.inner * (4.0 if load_in == "fp32" else 2.0)


def _scores(size: Size, batch: float, rows: int, columns: int) -> float:
    """Bytes of one layer's attention: scores, their bias and their softmax in fp32."""
    return 3 * 4.0 * batch * size.heads * rows * columns


def _training_memory(target: Size, drafter: Size, work: Work, gpus: int) -> float:
    batch = work.batch / gpus
    memory = 16.0 * drafter.total
    # Of each layer the backward pass needs about sixteen features a token, and the attention.
    places = drafter.encoder_layers * work.source + 2 * drafter.decoder_layers * work.text
    memory += 16 * 4.0 * batch * drafter.width * places
    memory += drafter.encoder_layers * _scores(drafter, batch, work.source, work.source)
    memory += drafter.decoder_layers * _scores(drafter, batch, work.text, work.text + work.source)
    memory += 6 * 4.0 * batch * work.text * max(drafter.vocabulary, target.vocabulary)
    if work.scored:
        memory += _weights(target, work.load_in) + _scores(target, batch, work.source, work.source)
        memory += 2 * 2**30  # encodings that the teacher keeps
    return memory


def _pseudo_seconds(size: Size, work: Work) -> float:
    batch, slower = work.pseudo_batch, SLOWER[work.load_in]
    weights = size.writing * BYTES[work.load_in] / batch
    step = max(
        2 * size.writing * slower / FLOPS,
        (weights + work.source * _cached(size, work.load_in)) / BANDWIDTH,
    )
    waiting = slower * LAYER_SECONDS * size.decoder_layers / batch
    reading = 2 * size.reading * work.source * slower / FLOPS
    return work.articles * (reading + work.text * (step + waiting))


def _train_seconds(target: Size, drafter: Size, work: Work, gpus: int) -> float:
    batch = work.batch / gpus
    size = 6.0 * (drafter.reading * work.source + drafter.writing * work.text)
    layers = 3.0 * (drafter.encoder_layers + drafter.decoder_layers)
    passes = 0.0
    if work.scored:
        slower = SLOWER[work.load_in]
        size += 2 * slower * (target.reading * work.source + target.writing * work.text)
        layers += slower * (target.encoder_layers + target.decoder_layers)
        passes = 20 * 4.0 * batch * work.text * drafter.vocabulary / BANDWIDTH
    own = work.own_texts * work.text * LAYER_SECONDS * drafter.decoder_layers
    return work.updates * (size * batch / FLOPS + passes + own + LAYER_SECONDS * layers)
