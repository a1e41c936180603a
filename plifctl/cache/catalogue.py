"""The caches of a cache directory: find, list, verify, compare, remove."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import filelock
import h5py
import numpy as np

from plifctl import files
from plifctl.cache.file import (
    FORMAT,
    NOT_A_CACHE,
    Cache,
    attributes_of,
    checksum_line,
    checksum_path,
    content_digest,
    format_number,
    samples_of,
    system_error,
)
from plifctl.cache.key import FRAMING_LABEL, CacheKey, describe_differences, differences, framing_label
from plifctl.cache.locks import BuildPaths
from plifctl.data.datasets import layout_formats
from plifctl.data.datasets.base import Progress, Sample
from plifctl.data.formats.detect import FIRST_VERSION, raised_versions
from plifctl.data.formats.variants import LARGE, LARGE_IDX
from plifctl.data.frames import INTEGRATOR_VERSION
from plifctl.errors import CacheError, CorruptCacheError, UsageError, did_you_mean

_VERSIONS = {"decoder_version": FIRST_VERSION, "integrator_version": INTEGRATOR_VERSION}
_BUILD = rf"{FRAMING_LABEL}-[0-9a-f]{{12}}"
_CACHE_NAME = re.compile(rf"{_BUILD}\.h5")
_JOURNAL_NAME = re.compile(rf"\.{_BUILD}-uint(?:8|16)\.journal")
_WRITTEN_NAME = re.compile(rf"{_BUILD}\.h5(?:\.sha256)?")

_log = logging.getLogger(__name__)


_UNUSABLE = {
    "unreadable": "damaged, or not a cache",
    "no-permission": "permission denied",
    "io-error": "the disk or the network does not deliver it",
}
"""Why files that are named like caches are not used, by their state."""

State = Literal["ok", "outdated", "unfinished", "unreadable", "unrelated", "no-permission", "io-error"]


@dataclass(frozen=True)
class Entry:
    """A file in a cache directory, described by its attributes only; its samples are not verified.

    Attributes:
        path: The file.
        state: ``ok``; ``outdated``: made by another version of the decoders, the integrator or the cache format, and no
            longer used; ``unfinished``: an interrupted build, resumed by the command that started it; ``unreadable``:
            named like a cache, but damaged or not one; ``unrelated``: another file; ``no-permission``: it may not be
            read; ``io-error``: the disk or the network does not deliver it.
        nbytes: Size of the file.
        built: Time when it was built, seconds since 1970; of a file that says nothing, when it was changed last.
        fields: Its key; None if it cannot be read.
        shape: Shape of its samples, ``[N, ...]``.
        verified: Every raw file had its published checksum.
        complete: It has the official numbers of samples.
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
        """``dataset/file`` without the ending."""
        return f"{self.path.parent.name}/{self.path.name.removesuffix('.h5')}"

    @property
    def aliases(self) -> tuple[str, str, str]:
        """The names that the user may abbreviate: ``dataset/file``, ``file``, and its hash."""
        file = self.name.partition("/")[2]
        return self.name, file, file.rpartition("-")[2]


def find_cache(
    wanted: Mapping[str, Any], cache_dir: Path, *, prepare: str, content: str | None = None, raw: str | None = None
) -> Cache:
    """Returns the cache with a :func:`~plifctl.cache.key.raw_independent_key`, built from any raw data.

    There may be several, e.g. of a subset and of the full set: the one with ``content`` is preferred, even if its key
    is another, by another version of tonic, say; then the one of the recordings as they are, else the newest is used
    and a warning is logged.

    Args:
        wanted: The raw-independent key.
        cache_dir: Cache directory.
        prepare: The command that would build the cache.
        content: Content digest of the preferred cache, from an earlier run.
        raw: Digest of the raw data as they are now; None: not known.

    Raises:
        CacheError: There is no such cache; names the most similar one, and the command.
    """
    entries = _usable_caches(cache_dir, wanted)
    fitting = [entry for entry in entries if differences(wanted, entry.fields or {}) == {}]
    same = [entry for entry in entries if content is not None and entry.content == content]
    if not same and not fitting:
        raise CacheError(
            f"no cache of {wanted['dataset']}: {_describe_nearest(entries, wanted, cache_dir)}", hint=prepare
        )
    same = same or [entry for entry in fitting if entry.fields is not None and entry.fields["raw"] == raw]
    newest = max(same or fitting, key=lambda entry: entry.built)
    if len(fitting) > 1 and not same:
        _log.warning("%d caches of %s fit; using the newest, %s", len(fitting), wanted["dataset"], newest.path)
    return Cache(newest.path)


