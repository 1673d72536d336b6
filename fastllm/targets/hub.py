"""Any encoder-decoder of transformers as a target: FLAN-T5-XL from the Hub, or a folder of ours.

The general path: the model's own forward call with a dynamic cache that is cropped to roll back.
"""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from fastllm.errors import CheckpointError
from fastllm.targets import Encoding
from fastllm.vocabulary import Vocabulary


class HubTarget:
    """An encoder-decoder model of transformers.

    Args:
        model: the model, in evaluation mode, on its device.
        vocabulary: its tokenizer.
        name: what to call it.
        prefix: put before every article ("summarize: " for T5 and FLAN-T5).
        source_length: the most source tokens to read, the end token included.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: Vocabulary,
        *,
        name: str,
        prefix: str = "",
        source_length: int = 512,
    ) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.name = name
        self.prefix = prefix
        self.source_length = source_length
        self.device: torch.device = model.device
        self.start_id = int(model.config.decoder_start_token_id)
        self.end_id = int(_first(model.config.eos_token_id))

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        prefix: str | None = None,
        source_length: int | None = None,
    ) -> "HubTarget":
        """Loads a checkpoint folder, or a model of the Hub by name.

        Args:
            name_or_folder: a folder that `save_pretrained` wrote, or OWNER/NAME.
            device: where to; the best there is by default.
            dtype: the type of the weights.
            prefix: put before every article; the checkpoint's own setting by default.
            source_length: the most source tokens; the checkpoint's own setting by default.

        Raises:
            CheckpointError: there is no encoder-decoder, or it is damaged.
        """
        device = torch.device(device) if device else best_device()
        try:
            config = AutoConfig.from_pretrained(str(name_or_folder))
            if not config.is_encoder_decoder:
                raise CheckpointError(
                    f"{name_or_folder} is a {config.model_type}: a target must be an "
                    "encoder-decoder, such as google/flan-t5-small."
                )
            model = AutoModelForSeq2SeqLM.from_pretrained(str(name_or_folder), dtype=dtype)
        except CheckpointError:
            raise
        except Exception as error:  # transformers and safetensors raise a dozen unrelated kinds
            raise CheckpointError(
                f"{name_or_folder} cannot be loaded as an encoder-decoder ({error}). Give a folder "
                "with config.json, weights and tokenizer, or a model's name on the Hub."
            ) from error
        own = getattr(config, "fastllm", None) or {}
        return cls(
            model.to(device).eval(),
            Vocabulary.load(name_or_folder),
            name=own.get("name", str(name_or_folder).rstrip("/").rsplit("/", 1)[-1]),
            prefix=own.get("prefix", "") if prefix is None else prefix,
            source_length=source_length or own.get("source_length", 512),
        )

    @torch.inference_mode()
    def encode(self, source_ids: list[int]) -> Encoding:
        """Runs the encoder once."""
        started = time.perf_counter()
        ids = torch.tensor([source_ids], device=self.device)
        states = self.model.get_encoder()(input_ids=ids).last_hidden_state
        synchronize(self.device)
        return Encoding(source_ids, states, time.perf_counter() - started)

    def begin(self, encoding: Encoding) -> "HubSession":
        """A fresh session over an encoded article."""
        return HubSession(self.model, encoding)


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
