"""Recordings that other libraries store as numpy arrays.

``.npy`` is a structured array with fields t (µs), x, y and p in any order, as most of tonic's data sets; or a matrix
with a row for each event. The order of a matrix's columns is that of ``columns`` of the data set, t in µs; without
``columns`` it is x, y, p, t of integers or floats, t in ms, as tonic saves DVS128 Gesture. ``.npz`` is SpikingJelly's
``events_np``: four arrays named t (µs), x, y, p; or it contains one structured array, or one matrix. Times in another
unit are read if the data set states it. There are no invalid events, so no event is dropped. A recording may be empty.
Times may repeat and run backwards, and are sorted; they must not be negative.
"""

from __future__ import annotations

import io
import math
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from plifctl.config.dataset import ReadingSpec
from plifctl.data.events import Decoded
from plifctl.data.formats.columns import AS_USUAL, find_columns, hint_on_names, to_events, unstated_order
from plifctl.data.formats.headers import SAVE_WITH_NUMPY, describe_content
from plifctl.data.formats.summary import NOTHING, Summary
from plifctl.data.remarks import Remark
from plifctl.data.zip_reader import ZipReader, is_zip_bomb
from plifctl.errors import DamagedFileError, list_names

_GUESSED_ROWS = 1000
"""Rows of a matrix that the order of its columns is guessed from, for a hint."""

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def decode_npy(data: bytes, *, where: str, reading: ReadingSpec = AS_USUAL) -> Decoded:
    """Decodes a matrix of events ``[N, columns]``, or a structured array ``[N]``; rounds t to the µs.

    Args:
        data: The file.
        where: Its name, for messages.
        reading: The order of a matrix's columns, names of fields, and the unit of t. Without a unit t is in µs; in a
            matrix without ``columns`` in ms, with a remark.

    Returns:
        The events, t in µs; none is dropped.

    Raises:
        DamagedFileError: The file is not such an array, has another size than it states, or contains impossible events.

    Source: tonic's readers of DVSGesture and of others.
    """
    array = _array(data, where)
    if array.dtype.names is not None or reading.columns is not None:
        return decode_array(array, where, reading)
    if array.ndim != 2 or array.shape[1] != 4:
        raise _other_shape(array, "[events, 4]: x, y, p, t", where)
    _check_order(array, where)
    x, y, p, t = (array[:, column] for column in range(4))
    decoded = to_events({"t": t, "x": x, "y": y, "p": p}, where, reading.time_unit or "ms")
    if reading.time_unit is not None or not len(t):
        return decoded
    assumed = Remark("unit", largest=int(np.ptp(decoded.events["t"])) // 1000)
    return decoded._replace(remarks=(*decoded.remarks, assumed))


def decode_npz(data: bytes, *, where: str, reading: ReadingSpec = AS_USUAL) -> Decoded:
    """Decodes four arrays ``[N]`` named t, x, y and p, one structured array, or one matrix; others are not read.

    Args:
        data: The file.
        where: Its name, for messages.
        reading: Names of the arrays or fields, the order of a matrix's columns, and the unit of t, µs if not stated.

    Returns:
        The events, t in µs; none is dropped.

    Raises:
        DamagedFileError: The file is damaged, not an archive of such arrays, or contains impossible events.

    Source: SpikingJelly's converters (``events_np``).
    """
    try:
        archive = ZipReader(data, where=where)
        names = [info.filename for info in archive.infolist()]
        if names and not any(name.endswith(".npy") for name in names):
            raise DamagedFileError(
                f"{where}: a zip archive without arrays; it contains {list_names(sorted(names), 5)}",
                hint="unpack it: unzip FILE",
            )
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        # fields may also be those of a structured array
        stated = reading.fields if set((reading.fields or {}).values()) <= members.keys() else None
        named = find_columns(members, stated, where)
        wanted = list(members if named is None else named.values())
        total = sum(members[name].file_size for name in wanted)  # each alone is checked when it is read
        if named is None and is_zip_bomb(total, len(data)):
            raise DamagedFileError(f"{where}: refused, {len(data)} bytes are declared to unpack to {total}")
        arrays = {name: _array(archive.read(members[name]), f"{where}: {name}") for name in wanted}
    except DamagedFileError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds of errors for damaged archives
        raise DamagedFileError(f"{where}: {describe_content(data)}, expected an intact archive: {error}") from error
    if named is not None:
        return to_events({column: arrays[name] for column, name in named.items()}, where, reading.time_unit)
    if len(arrays) > 1:
        arrays = {name: array for name, array in arrays.items() if _is_recording(array, reading, where)}
    for name, array in arrays.items() if len(arrays) == 1 else ():
        if array.dtype.names is not None or array.ndim == 2:
            return decode_array(array, f"{where}: {name}", reading)
    raise DamagedFileError(
        f"{where}: contains {list_names(sorted(members), 5) or 'nothing'}, "
        "expected arrays named t, x, y, p, or one array of events",
        hint=f"{hint_on_names(members)}\nor {SAVE_WITH_NUMPY}",
    )


def _is_recording(array: np.ndarray, reading: ReadingSpec, where: str) -> bool:
    """Returns whether an array among others holds the events: by its fields, or as many columns as are stated."""
    if array.dtype.names is not None:
        return find_columns(array.dtype.names, reading.fields, where) is not None
    return reading.columns is not None and array.ndim == 2 and array.shape[1] == len(reading.columns)


def decode_array(array: np.ndarray, where: str, reading: ReadingSpec) -> Decoded:
    """Returns the events of a structured array ``[N]``, or of a matrix ``[N, columns]`` in the stated order.

    Args:
        array: The array.
        where: Its name, for messages.
        reading: Names of the fields, the order of the columns, and the unit of t, µs if not stated.

    Raises:
        DamagedFileError: It is no such array, the order of a matrix is not stated, or events are impossible.
    """
    names, order = array.dtype.names, reading.columns
    if names is not None:
        found = find_columns(names, reading.fields, where)
        if found is None or array.ndim != 1:
            raise DamagedFileError(
                f"{where}: an array of shape {list(array.shape)} with the fields {', '.join(names)}, "
                "expected one of shape [events] with t, x, y and p",
                hint=f"{hint_on_names(names)}\nor {SAVE_WITH_NUMPY}",
            )
        return to_events({column: array[name] for column, name in found.items()}, where, reading.time_unit)
    if order is None:
        raise _other_shape(array, "named columns, or columns: in the data set's YAML", where)
    if array.ndim != 2 or array.shape[1] != len(order):
        raise _other_shape(array, f"[events, {len(order)}]: {', '.join(order)}, as the data set's YAML states", where)
    columns: dict[str, np.ndarray] = {name: array[:, place] for place, name in enumerate(order) if name != "-"}
    return to_events(columns, where, reading.time_unit)


def _other_shape(array: np.ndarray, expected: str, where: str) -> DamagedFileError:
    message = f"{where}: an array of shape {list(array.shape)}, expected {expected}"
    if array.ndim == 2:
        return unstated_order(message, array[:_GUESSED_ROWS])
    return DamagedFileError(message, hint=SAVE_WITH_NUMPY)


def _check_order(matrix: np.ndarray, where: str) -> None:
    """Raises DamagedFileError if another column than the third is a polarity: the columns are in another order.

    A matrix does not name its columns; besides x, y, p, t, the orders x, y, t, p and t, x, y, p are usual.
    """
    is_sign = [bool(np.isin(matrix[:, column], (-1, 0, 1)).all()) for column in range(4)]
    if is_sign == [False, False, False, True]:
        raise unstated_order(
            f"{where}: the last of the four columns is the polarity, expected the order x, y, p, t",
            matrix[:_GUESSED_ROWS],
        )


def _array(data: bytes, where: str) -> np.ndarray:
    """Returns an array without Python objects in numpy's own format; its size is that in its header."""
    file = io.BytesIO(data)
    try:
        shape, fortran_order, dtype = _HEADERS[npy.read_magic(file)](file)
    except Exception as error:  # the header is evaluated by Python: a damaged one can fail in any way
        raise DamagedFileError(f"{where}: byte 0: {describe_content(data)}, expected a numpy array: {error}") from error
    if dtype.hasobject or not dtype.itemsize:
        raise DamagedFileError(f"{where}: an array of {dtype}, expected numbers")
    start = file.tell()
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise DamagedFileError(f"{where}: {len(data)} bytes, expected {expected} for {dtype} of shape {list(shape)}")
    flat = np.frombuffer(data, dtype, math.prod(shape), start)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def summarise_npy(file: BinaryIO) -> Summary:
    """Returns the number of rows; the times need the order of the columns, which only the decoder finds."""
    try:
        shape, _, _ = _HEADERS[npy.read_magic(file)](file)
    except Exception:  # the header is evaluated by Python: a damaged one can fail in any way
        return NOTHING
    return Summary(n_events=shape[0]) if shape else NOTHING
