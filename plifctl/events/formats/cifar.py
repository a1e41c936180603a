"""The python batches of CIFAR-10: pickled dictionaries, read without executing what a pickle may ask for."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from plifctl.errors import DamagedFileError
from plifctl.events.formats import recognised

_PIXELS = (3, 32, 32)


def decode_cifar_batch(data: bytes, *, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Decodes one batch.

    Args:
        data: The file.
        where: Its name, for messages.

    Returns:
        Images uint8 ``[n, 3, 32, 32]`` (red, green, blue) and labels int64 ``[n]``, 0 to 9.

    Raises:
        DamagedFileError: The file is no such batch, or asks for anything but arrays.
    """
    try:
        batch = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    except _Refused as error:
        raise DamagedFileError(
            f"{where}: refused: its pickle asks for {error}, a CIFAR-10 batch needs no such thing"
        ) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DamagedFileError(f"{where}: {recognised(data)}, no whole CIFAR-10 batch: {error}") from error
    pixels, labels = (batch.get(key) for key in (b"data", b"labels")) if isinstance(batch, dict) else (None, None)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise DamagedFileError(f"{where}: no CIFAR-10 batch: data is {_what(pixels)}, expected uint8 [n, 3072]")
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int and 0 <= label <= 9 for label in labels)
    ):
        raise DamagedFileError(f"{where}: no CIFAR-10 batch: labels are not {len(pixels)} integers from 0 to 9")
    return pixels.reshape(-1, *_PIXELS), np.array(labels, np.int64)


class _Refused(Exception):
    pass


class _ArraysOnly(pickle.Unpickler):
    """Finds only what numpy arrays are rebuilt from, under numpy's old names and new."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return _reconstruct
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise _Refused(f"{module}.{name}")


def _reconstruct(kind: type, shape: tuple[int, ...], _typecode: bytes) -> np.ndarray:
    """The empty array that a pickle then fills."""
    if kind is not np.ndarray or shape != (0,):
        raise _Refused(f"an array of {kind} {shape}")
    return np.empty(0, np.uint8)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused(f"the codec {encoding}")
    return text.encode("latin1")


def _what(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
