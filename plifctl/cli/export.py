"""plifctl export: a trained network as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plifctl.cli import console, options


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("export")(export)


def export(
    run: options.RunName,
    file: Annotated[
        Path,
        typer.Argument(parser=options.path, help="File to write, .pt (torch) or .npz (numpy).", show_default=False),
    ],
    checkpoint: options.CheckpointOption = "best",
    fold_bn: options.FoldOption = False,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write a trained network for other programs.

    The file has the weights, the resolved experiment as JSON, the names of the classes and the normalisation, and no
    training state.

    Example: plifctl export last fashion.pt --fold-bn
    """
    from plifctl.pipeline.evaluate import log_folded
    from plifctl.pipeline.export import export as export_model

    exported = export_model(
        run, file, checkpoint=checkpoint, fold_bn=fold_bn, runs_dir=options.existing_runs_dir(runs_dir)
    )
    trained = exported.trained
    if fold_bn:
        log_folded(trained)
    tree = {
        "file": str(exported.path),
        "checkpoint": str(trained.path),
        "experiment": trained.spec.name,
        "structure": trained.network.network.structure,
        "folded": trained.folded,
        "parameters": exported.parameters,
        "bytes": exported.nbytes,
    }
    if as_json:
        console.emit_json(tree)
    else:
        title, megabytes = trained.spec.title, exported.nbytes / 1e6
        console.emit(f"{file}: {title}, {exported.parameters:,} parameters, {megabytes:,.2f} MB")
