"""The T5 drafter: a tiny T5 of ours, or any T5 of transformers with the target's vocabulary.

It trains and saves as a plain `T5ForConditionalGeneration`: the checkpoint also loads in
transformers, as `assistant_model=` for the same target. Decoding does not go through transformers:
its bookkeeping costs a small model several times what the arithmetic does. The decoder is written
out here on the same weights, over keys and values that are kept; a test holds the two equal. That
serves batches and weights that change; a single text is drafted in the target's static engine.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationConfig, T5ForConditionalGeneration

from fastllm.devices import aligned
from fastllm.drafters import DrafterSession, FamilySpec
from fastllm.drafters.kept import KeptLayer
from fastllm.drafters.neural import NeuralDrafter, OneText
from fastllm.errors import CheckpointError, SettingsError
from fastllm.pretrain.copying_start import begin_like, start_copying, t5_config
from fastllm.targets import Encoding
from fastllm.targets.encodings import real_places, without_padding
from fastllm.targets.folder import WEIGHTS
from fastllm.targets.hub import HubTarget
from fastllm.targets.t5_decoder import StaticDecoder, StaticSession, unfit
from fastllm.vocabulary import Vocabulary


@dataclass(frozen=True)
class T5Settings:
    """The sizes of a T5 drafter.

    Attributes:
        layers: of the encoder and of the decoder: `generate` of transformers wants equal numbers.
        start_id: the token before every text.
        head_width: of each head, as in FLAN-T5-small, whose six heads are wider together than the
            model; 0 is width / heads.
    """

    vocabulary_size: int
    width: int = 144
    heads: int = 4
    layers: int = 1
    feed_forward: int = 512
    start_id: int = 0
    head_width: int = 0

    def __post_init__(self) -> None:
        sizes = (self.vocabulary_size, self.width, self.heads, self.layers, self.feed_forward)
        divides = self.head_width or not self.width % max(1, self.heads)
        if min(sizes) < 1 or self.head_width < 0 or not divides:
            raise SettingsError(
                f"{self}: every size must be above 0, and the width divisible by the heads unless "
                "head_width is given."
            )


class _Layer(NamedTuple):
    """The weights of a decoder layer; query, key and value of the text in one matrix.

    `heads` are those of the position biases that its attention to the text has; None is all.
    """

    own_norm: torch.Tensor
    own: torch.Tensor
    own_out: torch.Tensor
    cross_norm: torch.Tensor
    cross: torch.Tensor
    cross_out: torch.Tensor
    feed_norm: torch.Tensor
    enter: torch.Tensor
    gate: torch.Tensor | None
    leave: torch.Tensor
    heads: list[int] | None


class T5Memory(NamedTuple):
    """The article, and the decoder made ready to read token by token.

    Attributes:
        keys: of the article for each layer, (B, heads, S, d_kv); values likewise.
        mask: 0 where an article stands and -inf where padding does, (B, 1, 1, S); None: no padding.
        biases: of the attention to the token 0, 1, 2, ... places back, (heads, distances); what is
            farther away has the last one.
        layers: weights.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    mask: torch.Tensor | None
    biases: torch.Tensor
    layers: list[_Layer]


