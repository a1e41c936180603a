"""plifctl runs import: runs of other code, from its logs; and how they are shown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl import paths
from plifctl.cli import console, options
from plifctl.errors import RunError, UsageError

if TYPE_CHECKING:
    from plifctl.runs import ImportedRun


def import_runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of logs; the folders below it are read, too.")],
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="SERIES=TAG", help="Which scalar is which series, where it is not found by itself."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the imported run; there must be one only.")] = None,
    dry_run: options.DryRunOption = False,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Import runs of other code from TensorBoard's event files, or from the CSV files that TensorBoard exports.

    The authors' published logs become runs of the experiments that they are of: report --source published makes the
    tables from them. Other logs need a scalar that is an accuracy by epoch; --tag test_accuracy=TAG says which.
    Importing the same logs again replaces the run; other logs of its name are refused: --name tells them apart.

    Example: plifctl runs import published-logs
    """
    from dataclasses import replace

    from plifctl.runs import import_log, find_logs, save_imported

    chosen = dict(_pair(text) for text in tag or ())
    experiments = options.registry().experiments()
    found = [import_log(log, folder, tags=chosen, experiments=experiments) for log in find_logs(folder)]
    if name is not None:
        if len(found) > 1:
            raise UsageError(f"--name {name}: there are {len(found)} runs in {folder}", hint="name the folder of one")
        if "/" in name or name.startswith(".") or not name.isprintable():
            raise UsageError(f"--name {name!r} is no name of a folder")
        found = [replace(found[0], name=name)]
    names = [run.name for run in found]
    if twice := sorted({known for known in names if names.count(known) > 1}):
        raise UsageError(f"{folder}: several logs would be called {', '.join(twice)}", hint="import them one by one")
    there = runs_dir or paths.runs_dir()
    for run in found:
        if not dry_run:
            save_imported(run, there)
    entries = [entry_of(run) for run in found]
    if as_json:
        console.emit_json({"runs_dir": str(there), "dry_run": dry_run, "imported": entries})
        return
    rows = [
        (entry["run"], entry["protocol"] or "", _percent(entry), f"{entry['epoch']}/{entry['epochs']}")
        for entry in entries
    ]
    console.emit_table(("run", "A/B", "best %", "epochs logged"), rows)
    console.emit(f"{'would be imported' if dry_run else 'imported'}: {len(found)} runs, to {there}")


def entry_of(run: ImportedRun) -> dict[str, Any]:
    """What a list of runs says of an imported one."""
    record, test = run.record(), run.epochs.get("test_accuracy", {})
    validation = run.epochs.get("validation_accuracy", {})
    return {
        "run": run.name,
        "status": "imported",
        "experiment": run.settings.get("experiment"),
        "protocol": run.settings.get("protocol"),
        "recipe": "authors" if run.settings.get("experiment") else None,
        "best_test": record.accuracy if record else max(test.values(), default=None),
        "best_validation": max(validation.values(), default=None),
        "epoch": len(run.accuracies),
        "epochs": max(run.accuracies),
        "age_seconds": round(time.time() - run.imported) if run.imported else 0,
    }


def show_imported(run: ImportedRun, width: int, *, as_json: bool) -> None:
    """Prints what is known of an imported run."""
    from plifctl.cli.panel import sparkline

    record = run.record()
    entry = entry_of(run)
    gaps = entry["epochs"] - entry["epoch"]
    if as_json:
        known = {"best_epoch": record.best_epoch if record else None, "gaps": gaps, "source": run.source}
        console.emit_json({**entry, **known, "settings": run.settings, "tags": run.tags, "files": run.files})
        return
    facts = [
        ("run", run.name),
        ("imported from", run.source),
        *((key, value) for key, value in run.settings.items() if value is not None),
        ("epochs", f"{entry['epoch']} logged of {entry['epochs']}" + (f", {gaps} missing" if gaps else "")),
        *(
            (
                series.replace("_", " "),
                f"{sparkline(list(values.values()), width)}  last {list(values.values())[-1]:.4g}",
            )
            for series, values in run.epochs.items()
            if not series.startswith("tau/")
        ),
        *([("accuracy", f"{100 * record.accuracy:.2f} % (epoch {record.best_epoch})")] if record else []),
    ]
    console.emit_table(("", "value"), facts)
    if run.layers:
        rows = []
        for layer in run.layers:
            tau = list(run.epochs[f"tau/{layer}"].values())
            rows.append((layer, f"{tau[-1]:.3f}", sparkline(tau, min(40, width))))
        console.emit("")
        console.emit_table(("layer", "τ (steps)", "τ over epochs"), rows)
    console.emit("")
    console.emit_table(("file", "bytes"), [(name, f"{facts['bytes']:,}") for name, facts in run.files.items()])


def find_imported(name: str, runs_dir: Path) -> Path | None:
    """Returns the folder of the imported run that a name means: its path, its name, or a part that no other run has.

    None where no imported run is called so, or one of ours is.
    """
    from plifctl.runs import imported_folders, list_runs

    there = {path.name: path for path in imported_folders(runs_dir)}
    if (Path(name) / "imported.json").is_file():
        return Path(name)
    if name in there:
        return there[name]
    fitting = [known for known in there if name in known]
    if not fitting or name == "last" or any(name in run.name for run in list_runs(runs_dir)):
        return None
    if len(fitting) > 1:
        raise UsageError(f"{len(fitting)} imported runs fit {name!r}: {', '.join(fitting[:5])}", hint="give more of it")
    return there[fitting[0]]


def imported_entries(runs_dir: Path) -> list[dict[str, Any]]:
    """What a list says of the imported runs; of one that cannot be read only that."""
    from plifctl.runs import imported_folders, load_imported

    entries = []
    for path in imported_folders(runs_dir):
        try:
            entries.append(entry_of(load_imported(path)))
        except RunError as error:
            console.warn(str(error))
    return entries


def _pair(text: str) -> tuple[str, str]:
    series, equals, tag = text.partition("=")
    if not (series and equals and tag):
        raise UsageError(f"--tag {text}: expected SERIES=TAG, as in --tag test_accuracy=test_acc")
    return series, tag


def _percent(entry: dict[str, Any]) -> str:
    best = entry["best_test"] if entry["best_test"] is not None else entry["best_validation"]
    return "" if best is None else f"{100 * best:.2f}"
