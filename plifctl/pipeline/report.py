"""Tables, figures and the page of the report, made from finished runs, the registry's records and the authors' runs."""

from __future__ import annotations

import logging
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from plifctl import __version__, paths
from plifctl.config.base import flatten
from plifctl.config.choices import (
    FIGURES,
    OTHER_TABLES,
    SELECTION_TABLE,
    TABLES,
    ResultOrigin,
    ResultSource,
)
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.errors import PlifctlError, RegistryError, RunError, UsageError, check_choice, did_you_mean
from plifctl.files import stamp
from plifctl.report import Table, TableOptions
from plifctl.report import build_table as fill_table
from plifctl.report.fast import FAST, FastResult, find_fast_results
from plifctl.report.page import PageFigure, PageRun, RunFacts, build_page_data, create_server, page_run, write_page
from plifctl.report.results import ORIGINS, Results
from plifctl.report.statement import StatedRun, statement
from plifctl.report.tables import is_filled_by_runs
from plifctl.runs import (
    Curve,
    ResultRecord,
    Run,
    SpikeRecording,
    curve_of_run,
    external_folders,
    find_curves,
    find_run,
    list_runs,
    load_curves,
    load_other_curves,
    load_records,
    load_spikes,
)
from plifctl.runs.sessions import summarize_environment
from plifctl.runs.sweep_plans import sweeps_by_run

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

    from plifctl.config.experiment import ExperimentSpec
    from plifctl.report.figures import Figure, FigureKind, Line

_log = logging.getLogger(__name__)

_PAGE_TABLES = (*TABLES, *OTHER_TABLES)
_RENAMED = {"optimism": SELECTION_TABLE}
_RESULT_FILES = ("result.json", "controls.json", "predictions.npz")
_DATASETS_OF_FIGURES = ("Fashion-MNIST", "CIFAR-10", "CIFAR10-DVS", "DVS128 Gesture")


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
    wanted = _expand_all(names, TABLES)
    for name in wanted:
        if name in _RENAMED:
            raise UsageError(f"the table {name} was renamed", hint=f"use --table {_RENAMED[name]}")
    registry = load_registry()
    folder = runs_dir or paths.runs_dir()
    records = load_records(folder, registry.folders)
    if any(is_filled_by_runs(name, registry) for name in wanted):
        _warn_of_empty_source(options.source, {record.origin for record in records})
    return [fill_table(name, records, registry, options, folder) for name in wanted]


def _expand_all(names: Sequence[str], of_paper: Sequence[str]) -> list[str]:
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
        "added": "no runs of others were added: plifctl runs add FOLDER",
    }
    _log.warning(hints[source])


def write_statement(names: Sequence[str] = (), runs_dir: Path | None = None) -> str:
    """Returns the reproducibility statement on finished runs, as Markdown.

    Args:
        names: Runs; empty: every finished run of the runs directory.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        UsageError: There is no such run, one that was named is not finished, or there are none.
    """
    folder, registry = runs_dir or paths.runs_dir(), load_registry()
    runs = [find_run(name, folder) for name in names] or list_runs(folder)
    finished: list[Run] = []
    for run in runs:
        try:
            status: str = run.status()
        except RunError as error:
            if names:
                raise
            _log.warning("left out: %s", error)
            continue
        if status == "finished":
            finished.append(run)
        elif names:
            raise UsageError(f"{run.name}: {status}, so it has no result to state")
    if not finished:
        raise UsageError(f"no finished run in {folder}", hint="plifctl train demo makes one")
    results = Results([], registry)

    def stated(run: Run) -> StatedRun:
        record = run.record()
        hours = tuple(row["seconds"] / 3600 for row in run.metrics())
        return StatedRun(record, results.registered(record), hours)

    return statement([stated(run) for run in finished])


@dataclass(frozen=True)
class FigureFile:
    """A figure that was drawn.

    Attributes:
        name: ``1b``, ``2`` and so on.
        path: The file.
        caption: Content of the figure.
        runs: Names of the runs it was drawn from.
    """

    name: str
    path: Path
    caption: str
    runs: list[str]


