"""The lanes of CTranslate2, the engine that one takes for a T5 on a CPU otherwise.

The target is converted as it was loaded, once for each type of weights, into a folder that is gone
once it was read. CTranslate2 decodes in one call that contains the encoding, so the two are
told apart by a second call that writes one token alone:

    decoding = (seconds of N tokens - seconds of one) N / (N - 1).

Source: https://opennmt.net/CTranslate2
"""

import importlib.util
import statistics
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from fastllm.bench.baselines import Generated
from fastllm.errors import SettingsError
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig

FP32, INT8 = "ctranslate2-fp32", "ctranslate2-int8"
"""The names of the lanes."""

LABELS = {FP32: "CTranslate2 fp32", INT8: "CTranslate2 int8"}

_TYPES = {FP32: "float32", INT8: "int8"}


def installed() -> bool:
    """Whether CTranslate2 is there."""
    return importlib.util.find_spec("ctranslate2") is not None


class Peer:
    """A target in CTranslate2, on the same device and with as many threads.

    Args:
        target: with its tokenizer.
        lane: FP32 or INT8.

    Raises:
        SettingsError: the target has no tokenizer, or CTranslate2 does not convert it.
    """

    def __init__(self, target: HubTarget, lane: str) -> None:
        self._tokenizer: Any = target.vocabulary.tokenizer
        if self._tokenizer is None:
            raise SettingsError(f"{target.name} has no tokenizer: CTranslate2 needs one.")
        self._library = import_module("ctranslate2")
        converters = import_module("ctranslate2.converters")
        self._ends = self._tokenizer.convert_ids_to_tokens(list(target.end_ids))
        with tempfile.TemporaryDirectory(prefix="fastllm-ctranslate2-") as folder:
            source, made = (str(Path(folder) / name) for name in ("source", "made"))
            target.model.save_pretrained(source)
            self._tokenizer.save_pretrained(source)
            try:
                converters.TransformersConverter(source).convert(made, quantization=_TYPES[lane])
            except ValueError as error:  # an architecture that it does not know
                raise SettingsError(
                    f"CTranslate2 does not convert {target.name} ({error}): leave its lanes out."
                ) from error
            self._translator = self._library.Translator(
                made,
                device=target.device.type,
                device_index=target.device.index or 0,
                compute_type=_TYPES[lane],
                inter_threads=1,
                intra_threads=torch.get_num_threads(),
            )

    def write(
        self, source_ids: list[int], config: DecodingConfig, *, fixed_length: bool = False
    ) -> Generated:
        """Writes a text.

        - `config`: the settings, resolved; all but forced tokens are passed on.
        - `fixed_length`: write `max_new_tokens` tokens, whatever they are.
        """
        tokens = self._tokenizer.convert_ids_to_tokens(source_ids)
        self._library.set_random_seed(config.seed)
        started = time.perf_counter()
        text = self._write(tokens, config, config.max_new_tokens, fixed_length)
        seconds = time.perf_counter() - started
        first = []
        for _ in range(3):
            started = time.perf_counter()
            self._write(tokens, config, 1, fixed_length)
            first.append(time.perf_counter() - started)
        count = len(text)
        decoding = (seconds - statistics.median(first)) * count / max(1, count - 1)
        # of a few tokens the difference may be below the noise of the clock
        decoding = min(max(decoding, 1e-9), seconds)
        return Generated(tuple(text), count, seconds, seconds - decoding)

    def _write(
        self, tokens: list[str], config: DecodingConfig, most: int, fixed_length: bool
    ) -> list[int]:
        greedy = config.temperature == 0
        least = most if fixed_length else min(most, config.min_new_tokens or 0)
        (found,) = self._translator.translate_batch(
            [tokens],
            beam_size=1,
            max_input_length=0,
            max_decoding_length=most,
            min_decoding_length=least,
            no_repeat_ngram_size=config.no_repeat_ngram or 0,
            sampling_topk=1 if greedy else config.top_k,
            sampling_topp=1.0 if greedy else float(config.top_p),
            sampling_temperature=1.0 if greedy else float(config.temperature),
            end_token=self._ends,
            return_end_token=True,
        )
        ids: list[int] = self._tokenizer.convert_tokens_to_ids(found.hypotheses[0])
        return ids
