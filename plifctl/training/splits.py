"""Rows of a cache for training, validation and test.

First the test samples are chosen (:class:`~plifctl.config.split.SplitSpec`), then, in protocol B, the validation
samples among the others. Protocol A trains on all others but the validation samples of the data set; B (supplement G)
keeps a part of each class for validation; C trains on all samples that are not tested on.
Rows are int64 and ascending. Everything depends on labels, ids, groups and seeds alone: what is random is the order of
samples by a hash of seed and id.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any
from typing import Protocol as Interface

import numpy as np

from plifctl.config.base import digest_of
from plifctl.config.choices import Protocol
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.split import FROM_TABLE, SplitSpec
from plifctl.config.training import ValidationSpec
from plifctl.errors import UsageError, list_names


class Samples(Interface):
    """What a split is made from; a cache has all of it.

    Attributes:
        labels: Class of each sample, int64 ``[N]``.
        is_test: Whether it belongs to the official test set, bool ``[N]``.
        is_validation: Whether it belongs to official validation samples, bool ``[N]``.
        sample_ids: Its logical name.
        groups: Its group, where the raw data name one; else None.
    """

    labels: np.ndarray
    is_test: np.ndarray
    is_validation: np.ndarray
    sample_ids: list[str]
    groups: list[str] | None


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a cache for each purpose, int64 and ascending.

    Attributes:
        train: Rows to train on.
        validation: Rows to select the model on; empty unless the protocol is B.
        test: Rows to test on.
        notes: Remarks on the split for the user.
        groups: Names of the groups of each purpose; empty unless samples are split by group.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()
    groups: dict[str, list[str]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the three lists of rows, hexadecimal."""
        return digest_of({name: rows.tolist() for name, rows in self._parts()})

    def describe_groups(self) -> str:
        """Returns the names of the groups of each purpose as one line; empty unless samples are split by group."""
        return "; ".join(f"{name}: {list_names(names, 6)}" for name, names in self.groups.items())

    def to_json(self, sample_ids: Sequence[str]) -> dict[str, Any]:
        """Returns the split as sample ids, its digest, notes and groups, for ``split.json``.

        Args:
            sample_ids: The id of each row of the cache.
        """
        ids = {name: [sample_ids[row] for row in rows] for name, rows in self._parts()}
        groups = {"groups": self.groups} if self.groups else {}
        return {"digest": self.digest, "notes": list(self.notes), **groups, **ids}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], sample_ids: Sequence[str]) -> Split:
        """Returns the split that :meth:`to_json` gave, of the same samples.

        Args:
            tree: Content of ``split.json``.
            sample_ids: The id of each row of the cache.
        """
        row_of = {name: row for row, name in enumerate(sample_ids)}
        train, validation, test = (
            np.sort(np.array([row_of[name] for name in tree.get(part, ())], np.int64))
            for part in ("train", "validation", "test")
        )
        return cls(train, validation, test, tuple(tree.get("notes", ())), dict(tree.get("groups", {})))

    def _parts(self) -> list[tuple[str, np.ndarray]]:
        return [("train", self.train), ("validation", self.validation), ("test", self.test)]


def make_split(protocol: Protocol, spec: ExperimentSpec, samples: Samples) -> Split:
    """Returns the rows that an experiment trains, validates and tests on.

    Args:
        protocol: A and C, without validation, or B. In C the validation samples of the data set are trained on.
        spec: The experiment: ``split``, ``validation``, ``train.subset`` (the part of each class of training,
            validation and test samples that is used, the first ones by id) and the classes.
        samples: The samples of its cache.

    Raises:
        UsageError: The samples do not allow the split: no test samples, too few of a class, a pattern of groups that
            ids do not have.

    Source: supplement G for protocol B; ``rounding: ceil`` is the rule of the authors' code.
    """
    groups = _groups(spec.split, samples)
    train, test = _choose_test(spec, samples, groups)
    if protocol == "C":
        train = np.setdiff1d(np.arange(len(samples.labels)), test)
    subset = spec.train.subset
    train, test = (_first_of_each_class(rows, samples.labels, subset) for rows in (train, test))
    validation = _rows([])
    if protocol == "B":
        train, validation = _choose_validation(spec, samples, groups, train)
    split = Split(train, validation, test)
    _check_parts(protocol, spec, split)
    named: dict[str, list[str]] = {}
    if groups is not None:
        named = {name: sorted({groups[row] for row in rows}) for name, rows in split._parts() if len(rows)}
    notes = [*_notes(protocol, spec, samples, split), *_notes_on_groups(split, groups, samples)]
    return Split(train, validation, test, tuple(notes), named)


