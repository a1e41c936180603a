"""A cache file: how it is written and read.

| in the file | events | images |
|---|---|---|
| samples | frames ``[N, T, P, H, W]`` uint8 or uint16 | images ``[N, C, H, W]`` uint8 |
| labels, split | ``[N]`` int64; ``[N]`` bool, true for test | the same |
| sample_id | ``[N]`` text | the same |
| digest | ``[N, 32]`` sha256 of each sample | the same |
| n_raw, n_events | ``[N]`` events read, events framed | – |
| n_frames | ``[N]`` frames up to the last that is no padding | – |
| duration_us | ``[N]`` from the first to the last framed event, µs | – |

One sample is one chunk, with a checksum that HDF5 verifies on every read; a seal over all the rest is compared whenever
a cache is opened. ``complete`` is the last attribute written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from plifctl import files, paths
from plifctl.cache.chunks import Compression, create, decode
from plifctl.cache.journal import Record
from plifctl.cache.key import CacheKey
from plifctl.config.base import canonical_json
from plifctl.data.datasets.base import Sample
from plifctl.errors import CorruptCacheError

FOREIGN = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)
"""What reading a file that is no cache of ours may raise."""

COUNTS = ("n_raw", "n_events", "n_frames", "duration_us")
"""Columns of event sets."""

MAX_SAMPLE_BYTES = 2**31
"""Of one sample; what declares more is no cache."""

FORMAT = 2
"""Version of all this; caches of another are built again."""


class Cache:
    """A finished cache, opened when first read and only for reading.

    Args:
        path: The file.
        made_by: The command that builds it, named where the file itself cannot say.

    Attributes:
        path: The file.
        key: What it was made of.
        content_digest: sha256 over every sample, hexadecimal: equal for equal content.
        verified: Every raw file had its published checksum.
        complete_set: The official numbers of samples are there.
        notes: What the user must be told about the raw data.
        labels: Class of each sample, int64 ``[N]``.
        is_test: Whether a sample is of the official test set, bool ``[N]``.
        sample_ids: Logical name of each sample.
        counts: ``n_raw``, ``n_events``, ``n_frames`` and ``duration_us``, int64 ``[N]``; of event sets only.
        digests: sha256 of each sample, uint8 ``[N, 32]``.
        created: When it was built, UTC.
        made_by: The command that builds it.
        compression: How its chunks are packed.
        shape: ``[N, T, P, H, W]`` or ``[N, C, H, W]``.
        dtype: uint8, or uint16 where a pixel saw more than 255 events in a frame.
        nbytes: Size of all samples in memory.

    Raises:
        CorruptCacheError: The file is no whole cache.
    """

    def __init__(self, path: Path, *, made_by: str = "") -> None:
        self.path, self._made_by = path, made_by
        try:
            self._open()
        except CorruptCacheError:
            self.close()
            raise
        except FOREIGN as error:
            hint = self.repair()
            self.close()
            if isinstance(error, OSError) and (error.errno is not None or not os.access(path, os.R_OK)):
                with files.machine_errors(path):
                    path.open("rb").close()  # HDF5's own words for a refusal name no file
                    raise
            raise CorruptCacheError(f"{path}: not a whole cache: {error}", hint=hint) from error

    def _open(self) -> None:
        attributes, columns, samples = attributes_of(self._file), _columns(self._file), self._samples
        if not attributes.get("complete", False):
            raise CorruptCacheError(f"{self.path}: not a finished cache", hint=self.repair())
        if attributes.get("format") != FORMAT:
            raise CorruptCacheError(f"{self.path}: written by another version of plifctl", hint=self.repair())
        if attributes["seal"] != _seal(attributes, columns, samples):
            raise CorruptCacheError(
                f"{self.path}: attributes, labels or ids are not as they were written", hint=self.repair()
            )
        self.key = CacheKey(json.loads(attributes["key"]))
        self.content_digest: str = attributes["content_digest"]
        self.verified: bool = attributes["verified"]
        self.complete_set: bool = attributes["complete_set"]
        self.notes: tuple[str, ...] = tuple(json.loads(attributes["notes"]))
        self.labels: np.ndarray = columns["labels"]
        self.is_test: np.ndarray = columns["split"]
        self.sample_ids: list[str] = [name.decode("utf-8", "surrogateescape") for name in columns["sample_id"].tolist()]
        self.digests: np.ndarray = columns["digest"]
        self.counts = {name: columns[name] for name in COUNTS if name in columns}
        self.created: str = attributes["created"]
        self.made_by: str = attributes["made_by"]
        self.compression: str = attributes["compression"]
        self.shape: tuple[int, ...] = tuple(samples.shape)
        self.dtype: np.dtype[Any] = samples.dtype
        self.nbytes = int(samples.size) * samples.dtype.itemsize

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Returns the samples of ``rows``, in that order, repeated where a row is.

        Args:
            rows: ``[n]``.
            out: Where they go and what is returned, ``[n, ...]`` in the order of memory; None: into fresh memory.

        Raises:
            CorruptCacheError: A chunk fails its checksum; names the sample and the command that repairs it.
        """
        found = np.empty((len(rows), *self.shape[1:]), self.dtype) if out is None else out
        assert (found.shape, found.dtype) == ((len(rows), *self.shape[1:]), self.dtype)
        for place in np.argsort(rows, kind="stable").tolist():  # in the order of the file
            self._read_one(int(rows[place]), found[place : place + 1])
        return found

    def _read_one(self, row: int, out: np.ndarray) -> None:
        if self.compression == "zstd":
            with suppress(*FOREIGN):
                if decode(self._samples.id.read_direct_chunk((row, *(0 for _ in self.shape[1:])))[1], out):
                    return
        try:
            self._samples.read_direct(out, np.s_[row : row + 1])
        except OSError as error:
            raise CorruptCacheError(
                f"{self.path}: sample {self.sample_ids[row]} fails its checksum: {error}", hint=self.repair()
            ) from error

    def close(self) -> None:
        """Closes the file; it opens again when read."""
        self.__dict__.pop("_samples", None)
        file = self.__dict__.pop("_file", None)
        if file is not None:
            file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_file", "_samples")}

    @cached_property
    def _file(self) -> h5py.File:
        # a finished cache never changes, so no lock is needed, and some file systems have none
        return h5py.File(self.path, "r", locking=False)

    @cached_property
    def _samples(self) -> h5py.Dataset:
        return samples_of(self._file)

    def repair(self) -> str:
        """Returns what to type when the file turns out damaged."""
        command = self._made_by
        if not command:
            try:
                command = attributes_of(self._file)["made_by"]
            except FOREIGN:
                command = f"plifctl prepare {self.path.parent.name}"
        return f"build it again: {command} --force"


