import pytest
import torch
from transformers import T5ForConditionalGeneration

from fastllm.errors import SettingsError
from fastllm.pretrain.copying_start import begin_like, start_copying, t5_config


def _model(context: int | None) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(t5_config(400, 128, 4, 2, 2, 128))
    if context:
        start_copying(model, torch.Generator().manual_seed(0), context=context)
    return model.eval()


def _accuracy(model: T5ForConditionalGeneration) -> float:
    """The share of tokens copied from the source, where single tokens stand in many places."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(3, 60, (4, 120), generator=generator)
    text = source[:, 40:80]
    with torch.inference_mode():
        logits = model(input_ids=source, decoder_input_ids=text).logits
    return (logits[:, 4:-1].argmax(-1) == text[:, 5:]).float().mean().item()


def test_more_context_copies_better_and_without_training() -> None:
    ordinary, two, three = (_accuracy(_model(context)) for context in (None, 2, 3))
    assert ordinary < 0.1
    assert ordinary < two < three
    assert three > 0.8


def test_the_start_token_can_begin_like_another() -> None:
    model = _model(None)
    begin_like(model, 7)
    weights = model.get_input_embeddings().weight
    assert torch.equal(weights[model.config.decoder_start_token_id], weights[7])


def test_too_much_context_for_the_heads_is_refused() -> None:
    with pytest.raises(SettingsError, match="context=5"):
        _model(5)
