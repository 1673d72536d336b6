"""Devices: their names, and what CUDA asks of us beside the arithmetic.

Every name of a device is read here, every switch of a backend is set here, and nowhere else.
"""

import os

import torch

from fastllm.errors import SettingsError

CUDNN_ATTENTION = "FASTLLM_CUDNN_ATTENTION"
"""The environment variable that leaves cuDNN's attention on where it is "1"."""

_ALIGNED = 8
"""A row of a bias takes a multiple of so many numbers: 16 bytes of bfloat16, 32 of float32."""


def usable_device(device: str | torch.device | None) -> torch.device:
    """The device of a name, which is here: cpu, cuda, cuda:1, mps, or the number of a GPU.

    Where none is named, CUDA if there is one, else the CPU: Apple's MPS is taken by name alone,
    since the static engine does not run there, and small models are what it is for.

    Raises:
        SettingsError: it is no name of a device, or there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(f"cuda:{device}" if str(device).isdigit() else device)
    except RuntimeError as error:
        raise SettingsError(
            f"device={device!r} is no name of a device: give cpu, cuda, cuda:1, mps, or the number "
            "of a GPU."
        ) from error
    if found.type == "cuda":  # of a large number torch makes one below 0
        here = 0 <= (found.index or 0) < torch.cuda.device_count()
    elif found.type == "mps":
        here = torch.backends.mps.is_available()
    else:
        here = found.type != "meta" and _holds_numbers(found)
    if not here:
        raise SettingsError(
            f"device={str(device)!r}: there is no such device here ({torch.cuda.device_count()} "
            "CUDA GPUs). Give cpu, or leave it out to take the best there is."
        )
    return found


def _holds_numbers(device: torch.device) -> bool:
    """Whether this build of torch knows what to do with a device of a rarer kind."""
    try:
        torch.empty(0, device=device)
    except Exception:  # each kind has an error of its own, of a missing module too
        return False
    return True


def prepare(device: torch.device) -> None:
    """Sets the switches for a device, before anything is computed there.

    On Hopper PyTorch takes cuDNN's attention first for half precision. It makes a plan for every
    shape and thread, at tens to hundreds of milliseconds each; a text that grows has a new shape at
    every token. So it is off, unless the variable in `CUDNN_ATTENTION` says otherwise.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(os.environ.get(CUDNN_ATTENTION) == "1")


def aligned(bias: torch.Tensor) -> torch.Tensor:
    """A bias of attention (..., S) as CUDA's kernels may read it.

    The memory-efficient kernel loads a bias 16 bytes at a time. PyTorch looks at the strides to
    find out whether it may (what does not fit is copied to where it does), and does not look at
    the address: a slice of a wide table has the strides, and begins anywhere. The kernel then
    fails with a misaligned address, which ends the use of the device by this process.

    Returns:
        The bias itself on other devices; on CUDA a copy that begins where memory was allocated,
        in rows of a multiple of 8 numbers.
    """
    if bias.device.type != "cuda":
        return bias
    count = bias.shape[-1]
    room = -count % _ALIGNED + count
    return bias.new_empty(*bias.shape[:-1], room)[..., :count].copy_(bias)


def leave_a_core() -> None:
    """Has models compute on all cores but one, unless OMP_NUM_THREADS says on how many.

    The browser and the server need one as well. Threads that compute wait for each other many times
    a token, and where one of them has lost its core to a browser, all do: on two cores a race then
    took ten times as long.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))
