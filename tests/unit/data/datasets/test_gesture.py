"""DVS128 Gesture in its layouts: original recordings, SpikingJelly's cuts and tonic's set."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from factories import write_gestures
from raw_files import events_by_id, open_dataset, open_events, pack_tar, save_npz

from plifctl.config.lookup import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.source import RawSource
from plifctl.errors import ChecksumError, DamagedFileError, RawDataError

pytestmark = pytest.mark.usefixtures("places")


KEEP = "frames.invalid_events=keep"


@pytest.fixture
def gesture(tmp_path: Path) -> Path:
    """SpikingJelly's folder with three recordings of eleven gestures, the third one twice."""
    root = tmp_path / "DVS128Gesture"
    folder = root / "extract/DvsGesture"
    write_gestures(folder)
    for table in sorted(folder.glob("*_labels.csv")):
        lines = table.read_text().splitlines()
        lines.insert(4, lines[3].replace("200000,260000", "210000,250000"))
        table.write_text("\n".join(lines) + "\n")
    raw = open_events("gesture", root, KEEP)
    seen: dict[tuple[str, int], int] = {}
    for member in raw.recordings():
        for row, events, *_ in raw.decode(member.name, member.load()):
            sample = raw.samples[row]
            k = seen[member.name, sample.label] = seen.get((member.name, sample.label), -1) + 1
            name = f"{member.name.removesuffix('.aedat')}_{k}.npz"
            save_npz(root / "events_np" / sample.split / str(sample.label) / name, events)
    return root


def test_gesture_samples_have_the_events_of_their_windows(gestures: Path) -> None:
    raw = open_dataset("synthetic-gesture", gestures)
    assert isinstance(raw, EventDataset)
    assert [sample.id for sample in raw.samples[:2]] == ["user01_lab/00", "user01_lab/01"]
    assert [sample.split for sample in raw.samples].count("test") == 11
    assert [sample.label for sample in raw.samples[:11]] == list(range(11))
    found = {row: events for member in raw.recordings() for row, events, *_ in raw.decode(member.name, member.load())}
    assert sorted(found) == list(range(33))
    for row, events in found.items():
        assert len(events) == 400
        assert set(events["x"] // 10) == {raw.samples[row].label}


def test_gesture_incomplete_set_is_noted(gestures: Path) -> None:
    raw = open_dataset("synthetic-gesture", gestures)
    assert not raw.complete
    assert raw.notes[0].startswith("incomplete: 22 of 440 training and 11 of 110 test samples")


def test_gesture_archive_and_folder_have_the_same_digest(tmp_path: Path) -> None:
    write_gestures(tmp_path / "DvsGesture")
    folder = open_dataset("gesture", tmp_path / "DvsGesture")
    parent = open_dataset("gesture", tmp_path)
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed/DvsGesture.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "DvsGesture", "DvsGesture")
    packed = open_dataset("gesture", tmp_path / "packed")
    assert folder.digest == parent.digest == packed.digest
    assert folder.samples == packed.samples
    assert isinstance(packed, EventDataset)
    assert len(list(packed.recordings())) == 3


def test_gesture_changed_content_changes_the_digest(gestures: Path) -> None:
    before = open_dataset("synthetic-gesture", gestures).digest
    table = gestures / "user01_lab_labels.csv"
    table.write_text(table.read_text().replace("60000", "59999"))
    assert open_dataset("synthetic-gesture", gestures).digest != before


def test_gesture_windows_are_half_open_and_may_overlap(gestures: Path) -> None:
    (gestures / "user03_lab_labels.csv").write_text(
        "class,startTime_usec,endTime_usec\n2,0,60000\n1,0,60000\n1,30000,70000\n"
    )
    raw = open_dataset("synthetic-gesture", gestures)
    assert isinstance(raw, EventDataset)
    data = (gestures / "user03_lab.aedat").read_bytes()
    (_, first, *_), (_, second, *_), (_, third, *_) = raw.decode("user03_lab.aedat", data)
    np.testing.assert_array_equal(first, second)
    edge = int(first["t"][200])
    (gestures / "user03_lab_labels.csv").write_text(f"class,startTime_usec,endTime_usec\n1,0,{edge}\n1,{edge},60000\n")
    raw = open_dataset("synthetic-gesture", gestures)
    assert isinstance(raw, EventDataset)
    (_, before, *_), (_, after, *_) = raw.decode("user03_lab.aedat", data)
    assert before["t"].max() < edge == after["t"].min()
    assert len(before) + len(after) == len(first)
    assert (third["t"] >= 30_000).all()


