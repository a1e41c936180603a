"""CIFAR-10."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from plifctl.data.datasets.base import ImageDataset, Sample
from plifctl.data.formats.cifar import decode_cifar_batch
from plifctl.errors import RawDataError, list_names


class Cifar10(ImageDataset):
    """CIFAR-10: five training batches and a test batch, as python pickles."""

    folder_names: ClassVar[Sequence[str]] = (
        "cifar10",
        "CIFAR10",
        "cifar-10-batches-py",
        "CIFAR10/cifar-10-batches-py",
        "cifar10/cifar-10-batches-py",
    )
    page = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    formats: ClassVar[Sequence[str]] = ("CIFAR",)
    pattern = re.compile(r"(?:^|/)(data_batch_[1-5]|test_batch)$")
    part_files: ClassVar[Mapping[str, Sequence[str]]] = {
        "batches": ("cifar-10-python.tar.gz", "cifar-10-batches-py", "test_batch")
    }
    md5: ClassVar[Mapping[str, Sequence[str]]] = {"batches": ("c58f30108f718f92721af3b95e74349a",)}
    urls: ClassVar[Mapping[str, Sequence[str]]] = {"batches": (page,)}
    nbytes: ClassVar[Mapping[str, int]] = {"batches": 170_498_071}

    def _samples(self) -> list[Sample]:
        train = np.concatenate([labels for _, labels in self._batches[:-1]])
        return self._number_samples("train", train) + self._number_samples("test", self._batches[-1][1])

    def images(self) -> np.ndarray:
        return np.concatenate([images for images, _ in self._batches])

    @cached_property
    def _batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Images and labels of each batch, the test batch last."""
        names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
        where = self.storages["batches"].path
        if missing := [name for name in names if name not in self.surveys["batches"].members]:
            raise RawDataError(
                f"{where}: {list_names(missing, 1)} is missing",
                hint="the data set is incomplete: download or extract it again",
            )
        content = {member.name: member.load() for member in self.members("batches")}
        return [decode_cifar_batch(content[name], where=f"{where}: {name}") for name in names]
