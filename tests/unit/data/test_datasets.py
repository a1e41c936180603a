"""Layouts, checksums, completeness, and that an archive and its folder are one thing."""

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from factories import write_gestures

from plifctl.config.choices import Recipe
from plifctl.config.dataset import Framing
from plifctl.config.registry import load_registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset, ImageDataset
from plifctl.data.source import RawSource
from plifctl.errors import ChecksumError, DamagedFileError, RawDataError

pytestmark = pytest.mark.usefixtures("places")


def opened(
    name: str, root: Path | None, *, verify: bool = False, recipe: Recipe = "paper"
) -> EventDataset | ImageDataset:
    return open_raw(load_registry().dataset(name, recipe), RawSource(root, verify=verify))


def atis(n: int) -> bytes:
    return b"".join(bytes((k % 34, k % 30, 0x80 * (k % 2), 0, k)) for k in range(n))


def write_nmnist(root: Path) -> None:
    for split, count in (("Train", 3), ("Test", 1)):
        for digit in range(2):
            for n in range(count):
                path = root / split / str(digit) / f"{n:05d}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(atis(5 + digit + n))


def zipped(folder: Path, target: Path, names: list[Path] | None = None) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in names or sorted(folder.rglob("*"), reverse=True):
            archive.write(path, path.relative_to(folder.parent))


def write_idx(root: Path, train: int = 30, test: int = 10, *, packed: bool = True) -> None:
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, n in (("train", train), ("t10k", test)):
        files = {
            f"{name}-images-idx3-ubyte": struct.pack(">HBBIII", 0, 8, 3, n, 28, 28) + rng.bytes(n * 784),
            f"{name}-labels-idx1-ubyte": struct.pack(">HBBI", 0, 8, 1, n) + bytes(k % 10 for k in range(n)),
        }
        for file, data in files.items():
            if packed:
                (root / f"{file}.gz").write_bytes(gzip.compress(data))
            else:
                (root / file).write_bytes(data)


