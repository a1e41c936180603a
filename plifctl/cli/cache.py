"""plifctl cache: look after caches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl import paths
from plifctl.cli import console, options
from plifctl.config.choices import ExportTarget
from plifctl.data.source import DEFAULT_WORKERS
from plifctl.errors import CacheError, CorruptCacheError, UsageError

if TYPE_CHECKING:
    from plifctl.cache import Cache
    from plifctl.cache.catalogue import Entry


def _names(incomplete: str) -> list[str]:
    caches = sorted(paths.cache_dir().glob("*/*.h5"))
    names = [f"{path.parent.name}/{path.stem}" for path in caches]
    return [name for name in names if name.startswith(incomplete)]


_NAME = "A cache: its path, or the beginning of DATASET/NAME, NAME or its hash that no other has."
CacheName = Annotated[str, typer.Argument(help=_NAME, autocompletion=_names)]
CacheNames = Annotated[list[str] | None, typer.Argument(help=_NAME + " Several may be named.", autocompletion=_names)]


def register(app: typer.Typer) -> None:
    """Adds the subcommands."""
    group = typer.Typer(
        help="List, inspect, verify, compare, export and remove caches.", no_args_is_help=True, rich_markup_mode=None
    )
    for command in (ls, show, verify, diff, export, rm, prune):
        group.command(command.__name__)(command)
    app.add_typer(group, name="cache")


def ls(cache_dir: options.CacheDirOption = None, as_json: options.JsonOption = False) -> None:
    """List caches, unfinished builds, and what is neither.

    Example: plifctl cache ls
    """
    from plifctl.cache.catalogue import list_caches

    folder = options.existing_cache_dir(cache_dir)
    entries = list_caches(folder)
    if as_json:
        console.emit_json([_tree(entry) for entry in entries])
    elif not entries:
        console.note(f"none in {folder}; plifctl prepare makes one")
    else:
        rows = [_row(entry) for entry in entries]
        console.emit_table(("cache", "samples", "MB", "age", "frames, choices, source"), rows)
        console.emit(f"\n{sum(entry.nbytes for entry in entries) / 1e6:,.1f} MB in {folder}")


def show(
    name: CacheName,
    out: Annotated[
        Path | None, typer.Option("--out", help="Draw histograms to this file (.png), too.", show_default=False)
    ] = None,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show what a cache was made of, and statistics of its samples.

    Example: plifctl cache show gesture/T20
    """
    from plifctl.cli.statistics import print_statistics
    from plifctl.config.base import flatten
    from plifctl.pipeline.inspect import describe_cache

    found = describe_cache(_opened(name, cache_dir), out, console.bar)
    if out is not None:
        console.note(f"written: {out}")
    if as_json:
        console.emit_json({**found.facts, "statistics": found.statistics.to_json()})
        return
    rows = [(key, _text(value)) for key, value in flatten(found.facts).items() if value not in (None, [])]
    console.emit_table(("", "value"), rows)
    console.emit("")
    print_statistics(found.statistics, found.classes)


