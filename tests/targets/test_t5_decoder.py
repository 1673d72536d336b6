"""The static engine gives the logits of transformers, whatever was called and taken back before."""

import copy
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, T5Config
from transformers import T5ForConditionalGeneration as T5

from fastllm.checkpoints import SHIPPED, load_target
from fastllm.decoding.race import Race
from fastllm.drafters.t5 import T5Drafter
from fastllm.errors import SettingsError
from fastllm.targets import Encoding
from fastllm.targets.hub import HubSession, HubTarget
from fastllm.targets.matrices import can_halve
from fastllm.targets.t5_decoder import StaticDecoder, unfit
from fastllm.targets.t5_encoder import StaticEncoder, fits
from fastllm.trace import DecodingConfig

V = 70
BOUND = 3e-5
"""Of the range of the logits; what float32 rounds differently stays below it."""

SAMPLES = sorted((SHIPPED.parent / "articles").glob("*.txt"))

VERSIONS: dict[str, dict[str, Any]] = {
    "1.0": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "other": {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False, "num_heads": 5},
}

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def made(version: str = "1.1", **settings: Any) -> T5:
    """A T5 with random weights that all matter: norms are not 1, biases are not small."""
    torch.manual_seed(3)
    sizes = {"d_model": 48, "d_kv": 8, "d_ff": 80, "num_layers": 1, "num_decoder_layers": 3}
    sizes |= {"num_heads": 4, "vocab_size": V, "decoder_start_token_id": 0}
    config = T5Config(**(sizes | VERSIONS[version] | settings))
    model = T5(config).eval()
    if not config.scale_decoder_outputs:
        # As FLAN-T5 is loaded: its configuration ties the head, its weights are others.
        model.lm_head.weight = nn.Parameter(torch.randn(V, config.d_model))
    if version == "other":
        model.decoder.embed_tokens.weight = nn.Parameter(torch.randn(V, config.d_model))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" in name:
                weights.uniform_(0.5, 1.5)
            elif "relative" in name:
                weights.normal_()
            elif "SelfAttention" in name or "EncDec" in name:
                weights.mul_(2)
    return model


def article(model: T5, length: int = 23) -> Encoding:
    ids = torch.randint(2, V, (1, length)).to(model.device)
    with torch.inference_mode():
        states = model.get_encoder()(input_ids=ids).last_hidden_state
    return Encoding(ids[0].tolist(), states, 0.0)


def session_of(decoder: StaticDecoder, encoding: Encoding) -> Any:
    return decoder.begin(decoder.remember(encoding.states))


def distances(one: Any, other: Any, calls: list[tuple[int, int]]) -> list[float]:
    """Makes the same calls in two sessions: how far logits differ, by the range of the logits.

    A call is how many tokens to read, and how many to take back afterwards.
    """
    found_so_far = []
    for count, back in calls:
        ids = torch.randint(0, V, (count,)).tolist()
        expected, found = one.forward(ids).float(), other.forward(ids).float()
        assert found.shape == expected.shape == (count, V)
        span = float(expected.max() - expected.min())
        found_so_far.append(float((found - expected).abs().max()) / span)
        length = one.length - back
        one.keep(length)
        other.keep(length)
        assert one.length == other.length == length
    return found_so_far


def furthest(one: Any, other: Any, calls: list[tuple[int, int]]) -> float:
    return max(distances(one, other, calls))


