"""A user's own data set: folders of splits and classes, with recordings of any format."""

import shutil
import struct
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from factories import encode_aedat4
from raw_files import encode_atis, events_by_id, open_events, pack_tar, pack_zip, save_npz

from plifctl.cache import CacheBuilder, key_of
from plifctl.config.lookup import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.events import EVENT
from plifctl.data.formats.aedat3 import encode_aedat3
from plifctl.data.source import RawSource
from plifctl.errors import DamagedFileError, MissingRawDataError, RawDataError

pytestmark = pytest.mark.usefixtures("places")


MINE = """\
name: mine
title: my gestures
layout: folders
kind: events
shape: [2, 128, 128]
classes: [cars, background]
samples: {train: 4, test: 2}
recipes:
  paper:
    frames: {slicing: number, outside_events: refuse, invalid_events: drop}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data set with a recording of every format, in a user's registry."""
    registry = tmp_path / "registry/datasets"
    registry.mkdir(parents=True)
    (registry / "mine.yaml").write_text(MINE)
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "registry"))
    one = np.array([(7, 1, 2, 1)], EVENT)
    files = {
        "train/cars/a.aedat": encode_aedat3(one),
        "train/cars/b.dat": b"% Version 2\n\x0c\x08" + struct.pack("<II", 7, 1 << 28 | 2 << 14 | 1),
        "train/background/deep/c.bin": encode_atis(one),
        "train/background/d": encode_aedat4((0, "EVTS", one)),
        "test/cars/a.aedat": b"#!AER-DAT2.0\r\n" + struct.pack(">II", 2 << 8 | 126 << 1, 7),
    }
    for name, data in files.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    save_npz(tmp_path / "data/test/background/f.npz", one)
    (tmp_path / "data/train/.DS_Store").write_bytes(b"junk")
    return tmp_path / "data"


def test_folders_recordings_of_every_format_are_read_by_header(mine: Path) -> None:
    raw = open_events("mine", mine)
    assert raw.complete
    assert not raw.verified
    assert [(s.id, s.label, s.split) for s in raw.samples] == [
        ("train/background/d", 1, "train"),
        ("train/background/deep/c", 1, "train"),
        ("train/cars/a", 0, "train"),
        ("train/cars/b", 0, "train"),
        ("test/background/f", 1, "test"),
        ("test/cars/a", 0, "test"),
    ]
    assert list(events_by_id(raw).values()) == [[(7, 1, 2, 1)]] * 6


def test_folders_names_with_line_breaks_blanks_and_foreign_letters_are_samples(mine: Path) -> None:
    for old, new in (
        ("cars/a.aedat", "cars/one\ntwo.aedat"),
        ("cars/b.dat", "cars/ä b.dat"),
        ("background/d", "background/\n"),
    ):
        (mine / "train" / old).rename(mine / "train" / new)
    raw = open_events("mine", mine)
    assert [sample.id for sample in raw.samples[:4]] == [
        "train/background/\n",
        "train/background/deep/c",
        "train/cars/one\ntwo",
        "train/cars/ä b",
    ]
    assert raw.complete
    assert raw.notes == ()
    assert list(events_by_id(raw).values()) == [[(7, 1, 2, 1)]] * 6


@pytest.mark.parametrize("archive", ["mine.zip", "mine.tar.gz", "else.tgz", "ELSE.ZIP", "else.TAR.GZ"])
def test_folders_archive_and_folder_have_the_same_digest(mine: Path, tmp_path: Path, archive: str) -> None:
    target = tmp_path / "packed" / archive
    (pack_zip if archive.lower().endswith(".zip") else pack_tar)(mine, target)
    place = target.parent if archive.startswith("mine") else target
    packed = open_events("mine", place)
    assert packed.digest == open_events("mine", mine).digest
    assert len(events_by_id(packed)) == 6


