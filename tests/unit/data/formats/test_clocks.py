"""Clocks that overflow, are reset or start again, in every format: continued or refused, their parts never mixed."""

import struct

import numpy as np
import pytest
from factories import encode_aedat4
from raw_files import (
    AEDAT2_HEADER,
    AEDAT3_HEADER,
    aedat3_packet,
    aedat3_word,
    encode_atis,
    encode_dat,
    encode_davis,
    encode_evt,
    encode_npy,
    encode_npz,
)

from plifctl.config.dataset import ReadingSpec
from plifctl.data.events import EVENT
from plifctl.data.formats.clocks import continue_overflows
from plifctl.data.formats.detect import decode_any, raised_versions
from plifctl.data.formats.variants import VARIANTS, variants_of
from plifctl.data.remarks import Remark
from plifctl.errors import DamagedFileError, RawDataError


def decoded(data: bytes, source: int | None = None) -> tuple[list[int], list[int], tuple[Remark, ...]]:
    """Times and x of the events of a file, and the remarks on it."""
    found = decode_any(
        data,
        where="f",
        invalid="drop",
        reading=ReadingSpec(time_unit=None if data[:2] == b"PK" else "ms", source=source),
    )
    return found.events["t"].tolist(), found.events["x"].tolist(), found.remarks


def events(*times: int) -> np.ndarray:
    """Events at some times, numbered by x."""
    return np.array([(t, k, 0, 1) for k, t in enumerate(times)], EVENT)


def encode_aedat2(*times: int) -> bytes:
    return AEDAT2_HEADER + b"".join(struct.pack(">II", (127 - k) << 1, t % 2**32) for k, t in enumerate(times))


def encode_atis_wrapped(*times: int) -> bytes:
    return encode_atis(events(*(t % 2**23 for t in times)))


def encode_dat_wrapped(*times: int) -> bytes:
    return encode_dat(*((t % 2**32, k, 20, 1) for k, t in enumerate(times)))


def reset_packet(source: int = 1) -> bytes:
    """A packet of two special events of AEDAT 3.1: an external input (type 2), and a reset, as libcaer writes it."""
    head = struct.pack("<hhiiiiii", 0, source, 8, 4, 0, 2, 2, 2)
    return head + struct.pack("<IIII", 2 << 1 | 1, 7, 1 << 1 | 1, 2**31 - 1)


def polarity_packet(first: int, *times: int, source: int = 1, overflow: int = 0) -> bytes:
    """A packet of polarity events whose x count from ``first``."""
    packet = bytearray(aedat3_packet(*((aedat3_word(first + k), t) for k, t in enumerate(times)), overflow=overflow))
    packet[2:4] = struct.pack("<h", source)
    return bytes(packet)


