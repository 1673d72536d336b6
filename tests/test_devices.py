"""One reading of the names of devices, for every command and the page."""

import pytest
import torch

from fastllm import devices
from fastllm.cli.main import main
from fastllm.devices import usable_device
from fastllm.errors import SettingsError


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert usable_device("1") == usable_device("cuda:1") == torch.device("cuda", 1)
    assert usable_device("cuda") == torch.device("cuda")


@pytest.mark.parametrize(
    "name", ["99", "cuda:99", "cuda:999", "abacus", "", "-1", "²", "xla", "vulkan", "hpu", "meta"]
)
def test_what_is_no_device_here_is_refused_everywhere(
    name: str, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError, match=r"no such device here|no name of a device"):
        usable_device(name)
    shape = ["--target-shape", "t5-small", "--random-weights", "--alpha", "0.5"]
    train = ["train", "--drafter", "lstm", "--exp_name", f"{tmp_path}/run"]
    for command in (["run", "README.md"], ["bench", *shape], train):
        assert main([*command, f"--device={name}"]) == 2
        assert "device=" in capsys.readouterr().err
    assert pytest.importorskip("app").main([f"--device={name}"]) == 2
    assert "app.py: device=" in capsys.readouterr().err


def test_a_core_is_left_to_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for cores in (1, 2, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda cores=cores: cores)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        devices.leave_a_core()
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        devices.leave_a_core()  # somebody has said how many
    assert asked == [1, 1, 7]
