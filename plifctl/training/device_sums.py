"""Accumulates loss and correct counts on the device, and copies them to the CPU without waiting for a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CopiedSums:
    """Sums over some batches that are being copied to the CPU.

    Attributes:
        step: Step of the epoch after the last of these batches.
        batches: Number of batches.
        samples: Number of samples of all ranks.
        values: ``[4]``: sums of losses and correct predictions of this rank; whether a step failed, and which.
        ready: Event after which ``values`` can be read; None: now.
    """

    step: int
    batches: int
    samples: int
    values: Tensor
    ready: torch.cuda.Event | None

    def wait(self) -> tuple[float, float, int | None]:
        """Waits for the copy; returns both sums, and the number of the step that failed, counted from 0, or None."""
        if self.ready is not None:
            self.ready.synchronize()
        loss_sum, correct, failed, which = self.values.tolist()
        return loss_sum, correct, int(which) if failed else None


class DeviceSums:
    """Sums over batches that stay on the device until they are copied.

    Attributes:
        batches: Number of batches since the last copy.
        samples: Number of samples in them.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._copies: deque[CopiedSums] = deque()
        self.samples = self.batches = 0

    def add(self, loss_sum: Tensor, correct: Tensor) -> None:
        """Adds a batch's loss and correct predictions; only device work, :meth:`count` is called once per batch too."""
        self._sums += torch.stack([loss_sum.double(), correct.sum(dtype=torch.float64)])

    def count(self, samples: int) -> None:
        """Counts a batch of so many samples of all ranks."""
        self.samples += samples
        self.batches += 1

    def start_copy(self, step: int, failure: Tensor) -> None:
        """Starts to copy the sums, if there are any, with the optimizer's failure report; the next sums start at 0."""
        if not self.batches:
            return
        values, ready = torch.cat([self._sums, failure]), None
        if values.is_cuda:
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            values = values.to("cpu", non_blocking=True)
            ready.record(torch.cuda.current_stream(self._sums.device))
        self._copies.append(CopiedSums(step, self.batches, self.samples, values, ready))
        self._sums.zero_()
        self.samples = self.batches = 0

    def pop_ready(self, *, include_latest: bool) -> Iterator[CopiedSums]:
        """Yields the started copies in order; the latest one, which may not have arrived, only on request."""
        while len(self._copies) > (not include_latest):
            yield self._copies.popleft()
