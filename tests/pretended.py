"""A device that is none: CPU tensors that say "cuda" or "mps" and obey its rules.

A machine without a GPU never runs the lines that are meant for one. Inside `pretended` such tensors
are made, moved and computed with as on a GPU, and what would fail there fails here: numpy on one of
them, an operation on tensors of both devices, on Apple's a float64. Whatever waits for the device
is counted. CUDA graphs are recorded and replayed as a GPU does it: the operations of the captured
call, on the memory that they had then; and what cannot be captured is refused. Speed, rounding,
memory and kernels are not those of a GPU: the tests marked `gpu` are for these.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

WAIT = {"item", "tolist", "__int__", "__float__", "__bool__", "__index__", "nonzero", "equal"}
"""What waits for the device, and gives something of the host."""

MIX = {"copy_", "__getitem__", "__setitem__", "_has_compatible_shallow_copy_type"}
"""What takes tensors of both devices."""

PARSE = {"device", "_parse_to"}
"""What only reads its arguments."""


class OnDevice(torch.Tensor):
    """A tensor that is taken to be on the device. What this means stands in `Rules`."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class Rules(TorchFunctionMode):
    """How operations on both devices behave.

    Args:
        kind: "cuda" or "mps".

    Attributes:
        device: which.
        waits: how often the host waited for the device.
        capturing: whether a graph is being captured.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.device = torch.device(kind, 0)
        self.waits = 0
        self.capturing = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = any(isinstance(tensor, OnDevice) for tensor in tensors)
        if name == "__get__":
            return self._attribute(func, args)
        if name in ("to", "cuda", "cpu"):
            return self._moved(name, func, *args, **kwargs)
        if name == "__deepcopy__" and here:
            return _copied(*args)
        if "device" in kwargs:
            here = self._is_ours(kwargs["device"])
            if here:
                kwargs["device"] = "cpu"
                if name in ("tensor", "as_tensor"):
                    self._copies()
        elif here:
            here = self._allowed(name, args, tensors)
        elif name not in PARSE:
            devices = [one for one in args if isinstance(one, torch.device)]
            assert not any(map(self._is_ours, devices)), f"{name}: a device by position"
        if here and name == "scaled_dot_product_attention" and self.device.type == "cuda":
            _reads(kwargs.get("attn_mask"))
        found = func(*args, **kwargs)
        return self._marked(found, tensors) if here else found

    def _allowed(self, name: str, args: Any, tensors: list[torch.Tensor]) -> bool:
        """Whether what comes out is on the device."""
        if name in ("numpy", "__array__"):
            raise TypeError(f"can't convert {self.device} device type tensor to numpy.")
        to_host = name == "copy_" and not isinstance(args[0], OnDevice)
        if name in WAIT or to_host:
            self._waits(name)
            return False
        if name == "copy_" and not isinstance(args[1], OnDevice):
            self._copies()
        if name in ("__getitem__", "__setitem__") and any(
            tensor.dtype == torch.bool for tensor in tensors[1:] if isinstance(tensor, OnDevice)
        ):
            self._waits("a mask as an index")
        if name not in MIX and any(
            tensor.dim() for tensor in tensors if not isinstance(tensor, OnDevice)
        ):
            raise RuntimeError(f"{name}: tensors on two devices, {self.device} and cpu")
        return True

    def _waits(self, what: str) -> None:
        self.waits += 1
        if self.capturing:
            raise RuntimeError(f"{what} waits while a graph is captured")

    def _copies(self) -> None:
        if self.capturing:
            raise RuntimeError("memory of the host is copied while a graph is captured")

    def _attribute(self, func: Any, args: Any) -> Any:
        tensor = args[0]
        if not isinstance(tensor, OnDevice):
            return func(*args)
        what = getattr(func.__self__, "__name__", "")
        told = {"device": self.device, "is_cpu": False}
        told |= {f"is_{kind}": kind == self.device.type for kind in ("cuda", "mps")}
        return told[what] if what in told else self._marked(func(*args), [tensor])

    def _moved(self, name: str, func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        was = here = isinstance(tensor, OnDevice)
        given = list(args)
        for place, one in enumerate(given):
            if isinstance(one, torch.Tensor):
                here = isinstance(one, OnDevice)
            elif isinstance(one, str | torch.device):
                here, given[place] = self._is_ours(one), "cpu"
        if kwargs.get("device") is not None:
            here, kwargs["device"] = self._is_ours(kwargs["device"]), "cpu"
        if name != "to":
            here, func, given = name == "cuda", torch.Tensor.to, ["cpu"]
        if was and not here:
            self._waits(name)
        if here and not was:
            self._copies()
        found = func(tensor, *given, **kwargs)
        if here != was:
            found = found.detach().as_subclass(torch.Tensor)
            if found.data_ptr() == tensor.data_ptr():
                found = found.clone()
        return self._marked(found, [tensor]) if here else found

    def _is_ours(self, device: Any) -> bool:
        return device is not None and torch.device(device).type == self.device.type

    def _marked(self, found: Any, given: list[torch.Tensor]) -> Any:
        """All tensors of a result as ones on the device; those that were given stay the same."""

        def one(leaf: Any) -> Any:
            plain = isinstance(leaf, torch.Tensor) and not isinstance(leaf, OnDevice)
            if not plain or any(leaf is tensor for tensor in given if isinstance(tensor, OnDevice)):
                return leaf
            if self.device.type == "mps" and leaf.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
            return leaf.as_subclass(OnDevice)

        return tree_map(one, found)


def _reads(bias: torch.Tensor | None) -> None:
    """Fails as the memory-efficient kernel does on a bias that it takes for aligned and is not."""
    if bias is None:
        return
    *rows, last = bias.stride()
    if last == 1 and not any(stride % 8 for stride in rows) and bias.data_ptr() % 16:
        raise RuntimeError("CUDA error: misaligned address")


def _copied(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    fresh = tensor.detach().as_subclass(torch.Tensor).clone().as_subclass(OnDevice)
    if isinstance(tensor, torch.nn.Parameter):
        fresh._is_param = True  # type: ignore[attr-defined]
    fresh.requires_grad_(tensor.requires_grad)
    memo[id(tensor)] = fresh
    return fresh


def _memory(leaf: Any) -> int | None:
    """Tells tensors by where they lie."""
    return leaf.untyped_storage().data_ptr() if isinstance(leaf, torch.Tensor) else None


class Graph(TorchDispatchMode):
    """The part of torch.cuda.CUDAGraph that decoding uses.

    Attributes:
        steps: the captured operations: what was called, with what, and what came of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        self.steps.append((func, args, kwargs, found))
        return found

    def replay(self) -> None:
        """Does the operations again, in the same places."""
        with torch.inference_mode(), torch._C.DisableTorchFunction():
            for func, args, kwargs, found in self.steps:
                given = {_memory(leaf) for leaf in tree_leaves((args, kwargs))}
                fresh = tree_leaves(func(*args, **kwargs))
                for old, new in zip(tree_leaves(found), fresh, strict=True):
                    # a view is where it was, and what works in place is done
                    if isinstance(old, torch.Tensor) and _memory(old) not in given:
                        old.copy_(new)


class _Stream:
    def __init__(self, *_: Any) -> None:
        pass

    def wait_stream(self, _: Any) -> None:
        pass


@contextmanager
def pretended(kind: str) -> Iterator[Rules]:
    """Everything inside believes in one device of a kind, "cuda" or "mps"."""
    rules = Rules(kind)

    @contextmanager
    def capture(graph: Graph, **_: Any) -> Iterator[None]:
        rules.capturing = True
        try:
            with graph:
                yield
        finally:
            rules.capturing = False

    of_cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda *_: "pretended",
        "synchronize": lambda *_: None,
        "CUDAGraph": Graph,
        "graph": capture,
        "graph_pool_handle": object,
        "Stream": _Stream,
        "stream": lambda _: nullcontext(),
        "current_stream": _Stream,
    }
    conversion = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        if kind == "cuda":
            for name, value in of_cuda.items():
                stack.enter_context(mock.patch.object(torch.cuda, name, value))
        else:
            stack.enter_context(mock.patch("torch.backends.mps.is_available", return_value=True))
            stack.enter_context(mock.patch("torch.mps.synchronize"))
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, conversion)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # not in place
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield stack.enter_context(rules)
