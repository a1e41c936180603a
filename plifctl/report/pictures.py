"""Samples as pictures: frames of events and images, enlarged and labelled; arrays in, Pillow images out.

ON events are orange, OFF events blue (Okabe and Ito's colours, which colour-blind eyes tell apart), as ink on paper: a
pixel that saw both is dark. The more events, the more ink, up to the 99th percentile of the counts drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plifctl import files
from plifctl.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from plifctl.cache.statistics import Distribution, Statistics

ON, OFF, MERGED = (213, 94, 0), (0, 114, 178), (51, 51, 51)
"""RGB of full ink: of a pixel's ON events, its OFF events, and events whose polarities were merged."""

MAX_PIXELS = 100_000_000
"""The largest picture drawn, width · height; larger ones hardly any viewer opens."""

_LEVELS = 12  # shades of an ink: few enough that all mixtures and the text fit into the 256 colours of a GIF
_FAINTEST = 0.4  # share of ink that a single event gets: it must be seen
_GIF_MS = 100  # how long a frame is shown, milliseconds
_BLACK, _GREY, _LINE = "#111111", "#666666", "#cccccc"
_MARGIN, _GAP = 20, 12
_TITLE, _TEXT, _SMALL = 24, 15, 12  # sizes of type, pixels


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample to draw.

    Attributes:
        name: Its id.
        label: Its class, in words.
        detail: What else there is to say of it; may be empty.
        content: Frames ``[T, P, H, W]`` of counts, where P = 2 is off, on, and P = 1 merged polarities; or an image
            ``[C, H, W]`` uint8.
    """

    name: str
    label: str
    detail: str
    content: np.ndarray

    @property
    def heading(self) -> str:
        """All that there is to say, in one line."""
        return " · ".join(text for text in (self.name, self.label, self.detail) if text)


@dataclass(frozen=True)
class _Panel:
    pixels: np.ndarray  # [H, W, 3] uint8
    caption: Sequence[tuple[str, str]]  # lines above it: flush left, flush right


def saturation_of(samples: Sequence[np.ndarray]) -> int:
    """Returns the count from which on a pixel has full ink: the 99th percentile of all that are not zero.

    Example:
        >>> saturation_of([np.array([0, 0, 1, 1, 3])])
        3
    """
    seen = np.concatenate([counts[counts > 0] for counts in samples])
    return math.ceil(np.percentile(seen, 99)) if len(seen) else 1


def colour_frames(frames: np.ndarray, saturation: int) -> np.ndarray:
    """Returns frames in colour, one pixel for one pixel.

    Args:
        frames: Counts ``[T, P, H, W]``; P = 2 is off, on; P = 1 merged polarities.
        saturation: The count from which on a pixel has full ink, at least 1.

    Returns:
        RGB, uint8 ``[T, H, W, 3]``; white where there is no event.
    """
    saturation = min(saturation, np.iinfo(frames.dtype).max)
    counts = np.arange(1, saturation + 1)
    steps = (counts - 1) * (_LEVELS - 1) // (saturation - 1) if saturation > 1 else np.array([_LEVELS - 1])
    level_of = np.concatenate([[0], 1 + steps]).astype(np.uint8)
    levels = level_of[np.minimum(frames, saturation)]
    colours: np.ndarray = _mixtures(frames.shape[1])[tuple(np.moveaxis(levels, 1, 0))]
    return colours


def _mixtures(polarities: int) -> np.ndarray:
    """Colours by level of each polarity, 0 to _LEVELS: uint8 ``[levels, 3]`` of one ink, ``[off, on, 3]`` of two."""
    share = np.concatenate([[0.0], np.linspace(_FAINTEST, 1, _LEVELS)])[:, None]
    off, on, merged = (1 - share * (1 - np.array(ink) / 255) for ink in (OFF, ON, MERGED))
    passed = merged if polarities == 1 else off[:, None] * on[None]  # light that the paper sends back
    return np.rint(255 * passed).astype(np.uint8)


def draw_events(title: str, details: str, samples: Sequence[Sample]) -> Image:
    """Returns event samples one below the other, the frames of each in rows from left to right.

    Raises:
        UsageError: That would be more than MAX_PIXELS.
    """
    frames = [sample.content for sample in samples]
    T, (_, polarities, height, width) = max(map(len, frames)), frames[0].shape
    columns = _columns(T) if len(samples) == 1 else min(T, 20)
    scale = _scale(height, width, 256 if len(samples) == 1 and T <= 30 else 128)
    saturation = saturation_of(frames)
    blocks = [(sample.heading, list(_panels(sample.content, saturation))) for sample in samples]
    return _page(title, details, _legend(polarities, saturation), blocks, columns, scale)


def _panels(frames: np.ndarray, saturation: int) -> Iterator[_Panel]:
    for t, pixels in enumerate(colour_frames(frames, saturation)):
        yield _Panel(pixels, [(f"t = {t}", _events(frames[t]))])


def draw_images(title: str, details: str, samples: Sequence[Sample]) -> Image:
    """Returns images of 1 or 3 channels side by side, in rows.

    Raises:
        UsageError: That would be more than MAX_PIXELS.
    """
    _, height, width = samples[0].content.shape
    panels = [
        _Panel(
            np.broadcast_to(np.moveaxis(sample.content, 0, -1), (height, width, 3)),
            [(text, "") for text in (sample.label, sample.name, sample.detail) if text],
        )
        for sample in samples
    ]
    scale = _scale(height, width, 256 if len(samples) == 1 else 128)
    return _page(title, details, [], [("", panels)], _columns(len(panels)), scale)


def animate(title: str, sample: Sample) -> Iterator[Image]:
    """Yields the frames of an event sample one after the other, enlarged, with a counter.

    Each has a palette, so that a GIF keeps every colour as it is.
    """
    T, polarities, height, width = sample.content.shape
    saturation = saturation_of([sample.content])
    scale = _scale(height, width, 640)
    legend = _legend(polarities, saturation)
    heads = [
        [(title, _TITLE, _BLACK), (sample.heading, _TEXT, _GREY), (counter, _TEXT, _BLACK)]
        for t, counts in enumerate(sample.content)
        for counter in [f"t = {t} (of 0 to {T - 1}) · {_events(counts)}"]
    ]
    texts = max(_width(text, size) for head in heads for text, size, _ in head)
    width, height = max(scale * width + 2, _legend_width(legend), texts), scale * height + 2
    top = _head_height(heads[0], legend)
    greys = np.arange(0, 256, 17).astype(np.uint8)[:, None].repeat(3, 1)
    palette = np.unique(np.concatenate([_mixtures(polarities).reshape(-1, 3), greys]), axis=0)
    for t, head in enumerate(heads):
        picture = _paper(width + 2 * _MARGIN, top + height + _MARGIN)
        _draw_head(picture, head, legend)
        _draw_panel(picture, _MARGIN, top, colour_frames(sample.content[t : t + 1], saturation)[0], scale)
        yield _indexed(picture, palette)


def draw_histograms(title: str, details: str, stats: Statistics, classes: Sequence[str] = ()) -> Image:
    """Returns how events and durations are distributed (of events), and how many samples each class has.

    Args:
        title: The data set.
        details: What else there is to say.
        stats: What is drawn.
        classes: Names of the classes, where they are known.
    """
    charts: list[tuple[str, Distribution, int]] = []
    if stats.events is not None:
        charts = [
            ("events in a sample", stats.events.per_sample, 1),
            ("events in a frame", stats.events.per_slice, 1),
            ("duration of a sample, ms", stats.events.duration_us, 1000),
        ]
    head = [(title, _TITLE, _BLACK), (details, _TEXT, _GREY)]
    inks = ((OFF, "training samples of a class"), (ON, "test samples"))
    legend = [(np.array([ink] * _LEVELS, np.uint8), text) for ink, text in inks]
    rows = stats.by_class(classes)
    names = max(_width(name, _TEXT) for name, *_ in rows) + _GAP
    numbers = max(_width(f"{train:,} + {test:,}", _SMALL) for _, train, test in rows) + _GAP
    width = max(
        2 * _CHART_WIDTH + 3 * _GAP,
        len(charts) * (_CHART_WIDTH + 3 * _GAP) - 3 * _GAP,
        *(_width(text, size) for text, size, _ in head),
        names + numbers + _CHART_WIDTH,
    )
    top, chart = _head_height(head, legend), _CHART_HEIGHT + _line_height(_TEXT) + _line_height(_SMALL) + 3 * _GAP
    y = top + (chart if charts else 0)
    picture = _paper(width + 2 * _MARGIN, y + len(rows) * _line_height(_TEXT) + _MARGIN)
    _draw_head(picture, head, legend)
    for index, (text, found, unit) in enumerate(charts):
        _draw_chart(picture, _MARGIN + index * (_CHART_WIDTH + 3 * _GAP), top, text, found, unit)
    scale = (width - names - numbers) / max(1, *(train + test for _, train, test in rows))
    for name, train, test in rows:
        _label(picture, _MARGIN, y, name, _TEXT, _BLACK)
        x = _MARGIN + names
        for count, ink in ((train, OFF), (test, ON)):
            end = x + round(scale * count)
            picture.paste(ink, (x, y + 2, end, y + _TEXT + 2))
            x = end
        _label(picture, x + _GAP // 2, y + 2, f"{train:,} + {test:,}", _SMALL, _GREY)
        y += _line_height(_TEXT)
    return picture


_CHART_WIDTH, _CHART_HEIGHT = 384, 150  # of the bars, pixels


def _draw_chart(picture: Image, x: int, y: int, text: str, found: Distribution, unit: int) -> None:
    """Draws a histogram with its least, median and largest value, in units of ``unit``."""
    _label(picture, x, y, text, _TEXT, _BLACK)
    most = f"highest bar: {max(found.counts):,} of {found.n:,}"
    _label(picture, x + _CHART_WIDTH - _width(most, _SMALL), y + 2, most, _SMALL, _GREY)
    y += _line_height(_TEXT) + _GAP // 2
    base, tallest = y + _CHART_HEIGHT, max(1, *found.counts)
    ends = [x + round(_CHART_WIDTH * i / len(found.counts)) for i in range(len(found.counts) + 1)]
    for left, right, count in zip(ends, ends[1:], found.counts, strict=False):
        picture.paste(MERGED, (left, base - math.ceil(_CHART_HEIGHT * count / tallest), max(left + 1, right - 1), base))
    picture.paste(_GREY, (x, base, x + _CHART_WIDTH, base + 1))
    span = found.edges[-1] - found.edges[0]
    median = x + round(_CHART_WIDTH * (found.median - found.edges[0]) / span)
    picture.paste(ON, (median - 1, y, median + 1, base))
    low, middle, high = (f"{value / unit:,.{0 if unit == 1 else 1}f}" for value in (found.min, found.median, found.max))
    middle = f"median {middle}"
    _label(picture, x, base + 4, low, _SMALL, _GREY)
    _label(picture, x + _CHART_WIDTH - _width(high, _SMALL), base + 4, high, _SMALL, _GREY)
    left, right = x + _width(low, _SMALL) + _GAP, x + _CHART_WIDTH - _width(high, _SMALL) - _GAP
    centred = median - _width(middle, _SMALL) // 2
    _label(picture, max(left, min(centred, right - _width(middle, _SMALL))), base + 4, middle, _SMALL, ON)


def save(picture: Image | Iterator[Image], path: Path) -> None:
    """Writes a PNG, or of several pictures an animated GIF that repeats itself; replaces ``path``, whole or not at all.

    Raises:
        MachineError: The disk is full or the folder refused.
    """
    with files.atomic_write(path) as temporary:
        if not isinstance(picture, Iterator):
            picture.save(temporary, format="PNG")
            return
        first = next(picture)
        first.save(temporary, format="GIF", save_all=True, append_images=picture, duration=_GIF_MS, loop=0)


_Lines = Sequence[tuple[str, int, str]]  # text, size, colour
_Legend = Sequence[tuple[np.ndarray, str]]  # a strip of colours [n, 3], faint to full, and what it means
_SWATCH = 6  # width of one of its colours, pixels


def _legend(polarities: int, saturation: int) -> _Legend:
    mixtures = _mixtures(polarities)
    if polarities == 1:
        strips = [(mixtures[1:], "events")]
    else:
        both = np.arange(1, _LEVELS + 1)
        strips = [
            (mixtures[0, 1:], "ON (brighter)"),
            (mixtures[1:, 0], "OFF (darker)"),
            (mixtures[both, both], "both"),
        ]
    if saturation == 1:
        return [(strip[-1:].repeat(len(strip), 0), text) for strip, text in strips]
    return [*strips, (mixtures[:0].reshape(0, 3), f"faint: 1 event, full: {saturation} or more")]


def _page(
    title: str,
    details: str,
    legend: _Legend,
    blocks: Sequence[tuple[str, Sequence[_Panel]]],
    columns: int,
    scale: int,
) -> Image:
    """Returns a title and below it blocks of a heading and panels, ``columns`` in a row."""
    panels = [panel for _, some in blocks for panel in some]
    height, width = (scale * n + 2 for n in panels[0].pixels.shape[:2])  # with a frame of one pixel
    caption = max(_width(left, _SMALL) + _width(f"  {right}", _SMALL) for p in panels for left, right in p.caption)
    across, down = max(width, caption) + _GAP, len(panels[0].caption) * _line_height(_SMALL) + height + _GAP
    head = [(title, _TITLE, _BLACK), (details, _TEXT, _GREY)]
    inner = max(
        columns * across - _GAP,
        _legend_width(legend),
        *(_width(text, size) for text, size, _ in head),
        *(_width(heading, _TEXT) for heading, _ in blocks),
    )
    heading_height = _line_height(_TEXT) + 4 if blocks[0][0] else 0
    rows = [math.ceil(len(some) / columns) for _, some in blocks]
    top = _head_height(head, legend)
    picture = _paper(inner + 2 * _MARGIN, top + len(blocks) * heading_height + sum(rows) * down - _GAP + _MARGIN)
    _draw_head(picture, head, legend)
    y = top
    for (heading, some), n in zip(blocks, rows, strict=True):
        _label(picture, _MARGIN, y, heading, _TEXT, _BLACK)
        y += heading_height
        for index, panel in enumerate(some):
            x, above = _MARGIN + index % columns * across, y + index // columns * down
            for line, (left, right) in enumerate(panel.caption):
                _label(picture, x, above, left, _SMALL, _GREY if line else _BLACK)
                _label(picture, x + across - _GAP - _width(right, _SMALL), above, right, _SMALL, _GREY)
                above += _line_height(_SMALL)
            _draw_panel(picture, x, above, panel.pixels, scale)
        y += n * down
    return picture


def _draw_panel(picture: Image, x: int, y: int, pixels: np.ndarray, scale: int) -> None:
    from PIL import Image, ImageDraw

    height, width = (scale * n for n in pixels.shape[:2])
    ImageDraw.Draw(picture).rectangle((x, y, x + width + 1, y + height + 1), outline=_LINE)
    panel = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.NEAREST)
    picture.paste(panel, (x + 1, y + 1))


def _head_height(head: _Lines, legend: _Legend) -> int:
    """Returns where, below text and legend, what they are about begins."""
    return _MARGIN + sum(_line_height(size) for _, size, _ in head) + (_line_height(_TEXT) if legend else 0) + _GAP


def _draw_head(picture: Image, head: _Lines, legend: _Legend) -> None:
    from PIL import Image

    x = y = _MARGIN
    for text, size, colour in head:
        _label(picture, x, y, text, size, colour)
        y += _line_height(size)
    for strip, text in legend:
        if len(strip):
            swatch = Image.fromarray(strip[None]).resize((_SWATCH * len(strip), _TEXT - 1), Image.Resampling.NEAREST)
            picture.paste(swatch, (x, y + 3))
            x += swatch.width + 8
        _label(picture, x, y, text, _TEXT, _GREY)
        x += _width(text, _TEXT) + 24


def _legend_width(legend: _Legend) -> int:
    return sum(_SWATCH * len(strip) + 8 + _width(text, _TEXT) + 24 for strip, text in legend) - 24


def _paper(width: int, height: int) -> Image:
    from PIL import Image

    if width * height > MAX_PIXELS:
        raise UsageError(
            f"a picture of {width}×{height} pixels; at most {MAX_PIXELS:,} are drawn",
            hint="draw fewer samples, or one as animation (--out NAME.gif)",
        )
    return Image.new("RGB", (width, height), "white")


def _label(picture: Image, x: int, y: int, text: str, size: int, colour: str | tuple[int, int, int]) -> None:
    from PIL import ImageDraw

    ImageDraw.Draw(picture).text((x, y), text, font=_font(size), fill=colour)


@cache
def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _width(text: str, size: int) -> int:
    return math.ceil(_font(size).getlength(text))


def _line_height(size: int) -> int:
    return size * 3 // 2


def _indexed(picture: Image, palette: np.ndarray) -> Image:
    """Returns a picture in the nearest colours of ``palette``, uint8 ``[n, 3]``, n up to 256."""
    from PIL import Image

    red, green, blue = np.moveaxis(np.asarray(picture, np.int64), -1, 0)
    codes, index = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1)
    distances = np.abs(colours[:, None] - palette[None]).sum(-1)
    nearest = distances.argmin(1).astype(np.uint8)
    indexed = Image.frombytes("P", picture.size, nearest[index].tobytes())
    indexed.putpalette(palette.tobytes())
    return indexed


def _columns(n: int) -> int:
    """Returns how many of n panels go into a row: the fewest that fill every row, if that is not too long."""
    least = math.ceil(math.sqrt(n))
    return next((c for c in range(least, 2 * least + 1) if n % c == 0), math.ceil(math.sqrt(1.5 * n)))


def _scale(height: int, width: int, target: int) -> int:
    """Returns by how much to enlarge, so that the longer side comes near ``target`` pixels."""
    return max(1, target // max(height, width))


def _events(counts: np.ndarray) -> str:
    count = int(counts.sum(dtype=np.int64))
    return f"{count:,} event{'' if count == 1 else 's'}"
