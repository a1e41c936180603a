"""CIFAR10-DVS in its layouts, its choices of axes and of the test set."""

import struct
from pathlib import Path

import numpy as np
import pytest
from factories import encode_aedat4, random_events
from raw_files import events_by_id, open_dataset, open_events, pack_zip, save_npz

from plifctl.config.lookup import load_framing, load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.formats.aedat2 import decode_aedat2
from plifctl.data.framer import decode_recording
from plifctl.data.source import RawSource
from plifctl.errors import RawDataError, UsageError

pytestmark = pytest.mark.usefixtures("places")


CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NUMBERS = (0, 7, 99, 100, 899, 900, 999)


def recording_of(seed: int) -> bytes:
    words = np.empty((50, 2), ">u4")
    rng = np.random.default_rng(seed)
    words[:, 0], words[:, 1] = rng.integers(0, 2**15, 50), np.sort(rng.integers(0, 2**31, 50))
    return b"#!AER-DAT2.0\r\n" + words.tobytes()


@pytest.fixture
def cifar10dvs(tmp_path: Path) -> Path:
    """SpikingJelly's folder; its arrays are written as its loader reads addresses."""
    root = tmp_path / "CIFAR10DVS"
    for label, name in enumerate(CLASSES):
        for number in NUMBERS:
            data = recording_of(1000 * label + number)
            path = root / "extract" / name / f"cifar10_{name}_{number}.aedat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            events = decode_aedat2(data, where="f", axes="spikingjelly").events
            save_npz(root / "events_np" / name / f"cifar10_{name}_{number}.npz", events, t=">u4", p="i8")
    return root


def test_cifar10dvs_splits_by_file_number_in_folders_and_zips(tmp_path: Path) -> None:
    dataset = load_registry().dataset("cifar10dvs").dataset
    for name in dataset.classes:
        for number in (0, 7, 899, 900):
            path = tmp_path / name / f"cifar10_{name}_{number}.aedat"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"#!AER-DAT2.0\r\n" + struct.pack(">II", number << 1 & 0xFE, number))
    raw = open_dataset("cifar10dvs", tmp_path)
    assert isinstance(raw, EventDataset)
    assert [s.id for s in raw.samples[:3]] == ["airplane/0000", "airplane/0007", "airplane/0899"]
    assert [s.id for s in raw.samples if s.split == "test"][:2] == ["airplane/0900", "automobile/0900"]
    folder = raw.digest
    (tmp_path / "zips").mkdir()
    for name in dataset.classes:
        pack_zip(tmp_path / name, tmp_path / "zips" / f"{name}.zip")
    packed = open_dataset("cifar10dvs", tmp_path / "zips")
    assert packed.digest == folder
    assert isinstance(packed, EventDataset)
    found = {row: events for m in packed.recordings() for row, events, *_ in packed.decode(m.name, m.load())}
    assert found[1].tolist() == [(7, 120, 0, 1)]


def test_cifar10dvs_one_number_under_two_names_is_refused(tmp_path: Path) -> None:
    found = load_registry().dataset("cifar10dvs")
    for name in found.dataset.classes:
        (tmp_path / name).mkdir()
        for number in ("0", "900"):
            (tmp_path / name / f"cifar10_{name}_{number}.aedat").write_bytes(b"#!AER-DAT2.0\r\n")
    (tmp_path / "cat/cifar10_cat_00.aedat").write_bytes(b"#!AER-DAT2.0\r\n")
    with pytest.raises(RawDataError, match="cat/0000 exists twice"):
        open_raw(found, RawSource(tmp_path))


@pytest.mark.parametrize("axes", ["authors", "spikingjelly"])
def test_cifar10dvs_events_np_has_the_events_of_the_original_for_both_axes(cifar10dvs: Path, axes: str) -> None:
    choice = f"frames.axes={axes}"
    original = open_events("cifar10dvs", cifar10dvs / "extract", choice)
    converted = open_events("cifar10dvs", cifar10dvs / "events_np", choice)
    assert original.samples == converted.samples
    assert events_by_id(original) == events_by_id(converted)
    assert any("converted: read from SpikingJelly's events_np" in note for note in converted.notes)


def test_cifar10dvs_events_have_the_axes_that_were_chosen(cifar10dvs: Path) -> None:
    found = {}
    for axes in ("authors", "spikingjelly"):
        found[axes] = events_by_id(open_events("cifar10dvs", cifar10dvs / "extract", f"frames.axes={axes}"))[
            "bird/0007"
        ]
        assert found[axes] == decode_aedat2(recording_of(2007), where="f", axes=axes).events.tolist()
    # the authors' x = 127 − bits 1–7, y = bits 8–14; SpikingJelly's x = 127 − bits 8–14, y = 127 − bits 1–7
    assert [(t, 127 - y, x) for t, x, y, _ in found["authors"]] == [(t, x, y) for t, x, y, _ in found["spikingjelly"]]


