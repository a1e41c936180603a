"""Tables and the statement of the report, from finished runs, the registry's records and the authors' runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from plifctl import paths
from plifctl.config.choices import SELECTION_TABLE, TABLES, ResultOrigin, ResultSource
from plifctl.config.lookup import load_registry
from plifctl.errors import RunError, UsageError, check_choice
from plifctl.report import Table, TableOptions, fill_table
from plifctl.report.results import ORIGINS, Results
from plifctl.report.statement import StatedRun, statement
from plifctl.report.tables import is_filled_by_runs
from plifctl.runs import Run, find_run, list_runs, load_records

_log = logging.getLogger(__name__)

_RENAMED = {"optimism": SELECTION_TABLE}


def build_table(name: str, runs_dir: Path | None = None, options: TableOptions | None = None) -> Table:
    """Returns a table of the report.

    Args:
        name: A table of the paper (``1`` to ``5``, ``S1``, ``S2``), ``selection`` or another one without
            a file, or one of a registry folder.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        options: Whose runs fill the table, and which of them; None: the user's own.

    Raises:
        UsageError: There is no such table.
    """
    if name == "all":
        raise UsageError("table all: expected the name of one table", hint=f"known: {', '.join(TABLES)} and others")
    return build_tables([str(name)], runs_dir, options)[0]


def build_tables(
    names: Sequence[str], runs_dir: Path | None = None, options: TableOptions | None = None
) -> list[Table]:
    """Returns several tables, as :func:`build_table` does; ``all`` stands for those of the paper."""
    options = options or TableOptions()
    check_choice("source", options.source, get_args(ResultSource))
    if options.epochs is not None and options.epochs < 1:
        raise UsageError(f"epochs: found {options.epochs}, expected a number from 1 on")
    wanted = expand_all(names, TABLES)
    for name in wanted:
        if name in _RENAMED:
            raise UsageError(f"the table {name} was renamed", hint=f"use --table {_RENAMED[name]}")
    registry = load_registry()
    folder = runs_dir or paths.runs_dir()
    records = load_records(folder, registry.folders)
    if any(is_filled_by_runs(name, registry) for name in wanted):
        _warn_of_empty_source(options.source, {record.origin for record in records})
    return [fill_table(name, records, registry, options, folder) for name in wanted]


def expand_all(names: Sequence[str], of_paper: Sequence[str]) -> list[str]:
    """Returns the names, each once, with those of the paper in the place of ``all``."""
    return list(dict.fromkeys(one for name in names for one in (of_paper if name == "all" else (name,))))


def _warn_of_empty_source(source: ResultSource, origins: set[ResultOrigin]) -> None:
    """Says where results come from if there are none of a source."""
    if ORIGINS[source] in origins:
        return
    hints = {
        "mine": "no finished runs; results that come with plifctl: --source shipped",
        "shipped": "no records in the folders results/ of the registry",
        "authors": "no logs of the authors in the registry",
        "imported": "no logs of other code were imported: plifctl runs import DIR",
        "added": "no runs of others were added: plifctl runs add FOLDER",
    }
    _log.warning(hints[source])


def write_statement(names: Sequence[str] = (), runs_dir: Path | None = None) -> str:
    """Returns the reproducibility statement on runs with a result, as Markdown.

    A run whose longer training has not ended has the result of its first epochs, which the tables count, too.

    Args:
        names: Runs, each stated once however often it is named; empty: all of the runs directory that have a result.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        UsageError: There is no such run, one that was named has no result, or there are none.
    """
    folder, registry = runs_dir or paths.runs_dir(), load_registry()
    named = (find_run(name, folder) for name in names)
    runs = list({run.path.resolve(): run for run in named}.values()) or list_runs(folder)
    results, stated = Results([], registry), []
    for run in runs:
        try:
            found, status = _state_run(run, results), run.status()
        except RunError as error:
            if names:
                raise
            _log.warning("left out: %s", error)
            continue
        if found is not None:
            stated.append(found)
        elif names:
            raise UsageError(f"{run.name}: {status}, so it has no result to state")
    if not stated:
        raise UsageError(f"no finished run in {folder}", hint="plifctl train demo makes one")
    return statement(stated)


def _state_run(run: Run, results: Results) -> StatedRun | None:
    """Returns what the statement says of a run; None: it has no result."""
    if not run.is_finished() and run.kept_result() is None:
        return None
    record = run.record().model_copy(update={"run": run.name})  # the user may have renamed it
    hours = tuple(row["seconds"] / 3600 for row in run.metrics()[: record.epochs])
    return StatedRun(record, results.registered(record), results.changes(record), hours)
