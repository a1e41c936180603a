"""Inspects prepared data; implements ``plifctl show-sample`` and ``plifctl cache show``.

Samples of a cache become pictures or an animation; a whole cache becomes statistics and, on request, histograms.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plifctl import files
from plifctl.cache import Cache
from plifctl.cache.statistics import Statistics, compute_statistics
from plifctl.config.choices import SPLIT_WORDS, Recipe, Split
from plifctl.config.dataset import DatasetSpec
from plifctl.errors import UsageError, did_you_mean
from plifctl.pipeline.prepare import PrepareOptions, find_prepared
from plifctl.pipeline.progress import Progress, silent

if TYPE_CHECKING:
    from plifctl.report.pictures import Sample

MAX_SAMPLES = 100
"""Most samples in one picture."""

_MAX_NAME_BYTES = 200  # of a default name without its ending; file systems take 255, of the temporary file as well

_SLICING = {
    "number": "cut into equal numbers of events",
    "number-remainder": "cut into equal numbers of events, the rest in the last",
    "time": "cut into equal times",
}


@dataclass(frozen=True)
class SampleSelection:
    """Samples of a cache to inspect.

    Attributes:
        sample: Id of one sample, or its row in the cache; excludes all other fields.
        split: Samples of this split only.
        label: Samples of this class only, by name or number.
        each_class: Take ``count`` samples of each class, not in total.
        count: Number of samples, the first ones in the cache.
    """

    sample: str | None = None
    split: Split | None = None
    label: str | None = None
    each_class: bool = False
    count: int = 1


@dataclass(frozen=True)
class ShowSampleOptions:
    """The options of ``plifctl show-sample``.

    Attributes:
        dataset: Name of a data set or an experiment in the registry, or a YAML file of one.
        T: Number of frames of the cache; None: the smallest that experiments use.
        recipe: Recipe of framing; None: of the file, or ``paper``.
        overrides: Changes to it, texts ``frames.key=value``.
        selection: Which samples to draw.
        out: Picture to write: .png, or .gif for an animation of one sample; None: named after the samples.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
    """

    dataset: str
    T: int | None = None
    recipe: Recipe | None = None
    overrides: tuple[str, ...] = ()
    selection: SampleSelection = field(default_factory=SampleSelection)
    out: Path | None = None
    cache_dir: Path | None = None


@dataclass(frozen=True)
class ShownSamples:
    """A picture that was written.

    Attributes:
        out: The picture.
        cache: The cache.
        headings: Id, class and further facts of each sample, in one line.
        samples: The same facts as JSON values.
    """

    out: Path
    cache: Path
    headings: tuple[str, ...]
    samples: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class CacheDescription:
    """Origin of a cache, and its statistics.

    Attributes:
        facts: Path, size, shape, origin and key, as JSON values.
        classes: Class names.
        statistics: Statistics of all samples.
    """

    facts: dict[str, Any]
    classes: tuple[str, ...]
    statistics: Statistics


def show_samples(options: ShowSampleOptions) -> ShownSamples:
    """Draws samples of a cache and writes the picture.

    Raises:
        UsageError: Unknown data set, sample or class; no sample fits; or the picture cannot show what is selected.
        CacheError: There is no such cache; the hint has the command that builds it.
        MachineError: The picture cannot be written.
    """
    from plifctl.report import pictures  # imports matplotlib, which statistics do not need

    out, selection = options.out, options.selection
    files.check_picture(out, ".png", ".gif", what="pictures are .png, or .gif for an animation")
    wanted = PrepareOptions(options.dataset, options.T, options.recipe, options.overrides, cache_dir=options.cache_dir)
    framing, cache = find_prepared(wanted, choose_T=True)
    dataset = framing.dataset
    rows = select_rows(cache, dataset, selection)
    animated = out is not None and out.suffix.lower() == ".gif"
    if animated and dataset.kind == "images":
        raise UsageError(f"{dataset.title} is an image data set; images do not move", hint="--out NAME.png")
    if animated and len(rows) > 1:
        raise UsageError(f"a .gif shows one sample, not {len(rows)}", hint="--out NAME.png, or --sample")
    entries = [_describe_row(cache, dataset, row) for row in rows]
    samples = [_load_sample(cache, entry) for entry in entries]
    path = out or Path(_default_name(dataset.name, entries, selection.each_class))
    if dataset.kind == "images":
        _, height, width = samples[0].content.shape
        pictures.save_picture(pictures.draw_images(dataset.title, f"{width} × {height} pixels", samples), path)
    elif animated:
        pictures.save_picture(pictures.animate_events(dataset.title, samples[0]), path)
    else:
        pictures.save_picture(pictures.draw_events(dataset.title, _describe_framing(cache), samples), path)
    return ShownSamples(path, cache.path, tuple(sample.heading for sample in samples), tuple(entries))


def describe_cache(cache: Cache, histograms: Path | None = None, progress: Progress = silent) -> CacheDescription:
    """Reads a cache and returns its origin and its statistics.

    Args:
        cache: The cache.
        histograms: PNG to draw histograms to, if any.
        progress: Opens the task of reading.

    Raises:
        UsageError: ``histograms`` does not end in .png.
        CorruptCacheError: A sample fails its checksum.
    """
    files.check_picture(histograms, ".png", what="histograms are drawn as .png")
    with progress(f"reading {cache.path.name}", "samples") as task:
        statistics = compute_statistics(cache, task.update)
    classes = tuple(cache.key.fields["classes"])
    if histograms is not None:
        from plifctl.report.histograms import draw_histograms
        from plifctl.report.pictures import save_picture

        title, details = f"{cache.path.parent.name}/{cache.path.stem}", f"content {cache.content_digest[:12]}"
        save_picture(draw_histograms(title, details, statistics, classes), histograms)
    facts: dict[str, Any] = {
        "path": str(cache.path),
        "bytes": cache.path.stat().st_size,
        "shape": list(cache.shape),
        "dtype": str(cache.dtype),
        "compression": cache.compression,
        "created": cache.created,
        "made_by": cache.made_by,
        "verified": cache.verified,
        "complete": cache.complete_set,
        "notes": list(cache.notes),
        "empty_samples": [cache.sample_ids[row] for row in np.flatnonzero(cache.without_events)],
        "content_digest": cache.content_digest,
        "key": dict(cache.key.fields),
    }
    return CacheDescription(facts, classes, statistics)


def select_rows(cache: Cache, dataset: DatasetSpec, selection: SampleSelection) -> list[int]:
    """Returns the rows of the selected samples, at least one.

    Raises:
        UsageError: Unknown sample or class, no sample fits, or more than MAX_SAMPLES.
    """
    if selection.sample is not None:
        if selection != SampleSelection(selection.sample):
            raise UsageError("--sample names one sample: without --split, --label, --each-class and --count")
        return [_find_row(cache, selection.sample)]
    wanted = np.ones(len(cache.labels), bool)
    if selection.split is not None:
        wanted &= np.array(cache.splits) == selection.split
    if selection.label is not None:
        wanted &= cache.labels == _find_class(dataset, selection.label)
    rows, count = np.flatnonzero(wanted), selection.count
    if not len(rows):
        named = {"split": selection.split, "class": selection.label}
        of = " and ".join(f"{name} {value}" for name, value in named.items() if value is not None)
        found = " and ".join(dict.fromkeys(cache.splits))
        raise UsageError(f"{cache.path}: no sample of {of or 'any class'}", hint=f"it has {found} samples")
    if selection.each_class:
        labels = cache.labels[rows]
        rows = np.concatenate([rows[labels == label][:count] for label in np.unique(labels)])
    else:
        rows = rows[:count]
    if len(rows) > MAX_SAMPLES:
        raise UsageError(f"{len(rows)} samples; at most {MAX_SAMPLES} are drawn at once", hint="a smaller --count")
    return [int(row) for row in rows]


def _find_class(dataset: DatasetSpec, label: str) -> int:
    if label in dataset.classes:
        return dataset.classes.index(label)
    if label.isdecimal() and int(label) < len(dataset.classes):
        return int(label)
    raise UsageError(
        f"unknown class {label!r}; {dataset.title} has {len(dataset.classes)} classes, by name or number from 0",
        hint=did_you_mean(label, dataset.classes),
    )


def _find_row(cache: Cache, sample: str) -> int:
    n = len(cache.sample_ids)
    if sample in cache.sample_ids:
        return cache.sample_ids.index(sample)
    if not sample.isdecimal():
        raise UsageError(f"{cache.path}: no sample {sample!r}", hint=did_you_mean(sample, cache.sample_ids))
    if int(sample) >= n:
        raise UsageError(f"--sample {sample}: the cache has {n} samples, rows 0 to {n - 1}")
    return int(sample)


def _describe_row(cache: Cache, dataset: DatasetSpec, row: int) -> dict[str, Any]:
    label = int(cache.labels[row])
    return {
        "row": row,
        "id": cache.sample_ids[row],
        "label": label,
        "class": dataset.classes[label],
        "split": cache.splits[row],
        **({"group": cache.groups[row]} if cache.groups else {}),
        **{name: int(column[row]) for name, column in cache.counts.items()},
    }


def _load_sample(cache: Cache, entry: dict[str, Any]) -> Sample:
    from plifctl.report.pictures import Sample

    content = cache.read(np.array([entry["row"]]))[0]
    number, name = entry["label"], entry["class"]
    events = entry.get("n_events")
    details = [] if events is None else [f"{events:,} events" if events else "NO EVENTS: an empty sample"]
    details += [f"{SPLIT_WORDS[entry['split']]} set"] if len(set(cache.splits)) > 1 else []
    details += [f"group {entry['group']}"] if entry.get("group") else []
    return Sample(
        name=entry["id"],
        label=f"class {number}" if name == str(number) else f"{name} (class {number})",
        detail=" · ".join(details),
        content=content[: entry["n_frames"]] if "n_frames" in entry else content,
    )


def _describe_framing(cache: Cache) -> str:
    T, frames = cache.shape[1], cache.key.fields["frames"]
    if T == 1:
        return "T = 1 frame"
    slicing = frames["slicing"]
    how = _SLICING.get(slicing) or _describe_durations(frames)
    return f"T = {T} frames, {how}; time runs from left to right"


def _describe_durations(frames: dict[str, Any]) -> str:
    """Returns how slices of a fixed duration were cut.

    Example:
        >>> _describe_durations({"slicing": "duration-first", "duration_us": 20000, "overlap_us": 5000})
        'the first slices of 20 ms, each beginning 15 ms after the one before'
    """
    duration_ms, overlap_ms = frames["duration_us"] / 1000, frames.get("overlap_us", 0) / 1000
    first = "the first " if frames["slicing"] == "duration-first" else ""
    if not overlap_ms:
        return f"{first}slices of {duration_ms:g} ms" if first else f"cut every {duration_ms:g} ms"
    return f"{first}slices of {duration_ms:g} ms, each beginning {duration_ms - overlap_ms:g} ms after the one before"


def _default_name(dataset: str, entries: list[dict[str, Any]], each_class: bool) -> str:
    if len(entries) > 1:
        return f"{dataset}-{'each-class' if each_class else f'{len(entries)}-samples'}.png"
    stem = f"{dataset}-{entries[0]['id'].replace('/', '-')}"
    while len(os.fsencode(stem)) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    return f"{stem}.png"
