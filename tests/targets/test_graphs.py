"""What is meant for a GPU, on one that is only pretended: graphs, devices, how often one waits."""

import gc
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from pretended import Graph, Rules, pretended
from targets.test_t5_decoder import TREES, tree_distance
from torch import nn
from transformers import T5Config
from transformers import T5ForConditionalGeneration as T5

import fastllm
from fastllm.api import forget
from fastllm.checkpoints import load_drafter, load_target
from fastllm.decoding import speculate
from fastllm.errors import FastLLMWarning
from fastllm.targets import Encoding, resolve
from fastllm.targets.hub import HubSession, HubTarget
from fastllm.targets.t5_decoder import StaticDecoder
from fastllm.trace import DecodingConfig

V = 70
CUDA = torch.device("cuda", 0)
BOUND = 3e-5

CALLS = [(1, 0), *((count, count // 2) for count in range(1, 10)), (20, 3), (40, 5), (6, 2)]
"""How many tokens to read, and how many to take back afterwards."""

LONG = [*CALLS, (90, 0), (9, 9), (100, 2), (3, 0), (1, 1), (2, 0)]
"""Past the room that buffers have at first."""

DRAFTERS = ("lookup", "ngram-after", "lstm-after", "cnn-after", "t5-after", "shared-after")


@pytest.fixture
def cuda() -> Iterator[Rules]:
    with pretended("cuda") as rules:
        yield rules


@pytest.fixture(scope="module", autouse=True)
def _models_on_no_device_are_let_go() -> Iterator[None]:
    yield
    forget()


def made(**settings: Any) -> T5:
    torch.manual_seed(3)
    config = T5Config(
        d_model=48, d_kv=8, d_ff=80, num_layers=1, num_decoder_layers=3, num_heads=4, vocab_size=V,
        decoder_start_token_id=0, **settings,
    )  # fmt: skip
    model = T5(config).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "relative" in name:
                weights.normal_()
    return model.to("cuda")


def article(model: T5, length: int = 23) -> Encoding:
    ids = torch.randint(2, V, (1, length), device="cuda")
    with torch.inference_mode():
        states = model.get_encoder()(input_ids=ids).last_hidden_state
    return Encoding(ids[0].tolist(), states, 0.0)


def session_of(decoder: StaticDecoder, encoding: Encoding) -> Any:
    return decoder.begin(decoder.remember(encoding.states))


def furthest(one: Any, other: Any, calls: list[tuple[int, int]]) -> float:
    """Makes the same calls in two sessions: how far logits differ, by the range of the logits."""
    distances = [0.0]
    for count, back in calls:
        ids = torch.randint(0, V, (count,)).tolist()
        expected, found = one.forward(ids), other.forward(ids)
        assert found.device == expected.device == CUDA
        span = expected.max() - expected.min()
        distances.append(float((found - expected).abs().max() / span))
        one.keep(one.length - back)
        other.keep(other.length - back)
    return max(distances)


@pytest.mark.parametrize("projection", ["relu", "gated-gelu"])
def test_replayed_graphs_give_what_transformers_gives(cuda: Rules, projection: str) -> None:
    model = made(feed_forward_proj=projection)
    encoding = article(model)
    decoder = StaticDecoder(model)
    # Twice: the second session finds buffers, and the graphs bound to them, in the pool.
    for calls in (LONG, CALLS):
        session = session_of(decoder, encoding)
        assert furthest(HubSession(model, encoding), session, calls) < BOUND
        assert len(session._buffers.graphs) > 0
        assert decoder.graphs_failure == ""
        del session
        gc.collect()


def test_interleaved_sessions_keep_apart(cuda: Rules) -> None:
    model = made()
    decoder = StaticDecoder(model)
    encodings = article(model, 23), article(model, 300)
    sessions = [session_of(decoder, encoding) for encoding in encodings]
    references = [HubSession(model, encoding) for encoding in encodings]
    for _ in range(3):
        for reference, session in zip(references, sessions, strict=True):
            assert furthest(reference, session, [(4, 1), (1, 0)]) < BOUND


def test_trees_are_replayed_like_chains_along_their_paths(cuda: Rules) -> None:
    model = made(relative_attention_max_distance=20)
    encoding = article(model)
    decoder = StaticDecoder(model)
    session = session_of(decoder, encoding)
    for name, captures in (("at the root", True), ("larger than a graph", False)):
        before = len(session._buffers.graphs)
        assert tree_distance(session, lambda: HubSession(model, encoding), TREES[name]) < BOUND
        assert (len(session._buffers.graphs) > before) == captures
    assert decoder.graphs_failure == ""


def test_usual_calls_are_captured_before_the_clock_runs(cuda: Rules) -> None:
    model = made()
    decoder = StaticDecoder(model)
    session = session_of(decoder, article(model))
    before = len(session._buffers.graphs)
    for count in (1, 6, 1, 9, 5, 40 - 22, 6, 1):
        session.forward([2] * count)
    # Eighteen tokens at once are no usual call, and are not captured.
    assert len(session._buffers.graphs) == before > 0


def test_captures_share_a_stream_and_dropped_graphs_their_memory_with_nobody(cuda: Rules) -> None:
    model = made()
    decoder = StaticDecoder(model)
    with (
        mock.patch.object(torch.cuda, "Stream", side_effect=torch.cuda.Stream) as streams,
        mock.patch.object(torch.cuda, "graph_pool_handle", side_effect=object) as pools,
    ):
        session = session_of(decoder, article(model))
        for _ in range(30):
            session.forward([2] * 9)  # past the room: the graphs there were are dropped
    assert streams.call_count == 1
    assert pools.call_count == 2


def test_where_no_more_can_be_captured_decoding_goes_on(cuda: Rules) -> None:
    model = made()
    encoding = article(model)
    session = session_of(StaticDecoder(model), encoding)
    reference = HubSession(model, encoding)
    assert furthest(reference, session, CALLS[:4]) < BOUND
    with mock.patch.object(torch.cuda, "graph", side_effect=RuntimeError("out of memory")):
        with pytest.warns(FastLLMWarning, match="without them: RuntimeError: out of memory$"):
            assert furthest(reference, session, [(13, 4)]) < BOUND
        assert furthest(reference, session, LONG) < BOUND


def test_where_nothing_can_be_captured_decoding_goes_on(cuda: Rules) -> None:
    model = made()
    encoding = article(model)
    decoder = StaticDecoder(model)
    with mock.patch.object(torch.cuda, "graph", side_effect=RuntimeError("out of luck\nand more")):
        with pytest.warns(FastLLMWarning, match="without them: RuntimeError: out of luck$"):
            session = session_of(decoder, encoding)
        assert furthest(HubSession(model, encoding), session, CALLS) < BOUND
    assert decoder.graphs_failure == "RuntimeError: out of luck"


@pytest.mark.parametrize(
    "replay",
    [lambda graph: graph.steps[-1][-1].zero_(), lambda graph: None],
    ids=["wrong", "frozen"],
)
def test_a_graph_that_gives_other_numbers_is_not_used(cuda: Rules, replay: Any) -> None:
    model = made()
    encoding = article(model)
    decoder = StaticDecoder(model)
    with mock.patch.object(Graph, "replay", replay):
        with pytest.warns(FastLLMWarning, match="a graph's numbers differ from the call's by"):
            session = session_of(decoder, encoding)
        assert furthest(HubSession(model, encoding), session, CALLS) < BOUND
    assert not session._buffers.graphs


def test_the_trace_says_that_graphs_were_given_up(
    cuda: Rules, tiny_target: HubTarget, story: str
) -> None:
    model = T5(tiny_target.model.config).eval().to("cuda")
    target = HubTarget(model, tiny_target.vocabulary, name="tiny")
    assert target.engine == "static"
    with mock.patch.object(torch.cuda, "graph", side_effect=RuntimeError("no")):
        with pytest.warns(FastLLMWarning):
            trace = fastllm.generate(story, target=target, drafter=None, max_new_tokens=4)
    assert trace.versions["engine"] == "static without CUDA graphs (RuntimeError: no)"


@pytest.mark.slow  # pretending takes its time
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", DRAFTERS)
def test_devices_change_no_text(name: str, temperature: float, story: str) -> None:
    def written(device: str, drafter_device: str) -> tuple[int, ...]:
        return fastllm.generate(
            story,
            drafter=fastllm.load_drafter(name, device=drafter_device),
            device=device,
            temperature=temperature,
            gamma=4,
            seed=3,
            max_new_tokens=12,
        ).tokens

    expected = written("cpu", "cpu")
    # On MPS the shared encoder proposes from all words, not from a few hundred: other draws.
    kinds = ("cuda",) if (name, temperature) == ("shared-after", 1.0) else ("cuda", "mps")
    for kind in kinds:
        with pretended(kind):
            for places in ((kind, kind), (kind, "cpu"), ("cpu", kind)):
                assert written(*places) == expected, places


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lookup", "ngram-after", "cnn-after", "t5-after", "shared-after"])
def test_a_round_waits_once_for_the_target_and_once_for_a_drafted_token(
    name: str, story: str, cuda: Rules
) -> None:
    target, drafter = load_target(device="cuda"), load_drafter(name, device="cuda")
    source = target.vocabulary.encode(story, target.source_length, target.prefix)
    encoding = target.encode(source.ids)
    ends: Any = {"start_id": target.start_id, "end_id": target.end_ids, "statistics": False}
    for temperature in (0.0, 1.0):
        settings = DecodingConfig(gamma=4, temperature=temperature, max_new_tokens=12)
        config = resolve(settings, target)
        session, drafting = target.begin(encoding), drafter.begin(encoding)
        before = cuda.waits
        rounds = list(speculate(session, drafting, config, **ends))
        learned = name not in ("lookup", "ngram-after")
        drafted = config.gamma * len(rounds) if learned else 0
        assert len(rounds) <= cuda.waits - before <= len(rounds) + drafted


def test_what_fails_on_a_device_fails_on_the_pretended_one(cuda: Rules) -> None:
    """The tests above would see it."""
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="add: tensors on two devices"):
        here + there
    with pytest.raises(TypeError, match="device type tensor to numpy"):
        there.numpy()
    assert (there + 1).sum().device == nn.Linear(3, 2).to("cuda").weight.device == CUDA
    with pretended("mps"), pytest.raises(TypeError, match="MPS Tensor to float64"):
        torch.ones(3, dtype=torch.float64).to("mps")
    assert there.cpu().device.type == (here * torch.tensor(2.0)).device.type == "cpu"

    def captured(call: Any) -> Graph:
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            call()
        return graph  # type: ignore[return-value]

    for call in (
        lambda: there.sum().item(),
        lambda: there.tolist(),
        lambda: there.cpu(),
        lambda: there + torch.tensor([1.0, 2.0, 3.0], device="cuda"),
        lambda: there.copy_(torch.ones(3)),
        lambda: there[there > 0],
    ):
        with pytest.raises(RuntimeError, match="while a graph is captured"):
            captured(call)
    total = torch.zeros((), device="cuda")
    graph = captured(lambda: total.add_((there * 2).sum()))
    there.fill_(5.0)  # a graph reads what lies there when it is replayed
    total.zero_()
    graph.replay()
    assert total.item() == 30
