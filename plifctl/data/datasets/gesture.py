"""DVS128 Gesture: the original recordings, SpikingJelly's cuts of them, and tonic's set."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from plifctl.config.choices import Split
from plifctl.config.dataset import ReadingSpec, SampleCounts
from plifctl.data.datasets.base import (
    DecodedSample,
    EventCounts,
    EventDataset,
    FilePerSample,
    Sample,
)
from plifctl.data.datasets.label_windows import SHORTEST_US, EventSpan, describe_windows
from plifctl.data.events import Decoded
from plifctl.data.formats.aedat3 import decode_aedat3
from plifctl.data.formats.arrays import decode_npy, decode_npz
from plifctl.errors import DamagedFileError, RawDataError, list_names

_LABELS_HEAD = ["class", "startTime_usec", "endTime_usec"]
_FIRST = 78
"""Number of recordings of the training list that the authors' runs used."""

_SPLITS: tuple[Split, Split] = ("train", "test")

_ORIGINAL_NAMES = re.compile(r"user\d+_[a-z_]+(?:\.aedat|_labels\.csv)|trials_to_(?:train|test)\.txt")
"""Members that the digest of the raw data contains whether or not a list names them."""

_LATEST_US = 2**62
"""Bound of the times in tables, µs: that of the times of events."""

_MAX_DESCRIBED = 10
"""Recordings whose problem is described in a note of its own."""

_Window = tuple[Sample, int, int]
"""A sample and its window in the recording: events with start ≤ t < end, µs."""


