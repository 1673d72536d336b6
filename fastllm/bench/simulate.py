"""The cost side of a large target without its weights: random weights in the right shape.

What a call costs does not depend on what the weights say, so c, v and the share of the memory
roofline can be measured on any machine, with nothing downloaded. How many drafts are accepted
cannot: that is simulated, and everything that comes of it says so.
"""

import itertools
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import T5Config, T5ForConditionalGeneration

from fastllm.drafters import Drafter, drafter_class, families, spec_of
from fastllm.errors import SettingsError
from fastllm.files import json_in
from fastllm.targets import resolve
from fastllm.targets.hub import HubTarget, synchronize
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary

VOCABULARY = 32128
"""What T5 and FLAN-T5 have, padding included."""

_SHAPES = {
    "google-t5/t5-small": (512, 6, 8, 64, 2048),
    "google-t5/t5-base": (768, 12, 12, 64, 3072),
    "google-t5/t5-large": (1024, 24, 16, 64, 4096),
    "google/flan-t5-small": (512, 8, 6, 64, 1024),
    "google/flan-t5-base": (768, 12, 12, 64, 2048),
    "google/flan-t5-large": (1024, 24, 16, 64, 2816),
    "google/flan-t5-xl": (2048, 24, 32, 64, 5120),
    "google/flan-t5-xxl": (4096, 24, 64, 64, 10240),
}
"""d_model, layers of each half, heads, d_kv, d_ff, as published; FLAN-T5 has gated feed-forwards,
and a matrix of its own for the logits.
Source: Raffel et al. 2020, arXiv:1910.10683; Chung et al. 2022, arXiv:2210.11416."""

SHAPES = tuple(_SHAPES)
"""The names of the shapes that need no file."""

COPIED_BYTES = 1 << 30
"""How much the bandwidth test of a device copies: far more than a cache holds."""


def usual() -> list[str]:
    """The families of drafters that have a usual size."""
    return [spec.name for spec in families().values() if spec.trainable and not spec.model_type]


def shape(name_or_path: str) -> T5Config:
    """The configuration of a T5 by a name of SHAPES (its owner may be left out), or of a file.

    Raises:
        SettingsError: it is no such name, no folder with `config.json`, no such file, or no T5.
    """
    full = {short: name for name in _SHAPES for short in (name, _short(name))}.get(name_or_path)
    if full is not None:
        width, layers, heads, head_width, feed_forward = _SHAPES[full]
        flan = full.startswith("google/")
        config = T5Config(
            vocab_size=VOCABULARY,
            d_model=width,
            d_kv=head_width,
            d_ff=feed_forward,
            num_layers=layers,
            num_decoder_layers=layers,
            num_heads=heads,
            feed_forward_proj="gated-gelu" if flan else "relu",
        )
        return _ready(config, tied=not flan)
    path = Path(name_or_path)
    path = path / "config.json" if path.is_dir() else path
    try:
        tree = json_in(path)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{name_or_path}: no shape of this name, and no configuration can be read there "
            f"({error}). Give one of {', '.join(SHAPES)}, or a folder with config.json."
        ) from error
    if not isinstance(tree, dict) or tree.get("model_type") != "t5":
        found = tree.get("model_type") if isinstance(tree, dict) else type(tree).__name__
        raise SettingsError(f"{path} describes a {found}: the configuration of a T5 is needed.")
    return _ready(T5Config.from_dict(tree), tied=bool(tree.get("tie_word_embeddings", True)))


def _ready(config: T5Config, *, tied: bool) -> T5Config:
    """What a fresh model needs; transformers 5 takes every T5 for one with tied embeddings."""
    config.tie_word_embeddings = tied
    config.dropout_rate = 0.0
    if getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0
    return config


def random_target(
    name_or_path: str, *, device: torch.device, dtype: torch.dtype, source_length: int
) -> HubTarget:
    """A target of a shape, its weights random. It has no tokenizer: give it ids.

    Raises:
        SettingsError: there is no such shape.
    """
    return HubTarget(
        _random_model(shape(name_or_path), device, dtype),
        Vocabulary(None),
        name=_short(name_or_path),
        source_length=source_length,
    )


def random_drafter(name_or_path: str, target: HubTarget) -> Drafter:
    """A drafter with random weights, where and in what type its target is.

    - `name_or_path`: the shape of a T5, or a name of `usual` in its usual size.

    Raises:
        SettingsError: there is no such shape, or it has another vocabulary than the target.
    """
    wanted = target.logit_count
    if name_or_path in usual():
        bound = spec_of(name_or_path).bound_to_target
        own = {"target": target} if bound else {"start": "ordinary"}
        small: Any = drafter_class(name_or_path).fresh(wanted, start_id=target.start_id, **own)
        small.model.to(target.device, target.model.dtype)
        return cast(Drafter, small)
    config = shape(name_or_path)
    if config.vocab_size != wanted:
        raise SettingsError(
            f"the drafter {name_or_path} has {config.vocab_size} tokens, the target {target.name} "
            f"{wanted}: both must know the same. Give a shape with as many."
        )
    family = drafter_class("t5")
    network = _random_model(config, target.device, target.model.dtype)
    sizes = family.SETTINGS(
        config.vocab_size,
        config.d_model,
        config.num_heads,
        config.num_layers,
        config.d_ff,
        head_width=config.d_kv,
    )
    return cast(Drafter, family(family.MODEL(network).eval(), sizes, _short(name_or_path), ""))


