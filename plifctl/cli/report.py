"""plifctl report: the paper's tables with our numbers beside them."""

from __future__ import annotations

from typing import Annotated

import typer

from plifctl import console, paths
from plifctl.cli import options
from plifctl.errors import UsageError, did_you_mean


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("report")(report)


def report(
    table: Annotated[
        list[str], typer.Option("--table", help="1, 2, 3, 4, 5, S1, S2, all of them, or demo; several may be given.")
    ],
    format_: Annotated[str, typer.Option("--format", help="table, markdown, csv, json or latex.")] = "table",
    include_modified: Annotated[
        bool, typer.Option("--include-modified", help="Use runs with overrides, too; they are marked.")
    ] = False,
    runs_dir: options.RunsDirOption = None,
) -> None:
    """Print a table of the paper with what our runs gave.

    Numbers come from finished runs and from the records committed in the registry; a missing run is an empty cell.

    Example: plifctl report --table 4
    """
    from plifctl.report import FORMATS, TABLES, build_table, render
    from plifctl.runs import load_records

    form = next((known for known in FORMATS if known == format_), None)
    if form is None:
        raise UsageError(f"unknown format {format_!r}", hint=did_you_mean(format_, FORMATS))
    names = list(TABLES) if table == ["all"] else table
    registry = options.registry()
    records = load_records(runs_dir or paths.runs_dir(), registry.folders)
    tables = [build_table(name, records, registry, include_modified=include_modified) for name in names]
    console.emit(render(tables, form))
