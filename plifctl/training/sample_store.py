"""Samples on their way to the device: their placement (device, memory, disk), with as few copies as possible.

They stay small unsigned integers until they are on the device; their values do not depend on the placement.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, get_args
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from plifctl.config.choices import DataPlacement
from plifctl.errors import UsageError, check_choice
from plifctl.training.process import installed_memory, out_of_memory_errors
from plifctl.units import format_bytes

MEMORY_SHARE = 1 / 2
"""Samples are held in memory by default if they need at most this share of the memory available."""

DEVICE_SHARE = 1 / 4
"""The same for the free memory of a GPU; training needs the larger part."""

_BLOCK_BYTES = 2**26  # read at once when all samples are read: Ctrl-C takes effect between two blocks


class Samples(Protocol):
    """The part of a cache that training uses.

    Attributes:
        labels: Class of each sample, ``[N]``.
        sample_ids: Unique name of each sample.
        shape: ``[N, ...]``.
        dtype: uint8 or uint16.
        nbytes: Size of all samples.
    """

    labels: np.ndarray
    sample_ids: list[str]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Returns the samples of ``rows``, unsigned integers ``[n, ...]``; in ``out`` if given."""
        ...


class Source(Protocol):
    """Provides samples on the device."""

    def stream(self, batches: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        """Yields the samples of each of ``batches``, unsigned integers ``[n, ...]``; close it to stop early."""
        ...


def choose_placement(
    nbytes: int, device: torch.device, requested: DataPlacement | None = None, *, processes: int = 1
) -> tuple[DataPlacement, str]:
    """Returns the placement of samples, and a sentence that explains it.

    Args:
        nbytes: Size of all samples.
        device: Device that uses them.
        requested: The placement to use; None: the one nearest to the device with enough memory.
        processes: Number of processes on this machine that each hold all samples; they divide its memory.

    Raises:
        UsageError: There is not enough memory for the placement requested.
    """
    if requested is not None:
        check_choice("data_in", requested, get_args(DataPlacement))
    free: dict[DataPlacement, int] = {"memory": free_memory() // processes}
    if device.type == "cuda":
        free = {"device": torch.cuda.mem_get_info(device)[0], **free}
    names = {"device": f"on {device}", "memory": "in memory", "disk": "on disk"}
    if requested == "disk":
        return requested, "samples are read from disk"
    if requested is not None:
        if requested not in free:
            raise UsageError(f"--data-in {requested}: {device} has no memory of its own", hint="--data-in memory")
        if nbytes > free[requested]:
            raise UsageError(
                f"--data-in {requested}: the samples need {format_bytes(nbytes)}, "
                f"{names[requested]} {format_bytes(free[requested])} are free",
                hint="--data-in disk reads them batch by batch",
            )
        return requested, _held_reason(nbytes, names[requested], free[requested])
    share = {"device": DEVICE_SHARE, "memory": MEMORY_SHARE}
    for placement, available in free.items():
        if nbytes <= share[placement] * available:
            return placement, _held_reason(nbytes, names[placement], available)
    limits = ", ".join(
        f"{share[placement]:.0%} of {format_bytes(available)} free {names[placement]}"
        for placement, available in free.items()
    )
    return "disk", f"samples are read from disk: {format_bytes(nbytes)} are more than {limits}"


def _held_reason(nbytes: int, where: str, available: int) -> str:
    return f"samples are held {where}: {format_bytes(nbytes)} of {format_bytes(available)} free"


def open_source(samples: Samples, device: torch.device, placement: DataPlacement) -> Source:
    """Returns the source of samples held in ``placement``.

    Raises:
        OutOfMemoryError: They do not fit.
    """
    if placement == "disk":
        return _DiskSource(samples, device)
    with out_of_memory_errors(f"not enough memory for {format_bytes(samples.nbytes)} of samples", "--data-in disk"):
        return _MemorySource(samples, device, device if placement == "device" else torch.device("cpu"))


class BufferPool:
    """Memory for batches, reused once no tensor or array refers to it: new memory costs more than filling it.

    A buffer never changes while any tensor or array views it.

    Args:
        pinned: A GPU copies from the buffers; torch's allocator of pinned memory reuses them after the copy.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._buffers: deque[tuple[np.ndarray, ref[np.ndarray]]] = deque(maxlen=4)  # memory, and its current user

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        """Returns a tensor with arbitrary content."""
        if self._pinned:
            return torch.empty(shape, dtype=torch_type(dtype), pin_memory=True)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        for index, (memory, user) in enumerate(self._buffers):
            if user() is None and len(memory) >= nbytes:
                del self._buffers[index]
                break
        else:
            memory = torch.empty(nbytes, dtype=torch.uint8).numpy()  # aligned for torch
        array = memory[:nbytes].view(dtype).reshape(shape)
        self._buffers.append((memory, ref(array)))
        return torch.from_numpy(array)  # its storage, and so every view of it, refers to the array


class _DiskSource:
    """Samples on disk: one batch is read ahead, in a thread that lives as long as the stream."""

    def __init__(self, samples: Samples, device: torch.device) -> None:
        self._samples, self._device = samples, device
        self._buffers = BufferPool(pinned=device.type == "cuda")
        self._lock = threading.Lock()  # several streams may be open, but the file allows one thread at a time

    def stream(self, batches: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        pending: deque[Future[Tensor]] = deque()
        reader = ThreadPoolExecutor(1, "plifctl-reader")
        try:
            for rows in batches:
                pending.append(reader.submit(self._read, rows))
                if len(pending) > 1:
                    yield pending.popleft().result().to(self._device, non_blocking=True)
            while pending:
                yield pending.popleft().result().to(self._device, non_blocking=True)
        finally:
            reader.shutdown(cancel_futures=True)

    def _read(self, rows: np.ndarray) -> Tensor:
        with self._lock:
            batch = self._buffers.take((len(rows), *self._samples.shape[1:]), self._samples.dtype)
            self._samples.read(rows, out=batch.numpy())
            return batch


class _MemorySource:
    """Samples in the memory of a device, read once."""

    def __init__(self, samples: Samples, device: torch.device, memory: torch.device) -> None:
        self._device, self._dtype = device, samples.dtype
        self._buffers = BufferPool(pinned=device.type == "cuda")
        self._all = torch.empty(samples.shape, dtype=torch_type(samples.dtype), device=memory)
        n, *rest = samples.shape
        block = max(1, _BLOCK_BYTES * n // max(1, samples.nbytes))
        for start in range(0, n, block):
            part = self._all[start : start + block]
            buffer = part if memory.type == "cpu" else self._buffers.take((len(part), *rest), self._dtype)
            samples.read(np.arange(start, start + len(part)), out=buffer.numpy())
            if buffer is not part:
                part.copy_(buffer)

    def stream(self, batches: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        values = self._all.view(torch.int16) if self._dtype == np.uint16 else self._all  # torch cannot index uint16
        memory, batch_rows = self._all.device, list(batches)
        all_rows = to_device(np.concatenate([*batch_rows, np.empty(0, np.int64)]), memory)
        for rows in torch.split(all_rows, [len(rows) for rows in batch_rows]):
            shape = (len(rows), *self._all.shape[1:])
            if memory.type == "cpu":
                batch = self._buffers.take(shape, self._dtype)
            else:
                batch = torch.empty(shape, dtype=self._all.dtype, device=memory)
            torch.index_select(values, 0, rows, out=batch.view(values.dtype))
            yield batch.to(self._device, non_blocking=True)


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Returns ``values`` on a device, without waiting for the device's pending work."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":  # only copies from pinned memory do not wait
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    """Returns the torch type of a numpy type."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def free_memory(root: Path = Path("/")) -> int:
    """Returns the memory available to this process, bytes: the machine's, within the limits of its control groups.

    On other systems than Linux it is half of the installed memory, or 0 where that is unknown.

    Args:
        root: Folder of ``proc`` and ``sys``.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return (installed_memory() or 0) // 2
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return max(0, min([available, *_free_by_control_group(root)]))


def _free_by_control_group(root: Path) -> Iterator[int]:
    """Yields the free memory, bytes, within each control group (version 1 or 2) that limits memory."""
    groups: list[str] = []
    with suppress(OSError):
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    for _, controllers, path in (line.split(":", 2) for line in groups):
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        limit, usage = ("limit_in_bytes", "usage_in_bytes") if controllers else ("max", "current")
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # the root group has no limit, and "max" means none
                left = int((folder / f"memory.{limit}").read_text()) - int((folder / f"memory.{usage}").read_text())
                statistics = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield left + sum(int(value) for name, value in statistics if name == "inactive_file")  # page cache
            if folder == top:
                break