def draw_figures(
    names: Sequence[str],
    out: Path | None = None,
    runs_dir: Path | None = None,
    *,
    runs: Sequence[str] = (),
    epochs: int | None = None,
    channels: Sequence[int] = (),
    experiments: Sequence[str | Path] = (),
    form: Literal["pdf", "svg", "png"] = "pdf",
) -> list[FigureFile]:
    """Draws figures into files.

    Args:
        names: Figures, or ``all`` for those of the paper that the available runs allow.
        out: A file, or a folder of several files; None: the current folder.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        runs: Runs to draw, over the authors' curves of their experiments and protocol; those that differ in the seed
            only are one line with a band. Empty: the authors' curves.
        epochs: Last epoch to draw.
        channels: Channels of Figures S2 to S5.
        experiments: Names or YAML files of the experiments that figure ``start`` shows, each on its cache; empty: the
            gesture network on simulated gestures.
        form: Form of the files in a folder; the name of a file states its own.

    Raises:
        UsageError: There is no such figure or run, nothing to draw, or runs, experiments, channels or an epoch are
            named that no figure shows.
        CacheError: An experiment has no cache.
    """
    from plifctl.report.figures import FIGURE_KINDS, check_format, figure_style, save_figure

    wanted = _expand_all(names, FIGURES)
    for name in wanted:
        if name not in FIGURE_KINDS:
            raise UsageError(f"unknown figure {name!r}", hint=did_you_mean(name, FIGURE_KINDS))
    needs = {FIGURE_KINDS[name].needs for name in wanted}
    for given, shows, what, hint in (
        (runs, not needs <= {"nothing", "first step"}, "run", "leave out --run"),
        (experiments, "first step" in needs, "experiment", "use --experiment with --figure start"),
        (channels, "spikes" in needs, "channel", "use --channel with --figure S2 to S5"),
        (epochs, "curves" in needs, "curve by epochs", "leave out --epochs"),
    ):
        if given and not shows:
            raise UsageError(f"figure {', '.join(wanted)} shows no {what}", hint=hint)
    files = {name: _figure_path(name, out, form, several=len(wanted) > 1) for name in wanted}
    for path in files.values():
        check_format(path)
    source = _FigureSource(runs_dir or paths.runs_dir(), load_registry(), runs, epochs, channels, experiments)
    drawn: list[FigureFile] = []
    for name, path in files.items():
        kind = FIGURE_KINDS[name]
        try:
            with figure_style():
                used, about, figure = source.draw(name, kind)
                caption = f"{kind.caption} {about}".strip()
                save_figure(figure, path, f"Figure {name}. {caption}")
        except (UsageError, RunError) as error:
            if "all" not in names:
                raise
            _log.warning("figure %s: skipped: %s", name, error)
            continue
        drawn.append(FigureFile(name, path, caption, used))
    return drawn


def _figure_path(name: str, out: Path | None, form: str, *, several: bool) -> Path:
    if out is not None and not several and out.suffix and not out.is_dir():
        return out
    if out is not None and out.suffix and several and not out.is_dir():
        raise UsageError(
            f"--out {out}: several figures need a folder", hint=f"--out {shlex.quote(str(out.with_suffix('')))}"
        )
    return (out or Path()) / f"figure-{name}.{form}"


