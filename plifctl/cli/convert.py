"""plifctl convert: a network of plifctl of weights that another program saved."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl.cli import console, options
from plifctl.cli.export import describe_exported, emit_exported

if TYPE_CHECKING:
    from plifctl.pipeline.convert import Converted


StateArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        parser=options.path,
        help="Weights of another program: a state dict, .pt or .pth (torch), .safetensors or .npz.",
        show_default=False,
    ),
]
OutArgument = Annotated[
    Path,
    typer.Argument(
        metavar="OUT",
        parser=options.path,
        help="File to write: .pt, .npz, .nir, .onnx; without ending a folder, as on the Hub.",
        show_default=False,
    ),
]
ExperimentOption = Annotated[
    str,
    typer.Option(
        "--experiment",
        help="Experiment whose network it is: a name (plifctl ls lists them), or a YAML file.",
        autocompletion=options.experiments,
        show_default=False,
    ),
]
CompareOption = Annotated[
    Path | None,
    typer.Option(
        "--compare",
        metavar="OUTPUTS",
        parser=options.path,
        help="Inputs x and outputs y of the other program, .npz or .pt: compare its votes.",
    ),
]


def convert(
    state: StateArgument,
    out: OutArgument,
    experiment: ExperimentOption,
    recipe: options.RecipeOption = None,
    overrides: options.SetOption = None,
    to: options.NetworkFormatOption = None,
    compare: CompareOption = None,
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
    if as_json:
        console.emit_json(_tree(converted))
    else:
        _print(converted)
    exported = converted.exported
    if exported is None:
        console.warn(
            f"votes differ, so {out} was not written; check the values of the experiment above, and that the other "
            "program was in evaluation mode and reset its neurons before each batch; without --compare it is written"
        )
        raise typer.Exit(1)
    if exported.trained.folded:
        log_folded(exported.trained)


def _tree(converted: Converted) -> dict[str, Any]:
    exported, comparison = converted.exported, converted.comparison
    return {
        "source": str(converted.source),
        "origin": converted.trained.origin,
        "structure": converted.trained.network.network.structure,
        "notes": list(converted.notes),
        "comparison": None if comparison is None else asdict(comparison),
        "exported": None if exported is None else describe_exported(exported),
    }


def _print(converted: Converted) -> None:
    for note in converted.notes:
        console.emit(f"- {note}")
    if converted.comparison is not None:
        console.emit(f"- {converted.comparison}")
    if converted.exported is not None:
        emit_exported(converted.exported)
