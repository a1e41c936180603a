"""The reader of CIFAR-10 batches: pickles of all protocols, hostile ones and damaged ones."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from raw_files import encode_cifar_batch

from plifctl.data.formats.cifar import decode_cifar_batch
from plifctl.errors import DamagedFileError

batch = encode_cifar_batch


class Evil:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("touched"),)


def test_decode_cifar_batch_gives_images_and_labels() -> None:
    images, labels = decode_cifar_batch(batch(), where="f")
    assert images.shape == (2, 3, 32, 32)
    assert images[1, 0, 0, :3].tolist() == [0, 1, 2]
    assert labels.tolist() == [3, 9]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_decode_cifar_batch_of_each_pickle_protocol_is_read(protocol: int) -> None:
    tree = {b"data": np.arange(3072, dtype=np.uint8).reshape(1, 3072), b"labels": [7]}
    images, labels = decode_cifar_batch(pickle.dumps(tree, protocol=protocol), where="f")
    assert (images.ravel()[:2].tolist(), labels.tolist()) == ([0, 1], [7])


def test_decode_cifar_batch_of_old_numpy_is_read() -> None:
    renamed = batch().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert decode_cifar_batch(renamed, where="f")[1].tolist() == [3, 9]
    assert io.BytesIO(renamed).read().count(b"numpy.core") == 1


def test_decode_cifar_batch_never_executes_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DamagedFileError, match="refused"):
        decode_cifar_batch(pickle.dumps({b"data": Evil()}, protocol=2), where="f")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        # crashes pickle's own interpreter: hashing a tuple recurses without a limit
        (b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.", "a key that is not text"),
        # makes it allocate 16 GiB: its memo is an array as long as the largest number
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "NoneType"),
        (b"\x80\x02" + b"N0" * 600_000 + b".", "the instruction POP"),
        (b"\x80\x02" + b"N" * 1_100_000 + b".", "instructions"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", r"posix\.system"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "expected a CIFAR-10 batch"),
    ],
    ids=["nested-key", "large-memo", "unknown-instruction", "long-program", "foreign-name", "declared-size"],
)
@pytest.mark.long
def test_decode_cifar_batch_hostile_pickle_is_refused_cheaply(data: bytes, why: str) -> None:
    with pytest.raises(DamagedFileError, match=why):
        decode_cifar_batch(data, where="f")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        batch()[:-20],
        batch(labels=[1]),
        batch(labels=[1, 10]),
        batch(data=[1]),
        pickle.dumps([1]),
    ],
)
def test_decode_cifar_batch_damaged_file_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        decode_cifar_batch(data, where="f")