def test_cifar10dvs_links_of_another_split_in_events_np_are_ignored(cifar10dvs: Path) -> None:
    before = open_events("cifar10dvs", cifar10dvs / "events_np")
    for name in CLASSES:
        (cifar10dvs / "events_np/test" / name).mkdir(parents=True)
        target = cifar10dvs / f"events_np/{name}/cifar10_{name}_0.npz"
        (cifar10dvs / f"events_np/test/{name}/cifar10_{name}_0.npz").symlink_to(target)
    assert open_events("cifar10dvs", cifar10dvs / "events_np").digest == before.digest


@pytest.mark.parametrize(
    ("choice", "tested"), [("last-100", {"0900", "0999"}), ("first-100", {"0000", "0007", "0099"})]
)
def test_cifar10dvs_test_set_is_by_choice(cifar10dvs: Path, choice: str, tested: set[str]) -> None:
    raw = open_events("cifar10dvs", cifar10dvs, f"frames.test_set={choice}")
    for split, numbers in (("test", tested), ("train", {f"{n:04d}" for n in NUMBERS} - tested)):
        assert {s.id.split("/")[1] for s in raw.samples if s.split == split} == numbers
        assert {s.id.split("/")[0] for s in raw.samples if s.split == split} == set(CLASSES)


def test_cifar10dvs_without_test_set_is_refused() -> None:
    with pytest.raises(UsageError, match=r"frames\.test_set.* needs this choice"):
        load_registry().dataset("cifar10dvs", "paper", ["frames.test_set=null"])
    for recipe in ("paper", "authors"):
        frames = load_registry().dataset("cifar10dvs", recipe).frames
        assert frames is not None
        assert frames.test_set == "last-100"


@pytest.mark.parametrize("ending", ["aedat", "aedat4"])
def test_cifar10dvs_tonic_aedat4_is_read_under_both_endings(tmp_path: Path, ending: str) -> None:
    events = random_events(np.random.default_rng(0), 30)
    for name in CLASSES:
        for number in (3, 950):
            path = tmp_path / "CIFAR10DVS" / name / f"cifar10_{name}_{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_aedat4((0, "EVTS", events)))
    raw = open_events("cifar10dvs", tmp_path)
    assert events_by_id(raw)["cat/0950"] == events.tolist()
    assert any("frames.axes could not be applied" in note for note in raw.notes)
    for name in CLASSES:  # tonic's archive contains ten others, which have no published checksums
        pack_zip(tmp_path / "CIFAR10DVS" / name, tmp_path / f"CIFAR10DVS/{name}.zip")
    packed = open_events("cifar10dvs", tmp_path, verify=True)
    assert packed.digest == raw.digest
    assert not packed.verified
    assert "unverified: the files of tonic's copy have no published checksum" in packed.notes
    with pytest.raises(RawDataError, match=r"frames\.axes=spikingjelly") as error:
        open_events("cifar10dvs", tmp_path, "frames.axes=spikingjelly")
    assert "--set frames.axes=authors" in error.value.hint


@pytest.mark.parametrize("axes", ["authors", "spikingjelly"])
def test_prediction_reads_a_file_with_the_axes_of_the_cache(cifar10dvs: Path, axes: str) -> None:
    framing = load_framing("cifar10dvs", [f"frames.axes={axes}"])
    name = "airplane/cifar10_airplane_0"
    found = [
        decode_recording(framing, (cifar10dvs / path).read_bytes(), "f").events.tolist()
        for path in (f"extract/{name}.aedat", f"events_np/{name}.npz")
    ]
    assert found[0] == found[1]


def test_own_data_set_with_other_class_names_than_folders_is_refused(cifar10dvs: Path) -> None:
    framing = load_registry().dataset("cifar10dvs")
    changes = {"name": "toys", "title": "my toys", "classes": ("plane", *CLASSES[1:])}
    mine = framing.model_copy(update={"dataset": framing.dataset.model_copy(update=changes)})
    with pytest.raises(RawDataError, match=r"extract/airplane: airplane is no class of my toys: plane, auto") as error:
        open_raw(mine, RawSource(cifar10dvs))
    assert "classes: [airplane, automobile, " in error.value.hint
