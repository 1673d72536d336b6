"""What CUDA asks of us beside the arithmetic: switches of its backends, and where a bias may lie.

Every such switch is set here, and nowhere else.
"""

import os

import torch

CUDNN_ATTENTION = "FASTLLM_CUDNN_ATTENTION"
"""The environment variable that leaves cuDNN's attention on where it is "1"."""

_ALIGNED = 8
"""A row of a bias takes a multiple of so many numbers: 16 bytes of bfloat16, 32 of float32."""


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
