"""The caches of a folder: list, find, verify, compare, remove."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import filelock
import h5py
import numpy as np

from plifctl import files
from plifctl.cache.build import BuildPlaces, build_lock
from plifctl.cache.file import (
    FOREIGN,
    FORMAT,
    Cache,
    attributes_of,
    checksum_line,
    checksum_path,
    content_digest,
    samples_of,
)
from plifctl.cache.key import CacheKey, differences, readable, said
from plifctl.data.datasets import layout_formats
from plifctl.data.datasets.base import Progress, Sample
from plifctl.data.formats.detect import FIRST_VERSION, raised_versions
from plifctl.data.frames import INTEGRATOR_VERSION
from plifctl.errors import CacheError, CorruptCacheError, UsageError, did_you_mean

_VERSIONS = {"decoder_version": FIRST_VERSION, "integrator_version": INTEGRATOR_VERSION}
_RUNNING_S = 600
_NAME = re.compile(r"(?:images|T\d+-[a-z-]+|\d+us)-[0-9a-f]{12}\.h5")
_log = logging.getLogger(__name__)


State = Literal["whole", "outdated", "unfinished", "unreadable", "foreign", "refused"]


@dataclass(frozen=True)
class Entry:
    """Something in a folder of caches, by its attributes alone; nothing of it is checked.

    Attributes:
        path: The file.
        state: ``whole``; ``outdated``: made by other versions of decoder, integrator or format, so that nothing takes
            it any more; ``unfinished``: samples of a build that goes on when it is typed again; ``unreadable``: has
            the name of a cache, and is none; ``foreign``: has not even that; ``refused``: the system lets nobody look.
        nbytes: Size of the file.
        built: When, seconds since 1970.
        fields: Its key; None where it cannot be read.
        shape: Of its samples, ``[N, ...]``.
        verified: Every raw file had its published checksum.
        complete: The official numbers of samples are there.
        content: Its content digest.
    """

    path: Path
    state: State
    nbytes: int
    built: float
    fields: Mapping[str, Any] | None = None
    shape: tuple[int, ...] = ()
    verified: bool = False
    complete: bool = False
    content: str = ""

    @property
    def name(self) -> str:
        """``dataset/file``, without the ending."""
        return f"{self.path.parent.name}/{self.path.name.removesuffix('.h5')}"

    @property
    def aliases(self) -> tuple[str, str, str]:
        """By the beginning of what it may be called."""
        file = self.name.partition("/")[2]
        return self.name, file, file.rpartition("-")[2]


def find_cache(wanted: Mapping[str, Any], cache_dir: Path, *, prepare: str, content: str | None = None) -> Cache:
    """Returns the cache that fits :func:`raw_independent_key`, whatever raw data it was made of.

    Several are possible, of a subset and of the whole set: the one of ``content`` is taken, or the newest, and said.

    Args:
        wanted: What :func:`raw_independent_key` gives.
        cache_dir: Where caches lie.
        prepare: The command that would build it.
        content: Content digest of the cache preferred: that of an earlier run.

    Raises:
        CacheError: There is none; says what comes nearest, and the command.
    """
    there = _whole(cache_dir, wanted)
    fitting = [entry for entry in there if differences(wanted, entry.fields or {}) == {}]
    if not fitting:
        raise CacheError(f"no cache of {wanted['dataset']}: {_nearest_of(there, wanted, cache_dir)}", hint=prepare)
    same = [entry for entry in fitting if entry.content == content]
    newest = max(same or fitting, key=lambda entry: entry.built)
    if len(fitting) > 1 and not same:
        _log.warning("%d caches of %s fit; taking the newest, %s", len(fitting), wanted["dataset"], newest.path)
    return Cache(newest.path)


def nearest(wanted: Mapping[str, Any], cache_dir: Path) -> str:
    """Returns which cache comes nearest to ``wanted`` and where it differs, as a sentence."""
    return _nearest_of(_whole(cache_dir, wanted), wanted, cache_dir)


def _nearest_of(there: Sequence[Entry], wanted: Mapping[str, Any], cache_dir: Path) -> str:
    if not there:
        return f"there is none to use in {cache_dir}"
    compared = ((entry, differences(wanted, entry.fields or {})) for entry in there)
    entry, found = min(compared, key=lambda pair: len(pair[1]))
    return f"the nearest, {entry.path.name}, differs: {said(found)}"


def _whole(cache_dir: Path, wanted: Mapping[str, Any]) -> list[Entry]:
    """The caches of a data set."""
    entries = [_entry(path) for path in sorted((cache_dir / wanted["dataset"]).glob("*.h5")) if path.is_file()]
    for entry in entries:
        if entry.state in ("unreadable", "refused"):
            why = "not a whole cache" if entry.state == "unreadable" else "may not be read"
            _log.warning("%s: %s; passed over", entry.path, why)
    return [entry for entry in entries if entry.state == "whole"]


def list_caches(cache_dir: Path) -> list[Entry]:
    """Returns what there is in a folder of caches: whole caches, unfinished builds, and what is neither; by path."""
    patterns = ("*/*.h5", "*/.*-uint8.journal", "*/.*-uint16.journal", "*/.*.partial")
    found = []
    for path in (path for pattern in patterns for path in sorted(cache_dir.glob(pattern))):
        with suppress(FileNotFoundError):  # another process may remove it meanwhile
            if path.suffix == ".partial" and time.time() - path.stat().st_mtime < _RUNNING_S:
                continue  # a build that runs is writing it; what a kill leaves grows old
            if path.is_file():
                found.append(_entry(path) if path.suffix == ".h5" else _unfinished(path))
    return found


def select(entries: Sequence[Entry], name: str, cache_dir: Path) -> Entry:
    """Returns the one cache that a name means.

    Args:
        entries: Those to choose from.
        name: A path; or the beginning of ``dataset/file``, of ``file``, or of its hash, which only one has.
        cache_dir: Where they lie, for messages.

    Raises:
        UsageError: None, or several, are called so.
    """
    if not name:
        raise UsageError("no cache has an empty name", hint="plifctl cache ls lists them")
    exact = [entry for entry in entries if Path(name).resolve() == entry.path.resolve() or name == entry.name]
    fitting = exact or [entry for entry in entries if any(alias.startswith(name) for alias in entry.aliases)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        hint = did_you_mean(name, [entry.name for entry in entries]) if entries else "plifctl prepare makes one"
        raise UsageError(f"no cache {name} in {cache_dir}", hint=hint)
    raise UsageError(f"{name} may be {len(fitting)} caches", hint="one of: " + ", ".join(e.name for e in fitting))


def verify_cache(path: Path, progress: Progress = lambda done, total: None) -> list[str]:
    """Reads a cache from its first byte to its last; returns what is wrong with it, nothing where it is whole.

    Compares the file with the checksum beside it, the seal with attributes and columns, every chunk with its checksum,
    every sample with its digest and its number of events, and the whole with the content digest.

    Args:
        path: The cache.
        progress: Told how many samples are read, of how many.
    """
    problems = []
    beside = checksum_path(path)
    if not beside.exists():  # a build killed after the last rename: all that matters is compared below
        _log.warning("%s: no %s beside it; unused bytes are not compared", path, beside.name)
    else:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if beside.read_text(encoding="utf-8", errors="replace") != checksum_line(path, found):
            problems.append(f"the file is not the one that {beside.name} is of")
    try:
        cache = Cache(path)
    except CorruptCacheError as error:
        return [*problems, str(error).removeprefix(f"{path}: ")]
    if cache.key.path(path.parent.parent).name != path.name:
        problems.append(f"its name is another cache's; it was {cache.key.path(path.parent.parent).name}")
    for row in range(len(cache.labels)):
        problems += _wrong_with(cache, row)
        if row % 64 == 63 or row == len(cache.labels) - 1:
            progress(row + 1, len(cache.labels))
    samples = [
        Sample(name, int(label), "test" if test else "train")
        for name, label, test in zip(cache.sample_ids, cache.labels, cache.is_test, strict=True)
    ]
    if content_digest(samples, cache.digests) != cache.content_digest:
        problems.append("the content digest is not that of its samples")
    cache.close()
    return problems


def _wrong_with(cache: Cache, row: int) -> list[str]:
    name = cache.sample_ids[row]
    try:
        sample = cache.read(np.array([row]))[0]
    except CorruptCacheError as error:
        return [str(error).removeprefix(f"{cache.path}: ")]
    if hashlib.sha256(sample.data).digest() != cache.digests[row].tobytes():
        return [f"sample {name} is not what was written"]
    if cache.counts and int(sample.sum(dtype=np.int64)) != cache.counts["n_events"][row]:
        return [f"the frames of sample {name} do not sum to its number of events"]
    return []


def remove_cache(entry: Entry) -> None:
    """Removes a cache, or an unfinished build, with what lies beside it. Whoever reads it now can go on reading.

    Raises:
        CacheError: It is being built.
    """
    with files.machine_errors(entry.path), _nobody_builds(entry):
        for path in (checksum_path(entry.path), entry.path):
            path.unlink(missing_ok=True)


def removable(cache_dir: Path, *, older_than_days: float | None = None) -> list[tuple[Entry, str]]:
    """Returns what can go, and why: unfinished builds, what cannot be read, caches that no command can hit any more.

    Args:
        cache_dir: Where caches lie.
        older_than_days: Then also caches built longer ago.
    """
    found: list[tuple[Entry, str]] = []
    for entry in list_caches(cache_dir):
        age_days = (time.time() - entry.built) / 86_400
        if entry.state in ("unfinished", "unreadable", "outdated"):
            found.append((entry, entry.state))
        elif entry.state != "whole":
            continue
        elif older_than_days is not None and age_days > older_than_days:
            found.append((entry, f"built {age_days:.0f} days ago"))
    return found


def compare_caches(ours: Cache, theirs: Cache) -> dict[str, Any]:
    """Returns where two caches differ: in their keys, in which samples they have, and in what is in these.

    Returns:
        ``key``: field to both values; ``only_in_first``, ``only_in_second``, ``different``: sample ids.
    """
    first, second = (dict(zip(cache.sample_ids, range(len(cache.labels)), strict=True)) for cache in (ours, theirs))
    different = [
        name
        for name in first.keys() & second.keys()
        if ours.digests[first[name]].tobytes() != theirs.digests[second[name]].tobytes()
        or ours.labels[first[name]] != theirs.labels[second[name]]
        or ours.is_test[first[name]] != theirs.is_test[second[name]]
    ]
    return {
        "key": {name: list(values) for name, values in differences(theirs.key.fields, ours.key.fields).items()},
        "only_in_first": sorted(first.keys() - second.keys()),
        "only_in_second": sorted(second.keys() - first.keys()),
        "different": sorted(different),
    }


@contextmanager
def _nobody_builds(entry: Entry) -> Iterator[None]:
    name = None
    if entry.path.suffix == ".journal":
        name = entry.path.name[1:].rpartition("-")[0]
    elif entry.state == "whole" and entry.fields is not None:
        name = BuildPlaces.of(entry.path.parent, CacheKey(entry.fields).recipe).name
    if name is None:  # nothing that anybody builds
        yield
        return
    try:
        with build_lock(BuildPlaces(entry.path.parent, name), wait=False):
            yield
    except filelock.Timeout:
        raise CacheError(f"{entry.path}: another process builds it", hint="wait for it, or stop it") from None
    # the lock's file stays: whoever waits for it would hold a lock that nobody else can see


def _entry(path: Path) -> Entry:
    status = path.stat()
    ours = _NAME.fullmatch(path.name) is not None
    nothing = Entry(path, "unreadable" if ours else "foreign", status.st_size, status.st_mtime)
    try:
        with h5py.File(path, "r", locking=False) as file:
            attributes = attributes_of(file)
            if not attributes.get("complete", False):
                return nothing
            fields = dict(json.loads(attributes["key"]))
            readable(fields)  # or it is no key
            if len(samples_of(file).shape) < 2:
                return nothing
            made_by = {name: fields[name] for name in _VERSIONS if fields[name] is not None}
            current = attributes.get("format") == FORMAT and made_by.items() <= _VERSIONS.items()
            current = current and fields.get("decoders", {}) == raised_versions(_formats_read(attributes, fields))
            return Entry(
                path,
                "whole" if current else "outdated",
                status.st_size,
                status.st_mtime,
                fields=fields,
                shape=tuple(samples_of(file).shape),
                verified=attributes["verified"],
                complete=attributes["complete_set"],
                content=attributes["content_digest"],
            )
    except FOREIGN as error:
        refused = isinstance(error, OSError) and error.errno is not None
        return replace(nothing, state="refused") if refused or not os.access(path, os.R_OK) else nothing


def _formats_read(attributes: Mapping[str, Any], fields: Mapping[str, Any]) -> list[str]:
    """Returns the formats a cache was read from; one of 0.1.0 does not state them: those it may have been read from."""
    return list(json.loads(attributes["formats"])) if "formats" in attributes else layout_formats(fields["layout"])


def _unfinished(path: Path) -> Entry:
    status = path.stat()
    return Entry(path, "unfinished", status.st_size, status.st_mtime)
