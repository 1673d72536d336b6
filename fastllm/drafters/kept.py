"""Parts of a target's decoder as a decoder of their own: some heads, some feed-forward columns.

A head is `d_kv` rows of the query, key and value matrices and as many columns of the output; a
feed-forward column is a row of the first matrix (of both, where there is a gate) and a column of
the last. Leaving them out is the same as multiplying what they add with 0, and costs nothing. A
sublayer of which nothing is kept is not computed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Block

from fastllm.errors import SettingsError
from fastllm.targets.t5_decoder import Crossing, StaticDecoder


@dataclass(frozen=True)
class KeptLayer:
    """What is kept of one layer of a target's decoder, by the target's own numbers.

    Heads of the attention to the text (`own`) and to the article (`cross`), and feed-forward
    columns.
    """

    layer: int
    own: tuple[int, ...]
    cross: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        return not (self.own or self.cross or self.columns)


def kept_from_json(rows: Sequence[dict[str, Any]]) -> tuple[KeptLayer, ...]:
    """What `dataclasses.asdict` made of kept layers."""
    return tuple(
        KeptLayer(row["layer"], tuple(row["own"]), tuple(row["cross"]), tuple(row["columns"]))
        for row in rows
    )


def require_within(kept: Sequence[KeptLayer], heads: int, columns: int) -> None:
    """Refuses parts that a decoder of these sizes does not have.

    Raises:
        SettingsError: says which.
    """
    for layer in kept:
        for what, chosen, most in (
            ("heads of the attention to the text", layer.own, heads),
            ("heads of the attention to the article", layer.cross, heads),
            ("feed-forward columns", layer.columns, columns),
        ):
            if list(chosen) != sorted(set(chosen)) or (chosen and not 0 <= chosen[-1] < most):
                raise SettingsError(
                    f"layer {layer.layer} keeps the {what} {chosen}: give numbers from 0 to "
                    f"{most - 1}, each once and in order."
                )
        if layer.empty:
            raise SettingsError(f"layer {layer.layer} keeps nothing: leave it out.")


def kept_blocks(config: T5Config, kept: Sequence[KeptLayer]) -> nn.ModuleList:
    """The decoder layers of a network that has these parts; their matrices are not filled.

    `config` is of the whole decoder. Position biases are kept for all its heads.
    """
    blocks = []
    for place, layer in enumerate(kept):
        block = T5Block(config, has_relative_attention_bias=place == 0, layer_idx=place)
        for linear, inside, inputs in _matrices(block, layer, config.d_kv):
            shape = (config.d_model, len(inside)) if inputs else (len(inside), config.d_model)
            linear.out_features, linear.in_features = shape
            linear.weight = nn.Parameter(torch.empty(shape))
        blocks.append(block)
    return nn.ModuleList(blocks)


@torch.no_grad()
def copy_kept(theirs: Any, own: Any, kept: Sequence[KeptLayer], head_width: int) -> None:
    """Fills a decoder that `kept_blocks` made with the parts of a target's, maybe quantised."""
    for block, layer in zip(own.block, kept, strict=True):
        source = theirs.block[layer.layer]
        wholes = _matrices(source, layer, head_width)
        parts = _matrices(block, layer, head_width)
        for (linear, inside, inputs), (whole, _, _) in zip(parts, wholes, strict=True):
            matrix = matrix_of(whole)
            chosen = torch.tensor(inside, dtype=torch.long, device=matrix.device)
            linear.weight.copy_(matrix.index_select(1 if inputs else 0, chosen))
        for mine, given in zip(block.layer, source.layer, strict=True):
            mine.layer_norm.load_state_dict(given.layer_norm.state_dict())
    biases = theirs.block[0].layer[0].SelfAttention.relative_attention_bias
    own.block[0].layer[0].SelfAttention.relative_attention_bias.load_state_dict(biases.state_dict())
    own.final_layer_norm.load_state_dict(theirs.final_layer_norm.state_dict())


def matrix_of(linear: Any) -> torch.Tensor:
    """The matrix (out, in) that a linear layer multiplies with, quantised or not."""
    if type(linear) is nn.Linear:
        return linear.weight
    # What a layer of another kind does to the unit vectors: its matrix, however it is held.
    inputs = int(linear.in_features)
    device = next(linear.parameters()).device
    rows: torch.Tensor = linear(torch.eye(inputs, device=device, dtype=torch.float16))
    return rows.t()


