"""Prophesee's ``.dat``, the container of N-Cars.

Text lines that begin with ``%``, two bytes (type and size of an event), then events of 8 bytes, little-endian: uint32
time in µs, and a word with x in bits 0–13, y in bits 14–27, the polarity in bits 28–31. The format has no
invalid events, so no event is dropped. A recording may be empty. Times may repeat and run backwards, and are sorted; a
step back by more than half of uint32's range is an overflow of the clock, after 71 minutes, and is undone.
"""

from __future__ import annotations

import numpy as np

from plifctl.data.events import Decoded, Events
from plifctl.data.formats.headers import describe_content
from plifctl.errors import DamagedFileError

VERSION = 1
"""Raised when the output of the decoder changes; see :func:`~plifctl.data.formats.detect.decoder_versions`."""

_EVENT = np.dtype([("t", "<u4"), ("word", "<u4")])
_CONTRAST_EVENTS = (0x00, 0x0C)  # the old and the new type number
_COORDINATE = np.uint32((1 << 14) - 1)
_HALF = 1 << 31


def decode_dat(data: bytes, *, where: str) -> Decoded:
    """Decodes the contrast events of a ``.dat`` file.

    Args:
        data: The file.
        where: Its name, for messages.

    Returns:
        The events; none is dropped.

    Raises:
        DamagedFileError: The file has another format, is cut off, has events of another type, or an invalid polarity.

    Source: Prophesee's description of the format.
    """
    start = _end_of_header(data, where)
    if len(data) < start + 2:
        raise DamagedFileError(f"{where}: byte {start}: type and size of the events are missing; the file is cut off")
    kind, size = data[start], data[start + 1]
    if kind not in _CONTRAST_EVENTS or size != _EVENT.itemsize:
        raise DamagedFileError(
            f"{where}: byte {start}: events of type {kind:#04x} and {size} bytes, "
            f"expected contrast events (0x00 or 0x0c) of {_EVENT.itemsize}"
        )
    start += 2
    count, rest = divmod(len(data) - start, _EVENT.itemsize)
    if rest:
        raise DamagedFileError(
            f"{where}: byte {len(data) - rest}: {rest} bytes left, an event has {_EVENT.itemsize}; the file is cut off"
        )
    raw = np.frombuffer(data, _EVENT, count, start)
    word = raw["word"]
    p = word >> 28
    bad = np.flatnonzero(p > 1)
    if len(bad):
        raise DamagedFileError(
            f"{where}: byte {start + int(bad[0]) * _EVENT.itemsize}: event {bad[0]} has polarity {p[bad[0]]}, "
            "expected 0 or 1"
        )
    t = raw["t"].astype(np.int64)
    t[1:] += np.cumsum(np.diff(t) < -_HALF) << 32
    return Decoded.in_order(Events.from_columns(t, word & _COORDINATE, (word >> 14) & _COORDINATE, p))


def _end_of_header(data: bytes, where: str) -> int:
    if not data.startswith(b"%"):
        raise DamagedFileError(
            f"{where}: byte 0: {describe_content(data)}, expected Prophesee's .dat (lines that begin with %)"
        )
    at = 0
    while data[at : at + 1] == b"%":
        end = data.find(b"\n", at)
        if end < 0:
            raise DamagedFileError(f"{where}: byte {at}: a header line without a line feed; the file is cut off")
        at = end + 1
    return at
