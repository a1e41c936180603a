"""A sample as a chunk of an HDF5 file, compressed and verified here in several threads; HDF5 itself uses one.

HDF5 reads such chunks too, wherever hdf5plugin is installed (``gzip`` and ``none``: anywhere).
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import zstandard

from plifctl.config.choices import Compression

_LEVEL = 1  # of zstd, which gave by far the smallest files among the fast ones: benchmarks/compression.py
_local = threading.local()  # compressors are not thread-safe


def encode(sample: np.ndarray, compression: Compression) -> bytes:
    """Returns the chunk of a sample: its compressed bytes and their Fletcher-32 checksum.

    Args:
        sample: C-contiguous, of any shape.
        compression: Compression of the chunk.
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
    """Unpacks a ``zstd`` chunk of :func:`encode`, twice as fast as HDF5, which allocates memory for each chunk.

    Args:
        chunk: Compressed bytes and their checksum.
        out: C-contiguous array that the sample is written to.

    Returns:
        Whether the chunk is undamaged. If it is not, HDF5's own reader reports the error.
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
    from plifctl.cache.fletcher32 import (
        fletcher32,
    )  # numba takes a while to import, and finding a cache does not need it

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
