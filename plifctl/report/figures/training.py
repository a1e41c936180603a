"""Figures of trainings: test accuracy (6), τ of each layer (7), and the distribution of W_fc/τ (S1)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from plifctl.errors import UsageError
from plifctl.report.figures.lines import PAPER_PANELS, Line, labels_of, values_of
from plifctl.report.figures.style import (
    BLACK,
    BLUE,
    DOUBLE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SINGLE,
    SKY,
    YELLOW,
    add_legend,
    letter,
    new_figure,
    panel_grid,
    stack_parts,
    verbatim,
)
from plifctl.units import letters

_log = logging.getLogger(__name__)

WINDOW = 64
"""Epochs of the moving average."""

_MAX_LINEAR_RATIO = 6.0
"""Ratio of the largest τ to the smallest from which on the axis is logarithmic."""

_LAYERS_IN_ROW = 4
"""Panels beside each other in Figure 7."""

_DASHES, _DASH_DOT, _DOTS = (0, (4.0, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1))
_STYLES: dict[tuple[str | None, float | None], tuple[str, Any]] = {
    ("plif", 2.0): (BLUE, "-"),
    ("plif", 16.0): (GREEN, (0, (5, 1))),
    ("lif", 2.0): (ORANGE, _DASH_DOT),
    ("lif", 16.0): (RED, _DOTS),
}
"""Colour and dashes of the paper's settings: green and red for τ = 16."""

_OTHER_STYLES = [
    (colour, dashes)
    for colours in ((PINK, SKY, YELLOW, BLACK), (BLUE, GREEN, ORANGE, RED))
    for dashes, colour in product(("-", _DASH_DOT, _DOTS), colours)
    if (colour, dashes) not in ((BLUE, "-"), (ORANGE, _DASH_DOT), (RED, _DOTS))  # which are the paper's
]
"""Colour and dashes of other settings, in the order in which they are given."""

_QUANTILE_COLOURS = {0.01: "#d9e8f2", 0.05: "#a6cbe2", 0.25: "#6aa7cf"}
"""Colour between a quantile and its opposite: opaque, so that the legend has the colours that are drawn."""


def moving_average(epochs: Sequence[int], values: Sequence[float], window: int = WINDOW) -> np.ndarray:
    """Returns for each epoch the mean over the last ``window`` epochs up to it.

    The mean is over fewer at the start, and where epochs or values are missing.

    Args:
        epochs: Epochs, ascending.
        values: A value for each epoch; NaN: there is none.
        window: Number of epochs.

    Example:
        >>> moving_average([1, 2, 5], [1.0, 3.0, 7.0], 3).tolist()
        [1.0, 2.0, 7.0]
    """
    numbers, known = np.array(epochs), np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    begins = np.searchsorted(numbers, numbers - window, side="right")
    means: np.ndarray = (sums[1:] - sums[begins]) / np.maximum(counts[1:] - counts[begins], 1)
    return np.where(known, means, np.nan)


def has_accuracy(line: Line) -> bool:
    """Returns whether Figure 6 shows a line: runs that are tested once, after their end, have no accuracy by epoch."""
    return line.first.protocol != "C" and all("test_accuracy" in curve.series for curve in line.curves)


def has_tau(line: Line) -> bool:
    """Returns whether Figure 7 shows a line: one with a learnable τ."""
    return line.kind != "lif" and all(curve.tau for curve in line.curves)


def has_distribution(line: Line) -> bool:
    """Returns whether Figure S1 shows a line: one of runs that recorded the distribution."""
    return bool(line.first.w_over_tau)


def draw_accuracy(lines: Sequence[Line], epochs: int | None) -> Figure:
    """Draws Figure 6: test accuracy by epoch.

    Args:
        lines: Lines; those without a test accuracy are left out.
        epochs: Last epoch to draw; None: that of our longest curve, all epochs if there is none of ours.

    Raises:
        UsageError: No line has a test accuracy.
    """
    known = [line for line in lines if has_accuracy(line)]
    panels = _panels(known, "a test accuracy of each epoch")
    figure, grid = panel_grid(len(panels), 1.9)
    labels, styles = labels_of(known), _styles(known)
    shown: dict[str, Line2D] = {}
    for index, (axes, (title, members)) in enumerate(zip(grid, panels.items(), strict=True)):
        last = epochs or _last_of_ours(members)
        for line in sorted(members, key=lambda line: (not line.of_authors, line.tau or 0.0, line.kind != "plif")):
            if (drawn := _draw_accuracy(axes, line, last, styles[line])) is not None:
                shown.setdefault(labels[line], drawn)
        letter(axes, index, verbatim(title))
        axes.set(xlabel="epoch", ylabel="test accuracy (%)")
        _show_from_window(axes)
        _whole_epochs(axes)
    add_legend(figure, list(shown.values()), list(shown))
    return figure


