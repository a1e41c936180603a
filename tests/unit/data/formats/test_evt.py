"""The decoder of Prophesee's EVT formats, against files written by hand, a plain definition and independent readers."""

from pathlib import Path

import numpy as np
import pytest
from raw_files import AEDAT3_HEADER, encode_evt, evt2_word

from plifctl.data.events import EVENT, Decoded, Events
from plifctl.data.formats import evt_loops as loops
from plifctl.data.formats.evt import decode_evt
from plifctl.data.remarks import Remark
from plifctl.errors import DamagedFileError

HEADERS = {version: f"% evt {version}\n% end\n".encode() for version in ("2.0", "2.1", "3.0")}
WORD = {"2.0": "<u4", "2.1": "<u8", "3.0": "<u2"}
HIGH, TRIGGER = 8, 10


def file(version: str, words: object, header: bytes = b"") -> bytes:
    return (header or HEADERS[version]) + np.array(words, WORD[version]).tobytes()


def decoded(version: str, words: object, header: bytes = b"") -> Decoded:
    return decode_evt(file(version, words, header), where="f")


def continue_clock(raw: int, before: int, turns: int, bits: int) -> int:
    """How often a clock has overflowed after a step from one high part of the time, in µs, to another."""
    step = raw - before
    if step < -(2 ** (bits - 1)):
        return turns + 1
    return turns - 1 if step > 2**bits - 100_000 and turns > 0 else turns


def define_evt2(words: list[int], bits: int) -> tuple[list[tuple[int, ...]], dict[str, int]]:
    """The events of EVT 2.0 or 2.1 in the order of the file, and counts, word by word."""
    events, counts = [], {"overflow": 0, "incomplete": 0, "triggers": 0, "unknown": 0}
    high = turns = None
    for word in words:
        pixels, head = (1, word) if bits == 32 else (word % 2**32, word >> 32)
        kind = head >> 28
        if kind in (0, 1):
            for k in range(32):
                if pixels >> k & 1 and high is None:
                    counts["incomplete"] += 1
                elif pixels >> k & 1:
                    t = (turns << 34) + high + (head >> 22 & 63)
                    events.append((t, (head >> 11 & 2047) + k, head & 2047, kind))
        elif kind == HIGH:
            raw = (head & 0xFFFFFFF) << 6
            turns = 0 if high is None else continue_clock(raw, high, turns, 34)
            high = raw
            counts["overflow"] = max(counts["overflow"], turns)
        elif kind == TRIGGER:
            counts["triggers"] += 1
        elif kind not in (14, 15):
            counts["unknown"] += 1
    return events, counts


def define_evt3(words: list[int]) -> tuple[list[tuple[int, ...]], dict[str, int]]:
    """The events of EVT 3.0 in the order of the file, and counts, word by word."""
    events, counts = [], {"overflow": 0, "incomplete": 0, "triggers": 0, "unknown": 0}
    high = low = y = x = p = None
    turns = 0
    for word in words:
        kind, value = word >> 12, word & 0xFFF
        found = []
        if kind == 0:
            y = value & 2047
        elif kind == 2:
            found = [(value & 2047, value >> 11)]
        elif kind == 3:
            x, p = value & 2047, value >> 11
        elif kind in (4, 5):
            width = {4: 12, 5: 8}[kind]
            found = [(None if x is None else x + k, p) for k in range(width) if value >> k & 1]
            x = None if x is None else min(x + width, 4096)
        elif kind == 6:
            low = value
        elif kind == HIGH and high != value << 12:
            turns = 0 if high is None else continue_clock(value << 12, high, turns, 24)
            high, low = value << 12, 0
            counts["overflow"] = max(counts["overflow"], turns)
        elif kind == TRIGGER:
            counts["triggers"] += 1
        elif kind not in (7, HIGH, 14, 15):
            counts["unknown"] += 1
        for column, polarity in found:
            if high is None or y is None or column is None:
                counts["incomplete"] += 1
            else:
                events.append(((turns << 24) + high + low, column, y, polarity))
    return events, counts


