"""AEDAT 4, Prophesee's .dat and the arrays of other libraries, against independent readers and damaged files."""

import io
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from factories import AEDAT4_PACKINGS, encode_aedat4, random_events

from plifctl.data.events import EVENT, Decoded
from plifctl.data.formats.aedat3 import encode_aedat3
from plifctl.data.formats.aedat4 import decode_aedat4
from plifctl.data.formats.arrays import decode_npy, decode_npz
from plifctl.data.formats.dat import decode_dat
from plifctl.data.formats.detect import decode_any
from plifctl.errors import DamagedFileError, PlifctlError

RNG = np.random.default_rng(0)
NOTHING = np.empty(0, EVENT)


def as_aedat_reads(data: bytes) -> np.ndarray:
    """The events of the first stream, by the library that tonic uses (tonic.io.read_aedat4 in 1.7.0)."""
    import aedat

    with tempfile.NamedTemporaryFile(suffix=".aedat4") as file:
        file.write(data)
        file.flush()
        decoder = aedat.Decoder(file.name)
        first = min(stream for stream, what in decoder.id_to_stream().items() if what["type"] == "events")
        found = [packet["events"] for packet in decoder if packet["stream_id"] == first]
    events = np.empty(sum(map(len, found)), EVENT)
    joined = np.concatenate(found) if found else events
    for ours, theirs in zip("txyp", joined.dtype.names, strict=True):
        events[ours] = joined[theirs]
    return events


