"""Where raw data lie: a folder, a zip, a tar.gz or a single file, all read as members (name, content).

Nothing is unpacked to disk. A member's logical name is the part of its path that the data set defines
(``Train/3/00041.bin``), so that an archive and its extracted folder hold the same members.
"""

from __future__ import annotations

import errno
import hashlib
import json
import lzma
import os
import re
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import IO, NamedTuple

from isal import igzip, isal_zlib

from plifctl import files
from plifctl.data.formats.detect import format_of
from plifctl.data.thread_map import ordered_map
from plifctl.data.zip_reader import MEMBER_LIMIT, ZipReader, implausible
from plifctl.errors import DamagedFileError, MachineError, RawDataError

Told = Callable[[int], None]
"""Is told how many bytes more were read from the disk."""

_UNREADABLE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    isal_zlib.error,
    EOFError,
    RuntimeError,  # of an encrypted zip, or one packed in a way that Python does not know
    TypeError,  # of some damaged tar headers
)
_TEXT_LIMIT = 2**16
_MAX_DEPTH = 40
_SURVEY_VERSION = 2  # raised when a survey holds more than before


@dataclass(frozen=True)
class Survey:
    """What one reading of a storage found.

    Attributes:
        md5s: Checksums to recognise the storage by: of an archive's file, of a file's content; none of a folder.
        members: sha256 of each member's content, by logical name.
        texts: Content of the small text members (``.csv``, ``.txt``), by logical name.
        formats: Which formats the members' headers name.
    """

    md5s: list[str] = field(default_factory=list)
    members: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    formats: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """sha256 over the sorted names and contents: the same for an archive and its extracted folder."""
        lines = "".join(f"{name}\0{content}\n" for name, content in sorted(self.members.items()))
        return hashlib.sha256(os.fsencode(lines)).hexdigest()


class Member(NamedTuple):
    """A part of a storage.

    Attributes:
        name: Its logical name.
        nbytes: Its size, as stored.
        load: Returns its content; may be called in any thread. Raises as :meth:`Storage.members`.
    """

    name: str
    nbytes: int
    load: Callable[[], bytes]


