"""Any encoder-decoder of transformers as a target: FLAN-T5-XL from the Hub, or a folder of ours.

The encoder is always that of transformers. A T5's decoder runs in the static engine
(`fastllm.targets.static`); every other one takes the general path: the model's own forward call
with a dynamic cache that is cropped to roll back.
"""

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BitsAndBytesConfig
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from fastllm.errors import CheckpointError, SettingsError
from fastllm.targets import Encoding, TargetSession
from fastllm.targets.static import StaticDecoder, require_fit, unfit
from fastllm.vocabulary import Vocabulary


class HubTarget:
    """An encoder-decoder model of transformers.

    Args:
        model: the model, in evaluation mode, on its device.
        vocabulary: its tokenizer.
        name: what to call it.
        prefix: put before every article ("summarize: " for T5 and FLAN-T5).
        source_length: the most source tokens to read, the end token included.
        engine: a name of ENGINES; "auto" takes the static one where it fits. What was chosen is in
            the attribute. The static engine copies the decoder's weights when it is first used.

    Raises:
        SettingsError: there is no such engine, or "static" does not fit the model.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: Vocabulary,
        *,
        name: str,
        prefix: str = "",
        source_length: int = 512,
        engine: str = "auto",
    ) -> None:
        if engine not in ENGINES:
            raise SettingsError(f"engine={engine!r}: give one of {', '.join(ENGINES)}.")
        self.model = model
        self.vocabulary = vocabulary
        self.name = name
        self.prefix = prefix
        self.source_length = source_length
        self.device: torch.device = model.device
        self.start_id = int(model.config.decoder_start_token_id)
        self.end_id = int(_first(model.config.eos_token_id))
        self.engine = engine
        if engine == "auto":
            self.engine = "transformers" if unfit(model) else "static"
        elif engine == "static":
            require_fit(model)

    @cached_property
    def _static(self) -> StaticDecoder:
        return StaticDecoder(self.model)

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        load_in: str | None = None,
        prefix: str | None = None,
        source_length: int | None = None,
        engine: str = "auto",
    ) -> "HubTarget":
        """Loads a checkpoint folder, or a model of the Hub by name.

        Args:
            name_or_folder: a folder that `save_pretrained` wrote, or OWNER/NAME.
            device: where to; the best there is by default.
            dtype: the type of the weights.
            load_in: a name of LOAD_IN, instead of `dtype`.
            prefix: put before every article; the checkpoint's own setting by default.
            source_length: the most source tokens; the checkpoint's own setting by default.
            engine: a name of ENGINES.

        Raises:
            CheckpointError: there is no encoder-decoder, or it is damaged.
            SettingsError: there is no such name in LOAD_IN or ENGINES, or the engine does not fit.
        """
        device = torch.device(device) if device else best_device()
        if load_in is not None and load_in not in LOAD_IN:
            raise SettingsError(f"load_in={load_in!r}: give one of {', '.join(LOAD_IN)}.")
        weights = {"dtype": dtype} if load_in is None else _weights(load_in, device)
        try:
            config = AutoConfig.from_pretrained(str(name_or_folder))
            if not config.is_encoder_decoder:
                raise CheckpointError(
                    f"{name_or_folder} is a {config.model_type}: a target must be an "
                    "encoder-decoder, such as google/flan-t5-small."
                )
            model = AutoModelForSeq2SeqLM.from_pretrained(str(name_or_folder), **weights)
        except CheckpointError:
            raise
        except Exception as error:  # transformers and safetensors raise a dozen unrelated kinds
            raise CheckpointError(
                f"{name_or_folder} cannot be loaded as an encoder-decoder ({error}). Give a folder "
                "with config.json, weights and tokenizer, or a model's name on the Hub."
            ) from error
        own = getattr(config, "fastllm", None) or {}
        if "quantization_config" not in weights:  # a quantised model is where it is to be
            model = model.to(device)
        return cls(
            model.eval(),
            Vocabulary.load(name_or_folder),
            name=own.get("name", str(name_or_folder).rstrip("/").rsplit("/", 1)[-1]),
            prefix=own.get("prefix", "") if prefix is None else prefix,
            source_length=source_length or own.get("source_length", 512),
            engine=engine,
        )

    @property
    def defaults(self) -> Mapping[str, int]:
        """What `model.generation_config` says; of `min_length` transformers counts the start token.

        `min_new_tokens` goes before `min_length`, as in `generate`.
        """
        own = self.model.generation_config
        least = own.min_new_tokens
        if least is None:
            least = (own.min_length or 0) - 1
        return {
            "no_repeat_ngram": max(0, own.no_repeat_ngram_size or 0),
            "min_new_tokens": max(0, least),
        }

    @torch.inference_mode()
    def encode(self, source_ids: list[int]) -> Encoding:
        """Runs the encoder once, and what the decoder makes of the article once."""
        static = self._static if self.engine == "static" else None  # made on nobody's clock
        started = time.perf_counter()
        ids = torch.tensor([source_ids], device=self.device)
        states = self.model.get_encoder()(input_ids=ids).last_hidden_state
        memory = None if static is None else static.remember(states)
        synchronize(self.device)
        seconds = time.perf_counter() - started
        return Encoding(source_ids, states, seconds, end_id=self.end_id, memory=memory)

    def begin(self, encoding: Encoding) -> TargetSession:
        """A fresh session over an encoded article."""
        if self.engine == "transformers":
            return HubSession(self.model, encoding)
        memory = encoding.memory
        return self._static.begin(
            self._static.remember(encoding.states) if memory is None else memory
        )


class HubSession:
    """A decoding in progress, through the model's own forward call."""

    def __init__(self, model: Any, encoding: Encoding) -> None:
        self._model = model
        self._states = BaseModelOutput(last_hidden_state=encoding.states)
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    @property
    def length(self) -> int:
        """How many decoder tokens the cache holds."""
        return int(self._cache.get_seq_length())

    @torch.inference_mode()
    def forward(self, ids: list[int]) -> torch.Tensor:
        """Appends `ids` to the cache; returns the logits behind each, shape (len(ids), V)."""
        out = self._model(
            encoder_outputs=self._states,
            decoder_input_ids=torch.tensor([ids], device=self._model.device),
            past_key_values=self._cache,
            use_cache=True,
        )
        synchronize(self._model.device)
        logits: torch.Tensor = out.logits[0]
        return logits

    def rollback(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        surplus = self.length - length
        if surplus > 0:
            # A negative number removes that many; a positive one is refused by transformers 5.23.
            self._cache.self_attention_cache.crop(-surplus)


ENGINES = ("auto", "static", "transformers")
"""Who runs the decoder."""


LOAD_IN = ("fp32", "bf16", "8bit", "4bit")
"""How weights may be held; the last two (LLM.int8 and NF4) need the library bitsandbytes."""


def _weights(load_in: str, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is to be told for a name of LOAD_IN."""
    if load_in in ("fp32", "bf16"):
        return {"dtype": torch.float32 if load_in == "fp32" else torch.bfloat16}
    quantised = BitsAndBytesConfig(
        load_in_8bit=load_in == "8bit",
        load_in_4bit=load_in == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {
        "dtype": torch.bfloat16,
        "quantization_config": quantised,
        "device_map": {"": device},
    }


def best_device() -> torch.device:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def synchronize(device: torch.device) -> None:
    """Waits until nothing is in flight, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _first(value: int | list[int]) -> int:
    return value[0] if isinstance(value, list) else value
