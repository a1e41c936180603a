"""Figure ``fast``: accuracy over processor time of the recipe ``fast``, beside the authors' training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from plifctl.config.choices import PROTOCOL_ACCURACY, Protocol
from plifctl.report.fast import FastResult, Timing
from plifctl.report.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    SKY,
    add_legend,
    letter,
    panel_grid,
    verbatim,
)
from plifctl.runs import ResultRecord

_POINTS: dict[Protocol, tuple[str, str]] = {"A": ("s", GREEN), "B": ("o", BLUE), "C": ("D", PINK)}
"""Marker and colour of the runs of a protocol."""

_LABELS: dict[Protocol, str] = {
    protocol: f"fast, protocol {protocol}: {accuracy.short}" for protocol, accuracy in PROTOCOL_ACCURACY.items()
}
"""Label of the runs of a protocol."""

_VALIDATION = "fast: validation after each epoch"
_AUTHORS = "authors, protocol A: best test epoch so far"
_REPORTED = "paper, protocol B: test"

_STEPS = {1.2: (1.0, 2.0, 5.0), 2.5: (1.0, 3.0), math.inf: (1.0,)}
"""Labelled times in each factor of ten, by the factors of ten that an axis spans."""


def draw_fast(results: Sequence[FastResult]) -> Figure:
    """Draws accuracy by processor time, a panel for each experiment and processor.

    Args:
        results: Runs of the recipe ``fast`` whose processor time is known.
    """
    panels: dict[tuple[str, str], list[tuple[FastResult, Timing]]] = {}
    for result in results:
        for timing in result.timings:
            panels.setdefault((result.group.first.experiment, timing.processor), []).append((result, timing))
    several = len({processor for _, processor in panels}) > 1
    figure, grid = panel_grid(len(panels), 2.0)
    for index, (axes, ((_, processor), members)) in enumerate(zip(grid, panels.items(), strict=True)):
        _draw_panel(axes, members)
        first, _ = members[0]
        parts = (first.title, *first.accuracy.flags, *((processor,) if several else ()))
        letter(axes, index, verbatim(", ".join(parts)))
        axes.set(xlabel="processor time (CPU min)", ylabel="accuracy (%)")
    drawn = [axes.get_legend_handles_labels() for axes in grid]
    shown = {label: handle for found in drawn for handle, label in zip(*found, strict=True)}
    order = [*_LABELS.values(), _VALIDATION, _AUTHORS, _REPORTED]
    labels = [label for label in order if label in shown]
    add_legend(figure, [shown[label] for label in labels], labels, columns=2)
    return figure


def _draw_panel(axes: Axes, members: Sequence[tuple[FastResult, Timing]]) -> None:
    """Draws the runs of an experiment on a processor, in one protocol or in several."""
    curves = []
    # the paper's accuracy B measures what ours of protocol B does
    of_b = [result for result, _ in members if result.group.first.protocol == "B"]
    if (reported := of_b[0].reported_b if of_b else None) is not None:
        axes.axhline(reported, color=BLACK, linestyle=(0, (4, 2)), linewidth=0.8, label=_REPORTED)
    authors = next((timing.authors for _, timing in members if timing.authors is not None), None)
    if authors is not None:
        curves.append(np.array([(epoch * authors.minutes, 100 * best) for epoch, best in authors.best.items()]))
        axes.plot(*curves[-1].T, color=ORANGE, drawstyle="steps-post", label=_AUTHORS)
    for record in (record for _, timing in members for record in timing.records):
        if len(curve := _validation_curve(record)):
            curves.append(curve)
            axes.plot(*curve.T, color=SKY, linewidth=0.6, label=_VALIDATION)
    results = [_draw_runs(axes, timing) for _, timing in members]
    final = [*(curve[:, 1].max() for curve in curves), *(found[0, 1] for found in results)]
    final += [] if reported is None else [reported]
    _limit(axes, np.concatenate([*curves, *results]), np.concatenate(results), min(final), max(final))


def _validation_curve(record: ResultRecord) -> np.ndarray:
    """Returns the processor time up to each epoch, minutes, and its validation accuracy, percent, ``[epochs, 2]``."""
    times = np.cumsum(np.array(record.cpu_seconds, np.float64)) / 60
    both = zip(times, record.validation_curve, strict=False)  # of runs of protocols A and C the curve is empty
    return np.array([(time, 100 * value) for time, value in both if value is not None])


def _draw_runs(axes: Axes, timing: Timing) -> np.ndarray:
    """Draws the mean of runs with its deviations.

    Returns:
        Minutes and percent of the mean, and of the lower and the upper end of its deviations, ``[3, 2]``.
    """
    percent = [100 * record.accuracy for record in timing.records]
    mean, several = fmean(percent), len(percent) > 1
    deviation = stdev(percent) if several else 0.0
    protocol = timing.records[0].protocol
    marker, colour = _POINTS[protocol]
    axes.errorbar(
        fmean(timing.minutes),
        mean,
        yerr=deviation if several else None,
        xerr=stdev(timing.minutes) if several else None,
        fmt=marker,
        markersize=4,
        color=colour,
        elinewidth=0.8,
        capsize=2,
        zorder=3,
        label=_LABELS[protocol],
    )
    ends = (min(timing.minutes), mean - deviation), (max(timing.minutes), mean + deviation)
    return np.array([(fmean(timing.minutes), mean), *ends])


def _limit(axes: Axes, points: np.ndarray, whole: np.ndarray, least: float, most: float) -> None:
    """Limits the axes to the end of curves, which begin far below.

    Args:
        axes: The panel.
        points: Minutes and percent of all points, ``[points, 2]``.
        whole: Those that are shown in any case.
        least: The lowest result, percent.
        most: The highest one, percent.
    """
    span = max(most - least, 0.5)
    low = min(least - 1.5 * span, whole[:, 1].min() - 0.05 * span)
    axes.set_ylim(low, max(most + 0.15 * span, whole[:, 1].max() + 0.05 * span))
    times = points[points[:, 1] >= low, 0]
    axes.set_xscale("log")
    axes.set_xlim(times.min() / 1.6, times.max() * 1.6)  # wide enough for a label, also around a single point
    decades = np.log10(times.max() / times.min())
    steps = next(steps for most_decades, steps in _STEPS.items() if decades < most_decades)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
