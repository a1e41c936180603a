"""Figures of few neurons: the potential in closed form and simulated (1b, 2), spike max pooling (5), an encoder (J)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plifctl.report.figures.style import (
    BLACK,
    BLUE,
    DOUBLE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SINGLE,
    add_legend,
    letter,
    new_figure,
    stack_parts,
)
from plifctl.snn.functional import charge, fire, reset

TAU, WEIGHT = 20.0, 1.0
"""τ in ms and weight of the curve in the middle."""

SPIKES = (5.0, 80.0, 85.0, 90.0)
"""Times of the input spikes of Figure 2, in ms."""

T = 20
"""Time steps of Figures 5 and J."""

PRESYNAPTIC, POOLED_TAU, POSTSYNAPTIC_WEIGHT = (1.6, 1.3, 1.1), 2.0, 1.5
"""Inputs of the three neurons of Figure 5, τ of all its neurons in steps, and the weight after the pooling."""


def constant_input(t: np.ndarray, tau: float, weight: float) -> np.ndarray:
    """Returns V(t) of an LIF neuron without threshold, with constant input X = w · 1 and V(0) = 0.

    Args:
        t: Times in ms.
        tau: τ in ms.
        weight: w.

    Source: Eq. 1, solved: V(t) = w (1 − exp(−t/τ)).
    """
    return weight * (1.0 - np.exp(-t / tau))


def spike_response(t: np.ndarray, tau: float, weight: float) -> np.ndarray:
    """Returns V(t) of an LIF neuron with the input spikes of :data:`SPIKES`, X(t) = w Σ δ(t − t_i).

    Source: Eq. 1, solved: V(t) = Σ w/τ · exp(−(t − t_i)/τ) over the spikes before t.
    """
    after = t[:, None] - np.array(SPIKES)
    each: np.ndarray = weight / tau * np.where(after >= 0, np.exp(-np.maximum(after, 0.0) / tau), 0.0)
    return np.asarray(each.sum(1))


def simulate_neuron(x: np.ndarray, tau: float, dt: float) -> np.ndarray:
    """Returns the potential after each step of the discrete neuron, Eq. 5 with τ/dt steps and no threshold.

    Args:
        x: Input at each step.
        tau: τ in ms.
        dt: Duration of a step in ms.
    """
    v, found = torch.zeros((), dtype=torch.float64), []
    for step in torch.from_numpy(x):
        v = charge(step, v, dt / tau, 0.0)
        found.append(float(v))
    return np.array(found)


def draw_constant_input() -> Figure:
    """Draws Figure 1(b)."""
    figure = new_figure(SINGLE, 2.2)
    axes = figure.subplots()
    t, dt = np.linspace(0, 100, 401), 1.0
    for label, tau, weight, colour, style in (
        ("$w+$", TAU, 1.5 * WEIGHT, RED, (0, (5, 1))),
        (r"$\tau-$", TAU / 2, WEIGHT, GREEN, (0, (1, 1))),
        (r"$w,\ \tau$", TAU, WEIGHT, BLUE, "-"),
        (r"$\tau+$", 2 * TAU, WEIGHT, ORANGE, (0, (3, 1, 1, 1))),
        ("$w-$", TAU, WEIGHT / 2, PINK, (0, (6, 2, 1, 2))),
    ):
        axes.plot(t, constant_input(t, tau, weight), color=colour, linestyle=style, label=label)
        steps = simulate_neuron(np.full(100, weight), tau, dt)
        axes.plot(dt * np.arange(5, 101, 10), steps[4::10], ".", color=colour, markersize=3)
    axes.set(xlabel="$t$ (ms)", ylabel="$V$", xlim=(0, 100), ylim=(0, None))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def draw_spike_response() -> Figure:
    """Draws Figure 2."""
    figure = new_figure(SINGLE, 2.2)
    axes = figure.subplots()
    t, dt = np.arange(0, 150, 0.1), 0.1
    x = np.zeros(len(t))
    x[np.rint(np.array(SPIKES) / dt).astype(int)] = 1.0 / dt
    for label, tau, weight, colour, style in (
        (r"$w,\ \tau$", TAU, WEIGHT, BLUE, "-"),
        (r"$\tau-$", TAU / 2, WEIGHT, GREEN, (0, (4, 1))),
        ("$w-$", TAU, WEIGHT / 2, PINK, (0, (6, 2, 1, 2))),
    ):
        axes.plot(t, spike_response(t, tau, weight), color=colour, linestyle=style, label=label)
        axes.plot(t[::60], simulate_neuron(weight * x, tau, dt)[::60], ".", color=colour, markersize=3)
    axes.plot(SPIKES, np.full(len(SPIKES), -0.006), "|", color=BLACK, markersize=5, clip_on=False)
    axes.set(xlabel="$t$ (ms)", ylabel="$V$", xlim=(0, 150))
    axes.legend(loc="upper left")
    return figure


def lif_neuron(x: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns potentials before firing and spikes, ``[T, …]`` each, of LIF neurons with V_th = 1 and V_reset = 0.

    Args:
        x: Inputs ``[T, …]``.
        tau: τ in time steps.

    Source: Eq. 2 to 5.
    """
    v, potentials, spikes = torch.zeros(x.shape[1:], dtype=torch.float64), [], []
    for step in torch.from_numpy(x):
        h = charge(step, v, 1.0 / tau, 0.0)
        spike = fire(h, 1.0)
        v = reset(h, spike, 1.0, 0.0, detach=True)
        potentials.append(h.numpy())
        spikes.append(spike.numpy())
    return np.stack(potentials), np.stack(spikes)


