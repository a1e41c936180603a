"""Raw data sets of any size, made by copying the real recordings."""

from __future__ import annotations

import csv
import itertools
import shutil
import zipfile
from pathlib import Path

from plifctl.config.dataset import DatasetSpec, FramesSpec, SampleCounts
from plifctl.config.lookup import load_registry

EVENT_BYTES = 5
"""Bytes of an N-MNIST event in its file."""


def gesture_folder(shared: Path, folder: Path, recordings: int) -> tuple[int, int]:
    """Writes gesture recordings under new user names, four of five for training, as the data set lays them out.

    Args:
        shared: The folder of real recordings.
        folder: The folder; is created.
        recordings: Number of recordings, of ten samples each.

    Returns:
        Numbers of training and test samples.
    """
    folder.mkdir(parents=True)
    originals = sorted((shared / "DvsGesture").glob("*.aedat"))
    shutil.copy(shared / "DvsGesture" / "gesture_mapping.csv", folder)
    trials: dict[str, list[str]] = {"train": [], "test": []}
    samples = {"train": 0, "test": 0}
    for number, original in zip(range(recordings), itertools.cycle(originals)):
        table = original.with_name(f"{original.stem}_labels.csv")
        stem = f"user{number + 1:03d}_lab"
        shutil.copyfile(original, folder / f"{stem}.aedat")
        shutil.copyfile(table, folder / f"{stem}_labels.csv")
        split = "test" if number % 5 == 4 else "train"
        trials[split].append(f"{stem}.aedat\n")
        with table.open(newline="") as lines:
            samples[split] += sum(1 for _ in csv.reader(lines)) - 1
    for split, names in trials.items():
        (folder / f"trials_to_{split}.txt").write_text("".join(names))
    return samples["train"], samples["test"]


def nmnist_zips(shared: Path, folder: Path, samples: int) -> tuple[int, int]:
    """Writes N-MNIST recordings under new numbers as Train.zip and Test.zip, nine of ten for training.

    Returns:
        Numbers of training and test samples.
    """
    folder.mkdir(parents=True)
    test = samples // 10
    for part, count in (("Train", samples - test), ("Test", test)):
        with zipfile.ZipFile(folder / f"{part}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for number, (digit, content) in enumerate(itertools.islice(itertools.cycle(_nmnist(shared, part)), count)):
                archive.writestr(f"{part}/{digit}/{number:05d}.bin", content)
    return samples - test, test


def nmnist_files(shared: Path, folder: Path, samples: int, events: int) -> tuple[int, int]:
    """Writes the first events of N-MNIST recordings as extracted files, nine of ten for training.

    Returns:
        Numbers of training and test samples.
    """
    test = samples // 10
    for part, count in (("Train", samples - test), ("Test", test)):
        for digit in range(10):
            (folder / part / str(digit)).mkdir(parents=True)
        for number, (digit, content) in enumerate(itertools.islice(itertools.cycle(_nmnist(shared, part)), count)):
            (folder / part / digit / f"{number:05d}.bin").write_bytes(content[: events * EVENT_BYTES])
    return samples - test, test


def sized(name: str, counts: tuple[int, int], slicing: str) -> tuple[DatasetSpec, FramesSpec]:
    """Returns a data set of the shipped registry that has these numbers of samples, and how it is framed."""
    found = load_registry().dataset(name, "paper", [f"frames.slicing={slicing}"])
    assert found.frames is not None
    train, test = counts
    return found.dataset.model_copy(update={"samples": SampleCounts(train=train, test=test)}), found.frames


def _nmnist(shared: Path, part: str) -> list[tuple[str, bytes]]:
    """Digit and content of every recording."""
    with zipfile.ZipFile(shared / "NMNIST" / f"{part}.zip") as archive:
        return [(name.split("/")[-2], archive.read(name)) for name in archive.namelist() if name.endswith(".bin")]
