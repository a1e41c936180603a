"""A user's own recordings in a folder for each class, with or without a folder for each split."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import ClassVar

from plifctl.config.choices import SPLITS, Split
from plifctl.config.dataset import DatasetSpec
from plifctl.data.datasets.base import FilePerSample, Sample, SampleHandler
from plifctl.data.datasets.names import without_ending
from plifctl.data.datasets.own import (
    OwnRecordings,
    composed,
    count_files,
    describe_files,
    is_table,
    tables_beside,
)
from plifctl.data.split_names import SPLIT_FOLDER, split_of
from plifctl.data.storage import EVERY_FILE, Storage, is_tar
from plifctl.errors import RawDataError, list_names

_PEEKED = 20  # members of a tar, which has no list of them, that tell where its class folders are


class _ClassFolders(OwnRecordings, FilePerSample):
    """A folder for each class; in it, or deeper, a file for each sample, named by its path without the ending.

    Attributes:
        below: Pattern of a sample's path in the folder that contains all of them.
    """

    below: ClassVar[str]

    @abstractmethod
    def _pattern_above(self, members: Iterable[str]) -> str:
        """Returns the pattern of the path in an archive to the folder of all samples: empty, or ending in ``/``.

        Args:
            members: Its members, of a tar the first ones.
        """

    def _pattern_in(self, path: Path) -> re.Pattern[str]:
        if path.is_dir():
            self._above = re.escape(f"{path.name}/")
        else:
            members = Storage(path, EVERY_FILE, ignored=self.ignored).members()
            names = (member.name for member in islice(members, _PEEKED if is_tar(path) else None))
            self._above = self._pattern_above(names)
        return re.compile(rf"^{self._above}({self.below})$")

    @abstractmethod
    def _class_of(self, member: str) -> str:
        """Returns the name of the class folder of a member."""

    @abstractmethod
    def _split_of(self, member: str) -> Split:
        """Returns the split that a member belongs to."""

    def _samples(self) -> list[Sample]:
        survey = self.surveys["recordings"]
        self._tables = tables_beside(survey.members)
        if self._tables:
            left_out = set(self._tables)
            kept = {name: digest for name, digest in survey.members.items() if name not in left_out}
            self.surveys = {"recordings": replace(survey, members=kept)}
        found = {composed(self._class_of(member)) for member in self.surveys["recordings"].members}
        if found and found != (stated := set(self._labels)):
            raise RawDataError(
                f"{self._place}: the class folders are {_list_different(found - stated, found)}, "
                f"expected the classes of the data set's YAML: {_list_different(stated - found, stated)}",
                hint="rename or remove folders, or change classes: in the YAML; a folder without recordings does not "
                "count",
            )
        return super()._samples()

    def _sample(self, part: str, member: str) -> Sample | None:
        label = self._labels.get(composed(self._class_of(member)))
        return None if label is None else Sample(without_ending(member), label, self._split_of(member))

    def rows_of(self, part: str, member: str) -> Sequence[int]:
        return super().rows_of(part, member) if member in self._by_member else ()

    def _handle_member(
        self, on_sample: SampleHandler | None, part: str, member: str, content: bytes, digest: str
    ) -> None:
        if not is_table(member):  # whether a table is a recording is known when all members are
            super()._handle_member(on_sample, part, member, content, digest)

    def _not_recordings(self) -> list[tuple[int, str]]:
        return [*super()._not_recordings(), *((1, name) for name in self._tables)]


class Folders(_ClassFolders):
    """``train/<class>/<file>``, ``test/<class>/<file>``, and perhaps ``val/<class>/<file>``.

    The folder of a split may be called ``train``, ``Train`` or ``…_train``, see :mod:`plifctl.data.split_names`.
    """

    example = "train/CLASS/FILE"
    below = rf"{SPLIT_FOLDER}/[^/]+/[\s\S]+"

    def _pattern_above(self, members: Iterable[str]) -> str:
        splits: dict[str, list[str]] = {}  # by the folder that they would be in
        for member in members:
            for above in {"", *(member[: found.end()] for found in re.finditer("/", member))}:
                inside = member.removeprefix(above)
                if re.fullmatch(self.below, inside):
                    splits.setdefault(above, []).append(str(split_of(inside.partition("/")[0])))
        if not splits:  # samples are further back in a tar
            return "(?:[^/]+/)*?"
        return re.escape(max(splits, key=lambda above: (len(set(splits[above])), len(splits[above]), above)))

    @classmethod
    def looked_for(cls, dataset: DatasetSpec) -> str:
        return "train/ and test/"

    @classmethod
    def how_to_get(cls, dataset: DatasetSpec) -> str:
        return "expected files: train/CLASS/FILE and test/CLASS/FILE, perhaps val/CLASS/FILE, in a folder or an archive"

    @classmethod
    def is_in(cls, folder: Path, dataset: DatasetSpec) -> bool:
        found = {split_of(path.name) for path in folder.glob("*") if path.is_dir()} - {None}
        return "train" in found and len(found) > 1

    def _samples(self) -> list[Sample]:
        folders = sorted({name.partition("/")[0] for name in self.surveys["recordings"].members})
        for split in SPLITS:
            named = [name for name in folders if split_of(name) == split]
            if len(named) > 1:
                raise RawDataError(f"{self._place}: {named[0]} and {named[1]}, expected one folder for {split}")
        if len(folders) == 1:
            raise RawDataError(f"{self._place}: found {folders[0]}/ alone", hint=self.how_to_get(self.dataset))
        return super()._samples()

    def _notes(self) -> Iterator[str]:
        yield from super()._notes()
        others: Counter[str] = Counter()
        for folder, (count, first) in self.surveys["recordings"].skipped.items():
            parents = folder.split("/")
            if split_of(parents[-1]) is not None:
                yield f"{count_files(count)} not read (in no class folder), for example {folder}/{first}"
            for place, name in enumerate(parents[:-1]):
                if composed(parents[place + 1]) in self._labels:
                    others[name] += count
                    break
        for name, count in sorted(others.items()):
            files = "1 file" if count == 1 else f"{count} files"
            yield f"{name}/ is not read ({files}): a data set has train/, test/ and perhaps val/"

    def _class_of(self, member: str) -> str:
        return member.split("/", 2)[1]

    def _split_of(self, member: str) -> Split:
        split = split_of(member.partition("/")[0])
        assert split is not None, f"{member} was found by its split"
        return split


class ClassFolders(_ClassFolders):
    """``<class>/<file>``: recordings without an official split; all samples are training samples."""

    example = "CLASS/FILE"
    below = r"[^/]+/[\s\S]+"

    @classmethod
    def looked_for(cls, dataset: DatasetSpec) -> str:
        return f"the folders of the classes {list_names([f'{name}/' for name in dataset.classes])}"

    @classmethod
    def how_to_get(cls, dataset: DatasetSpec) -> str:
        return "expected files: CLASS/FILE, in a folder or an archive"

    @classmethod
    def is_in(cls, folder: Path, dataset: DatasetSpec) -> bool:
        classes = set(map(composed, dataset.classes))
        return any(composed(path.name) in classes and path.is_dir() for path in folder.glob("*"))

    @classmethod
    def canonical_name(cls, part: str, name: str) -> str:
        return composed(name)

    def _pattern_above(self, members: Iterable[str]) -> str:
        # the one with most classes: folders in or above a class folder may have the name of a class as well
        classes: dict[str, set[str]] = {}
        for member in members:
            *folders, _ = member.split("/")
            for depth, folder in enumerate(folders):
                if composed(folder) in self._labels:
                    classes.setdefault("".join(f"{above}/" for above in folders[:depth]), set()).add(folder)
        return re.escape(max(classes, key=lambda above: len(classes[above]), default=""))

    def _samples(self) -> list[Sample]:
        if elsewhere := sorted(filter(self._is_in_class_folder, self.surveys["recordings"].skipped)):
            raise RawDataError(
                f"{self._place}: class folders in more than one folder: {list_names(elsewhere, 3)}",
                hint="move the folders of the classes into one folder; if they are splits: layout: folders in the YAML",
            )
        return super()._samples()

    def _is_in_class_folder(self, folder: str) -> bool:
        """Returns whether a folder has, or is in one that has, the name of a class; those above all classes may."""
        places = list(accumulate(folder.split("/"), "{}/{}".format))
        beside = (place for place in places if not self._above.startswith(re.escape(f"{place}/")))
        return any(composed(place.rpartition("/")[2]) in self._labels for place in beside)

    def _notes(self) -> Iterator[str]:
        yield from super()._notes()
        skipped = self.surveys["recordings"].skipped.items()
        if note := describe_files(
            [(count, f"{folder}/{first}") for folder, (count, first) in skipped], "in no class folder"
        ):
            yield note

    def _class_of(self, member: str) -> str:
        return member.partition("/")[0]

    def _split_of(self, member: str) -> Split:
        return "train"


def _list_different(different: set[str], names: set[str]) -> str:
    """Returns the names for a message, first those of one side only."""
    return list_names(sorted(different) + sorted(names - different), 12)
