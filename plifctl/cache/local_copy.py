"""A copy of a cache on the disk of the machine that trains, for clusters whose file system is slow or shared by many.

The copy has the name of the cache. It is made under a lock, so that the runs of one machine copy once, and renamed when
it is complete. One of other content under the name, or an incomplete one, is replaced.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from plifctl import files
from plifctl.cache.file import Cache
from plifctl.errors import CacheError, UsageError
from plifctl.units import format_bytes

_log = logging.getLogger(__name__)


def copy_cache(cache: Cache, folder: Path) -> Cache:
    """Returns the copy of a cache in a folder, made now or before; the cache itself if it is there.

    Args:
        cache: The cache.
        folder: Folder on the machine's own disk; it is created.

    Raises:
        UsageError: A file has the name of a folder, or a folder that of the copy.
        MachineError: The folder cannot be written, or has no room.
    """
    target = folder.absolute() / cache.path.parent.name / cache.path.name
    if target.resolve() == cache.path.resolve():
        return cache
    if (taken := next((p for p in (folder, target.parent) if p.exists() and not p.is_dir()), None)) is not None:
        raise UsageError(f"--copy-cache: {taken} is a file, expected a folder")
    lock = target.with_name(f".{target.name}.lock")
    waiting = f"another process copies {cache.path.name} to {target.parent}; waiting for it"
    with files.machine_errors(target), files.waiting_lock(lock, waiting):
        if (there := _open_same(target, cache)) is not None:
            return there
        size = format_bytes(cache.path.stat().st_size)
        _log.info("copying %s (%s) to %s", cache.path.name, size, target.parent)
        with files.atomic_write(target) as temporary:
            shutil.copyfile(cache.path, temporary)
    return Cache(target, copy_of=cache.path.absolute())


def _open_same(path: Path, cache: Cache) -> Cache | None:
    """Returns the cache in ``path`` if it has the same content, else None."""
    if path.is_dir():
        raise UsageError(f"{path}: a folder, expected a copy of {cache.path.name}", hint="choose another --copy-cache")
    if not path.is_file() or path.stat().st_size != cache.path.stat().st_size:
        return None
    try:
        found = Cache(path, copy_of=cache.path.absolute())
    except CacheError:
        return None
    return found if found.content_digest == cache.content_digest else None
