"""Logs of other code: TensorBoard's event files, and the CSV files that TensorBoard exports."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from plifctl.errors import DamagedFileError, MissingRawDataError

_CSV = re.compile(r"run-(?P<run>.+)-tag-(?P<tag>.+)\.csv")


@dataclass(frozen=True)
class Series:
    """A scalar, in the order of writing; a resumed training writes steps that were written before.

    Attributes:
        steps: Of training, or epochs.
        values: At each step.
        times: When each was written, seconds since 1970.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]
    times: tuple[float, ...]


@dataclass(frozen=True)
class Log:
    """What one run left in a folder of logs.

    Attributes:
        name: By its folder or files.
        files: Which it was read from.
        series: By tag.
    """

    name: str
    files: tuple[Path, ...]
    series: Mapping[str, Series]

    @property
    def finished(self) -> float:
        """When the last value was written, seconds since 1970."""
        return max(max(series.times) for series in self.series.values())


class _Point(NamedTuple):
    step: int
    value: float
    time: float


def find_logs(folder: Path) -> list[Log]:
    """Returns the runs whose logs lie in a folder or below it, by name.

    Raises:
        MissingRawDataError: There are none.
        DamagedFileError: A file is not what its name says.
    """
    if not folder.is_dir():
        raise MissingRawDataError(f"{folder}: no such folder", hint="name the folder that the logs lie in")
    exported: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted(folder.rglob("*.csv")):
        if match := _CSV.fullmatch(path.name):
            exported.setdefault(match["run"], []).append((match["tag"], path))
    logs = [_exported(name, files) for name, files in exported.items()]
    folders = sorted({path.parent for path in folder.rglob("events.out.tfevents.*")})
    logs += [log for path in folders if (log := _events(path)) is not None]
    if not logs:
        raise MissingRawDataError(
            f"{folder}: neither TensorBoard's event files nor its exports (run-NAME-tag-TAG.csv), or no scalars in them"
        )
    return sorted(logs, key=lambda log: log.name)


def _exported(name: str, files: list[tuple[str, Path]]) -> Log:
    return Log(name, tuple(path for _, path in files), {tag: _ordered(_points(path)) for tag, path in files})


def _points(path: Path) -> list[_Point]:
    """The points of an exported file in its order."""
    points = []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        try:
            if [cell.strip().lower() for cell in next(rows, [])] != ["wall time", "step", "value"]:
                raise ValueError("expected the columns Wall time, Step, Value")
            for row in rows:
                time, step, value = (float(cell) for cell in row)
                if not (step.is_integer() and step >= 0 and math.isfinite(value) and math.isfinite(time)):
                    raise ValueError("expected a whole step and a finite value")
                points.append(_Point(int(step), value, time))
            if not points:
                raise ValueError("no values")
        except (ValueError, csv.Error) as error:
            raise DamagedFileError(f"{path}:{rows.line_num}: {error}") from error
    return points


def _events(folder: Path) -> Log | None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    series = {}
    try:
        accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            points = [_Point(event.step, event.value, event.wall_time) for event in accumulator.Scalars(tag)]
            points = [point for point in points if math.isfinite(point.value) and point.step >= 0]
            if points:
                series[tag] = _ordered(points)
    except Exception as error:  # protobuf and TensorBoard raise nearly anything
        raise DamagedFileError(f"{folder}: TensorBoard cannot read it: {error}") from error
    return Log(folder.name, tuple(sorted(folder.glob("events.out.tfevents.*"))), series) if series else None


def _ordered(points: list[_Point]) -> Series:
    steps, values, times = zip(*sorted(points, key=lambda point: point.time), strict=True)
    return Series(steps, values, times)
