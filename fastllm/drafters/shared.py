"""The shared-encoder drafter: a decoder layer or two over what the target's encoder already said.

The target reads the article before it writes a word, and its encoder's output says more of the
text to come than a small encoder of the drafter's own could find out. So this drafter has none: it
is the decoder of a T5 with fewer layers, which attends to the target's encoder output and shares
the target's embedding and output matrix. Its checkpoint holds the layers alone, and is bound to one
target: the fingerprint of the embedding tells it.

It starts as a part of the target: as its first decoder layer, or as layers evenly spaced from the
first to the last (Gandhi et al. 2023, "Distil-Whisper", arXiv:2311.00430; Shleifer and Rush 2020,
arXiv:2010.13002). Both members of a before/after pair start so.

In training the network runs the target's encoder itself, frozen. In decoding it takes the states
of the `Encoding` that all lanes share.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from fastllm.drafters import DrafterSession, FamilySpec
from fastllm.drafters.kept import (
    KeptDecoder,
    KeptLayer,
    copy_kept,
    kept_blocks,
    kept_from_json,
    require_within,
)
from fastllm.drafters.neural import STARTS, NeuralDrafter
from fastllm.drafters.t5 import StaticText, T5Memory, T5Model, T5State, spread
from fastllm.errors import CheckpointError, SettingsError
from fastllm.targets import Encoding, Target
from fastllm.targets.encodings import EncodingCache, real_places
from fastllm.targets.hub import HubTarget
from fastllm.targets.slate import Choice, Written
from fastllm.targets.t5_decoder import StaticSession, unfit

FREQUENT = 512
"""The first so many ids are drafted besides the article's words."""

_OF_T5 = {
    "vocabulary_size": "vocab_size",
    "width": "d_model",
    "heads": "num_heads",
    "head_width": "d_kv",
    "feed_forward": "d_ff",
    "activation": "feed_forward_proj",
    "buckets": "relative_attention_num_buckets",
    "distance": "relative_attention_max_distance",
    "epsilon": "layer_norm_epsilon",
    "start_id": "decoder_start_token_id",
}
"""The sizes that are the target's, by the name that its configuration gives them."""


@dataclass(frozen=True)
class SharedSettings:
    """The sizes of a shared-encoder drafter; all but `layers` are its target's, see `like`.

    Attributes:
        scaled: whether features are scaled by width^-0.5 before the output.
        start_id: the token before every text.
        target: fingerprint of the embedding of the target that it is bound to.
        kept: of a pruned drafter (`fastllm prune`), the heads and columns of the target's decoder
            that each layer has; empty where layers are whole.
    """

    vocabulary_size: int
    width: int = 256
    heads: int = 4
    head_width: int = 64
    feed_forward: int = 1024
    layers: int = 1
    activation: str = "relu"
    buckets: int = 32
    distance: int = 128
    epsilon: float = 1e-6
    scaled: bool = True
    start_id: int = 0
    target: str = ""
    kept: tuple[KeptLayer, ...] = ()

    def __post_init__(self) -> None:
        inner = (self.width, self.heads, self.head_width, self.feed_forward)
        if min(self.vocabulary_size, self.layers, *inner) < 1:
            raise SettingsError(f"{self}: every size must be above 0.")
        if not 2 <= self.buckets < 2 * self.distance:
            raise SettingsError(f"{self}: buckets must be 2 or more, and fewer than 2 distance.")
        require_within(self.kept, self.heads, self.feed_forward)
        if self.kept and len(self.kept) != self.layers:
            raise SettingsError(f"{len(self.kept)} layers are kept, and layers={self.layers}.")

    @classmethod
    def like(cls, config: T5Config, layers: int, target: str) -> Self:
        """The sizes of a drafter for a target of this configuration."""
        found = {own: getattr(config, theirs) for own, theirs in _OF_T5.items()}
        scaled = bool(config.scale_decoder_outputs)
        return cls(layers=layers, target=target, scaled=scaled, **found)

    def config(self) -> T5Config:
        """The configuration of the network: a T5 without encoder layers."""
        config = T5Config(
            num_layers=0,
            num_decoder_layers=0 if self.kept else self.layers,  # those kept are put in later
            dropout_rate=0.0,
            tie_word_embeddings=False,  # both matrices are the target's, equal or not
            pad_token_id=0,
            eos_token_id=1,
            **{theirs: getattr(self, own) for own, theirs in _OF_T5.items()},
        )
        config.scale_decoder_outputs = self.scaled  # T5Config derives it from the tying
        return config


