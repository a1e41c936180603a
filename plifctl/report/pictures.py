"""Pictures of samples: arrays in, Pillow images out.

Frames and images are enlarged by a whole factor and placed pixel by pixel; matplotlib measures, arranges and draws the
text around them. ON events are orange, OFF events blue (Okabe and Ito's colours, distinct for colour-blind readers), as
ink on paper: a pixel with both is dark. More events mean more ink, up to the 99th percentile of the counts drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import HPacker, OffsetBox, TextArea, VPacker
from matplotlib.transforms import Bbox
from PIL import Image

from plifctl import files
from plifctl.errors import UsageError
from plifctl.report.fonts import fonts_for, quiet_fonts

ON, OFF, MERGED = (213, 94, 0), (0, 114, 178), (51, 51, 51)
"""RGB of full ink: ON events, OFF events, and events whose polarities were merged."""

MAX_PIXELS = 100_000_000
"""Largest picture drawn, width · height; few viewers open larger ones."""

_LEVELS = 12  # shades of an ink: few enough that all mixtures and the text fit into the 256 colours of a GIF
_FAINTEST = 0.4  # share of ink of a single event, which must be visible
_GIF_MS = 100  # duration of a GIF frame, milliseconds
_BLACK, _GREY, _LINE = "#111111", "#5f5f5f", 204
_MARGIN, _GAP = 20, 12
_TITLE, _TEXT, _SMALL = 22, 14, 12  # font sizes, pixels
_PX = 72  # dots per inch at which a point is a pixel


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample to draw.

    Attributes:
        name: Sample id.
        label: Class, in words.
        detail: Further facts; may be empty.
        content: Frames ``[T, P, H, W]`` of counts, where P = 2 is off, on, and P = 1 merged polarities; or an image
            ``[C, H, W]`` uint8.
    """

    name: str
    label: str
    detail: str
    content: np.ndarray

    @property
    def heading(self) -> str:
        """Name, class and further facts in one line."""
        return " · ".join(text for text in (self.name, self.label, self.detail) if text)


def find_saturation(samples: Sequence[np.ndarray]) -> int:
    """Returns the count at which a pixel has full ink: the 99th percentile of all counts that are not zero.

    Example:
        >>> find_saturation([np.array([0, 0, 1, 1, 3])])
        3
    """
    nonzero = np.concatenate([counts[counts > 0] for counts in samples])
    return math.ceil(np.percentile(nonzero, 99)) if len(nonzero) else 1


