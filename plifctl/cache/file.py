"""The file of a cache: layout, writing and reading.

| dataset | events | images |
|---|---|---|
| samples | frames ``[N, T, P, H, W]`` uint8 or uint16 | images ``[N, C, H, W]`` uint8 |
| labels, split | ``[N]`` int64; ``[N]`` bool, true for test | the same |
| is_validation | ``[N]`` bool; only where the official split has such samples | – |
| group | ``[N]`` text; only where the raw data name groups | – |
| sample_id | ``[N]`` text | the same |
| digest | ``[N, 32]`` sha256 of each sample | the same |
| n_raw, n_events | ``[N]`` events read, events framed | – |
| n_frames | ``[N]`` frames without the padding at the end | – |
| n_counted | ``[N]`` sum of the frames; only where slices overlap: an event may be in several | – |
| duration_us | ``[N]`` from the first to the last framed event, µs | – |

One sample is one chunk, with a checksum that HDF5 verifies on every read. The attribute ``seal`` is a digest of
everything else, verified when a cache is opened. ``complete`` is the last attribute written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from plifctl import files, paths
from plifctl.cache.chunks import create, decode
from plifctl.cache.journal import Record
from plifctl.cache.key import CacheKey
from plifctl.config.base import canonical_json
from plifctl.config.choices import Compression, Split
from plifctl.data.datasets.base import Sample
from plifctl.data.formats.hdf5 import require_stored
from plifctl.data.remarks import EMPTY, empty_note
from plifctl.errors import CacheError, CorruptCacheError

NOT_A_CACHE = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)
"""Errors raised by reading a damaged cache, or a file that is not a cache."""

COUNTS = ("n_raw", "n_events", "n_frames", "duration_us")
"""Columns of event sets only."""

_VALIDATION, _GROUP, _COUNTED = "is_validation", "group", "n_counted"
"""Columns of some data sets only."""

MAX_SAMPLE_BYTES = 2**31
"""Largest size of one sample: none larger is written, and a file that declares one is not a cache."""

FORMAT = 2
"""Version of this layout; caches of another version are built again."""


class _Sized(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def nbytes(self) -> int: ...


def row_blocks(samples: _Sized, nbytes: int) -> Iterator[slice]:
    """Yields the rows of samples in blocks of at most ``nbytes``, or of one sample."""
    n = samples.shape[0]
    step = max(1, nbytes * n // max(1, samples.nbytes))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


@dataclass(frozen=True)
class Block:
    """Consecutive samples, as an item of work."""

    rows: slice
    samples: np.ndarray

    @property
    def nbytes(self) -> int:
        """Size of the samples."""
        return self.samples.nbytes


class Cache:
    """A finished cache, open for reading. After :meth:`close` it opens again when samples are read.

    Args:
        path: The file.
        made_by: The command that builds it, named in hints where the file cannot be read.
        copy_of: The cache that it is a copy of, for hints: a damaged copy is removed, not built again.

    Attributes:
        path: The file.
        key: What its numbers depend on.
        content_digest: sha256 over every sample, hexadecimal; equal for equal content.
        verified: Every raw file had its published checksum.
        complete_set: It has the official numbers of samples.
        notes: Warnings about the raw data, for the user.
        labels: Class of each sample, int64 ``[N]``.
        is_test: Whether a sample belongs to the official test set, bool ``[N]``.
        is_validation: Whether it belongs to official validation samples, bool ``[N]``.
        groups: Subject, session … of each sample, as the raw data name it; None where they name none.
        sample_ids: Logical name of each sample.
        counts: ``n_raw``, ``n_events``, ``n_frames`` and ``duration_us``, int64 ``[N]``; of event sets only.
        frame_sums: What the frames of each sample sum to, int64 ``[N]``; of event sets only.
        digests: sha256 of each sample, uint8 ``[N, 32]``.
        created: When it was built, UTC.
        made_by: The command that builds it.
        compression: Compression of its chunks.
        shape: ``[N, T, P, H, W]`` or ``[N, C, H, W]``.
        dtype: uint8, or uint16 if a pixel counts more than 255 events in a frame.
        nbytes: Size of all samples in memory.

    Raises:
        CorruptCacheError: The file is damaged, unfinished, or not a cache.
        CacheError: It was made by an older or a newer plifctl.
    """

    def __init__(self, path: Path, *, made_by: str = "", copy_of: Path | None = None) -> None:
        self.path, self._made_by, self._copy_of = path, made_by, copy_of
        try:
            self._open()
        except CacheError:
            self.close()
            raise
        except NOT_A_CACHE as error:
            hint = self.repair_hint()
            self.close()
            _raise_if_of_system(error, path)
            raise CorruptCacheError(f"{path}: damaged, or not a cache: {error}", hint=hint) from error

    def _open(self) -> None:
        attributes = attributes_of(self._file)
        if not attributes.get("complete", False):
            raise CorruptCacheError(f"{self.path}: an unfinished cache", hint=self.repair_hint())
        if (found := format_number(attributes)) != FORMAT:
            maker, hint = "a newer plifctl", "pip install --upgrade plifctl"
            if found < FORMAT:
                maker, hint = "an older plifctl", self.repair_hint()
            raise CacheError(f"{self.path}: made by {maker} (cache format {found}, expected {FORMAT})", hint=hint)
        columns, samples = _columns(self._file), self._samples
        if attributes["seal"] != _header_digest(attributes, columns, samples):
            raise CorruptCacheError(
                f"{self.path}: checksum mismatch: attributes, labels or ids were modified", hint=self.repair_hint()
            )
        self.key = CacheKey(json.loads(attributes["key"]))
        self.content_digest: str = attributes["content_digest"]
        self.verified: bool = attributes["verified"]
        self.complete_set: bool = attributes["complete_set"]
        self.labels: np.ndarray = columns["labels"]
        self.is_test: np.ndarray = columns["split"]
        self.is_validation: np.ndarray = columns.get(_VALIDATION, np.zeros(len(self.labels), bool))
        self.sample_ids: list[str] = _texts(columns["sample_id"])
        self.groups: list[str] | None = _texts(columns[_GROUP]) if _GROUP in columns else None
        self.digests: np.ndarray = columns["digest"]
        self.counts = {name: columns[name] for name in COUNTS if name in columns}
        self.frame_sums: np.ndarray | None = columns.get(_COUNTED, self.counts.get("n_events"))
        self.notes: tuple[str, ...] = self._notes(json.loads(attributes["notes"]))
        self.created: str = attributes["created"]
        self.made_by: str = attributes["made_by"]
        self.compression: str = attributes["compression"]
        self.shape: tuple[int, ...] = tuple(samples.shape)
        self.dtype: np.dtype[Any] = samples.dtype
        self.nbytes = int(samples.size) * samples.dtype.itemsize

    def _notes(self, stored: Sequence[str]) -> tuple[str, ...]:
        """Returns the stored notes; caches of version 0.1.0 were built without the one on samples without events."""
        if not self.counts or any(note.startswith(EMPTY) for note in stored):
            return tuple(stored)
        note = empty_note(self.sample_ids, self.splits, self.counts["n_raw"], self.counts["n_events"])
        return (*stored, note) if note is not None else tuple(stored)

    @cached_property
    def splits(self) -> list[Split]:
        """Official split of each sample; without splits, all are ``train``."""
        names: list[Split] = np.where(
            self.is_test, "test", np.where(self.is_validation, "validation", "train")
        ).tolist()
        return names

    @property
    def without_events(self) -> np.ndarray:
        """Whether each sample has no events, bool ``[N]``; False for images."""
        return self.counts["n_events"] == 0 if self.counts else np.zeros(len(self.labels), bool)

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Returns the samples of ``rows``, in that order; a row may be repeated.

        Args:
            rows: Rows, ``[n]``.
            out: Array that the samples are written to and that is returned, C-contiguous ``[n, ...]``; None: a new one.

        Raises:
            CorruptCacheError: A chunk fails its checksum; names the sample and the command that repairs it.
            MachineError, OSError: The system does not read the file: it was removed, say.
        """
        found = np.empty((len(rows), *self.shape[1:]), self.dtype) if out is None else out
        assert (found.shape, found.dtype) == ((len(rows), *self.shape[1:]), self.dtype)
        for place in np.argsort(rows, kind="stable").tolist():  # in file order
            self._read_one(int(rows[place]), found[place : place + 1])
        return found

    def blocks(self, nbytes: int) -> Iterator[Block]:
        """Yields all samples in blocks of at most ``nbytes``, or of one sample; see :meth:`read` for errors."""
        for rows in row_blocks(self, nbytes):
            yield Block(rows, self.read(np.arange(rows.start, rows.stop)))

    def _read_one(self, row: int, out: np.ndarray) -> None:
        if self.compression == "zstd":
            with suppress(*NOT_A_CACHE):
                if decode(self._samples.id.read_direct_chunk((row, *(0 for _ in self.shape[1:])))[1], out):
                    return
        try:
            self._samples.read_direct(out, np.s_[row : row + 1])
        except OSError as error:
            _raise_if_of_system(error, self.path)
            raise CorruptCacheError(
                f"{self.path}: sample {self.sample_ids[row]} fails its checksum: {error}", hint=self.repair_hint()
            ) from error

    def close(self) -> None:
        """Closes the file; it opens again when samples are read."""
        self.__dict__.pop("_samples", None)
        file = self.__dict__.pop("_file", None)
        if file is not None:
            file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_file", "_samples")}

    @cached_property
    def _file(self) -> h5py.File:
        # a finished cache never changes, so it needs no lock, which some file systems do not have
        return h5py.File(self.path, "r", locking=False)

    @cached_property
    def _samples(self) -> h5py.Dataset:
        return samples_of(self._file)

    def repair_hint(self) -> str:
        """Returns how to replace a damaged cache, for the hint of an error."""
        if self._copy_of is not None:
            file, folder = self._copy_of.stem, self._copy_of.parent
            original = f"{shlex.quote(f'{folder.name}/{file}')} --cache-dir {shlex.quote(str(folder.parent))}"
            return (
                f"it is a copy; remove it: rm {shlex.quote(str(self.path))}\n"
                f"if the next copy is damaged, too: plifctl cache verify {original}"
            )
        command = self._made_by
        if not command:
            try:
                command = attributes_of(self._file)["made_by"]
            except NOT_A_CACHE:
                command = f"plifctl prepare {self.path.parent.name}"
        return f"build it again: {command} --force"


