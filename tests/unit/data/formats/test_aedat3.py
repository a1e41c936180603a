"""The decoder of AEDAT 3.1, against files written by hand, damaged ones, its encoder and real recordings."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from factories import random_events
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import AEDAT2_HEADER, AEDAT3_HEADER, aedat3_packet, aedat3_word

from plifctl.data.events import EVENT
from plifctl.data.formats.aedat3 import decode_aedat3, encode_aedat3
from plifctl.data.remarks import Remark
from plifctl.errors import DamagedFileError, RawDataError

packet, word = aedat3_packet, aedat3_word


def xs(data: bytes, **choice: str) -> list[int]:
    """The x of the events in some packets."""
    return decode_aedat3(AEDAT3_HEADER + data, where="f", **choice).events["x"].tolist()  # type: ignore[arg-type]


def test_decode_aedat3_reads_bits_and_sorts_by_time() -> None:
    data = AEDAT3_HEADER + packet((word(3, 5, 1), 20), (word(127, 0, 0), 10))
    found = decode_aedat3(data, where="f")
    assert found.events.tolist() == [(10, 127, 0, 0), (20, 3, 5, 1)]
    assert found.dropped == 0


def test_decode_aedat3_overflow_spare_capacity_and_other_packet_types() -> None:
    data = (
        AEDAT3_HEADER
        + packet((word(1, 1, 0), 7), spare=bytes(24))
        + packet((99, 3), kind=0)
        + packet((word(2, 2, 1), 5), overflow=1)
    )
    assert decode_aedat3(data, where="f").events.tolist() == [(7, 1, 1, 0), (2**31 + 5, 2, 2, 1)]


def test_decode_aedat3_times_backwards_within_and_across_packets_are_sorted() -> None:
    assert xs(packet((word(1), 9), (word(2), 5)) + packet((word(3), 7), (word(4), 5))) == [2, 4, 3, 1]


def test_decode_aedat3_equal_times_keep_their_order_across_packets() -> None:
    assert xs(b"".join(packet((word(k), 5)) for k in range(20))) == list(range(20))


def test_decode_aedat3_overflow_count_applies_to_its_packet_only() -> None:
    data = packet((word(1), 2**31 - 1)) + packet((word(2), 0), overflow=1) + packet((word(3), 3), overflow=2)
    found = decode_aedat3(AEDAT3_HEADER + data, where="f").events
    assert found["t"].tolist() == [2**31 - 1, 2**31, 2**32 + 3]


def test_decode_aedat3_packets_of_other_types_and_sizes_are_skipped() -> None:
    special = struct.pack("<hhiiiiii", 0, 1, 4, 0, 0, 3, 3, 3) + bytes(12)
    frame = struct.pack("<hhiiiiii", 2, 1, 36, 12, 0, 1, 1, 1) + bytes(36)
    assert xs(packet((word(1), 1)) + special + frame + packet((word(2), 2)) + special) == [1, 2]


def test_decode_aedat3_only_special_or_empty_packets_gives_no_events() -> None:
    assert xs(packet((1, 1), kind=0)) == []
    assert xs(packet() + packet()) == []


def test_decode_aedat3_unused_capacity_contains_no_events() -> None:
    assert xs(packet((word(1), 1), spare=struct.pack("<II", word(9), 9) * 3) + packet((word(2), 2))) == [1, 2]


def test_decode_aedat3_invalid_events_are_dropped_and_counted_or_kept() -> None:
    data = AEDAT3_HEADER + packet((word(1, 1, 0, valid=0), 1), (word(2, 2, 1), 2))
    assert decode_aedat3(data, where="f").dropped == 1
    kept = decode_aedat3(data, where="f", invalid="keep")
    assert (len(kept.events), kept.dropped) == (2, 0)


def test_decode_aedat3_invalid_events_in_several_packets_are_dropped_or_kept() -> None:
    data = packet((word(1, valid=0), 1)) + packet((word(2), 2), (word(3, valid=0), 3))
    assert xs(data) == [2]
    assert xs(data, invalid="keep") == [1, 2, 3]


def test_decode_aedat3_only_invalid_events_error_names_the_option() -> None:
    with pytest.raises(RawDataError, match="all 1 events") as error:
        decode_aedat3(AEDAT3_HEADER + packet((word(1, 1, 0, valid=0), 1)), where="f")
    assert "--set frames.invalid_events=keep" in error.value.hint


def test_decode_aedat3_header_only_gives_no_events() -> None:
    assert len(decode_aedat3(AEDAT3_HEADER, where="f").events) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "f: byte 0: an empty file, expected AEDAT 3.1"),
        (AEDAT2_HEADER, "format AEDAT 2.0, expected AEDAT 3.1"),
        (b"#!AER-DAT3.1\r\n", "header does not end"),
        (AEDAT3_HEADER + b"\0" * 10, f"byte {len(AEDAT3_HEADER)}: 10 bytes left"),
        (AEDAT3_HEADER + packet((1, 1), (1, 2))[:-3], "the packet needs 16 bytes, 13 are left"),
        (AEDAT3_HEADER + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 5, 5), "invalid packet header"),
        (AEDAT3_HEADER + struct.pack("<hhiiiiii", 1, 1, -8, 4, 0, 1, 1, 1), "invalid packet header"),
        (AEDAT3_HEADER + struct.pack("<hhiiiiii", 1, 1, 4, 4, 0, 0, 0, 0), "polarity events of 4 bytes"),
    ],
)
def test_decode_aedat3_damaged_file_error_names_the_offset(data: bytes, message: str) -> None:
    with pytest.raises(DamagedFileError, match=message.replace("(", r"\(")):
        decode_aedat3(data, where="f")


@pytest.mark.parametrize("count", [1, 27])
def test_decode_aedat3_trailing_bytes_are_refused(count: int) -> None:
    with pytest.raises(DamagedFileError, match=f"{count} bytes left"):
        xs(packet((word(1), 1)) + bytes(count))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**34), max_size=50), st.integers(0, 2**32 - 1))
def test_decode_aedat3_of_encoded_events_gives_them_back(times: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    written = np.empty(len(times), EVENT)
    written["t"] = sorted(times)
    for name, end in (("x", 128), ("y", 128), ("p", 2)):
        written[name] = rng.integers(0, end, len(times))
    assert decode_aedat3(encode_aedat3(written), where="f").events.tolist() == written.tolist()


@pytest.mark.real
def test_decode_aedat3_real_recordings_have_the_counted_events(shared: Path) -> None:
    folder = shared / "data/DvsGesture"
    for name, counts in json.loads((folder / "counts.json").read_text()).items():
        found = decode_aedat3((folder / f"{name}.aedat").read_bytes(), where=name)
        assert len(found.events) == counts["events"]


def test_first_source_without_events_is_counted_as_another_source() -> None:
    events = random_events(np.random.default_rng(3), 20)
    data = encode_aedat3(events)
    assert decode_aedat3(data, where="f").remarks == ()
    two = data.replace(b"#Source 1:", b"#Source 0: DVS128\r\n#Source 1:")
    assert decode_aedat3(two, where="f").remarks == (Remark("sources", 1),)
    assert decode_aedat3(two, where="f", source=1).remarks == ()
    later = data.replace(b"#Source 1:", b"#Source 1: DVS128\r\n#Source 2:")
    assert decode_aedat3(later, where="f").remarks == ()
