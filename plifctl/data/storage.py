"""Containers of raw data: a folder, a zip, a tar.gz or a single file, all read as members (name, content).

Nothing is unpacked to disk. A member's logical name is the part of its path that the data set defines
(``Train/3/00041.bin``), so that an archive and its extracted folder contain the same members.
"""

from __future__ import annotations

import codecs
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
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import IO, NamedTuple

from isal import igzip, isal_zlib

from plifctl import files
from plifctl.data.formats.headers import format_of, is_text
from plifctl.data.formats.variants import variants_of
from plifctl.data.thread_map import ordered_map
from plifctl.data.walk import is_system, walk
from plifctl.data.zip_reader import MEMBER_LIMIT, ZipReader, is_zip_bomb
from plifctl.errors import DamagedFileError, MachineError, RawDataError, UnreadRawDataError

OnRead = Callable[[int], None]
"""Called with the number of bytes that were read since the last call."""

OnMember = Callable[[str, bytes, str], None]
"""Called with name, content and sha256 of a member, in a thread."""

_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    isal_zlib.error,
    EOFError,
    RuntimeError,  # an encrypted zip, or a compression method that Python does not know
    TypeError,  # some damaged tar headers
)
_TARS = (".tar.gz", ".tgz", ".tar")

ARCHIVES = (".zip", *_TARS)
"""Endings of archives of several files."""

LIST_BYTES = 2**16
"""Largest size of a list of recordings or windows of the published data sets."""

EVERY_FILE = re.compile(r"^([\s\S]+)$")
"""Pattern of a :class:`Storage` whose members are all files, by their path."""

_MAX_SKIPPED_FOLDERS = 1000
_SURVEY_VERSION = 4  # raised when a survey contains more than before, or texts are read otherwise


@dataclass(frozen=True)
class Survey:
    """The members that one reading of a storage found.

    Attributes:
        md5s: Checksums to compare with published ones: of an archive's file and of a packed file's content; empty for a
            folder.
        members: sha256 of each member's content, by logical name.
        texts: Content of the members that are lists, by logical name.
        formats: Formats that the members' headers name, and the variants of them that occur.
        skipped: Files that are not members: by folder their number, and the name of the first.
        ignored: Those of them whose names say that they are no recordings, in the same form.
    """

    md5s: list[str] = field(default_factory=list)
    members: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    formats: list[str] = field(default_factory=list)
    skipped: dict[str, tuple[int, str]] = field(default_factory=dict)
    ignored: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 over the sorted names and contents; the same for an archive and its extracted folder."""
        lines = "".join(f"{name}\0{content}\n" for name, content in sorted(self.members.items()))
        return hashlib.sha256(os.fsencode(lines)).hexdigest()


class _MemberSurvey(NamedTuple):
    """Name, sha256, format and variants of a member; the md5 of a packed file's content; the text of a list."""

    name: str
    digest: str
    formats: tuple[str, ...]
    md5: str | None
    text: str | None


class Member(NamedTuple):
    """A member of a storage.

    Attributes:
        name: Its logical name.
        nbytes: Its size as stored.
        load: Returns its content; may be called in any thread. Raises as :meth:`Storage.members`.
    """

    name: str
    nbytes: int
    load: Callable[[], bytes]


