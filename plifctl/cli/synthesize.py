"""plifctl synthesize: the embedded data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plifctl import console
from plifctl.errors import UsageError


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("synthesize")(synthesize)


def synthesize(
    folder: Annotated[Path, typer.Argument(help="Folder to write the recordings to; made if missing.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything in them.")] = 2020,
) -> None:
    """Write the embedded data set.

    Gestures of moving shapes, seen by a simulated DVS128, as AEDAT 3.1 recordings.

    Example: plifctl synthesize demo/raw && plifctl prepare synthetic-gesture --T 8 --raw demo/raw
    """
    from plifctl.events.synthetic import write_synthetic_gesture

    if folder.is_dir() and any(folder.iterdir()) and not (folder / "trials_to_train.txt").exists():
        raise UsageError(f"{folder}: holds other files", hint="name an empty folder")
    with console.bar("simulating", "recordings") as bar:
        write_synthetic_gesture(folder, seed=seed, progress=lambda n, of: bar.update(n, of))
    console.emit(f"written: {folder}")
