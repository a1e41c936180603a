"""The data sets in their original layouts: which files, which samples and labels, which official split.

One class for each layout; :func:`open_raw` finds the files and returns the one that fits.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import numpy as np

from plifctl import paths
from plifctl.errors import DamagedFileError, RawDataError
from plifctl.events.formats.aedat2 import decode_aedat2
from plifctl.events.formats.aedat3 import decode_aedat3
from plifctl.events.formats.atis import decode_atis
from plifctl.events.formats.cifar import decode_cifar_batch
from plifctl.events.formats.idx import decode_idx
from plifctl.events.rawset import EventSet, ImageSet, Progress, RawSet, Recording, Sample
from plifctl.events.storage import Survey
from plifctl.specs import DatasetSpec, FramesSpec, Layout


class _Idx(ImageSet):
    """MNIST and Fashion-MNIST: four IDX files, plain or ``.gz``."""

    pattern = re.compile(r"(?:^|/)((?:train|t10k)[-](?:images|labels)[-.]idx\d-ubyte)$")
    files: ClassVar[Mapping[str, Sequence[str]]] = {
        part: (f"{part}.gz", part, part.replace("-idx", ".idx"))
        for part in (f"{split}-{what}-ubyte" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
    }

    def _samples(self) -> list[Sample]:
        self._arrays = {part: self._array(part) for part in self.files}
        samples: list[Sample] = []
        for split, prefix in (("train", "train"), ("test", "t10k")):
            images, labels = (self._arrays[f"{prefix}-{what}-ubyte"] for what in ("images-idx3", "labels-idx1"))
            if images.shape != (len(labels), *self.dataset.shape[1:]):
                raise DamagedFileError(
                    f"{self.root}: {prefix} images have shape {list(images.shape)}, "
                    f"expected {[len(labels), *self.dataset.shape[1:]]} for {len(labels)} labels"
                )
            samples += self._numbered("train" if split == "train" else "test", labels)
        return samples

    def _array(self, part: str) -> np.ndarray:
        ((_, content),) = self.members(part)
        return decode_idx(content, where=str(self.storages[part].path))

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        images = np.concatenate([self._arrays[f"{split}-images-idx3-ubyte"] for split in ("train", "t10k")])
        return images[:, None], np.array([sample.label for sample in self.samples], np.int64)


class _Mnist(_Idx):
    folders: ClassVar[Sequence[str]] = ("mnist", "MNIST", "MNIST/raw")
    sources = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    # of the .gz as published, then of its content
    md5: ClassVar[Mapping[str, Sequence[str]]] = {
        "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    }


class _FashionMnist(_Idx):
    folders: ClassVar[Sequence[str]] = (
        "fashion-mnist",
        "FashionMNIST",
        "FashionMNIST/raw",
        "/usr/share/datasets/fashion-mnist",
    )
    sources = "Debian's package dataset-fashion-mnist, or http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    # Debian packed the files again, so the content's checksum counts as much
    md5: ClassVar[Mapping[str, Sequence[str]]] = {
        "train-images-idx3-ubyte": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        "train-labels-idx1-ubyte": ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
        "t10k-images-idx3-ubyte": ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
        "t10k-labels-idx1-ubyte": ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
    }


class _Cifar10(ImageSet):
    """CIFAR-10: five training batches and a test batch, as python pickles."""

    folders: ClassVar[Sequence[str]] = (
        "cifar10",
        "CIFAR10",
        "cifar-10-batches-py",
        "CIFAR10/cifar-10-batches-py",
        "cifar10/cifar-10-batches-py",
    )
    sources = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    pattern = re.compile(r"(?:^|/)(data_batch_[1-5]|test_batch)$")
    files: ClassVar[Mapping[str, Sequence[str]]] = {
        "batches": ("cifar-10-python.tar.gz", "cifar-10-batches-py", "test_batch")
    }
    md5: ClassVar[Mapping[str, Sequence[str]]] = {"batches": ("c58f30108f718f92721af3b95e74349a",)}

    def _samples(self) -> list[Sample]:
        names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
        _require(self.storages["batches"].path, names, self.surveys["batches"])
        batches = dict(self.members("batches"))
        where = self.storages["batches"].path
        decoded = [decode_cifar_batch(batches[name], where=f"{where}: {name}") for name in names]
        self._images = np.concatenate([images for images, _ in decoded])
        self._labels = np.concatenate([labels for _, labels in decoded])
        test = len(decoded[-1][1])
        train = len(self._labels) - test
        return self._numbered("train", self._labels[:train]) + self._numbered("test", self._labels[train:])

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        return self._images, self._labels


class _Nmnist(EventSet):
    """N-MNIST: one ATIS file for each sample."""

    folders: ClassVar[Sequence[str]] = ("nmnist", "NMNIST", "N-MNIST")
    sources = "https://www.garrickorchard.com/datasets/n-mnist"
    pattern = re.compile(r"(?:^|/)((?:Train|Test)/\d/\d+\.bin)$")
    files: ClassVar[Mapping[str, Sequence[str]]] = {
        "Train": ("Train.zip", "train.zip", "Train"),
        "Test": ("Test.zip", "test.zip", "Test"),
    }
    md5: ClassVar[Mapping[str, Sequence[str]]] = {
        "Train": ("20959b8e626244a1b502305a9e6e2031",),
        "Test": ("69ca8762b2fe404d9b9bad1103e97832",),
    }

    def _samples(self) -> list[Sample]:
        samples = []
        for part, survey in self.surveys.items():
            for member in survey.members:
                if member.startswith(part):  # nothing stops a Train.zip from holding Test/
                    label = int(member.split("/")[1])
                    samples.append(Sample(member.removesuffix(".bin"), label, "train" if part == "Train" else "test"))
        return samples

    def _holds_samples(self, member: str) -> bool:
        return member.removesuffix(".bin") in self.rows

    def decode(self, member: str, data: bytes) -> list[Recording]:
        events, dropped = decode_atis(data, where=self._where(member))
        return [(self.rows[member.removesuffix(".bin")], events, len(events) + dropped)]


class _Cifar10Dvs(EventSet):
    """CIFAR10-DVS: one AEDAT 2.0 file for each sample, a zip or folder for each class."""

    folders: ClassVar[Sequence[str]] = ("cifar10dvs", "CIFAR10DVS", "CIFAR10-DVS")
    sources = "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"
    pattern = re.compile(r"(?:^|/)(([a-z]+)/cifar10_\2_\d{1,4}\.aedat)$")
    md5: ClassVar[Mapping[str, Sequence[str]]] = {
        "airplane": ("0afd5c4bf9ae06af762a77b180354fdd",),
        "automobile": ("8438dfeba3bc970c94962d995b1b9bdd",),
        "bird": ("a9c207c91c55b9dc2002dc21c684d785",),
        "cat": ("52c63c677c2b15fa5146a8daf4d56687",),
        "deer": ("b6bf21f6c04d21ba4e23fc3e36c8a4a3",),
        "dog": ("f379ebdf6703d16e0a690782e62639c3",),
        "frog": ("cad6ed91214b1c7388a5f6ee56d08803",),
        "horse": ("e7cbbf77bec584ffbf913f00e682782a",),
        "ship": ("41c7bd7d6b251be82557c6cce9a7d5c9",),
        "truck": ("89f3922fd147d9aeff89e76a2b0b70a7",),
    }
    files: ClassVar[Mapping[str, Sequence[str]]] = {name: (f"{name}.zip", name) for name in md5}

    def _samples(self) -> list[Sample]:
        samples = []
        for part, survey in self.surveys.items():
            for member in survey.members:
                name = self._id(member)
                number = int(name.split("/")[1])
                label = self.dataset.classes.index(part)
                samples.append(Sample(name, label, "train" if number < 900 else "test"))
        return samples

    def _holds_samples(self, member: str) -> bool:
        return True

    def decode(self, member: str, data: bytes) -> list[Recording]:
        assert self.frames is not None
        assert self.frames.axes is not None
        events, dropped = decode_aedat2(data, where=self._where(member), axes=self.frames.axes)
        return [(self.rows[self._id(member)], events, len(events) + dropped)]

    @staticmethod
    def _id(member: str) -> str:
        folder, file = member.split("/")
        return f"{folder}/{int(file.removesuffix('.aedat').rsplit('_', 1)[1]):04d}"


_LABELS_HEAD = ["class", "startTime_usec", "endTime_usec"]


class _Gesture(EventSet):
    """DVS128 Gesture: AEDAT 3.1 recordings, each with the windows of its gestures, and lists of recordings to split."""

    folders: ClassVar[Sequence[str]] = (
        "gesture",
        "DvsGesture",
        "DVS128Gesture",
        "DVS128Gesture/DvsGesture",
        "gesture/DvsGesture",
    )
    sources = "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794"
    pattern = re.compile(r"(?:^|/)(user\d+_[a-z_]+\.aedat|user\d+_[a-z_]+_labels\.csv|trials_to_(?:train|test)\.txt)$")
    files: ClassVar[Mapping[str, Sequence[str]]] = {
        "recordings": ("DvsGesture.tar.gz", "DvsGesture.tgz", "DvsGesture", "trials_to_train.txt")
    }
    md5: ClassVar[Mapping[str, Sequence[str]]] = {"recordings": ("8a5c71fb11e24e5ca5b11866ca6c00a1",)}

    def _samples(self) -> list[Sample]:
        self._windows: dict[str, list[tuple[str, int, int]]] = {}
        assert self.frames is not None
        train, test = self._trials("train"), self._trials("test")
        twice = set(train) & set(test)
        if twice:
            raise RawDataError(f"{self.root}: {min(twice)} is in both trials_to_train.txt and trials_to_test.txt")
        everything = [sample for trial in train for sample in self._cut(trial, "train")]
        self._train_count = len(everything)
        if self.frames.training_set == "first-78":
            dropped = set(train[78:])
            everything = [sample for sample in everything if f"{sample.id.split('/')[0]}.aedat" not in dropped]
            for trial in dropped:
                del self._windows[trial]
        return everything + [sample for trial in test for sample in self._cut(trial, "test")]

    def _found_counts(self) -> tuple[int, int]:
        # whether the set is complete has nothing to do with how much of it a recipe trains on
        return self._train_count, super()._found_counts()[1]

    def _trials(self, split: str) -> list[str]:
        survey, path = self.surveys["recordings"], self.storages["recordings"].path
        name = f"trials_to_{split}.txt"
        _require(path, [name], survey)
        trials = [line.strip() for line in survey.texts[name].splitlines() if line.strip()]
        _require(path, trials, survey, named_in=name)
        return list(dict.fromkeys(trials))

    def _cut(self, trial: str, split: Literal["train", "test"]) -> list[Sample]:
        """The samples of a recording; remembers their windows, [start, end) in µs."""
        stem = trial.removesuffix(".aedat")
        table = f"{stem}_labels.csv"
        survey, path = self.surveys["recordings"], self.storages["recordings"].path
        _require(path, [table], survey, named_in=f"trials_to_{split}.txt, as the labels of {trial}")
        samples: list[Sample] = []
        windows = []
        head, *lines = csv.reader(io.StringIO(survey.texts[table])) or [[]]
        if [column.strip() for column in head] != _LABELS_HEAD:
            raise DamagedFileError(f"{path}: {table}, line 1: {','.join(head)!r}, expected {','.join(_LABELS_HEAD)}")
        for number, line in enumerate(lines, 2):
            if not line:
                continue
            try:
                label, start, end = (int(value) for value in line)
            except ValueError:
                label, start, end = 0, 0, 0
            if not (1 <= label <= len(self.dataset.classes) and start <= end):
                raise DamagedFileError(
                    f"{path}: {table}, line {number}: {','.join(line)!r}, expected class (1 to "
                    f"{len(self.dataset.classes)}), start and end in µs"
                )
            name = f"{stem}/{len(samples):02d}"
            samples.append(Sample(name, label - 1, split))
            windows.append((name, start, end))
        self._windows[trial] = windows
        return samples

    def _holds_samples(self, member: str) -> bool:
        return member in self._windows

    def decode(self, member: str, data: bytes) -> list[Recording]:
        assert self.frames is not None
        assert self.frames.invalid_events is not None
        where = self._where(member)
        decoded = decode_aedat3(data, where=where, invalid=self.frames.invalid_events)
        every = decoded.events if not decoded.dropped else decode_aedat3(data, where=where, invalid="keep").events
        recordings = []
        for name, start, end in self._windows[member]:
            first, last = np.searchsorted(decoded.events["t"], (start, end))
            n_raw = int(np.diff(np.searchsorted(every["t"], (start, end)))[0])
            recordings.append((self.rows[name], decoded.events[first:last], n_raw))
        return recordings


class _SyntheticGesture(_Gesture):
    """The embedded data set: the same layout, simulated recordings."""

    folders: ClassVar[Sequence[str]] = ("synthetic-gesture",)
    sources = "plifctl synthesize DIR"
    md5: ClassVar[Mapping[str, Sequence[str]]] = {}


_LAYOUTS: dict[Layout, type[RawSet]] = {
    "mnist": _Mnist,
    "fashion-mnist": _FashionMnist,
    "cifar10": _Cifar10,
    "nmnist": _Nmnist,
    "cifar10dvs": _Cifar10Dvs,
    "gesture": _Gesture,
    "synthetic-gesture": _SyntheticGesture,
}


_MARKS = ("test_batch", "trials_to_train.txt")
"""Files that mark an extracted folder and stand for it."""


def open_raw(
    dataset: DatasetSpec,
    root: Path | None,
    *,
    frames: FramesSpec | None = None,
    verify: bool = True,
    notes: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> EventSet | ImageSet:
    """Finds a data set's raw files and checks what is there.

    Args:
        dataset: Which.
        root: The folder of the files, or its parent; None looks in PLIFCTL_RAW_DIR, then where systems keep data sets.
        frames: The recipe's choices for event data; None for images.
        verify: Refuse archives whose md5 is not the published one.
        notes: A folder that remembers what was found in files that did not change since; None: read all again.
        progress: Told how many bytes are read, of how many.

    Raises:
        RawDataError: Nothing, or not everything, was found; says where it looked and how to get the files.
        ChecksumError: A checksum differs.
        DamagedFileError: A file cannot be read.
    """
    layout = _LAYOUTS[dataset.layout]
    searched = list(_candidates(dataset.name, layout, root))
    for folder in searched:
        parts = {part: _first_there(folder, names, root) for part, names in layout.files.items()}
        there = {part: path for part, path in parts.items() if path is not None}
        if len(there) == len(parts):
            with paths.machine_errors(folder):
                raw = layout(dataset, folder, there, frames, verify, notes, progress)
            assert isinstance(raw, EventSet | ImageSet)
            return raw
        if there:
            missing = ", ".join(layout.files[part][0] for part in parts if part not in there)
            raise RawDataError(
                f"{folder}: {missing} missing (or extracted); the other files of {dataset.title} are there",
                hint=f"get the rest from {layout.sources}",
            )
    wanted = ", ".join(names[0] for names in layout.files.values())
    where = ", ".join(dict.fromkeys(str(folder) for folder in searched)) or "no folder: PLIFCTL_RAW_DIR is not set"
    raise RawDataError(
        f"no raw data of {dataset.title}: looked for {wanted} (or extracted) in {where}",
        hint=f"get it from {layout.sources}\nthen name the folder: --raw DIR, or export PLIFCTL_RAW_DIR=DIR",
    )


def _candidates(name: str, layout: type[RawSet], root: Path | None) -> Iterator[Path]:
    """Folders to look in, in order."""
    base = root if root is not None else paths.raw_dir()
    named_by = "--raw" if root is not None else "PLIFCTL_RAW_DIR"
    if base is not None:
        if not base.exists():
            raise RawDataError(
                f"{named_by} {base}: no such folder", hint="name the folder that holds the raw files: --raw DIR"
            )
        if base.is_file():
            known = {name for names in layout.files.values() for name in names}
            if base.name not in known:
                raise RawDataError(
                    f"{named_by} {base}: no file of this data set, which are {', '.join(sorted(known))}",
                    hint="name the folder that holds the raw files: --raw DIR",
                )
            base = base.parent
        base = base.resolve()
        own = [base / folder for folder in dict.fromkeys((name, *layout.folders)) if not Path(folder).is_absolute()]
        yield from [base, *own] if root is not None else [*own, base]
    if root is None and name in _LAYOUTS:  # where systems keep the published set, no other is to be found
        yield from (Path(folder) for folder in layout.folders if Path(folder).is_absolute())


def _first_there(folder: Path, names: Sequence[str], named: Path | None) -> Path | None:
    """The first of ``names`` that is there; a file that the user named comes before all others."""
    for name in sorted(names, key=lambda name: named is None or named.name != name):
        path = folder / name
        # what has no ending is a folder, except for the files that people unpack
        is_folder = "." not in name and "ubyte" not in name and name not in _MARKS
        if path.is_dir() if is_folder else path.is_file():
            return folder if name in _MARKS else path
    return None


def _require(path: Path, names: Sequence[str], survey: Survey, *, named_in: str = "") -> None:
    missing = [name for name in names if name not in survey.members]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        because = f", named in {named_in}" if named_in else ""
        raise RawDataError(
            f"{path}: {PurePosixPath(missing[0])}{more} is missing{because}",
            hint="the data set is not whole: get or extract it again",
        )