class Storage:
    """A folder, archive or file that contains members of a data set.

    Args:
        path: A folder, an archive (``.zip``, ``.tar.gz``, ``.tgz``, ``.tar``), or a file, plain or ``.gz``.
        pattern: Its group 1 is the logical name at the end of a member's path; other files are not members.
        rename: Returns the logical name for what the pattern found, where archives differ from the published ones.
        lists: Finds the logical names of lists, whose text a survey keeps; None: there are none.
        list_bytes: Largest size of a list.
        ignored: Finds the paths of files that are never members, counted separately; None: there are none.
    """

    def __init__(
        self,
        path: Path,
        pattern: re.Pattern[str],
        rename: Callable[[str], str] = lambda name: name,
        *,
        lists: re.Pattern[str] | None = None,
        list_bytes: int = LIST_BYTES,
        ignored: re.Pattern[str] | None = None,
    ) -> None:
        self.path, self.pattern, self.lists, self.ignored, self._rename = path, pattern, lists, ignored, rename
        self._list_bytes = list_bytes
        self._skipped: dict[str, tuple[int, str]] = {}
        self._ignored: dict[str, tuple[int, str]] = {}

    def members(self) -> Iterator[Member]:
        """Yields each member, in storage order.

        Raises:
            DamagedFileError: The archive cannot be read, or contains a path that leads outside it.
            RawDataError: A file has been removed.
        """
        with self._raw_errors():
            if self.path.is_dir():
                yield from self._folder()
            elif self.path.suffix.lower() == ".zip":
                yield from self._zip()
            elif is_tar(self.path):
                yield from self._tar()
            else:
                yield self._file()

    def nbytes(self) -> int:
        """Returns the number of bytes that :meth:`survey` reads."""
        with self._raw_errors():
            if self.path.is_dir():
                return sum(file.nbytes for file in self._files)
            return self.path.stat().st_size

    def survey(
        self,
        survey_dir: Path | None = None,
        on_read: OnRead = lambda count: None,
        *,
        workers: int = 1,
        on_member: OnMember = lambda name, content, digest: None,
        read: bool = True,
    ) -> Survey:
        """Reads every member once, unless a saved survey is still valid.

        Args:
            survey_dir: Folder where surveys are saved and looked up until the storage changes; None: neither.
            on_read: Called with the numbers of bytes read.
            workers: Number of threads.
            on_member: Called for every member that is read.
            read: Read the members where no saved survey is valid.

        Raises:
            UnreadRawDataError: No saved survey is valid, and ``read`` is False.
            DamagedFileError: As :meth:`members`; two members have the same name; a list is too long.
        """
        with self._raw_errors():
            saved = _SavedSurvey(self, survey_dir) if survey_dir is not None else None
            survey = saved.load() if saved is not None else None
        if survey is not None:
            on_read(self.nbytes())
            return replace(survey, skipped=self._skipped, ignored=self._ignored) if self.path.is_dir() else survey
        if not read:
            raise UnreadRawDataError(f"{self.path}: changed since it was read, or never read")
        survey = Survey()
        with self._md5_in_background() as md5s:
            self._read_all(survey, on_read, workers, on_member)
        survey.md5s[:0] = md5s
        survey.skipped.update(self._skipped)
        survey.ignored.update(self._ignored)
        if saved is not None:
            with suppress(MachineError):  # in a read-only folder, the next survey reads everything again
                saved.save(survey)
        return survey

    def _read_all(self, found: Survey, on_read: OnRead, workers: int, on_member: OnMember) -> None:
        work = partial(self._survey_member, on_member)
        for member in ordered_map(work, self._members_reported(on_read), workers):
            if member.name in found.members:
                raise DamagedFileError(f"{self.path}: two members are named {member.name}")
            found.members[member.name] = member.digest
            if member.md5 is not None:
                found.md5s.append(member.md5)
            if member.text is not None:
                found.texts[member.name] = member.text
            found.formats.extend(name for name in member.formats if name not in found.formats)

    def _members_reported(self, on_read: OnRead) -> Iterator[Member]:
        for member in self.members():
            yield member
            on_read(member.nbytes)

    def _survey_member(self, on_member: OnMember, member: Member) -> _MemberSurvey:
        content = member.load()
        digest = hashlib.sha256(content).hexdigest()
        on_member(member.name, content, digest)
        packed = self.path.suffix.lower() == ".gz" and not is_tar(self.path)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() if packed else None
        text = self._text_of(member.name, content) if self.lists and self.lists.search(member.name) else None
        named = format_of(content) or ("text" if is_text(content) else None) if text is None else None
        variants = variants_of(content, without_header=member.name.lower().endswith(".bin"))
        return _MemberSurvey(member.name, digest, (*([named] if named else []), *variants), md5, text)

    def _text_of(self, name: str, content: bytes) -> str:
        if len(content) > self._list_bytes:
            raise DamagedFileError(
                f"{self.path}: {name}: {len(content)} bytes, expected a list of at most {self._list_bytes}"
            )
        return decode_text(content)

    def forget_survey(self, survey_dir: Path) -> None:
        """Removes the saved survey of this storage."""
        _SavedSurvey(self, survey_dir).path.unlink(missing_ok=True)

    def stamp(self) -> str:
        """Returns sha256 over names, sizes, inodes and times of change of the files that contain the members."""
        here = [_File.of("", str(self.path), self.path.stat())] if self.path.is_file() else self._files
        lines = [f"{self.path.resolve()}\n", *(f"{file.path}\0{file.state}\n" for file in here)]
        return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()

    @contextmanager
    def _raw_errors(self) -> Iterator[None]:
        try:
            yield
        except _ARCHIVE_ERRORS as error:  # type: ignore[misc]  # isal's stub does not declare its error an exception
            raise self._damaged_error(error) from error
        except FileNotFoundError as error:
            raise RawDataError(
                f"{error.filename}: removed while it was read, or a broken link",
                hint="make sure that no other program changes the folder, then type the same command again",
            ) from error
        except OSError as error:
            # gzip and bz2 raise without an errno; a zip that lost its beginning makes Python seek to a negative offset
            if error.errno in (None, errno.EINVAL):
                raise self._damaged_error(error) from error
            raise

    def _damaged_error(self, error: Exception) -> DamagedFileError:
        return DamagedFileError(
            f"{self.path}: damaged, or not an archive of the type in its name: {error}",
            hint="download the file again; an interrupted download looks like this",
        )

    @cached_property
    def _files(self) -> list[_File]:
        """The members of a folder, sorted by name; listed once."""
        found: list[_File] = []
        for name, entry in walk(str(self.path)):
            if entry.is_symlink() and entry.is_dir():
                raise DamagedFileError(f"{entry.path}: a link to a folder above it", hint="remove the link")
            if (logical := self._logical_name(f"{self.path.name}/{name}")) is None:
                continue
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe may block forever
                raise DamagedFileError(f"{entry.path}: a pipe, a socket or a device, expected a file")
            found.append(_File.of(logical, entry.path, status))
        return found

    def _folder(self) -> Iterator[Member]:
        for file in self._files:
            yield Member(file.name, file.nbytes, partial(self._read_file, file.path))

    def _read_file(self, path: str) -> bytes:
        with self._raw_errors(), open(path, "rb") as file:  # noqa: PTH123 - pathlib costs more than reading a small file
            return file.read()

    def _zip(self) -> Iterator[Member]:
        # members are loaded later, in threads: the reader closes its file when the last of them is freed
        archive = ZipReader(self.path, where=str(self.path))
        self._skipped, self._ignored = {}, {}
        for info in archive.infolist():
            path = info.filename.replace("\\", "/")  # as some programs for Windows write it
            if not path.endswith("/") and (name := self._name_in_archive(path)) is not None:
                yield Member(name, info.compress_size, partial(self._read_zip_member, archive, info))

    def _read_zip_member(self, archive: ZipReader, info: zipfile.ZipInfo) -> bytes:
        with self._raw_errors():
            return archive.read(info)

    def _tar(self) -> Iterator[Member]:
        with self.path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            # tarfile's own gzip reader does not compare the checksum
            stream = igzip.IGzipFile(fileobj=file) if packed else file  # type: ignore[no-untyped-call]
            with tarfile.open(fileobj=stream, mode="r|" if packed else "r|*") as archive:
                yield from self._tar_members(archive, file.tell)
            if packed:
                while stream.read(2**20):  # to the end, where the checksum is
                    pass
            elif self.path.stat().st_size % 512 == 0 and not self._ends_in_zeros(file):
                raise DamagedFileError(f"{self.path}: the end-of-archive blocks are missing; the file is cut off")

    def _ends_in_zeros(self, file: IO[bytes]) -> bool:
        file.seek(-min(1024, self.path.stat().st_size), os.SEEK_END)
        return not any(file.read())

    def _tar_members(self, archive: tarfile.TarFile, tell: Callable[[], int]) -> Iterator[Member]:
        before = 0
        self._skipped, self._ignored = {}, {}
        for info in archive:
            if info.isdir() or (name := self._name_in_archive(info.name)) is None:
                continue
            plain = info.isreg() and not info.issparse() and info.size <= MEMBER_LIMIT
            member = archive.extractfile(info) if plain else None
            if member is None:
                raise DamagedFileError(
                    f"{self.path}: member {info.name} is a link, a device or a sparse file, or larger than 4 GiB; "
                    "expected a regular file"
                )
            blocks, size = [], 0  # read now: a stream cannot go back
            while block := member.read(2**20):
                blocks.append(block)
                size += len(block)
                if is_zip_bomb(size, tell() - before):
                    raise DamagedFileError(f"{self.path}: member {info.name}: refused, it unpacks to {size} bytes")
            yield Member(name, tell() - before, partial(bytes, b"".join(blocks)))
            before = tell()

    def _file(self) -> Member:
        packed = self.path.suffix.lower() == ".gz"
        name = self._logical_name(self.path.stem if packed else self.path.name)
        assert name is not None, f"{self.path} was found by its name"
        return Member(name, self.path.stat().st_size, partial(self._read_single_file, packed))

    def _read_single_file(self, packed: bool) -> bytes:
        with self._raw_errors(), igzip.IGzipFile(self.path) if packed else self.path.open("rb") as file:  # type: ignore[no-untyped-call]
            content = file.read(MEMBER_LIMIT + 1)
        if len(content) > MEMBER_LIMIT:
            raise DamagedFileError(f"{self.path}: unpacks to more than {MEMBER_LIMIT} bytes")
        return content

    @contextmanager
    def _md5_in_background(self) -> Iterator[list[str]]:
        """Yields a list that afterwards contains the md5 of an archive's file, computed in a background thread."""
        found: list[str] = []
        if not self.path.is_file():
            yield found
            return
        cancelled = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            md5 = pool.submit(self._md5, cancelled)
            try:
                yield found
                found.append(md5.result())
            finally:
                cancelled.set()

    def _md5(self, cancelled: threading.Event) -> str:
        with self._raw_errors(), self.path.open("rb") as file:
            md5 = hashlib.md5(usedforsecurity=False)
            while not cancelled.is_set() and (block := file.read(2**20)):
                md5.update(block)
            return md5.hexdigest()

    def _name_in_archive(self, path: str) -> str | None:
        """Returns the logical name of a path in an archive; None if not a member."""
        if path.startswith("/") or ("/../" in f"/{path}/"):
            raise DamagedFileError(f"{self.path}: refused, the member {path!r} leads outside the archive")
        name = path.removeprefix("./")  # of tar -C DIR .
        return None if any(map(is_system, name.split("/"))) else self._logical_name(name)

    def name_of(self, path: str) -> str | None:
        """Returns the logical name that a path would have as a member; None if the pattern does not find it."""
        match = self.pattern.search(path)
        return self._rename(match[1]) if match else None

    def _logical_name(self, name: str) -> str | None:
        """Returns the logical name of a path in the storage, the folder's own name included; None if not a member."""
        ignored = self.ignored is not None and self.ignored.search(name)
        if not ignored and (logical := self.name_of(name)) is not None:
            return logical
        others = self._ignored if ignored else self._skipped
        folder, _, file = name.rpartition("/")
        count, first = others.get(folder, (0, file))
        if count or len(others) < _MAX_SKIPPED_FOLDERS:
            others[folder] = count + 1, first
        return None


