"""A user's own recordings in a folder for each class, without an official split."""

import shutil
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from factories import build_cache
from raw_files import atis_recording, events_by_id, metavision_index, open_events, pack_tar, pack_zip

from plifctl.errors import DamagedFileError, MissingRawDataError, RawDataError, RegistryError

pytestmark = pytest.mark.usefixtures("places")

HANDS = """\
name: hands
title: my hands
layout: class-folders
kind: events
shape: [2, 34, 34]
classes: [left, right]
recipes:
  paper:
    frames: {slicing: number, outside_events: refuse, invalid_events: drop}
"""


@pytest.fixture
def hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five recordings of two classes, some in folders of subjects."""
    write_yaml(tmp_path, HANDS)
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "registry"))
    names = ("left/anna/1", "left/anna/2", "left/bob/1", "right/anna/1", "right/3")
    for n, name in enumerate(names, 5):
        path = tmp_path / "data" / f"{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(atis_recording(n))
    return tmp_path / "data"


def write_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "registry/datasets").mkdir(parents=True, exist_ok=True)
    (tmp_path / "registry/datasets/hands.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("stated", "complete"), [("{train: 4, test: 1}", True), ("{train: 9, test: 1}", False)])
def test_class_folders_are_complete_if_they_have_as_many_samples_as_stated(
    hands: Path, tmp_path: Path, stated: str, *, complete: bool
) -> None:
    write_yaml(tmp_path, f"{HANDS}samples: {stated}\n")
    assert open_events("hands", hands).complete == complete


def test_class_folders_with_more_samples_than_stated_are_refused(hands: Path, tmp_path: Path) -> None:
    write_yaml(tmp_path, f"{HANDS}samples: {{train: 3, test: 1}}\n")
    with pytest.raises(RawDataError, match="5 training and 0 test samples, but my hands has 4 and 0"):
        open_events("hands", hands)


def test_class_folders_samples_have_no_split_and_keep_their_paths(hands: Path) -> None:
    raw = open_events("hands", hands)
    assert [(sample.id, sample.label, sample.split) for sample in raw.samples] == [
        ("left/anna/1", 0, "train"),
        ("left/anna/2", 0, "train"),
        ("left/bob/1", 0, "train"),
        ("right/3", 1, "train"),
        ("right/anna/1", 1, "train"),
    ]
    assert raw.complete
    assert raw.notes == ()
    assert [len(events) for events in events_by_id(raw).values()] == [5, 6, 7, 9, 8]


def pack_flat(folder: Path, target: Path) -> None:
    with tarfile.open(target, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)


def pack_deep(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*.bin")):
            archive.write(path, f"study/2024/{path.relative_to(folder)}")


@pytest.mark.parametrize(
    ("name", "pack"), [("a.zip", pack_zip), ("a.tgz", pack_tar), ("a.tar", pack_flat), ("b.zip", pack_deep)]
)
def test_class_folders_archive_and_folder_have_the_same_digest(hands: Path, name: str, pack: object) -> None:
    assert callable(pack)
    pack(hands, hands.parent / name)
    folder, packed = open_events("hands", hands), open_events("hands", hands.parent / name)
    assert packed.digest == folder.digest
    assert packed.samples == folder.samples
    assert events_by_id(packed) == events_by_id(folder)


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_class_folders_in_a_folder_of_the_name_of_a_class_are_read(hands: Path, pack: object) -> None:
    assert callable(pack)
    named = hands.rename(hands.parent / "left")
    pack(named, hands.parent / "hands.tar.gz" if pack is pack_tar else hands.parent / "hands.zip")
    assert open_events("hands", hands.parent).samples == open_events("hands", named).samples
    assert len(open_events("hands", hands.parent).samples) == 5


def test_class_folders_stray_file_in_a_folder_of_the_name_of_a_class_is_noted(hands: Path) -> None:
    named = hands.rename(hands.parent / "left")
    (named / "lost.bin").write_bytes(atis_recording(3))
    raw = open_events("hands", named)
    assert len(raw.samples) == 5
    assert raw.notes == ("1 file is not read (in no class folder), for example left/lost.bin",)


@pytest.mark.parametrize("name", ["hands.zip", "hands.tar.gz"])
def test_class_folders_stray_files_above_them_in_an_archive_are_noted(hands: Path, name: str) -> None:
    top = hands.parent / "left"
    top.mkdir()
    hands.rename(top / "right")
    for folder in (top, top / "right", top / "other"):
        folder.mkdir(exist_ok=True)
        (folder / "lost.bin").write_bytes(atis_recording(3))
    (pack_zip if name.endswith(".zip") else pack_tar)(top, hands.parent / name)
    raw = open_events("hands", hands.parent / name)
    assert len(raw.samples) == 5
    assert raw.notes[0].startswith("3 files are not read (in no class folder), for example left/")


def test_archive_that_is_read_instead_of_the_folders_beside_it_is_named(hands: Path) -> None:
    pack_zip(hands, hands / "hands.zip")
    assert any(
        note.startswith("read from hands.zip; the folders beside it are not")
        for note in open_events("hands", hands).notes
    )
    assert not any("read from" in note for note in open_events("hands", hands / "hands.zip").notes)


def test_class_folders_in_an_archive_with_splits_are_refused(hands: Path) -> None:
    (hands.parent / "set").mkdir()
    shutil.copytree(hands, hands.parent / "set/train")
    shutil.copytree(hands, hands.parent / "set/test")
    pack_zip(hands.parent / "set", hands.parent / "set.zip")
    with pytest.raises(RawDataError, match=r"class folders in more than one folder: .*/left/anna") as error:
        open_events("hands", hands.parent / "set.zip")
    assert "layout: folders" in error.value.hint
    found = r"the classes left/, right/ in .*; found there: test/, train/"
    with pytest.raises(MissingRawDataError, match=found) as error:
        open_events("hands", hands.parent / "set")
    assert error.value.hint.endswith("layout: folders")


@pytest.mark.parametrize("other", ["rigth", "calibration"])
def test_class_folders_other_folders_than_in_the_yaml_are_refused(hands: Path, other: str) -> None:
    (hands / other).mkdir()
    assert len(open_events("hands", hands).samples) == 5  # it is empty
    (hands / other / "1.bin").write_bytes(atis_recording(3))
    with pytest.raises(RawDataError, match=f"the class folders are {other}, left, right, expected"):
        open_events("hands", hands)
    shutil.rmtree(hands / "right")
    with pytest.raises(RawDataError, match=f"the class folders are {other}, left, expected .*YAML: right, left"):
        open_events("hands", hands)


def test_class_folders_class_whose_folder_is_empty_is_refused(hands: Path) -> None:
    for path in (hands / "right").rglob("*.bin"):
        path.unlink()
    with pytest.raises(RawDataError, match="the class folders are left, expected") as error:
        open_events("hands", hands)
    assert "a folder without recordings does not count" in error.value.hint


def test_class_folders_files_outside_of_them_are_noted(hands: Path) -> None:
    (hands / "lost.bin").write_bytes(atis_recording(3))
    (hands / "README.md").write_text("about")
    (hands / "left/anna/face.jpg").write_bytes(b"")
    assert open_events("hands", hands).notes == (
        "1 file is not read (no recording by its name), for example left/anna/face.jpg",
        "1 file is not read (in no class folder), for example data/lost.bin",
    )


def test_class_folders_files_that_metavision_writes_beside_a_recording_are_no_samples(hands: Path) -> None:
    (hands / "left/anna/1.bin.tmp_index").write_bytes(metavision_index())
    (hands / "left/anna/1.bias").write_text("300 % bias_diff\n")
    raw = open_events("hands", hands)
    assert len(raw.samples) == 5
    assert raw.notes == ("2 files are not read (no recording by its name), for example left/anna/1.bias",)
    (hands / "left/anna/renamed").write_bytes(metavision_index())
    with pytest.raises(DamagedFileError, match="left/anna/renamed: a file of format Metavision index") as error:
        events_by_id(open_events("hands", hands))
    assert "move the index out of the folder" in error.value.hint


def test_class_folders_names_of_macos_and_windows_give_the_same_samples(hands: Path) -> None:
    write_yaml(hands.parent, HANDS.replace("left", unicodedata.normalize("NFC", "größe")))
    (hands / "left/anna/1.bin").rename(hands / "left/anna/zwölf é.bin")
    keys = set()
    for form in ("NFC", "NFD"):
        root = hands.parent / form
        for path in hands.rglob("*.bin"):
            name = path.relative_to(hands).as_posix().replace("left", "größe")
            target = root / unicodedata.normalize(form, name)  # type: ignore[arg-type]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        raw = open_events("hands", root)
        keys.add((raw.digest, raw.samples))
        assert len(events_by_id(raw)) == 5
    assert len(keys) == 1


def test_class_folders_are_found_by_the_yaml_unless_another_place_is_named(
    hands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(hands.parent, HANDS + f"raw: {hands}\n")
    assert open_events("hands", None).root == hands
    other = Path(shutil.copytree(hands, hands.parent / "other"))
    monkeypatch.setenv("PLIFCTL_RAW_DIR", str(other))
    assert open_events("hands", None).root == hands
    assert open_events("hands", other).root == other
    write_yaml(hands.parent, HANDS)
    assert open_events("hands", None).root == other
    pack_zip(hands, hands.parent / "packed.zip")
    write_yaml(hands.parent, HANDS + f"raw: {hands.parent / 'packed.zip'}\n")
    assert open_events("hands", None).digest == open_events("hands", hands).digest


def test_class_folders_missing_place_error_names_where_it_is_named(hands: Path, tmp_path: Path) -> None:
    write_yaml(hands.parent, HANDS + f"raw: {tmp_path / 'nowhere'}\n")
    with pytest.raises(RawDataError, match=r"^raw: of my hands: .*nowhere: no such folder$") as error:
        open_events("hands", None)
    assert "mkdir" not in error.value.hint
    write_yaml(hands.parent, HANDS)
    with pytest.raises(MissingRawDataError, match="no folder: PLIFCTL_RAW_DIR is not set") as error:
        open_events("hands", None)
    assert "raw: PATH in the data set's YAML" in error.value.hint
    assert "CLASS/FILE" in error.value.hint


def test_class_folders_cache_has_no_official_split(hands: Path, tmp_path: Path) -> None:
    cache = build_cache(open_events("hands", hands), 2, tmp_path / "c")
    assert cache.splits == ["train"] * 5
    assert cache.groups is None
    assert cache.counts["n_events"].tolist() == [5, 6, 7, 9, 8]


def test_class_folders_copies_of_a_recording_are_noted(hands: Path) -> None:
    shutil.copy(hands / "left/anna/1.bin", hands / "left/copy.bin")
    (note,) = open_events("hands", hands).notes
    assert note == "1 recording is there more than once; the same are left/anna/1.bin, left/copy.bin"
    shutil.copy(hands / "left/anna/1.bin", hands / "right/wrong.bin")
    (note,) = open_events("hands", hands).notes
    assert note.startswith("1 recording is there more than once, 1 of them in different classes; the same are left/")


def test_class_folders_classes_that_are_the_same_are_refused(hands: Path) -> None:
    write_yaml(hands.parent, HANDS.replace("[left, right]", "[left, right, left]"))
    with pytest.raises(RegistryError, match=r"'left' is there 2 times, expected each class once"):
        open_events("hands", hands)
