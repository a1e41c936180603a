"""The cache that an experiment is trained and tested on: found, built on request, checked."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from plifctl import paths
from plifctl.cache import Cache, content_digests
from plifctl.config.experiment import ExperimentSpec
from plifctl.data.source import RawSource
from plifctl.errors import CacheError, CorruptCacheError, UsageError
from plifctl.pipeline.commands import prepare_command_of
from plifctl.pipeline.current_cache import find_current_cache
from plifctl.pipeline.prepare import build_cache
from plifctl.pipeline.progress import Progress, silent
from plifctl.runs import Run

_log = logging.getLogger(__name__)


def experiment_cache(
    spec: ExperimentSpec,
    cache_dir: Path | None = None,
    *,
    file: Path | None = None,
    content: str | None = None,
    run: Run | None = None,
    build_from: RawSource | None = None,
    progress: Progress = silent,
) -> Cache:
    """Returns the cache of an experiment; logs warnings about its data.

    Args:
        spec: The experiment.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
        file: The file of the experiment that the user named, for hints.
        content: Content digest of the preferred cache, from an earlier run; another content gives a warning.
        run: An earlier run: its own cache is used, where it is, if the cache directory has none, or is the usual
            one and has none of that content.
        build_from: Raw data to build the cache from if it is missing, or of other recordings; None: do not build.
        progress: Opens the tasks of building.

    Raises:
        CacheError: There is no such cache, and building was not requested; the hint has the command that builds it.
        UsageError: Its samples have another number of frames than the experiment has time steps.
    """
    folder = cache_dir or paths.cache_dir()
    own = None if run is None else run.cache_dir
    if own is not None and own.resolve() == folder.resolve():
        own = None
    if cache_dir is None and own is not None and _is_only_in(own, folder, spec, content):
        return _cache_of_run(spec, own, file, content)
    command = prepare_command_of(spec, file=file, source=build_from, cache_dir=cache_dir)
    notes: tuple[str, ...] = ()
    try:
        cache = find_current_cache(spec.framing, folder, prepare=command, content=content, build_from=build_from)
        notes = cache.notes  # of a cache that is built here, build_cache logs them
    except CorruptCacheError:
        raise
    except CacheError:
        if own is not None:
            with suppress(CacheError):
                return _cache_of_run(spec, own, file, content)
        if build_from is None:
            raise
        source = replace(build_from, cache_dir=folder)
        cache = build_cache(spec.framing, source, command=command, progress=progress).cache
    if spec.frames is not None and cache.shape[1] != spec.T:
        # with slices of a fixed duration the longest recording determines the number of frames, not T
        raise UsageError(
            f"{cache.path}: its samples have {cache.shape[1]} frames, the experiment has T = {spec.T}",
            hint=f"train with --set T={cache.shape[1]}",
        )
    if content is not None and cache.content_digest != content:
        _log.warning(
            "trained on a cache of content %s; this one has content %s", content[:12], cache.content_digest[:12]
        )
    for note in notes:
        _log.warning(note)
    return cache


def _is_only_in(own: Path, folder: Path, spec: ExperimentSpec, content: str | None) -> bool:
    """Returns whether the cache of a content is in a run's own cache directory, and not in the usual one."""
    has = [content in content_digests(spec.dataset.name, place) for place in (own, folder)]
    return has == [True, False]


def _cache_of_run(spec: ExperimentSpec, own: Path, file: Path | None, content: str | None) -> Cache:
    """Returns the cache in the cache directory that a run was trained with, and says so."""
    found = experiment_cache(spec, own, file=file, content=content)
    _log.info("using the cache that the run was trained on: %s", found.path)
    return found
