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
        DamagedFileError: The file is no such batch, or asks for anything but arrays of bytes.

    Source: the layout of the python version, described beside the CIFAR-10 files.
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
    pixels = getattr(pixels, "values", None) if isinstance(pixels, _Array) else pixels
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3072:
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


class _Uint8:
    """Stands for numpy.dtype: a pickle may set numpy's own to a state in which it takes numbers for addresses."""

    __slots__ = ()

    def __init__(self, code: str | bytes, *_align: object) -> None:
        if code not in ("u1", b"u1"):
            raise _Refused(f"an array of type {code!r}")

    def __setstate__(self, _state: object) -> None:
        """Byte order, fields and alignment, of which a byte has none."""


class _Array:
    """Stands for numpy.ndarray: the values, uint8, once the pickle has filled them in."""

    __slots__ = ("values",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Uint8):
            raise _Refused("an array of another type than bytes")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_kind: object) -> _Array:
    """The empty array that a pickle then fills."""
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused(f"the codec {encoding}")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Uint8,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # the name before numpy 2
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _ArraysOnly(pickle.Unpickler):
    """Finds nothing but the stand-ins: neither numpy's objects nor anyone's code is in reach of a pickle."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise _Refused(f"{module}.{name}")
        return _STAND_INS[module, name]


def _what(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