def test_folders_are_found_by_name_and_by_environment(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.rename(tmp_path / "mine")
    assert len(open_events("mine", tmp_path).samples) == 6
    monkeypatch.setenv("PLIFCTL_RAW_DIR", str(tmp_path))
    assert len(open_events("mine", None).samples) == 6


@pytest.mark.parametrize("form", ["n-cars_{}", "My_{}", "my-{}", "{}ing"])
def test_folders_split_names_may_have_a_prefix(mine: Path, form: str) -> None:
    for split in ("train", "test"):
        (mine / split).rename(mine / form.format(split))
    assert open_events("mine", mine).samples[0].id == f"{form.format('train')}/background/d"


def test_folders_other_classes_than_in_the_yaml_are_refused(mine: Path) -> None:
    (mine / "train/background").rename(mine / "train/backgrund")
    with pytest.raises(
        RawDataError,
        match=r"class folders are backgrund, background, cars, expected the classes .*YAML: background, cars$",
    ):
        open_events("mine", mine)


def test_folders_two_folders_for_one_split_are_refused(mine: Path) -> None:
    shutil.copytree(mine / "train", mine / "old_train")
    with pytest.raises(RawDataError, match="old_train and train, expected one folder for train"):
        open_events("mine", mine)


def test_folders_one_sample_in_two_formats_is_refused(mine: Path) -> None:
    shutil.copy(mine / "train/cars/a.aedat", mine / "train/cars/a.dat")
    with pytest.raises(RawDataError, match=r"train/cars/a exists twice: train/cars/a\.aedat and train/cars/a\.dat"):
        open_events("mine", mine)


def test_folders_file_of_unknown_format_error_names_it(mine: Path) -> None:
    (mine / "train/cars/b.dat").write_text("notes\n!")
    raw = open_events("mine", mine)
    with pytest.raises(DamagedFileError, match=r"b.dat: .*expected a recording of a known"):
        events_by_id(raw)


def test_folders_missing_split_or_foreign_file_is_refused(mine: Path, tmp_path: Path) -> None:
    shutil.rmtree(mine / "test")
    with pytest.raises(RawDataError, match=r"looked for train/ and test/") as error:
        open_events("mine", mine)
    assert "train/CLASS/FILE" in error.value.hint
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(RawDataError, match=r"x.npz: not a file of this data set"):
        open_events("mine", tmp_path / "x.npz")


def test_folders_more_files_than_stated_are_refused(mine: Path) -> None:
    shutil.copy(mine / "train/cars/a.aedat", mine / "train/cars/z.aedat")
    with pytest.raises(RawDataError, match="5 training and 2 test samples, but my gestures has 4 and 2"):
        open_events("mine", mine)


@pytest.mark.real
def test_folders_real_recordings_of_two_formats_have_their_events(mine: Path, shared: Path) -> None:
    shutil.rmtree(mine)
    samples = shared / "data/samples"
    for split, name, file in (
        ("n-cars_train", "cars", "sample_ncars.dat"),
        ("n-cars_test", "cars", "sample_ncars.dat"),
        ("n-cars_train", "background", "sample_nmnist.bin"),
        ("n-cars_test", "background", "sample_nmnist.bin"),
    ):
        (mine / split / name).mkdir(parents=True)
        shutil.copy(samples / file, mine / split / name / file)
    raw = open_events("mine", mine)
    counts = {name: len(events) for name, events in events_by_id(raw).items()}
    assert counts == {
        f"n-cars_{split}/{name}": n
        for split in ("train", "test")
        for name, n in (("cars/sample_ncars", 2009), ("background/sample_nmnist", 4325))
    }


def test_folders_example_of_the_registry_readme_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(__file__).parents[4] / "registry/README.md"
    _, _, example = readme.read_text().partition("# mine/datasets/ncars.yaml\n")
    (tmp_path / "mine/datasets").mkdir(parents=True)
    (tmp_path / "mine/datasets/ncars.yaml").write_text(example.partition("```")[0])
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(tmp_path / "mine"))
    assert load_registry().check() == []
    assert load_registry().dataset("ncars", "authors").dataset.layout == "folders"


def test_folders_zip_with_backslashes_gives_the_same_data(mine: Path) -> None:
    with zipfile.ZipFile(mine.parent / "mine.zip", "w") as archive:
        for path in sorted(mine.rglob("*")):
            member = zipfile.ZipInfo()
            member.filename = path.relative_to(mine).as_posix().replace("/", "\\") + ("\\" if path.is_dir() else "")
            archive.writestr(member, b"" if path.is_dir() else path.read_bytes())
    folder, packed = open_events("mine", mine), open_events("mine", mine.parent / "mine.zip")
    assert packed.digest == folder.digest
    assert events_by_id(packed) == events_by_id(folder)


@pytest.mark.parametrize("folder", ["val", "Valid", "VALIDATION", "my_val", "dev"])
def test_folders_validation_samples_are_a_split_of_their_own(mine: Path, folder: str) -> None:
    before = open_events("mine", mine)
    for name in ("cars", "background"):
        shutil.copytree(mine / "train" / name, mine / folder / name)
    raw = open_events("mine", mine)
    assert [sample.split for sample in raw.samples] == ["train"] * 4 + ["validation"] * 4 + ["test"] * 2
    assert {sample.id.partition("/")[0] for sample in raw.samples if sample.split == "validation"} == {folder}
    assert raw.complete  # the official number is that of training samples
    (note,) = raw.notes
    assert note.startswith("4 recordings are there more than once, 4 of them in different splits; the same are ")
    assert raw.digest != before.digest


