"""Caches: raw data framed once, in one HDF5 file that says what it was made of. The only user of h5py.

A cache is named by the hash of its key: everything that its numbers depend on. It is built beside its name, under a
lock, and renamed when whole; ``complete`` is the last attribute written. One sample is one chunk, with a checksum that
HDF5 verifies on every read; a seal over all the rest is compared whenever a cache is opened.

| in the file | events | images |
|---|---|---|
| samples | frames ``[N, T, P, H, W]`` uint8 or uint16 | images ``[N, C, H, W]`` uint8 |
| labels, split | ``[N]`` int64; ``[N]`` bool, true for test | the same |
| sample_id | ``[N]`` text | the same |
| n_raw, n_events | ``[N]`` events read, events framed | – |
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import h5py
import hdf5plugin
import numpy as np

from plifctl import paths
from plifctl.errors import CacheError, CorruptCacheError, RawDataError
from plifctl.events.formats import DECODER_VERSION
from plifctl.events.frames import INTEGRATOR_VERSION, CountOverflow, integrate_frames
from plifctl.events.parallel import in_order
from plifctl.events.rawset import EventSet, ImageSet, Progress
from plifctl.specs import DatasetSpec, FramesSpec, canonical_json, digest_of, flattened

_FOREIGN = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)
"""What reading a file that is no cache of ours may raise."""

_METADATA_BYTES = 2**20  # more than HDF5 needs beside the samples at any time
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheKey:
    """What a cache's numbers depend on, as JSON values."""

    fields: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256, hexadecimal."""
        return digest_of(dict(self.fields))

    def path(self, cache_dir: Path) -> Path:
        """Returns where the cache of this key belongs."""
        readable = "images" if self.fields["T"] is None else f"T{self.fields['T']}-{self.fields['frames']['slicing']}"
        return cache_dir / str(self.fields["dataset"]) / f"{readable}-{self.digest[:12]}.h5"


def recipe_of(dataset: DatasetSpec, T: int | None, frames: FramesSpec | None) -> dict[str, Any]:
    """Returns the part of a key that is known without the raw data.

    Args:
        dataset: The data set.
        T: Number of frames; ignored for images.
        frames: How events become frames; None for images.
    """
    events = dataset.kind == "events"
    return {
        "dataset": dataset.name,
        "shape": list(dataset.shape),
        "decoder_version": DECODER_VERSION,
        "integrator_version": INTEGRATOR_VERSION if events else None,
        "T": T if events else None,
        "frames": frames.model_dump(mode="json") if frames else None,
    }


def key_of(raw: EventSet | ImageSet, T: int | None) -> CacheKey:
    """Returns the key of the cache that ``raw`` gives with ``T`` frames."""
    return CacheKey({**recipe_of(raw.dataset, T, raw.frames), "raw": raw.digest})


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
        counts: ``n_raw`` and ``n_events`` of each sample, int64 ``[N]``; of event sets only.
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
        except _FOREIGN as error:
            hint = self._repair()
            self.close()
            if isinstance(error, OSError) and (error.errno is not None or not os.access(path, os.R_OK)):
                with paths.machine_errors(path):
                    path.open("rb").close()  # HDF5's own words for a refusal name no file
                    raise
            raise CorruptCacheError(f"{path}: not a whole cache: {error}", hint=hint) from error

    def _open(self) -> None:
        attributes, columns, samples = _attributes(self._file), _columns(self._file), self._samples
        if not attributes.get("complete", False):
            raise CorruptCacheError(f"{self.path}: not a finished cache", hint=self._repair())
        if attributes["seal"] != _seal(attributes, columns, samples):
            raise CorruptCacheError(
                f"{self.path}: attributes, labels or ids are not as they were written", hint=self._repair()
            )
        self.key = CacheKey(json.loads(attributes["key"]))
        self.content_digest: str = attributes["content_digest"]
        self.verified: bool = attributes["verified"]
        self.complete_set: bool = attributes["complete_set"]
        self.notes: tuple[str, ...] = tuple(json.loads(attributes["notes"]))
        self.labels: np.ndarray = columns["labels"]
        self.is_test: np.ndarray = columns["split"]
        self.sample_ids: list[str] = [name.decode() for name in columns["sample_id"].tolist()]
        self.counts = {name: columns[name] for name in ("n_raw", "n_events") if name in columns}
        self.nbytes = int(samples.size) * samples.dtype.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        """``[N, T, P, H, W]`` or ``[N, C, H, W]``."""
        return tuple(self._samples.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, or uint16 where a pixel saw more than 255 events in a frame."""
        dtype: np.dtype[Any] = self._samples.dtype
        return dtype

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the samples of ``rows``, in that order, repeated where a row is.

        Raises:
            CorruptCacheError: A chunk fails its checksum; names the sample and the command that repairs it.
        """
        samples, row = self._samples, -1
        try:
            if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
                run: np.ndarray = samples[int(rows[0]) : int(rows[0]) + len(rows)]
                return run
            found = np.empty((len(rows), *samples.shape[1:]), samples.dtype)
            for place, row in enumerate(rows):
                samples.read_direct(found[place : place + 1], np.s_[int(row) : int(row) + 1])
            return found
        except OSError as error:
            sample = f"sample {self.sample_ids[row]}" if row >= 0 else f"a sample of rows {rows[0]} to {rows[-1]}"
            raise CorruptCacheError(
                f"{self.path}: {sample} fails its checksum: {error}", hint=self._repair()
            ) from error

    def close(self) -> None:
        """Closes the file; it opens again when read."""
        file = self.__dict__.pop("_file", None)
        if file is not None:
            file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_file"}

    @cached_property
    def _file(self) -> h5py.File:
        # a finished cache never changes, so no lock is needed, and some file systems have none
        return h5py.File(self.path, "r", locking=False)

    @property
    def _samples(self) -> h5py.Dataset:
        return _samples_of(self._file)

    def _repair(self) -> str:
        command = self._made_by
        if not command:
            try:
                command = _attributes(self._file)["made_by"]
            except _FOREIGN:
                command = f"plifctl prepare {self.path.parent.name}"
        return f"build it again: {command} --force"


def build_cache(
    raw: EventSet | ImageSet,
    T: int | None,
    cache_dir: Path,
    *,
    workers: int = 1,
    force: bool = False,
    made_by: str = "",
    progress: Progress = lambda done, total: None,
) -> Cache:
    """Returns the cache of ``raw``, built unless it is there.

    Args:
        raw: The raw data.
        T: Number of frames; None for images.
        cache_dir: Where caches lie.
        workers: Threads that decode and frame; the content does not depend on them.
        force: Build even if it is there.
        made_by: The command that builds it, kept as information and named when the cache turns out damaged.
        progress: Told after each sample.

    Raises:
        DamagedFileError: A recording cannot be decoded; nothing is left behind.
        RawDataError: The raw data changed meanwhile.
        MachineError: The disk is full or the folder refused; nothing is left behind.
    """
    key = key_of(raw, T)
    path = key.path(cache_dir)
    there = None if force else cached(key, cache_dir, made_by=made_by)
    if there is not None:
        return there  # also where nothing may be written
    paths.make_dir(path.parent)
    with paths.machine_errors(path), _locked(path.with_name(f".{path.name}.lock")):
        there = None if force else cached(key, cache_dir, made_by=made_by)
        if there is not None:
            return there
        for stale in path.parent.glob(f".{path.name}.*.partial"):
            stale.unlink(missing_ok=True)  # of a killed build: whoever holds the lock is alone
        try:
            _write(raw, key, path, np.uint8, workers, made_by, progress)
        except CountOverflow as overflow:
            _log.info("%s: frames need 16 bits, starting again", overflow)
            try:
                _write(raw, key, path, np.uint16, workers, made_by, progress)
            except CountOverflow as error:
                raise RawDataError(
                    f"{raw.root}: {error}, more than 16 bits hold", hint="use more time steps"
                ) from error
    return Cache(path)


def cached(key: CacheKey, cache_dir: Path, *, made_by: str = "") -> Cache | None:
    """Returns the cache of ``key`` where it is there, else None.

    Raises:
        CorruptCacheError: What has its name is damaged, or made of something else.
    """
    path = key.path(cache_dir)
    if not path.exists():
        return None
    cache = Cache(path, made_by=made_by)
    if dict(cache.key.fields) != dict(key.fields):
        different = _said(_differences(key.fields, cache.key.fields))
        raise CorruptCacheError(f"{path}: was renamed, it is another cache: {different}", hint=cache._repair())
    return cache


def find_cache(wanted: Mapping[str, Any], cache_dir: Path, *, prepare: str, content: str | None = None) -> Cache:
    """Returns the cache that fits :func:`recipe_of`, whatever raw data it was made of.

    Several are possible, of a subset and of the whole set: the one of ``content`` is taken, or the newest, and said.

    Args:
        wanted: What :func:`recipe_of` gives.
        cache_dir: Where caches lie.
        prepare: The command that would build it.
        content: Content digest of the cache preferred: that of an earlier run.

    Raises:
        CacheError: There is none; says what comes nearest, and the command.
    """
    there = list(_finished(cache_dir / wanted["dataset"]))
    fitting = [(path, digest) for path, fields, digest in there if _differences(wanted, fields) == {}]
    if not fitting:
        raise CacheError(f"no cache of {wanted['dataset']}: {nearest(wanted, cache_dir)}", hint=prepare)
    same = [path for path, digest in fitting if digest == content]
    newest = max(same or [path for path, _ in fitting], key=lambda path: path.stat().st_mtime)
    if len(fitting) > 1 and not same:
        _log.warning("%d caches of %s fit; taking the newest, %s", len(fitting), wanted["dataset"], newest)
    return Cache(newest)


def nearest(wanted: Mapping[str, Any], cache_dir: Path) -> str:
    """Returns which cache comes nearest to ``wanted`` and where it differs, as a sentence."""
    there = [(path, _differences(wanted, fields)) for path, fields, _ in _finished(cache_dir / wanted["dataset"])]
    if not there:
        return f"none was made in {cache_dir}"
    path, differences = min(there, key=lambda entry: len(entry[1]))
    return f"the nearest, {path.name}, differs: {_said(differences)}"


def _said(differences: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} is {has}, wanted {want}" for name, (has, want) in differences.items())


def expected_bytes(raw: EventSet | ImageSet, T: int | None) -> int:
    """Returns the size of a cache before compression, bytes, if no count needs 16 bits."""
    return len(raw.samples) * (T if T is not None else 1) * int(np.prod(raw.dataset.shape))


def _differences(wanted: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What a key has, and what was wanted, by field; raw data count only where ``wanted`` names them."""
    want, has = flattened(wanted), flattened(fields)
    if "raw" not in want:
        has.pop("raw", None)
    return {name: (has.get(name), want.get(name)) for name in {**want, **has} if has.get(name) != want.get(name)}


