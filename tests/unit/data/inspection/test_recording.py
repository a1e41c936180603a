"""Facts of one recording, and what the user should know about it."""

import io
import struct

import numpy as np
import pytest
from factories import encode_aedat4, random_events
from raw_files import (
    AEDAT2_HEADER,
    AEDAT3_HEADER,
    aedat3_packet,
    aedat3_word,
    atis_recording,
    encode_dat,
    encode_npy,
    encode_npz,
    metavision_index,
)

from plifctl.config.dataset import ReadingSpec
from plifctl.data.events import EVENT
from plifctl.data.formats.detect import AS_USUAL
from plifctl.data.inspection.facts import RecordingFacts
from plifctl.data.inspection.recording import inspect_recording, summarise_recording

ROWS = [(7, 1, 2, 0), (9, 3, 4, 1), (9, 0, 4, 0), (9, 3, 4, 1)]


def inspect(name: str, data: bytes, reading: ReadingSpec = AS_USUAL) -> RecordingFacts:
    return inspect_recording(name, data, reading)[0]


def messages(facts: RecordingFacts, kind: str | None = None) -> str:
    return "\n".join(finding.message for finding in facts.findings if kind in (None, finding.kind))


def hints(facts: RecordingFacts) -> str:
    return "\n".join(finding.hint for finding in facts.findings)


def test_inspect_recording_counts_what_its_events_show() -> None:
    facts, events = inspect_recording("a.dat", encode_dat(*ROWS))
    assert (facts.kind, facts.format, facts.n_events, facts.seen) == ("recording", "Prophesee .dat", 4, (4, 5))
    assert facts.events is not None
    assert (facts.events.n_on, facts.events.n_duplicates, facts.events.x, facts.events.y) == (2, 1, (0, 3), (2, 4))
    assert (facts.span_us, facts.duration_us) == ((7, 9), 2)
    assert len(events) == 4


def test_count_of_duplicates_equals_that_of_a_set() -> None:
    events = random_events(np.random.default_rng(0), 2000, size=4)
    events["t"] //= 10_000
    facts = inspect("a.npy", encode_npy(events))
    assert facts.events is not None
    assert facts.events.n_duplicates == 2000 - len(set(events.tolist())) > 100


def test_sensor_that_is_not_stated_is_assumed_with_the_key_to_set() -> None:
    facts = inspect("a.dat", encode_dat(*ROWS))
    assert "does not state the size of the sensor; its events need 4 × 5" in messages(facts, "assumed")
    assert "shape: [2, 5, 4]" in hints(facts)


def test_events_outside_the_stated_sensor_are_counted() -> None:
    sized = encode_dat(*ROWS).replace(b"% Version", b"% Height 4\n% Width 3\n% Version")
    facts = inspect("a.dat", sized)
    assert facts.events is not None
    assert (facts.sensor, facts.events.n_outside) == ((3, 4), 3)
    assert "3 of 4 events lie outside the sensor of 3 × 4: x reaches 3, y 4" in messages(facts, "problem")
    many = [(t, 1, 1, t % 2) for t in range(50)]
    few = inspect("a.dat", encode_dat(*many, (60, 9, 9, 0)).replace(b"% V", b"% Height 4\n% Width 3\n% V"))
    assert "frames.outside_events: drop" in hints(few)


def test_invalid_events_are_counted_with_the_key_to_keep_them() -> None:
    words = [(aedat3_word(1, 2, 1), 3), (aedat3_word(4, 5, 0, valid=0), 6)]
    facts = inspect("a.aedat", AEDAT3_HEADER + aedat3_packet(*words))
    assert "1 of 2 events are marked invalid" in messages(facts, "problem")
    assert "frames.invalid_events: keep" in hints(facts)


def test_recording_of_invalid_events_only_is_shown_with_its_problem() -> None:
    facts = inspect("a.aedat", AEDAT3_HEADER + aedat3_packet((aedat3_word(4, 5, 0, valid=0), 6)))
    assert (facts.kind, facts.n_events) == ("recording", 1)
    assert "all 1 events are marked invalid" in messages(facts, "problem")
    assert "frames.invalid_events=keep" in hints(facts)


