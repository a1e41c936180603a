"""Figures: from closed forms and simulation, curves or results of runs, recorded spikes, and a first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure

from plifctl.report.figures import fast as fast_figure
from plifctl.report.figures import neuron, spikes, training
from plifctl.report.figures import start as start_figure
from plifctl.report.figures.lines import PAPER_PANELS, Line, describe_lines, lines_of
from plifctl.report.figures.style import check_format, figure_style, save_figure

__all__ = [
    "FIGURE_KINDS",
    "PAPER_PANELS",
    "Figure",
    "FigureKind",
    "Line",
    "check_format",
    "describe_lines",
    "figure_style",
    "lines_of",
    "save_figure",
]


@dataclass(frozen=True)
class FigureKind:
    """A figure.

    Attributes:
        caption: Caption of the figure.
        needs: Data that it is drawn from.
        draw: Draws it from nothing; from curves: lines, and the last epoch or None; from spikes: a recording, and
            channels, possibly none; from the states of networks in their first training step; or from results of the
            recipe ``fast``.
        shows: Returns whether a line has the values that are drawn.
    """

    caption: str
    needs: Literal["nothing", "curves", "spikes", "first step", "fast results"]
    draw: Callable[..., Figure]
    shows: Callable[[Line], bool] = lambda line: True


FIGURE_KINDS = {
    "1b": FigureKind(
        "Membrane potential V of an LIF neuron with constant input. Changing τ stretches v = f(t) along t, changing w "
        "along V. Lines: Eq. 1 solved; dots: the discrete neuron of Eq. 5, one step per millisecond.",
        "nothing",
        neuron.draw_constant_input,
    ),
    "2": FigureKind(
        "Membrane potential V of an LIF neuron that receives spikes at t = 5, 80, 85, 90 ms. A smaller τ: faster "
        "charge and decay. Lines: Eq. 1 solved; dots: the discrete neuron of Eq. 5, ten steps per millisecond.",
        "nothing",
        neuron.draw_spike_response,
    ),
    "5": FigureKind(
        "Spike max pooling regulates connections: three presynaptic neurons with constant inputs of "
        f"{', '.join(f'{x:g}' for x in neuron.PRESYNAPTIC)} and one postsynaptic neuron, all LIF with "
        f"τ = {neuron.POOLED_TAU:g}, simulated. (a) Spikes; at each step one firing neuron, drawn at random, is "
        f"connected. (b) Potential of the postsynaptic neuron, whose input is {neuron.POSTSYNAPTIC_WEIGHT:g} whenever "
        f"a neuron fires (max pooling), or {neuron.POSTSYNAPTIC_WEIGHT:g} times the share of neurons that fire "
        "(average pooling); marks: its spikes.",
        "nothing",
        neuron.draw_max_pooling,
    ),
    "6": FigureKind(
        "Test accuracy of PLIF and LIF neurons during training. Pale: as logged; lines: mean over the last 64 "
        "epochs, fewer at the start. Curves of at most 64 epochs are drawn as they are; the axis leaves out the "
        "first 64 epochs of those of more than 128.",
        "curves",
        training.draw_accuracy,
        training.has_accuracy,
    ),
    "7": FigureKind(
        "Time constant τ(i) of the i-th layer of PLIF neurons during training, from each initial value τ₀.",
        "curves",
        training.draw_tau,
        training.has_tau,
    ),
    "S1": FigureKind(
        "Distribution of W_fc/τ of each fully connected layer during training: quantiles of the weights.",
        "curves",
        training.draw_distribution,
        training.has_distribution,
    ),
    "S2": FigureKind(
        "Samples (first row) and the firing rates of channels of the first layer of neurons (rows below).",
        "spikes",
        spikes.draw_static,
    ),
    "S3": FigureKind(
        "One sample: (a) spikes of all channels of the first layer of neurons at t = 0, (b) their firing rates.",
        "spikes",
        spikes.draw_channels,
    ),
    "S4": FigureKind(
        "One sample: (a) input and spikes of two channels at each time step, (b) mean input and firing rates up to it.",
        "spikes",
        spikes.draw_over_time,
    ),
    "S5": FigureKind(
        "Three samples: input, and spikes of one channel of the first layer of neurons, at each time step.",
        "spikes",
        spikes.draw_samples,
    ),
    "J": FigureKind(
        "The learnable encoder, a 1×1 convolution (w = 1) before neurons without leak (V_th = 1), beside Poisson and "
        "latency encoding of the same pixels (supplement J): (a) spikes in T steps, (b) first spike, (c) an image. The "
        "encoder approximates the Poisson encoder's rate up to p = 1/2 only: from there to p = 1, it fires T/2 spikes, "
        "because a neuron is reset to 0 whatever exceeds its threshold; below p = 1/T it is silent.",
        "nothing",
        neuron.draw_encoders,
    ),
    "start": FigureKind(
        "The first training step, by layer, for several initial values τ₀ of PLIF neurons: (a) firing rate, (b) norm "
        "of the gradient of the weights, (c) that of a, where τ = 1 + exp(−a). The longer τ₀, the fewer spikes and, "
        "mostly, the smaller the gradients. LIF neurons of the same τ have the same (a) and (b). Open markers: "
        "exactly 0.",
        "first step",
        start_figure.draw_initial_states,
    ),
    "fast": FigureKind(
        "Accuracy over processor time of runs of the recipe fast (points: mean ± standard deviation over seeds; thin "
        "lines: validation accuracy of each run), beside the authors' run: the best of its test epochs so far "
        "(protocol A, the test set selects the epoch), against its epochs times the processor time of an epoch of "
        "plifctl on the same processor.",
        "fast results",
        fast_figure.draw_fast,
    ),
}
