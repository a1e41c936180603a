"""DVS128 Gesture: the original recordings, SpikingJelly's cuts of them, and tonic's set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

from plifctl.config.choices import Split
from plifctl.config.dataset import DatasetSpec, ReadingSpec, SampleCounts
from plifctl.data.datasets.base import FilePerSample, Sample
from plifctl.data.datasets.label_csv import read_lines
from plifctl.data.datasets.names import MemberNames, as_path
from plifctl.data.datasets.spikingjelly import SpikingJellyArrays
from plifctl.data.datasets.windowed import LabelWindow, WindowedDataset
from plifctl.data.events import LATEST_US, Decoded, Events
from plifctl.data.formats.aedat3 import decode_aedat3
from plifctl.data.formats.arrays import decode_npy
from plifctl.errors import DamagedFileError, RawDataError

_LABELS_HEAD = ["class", "startTime_usec", "endTime_usec"]
_FIRST = 78
"""Number of recordings of the training list that the authors' runs used."""

_SPLITS: tuple[Split, Split] = ("train", "test")

_ORIGINAL_NAMES = re.compile(r"user\d+_[a-z_]+(?:\.aedat|_labels\.csv)|trials_to_(?:train|test)\.txt")
"""Members that the digest of the raw data contains whether or not a list names them."""


class Gesture(WindowedDataset):
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
        samples = super()._samples()
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

    @cached_property
    def _names(self) -> MemberNames:
        return MemberNames(self._there)

    def _found_counts(self) -> tuple[int, int]:
        # whether the set is complete does not depend on how much of it a recipe trains on
        train, test = (sum(len(self._windows[trial]) for trial in self._trials(split)) for split in _SPLITS)
        return train, test

    @cached_property
    def _used_recordings(self) -> frozenset[str]:
        """The recordings that the recipe uses."""
        train = self._trials("train")
        first_only = self.framing.event_frames.training_set == "first-78"
        return frozenset((train[:_FIRST] if first_only else train) + self._trials("test"))

    @cached_property
    def _windows(self) -> dict[str, list[LabelWindow]]:
        """The windows of every recording in the two lists."""
        return {trial: self._read_windows(trial, split) for split in _SPLITS for trial in self._trials(split)}

    def _list_of(self, split: Split) -> str:
        return self._find(f"trials_to_{split}.txt", ".txt")

    def _trials(self, split: Split) -> list[str]:
        """Returns the recordings of a list, as they are called in the storage."""
        text = self.surveys["recordings"].texts[self._list_of(split)]
        names = [name for line in text.splitlines() if (name := as_path(line))]
        return list(dict.fromkeys(self._find(name, ".aedat", f"trials_to_{split}.txt") for name in names))

    def _table_of(self, trial: str, split: Split) -> str:
        return self._find(
            f"{_stem(trial)}_labels.csv", "_labels.csv", f"trials_to_{split}.txt, as the labels of {trial}"
        )

    def _find(self, name: str, ending: str, named_in: str = "") -> str:
        """Returns the member that a name means.

        Args:
            name: The name, as in a list.
            ending: Ending of the files of its kind.
            named_in: Where it is named, for messages.

        Raises:
            RawDataError: There is none; the message names files of the same kind that are there.
        """
        found = self._names.find(name)
        if len(found) == 1:
            return found[0]
        because = f", named in {named_in}" if named_in else ""
        where = f"{self.storages['recordings'].path}: {name.rpartition('/')[2]}"
        if found:
            raise RawDataError(f"{where}{because}: found {' and '.join(found)}", hint="rename or remove one of them")
        same_kind = [member for member in self._there if member.lower().endswith(ending)]
        others = f"{len(same_kind)} other *{ending} {'is' if len(same_kind) == 1 else 'are'} there"
        there = f"; {others}, e.g. {same_kind[0]}" if same_kind else ""
        raise RawDataError(
            f"{where} is missing{because}{there}",
            hint="correct the name in the list, or rename the file"
            if there
            else "the data set is incomplete: download or extract it again",
        )

    def _read_windows(self, trial: str, split: Split) -> list[LabelWindow]:
        table, stem = self._table_of(trial, split), _stem(trial)
        where = f"{self.storages['recordings'].path}: {table}"
        head, *lines = read_lines(self.surveys["recordings"].texts[table], where) or [(1, [""])]
        if [column.strip() for column in head[1]] != _LABELS_HEAD:
            raise DamagedFileError(f"{where}, line 1: {','.join(head[1])!r}, expected {','.join(_LABELS_HEAD)}")
        windows: list[LabelWindow] = []
        for number, line in lines:
            try:
                label, start, end = (int(value) for value in line)
            except ValueError:
                label, start, end = 0, 0, 0
            if not (1 <= label <= len(self.dataset.classes) and -LATEST_US <= start <= end <= LATEST_US):
                raise DamagedFileError(
                    f"{where}, line {number}: {','.join(line)!r}, expected class (1 to "
                    f"{len(self.dataset.classes)}), start and end in µs"
                )
            windows.append(LabelWindow(Sample(f"{stem}/{len(windows):02d}", label - 1, split), start, end))
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

    def _decode(self, data: bytes, where: str) -> Decoded:
        invalid = self.framing.event_frames.invalid_events
        assert invalid is not None
        return decode_aedat3(data, where=where, invalid=invalid)

    def _decode_all(self, data: bytes, where: str) -> Events:
        return decode_aedat3(data, where=where, invalid="keep").events


def _stem(recording: str) -> str:
    return recording[: -len(".aedat")] if recording.lower().endswith(".aedat") else recording


class SyntheticGesture(Gesture):
    """The embedded data sets: the same layout, simulated recordings."""

    folder_names: ClassVar[Sequence[str]] = ()  # two data sets have this layout: each is found by its own name only
    md5: ClassVar[Mapping[str, Sequence[str]]] = {}

    @classmethod
    def how_to_get(cls, dataset: DatasetSpec) -> str:
        return f"create it: plifctl synthesize DIR{' --dataset synthetic-order' * (dataset.name == 'synthetic-order')}"


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


class SpikingJellyGesture(SpikingJellyArrays):
    """SpikingJelly's arrays: ``events_np/train/<label>/<recording>_<k>.npz``, k counting a label's windows.

    Within a class the samples are in the original order, so splits by class are the same.
    """

    folder_names = Gesture.folder_names
    page = Gesture.page
    pattern = re.compile(r"(?:^|/)((?:train|test)/\d+/user\d+_[a-z_]+_\d+\.npz)$")
    unsupported = _CONVERTED_CANNOT

    def _sample(self, part: str, member: str) -> Sample | None:
        split, label, file = member.split("/")
        recording, _, k = file.removesuffix(".npz").rpartition("_")
        if split != part:
            return None
        return Sample(f"{recording}/{int(label):02d}-{int(k):02d}", int(label), "train" if split == "train" else "test")


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
        if self._is_users_own:
            return super()._official_counts()
        return SampleCounts(train=1077, test=264)

    def _sample(self, part: str, member: str) -> Sample | None:
        folder, recording, file = member.split("/")
        label = int(file.removesuffix(".npy"))
        if folder != f"ibmGesture{part}":
            return None
        return Sample(f"{recording}/{label:02d}", label, "train" if part == "Train" else "test")

    def _decode(self, data: bytes, where: str) -> Decoded:
        return decode_npy(data, where=where, reading=ReadingSpec(time_unit="ms"))
