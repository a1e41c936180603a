"""The cache of a data set as its recordings are now.

A cache is found by everything but its raw data, which may lie on another machine. A user's own recordings change: a
label is corrected, a recording is added, another folder has a data set of the same name. Where they can be seen, the
files that changed are noticed by their sizes and times; nothing is read.
"""

from __future__ import annotations

import logging
from pathlib import Path

from plifctl.cache import Cache, find_cache, raw_independent_key
from plifctl.config.dataset import Framing
from plifctl.data.datasets import open_raw
from plifctl.data.source import RawSource
from plifctl.errors import CacheError, MachineError, RawDataError, UnreadRawDataError

_log = logging.getLogger(__name__)

_UNREAD = ""  # no digest: the recordings would have to be read


def find_current_cache(
    framing: Framing, cache_dir: Path, *, prepare: str, content: str | None = None, must_be_current: bool = False
) -> Cache:
    """Returns the cache of a data set; logs a warning if it is not known to be of the recordings in ``raw:``.

    Args:
        framing: The data set, and how it is framed.
        cache_dir: Cache directory.
        prepare: The command that would build the cache.
        content: Content digest of the preferred cache, from an earlier run, which need not be of these recordings.
        must_be_current: Raise an error instead of the warning.

    Raises:
        CacheError: As :func:`~plifctl.cache.find_cache`; the cache is not current.
    """
    raw = _digest_of_recordings(framing, cache_dir)
    cache = find_cache(raw_independent_key(framing), cache_dir, prepare=prepare, content=content, raw=raw)
    if raw is None or cache.key.fields["raw"] == raw or cache.content_digest == content:
        return cache
    problem = f"{cache.path}: not known to be of the recordings in {framing.dataset.raw}, which "
    problem += "changed since they were read, or were never read here" if raw == _UNREAD else "are others now"
    if must_be_current:
        raise CacheError(problem, hint=prepare)
    _log.warning("%s; to prepare them: %s", problem, prepare)
    return cache


def _digest_of_recordings(framing: Framing, cache_dir: Path) -> str | None:
    """Returns the digest of the recordings in ``raw:``; empty if they must be read; None if there are none to see."""
    if framing.dataset.raw is None:
        return None
    try:
        return open_raw(framing, RawSource(cache_dir=cache_dir, read=False)).digest
    except UnreadRawDataError:
        return _UNREAD
    except (RawDataError, MachineError):
        return None
