"""Recordings that other libraries store as numpy arrays.

``.npy`` is tonic's DVS128 Gesture: a matrix of four columns, x, y, p and t in ms, of integers or floats. ``.npz`` is
SpikingJelly's ``events_np``: four arrays named t (µs), x, y, p. There are no invalid events, so no event is dropped. A
recording may be empty. Times may repeat and run backwards, and are sorted; they must not be negative.
"""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.lib import format as npy

from plifctl.data.events import Decoded, Events
from plifctl.data.formats.clocks import sort_by_time
from plifctl.data.formats.headers import describe_content
from plifctl.data.zip_reader import ZipReader
from plifctl.errors import DamagedFileError

VERSION = 1
"""Raised when the output of the decoder changes; see :func:`~plifctl.data.formats.detect.decoder_versions`."""

_COLUMNS = ("t", "x", "y", "p")
_MAX = {"t": 2**62, "x": 2**15 - 1, "y": 2**15 - 1, "p": 1}
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def decode_npy(data: bytes, *, where: str) -> Decoded:
    """Decodes a matrix of events ``[N, 4]``, columns x, y, p, t in ms; fractions are rounded to the µs.

    Args:
        data: The file.
        where: Its name, for messages.

    Returns:
        The events, t in µs; none is dropped.

    Raises:
        DamagedFileError: The file is not such a matrix, has another size than it states, or contains impossible events.

    Source: tonic's reader of DVSGesture.
    """
    matrix = _array(data, where)
    if matrix.ndim != 2 or matrix.shape[1] != 4:
        raise DamagedFileError(f"{where}: an array of shape {list(matrix.shape)}, expected [events, 4]: x, y, p, t")
    x, y, p, t = (matrix[:, column] for column in range(4))
    with np.errstate(over="ignore", invalid="ignore"):
        us = np.rint(t * np.float64(1000)) if t.dtype.kind == "f" else t.astype(np.float64) * 1000
    if t.dtype.kind in "iu" and len(t) and us.max() < 2**62:
        us = t.astype(np.int64) * 1000  # exact
    return _to_events({"t": us, "x": x, "y": y, "p": p}, where)


def decode_npz(data: bytes, *, where: str) -> Decoded:
    """Decodes four arrays ``[N]`` named t (µs), x, y and p; other arrays are not read.

    Args:
        data: The file.
        where: Its name, for messages.

    Returns:
        The events; none is dropped.

    Raises:
        DamagedFileError: The file is damaged, not an archive of such arrays, or contains impossible events.

    Source: SpikingJelly's converters (``events_np``).
    """
    try:
        archive = ZipReader(data, where=where)
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if not members.keys() >= set(_COLUMNS):
            found = ", ".join(sorted(members)[:5]) or "nothing"
            raise DamagedFileError(f"{where}: contains {found}, expected arrays named t, x, y, p")
        files = {name: archive.read(members[name]) for name in _COLUMNS}
    except DamagedFileError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds of errors for damaged archives
        raise DamagedFileError(f"{where}: {describe_content(data)}, expected an intact archive: {error}") from error
    columns = {name: _array(file, f"{where}: {name}") for name, file in files.items()}
    shapes = {name: list(column.shape) for name, column in columns.items()}
    if any(shape != shapes["t"] or len(shape) != 1 for shape in shapes.values()):
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DamagedFileError(f"{where}: arrays of shapes {found}, expected four of one length")
    return _to_events(columns, where)


def _array(data: bytes, where: str) -> np.ndarray:
    """Returns an array of numbers in numpy's own format, after its size was compared with its header."""
    file = io.BytesIO(data)
    try:
        shape, fortran_order, dtype = _HEADERS[npy.read_magic(file)](file)
    except Exception as error:  # the header is evaluated by Python: a damaged one can fail in any way
        raise DamagedFileError(f"{where}: byte 0: {describe_content(data)}, expected a numpy array: {error}") from error
    if dtype.kind not in "biuf":
        raise DamagedFileError(f"{where}: an array of {dtype}, expected numbers")
    start = file.tell()
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise DamagedFileError(f"{where}: {len(data)} bytes, expected {expected} for {dtype} of shape {list(shape)}")
    flat = np.frombuffer(data, dtype, math.prod(shape), start)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _to_events(columns: dict[str, np.ndarray], where: str) -> Decoded:
    for name in _COLUMNS:
        column = columns[name]
        bad = ~((column >= 0) & (column <= _MAX[name]) & (column == np.floor(column)))  # also false for NaN
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise DamagedFileError(
                f"{where}: event {index} of {len(column)}: {name} is {column[index]}, "
                f"expected a whole number from 0 to {_MAX[name]}"
            )
    return sort_by_time(Events.from_columns(*(columns[name] for name in _COLUMNS)), where)