def test_gesture_missing_listed_recording_error_names_it(gestures: Path) -> None:
    (gestures / "user02_lab.aedat").unlink()
    with pytest.raises(RawDataError, match=r"user02_lab.aedat is missing, named in trials_to_train.txt"):
        open_dataset("synthetic-gesture", gestures)


def rename(folder: Path, old: str, new: str) -> None:
    """Renames a recording with its labels."""
    for ending in (".aedat", "_labels.csv"):
        (folder / f"{old}{ending}").rename(folder / f"{new}{ending}")


def change_list(folder: Path, old: str, new: str) -> None:
    path = folder / "trials_to_train.txt"
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    "line",
    [
        "user01_lab",
        "DvsGesture/user01_lab.aedat",
        "C:\\data\\user01_lab.aedat",
        " user01_lab.aedat\r",
        '"USER01_lab.AEDAT"',
    ],
)
def test_gesture_list_with_paths_or_without_ending_is_read(gestures: Path, line: str) -> None:
    expected = open_dataset("synthetic-gesture", gestures)
    change_list(gestures, "user01_lab.aedat", line)
    found = open_dataset("synthetic-gesture", gestures)
    assert found.samples == expected.samples
    assert [found.source_digest(row) for row in range(33)] == [expected.source_digest(row) for row in range(33)]


def test_gesture_endings_in_capitals_are_read(gestures: Path) -> None:
    expected = open_dataset("synthetic-gesture", gestures).samples
    (gestures / "user01_lab.aedat").rename(gestures / "user01_lab.AEDAT")
    (gestures / "user02_lab_labels.csv").rename(gestures / "user02_lab_labels.CSV")
    assert open_dataset("synthetic-gesture", gestures).samples == expected


def test_gesture_names_of_ones_own_are_read(gestures: Path) -> None:
    rename(gestures, "user01_lab", "Anna_office-1")
    change_list(gestures, "user01_lab", "Anna_office-1")
    raw = open_events("synthetic-gesture", gestures)
    assert [sample.id for sample in raw.samples[:2]] == ["Anna_office-1/00", "Anna_office-1/01"]
    assert [len(events) for events in events_by_id(raw).values()] == [400] * 33


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("name", ["trials_to_train.txt", "user01_lab_labels.csv"])
def test_gesture_texts_as_windows_writes_them_are_read(gestures: Path, encoding: str, name: str) -> None:
    expected = open_dataset("synthetic-gesture", gestures).samples
    (gestures / name).write_bytes((gestures / name).read_text().replace("\n", "\r\n").encode(encoding))
    assert open_dataset("synthetic-gesture", gestures).samples == expected


def test_gesture_recording_in_no_list_changes_the_digest_only_with_a_name_of_the_original(gestures: Path) -> None:
    before = open_dataset("synthetic-gesture", gestures).digest
    shutil.copy(gestures / "user01_lab.aedat", gestures / "copy of user01.aedat")
    assert open_dataset("synthetic-gesture", gestures).digest == before
    shutil.copy(gestures / "user01_lab.aedat", gestures / "user09_lab.aedat")
    assert open_dataset("synthetic-gesture", gestures).digest != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "berta.aedat",
            r"berta.aedat is missing, named in trials_to_train.txt; 3 other \*.aedat are there, e.g. use",
        ),
        ("berta", r"berta is missing, named in trials_to_train.txt; 3 other \*.aedat are there, e.g. user01_lab.aedat"),
    ],
)
def test_gesture_missing_recording_error_names_one_that_is_there(gestures: Path, name: str, message: str) -> None:
    change_list(gestures, "user01_lab.aedat", name)
    with pytest.raises(RawDataError, match=message) as error:
        open_dataset("synthetic-gesture", gestures)
    assert "rename the file" in error.value.hint


def test_gesture_missing_labels_error_names_those_that_are_there(gestures: Path) -> None:
    (gestures / "user01_lab_labels.csv").rename(gestures / "user01_labels.csv")
    with pytest.raises(RawDataError, match=r"user01_lab_labels.csv is missing.*3 other \*_labels.csv are there, e.g"):
        open_dataset("synthetic-gesture", gestures)