class Gesture(EventDataset):
    """AEDAT 3.1 recordings, each with the windows of its gestures, and lists of recordings to split.

    Recordings may have any names: those in the lists count, with or without a path and an ending, and in any case
    where a file system or a person changed it.
    """

    folder_names: ClassVar[Sequence[str]] = ("gesture", "DvsGesture", "DVS128Gesture")
    page = "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794"
    formats: ClassVar[Sequence[str]] = ("AEDAT 3.1",)
    example = "user01_fluorescent.aedat, listed in trials_to_train.txt"
    pattern = re.compile(r"(?:^|/)([^/]+\.aedat|[^/]+_labels\.csv|trials_to_(?:train|test)\.txt)$", re.IGNORECASE)
    lists = re.compile(r"\.(?:csv|txt)$", re.IGNORECASE)
    part_files: ClassVar[Mapping[str, Sequence[str]]] = {
        "recordings": ("DvsGesture.tar.gz", "DvsGesture.tgz", "DvsGesture", "trials_to_train.txt")
    }
    md5: ClassVar[Mapping[str, Sequence[str]]] = {"recordings": ("8a5c71fb11e24e5ca5b11866ca6c00a1",)}

    def _samples(self) -> list[Sample]:
        in_both = set(self._trials("train")) & set(self._trials("test"))
        if in_both:
            raise RawDataError(f"{self.root}: {min(in_both)} is in both trials_to_train.txt and trials_to_test.txt")
        samples = [sample for trial in self._used_recordings for sample, _, _ in self._windows[trial]]
        self._spans: dict[str, EventSpan] = {}
        self._forget_unlisted()
        return samples

    def _forget_unlisted(self) -> None:
        """Keeps the members in the lists, and those named as in the original, which the digest always contained."""
        used = {member for split in _SPLITS for member in (self._list_of(split), *self._trials(split))}
        used |= {self._table_of(trial, split) for split in _SPLITS for trial in self._trials(split)}
        survey = self.surveys["recordings"]
        kept = {
            name: digest for name, digest in survey.members.items() if name in used or _ORIGINAL_NAMES.fullmatch(name)
        }
        self.surveys = {"recordings": replace(survey, members=kept)}

    @cached_property
    def _there(self) -> tuple[str, ...]:
        """All members that may be lists, recordings or tables."""
        return tuple(sorted(self.surveys["recordings"].members))

    def _found_counts(self) -> tuple[int, int]:
        # whether the set is complete does not depend on how much of it a recipe trains on
        train, test = (sum(len(self._windows[trial]) for trial in self._trials(split)) for split in _SPLITS)
        return train, test

    @cached_property
    def _used_recordings(self) -> frozenset[str]:
        """The recordings that the recipe uses."""
        assert self.frames is not None
        train = self._trials("train")
        return frozenset((train[:_FIRST] if self.frames.training_set == "first-78" else train) + self._trials("test"))

    @cached_property
    def _windows(self) -> dict[str, list[_Window]]:
        """The samples of every recording in the two lists."""
        return {trial: self._read_windows(trial, split) for split in _SPLITS for trial in self._trials(split)}

    def _list_of(self, split: Split) -> str:
        return self._find([f"trials_to_{split}.txt"])

    def _trials(self, split: Split) -> list[str]:
        """Returns the recordings of a list, as they are called in the storage."""
        text = self.surveys["recordings"].texts[self._list_of(split)]
        # a line may have a path, of Windows too, and lack the ending
        names = [name for line in text.splitlines() if (name := line.strip().strip("\"'").replace("\\", "/"))]
        bare = [name.rpartition("/")[2] for name in names]
        return list(dict.fromkeys(self._find([name, f"{name}.aedat"], f"trials_to_{split}.txt") for name in bare))

    def _table_of(self, trial: str, split: Split) -> str:
        return self._find([f"{_stem(trial)}_labels.csv"], f"trials_to_{split}.txt, as the labels of {trial}")

    def _find(self, names: Sequence[str], named_in: str = "") -> str:
        """Returns the member with the first of these names that there is; else one that differs in :func:`_comparable`.

        Raises:
            RawDataError: There is none; the message names files of the same kind that are there.
        """
        if exact := next((name for name in names if name in self._there), None):
            return exact
        wanted = [_comparable(name) for name in names]
        similar = [name for name in self._there if _comparable(name) in wanted]
        if len(similar) == 1:
            return similar[0]
        because = f", named in {named_in}" if named_in else ""
        where = f"{self.storages['recordings'].path}: {names[0]}"
        if similar:
            raise RawDataError(f"{where}{because}: found {' and '.join(similar)}", hint="rename or remove one of them")
        ending = wanted[-1][wanted[-1].rfind("_labels.csv" if wanted[-1].endswith("_labels.csv") else ".") :]
        same_kind = [name for name in self._there if name.lower().endswith(ending)]
        others = f"{len(same_kind)} other *{ending} {'is' if len(same_kind) == 1 else 'are'} there"
        found = f"; {others}, e.g. {same_kind[0]}" if same_kind else ""
        raise RawDataError(
            f"{where} is missing{because}{found}",
            hint="correct the name in the list, or rename the file"
            if found
            else "the data set is incomplete: download or extract it again",
        )

    def _read_windows(self, trial: str, split: Split) -> list[_Window]:
        table, stem = self._table_of(trial, split), _stem(trial)
        where = f"{self.storages['recordings'].path}: {table}"
        try:
            text = self.surveys["recordings"].texts[table]
            head, *lines = [*csv.reader(text.splitlines())] or [[]]  # whatever ends the lines
        except csv.Error as error:
            raise DamagedFileError(f"{where}: {error}", hint="download the file again") from error
        if [column.strip() for column in head] != _LABELS_HEAD:
            raise DamagedFileError(f"{where}, line 1: {','.join(head)!r}, expected {','.join(_LABELS_HEAD)}")
        windows: list[_Window] = []
        for number, line in enumerate(lines, 2):
            if not line:
                continue
            try:
                label, start, end = (int(value) for value in line)
            except ValueError:
                label, start, end = 0, 0, 0
            if not (1 <= label <= len(self.dataset.classes) and -_LATEST_US <= start <= end <= _LATEST_US):
                raise DamagedFileError(
                    f"{where}, line {number}: {','.join(line)!r}, expected class (1 to "
                    f"{len(self.dataset.classes)}), start and end in µs"
                )
            windows.append((Sample(f"{stem}/{len(windows):02d}", label - 1, split), start, end))
        if not windows:
            raise DamagedFileError(
                f"{where}: contains no windows, expected a line for each gesture",
                hint=f"label the recording, or remove it from trials_to_{split}.txt",
            )
        return windows

    def _notes(self) -> Iterator[str]:
        yield from super()._notes()
        for trial in sorted(self._used_recordings):
            times = [(start, end) for _, start, end in self._windows[trial]]
            if again := len(times) - len(set(times)):
                which = "1 window is" if again == 1 else f"{again} windows are"
                yield f"{trial}: {which} a repetition of another: the same events are more than one sample"

    def source_digest(self, row: int) -> bytes:
        return self._source_digests[self.samples[row].id]

    @cached_property
    def _source_digests(self) -> dict[str, bytes]:
        members = self.surveys["recordings"].members
        return {
            sample.id: hashlib.sha256(f"{members[trial]}\0{start}\0{end}".encode()).digest()
            for trial, windows in self._windows.items()
            for sample, start, end in windows
        }

    def rows_of(self, part: str, member: str) -> Sequence[int]:
        if member not in self._used_recordings:
            return ()
        return [self.rows[sample.id] for sample, _, _ in self._windows[member]]

    def decode(self, member: str, data: bytes) -> list[DecodedSample]:
        assert self.frames is not None
        assert self.frames.invalid_events is not None
        where = self._path_of(member)
        decoded = decode_aedat3(data, where=where, invalid=self.frames.invalid_events)
        every = decoded.events if not decoded.dropped else decode_aedat3(data, where=where, invalid="keep").events
        bounds = np.array([(start, end) for _, start, end in self._windows[member]], np.int64).reshape(-1, 2)
        cuts = np.searchsorted(decoded.events["t"], bounds).tolist()
        self._spans[member] = EventSpan.of(decoded.events["t"], cuts)
        n_raw = np.diff(np.searchsorted(every["t"], bounds))[:, 0].tolist()
        return [
            DecodedSample(self.rows[sample.id], decoded.events[first:last], count, () if index else decoded.remarks)
            for index, ((sample, _, _), (first, last), count) in enumerate(
                zip(self._windows[member], cuts, n_raw, strict=True)
            )
        ]

    def _notes_on_recordings(self, counts: EventCounts) -> Iterator[str]:
        suspects = [member for member in sorted(self._used_recordings) if self._is_suspect(member, counts)]
        if unknown := set(suspects) - set(self._spans):  # framed by a build that was interrupted
            for recording in self.recordings():
                if recording.name in unknown:
                    self.decode(recording.name, recording.load())
        found: dict[str, str] = {}
        for member in suspects:
            windows = [(start, end) for _, start, end in self._windows[member]]
            if (problem := describe_windows(member, windows, self._spans[member])) is not None:
                found[member] = problem
        yield from list(found.values())[:_MAX_DESCRIBED]
        if more := list(found)[_MAX_DESCRIBED:]:
            yield f"the same kind of problem in {len(more)} more recordings: {list_names(more)}"

    def _is_suspect(self, member: str, counts: EventCounts) -> bool:
        """Returns whether the events of a recording may not fill its windows: cheap, and true of more than those."""
        windows = self._windows[member]
        rows = [self.rows[sample.id] for sample, _, _ in windows]
        lengths = np.array([end - start for _, start, end in windows])
        partly = (counts.n_events[rows] == 0) | (counts.duration_us[rows] < 0.99 * lengths)
        return bool(rows) and bool(partly.any() or lengths.max() < SHORTEST_US)


