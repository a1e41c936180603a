"""Samples without events: an error where a set has none at all, a note of the cache everywhere else."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from factories import build_cache
from raw_files import atis_recording, open_events

from plifctl.cache import Cache
from plifctl.data.formats.aedat3 import decode_aedat3, encode_aedat3
from plifctl.errors import RawDataError

pytestmark = pytest.mark.usefixtures("places")

EMPTY = "empty: 5 of 33 samples have a label but no events (5 training, 0 test): "
CUT = (
    "user01_lab.aedat: cut short: its last event is at 599,999 µs, its last window ends at 1,060,000 µs; "
    "windows 06 to 10 after it contain no events"
)


def cut(recording: Path, end: int) -> None:
    """Ends a recording before a time, µs."""
    events = decode_aedat3(recording.read_bytes(), where="", invalid="keep").events.structured()
    kept = events[events["t"] < end].copy()
    kept["t"][-1] = end - 1
    recording.write_bytes(encode_aedat3(kept))


def change_times(table: Path, divisor: int, shift: int) -> None:
    """Divides and shifts the times in a table of labels."""
    head, *lines = table.read_text().splitlines()
    rows = [[int(value) for value in line.split(",")] for line in lines]
    moved = [f"{label},{start // divisor + shift},{end // divisor + shift}" for label, start, end in rows]
    table.write_text("\n".join([head, *moved]) + "\n")


def build(root: Path, cache_dir: Path, name: str = "synthetic-gesture", T: int = 4) -> Cache:
    return build_cache(open_events(name, root), T, cache_dir)


def test_build_recording_cut_short_is_noted_with_its_samples(gestures: Path, tmp_path: Path) -> None:
    cut(gestures / "user01_lab.aedat", 600_000)
    cache = build(gestures, tmp_path)
    ids = ", ".join(f"user01_lab/{k:02}" for k in range(6, 11))
    assert cache.notes[-2:] == (EMPTY + ids, CUT)
    assert np.flatnonzero(cache.without_events).tolist() == [6, 7, 8, 9, 10]


def test_build_interrupted_after_framing_has_the_same_notes(
    gestures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(gestures / "user01_lab.aedat", 600_000)

    def fail(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("plifctl.cache.build.write_cache", fail)
        with pytest.raises(KeyboardInterrupt):
            build(gestures, tmp_path / "a")
    assert build(gestures, tmp_path / "a").notes == build(gestures, tmp_path / "b").notes
    assert CUT in Cache(next((tmp_path / "a").glob("*/*.h5"))).notes


@pytest.mark.parametrize(
    ("divisor", "shift", "message"),
    [
        (1000, 0, "user01_lab.aedat: the labels look like ms instead of µs: its windows lie from 0 to 1,060"),
        (1, 10**15, "user01_lab.aedat: the labels look like those of another clock or recording"),
    ],
)
def test_build_labels_of_another_unit_or_clock_are_noted(
    gestures: Path, tmp_path: Path, divisor: int, shift: int, message: str
) -> None:
    change_times(gestures / "user01_lab_labels.csv", divisor, shift)
    cache = build(gestures, tmp_path)
    assert cache.notes[-1].startswith(message)
    assert cache.notes[-2].startswith("empty: ")


@pytest.mark.parametrize(("users", "part"), [((1, 2), "22 samples of the training"), ((3,), "11 samples of the test")])
def test_build_set_of_zero_events_is_refused_and_says_why(
    gestures: Path, tmp_path: Path, users: tuple[int, ...], part: str
) -> None:
    for user in users:
        change_times(gestures / f"user{user:02}_lab_labels.csv", 1, 10**15)
    with pytest.raises(RawDataError, match=f"0 events in all {part} set") as error:
        build(gestures, tmp_path)
    assert f"user{users[0]:02}_lab.aedat: the labels look like those of another clock" in str(error.value)
    assert not list(tmp_path.glob("*/*.h5"))


def write_nmnist(root: Path, **recordings: bytes) -> Path:
    """Writes recordings; in their names _ stands for /."""
    for name, content in recordings.items():
        path = root / f"{name.replace('_', '/')}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


GOOD, OUTSIDE = atis_recording(5), bytes((200, 0, 0, 0, 7))
DROP = "frames.outside_events=drop"


def test_build_any_layout_notes_empty_samples(tmp_path: Path) -> None:
    raw = write_nmnist(
        tmp_path / "raw", Train_0_00000=GOOD, Train_1_00001=OUTSIDE, Test_0_00000=GOOD, Test_1_00001=OUTSIDE
    )
    cache = build_cache(open_events("nmnist", raw, DROP), 4, tmp_path)
    assert cache.notes[-1] == (
        "empty: 2 of 4 samples have a label but no events (1 training, 1 test); "
        "of 2 every event was left out (invalid, outside, or by transforms): Train/1/00001, Test/1/00001"
    )


def test_build_any_layout_refuses_a_test_set_without_events(tmp_path: Path) -> None:
    raw = write_nmnist(tmp_path / "raw", Train_0_00000=GOOD, Test_0_00000=OUTSIDE)
    with pytest.raises(RawDataError, match=r"0 events in all 1 samples of the test set; all 1 were left out"):
        build_cache(open_events("nmnist", raw, DROP), 4, tmp_path)


def test_cache_of_an_older_version_names_its_empty_samples(
    gestures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(gestures / "user01_lab.aedat", 600_000)
    raw = open_events("synthetic-gesture", gestures)
    monkeypatch.setattr(type(raw), "notes_on_events", lambda self, counts: ())
    cache = build_cache(raw, 4, tmp_path)
    cache.close()
    with h5py.File(cache.path) as stored:
        assert b"empty" not in stored.attrs["notes"]
    assert [note for note in cache.notes if note.startswith("empty: 5 of 33")] == [cache.notes[-1]]
