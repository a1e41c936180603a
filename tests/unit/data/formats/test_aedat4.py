"""The decoder of AEDAT 4, against an independent reader, damaged files and a real recording."""

import struct
import tempfile
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from factories import AEDAT4_PACKINGS, encode_aedat4, random_events

from plifctl.data.events import EVENT
from plifctl.data.formats import aedat4
from plifctl.data.formats.aedat4 import decode_aedat4
from plifctl.data.remarks import Remark
from plifctl.errors import DamagedFileError

RNG = np.random.default_rng(0)
NO_EVENTS = np.empty(0, EVENT)


def read_by_aedat(data: bytes) -> np.ndarray:
    """The events of the first stream, by the library that tonic uses (tonic.io.read_aedat4 in 1.7.0)."""
    import aedat

    with tempfile.NamedTemporaryFile(suffix=".aedat4") as file:
        file.write(data)
        file.flush()
        decoder = aedat.Decoder(file.name)
        first = min(stream for stream, what in decoder.id_to_stream().items() if what["type"] == "events")
        found = [packet["events"] for packet in decoder if packet["stream_id"] == first]
    events = np.empty(sum(map(len, found)), EVENT)
    joined = np.concatenate(found) if found else events
    for ours, theirs in zip("txyp", joined.dtype.names, strict=True):
        events[ours] = joined[theirs]
    return events


@pytest.mark.parametrize("packing", AEDAT4_PACKINGS)
@pytest.mark.parametrize("table", [True, False])
def test_decode_aedat4_several_packets_equals_another_reader(packing: str, table: bool) -> None:
    events = random_events(RNG, 5000, start=1_605_537_493_718_345)
    parts = [(0, "EVTS", part) for part in np.split(events, [0, 7, 3000])]
    data = encode_aedat4(*parts, packing=packing, table=table)
    found = decode_aedat4(data, where="f")
    assert found.events.tolist() == events.tolist()
    assert found.dropped == 0
    assert read_by_aedat(data).tolist() == found.events.tolist()


def test_decode_aedat4_reads_the_first_event_stream_and_skips_other_kinds() -> None:
    first, second = random_events(RNG, 10), random_events(RNG, 20)
    data = encode_aedat4((3, "EVTS", second), (0, "TRIG", NO_EVENTS), (2, "EVTS", first), (3, "EVTS", second))
    assert decode_aedat4(data, where="f").events.tolist() == first.tolist()


@pytest.mark.parametrize("packets", [[], [(0, "EVTS", NO_EVENTS)]])
def test_decode_aedat4_without_events_gives_no_events(packets: list[tuple[int, str, np.ndarray]]) -> None:
    assert len(decode_aedat4(encode_aedat4(*packets, streams={0: "EVTS"}), where="f").events) == 0


def test_decode_aedat4_without_an_event_stream_is_refused() -> None:
    with pytest.raises(DamagedFileError, match="no stream of events"):
        decode_aedat4(encode_aedat4((0, "TRIG", NO_EVENTS)), where="f")


def test_decode_aedat4_times_backwards_are_sorted_stably() -> None:
    events = np.array([(5, 1, 0, 0), (3, 2, 0, 1), (5, 3, 0, 0), (3, 4, 0, 1), (2**62, 5, 0, 1)], EVENT)
    found = decode_aedat4(encode_aedat4((0, "EVTS", events[:2]), (0, "EVTS", events[2:])), where="f")
    assert found.events["x"].tolist() == [2, 4, 1, 3, 5]


@pytest.mark.parametrize("event", [(-1, 0, 0, 0), (1, 0, 0, 2)])
def test_decode_aedat4_impossible_event_error_names_it(event: tuple[int, int, int, int]) -> None:
    with pytest.raises(DamagedFileError, match="event 1 of 2"):
        decode_aedat4(encode_aedat4((0, "EVTS", np.array([(0, 0, 0, 0), event], EVENT))), where="f")


