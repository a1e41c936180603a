"""The corners of the older formats: several packets, overflows, special words, nothing at all, bytes too many."""

import struct

import numpy as np
import pytest

from plifctl.data.formats.aedat2 import decode_aedat2
from plifctl.data.formats.aedat3 import decode_aedat3
from plifctl.data.formats.atis import decode_atis
from plifctl.data.formats.idx import decode_idx
from plifctl.errors import DamagedFileError

HEAD3 = b"#!AER-DAT3.1\r\n#!END-HEADER\r\n"
HEAD2 = b"#!AER-DAT2.0\r\n"


def packet(*words: tuple[int, int], kind: int = 1, overflow: int = 0, spare: bytes = b"") -> bytes:
    n = len(words)
    head = struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, n + len(spare) // 8, n, n)
    return head + b"".join(struct.pack("<II", *word) for word in words) + spare


def word(x: int, p: int = 1, valid: int = 1) -> int:
    return x << 17 | p << 1 | valid


class TestAedat3:
    def xs(self, data: bytes, **choice: str) -> list[int]:
        return decode_aedat3(HEAD3 + data, where="f", **choice).events["x"].tolist()  # type: ignore[arg-type]

    def test_times_run_backwards_within_and_across_packets(self) -> None:
        assert self.xs(packet((word(1), 9), (word(2), 5)) + packet((word(3), 7), (word(4), 5))) == [2, 4, 3, 1]

    def test_equal_times_keep_their_order_across_packets(self) -> None:
        assert self.xs(b"".join(packet((word(k), 5)) for k in range(20))) == list(range(20))

    def test_the_overflow_is_each_packet_s_own(self) -> None:
        data = packet((word(1), 2**31 - 1)) + packet((word(2), 0), overflow=1) + packet((word(3), 3), overflow=2)
        found = decode_aedat3(HEAD3 + data, where="f").events
        assert found["t"].tolist() == [2**31 - 1, 2**31, 2**32 + 3]

    def test_special_packets_hide_no_events_whatever_their_size(self) -> None:
        special = struct.pack("<hhiiiiii", 0, 1, 4, 0, 0, 3, 3, 3) + bytes(12)
        frame = struct.pack("<hhiiiiii", 2, 1, 36, 12, 0, 1, 1, 1) + bytes(36)
        assert self.xs(packet((word(1), 1)) + special + frame + packet((word(2), 2)) + special) == [1, 2]

    def test_nothing_but_special_packets_or_empty_ones(self) -> None:
        assert self.xs(packet((1, 1), kind=0)) == []
        assert self.xs(packet() + packet()) == []

    def test_room_that_a_packet_does_not_use_holds_no_events(self) -> None:
        assert self.xs(packet((word(1), 1), spare=struct.pack("<II", word(9), 9) * 3) + packet((word(2), 2))) == [1, 2]

    @pytest.mark.parametrize("count", [1, 27])
    def test_trailing_bytes(self, count: int) -> None:
        with pytest.raises(DamagedFileError, match=f"{count} bytes left"):
            self.xs(packet((word(1), 1)) + bytes(count))

    def test_invalid_events_in_one_of_several_packets(self) -> None:
        data = packet((word(1, valid=0), 1)) + packet((word(2), 2), (word(3, valid=0), 3))
        assert self.xs(data) == [2]
        assert self.xs(data, invalid="keep") == [1, 2, 3]


class TestAedat2:
    def decoded(self, *pairs: tuple[int, int]) -> tuple[list[tuple[int, int]], int]:
        data = HEAD2 + b"".join(struct.pack(">II", *pair) for pair in pairs)
        found = decode_aedat2(data, where="f", axes="authors")
        return list(zip(found.events["t"].tolist(), (127 - found.events["x"]).tolist(), strict=True)), found.dropped

    def test_times_run_backwards_and_repeat(self) -> None:
        assert self.decoded((1 << 1, 9), (2 << 1, 3), (3 << 1, 9), (4 << 1, 3)) == ([(3, 2), (3, 4), (9, 1), (9, 3)], 0)

    def test_times_have_32_bits(self) -> None:
        assert self.decoded((0, 2**31), (0, 2**32 - 1))[0] == [(2**31, 0), (2**32 - 1, 0)]

    def test_nothing_but_special_words(self) -> None:
        assert self.decoded((1 << 31, 1), (0xFFFFFFFF, 2)) == ([], 2)

    @pytest.mark.parametrize("count", range(1, 8))
    def test_trailing_bytes(self, count: int) -> None:
        with pytest.raises(DamagedFileError, match=f"{count} bytes left"):
            decode_aedat2(HEAD2 + bytes(16 + count), where="f", axes="authors")


class TestAtis:
    def decoded(self, *rows: tuple[int, int, int, int, int]) -> list[tuple[int, int]]:
        found = decode_atis(b"".join(map(bytes, rows)), where="f")
        assert found.dropped == 0
        return list(zip(found.events["t"].tolist(), found.events["x"].tolist(), strict=True))

    def test_overflows_add_up(self) -> None:
        mark = (0, 240, 0, 0, 0)
        assert self.decoded((1, 0, 0, 0, 9), mark, (2, 0, 0, 0, 9), mark, mark, (3, 0, 0, 0, 9)) == [
            (9, 1),
            (8192 + 9, 2),
            (3 * 8192 + 9, 3),
        ]

    def test_nothing_but_overflows(self) -> None:
        assert self.decoded((0, 240, 0, 0, 0), (5, 240, 0x80, 1, 1)) == []

    def test_times_run_backwards_and_repeat(self) -> None:
        assert self.decoded((1, 0, 0, 0, 9), (2, 0, 0, 0, 3), (3, 0, 0, 0, 9)) == [(3, 2), (9, 1), (9, 3)]

    def test_the_largest_time(self) -> None:
        assert self.decoded((1, 0, 0x7F, 255, 255)) == [(2**23 - 1, 1)]

    @pytest.mark.parametrize("count", range(1, 5))
    def test_trailing_bytes(self, count: int) -> None:
        with pytest.raises(DamagedFileError, match=f"byte 10: {count} bytes left"):
            decode_atis(bytes(10 + count), where="f")


class TestIdx:
    @pytest.mark.parametrize("count", [1, 6])
    def test_trailing_bytes(self, count: int) -> None:
        with pytest.raises(DamagedFileError, match=f"{18 + count} bytes, expected 18"):
            decode_idx(struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(6 + count), where="f")

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
    def test_no_values(self, shape: tuple[int, int]) -> None:
        with pytest.raises(DamagedFileError, match="at least one value"):
            decode_idx(struct.pack(">HBBII", 0, 8, 2, *shape), where="f")

    def test_a_shape_that_overflows(self) -> None:
        with pytest.raises(DamagedFileError):
            decode_idx(struct.pack(">HBBIII", 0, 8, 3, *(2**32 - 1,) * 3), where="f")

    @pytest.mark.parametrize("dimensions", [0, 4, 255])
    def test_dimensions(self, dimensions: int) -> None:
        with pytest.raises(DamagedFileError, match="byte 3"):
            decode_idx(bytes((0, 0, 8, dimensions)) + np.ones(300, ">u4").tobytes(), where="f")
