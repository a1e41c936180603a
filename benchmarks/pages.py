"""Parts of the documentation that are made of benchmarks' JSON documents; ``docs/make_tables.py`` puts them in.

A part of a page without its document is empty: the page has no figure that was not measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.tables import TextTable, input_table, layer_tables, library_table, share_tables

RESULTS = Path(__file__).parent / "results"
"""Folder of the documents: ``python -m benchmarks.NAME --json > benchmarks/results/NAME.json``."""

PICTURE = "images/event-driven.svg"
"""Path of the picture in ``docs/``."""


def block(name: str) -> str:
    """Returns the Markdown of one part of a page, empty if its document does not exist.

    Raises:
        KeyError: There is no such part.
    """
    source, render = _BLOCKS[name]
    paths = [path for part in source.split() if (path := RESULTS / f"{part}.json").exists()]
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return render(*documents) if documents else ""


def draw_picture(path: Path) -> None:
    """Draws time against the share of active inputs, if it was measured.

    Args:
        path: The file.
    """
    source = RESULTS / "event_driven.json"
    if source.exists():
        from benchmarks.picture import draw

        draw(json.loads(source.read_text(encoding="utf-8"))["figures"], path)


def _picture(_: dict[str, Any]) -> str:
    return (
        "![Time of layers against the share of active inputs, as a multiple of the dense layer's time; left: forward, "
        f"right: gradient of the weights]({PICTURE})\n"
    )


def _layers(document: dict[str, Any]) -> str:
    pairs = min(figure["ratio"]["n"] for figure in document["figures"])
    lines = [
        "## Time of a layer",
        "",
        "Inputs are random spikes; the columns are shares of active inputs. A cell is the time divided by that of",
        f"torch's dense layer on the same input: the median of at least {pairs} interleaved pairs.",
    ]
    for table in layer_tables(document["figures"]):
        lines += ["", _TITLES[table.title], "", *_markdown(table)]
    return _text([*lines, "", _measured(document)])


_TITLES = {
    "forward": "Forward, finding the active inputs included, event-driven or dense as `auto` chooses:",
    "weight gradient": "The gradient of the weights, always event-driven:",
}


def _inputs(document: dict[str, Any]) -> str:
    lines = [
        "## The gradient of the input",
        "",
        "It is dense whatever fires: by Winograd's algorithm where the shape decides for it, else torch's.",
    ]
    return _text([*lines, "", *_markdown(input_table(document["figures"])), "", _measured(document)])


def _libraries(document: dict[str, Any]) -> str:
    table = library_table(document["figures"])
    lines = [
        "## Beside other libraries",
        "",
        "The output of one layer. brainevent gets the spikes in the array type that it works on, and uses the threads",
        "of JAX.",
    ]
    return _text([*lines, "", *_markdown(table), "", _measured(document)]) if table.rows else ""


def _shares(document: dict[str, Any]) -> str:
    lines = [
        "## Where a training step spends its time",
        "",
        "Each part was timed alone, on the tensors that it has in the step. *grad. W* is the gradient of the weights,",
        "*grad. x* that of the input, *scan* the neurons with pooling and batch norm in both directions, *norm* the",
        "statistics of batch norm.",
    ]
    for table in share_tables(document["figures"]):
        title = table.title.replace("*", r"\*")
        lines += ["", f"**{title}**", "", *_markdown(table), "", table.note]
    return _text([*lines, "", _measured(document)])


def _training(*documents: dict[str, Any]) -> str:
    rows = [
        (
            f"{figure['name']}, compared with {figure['peer_name']}",
            *(_quantity(figure[side]["median"], figure["unit"]) for side in ("ours", "peer")),
            "{median:.2f} ({q1:.2f}–{q3:.2f})".format(**figure["ratio"]),
            (figure["target"] or "–").replace("<=", "≤"),
        )
        for document in documents
        for figure in document["figures"]
        if figure["ratio"] is not None
    ]
    measured = dict.fromkeys(map(_measured, documents))
    return _text([*_markdown(TextTable("", ("work", "ours", "peer", "ratio", "target"), rows, "")), "", *measured])


def _formats(document: dict[str, Any]) -> str:
    rows = [
        (
            figure["labels"]["format"],
            f"{figure['labels']['bytes'] / figure['labels']['events']:.1f}",
            f"{figure['labels']['events'] / figure['ours']['median'] / 1e6:.1f}",
            f"{figure['labels']['bytes'] / figure['ours']['median'] / 1e6:,.0f}",
        )
        for figure in document["figures"]
    ]
    columns = ("format", "bytes per event", "million events/s", "MB/s")
    return _text([*_markdown(TextTable("", columns, rows, "")), "", _measured(document)])


def _readers(document: dict[str, Any]) -> str:
    rows = []
    for figure in document["figures"]:
        peer, ratio = figure["peer"], figure["ratio"]
        rows.append(
            (
                figure["name"].removeprefix("decode "),
                _quantity(figure["ours"]["median"], figure["unit"]),
                f"{_quantity(peer['median'], figure['unit'])}, {figure['peer_name']}" if peer else "–",
                "{median:.2f} ({q1:.2f}–{q3:.2f})".format(**ratio) if ratio else "–",
                (figure["target"] or "–").replace(">=", "≥"),
            )
        )
    table = TextTable("", ("recording", "ours", "peer", "ratio", "target"), rows, "")
    lines = [
        "## Decoders beside other readers",
        "",
        "From the file to arrays, one thread, beside independent readers that give the same events.",
    ]
    return _text([*lines, "", *_markdown(table), "", _measured(document)])


def _quantity(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms"
    return f"{value:,.0f} {unit}"


def _measured(document: dict[str, Any]) -> str:
    machine, versions = document["hardware"], document["versions"]
    software = ", ".join(f"{name} {versions[name]}" for name in ("torch", "numba", "python", "plifctl"))
    quick = ", with few repetitions" if document["quick"] else ""
    return (
        f"Measured ({document['benchmark']}{quick}) on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_GiB']} GiB; {software}."
    )


def _markdown(table: TextTable) -> list[str]:
    rows: Iterable[Any] = [table.columns, ["---", *["--:"] * (len(table.columns) - 1)], *table.rows]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


_BLOCKS: dict[str, tuple[str, Callable[..., str]]] = {
    "picture": ("event_driven", _picture),
    "layers": ("event_driven", _layers),
    "inputs": ("event_inputs", _inputs),
    "libraries": ("event_libraries", _libraries),
    "shares": ("shares", _shares),
    "formats": ("formats", _formats),
    "readers": ("prepare_readers", _readers),
    "training": ("train_nmnist train_fashion train_gesture train_memory train_inference", _training),
}
"""Parts of pages by name: the documents that each needs, and the function that renders them."""
