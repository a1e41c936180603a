"""The predicted class of each test sample, as a run keeps it of the epoch that it reports (``predictions.npz``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plifctl import files
from plifctl.errors import RunError
from plifctl.runs.npz import load_arrays, save_arrays
from plifctl.runs.records import ResultRecord

FILE_NAME = "predictions.npz"


@dataclass(frozen=True)
class Comparison:
    """Two networks' predictions for the same samples.

    Attributes:
        total: Number of samples.
        different: Ids of the samples for which they predict different classes.
        other_label: Ids of the samples that have another true class.
    """

    total: int
    different: tuple[str, ...]
    other_label: tuple[str, ...] = ()

    @property
    def equal(self) -> int:
        """Number of samples for which they predict the same class."""
        return self.total - len(self.different)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted class of each test sample.

    Attributes:
        sample_ids: Ids of the samples in the cache ``[N]``.
        labels: True class of each ``[N]``, unsigned integers.
        predicted: Predicted class of each ``[N]``, unsigned integers.
        epoch: Epoch of the network, from 1; None: unknown.
    """

    sample_ids: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    epoch: int | None = None

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def right(self) -> int:
        """Number of correct predictions."""
        return int((self.predicted == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions."""
        return float((self.predicted == self.labels).mean())

    def compare(self, other: Predictions) -> Comparison | None:
        """Compares the predicted classes sample by sample, in any order; None: they are of different samples."""
        ours, theirs = self._by_id(), other._by_id()
        if theirs.keys() != ours.keys():
            return None
        different, other_label = (
            tuple(name for name, found in ours.items() if found[index] != theirs[name][index]) for index in (0, 1)
        )
        return Comparison(len(self), different, other_label)

    def count_discordant(self, other: Predictions) -> tuple[int, int] | None:
        """Counts the samples that only one of two networks classifies correctly.

        Returns:
            How many only this one does, and how many only the other; None: they are of different samples or labels.
        """
        comparison = self.compare(other)
        if comparison is None or comparison.other_label:
            return None
        ours, theirs = (
            {k for k, (predicted, label) in p._by_id().items() if predicted == label} for p in (self, other)
        )
        return len(ours - theirs), len(theirs - ours)

    def _by_id(self) -> dict[str, tuple[int, int]]:
        return dict(zip(self.sample_ids, zip(self.predicted.tolist(), self.labels.tolist(), strict=True), strict=True))

    def save(self, path: Path) -> None:
        """Writes the predictions atomically as a compressed ``.npz``; equal ones give equal bytes."""
        arrays = {"sample_ids": np.array(self.sample_ids), "labels": self.labels, "predicted": self.predicted}
        save_arrays(path, {**arrays, "epoch": np.array(self.epoch or 0)})

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Reads a file that :meth:`save` wrote; executes no code from it.

        Raises:
            RunError: The file is missing or damaged.
        """
        hint = "plifctl eval RUN --csv FILE predicts them again"
        try:
            arrays = load_arrays(files.read_regular(path))
            epoch = int(arrays["epoch"]) or None
            ids = tuple(map(str, arrays["sample_ids"].tolist()))
            found = cls(ids, arrays["labels"], arrays["predicted"], epoch)
            found._check()
        except FileNotFoundError as error:
            raise RunError(f"{path}: missing", hint=hint) from error
        except Exception as error:  # numpy and zipfile raise many types on a damaged file
            raise RunError(f"{path}: damaged: {error}", hint=hint) from error
        return found

    def _check(self) -> None:
        """Raises ValueError unless there is one label and one unsigned predicted class for each id."""
        for name, values in (("labels", self.labels), ("predicted", self.predicted)):
            if values.dtype.kind != "u" or values.shape != (len(self),):
                raise ValueError(f"{name}: {values.dtype} {list(values.shape)}, expected unsigned [{len(self)}]")
        if not len(self) or len(set(self.sample_ids)) != len(self):
            raise ValueError("its sample ids are not unique, or there are none")


def reported_predictions(folder: Path, record: ResultRecord) -> Predictions | None:
    """Returns the predicted class of each test sample that a run keeps, of the epoch that a record of it reports.

    Args:
        folder: Folder of the run, trained here or added.
        record: Its result, or that of its first epochs.

    Returns:
        None of runs that keep none, imported ones and those of 0.1.0, and where they are of another epoch: a longer
        training was killed between its predictions and its result.

    Raises:
        RunError: The file is damaged.
    """
    if not (folder / FILE_NAME).is_file():
        return None
    found = Predictions.load(folder / FILE_NAME)
    return found if (found.epoch, found.accuracy) == (record.best_epoch, record.accuracy) else None
