"""Arrays of a run in one file: compressed ``.npz`` without pickle, with the same bytes for the same arrays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from plifctl import files


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replaces a file of arrays atomically."""
    content = io.BytesIO()  # numpy's own file writing does not report a full disk as such
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    with files.atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name; executes no code from it.

    Raises:
        OSError: There is no such file.
        Exception: It is damaged; numpy and zipfile raise many types.
    """
    content = io.BytesIO(files.read_regular(path))  # numpy would leave a damaged file open
    with zipfile.ZipFile(content) as archive:
        if damaged := archive.testzip():  # numpy reads an array no further than to its end, before the checksum
            raise ValueError(f"checksum mismatch in {damaged}")
    content.seek(0)
    with np.load(content, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