def system_error(error: Exception, path: Path) -> int | None:
    """Returns the number of the system's error because of which HDF5 could not read a file; None if it is damaged."""
    if not isinstance(error, OSError):
        return None
    if error.errno is None and not os.access(path, os.R_OK):
        return errno.EACCES
    return error.errno


def _raise_if_of_system(error: Exception, path: Path) -> None:
    """Raises an error of the system again with the name of the file, which HDF5 omits; returns if it is damaged."""
    if (number := system_error(error, path)) is not None:
        with files.machine_errors(path):
            raise OSError(number, os.strerror(number), str(path)) from error


@dataclass(frozen=True)
class CacheHeader:
    """Content of a cache file that is known before its samples.

    Attributes:
        key: What it depends on.
        samples: Id, label and split of each row.
        shape: Shape of all samples, ``[N, ...]``.
        dtype: Their type.
        compression: Compression of their chunks.
        verified: Every raw file had its published checksum.
        complete_set: It has the official numbers of samples.
        notes: Warnings about the raw data, for the user.
        formats: Formats that the samples were decoded from.
        made_by: The command that builds it.
    """

    key: CacheKey
    samples: Sequence[Sample]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    compression: Compression
    verified: bool
    complete_set: bool
    notes: Sequence[str]
    formats: Sequence[str]
    made_by: str