def test_gesture_name_that_two_files_differ_from_in_capitals_is_refused(gestures: Path) -> None:
    for name in ("USER01_lab.aedat", "User01_lab.aedat"):
        shutil.copy(gestures / "user01_lab.aedat", gestures / name)
    (gestures / "user01_lab.aedat").unlink()
    with pytest.raises(RawDataError, match=r"found USER01_lab.aedat and User01_lab.aedat"):
        open_dataset("synthetic-gesture", gestures)


def test_gesture_folder_of_the_authors_code_is_found(tmp_path: Path) -> None:
    write_gestures(tmp_path / "DVS128Gesture/extracted/DvsGesture")
    for root in (tmp_path, tmp_path / "DVS128Gesture", tmp_path / "DVS128Gesture/extracted"):
        assert len(open_dataset("gesture", root).samples) == 33


@pytest.mark.parametrize("row", ["12,0,5", "0,0,5", "1,5,0", "a,b,c", "1,2"])
def test_gesture_invalid_label_row_error_names_the_line(gestures: Path, row: str) -> None:
    (gestures / "user01_lab_labels.csv").write_text(f"class,startTime_usec,endTime_usec\n1,0,5\n{row}\n")
    with pytest.raises(DamagedFileError, match=r"user01_lab_labels.csv, line 3"):
        open_dataset("synthetic-gesture", gestures)


@pytest.mark.parametrize("head", ["", "1,0,60000\n", "start,class,end\n"])
def test_gesture_labels_without_header_are_refused(gestures: Path, head: str) -> None:
    path = gestures / "user01_lab_labels.csv"
    path.write_text(head + "".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DamagedFileError, match=r"user01_lab_labels.csv, line 1: .* expected class,startTime_usec"):
        open_dataset("synthetic-gesture", gestures)


@pytest.mark.parametrize("text", ["", "class,startTime_usec,endTime_usec\n1,0\r5,9\n", '"' + "x" * 200_000])
def test_gesture_labels_that_are_not_csv_are_refused(gestures: Path, text: str) -> None:
    (gestures / "user01_lab_labels.csv").write_bytes(text.encode())
    with pytest.raises(DamagedFileError, match=r"user01_lab_labels\.csv"):
        open_dataset("synthetic-gesture", gestures)


