"""plifctl runs: list, show, compare, verify, remove, import and add runs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from plifctl.cli import console, imports, options
from plifctl.config.choices import PROTOCOL_ACCURACY, RunFilter
from plifctl.errors import UsageError
from plifctl.units import format_age, format_bytes, format_setting, letters

if TYPE_CHECKING:
    from plifctl.pipeline.runs import RunEntry
    from plifctl.runs import ImportedRun, ResultRecord, Run

_MAX_EPOCHS_SHOWN = 20
_COLUMNS = ("run", "status", "protocol", "best %", "epoch", "age", "recipe")


class _ListsByDefault(TyperGroup):
    """Makes ``plifctl runs`` an alias of ``plifctl runs ls``, also with options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = bool(args) and (args[0] in ctx.help_option_names or not args[0].startswith("-"))
        return list(super().parse_args(ctx, args if own else ["ls", *args]))


group = typer.Typer(
    cls=_ListsByDefault, help="List, show, compare, verify, remove, import and add runs.", rich_markup_mode=None
)


@group.command()
def ls(
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", help="Only runs of this experiment.", autocompletion=options.experiments),
    ] = None,
    status: Annotated[RunFilter | None, typer.Option("--status", help="Only runs with this status.")] = None,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """List runs.

    Imported and added runs come first, then the others, oldest first; plifctl runs alone does the same. "best %" is the
    test accuracy of finished runs and of protocol A, otherwise the best validation accuracy so far ("val").

    Example: plifctl runs ls --status finished
    """
    from plifctl.pipeline.runs import list_entries

    folder = options.existing_runs_dir(runs_dir)
    entries = list_entries(folder, experiment=experiment, status=status)
    if as_json:
        console.emit_json([entry.to_json() for entry in entries])
    elif not entries:
        others = len(list_entries(folder)) if experiment is not None or status is not None else 0
        asked = [f"--{name} {value}" for name, value in (("experiment", experiment), ("status", status)) if value]
        there = f"{others} run{'s' if others > 1 else ''} in {folder}"
        console.note(
            f"no run matches {' '.join(asked)}; {there}: plifctl runs ls"
            if others
            else f"no runs in {folder}; plifctl train demo makes one"
        )
    else:
        columns, rows = fit_columns([_row(entry) for entry in entries], console.terminal_width())
        console.emit_table(columns, rows)


def _row(entry: RunEntry) -> list[str]:
    epoch = "" if entry.epoch is None else f"{entry.epoch}/{entry.epochs}"
    age = format_age(entry.age_seconds)
    return [entry.run, entry.status, entry.protocol or "", entry.best_text, epoch, age, entry.recipe or ""]


def fit_columns(rows: list[list[str]], width: int | None) -> tuple[Sequence[str], list[list[str]]]:
    """Returns columns and rows that fit a terminal; drops the recipe, shortens names (still unique), drops the age."""
    columns = list(_COLUMNS)

    def fits() -> bool:
        used = sum(max(map(len, column)) for column in zip(columns, *rows, strict=True))
        return width is None or used + 2 * (len(columns) - 1) <= width

    if not fits():
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    if not fits():
        short = ["-".join(row[0].split("-")[:-2]) or row[0] for row in rows]  # without digest and seed
        known = Counter(part for row in rows for part in _parts_between_hyphens(row[0]))
        rows = [[part if known[part] == 1 else row[0], *row[1:]] for part, row in zip(short, rows, strict=True)]
    if not fits():
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return columns, rows


def _parts_between_hyphens(name: str) -> set[str]:
    """Returns the parts of a name that find its run before any other part does."""
    words = name.split("-")
    return {"-".join(words[begin:end]) for begin in range(len(words)) for end in range(begin + 1, len(words) + 1)}


@group.command()
def show(run: options.RunId, runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False) -> None:
    """Show settings, accuracies, layers and files of a run.

    Of the settings, those that differ from the registry are shown; plifctl show lists all.

    Example: plifctl runs show last
    """
    from plifctl.pipeline.runs import describe_run
    from plifctl.runs import AddedRun, ImportedRun, find_any

    folder = options.existing_runs_dir(runs_dir)
    width = max(10, (console.terminal_width() or 80) - 30)
    found = find_any(run, folder)
    tree = describe_run(found)
    if as_json:
        console.emit_json(tree)
    elif isinstance(found, AddedRun):
        _print_added(tree)
    elif isinstance(found, ImportedRun):
        _print_imported(found, tree, width)
    else:
        _print_run(found, tree, width)


