"""A step recorded once as a CUDA graph and then replayed: one launch instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_WARM_UP = 3
"""Calls before the recording, in which libraries choose their algorithms and take the memory that they keep."""


class Recorded:
    """Work on tensors of fixed shapes that is recorded on a GPU; elsewhere it is called, with the same held inputs.

    Every call does the work once, whether it warms up, records or replays.

    Args:
        work: Takes tensors and changes others in place, and nothing else; it never waits for the GPU.
        device: Where all of them are.
    """

    def __init__(self, work: Callable[..., None], device: torch.device) -> None:
        self._work, self._device = work, device
        self._inputs: tuple[Tensor, ...] = ()
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def __call__(self, *inputs: Tensor) -> None:
        """Does the work on ``inputs``, each of the shape and type it had the first time."""
        if not self._inputs:
            self._inputs = tuple(torch.empty_like(given) for given in inputs)
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._calls += 1
        if self._side is None:
            self._work(*self._inputs)
            return
        with torch.cuda.device(self._device):  # streams and recordings are the current device's
            if self._calls <= _WARM_UP:
                self._beside(self._side)
                return
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                # nothing of it runs while it is recorded; another thread may read samples meanwhile
                with torch.cuda.graph(self._graph, stream=self._side, capture_error_mode="thread_local"):
                    self._work(*self._inputs)
            self._graph.replay()

    def _beside(self, side: torch.cuda.Stream) -> None:
        """Does the work in another stream than the usual one, as it will be recorded."""
        usual = torch.cuda.current_stream(self._device)
        side.wait_stream(usual)
        with torch.cuda.stream(side):
            self._work(*self._inputs)
        usual.wait_stream(side)
