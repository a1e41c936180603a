"""Raw data of one data set, found and surveyed: what every layout has in common."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from plifctl.config.dataset import Framing, SampleCounts
from plifctl.data.events import Decoded, Events
from plifctl.data.source import RawSource, RemoteFile
from plifctl.data.storage import Member, Storage
from plifctl.errors import ChecksumError, DamagedFileError, RawDataError

Progress = Callable[[int, int], None]
"""Is told how much is done, of how much."""

Recording = tuple[int, Events, int]
"""Row of a sample, its events, sorted by t,, and how many there were before invalid ones were left out."""


class Sample(NamedTuple):
    """One labelled sample; ``id`` is its logical place in the data set, e.g. ``Train/3/00041``."""

    id: str
    label: int
    split: Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class RecordingFile:
    """A member that samples are cut from.

    Attributes:
        name: Its logical name.
        rows: Rows of its samples.
        nbytes: Its size, as stored.
        load: Returns its content; may be called in any thread.
    """

    name: str
    rows: Sequence[int]
    nbytes: int
    load: Callable[[], bytes]


Visit = Callable[[Sample, bytes, Callable[[], tuple[Events, int]]], None]
"""Is shown a sample while the raw data are read for the first time, in a thread: the sample, its source (see
:meth:`RawDataset.source`), and what returns its events and the number of events read."""


class RawDataset(ABC):
    """The raw data of one data set, found and surveyed.

    Args:
        framing: The data set that is expected, and how its recordings are framed.
        root: The folder that holds the parts.
        parts: Where each part lies.
        source: How the files are treated: verified or not, by how many threads, with surveys kept where.
        progress: Called with the bytes surveyed so far, and all bytes.
        visit: See :data:`Visit`; of sets with a file for each sample only.

    Attributes:
        samples: All samples, training first, each split sorted by id.
        verified: Every published checksum was compared and equal.
        complete: The official numbers of samples are there.
        notes: What the user must be told about the data.
        digest: sha256 over the logical members' names and contents; an archive and its extracted folder give one.

    Raises:
        ChecksumError: A checksum differs.
        RawDataError: There are more samples than the data set has, or none; the files cannot honour a choice.
    """

    folders: ClassVar[Sequence[str]] = ()
    """Names under which people keep the folder, seen from its parent."""
    inside: ClassVar[Sequence[str]] = ("", "download", "extract")
    """Where in such a folder the files may be: SpikingJelly keeps archives and what it unpacked apart."""
    pattern: ClassVar[re.Pattern[str]]
    """Finds a member's logical name, group 1."""
    files: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Names of each part's archive (preferred: it has a checksum), file or folder."""
    md5: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Reported checksums of each part, that of its archive first."""
    sources: ClassVar[str] = ""
    """Where a person can get the data set."""
    downloads: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Addresses of each part's archive, to be tried in this order; none of a set that must be got by hand."""
    sizes: ClassVar[Mapping[str, int]] = {}
    """Bytes of each part's archive, where known."""
    remarks: ClassVar[Mapping[str, str]] = {}
    """What the user must be told where a member has the format; of files that another program converted."""
    formats: ClassVar[Sequence[str]]
    """Formats that the files may have; the first one where no header tells."""
    impossible: ClassVar[Mapping[tuple[str, str], tuple[str, str]]] = {}
    """Choices of framing, with their value, that the files cannot honour: why, and a hint."""

    def __init__(
        self,
        framing: Framing,
        root: Path,
        parts: Mapping[str, Path],
        source: RawSource,
        progress: Progress,
        visit: Visit | None,
    ) -> None:
        self.framing, self.dataset, self.frames = framing, framing.dataset, framing.frames
        self.root, self._survey_dir = root, source.survey_dir
        for (choice, value), (why, hint) in self.impossible.items():
            if getattr(self.frames, choice, None) == value:
                raise RawDataError(f"{root}: frames.{choice}={value} {why}", hint=hint)
        self.storages = {part: Storage(path, self.pattern) for part, path in parts.items()}
        done, total = 0, sum(storage.nbytes() for storage in self.storages.values())

        def told(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        self.surveys = {
            part: storage.survey(
                self._survey_dir, told, workers=source.workers, visit=partial(self._visited, visit, part)
            )
            for part, storage in self.storages.items()
        }
        published = [self._is_published(part, source.verify) for part in parts]  # of every part: each may be refused
        self.verified = bool(self.md5) and all(published)
        parts_digest = "".join(f"{part}\0{survey.digest}\n" for part, survey in sorted(self.surveys.items()))
        self.digest = hashlib.sha256(parts_digest.encode()).hexdigest()
        found = self._samples()
        found.sort(key=attrgetter("id"))
        self.samples = tuple(sorted(found, key=attrgetter("split"), reverse=True))  # train before test
        self.rows = {sample.id: row for row, sample in enumerate(self.samples)}
        if len(self.rows) < len(self.samples):
            twice = min(name for name, count in Counter(sample.id for sample in found).items() if count > 1)
            raise RawDataError(f"{root}: sample {twice} is there twice, under two file names")
        self.complete = self._is_complete()
        self.notes = tuple(self._notes())

    @classmethod
    def find(cls, folder: Path, name: str, named: str | None) -> dict[str, Path | None]:
        """Returns where each part of the data set lies in a folder, None where it does not.

        Args:
            folder: Where to look.
            name: The data set's name.
            named: A file in the folder that the user named: it comes before all others.
        """
        return {part: _first_there(folder, names, named) for part, names in cls.files.items()}

    @classmethod
    def knows(cls, file: str) -> bool:
        """Whether a file of such a name can be part of the data set."""
        return any(file in names for names in cls.files.values())

    @classmethod
    def published(cls, parts: Iterable[str]) -> list[RemoteFile]:
        """Returns the published archives of some parts."""
        return [
            RemoteFile(
                cls.files[part][0],
                tuple(cls.downloads.get(part, ())),
                cls.md5[part][0],
                nbytes=cls.sizes.get(part),
                page=cls.sources,
            )
            for part in parts
            if part in cls.md5
        ]

    def members(self, part: str) -> Iterator[Member]:
        """Yields each member of a part, in the order of storage; to load one raises what it can.

        Raises:
            RawDataError: A member is not what it was when it was surveyed.
        """
        for member in self.storages[part].members():
            yield member._replace(load=partial(self._as_surveyed, part, member))

    def _as_surveyed(self, part: str, member: Member) -> bytes:
        content = member.load()
        if hashlib.sha256(content).hexdigest() != self.surveys[part].members.get(member.name):
            if self._survey_dir is not None:
                with suppress(OSError):
                    self.storages[part].forget(self._survey_dir)
            raise RawDataError(
                f"{self.storages[part].path}: {member.name} is not what it was when the folder was surveyed",
                hint="type the same command again: the data will be surveyed anew",
            )
        return content

    @abstractmethod
    def _samples(self) -> list[Sample]:
        """Returns the samples that the surveyed members hold."""

    def source(self, row: int) -> bytes:
        """Returns a digest, 32 bytes, of all in the raw data that the content of a sample depends on."""
        return bytes.fromhex(self.digest)

    def _visited(self, visit: Visit | None, part: str, member: str, content: bytes, digest: str) -> None:
        """Shows the sample in a member to ``visit``, where it can be told before all is surveyed: here it cannot."""
        return

    def _require(self, part: str, names: Sequence[str], *, named_in: str = "") -> None:
        """Raises RawDataError unless a part has members of these names."""
        missing = [name for name in names if name not in self.surveys[part].members]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            because = f", named in {named_in}" if named_in else ""
            raise RawDataError(
                f"{self.storages[part].path}: {missing[0]}{more} is missing{because}",
                hint="the data set is not whole: get or extract it again",
            )

    def _has(self, format_name: str) -> bool:
        """Whether the header of any member names a format."""
        return any(format_name in survey.formats for survey in self.surveys.values())

    def formats_read(self) -> list[str]:
        """Returns the formats that the samples are decoded from."""
        return [name for name in self.formats if self._has(name)] or [self.formats[0]]

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
        official = self._official_counts()
        if train > official.train or test > official.test:
            raise RawDataError(
                f"{self.root}: {train} training and {test} test samples, but {self.dataset.title} has "
                f"{official.train} and {official.test}",
                hint="is another data set, or a second copy, in the same folder?",
            )
        if train == 0 or test == 0:
            raise RawDataError(f"{self.root}: {train} training and {test} test samples found, both are needed")
        return (train, test) == (official.train, official.test)

    def _official_counts(self) -> SampleCounts:
        """Numbers of samples of the whole set."""
        return self.dataset.samples

    def _found_counts(self) -> tuple[int, int]:
        """Numbers of training and test samples present, to compare with the official ones."""
        test = sum(sample.split == "test" for sample in self.samples)
        return len(self.samples) - test, test

    def _notes(self) -> Iterator[str]:
        if not self.complete:
            train, test = self._found_counts()
            official = self._official_counts()
            yield (
                f"incomplete: {train} of {official.train} training and {test} of {official.test} test samples; "
                "results on a subset are no results on the data set"
            )
        yield from (remark for format_name, remark in self.remarks.items() if self._has(format_name))
        if self.md5 and not self.verified:
            yield f"unverified: {self._why_unverified()}"

    def _why_unverified(self) -> str:
        if self.dataset.name != self.dataset.layout:
            return "a data set of one's own has no published checksum"
        if any(survey.md5s for survey in self.surveys.values()):
            return "a checksum differs from the published one"
        return "extracted folders carry no checksum"


class EventDataset(RawDataset):
    """A data set of recordings."""

    def recordings(self) -> Iterator[RecordingFile]:
        """Yields each recording once, in the order of storage."""
        for part in self.storages:
            for member in self.members(part):
                if rows := self.rows_of(part, member.name):
                    yield RecordingFile(member.name, rows, member.nbytes, member.load)

    @abstractmethod
    def decode(self, member: str, data: bytes) -> list[Recording]:
        """Cuts a recording into its samples; pure, so threads may share it.

        Raises:
            DamagedFileError: The recording cannot be decoded; the message names file and offset.
            RawDataError: All its events are marked invalid.
        """

    @abstractmethod
    def rows_of(self, part: str, member: str) -> Sequence[int]:
        """Returns the rows of the samples cut from a member of a part; none, where that is no recording."""

    def _where(self, member: str) -> str:
        """The member as a user can find it."""
        for part, survey in self.surveys.items():
            if member in survey.members and self.rows_of(part, member):
                return f"{self.storages[part].path}: {member}"
        return member


class FilePerSample(EventDataset):
    """A data set of recordings that hold one sample each."""

    def decode(self, member: str, data: bytes) -> list[Recording]:
        events, dropped = self._decode(data, self._where(member))
        return [(self.rows[self._by_member[member].id], events, len(events) + dropped)]

    @abstractmethod
    def _sample(self, part: str, member: str) -> Sample | None:
        """Returns the sample in a member of a part; None where it is none."""

    @abstractmethod
    def _decode(self, data: bytes, where: str) -> Decoded:
        """Decodes a recording."""

    def source(self, row: int) -> bytes:
        return self._sources[row]

    @cached_property
    def _sources(self) -> list[bytes]:
        found = {
            sample.id: survey.members[name]
            for part, survey in self.surveys.items()
            for name in survey.members
            if (sample := self._sample(part, name)) is not None
        }
        return [bytes.fromhex(found[sample.id]) for sample in self.samples]

    def _visited(self, visit: Visit | None, part: str, member: str, content: bytes, digest: str) -> None:
        if visit is None or (sample := self._sample(part, member)) is None:
            return

        def load() -> tuple[Events, int]:
            events, dropped = self._decode(content, f"{self.storages[part].path}: {member}")
            return events, len(events) + dropped

        visit(sample, bytes.fromhex(digest), load)

    @cached_property
    def _by_member(self) -> dict[str, Sample]:
        found = ((name, self._sample(part, name)) for part, survey in self.surveys.items() for name in survey.members)
        return {name: sample for name, sample in found if sample is not None}

    def _samples(self) -> list[Sample]:
        return list(self._by_member.values())

    def rows_of(self, part: str, member: str) -> Sequence[int]:
        sample = self._sample(part, member)
        return () if sample is None else (self.rows[sample.id],)


class ImageDataset(RawDataset):
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


_MARKS = ("test_batch", "trials_to_train.txt")
"""Files that mark an extracted folder and stand for it."""


def _first_there(folder: Path, names: Sequence[str], named: str | None) -> Path | None:
    for name in sorted(names, key=lambda name: name != named):
        path = folder / name
        # what has no ending is a folder, except for the files that people unpack
        is_folder = "." not in name and "ubyte" not in name and name not in _MARKS
        if path.is_dir() if is_folder else path.is_file():
            return folder if name in _MARKS else path
    return None
