"""Any encoder-decoder of transformers as a target: FLAN-T5-XL from the Hub, or a folder of ours.

A T5 runs in the static engine (`fastllm.targets.t5_decoder`); every other model, and one that
accelerate has spread over several devices (`device_map`), takes the general path: the model's own
forward call with a dynamic cache that is cropped to roll back.
"""

import logging
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BitsAndBytesConfig
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from fastllm.devices import prepare, usable_device
from fastllm.errors import CheckpointError, FastLLMWarning, SettingsError
from fastllm.targets import Encoding, Target, TargetSession
from fastllm.targets.folder import read_json, require_weights
from fastllm.targets.t5_decoder import StaticDecoder, require_fit, unfit
from fastllm.vocabulary import Vocabulary
from fastllm.words import echoed, first_line


class HubTarget:
    """An encoder-decoder model of transformers; its attributes are those of `Target`.

    Args:
        model: the model, in evaluation mode, on its device.
        vocabulary: its tokenizer.
        name: what to call it.
        prefix: put before every article ("summarize: " for T5 and FLAN-T5).
        source_length: the most source tokens to read, the end token included; no more than the
            encoder has positions for.
        engine: a name of ENGINES; "auto" takes the static one where it fits, which copies the
            decoder's weights when it is first used.

    Raises:
        CheckpointError: nothing says which token begins, or which one ends, a text.
        SettingsError: there is no such engine, "static" does not fit the model, or the source
            length is below 1.
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
        if source_length < 1:
            raise SettingsError(f"source_length={source_length}: give at least 1.")
        self.model = model
        self.vocabulary = vocabulary
        self.name = name
        self.prefix = prefix
        most = _positions(model.get_encoder())
        self.source_length = source_length if most is None else min(source_length, most)
        self.longest_text = _positions(model.get_decoder())
        self.device = entry_device(model)
        prepare(self.device)
        self.start_id = _tokens(model, ("decoder_start_token_id", "bos_token_id"), name)[0]
        self.end_ids = _tokens(model, ("eos_token_id",), name)
        self.end_id = self.end_ids[0]
        configs = (model.generation_config, model.config)
        named = (getattr(config, "pad_token_id", None) for config in configs)
        # As in `generate` of transformers, where none is named.
        self.pad_id = next((token for token in named if token is not None), self.end_id)
        self.pad_id = _whole("pad_token_id", self.pad_id)
        self.unsupported = unsupported(model)
        own, size = self.defaults, self.logit_count
        for setting, token, least in (
            ("decoder_start_token_id", self.start_id, 0),
            ("forced_bos_token_id", own["forced_first"], -1),
            ("forced_eos_token_id", own["forced_last"], -1),
        ):
            if not least <= token < size:
                raise _damaged(setting, token, f"none of its {size} tokens")
        if engine == "auto":
            engine = "transformers" if unfit(model) else "static"
        elif engine == "static":
            require_fit(model)
        self._engine = engine

    @property
    def engine(self) -> str:
        """What runs the decoder: a name of ENGINES, and what it had to do without."""
        made = self.__dict__.get("_static")  # not made in order to ask
        failure = "" if made is None else made.graphs_failure
        return f"{self._engine} without CUDA graphs ({failure})" if failure else self._engine

    @property
    def logit_count(self) -> int:
        """How many tokens it gives a logit for, padding of the matrix included."""
        return number_of_logits(self.model)

    @property
    def decoder_bytes(self) -> int:
        """Bytes of weights that the static engine reads for a token; 0 with the other engine."""
        return self._static.bytes if self._engine == "static" else 0

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
        device_map: str | dict[str, Any] | None = None,
        prefix: str | None = None,
        source_length: int | None = None,
        engine: str = "auto",
    ) -> "HubTarget":
        """Loads a checkpoint folder, or a model of the Hub by name.

        Args:
            name_or_folder: a folder that `save_pretrained` wrote, or OWNER/NAME.
            device: where to; the best there is by default.
            dtype: the type of the weights.
            load_in: a name of PRECISIONS, instead of `dtype`.
            device_map: instead of `device`, how accelerate spreads the model: "auto", or module
                names with devices ("cpu" and "disk" are for what does not fit the GPUs). On several
                devices the engine is "transformers".
            prefix: put before every article; by default the checkpoint's own setting, or what its
                configuration names for the task "summarization".
            source_length: the most source tokens; the checkpoint's own setting by default.
            engine: a name of ENGINES.

        Raises:
            CheckpointError: there is no encoder-decoder, or it is incomplete or damaged, or its
                forward call needs what is not passed here.
            SettingsError: there is no such device, no such name in PRECISIONS or ENGINES, the
                engine does not fit, or both `device` and `device_map` are given.

        Warns:
            FastLLMWarning: something is in `unsupported`, or the prefix comes from the
                configuration's task.
        """
        if load_in is not None and load_in not in PRECISIONS:
            raise SettingsError(f"load_in={load_in!r}: give one of {', '.join(PRECISIONS)}.")
        if device is not None and device_map is not None:
            raise SettingsError(
                f"device={str(device)!r} and device_map={device_map!r} exclude each other: give "
                "one of them."
            )
        place = usable_device(device)
        weights: dict[str, Any] = {"dtype": dtype}
        if load_in is not None:
            weights = _weights(load_in, place)
        if device_map is not None:
            weights["device_map"] = device_map
        path, text = Path(name_or_folder), str(name_or_folder)
        on_hub = not text.startswith((".", "/", "~")) and text.count("/") <= 1 and "\\" not in text
        if path.exists() or not on_hub:
            _require_whole(path)
        model, own = _read(text, weights)
        if "device_map" not in weights:
            model = model.to(place)
        tasks = getattr(model.config, "task_specific_params", None) or {}
        named: str = (tasks.get("summarization") or {}).get("prefix") or ""
        target = cls(
            model.eval(),
            _vocabulary(name_or_folder, model),
            name=own.get("name", text.rstrip("/").rsplit("/", 1)[-1]),
            prefix=own.get("prefix", named) if prefix is None else prefix,
            source_length=source_length or own.get("source_length", 512),
            engine=engine,
        )
        target.require_usable()
        if prefix is None and "prefix" not in own and named:
            warnings.warn(
                f"{target.name}: its config.json names the prefix {named!r} for summarization, and "
                'it is put before every article. Give prefix="" to do without, or another one.',
                FastLLMWarning,
                stacklevel=2,
            )
        if target.unsupported:
            warnings.warn(notice(target), FastLLMWarning, stacklevel=2)
        return target

    @property
    def defaults(self) -> Mapping[str, int]:
        """As `Target.defaults`; `min_new_tokens` goes before `min_length`, as in `generate`."""
        own = self.model.generation_config
        if own.min_new_tokens is not None:
            least = _whole("min_new_tokens", own.min_new_tokens)
        else:  # of `min_length` transformers counts the start token
            least = _whole("min_length", own.min_length or 0) - 1
        # Of several last tokens greedy `generate` writes the one with the smallest id.
        return {
            "no_repeat_ngram": max(
                0, _whole("no_repeat_ngram_size", own.no_repeat_ngram_size or 0)
            ),
            "min_new_tokens": max(0, least),
            "forced_first": min(_listed("forced_bos_token_id", own), default=-1),
            "forced_last": min(_listed("forced_eos_token_id", own), default=-1),
        }

    def require_usable(self) -> None:
        """Refuses a model that needs what is not passed here, by trying a text of three tokens.

        Raises:
            CheckpointError: its own forward call fails, gives something else than logits, or other
                ones for several tokens than one by one; or it has no cache that goes back.
        """
        if self._engine != "transformers":
            return
        tokens = [self.logit_count // part for part in range(2, 6)]
        text = [self.start_id, *tokens[:2]]
        try:
            encoding = self.encode([*tokens, self.end_id])
            session = self.begin(encoding)
            alone = torch.cat([session.forward([token]) for token in text])
            session = self.begin(encoding)
            first = session.forward(text)
            session.keep(1)
            again = session.forward(text[1:])
            if alone.shape[0] != 3 or first.shape != alone.shape or session.length != 3:
                raise CheckpointError(f"logits of shape {tuple(first.shape)} for three tokens")
            # Some decoders mask or place several tokens behind a cache in another way than one.
            apart = max(float((first - alone).abs().max()), float((again - alone[1:]).abs().max()))
            share = 1e-3 if alone.dtype == torch.float32 else 0.1
            if apart > share * float(alone.max() - alone.min()):  # NaN is told when a text is
                raise CheckpointError("several tokens in one call get other logits than one by one")
        except Exception as error:  # a model of others may raise anything
            raise CheckpointError(
                f"{self.name}: a {type(self.model).__name__} cannot be decoded here, since a text "
                f"of three tokens fails ({first_line(error)}). It needs an encoder-decoder whose "
                "decoder takes the encoder's output, token ids and a cache, such as T5, BART or "
                "Pegasus."
            ) from error

    @torch.inference_mode()
    def encode(self, source_ids: list[int]) -> Encoding:
        """Runs the encoder once, and what the decoder makes of the article once."""
        static = self._static if self._engine == "static" else None
        encoder: Any = self.model.get_encoder() if static is None else static.encoder
        started = time.perf_counter()  # what was made so far is on nobody's clock
        if static is None:
            ids = torch.tensor([source_ids], device=self.device)
            states = encoder(input_ids=ids).last_hidden_state.to(self.device)
        else:
            states = encoder(source_ids)
        memory = None if static is None else static.remember(states)
        synchronize(self.device)
        seconds = time.perf_counter() - started
        output = self.model.get_output_embeddings().weight
        features = {"embedding": self.model.get_input_embeddings().weight, "output": output}
        return Encoding(
            source_ids, states, seconds, features, self.end_id, memory, size=len(output)
        )

    def begin(self, encoding: Encoding) -> TargetSession:
        """A fresh session over an encoded article."""
        if self._engine == "transformers":
            return HubSession(self.model, encoding)
        static, memory = self._static, encoding.memory
        return static.begin(static.remember(encoding.states) if memory is None else memory)


class HubSession:
    """A decoding in progress, through the model's own forward call, which reads chains alone."""

    trees = False

    def __init__(self, model: Any, encoding: Encoding) -> None:
        self._model = model
        self._device = entry_device(model)
        self._states = BaseModelOutput(last_hidden_state=encoding.states)
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    @property
    def length(self) -> int:
        """How many decoder tokens the cache holds."""
        return int(self._cache.get_seq_length())

    @torch.inference_mode()
    def forward(self, ids: list[int], parents: Sequence[int] | None = None) -> torch.Tensor:
        """As `TargetSession.forward`."""
        if parents is not None:
            raise SettingsError("the engine 'transformers' reads chains alone: give no parents.")
        out = self._model(
            encoder_outputs=self._states,
            decoder_input_ids=torch.tensor([ids], device=self._device),
            past_key_values=self._cache,
            use_cache=True,
        )
        synchronize(self._device)
        logits: torch.Tensor = out.logits[0]
        return logits

    def keep(self, length: int, path: Sequence[int] = ()) -> None:
        """Forgets all but the first `length` tokens; of a chain a path behind them goes on."""
        length += len(path)
        surplus = self.length - length
        if surplus > 0:
            # A negative number removes that many; a positive one is refused by transformers 5.23.
            self._cache.self_attention_cache.crop(-surplus)


