"""The decoder of Prophesee's .dat, against files written by hand, damaged ones and an independent reader."""

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
