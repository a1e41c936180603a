"""Events in HDF5, as data sets, cameras and simulators lay them out.

| layout | events | times |
|---|---|---|
| DSEC | datasets ``t``, ``x``, ``y``, ``p`` in the group ``events`` | µs, and ``t_offset`` is added |
| Prophesee | records ``x``, ``y``, ``p``, ``t``: ``CD/events`` | µs |
| v2e | a matrix ``events`` of the columns t, x, y, p | µs |
| others | four datasets whose paths the data set states: ``fields: {t: davis/t, …}`` | µs |

Names may be the usual synonyms, ``columns`` of the data set is another order of a matrix, and times are in another unit
if the data set states it. There are no invalid events, so no event is dropped. A recording may be empty. Times may
repeat and run backwards, and are sorted; they must not be negative.

HDF5 fills what a damaged file lost with zeros, follows links into other files, and unpacks as much as a file says. So
a dataset is read only if all of it is stored in the file, and its chunks do not unpack to more than they hold.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import zstandard
from isal import isal_zlib

from plifctl.config.dataset import ReadingSpec
from plifctl.data.events import LATEST_US, Decoded
from plifctl.data.formats.arrays import decode_array
from plifctl.data.formats.columns import AS_USUAL, COLUMNS, find_columns, to_events
from plifctl.data.formats.headers import SAVE_WITH_NUMPY, describe_content
from plifctl.data.formats.summary import NOTHING, Summary
from plifctl.data.zip_reader import is_zip_bomb
from plifctl.errors import DamagedFileError, list_names

if TYPE_CHECKING:
    import h5py

_V2E = ("t", "x", "y", "p")

_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF, _BLOSC, _LZ4, _ZSTD, _ECF = 1, 2, 3, 32000, 32001, 32004, 32015, 0x8ECF
_FILTERS = (_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF, _BLOSC, _LZ4, _ZSTD, _ECF)
"""Filters of chunks that are read; of the last one Prophesee's plugin decides what it unpacks to."""
_BLOSC_VALUES = 4
"""Smallest number of values of Blosc's filter, which it reads without looking how many there are."""
_SIZED = {_DEFLATE: 2**16, _BLOSC: 0, _LZ4: 0, _ZSTD: 0}
"""Filters that unpack to any size, and the size of a chunk up to which that is harmless: gzip at most thousandfold."""

_INSTALL_ECF = (
    "install Prophesee's plugin for HDF5 (https://github.com/prophesee-ai/hdf5_ecf), "
    "and name its folder: export HDF5_PLUGIN_PATH=DIR\n"
    "or convert the file: metavision_file_to_csv -i FILE, and state in the data set's YAML: columns: [x, y, p, t]"
)
_PATHS = (
    "state the paths of four datasets in the data set's YAML: fields: {t: PATH, x: PATH, y: PATH, p: PATH}\n"
    f"or {SAVE_WITH_NUMPY}"
)


def decode_hdf5(data: bytes, *, where: str, reading: ReadingSpec = AS_USUAL) -> Decoded:
    """Decodes the events of a file in one of the known layouts, or in datasets that are stated.

    Args:
        data: The file.
        where: Its name, for messages.
        reading: Names or paths of the columns, the order of a matrix's columns, and the unit of t, µs if not stated.

    Returns:
        The events, t in µs; none is dropped.

    Raises:
        DamagedFileError: The file is damaged or of another layout, lacks a plugin, or contains impossible events.

    Source: the descriptions of DSEC's and Prophesee's files, and v2e's writer.
    """
    import h5py
    import hdf5plugin  # noqa: F401 - registers Blosc, LZ4 and Zstandard

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return _decode_file(file, len(data), where, reading)
    except DamagedFileError:
        raise
    except Exception as error:  # h5py raises many kinds of errors for damaged files
        raise DamagedFileError(f"{where}: damaged, or {describe_content(data)} of an unknown kind: {error}") from error


