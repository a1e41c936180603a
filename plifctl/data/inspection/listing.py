"""The files of a folder or an archive, each of which can be opened or read on its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from plifctl.data.storage import EVERY_FILE, Storage
from plifctl.data.walk import walk
from plifctl.data.zip_reader import MEMBER_LIMIT
from plifctl.errors import DamagedFileError


class File(NamedTuple):
    """A file of a folder, or a member of an archive.

    Attributes:
        name: Its path in the folder or archive.
        nbytes: Its size as stored.
        load: Returns its content; may be called in any thread.
        open: Opens it; None for a member of an archive, which is read at once.
    """

    name: str
    nbytes: int
    load: Callable[[], bytes]
    open: Callable[[], BinaryIO] | None = None


def list_files(path: Path) -> Iterator[File]:
    """Yields the files of a folder, sorted by path, or of an archive in its order; without hidden files.

    The members of a tar file must be read in this order, one after the other.

    Raises:
        DamagedFileError: The archive cannot be read, or contains a path that leads outside it.
    """
    if path.is_dir():
        yield from (_file(name, entry) for name, entry in walk(str(path)))
        return
    for member in Storage(path, EVERY_FILE).members():
        yield File(member.name, member.nbytes, member.load)


def _file(name: str, entry: os.DirEntry[str]) -> File:
    """Returns a file of a folder; one that cannot be read, such as a broken link or a pipe, fails when it is opened."""
    try:
        status = entry.stat()
    except OSError as error:
        return _unreadable(name, error)
    if stat.S_ISDIR(status.st_mode):
        return _unreadable(name, DamagedFileError(f"{name}/: a link to a folder above it", hint="remove the link"))
    if not stat.S_ISREG(status.st_mode):  # reading a pipe may block forever
        return _unreadable(name, DamagedFileError(f"{name}: a pipe, a socket or a device, expected a file"))
    return File(name, status.st_size, partial(load_file, entry.path), partial(_open, entry.path))


def _unreadable(name: str, error: Exception) -> File:
    def fail() -> bytes:
        raise error

    return File(name, 0, fail)


def _open(path: str) -> BinaryIO:
    return open(path, "rb")  # noqa: PTH123 - pathlib costs more than reading a small file


def load_file(path: str) -> bytes:
    """Returns the content of a file.

    Raises:
        DamagedFileError: It is larger than what is inspected.
    """
    with _open(path) as file:
        content = file.read(MEMBER_LIMIT + 1)
    if len(content) > MEMBER_LIMIT:
        raise DamagedFileError(f"{path}: not inspected, since it is larger than 4 GiB; plifctl prepare reads it")
    return content
