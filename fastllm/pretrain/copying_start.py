"""Initial weights with which a small T5 can copy from its first step.

A summary lives on copying, and a small model trained from ordinary initial weights needs hundreds
of thousands of articles to discover it. This start lays the circuit down in some heads of three
layers, and turns down what everything else writes. The model stays a plain T5, and everything
remains free to move in training.

The circuit is an induction head (Olsson et al. 2022, arXiv:2209.11895) across encoder and decoder.
It goes by the last *three* tokens, since one alone ("the", a comma) stands in many places:

- encoder layer 0: a head each looks one, two and three positions back, through a relative bias;
  each position learns which tokens stand before it, kept in directions of their own;
- decoder layer 0, self-attention: a head each brings the last token but one, and but two;
- decoder layer 0, cross-attention: the last three tokens look for the position that they precede,
  and write what stands there.

Where does a summary begin? At a sentence of the article, and that is what follows a full stop. So
the source is prefixed with a full stop, and the decoder starts with one (`begin_like`).

Measured without any training, on central sentences of 256-token sources: of the tokens inside
sentences 97 % are the most likely ones; 92 % going by two tokens. A model trained for 900 updates
of 16 articles from the two-token start stood at 93 %.
"""

import torch
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from fastllm.drafters.reader import orthonormal
from fastllm.errors import SettingsError

LAST_GAIN, EARLIER_GAIN = 0.6, 0.4
"""How sharply the decoder looks for its last token, and for those before it."""

MEMORY_GAIN, CARRY_GAIN = 4.0, 1.5
"""How loudly an encoder position remembers the tokens before it, and the decoder brings its own."""

WRITE_GAIN, OTHERS = 40.0, 0.05
"""How loudly the token found is written; the factor on what everything else writes at first."""

BIAS = 8.0
"""A relative bias that leaves next to nothing for other offsets."""


def t5_config(
    vocabulary: int,
    width: int = 256,
    heads: int = 4,
    encoder_layers: int = 4,
    decoder_layers: int = 4,
    feed_forward: int = 1024,
    start_id: int = 0,
) -> T5Config:
    """The configuration of a small T5 v1.0: tied embeddings, ReLU, no dropout."""
    return T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=width // heads,
        d_ff=feed_forward,
        num_layers=encoder_layers,
        num_decoder_layers=decoder_layers,
        num_heads=heads,
        dropout_rate=0.0,
        feed_forward_proj="relu",
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=start_id,
    )


@torch.no_grad()
def start_copying(
    model: T5ForConditionalGeneration, generator: torch.Generator, *, context: int = 3
) -> None:
    """Lays the circuit down in attention heads of three layers of a fresh T5 with tied embeddings.

    It goes by the last `context` tokens; `generator` draws the orthonormal maps.

    Raises:
        SettingsError: more context than heads, or a width that they do not fit into.
    """
    config = model.config
    width, head, heads = config.d_model, config.d_kv, config.num_heads // 2
    part = heads * head
    share = head // context
    each = share * heads
    if not (1 <= context <= config.num_heads and share and each <= head and 2 * part <= width):
        raise SettingsError(
            f"context={context} with {config.num_heads} heads of width {head} in a model of width "
            f"{width}: the copying start needs a head for each token of context, and half of the "
            "heads' width twice in the model's."
        )
    for stack in (model.encoder, model.decoder):
        for block in stack.block:
            for layer in block.layer:
                for name in ("SelfAttention", "EncDecAttention"):
                    if hasattr(layer, name):
                        getattr(layer, name).o.weight.mul_(OTHERS)
                if hasattr(layer, "DenseReluDense"):
                    layer.DenseReluDense.wo.weight.mul_(OTHERS)

    # Directions of the encoder's output: what stands one, two, ... places before; and here.
    basis = orthonormal(width, width, generator)
    before = torch.split(basis[: context * each], each)
    here = basis[part : 2 * part]
    tokens = [orthonormal(each, width, generator) for _ in range(context)]
    carried = torch.split(orthonormal(max(1, context - 1) * each, width, generator), each)

    own = model.encoder.block[0].layer[0].SelfAttention
    for offset in range(context):
        _look_back(own, offset, offset + 1, tokens[offset], MEMORY_GAIN * before[offset])
    past = model.decoder.block[0].layer[0].SelfAttention
    for offset in range(1, context):
        _look_back(past, offset - 1, offset, tokens[offset], CARRY_GAIN * carried[offset - 1])

    cross = model.decoder.block[0].layer[1].EncDecAttention
    for index in range(heads):
        own_rows = slice(index * head, (index + 1) * head)
        cross.q.weight[own_rows] = 0.0
        cross.k.weight[own_rows] = 0.0
        part_of = slice(index * share, (index + 1) * share)
        for offset in range(context):
            first = index * head + offset * share
            rows = slice(first, first + share)
            known = LAST_GAIN * tokens[0] if offset == 0 else EARLIER_GAIN * carried[offset - 1]
            cross.q.weight[rows] = known[part_of]
            cross.k.weight[rows] = before[offset][part_of]
    cross.v.weight[:part] = here
    cross.o.weight[:, :part] = WRITE_GAIN * here.T


def _look_back(
    attention: T5Attention, head: int, offset: int, read: torch.Tensor, write: torch.Tensor
) -> None:
    """Makes a head read the token `offset` places back and write it in given directions."""
    width = attention.key_value_proj_dim
    rows = slice(head * width, (head + 1) * width)
    used = slice(rows.start, rows.start + len(read))
    for matrix in (attention.q.weight[rows], attention.k.weight[rows], attention.o.weight[:, rows]):
        matrix.zero_()
    attention.v.weight[used] = read
    attention.o.weight[:, used] = write.T
    # The first buckets of T5's relative positions are single offsets back.
    attention.relative_attention_bias.weight[:, head] = 0.0
    attention.relative_attention_bias.weight[offset, head] = BIAS


@torch.no_grad()
def begin_like(model: T5ForConditionalGeneration, token: int) -> None:
    """Gives the token that decoders start with the embedding of another, such as a full stop."""
    start = model.config.decoder_start_token_id
    model.get_input_embeddings().weight[start] = model.get_input_embeddings().weight[token]