@pytest.mark.parametrize(("encode", "bits"), [(encode_atis_wrapped, 23), (encode_aedat2, 32), (encode_dat_wrapped, 32)])
def test_clock_past_its_bits_is_continued_with_late_events_in_their_place(encode, bits: int) -> None:  # type: ignore[no-untyped-def]
    top = 2**bits
    # a pause of half the range cannot be told from a step back
    times = [top - 900, top - 10, top + 5, top - 3, top + 200, top + top // 2, 2 * top - 4, 2 * top + 1]
    t, x, remarks = decoded(encode(*times))
    assert t == sorted(times)
    assert x[:5] == [0, 1, 3, 2, 4]
    assert remarks == (Remark("overflow", 2), Remark("backward", 1, 8))


def test_continue_overflows_of_ascending_times_changes_nothing() -> None:
    t = np.array([0, 2**31 + 5, 2**32 - 1])
    assert continue_overflows(t, 32) == (t, ())


def test_decode_aedat3_after_a_reset_continues_from_the_last_event() -> None:
    data = (
        AEDAT3_HEADER
        + reset_packet()  # at the start of a recording there is nothing to continue
        + polarity_packet(0, 5, 10, 19_000)
        + reset_packet()
        + polarity_packet(3, 0, 7)
        + polarity_packet(5, 20_000)
        + reset_packet()
        + polarity_packet(6, 1)
    )
    t, x, remarks = decoded(data)
    assert t == [5, 10, 19_000, 19_000, 19_007, 39_000, 39_001]
    assert x == [0, 1, 2, 3, 4, 5, 6]
    assert remarks == (Remark("reset", 2),)


def test_decode_aedat3_after_a_reset_of_a_long_recording_is_not_refused() -> None:
    data = AEDAT3_HEADER + polarity_packet(0, 5, overflow=3) + reset_packet() + polarity_packet(1, 8)
    assert decoded(data)[0] == [3 * 2**31 + 5, 3 * 2**31 + 13]


def test_decode_aedat3_reads_the_first_source_only() -> None:
    data = (
        AEDAT3_HEADER
        + polarity_packet(50, 1, source=2)
        + polarity_packet(0, 2, source=1)
        + polarity_packet(60, 3, source=2)
    )
    assert decoded(data) == ([2], [0], (Remark("sources", 1),))


TWO_SOURCES = (
    AEDAT3_HEADER.replace(b"#Source 1", b"#Source 4: DVS128\r\n#Source 1")
    + polarity_packet(0, 2, 9)
    + polarity_packet(50, 1, 5, source=2)
    + polarity_packet(2, 700)
    + polarity_packet(52, 8, source=2)
)


@pytest.mark.parametrize(("source", "t", "x"), [(1, [2, 9, 700], [0, 1, 2]), (2, [1, 5, 8], [50, 51, 52]), (4, [], [])])
def test_decode_aedat3_reads_the_source_that_is_stated(source: int, t: list[int], x: list[int]) -> None:
    assert decoded(TWO_SOURCES, source) == (t, x, ())


def test_decode_aedat3_of_an_unknown_source_names_those_there_are() -> None:
    with pytest.raises(RawDataError, match="f: no source 3 of events, expected 1 or 2 or 4") as error:
        decoded(TWO_SOURCES, 3)
    assert "source: 1" in error.value.hint


STREAMS = (
    (2, "EVTS", events(9)), (1, "EVTS", events(1, 2)), (3, "TRIG", events(1)), (4, "EVTS", events(7)),
    (2, "EVTS", events(10)),
)  # fmt: skip


@pytest.mark.parametrize(("source", "t"), [(1, [1, 2]), (2, [9, 10]), (4, [7]), (6, [])])
@pytest.mark.parametrize("streams", [{1: "EVTS", 2: "EVTS", 3: "TRIG", 4: "EVTS", 6: "EVTS"}, {6: "EVTS"}])
def test_decode_aedat4_reads_the_stream_that_is_stated(source: int, t: list[int], streams: dict[int, str]) -> None:
    assert decoded(encode_aedat4(*STREAMS, streams=streams), source) == (
        t,
        list(range(len(t))) if source != 2 else [0, 0],
        (),
    )


@pytest.mark.parametrize("source", [0, 3])
def test_decode_aedat4_of_an_unknown_stream_names_those_of_events(source: int) -> None:
    with pytest.raises(RawDataError, match=f"f: no source {source} of events, expected 1 or 2 or 4") as error:
        decoded(encode_aedat4(*STREAMS), source)
    assert "source: 1" in error.value.hint


def test_decode_of_a_source_without_any_is_refused() -> None:
    with pytest.raises(RawDataError, match="no source 1 of events, expected none"):
        decoded(encode_aedat4((0, "TRIG", events(1))), 1)


def test_decode_aedat4_says_that_other_sources_are_left_out() -> None:
    data = encode_aedat4(
        (2, "EVTS", events(9)), (1, "EVTS", events(1, 2)), (3, "TRIG", events(1)), (4, "EVTS", events(7))
    )
    assert decoded(data) == ([1, 2], [0, 1], (Remark("sources", 2),))


RESTARTED = (0, 50, 300_000, 10, 60)
FILES = {
    "AEDAT 2.0": encode_aedat2(*RESTARTED),
    "AEDAT 3.1": AEDAT3_HEADER + polarity_packet(0, *RESTARTED[:3]) + polarity_packet(3, *RESTARTED[3:]),
    "AEDAT 4": encode_aedat4((0, "EVTS", events(*RESTARTED))),
    "ATIS": encode_atis(events(*RESTARTED)),
    "Prophesee .dat": encode_dat_wrapped(*RESTARTED),
    **{f"Prophesee EVT {version} (.raw)": encode_evt(events(*RESTARTED), version) for version in ("2.0", "2.1", "3.0")},
    "numpy": encode_npy(np.array([(k, 0, 1, t / 1000) for k, t in enumerate(RESTARTED)])),
    "zip": encode_npz(**{name: events(*RESTARTED)[name] for name in "txyp"}),
}


@pytest.mark.parametrize("name", FILES)
def test_decode_of_times_that_start_again_is_refused_and_names_the_event(name: str) -> None:
    with pytest.raises(DamagedFileError, match="event 3 of 5 is at 10 µs, the one before at 300000 µs") as error:
        decoded(FILES[name])
    assert "split the file" in error.value.hint


OUT_OF_ORDER = (0, 50, 20, 90, 89)


@pytest.mark.parametrize(
    "data",
    [
        encode_aedat2(*OUT_OF_ORDER),
        AEDAT3_HEADER + polarity_packet(0, *OUT_OF_ORDER),
        encode_aedat4((0, "EVTS", events(*OUT_OF_ORDER))),
        encode_atis(events(*OUT_OF_ORDER)),
        encode_dat_wrapped(*OUT_OF_ORDER),
        *(encode_evt(events(*OUT_OF_ORDER), version) for version in ("2.0", "2.1", "3.0")),
        encode_npy(np.array([(k, 0, 1, t / 1000) for k, t in enumerate(OUT_OF_ORDER)])),
        encode_npz(**{name: events(*OUT_OF_ORDER)[name] for name in "txyp"}),
    ],
    ids=FILES,
)
def test_decode_of_times_out_of_order_sorts_and_counts_them(data: bytes) -> None:
    assert decoded(data) == ([0, 20, 50, 89, 90], [0, 2, 1, 4, 3], (Remark("backward", 2, 30),))


OLD_DAT = b"% Data file\n% Version 1\n\0\x08" + struct.pack("<II", 7, 1 << 17 | 20 << 9 | 300)
RESET = AEDAT3_HEADER + polarity_packet(0, 5, 9) + reset_packet() + polarity_packet(3, 1)


@pytest.mark.parametrize(
    ("data", "variants"),
    [
        (FILES["AEDAT 2.0"], ["AEDAT 2.0 with times that jump"]),
        (encode_aedat2(2**32 - 1, 2**32 + 1), ["AEDAT 2.0 with times that jump"]),
        (encode_aedat2(*OUT_OF_ORDER), []),
        (
            encode_davis((0, 9, 9, 1), (300_000, 9, 9, 1), (5, 9, 9, 1)),
            ["AEDAT 2.0 of a DAVIS", "AEDAT 2.0 with times that jump"],
        ),
        (FILES["AEDAT 3.1"], ["AEDAT 3.1 with times that jump"]),
        (RESET, ["AEDAT 3.1 with times that jump"]),
        (AEDAT3_HEADER + reset_packet() + polarity_packet(0, 5, 9), []),
        (AEDAT3_HEADER + polarity_packet(0, 5) + polarity_packet(0, 5, source=2), ["AEDAT 3.1 of several sources"]),
        (AEDAT3_HEADER + polarity_packet(0, *OUT_OF_ORDER), []),
        (FILES["ATIS"], ["ATIS with times that jump"]),
        (encode_atis_wrapped(2**23 - 1, 2**23 + 1), ["ATIS with times that jump"]),
        (encode_atis(events(*OUT_OF_ORDER)), []),
        (FILES["Prophesee .dat"], ["Prophesee .dat with times that jump"]),
        (encode_dat_wrapped(2**32 - 1, 2**32 + 1), []),  # read rightly before
        (encode_dat_wrapped(2**32 + 1, 2**32 - 1, 2**32 + 2), ["Prophesee .dat with times that jump"]),
        (OLD_DAT, ["Prophesee .dat of version 1"]),
        (encode_npz(t=np.array([1])), []),
        (FILES["AEDAT 3.1"][:-3], []),
    ],
)
def test_variants_of_names_what_earlier_decoders_read_wrongly(data: bytes, variants: list[str]) -> None:
    assert variants_of(data, without_header=True) == variants
    assert raised_versions(variants) == dict.fromkeys(variants, 2)
    assert set(variants) <= set(VARIANTS)


def test_variants_of_files_without_header_that_are_no_recordings_are_none() -> None:
    assert variants_of(FILES["ATIS"]) == []
