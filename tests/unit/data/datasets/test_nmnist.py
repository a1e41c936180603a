"""N-MNIST in its layouts: archives, folders, and what SpikingJelly and tonic make of them."""

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factories import random_events
from raw_files import (
    atis_recording,
    encode_atis,
    events_by_id,
    open_dataset,
    open_events,
    pack_zip,
    save_npz,
    write_nmnist,
)

from plifctl.config.lookup import load_registry
from plifctl.data import datasets
from plifctl.data.datasets.base import EventDataset, RawDataset
from plifctl.data.source import RawSource
from plifctl.errors import ChecksumError, RawDataError

pytestmark = pytest.mark.usefixtures("places")


@pytest.fixture
def nmnist(tmp_path: Path) -> Path:
    """SpikingJelly's folder: extract and events_np, no archives."""
    root, rng = tmp_path / "NMNIST", np.random.default_rng(0)
    for split, count in (("Train", 3), ("Test", 1)):
        for digit in range(2):
            for n in range(count):
                events = random_events(rng, 20, size=34)
                path = root / "extract" / split / str(digit) / f"{n:05d}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode_atis(events))
                save_npz(root / "events_np" / split.lower() / str(digit) / f"{n:05d}.npz", events)
    return root


def test_nmnist_zip_and_folder_have_the_same_digest_without_hidden_files(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "folder")
    (tmp_path / "folder/Train/.DS_Store").write_bytes(b"junk")
    folder = open_dataset("nmnist", tmp_path / "folder")
    (tmp_path / "packed").mkdir()
    for split in ("Train", "Test"):
        pack_zip(tmp_path / "folder" / split, tmp_path / f"packed/{split}.zip")
    packed = open_dataset("nmnist", tmp_path / "packed")
    assert folder.digest == packed.digest
    assert [s.id for s in packed.samples][-3:] == ["Train/1/00002", "Test/0/00000", "Test/1/00000"]
    assert isinstance(packed, EventDataset)
    assert sum(1 for _ in packed.recordings()) == 8


def test_nmnist_different_checksum_is_refused_unless_accepted(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "folder")
    for split in ("Train", "Test"):
        pack_zip(tmp_path / "folder" / split, tmp_path / f"{split}.zip")
    with pytest.raises(ChecksumError, match=r"Train.zip: md5 \w+, the published file has 20959b8e") as error:
        open_dataset("nmnist", tmp_path, verify=True)
    assert "--no-checksum" in error.value.hint
    assert not open_dataset("nmnist", tmp_path, verify=False).verified


def test_nmnist_is_verified_only_if_every_part_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nmnist(tmp_path / "a")
    for part in ("Train", "Test"):
        pack_zip(tmp_path / "a" / part, tmp_path / f"{part}.zip")
    sums = {part: (hashlib.md5((tmp_path / f"{part}.zip").read_bytes()).hexdigest(),) for part in ("Train", "Test")}
    monkeypatch.setattr(datasets.Nmnist, "md5", sums)
    assert open_dataset("nmnist", tmp_path, verify=True).verified
    assert not open_dataset("nmnist", tmp_path / "a", verify=True).verified  # folders have no published checksum
    monkeypatch.setattr(datasets.Nmnist, "md5", {**sums, "Test": ("0" * 32,)})
    assert not open_dataset("nmnist", tmp_path).verified
    with pytest.raises(ChecksumError, match=r"Test.zip: md5"):
        open_dataset("nmnist", tmp_path, verify=True)