def test_gesture_labels_with_line_ends_of_old_macs_are_read(gestures: Path) -> None:
    expected = open_events("gesture", gestures).samples
    for path in gestures.glob("*_labels.csv"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert open_events("gesture", gestures).samples == expected


def test_gesture_windows_that_are_repeated_are_in_the_notes(gestures: Path) -> None:
    path = gestures / "user01_lab_labels.csv"
    path.write_text(path.read_text() + "1,0,60000\n2,0,60000\n")
    assert [note for note in open_events("gesture", gestures).notes if "repetition" in note] == [
        "user01_lab.aedat: 2 windows are a repetition of another: the same events are more than one sample"
    ]


@pytest.mark.parametrize("end", [2**62 + 1, 10**30])
def test_gesture_times_that_no_recording_reaches_are_refused(gestures: Path, end: int) -> None:
    (gestures / "user01_lab_labels.csv").write_text(f"class,startTime_usec,endTime_usec\n1,0,{end}\n")
    with pytest.raises(DamagedFileError, match=r"user01_lab_labels.csv, line 2"):
        open_events("gesture", gestures)


def test_gesture_labels_without_windows_are_refused(gestures: Path) -> None:
    (gestures / "user01_lab_labels.csv").write_text("class,startTime_usec,endTime_usec\n\n")
    with pytest.raises(DamagedFileError, match=r"user01_lab_labels.csv: contains no windows") as error:
        open_events("gesture", gestures)
    assert "trials_to_train.txt" in error.value.hint


def test_gesture_empty_list_error_says_what_was_looked_for(gestures: Path) -> None:
    (gestures / "trials_to_test.txt").write_text("\n")
    with pytest.raises(RawDataError, match=r"found 22 training and 0 test samples") as error:
        open_events("gesture", gestures)
    assert error.value.hint == "looked for files such as user01_fluorescent.aedat, listed in trials_to_train.txt"


def test_gesture_name_with_accents_in_two_forms_is_one(gestures: Path) -> None:
    for ending in (".aedat", "_labels.csv"):
        (gestures / f"user03_lab{ending}").rename(gestures / f"J\u00fcrgen{ending}")
    (gestures / "trials_to_test.txt").write_text("Ju\u0308rgen.aedat\n", encoding="utf-8")
    assert open_events("gesture", gestures).samples[-1].id == "J\u00fcrgen/10"


def test_gesture_labels_with_byte_order_mark_are_read(gestures: Path) -> None:
    path = gestures / "user01_lab_labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(open_dataset("synthetic-gesture", gestures).samples) == 33


def test_gesture_labels_over_64_kib_are_refused(gestures: Path) -> None:
    (gestures / "user01_lab_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + "1,0,1\n" * 20000)
    with pytest.raises(DamagedFileError, match="expected a list of at most 65536"):
        open_dataset("synthetic-gesture", gestures)


def test_gesture_recording_in_both_splits_is_refused(gestures: Path) -> None:
    (gestures / "trials_to_test.txt").write_text("user01_lab.aedat\n")
    with pytest.raises(RawDataError, match="in both"):
        open_dataset("synthetic-gesture", gestures)


def test_gesture_recipe_authors_trains_on_78_recordings(tmp_path: Path) -> None:
    write_gestures(tmp_path / "DvsGesture", users=81, events=1)
    assert len(open_dataset("gesture", tmp_path).samples) == 81 * 11
    assert len(open_dataset("gesture", tmp_path, recipe="authors").samples) == (78 + 1) * 11


def test_gesture_recipe_authors_takes_the_first_78_of_the_list(tmp_path: Path) -> None:
    write_gestures(tmp_path, users=81, events=2)
    names = (tmp_path / "trials_to_train.txt").read_text().split()
    (tmp_path / "trials_to_train.txt").write_text("\n".join(reversed(names)) + "\n")
    raw = open_dataset("gesture", tmp_path, recipe="authors")
    kept = {sample.id.split("/")[0] + ".aedat" for sample in raw.samples if sample.split == "train"}
    assert kept == set(list(reversed(names))[:78])


@pytest.mark.parametrize(("invalid", "framed"), [("drop", 300), ("keep", 400)])
def test_gesture_invalid_events_are_dropped_or_kept_by_choice(gestures: Path, invalid: str, framed: int) -> None:
    path = gestures / "user01_lab.aedat"
    data = bytearray(path.read_bytes())
    words = np.frombuffer(data, np.uint8).copy()
    start = data.index(b"#!END-HEADER\r\n") + 14 + 28
    first = words[start : start + 8 * 400].reshape(400, 8)
    first[::4, 0] &= 0xFE  # every fourth of the first gesture's 400 events loses its valid bit
    path.write_bytes(words.tobytes())
    found = load_registry().dataset("synthetic-gesture", "paper", [f"frames.invalid_events={invalid}"])
    raw = open_raw(found, RawSource(gestures))
    assert isinstance(raw, EventDataset)
    member = next(raw.recordings())
    row, events, n_raw, _ = raw.decode(member.name, member.load())[0]
    assert (raw.samples[row].id, len(events), n_raw) == ("user01_lab/00", framed, 400)


@pytest.mark.real
def test_gesture_real_windows_have_the_counted_events(shared: Path) -> None:
    raw = open_dataset("gesture", shared / "data/DvsGesture", verify=True)
    assert isinstance(raw, EventDataset)
    counts = json.loads((shared / "data/DvsGesture/counts.json").read_text())
    expected = [n for name in sorted(counts) for n in counts[name]["per_class"]]
    found = {
        row: (len(events), n_raw) for m in raw.recordings() for row, events, n_raw, _ in raw.decode(m.name, m.load())
    }
    assert [found[row] for row in range(50)] == [(n, n) for n in expected]


def test_gesture_spikingjelly_archives_are_preferred_then_extract_then_events_np(gesture: Path) -> None:
    extracted = open_events("gesture", gesture, KEEP)
    pack_tar(gesture / "extract/DvsGesture", gesture / "download/DvsGesture.tar.gz")
    packed = open_events("gesture", gesture, KEEP)
    assert (packed.root, packed.digest) == (gesture / "download", extracted.digest)
    assert open_events("gesture", gesture.parent, KEEP).digest == extracted.digest
    shutil.rmtree(gesture / "download")
    shutil.rmtree(gesture / "extract")
    converted = open_events("gesture", gesture, KEEP)
    assert converted.root == gesture / "events_np"
    assert any("converted" in note for note in converted.notes)


def test_gesture_events_np_has_the_events_and_order_of_the_original(gesture: Path) -> None:
    original, converted = open_events("gesture", gesture, KEEP), open_events("gesture", gesture / "events_np", KEEP)
    events, again = events_by_id(original), events_by_id(converted)
    assert len(converted.samples) == 3 * 12
    for split in ("train", "test"):
        for label in range(11):
            ours, theirs = (
                [found[s.id] for s in raw.samples if (s.split, s.label) == (split, label)]
                for raw, found in ((original, events), (converted, again))
            )
            assert ours == theirs


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ([], "frames.invalid_events=drop needs the valid bits", "--set frames.invalid_events=keep"),
        ([KEEP, "frames.training_set=first-78"], "needs trials_to_train.txt", "--set frames.training_set=all"),
    ],
)
def test_gesture_events_np_with_unsupported_choice_is_refused(
    gesture: Path, changes: list[str], message: str, hint: str
) -> None:
    with pytest.raises(RawDataError, match=message) as error:
        open_events("gesture", gesture / "events_np", *changes)
    assert hint in error.value.hint


