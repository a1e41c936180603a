"""An append-only file of framed samples, from which a build that was killed is resumed.

A header line identifies the framing; each record has a checksum. The first incomplete record, and everything after it,
was being written when the build ended, and is cut off.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from plifctl.data.remarks import Remark

_HEAD = struct.Struct("<32sqqqqq32sIIq")  # the fields of a record, then the lengths of name, remarks and chunk
_FORMAT = b"3 "  # raised when records change: those of another format are dropped
_BUFFER = 2**18  # bytes that a kill may lose: less than a second of work
_CRC = struct.Struct("<I")


class Record(NamedTuple):
    """A framed sample.

    Attributes:
        name: Id of the sample.
        source_digest: Digest of its raw data: :meth:`plifctl.data.datasets.base.RawDataset.source_digest`.
        n_raw: Number of its events in the file.
        n_events: Number of events framed.
        n_frames: Number of frames without the padding at the end.
        duration_us: Time from the first framed event to the last, µs.
        n_counted: Sum of its frames: events in overlapping slices are counted more than once.
        digest: sha256 over the frames.
        chunk: See :func:`plifctl.cache.chunks.encode`.
        remarks: Remarks on its recording.
    """

    name: str
    source_digest: bytes
    n_raw: int
    n_events: int
    n_frames: int
    duration_us: int
    n_counted: int
    digest: bytes
    chunk: bytes
    remarks: tuple[Remark, ...] = ()

    def packed(self) -> tuple[bytes, bytes, bytes]:
        """Returns the record as written: head with name and remarks, chunk, their checksum."""
        name = self.name.encode("utf-8", "surrogateescape")
        remarks = json.dumps(self.remarks).encode() if self.remarks else b""
        head = _HEAD.pack(*self[1:-2], len(name), len(remarks), len(self.chunk)) + name + remarks
        return head, self.chunk, _CRC.pack(zlib.crc32(self.chunk, zlib.crc32(head)))


class Journal:
    """The records of one build.

    Args:
        path: The file; the caller holds the build's lock.
        identity: Everything that samples depend on besides the raw data, as JSON; other records are dropped.

    Attributes:
        source_digests: Source digest of each sample in the journal, by id.
        remarks: Remarks on each of them, by id.
        counts: ``n_raw``, ``n_events`` and ``duration_us`` of each sample, by id.
        nbytes: Size of the file.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._head = _FORMAT + identity.encode("utf-8", "surrogateescape") + b"\n"
        self.source_digests: dict[str, bytes] = {}
        self.remarks: dict[str, tuple[Remark, ...]] = {}
        self.counts: dict[str, tuple[int, int, int]] = {}
        self.nbytes = len(self._head)
        path.touch()
        self._file = path.open("r+b", buffering=_BUFFER)
        for record in self.records():
            self._count(record, sum(map(len, record.packed())))
        self._file.write(self._head)  # replaces the header of another identity
        self._file.truncate(self.nbytes)
        self._file.seek(self.nbytes)

    def append(self, records: list[Record]) -> None:
        """Appends records; if several have the same id, the last counts."""
        for record in records:
            packed = b"".join(record.packed())
            self._file.write(packed)
            self._count(record, len(packed))

    def records(self) -> Iterator[Record]:
        """Yields the complete records in the order they were added."""
        self.flush()
        with self.path.open("rb") as file:
            if file.readline() != self._head:
                return
            size = os.fstat(file.fileno()).st_size
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                source_digest, *counts, digest, named, remarked, length = _HEAD.unpack(head)
                if not 0 <= named + remarked + length <= size:
                    return
                texts, chunk, checksum = file.read(named + remarked), file.read(length), file.read(_CRC.size)
                if checksum != _CRC.pack(zlib.crc32(chunk, zlib.crc32(texts, zlib.crc32(head)))):
                    return
                name = texts[:named].decode("utf-8", "surrogateescape")
                n_raw, n_events, n_frames, duration_us, n_counted = counts
                remarks = tuple(Remark(*remark) for remark in json.loads(texts[named:] or b"[]"))
                yield Record(
                    name, source_digest, n_raw, n_events, n_frames, duration_us, n_counted, digest, chunk, remarks
                )

    def flush(self) -> None:
        """Writes buffered records to the file, where a kill does not lose them."""
        self._file.flush()

    def close(self, *, keep: bool) -> None:
        """Closes the file; removes it unless ``keep``."""
        with suppress(OSError):  # a full disk fails again
            self._file.close()
        if not keep:
            self.path.unlink(missing_ok=True)

    def _count(self, record: Record, nbytes: int) -> None:
        self.source_digests[record.name] = record.source_digest
        self.remarks[record.name] = record.remarks
        self.counts[record.name] = record.n_raw, record.n_events, record.duration_us
        self.nbytes += nbytes
