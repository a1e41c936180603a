"""Base classes of data sets: their files are found and surveyed, their samples listed, their recordings decoded."""

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
from typing import ClassVar, NamedTuple

import numpy as np

from plifctl.config.choices import SPLIT_WORDS, SPLITS, Split
from plifctl.config.dataset import DatasetSpec, Framing, SampleCounts
from plifctl.data.datasets.names import without_ending
from plifctl.data.events import Decoded, Events
from plifctl.data.formats.variants import VARIANTS
from plifctl.data.remarks import Remark, empty_note
from plifctl.data.source import RawSource, RemoteFile
from plifctl.data.storage import Member, Storage, Survey
from plifctl.errors import ChecksumError, RawDataError, join_problems, list_names

Progress = Callable[[int, int], None]
"""Called with the amount done, and the total."""


class Sample(NamedTuple):
    """A labelled sample.

    Attributes:
        id: Its logical name in the data set, e.g. ``Train/3/00041``.
        label: Its class.
        split: Official split that it belongs to.
        group: Subject, session …, if the raw data name it; empty otherwise.
    """

    id: str
    label: int
    split: Split
    group: str = ""


@dataclass(frozen=True, slots=True)
class RecordingFile:
    """A member that contains one or more samples.

    Attributes:
        name: Its logical name.
        rows: Rows of its samples.
        nbytes: Its size as stored.
        load: Returns its content; may be called in any thread.
    """

    name: str
    rows: Sequence[int]
    nbytes: int
    load: Callable[[], bytes]


class DecodedSample(NamedTuple):
    """A sample of a recording.

    Attributes:
        row: Row of the sample.
        events: Its events, sorted by t.
        n_raw: Number of its events in the file, invalid ones included.
        remarks: What the user should know about its recording; of a recording of several samples, with the first.
    """

    row: int
    events: Events
    n_raw: int
    remarks: tuple[Remark, ...] = ()


class EventCounts(NamedTuple):
    """Counts of each sample after framing, int64 ``[N]``.

    Attributes:
        n_raw: Number of its events in the file.
        n_events: Number of events framed.
        duration_us: Time from the first framed event to the last, µs.
    """

    n_raw: np.ndarray
    n_events: np.ndarray
    duration_us: np.ndarray


SampleHandler = Callable[[Sample, bytes, Callable[[], Decoded]], None]
"""Called with each sample while the raw data are surveyed, in a thread: the sample, its source digest (see
:meth:`RawDataset.source_digest`), and a function that decodes it."""


