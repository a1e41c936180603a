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

    All of them are those written.
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
        assert set(found[sample]) <= set(written)
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


@pytest.mark.parametrize(
    ("yaml", "raw"),
    [("zip-backslash/o-backslash.yaml", "zip-backslash/o-backslash.zip"), ("o-three-splits/o-three-splits.yaml", None)],
)
def test_field_layouts_are_read(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yaml: str, raw: str | None
) -> None:
    layouts = shared / "data/field/layouts"
    found = count_events(layouts / yaml, layouts / (raw or yaml.removesuffix(".yaml")), tmp_path, monkeypatch)
    assert found == dict.fromkeys(SAMPLES, 40)


def test_field_nmnist_archives_packed_again_are_one_data_set(shared: Path) -> None:
    layouts = shared / "data/field/layouts"
    found = [open_events("nmnist", layouts / name) for name in ("n-backslash", "n-flat", "n-lower-inside")]
    assert len({raw.digest for raw in found}) == 1
    assert [len(raw.samples) for raw in found] == [20, 20, 20]