ENGINES = ("auto", "static", "transformers")
"""Who runs the decoder."""

LOAD_IN = ("fp32", "bf16", "8bit", "4bit")
"""How the weights of a teacher may be held; the last two (LLM.int8 and NF4) need bitsandbytes."""

PRECISIONS = ("fp32", "bf16", "fp16", "8bit", "4bit")
"""How the weights of a target may be held."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _weights(load_in: str, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is to be told for a name of PRECISIONS."""
    if load_in in _DTYPES:
        return {"dtype": _DTYPES[load_in]}
    # At every call bitsandbytes tells that it rounds what comes in: it was asked to.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    kind: dict[str, Any] = {"load_in_8bit": load_in == "8bit", "load_in_4bit": load_in == "4bit"}
    quantised = BitsAndBytesConfig(
        **kind, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    kept = {"dtype": torch.bfloat16, "device_map": {"": device}}
    return kept | {"quantization_config": quantised}


def _require_whole(folder: Path) -> None:
    """Refuses a folder that is no whole encoder-decoder, as far as its files tell."""
    config = read_json(
        folder / "config.json",
        "It cannot be loaded as a target: that is a folder with config.json, weights and a "
        "tokenizer, as `save_pretrained` writes them, or a model's name on the Hub.",
    )
    own = config.get("fastllm") or {}
    if not isinstance(own, dict) or not all(
        isinstance(own.get(name, kind()), kind)
        for name, kind in (("name", str), ("prefix", str), ("source_length", int))
    ):
        raise CheckpointError(
            f'{folder}/config.json: "fastllm" needs an object, in it "name" and "prefix" as text '
            f'and "source_length" as a whole number; found {echoed(own)}. Correct it, or copy '
            "the folder again."
        )
    family = config.get("family") or own.get("family")
    if family:
        raise CheckpointError(
            f"{folder} holds a drafter (family {family}), not a target: give it as the drafter, "
            "and as the target an encoder-decoder."
        )
    if not config.get("model_type"):
        raise CheckpointError(
            f"{folder}/config.json names no model_type: it is none of transformers. A target must "
            "be an encoder-decoder that `save_pretrained` wrote."
        )
    require_weights(folder)
    if (folder / "generation_config.json").exists():
        read_json(folder / "generation_config.json", "")


def _read(name: str, weights: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model, and what we know of it beside; refuses one whose weights are not all there."""
    try:
        config = AutoConfig.from_pretrained(name)
        if not config.is_encoder_decoder:
            raise CheckpointError(
                f"{name} is a {config.model_type}: a target must be an encoder-decoder, such as "
                "google/flan-t5-small."
            )
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            name, output_loading_info=True, ignore_mismatched_sizes=True, **weights
        )
    except CheckpointError:
        raise
    except Exception as error:  # transformers and safetensors raise a dozen unrelated kinds
        raise CheckpointError(
            f"{name} cannot be loaded as an encoder-decoder ({first_line(error)}). Give a folder "
            "with config.json, weights and tokenizer, or a model's name on the Hub."
        ) from error
    # Both are asked for and read here, since transformers makes up what is missing.
    other, missing = report["mismatched_keys"], sorted(report["missing_keys"])
    if other or missing:
        if other:
            key, found, needed = min(other)
            fault = f"has {len(other)} weights of another shape than its config.json asks for, "
            fault += f"such as {key}: {tuple(found)}, not {tuple(needed)}"
        else:
            fault = f"lacks {len(missing)} of the weights that its config.json asks for, such as "
            fault += ", ".join(missing[:2])
        raise CheckpointError(
            f"{name} {fault}: weights and configuration are not of the same model. Copy or "
            "download both again."
        )
    if any(weight.is_meta for weight in model.parameters()) and not hasattr(model, "_hf_hook"):
        raise SettingsError(
            f"device_map={weights.get('device_map')!r} leaves weights of {name} nowhere: name "
            "devices that hold numbers, such as 0, 'cpu' or 'disk'."
        )
    return model, getattr(config, "fastllm", None) or {}


def _vocabulary(name_or_folder: str | Path, model: Any) -> Vocabulary:
    """The tokenizer, refused where it is not the model's."""
    remedy = "Save the model's own tokenizer there (tokenizer.json and tokenizer_config.json)."
    try:
        vocabulary = Vocabulary.load(name_or_folder)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        # Without protobuf transformers takes a model of sentencepiece for one of tiktoken.
        if any(name in str(error) for name in ("tiktoken", "sentencepiece", "protobuf")):
            raise CheckpointError(
                f"{name_or_folder}: its tokenizer is a model of sentencepiece without a "
                "tokenizer.json, and reading it takes the libraries protobuf and sentencepiece: "
                "`pip install protobuf sentencepiece`, or save it as tokenizer.json."
            ) from error
        raise CheckpointError(
            f"{name_or_folder}: its tokenizer cannot be read ({first_line(error)}). {remedy}"
        ) from error
    pieces = len(vocabulary.tokenizer)
    rows = number_of_logits(model)
    if vocabulary.empty or pieces > rows:
        raise CheckpointError(
            f"{name_or_folder}: the tokenizer beside the weights has {pieces} tokens, the model "
            f"{rows}: it is missing, or another model's. {remedy}"
        )
    return vocabulary


def number_of_logits(model: Any) -> int:
    """How many tokens a model gives a logit for; nested configurations name it below."""
    return int(model.config.get_text_config(decoder=True).vocab_size)


_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "sequence_bias": (),
    "bad_words_ids": ([],),
    "exponential_decay_length_penalty": (),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
    "stop_strings": ([],),
    "num_beams": (1,),
    "penalty_alpha": (0.0,),
    "min_p": (0.0,),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
}
"""Settings of a generation configuration that change what `generate` writes, and that are not
applied here; with the values, beside None, that change nothing. Temperature, top_k and top_p are
not among them: `DecodingConfig` has its own."""

ONE_TEXT: dict[str, Any] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "penalty_alpha": None,
    "return_dict_in_generate": False,
}
"""What makes `generate` write one text, as ids, whatever the generation configuration says."""


