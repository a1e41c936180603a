"""AEDAT 2.0, the container of CIFAR10-DVS.

Text lines that begin with ``#``, then big-endian pairs of uint32: address, time in µs. A DVS128 address has the
polarity in bit 0 and the two coordinates in bits 1–7 and 8–14; bit 31 marks what is no DVS event.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from plifctl.errors import DamagedFileError
from plifctl.events.formats import Decoded, events_of, recognised

_MAGIC = b"#!AER-DAT2.0"
_PAIR = np.dtype([("address", ">u4"), ("t", ">u4")])
_NOT_DVS = np.uint32(1 << 31)


def decode_aedat2(data: bytes, *, where: str, axes: Literal["published", "spikingjelly"]) -> Decoded:
    """Decodes the DVS128 events of an AEDAT 2.0 file.

    Args:
        data: The file.
        where: Its name, for messages.
        axes: ``published``: x = 127 − bits 1–7, y = bits 8–14; ``spikingjelly``: x = 127 − bits 8–14,
            y = 127 − bits 1–7. Both: p = 1 − bit 0.

    Returns:
        The events; ``dropped`` counts the words that are no DVS events.

    Raises:
        DamagedFileError: The file is foreign, cut off, or of a camera with more pixels.

    Source: the AEDAT 2.0 specification; the axes of the published code and of SpikingJelly's CIFAR10-DVS loader.
    """
    start = _end_of_header(data, where)
    whole, rest = divmod(len(data) - start, _PAIR.itemsize)
    if rest:
        raise DamagedFileError(
            f"{where}: byte {len(data) - rest}: {rest} bytes left, an event has {_PAIR.itemsize}; the file is cut off"
        )
    pairs = np.frombuffer(data, _PAIR, whole, start)
    is_event = pairs["address"] & _NOT_DVS == 0
    address, t = pairs["address"][is_event], pairs["t"][is_event]
    foreign = np.flatnonzero(address >> 15)
    if len(foreign):
        index = int(np.flatnonzero(is_event)[foreign[0]])
        raise DamagedFileError(
            f"{where}: byte {start + index * _PAIR.itemsize}: event {index} has the address {address[foreign[0]]:#x}, "
            "a DVS128 has 15 bits; the file is of another camera"
        )
    low, high = (address >> 1) & 0x7F, (address >> 8) & 0x7F
    x, y = (127 - low, high) if axes == "published" else (127 - high, 127 - low)
    return Decoded(events_of(t, x, y, 1 - (address & 1)), whole - len(address))


def _end_of_header(data: bytes, where: str) -> int:
    if not data.startswith(_MAGIC):
        raise DamagedFileError(f"{where}: byte 0: {recognised(data)}, expected AEDAT 2.0 ({_MAGIC.decode()})")
    at = 0
    # no event can be taken for a header line: an address that begins with the byte of "#" has bits above the 15th
    while data[at : at + 1] == b"#":
        end = data.find(b"\n", at)
        if end < 0:
            raise DamagedFileError(f"{where}: byte {at}: a header line without an end; the file is cut off")
        at = end + 1
    return at