class Storage:
    """One place that holds members of a data set.

    Args:
        path: A folder, an archive (``.zip``, ``.tar.gz``, ``.tgz``, ``.tar``), or a file, plain or ``.gz``.
        pattern: Finds a member's logical name, its group 1, at the end of a path; what doesn't match is no member.
    """

    def __init__(self, path: Path, pattern: re.Pattern[str]) -> None:
        self.path, self.pattern = path, pattern

    def members(self) -> Iterator[Member]:
        """Yields each member, in the order they are stored.

        Raises:
            DamagedFileError: The archive cannot be read, or holds a path that leads outside it.
            RawDataError: A file is gone.
        """
        with self._errors_named():
            if self.path.is_dir():
                yield from self._folder()
            elif self.path.suffix == ".zip":
                yield from self._zip()
            elif _is_tar(self.path):
                yield from self._tar()
            else:
                yield self._file()

    def nbytes(self) -> int:
        """Returns how many bytes :meth:`survey` reads."""
        with self._errors_named():
            if self.path.is_dir():
                return sum(file.nbytes for file in self._files)
            return self.path.stat().st_size

    def survey(
        self,
        notes: Path | None = None,
        told: Told = lambda count: None,
        *,
        workers: int = 1,
        visit: Callable[[str, bytes, str], None] = lambda name, content, digest: None,
    ) -> Survey:
        """Reads everything once, unless it is known.

        Args:
            notes: A folder that remembers what was found, until the storage changes; None: remember nothing.
            told: Told of the bytes read.
            workers: Number of threads.
            visit: Is shown name, content and sha256 of every member that is read, in a thread.

        Raises:
            DamagedFileError: As :meth:`members`; two members have one name; a text is too long to be one.
        """
        with self._errors_named():
            note = _Note(self, notes) if notes is not None else None
            known = note.read() if note is not None else None
        if known is not None:
            told(self.nbytes())
            return known
        found = Survey()
        with self._md5_in_background() as md5s:
            self._read_all(found, told, workers, visit)
        found.md5s[:0] = md5s
        if note is not None:
            with suppress(MachineError):  # where nothing may be written, nothing is remembered
                note.write(found)
        return found

    def _read_all(self, found: Survey, told: Told, workers: int, visit: Callable[[str, bytes, str], None]) -> None:
        work = partial(self._surveyed, visit)
        for name, digest, format_name, md5, text in ordered_map(work, self._told_of(told), workers):
            if name in found.members:
                raise DamagedFileError(f"{self.path}: two members are named {name}")
            found.members[name] = digest
            if md5 is not None:
                found.md5s.append(md5)
            if text is not None:
                found.texts[name] = text
            if format_name is not None and format_name not in found.formats:
                found.formats.append(format_name)

    def _told_of(self, told: Told) -> Iterator[Member]:
        for member in self.members():
            yield member
            told(member.nbytes)

    def _surveyed(
        self, visit: Callable[[str, bytes, str], None], member: Member
    ) -> tuple[str, str, str | None, str | None, str | None]:
        """Name and sha256 of a member; the format its header names; md5 of what was one packed file; a list's text."""
        content = member.load()
        format_name = format_of(content)
        digest = hashlib.sha256(content).hexdigest()
        visit(member.name, content, digest)
        packed = self.path.suffix == ".gz" and not _is_tar(self.path)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() if packed else None
        if not member.name.endswith((".csv", ".txt")):
            return member.name, digest, format_name, md5, None
        if len(content) > _TEXT_LIMIT:
            raise DamagedFileError(f"{self.path}: {member.name}: {len(content)} bytes, no list is so long")
        text = content.decode("utf-8", errors="replace").removeprefix("\ufeff")
        return member.name, digest, format_name, md5, text

    def forget(self, notes: Path) -> None:
        """Drops what ``notes`` remembers of this storage."""
        _Note(self, notes).path.unlink(missing_ok=True)

    def stamp(self) -> str:
        """Returns sha256 over names, sizes, inodes and times of change of what holds the members."""
        here = [_File.of("", str(self.path), self.path.stat())] if self.path.is_file() else self._files
        lines = [f"{self.path.resolve()}\n", *(f"{file.path}\0{file.state}\n" for file in here)]
        return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:  # type: ignore[misc]  # isal's stub calls its error no exception
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

    @cached_property
    def _files(self) -> list[_File]:
        """The members of a folder in sorted order, whatever order the file system keeps; listed once."""
        found: list[_File] = []
        self._list(str(self.path), f"{self.path.name}/", found, 0)
        return found

    def _list(self, folder: str, inside: str, found: list[_File], depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise DamagedFileError(f"{folder}: folders in folders without an end; does a link lead back?")
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    self._list(entry.path, f"{inside}{entry.name}/", found, depth + 1)
                elif (logical := self._logical(f"{inside}{entry.name}")) is not None:
                    status = entry.stat()
                    if not stat.S_ISREG(status.st_mode):  # to read a pipe might take for ever
                        raise DamagedFileError(f"{entry.path}: no file, but a pipe, a socket or a device")
                    found.append(_File.of(logical, entry.path, status))

    def _folder(self) -> Iterator[Member]:
        for file in self._files:
            yield Member(file.name, file.nbytes, partial(self._read, file.path))

    def _read(self, path: str) -> bytes:
        with self._errors_named(), open(path, "rb") as file:  # noqa: PTH123 - Path costs more than small files do
            return file.read()

    def _zip(self) -> Iterator[Member]:
        archive = ZipReader(
            self.path, where=str(self.path)
        )  # closed when the last member is gone: they are loaded later, in threads
        for info in archive.infolist():
            name = self._logical(info.filename)
            if name is not None and not info.is_dir():
                yield Member(name, info.compress_size, partial(self._unzipped, archive, info))

    def _unzipped(self, archive: ZipReader, info: zipfile.ZipInfo) -> bytes:
        with self._errors_named():
            return archive.read(info)

    def _tar(self) -> Iterator[Member]:
        with self.path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            # tarfile's own reading of gzip compares no checksum
            stream = igzip.IGzipFile(fileobj=file) if packed else file  # type: ignore[no-untyped-call]
            with tarfile.open(fileobj=stream, mode="r|" if packed else "r|*") as archive:
                yield from self._tar_members(archive, file.tell)
            if packed:
                while stream.read(2**20):  # to the end, where the checksum is
                    pass
            elif self.path.stat().st_size % 512 == 0 and not self._ends_in_zeros(file):
                raise DamagedFileError(f"{self.path}: the archive has no end; it is cut off")

    def _ends_in_zeros(self, file: IO[bytes]) -> bool:
        file.seek(-min(1024, self.path.stat().st_size), os.SEEK_END)
        return not any(file.read())

    def _tar_members(self, archive: tarfile.TarFile, tell: Callable[[], int]) -> Iterator[Member]:
        before = 0
        for info in archive:
            name = self._logical(info.name)
            if name is None or info.isdir():
                continue
            plain = info.isreg() and not info.issparse() and info.size <= MEMBER_LIMIT
            member = archive.extractfile(info) if plain else None
            if member is None:
                raise DamagedFileError(f"{self.path}: member {info.name} is no plain file of a sane size")
            blocks, size = [], 0  # a stream: now or never
            while block := member.read(2**20):
                blocks.append(block)
                size += len(block)
                if implausible(size, tell() - before):
                    raise DamagedFileError(f"{self.path}: member {info.name}: refused, it unpacks to {size} bytes")
            yield Member(name, tell() - before, partial(bytes, b"".join(blocks)))
            before = tell()

    def _file(self) -> Member:
        packed = self.path.suffix == ".gz"
        name = self._logical(self.path.stem if packed else self.path.name)
        assert name is not None, f"{self.path} was found by its name"
        return Member(name, self.path.stat().st_size, partial(self._unpacked, packed))

    def _unpacked(self, packed: bool) -> bytes:
        with self._errors_named(), igzip.IGzipFile(self.path) if packed else self.path.open("rb") as file:  # type: ignore[no-untyped-call]
            content = file.read(MEMBER_LIMIT + 1)
        if len(content) > MEMBER_LIMIT:
            raise DamagedFileError(f"{self.path}: holds more than {MEMBER_LIMIT} bytes")
        return content

    @contextmanager
    def _md5_in_background(self) -> Iterator[list[str]]:
        """Yields a list that holds the md5 of an archive's file afterwards: a thread reads it beside the others."""
        found: list[str] = []
        if not self.path.is_file():
            yield found
            return
        given_up = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            md5 = pool.submit(self._md5, given_up)
            try:
                yield found
                found.append(md5.result())
            finally:
                given_up.set()

    def _md5(self, given_up: threading.Event) -> str:
        with self._errors_named(), self.path.open("rb") as file:
            md5 = hashlib.md5(usedforsecurity=False)
            while not given_up.is_set() and (block := file.read(2**20)):
                md5.update(block)
            return md5.hexdigest()

    def _logical(self, name: str) -> str | None:
        """The logical name of a member, None of what is none; folders count with their own name."""
        if name.startswith("/") or ("/../" in f"/{name}/"):
            raise DamagedFileError(f"{self.path}: refused, the member {name!r} leads outside the archive")
        if name.startswith((".", "__MACOSX/")) or "/." in name or "/__MACOSX/" in name:
            return None  # what file managers leave behind
        match = self.pattern.search(name)
        return match[1] if match else None


class _File(NamedTuple):
    """A member that is a file of its own."""

    name: str
    path: str
    nbytes: int
    state: str

    @classmethod
    def of(cls, name: str, path: str, status: os.stat_result) -> _File:
        """Keeps of a file's status what its stamp is made of: the rest of it is hundreds of bytes for each file."""
        # the time of the last change of any kind (ctime): copying tools set the other one as they like
        state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        return cls(name, path, status.st_size, state)


class _Note:
    """What was surveyed before, in a file; worth nothing once the storage's stamp differs."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        what = f"{storage.path.resolve()}\0{storage.pattern.pattern}\0{_SURVEY_VERSION}"
        key = hashlib.sha256(os.fsencode(what)).hexdigest()[:24]
        self.path = folder / f"{key}.json"
        self.stamp = storage.stamp()

    def read(self) -> Survey | None:
        try:
            tree = json.loads(self.path.read_text(encoding="utf-8"))
            return Survey(**tree["survey"]) if tree["stamp"] == self.stamp else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # a note, not a cache: whatever is wrong with it, the data are read again

    def write(self, survey: Survey) -> None:
        files.write_json(self.path, {"stamp": self.stamp, "survey": asdict(survey)})


def _is_tar(path: Path) -> bool:
    return path.name.endswith((".tar.gz", ".tgz", ".tar"))
