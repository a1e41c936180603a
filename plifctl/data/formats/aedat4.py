"""AEDAT 4, the container of iniVation's DV, and of tonic's copy of CIFAR10-DVS.

``#!AER-DAT4.0`` and a line's end, a header (compression, place of the table at the end, description of the streams as
XML), packets (stream, size, content), the table. Header and content are flatbuffers; the content and the table are
packed by LZ4 or Zstandard, or not. An event is 16 bytes: int64 time in µs, int16 x, int16 y, polarity, 3 bytes unused.

Of several streams of events the first is read, as other readers do, or the one that the data set's YAML states
(``source:``); streams of other kinds are skipped. The format has
no invalid events, so no event is dropped. A recording may be empty. Times may repeat and run backwards, and are sorted;
they have 63 bits and do not overflow. Bytes after the table are an error. The file of a recorder that was killed has no
table; it ends with a packet.

LZ4 and Zstandard are unpacked by libraries; the container is read here, since the existing readers of whole files (that
of tonic among them) end the process when a file is damaged.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from plifctl.data.events import Decoded, Events
from plifctl.data.formats.clocks import sort_by_time
from plifctl.data.formats.headers import describe_content, unknown_source
from plifctl.data.formats.summary import Summary, size_of
from plifctl.data.remarks import Remark
from plifctl.data.zip_reader import MEMBER_LIMIT, largest_unpacked
from plifctl.errors import DamagedFileError

_MAGIC = b"#!AER-DAT4.0\r\n"
_PACKET = struct.Struct("<iI")  # stream, size
_ELEMENT = np.dtype(
    {
        "names": ["t", "x", "y", "p"],
        "formats": ["<i8", "<i2", "<i2", "u1"],
        "offsets": [0, 8, 10, 12],
        "itemsize": 16,
    }
)
_EVENTS = b"EVTS"
_Place = tuple[int, int]
"""Offset and size of a packet's content."""

_PIECE_BYTES = 2**10  # Zstandard unpacks as many to at most 32 MiB

_Unpack = Callable[[bytes, int], bytes]
"""Unpacks a frame, to at most one byte more than the limit; raises ValueError if the frame is incomplete."""


def decode_aedat4(data: bytes, *, where: str, source: int | None = None) -> Decoded:
    """Decodes the polarity events of an AEDAT 4 file.

    Args:
        data: The file.
        where: Its name, for messages.
        source: Number of the stream; None: the first stream of events, with a remark if there are others.

    Returns:
        The events, with x and y of the file; none is dropped.

    Raises:
        DamagedFileError: The file has another format, is cut off, has no stream of events, or cannot be unpacked.
        RawDataError: There is no such stream of events.

    Source: the AEDAT 4 specification.
    """
    at, end, unpack = _header(data, where)
    description = data[:at]
    # of all packets together
    left = len(data) if unpack is _plain else min(MEMBER_LIMIT, largest_unpacked(len(data)))
    if end < len(data):
        _unpack_bytes(data[end:], unpack, left, f"{where}: byte {end}: the table at the end")
    found = _streams(data, at, end, where)
    if source is not None:
        is_of_events = partial(_is_of_events, data, unpack, left, where)
        found = _choose_stream(found, source, description, is_of_events, where)
    streams = list(found.values())
    for index, (number, packets) in enumerate(found.items()):
        parts = []
        for start, size in packets:
            place = f"{where}: byte {start}"
            content = _unpack_bytes(data[start : start + size], unpack, left, place)
            left -= len(content)
            if content[8:12] == _EVENTS:
                parts.append(_elements(content, place))
            elif parts:
                raise DamagedFileError(f"{place}: a packet of another kind in the stream of events")
            else:
                break  # a stream has packets of one kind: this one is another output of the camera
        if parts:
            others = sum(_is_of_events(data, unpack, left, where, other[0]) for other in streams[index + 1 :])
            if source is None:  # a first camera that has seen nothing
                others += sum(first < number and first not in found for first in _stated_of_events(description))
            return _to_events(np.concatenate(parts), where, (Remark("sources", others),) if others else ())
    if _EVENTS not in description:
        raise DamagedFileError(f"{where}: the file has no stream of events")
    return _to_events(np.empty(0, _ELEMENT), where)


