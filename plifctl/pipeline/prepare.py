"""From raw recordings to a cache; implements ``plifctl prepare`` and ``train --prepare``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import get_args

from plifctl import cache as caches
from plifctl import paths
from plifctl.cache import Cache, CacheBuilder, CacheKey
from plifctl.config.choices import Compression, Recipe
from plifctl.config.dataset import MAX_T, Framing
from plifctl.config.lookup import load_framing, load_registry
from plifctl.config.registry import Registry
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset, ImageDataset, SampleHandler
from plifctl.data.source import RawSource
from plifctl.errors import MissingRawDataError, RegistryError, UsageError, check_choice
from plifctl.pipeline.commands import prepare_command
from plifctl.pipeline.current_cache import find_current_cache
from plifctl.pipeline.download import DownloadPlan, download_missing, plan_download
from plifctl.pipeline.progress import Progress, silent

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareOptions:
    """The options of ``plifctl prepare``.

    Attributes:
        dataset: Name of a data set or an experiment in the registry, or a YAML file of one.
        T: Number of frames of each sample; event data sets need it, unless slices have a fixed duration, or an
            experiment is named, whose T is used.
        recipe: Which choices of framing: the paper's text or the authors' code; None: of the file, or the paper's.
        overrides: Changes to them, texts ``frames.key=value``.
        source: Where the raw files are, and how to read them.
        force: Build the cache even if it exists.
        compression: Compression of the samples.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
    """

    dataset: str | Path
    T: int | None = None
    recipe: Recipe | None = None
    overrides: tuple[str, ...] = ()
    source: RawSource = field(default_factory=RawSource)
    force: bool = False
    compression: Compression = "zstd"
    cache_dir: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """A cache ready to use; ``built`` is whether this call built it."""

    cache: Cache
    built: bool


@dataclass(frozen=True)
class PreparePlan:
    """Plan of :func:`prepare`.

    Attributes:
        framing: The data set, and how it is framed.
        download: The files to download first; None if none is missing. Until they are there, nothing else is known.
        hit: Whether the cache exists.
        key: Key of the cache.
        path: Where it is, or would be.
        nearest: The existing cache that comes closest, and where it differs; empty on a hit or with force.
        samples: Number of samples.
        nbytes: Size before compression; with slices of a fixed duration, of one frame.
        verified: Every raw file has its published checksum.
        complete: The numbers of samples are the official ones.
    """

    framing: Framing
    download: DownloadPlan | None = None
    hit: bool = False
    key: CacheKey | None = None
    path: Path | None = None
    nearest: str = ""
    samples: int = 0
    nbytes: int = 0
    verified: bool = False
    complete: bool = False


def prepare(options: PrepareOptions, progress: Progress = silent) -> Prepared:
    """Returns the cache of a data set, built unless it exists.

    Raises:
        UsageError: Unknown data set, or T is missing or impossible.
        RawDataError: The raw files are missing, damaged, or differ from the published ones.
        MachineError: The disk is full, or a folder cannot be written.
    """
    registry = load_registry()
    framing = resolve_framing(options, registry)
    return build_cache(
        framing,
        _source(options),
        command=_command(options, framing),
        force=options.force,
        compression=options.compression,
        progress=progress,
    )


def plan_prepare(options: PrepareOptions, progress: Progress = silent) -> PreparePlan:
    """Returns what :func:`prepare` would do; reads the raw data, writes nothing.

    Raises:
        UsageError: As :func:`prepare`.
        RawDataError: As :func:`prepare`; missing files only where they cannot or must not be downloaded.
    """
    framing, source = resolve_framing(options, load_registry()), _source(options, remember=False)
    folder, command = options.cache_dir or paths.cache_dir(), _command(options, framing)
    try:
        raw = open_raw_reported(framing, source, progress)
    except MissingRawDataError as missing:
        return PreparePlan(framing, download=_plan_missing(framing, source, command, missing))
    for note in raw.notes:
        _log.warning(note)
    key = caches.key_of(raw)
    found = None if options.force else caches.open_cache(key, folder, made_by=command)
    hit = found is not None
    _log_notes_on_content(found, raw)
    return PreparePlan(
        framing,
        hit=hit,
        key=key,
        path=key.path(folder),
        nearest="" if hit or options.force else caches.describe_nearest(key.fields, folder),
        samples=len(raw.samples),
        nbytes=caches.expected_bytes(raw),
        verified=raw.verified,
        complete=raw.complete,
    )


def find_prepared(options: PrepareOptions, *, choose_T: bool = False) -> tuple[Framing, Cache]:
    """Returns the framing and the cache of :func:`prepare`, if it exists; builds nothing.

    Args:
        options: The data set; of the source, nothing is read.
        choose_T: Take the smallest T that experiments use, if T is missing.

    Raises:
        UsageError: As :func:`prepare`.
        CacheError: There is no such cache; the hint has the command that builds it.
    """
    framing = resolve_framing(options, load_registry(), choose_T=choose_T)
    folder, command = options.cache_dir or paths.cache_dir(), _command(options, framing)
    return framing, find_current_cache(framing, folder, prepare=command)


def resolve_framing(options: PrepareOptions, registry: Registry, *, choose_T: bool = False) -> Framing:
    """Returns the data set with its framing, T checked against what it needs.

    Args:
        options: The data set.
        registry: Registry in which it is looked up.
        choose_T: Take the smallest T that experiments use, if T is missing.

    Raises:
        UsageError: Unknown data set or key; T is missing, out of range, or given with slices of a fixed duration.
        RegistryError: The data set's file is invalid.
    """
    framing = load_framing(options.dataset, options.overrides, recipe=options.recipe, registry=registry)
    T = options.T if options.T is not None else framing.T
    title = framing.dataset.title
    if framing.needs_T and T is None and choose_T:
        T = usual_time_steps(framing.dataset.name, registry)
    if framing.frames is None and T is not None:
        _log.info("%s is cached once for all T: images are shown for T steps (of the experiment) in training", title)
    elif not framing.needs_T and T is not None:
        raise UsageError(
            "--T: with slices of a fixed duration, the longest sample determines the number of frames",
            hint="omit --T\nor frame the first T slices of each sample: --set frames.slicing=duration-first",
        )
    elif framing.needs_T and T is None:
        raise UsageError(
            f"{title}: event data sets need --T (number of frames)",
            hint=_command(options, framing.with_T(usual_time_steps(framing.dataset.name, registry))),
        )
    if T is not None and not (isinstance(T, Integral) and not isinstance(T, bool) and 1 <= T <= MAX_T):
        raise UsageError(f"--T {T!r}: expected a whole number from 1 to {MAX_T}")
    return framing.with_T(int(T) if T is not None else None)


def usual_time_steps(dataset: str, registry: Registry) -> int:
    """Returns the smallest T that the registry's experiments on an event data set use; 10 if there are none."""
    used = []
    for name in registry.experiments():
        with suppress(RegistryError):  # an invalid experiment is reported when it is used
            spec = registry.experiment(name).spec
            used += [spec.T] if spec.dataset.name == dataset else []
    return min(used, default=10)


