"""plifctl convert: a network of plifctl of weights that another program saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plifctl.cli import console, options
from plifctl.cli.export import describe_exported, emit_exported
from plifctl.config.choices import NetworkFormat


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("convert")(convert)


def convert(
    state: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            parser=options.path,
            help="Weights of another program: a state dict, .pt or .pth (torch), .safetensors or .npz.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            parser=options.path,
            help="File to write: .pt, .npz, .nir, .onnx; without ending a folder, as on the Hub.",
            show_default=False,
        ),
    ],
    experiment: Annotated[
        str,
        typer.Option(
            "--experiment",
            help="Experiment whose network it is: a name (plifctl ls lists them), or a YAML file.",
            autocompletion=options.experiments,
            show_default=False,
        ),
    ],
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    to: Annotated[
        NetworkFormat | None, typer.Option("--to", help="Format (default: that of the ending).", show_default=False)
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="OUTPUTS",
            parser=options.path,
            help="Inputs x and outputs y of the other program, .npz or .pt: compare its votes.",
        ),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Make a network of weights that another program saved, for eval, predict, train --weights and export.

    Reads state dicts of SpikingJelly, of the authors' networks, and of any program with the same layers in the same
    order; executes no code from the file. Layers are matched by their order; biases that the file has are added to the
    structure. What a state dict does not have, such as threshold and reset, is that of the experiment. With --compare,
    nothing is written if a vote differs, and the exit code is 1.

    Example: plifctl convert net.pth net.pt --experiment fashion-mnist-plif
    """
    from plifctl.pipeline.convert import convert as convert_state
    from plifctl.pipeline.evaluate import log_folded

    converted = convert_state(
        state, out, experiment, recipe=recipe, overrides=tuple(overrides or ()), to=to, outputs=compare
    )
    exported, comparison = converted.exported, converted.comparison
    if as_json:
        console.emit_json(
            {
                "source": str(converted.source),
                "origin": converted.trained.origin,
                "structure": converted.trained.network.network.structure,
                "notes": list(converted.notes),
                "comparison": None
                if comparison is None
                else {
                    "votes": comparison.votes,
                    "different": comparison.different,
                    "samples": comparison.samples,
                    "predictions": comparison.predictions,
                    "first": comparison.first,
                },
                "exported": None if exported is None else describe_exported(exported),
            }
        )
    else:
        for note in converted.notes:
            console.emit(f"- {note}")
        if comparison is not None:
            console.emit(f"- {comparison}")
        if exported is not None:
            emit_exported(exported)
    if exported is not None and exported.trained.folded:
        log_folded(exported.trained)
    if exported is None:
        console.warn(
            f"votes differ, so {out} was not written; check the values of the experiment above, and that the other "
            "program was in evaluation mode and reset its neurons before each batch; without --compare it is written"
        )
        raise typer.Exit(1)
