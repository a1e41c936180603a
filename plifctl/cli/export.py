"""plifctl export: a trained network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl.cli import console, options
from plifctl.units import format_bytes

if TYPE_CHECKING:
    from plifctl.pipeline.export import Exported


def export(
    run: options.RunName,
    file: Annotated[
        Path,
        typer.Argument(
            parser=options.path,
            help="File to write: .pt (torch), .npz (numpy), .nir, .onnx; without ending a folder, as on the Hub.",
            show_default=False,
        ),
    ],
    to: options.NetworkFormatOption = None,
    checkpoint: options.CheckpointOption = "best",
    fold_bn: options.FoldOption = False,
    half: Annotated[bool, typer.Option("--half", help="Folder: store the weights in half precision.")] = False,
    cache_dir: options.CacheDirOption = None,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write a trained network for other programs, or to share it.

    A folder has the weights, a description, a model card, the result and the predictions of the test samples; hf upload
    sends it to the Hugging Face hub, and eval, predict and plifctl.load read it. NIR and ONNX are for other programs;
    --to spikingjelly writes a state dict. Batch norm is folded where the format has none.

    Example: plifctl export last fashion.onnx
    """
    from plifctl.pipeline.evaluate import log_folded
    from plifctl.pipeline.export import export as export_model

    exported = export_model(
        run,
        file,
        to=to,
        checkpoint=checkpoint,
        fold_bn=fold_bn,
        half=half,
        cache_dir=cache_dir,
        runs_dir=options.existing_runs_dir(runs_dir),
        progress=console.bar,
    )
    if fold_bn or exported.trained.folded:
        log_folded(exported.trained)
    if as_json:
        console.emit_json(describe_exported(exported))
    else:
        emit_exported(exported)


def describe_exported(exported: Exported) -> dict[str, Any]:
    """Returns an exported file as plain values."""
    trained = exported.trained
    return {
        "file": str(exported.path),
        "format": exported.format,
        "checkpoint": str(trained.path),
        "experiment": trained.spec.name,
        "structure": trained.network.network.structure,
        "folded": trained.folded,
        "parameters": exported.parameters,
        "bytes": exported.nbytes,
        "notes": list(exported.notes),
    }


def emit_exported(exported: Exported) -> None:
    """Prints an exported file and the notes for its users."""
    title, size = exported.trained.spec.title, format_bytes(exported.nbytes)
    console.emit(f"{exported.path}: {title}, {exported.parameters:,} parameters, {size}")
    for note in exported.notes:
        console.emit(f"- {note}")
