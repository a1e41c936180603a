"""A sample as a chunk of an HDF5 file: compressed and checked here, in threads, where HDF5 would do it in one.

HDF5 reads such chunks by itself, wherever hdf5plugin is installed (``gzip`` and ``none``: anywhere).
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping
from typing import Any, Literal, get_args

import h5py
import hdf5plugin
import numpy as np
import zstandard

Compression = Literal["zstd", "gzip", "none"]
"""``zstd`` at level 1 was the smallest by far among what reads as fast as memory: benchmarks/compression.py."""
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)

_LEVEL = 1
_local = threading.local()  # a compressor serves one thread at a time


def encode(sample: np.ndarray, compression: Compression) -> bytes:
    """Returns the chunk of a sample: its bytes compressed, then Fletcher's checksum of them.

    Args:
        sample: Of any shape, in the order of memory.
        compression: How.
    """
    if compression == "zstd":
        if not hasattr(_local, "zstd"):
            _local.zstd = zstandard.ZstdCompressor(level=_LEVEL)
        packed: bytes = _local.zstd.compress(sample.data)
    elif compression == "gzip":
        packed = zlib.compress(sample.data, _LEVEL)
    else:
        packed = sample.tobytes()
    return packed + _checksum(packed)


def decode(chunk: bytes, out: np.ndarray) -> bool:
    """Unpacks a chunk of :func:`encode`'s ``zstd``, twice as fast as HDF5, which takes fresh memory for each.

    Args:
        chunk: Packed bytes and their checksum.
        out: Where the sample goes, in the order of memory.

    Returns:
        Whether it is whole. If not, only HDF5 can say what is wrong.
    """
    packed = memoryview(chunk)[:-4]
    if _checksum(packed) != chunk[-4:]:
        return False
    if not hasattr(_local, "unzstd"):
        _local.unzstd = zstandard.ZstdDecompressor()
    try:
        with _local.unzstd.stream_reader(packed) as reader:
            return bool(reader.readinto(out.reshape(-1).view(np.uint8)) == out.nbytes)
    except zstandard.ZstdError:
        return False


def _checksum(packed: bytes | memoryview) -> bytes:
    from plifctl.cache.fletcher32 import fletcher32  # numba takes a while to import; to find a cache it is not needed

    return int(fletcher32(np.frombuffer(packed, np.uint8))).to_bytes(4, "little")


def create(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], compression: Compression
) -> h5py.Dataset:
    """Returns a new dataset of samples ``[N, ...]`` whose chunks are those of :func:`encode`."""
    filters: dict[Compression, Mapping[str, Any]] = {
        "zstd": hdf5plugin.Zstd(clevel=_LEVEL),
        "gzip": {"compression": "gzip", "compression_opts": _LEVEL},
        "none": {},
    }
    return file.create_dataset(name, shape, dtype, chunks=(1, *shape[1:]), fletcher32=True, **filters[compression])
