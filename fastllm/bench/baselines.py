"""The lanes of transformers: `generate`, assisted generation, prompt lookup.

Each is one call of `generate`, encoder included. Hooks count the calls of the target's decoder and
take the time of what belongs to the encoding, so that one run gives both rates.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from fastllm.targets.hub import ONE_TEXT, HubTarget, synchronize
from fastllm.trace import DecodingConfig

GENERATE, ASSISTED, LOOKUP = "generate", "assisted", "prompt-lookup"
"""The names of the lanes."""

LABELS = {
    GENERATE: "transformers generate",
    ASSISTED: "transformers assisted",
    LOOKUP: "transformers prompt lookup",
}


@dataclass
class Watched:
    """What hooks saw of one call of `generate`, as in `Generated`."""

    calls: int = 0
    encoding_seconds: float = 0.0
    _started: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Generated:
    """One call of `generate`.

    Attributes:
        tokens: ids without the start token.
        calls: of the target's decoder.
        seconds: of the whole call.
        encoding_seconds: in the encoders of target and assistant, and in making the keys and values
            of the article for their decoders.
    """

    tokens: tuple[int, ...]
    calls: int
    seconds: float
    encoding_seconds: float


@torch.inference_mode()
def generate(
    target: HubTarget,
    source_ids: list[int],
    config: DecodingConfig,
    lane: str,
    assistant: Any = None,
    *,
    fixed_length: bool = False,
) -> Generated:
    """Runs one lane of transformers.

    - `config`: the settings, resolved; the same rules as in our lanes are passed on.
    - `lane`: GENERATE, ASSISTED or LOOKUP.
    - `assistant`: for ASSISTED, a model of transformers with the target's vocabulary. It drafts
      `config.gamma` tokens each time, whatever its confidence.
    - `fixed_length`: write `max_new_tokens` tokens, whatever they are.
    """
    device = target.device
    more: dict[str, Any] = {}
    if lane == ASSISTED:
        own = assistant.generation_config
        own.num_assistant_tokens = config.gamma
        own.num_assistant_tokens_schedule = "constant"
        own.assistant_confidence_threshold = 0.0
        more["assistant_model"] = assistant
    elif lane == LOOKUP:
        more["prompt_lookup_num_tokens"] = config.gamma
    if config.temperature > 0:
        more |= {
            "do_sample": True,
            "temperature": float(config.temperature),
            "top_k": config.top_k,
            "top_p": float(config.top_p),
        }
    else:
        more["do_sample"] = False
    length = config.max_new_tokens
    ids = torch.tensor([source_ids], device=device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _watching(target.model, assistant) as watched:
        torch.manual_seed(config.seed)
        synchronize(device)
        started = time.perf_counter()
        out = target.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=length,
            min_new_tokens=length if fixed_length else config.min_new_tokens,
            no_repeat_ngram_size=config.no_repeat_ngram,
            **ONE_TEXT,
            **more,
        )
        synchronize(device)
        seconds = time.perf_counter() - started
    tokens = tuple(int(token) for token in out[0, 1:])
    return Generated(tokens, watched.calls, seconds, watched.encoding_seconds)


@contextmanager
def _watching(model: Any, assistant: Any) -> Iterator[Watched]:
    """Hooks on a target and, if there is one, its assistant; gone afterwards."""
    watched = Watched()

    def count(*_: Any) -> None:
        watched.calls += 1

    def begin(module: Any, *_: Any) -> None:
        synchronize(model.device)
        watched._started.append(time.perf_counter())

    def end(module: Any, *_: Any) -> None:
        synchronize(model.device)
        watched.encoding_seconds += time.perf_counter() - watched._started.pop()

    handles = [model.get_decoder().register_forward_pre_hook(count)]
    for network in (model, assistant):
        if network is None:
            continue
        parts = [network.get_encoder()]
        parts += [
            module
            for name, module in network.get_decoder().named_modules()
            if name.endswith(("EncDecAttention.k", "EncDecAttention.v"))
        ]
        for part in parts:
            handles.append(part.register_forward_pre_hook(begin))
            handles.append(part.register_forward_hook(end))
    try:
        yield watched
    finally:
        for handle in handles:
            handle.remove()
