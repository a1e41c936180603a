"""plifctl data: recordings before they are prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plifctl.cli import console, options
from plifctl.cli.inspection import folder_tree, print_folder, print_recording, recording_tree
from plifctl.data.source import DEFAULT_WORKERS
from plifctl.errors import RawDataError

group = typer.Typer(no_args_is_help=True, help="Look at recordings before they are prepared.", rich_markup_mode=None)

_SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="What recordings do not say: time_unit, columns, fields, source, transpose, flip_x, flip_y.",
    ),
]
_FullOption = Annotated[bool, typer.Option("--full", help="Decode every recording of a folder, not only some.")]


@group.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(parser=options.path, help="A recording, or a folder or an archive of recordings.")
    ],
    overrides: _SetOption = None,
    full: _FullOption = False,
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
    from plifctl.pipeline.inspect import InspectedFolder, InspectOptions, inspect_data

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


@group.command()
def init(
    folder: Annotated[Path, typer.Argument(parser=options.path, help="A folder or an archive of recordings.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of data set and experiment (default: that of the folder).")
    ] = None,
    overrides: _SetOption = None,
    full: _FullOption = False,
    workers: options.WorkersOption = DEFAULT_WORKERS,
    as_json: options.JsonOption = False,
) -> None:
    """Write a data set and an experiment for your own recordings: NAME.yaml.

    Layout, classes, sensor, split, frames and the network are set to what the recordings show; a comment beside a value
    says where it comes from, or that it is assumed. Nothing is asked, and no file is replaced.

    Example: plifctl data init recordings --name hands
    """
    from plifctl.pipeline.init_data import init_data
    from plifctl.pipeline.inspect import InspectOptions

    wanted = InspectOptions(folder, tuple(overrides or ()), full=full, workers=workers)
    written = init_data(wanted, name, console.bar)
    if as_json:
        tree = {"values": dict(written.values), "comments": dict(written.comments), "notes": list(written.notes)}
        console.emit_json({"path": str(written.path), **tree})
        return
    for note in written.notes:
        console.warn(note)
    for key, comment in written.comments.items():
        if "ASSUMED" in comment:
            console.emit(f"{key}: {comment}")
    console.emit(f"written: {written.path}")
    console.emit(f"next: plifctl show {written.path.stem} · plifctl prepare {written.path.stem}")
