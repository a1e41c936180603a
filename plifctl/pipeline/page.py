"""The page of the report, written into a folder or served: tables, runs, recorded spikes, and figures."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plifctl import __version__, paths
from plifctl.config.base import flatten
from plifctl.config.choices import OTHER_TABLES, TABLES
from plifctl.config.lookup import load_registry
from plifctl.errors import PlifctlError, RunError
from plifctl.files import stamp
from plifctl.report import Table, TableOptions, fill_table
from plifctl.report.page import PageFigure, PageRun, RunFacts, build_page_data, create_server, page_run, write_page
from plifctl.runs import (
    Curve,
    RegisteredExperiments,
    ResultRecord,
    Run,
    curve_of_run,
    external_accuracy,
    external_folders,
    list_runs,
    load_other_curves,
    load_records,
    load_spikes,
)
from plifctl.runs.sessions import summarize_environment
from plifctl.runs.sweep_plans import sweeps_by_run

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

_TABLES = (*TABLES, *OTHER_TABLES)
_RESULT_FILES = ("result.json", "controls.json", "predictions.npz")


def write_report_page(
    folder: Path, runs_dir: Path | None = None, *, include_modified: bool = False, figures: Sequence[str] = ()
) -> Path:
    """Writes tables, runs and recorded spikes as a web page that needs no network, and returns its path.

    Args:
        folder: Folder of the page.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        include_modified: Use runs with overrides in tables as well.
        figures: Figures that the page shows, or ``all`` for those that the available runs allow.

    Raises:
        UsageError: The folder contains a page that plifctl did not write; there is no such figure, or nothing to draw.
    """
    source = PageSource(runs_dir, include_modified=include_modified, figures=_page_figures(figures, runs_dir))
    return write_page(folder, source.data())


def _page_figures(names: Sequence[str], runs_dir: Path | None) -> list[PageFigure]:
    if not names:
        return []
    from plifctl.pipeline.figures import draw_figures  # imports matplotlib

    with tempfile.TemporaryDirectory() as folder:
        drawn = draw_figures(names, Path(folder), runs_dir, form="svg")
        return [PageFigure(figure.name, figure.caption, figure.path.read_bytes()) for figure in drawn]


def serve_report_page(runs_dir: Path | None = None, port: int = 0) -> ThreadingHTTPServer:
    """Returns a server of the page on this machine only; ``serve_forever()`` runs it.

    Args:
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        port: Port; 0 picks a free one.

    Raises:
        UsageError: The port is in use.
    """
    return create_server(PageSource(runs_dir).data, port)


class PageSource:
    """Current data of the page; unchanged runs are not read again.

    Args:
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        include_modified: Use runs with overrides in tables as well.
        figures: Figures of the page.
    """

    def __init__(
        self, runs_dir: Path | None = None, *, include_modified: bool = False, figures: Sequence[PageFigure] = ()
    ) -> None:
        self._runs_dir, self._registry = runs_dir or paths.runs_dir(), load_registry()
        self._experiments = RegisteredExperiments(self._registry)
        self._options, self._figures = TableOptions(include_modified=include_modified), figures
        self._known: dict[Path, tuple[object, PageRun]] = {}  # by run: state of its files, and what was read
        self._results_state: object = None
        self._tables: list[Table] = []
        self._others: list[PageRun] = []

    def data(self) -> dict[str, Any]:
        """Returns the document of the page: all tables, and every run, the latest of ours first."""
        runs = list_runs(self._runs_dir)
        self._read_results()
        ours = [self._run(run) for run in reversed(runs)]
        sweeps = sweeps_by_run(self._runs_dir)
        shown = [
            replace(run, entry={**run.entry, "name": name, "sweeps": list(sweeps.get(name, ()))})
            for name, run in _named([*ours, *self._others]).items()
        ]
        return build_page_data(self._tables, shown, __version__, self._figures)

    def _read_results(self) -> None:
        """Reads tables, records and imported runs if a file of them has changed."""
        files = [
            *(path for folder in self._registry.folders for path in sorted((folder / "results").glob("*.json"))),
            *(path for name in _RESULT_FILES for path in sorted(self._runs_dir.glob(f"[!.]*/{name}"))),
            *external_folders(self._runs_dir),
        ]
        state = [(path, stamp(path)) for path in files]
        if state == self._results_state:
            return
        records = load_records(self._runs_dir, self._registry.folders)
        self._tables = [fill_table(name, records, self._registry, self._options, self._runs_dir) for name in _TABLES]
        others = [record for record in records if record.origin != "trained"]
        by_name = {(record.origin, record.run): record for record in others}
        curves = load_other_curves(self._runs_dir, self._registry.folders, others)
        self._others = [page_run(self._other_facts(curve, by_name.get((curve.origin, curve.name)))) for curve in curves]
        self._results_state = state

    def _other_facts(self, curve: Curve, record: ResultRecord | None) -> RunFacts:
        """What is known of a run that was not trained here."""
        environment = {} if record is None else flatten(summarize_environment(record.environment))
        spec, status = self._experiments.find(curve), "imported" if curve.origin == "authors" else curve.origin
        accuracy, changes = external_accuracy(curve, record), self._experiments.changes(curve)
        return RunFacts(curve, curve.name, status, spec, changes, accuracy, environment=environment)

    def _run(self, run: Run) -> PageRun:
        names = ("config.yaml", "run.json", "metrics.jsonl", "metrics.sha256", "result.json", "spikes.npz")
        state = [stamp(run.path / name) for name in names]
        before, found = self._known.get(run.path, (None, None))
        if found is None or before != state:
            found = page_run(_read_run(run, self._experiments))
            self._known[run.path] = state, found
        if found.entry["curve"] is None or found.entry["status"] == "finished":  # which these files determine
            return found
        try:
            status: str = run.status()  # a process that is killed changes no file
        except RunError as error:
            status = f"damaged: {error}"
        return replace(found, entry={**found.entry, "status": status})


def _named(runs: Sequence[PageRun]) -> dict[str, PageRun]:
    """Returns runs by name; of two with one name, the later has its source before it (``shipped:NAME``)."""
    found: dict[str, PageRun] = {}
    for run in runs:
        name = run.entry["name"]
        found[f"{run.entry['whose']}:{name}" if name in found else name] = run
    return found


def _read_run(run: Run, experiments: RegisteredExperiments) -> RunFacts:
    try:
        config, status = run.config(), run.status()
        settings = flatten(config.spec.model_dump(mode="json"))
        spikes = run.path / "spikes.npz"
        return RunFacts(
            curve_of_run(run),
            run.name,
            status,
            config.spec,
            experiments.changes(config),
            run.accuracy_so_far(),
            {key: (value, config.origins.get(key, "")) for key, value in settings.items()},
            flatten(summarize_environment(run.environment())),
            config.spec.train.epochs,
            load_spikes(spikes) if spikes.is_file() else None,
        )
    except RunError as error:
        return RunFacts(None, run.name, f"damaged: {error}")
    except PlifctlError as error:
        return RunFacts(None, run.name, str(error))