def connected_neurons(spikes: np.ndarray) -> np.ndarray:
    """Returns at each step the neuron that max pooling connects, drawn among those that fire; −1 where none fires.

    Args:
        spikes: Spikes ``[T, neurons]``.

    Source: Figure 5.
    """
    generator = np.random.default_rng(0)
    firing = [np.flatnonzero(row) for row in spikes]
    return np.array([generator.choice(neurons) if len(neurons) else -1 for neurons in firing])


def draw_max_pooling() -> Figure:
    """Draws Figure 5."""
    figure = new_figure(SINGLE, 2.9)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.0, 1.2))
    inputs = np.tile(PRESYNAPTIC, (T, 1))
    _, spikes = lif_neuron(inputs, POOLED_TAU)
    chosen = connected_neurons(spikes)
    t = np.arange(T)
    for index, colour in enumerate((BLUE, ORANGE, GREEN)):
        for connected in (True, False):
            at = t[(spikes[:, index] == 1) & ((chosen == index) == connected)]
            face = colour if connected else "none"
            above.scatter(at, np.full(len(at), 2 - index), s=18, facecolors=face, edgecolors=colour, linewidths=0.8)
    above.set(yticks=[2, 1, 0], yticklabels=["1", "2", "3"], ylabel="neuron", ylim=(-0.6, 2.6))
    letter(above, 0, "presynaptic neurons")
    for label, pooled, colour, style, height in (
        ("max pooling", spikes.max(1), BLACK, "-", 1.3),
        ("average pooling", spikes.mean(1), PINK, (0, (4, 1)), 1.2),
    ):
        potential, fired = lif_neuron(POSTSYNAPTIC_WEIGHT * pooled, POOLED_TAU)
        count = int(fired.sum())
        name = f"{label}: {count} spike{'' if count == 1 else 's'}"
        below.plot(t, potential, ".", linestyle=style, color=colour, markersize=3, label=name)
        below.plot(t[fired == 1], [height] * count, "|", color=colour, markersize=6)
    below.axhline(1.0, color=BLACK, linewidth=0.5, linestyle=(0, (1, 2)))
    below.set(xlabel="time step", ylabel="$H_t$", xticks=range(0, T, 5), xlim=(-0.7, T - 0.3), ylim=(0, 1.4))
    letter(below, 1, "postsynaptic neuron")
    marks = [Line2D([], [], color=BLACK, marker="o", linestyle="", fillstyle=style) for style in ("full", "none")]
    handles, labels = below.get_legend_handles_labels()
    add_legend(figure, [*marks, *handles], ["fires, connected", "fires, not connected", *labels], columns=2)
    return figure


def spike_count(pixel: int, T: int) -> int:
    """Returns the number of spikes of the encoder's neuron in T steps, ⌊T / ⌈V_th / (w p)⌉⌋ with w = V_th = 1.

    Args:
        pixel: 0…255; p is pixel/255.
        T: Time steps.

    Source: supplement J.
    """
    return 0 if pixel == 0 else T // math.ceil(255 / pixel)


def encoder_spikes(pixels: np.ndarray, T: int) -> np.ndarray:
    """Returns spikes ``[T, …]`` of the learnable encoder: a 1×1 convolution before neurons without leak, w = V_th = 1.

    Args:
        pixels: 0…255, of any shape.
        T: Time steps.

    Source: supplement J.
    """
    x = torch.from_numpy(pixels.astype(np.float64))  # in 255ths, as the threshold, so that sums are exact
    v, found = torch.zeros_like(x), []
    for _ in range(T):
        h = v + x  # k → 0 with X/τ kept: no leak
        spike = fire(h, 255.0)
        v = reset(h, spike, 255.0, 0.0, detach=True)
        found.append(spike)
    spikes: np.ndarray = torch.stack(found).numpy()
    return spikes


def poisson_spikes(pixels: np.ndarray, T: int) -> np.ndarray:
    """Returns spikes ``[T, …]`` that each fire with probability pixel/255."""
    uniform = np.random.default_rng(0).random((T, *pixels.shape))
    return (uniform < pixels / 255).astype(np.float64)


