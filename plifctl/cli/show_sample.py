"""plifctl show-sample: samples of a cache as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plifctl.cli import console, options
from plifctl.config.choices import Split


def show_sample(
    dataset: options.Dataset,
    T: Annotated[
        int | None, typer.Option("--T", min=1, help="Number of frames of the cache (default: that of the experiments).")
    ] = None,
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    sample: Annotated[
        str | None, typer.Option("--sample", help="Id of a sample, or its row in the cache (default: the first).")
    ] = None,
    split: Annotated[Split | None, typer.Option("--split", help="Samples of this split.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Samples of this class, by name or number.")] = None,
    each_class: Annotated[bool, typer.Option("--each-class", help="Draw --count samples of each class.")] = False,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of samples.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=options.path, help="Picture to write, .png or .gif (default: named after the sample)."
        ),
    ] = None,
    cache_dir: options.CacheDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Draw samples of a cache.

    Event data sets: the T frames, ON orange, OFF blue, darker where there are more events; a .gif shows them one after
    the other. Image data sets: the images, enlarged.

    Example: plifctl show-sample gesture --T 20 --label "air drums" --out drums.gif
    """
    from plifctl.pipeline.samples import SampleSelection, ShowSampleOptions, show_samples

    shown = show_samples(
        ShowSampleOptions(
            dataset,
            T=T,
            recipe=recipe,
            overrides=tuple(overrides or ()),
            selection=SampleSelection(sample, split=split, label=label, each_class=each_class, count=count),
            out=out,
            cache_dir=cache_dir,
        )
    )
    if as_json:
        console.emit_json({"out": str(shown.out), "cache": str(shown.cache), "samples": list(shown.samples)})
        return
    for heading in shown.headings:
        console.emit(heading)
    console.emit(f"written: {shown.out}")
