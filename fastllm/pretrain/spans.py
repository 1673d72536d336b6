"""Span corruption, alone or with replaced-token detection: what articles teach without texts.

Two kinds of windows that a curriculum can ask for beside those on disk; they are made on the fly.

- `spans`: of some tokens of an article 15 % are left out, in spans of three on average, and they
  are what is to be written (T5, arXiv 1910.10683).
- `spans+detection`: the same, and in the first updates of a stage a small generator also replaces
  tokens of what is read, and a head on the encoder has to find them (SpacTor, arXiv 2401.13160).

A vocabulary of `train_tokenizer` has no sentinels. The pieces of bytes that no text holds serve as
such, so that the vocabulary, and the size of the target, stay what they are.
"""

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import T5EncoderModel, T5ForConditionalGeneration

from fastllm.data.tokens import IGNORED
from fastllm.errors import DataError, SettingsError
from fastllm.pretrain.t5_loss import encode, text_loss
from fastllm.pretrain.windows import TEXT_STEP, Windows, matrix
from fastllm.targets.encodings import real_places
from fastllm.vocabulary import Vocabulary

SPANS, DETECTION = "spans", "spans+detection"
"""The kinds of windows."""

LEFT_OUT, SPAN_TOKENS = 0.15, 3
"""The share of tokens that is left out, and how many a span has on average."""

REPLACED = 0.15
"""The share of tokens read that the generator fills in; some of them rightly."""

DETECTION_WEIGHT = 10.0
"""Of the detection's loss, which then begins near that of the spans. Not searched, nor the
paper's."""

_SHORTEST = 8
"""Tokens of an article at least."""


def sentinels(vocabulary: Vocabulary) -> list[int]:
    """The ids that stand for spans, in order; the last one is what the generator fills in.

    First the 13 bytes that UTF-8 never uses, then the control characters, which news does not hold.

    Raises:
        SettingsError: the vocabulary has no pieces of bytes.
    """
    pieces = vocabulary.tokenizer.get_vocab()
    bytes_ = (0xC0, 0xC1, *range(0xF5, 0x100), *range(0x20))
    try:
        return [pieces[f"<0x{byte:02X}>"] for byte in bytes_]
    except KeyError as error:
        raise SettingsError(
            f"spans are marked by the pieces of bytes, and the vocabulary has no {error}: give one "
            "that `train` has made, or leave the kinds of spans out."
        ) from error


def corrupt(
    ids: list[int], marks: list[int], rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Leaves spans out of at least two ids.

    Returns:
        What is read, a mark in the place of each span; and what is to be written, each mark with
        its span, and one more mark. Of few marks the spans get longer.
    """
    hidden = max(1, round(LEFT_OUT * len(ids)))
    spans = min(max(1, round(hidden / SPAN_TOKENS)), len(marks) - 1)
    source: list[int] = []
    text: list[int] = []
    at = 0
    kept, gone = _parts(len(ids) - hidden, spans, rng), _parts(hidden, spans, rng)
    for mark, keep, hide in zip(marks, kept, gone, strict=False):
        source += [*ids[at : at + keep], mark]
        text += [mark, *ids[at + keep : at + keep + hide]]
        at += keep + hide
    return source, [*text, marks[spans]]


def _parts(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """Numbers above 0 that add up to `total`, every choice as likely."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1
    return list(map(int, np.diff(cuts, prepend=0, append=total)))


class SpanBatches:
    """Batches of corrupted windows of articles, as `Batches` gives those on disk.

    Articles, places and spans are drawn by (seed, step), so a resumed run needs no state.

    Raises:
        DataError: no article has eight tokens.
        SettingsError: the vocabulary has no sentinels.
    """

    def __init__(
        self, windows: Windows, *, source_length: int, batch: int, seed: int, device: torch.device
    ) -> None:
        self._articles = windows.articles
        self._long_enough = np.flatnonzero(self._articles.lengths() >= _SHORTEST)
        if not len(self._long_enough):
            raise DataError(f"{windows.folder}: no article has {_SHORTEST} tokens.")
        self._before, self._end = windows.meta["prefix_ids"], windows.meta["end_id"]
        self._marks = sentinels(windows.vocabulary)[:-1]
        self._room = source_length - len(self._before) - 1
        self._batch, self._seed, self._device = batch, seed, device

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, bool]:
        """Sources (B, S), texts (B, T) filled up with IGNORED, and whether a source is padded."""
        rng = np.random.default_rng([self._seed, step])
        sources, texts = [], []
        for index in rng.choice(self._long_enough, self._batch):
            article = self._articles[index]
            first = int(rng.integers(max(1, len(article) - self._room + 1)))
            ids = article[first : first + self._room].tolist()
            read, written = corrupt(ids, self._marks, rng)
            sources.append(np.array([*self._before, *read, self._end]))
            texts.append(np.array([*written, self._end]))
        padded = len({len(source) for source in sources}) > 1
        source, text = matrix(sources, 0, multiple=1), matrix(texts, IGNORED, multiple=TEXT_STEP)
        return source.to(self._device).long(), text.to(self._device).long(), padded


