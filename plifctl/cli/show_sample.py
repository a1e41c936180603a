"""plifctl show-sample: samples of a cache as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plifctl import paths
from plifctl.cli import console, options
from plifctl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from plifctl.cache import Cache
    from plifctl.config.choices import Recipe
    from plifctl.config.dataset import DatasetSpec, Framing
    from plifctl.report.pictures import Sample

_SLICING = {
    "number": "cut into equal numbers of events",
    "number-remainder": "cut into equal numbers of events, the rest in the last",
    "time": "cut into equal times",
}


_MOST = 100  # samples in a picture


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("show-sample")(show_sample)


def show_sample(
    dataset: options.Dataset,
    T: Annotated[
        int | None, typer.Option("--T", min=1, help="Frames of the cache (default: as the experiments use).")
    ] = None,
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    sample: Annotated[
        str | None, typer.Option("--sample", help="Id of a sample, or its row in the cache (default: the first).")
    ] = None,
    split: Annotated[Literal["train", "test"] | None, typer.Option("--split", help="Of this set only.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Of this class only, by name or number.")] = None,
    each_class: Annotated[bool, typer.Option("--each-class", help="Draw --count samples of each class.")] = False,
    count: Annotated[int, typer.Option("--count", min=1, max=_MOST, help="Draw so many samples.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", help="Picture to write, .png or .gif (default: named after the sample).")
    ] = None,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Draw samples of a cache.

    Events: the T frames, ON orange, OFF blue, the more events the darker; a .gif shows them one after the other.
    Images: as they are, enlarged.

    Example: plifctl show-sample gesture --T 20 --label "air drums" --out drums.gif
    """
    from plifctl.pipeline.commands import usual_time_steps
    from plifctl.report import pictures as picture

    if out is not None and out.suffix.lower() not in (".png", ".gif"):
        raise UsageError(f"--out {out}: pictures are .png, or .gif for an animation", hint=f"--out {out.stem}.png")
    if out is not None and out.is_dir():
        raise UsageError(f"--out {out}: this is a folder", hint=f"--out {out / 'NAME.png'}")
    registry = options.registry()
    framed = registry.dataset(dataset, recipe or "paper", overrides or [])
    spec = framed.dataset
    cache = _cache(
        framed,
        T or (usual_time_steps(spec.name, registry) if spec.kind == "events" else None),
        recipe,
        overrides or [],
        cache_dir,
    )
    if sample is None:
        rows = _chosen(cache, spec, split, label, count, each_class)
    elif split or label or each_class or count > 1:
        raise UsageError("--sample names one sample: without --split, --label, --each-class and --count")
    else:
        rows = [_row(cache, sample)]
    if len(rows) > _MOST:
        raise UsageError(f"{len(rows)} samples; at most {_MOST} are drawn at once", hint="a smaller --count")
    animated = out is not None and out.suffix.lower() == ".gif"
    if animated and spec.kind == "images":
        raise UsageError(f"{spec.title} holds images, which do not move", hint="--out NAME.png")
    if animated and len(rows) > 1:
        raise UsageError(f"a .gif shows one sample, not {len(rows)}", hint="--out NAME.png, or --sample")
    path = out or Path(_name(dataset, cache, rows, each_class))
    entries = [_entry(cache, spec, row) for row in rows]
    samples = [_drawable(cache, entry) for entry in entries]
    if spec.kind == "images":
        _, height, width = spec.shape
        picture.save(picture.draw_images(spec.title, f"{width} x {height} pixels, as cached", samples), path)
    elif animated:
        picture.save(picture.animate(spec.title, samples[0]), path)
    else:
        T, slicing = cache.shape[1], cache.key.fields["frames"]["slicing"]
        if slicing == "duration":
            slicing = f"cut every {cache.key.fields['frames']['duration_us'] / 1000:g} ms"
        many = f"T = {T} frames, {_SLICING.get(slicing, slicing)}; time runs from left to right"
        frames = many if T > 1 else "T = 1 frame"
        picture.save(picture.draw_events(spec.title, frames, samples), path)
    if as_json:
        console.emit_json({"out": str(path), "cache": str(cache.path), "samples": entries})
    else:
        for drawn in samples:
            console.emit(drawn.heading)
        console.emit(f"written: {path}")