class TestGesture:
    def test_samples_and_events(self, gestures: Path) -> None:
        raw = opened("synthetic-gesture", gestures)
        assert isinstance(raw, EventDataset)
        assert [sample.id for sample in raw.samples[:2]] == ["user01_lab/00", "user01_lab/01"]
        assert [sample.split for sample in raw.samples].count("test") == 11
        assert [sample.label for sample in raw.samples[:11]] == list(range(11))
        found = {
            row: events for member in raw.recordings() for row, events, _ in raw.decode(member.name, member.load())
        }
        assert sorted(found) == list(range(33))
        for row, events in found.items():
            assert len(events) == 400
            assert set(events["x"] // 10) == {raw.samples[row].label}

    def test_incomplete_sets_say_so(self, gestures: Path) -> None:
        raw = opened("synthetic-gesture", gestures)
        assert not raw.complete
        assert raw.notes[0].startswith("incomplete: 22 of 440 training and 11 of 110 test samples")

    def test_archive_and_folder_have_one_digest(self, tmp_path: Path) -> None:
        write_gestures(tmp_path / "DvsGesture")
        folder = opened("gesture", tmp_path / "DvsGesture")
        parent = opened("gesture", tmp_path)
        (tmp_path / "packed").mkdir()
        with tarfile.open(tmp_path / "packed/DvsGesture.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "DvsGesture", "DvsGesture")
        packed = opened("gesture", tmp_path / "packed")
        assert folder.digest == parent.digest == packed.digest
        assert folder.samples == packed.samples
        assert isinstance(packed, EventDataset)
        assert len(list(packed.recordings())) == 3

    def test_content_changes_the_digest(self, gestures: Path) -> None:
        before = opened("synthetic-gesture", gestures).digest
        table = gestures / "user01_lab_labels.csv"
        table.write_text(table.read_text().replace("60000", "59999"))
        assert opened("synthetic-gesture", gestures).digest != before

    def test_windows_are_half_open_and_may_overlap_and_repeat(self, gestures: Path) -> None:
        (gestures / "user03_lab_labels.csv").write_text(
            "class,startTime_usec,endTime_usec\n2,0,60000\n1,0,60000\n1,30000,70000\n"
        )
        raw = opened("synthetic-gesture", gestures)
        assert isinstance(raw, EventDataset)
        data = (gestures / "user03_lab.aedat").read_bytes()
        (_, first, _), (_, second, _), (_, third, _) = raw.decode("user03_lab.aedat", data)
        np.testing.assert_array_equal(first, second)
        edge = int(first["t"][200])
        (gestures / "user03_lab_labels.csv").write_text(
            f"class,startTime_usec,endTime_usec\n1,0,{edge}\n1,{edge},60000\n"
        )
        raw = opened("synthetic-gesture", gestures)
        assert isinstance(raw, EventDataset)
        (_, before, _), (_, after, _) = raw.decode("user03_lab.aedat", data)
        assert before["t"].max() < edge == after["t"].min()
        assert len(before) + len(after) == len(first)
        assert (third["t"] >= 30_000).all()

    def test_a_listed_recording_must_be_there(self, gestures: Path) -> None:
        (gestures / "user02_lab.aedat").unlink()
        with pytest.raises(RawDataError, match=r"user02_lab.aedat is missing, named in trials_to_train.txt"):
            opened("synthetic-gesture", gestures)

    @pytest.mark.parametrize("row", ["12,0,5", "0,0,5", "1,5,0", "a,b,c", "1,2"])
    def test_a_bad_label_is_named(self, gestures: Path, row: str) -> None:
        (gestures / "user01_lab_labels.csv").write_text(f"class,startTime_usec,endTime_usec\n1,0,5\n{row}\n")
        with pytest.raises(DamagedFileError, match=r"user01_lab_labels.csv, line 3"):
            opened("synthetic-gesture", gestures)

    def test_a_recording_in_both_splits_is_refused(self, gestures: Path) -> None:
        (gestures / "trials_to_test.txt").write_text("user01_lab.aedat\n")
        with pytest.raises(RawDataError, match="in both"):
            opened("synthetic-gesture", gestures)

    def test_the_published_runs_trained_on_78_recordings(self, tmp_path: Path) -> None:
        write_gestures(tmp_path / "DvsGesture", users=81, events=1)
        assert len(opened("gesture", tmp_path).samples) == 81 * 11
        assert len(opened("gesture", tmp_path, recipe="authors").samples) == (78 + 1) * 11

    @pytest.mark.real
    def test_real_windows_have_the_counted_events(self, shared: Path) -> None:
        raw = opened("gesture", shared / "data/DvsGesture", verify=True)
        assert isinstance(raw, EventDataset)
        counts = json.loads((shared / "data/DvsGesture/counts.json").read_text())
        expected = [n for name in sorted(counts) for n in counts[name]["per_class"]]
        found = {
            row: (len(events), n_raw) for m in raw.recordings() for row, events, n_raw in raw.decode(m.name, m.load())
        }
        assert [found[row] for row in range(50)] == [(n, n) for n in expected]


class TestNmnist:
    def test_zip_and_folder_have_one_digest_and_junk_is_no_sample(self, tmp_path: Path) -> None:
        write_nmnist(tmp_path / "folder")
        (tmp_path / "folder/Train/.DS_Store").write_bytes(b"junk")
        folder = opened("nmnist", tmp_path / "folder")
        (tmp_path / "packed").mkdir()
        for split in ("Train", "Test"):
            zipped(tmp_path / "folder" / split, tmp_path / f"packed/{split}.zip")
        packed = opened("nmnist", tmp_path / "packed")
        assert folder.digest == packed.digest
        assert [s.id for s in packed.samples][-3:] == ["Train/1/00002", "Test/0/00000", "Test/1/00000"]
        assert isinstance(packed, EventDataset)
        assert sum(1 for _ in packed.recordings()) == 8

    def test_a_different_checksum_is_refused_unless_accepted(self, tmp_path: Path) -> None:
        write_nmnist(tmp_path / "folder")
        for split in ("Train", "Test"):
            zipped(tmp_path / "folder" / split, tmp_path / f"{split}.zip")
        with pytest.raises(ChecksumError, match=r"Train.zip: md5 \w+, the published file has 20959b8e") as error:
            opened("nmnist", tmp_path, verify=True)
        assert "--no-checksum" in error.value.hint
        assert not opened("nmnist", tmp_path, verify=False).verified

    def test_a_changed_file_is_read_again(self, tmp_path: Path) -> None:
        write_nmnist(tmp_path)
        before = opened("nmnist", tmp_path)
        (tmp_path / "Train/0/00000.bin").write_bytes(atis(9))
        assert opened("nmnist", tmp_path).digest != before.digest

    def test_a_path_that_leads_outside_is_refused(self, tmp_path: Path) -> None:
        write_nmnist(tmp_path / "folder")
        zipped(tmp_path / "folder/Test", tmp_path / "Test.zip")
        with zipfile.ZipFile(tmp_path / "Train.zip", "w") as archive:
            archive.writestr("../Train/0/00001.bin", atis(3))
        with pytest.raises(DamagedFileError, match="leads outside"):
            opened("nmnist", tmp_path)

    @pytest.mark.parametrize(
        "damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: d[:60] + bytes(20) + d[80:]]
    )
    def test_a_damaged_archive_is_named(self, tmp_path: Path, damage: object) -> None:
        write_nmnist(tmp_path / "folder")
        for split in ("Train", "Test"):
            zipped(tmp_path / "folder" / split, tmp_path / f"{split}.zip")
        assert callable(damage)
        (tmp_path / "Train.zip").write_bytes(damage((tmp_path / "Train.zip").read_bytes()))
        with pytest.raises(DamagedFileError, match=r"Train.zip"):
            opened("nmnist", tmp_path)


def test_cifar10dvs_splits_by_file_number(tmp_path: Path) -> None:
    dataset = load_registry().dataset("cifar10dvs").dataset
    for name in dataset.classes:
        for number in (0, 7, 899, 900):
            path = tmp_path / name / f"cifar10_{name}_{number}.aedat"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"#!AER-DAT2.0\r\n" + struct.pack(">II", number << 1 & 0xFE, number))
    raw = opened("cifar10dvs", tmp_path)
    assert isinstance(raw, EventDataset)
    assert [s.id for s in raw.samples[:3]] == ["airplane/0000", "airplane/0007", "airplane/0899"]
    assert [s.id for s in raw.samples if s.split == "test"][:2] == ["airplane/0900", "automobile/0900"]
    folder = raw.digest
    (tmp_path / "zips").mkdir()
    for name in dataset.classes:
        zipped(tmp_path / name, tmp_path / "zips" / f"{name}.zip")
    packed = opened("cifar10dvs", tmp_path / "zips")
    assert packed.digest == folder
    assert isinstance(packed, EventDataset)
    found = {row: events for m in packed.recordings() for row, events, _ in packed.decode(m.name, m.load())}
    assert found[1].tolist() == [(7, 120, 0, 1)]


class TestImages:
    def test_mnist(self, tmp_path: Path) -> None:
        write_idx(tmp_path / "MNIST/raw", packed=False)
        raw = opened("mnist", tmp_path)
        assert isinstance(raw, ImageDataset)
        images, labels = raw.images()
        assert images.shape == (40, 1, 28, 28)
        assert labels.tolist() == [k % 10 for k in range(30)] + list(range(10))
        write_idx(tmp_path / "packed")
        assert opened("mnist", tmp_path / "packed").digest == raw.digest

    def test_foreign_content_is_refused_unless_accepted(self, tmp_path: Path) -> None:
        write_idx(tmp_path)
        with pytest.raises(ChecksumError, match="md5"):
            opened("fashion-mnist", tmp_path, verify=True)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        write_idx(tmp_path)
        (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(RawDataError, match=r"t10k-labels-idx1-ubyte.gz missing"):
            opened("mnist", tmp_path)

    def test_images_and_labels_must_be_as_many(self, tmp_path: Path) -> None:
        write_idx(tmp_path)
        (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2) + b"\1\2"))
        with pytest.raises(DamagedFileError, match="for 2 labels"):
            opened("mnist", tmp_path)

    @pytest.mark.parametrize("content", [b"", b"\x1f\x8bgarbage", b"not gzip"])
    def test_a_damaged_gzip_is_named(self, tmp_path: Path, content: bytes) -> None:
        write_idx(tmp_path)
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"train-images-idx3-ubyte.gz"):
            opened("mnist", tmp_path)

    def test_cifar10(self, tmp_path: Path) -> None:
        folder = tmp_path / "cifar-10-batches-py"
        folder.mkdir()
        for index, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
            pixels = np.full((2, 3072), index, np.uint8)
            (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": [index, 9]}, protocol=2))
        raw = opened("cifar10", tmp_path)
        assert isinstance(raw, ImageDataset)
        images, labels = raw.images()
        assert images[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        assert [s.split for s in raw.samples].count("test") == 2
        assert labels[-2:].tolist() == [5, 9]
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
            archive.add(folder, folder.name)
        digest = raw.digest
        shutil.rmtree(folder)
        assert opened("cifar10", tmp_path).digest == digest

    @pytest.mark.real
    def test_real_mnist_is_verified_packed_and_unpacked(self, shared: Path, tmp_path: Path) -> None:
        packed = opened("mnist", shared / "data/MNIST", verify=True)
        assert packed.verified
        assert packed.complete
        for path in (shared / "data/MNIST").glob("*.gz"):
            (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        unpacked = opened("mnist", tmp_path, verify=True)
        assert unpacked.verified
        assert unpacked.digest == packed.digest


class TestFinding:
    def test_nothing_there_says_where_it_looked_and_what_to_type(self, tmp_path: Path) -> None:
        with pytest.raises(RawDataError, match=r"looked for DvsGesture.tar.gz") as error:
            opened("gesture", tmp_path)
        assert "ibm.ent.box.com" in error.value.hint
        assert "--raw DIR" in error.value.hint
        with pytest.raises(RawDataError, match="no such folder"):
            opened("gesture", tmp_path / "nowhere")

    def test_the_environment_names_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_gestures(tmp_path / "all/synthetic-gesture")
        monkeypatch.setenv("PLIFCTL_RAW_DIR", str(tmp_path / "all"))
        assert len(opened("synthetic-gesture", None).samples) == 33

    def test_more_samples_than_the_data_set_has(self, tmp_path: Path) -> None:
        write_idx(tmp_path, train=30, test=10_001)
        with pytest.raises(RawDataError, match="10001 test samples"):
            opened("mnist", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_something_else_in_place_of_a_recording_is_refused(tmp_path: Path, kind: bytes) -> None:
    write_gestures(tmp_path / "raw")
    with tarfile.open(tmp_path / "DvsGesture.tar.gz", "w:gz") as archive:
        for path in sorted((tmp_path / "raw").iterdir()):
            if path.name != "user01_lab.aedat":
                archive.add(path, f"DvsGesture/{path.name}")
        link = tarfile.TarInfo("DvsGesture/user01_lab.aedat")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link, io.BytesIO())
    with pytest.raises(DamagedFileError, match="expected a regular file"):
        opened("gesture", tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["user01_lab.aedat", "user01_lab_labels.csv", "trials_to_test.txt"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(gestures: Path, name: str) -> None:
    (gestures / name).unlink()
    os.mkfifo(gestures / name)
    with pytest.raises(DamagedFileError, match=f"{name}: a pipe, a socket or a device"):
        opened("synthetic-gesture", gestures)


def test_what_was_surveyed_is_what_is_framed(gestures: Path, tmp_path: Path) -> None:
    """A tool that copies times, too, can change a file without a sign of it: the content itself is compared."""
    raw = opened("synthetic-gesture", gestures)
    assert isinstance(raw, EventDataset)
    path = gestures / "user02_lab.aedat"
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(RawDataError, match=r"user02_lab.aedat has changed since"):
        [member.load() for member in raw.recordings()]


def test_notes_are_worth_nothing_once_a_file_changed(gestures: Path, tmp_path: Path) -> None:
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


def test_progress_ends_at_the_whole(gestures: Path) -> None:
    found, told = load_registry().dataset("synthetic-gesture"), []
    open_raw(found, RawSource(gestures), progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    assert told == sorted(told)


@pytest.mark.parametrize("head", ["", "1,0,60000\n", "start,class,end\n"])
def test_labels_without_their_head_lose_no_gesture_silently(gestures: Path, head: str) -> None:
    path = gestures / "user01_lab_labels.csv"
    path.write_text(head + "".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DamagedFileError, match=r"user01_lab_labels.csv, line 1: .* expected class,startTime_usec"):
        opened("synthetic-gesture", gestures)


@pytest.mark.parametrize("text", ["", "class,startTime_usec,endTime_usec\n1,0\r5,9\n", '"' + "x" * 200_000])
def test_labels_that_are_no_table(gestures: Path, text: str) -> None:
    (gestures / "user01_lab_labels.csv").write_bytes(text.encode())
    with pytest.raises(DamagedFileError, match=r"user01_lab_labels\.csv"):
        opened("synthetic-gesture", gestures)


def test_labels_with_a_byte_order_mark_are_read(gestures: Path) -> None:
    path = gestures / "user01_lab_labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(opened("synthetic-gesture", gestures).samples) == 33


def test_a_list_too_long_to_be_one(gestures: Path) -> None:
    (gestures / "user01_lab_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + "1,0,1\n" * 20000)
    with pytest.raises(DamagedFileError, match="expected a list of at most 65536"):
        opened("synthetic-gesture", gestures)


def test_one_number_under_two_names(tmp_path: Path) -> None:
    found = load_registry().dataset("cifar10dvs")
    for name in found.dataset.classes:
        (tmp_path / name).mkdir()
        for number in ("0", "900"):
            (tmp_path / name / f"cifar10_{name}_{number}.aedat").write_bytes(b"#!AER-DAT2.0\r\n")
    (tmp_path / "cat/cifar10_cat_00.aedat").write_bytes(b"#!AER-DAT2.0\r\n")
    with pytest.raises(RawDataError, match="cat/0000 exists twice"):
        open_raw(found, RawSource(tmp_path))


def test_strange_neighbours_do_no_harm(gestures: Path) -> None:
    (gestures / ".#labels").symlink_to("nowhere")
    (gestures / "unrelated").symlink_to("nowhere")
    Path(os.fsdecode(os.fsencode(gestures) + b"/\xe9.txt")).write_text("x")
    assert len(opened("synthetic-gesture", gestures).samples) == 33


def test_a_link_that_leads_nowhere_is_named(gestures: Path) -> None:
    (gestures / "user01_lab.aedat").unlink()
    (gestures / "user01_lab.aedat").symlink_to("nowhere")
    with pytest.raises(RawDataError, match=r"user01_lab.aedat: removed while it was read, or a broken link"):
        opened("synthetic-gesture", gestures)


def test_a_file_that_was_named_is_the_one_that_is_read(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "a")
    zipped(tmp_path / "a/Train", tmp_path / "Train.zip")
    zipped(tmp_path / "a/Test", tmp_path / "Test.zip")
    assert len(opened("nmnist", tmp_path / "Train.zip").samples) == 8
    (tmp_path / "links").mkdir()
    for part in ("Train", "Test"):
        (tmp_path / f"{part}.zip").rename(tmp_path / f"{part}.blob")
        (tmp_path / f"links/{part}.zip").symlink_to(tmp_path / f"{part}.blob")
    assert len(opened("nmnist", tmp_path / "links/Train.zip").samples) == 8
    (tmp_path / "other.zip").write_bytes(b"x")
    with pytest.raises(RawDataError, match=r"other.zip: not a file of this data set"):
        opened("nmnist", tmp_path / "other.zip")


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_damaged_zip_is_a_damaged_file(tmp_path: Path, kind: int) -> None:
    write_nmnist(tmp_path / "a")
    zipped(tmp_path / "a/Test", tmp_path / "Test.zip")
    with zipfile.ZipFile(tmp_path / "Train.zip", "w", kind) as archive:
        for path in sorted((tmp_path / "a/Train").rglob("*.bin")):
            archive.write(path, path.relative_to(tmp_path / "a"))
    whole, rng = (tmp_path / "Train.zip").read_bytes(), np.random.default_rng(0)
    damaged = [whole[7:], whole[: len(whole) // 2]]
    for _ in range(40):
        data = bytearray(whole)
        data[int(rng.integers(30, len(data)))] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(data))
    refused = 0
    for data in damaged:
        (tmp_path / "Train.zip").write_bytes(data)
        try:
            opened("nmnist", tmp_path)
        except RawDataError:
            refused += 1
    assert refused > 5


class TestRecipesOfGestures:
    @pytest.mark.parametrize(("invalid", "framed"), [("drop", 300), ("keep", 400)])
    def test_what_happens_to_invalid_events(self, gestures: Path, invalid: str, framed: int) -> None:
        path = gestures / "user01_lab.aedat"
        data = bytearray(path.read_bytes())
        words = np.frombuffer(data, np.uint8).copy()
        start = data.index(b"#!END-HEADER\r\n") + 14 + 28
        first = words[start : start + 8 * 400].reshape(400, 8)
        first[::4, 0] &= 0xFE  # of the first gesture's 400 events every fourth loses its valid bit
        path.write_bytes(words.tobytes())
        found = load_registry().dataset("synthetic-gesture", "paper", [f"frames.invalid_events={invalid}"])
        raw = open_raw(found, RawSource(gestures))
        assert isinstance(raw, EventDataset)
        member = next(raw.recordings())
        row, events, n_raw = raw.decode(member.name, member.load())[0]
        assert (raw.samples[row].id, len(events), n_raw) == ("user01_lab/00", framed, 400)

    def test_the_first_78_are_the_first_of_the_list(self, tmp_path: Path) -> None:
        write_gestures(tmp_path, users=81, events=2)
        names = (tmp_path / "trials_to_train.txt").read_text().split()
        (tmp_path / "trials_to_train.txt").write_text("\n".join(reversed(names)) + "\n")
        raw = opened("gesture", tmp_path, recipe="authors")
        kept = {sample.id.split("/")[0] + ".aedat" for sample in raw.samples if sample.split == "train"}
        assert kept == set(list(reversed(names))[:78])


class TestVerified:
    def test_every_part_must_be_the_published_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from plifctl.data import datasets

        write_nmnist(tmp_path / "a")
        for part in ("Train", "Test"):
            zipped(tmp_path / "a" / part, tmp_path / f"{part}.zip")
        sums = {part: (hashlib.md5((tmp_path / f"{part}.zip").read_bytes()).hexdigest(),) for part in ("Train", "Test")}
        monkeypatch.setattr(datasets.Nmnist, "md5", sums)
        assert opened("nmnist", tmp_path, verify=True).verified
        assert not opened("nmnist", tmp_path / "a", verify=True).verified  # folders have no published checksum
        monkeypatch.setattr(datasets.Nmnist, "md5", {**sums, "Test": ("0" * 32,)})
        assert not opened("nmnist", tmp_path).verified
        with pytest.raises(ChecksumError, match=r"Test.zip: md5"):
            opened("nmnist", tmp_path, verify=True)


def test_a_data_set_of_ones_own_is_never_the_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plifctl.data import datasets

    write_idx(tmp_path / "system")
    monkeypatch.setattr(datasets.FashionMnist, "folder_names", (str(tmp_path / "system"),))
    published = load_registry().dataset("fashion-mnist")
    mine = Framing(dataset=published.dataset.model_copy(update={"name": "mine"}))
    assert len(open_raw(published, RawSource(verify=False)).samples) == 40
    with pytest.raises(RawDataError, match="no raw data"):
        open_raw(mine, RawSource())
    found = open_raw(mine, RawSource(tmp_path / "system"))  # without a checksum to differ from
    assert not found.verified
    assert any("a user's own data set" in note for note in found.notes)


def test_where_systems_keep_a_set_is_looked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plifctl.data import datasets

    write_idx(tmp_path / "system")
    monkeypatch.setattr(datasets.FashionMnist, "folder_names", ("FashionMNIST", str(tmp_path / "system")))
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("PLIFCTL_RAW_DIR", str(tmp_path / "mine"))
    assert opened("fashion-mnist", None).root == tmp_path / "system"
    with pytest.raises(RawDataError, match="no raw data"):
        opened("fashion-mnist", tmp_path / "mine")
    write_idx(tmp_path / "mine/FashionMNIST")
    assert opened("fashion-mnist", None).root == tmp_path / "mine/FashionMNIST"


class TestZips:
    """What a zip says of its members is not to be believed."""

    @staticmethod
    def written(tmp_path: Path, kind: int = zipfile.ZIP_DEFLATED) -> Path:
        write_nmnist(tmp_path / "a")
        zipped(tmp_path / "a/Test", tmp_path / "Test.zip")
        with zipfile.ZipFile(tmp_path / "Train.zip", "w", kind) as archive:
            archive.writestr("Train/0/00000.bin", atis(20) * 100)
        return tmp_path / "Train.zip"

    @staticmethod
    def declared(path: Path, size: int) -> None:
        """Changes the size that both headers declare, as a forger would."""
        data = bytearray(path.read_bytes())
        for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
            start = data.index(mark) + at
            data[start : start + 4] = struct.pack("<I", size)
        path.write_bytes(data)

    def test_whole(self, tmp_path: Path) -> None:
        self.written(tmp_path)
        assert len(opened("nmnist", tmp_path).samples) == 3

    @pytest.mark.parametrize("size", [9_999, 10_001, 2**20])
    def test_the_declared_size_must_be_the_actual_one(self, tmp_path: Path, size: int) -> None:
        self.declared(self.written(tmp_path), size)
        with pytest.raises(DamagedFileError, match=r"Train\.zip"):
            opened("nmnist", tmp_path)

    def test_a_bomb_is_refused_unread(self, tmp_path: Path) -> None:
        self.declared(self.written(tmp_path), 2**29)
        with pytest.raises(
            DamagedFileError, match=r"00000\.bin: refused, \d+ bytes are declared to unpack to 536870912"
        ):
            opened("nmnist", tmp_path)

    def test_a_bomb_that_declares_little_takes_no_memory(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("Train/0/00000.bin", bytes(2**28))
        self.declared(path, 1000)
        tracemalloc.start()
        with pytest.raises(DamagedFileError):
            opened("nmnist", tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**24

    def test_a_name_that_is_not_what_the_directory_says(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        data = bytearray(path.read_bytes())
        at = data.index(b"PK\x01\x02")
        data[at + 9] |= 8  # names are UTF-8
        data[at + 46] = 0xFF
        path.write_bytes(data)
        with pytest.raises(DamagedFileError, match=r"Train\.zip: damaged, .* can't decode byte 0xff"):
            opened("nmnist", tmp_path)

    def test_a_version_that_is_not_known(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        data = bytearray(path.read_bytes())
        data[data.index(b"PK\x01\x02") + 6] = 99
        path.write_bytes(data)
        with pytest.raises(DamagedFileError, match=r"Train\.zip: damaged, .* version 9\.9"):
            opened("nmnist", tmp_path)

    @pytest.mark.parametrize("packed", [1000, 2**30])
    def test_more_packed_bytes_than_the_archive_has_are_not_even_allocated(self, tmp_path: Path, packed: int) -> None:
        path = self.written(tmp_path)
        data = bytearray(path.read_bytes())
        at = data.index(b"PK\x01\x02")
        data[at + 20 : at + 24] = struct.pack("<I", packed)
        path.write_bytes(data)
        tracemalloc.start()
        with pytest.raises(DamagedFileError, match=f"{packed} bytes in an archive of {len(data)}"):
            opened("nmnist", tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**24

    def test_a_large_member_of_an_honest_ratio_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from plifctl.data import zip_reader as zips

        monkeypatch.setattr(zips, "_LARGE_BYTES", 100)
        self.written(tmp_path)
        assert len(opened("nmnist", tmp_path).samples) == 3
        with zipfile.ZipFile(tmp_path / "Train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("Train/0/00000.bin", bytes(10**6))
        with pytest.raises(DamagedFileError, match="refused"):
            opened("nmnist", tmp_path)

    @pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_packing_whose_memory_cannot_be_bounded(self, tmp_path: Path, kind: int) -> None:
        self.written(tmp_path, kind)
        with pytest.raises(DamagedFileError, match=r"compressed by method \d+; expected stored"):
            opened("nmnist", tmp_path)


class TestTars:
    """A tar.gz is as whole as its checksum says, and a tar as its end."""

    @pytest.fixture
    def packed(self, tmp_path: Path) -> Path:
        write_gestures(tmp_path / "DvsGesture")
        (tmp_path / "packed").mkdir()
        with tarfile.open(tmp_path / "packed/DvsGesture.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "DvsGesture", "DvsGesture")
        return tmp_path / "packed/DvsGesture.tar.gz"

    def test_no_flipped_byte_changes_what_is_read(self, packed: Path) -> None:
        whole = packed.read_bytes()
        undisturbed = opened("gesture", packed.parent).digest
        data = whole.index(0, 10) + 1 if whole[3] & 8 else 10  # gzip's header may hold a name, which nothing depends on
        for place in np.random.default_rng(0).integers(data, len(whole), 60):
            packed.write_bytes(whole[:place] + bytes([whole[place] ^ 0x04]) + whole[place + 1 :])
            try:
                found = opened("gesture", packed.parent)
            except (DamagedFileError, RawDataError):
                continue
            assert found.digest == undisturbed  # a distance within a run of equal bytes may be another one
        packed.write_bytes(whole)
        assert opened("gesture", packed.parent).digest == undisturbed

    def test_every_cut_is_found(self, packed: Path) -> None:
        whole = packed.read_bytes()
        plain = gzip.decompress(whole)
        (packed.parent.parent / "plain").mkdir()
        tar = packed.parent.parent / "plain/DvsGesture.tgz"
        for end in range(512, len(plain.rstrip(b"\0")), 512 * 7):
            tar.write_bytes(plain[:end])
            with pytest.raises((DamagedFileError, RawDataError)):
                opened("gesture", tar.parent)
        for cut in (1, 4, 8, 100, len(whole) // 2):
            packed.write_bytes(whole[:-cut])
            with pytest.raises((DamagedFileError, RawDataError)):
                opened("gesture", packed.parent)

    def test_a_bomb_is_refused(self, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("plifctl.data.zip_reader._LARGE_BYTES", 2**20)
        with tarfile.open(packed, "w:gz") as archive:
            info = tarfile.TarInfo("DvsGesture/user01_lab.aedat")
            info.size = 2**23
            archive.addfile(info, io.BytesIO(bytes(info.size)))
        with pytest.raises(DamagedFileError, match="refused, it unpacks to"):
            opened("gesture", packed.parent)