def random_words(version: str, n: int, seed: int) -> list[int]:
    """Words of all types, few of them unknown, whose clock overflows, steps back a little, and is repeated."""
    rng = np.random.default_rng(seed)
    usual, step, bits = ((0, 2, 3, 4, 5, 6, HIGH), 60, 12) if version == "3.0" else ((0, 1, HIGH), 2**22, 28)
    vendor, unknown = ((7, 14, 15), 1) if version == "3.0" else ((14, 15), 5)
    kinds = rng.choice([*usual * 4, TRIGGER, *vendor, *[unknown] * (n > 100)], n)
    highs = (
        rng.integers(2**bits) + np.cumsum(rng.integers(-4, step, n) * rng.integers(0, 2, n) * (kinds == HIGH))
    ) % 2**bits
    if version == "3.0":
        values = np.where(kinds == HIGH, highs, rng.integers(0, 2**12, n))
        return (kinds << 12 | values).tolist()
    heads = kinds << 28 | np.where(kinds == HIGH, highs, rng.integers(0, 2**28, n))
    if version == "2.0":
        return heads.tolist()
    pixels = rng.integers(0, 2**32, n) & rng.integers(0, 2**32, n) * rng.integers(0, 2, n)
    return [head << 32 | int(some) for head, some in zip(heads.tolist(), pixels, strict=True)]


@pytest.mark.parametrize("version", WORD)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 8, 61, 1000, 4099])
def test_decode_evt_random_words_equal_the_definition(version: str, n: int) -> None:
    words = random_words(version, n, n)
    events, counts = define_evt3(words) if version == "3.0" else define_evt2(words, 32 if version == "2.0" else 64)
    found = decoded(version, words)
    assert found.events.tolist() == sorted(events, key=lambda event: event[0])
    remarks = {remark.kind: remark.occurrences for remark in found.remarks}
    remarks.pop("backward", 0)
    assert remarks | {"incomplete": found.dropped} == {k: v for k, v in counts.items() if v or k == "incomplete"}
    if n > 1000:
        assert len(events) > 500
        assert min(counts["overflow"], counts["triggers"], counts["unknown"]) > 0


@pytest.mark.parametrize("version", WORD)
def test_loops_write_into_the_room_that_they_ask_for(version: str) -> None:
    words = np.array([*random_words(version, 4099, 1), *[6 << 12] * 9], WORD[version])
    halves = words.view("<u4") if version == "2.1" else words
    room, decode, head = {
        "2.0": (len(words), loops.decode_evt2, ()),
        "2.1": (loops.count_evt21(halves, 1), loops.decode_evt21, (1,)),
        "3.0": (loops.count_evt3(words) + 1, loops.decode_evt3, ()),
    }[version]
    columns = Events(*(np.full(room + 64, 77, column.dtype) for column in Events.empty(0).columns))
    _, end, _ = decode(halves, *head, 100_000, *columns.columns)
    assert end <= room
    assert all((column[room:] == 77).all() for column in columns.columns)


