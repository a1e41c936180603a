"""A user's own recordings: what their layouts share."""

from __future__ import annotations

import re
import shlex
import unicodedata
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from plifctl.config.dataset import DatasetSpec
from plifctl.data.datasets.base import EventDataset
from plifctl.data.events import Decoded
from plifctl.data.formats.detect import DECODER_VERSIONS, READABLE
from plifctl.data.formats.headers import describe_content, format_of, is_text
from plifctl.data.framer import decode_recording
from plifctl.data.storage import ARCHIVES
from plifctl.errors import DamagedFileError, list_names

_DOCUMENTS = "md|rst|pdf|docx?|odt|rtf|html?|json|ya?ml|xml|toml|ini|cfg|conf|log|xlsx?|ods|bib|md5|sha1|sha256|lnk|url"
_PICTURES = "png|jpe?g|gif|bmp|tiff?|webp|svg|mp4|m4v|avi|mov|mkv|webm|mpe?g|wmv|wav|mp3"
_CODE = "py|ipynb|m|c|h|cpp|hpp|sh|bat|ps1"
_METAVISION = "tmp_index|bias"  # beside a .raw recording: where its times are, and how its camera was set
NOT_RECORDINGS = re.compile(
    rf"(?:\.(?:{_DOCUMENTS}|{_PICTURES}|{_CODE}|{_METAVISION})|(?:^|/)(?:readme|licen[cs]e|copying|changelog|citation)(?:\.txt)?)$",
    re.IGNORECASE,
)
"""Finds files whose names say that they are no recordings: documents, pictures, videos, programs, indexes."""
PICTURES = re.compile(rf"\.(?:{_PICTURES})$", re.IGNORECASE)
"""Finds pictures and videos."""

_TABLES = (".csv", ".tsv")
"""Endings of tables: they are recordings, or say something about the recordings that they lie beside."""


class OwnRecordings(EventDataset):
    """Recordings of any known format in a folder or an archive."""

    subfolders: ClassVar[Sequence[str]] = ("",)
    formats: ClassVar[Sequence[str]] = ("ATIS", *sorted(set(DECODER_VERSIONS) - {"ATIS", "IDX", "CIFAR"}))
    ignored = NOT_RECORDINGS

    @classmethod
    @abstractmethod
    def is_in(cls, folder: Path, dataset: DatasetSpec) -> bool:
        """Returns whether a folder contains recordings in this layout, as far as its own entries tell."""

    @classmethod
    def find_parts(
        cls, folder: Path, dataset: DatasetSpec | None = None, preferred: str | None = None
    ) -> dict[str, Path | None]:
        assert dataset is not None, "its classes or its table tell"
        names = [preferred] if preferred else [dataset.name + ending for ending in ARCHIVES]
        archive = next((folder / name for name in names if (folder / name).is_file()), None)
        return {"recordings": archive or (folder if cls.is_in(folder, dataset) else None)}

    @classmethod
    def accepts_file(cls, name: str) -> bool:
        return name.lower().endswith(ARCHIVES)

    def formats_read(self) -> list[str]:
        without_header = any(name.lower().endswith(".bin") for name in self.surveys["recordings"].members)
        return sorted({*super().formats_read(), *(["ATIS"] if without_header else [])})

    @property
    def _place(self) -> Path:
        """The folder or the archive of the recordings."""
        return self.storages["recordings"].path

    @cached_property
    def _labels(self) -> dict[str, int]:
        """The class of each name, in the composed form of Unicode (NFC)."""
        return {composed(name): label for label, name in enumerate(self.dataset.classes)}

    def _notes(self) -> Iterator[str]:
        yield from super()._notes()
        stated = self._is_named or (self.dataset.raw or "").lower().endswith(ARCHIVES)
        if self._place.is_file() and not stated and self.is_in(self.root, self.dataset):
            place = shlex.quote(str(self._place))
            yield f"read from {self._place.name}; the folders beside it are not: --raw {place} names the archive"
        if note := describe_files(self._not_recordings(), "no recording by its name"):
            yield note
        yield from self._notes_on_copies()

    def _notes_on_copies(self) -> Iterator[str]:
        """Yields a note on recordings of the same content: tested on, they were trained on."""
        names: dict[str, list[str]] = {}
        for member, digest in self.surveys["recordings"].members.items():
            if self.rows_of("recordings", member):
                names.setdefault(digest, []).append(member)
        copies = sorted(sorted(same) for same in names.values() if len(same) > 1)
        if not copies:
            return
        divided = [same for same in copies if len(set().union(*(self._values(one, "split") for one in same))) > 1]
        mixed = [same for same in copies if len({self._values(one, "label") for one in same}) > 1]
        where = [f"{len(divided)} of them in different splits"] if divided else []
        where += [f"{len(mixed)} of them in different classes"] if mixed else []
        count = f"{len(copies)} recording{' is' if len(copies) == 1 else 's are'}"
        example = list_names((divided or mixed or copies)[0], 3)
        yield f"{', '.join([f'{count} there more than once', *where])}; the same are {example}"

    def _values(self, member: str, key: Literal["split", "label"]) -> frozenset[str | int]:
        """Returns the splits or the labels of the samples in a recording."""
        return frozenset(getattr(self.samples[row], key) for row in self.rows_of("recordings", member))

    def _not_recordings(self) -> list[tuple[int, str]]:
        """Returns numbers of files among the recordings that are none by their names, each with one logical name."""
        found = [
            (count, self.storages["recordings"].name_of(f"{folder}/{first}".removeprefix("/")))
            for folder, (count, first) in self.surveys["recordings"].ignored.items()
        ]
        return [(count, name) for count, name in found if name is not None]

    def _decode(self, data: bytes, where: str) -> Decoded:
        if format_of(data) is None and not where.lower().endswith(".bin") and not is_text(data):
            raise DamagedFileError(
                f"{where}: {describe_content(data)}, expected a recording of a known format: {READABLE}",
                hint="move it out of the folder; recordings without a header (ATIS) must be named .bin",
            )
        return decode_recording(self.framing, data, where)


def composed(name: str) -> str:
    """Returns a name in the composed form of Unicode (NFC): macOS writes accents as characters of their own."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def is_table(name: str) -> bool:
    """Returns whether a file is a table by its ending."""
    return name.lower().endswith(_TABLES)


def tables_beside(names: Collection[str]) -> list[str]:
    """Returns the tables in folders that contain other files: those are the recordings.

    Example:
        >>> tables_beside(["a/1.aedat", "a/1.csv", "b/1.csv"])
        ['a/1.csv']
    """
    tables = [name for name in names if is_table(name)]
    folders = {name.rpartition("/")[0] for name in names if not is_table(name)} if tables else set()
    return [name for name in tables if name.rpartition("/")[0] in folders]


def describe_files(found: Iterable[tuple[int, str]], because: str) -> str | None:
    """Returns a note on files that are not read; None if there are none."""
    counts = list(found)
    total = sum(count for count, _ in counts)
    return f"{count_files(total)} not read ({because}), for example {counts[0][1]}" if total else None


def count_files(count: int) -> str:
    """Returns a number of files as the subject of a sentence."""
    return "1 file is" if count == 1 else f"{count:,} files are"
