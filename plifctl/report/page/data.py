"""The data of the page, as one JSON document.

The document lists the runs with what their table shows. Curves and spikes are its ``parts``, each under the digest of
its content: the file contains them all, and a live page fetches those that it draws. A series of numbers is packed into
16 bits a value, and read when it is drawn (``series.js``).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.overrides import override_key
from plifctl.report.render import is_numeric, marked_texts
from plifctl.report.results import SOURCES
from plifctl.report.table import Table
from plifctl.runs import Curve, RunAccuracy, SpikeRecording, logged_accuracies
from plifctl.runs.spikes import grey_inputs
from plifctl.units import format_setting

MAX_SAMPLES, MAX_CHANNELS, MAX_DISTRIBUTIONS = 10, 16, 128
"""Recorded samples, channels of a layer, and epochs of W/τ that the page embeds; more would make it large."""

_STEPS = 65534
"""A packed series has whole numbers from 0, its minimum, to this, its maximum; the next number means no value."""

_ACCURACY_STEPS = 60_000
"""Steps from an accuracy of 0 to 1: six for each 0.01 %."""

_SEED = "train.seed"


@dataclass(frozen=True)
class RunFacts:
    """Data of a run for the page.

    Attributes:
        curve: Metrics by epoch; None if its files are damaged.
        name: Name of the run.
        status: Status of the run, or ``shipped``, ``imported`` or ``added``.
        spec: Its experiment; None if unknown.
        changes: How the experiment differs from that of its name.
        accuracy: The accuracy that ``plifctl runs`` shows; None: there is none.
        settings: Value and origin of each setting.
        environment: Versions and machine.
        planned: Number of epochs that the training has when it ends; None if unknown.
        spikes: Recorded spikes, if any.
    """

    curve: Curve | None
    name: str
    status: str
    spec: ExperimentSpec | None = None
    changes: tuple[str, ...] = ()
    accuracy: RunAccuracy | None = None
    settings: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    planned: int | None = None
    spikes: SpikeRecording | None = None


@dataclass(frozen=True)
class PageRun:
    """A run as the page has it, which takes much less memory than its curve.

    Attributes:
        entry: What the list of runs shows, JSON.
        settings: Key, value and origin of each setting.
        environment: Key and value of each fact on the machine.
        parts: Curve and spikes by their digests, JSON.
    """

    entry: dict[str, Any]
    settings: tuple[tuple[str, str, str], ...]
    environment: tuple[tuple[str, str], ...]
    parts: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page.

    Attributes:
        name: ``1b``, ``2`` and so on.
        caption: Content of the figure.
        svg: The picture.
    """

    name: str
    caption: str
    svg: bytes


def build_page_data(
    tables: Sequence[Table], runs: Sequence[PageRun], version: str, figures: Sequence[PageFigure] = ()
) -> dict[str, Any]:
    """Returns the document that the page shows.

    Args:
        tables: The report's tables.
        runs: The runs, in the order of the list.
        version: Version of plifctl.
        figures: The report's figures.
    """
    facts: dict[tuple[str, ...], int] = {}  # runs share most of their settings, which are listed once

    def numbers(rows: Iterable[tuple[str, ...]]) -> list[int]:
        return [facts.setdefault(row, len(facts)) for row in rows]

    entries = [
        {**run.entry, "settings": numbers(run.settings), "environment": numbers(run.environment)} for run in runs
    ]
    return {
        "version": version,
        "tables": [_table(table) for table in tables],
        "figures": [_figure(figure) for figure in figures],
        "runs": entries,
        "facts": [list(row) for row in facts],
        "parts": {digest: part for run in runs for digest, part in run.parts.items()},
    }


def page_run(facts: RunFacts) -> PageRun:
    """Returns a run as the page has it."""
    curve, spec = facts.curve, facts.spec
    settings = tuple((key, format_setting(value), origin) for key, (value, origin) in facts.settings.items())
    fold = None if curve is None else curve.fold
    parts: dict[str, dict[str, Any]] = {}
    entry: dict[str, Any] = {
        "name": facts.name,
        "status": facts.status,
        "whose": "mine" if curve is None else SOURCES[curve.origin],
        "title": "" if spec is None else _title(spec, facts.changes),
        "neuron": None if spec is None else [spec.neuron.kind, spec.neuron.start_tau],
        "epochs": 0,
        "planned": facts.planned,
        "hours": None,
        "fold": None if fold is None else f"fold {fold.number}",
        "subset": curve is not None and curve.subset,
        "changes": sorted(facts.changes),
        "sweeps": [],
        "curve": None,
        "spikes": None if facts.spikes is None else _add(parts, _spikes(facts.spikes)),
    }
    if curve is not None:
        known = {name: getattr(curve, name) for name in ("experiment", "recipe", "protocol", "T", "seed")}
        entry |= known | {"epochs": max(curve.epochs, default=0)}
        seconds = [value for value in curve.series.get("seconds", ()) if value is not None]
        entry["hours"] = round(sum(seconds) / 3600, 4) if seconds else None
        result = None if facts.accuracy is None else asdict(facts.accuracy)
        entry |= {"result": result, "last": _last(curve), "curve": _add(parts, _curve(curve))}
        shared = [row[:2] for row in settings if row[0] != _SEED]
        entry["versions"] = list(curve.training_versions)
        entry["setting"] = _digest([str(curve.setting), shared])[:8]
    environment = tuple((key, format_setting(value)) for key, value in facts.environment.items())
    return PageRun(entry, settings, environment, parts)