def _decode_file(file: h5py.File, nbytes: int, where: str, reading: ReadingSpec) -> Decoded:
    fields = reading.fields or {}
    if len(fields) == len(COLUMNS) and all(find_stored(file, path) is not None for path in fields.values()):
        return _decode_columns(file, {name: fields[name] for name in COLUMNS}, nbytes, where, reading)
    for path in ("CD/events", "events"):
        if hasattr(find_stored(file, path), "dtype"):
            array = _load(file, path, nbytes, where)
            if array.ndim == 2 and array.shape[1] == len(_V2E) and reading.columns is None:
                reading = reading.model_copy(update={"columns": _V2E})
            return decode_array(array, f"{where}: {path}", reading)
    groups = [path for path in ("events", "") if hasattr(find_stored(file, path), "keys")]
    for path in groups:
        if any(find_stored(file, f"{path}/{name}") is None for name in fields.values()):
            continue
        names = dict.fromkeys([*find_stored(file, path), *fields.values()])
        found = find_columns(names, fields, f"{where}: {path}".removesuffix(": "))
        if found is not None:
            paths = {column: f"{path}/{name}" for column, name in found.items()}
            return _decode_columns(file, paths, nbytes, where, reading)
    stated = [name for name in fields.values() for path in groups if find_stored(file, f"{path}/{name}") is not None]
    find_columns([*_names(file), *stated], fields, where)  # raises for a stated name that is missing
    raise DamagedFileError(
        f"{where}: contains {list_names(list(_names(file)), 8) or 'nothing'}, expected the events of DSEC "
        "(events/t, x, y, p), Prophesee (CD/events) or v2e (events)",
        hint=_PATHS,
    )


def _names(file: h5py.File) -> Iterator[str]:
    """Yields the names in a file, and in its groups."""
    for name in file:
        group = find_stored(file, name)
        yield from [f"{name}/{part}" for part in group] if hasattr(group, "keys") else [name]


def _decode_columns(
    file: h5py.File, paths: Mapping[str, str], nbytes: int, where: str, reading: ReadingSpec
) -> Decoded:
    columns = {column: _load(file, path, nbytes, where) for column, path in paths.items()}
    if find_stored(file, "t_offset") is not None:
        offset, t = _load(file, "t_offset", nbytes, where), columns["t"]
        if offset.size != 1 or offset.dtype.kind not in "iu" or abs(int(offset.item())) >= LATEST_US:
            raise DamagedFileError(f"{where}: t_offset is {offset.ravel()[:3]}, expected one whole number below 2**62")
        if t.dtype.kind == "f" and offset.item():
            raise DamagedFileError(f"{where}: times of {t.dtype} with a t_offset, expected whole numbers")
        if t.dtype.kind in "iu" and t.size and int(t.max()) < LATEST_US:  # larger ones are refused
            columns["t"] = t.astype(np.int64) + int(offset.item())
    return to_events(columns, where, reading.time_unit)


def find_stored(file: h5py.File, path: str) -> Any:
    """Returns the group or dataset at a path in the file itself; None if there is none, or a link leads there."""
    import h5py

    found: Any = file
    for name in path.strip("/").split("/") if path.strip("/") else ():
        if not isinstance(found, h5py.Group) or not isinstance(found.get(name, getlink=True), h5py.HardLink):
            return None
        found = found[name]
    return found


def require_stored(file: h5py.File, path: str) -> h5py.Dataset:
    """Returns a dataset, provided that its content is in the file itself.

    Raises:
        ValueError: It is missing, or stored elsewhere.
    """
    import h5py

    found = find_stored(file, path)
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external or found.dtype.hasobject:
        raise ValueError(f"{path} are not stored in the file itself")
    return found


def _load(file: h5py.File, path: str, nbytes: int, where: str) -> np.ndarray:
    """Returns the content of a dataset of a file of ``nbytes`` bytes.

    Raises:
        DamagedFileError: It needs a plugin.
        ValueError: It is not stored in the file, not completely, or unpacks to more than it declares.
    """
    dataset = require_stored(file, path)
    if dataset.shape is None or is_zip_bomb(dataset.nbytes, nbytes):
        raise ValueError(f"{path} of shape {dataset.shape} in {nbytes} bytes")
    if dataset.chunks is None:
        if dataset.id.get_storage_size() != dataset.nbytes:
            raise ValueError(f"{path} of {dataset.nbytes} bytes are incomplete")
    else:
        _check_filters(dataset, f"{where}: {path}")
        _check_chunks(dataset, path, nbytes)
    return np.asarray(dataset[()])