class TestAedat4:
    @pytest.mark.parametrize("packing", AEDAT4_PACKINGS)
    @pytest.mark.parametrize("table", [True, False])
    def test_several_packets_as_another_reader_has_them(self, packing: str, table: bool) -> None:
        events = random_events(RNG, 5000, start=1_605_537_493_718_345)
        parts = [(0, "EVTS", part) for part in np.split(events, [0, 7, 3000])]
        data = encode_aedat4(*parts, packing=packing, table=table)
        found = decode_aedat4(data, where="f")
        assert found.events.tolist() == events.tolist()
        assert found.dropped == 0
        assert as_aedat_reads(data).tolist() == found.events.tolist()

    def test_the_first_stream_of_events_is_read_and_other_kinds_are_passed_over(self) -> None:
        first, second = random_events(RNG, 10), random_events(RNG, 20)
        data = encode_aedat4((3, "EVTS", second), (0, "TRIG", NOTHING), (2, "EVTS", first), (3, "EVTS", second))
        assert decode_aedat4(data, where="f").events.tolist() == first.tolist()

    @pytest.mark.parametrize("packets", [[], [(0, "EVTS", NOTHING)]])
    def test_a_recording_without_events(self, packets: list[tuple[int, str, np.ndarray]]) -> None:
        assert len(decode_aedat4(encode_aedat4(*packets, streams={0: "EVTS"}), where="f").events) == 0

    def test_a_file_without_a_stream_of_events(self) -> None:
        with pytest.raises(DamagedFileError, match="no stream of events"):
            decode_aedat4(encode_aedat4((0, "TRIG", NOTHING)), where="f")

    def test_times_that_run_backwards_are_sorted_and_equal_ones_keep_their_order(self) -> None:
        events = np.array([(5, 1, 0, 0), (3, 2, 0, 1), (5, 3, 0, 0), (3, 4, 0, 1), (2**62, 5, 0, 1)], EVENT)
        found = decode_aedat4(encode_aedat4((0, "EVTS", events[:2]), (0, "EVTS", events[2:])), where="f")
        assert found.events["x"].tolist() == [2, 4, 1, 3, 5]

    @pytest.mark.parametrize("event", [(-1, 0, 0, 0), (1, 0, 0, 2)])
    def test_what_no_event_can_be(self, event: tuple[int, int, int, int]) -> None:
        with pytest.raises(DamagedFileError, match="event 1 of 2"):
            decode_aedat4(encode_aedat4((0, "EVTS", np.array([(0, 0, 0, 0), event], EVENT))), where="f")

    @pytest.mark.parametrize("packing", AEDAT4_PACKINGS[:4])
    def test_every_cut_is_noticed(self, packing: str) -> None:
        data = encode_aedat4((0, "EVTS", random_events(RNG, 30)), (0, "EVTS", random_events(RNG, 30)), packing=packing)
        ends = range(len(data)) if packing != "none" else range(len(data) - len(b"the table") + 1)
        for end in ends:
            with pytest.raises(DamagedFileError):
                decode_aedat4(data[:end], where="f")

    def test_without_a_table_every_cut_but_between_packets_is_noticed(self) -> None:
        events = random_events(RNG, 30)
        data = encode_aedat4((0, "EVTS", events), (0, "EVTS", events), table=False)
        start = len(encode_aedat4(table=False, streams={0: "EVTS"}))
        between = start + (len(data) - start) // 2
        for end in set(range(len(data))) - {start, between}:
            with pytest.raises(DamagedFileError):
                decode_aedat4(data[:end], where="f")
        assert len(decode_aedat4(data[:between], where="f").events) == 30

    @pytest.mark.parametrize("packing", AEDAT4_PACKINGS[1:4])
    def test_trailing_bytes(self, packing: str) -> None:
        data = encode_aedat4((0, "EVTS", random_events(RNG, 30)), packing=packing)
        with pytest.raises(DamagedFileError, match="bytes follow"):
            decode_aedat4(data + b"abc", where="f")

    @pytest.mark.parametrize("packing", ["lz4", "zstd"])
    def test_a_bomb_is_refused_before_it_fills_the_memory(self, packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from plifctl.data.formats import aedat4

        data = encode_aedat4((0, "EVTS", np.zeros(10**6, EVENT)), packing=packing)
        assert len(data) < 10**6
        monkeypatch.setattr(aedat4, "_MAX_UNPACKED_BYTES", 10**6)
        with pytest.raises(DamagedFileError, match="more than 1000000 bytes"):
            decode_aedat4(data, where="f")

    @pytest.mark.real
    def test_a_real_file_as_another_reader_has_it(self, shared: Path) -> None:
        data = (shared / "data/samples/sample.aedat4").read_bytes()
        found = decode_aedat4(data, where="f").events
        assert len(found) == 111_954
        assert as_aedat_reads(data).tolist() == found.tolist()
        for end in (len(data) // 2, len(data) - 4010, len(data) - 10):
            with pytest.raises(DamagedFileError):
                decode_aedat4(data[:end], where="f")


def dat(*events: tuple[int, int, int, int], kind: int = 0, head: bytes = b"% Data file\n% Version 2\n") -> bytes:
    body = b"".join(struct.pack("<II", t, p << 28 | y << 14 | x) for t, x, y, p in events)
    return head + bytes((kind, 8)) + body


class TestDat:
    @pytest.mark.parametrize("kind", [0, 12])
    def test_bits_and_order(self, kind: int) -> None:
        data = dat((20, 3, 5, 1), (10, 16383, 0, 0), (20, 0, 16383, 1), kind=kind)
        found = decode_dat(data, where="f")
        assert found.events.tolist() == [(10, 16383, 0, 0), (20, 3, 5, 1), (20, 0, 16383, 1)]
        assert found.dropped == 0

    def test_the_clock_overflows(self) -> None:
        found = decode_dat(dat((2**32 - 2, 0, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0), (9, 3, 0, 0)), where="f").events
        assert found["t"].tolist() == [2**32 - 2, 2**32, 2**32 + 1, 2**32 + 9]
        assert found["x"].tolist() == [0, 2, 1, 3]

    def test_a_recording_without_events(self) -> None:
        assert len(decode_dat(dat(), where="f").events) == 0

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "byte 0: an empty file"),
            (b"% Date", "a header line without a line feed"),
            (b"% Date\n\0", "type and size of the events are missing"),
            (dat((1, 1, 1, 1)) + b"123", "3 bytes left"),
            (dat((1, 1, 1, 1), kind=14), "type 0x0e"),
            (dat((1, 1, 1, 0), (1, 1, 1, 2)), "event 1 has polarity 2"),
            (b"#!AER-DAT2.0\n", "format AEDAT 2.0"),
        ],
    )
    def test_damage_is_named_with_its_place(self, data: bytes, message: str) -> None:
        with pytest.raises(DamagedFileError, match=message):
            decode_dat(data, where="f")

    @pytest.mark.real
    def test_a_real_file_as_another_reader_has_it(self, shared: Path) -> None:
        from expelliarmus import Wizard

        path = shared / "data/samples/sample_ncars.dat"
        theirs, ours = Wizard(encoding="dat").read(str(path)), decode_dat(path.read_bytes(), where="f").events
        assert len(ours) == 2009
        for field in "txyp":
            np.testing.assert_array_equal(ours[field], theirs[field])


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archived(*, packed: bool = False, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return file.getvalue()


class TestNpy:
    ROWS = ((3, 4, 1, 20), (1, 2, 0, 10), (5, 6, 1, 20))

    @pytest.mark.parametrize("dtype", ["i8", "u2", ">i4", "f4", "f8"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_columns_and_milliseconds(self, dtype: str, order: str) -> None:
        found = decode_npy(saved(np.array(self.ROWS, dtype, order=order)), where="f").events
        assert found.tolist() == [(10_000, 1, 2, 0), (20_000, 3, 4, 1), (20_000, 5, 6, 1)]

    def test_parts_of_a_millisecond_are_kept(self) -> None:
        found = decode_npy(saved(np.array([(0, 0, 0, 1.5), (0, 0, 0, 2.0004)])), where="f")
        assert found.events["t"].tolist() == [1500, 2000]

    def test_large_integers_are_exact(self) -> None:
        assert decode_npy(saved(np.array([(0, 0, 0, 2**52 + 1)])), where="f").events["t"][0] == (2**52 + 1) * 1000

    def test_a_recording_without_events(self) -> None:
        assert len(decode_npy(saved(np.empty((0, 4))), where="f").events) == 0

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "an empty file"),
            (saved(np.zeros((3, 4)))[:-1], "expected 224"),
            (saved(np.zeros((3, 4))) + b"x", "expected 224"),
            (saved(np.zeros((3, 5))), r"shape \[3, 5\]"),
            (saved(np.zeros(3)), r"shape \[3\]"),
            (saved(np.zeros((1, 4), "U1")), "expected numbers"),
            (saved(np.zeros((1, 4), "c16")), "expected numbers"),
            (saved(np.array([(0, 0, 2, 0)])), "p is 2"),
            (saved(np.array([(-1, 0, 0, 0)])), "x is -1"),
            (saved(np.array([(0, 0.5, 0, 0)])), "y is 0.5"),
            (saved(np.array([(0, 0, 0, np.nan)])), "t is nan"),
            (saved(np.array([(0, 0, 0, np.inf)])), "t is inf"),
            (saved(np.array([(0, 0, 0, 2**63 - 1)])), "t is 9.2"),
            (saved(np.array([(0, 0, 0, -1)])), "t is -1000"),
            (saved(np.array([[None] * 4], object)), "an array of object"),
        ],
    )
    def test_damage(self, data: bytes, message: str) -> None:
        with pytest.raises(DamagedFileError, match=message):
            decode_npy(data, where="f")

    def test_a_header_reserves_no_memory(self) -> None:
        data = saved(np.zeros((10, 4))).replace(b"(10, 4), ", b"(10**18,)")
        huge = saved(np.zeros((1, 4))).replace(b"(1, 4), }    ", b"(10000000000, 4), }"[:13])
        for bad in (data, huge):
            with pytest.raises(DamagedFileError):
                decode_npy(bad, where="f")


