"""Batches from a cache, compared with SpikingJelly's and tonic's caches: ``make bench-loader``.

Every loader yields shuffled float32 batches of 16 on one core, from files that are in the page cache.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import material, peers
from benchmarks.measure import Figure, Setting, below, run, within
from plifctl.cache import Cache, CacheBuilder
from plifctl.config.dataset import Framing
from plifctl.config.lookup import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.source import RawSource
from plifctl.training.batches import BatchLoader

BATCH = 16

Epoch = Callable[[int], Iterable[Tensor]]
"""The batches of an epoch, float32 ``[16, T, 2, H, W]``."""


def gesture(setting: Setting) -> Iterator[Figure]:
    """Gesture frames, T = 20."""
    yield from _loaders(setting, "gesture", 20, recordings=10 if setting.quick else 20)


def nmnist(setting: Setting) -> Iterator[Figure]:
    """N-MNIST frames, T = 10."""
    yield from _loaders(setting, "nmnist", 10, recordings=480 if setting.quick else 1_600)


def _loaders(setting: Setting, name: str, T: int, recordings: int) -> Iterator[Figure]:
    make = {"gesture": material.gesture_folder, "nmnist": material.nmnist_zips}[name]
    with setting.folder() as folder:
        counts = make(setting.shared, folder / "raw", recordings)
        dataset, frames = material.sized(name, counts, "number-remainder")
        framing = Framing(dataset=dataset, frames=frames, T=T)
        raw = open_raw(framing, RawSource(folder / "raw", verify=False, workers=1))
        assert isinstance(raw, EventDataset)
        with CacheBuilder(framing, folder / "cache") as builder:
            cache = builder.finish(raw)
        spikingjelly = _spikingjelly(name, folder, T)
        tonic = _tonic(raw, folder, T)
        rows = np.flatnonzero(~cache.is_test)
        assert len(rows) % BATCH == 0, "or an epoch would leave some out, others each time"
        title = f"{name}, T={T}, {len(rows):,} samples"
        with _one_core():
            disk = _ours(cache, name, rows, held=False)
            # tonic leaves out the events that T does not divide
            for peer, epoch, fewer in (
                ("SpikingJelly, npz", spikingjelly, 0),
                ("tonic DiskCachedDataset", tonic, len(rows) * (T - 1)),
            ):
                _must_agree(disk, epoch, fewer)
                mine, theirs = _rates(disk, epoch, setting.pairs)
                yield within(f"{title}, from disk", "samples/s", mine, theirs, peer, 5, sign=">=")
            memory = _ours(cache, name, rows, held=True)
            mine, _ = _rates(memory, memory, setting.pairs)
            yield below(f"{title}, held in memory", "samples/s", mine, None)


def _ours(cache: Cache, name: str, rows: np.ndarray, *, held: bool) -> Epoch:
    spec = load_registry().experiment(f"{name}-plif").spec
    assert spec.train.batch_size == BATCH
    loader = BatchLoader(cache, spec, torch.device("cpu"), data_in="memory" if held else "disk")
    return lambda epoch: (batch.x for batch in loader.training_batches(rows, epoch))


def _spikingjelly(name: str, folder: Path, T: int) -> Epoch:
    root = folder / "spikingjelly"
    peers.spikingjelly()
    peers.spikingjelly_root(name, folder / "raw", root)
    loader = _loader(peers.spikingjelly_dataset(name, root, T, train=True))
    return lambda epoch: (x for x, _ in loader)


def _tonic(raw: EventDataset, folder: Path, T: int) -> Epoch:
    from tonic import DiskCachedDataset
    from tonic.transforms import ToFrame

    _, height, width = raw.dataset.shape
    to_frame = ToFrame(sensor_size=(width, height, 2), n_event_bins=T)
    framed = [
        (to_frame(peers.as_tonic(events)), raw.samples[row].label)
        for member in raw.recordings()
        for row, events, *_ in raw.decode(member.name, member.load())
        if raw.samples[row].split == "train"
    ]
    cached = DiskCachedDataset(framed, cache_path=str(folder / "tonic"))
    for index in range(len(cached)):
        cached[index]  # writes it
    loader = _loader(cached)
    return lambda epoch: (x.to(torch.float32) for x, _ in loader)


def _loader(dataset: Dataset[tuple[np.ndarray, int]]) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=0)


def _must_agree(ours: Epoch, peer: Epoch, fewer: int) -> None:
    """Ends the benchmark unless both yield batches alike, which hold the same events but for ``fewer`` at most.

    Reading an epoch of both also fills the page cache.
    """
    shapes, events = [], []
    for loader in (ours, peer):
        batches = [(tuple(x.shape), x.dtype, int(x.sum(dtype=torch.float64))) for x in loader(0)]
        shapes.append([batch[:2] for batch in batches])
        events.append(sum(batch[2] for batch in batches))
    if shapes[0] != shapes[1] or not 0 <= events[0] - events[1] <= fewer:
        sys.exit(
            f"ours yields {len(shapes[0])} batches {shapes[0][0]} of {events[0]} events, "
            f"the peer {len(shapes[1])} batches {shapes[1][0]} of {events[1]} events: their times cannot be compared"
        )


def _rates(ours: Epoch, peer: Epoch, pairs: int) -> tuple[list[float], list[float]]:
    """Samples a second of both, an epoch each in turn."""
    rates: tuple[list[float], list[float]] = [], []
    for pair in range(1, pairs + 1):
        for which in (0, 1) if pair % 2 else (1, 0):
            start = time.perf_counter()
            found = sum(len(x) for x in (ours, peer)[which](pair))
            rates[which].append(found / (time.perf_counter() - start))
    return rates


@contextmanager
def _one_core() -> Iterator[None]:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    run("batches of 16 from a cache, one core", {"gesture": gesture, "nmnist": nmnist})
