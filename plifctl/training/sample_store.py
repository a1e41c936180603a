"""Samples on their way to the device: where they are held, and no copy that is not needed.

They stay the small unsigned integers they are until they are there, and what they hold never depends on the way.
"""

from __future__ import annotations

import os
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
from plifctl.errors import OutOfMemoryError, UsageError
from plifctl.training.process import is_out_of_memory

"""Where all samples are held while training; on ``disk`` they stay in the cache and are read batch by batch."""
PLACES: tuple[DataPlacement, ...] = get_args(DataPlacement)

MEMORY_SHARE = 1 / 2
"""Samples that take up to this part of the memory available are held there unasked."""

DEVICE_SHARE = 1 / 4
"""The same of a GPU's free memory, of which training needs more."""

_BLOCK = 2**26  # bytes read at once where all is read: between two blocks Ctrl-C is heard


class Samples(Protocol):
    """What training needs of a cache.

    Attributes:
        labels: Class of each, ``[N]``.
        sample_ids: Name of each, which no other has.
        shape: ``[N, ...]``.
        dtype: uint8 or uint16.
        nbytes: Size of all.
    """

    labels: np.ndarray
    sample_ids: list[str]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Returns the samples of ``rows``, unsigned integers ``[n, ...]``; in ``out``, where that is given."""
        ...


class Source(Protocol):
    """Gives samples on the device."""

    def stream(self, batches: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        """Yields the samples of each of ``batches``, unsigned integers ``[n, ...]``; close it to stop early."""
        ...


def choose_placement(
    nbytes: int, device: torch.device, wanted: DataPlacement | None = None, *, processes: int = 1
) -> tuple[DataPlacement, str]:
    """Returns where to hold samples, and why in a sentence.

    Args:
        nbytes: Size of all of them.
        device: What they are used on.
        wanted: The place asked for; None: the nearest to the device that has room.
        processes: How many on this machine hold all samples each; its memory is divided among them.

    Raises:
        UsageError: There is no room where they are wanted.
    """
    free: dict[DataPlacement, int] = {"memory": free_memory() // processes}
    if device.type == "cuda":
        free = {"device": torch.cuda.mem_get_info(device)[0], **free}
    names = {"device": f"on {device}", "memory": "in memory", "disk": "on disk"}
    if wanted == "disk":
        return wanted, "samples are read from disk"
    if wanted is not None:
        if wanted not in free:
            raise UsageError(f"--data-in {wanted}: {device} has no memory of its own", hint="--data-in memory")
        if nbytes > free[wanted]:
            raise UsageError(
                f"--data-in {wanted}: the samples need {_size(nbytes)}, {names[wanted]} {_size(free[wanted])} are free",
                hint="--data-in disk reads them batch by batch",
            )
        return wanted, f"samples are held {names[wanted]}: {_size(nbytes)} of {_size(free[wanted])} free"
    share = {"device": DEVICE_SHARE, "memory": MEMORY_SHARE}
    for place, room in free.items():
        if nbytes <= share[place] * room:
            return place, f"samples are held {names[place]}: {_size(nbytes)} of {_size(room)} free"
    rooms = ", ".join(f"{share[place]:.0%} of {_size(room)} free {names[place]}" for place, room in free.items())
    return "disk", f"samples are read from disk: {_size(nbytes)} are more than {rooms}"


def open_source(samples: Samples, device: torch.device, place: DataPlacement) -> Source:
    """Returns the source that holds ``samples`` in ``place``.

    Raises:
        OutOfMemoryError: They do not fit.
    """
    if place == "disk":
        return _Read(samples, device)
    try:
        return _Held(samples, device, device if place == "device" else torch.device("cpu"))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"no room for {_size(samples.nbytes)} of samples", hint="--data-in disk") from error


class Buffers:
    """Memory for batches, taken again once nobody has what was in it: fresh memory costs more than to fill it.

    What is taken never changes while any tensor or array looks into it, however long that is.

    Args:
        pinned: A GPU copies from it, which torch's own allocator for such memory knows to wait for.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._kept: deque[tuple[np.ndarray, ref[np.ndarray]]] = deque(maxlen=4)  # memory, and who has it

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        """Returns a tensor of any content."""
        if self._pinned:
            return torch.empty(shape, dtype=torch_type(dtype), pin_memory=True)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        for index, (memory, holder) in enumerate(self._kept):
            if holder() is None and len(memory) >= nbytes:
                del self._kept[index]
                break
        else:
            memory = torch.empty(nbytes, dtype=torch.uint8).numpy()  # aligned as torch likes it
        array = memory[:nbytes].view(dtype).reshape(shape)
        self._kept.append((memory, ref(array)))
        return torch.from_numpy(array)  # its storage has the array, and so has every view of it


