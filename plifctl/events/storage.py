"""Where raw data lie: a folder, a zip, a tar.gz or a single file, all read as members (name, content).

Nothing is unpacked to disk. A member's logical name is the part of its path that the data set defines
(``Train/3/00041.bin``), so that an archive and its extracted folder hold the same members.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from plifctl import paths
from plifctl.errors import DamagedFileError, MachineError, RawDataError

Told = Callable[[int], None]
"""Is told how many bytes more were read from the disk."""

MEMBER_LIMIT = 4 * 2**30
"""The largest member read, bytes; no recording of these data sets comes near it."""

_UNREADABLE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,  # of an encrypted zip, or one packed in a way that Python does not know
    TypeError,  # of some damaged tar headers
)
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

    def read(self, told: Told = lambda count: None) -> Iterator[tuple[str, bytes]]:
        """Yields each member's logical name and content, in the order they are stored.

        Args:
            told: Told of the bytes read.

        Raises:
            DamagedFileError: The archive cannot be read, or holds a path that leads outside it.
            RawDataError: A file is gone.
        """
        with self._errors_named():
            if self.path.is_dir():
                yield from self._folder(told)
            elif self.path.suffix == ".zip":
                yield from self._zip(told)
            elif _is_tar(self.path):
                yield from self._tar(told)
            else:
                yield self._file(told)

    def nbytes(self) -> int:
        """Returns how many bytes :meth:`survey` reads: an archive twice, once for its checksum."""
        with self._errors_named():
            if self.path.is_dir():
                return sum(path.stat().st_size for _, path in self._files())
            return 2 * self.path.stat().st_size

    def survey(self, notes: Path | None = None, told: Told = lambda count: None) -> Survey:
        """Reads everything once.

        Args:
            notes: A folder that remembers what was found, until the storage changes; None: remember nothing.
            told: Told of the bytes read.

        Raises:
            DamagedFileError: As :meth:`read`; two members have one name; a text is too long to be one.
        """
        with self._errors_named():
            note = _Note(self, notes) if notes is not None else None
            known = note.read() if note is not None else None
        if known is not None:
            told(self.nbytes())
            return known
        found = Survey()
        if self.path.is_file():
            found.md5s.append(self._md5(told))
        for name, content in self.read(told):
            if name in found.members:
                raise DamagedFileError(f"{self.path}: two members are named {name}")
            found.members[name] = hashlib.sha256(content).hexdigest()
            if self.path.suffix == ".gz" and not _is_tar(self.path):
                found.md5s.append(hashlib.md5(content, usedforsecurity=False).hexdigest())
            if name.endswith((".csv", ".txt")):
                if len(content) > _TEXT_LIMIT:
                    raise DamagedFileError(f"{self.path}: {name}: {len(content)} bytes, no list is so long")
                found.texts[name] = content.decode("utf-8", errors="replace").removeprefix("\ufeff")
        if note is not None:
            with suppress(MachineError):  # where nothing may be written, nothing is remembered
                note.write(found)
        return found

    def forget(self, notes: Path) -> None:
        """Drops what ``notes`` remembers of this storage."""
        _Note(self, notes).path.unlink(missing_ok=True)

    def stamp(self) -> str:
        """Returns sha256 over names, sizes, inodes and times of change of what holds the members."""
        lines = hashlib.sha256(os.fsencode(self.path.resolve()))
        for path in [path for _, path in self._files()] if self.path.is_dir() else [self.path]:
            status = path.stat()
            # the time of the last change of any kind (ctime): copying tools set the other one as they like
            values = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            lines.update(os.fsencode(f"{path}\0{values}\n"))
        return lines.hexdigest()

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            raise self._damaged(error) from error
        except FileNotFoundError as error:
            raise RawDataError(
                f"{error.filename}: gone, or a link that leads nowhere", hint="is somebody else changing the folder?"
            ) from error
        except OSError as error:
            # gzip and bz2 raise without a number; a zip cut at its beginning makes Python seek before it
            if error.errno in (None, errno.EINVAL):
                raise self._damaged(error) from error
            raise

    def _damaged(self, error: Exception) -> DamagedFileError:
        return DamagedFileError(
            f"{self.path}: damaged or not the archive its name says: {error}",
            hint="get the file again; an interrupted download looks like this",
        )

    def _files(self) -> Iterator[tuple[str, Path]]:
        """The members of a folder in sorted order, whatever order the file system keeps."""

        def refused(error: OSError) -> None:
            raise error  # or a folder that may not be read would look empty

        for root, folders, files in os.walk(self.path, followlinks=True, onerror=refused):
            folders.sort()
            for name in sorted(files):
                inside = Path(root, name).relative_to(self.path).as_posix()
                logical = self._logical(inside, of=f"{self.path.name}/")
                if logical is not None:
                    yield logical, Path(root, name)

    def _folder(self, told: Told) -> Iterator[tuple[str, bytes]]:
        for name, path in self._files():
            content = path.read_bytes()
            told(len(content))
            yield name, content

    def _zip(self, told: Told) -> Iterator[tuple[str, bytes]]:
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                name = self._logical(info.filename)
                if name is not None and not info.is_dir():
                    if info.file_size > MEMBER_LIMIT:
                        raise DamagedFileError(f"{self.path}: member {info.filename} claims {info.file_size} bytes")
                    content = archive.read(info)
                    told(info.compress_size)
                    yield name, content

    def _tar(self, told: Told) -> Iterator[tuple[str, bytes]]:
        with _Told(self.path, told) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for info in archive:
                name = self._logical(info.name)
                if name is None:
                    continue
                member = archive.extractfile(info) if info.isreg() and info.size <= MEMBER_LIMIT else None
                if member is None:
                    raise DamagedFileError(f"{self.path}: member {info.name} is no regular file of a sane size")
                yield name, member.read()

    def _file(self, told: Told) -> tuple[str, bytes]:
        packed = self.path.suffix == ".gz"
        name = self._logical(self.path.stem if packed else self.path.name)
        assert name is not None, f"{self.path} was found by its name"
        with gzip.open(self.path) if packed else self.path.open("rb") as file:
            content = file.read(MEMBER_LIMIT + 1)
        if len(content) > MEMBER_LIMIT:
            raise DamagedFileError(f"{self.path}: holds more than {MEMBER_LIMIT} bytes")
        told(self.path.stat().st_size)
        return name, content

    def _md5(self, told: Told) -> str:
        with self._errors_named(), self.path.open("rb") as file:
            md5 = hashlib.md5(usedforsecurity=False)
            while block := file.read(2**22):
                md5.update(block)
                told(len(block))
            return md5.hexdigest()

    def _logical(self, name: str, *, of: str = "") -> str | None:
        """The logical name of a member, None of what is none; ``of`` is the folder that counts as part of it."""
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts:
            raise DamagedFileError(f"{self.path}: refused, the member {name!r} leads outside the archive")
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            return None  # what file managers leave behind
        match = self.pattern.search(of + name)
        return match[1] if match else None


class _Told(io.FileIO):
    """A file that says how far it was read."""

    def __init__(self, path: Path, told: Told) -> None:
        super().__init__(path)
        self._told = told

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self._told(len(block))
        return block


class _Note:
    """What was surveyed before, in a file; worth nothing once the storage's stamp differs."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        key = hashlib.sha256(os.fsencode(f"{storage.path.resolve()}\0{storage.pattern.pattern}")).hexdigest()[:24]
        self.path = folder / f"{key}.json"
        self.stamp = storage.stamp()

    def read(self) -> Survey | None:
        try:
            tree = json.loads(self.path.read_text(encoding="utf-8"))
            return Survey(**tree["survey"]) if tree["stamp"] == self.stamp else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # a note, not a cache: whatever is wrong with it, the data are read again

    def write(self, survey: Survey) -> None:
        paths.write_json(self.path, {"stamp": self.stamp, "survey": asdict(survey)})


def _is_tar(path: Path) -> bool:
    return path.name.endswith((".tar.gz", ".tgz", ".tar"))
