"""Caches: raw data framed once, in one HDF5 file that says what it was made of. The only user of h5py.

A cache is named by the hash of its key: everything that its numbers depend on (:mod:`~plifctl.cache.key`). It is one
file, sealed, each sample a chunk with a checksum (:mod:`~plifctl.cache.file`), which is built beside its name from a
journal that survives a kill (:mod:`~plifctl.cache.build`, :mod:`~plifctl.cache.journal`), found and looked after among
others (:mod:`~plifctl.cache.catalogue`), and given to other tools (:mod:`~plifctl.cache.export`).
"""

from plifctl.cache.build import CacheBuilder, cached, expected_bytes
from plifctl.cache.catalogue import find_cache, nearest
from plifctl.cache.file import Cache
from plifctl.cache.key import CacheKey, key_of, raw_independent_key

__all__ = [
    "Cache",
    "CacheBuilder",
    "CacheKey",
    "cached",
    "expected_bytes",
    "find_cache",
    "key_of",
    "nearest",
    "raw_independent_key",
]