def _comparable(name: str) -> str:
    """Returns a name without capitals, and its accents in one of the two forms that systems write."""
    return unicodedata.normalize("NFC", name.lower())


def _stem(recording: str) -> str:
    return recording[: -len(".aedat")] if recording.lower().endswith(".aedat") else recording


class SyntheticGesture(Gesture):
    """The embedded data set: the same layout, simulated recordings."""

    folder_names: ClassVar[Sequence[str]] = ("synthetic-gesture",)
    md5: ClassVar[Mapping[str, Sequence[str]]] = {}

    @classmethod
    def how_to_get(cls) -> str:
        return "create it: plifctl synthesize DIR"


_CONVERTED_CANNOT = {
    ("training_set", "first-78"): (
        "needs trials_to_train.txt, which converted recordings do not have",
        "use the original DvsGesture.tar.gz\nor train on all recordings: add --set frames.training_set=all",
    ),
    ("invalid_events", "drop"): (
        "needs the valid bits, which converted recordings no longer have",
        "use the original DvsGesture.tar.gz\nor keep all events: add --set frames.invalid_events=keep",
    ),
}


class SpikingJellyGesture(FilePerSample):
    """SpikingJelly's arrays: ``events_np/train/<label>/<recording>_<k>.npz``, k counting a label's windows.

    Within a class the samples are in the original order, so splits by class are the same.
    """

    folder_names = Gesture.folder_names
    subfolders: ClassVar[Sequence[str]] = ("events_np",)
    page = Gesture.page
    formats: ClassVar[Sequence[str]] = ("zip",)
    pattern = re.compile(r"(?:^|/)((?:train|test)/\d+/user\d+_[a-z_]+_\d+\.npz)$")
    part_files: ClassVar[Mapping[str, Sequence[str]]] = {"train": ("train",), "test": ("test",)}
    unsupported = _CONVERTED_CANNOT
    format_notes: ClassVar[Mapping[str, str]] = {
        "zip": "converted: read from SpikingJelly's events_np, not the original files"
    }

    def _sample(self, part: str, member: str) -> Sample | None:
        split, label, file = member.split("/")
        recording, _, k = file.removesuffix(".npz").rpartition("_")
        if split != part or int(label) >= len(self.dataset.classes):
            return None
        return Sample(f"{recording}/{int(label):02d}-{int(k):02d}", int(label), "train" if split == "train" else "test")

    def _decode(self, data: bytes, where: str) -> Decoded:
        return decode_npz(data, where=where)


