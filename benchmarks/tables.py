"""Tables of the figures in benchmarks' JSON documents, for the terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Entry = dict[str, Any]
"""A figure as :meth:`benchmarks.measure.Figure.to_json` gives it."""


class TextTable(NamedTuple):
    """A table of texts.

    Attributes:
        title: What the table shows.
        columns: Headings.
        rows: Cells.
        note: What does not fit into the columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


_DISTURBED = 1.2
"""Ratio of the longest and the shortest of times that should be equal, from which on both are shown."""

ONE_RECORDING = "one recording in evaluation"
"""Part of a benchmark of shares that is no part of a step."""

_COLUMNS = {
    "forward": ("forward",),
    "grad. W": ("weight gradient",),
    "grad. x": ("input gradient",),
    "scan": ("scan forward", "scan backward"),
    "norm": ("norm statistics",),
}
"""Columns of the tables of shares, and the parts of a step that each is the sum of."""


def share_tables(figures: Sequence[Entry]) -> Iterator[TextTable]:
    """Yields two tables for each network: its training step all dense, and with event-driven layers."""
    for network in dict.fromkeys(figure["labels"]["network"] for figure in figures):
        found = {
            (figure["labels"].get("layer"), figure["labels"]["part"]): figure
            for figure in figures
            if figure["labels"]["network"] == network
        }
        yield _share_table(network, found, "dense")
        yield _share_table(network, found, "event-driven")


def _share_table(
    network: str, found: dict[tuple[str | None, str], Entry], step: Literal["dense", "event-driven"]
) -> TextTable:
    def milliseconds(figure: Entry) -> float:
        dense = step == "dense" or figure["labels"].get("chosen") == "dense"
        return 1e3 * float((figure["peer"] if dense and figure["peer"] else figure["ours"])["median"])

    whole = milliseconds(found[None, "step"])

    def cell(layer: str | None, *parts: str) -> str:
        times = [milliseconds(found[layer, part]) for part in parts if (layer, part) in found]
        return f"{_number(sum(times))} ({100 * sum(times) / whole:.1f})" if times else ""

    rows = []
    for layer in dict.fromkeys(name for name, _ in found if name is not None):
        labels = found[layer, "forward"]["labels"]
        name = layer + (" *" if step == labels["chosen"] == "event-driven" else "")
        cells = [cell(layer, *parts) for parts in _COLUMNS.values()]
        rows.append([name, f"{100 * labels['active_inputs']:.1f}", *cells])
    what = "all layers dense" if step == "dense" else "layers marked * event-driven, as auto takes them"
    others = ("step", "rest", ONE_RECORDING)
    rest = whole - sum(milliseconds(figure) for (_, part), figure in found.items() if part not in others)
    return TextTable(
        f"{network}, {what}: ms (% of the training step). {found[None, 'step']['note']}",
        ("layer", "active %", *_COLUMNS),
        rows,
        f"optimizer {cell(None, 'optimizer')}, rest {_number(rest)} ({100 * rest / whole:.1f}), "
        f"step {_number(whole)} ms" + _one_recording(found.get((None, ONE_RECORDING)), step),
    )


def _one_recording(figure: Entry | None, step: Literal["dense", "event-driven"]) -> str:
    if figure is None:
        return ""
    ratio = "" if step == "dense" else f", {_ratio(figure)} of the time with all layers dense"
    return f"; {ONE_RECORDING} {_number(1e3 * figure['peer' if step == 'dense' else 'ours']['median'])} ms{ratio}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def layer_tables(figures: Sequence[Entry]) -> Iterator[TextTable]:
    """Yields a table of layers by share of active inputs, for forward and for the gradient of the weights."""
    own = [figure for figure in figures if figure["labels"]["peer"] == "dense" and "active_inputs" in figure["labels"]]
    for part in dict.fromkeys(figure["labels"]["part"] for figure in own):
        found = {
            (figure["labels"]["layer"], figure["labels"]["active_inputs"]): figure
            for figure in own
            if figure["labels"]["part"] == part
        }
        densities = sorted({density for _, density in found})
        rows = []
        for layer in dict.fromkeys(name for name, _ in found):
            row = [found.get((layer, density)) for density in densities]
            dense = _times([1e3 * figure["peer"]["median"] for figure in row if figure])
            rows.append([layer, dense, *(_ratio(figure) if figure else "" for figure in row)])
        yield TextTable(part, ("layer", "dense", *(f"{density:.0%}" for density in densities)), rows, "")


def _times(milliseconds: Sequence[float]) -> str:
    """Returns the median of times that should be equal; least and most, if they are not: the machine was disturbed."""
    least, most = min(milliseconds), max(milliseconds)
    if most > _DISTURBED * least:
        return f"{least:.3g}–{most:.3g} ms"
    return f"{np.median(milliseconds):.3g} ms"


def input_table(figures: Sequence[Entry]) -> TextTable:
    """Returns the table of the gradients of inputs, which are dense whatever fires."""
    rows = [
        [
            figure["labels"]["layer"],
            f"{1e3 * figure['peer']['median']:.3g} ms",
            f"{1e3 * figure['ours']['median']:.3g} ms",
            _ratio(figure),
        ]
        for figure in figures
        if figure["labels"]["part"] == "input gradient"
    ]
    return TextTable("", ("layer", "torch", "ours", "ratio"), rows, "")


def library_table(figures: Sequence[Entry]) -> TextTable:
    """Returns the table of layers beside those of other libraries."""
    rows = [
        [
            figure["labels"]["layer"],
            f"{figure['labels']['active_inputs']:.0%}",
            f"{1e3 * figure['ours']['median']:.3g} ms",
            f"{1e3 * figure['peer']['median']:.3g} ms, {figure['peer_name']}",
            _ratio(figure),
        ]
        for figure in figures
        if figure["labels"]["peer"] != "dense"
    ]
    return TextTable("", ("layer", "active", "ours", "other", "ratio"), rows, "")


def _ratio(figure: Entry) -> str:
    return f"{figure['ratio']['median']:.2f}"
