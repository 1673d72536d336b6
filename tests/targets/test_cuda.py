"""What only a GPU can tell, and the same on one that is pretended: is every number the CPU's?"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from pretended import pretended
from transformers import T5Config
from transformers import T5ForConditionalGeneration as T5

from fastllm.decoding import autoregress, speculate
from fastllm.devices import CUDNN_ATTENTION, aligned, prepare
from fastllm.drafters.cnn import CnnDrafter
from fastllm.drafters.lstm import LstmDrafter
from fastllm.drafters.neural import roll_out
from fastllm.drafters.shared import SharedDrafter
from fastllm.drafters.t5 import T5Drafter, T5Model, T5Settings
from fastllm.errors import NotFiniteError
from fastllm.targets import Encoding, resolve, t5_decoder
from fastllm.targets.hub import HubSession, HubTarget
from fastllm.targets.t5_decoder import StaticDecoder
from fastllm.trace import DecodingConfig
from fastllm.vocabulary import Vocabulary

V = 90
ODD = [1, 2, 4, 6, 1, 1, 3, 7, 5, 1, 9, 1, 11, 1, 2, 1]
"""Calls of so many tokens: what they end behind is hardly ever a multiple of 8."""

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

DEVICES = ("pretended", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda]))


@pytest.fixture(params=DEVICES)
def cuda(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the kind that is there: a real device, or a pretended one."""
    if request.param == "cuda":
        yield "cuda"
        return
    with pretended("cuda"), few_captures():
        yield "pretended"


@contextmanager
def few_captures() -> Iterator[None]:
    """Fewer calls are captured ahead: on the pretended device each takes long."""
    with (
        mock.patch.object(t5_decoder, "_USUAL_ROOM", (64,)),
        mock.patch.object(t5_decoder, "_USUAL", (1, 5)),
    ):
        yield


