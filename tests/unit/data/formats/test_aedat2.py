"""The decoder of AEDAT 2.0, against files written by hand and damaged ones."""

import struct

import pytest
from raw_files import AEDAT2_HEADER, AEDAT3_HEADER

from plifctl.config.choices import OutsideEvents
from plifctl.data.formats.aedat2 import decode_aedat2
from plifctl.errors import DamagedFileError

ADDRESS = 9 << 8 | 5 << 1  # bits 1–7 are 5, bits 8–14 are 9, polarity bit 0


def decoded(*pairs: tuple[int, int]) -> tuple[list[tuple[int, int]], int]:
    """Time and bits 1–7 of the events of address and time pairs, and the number dropped."""
    data = AEDAT2_HEADER + b"".join(struct.pack(">II", *pair) for pair in pairs)
    found = decode_aedat2(data, where="f", axes="authors")
    return list(zip(found.events["t"].tolist(), (127 - found.events["x"]).tolist(), strict=True)), found.dropped


def test_decode_aedat2_axes_follow_the_choice() -> None:
    data = AEDAT2_HEADER + struct.pack(">IIII", ADDRESS, 2**31 + 4, ADDRESS | 1, 2**31 + 5)
    t = 2**31 + 4
    assert decode_aedat2(data, where="f", axes="authors").events.tolist() == [(t, 122, 9, 1), (t + 1, 122, 9, 0)]
    assert decode_aedat2(data, where="f", axes="spikingjelly").events[0] == (t, 118, 122, 1)


def test_decode_aedat2_other_words_are_dropped_and_counted() -> None:
    found = decode_aedat2(AEDAT2_HEADER + struct.pack(">IIII", 1 << 31 | 7, 1, 0, 2), where="f", axes="authors")
    assert (len(found.events), found.dropped) == (1, 1)


def test_decode_aedat2_only_special_words_gives_no_events() -> None:
    assert decoded((1 << 31, 1), (0xFFFFFFFF, 2)) == ([], 2)


def test_decode_aedat2_header_only_gives_no_events() -> None:
    assert len(decode_aedat2(AEDAT2_HEADER, where="f", axes="authors").events) == 0


def test_decode_aedat2_times_backwards_are_sorted_stably() -> None:
    assert decoded((1 << 1, 9), (2 << 1, 3), (3 << 1, 9), (4 << 1, 3)) == ([(3, 2), (3, 4), (9, 1), (9, 3)], 0)


def test_decode_aedat2_times_use_all_32_bits() -> None:
    assert decoded((0, 2**31), (0, 2**32 - 1))[0] == [(2**31, 0), (2**32 - 1, 0)]


def test_decode_aedat2_event_that_starts_like_a_header_line_is_refused() -> None:
    # an address that starts with the byte of "#" looks like a header line, but no DVS128 address does
    with pytest.raises(DamagedFileError):
        decode_aedat2(AEDAT2_HEADER + struct.pack(">II", 0x23000000, 1), where="f", axes="authors")


def test_decode_aedat2_of_another_camera_is_refused() -> None:
    data = AEDAT2_HEADER + struct.pack(">IIII", 0, 1, 1 << 20, 2)
    with pytest.raises(DamagedFileError, match=f"byte {len(AEDAT2_HEADER) + 8}: event 1 .*another camera"):
        decode_aedat2(data, where="f", axes="authors")


@pytest.mark.parametrize("data", [b"", b"\0" * 16, AEDAT3_HEADER, AEDAT2_HEADER + b"\0" * 9, b"#!AER-DAT2.0"])
def test_decode_aedat2_damaged_file_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        decode_aedat2(data, where="f", axes="authors")


@pytest.mark.parametrize("count", range(1, 8))
def test_decode_aedat2_trailing_bytes_are_refused(count: int) -> None:
    with pytest.raises(DamagedFileError, match=f"{count} bytes left"):
        decode_aedat2(AEDAT2_HEADER + bytes(16 + count), where="f", axes="authors")


def words(*addresses: int) -> bytes:
    return AEDAT2_HEADER + b"".join(struct.pack(">II", address, 10 * k) for k, address in enumerate(addresses))


def test_decode_aedat2_synchronisation_words_of_bit_15_are_dropped_and_counted() -> None:
    found = decode_aedat2(words(*range(10), 1 << 15 | 77, *range(10)), where="f", axes="authors")
    assert (len(found.events), found.dropped) == (20, 1)


@pytest.mark.parametrize("outside", ["refuse", "drop"])
def test_decode_aedat2_mostly_of_another_camera_is_refused_without_a_hint_to_drop(outside: OutsideEvents) -> None:
    davis = [y << 22 | x << 12 | 1 << 11 for x, y in ((0, 0), (3, 5), (6, 10), (239, 179))]
    with pytest.raises(DamagedFileError, match="3 of 4 have more than the 15 bits of a DVS128") as error:
        decode_aedat2(words(*davis), where="f", axes="authors", outside=outside)
    assert "outside_events" not in error.value.hint
    assert "np.savez" in error.value.hint


def test_decode_aedat2_with_few_foreign_words_hints_to_drop_them_which_works() -> None:
    data = words(*range(10), 1 << 20)
    with pytest.raises(DamagedFileError, match="event 10 has the address 0x100000, as 1 of 11") as error:
        decode_aedat2(data, where="f", axes="authors")
    assert "frames.outside_events=drop" in error.value.hint
    found = decode_aedat2(data, where="f", axes="authors", outside="drop")
    assert (len(found.events), found.dropped) == (10, 1)