def _streams(data: bytes, at: int, end: int, where: str) -> dict[int, list[_Place]]:
    """Returns offset and size of every packet's content, by the number of its stream, ascending."""
    streams: dict[int, list[_Place]] = {}
    while at < end:
        if end - at < _PACKET.size:
            raise DamagedFileError(
                f"{where}: byte {at}: {end - at} bytes left, a packet header has {_PACKET.size}; the file is cut off"
            )
        stream, size = _PACKET.unpack_from(data, at)
        body = at + _PACKET.size
        if size > end - body:
            raise DamagedFileError(
                f"{where}: byte {at}: the packet needs {size} bytes, {end - body} are left; the file is cut off"
            )
        streams.setdefault(stream, []).append((body, size))
        at = body + size
    return dict(sorted(streams.items()))


def _choose_stream(
    streams: dict[int, list[_Place]],
    source: int,
    description: bytes,
    is_of_events: Callable[[_Place], bool],
    where: str,
) -> dict[int, list[_Place]]:
    """Returns one stream; without packets if it is only stated in the header.

    Raises:
        RawDataError: There is no such stream of events.
    """
    stated = set(_stated_of_events(description))
    packets = streams.get(source, [])
    if source not in stated and not (packets and is_of_events(packets[0])):
        raise unknown_source(source, stated.union(n for n, others in streams.items() if is_of_events(others[0])), where)
    return {source: packets}


def _is_of_events(data: bytes, unpack: _Unpack, limit: int, where: str, packet: _Place) -> bool:
    start, size = packet
    return _unpack_bytes(data[start : start + size], unpack, limit, f"{where}: byte {start}")[8:12] == _EVENTS


def _to_events(events: np.ndarray, where: str, remarks: tuple[Remark, ...] = ()) -> Decoded:
    bad = np.flatnonzero((events["t"] < 0) | (events["p"] > 1))
    if len(bad):
        event = events[bad[0]]
        raise DamagedFileError(
            f"{where}: event {bad[0]} of {len(events)} has time {event['t']} and polarity {event['p']}, "
            "expected a time of at least 0 and polarity 0 or 1"
        )
    return sort_by_time(Events.from_columns(*(events[name] for name in "txyp")), where, remarks=remarks)


def _header(data: bytes, where: str) -> tuple[int, int, _Unpack]:
    """Returns where the packets begin and end, and the function that unpacks them."""
    if not data.startswith(_MAGIC):
        raise DamagedFileError(f"{where}: byte 0: {describe_content(data)}, expected AEDAT 4 (a line #!AER-DAT4.0)")
    start = len(_MAGIC)
    try:
        (size,) = struct.unpack_from("<I", data, start)
        table = data[start : start + 4 + size]
        if len(table) < 4 + size or table[8:12] != b"IOHE":
            raise ValueError("incomplete, or without the identifier IOHE")
        at = _field(table, 0)
        compression = struct.unpack_from("<i", table, at)[0] if at else 0
        at = _field(table, 1)
        end = struct.unpack_from("<q", table, at)[0] if at else -1
    except (struct.error, ValueError) as error:
        raise DamagedFileError(f"{where}: byte {start}: the header cannot be read: {error}") from error
    start += len(table)
    if compression not in _UNPACK:
        raise DamagedFileError(f"{where}: the header states compression {compression}, expected 0 to 4")
    if end == -1:
        end = len(data)
    elif not start <= end < len(data):
        raise DamagedFileError(f"{where}: the header states a table at byte {end} of {len(data)}; the file is cut off")
    return start, end, _UNPACK[compression]