# Every number of tokens at a few lengths, each after some were taken back; in between long calls
# past the room of the buffers, past the farthest distance, and back almost to the start.
CALLS = [
    (1, 0), *((count, count // 2) for count in range(1, 10)), (20, 3),
    *((count, count - 1) for count in range(9, 0, -1)), (70, 0), (6, 2), (90, 0), (1, 0), (9, 9),
    (150, 40), (5, 1), (1, 280), (3, 0), (1, 1), (2, 0),
]  # fmt: skip


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_logits_are_those_of_transformers(version: str, kept: torch.dtype) -> None:
    """Also of weights that were saved in bfloat16: where torch can, they are read as float16."""
    model = made(version).to(kept).float()
    encoding = article(model)
    decoder = StaticDecoder(model)
    assert furthest(HubSession(model, encoding), session_of(decoder, encoding), CALLS) < BOUND


@pytest.mark.parametrize("version", VERSIONS)
def test_the_encoder_says_what_that_of_transformers_says(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(version, num_layers=3).bfloat16().float()
    if not can_halve():
        pytest.skip("this torch has no matrices in float16")
    encoder = StaticDecoder(model).encoder
    assert isinstance(encoder, StaticEncoder)
    monkeypatch.setattr("fastllm.targets.t5_encoder._PLACES", 40)
    short = StaticEncoder(model)
    for length in (1, 2, 39, 40, 41, 300):
        found = article(model, length)
        span = float(found.states.max() - found.states.min())
        for one in (encoder, short):
            states = one(found.source_ids)
            assert states.shape == found.states.shape
            assert (states - found.states).abs().max() < BOUND * span


def test_weights_that_float16_does_not_hold_keep_the_encoder_of_transformers() -> None:
    model = made().bfloat16().float()
    assert fits(model) == can_halve()
    model = made()
    assert not fits(model)
    found = article(model)
    states = StaticDecoder(model).encoder(found.source_ids)
    assert torch.allclose(states, found.states, atol=1e-6)


def test_the_epsilon_of_norms_counts() -> None:
    model = made("1.0", layer_norm_epsilon=1e-2)
    with torch.no_grad():
        model.shared.weight.mul_(0.1)  # hidden states about as small as the epsilon
    encoding = article(model)
    decoder = StaticDecoder(model)
    assert furthest(HubSession(model, encoding), session_of(decoder, encoding), CALLS[:12]) < BOUND


def test_large_matrices_are_kept_once_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastllm.targets.matrices._TWICE", 0)
    model = made()
    encoding = article(model)
    decoder = StaticDecoder(model)
    assert furthest(HubSession(model, encoding), session_of(decoder, encoding), CALLS[:12]) < BOUND


def test_without_packed_matrices_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastllm.targets.matrices.can_pack", lambda: False)
    for version in VERSIONS:
        model = made(version)
        encoding = article(model)
        decoder = StaticDecoder(model)
        assert furthest(HubSession(model, encoding), session_of(decoder, encoding), CALLS) < BOUND


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_half_precision_errs_no_more_than_transformers(
    version: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    exact = made(version)
    exact.save_pretrained(tmp_path)
    model = T5.from_pretrained(tmp_path, dtype=dtype).eval()
    wo = model.decoder.block[0].layer[-1].DenseReluDense.wo.weight.dtype
    assert wo == (torch.float32 if dtype == torch.float16 else dtype)
    encoding = article(exact)
    halved = Encoding(encoding.source_ids, encoding.states.to(dtype), 0.0)
    torch.manual_seed(1)
    theirs = distances(HubSession(exact, encoding), HubSession(model, halved), CALLS)
    torch.manual_seed(1)
    decoder = StaticDecoder(model)
    ours = distances(HubSession(exact, encoding), session_of(decoder, halved), CALLS)
    assert session_of(decoder, halved).forward([0]).dtype == dtype
    assert sum(ours) < 1.25 * sum(theirs)


def test_sessions_do_not_disturb_each_other_and_used_buffers_are_as_good_as_new() -> None:
    model = made()
    decoder = StaticDecoder(model)
    first, second = article(model, 23), article(model, 31)
    one, other = session_of(decoder, first), session_of(decoder, second)
    references = HubSession(model, first), HubSession(model, second)
    for _ in range(3):
        assert furthest(references[0], one, [(4, 1), (2, 0)]) < BOUND
        assert furthest(references[1], other, [(3, 0), (5, 2)]) < BOUND
    used = {id(one._buffers), id(other._buffers)}
    assert len(used) == 2
    del one, other
    gc.collect()
    again = session_of(decoder, first)
    assert id(again._buffers) in used
    assert again.length == 0
    assert furthest(HubSession(model, first), again, CALLS[:8]) < BOUND


def test_short_calls_run_on_one_thread_and_leave_the_number_as_it_was() -> None:
    seen: list[int] = []

    class Watched(StaticDecoder):
        fails = False

        def _compute(self, ids: torch.Tensor, place: Any) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            if self.fails:
                raise MemoryError
            return super()._compute(ids, place)

    model = made()
    encoding = article(model)
    usual = torch.get_num_threads()
    decoder = Watched(model)
    try:
        torch.set_num_threads(2)
        decoder._alone = 4
        session = session_of(decoder, encoding)
        seen.clear()
        for count in (1, 4, 5):
            session.forward([1] * count)
            assert torch.get_num_threads() == 2
        assert seen == [1, 1, 2]
        decoder.fails = True
        with pytest.raises(MemoryError):
            session.forward([1, 1, 1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)


def test_what_it_cannot_decode_is_named() -> None:
    assert unfit(made()) == ""
    bart = BartConfig(
        vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
    )  # fmt: skip
    assert "BartForConditionalGeneration" in unfit(BartForConditionalGeneration(bart))
    assert unfit(made().half()) == "its weights are float16, `wo` float16"
    assert unfit(made().double()) == "its weights are float64, `wo` float64"
    assert unfit(made().to("meta")) == "its decoder is on meta"
    assert unfit(made(feed_forward_proj="tanh")) == "its activation is tanh"

    class Adapted(nn.Linear):
        """As a library of adapters would put in the place of a layer."""

    model = made()
    model.decoder.block[1].layer[0].SelfAttention.v = Adapted(48, 32, bias=False)
    assert unfit(model) == "decoder.block.1.layer.0.SelfAttention.v is a Adapted"
    with pytest.raises(SettingsError, match="SelfAttention.v is a Adapted. Take engine='trans"):
        StaticDecoder(model)


@pytest.fixture(scope="module")
def shipped() -> list[HubTarget]:
    """The shipped target with either engine."""
    return [load_target(device="cpu", engine=engine) for engine in ("auto", "transformers")]


@pytest.mark.parametrize("article", SAMPLES, ids=lambda path: path.stem)
def test_the_shipped_target_writes_the_same_with_both_engines(
    article: Path, shipped: list[HubTarget]
) -> None:
    assert [target.engine for target in shipped] == ["static", "transformers"]
    texts = []
    for target in shipped:
        config = DecodingConfig(max_new_tokens=48)
        race = Race(target, [None], article.read_text(), config, statistics=False)
        for _ in race:
            pass
        (trace,) = race.traces()
        assert trace.versions["engine"] == target.engine
        texts.append(trace.tokens)
    assert texts[0] == texts[1]


def test_the_engine_is_chosen_openly(tiny_target: HubTarget) -> None:
    def target(model: Any, engine: str) -> HubTarget:
        return HubTarget(model, tiny_target.vocabulary, name="tiny", engine=engine)

    assert tiny_target.engine == "static"
    assert target(tiny_target.model, "transformers").engine == "transformers"
    halves = copy.deepcopy(tiny_target.model).half()
    assert target(halves, "auto").engine == "transformers"
    with pytest.raises(SettingsError, match="does not fit this model: its weights are float16"):
        target(halves, "static")
    with pytest.raises(SettingsError, match="engine='fast': give one of auto, static, trans"):
        target(tiny_target.model, "fast")


def test_a_t5_drafter_drafts_what_its_network_says() -> None:
    drafter = T5Drafter.fresh(V, width=32, heads=4, feed_forward=48, start="ordinary")
    network = drafter.model.network
    encoding = article(network)
    uniforms = torch.zeros(4, dtype=torch.float64)

    def check(session: Any, prefix: list[int]) -> None:
        draft = session.draft(prefix, 4, DecodingConfig(), uniforms)
        source, text = torch.tensor([encoding.source_ids]), torch.tensor([prefix + draft.tokens])
        with torch.no_grad():
            expected = drafter.model(source, text)[0, len(prefix) - 1 : -1].softmax(-1)
        assert draft.unwarped is not None
        for place in range(4):
            assert (draft.unwarped(place) - expected[place]).abs().max() < 1e-5

    session = drafter.begin(encoding)
    for prefix in ([0], [0, 5, 6, 7], [0, 5, 9], [0, 5, 9, 9, 9, 9], [0, 8]):
        check(session, prefix)
    first = drafter._decoder()
    assert drafter._decoder() is first is not None
    with torch.no_grad():  # as an update in training does
        for weights in network.parameters():
            weights.mul_(1.1)
    assert drafter._decoder() is not first
    check(drafter.begin(encoding), [0, 5, 6])


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        ({"dtype": torch.float16}, "static"),
        ({"load_in": "bf16"}, "static"),
        ({"load_in": "4bit"}, "transformers"),
        ({"load_in": "8bit"}, "transformers"),
    ],
    ids=str,
)
def test_each_precision_finds_its_engine(
    options: dict[str, Any], engine: str, tiny_target: HubTarget, story: str, tmp_path: Path
) -> None:
    if options.get("load_in") in ("4bit", "8bit"):
        pytest.importorskip("bitsandbytes")
    tiny_target.model.save_pretrained(tmp_path)
    tiny_target.vocabulary.tokenizer.save_pretrained(tmp_path)
    target = HubTarget.load(tmp_path, device="cpu", source_length=96, **options)
    assert target.engine == engine
    race = Race(target, [None], story, DecodingConfig(max_new_tokens=6))
    for _ in race:
        pass
    (trace,) = race.traces()
    assert trace.versions["engine"] == engine
    assert 1 <= len(trace.tokens) <= 6


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_graphs_on_cuda_give_what_transformers_gives(version: str, dtype: torch.dtype) -> None:
    model = made(version).to("cuda", dtype)
    encoding = article(model)
    decoder = StaticDecoder(model)
    bound = BOUND if dtype == torch.float32 else 0.05
    # Twice: the second session finds buffers, and the graphs bound to them, in the pool.
    for _ in range(2):
        session = session_of(decoder, encoding)
        assert furthest(HubSession(model, encoding), session, CALLS) < bound
        assert session._buffers.graphs
        del session
        gc.collect()


@pytest.mark.gpu
@needs_cuda
def test_graphs_of_interleaved_sessions_keep_apart() -> None:
    model = made().to("cuda")
    decoder = StaticDecoder(model)
    first, second = article(model, 23), article(model, 300)
    one, other = session_of(decoder, first), session_of(decoder, second)
    references = HubSession(model, first), HubSession(model, second)
    for _ in range(3):
        assert furthest(references[0], one, [(4, 1), (1, 0)]) < BOUND
        assert furthest(references[1], other, [(6, 3), (1, 0)]) < BOUND


TREES: dict[str, tuple[int, ...]] = {
    "chain": (-1, 0, 1, 2),
    "two chains": (-1, 0, 1, 0, 3, 4),
    "at the root": (-1, -1, -1, 0, 1, 1, 5, 2),
    "larger than a graph": (*range(-1, 9), -1, *range(10, 19)),
}
"""Parents, as `forward` takes them."""


def way(parents: Sequence[int], node: int) -> list[int]:
    """The places from the first ancestor to a node."""
    return [*(way(parents, parents[node]) if parents[node] >= 0 else ()), node]


def tree_distance(session: Any, fresh: Callable[[], Any], parents: Sequence[int]) -> float:
    """How far a tree's logits are from those of chains along its paths, and what is kept from both.

    Args:
        session: reads a tree behind three texts, and keeps the way to some node each time.
        fresh: a session that reads chains.
        parents: the tree.
    """
    text = torch.randint(0, V, (5,)).tolist()
    session.keep(0)
    session.forward(text)
    furthest = 0.0
    leaves = [node for node in range(len(parents)) if node not in parents]
    for node in (1, leaves[-1], 0):
        ids = torch.randint(0, V, (len(parents),)).tolist()
        found = session.forward(ids, parents)
        assert found.shape == (len(ids), V)
        for leaf in leaves:
            path = way(parents, leaf)
            chain = fresh()
            chain.forward(text)
            expected = chain.forward([ids[place] for place in path])
            furthest = max(furthest, float((found[path] - expected).abs().max()))
        kept = way(parents, node)
        session.keep(len(text), kept)
        text += [ids[place] for place in kept]
        assert session.length == len(text)
    return furthest / float(found.max() - found.min())


@pytest.mark.parametrize("name", TREES)
def test_a_tree_is_read_like_chains_along_its_paths(name: str) -> None:
    model = made(relative_attention_max_distance=20)
    encoding = article(model)
    decoder = StaticDecoder(model)
    session = session_of(decoder, encoding)
    assert tree_distance(session, lambda: session_of(decoder, encoding), TREES[name]) < 1e-5


def test_a_session_of_transformers_refuses_trees() -> None:
    model = made()
    with pytest.raises(SettingsError, match="reads chains alone"):
        HubSession(model, article(model)).forward([3, 4], [-1, -1])
