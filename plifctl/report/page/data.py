"""The data of the page, as one JSON document."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plifctl.report.render import is_numeric, marked_texts
from plifctl.report.table import Table
from plifctl.runs import Curve, SpikeRecording

MAX_SAMPLES, MAX_CHANNELS = 10, 16
"""Recorded samples, and channels of a layer, that the page embeds; more would make it large."""


@dataclass(frozen=True)
class RunFacts:
    """Data of a run for the page.

    Attributes:
        curve: Metrics by epoch; None if its files are damaged.
        name: Name of the run.
        status: Status of the run, or ``record``, ``imported`` or ``added``.
        title: Title of its experiment; empty if unknown.
        settings: Value and origin of each setting.
        environment: Versions and machine.
        spikes: Recorded spikes, if any.
    """

    curve: Curve | None
    name: str
    status: str
    title: str = ""
    settings: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    spikes: SpikeRecording | None = None


def build_page_data(tables: Sequence[Table], runs: Sequence[RunFacts], version: str) -> dict[str, Any]:
    """Returns the document that the page shows.

    Args:
        tables: The report's tables.
        runs: The runs, in the order of the list.
        version: Version of plifctl.
    """
    return {
        "version": version,
        "tables": [_table(table) for table in tables],
        "runs": [_run(run) for run in runs],
        "samples": [_samples(run.name, run.spikes) for run in runs if run.spikes is not None],
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "caption": table.caption,
        "source": table.source,
        "columns": list(table.columns),
        "numeric": [is_numeric(table, index) for index in range(len(table.columns))],
        "rows": [[marked_texts(cell) for cell in row] for row in table.cells],
        "notes": [list(note) for note in table.notes.items()],
        "warnings": list(table.warnings),
    }


def _run(run: RunFacts) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "name": run.name,
        "status": run.status,
        "title": run.title,
        "settings": [[key, _text(value), origin] for key, (value, origin) in run.settings.items()],
        "environment": [[key, _text(value)] for key, value in run.environment.items()],
    }
    curve = run.curve
    if curve is None:
        return {**tree, "origin": "trained", "epochs": [], "series": {}, "layers": [], "tau": [], "distribution": {}}
    return {
        **tree,
        "origin": curve.origin,
        "experiment": curve.experiment,
        "recipe": curve.recipe,
        "protocol": curve.protocol,
        "T": curve.T,
        "seed": curve.seed,
        "epochs": list(curve.epochs),
        "series": {name: _round(values) for name, values in curve.series.items()},
        "layers": list(curve.layers),
        "tau": [_round(values) for values in curve.tau],
        "distribution": {
            layer: [None if row is None else _round(row["quantiles"]) for row in rows]
            for layer, rows in curve.w_over_tau.items()
        },
    }


def _samples(name: str, recording: SpikeRecording) -> dict[str, Any]:
    count = min(len(recording.sample_ids), MAX_SAMPLES)
    layers = {layer: spikes[:count] for layer, spikes in recording.spikes.items()}
    return {
        "run": name,
        "classes": list(recording.classes),
        "ids": list(recording.sample_ids[:count]),
        "empty": [not inputs.any() for inputs in recording.inputs[:count]],
        "labels": recording.labels[:count].tolist(),
        "left_out": len(recording.sample_ids) - count,
        "T": int(recording.votes.shape[1]),
        "votes": np.round(recording.votes[:count].astype(np.float64), 2).tolist(),
        "input": _frames(recording.inputs[:count]),
        "layers": [_layer(layer, spikes) for layer, spikes in layers.items()],
    }


def _frames(inputs: np.ndarray) -> dict[str, Any]:
    """Returns grey images, one byte per pixel; of events, the counts of both polarities, scaled to 255."""
    grey = inputs.sum(2) if inputs.shape[2] == 2 else inputs.mean(2)
    maximum = max(int(grey.max(initial=0)), 1)
    pixels = np.round(grey * (255 / maximum)).astype(np.uint8)
    return {"shape": list(pixels.shape), "bytes": base64.b64encode(pixels.tobytes()).decode()}


def _layer(name: str, spikes: np.ndarray) -> dict[str, Any]:
    """Returns the spikes of the most active channels, one bit each; a fully connected layer becomes one image."""
    if spikes.ndim == 3:
        width = next(n for n in range(int(np.sqrt(spikes.shape[2])), 0, -1) if spikes.shape[2] % n == 0)
        spikes = spikes.reshape(*spikes.shape[:2], 1, width, -1)
    most_active = np.argsort(-spikes.mean((0, 1, 3, 4)), kind="stable")[:MAX_CHANNELS]
    channels = np.sort(most_active)
    kept = spikes[:, :, channels]
    return {
        "name": name,
        "channels": channels.tolist(),
        "of": int(spikes.shape[2]),
        "shape": list(kept.shape),
        "bits": base64.b64encode(np.packbits(kept).tobytes()).decode(),
    }


def _round(values: Sequence[float | None]) -> list[float | None]:
    """Returns values with five digits, enough for a screen; None for NaN and infinity."""
    return [None if value is None or not np.isfinite(value) else float(f"{value:.5g}") for value in values]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