def unsupported(model: Any) -> tuple[str, ...]:
    """What a model's generation configuration asks for that is not applied, as "name=value"."""
    own = model.generation_config
    named = {name: getattr(own, name, None) for name in _NEUTRAL}
    return tuple(
        f"{name}={_short(value)}"
        for name, value in named.items()
        if value is not None and value not in _NEUTRAL[name]
    )


def notice(target: Target) -> str:
    """What to tell people of a target whose `unsupported` is not empty."""
    return (
        f"the generation configuration of {target.name} asks for {', '.join(target.unsupported)}, "
        "which FastLLM does not apply: all lanes write the same text, but not the one that "
        "`generate` of transformers writes."
    )


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"[{', '.join(map(str, value[:3]))}, ... {len(value)} in all]"
    return str(value)


def _tokens(model: Any, settings: tuple[str, ...], name: str) -> tuple[int, ...]:
    """Tokens that the generation configuration names, or else the model's: as in `generate`.

    Each once, in the order given; at least one. Of several settings the first that is named counts.
    """
    for setting, config in product(settings, (model.generation_config, model.config)):
        if found := _listed(setting, config):
            return tuple(dict.fromkeys(found))
    raise CheckpointError(
        f"{name}: neither generation_config.json nor config.json names its {settings[0]}. Set it "
        "in one of them: the model's own documentation says which token it is."
    )


