"""Members of zip archives, read from any thread, without trusting the declared sizes."""

from __future__ import annotations

import io
import os
import struct
import threading
import weakref
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from isal import isal_zlib

from plifctl.errors import DamagedFileError

MEMBER_LIMIT = 4 * 2**30
"""Largest member that is read, bytes; recordings of these data sets are far smaller."""

_LARGE_BYTES = 2**28
_MAX_RATIO = 100
"""Largest compression ratio of a large member; recordings are packed to a half or a third."""

_LOCAL = struct.Struct("<4s22xHH")  # from a local header: signature, lengths of name and extra field
_END = struct.Struct("<4s16xH")  # signature, length of the comment
_ENCRYPTED, _UTF8 = 1, 0x800  # flags of a member


def largest_unpacked(packed: int) -> int:
    """Returns the number of bytes that ``packed`` bytes of recordings unpack to at most."""
    return max(_LARGE_BYTES, _MAX_RATIO * packed)


def is_zip_bomb(size: int, packed: int) -> bool:
    """Returns whether ``packed`` bytes that unpack to ``size`` bytes are too well compressed to be recordings."""
    return size > largest_unpacked(packed)


class ZipReader:
    """An open zip archive. Its file is closed when the reader is garbage-collected.

    Python's own reader reads in one thread at a time, and unpacks up to 2 GiB before it compares a member's size.

    Args:
        archive: Path of the archive, or its content.
        where: Its name, for messages.

    Raises:
        zipfile.BadZipFile: It is not a zip archive.
    """

    def __init__(self, archive: Path | bytes, *, where: str) -> None:
        self._where = where
        try:
            with zipfile.ZipFile(io.BytesIO(archive) if isinstance(archive, bytes) else archive) as directory:
                self._members = [_with_utf8_name(info) for info in directory.infolist()]
        except (ValueError, RuntimeError) as error:  # a name that is not UTF-8, an unknown zip version
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
        if self._is_inner():
            raise zipfile.BadZipFile("the end is missing, and with it the list of members")

    def _is_inner(self) -> bool:
        """Returns whether the members are those of an archive inside this one, whose own end was cut off.

        zipfile takes the last end record in a file, which may be that of a stored member.
        """
        if not self._members or min(info.header_offset for info in self._members) == 0:
            return False
        tail = self._bytes(min(self._size, _END.size + 2**16), max(0, self._size - _END.size - 2**16))
        at = tail.rfind(b"PK\x05\x06")
        return 0 <= at <= len(tail) - _END.size and at + _END.size + _END.unpack_from(tail, at)[-1] != len(tail)

    def infolist(self) -> list[zipfile.ZipInfo]:
        """Returns the directory entries of the members, folders included."""
        return self._members

    def read(self, info: zipfile.ZipInfo) -> bytes:
        """Returns the content of a member; memory is bounded by the archive's size and the declared size.

        Raises:
            DamagedFileError: The declared size or checksum differs from the content's, or is implausible; the member
                is encrypted, or compressed by a method other than stored or deflated.
        """
        size, packed = info.file_size, info.compress_size
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & _ENCRYPTED:
            raise self._error(
                info,
                f"encrypted, or compressed by method {info.compress_type}; expected stored (0) or deflated (8)",
                hint="pack it again with an ordinary zip, or extract it",
            )
        if packed > self._size:  # reading would allocate that much first
            raise self._error(info, f"{packed} bytes in an archive of {self._size}; the archive is damaged")
        if size > MEMBER_LIMIT or is_zip_bomb(size, packed):
            raise self._error(info, f"refused, {packed} bytes are declared to unpack to {size}")
        head = self._bytes(_LOCAL.size, info.header_offset)
        if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
            raise self._error(info, f"no member at byte {info.header_offset}; the archive is damaged")
        _, name_length, extra_length = _LOCAL.unpack(head)
        content = self._bytes(packed, info.header_offset + _LOCAL.size + name_length + extra_length)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            try:
                content = isal_zlib.decompressobj(wbits=-15).decompress(content, size + 1)
            except isal_zlib.error as error:  # type: ignore[misc]  # its stub does not declare it an exception
                raise self._error(info, f"damaged: {error}") from error
        if len(content) != size:
            raise self._error(info, f"{len(content)} bytes, the archive declares {size}")
        if isal_zlib.crc32(content) != info.CRC:
            raise self._error(info, "damaged: the checksum (CRC-32) of the content differs from the declared one")
        return content

    def _error(self, info: zipfile.ZipInfo, what: str, *, hint: str = "download the archive again") -> DamagedFileError:
        return DamagedFileError(f"{self._where}: member {info.filename}: {what}", hint=hint)


def _with_utf8_name(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Returns a member with its name as UTF-8, if it is: some programs (of macOS) do not mark such names."""
    if not info.flag_bits & _UTF8 and not info.filename.isascii():
        with suppress(UnicodeError):
            info.filename = info.filename.encode("cp437").decode()  # the reverse of what zipfile did
    return info


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