def test_nmnist_changed_file_changes_the_digest(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    before = open_dataset("nmnist", tmp_path)
    (tmp_path / "Train/0/00000.bin").write_bytes(atis_recording(9))
    assert open_dataset("nmnist", tmp_path).digest != before.digest


def test_nmnist_named_file_is_the_one_that_is_read(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "a")
    pack_zip(tmp_path / "a/Train", tmp_path / "Train.zip")
    pack_zip(tmp_path / "a/Test", tmp_path / "Test.zip")
    assert len(open_dataset("nmnist", tmp_path / "Train.zip").samples) == 8
    (tmp_path / "links").mkdir()
    for part in ("Train", "Test"):
        (tmp_path / f"{part}.zip").rename(tmp_path / f"{part}.blob")
        (tmp_path / f"links/{part}.zip").symlink_to(tmp_path / f"{part}.blob")
    assert len(open_dataset("nmnist", tmp_path / "links/Train.zip").samples) == 8
    (tmp_path / "other.zip").write_bytes(b"x")
    with pytest.raises(RawDataError, match=r"other.zip: not a file of this data set"):
        open_dataset("nmnist", tmp_path / "other.zip")


def test_nmnist_spikingjelly_archives_are_preferred_then_extract_then_events_np(nmnist: Path) -> None:
    extracted = open_events("nmnist", nmnist)
    assert extracted.root == nmnist / "extract"
    assert not any("converted" in note for note in extracted.notes)
    for part in ("Train", "Test"):
        pack_zip(nmnist / "extract" / part, nmnist / f"download/{part}.zip")
    packed = open_events("nmnist", nmnist)
    assert packed.root == nmnist / "download"
    assert packed.digest == extracted.digest
    shutil.rmtree(nmnist / "download")
    shutil.rmtree(nmnist / "extract")
    converted = open_events("nmnist", nmnist)
    assert converted.root == nmnist / "events_np"
    assert any("converted: read from SpikingJelly's events_np" in note for note in converted.notes)
    assert not converted.verified
    assert converted.samples == extracted.samples
    assert open_events("nmnist", nmnist / "events_np").samples == extracted.samples
    assert open_events("nmnist", nmnist.parent).samples == extracted.samples


def test_nmnist_events_np_has_the_events_of_the_original(nmnist: Path) -> None:
    assert events_by_id(open_events("nmnist", nmnist / "extract")) == events_by_id(
        open_events("nmnist", nmnist / "events_np")
    )


def test_nmnist_unfinished_conversion_is_refused(nmnist: Path) -> None:
    (nmnist / "events_np.building").touch()
    assert open_events("nmnist", nmnist).root == nmnist / "extract"
    with pytest.raises(RawDataError, match="SpikingJelly has not finished converting it"):
        open_events("nmnist", nmnist / "events_np")


def test_nmnist_tonic_folder_and_archives_have_the_same_digest(nmnist: Path, tmp_path: Path) -> None:
    extracted = open_events("nmnist", nmnist)
    for part in ("Train", "Test"):
        shutil.move(nmnist / "extract" / part, tmp_path / "tonic/NMNIST" / part)
    assert open_events("nmnist", tmp_path / "tonic").digest == extracted.digest
    for part in ("Train", "Test"):
        pack_zip(tmp_path / "tonic/NMNIST" / part, tmp_path / f"tonic/NMNIST/{part.lower()}.zip")
    assert open_events("nmnist", tmp_path / "tonic").digest == extracted.digest
    with pytest.raises(ChecksumError, match=r"train\.zip"):
        open_events("nmnist", tmp_path / "tonic", verify=True)


def test_nmnist_members_of_the_other_split_are_ignored(nmnist: Path, tmp_path: Path) -> None:
    pack_zip(nmnist / "extract", tmp_path / "both/Train.zip")
    pack_zip(nmnist / "extract", tmp_path / "both/Test.zip")
    both = open_events("nmnist", tmp_path / "both")
    assert both.samples == open_events("nmnist", nmnist).samples
    assert sum(1 for _ in both.recordings()) == len(both.samples) == 8


def pack_as(root: Path, target: Path, rename: Callable[[str], str]) -> None:
    """Packs Train and Test of N-MNIST into Train.zip and Test.zip, with other names of the members."""
    target.mkdir()
    for split in ("Train", "Test"):
        with zipfile.ZipFile(target / f"{split}.zip", "w") as archive:
            for path in sorted((root / split).rglob("*.bin")):
                member = zipfile.ZipInfo()
                member.filename = rename(path.relative_to(root).as_posix())
                archive.writestr(member, path.read_bytes())


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("/", "\\"),
        lambda name: name.partition("/")[2],
        str.lower,
        lambda name: f"n-mnist/{name}",
    ],
    ids=["backslashes", "flat", "lower-case", "in-a-folder"],
)
def test_nmnist_archives_that_were_packed_again_give_the_same_data(
    tmp_path: Path, rename: Callable[[str], str]
) -> None:
    write_nmnist(tmp_path / "original")
    pack_as(tmp_path / "original", tmp_path / "packed", rename)
    original, packed = (open_events("nmnist", tmp_path / name) for name in ("original", "packed"))
    assert packed.digest == original.digest
    assert events_by_id(packed) == events_by_id(original)
    assert len(packed.samples) == 8


def test_nmnist_archives_without_samples_say_what_was_looked_for_and_found(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "original")
    pack_as(tmp_path / "original", tmp_path / "packed", lambda name: name.replace(".bin", ".dat"))
    with pytest.raises(RawDataError, match="found 0 training and 0 test samples") as error:
        open_events("nmnist", tmp_path / "packed")
    assert error.value.hint == "looked for files such as Train/3/00041.bin; found 8 others, such as Train/0/00000.dat"


def open_own_digits(root: Path, classes: int) -> RawDataset:
    """Opens a user's own data set in the layout of N-MNIST."""
    published = load_registry().dataset("nmnist")
    names = tuple(f"digit {n}" for n in range(classes))
    changes = {"name": "digits", "title": "my digits", "classes": names}
    return datasets.open_raw(
        published.model_copy(update={"dataset": published.dataset.model_copy(update=changes)}), RawSource(root)
    )


def test_own_data_set_with_fewer_classes_than_folders_is_refused(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "raw")
    for split in ("Train", "Test"):
        (tmp_path / "raw" / split / "1").rename(tmp_path / "raw" / split / "7")
    expected = r"raw: sample Test/7/00000 is of class 7, but my digits has 7 classes, 0 to 6"
    with pytest.raises(RawDataError, match=expected) as error:
        open_own_digits(tmp_path / "raw", 7)
    assert "classes: of the data set's YAML" in error.value.hint
    assert {sample.label for sample in open_own_digits(tmp_path / "raw", 8).samples} == {0, 7}


def test_own_data_set_notes_classes_without_samples(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw/Test/1")
    notes = open_own_digits(tmp_path / "raw", 3).notes
    assert notes[-2:] == ("no training samples of class digit 2", "no test samples of classes digit 1, digit 2")