def _title(spec: ExperimentSpec, changes: Sequence[str]) -> str:
    """Returns the title of an experiment; of one whose neuron was changed, with its own neuron."""
    if not any(override_key(text).startswith("neuron.") for text in changes):
        return spec.title
    return f"{spec.dataset.title}, {spec.neuron.describe()}"


def _last(curve: Curve) -> dict[str, Any] | None:
    """Returns the accuracy of the last epoch that has one."""
    of, known = logged_accuracies(curve)
    return {"value": known[max(known)], "epoch": max(known), "of": of} if known else None


def _add(parts: dict[str, dict[str, Any]], part: dict[str, Any]) -> str:
    digest = _digest(part)
    parts[digest] = part
    return digest


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree).encode()).hexdigest()[:16]


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


def _figure(figure: PageFigure) -> dict[str, Any]:
    source = f"data:image/svg+xml;base64,{base64.b64encode(figure.svg).decode()}"
    return {"name": figure.name, "caption": figure.caption, "source": source}


def _curve(curve: Curve) -> dict[str, Any]:
    consecutive = curve.epochs == tuple(range(1, len(curve.epochs) + 1))
    return {
        "epochs": len(curve.epochs) if consecutive else list(curve.epochs),
        "series": {
            name: (pack_accuracies if name.endswith("_accuracy") else pack_series)(values)
            for name, values in curve.series.items()
        },
        "tau": {layer: pack_series(values) for layer, values in zip(curve.layers, curve.tau, strict=True)},
        "distributions": {layer: _distributions(curve.epochs, rows) for layer, rows in curve.w_over_tau.items()},
    }


def _distributions(epochs: Sequence[int], rows: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Returns epochs, evenly chosen, and each quantile of W/τ at them."""
    known = [(epoch, row["quantiles"]) for epoch, row in zip(epochs, rows, strict=True) if row is not None]
    count = min(len(known), MAX_DISTRIBUTIONS)
    chosen = [known[index] for index in np.linspace(0, len(known) - 1, count).round().astype(int)]
    quantiles = zip(*(values for _, values in chosen), strict=True)
    return {"epochs": [epoch for epoch, _ in chosen], "quantiles": [pack_series(values) for values in quantiles]}


def pack_series(values: Sequence[float | None]) -> Any:
    """Returns a series for JSON: None without values, a number if all are equal, else minimum, maximum and base64.

    The text has a 16-bit number for each value, least significant byte first: 0 is the minimum, 65534 the maximum, and
    65535 no value, NaN or infinity. A value is exact to 1/131068 of the range.

    Args:
        values: A value for each epoch.

    Example:
        >>> pack_series([0.5, 0.5]), pack_series([0.0, None, 1.0])
        (0.5, [0.0, 1.0, 'AAD///7/'])
    """
    numbers, known = _numbers(values)
    if not known.any():
        return None
    low, high = float(numbers[known].min()), float(numbers[known].max())
    if low == high and known.all():
        return low
    return _packed(np.round((numbers - low) / ((high - low) or 1) * _STEPS), known, low, high)


def pack_accuracies(values: Sequence[float | None]) -> Any:
    """Returns fractions as :func:`pack_series` does, but so that in percent all have the right two decimals.

    The steps are a sixth of 0.01 %, and a value is read as the middle of its step, which no rounding divides.

    Args:
        values: A value from 0 to 1 for each epoch.
    """
    numbers, known = _numbers(values)
    if not known.any():
        return None
    low = 0.5 / _ACCURACY_STEPS
    printed = 6 * np.round(10_000 * numbers)  # of a tie, the even one, as Python prints it
    steps = np.clip(np.floor(numbers * _ACCURACY_STEPS), printed - 3, printed + 2)
    return _packed(steps, known, low, low + _STEPS / _ACCURACY_STEPS)


def _numbers(values: Sequence[float | None]) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    return numbers, np.isfinite(numbers)


def _packed(steps: np.ndarray, known: np.ndarray, low: float, high: float) -> list[Any]:
    whole = np.full(len(steps), _STEPS + 1, "<u2")
    whole[known] = steps[known]
    return [low, high, base64.b64encode(whole.tobytes()).decode()]


def _spikes(recording: SpikeRecording) -> dict[str, Any]:
    count = min(len(recording.sample_ids), MAX_SAMPLES)
    layers = {layer: spikes[:count] for layer, spikes in recording.spikes.items()}
    return {
        "classes": list(recording.classes),
        "ids": list(recording.sample_ids[:count]),
        "empty": [not inputs.any() for inputs in recording.inputs[:count]],
        "labels": recording.labels[:count].tolist(),
        "left_out": len(recording.sample_ids) - count,
        "saved_after": recording.saved_after,
        "T": int(recording.votes.shape[1]),
        "votes": np.round(recording.votes[:count].astype(np.float64), 6).tolist(),
        "input": _frames(recording.inputs[:count]),
        "layers": [_layer(layer, spikes) for layer, spikes in layers.items()],
    }


def _frames(inputs: np.ndarray) -> dict[str, Any]:
    """Returns inputs ``[N, T, C, H, W]`` in greyscale, one byte per pixel: the largest is 255."""
    grey = grey_inputs(inputs)
    maximum = max(float(grey.max(initial=0)), 1.0)
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
