"""Raw data become a cache: framed in threads, kept in a journal, written as one file."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import filelock
import numpy as np

from plifctl import files
from plifctl.cache.chunks import Compression, encode
from plifctl.cache.file import Cache, write_cache
from plifctl.cache.journal import Journal, Record
from plifctl.cache.key import CacheKey, differences, key_of, raw_independent_key, readable, said
from plifctl.config.base import canonical_json, digest_of
from plifctl.config.dataset import MAX_T, Framing
from plifctl.data.datasets import layout_formats
from plifctl.data.datasets.base import EventDataset, ImageDataset, Progress, RecordingFile, Sample, Visit
from plifctl.data.events import Events
from plifctl.data.formats.detect import raised_versions
from plifctl.data.framer import count_frames, select_events
from plifctl.data.frames import CountOverflow, slices_of_duration
from plifctl.data.thread_map import ordered_map
from plifctl.errors import CorruptCacheError, RawDataError

_log = logging.getLogger(__name__)


class CacheBuilder:
    """One build of one cache, as a context: nobody else builds the like meanwhile.

    Where no cache of the recipe is there, samples can be framed while raw data are read for the first time
    (:meth:`visitor`); what was not framed then, :meth:`finish` frames. A build that did not come to its end, whyever,
    goes on where it was.

    Args:
        framing: The data set, and how it is framed.
        cache_dir: Where caches lie.
        workers: Threads that decode, frame and compress; the content does not depend on them.
        force: Build even if it is there.
        compression: How samples are packed; the content does not depend on it.
        made_by: The command that builds it, kept as information and named when the cache turns out damaged.
        progress: Told how many samples are framed, of how many; never, where nothing is built.

    Attributes:
        built: Whether :meth:`finish` built the cache; if not, it was there.

    Example:
        with CacheBuilder(framing, cache_dir) as builder:
            cache = builder.finish(open_raw(framing, RawSource(root), visit=builder.visitor))
    """

    def __init__(
        self,
        framing: Framing,
        cache_dir: Path,
        *,
        workers: int = 1,
        force: bool = False,
        compression: Compression = "zstd",
        made_by: str = "",
        progress: Progress = lambda done, total: None,
    ) -> None:
        self.framing, self.cache_dir = framing, cache_dir
        self.T = framing.T  # with slices of a fixed duration known when the longest sample is
        self.workers, self.force, self.compression = workers, force, compression
        self.made_by, self.progress = made_by, progress
        self.recipe = raw_independent_key(framing)
        self.places = BuildPlaces.of(cache_dir, self.recipe)
        self._held = ExitStack()
        self._locked = False
        self._journal: Journal | None = None
        self._writing = threading.Lock()  # of the journal
        self._overflow: CountOverflow | None = None  # a count went over what the journal's type holds
        self._local = threading.local()
        self.built = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close(keep=error is not None)
        finally:
            self._held.close()

    def visitor(self) -> Visit | None:
        """Returns what frames a sample while raw data are surveyed; None where there is likely nothing to build."""
        if self.framing.frames is None or self.T is None or self._likely_there():
            return None
        self._lock()
        if self._likely_there():
            return None  # who had the lock built it
        self._open()
        return self._visited

    def _likely_there(self) -> bool:
        return not self.force and any(self.places.folder.glob(f"{readable(self.recipe)}-*.h5"))

    def finish(self, raw: EventDataset | ImageDataset) -> Cache:
        """Returns the cache of ``raw``, built unless it is there.

        Raises:
            DamagedFileError: A recording cannot be decoded.
            RawDataError: The raw data changed meanwhile.
            MachineError: The disk is full or the folder refused.
        """
        key = key_of(raw)
        path = key.path(self.cache_dir)
        there = None if self.force else cached(key, self.cache_dir, made_by=self.made_by)
        if there is not None:
            self._tidy(path)
            return there  # also where nothing may be written
        with files.machine_errors(path):
            self._lock()
            there = None if self.force else cached(key, self.cache_dir, made_by=self.made_by)
            if there is not None:
                return there  # another process built it meanwhile
            for stale in path.parent.glob(f".{path.name}.*.partial"):
                stale.unlink(missing_ok=True)  # of a killed build: whoever holds the lock is alone
            if self.T is None and isinstance(raw, EventDataset):
                self.T = self._longest(raw)
            self._open()
            try:
                self._fill(raw)
            except CountOverflow as overflow:
                _log.info("%s: frames need 16 bits, starting again", overflow)
                self._close(keep=False)
                self._open(np.uint16)
                try:
                    self._fill(raw)
                except CountOverflow as error:
                    raise RawDataError(
                        f"{raw.root}: {error}, more than 16 bits hold", hint="use more time steps"
                    ) from error
            self._write(raw, key, path)
            self.built = True
        self.places.journal(np.uint16).unlink(missing_ok=True)  # of a build of other raw data that needed it
        return Cache(path)

    def _tidy(self, path: Path) -> None:
        """Removes what a build left that was killed when its cache was there, but not its journal gone."""
        left = [self.places.journal(dtype) for dtype in (np.uint8, np.uint16)]
        written = path.stat().st_mtime_ns
        stale = [file for file in left if file.exists() and file.stat().st_mtime_ns <= written]
        stale += path.parent.glob(f".{path.name}.*.partial")
        if stale:
            with suppress(filelock.Timeout, OSError), build_lock(self.places, wait=False):
                for file in stale:
                    file.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------ the journal

    def _lock(self) -> None:
        """Takes the lock, unless that is done."""
        if not self._locked:
            with files.machine_errors(self.places.folder):
                files.make_dir(self.places.folder)
                self._held.enter_context(build_lock(self.places))
            self._locked = True
            self._held.enter_context(ThreadPoolExecutor(1)).submit(load_loops)

    def _open(self, dtype: type[np.unsignedinteger] = np.uint8) -> None:
        """Opens the journal, unless that is done."""
        if self._journal is not None:
            return
        # T is more than the recipe says where slices have a fixed duration: what is kept must have as many frames
        raised = raised_versions(layout_formats(self.framing.dataset.layout))
        made = {**self.recipe, "T": self.T, "compression": self.compression, **({"decoders": raised} if raised else {})}
        with files.machine_errors(self.places.folder):
            self._journal = Journal(self.places.journal(dtype), canonical_json(made))
        self.dtype, self._overflow = dtype, None

    def _close(self, *, keep: bool) -> None:
        if self._journal is not None:
            self._journal.close(keep=keep and bool(self._journal.sources))
            self._journal = None

    def _add(self, records: list[Record]) -> None:
        assert self._journal is not None
        with self._writing, files.machine_errors(self.places.folder):
            self._journal.append(records)

    # ------------------------------------------------------------------------------------------ framing

    def _visited(self, sample: Sample, source: bytes, load: Callable[[], tuple[Events, int]]) -> None:
        assert self._journal is not None
        if self._overflow is not None or self._journal.sources.get(sample.id) == source:
            return
        events, n_raw = load()
        try:
            self._add([self._framed(sample, source, events, n_raw)])
        except CountOverflow as overflow:
            self._overflow = overflow  # finish does it all again

    def _fill(self, raw: EventDataset | ImageDataset) -> None:
        """Frames what the journal lacks.

        Raises:
            CountOverflow: A count does not fit the journal's type.
        """
        assert self._journal is not None
        if self._overflow is not None:
            raise self._overflow
        n = len(raw.samples)
        done = frozenset(row for row in range(n) if self._journal.sources.get(raw.samples[row].id) == raw.source(row))
        if 0 < len(done) < n:
            _log.info("going on: %d of %d samples were framed before", len(done), n)
        count = len(done)
        self.progress(count, n)
        for records in self._missing(raw, done) if count < n else ():
            self._add(records)
            count += len(records)
            self.progress(count, n)
        if count != n:
            raise RawDataError(
                f"{raw.root}: {count} samples read, {n} were found before", hint="did the files change meanwhile?"
            )

    def _missing(self, raw: EventDataset | ImageDataset, done: frozenset[int]) -> Iterator[list[Record]]:
        """The records of all samples that are not ``done``."""
        if isinstance(raw, EventDataset):
            lacking = (recording for recording in raw.recordings() if not done.issuperset(recording.rows))
            yield from ordered_map(partial(self._of_recording, raw, done), lacking, self.workers)
            return
        images, _ = raw.images()
        edges = [*range(0, len(images), 256), len(images)]
        blocks = (_Rows(start, stop, images[start:stop].nbytes) for start, stop in pairwise(edges))

        def records(block: _Rows) -> list[Record]:
            rows = (row for row in range(block.start, block.stop) if row not in done)
            return [
                self._record(raw.samples[row].id, raw.source(row), np.ascontiguousarray(images[row])) for row in rows
            ]

        yield from ordered_map(records, blocks, self.workers)

    def _of_recording(self, raw: EventDataset, done: frozenset[int], recording: RecordingFile) -> list[Record]:
        return [
            self._framed(raw.samples[row], raw.source(row), events, n_raw)
            for row, events, n_raw in raw.decode(recording.name, recording.load())
            if row not in done
        ]

    def _framed(self, sample: Sample, source: bytes, read: Events, n_raw: int) -> Record:
        events = select_events(self.framing, read, sample.id)
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or buffer.dtype != self.dtype:
            buffer = self._local.buffer = np.empty((self.T, *self.framing.shape), self.dtype)
        count_frames(self.framing, events, self.T, dtype=self.dtype, out=buffer, where=sample.id)
        return self._record(sample.id, source, buffer, events["t"], n_raw)

    def _record(
        self, name: str, source: bytes, content: np.ndarray, t: np.ndarray | None = None, n_raw: int = 0
    ) -> Record:
        n_events = duration = used = 0
        if t is not None:
            n_events, used = len(t), self.T or 0
            duration = int(t[-1] - t[0]) if len(t) else 0
            if self.framing.frames is not None and self.framing.frames.duration_us is not None:
                used = slices_of_duration(t, self.framing.frames.duration_us)
        digest = hashlib.sha256(content.data).digest()
        return Record(name, source, n_raw, n_events, used, duration, digest, encode(content, self.compression))

    def _longest(self, raw: EventDataset) -> int:
        """The number of slices that hold the longest sample."""
        assert self.framing.frames is not None
        duration_us = self.framing.frames.duration_us
        assert duration_us is not None

        def slices(recording: RecordingFile) -> list[tuple[int, int]]:
            samples = raw.decode(recording.name, recording.load())
            return [
                (slices_of_duration(select_events(self.framing, events, raw.samples[row].id)["t"], duration_us), row)
                for row, events, _ in samples
            ]

        _log.info("looking for the longest of %d samples", len(raw.samples))
        longest, row = max(max(found) for found in ordered_map(slices, raw.recordings(), self.workers))
        if longest > MAX_T:
            raise RawDataError(
                f"{raw.samples[row].id}: {longest} slices of {duration_us} µs, more than {MAX_T}",
                hint="choose a longer frames.duration_us",
            )
        return longest

    # ------------------------------------------------------------------------------------------ the file

    def _write(self, raw: EventDataset | ImageDataset, key: CacheKey, path: Path) -> None:
        journal = self._journal
        assert journal is not None
        shape = (self.T, *self.framing.shape) if self.T is not None else self.framing.shape

        def placed() -> Iterator[tuple[int, Record]]:
            for record in journal.records():
                row = raw.rows.get(record.name)
                if row is not None and record.source == raw.source(row):  # not of what the files held before
                    yield row, record

        write_cache(
            path,
            key,
            raw.samples,
            (len(raw.samples), *shape),
            np.dtype(self.dtype),
            placed(),
            room=journal.nbytes,
            compression=self.compression,
            attributes={
                "verified": raw.verified,
                "complete_set": raw.complete,
                "notes": json.dumps(raw.notes),
                "formats": json.dumps(raw.formats_read()),
                "made_by": self.made_by,
            },
        )


def load_loops() -> None:
    """Loads the compiled loops, while the first files are read."""
    from plifctl.cache.fletcher32 import fletcher32
    from plifctl.data.loops import load

    load()
    fletcher32(np.empty(0, np.uint8))


@dataclass(frozen=True)
class _Rows:
    """Some rows of images, as an item of work."""

    start: int
    stop: int
    nbytes: int


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
        different = said(differences(key.fields, cache.key.fields))
        raise CorruptCacheError(f"{path}: was renamed, it is another cache: {different}", hint=cache.repair())
    return cache


def expected_bytes(raw: EventDataset | ImageDataset) -> int:
    """Returns the size of a cache before compression, bytes, if no count needs 16 bits; without T that of one frame."""
    return len(raw.samples) * (raw.framing.T or 1) * int(np.prod(raw.framing.shape))


@dataclass(frozen=True)
class BuildPlaces:
    """Where the builds of one recipe, whatever their raw data, keep what is no cache yet.

    Attributes:
        folder: Of the caches.
        name: Of the recipe.
    """

    folder: Path
    name: str

    @classmethod
    def of(cls, cache_dir: Path, recipe: dict[str, object]) -> BuildPlaces:
        """Returns those of a :func:`raw_independent_key`."""
        return cls(cache_dir / str(recipe["dataset"]), f"{readable(recipe)}-{digest_of(recipe)[:12]}")

    @property
    def lock(self) -> Path:
        """Held by whoever builds, or removes."""
        return self.folder / f".{self.name}.lock"

    def journal(self, dtype: type[np.unsignedinteger]) -> Path:
        """What was framed so far, as numbers of that type."""
        return self.folder / f".{self.name}-{np.dtype(dtype).name}.journal"


@contextmanager
def build_lock(places: BuildPlaces, *, wait: bool = True) -> Iterator[None]:
    """Keeps others from building, or removing, caches of one recipe meanwhile.

    Raises:
        filelock.Timeout: Somebody else has the lock, and ``wait`` is false.
    """
    lock = filelock.FileLock(places.lock)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            raise
        _log.warning("another process builds this cache; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
