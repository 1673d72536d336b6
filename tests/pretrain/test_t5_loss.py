import pytest
import torch
from transformers import T5ForConditionalGeneration

from fastllm.data.tokens import IGNORED
from fastllm.pretrain.copying_start import t5_config
from fastllm.pretrain.t5_loss import t5_loss


@pytest.mark.parametrize("masked", [False, True])
def test_loss_and_gradients_are_those_of_transformers(masked: bool) -> None:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(t5_config(90, 32, 2, 2, 2, 48, start_id=7))
    source = torch.randint(3, 90, (3, 24))
    text = torch.randint(3, 90, (3, 12))
    text[0, 8:] = IGNORED
    mask = torch.ones_like(source)
    if masked:
        for row, length in ((1, 15), (2, 20)):
            source[row, length:] = mask[row, length:] = 0
        source[2, 9] = 0  # an article may hold the padding id
    found = t5_loss(model, source, text, masked=masked)
    found.backward()
    own = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    wanted = model(input_ids=source, attention_mask=mask, labels=text).loss
    wanted.backward()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(own[name], weight.grad, rtol=1e-3, atol=1e-5, msg=name)
