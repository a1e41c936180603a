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


def load_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name; executes no code from it.

    Args:
        content: The file; numpy would leave a damaged one open.

    Raises:
        Exception: It is damaged; numpy and zipfile raise many types.
    """
    with np.load(verified_zip(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def verified_zip(content: bytes) -> io.BytesIO:
    """Returns an archive, ready to be read, after verifying all checksums; numpy and torch do not.

    Raises:
        Exception: It is damaged; zipfile raises many types.
    """
    file = io.BytesIO(content)
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"checksum mismatch in {damaged}")
    file.seek(0)
    return file