def random_sources(
    count: int, length: int, vocabulary: int, seed: int
) -> list[tuple[str, list[int]]]:
    """Articles of random tokens, each `length` long with the end token."""
    draws = random.Random(seed)
    return [
        (f"random {index}", [*(draws.randrange(2, vocabulary) for _ in range(length - 1)), 1])
        for index in range(count)
    ]


@torch.inference_mode()
def roofline(target: HubTarget) -> dict[str, float]:
    """How fast a token could be if reading the decoder's weights were all there is to it.

    At batch 1 every token reads every weight of the decoder once: its layers without the matrices
    that make keys and values of the article, and the matrix of the logits. The bandwidth is what a
    copy reaches on this device, read and write counted; on a CPU, whose caches hold a small
    decoder, what reading as many bytes again and again reaches.

    Returns:
        weight_bytes (in the type in which the engine keeps them), bandwidth (bytes a second),
        seconds_per_token.
    """
    once = ("EncDecAttention.k.weight", "EncDecAttention.v.weight", "embed_tokens.weight")
    weights = [
        weight
        for name, weight in target.model.decoder.named_parameters()
        if not name.endswith(once)
    ]
    weights.append(target.model.lm_head.weight)
    size = target.decoder_bytes or sum(w.numel() * w.element_size() for w in weights)
    cpu = target.device.type == "cpu"
    bandwidth = read_bandwidth(size) if cpu else copy_bandwidth(target.device)
    return {
        "weight_bytes": float(size),
        "bandwidth": bandwidth,
        "seconds_per_token": size / bandwidth,
    }


def copy_bandwidth(device: torch.device, size: int = COPIED_BYTES, repeats: int = 10) -> float:
    """Bytes a second that a copy of `size` bytes on a device reads and writes; a median."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    place = torch.empty_like(source)

    def copy() -> None:
        place.copy_(source)
        synchronize(device)

    return 2 * size / _seconds(copy, repeats)


def read_bandwidth(size: int, repeats: int = 20) -> float:
    """Bytes a second at which the CPU reads the same bytes again and again; a median."""
    source = torch.ones(max(1, size // 4))
    return size / _seconds(lambda: source.sum(), repeats)


def profiles(
    target: HubTarget,
    drafters: Mapping[str, Drafter],
    source_ids: list[int],
    config: DecodingConfig,
) -> str:
    """What a plain token, and a draft of each drafter, consist of: tables of PyTorch's profiler."""
    config = resolve(config, target)
    encoding = target.encode(source_ids)
    prefix = [target.start_id, *source_ids[:8]]
    uniforms = torch.full((config.gamma,), 0.5, dtype=torch.float64)
    session = target.begin(encoding)
    session.forward(prefix)

    def token() -> None:
        session.forward([prefix[-1]]).argmax(-1).tolist()

    shown = [f"A plain token of {target.name}:", _profile(token)]
    for name, drafter in drafters.items():
        drafting = drafter.begin(encoding)

        def draft(drafting: Any = drafting, turns: Any = itertools.count(2)) -> None:  # noqa: B008
            text = [*prefix, next(turns)]  # another token each time: nothing is known of it yet
            drafting.draft(text, config.gamma, config, uniforms)

        shown += [f"A draft of {config.gamma} tokens of {name}:", _profile(draft)]
    return "\n".join(shown)


def _profile(call: Callable[[], None], repeats: int = 5) -> str:
    """The costliest operations of a call, summed over some repeats."""
    for _ in range(2):
        call()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as seen:
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        seconds = (time.perf_counter() - started) / repeats
    averages = seen.key_averages()
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = averages.table(sort_by=by, row_limit=25, max_name_column_width=70)
    return f"{1000 * seconds:.2f} ms each under the profiler, {repeats} of them:\n{table}"


def _seconds(call: Callable[[], object], repeats: int) -> float:
    """The median of what a call takes, after two that are not timed."""
    found = []
    for _ in range(2 + repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return statistics.median(found[2:])


def _random_model(config: T5Config, device: torch.device, dtype: torch.dtype) -> Any:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        model = T5ForConditionalGeneration._from_config(config, dtype=dtype)
    return model.to(device).eval()


def _short(name_or_path: str) -> str:
    return name_or_path.rstrip("/").rsplit("/", 1)[-1]
