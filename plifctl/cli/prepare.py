"""plifctl prepare: raw recordings become a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from plifctl import paths
from plifctl.cli import console, options
from plifctl.errors import MissingRawDataError, UsageError

if TYPE_CHECKING:
    from plifctl.cache import Cache


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("prepare")(prepare)


def prepare(
    dataset: options.Dataset,
    T: Annotated[int | None, typer.Option("--T", help="Frames (time steps) a recording is cut into.")] = None,
    raw: options.RawOption = None,
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    keep_invalid: Annotated[
        bool, typer.Option("--keep-invalid", help="Keep AEDAT 3.1 events that are marked invalid.")
    ] = False,
    no_checksum: options.ChecksumOption = False,
    no_download: options.NoDownloadOption = False,
    workers: options.WorkersOption = options.DEFAULT_WORKERS,
    force: Annotated[bool, typer.Option("--force", help="Build the cache even if it is there.")] = False,
    compression: Annotated[
        Literal["zstd", "gzip", "none"],
        typer.Option("--compression", help="How samples are packed; gzip and none need no plugin to read."),
    ] = "zstd",
    dry_run: options.DryRunOption = False,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Frame raw recordings into a cache.

    Train and eval read the cache only. Event sets need --T. The raw files are looked for in --raw, in PLIFCTL_RAW_DIR,
    and where systems keep data sets; missing ones are downloaded to the first of these, or beside the caches.

    Example: plifctl prepare gesture --T 20 --raw ~/DvsGesture
    """
    from plifctl import cache
    from plifctl.cli.fetch import plan_of, say_plan
    from plifctl.cli.making import make_cache, read_raw
    from plifctl.config.dataset import MAX_T

    changes = [*(overrides or []), *(["frames.invalid_events=keep"] if keep_invalid else [])]
    found = options.registry().dataset(dataset, recipe or "paper", changes)
    spec, frames = found.dataset, found.frames
    by_duration = frames is not None and frames.slicing == "duration"
    if by_duration and T is not None:
        raise UsageError(
            "--T: slices of a fixed duration are as many as the longest sample needs", hint="leave --T out"
        )
    if spec.kind == "events" and T is None and not by_duration:
        raise UsageError(
            f"{spec.title} is a set of events: into how many frames?",
            hint=f"plifctl prepare {dataset} --T {options.usual_time_steps(dataset)}",
        )
    if T is not None and not 1 <= T <= MAX_T:
        raise UsageError(f"--T {T}: expected 1 to {MAX_T}")
    if spec.kind == "images" and T is not None:
        console.note(
            f"{spec.title} is cached once for all T: images are shown for T steps in training (T of the experiment)"
        )
        T = None
    command = options.prepare_command(
        dataset,
        T=T,
        recipe=recipe or "paper",
        changes=changes,
        raw=raw,
        cache_dir=cache_dir,
        no_checksum=no_checksum,
    )
    folder = cache_dir or paths.cache_dir()
    if not dry_run:
        built, fresh = make_cache(
            spec,
            T,
            frames,
            raw,
            cache_dir=folder,
            verify=not no_checksum,
            download=not no_download,
            command=command,
            workers=workers,
            force=force,
            compression=compression,
        )
        _report(built, "built" if fresh else "found", as_json)
        return
    try:
        source = read_raw(
            spec,
            frames,
            raw,
            verify=not no_checksum,
            cache_dir=folder,
            download=False,
            command=command,
            workers=workers,
            remember=False,
        )
    except MissingRawDataError as missing:
        to_get = plan_of(spec, missing, raw, folder)
        if no_download or not to_get.possible:
            raise
        say_plan(to_get, as_json)
        return
    for text in source.notes:
        console.warn(text)
    key = cache.key_of(source, T)
    hit = not force and cache.cached(key, folder, made_by=command) is not None
    expected = cache.expected_bytes(source, T)
    state = "hit" if hit else "miss"
    path = key.path(folder)
    if as_json:
        plan = {
            "state": state,
            "path": str(path),
            "key": dict(key.fields),
            "bytes_uncompressed": expected,
            "verified": source.verified,
            "complete": source.complete,
        }
        console.emit_json(plan)
        return
    console.emit(f"{state}: {path}")
    if not hit and not force:
        console.emit(f"{cache.nearest(key.fields, folder)}")
    if not hit:
        each = " a frame" if T is None and frames is not None else ""
        console.emit(f"{len(source.samples)} samples, {_megabytes(expected)}{each} before compression")


def _report(built: Cache, state: str, as_json: bool) -> None:
    test = int(built.is_test.sum())
    size = built.path.stat().st_size
    tree = {
        "state": state,
        "path": str(built.path),
        "samples": {"train": len(built.labels) - test, "test": test},
        "shape": list(built.shape),
        "dtype": str(built.dtype),
        "bytes": size,
        "verified": built.verified,
        "complete": built.complete_set,
        "content_digest": built.content_digest,
        "key": dict(built.key.fields),
    }
    if built.counts:
        tree["events"] = {name: int(counts.sum()) for name, counts in built.counts.items()}
    if as_json:
        console.emit_json(tree)
        return
    trust = ("verified" if built.verified else "not verified") + (
        ", complete" if built.complete_set else ", incomplete"
    )
    console.emit(f"{state}: {built.path}")
    console.emit(f"{len(built.labels) - test} training and {test} test samples ({trust}), {_megabytes(size)}")
    console.emit(f"{'×'.join(map(str, built.shape[1:]))} {built.dtype} a sample; content {built.content_digest[:12]}")
    if "events" in tree:
        read, framed = (int(built.counts[name].sum()) for name in ("n_raw", "n_events"))
        left_out = f", {read - framed} left out (invalid, outside, or by transforms)" if read != framed else ""
        console.emit(f"{framed} events framed{left_out}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
