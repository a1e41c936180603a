"""Recordings and layouts as people bring them: read as they are, or refused with a message that names what they are.

Each recording holds the same 40 events; 39 and a synchronisation word; or 20 of each of two cameras.
"""

import shutil
from pathlib import Path

import pytest
from raw_files import events_by_id, open_events

from plifctl.errors import RawDataError

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("places")]


START_US = {"h5-dsec": 5_000_000}
"""Times of the first events that are not 0: DSEC's files have an offset of their times."""

SAMPLES = ("train/a/0", "train/b/0", "test/a/0", "test/b/0")


def count_events(
    place: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str = ""
) -> dict[str, int]:
    """Reads a data set by its YAML, with more keys; returns the number of events of each sample.

    All of them are those written, in order.
    """
    registry = tmp_path / "registry/datasets"
    registry.mkdir(parents=True)
    shutil.copy(place, registry)
    with (registry / place.name).open("a") as file:
        file.write(keys)
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "registry"))
    opened = open_events(place.stem, raw)
    _, height, width = opened.dataset.shape
    found = events_by_id(opened)
    for k, sample in enumerate(SAMPLES):
        written = [
            (START_US.get(place.stem, 0) + 1000 * i, (3 * i + k) % width, (5 * i + k) % height, i % 2)
            for i in range(40)
        ]
        kept = set(found[sample])
        assert found[sample] == [event for event in written if event in kept]  # each once: all, where there are 40
    return {sample: len(events) for sample, events in found.items()}


@pytest.mark.parametrize(
    ("name", "keys", "events"),
    [
        ("evt-raw/evt2-raw", "", 40),
        ("evt-raw/evt3-raw", "", 40),
        ("evt-raw/evt3-raw-old", "", 40),
        ("npy-struct-txyp", "", 40),
        ("npy-tonic-struct", "", 40),
        ("npy-structured/npy-xypt-us", "time_unit: us", 40),
        ("npy-structured/npz-pm1", "", 40),
        ("npz-events-struct", "", 40),
        ("npz-keys-ts-pol", "", 40),
        ("npz-sec", "time_unit: s", 40),
        ("txt-rpg", "columns: [t, x, y, p]\ntime_unit: s", 40),
        ("hdf5/h5-dsec", "", 40),
        ("hdf5/h5-prophesee", "", 40),
        ("hdf5/h5-v2e", "", 40),
        ("csv-metavision", "columns: [x, y, p, t]", 40),
        ("npy-txyp-us", "columns: [t, x, y, p]", 40),
        ("npy-xytp-us", "columns: [x, y, t, p]\ntime_unit: us", 40),
        ("npy-xytp-sec-pm1", "columns: [x, y, t, p]\ntime_unit: s", 40),
        ("aedat2-sync/aedat2-dvs128-sync", "", 39),
        ("aedat2-davis240", "", 40),
        ("aedat3-two-cameras", "", 20),
        ("aedat3-two-cameras", "source: 2", 20),
    ],
)
def test_field_recordings_have_their_events(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, keys: str, events: int
) -> None:
    folder = shared / "data/field/formats" / name
    found = count_events(folder.with_suffix(".yaml"), folder, tmp_path, monkeypatch, keys)
    assert found == dict.fromkeys(SAMPLES, events)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("txt-rpg", r"0\.txt: a text file that begins with '0\.000000 \d \d 0', without a header"),
        ("csv-metavision", r"0\.csv: a text file that begins with '\d,\d,0,0', without a header"),
        ("es-dvs", r"0\.es: a file of format Event Stream"),
        ("mat-asldvs", r"0\.mat: a file of format MATLAB"),
        ("npy-txyp-us", "the last of the four columns is the polarity"),
        ("npy-xytp-us", "the last of the four columns is the polarity"),
        ("npy-xytp-sec-pm1", "the last of the four columns is the polarity"),
        ("npz-sec", r"t is 0\.001, expected a whole number"),
    ],
)
def test_field_recordings_that_are_not_read_are_named_with_a_way_out(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    folder = shared / "data/field/formats" / name
    with pytest.raises(RawDataError, match=message) as error:
        count_events(folder.with_suffix(".yaml"), folder, tmp_path, monkeypatch)
    assert any(way in error.value.hint for way in ("np.sav", "time_unit: s", "columns: ["))
    assert "outside_events" not in error.value.hint


NMNIST = ("n-backslash", "n-flat", "n-lower-inside")
GESTURES = (
    *("g-no-ending-in-list", "g-own-names", "g-paths-in-list", "g-upper-ending", "g-user-upper"),
    *("g-utf16-labels", "g-utf16-list"),
)


def test_field_folders_all_have_a_test_here(shared: Path) -> None:
    def names(folder: str) -> set[str]:
        return {path.name for path in (shared / "data/field" / folder).iterdir()}

    assert names("layouts") == {*NMNIST, "o-three-splits", "o-unsplit", "o-unsplit.yaml", "zip-backslash"}
    assert names("gesture") == {*GESTURES}


def test_field_zip_with_backslashes_is_read(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / "data/field/layouts/zip-backslash"
    found = count_events(folder / "o-backslash.yaml", folder / "o-backslash.zip", tmp_path, monkeypatch)
    assert found == dict.fromkeys(SAMPLES, 40)


def test_field_validation_samples_are_read(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / "data/field/layouts/o-three-splits"
    found = count_events(folder / "o-three-splits.yaml", folder / "o-three-splits", tmp_path, monkeypatch)
    assert found == dict.fromkeys((*SAMPLES, "val/a/0", "val/b/0"), 40)
    assert [sample.split for sample in open_events("o-three-splits", folder / "o-three-splits").samples] == [
        *("train", "train", "validation", "validation", "test", "test")
    ]


def test_field_recordings_without_a_split_are_read_as_class_folders(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared / "data/field/layouts/o-unsplit"
    with pytest.raises(RawDataError, match=r"looked for train/ and test/ .*found there: a/, b/") as error:
        count_events(folder.with_suffix(".yaml"), folder, tmp_path, monkeypatch)
    assert error.value.hint.endswith("layout: class-folders")
    yaml = tmp_path / "registry/datasets/o-unsplit.yaml"
    changed = yaml.read_text().replace("folders", "class-folders").replace("samples: {train: 2, test: 2}\n", "")
    yaml.write_text(changed)
    raw = open_events("o-unsplit", folder)
    assert {name: len(events) for name, events in events_by_id(raw).items()} == {
        f"{label}/{n}": 40 for label in "ab" for n in range(4)
    }
    assert {sample.split for sample in raw.samples} == {"train"}


def test_field_nmnist_archives_packed_again_are_one_data_set(shared: Path) -> None:
    found = [open_events("nmnist", shared / "data/field/layouts" / name) for name in NMNIST]
    assert len({raw.digest for raw in found}) == 1
    assert [len(raw.samples) for raw in found] == [20, 20, 20]


@pytest.mark.parametrize("name", GESTURES)
def test_field_gestures_are_read_whatever_their_names(shared: Path, name: str) -> None:
    raw = open_events("gesture", shared / "data/field/gesture" / name)
    assert [sample.split for sample in raw.samples] == ["train"] * 11 + ["test"] * 11
    assert [sample.label for sample in raw.samples] == [*range(11)] * 2
    assert {len(events) for events in events_by_id(raw).values()} == {100}