class _Read:
    """Samples on disk: one batch is read ahead, in a thread that lives as long as the stream."""

    def __init__(self, samples: Samples, device: torch.device) -> None:
        self._samples, self._device = samples, device
        self._buffers = Buffers(pinned=device.type == "cuda")
        self._turn = threading.Lock()  # two streams may be open, and the file is for one thread at a time

    def stream(self, batches: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        coming: deque[Future[Tensor]] = deque()
        reader = ThreadPoolExecutor(1, "plifctl-reader")
        try:
            for rows in batches:
                coming.append(reader.submit(self._read, rows))
                if len(coming) > 1:
                    yield coming.popleft().result().to(self._device, non_blocking=True)
            while coming:
                yield coming.popleft().result().to(self._device, non_blocking=True)
        finally:
            reader.shutdown(cancel_futures=True)

    def _read(self, rows: np.ndarray) -> Tensor:
        with self._turn:
            batch = self._buffers.take((len(rows), *self._samples.shape[1:]), self._samples.dtype)
            self._samples.read(rows, out=batch.numpy())
            return batch


class _Held:
    """Samples in the memory of ``where``, read once."""

    def __init__(self, samples: Samples, device: torch.device, where: torch.device) -> None:
        self._device, self._dtype = device, samples.dtype
        self._buffers = Buffers(pinned=device.type == "cuda")
        self._all = torch.empty(samples.shape, dtype=torch_type(samples.dtype), device=where)
        n, *rest = samples.shape
        step = max(1, _BLOCK * n // max(1, samples.nbytes))
        for start in range(0, n, step):
            part = self._all[start : start + step]
            landing = part if where.type == "cpu" else self._buffers.take((len(part), *rest), self._dtype)
            samples.read(np.arange(start, start + len(part)), out=landing.numpy())
            if landing is not part:
                part.copy_(landing)

    def stream(self, batches: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        words = self._all.view(torch.int16) if self._dtype == np.uint16 else self._all  # torch cannot index uint16
        here, wanted = self._all.device, list(batches)
        everyone = sent(np.concatenate([*wanted, np.empty(0, np.int64)]), here)
        for rows in torch.split(everyone, [len(rows) for rows in wanted]):
            shape = (len(rows), *self._all.shape[1:])
            if here.type == "cpu":
                found = self._buffers.take(shape, self._dtype)
            else:
                found = torch.empty(shape, dtype=self._all.dtype, device=here)
            torch.index_select(words, 0, rows, out=found.view(words.dtype))
            yield found.to(self._device, non_blocking=True)


def sent(values: np.ndarray, device: torch.device) -> Tensor:
    """Returns ``values`` on a device, without waiting for what it has still to do."""
    there = torch.from_numpy(values)
    if device.type == "cuda":  # only from pinned memory nothing waits
        there = there.pin_memory()
    return there.to(device, non_blocking=True)


def torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    """Returns torch's name of a type of numpy."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def free_memory(root: Path = Path("/")) -> int:
    """Returns how much memory there is to take, bytes: the machine's, or what the process's control groups leave of it.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux: half of what is built in
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return max(0, min([available, *_left_by_groups(root)]))


def _left_by_groups(root: Path) -> Iterator[int]:
    """What each control group (of version 1 or 2) that has a limit of memory leaves of it, bytes."""
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
            with suppress(OSError, ValueError):  # the topmost has no limit, and "max" is none
                left = int((folder / f"memory.{limit}").read_text()) - int((folder / f"memory.{usage}").read_text())
                kept = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield left + sum(int(value) for name, value in kept if name == "inactive_file")  # page cache
            if folder == top:
                break


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 10**9 else f"{nbytes / 1e6:,.1f} MB"
