"""The decoder of each known format, chosen by a file's header, and the versions of all decoders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from plifctl.config.choices import Axes, InvalidEvents, OutsideEvents
from plifctl.config.dataset import ReadingSpec
from plifctl.data.events import Decoded, Events
from plifctl.data.formats import evt
from plifctl.data.formats.aedat2 import decode_aedat2, decode_davis, is_davis, summarise_aedat2
from plifctl.data.formats.aedat3 import decode_aedat3, summarise_aedat3
from plifctl.data.formats.aedat4 import decode_aedat4, summarise_aedat4
from plifctl.data.formats.arrays import decode_npy, decode_npz, summarise_npy
from plifctl.data.formats.atis import decode_atis
from plifctl.data.formats.columns import AS_USUAL
from plifctl.data.formats.dat import decode_dat, summarise_dat
from plifctl.data.formats.evt import decode_evt, summarise_evt
from plifctl.data.formats.hdf5 import decode_hdf5, summarise_hdf5
from plifctl.data.formats.headers import (
    HEADER_BYTES,
    METAVISION_INDEX,
    SAVE_WITH_NUMPY,
    describe_content,
    format_of,
    is_text,
)
from plifctl.data.formats.summary import NOTHING, Summary
from plifctl.data.formats.text import decode_text
from plifctl.errors import DamagedFileError, RawDataError

FIRST_VERSION = 1
"""Version of every decoder in plifctl 0.1.0."""


DECODER_VERSIONS = {
    "AEDAT 2.0": 1,
    "AEDAT 3.1": 1,
    "AEDAT 4": 1,
    "Prophesee .dat": 1,
    **dict.fromkeys(evt.FORMATS, 1),
    "numpy": 1,
    "zip": 1,
    "ATIS": 1,
    "IDX": 1,
    "CIFAR": 1,
    "text": 1,
    "HDF5": 1,
}
"""Version of the decoder of each format.

A version rises when the decoder gives other events or images for the same file. Caches of data read with the decoder
are then outdated; all others stay valid.
"""


def raised_versions(formats: Iterable[str]) -> dict[str, int]:
    """Returns the versions of the decoders of some formats and variants, without those that are as in plifctl 0.1.0."""
    from plifctl.data.formats.variants import VARIANTS

    versions = DECODER_VERSIONS | VARIANTS
    return {name: versions[name] for name in sorted(set(formats)) if versions[name] != FIRST_VERSION}


def _authors_axes(events: Events) -> Events:
    """Returns events of CIFAR10-DVS that SpikingJelly saved, with its own axes, with those of the authors' code."""
    t, x, y, p = events.columns
    return Events(t, y, (127 - x).astype(x.dtype), p)


def decode_any(
    data: bytes,
    *,
    where: str,
    axes: Axes | None = None,
    invalid: InvalidEvents,
    outside: OutsideEvents = "refuse",
    reading: ReadingSpec = AS_USUAL,
) -> Decoded:
    """Decodes a recording by its header; a file without a known header is decoded as ATIS, which has none.

    Events are as the file has them: :func:`~plifctl.data.framer.decode_recording` applies the orientation.

    Args:
        data: The file.
        where: Its name, for messages.
        axes: Of CIFAR10-DVS, see :func:`~plifctl.data.formats.aedat2.decode_aedat2`; None: of AEDAT 2.0 those of the
            authors, of other formats those of the file.
        invalid: Of AEDAT 3.1, see :func:`~plifctl.data.formats.aedat3.decode_aedat3`.
        outside: Of AEDAT 2.0, see :func:`~plifctl.data.formats.aedat2.decode_aedat2`.
        reading: What the file does not say about itself.

    Raises:
        DamagedFileError: The file cannot be decoded.
        RawDataError: See :func:`~plifctl.data.formats.aedat3.decode_aedat3`; or the format has no such axes.
    """
    name = format_of(data)
    match name:
        case "AEDAT 2.0" if is_davis(data, where):
            return decode_davis(data, where=where)
        case "AEDAT 2.0":
            return decode_aedat2(data, where=where, axes=axes or "authors", outside=outside)
        case "AEDAT 3.1":
            return decode_aedat3(data, where=where, invalid=invalid, source=reading.source)
        case "AEDAT 4" if axes == "spikingjelly":
            raise RawDataError(
                f"{where}: AEDAT 4, whose axes cannot be converted to frames.axes={axes}",
                hint="use the original files\nor keep x and y as they are: add --set frames.axes=authors",
            )
        case "AEDAT 4":
            return decode_aedat4(data, where=where, source=reading.source)
        case "Prophesee .dat":
            return decode_dat(data, where=where)
        case evt_name if evt_name in evt.FORMATS:
            return decode_evt(data, where=where)
        case "numpy":
            return decode_npy(data, where=where, reading=reading)
        case "zip":
            decoded = decode_npz(data, where=where, reading=reading)
            return decoded if axes != "authors" else decoded._replace(events=_authors_axes(decoded.events))
        case "HDF5":
            return decode_hdf5(data, where=where, reading=reading)
        case None if is_text(data):
            return decode_text(data, where=where, reading=reading)
        case None:
            return decode_atis(data, where=where)
        case _:
            raise DamagedFileError(
                f"{where}: {describe_content(data)}, which is not read; "
                f"expected a recording of a known format: {READABLE}",
                hint=_how_to_convert(name),
            )


def summarise_any(file: BinaryIO, reading: ReadingSpec = AS_USUAL) -> Summary:
    """Returns what a file states about its recording, without decoding events; of most formats a few reads.

    Args:
        file: The file.
        reading: What it does not say about itself; of files with several sources, which one is read.
    """
    name = format_of(file.read(HEADER_BYTES))
    file.seek(0)
    match name:
        case "AEDAT 2.0":
            return summarise_aedat2(file)
        case "AEDAT 3.1":
            return summarise_aedat3(file, reading.source)
        case "AEDAT 4":
            return summarise_aedat4(file, reading.source)
        case "Prophesee .dat":
            return summarise_dat(file)
        case evt_name if evt_name in evt.FORMATS:
            return summarise_evt(file)
        case "numpy":
            return summarise_npy(file)
        case "HDF5":
            return summarise_hdf5(file)
        case _:
            return NOTHING


READABLE = "AEDAT 2.0, 3.1 and 4, ATIS (.bin), Prophesee .dat and EVT (.raw), numpy (.npy, .npz), HDF5, text"
"""The formats of recordings that can be decoded, for messages."""


def _how_to_convert(format_name: str) -> str:
    if format_name == "gzip":
        return "unpack it: gunzip FILE, or tar xzf FILE if it is an archive"
    if format_name == METAVISION_INDEX:
        return "name the recording beside it; move the index out of the folder, or name it .tmp_index"
    if format_name.startswith("Prophesee EVT"):
        return f"with its camera's software, convert it: metavision_file_to_dat -i FILE\nor {SAVE_WITH_NUMPY}"
    if format_name == "Event Stream":
        return f"convert it: pip install faery; faery input file FILE.es output file FILE.csv\nor {SAVE_WITH_NUMPY}"
    if format_name == "MATLAB":
        return f"read it in Python: scipy.io.loadmat(FILE), h5py for version 7.3; then {SAVE_WITH_NUMPY}"
    return SAVE_WITH_NUMPY
