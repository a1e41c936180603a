"""Prophesee's EVT 2.0, 2.1 and 3.0: ``.raw`` files, the stream of a camera as it was sent.

Text lines that begin with ``%`` and a space, the last of them ``% end`` in newer files, then little-endian words, whose
highest 4 bits are a type. Times are in µs, in two parts: words with the high part, and the low part with the events.

* EVT 2.0: words of 32 bits. An event (type 0 off, 1 on) has 6 bits of the time, 11 bits x and 11 bits y; type 8 is the
  high part of the time, 28 bits.
* EVT 2.1: words of 64 bits. The upper 32 bits are as in EVT 2.0, the lower ones say which of 32 pixels from x on had an
  event. Some cameras send the upper half first; the header says ``endianness=legacy``, or the words with times show it.
* EVT 3.0: words of 16 bits, each of which sets a part of the state: y (type 0), the low (6) or the high (8) part of the
  time, 12 bits each, x and polarity of vectors (3); or is an event at x (2), or a vector of 12 (4) or 8 (5) pixels.

The clock overflows after 16.8 s in EVT 3.0, after 4.8 hours else, and its times are continued. Events before the first
high part of the time, in EVT 3.0 also before the first row or column, are incomplete: they are dropped and counted.
External triggers are left out with a remark. Statistics and the vendor's own words (types 14 and 15, in EVT 3.0 also 7)
are no output of pixels and are skipped. Words of other types are left out with a remark if they are few. The format has
no invalid events.
"""

from __future__ import annotations

import re
from typing import BinaryIO, NamedTuple

import numpy as np

from plifctl.data.events import Decoded, Events
from plifctl.data.formats.clocks import MAX_STEP_BACK_US, sort_by_time
from plifctl.data.formats.headers import count_items, cut_off_header, describe_content, format_of, is_text
from plifctl.data.formats.summary import NOTHING, Summary, read_comment_lines
from plifctl.data.remarks import MAX_LEFT_OUT, Remark
from plifctl.errors import DamagedFileError

FORMATS = {"Prophesee EVT 2.0 (.raw)": 4, "Prophesee EVT 2.1 (.raw)": 8, "Prophesee EVT 3.0 (.raw)": 2}
"""Bytes of a word of each format."""

_LOOKED_AT_WORDS = 2**17
"""Words of EVT 2.1 that show which half of them was sent first."""

_LINE = re.compile(rb"% [^\x00-\x20][^\x00-\x08\x0e-\x1f\n]*\n")  # a keyword, and text
_ENDIANNESS = re.compile(rb"endianness[ =](\w+)")


class _Stream(NamedTuple):
    """The words of a file.

    Attributes:
        format_name: One of :data:`FORMATS`.
        start: Byte where the words begin.
        words: uint16 or uint32; in EVT 2.1 two for each word.
        head: In EVT 2.1, which of the two has type, time and coordinates.
    """

    format_name: str
    start: int
    words: np.ndarray
    head: int


def decode_evt(data: bytes, *, where: str) -> Decoded:
    """Decodes the events of an EVT 2.0, 2.1 or 3.0 file.

    Args:
        data: The file.
        where: Its name, for messages.

    Returns:
        The events; ``dropped`` counts the incomplete ones at the beginning.

    Raises:
        DamagedFileError: The file has another format or version, is cut off, more than a tenth of its words have an
            unknown type, or its clock starts again.

    Source: Prophesee's descriptions of the formats.
    """
    from plifctl.data.formats import evt_loops as loops

    stream = _read_stream(data, where)
    match FORMATS[stream.format_name]:
        case 2:
            events = Events.empty(loops.count_evt3(stream.words) + 1)
            first, end, counts = loops.decode_evt3(stream.words, MAX_STEP_BACK_US, *events.columns)
        case 4:
            events = Events.empty(len(stream.words))
            first, end, counts = loops.decode_evt2(stream.words, MAX_STEP_BACK_US, *events.columns)
        case _:
            events = Events.empty(loops.count_evt21(stream.words, stream.head))
            first, end, counts = loops.decode_evt21(stream.words, stream.head, MAX_STEP_BACK_US, *events.columns)
    overflows, incomplete, triggers, unknown, ascending = counts.tolist()
    remarks = (Remark("overflow", overflows), Remark("triggers", triggers), Remark("unknown", unknown))
    _check_known(stream, unknown, where)
    return sort_by_time(
        events[first:end],
        where,
        dropped=incomplete,
        ascending=bool(ascending),
        remarks=tuple(remark for remark in remarks if remark.occurrences),
    )


def _read_stream(data: bytes, where: str) -> _Stream:
    """Returns the words of a file.

    Raises:
        DamagedFileError: The file has another format or is cut off.
    """
    format_name = format_of(data)
    if format_name not in FORMATS:
        raise DamagedFileError(f"{where}: byte 0: {describe_content(data)}, expected Prophesee's EVT 2.0, 2.1 or 3.0")
    start = _end_of_header(data, where)
    nbytes = FORMATS[format_name]
    count = count_items(data, start, nbytes, where, item=f"a word of {format_name}")
    if nbytes < 8:
        return _Stream(format_name, start, np.frombuffer(data, f"<u{nbytes}", count, start), 0)
    words = np.frombuffer(data, "<u4", 2 * count, start)
    return _Stream(format_name, start, words, _find_head(data[:start], words, where))


def _end_of_header(data: bytes, where: str) -> int:
    at = 0
    while line := _LINE.match(data, at):
        at = line.end()
        if line[0].rstrip() == b"% end":
            return at
    if data.startswith(b"% ", at) and is_text(data[at:]):
        raise cut_off_header(at, where)
    return at


def _find_head(header: bytes, words: np.ndarray, where: str) -> int:
    """Returns which half of each word of EVT 2.1 has its type: the second one (1), or the first one (0, ``legacy``)."""
    if stated := _ENDIANNESS.search(header):
        if stated[1] not in (b"little", b"legacy"):
            raise DamagedFileError(
                f"{where}: endianness={stated[1].decode(errors='replace')}, expected little or legacy"
            )
        return int(stated[1] == b"little")
    words = words[:_LOOKED_AT_WORDS]
    with_times = [(words[head::2] >> 28 == 8) & (words[1 - head :: 2] == 0) for head in (0, 1)]  # the rest of them is 0
    return int(with_times[0].sum() <= with_times[1].sum())


def _check_known(stream: _Stream, unknown: int, where: str) -> None:
    """Raises DamagedFileError if more than a tenth of the words have an unknown type."""
    nbytes = FORMATS[stream.format_name]
    total = stream.words.nbytes // nbytes
    if unknown > MAX_LEFT_OUT * total:
        raise DamagedFileError(
            f"{where}: {unknown} of {total} words have a type that {stream.format_name} does not have; "
            "the file is damaged, or its header is that of another file",
            hint="compare the header, lines that begin with %, with that of another recording: head -n 20 FILE",
        )


_GEOMETRY = re.compile(
    rb"^% (?:geometry (\d{1,5})x(\d{1,5})|format \S*?height=(\d{1,5});width=(\d{1,5}))", re.MULTILINE
)


def summarise_evt(file: BinaryIO) -> Summary:
    """Returns the size of the sensor, which newer headers state; events have no fixed size and are not counted."""
    stated = _GEOMETRY.search(read_comment_lines(file, b"%", b"% end"))
    if stated is None:
        return NOTHING
    width, height = (stated[1], stated[2]) if stated[1] else (stated[4], stated[3])
    return Summary(sensor=(int(width), int(height)))
