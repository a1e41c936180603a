"""Rows of a cache for training, validation and test: protocols A and B.

Both start from the official training and test set. A trains on the complete training set; B (supplement G) keeps a part
of each class of it for validation. Rows are int64 and ascending, so a split depends on the labels alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from plifctl.config.base import digest_of
from plifctl.config.choices import Rounding
from plifctl.errors import UsageError


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a cache for each purpose, int64 and ascending.

    Attributes:
        train: Rows to train on.
        validation: Rows to select the model on; empty in protocol A.
        test: Rows to test on.
        notes: Remarks on the split for the user.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the three lists of rows, hexadecimal."""
        return digest_of({name: rows.tolist() for name, rows in self._parts()})

    def to_json(self, sample_ids: Sequence[str]) -> dict[str, Any]:
        """Returns the split as sample ids, its digest and notes, for ``split.json``.

        Args:
            sample_ids: The id of each row of the cache.
        """
        ids = {name: [sample_ids[row] for row in rows] for name, rows in self._parts()}
        return {"digest": self.digest, "notes": list(self.notes), **ids}

    def _parts(self) -> list[tuple[str, np.ndarray]]:
        return [("train", self.train), ("validation", self.validation), ("test", self.test)]


def split_a(labels: np.ndarray, is_test: np.ndarray, subset: float, classes: Sequence[str]) -> Split:
    """Returns the split of protocol A: the official training and test set, no validation.

    Args:
        labels: Class of each row, int64 ``[N]``.
        is_test: Whether a row belongs to the official test set, bool ``[N]``.
        subset: Fraction of each class of both sets to use, in sample order; at least one sample of each class.
        classes: Names of the classes, for notes.
    """
    train, test = _official(labels, is_test, subset)
    absent = [name for label, name in enumerate(classes) if label not in labels[train]]
    return Split(train, _rows([]), test, tuple(map(_absent_note, absent)))


def split_b(
    labels: np.ndarray,
    is_test: np.ndarray,
    *,
    train_fraction: float,
    rounding: Rounding,
    subset: float,
    classes: Sequence[str],
) -> Split:
    """Returns the split of protocol B: the first part of each class's training samples trains, the rest validates.

    Args:
        labels: Class of each row, int64 ``[N]``.
        is_test: Whether a row belongs to the official test set, bool ``[N]``.
        train_fraction: f, the share of a class of n samples that stays in training; a decimal number, so that 0.85 of
            20 is exactly 17.
        rounding: ``ceil`` trains on ⌈f·n⌉ samples of a class, ``ceil-keep-one`` on min(n − 1, ⌈f·n⌉).
        subset: As in :func:`split_a`; applied first.
        classes: Names of the classes, for messages.

    Raises:
        UsageError: A class has too few samples to give one to training and one to validation.

    Source: supplement G; ``ceil`` is the rule of the authors' code.
    """
    rows, test = _official(labels, is_test, subset)
    train: list[np.ndarray] = []
    validation: list[np.ndarray] = []
    notes: list[str] = []
    for label, name in enumerate(classes):
        members = rows[labels[rows] == label]
        n = len(members)
        if n == 0:
            notes.append(_absent_note(name))
            continue
        n_train = _ceil(train_fraction, n)
        if rounding == "ceil-keep-one":
            n_train = min(n - 1, n_train)
        if n_train in (0, n):
            raise UsageError(
                f"protocol B: class {name} has {n} training sample{'s' if n > 1 else ''}; {rounding} of "
                f"{train_fraction} leaves {n_train} for training and {n - n_train} for validation; each needs 1",
                hint="use more samples (--set train.subset=1.0), or protocol A, which needs no validation",
            )
        train.append(members[:n_train])
        validation.append(members[n_train:])
    return Split(_rows(train), _rows(validation), test, tuple(notes))


def _absent_note(name: str) -> str:
    return f"class {name} has no training sample"


def _official(labels: np.ndarray, is_test: np.ndarray, subset: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the official training and test set, of each class the first ⌈subset·n⌉."""
    parts = []
    for test in (False, True):
        rows = np.flatnonzero(is_test == test)
        by_class = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
        parts.append(_rows([members[: _ceil(subset, len(members))] for members in by_class]))
    return parts[0], parts[1]


def _ceil(fraction: float, n: int) -> int:
    """Returns ⌈fraction·n⌉ of the decimal as printed; of the binary float, 0.85 · 20 may come out above 17."""
    return math.ceil(Fraction(str(float(fraction))) * n)


def _rows(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the rows of all parts, ascending, int64."""
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