def colour_frames(frames: np.ndarray, saturation: int) -> np.ndarray:
    """Returns frames in colour, one pixel for each pixel of the sensor.

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
    colours: np.ndarray = _mix_inks(frames.shape[1])[tuple(np.moveaxis(levels, 1, 0))]
    return colours


def _mix_inks(polarities: int) -> np.ndarray:
    """Returns colours by level of each polarity, 0 to _LEVELS: uint8 ``[levels, 3]`` or ``[off, on, 3]``."""
    share = np.concatenate([[0.0], np.linspace(_FAINTEST, 1, _LEVELS)])[:, None]
    off, on, merged = (1 - share * (1 - np.array(ink) / 255) for ink in (OFF, ON, MERGED))
    reflected = merged if polarities == 1 else off[:, None] * on[None]
    return np.rint(255 * reflected).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ samples


def draw_events(title: str, details: str, samples: Sequence[Sample]) -> Image.Image:
    """Returns event samples one below the other, the frames of each in rows from left to right.

    Raises:
        UsageError: The picture would have more than MAX_PIXELS.
    """
    frames = [sample.content for sample in samples]
    T, (_, polarities, height, width) = max(map(len, frames)), frames[0].shape
    columns = _choose_columns(T) if len(samples) == 1 else min(T, 20)
    scale = _choose_scale(height, width, 256 if len(samples) == 1 and T <= 30 else 128)
    pixels_of_frames = sum(map(len, frames)) * height * width * scale**2
    if pixels_of_frames > MAX_PIXELS:  # refused here, before they are coloured
        raise _too_large(f"{pixels_of_frames:,} pixels for the frames alone")
    saturation = find_saturation(frames)
    blocks = []
    for sample in samples:
        coloured = zip(sample.content, colour_frames(sample.content, saturation), strict=True)
        cells = [
            _Cell(pixels, scale, [(f"t = {t}", _count_events(counts))]) for t, (counts, pixels) in enumerate(coloured)
        ]
        blocks.append((sample.heading, cells))
    return _draw_sheet([*_heading(title, details), _legend(polarities, saturation)], blocks, columns)


def _too_large(size: str) -> UsageError:
    return UsageError(
        f"a picture of {size} is too large: at most {MAX_PIXELS:,} pixels are drawn",
        hint="draw fewer samples, or one as animation (--out NAME.gif)",
    )


def draw_images(title: str, details: str, samples: Sequence[Sample]) -> Image.Image:
    """Returns images of 1 or 3 channels side by side, in rows.

    Raises:
        UsageError: The picture would have more than MAX_PIXELS.
    """
    _, height, width = samples[0].content.shape
    scale = _choose_scale(height, width, 256 if len(samples) == 1 else 128)
    cells = [
        _Cell(
            np.broadcast_to(np.moveaxis(sample.content, 0, -1), (height, width, 3)),
            scale,
            [(text, "") for text in (sample.label, sample.name, sample.detail) if text],
        )
        for sample in samples
    ]
    return _draw_sheet(_heading(title, details), [("", cells)], _choose_columns(len(cells)))


def animate_events(title: str, sample: Sample) -> Iterator[Image.Image]:
    """Yields the frames of an event sample one after the other, enlarged, with a counter.

    Each has a palette, so that a GIF keeps every colour as it is.
    """
    T, polarities, height, width = sample.content.shape
    saturation = find_saturation([sample.content])
    scale = _choose_scale(height, width, 640)
    canvas, pages = _Canvas(), []
    for t, (counts, pixels) in enumerate(zip(sample.content, colour_frames(sample.content, saturation), strict=True)):
        cell = _Cell(pixels, scale, [(f"t = {t} (of 0 to {T - 1})", _count_events(counts))])
        head = _column(*_heading(title, sample.heading), _legend(polarities, saturation))
        pages.append(canvas.attach(_column(head, cell, sep=18)))
        cell.set_cell_width(canvas.measure(cell)[0])
    canvas.resize(*np.max([canvas.measure(page) for page in pages], axis=0))
    for page in pages:
        yield _reduce_colours(canvas.draw(page), polarities)


def save_picture(picture: Image.Image | Iterator[Image.Image], path: Path) -> None:
    """Writes a PNG, or several pictures as a GIF that loops; replaces ``path`` atomically.

    Raises:
        MachineError: The disk is full, or the folder cannot be written.
    """
    with files.atomic_write(path) as temporary:
        if isinstance(picture, Image.Image):
            picture.save(temporary, format="PNG")
        else:
            first = next(picture)
            first.save(temporary, format="GIF", save_all=True, append_images=picture, duration=_GIF_MS, loop=0)


# ------------------------------------------------------------------------------------------------ layout


class _Pixels(OffsetBox):
    """An array of colours, enlarged by a whole factor and drawn pixel by pixel, with an optional thin frame."""

    _offset: tuple[float, float]  # set by the box around it

    def __init__(self, pixels: np.ndarray, scale: tuple[int, int], *, framed: bool) -> None:
        super().__init__()
        self._pixels, self._scale, self._frame = pixels, scale, int(framed)

    def get_offset(self, *args: Any, **kwargs: Any) -> tuple[float, float]:
        return self._offset

    def get_bbox(self, renderer: Any) -> Bbox:
        height, width = (n * scale + 2 * self._frame for n, scale in zip(self._pixels.shape, self._scale, strict=False))
        return Bbox.from_bounds(0, 0, width, height)

    def draw(self, renderer: Any) -> None:
        enlarged = self._pixels.repeat(self._scale[0], 0).repeat(self._scale[1], 1)
        frame = [(self._frame, self._frame)] * 2
        rgb = np.pad(enlarged, [*frame, (0, 0)], constant_values=_LINE)
        rgba = np.pad(rgb, [(0, 0), (0, 0), (0, 1)], constant_values=255)
        context = renderer.new_gc()
        renderer.draw_image(context, *map(round, self.get_offset()), rgba[::-1])
        context.restore()


class _Cell(VPacker):
    """A framed panel with lines of text above it, each flush left and flush right.

    Args:
        pixels: RGB, uint8 ``[H, W, 3]``.
        scale: Enlargement.
        caption: The lines, each of a left and a right text; the right one may be empty.
    """

    def __init__(self, pixels: np.ndarray, scale: int, caption: Sequence[tuple[str, str]]) -> None:
        self.lines = []
        for index, (left, right) in enumerate(caption):
            texts = [_text(left, _SMALL, _GREY if index else _BLACK)]
            self.lines.append(_row(*texts, *([_text(right, _SMALL, _GREY)] if right else [])))
        panel = _Pixels(pixels, (scale, scale), framed=True)
        super().__init__(pad=0, sep=4, align="left", children=[*self.lines, panel])

    def set_cell_width(self, width: float) -> None:
        """Widens the cell; right texts move to its edge."""
        self.width = width
        for line in self.lines:
            line.mode = "expand"


class _Canvas:
    """An Agg canvas for pages of boxes, one pixel per point."""

    def __init__(self) -> None:
        self._figure = Figure(dpi=_PX, facecolor="white")
        self._canvas: Any = FigureCanvasAgg(self._figure)

    def attach(self, page: OffsetBox) -> OffsetBox:
        """Makes a page measurable and returns it."""
        page.set_figure(self._figure)
        return page

    def measure(self, box: OffsetBox) -> tuple[int, int]:
        """Returns width and height of an attached box, pixels."""
        with quiet_fonts():
            bounds = box.get_bbox(self._canvas.get_renderer())
        return math.ceil(bounds.width), math.ceil(bounds.height)

    def resize(self, width: int, height: int) -> None:
        """Makes room for a page of this size, and for margins.

        Raises:
            UsageError: Too large.
        """
        width, height = int(width) + 2 * _MARGIN, int(height) + 2 * _MARGIN
        if width * height > MAX_PIXELS or max(width, height) >= 2**16:
            raise _too_large(f"{width}×{height} pixels")
        self._figure.set_size_inches(width / _PX, height / _PX)

    def draw(self, page: OffsetBox) -> Image.Image:
        """Returns an attached page as a picture, its upper left corner at the margins."""
        with quiet_fonts():
            bounds = page.get_bbox(self._canvas.get_renderer())
            page.set_offset((_MARGIN - bounds.x0, self._figure.bbox.height - _MARGIN - math.ceil(bounds.y1)))
            self._figure.add_artist(page)
            self._canvas.draw()
            page.remove()
        return Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")


def _draw_sheet(head: Sequence[OffsetBox], blocks: Sequence[tuple[str, Sequence[_Cell]]], columns: int) -> Image.Image:
    """Returns a title, and below it blocks of a heading and cells, ``columns`` in a row, all equally wide."""
    parts = [_column(*head)]
    for heading, cells in blocks:
        rows = [_row(*cells[i : i + columns], sep=_GAP, align="bottom") for i in range(0, len(cells), columns)]
        parts.append(_column(*([_text(heading, _TEXT, _BLACK)] if heading else []), _column(*rows, sep=_GAP)))
    canvas = _Canvas()
    page = canvas.attach(_column(*parts, sep=18))
    everything = [cell for _, cells in blocks for cell in cells]
    width = max(canvas.measure(cell)[0] for cell in everything)
    for cell in everything:
        cell.set_cell_width(width)
    canvas.resize(*canvas.measure(page))
    return canvas.draw(page)


def _heading(title: str, details: str) -> list[OffsetBox]:
    lines = ((title, _TITLE, _BLACK), (details, _TEXT, _GREY))
    return [_text(text, size, colour) for text, size, colour in lines if text]


def _legend(polarities: int, saturation: int) -> OffsetBox:
    """The colours of one event to full ink, and what they mean."""
    mixtures = _mix_inks(polarities)
    if polarities == 1:
        strips = [(mixtures[1:], "events")]
    else:
        both = np.arange(1, _LEVELS + 1)
        strips = [(mixtures[0, 1:], "ON (brighter)"), (mixtures[1:, 0], "OFF (darker)"), (mixtures[both, both], "both")]
    parts: list[OffsetBox] = []
    for strip, text in strips:
        colours = strip if saturation > 1 else strip[-1:].repeat(len(strip), 0)
        parts.append(_row(_Pixels(colours[None], (_TEXT, 6), framed=False), _text(text, _TEXT, _GREY)))
    if saturation > 1:
        parts.append(_text(f"faint: 1 event, full: {saturation} or more", _TEXT, _GREY))
    return _row(*parts, sep=24)


def _text(text: str, size: int, colour: str) -> TextArea:
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # fonts refuse bytes that are not UTF-8
    # usetex and parse_math: a user's matplotlibrc and a $ in a name must not turn names into formulas
    style = {"fontsize": size, "color": colour, "family": fonts_for(text), "usetex": False, "parse_math": False}
    return TextArea(text, textprops=style)


def _row(*boxes: OffsetBox, sep: int = 8, align: Literal["center", "bottom"] = "center") -> HPacker:
    return HPacker(pad=0, sep=sep, align=align, children=list(boxes))


def _column(*boxes: OffsetBox, sep: int = 6) -> VPacker:
    return VPacker(pad=0, sep=sep, align="left", children=list(boxes))


def _reduce_colours(picture: Image.Image, polarities: int) -> Image.Image:
    """Returns a picture of at most 256 colours: those of events are kept exactly, the greys of text nearly."""
    if polarities == 1:
        return picture.convert("L")
    greys = np.arange(0, 256, 17).astype(np.uint8)[:, None].repeat(3, 1)
    colours = np.unique(np.concatenate([_mix_inks(polarities).reshape(-1, 3), greys]), axis=0)
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.tobytes())
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def _choose_columns(n: int) -> int:
    """Returns the number of panels in a row for n panels: the fewest that fill every row, if that is not too wide."""
    least = math.ceil(math.sqrt(n))
    return next((c for c in range(least, 2 * least + 1) if n % c == 0), math.ceil(math.sqrt(1.5 * n)))


def _choose_scale(height: int, width: int, target: int) -> int:
    """Returns the enlargement that brings the longer side close to ``target`` pixels."""
    return max(1, target // max(height, width))


def _count_events(counts: np.ndarray) -> str:
    count = int(counts.sum(dtype=np.int64))
    return f"{count:,} event{'' if count == 1 else 's'}"