class TargetEncoder:
    """A target's encoder at work for a drafter: frozen, and no part of the drafter's weights.

    Training comes back to the same articles, so what was encoded is kept, up to `keep` bytes.
    Without an encoder the states are given (`hold`).
    """

    def __init__(self, encoder: nn.Module | None = None, keep: int = 1 << 30) -> None:
        self._encode = None if encoder is None else EncodingCache(encoder, keep=keep)
        self._dtype = torch.float32
        self._held: tuple[list[int], torch.Tensor] | None = None

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> BaseModelOutput:
        """The states of articles (B, S), padded at the end; 0 where padding is."""
        lengths = attention_mask.sum(1).tolist()
        articles = [row[:length] for row, length in zip(input_ids.tolist(), lengths, strict=True)]
        held = self._held
        if held is not None and all(ids == held[0] for ids in articles):
            rows = [held[1]] * len(articles)
        elif self._encode is None:
            raise SettingsError(
                "a shared-encoder drafter has no encoder of its own: call `bind` with its target "
                "before training, or begin from an Encoding of the target."
            )
        else:
            rows = self._encode(articles, input_ids.device)
        block = pad_sequence([row.to(self._dtype) for row in rows], batch_first=True)
        missing = input_ids.shape[1] - block.shape[1]
        return BaseModelOutput(functional.pad(block, (0, 0, 0, missing)))

    def hold(self, source_ids: Sequence[int], states: torch.Tensor) -> None:
        """Takes the states (S, d) of one article over; what it gives is in their type from now."""
        self._dtype = states.dtype
        self._held = list(source_ids), states


class SharedModel(nn.Module):
    """The network: see `NeuralModel` for the contract of its methods.

    Embedding and output matrix are here, so that everything finds them, but they are the target's:
    frozen, and not saved. `shares` is where the embedding lies in memory; 0 before it is known.
    """

    def __init__(self, settings: SharedSettings) -> None:
        super().__init__()
        network = T5ForConditionalGeneration(settings.config())
        if settings.kept:
            network.decoder.block = kept_blocks(network.decoder.config, settings.kept)
            network.config.num_decoder_layers = len(settings.kept)
        del network.encoder  # what stands in its place is no part of the weights
        network.encoder = TargetEncoder()
        self.decoder = T5Model(network, settings.kept)
        self._kept = settings.kept
        self.share(network.shared.weight, network.lm_head.weight)
        self.shares = 0

    @property
    def t5(self) -> T5ForConditionalGeneration:
        """The T5 that the layers are kept in."""
        network: T5ForConditionalGeneration = self.decoder.network
        return network

    def share(self, embedding: torch.Tensor, output: torch.Tensor) -> None:
        """Takes the embedding and the output matrix of a target, (V, d) both, without copying."""
        self.shares = embedding.data_ptr()
        frozen = nn.Parameter(embedding.detach(), requires_grad=False)
        tied = output.data_ptr() == self.shares
        self.t5.shared.weight = self.t5.decoder.embed_tokens.weight = frozen
        self.t5.lm_head.weight = (
            frozen if tied else nn.Parameter(output.detach(), requires_grad=False)
        )

    def cast(self, embedding: torch.Tensor) -> None:
        """Goes to the device and the type of a target's embedding."""
        self.to(embedding.device, embedding.dtype)
        if embedding.dtype == torch.float16:  # as transformers loads it: `wo` overflows
            for block in self.t5.decoder.block:
                block.layer[-1].DenseReluDense.wo.float()

    def bind(self, target: HubTarget) -> None:
        """Lets the network read articles through a target's encoder."""
        model = target.model
        self.share(model.get_input_embeddings().weight, model.get_output_embeddings().weight)
        self.t5.encoder = TargetEncoder(model.get_encoder())

    @torch.no_grad()
    def start_as(self, target: HubTarget) -> None:
        """Begins as layers of the target's decoder, evenly spaced from the first on."""
        theirs, own = target.model.decoder, self.t5.decoder
        for block, layer in zip(own.block, spread(len(theirs.block), len(own.block)), strict=True):
            # Where a layer is taken twice, the second has no use for the biases of the first.
            block.load_state_dict(theirs.block[layer].state_dict(), strict=False)
        own.final_layer_norm.load_state_dict(theirs.final_layer_norm.state_dict())

    def own_weights(self) -> dict[str, torch.Tensor]:
        """What is the drafter's and not the target's, by name."""
        at = "decoder.network."
        theirs = (f"{at}shared.", f"{at}decoder.embed_tokens.", f"{at}lm_head.")
        every = self.state_dict()
        return {name: tensor for name, tensor in every.items() if not name.startswith(theirs)}

    def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) after every token of `prefix`."""
        if self._kept:  # layers differ in their heads, which transformers cannot compute
            return self.logits(self.decoder.whole(self.remember(source), prefix))
        real = real_places(source).long()
        logits: torch.Tensor = self.t5(
            encoder_outputs=self.t5.encoder(source, real),
            attention_mask=real,
            decoder_input_ids=prefix,
            use_cache=False,
        ).logits
        return logits

    def frozen(self) -> None:
        """None, as of a T5."""

    def remember(self, source: torch.Tensor) -> T5Memory:
        """Reads articles (B, S), padded with 0."""
        return self.decoder.remember(source)

    def begin(self, memory: T5Memory) -> T5State:
        """The state before the first token."""
        return self.decoder.begin(memory)

    def step(
        self, memory: T5Memory, state: T5State, ids: torch.Tensor
    ) -> tuple[torch.Tensor, T5State]:
        """Reads one token of each text."""
        return self.decoder.step(memory, state, ids)

    def read(
        self, memory: T5Memory, state: T5State, ids: torch.Tensor
    ) -> tuple[torch.Tensor, list[T5State]]:
        """Reads T tokens of each text, ids (B, T), in one call."""
        return self.decoder.read(memory, state, ids)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Features to logits (..., V)."""
        return self.decoder.logits(features)