def _listed(setting: str, config: Any) -> list[int]:
    """The tokens of a setting that may hold none, one or several."""
    value = getattr(config, setting, None)
    if value is None:
        return []
    return [_whole(setting, one) for one in (value if isinstance(value, list) else [value])]


def _whole(setting: str, value: Any) -> int:
    """A whole number of a configuration."""
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not numeric or not math.isfinite(value) or value != int(value):
        raise _damaged(setting, value, "no whole number")
    return int(value)


def _damaged(setting: str, value: Any, what: str) -> CheckpointError:
    return CheckpointError(
        f"{setting}={echoed(value)} in generation_config.json or config.json is {what}: the file "
        "is damaged, or another model's. Copy or download it again, or correct it."
    )


def _positions(stack: Any) -> int | None:
    """For how many tokens an encoder or a decoder has a table of positions; None where it has none.

    T5's positions are relative, and those of M2M100 are computed as they are needed. BERT's table,
    in an encoder or decoder made of one, lies deeper.
    """
    found = []
    for name, table in stack.named_modules():
        kind = name.rpartition(".")[2]
        if isinstance(table, torch.nn.Embedding) and kind in _POSITIONS:
            # BART's table begins with two rows that no token takes, ProphetNet's with the padding.
            unused = getattr(table, "offset", 0)
            if kind == "position_embeddings" and table.padding_idx is not None:
                unused = table.padding_idx + 1
            found.append(table.num_embeddings - unused)
    return min(found, default=None)


_POSITIONS = ("embed_positions", "position_embeddings", "wpe")  # the last is GPT-2's


def entry_device(model: Any) -> torch.device:
    """Where a model takes ids and gives logits, be it spread over several devices."""
    device = getattr(getattr(model, "_hf_hook", None), "execution_device", None)
    device = model.device if device is None else device
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)


def synchronize(device: torch.device) -> None:
    """Waits until nothing is in flight, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