class TestNpz:
    COLUMNS = (("t", [9, 3, 9]), ("x", [1, 2, 3]), ("y", [4, 5, 6]), ("p", [1, 0, 1]))

    @pytest.mark.parametrize("packed", [False, True])
    def test_columns(self, packed: bool) -> None:
        arrays = {name: np.array(values, {"t": ">u4", "p": bool}.get(name, "i8")) for name, values in self.COLUMNS}
        found = decode_npz(archived(packed=packed, **arrays, more=np.zeros(2)), where="f")
        assert found.events.tolist() == [(3, 2, 5, 0), (9, 1, 4, 1), (9, 3, 6, 1)]
        assert found.dropped == 0

    def test_a_recording_without_events(self) -> None:
        assert len(decode_npz(archived(**{name: np.empty(0) for name in "txyp"}), where="f").events) == 0

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"PK\x03\x04", "expected an intact archive"),
            (archived(frames=np.zeros(3)), "contains frames, expected arrays named t, x, y, p"),
            (archived(t=np.zeros(3), x=np.zeros(3), y=np.zeros(3), p=np.zeros(2)), r"p \[2\]"),
            (archived(**{name: np.zeros((3, 1)) for name in "txyp"}), "four of one length"),
            (archived(t=np.zeros(1), x=np.array([40_000]), y=np.zeros(1), p=np.zeros(1)), "x is 40000"),
            (archived(t=np.array([2**64 - 1], "u8"), x=np.zeros(1), y=np.zeros(1), p=np.zeros(1)), "t is 1844"),
            (archived(**{name: np.array([{}], object) for name in "txyp"}), "an array of object"),
        ],
    )
    def test_damage(self, data: bytes, message: str) -> None:
        with pytest.raises(DamagedFileError, match=message):
            decode_npz(data, where="f")

    def test_a_bomb_is_refused(self) -> None:
        data = bytearray(archived(packed=True, **{name: np.zeros(10) for name in "txyp"}))
        at = data.index(b"PK\x01\x02")  # the archive's own list, which is what is believed
        data[at + 24 : at + 28] = struct.pack("<I", 2**31)
        with pytest.raises(DamagedFileError, match=r"refused, .* bytes are declared to unpack to 2147483648"):
            decode_npz(bytes(data), where="f")


