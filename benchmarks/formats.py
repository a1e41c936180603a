"""Decoding of every format, on one core: ``make bench-formats``.

Every file holds the same events of a sensor of 128×128. What is timed is the step from a file's content to its events,
as every decoder returns them; reading the file is not part of it. The encoders are those of the tests.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from factories import encode_aedat4
from raw_files import AEDAT2_HEADER, encode_atis, encode_dat, encode_evt, encode_npy, encode_npz

from benchmarks.measure import Figure, Setting, in_turn, run
from benchmarks.prepare import moving_edge
from plifctl.config.dataset import ReadingSpec
from plifctl.data.events import Decoded
from plifctl.data.formats.aedat3 import encode_aedat3
from plifctl.data.formats.detect import decode_any

_SIDE = 128


def decode(setting: Setting) -> Iterator[Figure]:
    """A file of each format, from its content to events."""
    events = moving_edge(100_000 if setting.quick else 1_000_000, _SIDE)
    files = _files(events)
    works = {
        name: partial(_decode, content, ReadingSpec.model_validate(keys)) for name, (content, keys) in files.items()
    }
    for name, work in works.items():
        if work().events.tolist()[:1000] != events.tolist()[:1000]:
            raise AssertionError(f"{name}: other events")
    for name, seconds in in_turn(works, setting.pairs).items():
        labels = {"format": name, "events": len(events), "bytes": len(files[name][0])}
        yield Figure(f"decode {name}", "s", seconds, (), "", seconds, "", None, "", labels)


def _decode(content: bytes, reading: ReadingSpec) -> Decoded:
    return decode_any(content, where="f", invalid="drop", reading=reading)


def _files(events: np.ndarray) -> dict[str, tuple[bytes, Mapping[str, Any]]]:
    """Returns a file of each format, and the keys of the data set that it needs."""
    packets = [(0, "EVTS", part) for part in np.array_split(events, len(events) // 4096)]
    columns = np.stack([events[name] for name in "txyp"], 1).astype(np.int64)
    lines = [b"%d,%d,%d,%d\n" % (x, y, p, t) for t, x, y, p in columns.tolist()]
    seconds = [b"%.6f %d %d %d\n" % (t / 1e6, x, y, p) for t, x, y, p in columns.tolist()]
    named = {name: events[name] for name in "txyp"}
    blosc = hdf5plugin.Blosc(cname="zstd", clevel=1)
    return {
        "ATIS": (encode_atis(events), {}),
        "AEDAT 2.0 (DVS128)": (_aedat2(events), {}),
        "AEDAT 3.1": (encode_aedat3(events), {}),
        "AEDAT 4, LZ4": (encode_aedat4(*packets), {}),
        "AEDAT 4, Zstandard": (encode_aedat4(*packets, packing="zstd"), {}),
        "Prophesee .dat": (encode_dat(*events.tolist()), {}),
        **{f"Prophesee EVT {version}": (encode_evt(events, version), {}) for version in ("2.0", "2.1", "3.0")},
        "numpy, structured": (encode_npy(events), {}),
        "numpy, matrix": (encode_npy(columns), {"columns": ["t", "x", "y", "p"], "time_unit": "us"}),
        "numpy .npz, compressed": (encode_npz(packed=True, **named), {}),
        "HDF5, DSEC, Blosc": (_hdf5({f"events/{name}": column for name, column in named.items()}, **blosc), {}),
        "HDF5, v2e, gzip": (_hdf5({"events": columns.astype("u4")}, compression="gzip"), {}),
        "text, µs": (b"".join(lines), {"columns": ["x", "y", "p", "t"]}),
        "text, s": (b"".join(seconds), {"columns": ["t", "x", "y", "p"], "time_unit": "s"}),
    }


def _aedat2(events: np.ndarray) -> bytes:
    """Returns an AEDAT 2.0 file of a DVS128."""
    t, x, y, p = (events[name].astype(np.uint32) for name in "txyp")
    addresses = (_SIDE - 1 - x) << 1 | y << 8 | (1 - p)
    return AEDAT2_HEADER + np.stack([addresses, t], 1).astype(">u4").tobytes()


def _hdf5(datasets: Mapping[str, np.ndarray], **options: Any) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        for path, column in datasets.items():
            opened.create_dataset(path, data=column, chunks=(min(2**16, len(column)), *column.shape[1:]), **options)
    return file.getvalue()


PARTS: Mapping[str, Callable[[Setting], Iterator[Figure]]] = {"decode": decode}

if __name__ == "__main__":
    run("decoding of every format, one core", PARTS, recordings=False, peers=False)