class _Cache:
    """Keys and values of a text, both (layers, B, heads, room, d_kv), of which some are filled.

    `near` are the biases towards the token the last of `room` looks back on, (heads, 1, room).
    """

    def __init__(
        self, keys: torch.Tensor, values: torch.Tensor, biases: torch.Tensor, filled: int
    ) -> None:
        self.keys = keys
        self.values = values
        self.filled = filled
        room = keys.shape[-2]
        back = torch.arange(room - 1, -1, -1, device=keys.device)
        self.near = biases[:, back.clamp(max=biases.shape[1] - 1)][:, None]

    def put(
        self, index: int, start: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds rows (B, heads, T, d_kv) of a layer behind `start` tokens; gives all up to them."""
        heads, end = key.shape[1], start + key.shape[2]
        keys, values = self.keys[index][:, :heads, :end], self.values[index][:, :heads, :end]
        keys[:, :, start:] = key
        values[:, :, start:] = value
        return keys, values


class T5State(NamedTuple):
    """The first `length` tokens of a cache; reading from the newest state appends to the cache."""

    cache: _Cache
    length: int

    def of(self, texts: Sequence[int]) -> "T5State":
        """The state of a batch of these texts of its own batch, each as often as it is named."""
        cache = copy.copy(self.cache)
        cache.keys, cache.values = cache.keys[:, texts], cache.values[:, texts]
        cache.filled = self.length
        return T5State(cache, self.length)


_ROOM = 96
"""Tokens that a cache has room for at first."""


class T5Model(nn.Module):
    """A T5 under the contract of `NeuralModel`: of these sizes, or a network as it is.

    `kept` is what the layers of such a network have, where they were cut out of others.
    """

    def __init__(
        self, sizes: T5Settings | T5ForConditionalGeneration, kept: Sequence[KeptLayer] = ()
    ) -> None:
        super().__init__()
        self._kept = tuple(kept)
        if isinstance(sizes, T5Settings):
            known = sizes.vocabulary_size, sizes.width, sizes.heads, sizes.layers, sizes.layers
            config = t5_config(*known, sizes.feed_forward, start_id=sizes.start_id)
            config.d_kv = sizes.head_width or config.d_kv
            sizes = T5ForConditionalGeneration(config)
        self.network = sizes

    def start_copying(
        self, generator: torch.Generator, start_id: int = 0, full_stop: int = 0
    ) -> None:
        """Lays an induction head down: see `fastllm.pretrain.copying_start`."""
        self.network.config.decoder_start_token_id = start_id
        start_copying(self.network, generator)
        begin_like(self.network, full_stop)

    def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) behind every token of `prefix`."""
        logits: torch.Tensor = self.network(
            input_ids=source,
            attention_mask=real_places(source).long(),
            decoder_input_ids=prefix,
            use_cache=False,
        ).logits
        return logits

    def frozen(self) -> None:
        """None: a single text is drafted in the static engine, or else by this network."""

    def remember(self, source: torch.Tensor) -> T5Memory:
        """Reads articles (B, S), padded with 0."""
        real = real_places(source)
        out = self.network.encoder(input_ids=source, attention_mask=real.long())
        states = out.last_hidden_state
        blocks = self.network.decoder.block
        whole: list[list[int] | None] = [None] * len(blocks)
        heads = [list(layer.own) for layer in self._kept] or whole
        width = self.network.config.d_kv
        crossing = [block.layer[1].EncDecAttention for block in blocks]
        mask = None
        if not real.all():
            mask = torch.zeros(real.shape, dtype=states.dtype, device=states.device)
            mask = aligned(mask.masked_fill(~real, float("-inf"))[:, None, None])
        first = blocks[0].layer[0].SelfAttention
        farthest = self.network.config.relative_attention_max_distance
        last_row = first.compute_bias(farthest + 1, farthest + 1)[0, :, -1]
        return T5Memory(
            [_heads(functional.linear(states, cross.k.weight), width) for cross in crossing],
            [_heads(functional.linear(states, cross.v.weight), width) for cross in crossing],
            mask,
            last_row.flip(-1),
            [_weights(block, own) for block, own in zip(blocks, heads, strict=True)],
        )

    def begin(self, memory: T5Memory) -> T5State:
        """The state before the first token."""
        batch, heads, width = len(memory.keys[0]), len(memory.biases), memory.keys[0].shape[-1]
        shape = (len(memory.layers), batch, heads, _ROOM, width)
        keys, values = memory.keys[0].new_zeros(shape), memory.keys[0].new_zeros(shape)
        return T5State(_Cache(keys, values, memory.biases, 0), 0)

    def step(
        self, memory: T5Memory, state: T5State, ids: torch.Tensor
    ) -> tuple[torch.Tensor, T5State]:
        """Reads one token of each text."""
        features, states = self.read(memory, state, ids[:, None])
        return features[:, 0], states[0]

    def read(
        self, memory: T5Memory, state: T5State, ids: torch.Tensor
    ) -> tuple[torch.Tensor, list[T5State]]:
        """Reads T tokens of each text, ids (B, T), in one call of the decoder.

        Embeddings (B, T, d) in the place of ids are read as those of tokens.
        """
        count, total = ids.shape[1], state.length + ids.shape[1]
        cache = _with_room(memory, state, total)
        if count == 1:
            bias = aligned(cache.near[None, :, :, cache.near.shape[-1] - total :])
        else:
            bias = _bias(memory, state.length, total)
        features = self.run(memory, ids, bias, T5State(cache, state.length))
        cache.filled = total
        return features, [T5State(cache, state.length + place + 1) for place in range(count)]

    @property
    def embedding(self) -> torch.Tensor:
        """The decoder's, (V, d)."""
        weight: torch.Tensor = self.network.decoder.embed_tokens.weight
        return weight

    def whole(self, memory: T5Memory, prefix: torch.Tensor) -> torch.Tensor:
        """Features (B, T, d) of whole texts, ids (B, T); gradients can be taken."""
        return self.run(memory, prefix, _bias(memory, 0, prefix.shape[1]))

    def run(
        self,
        memory: T5Memory,
        ids: torch.Tensor,
        bias: torch.Tensor,
        state: T5State | None = None,
    ) -> torch.Tensor:
        """The layers over the embeddings of ids (B, T); features (B, T, d).

        Args:
            memory: of the articles.
            ids: the tokens, or embeddings (B, T, d) in their place.
            bias: of their attention to the text, (1, heads, T, S).
            state: what stands before them, its cache with room for them; None: nothing does.
        """
        network = self.network
        epsilon = network.config.layer_norm_epsilon
        act: Any = network.decoder.block[0].layer[-1].DenseReluDense.act
        flow = ids if ids.is_floating_point() else functional.embedding(ids, self.embedding)
        size = (flow.shape[-1],)
        width = network.config.d_kv
        for index, layer in enumerate(memory.layers):
            normed = functional.rms_norm(flow, size, layer.own_norm, epsilon)
            parts = functional.linear(normed, layer.own).chunk(3, -1)
            query, key, value = (_heads(part, width) for part in parts)
            if state is not None:
                key, value = state.cache.put(index, state.length, key, value)
            own = bias if layer.heads is None else bias[:, layer.heads]
            found = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=own, scale=1.0
            )
            flow = flow + functional.linear(_joined(found), layer.own_out)
            normed = functional.rms_norm(flow, size, layer.cross_norm, epsilon)
            found = functional.scaled_dot_product_attention(
                _heads(functional.linear(normed, layer.cross), width),
                memory.keys[index],
                memory.values[index],
                attn_mask=memory.mask,
                scale=1.0,
            )
            flow = flow + functional.linear(_joined(found), layer.cross_out)
            normed = functional.rms_norm(flow, size, layer.feed_norm, epsilon)
            inner = act(functional.linear(normed, layer.enter))
            if layer.gate is not None:
                inner = inner * functional.linear(normed, layer.gate)
            # in float16 the last matrix of a layer may be float32
            inner = functional.linear(inner.to(layer.leave.dtype), layer.leave)
            flow = flow + inner.to(flow.dtype)
        return functional.rms_norm(flow, size, network.decoder.final_layer_norm.weight, epsilon)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Features (..., d) to logits (..., V)."""
        if self.network.config.scale_decoder_outputs:
            features = features * self.network.config.d_model**-0.5
        return functional.linear(features, self.network.lm_head.weight)


class T5Drafter(NeuralDrafter[T5Settings]):
    """A T5 as a drafter."""

    FAMILY: ClassVar[str] = "t5"
    SETTINGS: ClassVar[type] = T5Settings
    MODEL: ClassVar[Any] = T5Model

    @torch.inference_mode()
    def begin(self, encoding: Encoding) -> DrafterSession:
        """Reads the article."""
        drafter = self._rounded_for(encoding)
        if drafter is not self:
            return drafter.begin(encoding)
        decoder = self._decoder()
        if decoder is None:
            return super().begin(encoding)
        session = decoder.begin(
            decoder.remember(decoder.encoder(without_padding(encoding.source_ids)))
        )
        return self._session(StaticText(decoder), session, encoding)

    @torch.inference_mode()
    def network(self, encoding: Encoding) -> tuple[T5Model, T5Memory]:
        """The network itself, outside the static engine, and the article as it has read it."""
        model = self._rounded_for(encoding).model
        source = torch.tensor([encoding.source_ids], device=model.embedding.device)
        return model, model.remember(source)

    def _decoder(self) -> StaticDecoder | None:
        """The static engine with the weights as they are now; None where it does not fit."""
        network = self.model.network
        made: StaticDecoder | None = self._memo.get(
            "static", network, lambda: None if unfit(network) else StaticDecoder(network)
        )
        return made

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device | None = None) -> Self:
        """Loads what `save` wrote, or any T5 with its tokenizer: a folder, or a name on the Hub.

        Without our section in `config.json` the name is the folder's and the vocabulary that of
        the tokenizer beside the weights.

        Raises:
            CheckpointError: there is no whole T5.
        """
        try:
            # dropout would make the drafter's own training texts and its losses disagree
            network, report = T5ForConditionalGeneration.from_pretrained(
                str(folder), dtype=torch.float32, dropout_rate=0.0, output_loading_info=True
            )
            config = network.config
            if config.model_type != "t5":
                raise CheckpointError(f"it is a {config.model_type}, not a t5")
            if report["missing_keys"]:
                raise CheckpointError(f"it lacks {', '.join(sorted(report['missing_keys'])[:3])}")
            own = getattr(config, "fastllm", None) or {}
            fingerprint = own.get("vocabulary") or _fingerprint(folder, config.vocab_size)
            settings = T5Settings(
                config.vocab_size,
                config.d_model,
                config.num_heads,
                config.num_decoder_layers,
                config.d_ff,
                config.decoder_start_token_id,
                0 if config.d_kv * config.num_heads == config.d_model else config.d_kv,
            )
            name = own.get("name") or str(folder).rstrip("/").rsplit("/", 1)[-1]
            model = T5Model(network.to(device or "cpu")).eval()
            drafter = cls(model, settings, name, fingerprint, own.get("draft_temperature"))
            if (decoder := drafter._decoder()) is not None:
                _ = decoder.encoder  # both made now, and on nobody's clock
        except torch.OutOfMemoryError:  # no fault of the folder
            raise
        except Exception as error:  # transformers and safetensors raise a dozen unrelated kinds
            raise CheckpointError(
                f"{folder} is not a whole t5 drafter ({error}). It needs config.json and "
                "model.safetensors as `fastllm train` writes them, or to be a T5 with its "
                "tokenizer: a folder, or a name on the Hub such as google-t5/t5-small."
            ) from error
        return drafter

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
        """Writes a folder of transformers, its weights rounded to `dtype`.

        What we know of it beside the sizes stands in `config.json` under "fastllm".
        """
        ids = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
        config = self.model.network.config
        generation = GenerationConfig(**{name: getattr(config, name) for name in ids})
        self._write(folder, dtype, generation, self._header())

    def save_as_target(
        self, folder: str | Path, teacher: HubTarget, *, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        """Writes a target's folder: a T5 distilled from a target can stand in its place.

        It keeps the teacher's vocabulary, prefix, source length and generation settings, and also
        loads as a drafter, being a T5 with its tokenizer.
        """
        names = {"name": self.name, "prefix": teacher.prefix}
        own = names | {"source_length": teacher.source_length}
        self._write(folder, dtype, copy.deepcopy(teacher.model.generation_config), own)
        teacher.vocabulary.save(folder)

    def _write(self, folder: str | Path, dtype: torch.dtype, generation: Any, own: Any) -> None:
        network = copy.deepcopy(self.model.network).to("cpu", dtype)
        network.config.fastllm = own
        network.generation_config = generation
        network.save_pretrained(folder)

    def shrunk(self, layers: int) -> "T5Drafter":
        """The same T5 with fewer layers, copied: the first, the last, and evenly spaced between.

        Source: Shleifer and Rush 2020, "shrink and fine-tune", arXiv:2010.13002.

        Raises:
            SettingsError: it has fewer layers than that.
        """
        network = copy.deepcopy(self.model.network)  # and not a new one: what is tied stays tied
        config = network.config
        has = min(config.num_layers, config.num_decoder_layers)
        if not 1 <= layers <= has:
            raise SettingsError(
                f"layers={layers}: {self.name} has {config.num_layers} in its encoder and "
                f"{config.num_decoder_layers} in its decoder; give 1 to {has}."
            )
        config.num_layers = config.num_decoder_layers = layers
        for stack in (network.encoder, network.decoder):
            kept = [stack.block[index] for index in spread(len(stack.block), layers)]
            stack.block = nn.ModuleList(kept)
            stack.config.num_layers = stack.config.num_decoder_layers = layers
            for place, block in enumerate(kept):
                for module in block.modules():
                    if hasattr(module, "layer_idx"):  # its place in a cache of transformers
                        module.layer_idx = place
        settings = replace(self.settings, layers=layers)
        return T5Drafter(T5Model(network).eval(), settings, self.name, self.vocabulary)


def spread(count: int, kept: int) -> list[int]:
    """Which of `count` layers stay: the first, the last, the others evenly between.

    Example: of 12 layers 3 are 0, 6 and 11.
    """
    return [round(place * (count - 1) / max(1, kept - 1)) for place in range(kept)]


def _fingerprint(folder: str | Path, rows: int) -> str:
    vocabulary = Vocabulary.load(folder)
    if vocabulary.empty:
        raise CheckpointError("there is no tokenizer beside its weights")
    pieces = len(vocabulary.tokenizer)
    if pieces > rows:
        raise CheckpointError(f"its tokenizer has {pieces} pieces, its embedding {rows} rows")
    return vocabulary.fingerprint


class StaticText(OneText):
    """The static engine under the contract of `OneText`.

    The memory is a session, a state is how many tokens it has read, and features are logits.
    """

    reads_at_once = True

    def __init__(self, decoder: StaticDecoder) -> None:
        self.device = decoder.device
        self.drafts = decoder.device.type == "cuda"

    def begin(self, session: StaticSession) -> int:
        """The state before the first token."""
        return 0

    def read(
        self, session: StaticSession, state: int, tokens: Sequence[int]
    ) -> tuple[Sequence[torch.Tensor], Sequence[int]]:
        """Reads tokens in one call."""
        session.rollback(state)
        rows = session.forward(list(tokens))
        return rows.unbind(0), range(state + 1, state + len(tokens) + 1)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """What was computed already."""
        return features


def _weights(block: Any, heads: list[int] | None) -> _Layer:
    own, cross, feed = block.layer
    attention, inner = own.SelfAttention, feed.DenseReluDense
    gated = hasattr(inner, "wi_0")
    return _Layer(
        own.layer_norm.weight,
        torch.cat([attention.q.weight, attention.k.weight, attention.v.weight]),
        attention.o.weight,
        cross.layer_norm.weight,
        cross.EncDecAttention.q.weight,
        cross.EncDecAttention.o.weight,
        feed.layer_norm.weight,
        inner.wi_0.weight if gated else inner.wi.weight,
        inner.wi_1.weight if gated else None,
        inner.wo.weight,
        heads,
    )


def _with_room(memory: T5Memory, state: T5State, total: int) -> _Cache:
    """A cache to append to: the state's own, or a copy where that one has gone on or is full."""
    cache, room = state.cache, state.cache.keys.shape[-2]
    if cache.filled == state.length and total <= room:
        return cache
    while room < total:
        room *= 2
    missing = (0, 0, 0, room - state.length)
    keys, values = (
        functional.pad(old[..., : state.length, :], missing) for old in (cache.keys, cache.values)
    )
    return _Cache(keys, values, memory.biases, state.length)


def _bias(memory: T5Memory, length: int, total: int) -> torch.Tensor:
    """Biases of tokens `length` to `total` towards all up to themselves, (1, heads, T, total)."""
    places = torch.arange(total, device=memory.biases.device)
    back = places[length:, None] - places
    farthest = memory.biases.shape[1] - 1
    biases = memory.biases[:, back.clamp(0, farthest)]
    return aligned(biases.masked_fill(back < 0, float("-inf"))[None])


def _heads(rows: torch.Tensor, width: int) -> torch.Tensor:
    """(B, T, heads * width) to (B, heads, T, width)."""
    return rows.view(*rows.shape[:-1], rows.shape[-1] // width, width).transpose(1, 2)


def _joined(heads: torch.Tensor) -> torch.Tensor:
    """(B, heads, T, width) to (B, T, heads * width)."""
    return heads.transpose(1, 2).flatten(2)


SPEC = FamilySpec(
    "t5",
    "T5",
    "a small T5",
    T5Drafter,
    required_keys=(),
    weights=WEIGHTS,
    model_type="t5",
)
