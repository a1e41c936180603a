"""AEDAT 3.1, the container of DVS128 Gesture.

Text lines that begin with ``#`` up to ``#!END-HEADER``, then packets: a 28-byte little-endian header and
``capacity × size`` bytes, of which ``number × size`` are events. A polarity event (packet type 1) is a word, bit 0
valid, bit 1 polarity, bits 2–16 y, bits 17–31 x, and an int32 time in µs, extended by the packet's overflow count.
"""

from __future__ import annotations

import struct

import numpy as np

from plifctl.config.choices import InvalidEvents
from plifctl.data.events import Decoded, Events
from plifctl.data.formats.headers import describe_content
from plifctl.errors import DamagedFileError, RawDataError

VERSION = 1
"""Raised when the output of the decoder changes; see :func:`~plifctl.data.formats.detect.decoder_versions`."""

_MAGIC = b"#!AER-DAT3.1"
_END = b"#!END-HEADER"
_PACKET = struct.Struct("<hhiiiiii")  # type, source, size, tsOffset, tsOverflow, capacity, number, valid
_POLARITY = 1
_WORD = np.dtype([("data", "<u4"), ("t", "<u4")])
_PER_PACKET = 4096


def decode_aedat3(data: bytes, *, where: str, invalid: InvalidEvents = "drop") -> Decoded:
    """Decodes the polarity events of an AEDAT 3.1 file; packets of other types are skipped.

    Args:
        data: The file.
        where: Its name, for messages.
        invalid: Whether polarity events whose valid bit is 0 are dropped or kept.

    Returns:
        The events; ``dropped`` counts the invalid ones left out.

    Raises:
        DamagedFileError: The file has another format, is cut off, or a packet header is inconsistent.
        RawDataError: Every polarity event is marked invalid, and ``invalid`` is ``drop``.

    Source: the AEDAT 3.1 specification.
    """
    from plifctl.data.loops import decode_words

    words, packets = _polarity_words(data, where)
    n = int(packets[:, 1].sum())
    events = Events.empty(n)
    all_valid, ascending, positive = decode_words(words, packets, *events.columns)
    if not positive:
        raise DamagedFileError(f"{where}: an event has a negative time; the file is damaged")
    if invalid == "drop" and not all_valid:
        valid = [words[first : first + 2 * count : 2] & 1 for first, count, _ in packets.tolist()]
        events = events[np.concatenate(valid) == 1]
        if not len(events):
            raise RawDataError(
                f"{where}: all {n} events are marked invalid (valid bit 0)",
                hint="some recorders never set the bit; to keep such events: add --set frames.invalid_events=keep",
            )
    return Decoded.in_order(events, n - len(events), ascending=ascending)


def encode_aedat3(events: np.ndarray) -> bytes:
    """Returns ``events`` (dtype EVENT, sorted by t) as an AEDAT 3.1 file that every reader of the format reads."""
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    parts = [header]
    overflow = events["t"] >> 31
    breaks = np.flatnonzero(np.diff(overflow)) + 1
    for run in np.split(events, breaks):  # a packet has one overflow count
        for start in range(0, len(run), _PER_PACKET):
            chunk = run[start : start + _PER_PACKET]
            words = np.empty(len(chunk), _WORD)
            x, y, p = (chunk[name].astype(np.uint32) for name in ("x", "y", "p"))
            words["data"] = (x << 17) | (y << 2) | (p << 1) | 1
            words["t"] = chunk["t"] & 0x7FFFFFFF
            n = len(chunk)
            parts.append(_PACKET.pack(_POLARITY, 1, _WORD.itemsize, 4, int(chunk["t"][0] >> 31), n, n, n))
            parts.append(words.tobytes())
    return b"".join(parts)


def _polarity_words(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the file as words, and first word, number of events and overflow count of each packet ``[n, 3]``."""
    at = _end_of_header(data, where)
    packets: list[tuple[int, int, int]] = []
    while at < len(data):
        if len(data) - at < _PACKET.size:
            raise DamagedFileError(
                f"{where}: byte {at}: {len(data) - at} bytes left, a packet header has {_PACKET.size}; "
                "the file is cut off"
            )
        kind, _, size, ts_offset, ts_overflow, capacity, number, _ = _PACKET.unpack_from(data, at)
        body = at + _PACKET.size
        if size <= 0 or number < 0 or not number <= capacity or kind < 0 or ts_overflow < 0:
            raise DamagedFileError(
                f"{where}: byte {at}: invalid packet header: type {kind}, {number} of {capacity} events of {size} bytes"
            )
        if kind == _POLARITY and (size != _WORD.itemsize or ts_offset != 4):
            raise DamagedFileError(
                f"{where}: byte {at}: polarity events of {size} bytes with the time at {ts_offset}, expected 8 and 4"
            )
        if size * capacity > len(data) - body:
            raise DamagedFileError(
                f"{where}: byte {at}: the packet needs {size * capacity} bytes, {len(data) - body} are left; "
                "the file is cut off"
            )
        if kind == _POLARITY and number:
            packets.append((body, number, ts_overflow))
        at = body + size * capacity
    table = np.array(packets, np.int64).reshape(-1, 3)
    shift = int(table[0, 0]) % 4 if packets else 0
    if (table[:, 0] % 4 != shift).any():  # after a packet of an odd size
        words = np.concatenate([np.frombuffer(data, np.uint32, 2 * count, start) for start, count, _ in packets])
        table[:, 0] = np.cumsum(2 * table[:, 1]) - 2 * table[:, 1]
    else:
        words = np.frombuffer(data, np.uint32, (len(data) - shift) // 4, shift)
        table[:, 0] = (table[:, 0] - shift) // 4
    return words, table


def _end_of_header(data: bytes, where: str) -> int:
    if not data.startswith(_MAGIC):
        raise DamagedFileError(f"{where}: byte 0: {describe_content(data)}, expected AEDAT 3.1 ({_MAGIC.decode()})")
    at = 0
    while data[at : at + 1] == b"#":
        end = data.find(b"\n", at)
        if end < 0:
            break
        if data.startswith(_END, at):
            return end + 1
        at = end + 1
    raise DamagedFileError(f"{where}: byte {at}: the header does not end in {_END.decode()}")