def verify(
    names: CacheNames = None,
    raw: Annotated[
        Path | None,
        typer.Option("--raw", help="Read these raw data in full, too: do they give the key that the cache has?"),
    ] = None,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Read caches from the first byte to the last: all of them, or those named.

    Exit code 1 where anything is not as it was written.

    Example: plifctl cache verify
    """
    from plifctl.cache.catalogue import list_caches, select, verify_cache

    folder = options.existing_cache_dir(cache_dir)
    entries = list_caches(folder)
    chosen = [select(entries, name, folder) for name in names] if names else entries
    if raw is not None and len({entry.path.parent for entry in chosen if entry.state == "whole"}) > 1:
        raise UsageError("--raw holds one data set", hint="name its caches: plifctl cache verify NAME … --raw DIR")
    found = {}
    for entry in chosen:
        if entry.state not in ("whole", "unreadable"):
            if names:
                raise UsageError(f"{entry.name}: {entry.state}, there is nothing to verify")
            console.note(f"{entry.name}: {entry.state}, passed over")
            continue
        try:
            with console.bar(f"verifying {entry.name}", "samples") as bar:
                problems = verify_cache(entry.path, bar.update)
        except FileNotFoundError:
            if entry.path.exists():
                raise
            console.note(f"{entry.name}: removed meanwhile")
            continue
        if raw is not None and not problems:
            problems = _against_raw(entry, raw, folder)
        found[entry.name] = problems
        if not as_json:
            console.emit_verdict(entry.name, problems)
    if as_json:
        console.emit_json(found)
    elif not found:
        console.note(f"no caches in {folder}")
    if any(found.values()):
        damaged = sum(map(bool, found.values()))
        console.note(f"{damaged} of {len(found)} damaged; plifctl prepare … --force builds one again")
        raise typer.Exit(1)


def diff(
    first: CacheName, second: CacheName, cache_dir: options.CacheDirOption = None, as_json: options.JsonOption = False
) -> None:
    """Say where two caches differ: in what they were made of, and sample by sample.

    Exit code 1 where they do.

    Example: plifctl cache diff gesture/T20-number-1 gesture/T20-time
    """
    from plifctl.cache.catalogue import compare_caches

    caches = [_opened(name, cache_dir) for name in (first, second)]
    found = compare_caches(*caches)
    same_content = not any(found[what] for what in ("only_in_first", "only_in_second", "different"))
    if as_json:
        console.emit_json({**found, "same_content": same_content})
    else:
        for name, (was, now) in found["key"].items():
            console.emit(f"{name}: {_text(was)} | {_text(now)}")
        common = len(caches[0].sample_ids) - len(found["only_in_first"])
        console.emit(f"{len(found['different'])} of {common} common samples differ{_some(found['different'])}")
        for number, what in (("first", "only_in_first"), ("second", "only_in_second")):
            if found[what]:
                console.emit(f"{len(found[what])} samples only in the {number}{_some(found[what])}")
    if not same_content or found["key"]:
        raise typer.Exit(1)


def export(
    name: CacheName,
    to: Annotated[ExportTarget, typer.Option("--to", help="For which tool.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; it must not be there yet, or be empty.")],
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write a cache's samples as files that other tools read.

    Example: plifctl cache export gesture/T20 --to spikingjelly --out ~/DVS128Gesture
    """
    from plifctl.cache.export import export_cache

    cache = _opened(name, cache_dir)
    with console.bar(f"writing {out}", "samples") as bar:
        exported = export_cache(cache, to, out, progress=bar.update, workers=DEFAULT_WORKERS)
    if as_json:
        console.emit_json({"folder": str(exported.folder), "samples": exported.samples, "bytes": exported.nbytes})
    else:
        console.emit(f"{exported.samples} samples written to {exported.folder}")
        console.emit(exported.loading)


def rm(
    names: Annotated[list[str], typer.Argument(help=_NAME + " Several may be named.", autocompletion=_names)],
    dry_run: options.DryRunOption = False,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Remove caches; plifctl prepare builds them again.

    Example: plifctl cache rm gesture/T20-time
    """
    from plifctl.cache.catalogue import list_caches, select

    folder = options.existing_cache_dir(cache_dir)
    entries = list_caches(folder)
    chosen = {entry.path: (entry, "named") for entry in (select(entries, name, folder) for name in names)}
    _remove(list(chosen.values()), dry_run, as_json, pass_over_busy=False)


def prune(
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Remove older caches, too.")
    ] = None,
    dry_run: options.DryRunOption = False,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Remove unfinished builds, what cannot be read, and caches of other versions, which nothing takes any more.

    Example: plifctl cache prune --older-than 90 --dry-run
    """
    from plifctl.cache.catalogue import removable

    _remove(
        removable(options.existing_cache_dir(cache_dir), older_than_days=older_than),
        dry_run,
        as_json,
        pass_over_busy=True,
    )


def _remove(chosen: list[tuple[Entry, str]], dry_run: bool, as_json: bool, *, pass_over_busy: bool) -> None:
    from plifctl.cache.catalogue import remove_cache

    gone: list[tuple[Entry, str]] = []
    for entry, why in chosen:
        try:
            if not dry_run:
                remove_cache(entry)
        except CacheError as busy:
            if not pass_over_busy:
                raise
            console.note(str(busy))
            continue
        gone.append((entry, why))
        if not as_json:
            console.emit(f"{'would be removed' if dry_run else 'removed'}: {entry.name} ({why})")
    total = sum(entry.nbytes for entry, _ in gone)
    if as_json:
        removed = [{"name": entry.name, "why": why, "bytes": entry.nbytes} for entry, why in gone]
        console.emit_json({"removed": removed, "bytes": total, "dry_run": dry_run})
    else:
        console.emit(f"{len(gone)} {'would be removed' if dry_run else 'removed'}, {total / 1e6:,.1f} MB")


def _opened(name: str, cache_dir: Path | None) -> Cache:
    from plifctl.cache import Cache
    from plifctl.cache.catalogue import list_caches, select

    folder = options.existing_cache_dir(cache_dir)
    entry = select(list_caches(folder), name, folder)
    if entry.state == "unfinished":
        raise CorruptCacheError(f"{entry.path}: an unfinished build", hint="type its plifctl prepare again: it goes on")
    return Cache(entry.path)


def _against_raw(entry: Entry, raw: Path, cache_dir: Path) -> list[str]:
    """Reads raw data in full, whatever is remembered of them, and compares the key they give."""
    from plifctl.cache import Cache, key_of
    from plifctl.cache.key import differences, said
    from plifctl.config.dataset import FramesSpec, Framing
    from plifctl.data.source import RawSource
    from plifctl.pipeline.prepare import open_raw_reported

    fields = Cache(entry.path).key.fields
    framing = Framing(
        dataset=options.registry().dataset(fields["dataset"]).dataset,
        frames=FramesSpec.model_validate(fields["frames"]) if fields["frames"] is not None else None,
    ).with_T(fields["T"])
    source = RawSource(raw, verify=False, download=False, cache_dir=cache_dir, remember=False)
    found = differences(fields, key_of(open_raw_reported(framing, source, console.bar)).fields)
    return [f"{raw} gives another cache: {said(found)}"] if found else []


def _row(entry: Entry) -> tuple[object, ...]:
    about: list[str] = [] if entry.state == "whole" else [entry.state]
    if entry.fields is not None:
        about += ["×".join(map(str, entry.shape[1:])), _choices(entry.fields["frames"] or {})]
        about += ["verified" if entry.verified else "unverified", "" if entry.complete else "INCOMPLETE"]
    samples = entry.shape[0] if entry.fields is not None else ""
    age = console.age(time.time() - entry.built)
    return entry.name, samples, f"{entry.nbytes / 1e6:,.1f}", age, ", ".join(filter(None, about))


def _choices(frames: Mapping[str, Any]) -> str:
    """What was chosen in framing, but for what the cache's name says."""
    named = ("slicing", "duration_us", "transforms")
    parts = [str(value) for name, value in frames.items() if name not in named and value not in (None, "refuse")]
    return ", ".join([*parts, *(transform["name"] for transform in frames.get("transforms", ()))])


def _tree(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "path": str(entry.path),
        "state": entry.state,
        "shape": list(entry.shape),
        "bytes": entry.nbytes,
        "age_seconds": round(time.time() - entry.built),
        "verified": entry.verified,
        "complete": entry.complete,
        "content_digest": entry.content,
        "key": dict(entry.fields) if entry.fields is not None else None,
    }


def _some(names: list[str]) -> str:
    return f": {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" if names else ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
