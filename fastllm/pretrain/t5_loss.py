"""The training pass of a T5: cross-entropy of texts, on the weights of a transformers model.

The same numbers as the model's own `forward`, in fewer and larger operations: one product for the
queries, keys and values of an attention, PyTorch's fused attention and norm, one relative bias a
stack, and no mask where nothing is padded. Dropout is not done: the targets here are trained on
more text than they can learn by heart.
"""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import T5ForConditionalGeneration

from fastllm.data.tokens import IGNORED
from fastllm.targets.encodings import real_places


def t5_loss(
    model: T5ForConditionalGeneration,
    source: torch.Tensor,
    text: torch.Tensor,
    *,
    masked: bool = True,
) -> torch.Tensor:
    """The mean cross-entropy, in nats a token, of texts given their articles; a scalar in fp32.

    Args:
        model: a T5 v1.0 with tied embeddings and without dropout.
        source: articles, (B, S), filled up with 0.
        text: what is to be written, (B, T), without the start token, filled up with `IGNORED`.
        masked: whether `source` may hold padding. Without any, False is faster.
    """
    seen = real_places(source) if masked else None
    return text_loss(model, encode(model, source, seen), seen, text)


def text_loss(
    model: Any, encoded: torch.Tensor, seen: torch.Tensor | None, text: torch.Tensor
) -> torch.Tensor:
    """The loss of `t5_loss`, from what `encode` gave and the places that it was told of."""
    start = text.new_full((len(text), 1), model.config.decoder_start_token_id)
    before = torch.cat([start, text[:, :-1].clamp(min=0)], dim=1)
    logits = _decode(model, before, encoded, seen)
    return F.cross_entropy(logits.flatten(0, 1).float(), text.flatten(), ignore_index=IGNORED)


def _embedded(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Under autocast in half precision from the start, as T5 itself was trained."""
    hidden = F.embedding(ids, model.shared.weight)
    kind = ids.device.type
    return hidden.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else hidden


def encode(model: Any, source: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
    """The encoder's states, (B, S, width), of ids (B, S); `seen` (B, S) are those not padding."""
    hidden = _embedded(model, source)
    length = source.shape[1]
    bias = model.encoder.block[0].layer[0].SelfAttention.compute_bias(length, length)
    if seen is not None:
        bias = bias.masked_fill(~seen[:, None, None, :], _NOT_SEEN)
    for block in model.encoder.block:
        attend, feed = block.layer
        hidden = hidden + _self_attention(attend, hidden, bias)
        hidden = hidden + _feed_forward(feed, hidden)
    return _norm(model.encoder.final_layer_norm, hidden)


def _decode(
    model: Any, before: torch.Tensor, encoded: torch.Tensor, seen: torch.Tensor | None
) -> torch.Tensor:
    hidden = _embedded(model, before)
    length = before.shape[1]
    bias = model.decoder.block[0].layer[0].SelfAttention.compute_bias(length, length)
    later = torch.ones(length, length, dtype=torch.bool, device=before.device).triu(1)
    bias = bias.masked_fill(later, _NOT_SEEN)
    for block in model.decoder.block:
        attend, cross, feed = block.layer
        hidden = hidden + _self_attention(attend, hidden, bias)
        hidden = hidden + _cross_attention(cross, hidden, encoded, seen)
        hidden = hidden + _feed_forward(feed, hidden)
    hidden = _norm(model.decoder.final_layer_norm, hidden) * model.config.d_model**-0.5
    return F.linear(hidden, model.shared.weight)


_NOT_SEEN = -1e4
"""What keeps a place out of an attention; a number that float16 holds."""


def _norm(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    weight = layer.weight
    return F.rms_norm(hidden, weight.shape, weight.to(hidden.dtype), layer.variance_epsilon)


def _self_attention(layer: Any, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    own = layer.SelfAttention
    joined = torch.cat([own.q.weight, own.k.weight, own.v.weight])
    rows = F.linear(_norm(layer.layer_norm, hidden), joined)
    queries, keys, values = (_heads(part, own.n_heads) for part in rows.chunk(3, dim=-1))
    bias = bias.to(queries.dtype)
    found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=1.0)
    return F.linear(found.transpose(1, 2).flatten(2), own.o.weight)


def _cross_attention(
    layer: Any, hidden: torch.Tensor, encoded: torch.Tensor, seen: torch.Tensor | None
) -> torch.Tensor:
    cross = layer.EncDecAttention
    queries = _heads(F.linear(_norm(layer.layer_norm, hidden), cross.q.weight), cross.n_heads)
    joined = torch.cat([cross.k.weight, cross.v.weight])
    keys, values = (
        _heads(part, cross.n_heads) for part in F.linear(encoded, joined).chunk(2, dim=-1)
    )
    mask = None if seen is None else seen[:, None, None, :].expand(-1, -1, hidden.shape[1], -1)
    found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=1.0)
    return F.linear(found.transpose(1, 2).flatten(2), cross.o.weight)


def _feed_forward(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    inner = layer.DenseReluDense
    rows = F.relu(F.linear(_norm(layer.layer_norm, hidden), inner.wi.weight))
    return F.linear(rows, inner.wo.weight)


def _heads(rows: torch.Tensor, count: int) -> torch.Tensor:
    return rows.view(*rows.shape[:-1], count, -1).transpose(1, 2)
