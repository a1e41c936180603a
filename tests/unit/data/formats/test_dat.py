"""The decoder of Prophesee's .dat, against files written by hand, damaged ones and an independent reader."""

import struct
from pathlib import Path

import numpy as np
import pytest
from raw_files import encode_dat

from plifctl.data.formats.dat import decode_dat
from plifctl.errors import DamagedFileError


@pytest.mark.parametrize("kind", [0, 12])
def test_decode_dat_reads_bits_and_sorts_by_time(kind: int) -> None:
    data = encode_dat((20, 3, 5, 1), (10, 16383, 0, 0), (20, 0, 16383, 1), kind=kind)
    found = decode_dat(data, where="f")
    assert found.events.tolist() == [(10, 16383, 0, 0), (20, 3, 5, 1), (20, 0, 16383, 1)]
    assert found.dropped == 0


def test_decode_dat_clock_overflow_is_undone() -> None:
    found = decode_dat(encode_dat((2**32 - 2, 0, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0), (9, 3, 0, 0)), where="f").events
    assert found["t"].tolist() == [2**32 - 2, 2**32, 2**32 + 1, 2**32 + 9]
    assert found["x"].tolist() == [0, 2, 1, 3]


def test_decode_dat_header_only_gives_no_events() -> None:
    assert len(decode_dat(encode_dat(), where="f").events) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "byte 0: an empty file"),
        (b"% Date", "a header line without a line feed"),
        (b"% Date\n\0", "type and size of the events are missing"),
        (encode_dat((1, 1, 1, 1)) + b"123", "3 bytes left"),
        (encode_dat((1, 1, 1, 1), kind=14), "type 0x0e"),
        (encode_dat((1, 1, 1, 0), (1, 1, 1, 2)), "event 1 has polarity 2"),
        (b"#!AER-DAT2.0\n", "format AEDAT 2.0"),
    ],
)
def test_decode_dat_damaged_file_error_names_the_offset(data: bytes, message: str) -> None:
    with pytest.raises(DamagedFileError, match=message):
        decode_dat(data, where="f")


@pytest.mark.real
def test_decode_dat_real_file_equals_another_reader(shared: Path) -> None:
    from expelliarmus import Wizard

    path = shared / "data/samples/sample_ncars.dat"
    theirs, ours = Wizard(encoding="dat").read(str(path)), decode_dat(path.read_bytes(), where="f").events
    assert len(ours) == 2009
    for field in "txyp":
        np.testing.assert_array_equal(ours[field], theirs[field])


OLD = [(5, 303, 239, 1), (9, 0, 5, 0), (2**31, 511, 255, 1)]
"""t, x, y, p of events of version 1."""


def encode_old(header: bytes) -> bytes:
    """A file of version 1: x in bits 0–8, y in bits 9–16, polarity in bit 17."""
    return header + b"\x00\x08" + b"".join(struct.pack("<II", t, p << 17 | y << 9 | x) for t, x, y, p in OLD)


@pytest.mark.parametrize("header", [b"% Data file\n% Version 1\n", b"% Data file\n% Version 0\n", b"% Data file\n"])
def test_decode_dat_of_version_1_or_none_is_read_by_its_masks(header: bytes) -> None:
    assert decode_dat(encode_old(header), where="f").events.tolist() == OLD


def test_decode_dat_without_version_but_with_events_of_version_2_is_read_by_theirs() -> None:
    data = encode_dat((1, 300, 200, 1), (2, 5, 0, 0)).replace(b"% Version 2\n", b"")
    assert decode_dat(data, where="f").events.tolist() == [(1, 300, 200, 1), (2, 5, 0, 0)]


def test_decode_dat_of_version_1_with_other_events_is_refused() -> None:
    data = encode_dat((1, 300, 200, 1)).replace(b"Version 2", b"Version 1")
    with pytest.raises(DamagedFileError, match="event 0 is 0x1032012c, expected 18 bits: the header states version 1"):
        decode_dat(data, where="f")