@dataclass(frozen=True)
class _FigureSource:
    """Chooses the curves or spikes that a figure is drawn from."""

    runs_dir: Path
    registry: Registry
    runs: Sequence[str]
    epochs: int | None
    channels: Sequence[int]
    experiments: Sequence[str | Path]

    def draw(self, name: str, kind: FigureKind) -> tuple[list[str], str, Figure]:
        """Returns the names of the runs used, what the caption says of them, and the figure."""
        from plifctl.report.figures import describe_lines

        if kind.needs == "nothing":
            return [], "", kind.draw()
        if kind.needs == "first step":
            from plifctl.pipeline.initial_state import measure_initial_states

            networks = measure_initial_states(self.registry, self.experiments)
            return [], " ".join(network.about for network in networks), kind.draw(networks)
        if kind.needs == "fast results":
            found = self._fast_results()
            used = [run for result in found for run in (*result.runs, *result.compared_runs)]
            return list(dict.fromkeys(used)), " ".join(result.describe() for result in found), kind.draw(found)
        if kind.needs == "spikes":
            recorded, recording = self._recording()
            return [recorded], "", kind.draw(recording, self.channels)
        if self.runs:
            lines = self._named_lines(compare=name != "S1")
            drawn = [line for line in lines if kind.shows(line)]
            for line in drawn and [line for line in lines if line not in drawn and not line.imported]:
                _log.warning("figure %s: left out, has no such values: %s", name, line.first.name)
        else:
            drawn = self._default_lines(kind)
        if name == "S1":  # one training
            drawn = sorted(drawn, key=lambda line: -len(line.first.epochs))[:1]
        figure = kind.draw(drawn, self.epochs)
        return [curve.name for line in drawn for curve in line.curves], describe_lines(drawn), figure

    def _named_lines(self, *, compare: bool) -> list[Line]:
        """The lines of named runs, and where ``compare`` those of the authors' of the same experiment and protocol."""
        from plifctl.report.figures import lines_of

        wanted = {(curve.experiment, curve.protocol) for curve in self._named if curve.experiment is not None}
        authors = [c for c in self._curves("imported") if compare and (c.experiment, c.protocol) in wanted]
        found = {curve.identity: curve for curve in [*authors, *self._named]}
        return lines_of(found.values(), partial(_spec_of, self.registry))

    def _default_lines(self, kind: FigureKind) -> list[Line]:
        """The authors' lines, of the paper's pooling and data sets, else our longest of each experiment; protocol A."""
        from plifctl.report.figures import lines_of

        def of(origin: str) -> list[Line]:
            curves = [curve for curve in self._curves(origin) if curve.experiment is not None and curve.protocol == "A"]
            return [line for line in lines_of(curves, partial(_spec_of, self.registry)) if kind.shows(line)]

        lines = [line for line in of("imported") if not line.average_pooling] or _longest(of("trained"))
        return [line for line in lines if line.panel in _DATASETS_OF_FIGURES] or lines

    def _fast_results(self) -> list[FastResult]:
        """The results of recipe ``fast`` with processor time: of the named runs, else of our own, else shipped ones."""
        records = load_records(self.runs_dir, self.registry.folders)
        named = {curve.name for curve in self._named}
        if named:
            records = [record for record in records if record.recipe != FAST or record.run in named]
        sources: tuple[ResultSource, ...] = ("mine", "shipped", "added")
        for source in sources:
            found = find_fast_results(Results(records, self.registry, source, include_modified=bool(self.runs)))
            for result in found:
                for problem in result.problems:
                    _log.warning("figure fast: %s: %s", result.name, problem)
            if timed := [result for result in found if result.timings]:
                for run in sorted(named.difference(*(result.runs for result in timed))):
                    _log.warning("figure fast: left out: %s", run)
                return timed
        raise UsageError(
            "no finished run of recipe fast has CPU minutes",
            hint="plifctl validate EXPERIMENT --recipe fast; a modified run is drawn if it is named: --run RUN",
        )

    def _curves(self, origin: str) -> list[Curve]:
        return [curve for curve in self._all_curves if curve.origin == origin]

    @cached_property
    def _named(self) -> list[Curve]:
        return find_curves(self.runs, self.runs_dir, self.registry.folders) if self.runs else []

    @cached_property
    def _all_curves(self) -> list[Curve]:
        """The curves to choose from; where runs are named, those of others only, so that no other run is read."""
        folders = self.registry.folders
        if not self.runs:
            return load_curves(self.runs_dir, folders)
        records = [record for record in load_records(self.runs_dir, folders) if record.origin != "trained"]
        return load_other_curves(self.runs_dir, folders, records)

    def _recording(self) -> tuple[str, SpikeRecording]:
        """The recorded spikes of the named run, or the latest ones."""
        if len(self.runs) > 1:
            raise UsageError("spikes are drawn from one run, found several", hint="name one: --run RUN")
        if self.runs:
            path = find_run(self.runs[0], self.runs_dir).path
            return path.name, load_spikes(path / "spikes.npz")
        recorded = (run.path / "spikes.npz" for run in list_runs(self.runs_dir))
        found = sorted(filter(Path.is_file, recorded), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UsageError("no run has recorded spikes", hint="plifctl eval RUN --record-spikes 10")
        return found[-1].parent.name, load_spikes(found[-1])


def _longest(lines: Sequence[Line]) -> list[Line]:
    """Returns a line of each experiment: one without changes if there is, the longest of these, the last of equals."""
    longest: dict[str | None, Line] = {}

    def rank(line: Line) -> tuple[bool, int]:
        return not line.first.changes, len(line.first.epochs)

    for line in lines:
        known = longest.get(line.first.experiment)
        if known is None or rank(line) >= rank(known):
            longest[line.first.experiment] = line
    return list(longest.values())


def _spec_of(registry: Registry, curve: Curve) -> ExperimentSpec | None:
    """The settings of a run of which only a record or a log is at hand; None where they are unknown."""
    if curve.experiment is None:
        return None
    try:
        found = registry.experiment(curve.experiment, recipe=curve.recipe or "authors", overrides=curve.overrides)
    except (UsageError, RegistryError):  # not in this registry
        return None
    return found.for_protocol(curve.protocol or "A").spec


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
        names = {run.name for run in runs}
        others = [run for run in self._others if run.entry["name"] not in names]
        sweeps = sweeps_by_run(self._runs_dir)
        shown = [
            replace(run, entry={**run.entry, "sweeps": list(sweeps.get(run.entry["name"], ()))})
            for run in (*ours, *others)
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
        self._tables = [
            fill_table(name, records, self._registry, self._options, self._runs_dir) for name in _PAGE_TABLES
        ]
        others = [record for record in records if record.origin != "trained"]
        by_name = {record.run: record for record in others}
        curves = load_other_curves(self._runs_dir, self._registry.folders, others)
        self._others = [page_run(self._other_facts(curve, by_name.get(curve.name))) for curve in curves]
        self._results_state = state

    def _other_facts(self, curve: Curve, record: ResultRecord | None) -> RunFacts:
        """What is known of a run that was not trained here."""
        environment = {} if record is None else flatten(summarize_environment(record.environment))
        spec = _spec_of(self._registry, curve)
        return RunFacts(curve, curve.name, curve.origin, spec, record, environment=environment)

    def _run(self, run: Run) -> PageRun:
        names = ("config.yaml", "run.json", "metrics.jsonl", "metrics.sha256", "result.json", "spikes.npz")
        state = [stamp(run.path / name) for name in names]
        before, found = self._known.get(run.path, (None, None))
        if found is None or before != state:
            found = page_run(_read_run(run))
            self._known[run.path] = state, found
        if found.entry["curve"] is None or found.entry["status"] == "finished":  # which these files determine
            return found
        try:
            status: str = run.status()  # a process that is killed changes no file
        except RunError as error:
            status = f"damaged: {error}"
        return replace(found, entry={**found.entry, "status": status})


def _read_run(run: Run) -> RunFacts:
    try:
        config, status = run.config(), run.status()
        settings = flatten(config.spec.model_dump(mode="json"))
        spikes = run.path / "spikes.npz"
        return RunFacts(
            curve_of_run(run),
            run.name,
            status,
            config.spec,
            run.record() if status == "finished" else None,
            {key: (value, config.origins.get(key, "")) for key, value in settings.items()},
            flatten(summarize_environment(run.environment())),
            config.spec.train.epochs,
            load_spikes(spikes) if spikes.is_file() else None,
        )
    except RunError as error:
        return RunFacts(None, run.name, f"damaged: {error}")
    except PlifctlError as error:
        return RunFacts(None, run.name, str(error))
