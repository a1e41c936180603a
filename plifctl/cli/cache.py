"""plifctl cache: lists, verifies, compares, exports and removes caches."""

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
from plifctl.errors import list_names
from plifctl.units import format_age, format_bytes

if TYPE_CHECKING:
    from plifctl.cache.catalogue import Entry
    from plifctl.pipeline.caches import Removal


def _names(incomplete: str) -> list[str]:
    caches = sorted(paths.cache_dir().glob("*/*.h5"))
    names = [f"{path.parent.name}/{path.stem}" for path in caches]
    return [name for name in names if name.startswith(incomplete)]


_NAME = "Cache: path in the cache directory, or a unique beginning of DATASET/NAME, NAME or its hash."
_NAMES = "Caches: paths in the cache directory, or unique beginnings of DATASET/NAME, NAME or its hash."
CacheName = Annotated[str, typer.Argument(help=_NAME, autocompletion=_names)]
CacheNames = Annotated[list[str], typer.Argument(help=_NAMES, autocompletion=_names)]
OptionalCacheNames = Annotated[list[str] | None, typer.Argument(help=_NAMES, autocompletion=_names)]


group = typer.Typer(
    no_args_is_help=True, help="List, inspect, verify, compare, export and remove caches.", rich_markup_mode=None
)


@group.command()
def ls(cache_dir: options.CacheDirOption = None, as_json: options.JsonOption = False) -> None:
    """List caches and unfinished builds.

    Also listed are other HDF5 files in the cache directory.

    Example: plifctl cache ls
    """
    from plifctl.cache.catalogue import list_caches

    folder = options.existing_cache_dir(cache_dir)
    entries = list_caches(folder)
    if as_json:
        console.emit_json([_tree(entry) for entry in entries])
    elif not entries:
        console.note(f"no caches in {folder}; plifctl prepare builds one")
    else:
        rows = [_row(entry) for entry in entries]
        console.emit_table(("cache", "samples", "MB", "age", "shape, choices of framing, raw files"), rows)
        console.emit(f"\n{format_bytes(sum(entry.nbytes for entry in entries))} in {folder}")


@group.command()
def show(
    name: CacheName,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=options.path, help="Write histograms to this file, too (.png).", show_default=False
        ),
    ] = None,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show origin and statistics of a cache.

    Example: plifctl cache show gesture/T20
    """
    from plifctl.cli.statistics import print_statistics
    from plifctl.config.base import flatten
    from plifctl.pipeline.caches import open_named_cache
    from plifctl.pipeline.samples import describe_cache

    cache = open_named_cache(name, options.existing_cache_dir(cache_dir))
    found = describe_cache(cache, out, console.bar)
    if out is not None:
        console.note(f"written: {out}")
    if as_json:
        console.emit_json({**found.facts, "statistics": found.statistics.to_json()})
        return
    facts = flatten({**found.facts, "empty_samples": list_names(found.facts["empty_samples"], 5), "notes": None})
    rows = [(key, _text(value)) for key, value in facts.items() if value not in (None, [], "")]
    rows += [("note", note) for note in found.facts["notes"]]
    console.emit_table(("", "value"), rows)
    console.emit("")
    print_statistics(found.statistics, found.classes)


@group.command()
def verify(
    names: OptionalCacheNames = None,
    raw: Annotated[
        Path | None,
        typer.Option(
            "--raw", parser=options.path, help="Read these raw data too, and compare their key with that of the cache."
        ),
    ] = None,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Verify every checksum of caches.

    Reads all caches completely, or those named. Exit code 1 if any is damaged, cannot be read, or is not
    what the data in --raw give today.

    Example: plifctl cache verify
    """
    from plifctl.pipeline.caches import verify_caches

    folder = options.existing_cache_dir(cache_dir)
    found = console.emit_verdicts(verify_caches(names or [], folder, raw=raw, progress=console.bar), as_json=as_json)
    if not (found or as_json):
        console.note(f"no caches in {folder}")
    if damaged := sum(verdict == "DAMAGED" for _, verdict, _ in found):
        console.note(f"{damaged} of {len(found)} damaged; to build a cache again: plifctl prepare … --force")
    if any(problems for _, _, problems in found):
        raise typer.Exit(1)


