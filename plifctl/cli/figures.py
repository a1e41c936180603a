"""The figures of plifctl report: which runs they are drawn from, and where they go."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plifctl.cli import console, options
from plifctl.errors import RunError, UsageError, did_you_mean

if TYPE_CHECKING:
    from plifctl.config.experiment import ExperimentSpec
    from plifctl.config.registry import Registry
    from plifctl.report.figures import FigureKind, Line
    from plifctl.runs import Curve, SpikeRecording

NAMES = ("1b", "2", "6", "7", "S1", "S2", "S3", "S4", "S5", "J")

_ACCURACY_OF = ("Fashion-MNIST", "CIFAR-10", "CIFAR10-DVS", "DVS128 Gesture")


def draw(
    names: Sequence[str],
    runs: Sequence[str],
    out: Path | None,
    *,
    epochs: int | None,
    channels: Sequence[int],
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Draws figures and says where they are.

    Args:
        names: Some of :data:`NAMES`, or ``all``: those that can be drawn.
        runs: Which they are drawn from; none: see :func:`_lines` and :func:`_recording`.
        out: A file, or a folder for several figures; None: the current folder.
        epochs: The last that is drawn.
        channels: For S2 to S5.
        runs_dir: Where runs lie.
        as_json: Print a document.
    """
    from plifctl.report.figures import FIGURES, save_figure, styled

    wanted = list(dict.fromkeys(n for name in names for n in (NAMES if name == "all" else (name,))))
    for name in wanted:
        if name not in FIGURES:
            raise UsageError(f"unknown figure {name!r}", hint=did_you_mean(name, FIGURES))
    registry = options.registry()
    written: list[dict[str, Any]] = []
    for name in wanted:
        kind, path = FIGURES[name], _path(name, out, several=len(wanted) > 1)
        try:
            with styled():
                used, figure = _drawn(name, kind, runs, epochs, channels, runs_dir, registry)
                save_figure(figure, path, f"Figure {name}. {kind.caption}")
        except (UsageError, RunError) as error:
            if "all" not in names:
                raise
            console.warn(f"figure {name}: {error}; left out")
            continue
        written.append({"figure": name, "path": str(path), "caption": kind.caption, "runs": used})
    if as_json:
        console.emit_json(written)
        return
    for entry in written:
        console.emit(f"{entry['path']}: Figure {entry['figure']}. {entry['caption']}")
        if used := entry["runs"]:
            console.note(f"drawn from {', '.join(used) if len(used) < 5 else f'{len(used)} runs'}")


def _path(name: str, out: Path | None, *, several: bool) -> Path:
    if out is not None and not several and out.suffix and not out.is_dir():
        return out
    if out is not None and out.suffix and several and not out.is_dir():
        raise UsageError(
            f"--out {out}: several figures need a folder", hint=f"--out {shlex.quote(str(out.with_suffix('')))}"
        )
    return (out or Path()) / f"figure-{name}.pdf"


def _drawn(
    name: str,
    kind: FigureKind,
    runs: Sequence[str],
    epochs: int | None,
    channels: Sequence[int],
    runs_dir: Path,
    registry: Registry,
) -> tuple[list[str], Any]:
    """The names of the runs that are drawn, and the figure."""
    if kind.needs == "nothing":
        return [], kind.draw()
    if kind.needs == "spikes":
        used, recording = _recording(runs, runs_dir)
        return [used], kind.draw(recording, channels)
    lines = _lines(name, runs, runs_dir, registry)
    return [line.curve.name for line in lines], kind.draw(lines, epochs)


def _lines(name: str, runs: Sequence[str], runs_dir: Path, registry: Registry) -> list[Line]:
    """The curves of a figure.

    Of runs that are named, these and the published logs of their experiments. Else the published logs of the
    experiments that the paper draws; where none were imported, and for Figure S1, the longest run of each of ours.
    """
    from plifctl.report.figures import line_of
    from plifctl.runs import find_curve, load_curves

    def experiment(of: str) -> ExperimentSpec | None:
        return registry.experiment(of, recipe="authors").spec if of in registry.experiments() else None

    there = load_curves(runs_dir, registry.folders)
    published = {curve.experiment: curve for curve in there if curve.origin == "imported" and curve.protocol == "A"}
    if runs:
        curves = [find_curve(run, runs_dir, registry.folders) for run in runs]
        beside = [published[curve.experiment] for curve in curves if curve.experiment in published and name != "S1"]
        chosen = list({curve.name: curve for curve in [*beside, *curves]}.values())
        return [line_of(curve, experiment) for curve in chosen]
    ours = _longest([curve for curve in there if curve.origin == "trained" and curve.protocol == "A"])
    if name == "S1":
        chosen = sorted((curve for curve in ours if curve.w_over_tau), key=lambda curve: -len(curve.epochs))[:1]
    else:
        chosen = [curve for of, curve in published.items() if of is not None] or ours
    lines = [line_of(curve, experiment) for curve in chosen]
    # the paper draws max pooling, and four data sets
    lines = [line for line in lines if not (line.curve.experiment or "").endswith("-avgpool")]
    if name == "7":
        lines = [line for line in lines if line.curve.tau and line.neuron != "lif"]
    return [line for line in lines if line.panel in _ACCURACY_OF] or lines


def _longest(curves: Sequence[Curve]) -> list[Curve]:
    """The longest curve of each experiment."""
    longest: dict[str | None, Curve] = {}
    for curve in curves:
        known = longest.get(curve.experiment)
        if known is None or len(curve.epochs) >= len(known.epochs):
            longest[curve.experiment] = curve
    return list(longest.values())


def _recording(runs: Sequence[str], runs_dir: Path) -> tuple[str, SpikeRecording]:
    """The recorded spikes of the run that is named; else those that were recorded last."""
    from plifctl.runs import find_run, load_spikes

    if len(runs) > 1:
        raise UsageError("spikes are drawn of one run", hint="name one: --run RUN")
    if runs:
        path = find_run(runs[0], runs_dir).path
        return path.name, load_spikes(path / "spikes.npz")
    found = sorted(runs_dir.glob("[!.]*/spikes.npz"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UsageError("no run has recorded spikes", hint="plifctl eval RUN --record-spikes 10")
    return found[-1].parent.name, load_spikes(found[-1])