def clustered_events(n: int = 3000) -> np.ndarray:
    """Events that share times and rows, as those of a moving edge do; one time has neighbours of both polarities."""
    rng = np.random.default_rng(5)
    events = np.empty(n, EVENT)
    events["t"], events["y"] = (
        np.sort(rng.integers(0, 2**24 - 1, n // 6)).repeat(6),
        rng.integers(0, 720, n // 3).repeat(3),
    )
    events["x"], events["p"] = rng.integers(0, 1280, n), rng.integers(0, 2, n // 2).repeat(2)
    return events


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_decode_evt_file_of_another_writer_equals_other_readers(version: str, tmp_path: Path) -> None:
    faery = pytest.importorskip("faery")
    events, path = clustered_events(), tmp_path / "a.raw"
    array = np.empty(len(events), faery.EVENTS_DTYPE)
    for name, theirs in zip("txyp", ("t", "x", "y", "on"), strict=True):
        array[theirs] = events[name]
    written = "evt2" if version == "2.0" else "evt3"
    faery.events_stream_from_array(array, dimensions=(1280, 720)).to_file(path, version=written, zero_t0=False)
    found = decode_evt(path.read_bytes(), where="f")
    assert found.events.tolist() == events.tolist()
    assert (found.dropped, found.remarks) == (0, ())


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_decode_evt_equals_faery(version: str, tmp_path: Path) -> None:
    faery = pytest.importorskip("faery")
    path = tmp_path / "a.raw"
    path.write_bytes(recording(version))
    theirs = faery.events_stream_from_file(path).to_array()
    ours = decode_evt(path.read_bytes(), where="f").events
    assert len(ours) > 1000
    for name, other in zip("txyp", ("t", "x", "y", "on"), strict=True):
        np.testing.assert_array_equal(ours[name], theirs[other])


def test_decode_evt3_with_vectors_equals_evt3(tmp_path: Path) -> None:
    evt3 = pytest.importorskip("evt3")
    path = tmp_path / "a.raw"
    path.write_bytes(recording("3.0"))
    theirs, ours = evt3.decode_file(str(path)), decode_evt(path.read_bytes(), where="f").events
    assert len(ours) > 1000
    for name, other in zip("txyp", ("timestamp", "x", "y", "polarity"), strict=True):
        np.testing.assert_array_equal(ours[name], getattr(theirs, other))


def recording(version: str) -> bytes:
    """A recording as a camera sends it: times ascend, words of all its types; in EVT 3.0 vectors of all widths."""
    rng = np.random.default_rng(7)
    words: list[int] = []
    for high in range(2, 100):
        words += [HIGH << 12 | high] * 2 if version == "3.0" else [HIGH << 28 | high]
        for low in np.sort(rng.integers(0, 64, 30)).tolist():
            if version == "2.0":
                x, y, p = (int(rng.integers(top)) for top in (1280, 720, 2))
                words += [evt2_word(low, x, y, p)]
            else:
                x, y, p, some = (int(rng.integers(top)) for top in (1240, 720, 2, 2**12))
                vectors = [4 << 12 | some, 4 << 12 | some >> 3, 5 << 12 | some >> 4]
                words += [6 << 12 | low, y, 3 << 12 | p << 11 | x, *vectors, 2 << 12 | (1 - p) << 11 | x]
        words += (
            [TRIGGER << 12 | 1, 14 << 12, 15 << 12] if version == "3.0" else [TRIGGER << 28 | 1, 14 << 28, 15 << 28]
        )
    return file(version, words, f"% evt {version}\n% geometry 1280x720\n".encode())


@pytest.mark.parametrize("version", WORD)
@pytest.mark.parametrize("end", [b"", b"% geometry 1280x720\n", b"% end\n"])
def test_decode_evt_of_no_and_of_one_event(version: str, end: bytes) -> None:
    header = f"% date 2023-04-03 11:36:26\n% evt {version}\n".encode() + end
    events = np.array([(70_000, 1279, 719, 1)], EVENT)
    for some in (events[:0], events):
        found = decode_evt(encode_evt(some, version, header=header), where="f")
        assert found == Decoded(found.events, 0, ())
        assert found.events.tolist() == some.tolist()


@pytest.mark.parametrize(
    ("header", "version"),
    [
        (b"% Date 2020-09-25 07:48:31\n% integrator_name Prophesee\n% evt 2.0\n", "2.0"),
        (b"% evt 2.0\r\n% format EVT2;height=720;width=1280\r\n% end\r\n", "2.0"),
        (b"% format EVT2.1;width=1280;height=720\n", "2.1"),
        (b"% format EVT21;endianness=little;height=320;width=320\n% end\n", "2.1"),
        (b"% camera_integrator_name Prophesee\n% evt 3.0\n% format EVT3;height=720;width=1280\n% end\n", "3.0"),
        ("% date 2023\n% format EVT3\n% operator Zoë\n".encode(), "3.0"),
    ],
)
def test_decode_evt_header_states_the_version(header: bytes, version: str) -> None:
    events = np.array([(70_000, 9, 719, 1), (70_001, 1279, 3, 0)], EVENT)
    assert decode_evt(encode_evt(events, version, header=header), where="f").events.tolist() == events.tolist()


def test_decode_evt_words_that_begin_like_a_header_line_are_words() -> None:
    # "% " is the low half of the first time of EVT 2.0; after it no line ends, or one without a keyword
    for t in (0x2025 << 6, 0x0A2025 << 6):
        events = np.array([(t, 10, 3, 1)], EVENT)
        for header in (b"% evt 2.0\n% end\n", b"% evt 2.0\n"):
            assert decode_evt(encode_evt(events, "2.0", header=header), where="f").events.tolist() == events.tolist()


@pytest.mark.parametrize("header", [b"", b"% evt 2.1\n% end\n"])
def test_decode_evt21_with_swapped_halves(header: bytes) -> None:
    events = clustered_events(60)
    found = decode_evt(encode_evt(events, "2.1", legacy=True, header=header), where="f")
    assert found.events.tolist() == events.tolist()


def test_decode_evt21_of_another_byte_order_is_refused() -> None:
    with pytest.raises(DamagedFileError, match="endianness=big, expected little or legacy"):
        decoded("2.1", [], b"% evt 2.1\n% format EVT21;endianness=big\n% end\n")


def test_decode_evt3_time_and_column_are_those_of_the_state() -> None:
    words = [
        *(0x8001, 0x6005, 0x0007, 0x3804, 0x4805, 0x5081, 0x2003),  # vectors at 4 … 15 and 16 … 23, an event at 3
        *(0x8001, 0x2009),  # the same high part: the low part stays
        *(0x8002, 0x2009),  # another: it is 0 until the next one
        *(0x0801, 0x200A),  # a row of another camera of a pair; the same bits
    ]
    assert decoded("3.0", words).events.tolist() == [
        *((4101, x, 7, 1) for x in (4, 6, 15, 16, 23)),
        (4101, 3, 7, 0),
        (4101, 9, 7, 0),
        (8192, 9, 7, 0),
        (8192, 10, 1, 0),
    ]


@pytest.mark.parametrize(("version", "bits", "tick"), [("2.0", 34, 64), ("2.1", 34, 64), ("3.0", 24, 4096)])
def test_decode_evt_clock_past_its_bits_is_continued(version: str, bits: int, tick: int) -> None:
    top = 2**bits
    times = [top - 2 * tick, top - 1, top, top + 3 * tick, top + top // 2, 2 * top - 5, 2 * top + 5]
    late = [*times[:3], top - 7, *times[3:]]  # from before the overflow
    events = np.array([(t, k, 0, 1) for k, t in enumerate(late)], EVENT)
    found = decode_evt(encode_evt(events, version), where="f")
    assert found.events["t"].tolist() == sorted(late)
    assert found.events["x"].tolist() == [0, 3, 1, 2, 4, 5, 6, 7]
    assert found.remarks == (Remark("overflow", 2), Remark("backward", 1, 7))


def test_decode_evt_events_before_the_first_time_or_row_are_dropped_and_counted() -> None:
    assert decoded("2.0", [5, 6, HIGH << 28, evt2_word(1, 2, 3, 0)]).dropped == 2
    assert decoded("2.1", [0b111, (HIGH << 28) << 32, (4 << 11) << 32 | 0b11]).dropped == 3
    no_row = decoded("3.0", [0x6001, 0x0005, 0x2003, 0x8000, 0x2003])
    assert (no_row.events.tolist(), no_row.dropped) == ([(0, 3, 5, 0)], 1)
    no_column = decoded("3.0", [0x8000, 0x4003, 0x2004, 0x0001, 0x4003, 0x2004, 0x3008, 0x5001])
    assert (no_column.events.tolist(), no_column.dropped) == ([(0, 4, 1, 0), (0, 8, 1, 0)], 5)


def test_decode_evt3_column_past_the_sensor_stays_outside() -> None:
    words = [0x8000, 0x0000, 0x37FF, *[0x4FFF] * 7000]
    x = decoded("3.0", words).events["x"]
    assert len(x) == 12 * 7000
    assert (x[1:] >= 2048).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "byte 0: an empty file, expected Prophesee's EVT"),
        (b"% Data file\n\0\x08", "byte 0: a file of format Prophesee .dat, expected Prophesee's EVT"),
        (b"% evt 4.0\n", "byte 0: a file of format Prophesee EVT 4.0"),
        (b"% evt 3.0\n% geome", "byte 10: a header line without a line feed"),
        (file("2.0", [HIGH << 28]) + b"123", "byte 20: 3 bytes left, a word of Prophesee EVT 2.0 .* has 4; .*cut off"),
        (file("2.1", [0])[:-1], "byte 16: 7 bytes left"),
        (file("3.0", [0x8000]) + b"1", "byte 18: 1 bytes left"),
        (file("3.0", [0x8000] * 8 + [0xB000]), "1 of 9 words have a type that Prophesee EVT 3.0 .* does not have"),
        (encode_evt(clustered_events(), "3.0", header=HEADERS["2.0"]), "words have a type that Prophesee EVT 2.0"),
        (encode_evt(clustered_events(), "2.0", header=HEADERS["3.0"]), "words have a type that Prophesee EVT 3.0"),
        (AEDAT3_HEADER, "format AEDAT 3.1"),
    ],
)
def test_decode_evt_damaged_file_error_names_the_offset(data: bytes, message: str) -> None:
    with pytest.raises(DamagedFileError, match=message):
        decode_evt(data, where="f")
