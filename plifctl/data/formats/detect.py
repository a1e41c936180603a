"""A recording of whatever format its header says."""

from __future__ import annotations

from typing import Literal

from plifctl.config.choices import Axes
from plifctl.data.formats import Decoded, format_of
from plifctl.data.formats.aedat2 import decode_aedat2
from plifctl.data.formats.aedat3 import decode_aedat3
from plifctl.data.formats.aedat4 import decode_aedat4
from plifctl.data.formats.arrays import decode_npy, decode_npz
from plifctl.data.formats.atis import decode_atis
from plifctl.data.formats.dat import decode_dat


def decode_any(data: bytes, *, where: str, axes: Axes, invalid: Literal["drop", "keep"]) -> Decoded:
    """Decodes a recording by its header; what has no header that is known is taken for ATIS, which has none.

    Args:
        data: The file.
        where: Its name, for messages.
        axes: Of AEDAT 2.0, see :func:`decode_aedat2`.
        invalid: Of AEDAT 3.1, see :func:`decode_aedat3`.

    Raises:
        DamagedFileError: The file cannot be decoded.
        RawDataError: See :func:`decode_aedat3`.
    """
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