def _finished(folder: Path) -> Iterator[tuple[Path, dict[str, Any], str]]:
    """Every finished cache of a folder with its key and content digest; what is no cache is not listed."""
    for path in sorted(folder.glob("*.h5")):
        try:
            with h5py.File(path, "r", locking=False) as file:
                attributes = _attributes(file)
                if attributes.get("complete", False):
                    yield path, dict(json.loads(attributes["key"])), attributes["content_digest"]
        except _FOREIGN:
            _log.warning("%s: not a whole cache; passed over", path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _log.warning("another process builds this cache; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write(
    raw: EventSet | ImageSet,
    key: CacheKey,
    path: Path,
    dtype: type[np.unsignedinteger],
    workers: int,
    made_by: str,
    progress: Progress,
) -> None:
    with paths.written_beside(path) as temporary:
        # From 1.10 on HDF5 checks its metadata too: without that, a chunk that a damaged index has lost reads as zeros.
        # A sample is written whole, so there is nothing for HDF5 to keep in memory meanwhile.
        with h5py.File(temporary, "w", libver=("v110", "v110"), rdcc_nbytes=0) as file:
            if isinstance(raw, ImageSet):
                digests = _write_images(file, raw, progress)
            else:
                digests = _write_events(file, raw, int(key.fields["T"]), dtype, workers, progress)
            _reserve(file, 128 * len(raw.samples))
            ids = [sample.id.encode() for sample in raw.samples]
            file["labels"] = np.array([sample.label for sample in raw.samples], np.int64)
            file["split"] = np.array([sample.split == "test" for sample in raw.samples])
            file["sample_id"] = np.array(ids, h5py.string_dtype(length=max(map(len, ids))))
            attributes: dict[str, Any] = {
                "key": canonical_json(dict(key.fields)),
                "content_digest": _content_digest(raw, digests),
                "verified": raw.verified,
                "complete_set": raw.complete,
                "notes": json.dumps(raw.notes),
                "made_by": made_by,
                "plifctl": paths.code_version(),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            attributes["seal"] = _seal(attributes, _columns(file), _samples_of(file))
            for name, value in {**attributes, "complete": True}.items():
                file.attrs[name] = np.bytes_(_bytes(value)) if isinstance(value, str) else value
            file.flush()
            end = file.id.get_filesize()
        os.truncate(temporary, end)  # HDF5 knows nothing of the space that was reserved and not needed
        with temporary.open("rb") as whole:
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        beside = path.with_name(f"{path.name}.sha256")
        beside.unlink(missing_ok=True)  # killed between the two renames, a cache has no checksum, never another's
    paths.write_text(beside, f"{digest}  {path.name}\n")


def _write_images(file: h5py.File, raw: ImageSet, progress: Progress) -> list[bytes]:
    images, _ = raw.images()
    dataset = _create(file, "images", images.shape, images.dtype)
    for start in range(0, len(images), 1000):
        block = images[start : start + 1000]
        _reserve(file, block.nbytes)
        dataset[start : start + len(block)] = block
        progress(start + len(block), len(images))
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def _write_events(
    file: h5py.File, raw: EventSet, T: int, dtype: type[np.unsignedinteger], workers: int, progress: Progress
) -> list[bytes]:
    n, (_, height, width) = len(raw.samples), raw.dataset.shape
    frames = _create(file, "frames", (n, T, *raw.dataset.shape), np.dtype(dtype))
    assert raw.frames is not None
    slicing = raw.frames.slicing
    n_raw, n_events = np.zeros(n, np.int64), np.zeros(n, np.int64)
    digests: list[bytes] = [b""] * n
    done = 0

    def framed(member: str, data: bytes) -> list[tuple[int, np.ndarray, int, int]]:
        return [
            (
                row,
                integrate_frames(events, T, slicing, height, width, dtype=dtype, where=raw.samples[row].id),
                read,
                len(events),
            )
            for row, events, read in raw.decode(member, data)
        ]

    for recording in in_order(framed, raw.recordings(), workers):
        for row, sample, n_raw[row], n_events[row] in recording:
            if int(sample.sum(dtype=np.int64)) != n_events[row]:
                raise AssertionError(f"{raw.samples[row].id}: frames do not sum to the number of events")
            _reserve(file, sample.nbytes)
            frames[row] = sample
            digests[row] = hashlib.sha256(sample.tobytes()).digest()
            done += 1
            progress(done, n)
    if done != n:
        raise RawDataError(
            f"{raw.root}: {done} samples read, {n} were found before", hint="did the files change meanwhile?"
        )
    file["n_raw"], file["n_events"] = n_raw, n_events
    return digests


def _reserve(file: h5py.File, nbytes: int) -> None:
    """Takes space on the disk for so many bytes more: where there is none, HDF5 would not fail but crash."""
    paths.reserve(Path(file.filename), file.id.get_filesize() + nbytes + _METADATA_BYTES)


def _create(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    return file.create_dataset(
        name,
        shape,
        dtype,
        chunks=(1, *shape[1:]),
        fletcher32=True,
        **hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.BITSHUFFLE),
    )


def _samples_of(file: h5py.File) -> h5py.Dataset:
    return file["frames" if "frames" in file else "images"]


def _attributes(file: h5py.File) -> dict[str, Any]:
    return {
        name: value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value.item()
        for name, value in file.attrs.items()
    }


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a path in a command may hold bytes that are no UTF-8


def _columns(file: h5py.File) -> dict[str, np.ndarray]:
    """What there is of each sample beside its content, by name."""
    names = ("labels", "split", "sample_id", "n_raw", "n_events")
    return {name: file[name][:] for name in names if name in file}


def _seal(attributes: Mapping[str, Any], columns: Mapping[str, np.ndarray], samples: h5py.Dataset) -> str:
    """sha256 over everything in a cache but the samples, whose chunks have checksums of their own."""
    whole = hashlib.sha256(f"{samples.name}\0{samples.shape}\0{samples.dtype}\0".encode())
    for name in sorted(set(attributes) - {"seal", "complete"}):
        whole.update(_bytes(f"{name}\0{attributes[name]}\0"))
    for name, column in sorted(columns.items()):
        whole.update(f"{name}\0{column.shape}\0{column.dtype}\0".encode() + column.tobytes())
    return whole.hexdigest()


def _content_digest(raw: EventSet | ImageSet, digests: list[bytes]) -> str:
    """sha256 over every sample's id, label, split and content, in order: the same however the file was written."""
    whole = hashlib.sha256()
    for sample, digest in zip(raw.samples, digests, strict=True):
        whole.update(f"{sample.id}\0{sample.label}\0{sample.split}\0".encode() + digest)
    return whole.hexdigest()
