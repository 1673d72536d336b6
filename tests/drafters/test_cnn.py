"""What is the CNN's alone; what it shares is in test_neural.py."""

import pytest
import torch

from fastllm.drafters.cnn import CnnModel, CnnSettings
from fastllm.errors import SettingsError


@pytest.mark.parametrize(("layers", "span"), [(1, 2), (3, 8)])
def test_it_sees_the_last_words_and_no_others(layers: int, span: int) -> None:
    model = CnnModel(CnnSettings(50, width=24, channels=16, layers=layers, mixing=16)).eval()
    source = torch.randint(2, 50, (1, 20))
    prefix = torch.randint(2, 50, (1, 20))
    seen = []
    for place in range(20):
        changed = prefix.clone()
        changed[0, place] = (prefix[0, place] + 1) % 50
        with torch.no_grad():
            pair = model(source.expand(2, -1), torch.cat([prefix, changed]))
        assert torch.equal(pair[0, :place], pair[1, :place])  # nobody sees what comes later
        if not torch.allclose(pair[0, -1], pair[1, -1], atol=1e-7):
            seen.append(place)
    assert seen == list(range(20 - span, 20))


def test_a_state_does_not_grow() -> None:
    model = CnnModel(CnnSettings(50, width=24, channels=16, mixing=16)).eval()
    with torch.no_grad():
        memory = model.remember(torch.randint(2, 50, (2, 20)))
        state = model.begin(memory)
        for _ in range(12):
            _, state = model.step(memory, state, torch.tensor([3, 4]))
    assert [len(ring) for ring in state.rings] == [1, 2, 4]
    assert all(row.shape == (2, 16) for ring in state.rings for row in ring)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(SettingsError, match="divisible by 6"):
        CnnSettings(vocabulary_size=50, width=25)
    with pytest.raises(SettingsError, match="from 1 to 6"):
        CnnSettings(vocabulary_size=50, layers=0)
