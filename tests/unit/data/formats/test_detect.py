"""Recordings of every format, recognised by their headers."""

import struct
from functools import partial

import numpy as np
import pytest
from factories import encode_aedat4
from raw_files import encode_dat, encode_evt, encode_npy, encode_npz

from plifctl.data.events import EVENT
from plifctl.data.formats.aedat3 import encode_aedat3
from plifctl.data.formats.detect import decode_any
from plifctl.errors import DamagedFileError

ANY = partial(decode_any, where="f", invalid="drop")


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (encode_aedat4((0, "EVTS", np.array([(7, 1, 2, 1)], EVENT))), (7, 1, 2, 1)),
        (encode_aedat3(np.array([(7, 1, 2, 1)], EVENT)), (7, 1, 2, 1)),
        (b"#!AER-DAT2.0\r\n" + struct.pack(">II", 2 << 8 | 126 << 1, 7), (7, 1, 2, 1)),
        (encode_dat((7, 1, 2, 1)), (7, 1, 2, 1)),
        *((encode_evt(np.array([(7, 1, 2, 1)], EVENT), version), (7, 1, 2, 1)) for version in ("2.0", "2.1", "3.0")),
        (encode_npy(np.array([(1, 2, 1, 7)])), (7000, 1, 2, 1)),
        (encode_npz(t=np.array([7]), x=np.array([1]), y=np.array([2]), p=np.array([1])), (7, 1, 2, 1)),
        (bytes((1, 2, 0x80, 0, 7)), (7, 1, 2, 1)),
        (bytes((0x1F, 0x8B, 0x80, 0, 7)), (7, 31, 139, 1)),  # as gzip begins
        (b"x,y,p,t\n1,2,1,7\n", (7, 1, 2, 1)),
    ],
)
def test_decode_any_header_decides_the_format(data: bytes, events: tuple[int, int, int, int]) -> None:
    assert ANY(data).events.tolist() == [events]


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b\x08\x00\x00", b"\x89HDF\r", b"#!AER-DAT1.0\r\n"])
def test_decode_any_of_unreadable_formats_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        ANY(data)


EVT4 = b"% camera_integrator_name Prophesee\n% date 2023-04-03 11:36:26\n% evt 4.0\n% format EVT4\n% end\n\x00"
EVT = b"% Date 2020-09-25 07:48:31\n% integrator_name Prophesee\n% system_ID 21\n\x00\x80"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (EVT4, r"a file of format Prophesee EVT 4\.0 "),
        (EVT, r"a file of format Prophesee EVT \("),
        (b"Event Stream\x02\x00\x00\x01", "a file of format Event Stream"),
        (b"MATLAB 5.0 MAT-file Platform: posix", "a file of format MATLAB"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(500) + b"\x89HDF\r\n\x1a\n", "a file of format MATLAB"),
    ],
)
def test_decode_any_of_unreadable_formats_names_them_and_the_readable(data: bytes, name: str) -> None:
    with pytest.raises(DamagedFileError, match=f"f: {name}.*which is not read; expected .* AEDAT 2.0, 3.1") as error:
        ANY(data)
    assert "np.savez" in error.value.hint