def open_cache(key: CacheKey, cache_dir: Path, *, made_by: str = "") -> Cache | None:
    """Returns the cache with exactly this key; None if it does not exist.

    Args:
        key: The key.
        cache_dir: Cache directory.
        made_by: The command that builds the cache, for hints.

    Raises:
        CorruptCacheError: The file with its name is damaged, or another cache.
        CacheError: The file with its name was made by an older or a newer plifctl.
    """
    path = key.path(cache_dir)
    if not path.exists():
        return None
    cache = Cache(path, made_by=made_by)
    if dict(cache.key.fields) != dict(key.fields):
        found = describe_differences(differences(key.fields, cache.key.fields))
        raise CorruptCacheError(f"{path}: another cache that was renamed: {found}", hint=cache.repair_hint())
    return cache


def describe_nearest(wanted: Mapping[str, Any], cache_dir: Path) -> str:
    """Returns the cache nearest to the key ``wanted`` and its differences, as text for a message."""
    return _describe_nearest(_usable_caches(cache_dir, wanted), wanted, cache_dir)


def _describe_nearest(entries: Sequence[Entry], wanted: Mapping[str, Any], cache_dir: Path) -> str:
    if not entries:
        return f"found none in {cache_dir}"
    compared = ((entry, differences(wanted, entry.fields or {})) for entry in entries)
    entry, found = min(compared, key=lambda pair: len(pair[1]))
    return f"the nearest, {entry.path.name}, differs: {describe_differences(found)}"


def content_digests(dataset: str, cache_dir: Path) -> set[str]:
    """Returns the content digests of the caches of a data set."""
    return {entry.content for entry in _entries_of(dataset, cache_dir) if entry.state == "ok"}


def _entries_of(dataset: str, cache_dir: Path) -> list[Entry]:
    return list(_entries((cache_dir / dataset).glob("*.h5")))


def _usable_caches(cache_dir: Path, wanted: Mapping[str, Any]) -> list[Entry]:
    """Returns the caches of a data set; logs a warning for files that cannot be read."""
    entries = _entries_of(wanted["dataset"], cache_dir)
    for entry in entries:
        if (reason := _UNUSABLE.get(entry.state)) is not None:
            _log.warning("%s: %s; ignored", entry.path, reason)
    return [entry for entry in entries if entry.state == "ok"]


def list_caches(cache_dir: Path) -> list[Entry]:
    """Returns the caches, unfinished builds and other HDF5 files of a cache directory, by path."""
    patterns = ("*/*.h5", "*/.*-uint8.journal", "*/.*-uint16.journal", "*/.*.partial")
    return [entry for pattern in patterns for entry in _entries(cache_dir.glob(pattern))]


