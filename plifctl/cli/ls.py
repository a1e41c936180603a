"""plifctl ls: what there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl import console
from plifctl.cli import options
from plifctl.errors import RunError, UsageError, did_you_mean

if TYPE_CHECKING:
    from plifctl.registry import Registry
    from plifctl.runs import Run

_BEST = "best_test_%"
_KINDS = ("experiments", "datasets", "networks", "runs")


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("ls")(ls)


def _kinds(incomplete: str) -> list[str]:
    return [kind for kind in _KINDS if kind.startswith(incomplete)]


def ls(
    kind: Annotated[
        str, typer.Argument(help="experiments, datasets, networks or runs.", autocompletion=_kinds)
    ] = "experiments",
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """List experiments (with the accuracies A and B that are reported), data sets, networks or runs.

    Example: plifctl ls runs
    """
    if kind not in _KINDS:
        raise UsageError(f"unknown kind {kind!r}", hint=did_you_mean(kind, _KINDS))
    if kind == "runs":
        entries = _runs(options.existing_runs_dir(runs_dir))
    else:
        entries = {"experiments": _experiments, "datasets": _datasets, "networks": _networks}[kind](options.registry())
    if as_json:
        console.emit_json(entries)
    elif not entries:
        console.note("nothing yet; plifctl train demo makes a run")
    else:
        rows = [["" if value is None else value for value in entry.values()] for entry in entries]
        console.emit_table([name.replace("_", " ") for name in entries[0]], rows)


def _experiments(registry: Registry) -> list[dict[str, Any]]:
    entries = []
    for name in registry.experiments():
        spec = registry.experiment(name).spec
        published = spec.published
        entries.append(
            {
                "name": name,
                "T": spec.T,
                "A_%": f"{published.accuracy_a:.2f}" if published else None,
                "B_%": f"{published.accuracy_b:.2f}" if published and published.accuracy_b else None,
                "title": spec.title,
            }
        )
    return entries


def _datasets(registry: Registry) -> list[dict[str, Any]]:
    entries = []
    for name in registry.datasets():
        spec = registry.dataset(name).dataset
        entries.append(
            {
                "name": name,
                "title": spec.title,
                "kind": spec.kind,
                "shape": "×".join(map(str, spec.shape)),
                "classes": len(spec.classes),
                "train": spec.samples.train,
                "test": spec.samples.test,
            }
        )
    return entries


def _networks(registry: Registry) -> list[dict[str, Any]]:
    return [{"name": name, "structure": registry.network(name).structure} for name in registry.networks()]


def _runs(runs_dir: Path) -> list[dict[str, Any]]:
    from plifctl.runs import all_runs

    return [_run(run) for run in all_runs(runs_dir)]


def _run(run: Run) -> dict[str, Any]:
    """One line; a run that cannot be read has one, too."""
    try:
        config, metrics, status = run.config(), run.metrics(), run.status()
    except RunError as error:
        console.warn(str(error))
        return {"run": run.name, "protocol": None, "recipe": None, "status": "damaged", "epoch": None, _BEST: None}
    tests = [row["test_accuracy"] for row in metrics if row.get("test_accuracy") is not None]
    return {
        "run": run.name,
        "protocol": config.protocol,
        "recipe": config.recipe,
        "status": status,
        "epoch": f"{len(metrics)}/{config.spec.train.epochs}",
        _BEST: f"{100 * max(tests):.2f}" if tests else None,
    }
