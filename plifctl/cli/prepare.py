"""plifctl prepare: raw recordings become a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from plifctl import console, paths
from plifctl.cli import options
from plifctl.errors import UsageError

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
    workers: options.WorkersOption = options.DEFAULT_WORKERS,
    force: Annotated[bool, typer.Option("--force", help="Build the cache even if it is there.")] = False,
    dry_run: options.DryRunOption = False,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Frame raw recordings into a cache.

    Train and eval read the cache only. Event sets need --T. The raw files are looked for in --raw, in PLIFCTL_RAW_DIR,
    and where systems keep data sets.

    Example: plifctl prepare gesture --T 20 --raw ~/DvsGesture
    """
    from plifctl import cache
    from plifctl.specs import MAX_T

    changes = [*(overrides or []), *(["frames.invalid_events=keep"] if keep_invalid else [])]
    registry = options.registry()
    found = registry.dataset(dataset, recipe or "paper", changes)
    spec, frames = found.dataset, found.frames
    if spec.kind == "events" and T is None:
        used = {e.T for e in (registry.experiment(n).spec for n in registry.experiments()) if e.dataset.name == dataset}
        raise UsageError(
            f"{spec.title} is a set of events: into how many frames?",
            hint=f"plifctl prepare {dataset} --T {min(used, default=10)}",
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
    source = options.read_raw(spec, frames, raw, verify=not no_checksum, cache_dir=None if dry_run else folder)
    for text in source.notes:
        console.warn(text)
    key = cache.key_of(source, T)
    hit = not force and cache.cached(key, folder, made_by=command) is not None
    if dry_run:
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
            console.emit(f"{len(source.samples)} samples, {_megabytes(expected)} before compression")
        return
    with console.bar(f"framing {spec.title}", "samples") as bar:
        built = cache.build_cache(
            source, T, folder, workers=workers, force=force, made_by=command, progress=lambda n, of: bar.update(n, of)
        )
    _report(built, "found" if hit else "built", as_json)


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
    if built.key.fields["T"] is not None:
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
        left_out = f", {read - framed} invalid ones left out" if read != framed else ""
        console.emit(f"{framed} events framed{left_out}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