def made(device: str = "cpu", dtype: torch.dtype = torch.float32) -> T5:
    """A small T5 whose greedy texts vary; its sizes are such that fused kernels take them."""
    torch.manual_seed(3)
    config = T5Config(
        d_model=64, d_kv=16, d_ff=96, num_layers=1, num_decoder_layers=2, num_heads=4,
        vocab_size=V, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = T5(config).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "relative" in name:
                weights.normal_()
            elif "Attention" in name:
                weights.mul_(4)
        model.lm_head.weight.normal_()
        model.lm_head.weight[:2] = 0  # neither padding nor an end
    return model.to(device, dtype)


def target_on(device: str, dtype: torch.dtype = torch.float32) -> HubTarget:
    return HubTarget(made(device, dtype), Vocabulary(None), name="made")


def text_of(target: HubTarget, drafter: Any, source: list[int], **settings: Any) -> list[int]:
    config = resolve(DecodingConfig(max_new_tokens=30, **settings), target)
    encoding = target.encode(source)
    session = target.begin(encoding)
    ends: Any = {"start_id": 0, "end_id": 1, "statistics": False}
    if drafter is None:
        rounds = autoregress(session, config, **ends)
    else:
        rounds = speculate(session, drafter.begin(encoding), config, **ends)
    return [token for entry in rounds for token in entry.tokens]


def articles() -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [
        [*torch.randint(2, V, (length,), generator=generator).tolist(), 1] for length in (20, 67)
    ]


def drafters(target: HubTarget) -> dict[str, Any]:
    """A fresh drafter of each learned family, where its target is."""
    sizes: Any = {"seed": 2, "start_id": 0}
    families: dict[str, Any] = {
        "lstm": LstmDrafter.fresh(V, width=24, hidden=32, mixing=32, **sizes),
        "cnn": CnnDrafter.fresh(V, width=24, channels=32, mixing=32, **sizes),
        "t5": T5Drafter.fresh(V, width=64, heads=4, feed_forward=32, **sizes),
        "shared": SharedDrafter.fresh(V, target=target),
    }
    for name, drafter in families.items():
        drafter.model.to(target.device)
        if name.startswith("shared"):  # its layers are in the target's type, as when loaded
            drafter.model.to(target.model.dtype)
    return families


def calls_without_graphs(device: str) -> None:
    """Decodes and rolls out at odd lengths, no call captured; fails where a number is wrong."""
    with mock.patch.object(t5_decoder, "GRAPHS", False):
        for dtype, bound in ((torch.float32, 1e-4), (torch.bfloat16, 0.2)):
            model = made(device, dtype)
            ids = torch.randint(2, V, (1, 21)).to(device)
            with torch.inference_mode():
                states = model.get_encoder()(input_ids=ids).last_hidden_state
            decoder = StaticDecoder(model)
            session = decoder.begin(decoder.remember(states))
            reference = HubSession(model, Encoding(ids[0].tolist(), states, 0.0))
            for count in ODD:
                read = torch.randint(2, V, (count,)).tolist()
                expected, found = reference.forward(read).float(), session.forward(read).float()
                span = float(expected.max() - expected.min())
                assert float((found - expected).abs().max()) < bound * span, (dtype, count)
            steps_of_a_batch(device, dtype, bound)


def steps_of_a_batch(device: str, dtype: torch.dtype, bound: float) -> None:
    """A T5 drafter's steps over a padded batch, as roll-outs in training take them."""
    model = T5Model(T5Settings(V, 32, 2, 2, 48)).to(device, dtype).eval()
    source = torch.randint(2, V, (3, 21))
    source[1, 13:] = 0
    source, prefix = source.to(device), torch.randint(2, V, (3, 27)).to(device)
    with torch.inference_mode():
        whole = model(source, prefix).float()
        span = float(whole.max() - whole.min())
        memory = model.remember(source)
        state = model.begin(memory)
        for place in range(20):
            features, state = model.step(memory, state, prefix[:, place])
            difference = (model.logits(features).float() - whole[:, place]).abs().max()
            assert float(difference) < bound * span, (dtype, place)
        features, _ = model.read(memory, state, prefix[:, 20:27])
        difference = (model.logits(features).float() - whole[:, 20:27]).abs().max()
        assert float(difference) < bound * span, dtype
    texts = roll_out(
        model, source, start_id=0, end_id=1, length=19, temperature=0.7,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    assert all(1 <= len(text) <= 19 for text in texts)


def test_calls_without_graphs_read_no_misaligned_bias() -> None:
    with pretended("cuda"):
        calls_without_graphs("cuda")
        # And where one is misaligned, the pretended device fails as a real one does.
        table = torch.zeros(1, 4, 3, 64, device="cuda")
        heads = torch.zeros(1, 4, 3, 16, device="cuda")
        keys = torch.zeros(1, 4, 13, 16, device="cuda")
        attend = torch.nn.functional.scaled_dot_product_attention
        attend(heads, keys, keys, attn_mask=aligned(table[..., 3:16]))
        with pytest.raises(RuntimeError, match="misaligned address"):
            attend(heads, keys, keys, attn_mask=table[..., 3:16])


@pytest.mark.gpu
@needs_cuda
def test_calls_without_graphs_read_no_misaligned_bias_on_a_gpu() -> None:
    # In a process of its own: a misaligned address ends the use of the device by the process.
    here = Path(__file__).resolve().parent
    code = (
        f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]; "
        "from test_cuda import calls_without_graphs; calls_without_graphs('cuda')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here.parent.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_greedy_texts_are_the_cpus_with_graphs_and_without(cuda: str) -> None:
    expected = [text_of(target_on("cpu"), None, source) for source in articles()]
    assert all(len(set(text)) > 5 for text in expected)
    for graphs in (True, False):
        with mock.patch.object(t5_decoder, "GRAPHS", graphs):
            target = target_on("cuda")
            assert [text_of(target, None, source) for source in articles()] == expected
            made = target._static
            assert (made._capturing is not None) is graphs
            assert made.graphs_failure == ""


@pytest.mark.parametrize("family", ["lstm", "cnn", "t5", "shared"])
def test_every_family_drafts_on_the_device(cuda: str, family: str) -> None:
    here, there = target_on("cpu"), target_on("cuda")
    one, other = drafters(here)[family], drafters(there)[family]
    for gamma, source in zip((3, 5), articles(), strict=True):
        alone = text_of(here, None, source)
        assert text_of(here, one, source, gamma=gamma) == alone
        assert text_of(there, other, source, gamma=gamma) == alone
        settings: Any = {"gamma": gamma, "temperature": 1.0, "seed": 4}
        expected = text_of(here, one, source, **settings)
        drawn = text_of(there, other, source, **settings)
        if cuda == "pretended":  # a GPU rounds otherwise: a draw may fall the other way
            assert drawn == expected
        assert len(drawn) == 30


RULED: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.0, "seed": 4},
    {"no_repeat_ngram": 3},
    {
        "temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 2, "no_repeat_ngram": 2,
        "min_new_tokens": 5,
    },
    {"draft_length": "adaptive"},
    {"draft_length": "adaptive", "temperature": 1.0, "no_repeat_ngram": 1, "seed": 3},
)  # fmt: skip
"""Settings: whatever has a part in the choice of a drafted token."""


