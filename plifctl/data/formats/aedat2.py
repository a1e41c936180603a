"""AEDAT 2.0, the container of CIFAR10-DVS, and of jAER.

Text lines that begin with ``#``, then big-endian pairs of uint32: address, time in µs. The clock overflows after 71
minutes, and its times are continued. The bits of an address depend on the camera:

* DVS128: the polarity in bit 0, the two coordinates in bits 1–7 and 8–14; bit 15 (synchronisation) and bit 31 mark
  words that are not DVS events.
* DAVIS (240, 346 and others): y in bits 22–30, x in bits 12–21, the polarity in bit 11. Bit 31 marks words of images
  and of the motion sensor, else bit 10 marks external triggers; both are left out with a remark. x and y are as stored;
  jAER mirrors x and counts rows from the bottom (``flip_x``, ``flip_y``).
"""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np

from plifctl.config.choices import Axes, OutsideEvents
from plifctl.data.events import Decoded, Events
from plifctl.data.formats.clocks import sort_by_time
from plifctl.data.formats.headers import SAVE_WITH_NUMPY, count_items, describe_content, end_of_header_line
from plifctl.data.formats.summary import NOTHING, Summary, read_ends, sensor_of_camera
from plifctl.data.frames import hint_to_drop
from plifctl.data.remarks import MAX_LEFT_OUT, Remark
from plifctl.errors import DamagedFileError

_MAGIC = b"#!AER-DAT2.0"
_CHIP = re.compile(rb"^# *AEChip: *([\w.]+)", re.MULTILINE)
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
    from plifctl.data.formats.loops import decode_pairs

    words, start = _read_words(data, where)
    count = len(words) // 2
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
                or f"of cameras besides DVS128 and DAVIS: convert the file to AEDAT 4 (with DV), or {SAVE_WITH_NUMPY}",
            )
        events = events[address >> 15 == 0]
    dropped = count - len(events)
    return sort_by_time(events, where, dropped=dropped, ascending=bool(ascending), clock_bits=_CLOCK_BITS)


def decode_davis(data: bytes, *, where: str) -> Decoded:
    """Decodes the DVS events of an AEDAT 2.0 file of a DAVIS.

    Args:
        data: The file.
        where: Its name, for messages.

    Returns:
        The events; none is dropped, since images, motion samples and triggers are no events.

    Raises:
        DamagedFileError: The file has another format or is cut off.

    Source: jAER's description of addresses.
    """
    from plifctl.data.formats.loops import decode_davis_pairs

    words, _ = _read_words(data, where)
    events = Events.empty(len(words) // 2)
    found, images, ascending = decode_davis_pairs(words, *events.columns)
    others = (Remark("images", images), Remark("triggers", len(events) - found - images))
    remarks = tuple(remark for remark in others if remark.occurrences)
    return sort_by_time(events[:found], where, ascending=ascending, clock_bits=_CLOCK_BITS, remarks=remarks)


def is_davis(data: bytes, where: str = "") -> bool:
    """Returns whether an AEDAT 2.0 file is of a DAVIS: its header says so, or names no camera and the addresses do.

    They do if most words without bit 31 have more than the 15 bits of a DVS128, and none of these any of bits 0–9.

    Raises:
        DamagedFileError: The file has another format or its header is cut off.
    """
    start = _end_of_header(data, where)
    chip = _CHIP.search(data, 0, start)
    name = chip[1].lower() if chip else b""
    if b"davi" in name or b"dvs128" in name:
        return b"davi" in name
    pairs = np.frombuffer(data, np.uint64, (len(data) - start) // _PAIR_BYTES, start)
    if not int.from_bytes(np.bitwise_or.reduce(pairs).tobytes()[:4]) >> 15:  # no address has more than 15 bits
        return False
    address = pairs.view(">u4")[::2]
    pixels = address[address >> 31 == 0]
    wide = pixels[pixels >> 15 != 0]
    return 2 * len(wide) > len(pixels) and not (wide & 0x3FF).any()


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


def _read_words(data: bytes, where: str) -> tuple[np.ndarray, int]:
    """Returns addresses and times as stored, uint32 ``[2n]``, and the byte where they begin."""
    start = _end_of_header(data, where)
    count = count_items(data, start, _PAIR_BYTES, where)
    return np.frombuffer(data, np.uint32, 2 * count, start), start


def _end_of_header(data: bytes, where: str) -> int:
    if not data.startswith(_MAGIC):
        raise DamagedFileError(f"{where}: byte 0: {describe_content(data)}, expected AEDAT 2.0 ({_MAGIC.decode()})")
    at = 0
    line_end = data[len(_MAGIC) : len(_MAGIC) + 2].rstrip(b"#")  # \\r\\n, or \\n
    while data[at : at + 1] == b"#":
        # an event of a DAVIS may begin with this byte; its last one is 0
        if data[at + 3 : at + 4] == b"\0" and not data.startswith(line_end, at + 1):
            break
        at = end_of_header_line(data, at, where)
    return at


_HEADER_BYTES = 2**20  # jAER writes its preferences into the header
_LOOKED_AT_BYTES = 2**16


def summarise_aedat2(file: BinaryIO) -> Summary:
    """Returns the camera that jAER names; of a DVS128 also the number of words and their times.

    Words that are not events are counted as well. Other cameras mix images and motion samples into the words.
    """
    head = file.read(_HEADER_BYTES)
    try:
        start = _end_of_header(head, "")
        davis = is_davis(head[: start + _LOOKED_AT_BYTES])
    except DamagedFileError:
        return NOTHING
    named = _CHIP.search(head, 0, start)
    camera = named[1].decode().rpartition(".")[2] if named else "DAVIS" if davis else ""
    sensor = sensor_of_camera(camera)
    if davis or sensor not in (None, (128, 128)):
        return Summary(camera, sensor)
    return Summary(camera, sensor, *read_ends(file, start, _PAIR_BYTES, time_at=4, byteorder="big"))
