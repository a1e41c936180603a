"""Detection of the known formats by their headers, and the decoder of each."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

from plifctl.config.choices import Axes, InvalidEvents
from plifctl.data.events import Decoded
from plifctl.errors import DamagedFileError

_MAGIC = {
    b"#!AER-DAT1.0": "AEDAT 1.0",
    b"#!AER-DAT2.0": "AEDAT 2.0",
    b"#!AER-DAT3.1": "AEDAT 3.1",
    b"#!AER-DAT4.0": "AEDAT 4",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "numpy",
    **dict.fromkeys((b"% Data", b"% Date", b"% Version", b"% Height", b"% Width"), "Prophesee .dat"),
}
_MAGICS = tuple(_MAGIC)

FIRST_VERSION = 1
"""Version of every decoder in plifctl 0.1.0."""


def format_of(data: bytes) -> str | None:
    """Returns the name of a file's format by its header; None for an unknown header."""
    if not data.startswith(_MAGICS):
        return None
    return next(name for magic, name in _MAGIC.items() if data.startswith(magic))


_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r"
_TEXT_PREFIX = 4096


def is_text(data: bytes) -> bool:
    """Returns whether a file begins with nothing but printable ASCII: no events, whose times have zero bytes."""
    return bool(data) and not data[:_TEXT_PREFIX].translate(None, _TEXT)


def describe_content(data: bytes) -> str:
    """Returns a description of a file for messages: its format, or its first bytes."""
    if name := format_of(data):
        return f"a file of format {name}"
    return f"a file that begins with {data[:12]!r}" if data else "an empty file"


def decoder_versions() -> dict[str, int]:
    """Returns the version of the decoder of each format.

    A version rises when the decoder gives other events or images for the same file. Caches of data read with the
    decoder are then outdated; all others stay valid.
    """
    from plifctl.data.formats import aedat2, aedat3, aedat4, arrays, atis, cifar, dat, idx

    decoders: dict[str, ModuleType] = {
        "AEDAT 2.0": aedat2,
        "AEDAT 3.1": aedat3,
        "AEDAT 4": aedat4,
        "Prophesee .dat": dat,
        "numpy": arrays,
        "zip": arrays,
        "ATIS": atis,
        "IDX": idx,
        "CIFAR": cifar,
    }
    return {name: int(module.VERSION) for name, module in decoders.items()}


def raised_versions(formats: Iterable[str]) -> dict[str, int]:
    """Returns the versions of the decoders of some formats, without those that are as in plifctl 0.1.0."""
    versions = decoder_versions()
    return {name: versions[name] for name in sorted(set(formats)) if versions[name] != FIRST_VERSION}


def decode_any(data: bytes, *, where: str, axes: Axes, invalid: InvalidEvents) -> Decoded:
    """Decodes a recording by its header; a file without a known header is decoded as ATIS, which has none.

    Args:
        data: The file.
        where: Its name, for messages.
        axes: Of AEDAT 2.0, see :func:`~plifctl.data.formats.aedat2.decode_aedat2`.
        invalid: Of AEDAT 3.1, see :func:`~plifctl.data.formats.aedat3.decode_aedat3`.

    Raises:
        DamagedFileError: The file cannot be decoded.
        RawDataError: See :func:`~plifctl.data.formats.aedat3.decode_aedat3`.
    """
    # the decoders import describe_content from here, for their messages
    from plifctl.data.formats.aedat2 import decode_aedat2
    from plifctl.data.formats.aedat3 import decode_aedat3
    from plifctl.data.formats.aedat4 import decode_aedat4
    from plifctl.data.formats.arrays import decode_npy, decode_npz
    from plifctl.data.formats.atis import decode_atis
    from plifctl.data.formats.dat import decode_dat

    if format_of(data) is None and is_text(data):
        raise DamagedFileError(f"{where}: a text file, which is none of the known formats of events")
    match format_of(data):
        case "AEDAT 2.0":
            return decode_aedat2(data, where=where, axes=axes)
        case "AEDAT 3.1":
            return decode_aedat3(data, where=where, invalid=invalid)
        case "AEDAT 4":
            return decode_aedat4(data, where=where)
        case "Prophesee .dat":
            return decode_dat(data, where=where)
        case "numpy":
            return decode_npy(data, where=where)
        case "zip":
            return decode_npz(data, where=where)
        case _:
            return decode_atis(data, where=where)