def test_times_that_go_back_are_counted() -> None:
    facts = inspect("a.dat", encode_dat((50, 1, 1, 1), (10, 1, 1, 0)))
    assert "times go back: 1 event earlier than the one before, by up to 40 µs" in messages(facts, "note")


def test_unit_of_a_matrix_is_assumed_with_the_key_to_set() -> None:
    matrix = np.array(((3, 4, 1, 20), (1, 2, 0, 30), (5, 6, 1, 40)))
    facts = inspect("a.npy", encode_npy(matrix))
    assert "read as ms" in messages(facts, "assumed")
    assert "time_unit: us, ms or s" in hints(facts)
    stated = inspect("a.npy", encode_npy(matrix), ReadingSpec(time_unit="us"))
    assert stated.duration_us == 20
    assert "read as ms" not in messages(stated)


def test_duration_beyond_an_hour_suggests_another_unit() -> None:
    events = np.array([(0, 1, 1, 1), (10**10, 1, 1, 0)], EVENT)
    assert "too long" in messages(inspect("a.npy", encode_npy(events)), "problem")


def test_one_polarity_only_is_a_problem() -> None:
    events = random_events(np.random.default_rng(0), 200)
    events["p"] = 1
    assert "all events are on" in messages(inspect("a.npy", encode_npy(events)), "problem")


def test_aedat2_is_assumed_to_count_rows_from_the_top() -> None:
    data = AEDAT2_HEADER + struct.pack(">IIII", 2, 1, 4, 2)
    assert "flip_y: true" in hints(inspect("a.aedat", data))
    assert "flip_y" not in hints(inspect("a.aedat", data, ReadingSpec(flip_y=True)))


def test_aedat2_of_a_davis_is_assumed_to_be_mirrored_as_well() -> None:
    data = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346red\r\n"
    facts = inspect("a.aedat", data + struct.pack(">IIII", 300 << 12 | 200 << 22, 1, 1 << 31, 2))
    assert (facts.sensor, facts.seen, facts.summary.camera) == ((346, 260), (301, 201), "Davis346red")
    assert "flip_x: true and flip_y: true" in hints(facts)
    assert "words of images and of the motion sensor were left out: 1" in messages(facts, "note")


def test_header_that_contradicts_the_ending_counts() -> None:
    facts = inspect("a.npy", encode_aedat4((0, "EVTS", random_events(np.random.default_rng(0), 40))))
    assert facts.format == "AEDAT 4"
    assert "the name ends in .npy, but the header says AEDAT 4" in messages(facts, "assumed")


@pytest.mark.parametrize(("name", "hint"), [("a.bin", ""), ("a.atis", "must be named .bin")])
def test_file_without_header_is_tried_as_atis(name: str, hint: str) -> None:
    facts = inspect(name, atis_recording(20))
    assert (facts.kind, facts.format, facts.n_events) == ("recording", "ATIS", 20)
    assert "no header" in messages(facts, "assumed")
    assert hint in hints(facts)


def test_recording_without_events_is_a_problem() -> None:
    facts = inspect("a.aedat", AEDAT2_HEADER)
    assert (facts.kind, facts.n_events, facts.seen, facts.span_us) == ("recording", 0, None, None)
    assert "it contains no events" in messages(facts, "problem")