def write_cache(path: Path, header: CacheHeader, records: Iterable[tuple[int, Record]], *, reserve_bytes: int) -> None:
    """Writes a cache to a temporary file and renames it to ``path``; then its sha256 beside it.

    Args:
        path: Path of the cache.
        header: What is known before the samples.
        records: Row and record of each sample, in any order; if several have the same row, the last counts.
        reserve_bytes: Size of all records.

    Raises:
        CorruptCacheError: A row has no record.
        MachineError: The disk is full; no partial file remains.
    """
    n = len(header.samples)
    columns = _new_columns(header)
    reserve_bytes += sum(column.nbytes for column in columns.values()) + 64 * n + 2**20
    with files.atomic_write(path) as temporary:
        # From 1.10 on HDF5 has checksums of its metadata, without which a chunk lost in a damaged index reads as zeros.
        # Chunks are written whole, so HDF5 needs no cache for them.
        with h5py.File(temporary, "w", libver=("v110", "v110"), rdcc_nbytes=0) as file:
            files.reserve_bytes(temporary, reserve_bytes)  # first, since HDF5 crashes on a full disk
            dataset_name = "frames" if _has_events(header.key) else "images"
            dataset = create(file, dataset_name, header.shape, header.dtype, header.compression)
            written = _write_records(dataset, records, columns)
            if not written.all():
                raise CorruptCacheError(
                    f"{path}: {n - int(written.sum())} of {n} framed samples cannot be read back",
                    hint="type the same command again to frame them again",
                )
            for name, column in columns.items():
                file[name] = column
            _write_attributes(file, header, columns, dataset)
            file.flush()
            end = file.id.get_filesize()
        os.truncate(temporary, end)  # releases reserved space that was not needed
        with temporary.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        # a build killed between the two renames leaves a cache without a checksum, never with that of another file
        checksum_path(path).unlink(missing_ok=True)
        files.sync_folder(path.parent)
    files.write_text(checksum_path(path), checksum_line(path, digest))