def _print_run(run: Run, tree: dict[str, Any], width: int) -> None:
    from plifctl.runs.sessions import summarize_environment

    rows, best = run.metrics(), tree["best"]
    facts = [
        ("run", tree["path"]),
        ("experiment", f"{tree['experiment']}, {tree['recipe']} recipe, protocol {tree['protocol']}"),
        ("status", f"{tree['status']}, started {format_age(tree['age_seconds'])} ago"),
        ("epochs", f"{tree['epoch']} of {tree['epochs']}"),
        ("result", _kept_result(tree["kept_result"]) if tree["accuracy"] is None else _result(run.record())),
        ("started from", "" if (began := run.started_from()) is None else began.describe()),
        ("samples", ", ".join(f"{n:,} {part}" for part, n in tree["samples"].items())),
        *_accuracies(rows, width - 24),
        ("best epoch", "" if best is None or tree["protocol"] == "C" else best["epoch"]),
        *summarize_environment(tree["environment"]).items(),
        ("resume", tree["resume"] or _when_finished(run)),
    ]
    console.emit_table(("", "value"), [(name, value) for name, value in facts if value != ""])
    _print_sessions(tree["sessions"])
    _print_changes(tree["changes"], tree["overrides"])
    _print_layers(rows, width)
    _print_controls(run.path, tree["controls"])
    console.emit("")
    console.emit_table(("file", "bytes"), [(name, f"{size:,}") for name, size in tree["files"].items()])


def _print_controls(path: Path, controls: list[dict[str, Any]]) -> None:
    """Prints the tests under controls; those that are not of the result only as a note."""
    from plifctl.cli.evaluate import print_controls
    from plifctl.runs import run_argument

    if current := [one for one in controls if not one["problem"]]:
        print_controls(current)
    if stale := [one for one in controls if one["problem"]]:
        names, again = ", ".join(one["name"] for one in stale), f"plifctl eval {run_argument(path)} --controls"
        console.note(f"controls not counted: {names}: {stale[0]['problem']}; {again}")


def _when_finished(run: Run) -> str:
    if run.config().tests_once:
        return "finished, and tested once"
    if run.record().stopped_early:
        return "finished: train.early_stop ended it"
    return f"finished; to train longer: {run.resume_command()} --epochs N"


def _result(record: ResultRecord) -> str:
    accuracy, kind = console.percent(record.accuracy), PROTOCOL_ACCURACY[record.protocol].short
    return f"{accuracy} % of the test samples, epoch {record.best_epoch} ({kind})"


def _kept_result(kept: dict[str, Any] | None) -> str:
    if kept is None:
        return ""
    epochs = "1 epoch" if kept["epochs"] == 1 else f"{kept['epochs']} epochs"
    return f"{console.percent(kept['accuracy'])} % of {epochs}, reported until the longer training ends"


def _print_sessions(sessions: list[dict[str, Any]]) -> None:
    """Prints which process trained which epochs, if there were several."""
    if len(sessions) < 2:
        return
    rows = []
    for session in sessions:
        first, last = session["epochs"]
        known = {**session["environment"], **session}
        facts = [format_setting(known.get(key)) for key in ("plifctl", "torch", "device", "host", "training_version")]
        rows.append((f"{first}" if first == last else f"{first} to {last}", *facts))
    console.emit("")
    console.emit_table(("epochs", "plifctl", "torch", "device", "host", "training version"), rows)


def _accuracies(rows: Sequence[dict[str, Any]], width: int) -> list[tuple[str, str]]:
    from plifctl.cli.sparkline import sparkline

    found = []
    for name in ("train", "validation", "test"):
        values = [row[f"{name}_accuracy"] for row in rows]
        known = [value for value in values if value is not None]
        if len(known) == 1 < len(values):  # of protocol C
            found.append((f"{name} accuracy", f"{console.percent(known[0])} %"))
        elif known:
            line = sparkline(values, max(8, min(60, width)))
            best, last = console.percent(max(known)), console.percent(known[-1])
            found.append((f"{name} accuracy", f"{line}  best {best}, last {last} %"))
    return found


def _print_changes(changes: list[dict[str, Any]] | None, overrides: Sequence[str]) -> None:
    from plifctl.config.overrides import is_modification

    console.emit("")
    if changes is None and (stated := list(filter(is_modification, overrides))):
        console.emit(f"changed settings: {', '.join(stated)}")
    elif changes is None:
        console.emit("no settings to compare: the experiment is in no registry folder")
    elif not changes:
        console.emit("all settings are those of the registry")
    else:
        rows = [(c["key"], format_setting(c["run"]), format_setting(c["registry"]), c["from"] or "") for c in changes]
        console.emit_table(("setting", "this run", "registry", "from"), rows)


