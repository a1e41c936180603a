"""From raw files to a cache, with what a person sees of it: what prepare does, and train with --prepare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from plifctl import paths
from plifctl.cache import Cache, CacheBuilder
from plifctl.cache.chunks import Compression
from plifctl.cli import console
from plifctl.cli.fetch import fetch, how_to_get, plan_of
from plifctl.config.dataset import DatasetSpec, FramesSpec
from plifctl.data.datasets import open_raw
from plifctl.data.datasets.base import EventDataset, ImageDataset, Visit
from plifctl.errors import MissingRawDataError


def make_cache(
    dataset: DatasetSpec,
    T: int | None,
    frames: FramesSpec | None,
    raw: Path | None,
    *,
    cache_dir: Path,
    verify: bool,
    download: bool,
    command: str,
    workers: int,
    force: bool = False,
    compression: Compression = "zstd",
) -> tuple[Cache, bool]:
    """Returns a cache, built unless it is there, and whether it was built; says what the user must know of the data.

    Args:
        dataset: Which.
        T: Number of frames; None for images, and for slices of a fixed duration.
        frames: How events are framed; None for images.
        raw: The folder named by the user, or None.
        cache_dir: Where caches lie.
        verify: Refuse files that are not the published ones.
        download: Download missing files that can be.
        command: What was, or could have been, typed.
        workers: Number of threads.
        force: Build even if it is there.
        compression: How samples are packed.

    Raises:
        MissingRawDataError: As :func:`read_raw`.
    """
    with CacheBuilder(
        dataset,
        T,
        frames,
        cache_dir,
        workers=workers,
        force=force,
        compression=compression,
        made_by=command,
        progress=lambda done, total: bar.update(done, total),
    ) as building:
        source = read_raw(
            dataset,
            frames,
            raw,
            verify=verify,
            cache_dir=cache_dir,
            download=download,
            command=command,
            workers=workers,
            visit=building.visitor,
        )
        for text in source.notes:
            console.warn(text)
        with console.bar(f"framing {dataset.title}", "samples") as bar:
            cache = building.finish(source)
    return cache, building.built


def read_raw(
    dataset: DatasetSpec,
    frames: FramesSpec | None,
    raw: Path | None,
    *,
    verify: bool,
    cache_dir: Path,
    download: bool,
    command: str,
    workers: int,
    visit: Callable[[], Visit | None] = lambda: None,
    remember: bool = True,
) -> EventDataset | ImageDataset:
    """Finds and surveys raw data, with a bar; downloads what is missing.

    Args:
        dataset: Which.
        frames: How its events will be framed; None for images.
        raw: The folder named by the user, or None.
        verify: Refuse files that are not the published ones.
        cache_dir: Where caches lie, beside them what was downloaded and what was found in it.
        download: Download missing files that can be.
        command: What to type when files that cannot be downloaded are there.
        workers: Threads that read.
        visit: Asked for what is shown samples while files are read; see open_raw.
        remember: Write down what was found.

    Raises:
        MissingRawDataError: Files are missing that cannot or must not be downloaded; says how to get them.
    """

    def read() -> EventDataset | ImageDataset:
        console.note(f"reading {dataset.title} …")
        with console.bar(f"reading {dataset.title}", "MB") as bar:
            return open_raw(
                dataset,
                raw,
                frames=frames,
                verify=verify,
                notes=paths.survey_dir(cache_dir) if remember else None,
                downloads=paths.download_dir(cache_dir, dataset.name),
                progress=lambda done, total: bar.update(done // 10**6, max(1, total // 10**6)),
                workers=workers,
                visit=visit,
            )

    try:
        return read()
    except MissingRawDataError as missing:
        plan = plan_of(dataset, missing, raw, cache_dir)
        if not (download and plan.possible):
            missing.hint = how_to_get(plan, command) or missing.hint
            raise
    fetch(plan)
    return read()