ANY = partial(decode_any, where="f", axes="authors", invalid="drop")
MATRIX = np.array(TestNpy.ROWS)


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (encode_aedat4((0, "EVTS", np.array([(7, 1, 2, 1)], EVENT))), (7, 1, 2, 1)),
        (encode_aedat3(np.array([(7, 1, 2, 1)], EVENT)), (7, 1, 2, 1)),
        (b"#!AER-DAT2.0\r\n" + struct.pack(">II", 2 << 8 | 126 << 1, 7), (7, 1, 2, 1)),
        (dat((7, 1, 2, 1)), (7, 1, 2, 1)),
        (saved(np.array([(1, 2, 1, 7)])), (7000, 1, 2, 1)),
        (archived(t=np.array([7]), x=np.array([1]), y=np.array([2]), p=np.array([1])), (7, 1, 2, 1)),
        (bytes((1, 2, 0x80, 0, 7)), (7, 1, 2, 1)),
    ],
)
def test_the_header_decides(data: bytes, events: tuple[int, int, int, int]) -> None:
    assert ANY(data).events.tolist() == [events]


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b\x08\x00\x00", b"\x89HDF\r", b"#!AER-DAT1.0\r\n"])
def test_what_nothing_reads(data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        ANY(data)


EVENTS = random_events(np.random.default_rng(1), 40)
COLUMNS = {name: EVENTS[name] for name in "txyp"}


@pytest.mark.parametrize(
    ("whole", "decode"),
    [
        *((encode_aedat4((0, "EVTS", EVENTS), (1, "TRIG", EVENTS), packing=p), decode_aedat4) for p in AEDAT4_PACKINGS),
        (encode_aedat4((0, "EVTS", EVENTS), (0, "EVTS", EVENTS), packing="lz4", table=False), decode_aedat4),
        (dat(*EVENTS.tolist()), decode_dat),
        (saved(MATRIX), decode_npy),
        (saved(MATRIX.astype("f8")), decode_npy),
        (archived(**COLUMNS), decode_npz),
        (archived(packed=True, **COLUMNS), decode_npz),
    ],
    ids=[*AEDAT4_PACKINGS, "no-table", "dat", "npy", "npy-float", "npz", "npz-packed"],
)
def test_mutated_files_raise_only_our_errors(whole: bytes, decode: Callable[..., Decoded]) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(600):
        data = bytearray(whole)
        for place in rng.integers(0, len(data) if rng.random() < 0.5 else min(100, len(data)), rng.integers(1, 4)):
            data[place] = int(rng.integers(256)) if rng.random() < 0.5 else data[place] ^ 1 << int(rng.integers(8))
        end = len(data) if rng.random() < 0.7 else int(rng.integers(len(data)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zipfile of duplicate names, numpy of old headers
                found = decode(bytes(data[:end]), where="f")
        except PlifctlError:
            refused += 1
            continue
        assert (np.diff(found.events["t"]) >= 0).all()
        assert ((found.events["p"] == 0) | (found.events["p"] == 1)).all()
    assert refused > 100


def test_memory_of_a_mutated_length_is_bounded() -> None:
    """A frame that declares gigabytes reserves nothing on its word."""
    import tracemalloc

    frame = bytearray(lz4.frame.compress(bytes(1000), store_size=True))
    frame[6:14] = struct.pack("<Q", 2**40)
    start = encode_aedat4(table=False, streams={0: "EVTS"})
    tracemalloc.start()
    with pytest.raises(DamagedFileError):
        decode_aedat4(start + struct.pack("<iI", 0, len(frame)) + frame, where="f")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_zip_within_an_archive_of_arrays_in_an_unbounded_packing_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for name, column in COLUMNS.items():
            archive.writestr(f"{name}.npy", saved(column))
    with pytest.raises(DamagedFileError, match="compressed by method 14"):
        decode_npz(file.getvalue(), where="f")
