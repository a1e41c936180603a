"""The authors' runs, as compact data in the folder ``authors/`` of the registry: no logs have to be imported.

| file | content |
|---|---|
| ``runs.json`` | settings of each run, and size and SHA-256 of the logs it was read from |
| ``accuracy.csv`` | accuracies by epoch: a column for each run and kind of accuracy, a row for each epoch |
| ``w.csv`` | w of each spiking layer by epoch, as logged; τ = 1 + exp(−w) |

An empty cell is an epoch that was not logged. A name of a column is ``RUN SERIES``, e.g. ``cifar10-plif w0``. The files
give the same :class:`ImportedRun` objects as the logs, bit for bit: most logs are of single precision, and their values
are written with the fewest digits that determine them. ``docs/make_authors.py`` writes the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from plifctl.errors import RunError
from plifctl.runs.documents import load_document
from plifctl.runs.event_logs import Series
from plifctl.runs.imported import ImportedRun

_RUNS = "runs.json"
_PREFIX = "authors-"
_HINT = "restore the registry: install plifctl again, or in a checkout: git checkout registry/authors"


def load_authors(registry_dirs: Sequence[Path]) -> list[ImportedRun]:
    """Returns the authors' runs in the folders ``authors/`` of the registry.

    Raises:
        RunError: A file is missing or was changed.
    """
    found = [folder / "authors" for folder in registry_dirs]
    return [run for folder in found if (folder / _RUNS).is_file() for run in _load(folder)]


def _load(folder: Path) -> tuple[ImportedRun, ...]:
    return _load_version(folder, tuple(sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())))


@lru_cache(maxsize=4)
def _load_version(folder: Path, _modified: tuple[tuple[str, int], ...]) -> tuple[ImportedRun, ...]:
    """Returns the runs of a folder; reports read them more than once."""
    tree = load_document(folder / _RUNS, ("source", "runs"), hint=_HINT)
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for file, digest in tree["sha256"].items():
        columns |= _read_table(folder / file, digest)
    return tuple(_run(entry, columns, tree["source"]) for entry in tree["runs"])


def _run(entry: dict[str, Any], columns: dict[str, tuple[list[int], list[float]]], source: str) -> ImportedRun:
    series = {}
    for tag in entry["tags"].values():
        epochs, values = columns[f"{entry['name'].removeprefix(_PREFIX)} {tag}"]
        if entry["single_precision"]:
            values = np.asarray(values, np.float32).tolist()
        series[tag] = Series(tuple(epoch - 1 for epoch in epochs), tuple(values), (0.0,) * len(epochs))
    return ImportedRun(
        name=entry["name"],
        source=source,
        files=entry["files"],
        settings=entry["settings"],
        tags=entry["tags"],
        percent=(),
        finished=entry["finished"],
        series=series,
    )


def _read_table(path: Path, digest: str) -> dict[str, tuple[list[int], list[float]]]:
    """Returns epochs and values of each column; cells without a value are left out."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}", hint=_HINT) from error
    if (found := digest_of(content)) != digest:
        raise RunError(f"{path}: was changed: expected SHA-256 {digest[:12]}…, found {found[:12]}…", hint=_HINT)
    head, *rows = (line.split(",") for line in content.decode().splitlines())
    _, *columns = zip(*rows, strict=True)
    return {
        name: (
            [epoch for epoch, cell in enumerate(cells, 1) if cell],
            [float(cell) for cell in cells if cell],
        )
        for name, cells in zip(head[1:], columns, strict=True)
    }


def digest_of(content: bytes) -> str:
    """Returns the SHA-256 of a table; line ends may be those of Windows."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
