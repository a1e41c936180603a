"""A training step recorded once as a CUDA graph and then replayed: one launch instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_WARM_UP_CALLS = 3
"""Calls before the recording, in which libraries choose their algorithms and allocate their workspaces."""


class GraphedStep:
    """Work on tensors of fixed shapes, recorded on a GPU; on other devices it is called with the same static inputs.

    Every call does the work once, whether it warms up, records or replays.

    Args:
        work: Reads tensors and changes others in place, and nothing else; it never waits for the GPU.
        device: Device of all these tensors.
    """

    def __init__(self, work: Callable[..., None], device: torch.device) -> None:
        self._work, self._device = work, device
        self._inputs: tuple[Tensor, ...] = ()
        self._side_stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def __call__(self, *inputs: Tensor) -> None:
        """Does the work on ``inputs``, each of the shape and type that it had in the first call."""
        if not self._inputs:
            self._inputs = tuple(torch.empty_like(tensor) for tensor in inputs)
        for static, tensor in zip(self._inputs, inputs, strict=True):
            static.copy_(tensor)
        self._calls += 1
        if self._side_stream is None:
            self._work(*self._inputs)
            return
        with torch.cuda.device(self._device):  # streams and recordings belong to the current device
            if self._calls <= _WARM_UP_CALLS:
                self._work_on(self._side_stream)
                return
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                # recording does not run the work; other threads may read samples during it
                with torch.cuda.graph(self._graph, stream=self._side_stream, capture_error_mode="thread_local"):
                    self._work(*self._inputs)
            self._graph.replay()

    def _work_on(self, side_stream: torch.cuda.Stream) -> None:
        """Does the work in the stream that it will be recorded in."""
        stream = torch.cuda.current_stream(self._device)
        side_stream.wait_stream(stream)
        with torch.cuda.stream(side_stream):
            self._work(*self._inputs)
        stream.wait_stream(side_stream)