@pytest.mark.parametrize("packing", AEDAT4_PACKINGS[:4])
def test_decode_aedat4_cut_anywhere_is_refused(packing: str) -> None:
    data = encode_aedat4((0, "EVTS", random_events(RNG, 30)), (0, "EVTS", random_events(RNG, 30)), packing=packing)
    ends = range(len(data)) if packing != "none" else range(len(data) - len(b"the table") + 1)
    for end in ends:
        with pytest.raises(DamagedFileError):
            decode_aedat4(data[:end], where="f")


def test_decode_aedat4_without_table_cut_within_a_packet_is_refused() -> None:
    events = random_events(RNG, 30)
    data = encode_aedat4((0, "EVTS", events), (0, "EVTS", events), table=False)
    start = len(encode_aedat4(table=False, streams={0: "EVTS"}))
    between = start + (len(data) - start) // 2
    for end in set(range(len(data))) - {start, between}:
        with pytest.raises(DamagedFileError):
            decode_aedat4(data[:end], where="f")
    assert len(decode_aedat4(data[:between], where="f").events) == 30


@pytest.mark.parametrize("packing", AEDAT4_PACKINGS[1:4])
def test_decode_aedat4_trailing_bytes_are_refused(packing: str) -> None:
    data = encode_aedat4((0, "EVTS", random_events(RNG, 30)), packing=packing)
    with pytest.raises(DamagedFileError, match="bytes follow"):
        decode_aedat4(data + b"abc", where="f")


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
def test_decode_aedat4_decompression_bomb_is_refused(packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_aedat4((0, "EVTS", np.zeros(10**6, EVENT)), packing=packing)
    assert len(decode_aedat4(data, where="f").events) == 10**6
    monkeypatch.setattr("plifctl.data.zip_reader._LARGE_BYTES", 10**6)
    with pytest.raises(DamagedFileError, match="unpacks to more bytes than a recording of its size") as error:
        decode_aedat4(data, where="f")
    assert "without compression" in error.value.hint


def test_decode_aedat4_without_compression_may_have_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aedat4, "MEMBER_LIMIT", 100)
    events = random_events(RNG, 30)
    with pytest.raises(DamagedFileError, match="more than 4 GiB"):
        decode_aedat4(encode_aedat4((0, "EVTS", events), packing="lz4"), where="f")
    assert len(decode_aedat4(encode_aedat4((0, "EVTS", events), packing="none"), where="f").events) == 30


def test_decode_aedat4_declared_gigabytes_are_not_allocated() -> None:
    """The size that an LZ4 frame declares does not decide how much memory is allocated."""
    import tracemalloc

    frame = bytearray(lz4.frame.compress(bytes(1000), store_size=True))
    frame[6:14] = struct.pack("<Q", 2**40)
    start = encode_aedat4(table=False, streams={0: "EVTS"})
    tracemalloc.start()
    with pytest.raises(DamagedFileError):
        decode_aedat4(start + struct.pack("<iI", 0, len(frame)) + frame, where="f")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.real
def test_decode_aedat4_real_file_equals_another_reader(shared: Path) -> None:
    data = (shared / "data/samples/sample.aedat4").read_bytes()
    found = decode_aedat4(data, where="f").events
    assert len(found) == 111_954
    assert read_by_aedat(data).tolist() == found.tolist()
    for end in (len(data) // 2, len(data) - 4010, len(data) - 10):
        with pytest.raises(DamagedFileError):
            decode_aedat4(data[:end], where="f")


def test_first_stream_without_packets_is_counted_as_another_source() -> None:
    events = random_events(np.random.default_rng(3), 20)
    data = encode_aedat4((2, "EVTS", events), streams={0: "EVTS", 1: "FRME", 2: "EVTS"})
    assert decode_aedat4(data, where="f").remarks == (Remark("sources", 1),)
    assert decode_aedat4(data, where="f", source=2).remarks == ()
    assert decode_aedat4(encode_aedat4((0, "EVTS", events)), where="f").remarks == ()
