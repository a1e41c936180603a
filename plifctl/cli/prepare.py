"""plifctl prepare: frame raw recordings into a cache."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from plifctl.cli import console, options
from plifctl.config.choices import OWN_LAYOUTS, SPLIT_WORDS, SPLITS, Compression, Split
from plifctl.data.source import DEFAULT_WORKERS
from plifctl.units import format_bytes

if TYPE_CHECKING:
    from plifctl.cache import Cache
    from plifctl.pipeline.download import DownloadPlan
    from plifctl.pipeline.prepare import PreparePlan


def prepare(
    dataset: options.Dataset,
    T: Annotated[int | None, typer.Option("--T", help="Number of frames (time steps) of each recording.")] = None,
    raw: options.RawOption = None,
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    no_checksum: options.ChecksumOption = False,
    no_download: options.NoDownloadOption = False,
    workers: options.WorkersOption = DEFAULT_WORKERS,
    force: Annotated[bool, typer.Option("--force", help="Build the cache even if it exists.")] = False,
    compression: Annotated[
        Compression,
        typer.Option("--compression", help="Compression of the samples; gzip and none need no plugin to read."),
    ] = "zstd",
    dry_run: options.DryRunOption = False,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
    _keep_invalid: Annotated[
        bool, options.replaced_option("--keep-invalid", "--set frames.invalid_events=keep")
    ] = False,
) -> None:
    """Frame raw recordings into a cache.

    Training and evaluation read the cache only. Event data sets need --T. Raw files are searched in --raw alone, if it
    is given, else in PLIFCTL_RAW_DIR, where systems keep data sets, and beside the caches. Missing ones are downloaded
    to --raw, to PLIFCTL_RAW_DIR, or beside the caches.

    Example: plifctl prepare gesture --T 20 --raw ~/DvsGesture
    """
    from plifctl.pipeline.prepare import PrepareOptions, plan_prepare
    from plifctl.pipeline.prepare import prepare as prepare_cache

    wanted = PrepareOptions(
        dataset,
        T=T,
        recipe=recipe,
        overrides=tuple(overrides or ()),
        source=options.raw_source(raw, no_checksum=no_checksum, no_download=no_download, workers=workers),
        force=force,
        compression=compression,
        cache_dir=cache_dir,
    )
    if dry_run:
        _print_plan(plan_prepare(wanted, console.bar), as_json)
    else:
        prepared = prepare_cache(wanted, console.bar)
        _print_cache(prepared.cache, "built" if prepared.built else "found", as_json)


def _print_plan(plan: PreparePlan, as_json: bool) -> None:
    if plan.download is not None:
        _print_download(plan.download, as_json)
        return
    assert plan.key is not None
    state = "hit" if plan.hit else "miss"
    if as_json:
        console.emit_json(
            {
                "state": state,
                "path": str(plan.path),
                "key": dict(plan.key.fields),
                "samples": plan.samples,
                "bytes_uncompressed": plan.nbytes,
                "nearest": plan.nearest or None,
                "verified": plan.verified,
                "complete": plan.complete,
            }
        )
        return
    console.emit(f"{state}: {plan.path}")
    if plan.nearest:
        console.emit(plan.nearest)
    if not plan.hit:
        by_duration = plan.framing.frames is not None and not plan.framing.needs_T
        each = " per frame" if by_duration else ""
        console.emit(f"{plan.samples:,} samples, {format_bytes(plan.nbytes)}{each} before compression")


def _print_download(plan: DownloadPlan, as_json: bool) -> None:
    if as_json:
        files = [
            {"name": file.name, "urls": list(file.urls), "md5": file.md5, "bytes": file.nbytes} for file in plan.files
        ]
        console.emit_json({"state": "download", "title": plan.title, "folder": str(plan.folder), "files": files})
        return
    console.emit(f"download: {plan.title} to {plan.folder}, {plan.amount}")
    for line in plan.lines():
        console.emit(f"  {line}")


def _print_cache(cache: Cache, state: str, as_json: bool) -> None:
    counts, nbytes = Counter(cache.splits), cache.path.stat().st_size
    tree = {
        "state": state,
        "path": str(cache.path),
        "samples": {split: counts[split] for split in SPLITS if counts[split] or split != "validation"},
        "shape": list(cache.shape),
        "dtype": str(cache.dtype),
        "bytes": nbytes,
        "verified": cache.verified,
        "complete": cache.complete_set,
        "content_digest": cache.content_digest,
        "key": dict(cache.key.fields),
    }
    if cache.counts:
        tree["events"] = {name: int(counts.sum()) for name, counts in cache.counts.items()}
    if as_json:
        console.emit_json(tree)
        return
    console.emit(f"{state}: {cache.path}")
    console.emit(f"{_count_samples(counts)}{_trust(cache)}, {format_bytes(nbytes)}")
    console.emit(f"{'×'.join(map(str, cache.shape[1:]))} {cache.dtype} per sample; content {cache.content_digest[:12]}")
    if cache.counts:
        read, framed = (int(cache.counts[name].sum()) for name in ("n_raw", "n_events"))
        because = "(invalid, outside, by transforms, or after the last slice)"
        left_out = f", {read - framed:,} left out {because}" if read != framed else ""
        console.emit(f"{framed:,} events framed{left_out}")


def _trust(cache: Cache) -> str:
    complete = f"set {'' if cache.complete_set else 'in'}complete"
    if cache.key.fields["layout"] in OWN_LAYOUTS:  # there is no published checksum, and often no official number
        return "" if cache.complete_set else f" ({complete})"
    return f" (raw files {'' if cache.verified else 'not '}verified, {complete})"


def _count_samples(counts: Counter[Split]) -> str:
    if counts["train"] == counts.total():
        return f"{counts['train']:,} samples without an official split"
    *parts, last = (f"{counts[split]:,} {SPLIT_WORDS[split]}" for split in SPLITS if counts[split])
    return f"{', '.join(parts)} and {last} samples" if parts else f"{last} samples"
