"""Figure ``start``: firing rates and gradients of each layer before training, for several initial time constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plifctl.report.figures.style import DOUBLE, add_legend, letter, new_figure
from plifctl.training.initial_state import InitialState

_MARKERS = "osD^vP*X"
_ZEROS_APART = 0.14
"""Distance of the markers of zeros of one layer, which would cover each other, in layers."""


def draw_initial_states(states: Mapping[float, InitialState]) -> Figure:
    """Draws rates and gradients by layer, a line for each τ₀.

    Args:
        states: The state of the same network, by τ₀; with learnable time constants.
    """
    figure = new_figure(DOUBLE, 2.2)
    grid = figure.subplots(1, 3)
    handles: list[Line2D] = []
    colours = colormaps["viridis"](np.linspace(0.0, 0.85, len(states)))
    panels = (
        ("firing rate", "spikes per neuron and step", [state.firing_rates for state in states.values()]),
        ("gradient of the weights", r"$\|\partial L/\partial W\|$", [s.weight_gradients for s in states.values()]),
        ("gradient of the time constant", r"$\|\partial L/\partial a\|$", [s.tau_gradients for s in states.values()]),
    )
    for index, (axes, (title, label, values)) in enumerate(zip(grid, panels, strict=True)):
        handles = _draw_panel(axes, values, colours)
        letter(axes, index, title)
        axes.set_ylabel(label)
    add_legend(figure, handles, [rf"$\tau_0$ = {tau:g}" for tau in states], columns=len(states))
    return figure


def _draw_panel(axes: Axes, states: Sequence[Mapping[str, float]], colours: np.ndarray) -> list[Line2D]:
    """Draws values by layer on a logarithmic axis; zeros as open markers at its lower end. Returns the lines."""
    names = list(states[0])
    table = np.array([[state[name] for name in names] for state in states])
    positive = table[table > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    below = low / 10**0.5
    lines = []
    for number, (row, colour) in enumerate(zip(table, colours, strict=True)):
        look = {"color": colour, "marker": _MARKERS[number % len(_MARKERS)], "markersize": 3}
        lines += axes.plot(np.where(row > 0, row, np.nan), **look)
        zeros = np.flatnonzero(row == 0)
        beside = zeros + _ZEROS_APART * (number - (len(states) - 1) / 2)
        axes.plot(beside, np.full(len(zeros), below), linestyle="", markerfacecolor="none", **look)
    axes.set_yscale("log")
    axes.set_ylim(below / 1.5, high * 1.5)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_xlim(-0.5, len(names) - 0.5)
    return lines
