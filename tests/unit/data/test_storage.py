"""Members of folders, zips and tars: damaged, hostile and unusual ones."""

import gzip
import io
import os
import re
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from factories import write_gestures
from raw_files import atis_recording, events_by_id, open_dataset, open_events, pack_zip, write_nmnist

from plifctl.data import zip_reader
from plifctl.data.storage import Storage
from plifctl.errors import DamagedFileError, RawDataError, UnreadRawDataError

pytestmark = pytest.mark.usefixtures("places")


def write_with_zip(tmp_path: Path, kind: int = zipfile.ZIP_DEFLATED) -> Path:
    """Writes N-MNIST as archives, Train.zip with a single recording, and returns its path."""
    write_nmnist(tmp_path / "a")
    pack_zip(tmp_path / "a/Test", tmp_path / "Test.zip")
    with zipfile.ZipFile(tmp_path / "Train.zip", "w", kind) as archive:
        archive.writestr("Train/0/00000.bin", atis_recording(20) * 100)
    return tmp_path / "Train.zip"


def declare_size(path: Path, size: int) -> None:
    """Changes the size of the member that both of its headers declare."""
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature) + at
        data[start : start + 4] = struct.pack("<I", size)
    path.write_bytes(data)


def test_zip_undamaged_is_read(tmp_path: Path) -> None:
    write_with_zip(tmp_path)
    assert len(open_dataset("nmnist", tmp_path).samples) == 3


