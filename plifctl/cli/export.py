"""plifctl export: a trained network as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plifctl.cli import console, models, options


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("export")(export)


def export(
    run: options.RunName,
    file: Annotated[Path, typer.Argument(help="The file to write, .pt (torch) or .npz (numpy).", show_default=False)],
    checkpoint: models.CheckpointOption = "best",
    fold_bn: models.FoldOption = False,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write a trained network for other programs.

    Weights, the resolved experiment as JSON, names of classes and normalisation, without anything of the training.

    Example: plifctl export last fashion.pt --fold-bn
    """
    import torch

    from plifctl.exchange.arrays import check_destination, write_model

    check_destination(file)
    found = models.load_trained(models.checkpoint_of(run, checkpoint, runs_dir), torch.device("cpu"), fold=fold_bn)
    # of an exported file, the digest is that of the experiment that was trained, folded or not
    digest = str(found.state.get("digest", found.spec.digest))
    write_model(file, found.model, found.spec, digest=digest, cache=str(found.state["cache"]))
    parameters = sum(weight.numel() for weight in found.model.parameters())
    nbytes = file.stat().st_size
    tree = {
        "file": str(file),
        "checkpoint": str(found.path),
        "experiment": found.spec.name,
        "structure": found.model.network.structure,
        "folded": found.folded,
        "parameters": parameters,
        "bytes": nbytes,
    }
    if as_json:
        console.emit_json(tree)
    else:
        console.emit(f"{file}: {found.spec.title}, {parameters:,} parameters, {nbytes / 1e6:,.2f} MB")
