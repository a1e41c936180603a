"""The decoder of AEDAT 2.0, against files written by hand and damaged ones."""

import struct
from pathlib import Path

import numpy as np
import pytest
from raw_files import AEDAT2_HEADER, AEDAT3_HEADER, encode_davis

from plifctl.config.choices import OutsideEvents
from plifctl.data.formats.aedat2 import decode_aedat2, is_davis
from plifctl.data.formats.detect import decode_any
from plifctl.data.formats.variants import variants_of
from plifctl.data.remarks import Remark
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


DAVIS = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346red\r\n#End Of ASCII Header\r\n"
DVS128 = DAVIS.replace(b"davis.Davis346red", b"retina.DVS128")
IMAGE, MOTION, TRIGGER = (struct.pack(">II", address, 5) for address in (1 << 31 | 77, 1 << 31 | 3 << 10, 1 << 10 | 2))
EVENTS = [(1, 0, 0, 1), (5, 345, 259, 0), (5, 1023, 511, 1), (2**32 - 1, 7, 3, 0)]


@pytest.mark.parametrize("header", [DAVIS, AEDAT2_HEADER, DAVIS.replace(b"davis.Davis346red", b"sbret10.SBret10")])
def test_decode_davis_events_are_those_of_the_bits_without_other_words(header: bytes) -> None:
    data = encode_davis(*EVENTS, header=header, words=IMAGE * 5 + MOTION + TRIGGER)
    found = decode_any(data, where="f", invalid="drop")
    assert found.events.tolist() == EVENTS
    assert (found.dropped, found.remarks) == (0, (Remark("images", 6), Remark("triggers", 1)))
    assert variants_of(data) == ["AEDAT 2.0 of a DAVIS"]


def test_decode_davis_equals_another_reader_which_mirrors_both_axes(tmp_path: Path) -> None:
    from tonic.io import read_davis_346

    rng = np.random.default_rng(2)
    columns = (np.sort(rng.integers(0, 2**32, 500)), rng.integers(0, 346, 500), rng.integers(0, 260, 500))
    data = encode_davis(
        *zip(*(c.tolist() for c in columns), rng.integers(0, 2, 500).tolist(), strict=True), header=DAVIS
    )
    path = tmp_path / "a.aedat"
    path.write_bytes(data)
    _, _, theirs = read_davis_346(str(path))
    ours = decode_any(data, where="f", invalid="drop").events
    np.testing.assert_array_equal(ours["t"], theirs["t"])
    np.testing.assert_array_equal(ours["x"], 345 - theirs["x"])
    np.testing.assert_array_equal(ours["y"], 259 - theirs["y"])
    np.testing.assert_array_equal(ours["p"], theirs["p"])


def test_decode_davis_clock_past_its_bits_is_continued() -> None:
    data = encode_davis((2**32 - 5, 300, 200, 1), (3, 300, 200, 1), (2, 300, 200, 0))
    found = decode_any(data, where="f", invalid="drop")
    assert found.events["t"].tolist() == [2**32 - 5, 2**32 + 2, 2**32 + 3]
    assert found.remarks == (Remark("overflow", 1), Remark("backward", 1, 1))


@pytest.mark.parametrize("words", [b"", IMAGE * 3])
def test_decode_davis_without_events_is_empty(words: bytes) -> None:
    assert len(decode_any(DAVIS + words, where="f", invalid="drop").events) == 0


@pytest.mark.parametrize(
    "data",
    [
        words(*range(0, 2**15, 7)),
        words(*range(10), 1 << 31, 1 << 31, *[1 << 15] * 10),
        words(*range(10), *[1 << 20] * 10),  # half of the words is no more than half
        words(1 << 20 | 1, 1 << 20, 1 << 20),  # bits that no event of a DAVIS has
        words(1 << 31 | 1 << 20, 1 << 31 | 1 << 20),
        DVS128 + encode_davis(*EVENTS, header=b""),
        AEDAT2_HEADER,
    ],
)
def test_is_davis_of_other_files_is_false(data: bytes) -> None:
    assert not is_davis(data)


@pytest.mark.parametrize(
    ("line_end", "x", "y"),  # the bytes of 163, 140 begin with #, line feed: an empty comment where lines end so
    [
        (b"\r\n", 5, 140),
        (b"\r\n", 163, 140),
        (b"\r\n", 208, 140),
        (b"\n", 5, 140),
        (b"\n", 208, 140),
        (b"\n", 345, 143),
    ],
)
def test_decode_davis_first_event_that_begins_like_a_header_line(line_end: bytes, x: int, y: int) -> None:
    header = b"#!AER-DAT2.0\n# AEChip: DAVIS240C\n#\n#End Of ASCII Header\n".replace(b"\n", line_end)
    event = (9, x, y, 1)
    for count in (1, 700):  # a line feed follows somewhere
        found = decode_any(encode_davis(*[event] * count, header=header), where="f", invalid="drop")
        assert found.events.tolist() == [event] * count