class TonicGesture(FilePerSample):
    """tonic's set: ``ibmGestureTrain/<recording>/<label>.npy``, a sample for each gesture, times in ms."""

    folder_names: ClassVar[Sequence[str]] = (*Gesture.folder_names, "DVSGesture")
    page = "tonic.datasets.DVSGesture"
    formats: ClassVar[Sequence[str]] = ("numpy",)
    pattern = re.compile(r"(?:^|/)(ibmGesture(?:Train|Test)/user\d+_[a-z_]+/\d+\.npy)$")
    part_files: ClassVar[Mapping[str, Sequence[str]]] = {
        part: (f"ibmGesture{part}.tar.gz", f"ibmGesture{part}") for part in ("Train", "Test")
    }
    md5: ClassVar[Mapping[str, Sequence[str]]] = {
        "Train": ("3a8f0d4120a166bac7591f77409cb105",),
        "Test": ("56070e45dadaa85fff82e0fbfbc06de5",),
    }
    unsupported = _CONVERTED_CANNOT
    format_notes: ClassVar[Mapping[str, str]] = {
        "numpy": "converted: tonic's set, cut differently from the original (1077 + 264 samples instead of 1176 + 288, "
        "times in ms); results on it are not comparable with the original"
    }

    def _official_counts(self) -> SampleCounts | None:
        if self.dataset.name != self.dataset.layout:
            return super()._official_counts()
        return SampleCounts(train=1077, test=264)

    def _sample(self, part: str, member: str) -> Sample | None:
        folder, recording, file = member.split("/")
        label = int(file.removesuffix(".npy"))
        if folder != f"ibmGesture{part}" or label >= len(self.dataset.classes):
            return None
        return Sample(f"{recording}/{label:02d}", label, "train" if part == "Train" else "test")

    def _decode(self, data: bytes, where: str) -> Decoded:
        return decode_npy(data, where=where, reading=ReadingSpec(time_unit="ms"))
