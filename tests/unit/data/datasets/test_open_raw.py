"""Where raw files are looked for, in which order, and how they are surveyed."""

import os
from pathlib import Path

import pytest
from factories import write_gestures
from raw_files import open_dataset, write_idx

from plifctl.config.dataset import Framing
from plifctl.config.lookup import load_registry
from plifctl.data import datasets
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset
from plifctl.data.source import RawSource
from plifctl.errors import RawDataError

pytestmark = pytest.mark.usefixtures("places")


def test_open_raw_without_files_error_names_folders_and_source(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"looked for DvsGesture.tar.gz") as error:
        open_dataset("gesture", tmp_path)
    assert "ibm.ent.box.com" in error.value.hint
    assert "--raw DIR" in error.value.hint
    with pytest.raises(RawDataError, match="no such folder"):
        open_dataset("gesture", tmp_path / "nowhere")


def test_open_raw_reads_the_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gestures(tmp_path / "all/synthetic-gesture")
    monkeypatch.setenv("PLIFCTL_RAW_DIR", str(tmp_path / "all"))
    assert len(open_dataset("synthetic-gesture", None).samples) == 33


def test_open_raw_of_a_user_data_set_never_takes_system_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "system")
    monkeypatch.setattr(datasets.FashionMnist, "folder_names", (str(tmp_path / "system"),))
    published = load_registry().dataset("fashion-mnist")
    mine = Framing(dataset=published.dataset.model_copy(update={"name": "mine"}))
    assert len(open_raw(published, RawSource(verify=False)).samples) == 40
    with pytest.raises(RawDataError, match="no raw data"):
        open_raw(mine, RawSource())
    found = open_raw(mine, RawSource(tmp_path / "system"))  # it has no published checksum to differ from
    assert not found.verified
    assert any("a user's own data set" in note for note in found.notes)


def test_open_raw_of_a_user_data_set_never_takes_the_folder_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write_idx(tmp_path / "MNIST/raw")
    published = load_registry().dataset("mnist")
    mine = Framing(dataset=published.dataset.model_copy(update={"name": "kmnist"}))
    monkeypatch.setenv("PLIFCTL_RAW_DIR", str(tmp_path))
    for source in (RawSource(), RawSource(tmp_path)):
        with pytest.raises(RawDataError, match="no raw data"):
            open_raw(mine, source)
    write_idx(tmp_path / "kmnist")
    assert open_raw(mine, RawSource(verify=False)).root == tmp_path / "kmnist"
    assert open_raw(published, RawSource(verify=False)).root == tmp_path / "MNIST/raw"
    read = [record.getMessage() for record in caplog.records]
    assert read == [f"reading MNIST: {tmp_path / place} …" for place in ("kmnist", "MNIST/raw")]


def test_open_raw_looks_in_system_folders_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "system")
    monkeypatch.setattr(datasets.FashionMnist, "folder_names", ("FashionMNIST", str(tmp_path / "system")))
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("PLIFCTL_RAW_DIR", str(tmp_path / "mine"))
    assert open_dataset("fashion-mnist", None).root == tmp_path / "system"
    with pytest.raises(RawDataError, match="no raw data"):
        open_dataset("fashion-mnist", tmp_path / "mine")
    write_idx(tmp_path / "mine/FashionMNIST")
    assert open_dataset("fashion-mnist", None).root == tmp_path / "mine/FashionMNIST"


def test_open_raw_file_changed_after_the_survey_is_refused(gestures: Path, tmp_path: Path) -> None:
    """The content itself is compared: a tool that copies times can change a file unnoticed."""
    raw = open_dataset("synthetic-gesture", gestures)
    assert isinstance(raw, EventDataset)
    path = gestures / "user02_lab.aedat"
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(RawDataError, match=r"user02_lab.aedat has changed since"):
        [member.load() for member in raw.recordings()]


def test_open_raw_saved_survey_is_invalid_once_a_file_changed(gestures: Path, tmp_path: Path) -> None:
    found = load_registry().dataset("synthetic-gesture")

    def digest() -> str:
        return open_raw(found, RawSource(gestures, cache_dir=tmp_path)).digest

    before = digest()
    assert digest() == before
    assert list((tmp_path / ".surveys").glob("*.json"))
    path = gestures / "user02_lab.aedat"
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest() != before


def test_open_raw_progress_rises_to_the_total(gestures: Path) -> None:
    found, reported = load_registry().dataset("synthetic-gesture"), []
    open_raw(found, RawSource(gestures), progress=lambda done, total: reported.append((done, total)))
    assert reported[-1][0] == reported[-1][1]
    assert reported == sorted(reported)
