"""Verifies and removes caches; implements ``plifctl cache verify``, ``rm`` and ``prune``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from plifctl.cache import Cache, key_of
from plifctl.cache.catalogue import Entry, check_removable, list_caches, remove_cache, select_cache, verify_cache
from plifctl.cache.key import describe_differences, differences
from plifctl.config.dataset import FramesSpec, Framing
from plifctl.config.lookup import load_framing
from plifctl.data.source import RawSource
from plifctl.errors import CacheError, CorruptCacheError, UsageError
from plifctl.pipeline.prepare import open_raw_reported
from plifctl.pipeline.progress import Progress, silent

_log = logging.getLogger(__name__)

Removal = tuple[Entry, str]
"""An entry of a cache directory, and the reason to remove it."""

CacheVerdict = Literal["ok", "DAMAGED", "OTHER RECORDINGS", "OUTDATED", "NOT VERIFIED"]
"""What verifying a cache found.

By ``--raw``, a cache is of other recordings, or outdated: of the same, which are decoded or framed otherwise today. One
that cannot be read is not verified.
"""


def open_named_cache(name: str, cache_dir: Path) -> Cache:
    """Returns a cache by its name, which may be abbreviated.

    Raises:
        UsageError: No cache, or several, have that name.
        CacheError: It is unfinished, damaged, or made by another version of plifctl.
    """
    entry = select_cache(list_caches(cache_dir), name, cache_dir)
    if entry.state == "unfinished":
        raise CorruptCacheError(
            f"{entry.path}: an unfinished build", hint="type the plifctl prepare command again to resume it"
        )
    return Cache(entry.path)


def verify_caches(
    names: Sequence[str], cache_dir: Path, *, raw: Path | None = None, progress: Progress = silent
) -> Iterator[tuple[str, CacheVerdict, list[str]]]:
    """Reads caches completely; yields the name of each, the verdict, and its problems.

    Args:
        names: Names of caches; empty for all in the cache directory.
        cache_dir: Cache directory.
        raw: Raw data to read as well and compare with the key.
        progress: Opens the task of reading each cache.

    Raises:
        UsageError: A named cache cannot be verified, or ``raw`` is given for caches of several data sets.
    """
    entries = list_caches(cache_dir)
    chosen = [select_cache(entries, name, cache_dir) for name in names] if names else entries
    if raw is not None and len({entry.path.parent for entry in chosen if entry.state == "ok"}) > 1:
        raise UsageError(
            "--raw: the caches are of several data sets",
            hint="name those of one: plifctl cache verify NAME … --raw DIR",
        )
    for entry in chosen:
        if entry.state in ("no-permission", "io-error"):
            yield entry.name, "NOT VERIFIED", [f"it cannot be read: {entry.state}"]
            continue
        if entry.state not in ("ok", "unreadable"):
            if names:
                raise UsageError(f"{entry.name}: {entry.state}, cannot be verified")
            _log.info("%s: %s, skipped", entry.name, entry.state)
            continue
        try:
            with progress(f"verifying {entry.name}", "samples") as task:
                problems = verify_cache(entry.path, task.update)
        except FileNotFoundError:
            if entry.path.exists():
                raise
            _log.info("%s: removed by another process", entry.name)
            continue
        if problems:
            yield entry.name, "DAMAGED", problems
        elif raw is not None and (found := _compare_with_raw(entry, raw, cache_dir, progress)):
            verdict: CacheVerdict = "OTHER RECORDINGS" if "raw" in found else "OUTDATED"
            yield entry.name, verdict, [f"{raw} gives another cache: {describe_differences(found)}"]
        else:
            yield entry.name, "ok", []


def _compare_with_raw(entry: Entry, raw: Path, cache_dir: Path, progress: Progress) -> dict[str, tuple[Any, Any]]:
    """Reads raw data without using saved surveys; returns where their key differs from that of a cache."""
    fields = Cache(entry.path).key.fields
    framing = Framing(
        dataset=load_framing(fields["dataset"]).dataset,
        frames=FramesSpec.model_validate(fields["frames"]) if fields["frames"] is not None else None,
    ).with_T(fields["T"])
    source = RawSource(raw, verify=False, download=False, cache_dir=cache_dir, remember=False)
    return differences(fields, key_of(open_raw_reported(framing, source, progress)).fields)


def named_removals(names: Iterable[str], cache_dir: Path) -> list[Removal]:
    """Returns the caches with these names, each once.

    Raises:
        UsageError: No cache, or several, have one of the names, or one is not plifctl's to remove.
    """
    entries = list_caches(cache_dir)
    chosen = [select_cache(entries, name, cache_dir) for name in names]
    for entry in chosen:
        check_removable(entry)
    return list({entry.path: (entry, "named") for entry in chosen}.values())


def remove_caches(removals: Iterable[Removal], *, dry_run: bool = False, skip_busy: bool = False) -> Iterator[Removal]:
    """Removes caches; yields each one that was removed.

    Args:
        removals: Entries and reasons.
        dry_run: Remove nothing.
        skip_busy: Skip entries that another process is building, with a log message.

    Raises:
        CacheError: Another process is building one, and ``skip_busy`` is false.
    """
    for entry, reason in removals:
        try:
            if not dry_run:
                remove_cache(entry)
        except CacheError as error:
            if not skip_busy:
                raise
            _log.info("%s", error)
            continue
        yield entry, reason
