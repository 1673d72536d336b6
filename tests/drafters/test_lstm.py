from pathlib import Path

import pytest
import torch

from fastllm.drafters.lstm import LstmDrafter, LstmModel, LstmSettings
from fastllm.drafters.neural import roll_out
from fastllm.errors import CheckpointError, SettingsError
from fastllm.sampling import distribution
from fastllm.targets import Encoding
from fastllm.trace import DecodingConfig

SIZES = LstmSettings(vocabulary_size=50, width=24, hidden=16, mixing=16, places=8)
SOURCE = [7, 8, 9, 10, 11, 12, 7, 13, 14, 15, 1]
GREEDY = DecodingConfig(gamma=4)
SAMPLING = DecodingConfig(gamma=4, temperature=0.8, top_p=0.9)


@pytest.fixture
def drafter() -> LstmDrafter:
    torch.manual_seed(2)
    model = LstmModel(SIZES)
    model.start_copying(torch.Generator().manual_seed(2))
    return LstmDrafter(model.eval(), SIZES, "lstm", "0123")


def _encoding() -> Encoding:
    return Encoding(SOURCE, torch.zeros(1, len(SOURCE), 4), 0.0)


def _uniforms(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def test_step_equals_forward(drafter: LstmDrafter) -> None:
    model = drafter.model
    # The second article is padded, and longer than there are places.
    source = torch.tensor([SOURCE, [*SOURCE[:6], 1, 0, 0, 0, 0]])
    prefix = torch.randint(2, 50, (2, 12))
    with torch.no_grad():
        whole = model(source, prefix)
        memory = model.remember(source)
        state = model.begin(memory)
        for place in range(12):
            features, state = model.step(memory, state, prefix[:, place])
            assert (model.logits(features) - whole[:, place]).abs().max() < 1e-5


def test_padding_changes_nothing(drafter: LstmDrafter) -> None:
    prefix = torch.randint(2, 50, (1, 5))
    with torch.no_grad():
        alone = drafter.model(torch.tensor([SOURCE]), prefix)
        padded = drafter.model(torch.tensor([[*SOURCE, 0, 0]]), prefix)
    # The last real place sees the padding token behind it, as it sees nothing without padding.
    assert (alone - padded).abs().max() < 0.2
    assert torch.equal(alone.argmax(-1), padded.argmax(-1))


@pytest.mark.parametrize("config", [GREEDY, SAMPLING])
def test_rolled_back_session_equals_a_fresh_one(
    drafter: LstmDrafter, config: DecodingConfig
) -> None:
    used = drafter.begin(_encoding())
    text = [0]
    for added in ([7, 8], [20], [9, 10, 11, 30], [12]):
        used.draft(text, 4, config, _uniforms(4))
        text += added
        used.accept(added)
    fresh = drafter.begin(_encoding())
    one = used.draft(text, 4, config, _uniforms(4, 1))
    other = fresh.draft(text, 4, config, _uniforms(4, 1))
    assert one.tokens == other.tokens
    for place in range(4):
        assert (one.q.row(place, 50) - other.q.row(place, 50)).abs().max() < 1e-6
    assert used.draft(text, 4, config, _uniforms(4, 1)).tokens == other.tokens


def test_q_is_the_distribution_that_tokens_come_from(drafter: LstmDrafter) -> None:
    session = drafter.begin(_encoding())
    config = DecodingConfig(gamma=1, temperature=1.0, top_k=8)
    counts = torch.zeros(50)
    draws = 2000
    for uniform in _uniforms(draws, 3):
        draft = session.draft([0, 7], 1, config, uniform[None])
        counts[draft.tokens[0]] += 1
    q = draft.q.row(0, 50)
    logits = drafter.model(torch.tensor([SOURCE]), torch.tensor([[0, 7]]))[0, -1]
    assert (q - distribution(logits, config)).abs().max() < 1e-6
    possible = q > 0
    assert possible.sum() == 8
    assert counts[~possible].sum() == 0
    expected = q[possible] * draws
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    assert chi_square < 24.3  # 7 degrees of freedom, p = 0.001


def test_greedy_drafts_are_one_hot_and_show_their_confidence(drafter: LstmDrafter) -> None:
    draft = drafter.begin(_encoding()).draft([0, 7], 3, GREEDY, _uniforms(3))
    assert draft.q.of(torch.tensor(draft.tokens)).tolist() == [1, 1, 1]
    assert draft.unwarped is not None
    rows = [draft.unwarped(place) for place in range(3)]
    assert [int(row.argmax()) for row in rows] == draft.tokens
    assert all(row.sum() == pytest.approx(1) for row in rows)


def test_rollout_is_what_a_session_would_write(drafter: LstmDrafter) -> None:
    source = torch.tensor([SOURCE, SOURCE])
    texts = roll_out(
        drafter.model,
        source,
        start_id=0,
        end_id=1,
        length=9,
        temperature=0,
        generator=torch.Generator(),
    )
    session = drafter.begin(_encoding())
    written = [0]
    while len(written) < 10 and written[-1] != 1:
        written += session.draft(written, 1, GREEDY, _uniforms(1)).tokens
    assert texts == [written[1:], written[1:]]


def test_save_and_load(drafter: LstmDrafter, tmp_path: Path) -> None:
    drafter.save(tmp_path / "one")
    loaded = LstmDrafter.load(tmp_path / "one")
    assert (loaded.name, loaded.vocabulary, loaded.settings) == ("lstm", "0123", SIZES)
    for saved, kept in zip(loaded.model.parameters(), drafter.model.parameters(), strict=True):
        assert torch.equal(saved, kept.to(torch.bfloat16).float())
    weights = tmp_path / "one" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole lstm drafter"):
        LstmDrafter.load(tmp_path / "one")


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(SettingsError, match="divisible by 6"):
        LstmSettings(vocabulary_size=50, width=25)
