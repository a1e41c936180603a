"""plifctl runs: look after runs."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from plifctl.cli import console, imports, options
from plifctl.errors import PlifctlError, RunError, UsageError, did_you_mean

if TYPE_CHECKING:
    from plifctl.runs import Curve, Run

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
    from plifctl.runs import list_runs

    folder = options.existing_runs_dir(runs_dir)
    entries = [*imports.imported_entries(folder), *(_entry(run) for run in list_runs(folder))]
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

    Takes imported runs, and records of the registry, too. Accuracy is that by which the run chooses its model: on test
    samples (protocol A) or on validation samples (B).

    Example: plifctl runs compare last published-fashion-mnist-plif
    """
    from plifctl.runs import find_curve

    folder = options.existing_runs_dir(runs_dir)
    curves = [find_curve(name, folder, options.registry().folders) for name in runs]
    curves = list({curve.name: curve for curve in curves}.values())
    if len(curves) < 2:
        raise UsageError("two runs at least can be compared", hint="plifctl runs ls lists them")
    different = _differences(curves, folder)
    epochs = sorted(set().union(*(curve.epochs for curve in curves)))
    if as_json:
        tree = [
            {
                "epoch": epoch,
                "accuracy": [_chosen(curve).get(epoch) for curve in curves],
                "tau": [[_tau_of(curve, layer).get(epoch) for layer in range(len(curve.tau))] for curve in curves],
            }
            for epoch in epochs
        ]
        console.emit_json({"runs": [curve.name for curve in curves], "settings": different, "epochs": tree})
        return
    letters = [chr(ord("A") + index) if index < 26 else str(index) for index in range(len(curves))]
    for letter, curve in zip(letters, curves, strict=True):
        console.emit(f"{letter}: {curve.name}")
    console.emit("")
    if different:
        console.emit_table(("setting", *letters), [(key, *map(_text, values)) for key, values in different.items()])
    else:
        console.emit("the same settings")
    shared = [epoch for epoch in epochs if all(epoch in curve.epochs for curve in curves)]
    shown = sorted({*_thinned(shared), *_thinned(epochs)})
    rows = [(epoch, *(_percent(_chosen(curve).get(epoch)) for curve in curves)) for epoch in shown]
    if rows:
        console.emit("")
        console.emit_table(("epoch", *letters), rows, title="accuracy, %")
    layers = max((curve.layers for curve in curves), key=len)
    for layer, name in enumerate(layers):
        known = [_tau_of(curve, layer) for curve in curves]
        rows = [(epoch, *(_tau(taus.get(epoch)) for taus in known)) for epoch in shown]
        console.emit("")
        console.emit_table(("epoch", *letters), rows, title=f"τ of {name}")
    if len(shown) < len(epochs):
        console.note(f"{len(shown)} of {len(epochs)} epochs shown; --json has all")


def verify(
    runs: options.OptionalRunIds = None, runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False
) -> None:
    """Read every file of finished runs and compare it with the run's manifest: all of them, or those named.

    Of imported runs the seal is compared. Exit code 1 where anything is not as it was written.

    Example: plifctl runs verify last
    """
    from plifctl.runs import find_run, imported_folders, list_runs, load_imported, verify_run

    folder = options.existing_runs_dir(runs_dir)
    named = {name: imports.find_imported(name, folder) for name in runs or ()}
    imported = [path for path in named.values() if path is not None] if runs else imported_folders(folder)
    chosen = [find_run(name, folder) for name, path in named.items() if path is None] if runs else list_runs(folder)
    found: dict[str, list[str]] = {}
    for path in imported:
        try:
            load_imported(path)
            found[path.name] = []
        except RunError as error:
            found[path.name] = [str(error)]
        if not as_json:
            console.emit_verdict(path.name, found[path.name])
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
    from plifctl.runs import find_run, remove_imported, remove_run

    folder = options.existing_runs_dir(runs_dir)
    imported = {path.name: path for name in runs if (path := imports.find_imported(name, folder)) is not None}
    ours = (find_run(name, folder) for name in runs if imports.find_imported(name, folder) is None)
    chosen = list({run.path: run for run in ours}.values())
    live = [run.name for run in chosen if run.status() == "running"]
    if live:
        raise UsageError(f"being trained: {', '.join(live)}; nothing is removed", hint="Ctrl-C where it runs stops it")
    folders = [*imported.values(), *(run.path for run in chosen)]
    sizes = {path.name: sum(_files(path).values()) for path in folders}
    if not dry_run and not yes:
        _ask(sizes)
    if not dry_run:
        for path in imported.values():
            remove_imported(path)
        for run in chosen:
            remove_run(run)
    if not as_json:
        for name, size in sizes.items():
            console.emit(f"{'would be removed' if dry_run else 'removed'}: {name} ({size / 1e6:,.1f} MB)")
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

    age = round(time.time() - run.started)
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
    from plifctl.pipeline.commands import training_verb
    from plifctl.runs import best_row

    config, rows, status, split = run.config(), run.metrics(), run.status(), run.split()
    verb = training_verb(config.protocol)
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
        "files": _files(run.path),
        "resume": None if status == "finished" else f"plifctl {verb} --resume {shlex.quote(run.name)}",
    }


