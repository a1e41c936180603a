"""The peers' own code: SpikingJelly's and tonic's functions and data sets, as a user would call them.

SpikingJelly's data set modules import torchvision and torchaudio, which do not load beside torch's CPU build. The
little that is called of them stands here; nothing of what is measured does.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch.utils.data import Dataset


class _DatasetFolder(Dataset[tuple[Any, int]]):
    """torchvision's data set of one folder a class."""

    def __init__(
        self,
        root: Path,
        loader: Callable[[str], Any],
        extensions: tuple[str, ...],
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], int] | None = None,
    ) -> None:
        self.loader, self.transform, self.target_transform = loader, transform, target_transform
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        self.samples = [
            (str(path), label)
            for label, name in enumerate(classes)
            for path in sorted(Path(root, name).iterdir())
            if path.suffix in extensions
        ]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        sample = self.loader(path)
        if self.transform is not None:
            sample = self.transform(sample)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return sample, label

    def __len__(self) -> int:
        return len(self.samples)


def _stub(name: str, **members: object) -> None:
    module = ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def spikingjelly() -> ModuleType:
    """Returns ``spikingjelly.datasets``, imported beside stand-ins for torchvision and torchaudio.

    Its threads and compression are set by environment variables that it reads now:
    SJ_MAX_THREADS_NUMBER_FOR_DATASETS_PREPROCESS and SJ_SAVE_DATASETS_COMPRESSED.
    """
    if "torchvision" not in sys.modules:
        _stub("torchaudio")
        _stub("torchvision")
        _stub("torchvision.transforms")
        _stub("torchvision.datasets", DatasetFolder=_DatasetFolder)
        _stub(
            "torchvision.datasets.utils",
            check_integrity=lambda fpath, md5: True,  # the copied recordings have no published checksum
            extract_archive=lambda archive, folder: shutil.unpack_archive(archive, folder),
            download_url=None,
            verify_str_arg=None,
        )
    from spikingjelly import datasets

    return datasets


def spikingjelly_dataset(name: str, root: Path, T: int, *, train: bool) -> Dataset[tuple[np.ndarray, int]]:
    """Returns SpikingJelly's data set of frames, converted unless ``root`` holds it already.

    Args:
        name: ``gesture`` or ``nmnist``.
        root: As :func:`spikingjelly_root` made it.
        T: Number of frames, cut by number of events.
        train: Which split; both are converted.
    """
    datasets = spikingjelly()
    made = {"gesture": datasets.DVS128Gesture, "nmnist": datasets.NMNIST}[name]
    found: Dataset[tuple[np.ndarray, int]] = made(
        root, train=train, data_type="frame", frames_number=T, split_by="number"
    )
    return found


def spikingjelly_root(name: str, raw: Path, root: Path) -> None:
    """Lays raw files out as SpikingJelly expects them; gesture recordings count as extracted, for ours are too."""
    (root / "download").mkdir(parents=True)
    if name == "gesture":
        (root / "extract").mkdir()
        (root / "extract" / "DvsGesture").symlink_to(raw, target_is_directory=True)
    else:
        for archive in raw.glob("*.zip"):
            (root / "download" / archive.name).symlink_to(archive)


def as_columns(events: np.ndarray, dtype: type[np.integer]) -> dict[str, np.ndarray]:
    """Returns events as SpikingJelly's readers do: one array a column."""
    return {name: events[name].astype(dtype) for name in ("t", "x", "y", "p")}


def as_tonic(events: np.ndarray) -> np.ndarray:
    """Returns events as tonic's readers do."""
    from tonic.io import make_structured_array

    made: np.ndarray = make_structured_array(events["x"], events["y"], events["t"], events["p"])
    return made
