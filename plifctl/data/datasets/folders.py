"""A user's own data set: a folder for each split, in it a folder for each class, in it a file for each sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

from plifctl.config.choices import Split
from plifctl.data.datasets.base import FilePerSample, Sample
from plifctl.data.events import Decoded
from plifctl.data.formats import evt
from plifctl.data.formats.detect import READABLE
from plifctl.data.formats.headers import describe_content, format_of, is_text
from plifctl.data.framer import decode_recording
from plifctl.errors import DamagedFileError, RawDataError, list_names

_ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
_SPLITS: tuple[Split, Split] = ("train", "test")
_SPLIT = r"(?:[^/]+_)?(?:[Tt]rain|[Tt]est)"


class Folders(FilePerSample):
    """``train/<class>/<file>`` and ``test/<class>/<file>``, in a folder or an archive.

    A split's folder may be called ``train``, ``Train`` or ``…_train``. Every file of a class is a recording, in any
    known format; its path without the ending is the sample's id.
    """

    subfolders: ClassVar[tuple[str, ...]] = ("",)
    formats: ClassVar[tuple[str, ...]] = (
        "ATIS",
        "AEDAT 2.0",
        "AEDAT 3.1",
        "AEDAT 4",
        "Prophesee .dat",
        *evt.FORMATS,
        "numpy",
        "zip",
        "text",
        "HDF5",
    )
    example = "train/CLASS/FILE"
    pattern = re.compile(rf"^(?:[^/]+/)?({_SPLIT}/[^/]+/[\s\S]+)$")

    @classmethod
    def how_to_get(cls) -> str:
        return "expected files: train/CLASS/FILE and test/CLASS/FILE, in a folder or an archive"

    @classmethod
    def find_parts(cls, folder: Path, name: str, preferred: str | None) -> dict[str, Path | None]:
        archives = [folder / file for file in ([preferred] if preferred else [name + ending for ending in _ARCHIVES])]
        is_there = {_split_of(path.name) for path in folder.glob("*") if re.fullmatch(_SPLIT, path.name)} == {*_SPLITS}
        return {"recordings": next((path for path in archives if path.is_file()), folder if is_there else None)}

    @classmethod
    def accepts_file(cls, name: str) -> bool:
        return name.lower().endswith(_ARCHIVES)

    def formats_read(self) -> list[str]:
        without_header = any(name.endswith(".bin") for name in self.surveys["recordings"].members)
        return sorted({*super().formats_read(), *(["ATIS"] if without_header else [])})

    def _samples(self) -> list[Sample]:
        members = [name.split("/") for name in self.surveys["recordings"].members]
        for split in _SPLITS:
            named = sorted({name for name, *_ in members if _split_of(name) == split})
            if len(named) > 1:
                raise RawDataError(f"{self.root}: {named[0]} and {named[1]}, expected one folder for {split}")
        found, stated = {name for _, name, *_ in members}, set(self.dataset.classes)
        if found and found != stated:
            raise RawDataError(
                f"{self.root}: the class folders are {_list_different(found - stated, found)}, "
                f"expected the classes of the data set's YAML: {_list_different(stated - found, stated)}",
                hint="rename the folders, or change classes: in the YAML",
            )
        return super()._samples()

    def _notes(self) -> Iterator[str]:
        yield from super()._notes()
        others: Counter[str] = Counter()
        for folder, (count, _) in self.surveys["recordings"].skipped.items():
            parents = folder.split("/")
            for place, name in enumerate(parents[:-1]):
                if parents[place + 1] in self.dataset.classes:
                    others[name] += count
                    break
        for name, count in sorted(others.items()):
            files = "1 file" if count == 1 else f"{count} files"
            yield (
                f"{name}/ is not read ({files}): a data set has train/ and test/; protocol B draws validation samples "
                "from train/"
            )

    def _sample(self, part: str, member: str) -> Sample | None:
        split, name, _ = member.split("/", 2)
        if name not in self.dataset.classes:
            return None
        label = self.dataset.classes.index(name)
        return Sample(str(PurePosixPath(member).with_suffix("")), label, _split_of(split))

    def _decode(self, data: bytes, where: str) -> Decoded:
        if format_of(data) is None and not where.endswith(".bin") and not is_text(data):
            raise DamagedFileError(
                f"{where}: {describe_content(data)}, expected a recording of a known format: {READABLE}",
                hint="move it out of the folder; recordings without a header (ATIS) must be named .bin",
            )
        return decode_recording(self.framing, data, where)


def _list_different(different: set[str], names: set[str]) -> str:
    """Returns the names for a message, first those of one side only."""
    return list_names(sorted(different) + sorted(names - different), 12)


def _split_of(folder: str) -> Split:
    return "test" if folder.lower().endswith("test") else "train"