class _File(NamedTuple):
    """A member of a folder."""

    name: str
    path: str
    nbytes: int
    state: str

    @classmethod
    def of(cls, name: str, path: str, status: os.stat_result) -> _File:
        """Keeps only the parts of a status used by the stamp: a complete one takes hundreds of bytes per file."""
        # ctime too, the time of the last change of any kind: copying tools set mtime back
        state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        return cls(name, path, status.st_size, state)


class _SavedSurvey:
    """A survey in a file, valid as long as the storage's stamp is the same."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        more = "".join(f"\0{pattern.pattern}" for pattern in (storage.lists, storage.ignored) if pattern)
        identity = f"{storage.path.resolve()}\0{storage.pattern.pattern}\0{_SURVEY_VERSION}{more}"
        key = hashlib.sha256(os.fsencode(identity)).hexdigest()[:24]
        self.path = folder / f"{key}.json"
        self.stamp = storage.stamp()

    def load(self) -> Survey | None:
        try:
            tree = json.loads(self.path.read_text(encoding="utf-8"))
            return Survey(**tree["survey"]) if tree["stamp"] == self.stamp else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # a damaged survey is not an error: the data are read again

    def save(self, survey: Survey) -> None:
        files.write_json(self.path, {"stamp": self.stamp, "survey": asdict(survey)})


def decode_text(content: bytes) -> str:
    """Returns the text of a small file: UTF-8, or the UTF-16 that Windows writes, without the mark of its encoding.

    Example:
        >>> decode_text("user01".encode("utf-16")), decode_text("user01".encode("utf-16-be"))
        ('user01', 'user01')
    """
    encoding = "utf-8"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif content and not any(content[::2]):
        encoding = "utf-16-be"
    elif len(content) > 1 and not any(content[1::2]):
        encoding = "utf-16-le"
    return content.decode(encoding, errors="replace").removeprefix("\ufeff")


def is_tar(path: Path) -> bool:
    """Returns whether a file's name is that of a tar archive, packed or not."""
    return path.name.lower().endswith(_TARS)


def is_archive(path: Path) -> bool:
    """Returns whether a file's name is that of an archive of several files; ``.npz`` is a recording."""
    return path.name.lower().endswith(ARCHIVES)