class RawDataset(ABC):
    """The raw data of one data set, found and surveyed.

    Args:
        framing: The data set that is expected, and how its recordings are framed.
        root: The folder that contains the parts.
        parts: Path of each part.
        source: Options for reading the files: verification, number of threads, folder of surveys.
        progress: Called with the bytes surveyed so far, and all bytes.
        on_sample: Called with each sample during the survey; only by data sets with a file for each sample.

    Attributes:
        samples: All samples, training first, each split sorted by id.
        verified: Every published checksum was compared and equal.
        complete: The numbers of samples are the official ones.
        notes: Warnings about the data, for the user.
        digest: sha256 over names and contents of the logical members; the same for an archive and its extracted folder.

    Raises:
        ChecksumError: A checksum differs.
        RawDataError: There are more samples than the data set has, or none; the files do not support a choice.
    """

    folder_names: ClassVar[Sequence[str]] = ()
    """Names under which the folder is usually kept, relative to its parent."""
    subfolders: ClassVar[Sequence[str]] = ("", "download", "extract", "extracted")
    """Subfolders of such a folder that may contain the files: SpikingJelly, and ``extracted`` the authors, separate
    archives and extracted files."""
    pattern: ClassVar[re.Pattern[str]]
    """Finds a member's logical name, group 1."""
    lists: ClassVar[re.Pattern[str] | None] = None
    """Finds the logical names of members that are lists: small texts, which the survey keeps."""
    ignored: ClassVar[re.Pattern[str] | None] = None
    """Finds the paths of files that are never members."""
    example: ClassVar[str] = ""
    """Logical name of a member, for messages."""
    formats: ClassVar[Sequence[str]]
    """Formats that the files may have; the first one for files whose header does not tell."""
    part_files: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Names of each part's archive (preferred: it has a checksum), file or folder."""
    md5: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Published checksums of each part, its archive first."""
    page: ClassVar[str] = ""
    """URL of the web page of the data set."""
    urls: ClassVar[Mapping[str, Sequence[str]]] = {}
    """URLs of each part's archive, tried in this order; empty for data sets that must be downloaded by hand."""
    nbytes: ClassVar[Mapping[str, int]] = {}
    """Size of each part's archive, where known."""
    format_notes: ClassVar[Mapping[str, str]] = {}
    """Warnings for the user, by the format of the files; of files that another program converted."""
    unsupported: ClassVar[Mapping[tuple[str, str], tuple[str, str]]] = {}
    """Choices of framing, with their value, that the files do not support: the reason, and a hint."""

    def __init__(
        self,
        framing: Framing,
        root: Path,
        parts: Mapping[str, Path],
        source: RawSource,
        progress: Progress,
        on_sample: SampleHandler | None,
    ) -> None:
        self.framing, self.dataset = framing, framing.dataset
        self.root, self._survey_dir = root, source.survey_dir
        self._is_named = source.root is not None and source.root.is_file()
        for (choice, value), (reason, hint) in self.unsupported.items():
            if getattr(framing.frames, choice, None) == value:
                raise RawDataError(f"{root}: frames.{choice}={value} {reason}", hint=hint)
        self.storages = {part: self._open_storage(part, path) for part, path in parts.items()}
        self.surveys = self._survey(source, progress, on_sample)
        published = [self._is_published(part, source.verify) for part in parts]  # every part, since each may be refused
        self.verified = bool(self.md5) and all(published)
        found = self._samples()
        self._check_labels(found)
        parts_digest = "".join(f"{part}\0{survey.digest}\n" for part, survey in sorted(self.surveys.items()))
        self.digest = hashlib.sha256(parts_digest.encode()).hexdigest()
        found.sort(key=attrgetter("id"))
        self.samples = tuple(sorted(found, key=lambda sample: SPLITS.index(sample.split)))
        self.rows = {sample.id: row for row, sample in enumerate(self.samples)}
        if len(self.rows) < len(self.samples):
            duplicate = min(name for name, count in Counter(sample.id for sample in found).items() if count > 1)
            members = (name for survey in self.surveys.values() for name in sorted(survey.members))
            same = [name for name in members if without_ending(name) == duplicate]
            raise RawDataError(
                f"{root}: sample {duplicate} exists twice: {' and '.join(same[:2]) or 'under two file names'}",
                hint="a sample is named by its file without the ending: rename one, or move it out of the folder",
            )
        self.complete = self._is_complete()
        self.notes = tuple(self._notes())

    def _open_storage(self, part: str, path: Path) -> Storage:
        rename = partial(self.canonical_name, part)
        return Storage(path, self._pattern_in(path), rename, lists=self.lists, ignored=self.ignored)

    def _pattern_in(self, path: Path) -> re.Pattern[str]:
        """Returns the pattern of the members of one storage."""
        return self.pattern

    def _survey(self, source: RawSource, progress: Progress, on_sample: SampleHandler | None) -> dict[str, Survey]:
        done, total = 0, sum(storage.nbytes() for storage in self.storages.values())

        def on_read(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        return {
            part: storage.survey(
                self._survey_dir,
                on_read,
                workers=source.workers,
                on_member=partial(self._handle_member, on_sample, part),
                read=source.read,
            )
            for part, storage in self.storages.items()
        }

    @classmethod
    def find_parts(
        cls, folder: Path, dataset: DatasetSpec | None = None, preferred: str | None = None
    ) -> dict[str, Path | None]:
        """Returns the path of each part of the data set in a folder; None for a part that is missing.

        Args:
            folder: The folder to search.
            dataset: The data set; needed for a user's own recordings.
            preferred: A file in the folder that the user named; preferred to all others.
        """
        return {part: _find_part(folder, names, preferred) for part, names in cls.part_files.items()}

    @classmethod
    def canonical_name(cls, part: str, name: str) -> str:
        """Returns the logical name, as in the published files, of what :attr:`pattern` found in a part."""
        return name

    @classmethod
    def accepts_file(cls, name: str) -> bool:
        """Returns whether a file of this name can be part of the data set."""
        return any(name in names for names in cls.part_files.values())

    @classmethod
    def looked_for(cls, dataset: DatasetSpec) -> str:
        """Returns the names of the files, for a message that they are missing."""
        return f"{', '.join(names[0] for names in cls.part_files.values())} (packed or extracted)"

    @classmethod
    def how_to_get(cls, dataset: DatasetSpec) -> str:
        """Returns the first line of a hint: how to get the files."""
        return f"get it from {cls.page}"

    @classmethod
    def remote_files(cls, parts: Iterable[str]) -> list[RemoteFile]:
        """Returns the published archives of some parts."""
        return [
            RemoteFile(
                cls.part_files[part][0],
                tuple(cls.urls.get(part, ())),
                cls.md5[part][0],
                nbytes=cls.nbytes.get(part),
                page=cls.page,
            )
            for part in parts
            if part in cls.md5
        ]

    def members(self, part: str) -> Iterator[Member]:
        """Yields each member of a part, in storage order; loading one that changed since the survey is an error.

        Raises:
            DamagedFileError: The storage cannot be read.
        """
        for member in self.storages[part].members():
            yield member._replace(load=partial(self._load_unchanged, part, member))

    def _load_unchanged(self, part: str, member: Member) -> bytes:
        content = member.load()
        if hashlib.sha256(content).hexdigest() != self.surveys[part].members.get(member.name):
            if self._survey_dir is not None:
                with suppress(OSError):
                    self.storages[part].forget_survey(self._survey_dir)
            raise RawDataError(
                f"{self.storages[part].path}: {member.name} has changed since the data were surveyed",
                hint="type the same command again: all files are read again",
            )
        return content

    @abstractmethod
    def _samples(self) -> list[Sample]:
        """Returns the samples in the surveyed members."""

    def source_digest(self, row: int) -> bytes:
        """Returns a digest, 32 bytes, of everything in the raw data that the content of a sample depends on."""
        return bytes.fromhex(self.digest)

    def _handle_member(
        self, on_sample: SampleHandler | None, part: str, member: str, content: bytes, digest: str
    ) -> None:
        """Calls ``on_sample`` with the sample in a member, if it is known during the survey; not in this base class."""
        return

    def _has_format(self, format_name: str) -> bool:
        """Returns whether the header of any member names a format."""
        return any(format_name in survey.formats for survey in self.surveys.values())

    def formats_read(self) -> list[str]:
        """Returns the formats that the samples are decoded from, with the variants of them that occur."""
        found = [name for name in self.formats if self._has_format(name)] or [self.formats[0]]
        return [*found, *(name for name in VARIANTS if self._has_format(name))]

    @property
    def _is_users_own(self) -> bool:
        """Whether it is a user's own data set; its layout may be that of a published one."""
        return self.dataset.name != self.dataset.layout

    def _check_labels(self, samples: Iterable[Sample]) -> None:
        """Raises RawDataError if a sample is of none of the classes."""
        classes = len(self.dataset.classes)
        outside = min((sample for sample in samples if not 0 <= sample.label < classes), default=None)
        if outside is not None:
            raise RawDataError(
                f"{self.root}: sample {outside.id} is of class {outside.label}, but {self.dataset.title} has "
                f"{classes} classes, 0 to {classes - 1}",
                hint="name the missing classes, too, in classes: of the data set's YAML; or move their samples out of "
                "the folder"
                if self._is_users_own
                else self.how_to_get(self.dataset),
            )

    def _is_published(self, part: str, verify: bool) -> bool:
        found, known = self.surveys[part].md5s, self.md5.get(part, ())
        if self._is_users_own:
            return False  # it has no published checksum
        if not known or not found:
            return False
        if set(found) & set(known):
            return True
        if verify:
            raise ChecksumError(
                f"{self.storages[part].path}: md5 {found[0]}, the published file has {known[0]}",
                hint="download the file again\nor accept it: add --no-checksum; the cache is then marked unverified",
            )
        return False

    def _is_complete(self) -> bool:
        train, test = self._found_counts()
        official = self._official_counts()
        if official is None:
            if not self.samples:
                raise RawDataError(f"{self.root}: found no samples", hint=self._describe_skipped())
            return True
        expected = (official.train, official.test)
        if not self.dataset.has_split:  # an experiment divides them: only their sum is that of the recordings
            expected = (sum(expected), 0)
        if train > expected[0] or test > expected[1]:
            raise RawDataError(
                f"{self.root}: {train} training and {test} test samples, but {self.dataset.title} has "
                f"{expected[0]} and {expected[1]}",
                hint="remove other data sets and second copies from this folder",
            )
        if train == 0 or test < min(1, expected[1]):
            raise RawDataError(
                f"{self.root}: found {train} training and {test} test samples, expected some of both",
                hint=self._describe_skipped(),
            )
        return (train, test) == expected

    def _describe_skipped(self) -> str:
        """Returns the hint of a data set without samples: what was looked for, and what was found instead."""
        skipped = [(folder, *found) for survey in self.surveys.values() for folder, found in survey.skipped.items()]
        looked_for = f"looked for files such as {self.example}" if self.example else self.how_to_get(self.dataset)
        if not skipped:
            return looked_for
        folder, _, first = skipped[0]
        found = f"{folder}/{first}".removeprefix("/")
        return f"{looked_for}; found {sum(count for _, count, _ in skipped)} others, such as {found}"

    def _official_counts(self) -> SampleCounts | None:
        """Returns the numbers of samples of the complete data set; None if they are not known."""
        return self.dataset.samples

    def _found_counts(self) -> tuple[int, int]:
        """Returns the numbers of training and test samples found, to compare with the official ones."""
        counts = Counter(sample.split for sample in self.samples)
        return counts["train"], counts["test"]

    def _notes(self) -> Iterator[str]:
        official = self._official_counts()
        if not self.complete and official is not None:
            train, test = self._found_counts()
            yield (
                f"incomplete: {train} of {official.train} training and {test} of {official.test} test samples; "
                "results on a subset are not comparable with the full set"
            )
        yield from (note for format_name, note in self.format_notes.items() if self._has_format(format_name))
        if self.md5 and not self.verified:
            yield f"unverified: {self._why_unverified()}"
        if self._is_users_own:
            yield from self._notes_on_absent_classes()

    def _notes_on_absent_classes(self) -> Iterator[str]:
        splits = {sample.split for sample in self.samples}
        for split in (split for split in SPLITS if split in splits):
            present = {sample.label for sample in self.samples if sample.split == split}
            if absent := [name for label, name in enumerate(self.dataset.classes) if label not in present]:
                which = f"{SPLIT_WORDS[split]} samples" if len(splits) > 1 else "samples"
                yield f"no {which} of {'class' if len(absent) == 1 else 'classes'} {list_names(absent)}"

    def _why_unverified(self) -> str:
        if self._is_users_own:
            return "a user's own data set has no published checksum"
        if any(survey.md5s for survey in self.surveys.values()):
            return "a checksum differs from the published one"
        return "extracted folders have no published checksum"


class EventDataset(RawDataset):
    """A data set of recordings."""

    def recordings(self) -> Iterator[RecordingFile]:
        """Yields each recording once, in storage order."""
        for part in self.storages:
            for member in self.members(part):
                if rows := self.rows_of(part, member.name):
                    yield RecordingFile(member.name, rows, member.nbytes, member.load)

    @abstractmethod
    def decode(self, member: str, data: bytes) -> list[DecodedSample]:
        """Returns the samples of a recording; may be called in any thread.

        Raises:
            DamagedFileError: The recording cannot be decoded; the message names file and offset.
            RawDataError: All its events are marked invalid.
        """

    @abstractmethod
    def rows_of(self, part: str, member: str) -> Sequence[int]:
        """Returns the rows of the samples in a member of a part; empty for a member that is not a recording."""

    def notes_on_events(self, counts: EventCounts) -> tuple[str, ...]:
        """Returns warnings about framed samples: those without events, and what is wrong with their recordings.

        Args:
            counts: Counts of each sample.

        Raises:
            RawDataError: No sample of a split has any events.
        """
        splits = [sample.split for sample in self.samples]
        note = empty_note([sample.id for sample in self.samples], splits, counts.n_raw, counts.n_events)
        causes = tuple(self._notes_on_recordings(counts))
        present = dict.fromkeys(splits)
        for split in present:
            rows = np.array([found == split for found in splits])
            if not counts.n_events[rows].any():
                part = f"{SPLIT_WORDS[split]} set" if len(present) > 1 else "data set"
                left_out = int(counts.n_raw[rows].sum())
                because = f"; all {left_out} were left out (invalid, outside, or by transforms)" if left_out else ""
                raise RawDataError(
                    join_problems(
                        [f"{self.root}: 0 events in all {rows.sum()} samples of the {part}{because}", *causes]
                    ),
                    hint="change the choices of frames: that leave them out"
                    if left_out
                    else "correct the labels or replace the recordings, then type the same command again",
                )
        return causes if note is None else (note, *causes)

    def _notes_on_recordings(self, counts: EventCounts) -> Iterator[str]:
        """Yields what is wrong with the recordings that samples were cut from; nothing in this base class."""
        yield from ()

    def _path_of(self, member: str) -> str:
        """Returns the storage and the member in it, for messages."""
        for part, survey in self.surveys.items():
            if member in survey.members and self.rows_of(part, member):
                return f"{self.storages[part].path}: {member}"
        return member


class FilePerSample(EventDataset):
    """A data set of recordings that contain one sample each."""

    def decode(self, member: str, data: bytes) -> list[DecodedSample]:
        events, dropped, remarks = self._decode(data, self._path_of(member))
        return [DecodedSample(self.rows[self._by_member[member].id], events, len(events) + dropped, remarks)]

    @abstractmethod
    def _sample(self, part: str, member: str) -> Sample | None:
        """Returns the sample in a member of a part; None for a member that is not a sample."""

    @abstractmethod
    def _decode(self, data: bytes, where: str) -> Decoded:
        """Decodes a recording."""

    def source_digest(self, row: int) -> bytes:
        return self._source_digests[row]

    @cached_property
    def _source_digests(self) -> list[bytes]:
        found = {
            sample.id: survey.members[name]
            for part, survey in self.surveys.items()
            for name in survey.members
            if (sample := self._sample(part, name)) is not None
        }
        return [bytes.fromhex(found[sample.id]) for sample in self.samples]

    def _handle_member(
        self, on_sample: SampleHandler | None, part: str, member: str, content: bytes, digest: str
    ) -> None:
        if on_sample is None or (sample := self._sample(part, member)) is None:
            return

        on_sample(
            sample,
            bytes.fromhex(digest),
            partial(self._decode, content, f"{self.storages[part].path}: {member}"),
        )

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
    def images(self) -> np.ndarray:
        """Returns the images, uint8 ``[N, C, H, W]``, row i being ``samples[i]``."""

    def _number_samples(self, split: Split, labels: np.ndarray) -> list[Sample]:
        digits = max(5, len(str(len(labels) - 1)))  # samples are sorted by id, and images are in the order of the file
        return [Sample(f"{split}/{n:0{digits}d}", int(label), split) for n, label in enumerate(labels)]


_MARKER_FILES = ("test_batch", "trials_to_train.txt")
"""Files by which an extracted folder is recognised; the folder itself is then the part."""


def _find_part(folder: Path, names: Sequence[str], preferred: str | None) -> Path | None:
    for name in sorted(names, key=lambda name: name != preferred):
        path = folder / name
        # a name without an ending is a folder's, except for extracted IDX files and marker files
        is_folder = "." not in name and "ubyte" not in name and name not in _MARKER_FILES
        if path.is_dir() if is_folder else path.is_file():
            return folder if name in _MARKER_FILES else path
    return None
