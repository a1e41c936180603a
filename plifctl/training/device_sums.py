"""Losses and right answers of an epoch's batches, added up where they are, without waiting for a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """What came of some batches, on its way to the CPU.

    Attributes:
        step: Of the epoch, after the last of them.
        batches: How many.
        seen: Samples of all ranks.
        numbers: ``[4]``: sums of losses and right answers over this rank's samples; whether a step failed, and which.
        there: Once they are; None: now.
    """

    step: int
    batches: int
    seen: int
    numbers: Tensor
    there: torch.cuda.Event | None

    def told(self) -> tuple[float, float, int | None]:
        """Waits; returns both sums, and which step failed, counted from 0."""
        if self.there is not None:
            self.there.synchronize()
        loss_sum, correct, failed, which = self.numbers.tolist()
        return loss_sum, correct, int(which) if failed else None


class Sums:
    """Sums over batches that stay on the device until they are asked for, and are told when they have come.

    Attributes:
        batches: Counted since they were last asked for.
        seen: Samples in them.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._asked: deque[Part] = deque()
        self.seen = self.batches = 0

    def add(self, loss_sum: Tensor, right: Tensor) -> None:
        """Adds a batch's loss and right answers, on the device alone; whoever has it done counts the batch as well."""
        self._sums += torch.stack([loss_sum.double(), right.sum(dtype=torch.float64)])

    def count(self, seen: int) -> None:
        """Counts a batch of so many samples, of all ranks."""
        self.seen += seen
        self.batches += 1

    def ask(self, step: int, failure: Tensor) -> None:
        """Sends for the sums, if there are any, and for what the optimiser says of the steps; begins anew."""
        if not self.batches:
            return
        numbers, there = torch.cat([self._sums, failure]), None
        if numbers.is_cuda:
            there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            numbers = numbers.to("cpu", non_blocking=True)
            there.record(torch.cuda.current_stream(self._sums.device))
        self._asked.append(Part(step, self.batches, self.seen, numbers, there))
        self._sums.zero_()
        self.seen = self.batches = 0

    def take(self, *, latest: bool) -> Iterator[Part]:
        """Yields what was asked for, in order; the last of it only if the ``latest`` is wanted."""
        while len(self._asked) > (not latest):
            yield self._asked.popleft()
