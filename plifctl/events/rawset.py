"""Raw data of one data set, found and surveyed: what every layout has in common."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from plifctl.errors import ChecksumError, DamagedFileError, RawDataError
from plifctl.events.storage import Storage
from plifctl.specs import DatasetSpec, FramesSpec

Progress = Callable[[int, int], None]
"""Is told how much is done, of how much."""

Recording = tuple[int, np.ndarray, int]
"""Row of a sample, its events (dtype EVENT, sorted by t), and how many there were before invalid ones were left out."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled sample; ``id`` is its logical place in the data set, e.g. ``Train/3/00041``."""

    id: str
    label: int
    split: Literal["train", "test"]


class RawSet(ABC):
    """The raw data of one data set, found and surveyed.

    Args:
        dataset: What is expected.
        root: The folder that holds the parts.
        parts: Where each part lies.
        frames: Choices of the recipe that concern raw data; None for images.
        verify: Refuse a part whose checksum is not the published one.
        notes: A folder that remembers surveys, or None.
        progress: Told how many bytes are surveyed, of how many.

    Attributes:
        samples: All samples, training first, each split sorted by id.
        verified: Every published checksum was compared and equal.
        complete: The official numbers of samples are there.
        notes: What the user must be told about the data.
        digest: sha256 over the logical members' names and contents; an archive and its extracted folder give one.

    Raises:
        ChecksumError: A checksum differs.
        RawDataError: There are more samples than the data set has, or none.
    """

    folders: ClassVar[Sequence[str]] = ()
    """Names under which people keep the folder, seen from its parent."""
    pattern: ClassVar[re.Pattern[str]]
    """Finds a member's logical name, group 1."""
    files: ClassVar[Mapping[str, Sequence[str]]]
    """Names of each part's archive (preferred: it has a checksum), file or folder."""
    md5: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Published checksums of each part."""
    sources: ClassVar[str] = ""
    """Where the data set can be had."""

    def __init__(
        self,
        dataset: DatasetSpec,
        root: Path,
        parts: Mapping[str, Path],
        frames: FramesSpec | None,
        verify: bool,
        notes: Path | None,
        progress: Progress,
    ) -> None:
        self.dataset, self.root, self.frames, self._remembered = dataset, root, frames, notes
        self.storages = {part: Storage(path, self.pattern) for part, path in parts.items()}
        done, total = 0, sum(storage.nbytes() for storage in self.storages.values())

        def told(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        self.surveys = {part: storage.survey(notes, told) for part, storage in self.storages.items()}
        published = [self._is_published(part, verify) for part in parts]  # of every part: each may be refused
        self.verified = bool(self.md5) and all(published)
        parts_digest = "".join(f"{part}\0{survey.digest}\n" for part, survey in sorted(self.surveys.items()))
        self.digest = hashlib.sha256(parts_digest.encode()).hexdigest()
        found = self._samples()
        self.samples = tuple(sorted(found, key=lambda sample: (sample.split == "test", sample.id)))
        self.rows = {sample.id: row for row, sample in enumerate(self.samples)}
        if len(self.rows) < len(self.samples):
            twice = next(a.id for a, b in pairwise(self.samples) if a.id == b.id)
            raise RawDataError(f"{root}: sample {twice} is there twice, under two file names")
        self.complete = self._is_complete()
        self.notes = tuple(self._notes())

    def members(self, part: str) -> Iterator[tuple[str, bytes]]:
        """Yields each member of a part, logical name and content, in the order of storage.

        Raises:
            RawDataError: A member is not what it was when it was surveyed.
        """
        surveyed = self.surveys[part].members
        for name, content in self.storages[part].read():
            if hashlib.sha256(content).hexdigest() != surveyed.get(name):
                if self._remembered is not None:
                    with suppress(OSError):
                        self.storages[part].forget(self._remembered)
                raise RawDataError(
                    f"{self.storages[part].path}: {name} is not what it was when the folder was surveyed",
                    hint="type the same command again: the data will be surveyed anew",
                )
            yield name, content

    @abstractmethod
    def _samples(self) -> list[Sample]:
        """Returns the samples that the surveyed members hold."""

    def _is_published(self, part: str, verify: bool) -> bool:
        found, known = self.surveys[part].md5s, self.md5.get(part, ())
        if self.dataset.name != self.dataset.layout:
            return False  # a data set of one's own has no published checksum
        if not known or not found:
            return False
        if set(found) & set(known):
            return True
        if verify:
            raise ChecksumError(
                f"{self.storages[part].path}: md5 {found[0]}, the published file has {known[0]}",
                hint="get the file again\nor accept it as it is: add --no-checksum; the cache will say so from then on",
            )
        return False

    def _is_complete(self) -> bool:
        train, test = self._found_counts()
        official = self.dataset.samples
        if train > official.train or test > official.test:
            raise RawDataError(
                f"{self.root}: {train} training and {test} test samples, but {self.dataset.title} has "
                f"{official.train} and {official.test}",
                hint="is another data set, or a second copy, in the same folder?",
            )
        if train == 0 or test == 0:
            raise RawDataError(f"{self.root}: {train} training and {test} test samples found, both are needed")
        return (train, test) == (official.train, official.test)

    def _found_counts(self) -> tuple[int, int]:
        """Numbers of training and test samples present, to compare with the official ones."""
        test = sum(sample.split == "test" for sample in self.samples)
        return len(self.samples) - test, test

    def _notes(self) -> Iterator[str]:
        if not self.complete:
            train, test = self._found_counts()
            official = self.dataset.samples
            yield (
                f"incomplete: {train} of {official.train} training and {test} of {official.test} test samples; "
                "results on a subset are no results on the data set"
            )
        if self.md5 and not self.verified:
            if self.dataset.name != self.dataset.layout:
                why = "a data set of one's own has no published checksum"
            elif any(survey.md5s for survey in self.surveys.values()):
                why = "a checksum differs from the published one"
            else:
                why = "extracted folders carry no checksum"
            yield f"unverified: {why}"


class EventSet(RawSet):
    """A data set of recordings."""

    def recordings(self) -> Iterator[tuple[str, bytes]]:
        """Yields each recording once, in the order of storage: logical member name and content."""
        for part in self.storages:
            for name, content in self.members(part):
                if self._holds_samples(name):
                    yield name, content

    @abstractmethod
    def decode(self, member: str, data: bytes) -> list[Recording]:
        """Cuts a recording into its samples; pure, so threads may share it.

        Raises:
            DamagedFileError: The recording cannot be decoded; the message names file and offset.
            RawDataError: All its events are marked invalid.
        """

    @abstractmethod
    def _holds_samples(self, member: str) -> bool:
        """Whether a member is a recording that samples are cut from."""

    def _where(self, member: str) -> str:
        """The member as a user can find it."""
        for part, survey in self.surveys.items():
            if member in survey.members:
                return f"{self.storages[part].path}: {member}"
        return member


class ImageSet(RawSet):
    """A data set of static images."""

    @abstractmethod
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns images uint8 ``[N, C, H, W]`` and labels int64 ``[N]``, row i being ``samples[i]``."""

    def _numbered(self, split: Literal["train", "test"], labels: np.ndarray) -> list[Sample]:
        classes = len(self.dataset.classes)
        outside = np.flatnonzero((labels < 0) | (labels >= classes))
        if len(outside):
            raise DamagedFileError(
                f"{self.root}: {split} label {outside[0]} is {labels[outside[0]]}, expected 0 to {classes - 1}"
            )
        return [Sample(f"{split}/{n:05d}", int(label), split) for n, label in enumerate(labels)]