def _print_layers(rows: Sequence[dict[str, Any]], width: int) -> None:
    from plifctl.cli.sparkline import sparkline
    from plifctl.runs.metrics import layers_of

    if not rows:
        return
    last = rows[-1]
    table = [
        (
            name,
            f"{last['tau'][index]:.3f}",
            sparkline([row["tau"][index] for row in rows], min(40, width)),
            f"{last['firing_rate'][index]:.4f}",
        )
        for index, name in enumerate(layers_of(last))
    ]
    console.emit("")
    console.emit_table(("layer", "τ (steps)", "τ over epochs", "firing rate"), table)


def _print_added(tree: dict[str, Any]) -> None:
    from plifctl.runs import run_argument
    from plifctl.runs.sessions import summarize_environment

    data = tree["data"]
    facts = [
        ("run", tree["path"]),
        ("added from", tree["source"]),
        ("experiment", f"{tree['experiment']}, {tree['recipe']} recipe, protocol {tree['protocol']}"),
        ("accuracy", f"{console.percent(tree['best_test'])} % (epoch {tree['best_epoch']} of {tree['epochs']})"),
        ("seed", tree["seed"]),
        ("changed settings", ", ".join(tree["overrides"])),
        (
            "samples",
            f"{data['train']:,} train, {data['validation']:,} validation, {data['test']:,} test" if data else "",
        ),
        *summarize_environment(tree["environment"]).items(),
        ("reproduced here?", f"plifctl eval {run_argument(Path(tree['path']))}"),
    ]
    console.emit_table(("", "value"), [(name, value) for name, value in facts if value != ""])
    _print_controls(Path(tree["path"]), tree["controls"])
    console.emit("")
    console.emit_table(("file", "bytes"), [(name, f"{facts['bytes']:,}") for name, facts in tree["files"].items()])


def _print_imported(run: ImportedRun, tree: dict[str, Any], width: int) -> None:
    from plifctl.cli.sparkline import sparkline

    record, gaps = run.record(), tree["gaps"]
    facts = [
        ("run", run.name),
        ("imported from", run.source),
        *((key, value) for key, value in run.settings.items() if value is not None),
        ("epochs", f"{tree['epoch']} logged of {tree['epochs']}" + (f", {gaps} missing" if gaps else "")),
    ]
    for series, by_epoch in run.epochs.items():
        if not series.startswith("tau/"):
            values = list(by_epoch.values())
            facts.append((series.replace("_", " "), f"{sparkline(values, width)}  last {values[-1]:.4g}"))
    if record is not None:
        facts.append(("accuracy", f"{100 * record.accuracy:.2f} % (epoch {record.best_epoch})"))
    console.emit_table(("", "value"), facts)
    if run.layers:
        taus = {layer: list(run.epochs[f"tau/{layer}"].values()) for layer in run.layers}
        console.emit("")
        console.emit_table(
            ("layer", "τ (steps)", "τ over epochs"),
            [(layer, f"{tau[-1]:.3f}", sparkline(tau, min(40, width))) for layer, tau in taus.items()],
        )
    console.emit("")
    console.emit_table(("file", "bytes"), [(name, f"{facts['bytes']:,}") for name, facts in run.files.items()])


@group.command()
def compare(runs: options.RunIds, runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False) -> None:
    """Compare settings, accuracy and τ of runs.

    Shows the settings that differ, then accuracy and τ at the same epochs. Imported runs and records of the registry
    can be compared as well; of them only what is recorded is shown. The accuracy is the one by which a run selects its
    model: on test samples (protocol A) or on validation samples (B); protocol C tests the last epoch only.

    Example: plifctl runs compare last authors-fashion-mnist-plif
    """
    from plifctl.pipeline.compare_runs import compare_runs

    tree = compare_runs(runs, options.existing_runs_dir(runs_dir))
    if as_json:
        console.emit_json(tree)
        return
    names, epochs = tree["runs"], tree["epochs"]
    columns = [letters(index).upper() for index in range(len(names))]
    for letter, name in zip(columns, names, strict=True):
        console.emit(f"{letter}: {name}")
    console.emit("")
    if tree["settings"]:
        settings = [(key, *map(format_setting, values)) for key, values in tree["settings"].items()]
        console.emit_table(("setting", *columns), settings)
    else:
        console.emit("the same settings")
    shown = _thin_out(epochs)
    if shown:
        console.emit("")
        rows = [(row["epoch"], *map(console.percent, row["accuracy"])) for row in shown]
        heads = (f"{letter} {kind}" for letter, kind in zip(columns, tree["accuracy_of"], strict=True))
        console.emit_table(("epoch", *heads), rows, title="accuracy, %")
    for index, layer in enumerate(tree["layers"]):
        taus = [(row["epoch"], *(_tau(layers, index) for layers in row["tau"])) for row in shown]
        console.emit("")
        console.emit_table(("epoch", *columns), taus, title=f"τ of {layer}")
    if len(shown) < len(epochs):
        console.note(f"{len(shown)} of {len(epochs)} epochs shown; --json has all")


