"""plifctl runs: look after runs."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from plifctl import console
from plifctl.cli import imports, options
from plifctl.errors import PlifctlError, RunError, UsageError, did_you_mean

if TYPE_CHECKING:
    from plifctl.runs import Run

_MOST_ROWS = 20
_TABLE = ("run", "status", "A/B", "best %", "epoch", "age", "recipe")


class _ListsByDefault(TyperGroup):
    """``plifctl runs`` is ``plifctl runs ls``, with or without options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = bool(args) and (args[0] in ctx.help_option_names or not args[0].startswith("-"))
        return list(super().parse_args(ctx, args if own else ["ls", *args]))


def register(app: typer.Typer) -> None:
    """Adds the subcommands."""
    about = "List, show, compare, verify, remove and import runs."
    group = typer.Typer(cls=_ListsByDefault, help=about, rich_markup_mode=None)
    for command in (ls, show, compare, verify, rm):
        group.command(command.__name__)(command)
    group.command("import")(imports.import_runs)
    app.add_typer(group, name="runs")


def ls(
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Only its runs.", autocompletion=options.experiments)
    ] = None,
    status: Annotated[
        Literal["running", "finished", "stopped", "failed", "killed", "unknown", "damaged", "imported"] | None,
        typer.Option("--status", help="Only runs that stand so."),
    ] = None,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """List runs, imported ones first, then oldest first; plifctl runs alone does, too.

    "best %" is the test accuracy of finished runs and of protocol A, else the best of validation so far ("val").

    Example: plifctl runs ls --status finished
    """
    from plifctl.runs import all_runs

    folder = options.existing_runs_dir(runs_dir)
    entries = [*imports.imported_entries(folder), *(_entry(run) for run in all_runs(folder))]
    if experiment is not None:
        known = {str(entry["experiment"]) for entry in entries}
        if experiment not in known and experiment not in options.registry().experiments():
            raise UsageError(f"unknown experiment {experiment!r}", hint=did_you_mean(experiment, known))
        entries = [entry for entry in entries if entry["experiment"] == experiment]
    if status is not None:
        entries = [entry for entry in entries if entry["status"] == status]
    if as_json:
        console.emit_json(entries)
    elif not entries:
        console.note(f"none in {folder}; plifctl train demo makes one")
    else:
        columns, rows = _fitting([_row(entry) for entry in entries], console.terminal_width())
        console.emit_table(columns, rows)


def show(run: options.RunId, runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False) -> None:
    """Show a run: what was asked otherwise than the registry has it, on what it was trained, and how it goes.

    Example: plifctl runs show last
    """
    from plifctl.runs import find_run, load_imported

    folder = options.existing_runs_dir(runs_dir)
    width = max(10, (console.terminal_width() or 80) - 30)
    if (path := imports.find_imported(run, folder)) is not None:
        imports.show_imported(load_imported(path), width, as_json=as_json)
        return
    found = find_run(run, folder)
    tree = _tree(found)
    if as_json:
        console.emit_json(tree)
        return
    split, best = tree["samples"], tree["best"]
    facts = [
        ("run", tree["path"]),
        ("experiment", f"{tree['experiment']}, {tree['recipe']} recipe, protocol {tree['protocol']}"),
        ("status", f"{tree['status']}, begun {console.age(tree['age_seconds'])} ago"),
        ("epochs", f"{tree['epoch']} of {tree['epochs']}"),
        ("samples", ", ".join(f"{n:,} {part}" for part, n in split.items())),
        *((name, f"{line}  best {top}, last {last} %") for name, line, top, last in _curves(found, width - 24)),
        ("best epoch", "" if best is None else best["epoch"]),
        *((key, value) for key, value in tree["environment"].items()),
        ("go on", tree["resume"] or "it is finished; --epochs makes it longer"),
    ]
    console.emit_table(("", "value"), [(name, value) for name, value in facts if value != ""])
    _print_changes(tree["changes"])
    _print_layers(found, width)
    console.emit("")
    console.emit_table(("file", "bytes"), [(name, f"{size:,}") for name, size in tree["files"].items()])


