"""A user's own recordings, labelled by a CSV file: one sample or several from each recording."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from plifctl.config.choices import Split, TimeUnit
from plifctl.config.dataset import DatasetSpec, LabelTable
from plifctl.data.datasets.base import Sample
from plifctl.data.datasets.label_csv import Problems, read_label_table
from plifctl.data.datasets.names import MemberNames, are_different, as_path, is_longer, without_ending
from plifctl.data.datasets.own import NOT_RECORDINGS, OwnRecordings, composed, describe_files, is_table
from plifctl.data.datasets.windowed import LabelWindow, WindowedDataset
from plifctl.data.events import Events
from plifctl.data.framer import decode_recording
from plifctl.data.storage import Storage
from plifctl.errors import RawDataError, list_names

_TABLE_BYTES = 2**26  # of a million lines


class LabelledRecordings(OwnRecordings, WindowedDataset):
    """Recordings anywhere in a folder or an archive, and a table with a line for each sample.

    A sample is a recording, or a window of it if the table has times; then ``RECORDING/00`` is the first of them.
    """

    @classmethod
    def looked_for(cls, dataset: DatasetSpec) -> str:
        return _table_of(dataset).file

    @classmethod
    def how_to_get(cls, dataset: DatasetSpec) -> str:
        return (
            f"expected files: {_table_of(dataset).file} (labels: in the data set's YAML) and the recordings that it "
            "names, in a folder or an archive"
        )

    @classmethod
    def is_in(cls, folder: Path, dataset: DatasetSpec) -> bool:
        return dataset.labels is not None and (folder / as_path(dataset.labels.file)).is_file()

    @cached_property
    def _file(self) -> str:
        """Path of the table in the folder of the recordings."""
        return composed(as_path(_table_of(self.dataset).file))

    @property
    def _where(self) -> str:
        return f"{self._place}: {self._file}"

    def _open_storage(self, part: str, path: Path, above: str = "") -> Storage:
        own_name = re.escape(f"{path.name}/") if path.is_dir() else ""
        return Storage(
            path,
            re.compile(rf"^{own_name}([\s\S]+)$"),
            partial(_relative_name, above),
            lists=re.compile(rf"(?:^|/){re.escape(self._file)}$"),
            list_bytes=_TABLE_BYTES,
            ignored=None if NOT_RECORDINGS.search(self._file) else NOT_RECORDINGS,
        )

    def _samples(self) -> list[Sample]:
        self._enter_folder_of_table()
        samples = super()._samples()
        survey = self.surveys["recordings"]
        used = {self._file, *self._windows}
        self._unlisted = sorted(name for name in survey.members if name not in used and not is_table(name))
        kept = {name: digest for name, digest in survey.members.items() if name in used}
        self.surveys = {"recordings": replace(survey, members=kept)}
        return samples

    def _enter_folder_of_table(self) -> None:
        """Names the members relative to the folder of the table, which in an archive may be a folder in it.

        Raises:
            RawDataError: There is no such table, or several.
        """
        survey, path = self.surveys["recordings"], self._place
        tables = sorted(survey.texts, key=lambda name: (name.count("/"), name))
        if not tables:
            raise RawDataError(f"{path}: {self._file} is missing", hint=self.how_to_get(self.dataset))
        if len(tables) > 1 and tables[0].count("/") == tables[1].count("/"):
            raise RawDataError(f"{path}: found {tables[0]} and {tables[1]}", hint="rename or remove one of them")
        above = tables[0].removesuffix(self._file)
        members = {_relative_name(above, name): digest for name, digest in survey.members.items()}
        self.surveys = {"recordings": replace(survey, members=members, texts={self._file: survey.texts[tables[0]]})}
        self.storages = {"recordings": self._open_storage("recordings", path, above)}

    @cached_property
    def _windows(self) -> dict[str, list[LabelWindow]]:
        """The windows of each recording that the table names.

        Raises:
            RawDataError: Lines of the table are not what they should be, or name recordings that are missing.
        """
        survey, table = self.surveys["recordings"], _table_of(self.dataset)
        names = MemberNames(name for name in survey.members if name != self._file)
        has_times = table.start is not None or table.end is not None
        problems = Problems(self._where)
        windows: dict[str, list[LabelWindow]] = {}
        seen: dict[tuple[str, int | None, int | None], int] = {}
        paths: dict[str, tuple[int, str]] = {}  # by recording: line and path with the most folders
        for line in read_label_table(survey.texts[self._file], self._where, table, self.dataset.classes):
            found = names.find(line.recording)
            found = [name for name in found if not is_table(name)] or found
            if len(found) != 1:
                problems.add(line.number, *self._describe_missing(line.recording, found))
                continue
            recording, path = found[0], as_path(line.recording)
            earlier, other = paths.setdefault(recording, (line.number, path))
            if are_different(path, other):
                wrong = f"{path} and {other} of line {earlier} both fit {recording} alone, each by a part of its path"
                problems.add(line.number, wrong, "keep the folders of the table in that of the recordings")
                continue
            if path.count("/") > other.count("/"):
                paths[recording] = line.number, path
            if (first := seen.setdefault((recording, line.start, line.end), line.number)) != line.number:
                problems.add(line.number, f"repeats line {first}: {line.recording}", "remove one of the lines")
            samples = windows.setdefault(recording, [])
            name = f"{without_ending(recording)}/{len(samples):02d}" if has_times else without_ending(recording)
            samples.append(LabelWindow(Sample(name, line.label, line.split, line.group), line.start, line.end))
        problems.raise_if_any()
        self._shortened = [path for recording, (_, path) in paths.items() if is_longer(path, recording)]
        return windows

    def _describe_missing(self, recording: str, found: Sequence[str]) -> tuple[str, str]:
        """Returns what is wrong with the name of a recording, and what to do."""
        if found:
            return f"{recording}: found {list_names(found, 3)}", "name the recording with its folder and its ending"
        example = next((name for name in self.surveys["recordings"].members if name != self._file), "")
        there = f"; found there, for example: {example}" if example else ""
        return f"{recording} is missing", f"correct the table, or put the recording into the folder{there}"

    @property
    def label_unit(self) -> TimeUnit:
        return _table_of(self.dataset).time_unit

    def _decode_all(self, data: bytes, where: str) -> Events:
        keeping = self.framing.event_frames.model_copy(update={"invalid_events": "keep"})
        return decode_recording(self.framing.model_copy(update={"frames": keeping}), data, where).events

    def _not_recordings(self) -> list[tuple[int, str]]:
        folders = {recording.rpartition("/")[0] for recording in self._windows}
        return [(count, name) for count, name in super()._not_recordings() if name.rpartition("/")[0] in folders]

    def _notes(self) -> Iterator[str]:
        yield from super()._notes()
        if note := describe_files([(1, name) for name in self._unlisted], f"in no line of {self._file}"):
            yield note
        if self._shortened:
            yield (
                f"{len(self._shortened)} recordings were found by the end of their path in {self._file}, for example "
                f"{self._shortened[0]}: its first folders are not there"
            )
        if shared := [pair for windows in self._windows.values() if (pair := _overlap_of_splits(windows)) is not None]:
            pairs = [" and ".join(pair) for pair in shared]
            yield f"samples of different splits have events in common: {list_names(pairs, 3)}"


def _overlap_of_splits(windows: Sequence[LabelWindow]) -> tuple[str, str] | None:
    """Returns two samples of different splits whose windows overlap; None if there are none."""
    latest: dict[Split, LabelWindow] = {}  # of each split, the window that ends last
    for window in sorted(windows, key=lambda window: window.bounds):
        split = window.sample.split
        for other, earlier in latest.items():
            if other != split and window.bounds[0] < earlier.bounds[1]:
                return earlier.sample.id, window.sample.id
        if split not in latest or latest[split].bounds[1] < window.bounds[1]:
            latest[split] = window
    return None


def _table_of(dataset: DatasetSpec) -> LabelTable:
    assert dataset.labels is not None, "the schema requires it"
    return dataset.labels


def _relative_name(above: str, name: str) -> str:
    """Returns a name relative to a folder in an archive; with ``../`` if it lies elsewhere."""
    name = composed(name)
    return name[len(above) :] if name.startswith(above) else f"../{name}"
