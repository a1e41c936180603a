"""Figures of the report, drawn into files from runs, the authors' curves, recorded spikes, or nothing."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from plifctl import paths
from plifctl.config.choices import FIGURES, ResultSource
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.errors import RunError, UsageError, did_you_mean
from plifctl.pipeline.report import expand_all
from plifctl.report.fast import FAST, FastResult, find_fast_results
from plifctl.report.figures import (
    FIGURE_KINDS,
    PAPER_PANELS,
    Figure,
    FigureKind,
    Line,
    check_format,
    describe_lines,
    figure_style,
    lines_of,
    save_figure,
)
from plifctl.report.results import ORIGINS, SOURCES, Results
from plifctl.runs import (
    Curve,
    RegisteredExperiments,
    SpikeRecording,
    find_curves,
    find_run,
    list_runs,
    load_curves,
    load_other_curves,
    load_records,
    load_spikes,
)

_log = logging.getLogger(__name__)


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
    wanted = expand_all(names, FIGURES)
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
        if kind.needs == "nothing":
            return [], "", kind.draw()
        if kind.needs == "first step":
            from plifctl.pipeline.initial_state import measure_initial_states  # imports training

            networks = measure_initial_states(self.registry, self.experiments)
            return [], " ".join(network.about for network in networks), kind.draw(networks)
        if kind.needs == "fast results":
            found = self._fast_results()
            used = [run for result in found for run in (*result.runs, *result.compared_runs)]
            return list(dict.fromkeys(used)), " ".join(result.describe() for result in found), kind.draw(found)
        if kind.needs == "spikes":
            recorded, recording = self._recording()
            after = f"Weights: {recording.saved_after}." if recording.saved_after else ""
            return [recorded], after, kind.draw(recording, self.channels)
        if self.runs:
            lines = self._named_lines(compare=name != "S1")
            for other, longer in self._without_line(lines):
                text = "figure %s: left out, the same seed and settings as %s: %s"
                _log.warning(text, name, longer.name, other.name)
            drawn = [line for line in lines if kind.shows(line)]
            named = {curve.identity for curve in self._named}
            for line in drawn and [one for one in lines if one not in drawn and one.first.identity in named]:
                _log.warning("figure %s: left out, has no such values: %s", name, line.first.name)
        else:
            drawn = self._default_lines(kind)
        if name == "S1":
            drawn = self._one_training(drawn)
        figure = kind.draw(drawn, self.epochs)
        return [curve.name for line in drawn for curve in line.curves], describe_lines(drawn), figure

    def _named_lines(self, *, compare: bool) -> list[Line]:
        """The lines of named runs, and where ``compare`` those of the authors' of the same experiment and protocol."""
        wanted = {(curve.experiment, curve.protocol) for curve in self._named if curve.experiment is not None}
        authors = [c for c in self._curves("authors") if compare and (c.experiment, c.protocol) in wanted]
        found = {curve.identity: curve for curve in [*authors, *self._named]}
        return lines_of(found.values(), RegisteredExperiments(self.registry))

    def _one_training(self, lines: Sequence[Line]) -> list[Line]:
        """Returns the longest line with its first seed, which Figure S1 shows; names the others of named runs."""
        ordered = sorted(lines, key=lambda line: -len(line.first.epochs))
        for curve in [curve for line in ordered for curve in line.curves][1:] if self.runs else ():
            _log.warning("figure S1: left out, it shows one training: %s", curve.name)
        return [replace(line, curves=line.curves[:1]) for line in ordered[:1]]

    def _without_line(self, lines: Sequence[Line]) -> list[tuple[Curve, Curve]]:
        """Returns the named curves that are in no line, each with the one of its seed that is."""
        drawn = {curve.identity: curve for line in lines for curve in line.curves}
        by_seed = {(curve.setting, curve.seed): curve for curve in drawn.values()}
        others = [curve for curve in self._named if curve.identity not in drawn]
        return [(curve, by_seed[curve.setting, curve.seed]) for curve in others]

    def _default_lines(self, kind: FigureKind) -> list[Line]:
        """The authors' lines, of the paper's pooling and data sets, else our longest of each experiment; protocol A."""

        def of(origin: str) -> list[Line]:
            curves = [curve for curve in self._curves(origin) if curve.experiment is not None and curve.protocol == "A"]
            return [line for line in lines_of(curves, RegisteredExperiments(self.registry)) if kind.shows(line)]

        lines = [line for line in of("authors") if not line.average_pooling] or _longest(of("trained"))
        return [line for line in lines if line.panel in PAPER_PANELS] or lines

    def _fast_results(self) -> list[FastResult]:
        """The results of recipe ``fast`` with processor time: of the named runs, else of our own, else shipped ones."""
        records = load_records(self.runs_dir, self.registry.folders)
        named = {(curve.origin, curve.name) for curve in self._named}
        if named:
            records = [record for record in records if record.recipe != FAST or (record.origin, record.run) in named]
        sources: tuple[ResultSource, ...] = ("mine", "shipped", "added")
        for source in sources:
            found = find_fast_results(Results(records, self.registry, source, include_modified=bool(self.runs)))
            for result in found:
                for problem in result.problems:
                    _log.warning("figure fast: %s: %s", result.name, problem)
            if timed := [result for result in found if result.timings]:
                drawn = {(ORIGINS[source], run) for result in timed for run in result.runs}
                for origin, run in sorted(named - drawn):
                    _log.warning("figure fast: left out: %s (%s)", run, SOURCES[origin])
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
        return not line.changes, len(line.first.epochs)

    for line in lines:
        known = longest.get(line.first.experiment)
        if known is None or rank(line) >= rank(known):
            longest[line.first.experiment] = line
    return list(longest.values())