def _draw_accuracy(axes: Axes, line: Line, last: int | None, style: tuple[str, Any]) -> Line2D | None:
    """Draws the mean over seeds with its band; of one seed, values and moving average. Returns the line."""
    numbers, values = values_of(line, lambda curve: curve.series["test_accuracy"], last)
    if not numbers:
        return None
    percent, (colour, dashes) = 100 * values, style
    few = len(numbers) <= WINDOW
    if not few:
        if len(percent) == 1:
            axes.plot(numbers, percent[0], color=colour, alpha=0.25, linewidth=0.6)
        percent = np.array([moving_average(numbers, row.tolist()) for row in percent])
    compared = line.of_authors and last is not None
    return _draw_mean(
        axes,
        numbers,
        percent,
        color=colour,
        linestyle=dashes,
        linewidth=1.0 if line.of_authors else 1.5,
        marker="" if line.of_authors or not few else "o",
        markersize=3,
        alpha=0.6 if compared else 1.0,
    )


def _draw_mean(axes: Axes, numbers: Sequence[int], values: np.ndarray, **look: Any) -> Line2D:
    """Draws the mean of ``values`` ``[runs, epochs]``, and a band of ± their standard deviation over several runs.

    A run counts up to its last epoch, after which its values are NaN; the band of a single run has no width.
    """
    counts = np.isfinite(values).sum(0)
    mean = np.where(counts > 0, np.nansum(values, 0) / np.maximum(counts, 1), np.nan)
    if len(values) > 1:
        std = np.sqrt(np.nansum((values - mean) ** 2, 0) / np.maximum(counts - 1, 1))
        axes.fill_between(numbers, mean - std, mean + std, color=look["color"], alpha=0.2, linewidth=0)
    (drawn,) = axes.plot(numbers, mean, **look)
    return drawn


def _show_from_window(axes: Axes) -> None:
    """Limits the axis to long curves and bands after the first :data:`WINDOW` epochs, and all of shorter ones."""
    bands = [path.vertices for band in axes.collections for path in band.get_paths()]
    drawn = [np.asarray(points).T for points in (*(line.get_xydata() for line in axes.lines), *bands)]
    if any(epochs.max() > 2 * WINDOW for epochs, _ in drawn):
        values = [found[epochs > WINDOW] if epochs.max() > 2 * WINDOW else found for epochs, found in drawn]
        low, high = min(found.min() for found in values), max(found.max() for found in values)
        span = (high - low) or 10.0  # of a constant accuracy
        axes.set_ylim(low - 0.08 * span, high + 0.05 * span)


def draw_tau(lines: Sequence[Line], epochs: int | None) -> Figure:
    """Draws Figure 7: τ of each layer by epoch, a small panel for each layer, with every initial value.

    Args:
        lines: Lines; those without a learnable τ are left out.
        epochs: As in :func:`draw_accuracy`.

    Raises:
        UsageError: No line has a learnable τ.
    """
    known = [line for line in lines if has_tau(line)]
    panels = _panels(known, "learnable time constants")
    layers = [max(len(line.first.tau) for line in members) for members in panels.values()]
    rows = [-(-count // _LAYERS_IN_ROW) for count in layers]
    figure = new_figure(DOUBLE if len(panels) > 1 else SINGLE, sum(1.0 * count + 0.25 for count in rows))
    labels, styles = labels_of(known), _styles(known)
    shown: dict[str, Line2D] = {}
    for index, (part, title) in enumerate(zip(stack_parts(figure, *(n + 0.25 for n in rows)), panels, strict=True)):
        members = panels[title]
        part.suptitle(f"({letters(index)}) {verbatim(title)}", x=0.01, ha="left", fontsize=7)
        grid = part.subplots(rows[index], min(_LAYERS_IN_ROW, layers[index]), squeeze=False, sharex=True)
        last = epochs or _last_of_ours(members)
        for layer, axes in enumerate(grid.flat):
            if layer >= layers[index]:
                axes.remove()
                continue
            for line in sorted(members, key=lambda line: (not line.of_authors, line.tau or 0.0)):
                if (drawn := _draw_tau(axes, line, layer, last, styles[line])) is not None:
                    shown.setdefault(labels[line], drawn)
            axes.set_title(rf"$\tau({layer})$", fontsize=6, pad=2)
            axes.tick_params(labelsize=5, labelbottom=layer + _LAYERS_IN_ROW >= layers[index])
            _scale_tau(axes)
        part.supxlabel("epoch", fontsize=6)
        part.supylabel(r"$\tau$ (time steps)", fontsize=6)
    add_legend(figure, list(shown.values()), list(shown))
    return figure


def _draw_tau(axes: Axes, line: Line, layer: int, last: int | None, style: tuple[str, Any]) -> Line2D | None:
    """Draws τ of a layer, the mean over seeds with its band; returns the line."""
    numbers, values = values_of(line, lambda curve: curve.tau[layer] if layer < len(curve.tau) else (), last)
    if not numbers:
        return None
    few = not line.of_authors and len(numbers) <= WINDOW
    return _draw_mean(
        axes,
        numbers,
        values,
        color=style[0],
        linestyle=style[1],
        marker="o" if few else "",
        markersize=2,
        alpha=0.6 if line.of_authors and last is not None else 1.0,
    )


def _scale_tau(axes: Axes) -> None:
    """Makes the axis logarithmic where τ spans a large range, and labels it by plain numbers."""
    drawn = np.concatenate([np.asarray(plotted.get_ydata()) for plotted in axes.lines] or [np.ones(1)])
    if drawn.max() > _MAX_LINEAR_RATIO * drawn.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
        axes.tick_params(axis="y", which="minor", labelsize=5)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))


