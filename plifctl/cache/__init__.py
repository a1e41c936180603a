"""Caches: raw data framed once, in one HDF5 file that states what it was built from. The only user of h5py.

A cache is named by the hash of its key: everything that its numbers depend on (:mod:`~plifctl.cache.key`). It is one
file in which every sample is a chunk with a checksum (:mod:`~plifctl.cache.file`, :mod:`~plifctl.cache.chunks`).

:mod:`~plifctl.cache.build` builds one: it holds a lock (:mod:`~plifctl.cache.locks`), frames samples in threads
(:mod:`~plifctl.cache.framing`), keeps them in a journal that survives a kill (:mod:`~plifctl.cache.journal`), and
writes the file under a temporary name. :mod:`~plifctl.cache.catalogue` finds, verifies, compares and removes caches;
:mod:`~plifctl.cache.export` writes them for other tools; :mod:`~plifctl.cache.local_copy` copies them to the disk of
the machine that trains.
"""

from plifctl.cache.build import CacheBuilder, expected_bytes
from plifctl.cache.catalogue import content_digests, describe_nearest, find_cache, open_cache
from plifctl.cache.file import Cache
from plifctl.cache.key import CacheKey, key_of, raw_independent_key
from plifctl.cache.local_copy import copy_cache

__all__ = [
    "Cache",
    "CacheBuilder",
    "CacheKey",
    "content_digests",
    "copy_cache",
    "describe_nearest",
    "expected_bytes",
    "find_cache",
    "key_of",
    "open_cache",
    "raw_independent_key",
]
