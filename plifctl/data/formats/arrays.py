"""Recordings that other libraries store as numpy arrays.

``.npy`` is a matrix of four columns x, y, p and t, of integers or floats, t in ms, as tonic saves DVS128 Gesture; or a
structured array with fields of these names, t in µs, as tonic's other data sets. ``.npz`` is SpikingJelly's
``events_np``: four arrays named t (µs), x, y, p; or one structured array. Times in another unit are read if the data
set states it. Polarities may be 0 and 1, or −1 and 1. There are no invalid events, so no event is dropped. A recording
may be empty. Times may repeat and run backwards, and are sorted; they must not be negative.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from plifctl.config.choices import TimeUnit
from plifctl.data.events import Decoded, Events
from plifctl.data.formats.clocks import sort_by_time
from plifctl.data.formats.headers import SAVE_WITH_NUMPY, describe_content
from plifctl.data.formats.summary import NOTHING, Summary
from plifctl.data.remarks import Remark
from plifctl.data.zip_reader import ZipReader
from plifctl.errors import DamagedFileError

VERSION = 1
"""Raised when the output of the decoder changes; see :func:`~plifctl.data.formats.detect.decoder_versions`."""

_COLUMNS = ("t", "x", "y", "p")
_SYNONYMS = {
    **dict.fromkeys(("ts", "time", "timestamp", "timestamps"), "t"),
    **dict.fromkeys(("pol", "polarity", "polarities"), "p"),
}
_MAX = {"t": 2**62, "x": 2**15 - 1, "y": 2**15 - 1, "p": 1}
_US: Mapping[TimeUnit, int] = {"us": 1, "ms": 1000, "s": 1_000_000}
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def decode_npy(data: bytes, *, where: str, time_unit: TimeUnit | None = None) -> Decoded:
    """Decodes a matrix of events ``[N, 4]``, columns x, y, p, t, or a structured array ``[N]``; rounds t to the µs.

    Args:
        data: The file.
        where: Its name, for messages.
        time_unit: Unit of t; None: ms in a matrix, with a remark, and µs in a structured array.

    Returns:
        The events, t in µs; none is dropped.

    Raises:
        DamagedFileError: The file is not such an array, has another size than it states, or contains impossible events.

    Source: tonic's reader of DVSGesture.
    """
    array = _array(data, where)
    if array.dtype.names is not None:
        return _to_events(_fields(array, where), where, time_unit or "us")
    if array.ndim != 2 or array.shape[1] != 4:
        raise DamagedFileError(
            f"{where}: an array of shape {list(array.shape)}, expected [events, 4]: x, y, p, t", hint=SAVE_WITH_NUMPY
        )
    _check_order(array, where)
    x, y, p, t = (array[:, column] for column in range(4))
    decoded = _to_events({"t": t, "x": x, "y": y, "p": p}, where, time_unit or "ms")
    if time_unit is not None or not len(t):
        return decoded
    assumed = Remark("unit", largest=int(np.ptp(decoded.events["t"])) // 1000)
    return decoded._replace(remarks=(*decoded.remarks, assumed))


def decode_npz(data: bytes, *, where: str, time_unit: TimeUnit | None = None) -> Decoded:
    """Decodes four arrays ``[N]`` named t, x, y and p, or one structured array; other arrays are not read.

    Args:
        data: The file.
        where: Its name, for messages.
        time_unit: Unit of t; None: µs.

    Returns:
        The events, t in µs; none is dropped.

    Raises:
        DamagedFileError: The file is damaged, not an archive of such arrays, or contains impossible events.

    Source: SpikingJelly's converters (``events_np``).
    """
    try:
        archive = ZipReader(data, where=where)
        members = {_column_name(info.filename.removesuffix(".npy")): info for info in archive.infolist()}
        wanted = _COLUMNS if members.keys() >= set(_COLUMNS) else tuple(members) if len(members) == 1 else ()
        files = {name: archive.read(members[name]) for name in wanted}
    except DamagedFileError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds of errors for damaged archives
        raise DamagedFileError(f"{where}: {describe_content(data)}, expected an intact archive: {error}") from error
    columns = {name: _array(file, f"{where}: {name}") for name, file in files.items()}
    if not columns or (len(columns) == 1 and next(iter(columns.values())).dtype.names is None):
        found = ", ".join(sorted(members)[:5]) or "nothing"
        raise DamagedFileError(f"{where}: contains {found}, expected arrays named t, x, y, p", hint=SAVE_WITH_NUMPY)
    if len(columns) == 1:
        columns = _fields(next(iter(columns.values())), where)
    shapes = {name: list(column.shape) for name, column in columns.items()}
    if any(shape != shapes["t"] or len(shape) != 1 for shape in shapes.values()):
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DamagedFileError(f"{where}: arrays of shapes {found}, expected four of one length")
    return _to_events(columns, where, time_unit or "us")


def _column_name(name: str) -> str:
    return _SYNONYMS.get(name.lower(), name)


def _fields(array: np.ndarray, where: str) -> dict[str, np.ndarray]:
    """Returns the columns of a structured array ``[N]``.

    Raises:
        DamagedFileError: It has no fields t, x, y and p.
    """
    names = array.dtype.names
    assert names is not None
    found = {_column_name(name): array[name] for name in names}
    if not found.keys() >= set(_COLUMNS) or array.ndim != 1:
        raise DamagedFileError(
            f"{where}: an array of shape {list(array.shape)} with the fields {', '.join(names)}, "
            "expected one of shape [events] with t, x, y and p",
            hint=SAVE_WITH_NUMPY,
        )
    return {name: found[name] for name in _COLUMNS}


def _check_order(matrix: np.ndarray, where: str) -> None:
    """Raises DamagedFileError if another column than the third is a polarity: the columns are in another order.

    A matrix does not name its columns; besides x, y, p, t, the orders x, y, t, p and t, x, y, p are usual.
    """
    is_sign = [bool(np.isin(matrix[:, column], (-1, 0, 1)).all()) for column in range(4)]
    if is_sign != [False, False, False, True]:
        return
    raise DamagedFileError(
        f"{where}: the last of the four columns is the polarity, expected the order x, y, p, t",
        hint="if the order is x, y, t, p: np.save(FILE, events[:, [0, 1, 3, 2]])\n"
        "if the order is t, x, y, p: np.save(FILE, events[:, [1, 2, 3, 0]])\n"
        "and state the unit of t in the data set's YAML: time_unit: us, ms or s",
    )


def _array(data: bytes, where: str) -> np.ndarray:
    """Returns an array of numbers or of records of numbers in numpy's own format; its size is that in its header."""
    file = io.BytesIO(data)
    try:
        shape, fortran_order, dtype = _HEADERS[npy.read_magic(file)](file)
    except Exception as error:  # the header is evaluated by Python: a damaged one can fail in any way
        raise DamagedFileError(f"{where}: byte 0: {describe_content(data)}, expected a numpy array: {error}") from error
    kinds = {dtype[name].kind for name in dtype.names} if dtype.names else {dtype.kind}
    if not kinds <= set("biuf") or not dtype.itemsize:
        raise DamagedFileError(f"{where}: an array of {dtype}, expected numbers")
    start = file.tell()
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise DamagedFileError(f"{where}: {len(data)} bytes, expected {expected} for {dtype} of shape {list(shape)}")
    flat = np.frombuffer(data, dtype, math.prod(shape), start)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _to_us(t: np.ndarray, unit: TimeUnit) -> np.ndarray:
    """Returns times in µs: of integers exactly, of floats in ms or s rounded."""
    factor = _US[unit]
    if factor == 1:
        return t
    with np.errstate(over="ignore", invalid="ignore"):
        us = np.rint(t * np.float64(factor)) if t.dtype.kind == "f" else t.astype(np.float64) * factor
    if t.dtype.kind in "iu" and len(t) and us.max() < 2**62:
        us = t.astype(np.int64) * factor  # exact
    return us


def _to_events(columns: Mapping[str, np.ndarray], where: str, unit: TimeUnit) -> Decoded:
    p = columns["p"]
    if (p == -1).any() and np.isin(p, (-1, 1)).all():
        p = p == 1
    columns = {**columns, "t": _to_us(columns["t"], unit), "p": p}
    for name in _COLUMNS:
        column = columns[name]
        bad = ~((column >= 0) & (column <= _MAX[name]) & (column == np.floor(column)))  # also false for NaN
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise DamagedFileError(
                f"{where}: event {index} of {len(column)}: {name} is {column[index]}, "
                f"expected a whole number from 0 to {_MAX[name]}",
                hint="if t is in seconds, state it in the data set's YAML: time_unit: s" if name == "t" else "",
            )
    return sort_by_time(Events.from_columns(*(columns[name] for name in _COLUMNS)), where)


def summarise_npy(file: BinaryIO) -> Summary:
    """Returns the number of rows; the times need the order of the columns, which only the decoder finds."""
    try:
        shape, _, _ = _HEADERS[npy.read_magic(file)](file)
    except Exception:  # the header is evaluated by Python: a damaged one can fail in any way
        return NOTHING
    return Summary(n_events=shape[0]) if shape else NOTHING
