"""Figure ``start``: firing rates and gradients of each layer before training, for several initial time constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from plifctl.report.figures.style import DOUBLE, add_legend, letter, new_figure, stack_parts, verbatim
from plifctl.training.initial_state import InitialState, InitialStates

_MARKERS = "osD^vP*X"
_ZEROS_APART = 0.14
"""Distance of the markers of zeros of one layer, which would cover each other, in layers."""


def draw_initial_states(networks: Sequence[InitialStates]) -> Figure:
    """Draws rates and gradients by layer, a line for each τ₀, and a row of panels for each network.

    Args:
        networks: The networks, with the same τ₀; the title of a single one is left to the caption.
    """
    figure = new_figure(DOUBLE, 2.2 * len(networks))
    handles: list[Line2D] = []
    for part, network in zip(stack_parts(figure, *[1.0] * len(networks)), networks, strict=True):
        if len(networks) > 1:
            part.suptitle(verbatim(network.title), fontsize=7, fontweight="bold")
        handles = _draw_row(part, list(network.by_tau.values()))
    taus = list(networks[0].by_tau)
    add_legend(figure, handles, [f"τ₀ = {tau:g}" for tau in taus], columns=len(taus))
    return figure


def _draw_row(part: SubFigure, states: Sequence[InitialState]) -> list[Line2D]:
    """Draws the panels of one network. Returns the lines of the last one."""
    lines: list[Line2D] = []
    colours = colormaps["viridis"](np.linspace(0.0, 0.85, len(states)))
    panels = (
        ("firing rate", "spikes per neuron and step", [state.firing_rates for state in states]),
        ("gradient of the weights", r"$\|\partial L/\partial W\|$", [state.weight_gradients for state in states]),
        ("gradient of the time constant", r"$\|\partial L/\partial a\|$", [state.tau_gradients for state in states]),
    )
    for index, (axes, (title, label, values)) in enumerate(zip(part.subplots(1, 3), panels, strict=True)):
        lines = _draw_panel(axes, values, colours)
        letter(axes, index, title)
        axes.set_ylabel(label)
    return lines


def _draw_panel(axes: Axes, states: Sequence[Mapping[str, float]], colours: np.ndarray) -> list[Line2D]:
    """Draws values by layer on a logarithmic axis; zeros as open markers at its lower end. Returns the lines."""
    names = list(states[0])
    table = np.array([[state[name] for name in names] for state in states])
    positive = table[table > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    below = low / 10**0.5
    lines = []
    for number, (row, colour) in enumerate(zip(table, colours, strict=True)):
        marker = _MARKERS[number % len(_MARKERS)]
        lines += axes.plot(np.where(row > 0, row, np.nan), color=colour, marker=marker, markersize=3)
        zeros = np.flatnonzero(row == 0)
        beside = zeros + _ZEROS_APART * (number - (len(states) - 1) / 2)
        (markers,) = axes.plot(beside, np.full(len(zeros), below), color=colour, marker=marker, linestyle="")
        markers.set(markersize=2, markeredgewidth=0.5, markerfacecolor="none")
    axes.set_yscale("log")
    axes.set_ylim(below / 1.5, high * 1.5)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_xlim(-0.5, len(names) - 0.5)
    return lines