@pytest.mark.parametrize(
    ("name", "data", "kind", "looks"),
    [
        ("a.bag", b"#ROSBAG V2.0\n" + bytes(40), "other", "a ROS bag"),
        ("a.mp4", bytes(4) + b"ftypisom" + bytes(40), "other", "an MP4 video"),
        ("a.pkl", b"\x80\x04" + bytes(40), "other", "a Python pickle (protocol 4)"),
        ("README.md", "# Größe\n".encode() * 9, "other", "text"),
        ("notes.txt", b"day one\n", "other", "text"),
        ("two.csv", b"1,2\n3,4\n5,6\n", "other", "text with 2 columns of numbers"),
        ("all.zip", encode_npz(frames=np.zeros(3)), "other", "a zip archive"),
        ("a.npz", encode_npz(frames=np.zeros(3)), "unreadable", "numpy .npz"),
        ("a.aedat", AEDAT3_HEADER + bytes(5), "unreadable", "AEDAT 3.1"),
        ("a.mat", b"MATLAB 5.0 MAT-file" + bytes(200), "unreadable", "MATLAB"),
        ("a.bin", bytes(7), "unreadable", "ATIS"),
        ("a.dat", bytes(7), "unreadable", "a file that begins with"),
        ("weights.raw2", b"\x01\x02\x03", "other", r"a file that begins with b'\x01\x02\x03'"),
        ("empty", b"", "other", "an empty file"),
        ("a.raw.tmp_index", metavision_index(), "other", "Metavision index"),
        ("index.raw", metavision_index(), "other", "Metavision index"),
    ],
)
def test_file_that_is_not_read_is_named_by_what_it_looks_like(name: str, data: bytes, kind: str, looks: str) -> None:
    facts, events = inspect_recording(name, data)
    assert (facts.kind, len(events)) == (kind, 0)
    assert facts.format.startswith(looks)
    assert len(facts.findings) == 1
    assert facts.findings[0].message


def test_summarise_recording_knows_sensor_and_count_without_decoding() -> None:
    data = AEDAT3_HEADER + aedat3_packet((aedat3_word(1), 3), (aedat3_word(4), 6))
    facts = summarise_recording("a.aedat", io.BytesIO(data), len(data))
    assert (facts.kind, facts.events, facts.n_events, facts.duration_us) == ("recording", None, 2, 3)
    assert (facts.sensor, facts.seen) == ((128, 128), None)


ORDERED = "".join(f"{t} {t % 7} {t % 5} {t % 2}\n" for t in range(0, 9000, 90))


@pytest.mark.parametrize(
    ("name", "data", "reading"),
    [
        ("a.txt", ORDERED.encode(), {"columns": ["t", "x", "y", "p"], "time_unit": "us"}),
        ("a.csv", b"0.5,3,4,1\n0.7,30,2,0\n0.9,2,9,1\n", {"columns": ["t", "x", "y", "p"], "time_unit": "s"}),
        (
            "a.npy",
            encode_npy(np.array([(3, 4, 90, 1), (1, 20, 950, 0), (2, 1, 990, 1)])),
            {"columns": ["x", "y", "t", "p"]},
        ),
        ("a.npz", encode_npz(t=np.array([0.5]), x=np.array([1]), y=np.array([1]), p=np.array([1])), {"time_unit": "s"}),
    ],
)
def test_what_is_not_stated_is_read_with_the_best_guess(name: str, data: bytes, reading: dict[str, object]) -> None:
    facts = inspect(name, data)
    found = facts.reading.model_dump(mode="json", exclude_defaults=True)
    assert (facts.kind, reading.items() <= found.items()) == ("recording", True)
    assert "best guess" in messages(facts, "assumed")
    assert all(f"{key}: " in hints(facts) for key in reading)
    stated = inspect(name, data, facts.reading)
    assert stated.events == facts.events
    assert "best guess" not in messages(stated)


def test_guess_keeps_what_the_user_states() -> None:
    facts = inspect("a.txt", ORDERED.encode(), ReadingSpec(time_unit="ms"))
    assert facts.reading == ReadingSpec(time_unit="ms", columns=("t", "x", "y", "p"))
    assert facts.duration_us == 8910 * 1000


def test_text_without_a_plausible_order_is_unreadable() -> None:
    facts = inspect("a.txt", b"9 9 9 9\n3 3 3 3\n9 9 9 9\n4 4 4 4\n")
    assert (facts.kind, facts.format) == ("unreadable", "text with 4 columns of numbers")
    assert "columns:" in hints(facts)