def test_folders_with_validation_but_without_test_samples_are_read(mine: Path) -> None:
    registry = mine.parent / "registry/datasets/mine.yaml"
    registry.write_text(MINE.replace("samples: {train: 4, test: 2}\n", ""))
    (mine / "test").rename(mine / "val")
    raw = open_events("mine", mine)
    assert [sample.split for sample in raw.samples] == ["train"] * 4 + ["validation"] * 2


def test_folders_with_one_split_in_an_archive_are_refused(mine: Path) -> None:
    shutil.rmtree(mine / "test")
    pack_zip(mine, mine.parent / "a.zip")
    with pytest.raises(RawDataError, match=r"a\.zip: found train/ alone$") as error:
        open_events("mine", mine.parent / "a.zip")
    assert "test/CLASS/FILE" in error.value.hint


def test_folders_in_capitals_are_read(mine: Path) -> None:
    for name in ("train", "test"):
        (mine / name).rename(mine / name.upper())
    assert len(open_events("mine", mine).samples) == 6


def test_folders_two_folders_of_validation_samples_are_refused(mine: Path) -> None:
    for folder in ("val", "valid"):
        shutil.copytree(mine / "train", mine / folder)
    with pytest.raises(RawDataError, match="val and valid, expected one folder for validation"):
        open_events("mine", mine)


