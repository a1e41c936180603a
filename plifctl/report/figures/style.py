"""Style of figures: column width, small type, colours for all kinds of colour vision; and writing them to files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text

from plifctl import files
from plifctl.errors import UsageError
from plifctl.report.fonts import fonts_for, quiet_fonts
from plifctl.units import letters

FORMATS = ("png", "svg", "pdf")
SINGLE, DOUBLE = 3.35, 6.9
"""Width of one and of two columns, in inches."""

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#B8A800", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
COLOURS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK, YELLOW)
"""Colours of Okabe and Ito, for all kinds of colour vision; yellow is darker than theirs, to be visible on white."""

_CHARACTERS_PER_INCH = 15  # of a panel's title, beside the numbers of its axis
_LEGEND_CHARACTERS = 52
"""Length of a line of a legend that fits one column, with its sample."""

_STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "svg.hashsalt": "plifctl",  # makes its ids reproducible
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Applies the style to figures that are made and written in the block; does not change the caller's settings."""
    with mpl.rc_context(), quiet_fonts():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure.

    Args:
        width: Inches.
        height: Inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


def panel_grid(
    count: int, height: float, *, columns: int = 2, width: float | None = None, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Returns a new figure and its panels, row by row.

    Args:
        count: Number of panels, at least one.
        height: Inches of a row.
        columns: Panels in a row.
        width: Inches of the figure; None: one column for a single panel, two for several.
        sharey: Whether all panels have the same vertical axis.
    """
    rows = -(-count // columns)
    figure = new_figure(width or (DOUBLE if count > 1 else SINGLE), height * rows)
    grid = figure.subplots(rows, min(columns, count), squeeze=False, sharey=sharey)
    for axes in grid.flat[count:]:
        axes.remove()
    return figure, list(grid.flat[:count])


def stack_parts(figure: Figure, *heights: float) -> list[SubFigure]:
    """Returns parts of a figure below each other.

    Args:
        figure: An empty figure.
        heights: Relative heights.
    """
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    return list(np.asarray(parts)[:, 0])


def letter(axes: Axes, index: int, title: str) -> None:
    """Sets the title of a panel as in the paper: (a), (b) and so on; one longer than the panel has several lines."""
    figure, place = axes.get_figure(root=True), axes.get_subplotspec()
    assert figure is not None
    columns = 1 if place is None else place.get_gridspec().ncols
    characters = int(figure.get_figwidth() / columns * _CHARACTERS_PER_INCH)
    axes.set_title(textwrap.fill(f"({letters(index)}) {title}", characters), loc="left")


def add_legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], *, columns: int = 4) -> None:
    """Adds a legend below a figure, in as many columns as fit its width; the figure grows by the legend's height.

    Args:
        figure: The figure.
        handles: Drawn samples.
        labels: A label for each, any text: no formulas.
        columns: Largest number of columns.
    """
    wrapped = [verbatim(textwrap.fill(label, _LEGEND_CHARACTERS, break_long_words=False)) for label in labels]
    for number in range(min(columns, len(wrapped)), 0, -1):
        legend = figure.legend(handles, wrapped, loc="outside lower center", ncols=number)
        _set_fonts(legend)
        extent = legend.get_window_extent()
        if number == 1 or extent.width <= 0.98 * figure.bbox.width:
            figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)
            return
        legend.remove()


def _set_fonts(drawn: Artist) -> None:
    """Gives texts whose characters the usual font lacks the fonts that have them."""
    for text in drawn.findobj(Text):
        if len(families := fonts_for(text.get_text())) > 1:
            text.set_fontfamily(families)


def verbatim(text: str) -> str:
    """Returns a user's text as matplotlib shows it unchanged: a ``$`` in it does not begin a formula."""
    return text.replace("$", r"\$")


def check_format(path: Path) -> str:
    """Returns the format of a figure by the ending of its file.

    Raises:
        UsageError: It is none of png, svg and pdf.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise UsageError(f"{path}: unknown format of figures", hint="end the name in .pdf, .svg or .png")
    return form


def save_figure(figure: Figure, path: Path, caption: str) -> None:
    """Writes a figure atomically, without dates, so that the same figure gives the same bytes.

    Args:
        figure: The figure.
        path: The file; its ending is the format: png, svg or pdf.
        caption: Written into the metadata of the file.

    Raises:
        UsageError: The ending is none of these.
        MachineError: The file cannot be written.
    """
    form = check_format(path)
    undated: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None},
    }
    field = {"png": "Description", "svg": "Description", "pdf": "Subject"}[form]
    _set_fonts(figure)
    content = io.BytesIO()
    figure.savefig(content, format=form, metadata={**undated[form], field: caption})
    with files.atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())