def draw_distribution(lines: Sequence[Line], epochs: int | None) -> Figure:
    """Draws Figure S1: quantiles of W_fc/τ of each fully connected layer by epoch.

    Args:
        lines: Curves; the first one that has the distribution is drawn.
        epochs: Last epoch to draw; None: all.

    Raises:
        UsageError: No curve has the distribution.
    """
    from plifctl.training.layer_metrics import QUANTILES

    known = [line for line in lines if has_distribution(line)][:1]
    if not known:
        raise UsageError(
            "no run has a distribution of W_fc/τ",
            hint="name a run that plifctl trained: --run RUN; plifctl runs lists all runs",
        )
    curve = known[0].first
    figure = new_figure(DOUBLE if len(curve.w_over_tau) > 1 else SINGLE, 2.3)
    grid = figure.subplots(1, len(curve.w_over_tau), squeeze=False)[0]
    for index, (axes, (layer, found)) in enumerate(zip(grid, curve.w_over_tau.items(), strict=True)):
        rows: list[tuple[int, Any]] = [
            (epoch, row)
            for epoch, row in zip(curve.epochs, found, strict=True)
            if row is not None and (epochs is None or epoch <= epochs)
        ]
        if not rows:
            continue
        numbers = [epoch for epoch, _ in rows]
        quantiles = np.array([row["quantiles"] for _, row in rows])
        for share, colour in _QUANTILE_COLOURS.items():
            low, high = QUANTILES.index(share), QUANTILES.index(round(1 - share, 2))
            label = f"{round(100 * share)} to {round(100 * (1 - share))} %"
            axes.fill_between(numbers, quantiles[:, low], quantiles[:, high], color=colour, linewidth=0, label=label)
        axes.plot(numbers, quantiles[:, QUANTILES.index(0.5)], color=BLACK, label="median")
        mean, std = (np.array([row[name] for _, row in rows]) for name in ("mean", "std"))
        axes.plot(numbers, mean + std, color=RED, linestyle=_DASHES, label="mean ± std")
        axes.plot(numbers, mean - std, color=RED, linestyle=_DASHES)
        letter(axes, index, f"$W_{{fc}}/\\tau$ of {layer}")
        axes.set(xlabel="epoch", xlim=(numbers[0], max(numbers[-1], numbers[0] + 1)))
        _whole_epochs(axes)
    handles, labels = grid[0].get_legend_handles_labels()
    add_legend(figure, handles, labels, columns=5)
    return figure


def _panels(lines: Sequence[Line], wanted: str) -> dict[str, list[Line]]:
    """Returns the lines by data set, those of the paper first, in its order."""
    if not lines:
        raise UsageError(
            f"no run has {wanted}",
            hint="plifctl train NAME makes one; plifctl runs import DIR reads the authors' logs; --run RUN names one",
        )
    known = {line.panel for line in lines}
    titles = [*(title for title in PAPER_PANELS if title in known), *sorted(known.difference(PAPER_PANELS))]
    return {title: [line for line in lines if line.panel == title] for title in titles}


def _last_of_ours(lines: Sequence[Line]) -> int | None:
    """Returns the last epoch of our curves, up to which the authors' are drawn; None without a curve of ours."""
    ours = [curve for line in lines if not line.of_authors for curve in line.curves]
    return max((curve.epochs[-1] for curve in ours if curve.epochs), default=None)


def _styles(lines: Sequence[Line]) -> dict[Line, tuple[str, Any]]:
    """Returns colour and dashes of each line: the paper's for its settings, others for further ones of ours.

    Lines with the same label have the same style in all panels.
    """
    labels, others = labels_of(lines), iter(_OTHER_STYLES * len(lines))
    found: dict[str, tuple[str, Any]] = {}
    taken = set()
    order = {line: (not line.of_authors, line.average_pooling, line.changes, labels[line]) for line in lines}
    for line in sorted(lines, key=order.__getitem__):
        if labels[line] not in found:
            place = (line.of_authors, line.kind, line.tau)
            usual = _STYLES.get(place[1:]) if place not in taken else None
            found[labels[line]] = usual or next(others)
            taken.add(place)
    # a line of ours has the style of the authors' line that it is drawn over
    counts = Counter({labels[line]: (line.of_authors, found[labels[line]]) for line in lines}.values())
    shared = sum(count for count in counts.values() if count > 1)
    if shared:
        _log.warning("%d lines share their colour and dashes with another one; name fewer runs", shared)
    return {line: found[labels[line]] for line in lines}


def _whole_epochs(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
