"""The checksum of HDF5's Fletcher-32 filter, compiled. Imported late: numba takes a while to import."""

from __future__ import annotations

import numpy as np

from plifctl.jit import compiled


@compiled()
def fletcher32(data):  # type: ignore[no-untyped-def]
    """Returns the checksum of HDF5's Fletcher-32 filter: over 16-bit words, big-endian.

    Source: the HDF5 library, ``H5_checksum_fletcher32``.
    """
    first, second = np.uint64(0), np.uint64(0)
    words = len(data) // 2
    for start in range(0, words, 360):  # as many as cannot overflow 32 bits there; sums must be folded where HDF5 does
        for i in range(start, min(start + 360, words)):
            first += (np.uint64(data[2 * i]) << np.uint64(8)) | np.uint64(data[2 * i + 1])
            second += first
        first = (first & np.uint64(0xFFFF)) + (first >> np.uint64(16))
        second = (second & np.uint64(0xFFFF)) + (second >> np.uint64(16))
    if len(data) % 2:
        first += np.uint64(data[len(data) - 1]) << np.uint64(8)
        second += first
        first = (first & np.uint64(0xFFFF)) + (first >> np.uint64(16))
        second = (second & np.uint64(0xFFFF)) + (second >> np.uint64(16))
    first = (first & np.uint64(0xFFFF)) + (first >> np.uint64(16))
    second = (second & np.uint64(0xFFFF)) + (second >> np.uint64(16))
    return (second << np.uint64(16)) | first
