"""plifctl data: recordings before they are prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plifctl.cli import console, options
from plifctl.cli.inspection import folder_tree, print_folder, print_recording, recording_tree
from plifctl.data.source import DEFAULT_WORKERS
from plifctl.errors import RawDataError

_commands = typer.Typer(
    no_args_is_help=True, help="Look at recordings before they are prepared.", rich_markup_mode=None
)


def register(app: typer.Typer) -> None:
    """Adds the group of subcommands."""
    app.add_typer(_commands, name="data")


@_commands.command("inspect")
def inspect(
    path: Annotated[
        Path, typer.Argument(parser=options.path, help="A recording, or a folder or an archive of recordings.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="What recordings do not say: time_unit, columns, fields, source, transpose, flip_x, flip_y.",
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Decode every recording of a folder, not only some.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", parser=options.path, help="Picture to write, .png: events in time slices.")
    ] = None,
    workers: options.WorkersOption = DEFAULT_WORKERS,
    as_json: options.JsonOption = False,
) -> None:
    """Show what recordings contain, and what is missing or wrong.

    Of a recording: format, sensor, events, times, what was assumed, and what to do about problems. Of a folder:
    formats, layout, classes with their durations, tables of labels, and files that stand out. The headers of all files
    are read; up to 256 MiB are decoded, or everything with --full. Nothing is written but the picture.

    Example: plifctl data inspect recordings --out recordings.png
    """
    from plifctl.pipeline.inspect_raw import InspectedFolder, InspectOptions, inspect_data

    wanted = InspectOptions(path, tuple(overrides or ()), full=full, out=out, workers=workers)
    found = inspect_data(wanted, console.bar)
    if as_json:
        tree = folder_tree(found) if isinstance(found, InspectedFolder) else recording_tree(found.facts)
        console.emit_json(tree | {"out": str(found.out) if found.out else None})
    elif isinstance(found, InspectedFolder):
        print_folder(found)
    else:
        print_recording(found)
    if not found.is_readable:
        raise typer.Exit(RawDataError.exit_code)