def test_folders_what_is_not_read_is_in_the_notes_with_saved_surveys_too(mine: Path) -> None:
    for name in ("extra/cars/1.bin", "extra/cars/2.bin", "readme/about.txt", "train/lost.bin", "README", "a.png"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_bytes(bytes(5))
    for name in ("cars/a.png", "cars/b.MP4", "cars/readme.txt", "background/deep/c.xml"):
        (mine / "train" / name).write_bytes(b"")
    framing, source = load_registry().dataset("mine"), RawSource(mine, cache_dir=mine.parent / "caches")
    for _ in range(2):
        assert open_raw(framing, source).notes == (
            "4 files are not read (no recording by its name), for example train/background/deep/c.xml",
            "1 file is not read (in no class folder), for example data/train/lost.bin",
            "extra/ is not read (2 files): a data set has train/, test/ and perhaps val/",
        )


def test_folders_without_samples_of_a_class_in_a_split_are_noted(mine: Path) -> None:
    shutil.rmtree(mine / "test/cars")
    assert open_events("mine", mine).notes[-1] == "no test samples of class cars"


def test_folders_files_of_systems_are_no_part_of_the_data(mine: Path) -> None:
    before = open_events("mine", mine)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.aedat", "@eaDir/a.aedat", "__MACOSX/cars/a.aedat"):
        (mine / "train/cars" / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / "train/cars" / name).write_bytes(b"junk")
    raw = open_events("mine", mine)
    assert (raw.digest, raw.notes) == (before.digest, ())


def test_folders_in_a_hidden_folder_are_read(mine: Path) -> None:
    mine.rename(mine.parent / ".mine")
    assert len(open_events("mine", mine.parent / ".mine").samples) == 6


def test_folders_tables_beside_recordings_are_noted_and_alone_are_recordings(mine: Path) -> None:
    before = open_events("mine", mine)
    (mine / "train/cars/a.csv").write_text("age,3")  # as the recording a.aedat
    (mine / "train/cars/people.tsv").write_text("age\t3")
    raw = open_events("mine", mine)
    assert raw.digest == before.digest
    assert raw.notes == ("2 files are not read (no recording by its name), for example train/cars/a.csv",)
    assert len(events_by_id(raw)) == 6
    (mine / "train/background/deep/c.bin").rename(mine / "train/background/deep/c.csv")
    (mine / "train/background/deep/c.csv").write_text("t,x,y,p\n7,1,2,1\n")
    assert events_by_id(open_events("mine", mine))["train/background/deep/c"] == [(7, 1, 2, 1)]


def test_folders_table_that_is_a_recording_is_framed_after_the_survey(mine: Path) -> None:
    (mine / "train/background/deep/c.bin").unlink()
    (mine / "train/background/deep/c.csv").write_text("t,x,y,p\n7,1,2,1\n")
    framing = load_registry().dataset("mine").with_T(2)
    with CacheBuilder(framing, mine.parent / "caches") as builder:
        cache = builder.finish(open_raw(framing, RawSource(mine), make_handler=builder.make_sample_handler))
    assert cache.counts["n_events"].tolist() == [1] * 6


def test_folders_classes_in_either_form_of_unicode_are_found(mine: Path) -> None:
    registry = mine.parent / "registry/datasets/mine.yaml"
    registry.write_text(MINE.replace("cars", unicodedata.normalize("NFC", "Größe é")), encoding="utf-8")
    for split in ("train", "test"):
        (mine / split / "cars").rename(mine / split / unicodedata.normalize("NFD", "Größe é"))
    raw = open_events("mine", mine)
    assert [sample.label for sample in raw.samples] == [0, 0, 1, 1, 0, 1]
    assert len(events_by_id(raw)) == 6


def test_folders_upper_case_endings_are_read(mine: Path) -> None:
    (mine / "train/background/deep/c.bin").rename(mine / "train/background/deep/c.BIN")
    raw = open_events("mine", mine)
    assert "ATIS" in raw.formats_read()
    assert len(events_by_id(raw)) == 6


def test_folders_tar_of_the_current_folder_is_read(mine: Path) -> None:
    target = mine.parent / "packed.tar.gz"
    with tarfile.open(target, "w:gz") as archive:
        archive.add(mine, ".")
    assert open_events("mine", target).digest == open_events("mine", mine).digest


def test_folders_without_splits_names_what_was_found(mine: Path) -> None:
    with pytest.raises(
        MissingRawDataError, match=r"looked for train/ and test/ .*; found there: background/, cars/"
    ) as error:
        open_events("mine", mine / "train")
    assert error.value.hint.endswith("in the data set's YAML: layout: class-folders")


def test_folders_time_unit_of_the_yaml_is_read_and_part_of_the_key(mine: Path) -> None:
    path = mine.parent / "registry/datasets/mine.yaml"
    np.save(mine / "train/cars/b.npy", np.array([(1, 2, 1, 0), (1, 2, 0, 7000)]))
    (mine / "train/cars/b.dat").unlink()
    keys, times = [], []
    for line in ("", "time_unit: us\n", "time_unit: ms\n"):
        path.write_text(MINE + line)
        raw = open_events("mine", mine)
        keys.append(key_of(raw).fields)
        times.append(events_by_id(raw)["train/cars/b"][1][0])
    assert times == [7_000_000, 7000, 7_000_000]
    assert [key.get("time_unit") for key in keys] == [None, "us", "ms"]
    assert "time_unit" not in keys[0]


def test_folders_outside_events_drop_applies_to_aedat2(mine: Path) -> None:
    words = [*range(0, 60, 2), 1 << 20]
    data = b"#!AER-DAT2.0\r\n" + b"".join(struct.pack(">II", word, 10 * k) for k, word in enumerate(words))
    (mine / "test/cars/a.aedat").write_bytes(data)
    raw = open_events("mine", mine)
    with pytest.raises(DamagedFileError, match="another camera") as error:
        events_by_id(raw)
    assert "frames.outside_events=drop" in error.value.hint
    dropping = open_events("mine", mine, "frames.outside_events=drop")
    assert len(events_by_id(dropping)["test/cars/a"]) == 30


@pytest.mark.parametrize("packed", [False, True])
def test_folders_name_of_the_root_is_no_split(mine: Path, packed: bool) -> None:
    stray = mine / "cars/old.bin"
    stray.parent.mkdir()
    stray.write_bytes(encode_atis(np.array([(7, 1, 2, 1)], EVENT)))
    root = mine.rename(mine.parent / "my_val")
    if packed:
        packed_root = root.parent / "packed" / "recordings.zip"
        packed_root.parent.mkdir()
        with zipfile.ZipFile(packed_root, "w") as archive:
            for path in sorted(root.rglob("*")):
                archive.write(path, path.relative_to(root.parent))
        root = packed_root
    raw = open_events("mine", root)
    assert [sample.id for sample in raw.samples if sample.split == "validation"] == []
    assert len(raw.samples) == 6
    assert any("my_val/ is not read (1 file)" in note for note in raw.notes)


@pytest.mark.parametrize("layout", ["at the root", "beside", "class train", "far back"])
def test_folders_in_an_archive_beside_other_files_are_found(tmp_path: Path, mine: Path, layout: str) -> None:
    others = {
        "at the root": ["extra.bin"],
        "beside": ["docs/test/notes.bin", "docs/train/notes.bin"],
        "class train": [],
        "far back": [f"data/extra/{number}.bin" for number in range(25)],
    }[layout]
    names = {path: path.relative_to(mine).as_posix() for path in sorted(mine.rglob("*")) if path.is_file()}
    if layout == "class train":
        registry = tmp_path / "registry/datasets/mine.yaml"
        registry.write_text(registry.read_text().replace("[cars, background]", "[train, background]"))
        names = {path: name.replace("cars/", "train/") for path, name in names.items()}
    above = "data/" if layout in ("at the root", "far back") else ""
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for name in others:
            archive.add(mine / "train/background/deep/c.bin", name)
        for path, name in names.items():
            archive.add(path, above + name)
    raw = open_events("mine", tmp_path / "all.tar")
    assert len(raw.samples) == 6
