"""Members of zip archives, read without trusting what the archive says of them, in any thread."""

from __future__ import annotations

import io
import os
import struct
import threading
import weakref
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from isal import isal_zlib

from plifctl.errors import DamagedFileError

MEMBER_LIMIT = 4 * 2**30
"""The largest member read, bytes; no recording of these data sets comes near it."""

_LARGE = 2**28
_MOST_PACKED = 100
"""Recordings are packed to a half or a third; a large member that unpacks to more than a hundredfold is a bomb."""

_LOCAL = struct.Struct("<4s22xHH")  # of a local header: signature, lengths of name and extra field
_ENCRYPTED = 1


def implausible(size: int, packed: int) -> bool:
    """Whether no recording can be ``size`` bytes long that was packed into ``packed`` bytes."""
    return size > _LARGE and size > _MOST_PACKED * packed


class ZipReader:
    """An open zip archive. Its file is closed when nobody holds the reader any more.

    Python's own reader lets one thread at a time read, and unpacks up to 2 GiB before it looks at a member's size.

    Args:
        archive: Where it is, or its content.
        where: Its name, for messages.

    Raises:
        zipfile.BadZipFile: It is none.
    """

    def __init__(self, archive: Path | bytes, *, where: str) -> None:
        self._where = where
        try:
            with zipfile.ZipFile(io.BytesIO(archive) if isinstance(archive, bytes) else archive) as directory:
                self._members = directory.infolist()
        except (ValueError, RuntimeError) as error:  # a name that is no UTF-8, a version that zipfile does not know
            raise zipfile.BadZipFile(str(error)) from error
        self._bytes: Callable[[int, int], bytes]  # count, start
        if isinstance(archive, bytes):
            self._size = len(archive)
            self._bytes = lambda count, start: archive[start : start + count]
        else:
            file = os.open(archive, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, file)
            self._size = os.fstat(file).st_size
            self._bytes = partial(_read_at, file)

    def infolist(self) -> list[zipfile.ZipInfo]:
        """Returns what the archive's directory says of each member, folders too."""
        return self._members

    def read(self, info: zipfile.ZipInfo) -> bytes:
        """Returns the content of a member; memory is bounded by the archive's size and the one it declares.

        Raises:
            DamagedFileError: The declared size or checksum is not the content's, or not to be believed; the member is
                encrypted, or packed in a way whose unpacking cannot be bounded (any but stored and deflated).
        """
        size, packed = info.file_size, info.compress_size
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & _ENCRYPTED:
            raise self._error(
                info,
                f"encrypted, or packed by method {info.compress_type}; expected stored (0) or deflated (8)",
                hint="pack it again with an ordinary zip, or extract it",
            )
        if packed > self._size:  # to read so many, they would be allocated first
            raise self._error(info, f"{packed} bytes in an archive of {self._size}; it is damaged")
        if size > MEMBER_LIMIT or implausible(size, packed):
            raise self._error(info, f"refused, {packed} bytes claim to unpack to {size}")
        head = self._bytes(_LOCAL.size, info.header_offset)
        if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
            raise self._error(info, f"no member at byte {info.header_offset}; the archive is damaged")
        _, name_length, extra_length = _LOCAL.unpack(head)
        content = self._bytes(packed, info.header_offset + _LOCAL.size + name_length + extra_length)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            try:
                content = isal_zlib.decompressobj(wbits=-15).decompress(content, size + 1)
            except isal_zlib.error as error:  # type: ignore[misc]  # its stub says no exception
                raise self._error(info, f"damaged: {error}") from error
        if len(content) != size:
            raise self._error(info, f"{len(content)} bytes, the archive declares {size}")
        if isal_zlib.crc32(content) != info.CRC:
            raise self._error(info, "damaged: its checksum (CRC-32) differs from the content's")
        return content

    def _error(self, info: zipfile.ZipInfo, what: str, *, hint: str = "get the archive again") -> DamagedFileError:
        return DamagedFileError(f"{self._where}: member {info.filename}: {what}", hint=hint)


_SEEK_LOCK = threading.Lock()


def _seek_and_read(file: int, count: int, start: int) -> bytes:
    """``os.pread`` for systems without it (Windows): one thread at a time, since the file has one position."""
    with _SEEK_LOCK:
        os.lseek(file, start, os.SEEK_SET)
        return os.read(file, count)


_pread: Callable[[int, int, int], bytes] = getattr(os, "pread", _seek_and_read)


def _read_at(file: int, count: int, start: int) -> bytes:
    blocks, left = [], count
    while left and (block := _pread(file, min(left, 2**30), start + count - left)):
        blocks.append(block)
        left -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)
