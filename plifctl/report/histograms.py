"""Pictures of cache statistics: histograms of events and durations, and the samples of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from PIL import Image

from plifctl.cache.statistics import Distribution, Statistics
from plifctl.config.choices import SPLIT_WORDS, Split
from plifctl.report.fonts import fonts_for, quiet_fonts

_DPI = 100
_WIDTH, _CHART_HEIGHT, _BAR_HEIGHT = 12.4, 2.9, 0.24  # inches
_MEDIAN, _BARS, _GREY = "#D55E00", "#56606B", "#5f5f5f"
_SPLIT_COLOURS: dict[Split, str] = {"train": "#0072B2", "validation": "#009E73", "test": "#D55E00"}
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelcolor": _GREY,
    "axes.edgecolor": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a class name is not a formula
}


def draw_histograms(title: str, details: str, stats: Statistics, classes: Sequence[str] = ()) -> Image.Image:
    """Returns the distributions of events and durations (event data sets), and the number of samples of each class.

    Args:
        title: Title of the picture.
        details: A line below everything.
        stats: The statistics.
        classes: Class names, if known.
    """
    with mpl.rc_context(), quiet_fonts():
        mpl.rcdefaults()
        mpl.rcParams.update({**_STYLE, "font.family": fonts_for("".join([title, details, *classes]))})
        canvas: Any = FigureCanvasAgg(plot_histograms(title, details, stats, classes))
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def plot_histograms(title: str, details: str, stats: Statistics, classes: Sequence[str] = ()) -> Figure:
    """Returns the same as a figure, in the caller's style."""
    bars_height = 1.0 + _BAR_HEIGHT * len(stats.by_class(classes))
    heights = [bars_height] if stats.events is None else [_CHART_HEIGHT, bars_height]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.6), dpi=_DPI, facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.12, w_pad=0.12)
    figure.suptitle(title, x=0.012, ha="left", fontsize=16)
    figure.supxlabel(details, x=0.012, ha="left", fontsize=9, color=_GREY)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    if stats.events is not None:
        charts = (
            ("Events per sample", "events", "samples", stats.events.per_sample, 1),
            ("Events per frame", "events", "frames", stats.events.per_slice, 1),
            ("Duration of a sample", "ms", "samples", stats.events.duration_us, 1000),
        )
        for axes, chart in zip(parts[0].subplots(1, 3), charts, strict=True):
            _plot_distribution(axes, *chart)
    _plot_classes(parts[-1].subplots(), stats, classes)
    return figure


def _plot_distribution(axes: Axes, title: str, xlabel: str, ylabel: str, values: Distribution, unit: int) -> None:
    edges = np.array(values.edges) / unit
    digits = 0 if unit == 1 else 1
    low, middle, high = (f"{value / unit:,.{digits}f}" for value in (values.min, values.median, values.max))
    axes.bar(edges[:-1], values.counts, np.diff(edges), align="edge", color=_BARS, edgecolor="white", linewidth=0.8)
    axes.axvline(values.median / unit, color=_MEDIAN, linewidth=2)
    axes.set_title(title, loc="left")
    axes.set_title(f"median {middle}", loc="right", color=_MEDIAN, fontsize=10)
    axes.set_xlabel(f"{xlabel} ({low} to {high})")
    axes.set_ylabel(ylabel)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))


def _plot_classes(axes: Axes, stats: Statistics, classes: Sequence[str]) -> None:
    """Stacked bars, class 0 at the top."""
    rows = stats.by_class(classes)
    names, counts = [name for name, _ in rows], np.array([counts for _, counts in rows]).reshape(len(rows), -1)
    places, totals = np.arange(len(rows)), np.zeros(len(rows), np.int64)
    for split, column in zip(stats.splits, counts.T, strict=True):
        bars = axes.barh(places, column, 0.72, left=totals, color=_SPLIT_COLOURS[split], label=SPLIT_WORDS[split])
        totals = totals + column
    axes.bar_label(bars, [" + ".join(f"{n:,}" for n in row) for row in counts], padding=5, color=_GREY)
    axes.set_yticks(places, names, color="black")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.08 * max([1, *totals]))
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"Samples per class: {' + '.join(SPLIT_WORDS[split] for split in stats.splits)}", loc="left")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
