"""The cache of a data set as its recordings are now.

A cache is found by everything but its raw data, which may lie on another machine. A user's own recordings change: a
label is corrected, a recording is added, another folder has a data set of the same name. Where they can be seen, the
files that changed are noticed by their sizes and times; nothing is read.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from plifctl.cache import Cache, find_cache, raw_independent_key
from plifctl.config.dataset import Framing
from plifctl.data.datasets import named_place, open_raw
from plifctl.data.source import RawSource
from plifctl.errors import CacheError, MachineError, MissingRawDataError, RawDataError

_log = logging.getLogger(__name__)

_UNREAD = ""  # no digest: the recordings would have to be read


def find_current_cache(
    framing: Framing, cache_dir: Path, *, prepare: str, content: str | None = None, build_from: RawSource | None = None
) -> Cache:
    """Returns the cache of a data set; logs a warning if it is not known to be of the recordings where they are named.

    Args:
        framing: The data set, and how it is framed.
        cache_dir: Cache directory.
        prepare: The command that would build the cache.
        content: Content digest of the preferred cache, from an earlier run, which need not be of these recordings.
        build_from: What the cache would be built from, which may name other recordings: there is an error instead of
            the warning. None: it would not be built.

    Raises:
        CacheError: As :func:`~plifctl.cache.find_cache`; the cache is not current.
    """
    raw = _digest_of_recordings(framing, replace(build_from or RawSource(), cache_dir=cache_dir, read=False))
    cache = find_cache(raw_independent_key(framing), cache_dir, prepare=prepare, content=content, raw=raw)
    if raw is None or cache.key.fields["raw"] == raw or cache.content_digest == content:
        return cache
    named, _ = named_place(framing.dataset, None if build_from is None else build_from.root)
    problem = f"{cache.path}: not known to be of the recordings in {named}, which "
    problem += "changed since they were read, or were never read here" if raw == _UNREAD else "are others now"
    if build_from is not None:
        raise CacheError(problem, hint=prepare)
    _log.warning("%s; to prepare them: %s", problem, prepare)
    return cache


def _digest_of_recordings(framing: Framing, source: RawSource) -> str | None:
    """Returns the digest of the recordings where they are named; None if there are none to see.

    Empty if they must be read: they are others now, or such that reading them is an error.
    """
    dataset = framing.dataset
    place = named_place(dataset, source.root)[0] if dataset.is_own else source.root
    unseen = _UNREAD if source.root is not None and dataset.is_own else None  # published files are the same everywhere
    if place is None or not place.exists():
        return unseen
    try:
        return open_raw(framing, source).digest
    except (MissingRawDataError, MachineError):
        return unseen
    except RawDataError:
        return _UNREAD
