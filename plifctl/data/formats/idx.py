"""IDX, the format of MNIST: two zero bytes, a type code, the number of dimensions, big-endian sizes, then values."""

from __future__ import annotations

import math

import numpy as np

from plifctl.data.formats.headers import describe_content
from plifctl.errors import DamagedFileError

_UBYTE = 0x08


def decode_idx(data: bytes, *, where: str) -> np.ndarray:
    """Decodes an IDX file of unsigned bytes.

    Args:
        data: The file, unpacked.
        where: Its name, for messages.

    Returns:
        uint8, in the shape that the file states: labels ``[N]``, images ``[N, rows, columns]``.

    Raises:
        DamagedFileError: The file has another format, or another size than it states.

    Source: the format's description beside the MNIST files.
    """
    if len(data) < 4 or data[:3] != bytes((0, 0, _UBYTE)):
        raise DamagedFileError(f"{where}: byte 0: {describe_content(data)}, expected IDX of unsigned bytes (00 00 08)")
    if not 1 <= data[3] <= 3:
        raise DamagedFileError(f"{where}: byte 3: {data[3]} dimensions, expected 1 (labels) to 3 (images)")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise DamagedFileError(f"{where}: byte 4: {len(data)} bytes, expected a header of {start}; the file is cut off")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", data[3], 4))
    if 0 in shape:
        raise DamagedFileError(f"{where}: byte 4: values of shape {list(shape)}, expected at least one value")
    expected = start + math.prod(shape)
    if len(data) != expected:
        raise DamagedFileError(f"{where}: {len(data)} bytes, expected {expected} for values of shape {list(shape)}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
