"""Logs of other code: event files of TensorBoard, and CSV files exported by TensorBoard."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from plifctl.errors import DamagedFileError, MissingRawDataError

_log = logging.getLogger(__name__)

_MAX_TIME = 1e11  # seconds since 1970; later ones overflow the clocks of some systems
_CSV = re.compile(r"run-(?P<run>.+)-tag-(?P<tag>.+)\.csv")


@dataclass(frozen=True)
class Series:
    """Values of a scalar in the order of writing; after a resume, steps may be repeated.

    Attributes:
        steps: Training steps or epochs.
        values: Value at each step.
        times: When each was written, in seconds since 1970.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]
    times: tuple[float, ...]


@dataclass(frozen=True)
class Log:
    """The log of one run.

    Attributes:
        name: Name of its folder, or from the names of its files.
        files: Files it was read from.
        series: Scalars by tag.
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


def find_logs(folder: Path, damaged: list[DamagedFileError] | None = None) -> list[Log]:
    """Returns the logs in a folder and its subfolders, sorted by name.

    Args:
        folder: The folder.
        damaged: Receives the error of each damaged log, and the others are returned; None: the first one is raised.

    Raises:
        MissingRawDataError: No log was found.
        DamagedFileError: A file is damaged.
    """
    if not folder.is_dir():
        raise MissingRawDataError(f"{folder}: no such folder", hint="name the folder of the logs")
    exported: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted(folder.rglob("*.csv")):
        if not path.is_dir() and (match := _CSV.fullmatch(path.name)):
            exported.setdefault(match["run"], []).append((match["tag"], path))
    readers: list[Callable[[], Log | None]] = [partial(_read_exports, name, files) for name, files in exported.items()]
    folders = sorted({path.parent for path in folder.rglob("events.out.tfevents.*")})
    readers += [partial(_read_events, path) for path in folders]
    logs = []
    for read in readers:
        try:
            log = read()
        except DamagedFileError as error:
            if damaged is None:
                raise
            damaged.append(error)
        else:
            logs += [log] if log is not None else []
    if not logs and not damaged:
        raise MissingRawDataError(
            f"{folder}: no scalars found, neither in TensorBoard event files nor in exports (run-NAME-tag-TAG.csv)"
        )
    return sorted(logs, key=lambda log: log.name)


def _read_exports(name: str, files: list[tuple[str, Path]]) -> Log:
    by_tag: dict[str, Path] = {}
    for tag, path in files:
        _check_readable(path)
        if (other := by_tag.setdefault(tag, path)) != path and other.read_bytes() != path.read_bytes():
            raise DamagedFileError(
                f"{path}: differs from {other}, of the same run and tag", hint="import the folders one by one"
            )
    return Log(name, tuple(by_tag.values()), {tag: _sorted_series(_read_points(path)) for tag, path in by_tag.items()})


def _check_readable(path: Path) -> None:
    """Raises an error for a file that cannot be opened, or that is a pipe, which could block forever."""
    if not path.is_file():
        raise DamagedFileError(f"{path}: not a regular file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read: {error.strerror}") from error


def _read_points(path: Path) -> list[_Point]:
    """Returns the points of an exported file, in its order."""
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
                if not (step.is_integer() and step >= 0 and math.isfinite(value) and 0 <= time < _MAX_TIME):
                    raise ValueError("expected seconds since 1970, a whole step, and a finite value")
                points.append(_Point(int(step), value, time))
            if not points:
                raise ValueError("no values")
        except (ValueError, csv.Error) as error:
            raise DamagedFileError(f"{path}:{rows.line_num}: {error}") from error
    return points


def _read_events(folder: Path) -> Log | None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = tuple(sorted(folder.glob("events.out.tfevents.*")))
    series = {}
    for path in files:
        _check_events(path)
    try:
        accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            points = [_Point(event.step, event.value, event.wall_time) for event in accumulator.Scalars(tag)]
            points = [point for point in points if math.isfinite(point.value) and point.step >= 0]
            if points:
                series[tag] = _sorted_series(points)
    except Exception as error:  # protobuf and TensorBoard raise many types
        raise DamagedFileError(f"{folder}: TensorBoard cannot read it: {error}") from error
    return Log(folder.name, files, _by_epoch(series)) if series else None


def _check_events(path: Path) -> None:
    """Raises an error for a damaged event; TensorBoard itself would stop there silently and miss the rest."""
    from tensorboard.compat.tensorflow_stub import errors, pywrap_tensorflow

    _check_readable(path)
    reader, count = pywrap_tensorflow.PyRecordReader_New(str(path)), 0
    try:
        while True:
            reader.GetNext()
            count += 1
    except errors.OutOfRangeError:
        return
    except errors.DataLossError as error:
        if "truncated" not in str(error) or not count:
            raise DamagedFileError(f"{path}: event {count + 1} is damaged, or this is not an event file") from error
        _log.warning("%s: incomplete event %d at the end, as a killed training leaves it", path, count + 1)


def _by_epoch(series: dict[str, Series]) -> dict[str, Series]:
    """Replaces training steps by epochs if a scalar ``epoch`` maps them, as in logs of Lightning."""
    if "epoch" not in series:
        return series
    epochs = {step: int(value) for step, value in zip(series["epoch"].steps, series["epoch"].values, strict=True)}
    return {
        tag: Series(tuple(epochs[step] for step in one.steps), one.values, one.times)
        if tag != "epoch" and epochs.keys() >= set(one.steps)
        else one
        for tag, one in series.items()
    }


def _sorted_series(points: list[_Point]) -> Series:
    steps, values, times = zip(*sorted(points, key=lambda point: point.time), strict=True)
    return Series(steps, values, times)