def _has_events(key: CacheKey) -> bool:
    return key.fields["frames"] is not None


def _new_columns(header: CacheHeader) -> dict[str, np.ndarray]:
    """Returns the columns by name; those that the records fill in are zeros."""
    samples, n = header.samples, len(header.samples)
    columns = {
        "labels": np.array([sample.label for sample in samples], np.int64),
        "split": np.array([sample.split == "test" for sample in samples]),
        "sample_id": _text_column([sample.id for sample in samples]),
        "digest": np.zeros((n, 32), np.uint8),
        **{name: np.zeros(n, np.int64) for name in (COUNTS if _has_events(header.key) else ())},
    }
    if any(sample.split == "validation" for sample in samples):
        columns[_VALIDATION] = np.array([sample.split == "validation" for sample in samples])
    if any(sample.group for sample in samples):
        columns[_GROUP] = _text_column([sample.group for sample in samples])
    if (header.key.fields["frames"] or {}).get("overlap_us"):
        columns[_COUNTED] = np.zeros(n, np.int64)
    return columns


def _write_records(
    dataset: h5py.Dataset, records: Iterable[tuple[int, Record]], columns: dict[str, np.ndarray]
) -> np.ndarray:
    """Writes the chunks and fills in the columns; returns which rows had a record, bool ``[N]``."""
    offset = (0,) * (len(dataset.shape) - 1)
    written = np.zeros(len(dataset), bool)
    for row, record in records:
        written[row] = True
        dataset.id.write_direct_chunk((row, *offset), record.chunk)
        columns["digest"][row] = np.frombuffer(record.digest, np.uint8)
        for name in (*COUNTS, _COUNTED):
            if name in columns:
                columns[name][row] = getattr(record, name)
    return written


