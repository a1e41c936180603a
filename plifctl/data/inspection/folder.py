"""What a folder or an archive of recordings contains: formats, layout, classes, tables of labels, what stands out."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

from plifctl.data.formats.headers import Size
from plifctl.data.inspection.facts import Finding, FindingKind, RecordingFacts
from plifctl.data.inspection.findings import sensor_finding
from plifctl.data.inspection.label_table import FoundTable
from plifctl.data.inspection.layout import FoundLayout, Place, find_layout, sort_names
from plifctl.data.inspection.outliers import Outlier, find_outliers
from plifctl.data.remarks import describe_remarks


class FormatRow(NamedTuple):
    """The files of one format.

    Attributes:
        format: The format, or what the files look like; empty for files that were not read.
        n_files: Number of files.
        n_decoded: Number of files that were decoded.
        n_unreadable: Number of files that cannot be read.
        nbytes: Their size in all.
        n_events: Number of events of those that can be read; None if it is not known of all.
        sensors: Sizes of the sensor that they state.
        seen: The smallest size that contains all events decoded.
    """

    format: str
    n_files: int
    n_decoded: int
    n_unreadable: int
    nbytes: int
    n_events: int | None
    sensors: tuple[Size, ...]
    seen: Size | None


class ClassRow(NamedTuple):
    """The recordings of one class in one split.

    Attributes:
        place: Folders of split and class.
        n_files: Number of recordings.
        n_events: Number of events of those that can be read; None if it is not known of all.
        durations_us: Smallest, median and largest duration of those that have one, µs.
    """

    place: Place
    n_files: int
    n_events: int | None
    durations_us: tuple[int, float, int] | None


class SharedFinding(NamedTuple):
    """Findings of several files about the same thing.

    Attributes:
        finding: That of the first file, or one about all of them.
        names: The files.
    """

    finding: Finding
    names: tuple[str, ...]


@dataclass(frozen=True)
class FolderFacts:
    """Facts of a folder or an archive.

    Attributes:
        recordings: Facts of every file that is a recording, or may be one and was not read.
        unreadable: Files that should be recordings but cannot be read.
        others: All other files.
        layout: Layout of the recordings, those that cannot be read included.
        tables: Tables of labels.
        labels: The table that labels the recordings; None if folders do, or nothing does.
        outliers: Recordings that differ from the others.
    """

    recordings: tuple[RecordingFacts, ...]
    unreadable: tuple[RecordingFacts, ...]
    others: tuple[RecordingFacts, ...]
    layout: FoundLayout
    tables: tuple[FoundTable, ...]
    labels: FoundTable | None
    outliers: tuple[Outlier, ...]

    @classmethod
    def of(cls, files: Sequence[RecordingFacts], tables: Sequence[FoundTable] = ()) -> FolderFacts:
        """Returns the facts of a folder by those of its files."""
        listed = {table.name for table in tables}
        recordings = tuple(one for one in files if one.kind in ("recording", "unread") and one.name not in listed)
        unreadable = tuple(one for one in files if one.kind == "unreadable" and one.name not in listed)
        others = tuple(one for one in files if one.kind == "other" and one.name not in listed)
        layout = _layout_of([one.name for one in recordings], [one.name for one in unreadable])
        labels = next((table for table in tables if _decides(table, layout, len(layout.places))), None)
        if labels is not None:
            layout = FoundLayout("label-table", "", (Place(),) * len(layout.places))
        outliers = tuple(find_outliers(recordings))
        return cls(recordings, unreadable, others, layout, tuple(tables), labels, outliers)

    @property
    def seen(self) -> Size | None:
        """The smallest width and height that contain all events decoded; None without events."""
        return _union(one.seen for one in self.recordings)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits: of folders, or in the table of labels."""
        return self.labels.splits if self.labels is not None else self.layout.splits

    @property
    def unused_tables(self) -> list[FoundTable]:
        """Tables that say more of recordings than their folders, but name too few recordings, or no classes."""
        said = {"group"} if self.layout.splits else {"group", "split"}
        without_labels = [
            "recording" in table.roles and bool(said & table.roles.keys()) and not table.classes
            for table in self.tables
        ]
        return [
            table
            for table, unlabelled in zip(self.tables, without_labels, strict=True)
            if self.labels is None and (unlabelled or _says_more(table, self.layout))
        ]

    @property
    def n_decoded(self) -> int:
        """Number of recordings whose events were decoded."""
        return sum(one.events is not None for one in self.recordings)

    def formats(self) -> list[FormatRow]:
        """Returns a row for each format of the recordings, and of files that cannot be read; most files first."""
        groups: dict[str, list[RecordingFacts]] = defaultdict(list)
        for one in (*self.recordings, *self.unreadable):
            groups[one.format].append(one)
        rows = [_format_row(name, files) for name, files in groups.items()]
        return sorted(rows, key=lambda row: (-row.n_files, row.format))

    def classes(self) -> list[ClassRow]:
        """Returns a row for each class in each split, in the order of splits and labels."""
        groups: dict[Place, list[RecordingFacts]] = defaultdict(list)
        for one, place in zip((*self.recordings, *self.unreadable), self.layout.places, strict=True):
            groups[place].append(one)
        splits, labels = self.layout.splits or ("",), self.layout.classes or ("",)
        order = [Place(split, label) for split in splits for label in labels]
        return [_class_row(place, groups[place]) for place in order if place in groups]

    def first_of_each_class(self) -> list[str]:
        """Returns the name of the first recording with events of each class; of all, if there are no classes."""
        first: dict[str, str] = {}
        for one, place in zip(self.recordings, self.layout.places, strict=False):
            if one.n_events != 0:
                first.setdefault(place.label, one.name)
        return [first[label] for label in sort_names(first)]

    def findings(self) -> list[SharedFinding]:
        """Returns one finding for each topic and each kind of error, problems first.

        Files without events are among :attr:`outliers`.
        """
        groups: dict[str, list[tuple[RecordingFacts, Finding]]] = defaultdict(list)
        for one in (*self.unreadable, *self.recordings):
            for finding in one.findings:
                if finding.topic != "empty":
                    groups[_similar(one, finding)].append((one, finding))
        shared = [self._share(found) for found in groups.values()]
        order: tuple[FindingKind, ...] = get_args(FindingKind)
        return sorted(shared, key=lambda one: order.index(one.finding.kind))

    def _share(self, found: Sequence[tuple[RecordingFacts, Finding]]) -> SharedFinding:
        """Returns one finding for those of several files."""
        names, finding = tuple(one.name for one, _ in found), found[0][1]
        remarks = [(one.name, remark) for one, _ in found for remark in (one.events.remarks if one.events else ())]
        if same := [(name, remark) for name, remark in remarks if remark.kind == finding.topic]:
            return SharedFinding(finding._replace(message=describe_remarks(same)[0]), names)
        seen = _union([one.seen for one, _ in found])
        if finding.topic == "sensor" and seen is not None and len(names) > 1:
            finding = sensor_finding("the files do not state the size of the sensor; their events need", seen)
        return SharedFinding(finding, names)