@group.command()
def diff(
    first: CacheName, second: CacheName, cache_dir: options.CacheDirOption = None, as_json: options.JsonOption = False
) -> None:
    """Show where two caches differ.

    Compares what they were built from, and their samples one by one. Exit code 1 if they differ.

    Example: plifctl cache diff gesture/T20-number-1 gesture/T20-time
    """
    from plifctl.cache.catalogue import compare_caches
    from plifctl.pipeline.caches import open_named_cache

    caches = [open_named_cache(name, options.existing_cache_dir(cache_dir)) for name in (first, second)]
    found = compare_caches(*caches)
    same_content = not any(found[part] for part in ("only_in_first", "only_in_second", "different"))
    if as_json:
        console.emit_json({**found, "same_content": same_content})
    else:
        for field, (ours, theirs) in found["key"].items():
            console.emit(f"{field}: {_text(ours)} | {_text(theirs)}")
        common = len(caches[0].sample_ids) - len(found["only_in_first"])
        named = f": {list_names(found['different'], 5)}" if found["different"] else ""
        console.emit(f"{len(found['different'])} of {common} common samples differ{named}")
        for number, part in (("first", "only_in_first"), ("second", "only_in_second")):
            if found[part]:
                console.emit(f"{len(found[part])} samples only in the {number}: {list_names(found[part], 5)}")
    if not same_content or found["key"]:
        raise typer.Exit(1)


@group.command()
def export(
    name: CacheName,
    to: Annotated[ExportTarget, typer.Option("--to", help="Tool that reads the files.")],
    out: Annotated[Path, typer.Option("--out", parser=options.path, help="Folder to write; must be new or empty.")],
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write a cache as files for another tool.

    Example: plifctl cache export gesture/T20 --to spikingjelly --out ~/DVS128Gesture
    """
    from plifctl.cache.export import export_cache
    from plifctl.pipeline.caches import open_named_cache

    cache = open_named_cache(name, options.existing_cache_dir(cache_dir))
    for note in cache.notes:
        console.warn(note)
    with console.bar(f"writing {out}", "samples") as bar:
        exported = export_cache(cache, to, out, progress=bar.update, workers=DEFAULT_WORKERS)
    if as_json:
        found = {"folder": str(exported.folder), "samples": exported.samples, "bytes": exported.nbytes}
        console.emit_json({**found, "loading": exported.loading})
    else:
        console.emit(f"{exported.samples} samples written to {exported.folder}")
        console.emit(exported.loading)


@group.command()
def rm(
    names: CacheNames,
    dry_run: options.DryRunOption = False,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Remove caches; plifctl prepare builds them again.

    Example: plifctl cache rm gesture/T20-time
    """
    from plifctl.pipeline.caches import named_removals

    _remove(named_removals(names, options.existing_cache_dir(cache_dir)), dry_run, as_json, skip_busy=False)


@group.command()
def prune(
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than", metavar="DAYS", min=0, help="Also remove caches built more than this many days ago."
        ),
    ] = None,
    dry_run: options.DryRunOption = False,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Remove caches that are no longer used.

    These are unfinished builds, unreadable caches, and caches made by other versions of the decoders, of framing or of
    the cache format.

    Example: plifctl cache prune --older-than 90 --dry-run
    """
    from plifctl.cache.catalogue import removable_entries

    folder = options.existing_cache_dir(cache_dir)
    _remove(removable_entries(folder, older_than_days=older_than), dry_run, as_json, skip_busy=True)


def _remove(removals: list[Removal], dry_run: bool, as_json: bool, *, skip_busy: bool) -> None:
    from plifctl.pipeline.caches import remove_caches

    removed = remove_caches(removals, dry_run=dry_run, skip_busy=skip_busy)
    rows = (
        (f"{entry.name} ({reason})", {"name": entry.name, "why": reason, "bytes": entry.nbytes})
        for entry, reason in removed
    )
    console.emit_removed(rows, dry_run=dry_run, as_json=as_json)


def _row(entry: Entry) -> tuple[object, ...]:
    about: list[str] = [] if entry.state == "ok" else [entry.state.replace("-", " ")]
    if entry.fields is not None:
        about += ["×".join(map(str, entry.shape[1:])), _choices(entry.fields["frames"] or {})]
        about += ["verified" if entry.verified else "unverified", "" if entry.complete else "INCOMPLETE"]
    samples = entry.shape[0] if entry.fields is not None else ""
    age = format_age(time.time() - entry.built)
    return entry.name, samples, f"{entry.nbytes / 1e6:,.1f}", age, ", ".join(filter(None, about))


def _choices(frames: Mapping[str, Any]) -> str:
    """Returns the choices of a framing that are not part of the cache's name."""
    from plifctl.config.identity import current_word

    in_name = ("slicing", "duration_us", "overlap_us", "transforms")
    values = [
        f"{name}={current_word(value)}"
        for name, value in frames.items()
        if name not in in_name and value not in (None, "refuse")
    ]
    transforms = [transform["name"] for transform in frames.get("transforms", ())]
    return ", ".join([*values, *transforms])


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


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