def latency_spikes(pixels: np.ndarray, T: int) -> np.ndarray:
    """Returns spikes ``[T, …]``, one for each pixel at ⌊(T − 1)(1 − p)⌋; none where the pixel is 0."""
    at = np.floor((T - 1) * (1 - pixels / 255) + 1e-9).astype(int)
    steps = np.arange(T).reshape(-1, *(1,) * pixels.ndim)
    fires: np.ndarray = (steps == at) & (pixels > 0)
    return fires.astype(np.float64)


def example_image() -> np.ndarray:
    """Returns a generated picture: a bright ring on a gradient, uint8 ``[24, 24]``."""
    size = 24
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    ring = np.exp(-(((np.hypot(x, y) - 0.3) / 0.08) ** 2))
    return np.array(np.clip(255 * (0.25 * (x + 0.5) + 0.9 * ring), 0, 255), np.uint8)


def draw_encoders() -> Figure:
    """Draws Figure J."""
    figure = new_figure(DOUBLE, 3.9)
    above, below = stack_parts(figure, 1.15, 1.0)
    counts, first_spikes = above.subplots(1, 2)
    pixels = np.arange(256)
    spikes = encoder_spikes(pixels, T)
    counts.plot(pixels / 255, T * pixels / 255, color=BLACK, label="Poisson, expected: $pT$")
    counts.plot(
        pixels / 255, poisson_spikes(pixels, T).sum(0), ".", color=PINK, markersize=2.5, label="Poisson, one draw"
    )
    closed = [spike_count(int(pixel), T) for pixel in pixels]
    counts.step(
        pixels / 255,
        closed,
        where="post",
        color=BLUE,
        label=r"encoder: $\lfloor T / \lceil V_{th} / (wp) \rceil \rfloor$",
    )
    counts.plot(pixels[::6] / 255, spikes.sum(0)[::6], ".", color=BLUE, markersize=3.5, label="encoder, simulated")
    counts.axvspan(0.5, 1.0, color="#eeeeee", linewidth=0, zorder=0)
    counts.text(0.98, 0.45 * T, "$p > 1/2$: $T/2$ spikes,\nno approximation", ha="right", va="top", fontsize=6)
    counts.set(xlabel="pixel value $p$", ylabel=f"spikes in $T = {T}$ steps", xlim=(0, 1), ylim=(0, None))
    counts.legend(loc="upper left")
    letter(counts, 0, "number of spikes")
    fired = spikes.any(0)
    first_spikes.plot(pixels[fired] / 255, spikes.argmax(0)[fired], color=BLUE, drawstyle="steps-post", label="encoder")
    latency = latency_spikes(pixels, T)
    first_spikes.plot(
        pixels[1:] / 255,
        latency.argmax(0)[1:],
        color=ORANGE,
        linestyle=(0, (4, 1)),
        drawstyle="steps-post",
        label=r"latency: $\lfloor (T - 1)(1 - p) \rfloor$",
    )
    first_spikes.set(xlabel="pixel value $p$", ylabel="step of the first spike", xlim=(0, 1), ylim=(-0.5, T))
    first_spikes.legend(loc="upper right")
    letter(first_spikes, 1, "first spike")
    _draw_images(below.subplots(3, 11, gridspec_kw={"hspace": 0.05, "wspace": 0.05}))
    return figure


def _draw_images(axes: np.ndarray) -> None:
    """Draws the example image, its spikes at nine steps, and their mean; a row for each encoder."""
    image = example_image()
    rows = {
        "encoder": encoder_spikes(image, T),
        "Poisson": poisson_spikes(image, T),
        "latency": latency_spikes(image, T),
    }
    shown: Sequence[int] = (0, 1, 2, 3, 5, 7, 10, 14, 19)
    for row, (name, spikes) in enumerate(rows.items()):
        pictures = [image / 255, *(spikes[t] for t in shown), spikes.mean(0)]
        heads = ["(c) image", *(f"$t = {t}$" for t in shown), "rate"]
        for column, (picture, head) in enumerate(zip(pictures, heads, strict=True)):
            axis: Axes = axes[row, column]
            show_picture(axis, picture, title=head if row == 0 else "")
        axes[row, 0].set_ylabel(name)


def show_picture(axis: Axes, picture: np.ndarray, *, title: str = "", white: float | None = 1.0) -> None:
    """Shows a greyscale picture ``[H, W]``.

    Args:
        axis: Axes to draw in.
        picture: Values from 0 (black).
        title: Title above the picture.
        white: Value that is white; None: the maximum.
    """
    axis.imshow(picture, cmap="gray", vmin=0, vmax=white if white is not None else max(float(picture.max()), 1e-12))
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if title:
        axis.set_title(title, fontsize=6, pad=2)
