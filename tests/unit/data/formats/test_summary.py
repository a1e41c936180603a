"""What files state about their recordings, without being decoded."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from factories import encode_aedat4, random_events
from raw_files import AEDAT2_HEADER, AEDAT3_HEADER, aedat3_packet, aedat3_word, encode_dat, encode_npy

from plifctl.config.dataset import ReadingSpec
from plifctl.data.formats import aedat4
from plifctl.data.formats.detect import decode_any, summarise_any
from plifctl.data.formats.summary import NOTHING, Summary, sensor_of_camera

EVENTS = random_events(np.random.default_rng(1), 40)
AEDAT2 = AEDAT2_HEADER + struct.pack(">IIII", 2, 1, 4, 9)
AEDAT3 = AEDAT3_HEADER + aedat3_packet((aedat3_word(1), 3), (aedat3_word(4), 6)) + aedat3_packet((aedat3_word(5), 8))
DAT = encode_dat((7, 1, 2, 0), (9, 3, 4, 1))


def summarise(data: bytes) -> Summary:
    return summarise_any(io.BytesIO(data))


def test_summarise_aedat2_counts_words_and_reads_their_times() -> None:
    assert summarise(AEDAT2) == Summary(n_events=2, first_us=1, last_us=9)
    assert summarise(AEDAT2_HEADER) == Summary(n_events=0)


def test_summarise_aedat2_after_overflow_continues_the_clock() -> None:
    data = AEDAT2_HEADER + struct.pack(">IIII", 2, 2**32 - 1, 4, 1)
    assert (summarise(data).first_us, summarise(data).last_us) == (2**32 - 1, 2**32 + 1)


def test_summarise_aedat2_of_jaer_names_the_camera() -> None:
    header = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346red\r\n" + b"# preferences\r\n" * 10_000
    assert summarise(header + bytes(80)) == Summary("Davis346red", (346, 260))
    chip = b"#!AER-DAT2.0\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\n"
    assert summarise(chip + struct.pack(">II", 2, 1)) == Summary("DVS128", (128, 128), 1, 1, 1)


def test_summarise_aedat2_of_unnamed_davis_counts_nothing() -> None:
    data = AEDAT2_HEADER + struct.pack(">IIII", 300 << 12 | 200 << 22, 1, 1 << 31, 2)
    assert summarise(data) == Summary("DAVIS")


def test_summarise_aedat3_walks_over_packets() -> None:
    assert summarise(AEDAT3) == Summary("DVS128", (128, 128), 3, 3, 8)


def test_summarise_aedat3_counts_what_is_not_read() -> None:
    second = struct.pack("<hhiiiiii", 1, 2, 8, 4, 0, 1, 1, 1) + bytes(8)
    frames = struct.pack("<hhiiiiii", 2, 1, 100, 4, 0, 1, 1, 1) + bytes(100)
    found = summarise(AEDAT3 + second + frames + aedat3_packet((2, 5), kind=0))
    assert found.n_events == 3
    assert dict(found.others) == {"events of source 2": 1, "frames": 1, "special events": 1}


def test_summarise_aedat3_of_another_source_is_about_that() -> None:
    second = struct.pack("<hhiiiiii", 1, 2, 8, 4, 0, 1, 1, 1) + struct.pack("<II", aedat3_word(9), 7)
    found = summarise_any(io.BytesIO(AEDAT3 + second), ReadingSpec(source=2))
    assert found == Summary("", None, 1, 7, 7, (("events of source 1", 3),))


def test_summarise_aedat3_with_overflow_count_extends_times() -> None:
    data = AEDAT3 + aedat3_packet((aedat3_word(5), 8), overflow=1)
    assert summarise(data).last_us == 2**31 + 8


def test_summarise_aedat3_of_cut_file_keeps_the_packets_before() -> None:
    assert summarise(AEDAT3[:-3]) == Summary("DVS128", (128, 128), 2, 3, 6)


def test_summarise_aedat4_states_sensor_and_without_table_no_count() -> None:
    assert summarise(encode_aedat4((0, "EVTS", EVENTS), (1, "TRIG", EVENTS))) == Summary("DVS", (128, 128))


@pytest.mark.parametrize(("source", "expected"), [(None, 7), (2, 7), (0, 0)])
def test_summarise_aedat4_is_about_the_first_stream_that_has_events(
    source: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode_aedat4((2, "EVTS", EVENTS), streams={0: "EVTS", 1: "TRIG", 2: "EVTS"})
    rows = [aedat4._TableRow(0, 0, 0, 0), aedat4._TableRow(1, 3, 1, 2), aedat4._TableRow(2, 7, 5, 6)]
    monkeypatch.setattr(aedat4, "_read_table", lambda file, head: rows)
    assert aedat4.summarise_aedat4(io.BytesIO(data), source).n_events == expected


def test_summarise_aedat4_with_table_equals_decoded(shared: Path) -> None:
    data = (shared / "data/samples/sample.aedat4").read_bytes()
    t = decode_any(data, where="f", invalid="drop").events["t"]
    expected = Summary("DVXplorer_DXB00010", (320, 240), len(t), int(t[0]), int(t[-1]), (("IMU samples", 475),))
    assert summarise(data) == expected


def test_summarise_dat_reads_size_and_ends() -> None:
    assert summarise(DAT) == Summary(n_events=2, first_us=7, last_us=9)
    sized = DAT.replace(b"% Version", b"% Height 240\n% Width 304\n% Version")
    assert summarise(sized).sensor == (304, 240)


@pytest.mark.parametrize(
    ("line", "sensor"),
    [
        ("% geometry 1280x720", (1280, 720)),
        ("% format EVT3;height=480;width=640", (640, 480)),
        ("% system_ID 21", None),
    ],
)
def test_summarise_evt_reads_the_size(line: str, sensor: tuple[int, int] | None) -> None:
    data = f"% evt 3.0\n{line}\n% end\n".encode() + bytes(8)
    assert summarise(data) == Summary(sensor=sensor)


def test_summarise_npy_counts_rows() -> None:
    assert summarise(encode_npy(np.zeros((5, 4)))) == Summary(n_events=5)


@pytest.mark.parametrize("data", [b"", b"text", bytes(50), b"PK\3\4", b"\x93NUMPY"])
def test_summarise_file_that_states_nothing_is_empty(data: bytes) -> None:
    assert summarise(data) == NOTHING


FILES = {
    "aedat2": AEDAT2,
    "aedat3": AEDAT3,
    "aedat4": encode_aedat4((0, "EVTS", EVENTS), packing="none"),
    "dat": DAT,
    "evt": b"% evt 3.0\n% geometry 1280x720\n% end\n" + bytes(8),
    "npy": encode_npy(np.zeros((5, 4))),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_summarise_mutated_file_raises_nothing(content: bytes) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(content)
        for offset in rng.integers(0, len(data), rng.integers(1, 4)):
            data[offset] = int(rng.integers(256))
        found = summarise(bytes(data[: rng.integers(0, len(data) + 1)]))
        assert found.n_events is None or found.n_events >= 0


def test_sensor_of_unknown_camera_is_unknown() -> None:
    assert sensor_of_camera("es.us.atc.jaer.chips.NASv1") is None
    assert sensor_of_camera("DVXplorer Lite") == (320, 240)
    assert sensor_of_camera("DVXplorer_DXA00080") == (640, 480)
