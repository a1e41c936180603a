"""MNIST and Fashion-MNIST."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from plifctl.config.choices import Split
from plifctl.data.datasets.base import ImageDataset, Sample
from plifctl.data.formats.idx import decode_idx
from plifctl.data.formats.variants import LARGE, LARGE_IDX
from plifctl.errors import DamagedFileError

_PREFIXES: Mapping[Split, str] = {"train": "train", "test": "t10k"}
"""Beginning of the file names of each split."""


class Idx(ImageDataset):
    """MNIST and Fashion-MNIST: four IDX files, plain or ``.gz``."""

    formats: ClassVar[Sequence[str]] = ("IDX",)
    pattern = re.compile(r"(?:^|/)((?:train|t10k)[-](?:images|labels)[-.]idx\d-ubyte)$")
    part_files: ClassVar[Mapping[str, Sequence[str]]] = {
        part: (f"{part}.gz", part, part.replace("-idx", ".idx"))
        for prefix in _PREFIXES.values()
        for part in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    }

    def _samples(self) -> list[Sample]:
        samples: list[Sample] = []
        for split, prefix in _PREFIXES.items():
            images, labels = (self._arrays[f"{prefix}-{what}-ubyte"] for what in ("images-idx3", "labels-idx1"))
            if images.shape != (len(labels), *self.dataset.shape[1:]):
                raise DamagedFileError(
                    f"{self.root}: {prefix} images have shape {list(images.shape)}, "
                    f"expected {[len(labels), *self.dataset.shape[1:]]} for {len(labels)} labels"
                )
            samples += self._number_samples(split, labels)
        return samples

    def formats_read(self) -> list[str]:
        largest = max(Counter(sample.split for sample in self.samples).values(), default=0)
        return [*super().formats_read(), *([LARGE_IDX] if largest > LARGE else [])]

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        """Content of each part."""
        return {
            part: decode_idx(member.load(), where=str(self.storages[part].path))
            for part in self.part_files
            for member in self.members(part)
        }

    def images(self) -> np.ndarray:
        return np.concatenate([self._arrays[f"{prefix}-images-idx3-ubyte"] for prefix in _PREFIXES.values()])[:, None]


def _idx_at(*folders: str) -> dict[str, tuple[str, ...]]:
    """Returns the URLs of the four files in folders that contain them under their published names."""
    return {part: tuple(f"{folder}{names[0]}" for folder in folders) for part, names in Idx.part_files.items()}


class Mnist(Idx):
    """Handwritten digits."""

    folder_names: ClassVar[Sequence[str]] = ("mnist", "MNIST", "MNIST/raw")
    page = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    urls: ClassVar[Mapping[str, Sequence[str]]] = _idx_at(
        "https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"
    )
    nbytes: ClassVar[Mapping[str, int]] = {
        "train-images-idx3-ubyte": 9_912_422,
        "train-labels-idx1-ubyte": 28_881,
        "t10k-images-idx3-ubyte": 1_648_877,
        "t10k-labels-idx1-ubyte": 4_542,
    }
    # of the published .gz, then of its content
    md5: ClassVar[Mapping[str, Sequence[str]]] = {
        "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    }


class FashionMnist(Idx):
    """Images of clothes."""

    folder_names: ClassVar[Sequence[str]] = (
        "fashion-mnist",
        "FashionMNIST",
        "FashionMNIST/raw",
        "/usr/share/datasets/fashion-mnist",
    )
    page = "Debian's package dataset-fashion-mnist, or http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    urls: ClassVar[Mapping[str, Sequence[str]]] = _idx_at(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    )
    nbytes: ClassVar[Mapping[str, int]] = {
        "train-images-idx3-ubyte": 26_421_880,
        "train-labels-idx1-ubyte": 29_515,
        "t10k-images-idx3-ubyte": 4_422_102,
        "t10k-labels-idx1-ubyte": 5_148,
    }
    # Debian packed the files again, so the content's checksum is accepted too
    md5: ClassVar[Mapping[str, Sequence[str]]] = {
        "train-images-idx3-ubyte": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        "train-labels-idx1-ubyte": ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
        "t10k-images-idx3-ubyte": ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
        "t10k-labels-idx1-ubyte": ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
    }