def write_cache(
    path: Path,
    key: CacheKey,
    samples: Sequence[Sample],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    records: Iterable[tuple[int, Record]],
    *,
    room: int,
    compression: Compression,
    attributes: Mapping[str, Any],
) -> None:
    """Writes a whole cache beside ``path`` and renames it; then its sha256 beside it.

    Args:
        path: Where it belongs.
        key: What it was made of.
        samples: Id, label and split of each row.
        shape: Of all samples, ``[N, ...]``.
        dtype: Of the samples.
        records: Row and record of each sample, in any order; of several for one row the last counts.
        room: Size of all records, bytes.
        compression: How their chunks are packed.
        attributes: verified, complete_set, notes, formats, made_by.

    Raises:
        CorruptCacheError: A row has no record.
        MachineError: There is no room; nothing is left behind.
    """
    n = len(samples)
    events = key.fields["frames"] is not None
    ids = [_bytes(sample.id) for sample in samples]
    columns: dict[str, np.ndarray] = {
        "labels": np.array([sample.label for sample in samples], np.int64),
        "split": np.array([sample.split == "test" for sample in samples]),
        "sample_id": np.array(ids, f"S{max(map(len, ids))}"),
        "digest": np.zeros((n, 32), np.uint8),
        **{name: np.zeros(n, np.int64) for name in (COUNTS if events else ())},
    }
    with files.atomic_write(path) as temporary:
        # From 1.10 on HDF5 checks its metadata too: without that, a chunk that a damaged index has lost reads as zeros.
        # Chunks are written whole, so there is nothing for HDF5 to keep in memory meanwhile.
        with h5py.File(temporary, "w", libver=("v110", "v110"), rdcc_nbytes=0) as file:
            # space is taken first: where there is none, HDF5 would not fail but crash
            files.reserve_bytes(temporary, room + sum(column.nbytes for column in columns.values()) + 64 * n + 2**20)
            dataset = create(file, "frames" if events else "images", shape, dtype, compression)
            rest = (0,) * (len(shape) - 1)
            there = np.zeros(n, bool)
            for row, record in records:
                there[row] = True
                dataset.id.write_direct_chunk((row, *rest), record.chunk)
                columns["digest"][row] = np.frombuffer(record.digest, np.uint8)
                for name in COUNTS if events else ():
                    columns[name][row] = getattr(record, name)
            if not there.all():
                raise CorruptCacheError(
                    f"{path}: {n - int(there.sum())} of {n} framed samples cannot be read back",
                    hint="type the same command again: they will be framed anew",
                )
            for name, column in columns.items():
                file[name] = column
            written: dict[str, Any] = {
                **attributes,
                "format": FORMAT,
                "key": canonical_json(dict(key.fields)),
                "content_digest": content_digest(samples, columns["digest"]),
                "compression": compression,
                "plifctl": paths.code_version(),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            written["seal"] = _seal(written, columns, dataset)
            for name, value in {**written, "complete": True}.items():
                file.attrs[name] = np.bytes_(_bytes(value)) if isinstance(value, str) else value
            file.flush()
            end = file.id.get_filesize()
        os.truncate(temporary, end)  # HDF5 knows nothing of the space that was reserved and not needed
        with temporary.open("rb") as whole:
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        checksum_path(path).unlink(missing_ok=True)  # killed between two renames, a cache has none, never another's
    files.write_text(checksum_path(path), checksum_line(path, digest))


def checksum_path(path: Path) -> Path:
    """Returns where the sha256 of a cache lies, in the form that ``sha256sum -c`` reads."""
    return path.with_name(f"{path.name}.sha256")


def checksum_line(path: Path, digest: str) -> str:
    """Returns what stands in it."""
    return f"{digest}  {path.name}\n"


def content_digest(samples: Iterable[Sample], digests: np.ndarray) -> str:
    """Returns sha256 over every sample's id, label, split and content, in order: the same however it was written."""
    whole = hashlib.sha256()
    for sample, digest in zip(samples, digests, strict=True):
        whole.update(_bytes(f"{sample.id}\0{sample.label}\0{sample.split}\0") + digest.tobytes())
    return whole.hexdigest()


def samples_of(file: h5py.File) -> h5py.Dataset:
    """Returns the dataset of samples of an open cache.

    Raises:
        ValueError: It lies in another file, or declares more than a file of this size can hold.
    """
    name = "frames" if "frames" in file else "images"
    found = _stored(file, name)
    if found.chunks != (1, *found.shape[1:]):
        raise ValueError(f"{name} are not stored as a cache's: a chunk for each sample")
    if math.prod(found.chunks) * found.dtype.itemsize > MAX_SAMPLE_BYTES:
        raise ValueError(f"{name} of {found.shape[1:]}: larger than any sample")
    if len(found) > max(file.id.get_filesize(), 1):
        raise ValueError(f"{len(found):,} samples in a file of {file.id.get_filesize():,} bytes")
    return found


def _stored(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset whose content is in the file itself."""
    found = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external or found.dtype.hasobject:
        raise ValueError(f"{name} are not stored in the file itself")
    return found


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """Returns the attributes of an open cache as Python values."""
    return {
        name: value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value.item()
        for name, value in file.attrs.items()
    }


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a path in a command may hold bytes that are no UTF-8


def _columns(file: h5py.File) -> dict[str, np.ndarray]:
    """What there is of each sample beside its content, by name."""
    found = {name: _stored(file, name) for name in ("labels", "split", "sample_id", "digest", *COUNTS) if name in file}
    if sum(column.nbytes for column in found.values()) > file.id.get_filesize():
        raise ValueError("columns claim to be larger than the file")
    return {name: column[:] for name, column in found.items()}


def _seal(attributes: Mapping[str, Any], columns: Mapping[str, np.ndarray], samples: h5py.Dataset) -> str:
    """sha256 over everything in a cache but the samples, whose chunks have checksums of their own."""
    whole = hashlib.sha256(f"{samples.name}\0{samples.shape}\0{samples.dtype}\0".encode())
    for name in sorted(set(attributes) - {"seal", "complete"}):
        whole.update(_bytes(f"{name}\0{attributes[name]}\0"))
    for name, column in sorted(columns.items()):
        whole.update(f"{name}\0{column.shape}\0{column.dtype}\0".encode() + column.tobytes())
    return whole.hexdigest()
