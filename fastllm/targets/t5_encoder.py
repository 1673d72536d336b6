"""The encoder of a T5 for one article, written out as its decoder is (`t5_decoder`).

In float32 on a CPU, and where float16 holds its matrices (`fastllm.targets.matrices`): these are
then read in half the time, query, key and value are one product, nothing is masked where nothing is
padded, and the relative biases are computed once for all articles. Other encoders stay those of
transformers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import nn
from torch.nn import functional

from fastllm.targets.matrices import Dense, Matrix, can_halve, halves, matrix

_PLACES = 512
"""For articles of up to so many tokens the biases are kept; longer ones compute their own."""

_LARGE = 1 << 25
"""An encoder of more weights takes long, and stays that of transformers: the page hooks on to its
layers, so that one who waits can stop it."""

ACTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu_,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu": functional.gelu,
    "silu": partial(functional.silu, inplace=True),
}
"""The activations by the name that a configuration gives them."""


def foreign(stack: Any) -> str:
    """What stands in an encoder or a decoder that a T5 has not, in words; empty where all is known.

    A LoRA adapter, a quantised layer or a bias would be passed over.
    """
    known = ("Linear", "Embedding", "T5LayerNorm")
    for name, module in stack.named_modules():
        if hasattr(module, "weight") and type(module).__name__ not in known:
            return f"{name} is a {type(module).__name__}"
    return ""


class FeedForward(NamedTuple):
    """The last part of a layer: its norm and first matrix, or both halves of it where gated."""

    enter: Matrix
    leave: Matrix
    act: Callable[[torch.Tensor], torch.Tensor]
    gated: bool

    @classmethod
    def of(cls, part: Any, config: Any) -> Self:
        """Made of a T5LayerFF and the configuration."""
        inner, epsilon = part.DenseReluDense, config.layer_norm_epsilon
        gated = hasattr(inner, "wi_0")
        enter = [inner.wi_0.weight, inner.wi_1.weight] if gated else [inner.wi.weight]
        # in float16 `wo` is float32, and what it is multiplied with is not
        alike = inner.wo.weight.dtype == enter[0].dtype
        return cls(
            matrix(enter, part.layer_norm.weight, epsilon=epsilon),
            matrix([inner.wo.weight]) if alike else Dense(inner.wo.weight),
            ACTS[config.dense_act_fn],
            gated,
        )

    def add(self, flow: torch.Tensor) -> None:
        """Adds what comes out of rows (T, d) to them."""
        between = self.enter(flow)
        if self.gated:
            gate, between = between.chunk(2, -1)
            between = self.act(gate) * between
        else:
            between = self.act(between)
        self.leave.add(flow, between)


def fits(model: Any) -> bool:
    """Whether an encoder is one for which this pays, and which it gives exactly."""
    weights = list(model.encoder.parameters())
    matrices = [part.weight for part in model.encoder.modules() if isinstance(part, nn.Linear)]
    return (
        can_halve()
        and all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)
        and model.config.dense_act_fn in ACTS
        and not foreign(model.encoder)
        and sum(weight.numel() for weight in matrices) <= _LARGE
        and all(halves(weight) for weight in matrices)
    )


class StaticEncoder:
    """The encoder of a T5 that `fits`, copied: later changes of the weights do not reach it."""

    @torch.inference_mode()
    def __init__(self, model: Any) -> None:
        config, stack = model.config, model.encoder
        self._embedding = stack.embed_tokens.weight
        self._shape = (3, int(config.num_heads), int(config.d_kv))
        self._norm = stack.final_layer_norm.weight
        self._epsilon = config.layer_norm_epsilon
        self._layers = []
        for block in stack.block:
            own, attention = block.layer[0], block.layer[0].SelfAttention
            weights = [attention.q.weight, attention.k.weight, attention.v.weight]
            enter = matrix(weights, own.layer_norm.weight, epsilon=self._epsilon)
            feed = FeedForward.of(block.layer[1], config)
            self._layers.append((enter, matrix([attention.o.weight]), feed))
        self._first = stack.block[0].layer[0].SelfAttention
        self._biases = self._bias(_PLACES)

    def _bias(self, count: int) -> torch.Tensor:
        """The relative biases, (1, heads, count, count); those of fewer tokens are its corner."""
        biases: torch.Tensor = self._first.compute_bias(count, count)
        return biases.contiguous()

    @torch.inference_mode()
    def __call__(self, source_ids: list[int]) -> torch.Tensor:
        """The states (1, S, d) of an article."""
        count = len(source_ids)
        biases = self._biases if count <= _PLACES else self._bias(count)
        bias = biases[:, :, :count, :count]
        flow = functional.embedding(torch.tensor(source_ids), self._embedding)
        for enter, leave, feed in self._layers:
            rows = enter(flow).view(1, count, *self._shape).permute(2, 0, 3, 1, 4)
            query, key, value = rows.unbind(0)
            found = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=bias, scale=1.0
            )
            leave.add(flow, found.transpose(1, 2).reshape(count, -1))
            feed.add(flow)
        return functional.rms_norm(flow, (flow.shape[-1],), self._norm, self._epsilon)[None]
