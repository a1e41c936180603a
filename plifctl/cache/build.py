"""Builds a cache from raw data: frames samples in threads, keeps them in a journal, writes one file."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
import numpy as np

from plifctl import files
from plifctl.cache.catalogue import open_cache
from plifctl.cache.file import MAX_SAMPLE_BYTES, Block, Cache, CacheHeader, checksum_path, row_blocks, write_cache
from plifctl.cache.framing import SampleFramer, slices_of_longest_sample, warm_up
from plifctl.cache.journal import Journal, Record
from plifctl.cache.key import CacheKey, framing_label, key_of, raw_independent_key
from plifctl.cache.locks import BuildPaths
from plifctl.config.base import canonical_json
from plifctl.config.choices import Compression
from plifctl.config.dataset import Framing
from plifctl.data.datasets import layout_formats
from plifctl.data.datasets.base import (
    EventCounts,
    EventDataset,
    ImageDataset,
    Progress,
    RecordingFile,
    Sample,
    SampleHandler,
)
from plifctl.data.events import Decoded
from plifctl.data.formats.detect import raised_versions
from plifctl.data.formats.variants import VARIANTS
from plifctl.data.frames import CountOverflow
from plifctl.data.remarks import describe_remarks
from plifctl.data.thread_map import ordered_map
from plifctl.errors import RawDataError
from plifctl.units import format_bytes

_BLOCK_BYTES = 2**18  # images packed at a time

_log = logging.getLogger(__name__)


class CacheBuilder:
    """One build of one cache, as a context manager. While it holds the lock no other process builds with this framing.

    If no cache with the framing exists, samples are framed while the raw data are surveyed
    (:meth:`make_sample_handler`); :meth:`finish` frames the others. A build that was interrupted is resumed.

    Args:
        framing: The data set, and how it is framed.
        cache_dir: Cache directory.
        workers: Threads that decode, frame and compress; the content does not depend on them.
        force: Build even if the cache exists.
        compression: Compression of the samples; the content does not depend on it.
        made_by: The command that builds the cache, stored in it and named in errors if the file is damaged.
        progress: Called with the number of framed samples, and of all samples; not called if nothing is built.

    Attributes:
        built: Whether :meth:`finish` built the cache; False if it existed.

    Example:
        with CacheBuilder(framing, cache_dir) as builder:
            raw = open_raw(framing, RawSource(root), make_handler=builder.make_sample_handler)
            cache = builder.finish(raw)
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
        self.T = framing.T  # with slices of a fixed duration it is known when the longest sample is
        self.workers, self.force, self.compression = workers, force, compression
        self.made_by, self.progress = made_by, progress
        self.wanted = raw_independent_key(framing)
        self.paths = BuildPaths.of(cache_dir, self.wanted)
        self.built = False
        self._resources = ExitStack()
        self._locked = False
        self._journal: Journal | None = None
        self._append_lock = threading.Lock()
        self._overflow: CountOverflow | None = None  # a count that did not fit the journal's type

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close_journal(keep=error is not None)
        finally:
            self._resources.close()

    def make_sample_handler(self) -> SampleHandler | None:
        """Returns a function that frames samples while raw data are surveyed; None if the cache seems to exist."""
        if self.framing.frames is None or self.T is None or self._seems_built():
            return None
        self._lock()
        if self._seems_built():
            return None  # built by the process that had the lock
        self._open_journal()
        return self._frame_surveyed

    def _seems_built(self) -> bool:
        return not self.force and any(self.paths.folder.glob(f"{framing_label(self.wanted)}-*.h5"))

    def finish(self, raw: EventDataset | ImageDataset) -> Cache:
        """Returns the cache of ``raw``, built unless it exists.

        Raises:
            DamagedFileError: A recording cannot be decoded.
            RawDataError: The raw data have changed since they were surveyed, or a set of samples has no events.
            MachineError: The disk is full, or the folder cannot be written.
        """
        key = key_of(raw)
        path = key.path(self.cache_dir)
        cache = self._existing(key)
        if cache is not None:
            self._remove_leftovers(path)
            return cache  # before the lock: the folder may be read-only
        with files.machine_errors(path):
            self._lock()
            cache = self._existing(key)
            if cache is not None:
                return cache  # another process has built it
            for stale in _temporary_files(path):
                stale.unlink(missing_ok=True)  # left by a killed build: this process has the lock
            if self.T is None and isinstance(raw, EventDataset):
                self.T = slices_of_longest_sample(raw, self.workers)
            self._frame_all(raw)
            self._write(raw, key, path)
            self.built = True
        self.paths.journal(np.uint16).unlink(missing_ok=True)  # of a build from other raw data that needed 16 bits
        return Cache(path)

    def _existing(self, key: CacheKey) -> Cache | None:
        return None if self.force else open_cache(key, self.cache_dir, made_by=self.made_by)

    def _remove_leftovers(self, path: Path) -> None:
        """Removes the files of a build that was killed between writing the cache and removing its journal."""
        journals = [self.paths.journal(dtype) for dtype in (np.uint8, np.uint16)]
        written = path.stat().st_mtime_ns
        stale = [file for file in journals if file.exists() and file.stat().st_mtime_ns <= written]
        stale += _temporary_files(path)
        if stale:
            with suppress(filelock.Timeout, OSError), filelock.FileLock(self.paths.lock).acquire(timeout=0):
                for file in stale:
                    file.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------- the lock and the journal

    def _lock(self) -> None:
        if not self._locked:
            waiting = "another process builds this cache; waiting for it"
            self._resources.enter_context(files.waiting_lock(self.paths.lock, waiting))
            self._locked = True
            self._resources.enter_context(ThreadPoolExecutor(1)).submit(warm_up)

    def _open_journal(self, dtype: type[np.unsignedinteger] = np.uint8) -> None:
        """Opens the journal of samples with counts of type ``dtype``, unless one is open."""
        if self._journal is not None:
            return
        self._check_size(np.dtype(dtype))
        # which decoders read the files is known when they were read: kept samples are of today's versions of all
        formats = layout_formats(self.framing.dataset.layout)
        variants = [name for name in VARIANTS if name.startswith(tuple(formats))]
        raised = raised_versions([*formats, *variants])
        decoders = {"decoders": raised} if raised else {}
        # T is not in the raw-independent key of slices of a fixed duration, but kept samples must have as many frames
        identity = {**self.wanted, "T": self.T, "compression": self.compression, **decoders}
        with files.machine_errors(self.paths.folder):
            self._journal = Journal(self.paths.journal(dtype), canonical_json(identity))
        self._framer = SampleFramer(self.framing, self.T, dtype, self.compression)
        self._overflow = None

    def _check_size(self, dtype: np.dtype[Any]) -> None:
        """Raises RawDataError for samples that are too large for a cache, before any is framed."""
        shape = (*(() if self.T is None else (self.T,)), *self.framing.shape)
        if (nbytes := math.prod(shape) * dtype.itemsize) > MAX_SAMPLE_BYTES:
            raise RawDataError(
                f"{self.framing.dataset.title}: a sample of {'×'.join(map(str, shape))} {dtype} takes "
                f"{format_bytes(nbytes)}, expected at most {format_bytes(MAX_SAMPLE_BYTES)}",
                hint="fewer time steps (--T), longer slices (frames.duration_us), or smaller frames "
                "(frames.transforms: downsample or crop)",
            )

    def _close_journal(self, *, keep: bool) -> None:
        if self._journal is not None:
            self._journal.close(keep=keep and bool(self._journal.source_digests))
            self._journal = None

    def _append(self, records: list[Record]) -> None:
        assert self._journal is not None
        with self._append_lock, files.machine_errors(self.paths.folder):
            self._journal.append(records)

    # ------------------------------------------------------------------------------------------------------ framing

    def _frame_surveyed(self, sample: Sample, source_digest: bytes, load: Callable[[], Decoded]) -> None:
        assert self._journal is not None
        if self._overflow is not None or self._journal.source_digests.get(sample.id) == source_digest:
            return
        events, dropped, remarks = load()
        try:
            self._append([self._framer.frame(sample.id, source_digest, events, len(events) + dropped, remarks)])
        except CountOverflow as overflow:
            self._overflow = overflow  # finish frames everything again

    def _frame_all(self, raw: EventDataset | ImageDataset) -> None:
        """Frames all samples with 8 bits, or if a count needs them with 16 bits."""
        self._open_journal()
        try:
            self._frame_missing(raw)
        except CountOverflow as overflow:
            _log.info("%s: frames need 16 bits, starting again", overflow)
            self._close_journal(keep=False)
            self._open_journal(np.uint16)
            try:
                self._frame_missing(raw)
            except CountOverflow as error:
                raise RawDataError(
                    f"{raw.root}: {error}, expected at most 65535", hint="use more time steps"
                ) from error

    def _frame_missing(self, raw: EventDataset | ImageDataset) -> None:
        """Frames the samples that are not in the journal.

        Raises:
            CountOverflow: A count does not fit the journal's type.
        """
        assert self._journal is not None
        if self._overflow is not None:
            raise self._overflow
        n, kept = len(raw.samples), self._journal.source_digests
        done = frozenset(row for row in range(n) if kept.get(raw.samples[row].id) == raw.source_digest(row))
        if 0 < len(done) < n:
            _log.info("resuming: %d of %d samples were framed before", len(done), n)
        count = len(done)
        self.progress(count, n)
        for records in self._frame_records(raw, done) if count < n else ():
            self._append(records)
            count += len(records)
            self.progress(count, n)
        if count != n:
            raise RawDataError(
                f"{raw.root}: read {count} samples, expected {n}",
                hint="make sure that no other program changes the files, then type the same command again",
            )

    def _frame_records(self, raw: EventDataset | ImageDataset, done: frozenset[int]) -> Iterator[list[Record]]:
        """Yields the records of all samples that are not ``done``."""
        if isinstance(raw, EventDataset):
            recordings = (recording for recording in raw.recordings() if not done.issuperset(recording.rows))
            yield from ordered_map(partial(self._frame_recording, raw, done), recordings, self.workers)
            return
        images = raw.images()

        def pack(block: Block) -> list[Record]:
            return [
                self._framer.pack_image(raw.samples[row].id, raw.source_digest(row), image)
                for row, image in enumerate(block.samples, block.rows.start)
                if row not in done
            ]

        blocks = (Block(rows, images[rows]) for rows in row_blocks(images, _BLOCK_BYTES))
        yield from ordered_map(pack, blocks, self.workers)

    def _frame_recording(self, raw: EventDataset, done: frozenset[int], recording: RecordingFile) -> list[Record]:
        return [
            self._framer.frame(raw.samples[row].id, raw.source_digest(row), events, n_raw, remarks)
            for row, events, n_raw, remarks in raw.decode(recording.name, recording.load())
            if row not in done
        ]

    # ----------------------------------------------------------------------------------------------------- the file

    def _notes_on_content(self, raw: EventDataset | ImageDataset, journal: Journal) -> list[str]:
        """Returns the warnings about the data that only decoding shows.

        Raises:
            RawDataError: The training set or the test set has no events at all.
        """
        if not isinstance(raw, EventDataset):
            return []
        counts = np.array([journal.counts[sample.id] for sample in raw.samples], np.int64)
        remarks = ((sample.id, remark) for sample in raw.samples for remark in journal.remarks[sample.id])
        return [*describe_remarks(remarks), *raw.notes_on_events(EventCounts(*counts.T))]

    def _write(self, raw: EventDataset | ImageDataset, key: CacheKey, path: Path) -> None:
        journal = self._journal
        assert journal is not None
        shape = (self.T, *self.framing.shape) if self.T is not None else self.framing.shape

        def rows_and_records() -> Iterator[tuple[int, Record]]:
            for record in journal.records():
                row = raw.rows.get(record.name)
                # a journal may also contain records of earlier contents of the files
                if row is not None and record.source_digest == raw.source_digest(row):
                    yield row, record

        header = CacheHeader(
            key=key,
            samples=raw.samples,
            shape=(len(raw.samples), *shape),
            dtype=np.dtype(self._framer.dtype),
            compression=self.compression,
            verified=raw.verified,
            complete_set=raw.complete,
            notes=[*raw.notes, *self._notes_on_content(raw, journal)],
            formats=raw.formats_read(),
            made_by=self.made_by,
        )
        write_cache(path, header, rows_and_records(), reserve_bytes=journal.nbytes)


def expected_bytes(raw: EventDataset | ImageDataset) -> int:
    """Returns the size of a cache before compression, bytes, if no count needs 16 bits; without T that of one frame."""
    return len(raw.samples) * (raw.framing.T or 1) * int(np.prod(raw.framing.shape))


def _temporary_files(path: Path) -> list[Path]:
    """Returns the temporary files that killed builds of a cache left behind, those of its checksum file too."""
    names = (path.name, checksum_path(path).name)
    return [file for file in path.parent.glob(f".{path.name}.*.partial") if files.temporary_of(file) in names]