@pytest.mark.long
def test_gesture_tonic_set_is_complete_by_its_own_numbers(tmp_path: Path) -> None:
    for part, users in (("Train", range(98)), ("Test", range(100, 124))):
        for user in users:
            for label in range(11):
                path = tmp_path / f"DVSGesture/ibmGesture{part}/user{user:02}_led/{label}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, np.array([(label, user, 1, 5), (label, user, 0, 3)]))
    (tmp_path / "DVSGesture/ibmGestureTrain/user97_led/7.npy").unlink()
    raw = open_events("gesture", tmp_path, KEEP)
    assert raw.complete
    assert not raw.verified
    assert len(raw.samples) == 1077 + 264
    assert any("1077 + 264 samples instead of 1176 + 288" in note for note in raw.notes)
    assert raw.samples[3].id == "user00_led/03"
    member = next(member for member in raw.recordings() if member.name.endswith("user04_led/3.npy"))
    assert [(n, e.tolist()) for _, e, n, _ in raw.decode(member.name, member.load())] == [
        (2, [(3000, 3, 4, 0), (5000, 3, 4, 1)])
    ]
    for part in ("Train", "Test"):
        pack_tar(tmp_path / f"DVSGesture/ibmGesture{part}", tmp_path / f"DVSGesture/ibmGesture{part}.tar.gz")
    assert open_events("gesture", tmp_path, KEEP).digest == raw.digest
    with pytest.raises(ChecksumError, match="3a8f0d4120a166bac7591f77409cb105"):
        open_events("gesture", tmp_path, KEEP, verify=True)
    with pytest.raises(RawDataError, match="needs the valid bits"):
        open_events("gesture", tmp_path)


def test_gesture_tonic_sample_in_both_splits_is_refused(tmp_path: Path) -> None:
    for part in ("Train", "Test"):
        path = tmp_path / f"ibmGesture{part}/user01_led/3.npy"
        path.parent.mkdir(parents=True)
        np.save(path, np.array([(1, 1, 1, 5)]))
    with pytest.raises(RawDataError, match="user01_led/03 exists twice"):
        open_events("gesture", tmp_path, KEEP)


@pytest.mark.parametrize("path", ["events_np/{}/11/user01_led_0.npz", "ibmGesture{}/user01_led/11.npy"])
def test_gesture_converted_label_outside_the_classes_is_refused(tmp_path: Path, path: str) -> None:
    for split in ("Train", "Test"):
        file = tmp_path / path.format(split.lower() if "events_np" in path else split)
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")
    with pytest.raises(
        RawDataError, match=r"sample user01_led/11\S* is of class 11, but DVS128 Gesture has 11 classes"
    ):
        open_events("gesture", tmp_path, KEEP)
