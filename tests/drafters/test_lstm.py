"""What is the LSTM's alone; what it shares is in test_neural.py."""

import pytest
import torch

from fastllm.drafters.lstm import LstmModel, LstmSettings
from fastllm.errors import SettingsError


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(SettingsError, match="divisible by 6"):
        LstmSettings(vocabulary_size=50, width=25)
    with pytest.raises(SettingsError, match="above 0"):
        LstmSettings(vocabulary_size=50, places=0)


def test_it_remembers_the_first_word() -> None:
    model = LstmModel(LstmSettings(50, width=24, hidden=16, mixing=16)).eval()
    source = torch.randint(2, 50, (1, 20))
    prefix = torch.randint(2, 50, (2, 12))
    prefix[1, 1:] = prefix[0, 1:]
    with torch.no_grad():
        one, other = model(source.expand(2, -1), prefix)
    assert not torch.equal(one[-1], other[-1])
