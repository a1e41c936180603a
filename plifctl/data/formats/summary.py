"""What a file states about its recording: read from its header, its packet headers or its table, without any event.

Each decoder's module has a function that reads its format's; :func:`~plifctl.data.formats.detect.summarise_any`
chooses it.
"""

from __future__ import annotations

import os
import re
from typing import BinaryIO, Literal, NamedTuple

from plifctl.data.formats.headers import Size


class Summary(NamedTuple):
    """What a file states about its recording.

    Attributes:
        camera: Name of the camera; empty if it is not stated.
        sensor: Width and height of the sensor; None if they are not stated.
        n_events: Number of events, marked invalid or not; None if only a decoder can tell.
        first_us: Time of the first event, µs; None if only a decoder can tell, or without events.
        last_us: Time of the last event, µs.
        others: What the file contains besides the events that are read, in words, and how many.
    """

    camera: str = ""
    sensor: Size | None = None
    n_events: int | None = None
    first_us: int | None = None
    last_us: int | None = None
    others: tuple[tuple[str, int], ...] = ()


NOTHING = Summary()
"""Summary of a file that states nothing."""

_MAX_LINE_BYTES = 2**20


def read_comment_lines(file: BinaryIO, mark: bytes, end: bytes | None = None) -> bytes:
    """Returns the lines at the beginning of a file that begin with a mark, and leaves the file after them.

    Args:
        file: The file.
        mark: Its first byte, ``#`` or ``%``.
        end: Beginning of the last such line, if the format has one.
    """
    file.seek(0)
    lines: list[bytes] = []
    while True:
        start = file.tell()
        line = file.readline(_MAX_LINE_BYTES)
        if not line.startswith(mark):
            file.seek(start)
            return b"".join(lines)
        lines.append(line)
        if end is not None and line.startswith(end):
            return b"".join(lines)


def size_of(file: BinaryIO) -> int:
    """Returns the size of a file, and leaves its position as it is."""
    here = file.tell()
    nbytes = file.seek(0, os.SEEK_END)
    file.seek(here)
    return nbytes


def read_ends(
    file: BinaryIO, start: int, nbytes: int, *, time_at: int, byteorder: Literal["big", "little"]
) -> tuple[int, int | None, int | None]:
    """Returns the number of events of one size, and the times of the first and the last, if there are any.

    Times are uint32; their clock overflows between the two if the last is earlier.

    Args:
        file: The file.
        start: Position of the first event.
        nbytes: Size of an event.
        time_at: Offset of the time in an event.
        byteorder: Byte order of the time.
    """
    count = max(0, size_of(file) - start) // nbytes
    if not count:
        return 0, None, None
    times = []
    for event in (0, count - 1):
        file.seek(start + event * nbytes + time_at)
        times.append(int.from_bytes(file.read(4), byteorder))
    first, last = times
    return count, first, last + (1 << 32 if last < first else 0)


_CAMERAS: tuple[tuple[str, Size], ...] = (
    (r"davis.?346", (346, 260)),
    (r"davis.?240", (240, 180)),
    (r"davis.?640", (640, 480)),
    (r"davis.?128|dvs.?128|tmpdiff128", (128, 128)),
    (r"davis.?208", (208, 192)),
    (r"dvxplorer.?lite", (320, 240)),
    (r"dvxplorer", (640, 480)),
)


def sensor_of_camera(camera: str) -> Size | None:
    """Returns width and height of a camera's sensor by its name, or that of its class in jAER; None if it is unknown.

    Source: the cameras' data sheets (iniVation).

    Example:
        >>> sensor_of_camera("eu.seebetter.ini.chips.davis.Davis346red")
        (346, 260)
    """
    return next((size for name, size in _CAMERAS if re.search(name, camera, re.IGNORECASE)), None)
