"""Where raw data lie: a folder, a zip, a tar.gz or a single file, all read as members (name, content).

Nothing is unpacked to disk. A member's logical name is the part of its path that the data set defines
(``Train/3/00041.bin``), so that an archive and its extracted folder hold the same members.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from plifctl import paths
from plifctl.errors import DamagedFileError

MEMBER_LIMIT = 4 * 2**30
"""The largest member read, bytes; no recording of these data sets comes near it."""

_UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError)
_TEXT_LIMIT = 2**16


@dataclass(frozen=True)
class Survey:
    """What one reading of a storage found.

    Attributes:
        md5s: Checksums to recognise the storage by: of an archive's file, of a file's content; none of a folder.
        members: sha256 of each member's content, by logical name.
        texts: Content of the small text members (``.csv``, ``.txt``), by logical name.
    """

    md5s: list[str] = field(default_factory=list)
    members: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 over the sorted names and contents: the same for an archive and its extracted folder."""
        lines = "".join(f"{name}\0{content}\n" for name, content in sorted(self.members.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class Storage:
    """One place that holds members of a data set.

    Attributes:
        path: A folder, an archive (``.zip``, ``.tar.gz``, ``.tgz``, ``.tar``), or a file, plain or ``.gz``.
        pattern: Finds a member's logical name, its group 1, at the end of a path; what doesn't match is no member.
    """

    path: Path
    pattern: re.Pattern[str]

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Yields each member's logical name and content, in the order they are stored.

        Raises:
            DamagedFileError: The archive cannot be read, or holds a path that leads outside it.
        """
        try:
            yield from self._members()
        except _UNREADABLE as error:
            raise DamagedFileError(
                f"{self.path}: damaged or not the archive its name says: {error}",
                hint="get the file again; an interrupted download looks like this",
            ) from error
        except gzip.BadGzipFile as error:
            raise DamagedFileError(f"{self.path}: not a gzip file: {error}", hint="get the file again") from error

    def survey(self) -> Survey:
        """Reads everything once; remembered beside the caches until the storage changes."""
        note = _Note(self)
        known = note.read()
        if known is not None:
            return known
        found = Survey()
        if self.path.is_file():
            found.md5s.append(_md5_of_file(self.path))
        for name, content in self.read():
            if name in found.members:
                raise DamagedFileError(f"{self.path}: two members are named {name}")
            found.members[name] = hashlib.sha256(content).hexdigest()
            if self.path.suffix == ".gz" and not _is_tar(self.path):
                found.md5s.append(hashlib.md5(content, usedforsecurity=False).hexdigest())
            if name.endswith((".csv", ".txt")) and len(content) <= _TEXT_LIMIT:
                found.texts[name] = content.decode("utf-8", errors="replace")
        note.write(found)
        return found

    def _members(self) -> Iterator[tuple[str, bytes]]:
        if self.path.is_dir():
            yield from self._folder()
        elif self.path.suffix == ".zip":
            yield from self._zip()
        elif _is_tar(self.path):
            yield from self._tar()
        elif self.path.suffix == ".gz":
            with gzip.open(self.path) as file:
                yield self._required(self.path.stem), _bounded(file, self.path)
        else:
            yield self._required(self.path.name), self.path.read_bytes()

    def _required(self, name: str) -> str:
        logical = self._logical(name)
        assert logical is not None, f"{name} was found by its name"
        return logical

    def _folder(self) -> Iterator[tuple[str, bytes]]:
        for path in _walk(self.path):
            name = self._logical(path.relative_to(self.path.parent).as_posix())
            if name is not None:
                yield name, path.read_bytes()

    def _zip(self) -> Iterator[tuple[str, bytes]]:
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                name = self._logical(info.filename)
                if name is not None and not info.is_dir():
                    if info.file_size > MEMBER_LIMIT:
                        raise DamagedFileError(f"{self.path}: member {info.filename} claims {info.file_size} bytes")
                    yield name, archive.read(info)

    def _tar(self) -> Iterator[tuple[str, bytes]]:
        with tarfile.open(self.path, "r|*") as archive:
            for info in archive:
                name = self._logical(info.name)
                if name is None:
                    continue
                file = archive.extractfile(info) if info.isreg() and info.size <= MEMBER_LIMIT else None
                if file is None:
                    raise DamagedFileError(f"{self.path}: member {info.name} is no regular file of a sane size")
                yield name, file.read()

    def _logical(self, name: str) -> str | None:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts:
            raise DamagedFileError(f"{self.path}: refused, the member {name!r} leads outside the archive")
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            return None  # what file managers leave behind
        match = self.pattern.search(name)
        return match[1] if match else None


class _Note:
    """What was surveyed before, in a file beside the caches; worth nothing once the storage's stamp differs."""

    def __init__(self, storage: Storage) -> None:
        path = storage.path.resolve()
        key = hashlib.sha256(f"{path}\0{storage.pattern.pattern}".encode()).hexdigest()[:24]
        self.path = paths.cache_dir() / ".surveys" / f"{key}.json"
        self.stamp = _stamp(path)

    def read(self) -> Survey | None:
        try:
            tree = json.loads(self.path.read_text(encoding="utf-8"))
            return Survey(**tree["survey"]) if tree["stamp"] == self.stamp else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # a note, not a cache: whatever is wrong with it, the data are read again

    def write(self, survey: Survey) -> None:
        paths.write_json(self.path, {"stamp": self.stamp, "survey": asdict(survey)})


def _stamp(path: Path) -> str:
    """sha256 over names, sizes and times of change (ns) of a file, or of every file in a folder."""
    lines = hashlib.sha256(str(path).encode())
    for file in _walk(path) if path.is_dir() else [path]:
        status = file.stat()
        lines.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return lines.hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    """Files in and below ``folder`` in sorted order, whatever order the file system keeps."""
    for root, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (Path(root, name) for name in sorted(files))


def _is_tar(path: Path) -> bool:
    return path.name.endswith((".tar.gz", ".tgz", ".tar"))


def _md5_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _bounded(file: BinaryIO | gzip.GzipFile, path: Path) -> bytes:
    content = file.read(MEMBER_LIMIT + 1)
    if len(content) > MEMBER_LIMIT:
        raise DamagedFileError(f"{path}: unpacks to more than {MEMBER_LIMIT} bytes")
    return content