def _thin_out(epochs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns at most as many epochs as fit a screen, some that all runs have and some of all."""
    shared = [row for row in epochs if None not in row["accuracy"]]
    kept = {row["epoch"] for rows in (shared, epochs) if rows for row in (*rows[:: _stride(rows)], rows[-1])}
    return [row for row in epochs if row["epoch"] in kept]


def _stride(rows: Sequence[object]) -> int:
    return -(-len(rows) // _MAX_EPOCHS_SHOWN)


@group.command()
def verify(
    runs: options.OptionalRunIds = None, runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False
) -> None:
    """Verify every file of finished runs.

    All runs, or those named. Reads all files and compares them with the manifest of the run; for imported and added
    runs, verifies their checksums. Exit code 1 if a file is damaged or missing.

    Example: plifctl runs verify last
    """
    from plifctl.pipeline.run_files import verify_runs

    folder = options.existing_runs_dir(runs_dir)
    verified = verify_runs(runs or (), folder, console.bar)
    verdicts = ((name, "DAMAGED" if problems else "ok", problems) for name, problems in verified)
    found = console.emit_verdicts(verdicts, as_json=as_json)
    if not (found or as_json):
        console.note(f"no finished runs in {folder}")
    if any(problems for _, _, problems in found):
        raise typer.Exit(1)


@group.command()
def rm(
    runs: options.RunIds,
    yes: options.YesOption = False,
    dry_run: options.DryRunOption = False,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Remove runs with their checkpoints.

    Asks for confirmation; a run that is being trained is not removed.

    Example: plifctl runs rm demo-a1b2 --dry-run
    """
    from plifctl.pipeline.run_files import find_removable, remove_folders

    sizes = find_removable(runs, options.existing_runs_dir(runs_dir))
    wanted = dry_run or yes or _is_confirmed(sizes)
    if not (wanted or as_json):
        raise typer.Exit(1)
    removed = remove_folders(sizes if wanted else (), dry_run=dry_run)
    rows = ((path.name, {"run": path.name, "bytes": sizes[path]}) for path in removed)
    console.emit_removed(rows, dry_run=dry_run, as_json=as_json)
    if not wanted:
        raise typer.Exit(1)


def _is_confirmed(sizes: dict[Path, int]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("no terminal to confirm on; nothing was removed", hint="add --yes")
    for path, size in sizes.items():
        console.note(f"{path.name}: {format_bytes(size)}")
    count = "this run" if len(sizes) == 1 else f"these {len(sizes)} runs"
    return typer.confirm(f"Remove {count} permanently?", err=True)


group.command("import")(imports.import_runs)


@group.command()
def add(
    folder: Annotated[
        Path, typer.Argument(parser=options.path, metavar="FOLDER", help="Folder written by plifctl export.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run (default: the one it had).", show_default=False)
    ] = None,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Add the run of somebody else.

    Copies an exported folder, with its result and predictions, into the runs directory. report --source added makes
    the tables from such runs; eval NAME tests one on your own cache, and says whether the result is reproduced.

    Example: plifctl runs add ~/downloads/gesture-plif
    """
    from plifctl.pipeline.external_runs import add_folder
    from plifctl.pipeline.runs import run_entry
    from plifctl.runs import run_argument

    run = add_folder(folder, runs_dir, name=name)
    entry = run_entry(run)
    if as_json:
        console.emit_json(entry.to_json())
    else:
        accuracy = f"{entry.best_text} % by protocol {entry.protocol}"
        console.emit(f"added: {entry.run} ({entry.experiment}, {accuracy})")
        console.emit(f"next: plifctl eval {run_argument(run.path)}")


def _tau(layers: Sequence[float | None], index: int) -> str:
    value = layers[index] if index < len(layers) else None
    return "" if value is None else f"{value:.3f}"
