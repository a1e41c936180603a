"""AEDAT 2.0, the container of CIFAR10-DVS.

Text lines that begin with ``#``, then big-endian pairs of uint32: address, time in µs. A DVS128 address has the
polarity in bit 0 and the two coordinates in bits 1–7 and 8–14; bit 15 (synchronisation) and bit 31 mark words that are
not DVS events. The clock overflows after 71 minutes, and its times are continued.
"""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np

from plifctl.config.choices import Axes, OutsideEvents
from plifctl.data.events import Decoded, Events
from plifctl.data.formats.clocks import continue_overflows, sort_by_time
from plifctl.data.formats.headers import SAVE_WITH_NUMPY, describe_content
from plifctl.data.formats.summary import Summary, read_comment_lines, sensor_of_camera, size_of
from plifctl.data.frames import MAX_LEFT_OUT, hint_to_drop
from plifctl.data.remarks import Remark
from plifctl.errors import DamagedFileError

VERSION = 1
"""Raised when the output of the decoder changes; see :func:`~plifctl.data.formats.detect.decoder_versions`."""

_MAGIC = b"#!AER-DAT2.0"
_PAIR_BYTES = 8
_CLOCK_BITS = 32


def decode_aedat2(
    data: bytes,
    *,
    where: str,
    axes: Axes,
    outside: OutsideEvents = "refuse",
) -> Decoded:
    """Decodes the DVS128 events of an AEDAT 2.0 file.

    Args:
        data: The file.
        where: Its name, for messages.
        axes: ``authors``: x = 127 − bits 1–7, y = bits 8–14; ``spikingjelly``: x = 127 − bits 8–14,
            y = 127 − bits 1–7. Both: p = 1 − bit 0.
        outside: Whether addresses of cameras with more pixels are an error, or dropped unless most events have them.

    Returns:
        The events; ``dropped`` counts the words that are not DVS events, or outside.

    Raises:
        DamagedFileError: The file has another format, is cut off, or is of a camera with more pixels.

    Source: the AEDAT 2.0 specification; the axes of the authors' code and of SpikingJelly's CIFAR10-DVS loader.
    """
    start = _end_of_header(data, where)
    count, rest = divmod(len(data) - start, _PAIR_BYTES)
    if rest:
        raise DamagedFileError(
            f"{where}: byte {len(data) - rest}: {rest} bytes left, an event has {_PAIR_BYTES}; the file is cut off"
        )
    from plifctl.data.loops import decode_pairs

    words = np.frombuffer(data, np.uint32, 2 * count, start)
    events = Events.empty(count)
    bits, ascending = decode_pairs(words, axes == "spikingjelly", *events.columns)
    if bits >> 15:  # some words are not events of a DVS128
        address = words[::2].byteswap()
        outside_dvs128, synchronisation = (address >> 15 != 0) & (address >> 31 == 0), address >> 15 == 1
        if synchronisation.sum() <= MAX_LEFT_OUT * count:  # more would be coordinates of another camera
            outside_dvs128 &= ~synchronisation
        foreign = np.flatnonzero(outside_dvs128)
        if len(foreign) and (outside == "refuse" or len(foreign) > count // 2):
            index = int(foreign[0])
            raise DamagedFileError(
                f"{where}: byte {start + index * _PAIR_BYTES}: event {index} has the address {address[index]:#x}, as "
                f"{len(foreign)} of {count} have more than the 15 bits of a DVS128; the file is of another camera",
                hint=hint_to_drop(len(foreign), count)
                or f"AEDAT 2.0 is read of a DVS128 only; convert the file to AEDAT 4 (with DV), or {SAVE_WITH_NUMPY}",
            )
        events = events[address >> 15 == 0]
    remarks: tuple[Remark, ...] = ()
    if not ascending:
        t, x, y, p = events.columns
        t, remarks = continue_overflows(t, _CLOCK_BITS)
        events, ascending = Events(t, x, y, p), None
    return sort_by_time(events, where, dropped=count - len(events), ascending=ascending, remarks=remarks)


def times_of(data: bytes) -> np.ndarray:
    """Returns the times of all words, uint32 in file order; empty if no step back is of 65.5 ms or more.

    Raises:
        DamagedFileError: The file has another format.
    """
    start = _end_of_header(data, "")
    words = np.frombuffer(data, ">u2", (len(data) - start) // _PAIR_BYTES * 4, start)
    high = words[2::4]
    if not (high[1:] < high[:-1]).any():
        return np.empty(0, np.uint32)
    times: np.ndarray = high.astype(np.uint32) << 16 | words[3::4]
    return times


def _end_of_header(data: bytes, where: str) -> int:
    if not data.startswith(_MAGIC):
        raise DamagedFileError(f"{where}: byte 0: {describe_content(data)}, expected AEDAT 2.0 ({_MAGIC.decode()})")
    at = 0
    # an event cannot look like a header line: an address that begins with the byte of "#" has bits above the 15th
    while data[at : at + 1] == b"#":
        end = data.find(b"\n", at)
        if end < 0:
            raise DamagedFileError(f"{where}: byte {at}: a header line without a line feed; the file is cut off")
        at = end + 1
    return at


_CHIP = re.compile(rb"^# *AEChip: *([\w.]+)", re.MULTILINE)


def summarise_aedat2(file: BinaryIO) -> Summary:
    """Returns the camera that jAER names; of a DVS128 or an unknown camera also the number of words and their times.

    Words that are not events are counted as well. Other cameras mix frames and motion into the words.
    """
    header = read_comment_lines(file, b"#")
    named = _CHIP.search(header)
    camera = named[1].decode().rpartition(".")[2] if named else ""
    sensor = sensor_of_camera(camera)
    if sensor not in (None, (128, 128)):
        return Summary(camera, sensor)
    start = file.tell()
    count = (size_of(file) - start) // _PAIR_BYTES
    times = []
    for word in (0, count - 1) if count else ():
        file.seek(start + word * _PAIR_BYTES + 4)
        times.append(int.from_bytes(file.read(4), "big"))
    if not times:
        return Summary(camera, sensor, 0)
    first, last = times
    return Summary(camera, sensor, count, first, last + (1 << _CLOCK_BITS if last < first else 0))
