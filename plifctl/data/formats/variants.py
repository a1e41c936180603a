"""Files that the decoders of 0.1.0 read incorrectly, recognised without decoding them.

A corrected decoder gives other events for a few files only. Raising its version would outdate the caches of all
others as well. So these files are variants of their format with a version of their own, which becomes part of the keys
of caches that were read from them: see :func:`~plifctl.data.formats.detect.raised_versions`.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from plifctl.data.formats import aedat2, aedat3, dat
from plifctl.data.formats.clocks import MAX_STEP_BACK_US
from plifctl.data.formats.headers import format_of
from plifctl.errors import DamagedFileError

LARGE = 100_000
LARGE_IDX = f"IDX of more than {LARGE:,} images"
"""The ids of so many in a split had different numbers of digits, so that images were given ids and labels of others."""

VARIANTS = {
    "AEDAT 2.0 of a DAVIS": 2,
    "AEDAT 2.0 with times that jump": 2,
    "AEDAT 3.1 with times that jump": 2,
    "AEDAT 3.1 of several sources": 2,
    "ATIS with times that jump": 2,
    LARGE_IDX: 2,
    "Prophesee .dat of version 1": 2,
    "Prophesee .dat with times that jump": 2,
}
"""Version of the decoder's output for each variant."""


def variants_of(data: bytes, *, without_header: bool = False) -> list[str]:
    """Returns the variants that a file is; an empty list for most files, and for files that cannot be read.

    Args:
        data: The file.
        without_header: A file without a known header is an ATIS recording.
    """
    try:
        match format_of(data):
            case "AEDAT 2.0":
                found = ["AEDAT 2.0 of a DAVIS"] if aedat2.is_davis(data) else []
                return [*found, *_if_jumps("AEDAT 2.0", aedat2.times_of(data))]
            case "AEDAT 3.1":
                return _of_aedat3(data)
            case "Prophesee .dat":
                return _of_dat(data)
            case None if without_header:
                return _if_jumps("ATIS", _atis_times(data))
            case _:
                return []
    except DamagedFileError:
        return []


def _atis_times(data: bytes) -> np.ndarray:
    rows = np.frombuffer(data, np.uint8, len(data) // 5 * 5).reshape(-1, 5)
    high = rows[:, 2] & 0x7F
    if not (high[1:] < high[:-1]).any():  # no step back of more than 65.5 ms
        return high[:0]
    if (rows[:, 1] == 240).any():
        return high[:0]  # overflow marks: times are not in the events alone
    return (high.astype(np.int64) << 16) | (rows[:, 3].astype(np.int64) << 8) | rows[:, 4]


def _of_aedat3(data: bytes) -> list[str]:
    packets, sources, resets = aedat3.choose_source(aedat3.read_packets(data, ""))
    # of each packet the time of the first event and of the last
    times = [(one.time_of(data, 0), one.time_of(data, one.n_events - 1)) for one in packets]
    steps = [after[0] - before[1] for before, after in pairwise(times)]
    restarts = [step for at, step in enumerate(steps, 1) if step < (0 if at in resets else -MAX_STEP_BACK_US)]
    found = ["AEDAT 3.1 with times that jump"] if restarts else []
    return [*found, "AEDAT 3.1 of several sources"] if len(sources) > 1 else found


def _of_dat(data: bytes) -> list[str]:
    raw, version = dat.raw_events(data, "")
    found = ["Prophesee .dat of version 1"] if version < dat.CURRENT_VERSION else []
    steps = np.diff(raw["t"].astype(np.int64))
    overflow = 1 << 31  # of the clock, if a step back is larger, as it was read before
    jumps = ((steps < -MAX_STEP_BACK_US) & (steps >= -overflow)).any() or (steps > overflow).any()
    return [*found, "Prophesee .dat with times that jump"] if jumps else found


def _if_jumps(format_name: str, t: np.ndarray) -> list[str]:
    """Returns the variant of a format with times that jump, if the times ``t`` do."""
    steps = np.diff(t.astype(np.int64))
    return [f"{format_name} with times that jump"] if (steps < -MAX_STEP_BACK_US).any() else []