def _matrices(
    block: Any, layer: KeptLayer, head_width: int
) -> list[tuple[nn.Linear, list[int], bool]]:
    """A layer's matrices: which numbers inside the sublayer are kept, and whether it takes them."""
    own, cross, feed = block.layer
    found = []
    for part, heads in ((own.SelfAttention, layer.own), (cross.EncDecAttention, layer.cross)):
        inside = [head * head_width + at for head in heads for at in range(head_width)]
        found += [(linear, inside, False) for linear in (part.q, part.k, part.v)]
        found.append((part.o, inside, True))
    inner, columns = feed.DenseReluDense, list(layer.columns)
    enter = [inner.wi_0, inner.wi_1] if hasattr(inner, "wi_0") else [inner.wi]
    return [*found, *((linear, columns, False) for linear in enter), (inner.wo, columns, True)]


class KeptDecoder(StaticDecoder):
    """The static engine of a decoder of which layers have lost heads, columns or sublayers.

    Keys and values lie in buffers for the most heads that a layer has; a layer uses the first of
    them. Where nothing is named, layers are whole and go the way of `StaticDecoder`.
    """

    def __init__(self, model: T5ForConditionalGeneration, kept: Sequence[KeptLayer] = ()) -> None:
        self._kept = tuple(kept)
        super().__init__(model)

    def _adapt(self) -> None:
        if not self._kept:
            return
        self._heads = max(1, *(max(len(layer.own), len(layer.cross)) for layer in self._kept))
        # The biases of every layer's heads, one layer behind the other: a layer's are a view.
        every = [head for layer in self._kept for head in layer.own]
        self._biases = self._biases[torch.tensor(every, dtype=torch.long, device=self.device)]

    @torch.inference_mode()
    def remember(self, states: torch.Tensor) -> Crossing:
        """The keys and values of an article, from the encoder's output (1, S, d)."""
        if not self._kept:
            return super().remember(states)
        rows = self._crossing(states[0].to(self.dtype))
        both = rows.new_zeros(2, len(self._kept), 1, self._heads, len(rows), self._width)
        sizes = [len(layer.cross) * self._width for layer in self._kept for _ in "kv"]
        for number, part in enumerate(torch.split(rows, sizes, 1)):
            index, side = divmod(number, 2)
            if heads := len(self._kept[index].cross):
                split = part.view(len(rows), heads, self._width).transpose(0, 1)
                both[side, index, 0, :heads] = split
        return Crossing(both[0], both[1])

    def _compute(self, ids: torch.Tensor, place: Any) -> torch.Tensor:
        if not self._kept:
            return super()._compute(ids, place)
        count, width = len(ids), self._width
        attend, batch, bias = self._attention(place)
        flow = functional.embedding(ids, self.embedding).to(self._flow)
        first = 0
        for index, (kept, layer) in enumerate(zip(self._kept, self._layers, strict=True)):
            heads = len(kept.own)
            if heads:
                query, fresh = torch.split(layer.own(flow), [heads * width, 2 * heads * width], 1)
                if heads < self._heads:  # the buffers are for more
                    missing = (0, 0, 0, self._heads - heads)
                    fresh = functional.pad(fresh.view(count, 2, heads, width), missing).flatten(1)
                place.write(index, fresh)
                found = attend(
                    query.view(*batch, count, heads, width).transpose(-3, -2),
                    place.keys[index][..., :heads, :, :],
                    place.values[index][..., :heads, :, :],
                    bias[..., first : first + heads, :, :],
                )
                layer.own_out.add(flow, found.transpose(-3, -2).reshape(count, heads * width))
                first += heads
            heads = len(kept.cross)
            if heads:
                found = attend(
                    layer.cross(flow).view(*batch, count, heads, width).transpose(-3, -2),
                    place.article.keys[index][..., :heads, :, :],
                    place.article.values[index][..., :heads, :, :],
                    place.mask,
                )
                layer.cross_out.add(flow, found.transpose(-3, -2).reshape(count, heads * width))
            if kept.columns:
                layer.feed.add(flow)
        return self._last(flow)


@contextmanager
def masked(decoder: Any, kept: Sequence[KeptLayer], head_width: int) -> Iterator[None]:
    """Lets a target's decoder compute for a while as if it had these parts alone.

    What the others add is multiplied with 0, in the matrix's own arithmetic: quantised weights will
    do, and nothing is copied. A layer that is not named keeps nothing.
    """
    named = {layer.layer: layer for layer in kept}
    handles = []
    try:
        for index, block in enumerate(decoder.block):
            layer = named.get(index, KeptLayer(index, (), (), ()))
            for linear, inside, inputs in _matrices(block, layer, head_width):
                if inputs:
                    mask = torch.zeros(int(linear.in_features), device=linear.weight.device)
                    mask[inside] = 1.0
                    handles.append(linear.register_forward_pre_hook(partial(_multiply, mask)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _multiply(mask: torch.Tensor, linear: Any, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return inputs[0] * mask.to(inputs[0].dtype)
