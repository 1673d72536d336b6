"""Calls captured as CUDA graphs, each proven against the call that it was captured from.

A graph replays kernels on the memory that they had when it was captured, without a word from
Python. Where capturing fails, or a graph gives other numbers than the call itself, none is used
from then on: decoding goes on call by call, slower and as exact. Source of what a capture needs:
the CUDA semantics notes of PyTorch, "CUDA Graphs".
"""

import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from fastllm.errors import FastLLMWarning

Call = Callable[[], torch.Tensor]
Otherwise = Callable[[], AbstractContextManager[None]]

_DIFFERENCE = 0.02
"""How far a graph's numbers may be from the call's, by their range: bfloat16 in kernels that
another workspace allows stays below it, a wrong address does not."""

_ONE_AT_A_TIME = threading.Lock()
"""Captures of several threads would end up in each other's stream."""


class Capturing:
    """What the graphs of one decoder on a CUDA device have in common.

    `failure` is why no graph is used any more; empty while they are.
    """

    def __init__(self, device: torch.device) -> None:
        self.failure = ""
        self._device = device
        # One stream for all: memory is shared only among captures on the same one, and libraries
        # keep a workspace for each.
        self._stream: Any = None

    def streams(self) -> tuple[Any, Any]:
        """Where calls are captured, and where they are made otherwise."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return self._stream, torch.cuda.current_stream(self._device)

    def fail(self, failure: str) -> None:
        """Ends the use of graphs, and says why."""
        self.failure = failure
        warnings.warn(
            f"CUDA graphs are left out, decoding goes on without them: {failure}",
            FastLLMWarning,
            stacklevel=2,
        )


class Graphs:
    """The graphs over one set of buffers, which share memory of their own.

    Without a `Capturing` nothing is captured, and calls are made as they are.
    """

    def __init__(self, capturing: Capturing | None) -> None:
        self._capturing = capturing
        self._known: dict[Hashable, tuple[Any, torch.Tensor]] = {}
        # Never used again when these graphs are gone: torch refuses a pool that was once let go.
        self._pool: Any = None

    def __len__(self) -> int:
        return len(self._known)

    @property
    def used(self) -> bool:
        """Whether calls are captured."""
        return self._capturing is not None and not self._capturing.failure

    def replay(self, key: Hashable, call: Call, otherwise: Otherwise) -> torch.Tensor:
        """What a call gives, as `run`; a tensor that is the caller's own."""
        result = self.run(key, call, otherwise)
        # Another graph may use the same memory: what is handed out is a copy.
        return result.clone() if key in self._known else result

    def run(
        self,
        key: Hashable,
        call: Call,
        otherwise: Otherwise,
        moved: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """Makes a call, from its graph, captured if the key is new.

        Args:
            key: tells calls apart.
            call: reads and writes nothing but memory that stays. Done twice it comes to the same,
                once what it has `moved` is put back.
            otherwise: a context in which it is captured: there it would read other numbers, so
                that a graph in which something froze gives itself away.
            moved: what a call reads and then changes.

        Returns:
            What it gives, where the next call may write over it.
        """
        found = self.prepare(key, call, otherwise, moved)
        if found is None:
            return call()
        found[0].replay()
        return found[1]

    def prepare(
        self,
        key: Hashable,
        call: Call,
        otherwise: Otherwise,
        moved: Sequence[torch.Tensor] = (),
    ) -> tuple[Any, torch.Tensor] | None:
        """The graph of a call and where its result will lie; None where graphs are not used.

        The arguments are those of `run`. Nothing has moved afterwards.
        """
        if self._capturing is None or self._capturing.failure:
            return None
        if key not in self._known:
            try:
                with _ONE_AT_A_TIME:
                    streams = self._capturing.streams()
                    graph, result, difference = self._captured(streams, call, otherwise, moved)
            except RuntimeError as error:
                reason, _, _ = str(error).partition("\n")
                self._capturing.fail(f"{type(error).__name__}: {reason}")
                return None
            if not difference <= _DIFFERENCE:  # not a number is no agreement
                self._capturing.fail(
                    f"a graph's numbers differ from the call's by {difference:.2g} of their range"
                )
                return None
            self._known[key] = graph, result
        return self._known[key]

    def _captured(
        self, streams: Any, call: Call, otherwise: Otherwise, moved: Sequence[torch.Tensor]
    ) -> tuple[Any, torch.Tensor, float]:
        """The graph, where its result lies, and how far this is from what the call gives."""
        stream, current = streams
        before = [memory.clone() for memory in moved]

        def put_back() -> None:
            for memory, kept in zip(moved, before, strict=True):
                memory.copy_(kept)

        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            # Libraries choose kernels and take workspaces before anything is captured.
            expected = call()
        current.wait_stream(stream)
        put_back()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with (
            otherwise(),
            torch.cuda.graph(
                graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
            ),
        ):
            result = call()
        put_back()
        graph.replay()
        put_back()
        expected = expected.float()
        span = expected.max() - expected.min()
        return graph, result, float((result.float() - expected).abs().max() / span)