class _Layers(KeptDecoder):
    """The static engine without the output matrix: what comes out is what would go into it."""

    def _output(self, model: T5ForConditionalGeneration) -> Any:
        return torch.clone


class _Words:
    """The output matrix of an article's words, in memory that stays, for a step that is captured.

    There is `room` for so many words; what is left over is of a word behind the vocabulary.
    """

    def __init__(self, room: int, output: torch.Tensor, epsilon: float) -> None:
        self._size, self._epsilon = len(output), epsilon
        self._words = torch.zeros(room, dtype=torch.long, device=output.device)
        self._output = output.new_zeros(room, output.shape[1])

    def hold(self, words: torch.Tensor, output: torch.Tensor) -> None:
        """Takes an article's words over."""
        self._words.fill_(self._size)
        self._words[: len(words)] = words
        self._output.zero_()
        self._output[: len(words)] = output

    def __call__(self, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What stands before the output (d,) to logits (V,), and those of the words alone."""
        whole, some = _few_logits(row, self._output, self._words, self._size + 1, self._epsilon)
        return whole[: self._size], some


def _few_logits(
    row: torch.Tensor, output: torch.Tensor, words: torch.Tensor, size: int, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (size,) of a row (d,), minus infinity but for some words; and those of the words."""
    row = row.float()
    length = (row.dot(row) / len(row) + epsilon).rsqrt()
    some = torch.mv(output, (row * length).to(output.dtype))
    whole = some.new_full((size,), float("-inf"))
    return whole.index_copy_(0, words, some), some


class _SharedText(StaticText):
    """A `StaticText` with an output of a few hundred words.

    A summary's words are the article's or frequent ones, and ids are in the order of frequency (as
    the usual tokenizers number their pieces): so the output is computed for the article's words and
    the first `FREQUENT` ids, and q is 0 elsewhere. On the shipped target's held-out texts 99.7 % of
    the words are among these, and the output costs a fifteenth.

    Features are what stands before the output. Source: Zhao et al. 2025, "FR-Spec",
    arXiv:2502.14856 (there the frequent words alone).
    """

    def __init__(
        self, layers: _Layers, network: T5ForConditionalGeneration, source_ids: Sequence[int]
    ) -> None:
        super().__init__(layers)
        self._whole = output = network.lm_head.weight
        self._held, self._size = False, len(output)
        words = sorted({*range(min(FREQUENT, self._size)), *source_ids})
        self._words = torch.tensor(words, device=self.device)
        norm = network.decoder.final_layer_norm
        scale = network.config.d_model**-0.5 if network.config.scale_decoder_outputs else 1.0
        # the norm's own weights are folded in, in the type of the matrix
        self._output = output[self._words] * (norm.weight * scale)
        self._epsilon = norm.variance_epsilon

    def draft(
        self,
        session: StaticSession,
        state: int,
        text: Sequence[int],
        count: int,
        choice: Choice,
        uniforms: torch.Tensor,
    ) -> Written | None:
        """Writes a draft on the device, where calls are graphs."""
        few = min(FREQUENT, self._size)
        words = session.kept(lambda most: _Words(few + most, self._whole, self._epsilon))
        if words is None:
            return None
        if not self._held:
            words.hold(self._words, self._output)
            self._held = True
        session.rollback(state)
        return session.draft(text, count, choice, uniforms, words)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """What stands before the output to logits (V,), minus infinity for the words left out."""
        return _few_logits(features, self._output, self._words, self._size, self._epsilon)[0]


class SharedDrafter(NeuralDrafter[SharedSettings]):
    """A small decoder over the target's encoder output, as a drafter."""

    FAMILY: ClassVar[str] = "shared"
    SETTINGS: ClassVar[Any] = SharedSettings
    MODEL: ClassVar[Any] = SharedModel
    CHOSEN: ClassVar[Mapping[str, int]] = {"layers": 1}
    """The sizes that are not its target's, with their usual values."""

    @classmethod
    def fresh(
        cls,
        vocabulary_size: int,
        *,
        target: HubTarget | None = None,
        start: str = "copying",
        **given: Any,
    ) -> Self:
        """A drafter to be trained, bound to its target: see `NeuralDrafter.fresh`.

        Without a target only the sizes can be looked at, with the ordinary start, which is random;
        "copying" begins as layers of the target's decoder. Of the sizes those of CHOSEN can be
        given, or all of them where there is no target.

        Raises:
            SettingsError: the copying start without a target, a target that is no T5, or a size
                that is the target's to say.
        """
        if target is None:
            if start == "copying":
                raise SettingsError(
                    "a shared-encoder drafter starts as layers of its target: give target=, or "
                    "start='ordinary'."
                )
            return super().fresh(vocabulary_size, start=start, **given)
        if start not in STARTS:
            raise SettingsError(f"start={start!r}: give one of {', '.join(STARTS)}.")
        why = "a shared-encoder drafter is made of T5 layers. Take lstm, cnn or t5."
        model = _t5_of(target, why)
        sizes = {field.name for field in fields(cls.SETTINGS)} - {"vocabulary_size", "start_id"}
        if extra := (given.keys() & sizes) - cls.CHOSEN.keys():
            raise SettingsError(
                f"{', '.join(sorted(extra))}: the sizes of a {cls.FAMILY} drafter are its "
                f"target's; give {', '.join(f'`{name}`' for name in cls.CHOSEN)} alone."
            )
        chosen = {**cls.CHOSEN, **given}
        own = fingerprint(model.get_input_embeddings().weight)
        like = asdict(cls.SETTINGS.like(model.config, chosen["layers"], own))
        theirs = {name: like[name] for name in sizes}
        made = super().fresh(vocabulary_size, start="ordinary", **theirs | chosen)
        made.model.bind(target)
        if start == "copying":
            made.model.start_as(target)
        return made

    @classmethod
    def pruned(cls, target: HubTarget, kept: Sequence[KeptLayer], *, name: str = "pruned") -> Self:
        """A drafter that is a part of its target's decoder, untrained, and not quantised.

        Layers of which nothing is kept are left out.

        Raises:
            SettingsError: the target is no T5, or has no such parts.
        """
        model = _t5_of(target, "pruned drafters are made of T5 layers.")
        if not kept:
            raise SettingsError("nothing of the decoder is kept: keep a head or a column.")
        own = fingerprint(model.get_input_embeddings().weight)
        sizes = SharedSettings.like(model.config, len(kept), own)
        settings = replace(sizes, start_id=target.start_id, kept=tuple(kept))
        network = SharedModel(settings)
        copy_kept(model.decoder, network.t5.decoder, settings.kept, settings.head_width)
        network.cast(model.get_input_embeddings().weight)
        network.bind(target)
        return cls(network.eval(), settings, name, target.vocabulary.fingerprint)

    @classmethod
    def _read_settings(cls, written: dict[str, Any]) -> SharedSettings:
        sizes = dict(written)
        if sizes.pop("copies", False):  # earlier versions write it, nearly always as False
            raise CheckpointError("it has a copy mixture, which is not supported any more")
        return super()._read_settings(sizes | {"kept": kept_from_json(sizes.get("kept", []))})

    def _own_weights(self) -> dict[str, torch.Tensor]:
        """None of the target's."""
        weights: dict[str, torch.Tensor] = self.model.own_weights()
        return weights

    @property
    def parameters(self) -> int:
        """How many weights are its own: the target's embedding and output are not counted."""
        return sum(weight.numel() for weight in self._own_weights().values())

    def bind(self, target: Target) -> None:
        """As `Drafter.bind`; SettingsError: the target is no model of transformers."""
        if not isinstance(target, HubTarget):
            raise SettingsError(
                f"{target.name} is a {type(target).__name__}: {self.name} shares the weights of a "
                "model of transformers. Load the target with `fastllm.load_target`."
            )
        self._require(target.model.get_input_embeddings().weight)
        self.model.bind(target)

    @torch.inference_mode()
    def begin(self, encoding: Encoding) -> DrafterSession:
        """Takes over what the target said of the article; errors are those of `network`."""
        states = self._states(encoding)
        layers = self._layers()
        if layers is None:
            return self._session(self.model, self.network(encoding)[1], encoding)
        text = _SharedText(layers, self.model.t5, encoding.source_ids)
        return self._session(text, layers.begin(layers.remember(states)), encoding)

    @torch.inference_mode()
    def network(self, encoding: Encoding) -> tuple[T5Model, T5Memory]:
        """The network itself, outside the static engine, and the article as it has read it.

        Raises:
            CheckpointError: the encoding has no states of this width, or no embedding, or is
                another target's.
        """
        states, model = self._states(encoding), self.model
        model.t5.encoder.hold(encoding.source_ids, states[0])
        source = torch.tensor([encoding.source_ids], device=states.device)
        return model.decoder, model.remember(source)

    def _states(self, encoding: Encoding) -> torch.Tensor:
        """The encoder's output (1, S, d), in the network's type, which is now on its device."""
        states, width = encoding.states, self.settings.width
        if states is None or states.ndim != 3 or states.shape[-1] != width:
            found = "none" if states is None else f"the shape {tuple(states.shape)}"
            raise CheckpointError(
                f"{self.name} attends to encoder states (1, S, {width}) of its target; the "
                f"encoding has {found}. Take the target that it was trained for, or another "
                "drafter."
            )
        embedding = encoding.features.get("embedding")
        if embedding is not None and embedding.data_ptr() != self.model.shares:
            self._require(embedding)
            with torch.inference_mode(False):  # what is made there could not be changed later
                self.model.cast(embedding)
                self.model.share(embedding, encoding.features.get("output", embedding))
        if not self.model.shares:
            raise CheckpointError(
                f"{self.name} shares the embedding of its target, and this encoding does not offer "
                "it: its features need 'embedding' and 'output', as those of a HubTarget have. Or "
                "call `bind` with the target first."
            )
        # In float16 transformers leaves some weights of an encoder in float32: so are its states.
        return states.to(self.model.t5.shared.weight.dtype)

    def _require(self, embedding: torch.Tensor) -> None:
        """Refuses the embedding of another target than its own."""
        if embedding.dtype == torch.float16:
            return  # rounded otherwise than bfloat16, it tells nothing
        found = fingerprint(embedding)
        if self.settings.target and found != self.settings.target:
            raise CheckpointError(
                f"{self.name} was trained for the target with the fingerprint "
                f"{self.settings.target}; this one has {found}, and its encoder's output means "
                "nothing to it. Take the target that it was trained for, or train one for this "
                "target: `python -m fastllm train --recipe recipes/shared-after.yaml`."
            )

    def _layers(self) -> "_Layers | None":
        """The static engine with the weights as they are now; None where it does not fit."""
        network, kept = self.model.t5, self.settings.kept
        made: _Layers | None = self._memo.get(
            "static", self.model, lambda: None if unfit(network) else _Layers(network, kept)
        )
        return made


def _t5_of(target: HubTarget, why: str) -> T5ForConditionalGeneration:
    """The model of a target.

    Raises:
        SettingsError: it is no T5; `why` ends the message.
    """
    if type(target.model) is not T5ForConditionalGeneration:
        raise SettingsError(f"{target.name} is a {type(target.model).__name__}: {why}")
    return target.model


def fingerprint(embedding: torch.Tensor) -> str:
    """Tells a target by its embedding (V, d), at the price of reading 256 rows.

    Rounded to bfloat16, so that a checkpoint is the same in fp32 and in bf16.
    """
    rows = embedding.detach()[:: max(1, len(embedding) // 256)].to("cpu", torch.bfloat16).float()
    return hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()[:16]


SPEC = FamilySpec(
    "shared",
    "shared encoder",
    "a decoder layer or two over the encoder output of its target",
    SharedDrafter,
    bound_to_target=True,
)
