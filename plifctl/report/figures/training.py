"""Figures of trainings: test accuracy (6), τ of each layer (7), and the distribution of W_fc/τ (S1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import UsageError
from plifctl.report.figures.style import (
    BLACK,
    BLUE,
    COLOURS,
    DOUBLE,
    GREEN,
    ORANGE,
    RED,
    SINGLE,
    letter,
    new_figure,
    verbatim,
)
from plifctl.runs import Curve

WINDOW = 64
"""Epochs of the moving average."""

_MAX_LINEAR_RATIO = 6.0
"""Ratio of the largest τ to the smallest from which on the axis is logarithmic."""

_DASHES = (0, (4.0, 1.5))
_PAPER = ("Fashion-MNIST", "CIFAR-10", "CIFAR10-DVS", "DVS128 Gesture")


@dataclass(frozen=True)
class Line:
    """A curve with the labels of its experiment.

    Attributes:
        curve: The curve.
        panel: Title of the data set; the name of the run where it is unknown. As matplotlib takes it.
        label: Label in the legend: the neuron and its time constant.
        neuron: plif or lif; None where it is unknown.
        tau: Initial time constant.
    """

    curve: Curve
    panel: str
    label: str
    neuron: str | None
    tau: float | None

    @property
    def imported(self) -> bool:
        """Whether the curve was imported from logs of other code."""
        return self.curve.origin == "imported"


def line_of(curve: Curve, experiment: Callable[[str], ExperimentSpec | None]) -> Line:
    """Returns a curve as a line of a figure.

    Args:
        curve: The curve.
        experiment: Returns the experiment with a name, or None.
    """
    spec = experiment(curve.experiment) if curve.experiment else None
    if spec is None:
        return Line(curve, verbatim(curve.name), verbatim(curve.name), None, None)
    kind = spec.neuron.kind
    tau = spec.neuron.tau_0 if kind == "plif" else spec.neuron.tau
    sign = r"$\tau_0$" if kind == "plif" else r"$\tau$"
    known = f"{kind.upper()}, {sign} = {tau:g}" if tau is not None else kind.upper()
    return Line(curve, verbatim(spec.dataset.title), known, kind, tau)


def moving_average(epochs: Sequence[int], values: Sequence[float], window: int = WINDOW) -> np.ndarray:
    """Returns for each epoch the mean over the last ``window`` epochs up to it.

    The mean is over fewer at the start, and where epochs are missing.

    Args:
        epochs: Epochs, ascending.
        values: A value for each epoch.
        window: Number of epochs.

    Example:
        >>> moving_average([1, 2, 5], [1.0, 3.0, 7.0], 3).tolist()
        [1.0, 2.0, 7.0]
    """
    numbers, sums = np.array(epochs), np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    ends = np.arange(1, len(numbers) + 1)
    begins = np.searchsorted(numbers, numbers - window, side="right")
    found: np.ndarray = (sums[ends] - sums[begins]) / (ends - begins)
    return found


def draw_accuracy(lines: Sequence[Line], epochs: int | None) -> Figure:
    """Draws Figure 6: test accuracy by epoch.

    Args:
        lines: Curves; those without a test accuracy are left out.
        epochs: Last epoch to draw; None: that of our longest curve, all epochs if there is none of ours.

    Raises:
        UsageError: No curve has a test accuracy.
    """
    known = [line for line in lines if "test_accuracy" in line.curve.series]
    panels = _panels(known, "a test accuracy")
    figure = new_figure(DOUBLE if len(panels) > 1 else SINGLE, 1.9 * -(-len(panels) // 2) + 0.3)
    grid = figure.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False)
    shown: dict[str, Line2D] = {}
    for index, (title, members) in enumerate(panels.items()):
        axes = grid.flat[index]
        last = epochs or _last_of_ours(members)
        for line in sorted(members, key=lambda line: (not line.imported, line.tau or 0.0, line.neuron != "plif")):
            _draw_accuracy(axes, line, last, shown)
        letter(axes, index, title)
        axes.set(xlabel="epoch", ylabel="test accuracy (%)")
        _whole_epochs(axes)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4)
    return figure


def _draw_accuracy(axes: Axes, line: Line, last: int | None, shown: dict[str, Line2D]) -> None:
    values = line.curve.series["test_accuracy"]
    points = [
        (epoch, 100 * value)
        for epoch, value in zip(line.curve.epochs, values, strict=True)
        if value is not None and (last is None or epoch <= last)
    ]
    if not points:
        return
    numbers, percent = zip(*points, strict=True)
    colour, style = _line_style(line)
    few = len(numbers) <= WINDOW
    if not few:
        axes.plot(numbers, percent, color=colour, alpha=0.25, linewidth=0.6)
        percent = tuple(moving_average(numbers, percent))
    width = 1.0 if line.imported else 1.5
    marker = "" if line.imported or not few else "o"
    (drawn,) = axes.plot(
        numbers, percent, color=colour, linestyle=style, linewidth=width, marker=marker, markersize=3,
        alpha=0.6 if line.imported and last is not None else 1.0,
    )  # fmt: skip
    label = f"{line.label}{', authors' if line.imported and last is not None else ''}"
    shown.setdefault(label, drawn)


def draw_tau(lines: Sequence[Line], epochs: int | None) -> Figure:
    """Draws Figure 7: τ of each layer by epoch.

    Args:
        lines: Curves; those without a learnable τ are left out.
        epochs: As in :func:`draw_accuracy`.

    Raises:
        UsageError: No curve has a learnable τ.
    """
    known = [line for line in lines if line.curve.tau and line.neuron != "lif"]
    panels = _panels(known, "learnable time constants")
    figure = new_figure(DOUBLE if len(panels) > 1 else SINGLE, 2.5 * -(-len(panels) // 2))
    grid = figure.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False)
    for index, (title, members) in enumerate(panels.items()):
        axes = grid.flat[index]
        last = epochs or _last_of_ours(members)
        taus = sorted({line.tau or 0.0 for line in members})
        for line in members:
            _draw_tau(axes, line, last, dashed=(line.tau or 0.0) != taus[0])
        drawn = np.concatenate([np.asarray(plotted.get_ydata()) for plotted in axes.lines])
        if drawn.max() > _MAX_LINEAR_RATIO * drawn.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
            axes.tick_params(axis="y", which="minor", labelsize=6)
        letter(axes, index, title)
        axes.set(xlabel="epoch", ylabel=r"$\tau$ (time steps)")
        _whole_epochs(axes)
        layers = max(len(line.curve.tau) for line in members)
        keys = [Line2D([], [], color=COLOURS[layer % len(COLOURS)]) for layer in range(layers)]
        names = [rf"$\tau({layer})$" for layer in range(layers)]
        for tau in taus:
            keys.append(Line2D([], [], color=BLACK, linestyle="-" if tau == taus[0] else _DASHES))
            names.append(rf"$\tau_0 = {tau:g}$")
        if {line.imported for line in members} == {True, False}:
            keys.append(Line2D([], [], color=BLACK, alpha=0.4))
            names.append("authors")
        axes.legend(keys, names, loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.8)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    return figure


def _draw_tau(axes: Axes, line: Line, last: int | None, *, dashed: bool) -> None:
    for layer, values in enumerate(line.curve.tau):
        points = [
            (epoch, value)
            for epoch, value in zip(line.curve.epochs, values, strict=True)
            if value is not None and (last is None or epoch <= last)
        ]
        if points:
            numbers, taus = zip(*points, strict=True)
            axes.plot(
                numbers, taus, color=COLOURS[layer % len(COLOURS)], linestyle=_DASHES if dashed else "-",
                alpha=0.4 if line.imported and last is not None else 1.0,
                marker="o" if not line.imported and len(points) <= WINDOW else "", markersize=2.5,
            )  # fmt: skip


def draw_distribution(lines: Sequence[Line], epochs: int | None) -> Figure:
    """Draws Figure S1: quantiles of W_fc/τ of each fully connected layer by epoch.

    Args:
        lines: Curves; the first one that has the distribution is drawn.
        epochs: Last epoch to draw; None: all.

    Raises:
        UsageError: No curve has the distribution.
    """
    from plifctl.training.layer_metrics import QUANTILES

    known = [line for line in lines if line.curve.w_over_tau]
    if not known:
        raise UsageError(
            "no run has a distribution of W_fc/τ",
            hint="name a run that plifctl trained: --run RUN; plifctl runs lists all runs",
        )
    curve = known[0].curve
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
        for share, shade in ((0.01, 0.15), (0.05, 0.25), (0.25, 0.4)):
            low, high = QUANTILES.index(share), QUANTILES.index(round(1 - share, 2))
            label = f"{round(100 * share)} to {round(100 * (1 - share))} %"
            axes.fill_between(
                numbers, quantiles[:, low], quantiles[:, high], color=BLUE, alpha=shade, linewidth=0, label=label
            )
        axes.plot(numbers, quantiles[:, QUANTILES.index(0.5)], color=BLACK, label="median")
        mean, std = (np.array([row[name] for _, row in rows]) for name in ("mean", "std"))
        axes.plot(numbers, mean + std, color=RED, linestyle=_DASHES, label="mean ± std")
        axes.plot(numbers, mean - std, color=RED, linestyle=_DASHES)
        letter(axes, index, f"$W_{{fc}}/\\tau$ of {layer}")
        axes.set(xlabel="epoch", xlim=(numbers[0], max(numbers[-1], numbers[0] + 1)))
        _whole_epochs(axes)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


def _panels(lines: Sequence[Line], wanted: str) -> dict[str, list[Line]]:
    """Returns the lines by data set, those of the paper first, in its order."""
    if not lines:
        raise UsageError(
            f"no run has {wanted}",
            hint="plifctl train NAME makes one; plifctl runs import DIR reads the authors' logs; --run RUN names one",
        )
    titles = sorted(
        {line.panel for line in lines}, key=lambda title: (_PAPER.index(title) if title in _PAPER else 9, title)
    )
    return {title: [line for line in lines if line.panel == title] for title in titles}


def _last_of_ours(lines: Sequence[Line]) -> int | None:
    """Returns the last epoch of our curves, up to which the authors' are drawn; None without a curve of ours."""
    return max((line.curve.epochs[-1] for line in lines if not line.imported and line.curve.epochs), default=None)


def _line_style(line: Line) -> tuple[str, Any]:
    """Returns colour and dashes of a line: green and red for τ = 16, as in the paper."""
    if line.neuron is None or line.tau is None:
        return BLACK, "-"
    is_slow = not math.isclose(line.tau, 2.0)
    return {
        ("plif", False): (BLUE, "-"),
        ("plif", True): (GREEN, (0, (5, 1))),
        ("lif", False): (ORANGE, (0, (3, 1, 1, 1))),
        ("lif", True): (RED, (0, (1, 1))),
    }[line.neuron, is_slow]


def _whole_epochs(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
