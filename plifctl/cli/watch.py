"""plifctl watch: follow a run that another process trains."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from plifctl.cli import console, options
from plifctl.cli.display import TrainingDisplay, training_display
from plifctl.errors import Interrupted, RunError

if TYPE_CHECKING:
    from plifctl.runs import Run

_POLL_SECONDS = 0.5


def watch(
    run: options.RunId = "last", runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False
) -> None:
    """Follow a run until it ends.

    Another process trains it, on this machine or on one that shares the runs directory. Shows what train shows;
    without a terminal, a line for each epoch. Ctrl-C stops watching, not the run.
    Exit code: 0 if the run finished, otherwise that of the training, or 6 if it was killed.

    Example: plifctl watch last
    """
    from plifctl.runs import find_run

    watched = find_run(run, options.existing_runs_dir(runs_dir))
    spec = watched.config().spec
    try:
        with training_display(watched, spec, [], say=console.note if as_json else console.emit) as shown:
            _follow(watched, shown)
    except Interrupted as stop:
        raise Interrupted(stop.exit_code - 128, f"stopped watching; {watched.name} is still running") from None
    _print_end(watched, as_json)


def _follow(run: Run, shown: TrainingDisplay) -> None:
    """Shows past epochs, then new ones until no process trains the run."""
    seen, ended = 0, False
    while True:
        running = run.status() == "running"
        try:
            rows = run.metrics()
        except RunError:  # its files may be changing
            if not running:
                raise
            rows = []
        for row in rows[seen:]:
            shown.epoch(row)
        seen = max(seen, len(rows))
        progress = run.progress()
        if progress is not None and running:
            shown.step(progress)
        if not running and ended:  # twice in a row: a run that is just starting has no lock yet
            return
        ended = not running
        time.sleep(_POLL_SECONDS)


def _print_end(run: Run, as_json: bool) -> None:
    from plifctl.runs import best_row

    status, info, rows = run.status(), run.info(), run.metrics()
    best = best_row(rows, run.config().spec.train.ties)
    recorded = {"finished": 0, "killed": RunError.exit_code}  # a killed run may have the code of an earlier stop
    code = recorded.get(status, int(info.get("exit_code") or 0) or RunError.exit_code)
    tree: dict[str, Any] = {
        "run": run.name,
        "status": status,
        "exit_code": code,
        "error": info.get("error") if status == "failed" else None,
        "epoch": len(rows),
        "best_epoch": best["epoch"] if best else None,
        "test_accuracy": run.record().accuracy if status == "finished" else None,
    }
    if as_json:
        console.emit_json(tree)
    elif status == "finished":
        console.note(f"{run.name}: finished, test accuracy {100 * tree['test_accuracy']:.2f} %")
    else:
        console.warn(f"{run.name}: {info.get('error') or status}" if status != "killed" else f"{run.name}: killed")
    if code:
        raise typer.Exit(code)