def _filters(dataset: h5py.Dataset) -> list[tuple[int, tuple[int, ...]]]:
    """Returns the filters of a dataset's chunks, numbers and values."""
    created = dataset.id.get_create_plist()
    found = (created.get_filter(index) for index in range(created.get_nfilters()))
    return [(number, values) for number, _, values, _ in found]


def _check_filters(dataset: h5py.Dataset, where: str) -> None:
    import h5py

    for number, values in _filters(dataset):
        if number == _ECF and not h5py.h5z.filter_avail(number):
            raise DamagedFileError(f"{where}: compressed by Prophesee's ECF, needs its plugin", hint=_INSTALL_ECF)
        if number not in _FILTERS or not h5py.h5z.filter_avail(number):
            raise DamagedFileError(
                f"{where}: compressed by HDF5's filter {number}, expected gzip, LZF, Blosc, LZ4, Zstandard or ECF",
                hint="compress it again: h5repack -f GZIP=1 FILE NEW_FILE",
            )
        if number == _BLOSC and len(values) < _BLOSC_VALUES:
            raise ValueError(f"Blosc with the values {values}")


def _check_chunks(dataset: h5py.Dataset, path: str, nbytes: int) -> None:
    """Raises ValueError unless a dataset has all its chunks in the file, and none unpacks to more than its size."""
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    expected = math.prod(-(-length // step) for length, step in zip(dataset.shape, dataset.chunks, strict=True))
    if is_zip_bomb(size, nbytes) or expected > nbytes:
        raise ValueError(f"{path} of shape {dataset.shape} in chunks of {dataset.chunks} in {nbytes} bytes")
    compressors = [number for number, _ in _filters(dataset) if number not in (_SHUFFLE, _FLETCHER32)]
    if len(compressors) > 1:
        raise ValueError(f"{path} are compressed {len(compressors)} times")
    chunks: list[Any] = []
    dataset.id.chunk_iter(chunks.append)
    if len(chunks) != expected:
        raise ValueError(f"{path} have {len(chunks)} of {expected} chunks")
    if any(chunk.byte_offset + chunk.size > nbytes for chunk in chunks):  # h5py would allocate memory for it first
        raise ValueError(f"{path}: a chunk ends after the file")
    for chunk in chunks if compressors and compressors[0] in _SIZED else ():
        if chunk.size > _SIZED[compressors[0]] and not chunk.filter_mask:
            _, packed = dataset.id.read_direct_chunk(chunk.chunk_offset)
            if unpacked_size(packed, compressors[0], size) > size:
                raise ValueError(f"{path}: a chunk unpacks to more than {size} bytes")


def unpacked_size(packed: bytes, compressor: int, limit: int) -> int:
    """Returns the size that a chunk declares to unpack to; of a deflated one, at most ``limit`` + 1.

    Args:
        packed: The chunk as stored.
        compressor: Number of its filter.
        limit: Size of a chunk.
    """
    if compressor == _DEFLATE:
        return len(isal_zlib.decompressobj().decompress(packed, limit + 1))
    if compressor == _BLOSC:
        return int.from_bytes(packed[4:8], "little")
    if compressor == _LZ4:
        return int.from_bytes(packed[:8], "big")
    return int(zstandard.frame_content_size(packed)) % 2**64  # −1: not stated


def summarise_hdf5(file: BinaryIO) -> Summary:
    """Returns the number of events in a known layout."""
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            shapes = [getattr(find_stored(opened, path), "shape", None) for path in ("CD/events", "events", "events/t")]
            return next((Summary(n_events=int(shape[0])) for shape in shapes if shape), NOTHING)
    except Exception:  # as in decode_hdf5
        return NOTHING
