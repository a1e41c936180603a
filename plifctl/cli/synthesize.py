"""plifctl synthesize: write the recordings of an embedded data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plifctl.cli import console, options
from plifctl.config.choices import EmbeddedDataset


def synthesize(
    folder: Annotated[Path, typer.Argument(parser=options.path, help="Folder for the recordings; created if missing.")],
    dataset: Annotated[
        EmbeddedDataset, typer.Option("--dataset", help="Motions, or the order of motions.")
    ] = "synthetic-gesture",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the simulation.")] = 2020,
    as_json: options.JsonOption = False,
) -> None:
    """Write the recordings of an embedded data set.

    Moving shapes as gestures, seen by a simulated DVS128, in AEDAT 3.1. The gestures of synthetic-gesture are eleven
    motions, those of synthetic-order the same three motions in six orders.

    Example: plifctl synthesize demo/raw && plifctl prepare synthetic-gesture --T 8 --raw demo/raw
    """
    from plifctl.data.synthetic import write_synthetic

    with console.bar("simulating", "recordings") as bar:
        write_synthetic(folder, dataset, seed=seed, progress=lambda n, of: bar.update(n, of))
    if as_json:
        console.emit_json({"folder": str(folder), "dataset": dataset, "seed": seed})
    else:
        console.emit(f"written: {folder}")
