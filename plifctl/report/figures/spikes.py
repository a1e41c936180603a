"""Figures of a network's input and spikes (S2 to S5), from spikes recorded by ``plifctl eval``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from plifctl.errors import UsageError
from plifctl.report.figures.neuron import show_picture
from plifctl.report.figures.style import DOUBLE, new_figure, stack_parts, verbatim
from plifctl.runs import SpikeRecording
from plifctl.runs.spikes import grey_inputs

GRID_CHANNELS = 128
"""Maximum number of channels in a grid."""


def draw_static(recording: SpikeRecording, channels: Sequence[int]) -> Figure:
    """Draws Figure S2: samples in columns, their images above the firing rates of channels.

    Raises:
        UsageError: See :func:`_first_maps`.
    """
    maps = _first_maps(recording)
    chosen = _channels(maps, channels, (45, 75, 76))
    columns = min(10, len(maps))
    figure = new_figure(DOUBLE, (DOUBLE / columns) * (1 + len(chosen)) + 0.2)
    grid = figure.subplots(1 + len(chosen), columns, squeeze=False)
    for column in range(columns):
        name = verbatim(recording.classes[int(recording.labels[column])])
        show_picture(grid[0, column], grey_inputs(recording.inputs[column].mean(0)), title=name, white=None)
        for row, channel in enumerate(chosen, 1):
            show_picture(grid[row, column], maps[column, :, channel].mean(0))
    grid[0, 0].set_ylabel("input")
    for row, channel in enumerate(chosen, 1):
        grid[row, 0].set_ylabel(f"c = {channel}")
    return figure


def draw_channels(recording: SpikeRecording, channels: Sequence[int]) -> Figure:
    """Draws Figure S3: of the first sample (a) the spikes at t = 0 and (b) the firing rates, all channels in a grid."""
    maps = _first_maps(recording)[0]
    chosen = _channels(maps[None], channels, range(min(GRID_CHANNELS, maps.shape[1])))
    square = int(np.ceil(np.sqrt(len(chosen))))
    columns = next((n for n in range(square, 2 * square) if len(chosen) % n == 0), square)  # no gap at the end
    height, width = maps.shape[2:]
    aspect = -(-len(chosen) // columns) * height / (columns * width)
    figure = new_figure(DOUBLE, 0.5 * DOUBLE * aspect + 0.25)
    rates = f"(b) firing rates, $T_s = {len(maps)}$, white: the highest"
    for axes, pictures, title, white in zip(
        figure.subplots(1, 2),
        (maps[0][chosen], maps[:, chosen].mean(0)),
        ("(a) spikes at $t = 0$", rates),
        (1.0, None),
        strict=True,
    ):
        show_picture(axes, _tile_pictures(pictures.astype(np.float64), columns), white=white)
        axes.set_title(title, loc="left", fontsize=7)
    return figure


def draw_over_time(recording: SpikeRecording, channels: Sequence[int]) -> Figure:
    """Draws Figure S4: of the first sample (a) input and spikes of channels at each step, (b) their means up to it."""
    maps = _first_maps(recording)[0]
    chosen = _channels(maps[None], channels, (40, 103))
    steps = len(maps)
    frames = np.broadcast_to(recording.inputs[0], (steps, *recording.inputs.shape[2:]))
    seen = grey_inputs(frames.astype(np.float64))
    count = np.arange(1, steps + 1).reshape(-1, 1, 1)
    figure = new_figure(DOUBLE, 2 * ((1 + len(chosen)) * DOUBLE / steps + 0.35))
    parts = stack_parts(figure, 1, 1)
    for part, first, title, above, below in (
        (parts[0], 0, r"(a) $x_t$ and $S_t$ at each step $t$", seen, maps[:, chosen].astype(np.float64)),
        (
            parts[1],
            1,
            r"(b) $x(T_s)$ and $F_{T_s}$: means of the first $T_s$ steps",
            seen.cumsum(0) / count,
            maps[:, chosen].cumsum(0) / count[..., None],
        ),
    ):
        part.suptitle(title, x=0.01, ha="left", fontsize=7)
        grid = part.subplots(1 + len(chosen), steps, squeeze=False)
        white = max(float(above.max()), 1e-12)
        for t in range(steps):
            show_picture(grid[0, t], above[t], title=str(first + t), white=white)
            for row in range(len(chosen)):
                show_picture(grid[1 + row, t], below[t, row])
        for row, label in enumerate(["input", *(f"c = {channel}" for channel in chosen)]):
            grid[row, 0].set_ylabel(label, fontsize=5)
    return figure


def draw_samples(recording: SpikeRecording, channels: Sequence[int]) -> Figure:
    """Draws Figure S5: three samples, the input at each step above the spikes of one channel."""
    maps = _first_maps(recording)
    (channel,) = _channels(maps, channels, (59,))[:1]
    samples, steps = min(3, len(maps)), maps.shape[1]
    figure = new_figure(DOUBLE, samples * (2 * DOUBLE / steps + 0.25))
    for index, part in enumerate(stack_parts(figure, *[1.0] * samples)):
        name = verbatim(recording.classes[int(recording.labels[index])])
        title = f"{name}; input, and spikes of channel {channel}"
        part.suptitle(title, x=0.01, ha="left", fontsize=6)
        frames = np.broadcast_to(recording.inputs[index], (steps, *recording.inputs.shape[2:])).astype(np.float64)
        seen = grey_inputs(frames)
        white = max(float(seen.max()), 1e-12)
        grid = part.subplots(2, steps, squeeze=False)
        for t in range(steps):
            show_picture(grid[0, t], seen[t], title=str(t) if index == 0 else "", white=white)
            show_picture(grid[1, t], maps[index, t, channel])
    return figure


def _first_maps(recording: SpikeRecording) -> np.ndarray:
    """Returns the spikes of the first recorded convolutional layer, ``[N, T, C, H, W]``.

    Raises:
        UsageError: None was recorded.
    """
    for spikes in recording.spikes.values():
        if spikes.ndim == 5 and spikes.size:
            return spikes
    raise UsageError("no spikes of a convolutional layer were recorded", hint="plifctl eval RUN --record-spikes 10")


def _channels(maps: np.ndarray, requested: Sequence[int], usual: Sequence[int]) -> list[int]:
    """Returns the requested channels; else the paper's if they exist; else those with the least even firing rates.

    Args:
        maps: Spikes ``[N, T, C, H, W]``.
        requested: Channels; may be empty.
        usual: Channels in the paper.

    Raises:
        UsageError: There is no such channel.
    """
    count = maps.shape[2]
    if wrong := [channel for channel in requested if not 0 <= channel < count]:
        raise UsageError(f"no channel {wrong[0]}: the layer has {count}, numbered from 0")
    if requested:
        return list(requested)
    if max(usual) < count:
        return list(usual)
    spread = maps.mean((0, 1)).reshape(count, -1).std(1)
    return sorted(np.argsort(-spread, kind="stable")[: len(usual)].tolist())


def _tile_pictures(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Returns pictures ``[C, H, W]`` tiled in rows of ``columns``, with grey lines between them."""
    count, height, width = pictures.shape
    rows = -(-count // columns)
    tiled = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), 0.35 * float(pictures.max(initial=0.0)))
    for index, picture in enumerate(pictures):
        y, x = index // columns * (height + 1), index % columns * (width + 1)
        tiled[y : y + height, x : x + width] = picture
    return tiled