class Detector(torch.nn.Module):
    """Replaced-token detection: a generator with the target's embeddings, and a head.

    The generator has half of the encoder's layers and of their feed-forward width. A submodule of
    the target while a stage trains both, so that a run saves and resumes them; then it is dropped.

    Args:
        target: whose encoder is to learn.
        vocabulary: with sentinels.
    """

    def __init__(self, target: T5ForConditionalGeneration, vocabulary: Vocabulary) -> None:
        super().__init__()
        config = copy.deepcopy(target.config)
        config.num_layers, config.d_ff = max(1, config.num_layers // 2), config.d_ff // 2
        config.is_encoder_decoder = False
        self.generator = T5EncoderModel(config)
        self.generator.set_input_embeddings(target.shared)
        self.head = torch.nn.Linear(config.d_model, 1)
        marks = sentinels(vocabulary)
        self._mask = marks[-1]
        self._fixed = [*marks, config.pad_token_id, config.eos_token_id]

    def losses(
        self, target: Any, source: torch.Tensor, text: torch.Tensor, *, masked: bool, seed: int
    ) -> dict[str, torch.Tensor]:
        """Losses of a batch of spans, scalars in fp32: "loss", and of what it is the weighted sum.

        Args:
            target: its encoder reads the replaced tokens, its decoder writes the spans.
            source: corrupted windows, (B, S), filled up with 0.
            text: the spans, (B, T), filled up with `IGNORED`.
            masked: whether `source` may hold padding.
            seed: of the places and of what is put there.

        Returns:
            "loss"; "text", of the spans; "generator", of what it fills in; "detection".
        """
        seen = real_places(source) if masked else None
        drawing = torch.Generator(source.device).manual_seed(seed)
        fixed = torch.isin(source, source.new_tensor(self._fixed))
        # As many places in every row, so that nothing waits for a count. Fixed ones come last.
        draw = torch.rand(source.shape, generator=drawing, device=source.device)
        count = max(1, round(REPLACED * source.shape[1]))
        places = draw.masked_fill(fixed, 2.0).topk(count, largest=False).indices
        own, left = source.gather(1, places), fixed.gather(1, places)

        asked = source.scatter(1, places, own.where(left, self._mask))
        states = encode(self.generator, asked, seen)
        width = states.shape[-1]
        states = states.gather(1, places[:, :, None].expand(-1, -1, width)) * width**-0.5
        logits = F.linear(states, self.generator.shared.weight).flatten(0, 1).float()
        wanted = own.masked_fill(left, IGNORED).flatten()
        generator = F.cross_entropy(logits, wanted, ignore_index=IGNORED)

        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=drawing).view_as(own)
        replaced = source.scatter(1, places, own.where(left, drawn))
        encoded = encode(target, replaced, seen)
        found = self.head(encoded).squeeze(-1).float()
        errors = F.binary_cross_entropy_with_logits(
            found, (replaced != source).float(), reduction="none"
        )
        detection = errors.masked_fill(fixed, 0.0).sum() / (~fixed).sum()
        written = text_loss(target, encoded, seen, text)
        loss = written + generator + DETECTION_WEIGHT * detection
        return {"loss": loss, "text": written, "generator": generator, "detection": detection}
