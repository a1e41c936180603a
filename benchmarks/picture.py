"""Picture of the time of event-driven layers against the share of active inputs, for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from benchmarks.tables import Entry
from plifctl.report.figures.style import BLACK, COLOURS, DOUBLE, figure_style, new_figure, save_figure

_TITLES = {"forward": "forward, finding active inputs included", "weight gradient": "gradient of the weights"}

_MAX_RATIO = 1.6  # where a curve leaves the picture


def draw(figures: Sequence[Entry], path: Path) -> None:
    """Draws medians and quartiles of all layers, forward and weight gradients, and the dense layer's time as 1.

    Args:
        figures: Figures of ``benchmarks.event_driven``.
        path: The file to write.
    """
    own = [one for one in figures if one["labels"]["peer"] == "dense" and "active_inputs" in one["labels"]]
    names = list(dict.fromkeys(figure["labels"]["layer"] for figure in own))
    with figure_style():
        picture = new_figure(DOUBLE, 2.6)
        for axes, (part, title) in zip(picture.subplots(1, 2, sharey=True), _TITLES.items(), strict=True):
            for name, colour in zip(names, COLOURS, strict=False):
                curve = [one for one in own if (one["labels"]["part"], one["labels"]["layer"]) == (part, name)]
                _draw_curve(axes, sorted(curve, key=lambda one: float(one["labels"]["active_inputs"])), name, colour)
            axes.axhline(1, color=BLACK, linewidth=0.6, linestyle=":")
            axes.set_title(title)
            axes.set_xlabel("active inputs")
            axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
            axes.set_xlim(0)
            axes.set_ylim(0, min(_MAX_RATIO, 1.05 * max(1.0, *(one["ratio"]["q3"] for one in own))))
        picture.axes[0].set_ylabel("time / time of the dense layer")
        picture.axes[0].legend(loc="lower right")
        save_figure(picture, path, "Time of event-driven layers against the share of active inputs")


def _draw_curve(axes: Axes, curve: Sequence[Entry], name: str, colour: str) -> None:
    densities = [one["labels"]["active_inputs"] for one in curve]
    low, medians, high = ([one["ratio"][key] for one in curve] for key in ("q1", "median", "q3"))
    axes.plot(densities, medians, color=colour, marker="o", markersize=2.5, label=name)
    axes.fill_between(densities, low, high, color=colour, alpha=0.2, linewidth=0)
