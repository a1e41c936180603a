"""Tables of the figures in benchmarks' JSON documents, for the terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

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
        return f"{sum(times):,.3g} ({100 * sum(times) / whole:.1f})" if times else ""

    rows = []
    for layer in dict.fromkeys(name for name, _ in found if name is not None):
        labels = found[layer, "forward"]["labels"]
        name = layer + (" *" if step == labels["chosen"] == "event-driven" else "")
        cells = [cell(layer, *parts) for parts in _COLUMNS.values()]
        rows.append([name, f"{100 * labels['active_inputs']:.1f}", *cells])
    what = "all layers dense" if step == "dense" else "layers marked * event-driven, as auto takes them"
    rest = whole - sum(milliseconds(figure) for (_, part), figure in found.items() if part not in ("step", "rest"))
    return TextTable(
        f"{network}, {what}: ms (% of the training step). {found[None, 'step']['note']}",
        ("layer", "active %", *_COLUMNS),
        rows,
        f"optimizer {cell(None, 'optimizer')}, rest {rest:,.3g} ({100 * rest / whole:.1f}), step {whole:,.4g} ms",
    )