def _elements(buffer: bytes, where: str) -> np.ndarray:
    """Returns the events of an unpacked packet, as stored."""
    try:
        at = _field(buffer, 0)
        if not at:
            return np.empty(0, _ELEMENT)
        at = _follow(buffer, at)
        (count,) = struct.unpack_from("<I", buffer, at)
        return np.frombuffer(buffer, _ELEMENT, count, at + 4)
    except (struct.error, ValueError) as error:
        raise DamagedFileError(f"{where}: the packet of events cannot be read: {error}") from error


def _field(buffer: bytes, index: int) -> int:
    """Returns the offset of a field of the root table of a size-prefixed flatbuffer; 0 for a field at its default."""
    return _field_of(buffer, _follow(buffer, 4), index)


def _field_of(buffer: bytes, root: int, index: int) -> int:
    """Returns the offset of a field of the table at ``root``; 0 for a field at its default."""
    vtable = root - struct.unpack_from("<i", buffer, root)[0]
    if vtable < 0:  # Python would count from the end
        raise ValueError("a table outside the buffer")
    (size,) = struct.unpack_from("<H", buffer, vtable)
    if size < 6 + 2 * index:
        return 0
    (offset,) = struct.unpack_from("<H", buffer, vtable + 4 + 2 * index)
    return root + offset if offset else 0


def _follow(buffer: bytes, at: int) -> int:
    return at + int(struct.unpack_from("<I", buffer, at)[0])


def _unpack_bytes(packed: bytes, unpack: _Unpack, limit: int, where: str) -> bytes:
    try:
        content = unpack(packed, limit)
    except ValueError as error:
        raise DamagedFileError(f"{where}: {len(packed)} bytes cannot be unpacked: {error}") from error
    if len(content) > limit:
        raise DamagedFileError(
            f"{where}: refused, the file unpacks to more bytes than a recording of its size, or to more than 4 GiB",
            hint="divide a longer recording, or save it without compression",
        )
    return content


def _plain(packed: bytes, limit: int) -> bytes:
    return packed


def _lz4(packed: bytes, limit: int) -> bytes:
    from lz4.frame import LZ4FrameDecompressor

    return _frame(LZ4FrameDecompressor(), RuntimeError, packed, limit)


def _zstd(packed: bytes, limit: int) -> bytes:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
    return _frame(decompressor, zstandard.ZstdError, packed, limit)


def _frame(decompressor: Any, failure: type[Exception], packed: bytes, limit: int) -> bytes:
    """Unpacks one frame in pieces, none of which can unpack to much more than the limit."""
    content = bytearray()
    try:
        for at in range(0, len(packed), _PIECE_BYTES):
            content += decompressor.decompress(packed[at : at + _PIECE_BYTES])
            if len(content) > limit:
                return bytes(content[: limit + 1])
            if decompressor.eof and (decompressor.unused_data or at + _PIECE_BYTES < len(packed)):
                raise ValueError("bytes follow the frame")
    except failure as error:
        raise ValueError(error) from error
    if not decompressor.eof:
        raise ValueError("the frame is cut off")
    return bytes(content)


_UNPACK: dict[int, _Unpack] = {0: _plain, 1: _lz4, 2: _lz4, 3: _zstd, 4: _zstd}


_IN_XML = re.compile(
    rb'<node name="(?P<stream>\d+)"|'
    rb'<attr key="(?P<key>typeIdentifier|sizeX|sizeY|source)"[^>]{0,100}>(?P<value>[^<]{0,200})<'
)
_KINDS = {"EVTS": "events of other streams", "FRME": "frames", "IMUS": "IMU samples", "TRIG": "triggers"}
_MAX_TABLE_BYTES = 2**26


