"""plifctl runs import: runs of other code, from its logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plifctl import paths
from plifctl.cli import console, options
from plifctl.errors import UsageError

if TYPE_CHECKING:
    from plifctl.pipeline.runs import RunEntry


def import_runs(
    folder: Annotated[
        Path,
        typer.Argument(parser=options.path, metavar="DIR", help="Folder of logs; its subfolders are read as well."),
    ],
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="SERIES=TAG", help="Tag of a series with an unusual name; can be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the imported run; for a single run only.")] = None,
    dry_run: options.DryRunOption = False,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Import runs of other code from its logs.

    Reads TensorBoard's event files, or CSV files exported by TensorBoard. The authors' logs become runs of their
    experiments, named authors-EXPERIMENT, and report --source authors makes the tables from them. Logs of other runs
    of the authors' code are named imported-EXPERIMENT, and make those of report --source imported. Other logs need a
    scalar that is an accuracy by epoch; --tag test_accuracy=TAG names it. Importing the same logs again replaces the
    run; other logs of the same name need another one: --name. A log that cannot be imported does not stop the others;
    the exit code is then that of its error.

    Example: plifctl runs import ~/spikingjelly/logs --tag test_accuracy=top1
    """
    from plifctl.pipeline.external_runs import import_logs
    from plifctl.pipeline.runs import run_entry

    there = runs_dir or paths.runs_dir()
    found = import_logs(folder, there, tags=dict(map(_pair, tag or ())), name=name, dry_run=dry_run)
    entries = [run_entry(run) for run in found.runs]
    for error in found.errors:
        console.warn(f"not imported: {error}")
    if as_json:
        imported, failed = [entry.to_json() for entry in entries], [str(error) for error in found.errors]
        console.emit_json({"runs_dir": str(there), "dry_run": dry_run, "imported": imported, "failed": failed})
    else:
        _print(entries, there, dry_run=dry_run)
    if found.errors:
        raise typer.Exit(found.errors[0].exit_code)


def _print(entries: Sequence[RunEntry], there: Path, *, dry_run: bool) -> None:
    rows = [(entry.run, entry.protocol or "", entry.best_text, f"{entry.epoch}/{entry.epochs}") for entry in entries]
    console.emit_table(("run", "protocol", "best %", "epochs logged"), rows)
    count = f"{len(entries)} run{'s' if len(entries) > 1 else ''}"
    console.emit(f"{'would be imported' if dry_run else 'imported'}: {count}, to {there}")


def _pair(text: str) -> tuple[str, str]:
    series, equals, tag = text.partition("=")
    if not (series and equals and tag):
        raise UsageError(f"--tag {text}: expected SERIES=TAG", hint="--tag test_accuracy=test_acc")
    return series, tag