def select_cache(entries: Sequence[Entry], name: str, cache_dir: Path) -> Entry:
    """Returns the entry that a name, a unique beginning of a name, or a path denotes, looked up in this order.

    Args:
        entries: Entries to choose from.
        name: ``dataset/file``, a unique beginning of it, of ``file`` or of its hash; or a path in the cache directory.
        cache_dir: Cache directory, for messages.

    Raises:
        UsageError: No entry, or several, have that name.
    """
    if not name.strip() or Path(name).name in ("", ".."):
        raise UsageError(f"{name!r} names no cache", hint="plifctl cache ls lists the caches")
    exact = [entry for entry in entries if name == entry.name]
    begun = [entry for entry in entries if any(alias.startswith(name) for alias in entry.aliases)]
    fitting = exact or begun or [entry for entry in entries if _same_place(Path(name), entry.path)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        hint = did_you_mean(name, [entry.name for entry in entries]) if entries else "plifctl prepare builds one"
        raise UsageError(f"no cache {name} in {cache_dir}", hint=hint)
    raise UsageError(
        f"{name} is ambiguous: {len(fitting)} caches", hint="one of: " + ", ".join(e.name for e in fitting)
    )


def _same_place(one: Path, other: Path) -> bool:
    """Returns whether two paths are one entry of one folder; a link and the file that it points to are two."""
    return one.name == other.name and one.parent.resolve() == other.parent.resolve()


def verify_cache(path: Path, progress: Progress = lambda done, total: None) -> list[str]:
    """Reads a cache completely and verifies every checksum; returns the problems found, an empty list if it is ok.

    Compared are the file with the checksum file beside it, attributes and columns with their digest, every chunk with
    its checksum, every sample with its digest and its number of events, and all samples with the content digest.

    Args:
        path: The cache.
        progress: Called with the number of samples read, and of all samples.
    """
    problems = []
    checksum = checksum_path(path)
    if not checksum.exists():  # a build was killed before it wrote it; everything that is used is compared below
        _log.warning("%s: %s is missing; unused bytes of the file are not compared", path, checksum.name)
    else:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if checksum.read_text(encoding="utf-8", errors="replace") != checksum_line(path, found):
            problems.append(f"checksum mismatch: the file differs from the one that {checksum.name} was written for")
    try:
        cache = Cache(path)
    except CacheError as error:
        return [*problems, str(error).removeprefix(f"{path}: ")]
    expected = cache.key.path(path.parent.parent).name
    if expected != path.name:
        problems.append(f"renamed: by its key its name is {expected}")
    for row in range(len(cache.labels)):
        problems += _sample_problems(cache, row)
        if row % 64 == 63 or row == len(cache.labels) - 1:
            progress(row + 1, len(cache.labels))
    if content_digest(_samples(cache), cache.digests) != cache.content_digest:
        problems.append("checksum mismatch: the content digest does not match the samples")
    cache.close()
    return problems


def _samples(cache: Cache) -> list[Sample]:
    groups = cache.groups or [""] * len(cache.labels)
    return list(map(Sample, cache.sample_ids, cache.labels.tolist(), cache.splits, groups))


def _sample_problems(cache: Cache, row: int) -> list[str]:
    name = cache.sample_ids[row]
    try:
        sample = cache.read(np.array([row]))[0]
    except CorruptCacheError as error:
        return [str(error).removeprefix(f"{cache.path}: ")]
    if hashlib.sha256(sample.data).digest() != cache.digests[row].tobytes():
        return [f"sample {name}: checksum mismatch"]
    found = int(sample.sum(dtype=np.int64))
    if cache.frame_sums is not None and found != cache.frame_sums[row]:
        return [f"sample {name}: its frames sum to {found} events, expected {cache.frame_sums[row]}"]
    return []


def remove_cache(entry: Entry) -> None:
    """Removes a cache, with its checksum file, or an unfinished build. Processes that have it open can still read it.

    Raises:
        UsageError: It is a link, or a file that plifctl did not write.
        CacheError: Another process is building it.
    """
    check_removable(entry)
    with files.machine_errors(entry.path), _not_being_built(entry):
        for path in (checksum_path(entry.path), entry.path):
            path.unlink(missing_ok=True)


def check_removable(entry: Entry) -> None:
    """Raises UsageError for an entry that is not plifctl's to remove: a link, or a file of another program."""
    if (reason := _not_removable(entry)) is not None:
        raise UsageError(f"{entry.path}: {reason}; it is not removed", hint="remove it with your shell")


def _not_removable(entry: Entry) -> str | None:
    if entry.path.is_symlink():
        return f"a link to {entry.path.resolve()}"
    return "not a cache of plifctl" if entry.state == "unrelated" else None


def removable_entries(cache_dir: Path, *, older_than_days: float | None = None) -> list[tuple[Entry, str]]:
    """Returns the unfinished, unreadable and outdated entries, each with the reason why it can be removed.

    Args:
        cache_dir: Cache directory.
        older_than_days: Also return caches that were built longer ago.
    """
    found: list[tuple[Entry, str]] = []
    for entry in list_caches(cache_dir):
        age_days = (time.time() - entry.built) / 86_400
        if _not_removable(entry) is not None:
            continue
        if entry.state in ("unfinished", "unreadable", "outdated"):
            found.append((entry, entry.state))
        elif entry.state != "ok":
            continue
        elif older_than_days is not None and age_days > older_than_days:
            found.append((entry, f"built {age_days:.0f} days ago"))
    return found


def compare_caches(ours: Cache, theirs: Cache) -> dict[str, Any]:
    """Returns the differences between two caches: in their keys, their sets of samples, and the content of these.

    Returns:
        ``key``: field to both values; ``only_in_first``, ``only_in_second``, ``different``: sample ids.
    """
    first, second = (
        {sample.id: (sample, digest.tobytes()) for sample, digest in zip(_samples(cache), cache.digests, strict=True)}
        for cache in (ours, theirs)
    )
    different = [name for name in first.keys() & second.keys() if first[name] != second[name]]
    return {
        "key": {name: list(values) for name, values in differences(theirs.key.fields, ours.key.fields).items()},
        "only_in_first": sorted(first.keys() - second.keys()),
        "only_in_second": sorted(second.keys() - first.keys()),
        "different": sorted(different),
    }


@contextmanager
def _not_being_built(entry: Entry) -> Iterator[None]:
    """Holds the build lock of an entry while the block runs.

    The lock file is never removed: a process that waits for it would then hold a lock that no other process sees.
    """
    name = None
    if entry.path.suffix == ".journal":
        name = entry.path.name[1:].rpartition("-")[0]
    elif entry.state == "ok" and entry.fields is not None:
        name = BuildPaths.of(entry.path.parent, CacheKey(entry.fields).raw_independent).name
    if name is None:  # no build writes this file
        yield
        return
    try:
        with filelock.FileLock(BuildPaths(entry.path.parent, name).lock).acquire(timeout=0):
            yield
    except filelock.Timeout:
        raise CacheError(f"{entry.path}: another process is building it", hint="wait for it, or stop it") from None


def _entries(paths: Iterable[Path]) -> Iterator[Entry]:
    """Yields the entries of files by path; without those of users, and those that another process writes or removes."""
    for path in sorted(paths):
        with suppress(FileNotFoundError):
            if path.suffix == ".h5" and path.is_file():
                yield _entry(path)
            elif _is_unfinished(path):
                status = path.stat()
                yield Entry(path, "unfinished", status.st_size, status.st_mtime)


def _is_unfinished(path: Path) -> bool:
    """Returns whether a file is one that an interrupted build has left, by its name and its age."""
    if path.suffix == ".journal":
        return _JOURNAL_NAME.fullmatch(path.name) is not None
    if _WRITTEN_NAME.fullmatch(files.temporary_of(path) or "") is None:
        return False
    return time.time() - path.stat().st_mtime >= files.STALE_AFTER_S  # a newer one may still be written


def _entry(path: Path) -> Entry:
    """Returns the entry of an HDF5 file."""
    status = path.stat()
    state: State = "unreadable" if _CACHE_NAME.fullmatch(path.name) else "unrelated"
    entry = Entry(path, state, status.st_size, status.st_mtime)
    try:
        with h5py.File(path, "r", locking=False) as file:
            attributes = attributes_of(file)
            if not attributes.get("complete", False):
                return entry
            if state == "unreadable" and format_number(attributes) != FORMAT:
                return replace(entry, state="outdated")  # nothing else is known about other formats
            fields = dict(json.loads(attributes["key"]))
            framing_label(fields)  # fails if it is not a key
            if len(samples_of(file).shape) < 2:
                return entry
            return replace(
                entry,
                state="ok" if _is_current(attributes, fields, _largest_split(file)) else "outdated",
                built=datetime.fromisoformat(attributes["created"]).timestamp(),  # a copy's file is newer
                fields=fields,
                shape=tuple(samples_of(file).shape),
                verified=attributes["verified"],
                complete=attributes["complete_set"],
                content=attributes["content_digest"],
            )
    except FileNotFoundError:
        raise
    except NOT_A_CACHE as error:
        if (number := system_error(error, path)) is None:
            return entry
        return replace(entry, state="no-permission" if number in (errno.EACCES, errno.EPERM) else "io-error")


def _largest_split(file: h5py.File) -> int:
    """Returns the number of samples of the larger one of the official training and test set, or less than 100,000."""
    samples = len(samples_of(file))
    if samples <= LARGE:
        return samples
    tests = int(file["split"][:].sum())
    return max(tests, samples - tests)


def _is_current(attributes: Mapping[str, Any], fields: Mapping[str, Any], largest: int) -> bool:
    """Returns whether a cache was made by the current cache format, decoders and integrator.

    Args:
        attributes: Its attributes.
        fields: Its key.
        largest: Number of samples of its larger split.
    """
    versions = {name: fields[name] for name in _VERSIONS if fields[name] is not None}
    formats = set(_formats_read(attributes, fields))
    decoders = raised_versions(formats | {LARGE_IDX} if "IDX" in formats and largest > LARGE else formats)
    return (
        format_number(attributes) == FORMAT
        and versions.items() <= _VERSIONS.items()
        and fields.get("decoders", {}) == decoders
    )


def _formats_read(attributes: Mapping[str, Any], fields: Mapping[str, Any]) -> list[str]:
    """Returns the formats that a cache was read from; all possible ones for 0.1.0, which does not state them."""
    return list(json.loads(attributes["formats"])) if "formats" in attributes else layout_formats(fields["layout"])