def rounds_of(target: HubTarget, drafter: Any, source: list[int], config: DecodingConfig) -> Any:
    encoding = target.encode(source)
    session, drafting = target.begin(encoding), drafter.begin(encoding)
    return speculate(session, drafting, config, start_id=0, end_id=1, statistics=False)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["lstm", "cnn", "t5", "shared"])
def test_a_draft_is_written_with_one_wait_and_is_the_same(family: str) -> None:
    """Draft for draft what the host would draft, whatever the settings: and waited for once."""
    source = articles()[0]
    here = target_on("cpu")
    one = drafters(here)[family]
    with pretended("cuda") as rules, few_captures():
        there = target_on("cuda")
        other = drafters(there)[family]
        for settings in RULED:
            config = resolve(DecodingConfig(gamma=4, max_new_tokens=30, **settings), there)
            expected = list(rounds_of(here, one, source, config))
            list(rounds_of(there, other, source, config))  # captures what there is to capture
            running = rounds_of(there, other, source, config)
            found = [next(running)]
            before = rules.waits
            found += list(running)
            told = [(entry.drafted, entry.tokens) for entry in found]
            assert told == [(entry.drafted, entry.tokens) for entry in expected], settings
            # one wait for a draft, and one for a verdict
            speculative = sum(entry.kind == "speculative" for entry in found[1:])
            assert rules.waits - before == speculative + len(found) - 1, settings


@pytest.mark.parametrize("family", ["lstm", "cnn", "t5", "shared"])
def test_every_family_drafts_for_a_target_in_half_precision(cuda: str, family: str) -> None:
    target = target_on("cuda", torch.bfloat16)
    drafter = drafters(target)[family]
    for source in articles():
        alone = text_of(target, None, source)
        assert len(text_of(target, drafter, source, gamma=4)) == len(alone) == 30
        assert len(text_of(target, drafter, source, gamma=4, temperature=1.0)) == 30


@pytest.mark.parametrize("family", ["lstm", "cnn", "t5", "shared"])
def test_training_reads_whole_texts_on_the_device(cuda: str, family: str) -> None:
    """Libraries have wishes of their own there: cuDNN takes no state that is not contiguous."""
    source, prefix = torch.randint(2, V, (3, 21)), torch.randint(2, V, (3, 11))
    source[1, 13:] = 0
    expected = drafters(target_on("cpu"))[family].model(source, prefix)
    network = drafters(target_on("cuda"))[family].model.train()
    found = network(source.to("cuda"), prefix.to("cuda"))
    # TF32 is off: what is left is the order of sums, and cuDNN's own arithmetic of gates
    assert float((found.detach().cpu() - expected.detach()).abs().max()) < 1e-2
    found.logsumexp(-1).sum().backward()
    own = [weight for weight in network.parameters() if weight.requires_grad]
    assert any(weight.grad is not None for weight in own)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_texts_are_rolled_out_on_the_device(cuda: str, temperature: float) -> None:
    def written(device: str, seed: int = 1) -> list[list[int]]:
        torch.manual_seed(0)
        model = T5Model(T5Settings(V, 64, 4, 1, 48)).eval().to(device)
        return roll_out(
            model, torch.arange(2, 44).view(3, 14).to(device), start_id=0, end_id=5, length=19,
            temperature=temperature, generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip

    found = written("cuda")
    assert found == written("cuda")
    assert all(1 <= len(text) <= 19 and 5 not in text[:-1] for text in found)
    if temperature == 0:
        assert found == written("cpu")
    else:
        assert found != written("cuda", seed=2)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_no_text_is_rolled_out_by_weights_that_are_no_numbers(
    cuda: str, temperature: float
) -> None:
    model = T5Model(T5Settings(V, 64, 4, 1, 48)).eval().to("cuda")
    with torch.no_grad():
        model.network.lm_head.weight[V - 1] = float("nan")
    with pytest.raises(NotFiniteError, match="the drafter's logits are NaN or infinite"):
        roll_out(
            model, torch.arange(2, 44).view(3, 14).to("cuda"), start_id=0, end_id=5, length=19,
            temperature=temperature, generator=torch.Generator().manual_seed(1),
        )  # fmt: skip


def test_cudnns_attention_is_off(cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        target_on("cuda")
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        monkeypatch.setenv(CUDNN_ATTENTION, "1")
        prepare(torch.device("cuda"))
        assert torch.backends.cuda.cudnn_sdp_enabled()
        prepare(torch.device("cpu"))
        assert torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