def build_cache(
    framing: Framing,
    source: RawSource,
    *,
    command: str,
    force: bool = False,
    compression: Compression = "zstd",
    progress: Progress = silent,
) -> Prepared:
    """Returns a cache, built unless it exists; downloads missing files, logs warnings about the data.

    Args:
        framing: The data set, and how it is framed.
        source: The raw files; its cache_dir is the directory of the cache.
        command: The command that builds the cache, stored in it and named in hints.
        force: Build even if it exists.
        compression: Compression of the samples.
        progress: Opens the tasks of reading, downloading and framing.

    Raises:
        MissingRawDataError: Missing files cannot or must not be downloaded; the hint describes how to get them.
    """
    check_choice("compression", compression, get_args(Compression))
    with CacheBuilder(
        framing,
        source.cache_dir or paths.cache_dir(),
        workers=source.workers,
        force=force,
        compression=compression,
        made_by=command,
        progress=lambda done, total: task.update(done, total),
    ) as builder:
        raw = _open_or_download(framing, source, command, progress, builder.make_sample_handler)
        for note in raw.notes:
            _log.warning(note)
        with progress(f"framing {framing.dataset.title}", "samples") as task:
            cache = builder.finish(raw)
        _log_notes_on_content(cache, raw)
    return Prepared(cache, builder.built)


def _log_notes_on_content(cache: Cache | None, raw: EventDataset | ImageDataset) -> None:
    """Logs the notes of a cache that only decoding shows; the others have been logged."""
    for note in cache.notes if cache is not None else ():
        if note not in raw.notes:
            _log.warning(note)


def open_raw_reported(
    framing: Framing,
    source: RawSource,
    progress: Progress,
    make_handler: Callable[[], SampleHandler | None] = lambda: None,
) -> EventDataset | ImageDataset:
    """Opens raw data as :func:`~plifctl.data.datasets.open_raw`, reporting the megabytes read."""
    with progress(f"reading {framing.dataset.title}", "MB") as task:

        def report(done: int, total: int) -> None:
            task.update(done // 10**6, max(1, total // 10**6))

        return open_raw(framing, source, progress=report, make_handler=make_handler)


def _open_or_download(
    framing: Framing,
    source: RawSource,
    command: str,
    progress: Progress,
    make_handler: Callable[[], SampleHandler | None],
) -> EventDataset | ImageDataset:
    try:
        return open_raw_reported(framing, source, progress, make_handler)
    except MissingRawDataError as missing:
        plan = _plan_missing(framing, source, command, missing)
    download_missing(plan, progress)
    return open_raw_reported(framing, source, progress, make_handler)


def _plan_missing(framing: Framing, source: RawSource, command: str, missing: MissingRawDataError) -> DownloadPlan:
    """Returns the download of missing files.

    Raises:
        MissingRawDataError: They cannot or must not be downloaded; the hint describes how to get them.
    """
    plan = plan_download(framing.dataset, missing, source)
    if not (source.download and plan.possible):
        missing.hint = plan.instructions(command) or missing.hint
        raise missing
    return plan


def _source(options: PrepareOptions, *, remember: bool = True) -> RawSource:
    return replace(options.source, cache_dir=options.cache_dir or paths.cache_dir(), remember=remember)


def _command(options: PrepareOptions, framing: Framing) -> str:
    return prepare_command(
        framing,
        name=str(options.dataset),
        recipe=options.recipe,
        overrides=options.overrides,
        source=options.source,
        cache_dir=options.cache_dir,
    )