def summarise_aedat4(file: BinaryIO, source: int | None = None) -> Summary:
    """Returns what the header states, and how many elements and which times the table at the end lists.

    A file without a readable table, such as that of a recorder that was killed, states no number of events.

    Args:
        file: The file.
        source: Number of the stream of events; None: the first with events, as far as the table tells.
    """
    head = file.read(len(_MAGIC) + 4)
    head += file.read(min(int.from_bytes(head[-4:], "little"), _MAX_TABLE_BYTES))
    streams = _stated_streams(head)
    of_events = _stated_of_events(head)
    try:
        packets = _read_table(file, head)
    except (struct.error, ValueError, LookupError):
        packets = None
    if source is None:
        filled = {packet.stream for packet in packets or () if packet.n_elements}
        source = min(filled.intersection(of_events) or of_events, default=-1)
    summary = _stated_camera(streams.get(source, {}))
    return summary if packets is None else _with_counts(summary, packets, source, streams)


def _stated_camera(stream: Mapping[str, str]) -> Summary:
    """Returns name and sensor of the camera of a stream."""
    sizes = [int(stream[key]) for key in ("sizeX", "sizeY") if stream.get(key, "").isdecimal()]
    return Summary(stream.get("source", ""), (sizes[0], sizes[1]) if len(sizes) == 2 else None)


def _with_counts(
    summary: Summary, packets: Sequence[_TableRow], read: int, streams: Mapping[int, Mapping[str, str]]
) -> Summary:
    """Returns a summary with number and times of the events of a stream, and the elements of all others."""
    others: Counter[str] = Counter()
    for packet in packets:
        if packet.stream != read and packet.n_elements:
            kind = streams.get(packet.stream, {}).get("typeIdentifier", "unknown")
            others[_KINDS.get(kind, f"elements of kind {kind}")] += packet.n_elements
    events = [packet for packet in packets if packet.stream == read and packet.n_elements]
    return summary._replace(
        n_events=sum(packet.n_elements for packet in events),
        first_us=min((packet.first_us for packet in events), default=None),
        last_us=max((packet.last_us for packet in events), default=None),
        others=tuple(sorted(others.items())),
    )


def _stated_streams(header: bytes) -> dict[int, dict[str, str]]:
    """Returns the attributes of each stream that the header's XML states."""
    streams: dict[int, dict[str, str]] = {}
    stream: dict[str, str] = {}
    for found in _IN_XML.finditer(header):
        if found["stream"]:
            stream = streams.setdefault(int(found["stream"]), {})
        else:
            stream.setdefault(found["key"].decode(), found["value"].decode(errors="replace"))
    return streams


def _stated_of_events(header: bytes) -> list[int]:
    """Returns the numbers of the streams of events that the header's XML states."""
    stated = _stated_streams(header)
    return [number for number, stream in stated.items() if stream.get("typeIdentifier") == "EVTS"]


class _TableRow(NamedTuple):
    """A packet in the table at the end: its stream, and number and times (µs) of its elements."""

    stream: int
    n_elements: int
    first_us: int
    last_us: int


def _read_table(file: BinaryIO, head: bytes) -> list[_TableRow]:
    """Returns the rows of the table at the end of a file.

    Raises:
        struct.error, ValueError, LookupError: There is none, or it cannot be read.
    """
    header = head[len(_MAGIC) :]
    (compression,) = struct.unpack_from("<i", header, at) if (at := _field(header, 0)) else (0,)
    (start,) = struct.unpack_from("<q", header, _field(header, 1))
    if not len(head) <= start < size_of(file):
        raise ValueError("no table")
    file.seek(start)
    table = _UNPACK[compression](file.read(_MAX_TABLE_BYTES), _MAX_TABLE_BYTES)
    if table[8:12] != b"FTAB":
        raise ValueError("no table")
    at = _follow(table, _field(table, 0))
    (count,) = struct.unpack_from("<I", table, at)
    return [_table_row(table, _follow(table, at + 4 + 4 * index)) for index in range(min(count, len(table)))]


def _table_row(table: bytes, root: int) -> _TableRow:
    def number(index: int) -> int:
        at = _field_of(table, root, index)
        return int(struct.unpack_from("<q", table, at)[0]) if at else 0

    packet = _field_of(table, root, 1)
    (stream,) = struct.unpack_from("<i", table, packet) if packet else (0,)
    return _TableRow(stream, number(2), number(3), number(4))