def compare(runs: options.RunIds, runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False) -> None:
    """Compare runs: first the settings that differ, then accuracy and τ at the same epochs.

    Accuracy is that by which the run chooses its model: on test samples (protocol A) or on validation samples (B).

    Example: plifctl runs compare last demo-a1b2
    """
    from plifctl.panel import layer_names
    from plifctl.runs import find_run

    folder = options.existing_runs_dir(runs_dir)
    found = list({run.path: run for run in (find_run(name, folder) for name in runs)}.values())
    if len(found) < 2:
        raise UsageError("two runs at least can be compared", hint="plifctl runs ls lists them")
    different = _differences(found)
    curves = [{row["epoch"]: row for row in run.metrics()} for run in found]
    epochs = sorted(set().union(*curves))
    if as_json:
        tree = [
            {
                "epoch": epoch,
                "accuracy": [_chosen(c.get(epoch)) for c in curves],
                "tau": [_taus(c, epoch) for c in curves],
            }
            for epoch in epochs
        ]
        console.emit_json({"runs": [run.name for run in found], "settings": different, "epochs": tree})
        return
    letters = [chr(ord("A") + index) if index < 26 else str(index) for index in range(len(found))]
    for letter, run in zip(letters, found, strict=True):
        console.emit(f"{letter}: {run.name}")
    console.emit("")
    if different:
        console.emit_table(("setting", *letters), [(key, *map(_text, values)) for key, values in different.items()])
    else:
        console.emit("the same settings")
    shown = epochs[:: -(-len(epochs) // _MOST_ROWS)] if epochs else []
    if epochs and shown[-1] != epochs[-1]:
        shown.append(epochs[-1])
    rows = [(epoch, *(_percent(_chosen(curve.get(epoch))) for curve in curves)) for epoch in shown]
    if rows:
        console.emit("")
        console.emit_table(("epoch", *letters), rows, title="accuracy, %")
    layers = max((layer_names(next(iter(curve.values()))) for curve in curves if curve), key=len, default=[])
    for index, name in enumerate(layers):
        rows = [(epoch, *(_tau(_taus(curve, epoch), index) for curve in curves)) for epoch in shown]
        console.emit("")
        console.emit_table(("epoch", *letters), rows, title=f"τ of {name}")
    if len(shown) < len(epochs):
        console.note(f"{len(shown)} of {len(epochs)} epochs shown; --json has all")


def verify(
    runs: options.OptionalRunIds = None, runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False
) -> None:
    """Read every file of finished runs and compare it with the run's manifest: all of them, or those named.

    Exit code 1 where anything is not as it was written.

    Example: plifctl runs verify last
    """
    from plifctl.runs import all_runs, find_run, verify_run

    folder = options.existing_runs_dir(runs_dir)
    chosen = [find_run(name, folder) for name in runs] if runs else all_runs(folder)
    found: dict[str, list[str]] = {}
    for run in chosen:
        status = run.status()
        if status != "finished":
            if runs:
                raise UsageError(f"{run.name}: {status}; only finished runs have a manifest")
            continue
        with console.bar(f"verifying {run.name}", "files") as bar:
            found[run.name] = verify_run(run, bar.update)
        if not as_json:
            console.emit_verdict(run.name, found[run.name])
    if as_json:
        console.emit_json(found)
    elif not found:
        console.note(f"no finished runs in {folder}")
    if any(found.values()):
        raise typer.Exit(1)


def rm(
    runs: options.RunIds,
    yes: options.YesOption = False,
    dry_run: options.DryRunOption = False,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Remove runs, with their checkpoints. Asks first; a run that is being trained stays.

    Example: plifctl runs rm demo-a1b2 --dry-run
    """
    from plifctl.runs import find_run, remove_run

    folder = options.existing_runs_dir(runs_dir)
    chosen = list({run.path: run for run in (find_run(name, folder) for name in runs)}.values())
    live = [run.name for run in chosen if run.status() == "running"]
    if live:
        raise UsageError(f"being trained: {', '.join(live)}; nothing is removed", hint="Ctrl-C where it runs stops it")
    sizes = {run.name: sum(_files(run).values()) for run in chosen}
    if not dry_run and not yes:
        _ask(sizes)
    for run in chosen:
        if not dry_run:
            remove_run(run)
        if not as_json:
            size = f"{sizes[run.name] / 1e6:,.1f} MB"
            console.emit(f"{'would be removed' if dry_run else 'removed'}: {run.name} ({size})")
    if as_json:
        removed = [{"run": name, "bytes": size} for name, size in sizes.items()]
        console.emit_json({"removed": removed, "bytes": sum(sizes.values()), "dry_run": dry_run})


def _ask(sizes: dict[str, int]) -> None:
    if not sys.stdin.isatty():
        raise UsageError("nobody is here to be asked; nothing is removed", hint="add --yes")
    for name, size in sizes.items():
        console.note(f"{name}: {size / 1e6:,.1f} MB")
    if not typer.confirm(f"Remove {'it' if len(sizes) == 1 else f'these {len(sizes)} runs'} for good?", err=True):
        raise typer.Exit(1)


def _entry(run: Run) -> dict[str, Any]:
    """What a list says of a run; one that cannot be read is in it, too."""
    from plifctl.runs import best_row

    age = round(time.time() - run.begun)
    empty = dict.fromkeys(("experiment", "protocol", "recipe", "best_test", "best_validation", "epoch", "epochs"))
    entry = {"run": run.name, "status": "damaged", **empty, "age_seconds": age}
    try:
        config, metrics, status = run.config(), run.metrics(), run.status()
        best = best_row(metrics) or {}
        test = run.record().accuracy if status == "finished" else best.get("test_accuracy")
    except RunError as error:
        console.warn(str(error))
        return entry
    return {
        "run": run.name,
        "status": status,
        "experiment": config.experiment,
        "protocol": config.protocol,
        "recipe": config.recipe,
        "best_test": test,
        "best_validation": best.get("validation_accuracy"),
        "epoch": len(metrics),
        "epochs": config.spec.train.epochs,
        "age_seconds": age,
    }


def _row(entry: dict[str, Any]) -> list[str]:
    test, validation = entry["best_test"], entry["best_validation"]
    best = f"{100 * validation:.2f} val" if test is None and validation is not None else _percent(test)
    epoch = "" if entry["epoch"] is None else f"{entry['epoch']}/{entry['epochs']}"
    age = console.age(entry["age_seconds"])
    return [entry["run"], entry["status"], entry["protocol"] or "", best, epoch, age, entry["recipe"] or ""]


def _fitting(rows: list[list[str]], width: int | None) -> tuple[Sequence[str], list[list[str]]]:
    """The table as wide as the terminal: first the recipe goes, then what names need not, then the age."""
    columns = list(_TABLE)

    def fits() -> bool:
        used = sum(max(map(len, column)) for column in zip(columns, *rows, strict=True))
        return width is None or used + 2 * (len(columns) - 1) <= width

    if not fits():
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    if not fits():
        short = ["-".join(row[0].split("-")[:-2]) or row[0] for row in rows]  # without settings' digest and seed
        unique = [sum(part in row[0] for row in rows) == 1 for part in short]
        rows = [[part if one else row[0], *row[1:]] for part, one, row in zip(short, unique, rows, strict=True)]
    if not fits():
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return columns, rows


def _tree(run: Run) -> dict[str, Any]:
    from plifctl.runs import best_row

    config, rows, status, split = run.config(), run.metrics(), run.status(), run.split()
    verb = "train" if config.protocol == "A" else "validate"
    return {
        "path": str(run.path),
        **{key: value for key, value in _entry(run).items() if key not in ("best_test", "best_validation")},
        "status": status,
        "accuracy": run.record().accuracy if status == "finished" else None,
        "best": best_row(rows),
        "last": rows[-1] if rows else None,
        "changes": _changes(run),
        "samples": {part: len(split.get(part, [])) for part in ("train", "validation", "test")},
        "environment": run.environment(),
        "cache": run.info()["cache"],
        "files": _files(run),
        "resume": None if status == "finished" else f"plifctl {verb} --resume {shlex.quote(run.name)}",
    }


def _files(run: Run) -> dict[str, int]:
    """The run's files with their sizes in bytes."""
    there = (path for path in sorted(run.path.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(run.path)): path.stat().st_size for path in there}


def _changes(run: Run) -> list[dict[str, Any]] | None:
    """The settings that the registry has otherwise, with where they came from; None where it has no such experiment."""
    from plifctl.specs import flattened

    config = run.config()
    try:
        usual = options.registry().experiment(config.experiment, recipe=config.recipe).under(config.protocol).spec
    except PlifctlError:
        return None
    was, now = (flattened(spec.model_dump(mode="json")) for spec in (config.spec, usual))
    keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    return [
        {"key": key, "run": was.get(key), "registry": now.get(key), "from": config.origins.get(key)} for key in keys
    ]


def _print_changes(changes: list[dict[str, Any]] | None) -> None:
    console.emit("")
    if changes is None:
        console.emit("the experiment is in no registry folder")
    elif not changes:
        console.emit("all settings are the registry's")
    else:
        rows = [(c["key"], _text(c["run"]), _text(c["registry"]), c["from"] or "") for c in changes]
        console.emit_table(("setting", "here", "registry", "from"), rows)


def _curves(run: Run, width: int) -> list[tuple[str, str, str, str]]:
    """Name, line, best and last of each accuracy that there is."""
    from plifctl.panel import sparkline

    found = []
    for name in ("train", "validation", "test"):
        values = [row[f"{name}_accuracy"] for row in run.metrics()]
        known = [value for value in values if value is not None]
        if known:
            line = sparkline(values, max(8, min(60, width)))
            found.append((f"{name} accuracy", line, _percent(max(known)), _percent(known[-1])))
    return found


def _print_layers(run: Run, width: int) -> None:
    from plifctl.panel import layer_names, sparkline

    rows = run.metrics()
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
        for index, name in enumerate(layer_names(last))
    ]
    console.emit("")
    console.emit_table(("layer", "τ (steps)", "τ over epochs", "firing rate"), table)


def _differences(runs: list[Run]) -> dict[str, list[Any]]:
    """The settings in which runs differ, with the value in each; the data and the machine among them."""
    from plifctl.specs import flattened

    settings = []
    for run in runs:
        config = run.config()
        tree = {"experiment": config.experiment, "protocol": config.protocol, **config.spec.science()}
        train = {"train.epochs": config.spec.train.epochs, "train.seed": config.spec.train.seed}
        about = {"cache": run.info()["cache"]["content_digest"][:12], "environment": run.environment()}
        settings.append({**flattened(tree), **train, **flattened(about)})
    keys = {key: None for setting in settings for key in setting}
    values = {key: [setting.get(key) for setting in settings] for key in keys if key != "name"}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _chosen(row: dict[str, Any] | None) -> float | None:
    """The accuracy of an epoch that counts for the choice of the model."""
    if row is None:
        return None
    validation, test = row.get("validation_accuracy"), row.get("test_accuracy")
    return test if validation is None else validation


def _taus(curve: dict[int, dict[str, Any]], epoch: int) -> list[float]:
    return list(curve[epoch]["tau"]) if epoch in curve else []


def _tau(taus: list[float], index: int) -> str:
    return f"{taus[index]:.3f}" if index < len(taus) else ""


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