def _layout_of(recordings: Sequence[str], unreadable: Sequence[str]) -> FoundLayout:
    """Returns the layout of all files, or of the recordings if files that cannot be read lie elsewhere."""
    layout = find_layout([*recordings, *unreadable])
    if layout.name is not None or (found := find_layout(recordings)).name is None:
        return layout
    return FoundLayout(found.name, found.root, (*found.places, *(Place(),) * len(unreadable)))


def _decides(table: FoundTable, layout: FoundLayout, recordings: int) -> bool:
    """Returns whether a table labels the recordings, and not their folders: it says more, and names most of them."""
    return table.n_unlisted <= 0.1 * recordings and _says_more(table, layout)


def _says_more(table: FoundTable, layout: FoundLayout) -> bool:
    """Returns whether a table says of recordings what their folders do not: other classes, groups, windows, splits."""
    if not {"recording", "label"} <= table.roles.keys():
        return False
    same_classes = set(table.classes) <= set(layout.classes)
    return not same_classes or (layout.name == "class-folders" and table.roles.keys() > {"recording", "label"})


def _similar(one: RecordingFacts, finding: Finding) -> str:
    """Returns a text that is equal for findings about the same thing: the topic, and the kind of an error."""
    if finding.topic != "unreadable":
        return finding.topic
    kind = re.sub(r"0x[0-9a-f]+|\d+", "#", finding.message.replace(one.name, ""))
    return f"{finding.topic} {kind}"


def _union(sizes: Iterable[Size | None]) -> Size | None:
    """Returns the smallest size that contains all of some; None if there are none."""
    known = [size for size in sizes if size is not None]
    return (max(width for width, _ in known), max(height for _, height in known)) if known else None


def _format_row(name: str, files: Sequence[RecordingFacts]) -> FormatRow:
    sensors = Counter(one.summary.sensor for one in files if one.summary.sensor is not None)
    return FormatRow(
        format=name,
        n_files=len(files),
        n_decoded=sum(one.events is not None for one in files),
        n_unreadable=sum(one.kind == "unreadable" for one in files),
        nbytes=sum(one.nbytes for one in files),
        n_events=_sum_events(files),
        sensors=tuple(size for size, _ in sensors.most_common()),
        seen=_union(one.seen for one in files),
    )


def _class_row(place: Place, files: Sequence[RecordingFacts]) -> ClassRow:
    durations = [one.duration_us for one in files if one.kind != "unreadable" and one.duration_us is not None]
    ends = (min(durations), statistics.median(durations), max(durations)) if durations else None
    return ClassRow(place, len(files), _sum_events(files), ends)


def _sum_events(files: Sequence[RecordingFacts]) -> int | None:
    readable = [one for one in files if one.kind != "unreadable"]
    counts = [one.n_events for one in readable if one.n_events is not None]
    return sum(counts) if readable and len(counts) == len(readable) else None
