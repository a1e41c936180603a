"""Samples that were framed so far, in a file that only grows: a build that is killed goes on from there.

A header line says what the samples are of; each record has a checksum. Whatever is behind the first record that is not
whole was being written when the build ended, and is cut off.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_HEAD = struct.Struct("<32sqqqq32sIq")  # the fields of a record, then the lengths of name and chunk
_BUFFER = 2**18  # bytes that a kill may lose: less than a second's work
_CRC = struct.Struct("<I")


class Record(NamedTuple):
    """A framed sample.

    Attributes:
        name: The sample's id.
        source: What it was framed from: :meth:`plifctl.data.datasets.base.RawDataset.source`.
        n_raw: Events read.
        n_events: Events framed.
        n_frames: Frames that hold events or lie before one that does; the rest is padding.
        duration_us: Time from its first framed event to the last, µs.
        digest: sha256 over its frames.
        chunk: See :func:`plifctl.cache.chunks.encode`.
    """

    name: str
    source: bytes
    n_raw: int
    n_events: int
    n_frames: int
    duration_us: int
    digest: bytes
    chunk: bytes

    def packed(self) -> tuple[bytes, bytes, bytes]:
        """Returns what is written of it: its head with its name, its chunk, their checksum."""
        name = self.name.encode("utf-8", "surrogateescape")
        head = _HEAD.pack(*self[1:-1], len(name), len(self.chunk)) + name
        return head, self.chunk, _CRC.pack(zlib.crc32(self.chunk, zlib.crc32(head)))


class Journal:
    """The records of one build.

    Args:
        path: The file; the caller holds the build's lock.
        identity: What the samples are of, as JSON. Records of anything else are dropped.

    Attributes:
        sources: What each sample that is there was framed from, by id.
        nbytes: Size of the file.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._head = identity.encode("utf-8", "surrogateescape") + b"\n"
        self.sources: dict[str, bytes] = {}
        self.nbytes = len(self._head)
        path.touch()
        self._file = path.open("r+b", buffering=_BUFFER)
        for record in self.records():
            self._note(record)
        self._file.write(self._head)  # what is there already, or of something else
        self._file.truncate(self.nbytes)
        self._file.seek(self.nbytes)

    def append(self, records: list[Record]) -> None:
        """Adds records; of several of one id the last counts."""
        self._file.write(b"".join(part for record in records for part in record.packed()))
        for record in records:
            self._note(record)

    def records(self) -> Iterator[Record]:
        """Yields every record that is whole, in the order they were added."""
        self.flush()
        with self.path.open("rb") as file:
            if file.readline() != self._head:
                return
            size = os.fstat(file.fileno()).st_size
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                source, n_raw, n_events, n_frames, duration_us, digest, named, length = _HEAD.unpack(head)
                if not 0 <= named + length <= size:
                    return
                name, chunk, checksum = file.read(named), file.read(length), file.read(_CRC.size)
                if checksum != _CRC.pack(zlib.crc32(chunk, zlib.crc32(name, zlib.crc32(head)))):
                    return
                yield Record(
                    name.decode("utf-8", "surrogateescape"),
                    source,
                    n_raw,
                    n_events,
                    n_frames,
                    duration_us,
                    digest,
                    chunk,
                )

    def flush(self) -> None:
        """Hands to the system what was added: from then on a kill does not lose it."""
        self._file.flush()

    def close(self, *, keep: bool) -> None:
        """Ends writing; removes the file unless it is to be taken up again."""
        with suppress(OSError):  # a full disk refuses again
            self._file.close()
        if not keep:
            self.path.unlink(missing_ok=True)

    def _note(self, record: Record) -> None:
        self.sources[record.name] = record.source
        self.nbytes += _HEAD.size + len(record.name.encode("utf-8", "surrogateescape")) + len(record.chunk) + _CRC.size
