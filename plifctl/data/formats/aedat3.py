"""AEDAT 3.1, the container of DVS128 Gesture.

Text lines that begin with ``#`` up to ``#!END-HEADER``, then packets: a 28-byte little-endian header and
``capacity × size`` bytes, of which ``number × size`` are events. A polarity event (packet type 1) is a word, bit 0
valid, bit 1 polarity, bits 2–16 y, bits 17–31 x, and an int32 time in µs, extended by the packet's overflow count.

Of several sources of events (cameras) one is read: that of the lowest number, or the one that the data set's YAML
states (``source:``), as in AEDAT 4. A special event (packet type 0) of type 1 says that the clock was set to 0: later
times are continued from the last one before it.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import BinaryIO, NamedTuple

import numpy as np

from plifctl.config.choices import InvalidEvents
from plifctl.data.events import Decoded, Events
from plifctl.data.formats.clocks import sort_by_time
from plifctl.data.formats.headers import describe_content, unknown_source
from plifctl.data.formats.summary import Summary, read_comment_lines, sensor_of_camera, size_of
from plifctl.data.remarks import Remark
from plifctl.errors import DamagedFileError, RawDataError

_MAGIC = b"#!AER-DAT3.1"
_END = b"#!END-HEADER"
_PACKET = struct.Struct("<hhiiiiii")  # type, source, size, tsOffset, tsOverflow, capacity, number, valid
_SPECIAL, _POLARITY = 0, 1
_RESET = 1
_WORD = np.dtype([("data", "<u4"), ("t", "<u4")])
_PER_PACKET = 4096


def decode_aedat3(data: bytes, *, where: str, invalid: InvalidEvents = "drop", source: int | None = None) -> Decoded:
    """Decodes the polarity events of one source of an AEDAT 3.1 file; packets of other types are skipped.

    Args:
        data: The file.
        where: Its name, for messages.
        invalid: Whether polarity events whose valid bit is 0 are dropped or kept.
        source: Number of the source; None: the lowest, with a remark if there are others.

    Returns:
        The events; ``dropped`` counts the invalid ones left out.

    Raises:
        DamagedFileError: The file has another format, is cut off, a packet header is inconsistent, or times start again
            without a reset event.
        RawDataError: Every polarity event is marked invalid, and ``invalid`` is ``drop``; there is no such source.

    Source: the AEDAT 3.1 specification.
    """
    from plifctl.data.formats.loops import decode_words

    found, sources, resets = choose_source(read_packets(data, where), source)
    if source is not None and source not in sources:
        _check_stated(data, source, sources, where)
    words, packets = _as_words(data, found)
    n = int(packets[:, 1].sum())
    events = Events.empty(n)
    all_valid, ascending, positive = decode_words(words, packets, *events.columns)
    if not positive:
        raise DamagedFileError(f"{where}: an event has a negative time; the file is damaged")
    skipped = _skipped_sources(data, sources, where) if source is None else 0
    remarks = (Remark("sources", skipped),) if skipped else ()
    if resets and not ascending:
        counts = np.concatenate([[0], np.cumsum(packets[:, 1])])
        if continued := _continue_resets(events["t"], counts[resets].tolist()):
            remarks, ascending = (*remarks, Remark("reset", continued)), None
    if invalid == "drop" and not all_valid:
        valid = [words[first : first + 2 * count : 2] & 1 for first, count, _ in packets.tolist()]
        events = events[np.concatenate(valid) == 1]
        if not len(events):
            raise RawDataError(
                f"{where}: all {n} events are marked invalid (valid bit 0)",
                hint="some recorders never set the bit; to keep such events: add --set frames.invalid_events=keep",
            )
    return sort_by_time(events, where, dropped=n - len(events), ascending=ascending, remarks=remarks)


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


class _Packet(NamedTuple):
    """A packet of polarity events, or of special events one of which resets the clock.

    Attributes:
        source: Number of its source.
        start: Byte where its events begin.
        n_events: Number of its events; 0: the clock is reset.
        overflows: Its overflow count.
    """

    source: int
    start: int
    n_events: int
    overflows: int

    def time_of(self, data: bytes, index: int) -> int:
        """Returns the time of an event, µs, as in the file."""
        at = self.start + index * _WORD.itemsize + 4
        return self.overflows << 31 | int.from_bytes(data[at : at + 4], "little")


def read_packets(data: bytes, where: str) -> Iterator[_Packet]:
    """Yields the packets of polarity events that are not empty, and the resets of the clock, in file order.

    Raises:
        DamagedFileError: The file has another format, is cut off, or a packet header is inconsistent.
    """
    at = _end_of_header(data, where)
    while at < len(data):
        if len(data) - at < _PACKET.size:
            raise DamagedFileError(
                f"{where}: byte {at}: {len(data) - at} bytes left, a packet header has {_PACKET.size}; "
                "the file is cut off"
            )
        kind, source, size, ts_offset, ts_overflow, capacity, number, _ = _PACKET.unpack_from(data, at)
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
            yield _Packet(source, body, number, ts_overflow)
        elif kind == _SPECIAL and size == _WORD.itemsize and _RESET in _special_types(data, body, number):
            yield _Packet(source, body, 0, 0)
        at = body + size * capacity


def _special_types(data: bytes, body: int, number: int) -> set[int]:
    """Returns the types of the special events of a packet: bits 1–7 of the first byte, after the valid bit."""
    return {first >> 1 for first in data[body : body + _WORD.itemsize * number : _WORD.itemsize]}


def choose_source(packets: Iterable[_Packet], source: int | None = None) -> tuple[list[_Packet], list[int], list[int]]:
    """Returns the packets of events of one source, by default that of the lowest number.

    Returns:
        The packets; the numbers of all sources of polarity events; the index of the packet after each reset.
    """
    found = list(packets)
    sources = sorted({packet.source for packet in found if packet.n_events})
    chosen = source if source is not None else min(sources, default=0)
    events: list[_Packet] = []
    resets: list[int] = []
    for packet in found:
        if not packet.n_events:
            resets.append(len(events))
        elif packet.source == chosen:
            events.append(packet)
    return events, sources, resets


def _check_stated(data: bytes, source: int, sources: Sequence[int], where: str) -> None:
    """Raises RawDataError unless the header states a source, which then has no events.

    Args:
        data: The file.
        source: Number of the source.
        sources: The sources that have events.
        where: Name of the file, for messages.
    """
    stated = _stated_sources(data, where)
    if source not in stated:
        raise unknown_source(source, stated.union(sources), where)


def _skipped_sources(data: bytes, sources: Sequence[int], where: str) -> int:
    """Returns how many sources are not read beside the lowest with events: others with events, and lower ones without.

    Of two cameras, the first may have seen nothing: then the second is read, and other recordings by the first.
    """
    if not sources:
        return 0
    lower = {number for number in _stated_sources(data, where) if number < min(sources)}
    return len(lower) + len(sources) - 1


def _stated_sources(data: bytes, where: str) -> set[int]:
    """Returns the numbers of the sources that the header states."""
    return {int(number) for number, _ in _SOURCE.findall(data, 0, _end_of_header(data, where))}


def _as_words(data: bytes, packets: Sequence[_Packet]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the file as words, and first word, number of events and overflow count of each packet ``[n, 3]``."""
    table = np.array([packet[1:] for packet in packets], np.int64).reshape(-1, 3)
    shift = int(table[0, 0]) % 4 if packets else 0
    if (table[:, 0] % 4 != shift).any():  # after a packet of an odd size
        words = np.concatenate([np.frombuffer(data, np.uint32, 2 * one.n_events, one.start) for one in packets])
        table[:, 0] = np.cumsum(2 * table[:, 1]) - 2 * table[:, 1]
    else:
        words = np.frombuffer(data, np.uint32, (len(data) - shift) // 4, shift)
        table[:, 0] = (table[:, 0] - shift) // 4
    return words, table


def _continue_resets(t: np.ndarray, resets: Sequence[int]) -> int:
    """Adds to the times after each reset, in place, the last time before it; returns the number of resets that apply.

    Args:
        t: Times in the order of the file, int64 ``[N]``, µs.
        resets: Index of the first event after each reset, ascending.
    """
    applied, offset, latest, latest_raw = 0, 0, 0, 0
    for first, end in pairwise([0, *resets, len(t)]):
        stretch = t[first:end]
        if not len(stretch):
            continue
        if first and stretch.min() < latest_raw:  # a clock that runs on was not set to 0
            offset, applied = latest, applied + 1
        latest_raw = int(stretch.max())
        stretch += offset
        latest = latest_raw + offset
    return applied


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


_SOURCE = re.compile(rb"^#Source (\d+): *([^\r\n]+)", re.MULTILINE)
_KINDS = {_SPECIAL: "special events", 2: "frames", 3: "IMU samples", 4: "IMU samples", 6: "ear events"}


def summarise_aedat3(file: BinaryIO, source: int | None = None) -> Summary:
    """Returns what header and packet headers state about a source of events, up to a damaged packet.

    Events are counted whether they are marked valid or not. A reset of the clock is not seen in the times.

    Args:
        file: The file.
        source: Number of the source; None: the first.
    """
    header = read_comment_lines(file, b"#", _END)
    at, end = file.tell(), size_of(file)
    found: Counter[tuple[int, int]] = Counter()
    events: dict[int, list[tuple[int, int, int]]] = {}
    while at + _PACKET.size <= end:
        file.seek(at)
        kind, sender, size, _, overflow, capacity, number, _ = _PACKET.unpack(file.read(_PACKET.size))
        at += _PACKET.size + size * capacity
        if kind < 0 or size <= 0 or not 0 <= number <= capacity or at > end:
            break
        found[kind, sender] += number
        if kind == _POLARITY and number:  # the packets of the first and of the last event
            ends = events.setdefault(sender, [])
            ends[1:] = [(at - size * capacity, number, overflow)]
    cameras = {int(number): name.decode(errors="replace").strip() for number, name in _SOURCE.findall(header)}
    read = source if source is not None else min(events, default=min(cameras, default=0))
    others: Counter[str] = Counter()
    for (kind, sender), count in found.items():
        if kind != _POLARITY:
            others[_KINDS.get(kind, f"elements of type {kind}")] += count
        elif sender != read:
            others[f"events of source {sender}"] += count
    camera = cameras.get(read, "")
    times = _times_of_ends(file, events.get(read, []))
    return Summary(camera, sensor_of_camera(camera), found[_POLARITY, read], *times, tuple(sorted(others.items())))


def _times_of_ends(file: BinaryIO, ends: Sequence[tuple[int, int, int]]) -> tuple[int | None, int | None]:
    """Returns the times of the first and the last event of the first and the last packet, µs."""
    if not ends:
        return None, None
    times = []
    for index, (start, number, overflow) in ((0, ends[0]), (-1, ends[-1])):
        file.seek(start + (number - 1 if index else 0) * _WORD.itemsize + 4)
        times.append(overflow << 31 | int.from_bytes(file.read(4), "little"))
    return times[0], times[1]