def _check_parts(protocol: Protocol, spec: ExperimentSpec, split: Split) -> None:
    """Raises UsageError if there is nothing to train, to validate or to test on."""
    names = ("train", "validation", "test") if protocol == "B" else ("train", "test")
    for name in names:
        if not len(getattr(split, name)):
            counts = ", ".join(f"{len(rows)} for {part}" for part, rows in split._parts() if part in names)
            raise UsageError(
                f"{spec.dataset.title}: no sample is left for {name} ({counts}): the methods of the split and of "
                "validation take single samples of no class",
                hint="record more samples of each class, or test on parts of all samples: --cv-fold 1/5",
            )


def _choose_test(spec: ExperimentSpec, samples: Samples, groups: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that are not tested on and are for training, and those that are tested on."""
    split, everything = spec.split, np.arange(len(samples.labels))
    match split.method:
        case "official":
            if not samples.is_test.any():
                raise UsageError(
                    f"{spec.dataset.title}: the recordings have no test set",
                    hint="make one: --set split.method=share --set split.test=0.2\n"
                    "or in the experiment's file: split: {method: share, test: 0.2}",
                )
            return np.flatnonzero(~samples.is_test & ~samples.is_validation), np.flatnonzero(samples.is_test)
        case "share":
            assert split.test is not None
            chosen = _draw_share(everything, samples, groups, _exact(split.test), split.seed)
        case "folds":
            assert split.folds is not None
            assert split.fold is not None
            chosen = _draw_folds(everything, samples, groups, split.folds, split.seed) == split.fold - 1
        case "leave-one-out":
            assert split.fold is not None
            assert groups is not None
            names = sorted(set(groups))
            if split.fold > len(names):
                raise UsageError(
                    f"split.fold {split.fold}: there are {len(names)} groups: {list_names(names, 12)}",
                    hint=f"a number from 1 to {len(names)}",
                )
            chosen = np.array(groups) == names[split.fold - 1]
    return everything[~chosen], everything[chosen]


def _choose_validation(
    spec: ExperimentSpec, samples: Samples, groups: Sequence[str] | None, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that stay in training, and those for validation."""
    validation = spec.validation
    match validation.method:
        case "official":
            rows = np.flatnonzero(samples.is_validation)
            if spec.split.method != "official" or not len(rows):
                problem = "the recordings have none" if not len(rows) else f"split.method is {spec.split.method}"
                raise UsageError(
                    f"validation.method official: {spec.dataset.title} has no validation samples: {problem}",
                    hint="draw them from the training samples: --set validation.method=share",
                )
            return train, _first_of_each_class(rows, samples.labels, spec.train.subset)
        case "share":
            drawn = _draw_share(train, samples, groups, 1 - _exact(validation.train_fraction), spec.split.seed)
            return train[~drawn], train[drawn]
        case "in-order":
            return _last_of_each_class(validation, samples.labels, train, spec.dataset.classes)


def _last_of_each_class(
    validation: ValidationSpec, labels: np.ndarray, rows: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Divides training rows as the paper does: the first part of each class trains, the rest validates."""
    fraction, rounding = validation.train_fraction, validation.rounding
    train: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    for label, name in enumerate(classes):
        members = rows[labels[rows] == label]
        n = len(members)
        if n == 0:
            continue
        n_train = _ceil(fraction, n)
        if rounding == "ceil-keep-one":
            n_train = min(n - 1, n_train)
        if n_train in (0, n):
            raise UsageError(
                f"protocol B: class {name} has {n} training sample{'s' if n > 1 else ''}; {rounding} of "
                f"{fraction} leaves {n_train} for training and {n - n_train} for validation; each needs 1",
                hint="use more samples (--set train.subset=1.0), or protocol A or C, which need no validation",
            )
        train.append(members[:n_train])
        rest.append(members[n_train:])
    return _rows(train), _rows(rest)


def _notes(protocol: Protocol, spec: ExperimentSpec, samples: Samples, split: Split) -> list[str]:
    classes = spec.dataset.classes
    parts = [("training", split.train), ("test", split.test)]
    parts += [("validation", split.validation)] if protocol == "B" else []
    notes = []
    for part, rows in parts:
        present = set(samples.labels[rows].tolist())
        if part != "training" and spec.split.method == "official" and spec.validation.method != "share":
            continue  # what the data set, or the paper's rule, says
        notes += [f"class {name} has no {part} sample" for label, name in enumerate(classes) if label not in present]
    unused = samples.is_validation.any() and spec.split.method == "official"
    if unused and protocol == "B" and spec.validation.method != "official":
        notes.append(
            f"{int(samples.is_validation.sum())} validation samples of the data set are not used: "
            "validation.method=official would"
        )
    return notes


def _notes_on_groups(split: Split, groups: Sequence[str] | None, samples: Samples) -> Iterator[str]:
    """Yields notes on groups that may be one, and on groups of which some samples are tested on and others are not."""
    found = groups or (None if samples.groups is None else list(map(_composed, samples.groups)))
    if found is None:
        return
    spellings: dict[str, set[str]] = {}
    for name in set(found):
        spellings.setdefault(" ".join(name.casefold().split()), set()).add(name)
    for same in sorted(map(sorted, spellings.values())):
        if len(same) > 1:
            yield f"{' and '.join(same)} are different groups, though only capitals or blanks differ"
    tested = {found[row] for row in split.test.tolist()} - {""}
    divided = tested & {found[row] for row in (*split.train.tolist(), *split.validation.tolist())}
    if divided:
        remedy = "" if groups else "; with split.groups=table and validation.method=share, groups stay together"
        yield f"samples of the same group are trained on and tested on: {list_names(sorted(divided), 6)}{remedy}"


def _groups(split: SplitSpec, samples: Samples) -> list[str] | None:
    """Returns the group of each sample; None if each is one by itself."""
    if split.groups is None:
        return None
    if split.groups == FROM_TABLE:
        if samples.groups is None or not all(samples.groups):
            ids = zip(samples.sample_ids, samples.groups or (), strict=False)
            without = [name for name, group in ids if not group]
            raise UsageError(
                "split.groups: table, but the label table names no group"
                + (f" of {list_names(without, 3)}" if without else ""),
                hint="name its column in the data set: labels: {group: COLUMN, …}\n"
                "or state a pattern of the ids: --set split.groups='(subject[0-9]+)'",
            )
        return list(map(_composed, samples.groups))
    found = [re.search(split.groups, _composed(sample)) for sample in samples.sample_ids]
    without = [name for name, match in zip(samples.sample_ids, found, strict=True) if match is None]
    if without:
        raise UsageError(
            f"split.groups: the pattern {split.groups!r} is not in {len(without)} of {len(found)} ids: "
            f"{list_names(without, 3)}",
            hint="change the pattern; plifctl show-sample shows ids",
        )
    return [match[1] if match.re.groups and match[1] is not None else match[0] for match in found if match is not None]


def _composed(group: str) -> str:
    """Returns the name of a group with its accents in one form: macOS writes them as characters of their own."""
    return unicodedata.normalize("NFC", group)


def _draw_share(
    rows: np.ndarray, samples: Samples, groups: Sequence[str] | None, share: Fraction, seed: int
) -> np.ndarray:
    """Chooses samples at random: a share of each class, rounded, but at least one and not all.

    Args:
        rows: The samples to choose from, ``[n]``.
        samples: All samples.
        groups: Group of each sample; groups are chosen as a whole. None: each sample is one by itself.
        share: The share, exact: 0.15 of 10 samples is 1.5, and not a little more.
        seed: Decides the choice, together with the ids (or names of groups).

    Returns:
        Whether each sample is chosen, bool ``[n]``; the only sample of a class is not.

    Raises:
        UsageError: There is one group only.
    """
    if groups is not None:
        parts = _draw_groups(rows, samples.labels, groups, [float(1 - share), float(share)], seed)
        return parts.astype(bool)
    chosen = np.zeros(len(rows), bool)
    for members in _shuffled_classes(rows, samples, seed):
        count = math.floor(share * len(members) + Fraction(1, 2))
        chosen[members[: min(max(count, 1), len(members) - 1)]] = True
    return chosen


def _draw_folds(rows: np.ndarray, samples: Samples, groups: Sequence[str] | None, folds: int, seed: int) -> np.ndarray:
    """Divides samples at random into parts of one size, each with about its share of every class.

    Args:
        rows: As of :func:`_draw_share`, like samples, groups and seed.
        samples: See rows.
        groups: See rows.
        folds: Number of parts.
        seed: See rows.

    Returns:
        The part of each sample, int64 ``[n]``.

    Raises:
        UsageError: There are fewer groups than parts.
    """
    if groups is not None:
        return _draw_groups(rows, samples.labels, groups, [1 / folds] * folds, seed)
    part, dealt = np.empty(len(rows), np.int64), 0
    for members in _shuffled_classes(rows, samples, seed):
        part[members] = (dealt + np.arange(len(members))) % folds  # dealt like cards, on from the last class
        dealt += len(members)
    return part


def _shuffled_classes(rows: np.ndarray, samples: Samples, seed: int) -> Iterator[np.ndarray]:
    """Yields the places in ``rows`` of the samples of each class, in a random order that seed and ids decide."""
    labels = samples.labels[rows]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        hashes = [_hash(seed, samples.sample_ids[row]) for row in rows[members].tolist()]
        yield members[np.argsort(hashes, kind="stable")]


def _draw_groups(
    rows: np.ndarray, labels: np.ndarray, groups: Sequence[str], weights: Sequence[float], seed: int
) -> np.ndarray:
    """Divides the groups of some samples: the largest first, each to the part whose classes then fit its share best."""
    groups = [groups[row] for row in rows.tolist()]
    names = sorted(set(groups), key=lambda name: _hash(seed, name))
    if len(names) < len(weights):
        raise UsageError(
            f"{len(names)} groups cannot be divided into {len(weights)} parts: {list_names(sorted(names), 6)}",
            hint="check the pattern split.groups, or divide single samples: --set split.groups=null",
        )
    place = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(names), int(labels.max(initial=0)) + 1))
    np.add.at(counts, ([place[name] for name in groups], labels[rows]), 1)
    targets = np.outer(weights, counts.sum(0))
    filled, part = np.zeros_like(targets), np.empty(len(names), np.int64)
    for group in np.argsort(-counts.sum(1), kind="stable").tolist():
        before, after = (
            ((held - targets) ** 2 / np.maximum(targets, 1e-9)) for held in (filled, filled + counts[group])
        )
        part[group] = int((after - before).sum(1).argmin())
        filled[part[group]] += counts[group]
    _fill_empty_parts(part, counts.sum(1), targets.sum(1))
    return part[[place[name] for name in groups]]


def _fill_empty_parts(part: np.ndarray, sizes: np.ndarray, targets: np.ndarray) -> None:
    """Moves into each empty part, from the part with most groups, the group whose size fits it best."""
    for empty in np.flatnonzero(np.bincount(part, minlength=len(targets)) == 0).tolist():
        candidates = np.flatnonzero(part == np.bincount(part, minlength=len(targets)).argmax())
        part[candidates[np.abs(sizes[candidates] - targets[empty]).argmin()]] = empty


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()


def _first_of_each_class(rows: np.ndarray, labels: np.ndarray, subset: float) -> np.ndarray:
    """Returns of each class the first ⌈subset·n⌉ rows."""
    by_class = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    return _rows([members[: _ceil(subset, len(members))] for members in by_class])


def _ceil(fraction: float, n: int) -> int:
    """Returns ⌈fraction·n⌉ of the decimal as printed; of the binary float, 0.85 · 20 may come out above 17."""
    return math.ceil(_exact(fraction) * n)


def _exact(fraction: float) -> Fraction:
    """Returns the decimal number that a float is printed as."""
    return Fraction(str(float(fraction)))


def _rows(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the rows of all parts, ascending, int64."""
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
