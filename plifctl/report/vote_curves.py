"""Picture of predictions: the share of the votes of each class, over time steps or over the time of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from plifctl.report.figures.style import COLOURS, DOUBLE, figure_style, panel_grid, save_figure

MAX_PANELS = 24
"""Most files in a picture."""

_PANEL_HEIGHT, _ROW_HEIGHT = 1.7, 2.2  # inches; that of a single row, which has the legend beside it
_MANY_POINTS = 40  # from which on points are not marked
_GREY = "#c8c8c8"


@dataclass(frozen=True, eq=False)
class Panel:
    """The curves of one file.

    Attributes:
        title: Title of the panel.
        x: Steps from 1, or seconds, ``[n]``.
        shares: Share of the votes of each class, 0…1, ``[n, classes]``; NaN where there is none.
    """

    title: str
    x: np.ndarray
    shares: np.ndarray


def draw_vote_curves(panels: Sequence[Panel], classes: Sequence[str], xlabel: str, path: Path) -> None:
    """Writes a picture with a panel for each file.

    The classes with the largest shares have colours; all others are grey.

    Args:
        panels: At least one, at most MAX_PANELS.
        classes: Names of the classes.
        xlabel: What x is, with its unit.
        path: The file, .png, .svg or .pdf.

    Raises:
        UsageError: The ending is none of these.
        MachineError: The file cannot be written.
    """
    peaks = np.max([np.nan_to_num(panel.shares).max(0, initial=0) for panel in panels], 0)
    leading = sorted(np.argsort(-peaks, kind="stable")[: len(COLOURS)].tolist())
    with figure_style():
        mpl.rcParams["text.parse_math"] = False
        columns = 3 if len(panels) > 4 else 2
        height = _PANEL_HEIGHT if len(panels) > columns else _ROW_HEIGHT
        figure, grid = panel_grid(len(panels), height, columns=columns, width=DOUBLE, sharey=True)
        for panel, one in zip(panels, grid, strict=True):
            _plot(one, panel, leading, classes)
        for one in grid[-columns:]:
            one.set_xlabel(xlabel)
        for one in grid[::columns]:
            one.set_ylabel("share of votes, %")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right upper")
        save_figure(figure, path, "Share of the votes of each class over time.")


def _plot(axes: Axes, panel: Panel, leading: Sequence[int], classes: Sequence[str]) -> None:
    marker = "." if len(panel.x) <= _MANY_POINTS else ""
    for colour, label in zip(COLOURS, leading, strict=False):
        shares, name = 100 * panel.shares[:, label], classes[label]
        shown = f" {name}" if name.startswith("_") else name  # matplotlib lists no names that begin with _
        axes.plot(panel.x, shares, color=colour, marker=marker, markersize=3, label=shown)
    others = [label for label in range(len(classes)) if label not in leading]
    for label in others:
        name = "other classes" if label == others[0] else "_"
        axes.plot(panel.x, 100 * panel.shares[:, label], color=_GREY, linewidth=0.6, zorder=1, label=name)
    axes.set_title(panel.title, loc="left")
    axes.set_ylim(-3, 103)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=bool((panel.x % 1 == 0).all())))
