"""The decoder of ATIS, against files written by hand, damaged ones and tonic."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from raw_files import AEDAT2_HEADER

from plifctl.data.formats.atis import decode_atis
from plifctl.errors import DamagedFileError


def decoded(*rows: tuple[int, int, int, int, int]) -> list[tuple[int, int]]:
    """Time and x of the events of some rows of five bytes."""
    found = decode_atis(b"".join(map(bytes, rows)), where="f")
    assert found.dropped == 0
    return list(zip(found.events["t"].tolist(), found.events["x"].tolist(), strict=True))


def test_decode_atis_reads_bits_and_overflow_marks() -> None:
    rows = [(3, 4, 0x80, 1, 2), (0, 240, 0, 0, 0), (5, 6, 0x01, 0, 0)]
    found = decode_atis(b"".join(map(bytes, rows)), where="f")
    assert found.events.tolist() == [(258, 3, 4, 1), (65536 + 8192, 5, 6, 0)]


def test_decode_atis_several_overflow_marks_add_up() -> None:
    overflow = (0, 240, 0, 0, 0)
    assert decoded((1, 0, 0, 0, 9), overflow, (2, 0, 0, 0, 9), overflow, overflow, (3, 0, 0, 0, 9)) == [
        (9, 1),
        (8192 + 9, 2),
        (3 * 8192 + 9, 3),
    ]


def test_decode_atis_only_overflow_marks_gives_no_events() -> None:
    assert decoded((0, 240, 0, 0, 0), (5, 240, 0x80, 1, 1)) == []


def test_decode_atis_times_backwards_are_sorted_stably() -> None:
    assert decoded((1, 0, 0, 0, 9), (2, 0, 0, 0, 3), (3, 0, 0, 0, 9)) == [(3, 2), (9, 1), (9, 3)]


def test_decode_atis_largest_time_has_23_bits() -> None:
    assert decoded((1, 0, 0x7F, 255, 255)) == [(2**23 - 1, 1)]


@pytest.mark.parametrize("data", [b"", b"1234", b"PK\x03\x04" + bytes(6), AEDAT2_HEADER])
def test_decode_atis_empty_cut_or_other_format_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        decode_atis(data, where="f")


@pytest.mark.parametrize("count", range(1, 5))
def test_decode_atis_trailing_bytes_are_refused(count: int) -> None:
    with pytest.raises(DamagedFileError, match=f"byte 10: {count} bytes left"):
        decode_atis(bytes(10 + count), where="f")


@pytest.mark.real
def test_decode_atis_real_recording_equals_tonic(shared: Path, tmp_path: Path) -> None:

    from tonic.io import read_mnist_file

    with zipfile.ZipFile(shared / "data/NMNIST/Test.zip") as archive:
        name = archive.namelist()[7]
        path = Path(archive.extract(name, tmp_path))
    theirs = read_mnist_file(str(path), dtype=np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    ours = decode_atis(path.read_bytes(), where=name).events
    assert len(ours) > 1000
    for field in ("t", "x", "y", "p"):
        np.testing.assert_array_equal(ours[field], theirs[field])