def test_zip_member_path_that_leads_outside_is_refused(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "folder")
    pack_zip(tmp_path / "folder/Test", tmp_path / "Test.zip")
    with zipfile.ZipFile(tmp_path / "Train.zip", "w") as archive:
        archive.writestr("../Train/0/00001.bin", atis_recording(3))
    with pytest.raises(DamagedFileError, match="leads outside"):
        open_dataset("nmnist", tmp_path)


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: d[:60] + bytes(20) + d[80:]])
def test_zip_damaged_error_names_the_archive(tmp_path: Path, damage: object) -> None:
    write_nmnist(tmp_path / "folder")
    for split in ("Train", "Test"):
        pack_zip(tmp_path / "folder" / split, tmp_path / f"{split}.zip")
    assert callable(damage)
    (tmp_path / "Train.zip").write_bytes(damage((tmp_path / "Train.zip").read_bytes()))
    with pytest.raises(DamagedFileError, match=r"Train.zip"):
        open_dataset("nmnist", tmp_path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.long
def test_zip_with_a_flipped_bit_is_refused_or_read_as_it_was(tmp_path: Path, kind: int) -> None:
    write_nmnist(tmp_path / "a")
    pack_zip(tmp_path / "a/Test", tmp_path / "Test.zip")
    with zipfile.ZipFile(tmp_path / "Train.zip", "w", kind) as archive:
        for path in sorted((tmp_path / "a/Train").rglob("*.bin")):
            archive.write(path, path.relative_to(tmp_path / "a"))
    original, rng = (tmp_path / "Train.zip").read_bytes(), np.random.default_rng(0)
    expected = events_by_id(open_events("nmnist", tmp_path))
    damaged = [original[7:], original[: len(original) // 2]]
    for _ in range(40):
        data = bytearray(original)
        data[int(rng.integers(30, len(data)))] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(data))
    refused = 0
    for data in damaged:
        (tmp_path / "Train.zip").write_bytes(data)
        try:
            found = events_by_id(open_events("nmnist", tmp_path))
        except RawDataError:
            refused += 1
        else:  # a time, an attribute; or the ending of a name, and the member is no recording
            assert found.items() <= expected.items()
            assert len(found) >= len(expected) - 1
    assert refused > 15


@pytest.mark.parametrize("size", [9_999, 10_001, 2**20])
def test_zip_other_declared_size_is_refused(tmp_path: Path, size: int) -> None:
    declare_size(write_with_zip(tmp_path), size)
    with pytest.raises(DamagedFileError, match=r"Train\.zip"):
        open_dataset("nmnist", tmp_path)


def test_zip_declared_bomb_is_refused_unread(tmp_path: Path) -> None:
    declare_size(write_with_zip(tmp_path), 2**29)
    with pytest.raises(DamagedFileError, match=r"00000\.bin: refused, \d+ bytes are declared to unpack to 536870912"):
        open_dataset("nmnist", tmp_path)


@pytest.mark.long
def test_zip_undeclared_bomb_is_refused_without_memory(tmp_path: Path) -> None:
    path = write_with_zip(tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Train/0/00000.bin", bytes(2**28))
    declare_size(path, 1000)
    tracemalloc.start()
    with pytest.raises(DamagedFileError):
        open_dataset("nmnist", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_zip_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = write_with_zip(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 9] |= 8  # names are UTF-8
    data[at + 46] = 0xFF
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"Train\.zip: damaged, .* can't decode byte 0xff"):
        open_dataset("nmnist", tmp_path)


def test_zip_of_unknown_version_is_refused(tmp_path: Path) -> None:
    path = write_with_zip(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"Train\.zip: damaged, .* version 9\.9"):
        open_dataset("nmnist", tmp_path)


@pytest.mark.parametrize("packed", [1000, 2**30])
def test_zip_more_packed_bytes_than_the_archive_has_are_not_allocated(tmp_path: Path, packed: int) -> None:
    path = write_with_zip(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 20 : at + 24] = struct.pack("<I", packed)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(DamagedFileError, match=f"{packed} bytes in an archive of {len(data)}"):
        open_dataset("nmnist", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_zip_large_member_is_read_at_a_plausible_ratio_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_reader, "_LARGE_BYTES", 100)
    write_with_zip(tmp_path)
    assert len(open_dataset("nmnist", tmp_path).samples) == 3
    with zipfile.ZipFile(tmp_path / "Train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Train/0/00000.bin", bytes(10**6))
    with pytest.raises(DamagedFileError, match="refused"):
        open_dataset("nmnist", tmp_path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_other_compression_methods_are_refused(tmp_path: Path, kind: int) -> None:
    write_with_zip(tmp_path, kind)
    with pytest.raises(DamagedFileError, match=r"compressed by method \d+; expected stored"):
        open_dataset("nmnist", tmp_path)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """An archive of gestures."""
    write_gestures(tmp_path / "DvsGesture")
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed/DvsGesture.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "DvsGesture", "DvsGesture")
    return tmp_path / "packed/DvsGesture.tar.gz"


def test_tar_flipped_byte_never_changes_what_is_read(packed: Path) -> None:
    original = packed.read_bytes()
    expected = open_dataset("gesture", packed.parent).digest
    data = original.index(0, 10) + 1 if original[3] & 8 else 10  # its header may contain a name
    for place in np.random.default_rng(0).integers(data, len(original), 60):
        packed.write_bytes(original[:place] + bytes([original[place] ^ 0x04]) + original[place + 1 :])
        try:
            found = open_dataset("gesture", packed.parent)
        except (DamagedFileError, RawDataError):
            continue
        assert found.digest == expected  # a back reference into a run of equal bytes may have several distances
    packed.write_bytes(original)
    assert open_dataset("gesture", packed.parent).digest == expected


def test_tar_cut_anywhere_is_refused(packed: Path) -> None:
    original = packed.read_bytes()
    plain = gzip.decompress(original)
    (packed.parent.parent / "plain").mkdir()
    tar = packed.parent.parent / "plain/DvsGesture.tgz"
    for end in range(512, len(plain.rstrip(b"\0")), 512 * 7):
        tar.write_bytes(plain[:end])
        with pytest.raises((DamagedFileError, RawDataError)):
            open_dataset("gesture", tar.parent)
    for cut in (1, 4, 8, 100, len(original) // 2):
        packed.write_bytes(original[:-cut])
        with pytest.raises((DamagedFileError, RawDataError)):
            open_dataset("gesture", packed.parent)


def test_tar_decompression_bomb_is_refused(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plifctl.data.zip_reader._LARGE_BYTES", 2**20)
    with tarfile.open(packed, "w:gz") as archive:
        info = tarfile.TarInfo("DvsGesture/user01_lab.aedat")
        info.size = 2**23
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DamagedFileError, match="refused, it unpacks to"):
        open_dataset("gesture", packed.parent)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_tar_link_or_device_in_place_of_a_recording_is_refused(tmp_path: Path, kind: bytes) -> None:
    write_gestures(tmp_path / "raw")
    with tarfile.open(tmp_path / "DvsGesture.tar.gz", "w:gz") as archive:
        for path in sorted((tmp_path / "raw").iterdir()):
            if path.name != "user01_lab.aedat":
                archive.add(path, f"DvsGesture/{path.name}")
        link = tarfile.TarInfo("DvsGesture/user01_lab.aedat")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link, io.BytesIO())
    with pytest.raises(DamagedFileError, match="expected a regular file"):
        open_dataset("gesture", tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["user01_lab.aedat", "user01_lab_labels.csv", "trials_to_test.txt"])
def test_folder_pipe_in_place_of_a_file_is_refused_at_once(gestures: Path, name: str) -> None:
    (gestures / name).unlink()
    os.mkfifo(gestures / name)
    with pytest.raises(DamagedFileError, match=f"{name}: a pipe, a socket or a device"):
        open_dataset("synthetic-gesture", gestures)


@pytest.mark.parametrize("name", ["a", "a/b/c"])
def test_folder_loop_of_links_is_named(tmp_path: Path, name: str) -> None:
    write_nmnist(tmp_path)
    loop = tmp_path / "Train/0" / name
    loop.parent.mkdir(parents=True, exist_ok=True)
    loop.symlink_to(tmp_path / "Train")
    with pytest.raises(DamagedFileError, match=f"{loop}: a link to a folder above it") as error:
        open_dataset("nmnist", tmp_path)
    assert error.value.hint == "remove the link"


def test_folder_broken_links_and_strange_names_beside_are_ignored(gestures: Path) -> None:
    (gestures / ".#labels").symlink_to("nowhere")
    (gestures / "unrelated").symlink_to("nowhere")
    Path(os.fsdecode(os.fsencode(gestures) + b"/\xe9.txt")).write_text("x")
    assert len(open_dataset("synthetic-gesture", gestures).samples) == 33


def test_folder_broken_link_in_place_of_a_file_error_names_it(gestures: Path) -> None:
    (gestures / "user01_lab.aedat").unlink()
    (gestures / "user01_lab.aedat").symlink_to("nowhere")
    with pytest.raises(RawDataError, match=r"user01_lab.aedat: removed while it was read, or a broken link"):
        open_dataset("synthetic-gesture", gestures)


def test_survey_keeps_the_texts_of_lists_only(tmp_path: Path) -> None:
    (tmp_path / "a_labels.csv").write_text("a,b")
    (tmp_path / "events.txt").write_text("0 1 2 3\n" * 10_000)  # longer than a list may be
    pattern = re.compile(r"([^/]+)$")
    assert Storage(tmp_path, pattern).survey().texts == {}
    assert Storage(tmp_path, pattern, lists=re.compile(r"_labels\.csv$")).survey().texts == {"a_labels.csv": "a,b"}
    with pytest.raises(DamagedFileError, match=r"events\.txt: 80000 bytes, expected a list"):
        Storage(tmp_path, pattern, lists=re.compile(r"\.txt$")).survey()


def test_survey_counts_ignored_files_apart_from_skipped_ones_and_saved_too(tmp_path: Path) -> None:
    for name in ("a/1.bin", "a/1.png", "a/2.png", "b/x.txt"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(b"x")
    pack_zip(tmp_path / "raw", tmp_path / "raw.zip")
    for path in (tmp_path / "raw", tmp_path / "raw.zip"):
        for _ in range(2):
            storage = Storage(path, re.compile(r"(a/[^/]+)$"), ignored=re.compile(r"\.png$"))
            survey = storage.survey(tmp_path / "surveys")
            assert [*survey.members] == ["a/1.bin"]
            assert {folder: count for folder, (count, _) in survey.ignored.items()} == {"raw/a": 2}
            assert {folder: count for folder, (count, _) in survey.skipped.items()} == {"raw/b": 1}


@pytest.mark.parametrize(
    "name",
    [
        *(".hidden", "a/.hidden/b", "__MACOSX/a", "a/Thumbs.db", "desktop.ini", "@eaDir/a", "$RECYCLE.BIN/a"),
        *("lost+found/a", "System Volume Information/a", "a/._b", "Icon\r"),
    ],
)
def test_survey_files_of_systems_are_no_members_and_not_counted(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / "raw" / name, tmp_path / "raw/kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    pack_zip(tmp_path / "raw", tmp_path / "raw.zip")
    for path in (tmp_path / "raw", tmp_path / "raw.zip"):
        survey = Storage(path, re.compile(r"^raw/([\s\S]+)$")).survey()
        assert [*survey.members] == ["kept"]
        assert survey.skipped == {}


def test_survey_of_a_tar_of_the_current_folder_has_its_members(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.bin").write_bytes(b"x")
    with tarfile.open(tmp_path / "raw.tar", "w") as archive:
        archive.add(tmp_path / "raw", ".")
    assert [*Storage(tmp_path / "raw.tar", re.compile(r"^([\s\S]+)$")).survey().members] == ["a.bin"]


def test_survey_that_may_not_read_uses_what_was_saved_and_refuses_changed_files(tmp_path: Path) -> None:
    folder, pattern = tmp_path / "raw", re.compile(r"^raw/([\s\S]+)$")
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"12345")
    with pytest.raises(UnreadRawDataError, match="never read"):
        Storage(folder, pattern).survey(tmp_path / "surveys", read=False)
    saved = Storage(folder, pattern).survey(tmp_path / "surveys")
    assert Storage(folder, pattern).survey(tmp_path / "surveys", read=False).digest == saved.digest
    (folder / "a.bin").write_bytes(b"123456")
    with pytest.raises(UnreadRawDataError, match="changed"):
        Storage(folder, pattern).survey(tmp_path / "surveys", read=False)
