"""How figures look, and how they are written: column width, small type, colours that everybody can tell apart."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from plifctl import files
from plifctl.errors import UsageError

FORMATS = ("png", "svg", "pdf")
SINGLE, DOUBLE = 3.35, 6.9
"""Width of one column and of two, inches."""

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#B8A800", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
COLOURS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK, YELLOW)
"""Okabe and Ito's, told apart by people who see few colours; yellow is darker than theirs, to be seen on white."""

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
    "svg.hashsalt": "plifctl",  # else its ids are others each time
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}


@contextmanager
def styled() -> Iterator[None]:
    """Figures that are made and written inside look as ours do; the caller's settings stay as they are."""
    with mpl.rc_context():
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


def stacked(figure: Figure, *heights: float) -> list[SubFigure]:
    """Returns parts of a figure, one below the other.

    Args:
        figure: Empty.
        heights: How they share its height.
    """
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    return list(np.asarray(parts)[:, 0])


def letter(axes: Axes, index: int, title: str) -> None:
    """Names a panel as the paper does, by (a), (b) and so on."""
    axes.set_title(f"({chr(ord('a') + index)}) {title}", loc="left")


def save_figure(figure: Figure, path: Path, caption: str) -> None:
    """Writes a figure, whole or not at all, without dates.

    Args:
        figure: What is drawn.
        path: Its ending says the format, png, svg or pdf.
        caption: Goes into the file, for whoever finds it without its text.

    Raises:
        UsageError: The ending is none of these.
        MachineError: It cannot be written there.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise UsageError(f"{path}: figures end in .png, .svg or .pdf")
    nobody = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
    told = {"png": "Description", "svg": "Description", "pdf": "Subject"}[form]
    whole = io.BytesIO()
    figure.savefig(whole, format=form, metadata={**nobody[form], told: caption})
    with files.atomic_write(path) as temporary:
        temporary.write_bytes(whole.getbuffer())
