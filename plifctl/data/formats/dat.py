"""Prophesee's ``.dat``, the container of N-Cars.

Text lines that begin with ``%``, two bytes (type and size of an event), then events of 8 bytes, little-endian: uint32
time in µs, and a word with x in bits 0–13, y in bits 14–27, the polarity in bits 28–31. That is version 2; in files of
version 1, which say so or state no version, x is in bits 0–8, y in bits 9–16, the polarity in bit 17. The format has no
invalid events, so no event is dropped. A recording may be empty. Times may repeat and run backwards, and are sorted.
The clock overflows after 71 minutes, and its times are continued.
"""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np

from plifctl.data.events import Decoded, Events
from plifctl.data.formats.clocks import sort_by_time
from plifctl.data.formats.headers import count_items, describe_content, end_of_header_line, percent_header
from plifctl.data.formats.summary import Summary, read_comment_lines, read_ends
from plifctl.errors import DamagedFileError

_EVENT = np.dtype([("t", "<u4"), ("word", "<u4")])
_CONTRAST_EVENTS = (0x00, 0x0C)  # the old and the new type number
_COORDINATE_BITS = {1: (9, 8), 2: (14, 14)}
"""Bits of x and of y in each version of the layout; the polarity follows."""
_CLOCK_BITS = 32
_VERSION_LINE = re.compile(rb"^% *Version +(\d{1,4})", re.MULTILINE)
CURRENT_VERSION = 2
"""The current version of the layout of events."""


def decode_dat(data: bytes, *, where: str) -> Decoded:
    """Decodes the contrast events of a ``.dat`` file.

    Args:
        data: The file.
        where: Its name, for messages.

    Returns:
        The events; none is dropped.

    Raises:
        DamagedFileError: The file has another format, is cut off, has events of another type or of another version.

    Source: Prophesee's description of the format.
    """
    from plifctl.data.formats.loops import decode_dat_events

    raw, version = raw_events(data, where)
    x_bits, y_bits = _COORDINATE_BITS[version]
    events = Events.empty(len(raw))
    bits, ascending = decode_dat_events(raw.view(np.uint32), x_bits, y_bits, *events.columns)
    used = x_bits + y_bits + 1
    if bits >> used:
        event = int(np.flatnonzero(raw["word"] >> used)[0])
        word = int(raw["word"][event])
        problem = f"has polarity {word >> (used - 1)}, expected 0 or 1"
        if version < CURRENT_VERSION:
            problem = f"is {word:#x}, expected 18 bits: the header states version 1, the events are of another"
        at = len(data) - raw.nbytes + event * _EVENT.itemsize
        raise DamagedFileError(f"{where}: byte {at}: event {event} {problem}")
    return sort_by_time(events, where, ascending=ascending, clock_bits=_CLOCK_BITS)


def raw_events(data: bytes, where: str) -> tuple[np.ndarray, int]:
    """Returns the events of a file as stored, fields t and word, and the version of their layout, 1 or 2.

    Raises:
        DamagedFileError: The file has another format, is cut off, or has events of another type.
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
    count = count_items(data, start, _EVENT.itemsize, where)
    raw = np.frombuffer(data, _EVENT, count, start)
    stated = _VERSION_LINE.search(percent_header(data))
    if stated is not None:
        return raw, min(max(int(stated[1]), 1), CURRENT_VERSION)
    # in version 2 an event of 18 bits would be an off event of the first 16 rows
    return raw, 1 if count and not (raw["word"] >> 18).any() else CURRENT_VERSION


def _end_of_header(data: bytes, where: str) -> int:
    if not data.startswith(b"%"):
        raise DamagedFileError(
            f"{where}: byte 0: {describe_content(data)}, expected Prophesee's .dat (lines that begin with %)"
        )
    at = 0
    while data[at : at + 1] == b"%":
        at = end_of_header_line(data, at, where)
    return at


_SIZE_LINE = re.compile(rb"^% *(Width|Height) +(\d{1,5})", re.MULTILINE)


def summarise_dat(file: BinaryIO) -> Summary:
    """Returns sensor, number of events, and times of the first and last one, if the clock overflowed once at most."""
    header = read_comment_lines(file, b"%")
    sizes = {name: int(size) for name, size in _SIZE_LINE.findall(header)}
    sensor = (sizes[b"Width"], sizes[b"Height"]) if len(sizes) == 2 else None
    return Summary("", sensor, *read_ends(file, file.tell() + 2, _EVENT.itemsize, time_at=0, byteorder="little"))
