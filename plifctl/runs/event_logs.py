"""Logs of other code: TensorBoard's event files, and the CSV files that TensorBoard exports."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from plifctl.errors import DamagedFileError, MissingRawDataError

_log = logging.getLogger(__name__)

_END_OF_TIME = 1e11  # seconds since 1970; clocks of some systems end there
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
        if path.is_file() and (match := _CSV.fullmatch(path.name)):
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
    by_tag: dict[str, Path] = {}
    for tag, path in files:
        if (other := by_tag.setdefault(tag, path)) != path and other.read_bytes() != path.read_bytes():
            raise DamagedFileError(f"{path}: and {other} say otherwise of the same run", hint="import them one by one")
    return Log(name, tuple(by_tag.values()), {tag: _ordered(_points(path)) for tag, path in by_tag.items()})


def _points(path: Path) -> list[_Point]:
    """The points of an exported file in its order."""
    points = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        try:
            if [cell.strip().lower() for cell in next(rows, [])] != ["wall time", "step", "value"]:
                raise ValueError("expected the columns Wall time, Step, Value")
            for row in rows:
                if not row:
                    continue  # an empty line
                if len(row) != 3:
                    raise ValueError(f"expected 3 values, found {len(row)}")
                time, step, value = (float(cell) for cell in row)
                if not (step.is_integer() and step >= 0 and math.isfinite(value) and 0 <= time < _END_OF_TIME):
                    raise ValueError("expected seconds since 1970, a whole step, and a finite value")
                points.append(_Point(int(step), value, time))
            if not points:
                raise ValueError("no values")
        except (ValueError, csv.Error) as error:
            raise DamagedFileError(f"{path}:{rows.line_num}: {error}") from error
    return points


def _events(folder: Path) -> Log | None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = tuple(sorted(folder.glob("events.out.tfevents.*")))
    series = {}
    for path in files:
        _check_records(path)
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
    return Log(folder.name, files, _by_epoch(series)) if series else None


def _check_records(path: Path) -> None:
    """Raises where a record is damaged: TensorBoard itself stops there in silence, and the rest would be missing."""
    from tensorboard.compat.tensorflow_stub import errors, pywrap_tensorflow

    reader, count = pywrap_tensorflow.PyRecordReader_New(str(path)), 0
    try:
        while True:
            reader.GetNext()
            count += 1
    except errors.OutOfRangeError:
        return
    except errors.DataLossError as error:
        if "truncated" not in str(error) or not count:
            raise DamagedFileError(f"{path}: record {count + 1} is damaged, or this is no event file") from error
        _log.warning("%s: ends within record %d, which a training that was killed may leave", path, count + 1)


def _by_epoch(series: dict[str, Series]) -> dict[str, Series]:
    """Puts epochs in place of training steps where the log says which epoch each step was, as Lightning's do."""
    if "epoch" not in series:
        return series
    epochs = {step: int(value) for step, value in zip(series["epoch"].steps, series["epoch"].values, strict=True)}
    return {
        tag: Series(tuple(epochs[step] for step in one.steps), one.values, one.times)
        if tag != "epoch" and epochs.keys() >= set(one.steps)
        else one
        for tag, one in series.items()
    }


def _ordered(points: list[_Point]) -> Series:
    steps, values, times = zip(*sorted(points, key=lambda point: point.time), strict=True)
    return Series(steps, values, times)