def _cache(
    framed: Framing, T: int | None, recipe: Recipe | None, overrides: list[str], cache_dir: Path | None
) -> Cache:
    from plifctl.cache import find_cache, raw_independent_key
    from plifctl.pipeline.commands import prepare_command

    framing = framed.with_T(T)
    prepare = prepare_command(framing, recipe=recipe or "paper", overrides=overrides, cache_dir=cache_dir)
    return find_cache(
        raw_independent_key(framing), cache_dir or paths.cache_dir(), prepare=prepare
    )


def _chosen(
    cache: Cache, spec: DatasetSpec, split: str | None, label: str | None, count: int, each_class: bool
) -> list[int]:
    """Returns the first rows, of all or of each class, that are wanted."""
    import numpy as np

    wanted = np.ones(len(cache.labels), bool)
    if split is not None:
        wanted &= cache.is_test == (split == "test")
    if label is not None:
        wanted &= cache.labels == _class(spec, label)
    rows = np.flatnonzero(wanted)
    if not len(rows):
        of = " and ".join(text for text in (split and f"split {split}", label and f"class {label}") if text)
        raise UsageError(f"{cache.path}: no sample of {of or 'any class'}")
    if each_class:
        rows = np.concatenate([rows[cache.labels[rows] == one][:count] for one in np.unique(cache.labels[rows])])
    else:
        rows = rows[:count]
    return [int(row) for row in rows]


def _class(spec: DatasetSpec, label: str) -> int:
    if label in spec.classes:
        return spec.classes.index(label)
    if label.isdecimal() and int(label) < len(spec.classes):
        return int(label)
    raise UsageError(
        f"unknown class {label!r}; {spec.title} has {len(spec.classes)}, by name or number from 0",
        hint=did_you_mean(label, spec.classes),
    )


def _row(cache: Cache, sample: str) -> int:
    n = len(cache.sample_ids)
    if sample in cache.sample_ids:
        return cache.sample_ids.index(sample)
    if not sample.isdecimal():
        raise UsageError(f"{cache.path}: no sample {sample!r}", hint=did_you_mean(sample, cache.sample_ids))
    if int(sample) >= n:
        raise UsageError(f"--sample {sample}: the cache has {n} samples, rows 0 to {n - 1}")
    return int(sample)


def _entry(cache: Cache, spec: DatasetSpec, row: int) -> dict[str, Any]:
    label = int(cache.labels[row])
    return {
        "row": row,
        "id": cache.sample_ids[row],
        "label": label,
        "class": spec.classes[label],
        "split": "test" if cache.is_test[row] else "train",
        **{name: int(column[row]) for name, column in cache.counts.items()},
    }


def _drawable(cache: Cache, entry: dict[str, Any]) -> Sample:
    import numpy as np

    from plifctl.report.pictures import Sample

    content = cache.read(np.array([entry["row"]]))[0]
    number, name = entry["label"], entry["class"]
    details = [f"{entry['n_events']:,} events"] if "n_events" in entry else []
    details.append("test set" if entry["split"] == "test" else "training set")
    return Sample(
        name=entry["id"],
        label=f"class {number}" if name == str(number) else f"{name} (class {number})",
        detail=" · ".join(details),
        content=content[: entry["n_frames"]] if "n_frames" in entry else content,
    )


def _name(dataset: str, cache: Cache, rows: list[int], each_class: bool) -> str:
    if len(rows) > 1:
        return f"{dataset}-{'each-class' if each_class else f'{len(rows)}-samples'}.png"
    return f"{dataset}-{cache.sample_ids[rows[0]].replace('/', '-')}.png"
