"""The decoder of IDX, against files written by hand and damaged ones."""

import struct

import numpy as np
import pytest

from plifctl.data.formats.idx import decode_idx
from plifctl.errors import DamagedFileError


def test_decode_idx_reads_shape_and_values() -> None:
    data = struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(range(6))
    assert decode_idx(data, where="f").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("extra", [b"", bytes(5), bytes(7)])
def test_decode_idx_another_length_than_stated_is_refused(extra: bytes) -> None:
    with pytest.raises(DamagedFileError):
        decode_idx(struct.pack(">HBBII", 0, 8, 2, 2, 3) + extra, where="f")


@pytest.mark.parametrize("count", [1, 6])
def test_decode_idx_trailing_bytes_error_names_both_sizes(count: int) -> None:
    with pytest.raises(DamagedFileError, match=f"{18 + count} bytes, expected 18"):
        decode_idx(struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(6 + count), where="f")


@pytest.mark.parametrize("data", [b"", b"\0\0\x0d\1", b"\x1f\x8b\x08\0"])
def test_decode_idx_other_format_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        decode_idx(data, where="f")


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_decode_idx_without_values_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(DamagedFileError, match="at least one value"):
        decode_idx(struct.pack(">HBBII", 0, 8, 2, *shape), where="f")


def test_decode_idx_shape_that_overflows_is_refused() -> None:
    with pytest.raises(DamagedFileError):
        decode_idx(struct.pack(">HBBIII", 0, 8, 3, *(2**32 - 1,) * 3), where="f")


@pytest.mark.parametrize("dimensions", [0, 4, 255])
def test_decode_idx_impossible_number_of_dimensions_is_refused(dimensions: int) -> None:
    with pytest.raises(DamagedFileError, match="byte 3"):
        decode_idx(bytes((0, 0, 8, dimensions)) + np.ones(300, ">u4").tobytes(), where="f")
