"""plifctl report: the paper's tables and figures with results of runs, and the web page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from plifctl.cli import console, options
from plifctl.config.choices import FIGURES, OTHER_FIGURES, OTHER_TABLES, RUNS_TABLE, TABLES, ResultSource, TableFormat
from plifctl.errors import UsageError, did_you_mean
from plifctl.units import format_bytes, format_duration

if TYPE_CHECKING:
    from plifctl.pipeline.figures import FigureFile
    from plifctl.report import Table, TableOptions

_FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)
_SOURCES: tuple[ResultSource, ...] = get_args(ResultSource)


def _tables(incomplete: str) -> list[str]:
    return [name for name in (*TABLES, "all", *OTHER_TABLES) if name.startswith(incomplete)]


def _figures(incomplete: str) -> list[str]:
    return [name for name in (*FIGURES, "all", *OTHER_FIGURES) if name.startswith(incomplete)]


def _source(text: str) -> ResultSource:
    if text == "published":
        console.warn("old spelling: --source published is called --source authors now")
        return "authors"
    if text == "ours":
        raise UsageError("--source ours was replaced", hint="use --source mine, or --source shipped")
    for source in _SOURCES:
        if text == source:
            return source
    raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, _SOURCES))}.")


TableOption = Annotated[
    list[str] | None,
    typer.Option(
        "--table",
        help=f"{', '.join(TABLES)}, all (these), {', '.join(OTHER_TABLES)}, or your own; can be repeated.",
        autocompletion=_tables,
    ),
]
FigureOption = Annotated[
    list[str] | None,
    typer.Option(
        "--figure",
        help=f"{', '.join(FIGURES)}, all (these), or {', '.join(OTHER_FIGURES)}; can be repeated.",
        autocompletion=_figures,
    ),
]
RunOption = Annotated[
    list[str] | None,
    typer.Option(
        "--run", metavar="RUN", help="Run to draw, or to state; can be repeated.", autocompletion=options.runs
    ),
]
SweepOption = Annotated[
    str | None, typer.Option("--sweep", metavar="NAME", help="Only runs of this sweep; alone, their table.")
]
ExperimentOption = Annotated[
    list[str] | None,
    typer.Option(
        "--experiment",
        metavar="NAME",
        help="Experiment, or YAML file, of figure start; can be repeated.",
        autocompletion=options.experiments,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        parser=options.path,
        help="File of a figure (.pdf, .svg, .png), or folder of several.",
        show_default=False,
    ),
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html",
        parser=options.path,
        metavar="DIR",
        help="Write a web page that needs no network; --figure adds figures.",
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option("--epochs", min=1, help="Tables: count the first epochs only. Figures: last epoch."),
]
ChannelOption = Annotated[
    list[int] | None, typer.Option("--channel", min=0, help="Channel of Figures S2 to S5; can be repeated.")
]
FormatOption = Annotated[
    str,
    typer.Option("--format", help=f"{', '.join(_FORMATS)}; --json prints JSON.", autocompletion=lambda: [*_FORMATS]),
]
SourceOption = Annotated[
    ResultSource,
    typer.Option(
        "--source",
        parser=_source,
        metavar="|".join(_SOURCES),
        autocompletion=lambda: [*_SOURCES],
        help="Runs that fill the tables: your own, those shipped with plifctl, the authors', imported or added ones.",
    ),
]
ModifiedOption = Annotated[
    bool, typer.Option("--include-modified", help="Use runs with overrides as well; they are marked.")
]


def report(
    table: TableOption = None,
    figure: FigureOption = None,
    run: RunOption = None,
    sweep: SweepOption = None,
    out: OutOption = None,
    html: HtmlOption = None,
    epochs: EpochsOption = None,
    channel: ChannelOption = None,
    experiment: ExperimentOption = None,
    format_: FormatOption = "table",
    as_json: options.JsonOption = False,
    source: SourceOption = "mine",
    include_modified: ModifiedOption = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="List the runs that tables lack, with command and estimated time.")
    ] = False,
    statement: Annotated[
        bool,
        typer.Option("--statement", help="Print the reproducibility statement on finished runs (--run)."),
    ] = False,
    runs_dir: options.RunsDirOption = None,
    _context: Annotated[bool, options.replaced_option("--context", "--table context")] = False,
) -> None:
    """Print tables, draw figures, or write the report's page.

    Tables are those of the paper, with results beside the reported numbers. Results are those of your finished runs
    (--source); without a run a cell is empty. 91.34 @4 is a result of 4 epochs. Δ is the result minus the reported
    number, in points; of fewer epochs than planned, minus the best of the same epochs of the authors' run; there is
    none for a subset or modified settings. Runs that are not counted are named with the reason.
    Table selection shows what each run could have reported instead: its best test epoch, its last one, or the mean of
    its last 64. Tables significance, speed and convergence compare PLIF with LIF, max with average pooling, and the
    τ of two starts. Table fast compares runs of the recipe fast with the authors' training, by processor time.

    Figures show the runs that --run names, over the authors' curves of their experiments. Without --run they show the
    authors' curves, or your longest runs of what their logs lack (S1). Figure start needs no run: firing rates and
    gradients of each layer in the first training step, by τ₀; on simulated gestures, or on the cache of each
    --experiment. Figure fast shows runs of the recipe fast over processor time.

    Example: plifctl report --table 4
    """
    if sweep is not None and not (table or figure or html or missing or statement):
        table = [RUNS_TABLE]
    _check_options(table, figure, html, missing, statement, sweep, epochs, source, experiment, run, channel)
    _check_output(table, figure, html, out, format_, include_modified=include_modified, missing=missing, json=as_json)
    from plifctl.report import TableOptions

    folder = options.existing_runs_dir(runs_dir)
    counted = _runs_of(sweep, folder) if sweep is not None else None
    wanted = TableOptions(source, include_modified, epochs, None if counted is None else frozenset(counted))
    run = [*(run or ()), *(counted or ())]
    if missing:
        _print_missing(table or ["all"], folder, wanted, as_json=as_json)
    elif statement:
        _print_statement(run, folder, as_json=as_json)
    elif html is not None:
        _write_page(html, folder, figure or (), include_modified=include_modified, as_json=as_json)
    elif figure:
        from plifctl.pipeline.figures import draw_figures

        drawn = draw_figures(
            figure, out, folder, runs=run, epochs=epochs, channels=channel or (), experiments=experiment or ()
        )
        _print_figures(drawn, as_json=as_json)
    else:
        from plifctl.pipeline.report import build_tables

        form = _format(format_)
        tables = build_tables(table or (), folder, wanted)
        _print_tables(tables, form, as_json=as_json)


def _check_options(
    table: list[str] | None,
    figure: list[str] | None,
    html: Path | None,
    missing: bool,
    statement: bool,
    sweep: str | None,
    epochs: int | None,
    source: ResultSource,
    experiment: list[str] | None,
    run: list[str] | None,
    channel: list[int] | None,
) -> None:
    """Raises UsageError for options that contradict each other, or have no effect."""
    if html is not None and sweep is not None:
        raise UsageError("--html has every run", hint="leave out --sweep; the page has a choice of the sweep")
    if sweep is not None and source != "mine":
        raise UsageError("the runs of a sweep are your own", hint="leave out --source, or --sweep")
    if html is not None and epochs is not None:
        raise UsageError("--html has all epochs of every run", hint="leave out --epochs")
    if source != "mine" and not (table or missing):
        raise UsageError("--source chooses the runs of tables", hint=f"plifctl report --table 4 --source {source}")
    if experiment and (html is not None or not figure):
        hint = f"plifctl report --figure start --experiment {shlex.quote(experiment[0])}"
        raise UsageError("--experiment chooses what figure start shows", hint=hint)
    if run and not statement and (html is not None or not figure):
        raise UsageError("--run names what figures and --statement show", hint="leave out --run")
    if channel and (html is not None or not figure):
        raise UsageError("--channel chooses what Figures S2 to S5 show", hint="leave out --channel")
    if missing and (figure or html):
        raise UsageError("--missing lists what tables lack", hint="plifctl report --missing --table 4")
    if sum(map(bool, (table or missing, figure or html, statement))) > 1:
        raise UsageError("--table or --missing, --statement, and --figure or --html exclude each other")
    if statement and epochs is not None:
        raise UsageError("--statement states runs as they are, with all their epochs", hint="leave out --epochs")
    if not (table or figure or html or missing or statement):
        raise UsageError("missing option", hint="plifctl report --table 4, --table all, --figure 6, or --html report")


def _check_output(
    table: list[str] | None,
    figure: list[str] | None,
    html: Path | None,
    out: Path | None,
    format_: str,
    *,
    include_modified: bool,
    missing: bool,
    json: bool,
) -> None:
    """Raises UsageError for options of the output that would have no effect."""
    if out is not None and (html is not None or not figure):
        raise UsageError(
            "--out names the files of figures", hint="a table: plifctl report --table 4 --format csv > FILE"
        )
    if format_ != "table" and (json or not table or missing):
        raise UsageError(
            "--format is of tables that are printed, and --json is one of its own", hint="leave out --format"
        )
    if include_modified and not (table or missing or html):
        raise UsageError("--include-modified is of tables", hint="figures show the runs that are named: --run RUN")


def _print_statement(runs: Sequence[str], runs_dir: Path, *, as_json: bool) -> None:
    from plifctl.pipeline.report import write_statement

    text = write_statement(runs, runs_dir)
    if as_json:
        console.emit_json({"markdown": text})
    else:
        console.emit(text.removesuffix("\n"))


def _runs_of(sweep: str, runs_dir: Path) -> list[str]:
    """Returns the finished runs of a sweep."""
    from plifctl.sweep.plan import PlanFile
    from plifctl.sweep.status import read_plan

    file = PlanFile(runs_dir, sweep)
    status = read_plan(file.load(), runs_dir)
    found = [entry.run.name for entry in status.runs if entry.state == "finished"]
    if not found:
        raise UsageError(f"no run of the sweep {sweep} is finished", hint=f"plifctl sweep status {file.argument}")
    if len(found) < len(status.runs):
        console.warn(f"{len(status.runs) - len(found)} of {len(status.runs)} runs of the sweep are not finished")
    return found


def _format(text: str) -> TableFormat:
    if text == "json":
        raise UsageError("--format json was replaced", hint="use --json")
    for form in _FORMATS:
        if text == form:
            return form
    raise UsageError(f"unknown format {text!r}", hint=did_you_mean(text, _FORMATS))


def _print_tables(tables: list[Table], form: TableFormat, *, as_json: bool) -> None:
    if as_json:
        console.emit_json([table.to_dict() for table in tables])
    elif form == "csv":
        from plifctl.report.render import csv_text

        console.emit(csv_text(tables))
    elif form == "markdown":
        console.emit("\n\n".join(table.to_markdown() for table in tables))
    elif form == "latex":
        console.emit("\n\n".join(table.to_latex() for table in tables))
    else:
        from plifctl.cli.tables import table_text

        width = console.terminal_width()
        console.emit("\n\n".join(table_text(table, width) for table in tables))


def _print_missing(names: list[str], runs_dir: Path, wanted: TableOptions, *, as_json: bool) -> None:
    from plifctl.pipeline.missing import find_missing

    found = find_missing(names, runs_dir, wanted)
    if as_json:
        console.emit_json([run.to_json() for run in found])
        return
    if not found:
        console.note("no run to train")
        return
    times = ["unknown" if run.seconds is None else format_duration(run.seconds) for run in found]
    rows = [
        (run.command, f"{run.epochs:,}", time, "\n".join(run.cells)) for run, time in zip(found, times, strict=True)
    ]
    console.emit_table(("command", "epochs", "about", "fills"), rows)
    total = format_duration(sum(run.seconds or 0 for run in found))
    console.emit(f"{len(found)} runs, about {total} on this machine's CPU one after the other; an estimate from dense")
    console.emit("products: plifctl doctor --bench EXPERIMENT measures. Fewer epochs: --epochs N, shown as @N")


def _print_figures(drawn: list[FigureFile], *, as_json: bool) -> None:
    if as_json:
        console.emit_json(
            [
                {"figure": figure.name, "path": str(figure.path), "caption": figure.caption, "runs": figure.runs}
                for figure in drawn
            ]
        )
        return
    for figure in drawn:
        console.emit(f"{figure.path}: Figure {figure.name}. {figure.caption}")
        if used := figure.runs:
            console.note(f"drawn from {', '.join(used) if len(used) < 5 else f'{len(used)} runs'}")


def _write_page(folder: Path, runs_dir: Path, figures: Sequence[str], *, include_modified: bool, as_json: bool) -> None:
    from plifctl.pipeline.page import write_report_page

    path = write_report_page(folder, runs_dir, include_modified=include_modified, figures=figures)
    if as_json:
        console.emit_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        console.emit(f"{path} ({format_bytes(path.stat().st_size)}): open it in a browser")