def _files(folder: Path) -> dict[str, int]:
    """The files of a run with their sizes in bytes."""
    there = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.stat().st_size for path in there}


def _changes(run: Run) -> list[dict[str, Any]] | None:
    """The settings that the registry has otherwise, with where they came from; None where it has no such experiment."""
    from plifctl.config.base import flatten

    config = run.config()
    try:
        usual = options.registry().experiment(config.experiment, recipe=config.recipe).for_protocol(config.protocol).spec
    except PlifctlError:
        return None
    was, now = (flatten(spec.model_dump(mode="json")) for spec in (config.spec, usual))
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
    from plifctl.cli.panel import sparkline

    found = []
    for name in ("train", "validation", "test"):
        values = [row[f"{name}_accuracy"] for row in run.metrics()]
        known = [value for value in values if value is not None]
        if known:
            line = sparkline(values, max(8, min(60, width)))
            found.append((f"{name} accuracy", line, _percent(max(known)), _percent(known[-1])))
    return found


def _print_layers(run: Run, width: int) -> None:
    from plifctl.cli.panel import layer_names, sparkline

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


def _differences(curves: list[Curve], runs_dir: Path) -> dict[str, list[Any]]:
    """The settings in which runs differ, with the value in each; the data and the machine among them."""
    from plifctl.config.base import flatten
    from plifctl.runs import Run

    settings = []
    for curve in curves:
        known: dict[str, Any] = {
            name: getattr(curve, name) for name in ("origin", "experiment", "recipe", "protocol", "T")
        }
        known["train.seed"] = curve.seed
        if (runs_dir / curve.name / "config.yaml").is_file():
            run = Run(runs_dir / curve.name)
            spec = run.config().spec
            about = {"cache": run.info()["cache"]["content_digest"][:12], "environment": run.environment()}
            known |= {"train.epochs": spec.train.epochs, **flatten(spec.identity()), **flatten(about)}
        settings.append(known)
    # what is not known of a run is no difference
    keys = {key: None for setting in settings for key in setting if key != "name"}
    values = {key: [setting.get(key) for setting in settings] for key in keys}
    return {key: found for key, found in values.items() if len({repr(v) for v in found if v is not None}) > 1}


def _thinned(epochs: list[int]) -> list[int]:
    """About as many as fit on a screen, the first and the last among them."""
    return [*epochs[:: -(-len(epochs) // _MOST_ROWS)], epochs[-1]] if epochs else []


def _chosen(curve: Curve) -> dict[int, float | None]:
    """By epoch, the accuracy that counts for the choice of the model."""
    name = "validation_accuracy" if "validation_accuracy" in curve.series else "test_accuracy"
    return dict(zip(curve.epochs, curve.series.get(name, ()), strict=False))


def _tau_of(curve: Curve, layer: int) -> dict[int, float | None]:
    return dict(zip(curve.epochs, curve.tau[layer], strict=True)) if layer < len(curve.tau) else {}


def _tau(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
