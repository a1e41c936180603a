"""plifctl report: the paper's tables with our numbers beside them, and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from plifctl.cli import console, figures, options, pages
from plifctl.errors import UsageError, did_you_mean

_PAPERS = ("1", "2", "3", "4", "5", "S1", "S2")
_OTHERS = ("optimism", "early", "context", "demo")


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("report")(report)


def _tables(incomplete: str) -> list[str]:
    return [name for name in (*_PAPERS, "all", *_OTHERS) if name.startswith(incomplete)]


def _formats(incomplete: str) -> list[str]:
    return [name for name in ("table", "markdown", "csv", "json", "latex") if name.startswith(incomplete)]


def _figures(incomplete: str) -> list[str]:
    return [name for name in (*figures.NAMES, "all") if name.startswith(incomplete)]


def report(
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            help="1, 2, 3, 4, 5, S1, S2, all of them, optimism, early, context or demo; several may be given.",
            autocompletion=_tables,
        ),
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(
            "--figure", help="1b, 2, 6, 7, S1 to S5, J, or all of them; several may be given.", autocompletion=_figures
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run", metavar="RUN", help="Draw figures from it; several may be given.", autocompletion=options.runs
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File of a figure (.pdf, .svg, .png), or folder of several.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="DIR", help="Write everything as a web page that needs no network.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Last epoch of figures.")] = None,
    channel: Annotated[
        list[int] | None, typer.Option("--channel", min=0, help="Of Figures S2 to S5; several may be given.")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="table, markdown, csv, json or latex.", autocompletion=_formats)
    ] = "table",
    as_json: options.JsonOption = False,
    source: Annotated[
        Literal["ours", "published"],
        typer.Option("--source", help="Whose runs fill the tables: ours, or those imported from the published logs."),
    ] = "ours",
    context: Annotated[bool, typer.Option("--context", help="Later work's accuracies, too.")] = False,
    include_modified: Annotated[
        bool, typer.Option("--include-modified", help="Use runs with overrides, too; they are marked.")
    ] = False,
    runs_dir: options.RunsDirOption = None,
) -> None:
    """Print a table of the paper with what our runs gave, draw a figure, or write all of it as a web page.

    Numbers come from finished runs and from the records committed in the registry; a missing run is an empty cell. Δ is
    ours less the published, in points. Table optimism tells what else each run could have reported: its best test
    epoch, its last, the mean of its last 64.

    Figures are drawn from the runs that are named, over the published curves of their experiments where these were
    imported; without names from published curves, else from our longest runs.

    Example: plifctl report --table 4
    """
    if sum(map(bool, (table, figure, html))) > 1:
        raise UsageError("--table, --figure and --html are asked for one at a time")
    if html is not None:
        _write_page(html, options.existing_runs_dir(runs_dir), include_modified=include_modified, as_json=as_json)
        return
    if figure:
        figures.draw(
            figure,
            run or (),
            out,
            epochs=epochs,
            channels=channel or (),
            runs_dir=options.existing_runs_dir(runs_dir),
            as_json=as_json,
        )
        return
    if not table and not context:
        raise UsageError(
            "nothing to report", hint="plifctl report --table 4, --table all, --figure 6, or --html report"
        )
    from plifctl.report import FORMATS, TABLES, build_table, render
    from plifctl.runs import load_records

    form = "json" if as_json else next((known for known in FORMATS if known == format_), None)
    if form is None:
        raise UsageError(f"unknown format {format_!r}", hint=did_you_mean(format_, FORMATS))
    wanted = [*(table or ()), *(["context"] if context else [])]
    names = list(dict.fromkeys(name for text in wanted for name in (TABLES if text == "all" else (text,))))
    registry = options.registry()
    records = load_records(options.existing_runs_dir(runs_dir), registry.folders)
    if source == "published" and not any(record.origin == "imported" for record in records):
        console.warn("no published logs are imported: plifctl runs import DIR")
    tables = [build_table(name, records, registry, source=source, include_modified=include_modified) for name in names]
    console.emit(render(tables, form, width=console.terminal_width()))


def _write_page(folder: Path, runs_dir: Path, *, include_modified: bool, as_json: bool) -> None:
    from plifctl.report.page import write_page

    path = write_page(folder, pages.data_of(runs_dir, options.registry(), include_modified=include_modified))
    if as_json:
        console.emit_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        console.emit(f"{path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")
