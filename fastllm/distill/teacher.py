"""The target as a teacher: its logits for given texts, and texts of its own."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from fastllm.errors import SettingsError
from fastllm.targets import require_positions, resolve
from fastllm.targets.encodings import EncodingCache, require_finite, stacked
from fastllm.targets.hub import HubTarget
from fastllm.trace import DecodingConfig


class Articles(Protocol):
    """Articles by index, on disk or in memory."""

    def source(self, index: int) -> list[int]:
        """The ids of an article, end token included."""


class Teacher:
    """A target that scores batches of texts about the articles of `pairs`.

    At most `keep` bytes of encodings are kept in memory.
    """

    def __init__(self, target: HubTarget, pairs: Articles, keep: int = 2 << 30) -> None:
        self.target = target
        self._pairs = pairs
        self._encode = EncodingCache(target.model.get_encoder(), pad_id=target.pad_id, keep=keep)
        self._checked = False

    @torch.no_grad()
    def logits(self, indices: Sequence[int], prefix: torch.Tensor) -> torch.Tensor:
        """The target's logits (B, T, V) after every token of `prefix` (B, T).

        The prefixes are of texts about the articles `indices`; each begins with the start id, and
        what fills it up at the end is not looked at.

        Raises:
            CheckpointError: the target computes NaN or infinite numbers. On a GPU, where looking
                means waiting, the logits of the first batch and every article's encoding are
                looked at; on a CPU all are.
        """
        articles = [self._pairs.source(index) for index in indices]
        states = self._encode(articles, self.target.device)
        block = pad_sequence(states, batch_first=True)
        _, mask = stacked(articles, 0, prefix.device)
        logits: torch.Tensor = self.target.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=block.to(self.target.model.dtype)),
            attention_mask=mask,
            decoder_input_ids=prefix,
            use_cache=False,
        ).logits
        if not self._checked or logits.device.type == "cpu":
            require_finite(logits, "the output")
            self._checked = True
        return logits.float()


@torch.no_grad()
def write_texts(
    target: HubTarget,
    sources: Sequence[Sequence[int]],
    *,
    length: int,
    temperature: float = 0.0,
) -> list[list[int]]:
    """Lets the target summarise articles (ids, end token included), as FastLLM decodes with it.

    What `fastllm.targets.resolve` says of a target is obeyed, and nothing else: beams, penalties or
    suppressed tokens of the checkpoint's generation configuration are not applied here, as they are
    not applied in decoding (`HubTarget.unsupported` lists them).

    Returns:
        At most `length` ids for each article, the end token included where it came.

    Raises:
        CheckpointError: the target computes NaN or infinite numbers.
        SettingsError: a length beyond its positions, or a temperature too close to 0.
    """
    source, mask = stacked(sources, target.pad_id, target.device)
    require_positions(target, length, "length")
    if 0 < temperature < DecodingConfig.COLDEST:
        raise SettingsError(
            f"temperature={temperature} is out of range: give 0, which is greedy, or at least "
            f"{DecodingConfig.COLDEST}."
        )
    rules = resolve(DecodingConfig(max_new_tokens=1), target)  # the length was looked at
    watch = _Finite(at_once=temperature > 0)
    processors: list[LogitsProcessor] = [watch]
    if rules.no_repeat_ngram:  # for all texts at once
        processors.append(NoRepeatedNgrams(rules.no_repeat_ngram))
    sampling: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    settings = GenerationConfig(
        decoder_start_token_id=target.start_id,
        eos_token_id=list(target.end_ids),
        pad_token_id=target.pad_id,
        max_new_tokens=length,
        min_new_tokens=rules.min_new_tokens or None,
        forced_bos_token_id=_if_on(rules.forced_first),
        forced_eos_token_id=_if_on(rules.forced_last),
        **sampling,
    )
    own = target.model.generation_config
    target.model.generation_config = settings  # given to `generate`, they would be mixed with it
    try:
        rows = target.model.generate(
            input_ids=source,
            attention_mask=mask,
            logits_processor=LogitsProcessorList(processors),
        )[:, 1:].tolist()
    finally:
        target.model.generation_config = own
    watch.refuse()
    return [_until_end(row, target.end_ids) for row in rows]


def _if_on(token: int | None) -> int | None:
    """A token that is forced, as transformers has it; below 0 none is."""
    return None if token is None or token < 0 else token


class _Finite(LogitsProcessor):  # type: ignore[misc] # transformers has no types
    """Looks for scores that are no numbers, and waits for the device only once, at the end.

    With `at_once` they are refused before anything is drawn from them.
    """

    def __init__(self, *, at_once: bool) -> None:
        self._at_once = at_once
        self._best: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Returns the scores as they are."""
        best = scores.amax(-1)  # NaN where one is; tokens that are barred are minus infinity
        self._best = best if self._best is None else self._best + best
        if self._at_once:
            self.refuse()
        return scores

    def refuse(self) -> None:
        """Raises CheckpointError where something was not finite."""
        if self._best is not None:
            require_finite(self._best.float(), "the output")


class NoRepeatedNgrams(LogitsProcessor):  # type: ignore[misc] # transformers has no types
    """The rule `no_repeat_ngram_size` of transformers, for a batch of texts at once.

    The library's own goes through the texts one by one in Python at every step, which caps the
    texts a second whatever the batch. The scores are the same.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores (B, V) with those tokens at -inf that would repeat a run of `input_ids`."""
        size = self._size
        if input_ids.shape[1] < size:
            return scores
        runs = input_ids.unfold(1, size, 1)
        last = input_ids[:, input_ids.shape[1] - size + 1 :]
        again = (runs[..., :-1] == last[:, None]).all(-1)
        banned = torch.zeros(scores.shape, dtype=torch.uint8, device=scores.device)
        banned.scatter_reduce_(1, runs[..., -1], again.to(torch.uint8), "amax")
        return scores.masked_fill(banned.bool(), float("-inf"))


def _until_end(row: list[int], ends: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(row, 1) if token in ends), len(row))
    return row[:end]