def _write_attributes(
    file: h5py.File, header: CacheHeader, columns: Mapping[str, np.ndarray], dataset: h5py.Dataset
) -> None:
    attributes: dict[str, Any] = {
        "verified": header.verified,
        "complete_set": header.complete_set,
        "notes": json.dumps(header.notes),
        "formats": json.dumps(header.formats),
        "made_by": header.made_by,
        "format": FORMAT,
        "key": canonical_json(dict(header.key.fields)),
        "content_digest": content_digest(header.samples, columns["digest"]),
        "compression": header.compression,
        "plifctl": paths.code_version(),
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    attributes["seal"] = _header_digest(attributes, columns, dataset)
    for name, value in {**attributes, "complete": True}.items():
        file.attrs[name] = np.bytes_(_bytes(value)) if isinstance(value, str) else value


def checksum_path(path: Path) -> Path:
    """Returns the path of a cache's checksum file, which ``sha256sum -c`` reads."""
    return path.with_name(f"{path.name}.sha256")


def checksum_line(path: Path, digest: str) -> str:
    """Returns the content of a cache's checksum file."""
    return f"{digest}  {path.name}\n"


def content_digest(samples: Iterable[Sample], digests: np.ndarray) -> str:
    """Returns sha256 over every sample's id, label, split, group and content, in order; compression does not matter."""
    total = hashlib.sha256()
    for sample, digest in zip(samples, digests, strict=True):
        group = f"{sample.group}\0" if sample.group else ""
        total.update(_bytes(f"{sample.id}\0{sample.label}\0{sample.split}\0{group}") + digest.tobytes())
    return total.hexdigest()


def format_number(attributes: Mapping[str, Any]) -> int:
    """Returns the version of a cache's layout; the first one did not state it."""
    return int(attributes.get("format", 1 if "key" in attributes else FORMAT))


def samples_of(file: h5py.File) -> h5py.Dataset:
    """Returns the dataset of samples of an open cache.

    Raises:
        ValueError: It is stored in another file, or declares more than a file of this size can contain.
    """
    name = "frames" if "frames" in file else "images"
    found = require_stored(file, name)
    if found.chunks != (1, *found.shape[1:]):
        raise ValueError(f"{name} have chunks of {found.chunks}, expected a chunk for each sample")
    if math.prod(found.chunks) * found.dtype.itemsize > MAX_SAMPLE_BYTES:
        raise ValueError(f"{name} of shape {found.shape[1:]}, expected at most {MAX_SAMPLE_BYTES} bytes")
    if len(found) > max(file.id.get_filesize(), 1):
        raise ValueError(f"{len(found):,} samples in a file of {file.id.get_filesize():,} bytes")
    return found


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """Returns the attributes of an open cache as Python values."""
    return {
        name: value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value.item()
        for name, value in file.attrs.items()
    }


def _text_column(texts: Sequence[str]) -> np.ndarray:
    encoded = [_bytes(text) for text in texts]
    return np.array(encoded, f"S{max(1, *map(len, encoded))}")


def _texts(column: np.ndarray) -> list[str]:
    return [text.decode("utf-8", "surrogateescape") for text in column.tolist()]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a path in a command may contain bytes that are not UTF-8


def _columns(file: h5py.File) -> dict[str, np.ndarray]:
    """Returns the columns: labels, ids and counts of the samples, by name."""
    found = {
        name: require_stored(file, name)
        for name in ("labels", "split", "sample_id", "digest", _VALIDATION, _GROUP, _COUNTED, *COUNTS)
        if name in file
    }
    if sum(column.nbytes for column in found.values()) > file.id.get_filesize():
        raise ValueError("columns are declared larger than the file")
    return {name: column[:] for name, column in found.items()}


def _header_digest(attributes: Mapping[str, Any], columns: Mapping[str, np.ndarray], samples: h5py.Dataset) -> str:
    """Returns sha256 over everything in a cache except the samples, whose chunks have their own checksums."""
    total = hashlib.sha256(f"{samples.name}\0{samples.shape}\0{samples.dtype}\0".encode())
    for name in sorted(set(attributes) - {"seal", "complete"}):
        total.update(_bytes(f"{name}\0{attributes[name]}\0"))
    for name, column in sorted(columns.items()):
        total.update(f"{name}\0{column.shape}\0{column.dtype}\0".encode() + column.tobytes())
    return total.hexdigest()
