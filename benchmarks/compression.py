"""Ways to compress samples: size, writing and reading of real frames with HDF5 filters.

    .bench-venv/bin/python -m benchmarks.compression

The compression of plifctl (``plifctl.cache.chunks``) was chosen from this table. Every filter is HDF5's own or
hdf5plugin's, a sample a chunk with Fletcher-32, written and read by h5py in one thread; the last row of each set is
numpy's compressed ``.npz`` of the same frames as float64, SpikingJelly's way.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from benchmarks.material import sized
from benchmarks.measure import ROOT, hardware
from plifctl.cache import CacheBuilder
from plifctl.config.dataset import Framing
from plifctl.data.datasets import open_raw
from plifctl.data.source import RawSource

FILTERS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "zstd 1": hdf5plugin.Zstd(clevel=1),
    "zstd 3": hdf5plugin.Zstd(clevel=3),
    "zstd 6": hdf5plugin.Zstd(clevel=6),
    "lz4": hdf5plugin.LZ4(),
    "bitshuffle lz4": hdf5plugin.Bitshuffle(cname="lz4"),
    "blosc bitshuffle lz4": hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.BITSHUFFLE),
    "blosc bitshuffle zstd 1": hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.BITSHUFFLE),
    "blosc2 bitshuffle lz4": hdf5plugin.Blosc2(cname="lz4", filters=hdf5plugin.Blosc2.BITSHUFFLE),
    "blosc2 bitshuffle zstd 1": hdf5plugin.Blosc2(cname="zstd", clevel=1, filters=hdf5plugin.Blosc2.BITSHUFFLE),
    "gzip 1": {"compression": "gzip", "compression_opts": 1},
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="size and speed of ways to pack frames")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data", help="the real recordings")
    shared = parser.parse_args().shared
    if not (shared / "DvsGesture").is_dir():
        sys.exit(f"{shared}: no recordings here; name their folder: --shared DIR")
    print(f"{'frames':28}{'filter':28}{'bytes a sample':>16}{'write µs':>10}{'read µs':>10}")
    with tempfile.TemporaryDirectory() as work:
        for name, folder, T, counts in (("gesture", "DvsGesture", 20, (40, 10)), ("nmnist", "NMNIST", 10, (800, 100))):
            frames = _frames(name, shared / folder, T, counts, Path(work))
            title = f"{name} T={T}, {'×'.join(map(str, frames.shape[1:]))}"
            for kind, options in FILTERS.items():
                size, write, read = _measured(frames, options, Path(work) / "packed.h5")
                print(f"{title:28}{kind:28}{size:16,.0f}{write * 1e6:10.0f}{read * 1e6:10.0f}")
            print(f"{title:28}{'npz of float64':28}{np.mean([_npz(sample) for sample in frames[:100]]):16,.0f}")
    print(f"median of five; {hardware()}, h5py {h5py.__version__}, hdf5plugin {hdf5plugin.version}")


def _frames(name: str, root: Path, T: int, counts: tuple[int, int], work: Path) -> np.ndarray:
    dataset, chosen = sized(name, counts, "number")
    framing = Framing(dataset=dataset, frames=chosen, T=T)
    with CacheBuilder(framing, work) as builder:
        cache = builder.finish(open_raw(framing, RawSource(root, verify=False)))
    return cache.read(np.arange(sum(counts)))


def _measured(frames: np.ndarray, options: Mapping[str, Any], path: Path) -> tuple[float, float, float]:
    """Returns bytes, seconds to write and seconds to read per sample."""
    writes, reads, size = [], [], 0
    room = np.empty((1, *frames.shape[1:]), frames.dtype)
    for _ in range(5):
        path.unlink(missing_ok=True)
        with h5py.File(path, "w", libver=("v110", "v110"), rdcc_nbytes=0) as file:
            chunks = (1, *frames.shape[1:])
            data = file.create_dataset("f", frames.shape, frames.dtype, chunks=chunks, fletcher32=True, **options)
            start = time.perf_counter()
            for row, sample in enumerate(frames):
                data[row] = sample
            writes.append(time.perf_counter() - start)
            size = data.id.get_storage_size()
        with h5py.File(path, rdcc_nbytes=0) as file:
            data = file["f"]
            start = time.perf_counter()
            for row in range(len(frames)):
                data.read_direct(room, np.s_[row : row + 1])
            reads.append(time.perf_counter() - start)
    return size / len(frames), float(np.median(writes)) / len(frames), float(np.median(reads)) / len(frames)


def _npz(sample: np.ndarray) -> int:
    packed = io.BytesIO()
    np.savez_compressed(packed, frames=sample.astype(np.float64))
    return len(packed.getvalue())


if __name__ == "__main__":
    main()
