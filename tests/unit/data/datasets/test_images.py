"""MNIST, Fashion-MNIST and CIFAR-10: packed, extracted, damaged and incomplete."""

import gzip
import pickle
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from raw_files import open_dataset, write_idx

from plifctl.data.datasets.base import ImageDataset
from plifctl.errors import ChecksumError, DamagedFileError, RawDataError

pytestmark = pytest.mark.usefixtures("places")


def test_mnist_packed_and_extracted_have_the_same_digest(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST/raw", packed=False)
    raw = open_dataset("mnist", tmp_path)
    assert isinstance(raw, ImageDataset)
    images = raw.images()
    assert images.shape == (40, 1, 28, 28)
    assert [sample.label for sample in raw.samples] == [k % 10 for k in range(30)] + list(range(10))
    write_idx(tmp_path / "packed")
    assert open_dataset("mnist", tmp_path / "packed").digest == raw.digest


def test_ids_of_many_images_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    write_idx(tmp_path)
    raw = open_dataset("mnist", tmp_path)
    assert isinstance(raw, ImageDataset)
    ids = [sample.id for sample in raw._number_samples("train", np.zeros(100_001, np.int64))]
    assert ids == sorted(ids)
    assert [sample.id for sample in raw._number_samples("train", np.zeros(2, np.int64))] == [
        "train/00000",
        "train/00001",
    ]


def test_fashion_mnist_other_content_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    with pytest.raises(ChecksumError, match="md5"):
        open_dataset("fashion-mnist", tmp_path, verify=True)


def test_mnist_missing_file_error_names_it(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(RawDataError, match=r"t10k-labels-idx1-ubyte.gz missing"):
        open_dataset("mnist", tmp_path)


def test_mnist_other_number_of_labels_than_images_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2) + b"\1\2"))
    with pytest.raises(DamagedFileError, match="for 2 labels"):
        open_dataset("mnist", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bgarbage", b"not gzip"])
def test_mnist_damaged_gzip_error_names_the_file(tmp_path: Path, content: bytes) -> None:
    write_idx(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"train-images-idx3-ubyte.gz"):
        open_dataset("mnist", tmp_path)


def test_mnist_more_samples_than_official_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, train=30, test=10_001)
    with pytest.raises(RawDataError, match="10001 test samples"):
        open_dataset("mnist", tmp_path)


def test_cifar10_folder_and_archive_have_the_same_digest(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for index, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        pixels = np.full((2, 3072), index, np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": [index, 9]}, protocol=2))
    raw = open_dataset("cifar10", tmp_path)
    assert isinstance(raw, ImageDataset)
    images = raw.images()
    assert images[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [s.split for s in raw.samples].count("test") == 2
    assert [sample.label for sample in raw.samples[-2:]] == [5, 9]
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    digest = raw.digest
    shutil.rmtree(folder)
    assert open_dataset("cifar10", tmp_path).digest == digest


@pytest.mark.real
def test_mnist_real_files_are_verified_packed_and_extracted(shared: Path, tmp_path: Path) -> None:
    packed = open_dataset("mnist", shared / "data/MNIST", verify=True)
    assert packed.verified
    assert packed.complete
    for path in (shared / "data/MNIST").glob("*.gz"):
        (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    unpacked = open_dataset("mnist", tmp_path, verify=True)
    assert unpacked.verified
    assert unpacked.digest == packed.digest


def test_mnist_label_outside_the_classes_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    labels = struct.pack(">HBBI", 0, 8, 1, 30) + bytes([*range(10), 10, *range(19)])
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    with pytest.raises(RawDataError, match="sample train/00010 is of class 10, but MNIST has 10 classes") as error:
        open_dataset("mnist", tmp_path)
    assert error.value.hint.startswith("get it from")
